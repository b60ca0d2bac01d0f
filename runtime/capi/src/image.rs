//! Images: pictures made ready for the model.

use crate::entry;
use crate::error::{Failure, HGPT_BUFFER_TOO_SMALL, HGPT_ERROR_IMAGE, Result, hgpt_status};
use crate::handle::{self, Handle, Inner, Poison, Ref};
use crate::model::{Model, hgpt_model};
use crate::records::Sink;
use crate::runtime::{only, unused};
use crate::strings::{Bytes, BytesOut, Out};
use crate::structs::{self, In, record};
use runtime::Picture;
use runtime::image::{self, Crop, MAX_PIXELS, Rect, RgbPicture, Shape};
use std::ffi::c_void;
use std::sync::Arc;

/// A picture made ready for one model. It never changes, holds no original pixels and keeps its model alive; any number
/// of sessions of that model may use it at once.
pub struct hgpt_image {
    _opaque: [u8; 0],
}

/// Formats of pixels: one byte, black to white.
pub const HGPT_PIXELS_GRAY8: u32 = 1;
/// Two bytes in the byte order of this machine. Only in.
pub const HGPT_PIXELS_GRAY16: u32 = 2;
/// Red, green, blue.
pub const HGPT_PIXELS_RGB8: u32 = 3;
/// Red, green, blue, alpha. Alpha is ignored on the way in and 255 on the way out.
pub const HGPT_PIXELS_RGBA8: u32 = 4;
/// Blue, green, red, alpha.
pub const HGPT_PIXELS_BGRA8: u32 = 5;
/// Blue, green, red.
pub const HGPT_PIXELS_BGR8: u32 = 6;

/// Pixels in memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_pixels {
    /// sizeof(hgpt_pixels).
    pub struct_size: u32,
    /// HGPT_PIXELS_*.
    pub format: u32,
    /// Pixels of a row, 1 to 16,384.
    pub width: u32,
    /// Rows, 1 to 16,384, from the top.
    pub height: u32,
    /// Bytes from a row to the next; 0 for rows without a gap.
    pub stride: u64,
    /// Bytes at `data`: checked against all the above.
    pub size: u64,
    /// The first row. Read only during the call.
    pub data: *const c_void,
    /// Left edge of the part to look at, in pixels.
    pub crop_x: u32,
    /// Its upper edge.
    pub crop_y: u32,
    /// Its width; 0 with crop_height 0 for the whole picture.
    pub crop_width: u32,
    /// Its height.
    pub crop_height: u32,
    /// GRAY16: value shown as middle grey.
    pub window_center: f32,
    /// GRAY16: range of values from black to white, at least 1; 0 for the whole range of 16 bits.
    pub window_width: f32,
    /// Not 0: black and white change places (DICOM's MONOCHROME1).
    pub invert: u32,
    /// 0.
    pub reserved: u32,
}

record! {
    hgpt_pixels {
        format, width, height, stride, size, data, crop_x, crop_y, crop_width, crop_height, window_center, window_width,
        invert, reserved,
    } = hgpt_pixels {
        struct_size: 0,
        format: 0,
        width: 0,
        height: 0,
        stride: 0,
        size: 0,
        data: std::ptr::null(),
        crop_x: 0,
        crop_y: 0,
        crop_width: 0,
        crop_height: 0,
        window_center: 0.0,
        window_width: 0.0,
        invert: 0,
        reserved: 0,
    }
}

/// Look only at the ultrasound region that a DICOM file names; at all of it where it names none.
pub const HGPT_DECODE_CROP_TO_REGION: u32 = 1;

/// How a picture file is read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_decode_options {
    /// sizeof(hgpt_decode_options).
    pub struct_size: u32,
    /// Frame of a DICOM file with several, from 0.
    pub frame: u32,
    /// HGPT_DECODE_*.
    pub flags: u32,
    /// Larger pictures are refused before anything is allocated for them; 0 for the most there may be, 67,108,864.
    pub max_pixels: u32,
}

