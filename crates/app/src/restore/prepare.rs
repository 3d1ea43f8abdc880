//! From the objects of a point to the objects wanted on the target, without looking at the target.
//!
//! Pure, and shared by restore, export and diff: the three can never disagree on what a point means.

use std::collections::{BTreeMap, BTreeSet};

use repo::Finding;
use serde_json::{Value, json};

use super::{Left, Only, OwnerLink, addresses, volumes};
use crate::api::ResourceType;
use crate::error::Error;
use crate::kinds::{self, Keep, Order};
use crate::object::{Object, ObjectKey};
use crate::point::{Restore, Role, StoredObject};
use crate::refs::{self, Target};
use crate::transform::Transform;
use crate::world::canonical;

/// One object wanted on the target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    /// Its identity there.
    pub(crate) key: ObjectKey,
    /// Its identity in the point; none for a namespace the point lacks.
    pub(crate) was: Option<ObjectKey>,
    /// Index of the stored object.
    pub(crate) stored: Option<usize>,
    /// How it belongs to the application.
    pub(crate) role: Role,
    /// Its type in the point.
    pub(crate) resource: ResourceType,
    /// As it shall be, without owner references.
    pub(crate) desired: Object,
    /// With the addresses its old cluster chose for it, if that is more.
    pub(crate) addressed: Option<Object>,
    /// Its owners that are restored too.
    pub(crate) owners: Vec<OwnerLink>,
    /// The class of its kind.
    pub(crate) order: Order,
    /// What has to exist before it.
    pub(crate) needs: BTreeSet<ObjectKey>,
    /// Claims whose data it uses.
    pub(crate) claims: Vec<ObjectKey>,
}

/// What a point means for a target.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Prepared {
    /// The objects, in the order of the point.
    pub(crate) candidates: Vec<Candidate>,
    /// What is left out.
    pub(crate) left: Vec<Left>,
    /// What was found.
    pub(crate) findings: Vec<Finding>,
}

/// Selects and transforms the objects of a point.
///
/// # Errors
/// If the selection names what is not there, or a patch does not fit.
pub(crate) fn prepare(
    objects: &[StoredObject],
    transform: &Transform,
    only: &Only,
) -> Result<Prepared, Error> {
    let services = objects
        .iter()
        .filter(|stored| stored.key.is("", "Service"))
        .map(|stored| (stored.key.namespace.clone(), stored.key.name.clone()));
    let transform = transform.clone().knowing_services(services);
    let picked = only.pick(objects)?;
    let mut prepared = Prepared::default();
    let mut by_uid: BTreeMap<String, ObjectKey> = BTreeMap::new();
    let mut patched = BTreeSet::new();
    for (index, stored) in objects.iter().enumerate().filter(|(index, _)| picked[*index]) {
        if let Some(reason) = left_out(stored) {
            prepared.left.push(Left { key: stored.key.clone(), reason });
            continue;
        }
        let done = transform.apply(&stored.clean.open().0, &stored.resource.plural)?;
        patched.extend(done.patched);
        let mut desired = Object(done.value);
        if let Value::Object(metadata) = &mut desired.0["metadata"] {
            metadata.shift_remove("ownerReferences");
        }
        let mut key = desired.key();
        canonical(&mut key);
        for note in done.notes {
            let what = format!("{} {}", stored.key, note.at);
            prepared.findings.push(Finding::warning("mapping-unsure", what, note.message));
        }
        let original = stored.original.open();
        if let Some(uid) = original.at("/metadata/uid").and_then(Value::as_str) {
            by_uid.insert(uid.to_owned(), key.clone());
        }
        prepared.candidates.push(Candidate {
            was: Some(stored.key.clone()),
            stored: Some(index),
            role: stored.role,
            resource: stored.resource.clone(),
            order: kinds::of(&desired).order,
            addressed: match key.is("", "Service") {
                true => addresses::addressed(&desired, &original.0),
                false => None,
            },
            owners: Vec::new(),
            needs: BTreeSet::new(),
            claims: Vec::new(),
            key,
            desired,
        });
    }
    for (index, what) in transform.rules().enumerate() {
        if !patched.contains(&index) {
            prepared.findings.push(Finding::warning(
                "patch-unused",
                what,
                "selects no object of this restore; check its target",
            ));
        }
    }
    without_doubles(&mut prepared);
    add_namespaces(&mut prepared, &transform);
    volumes::settle(&mut prepared, objects);
    link(&mut prepared, objects, &by_uid);
    Ok(prepared)
}

