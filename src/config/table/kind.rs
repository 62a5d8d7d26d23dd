//! What a row of the table can say: kinds of values, defaults, availability.

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Key {
    pub(in crate::config) name: &'static str,
    pub(in crate::config) kind: Kind,
    pub(in crate::config) default: Default,
    /// One sentence for operators.
    pub(in crate::config) doc: &'static str,
    pub(in crate::config) availability: Availability,
}

/// What a key is when it is not written.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) enum Default {
    /// It must be written.
    Required,
    /// It stays unsaid.
    Absent,
    /// A value in YAML flow style, checked by the same rules as a written one.
    Is(&'static str),
}

/// Does this build do what the key says?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Availability {
    Now,
    /// Not yet: only the default, which means "off", may be written.
    Off,
    /// Not yet, and the default has no effect on its own: may not be written.
    Unwritten,
    /// Not yet, and the default will have an effect: may not be written, and `check` lists it.
    Noted,
}

/// The kind of a value.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) enum Kind {
    Bool,
    /// A whole number.
    Int {
        min: u64,
        max: u64,
    },
    Number {
        min: f64,
        max: f64,
    },
    /// One of these numbers.
    OneOfNumbers(&'static [u64]),
    /// Bytes.
    Size {
        min: u64,
        max: u64,
    },
    Duration,
    /// A duration longer than zero.
    PositiveDuration,
    /// A share in percent.
    Share,
    /// One of the words; the later ones are known but not available yet.
    Words {
        now: &'static [&'static str],
        later: &'static [&'static str],
    },
    Text(&'static TextKind),
    /// A secret in plain words or `file:PATH`.
    Secret,
    /// A file that exists, relative to the file that names it.
    File,
    /// A path that need not exist yet.
    Path,
    List {
        of: &'static Kind,
        max: usize,
    },
    /// A list, or one item instead of a list of one.
    OneOrMany {
        of: &'static Kind,
        max: usize,
    },
    /// Names chosen by the operator.
    Map {
        key: &'static TextKind,
        sample: &'static str,
        of: &'static Kind,
    },
    Struct(&'static [Key]),
    /// Spelled words such as `none` and `auto`, or something else.
    Or(&'static [&'static str], &'static Kind),
    /// One of two scalars, tried in order.
    Either(&'static Kind, &'static Kind),
    /// A short scalar form, or the whole.
    Short(&'static Kind, &'static [Key]),
    /// Checked by a part that does not exist yet.
    Any,
}

/// Text with a shape.
#[derive(Debug)]
pub(in crate::config) struct TextKind {
    /// Completes "expected ...".
    pub(in crate::config) expected: &'static str,
    /// The shape for the JSON Schema, as far as a regular expression can say it.
    pub(in crate::config) pattern: Option<&'static str>,
    /// Why a text is not of this kind; an empty reason when `expected` says it all.
    pub(in crate::config) check: fn(&str) -> Result<(), String>,
    /// May it be written without quotes when it looks like a number?
    pub(in crate::config) numbers: bool,
}

impl Key {
    const fn new(name: &'static str, kind: Kind, default: Default, doc: &'static str) -> Self {
        Self { name, kind, default, doc, availability: Availability::Now }
    }

    /// Only the default may be written for now; it means "off".
    pub(super) const fn off(mut self) -> Self {
        self.availability = Availability::Off;
        self
    }

    /// May not be written for now; nothing is missed.
    pub(super) const fn unwritten(mut self) -> Self {
        self.availability = Availability::Unwritten;
        self
    }

    /// May not be written for now, and its default is missed.
    pub(super) const fn noted(mut self) -> Self {
        self.availability = Availability::Noted;
        self
    }
}

/// A key with a default.
pub(super) const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key::new(name, kind, Default::Is(default), doc)
}

/// A key that must be written.
pub(super) const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key::new(name, kind, Default::Required, doc)
}

/// A key that may stay unsaid.
pub(super) const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key::new(name, kind, Default::Absent, doc)
}

pub(super) const fn words(now: &'static [&'static str]) -> Kind {
    Kind::Words { now, later: &[] }
}

/// Items of one list: far above any real use, so that a list is never a way to exhaust memory.
const ITEMS_MAX: usize = 10_000;

pub(super) const fn list(of: &'static Kind) -> Kind {
    Kind::List { of, max: ITEMS_MAX }
}

pub(super) const fn one_or_many(of: &'static Kind) -> Kind {
    Kind::OneOrMany { of, max: ITEMS_MAX }
}

pub(super) const fn int(min: u64, max: u64) -> Kind {
    Kind::Int { min, max }
}

pub(super) const SIZE: Kind = Kind::Size { min: 0, max: i64::MAX as u64 };
pub(super) const OR_NONE_SIZE: Kind = Kind::Or(&["none"], &SIZE);
pub(super) const OR_NONE_DURATION: Kind = Kind::Or(&["none"], &Kind::Duration);

impl Kind {
    /// Completes "expected ..." in messages, schema and reference.
    pub(in crate::config) fn expected(&self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Int { min, max: u64::MAX } => format!("a whole number from {min}"),
            Self::Int { min, max } => format!("a whole number from {min} to {max}"),
            Self::Number { min, max } => format!("a number from {min} to {max}"),
            Self::OneOfNumbers(numbers) => one_of(numbers.iter().map(ToString::to_string)),
            Self::Size { .. } => "a size such as 4KiB or 1MiB".to_owned(),
            Self::Duration | Self::PositiveDuration => "a duration such as 250ms, 10s or 1h30m".to_owned(),
            Self::Share => "a share such as 20%".to_owned(),
            Self::Words { now, later } => one_of(now.iter().chain(*later).map(ToString::to_string)),
            Self::Text(kind) => kind.expected.to_owned(),
            Self::Secret => "a secret as text or file:PATH".to_owned(),
            Self::File | Self::Path => "the path of a file".to_owned(),
            Self::List { of, .. } => format!("a list, each item {}", of.expected()),
            Self::OneOrMany { of, .. } => format!("{}, or a list of them", of.expected()),
            Self::Map { sample, .. } => format!("a map from {sample} to its settings"),
            Self::Struct(_) => "a map of settings".to_owned(),
            Self::Or(words, other) => format!("{}, or {}", words.join(", "), other.expected()),
            Self::Either(first, second) => format!("{} or {}", first.expected(), second.expected()),
            Self::Short(short, _) => format!("{}, or a map of settings", short.expected()),
            Self::Any => "settings of its own".to_owned(),
        }
    }
}

fn one_of(words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    if words.len() == 1 { words[0].clone() } else { format!("one of {}", words.join(", ")) }
}
