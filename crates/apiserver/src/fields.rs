//! Sets of fields: who owns what, in the `FieldsV1` form of `managedFields`.
//!
//! A set is a tree of steps; a node says whether the value at its path is a member. Lists that merge
//! by key are walked by key, so that two managers can own different fields of one container.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::schema::{ListKind, Shape};

/// One step down an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Into a field or map entry.
    Field(String),
    /// To the list element with these keys, as JSON with sorted keys.
    Key(String),
    /// To this element of a set, as JSON.
    Value(String),
    /// To an element by position; only read, never made.
    Index(usize),
}

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Set {
    /// Is the path that leads here a member?
    pub here: bool,
    /// Members further down.
    pub below: BTreeMap<Step, Set>,
}

impl Set {
    /// Reads `fieldsV1`. Steps of unknown form are skipped: we cannot own what we cannot name.
    pub fn from_json(value: &Value) -> Set {
        let mut set = Set::default();
        for (key, inner) in value.as_object().into_iter().flatten() {
            let step = match key.split_once(':') {
                None if key == "." => {
                    set.here = true;
                    continue;
                }
                Some(("f", name)) => Step::Field(name.into()),
                Some(("k", keys)) => Step::Key(canonical(keys)),
                Some(("v", value)) => Step::Value(canonical(value)),
                Some(("i", at)) => Step::Index(at.parse().unwrap_or(usize::MAX)),
                _ => continue,
            };
            let mut child = Set::from_json(inner);
            // `{}` is a member; a node with children is one only if it says so with a dot.
            if child.below.is_empty() {
                child.here = true;
            }
            set.below.insert(step, child);
        }
        set
    }

    /// Writes `fieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (step, child) in &self.below {
            let key = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Key(keys) => format!("k:{keys}"),
                Step::Value(value) => format!("v:{value}"),
                Step::Index(at) => format!("i:{at}"),
            };
            let mut inner = child.to_json();
            if child.here
                && !child.below.is_empty()
                && let Some(inner) = inner.as_object_mut()
            {
                inner.insert(".".into(), json!({}));
                inner.sort_keys();
            }
            map.insert(key, inner);
        }
        map.sort_keys();
        Value::Object(map)
    }

    /// No members at all?
    pub fn is_empty(&self) -> bool {
        !self.here && self.below.values().all(Set::is_empty)
    }

    /// Adds all members of another set.
    pub fn add(&mut self, other: &Set) {
        self.here |= other.here;
        for (step, theirs) in &other.below {
            self.below.entry(step.clone()).or_default().add(theirs);
        }
    }

    /// Takes out all members of another set. Where `whole` members of it are removed objects, their
    /// inner members are listed too, so a path-by-path difference is enough.
    pub fn subtract(&mut self, other: &Set) {
        self.here &= !other.here;
        for (step, theirs) in &other.below {
            if let Some(ours) = self.below.get_mut(step) {
                ours.subtract(theirs);
                if ours.is_empty() {
                    self.below.remove(step);
                }
            }
        }
    }

    /// Members of both.
    pub fn intersect(&self, other: &Set) -> Set {
        let mut both = Set { here: self.here && other.here, below: BTreeMap::new() };
        for (step, theirs) in &other.below {
            if let Some(ours) = self.below.get(step) {
                let inner = ours.intersect(theirs);
                if !inner.is_empty() {
                    both.below.insert(step.clone(), inner);
                }
            }
        }
        both
    }

    /// Takes out a field and everything below it.
    pub fn forget(&mut self, path: &[&str]) {
        let [first, rest @ ..] = path else { return };
        let step = Step::Field((*first).into());
        if rest.is_empty() {
            self.below.remove(&step);
        } else if let Some(child) = self.below.get_mut(&step) {
            child.forget(rest);
            if child.is_empty() {
                self.below.remove(&step);
            }
        }
    }

    /// Keeps only what is below a top-level field.
    pub fn keep_only(&mut self, field: &str) {
        self.below.retain(|step, _| *step == Step::Field(field.into()));
    }

    /// Takes out the membership of one path, not of what is below it.
    pub fn unmark(&mut self, path: &[&str]) {
        match path {
            [] => self.here = false,
            [first, rest @ ..] => {
                let step = Step::Field((*first).into());
                if let Some(child) = self.below.get_mut(&step) {
                    child.unmark(rest);
                    if child.is_empty() {
                        self.below.remove(&step);
                    }
                }
            }
        }
    }

    /// The members as text, such as `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.write_paths("", &mut out);
        out
    }

    fn write_paths(&self, path: &str, out: &mut Vec<String>) {
        if self.here {
            out.push(path.to_string());
        }
        for (step, child) in &self.below {
            let part = match step {
                Step::Field(name) => format!(".{name}"),
                Step::Key(keys) => {
                    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                    let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    format!("[{}]", keys.join(","))
                }
                Step::Value(value) => format!("[={value}]"),
                Step::Index(at) => format!("[{at}]"),
            };
            child.write_paths(&format!("{path}{part}"), out);
        }
    }
}

