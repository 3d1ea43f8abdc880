//! The columns `kubectl get` prints.
//!
//! kubectl prints what the server says: without these it would show names and ages only. Built-in
//! kinds have their columns in [`crate::columns`], custom kinds bring theirs in their definitions.

use serde_json::{Value, json};

use crate::columns::{AGE, BuiltIn, NAME, age_of, built_in};
use crate::finalize::remove_field;
use crate::kinds::Kind;
use crate::request::{Query, Target, View};

/// One object, in the view asked for.
pub fn one(target: &Target, view: View, query: &Query, object: Value, now: i64) -> Value {
    match view {
        View::Full => object,
        View::Metadata => partial(object),
        View::Table(version) => {
            let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
            table(target, version, query, std::iter::once(object), metadata, now)
        }
    }
}

/// Many objects, in the view asked for.
pub fn many(
    target: &Target,
    view: View,
    query: &Query,
    items: impl Iterator<Item = Value>,
    metadata: Value,
    now: i64,
) -> Value {
    match view {
        View::Full => json!({
            "kind": target.kind.list_kind,
            "apiVersion": target.kind.api_version(&target.version),
            "metadata": metadata,
            "items": items.map(|item| listed(&target.kind, item)).collect::<Vec<Value>>(),
        }),
        View::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": items.map(partial).collect::<Vec<Value>>(),
        }),
        View::Table(version) => table(target, version, query, items, metadata, now),
    }
}

/// An object as it stands in a list. Real servers leave the kind of a built-in item to its list.
pub fn listed(kind: &Kind, mut object: Value) -> Value {
    if !kind.custom {
        remove_field(&mut object, "apiVersion");
        remove_field(&mut object, "kind");
    }
    object
}

fn partial(object: Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

fn table(
    target: &Target,
    version: &str,
    query: &Query,
    items: impl Iterator<Item = Value>,
    metadata: Value,
    now: i64,
) -> Value {
    let columns = columns(target);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|c| {
            let format = if c.name == "Name" { "name" } else { "" };
            json!({ "name": c.name, "type": c.kind, "format": format, "description": c.name, "priority": c.priority })
        })
        .collect();
    let include = query.get("includeObject");
    let rows: Vec<Value> = items
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|c| c.cell(&object, now)).collect();
            let mut row = json!({ "cells": cells });
            match include {
                "None" => row["object"] = Value::Null,
                "Object" => row["object"] = object,
                _ => row["object"] = partial(object),
            }
            row
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

struct Column {
    name: String,
    kind: String,
    priority: i64,
    value: Cell,
}

enum Cell {
    /// Computed by the table of built-in columns.
    Built(fn(&Value, i64) -> Value),
    /// A JSON path of a custom column; dates are shown as ages.
    Path(String),
    /// As the server printed it that this one stands for.
    Printed(std::sync::Arc<crate::served::Printed>, usize),
}

impl Column {
    fn cell(&self, object: &Value, now: i64) -> Value {
        match &self.value {
            Cell::Built(cell) => cell(object, now),
            Cell::Printed(printed, at) => {
                let text = |key: &str| object["metadata"][key].as_str().unwrap_or("").to_string();
                let row = printed.rows.get(&(text("namespace"), text("name")));
                row.and_then(|row| row.get(*at)).cloned().unwrap_or(Value::Null)
            }
            Cell::Path(path) => {
                let found = json_path(object, path);
                match (self.kind.as_str(), found.as_slice()) {
                    (_, []) => Value::Null,
                    ("date", [Value::String(time), ..]) => json!(age_of(time, now)),
                    ("string", [Value::String(text)]) => json!(text),
                    ("integer" | "number" | "boolean", [one, ..]) => (*one).clone(),
                    (_, many) => {
                        let texts: Vec<String> = many
                            .iter()
                            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string))
                            .collect();
                        json!(texts.join(" "))
                    }
                }
            }
        }
    }
}

