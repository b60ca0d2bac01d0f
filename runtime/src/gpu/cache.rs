//! Compiled pipelines on disk, where the driver can hand them out: a file a device. Never a reason to fail.

use super::trusted;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

type Hash = [u8; 32];

pub(super) struct Cache {
    pipelines: wgpu::PipelineCache,
    file: PathBuf,
    /// Of the data in the file.
    stored: Mutex<Option<Hash>>,
}

fn hash(data: &[u8]) -> Hash {
    Sha256::digest(data).into()
}

/// What the file holds, if it is whole: the hash of the data, then the data.
fn read(file: &Path) -> Option<(Hash, Vec<u8>)> {
    let mut data = std::fs::read(file).inspect_err(|e| log::debug!("{}: {e}", file.display())).ok()?;
    let stored: Hash = data.get(..32)?.try_into().ok()?;
    data.drain(..32);
    if hash(&data) != stored {
        log::debug!("{}: damaged, ignored", file.display());
        return None;
    }
    Some((stored, data))
}

impl Cache {
    /// The cache of a device in `folder`; none where the API has no such thing.
    pub fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: &Path) -> Option<Self> {
        let file = folder.join(wgpu::util::pipeline_cache_key(info)?);
        // Data of another device is an error in spite of the file's name and of `fallback`; it would spoil every pipeline.
        let made = |data: Option<&[u8]>| {
            let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
            let pipelines = trusted::pipeline_cache(device, data);
            match pollster::block_on(scope.pop()) {
                None => Some(pipelines),
                Some(error) => {
                    log::debug!("{}: {}", file.display(), super::one_line(&error.to_string()));
                    None
                }
            }
        };
        let from_file = read(&file).and_then(|(stored, data)| Some((made(Some(&data))?, Some(stored))));
        let (pipelines, stored) = from_file.or_else(|| Some((made(None)?, None)))?;
        Some(Cache { pipelines, file, stored: Mutex::new(stored) })
    }

    pub fn pipelines(&self) -> &wgpu::PipelineCache {
        &self.pipelines
    }

    /// Writes the file anew if there is something new in the cache.
    pub fn save(&self) {
        let Some(data) = self.pipelines.get_data() else { return };
        let now = hash(&data);
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if *stored == Some(now) {
            return;
        }
        match write_whole(&self.file, &[&now[..], &data].concat()) {
            Ok(()) => log::debug!("{}: {} bytes of pipelines", self.file.display(), data.len()),
            Err(error) => log::debug!("{}: {error}", self.file.display()),
        }
        // A folder that cannot be written to is not tried again for the same data.
        *stored = Some(now);
    }
}

/// All or nothing, whoever else writes the same file.
pub(super) fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let done = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, file));
    if done.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    done
}
