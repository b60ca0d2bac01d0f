//! Classes of devices as data: what each prefers, where it differs from the generic one.

use crate::{Facts, Kind};

/// Preferences for a class of devices. Limits are never here: the adapter reports them.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Name, for `--profile`.
    pub name: &'static str,
    /// Whether a device belongs here.
    pub matches: fn(&Facts) -> bool,
    /// (kernel, variant) where the first fitting variant is not the best; of several the first that fits.
    pub prefer: &'static [(&'static str, &'static str)],
    /// Most tokens of a prefill chunk.
    pub chunk: usize,
    /// Workgroups that keep the device busy: the attention of one token is split until there are so many.
    pub workgroups: usize,
}

/// For a device that nobody has measured.
pub const GENERIC: Profile = Profile {
    name: "generic",
    matches: |_| true,
    prefer: &[
        ("gemv", "split_k"),
        ("gemv_residual", "split_k"),
        ("gemm", "coop16"),
        ("gemm", "coop8"),
        ("gemm", "tile"),
        ("conv", "tile"),
    ],
    chunk: 128,
    workgroups: 256,
};

/// A software device: loads cost, arithmetic does not, barriers are expensive.
const SOFTWARE: Profile = Profile {
    name: "software",
    matches: |facts| facts.kind == Kind::Cpu,
    prefer: &[
        ("gemv", "broadcast"),
        ("gemv", "uniform_x"),
        ("gemv_residual", "broadcast"),
        ("gemv_residual", "uniform_x"),
        ("gemm", "stripe"),
        ("gemm", "tile"),
        ("conv", "stripe"),
    ],
    chunk: 64,
    workgroups: 1,
};

/// All profiles, the first match counts; the last matches everything.
pub const PROFILES: &[Profile] = &[SOFTWARE, GENERIC];

/// The profile of a device: the one asked for by name, or the first that matches.
///
/// *Errors*: an unknown name, with the known ones.
pub fn profile(facts: &Facts, asked: Option<&str>) -> Result<&'static Profile, String> {
    match asked {
        Some(name) => PROFILES.iter().find(|p| p.name == name).ok_or_else(|| {
            let known: Vec<_> = PROFILES.iter().map(|p| p.name).collect();
            format!("unknown profile `{name}`; known: {}", known.join(", "))
        }),
        None => Ok(PROFILES.iter().find(|p| (p.matches)(facts)).unwrap_or(&GENERIC)),
    }
}
