//! Pictures for calibration where none are given: sections of speckle as a curved probe shows them, with a cyst, a stone or a
//! mass in some. They need not fool anybody; they need to give the vision tower edges, textures and darkness to look at.

use runtime::image::RgbPicture;

/// Width and height in pixels.
const SIDE: usize = 224;

/// What is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesion {
    /// Dark, bright behind.
    Cyst,
    /// Bright, dark behind.
    Stone,
    /// Grey in grey.
    Mass,
}

/// A picture with what is to be seen in it.
pub struct Phantom {
    /// The picture.
    pub picture: RgbPicture,
    /// None in a normal one.
    pub lesion: Option<Lesion>,
    /// Whether the lesion is in the left half.
    pub left: bool,
    /// Its depth in centimetres, of 12.
    pub depth_cm: usize,
}

/// A pseudo-random number from 0 to 1 for each place; the same on every machine.
fn chance(seed: u64, at: u64) -> f32 {
    let mut z = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1_u32 << 24) as f32
}

impl Phantom {
    /// The phantom of this number. Every fourth is normal.
    pub fn new(number: u64) -> Self {
        let lesion = match number % 4 {
            0 => Some(Lesion::Cyst),
            1 => Some(Lesion::Stone),
            2 => Some(Lesion::Mass),
            _ => None,
        };
        let left = chance(number, 1) < 0.5;
        let depth_cm = 4 + (chance(number, 2) * 5.0) as usize;
        let this = Phantom {
            picture: RgbPicture { width: 0, height: 0, pixels: Vec::new(), region: None },
            lesion,
            left,
            depth_cm,
        };
        let grey = |i: usize| (this.brightness(number, i % SIDE, i / SIDE).clamp(0.0, 1.0) * 255.0) as u8;
        let pixels = (0..SIDE * SIDE).map(grey).flat_map(|v| [v; 3]).collect();
        Phantom { picture: RgbPicture { width: SIDE as u32, height: SIDE as u32, pixels, region: None }, ..this }
    }

    /// Of a pixel, 0 to 1. The probe lies at the top, its centre of curvature above the picture.
    fn brightness(&self, seed: u64, x: usize, y: usize) -> f32 {
        let (across, down) = (x as f32 / SIDE as f32 - 0.5, y as f32 / SIDE as f32 + 0.2);
        let distance = (across * across + down * down).sqrt();
        let slope = across / down;
        if !(0.25..1.15).contains(&distance) || slope.abs() > 0.6 {
            return 0.0;
        }
        // Grains are longer across the beam than along it, and grow with depth.
        let grain = |scale: f32, salt: u64| {
            let cell = ((slope * 90.0 * scale) as i64, (distance * 130.0 * scale) as i64);
            chance(seed ^ salt, (cell.0 as u64).wrapping_mul(100_003) ^ cell.1 as u64)
        };
        let speckle = 0.25 + 0.35 * (grain(1.0, 10) * grain(0.6, 11)).sqrt() + 0.1 * grain(2.0, 12);
        let tissue = speckle * (1.15 - 0.45 * distance);
        let Some(lesion) = self.lesion else { return tissue };
        let centre = (if self.left { -0.16 } else { 0.16 }, 0.25 + 0.9 * self.depth_cm as f32 / 12.0);
        let (dx, dy) = (across - centre.0, distance - centre.1);
        let radius = 0.06 + 0.03 * chance(seed, 3);
        let inside = (dx * dx + dy * dy).sqrt() < radius;
        let behind = dy > 0.0 && (slope - centre.0 / centre.1).abs() < 0.8 * radius / centre.1;
        match (lesion, inside, behind) {
            (Lesion::Cyst, true, _) => 0.03,
            (Lesion::Cyst, false, true) => tissue * 1.6,
            (Lesion::Stone, true, _) if dy < -0.3 * radius => 0.95,
            (Lesion::Stone, _, true) => tissue * 0.15,
            (Lesion::Mass, true, _) => tissue * 0.5,
            _ => tissue,
        }
    }

