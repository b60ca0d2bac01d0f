//! One frame of a DICOM file as 8-bit RGB, the way a viewer shows it at first.
//!
//! Only what that takes is read, over the bytes as they lie: nothing is allocated on a file's word. Names, dates and other elements
//! about a patient are stepped over. Uncompressed, RLE, JPEG (baseline, extended, lossless) and JPEG 2000 data are known.
//!
//! *Source*: DICOM PS3.3 C.7.6.3, C.7.6.5, C.11; PS3.5 section 7, annexes A and G.

mod codec;
mod elements;

use super::decode::{Problem, check_size};
use super::{Options, Rect, RgbPicture, Shape};
use elements::{Dataset, Value};

/// Transfer syntaxes, by what is done with the pixel data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Native { explicit: bool, big: bool },
    Rle,
    Jpeg,
    Jpeg2000,
}

impl Coding {
    fn of(uid: &str) -> Result<Self, String> {
        Ok(match uid.strip_prefix("1.2.840.10008.1.2").unwrap_or(uid) {
            "" => Coding::Native { explicit: false, big: false },
            ".1" => Coding::Native { explicit: true, big: false },
            ".2" => Coding::Native { explicit: true, big: true },
            ".5" => Coding::Rle,
            ".4.50" | ".4.51" | ".4.57" | ".4.70" => Coding::Jpeg,
            ".4.90" | ".4.91" => Coding::Jpeg2000,
            _ => return Err(format!("DICOM transfer syntax {uid} cannot be read")),
        })
    }
}

/// Samples of one frame as the file has them, before anything is made of their bits.
struct Frame {
    /// *Shapes*: `[height, width, samples a pixel]`.
    samples: Vec<u16>,
    /// Bits of a sample that count, if the coded data says so.
    bits: Option<u32>,
}

/// What the elements say about the pixels.
struct Layout {
    width: usize,
    height: usize,
    channels: usize,
    /// Bytes of an uncompressed sample, 1 or 2.
    sample_bytes: usize,
    bits_stored: u32,
    /// Bits below the stored ones in an uncompressed sample.
    shift: u32,
    signed: bool,
    planar: bool,
    photometric: String,
    frames: usize,
}

impl Layout {
    fn of(data: &Dataset<'_>) -> Result<Self, Problem> {
        let number = |tag, name| data.number(tag).ok_or_else(|| format!("the DICOM file has no {name}"));
        let not_read = |text: String| Err(Problem::unsupported(text));
        let (height, width) = (number(0x0028_0010, "Rows")?, number(0x0028_0011, "Columns")?);
        check_size(width, height)?;
        let channels = data.number(0x0028_0002).unwrap_or(1) as usize;
        let allocated = number(0x0028_0100, "BitsAllocated")?;
        let bits_stored = data.number(0x0028_0101).unwrap_or(allocated);
        let high_bit = data.number(0x0028_0102).unwrap_or(bits_stored.saturating_sub(1));
        if !(channels == 1 || channels == 3) || !(allocated == 8 || allocated == 16) {
            return not_read(format!("DICOM data of {channels} samples of {allocated} bits cannot be read"));
        }
        if bits_stored == 0 || bits_stored > allocated || high_bit + 1 < bits_stored || high_bit >= allocated {
            return Err(
                format!("DICOM BitsStored {bits_stored}, HighBit {high_bit} do not fit {allocated} bits").into()
            );
        }
        let photometric = data.text(0x0028_0004).ok_or("the DICOM file has no PhotometricInterpretation")?;
        let colours = match photometric.as_str() {
            "MONOCHROME1" | "MONOCHROME2" | "PALETTE COLOR" => 1,
            "RGB" | "YBR_FULL" | "YBR_FULL_422" | "YBR_RCT" | "YBR_ICT" => 3,
            other => return not_read(format!("DICOM PhotometricInterpretation {other:?} cannot be shown")),
        };
        if colours != channels {
            return Err(format!("DICOM {photometric} cannot have {channels} samples a pixel").into());
        }
        let frames = match data.text(0x0028_0008) {
            None => 1,
            Some(text) if text.is_empty() => 1,
            Some(text) => text.parse().map_err(|_| format!("DICOM NumberOfFrames is {text:?}"))?,
        };
        Ok(Self {
            width: width as usize,
            height: height as usize,
            channels,
            sample_bytes: allocated as usize / 8,
            bits_stored,
            shift: high_bit + 1 - bits_stored,
            signed: data.number(0x0028_0103) == Some(1),
            planar: data.number(0x0028_0006) == Some(1) && channels > 1,
            photometric,
            frames,
        })
    }

