//! Certificates made at run time, by rcgen: an authority, one below it, and leaves.

use mse_proxy::admission::certificate::{Chain, Roots};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// A day: year, month, day of the month.
pub(crate) type Day = (i32, u8, u8);

/// A certificate with its key, in PEM.
pub(crate) struct Made {
    pub(crate) pem: String,
    pub(crate) key: String,
}

/// What a leaf says.
pub(crate) struct Leaf<'a> {
    pub(crate) names: &'a [&'a str],
    pub(crate) common_name: Option<&'a str>,
    pub(crate) from: Day,
    pub(crate) to: Day,
}

impl Default for Leaf<'_> {
    fn default() -> Self {
        Self {
            names: &["app.example.com"],
            common_name: Some("app.example.com"),
            from: (2026, 5, 1),
            to: (2026, 8, 1),
        }
    }
}

impl Leaf<'_> {
    fn params(&self) -> CertificateParams {
        let names: Vec<String> = self.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = self.common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        set_days(&mut params, self.from, self.to);
        params
    }

    /// Issued by itself.
    pub(crate) fn self_signed(&self) -> Made {
        let key = KeyPair::generate().unwrap();
        let made = self.params().self_signed(&key).unwrap();
        Made { pem: made.pem(), key: key.serialize_pem() }
    }
}

fn set_days(params: &mut CertificateParams, from: Day, to: Day) {
    params.not_before = date_time_ymd(from.0, from.1, from.2);
    params.not_after = date_time_ymd(to.0, to.1, to.2);
}

/// Whoever issues certificates.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) pem: String,
    pub(crate) der: Vec<u8>,
}

impl Authority {
    fn params(name: &str, to: Day) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        set_days(&mut params, (2020, 1, 1), to);
        params
    }

    /// One that everybody knows.
    pub(crate) fn root(name: &str) -> Self {
        let (params, key) = (Self::params(name, (2040, 1, 1)), KeyPair::generate().unwrap());
        let made = params.self_signed(&key).unwrap();
        Self { pem: made.pem(), der: made.der().to_vec(), params, key }
    }

    /// One that this one has issued.
    pub(crate) fn below(&self, name: &str, to: Day) -> Self {
        let (params, key) = (Self::params(name, to), KeyPair::generate().unwrap());
        let issuer = Issuer::from_params(&self.params, &self.key);
        let made = params.signed_by(&key, &issuer).unwrap();
        Self { pem: made.pem(), der: made.der().to_vec(), params, key }
    }

    pub(crate) fn issue(&self, leaf: &Leaf<'_>) -> Made {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let made = leaf.params().signed_by(&key, &issuer).unwrap();
        Made { pem: made.pem(), key: key.serialize_pem() }
    }
}

/// A root, an authority below it, and one of the same name with another key.
pub(crate) struct World {
    pub(crate) root: Authority,
    pub(crate) issuer: Authority,
    pub(crate) impostor: Authority,
    pub(crate) expired: Authority,
    pub(crate) elsewhere: Authority,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = Authority::root("Root");
        Self {
            issuer: root.below("Issuer", (2035, 1, 1)),
            impostor: root.below("Issuer", (2035, 1, 1)),
            expired: root.below("Old Issuer", (2026, 1, 1)),
            elsewhere: Authority::root("Nobody Knows").below("Private Issuer", (2035, 1, 1)),
            root,
        }
    }

    pub(crate) fn roots(&self) -> Roots {
        [self.root.der.as_slice()].into_iter().collect()
    }
}

pub(crate) fn chain(pems: &[&str]) -> Chain {
    Chain::from_pem(pems.concat().as_bytes()).unwrap()
}
