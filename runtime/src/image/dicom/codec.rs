//! Compressed pixel data of DICOM files.

use std::borrow::Cow;
use std::collections::HashSet;

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};

use super::{Frame, Layout};

/// The bytes of one frame. `fragments`: the offset table first.
///
/// *Source*: PS3.5 A.4.
pub(super) fn frame<'a>(fragments: &[&'a [u8]], index: usize, frames: usize) -> Result<Cow<'a, [u8]>, String> {
    let missing = || format!("DICOM pixel data is cut short: frame {index} is not in it");
    let (offsets, fragments) = fragments.split_first().ok_or_else(missing)?;
    if fragments.len() == frames {
        return Ok(Cow::Borrowed(fragments[index]));
    }
    if frames == 1 {
        return Ok(Cow::Owned(fragments.concat()));
    }
    let offsets: HashSet<usize> =
        offsets.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    // An offset counts from the first fragment's item head; without a table a frame begins where its format's mark is.
    let mut at = 0;
    let mut number = None::<usize>;
    let mut bytes = Vec::new();
    for fragment in fragments {
        let begins = match offsets.is_empty() {
            false => offsets.contains(&at),
            true => fragment.starts_with(&[0xff, 0xd8]) || fragment.starts_with(&[0xff, 0x4f]),
        };
        if begins {
            number = Some(number.map_or(0, |n| n + 1));
        }
        if number == Some(index) {
            bytes.extend_from_slice(fragment);
        }
        at += 8 + fragment.len();
    }
    if bytes.is_empty() { Err(missing()) } else { Ok(Cow::Owned(bytes)) }
}

