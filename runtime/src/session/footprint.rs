//! What a model and a session take of the device's memory, by part.

/// Bytes on the device, by part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Language model with its tables.
    pub weights: u64,
    /// Adapters of the opened tasks.
    pub adapters: u64,
    /// Vision tower and projectors.
    pub vision: u64,
    /// Picture decoder.
    pub image_decoder: u64,
    /// Keys and values of one position.
    pub kv_per_token: u64,
    /// Keys and values of all positions.
    pub kv: u64,
    /// Activations and small values that plans work on.
    pub scratch: u64,
    /// What the host reads results from.
    pub staging: u64,
}

impl Footprint {
    /// All parts together.
    pub fn total(&self) -> u64 {
        self.weights + self.adapters + self.vision + self.image_decoder + self.kv + self.scratch + self.staging
    }
}
