//! Manifests as people write them: what is read, what is refused, and in which words.

use mse_proxy::admission::manifest::{Manifest, Warning};

use crate::support::{GOOD, at, edited, reading, told};

#[test]
fn every_key_is_read() {
    let reading = reading(&edited(&[]));
    assert_eq!(told(&reading), Vec::<String>::new());
    let Manifest {
        name,
        python_application,
        healthcheck_endpoint,
        tests_cmd,
        tests_requirements,
        cloud,
    } = reading.manifest.unwrap();
    assert_eq!(
        (name.as_str(), &*python_application, &*healthcheck_endpoint, &*tests_cmd),
        ("test", "app:app", "/", "pytest")
    );
    assert_eq!(tests_requirements, ["pytest==7.2.0"]);
    assert_eq!(cloud.code.to_str(), Some("my_project/code"));
    assert_eq!(cloud.tests.to_str(), Some("my_project/tests"));
    assert_eq!(cloud.docker.to_string(), "registry.example/image:20230710");
    assert_eq!((cloud.project.as_str(), cloud.hardware.as_str()), ("default", "4g-eu-001"));
    assert_eq!(cloud.expiration_date, Some(at("2026-06-29T00:00:00Z")));
    assert_eq!(cloud.secrets.unwrap().to_str(), Some("secrets.json"));
    let ssl = cloud.ssl.unwrap();
    assert_eq!(ssl.domain_name.to_string(), "app.example.com");
    assert_eq!(ssl.private_key.to_str(), Some("key.pem"));
    assert_eq!(ssl.certificate.to_str(), Some("fullchain.pem"));
    assert_eq!(reading.places["docker"].origin.to_string(), "mse.toml:9:10");
    assert_eq!(reading.places.len(), GOOD.len() - 2, "each key has its place");
}