    fn pixels(&self) -> usize {
        self.width * self.height
    }
}

/// What stands before the pixels. The caller has seen the `DICM` mark.
fn open(bytes: &[u8]) -> Result<(Coding, Dataset<'_>, Layout), Problem> {
    let (meta, rest) = elements::meta(bytes)?;
    let uid = meta.text(0x0002_0010).ok_or("the DICOM file names no transfer syntax")?;
    let coding = Coding::of(&uid).map_err(Problem::unsupported)?;
    let (explicit, big) = match coding {
        Coding::Native { explicit, big } => (explicit, big),
        _ => (true, false),
    };
    let data = Dataset::read(rest, explicit, big)?;
    let layout = Layout::of(&data)?;
    Ok((coding, data, layout))
}

/// Size and frames. The caller has seen the `DICM` mark.
pub(super) fn shape(bytes: &[u8]) -> Result<Shape, Problem> {
    let (_, _, layout) = open(bytes)?;
    let frames = u32::try_from(layout.frames).unwrap_or(u32::MAX);
    Ok(Shape { width: layout.width as u32, height: layout.height as u32, frames })
}

/// Decodes one frame. The caller has seen the `DICM` mark.
pub(super) fn decode(bytes: &[u8], options: Options) -> Result<RgbPicture, Problem> {
    let (coding, data, layout) = open(bytes)?;
    let index = options.frame as usize;
    if index >= layout.frames {
        return Err(format!("there is no frame {index}, the file has {} (from 0)", layout.frames).into());
    }
    let pixel_data = data.get(0x7fe0_0010).ok_or("the DICOM file has no pixel data")?;
    let frame = match (&pixel_data.value, coding) {
        (Value::Bytes(bytes), Coding::Native { big, .. }) => {
            native(&layout, bytes, index, big, pixel_data.vr == *b"OW")?
        }
        (Value::Fragments(fragments), coding) => {
            let bytes = codec::frame(fragments, index, layout.frames)?;
            match coding {
                Coding::Rle => codec::rle(&layout, &bytes)?,
                Coding::Jpeg => codec::jpeg(&layout, &bytes)?,
                Coding::Jpeg2000 => codec::jpeg2000(&layout, &bytes)?,
                Coding::Native { .. } => return Err("DICOM pixel data should not be in fragments".into()),
            }
        }
        _ => return Err("DICOM pixel data should be in fragments".into()),
    };
    let pixels = match layout.photometric.as_str() {
        "PALETTE COLOR" => palette(&data, &layout, &frame)?,
        "MONOCHROME1" | "MONOCHROME2" => grey(&data, &layout, &frame)?,
        _ => colour(&layout, &frame),
    };
    Ok(RgbPicture { width: layout.width as u32, height: layout.height as u32, pixels, region: region(&data, &layout) })
}

fn native(layout: &Layout, bytes: &[u8], index: usize, big: bool, words: bool) -> Result<Frame, String> {
    // 4:2:2 stores Y Y Cb Cr for each pair of pixels.
    let halved = layout.photometric == "YBR_FULL_422";
    if halved && (layout.sample_bytes != 1 || layout.width % 2 == 1 || layout.planar) {
        return Err("DICOM 4:2:2 data of this form cannot be read".into());
    }
    let count = layout.pixels() * if halved { 2 } else { layout.channels };
    let len = count * layout.sample_bytes;
    let at = index.checked_mul(len);
    let found = at.and_then(|at| bytes.get(at..)?.get(..len));
    let bytes = found.ok_or_else(|| {
        format!("DICOM pixel data is cut short: {} bytes, frame {index} of {len} bytes is not in them", bytes.len())
    })?;
    let stored: Vec<u16> = match layout.sample_bytes {
        // Bytes in 16-bit words swap places when the words are big-endian.
        1 if big && words => {
            bytes.iter().enumerate().map(|(i, &b)| u16::from(*bytes.get(i ^ 1).unwrap_or(&b))).collect()
        }
        1 => bytes.iter().map(|&b| u16::from(b)).collect(),
        _ => {
            let word = if big { u16::from_be_bytes } else { u16::from_le_bytes };
            bytes.chunks_exact(2).map(|b| word([b[0], b[1]]) >> layout.shift).collect()
        }
    };
    let samples = if halved {
        stored.chunks_exact(4).flat_map(|p| [p[0], p[2], p[3], p[1], p[2], p[3]]).collect()
    } else if layout.planar {
        let n = layout.pixels();
        (0..count).map(|i| stored[i % 3 * n + i / 3]).collect()
    } else {
        stored
    };
    Ok(Frame { samples, bits: None })
}

