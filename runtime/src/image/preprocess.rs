//! From an RGB picture to the vision tower's pixel values, as the published code does with PIL and transformers.

use serde_json::Value;

use super::RgbPicture;

/// Largest picture side that a vision tower may ask for. *Units*: pixels.
const MAX_SIZE: u32 = 4096;

/// PIL's code for its bicubic filter.
const BICUBIC: u64 = 3;

/// Fraction bits of PIL's 8-bit resampling coefficients.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Pad, resize, crop and normalise: the numbers of a `preprocessor_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    /// Side to which the padded picture is resized. *Units*: pixels.
    pub size: u32,
    /// Side of the centre that is kept, at most `size`. *Units*: pixels.
    pub crop: u32,
    /// Per channel; also the colour of the padding. *Units*: 1 is white.
    pub mean: [f32; 3],
    /// Per channel. *Units*: 1 is white.
    pub std: [f32; 3],
    /// What a pixel is multiplied with before normalisation, 1/255.
    pub rescale: f64,
    /// `floor(255 mean)`, computed from the unrounded numbers.
    pub padding: [u8; 3],
}

impl Preprocess {
    /// Reads the bytes of `preprocessor_config.json`.
    ///
    /// *Errors*: one line that says what is wrong; the caller knows the file. A step that would be left out or a filter
    /// other than bicubic is refused.
    pub fn new(config: &[u8]) -> Result<Self, String> {
        let config: Value = serde_json::from_slice(config).map_err(|e| e.to_string())?;
        for step in ["do_resize", "do_center_crop", "do_normalize", "do_rescale", "do_convert_rgb"] {
            if config[step] == Value::Bool(false) {
                return Err(format!("{step} is false, which is not supported"));
            }
        }
        let resample = config["resample"].as_u64().unwrap_or(BICUBIC);
        if resample != BICUBIC {
            return Err(format!("resample is {resample}, only {BICUBIC} (bicubic) is supported"));
        }
        let size = side(&config, "size")?.ok_or("size is missing")?;
        let crop = side(&config, "crop_size")?.unwrap_or(size);
        if crop > size {
            return Err(format!("crop_size {crop} is more than size {size}"));
        }
        let mean = channels(&config, "image_mean", 0.0..=1.0)?;
        let std = channels(&config, "image_std", f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX))?;
        let rescale = match &config["rescale_factor"] {
            Value::Null => 1.0 / 255.0,
            value => value.as_f64().ok_or("rescale_factor is not a number")?,
        };
        Ok(Self {
            size,
            crop,
            mean: mean.map(|m| m as f32),
            std: std.map(|s| s as f32),
            rescale,
            padding: mean.map(|m| (m * 255.0) as u8),
        })
    }

    /// Pixel values. *Shapes*: `[3, crop, crop]`.
    ///
    /// *Source*: `expand2square` of LLaVA and `CLIPImageProcessor` of transformers 4.41.
    pub fn run(&self, picture: &RgbPicture) -> Vec<f32> {
        let rgb = self.resize(picture);
        let (size, crop) = (self.size as usize, self.crop as usize);
        let from = (size - crop) / 2;
        let mut values = Vec::with_capacity(3 * crop * crop);
        for c in 0..3 {
            // The same roundings as numpy: f64 product to f32, then subtraction and division in f32.
            let table: Vec<f32> =
                (0..=u8::MAX).map(|p| ((f64::from(p) * self.rescale) as f32 - self.mean[c]) / self.std[c]).collect();
            for row in rgb.chunks_exact(3 * size).skip(from).take(crop) {
                let row = &row[3 * from..3 * (from + crop)];
                values.extend(row.iter().skip(c).step_by(3).map(|&p| table[usize::from(p)]));
            }
        }
        values
    }

    /// The picture padded to a square, resized and cropped: what the pixel values are made of. *Shapes*: `[crop, crop, 3]`.
    pub fn preview(&self, picture: &RgbPicture) -> RgbPicture {
        let rgb = self.resize(picture);
        let (size, crop) = (self.size as usize, self.crop as usize);
        let from = (size - crop) / 2;
        let rows = rgb.chunks_exact(3 * size).skip(from).take(crop);
        let pixels = rows.flat_map(|row| &row[3 * from..3 * (from + crop)]).copied().collect();
        RgbPicture { width: self.crop, height: self.crop, pixels, region: None }
    }

    /// The picture padded to a square and resized. *Shapes*: `[size, size, 3]`.
    ///
    /// The padding is never stored: a long thin picture would need gigabytes.
    ///
    /// *Source*: Pillow's `Resample.c`: horizontal pass first, each pass rounded to 8 bits.
    pub fn resize(&self, picture: &RgbPicture) -> Vec<u8> {
        let (width, height) = (picture.width as usize, picture.height as usize);
        let side = width.max(height);
        let size = self.size as usize;
        let (left, top) = ((side - width) / 2, (side - height) / 2);
        let taps = Taps::new(side, size);

        let mut row = self.padding.repeat(side);
        let mut padding = vec![0; 3 * size];
        taps.across(&row, &mut padding);
        let mut narrow = Vec::with_capacity(side * 3 * size);
        let mut rows = picture.pixels.chunks_exact(3 * width);
        for y in 0..side {
            let at = narrow.len();
            narrow.extend_from_slice(&padding);
            if y >= top
                && let Some(pixels) = rows.next()
            {
                row[3 * left..3 * (left + width)].copy_from_slice(pixels);
                taps.across(&row, &mut narrow[at..]);
            }
        }
        let mut rgb = vec![0; size * 3 * size];
        taps.down(&narrow, 3 * size, &mut rgb);
        rgb
    }
}

