//! Cutting a part out of a picture: what `--crop` says.

use super::RgbPicture;
use crate::{Error, Result};

/// A rectangle in a picture. *Units*: pixels, from the upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub w: u32,
    /// Height.
    pub h: u32,
}

/// Which part of a picture is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Crop {
    /// All of it.
    #[default]
    None,
    /// The ultrasound region that the file itself names; all of it where it names none.
    Region,
    /// This part.
    Rect(Rect),
}

impl std::str::FromStr for Crop {
    type Err = Error;

    /// `none`, `region` or `x,y,w,h`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => return Ok(Crop::None),
            "region" => return Ok(Crop::Region),
            _ => {}
        }
        let numbers: Option<Vec<u32>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[x, y, w, h]) => Ok(Crop::Rect(Rect { x, y, w, h })),
            _ => Err(problem(format!("{text:?} is none of region, none and x,y,w,h"))),
        }
    }
}

fn problem(problem: String) -> Error {
    Error::Input { what: "--crop".into(), problem }
}

impl RgbPicture {
    /// The part that `crop` names.
    ///
    /// *Errors*: [`Error::Input`] if a rectangle is empty or not all inside the picture.
    pub fn crop(self, crop: Crop) -> Result<Self> {
        let rect = match crop {
            Crop::None => return Ok(self),
            Crop::Region => match self.region {
                Some(rect) => rect,
                None => return Ok(self),
            },
            Crop::Rect(rect) => rect,
        };
        let Rect { x, y, w, h } = rect;
        let fits = |at: u32, len: u32, side: u32| len > 0 && at.checked_add(len).is_some_and(|end| end <= side);
        if !fits(x, w, self.width) || !fits(y, h, self.height) {
            return Err(problem(format!(
                "{x},{y},{w},{h} is not a part of the picture, which is {} wide and {} high",
                self.width, self.height
            )));
        }
        let row_bytes = self.width as usize * 3;
        let (from, len) = (x as usize * 3, w as usize * 3);
        let rows = self.pixels.chunks_exact(row_bytes).skip(y as usize).take(h as usize);
        let pixels = rows.flat_map(|row| &row[from..from + len]).copied().collect();
        Ok(Self { width: w, height: h, pixels, region: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> RgbPicture {
        RgbPicture { width: 3, height: 2, pixels: (0..18).collect(), region: Some(Rect { x: 2, y: 0, w: 1, h: 2 }) }
    }

    #[test]
    fn a_part_is_cut_out() {
        assert_eq!(picture().crop(Crop::None).unwrap(), picture());
        let part = picture().crop("1,1,2,1".parse().unwrap()).unwrap();
        assert_eq!((part.width, part.height, part.pixels), (2, 1, (12..18).collect()));
        let part = picture().crop(Crop::Region).unwrap();
        assert_eq!((part.width, part.height, part.pixels), (1, 2, vec![6, 7, 8, 15, 16, 17]));
    }

    #[test]
    fn what_is_outside_is_refused() {
        for text in ["0,0,4,1", "0,0,0,1", "3,0,1,1", "0,1,1,2", "1,1,4294967295,1"] {
            let error = picture().crop(text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.starts_with("--crop: "), "{error}");
        }
        for text in ["", "1,2,3", "1,2,3,4,5", "-1,0,1,1", "Region"] {
            assert!(text.parse::<Crop>().is_err());
        }
    }
}