/// Edits of the good manifest, and what is told of it: `+` begins what is only odd, after which
/// there is a manifest all the same.
const CASES: &[(&[&str], &[&str])] = &[
    // Names.
    (&["name = \"  padded  \""], &[]),
    (&["name = \"\""], &["1:8 `name`: it is empty; write 1 to 255 printable characters"]),
    (&["name = \"   \""], &["1:8 `name`: it is empty"]),
    (&["name = \"a\\nb\""], &["1:8 `name`: it has a character that cannot be printed"]),
    (
        &["name = 5"],
        &["1:8 `name` must be a text in quotes, not a number; write name = \"my-app\""],
    ),
    (&["project = \"\""], &["10:11 `project`: it is empty"]),
    (
        &["hardware = \"seventeen-letters\""],
        &["11:12 `hardware`: it has 17 characters, 16 are allowed; write 1 to 16"],
    ),
    (&["hardware = [\"4g-eu-001\"]"], &["11:12 `hardware` must be a text in quotes, not a list"]),
    // What runs, and what is asked.
    (&["python_application = \"pkg.main:app\""], &[]),
    (
        &["python_application = \"app\""],
        &["2:22 `app` is not module:variable; write \"app:app\" for `app` in app.py"],
    ),
    (&["python_application = \"app:\""], &["2:22 `app:` is not module:variable"]),
    (&["python_application = \"app.py:app()\""], &["2:22 `app.py:app()` is not module:variable"]),
    (&["python_application = \"a:b:c\""], &["2:22 `a:b:c` is not module:variable"]),
    (&["healthcheck_endpoint = \"/api/v1/health\""], &[]),
    (
        &["healthcheck_endpoint = \"health\""],
        &["3:24 `health` does not begin with \"/\"; write the path of a GET without parameters"],
    ),
    (&["healthcheck_endpoint = \"\""], &["3:24 `healthcheck_endpoint` is empty; write"]),
    (&["healthcheck_endpoint = \"/h?full=1\""], &["3:24 `/h?full=1` has parameters"]),
    (&["healthcheck_endpoint = \"/items/{id}\""], &["3:24 `/items/{id}` has parameters"]),
    (&["healthcheck_endpoint = \"/a b\""], &["3:24 `/a b` has characters that no path has"]),
    (&["tests_cmd = \"\""], &["4:13 `tests_cmd` is empty; write tests_cmd = \"pytest\""]),
    (&["tests_requirements = []"], &[]),
    (
        &["tests_requirements = \"pytest\""],
        &["5:22 `tests_requirements` must be a list of texts in quotes, not a text; write"],
    ),
    (
        &["tests_requirements = [\"a\", 1, true]"],
        &[
            "5:28 `tests_requirements` must be a list of texts in quotes, not a number",
            "5:31 `tests_requirements` must be a list of texts in quotes, not true or false",
        ],
    ),
    // Paths.
    (&["code = \"\""], &["7:8 `code` is empty; write code = \"my_project/code\""]),
    (&["secrets = 1"], &["13:11 `secrets` must be a text in quotes, not a number"]),
    (
        &["private_key = \"/etc/key.pem\""],
        &["+16:15 `private_key` is an absolute path; one relative to this file works on other"],
    ),
    (&["-secrets"], &[]),
    // Images.
    (
        &["docker = \"https://registry.example/image:1\""],
        &["9:10 `https://registry.example/image:1` is not an image: a scheme (`https://`) does"],
    ),
    (
        &["docker = \"registry.example/Image:1\""],
        &["9:10 `registry.example/Image:1` is not an image"],
    ),
    // Domains.
    (&["domain_name = \"*.example.com\""], &[]),
    (&["domain_name = \"bücher.example\""], &[]),
    (
        &["domain_name = \"**.example.com\""],
        &["15:15 a certificate covers one label at most: write \"*.example.com\", or one name"],
    ),
    (
        &["domain_name = \"https://app.example.com\""],
        &["15:15 `https://app.example.com` is not a domain: `:` at offset 5 is not allowed"],
    ),
    (&["domain_name = \"192.0.2.1\""], &["15:15 `192.0.2.1` is not a domain: an IP address"]),
    (
        &["-private_key", "-certificate"],
        &[
            "14:8 `private_key` is missing; write private_key = \"key.pem\" under [cloud.ssl]",
            "14:8 `certificate` is missing; write certificate = \"fullchain.pem\" under [cloud.ssl]",
        ],
    ),
    // What is missing or too much.
    (
        &["-name", "-tests_cmd", "-docker"],
        &[
            "1:1 `name` is missing; write name = \"my-app\" above the first section",
            "1:1 `tests_cmd` is missing",
            "4:2 `docker` is missing; write docker = \"registry.example/image:20230710\" under [cloud]",
        ],
    ),
    (
        &["color = 1"],
        &[
            "+18:1 `cloud.ssl.color` is not known and does nothing; allowed: domain_name, private_key, certificate",
        ],
    ),
    (
        &["-code", "cod = \"x\""],
        &[
            "6:2 `code` is missing; write code = \"my_project/code\" under [cloud]",
            "+17:1 `cloud.ssl.cod` is not known",
        ],
    ),
    (
        &["[logs]"],
        &["+18:2 `logs` is not known and does nothing; allowed: name, python_application"],
    ),
    // The nearest key of the same section.
    (
        &["name = \"test\"\nnmae = 1\ntest_cmd = 1"],
        &[
            "+2:1 `nmae` is not known and does nothing; did you mean `name`?",
            "+3:1 `test_cmd` is not known and does nothing; did you mean `tests_cmd`?",
        ],
    ),
    (
        &["project = \"default\"\nhradware = 1"],
        &["+11:1 `cloud.hradware` is not known and does nothing; did you mean `hardware`?"],
    ),
    (
        &["domain_name = \"a.test\"\ndomian_name = 1"],
        &[
            "+16:1 `cloud.ssl.domian_name` is not known and does nothing; did you mean `domain_name`?",
        ],
    ),
    (&["-name", "nmae = \"x\""], &["1:1 `name` is missing", "+17:1 `cloud.ssl.nmae` is not known"]),
    // No TOML.
    (&["name = demo"], &["1:8 the value of `name` is no TOML: string values must be quoted"]),
    (
        &["name = demo", "project = 1", "-docker"],
        &[
            "1:8 the value of `name` is no TOML",
            "6:2 `docker` is missing",
            "9:11 `project` must be a text in quotes",
        ],
    ),
    (
        &["[logs]\nlevel = high\n"],
        &["19:9 this is no TOML: string values must be quoted", "+18:2 `logs` is not known"],
    ),
    (&["name = \"a\"\nname = \"b\""], &["2:1 this is no TOML: duplicate key"]),
    (&["[clud"], &["18:6 this is no TOML: unclosed table"]),
];

