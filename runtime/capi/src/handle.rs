//! What handles point to. A handle is a box with a mark and a share of the thing itself, so that a thing lives on while
//! children need it, or a call that is running.

use crate::error::{Failure, Result};
use crate::records::Sink;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A kind of handle, by its opaque type in the header.
pub(crate) trait Handle {
    /// The thing itself.
    type Inner: Inner;
    /// First word of the box: a handle of another kind is told from it, as programs without types may mix them up.
    const MARK: u64;
    /// For messages.
    const NAME: &'static str;
}

/// The thing behind a handle; threads share it.
pub(crate) trait Inner: Send + Sync {
    /// Whether an earlier call panicked.
    fn poison(&self) -> &Poison;
    /// Where log lines go.
    fn sink(&self) -> Option<&Sink>;
}

/// Set once a call on a thing has panicked.
#[derive(Clone, Default)]
pub(crate) struct Poison(Arc<AtomicBool>);

impl Poison {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[repr(C)]
struct Boxed<T> {
    mark: u64,
    inner: Arc<T>,
}

/// A handle as the caller gave it.
pub(crate) struct Ref<'a, H: Handle> {
    pointer: *const Boxed<H::Inner>,
    during: PhantomData<&'a H>,
}

impl<H: Handle> Ref<'_, H> {
    /// # Safety
    /// NULL, or any handle of this library that has not been destroyed and is not before the end of `'a`; or 8 readable bytes.
    pub unsafe fn new(pointer: *mut H) -> Self {
        Ref { pointer: pointer.cast(), during: PhantomData }
    }

    /// The thing itself.
    pub fn get(&self) -> Result<Arc<H::Inner>> {
        self.optional()?.ok_or_else(|| Failure::argument(H::NAME, "is NULL"))
    }

    /// The thing itself, or nothing for NULL.
    pub fn optional(&self) -> Result<Option<Arc<H::Inner>>> {
        if self.pointer.is_null() {
            return Ok(None);
        }
        // SAFETY: `new` was promised as much.
        let mark = unsafe { self.pointer.cast::<u64>().read_unaligned() };
        if mark != H::MARK {
            return Err(Failure::argument(H::NAME, "is a handle of another kind, or none"));
        }
        // SAFETY: only `create` writes this mark, in front of such a thing.
        Ok(Some(unsafe { (*self.pointer).inner.clone() }))
    }
}

/// A new handle.
pub(crate) fn create<H: Handle>(inner: Arc<H::Inner>) -> *mut H {
    Box::into_raw(Box::new(Boxed { mark: H::MARK, inner })).cast()
}

/// Ends a handle. What is not one of this kind is left alone.
///
/// # Safety
/// As [`Ref::new`], and nothing uses the handle any more.
pub(crate) unsafe fn destroy<H: Handle>(pointer: *mut H) -> Option<Arc<H::Inner>> {
    // SAFETY: promised by the caller.
    let known = unsafe { Ref::new(pointer) };
    known.optional().ok()??;
    let pointer = pointer.cast::<Boxed<H::Inner>>();
    // SAFETY: the mark was there, so `create` made it, and nobody else has it now.
    unsafe {
        // A handle that is used after its end is then at least likely to be noticed.
        (&raw mut (*pointer).mark).write_volatile(0);
        Some(Box::from_raw(pointer).inner)
    }
}
