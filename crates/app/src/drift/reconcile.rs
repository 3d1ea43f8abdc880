//! Declared, completed and live, side by side: which fields are not as declared, who owns them, and what the
//! manifest would have to say.
//!
//! Three values meet at every field. What the manifest does not say and the completed object has is a default, and
//! no drift as long as it is that; what neither has was added; what the manifest says counts as it is completed.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Drifted;
use crate::transform::escape;

/// Somebody who owns a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct By {
    /// The field manager: `kubectl-edit`, `argocd-controller`, `kube-controller-manager`.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// When it last wrote.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub time: String,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}", self.manager, self.operation.to_lowercase())?;
        if !self.time.is_empty() {
            write!(f, " {}", self.time)?;
        }
        write!(f, ")")
    }
}

/// One step down, as both the path and the managed fields need it.
#[derive(Debug, Clone)]
enum Step<'a> {
    Key(&'a str),
    Item(Option<&'a Value>),
}

struct Run<'a> {
    original: &'a Value,
    at: String,
    steps: Vec<Step<'a>>,
    found: &'a mut Vec<Drifted>,
}

/// What the manifest would have to say, and every field for which that is something else.
pub(super) fn object(
    declared: &Value,
    completed: &Value,
    live: &Value,
    original: &Value,
    found: &mut Vec<Drifted>,
) -> Value {
    let mut run = Run { original, at: String::new(), steps: Vec::new(), found };
    let mut updated =
        run.value(Some(declared), Some(completed), Some(live)).unwrap_or_else(|| declared.clone());
    if declared.get("stringData").is_some() {
        plain_secrets(declared, &mut updated);
    }
    updated
}

/// Text that drifted goes back where it was declared: as text, if it is one.
fn plain_secrets(declared: &Value, updated: &mut Value) {
    let own = declared.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
    let plain = declared.get("stringData").and_then(Value::as_object).cloned().unwrap_or_default();
    for name in plain.keys().filter(|name| !own.contains_key(*name)) {
        let Some(Value::String(coded)) =
            updated.get_mut("data").and_then(|data| data.as_object_mut()?.shift_remove(name))
        else {
            continue;
        };
        let bytes = data_encoding::BASE64.decode(coded.as_bytes()).ok();
        match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(text) => updated["stringData"][name.as_str()] = Value::String(text),
            None => {
                updated["data"][name.as_str()] = Value::String(coded);
                if let Some(all) = updated.get_mut("stringData").and_then(Value::as_object_mut) {
                    all.shift_remove(name);
                }
            }
        }
    }
    if let Some(whole) = updated.as_object_mut() {
        for key in ["data", "stringData"] {
            let is_empty = whole.get(key).and_then(Value::as_object).is_some_and(Map::is_empty);
            if is_empty && declared.get(key).and_then(Value::as_object).is_none_or(|map| !map.is_empty()) {
                whole.shift_remove(key);
            }
        }
    }
}

/// A declaration without what a server would add to new list elements: as their neighbours in the list show it does.
pub(super) fn slim(updated: &Value, declared: Option<&Value>, completed: Option<&Value>) -> Value {
    match updated {
        Value::Object(map) => {
            let inner = |(key, value): (&String, &Value)| {
                let below = |whole: Option<&Value>| whole.and_then(|whole| whole.get(key)).cloned();
                (key.clone(), slim(value, below(declared).as_ref(), below(completed).as_ref()))
            };
            Value::Object(map.iter().map(inner).collect())
        }
        Value::Array(items) if names(items).is_some() => {
            let list = |whole: Option<&Value>| whole.and_then(Value::as_array).cloned().unwrap_or_default();
            let (said, full) = (list(declared), list(completed));
            let find =
                |list: &[Value], name: &str| list.iter().find(|item| name_of(item) == Some(name)).cloned();
            let each = |item: &Value| {
                let name = name_of(item).unwrap_or("");
                match find(&full, name) {
                    Some(completed) => slim(item, find(&said, name).as_ref(), Some(&completed)),
                    None => without_defaults(item, &said, &full),
                }
            };
            Value::Array(items.iter().map(each).collect())
        }
        other => other.clone(),
    }
}

