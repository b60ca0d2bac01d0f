//! What a model file says about itself.

use crate::Result;
use crate::model::{ModelFile, class_name, format_name, owner};
use crate::report::{Card, put, size, size_table};
use runtime::file::Layout;
use runtime::model::{Spec, Task};
use serde_json::{Value, json};

impl ModelFile {
    fn bytes(&self, spec: &Spec) -> u64 {
        spec.layouts(&self.recipe).iter().map(Layout::bytes).sum()
    }

    fn format(&self, spec: &Spec) -> String {
        format_name(&spec.kind, spec.format(&self.recipe))
    }

    /// Everything, for programs. With `tensors`, each stored plane too.
    ///
    /// *Errors*: a damaged header.
    pub fn as_json(&self, tensors: bool) -> Result<Value> {
        let mut classes: Vec<Value> = Vec::new();
        for (owner, class, format, count, bytes) in self.sums() {
            classes.push(json!({"for": owner, "class": class, "format": format, "tensors": count, "bytes": bytes}));
        }
        let mut all = json!({
            "path": self.container.path(),
            "bytes": self.container.bytes(),
            "sha256": self.container.sha256(),
            "producer": self.container.metadata("producer").ok(),
            "config": self.config,
            "recipe": self.recipe,
            "card": self.card()?,
            "sizes": classes,
        });
        if tensors {
            let list: Vec<Value> = self.specs.iter().map(|spec| {
                let planes: Vec<Value> = spec.layouts(&self.recipe).iter().map(|l| {
                    let sha256 = self.container.tensors().get(&l.name).map(|t| &t.sha256);
                    json!({"name": l.name, "dtype": l.dtype, "shape": l.shape, "bytes": l.bytes(), "sha256": sha256})
                }).collect();
                let sources = self.sources.get(&spec.name);
                json!({"name": spec.name, "class": class_name(&spec.kind), "format": self.format(spec), "planes": planes, "sources": sources})
            }).collect();
            all["tensors"] = Value::Array(list);
        }
        Ok(all)
    }

    /// How it was calibrated, if it was.
    ///
    /// *Errors*: it cannot be read.
    pub fn card(&self) -> Result<Option<Card>> {
        let Ok(card) = self.container.metadata("card") else { return Ok(None) };
        let wrong = |e: serde_json::Error| self.container.wrong(format!("has a damaged `card`: {e}"));
        Ok(Some(serde_json::from_str(card).map_err(wrong)?))
    }

    fn sums(&self) -> Vec<(&'static str, &'static str, String, usize, u64)> {
        let mut sums: std::collections::BTreeMap<_, (usize, u64)> = std::collections::BTreeMap::new();
        for spec in &self.specs {
            let sum = sums.entry((owner(&spec.name), class_name(&spec.kind), self.format(spec))).or_default();
            *sum = (sum.0 + 1, sum.1 + self.bytes(spec));
        }
        sums.into_iter().map(|((o, c, f), (n, b))| (o, c, f, n, b)).collect()
    }

    /// Everything, for people. With `tensors`, each with its size, the begin of its hash, and its sources.
    ///
    /// *Errors*: a damaged header.
    pub fn as_text(&self, tensors: bool) -> Result<String> {
        let mut out = String::new();
        let (c, l) = (&self.config, &self.config.language);
        let say = &mut out;
        put(say, format!("{}: {}", self.container.path().display(), size(self.container.bytes())));
        put(say, format!("sha256      {}", self.container.sha256()));
        put(say, format!("producer    {}", self.container.metadata("producer").unwrap_or("not named")));
        put(say, format!("recipe      {}, rounded to {}", self.recipe.name, self.recipe.method));
        say.push_str(&self.card()?.map_or_else(String::new, |card| card.text()));
        put(
            say,
            format!(
                "language    {} layers, hidden {}, {} heads of {} ({} for keys and values), inner {}",
                l.layers, l.hidden, l.heads, l.head_dim, l.kv_heads, l.intermediate
            ),
        );
        let window = l.sliding_window.map_or("none".into(), |w| w.to_string());
        put(
            say,
            format!(
                "            {} positions, sliding window {window}, rope theta {}, stop ids {:?}",
                l.max_positions, l.rope_theta, l.stop_ids
            ),
        );
        put(
            say,
            format!(
                "vocabulary  {} tokens, {} codes, {} rows",
                c.vocabulary.tokens,
                c.vocabulary.codes,
                c.vocabulary.rows()
            ),
        );
        if let Some(v) = &c.vision {
            put(
                say,
                format!(
                    "vision      {} layers stored, hidden {}, {} heads, {} px in patches of {}, {}",
                    v.layers, v.hidden, v.heads, v.image, v.patch, v.activation
                ),
            );
        }
        for task in Task::ALL {
            let Some(t) = c.task(task) else { continue };
            let a = &t.adapter;
            let alpha = f64::from(a.scale) * a.rank as f64 / a.experts as f64;
            put(
                say,
                format!(
                    "{:<11} vision layer {}, embedding of {} rows, head of {}, adapter of rank {}, {} experts, alpha {alpha}",
                    task.name(),
                    t.vision_layers,
                    t.embed_rows,
                    t.head_rows,
                    a.rank,
                    a.experts
                ),
            );
        }
        if let Some(q) = &c.vqgan {
            put(
                say,
                format!(
                    "vqgan       {} codes of {}, grid {} x {}, picture {} x {}",
                    q.codes,
                    q.embed,
                    q.grid,
                    q.grid,
                    q.grid << (q.multiples.len() - 1),
                    q.grid << (q.multiples.len() - 1)
                ),
            );
        }
        let formats: Vec<(String, u64)> = self.specs.iter().map(|s| (self.format(s), self.bytes(s))).collect();
        let rows =
            self.specs.iter().zip(&formats).map(|(s, (f, b))| (owner(&s.name), class_name(&s.kind), f.as_str(), *b));
        put(say, format!("\n{}", size_table(rows)));
        if tensors {
            for spec in &self.specs {
                for layout in spec.layouts(&self.recipe) {
                    let hash = self
                        .container
                        .tensors()
                        .get(&layout.name)
                        .map_or("", |t| t.sha256.get(..16).unwrap_or_default());
                    put(
                        say,
                        format!(
                            "{:<44} {:<5} {:<20} {:>12} {hash}",
                            layout.name,
                            format!("{:?}", layout.dtype),
                            format!("{:?}", layout.shape),
                            layout.bytes()
                        ),
                    );
                }
                for source in self.sources.get(&spec.name).into_iter().flatten() {
                    put(say, format!("    from {source}"));
                }
            }
        } else {
            let mut files: Vec<&str> =
                self.sources.values().flatten().filter_map(|s| s.rsplit_once(": ").map(|p| p.0)).collect();
            files.sort_unstable();
            files.dedup();
            put(say, "made from".into());
            for file in files {
                put(say, format!("    {file}"));
            }
        }
        Ok(out)
    }
}
