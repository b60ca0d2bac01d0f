//! How far one model's words are from another's, and one residual stream from another.

use serde::{Deserialize, Serialize};

/// Distance of a file to the unquantised model, in words: over the texts that were held back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Predictions that were compared.
    pub predictions: usize,
    /// Mean divergence (Kullback-Leibler, in nats) of the file's predictions from the model's.
    pub kl: f64,
    /// Share of predictions whose most likely token is the same.
    pub agreement: f64,
    /// exp of the mean negative logarithm of the probability of what follows, of the model.
    pub perplexity_before: f64,
    /// The same of the file.
    pub perplexity: f64,
}

impl Figures {
    /// For people.
    pub fn text(&self) -> String {
        format!(
            "KL {:.4}, {:.1} % of the choices equal, perplexity {:.3} (unquantised {:.3}), {} predictions",
            self.kl,
            100.0 * self.agreement,
            self.perplexity,
            self.perplexity_before,
            self.predictions
        )
    }
}

/// Sums of what [`Figures`] are means of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judge {
    count: usize,
    kl: f64,
    agreed: usize,
    nll: [f64; 2],
}

/// ln of the sum of exp.
fn log_sum(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    f64::from(largest) + logits.iter().map(|l| f64::from(l - largest).exp()).sum::<f64>().ln()
}

fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a)))
}

impl Judge {
    /// Compares two predictions, a logit for every id each, of which `next` did follow.
    pub fn add(&mut self, before: &[f32], after: &[f32], next: u32) {
        let (p, q) = (log_sum(before), log_sum(after));
        let terms = before.iter().zip(after).map(|(a, b)| {
            let log_p = f64::from(*a) - p;
            log_p.exp() * (log_p - (f64::from(*b) - q))
        });
        self.kl += terms.sum::<f64>();
        self.count += 1;
        self.agreed += usize::from(best(before) == best(after));
        for (nll, (logits, sum)) in self.nll.iter_mut().zip([(before, p), (after, q)]) {
            *nll += sum - logits.get(next as usize).map_or(f64::NEG_INFINITY, |l| f64::from(*l));
        }
    }

    /// The means; nothing if there was nothing to compare.
    pub fn figures(&self) -> Option<Figures> {
        let count = self.count as f64;
        (self.count > 0).then(|| Figures {
            predictions: self.count,
            kl: self.kl / count,
            agreement: self.agreed as f64 / count,
            perplexity_before: (self.nll[0] / count).exp(),
            perplexity: (self.nll[1] / count).exp(),
        })
    }
}

/// Distance of rows to other rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows {
    count: usize,
    cosine: f64,
    wrong: f64,
    all: f64,
}

impl Rows {
    /// Compares rows of `cols` values.
    pub fn add(&mut self, before: &[f32], after: &[f32], cols: usize) {
        for (a, b) in before.chunks_exact(cols).zip(after.chunks_exact(cols)) {
            let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
                a.iter().zip(b).map(|(a, b)| f(f64::from(*a), f64::from(*b))).sum()
            };
            let (aa, bb) = (sum(&|a, _| a * a), sum(&|_, b| b * b));
            let lengths = (aa * bb).sqrt();
            self.cosine += if lengths > 0.0 { sum(&|a, b| a * b) / lengths } else { f64::from(u8::from(aa == bb)) };
            self.wrong += sum(&|a, b| (a - b).powi(2));
            self.all += aa;
            self.count += 1;
        }
    }

    /// Mean cosine of the angle between rows; 1 of none.
    pub fn cosine(&self) -> f64 {
        if self.count == 0 { 1.0 } else { self.cosine / self.count as f64 }
    }

    /// Mean square of the difference over mean square of the first.
    pub fn nmse(&self) -> f64 {
        if self.wrong == 0.0 { 0.0 } else { self.wrong / self.all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divergence_by_hand() {
        // p = (1/2, 1/2), q = (1/4, 3/4): ln 2 / 2 - ln(3/2) / 2 = ln(4/3) / 2.
        let mut judge = Judge::default();
        judge.add(&[3.0, 3.0], &[0.0, 3.0_f32.ln()], 0);
        let figures = judge.figures().unwrap();
        assert!((figures.kl - (4.0_f64 / 3.0).ln() / 2.0).abs() < 1e-7, "{figures:?}");
        assert!((figures.perplexity_before - 2.0).abs() < 1e-6 && (figures.perplexity - 4.0).abs() < 1e-6);
        // Of equals the first counts.
        assert_eq!((figures.agreement, figures.predictions), (0.0, 1));
        judge.add(&[1.0, 5.0], &[1.0, 5.0], 1);
        assert_eq!(judge.figures().unwrap().agreement, 0.5);
        assert_eq!(Judge::default().figures(), None);
    }

    #[test]
    fn rows_by_hand() {
        let mut rows = Rows::default();
        rows.add(&[1.0, 0.0, 0.0, 2.0], &[1.0, 1.0, 0.0, 2.0], 2);
        assert!((rows.cosine() - (1.0 + 0.5_f64.sqrt()) / 2.0).abs() < 1e-9);
        assert_eq!(rows.nmse(), 0.2);
    }
}
