//! What is shown to a model to learn what goes into its linears: texts, questions about pictures, pictures to be drawn.

use super::phantom::{INSTRUCTIONS, Phantom, codes};
use crate::{Error, Result};
use runtime::image::{self, RgbPicture};
use runtime::model::{Config, Task};
use runtime::text::{Piece, Slot, Tokenizer, Turn, build};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use shaders::embed::PICTURE_ROW;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Tokens of a piece of running text.
const TEXT_TOKENS: usize = 512;
/// Shorter pieces are left out.
const LEAST_TOKENS: usize = 16;
/// One of so many sequences is held back to judge by.
const HOLD_BACK: usize = 8;
/// No longer sequence is run.
const MOST_TOKENS: usize = 2048;
/// Files beyond this are no calibration data.
const MAX_BYTES: u64 = 256 << 20;
/// Built-in pictures by task; each of them is several hundred tokens on the full model.
const BUILT_IN_PICTURES: [usize; 2] = [8, 3];

const TEXTS: &str = include_str!("texts.txt");

/// What a set is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To learn from most of it and to judge by the rest.
    Learn,
    /// To judge by all of it; texts stay whole.
    Judge,
}

/// A run of positions.
#[derive(Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Whose table, projector and adapters it runs with.
    pub task: Task,
    /// By position: a token id, or a row of the picture as in [`shaders::embed`].
    pub ids: Vec<u32>,
    /// Place in [`Set::pictures`].
    pub picture: Option<usize>,
    /// Nothing is learnt from it; what was learnt is judged by it.
    pub held_back: bool,
}

/// Calibration data, ready for a model.
pub struct Set {
    /// In the order in which they are run.
    pub sequences: Vec<Sequence>,
    /// What the sequences show.
    pub pictures: Vec<RgbPicture>,
    /// Where it comes from, in words.
    pub source: String,
    /// SHA-256 of the data as given, in hexadecimal.
    pub sha256: String,
}

/// One entry before it is tokens.
enum Item {
    Text(String),
    Question { picture: Option<Shown>, question: String, answer: Option<String> },
    Drawing { picture: Option<Shown>, instruction: String, codes: Vec<u32> },
}

#[derive(Clone)]
enum Shown {
    File(PathBuf),
    Phantom(u64),
}

impl Set {
    /// What is built in.
    ///
    /// *Errors*: none that depends on data.
    pub fn built_in(config: &Config, tokenizer: &Tokenizer, purpose: Purpose, most_tokens: usize) -> Result<Self> {
        let mut items = Vec::new();
        for block in TEXTS.split("\n\n").map(str::trim).filter(|b| !b.is_empty()) {
            items.push(match block.strip_prefix("Q: ").and_then(|rest| rest.split_once("\nA: ")) {
                Some((q, a)) => Item::Question { picture: None, question: q.into(), answer: Some(a.into()) },
                None => Item::Text(block.into()),
            });
        }
        if config.vision.is_some() {
            for (task, count) in Task::ALL.into_iter().zip(BUILT_IN_PICTURES) {
                for number in (0..count as u64).filter(|_| config.task(task).is_some()) {
                    let picture = Some(Shown::Phantom(number));
                    // Where phantoms and texts take turns, so do those that are held back.
                    let at = (number as usize + 1) * items.len() / (count + 1);
                    items.insert(
                        at,
                        match (task, &config.vqgan) {
                            (Task::Generate, Some(q)) => Item::Drawing {
                                picture,
                                instruction: INSTRUCTIONS[number as usize % INSTRUCTIONS.len()].into(),
                                codes: codes(number, q.grid, q.codes),
                            },
                            _ => {
                                let (question, answer) = Phantom::new(number).question(number as usize);
                                Item::Question { picture, question: question.into(), answer: Some(answer) }
                            }
                        },
                    );
                }
            }
        }
        let mut hash = Sha256::new();
        hash.update(TEXTS);
        Self::of(items, config, tokenizer, (purpose, most_tokens), "built in".into(), hash)
    }

