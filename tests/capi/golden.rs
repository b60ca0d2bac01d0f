//! What the reference said, as C constants: expectations of the C tests.

use runtime::image::{Options, decode};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tests::{Golden, data};

/// A golden case.
pub fn case(name: &str) -> Golden {
    Golden::read(name)
}

/// The questions of a case, and the last one's answer; empty where that is a picture.
pub fn turns(name: &str) -> (Vec<String>, String) {
    let golden = case(name);
    let questions = golden.turns().into_iter().map(|t| t.question).collect();
    (questions, golden.json["text"].as_str().unwrap_or_default().into())
}

/// A C string of exactly these bytes.
fn string(text: &str) -> String {
    let mut c = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | b'?' => write!(c, "\\{}", char::from(byte)),
            b' '..=b'~' => write!(c, "{}", char::from(byte)),
            _ => write!(c, "\\{byte:03o}"),
        }
        .expect("a string takes everything");
    }
    c + "\""
}

/// `golden.h` in a folder.
pub fn header(folder: &Path) -> PathBuf {
    let (asked, answer) = turns("comprehension");
    let (conversation, second) = turns("two_turn");
    let (text, text_answer) = turns("text_only");
    let (instruction, _) = turns("generation");
    let first = case("comprehension").json;
    let number = |json: &serde_json::Value, name: &str| json[name].as_u64().expect("a number");
    // The last one ends the answer.
    let ids = first["generated_ids"].as_array().expect("ids");
    let ids: Vec<String> = ids[..ids.len() - 1].iter().map(|id| format!("{id}u")).collect();
    let text_json = case("text_only").json;
    let bytes = std::fs::read(data("tiny/input.png")).expect("the picture");
    let picture = decode(&bytes, "input.png", Options::default()).expect("a picture");
    let pixels: Vec<String> = picture.pixels.iter().map(u8::to_string).collect();
    let text = format!(
        "#define GOLDEN_QUESTION {}\n#define GOLDEN_ANSWER {}\n#define GOLDEN_PROMPT_TOKENS {}\n\
         #define GOLDEN_IMAGE_TOKENS {}\n#define GOLDEN_TOKENS {}\n#define GOLDEN_IDS {{{}}}\n\
         #define SECOND_QUESTION {}\n#define SECOND_ANSWER {}\n\
         #define TEXT_QUESTION {}\n#define TEXT_ANSWER {}\n#define TEXT_PROMPT_TOKENS {}\n#define TEXT_MAX_TOKENS {}\n\
         #define DRAW_INSTRUCTION {}\n#define GOLDEN_WIDTH {}\n#define GOLDEN_HEIGHT {}\n\
         static const unsigned char golden_pixels[] __attribute__((unused)) = {{{}}};\n",
        string(&asked[0]),
        string(&answer),
        number(&first, "sequence_length"),
        number(&first, "image_tokens"),
        ids.len(),
        ids.join(", "),
        string(&conversation[1]),
        string(&second),
        string(&text[0]),
        string(&text_answer),
        number(&text_json, "sequence_length"),
        number(&text_json, "max_new_tokens"),
        string(&instruction[0]),
        picture.width,
        picture.height,
        pixels.join(","),
    );
    let path = folder.join("golden.h");
    std::fs::write(&path, text).expect("written");
    path
}
