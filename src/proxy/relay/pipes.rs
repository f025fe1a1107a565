//! The pipes of a thread, through which the kernel moves bytes from socket to socket.
//!
//! A pipe is lent only while bytes are in it, so a few serve many flows. There are at most
//! [`MOST`]; when they are all lent, or the system gives no more (descriptors, the pages of a
//! user's pipes), the flow goes on by copying, which needs nothing.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Pipes of one thread, lent ones included: two descriptors and at most 1 MiB of kernel memory
/// each. With 32, 64 flows side by side took a tenth more CPU for each byte.
pub const MOST: usize = 64;
/// How much a pipe should hold, in the order of preference. 1 MiB, the most that users may have
/// (`pipe-max-size`), takes two thirds of the CPU of 256 KiB with 64 flows side by side.
const SIZES: [usize; 2] = [1024 * 1024, 256 * 1024];
/// With less, copying is as good: what a user gets whose pipes have used up `pipe-user-pages-soft`.
const LEAST: usize = 64 * 1024;

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static THERE_ARE: Cell<usize> = const { Cell::new(0) };
}

/// A pipe and what is in it.
#[derive(Debug)]
pub struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    size: usize,
    /// How many bytes are in it.
    pub holds: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Fails for a user whose pipes hold as much as they may in all.
        let sizes = SIZES.iter().map(|size| fcntl_setpipe_size(&input, *size));
        let size = sizes.flatten().find(|size| *size >= LEAST);
        let size = size.ok_or(io::ErrorKind::QuotaExceeded)?;
        THERE_ARE.set(THERE_ARE.get() + 1);
        Ok(Self { output, input, size, holds: 0 })
    }

    /// Where bytes go in.
    #[must_use]
    pub fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// Where they come out.
    #[must_use]
    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// How many bytes it can hold.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        THERE_ARE.set(THERE_ARE.get() - 1);
    }
}

/// An empty pipe, if one is to be had.
#[must_use]
pub fn take() -> Option<Pipe> {
    let pooled = POOL.with_borrow_mut(Vec::pop);
    pooled.or_else(|| if THERE_ARE.get() < MOST { Pipe::new().ok() } else { None })
}

/// Takes a pipe back. One that is not empty is closed: its bytes are nobody else's.
pub fn give_back(pipe: Pipe) {
    if pipe.holds == 0 {
        POOL.with_borrow_mut(|pool| pool.push(pipe));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_than_a_few_and_a_filled_one_is_not_lent_again() {
        let mut all: Vec<_> = std::iter::from_fn(take).take(MOST + 1).collect();
        assert!(!all.is_empty() && all.len() <= MOST, "{}", all.len());
        assert!(take().is_none() || all.len() < MOST);
        let count = THERE_ARE.get();
        let mut filled = all.pop().unwrap();
        filled.holds = 1;
        give_back(filled);
        assert_eq!(THERE_ARE.get(), count - 1);
        all.into_iter().for_each(give_back);
        assert_eq!(POOL.with_borrow(Vec::len), count - 1);
        assert!(take().is_some());
    }
}