/// Does a kind live in namespaces?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespaced {
    Yes,
    No,
}

/// The type of a kind that every cluster has.
pub(super) fn core(kind: &str, plural: &str, namespaced: Namespaced) -> ResourceType {
    ResourceType {
        version: "v1".into(),
        kind: kind.into(),
        plural: plural.into(),
        namespaced: namespaced == Namespaced::Yes,
        ..ResourceType::default()
    }
}

/// Why a stored object is no part of a restore, if it is none.
fn left_out(stored: &StoredObject) -> Option<String> {
    if stored.restore == Restore::Yes {
        return None;
    }
    let original = stored.original.open();
    match stored.restore {
        Restore::Yes => None,
        Restore::Evidence => Some(match (kinds::of(&original).keep)(&original, &|_| None) {
            Keep::Evidence(reason) | Keep::No(reason) => reason.to_owned(),
            Keep::Yes => "it was stored to be looked at only".to_owned(),
        }),
        Restore::Owned => {
            let controller = original.controller();
            // State is not made again: a new claim is empty, and a password drawn anew opens no old database.
            let holds_state = stored.key.is("", "PersistentVolumeClaim")
                || stored.key.is("", "Secret")
                    && controller.as_ref().is_some_and(|owner| !kinds::is_built_in(&owner.gvk.group));
            if holds_state {
                return None;
            }
            Some(match controller {
                Some(owner) => format!("{} {} makes it again", owner.gvk.kind, owner.name),
                None => "its controller makes it again".to_owned(),
            })
        }
    }
}

/// Two objects of the point that would be one on the target: the first stays.
fn without_doubles(prepared: &mut Prepared) {
    let mut seen: BTreeMap<ObjectKey, Option<ObjectKey>> = BTreeMap::new();
    for candidate in std::mem::take(&mut prepared.candidates) {
        match seen.get(&candidate.key) {
            None => {
                seen.insert(candidate.key.clone(), candidate.was.clone());
                prepared.candidates.push(candidate);
            }
            // Several namespaces mapped onto one: that one is meant, not an accident.
            Some(_) if candidate.key.is("", "Namespace") => {}
            Some(first) => {
                let of = |key: &Option<ObjectKey>| key.as_ref().map_or_else(String::new, ToString::to_string);
                prepared.findings.push(Finding::error(
                    "mapping-collision",
                    candidate.key.to_string(),
                    format!(
                        "{} and {} of the point both become this object; only the first is restored. Map their \
                         namespaces to different ones",
                        of(first),
                        of(&candidate.was)
                    ),
                ));
                if let Some(key) = candidate.was {
                    let reason = format!("{} of the point takes its name on the target", of(first));
                    prepared.left.push(Left { key, reason });
                }
            }
        }
    }
}

/// Every namespace used, also those the point does not hold.
fn add_namespaces(prepared: &mut Prepared, transform: &Transform) {
    let have: BTreeSet<String> = prepared
        .candidates
        .iter()
        .filter(|candidate| candidate.key.is("", "Namespace"))
        .map(|candidate| candidate.key.name.clone())
        .collect();
    let used: BTreeSet<String> = prepared
        .candidates
        .iter()
        .map(|candidate| candidate.key.namespace.clone())
        .filter(|name| !name.is_empty() && !have.contains(name))
        .collect();
    let olds = &transform.mapping().namespaces;
    for name in used {
        let was = olds
            .iter()
            .find(|(_, new)| **new == name)
            .map(|(old, _)| ObjectKey::new("", "Namespace", "", old));
        prepared.candidates.push(Candidate {
            key: ObjectKey::new("", "Namespace", "", &name),
            was,
            stored: None,
            role: Role::Cluster,
            resource: core("Namespace", "namespaces", Namespaced::No),
            desired: Object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})),
            addressed: None,
            owners: Vec::new(),
            order: Order::Namespace,
            needs: BTreeSet::new(),
            claims: Vec::new(),
        });
    }
}

