//! `healthgpt trace`.

use crate::args::Trace;
use crate::failure::{FAILED, Failure, Result};
use crate::{input, open, output};
use runtime::text::{Sampling, Turn};
use runtime::{Request, Session, SessionOptions};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

pub fn run(args: &Trace) -> Result {
    let mut turns = input::history(args.choose.history.as_deref())?;
    turns.push(Turn { question: args.question.clone(), answer: None });
    let rgb = input::picture(&args.image)?;
    let model = open::model(&args.open, args.task)?;
    let picture = input::prepare(&model, rgb)?;
    let options = SessionOptions { traced: true, ..open::session(&args.open, args.task) };
    let mut session = Session::new(&model, options)?;
    let request = Request {
        picture: picture.as_ref(),
        max_tokens: args.choose.max_tokens,
        sampling: Sampling { temperature: args.choose.temperature, top_p: args.choose.top_p, seed: args.choose.seed },
        ..Request::new(&turns)
    };
    let trace = session.trace(&request)?;
    let failed = |e: String| Failure::new(FAILED, format!("{}: {e}", args.output.display()));
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = trace
        .tensors
        .iter()
        .map(|(name, t)| (name, &t.shape, t.values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views: Result<Vec<_>> = bytes
        .iter()
        .map(|(name, shape, data)| {
            let view = TensorView::new(Dtype::F32, shape.to_vec(), data).map_err(|e| failed(e.to_string()))?;
            Ok((*name, view))
        })
        .collect();
    safetensors::serialize_to_file(views?, None, &args.output).map_err(|e| failed(e.to_string()))?;
    output::json(&json!({
        "prompt": trace.prompt,
        "input_ids": trace.input_ids,
        "generated_ids": trace.generated_ids,
        "text": trace.text,
    }))
}
