//! Several files as one: `include`, what merges, and what may not be said twice.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Loaded, Options, Problems,
    environment::Environment,
    file::{self, Entry, FILE_BYTES_MAX, Node, NodeKind, Plain},
    problem::{At, FileName, Place, Report},
    resolve,
    table::{Kind, MAIN_FILE_ONLY, ROOT},
    walk::{Walk, read_at_most, words_of},
};
use crate::cache::Glob;

/// Files of one configuration: far above any real use.
const FILES_MAX: usize = 1000;

/// Reads one configuration.
pub(super) struct Reading<'a> {
    environment: &'a dyn Environment,
    options: Options,
    report: Report,
    /// Files that are part of the configuration already, by their real paths.
    seen: Vec<PathBuf>,
    /// Did a file end in a syntax error?
    broken: bool,
}

impl<'a> Reading<'a> {
    pub(super) fn new(environment: &'a dyn Environment, options: Options) -> Self {
        Self { environment, options, report: Report::default(), seen: Vec::new(), broken: false }
    }

    pub(super) fn file(mut self, path: &Path) -> Result<Loaded, Problems> {
        let name = path.display().to_string();
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        self.seen.extend(path.canonicalize());
        match read(path) {
            Ok(text) => self.text(&text, &name, &dir),
            Err(error) => {
                self.report.files.push(FileName { name, dir });
                let at = At { place: Place::default(), path: String::new() };
                self.report.problem(&at, format!("the file cannot be read: {}", words_of(&error)), None);
                Err(self.report.sorted_problems())
            }
        }
    }

    pub(super) fn text(mut self, text: &str, name: &str, dir: &Path) -> Result<Loaded, Problems> {
        let root = self.root(text, name, dir);
        let Some(root) = root.filter(|_| !self.broken) else {
            // A file that is not YAML is reported alone: what else is found would be a consequence.
            self.report.problems.retain(|problem| problem.message.starts_with("not valid YAML") || !self.broken);
            return Err(self.report.sorted_problems());
        };
        let Options { no_files } = self.options;
        let mut walk = Walk::new(&mut self.report, no_files);
        let fields = walk.fields(ROOT, &root, &At { place: root.place, path: String::new() }, "", true);
        let notes = walk.notes.into_iter().collect();
        let config = resolve::resolve(&fields, self.environment, no_files, &mut self.report);
        if !self.report.problems.is_empty() {
            return Err(self.report.sorted_problems());
        }
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        root.hash_into(&mut hasher);
        Ok(Loaded { config, notes, warnings: self.report.warnings, hash: format!("{:016x}", hasher.digest()) })
    }

    /// The tree of a file with everything that it includes.
    fn root(&mut self, text: &str, name: &str, dir: &Path) -> Option<Node> {
        let index = self.report.files.len();
        self.report.files.push(FileName { name: name.to_owned(), dir: dir.to_owned() });
        let Some(mut node) = file::read(text, index, self.environment, &mut self.report) else {
            self.broken = true;
            return None;
        };
        let NodeKind::Map(entries) = &mut node.kind else {
            let at = At { place: node.place, path: String::new() };
            if !matches!(node.kind, NodeKind::Bad) {
                self.report.problem(&at, format!("found {}, expected a map of settings", node.describe()), None);
            }
            return None;
        };
        entries.retain(|entry| !entry.key.starts_with("x-"));
        for path in self.included(entries, dir) {
            self.include(&path, entries);
        }
        Some(node)
    }

