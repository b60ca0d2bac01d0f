//! Pictures out.

use crate::ask::{cancelled, not_empty, timeout};
use crate::callback::{Progress, UserData};
use crate::entry;
use crate::error::{Failure, HGPT_ERROR_ARGUMENT, HGPT_ERROR_INTERNAL, Result, hgpt_status};
use crate::handle::Ref;
use crate::image::{
    HGPT_PIXELS_BGR8, HGPT_PIXELS_BGRA8, HGPT_PIXELS_GRAY8, HGPT_PIXELS_GRAY16, HGPT_PIXELS_RGB8, checked_stride,
};
use crate::model::hgpt_progress_fn;
use crate::runtime::{only, unused};
use crate::session::{HGPT_FINISH_STOP, State, hgpt_session, micros_of_ms, needs_task, sampling};
use crate::strings::{BytesOut, Text};
use crate::structs::{self, In, record};
use runtime::Draw;
use runtime::image::RgbPicture;
use runtime::model::Task;
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::time::Instant;

/// How a picture is drawn.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_generate_options {
    /// sizeof(hgpt_generate_options).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// As in hgpt_ask_options.
    pub temperature: f32,
    /// As in hgpt_ask_options.
    pub top_p: f32,
    /// As in hgpt_ask_options.
    pub seed: u64,
    /// As in hgpt_ask_options.
    pub timeout_ms: u32,
    /// 0.
    pub reserved: u32,
    /// Told after each row of codes, with the fraction of them that is drawn; not 0 stops. May be NULL.
    pub progress: hgpt_progress_fn,
    /// Handed to `progress`.
    pub user_data: *mut c_void,
}

record! {
    hgpt_generate_options { flags, temperature, top_p, seed, timeout_ms, reserved, progress, user_data } =
        hgpt_generate_options {
            struct_size: 0,
            flags: 0,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            timeout_ms: 0,
            reserved: 0,
            progress: None,
            user_data: std::ptr::null_mut(),
        }
}

/// Sets options to their defaults: the most likely picture, no time limit, no callback.
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_generate_options_init(options: *mut hgpt_generate_options, size: usize) {
    // SAFETY: `size` bytes are there, the header says.
    entry::quietly("hgpt_generate_options_init", || unsafe { structs::init(options, size) });
}

/// Draws a picture from an instruction, and from the session's picture if there is one. The picture is output_width by
/// output_height of hgpt_model_info, written to `pixels` in any 8-bit HGPT_PIXELS_* with `stride` bytes from row to row (0
/// for none to spare) once it is complete. Mark it as synthetic wherever it is shown or kept; it carries no confidence.
///
/// Needs a session made with HGPT_TASK_GENERATE. Earlier calls do not count. `options` may be NULL for the defaults.
///
/// Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
/// Stops for hgpt_session_cancel, `timeout_ms` and `progress`, and waits for hgpt_session_pause, within a slice, wherever
/// it is.
/// On failure: the session is as before, and nothing is written. HGPT_BUFFER_TOO_SMALL comes before any work.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_generate(
    session: *mut hgpt_session,
    instruction: *const c_char,
    length: usize,
    options: *const hgpt_generate_options,
    pixels: *mut c_void,
    format: u32,
    stride: u64,
    capacity: usize,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (session, instruction, options, pixels) = unsafe {
        (Ref::new(session), Text::new(instruction, length), In::new(options), BytesOut::new(pixels, capacity))
    };
    entry::call("hgpt_session_generate", session, |session| {
        let instruction = not_empty("instruction", instruction.get("instruction")?)?;
        let options = options.read()?;
        only("flags", options.flags, 0)?;
        unused("hgpt_generate_options.reserved", options.reserved)?;
        if format == HGPT_PIXELS_GRAY16 {
            return Err(Failure::new(HGPT_ERROR_ARGUMENT, "format HGPT_PIXELS_GRAY16 cannot be drawn in"));
        }
        let mut state = session.state()?;
        needs_task(&state, Task::Generate)?;
        let side = session.model.output_side();
        if pixels.capacity() == 0 && capacity > 0 {
            return Err(Failure::argument("pixels", "is NULL"));
        }
        let stride = checked_stride(side, side, format, stride, pixels.capacity() as u64)?;
        let picture = state.measured(|state| state.generate(instruction, &options))?;
        if (picture.width, picture.height) != (side, side) {
            return Err(Failure::new(HGPT_ERROR_INTERNAL, "the picture has another size than the model says"));
        }
        write(&picture, format, stride, &pixels);
        Ok(())
    })
}

