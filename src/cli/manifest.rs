//! `check mse.toml`: what can be said of a manifest without a running proxy. Reads the files that
//! it names, asks DNS if that is wanted, and hands what it found to the rules.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::report::Finding;
use crate::admission::Settings;
use crate::admission::certificate::{Chain, KeyFinding, Roots, match_key};
use crate::admission::evidence::{
    DomainEvidence, Evidence, FileFact, Found, Lookup, LookupEnd, Tokens,
};
use crate::admission::manifest::{self, FaultKind, MAX_TEXT, Manifest, Places, Reading};
use crate::admission::refusal::Refusal;
use crate::admission::rules::{Open, Terms, Verdict, Wish, judge, judge_files};
use crate::admission::warning::Warning;
use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::probe;
use crate::registry::app::Role;
use crate::resolve::dns::Dns;
use crate::source::place::Place;

/// The largest file of certificates or of a key that is read. Real ones have 1 to 10 KB.
const MAX_PEM: u64 = 1 << 20;

/// What was found of a manifest.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) faults: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    /// Project and name, if it is a manifest at all.
    app: Option<String>,
    terms: Option<Terms>,
    open: Vec<Open>,
}

/// Reads and judges a manifest and the files that it names.
pub(super) fn check(path: &Path, platform: &Settings, with_dns: bool, now: Timestamp) -> Judged {
    let source: Arc<str> = path.display().to_string().into();
    let text = match text_of(path) {
        Ok(text) => text,
        Err(message) => return unread(&source, message),
    };
    let reading = manifest::read(&source, &text, now);
    let mut judged = Judged::from(&reading);
    let folder = path.parent().unwrap_or(Path::new(""));
    let files = facts(&reading, folder);
    if let Some(manifest) = &reading.manifest {
        let mut evidence = gather(manifest, folder);
        evidence.files = Some(files);
        if let (true, Some(ssl)) = (with_dns, &manifest.cloud.ssl) {
            evidence.domain = Some(ask_dns(&ssl.domain_name, platform));
        }
        let wish = Wish { manifest, operator_tls: false };
        let verdict = judge(wish, &evidence, None, platform, now);
        judged.take(manifest, verdict, &reading.places, &source);
    } else {
        let refusals = judge_files(&files);
        judged.faults.extend(refusals.iter().map(|one| told(one, &reading.places, &source)));
    }
    judged
}

/// A manifest as it is sent to a proxy, with what only its owner's side can find out.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) text: String,
    /// The chain of the owner's certificate, leaf first; nothing else that is in its file.
    pub(super) certificate: Vec<Vec<u8>>,
    /// Whether the owner's key fits it. The key itself is forgotten here.
    pub(super) key: Option<KeyFinding>,
    /// What is odd and cannot be seen from elsewhere, in the words of those who can see the rest.
    pub(super) warnings: Vec<String>,
}

/// Reads a manifest and the files that it names.
///
/// # Errors
/// All that is wrong with the text, its files, or the certificate as such, and what is odd.
pub(super) fn load(path: &Path, now: Timestamp) -> Result<Loaded, Box<Judged>> {
    let source: Arc<str> = path.display().to_string().into();
    let text = text_of(path).map_err(|message| unread(&source, message))?;
    let reading = manifest::read(&source, &text, now);
    let mut judged = Judged::from(&reading);
    let folder = path.parent().unwrap_or(Path::new(""));
    let refusals = judge_files(&facts(&reading, folder));
    judged.faults.extend(refusals.iter().map(|one| told(one, &reading.places, &source)));
    let evidence = reading.manifest.as_ref().map(|manifest| gather(manifest, folder));
    let Evidence { certificate, key, .. } = evidence.unwrap_or_default();
    let mut warnings = Vec::new();
    let certificate = match certificate {
        None => Vec::new(),
        Some(Ok(chain)) => {
            if chain.has_private_key {
                let beside = odd(&Warning::KeyBeside, &reading.places, &source);
                warnings.push(format!("{}: {}", beside.place.origin, beside.message));
                judged.warnings.push(beside);
            }
            chain.all().map(|one| one.der.clone()).collect()
        }
        Some(Err(why)) => {
            judged.faults.push(told(&Refusal::NoChain(why), &reading.places, &source));
            Vec::new()
        }
    };
    let loaded = Loaded { text, certificate, key, warnings };
    if judged.faults.is_empty() { Ok(loaded) } else { Err(judged.into()) }
}

/// What is where a manifest says.
fn facts(reading: &Reading, folder: &Path) -> Vec<FileFact> {
    let files = reading.paths.iter().map(|(key, path)| {
        let path = folder.join(path);
        FileFact { key, found: look(&path), path }
    });
    files.collect()
}

/// A reason against the app, at the place of its key.
fn told(refusal: &Refusal, places: &Places, source: &Arc<str>) -> Finding {
    let known = refusal.key().and_then(|key| places.get(key)).cloned();
    finding(known.unwrap_or_else(|| Place::of_source(source)), refusal)
}

/// What is odd about it, likewise.
fn odd(warning: &Warning, places: &Places, source: &Arc<str>) -> Finding {
    let known = places.get(warning.key()).cloned();
    finding(known.unwrap_or_else(|| Place::of_source(source)), warning)
}

fn finding(place: Place, words: &dyn std::fmt::Display) -> Finding {
    Finding { place, message: words.to_string() }
}

