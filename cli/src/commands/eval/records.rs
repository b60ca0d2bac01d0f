//! Questions with their true answers, from our own JSON lines or as the public datasets lay them out.
//!
//! | layout | picture | answer | closed or open | group |
//! | --- | --- | --- | --- | --- |
//! | ours | `image` | `answer` | `type`, `choices` | `topic` |
//! | VQA-RAD | `image_name` | `answer` | `answer_type` | `question_type` |
//! | SLAKE | `img_name` | `answer` | `answer_type` | `content_type` |
//! | PathVQA | `image`, often without its ending | `answer` | yes and no are closed | |
//! | OmniMedVQA | `image_path` | `gt_answer` | `option_A` … | `question_type` |
//! | LLaVA's form of these | `image` | the second of `conversations` | `answer_type` | |

use crate::failure::{FAILED, Failure, PICTURE, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Folders beside a file of questions in which the datasets keep their pictures.
const PICTURE_FOLDERS: [&str; 7] =
    ["", "imgs", "images", "Images", "VQA_RAD Image Folder", "VQA_RAD_Image_Folder", "train_val_images"];
/// Endings of pictures that a record names without.
const ENDINGS: [&str; 7] = ["", "jpg", "png", "jpeg", "tif", "bmp", "dcm"];
/// How far above the file of questions its pictures may lie.
const LEVELS: usize = 4;

/// A question whose answer is known.
pub struct Record {
    /// Which of the file's, from 1.
    pub number: usize,
    pub image: Option<PathBuf>,
    pub question: String,
    pub answer: String,
    pub closed: bool,
    /// What may be answered; empty where that is free.
    pub choices: Vec<String>,
    /// For the table.
    pub group: String,
}

/// What a file holds.
pub struct Records {
    pub asked: Vec<Record>,
    /// Questions in other languages than English, which the model does not speak.
    pub foreign: usize,
}

/// Reads a file of questions; `pictures` is where their pictures lie, if not beside it.
///
/// *Errors*: what is wrong with which record, or which picture is missing, before anything is asked.
pub fn read(path: &Path, pictures: Option<&Path>) -> Result<Records> {
    let wrong = |problem: String| Failure::new(FAILED, format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let text = text.trim_start_matches('\u{feff}');
    let mut found = Records { asked: Vec::new(), foreign: 0 };
    for (i, raw) in parse(text).map_err(wrong)?.into_iter().enumerate() {
        let number = i + 1;
        if first(&raw, &["q_lang"]).is_some_and(|l| !l.eq_ignore_ascii_case("en")) {
            found.foreign += 1;
            continue;
        }
        let mut record = record(&raw, number).map_err(|problem| wrong(format!("record {number}: {problem}")))?;
        if let Some(image) = &record.image {
            let picture = find(image, path, pictures);
            let missing = || {
                Failure::new(PICTURE, format!("{}: record {number}: no picture {}", path.display(), image.display()))
            };
            record.image = Some(picture.ok_or_else(missing)?);
        }
        found.asked.push(record);
    }
    if found.asked.is_empty() {
        return Err(wrong("holds no question".into()));
    }
    Ok(found)
}

/// A JSON array, or a JSON object a line.
fn parse(text: &str) -> std::result::Result<Vec<Map<String, Value>>, String> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|e| format!("not a list of questions: {e}"));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(i, line)| serde_json::from_str(line).map_err(|e| format!("line {}: {e}", i + 1))).collect()
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The first of several fields that is there.
fn first(raw: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| plain(raw.get(*name)?))
}