fn canonical(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            value.sort_all_objects();
            value.to_string()
        }
        Err(_) => text.to_string(),
    }
}

/// The step to a list element, if the list merges by key or as a set and the element has its keys.
pub fn step_of(shape: Shape<'_>, item: &Value) -> Option<Step> {
    match shape.list() {
        ListKind::Atomic => None,
        ListKind::Set => Some(Step::Value(item.to_string())),
        ListKind::Keys(keys) => {
            let mut map = Map::new();
            for key in keys {
                match item.get(key).cloned().or_else(|| shape.key_default(key)) {
                    Some(value) => map.insert(key.to_string(), value),
                    None => continue,
                };
            }
            map.sort_keys();
            (!map.is_empty()).then(|| Step::Key(Value::Object(map).to_string()))
        }
    }
}

fn walks(shape: Shape<'_>, value: &Value) -> bool {
    match value {
        Value::Object(_) => !shape.atomic(),
        Value::Array(_) => shape.list() != ListKind::Atomic,
        _ => false,
    }
}

/// The fields an applied configuration claims: its leaves, and the list elements it names.
pub fn claimed(shape: Shape<'_>, value: &Value) -> Set {
    collect(shape, value, false)
}

/// All fields of a value, containers that a writer brought into being included.
pub fn written(shape: Shape<'_>, value: &Value) -> Set {
    collect(shape, value, true)
}

fn collect(shape: Shape<'_>, value: &Value, containers: bool) -> Set {
    let mut set = Set::default();
    match value {
        Value::Object(map) if !map.is_empty() && walks(shape, value) => {
            // Structs of built-in types are always there; maps and custom objects are brought in.
            let is_struct = matches!(shape, Shape::Object(_) | Shape::Custom(_))
                || matches!(shape, Shape::Typed(crate::types::Ty::Named(_), _));
            set.here = containers && !is_struct;
            for (key, inner) in map {
                let child = shape.child(key).unwrap_or(Shape::Unknown);
                set.below.insert(Step::Field(key.clone()), collect(child, inner, containers));
            }
        }
        Value::Array(items) if !items.is_empty() && walks(shape, value) => {
            set.here = containers;
            for item in items {
                if let Some(step) = step_of(shape, item) {
                    let mut inner = collect(shape.item(), item, containers);
                    inner.here = true;
                    set.below.insert(step, inner);
                }
            }
        }
        _ => set.here = true,
    }
    set
}

/// What happened between two states of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// Fields that are new or have another value.
    pub changed: Set,
    /// Fields that are gone.
    pub removed: Set,
}

/// Compares two values field by field.
pub fn compare(shape: Shape<'_>, old: &Value, new: &Value) -> Difference {
    let mut out = Difference::default();
    walk(shape, Some(old), Some(new), &mut out.changed, &mut out.removed);
    out
}