fn columns(target: &Target) -> Vec<Column> {
    let built = |(name, kind, priority, cell): &BuiltIn| Column {
        name: (*name).into(),
        kind: (*kind).into(),
        priority: *priority,
        value: Cell::Built(*cell),
    };
    let kind = &target.kind;
    if let Some(printed) = &kind.printed {
        let of = |(at, column): (usize, &Value)| {
            let text = |key: &str| column[key].as_str().unwrap_or("").to_string();
            // How old it is depends on when one looks.
            if text("name") == "Age" {
                return built(&AGE);
            }
            Column {
                name: text("name"),
                kind: text("type"),
                priority: column["priority"].as_i64().unwrap_or(0),
                value: Cell::Printed(printed.clone(), at),
            }
        };
        return printed.columns.iter().enumerate().map(of).collect();
    }
    if !kind.custom {
        let list = built_in(kind);
        // A table of events begins with when, not with a name nobody chose.
        let name = if kind.plural == "events" { None } else { Some(&NAME) };
        return name.into_iter().chain(list).map(built).collect();
    }
    let own = kind.version(&target.version).map(|v| v.columns.clone()).unwrap_or_default();
    let mut columns = vec![built(&NAME)];
    for column in &own {
        let text = |key: &str| column[key].as_str().unwrap_or("").to_string();
        columns.push(Column {
            name: text("name"),
            kind: text("type"),
            priority: column["priority"].as_i64().unwrap_or(0),
            value: Cell::Path(text("jsonPath")),
        });
    }
    if own.is_empty() {
        columns.push(built(&AGE));
    }
    columns
}

/// The values a JSON path leads to: fields, indexes, `[*]` and `[?(@.field=="value")]`, which is what
/// definitions use.
pub fn json_path<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = closing(after) else { return Vec::new() };
            let (inside, tail) = (&after[..end], &after[end + 1..]);
            rest = tail;
            found = found.into_iter().flat_map(|value| pick(value, inside)).collect();
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let mut key = String::new();
            let mut chars = rest.char_indices();
            let mut end = rest.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => key.extend(chars.next().map(|(_, c)| c)),
                    '.' | '[' => {
                        end = at;
                        break;
                    }
                    c => key.push(c),
                }
            }
            if end == 0 && !rest.starts_with('[') {
                return Vec::new();
            }
            rest = &rest[end..];
            if !key.is_empty() {
                found = match key.as_str() {
                    "*" => found.into_iter().flat_map(|v| pick(v, "*")).collect(),
                    key => found.into_iter().filter_map(|value| value.get(key)).collect(),
                };
            }
        }
    }
    found.retain(|v| !v.is_null());
    found
}

/// The end of a bracket, past any brackets and quotes inside it.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '(') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']' | ')') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn pick<'a>(value: &'a Value, inside: &str) -> Vec<&'a Value> {
    let inside = inside.trim();
    if inside == "*" {
        return match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        };
    }
    if let Some(test) = inside.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let (path, equal, wanted) = match (test.split_once("=="), test.split_once("!=")) {
            (Some((path, wanted)), _) => (path, true, wanted),
            (None, Some((path, wanted))) => (path, false, wanted),
            (None, None) => {
                return items
                    .iter()
                    .filter(|i| !json_path(i, test.trim().trim_start_matches('@')).is_empty())
                    .collect();
            }
        };
        let wanted = wanted.trim().trim_matches(['"', '\'']);
        let path = path.trim().trim_start_matches('@');
        let is = |item: &Value| {
            let found = json_path(item, path);
            let text = found.first().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string));
            (text.as_deref() == Some(wanted)) == equal
        };
        return items.iter().filter(|i| is(i)).collect();
    }
    if let Ok(at) = inside.parse::<i64>() {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let at = if at < 0 { items.len() as i64 + at } else { at };
        return usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect();
    }
    value.get(inside.trim_matches(['"', '\''])).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_columns_find_their_values() {
        let object = json!({"metadata": {"annotations": {"a.b/c": "x"}}, "spec": {"n": 3, "list": [{"k": 1}, {"k": 2}]},
            "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let check = |path: &str, expect: &[Value]| {
            let found: Vec<Value> = json_path(&object, path).into_iter().cloned().collect();
            assert_eq!(found, expect, "{path}");
        };
        check(".spec.n", &[json!(3)]);
        check(".status.conditions[?(@.type==\"Ready\")].status", &[json!("True")]);
        check(".status.conditions[?(@.type=='Synced')].status", &[json!("False")]);
        check(".spec.list[*].k", &[json!(1), json!(2)]);
        check(".spec.list[-1].k", &[json!(2)]);
        check(".metadata.annotations.a\\.b/c", &[json!("x")]);
        check(".metadata.annotations['a.b/c']", &[json!("x")]);
        check(".nowhere.at.all", &[]);
    }
}
