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

/// Declarations of one module.
fn section(module: &str) -> String {
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        no_includes: true,
        style: cbindgen::Style::Both,
        usize_is_size_t: true,
        documentation_style: cbindgen::DocumentationStyle::C,
        line_length: 100,
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
    String::from_utf8(text).expect("UTF-8")
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
