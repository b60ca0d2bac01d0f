//! Reading what the user names: pictures, histories, texts.

use crate::args::Image;
use crate::failure::{FAILED, Failure, PICTURE, Result, USAGE};
use runtime::Model;
use runtime::image::{Options, RgbPicture, decode};
use runtime::text::Turn;
use std::io::Read;
use std::path::Path;

/// Larger picture files are not read.
const MAX_PICTURE_BYTES: u64 = 1 << 30;

/// The picture of the command line, decoded and cut.
pub fn picture(image: &Image) -> Result<Option<RgbPicture>> {
    let Some(path) = &image.image else { return Ok(None) };
    let picture = match path.as_os_str() == "-" {
        true => decode_from(Ok(std::io::stdin().lock()), path, image.frame)?,
        false => picture_file(path, image.frame)?,
    };
    Ok(Some(picture.crop(image.crop)?))
}

/// A frame of a picture file.
pub fn picture_file(path: &Path, frame: u32) -> Result<RgbPicture> {
    decode_from(std::fs::File::open(path), path, frame)
}

fn decode_from(source: std::io::Result<impl Read>, path: &Path, frame: u32) -> Result<RgbPicture> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = source.and_then(|s| s.take(MAX_PICTURE_BYTES).read_to_end(&mut bytes));
    read.map_err(|e| Failure::new(PICTURE, format!("picture {name}: {e}")))?;
    Ok(decode(&bytes, &name, Options { frame })?)
}

/// The picture as the model takes it.
pub fn prepare(model: &Model, picture: Option<RgbPicture>) -> Result<Option<runtime::Picture>> {
    Ok(picture.map(|p| model.picture(&p)).transpose()?)
}

/// Earlier turns.
pub fn history(path: Option<&Path>) -> Result<Vec<Turn>> {
    #[derive(serde::Deserialize)]
    struct Earlier {
        question: String,
        answer: String,
    }
    let Some(path) = path else { return Ok(Vec::new()) };
    let wrong = |e: String| Failure::new(USAGE, format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let turns: Vec<Earlier> = serde_json::from_str(&text)
        .map_err(|e| wrong(format!("not a history, [{{\"question\": …, \"answer\": …}}, …]: {e}")))?;
    Ok(turns.into_iter().map(|t| Turn { question: t.question, answer: Some(t.answer) }).collect())
}

/// A text file.
pub fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Failure::new(FAILED, format!("{}: {e}", path.display())))
}