    /// The files that `include` names, each pattern in the order of names.
    fn included(&mut self, entries: &[Entry], dir: &Path) -> Vec<(PathBuf, At)> {
        let Some(include) = entries.iter().find(|entry| entry.key == "include") else { return Vec::new() };
        let NodeKind::List(items) = &include.value.kind else { return Vec::new() };
        let mut paths = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = At::default().key(include.place, "include").index(item.place, index);
            // What is no text is found by the check of the table.
            let NodeKind::Scalar(pattern) = &item.kind else { continue };
            if pattern.plain != Plain::Text || pattern.text.is_empty() {
                continue;
            }
            match expand_pattern(dir, &pattern.text) {
                Ok(found) if found.is_empty() => {
                    self.report.warn(&at, format!("no file matches {}", pattern.text), None)
                }
                Ok(found) => paths.extend(found.into_iter().map(|path| (path, at.clone()))),
                Err(reason) => self.report.problem(
                    &at,
                    format!("found \"{}\", expected a file or a pattern of files: {reason}", pattern.text),
                    None,
                ),
            }
        }
        paths
    }

    fn include(&mut self, (path, at): &(PathBuf, At), into: &mut Vec<Entry>) {
        let name = path.display().to_string();
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if self.seen.contains(&real) {
            self.report.problem(at, format!("found {name} a second time, expected every file once"), None);
            return;
        }
        self.seen.push(real);
        if self.report.files.len() >= FILES_MAX {
            self.report.problem(at, format!("found more than {FILES_MAX} files, expected fewer"), None);
            return;
        }
        let text = match read(path) {
            Ok(text) => text,
            Err(error) => {
                self.report.problem(at, format!("found {name}, expected a file: {}", words_of(&error)), None);
                return;
            }
        };
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let Some(root) = self.root(&text, &name, &dir) else { return };
        let NodeKind::Map(entries) = root.kind else { return };
        for entry in entries {
            self.merge(entry, into);
        }
    }

    /// Puts one top-level key of an included file into the whole.
    fn merge(&mut self, entry: Entry, into: &mut Vec<Entry>) {
        let at = At::default().key(entry.place, &entry.key);
        if MAIN_FILE_ONLY.contains(&entry.key.as_str()) {
            let message = format!("found {} in an included file, expected it in the main file alone", entry.key);
            self.report.problem(&at, message, None);
            return;
        }
        if matches!(entry.key.as_str(), "include" | "version") && into.iter().any(|there| there.key == entry.key) {
            // The included file's own includes are part of the whole already; its version is checked where it differs.
            self.same_version(&entry, into);
            return;
        }
        let Some(there) = into.iter_mut().find(|there| there.key == entry.key) else {
            into.push(entry);
            return;
        };
        let kind = ROOT.iter().find(|key| key.name == entry.key).map(|key| key.kind);
        match (kind, &mut there.value.kind, entry.value.kind) {
            (Some(Kind::List { .. }), NodeKind::List(items), NodeKind::List(more)) => items.extend(more),
            (Some(Kind::Map { .. }), NodeKind::Map(names), NodeKind::Map(more)) => {
                for named in more {
                    match names.iter().find(|there| there.key == named.key) {
                        Some(first) => twice(&mut self.report, &at.key(named.place, &named.key), first.place),
                        None => names.push(named),
                    }
                }
            }
            // A value of the wrong kind replaces a good one, so that the check finds it.
            (Some(Kind::List { .. } | Kind::Map { .. }), NodeKind::List(_) | NodeKind::Map(_), kind) => {
                there.value = Node { place: entry.value.place, kind };
            }
            (Some(Kind::List { .. } | Kind::Map { .. }), ..) => {}
            _ => twice(&mut self.report, &at, there.place),
        }
    }

    fn same_version(&mut self, entry: &Entry, into: &[Entry]) {
        if entry.key != "version" {
            return;
        }
        let first = into.iter().find(|there| there.key == entry.key).map(|there| there.value.describe());
        if first.is_some_and(|first| first != entry.value.describe()) {
            let at = At::default().key(entry.value.place, "version");
            self.report.problem(
                &at,
                format!("found {}, expected the version of the main file", entry.value.describe()),
                None,
            );
        }
    }
}

fn twice(report: &mut Report, at: &At, first: Place) {
    let first = report.name_of(first);
    report.problem(at, format!("found a second definition, expected one: the first is at {first}"), None);
}

/// The files that a pattern names: `*` may stand in the last part, whose matches come in the order of their names.
fn expand_pattern(dir: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let (parent, last) = pattern.rsplit_once('/').map_or(("", pattern), |(parent, last)| (parent, last));
    let parent = if pattern.starts_with('/') && parent.is_empty() { "/" } else { parent };
    if parent.contains('*') {
        return Err("* may stand in the last part alone".to_owned());
    }
    if last.is_empty() {
        return Err("the name of a file is missing".to_owned());
    }
    let parent = if parent.is_empty() { dir.to_owned() } else { dir.join(parent) };
    if !last.contains('*') {
        return Ok(vec![parent.join(last)]);
    }
    let glob = Glob::new(last);
    let listing = if parent.as_os_str().is_empty() { Path::new(".") } else { &parent };
    let entries = match fs::read_dir(listing) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(words_of(&error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.') && glob.matches(name)).collect();
    names.sort_unstable();
    Ok(names.into_iter().map(|name| parent.join(name)).collect())
}

/// A whole file as text.
fn read(path: &Path) -> io::Result<String> {
    String::from_utf8(read_at_most(path, FILE_BYTES_MAX)?).map_err(|_| io::ErrorKind::InvalidData.into())
}
