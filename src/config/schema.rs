//! The JSON Schema of the configuration, printed from the table.
//!
//! It serves editors: names, kinds, defaults and meanings. What lies between keys is `check`'s.

use serde_json::{Map, Value, json};

use super::{
    file::{self, Node, NodeKind, Plain},
    problem::Place,
    table::{Availability, Default, Key, Kind, ROOT, TextKind},
};

/// JSON Schema 2020-12 for a configuration file.
pub fn schema() -> Value {
    let mut root = structure(ROOT);
    let own = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "EduHam Edge configuration",
        "$defs": {
            "variable": { "type": "string", "pattern": "\\$\\{", "description": "A value that holds `${VAR}` or `${VAR:-default}`." },
            "size": { "anyOf": [ { "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^[0-9]+(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$" } ] },
            "duration": { "anyOf": [ { "const": 0 }, { "type": "string", "pattern": "^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$", "minLength": 1 } ] },
            "share": { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?%$" },
        },
    });
    root.insert(
        "patternProperties".to_owned(),
        json!({ "^x-": { "description": "A place for anchors; it has no effect." } }),
    );
    let mut schema = match own {
        Value::Object(own) => own,
        _ => Map::new(),
    };
    schema.append(&mut root);
    Value::Object(schema)
}

fn structure(keys: &'static [Key]) -> Map<String, Value> {
    let properties: Map<String, Value> = keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> =
        keys.iter().filter(|key| matches!(key.default, Default::Required)).map(|key| key.name).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn property(key: &'static Key) -> Value {
    let mut schema = kind(&key.kind);
    let doc = match key.availability {
        Availability::Now => key.doc.to_owned(),
        _ => format!("{} Not available yet.", key.doc),
    };
    schema.insert("description".to_owned(), json!(doc));
    if let Default::Is(text) = key.default {
        schema.insert("default".to_owned(), plain_json(&file::literal(text, Place::default())));
    }
    Value::Object(schema)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => Map::from_iter([("const".to_owned(), other)]),
    }
}

/// Not text by itself: a variable may stand for it.
fn or_variable(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "$ref": "#/$defs/variable" }] })
}

fn kind(kind: &'static Kind) -> Map<String, Value> {
    let any_of = |schemas: Vec<Value>| json!({ "anyOf": schemas });
    let value = |kind: &'static Kind| Value::Object(self::kind(kind));
    object(match kind {
        Kind::Bool => or_variable(json!({ "type": "boolean" })),
        Kind::Int { min, max } => or_variable(json!({ "type": "integer", "minimum": min, "maximum": max })),
        Kind::Number { min, max } => or_variable(json!({ "type": "number", "minimum": min, "maximum": max })),
        Kind::OneOfNumbers(numbers) => or_variable(json!({ "enum": numbers })),
        Kind::Size { .. } => any_of(vec![json!({ "$ref": "#/$defs/size" }), json!({ "$ref": "#/$defs/variable" })]),
        Kind::Duration | Kind::PositiveDuration => {
            any_of(vec![json!({ "$ref": "#/$defs/duration" }), json!({ "$ref": "#/$defs/variable" })])
        }
        Kind::Share => any_of(vec![json!({ "$ref": "#/$defs/share" }), json!({ "$ref": "#/$defs/variable" })]),
        Kind::Words { now, later } => {
            let words: Vec<_> = now.iter().chain(*later).flat_map(|word| spellings(word)).collect();
            or_variable(json!({ "enum": words }))
        }
        Kind::Text(kind) => text(kind),
        Kind::Secret | Kind::File | Kind::Path => json!({ "type": "string", "minLength": 1 }),
        Kind::List { of, .. } => json!({ "type": "array", "items": value(of) }),
        Kind::OneOrMany { of, .. } => any_of(vec![value(of), json!({ "type": "array", "items": value(of) })]),
        Kind::Map { key, of, .. } => match key.pattern {
            Some(pattern) => {
                json!({ "type": "object", "propertyNames": { "pattern": pattern }, "additionalProperties": value(of) })
            }
            None => json!({ "type": "object", "additionalProperties": value(of) }),
        },
        Kind::Struct(keys) => Value::Object(structure(keys)),
        Kind::Or(words, other) => any_of(vec![json!({ "enum": words }), value(other)]),
        Kind::Either(first, second) => any_of(vec![value(first), value(second)]),
        Kind::Short(short, keys) => any_of(vec![value(short), Value::Object(structure(keys))]),
        Kind::Any => json!({}),
    })
}

/// `1.2` may be written with quotes and without.
fn spellings(word: &str) -> Vec<Value> {
    let text = json!(word);
    word.parse::<f64>().map_or(vec![text.clone()], |number| vec![text, json!(number)])
}

fn text(kind: &TextKind) -> Value {
    let text = match kind.pattern {
        Some(pattern) => or_variable(json!({ "type": "string", "pattern": pattern })),
        None => json!({ "type": "string" }),
    };
    if kind.numbers { json!({ "anyOf": [text, { "type": ["number", "boolean"] }] }) } else { text }
}

/// A default as JSON.
fn plain_json(node: &Node) -> Value {
    match &node.kind {
        NodeKind::Scalar(scalar) => match scalar.plain {
            Plain::Null => Value::Null,
            Plain::Bool(value) => json!(value),
            Plain::Int(value) => i64::try_from(value).map_or_else(|_| json!(scalar.text), |value| json!(value)),
            Plain::Float(value) => json!(value),
            Plain::Text => json!(scalar.text),
        },
        NodeKind::List(items) => Value::Array(items.iter().map(plain_json).collect()),
        NodeKind::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), plain_json(&entry.value))).collect())
        }
        NodeKind::Bad => Value::Null,
    }
}