/// The weights of one pass, from `input` samples to as many as there are entries.
struct Taps {
    /// First input sample and fixed-point weights of each output sample.
    entries: Vec<(usize, Vec<i32>)>,
}

impl Taps {
    fn new(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let widening = scale.max(1.0);
        let support = 2.0 * widening;
        let entry = |i: usize| {
            let center = (i as f64 + 0.5) * scale;
            // `as` truncates and stops at 0, as PIL's casts and checks do.
            let from = (center - support + 0.5) as usize;
            let to = ((center + support + 0.5) as usize).min(input);
            let weights: Vec<f64> = (from..to).map(|x| bicubic((x as f64 - center + 0.5) * (1.0 / widening))).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |w: &f64| {
                let w = if sum == 0.0 { *w } else { w / sum };
                let scaled = w * f64::from(1u32 << PRECISION_BITS);
                (if w < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
            };
            (from, weights.iter().map(fixed).collect())
        };
        Self { entries: (0..output).map(entry).collect() }
    }

    /// One row of RGB to one row of RGB.
    fn across(&self, row: &[u8], out: &mut [u8]) {
        for ((from, weights), out) in self.entries.iter().zip(out.chunks_exact_mut(3)) {
            let mut sums = [HALF; 3];
            for (pixel, weight) in row[3 * from..].chunks_exact(3).zip(weights) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(sample) * weight;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = clip(sum);
            }
        }
    }

