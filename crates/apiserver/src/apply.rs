//! Server-side apply, and the `managedFields` that every other write keeps up to date for it.
//!
//! A manager owns the fields it applied last. Applying again without a field gives the field up, and
//! removes it if nobody else owns it. A field that another manager owns and that would change is a
//! conflict, unless forced. Other writes take the fields they change from whoever owned them.

use serde_json::{Map, Value, json};

use crate::fields::{self, Set, Step};
use crate::kinds::Kind;
use crate::patch::interleave;
use crate::schema::{ListKind, Shape};
use crate::status::Fault;

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub struct Manager {
    name: String,
    /// `Apply` or `Update`.
    operation: String,
    api_version: String,
    time: String,
    subresource: String,
    set: Set,
}

/// Who writes, and how.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    /// The field manager.
    pub manager: &'a str,
    /// The version spoken.
    pub api_version: String,
    /// Empty, `status` or `scale`.
    pub sub: &'a str,
    /// The time of the write.
    pub now: String,
}

/// Reads `metadata.managedFields`.
pub fn managers(object: &Value) -> Vec<Manager> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_string();
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let entries = entries.filter(|e| e["manager"].is_string() || e["operation"].is_string());
    entries
        .map(|e| Manager {
            name: text(&e["manager"]),
            operation: text(&e["operation"]),
            api_version: text(&e["apiVersion"]),
            time: text(&e["time"]),
            subresource: text(&e["subresource"]),
            set: Set::from_json(&e["fieldsV1"]),
        })
        .collect()
}

fn write(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|m| !m.set.is_empty());
    managers.sort_by(|a, b| {
        (&a.operation, &a.time, &a.name, &a.subresource).cmp(&(
            &b.operation,
            &b.time,
            &b.name,
            &b.subresource,
        ))
    });
    let entries: Vec<Value> = managers
        .into_iter()
        .map(|m| {
            let mut entry =
                json!({ "manager": m.name, "operation": m.operation, "apiVersion": m.api_version });
            if !m.time.is_empty() {
                entry["time"] = json!(m.time);
            }
            entry["fieldsType"] = json!("FieldsV1");
            entry["fieldsV1"] = m.set.to_json();
            if !m.subresource.is_empty() {
                entry["subresource"] = json!(m.subresource);
            }
            entry
        })
        .collect();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        if entries.is_empty() {
            metadata.shift_remove("managedFields");
        } else {
            metadata.insert("managedFields".into(), json!(entries));
        }
    }
}

/// Fields nobody owns because the server sets them.
const SYSTEM: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "generateName"],
    &["metadata", "namespace"],
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
    &["metadata", "generation"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "deletionGracePeriodSeconds"],
    &["metadata", "selfLink"],
    &["metadata", "managedFields"],
];

/// Leaves in a set only what a write through this endpoint can own.
fn strip(set: &mut Set, kind: &Kind, version: &str, sub: &str) {
    for path in SYSTEM {
        set.forget(path);
    }
    set.unmark(&[]);
    set.unmark(&["metadata"]);
    if set.below.get(&Step::Field("metadata".into())).is_some_and(Set::is_empty) {
        set.below.remove(&Step::Field("metadata".into()));
    }
    let isolated = kind.version(version).is_some_and(|v| v.status);
    match sub {
        "status" => set.keep_only("status"),
        "" if isolated => set.forget(&["status"]),
        _ => {}
    }
}

