//! The reference of the configuration, printed from the table.

use std::fmt::Write;

use super::table::{Availability, Default, Key, Kind, ROOT};

/// How values are written; the tables follow.
const VALUES: &str = "\
# Configuration

<!-- Generated from the table in src/config/table/. `BLESS=1 cargo test --test config_golden` writes it anew. -->

Every key of a configuration file: what it takes, its default, what it means. `eduham-edge check -c FILE` reports every
problem of a file at once, each with its place and the nearest right word; `eduham-edge schema` prints a JSON Schema for
editors. Unknown keys, duplicate keys and wrong types are errors. `config/edge.yaml` is a commented example.

## How values are written

- The format is YAML 1.2. `<<` merges and top-level keys that begin with `x-` are there for anchors.
- **Variables**: `${VAR}` and `${VAR:-default}` in values; `$$` is a `$`. After expansion an unquoted value gets its type
  anew, a quoted one stays text. A variable that is not set and has no default is an error.
- **Sizes**: `4KiB`, `1MiB`, `2GiB`, `1kB`, `1MB`, `1GB`; a bare number is bytes.
- **Durations**: `250ms`, `10s`, `1h30m`, `7d`; a bare number other than 0 is an error.
- **Shares**: `20%`.
- **Secrets**: the text itself, or `file:PATH`, which reads the file; a line end at its end is dropped.
- **Paths** start from the directory of the file that names them.
- **`none` and `auto`** are spelled out; a key without a value is an error.
- **Quotes**: inside `{}` and `[]`, values that hold `$`, `{`, `*` or `!` need them.
- **`include`** takes files and patterns such as `conf.d/*.yaml`, read in the order of their names. Named maps merge, and
  a name that is defined twice is an error; `routes` and `sites` append. An included file sets neither `server`, `admin`,
  `store` nor `node`.

Keys marked *later* are known and checked, and refused with \"not available yet\" unless they say what holds anyway. Where
the default of such a key will have an effect once it is built, `check` lists it.

A route has exactly one of `upstream`, `split`, `redirect` and `respond`. A policy takes what it does not say from the
policy that it `extends`, and a route that uses `{ use: POLICY, ... }` puts its own keys over that policy's: structures key
by key, lists and maps whole. The same holds for `timeouts`, `retries` and `limits` of a route.
";

/// `docs/configuration.md`
pub fn reference_markdown() -> String {
    let mut out = VALUES.to_owned();
    table(&mut out, "Top level", ROOT, "");
    out
}

/// One table for a structure, then one for each structure below it.
fn table(out: &mut String, title: &str, keys: &'static [Key], path: &str) {
    // Writing to a string never fails.
    let _ = write!(out, "\n## {title}\n\n| Key | Value | Default | Meaning |\n|---|---|---|---|\n");
    for key in keys {
        let later = if key.availability == Availability::Now { "" } else { " *(later)*" };
        let default = match key.default {
            Default::Required => "*required*".to_owned(),
            Default::Absent => "*not set*".to_owned(),
            Default::Is("{}") if nested(&key.kind).is_some() => "*see below*".to_owned(),
            Default::Is(text) => format!("`{text}`"),
        };
        let (name, value, doc) = (key.name, cell(&expected(&key.kind)), cell(key.doc));
        let _ = writeln!(out, "| `{name}`{later} | {value} | {default} | {doc} |");
    }
    for key in keys {
        if let Some((keys, suffix)) = nested(&key.kind) {
            // A route's `cache` has the keys of a policy, and the route's `timeouts` those of its upstream.
            let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            let path = format!("{path}{suffix}");
            match told_before(&path) {
                Some(other) => {
                    let _ = write!(out, "\n## `{path}`\n\nThe keys of `{other}`.\n");
                }
                None => table(out, &format!("`{path}`"), keys, &path),
            }
        }
    }
}

/// Structures whose keys have been told under another path.
fn told_before(path: &str) -> Option<&'static str> {
    Some(match path {
        "routes[]" => "sites[].routes[]",
        "sites[].routes[].cache" => "cache.NAME`, and `use`, the name of the policy",
        "sites[].routes[].timeouts" => "upstreams.NAME.timeouts",
        "sites[].routes[].retries" => "upstreams.NAME.retries",
        "cache.NAME.refresh" => "cache.NAME.bypass",
        path if path.ends_with(".redis") && path != "store.redis" => "redis",
        _ => return None,
    })
}

/// The structure that a value may be, and how it is reached from its key.
fn nested(kind: &'static Kind) -> Option<(&'static [Key], String)> {
    match kind {
        Kind::Struct(keys) | Kind::Short(_, keys) => Some((keys, String::new())),
        Kind::Or(_, other) => nested(other),
        Kind::List { of, .. } => nested(of).map(|(keys, suffix)| (keys, format!("[]{suffix}"))),
        Kind::Map { of, sample, .. } => nested(of).map(|(keys, suffix)| (keys, format!(".{sample}{suffix}"))),
        _ => None,
    }
}

/// What a value is, in the words of the reference.
fn expected(kind: &'static Kind) -> String {
    match kind {
        Kind::Size { .. } => "size".to_owned(),
        Kind::Duration => "duration".to_owned(),
        Kind::PositiveDuration => "duration above 0".to_owned(),
        Kind::Share => "share".to_owned(),
        Kind::Secret => "secret".to_owned(),
        Kind::File | Kind::Path => "path".to_owned(),
        Kind::Words { now, later } => {
            let now = now.iter().map(|word| format!("`{word}`"));
            let later = later.iter().map(|word| format!("`{word}` *(later)*"));
            now.chain(later).collect::<Vec<_>>().join(", ")
        }
        Kind::OneOfNumbers(numbers) => {
            numbers.iter().map(|number| format!("`{number}`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Or(words, other) => {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            format!("{}, or {}", words.join(", "), expected(other))
        }
        Kind::List { of, .. } => format!("list: {}", expected(of)),
        Kind::OneOrMany { of, .. } => format!("{}, one or a list", expected(of)),
        Kind::Map { sample, of, .. } => format!("map from {sample} to {}", expected(of)),
        Kind::Struct(_) => "settings".to_owned(),
        Kind::Either(first, second) => format!("{} or {}", expected(first), expected(second)),
        Kind::Short(short, _) => format!("{}, or settings", expected(short)),
        Kind::Bool | Kind::Int { .. } | Kind::Number { .. } | Kind::Text(_) | Kind::Any => kind.expected(),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
