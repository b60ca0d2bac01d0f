//! `healthgpt inspect`.

use crate::args::Inspect;
use crate::failure::Result;
use crate::output;
use runtime::file::Container;
use runtime::model::{Header, Task};
use serde_json::json;
use std::collections::BTreeMap;

/// The part of the model that a tensor belongs to.
fn part(tensor: &str) -> &str {
    tensor.split('.').next().unwrap_or(tensor)
}

pub fn run(args: &Inspect) -> Result {
    let container = Container::open(&args.model)?;
    let header = Header::read(&container)?;
    let mut parts: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, t) in container.tensors() {
        *parts.entry(part(name)).or_default() += t.bytes;
    }
    if args.json {
        let mut all = json!({
            "sha256": container.sha256(),
            "bytes": container.bytes(),
            "recipe": header.recipe,
            "config": header.config,
            "parts": parts,
        });
        if args.tensors {
            let describe = |t: &runtime::file::Stored| json!({"dtype": format!("{:?}", t.dtype), "shape": t.shape, "bytes": t.bytes, "sha256": t.sha256});
            all["tensors"] = container.tensors().iter().map(|(name, t)| (name.clone(), describe(t))).collect();
        }
        return output::json(&all);
    }
    let l = &header.config.language;
    let tasks: Vec<_> = Task::ALL.into_iter().filter(|t| header.config.task(*t).is_some()).map(Task::name).collect();
    output::line(format!(
        "{}: {:.1} MB, recipe {}, tasks {}",
        args.model.display(),
        container.bytes() as f64 / 1e6,
        header.recipe.name,
        tasks.join(", ")
    ))?;
    output::line(format!("sha256 {}", container.sha256()))?;
    output::line(format!(
        "language: {} layers, hidden {}, {} heads ({} kv) of {}, ffn {}, {} positions",
        l.layers, l.hidden, l.heads, l.kv_heads, l.head_dim, l.intermediate, l.max_positions
    ))?;
    if let Some(v) = &header.config.vision {
        output::line(format!(
            "vision: {} layers, hidden {}, {} px in patches of {}",
            v.layers, v.hidden, v.image, v.patch
        ))?;
    }
    for task in Task::ALL {
        if let Some(t) = header.config.task(task) {
            let a = &t.adapter;
            output::line(format!(
                "{}: H-LoRA rank {}, {} experts, scale {}; {} vision layers",
                task.name(),
                a.rank,
                a.experts,
                a.scale,
                t.vision_layers
            ))?;
        }
    }
    for (part, bytes) in parts {
        output::line(format!("{:>12.1} MB  {part}", bytes as f64 / 1e6))?;
    }
    if args.tensors {
        for (name, t) in container.tensors() {
            output::line(format!("{name}  {:?} {:?}  {} bytes  {}", t.dtype, t.shape, t.bytes, t.sha256))?;
        }
    }
    Ok(())
}
