//! Values that have passed the table: typed, placed, and with defaults filled in.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::problem::At;

/// A value of the configuration after the structural check.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) value: Value,
    pub(super) at: At,
    /// Written by the operator, not a default.
    pub(super) written: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A problem, reported where it was found. Getters answer with nothing or with zero.
    Bad,
    /// Not written and without a default.
    Absent,
    Bool(bool),
    Int(u64),
    Number(f64),
    /// Bytes
    Size(u64),
    Duration(Duration),
    /// Percent
    Share(f64),
    /// A word of the table.
    Word(&'static str),
    Text(String),
    Path(PathBuf),
    List(Vec<Checked>),
    Map(Vec<(String, Checked)>),
    Struct(Fields),
    /// Accepted unread, for a part that rejects it.
    Any,
}

/// The keys of one structure, every key of its table present.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) at: At,
    pub(super) entries: Vec<(&'static str, Checked)>,
}

impl Checked {
    pub(super) fn is_bad(&self) -> bool {
        matches!(self.value, Value::Bad)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn word(&self) -> Option<&'static str> {
        match self.value {
            Value::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(super) fn int(&self) -> Option<u64> {
        match self.value {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn size(&self) -> Option<u64> {
        match self.value {
            Value::Size(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        match self.value {
            Value::Duration(duration) => Some(duration),
            _ => None,
        }
    }

    pub(super) fn share(&self) -> Option<f64> {
        match self.value {
            Value::Share(percent) => Some(percent),
            _ => None,
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match &self.value {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn map(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn fields(&self) -> Option<&Fields> {
        match &self.value {
            Value::Struct(fields) => Some(fields),
            _ => None,
        }
    }

    /// The texts of a list.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.items().iter().filter_map(Self::text)
    }

    /// Is it the same value, wherever it stands?
    pub(super) fn same_as(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) | (Value::Size(a), Value::Size(b)) => a == b,
            (Value::Number(a), Value::Number(b)) | (Value::Share(a), Value::Share(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Word(a), Value::Word(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Path(a), Value::Path(b)) => a == b,
            (Value::Absent, Value::Absent) => true,
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_as(b)),
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.same_as(&b.1))
            }
            (Value::Struct(a), Value::Struct(b)) => {
                a.entries.len() == b.entries.len() && a.entries.iter().zip(&b.entries).all(|(a, b)| a.1.same_as(&b.1))
            }
            _ => false,
        }
    }
}

impl Fields {
    /// The value of a key of the table.
    pub(super) fn get(&self, name: &str) -> &Checked {
        // Resolving and table are written together; a test resolves every key of the table.
        self.find(name).unwrap_or_else(|| panic!("{}.{name} is not in the table", self.at.path))
    }

    fn find(&self, name: &str) -> Option<&Checked> {
        self.entries.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Was the key written by the operator?
    pub(super) fn wrote(&self, name: &str) -> bool {
        self.get(name).written
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        matches!(self.get(name).value, Value::Bool(true))
    }

    pub(super) fn int(&self, name: &str) -> u64 {
        self.get(name).int().unwrap_or_default()
    }

    pub(super) fn size(&self, name: &str) -> u64 {
        self.get(name).size().unwrap_or_default()
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        self.get(name).duration().unwrap_or_default()
    }

    /// A whole percentage, rounded.
    pub(super) fn percent(&self, name: &str) -> u8 {
        self.get(name).share().unwrap_or_default().round() as u8
    }

    /// What the word stands for; the first choice for a bad one, which is reported already.
    pub(super) fn choose<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> T {
        let word = self.get(name).word();
        choices.iter().find(|(choice, _)| Some(*choice) == word).unwrap_or(&choices[0]).1
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).text()
    }

    pub(super) fn fields(&self, name: &str) -> Option<&Self> {
        self.get(name).fields()
    }

    /// These keys where they are written, `base`'s otherwise; structures key by key, lists and maps whole.
    pub(super) fn over(&self, base: &Self) -> Self {
        let entries = self.entries.iter().map(|(name, own)| {
            let value = match base.find(name) {
                Some(under) if !own.written => under.clone(),
                Some(under) => match (&own.value, &under.value) {
                    (Value::Struct(own_fields), Value::Struct(under)) => {
                        Checked { value: Value::Struct(own_fields.over(under)), at: own.at.clone(), written: true }
                    }
                    _ => own.clone(),
                },
                None => own.clone(),
            };
            (*name, value)
        });
        Self { at: self.at.clone(), entries: entries.collect() }
    }
}