/// What each object needs first, who owns it, and whose data it uses.
fn link(prepared: &mut Prepared, objects: &[StoredObject], by_uid: &BTreeMap<String, ObjectKey>) {
    let present: BTreeSet<ObjectKey> =
        prepared.candidates.iter().map(|candidate| candidate.key.clone()).collect();
    let claims: Vec<ObjectKey> =
        present.iter().filter(|key| key.is("", "PersistentVolumeClaim")).cloned().collect();
    let mut owned_claims: BTreeMap<ObjectKey, Vec<ObjectKey>> = BTreeMap::new();
    for candidate in &mut prepared.candidates {
        for found in refs::of(&candidate.desired) {
            let Target::Object(key) = found.target else { continue };
            if !present.contains(&key) || !found.via.needed_first() {
                continue;
            }
            if key.is("", "PersistentVolumeClaim") {
                candidate.claims.push(key.clone());
            }
            candidate.needs.insert(key);
        }
        // A set that was scaled down has claims beyond its replicas, which it will use again.
        if candidate.key.is("apps", "StatefulSet") {
            candidate.claims.extend(claims_of_set(&candidate.desired, &claims));
        }
        let Some(stored) = candidate.stored.and_then(|index| objects.get(index)) else { continue };
        let original = stored.original.open();
        let entries = original.at("/metadata/ownerReferences").and_then(Value::as_array);
        for entry in entries.into_iter().flatten() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("");
            match by_uid.get(text("uid")).filter(|key| present.contains(*key)) {
                Some(owner) => {
                    candidate.needs.insert(owner.clone());
                    candidate.owners.push(OwnerLink { key: owner.clone(), entry: entry.clone() });
                    if candidate.key.is("", "PersistentVolumeClaim") {
                        owned_claims.entry(owner.clone()).or_default().push(candidate.key.clone());
                    }
                }
                // The garbage collector deletes what refers to an owner that does not exist.
                None => prepared.findings.push(Finding::note(
                    "owner-left-out",
                    candidate.key.to_string(),
                    format!(
                        "its owner {} {} is not restored with it, so it comes back without",
                        text("kind"),
                        text("name")
                    ),
                )),
            }
        }
    }
    let mut made_again = makers(prepared, objects, by_uid);
    for candidate in &mut prepared.candidates {
        candidate.claims.extend(owned_claims.remove(&candidate.key).into_iter().flatten());
        candidate.claims.extend(made_again.remove(&candidate.key).into_iter().flatten());
        candidate.claims.sort();
        candidate.claims.dedup();
    }
}

/// Who makes again what uses claims: an operator that finds its resource starts a database on whatever is in the claim. What uses a
/// claim is in the point, restored itself or to be looked at only; everything above it that is restored waits, for whoever
/// made it may make it again under another name.
fn makers(
    prepared: &Prepared,
    objects: &[StoredObject],
    by_uid: &BTreeMap<String, ObjectKey>,
) -> BTreeMap<ObjectKey, BTreeSet<ObjectKey>> {
    let claims: BTreeMap<&ObjectKey, &ObjectKey> = prepared
        .candidates
        .iter()
        .filter(|candidate| candidate.key.is("", "PersistentVolumeClaim"))
        .filter_map(|candidate| Some((candidate.was.as_ref()?, &candidate.key)))
        .collect();
    let mut found: BTreeMap<ObjectKey, BTreeSet<ObjectKey>> = BTreeMap::new();
    if claims.is_empty() {
        return found;
    }
    let names: Vec<ObjectKey> = claims.keys().map(|key| (*key).clone()).collect();
    let mut above: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut users = Vec::new();
    for stored in objects {
        let original = stored.original.open();
        let owners: Vec<String> = original.owner_references().into_iter().map(|owner| owner.uid).collect();
        if owners.is_empty() {
            continue;
        }
        let named = refs::of(&original).into_iter().filter_map(|found| match found.target {
            Target::Object(key) => Some(key),
            _ => None,
        });
        let mut used: Vec<ObjectKey> = named.collect();
        if stored.key.is("apps", "StatefulSet") {
            used.extend(claims_of_set(&original, &names));
        }
        let used: BTreeSet<ObjectKey> =
            used.iter().filter_map(|key| claims.get(key)).map(|key| (*key).clone()).collect();
        above.insert(original.uid().to_owned(), owners.clone());
        if !used.is_empty() {
            users.push((owners, used));
        }
    }
    for (mut open, used) in users {
        let mut seen = BTreeSet::new();
        while let Some(uid) = open.pop() {
            if !seen.insert(uid.clone()) {
                continue;
            }
            if let Some(key) = by_uid.get(&uid) {
                found.entry(key.clone()).or_default().extend(used.iter().cloned());
            }
            open.extend(above.get(&uid).into_iter().flatten().cloned());
        }
    }
    found
}