    /// A question about the picture with its answer; `turn` chooses among several.
    pub fn question(&self, turn: usize) -> (&'static str, String) {
        let side = if self.left { "left" } else { "right" };
        let depth = self.depth_cm;
        let (name, looks) = match self.lesion {
            Some(Lesion::Cyst) => ("a cyst", "echo-free with enhancement behind it"),
            Some(Lesion::Stone) => ("a stone", "bright with a shadow behind it"),
            Some(Lesion::Mass) => ("a solid mass", "hypoechoic, darker than the tissue around it"),
            None => {
                let normal = "No. The echotexture is even and no focal lesion is seen.";
                return [
                    ("Is anything abnormal in this ultrasound image?", normal.into()),
                    ("What modality is this?", "Ultrasound.".into()),
                ][turn % 2]
                    .clone();
            }
        };
        [
            ("What is abnormal in this image?", format!("There is {name} on the {side} at a depth of {depth} cm; it is {looks}.")),
            ("On which side is the lesion?", format!("On the {side}.")),
            ("Describe the findings.", format!("Ultrasound, imaging depth 12 cm. On the {side}, {depth} cm deep, a lesion that is {looks}, in keeping with {name}. No free fluid.")),
            ("Is there a gallstone?", match self.lesion {
                Some(Lesion::Stone) => format!("Yes, on the {side}, {depth} cm deep."),
                _ => format!("No. What is seen on the {side} is {name}."),
            }),
        ][turn % 4]
            .clone()
    }
}

/// Instructions to draw.
pub const INSTRUCTIONS: [&str; 3] = [
    "Reconstruct the image.",
    "Remove the lesion from this ultrasound image.",
    "Transform the MRI display into a CT image.",
];

/// Codes of a made-up picture of so many: areas of the same code, as pictures have them, and noise in between.
pub fn codes(seed: u64, side: usize, of: usize) -> Vec<u32> {
    let at = |i: usize| {
        let (x, y) = (i % side / 3, i / side / 3);
        let area = chance(seed, (y * side + x) as u64 + 1000);
        let own = chance(seed, i as u64 + 1_000_000);
        let chosen = if own < 0.4 { own / 0.4 } else { area };
        ((chosen * of as f32) as usize).min(of - 1) as u32
    };
    (0..side * side).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(phantom: &Phantom, rows: std::ops::Range<usize>, cols: std::ops::Range<usize>) -> f32 {
        let pixels = &phantom.picture.pixels;
        let count = (rows.len() * cols.len()) as f32;
        rows.flat_map(|y| cols.clone().map(move |x| (y * SIDE + x) * 3)).map(|i| f32::from(pixels[i])).sum::<f32>()
            / count
    }

    #[test]
    fn phantoms_are_what_they_say() {
        for number in 0..8 {
            let phantom = Phantom::new(number);
            assert_eq!(phantom.picture.pixels.len(), 3 * SIDE * SIDE);
            // The corners lie outside of the fan; its middle does not.
            assert_eq!(mean(&phantom, 0..20, 0..20), 0.0);
            assert!(mean(&phantom, 60..160, 80..144) > 20.0, "{number}");
            let (question, answer) = phantom.question(number as usize);
            assert!(!question.is_empty() && !answer.is_empty());
            assert_eq!(phantom.lesion.is_none(), number % 4 == 3);
        }
        assert!(Phantom::new(5).picture.pixels == Phantom::new(5).picture.pixels);
        assert!(Phantom::new(5).picture.pixels != Phantom::new(9).picture.pixels);
    }

    #[test]
    fn codes_are_in_range_and_vary() {
        let found = codes(3, 8, 64);
        assert_eq!(found.len(), 64);
        assert!(found.iter().all(|c| *c < 64));
        assert!(found.iter().collect::<std::collections::BTreeSet<_>>().len() > 10);
    }
}