record! {
    hgpt_decode_options { frame, flags, max_pixels } =
        hgpt_decode_options { struct_size: 0, frame: 0, flags: 0, max_pixels: 0 }
}

/// Sets pixels to their defaults: no format, size or data, all of the picture, the whole range.
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_pixels_init(pixels: *mut hgpt_pixels, size: usize) {
    // SAFETY: `size` bytes are there, the header says.
    entry::quietly("hgpt_pixels_init", || unsafe { structs::init(pixels, size) });
}

/// Sets options to their defaults.
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_decode_options_init(options: *mut hgpt_decode_options, size: usize) {
    // SAFETY: `size` bytes are there, the header says.
    entry::quietly("hgpt_decode_options_init", || unsafe { structs::init(options, size) });
}

/// An image from pixels in memory: a frame that was just frozen. The pixels are read during the call and not kept.
///
/// Milliseconds of the CPU, nothing on the device.
///
/// Thread: any.
/// On failure: `*out` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_image_from_pixels(
    model: *mut hgpt_model,
    pixels: *const hgpt_pixels,
    out: *mut *mut hgpt_image,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (model, pixels, out) = unsafe { (Ref::new(model), In::new(pixels), Out::new(out, std::ptr::null_mut())) };
    entry::call("hgpt_image_from_pixels", model, |model| {
        out.require("out")?;
        let pixels = pixels.required()?;
        unused("hgpt_pixels.reserved", pixels.reserved)?;
        // SAFETY: `size` bytes are at `data`, the header says.
        let data = unsafe { Bytes::new(pixels.data, usize::try_from(pixels.size).unwrap_or(usize::MAX)) };
        let rgb = to_rgb(&pixels, data.get("hgpt_pixels.data")?)?;
        out.set(handle::create(Image::new(model, &rgb)?));
        Ok(())
    })
}

/// An image from the bytes of a PNG, JPEG, TIFF, BMP or DICOM file, told by content. The bytes may be hostile; they are
/// read during the call and not kept. `options` may be NULL for the first frame, all of it.
///
/// Thread: any.
/// On failure: `*out` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_image_from_bytes(
    model: *mut hgpt_model,
    data: *const c_void,
    size: usize,
    options: *const hgpt_decode_options,
    out: *mut *mut hgpt_image,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (model, data, options, out) =
        unsafe { (Ref::new(model), Bytes::new(data, size), In::new(options), Out::new(out, std::ptr::null_mut())) };
    entry::call("hgpt_image_from_bytes", model, |model| {
        out.require("out")?;
        let (data, options) = (data.get("data")?, options.read()?);
        only("flags", options.flags, HGPT_DECODE_CROP_TO_REGION)?;
        let most = if options.max_pixels == 0 { MAX_PIXELS } else { u64::from(options.max_pixels) };
        let Shape { width, height, .. } = image::shape(data, "data")?;
        if u64::from(width) * u64::from(height) > most {
            let text = format!("picture data: {width}x{height} pixels are more than the {most} of max_pixels");
            return Err(Failure::new(HGPT_ERROR_IMAGE, text));
        }
        let crop = if options.flags & HGPT_DECODE_CROP_TO_REGION != 0 { Crop::Region } else { Crop::None };
        let rgb = image::decode(data, "data", image::Options { frame: options.frame })?.crop(crop)?;
        out.set(handle::create(Image::new(model, &rgb)?));
        Ok(())
    })
}

/// Frames of a picture file: those of a DICOM file, 1 of any other that can be read.
///
/// Thread: any.
/// On failure: `*out` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_image_frame_count(data: *const c_void, size: usize, out: *mut u32) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (data, out) = unsafe { (Bytes::new(data, size), Out::new(out, 0)) };
    entry::call_alone("hgpt_image_frame_count", None, || {
        out.require("out")?;
        out.set(image::shape(data.get("data")?, "data")?.frames);
        Ok(())
    })
}

