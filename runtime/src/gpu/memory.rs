//! How much memory there is: the device's, as far as its API tells, and the computer's.

use super::trusted;
use devices::Kind;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// A pool of memory that a driver hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heap {
    pub bytes: u64,
    /// Whether it is the device's own, or as near to it as memory can be.
    pub is_local: bool,
}

/// Memory that buffers of a device can take.
pub(super) fn of_device(adapter: &wgpu::Adapter, kind: Kind) -> Option<u64> {
    of_heaps(&trusted::heaps(adapter), kind)
}

fn of_heaps(heaps: &[Heap], kind: Kind) -> Option<u64> {
    match kind {
        // Some drivers split what is one pool.
        Kind::Integrated | Kind::Cpu => (!heaps.is_empty()).then(|| heaps.iter().map(|h| h.bytes).sum()),
        // A card may show a window of its memory as a heap of its own.
        _ => heaps.iter().filter(|h| h.is_local).map(|h| h.bytes).max(),
    }
}

/// The computer's memory and what of it no program uses; less where this process may not have it all.
pub(super) fn of_system() -> Option<[u64; 2]> {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory));
    let (all, free) = (system.total_memory(), system.available_memory());
    let allowed = system.cgroup_limits().map_or([all, free], |c| [all.min(c.total_memory), free.min(c.free_memory)]);
    (all > 0).then_some(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_is_split_is_one_and_a_window_is_no_pool() {
        let heap = |mebibytes: u64, is_local| Heap { bytes: mebibytes << 20, is_local };
        let card = [heap(8192, true), heap(16000, false), heap(256, true)];
        assert_eq!(of_heaps(&card, Kind::Discrete), Some(8192 << 20));
        let shared = [heap(10000, false), heap(5000, true)];
        assert_eq!(of_heaps(&shared, Kind::Integrated), Some(15000 << 20));
        assert_eq!(of_heaps(&[], Kind::Integrated), None);
        assert_eq!(of_heaps(&[], Kind::Discrete), None);
    }

    #[test]
    fn a_system_tells_its_memory() {
        let [all, free] = of_system().unwrap();
        assert!(free <= all && all > 1 << 28, "{free} of {all}");
    }
}
