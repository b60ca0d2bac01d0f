//! Holds every variant's WGSL against its Rust declaration, without a device: naga parses and validates it with the
//! capabilities that the variant declares, then bindings, access, params and workgroup memory are compared.
#![expect(clippy::print_stderr, reason = "a skipped check says so")]

mod layers;

use naga::back::hlsl::ShaderModel;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use shaders::{Access, Choice, Kernel, Variant};

/// Every way of filling a kernel's data imports.
fn data_choices(kernel: &Kernel) -> Vec<Vec<Choice>> {
    kernel.data_imports.iter().fold(vec![vec![]], |all, (slot, files)| {
        all.iter().flat_map(|chosen| files.iter().map(|f| [&chosen[..], &[(*slot, *f)]].concat())).collect()
    })
}

fn each(mut check: impl FnMut(&Kernel, &Variant, &[Choice], &naga::Module, &naga::valid::ModuleInfo)) {
    for kernel in shaders::kernels() {
        for variant in kernel.variants {
            for choices in data_choices(kernel).into_iter().filter(|choices| variant.takes(choices)) {
                let imports = [variant.imports, &choices].concat();
                let label = format!("{} {} {choices:?}", kernel.name, variant.name);
                let source = shaders::compose(kernel, &imports).unwrap_or_else(|e| panic!("{label}: {e}"));
                let module = naga::front::wgsl::parse_str(&source)
                    .unwrap_or_else(|e| panic!("{label}: {}", e.emit_to_string(&source)));
                let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
                if variant.needs.subgroup > 0 {
                    capabilities |= Capabilities::SUBGROUP;
                }
                if variant.needs.coop > 0 {
                    capabilities |= Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16;
                }
                let info = Validator::new(ValidationFlags::all(), capabilities)
                    .validate(&module)
                    .unwrap_or_else(|e| panic!("{label}: {}", e.emit_to_string(&source)));
                check(kernel, variant, &imports, &module, &info);
            }
        }
    }
}

fn overrides(variant: &Variant) -> naga::back::PipelineConstants {
    variant.constants.iter().map(|(name, value)| (name.to_string(), *value)).collect()
}

#[test]
fn bindings_equal_the_declaration() {
    each(|kernel, variant, imports, module, _| {
        let label = format!("{} {}", kernel.name, variant.name);
        let mut found: Vec<(u32, String, Access)> = module
            .global_variables
            .iter()
            .filter_map(|(_, v)| {
                let binding = v.binding?;
                assert_eq!(binding.group, 0, "{label}");
                let access = match v.space {
                    naga::AddressSpace::Uniform => Access::Uniform,
                    naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
                        Access::ReadWrite
                    }
                    naga::AddressSpace::Storage { .. } => Access::Read,
                    other => panic!("{label}: {other:?}"),
                };
                Some((binding.binding, v.name.clone().unwrap_or_default(), access))
            })
            .collect();
        found.sort_by_key(|b| b.0);
        // A kernel that serves one dispatch does not look at `step`; it is bound all the same.
        let declared: Vec<_> =
            kernel.all_bindings(imports).into_iter().map(|b| (b.index, b.name.to_string(), b.access)).collect();
        assert_eq!(found, declared, "{label} {imports:?}");
        let storage = declared.iter().filter(|b| b.2 != Access::Uniform).count();
        assert!(storage <= 8, "{label}: {storage} storage buffers, the WebGPU floor has 8");
    });
}

#[test]
fn params_have_the_declared_size() {
    each(|kernel, variant, _, module, _| {
        let label = format!("{} {}", kernel.name, variant.name);
        let (_, params) =
            module.global_variables.iter().find(|(_, v)| v.name.as_deref() == Some("params")).expect("params");
        let naga::TypeInner::Struct { ref members, span } = module.types[params.ty].inner else {
            panic!("{label}: params is no struct")
        };
        assert_eq!(span as usize, kernel.params_bytes, "{label}");
        // Four-byte members without gaps: the same as #[repr(C)].
        for (i, member) in members.iter().enumerate() {
            assert_eq!(member.offset as usize, 4 * i, "{label}: {:?}", member.name);
        }
    });
}