/// Keeps `managedFields` up to date after a write that was not an apply. `old` is absent on create.
pub fn record_update(
    kind: &Kind,
    shape: Shape<'_>,
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer<'_>,
) {
    // A client may edit managedFields itself; an empty list means "as they were".
    let mut all = managers(new);
    let reset = new["metadata"]["managedFields"].as_array().is_some_and(|list| list == &[json!({})]);
    if let (true, false, Some(old)) = (all.is_empty(), reset, old) {
        all = managers(old);
    }
    let empty = json!({});
    let mut difference = fields::compare(shape, old.unwrap_or(&empty), new);
    strip(&mut difference.changed, kind, &kind.storage, writer.sub);
    strip(&mut difference.removed, kind, &kind.storage, writer.sub);
    if !difference.changed.is_empty() || !difference.removed.is_empty() {
        let mine = |m: &Manager| {
            m.operation == "Update"
                && m.name == writer.manager
                && m.subresource == writer.sub
                && m.api_version == writer.api_version
        };
        if !all.iter().any(mine) {
            all.push(Manager {
                name: writer.manager.into(),
                operation: "Update".into(),
                api_version: writer.api_version.clone(),
                time: String::new(),
                subresource: writer.sub.into(),
                set: Set::default(),
            });
        }
        for manager in &mut all {
            if mine(manager) {
                manager.set.add(&difference.changed);
                manager.time = writer.now.clone();
            } else {
                manager.set.subtract(&difference.changed);
            }
            manager.set.subtract(&difference.removed);
        }
    }
    write(new, all);
}

/// What an apply makes of a live object.
pub fn apply(
    kind: &Kind,
    shape: Shape<'_>,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Fault> {
    let mut all = live.map(managers).unwrap_or_default();
    if let (true, Some(live)) = (all.is_empty(), live) {
        // It was made before anybody kept accounts: whoever made it owns all of it.
        let mut set = fields::claimed(shape, live);
        strip(&mut set, kind, &kind.storage, "");
        all.push(Manager {
            name: "before-first-apply".into(),
            operation: "Update".into(),
            api_version: writer.api_version.clone(),
            time: String::new(),
            subresource: String::new(),
            set,
        });
    }
    let mine =
        |m: &Manager| m.operation == "Apply" && m.name == writer.manager && m.subresource == writer.sub;
    let mut claim = fields::claimed(shape, config);
    strip(&mut claim, kind, &kind.storage, writer.sub);

    let mut given_up = all.iter().find(|m| mine(m)).map(|m| m.set.clone()).unwrap_or_default();
    let before = given_up.clone();
    given_up.subtract(&claim);
    let mut kept = claim.clone();
    for other in all.iter().filter(|m| !mine(m)) {
        kept.add(&other.set);
    }

    let empty = json!({});
    let live_or_empty = live.unwrap_or(&empty);
    let mut merged = merge(shape, Some(live_or_empty), config);
    remove(shape, &mut merged, &given_up, &kept);

    let mut difference = fields::compare(shape, live_or_empty, &merged);
    strip(&mut difference.changed, kind, &kind.storage, writer.sub);
    if !force {
        let conflicts: Vec<(&Manager, Vec<String>)> = all
            .iter()
            .filter(|m| !mine(m))
            .map(|m| (m, m.set.intersect(&difference.changed).paths()))
            .filter(|(_, paths)| !paths.is_empty())
            .collect();
        if !conflicts.is_empty() {
            return Err(conflict(&conflicts));
        }
    }
    if claim != before {
        all.retain(|m| !mine(m));
        all.push(Manager {
            name: writer.manager.into(),
            operation: "Apply".into(),
            api_version: writer.api_version.clone(),
            time: writer.now.clone(),
            subresource: writer.sub.into(),
            set: claim,
        });
    }
    for manager in &mut all {
        if !mine(manager) {
            manager.set.subtract(&difference.changed);
        }
    }
    write(&mut merged, all);
    Ok(merged)
}