/// Of a manifest that cannot be read.
fn unread(source: &Arc<str>, message: String) -> Judged {
    let faults = vec![Finding { place: Place::of_source(source), message }];
    Judged { faults, ..Judged::default() }
}

impl From<&Reading> for Judged {
    fn from(reading: &Reading) -> Self {
        let faults = reading.faults.iter().map(|one| finding(one.place.clone(), &one.kind));
        let warnings = reading.warnings.iter().map(|one| finding(one.place.clone(), &one.kind));
        Self { faults: faults.collect(), warnings: warnings.collect(), ..Self::default() }
    }
}

impl Judged {
    fn take(&mut self, manifest: &Manifest, verdict: Verdict, places: &Places, source: &Arc<str>) {
        self.faults.extend(verdict.refusals.iter().map(|one| told(one, places, source)));
        self.warnings.extend(verdict.warnings.iter().map(|one| odd(one, places, source)));
        self.app = Some(format!("{}/{}", manifest.cloud.project, manifest.name));
        self.terms = verdict.terms;
        self.open = verdict.open;
    }

    /// What would become of the app, in a sentence.
    pub(super) fn summary(&self) -> String {
        let (Some(app), Some(terms)) = (&self.app, &self.terms) else {
            return "the manifest cannot be deployed".to_owned();
        };
        let hosts = terms.hosts.iter().map(|host| match host.role {
            Role::Own => host.host.to_string(),
            Role::Configuration => format!("{} (to configure it)", host.host),
            Role::Custom | Role::Terminated => format!("{} (once it runs)", host.host),
        });
        let hosts: Vec<_> = hosts.collect();
        let open: Vec<_> = self.open.iter().map(|open| question(*open)).collect();
        let open = if open.is_empty() {
            String::new()
        } else {
            format!("; only a running proxy can tell {}", open.join(", nor "))
        };
        format!(
            "{app} would end at {:.0} and be reached as {}{open}",
            terms.ends_at,
            hosts.join(", ")
        )
    }

    pub(super) fn json(&self) -> Value {
        let terms = self.terms.as_ref().map(|terms| {
            let host = |host: &crate::registry::app::AppHost| {
                json!({ "host": host.host.to_string(), "role": host.role })
            };
            json!({
                "origin": terms.origin,
                "ends_at": terms.ends_at.to_string(),
                "hosts": terms.hosts.iter().map(host).collect::<Vec<_>>(),
            })
        });
        let open: Vec<_> = self.open.iter().map(|open| question(*open)).collect();
        json!({ "app": self.app, "terms": terms, "open": open })
    }
}

/// What is not known without others.
const fn question(open: Open) -> &'static str {
    match open {
        Open::Files => "whether its files are there",
        Open::Certificate => "whether its certificate fits",
        Open::Key => "whether its key fits",
        Open::Domain => "whether its domain leads there",
        Open::Registry => "whether project, name and hardware are free",
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    if path.is_dir() {
        let inside = path.join("mse.toml");
        return Err(format!("is a folder; name the manifest in it: {}", inside.display()));
    }
    let most = u64::try_from(MAX_TEXT).unwrap_or(u64::MAX).saturating_add(1);
    let bytes = bytes_of(path, most).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > MAX_TEXT {
        return Err(FaultKind::TooLong { most: MAX_TEXT }.to_string());
    }
    String::from_utf8(bytes).map_err(|error| {
        format!("is not UTF-8: byte {} belongs to no character", error.utf8_error().valid_up_to())
    })
}

/// At most so many bytes of a file.
fn bytes_of(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads the certificate that a manifest names. The private key is read here alone, compared with
/// the certificate, and forgotten.
fn gather(manifest: &Manifest, folder: &Path) -> Evidence {
    let mut evidence = Evidence::default();
    let Some(ssl) = &manifest.cloud.ssl else { return evidence };
    // What cannot be read is told of already.
    let read = |path: &PathBuf| {
        let path = folder.join(path);
        (look(&path) == Found::File).then(|| bytes_of(&path, MAX_PEM).ok()).flatten()
    };
    evidence.certificate = read(&ssl.certificate).map(|pem| Chain::from_pem(&pem));
    if let (Some(key), Some(Ok(chain))) = (read(&ssl.private_key), &evidence.certificate) {
        evidence.key = Some(match_key(&key, &chain.leaf));
    }
    let roots = rustls_native_certs::load_native_certs().certs;
    evidence.roots = roots.iter().map(AsRef::as_ref).collect::<Roots>();
    evidence
}

/// What DNS says of a domain. That it cannot be asked is a fact like others.
fn ask_dns(domain: &Pattern, platform: &Settings) -> DomainEvidence {
    let unanswered = |why: String| DomainEvidence {
        lookup: Lookup { aliases: vec![], end: LookupEnd::Unanswered(why.clone()) },
        proxy_addresses: vec![],
        tokens: Tokens::Unanswered(why),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unanswered(error.to_string()),
    };
    runtime.block_on(async {
        match Dns::new(&platform.resolvers) {
            Ok(dns) => probe::domain::gather(&dns, domain, &platform.proxy_name).await,
            Err(error) => unanswered(error.to_string()),
        }
    })
}

fn look(path: &Path) -> Found {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => match fs::read_dir(path) {
            Ok(_) => Found::Folder,
            Err(_) => Found::Unreadable,
        },
        // Anything else, as a pipe, could make whoever opens it wait.
        Ok(found) if found.is_file() && File::open(path).is_ok() => Found::File,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Found::Nothing,
        Ok(_) | Err(_) => Found::Unreadable,
    }
}
