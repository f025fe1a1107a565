//! The one read buffer of a thread.
//!
//! Bytes are read into it and written out in the same poll, so an idle connection owns no buffer.
//! 64 KiB: half the CPU time per byte of 8 KiB, and larger ones gain little (measured before this
//! code was written). Whatever cannot be written at once is copied out by the caller.

use std::cell::RefCell;

/// Its size in bytes.
pub const SIZE: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into_boxed_slice());
}

/// Lends the buffer of this thread. Must not be nested, and cannot be held across an await.
pub fn with<R>(use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    BUFFER.with_borrow_mut(|buffer| use_it(buffer))
}