#[test]
fn each_manifest_is_told_its_faults_at_their_places() {
    for (edits, expected) in CASES {
        judge(&edited(edits), expected);
    }
}

/// What is told of a text must be exactly what is expected, and there is a manifest unless
/// something is wrong.
fn judge(text: &str, expected: &[&str]) {
    let reading = reading(text);
    let told = told(&reading);
    assert_eq!(told.len(), expected.len(), "{text}\n{told:#?}");
    for expected in expected {
        let start = match expected.strip_prefix('+') {
            Some(odd) => format!("warning mse.toml:{odd}"),
            None => format!("mse.toml:{expected}"),
        };
        assert!(told.iter().any(|told| told.starts_with(&start)), "{text}\n{start}\n{told:#?}");
    }
    let is_wrong = expected.iter().any(|expected| !expected.starts_with('+'));
    assert_eq!(reading.manifest.is_none(), is_wrong, "{text}");
}

/// What may stand behind `expiration_date = `, and the instant that it means.
const DATES: &[(&str, &str)] = &[
    ("\"2026-06-29T00:00:00Z\"", "2026-06-29T00:00:00Z"),
    ("\"2026-06-29 00:00:00Z\"", "2026-06-29T00:00:00Z"),
    ("\"2026-06-29 00:00:00+00:00\"", "2026-06-29T00:00:00Z"),
    ("\"2026-06-29 00:00:00+0000\"", "2026-06-29T00:00:00Z"),
    ("\"2026-06-29T02:00:00+0200\"", "2026-06-29T00:00:00Z"),
    ("\"2026-06-28T18:30:00-05:30\"", "2026-06-29T00:00:00Z"),
    ("\"2026-06-29T00:00:00.25Z\"", "2026-06-29T00:00:00.25Z"),
    ("\"2026-06-29 00:00:00.123456+0000\"", "2026-06-29T00:00:00.123456Z"),
    ("\" 2026-06-29T00:00:00Z \"", "2026-06-29T00:00:00Z"),
    ("2026-06-29T00:00:00Z", "2026-06-29T00:00:00Z"),
    ("2026-06-29 02:00:00+02:00", "2026-06-29T00:00:00Z"),
    ("1782691200", "2026-06-29T00:00:00Z"),
    ("1782691200.5", "2026-06-29T00:00:00.5Z"),
    ("1782691200000", "2026-06-29T00:00:00Z"),
    ("1782691200250.0", "2026-06-29T00:00:00.25Z"),
    ("1_782_691_200", "2026-06-29T00:00:00Z"),
    ("2026-06-01T12:00:00.000000001Z", "2026-06-01T12:00:00.000000001Z"),
    ("\"9999-12-31T23:59:59Z\"", "9999-12-30T22:00:00.999999999Z"),
];

/// The same, taken for UTC and warned of.
const LOCAL_DATES: &[(&str, &str)] = &[
    ("\"2026-06-29T00:00:00\"", "2026-06-29T00:00:00Z"),
    ("\"2026-06-29 00:00:00.5\"", "2026-06-29T00:00:00.5Z"),
    ("2026-06-29T00:00:00", "2026-06-29T00:00:00Z"),
];

const EXAMPLE: &str = "write it as \"2030-06-29 18:00:00+00:00\"";