fn walk(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>, changed: &mut Set, removed: &mut Set) {
    let (old, new) = match (old, new) {
        (None, None) => return,
        (None, Some(new)) => return changed.add(&written(shape, new)),
        (Some(old), None) => return removed.add(&mark_all(written(shape, old))),
        (Some(old), Some(new)) if old == new => return,
        (Some(old), Some(new)) => (old, new),
    };
    match (old, new) {
        (Value::Object(a), Value::Object(b)) if !shape.atomic() => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                let child = shape.child(key).unwrap_or(Shape::Unknown);
                descend(Step::Field(key.clone()), child, a.get(key), b.get(key), changed, removed);
            }
        }
        (Value::Array(a), Value::Array(b)) if shape.list() != ListKind::Atomic => {
            let index = |items: &'_ [Value]| -> Vec<(Option<Step>, usize)> {
                items.iter().enumerate().map(|(at, item)| (step_of(shape, item), at)).collect()
            };
            let (old_steps, new_steps) = (index(a), index(b));
            let position = |steps: &[(Option<Step>, usize)], step: &Step| {
                steps.iter().find(|(s, _)| s.as_ref() == Some(step)).map(|(_, at)| *at)
            };
            let mut seen: Vec<&Step> = Vec::new();
            for (step, _) in old_steps.iter().chain(&new_steps) {
                let Some(step) = step else { continue };
                if seen.contains(&step) {
                    continue;
                }
                seen.push(step);
                let x = position(&old_steps, step).and_then(|at| a.get(at));
                let y = position(&new_steps, step).and_then(|at| b.get(at));
                let before = changed.below.contains_key(step);
                descend(step.clone(), shape.item(), x, y, changed, removed);
                // A new or removed element is itself a member.
                if let (None, Some(inner), false) = (x, changed.below.get_mut(step), before) {
                    inner.here = true;
                }
                if let (None, Some(inner)) = (y, removed.below.get_mut(step)) {
                    inner.here = true;
                }
            }
        }
        _ => changed.here = true,
    }
}

fn descend(
    step: Step,
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    changed: &mut Set,
    removed: &mut Set,
) {
    let (mut c, mut r) = (Set::default(), Set::default());
    walk(shape, old, new, &mut c, &mut r);
    if !c.is_empty() {
        changed.below.entry(step.clone()).or_default().add(&c);
    }
    if !r.is_empty() {
        removed.below.entry(step).or_default().add(&r);
    }
}

/// A removed value takes every path inside it along.
fn mark_all(mut set: Set) -> Set {
    set.here = true;
    set.below = set.below.into_iter().map(|(step, child)| (step, mark_all(child))).collect();
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    fn spec(containers: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn fields_v1_survives_reading_and_writing() {
        let json = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {
            "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:finalizers": {"v:\"x\"": {}}}});
        assert_eq!(Set::from_json(&json).to_json(), json);
    }

    #[test]
    fn a_claim_names_leaves_and_elements() {
        let kinds = Kinds::default();
        let kind = kinds.get("apps", "deployments").unwrap();
        let object = spec(json!([{"name": "a", "ports": [{"containerPort": 80}], "args": ["x"]}]));
        assert_eq!(
            claimed(Shape::of(kind, "v1"), &object).paths(),
            [
                ".spec.template.spec.containers[name=\"a\"]",
                ".spec.template.spec.containers[name=\"a\"].args",
                ".spec.template.spec.containers[name=\"a\"].name",
                ".spec.template.spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.template.spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ]
        );
    }

    #[test]
    fn a_comparison_names_exactly_what_changed() {
        let kinds = Kinds::default();
        let kind = kinds.get("apps", "deployments").unwrap();
        let shape = Shape::of(kind, "v1");
        let old = spec(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b"}]));
        let new = spec(json!([{"name": "c"}, {"name": "a", "image": "2"}]));
        let found = compare(shape, &old, &new);
        let at = ".spec.template.spec.containers";
        assert_eq!(
            found.changed.paths(),
            [
                format!("{at}[name=\"a\"].image"),
                format!("{at}[name=\"c\"]"),
                format!("{at}[name=\"c\"].name")
            ]
        );
        assert_eq!(
            found.removed.paths(),
            [format!("{at}[name=\"a\"].tty"), format!("{at}[name=\"b\"]"), format!("{at}[name=\"b\"].name")]
        );
        assert!(compare(shape, &old, &old).changed.is_empty());
    }
}
