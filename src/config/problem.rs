//! What is wrong with a configuration, where, and what would be right.

use std::fmt;

use serde::Serialize;

/// A place in a configuration file. Line and column count from 1; line 0 means the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Index into the files of the configuration that is being read.
    pub(super) file: usize,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// One thing that is wrong. Prints as `file:line:column: key.path: message (hint)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file as it was named.
    pub file: String,
    /// From 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Path of the key, as `routes[0].match.path`; empty for the whole file.
    pub path: String,
    /// What was found and what is expected.
    pub message: String,
    /// A way out: the nearest right word, how to quote, which unit to write.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration, in the order of the files. Never empty as an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} problem{}", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n{problem}"))
    }
}

/// A default of the table of keys whose part is not built yet, so that it has no effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// Path of the key with `NAME` for names, as `upstreams.NAME.outlier`.
    pub path: String,
    /// The default that is not in effect.
    pub default: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: default {} not in effect yet", self.path, self.default)
    }
}

/// A file that was read, by the name it was given.
#[derive(Debug, Clone)]
pub(super) struct FileName {
    pub(super) name: String,
    /// What relative paths in the file start from.
    pub(super) dir: std::path::PathBuf,
}

/// Where a value stands and how its key is reached.
#[derive(Debug, Clone, Default)]
pub(super) struct At {
    pub(super) place: Place,
    pub(super) path: String,
}

impl At {
    pub(super) fn key(&self, place: Place, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { place, path }
    }

    pub(super) fn index(&self, place: Place, index: usize) -> Self {
        Self { place, path: format!("{}[{index}]", self.path) }
    }
}

/// Collects problems and warnings while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) files: Vec<FileName>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Report {
    pub(super) fn problem(&mut self, at: &At, message: impl Into<String>, hint: Option<String>) {
        let problem = self.make(at, message.into(), hint);
        self.problems.push(problem);
    }

    pub(super) fn warn(&mut self, at: &At, message: impl Into<String>, hint: Option<String>) {
        let warning = self.make(at, message.into(), hint);
        // What is inherited would be told again for each heir.
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// `file:line:column` of a place.
    pub(super) fn name_of(&self, place: Place) -> String {
        format!("{}:{}:{}", self.file(place), place.line, place.column)
    }

    /// A path of the configuration, relative to the file that names it.
    pub(super) fn resolve_path(&self, place: Place, path: &str) -> std::path::PathBuf {
        self.files.get(place.file).map_or_else(|| path.into(), |file| file.dir.join(path))
    }

    /// The problems in the order of files and lines.
    pub(super) fn sorted_problems(mut self) -> Problems {
        let order = |name: &str| self.files.iter().position(|file| file.name == name);
        self.problems.sort_by_key(|problem| (order(&problem.file), problem.line, problem.column));
        self.problems.dedup();
        Problems(self.problems)
    }

    fn make(&self, at: &At, message: String, hint: Option<String>) -> Problem {
        let Place { line, column, .. } = at.place;
        Problem { file: self.file(at.place).to_owned(), line, column, path: at.path.clone(), message, hint }
    }

    fn file(&self, place: Place) -> &str {
        self.files.get(place.file).map_or("", |file| &file.name)
    }
}

/// A hint that names the nearest of `words`, if one is near.
pub(super) fn did_you_mean<'a>(found: &str, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let found_lower = found.to_lowercase();
    let limit = (found.chars().count() / 3).max(1);
    words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&found_lower, &word.to_lowercase()), word))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| format!("did you mean \"{word}\"?"))
}
