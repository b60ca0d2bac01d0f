//! The recipe that the command line asks for.

use crate::methods::{Methods, Rounding};
use crate::{Error, Result};
use runtime::model::{Recipe, StoredFormat};
use std::path::Path;

/// Recipe files are a few lines.
const MAX_BYTES: u64 = 1 << 16;

/// Methods with a name of their own.
const NAMED_METHODS: [(&str, &str); 3] = [("best", BEST), ("quick", "awq+weighted"), ("nearest", "nearest")];
/// What q4 is made by if nothing is said.
const BEST: &str = "rotate+gptq";

/// What flags ask of a recipe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Values that share a scale in q4; by default 64 where it is calibrated, else 32.
    pub group: Option<usize>,
    /// No zero points in q4.
    pub symmetric: bool,
    /// `best`, `quick`, `nearest`, or steps joined by `+`; by default `best` for q4, else what the recipe says.
    pub method: Option<&'a str>,
}

/// A named recipe or a recipe file, with what flags ask for.
///
/// *Errors*: an unknown name; a file that is no recipe; a flag that the recipe has no use for.
pub fn load(name: &str, asked: &Asked) -> Result<Recipe> {
    let Asked { group, symmetric, method } = *asked;
    let method = method.or((name == "q4").then_some("best"));
    let method = method.map(|m| NAMED_METHODS.iter().find(|(known, _)| *known == m).map_or(m, |(_, steps)| steps));
    let methods = Methods::parse(method.unwrap_or("nearest")).map_err(Error::Usage)?;
    let default_group = if methods.needs_calibration() { 64 } else { 32 };
    let mut recipe = match name.ends_with(".toml") {
        true => read(Path::new(name))?,
        false => Recipe::named(name, group.unwrap_or(default_group)).map_err(Error::Usage)?,
    };
    if let Some(method) = method {
        recipe.method = method.into();
    }
    let rounding = Methods::parse(&recipe.method).map_err(Error::Usage)?.rounding;
    if rounding != Rounding::Nearest && !recipe.has_q4() {
        let problem = "but the language model is not stored in q4";
        return Err(Error::Usage(format!(
            "method `{}` rounds to q4, {problem} by recipe `{}`",
            recipe.method, recipe.name
        )));
    }
    let mut used = false;
    for format in recipe.classes.values_mut() {
        if let StoredFormat::Q4 { group: g, zero_points } = format {
            *g = group.unwrap_or(*g);
            *zero_points &= !symmetric;
            used = true;
        }
    }
    if !used && (group.is_some() || symmetric) {
        let flag = if group.is_some() { "--group" } else { "--symmetric" };
        return Err(Error::Usage(format!("{flag} changes nothing: recipe `{}` stores nothing in q4", recipe.name)));
    }
    recipe.check().map_err(Error::Usage)?;
    Ok(recipe)
}

fn read(path: &Path) -> Result<Recipe> {
    let wrong = |e: String| Error::file(path, e);
    let info = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if info.len() > MAX_BYTES {
        return Err(wrong(format!("is {} bytes long; a recipe has at most {MAX_BYTES}", info.len())));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let one_line = |e: toml::de::Error| {
        let line = e.span().map_or(1, |s| 1 + text[..s.start.min(text.len())].matches('\n').count());
        wrong(format!("line {line}: {}", e.message().replace('\n', " ")))
    };
    // A model file may say more than this program knows; a recipe file that does is a mistake.
    let table: toml::Table = toml::from_str(&text).map_err(one_line)?;
    if let Some(key) = table.keys().find(|k| !["name", "method", "seed", "classes"].contains(&k.as_str())) {
        return Err(wrong(format!("unknown entry `{key}`; there are name, method, seed and classes")));
    }
    let recipe: Recipe = toml::from_str(&text).map_err(one_line)?;
    Methods::parse(&recipe.method).map_err(wrong)?;
    // The name becomes part of a file name.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if recipe.name.is_empty() || recipe.name.starts_with('.') || !recipe.name.chars().all(plain) {
        return Err(wrong(format!("name `{}` must be letters, digits, `-`, `_` and `.`", recipe.name.escape_debug())));
    }
    recipe.check().map_err(wrong)?;
    Ok(recipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::model::Class;
    use shaders::Format;

    fn asked(name: &str, group: Option<usize>, symmetric: bool) -> Result<Recipe> {
        load(name, &Asked { group, symmetric, method: None })
    }

    #[test]
    fn flags_change_what_is_q4_and_nothing_else() {
        let recipe = asked("q4", Some(64), true).unwrap();
        assert_eq!(recipe.format(Class::Language), Format::Q4 { group: 64, zero_points: false });
        assert_eq!(recipe.format(Class::Head), Format::Q8);
        for (name, group, symmetric) in
            [("q8", Some(32), false), ("f16", None, true), ("q5", None, false), ("q4", Some(48), false)]
        {
            assert_eq!(asked(name, group, symmetric).unwrap_err().exit_code(), 2, "{name} {group:?}");
        }
    }

    #[test]
    fn methods_have_names_and_decide_the_group() {
        let with = |name: &str, method| load(name, &Asked { method, ..Default::default() });
        for (name, method, steps, group) in [
            ("q4", None, "rotate+gptq", 64),
            ("q4", Some("quick"), "awq+weighted", 64),
            ("q4", Some("nearest"), "nearest", 32),
            ("q4", Some("awq+gptq"), "awq+gptq", 64),
        ] {
            let recipe = with(name, method).unwrap();
            assert_eq!(recipe.method, steps);
            assert_eq!(recipe.format(Class::Language), Format::Q4 { group, zero_points: true }, "{method:?}");
        }
        assert_eq!(with("f16", None).unwrap().method, "nearest");
        assert_eq!(with("f16", Some("rotate+nearest")).unwrap().method, "rotate+nearest");
        for (name, method) in [("q8", "best"), ("f16", "awq+weighted"), ("q4", "magic"), ("q4", "rotate")] {
            assert_eq!(with(name, Some(method)).unwrap_err().exit_code(), 2, "{name} {method}");
        }
    }

    #[test]
    fn recipe_files_are_read_and_checked() {
        let path = std::env::temp_dir().join(format!("recipe-{}.toml", std::process::id()));
        let text =
            "name = \"mine\"\n[classes.language]\nformat = \"q4\"\ngroup = 128\n[classes.head]\nformat = \"q8\"\n";
        std::fs::write(&path, text).unwrap();
        let recipe = asked(path.to_str().unwrap(), None, false).unwrap();
        assert_eq!(recipe.format(Class::Language), Format::Q4 { group: 128, zero_points: true });
        assert_eq!(recipe.format(Class::Vision), Format::F16);
        for bad in [
            "name = \"a/b\"",
            "name = 3",
            "name = \"x\"\n[classes.eyes]\nformat = \"q8\"",
            "name = \"x\"\nmethod = \"magic\"",
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = asked(path.to_str().unwrap(), None, false).unwrap_err();
            assert_eq!(error.exit_code(), 4, "{bad}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
