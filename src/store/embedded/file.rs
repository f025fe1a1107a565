//! Finding the file of a store, and making a new one: nothing that has a byte in it is ever
//! replaced, and no file is seen half made.
//!
//! A new store is made beside its place, under the name with `.new` behind, and moved there when
//! it is whole. Whoever makes one holds a lock on that file from before its first byte, so of two
//! processes one makes it and the other is told that it is held. An empty file is taken for none:
//! our own are never empty, and there is nothing in it to lose.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase, StorageError};
use tracing::{info, warn};

use super::disk::Room;
use super::tables::{self, FORMAT};
use crate::store::Revision;

/// For the owner alone: whoever may write here decides where every name leads.
const MODE: u32 = 0o600;

/// How often a new file is begun anew because another process was at it: each time the other has
/// either finished or died, so the second attempt is the last in practice.
const ATTEMPTS: u32 = 8;

/// Why a store cannot be opened. What is in the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the file does not exist.
    #[error("{}: there is no such folder", .0.display())]
    NoFolder(PathBuf),
    /// The path is a link to a file that does not exist.
    #[error("{}: is a link to nothing", .0.display())]
    LinkToNothing(PathBuf),
    /// Something other than a file is there.
    #[error("{}: is no file", .0.display())]
    NotAFile(PathBuf),
    /// The file system does not let us.
    #[error("{}: {error}", path.display())]
    Io {
        /// What was tried to open, read or make.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        error: io::Error,
    },
    /// Another process has it open.
    #[error("{}: another process holds it", .0.display())]
    Held(PathBuf),
    /// It is a store, but not as it was written.
    #[error("{}: is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that is known.
        why: String,
    },
    /// It is no store, or its first bytes are lost.
    #[error("{}: is no store, or its first bytes are damaged", .0.display())]
    Foreign(PathBuf),
    /// It was written in a form that this version does not know.
    #[error("{}: has format {found}, and this version knows those up to {known}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format that this version reads.
        known: u64,
    },
}

impl OpenError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoFolder(_) => "make the folder, writable for the proxy's user",
            Self::LinkToNothing(_) => {
                "mount or make what the link leads to; an empty store is not begun in its place"
            }
            Self::NotAFile(_) => "name a file; if there is none, it is made",
            Self::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                "the file and its folder must be readable and writable for the proxy's user"
            }
            Self::Io { .. } => "mend that and start again",
            Self::Held(_) => {
                "stop the other process, or give this one a file of its own (several proxies \
                 share an etcd, not a file)"
            }
            Self::Damaged { .. } => {
                "move the file away and put a backup in its place; without one, move it away and \
                 apply the routes anew to the empty store that is made then"
            }
            Self::Foreign(_) => {
                "name another file; if this was the store, move it away and put a backup in its \
                 place"
            }
            Self::Unknown { .. } => "run the newer version that wrote it, or a backup of before",
        }
    }
}

/// What was found.
pub(super) struct Found {
    pub(super) room: Arc<Room>,
    pub(super) database: Database,
    pub(super) revision: Revision,
}

/// Opens the store in this file; makes one if there is none.
pub(super) fn open(path: &Path) -> Result<Found, OpenError> {
    let failed = |error| OpenError::Io { path: path.to_owned(), error };
    let path = match fs::symlink_metadata(path) {
        Ok(kind) if kind.is_symlink() => {
            &fs::canonicalize(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => OpenError::LinkToNothing(path.to_owned()),
                _ => failed(error),
            })?
        }
        _ => path,
    };
    if !has_bytes(path)?
        && let Some(made) = make(path)?
    {
        return Ok(made);
    }
    let room = Room::of(existing(path).map_err(failed)?);
    let mode = room.file().metadata().map_err(failed)?.mode() & 0o777;
    if mode & !MODE != 0 {
        let mode = format!("{mode:o}");
        warn!(path = %path.display(), mode, "others may use the store: chmod 600 ends that");
    }
    let database = room.database().map_err(|error| why(path, error))?;
    let revision = judge(path, &database)?;
    Ok(Found { room, database, revision })
}

/// Whether there is a file that is not empty.
fn has_bytes(path: &Path) -> Result<bool, OpenError> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(OpenError::NotAFile(path.to_owned())),
        Ok(found) => Ok(found.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(OpenError::Io { path: path.to_owned(), error }),
    }
}

fn existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Makes a new store, and moves it to its place when it is whole; none, if another process has
/// made one meanwhile.
fn make(path: &Path) -> Result<Option<Found>, OpenError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut draft = OsString::from(path);
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::NoFolder(folder.to_owned()),
        _ => OpenError::Io { path: draft.clone(), error },
    };
    let file = lock_draft(&draft).map_err(failed)?;
    let Some(file) = file else { return Err(OpenError::Held(path.to_owned())) };
    // While this lock is held nobody else makes the store; but somebody may have, before.
    if has_bytes(path)? {
        fs::remove_file(&draft).map_err(failed)?;
        return Ok(None);
    }
    let room = Room::of(file);
    let database = fill(&draft, &room)?;
    fs::rename(&draft, path).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    info!(path = %path.display(), "made a new, empty store");
    Ok(Some(Found { room, database, revision: 0 }))
}

/// The draft, empty and ours alone; none if another process is at it.
fn lock_draft(draft: &Path) -> io::Result<Option<File>> {
    for _ in 0..ATTEMPTS {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            .open(draft)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever held it before may have moved it to its place: then it is no draft any more.
        let ours = file.metadata()?;
        match fs::metadata(draft) {
            Ok(found) if (found.dev(), found.ino()) == (ours.dev(), ours.ino()) => {
                file.set_permissions(Permissions::from_mode(MODE))?;
                file.set_len(0)?;
                return Ok(Some(file));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("other processes make and move it all the time"))
}

/// Makes an empty store of an empty file.
fn fill(path: &Path, room: &Arc<Room>) -> Result<Database, OpenError> {
    let database = room.database().map_err(|error| why(path, error))?;
    let write = || -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        tables::create(&transaction)?;
        transaction.commit()?;
        Ok(())
    };
    write().map_err(|error| unreadable(path, error))?;
    Ok(database)
}

/// Whether the tables are ours, and of which revision.
fn judge(path: &Path, database: &Database) -> Result<Revision, OpenError> {
    let read = || -> Result<_, redb::Error> {
        let transaction = database.begin_read()?;
        let format = tables::format(&transaction)?;
        Ok((format, if format == Some(FORMAT) { tables::revision(&transaction)? } else { 0 }))
    };
    match read().map_err(|error| unreadable(path, error))? {
        (Some(FORMAT), revision) => Ok(revision),
        (Some(found), _) => Err(OpenError::Unknown { path: path.to_owned(), found, known: FORMAT }),
        (None, _) => Err(OpenError::Foreign(path.to_owned())),
    }
}

/// Why the database does not open.
fn why(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::Held(path.to_owned())
        }
        // Our first version wrote the format after these.
        DatabaseError::UpgradeRequired(_) => OpenError::Foreign(path.to_owned()),
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == io::ErrorKind::InvalidData =>
        {
            OpenError::Foreign(path.to_owned())
        }
        error => unreadable(path, error.into()),
    }
}

fn unreadable(path: &Path, error: redb::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            OpenError::Damaged { path, why: "it ends too early".to_owned() }
        }
        redb::Error::Io(error) => OpenError::Io { path, error },
        redb::Error::Corrupted(why) => OpenError::Damaged { path, why },
        error => OpenError::Damaged { path, why: error.to_string() },
    }
}