/// What the model sees: the picture padded to a square, resized and cropped, as rows of red, green, blue without a gap,
/// 3 * *width * *height bytes.
///
/// With less `capacity` (or `rgb8` NULL) the answer is HGPT_BUFFER_TOO_SMALL, and `*width` and `*height` are set all the
/// same: call again with room for them.
///
/// Thread: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_image_preview(
    image: *mut hgpt_image,
    rgb8: *mut c_void,
    capacity: usize,
    width: *mut u32,
    height: *mut u32,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (image, rgb8, width, height) =
        unsafe { (Ref::new(image), BytesOut::new(rgb8, capacity), Out::new(width, 0), Out::new(height, 0)) };
    entry::call("hgpt_image_preview", image, |image| {
        width.require("width")?;
        height.require("height")?;
        let preview = &image.preview;
        width.set(preview.width);
        height.set(preview.height);
        if rgb8.capacity() < preview.pixels.len() {
            let (needed, have) = (preview.pixels.len(), rgb8.capacity());
            let text = format!("the preview needs {needed} bytes, the buffer has {have}");
            return Err(Failure::new(HGPT_BUFFER_TOO_SMALL, text));
        }
        rgb8.write(0, &preview.pixels);
        Ok(())
    })
}

/// Ends an image; NULL is fine. Sessions that use it keep what they need.
///
/// Thread: any one, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_image_release(image: *mut hgpt_image) {
    // SAFETY: NULL or a handle that nobody uses any more.
    entry::quietly("hgpt_image_release", || drop(unsafe { handle::destroy(image) }));
}

/// Behind a `hgpt_image`.
pub(crate) struct Image {
    poison: Poison,
    pub model: Arc<Model>,
    pub picture: Picture,
    preview: RgbPicture,
}

impl Handle for hgpt_image {
    type Inner = Image;
    const MARK: u64 = u64::from_le_bytes(*b"hgpt_img");
    const NAME: &'static str = "image";
}

impl Inner for Image {
    fn poison(&self) -> &Poison {
        &self.poison
    }

    fn sink(&self) -> Option<&Sink> {
        self.model.sink()
    }
}

impl Image {
    fn new(model: &Arc<Model>, rgb: &RgbPicture) -> Result<Arc<Self>> {
        let picture = model.model.picture(rgb)?;
        let preview = model.model.preview(rgb)?;
        Ok(Arc::new(Image { poison: Poison::default(), model: model.clone(), picture, preview }))
    }
}

/// Bytes of a pixel.
pub(crate) fn pixel_bytes(format: u32) -> Result<usize> {
    match format {
        HGPT_PIXELS_GRAY8 => Ok(1),
        HGPT_PIXELS_GRAY16 => Ok(2),
        HGPT_PIXELS_RGB8 | HGPT_PIXELS_BGR8 => Ok(3),
        HGPT_PIXELS_RGBA8 | HGPT_PIXELS_BGRA8 => Ok(4),
        _ => Err(Failure::argument("format", format!("{format} is no HGPT_PIXELS_*"))),
    }
}

/// Bytes from row to row.
///
/// *Errors*: rows that overlap, or more bytes than `size`.
pub(crate) fn checked_stride(width: u32, height: u32, format: u32, stride: u64, size: u64) -> Result<usize> {
    let row = width as usize * pixel_bytes(format)?;
    let stride = if stride == 0 { row as u64 } else { stride };
    if stride < row as u64 {
        return Err(Failure::argument("stride", format!("{stride} is less than the {row} bytes of a row")));
    }
    let rows = u64::from(height.max(1) - 1);
    let needed = stride.checked_mul(rows).and_then(|bytes| bytes.checked_add(row as u64));
    match needed {
        Some(needed) if needed <= size => Ok(stride as usize),
        Some(needed) => {
            Err(Failure::new(HGPT_BUFFER_TOO_SMALL, format!("the pixels need {needed} bytes, there are {size}")))
        }
        None => Err(Failure::argument("stride", format!("{stride} for {height} rows is more than any memory"))),
    }
}

