//! The prompt on which HealthGPT-M3 was trained, as text and as slots for token ids and the picture.

use super::{Piece, Tokenizer};
use crate::{Error, Result};

/// What the system turn says.
pub const SYSTEM: &str = "You are a helpful AI assistant.";

/// Stands for the picture in [`Prompt::input_ids`], as in LLaVA and the published code.
pub const PICTURE_MARK: i64 = -200;

const OPEN: &str = "<|system|>\n";
const TO_USER: &str = "<|end|>\n<|user|>\n";
const TO_ASSISTANT: &str = "<|end|>\n<|assistant|>\n";
const PICTURE: &str = "<image>";
const START: &str = "<start_index>";

/// One question and, unless it is the one to be answered now, its answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    /// What the user asks or wants drawn.
    pub question: String,
    /// What was answered; `None` for the last turn only.
    pub answer: Option<String>,
}

/// One place in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// A token id.
    Token(u32),
    /// All rows of the picture.
    Picture,
}

/// A whole prompt. No `Debug` here or on [`Turn`]: it is patients' data.
#[derive(Clone, PartialEq, Eq)]
pub struct Prompt {
    /// As text, with `<image>` for the picture.
    pub text: String,
    /// What the language model is given, in order.
    pub slots: Vec<Slot>,
}

impl Prompt {
    /// Token ids, with [`PICTURE_MARK`] for the picture.
    pub fn input_ids(&self) -> Vec<i64> {
        let id = |slot: &Slot| match *slot {
            Slot::Token(id) => i64::from(id),
            Slot::Picture => PICTURE_MARK,
        };
        self.slots.iter().map(id).collect()
    }
}

/// Builds the prompt of a conversation. `picture`: there is one, shown with the first question.
/// `generate`: the answer is to be a picture. `system`: what the system turn says, [`SYSTEM`] by default. What users wrote
/// is text, never a special token.
///
/// A tokenizer that lacks the template's tokens takes them as text, as the published code would.
///
/// *Errors*: [`Error::Input`] if the last turn has an answer or an earlier one has none.
///
/// *Source*: `phi3_instruct` of the published code.
pub fn build(
    tokenizer: &Tokenizer,
    turns: &[Turn],
    picture: bool,
    generate: bool,
    system: Option<&str>,
) -> Result<Prompt> {
    check(tokenizer, turns, generate)?;
    let mut chunks = vec![vec![Piece::Template(OPEN), system.map_or(Piece::Template(SYSTEM), Piece::Text)]];
    for (i, turn) in turns.iter().enumerate() {
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(Piece::Template(TO_USER));
        }
        if picture && i == 0 {
            chunks.push(vec![Piece::Template("\n")]);
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(Piece::Text(&turn.question));
            chunk.push(Piece::Template(TO_ASSISTANT));
            chunk.extend(turn.answer.as_deref().map(Piece::Text));
        }
    }
    if let (true, Some(chunk)) = (generate, chunks.last_mut()) {
        chunk.push(Piece::Template(START));
    }
    let mut prompt = Prompt { text: String::new(), slots: Vec::new() };
    for (i, chunk) in chunks.iter().enumerate() {
        if i > 0 {
            prompt.text.push_str(PICTURE);
            prompt.slots.push(Slot::Picture);
        }
        for piece in chunk {
            let (Piece::Template(text) | Piece::Text(text)) = piece;
            prompt.text.push_str(text);
        }
        let ids = tokenizer.encode(chunk, i == 0)?;
        prompt.slots.extend(ids.into_iter().map(Slot::Token));
    }
    Ok(prompt)
}

fn check(tokenizer: &Tokenizer, turns: &[Turn], generate: bool) -> Result<()> {
    let fail = |what: &str, problem: String| Err(Error::Input { what: what.into(), problem });
    let Some((last, earlier)) = turns.split_last() else {
        return fail("question", "there is none".into());
    };
    if last.answer.is_some() {
        return fail("question", "the last turn is answered already".into());
    }
    if let Some(i) = earlier.iter().position(|t| t.answer.is_none()) {
        return fail("--history", format!("turn {} has no answer", i + 1));
    }
    if generate && tokenizer.start_index().is_none() {
        return fail("generate", "this model has no picture codes".into());
    }
    Ok(())
}
