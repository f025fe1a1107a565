//! Who asks: the credentials that the kernel vouches for, or the certificate that was verified.
//!
//! What is told here stands in the history as `by`. It is bounded and printable, whatever a
//! certificate says of its owner.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::net::UnixStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::registry::digest::digest;

/// The longest subject that is told, in characters.
const MAX_SUBJECT: usize = 256;
/// The most of the file of users that is looked at, in bytes.
const MAX_USERS: usize = 1 << 20;
const USERS: &str = "/etc/passwd";

/// Who is at the other end of a connection. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer(Arc<str>);

impl Peer {
    /// As the kernel knows it.
    pub(super) fn of_unix(stream: &UnixStream) -> Self {
        let text = match stream.peer_cred() {
            Err(_) => "unix:unknown".to_owned(),
            Ok(credentials) => {
                let uid = credentials.uid();
                let name = user(uid).map(|name| format!("({name})")).unwrap_or_default();
                match credentials.pid() {
                    Some(pid) => format!("unix:uid={uid}{name} pid={pid}"),
                    None => format!("unix:uid={uid}{name}"),
                }
            }
        };
        Self(text.into())
    }

    /// As its certificate says. Without a subject, the certificate itself is told by its digest.
    pub(super) fn of_certificate(certificate: &CertificateDer<'_>) -> Self {
        let parsed = X509Certificate::from_der(certificate);
        let subject = parsed.map(|(_, parsed)| parsed.subject().to_string()).unwrap_or_default();
        if subject.is_empty() {
            return Self(format!("tls:sha256={}", digest(certificate)).into());
        }
        let shown = subject.chars().take(MAX_SUBJECT);
        let shown: String = shown.map(|c| if c.is_control() { '?' } else { c }).collect();
        Self(format!("tls:{shown}").into())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a user, if the machine's own file knows it.
fn user(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string(USERS).ok().filter(|text| text.len() <= MAX_USERS)?;
    name_in(&text, uid)
}

fn name_in(users: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let is_it = fields.nth(1) == Some(uid.as_str());
        let is_plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
        (is_it && is_plain).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    #[test]
    fn users_are_found_by_their_number() {
        let users = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/x\nbroken\n";
        assert_eq!(name_in(users, 0).as_deref(), Some("root"));
        assert_eq!(name_in(users, 65534).as_deref(), Some("nobody"));
        assert_eq!(name_in(users, 6553), None);
    }

    #[test]
    fn a_subject_is_told_in_printable_characters_and_never_at_length() {
        let of = |name: Option<&str>| {
            let mut params = CertificateParams::new(vec!["x.test".to_owned()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            if let Some(name) = name {
                params.distinguished_name.push(DnType::CommonName, name);
            }
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            Peer::of_certificate(made.der()).to_string()
        };
        assert_eq!(of(Some("deployer")), "tls:CN=deployer");
        assert_eq!(of(Some("a\nb")), "tls:CN=a?b");
        assert!(of(None).starts_with("tls:sha256="));
        assert_eq!(of(Some(&"x".repeat(5000))).len(), 4 + MAX_SUBJECT);
    }
}
