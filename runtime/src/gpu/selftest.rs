//! Whether a device computes rightly: every kernel variant that is used, on an input with a known answer.

use super::{Gpu, Pipeline};
use crate::{Error, Result};
use shaders::{Case, Kernel, Variant};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Gpu {
    /// Runs a case of every pipeline that `users` ask for: the one that is nearest to what the data decides there, and of
    /// several the smallest.
    ///
    /// *Errors*: [`Error::Faulty`] if an answer is wrong, those of compiling and running.
    pub(crate) fn self_test(&self, users: &[&Gpu]) -> Result<()> {
        let mut by_kernel: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        // An imagined device takes cooperative matrices on trust; a real one has run their cases before it took them.
        let sure = |p: &Arc<Pipeline>| !p.coop || p.is_compiled();
        for pipeline in users.iter().flat_map(|user| user.pipelines()).filter(sure) {
            by_kernel.entry(pipeline.kernel).or_default().push(pipeline);
        }
        for kernel in shaders::kernels() {
            let Some(used) = by_kernel.get(kernel.name) else { continue };
            let cases = (kernel.cases)();
            let mut done = BTreeSet::new();
            for pipeline in used {
                let Some(variant) = kernel.variants.iter().find(|v| v.name == pipeline.variant) else { continue };
                let able = cases.iter().enumerate().filter(|(_, case)| variant.takes(&case.imports));
                let nearest = able.min_by_key(|(_, case)| (strangeness(pipeline, case), bytes(case)));
                if let Some((i, case)) = nearest.filter(|(i, _)| done.insert((variant.name, *i))) {
                    log::debug!("self-test: {} {} by case {i} `{}`", kernel.name, variant.name, case.name);
                    self.test(kernel, variant, case)?;
                }
            }
        }
        Ok(())
    }

    fn test(&self, kernel: &Kernel, variant: &Variant, case: &Case) -> Result<()> {
        let Some(problem) = self.fault(kernel, variant, case)? else { return Ok(()) };
        let (device, kernel) = (self.facts().name.clone(), format!("{} {}", kernel.name, variant.name));
        Err(Error::Faulty { device, kernel, problem })
    }
}

/// How many imports and constants of a pipeline a case has not.
fn strangeness(pipeline: &Pipeline, case: &Case) -> usize {
    let (imports, constants) = &pipeline.data;
    imports.iter().filter(|i| !case.imports.contains(i)).count()
        + constants.iter().filter(|c| !case.constants.contains(c)).count()
}

fn bytes(case: &Case) -> usize {
    case.inputs.iter().map(|i| i.bytes.len()).sum::<usize>()
        + case.outputs.iter().map(|o| o.initial.len()).sum::<usize>()
}

/// Wrong kernels, to see whether they are noticed. In test builds only.
#[cfg(feature = "faults")]
mod faults {
    use super::Gpu;
    use shaders::Kernel;
    use std::sync::PoisonError;

    impl Gpu {
        /// From now on the last workgroups of that kernel do nothing, in plans that are made later and in self-tests.
        /// `None`: all are right again.
        pub fn inject_fault(&self, kernel: Option<&str>) {
            let mut faulty = self.inner.faulty_kernel.lock().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::replace(&mut *faulty, kernel.map(String::from));
            let concerned: Vec<String> =
                [before.as_deref(), kernel].into_iter().flatten().map(|k| format!("{k} ")).collect();
            let right = |key: &String| !concerned.iter().any(|k| key.starts_with(k));
            self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| right(key));
            self.inner.proven.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| right(key));
        }

        pub(crate) fn with_fault(&self, kernel: &Kernel, source: String) -> String {
            let faulty = self.inner.faulty_kernel.lock().unwrap_or_else(PoisonError::into_inner);
            if faulty.as_deref() != Some(kernel.name) {
                return source;
            }
            let (before, main) = source.split_once("fn main(").expect("a kernel has a main");
            let (parameters, body) = main.split_once(") {").expect("main has a body");
            let group = parameters.split_once("@builtin(workgroup_id) ").and_then(|(_, rest)| rest.split_once(':'));
            let last = group.map_or_else(|| "groups.x > 0u".into(), |(name, _)| format!("{name}.x + 1u == groups.x"));
            let lost = format!("if {last} {{ return; }}");
            format!("{before}fn main(@builtin(num_workgroups) groups: vec3<u32>, {parameters}) {{ {lost} {body}")
        }
    }
}
