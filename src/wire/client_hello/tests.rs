//! Bad hellos, each refused at the first byte that proves it wrong; good ones however odd.

use super::*;
use crate::hostname::HostnameError;

/// A hello in the making: every part can be bent.
#[derive(Clone)]
struct Builder {
    version: [u8; 2],
    session_id: Vec<u8>,
    ciphers: Vec<u8>,
    compressions: Vec<u8>,
    extensions: Option<Vec<u8>>,
}

impl Builder {
    fn new() -> Self {
        Self {
            version: [3, 3],
            session_id: vec![9; 32],
            ciphers: vec![0x13, 1, 0x13, 2],
            compressions: vec![0],
            extensions: Some(Vec::new()),
        }
    }

    fn extension(mut self, kind: u16, body: &[u8]) -> Self {
        let extensions = self.extensions.get_or_insert_default();
        extensions.extend_from_slice(&kind.to_be_bytes());
        extensions.extend_from_slice(&length(body.len(), 2));
        extensions.extend_from_slice(body);
        self
    }

    fn name(self, name: &[u8]) -> Self {
        let entry = [&[0][..], &length(name.len(), 2), name].concat();
        self.extension(0, &[length(entry.len(), 2), entry].concat())
    }

    fn alpn(self, names: &[&[u8]]) -> Self {
        let list: Vec<u8> =
            names.iter().flat_map(|name| [&length(name.len(), 1), *name].concat()).collect();
        self.extension(16, &[length(list.len(), 2), list].concat())
    }

    fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_vec();
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&length(self.session_id.len(), 1));
        body.extend_from_slice(&self.session_id);
        body.extend_from_slice(&length(self.ciphers.len(), 2));
        body.extend_from_slice(&self.ciphers);
        body.extend_from_slice(&length(self.compressions.len(), 1));
        body.extend_from_slice(&self.compressions);
        if let Some(extensions) = &self.extensions {
            body.extend_from_slice(&length(extensions.len(), 2));
            body.extend_from_slice(extensions);
        }
        [&[1][..], &length(body.len(), 3), &body].concat()
    }

    fn record(&self) -> Vec<u8> {
        record(&self.message())
    }
}

fn length(count: usize, width: usize) -> Vec<u8> {
    let bytes = u32::try_from(count).unwrap().to_be_bytes();
    bytes[4 - width..].to_vec()
}

fn record(payload: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &length(payload.len(), 2), payload].concat()
}

const MAX_SIZE: u32 = 64 * 1024;

/// Feeds byte by byte; gives the answer and how many bytes it took.
fn bytewise(bytes: &[u8]) -> (Progress, usize) {
    let mut parser = Parser::new(MAX_SIZE);
    for (index, byte) in bytes.iter().enumerate() {
        match parser.feed(std::slice::from_ref(byte)) {
            Progress::Incomplete => {}
            answer => return (answer, index + 1),
        }
    }
    (Progress::Incomplete, bytes.len())
}

fn hello(bytes: &[u8]) -> ClientHello {
    let whole = Parser::new(MAX_SIZE).feed(bytes);
    assert_eq!(bytewise(bytes).0, whole);
    match whole {
        Progress::Hello(hello) => *hello,
        other => panic!("{other:?}"),
    }
}

fn name_of(bytes: &[u8]) -> Option<String> {
    hello(bytes).sni.map(|name| name.to_string())
}

/// The bytes are refused for this reason, at this byte (counted from 1) and not before.
fn refused(bytes: &[u8], why: &Reject, at: usize) {
    assert_eq!(bytewise(bytes), (Progress::Reject(why.clone()), at), "{}", bytes.escape_ascii());
    assert_eq!(Parser::new(MAX_SIZE).feed(bytes), Progress::Reject(why.clone()));
}

