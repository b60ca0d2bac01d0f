//! What kernels have shown on a device: kept while it is open, and in the caller's folder for the next time on the same
//! driver. Never a reason to fail.

use super::cache::write_whole;
use crate::hex;
use devices::Facts;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Beyond this the file is begun anew: it holds what programs of the past wanted.
const MOST: usize = 4096;

/// What a program has shown: that its answers are right, or what is wrong with them.
pub(super) type Shown = Result<(), String>;

#[derive(Default)]
pub(super) struct Proofs {
    /// By the program's key.
    shown: Mutex<HashMap<String, Shown>>,
    store: Option<Store>,
}

/// Right answers of earlier processes.
struct Store {
    /// Device, driver and this program's version: what the answers are true for.
    who: String,
    file: PathBuf,
    right: Mutex<Right>,
}

#[derive(Default)]
struct Right {
    /// Hashes of programs.
    digests: BTreeSet<String>,
    is_new: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proofs {
    /// Those of a device, with what `folder` says of it.
    pub fn open(folder: Option<&Path>, facts: &Facts) -> Self {
        let Some(folder) = folder else { return Self::default() };
        let Facts { name, backend, vendor, device, driver, driver_info, .. } = facts;
        let version = env!("CARGO_PKG_VERSION");
        let who = format!("{name}\0{backend:?}\0{vendor}\0{device}\0{driver}\0{driver_info}\0{version}");
        let file = folder.join(format!("self-test-{}", &hex(&Sha256::digest(&who))[..16]));
        // A line that was damaged is nobody's hash.
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let digests: BTreeSet<String> = text.lines().take(MOST).map(String::from).collect();
        Proofs {
            store: Some(Store { who, file, right: Mutex::new(Right { digests, is_new: false }) }),
            ..Self::default()
        }
    }

    /// What a program has shown here.
    pub fn get(&self, key: &str) -> Option<Shown> {
        lock(&self.shown).get(key).cloned()
    }

    /// Notes that a program was right in an earlier process on this driver, if it was; `text` decides what it computes.
    pub fn recall(&self, key: &str, text: impl FnOnce() -> String) {
        let Some(store) = &self.store else { return };
        if lock(&store.right).digests.contains(&store.digest(&text())) {
            lock(&self.shown).insert(key.into(), Ok(()));
        }
    }

    /// Notes what a program has shown; what is right is kept.
    pub fn note(&self, key: String, text: impl FnOnce() -> String, shown: Shown) {
        if let Some(store) = self.store.as_ref().filter(|_| shown.is_ok()) {
            let mut right = lock(&store.right);
            if right.digests.len() >= MOST {
                right.digests.clear();
            }
            right.is_new |= right.digests.insert(store.digest(&text()));
        }
        lock(&self.shown).insert(key, shown);
    }

    /// Writes the file if there is something new.
    pub fn save(&self) {
        let Some(store) = &self.store else { return };
        let mut right = lock(&store.right);
        if !std::mem::take(&mut right.is_new) {
            return;
        }
        let lines: String = right.digests.iter().flat_map(|digest| [digest, "\n"]).collect();
        if let Err(error) = write_whole(&store.file, lines.as_bytes()) {
            log::debug!("{}: {error}", store.file.display());
        }
    }

    /// Keys of the programs that are wrong here.
    pub fn wrong(&self) -> Vec<String> {
        lock(&self.shown).iter().filter(|(_, shown)| shown.is_err()).map(|(key, _)| key.clone()).collect()
    }

    /// Whether a program is wrong here whose key begins so.
    pub fn is_any_wrong(&self, begin: &str) -> bool {
        lock(&self.shown).iter().any(|(key, shown)| shown.is_err() && key.starts_with(begin))
    }

    /// What is known of another, without its file.
    pub fn like(other: &Self) -> Self {
        Proofs { shown: Mutex::new(lock(&other.shown).clone()), store: None }
    }

    /// Forgets what is known of some kernels.
    #[cfg(feature = "faults")]
    pub fn forget(&self, kernels: &[&str]) {
        lock(&self.shown).retain(|key, _| !kernels.iter().any(|kernel| key.starts_with(&format!("{kernel} "))));
    }
}

impl Store {
    /// What the file knows a program by.
    fn digest(&self, text: &str) -> String {
        hex(&Sha256::digest(format!("{}\0{text}", self.who)))
    }
}