/// The claims a StatefulSet made: `<template>-<set>-<ordinal>`.
fn claims_of_set(set: &Object, claims: &[ObjectKey]) -> Vec<ObjectKey> {
    let templates = set.at("/spec/volumeClaimTemplates").and_then(Value::as_array);
    let stems: Vec<String> = templates
        .into_iter()
        .flatten()
        .filter_map(|template| template.pointer("/metadata/name")?.as_str())
        .map(|name| format!("{name}-{}-", set.name()))
        .collect();
    let is_ordinal = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    claims
        .iter()
        .filter(|claim| claim.namespace == set.namespace())
        .filter(|claim| {
            stems.iter().any(|stem| claim.name.strip_prefix(stem.as_str()).is_some_and(is_ordinal))
        })
        .cloned()
        .collect()
}

#[cfg(test)]
pub(in crate::restore) mod tests {
    use super::*;
    use crate::transform::Mapping;

    /// A stored object as a backup would make it, from what the API server gave.
    pub(in crate::restore) fn stored(original: Value) -> StoredObject {
        let object = Object(original.clone());
        let gvk = object.gvk();
        StoredObject {
            resource: ResourceType {
                plural: format!("{}s", gvk.kind.to_lowercase()),
                group: gvk.group,
                version: gvk.version,
                kind: gvk.kind,
                namespaced: !object.namespace().is_empty(),
                ..ResourceType::default()
            },
            key: object.key(),
            role: if object.namespace().is_empty() { Role::Cluster } else { Role::Member },
            restore: Restore::Yes,
            clean: crate::clean::clean(&object).0.into(),
            original: original.into(),
        }
    }

    pub(in crate::restore) fn candidate(stored: usize, desired: Value) -> Candidate {
        let desired = Object(desired);
        Candidate {
            key: desired.key(),
            was: Some(desired.key()),
            stored: Some(stored),
            role: Role::Member,
            resource: ResourceType::default(),
            order: kinds::of(&desired).order,
            addressed: None,
            owners: Vec::new(),
            needs: BTreeSet::new(),
            claims: Vec::new(),
            desired,
        }
    }

