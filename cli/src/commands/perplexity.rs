//! `healthgpt perplexity`.

use crate::args::{Perplexity, Task};
use crate::failure::Result;
use crate::{input, open, output};
use runtime::{Session, SessionOptions};
use serde_json::json;

pub fn run(args: &Perplexity) -> Result {
    let text = input::text(&args.file)?;
    let model = open::model(&args.open, Task::Ask)?;
    let options = open::session(&args.open.on, Task::Ask, &model);
    // Where nothing is said, as long as the text: a token has at least a byte, but for a mark or two at the start.
    let most = model.header().config.language.max_positions;
    let context = options.context.or_else(|| Some((text.len() + 2).min(most)));
    let mut session = Session::new(&model, SessionOptions { context, ..options })?;
    let result = session.perplexity(&text)?;
    if args.json {
        let (tokens, nll, perplexity) = (result.tokens, result.nll, result.perplexity());
        return output::json(&json!({"tokens": tokens, "nll": nll, "perplexity": perplexity}));
    }
    output::line(format!("perplexity {:.4} over {} tokens (nll {:.4})", result.perplexity(), result.tokens, result.nll))
}
