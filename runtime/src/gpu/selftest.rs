//! Whether a device computes rightly: every kernel variant that is used, on an input with a known answer.

use super::pipeline::pipeline_key;
use super::{Gpu, Pipeline};
use crate::{Error, Result};
use shaders::{Case, Choice, Constant, Kernel, Variant};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// A case that stands for some pipelines: of those with a known answer, the one that is nearest to what the data decides
/// there, and of several the smallest.
struct Trial {
    kernel: &'static Kernel,
    variant: &'static Variant,
    case: Case,
    of: Vec<Arc<Pipeline>>,
}

fn trials(pipelines: &[Arc<Pipeline>]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for kernel in shaders::kernels() {
        let used: Vec<_> = pipelines.iter().filter(|p| p.kernel == kernel.name).collect();
        if used.is_empty() {
            continue;
        }
        let cases = (kernel.cases)();
        let mut chosen: BTreeMap<(usize, usize), Vec<Arc<Pipeline>>> = BTreeMap::new();
        for pipeline in used {
            let Some(variant) = kernel.variants.iter().position(|v| v.name == pipeline.variant) else { continue };
            let able = cases.iter().enumerate().filter(|(_, case)| kernel.variants[variant].takes(&case.imports));
            if let Some((case, _)) = able.min_by_key(|(_, case)| (strangeness(pipeline, case), bytes(case))) {
                chosen.entry((case, variant)).or_default().push(pipeline.clone());
            }
        }
        for (i, case) in cases.into_iter().enumerate() {
            let variants =
                chosen.keys().filter(|(case, _)| *case == i).map(|(_, variant)| *variant).collect::<Vec<_>>();
            // Rarely are there two: a case is not a thing to copy.
            let mut case = Some(case);
            for variant in variants {
                let case = case.take().or_else(|| (kernel.cases)().into_iter().nth(i));
                let of = chosen.remove(&(i, variant)).unwrap_or_default();
                trials.extend(case.map(|case| Trial { kernel, variant: &kernel.variants[variant], case, of }));
            }
        }
    }
    trials
}

impl Gpu {
    /// Runs a case of every pipeline that `users` ask for, whatever is known of it.
    ///
    /// *Errors*: [`Error::Faulty`] if an answer is wrong, those of compiling and running.
    pub(crate) fn self_test(&self, users: &[&Gpu]) -> Result<()> {
        // An imagined device takes cooperative matrices on trust; a real one has run their cases before it took them.
        let sure = |p: &Arc<Pipeline>| !p.coop || p.is_compiled();
        let used: Vec<_> = users.iter().flat_map(|user| user.pipelines()).filter(sure).collect();
        for trial in trials(&used) {
            if let Some(problem) = self.try_out(&trial)? {
                return Err(self.faulty(trial.kernel.name, trial.variant.name, problem));
            }
        }
        Ok(())
    }

    /// Has every pipeline that `plan` asks for on a device like this one show a known answer here, unless it has before with
    /// this driver. A variant that fails is not chosen any more, and `plan` asks for what comes next. `testing` is called
    /// if anything is to be tested.
    ///
    /// *Errors*: [`Error::Faulty`] if there is no other variant, those of `plan` and `testing`, those of the device.
    pub(crate) fn settle(
        &self,
        plan: impl Fn(&Gpu) -> Result<()>,
        mut testing: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let proofs = &self.inner.proofs;
        let mut refused = None;
        // Until nothing new is refused.
        while refused != Some(proofs.refused()) {
            refused = Some(proofs.refused());
            let thought = self.imagined_like_this();
            plan(&thought)?;
            let unknown: Vec<_> = thought.pipelines().into_iter().filter(|p| !self.has_shown(p)).collect();
            if unknown.is_empty() {
                break;
            }
            testing()?;
            let (coop, others): (Vec<_>, Vec<_>) = unknown.into_iter().partition(|p| p.coop);
            for pipeline in coop {
                let named = (pipeline.kernel, pipeline.variant);
                let Some((kernel, variant)) = find(named) else { continue };
                let (imports, constants) = &pipeline.data;
                if !self.is_proven(kernel, variant, imports, constants) {
                    proofs.refuse(named);
                }
            }
            for trial in trials(&others) {
                let problem = match self.try_out(&trial) {
                    Err(lost @ (Error::DeviceLost(_) | Error::OutOfMemory { .. })) => return Err(lost),
                    // A driver that cannot compile it.
                    Err(error) => Some(error.to_string()),
                    Ok(problem) => problem,
                };
                let Some(problem) = problem else {
                    trial.of.iter().for_each(|p| self.note(p));
                    continue;
                };
                let named = (trial.kernel.name, trial.variant.name);
                log::warn!("{} {} is not used on {}: {problem}", named.0, named.1, self.facts().name);
                if !proofs.refuse(named) {
                    return Err(self.faulty(named.0, named.1, problem));
                }
            }
        }
        proofs.save();
        Ok(())
    }

    /// Variants that gave a wrong answer here and are not used, as `kernel variant`.
    pub fn refused(&self) -> Vec<String> {
        self.inner.proofs.refused().iter().map(|(kernel, variant)| format!("{kernel} {variant}")).collect()
    }

