//! House rules that clippy cannot express, each with its reason; ARCHITECTURE.md names this file as the guard of its invariants.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Lines at which a file is looked at for a seam.
const LINES_MAX: usize = 600;

/// Files longer than that, and why they are one thing.
const LONG: &[(&str, &str)] = &[];

/// Which rooms of the edge a room may know, and what for. What is not listed is refused; what is listed and no longer
/// there is to be struck out.
const EDGES: &[(&str, &[(&str, &str)])] = &[
    ("cache", &[]),
    ("wire", &[]),
    ("clock", &[]),
    ("redis", &[("telemetry", "it counts")]),
    ("fleet", &[("redis", "the purge log lies there"), ("telemetry", "it counts")]),
    ("telemetry", &[]),
    (
        "store",
        &[
            ("cache", "what it stores: keys, heads, what Vary selects by"),
            ("telemetry", "it counts"),
            ("wire", "the head of a hit lies ready beside what it is made from"),
        ],
    ),
    ("upstream", &[("telemetry", "it counts"), ("wire", "answers to health checks are read like any other")]),
    (
        "proxy",
        &[
            ("cache", "every decision about storing and reusing"),
            ("clock", "the one place that asks for the time"),
            ("config", "a snapshot holds the configuration that it was made of"),
            ("fleet", "what is purged here is told to the others, and a node that is cut off asks"),
            ("store", "stored responses and fills"),
            ("telemetry", "it records and counts"),
            ("upstream", "peers and connections"),
            ("wire", "heads and bodies"),
        ],
    ),
    (
        "explain",
        &[
            ("cache", "it asks the law what an exchange asks it"),
            ("config", "places of keys"),
            ("front", "the listener that a URL leads to"),
            ("proxy", "the steps of an exchange and their decisions"),
            ("store", "what is stored"),
            ("wire", "requests and responses are read like any other"),
        ],
    ),
    ("front", &[("proxy", "each request becomes an exchange"), ("wire", "heads and bodies")]),
    (
        "config",
        &[
            ("admin", "makes its Config"),
            ("cache", "makes its Policy"),
            ("fleet", "makes its Config"),
            ("front", "makes its Config"),
            ("proxy", "makes its Routing"),
            ("redis", "makes its Config, and checks URLs"),
            ("store", "makes its Config"),
            ("telemetry", "makes its Config"),
            ("upstream", "makes its Config"),
        ],
    ),
    (
        "admin",
        &[
            ("config", "reads a duration as operators write it"),
            ("front", "its address is of the same type as a listener's"),
            ("telemetry", "prints the metrics"),
        ],
    ),
    (
        "cli",
        &[
            ("app", "starts it"),
            ("clock", "gives it the system's"),
            ("config", "reads the file"),
            ("explain", "explains a request"),
            ("proxy", "a router to explain by"),
            ("telemetry", "starts the diagnostics"),
        ],
    ),
    (
        "app",
        &[
            ("admin", "assembly"),
            ("clock", "assembly"),
            ("config", "assembly"),
            ("explain", "assembly"),
            ("fleet", "assembly"),
            ("front", "assembly"),
            ("proxy", "assembly"),
            ("store", "assembly"),
            ("telemetry", "assembly"),
            ("upstream", "assembly"),
        ],
    ),
];

/// Crates of the edge that only some files may name, and why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("serde_yaml", &["src/config/file.rs"], "YAML ends at the door"),
    ("saphyr_parser", &["src/config/file.rs"], "YAML ends at the door"),
    ("brotli", &["src/proxy/encode.rs"], "it takes a processor for a while: one place, off the workers"),
    ("flate2", &["src/proxy/encode.rs"], "as brotli"),
    ("zstd", &["src/proxy/encode.rs"], "as brotli"),
    (
        "h2",
        &["src/front/h2.rs", "src/front/mod.rs"],
        "one HTTP/2 loop, and the room that has a module of the same name",
    ),
    ("hyper", &["src/admin/server.rs", "src/cli/control.rs"], "the control listener alone; traffic is read by wire"),
    (
        "hyper_util",
        &["src/admin/server.rs", "src/cli/control.rs"],
        "the control listener alone; traffic is read by wire",
    ),
    ("httparse", &[], "there is one parser of HTTP/1.1: wire"),
    (
        "redis",
        &["src/redis/command.rs", "src/redis/connection.rs", "src/redis/mod.rs", "src/redis/owner.rs"],
        "one owner of connections, with deadlines and a breaker",
    ),
    ("moka", &["src/store/memory.rs", "src/store/mod.rs"], "who else keeps things has another tier"),
    (
        "x509_parser",
        &["src/front/tls.rs", "src/upstream/target.rs"],
        "certificates are looked into when they are loaded",
    ),
];

