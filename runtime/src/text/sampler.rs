//! The choice of the next token from the logits.

use crate::{Error, Result};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the best token; more flattens the choice.
    pub temperature: f32,
    /// Share of the probability from whose most probable tokens the choice is made, in (0, 1].
    pub top_p: f32,
    /// Start of the random sequence: same seed, same logits, same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy, as the published scripts.
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Checks the ranges.
    ///
    /// *Errors*: [`Error::Input`] naming the flag.
    pub fn validate(&self) -> Result<()> {
        let fail = |what: &str, problem: String| Err(Error::Input { what: what.into(), problem });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return fail("--temperature", format!("{} is not a number from 0 up", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return fail("--top-p", format!("{} is not above 0 and at most 1", self.top_p));
        }
        Ok(())
    }
}

/// Chooses tokens one after another.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
}

impl Sampler {
    /// `sampling` should have been validated; out of range, the best token is taken.
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, state: sampling.seed }
    }

    /// Index of the chosen token, `logits` being the model's scores with -infinity for what is not allowed.
    /// NaN never wins; of equal best ones the lowest index does; without any number it is 0.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        let best = best(logits);
        let top = logits.get(best as usize).copied().unwrap_or(f32::NAN);
        // An infinite best leaves nothing to weigh the others by.
        if self.sampling.validate().is_err() || self.sampling.temperature == 0.0 || !top.is_finite() {
            return best;
        }
        let temperature = f64::from(self.sampling.temperature);
        let weight = |logit: f32| ((f64::from(logit) - f64::from(top)) / temperature).exp();
        let mut likely: Vec<(u32, f64)> =
            (0u32..).zip(logits.iter().map(|&logit| weight(logit))).filter(|&(_, w)| w > 0.0).collect();
        let mut mass: f64 = likely.iter().map(|(_, w)| w).sum();
        if self.sampling.top_p < 1.0 {
            // Stable, so equal ones stay in order of their index.
            likely.sort_by(|a, b| b.1.total_cmp(&a.1));
            let wanted = f64::from(self.sampling.top_p) * mass;
            mass = 0.0;
            let mut kept = 0;
            for (_, w) in &likely {
                mass += w;
                kept += 1;
                if mass >= wanted {
                    break;
                }
            }
            likely.truncate(kept);
        }
        let mut left = self.uniform() * mass;
        for &(id, w) in &likely {
            left -= w;
            if left < 0.0 {
                return id;
            }
        }
        likely.last().map_or(best, |&(id, _)| id)
    }

    /// In [0, 1), by SplitMix64; written out so that a seed means the same in every version.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Natural logarithm of the probability of `id` at temperature 1, computed in f64.
/// -infinity for an `id` past the end or whose logit is NaN; other NaN count as probability 0.
pub fn log_softmax_at(logits: &[f32], id: u32) -> f64 {
    let (Some(&at), Some(&top)) = (logits.get(id as usize), logits.get(best(logits) as usize)) else {
        return f64::NEG_INFINITY;
    };
    if at.is_nan() || at == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    if top == f32::INFINITY {
        let share = logits.iter().filter(|&&l| l == top).count() as f64;
        return if at == top { -share.ln() } else { f64::NEG_INFINITY };
    }
    let relative = |l: f32| f64::from(l) - f64::from(top);
    let sum: f64 = logits.iter().filter(|l| !l.is_nan()).map(|&l| relative(l).exp()).sum();
    relative(at) - sum.ln()
}

/// How likely a token was, at temperature 1 whatever it was chosen with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likely {
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// Entropy of the distribution, in nats.
    pub entropy: f64,
}

impl Likely {
    /// Of the token `id`.
    pub fn of(logits: &[f32], id: u32) -> Self {
        Likely { logprob: log_softmax_at(logits, id), entropy: entropy(logits) }
    }
}

/// Entropy of softmax, in nats; 0 without any number.
fn entropy(logits: &[f32]) -> f64 {
    let Some(&top) = logits.get(best(logits) as usize).filter(|top| !top.is_nan()) else { return 0.0 };
    if top.is_infinite() {
        return (logits.iter().filter(|&&l| l == top).count() as f64).ln();
    }
    let relative = logits.iter().map(|&l| f64::from(l) - f64::from(top)).filter(|r| r.is_finite());
    let (sum, weighed) = relative.fold((0.0, 0.0), |(sum, weighed), r| (sum + r.exp(), weighed + r * r.exp()));
    sum.ln() - weighed / sum
}