#[test]
fn what_is_no_tls_is_told_apart_at_the_first_byte_that_shows_it() {
    refused(b"SSH-2.0-OpenSSH_9.2\r\n", &Reject::NotTls, 1);
    refused(b"\0\0\0\x50", &Reject::NotTls, 1);
    refused(b"GARBAGE", &Reject::NotTls, 2);
    refused(b"GETTING", &Reject::NotTls, 4);
    refused(b"GET / HTTP/1.1\r\n", &Reject::PlainHttp, 4);
    refused(b"POST /x HTTP/1.1\r\n", &Reject::PlainHttp, 5);
    refused(b"OPTIONS * HTTP/1.1\r\n", &Reject::PlainHttp, 8);
    refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &Reject::PlainHttp, 6);
    refused(&[0x80, 0x2e, 1, 0, 2], &Reject::Sslv2, 4);
    refused(&[0x80, 0x2e, 1, 3, 1], &Reject::Sslv2, 4);
    refused(&[0x80, 0x2e, 2, 0, 2], &Reject::NotTls, 3);
    refused(&[0x80, 0x2e, 1, 9], &Reject::NotTls, 4);
    refused(&[22, 2, 0], &Reject::NotTls, 2);
    refused(&[22, 3, 5], &Reject::NotTls, 3);
}

#[test]
fn a_wrong_record_is_refused_at_its_header() {
    for kind in [20, 21, 23, 24] {
        refused(&[kind, 3, 1, 0, 1], &Reject::RecordType(kind), 1);
    }
    refused(&[22, 3, 1, 0x40, 1], &Reject::RecordTooLarge, 5);
    refused(&[22, 3, 1, 0x41, 0], &Reject::RecordTooLarge, 4);
    refused(&[22, 3, 1, 0, 0], &Reject::EmptyRecord, 5);
    let message = Builder::new().message();
    let first = record(&message[..20]);
    let with = |next: &[u8]| [&first, next].concat();
    refused(&with(&[23, 3, 3, 0, 5]), &Reject::RecordType(23), first.len() + 1);
    refused(&with(b"G"), &Reject::RecordType(b'G'), first.len() + 1);
    refused(&with(&[22, 2, 0]), &Reject::RecordVersion(2, 0), first.len() + 3);
    refused(&with(&[22, 3, 9]), &Reject::RecordVersion(3, 9), first.len() + 3);
    refused(&with(&[22, 3, 3, 0, 0]), &Reject::EmptyRecord, first.len() + 5);
}

#[test]
fn a_wrong_message_is_refused_where_it_goes_wrong() {
    refused(&record(&[2, 0, 0, 50]), &Reject::HandshakeType(2), 6);
    refused(&record(&[1, 0, 0, 40]), &Reject::Length("the message"), 9);
    refused(&record(&[1, 1, 0, 0]), &Reject::TooLarge { size: 65_540 }, 9);
    refused(&record(&[1, 0xff, 0xff, 0xff]), &Reject::TooLarge { size: 0x100_0003 }, 9);
    let old = Builder { version: [2, 0], ..Builder::new() };
    refused(&old.record(), &Reject::Version(2, 0), 11);
    let long = Builder { session_id: vec![0; 33], ..Builder::new() };
    refused(&long.record(), &Reject::Length("session_id"), 44);
    let odd = Builder { ciphers: vec![1, 2, 3], ..Builder::new() };
    refused(&odd.record(), &Reject::Length("cipher_suites"), 78);
    let none = Builder { ciphers: vec![], ..Builder::new() };
    refused(&none.record(), &Reject::Length("cipher_suites"), 78);
    let none = Builder { compressions: vec![], ..Builder::new() };
    refused(&none.record(), &Reject::Length("compression_methods"), 83);
}

/// A good hello with one byte changed, counted from the start of the record.
fn bent(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = Builder::new().name(b"a.test").alpn(&[b"h2"]).record();
    bytes[at] = byte;
    bytes
}

