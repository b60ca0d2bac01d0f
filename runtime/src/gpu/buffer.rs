//! Buffers: allocation with errors instead of crashes, upload in pieces, reading back.

use super::Gpu;
use crate::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use wgpu::BufferUsages;

/// Between the end of a submission and its result being readable.
const MAP_PATIENCE: Duration = Duration::from_secs(10);

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Read by kernels, written by the host.
    Weights,
    /// Read and written by kernels, copied to the host.
    Activation,
    /// Small values per dispatch or per step.
    Uniform,
    /// Mapped for reading by the host.
    Readback,
    /// Mapped for writing by the host.
    Staging,
    /// Times as the device wrote them down.
    Queries,
}

/// A buffer on the device. Clones share it; the last one to go gives its bytes back to the account.
#[derive(Clone)]
pub struct Buffer(Arc<Owned>);

struct Owned {
    /// `None` on an imagined device.
    buffer: Option<wgpu::Buffer>,
    size: u64,
    usage: Usage,
    account: Arc<AtomicU64>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.account.fetch_sub(self.size, Ordering::Relaxed);
    }
}

impl Buffer {
    /// *Panics* on an imagined device.
    pub(crate) fn raw(&self) -> &wgpu::Buffer {
        self.0.buffer.as_ref().expect("a buffer of a device that is open")
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.0.size
    }

    pub(crate) fn is_weights(&self) -> bool {
        self.0.usage == Usage::Weights
    }
}