/// What the law may import.
const LAW_CRATES: &[&str] = &["http", "bytes", "httpdate", "sfv", "xxhash_rust", "strum"];
/// What the law may not touch of std.
const NOT_FOR_THE_LAW: &[&str] = &[
    "std::fs",
    "std::env",
    "std::io",
    "std::net",
    "std::process",
    "Mutex",
    "Atomic",
    "OnceLock",
    "std::thread",
    "Instant",
    "fs::",
    "env::",
];

/// Sleeps in test code, and what they wait for that cannot be waited for otherwise.
const SLEEPS: &[(&str, &str)] = &[
    ("collab/src/session.rs", "the clock is paused: it moves it"),
    ("collab/tests/process_node_clients.rs", "another process begins to answer, and has saved"),
    ("platform/src/testing.rs", "another process, PostgreSQL, begins to answer"),
    ("tests/edge/cold_object.rs", "an origin and readers of a given speed, in make soak only"),
    ("tests/edge/history.rs", "a link to Redis is slow"),
    ("tests/edge/http1.rs", "a client drips bytes until its deadline is over"),
    ("tests/edge/http2.rs", "a connection idles for its time, and streams are begun before they are given up"),
    ("tests/edge/sockets.rs", "a socket that talks outlives its idle time"),
    ("tests/process_disk.rs", "a process lives for a while before it is killed"),
    ("tests/support/process.rs", "another process begins to answer, and ends"),
];

/// Folders without files of ours.
const NOT_OURS: &[&str] = &[".git", "target", "node_modules", "var", "__pycache__", "corpus"];

/// A file of the project: its path from the root, with `/`, and its text.
struct File {
    path: String,
    text: String,
}

impl File {
    /// The text without line comments. What follows `//` in a string goes too; nothing here looks for that.
    fn code(&self) -> String {
        self.text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }

    /// The room of the edge that it belongs to: `src/ROOM/..` or `src/ROOM.rs`.
    fn room(&self) -> Option<&str> {
        let room = self.path.strip_prefix("src/")?.split('/').next()?;
        let room = room.strip_suffix(".rs").unwrap_or(room);
        (!matches!(room, "lib" | "main")).then_some(room)
    }

    /// What is compiled only for tests: all of `tests/`, and what follows `#[cfg(test)]`.
    fn test_code(&self) -> &str {
        if self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path == "platform/src/testing.rs" {
            return &self.text;
        }
        self.text.find("#[cfg(test)]\nmod ").map_or("", |at| &self.text[at..])
    }

    /// The opposite.
    fn product_code(&self) -> &str {
        &self.text[..self.text.len() - self.test_code().len()]
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files that are text.
fn files() -> Vec<File> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project").map(|entry| entry.expect("an entry")) {
            let kind = entry.file_type().expect("a kind");
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() && !NOT_OURS.contains(&&*name) {
                folders.push(entry.path());
            } else if kind.is_file()
                && name != ".git"
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                found.push(File { path: relative(&entry.path()), text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn rust_files() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).map(PathBuf::from).unwrap_or_default().to_string_lossy().replace('\\', "/")
}

#[track_caller]
fn none(violations: &[String], rule: &str) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Does `code` name the crate: as the beginning of a path, or in `use`?
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        !before.is_some_and(|before| is_word(before) || before == ':' || before == '.')
            && (after.starts_with("::") || code[..at].ends_with("use ") && after.starts_with(';'))
    })
}