#[test]
fn lengths_that_disagree_are_refused_as_soon_as_they_are_known() {
    // session_id 43, ciphers 76, compressions 82, extensions 84, then server_name: type 86, length
    // 88, list 90, entry type 92, name length 93, name 95; ALPN: type 101, length 103, list 105,
    // protocol 107.
    let good = bent(5, 1);
    assert_eq!(name_of(&good).as_deref(), Some("a.test"));
    assert_eq!(hello(&good).alpn.to_string(), "h2");
    for (at, byte, why, refused_at) in [
        (8, good[8] + 1, Reject::Length("extensions"), 86),
        (8, good[8] - 1, Reject::Length("extensions"), 86),
        (77, 0xf0, Reject::Length("cipher_suites"), 78),
        (82, 0xf0, Reject::Length("compression_methods"), 83),
        (85, good[85] + 1, Reject::Length("extensions"), 86),
        (85, good[85] - 1, Reject::Length("extensions"), 86),
        (89, 0xf0, Reject::Length("an extension"), 90),
        (89, good[89] - 1, Reject::Length("server_name_list"), 92),
        (91, good[91] + 1, Reject::Length("server_name_list"), 92),
        (91, good[91] - 1, Reject::Length("server_name_list"), 92),
        (92, 1, Reject::NameType(1), 93),
        (94, good[94] + 1, Reject::Length("host_name"), 95),
        (94, good[94] - 1, Reject::SeveralNames, 95),
        (104, good[104] + 1, Reject::Length("an extension"), 105),
        (106, good[106] + 1, Reject::Length("protocol_name_list"), 107),
        (107, 3, Reject::Length("protocol_name"), 108),
        (107, 0, Reject::Length("protocol_name"), 108),
        (107, 1, Reject::Length("protocol_name"), 110),
    ] {
        refused(&bent(at, byte), &why, refused_at);
    }
}

#[test]
fn a_message_that_ends_before_its_fields_do_is_refused() {
    // One byte is left where extensions would begin.
    let bare = Builder { extensions: None, ..Builder::new() };
    let mut message = bare.message();
    message.push(0);
    message[3] += 1;
    refused(&record(&message), &Reject::Length("extensions"), 84);
    // Three bytes are left where an extension would begin.
    let short = Builder { extensions: Some(vec![0, 0, 0]), ..Builder::new() };
    refused(&short.record(), &Reject::Length("an extension"), 86);
    let empty = Builder::new().extension(0, &[]);
    refused(&empty.record(), &Reject::Length("server_name_list"), 90);
    let empty = Builder::new().extension(0, &[0, 0]);
    refused(&empty.record(), &Reject::Length("server_name_list"), 92);
    let cut = Builder::new().extension(0, &[0, 1, 0]);
    refused(&cut.record(), &Reject::Length("host_name"), 93);
    let empty = Builder::new().extension(16, &[0, 0]);
    refused(&empty.record(), &Reject::Length("protocol_name_list"), 92);
}

#[test]
fn bytes_behind_the_hello_in_its_record_are_refused() {
    let message = Builder::new().name(b"a.test").message();
    let trailing = [message.as_slice(), &[0]].concat();
    refused(&record(&trailing), &Reject::TrailingBytes, 5 + message.len());
    let another = [message.as_slice(), message.as_slice()].concat();
    refused(&record(&another), &Reject::TrailingBytes, 5 + message.len());
}

#[test]
fn one_name_and_one_list_of_protocols_is_all_there_may_be() {
    let twice = Builder::new().name(b"a.test").name(b"a.test").record();
    refused(&twice, &Reject::Duplicate("server_name"), twice.len() - 13);
    let twice = Builder::new().alpn(&[b"h2"]).extension(99, &[]).alpn(&[b"h2"]).record();
    refused(&twice, &Reject::Duplicate("ALPN"), twice.len() - 7);
    let names = [&[0, 18][..], &[0, 0, 6], b"a.test", &[0, 0, 6], b"b.test"].concat();
    refused(&Builder::new().extension(0, &names).record(), &Reject::SeveralNames, 95);
}