    /// Text files as they are, with chat templates acting; `.jsonl` and `.json` files with questions (`image`, `question`,
    /// `answer`, as `healthgpt eval` takes them) and drawings (`image`, `instruction`, `codes`). Of a folder every file that
    /// ends with `.txt`, `.md` or `.jsonl`, at any depth, in the order of their paths.
    ///
    /// *Errors*: a file that cannot be read or says something wrong, with the line; too little data.
    pub fn read(
        path: &Path,
        config: &Config,
        tokenizer: &Tokenizer,
        purpose: Purpose,
        most_tokens: usize,
    ) -> Result<Self> {
        let mut files = Vec::new();
        if path.is_dir() {
            collect(path, &mut files)?;
            files.sort();
            if files.is_empty() {
                return Err(Error::file(path, "holds no .txt, .md or .jsonl file to calibrate with"));
            }
        } else {
            files.push(path.to_owned());
        }
        let (mut items, mut hash) = (Vec::new(), Sha256::new());
        for file in &files {
            let wrong = |problem: String| Error::file(file, problem);
            let bytes = fs::metadata(file).map_err(|e| wrong(e.to_string()))?.len();
            if bytes > MAX_BYTES {
                return Err(wrong(format!("is {bytes} bytes long; calibration data has at most {MAX_BYTES}")));
            }
            let bytes = fs::read(file).map_err(|e| wrong(e.to_string()))?;
            hash.update(Sha256::digest(&bytes));
            let text = String::from_utf8(bytes).map_err(|_| wrong("is no text in UTF-8".into()))?;
            let text = text.trim_start_matches('\u{feff}');
            match file.extension().and_then(|e| e.to_str()) {
                Some("jsonl" | "json") => records(text, file, &mut items).map_err(wrong)?,
                _ => items.push(Item::Text(text.trim_end().into())),
            }
        }
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        Self::of(items, config, tokenizer, (purpose, most_tokens), name, hash)
    }

    fn of(
        items: Vec<Item>,
        config: &Config,
        tokenizer: &Tokenizer,
        (purpose, most_tokens): (Purpose, usize),
        source: String,
        mut hash: Sha256,
    ) -> Result<Self> {
        let mut sequences = Vec::new();
        let mut shown = Vec::new();
        let longest = MOST_TOKENS.min(config.language.max_positions);
        for item in items {
            sequence(item, config, tokenizer, purpose, &mut shown, &mut sequences)?;
        }
        sequences.iter_mut().for_each(|s| s.ids.truncate(longest));
        sequences.retain(|s| s.ids.len() >= LEAST_TOKENS);
        let mut sequences = thin(sequences, most_tokens);
        if purpose == Purpose::Judge {
            if sequences.is_empty() {
                let problem = format!("holds no text of {LEAST_TOKENS} tokens");
                return Err(Error::Usage(format!("data to compare on ({source}) {problem}")));
            }
            sequences.iter_mut().for_each(|s| s.held_back = true);
        } else {
            lend(&mut sequences, config);
            hold_back(&mut sequences);
        }
        for task in Task::ALL.into_iter().filter(|t| config.task(*t).is_some()) {
            let count = sequences.iter().filter(|s| s.task == task).count();
            if purpose == Purpose::Learn && count < 2 {
                let problem = format!("{count} sequences for {}; at least 2 are needed, one is held back", task.name());
                return Err(Error::Usage(format!("calibration data ({source}): {problem}")));
            }
        }
        // Only what is still shown is read.
        let mut pictures = Vec::new();
        let mut known: BTreeMap<usize, usize> = BTreeMap::new();
        for s in &mut sequences {
            let Some(at) = s.picture else { continue };
            if let std::collections::btree_map::Entry::Vacant(entry) = known.entry(at) {
                let picture = match &shown[at] {
                    Shown::Phantom(number) => Phantom::new(*number).picture,
                    Shown::File(path) => {
                        let bytes = fs::read(path).map_err(|e| Error::file(path, e.to_string()))?;
                        hash.update(Sha256::digest(&bytes));
                        image::decode(&bytes, &path.to_string_lossy(), Default::default())?
                    }
                };
                entry.insert(pictures.len());
                pictures.push(picture);
            }
            s.picture = known.get(&at).copied();
        }
        let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Set { sequences, pictures, source, sha256 })
    }

    /// Positions that are learnt from.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().filter(|s| !s.held_back).map(|s| s.ids.len()).sum()
    }

    /// The longest sequence.
    pub fn longest(&self) -> usize {
        self.sequences.iter().map(|s| s.ids.len()).max().unwrap_or(0)
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let wrong = |e: std::io::Error| Error::file(folder, e.to_string());
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("txt" | "md" | "jsonl")) {
            files.push(path);
        }
    }
    Ok(())
}

