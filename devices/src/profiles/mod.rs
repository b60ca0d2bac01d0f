//! Classes of devices as data: what each prefers and how much of it a model may take, where it differs from the generic
//! one.

mod card;
mod generic;
mod shared;
mod software;

pub use generic::GENERIC;

use crate::Facts;
use shaders::KvFormat;

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
    /// Longest that a submission should take, in milliseconds: drivers end what takes too long, and a desktop waits for it.
    pub slice_ms: u32,
    /// Memory that model and sessions may take where the caller does not say.
    pub ceiling: Ceiling,
    /// Positions of the cache where the user does not say.
    pub context: usize,
    /// Format of the cache where the user does not say.
    pub kv: KvFormat,
}

/// How much memory a model may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceiling {
    /// So many bytes; the rest of the pool belongs to the desktop and the imaging pipeline.
    Bytes(u64),
    /// The device's memory but for so many bytes, which driver and desktop take.
    AllBut(u64),
    /// So many percent of what is free when the device is opened.
    PercentOfFree(u64),
    /// Whatever is free.
    Unlimited,
}

impl Profile {
    /// Bytes that model and sessions may take on a device; `None` where nothing limits them, or nobody knows. Never more than
    /// is free on a computer whose memory the device shares: beyond that the system ends programs.
    pub fn ceiling_bytes(&self, facts: &Facts) -> Option<u64> {
        let allowed = match self.ceiling {
            Ceiling::Bytes(bytes) => Some(bytes),
            Ceiling::AllBut(bytes) => facts.memory_bytes.map(|all| all.saturating_sub(bytes)),
            Ceiling::PercentOfFree(percent) => facts.free_bytes().map(|free| free / 100 * percent),
            Ceiling::Unlimited => None,
        };
        let free = facts.free_bytes().filter(|_| facts.is_unified());
        allowed.into_iter().chain(free).min()
    }
}

/// All profiles, the first match counts; the last matches everything.
pub const PROFILES: &[Profile] =
    &[software::SOFTWARE, shared::WEAK, shared::TINY, shared::SMALL, shared::ROOMY, card::SMALL, card::CARD, GENERIC];

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