fn to_rgb(pixels: &hgpt_pixels, data: &[u8]) -> Result<RgbPicture> {
    let hgpt_pixels { format, width, height, .. } = *pixels;
    image::check_size(width, height).map_err(|problem| Failure::new(HGPT_ERROR_IMAGE, problem))?;
    let stride = checked_stride(width, height, format, pixels.stride, pixels.size)
        .map_err(|f| Failure::argument("hgpt_pixels", format!("cannot be: {}", f.text)))?;
    let (x, y, w, h) = match (pixels.crop_width, pixels.crop_height) {
        (0, 0) if pixels.crop_x == 0 && pixels.crop_y == 0 => (0, 0, width, height),
        (w, h) => (pixels.crop_x, pixels.crop_y, w, h),
    };
    let inside = |at: u32, len: u32, side: u32| len > 0 && at.checked_add(len).is_some_and(|end| end <= side);
    if !inside(x, w, width) || !inside(y, h, height) {
        let problem = format!("{x},{y},{w},{h} is not a part of the picture, which is {width} wide and {height} high");
        return Err(Failure::argument("the crop", problem));
    }
    let window = Window::new(pixels)?;
    let bytes = pixel_bytes(format)?;
    let mut rgb = Vec::with_capacity(w as usize * h as usize * 3);
    for row in y..y + h {
        let first = row as usize * stride + x as usize * bytes;
        for pixel in data[first..first + w as usize * bytes].chunks_exact(bytes) {
            rgb.extend(match (format, pixel) {
                (HGPT_PIXELS_GRAY8, &[grey]) => [grey; 3],
                (HGPT_PIXELS_GRAY16, &[a, b]) => [window.shown(u16::from_ne_bytes([a, b])); 3],
                (HGPT_PIXELS_BGRA8 | HGPT_PIXELS_BGR8, &[b, g, r, ..]) => [r, g, b],
                (_, &[r, g, b, ..]) => [r, g, b],
                _ => [0; 3],
            });
        }
    }
    if pixels.invert != 0 {
        rgb.iter_mut().for_each(|level| *level = !*level);
    }
    Ok(RgbPicture { width: w, height: h, pixels: rgb, region: None::<Rect> })
}

/// From 16 bits to 8.
///
/// *Source*: DICOM PS3.3 C.11.2.1.2.1, the linear function.
enum Window {
    Whole,
    Linear { center: f64, width: f64 },
}

impl Window {
    fn new(pixels: &hgpt_pixels) -> Result<Self> {
        let (center, width) = (f64::from(pixels.window_center), f64::from(pixels.window_width));
        if !center.is_finite() || !width.is_finite() || (width != 0.0 && width < 1.0) {
            return Err(Failure::argument(
                "window",
                format!("{center}, {width} is not a number and a width from 1 up"),
            ));
        }
        Ok(if width == 0.0 { Window::Whole } else { Window::Linear { center, width } })
    }