/// The rooms that `code` names after `crate::`.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, matched) in code.match_indices("crate::") {
        if code[..at].ends_with(|before: char| is_word(before) || before == '$') {
            continue;
        }
        let rest = &code[at + matched.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(rest.chars().take_while(|next| is_word(*next)).collect());
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for next in list.chars() {
            match next {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.insert(std::mem::take(&mut item));
                    continue;
                }
                _ => {}
            }
            item.push(next);
        }
        found.insert(item);
    }
    let head = |item: &String| item.trim().chars().take_while(|next| is_word(*next)).collect::<String>();
    found.iter().map(head).filter(|name| !name.is_empty()).collect()
}

/// The names in a section of a manifest, as code writes them.
fn dependencies(manifest: &str, section: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['=', '.', ' ']).next().filter(|name| !name.is_empty() && !name.starts_with('#')))
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn manifest(member: &str) -> String {
    fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a manifest")
}

#[test]
fn every_file_says_its_job_in_its_first_line() {
    let silent = rust_files().into_iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path);
    none(&silent.collect::<Vec<_>>(), "these files do not begin with `//!` and their one job");
}

#[test]
fn a_long_file_has_a_reason() {
    let (mut long, mut excused) = (Vec::new(), BTreeSet::new());
    for file in rust_files() {
        let lines = file.text.lines().count();
        match LONG.iter().find(|(path, _)| *path == file.path) {
            Some(_) if lines > LINES_MAX => _ = excused.insert(file.path),
            None if lines > LINES_MAX => long.push(format!("{}: {lines} lines", file.path)),
            _ => {}
        }
    }
    none(&long, "look for the seam, or say in LONG why there is none");
    let spare = LONG.iter().filter(|(path, _)| !excused.contains(*path)).map(|(path, _)| (*path).to_owned());
    none(&spare.collect::<Vec<_>>(), "not long any more: strike them out of LONG");
}

#[test]
fn rooms_know_only_the_rooms_that_they_may() {
    let mut seen = BTreeSet::new();
    let mut refused = Vec::new();
    for file in rust_files() {
        let Some(room) = file.room() else { continue };
        let Some((_, known)) = EDGES.iter().find(|(name, _)| *name == room) else {
            refused.push(format!("{}: the room `{room}` is not in EDGES", file.path));
            continue;
        };
        for other in rooms_named(&file.code()) {
            if known.iter().any(|(name, _)| *name == other) {
                seen.insert((room.to_owned(), other));
            } else if other != room {
                refused.push(format!("{}: {room} knows {other}", file.path));
            }
        }
    }
    none(&refused, "dependencies point inward; say in EDGES what it is for if it must be");
    let spare = EDGES.iter().flat_map(|(room, known)| known.iter().map(move |(other, _)| (*room, *other)));
    let spare = spare.filter(|(room, other)| !seen.contains(&((*room).to_owned(), (*other).to_owned())));
    none(
        &spare.map(|(room, other)| format!("{room} -> {other}")).collect::<Vec<_>>(),
        "gone: strike them out of EDGES",
    );
}

#[test]
fn the_law_is_pure() {
    let crates = dependencies(&manifest("."), "dependencies");
    assert!(crates.len() > 10, "the manifest is read");
    let mut impure = Vec::new();
    for file in rust_files().iter().filter(|file| file.room() == Some("cache")) {
        let code = file.code();
        let foreign = crates.iter().filter(|name| !LAW_CRATES.contains(&name.as_str()) && names_crate(&code, name));
        impure.extend(foreign.map(|name| format!("{}: the crate {name}", file.path)));
        let of_std = NOT_FOR_THE_LAW.iter().filter(|name| code.contains(**name));
        impure.extend(of_std.map(|name| format!("{}: {name}", file.path)));
    }
    none(&impure, "cache decides from its arguments alone");
}

#[test]
fn only_the_clocks_read_the_time() {
    let of_day = concat!("SystemTime::", "now");
    let mut readers = Vec::new();
    for file in rust_files() {
        let code = file.code();
        if code.contains(of_day) {
            readers.push(file.path);
        }
    }
    assert_eq!(readers, ["platform/src/clock.rs", "src/clock.rs"], "time is an argument; only these two ask for it");
}

