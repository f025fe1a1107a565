//! The file under the database: it grows only by blocks that the file system has really set aside.
//!
//! The database lengthens its file and fills the new part later. Where that leaves holes, a full
//! disk is met in the middle of a commit, at every attempt anew, and after each the database must
//! be opened again, which reads the whole file while readers wait. Here a full disk is met when the
//! file should grow, and never later; what was lacking is remembered, and until it can be had a
//! write is refused after one system call. What is in the file can be opened, read and overwritten
//! on a full disk. A file system without `fallocate` gets holes, as usual.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend, StorageError};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// What the database keeps in memory, of what it has read and of what it is about to write. A
/// hundred thousand routes with their history are some 100 MB; most of it is read once, at start.
const CACHE: usize = 32 << 20;

/// An open file, and whether it could grow as it should.
#[derive(Debug)]
pub(super) struct Room {
    file: File,
    /// To which length the file could not grow; 0: nothing is lacking.
    lacking: AtomicU64,
}

impl Room {
    /// The room that this file, open for reading and writing, has.
    pub(super) fn of(file: File) -> Arc<Self> {
        Arc::new(Self { file, lacking: AtomicU64::new(0) })
    }

    /// The database in the file; in an empty file, a new one. Every byte is read, because a file
    /// that was altered is told only so; a database that is open holds a lock on its file.
    pub(super) fn database(self: &Arc<Self>) -> Result<Database, DatabaseError> {
        let file = FileBackend::new(self.file.try_clone().map_err(StorageError::from)?)?;
        let disk = Disk { file, room: Arc::clone(self) };
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        // A file that no database ever wrote may make it stumble: that is a damaged file as well.
        catch_unwind(AssertUnwindSafe(|| builder.create_with_backend(disk))).unwrap_or_else(|_| {
            Err(StorageError::Corrupted("its pages make no sense".into()).into())
        })
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether the file could not grow when it had to, and cannot now either.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn suffices(&self) -> io::Result<()> {
        let wanted = self.lacking.load(Ordering::Relaxed);
        if wanted > 0 {
            self.set_aside(wanted)?;
            self.lacking.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        let set_aside = self.set_aside(length);
        if set_aside.is_err() {
            self.lacking.store(length, Ordering::Relaxed);
        }
        set_aside.and_then(|()| self.file.set_len(length))
    }

    /// Takes the blocks that the file needs to be that long, and leaves its length as it is.
    fn set_aside(&self, length: u64) -> io::Result<()> {
        let present = self.file.metadata()?.len();
        if length <= present {
            return Ok(());
        }
        loop {
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, present, length - present) {
                Err(Errno::INTR) => {}
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(error) => {
                    // What could be had is of no use, and others need it.
                    self.file.set_len(present)?;
                    return Err(error.into());
                }
            }
        }
    }
}

/// Whether an error means that there is no room for more.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The database's view of the file.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    room: Arc<Room>,
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room.resize(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