fn conflict(conflicts: &[(&Manager, Vec<String>)]) -> Fault {
    let who = |m: &Manager| {
        let sub = if m.subresource.is_empty() {
            String::new()
        } else {
            format!(" with subresource \"{}\"", m.subresource)
        };
        match m.operation.as_str() {
            "Update" => format!("\"{}\"{sub} using {}", m.name, m.api_version),
            _ => format!("\"{}\"{sub}", m.name),
        }
    };
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for (manager, paths) in conflicts {
        lines.push(format!("conflicts with {}:", who(manager)));
        for path in paths {
            lines.push(format!("- {path}"));
            causes.push(json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", who(manager)),
                "field": path,
            }));
        }
    }
    let text = match conflicts {
        [(manager, paths)] if paths.len() == 1 => format!("conflict with {}: {}", who(manager), paths[0]),
        _ => lines.join("\n"),
    };
    let noun = if count == 1 { "conflict" } else { "conflicts" };
    Fault::apply_conflict(format!("Apply failed with {count} {noun}: {text}"), causes)
}

/// Lays a configuration over a live value.
fn merge(shape: Shape<'_>, live: Option<&Value>, config: &Value) -> Value {
    match (live, config) {
        (live, Value::Object(config)) if !shape.atomic() => {
            let mut out: Map<String, Value> = live.and_then(Value::as_object).cloned().unwrap_or_default();
            for (key, value) in config {
                let child = shape.child(key).unwrap_or(Shape::Unknown);
                let merged = merge(child, out.get(key), value);
                out.insert(key.clone(), merged);
            }
            Value::Object(out)
        }
        (Some(Value::Array(live)), Value::Array(config)) if shape.list() != ListKind::Atomic => {
            let id = |item: &Value| format!("{:?}", fields::step_of(shape, item));
            let mut out = live.clone();
            for item in config {
                match out.iter_mut().find(|o| id(o) == id(item)) {
                    Some(existing) => *existing = merge(shape.item(), Some(existing), item),
                    None => out.push(item.clone()),
                }
            }
            let wanted: Vec<String> = config.iter().map(id).collect();
            let before: Vec<String> = live.iter().map(id).collect();
            Value::Array(interleave(out, &wanted, &before, id))
        }
        (_, config) => config.clone(),
    }
}

