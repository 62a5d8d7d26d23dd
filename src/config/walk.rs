//! The structural check: a file's tree against the table, every problem collected.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::Path,
};

use super::{
    checked::{Checked, Fields, Value},
    file::{self, Node, NodeKind, Plain, Scalar},
    problem::{At, Note, Place, Report, did_you_mean},
    table::{Availability, Default, Key, Kind, TextKind},
    units,
};

/// Largest secret file: a token, not a document.
const SECRET_BYTES_MAX: u64 = 64 << 10;

pub(super) struct Walk<'a> {
    pub(super) report: &'a mut Report,
    pub(super) notes: BTreeSet<Note>,
    /// Do not open files that the configuration names.
    pub(super) no_files: bool,
    /// Parts that are not available are checked without notes.
    quiet: bool,
}

/// A value that does not fit: what to say about it.
struct Misfit {
    found: String,
    /// Why, where "expected ..." does not say it all.
    reason: String,
    hint: Option<String>,
}

impl Misfit {
    fn of(node: &Node) -> Self {
        Self { found: node.describe(), reason: String::new(), hint: None }
    }

    fn because(node: &Node, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::of(node) }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(report: &'a mut Report, no_files: bool) -> Self {
        Self { report, notes: BTreeSet::new(), no_files, quiet: false }
    }

    /// The keys of a structure: written ones checked, the others at their defaults.
    ///
    /// `table` is the path with `NAME` in place of names.
    pub(super) fn fields(&mut self, keys: &'static [Key], node: &Node, at: &At, table: &str, written: bool) -> Fields {
        for entry in node.entries() {
            if !keys.iter().any(|key| key.name == entry.key) {
                let hint = did_you_mean(&entry.key, keys.iter().map(|key| key.name));
                let names: Vec<_> = keys.iter().map(|key| key.name).collect();
                let message = format!("found an unknown key, expected one of {}", names.join(", "));
                self.report.problem(&at.key(entry.place, &entry.key), message, hint);
            }
        }
        let entries = keys.iter().map(|key| {
            let table = if table.is_empty() { key.name.to_owned() } else { format!("{table}.{}", key.name) };
            let value = match node.entries().iter().find(|entry| entry.key == key.name) {
                Some(entry) => {
                    self.written(key, &entry.value, entry.place, &at.key(entry.value.place, key.name), &table, written)
                }
                None => self.default(key, &at.key(at.place, key.name), &table),
            };
            (key.name, value)
        });
        let entries = entries.collect();
        Fields { at: at.clone(), entries }
    }

    fn written(
        &mut self,
        key: &'static Key,
        node: &Node,
        place: Place,
        at: &At,
        table: &str,
        written: bool,
    ) -> Checked {
        if key.availability == Availability::Now {
            return self.value(&key.kind, node, at, table, written);
        }
        let before = self.report.problems.len();
        let quiet = std::mem::replace(&mut self.quiet, true);
        let found = self.value(&key.kind, node, at, table, written);
        self.quiet = quiet;
        let default = self.default(key, at, table);
        let is_off =
            key.availability == Availability::Off && !matches!(key.default, Default::Absent) && found.same_as(&default);
        if !is_off && self.report.problems.len() == before {
            let expected = match key.default {
                Default::Is("{}") | Default::Absent | Default::Required => "the key left out".to_owned(),
                Default::Is(_) if key.availability != Availability::Off => "the key left out".to_owned(),
                Default::Is(default) => default.to_owned(),
            };
            let at = At { place, path: at.path.clone() };
            self.report.problem(
                &at,
                format!("found {}, expected {expected}: not available yet", node.describe()),
                None,
            );
        }
        Checked { written, ..default }
    }

    fn default(&mut self, key: &'static Key, at: &At, table: &str) -> Checked {
        let at = at.clone();
        match key.default {
            Default::Required => {
                let message = format!("found nothing, expected {}", key.kind.expected());
                self.report.problem(&at, message, Some("the key is required".to_owned()));
                Checked { value: Value::Bad, at, written: false }
            }
            Default::Absent => Checked { value: Value::Absent, at, written: false },
            Default::Is(text) => {
                if key.availability == Availability::Noted && !self.quiet {
                    self.notes.insert(Note { path: table.to_owned(), default: default_of(key, text) });
                }
                let quiet = self.quiet;
                self.quiet |= key.availability != Availability::Now;
                let value = self.value(&key.kind, &file::literal(text, at.place), &at, table, false);
                self.quiet = quiet;
                value
            }
        }
    }

