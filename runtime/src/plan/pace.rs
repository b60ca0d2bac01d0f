//! Running plans in submissions that are short enough, and looking between them at what other threads want.
//!
//! What a step will take is its planned cost (bytes of weights, multiplications) times what a unit of cost has taken so far.
//! The second is measured: by the device's clock where it has one, else from submitting to the end. A dispatch is never
//! cut.

use super::control::{Control, Pace};
use super::run::Plan;
use crate::Result;
use crate::gpu::{Clock, Gpu};
use shaders::Step;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Where neither the caller nor the profile says: well below every watchdog.
const WATCHDOG_SLICE: Duration = Duration::from_millis(100);
/// Of a slice as much is planned for, for what takes longer than it did before.
const PLANNED_SHARE: f64 = 0.8;

/// Units of cost of a byte that is read or written; a unit is a multiplication with its addition. Devices differ, between 5
/// and 20 perhaps: what it is off by is measured away.
const BYTE: f64 = 8.0;
/// Those of a dispatch that does nothing.
const DISPATCH: f64 = 1e6;
/// What a unit takes on the slowest device that there may be, until something is known.
const FIRST_SECONDS: f64 = 1e-9;
/// Of the difference between what was planned and what was taken, so much is believed.
const BELIEVED: f64 = 0.25;
/// Steps that have not run yet are taken together until they cost so many times as much as what has run.
const GROWTH: f64 = 2.0;

/// What a step costs, in units that mean something only beside each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cost {
    fixed: f64,
    per_token: f64,
    /// Of a token with a key.
    per_key: f64,
}

impl Cost {
    /// `work` and `act_bytes` are those of a run of `rows` tokens, which is as long as the plan allows.
    pub fn new(work: Work, weight_bytes: u64, act_bytes: u64, rows: usize) -> Self {
        let rows = rows as f64;
        Cost {
            fixed: DISPATCH + weight_bytes as f64 * BYTE,
            per_token: (work.products as f64 + act_bytes as f64 * BYTE) / rows,
            per_key: work.products_per_key as f64 / rows,
        }
    }

    fn of(&self, step: Step) -> f64 {
        let (tokens, keys) = (f64::from(step.n), f64::from(step.pos) + f64::from(step.n));
        self.fixed + tokens * (self.per_token + keys * self.per_key)
    }
}

/// Multiplications of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Work {
    pub products: u64,
    /// Further ones for each key that is looked at.
    pub products_per_key: u64,
}

/// What the steps of a plan will take.
pub(super) struct Estimate {
    costs: Vec<Cost>,
    /// Seconds of a unit of cost, by step; `None` for one that has not run yet.
    seconds: Vec<Option<f64>>,
    /// The same for those.
    elsewhere: f64,
    /// The largest cost that has run at once.
    seen: f64,
}

impl Estimate {
    pub fn new(costs: Vec<Cost>) -> Self {
        let seconds = vec![None; costs.len()];
        Estimate { costs, seconds, elsewhere: FIRST_SECONDS, seen: 0.0 }
    }

    fn seconds(&self, i: usize, step: Step) -> f64 {
        self.costs[i].of(step) * self.seconds[i].unwrap_or(self.elsewhere)
    }

    /// Seconds that a range of steps is going to take.
    fn sum(&self, range: Range<usize>, step: Step) -> f64 {
        range.map(|i| self.seconds(i, step)).sum()
    }

    /// The steps from `first` on that fit into `budget` seconds, at least one, and the seconds they are going to take.
    fn piece(&self, first: usize, step: Step, budget: f64) -> (Range<usize>, f64) {
        if budget.is_infinite() {
            let range = first..self.costs.len();
            return (range.clone(), self.sum(range, step));
        }
        let (mut planned, mut unknown, mut end) = (0.0, 0.0, first);
        while end < self.costs.len() {
            let more = self.seconds(end, step);
            if self.seconds[end].is_none() {
                unknown += self.costs[end].of(step);
            }
            if end > first && (planned + more > budget || unknown > GROWTH * self.seen) {
                break;
            }
            planned += more;
            end += 1;
        }
        (first..end, planned)
    }

    /// A range of steps has taken so many seconds.
    fn learn(&mut self, range: Range<usize>, step: Step, taken: f64) {
        let planned = self.sum(range.clone(), step);
        if planned <= 0.0 || taken <= 0.0 {
            return;
        }
        let ratio = taken / planned;
        let believed = 1.0 + BELIEVED * (ratio - 1.0);
        let first = self.seen == 0.0;
        for i in range.clone() {
            let known = self.seconds[i].map(|s| s * believed);
            self.seconds[i] = Some(known.unwrap_or(self.elsewhere * ratio));
        }
        // Of what has never run the worst is believed.
        self.elsewhere *= if first || ratio > 1.0 { ratio } else { believed };
        self.seen = self.seen.max(range.map(|i| self.costs[i].of(step)).sum());
    }
}

