//! The recipe that the command line asks for.

use crate::{Error, Result};
use runtime::model::{Recipe, StoredFormat};
use std::path::Path;

/// Recipe files are a few lines.
const MAX_BYTES: u64 = 1 << 16;

/// A named recipe or a recipe file, with the group and the kind of zero point that flags ask for.
///
/// *Errors*: an unknown name; a file that is no recipe; a flag that the recipe has no use for.
pub fn load(name: &str, group: Option<usize>, symmetric: bool) -> Result<Recipe> {
    let mut recipe = match name.ends_with(".toml") {
        true => read(Path::new(name))?,
        false => Recipe::named(name, group.unwrap_or(32)).map_err(Error::Usage)?,
    };
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
    if let Some(key) = table.keys().find(|k| !["name", "method", "classes"].contains(&k.as_str())) {
        return Err(wrong(format!("unknown entry `{key}`; there are name, method and classes")));
    }
    let recipe: Recipe = toml::from_str(&text).map_err(one_line)?;
    if recipe.method != "nearest" {
        return Err(wrong(format!("method `{}` is not known; there is nearest", recipe.method)));
    }
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

    #[test]
    fn flags_change_what_is_q4_and_nothing_else() {
        let recipe = load("q4", Some(64), true).unwrap();
        assert_eq!(recipe.format(Class::Language), Format::Q4 { group: 64, zero_points: false });
        assert_eq!(recipe.format(Class::Head), Format::Q8);
        for (name, group, symmetric) in
            [("q8", Some(32), false), ("f16", None, true), ("q5", None, false), ("q4", Some(48), false)]
        {
            assert_eq!(load(name, group, symmetric).unwrap_err().exit_code(), 2, "{name} {group:?}");
        }
    }

    #[test]
    fn recipe_files_are_read_and_checked() {
        let path = std::env::temp_dir().join(format!("recipe-{}.toml", std::process::id()));
        let text =
            "name = \"mine\"\n[classes.language]\nformat = \"q4\"\ngroup = 128\n[classes.head]\nformat = \"q8\"\n";
        std::fs::write(&path, text).unwrap();
        let recipe = load(path.to_str().unwrap(), None, false).unwrap();
        assert_eq!(recipe.format(Class::Language), Format::Q4 { group: 128, zero_points: true });
        assert_eq!(recipe.format(Class::Vision), Format::F16);
        for bad in [
            "name = \"a/b\"",
            "name = 3",
            "name = \"x\"\n[classes.eyes]\nformat = \"q8\"",
            "name = \"x\"\nmethod = \"magic\"",
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = load(path.to_str().unwrap(), None, false).unwrap_err();
            assert_eq!(error.exit_code(), 4, "{bad}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