/// The stored bits of a sample as a number.
fn stored(layout: &Layout, frame: &Frame) -> impl Fn(u16) -> i32 {
    let bits = frame.bits.unwrap_or(layout.bits_stored).clamp(1, 16);
    let signed = layout.signed;
    move |sample| {
        let unused = 32 - bits;
        let top = u32::from(sample) << unused;
        if signed { (top as i32) >> unused } else { (top >> unused) as i32 }
    }
}

/// JPEG 2000 undoes its own transforms (`YBR_RCT`, `YBR_ICT`); JPEG data come as they are coded.
fn colour(layout: &Layout, frame: &Frame) -> Vec<u8> {
    let extra = frame.bits.unwrap_or(layout.bits_stored).saturating_sub(8);
    let bytes: Vec<u8> = frame.samples.iter().map(|s| (s >> extra) as u8).collect();
    if layout.photometric.starts_with("YBR_FULL") { ybr_to_rgb(&bytes) } else { bytes }
}

/// Full-range BT.601, rounded half up.
fn ybr_to_rgb(ybr: &[u8]) -> Vec<u8> {
    let convert = |p: &[u8]| {
        let (y, cb, cr) = (f32::from(p[0]), f32::from(p[1]) - 128.0, f32::from(p[2]) - 128.0);
        let green = y - 0.114 * 1.772 / 0.587 * cb - 0.299 * 1.402 / 0.587 * cr;
        // `as` clamps.
        [y + 1.402 * cr, green, y + 1.772 * cb].map(|v| (v + 0.5).floor() as u8)
    };
    ybr.chunks_exact(3).flat_map(convert).collect()
}

fn palette(data: &Dataset<'_>, layout: &Layout, frame: &Frame) -> Result<Vec<u8>, String> {
    let table = |descriptor, entries, name| {
        let table = Table::of(data, descriptor, entries, layout.signed);
        table.ok_or_else(|| format!("the DICOM file has no usable {name} palette"))
    };
    let tables = [
        table(0x0028_1101, 0x0028_1201, "red")?,
        table(0x0028_1102, 0x0028_1202, "green")?,
        table(0x0028_1103, 0x0028_1203, "blue")?,
    ];
    let stored = stored(layout, frame);
    let of = |&sample: &u16| {
        let index = stored(sample);
        tables.each_ref().map(|t| if t.bits > 8 { (t.at(index) >> 8) as u8 } else { t.at(index) as u8 })
    };
    Ok(frame.samples.iter().flat_map(of).collect())
}

/// A look-up table: palette, modality or VOI.
struct Table {
    first: i32,
    bits: u32,
    entries: Vec<u16>,
}

impl Table {
    fn of(data: &Dataset<'_>, descriptor: u32, entries: u32, signed: bool) -> Option<Self> {
        let words = data.words(descriptor)?;
        let &[count, first, bits] = words.get(..3)? else { return None };
        let count = if count == 0 { 65_536 } else { usize::from(count) };
        let signed = match data.get(descriptor)?.vr {
            [b'S', b'S'] => true,
            [b'U', b'S'] => false,
            _ => signed,
        };
        let Value::Bytes(bytes) = &data.get(entries)?.value else { return None };
        // Entries of 8 bits may lie one a byte.
        let packed = bits <= 8 && bytes.len() < 2 * count;
        let entries: Vec<u16> =
            if packed { bytes.iter().map(|&b| u16::from(b)).collect() } else { data.words(entries)? };
        let entries = entries.get(..count)?.to_vec();
        if bits == 0 || bits > 16 {
            return None;
        }
        let first = if signed { i32::from(first as i16) } else { i32::from(first) };
        Some(Self { first, bits: u32::from(bits), entries })
    }

