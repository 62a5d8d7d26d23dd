//! Golden configuration files: `good/NAME.yaml` resolves to `NAME.expected`, `bad/NAME.yaml` has exactly those problems.
//!
//! A new case is a new file. `BLESS=1` writes what is expected, the schema and the reference; look at the difference.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use eduham_edge::config::{self, FixedEnvironment, Loaded, Options, Problems};
use proptest::prelude::*;

const GOLDEN: &str = "tests/golden/config";

/// Width to which resolved configurations are laid out.
const WIDTH: usize = 120;

/// The machine that golden files run on.
fn environment() -> FixedEnvironment {
    let variables =
        [("PORT", "8080"), ("EMPTY", ""), ("WORKERS", "3"), ("TOKEN", "a-token-of-the-environment"), ("STARS", "*")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    FixedEnvironment { variables, ..FixedEnvironment::default() }
}

fn cases(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{dir}: {error}"));
    let mut cases: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "{dir} holds no cases");
    cases
}

/// Compares with the file at `path`, or writes it when `BLESS` is set.
fn same_as_file(path: &Path, found: &str) -> Result<(), String> {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, found).unwrap();
        return Ok(());
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == found {
        Ok(())
    } else {
        Err(format!("--- {} says\n{expected}\n--- but found is\n{found}", path.display()))
    }
}

