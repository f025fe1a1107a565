//! The Unix socket: made so that nobody but its owner may connect, at no moment, and so that no
//! proxy takes it from another that still serves.
//!
//! A file beside it (`….lock`) is locked for as long as the socket is served; it stays when the
//! proxy goes, because removing it would let two proxies hold the lock of two files of one name.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use socket2::{Domain, SockAddr, Socket, Type};

/// How many clients may wait to be accepted.
const BACKLOG: i32 = 64;
/// Everybody may look into the folder; what lies in it is protected by itself.
const FOLDER_MODE: u32 = 0o755;
const LOCK_MODE: u32 = 0o600;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    /// Another process serves it.
    #[error("another process serves {}", .0.display())]
    InUse(PathBuf),
    /// Something else lies there, and it is not ours to remove.
    #[error("{} is no socket", .0.display())]
    NotASocket(PathBuf),
    /// The kernel says no.
    #[error("{}: {error}", path.display())]
    Io {
        /// What could not be had.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
}

/// A listening socket. Its file is removed when this is dropped, if it is still this socket's.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    listener: UnixListener,
    /// What the file was when it was made: its device and number.
    identity: (u64, u64),
    _lock: File,
}

impl Bound {
    /// Listens there. Makes the folder if it is missing, and takes the place of a socket that
    /// nobody serves any more.
    pub(super) fn open(path: &Path) -> Result<Self, UnixError> {
        let blame = |error| UnixError::Io { path: path.to_owned(), error };
        if let Some(folder) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
            made.map_err(|error| UnixError::Io { path: folder.to_owned(), error })?;
        }
        let lock = lock(path)?;
        clear(path)?;
        let listener = bind(path).map_err(blame)?;
        let identity = identity(path).map_err(blame)?;
        Ok(Self { path: path.to_owned(), listener, identity, _lock: lock })
    }

    /// The socket, for a runtime.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Somebody may have moved it away and put another into its place.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // If that fails, the next proxy finds a socket that nobody serves.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn lock(path: &Path) -> Result<File, UnixError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(LOCK_MODE)
        .open(&beside)
        .map_err(|error| UnixError::Io { path: beside.clone(), error })?;
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(opened),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(UnixError::InUse(path.to_owned())),
        Err(error) => Err(UnixError::Io { path: beside, error: error.into() }),
    }
}

/// Removes a socket that nobody serves.
fn clear(path: &Path) -> Result<(), UnixError> {
    let blame = |error| UnixError::Io { path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(blame(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(UnixError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    // Whoever serves without our lock is no proxy of this kind, and is not robbed either.
    match UnixStream::connect(path) {
        Ok(_) => Err(UnixError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(blame)
        }
        Err(error) => Err(blame(error)),
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before there is a file: Linux gives it the mode of the socket (less the umask), so that
    // there is no moment in which others could connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_is_made_for_its_owner_alone_and_is_gone_with_its_proxy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/here/admin.sock");
        let bound = Bound::open(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()) & !0o755, 0);
        UnixStream::connect(&path).unwrap();
        assert!(matches!(Bound::open(&path), Err(UnixError::InUse(_))));
        drop(bound);
        assert!(!path.exists());
        Bound::open(&path).unwrap();
    }

    #[test]
    fn a_socket_that_nobody_serves_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind as by kill -9");
        drop(Bound::open(&path).unwrap());
        // One that is served by something without our lock.
        let _served = UnixListener::bind(&path).unwrap();
        assert!(matches!(Bound::open(&path), Err(UnixError::InUse(_))));
        let file = folder.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(Bound::open(&file), Err(UnixError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn another_socket_in_its_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let bound = Bound::open(&path).unwrap();
        fs::rename(&path, folder.path().join("away")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists());
    }
}