fn best(logits: &[f32]) -> u32 {
    let mut best: Option<(u32, f32)> = None;
    for (id, &logit) in (0u32..).zip(logits) {
        if !logit.is_nan() && best.is_none_or(|(_, top)| logit > top) {
            best = Some((id, logit));
        }
    }
    best.map_or(0, |(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f32, top_p: f32, seed: u64) -> Sampler {
        Sampler::new(Sampling { temperature, top_p, seed })
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_bests_and_never_nan() {
        let mut greedy = sampler(0.0, 1.0, 0);
        assert_eq!(greedy.next(&[f32::NAN, 1.0, 3.0, 3.0]), 2);
        assert_eq!(greedy.next(&[f32::NAN, f32::NEG_INFINITY]), 1);
        assert_eq!(greedy.next(&[0.0, f32::INFINITY, 1.0]), 1);
        assert_eq!(greedy.next(&[f32::NAN, f32::NAN]), 0);
        assert_eq!(greedy.next(&[]), 0);
    }

    #[test]
    fn a_seed_gives_the_same_tokens_for_ever() {
        // First values of SplitMix64 from state 0, as published: e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f.
        let mut it = sampler(1.0, 1.0, 0);
        let of = |bits: u64| (bits >> 11) as f64 / (1u64 << 53) as f64;
        assert_eq!(it.uniform(), of(0xe220_a839_7b1d_cdaf));
        assert_eq!(it.uniform(), of(0x6e78_9e6a_a1b9_65f4));
        assert_eq!(it.uniform(), of(0x06c4_5d18_8009_454f));
        let draw = |seed| {
            let mut it = sampler(1.0, 1.0, seed);
            (0..12).map(|_| it.next(&[1.0, 1.0, 1.0, 1.0])).collect::<Vec<_>>()
        };
        assert_eq!(draw(0), [3, 1, 0, 3, 0, 1, 0, 3, 0, 3, 1, 3]);
        assert_ne!(draw(0), draw(1));
    }

    #[test]
    fn shares_follow_the_softmax() {
        let mut it = sampler(2.0, 1.0, 7);
        let logits = [0.0, 2.0 * 3f32.ln(), f32::NAN, f32::NEG_INFINITY];
        let n = 20_000;
        let mut counts = [0; 4];
        for _ in 0..n {
            counts[it.next(&logits) as usize] += 1;
        }
        assert_eq!(counts[2..], [0, 0]);
        let share = f64::from(counts[1]) / f64::from(n);
        assert!((share - 0.75).abs() < 0.015, "{share}");
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_it() {
        // Probabilities 1/2, 1/4, 1/8, 1/8.
        let logits = [8f32.ln(), 4f32.ln(), 2f32.ln(), 2f32.ln()];
        let seen = |top_p: f32| {
            let mut it = sampler(1.0, top_p, 3);
            let mut seen = [false; 4];
            (0..500).for_each(|_| seen[it.next(&logits) as usize] = true);
            seen
        };
        assert_eq!(seen(0.000_001), [true, false, false, false]);
        assert_eq!(seen(0.49), [true, false, false, false]);
        assert_eq!(seen(0.6), [true, true, false, false]);
        assert_eq!(seen(0.8), [true, true, true, false]);
        assert_eq!(seen(1.0), [true; 4]);
    }

    #[test]
    fn extremes_neither_panic_nor_escape_the_range() {
        for logits in [
            &[][..],
            &[f32::NAN],
            &[f32::NEG_INFINITY, f32::NEG_INFINITY],
            &[f32::INFINITY, f32::INFINITY, f32::NAN],
            &[f32::MAX, f32::MIN],
        ] {
            for (temperature, top_p) in [(0.0, 1.0), (1e-30, 0.5), (3e38, 0.1), (f32::NAN, f32::NAN)] {
                let id = sampler(temperature, top_p, 1).next(logits);
                assert!((id as usize) < logits.len().max(1));
                assert!(!log_softmax_at(logits, id).is_nan());
            }
        }
    }

    #[test]
    fn entropy_is_that_of_the_numbers() {
        let close = |logits: &[f32], wanted: f64| (entropy(logits) - wanted).abs() < 1e-7;
        assert!(close(&[2.0; 8], 8f64.ln()));
        assert!(close(&[0.0, 3f32.ln(), f32::NAN, f32::NEG_INFINITY], 0.25 * 4f64.ln() + 0.75 * (4.0f64 / 3.0).ln()));
        assert!(close(&[f32::INFINITY, 1.0, f32::INFINITY], 2f64.ln()));
        assert!(close(&[1.0, f32::NEG_INFINITY], 0.0) && close(&[f32::NAN], 0.0) && close(&[], 0.0));
    }

    #[test]
    fn log_softmax_is_that_of_the_numbers() {
        let logits = [0.0, 3f32.ln(), f32::NAN, f32::NEG_INFINITY];
        assert!((log_softmax_at(&logits, 0) - 0.25f64.ln()).abs() < 1e-7);
        assert!((log_softmax_at(&logits, 1) - 0.75f64.ln()).abs() < 1e-7);
        for id in [2, 3, 4] {
            assert_eq!(log_softmax_at(&logits, id), f64::NEG_INFINITY);
        }
    }

    #[test]
    fn ranges_are_checked_by_name() {
        assert_eq!(Sampling::default().validate(), Ok(()));
        for (temperature, top_p, flag) in [
            (-1.0, 1.0, "--temperature"),
            (f32::NAN, 1.0, "--temperature"),
            (f32::INFINITY, 1.0, "--temperature"),
            (1.0, 0.0, "--top-p"),
            (1.0, 1.1, "--top-p"),
            (1.0, f32::NAN, "--top-p"),
        ] {
            let error = Sampling { temperature, top_p, seed: 0 }.validate().unwrap_err();
            assert!(error.to_string().starts_with(flag), "{error}");
        }
    }
}