fn record(raw: &Map<String, Value>, number: usize) -> std::result::Result<Record, String> {
    let said = |i: usize| plain(raw.get("conversations")?.get(i)?.get("value")?);
    let question = first(raw, &["question"]).or_else(|| Some(said(0)?.replace("<image>", "").trim().to_string()));
    let question = question.ok_or("no `question`")?;
    let answer = first(raw, &["answer", "gt_answer"]).or_else(|| said(1)).ok_or("no `answer`")?;
    let listed = raw.get("choices").and_then(Value::as_array).into_iter().flatten().filter_map(plain);
    let options = ["option_A", "option_B", "option_C", "option_D", "option_E"];
    let choices: Vec<String> =
        listed.chain(options.iter().filter_map(|o| plain(raw.get(*o)?))).filter(|c| !c.is_empty()).collect();
    if !choices.is_empty() && !choices.contains(&answer) {
        return Err("the answer is not among the choices".into());
    }
    let closed = match first(raw, &["type", "answer_type"]).map(|k| k.to_ascii_lowercase()).as_deref() {
        Some("closed") => true,
        Some("open") => false,
        Some(other) => return Err(format!("type `{other}` is neither closed nor open")),
        None => !choices.is_empty() || ["yes", "no"].contains(&answer.to_ascii_lowercase().as_str()),
    };
    let image = first(raw, &["image", "image_name", "img_name", "image_path"]).map(PathBuf::from);
    let group = first(raw, &["topic", "content_type", "question_type"]).unwrap_or_default();
    Ok(Record { number, image, question, answer, closed, choices, group })
}

/// Where a picture lies: below the given folder, or beside the questions or above them.
fn find(name: &Path, questions: &Path, given: Option<&Path>) -> Option<PathBuf> {
    let above = questions.canonicalize().ok()?;
    let roots: Vec<PathBuf> = match given {
        Some(folder) => vec![folder.to_path_buf()],
        None => above.ancestors().skip(1).take(LEVELS).map(Path::to_path_buf).collect(),
    };
    let places = roots.iter().flat_map(|root| PICTURE_FOLDERS.iter().map(move |folder| root.join(folder).join(name)));
    let named = places.flat_map(|place| {
        ENDINGS.iter().map(move |ending| match *ending {
            "" => place.clone(),
            // Not `with_extension`: a name may hold dots.
            ending => PathBuf::from(format!("{}.{ending}", place.display())),
        })
    });
    named.into_iter().find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &str) -> Record {
        record(&parse(json).unwrap()[0], 1).unwrap()
    }

    #[test]
    fn every_published_layout_is_understood() {
        let rad = one(
            r#"[{"qid":"1","image_name":"synpic54610.jpg","question":"Are regions of the brain infarcted?","question_type":"PRES","answer":"Yes","answer_type":"CLOSED "}]"#,
        );
        assert!(
            rad.closed && rad.answer == "Yes" && rad.group == "PRES" && rad.image.unwrap().ends_with("synpic54610.jpg")
        );
        let count = one(
            r#"[{"image_name":"a.jpg","question":"How many?","question_type":"COUNT","answer":2,"answer_type":"OPEN"}]"#,
        );
        assert!(!count.closed && count.answer == "2");
        let slake = one(
            r#"[{"img_name":"xmlab1/source.jpg","question":"What modality?","answer":"MRI","q_lang":"en","answer_type":"OPEN","content_type":"Modality"}]"#,
        );
        assert!(!slake.closed && slake.group == "Modality");
        let path = one("{\"image\":\"train_0422\",\"question\":\"is it normal?\",\"answer\":\"no\"}\n");
        assert!(path.closed && path.image.unwrap().ends_with("train_0422"));
        let omni = one(
            r#"[{"question_type":"Anatomy","question":"Which?","gt_answer":"Lung","image_path":"Images/a.png","option_A":"Heart","option_B":"Lung"}]"#,
        );
        assert!(omni.closed && omni.choices == ["Heart", "Lung"] && omni.answer == "Lung");
        let llava = one(
            r#"[{"image":"a.jpg","answer_type":"OPEN","conversations":[{"from":"human","value":"<image>\nWhere?"},{"from":"gpt","value":"left"}]}]"#,
        );
        assert!(!llava.closed && llava.question == "Where?" && llava.answer == "left");
    }

    #[test]
    fn a_record_that_cannot_be_judged_is_refused() {
        let refused = |json: &str| record(&parse(json).unwrap()[0], 1).err().unwrap();
        assert!(refused(r#"{"question":"?"}"#).contains("answer"));
        assert!(refused(r#"{"answer":"x"}"#).contains("question"));
        assert!(refused(r#"{"question":"?","answer":"x","type":"ajar"}"#).contains("ajar"));
        assert!(refused(r#"{"question":"?","answer":"x","choices":["a","b"]}"#).contains("choices"));
        assert!(parse("{\"question\":\"?\",\"answer\":\"x\"}\nnonsense").err().unwrap().contains("line 2"));
    }
}
