//! Structs that carry their size, so that programs and libraries of different ages understand each other.
//!
//! A struct grows only at its end. What a caller's struct lacks has its default; what it has beyond ours must be zero, for
//! that it means something to a newer library. Pointers are read and written as if nothing was aligned.

use crate::error::{Failure, HGPT_ERROR_VERSION, Result};
use crate::strings::cut;
use std::ffi::c_char;
use std::marker::PhantomData;

/// A struct beyond ours by more than this is no newer struct but a `struct_size` that was never set. *Units*: bytes.
const MOST_BEYOND: usize = 4096;

/// A field as C must see it.
pub struct Field {
    /// Name.
    pub name: &'static str,
    /// From the struct's beginning. *Units*: bytes.
    pub offset: usize,
    /// *Units*: bytes.
    pub size: usize,
}

/// The layout of a struct, for the tests.
pub struct Layout {
    /// Name.
    pub name: &'static str,
    /// *Units*: bytes.
    pub size: usize,
    /// In order.
    pub fields: &'static [Field],
}

/// A struct that begins with its size.
///
/// # Safety
/// `repr(C)`, `struct_size: u32` first, without padding, and every field may hold any bits or was promised by the caller.
pub(crate) unsafe trait Record: Copy {
    const LAYOUT: Layout;
    /// With `struct_size` set.
    fn defaults() -> Self;
}

/// Declares a struct's fields and its defaults, `struct_size` apart.
macro_rules! record {
    ($name:ident { $($field:ident),* $(,)? } = $defaults:expr) => {
        const _: () = {
            use crate::structs::{Field, Layout, Record};
            use std::mem::offset_of;

            const FIELDS: &[Field] = &[
                Field { name: "struct_size", offset: offset_of!($name, struct_size), size: 4 },
                $(Field {
                    name: stringify!($field),
                    offset: offset_of!($name, $field),
                    size: {
                        const fn size_of_field<T>(_: impl FnOnce(&$name) -> &T + Copy) -> usize {
                            size_of::<T>()
                        }
                        size_of_field(|s: &$name| &s.$field)
                    },
                }),*
            ];
            const _: () = crate::structs::assert_without_padding(FIELDS, size_of::<$name>());

            // SAFETY: the fields are above one after another, and all of them, or the pattern below would not compile.
            unsafe impl Record for $name {
                const LAYOUT: Layout = Layout { name: stringify!($name), size: size_of::<$name>(), fields: FIELDS };

                fn defaults() -> Self {
                    let defaults: $name = $defaults;
                    let $name { struct_size: _, $($field: _),* } = defaults;
                    $name { struct_size: size_of::<$name>() as u32, ..defaults }
                }
            }
        };
    };
}
pub(crate) use record;

pub(crate) const fn assert_without_padding(fields: &[Field], size: usize) {
    let (mut i, mut at) = (0, 0);
    while i < fields.len() {
        assert!(fields[i].offset == at, "a field has padding before it or is not in order");
        at += fields[i].size;
        i += 1;
    }
    assert!(at == size, "the struct has padding at its end");
}

/// Bytes of whole fields within `size`.
fn whole_fields<T: Record>(size: usize) -> usize {
    let ends = T::LAYOUT.fields.iter().map(|f| f.offset + f.size);
    ends.take_while(|end| *end <= size).last().unwrap_or(0)
}

/// The caller's word on the size of the struct at `pointer`.
///
/// # Safety
/// `pointer` has 4 readable bytes.
unsafe fn size_at<T: Record>(pointer: *const T) -> Result<usize> {
    // SAFETY: promised by the caller.
    let size = unsafe { pointer.cast::<u32>().read_unaligned() } as usize;
    let Layout { name, size: ours, .. } = T::LAYOUT;
    if size < 4 {
        return Err(Failure::argument(name, format!("has struct_size {size}; set it to sizeof({name})")));
    }
    if size > ours + MOST_BEYOND {
        let text = format!("{name} has struct_size {size}, far beyond this version's {ours}");
        return Err(Failure::new(HGPT_ERROR_VERSION, text));
    }
    Ok(size)
}

/// A struct of the caller's that is read.
pub(crate) struct In<'a, T> {
    pointer: *const T,
    during: PhantomData<&'a T>,
}

