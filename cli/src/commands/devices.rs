//! `healthgpt devices`.

use crate::args::Devices;
use crate::failure::{DEVICE, Failure, Result};
use crate::output;
use devices::Facts;
use runtime::Use;
use runtime::gpu::{Found, list};
use runtime::model::Header;
use serde_json::json;

/// Language layers of HealthGPT-M3.
const M3_LAYERS: usize = 32;

pub fn run(args: &Devices) -> Result {
    let found = list();
    // The published model as it is made by default: what people have before they have a file.
    let m3 = Header::m3(M3_LAYERS, 32).ok();
    if args.json {
        let all: Vec<_> = found.iter().enumerate().map(|(i, f)| describe(i, f, m3.as_ref())).collect();
        output::json(&json!(all))?;
    } else {
        for (i, Found { facts: f, profile }) in found.iter().enumerate() {
            output::line(format!("{i}  {} ({:?}, {:?})", f.name, f.kind, f.backend))?;
            output::line(format!("   driver {} {}, profile {}", f.driver, f.driver_info, profile.name))?;
            output::line(format!("   {}", can(f)))?;
            output::line(format!("   {}", holds(f, profile)))?;
            if let Some(m3) = &m3 {
                let fits = match Use::that_fits(m3, f, profile)? {
                    Some((plan, bytes)) => format!("{plan} ({:.1} GB)", bytes as f64 / 1e9),
                    None => "not even to ask".into(),
                };
                output::line(format!("   HealthGPT-M3 in q4: {fits}"))?;
            }
            for fault in devices::faults(f) {
                output::line(format!("   known: {}; {} ({})", fault.what, fault.advice, fault.link))?;
            }
            if let Some((what, need, have)) = f.lacks() {
                output::line(format!("   cannot be used: {need} {what} are needed, it has {have}"))?;
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::new(DEVICE, "no device was found; `healthgpt doctor` says why"));
    }
    Ok(())
}

/// What kernels can use.
fn can(f: &Facts) -> String {
    let [least, most] = f.subgroup_size;
    let subgroups = if f.subgroups { format!("subgroups of {least} to {most}") } else { "no subgroups".into() };
    let f16 = if f.f16 { "f16" } else { "no f16" };
    let coop: String = f.coop.iter().map(|side| format!(", cooperative matrices {side} x {side}")).collect();
    let (mib, kib) = (f.storage_binding_bytes >> 20, f.workgroup_bytes >> 10);
    format!("{f16}, {subgroups}{coop}, bindings of {mib} MiB, {kib} KiB a workgroup")
}

/// Its memory, and what a model may take of it.
fn holds(f: &Facts, profile: &devices::Profile) -> String {
    let gigabytes = |bytes: Option<u64>| bytes.map_or("unknown".into(), |b| format!("{:.1} GB", b as f64 / 1e9));
    let shared = if f.is_unified() { " shared with the computer" } else { "" };
    let free = if f.is_unified() { format!(", {} free", gigabytes(f.free_bytes())) } else { String::new() };
    let ceiling = profile.ceiling_bytes(f).map_or("all of it".into(), |b| format!("{:.1} GB", b as f64 / 1e9));
    format!("memory {}{shared}{free}; a model may take {ceiling} (--memory)", gigabytes(f.installed_bytes()))
}

fn describe(index: usize, Found { facts: f, profile }: &Found, m3: Option<&Header>) -> serde_json::Value {
    let faults: Vec<_> = devices::faults(f)
        .map(|fault| json!({"what": fault.what, "advice": fault.advice, "link": fault.link}))
        .collect();
    let fits = m3.and_then(|m3| Use::that_fits(m3, f, profile).ok().flatten());
    let fits = fits.map(|(plan, bytes)| {
        let tasks: Vec<_> = plan.tasks.iter().map(|task| task.name()).collect();
        json!({"tasks": tasks, "kv": plan.kv.name(), "context": plan.context, "bytes": bytes})
    });
    let lacks = f.lacks().map(|(what, need, have)| json!({"what": what, "need": need, "have": have}));
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
        "driver_version": f.driver_version(),
        "profile": profile.name,
        "defaults": {
            "memory_bytes": profile.ceiling_bytes(f),
            "context": profile.context,
            "kv": profile.kv.name(),
            "chunk": profile.chunk,
            "slice_ms": profile.slice_ms,
        },
        "memory": {
            "unified": f.is_unified(),
            "device_bytes": f.memory_bytes,
            "system_bytes": f.system_bytes,
            "free_bytes": f.free_bytes(),
        },
        "m3_fits": fits,
        "faults": faults,
        "lacks": lacks,
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