impl Gpu {
    /// A buffer of `bytes`, rounded up to a multiple of 16. Content is zero.
    ///
    /// *Errors*: [`Error::Unfit`] beyond the device's limit, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub(crate) fn buffer(&self, label: &str, bytes: u64, usage: Usage) -> Result<Buffer> {
        self.check()?;
        let size = bytes.max(16).next_multiple_of(16);
        if size > self.facts().buffer_bytes {
            return Err(self.unfit(
                label,
                format!("{size} bytes in one buffer"),
                format!("{}", self.facts().buffer_bytes),
            ));
        }
        // Weights and activations are bound whole.
        let binding = self.facts().storage_binding_bytes;
        if matches!(usage, Usage::Weights | Usage::Activation) && size > binding {
            return Err(self.unfit(label, format!("{size} bytes in one binding"), binding.to_string()));
        }
        if let Some(most) = self.inner.memory_bytes
            && self.allocated_bytes() + size > most
        {
            return Err(Error::OutOfMemory {
                what: label.into(),
                need: format!("{size} bytes"),
                have: format!("{} of the {most} bytes given with --memory", most - self.allocated_bytes()),
            });
        }
        let buffer = if self.is_imagined() { None } else { Some(self.allocate(label, size, usage)?) };
        self.inner.allocated_bytes.fetch_add(size, Ordering::Relaxed);
        Ok(Buffer(Arc::new(Owned { buffer, size, usage, account: self.inner.allocated_bytes.clone() })))
    }

    /// Beside the account.
    pub(super) fn allocate(&self, label: &str, size: u64, usage: Usage) -> Result<wgpu::Buffer> {
        let allowed = match usage {
            Usage::Weights => BufferUsages::STORAGE | BufferUsages::COPY_DST,
            Usage::Activation => {
                BufferUsages::STORAGE | BufferUsages::UNIFORM | BufferUsages::COPY_SRC | BufferUsages::COPY_DST
            }
            Usage::Uniform => BufferUsages::UNIFORM | BufferUsages::COPY_DST,
            Usage::Readback => BufferUsages::MAP_READ | BufferUsages::COPY_DST,
            Usage::Staging => BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC,
            Usage::Queries => BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC,
        };
        let memory = self.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: allowed,
            mapped_at_creation: false,
        });
        let invalid = pollster::block_on(validation.pop());
        let exhausted = pollster::block_on(memory.pop());
        if exhausted.is_some() {
            return Err(Error::OutOfMemory {
                what: label.into(),
                need: format!("{size} bytes"),
                have: format!("less ({} bytes are in use by this program)", self.allocated_bytes()),
            });
        }
        if let Some(error) = invalid {
            return Err(Error::DeviceLost(super::one_line(&error.to_string())));
        }
        Ok(buffer)
    }

    /// Writes before the next submission; `bytes` is padded to a multiple of 4.
    pub(crate) fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) {
        if self.is_imagined() {
            return;
        }
        match bytes.len() % 4 {
            0 => self.queue().write_buffer(buffer.raw(), offset, bytes),
            rest => {
                let mut padded = bytes.to_vec();
                padded.resize(bytes.len() + 4 - rest, 0);
                self.queue().write_buffer(buffer.raw(), offset, &padded);
            }
        }
    }

    /// Sends off what has been written so far and waits, so that its staging memory is free again.
    ///
    /// *Errors*: [`Error::DeviceLost`].
    pub(crate) fn flush(&self) -> Result<()> {
        if self.is_imagined() {
            return Ok(());
        }
        let submission = self.submit_all([]);
        self.wait(submission)
    }

    /// Copies the first `bytes` of an activation to the host, after everything submitted before.
    ///
    /// *Errors*: [`Error::DeviceLost`], or those of an allocation.
    pub(crate) fn read(&self, buffer: &Buffer, bytes: u64) -> Result<Vec<u8>> {
        let size = bytes.next_multiple_of(4);
        let staging = self.buffer("readback", size, Usage::Readback)?;
        let mut encoder = self.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer.raw(), 0, staging.raw(), 0, size);
        let submission = self.submit(encoder);
        self.map(&staging, bytes, submission)
    }

    /// The first `bytes` of a readback buffer once `submission` is through. The buffer can be copied to again after.
    ///
    /// *Errors*: [`Error::DeviceLost`].
    pub(crate) fn map(&self, staging: &Buffer, bytes: u64, submission: wgpu::SubmissionIndex) -> Result<Vec<u8>> {
        let staging = staging.raw();
        self.map_async(staging, wgpu::MapMode::Read, bytes.next_multiple_of(4), Some(submission))?;
        let view = staging
            .get_mapped_range(0..bytes.next_multiple_of(4))
            .map_err(|e| Error::DeviceLost(super::one_line(&e.to_string())))?;
        let mut copy = view.to_vec();
        drop(view);
        staging.unmap();
        copy.truncate(bytes as usize);
        Ok(copy)
    }

    /// Maps a whole staging buffer once `submission`, which copied from it, is through.
    ///
    /// *Errors*: [`Error::DeviceLost`].
    pub(super) fn map_to_write(&self, staging: &wgpu::Buffer, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        self.map_async(staging, wgpu::MapMode::Write, staging.size(), submission)
    }

    fn map_async(
        &self,
        staging: &wgpu::Buffer,
        mode: wgpu::MapMode,
        bytes: u64,
        submission: Option<wgpu::SubmissionIndex>,
    ) -> Result<()> {
        let (send, receive) = mpsc::channel();
        staging.map_async(mode, 0..bytes, move |result| {
            let _ = send.send(result);
        });
        if let Some(submission) = submission {
            self.wait(submission)?;
        }
        // Another thread's poll may have taken the callback and not have run it yet.
        let start = Instant::now();
        let mapped = loop {
            match receive.recv_timeout(Duration::from_millis(1)) {
                Err(mpsc::RecvTimeoutError::Timeout) if start.elapsed() < MAP_PATIENCE => {
                    let _ = self.poll(wgpu::PollType::Poll);
                    self.check()?;
                }
                other => break other,
            }
        };
        match mapped {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::DeviceLost(error.to_string())),
            Err(_) => Err(Error::DeviceLost("a buffer could not be mapped".into())),
        }
    }

    pub(crate) fn unfit(&self, what: &str, need: String, have: String) -> Error {
        Error::Unfit { device: self.facts().name.clone(), what: what.into(), need, have }
    }
}