    fn shown(&self, value: u16) -> u8 {
        match *self {
            Window::Whole => (value >> 8) as u8,
            Window::Linear { center, width } => {
                let from_middle = f64::from(value) - (center - 0.5);
                let share = match width > 1.0 {
                    true => from_middle / (width - 1.0) + 0.5,
                    false => f64::from(u8::from(from_middle > 0.0)),
                };
                (share.clamp(0.0, 1.0) * 255.0).round() as u8
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structs::Record;

    fn rgb(change: impl FnOnce(&mut hgpt_pixels), data: &[u8]) -> Result<Vec<u8>, String> {
        let mut pixels = hgpt_pixels { width: 2, height: 2, size: data.len() as u64, ..hgpt_pixels::defaults() };
        change(&mut pixels);
        to_rgb(&pixels, data).map(|p| p.pixels).map_err(|f| f.text)
    }

    #[test]
    fn every_format_becomes_rgb_and_gaps_are_skipped() {
        let grey = rgb(|p| (p.format, p.stride) = (HGPT_PIXELS_GRAY8, 3), &[1, 2, 99, 3, 4]).unwrap();
        assert_eq!(grey, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
        let one = |format, data: &[u8]| rgb(|p| (p.format, p.width, p.height) = (format, 1, 1), data).unwrap();
        assert_eq!(one(HGPT_PIXELS_RGB8, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(one(HGPT_PIXELS_BGR8, &[1, 2, 3]), [3, 2, 1]);
        assert_eq!(one(HGPT_PIXELS_RGBA8, &[1, 2, 3, 9]), [1, 2, 3]);
        assert_eq!(one(HGPT_PIXELS_BGRA8, &[1, 2, 3, 9]), [3, 2, 1]);
        assert_eq!(one(HGPT_PIXELS_GRAY16, &0x12ff_u16.to_ne_bytes()), [0x12; 3]);
    }

    #[test]
    fn a_window_is_dicoms() {
        let shown = |value: u16, center, width| {
            let change = |p: &mut hgpt_pixels| {
                (p.format, p.width, p.height) = (HGPT_PIXELS_GRAY16, 1, 1);
                (p.window_center, p.window_width) = (center, width);
            };
            rgb(change, &value.to_ne_bytes()).unwrap()[0]
        };
        // PS3.3 C.11.2.1.2.1: c=2048, w=4096: x <= 0 is black, x > 4095 is white.
        assert_eq!(shown(0, 2048.0, 4096.0), 0);
        assert_eq!(shown(4095, 2048.0, 4096.0), 255);
        assert_eq!(shown(2048, 2048.0, 4096.0), 128);
        // c=100, w=1: x <= 99.5 is black, else white.
        assert_eq!((shown(99, 100.0, 1.0), shown(100, 100.0, 1.0)), (0, 255));
    }

    #[test]
    fn a_part_is_cut_out_and_black_and_white_change_places() {
        let part = |p: &mut hgpt_pixels| {
            (p.format, p.crop_x, p.crop_y, p.crop_width, p.crop_height) = (HGPT_PIXELS_GRAY8, 1, 1, 1, 1);
            p.invert = 1;
        };
        assert_eq!(rgb(part, &[1, 2, 3, 4]).unwrap(), [251; 3]);
    }

    #[test]
    fn absurd_pixels_are_refused() {
        let refused = |change: &dyn Fn(&mut hgpt_pixels)| {
            let all = |p: &mut hgpt_pixels| {
                p.format = HGPT_PIXELS_GRAY8;
                change(p);
            };
            rgb(all, &[0; 4]).unwrap_err()
        };
        assert!(refused(&|p| p.stride = 1).contains("less than the 2 bytes"));
        assert!(refused(&|p| p.stride = u64::MAX).contains("more than any memory"));
        assert!(refused(&|p| p.stride = 1 << 40).contains("there are 4"));
        assert!(refused(&|p| p.height = 3).contains("need 6 bytes, there are 4"));
        assert!(refused(&|p| p.format = 7).contains("7 is no HGPT_PIXELS_"));
        assert!(refused(&|p| p.width = 0).contains("empty"));
        assert!(refused(&|p| p.width = u32::MAX).contains("too many"));
        assert!(refused(&|p| p.crop_x = 1).contains("not a part"));
        assert!(refused(&|p| (p.crop_x, p.crop_width, p.crop_height) = (u32::MAX, 2, 1)).contains("not a part"));
        assert!(refused(&|p| p.window_width = f32::NAN).contains("not a number"));
        assert!(refused(&|p| p.window_width = 0.5).contains("from 1 up"));
    }
}
