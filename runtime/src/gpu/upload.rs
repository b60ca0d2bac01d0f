//! Filling buffers through staging memory that goes round: what is on its way stays small, and no page is allocated twice.
//! The staging memory, at most 48 MiB, is there only meanwhile and not on the account.

use super::{Buffer, Gpu, Usage};
use crate::{Error, Result};

/// Bytes of one piece of staging memory.
const PIECE_BYTES: u64 = 16 << 20;
/// Pieces: one is filled while the others are copied from.
const PIECES: usize = 3;

/// Writes to buffers, in order. What was written is on the device after [`Upload::finish`].
pub(crate) struct Upload {
    gpu: Gpu,
    ring: Vec<Piece>,
    /// The piece that is being filled.
    at: usize,
    copies: Vec<Copy>,
}

struct Piece {
    staging: wgpu::Buffer,
    /// Of it, so many bytes have been filled; `None` while it is not mapped.
    filled: Option<u64>,
    /// The copy from it that was last submitted.
    submission: Option<wgpu::SubmissionIndex>,
}

/// What a submission is to copy out of a piece.
struct Copy {
    from: u64,
    to: Buffer,
    offset: u64,
    bytes: u64,
}

impl Upload {
    pub fn new(gpu: &Gpu) -> Self {
        Upload { gpu: gpu.clone(), ring: Vec::new(), at: 0, copies: Vec::new() }
    }

    /// Fills a part of a buffer; `offset` is a multiple of 4, and `bytes` is padded to one.
    ///
    /// *Errors*: those of allocation and of the device.
    pub fn write(&mut self, buffer: &Buffer, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        if self.gpu.is_imagined() {
            return Ok(());
        }
        while !bytes.is_empty() {
            let filled = self.mapped()?;
            let piece = &mut self.ring[self.at];
            let count = bytes.len().min((PIECE_BYTES - filled) as usize);
            let padded = count.next_multiple_of(4) as u64;
            let mut view = piece
                .staging
                .get_mapped_range_mut(filled..filled + padded)
                .map_err(|e| Error::DeviceLost(super::one_line(&e.to_string())))?;
            view.slice(..count).copy_from_slice(&bytes[..count]);
            view.slice(count..).fill(0);
            drop(view);
            // A mapped range begins at a multiple of 8.
            let filled_now = (filled + padded).next_multiple_of(wgpu::MAP_ALIGNMENT);
            piece.filled = Some(filled_now);
            self.copies.push(Copy { from: filled, to: buffer.clone(), offset, bytes: padded });
            (offset, bytes) = (offset + count as u64, &bytes[count..]);
            if filled_now == PIECE_BYTES {
                self.submit();
            }
        }
        Ok(())
    }

    /// Waits until everything is there.
    ///
    /// *Errors*: those of the device.
    pub fn finish(mut self) -> Result<()> {
        if self.gpu.is_imagined() {
            return Ok(());
        }
        self.submit();
        self.gpu.flush()
    }

    /// Makes the current piece ready to be filled; how far it is filled already.
    fn mapped(&mut self) -> Result<u64> {
        if self.at == self.ring.len() {
            let staging = self.gpu.allocate("staging", PIECE_BYTES, Usage::Staging)?;
            self.ring.push(Piece { staging, filled: None, submission: None });
        }
        let piece = &mut self.ring[self.at];
        if let Some(filled) = piece.filled {
            return Ok(filled);
        }
        self.gpu.map_to_write(&piece.staging, piece.submission.take())?;
        piece.filled = Some(0);
        Ok(0)
    }

    /// Copies out of the current piece, and goes on with the next.
    fn submit(&mut self) {
        let Some(piece) = self.ring.get_mut(self.at).filter(|piece| piece.filled.is_some()) else { return };
        piece.staging.unmap();
        piece.filled = None;
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        for copy in self.copies.drain(..) {
            encoder.copy_buffer_to_buffer(&piece.staging, copy.from, copy.to.raw(), copy.offset, copy.bytes);
        }
        piece.submission = Some(self.gpu.submit(encoder));
        self.at = (self.at + 1) % PIECES;
    }
}