fn run(dir: &str, print: fn(Result<Loaded, Problems>) -> Result<String, String>) {
    let mut failures = String::new();
    for case in cases(dir) {
        let found = print(config::load(&case, &environment()));
        let outcome = found.and_then(|found| same_as_file(&case.with_extension("expected"), &found));
        if let Err(reason) = outcome {
            let _ = writeln!(failures, "{}: {reason}", case.display());
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn a_good_file_resolves_to_what_is_expected() {
    run(&format!("{GOLDEN}/good"), |result| match result {
        Ok(loaded) => {
            let mut out = String::new();
            layout(&format!("{:?}", loaded.config), 0, &mut out);
            out.push('\n');
            for warning in loaded.warnings {
                let _ = writeln!(out, "warning: {warning}");
            }
            Ok(out)
        }
        Err(problems) => Err(format!("expected to be good, but has {problems}")),
    });
}

#[test]
fn a_bad_file_has_exactly_the_problems_that_are_expected() {
    run(&format!("{GOLDEN}/bad"), |result| match result {
        Ok(_) => Err("expected to be bad, but it is good".to_owned()),
        Err(problems) => Ok(format!("{problems}\n")),
    });
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    let schema = format!("{:#}\n", config::schema());
    same_as_file(Path::new("config/edge.schema.json"), &schema).unwrap();
}

#[test]
fn the_committed_reference_is_the_generated_one() {
    same_as_file(Path::new("docs/configuration.md"), &config::reference_markdown()).unwrap();
}

#[test]
fn every_shipped_file_is_good() {
    for file in cases("config") {
        let options = Options { no_files: true };
        let variables = fs::read_to_string(&file).unwrap();
        // Shipped files name the variables that they need in one line of their head.
        let needed = variables.lines().find_map(|line| line.strip_prefix("# Needs: ")).unwrap_or_default();
        let variables = needed.split_whitespace().map(|name| (name.to_owned(), "a-value.test".to_owned())).collect();
        let environment = FixedEnvironment { variables, ..FixedEnvironment::default() };
        let loaded = config::load_with(&file, &environment, options).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", file.display(), loaded.warnings);
    }
}

#[test]
fn shipped_and_good_files_are_valid_by_the_schema() {
    let validator = jsonschema::draft202012::new(&config::schema()).unwrap();
    for file in [cases("config"), cases(&format!("{GOLDEN}/good"))].concat() {
        let mut value: serde_yaml::Value = serde_yaml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        value.apply_merge().unwrap();
        let json = json(value);
        let errors: Vec<_> =
            validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", file.display());
    }
}

/// YAML as JSON: keys become text.
fn json(value: serde_yaml::Value) -> serde_json::Value {
    match value {
        serde_yaml::Value::Mapping(entries) => {
            let key = |key: serde_yaml::Value| match key {
                serde_yaml::Value::String(text) => text,
                other => serde_yaml::to_string(&other).unwrap().trim().to_owned(),
            };
            entries.into_iter().map(|(name, value)| (key(name), json(value))).collect()
        }
        serde_yaml::Value::Sequence(items) => items.into_iter().map(json).collect(),
        other => serde_json::to_value(other).unwrap(),
    }
}

#[test]
fn the_schema_refuses_what_the_check_refuses_in_one_value() {
    let validator = jsonschema::draft202012::new(&config::schema()).unwrap();
    for text in [
        "{ version: 1, servr: {} }",
        "{ version: 2 }",
        "{}",
        "{ version: 1, server: { limits: { header_timeout: 10 } } }",
        "{ version: 1, server: { limits: { header_bytes: 1MB2 } } }",
        "{ version: 1, server: { reuse_port: maybe } }",
        "{ version: 1, upstreams: { a: { peers: [ 127.0.0.1:1 ], balance: random } } }",
        "{ version: 1, cache: { \"a b\": {} } }",
        "{ version: 1, routes: [ { match: {} } ] }",
    ] {
        let value = json(serde_yaml::from_str(text).unwrap());
        assert!(!validator.is_valid(&value), "{text}");
    }
}

#[test]
fn a_file_that_is_not_there_is_a_problem_of_the_whole_file() {
    let problems = config::load(Path::new("no/such/edge.yaml"), &environment()).unwrap_err();
    assert_eq!(problems.to_string(), "1 problem\nno/such/edge.yaml: the file cannot be read: no such file");
}

#[test]
fn without_files_nothing_that_is_named_is_opened() {
    let text = "
version: 1
server: { listeners: [ { address: 127.0.0.1:0, tls: { certificates: [ { cert: no.pem, key: no.key } ] } } ] }
admin: { tokens: [ { name: a, value: \"file:no.secret\", allow: [ all ] } ] }
routes: [ { name: a, respond: { file: no.html } } ]
";
    let parse = |no_files| config::parse(text, "edge.yaml", Path::new("no/such"), &environment(), Options { no_files });
    parse(true).unwrap();
    assert_eq!(parse(false).unwrap_err().0.len(), 4);
}

#[test]
fn the_hash_names_what_a_file_says_and_not_how() {
    let hash =
        |text: &str| config::parse(text, "edge.yaml", Path::new(""), &environment(), Options::default()).unwrap().hash;
    let one = hash("version: 1\nserver: { listeners: [ { address: 127.0.0.1:8080 } ] }\n");
    let same = hash("# a comment\nversion: 1\nserver:\n  listeners:\n    - address: \"127.0.0.1:${PORT}\"\n");
    let other = hash("version: 1\nserver: { listeners: [ { address: 127.0.0.1:8081 } ] }\n");
    assert_eq!(one, same);
    assert_ne!(one, other);
    assert_eq!(one.len(), 16);
}

#[test]
fn tokens_are_never_printed() {
    let text = "
version: 1
server: { listeners: [ { address: 127.0.0.1:0 } ] }
admin: { tokens: [ { name: a, value: \"${TOKEN}\", allow: [ all ] } ] }
";
    let parse = |text: &str| config::parse(text, "edge.yaml", Path::new(""), &environment(), Options::default());
    let loaded = parse(text).unwrap();
    assert_eq!(loaded.config.admin.tokens[0].value, "a-token-of-the-environment");
    assert!(!format!("{loaded:?}").contains("a-token-of"));
    let problems = parse(&text.replace("\"${TOKEN}\"", "\"s3cret\"")).unwrap_err().to_string();
    assert!(problems.contains("found a token of 6 bytes") && !problems.contains("s3cret"), "{problems}");
}

/// A change that a hand, an editor or a broken disk may make.
#[derive(Debug, Clone)]
enum Mutation {
    Byte(usize, u8),
    Cut(usize, usize),
    Repeat(usize, usize),
    Insert(usize, &'static str),
    DropLine(usize),
}

/// What means something to YAML or to the configuration.
const WORDS: &[&str] = &[
    "{", "}", "[", "]", ": ", "- ", "*a", "&a ", "<<: ", "!x ", "${", "${A}", "$$", "\"", "'", "\n", "  ", "|", "none",
    "0", "-1", "é", "\t", "#", "? ",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
        (any::<usize>(), 1..40_usize).prop_map(|(at, length)| Mutation::Cut(at, length)),
        (any::<usize>(), 1..80_usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        (any::<usize>(), proptest::sample::select(WORDS)).prop_map(|(at, word)| Mutation::Insert(at, word)),
        any::<usize>().prop_map(Mutation::DropLine),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let length = bytes.len().max(1);
    match *mutation {
        Mutation::Byte(at, byte) => {
            if let Some(there) = bytes.get_mut(at % length) {
                *there = byte;
            }
        }
        Mutation::Cut(at, count) => {
            let start = (at % length).min(bytes.len());
            bytes.drain(start..(start + count).min(bytes.len()));
        }
        Mutation::Repeat(at, count) => {
            let start = (at % length).min(bytes.len());
            let piece = bytes[start..(start + count).min(bytes.len())].to_vec();
            bytes.splice(start..start, piece);
        }
        Mutation::Insert(at, word) => {
            let start = (at % length).min(bytes.len());
            bytes.splice(start..start, word.bytes());
        }
        Mutation::DropLine(at) => {
            let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let drop = at % lines.len().max(1);
            *bytes =
                lines.into_iter().enumerate().filter(|(index, _)| *index != drop).flat_map(|(_, line)| line).collect();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_broken_file_is_refused_or_read_and_never_panics(
        case in 0..64_usize,
        mutations in proptest::collection::vec(mutation(), 1..6),
    ) {
        let cases = [cases("config"), cases(&format!("{GOLDEN}/good"))].concat();
        let mut bytes = fs::read(&cases[case % cases.len()]).unwrap();
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        let text = String::from_utf8_lossy(&bytes);
        let base = PathBuf::from(format!("{GOLDEN}/good"));
        if let Err(problems) = config::parse(&text, "edge.yaml", &base, &environment(), Options { no_files: true }) {
            prop_assert!(!problems.0.is_empty());
            prop_assert!(problems.0.iter().all(|problem| !problem.message.is_empty()));
        }
    }
}

/// Lays out the one-line `Debug` form: what does not fit into a line is broken at its brackets.
fn layout(text: &str, indent: usize, out: &mut String) {
    let open = position(text, |depth, byte| depth == 1 && matches!(byte, b'{' | b'[' | b'('));
    let (Some(open), true) = (open, indent + text.len() > WIDTH) else {
        out.push_str(text);
        return;
    };
    let Some(close) = position(&text[open..], |depth, byte| depth == 0 && matches!(byte, b'}' | b']' | b')')) else {
        out.push_str(text);
        return;
    };
    let (before, inner, after) = (&text[..=open], &text[open + 1..open + close], &text[open + close..]);
    let _ = writeln!(out, "{before}");
    let mut rest = inner;
    while !rest.trim().is_empty() {
        let end = position(rest, |depth, byte| depth == 0 && byte == b',').unwrap_or(rest.len());
        let _ = write!(out, "{:1$}", "", indent + 4);
        layout(rest[..end].trim(), indent + 4, out);
        out.push_str(",\n");
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    let _ = write!(out, "{:1$}{after}", "", indent);
}

/// The first byte outside of quotes that `wanted` takes; an opening bracket counts into its own depth.
fn position(text: &str, wanted: impl Fn(usize, u8) -> bool) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !quoted && !escaped && wanted(depth, byte) {
            return Some(index);
        }
    }
    None
}