/// Entries of a JSON array or of a JSON object a line.
fn records(text: &str, file: &Path, items: &mut Vec<Item>) -> Result<(), String> {
    let all: Vec<Map<String, Value>> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|e| format!("is no list of questions: {e}"))?
    } else {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(i, l)| serde_json::from_str(l).map_err(|e| format!("line {}: {e}", i + 1)))
            .collect::<Result<_, _>>()?
    };
    for (i, raw) in all.iter().enumerate() {
        let text = |keys: &[&str]| keys.iter().find_map(|k| raw.get(*k)?.as_str()).map(str::to_owned);
        let picture = text(&["image", "image_name", "img_name", "image_path"]);
        let picture = picture.map(|name| Shown::File(file.with_file_name(name)));
        let question = text(&["question"]);
        let answer = text(&["answer", "gt_answer"]);
        items.push(match (question, text(&["instruction"]), text(&["text"])) {
            (Some(question), ..) => Item::Question { picture, question, answer },
            (_, Some(instruction), _) => {
                let codes = raw.get("codes").cloned().unwrap_or_default();
                let codes = serde_json::from_value(codes).map_err(|e| format!("record {}: codes: {e}", i + 1))?;
                Item::Drawing { picture, instruction, codes }
            }
            (_, _, Some(text)) => Item::Text(text),
            _ => return Err(format!("record {} has no question, instruction or text", i + 1)),
        });
    }
    Ok(())
}

/// The task that texts and questions belong to.
fn first_task(config: &Config) -> Task {
    if config.ask.is_some() { Task::Ask } else { Task::Generate }
}

/// The positions of an entry; a long text makes several sequences.
fn sequence(
    item: Item,
    config: &Config,
    tokenizer: &Tokenizer,
    purpose: Purpose,
    shown: &mut Vec<Shown>,
    out: &mut Vec<Sequence>,
) -> Result<()> {
    let mut add = |task: Task, ids: Vec<u32>, picture: Option<Shown>| {
        let picture = picture.map(|p| {
            shown.push(p);
            shown.len() - 1
        });
        out.push(Sequence { task, ids, picture, held_back: false });
    };
    match item {
        Item::Text(text) => {
            // What stands before every text.
            let first = tokenizer.encode(&[], true)?;
            let ids = tokenizer.encode(&[Piece::Template(&text)], false)?;
            // Of a short text pieces too, so that one can be held back.
            let length = match purpose {
                Purpose::Learn => (ids.len() / 4).clamp(LEAST_TOKENS, TEXT_TOKENS),
                Purpose::Judge => MOST_TOKENS.min(config.language.max_positions) - first.len(),
            };
            for piece in ids.chunks(length) {
                add(first_task(config), [&first[..], piece].concat(), None);
            }
        }
        Item::Question { picture, question, answer } => {
            let task = first_task(config);
            let picture = picture.filter(|_| config.vision.is_some());
            let mut ids = prompt(config, tokenizer, question, picture.is_some(), false)?;
            if let Some(answer) = answer {
                ids.extend(after_assistant(tokenizer, &[Piece::Text(&answer), Piece::Template("<|end|>")])?);
            }
            add(task, ids, picture);
        }
        Item::Drawing { picture, instruction, codes } => {
            if config.generate.is_none() {
                return Ok(());
            }
            let picture = picture.filter(|_| config.vision.is_some());
            let mut ids = prompt(config, tokenizer, instruction, picture.is_some(), true)?;
            let (first, of) = (config.vocabulary.tokens as u32 + 1, config.vocabulary.codes as u32);
            if let Some(code) = codes.iter().find(|c| **c >= of) {
                return Err(Error::Usage(format!("calibration data: code {code}; this model has {of}")));
            }
            ids.extend(codes.iter().map(|c| first + c));
            ids.push(first + of);
            add(Task::Generate, ids, picture);
        }
    }
    Ok(())
}

/// Positions of a prompt, picture rows included.
fn prompt(config: &Config, tokenizer: &Tokenizer, question: String, picture: bool, draw: bool) -> Result<Vec<u32>> {
    let rows = config.vision.as_ref().map_or(0, |v| v.patches()) as u32;
    let prompt = build(tokenizer, &[Turn { question, answer: None }], picture, draw, None)?;
    let slots = prompt.slots.iter().flat_map(|slot| match slot {
        Slot::Token(id) => vec![*id],
        Slot::Picture => (0..rows).map(|row| PICTURE_ROW | row).collect(),
    });
    Ok(slots.collect())
}

/// Ids of what stands after the assistant's mark.
fn after_assistant(tokenizer: &Tokenizer, pieces: &[Piece]) -> Result<Vec<u32>> {
    let mark = Piece::Template("<|assistant|>\n");
    let before = tokenizer.encode(&[mark], false)?;
    let all = tokenizer.encode(&[&[mark], pieces].concat(), false)?;
    let common = before.iter().zip(&all).take_while(|(a, b)| a == b).count();
    Ok(all[common..].to_vec())
}

