//! From the bytes of a YAML file to a tree whose every value knows its place. The only user of the YAML crates.
//!
//! serde_yaml judges the syntax and the type of plain scalars; the event scan of saphyr-parser brings places, quoting,
//! duplicate keys and anchors. Variables are expanded here, in scalar values.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::{
    environment::Environment,
    expand::{self, Expansion},
    problem::{At, Place, Report},
};

/// Largest file: far above any real configuration, small enough to read whole.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

/// Values in one file, aliases expanded: stops a file that multiplies itself by anchors.
const NODES_MAX: usize = 1_000_000;

/// Levels of nesting; the deepest key has about ten.
const DEPTH_MAX: usize = 64;

/// A value of a file.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: NodeKind,
}

#[derive(Debug, Clone)]
pub(super) enum NodeKind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something that has been reported already.
    Bad,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

/// A scalar: its text after expansion, and what YAML makes of it.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) quoted: bool,
    pub(super) plain: Plain,
}

/// The type of a scalar; a quoted one is always text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Plain {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text,
}

impl Node {
    pub(super) fn empty_map(place: Place) -> Self {
        Self { place, kind: NodeKind::Map(Vec::new()) }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.kind {
            NodeKind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// What a message calls this value.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            NodeKind::Scalar(scalar) => match scalar.plain {
                Plain::Null => "nothing".to_owned(),
                Plain::Bool(value) => value.to_string(),
                Plain::Int(_) | Plain::Float(_) => format!("the number {}", scalar.text),
                Plain::Text => format!("\"{}\"", shorten(&scalar.text)),
            },
            NodeKind::List(_) => "a list".to_owned(),
            NodeKind::Map(_) => "a map".to_owned(),
            NodeKind::Bad => "a bad value".to_owned(),
        }
    }

    /// Feeds keys and values, not places or comments, into a hash.
    pub(super) fn hash_into(&self, hasher: &mut xxhash_rust::xxh3::Xxh3) {
        match &self.kind {
            NodeKind::Scalar(scalar) => {
                hasher.update(if scalar.plain == Plain::Text { b"t" } else { b"s" });
                hash_text(hasher, &scalar.text);
            }
            NodeKind::List(items) => {
                hasher.update(b"l");
                hasher.update(&items.len().to_le_bytes());
                items.iter().for_each(|item| item.hash_into(hasher));
            }
            NodeKind::Map(entries) => {
                hasher.update(b"m");
                hasher.update(&entries.len().to_le_bytes());
                for entry in entries {
                    hash_text(hasher, &entry.key);
                    entry.value.hash_into(hasher);
                }
            }
            NodeKind::Bad => {}
        }
    }
}

/// Longest piece of a found value in a message, in characters.
const SHOWN_MAX: usize = 60;

fn shorten(text: &str) -> String {
    let text = text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().count() <= SHOWN_MAX { text } else { text.chars().take(SHOWN_MAX).chain("...".chars()).collect() }
}

fn hash_text(hasher: &mut xxhash_rust::xxh3::Xxh3, text: &str) {
    hasher.update(&text.len().to_le_bytes());
    hasher.update(text.as_bytes());
}

/// Reads the text of file number `file` of `report`. `None`: a syntax error, which has been reported alone.
pub(super) fn read(text: &str, file: usize, environment: &dyn Environment, report: &mut Report) -> Option<Node> {
    if let Err(error) = serde_yaml::from_str::<serde::de::IgnoredAny>(text) {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        syntax_error(report, text, Place { file, line, column }, &error.to_string());
        return None;
    }
    compose(text, file, Some(environment), report)
}

/// Reads a default of the table: one value in flow style, nothing expanded.
pub(super) fn literal(text: &str, place: Place) -> Node {
    let mut report = Report::default();
    let node = compose(text, place.file, None, &mut report).filter(|_| report.problems.is_empty());
    let mut node = node.expect("defaults in the table are valid YAML; a test reads them all");
    move_to(&mut node, place);
    node
}

fn move_to(node: &mut Node, place: Place) {
    node.place = place;
    match &mut node.kind {
        NodeKind::List(items) => items.iter_mut().for_each(|item| move_to(item, place)),
        NodeKind::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.place = place;
            move_to(&mut entry.value, place);
        }),
        NodeKind::Scalar(_) | NodeKind::Bad => {}
    }
}

