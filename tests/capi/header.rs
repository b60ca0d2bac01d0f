//! The header: made from the doc comments, section by section, and the same as the committed one.

use std::path::{Path, PathBuf};

/// Modules of the library in the order of the header, with the titles of their sections.
const SECTIONS: [(&str, &str); 9] = [
    ("error", "Versions, status, errors"),
    ("runtime", "Runtime: what in other libraries is global"),
    ("device", "Devices"),
    ("model", "Models"),
    ("image", "Images"),
    ("session", "Sessions"),
    ("ask", "Questions and answers"),
    ("generate", "Pictures out"),
    ("plan", "Memory, before any of it is taken"),
];

pub fn capi() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/capi")
}

/// Longest line of a declaration.
const WIDTH: usize = 110;

/// Declarations of one module.
fn section(module: &str) -> String {
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        no_includes: true,
        style: cbindgen::Style::Both,
        usize_is_size_t: true,
        documentation_style: cbindgen::DocumentationStyle::C,
        tab_width: 4,
        function: cbindgen::FunctionConfig {
            prefix: Some("HGPT_API".into()),
            sort_by: Some(cbindgen::SortKey::None),
            ..Default::default()
        },
        constant: cbindgen::ConstantConfig { sort_by: Some(cbindgen::SortKey::None), ..Default::default() },
        ..Default::default()
    };
    let source = capi().join("src").join(format!("{module}.rs"));
    let bindings = cbindgen::Builder::new().with_config(config).with_src(source).generate().expect("declarations");
    let mut text = Vec::new();
    bindings.write(&mut text);
    tidy(&String::from_utf8(text).expect("UTF-8"))
}

/// The same declarations as a person would write them: short comments on one line, constants together, a function's
/// parameters side by side.
fn tidy(text: &str) -> String {
    let mut tidy = String::new();
    let mut lines = text.lines().skip_while(|l| l.is_empty()).peekable();
    let (mut after_constant, mut last_family) = (false, "");
    while let Some(line) = lines.next() {
        let indent = &line[..line.len() - line.trim_start().len()];
        match line.trim() {
            "/*" => {
                let words: Vec<&str> = lines.by_ref().take_while(|l| l.trim() != "*/").map(str::trim).collect();
                let next = lines.peek().and_then(|l| family(l));
                if after_constant && next.is_none_or(|next| next != last_family) {
                    tidy += "\n";
                }
                match words[..] {
                    [words] => tidy += &format!("{indent}/** {words} */\n"),
                    _ => {
                        tidy += &format!("{indent}/**\n");
                        for words in words {
                            tidy += format!("{indent} * {words}").trim_end();
                            tidy += "\n";
                        }
                        tidy += &format!("{indent} */\n");
                    }
                }
            }
            "" if after_constant => {}
            line if line.starts_with("HGPT_API") => {
                let mut whole = line.to_string();
                while !whole.ends_with(';') {
                    whole += " ";
                    whole += lines.next().expect("a declaration's end").trim();
                }
                tidy += &declaration(&whole.replace("( ", "(").replace("struct hgpt_", "hgpt_"));
                tidy += "\n";
            }
            trimmed => {
                let callback = trimmed.starts_with("typedef") && trimmed.contains("(*");
                tidy += &if callback { line.replace("struct hgpt_", "hgpt_") } else { line.to_string() };
                tidy += "\n";
            }
        }
        after_constant = line.starts_with("#define") || (after_constant && line.is_empty());
        last_family = family(line).unwrap_or(last_family);
    }
    tidy
}

/// `KV` of `#define HGPT_KV_F16 0`; all statuses are one family.
fn family(line: &str) -> Option<&str> {
    let word = line.strip_prefix("#define HGPT_")?.split('_').next()?;
    Some(if ["OK 0", "CANCELLED 1", "BUFFER"].contains(&word) { "ERROR" } else { word })
}

/// A function on as few lines as it takes.
fn declaration(whole: &str) -> String {
    if whole.len() <= WIDTH {
        return whole.into();
    }
    let (name, parameters) = whole.split_once('(').expect("parameters");
    let mut lines = vec![format!("{name}(")];
    for parameter in parameters.split(", ") {
        let last = lines.last_mut().expect("a line");
        let comma = if last.ends_with('(') { "" } else { ", " };
        if last.len() + comma.len() + parameter.len() < WIDTH {
            *last += comma;
            *last += parameter;
        } else {
            *last += ",";
            lines.push(format!("    {parameter}"));
        }
    }
    lines.join("\n")
}

/// The whole header.
fn header() -> String {
    let mut text = std::fs::read_to_string(capi().join("include/begin.h.in")).expect("the header's beginning");
    for (module, title) in SECTIONS {
        let rule = "-".repeat(110 - title.len());
        text += &format!("\n/* ---- {title} {rule} */\n\n{}\n", section(module).trim());
    }
    text + &std::fs::read_to_string(capi().join("include/end.h.in")).expect("the header's end")
}

#[test]
fn the_header_is_what_the_doc_comments_say() {
    let path = capi().join("include/healthgpt.h");
    let made = header();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("the header is written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if committed != made {
        let line = committed.lines().zip(made.lines()).position(|(a, b)| a != b);
        let line = line.unwrap_or(committed.lines().count().min(made.lines().count())) + 1;
        panic!("include/healthgpt.h differs from the sources from line {line} on; write it by `cargo xtask header`");
    }
}