/// A submission of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submission {
    /// Dispatches in it.
    pub dispatches: usize,
    /// What they were planned to take.
    pub planned: Duration,
    /// What they took.
    pub taken: Duration,
}

/// What a call submitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Submissions {
    /// How many.
    pub count: usize,
    /// Time of the device, all together.
    pub device: Duration,
    /// The longest.
    pub longest: Duration,
    /// What the largest was planned to take.
    pub planned: Duration,
}

impl Submissions {
    fn add(&mut self, one: Submission) {
        self.count += 1;
        self.device += one.taken;
        self.longest = self.longest.max(one.taken);
        self.planned = self.planned.max(one.planned);
    }
}

/// A run that was submitted whole and is not waited for yet.
pub(crate) struct Ahead {
    pub submission: wgpu::SubmissionIndex,
    submitted: Instant,
    planned: f64,
    step: Step,
}

/// Runs the plans of a session.
pub(crate) struct Pacer {
    gpu: Gpu,
    control: Control,
    clock: Option<Clock>,
    /// When the call that runs has to be through.
    deadline: Option<Instant>,
    /// When the device may be given something again.
    idle_until: Option<Instant>,
    /// When the last run that was submitted ahead was through.
    through: Option<Instant>,
    submissions: Vec<Submission>,
}

impl Pacer {
    /// *Errors*: those of an allocation.
    pub fn new(gpu: &Gpu, control: Control) -> Result<Self> {
        Ok(Pacer {
            gpu: gpu.clone(),
            control,
            clock: gpu.clock(1)?,
            deadline: None,
            idle_until: None,
            through: None,
            submissions: Vec::new(),
        })
    }

    /// A call begins that has to be through after `timeout`.
    pub fn begin(&mut self, timeout: Option<Duration>) {
        self.control.begin();
        self.deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        self.through = None;
        self.submissions.clear();
    }

    /// What the call submitted.
    pub fn submissions(&self) -> &[Submission] {
        &self.submissions
    }

    /// Its sums.
    pub fn sums(&self) -> Submissions {
        let mut sums = Submissions::default();
        self.submissions.iter().for_each(|s| sums.add(*s));
        sums
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.clock.as_ref().map_or(0, Clock::bytes)
    }

    /// Waits while paused, and for the end of a gap.
    ///
    /// *Errors*: [`crate::Error::Cancelled`] if the call is to end.
    pub fn boundary(&mut self) -> Result<Pace> {
        self.control.boundary(self.idle_until, self.deadline)
    }

    /// Seconds that may be planned for a submission.
    fn budget(&self, pace: Pace) -> f64 {
        match pace.slice.unwrap_or(WATCHDOG_SLICE) {
            Duration::MAX => f64::INFINITY,
            slice => slice.as_secs_f64() * PLANNED_SHARE,
        }
    }

    /// Runs a plan to its end, in as many submissions as the pace wants; `step` must have been written.
    ///
    /// *Errors*: [`crate::Error::Cancelled`] if the call is to end, those of the device.
    pub fn run(&mut self, plan: &mut Plan, step: Step) -> Result<()> {
        let mut first = 0;
        while first < plan.dispatches() {
            let pace = self.boundary()?;
            let budget = self.budget(pace);
            let (range, planned) = plan.estimate.piece(first, step, budget);
            let submitted = Instant::now();
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            // Nothing needs to be known exactly where there is no limit.
            let taken = match self.clock.as_ref().filter(|_| budget.is_finite()) {
                Some(clock) => {
                    plan.encode(&mut encoder, range.clone(), Some(clock.pass(0)));
                    let seconds = clock.run(&self.gpu, encoder, 1)?[0];
                    // A clock that stands still, or runs ahead of ours, is no clock.
                    let host = submitted.elapsed().as_secs_f64();
                    if seconds > 0.0 { seconds.min(host) } else { host }
                }
                None => {
                    plan.encode(&mut encoder, range.clone(), None);
                    let submission = self.gpu.submit(encoder);
                    self.gpu.wait(submission)?;
                    submitted.elapsed().as_secs_f64()
                }
            };
            self.ended(plan, range.clone(), step, planned, taken);
            self.idle_until = (pace.gap > Duration::ZERO).then(|| Instant::now().checked_add(pace.gap)).flatten();
            first = range.end;
        }
        Ok(())
    }