fn without_defaults(item: &Value, said: &[Value], full: &[Value]) -> Value {
    let mut item = item.clone();
    if let Some(map) = item.as_object_mut() {
        map.retain(|key, value| {
            let is_default = |neighbour: &Value| {
                let declared = said.iter().find(|item| name_of(item) == name_of(neighbour));
                neighbour.get(key) == Some(value) && declared.is_some_and(|item| item.get(key).is_none())
            };
            !full.iter().any(is_default)
        });
    }
    item
}

impl<'a> Run<'a> {
    /// The new declaration of a value; none if it needs none.
    fn value(
        &mut self,
        declared: Option<&'a Value>,
        completed: Option<&'a Value>,
        live: Option<&'a Value>,
    ) -> Option<Value> {
        let some = |value: Option<&'a Value>| value.filter(|v| !v.is_null());
        let (said, completed, live) = (some(declared), some(completed), some(live));
        match (said, completed, live) {
            (said, Some(completed), Some(live)) if same(completed, live) => said.or(declared).cloned(),
            // An empty map or list, a field the server dropped, what another version defaults: nothing to see.
            (said, _, None) if said.is_none() => None,
            // A template without metadata has an empty one on some servers.
            (None, None, Some(Value::Object(live))) if live.is_empty() && self.at.ends_with("/metadata") => {
                None
            }
            (Some(said), None, None) => Some(said.clone()),
            (said, completed, Some(Value::Object(live)))
                if !matches!(said, Some(v) if !v.is_object())
                    && !matches!(completed, Some(v) if !v.is_object()) =>
            {
                self.map(said, completed, live)
            }
            (said, completed, Some(Value::Array(live)))
                if !matches!(said, Some(v) if !v.is_array())
                    && !matches!(completed, Some(v) if !v.is_array()) =>
            {
                self.list(said, completed, live)
            }
            (said, completed, live) => {
                self.tell(said.or(completed), live);
                live.cloned()
            }
        }
    }

    fn map(
        &mut self,
        declared: Option<&'a Value>,
        completed: Option<&'a Value>,
        live: &'a Map<String, Value>,
    ) -> Option<Value> {
        let none = declared.is_none() && completed.is_none();
        if none && !self.at.is_empty() && self.at != "/metadata" {
            // New as a whole.
            self.tell(None, Some(&Value::Object(live.clone())));
            return Some(Value::Object(live.clone()));
        }
        let said = declared.and_then(Value::as_object);
        let mut out = Map::new();
        let keys = said.into_iter().flat_map(Map::keys);
        let added = live.keys().filter(|key| said.is_none_or(|said| !said.contains_key(*key)));
        for key in keys.chain(added) {
            let length = self.at.len();
            self.at.push_str(&format!("/{}", escape(key)));
            self.steps.push(Step::Key(key));
            let inner = self.value(
                said.and_then(|map| map.get(key)),
                completed.and_then(|value| value.get(key)),
                live.get(key),
            );
            self.steps.pop();
            self.at.truncate(length);
            if let Some(inner) = inner {
                out.insert(key.clone(), inner);
            }
        }
        (declared.is_some() || !out.is_empty()).then_some(Value::Object(out))
    }