/// *Source*: PS3.5 annex G: byte planes, packed by runs, most significant byte first.
pub(super) fn rle(layout: &Layout, bytes: &[u8]) -> Result<Frame, String> {
    const CUT: &str = "DICOM RLE data is cut short or damaged";
    let long = |i: usize| {
        let b = bytes.get(4 * i..4 * i + 4).ok_or(CUT)?;
        Ok::<_, String>(u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
    };
    let planes = layout.channels * layout.sample_bytes;
    if long(0)? != planes {
        return Err(format!("DICOM RLE data has {} segments, {planes} expected", long(0)?));
    }
    let n = layout.pixels();
    let mut samples = vec![0u16; n * layout.channels];
    for plane in 0..planes {
        let end = if plane + 1 < planes { long(plane + 2)? } else { bytes.len() };
        let mut packed = bytes.get(long(plane + 1)?..end).ok_or(CUT)?;
        let (channel, shift) =
            (plane / layout.sample_bytes, 8 * (layout.sample_bytes - 1 - plane % layout.sample_bytes));
        let mut out = samples.iter_mut().skip(channel).step_by(layout.channels);
        let mut left = n;
        let mut put = |byte: u8| {
            if let Some(sample) = out.next() {
                *sample |= u16::from(byte) << shift;
            }
        };
        while left > 0 {
            let (&control, rest) = packed.split_first().ok_or(CUT)?;
            packed = rest;
            let count = match control {
                0..=127 => {
                    let count = usize::from(control) + 1;
                    let (run, rest) = packed.split_at_checked(count).ok_or(CUT)?;
                    packed = rest;
                    run.iter().for_each(|&b| put(b));
                    count
                }
                128 => 0,
                129..=255 => {
                    let count = 257 - usize::from(control);
                    let (&byte, rest) = packed.split_first().ok_or(CUT)?;
                    packed = rest;
                    (0..count).for_each(|_| put(byte));
                    count
                }
            };
            left = left.saturating_sub(count);
        }
    }
    if layout.shift > 0 {
        samples.iter_mut().for_each(|s| *s >>= layout.shift);
    }
    Ok(Frame { samples, bits: None })
}

/// JPEG, lossy or lossless; colours as coded, for the caller to convert, unless the data contradicts the file.
pub(super) fn jpeg(layout: &Layout, bytes: &[u8]) -> Result<Frame, String> {
    if !crate::image::decode::jpeg_is_whole(bytes) {
        return Err("the JPEG data is cut short".into());
    }
    let fail = |e: jpeg_decoder::Error| format!("DICOM JPEG data: {e}");
    let mut decoder = Decoder::new(bytes);
    decoder.read_info().map_err(fail)?;
    let info = decoder.info().ok_or("DICOM JPEG data has no header")?;
    let (channels, wide) = match info.pixel_format {
        PixelFormat::L8 => (1, false),
        PixelFormat::L16 => (1, true),
        PixelFormat::RGB24 => (3, false),
        PixelFormat::CMYK32 => (4, false),
    };
    expect(layout, usize::from(info.width), usize::from(info.height), channels)?;
    // Some writers leave `RGB` in a file whose data has been converted; a mark in the data tells.
    let converted = layout.photometric == "RGB" && says_ybr(bytes);
    if channels == 3 {
        // `RGB` means as coded; the library's `None` panics.
        decoder.set_color_transform(if converted { ColorTransform::YCbCr } else { ColorTransform::RGB });
    }
    decoder.set_max_decoding_buffer_size(layout.pixels() * layout.channels * 2);
    let pixels = decoder.decode().map_err(fail)?;
    let samples: Vec<u16> = if wide {
        pixels.chunks_exact(2).map(|b| u16::from_ne_bytes([b[0], b[1]])).collect()
    } else {
        pixels.into_iter().map(u16::from).collect()
    };
    whole(layout, Frame { samples, bits: None })
}

/// Whether a JFIF or Adobe mark before the first scan says that the colours are converted.
fn says_ybr(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        let body = bytes.get(at + 4..).unwrap_or_default();
        match marker {
            0xda => return false,
            0xe0 if body.starts_with(b"JFIF") => return true,
            0xee if body.starts_with(b"Adobe") => return body.get(11) == Some(&1),
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    false
}

pub(super) fn jpeg2000(layout: &Layout, bytes: &[u8]) -> Result<Frame, String> {
    let fail = |e: hayro_jpeg2000::DecodeError| format!("DICOM JPEG 2000 data: {e}");
    // Some writers wrap the codestream in a JP2 file; what that adds is said by the DICOM elements.
    let start = bytes.windows(4).position(|w| w == [0xff, 0x4f, 0xff, 0x51]);
    let bytes = start.map(|at| &bytes[at..]).ok_or("DICOM JPEG 2000 data has no codestream")?;
    let signed = check_codestream(bytes, layout.channels)?;
    let settings = DecodeSettings { strict: true, ..DecodeSettings::default() };
    let image = Image::new(bytes, &settings).map_err(fail)?;
    expect(layout, image.width() as usize, image.height() as usize, layout.channels)?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(fail)?;
    let components = decoded.components();
    let n = layout.pixels();
    if components.len() != layout.channels || components.iter().any(|c| c.samples().len() != n) {
        return Err(format!("DICOM JPEG 2000 data has {} components", components.len()));
    }
    let bits = components.iter().map(|c| u32::from(c.bit_depth())).max().unwrap_or(0);
    if !(1..=16).contains(&bits) {
        return Err(format!("DICOM JPEG 2000 data of {bits} bits cannot be read"));
    }
    let top = ((1u32 << bits) - 1) as f32;
    // The decoder shifts signed components as if they were not.
    let half = if signed { 1 << (bits - 1) } else { 0 };
    let mut samples = vec![0u16; n * layout.channels];
    for (c, component) in components.iter().enumerate() {
        let out = samples.iter_mut().skip(c).step_by(layout.channels);
        for (out, &value) in out.zip(component.samples()) {
            let value = (value + 0.5).floor().clamp(0.0, top) as i32;
            *out = (value - half) as u16;
        }
    }
    Ok(Frame { samples, bits: Some(bits) })
}

/// Refuses codestreams that cut the picture into so many tiles, precincts or blocks that the decoder's tables would take
/// gigabytes (150 kB of data with tiles of 1 x 1 got the process killed). Returns whether samples are signed.
///
/// *Source*: ISO/IEC 15444-1 annex A.
fn check_codestream(bytes: &[u8], channels: usize) -> Result<bool, String> {
    const MAX_TILES: u64 = 4096;
    const CUT: &str = "DICOM JPEG 2000 data is cut short or damaged";
    let word = |at: usize| {
        let b = bytes.get(at..at + 2).ok_or(CUT)?;
        Ok::<_, String>(u16::from_be_bytes([b[0], b[1]]))
    };
    let long = |at: usize| Ok::<_, String>(u32::from(word(at)?) << 16 | u32::from(word(at + 2)?));
    let byte = |at: usize| bytes.get(at).copied().ok_or(CUT);

    let tiles = |size: u32, tile: u32| u64::from(size).div_ceil(u64::from(tile.max(1)));
    if tiles(long(8)?, long(24)?).saturating_mul(tiles(long(12)?, long(28)?)) > MAX_TILES {
        return Err(format!("DICOM JPEG 2000 data has more than {MAX_TILES} tiles"));
    }
    // The decoder makes room for every component before anything else is compared.
    let components = word(40)?;
    if usize::from(components) != channels {
        return Err(format!("DICOM JPEG 2000 data has {components} components instead of {channels}"));
    }
    let signed = byte(42)? & 0x80 != 0;

    let mut at = 2;
    let mut part_end = None;
    loop {
        let (marker, len) = (word(at)?, usize::from(word(at + 2)?));
        match marker {
            // SOT; a length of 0 reaches to the end.
            0xff90 => part_end = Some(at).zip(long(at + 6).ok().filter(|&n| n > 0)).map(|(at, n)| at + n as usize),
            // SOD: on to the next tile part.
            0xff93 => match part_end {
                Some(end) if end > at && end < bytes.len() => {
                    at = end;
                    if word(at) == Ok(0xffd9) {
                        return Ok(signed);
                    }
                    continue;
                }
                _ => return Ok(signed),
            },
            // COD, and COC with one or two bytes of component number.
            0xff52 | 0xff53 => {
                let wide = usize::from(word(40)? > 256);
                let own = marker == 0xff53;
                let style = if own { byte(at + 5 + wide)? } else { byte(at + 4)? };
                let from = if own { at + 6 + wide } else { at + 9 };
                let (width, height) = (byte(from + 1)?, byte(from + 2)?);
                // Exponents, less two: 16 x 16 or as many in another shape.
                if width.saturating_add(height) < 4 {
                    return Err("DICOM JPEG 2000 data has blocks of less than 256 samples".into());
                }
                let precincts = bytes.get(from + 5..at + 2 + len).unwrap_or_default();
                if style & 1 != 0 && precincts.iter().any(|p| p & 15 < 4 || p >> 4 < 4) {
                    return Err("DICOM JPEG 2000 data has precincts of less than 16 x 16 samples".into());
                }
            }
            _ => {}
        }
        at += 2 + len.max(2);
    }
}

fn expect(layout: &Layout, width: usize, height: usize, channels: usize) -> Result<(), String> {
    let (found, wanted) = ((width, height, channels), (layout.width, layout.height, layout.channels));
    if found == wanted {
        return Ok(());
    }
    Err(format!(
        "DICOM pixel data is {width}x{height} with {channels} samples a pixel, the file says {}x{} with {}",
        wanted.0, wanted.1, wanted.2
    ))
}

fn whole(layout: &Layout, frame: Frame) -> Result<Frame, String> {
    let wanted = layout.pixels() * layout.channels;
    if frame.samples.len() == wanted {
        return Ok(frame);
    }
    Err(format!("DICOM pixel data decodes to {} samples, {wanted} expected", frame.samples.len()))
}
