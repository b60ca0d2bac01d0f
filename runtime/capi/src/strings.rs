//! Text, bytes and buffers of the caller. All text is UTF-8.

use crate::error::{Failure, HGPT_BUFFER_TOO_SMALL, Result};
use std::ffi::{c_char, c_void};
use std::marker::PhantomData;
use std::path::PathBuf;

/// As a length: the text ends at its first NUL.
pub(crate) const NUL_TERMINATED: usize = usize::MAX;

/// Longest text that is taken; far more than any context holds. *Units*: bytes.
pub(crate) const MAX_TEXT: usize = 1 << 20;

/// The beginning of a text in at most `most` bytes, whole characters only.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Line breaks become spaces.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text of the caller's.
pub(crate) struct Text<'a> {
    pointer: *const c_char,
    length: usize,
    during: PhantomData<&'a [u8]>,
}

impl<'a> Text<'a> {
    /// # Safety
    /// NULL, or `length` readable bytes; with [`NUL_TERMINATED`] readable up to a NUL, or [`MAX_TEXT`].
    pub unsafe fn new(pointer: *const c_char, length: usize) -> Self {
        Text { pointer, length, during: PhantomData }
    }

    /// The text. `what` names the argument.
    pub fn get(&self, what: &str) -> Result<&'a str> {
        self.optional(what)?.ok_or_else(|| Failure::argument(what, "is NULL"))
    }

    /// The text, or nothing for NULL.
    pub fn optional(&self, what: &str) -> Result<Option<&'a str>> {
        if self.pointer.is_null() {
            return Ok(None);
        }
        let length = match self.length {
            NUL_TERMINATED => {
                // SAFETY: readable until the NUL is found.
                let is_end = |at: &usize| unsafe { self.pointer.add(*at).read() } == 0;
                (0..=MAX_TEXT).find(is_end).unwrap_or(usize::MAX)
            }
            length => length,
        };
        if length > MAX_TEXT {
            return Err(Failure::argument(what, format!("is longer than {MAX_TEXT} bytes")));
        }
        // SAFETY: promised to `new`.
        let bytes = unsafe { std::slice::from_raw_parts(self.pointer.cast::<u8>(), length) };
        let not_utf8 =
            |e: std::str::Utf8Error| Failure::argument(what, format!("is not UTF-8 at byte {}", e.valid_up_to()));
        std::str::from_utf8(bytes).map(Some).map_err(not_utf8)
    }

    /// The text as a path.
    pub fn path(&self, what: &str) -> Result<PathBuf> {
        match self.get(what)? {
            "" => Err(Failure::argument(what, "is empty")),
            path => Ok(PathBuf::from(path)),
        }
    }
}

/// Bytes of the caller's.
pub(crate) struct Bytes<'a> {
    pointer: *const u8,
    size: usize,
    during: PhantomData<&'a [u8]>,
}

impl<'a> Bytes<'a> {
    /// # Safety
    /// NULL, or `size` readable bytes that nobody writes until the end of `'a`.
    pub unsafe fn new(pointer: *const c_void, size: usize) -> Self {
        Bytes { pointer: pointer.cast(), size, during: PhantomData }
    }

    /// The bytes, at least one.
    pub fn get(&self, what: &str) -> Result<&'a [u8]> {
        if self.pointer.is_null() {
            return Err(Failure::argument(what, "is NULL"));
        }
        if self.size == 0 || self.size > isize::MAX as usize {
            return Err(Failure::argument(what, format!("has {} bytes, which cannot be", self.size)));
        }
        // SAFETY: promised to `new`.
        Ok(unsafe { std::slice::from_raw_parts(self.pointer, self.size) })
    }
}

/// Where one value goes; it is set to its zero at once.
pub(crate) struct Out<'a, T> {
    pointer: *mut T,
    during: PhantomData<&'a mut T>,
}

impl<T: Copy> Out<'_, T> {
    /// # Safety
    /// NULL, or writable until the end of `'a`.
    pub unsafe fn new(pointer: *mut T, zero: T) -> Self {
        if !pointer.is_null() {
            // SAFETY: promised by the caller.
            unsafe { pointer.write_unaligned(zero) };
        }
        Out { pointer, during: PhantomData }
    }

    /// *Errors*: a NULL.
    pub fn require(&self, what: &str) -> Result {
        if self.pointer.is_null() { Err(Failure::argument(what, "is NULL")) } else { Ok(()) }
    }

    /// Writes the value, unless nobody wants it.
    pub fn set(&self, value: T) {
        if !self.pointer.is_null() {
            // SAFETY: promised to `new`.
            unsafe { self.pointer.write_unaligned(value) };
        }
    }
}

