//! Splitting a plan into submissions that are short enough.

use std::time::Duration;

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
