//! What a private key says of its public half, without computing anything.
//!
//! That a key belongs to a certificate is proven by deriving its public half, which takes 15 µs on
//! P-256 and many times that for RSA. Nearly all files tell it beside the private one, where it can
//! be read in less than one: enough to tell pairs that were mixed up or half replaced. Only a file
//! that contradicts itself is found by the proof alone. Pure.
//!
//! ```text
//! PKCS#8   SEQUENCE { INTEGER, SEQUENCE algorithm, OCTET STRING { one of those below } … }    RFC 5958 §2
//! SEC1     SEQUENCE { INTEGER 1, OCTET STRING, [0] curve OPTIONAL, [1] { BIT STRING point } } RFC 5915 §3
//! PKCS#1   SEQUENCE { INTEGER 0, INTEGER n, INTEGER e, … }                                    RFC 8017 A.1.2
//! leaf     BIT STRING { point } or BIT STRING { SEQUENCE { INTEGER n, INTEGER e } }           RFC 5480, 3279
//! ```

use rustls::pki_types::PrivateKeyDer;
use x509_parser::asn1_rs::{Any, BitString, FromDer, Oid, Tag, oid};
use x509_parser::x509::SubjectPublicKeyInfo;

/// Curves that we sign on (RFC 5480 §2.1.1.1).
const CURVES: [Oid<'static>; 3] =
    [oid!(1.2.840.10045.3.1.7), oid!(1.3.132.0.34), oid!(1.3.132.0.35)];
/// Bytes of a modulus that is signed with, a leading zero included: 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 257..=1025;

/// Whether a key says that its public half is this one, of a kind that we sign with. Says no where
/// it says nothing.
pub(super) fn claims(key: &PrivateKeyDer<'_>, public: &SubjectPublicKeyInfo<'_>) -> bool {
    let told = match key {
        PrivateKeyDer::Pkcs1(key) => of_rsa(key.secret_pkcs1_der(), public),
        PrivateKeyDer::Sec1(key) => of_curve(key.secret_sec1_der(), public),
        PrivateKeyDer::Pkcs8(key) => inside(key.secret_pkcs8_der())
            .and_then(|inside| of_curve(inside, public).or_else(|| of_rsa(inside, public))),
        _ => None,
    };
    told.unwrap_or(false)
}

/// The next value, and what follows upon it.
fn next(bytes: &[u8]) -> Option<(Any<'_>, &[u8])> {
    Any::from_der(bytes).ok().map(|(rest, value)| (value, rest))
}

/// The same for a value of this kind.
fn next_of(bytes: &[u8], kind: Tag) -> Option<(&[u8], &[u8])> {
    next(bytes).filter(|(value, _)| value.tag() == kind).map(|(value, rest)| (value.data, rest))
}

fn inside(pkcs8: &[u8]) -> Option<&[u8]> {
    let (body, _) = next_of(pkcs8, Tag::Sequence)?;
    let (_, rest) = next_of(body, Tag::Integer)?;
    let (_, rest) = next_of(rest, Tag::Sequence)?;
    next_of(rest, Tag::OctetString).map(|(inside, _)| inside)
}

fn of_curve(sec1: &[u8], public: &SubjectPublicKeyInfo<'_>) -> Option<bool> {
    let (body, _) = next_of(sec1, Tag::Sequence)?;
    let (_, rest) = next_of(body, Tag::Integer)?;
    let (_, mut rest) = next_of(rest, Tag::OctetString)?;
    let curve = public.algorithm.parameters.as_ref()?.as_oid().ok()?;
    while let Some((value, after)) = next(rest) {
        if value.tag() == Tag(1) {
            let (_, point) = BitString::from_der(value.data).ok()?;
            let is_same = *point.data == *public.subject_public_key.data;
            return Some(is_same && CURVES.contains(&curve));
        }
        rest = after;
    }
    None
}

fn of_rsa(pkcs1: &[u8], public: &SubjectPublicKeyInfo<'_>) -> Option<bool> {
    let (body, _) = next_of(pkcs1, Tag::Sequence)?;
    let (_, told) = next_of(body, Tag::Integer)?;
    let (public, _) = next_of(&public.subject_public_key.data, Tag::Sequence)?;
    let (modulus, _) = next_of(public, Tag::Integer)?;
    Some(told.starts_with(public) && MODULUS.contains(&modulus.len()))
}