/// What is refused, and why.
const NO_DATES: &[(&str, &str)] = &[
    ("\"2026-06-29\"", "the time of day is missing"),
    ("2026-06-29", "the time of day is missing"),
    ("\"18:00:00\"", "the date is missing"),
    ("18:00:00", "the date is missing"),
    ("\"26-06-29T00:00:00Z\"", "the year needs four digits"),
    ("\"26-06-29 00:00:00+00:00\"", "the year needs four digits"),
    ("\"2026-06-29 00:00:00 UTC\"", "the word `UTC` is not understood"),
    ("\"2026-06-29 00:00:00 +0200 CEST\"", "the word `CEST` is not understood"),
    ("\"tomorrow\"", "the word `tomorrow` is not understood"),
    ("\"29 June 2026\"", "the word `June` is not understood"),
    ("\"\"", "it is empty; leave the key out"),
    ("\"  \"", "it is empty"),
    ("\"1782691200\"", "a number in quotes may be a date or Unix time"),
    ("\"2026-13-29T00:00:00Z\"", "this is no date with a time of day"),
    ("\"2026-02-30T00:00:00Z\"", "this is no date with a time of day"),
    ("\"2026/06/29 00:00:00Z\"", "this is no date with a time of day"),
    ("\"2026-06-29T00:00:00 Z\"", "this is no date with a time of day"),
    ("true", "it must be a date, not true or false"),
    ("false", "it must be a date, not true or false"),
    ("[]", "it must be a date, not a list"),
    ("nan", "this number is no Unix time"),
    ("inf", "this number is no Unix time"),
    ("9223372036854775807", "this number is no Unix time"),
    ("1e300", "this number is no Unix time"),
];

/// What is over.
const PAST_DATES: [&str; 7] = [
    "\"2026-06-01T12:00:00Z\"",
    "2026-06-01T12:00:00Z",
    "\"2023-06-29 00:00:00+00:00\"",
    "\"2026-06-01T13:59:00+02:00\"",
    "0",
    "-1.5",
    "20260629",
];

#[test]
fn an_end_date_means_one_instant_or_is_refused_with_an_example() {
    let read = |value: &str| reading(&edited(&[&format!("expiration_date = {value}")]));
    for (dates, is_odd) in [(DATES, false), (LOCAL_DATES, true)] {
        for (value, instant) in dates {
            let reading = read(value);
            assert!(reading.faults.is_empty(), "{value}: {:?}", told(&reading));
            let found = reading.manifest.unwrap().cloud.expiration_date;
            assert_eq!(found, Some(at(instant)), "{value}");
            let words = |warning: &Warning| warning.kind.to_string();
            let warnings: Vec<_> = reading.warnings.iter().map(words).collect();
            assert_eq!(warnings.len(), usize::from(is_odd), "{value}: {warnings:?}");
            assert!(warnings.iter().all(|words| words.contains("taken for UTC")), "{warnings:?}");
        }
    }
    for (value, words) in NO_DATES {
        let told = told(&read(value));
        assert_eq!(told.len(), 1, "{value}: {told:?}");
        let start = format!("mse.toml:12:19 `expiration_date`: {words}");
        assert!(told[0].starts_with(&start), "{value}: {told:?}");
        assert!(told[0].contains(EXAMPLE), "{value}: {told:?}");
    }
    for value in PAST_DATES {
        let told = told(&read(value));
        assert_eq!(told.len(), 1, "{value}: {told:?}");
        assert!(told[0].contains("is not after now (2026-06-01T12:00:00Z)"), "{value}: {told:?}");
    }
    assert_eq!(
        reading(&edited(&["-expiration_date"])).manifest.unwrap().cloud.expiration_date,
        None
    );
}

