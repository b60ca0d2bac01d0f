//! The elements of a DICOM file, as slices of its bytes.

use std::collections::BTreeMap;

/// Deepest nesting of sequences that is stepped through; real files have three or four.
const MAX_DEPTH: u32 = 16;

const PIXEL_DATA: u32 = 0x7fe0_0010;
const ITEM: u32 = 0xfffe_e000;
const ITEM_END: u32 = 0xfffe_e00d;
const SEQUENCE_END: u32 = 0xfffe_e0dd;
const UNDEFINED: u32 = u32::MAX;

const CUT: &str = "the DICOM file is cut short or damaged";

/// What an element holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Plain bytes, or the items of a sequence.
    Bytes(&'a [u8]),
    /// Encapsulated pixel data, the offset table first.
    Fragments(Vec<&'a [u8]>),
}

/// One element; its tag is its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// Value representation; zeros where the file does not say.
    pub vr: [u8; 2],
    pub value: Value<'a>,
}

/// Elements of a file or of an item, by tag.
#[derive(Debug)]
pub(super) struct Dataset<'a> {
    elements: BTreeMap<u32, Element<'a>>,
    explicit: bool,
    big: bool,
}

/// The file's meta elements, and the bytes after them. The caller has seen the `DICM` mark.
pub(super) fn meta(bytes: &[u8]) -> Result<(Dataset<'_>, &[u8]), String> {
    let mut reader = Reader { bytes: bytes.get(132..).ok_or(CUT)?, explicit: true, big: false };
    let mut elements = BTreeMap::new();
    while reader.bytes.starts_with(&[2, 0]) {
        let (tag, element) = reader.element(0)?;
        elements.insert(tag, element);
    }
    Ok((Dataset { elements, explicit: true, big: false }, reader.bytes))
}

impl<'a> Dataset<'a> {
    /// Reads the elements up to the pixel data; the later ones are of no use here.
    pub fn read(bytes: &'a [u8], explicit: bool, big: bool) -> Result<Self, String> {
        let mut reader = Reader { bytes, explicit, big };
        let mut elements = BTreeMap::new();
        while !reader.bytes.is_empty() {
            let (tag, element) = reader.element(0)?;
            elements.insert(tag, element);
            if tag == PIXEL_DATA {
                break;
            }
        }
        Ok(Self { elements, explicit, big })
    }

    pub fn get(&self, tag: u32) -> Option<&Element<'a>> {
        self.elements.get(&tag)
    }

    fn bytes(&self, tag: u32) -> Option<&'a [u8]> {
        match self.get(tag)?.value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Fragments(_) => None,
        }
    }

    /// 16-bit numbers.
    pub fn words(&self, tag: u32) -> Option<Vec<u16>> {
        let word = if self.big { u16::from_be_bytes } else { u16::from_le_bytes };
        Some(self.bytes(tag)?.chunks_exact(2).map(|b| word([b[0], b[1]])).collect())
    }

    /// The first of 16-bit or 32-bit unsigned numbers.
    pub fn number(&self, tag: u32) -> Option<u32> {
        match *self.bytes(tag)? {
            [a, b] => Some(u32::from(if self.big { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) })),
            [a, b, c, d] => {
                let four = [a, b, c, d];
                Some(if self.big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
            }
            _ => None,
        }
    }

    /// The first value of a text, without padding.
    pub fn text(&self, tag: u32) -> Option<String> {
        let text = std::str::from_utf8(self.bytes(tag)?).ok()?;
        let first = text.split('\\').next()?;
        Some(first.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned())
    }

    /// The first of decimal numbers.
    pub fn decimal(&self, tag: u32) -> Option<f64> {
        self.text(tag)?.parse().ok().filter(|n: &f64| n.is_finite())
    }

    /// The items of a sequence; none if there is no such element.
    pub fn items(&self, tag: u32) -> Result<Vec<Dataset<'a>>, String> {
        let bytes = self.bytes(tag).unwrap_or_default();
        let mut reader = Reader { bytes, explicit: self.explicit, big: self.big };
        let mut items = Vec::new();
        while !reader.bytes.is_empty() {
            match reader.item(0)? {
                Some(item) => items.push(Dataset::read(item, self.explicit, self.big)?),
                None => break,
            }
        }
        Ok(items)
    }
}

/// A place in the bytes and how they are to be read.
#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    explicit: bool,
    big: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(CUT)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?.try_into().unwrap_or_default();
        Ok(if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?.try_into().unwrap_or_default();
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn tag(&mut self) -> Result<u32, String> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    fn element(&mut self, depth: u32) -> Result<(u32, Element<'a>), String> {
        let tag = self.tag()?;
        let (vr, len) = self.head(tag)?;
        let value = if len != UNDEFINED {
            Value::Bytes(self.take(len as usize)?)
        } else if tag == PIXEL_DATA {
            Value::Fragments(self.fragments()?)
        } else {
            let start = self.bytes;
            // A sequence of unknown kind is written as implicit little-endian.
            let mut inner = if vr == *b"UN" { Reader { explicit: false, big: false, ..*self } } else { *self };
            while inner.item(depth)?.is_some() {}
            self.bytes = inner.bytes;
            Value::Bytes(&start[..start.len() - inner.bytes.len()])
        };
        Ok((tag, Element { vr, value }))
    }

    /// Value representation and length.
    fn head(&mut self, tag: u32) -> Result<([u8; 2], u32), String> {
        if !self.explicit || tag >> 16 == 0xfffe {
            return Ok(([0; 2], self.u32()?));
        }
        let vr: [u8; 2] = self.take(2)?.try_into().unwrap_or_default();
        let long = [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];
        if long.contains(&&vr) {
            self.take(2)?;
            Ok((vr, self.u32()?))
        } else {
            Ok((vr, u32::from(self.u16()?)))
        }
    }

    /// The content of the next item; `None` at the end of the sequence, which is stepped over.
    fn item(&mut self, depth: u32) -> Result<Option<&'a [u8]>, String> {
        if depth > MAX_DEPTH {
            return Err("sequences in the DICOM file are nested too deeply".into());
        }
        let (tag, len) = (self.tag()?, self.u32()?);
        match tag {
            SEQUENCE_END => Ok(None),
            ITEM if len != UNDEFINED => self.take(len as usize).map(Some),
            ITEM => {
                let start = self.bytes;
                loop {
                    let before = self.bytes;
                    let mut ahead = *self;
                    if ahead.tag()? == ITEM_END {
                        self.take(8)?;
                        return Ok(Some(&start[..start.len() - before.len()]));
                    }
                    self.element(depth + 1)?;
                }
            }
            _ => Err(CUT.into()),
        }
    }

    fn fragments(&mut self) -> Result<Vec<&'a [u8]>, String> {
        let mut fragments = Vec::new();
        loop {
            let (tag, len) = (self.tag()?, self.u32()?);
            match tag {
                ITEM if len != UNDEFINED => fragments.push(self.take(len as usize)?),
                SEQUENCE_END => return Ok(fragments),
                _ => return Err(CUT.into()),
            }
        }
    }
}