#[test]
fn workgroups_stay_within_the_floor() {
    each(|kernel, variant, _, module, info| {
        let label = format!("{} {}", kernel.name, variant.name);
        let constants = overrides(variant);
        let (module, _) = naga::back::pipeline_constants::process_overrides(module, info, None, &constants)
            .unwrap_or_else(|e| panic!("{label}: {e}"));
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).expect("layout");
        let bytes: u32 = module
            .global_variables
            .iter()
            .filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup)
            .map(|(_, v)| layouter[v.ty].size)
            .sum();
        assert!(bytes <= 16 << 10, "{label}: {bytes} bytes of workgroup memory");
        let [entry] = &module.entry_points[..] else { panic!("{label}: one entry point") };
        assert_eq!(entry.name, "main", "{label}");
        let invocations: u32 = entry.workgroup_size.iter().product();
        assert!(invocations <= 256, "{label}: {invocations} invocations");
    });
}

#[test]
fn every_variant_becomes_spirv_msl_and_hlsl() {
    each(|kernel, variant, _, module, info| {
        let label = format!("{} {}", kernel.name, variant.name);
        let constants = overrides(variant);
        let (module, info) = naga::back::pipeline_constants::process_overrides(module, info, None, &constants)
            .unwrap_or_else(|e| panic!("{label}: {e}"));
        let spirv = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
        naga::back::spv::write_vec(&module, &info, &spirv, None).unwrap_or_else(|e| panic!("{label}: SPIR-V: {e}"));
        let msl = naga::back::msl::Options { lang_version: (2, 3), fake_missing_bindings: true, ..Default::default() };
        naga::back::msl::write_string(&module, &info, &msl, &Default::default())
            .unwrap_or_else(|e| panic!("{label}: MSL: {e}"));
        // naga has no cooperative matrices in HLSL, and wgpu reports none on Direct3D.
        if variant.needs.coop > 0 {
            return;
        }
        // Without the newer compiler beside the program wgpu takes the one of Windows, which ends at 5.1.
        let old = (variant.needs == shaders::Needs::NOTHING).then_some(ShaderModel::V5_1);
        for shader_model in old.into_iter().chain([ShaderModel::V6_2]) {
            let hlsl = naga::back::hlsl::Options { shader_model, fake_missing_bindings: true, ..Default::default() };
            let mut text = String::new();
            naga::back::hlsl::Writer::new(&mut text, &hlsl, &Default::default())
                .write(&module, &info, None)
                .unwrap_or_else(|e| panic!("{label}: HLSL {shader_model:?}: {e}"));
        }
    });
}

#[test]
fn no_text_uses_what_naga_gets_wrong() {
    each(|kernel, variant, imports, _, _| {
        let text = shaders::compose(kernel, imports).expect("composed before");
        // Between words and f16 pairs it is silently compiled as f32 (wgpu issue 8896); packing has its own functions.
        assert!(!text.contains("bitcast<"), "{} {}: bitcast", kernel.name, variant.name);
    });
}

/// naga does not check that barriers stand in uniform control flow; tint does. Where there is no tint this says so.
#[test]
fn tint_agrees_that_barriers_are_uniform() {
    if std::process::Command::new("tint").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no tint here, so uniformity was not checked");
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
    std::fs::create_dir_all(&folder).expect("a folder");
    each(|kernel, variant, imports, _, _| {
        // Cooperative matrices are wgpu's own.
        if variant.needs.coop > 0 {
            return;
        }
        let text = shaders::compose(kernel, imports).expect("composed before");
        // tint wants what naga rejects.
        let enable = if variant.needs.subgroup > 0 { "enable subgroups;\n" } else { "" };
        let file = folder.join(format!("tint-{}-{}.wgsl", kernel.name, std::process::id()));
        std::fs::write(&file, format!("{enable}{text}")).expect("written");
        let output = std::process::Command::new("tint").args(["-f", "wgsl", "-o"]).arg("/dev/null").arg(&file).output();
        let output = output.expect("tint runs");
        std::fs::remove_file(&file).expect("removed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !said.contains("uniform"),
            "{} {} {imports:?}: {said}",
            kernel.name,
            variant.name
        );
    });
}

#[test]
fn every_wgsl_file_belongs_to_a_kernel_or_an_import() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shaders/wgsl");
    for (folder, is_known) in [
        (folder.clone(), (|stem: &str| shaders::kernels().iter().any(|k| k.name == stem)) as fn(&str) -> bool),
        (folder.join("shared"), |stem: &str| shaders::import(stem).is_some()),
    ] {
        for entry in std::fs::read_dir(&folder).expect("wgsl folder") {
            let path = entry.expect("entry").path();
            if path.extension().is_some_and(|e| e == "wgsl") {
                let stem = path.file_stem().and_then(|s| s.to_str()).expect("name");
                assert!(is_known(stem), "{} belongs to nothing", path.display());
            }
        }
    }
}