fn compose(text: &str, file: usize, environment: Option<&dyn Environment>, report: &mut Report) -> Option<Node> {
    let mut composer =
        Composer { parser: Parser::new_from_str(text), file, environment, report, anchors: HashMap::new(), nodes: 0 };
    match composer.document() {
        Ok(node) => Some(node),
        Err(Stop { place, message }) => {
            syntax_error(report, text, place, &message);
            None
        }
    }
}

fn syntax_error(report: &mut Report, text: &str, place: Place, message: &str) {
    let message = message.split(" at line ").next().unwrap_or(message);
    let at = At { place, path: String::new() };
    report.problem(&at, format!("not valid YAML: {message}"), quoting_hint(text, place.line));
}

/// What the usual reason for a syntax error calls for.
const QUOTE: &str = "inside {} and [], quote values that hold $, {, * or !";

/// Is there an unquoted `$`, `{`, `*` or `!` inside a flow collection, on that line or the one before?
fn quoting_hint(text: &str, line: usize) -> Option<String> {
    let first = line.saturating_sub(2);
    let found = text.lines().skip(first).take(line - first).any(needs_quotes);
    found.then(|| QUOTE.to_owned())
}

fn needs_quotes(line: &str) -> bool {
    let (mut flow, mut quote, mut previous) = (false, None, ' ');
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        let starts = matches!(previous, ' ' | '[' | '{' | ',');
        match c {
            _ if quote == Some(c) => quote = None,
            _ if quote.is_some() => {}
            '"' | '\'' if starts => quote = Some(c),
            '#' if previous == ' ' => return false,
            // A bracket after a word belongs to a value; one after a space opens a collection.
            '{' if flow && !starts => return true,
            '$' | '!' if flow && (c == '$' || starts) => return true,
            // `*name` may be an alias.
            '*' if flow && starts && !characters.peek().is_some_and(char::is_ascii_alphanumeric) => return true,
            '{' | '[' => flow = true,
            _ => {}
        }
        previous = c;
    }
    false
}

/// Why composing ends: the file is not a tree that could be checked.
struct Stop {
    place: Place,
    message: String,
}

