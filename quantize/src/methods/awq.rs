//! Scaling of channels by how strongly they are used: weights of strong channels are made larger before they are rounded
//! and what they multiply smaller, so that the same rounding costs less.
//!
//! *Source*: Lin et al. 2023 (AWQ), with the power 1/2 of the root mean square instead of a search.

/// Beyond these a factor helps nobody and may leave f16.
const LIMITS: [f32; 2] = [1e-4, 1e4];
/// Channels weaker than this part of the mean count as so strong.
const LEAST: f64 = 1e-6;

/// By what each input channel's weights are multiplied, from the mean squares of the channels: their fourth roots, over
/// the geometric mean. Channels that share a factor come as runs of `shared` heads of `head_dim`; 1 where none do.
pub fn factors(energies: &[f64], heads: Option<Heads>) -> Vec<f32> {
    let mean = energies.iter().sum::<f64>() / energies.len() as f64;
    if mean <= 0.0 || !mean.is_finite() {
        return vec![1.0; energies.len()];
    }
    let mut strength: Vec<f64> = energies.iter().map(|e| e.max(LEAST * mean)).collect();
    if let Some(Heads { head_dim, shared }) = heads {
        for group in strength.chunks_mut(head_dim * shared) {
            for i in 0..head_dim.min(group.len()) {
                let count = group.len().div_ceil(head_dim) as f64;
                let mean = group.iter().skip(i).step_by(head_dim).sum::<f64>() / count;
                group.iter_mut().skip(i).step_by(head_dim).for_each(|v| *v = mean);
            }
        }
    }
    let log_mean = strength.iter().map(|s| s.ln()).sum::<f64>() / strength.len() as f64;
    strength.iter().map(|s| ((s.ln() - log_mean) / 4.0).exp() as f32).map(|f| f.clamp(LIMITS[0], LIMITS[1])).collect()
}

/// Query heads that read the same values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Width of a head.
    pub head_dim: usize,
    /// Neighbouring query heads that share a value head.
    pub shared: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fourth_roots_over_their_geometric_mean() {
        // Fourth roots 1, 2, 4, geometric mean 2.
        let found = factors(&[1.0, 16.0, 256.0], None);
        assert!(found.iter().zip([0.5, 1.0, 2.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        assert_eq!(factors(&[3.0; 4], None), [1.0; 4]);
    }

    #[test]
    fn channels_that_are_never_used_stay_within_bounds() {
        let found = factors(&[0.0, 1.0, 1.0, 1.0], None);
        assert!(found.iter().all(|f| f.is_finite() && *f > 0.01), "{found:?}");
        assert_eq!(factors(&[0.0; 3], None), [1.0; 3]);
    }

    #[test]
    fn heads_that_read_the_same_values_have_the_same_factors() {
        let heads = Some(Heads { head_dim: 2, shared: 2 });
        // Two value heads; means of channels: (1 + 31) / 2 = 16, 16; 1, 1.
        let found = factors(&[1.0, 16.0, 31.0, 16.0, 1.0, 0.5, 1.0, 1.5], heads);
        assert_eq!(found[..4], [found[0]; 4]);
        assert_eq!(found[4..], [found[4]; 4]);
        assert!((found[0] / found[4] - 2.0).abs() < 1e-6);
    }
}
