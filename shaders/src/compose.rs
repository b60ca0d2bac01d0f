//! `#import KEY` in a WGSL text: the key names a slot that the choices fill, or a file of `wgsl/shared` itself.
//!
//! `#import KEY as NAME` imports under another name, so that one text can work on two matrices: everything that the files
//! imported so declare is called `NAME_…`, and their bindings stand [`ALIAS_SHIFT`] further on.

use crate::kernel::{ALIAS_SHIFT, Choice, Kernel, import};
use std::collections::BTreeMap;

/// The whole WGSL of `kernel` with its import slots filled by `choices`.
///
/// *Errors*: names the slot that nothing fills.
pub fn compose(kernel: &Kernel, choices: &[Choice]) -> Result<String, String> {
    // A file may itself import others, by their own names.
    let source = |key: &str| -> Result<String, String> {
        let file = choices.iter().find(|(slot, _)| *slot == key).map_or(key, |(_, file)| *file);
        let text = |file: &str| {
            import(file).map(|i| i.source).ok_or_else(|| format!("{}: nothing fills #import {file}", kernel.name))
        };
        let lines = text(file)?.lines().map(|line| import_line(line).map_or(Ok(line), |(inner, _)| text(inner)));
        Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"))
    };
    let mut declared: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, alias) in kernel.source.lines().filter_map(import_line) {
        if let Some(alias) = alias {
            declared.entry(alias).or_default().extend(source(key)?.lines().filter_map(declaration).map(String::from));
        }
    }
    let mut text = String::new();
    for line in kernel.source.lines() {
        match import_line(line) {
            Some((key, None)) => text.push_str(&source(key)?),
            Some((key, Some(alias))) => rename(&source(key)?, alias, &declared[alias], &mut text),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    // What a file enables must stand before everything else.
    let (enables, rest): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("enable "));
    Ok([enables, rest].concat().join("\n") + "\n")
}

/// Key and alias of an import.
fn import_line(line: &str) -> Option<(&str, Option<&str>)> {
    let rest = line.strip_prefix("#import ")?.trim();
    Some(rest.split_once(" as ").map_or((rest, None), |(key, alias)| (key, Some(alias))))
}

/// The name that a line declares at module scope, if it declares one.
fn declaration(line: &str) -> Option<&str> {
    // A variable may stand behind attributes.
    let rest = match line.split_once("var<") {
        Some((before, variable)) if before.is_empty() || before.starts_with('@') => variable.split_once("> ")?.1,
        _ => {
            ["fn ", "struct ", "override ", "alias ", "const "].iter().find_map(|keyword| line.strip_prefix(keyword))?
        }
    };
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&rest[..end])
}

fn rename(source: &str, alias: &str, names: &[String], text: &mut String) {
    let mut rest = source;
    while let Some(start) = rest.find(|c: char| c.is_alphabetic() || c == '_') {
        let (before, word) = rest.split_at(start);
        let end = word.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        text.push_str(before);
        if names.iter().any(|name| name == word) {
            text.push_str(alias);
            text.push('_');
        }
        text.push_str(word);
        rest = after;
        if word == "binding" {
            let number: String = after.chars().skip(1).take_while(char::is_ascii_digit).collect();
            let index: u32 = number.parse().unwrap_or(0);
            text.push_str(&format!("({}", index + ALIAS_SHIFT));
            rest = &after[1 + number.len()..];
        }
    }
    text.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfilled_slot_is_an_error_that_names_it() {
        let error = compose(&crate::gemm::KERNEL, &[]).unwrap_err();
        assert!(error.contains("gemm") && error.contains("weights"), "{error}");
    }

    #[test]
    fn the_chosen_file_stands_where_the_import_stood() {
        let text = compose(&crate::gemm::KERNEL, &[("weights", "weights_q8"), ("product", "tile")]).unwrap();
        assert!(text.contains("unpack4xI8") && !text.contains("#import"));
    }

    #[test]
    fn what_a_file_enables_stands_first() {
        let text = compose(&crate::gemm::KERNEL, &[("weights", "weights_q8"), ("product", "coop8")]).unwrap();
        assert!(text.starts_with("enable f16;\nenable wgpu_cooperative_matrix;\n"), "{text}");
        assert_eq!(text.matches("enable ").count(), 2);
    }

    #[test]
    fn what_is_imported_under_another_name_is_called_so_throughout() {
        let choices = [
            ("x", "x_uniform"),
            ("weights", "weights_q4"),
            ("down", "weights_q8"),
            ("reach", "reach_direct"),
            ("rows", "rows_float"),
            ("spread", "whole"),
        ];
        let text = compose(&crate::gemv::KERNEL, &choices).unwrap();
        for expected in [
            "@binding(10) var<storage, read> quants:",
            "@binding(13) var<storage, read> down_quants:",
            "fn down_rows_dot(",
            "down_weights_block(rows.x, block, n)",
            "struct down_Factor { scale:",
            "override GROUP_BLOCKS",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(text.contains("x_part(block, lane)") && !text.contains("down_x_part") && !text.contains("down_down"));
    }
}