struct Composer<'a, 'r> {
    parser: Parser<'a, StrInput<'a>>,
    file: usize,
    /// `None`: nothing is expanded.
    environment: Option<&'r dyn Environment>,
    report: &'r mut Report,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> Composer<'a, '_> {
    fn document(&mut self) -> Result<Node, Stop> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd | Event::DocumentEnd => return Ok(Node::empty_map(self.place(span))),
                event => {
                    let root = At { place: self.place(span), path: String::new() };
                    return self.node(event, span, &root, 0);
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let place = self.mark(error.marker().line(), error.marker().col());
                Err(Stop { place, message: error.info().to_owned() })
            }
            None => Err(Stop { place: self.mark(1, 0), message: "the file ends too early".to_owned() }),
        }
    }

    fn mark(&self, line: usize, column: usize) -> Place {
        Place { file: self.file, line, column: column + 1 }
    }

    fn place(&self, span: Span) -> Place {
        self.mark(span.start.line(), span.start.col())
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return Err(Stop { place, message: format!("more than {NODES_MAX} values, aliases expanded") });
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, at: &At, depth: usize) -> Result<Node, Stop> {
        let place = self.place(span);
        self.count(1, place)?;
        if depth > DEPTH_MAX {
            return Err(Stop { place, message: format!("nested deeper than {DEPTH_MAX} levels") });
        }
        let at = At { place, path: at.path.clone() };
        let (anchor, tag, mut node) = match event {
            Event::Alias(id) => return self.alias(id, &at),
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain
                    || tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                (anchor, tag, Node { place, kind: self.scalar(text.into_owned(), quoted, &at) })
            }
            Event::SequenceStart(anchor, tag) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    let at = at.index(place, items.len());
                    items.push(self.node(event, span, &at, depth + 1)?);
                }
                (anchor, tag, Node { place, kind: NodeKind::List(items) })
            }
            Event::MappingStart(anchor, tag) => (anchor, tag, Node { place, kind: self.mapping(&at, depth)? }),
            _ => return Err(Stop { place, message: "a value is expected here".to_owned() }),
        };
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            self.report.problem(
                &at,
                format!("found the YAML tag {tag}, expected a plain value"),
                Some(QUOTE.to_owned()),
            );
            node.kind = NodeKind::Bad;
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, at: &At) -> Result<Node, Stop> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            return Err(Stop { place: at.place, message: "an alias to a value that is not complete yet".to_owned() });
        };
        self.count(size_of(&node), at.place)?;
        Ok(node)
    }

    fn scalar(&mut self, text: String, quoted: bool, at: &At) -> NodeKind {
        let text = match self.environment {
            None => text,
            Some(environment) => match expand::expand(&text, environment) {
                Ok(Expansion::Unchanged) => text,
                Ok(Expansion::Changed(expanded)) => expanded,
                Err(error) => {
                    self.report.problem(at, error.to_string(), error.hint());
                    return NodeKind::Bad;
                }
            },
        };
        let plain = if quoted { Plain::Text } else { plain(&text) };
        NodeKind::Scalar(Scalar { text, quoted, plain })
    }

    /// The entries of a mapping, duplicates reported and `<<` merged in.
    fn mapping(&mut self, at: &At, depth: usize) -> Result<NodeKind, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut index: HashMap<String, usize> = HashMap::new();
        let mut merges = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let place = self.place(span);
            let (key, is_merge) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => {
                    let is_merge = style == ScalarStyle::Plain && text == "<<";
                    (Some(text.into_owned()), is_merge)
                }
                event => {
                    self.node(event, span, at, depth + 1)?;
                    self.report.problem(
                        &At { place, path: at.path.clone() },
                        "found a key that is not a word, expected a word",
                        None,
                    );
                    (None, false)
                }
            };
            let (event, span) = self.next()?;
            let value_at = at.key(place, key.as_deref().unwrap_or("?"));
            let value = self.node(event, span, &value_at, depth + 1)?;
            match key {
                None => {}
                Some(_) if is_merge => merges.push((value_at, value)),
                Some(key) => match index.get(&key) {
                    Some(&first) => {
                        let first = self.report.name_of(entries[first].place);
                        self.report.problem(
                            &value_at,
                            format!("found the key a second time, expected it once: the first is at {first}"),
                            None,
                        );
                    }
                    None => {
                        index.insert(key.clone(), entries.len());
                        entries.push(Entry { key, place, value });
                    }
                },
            }
        }
        for (at, value) in merges {
            self.merge(&at, value, &mut entries, &mut index);
        }
        Ok(NodeKind::Map(entries))
    }

    /// `<<: *a` or `<<: [ *a, *b ]`: keys that are not there yet; the first one that has a key gives it.
    fn merge(&mut self, at: &At, value: Node, entries: &mut Vec<Entry>, index: &mut HashMap<String, usize>) {
        let sources = match value.kind {
            NodeKind::List(items) => items,
            _ => vec![value],
        };
        for source in sources {
            match source.kind {
                NodeKind::Map(merged) => {
                    for entry in merged {
                        if !index.contains_key(&entry.key) {
                            index.insert(entry.key.clone(), entries.len());
                            entries.push(entry);
                        }
                    }
                }
                NodeKind::Bad => {}
                _ => self.report.problem(at, format!("found {}, expected an alias to a map", source.describe()), None),
            }
        }
    }
}

fn size_of(node: &Node) -> usize {
    1 + match &node.kind {
        NodeKind::List(items) => items.iter().map(size_of).sum(),
        NodeKind::Map(entries) => entries.iter().map(|entry| size_of(&entry.value)).sum(),
        NodeKind::Scalar(_) | NodeKind::Bad => 0,
    }
}

/// What serde_yaml makes of a plain scalar. Only words that could be anything but text are shown to it.
fn plain(text: &str) -> Plain {
    if text.is_empty() {
        return Plain::Null;
    }
    let word =
        text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-' | b'~'));
    if !word || text.bytes().all(|b| b == b'-' || b == b'.') {
        return Plain::Text;
    }
    match serde_yaml::from_str::<serde_yaml::Value>(text) {
        Ok(serde_yaml::Value::Null) => Plain::Null,
        Ok(serde_yaml::Value::Bool(value)) => Plain::Bool(value),
        Ok(serde_yaml::Value::Number(number)) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => Plain::Int(value.into()),
            (_, Some(value), _) => Plain::Int(value.into()),
            (.., Some(value)) => Plain::Float(value),
            _ => Plain::Text,
        },
        _ => Plain::Text,
    }
}