impl<T: Record> In<'_, T> {
    /// # Safety
    /// NULL, or 4 readable bytes, and as many as those say.
    pub unsafe fn new(pointer: *const T) -> Self {
        In { pointer, during: PhantomData }
    }

    /// Its values; the defaults for NULL.
    pub fn read(&self) -> Result<T> {
        if self.pointer.is_null() {
            return Ok(T::defaults());
        }
        let Layout { name, size: ours, .. } = T::LAYOUT;
        // SAFETY: promised to `new`.
        let size = unsafe { size_at(self.pointer) }?;
        for at in ours..size {
            // SAFETY: within the size that the caller states.
            if unsafe { self.pointer.cast::<u8>().add(at).read() } != 0 {
                let text = format!("{name} has something beyond byte {ours} that this version does not know");
                return Err(Failure::new(HGPT_ERROR_VERSION, text));
            }
        }
        let mut value = T::defaults();
        // SAFETY: within both, and a `Record` takes any bits.
        unsafe {
            let to = (&raw mut value).cast::<u8>();
            std::ptr::copy_nonoverlapping(self.pointer.cast::<u8>(), to, whole_fields::<T>(size.min(ours)));
        }
        Ok(value)
    }

    /// Its values.
    pub fn required(&self) -> Result<T> {
        if self.pointer.is_null() {
            return Err(Failure::argument(T::LAYOUT.name, "is NULL"));
        }
        self.read()
    }
}

/// A struct of the caller's that is written.
pub(crate) struct OutRecord<'a, T> {
    pointer: *mut T,
    during: PhantomData<&'a mut T>,
}

impl<T: Record> OutRecord<'_, T> {
    /// # Safety
    /// NULL, or 4 readable bytes, and as many writable ones as those say.
    pub unsafe fn new(pointer: *mut T) -> Self {
        OutRecord { pointer, during: PhantomData }
    }

    /// Sets everything behind the size to zero.
    ///
    /// *Errors*: a NULL or a size that cannot be.
    pub fn clear(&self) -> Result {
        if self.pointer.is_null() {
            return Err(Failure::argument(T::LAYOUT.name, "is NULL"));
        }
        // SAFETY: promised to `new`.
        unsafe {
            let size = size_at(self.pointer)?;
            self.pointer.cast::<u8>().add(4).write_bytes(0, size - 4);
        }
        Ok(())
    }

    /// Writes the fields that the caller's struct has, behind the size.
    pub fn set(&self, value: &T) -> Result {
        self.clear()?;
        // SAFETY: promised to `new`; whole fields within both.
        unsafe {
            let size = whole_fields::<T>(size_at(self.pointer)?.min(T::LAYOUT.size));
            let from = (&raw const *value).cast::<u8>();
            std::ptr::copy_nonoverlapping(from.add(4), self.pointer.cast::<u8>().add(4), size - 4);
        }
        Ok(())
    }
}

/// Sets a caller's struct of `size` bytes to the defaults.
///
/// # Safety
/// `pointer` is NULL or has `size` writable bytes.
pub(crate) unsafe fn init<T: Record>(pointer: *mut T, size: usize) {
    let known = whole_fields::<T>(size);
    if pointer.is_null() || known < 4 || size > T::LAYOUT.size + MOST_BEYOND {
        return;
    }
    let defaults = T::defaults();
    // SAFETY: promised by the caller; `known` is within both.
    unsafe {
        pointer.cast::<u8>().write_bytes(0, size);
        std::ptr::copy_nonoverlapping((&raw const defaults).cast::<u8>(), pointer.cast::<u8>(), known);
        pointer.cast::<u32>().write_unaligned(size as u32);
    }
}

/// Text for a field of fixed length: cut between two characters, with a NUL.
pub(crate) fn field<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(cut(text, N - 1).bytes()) {
        *to = from as c_char;
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hgpt_ask_options;

    #[test]
    fn a_field_that_is_not_whole_has_its_default() {
        let whole = hgpt_ask_options { max_tokens: 7, seed: 9, ..hgpt_ask_options::defaults() };
        let read = |size: usize| {
            let cut = hgpt_ask_options { struct_size: size as u32, ..whole };
            unsafe { In::new(&cut) }.read().map(|o| (o.max_tokens, o.seed)).map_err(|f| f.status)
        };
        let (max_tokens, seed) = (hgpt_ask_options::defaults().max_tokens, hgpt_ask_options::defaults().seed);
        assert_eq!(read(4).unwrap(), (max_tokens, seed));
        assert_eq!(read(7).unwrap(), (max_tokens, seed), "half a field");
        assert_eq!(read(8).unwrap(), (7, seed));
        assert_eq!(read(size_of::<hgpt_ask_options>()).unwrap(), (7, 9));
        assert!(read(0).is_err() && read(3).is_err());
    }

    #[test]
    fn text_in_a_field_is_whole_characters_and_ends() {
        assert_eq!(field::<4>("abcdef"), [b'a', b'b', b'c', 0].map(|b| b as c_char));
        assert_eq!(field::<4>("aéé"), [b'a', 0xc3, 0xa9, 0].map(|b| b as c_char));
        assert_eq!(field::<3>("aéé"), [b'a', 0, 0].map(|b| b as c_char));
    }
}