    /// Whether a variant gives every known answer for the data given. Tried once with a driver.
    pub(super) fn is_proven(
        &self,
        kernel: &Kernel,
        variant: &Variant,
        imports: &[Choice],
        constants: &[Constant],
    ) -> bool {
        let key = pipeline_key(kernel.name, variant.name, imports, constants);
        // Held meanwhile, so that nobody tries it twice.
        let mut shown = self.inner.proofs.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shown.get(&key) {
            return *known;
        }
        let program = self.program(kernel, variant, imports, constants);
        let right = self.inner.proofs.was_right(&program)
            || match self.all_wrong(kernel, variant, imports, constants) {
                None => true,
                Some(why) => {
                    log::warn!("{} {} is not used on {}: {why}", kernel.name, variant.name, self.facts().name);
                    false
                }
            };
        if right {
            self.inner.proofs.keep(&program);
        }
        shown.insert(key, right);
        right
    }

    /// What is wrong with the answers of every case that fits.
    fn all_wrong(
        &self,
        kernel: &Kernel,
        variant: &Variant,
        imports: &[Choice],
        constants: &[Constant],
    ) -> Option<String> {
        let fits = |case: &Case| {
            imports.iter().all(|i| case.imports.contains(i)) && constants.iter().all(|c| case.constants.contains(c))
        };
        let cases: Vec<Case> = (kernel.cases)().into_iter().filter(fits).collect();
        if cases.is_empty() {
            return Some(format!("no answer is known for {imports:?} {constants:?}"));
        }
        cases.iter().find_map(|case| self.fault(kernel, variant, case).unwrap_or_else(|error| Some(error.to_string())))
    }

    fn try_out(&self, trial: &Trial) -> Result<Option<String>> {
        let Trial { kernel, variant, case, .. } = trial;
        log::debug!("self-test: {} {} by `{}`", kernel.name, variant.name, case.name);
        self.fault(kernel, variant, case)
    }

    fn faulty(&self, kernel: &str, variant: &str, problem: String) -> Error {
        Error::Faulty { device: self.facts().name.clone(), kernel: format!("{kernel} {variant}"), problem }
    }

    /// Whether a pipeline is known to be right.
    fn has_shown(&self, pipeline: &Pipeline) -> bool {
        let (imports, constants) = &pipeline.data;
        let key = pipeline_key(pipeline.kernel, pipeline.variant, imports, constants);
        let mut shown = self.inner.proofs.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shown.get(&key) {
            return *known;
        }
        let found = find((pipeline.kernel, pipeline.variant));
        let right = found.is_some_and(|(kernel, variant)| {
            self.inner.proofs.was_right(&self.program(kernel, variant, imports, constants))
        });
        if right {
            shown.insert(key, true);
        }
        right
    }

    fn note(&self, pipeline: &Pipeline) {
        let (imports, constants) = &pipeline.data;
        let key = pipeline_key(pipeline.kernel, pipeline.variant, imports, constants);
        self.inner.proofs.shown.lock().unwrap_or_else(PoisonError::into_inner).insert(key, true);
        if let Some((kernel, variant)) = find((pipeline.kernel, pipeline.variant)) {
            self.inner.proofs.keep(&self.program(kernel, variant, imports, constants));
        }
    }

    /// All that decides what a pipeline computes.
    fn program(&self, kernel: &Kernel, variant: &Variant, imports: &[Choice], constants: &[Constant]) -> String {
        let source = self.source(kernel, variant, imports).unwrap_or_else(|problem| problem);
        format!("{} {:?} {constants:?}\n{source}", variant.name, variant.constants)
    }
}

fn find((kernel, variant): (&str, &str)) -> Option<(&'static Kernel, &'static Variant)> {
    let kernel = *shaders::kernels().iter().find(|k| k.name == kernel)?;
    Some((kernel, kernel.variants.iter().find(|v| v.name == variant)?))
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
    use shaders::{Kernel, Variant};
    use std::sync::PoisonError;

    impl Gpu {
        /// From now on the first workgroups of that kernel, or of that `kernel variant`, do nothing, in plans that are made
        /// later and in self-tests. `None`: all are right again.
        pub fn inject_fault(&self, kernel: Option<&str>) {
            let mut faulty = self.inner.faulty_kernel.lock().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::replace(&mut *faulty, kernel.map(String::from));
            let concerned = [before.as_deref(), kernel].into_iter().flatten();
            let concerned: Vec<&str> = concerned.filter_map(|named| named.split(' ').next()).collect();
            let right = |key: &String| !concerned.iter().any(|k| key.starts_with(&format!("{k} ")));
            self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| right(key));
            self.inner.proofs.forget(&concerned);
        }

        pub(crate) fn with_fault(&self, kernel: &Kernel, variant: &Variant, source: String) -> String {
            let faulty = self.inner.faulty_kernel.lock().unwrap_or_else(PoisonError::into_inner);
            let named = format!("{} {}", kernel.name, variant.name);
            if faulty.as_deref().is_none_or(|faulty| faulty != kernel.name && faulty != named) {
                return source;
            }
            let (before, main) = source.split_once("fn main(").expect("a kernel has a main");
            let (parameters, body) = main.split_once(") {").expect("main has a body");
            let group = parameters.split_once("@builtin(workgroup_id) ").and_then(|(_, rest)| rest.split_once(':'));
            let first = group.map_or_else(|| "all_groups.x > 0u".into(), |(name, _)| format!("{name}.x == 0u"));
            let lost = format!("if {first} {{ return; }}");
            format!("{before}fn main(@builtin(num_workgroups) all_groups: vec3<u32>, {parameters}) {{ {lost} {body}")
        }
    }
}