#[test]
fn what_is_no_name_is_refused_at_its_first_wrong_byte() {
    let forbidden = |byte, offset| Reject::Name(HostnameError::ForbiddenByte { byte, offset });
    let long_label = [b'a'; 70];
    let long_name = "a.".repeat(130);
    for (name, why, at) in [
        (&b""[..], Reject::Name(HostnameError::Empty), 95),
        (b".", Reject::Name(HostnameError::Empty), 96),
        (b"a.test\0.evil", forbidden(0, 6), 102),
        (b"a test", forbidden(b' ', 1), 97),
        (b"*.w.test", forbidden(b'*', 0), 96),
        (b"x\xc3\xa4.test", forbidden(0xc3, 1), 97),
        (b"[::1]", forbidden(b'[', 0), 96),
        (b"a..test", Reject::Name(HostnameError::EmptyLabel), 98),
        (b".w.test", Reject::Name(HostnameError::EmptyLabel), 102),
        (b"a-.test", Reject::Name(HostnameError::EdgeHyphen), 102),
        (b"192.0.2.1", Reject::Name(HostnameError::IpLiteral), 104),
        (&long_label, Reject::Name(HostnameError::LabelTooLong { octets: 64 }), 95 + 64),
        (long_name.as_bytes(), Reject::Name(HostnameError::TooLong { octets: 260 }), 95),
    ] {
        refused(&Builder::new().name(name).record(), &why, at);
    }
    // One byte more than the longest name may be its trailing dot, or one too many.
    let name = format!("{}.{}", ["a".repeat(63).as_str(); 3].join("."), "a".repeat(62));
    let why = Reject::Name(HostnameError::TooLong { octets: 254 });
    refused(&Builder::new().name(name.as_bytes()).record(), &why, 95 + 254);
    let name = format!("{}.{}.", ["a".repeat(63).as_str(); 3].join("."), "a".repeat(61));
    assert_eq!(name_of(&Builder::new().name(name.as_bytes()).record()).unwrap().len(), 253);
}

#[test]
fn odd_but_legal_hellos_pass() {
    let bare = Builder { extensions: None, ..Builder::new() };
    assert_eq!(name_of(&bare.record()), None);
    assert_eq!(name_of(&Builder::new().record()), None, "an empty list of extensions");
    let bare = Builder { session_id: vec![], ciphers: vec![0x0a, 0x0a], ..Builder::new() };
    assert_eq!(name_of(&bare.name(b"My_App.TEST.").record()).as_deref(), Some("my_app.test"));
    // GREASE wherever it may stand (RFC 8701), and extensions in any order.
    let grease = Builder { ciphers: vec![0x1a, 0x1a, 0x13, 1], ..Builder::new() };
    let grease = grease
        .extension(0x2a2a, &[])
        .alpn(&[b"\x3a\x3a", b"h2", b"http/1.1"])
        .extension(43, &[4, 0x4a, 0x4a, 3, 4])
        .extension(0xfe0d, &[0; 200])
        .name(b"app.test")
        .extension(0x5a5a, &[0]);
    let seen = hello(&grease.record());
    assert_eq!(seen.sni.map(|name| name.to_string()).as_deref(), Some("app.test"));
    assert_eq!(seen.alpn.iter().collect::<Vec<_>>(), [&b"\x3a\x3a"[..], b"h2", b"http/1.1"]);
    assert_eq!(seen.alpn.to_string(), "::,h2,http/1.1");
    assert!(seen.ech);
    for minor in 0..=4 {
        let mut bytes = Builder::new().name(b"a.test").record();
        bytes[2] = minor;
        assert_eq!(name_of(&bytes).as_deref(), Some("a.test"));
    }
}

#[test]
fn sizes_are_told_exactly_and_what_follows_is_not_looked_at() {
    let builder = Builder::new().name(b"a.test");
    let message = builder.message();
    for piece in [1, 7, 40, message.len()] {
        let records: Vec<u8> = message.chunks(piece).flat_map(record).collect();
        let followed = [records.as_slice(), &[0xff; 30]].concat();
        let seen = hello(&followed);
        assert_eq!(seen.wire_size, records.len());
        assert_eq!(seen.size as usize, message.len());
        assert_eq!(bytewise(&records).1, records.len());
    }
}

#[test]
fn a_large_hello_passes_up_to_the_limit_and_not_beyond() {
    for padding in [16_000, 60_000] {
        let message = Builder::new().extension(21, &vec![0; padding]).name(b"a.test").message();
        let records: Vec<u8> = message.chunks(1 << 14).flat_map(record).collect();
        assert_eq!(name_of(&records).as_deref(), Some("a.test"));
    }
    let message = Builder::new().extension(21, &vec![0; 60_000]).message();
    let size = u32::try_from(message.len()).unwrap();
    let first = record(&message[..100]);
    assert_eq!(Parser::new(size).feed(&first), Progress::Incomplete);
    let why = Reject::TooLarge { size };
    assert_eq!(Parser::new(size - 1).feed(&first), Progress::Reject(why));
}
