//! A picture file of any known format as RGB.
//!
//! The bytes are not trusted: sizes are checked before anything is allocated, and what cannot be read is one error line.
//! Colours are taken as they stand, as PIL's `convert("RGB")` does: no colour profile, no EXIF rotation, alpha dropped.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{Rect, dicom};
use crate::{Error, Result};

/// Longest side of a picture. *Units*: pixels.
pub const MAX_SIDE: u32 = 16_384;

/// Largest area of a picture; the largest mammograms have less than half. *Units*: pixels.
pub const MAX_PIXELS: u64 = 64 << 20;

/// What a decoder may allocate: the largest picture at 16 bits and four channels, and as much again in between.
const MAX_ALLOC_BYTES: u64 = MAX_PIXELS * 16;

/// An 8-bit RGB picture.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbPicture {
    /// *Units*: pixels.
    pub width: u32,
    /// *Units*: pixels.
    pub height: u32,
    /// *Shapes*: `[height, width, 3]`, rows from the top.
    pub pixels: Vec<u8>,
    /// The part that the file itself calls its ultrasound region.
    pub region: Option<Rect>,
}

impl std::fmt::Debug for RgbPicture {
    /// Leaves the pixels out: patients' data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbPicture({}x{}, region {:?})", self.width, self.height, self.region)
    }
}

/// What of a file is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Frame of a file with several, from 0.
    pub frame: u32,
}

/// Decodes a picture; the format (PNG, JPEG, TIFF, BMP or DICOM) is told by the content. `name` is for the errors only.
///
/// Of 16-bit samples the high byte is taken. Of a TIFF with several pages the first is. Of a DICOM file one
/// frame is, shown by the file's own first window or tables.
///
/// *Errors*: [`Error::Picture`] if the format is unknown, the file is damaged or cut short, it lacks the frame, or the picture
/// is empty or larger than [`MAX_SIDE`] or [`MAX_PIXELS`].
pub fn decode(bytes: &[u8], name: &str, options: Options) -> Result<RgbPicture> {
    read(bytes, options).map_err(|problem| problem.about(name))
}

/// Size and number of frames of a picture file, from its header: next to nothing is allocated. `name` is for the errors only.
///
/// *Errors*: as [`decode`], as far as can be told.
pub fn shape(bytes: &[u8], name: &str) -> Result<Shape> {
    let read = || -> Result<Shape, Problem> {
        if is_dicom(bytes)? {
            return dicom::shape(bytes);
        }
        let (width, height) = open(bytes)?.dimensions();
        check_size(width, height)?;
        Ok(Shape { width, height, frames: 1 })
    };
    read().map_err(|problem| problem.about(name))
}

/// What a picture file says before its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// *Units*: pixels.
    pub width: u32,
    /// *Units*: pixels.
    pub height: u32,
    /// Pictures that [`Options::frame`] can choose from.
    pub frames: u32,
}

/// Why a picture cannot be read.
pub(super) struct Problem {
    text: String,
    unsupported: bool,
}

impl Problem {
    /// The picture may well be sound.
    pub fn unsupported(text: impl Into<String>) -> Self {
        Problem { text: text.into(), unsupported: true }
    }

    fn about(self, name: &str) -> Error {
        Error::Picture { name: name.into(), problem: self.text, unsupported: self.unsupported }
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Problem { text, unsupported: false }
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Problem::from(text.to_string())
    }
}

fn is_dicom(bytes: &[u8]) -> Result<bool, Problem> {
    match bytes.is_empty() {
        true => Err("the file is empty".into()),
        false => Ok(bytes.get(128..132) == Some(b"DICM")),
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOC_BYTES);
    limits
}

/// The decoder of a picture that is no DICOM file.
fn open(bytes: &[u8]) -> Result<impl ImageDecoder + '_, Problem> {
    let format = format_of(bytes).ok_or_else(|| Problem::unsupported("not a PNG, JPEG, TIFF, BMP or DICOM file"))?;
    if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        return Err("the JPEG data is cut short".into());
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits());
    reader.into_decoder().map_err(one_line)
}