    /// Rows of `row_bytes` bytes to as many rows as there are entries.
    fn down(&self, rows: &[u8], row_bytes: usize, out: &mut [u8]) {
        let mut sums = vec![0; row_bytes];
        for ((from, weights), out) in self.entries.iter().zip(out.chunks_exact_mut(row_bytes)) {
            sums.fill(HALF);
            for (row, weight) in rows[from * row_bytes..].chunks_exact(row_bytes).zip(weights) {
                for (sum, &sample) in sums.iter_mut().zip(row) {
                    *sum += i32::from(sample) * weight;
                }
            }
            for (out, &sum) in out.iter_mut().zip(&sums) {
                *out = clip(sum);
            }
        }
    }
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Keys' filter with a = -1/2, in PIL's order of operations.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// A side in pixels: a number, `{"shortest_edge"}` or `{"height", "width"}`, which must be equal.
fn side(config: &Value, name: &str) -> Result<Option<u32>, String> {
    let value = &config[name];
    let side = match value {
        Value::Null => return Ok(None),
        Value::Object(sides) if sides.contains_key("shortest_edge") => &value["shortest_edge"],
        Value::Object(_) if value["height"] == value["width"] => &value["height"],
        _ => value,
    };
    match side.as_u64().and_then(|n| u32::try_from(n).ok()) {
        Some(n) if (1..=MAX_SIZE).contains(&n) => Ok(Some(n)),
        _ => Err(format!("{name} is {value}, not one side from 1 to {MAX_SIZE}")),
    }
}

fn channels(config: &Value, name: &str, range: std::ops::RangeInclusive<f64>) -> Result<[f64; 3], String> {
    let numbers: Option<Vec<f64>> = config[name].as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    match numbers.as_deref() {
        Some(&[r, g, b]) if [r, g, b].iter().all(|n| range.contains(n)) => Ok([r, g, b]),
        _ => Err(format!("{name} is not three numbers in {range:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: &str = r#"{"size": {"shortest_edge": 4}, "crop_size": {"height": 2, "width": 2}, "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}"#;

    fn picture(width: u32, height: u32, pixels: Vec<u8>) -> RgbPicture {
        RgbPicture { width, height, pixels, region: None }
    }

    #[test]
    fn numbers_come_from_the_file() {
        let clip = Preprocess::new(CLIP.as_bytes()).unwrap();
        assert_eq!((clip.size, clip.crop, clip.padding), (4, 2, [122, 116, 104]));
        assert_eq!(clip.mean[0], 0.481_454_66);
        let with = |from: &str, to: &str| Preprocess::new(CLIP.replace(from, to).as_bytes());
        assert_eq!(with(r#"{"shortest_edge": 4}"#, "4"), Ok(clip));
        for (from, to, named) in [
            (r#"{"shortest_edge": 4}"#, "0", "size"),
            (r#"{"shortest_edge": 4}"#, r#"{"height": 3, "width": 4}"#, "size"),
            (r#"{"shortest_edge": 4}"#, "1000000", "size"),
            (r#"{"shortest_edge": 4}"#, "1", "crop_size"),
            (r#""resample": 3"#, r#""resample": 2"#, "resample"),
            (r#""resample": 3"#, r#""do_resize": false"#, "do_resize"),
            ("0.26862954", "0.0", "image_std"),
            ("0.48145466", "3", "image_mean"),
            ("0.48145466, ", "", "image_mean"),
        ] {
            let error = with(from, to).unwrap_err();
            assert!(error.starts_with(named), "{error}");
        }
        assert!(Preprocess::new(b"{").is_err());
    }

    #[test]
    fn a_square_of_the_right_size_is_left_as_it_is() {
        let clip = Preprocess::new(CLIP.as_bytes()).unwrap();
        let pixels: Vec<u8> = (0..48).map(|i| i * 5).collect();
        assert_eq!(clip.resize(&picture(4, 4, pixels.clone())), pixels);
        let values = clip.run(&picture(4, 4, pixels));
        assert_eq!(values.len(), 12);
        // Row 1, column 1, red: byte 15, value 75.
        assert_eq!(values[0], (75.0 / 255.0 - 0.481_454_66) / 0.268_629_54);
    }

    #[test]
    fn padding_is_the_mean_colour_and_its_odd_row_lies_below() {
        let clip = Preprocess::new(CLIP.replace("4}", "3}").as_bytes()).unwrap();
        let rgb = clip.resize(&picture(3, 2, vec![200; 18]));
        assert_eq!(rgb[..18], [200; 18]);
        assert_eq!(rgb[18..], [122, 116, 104].repeat(3));
    }

    #[test]
    fn one_colour_stays_one_colour_at_any_size() {
        let clip = Preprocess::new(CLIP.as_bytes()).unwrap();
        for side in [1, 2, 3, 5, 17, 500] {
            let pixels = vec![201; side * side * 3];
            let rgb = clip.resize(&picture(side as u32, side as u32, pixels));
            assert_eq!(rgb, [201; 48]);
        }
    }

    #[test]
    fn a_long_thin_picture_is_no_trouble() {
        let clip = Preprocess::new(CLIP.as_bytes()).unwrap();
        let rgb = clip.resize(&picture(16_384, 1, vec![0; 3 * 16_384]));
        assert_eq!(rgb, [122, 116, 104].repeat(16));
    }
}
