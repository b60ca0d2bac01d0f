//! What kernels have shown on a device: kept while it is open, and in the caller's folder for the next time on the same
//! driver. Never a reason to fail.

use super::cache::write_whole;
use devices::Facts;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Beyond this the file is begun anew: it holds what programs of the past wanted.
const MOST: usize = 4096;

/// A kernel and one of its variants.
pub(super) type Named = (&'static str, &'static str);

#[derive(Default)]
pub(super) struct Proofs {
    /// By pipeline, whether it gives the known answers.
    pub shown: Mutex<HashMap<String, bool>>,
    /// Those that gave a wrong answer. They are chosen only by name.
    refused: Mutex<BTreeSet<Named>>,
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
    /// Hashes of pipelines.
    digests: BTreeSet<String>,
    is_new: bool,
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
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

    /// What the file knows a pipeline by: its program.
    fn digest(store: &Store, program: &str) -> String {
        hex(&Sha256::digest(format!("{}\0{program}", store.who)))
    }

    /// Whether a program was right in an earlier process, on this driver.
    pub fn was_right(&self, program: &str) -> bool {
        self.store.as_ref().is_some_and(|store| lock(&store.right).digests.contains(&Self::digest(store, program)))
    }

    /// Keeps that a program is right.
    pub fn keep(&self, program: &str) {
        let Some(store) = &self.store else { return };
        let mut right = lock(&store.right);
        if right.digests.len() >= MOST {
            right.digests.clear();
        }
        right.is_new |= right.digests.insert(Self::digest(store, program));
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

    pub fn refused(&self) -> BTreeSet<Named> {
        lock(&self.refused).clone()
    }

    /// False if it was refused before.
    pub fn refuse(&self, variant: Named) -> bool {
        lock(&self.refused).insert(variant)
    }

    /// What is known of another, without its file.
    pub fn like(other: &Self) -> Self {
        Proofs { refused: Mutex::new(other.refused()), ..Self::default() }
    }

    /// Forgets what is known of pipelines and kernels whose names begin so.
    #[cfg(feature = "faults")]
    pub fn forget(&self, kernels: &[&str]) {
        lock(&self.shown).retain(|key, _| !kernels.iter().any(|k| key.starts_with(&format!("{k} "))));
        lock(&self.refused).retain(|(kernel, _)| !kernels.contains(kernel));
    }
}