fn read(bytes: &[u8], options: Options) -> Result<RgbPicture, Problem> {
    if is_dicom(bytes)? {
        return dicom::decode(bytes, options);
    }
    if options.frame > 0 && format_of(bytes).is_some() {
        let frame = options.frame;
        return Err(format!("there is no frame {frame}: only the first picture of such a file is read").into());
    }
    let mut decoder = open(bytes)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    decoder.set_limits(limits()).map_err(one_line)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(one_line)?;
    Ok(RgbPicture { width, height, pixels: to_rgb(picture)?, region: None })
}

/// Checks a picture's size before anything is allocated for it.
///
/// *Errors*: one line that names size and limit.
pub fn check_size(width: u32, height: u32) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(format!("a picture of {width}x{height} pixels is empty"));
    }
    if width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS {
        return Err(format!(
            "{width}x{height} pixels are too many, the limit is {MAX_SIDE} a side and {MAX_PIXELS} in all"
        ));
    }
    Ok(())
}

fn format_of(bytes: &[u8]) -> Option<ImageFormat> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some(ImageFormat::Png),
        [0xff, 0xd8, 0xff, ..] => Some(ImageFormat::Jpeg),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(ImageFormat::Tiff),
        [b'I', b'I', 43, 0, ..] | [b'M', b'M', 0, 43, ..] => Some(ImageFormat::Tiff),
        [b'B', b'M', ..] => Some(ImageFormat::Bmp),
        _ => None,
    }
}

/// Whether an end marker follows the first scan. The decoder takes a file without one and invents what is missing.
pub(super) fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        match marker {
            0xff => at += 1,
            0xda => return bytes[at..].windows(2).any(|w| w == [0xff, 0xd9]),
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    // Damaged in another way: for the decoder to say how.
    at < bytes.len()
}

fn to_rgb(picture: DynamicImage) -> Result<Vec<u8>, Problem> {
    let high = |sample: &u16| (sample >> 8) as u8;
    Ok(match picture {
        DynamicImage::ImageRgb8(p) => p.into_raw(),
        DynamicImage::ImageRgba8(p) => p.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect(),
        DynamicImage::ImageLuma8(p) => p.iter().flat_map(|&g| [g; 3]).collect(),
        DynamicImage::ImageLumaA8(p) => p.pixels().flat_map(|p| [p.0[0]; 3]).collect(),
        DynamicImage::ImageRgb16(p) => p.iter().map(high).collect(),
        DynamicImage::ImageRgba16(p) => p.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(|s| high(&s))).collect(),
        DynamicImage::ImageLuma16(p) => p.iter().flat_map(|g| [high(g); 3]).collect(),
        DynamicImage::ImageLumaA16(p) => p.pixels().flat_map(|p| [high(&p.0[0]); 3]).collect(),
        _ => return Err(Problem::unsupported("floating-point samples cannot be read")),
    })
}