#[test]
fn the_certificate_may_stand_where_it_used_to() {
    let top = edited(&[]).replace("[cloud.ssl]", "[ssl]");
    let reading = reading(&top);
    assert_eq!(
        told(&reading),
        ["warning mse.toml:14:2 [ssl] is taken for [cloud.ssl]; write [cloud.ssl], which every \
             tool understands"]
    );
    let ssl = reading.manifest.unwrap().cloud.ssl.unwrap();
    assert_eq!(ssl.domain_name.to_string(), "app.example.com");
    let both = edited(&[]) + "[ssl]\ndomain_name = \"other.example.com\"\n";
    judge(
        &both,
        &["18:2 [ssl] and [cloud.ssl] are both there, and mean the same; keep [cloud.ssl]"],
    );
    judge(&edited(&[]).replace("[cloud.ssl]", "[ssl_]"), &["+14:2 `ssl_` is not known"]);
    let no_section = "name = \"a\"\ncloud = 5\nssl = 1\n";
    assert!(
        told(&self::reading(no_section)).iter().any(|told| {
            told == "mse.toml:2:1 `cloud` is a section; write its keys under [cloud]"
        })
    );
}

#[test]
fn older_layouts_are_shown_their_new_form() {
    let old = "name = \"test\"\nversion = \"0.1.0\"\nproject = \"default\"\nresource = \"4g-eu-001\"\n\
               tests_cmd = \"pytest\"\ntests_requirements = []\n\
               [code]\nlocation = \"./code\"\npython_application = \"app:app\"\n\
               healthcheck_endpoint = \"/\"\ndocker = \"r.example/i:1\"\n";
    judge(
        old,
        &[
            "1:1 `tests` is missing; write tests = \"my_project/tests\" under [cloud]",
            "+2:1 `version` is not known and does nothing",
            "3:1 `project` stands where older manifests had it; write project = \"default\" under [cloud]",
            "4:1 `resource` stands where older manifests had it; write hardware = \"4g-eu-001\" under [cloud]",
            "8:1 `code.location` stands where older manifests had it; write code = \"./code\" under [cloud]",
            "9:1 `code.python_application` stands where older manifests had it; write \
             python_application = \"app:app\" above the first section",
            "10:1 `code.healthcheck_endpoint` stands",
            "11:1 `code.docker` stands where older manifests had it; write docker = \"r.example/i:1\" under [cloud]",
        ],
    );
    let top = "hardware = \"4g-eu-001\"\n".to_owned() + &edited(&["-hardware"]);
    judge(
        &top,
        &[
            "1:1 `hardware` stands where older manifests had it; write hardware = \"4g-eu-001\" under [cloud]",
        ],
    );
    let end =
        "expiration_date = 2026-06-29T00:00:00Z\n".to_owned() + &edited(&["-expiration_date"]);
    judge(
        &end,
        &[
            "1:1 `expiration_date` stands where older manifests had it; write expiration_date = 2026",
        ],
    );
    let twice = "project = \"default\"\n".to_owned() + &edited(&[]);
    judge(&twice, &["+1:1 `project` does nothing here: it is given under [cloud]"]);
    // A key of the top that slipped below a section.
    let below = edited(&["-tests_cmd"]).replace("[cloud]", "[cloud]\ntests_cmd = \"pytest\"");
    judge(
        &below,
        &[
            "6:1 `cloud.tests_cmd` stands where older manifests had it; write tests_cmd = \"pytest\" above",
        ],
    );
    let top_code = "code = \"x\"\n".to_owned() + &edited(&["-code"]);
    judge(
        &top_code,
        &["1:1 `code` stands where older manifests had it; write code = \"x\" under [cloud]"],
    );
}

#[test]
fn what_is_no_manifest_at_all_is_told_in_a_few_words() {
    judge(
        "",
        &[
            "1:1 the section [cloud] is missing; it holds code, tests, docker, project and hardware",
            "1:1 `name` is missing",
            "1:1 `python_application` is missing",
            "1:1 `healthcheck_endpoint` is missing",
            "1:1 `tests_cmd` is missing",
            "1:1 `tests_requirements` is missing",
        ],
    );
    let long = "#".repeat(256 * 1024 + 1);
    judge(&long, &["1:1 the text has more than 262144 bytes"]);
    let escape = told(&reading(&edited(&["python_application = \"\\u001b[31mred\""])));
    assert!(escape[0].contains("`\\u{1b}[31mred` is not module:variable"), "{escape:?}");
}
