//! What a model takes of a device and how fast it could be there at best, from its header: told before anything is
//! opened.

use super::{Header, Task};
use shaders::KvFormat;

/// How a model is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Tasks that it is opened for, each with a session.
    pub tasks: Vec<Task>,
    /// Format of the cache.
    pub kv: KvFormat,
    /// Positions of the cache.
    pub context: usize,
    /// Most tokens of a prefill chunk.
    pub chunk: usize,
}

impl Header {
    fn bytes_of(&self, is_wanted: impl Fn(&str) -> bool) -> u64 {
        let specs = self.config.tensors().into_iter().filter(|spec| is_wanted(&spec.name));
        specs.flat_map(|spec| spec.layouts(&self.recipe)).map(|layout| layout.bytes()).sum()
    }

    /// Bytes of a cache of so many positions.
    fn kv_bytes(&self, kv: KvFormat, positions: usize) -> u64 {
        let l = &self.config.language;
        2 * l.layers as u64 * kv.bytes(positions * l.kv_heads * l.head_dim) as u64
    }

    /// Bytes that a token reads when it is decoded behind so many positions: the weights of the language model, the adapter
    /// and the rows of the head that the task can draw, and the cache.
    pub fn bytes_per_token(&self, task: Task, kv: KvFormat, positions: usize) -> u64 {
        let own = format!("{}.", task.name());
        let layers = self.bytes_of(|name| name.starts_with("language.") || name.starts_with(&format!("{own}layers.")));
        let head = self.bytes_of(|name| name == format!("{own}head") || name.starts_with(&format!("{own}head.")));
        let rows = self.config.task(task).map_or(1, |t| t.head_rows.max(1)) as u64;
        let drawn = match task {
            Task::Ask => rows,
            Task::Generate => (self.config.vocabulary.codes as u64 + 2).min(rows),
        };
        layers + head / rows * drawn + self.kv_bytes(kv, positions)
    }

    /// Bytes on the device of the model and its sessions.
    pub fn planned_bytes(&self, plan: &Use) -> u64 {
        let config = &self.config;
        let (l, tasks) = (&config.language, &plan.tasks);
        let layers = tasks.iter().filter_map(|t| config.task(*t)).map(|t| t.vision_layers).max().unwrap_or(0);
        let weights = self.bytes_of(|name| {
            let mut parts = name.split('.');
            match parts.next() {
                Some("language") => true,
                Some("vision") => match (parts.next(), parts.next().and_then(|i| i.parse::<usize>().ok())) {
                    (Some("layers"), Some(layer)) => layer < layers,
                    _ => true,
                },
                Some("vqgan") => tasks.contains(&Task::Generate),
                Some(task) => tasks.iter().any(|t| t.name() == task),
                None => false,
            }
        });
        // An estimate: q, k and v, both halves of the feed-forward network, its product, the stream and what is added to it.
        let qkv = (l.heads + 2 * l.kv_heads) * l.head_dim;
        let activations = plan.chunk * (qkv + 3 * l.intermediate + 3 * l.hidden) * 4;
        let vision = config.vision.as_ref().map_or(0, |v| v.patches() * (2 * v.intermediate + 4 * v.hidden) * 4);
        let decoder = config.vqgan.as_ref().filter(|_| tasks.contains(&Task::Generate));
        let decoder = decoder.map_or(0, |q| 4 * q.side() * q.side() * q.channels * 4);
        let scratch = activations.max(vision).max(decoder) as u64;
        weights + tasks.len() as u64 * (self.kv_bytes(plan.kv, plan.context) + scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(tasks: &[Task], kv: KvFormat, context: usize) -> Use {
        Use { tasks: tasks.to_vec(), kv, context, chunk: 64 }
    }

    /// The table of devices.md 1: within a tenth, for that counts as if adapters were f16.
    #[test]
    fn m3_takes_what_it_is_known_to_take() {
        let m3 = Header::m3(32);
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let kv = gigabytes(m3.kv_bytes(KvFormat::F16, 2048));
        assert!((kv - 0.81).abs() < 0.01, "{kv}");
        let token = gigabytes(m3.bytes_per_token(Task::Ask, KvFormat::F16, 640));
        assert!((token - 2.6).abs() < 0.26, "{token}");
        let ask = m3.planned_bytes(&plan(&[Task::Ask], KvFormat::F16, 2048));
        assert!((gigabytes(ask) - 4.2).abs() < 0.42, "{ask}");
        let both = m3.planned_bytes(&plan(&Task::ALL, KvFormat::F16, 2048));
        assert!(both > ask);
        assert!(m3.planned_bytes(&plan(&[Task::Ask], KvFormat::Q8, 1024)) < ask);
    }
}