    fn list(
        &mut self,
        declared: Option<&'a Value>,
        completed: Option<&'a Value>,
        live: &'a Vec<Value>,
    ) -> Option<Value> {
        let items = |value: Option<&'a Value>| value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let (said, full) = (items(declared), items(completed));
        let named = [said, full, live].into_iter().all(|list| names(list).is_some());
        if !named && said.len() == full.len() && full.len() == live.len() {
            let mut out = Vec::new();
            for (index, live) in live.iter().enumerate() {
                out.extend(self.item(format!("/{index}"), said.get(index), full.get(index), live));
            }
            return Some(Value::Array(out));
        }
        if !named || full.is_empty() {
            self.tell(declared.or(completed), Some(&Value::Array(live.clone())));
            return Some(Value::Array(live.clone()));
        }
        let find = |list: &'a [Value], name: &str| list.iter().find(|item| name_of(item) == Some(name));
        let mut out = Vec::new();
        for item in live {
            let name = name_of(item).unwrap_or("");
            let (said, full) = (find(said, name), find(full, name));
            match full {
                Some(_) => out.extend(self.item(format!("[name={name}]"), said, full, item)),
                None => {
                    let length = self.at.len();
                    self.at.push_str(&format!("[name={name}]"));
                    self.steps.push(Step::Item(Some(item)));
                    self.tell(None, Some(item));
                    self.steps.pop();
                    self.at.truncate(length);
                    out.push(item.clone());
                }
            }
        }
        let is_live = |item: &&Value| find(live, name_of(item).unwrap_or("")).is_some();
        for gone in full.iter().filter(|item| !is_live(item)) {
            let name = name_of(gone).unwrap_or("");
            let length = self.at.len();
            self.at.push_str(&format!("[name={name}]"));
            self.tell(Some(find(said, name).unwrap_or(gone)), None);
            self.at.truncate(length);
        }
        let order =
            |list: &[Value]| -> Vec<String> { list.iter().filter_map(name_of).map(str::to_owned).collect() };
        let kept: Vec<String> = order(full).into_iter().filter(|n| find(live, n).is_some()).collect();
        let now: Vec<String> = order(live).into_iter().filter(|n| find(full, n).is_some()).collect();
        if kept != now {
            let length = self.at.len();
            self.at.push_str("[order]");
            self.tell(Some(&Value::from(kept)), Some(&Value::from(now)));
            self.at.truncate(length);
        }
        (declared.is_some() || !out.is_empty()).then_some(Value::Array(out))
    }

    fn item(
        &mut self,
        step: String,
        said: Option<&'a Value>,
        full: Option<&'a Value>,
        live: &'a Value,
    ) -> Option<Value> {
        let length = self.at.len();
        self.at.push_str(&step);
        self.steps.push(Step::Item(Some(live)));
        let out = self.value(said, full, Some(live));
        self.steps.pop();
        self.at.truncate(length);
        out
    }

    fn tell(&mut self, declared: Option<&Value>, live: Option<&Value>) {
        let by = owners(self.original, &self.steps);
        self.found.push(Drifted {
            at: self.at.clone(),
            declared: declared.cloned(),
            live: live.cloned(),
            by,
        });
    }
}

fn name_of(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

/// The names of a list in which every element has one of its own.
fn names(list: &[Value]) -> Option<Vec<&str>> {
    let names: Vec<&str> = list.iter().map(name_of).collect::<Option<_>>()?;
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1]).then_some(names)
}

/// One value: numbers by their worth, amounts too (`1000m` is `1`), nothing by being empty.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::String(x), Value::String(y)) => {
            x == y || (!is_plain_number(x) && apiserver::same_quantity(x, y))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            let within = |one: &Map<String, Value>, other: &Map<String, Value>| {
                one.iter().all(|(key, value)| match other.get(key) {
                    Some(other) => same(value, other),
                    None => value.is_null(),
                })
            };
            within(x, y) && within(y, x)
        }
        _ => a == b,
    }
}

/// `1.0` and `1` are two versions of something, not one amount; an amount says its unit on one side at least.
fn is_plain_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Who owns what a path leads to.
fn owners(original: &Value, steps: &[Step<'_>]) -> Vec<By> {
    let entries = original.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
    let mut by: Vec<By> = entries
        .filter(|entry| entry.get("fieldsV1").is_some_and(|fields| owns(fields, steps)))
        .map(|entry| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
            By { manager: text("manager"), operation: text("operation"), time: text("time") }
        })
        .collect();
    by.sort();
    by.dedup();
    by
}

fn owns(fields: &Value, steps: &[Step<'_>]) -> bool {
    let Some((step, rest)) = steps.split_first() else { return true };
    let Some(fields) = fields.as_object() else { return false };
    let below = |inner: &Value| {
        // An atomic field is owned as a whole, so what is in it is.
        let is_leaf = inner.as_object().is_none_or(Map::is_empty);
        is_leaf || owns(inner, rest)
    };
    match step {
        Step::Key(key) => fields.get(&format!("f:{key}")).is_some_and(below),
        Step::Item(item) => fields.iter().any(|(name, inner)| {
            let Some(keys) = name.strip_prefix("k:") else { return false };
            let Ok(Value::Object(keys)) = serde_json::from_str(keys) else { return false };
            item.is_some_and(|item| keys.iter().all(|(key, value)| item.get(key) == Some(value)))
                && below(inner)
        }),
    }
}
