//! Whole lines onto a descriptor, without the buffers of the standard library between.
//!
//! A line that could only be written in part counts as lost, and never runs into the next one.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use crate::telemetry::scribe::Unwritten;

/// The first and the longest pause before a descriptor that is not ready is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Where lines go.
#[derive(Debug)]
pub(super) struct Stream {
    file: File,
    /// The last line was only written in part.
    is_torn: bool,
}

impl Stream {
    pub(super) fn new(file: File) -> Self {
        Self { file, is_torn: false }
    }

    /// Writes lines, each with its line feed; waits for as long as that takes.
    ///
    /// # Errors
    /// How many of them are not written as a whole, and why.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        let written = self.write_some(lines);
        written.map_err(|(done, error)| {
            let (whole, rest) = lines.split_at_checked(done).unwrap_or((lines, &[]));
            self.is_torn = whole.last().map_or(self.is_torn, |last| *last != b'\n');
            Unwritten { count: line_feeds(rest), error }
        })
    }

    /// Gives how many bytes were written, if not all.
    fn write_some(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.is_torn {
            write_all(&mut self.file, b"\n").map_err(|(_, error)| (0, error))?;
            self.is_torn = false;
        }
        write_all(&mut self.file, lines)
    }
}

fn line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// `Write::write_all` that tells how far it came, and is patient with a descriptor that somebody
/// else, with whom we share it, has made non-blocking.
fn write_all(file: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    let mut pause = PAUSES.0;
    while let Some(rest @ [_, ..]) = bytes.get(done..) {
        match file.write(rest) {
            Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
            Ok(count) => (done, pause) = (done + count, PAUSES.0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSES.1);
            }
            Err(error) => return Err((done, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_full_disk_loses_every_line_and_says_so() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let unwritten = Stream::new(full).write(b"one\ntwo\n").unwrap_err();
        assert_eq!(unwritten.count, 2);
        assert_eq!(unwritten.error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_torn_line_is_lost_and_does_not_run_into_the_next() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut stream = Stream::new(File::from(OwnedFd::from(ours.try_clone().unwrap())));
        let long = [vec![b'x'; 4 << 20], b"\nshort\n".to_vec()].concat();
        // Its writer is cut off in the middle of the long line.
        let reader = std::thread::spawn(move || {
            theirs.read_exact(&mut vec![0; 1000]).unwrap();
            ours.shutdown(std::net::Shutdown::Write).unwrap();
            theirs
        });
        let unwritten = stream.write(&long).unwrap_err();
        assert_eq!(unwritten.count, 2);
        assert!(stream.is_torn);
        drop(reader.join().unwrap());
        // Then there is room again.
        let mut file = tempfile::tempfile().unwrap();
        stream.file = file.try_clone().unwrap();
        stream.write(b"next\n").unwrap();
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nnext\n");
    }

    #[test]
    fn a_descriptor_that_was_made_non_blocking_is_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let bytes = vec![b'\n'; 4 << 20];
        let size = bytes.len();
        let writer = std::thread::spawn(move || {
            Stream::new(File::from(OwnedFd::from(ours))).write(&bytes).unwrap();
        });
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        assert_eq!(read.len(), size);
    }
}