    fn ended(&mut self, plan: &mut Plan, range: Range<usize>, step: Step, planned: f64, taken: f64) {
        let dispatches = range.len();
        plan.estimate.learn(range, step, taken);
        let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX);
        self.submissions.push(Submission { dispatches, planned: seconds(planned), taken: seconds(taken) });
    }

    /// Whether a run of the plan may be submitted behind another one that is not through yet: nobody wants us to stop, and
    /// both together fit a slice.
    pub fn may_look_ahead(&self, plan: &Plan, step: Step) -> bool {
        let pace = self.control.free(self.deadline).filter(|pace| pace.gap == Duration::ZERO);
        pace.is_some_and(|pace| 2.0 * plan.estimate.sum(0..plan.dispatches(), step) <= self.budget(pace))
    }

    /// Submits a whole run without waiting; `step` must have been written.
    pub fn submit(&mut self, plan: &Plan, step: Step) -> Ahead {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        plan.encode(&mut encoder, 0..plan.dispatches(), None);
        let submitted = Instant::now();
        let submission = self.gpu.submit(encoder);
        Ahead { submission, submitted, planned: plan.estimate.sum(0..plan.dispatches(), step), step }
    }

    /// A run that was submitted ahead is through.
    pub fn through(&mut self, plan: &mut Plan, ahead: &Ahead) {
        let now = Instant::now();
        let began = self.through.map_or(ahead.submitted, |t| t.max(ahead.submitted));
        self.through = Some(now);
        self.ended(plan, 0..plan.dispatches(), ahead.step, ahead.planned, (now - began).as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(products: &[u64]) -> Estimate {
        let cost = |products: &u64| Cost::new(Work { products: *products, ..Work::default() }, 0, 0, 1);
        Estimate::new(products.iter().map(cost).collect())
    }

    const STEP: Step = Step { pos: 0, n: 1, also: Step::NOTHING, unused: 0 };

    /// Runs the plan once on a device where a unit of step `i` takes `seconds[i]`; what each piece took.
    fn run(estimate: &mut Estimate, seconds: &[f64], budget: f64) -> Vec<(usize, f64, f64)> {
        let (mut first, mut pieces) = (0, Vec::new());
        while first < estimate.costs.len() {
            let (range, planned) = estimate.piece(first, STEP, budget);
            let taken = range.clone().map(|i| estimate.costs[i].of(STEP) * seconds[i]).sum();
            estimate.learn(range.clone(), STEP, taken);
            pieces.push((range.len(), planned, taken));
            first = range.end;
        }
        pieces
    }

    #[test]
    fn a_piece_is_within_the_budget_or_a_single_step() {
        let mut estimate = estimate(&[1_000_000_000; 40]);
        // 10 ms a step.
        for round in 0..3 {
            for (steps, planned, taken) in run(&mut estimate, &[1e-11; 40], 0.035) {
                assert!(planned <= 0.035 || steps == 1);
                assert!(round == 0 || (planned - taken).abs() < 1e-9);
            }
        }
        let pieces = run(&mut estimate, &[1e-11; 40], 0.035);
        assert!(pieces[..13].iter().all(|p| p.0 == 3), "{pieces:?}");
        assert!(run(&mut estimate, &[1e-11; 40], 0.001).iter().all(|p| p.0 == 1), "a step is never cut");
        assert_eq!(run(&mut estimate, &[1e-11; 40], f64::INFINITY).len(), 1);
    }

    #[test]
    fn nothing_long_is_tried_before_anything_is_known() {
        // The first steps are cheap and say little: the others take a hundred times as long as they cost.
        let mut estimate = estimate(&[1_000_000_000; 40]);
        let seconds: Vec<f64> = (0..40).map(|i| if i < 2 { 1e-13 } else { 1e-11 }).collect();
        let pieces = run(&mut estimate, &seconds, 0.1);
        assert!(pieces[0].0 == 1 && pieces.iter().all(|p| p.2 < 0.1), "{pieces:?}");
    }

    #[test]
    fn what_steps_take_is_learned_apart() {
        // Every other step takes thirty times as long as it costs beside the rest.
        let mut estimate = estimate(&[1_000_000_000; 40]);
        let seconds: Vec<f64> = (0..40).map(|i| if i % 2 == 0 { 1e-12 } else { 3e-11 }).collect();
        for _ in 0..20 {
            run(&mut estimate, &seconds, 0.035);
        }
        assert!(run(&mut estimate, &seconds, 0.035).iter().all(|p| p.2 < 0.044 && (p.1 - p.2).abs() < 0.003));
    }

    #[test]
    fn a_slower_device_is_noticed() {
        let mut estimate = estimate(&[1_000_000_000; 40]);
        run(&mut estimate, &[1e-12; 40], 0.02);
        // The clock was lowered.
        for _ in 0..10 {
            run(&mut estimate, &[5e-12; 40], 0.02);
        }
        assert!(run(&mut estimate, &[5e-12; 40], 0.02).iter().all(|p| p.2 <= 0.021));
    }

    #[test]
    fn a_run_of_fewer_tokens_or_further_on_costs_accordingly() {
        let work = Work { products: 800, products_per_key: 80 };
        let cost = Cost::new(work, 1000, 0, 8);
        let fixed = DISPATCH + 1000.0 * BYTE;
        assert_eq!(cost.of(Step::new(0, 8)), fixed + 800.0 + 8.0 * 80.0);
        assert_eq!(cost.of(Step::new(92, 8)), fixed + 800.0 + 100.0 * 80.0);
        assert_eq!(cost.of(Step::new(0, 4)), fixed + 400.0 + 4.0 * 40.0);
    }
}
