//! What stands around the proxy: a routes file, two backends, and clients.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

/// A client that waits longer than this has found an error.
const PATIENCE: Duration = Duration::from_secs(20);

/// A backend that answers whatever comes with one letter.
pub(crate) fn backend(letter: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut hello = [0; 1024];
            if stream.read(&mut hello).is_ok_and(|length| length > 0) {
                let _ = stream.write_all(&[letter]);
            }
        }
    });
    address
}

/// The host of a route: 16 digits that follow no order, as generated names have them.
pub(crate) fn host(number: u64) -> String {
    format!("{:016x}.cosmian.io", (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The text of a route.
pub(crate) fn route(number: u64, backend: SocketAddr, with_id: bool) -> String {
    let host = host(number);
    let id = if with_id { format!("id = \"app-{number}\"\n") } else { String::new() };
    let (month, day, second) = (number % 12 + 1, number / 12 % 28 + 1, number / 336 % 60);
    format!(
        "[[route]]\nhosts = [\"{host}\"]\nbackends = [\"{backend}\"]\n\
         expires_at = 2099-{month:02}-{day:02}T{:02}:00:{second:02}Z\n{id}\n",
        number * 7 % 24
    )
}

/// A routes text that can be written anew with one route changed.
pub(crate) struct Book {
    text: String,
    with_ids: bool,
    /// Where the route that changes stands.
    changing: std::ops::Range<usize>,
    number: u64,
}

impl Book {
    pub(crate) fn new(routes: u64, backend: SocketAddr, with_ids: bool) -> Self {
        let mut text = String::new();
        let mut changing = 0..0;
        let number = routes / 2;
        for one in 0..routes {
            let start = text.len();
            let _ = write!(text, "{}", route(one, backend, with_ids));
            if one == number {
                changing = start..text.len();
            }
        }
        Self { text, with_ids, changing, number }
    }

    /// The host of the route that changes.
    pub(crate) fn host(&self) -> String {
        host(self.number)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn lead_to(&mut self, backend: SocketAddr) {
        let route = route(self.number, backend, self.with_ids);
        self.text.replace_range(self.changing.clone(), &route);
        self.changing.end = self.changing.start + route.len();
    }

    /// As a careful program does it: beside, to be renamed then.
    pub(crate) fn write_beside(&self, path: &Path) {
        fs::write(path, &self.text).unwrap();
    }
}

/// Asks for a host and gives the letter that came back.
pub(crate) fn ask(proxy: SocketAddr, host: &str) -> std::io::Result<u8> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&hello(host))?;
    let mut letter = [0];
    stream.read_exact(&mut letter)?;
    Ok(letter[0])
}

/// A small ClientHello (RFC 8446 §4.1.2) in one record.
fn hello(host: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| {
        let mut all = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        all.extend_from_slice(bytes);
        all
    };
    let name = [&[0][..], &sized(host.as_bytes())].concat();
    let sni = [&[0, 0][..], &sized(&sized(&name))].concat();
    let versions = [0, 43, 0, 3, 2, 3, 4];
    let extensions = sized(&[&sni[..], &versions].concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &extensions].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}