    fn value(&mut self, kind: &'static Kind, node: &Node, at: &At, table: &str, written: bool) -> Checked {
        let at = At { place: node.place, path: at.path.clone() };
        let value = match self.attempt(kind, node, &at, table, written) {
            Ok(value) => value,
            Err(misfit) => {
                let mut message = format!("found {}, expected {}", misfit.found, kind.expected());
                if !misfit.reason.is_empty() {
                    message = format!("{message}: {}", misfit.reason);
                }
                self.report.problem(&at, message, misfit.hint);
                Value::Bad
            }
        };
        Checked { value, at, written }
    }

    fn attempt(
        &mut self,
        kind: &'static Kind,
        node: &Node,
        at: &At,
        table: &str,
        written: bool,
    ) -> Result<Value, Misfit> {
        if matches!(node.kind, NodeKind::Bad) {
            return Ok(Value::Bad);
        }
        match (kind, &node.kind) {
            (Kind::Or(words, other), NodeKind::Scalar(scalar)) => {
                match words.iter().find(|word| scalar.plain != Plain::Null && **word == scalar.text) {
                    Some(word) => Ok(Value::Word(word)),
                    None => self.attempt(other, node, at, table, written).map_err(|misfit| {
                        let hint = did_you_mean(&scalar.text, words.iter().copied());
                        Misfit { hint: misfit.hint.or(hint), ..misfit }
                    }),
                }
            }
            (Kind::Or(_, other), _) => self.attempt(other, node, at, table, written),
            (Kind::Either(first, second), _) => match self.attempt(first, node, at, table, written) {
                Ok(value) => Ok(value),
                // The reason is that of the kind which the text comes near to.
                Err(misfit) => self.attempt(second, node, at, table, written).map_err(|other| {
                    let is_share = matches!(&node.kind, NodeKind::Scalar(scalar) if scalar.text.ends_with('%'));
                    if is_share { other } else { misfit }
                }),
            },
            (Kind::Short(_, keys), NodeKind::Map(_)) => {
                // What a short form names has its notes where it is defined.
                let quiet = std::mem::replace(&mut self.quiet, true);
                let fields = self.fields(keys, node, at, table, written);
                self.quiet = quiet;
                Ok(Value::Struct(fields))
            }
            (Kind::Short(short, _), _) => self.attempt(short, node, at, table, written),
            (Kind::Struct(keys), NodeKind::Map(_)) => Ok(Value::Struct(self.fields(keys, node, at, table, written))),
            (Kind::Map { key, sample, of }, NodeKind::Map(_)) => {
                Ok(self.named(key, sample, of, node, at, table, written))
            }
            (Kind::List { of, max } | Kind::OneOrMany { of, max }, NodeKind::List(items)) => {
                if items.len() > *max {
                    return Err(Misfit::because(node, format!("at most {max} items")));
                }
                let table = format!("{table}[]");
                let items = items.iter().enumerate().map(|(index, item)| {
                    let at = at.index(item.place, index);
                    self.value(of, item, &at, &table, written)
                });
                Ok(Value::List(items.collect()))
            }
            (Kind::OneOrMany { of, .. }, _) => {
                let value = self.attempt(of, node, at, table, written)?;
                Ok(Value::List(vec![Checked { value, at: at.clone(), written }]))
            }
            (Kind::Any, _) => Ok(Value::Any),
            (_, NodeKind::Scalar(scalar)) => self.scalar(kind, node, scalar, at),
            _ => Err(Misfit::of(node)),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a map in the table, and where it is used")]
    fn named(
        &mut self,
        key: &TextKind,
        sample: &str,
        of: &'static Kind,
        node: &Node,
        at: &At,
        table: &str,
        written: bool,
    ) -> Value {
        let table = format!("{table}.{sample}");
        let mut entries = Vec::new();
        for entry in node.entries() {
            if let Err(reason) = (key.check)(&entry.key) {
                let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
                let message = format!("found the name \"{}\", expected {}{reason}", entry.key, key.expected);
                self.report.problem(&at.key(entry.place, &entry.key), message, None);
            }
            let value = self.value(of, &entry.value, &at.key(entry.value.place, &entry.key), &table, written);
            entries.push((entry.key.clone(), value));
        }
        Value::Map(entries)
    }

    fn scalar(&mut self, kind: &'static Kind, node: &Node, scalar: &Scalar, at: &At) -> Result<Value, Misfit> {
        let text = scalar.text.as_str();
        let unquoted = || {
            let misfit = Misfit::of(node);
            if scalar.quoted { misfit.hint("without quotes; a quoted value stays text") } else { misfit }
        };
        match kind {
            Kind::Bool => match scalar.plain {
                Plain::Bool(value) => Ok(Value::Bool(value)),
                _ => Err(if matches!(text, "yes" | "on") {
                    Misfit::of(node).hint("write true")
                } else if matches!(text, "no" | "off") {
                    Misfit::of(node).hint("write false")
                } else {
                    unquoted()
                }),
            },
            Kind::Int { min, max } => match scalar.plain {
                Plain::Int(value) if value >= i128::from(*min) && value <= i128::from(*max) => {
                    u64::try_from(value).map(Value::Int).map_err(|_| Misfit::of(node))
                }
                Plain::Int(_) => Err(Misfit::of(node)),
                _ => Err(unquoted()),
            },
            Kind::OneOfNumbers(numbers) => match scalar.plain {
                Plain::Int(value) => {
                    let number = numbers.iter().find(|number| i128::from(**number) == value);
                    number.map(|number| Value::Int(*number)).ok_or_else(|| Misfit::of(node))
                }
                _ => Err(unquoted()),
            },
            Kind::Number { min, max } => {
                let value = match scalar.plain {
                    Plain::Int(value) => value as f64,
                    Plain::Float(value) => value,
                    _ => return Err(unquoted()),
                };
                if (*min..=*max).contains(&value) { Ok(Value::Number(value)) } else { Err(Misfit::of(node)) }
            }
            Kind::Size { min, max } => {
                let bytes = units::size(text).map_err(|reason| unit_misfit(node, scalar, reason))?;
                if bytes < *min || bytes > *max {
                    let (min, max) = (units::print_size(*min), units::print_size(*max));
                    return Err(Misfit::because(node, format!("from {min} to {max}")));
                }
                Ok(Value::Size(bytes))
            }
            Kind::Duration | Kind::PositiveDuration => {
                let duration = units::duration(text).map_err(|reason| unit_misfit(node, scalar, reason))?;
                if duration.is_zero() && matches!(kind, Kind::PositiveDuration) {
                    return Err(Misfit::because(node, "it must be longer than zero"));
                }
                Ok(Value::Duration(duration))
            }
            Kind::Share => match units::share(text) {
                Ok(percent) => Ok(Value::Share(percent)),
                Err(reason) => Err(unit_misfit(node, scalar, reason)),
            },
            Kind::Words { now, later } => {
                if let Some(word) = now.iter().find(|word| **word == text) {
                    return Ok(Value::Word(word));
                }
                if later.contains(&text) {
                    let message = format!("found \"{text}\", expected {}: not available yet", list_words(now));
                    self.report.problem(at, message, None);
                    return Ok(Value::Bad);
                }
                let misfit = Misfit::of(node);
                Err(match did_you_mean(text, now.iter().chain(*later).copied()) {
                    Some(hint) => misfit.hint(hint),
                    None => misfit,
                })
            }
            Kind::Text(kind) => text_value(kind, node, scalar).map(|()| Value::Text(text.to_owned())),
            Kind::Secret => self.secret(node, scalar).map(Value::Text),
            Kind::File | Kind::Path => {
                plain_text(node, scalar)?;
                let path = self.report.resolve_path(node.place, text);
                if matches!(kind, Kind::File) && !self.no_files {
                    readable(&path).map_err(|error| Misfit::because(node, words_of(&error)))?;
                }
                Ok(Value::Path(path))
            }
            Kind::List { .. } | Kind::Map { .. } | Kind::Struct(_) => Err(Misfit::of(node)),
            Kind::OneOrMany { .. } | Kind::Or(..) | Kind::Either(..) | Kind::Short(..) | Kind::Any => {
                // `attempt` has taken these apart before a scalar is looked at.
                unreachable!("{kind:?} is no scalar")
            }
        }
    }

    fn secret(&mut self, node: &Node, scalar: &Scalar) -> Result<String, Misfit> {
        // The text itself is never shown.
        let hidden = |reason: String| Misfit { found: "a secret".to_owned(), reason, hint: None };
        if scalar.plain != Plain::Text {
            return Err(Misfit {
                found: "an unquoted number or word".to_owned(),
                reason: String::new(),
                hint: Some("put the secret in quotes".to_owned()),
            });
        }
        let Some(path) = scalar.text.strip_prefix("file:") else {
            return if scalar.text.is_empty() { Err(Misfit::of(node)) } else { Ok(scalar.text.clone()) };
        };
        if path.is_empty() {
            return Err(Misfit::of(node));
        }
        if self.no_files {
            return Ok("not read".to_owned());
        }
        let path = self.report.resolve_path(node.place, path);
        let secret = read_secret(&path).map_err(|reason| Misfit { found: node.describe(), reason, hint: None })?;
        if secret.is_empty() { Err(hidden(format!("{} is empty", path.display()))) } else { Ok(secret) }
    }
}

/// A value with a unit: what is missing is most often the unit.
fn unit_misfit(node: &Node, scalar: &Scalar, reason: &str) -> Misfit {
    match scalar.plain {
        Plain::Null => Misfit::of(node),
        _ => Misfit::because(node, reason),
    }
}

fn text_value(kind: &TextKind, node: &Node, scalar: &Scalar) -> Result<(), Misfit> {
    let number = kind.numbers && matches!(scalar.plain, Plain::Int(_) | Plain::Float(_) | Plain::Bool(_));
    if !number {
        plain_text(node, scalar)?;
    }
    (kind.check)(&scalar.text).map_err(|reason| Misfit::because(node, reason))
}

/// Text that is text, and not an attempt to read a secret.
fn plain_text(node: &Node, scalar: &Scalar) -> Result<(), Misfit> {
    match scalar.plain {
        Plain::Text if scalar.text.starts_with("file:") => {
            Err(Misfit::because(node, "file: is read on keys that hold a secret only"))
        }
        Plain::Text if scalar.text.is_empty() => Err(Misfit::of(node)),
        Plain::Text => Ok(()),
        Plain::Null => Err(Misfit::of(node)),
        Plain::Bool(_) | Plain::Int(_) | Plain::Float(_) => {
            Err(Misfit::of(node).hint(format!("write \"{}\"", scalar.text)))
        }
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let bytes = read_at_most(path, SECRET_BYTES_MAX).map_err(|error| words_of(&error))?;
    let text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text".to_owned())?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Is there a file that may be read? A pipe is believed: opening it would wait for its writer.
fn readable(path: &Path) -> io::Result<()> {
    let meta = fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if meta.is_file() { fs::File::open(path).map(drop) } else { Ok(()) }
}

/// A whole file, refused when it is larger than `max` bytes. The length that the system tells is not believed.
pub(super) fn read_at_most(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    let is_larger = u64::try_from(bytes.len()).is_ok_and(|length| length > max);
    if is_larger { Err(io::Error::other(format!("the file is larger than {max} bytes"))) } else { Ok(bytes) }
}

/// An I/O error in words that do not depend on the machine.
pub(super) fn words_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this file may not be read".to_owned(),
        io::ErrorKind::IsADirectory => "this is a directory".to_owned(),
        io::ErrorKind::InvalidData => "the file is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

fn list_words(words: &[&str]) -> String {
    match words {
        [one] => (*one).to_owned(),
        words => format!("one of {}", words.join(", ")),
    }
}

/// A default as a note shows it: `{}` is spelled out.
fn default_of(key: &Key, text: &str) -> String {
    match key.kind {
        Kind::Struct(keys) if text == "{}" => {
            let parts: Vec<_> = keys
                .iter()
                .filter_map(|key| match key.default {
                    Default::Is(text) => Some(format!("{}: {text}", key.name)),
                    _ => None,
                })
                .collect();
            format!("{{ {} }}", parts.join(", "))
        }
        _ => text.to_owned(),
    }
}