/// A buffer for text.
pub(crate) struct TextOut<'a>(BytesOut<'a>);

impl TextOut<'_> {
    /// # Safety
    /// NULL, or `capacity` writable bytes until the end of `'a`.
    pub unsafe fn new(pointer: *mut c_char, capacity: usize) -> Self {
        // SAFETY: promised by the caller.
        TextOut(unsafe { BytesOut::new(pointer.cast(), capacity) })
    }

    /// Writes what fits and a NUL. Returns the length of the whole text.
    pub fn write(&self, text: &str) -> usize {
        if !self.0.pointer.is_null() && self.0.capacity > 0 {
            let part = cut(text, self.0.capacity - 1);
            self.0.write(0, part.as_bytes());
            self.0.write(part.len(), &[0]);
        }
        text.len()
    }

    /// Writes the whole text and a NUL, and to `needed` the bytes that takes.
    ///
    /// *Errors*: [`HGPT_BUFFER_TOO_SMALL`], after what fits has been written.
    pub fn write_all(&self, text: &str, needed: &Out<'_, usize>) -> Result {
        let bytes = self.write(text) + 1;
        needed.set(bytes);
        if self.0.pointer.is_null() || bytes > self.0.capacity {
            let text = format!("the text needs {bytes} bytes, the buffer has {}", self.0.capacity());
            return Err(Failure::new(HGPT_BUFFER_TOO_SMALL, text));
        }
        Ok(())
    }
}

/// A buffer for bytes.
pub(crate) struct BytesOut<'a> {
    pointer: *mut u8,
    capacity: usize,
    during: PhantomData<&'a mut [u8]>,
}

impl BytesOut<'_> {
    /// # Safety
    /// NULL, or `capacity` writable bytes until the end of `'a`.
    pub unsafe fn new(pointer: *mut c_void, capacity: usize) -> Self {
        BytesOut { pointer: pointer.cast(), capacity, during: PhantomData }
    }

    /// Bytes that can be written: none behind a NULL.
    pub fn capacity(&self) -> usize {
        if self.pointer.is_null() { 0 } else { self.capacity }
    }

    /// Writes at an offset; what does not fit is not written.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let room = self.capacity().saturating_sub(at).min(bytes.len());
        if room > 0 {
            // SAFETY: promised to `new`; `room` bytes from `at` are within the capacity.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer.add(at), room) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, capacity: usize) -> Vec<u8> {
        let mut buffer = vec![0xee_u8; capacity + 1];
        let out = unsafe { TextOut::new(buffer.as_mut_ptr().cast(), capacity) };
        assert_eq!(out.write(text), text.len());
        assert_eq!(buffer.pop(), Some(0xee), "nothing is written behind the buffer");
        buffer
    }

    #[test]
    fn text_is_cut_between_characters_and_always_ends() {
        assert_eq!(written("né", 0), b"");
        assert_eq!(written("né", 1), b"\0");
        assert_eq!(written("né", 3), b"n\0\xee", "half of é is left out");
        assert_eq!(written("né", 4), "né\0".as_bytes());
        assert_eq!(written("né", 5), "né\0\u{0}".as_bytes().iter().take(4).chain(&[0xee]).copied().collect::<Vec<_>>());
    }

    #[test]
    fn the_needed_size_is_told_with_its_nul() {
        let mut needed = 0;
        let needed_out = unsafe { Out::new(&mut needed, 0) };
        let nowhere = unsafe { TextOut::new(std::ptr::null_mut(), 0) };
        assert_eq!(nowhere.write_all("abc", &needed_out).unwrap_err().status, HGPT_BUFFER_TOO_SMALL);
        let mut buffer = [1; 4];
        let out = unsafe { TextOut::new(buffer.as_mut_ptr().cast(), 4) };
        assert!(out.write_all("abc", &needed_out).is_ok());
        assert_eq!((needed, buffer), (4, [b'a', b'b', b'c', 0].map(|b| b as c_char)));
    }

    #[test]
    fn texts_are_checked() {
        let get = |bytes: &[u8], length| {
            unsafe { Text::new(bytes.as_ptr().cast(), length) }.get("question").map(str::to_string)
        };
        assert_eq!(get(b"abc\0", NUL_TERMINATED).ok().unwrap(), "abc");
        assert_eq!(get(b"abc\0", 2).ok().unwrap(), "ab");
        assert_eq!(get(b"ab\xff\0", 3).err().unwrap().text, "question is not UTF-8 at byte 2");
        assert!(get(b"abc", usize::MAX - 1).is_err());
        assert!(unsafe { Text::new(std::ptr::null(), 0) }.get("question").is_err());
    }
}