/// Evenly spread sequences of about so many tokens, those that are held back on top; of each task the first two in any case.
fn thin(sequences: Vec<Sequence>, most_tokens: usize) -> Vec<Sequence> {
    let total: usize = sequences.iter().map(|s| s.ids.len()).sum();
    let most = most_tokens + most_tokens / (HOLD_BACK - 1);
    if total <= most {
        return sequences;
    }
    let (mut left, mut seen) = (0.0, BTreeMap::new());
    let share = most as f64 / total as f64;
    let keep = |s: &Sequence| {
        let seen: &mut usize = seen.entry(s.task).or_default();
        *seen += 1;
        left += share;
        let kept = left >= 1.0;
        left -= if kept { 1.0 } else { 0.0 };
        kept || *seen <= 2
    };
    sequences.into_iter().filter(keep).collect()
}

/// A task without any sequence takes every other one of those that show it nothing foreign.
fn lend(sequences: &mut [Sequence], config: &Config) {
    for task in Task::ALL.into_iter().filter(|t| config.task(*t).is_some()) {
        if sequences.iter().all(|s| s.task != task) {
            let codes = config.vocabulary.tokens as u32..PICTURE_ROW;
            let plain = sequences.iter_mut().filter(|s| s.ids.iter().all(|id| !codes.contains(id)));
            plain.skip(1).step_by(2).for_each(|s| s.task = task);
        }
    }
}

/// Of each task the last of every few.
fn hold_back(sequences: &mut [Sequence]) {
    for task in Task::ALL {
        let own: Vec<&mut Sequence> = sequences.iter_mut().filter(|s| s.task == task).collect();
        let every = HOLD_BACK.min(own.len());
        own.into_iter()
            .enumerate()
            .filter(|(i, _)| i % every.max(1) == every - 1)
            .for_each(|(_, s)| s.held_back = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence_of(task: Task, tokens: usize) -> Sequence {
        Sequence { task, ids: vec![7; tokens], picture: None, held_back: false }
    }

    #[test]
    fn every_task_has_something_to_learn_from_and_something_to_be_judged_by() {
        for (ask, generate) in [(2, 2), (3, 9), (20, 5), (16, 2)] {
            let mut all: Vec<_> = (0..ask).map(|_| sequence_of(Task::Ask, 20)).collect();
            all.extend((0..generate).map(|_| sequence_of(Task::Generate, 20)));
            hold_back(&mut all);
            for (task, count) in [(Task::Ask, ask), (Task::Generate, generate)] {
                let held = all.iter().filter(|s| s.task == task && s.held_back).count();
                assert!(held >= 1 && held < count, "{held} of {count}");
                assert!(count < 16 || held == count / HOLD_BACK);
            }
        }
    }

    #[test]
    fn too_much_is_thinned_out_evenly() {
        let mut all: Vec<_> = (0..100).map(|_| sequence_of(Task::Ask, 100)).collect();
        (0..100).for_each(|i| all[i].ids[0] = i as u32);
        let kept = thin(all.clone(), 3500);
        assert_eq!(kept.len(), 42);
        assert!(kept[2..].windows(2).all(|p| (2..=3).contains(&(p[1].ids[0] - p[0].ids[0]))));
        assert!(thin(all, 10_000).len() == 100);
    }

    #[test]
    fn records_are_questions_drawings_and_texts() {
        let text = concat!(
            "{\"image\": \"a.png\", \"question\": \"What?\", \"answer\": \"This.\"}\n\n",
            "{\"instruction\": \"Draw.\", \"codes\": [1, 2]}\n{\"text\": \"Plain.\"}\n"
        );
        let mut items = Vec::new();
        records(text, Path::new("/x/y.jsonl"), &mut items).unwrap();
        assert!(matches!(&items[0], Item::Question { picture: Some(Shown::File(p)), answer: Some(a), .. }
            if p == Path::new("/x/a.png") && a == "This."));
        assert!(matches!(&items[1], Item::Drawing { picture: None, codes, .. } if codes == &[1, 2]));
        assert!(matches!(&items[2], Item::Text(t) if t == "Plain."));
        for (wrong, says) in [("{}", "record 1"), ("{\"question\": \"\"}\n{", "line 2"), ("[3]", "list of questions")] {
            let error = records(wrong, Path::new("y.jsonl"), &mut Vec::new()).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
