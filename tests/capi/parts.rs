//! What is handed out beside the library: bill of materials and licences.

use crate::package::{Parts, host};
use crate::tools::root;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn bill_and_licences_name_every_part_and_nothing_else() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let parts = Parts::read(&root(), &mut Command::new(cargo), &host().expect("a target")).expect("the parts");
    assert_eq!(parts.version(), env!("CARGO_PKG_VERSION"));
    let bill: Value = serde_json::from_str(&parts.bill()).expect("JSON");
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bill["metadata"]["component"]["name"], "healthgpt-capi");
    let components = bill["components"].as_array().expect("components");
    let names: BTreeSet<&str> = components.iter().filter_map(|c| c["name"].as_str()).collect();
    for part in ["runtime", "shaders", "devices", "wgpu", "naga", "tokenizers", "safetensors", "hayro-jpeg2000"] {
        assert!(names.contains(part), "{part} is missing");
    }
    for tool in ["cbindgen", "quantize", "tests", "clap", "serde_derive", "xtask"] {
        assert!(!names.contains(tool), "{tool} is not in the library");
    }
    let ours = ["runtime", "shaders", "devices"];
    for component in components {
        let name = component["name"].as_str().expect("a name");
        assert!(component["licenses"][0]["expression"].is_string(), "{name} has no licence");
        let hashed = component["hashes"][0]["content"].as_str().is_some_and(|sum| sum.len() == 64);
        assert!(hashed || ours.contains(&name), "{name} has no hash");
    }
    let references: BTreeSet<&str> = components.iter().filter_map(|c| c["bom-ref"].as_str()).collect();
    assert_eq!(references.len(), components.len(), "every part once");
    for dependency in bill["dependencies"].as_array().expect("dependencies") {
        for on in dependency["dependsOn"].as_array().expect("a list") {
            assert!(on.as_str().is_some_and(|on| references.contains(on)), "{on} is not listed");
        }
    }
    let licences = parts.licences().expect("licences");
    for component in components {
        let (name, version) = (component["name"].as_str().unwrap_or(""), component["version"].as_str().unwrap_or(""));
        assert!(
            ours.contains(&name) || licences.contains(&format!("\n{name} {version}: ")),
            "{name} has no licence text"
        );
    }
}
