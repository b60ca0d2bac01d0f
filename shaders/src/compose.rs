//! `#import KEY` in a WGSL text: the key names a slot that the choices fill, or a file of `wgsl/shared` itself.

use crate::kernel::{Choice, Kernel, import};

/// The whole WGSL of `kernel` with its import slots filled by `choices`.
///
/// *Errors*: names the slot that nothing fills.
pub fn compose(kernel: &Kernel, choices: &[Choice]) -> Result<String, String> {
    let mut text = String::new();
    for line in kernel.source.lines() {
        if let Some(key) = line.strip_prefix("#import ") {
            let key = key.trim();
            let file = choices.iter().find(|(slot, _)| *slot == key).map_or(key, |(_, file)| *file);
            let found = import(file).ok_or_else(|| format!("{}: nothing fills #import {key}", kernel.name))?;
            text.push_str(found.source);
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfilled_slot_is_an_error_that_names_it() {
        let error = compose(&crate::gemv::KERNEL, &[("x", "x_storage")]).unwrap_err();
        assert!(error.contains("gemv") && error.contains("weights"), "{error}");
    }

    #[test]
    fn the_chosen_file_stands_where_the_import_stood() {
        let text = compose(&crate::gemv::KERNEL, &[("x", "x_uniform"), ("weights", "weights_q8")]).unwrap();
        assert!(text.contains("var<uniform> x:") && text.contains("int8x4") && !text.contains("#import"));
    }
}