impl State {
    fn generate(&mut self, instruction: &str, options: &hgpt_generate_options) -> Result<RgbPicture> {
        let start = Instant::now();
        let image = self.image.clone();
        let limit = timeout(options.timeout_ms);
        let draw = Draw {
            instruction,
            picture: image.as_ref().map(|image| &image.picture),
            sampling: sampling(options.temperature, options.top_p, options.seed)?,
            masked: true,
            timeout: limit,
        };
        let listener = Progress { function: options.progress, user_data: UserData(options.user_data) };
        let drawn =
            self.session.generate(&draw, |row| match listener.tell(row.done as f32 / row.of.max(1) as f32, "codes") {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            });
        let drawn = drawn.map_err(|error| match error {
            runtime::Error::Cancelled => cancelled(start, limit),
            error => error.into(),
        })?;
        let stats = &mut self.stats;
        stats.prompt_tokens = drawn.prompt_tokens as u32;
        stats.answer_tokens = drawn.tokens as u32;
        stats.image_us = micros_of_ms(drawn.image_ms);
        stats.prompt_us = micros_of_ms(drawn.prefill_ms);
        stats.first_token_us = stats.image_us + stats.prompt_us;
        stats.answer_us = micros_of_ms(drawn.codes_ms + drawn.decoder_ms);
        stats.finish = HGPT_FINISH_STOP;
        Ok(drawn.picture)
    }
}

/// Writes a picture in the caller's format.
fn write(picture: &RgbPicture, format: u32, stride: usize, to: &BytesOut) {
    let mut row = Vec::new();
    for (y, pixels) in picture.pixels.chunks_exact(picture.width as usize * 3).enumerate() {
        row.clear();
        for pixel in pixels.chunks_exact(3) {
            let &[r, g, b] = pixel else { continue };
            match format {
                // ITU-R BT.601, in whole numbers that sum to 256.
                HGPT_PIXELS_GRAY8 => {
                    row.push(((u32::from(r) * 77 + u32::from(g) * 150 + u32::from(b) * 29) >> 8) as u8);
                }
                HGPT_PIXELS_RGB8 => row.extend([r, g, b]),
                HGPT_PIXELS_BGR8 => row.extend([b, g, r]),
                HGPT_PIXELS_BGRA8 => row.extend([b, g, r, 255]),
                _ => row.extend([r, g, b, 255]),
            }
        }
        to.write(y * stride, &row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_written_in_every_format_and_gaps_are_left_alone() {
        let picture = RgbPicture { width: 1, height: 2, pixels: vec![10, 20, 30, 255, 255, 255], region: None };
        let written = |format, stride: usize| {
            let mut bytes = vec![7_u8; stride * 2];
            let to = unsafe { BytesOut::new(bytes.as_mut_ptr().cast(), bytes.len()) };
            write(&picture, format, stride, &to);
            bytes
        };
        assert_eq!(written(HGPT_PIXELS_RGB8, 4), [10, 20, 30, 7, 255, 255, 255, 7]);
        assert_eq!(written(HGPT_PIXELS_BGR8, 3), [30, 20, 10, 255, 255, 255]);
        assert_eq!(written(crate::HGPT_PIXELS_RGBA8, 4), [10, 20, 30, 255, 255, 255, 255, 255]);
        assert_eq!(written(HGPT_PIXELS_BGRA8, 4), [30, 20, 10, 255, 255, 255, 255, 255]);
        // 0.299 * 10 + 0.587 * 20 + 0.114 * 30 = 18.15
        assert_eq!(written(HGPT_PIXELS_GRAY8, 1), [18, 255]);
    }
}