fn one_line(error: image::ImageError) -> Problem {
    let unsupported = matches!(error, image::ImageError::Unsupported(_));
    Problem { text: error.to_string().split_whitespace().collect::<Vec<_>>().join(" "), unsupported }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder};

    fn file(format: ImageFormat, samples: &[u8], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        match format {
            ImageFormat::Png => {
                image::codecs::png::PngEncoder::new(&mut out).write_image(samples, width, height, color)
            }
            ImageFormat::Jpeg => {
                image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 100).encode(samples, width, height, color)
            }
            ImageFormat::Tiff => {
                image::codecs::tiff::TiffEncoder::new(&mut out).write_image(samples, width, height, color)
            }
            _ => image::codecs::bmp::BmpEncoder::new(&mut out).encode(samples, width, height, color),
        }
        .unwrap();
        out.into_inner()
    }

    fn pixels(bytes: &[u8]) -> Vec<u8> {
        decode(bytes, "x", Options::default()).unwrap().pixels
    }

    fn refusal(bytes: &[u8]) -> String {
        let error = decode(bytes, "a.png", Options::default()).unwrap_err();
        assert!(matches!(error, Error::Picture { .. }));
        let line = error.to_string();
        assert!(line.starts_with("picture a.png: ") && !line.contains('\n'), "{line}");
        line
    }

    const FORMATS: [ImageFormat; 4] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Tiff, ImageFormat::Bmp];

    /// Noise, so that no format packs it into a few bytes.
    fn noise(n: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn every_format_is_told_by_its_content() {
        let samples = noise(20 * 10 * 3);
        for format in FORMATS {
            let bytes = file(format, &samples, 20, 10, ExtendedColorType::Rgb8);
            let picture = decode(&bytes, "x", Options::default()).unwrap();
            assert_eq!((picture.width, picture.height, picture.pixels.len()), (20, 10, 600));
            if format != ImageFormat::Jpeg {
                assert_eq!(picture.pixels, samples, "{format:?}");
            }
            assert!(decode(&bytes, "x", Options { frame: 1 }).is_err());
        }
    }

    #[test]
    fn grey_becomes_rgb_alpha_is_dropped_and_the_high_byte_counts() {
        let png = |samples: &[u8], color| pixels(&file(ImageFormat::Png, samples, 1, 1, color));
        assert_eq!(png(&[7], ExtendedColorType::L8), [7, 7, 7]);
        assert_eq!(png(&[7, 0], ExtendedColorType::La8), [7, 7, 7]);
        assert_eq!(png(&[1, 2, 3, 0], ExtendedColorType::Rgba8), [1, 2, 3]);
        let wide = |samples: &[u16]| samples.iter().flat_map(|s| s.to_ne_bytes()).collect::<Vec<u8>>();
        assert_eq!(png(&wide(&[0x12ff]), ExtendedColorType::L16), [0x12; 3]);
        assert_eq!(png(&wide(&[0xffff, 0]), ExtendedColorType::La16), [0xff; 3]);
        assert_eq!(png(&wide(&[0x0180, 0x02ff, 0x0300]), ExtendedColorType::Rgb16), [1, 2, 3]);
        assert_eq!(png(&wide(&[0x0180, 0x02ff, 0x0300, 9]), ExtendedColorType::Rgba16), [1, 2, 3]);
    }

    #[test]
    fn a_file_cut_short_is_refused() {
        let samples = noise(40 * 30 * 3);
        for format in FORMATS {
            let bytes = file(format, &samples, 40, 30, ExtendedColorType::Rgb8);
            for cut in (0..bytes.len() * 9 / 10).step_by(13) {
                refusal(&bytes[..cut]);
            }
        }
    }

    #[test]
    fn a_damaged_file_never_panics() {
        let samples = noise(16 * 12 * 3);
        for format in FORMATS {
            let bytes = file(format, &samples, 16, 12, ExtendedColorType::Rgb8);
            for at in 0..bytes.len().min(700) {
                for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 4] {
                    let mut bytes = bytes.clone();
                    bytes[at] = value;
                    let _ = decode(&bytes, "x", Options::default());
                }
            }
        }
    }

    #[test]
    fn absurd_sizes_are_refused_before_anything_is_allocated() {
        let mut bmp = file(ImageFormat::Bmp, &[0; 3], 1, 1, ExtendedColorType::Rgb8);
        for (width, height) in [(20_000u32, 1u32), (16_000, 16_000), (1, 20_000)] {
            bmp[18..22].copy_from_slice(&width.to_le_bytes());
            bmp[22..26].copy_from_slice(&height.to_le_bytes());
            refusal(&bmp);
        }
        assert!(check_size(0, 5).is_err());
        assert!(check_size(MAX_SIDE, 4096).is_ok());
        assert!(check_size(MAX_SIDE, 4097).is_err());
        assert!(check_size(u32::MAX, u32::MAX).is_err());
    }

    #[test]
    fn size_and_frames_are_known_without_the_pixels() {
        let samples = noise(20 * 10 * 3);
        for format in FORMATS {
            let bytes = file(format, &samples, 20, 10, ExtendedColorType::Rgb8);
            let wanted = Shape { width: 20, height: 10, frames: 1 };
            assert_eq!(shape(&bytes, "x").unwrap(), wanted, "{format:?}");
        }
        let unsupported = |bytes: &[u8]| match shape(bytes, "x").unwrap_err() {
            Error::Picture { unsupported, .. } => unsupported,
            other => panic!("{other}"),
        };
        assert!(unsupported(b"GIF89a...."));
        assert!(!unsupported(b"") && !unsupported(b"\x89PNG"));
    }

    #[test]
    fn other_files_are_named_as_unknown() {
        assert!(refusal(b"").contains("empty"));
        assert!(refusal(b"GIF89a....").contains("not a PNG"));
        assert!(refusal(b"\x89PNG").starts_with("picture a.png: "));
    }
}