    fn at(&self, index: i32) -> u16 {
        let last = self.entries.len() - 1;
        let at = usize::try_from(index.saturating_sub(self.first)).unwrap_or(0);
        self.entries[at.min(last)]
    }
}

/// Modality, then the VOI table or the first window, then eight bits. Without a window 8-bit data stay as they are and
/// deeper ones are spread from their least to their greatest value.
fn grey(data: &Dataset<'_>, layout: &Layout, frame: &Frame) -> Result<Vec<u8>, String> {
    let lut = |sequence| {
        let item = data.items(sequence).ok()?.into_iter().next()?;
        Table::of(&item, 0x0028_3002, 0x0028_3006, layout.signed)
    };
    let stored = stored(layout, frame);
    let slope = data.decimal(0x0028_1053).unwrap_or(1.0);
    let intercept = data.decimal(0x0028_1052).unwrap_or(0.0);
    let modality = lut(0x0028_3000);
    let value = |sample: u16| match &modality {
        Some(table) => f64::from(table.at(stored(sample))),
        None => slope * f64::from(stored(sample)) + intercept,
    };

    let window = data.decimal(0x0028_1050).zip(data.decimal(0x0028_1051));
    let shown: Box<dyn Fn(f64) -> f64> = if let Some(table) = lut(0x0028_3010) {
        let top = f64::from((1u32 << table.bits) - 1);
        Box::new(move |x| f64::from(table.at(x as i32)) / top * 255.0)
    } else if let Some((center, width)) = window {
        match data.text(0x0028_1056).as_deref() {
            Some("SIGMOID") => Box::new(move |x| 255.0 / (1.0 + (-4.0 * (x - center) / width).exp())),
            Some("LINEAR_EXACT") => Box::new(move |x| ((x - center) / width + 0.5) * 255.0),
            _ if width <= 1.0 => Box::new(move |x| if x <= center - 0.5 { 0.0 } else { 255.0 }),
            _ => Box::new(move |x| ((x - (center - 0.5)) / (width - 1.0) + 0.5) * 255.0),
        }
    } else if layout.bits_stored == 8 {
        Box::new(|x| x)
    } else {
        let values = frame.samples.iter().map(|&s| value(s));
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        Box::new(move |x| if high > low { (x - low) / (high - low) * 255.0 } else { 0.0 })
    };
    let inverted = layout.photometric == "MONOCHROME1";
    let grey = |sample: u16| {
        // `as` clamps, and makes 0 of NaN.
        let level = (shown(value(sample)).clamp(0.0, 255.0) + 0.5).floor() as u8;
        if inverted { 255 - level } else { level }
    };
    // Samples repeat: each value is worked out once.
    let mut known = vec![None; 1 << 16];
    let levels = frame.samples.iter().flat_map(|&s| [*known[usize::from(s)].get_or_insert_with(|| grey(s)); 3]);
    Ok(levels.collect())
}

/// The largest ultrasound region of tissue (2D), or the largest of any kind.
fn region(data: &Dataset<'_>, layout: &Layout) -> Option<Rect> {
    let regions = data.items(0x0018_6011).ok()?;
    let rect = |item: &Dataset<'_>| {
        let (x, y) = (item.number(0x0018_6018)?, item.number(0x0018_601a)?);
        let x1 = item.number(0x0018_601c)?.min(layout.width as u32 - 1);
        let y1 = item.number(0x0018_601e)?.min(layout.height as u32 - 1);
        // The corners are inside.
        let (w, h) = (x1.checked_sub(x)? + 1, y1.checked_sub(y)? + 1);
        let tissue = item.number(0x0018_6012) == Some(1);
        Some((tissue, u64::from(w) * u64::from(h), Rect { x, y, w, h }))
    };
    regions.iter().filter_map(rect).max_by_key(|r| (r.0, r.1)).map(|r| r.2)
}
