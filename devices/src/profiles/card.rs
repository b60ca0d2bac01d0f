//! GPUs with memory of their own.

use super::{Ceiling, GENERIC, Profile};
use crate::{Facts, Kind};

/// Cards of up to 6 GB report less than this.
const SMALL_BYTES: u64 = 7 << 30;

fn is_card(facts: &Facts) -> bool {
    facts.kind == Kind::Discrete
}

/// 4 to 6 GB: Arc A310 and A380, RTX 3050 6 GB, RTX A2000 6 GB, A500.
pub const SMALL: Profile = Profile {
    name: "small-card",
    matches: |facts| is_card(facts) && facts.memory_bytes.is_some_and(|bytes| bytes < SMALL_BYTES),
    ceiling: Ceiling::AllBut(800_000_000),
    ..GENERIC
};

/// 8 GB and more.
pub const CARD: Profile = Profile { name: "card", matches: is_card, chunk: 256, ..GENERIC };
