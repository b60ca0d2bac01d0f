//! `healthgpt trace`.

use crate::args::{Task, Trace};
use crate::failure::{FAILED, Failure, Result};
use crate::{input, open, output};
use runtime::text::{Sampling, Turn};
use runtime::{Request, Session, SessionOptions, Values};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

pub fn run(args: &Trace) -> Result {
    output::check_files(&[Some(&args.output)], &[args.image.image.as_ref(), Some(&args.open.model)])?;
    let mut turns = input::history(args.choose.history.as_deref())?;
    turns.push(Turn { question: args.question.clone(), answer: None });
    let rgb = input::picture(&args.image)?;
    let model = open::model_to_trace(&args.open, args.task)?;
    let picture = input::prepare(&model, rgb)?;
    let options = SessionOptions { traced: true, ..open::session(&args.open.on, args.task, &model) };
    let mut session = Session::new(&model, options)?;
    let request = Request {
        picture: picture.as_ref(),
        max_tokens: args.choose.max_tokens.unwrap_or(if args.task == Task::Generate { usize::MAX } else { 512 }),
        sampling: Sampling { temperature: args.choose.temperature, top_p: args.choose.top_p, seed: args.choose.seed },
        ..Request::new(&turns)
    };
    let trace = session.trace(&request)?;
    let failed = |e: String| Failure::new(FAILED, format!("{}: {e}", args.output.display()));
    let bytes: Vec<(&String, &Vec<usize>, Dtype, Vec<u8>)> = trace
        .tensors
        .iter()
        .map(|(name, t)| {
            let (dtype, bytes) = match &t.values {
                Values::F32(values) => (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
                Values::I32(values) => (Dtype::I32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
                Values::U8(values) => (Dtype::U8, values.clone()),
            };
            (name, &t.shape, dtype, bytes)
        })
        .collect();
    let views: Result<Vec<_>> = bytes
        .iter()
        .map(|(name, shape, dtype, data)| {
            let view = TensorView::new(*dtype, shape.to_vec(), data).map_err(|e| failed(e.to_string()))?;
            Ok((*name, view))
        })
        .collect();
    let file = safetensors::serialize(views?, None).map_err(|e| failed(e.to_string()))?;
    output::write_file(&args.output, &file)?;
    let mut result = json!({
        "prompt": trace.prompt,
        "input_ids": trace.input_ids,
        "generated_ids": trace.generated_ids,
        "text": trace.text,
    });
    if let Some(codes) = trace.codes {
        result["codes"] = json!(codes);
    }
    output::json(&result)
}