#[test]
fn some_crates_have_one_place() {
    let mut astray = Vec::new();
    for file in rust_files().iter().filter(|file| file.path.starts_with("src/")) {
        let code = file.code();
        for (name, places, reason) in ONLY_IN {
            if names_crate(&code, name) && !places.contains(&&*file.path) {
                astray.push(format!("{}: {name} ({reason})", file.path));
            }
        }
    }
    for file in rust_files().iter().filter(|file| file.path.starts_with("collab/src/")) {
        if names_crate(file.product_code(), "yrs") && file.path != "collab/src/document.rs" {
            astray.push(format!("{}: yrs (bytes from outside are checked before it sees them)", file.path));
        }
    }
    none(&astray, "these crates are used in one place");
}

#[test]
fn edge_and_backends_share_no_code() {
    let mut shared = Vec::new();
    for (member, allowed) in
        [(".", None), ("platform", None), ("learning", Some("platform")), ("collab", Some("platform"))]
    {
        for line in manifest(member).lines().filter(|line| line.contains("path =") && !line.starts_with('[')) {
            let ours = allowed.is_some_and(|allowed| line.contains(&format!("path = \"../{allowed}\"")));
            if !ours {
                shared.push(format!("{member}/Cargo.toml: {line}"));
            }
        }
    }
    for file in rust_files().iter().filter(|file| !file.path.starts_with("fuzz/") && file.path != "tests/tidy.rs") {
        let backend = ["platform/", "learning/", "collab/"].iter().any(|folder| file.path.starts_with(folder));
        let code = file.code();
        let foreign =
            if backend { &["eduham_edge"][..] } else { &["eduham_platform", "eduham_learning", "eduham_collab"] };
        shared.extend(
            foreign.iter().filter(|name| names_crate(&code, name)).map(|name| format!("{}: {name}", file.path)),
        );
    }
    none(&shared, "they meet in HTTP fields, so that either can be replaced");
}

#[test]
fn one_file_of_the_backend_speaks_to_caches() {
    let words = ["cache_control", "cache-control", "surrogate-key\"", "::expires", "::vary"];
    let mut speakers = rust_files();
    speakers.retain(|file| file.path.starts_with("learning/src/"));
    speakers.retain(|file| words.iter().any(|word| file.code().to_lowercase().contains(word)));
    let speakers: Vec<_> = speakers.into_iter().map(|file| file.path).collect();
    assert_eq!(speakers, ["learning/src/caching.rs"], "what may be stored is said there, and nowhere else");
}

#[test]
fn nothing_is_unfinished_or_skipped() {
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("#[", "allow("),
        concat!("#![", "allow("),
    ];
    let mut found = Vec::new();
    for file in rust_files() {
        found.extend(
            marks.iter().filter(|mark| file.text.contains(**mark)).map(|mark| format!("{}: {mark}", file.path)),
        );
    }
    none(&found, "finish it, or leave it out; lift a lint with #[expect(.., reason = \"..\")]");
}

#[test]
fn tests_wait_for_what_they_wait_for() {
    let mut sleepers = Vec::new();
    for file in rust_files().iter().filter(|file| file.path != "tests/tidy.rs") {
        let excused = SLEEPS.iter().any(|(path, _)| *path == file.path);
        for line in file.test_code().lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            if ["::sleep(", " sleep("].iter().any(|call| line.contains(call)) && !line.contains("fn sleep(") && !excused
            {
                sleepers.push(format!("{}: {line}", file.path));
            }
        }
    }
    none(&sleepers, "a gate, a channel or a paused clock in place of a sleep");
}

#[test]
fn queues_are_bounded_and_limits_end_in_max() {
    let mut endless = Vec::new();
    for file in rust_files() {
        for line in file.product_code().lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            if line.contains("unbounded_channel") || line.contains("unbounded(") || line.contains("mpsc::channel()") {
                endless.push(format!("{}: {line}", file.path));
            }
            let queue =
                ["mpsc::channel(", "sync_channel(", "broadcast::channel("].iter().any(|queue| line.contains(queue));
            if queue && !line.contains("_MAX") {
                endless.push(format!("{}: {line}", file.path));
            }
            let name = line.split_once("const ").and_then(|(_, rest)| rest.split(':').next()).unwrap_or_default();
            if name.starts_with("MAX_") || name.ends_with("_LIMIT") || name.ends_with("_CAP") {
                endless.push(format!("{}: {name} is called .._MAX", file.path));
            }
        }
    }
    none(&endless, "what can grow has a named maximum");
}

