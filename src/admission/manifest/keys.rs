//! The keys of a manifest, and where they stood in older ones.

/// A key of a manifest.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// The table in which it stands; empty at the top.
    pub section: &'static str,
    /// The key itself.
    pub word: &'static str,
    /// A value that it takes, as TOML.
    pub example: &'static str,
    /// Whether every manifest needs it; a key of `cloud.ssl` only where there is that table.
    pub is_required: bool,
}

const fn required(section: &'static str, word: &'static str, example: &'static str) -> Key {
    Key { section, word, example, is_required: true }
}

const fn optional(section: &'static str, word: &'static str, example: &'static str) -> Key {
    Key { section, word, example, is_required: false }
}

pub(super) static NAME: Key = required("", "name", "\"my-app\"");
pub(super) static PYTHON_APPLICATION: Key = required("", "python_application", "\"app:app\"");
pub(super) static HEALTHCHECK_ENDPOINT: Key = required("", "healthcheck_endpoint", "\"/health\"");
pub(super) static TESTS_CMD: Key = required("", "tests_cmd", "\"pytest\"");
pub(super) static TESTS_REQUIREMENTS: Key =
    required("", "tests_requirements", "[\"pytest==7.2.0\"]");
pub(super) static CODE: Key = required("cloud", "code", "\"my_project/code\"");
pub(super) static TESTS: Key = required("cloud", "tests", "\"my_project/tests\"");
pub(super) static DOCKER: Key = required("cloud", "docker", "\"registry.example/image:20230710\"");
pub(super) static PROJECT: Key = required("cloud", "project", "\"default\"");
pub(super) static HARDWARE: Key = required("cloud", "hardware", "\"4g-eu-001\"");
pub(super) static EXPIRATION_DATE: Key =
    optional("cloud", "expiration_date", "\"2030-06-29 18:00:00+00:00\"");
pub(super) static SECRETS: Key = optional("cloud", "secrets", "\"secrets.json\"");
pub(super) static DOMAIN_NAME: Key = required("cloud.ssl", "domain_name", "\"app.example.com\"");
pub(super) static PRIVATE_KEY: Key = required("cloud.ssl", "private_key", "\"key.pem\"");
pub(super) static CERTIFICATE: Key = required("cloud.ssl", "certificate", "\"fullchain.pem\"");

/// All keys, in the order in which they are explained.
pub(super) static KEYS: [&Key; 15] = [
    &NAME,
    &PYTHON_APPLICATION,
    &HEALTHCHECK_ENDPOINT,
    &TESTS_CMD,
    &TESTS_REQUIREMENTS,
    &CODE,
    &TESTS,
    &DOCKER,
    &PROJECT,
    &HARDWARE,
    &EXPIRATION_DATE,
    &SECRETS,
    &DOMAIN_NAME,
    &PRIVATE_KEY,
    &CERTIFICATE,
];

/// Words of older manifests for what has another name now.
const OLD_WORDS: [(&str, &Key); 3] =
    [("location", &CODE), ("resource", &HARDWARE), ("plan", &HARDWARE)];

/// The keys of a section.
pub(super) fn of_section(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.into_iter().filter(move |key| key.section == section)
}

/// What a word in the wrong place means, by its older name or in another section.
pub(super) fn meant(word: &str) -> Option<&'static Key> {
    let old = OLD_WORDS.into_iter().find(|(old, _)| *old == word).map(|(_, key)| key);
    old.or_else(|| KEYS.into_iter().find(|key| key.word == word))
}