    fn object(api_version: &str, kind: &str, namespace: &str, name: &str, uid: &str, rest: Value) -> Value {
        let mut value =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "uid": uid}});
        if !namespace.is_empty() {
            value["metadata"]["namespace"] = json!(namespace);
        }
        for (key, part) in rest.as_object().unwrap() {
            match key.as_str() {
                "owner" => value["metadata"]["ownerReferences"] = json!([part]),
                _ => value[key] = part.clone(),
            }
        }
        value
    }

    fn run(objects: &[StoredObject], mapping: &str) -> Prepared {
        let transform = Mapping::from_yaml(mapping).unwrap().check().unwrap();
        prepare(objects, &transform, &Only::default()).unwrap()
    }

    #[test]
    fn state_that_a_controller_would_make_anew_comes_back_and_the_rest_is_left_to_it() {
        let by_cluster = json!({"apiVersion": "pg.example.com/v1", "kind": "Cluster", "name": "db", "uid": "c", "controller": true});
        let owned = |kind: &str, name: &str| {
            let mut stored = stored(object("v1", kind, "shop", name, name, json!({"owner": by_cluster})));
            stored.restore = Restore::Owned;
            stored
        };
        let mut by_set = owned("Secret", "of-a-builtin");
        let mut original = by_set.original.open().0;
        original["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "w", "controller": true}]);
        by_set.original = original.into();
        let objects = [
            stored(object("pg.example.com/v1", "Cluster", "shop", "db", "c", json!({}))),
            owned("PersistentVolumeClaim", "data"),
            owned("Secret", "password"),
            owned("Service", "db"),
            by_set,
        ];
        let prepared = run(&objects, "namespaces: {shop: s2}");
        let keys: Vec<String> = prepared.candidates.iter().map(|c| c.key.to_string()).collect();
        assert_eq!(
            keys,
            [
                "Cluster.pg.example.com s2/db",
                "PersistentVolumeClaim s2/data",
                "Secret s2/password",
                "Namespace s2"
            ]
        );
        let left: Vec<(String, &str)> =
            prepared.left.iter().map(|l| (l.key.to_string(), l.reason.as_str())).collect();
        assert_eq!(
            left,
            [
                ("Service shop/db".into(), "Cluster db makes it again"),
                ("Secret shop/of-a-builtin".into(), "Deployment web makes it again")
            ]
        );
        let claim = &prepared.candidates[1];
        assert_eq!(claim.owners[0].key.to_string(), "Cluster.pg.example.com s2/db");
        assert_eq!(
            prepared.candidates[0].claims,
            std::slice::from_ref(&claim.key),
            "the cluster waits for its data"
        );
        assert_eq!(claim.desired.at("/metadata/ownerReferences"), None, "the old UID would be collected");
    }

    #[test]
    fn an_owner_that_does_not_come_along_is_told_and_not_named() {
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "g"});
        let objects = [stored(object("v1", "ConfigMap", "shop", "a", "a", json!({"owner": owner})))];
        let prepared = run(&objects, "{}");
        assert!(prepared.candidates[0].owners.is_empty());
        assert_eq!(prepared.findings[0].code, "owner-left-out");
    }

    #[test]
    fn two_namespaces_into_one_is_fine_until_two_objects_want_one_name() {
        let config = |ns: &str, name: &str| {
            stored(object("v1", "ConfigMap", ns, name, &format!("{ns}{name}"), json!({})))
        };
        let namespace = |name: &str| stored(object("v1", "Namespace", "", name, name, json!({})));
        let objects = [config("a", "x"), config("b", "x"), config("b", "y"), namespace("a"), namespace("b")];
        let prepared = run(&objects, "namespaces: {a: c, b: c}");
        let keys: Vec<String> = prepared.candidates.iter().map(|c| c.key.to_string()).collect();
        assert_eq!(keys, ["ConfigMap c/x", "ConfigMap c/y", "Namespace c"]);
        assert_eq!(prepared.findings.len(), 1);
        assert_eq!(prepared.findings[0].code, "mapping-collision");
        assert_eq!(prepared.left[0].key.to_string(), "ConfigMap b/x");
    }

    #[test]
    fn a_patch_that_selects_nothing_is_told() {
        let objects = [stored(object("v1", "ConfigMap", "a", "x", "x", json!({})))];
        let prepared = run(
            &objects,
            "patches: [{target: {kind: Deployment}, patch: [{op: add, path: /a, value: 1}]}, {target: {}, patch: [{op: add, path: /a, value: 1}]}]",
        );
        assert_eq!(prepared.findings.len(), 1);
        assert_eq!(prepared.findings[0].what, "patch 1 (kind Deployment)");
    }

    #[test]
    fn who_makes_again_what_uses_a_claim_waits_for_its_data_too() {
        let by = |kind: &str, uid: &str| json!({"apiVersion": "msg.example.com/v1", "kind": kind, "name": "q", "uid": uid, "controller": true});
        let volumes = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "data-q-0"}}]);
        let pod = json!({"owner": by("PodSet", "s"), "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": volumes}});
        let objects = [
            stored(object("msg.example.com/v1", "Queue", "shop", "q", "q", json!({}))),
            stored(object("msg.example.com/v1", "Queue", "shop", "other", "o", json!({}))),
            // Restored, as everything is that a custom resource owns; only what built-in workloads make is left to them.
            stored(object(
                "msg.example.com/v1",
                "PodSet",
                "shop",
                "q",
                "s",
                json!({"owner": by("Queue", "q")}),
            )),
            stored(object("v1", "Pod", "shop", "q-0", "p", pod)),
            // Nobody owns it: it is to outlive the queue.
            stored(object("v1", "PersistentVolumeClaim", "shop", "data-q-0", "c", json!({"spec": {}}))),
        ];
        let prepared = run(&objects, "namespaces: {shop: s2}");
        let claims = |name: &str| {
            let one = prepared.candidates.iter().find(|c| c.key.name == name).unwrap();
            one.claims.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let of_kind = |kind: &str| {
            prepared.candidates.iter().find(|c| c.key.kind == kind && c.key.name == "q").unwrap()
        };
        for kind in ["PodSet", "Queue"] {
            let waits: Vec<String> = of_kind(kind).claims.iter().map(ToString::to_string).collect();
            assert_eq!(waits, ["PersistentVolumeClaim s2/data-q-0"], "{kind}");
        }
        assert!(claims("other").is_empty());
    }

    #[test]
    fn a_set_waits_for_all_claims_it_ever_made() {
        let set = object(
            "apps/v1",
            "StatefulSet",
            "shop",
            "db",
            "s",
            json!({"spec": {"replicas": 1, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}}),
        );
        let claim = |name: &str| {
            stored(object("v1", "PersistentVolumeClaim", "shop", name, name, json!({"spec": {}})))
        };
        let objects =
            [stored(set), claim("data-db-0"), claim("data-db-1"), claim("data-dbx-0"), claim("data-db-x")];
        let prepared = run(&objects, "{}");
        let claims: Vec<&str> = prepared.candidates[0].claims.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(claims, ["data-db-0", "data-db-1"]);
    }
}