#[test]
fn no_file_names_a_machine() {
    let homes = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/")];
    let mut found = Vec::new();
    for file in files() {
        for (number, line) in file.text.lines().enumerate() {
            if homes.iter().any(|home| line.contains(home)) {
                found.push(format!("{}:{}: {line:.120}", file.path, number + 1));
            }
        }
    }
    none(&found, "paths are relative, or the reader's own");
}

/// What stands between backticks in a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_architecture_names_every_room_and_only_what_exists() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let named: BTreeSet<&str> = quoted(&text).collect();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root().join("src")).expect("src").map(|entry| entry.expect("an entry")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if entry.path().is_dir() { format!("src/{name}/") } else { format!("src/{name}") };
        if !named.contains(&*path) {
            wrong.push(format!("`{path}` is not named"));
        }
    }
    let code = rust_files();
    for member in ["platform/", "learning/", "collab/", "fuzz/"] {
        if !named.contains(member) {
            wrong.push(format!("`{member}` is not named"));
        }
    }
    let folders =
        ["src/", "tests/", "platform/", "learning/", "collab/", "fuzz/", "docs/", "config/", "scripts/", "benches/"];
    for name in named {
        let is_path = folders.iter().any(|folder| name.starts_with(folder)) && !name.contains(['*', '{', ' ']);
        if is_path && !root().join(name).exists() {
            wrong.push(format!("`{name}` does not exist"));
        }
        // A name of four words and more is a test's.
        let is_test =
            name.matches('_').count() >= 3 && name.chars().all(|next| is_word(next) && !next.is_ascii_uppercase());
        if is_test && !code.iter().any(|file| file.text.contains(&format!("fn {name}("))) {
            wrong.push(format!("the test `{name}` does not exist"));
        }
    }
    none(&wrong, "ARCHITECTURE.md says what is there");
}

/// Is there a key of this name, as `cache.NAME.keep`, in the reference: a heading, or a row under the heading of what it is in?
fn is_a_key(reference: &str, key: &str) -> bool {
    let section =
        |name: &str| reference.split("\n## ").find_map(|section| section.strip_prefix(&format!("`{name}`\n")));
    let row = || {
        key.rsplit_once('.')
            .is_some_and(|(of, key)| section(of).is_some_and(|rows| rows.contains(&format!("\n| `{key}`"))))
    };
    section(key).is_some() || row()
}

#[test]
fn what_rules_and_comments_name_as_their_source_is_there() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let reference = read("docs/configuration.md");
    let (glossary, architecture) = (read("docs/glossary.md"), read("ARCHITECTURE.md"));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in rust_files().into_iter().filter(|file| file.path.starts_with("src/")) {
        let named = |document: &str| -> Vec<String> {
            let ends = ['"', ',', ')', ';', '\n'];
            let parts = file.text.split(document).skip(1);
            parts
                .filter_map(|rest| rest.strip_prefix(": ")?.split(ends).next())
                .map(|name| name.trim_end_matches('.').to_owned())
                .collect()
        };
        let mut hold = |document: &str, is_there: &dyn Fn(&str) -> bool| {
            for name in named(document) {
                count += 1;
                if !is_there(&name) {
                    wrong.push(format!("{}: {document} has no \"{name}\"", file.path));
                }
            }
        };
        hold("docs/configuration.md", &|key| is_a_key(&reference, key));
        hold("docs/glossary.md", &|word| glossary.lines().any(|line| line.starts_with(&format!("| {word} |"))));
        hold("ARCHITECTURE.md", &|name| architecture.lines().any(|line| line == format!("## {name}")));
        // A document that nobody has.
        hold("contract", &|_| false);
    }
    none(&wrong, "a source is something that the reader can open");
    assert!(count >= 20, "{count} sources");
}
