//! What decoding reads, from the header alone: told before anything is opened.

use super::{Header, Task};
use shaders::KvFormat;

impl Header {
    fn bytes_of(&self, is_wanted: impl Fn(&str) -> bool) -> u64 {
        let specs = self.config.tensors().into_iter().filter(|spec| is_wanted(&spec.name));
        specs.flat_map(|spec| spec.layouts(&self.recipe)).map(|layout| layout.bytes()).sum()
    }

    /// Bytes that a token reads when it is decoded behind so many positions: the weights of the language model, the adapter
    /// and the rows of the head that the task can draw, and the cache.
    pub fn bytes_per_token(&self, task: Task, kv: KvFormat, positions: usize) -> u64 {
        let own = format!("{}.", task.name());
        let layers = self.bytes_of(|name| name.starts_with("language.") || name.starts_with(&format!("{own}layers.")));
        let head = self.bytes_of(|name| name == format!("{own}head"));
        let rows = self.config.task(task).map_or(1, |t| t.head_rows.max(1)) as u64;
        let drawn = match task {
            Task::Ask => rows,
            Task::Generate => (self.config.vocabulary.codes as u64 + 2).min(rows),
        };
        let l = &self.config.language;
        let cache = 2 * l.layers as u64 * kv.bytes(positions * l.kv_heads * l.head_dim) as u64;
        layers + head / rows * drawn + cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_m3_reads_what_is_known() {
        // devices.md 1: weights 2.0 to 2.1 GB with the head, adapter 0.1, 393,216 bytes a position.
        let m3 = Header::m3(32, 32).unwrap();
        let [none, some] = [0, 640].map(|positions| m3.bytes_per_token(Task::Ask, KvFormat::F16, positions));
        assert_eq!(some - none, 640 * 393_216);
        assert!((2_200_000_000..2_400_000_000).contains(&none), "{none}");
        assert!(m3.bytes_per_token(Task::Generate, KvFormat::F16, 0) > none);
    }
}
