//! `healthgpt devices`.

use crate::args::Devices;
use crate::failure::{DEVICE, Failure, Result};
use crate::output;
use runtime::gpu::{Found, list};
use serde_json::json;

pub fn run(args: &Devices) -> Result {
    let found = list();
    if args.json {
        let all: Vec<_> = found.iter().enumerate().map(|(i, f)| describe(i, f)).collect();
        output::json(&json!(all))?;
    } else {
        for (i, Found { facts: f, profile }) in found.iter().enumerate() {
            output::line(format!("{i}  {} ({:?}, {:?})", f.name, f.kind, f.backend))?;
            output::line(format!("   driver {} {}, profile {}", f.driver, f.driver_info, profile.name))?;
            let [least, most] = f.subgroup_size;
            let subgroups = if f.subgroups { format!("subgroups of {least} to {most}") } else { "no subgroups".into() };
            let f16 = if f.f16 { "f16" } else { "no f16" };
            let coop: Vec<_> = f.coop.iter().map(|side| format!(", cooperative matrices {side} x {side}")).collect();
            let coop = coop.concat();
            let mib = f.storage_binding_bytes >> 20;
            output::line(format!(
                "   {f16}, {subgroups}{coop}, bindings of {mib} MiB, {} KiB a workgroup",
                f.workgroup_bytes >> 10
            ))?;
        }
    }
    if found.is_empty() {
        return Err(Failure::new(DEVICE, "no device was found; install a Vulkan driver (Debian: mesa-vulkan-drivers)"));
    }
    Ok(())
}

fn describe(index: usize, Found { facts: f, profile }: &Found) -> serde_json::Value {
    json!({
        "index": index,
        "name": f.name,
        "kind": format!("{:?}", f.kind).to_lowercase(),
        "backend": format!("{:?}", f.backend).to_lowercase(),
        "vendor": f.vendor,
        "device": f.device,
        "pci": f.pci,
        "driver": f.driver,
        "driver_info": f.driver_info,
        "profile": profile.name,
        "f16": f.f16,
        "coop": f.coop,
        "subgroups": f.subgroups,
        "timestamps": f.timestamps,
        "subgroup_size": f.subgroup_size,
        "limits": {
            "storage_binding_bytes": f.storage_binding_bytes,
            "uniform_binding_bytes": f.uniform_binding_bytes,
            "buffer_bytes": f.buffer_bytes,
            "workgroup_bytes": f.workgroup_bytes,
            "workgroup_invocations": f.workgroup_invocations,
            "storage_buffers": f.storage_buffers,
            "groups_per_axis": f.groups_per_axis,
        },
    })
}
