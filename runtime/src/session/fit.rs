//! Which use of a model fits a device, by the code that plans.

use super::{Model, OpenOptions, SessionOptions};
use crate::Result;
use crate::model::{Header, Task};
use devices::{Facts, Profile};
use shaders::KvFormat;
use std::fmt;

/// A way of using a model: open for these tasks, with a session for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Tasks.
    pub tasks: &'static [Task],
    /// Format of the cache.
    pub kv: KvFormat,
    /// Positions of the cache.
    pub context: usize,
}

const ASK: &[Task] = &[Task::Ask];

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: Vec<_> = self.tasks.iter().map(|task| task.name()).collect();
        write!(f, "{}, {} positions in {}", tasks.join(" and "), self.context, self.kv.name())
    }
}

impl Use {
    /// From the most that anybody may want to the least that is of use.
    pub const ALL: [Use; 4] = [
        Use { tasks: &Task::ALL, kv: KvFormat::F16, context: 2048 },
        Use { tasks: ASK, kv: KvFormat::F16, context: 2048 },
        Use { tasks: ASK, kv: KvFormat::Q8, context: 2048 },
        Use { tasks: ASK, kv: KvFormat::Q8, context: 1024 },
    ];

    /// Bytes that this takes of a device's memory.
    ///
    /// *Errors*: as [`Model::plan`].
    pub fn bytes(&self, header: &Header, facts: &Facts) -> Result<u64> {
        let open = OpenOptions { tasks: self.tasks.to_vec(), ..Default::default() };
        let mut bytes = 0;
        for (i, task) in self.tasks.iter().enumerate() {
            let context = Some(self.context);
            let session = SessionOptions { task: *task, kv: self.kv, context, ..Default::default() };
            let plan = Model::plan(header, facts, &open, &session)?;
            // The weights once, a session for each task.
            bytes += if i == 0 { plan.total() } else { plan.kv + plan.scratch + plan.staging };
        }
        Ok(bytes)
    }

    /// The first of [`Use::ALL`] that stays below what the profile allows on the device, with its bytes.
    ///
    /// *Errors*: as [`Model::plan`].
    pub fn that_fits(header: &Header, facts: &Facts, profile: &Profile) -> Result<Option<(Use, u64)>> {
        let most = profile.ceiling_bytes(facts).unwrap_or(u64::MAX);
        for one in Use::ALL {
            let bytes = one.bytes(header, facts)?;
            if bytes <= most {
                return Ok(Some((one, bytes)));
            }
        }
        Ok(None)
    }
}
