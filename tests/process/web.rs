//! A small HTTP/1.1 client, and a reader of what Prometheus reads.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::{PATIENCE, text};

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header, whose name is given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.to_lowercase() == name).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes and reads until the other side closes.
pub(crate) fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = dial(address);
    stream.write_all(request.as_bytes()).unwrap();
    answer(stream)
}

/// Reads an answer to its end, and holds that it is as long as it says.
pub(crate) fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let whole = text(&bytes);
    let (head, body) = whole.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{whole:?}"));
    let (line, head) = head.split_once("\r\n").unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: proxy\r\n\r\n")
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    let answer = exchange(address, &request("GET", path));
    let length: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert_eq!(length, answer.body.len(), "{path}");
    answer
}

/// Every sample of a text, by its name and labels as they stand there.
#[derive(Debug)]
pub(crate) struct Samples(BTreeMap<String, f64>);

pub(crate) fn scrape(address: SocketAddr) -> Samples {
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200);
    Samples::read(&answer.body)
}

impl Samples {
    pub(crate) fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        Self(samples.collect())
    }

    /// The value of a series.
    pub(crate) fn of(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.0))
    }

    /// The value of a series, which must be this.
    pub(crate) fn assert(&self, series: &str, value: impl Into<f64>) {
        let (found, wanted) = (self.of(series), value.into());
        assert!((found - wanted).abs() < 1e-9, "{series} is {found}, not {wanted}");
    }

    /// All series of a family.
    pub(crate) fn series(&self, family: &str) -> Vec<&str> {
        let keys = self.0.keys().map(String::as_str);
        keys.filter(|series| series.split('{').next() == Some(family)).collect()
    }

    /// The sum over all series of a family.
    pub(crate) fn sum(&self, family: &str) -> f64 {
        self.series(family).iter().map(|series| self.of(series)).sum()
    }

    /// The names of all families, those of distributions without what stands for their parts.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> =
            self.0.keys().filter_map(|series| series.split('{').next()).collect();
        names.dedup();
        names
    }
}
