//! Whether a device computes rightly: every kernel variant that is used, on an input with a known answer.

use super::pipeline::Program;
use super::{Gpu, Pipeline};
use crate::{Error, Result};
use shaders::{Case, Kernel, Variant};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// A case that stands for some pipelines: of those with a known answer, the one that is nearest to what the data decides
/// there, and of several the smallest.
struct Trial {
    kernel: &'static Kernel,
    variant: &'static Variant,
    case: Rc<Case>,
    of: Vec<Arc<Pipeline>>,
}

fn trials(pipelines: &[Arc<Pipeline>]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for kernel in shaders::kernels() {
        let used: Vec<_> = pipelines.iter().filter(|p| p.kernel == kernel.name).collect();
        if used.is_empty() {
            continue;
        }
        let cases: Vec<Rc<Case>> = (kernel.cases)().into_iter().map(Rc::new).collect();
        let mut chosen: BTreeMap<(usize, usize), Vec<Arc<Pipeline>>> = BTreeMap::new();
        for pipeline in used {
            let Some(variant) = kernel.variants.iter().position(|v| v.name == pipeline.variant) else { continue };
            let able = cases.iter().enumerate().filter(|(_, case)| kernel.variants[variant].takes(&case.imports));
            if let Some((case, _)) = able.min_by_key(|(_, case)| (strangeness(pipeline, case), bytes(case))) {
                chosen.entry((variant, case)).or_default().push(pipeline.clone());
            }
        }
        trials.extend(chosen.into_iter().map(|((variant, case), of)| Trial {
            kernel,
            variant: &kernel.variants[variant],
            case: cases[case].clone(),
            of,
        }));
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
    /// this driver. One that fails is not chosen any more, and `plan` asks for what comes next. `testing` is called if
    /// anything is to be tested.
    ///
    /// *Errors*: [`Error::Faulty`] if nothing comes next, those of `plan` and `testing`, those of the device.
    pub(crate) fn settle(
        &self,
        plan: impl Fn(&Gpu) -> Result<()>,
        mut testing: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        // Each time round something is learned of a pipeline, and there are only so many.
        loop {
            let thought = self.imagined_like_this();
            plan(&thought)?;
            let mut unknown = Vec::new();
            for pipeline in thought.pipelines() {
                match pipeline.program().map(|program| self.shown(&program)) {
                    Some(None) => unknown.push(pipeline),
                    Some(Some(Err(problem))) => return Err(self.faulty(pipeline.kernel, pipeline.variant, problem)),
                    Some(Some(Ok(()))) | None => {}
                }
            }
            if unknown.is_empty() {
                self.inner.proofs.save();
                return Ok(());
            }
            testing()?;
            let (coop, others): (Vec<_>, Vec<_>) = unknown.into_iter().partition(|p| p.coop);
            for program in coop.iter().filter_map(|p| p.program()) {
                self.is_proven(&program);
            }
            for trial in trials(&others) {
                let problem = match self.try_out(&trial) {
                    Err(lost @ (Error::DeviceLost(_) | Error::OutOfMemory { .. })) => return Err(lost),
                    // A driver that cannot compile it.
                    Err(error) => Some(error.to_string()),
                    Ok(problem) => problem,
                };
                for program in trial.of.iter().filter_map(|p| p.program()) {
                    self.note(&program, problem.clone());
                }
            }
            // A kernel without any case that its variant takes.
            for program in others.iter().filter_map(|p| p.program()).filter(|p| self.shown(p).is_none()) {
                self.note(&program, Some("no answer is known".into()));
            }
        }
    }

    /// Variants that gave a wrong answer here and are not used, as `kernel variant`.
    pub fn refused(&self) -> BTreeSet<String> {
        let names = |key: String| key.split(' ').take(2).collect::<Vec<_>>().join(" ");
        self.inner.proofs.wrong().into_iter().map(names).collect()
    }

    /// Whether a program is not to be chosen here. Cooperative matrices are proven for each kind of data; a wrong answer of
    /// any other variant speaks against all of it, for some are chosen before the data is known.
    pub(super) fn is_wrong(&self, program: &Program) -> bool {
        let (kernel, variant) = (program.kernel.name, program.variant);
        match variant.needs.coop {
            0 => self.inner.proofs.is_any_wrong(&format!("{kernel} {} ", variant.name)),
            _ => self.inner.proofs.is_any_wrong(&program.key()),
        }
    }

    /// Whether a program gives every known answer for its data. Tried once with a driver.
    pub(super) fn is_proven(&self, program: &Program) -> bool {
        if let Some(shown) = self.shown(program) {
            return shown.is_ok();
        }
        let problem = self.first_fault(program);
        let right = problem.is_none();
        self.note(program, problem);
        right
    }

    /// What is wrong with the answer of the first case that shows it, of all that fit.
    fn first_fault(&self, program: &Program) -> Option<String> {
        let Program { kernel, variant, imports, constants } = *program;
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

    /// What a program has shown here, in this process or an earlier one.
    fn shown(&self, program: &Program) -> Option<std::result::Result<(), String>> {
        let (proofs, key) = (&self.inner.proofs, program.key());
        proofs.get(&key).or_else(|| {
            proofs.recall(&key, || self.text(program));
            proofs.get(&key)
        })
    }

    fn note(&self, program: &Program, problem: Option<String>) {
        if let Some(why) = &problem {
            let device = &self.facts().name;
            log::warn!("{} {} is not used on {device}: {why}", program.kernel.name, program.variant.name);
        }
        self.inner.proofs.note(program.key(), || self.text(program), problem.map_or(Ok(()), Err));
    }

    /// All that decides what a program computes.
    fn text(&self, program: &Program) -> String {
        let Program { variant, constants, .. } = program;
        let source = self.source(program).unwrap_or_else(|problem| problem);
        format!("{} {:?} {constants:?}\n{source}", variant.name, variant.constants)
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
    use super::{Gpu, Program};
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

        pub(in crate::gpu) fn with_fault(&self, program: &Program, source: String) -> String {
            let faulty = self.inner.faulty_kernel.lock().unwrap_or_else(PoisonError::into_inner);
            let (kernel, variant) = (program.kernel.name, program.variant.name);
            let named = format!("{kernel} {variant}");
            if faulty.as_deref().is_none_or(|faulty| faulty != kernel && faulty != named) {
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