/// Removes the fields given up, except where somebody else keeps them or something inside them.
fn remove(shape: Shape<'_>, value: &mut Value, gone: &Set, kept: &Set) {
    let none = Set::default();
    for (step, inner) in &gone.below {
        let keep = kept.below.get(step).unwrap_or(&none);
        match (step, &mut *value) {
            (Step::Field(name), Value::Object(map)) => {
                let Some(child) = map.get_mut(name) else { continue };
                let was_filled = !is_hollow(child);
                remove(shape.child(name).unwrap_or(Shape::Unknown), child, inner, keep);
                let emptied = was_filled && is_hollow(child);
                if keep.is_empty() && (inner.here || emptied) {
                    map.shift_remove(name);
                }
            }
            (Step::Key(_) | Step::Value(_), Value::Array(items)) => {
                let Some(at) = items.iter().position(|i| fields::step_of(shape, i).as_ref() == Some(step))
                else {
                    continue;
                };
                if keep.is_empty() {
                    items.remove(at);
                } else if let Some(item) = items.get_mut(at) {
                    remove(shape.item(), item, inner, keep);
                }
            }
            _ => {}
        }
    }
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    fn writer(manager: &str) -> Writer<'_> {
        Writer { manager, api_version: "apps/v1".into(), sub: "", now: "2026-01-01T00:00:00Z".into() }
    }

    fn deployment(spec: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
    }

    /// Applies configurations one after the other: (manager, spec, force).
    fn applied(steps: &[(&str, Value, bool)]) -> Result<Value, Fault> {
        let kinds = Kinds::default();
        let kind = kinds.get("apps", "deployments").unwrap();
        let mut live: Option<Value> = None;
        for (manager, spec, force) in steps {
            let config = deployment(spec.clone());
            live =
                Some(apply(kind, Shape::of(kind, "v1"), live.as_ref(), &config, &writer(manager), *force)?);
        }
        Ok(live.unwrap())
    }

    #[test]
    fn a_field_no_longer_applied_goes_unless_somebody_else_owns_it() {
        let check = |steps: &[(&str, Value, bool)], expect: Value| {
            assert_eq!(applied(steps).unwrap()["spec"], expect);
        };
        check(
            &[("a", json!({"replicas": 2, "paused": true}), false), ("a", json!({"paused": true}), false)],
            json!({"paused": true}),
        );
        check(
            &[
                ("a", json!({"replicas": 2, "paused": true}), false),
                ("b", json!({"replicas": 2}), false),
                ("a", json!({"paused": true}), false),
            ],
            json!({"replicas": 2, "paused": true}),
        );
        let pod = |containers: Value| json!({"template": {"spec": {"containers": containers}}});
        check(
            &[
                ("a", pod(json!([{"name": "x"}, {"name": "y"}])), false),
                ("a", pod(json!([{"name": "y"}])), false),
            ],
            pod(json!([{"name": "y"}])),
        );
        check(
            &[
                ("a", pod(json!([{"name": "x", "image": "1"}])), false),
                ("b", pod(json!([{"name": "x", "tty": true}])), false),
            ],
            pod(json!([{"name": "x", "image": "1", "tty": true}])),
        );
        check(
            &[
                ("a", json!({"strategy": {"rollingUpdate": {"maxSurge": 1}}, "paused": true}), false),
                ("a", json!({"paused": true}), false),
            ],
            json!({"paused": true}),
        );
    }

    #[test]
    fn taking_a_field_from_another_manager_is_a_conflict_until_forced() {
        let fault = applied(&[("a", json!({"replicas": 2}), false), ("b", json!({"replicas": 3}), false)])
            .unwrap_err();
        assert_eq!(fault.code, 409);
        assert_eq!(&*fault.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
        assert_eq!(fault.status()["details"]["causes"][0]["reason"], "FieldManagerConflict");
        let forced =
            applied(&[("a", json!({"replicas": 2}), false), ("b", json!({"replicas": 3}), true)]).unwrap();
        let owners: Vec<(String, Vec<String>)> =
            managers(&forced).into_iter().map(|m| (m.name, m.set.paths())).collect();
        assert_eq!(owners, [("b".to_string(), vec![".spec.replicas".to_string()])]);
    }

    #[test]
    fn the_same_value_is_shared_not_fought_over() {
        let both =
            applied(&[("a", json!({"replicas": 2}), false), ("b", json!({"replicas": 2}), false)]).unwrap();
        assert_eq!(managers(&both).len(), 2);
    }

    #[test]
    fn applying_again_changes_nothing() {
        let once = applied(&[("a", json!({"replicas": 2}), false)]).unwrap();
        let twice =
            applied(&[("a", json!({"replicas": 2}), false), ("a", json!({"replicas": 2}), false)]).unwrap();
        assert_eq!(once, twice);
    }

    #[test]
    fn an_update_takes_what_it_changes_and_status_belongs_to_status() {
        let kinds = Kinds::default();
        let kind = kinds.get("apps", "deployments").unwrap();
        let shape = Shape::of(kind, "v1");
        let old = applied(&[("a", json!({"replicas": 2, "paused": true}), false)]).unwrap();
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(5);
        new["status"] = json!({"replicas": 5});
        record_update(kind, shape, Some(&old), &mut new, &writer("scaler"));
        let owners: Vec<(String, Vec<String>)> =
            managers(&new).into_iter().map(|m| (m.name, m.set.paths())).collect();
        assert_eq!(
            owners,
            [
                ("a".to_string(), vec![".spec.paused".to_string()]),
                ("scaler".to_string(), vec![".spec.replicas".to_string()])
            ]
        );
        // An object from before server-side apply is owned by its past.
        let mut plain = old.clone();
        plain["metadata"].as_object_mut().unwrap().remove("managedFields");
        let fault =
            apply(kind, shape, Some(&plain), &deployment(json!({"replicas": 9})), &writer("b"), false)
                .unwrap_err();
        assert!(fault.message.contains("before-first-apply"), "{}", fault.message);
    }
}
