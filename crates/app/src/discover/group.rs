//! Which objects belong together: by their words, by who uses them, and where nothing says anything by what hangs together.

use std::collections::{BTreeMap, BTreeSet};

use super::between;
use super::word::{owners, word};
use super::{Application, ClaimSummary};
use crate::graph::{Edge, RefKind};
use crate::kinds::{self, Keep, Order};
use crate::object::{Object, ObjectKey};
use crate::resolve::{Edges, References};
use crate::world::{Observed, World, unprotected_volumes};

/// An application's namespace, its name, and what it was found by.
pub(super) type Name = (String, String, &'static str);

/// Finds applications in what was seen.
pub fn group(world: &World, references: &References) -> Vec<Application> {
    let edges = &references.edges;
    // Which applications each object belongs to, by number.
    let mut names: Vec<(String, String, &'static str)> = Vec::new();
    let mut numbers: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut number = |namespace: &str, name: String, by: &'static str| {
        *numbers.entry((namespace.to_owned(), name.clone())).or_insert_with(|| {
            names.push((namespace.to_owned(), name, by));
            names.len() - 1
        })
    };
    let mut parts: BTreeMap<&ObjectKey, usize> = BTreeMap::new();
    let ours: BTreeMap<&ObjectKey, &Observed> = world
        .objects
        .iter()
        .filter(|(key, seen)| !key.namespace.is_empty() && !matches!(world.keep(seen), Keep::No(_)))
        .collect();
    let mut silent: BTreeMap<&ObjectKey, Vec<&ObjectKey>> = BTreeMap::new();
    let mut operated: BTreeSet<&ObjectKey> = BTreeSet::new();
    for (key, seen) in &ours {
        let chain = owners(world, key, seen);
        match (word(&chain), chain.last()) {
            (Some((name, by)), _) => {
                parts.insert(key, number(&key.namespace, name, by));
            }
            (None, Some((root, _))) if !kinds::is_built_in(&root.group) => {
                silent.entry(root).or_default().push(key);
                if is_application(key, seen) && chain.len() > 1 {
                    operated.insert(root);
                }
            }
            (None, _) => {}
        }
    }
    for root in operated {
        let number = number(&root.namespace, root.name.clone(), "operator");
        for key in silent.get(root).into_iter().flatten() {
            parts.insert(key, number);
        }
    }
    let back = reversed(edges);
    let ways = ways(&ours, edges);
    let mut users = users(&parts, &ways);
    // Workloads that say nothing and that nobody uses: by what hangs together.
    let silent: Vec<&ObjectKey> = ours
        .iter()
        .filter(|(key, seen)| runs(seen) && !parts.contains_key(*key) && !users.contains_key(*key))
        .map(|(key, _)| *key)
        .collect();
    let mut done: BTreeSet<&ObjectKey> = BTreeSet::new();
    for start in silent {
        if done.contains(start) {
            continue;
        }
        let component = component(start, &ours, &parts, edges, &back);
        let named = component
            .iter()
            .filter(|k| ours.get(*k).is_some_and(|seen| runs(seen)))
            .min_by_key(|k| (rank(k), k.name.clone()));
        if let Some(named) = named {
            let number = number(&start.namespace, named.name.clone(), "references");
            for key in &component {
                parts.insert(key, number);
            }
        }
        done.extend(component);
    }
    users.extend(self::users(&parts, &ways));
    let applications = summarise(&names, &ours, &parts, &users);
    between::finish(world, references, &names, &parts, &users, applications)
}

fn runs(seen: &Observed) -> bool {
    seen.info().pod_spec.is_some() && seen.info().order == Order::Workload
}

/// What makes of a custom resource an application, and not a mere wish: it made something that runs, or answers, or has data.
fn is_application(key: &ObjectKey, seen: &Observed) -> bool {
    runs(seen) || key.is("", "PersistentVolumeClaim") || key.is("", "Service")
}

fn reversed(edges: &Edges) -> BTreeMap<&ObjectKey, Vec<&Edge>> {
    let mut back: BTreeMap<&ObjectKey, Vec<&Edge>> = BTreeMap::new();
    for edge in edges.values().flatten() {
        back.entry(&edge.to).or_default().push(edge);
    }
    back
}

/// Name a component after what matters most in it.
fn rank(key: &ObjectKey) -> usize {
    let order = [
        "StatefulSet",
        "Deployment",
        "DaemonSet",
        "ReplicationController",
        "ReplicaSet",
        "CronJob",
        "Job",
        "Pod",
    ];
    order.iter().position(|kind| *kind == key.kind).unwrap_or(order.len())
}

/// Applications, by number, of what they use.
pub(super) type Users<'a> = BTreeMap<&'a ObjectKey, BTreeSet<usize>>;

/// To which objects of its namespace an application goes on from each of them: what it uses, and what is attached to
/// it. Told once: an account that a thousand applications run as is gone through for each of them.
type Ways<'a> = BTreeMap<&'a ObjectKey, BTreeSet<&'a ObjectKey>>;

fn ways<'a>(ours: &BTreeMap<&'a ObjectKey, &'a Observed>, edges: &'a Edges) -> Ways<'a> {
    let mut ways = Ways::new();
    for edge in edges.values().flatten().filter(|edge| edge.from.namespace == edge.to.namespace) {
        let uses = !matches!(
            edge.via,
            RefKind::Subject | RefKind::Selects | RefKind::Watches | RefKind::Tracked | RefKind::Namespace
        );
        let is_attached = matches!(
            edge.via,
            RefKind::Owner
                | RefKind::PartOf
                | RefKind::Attaches
                | RefKind::Selects
                | RefKind::Scales
                | RefKind::Subject
                | RefKind::Routes
        );
        if !uses && !is_attached {
            continue;
        }
        if let (Some((from, _)), Some((to, _))) =
            (ours.get_key_value(&edge.from), ours.get_key_value(&edge.to))
        {
            if uses {
                ways.entry(*from).or_default().insert(*to);
            }
            if is_attached {
                ways.entry(*to).or_default().insert(*from);
            }
        }
    }
    ways
}

/// Which applications use each object that says nothing itself.
fn users<'a>(parts: &BTreeMap<&'a ObjectKey, usize>, ways: &Ways<'a>) -> Users<'a> {
    let mut users: Users<'a> = BTreeMap::new();
    let mut work: Vec<(&ObjectKey, usize)> = parts.iter().map(|(key, number)| (*key, *number)).collect();
    while let Some((key, number)) = work.pop() {
        for next in ways.get(key).into_iter().flatten().copied() {
            if parts.get(next) != Some(&number)
                && users.entry(next).or_default().insert(number)
                // What says itself whose it is does not pass others' claims on.
                && !parts.contains_key(next)
            {
                work.push((next, number));
            }
        }
    }
    users
}

/// What hangs together with an unclaimed workload: whom it shares Services, claims or owners with.
fn component<'a>(
    start: &'a ObjectKey,
    ours: &BTreeMap<&'a ObjectKey, &'a Observed>,
    parts: &BTreeMap<&'a ObjectKey, usize>,
    edges: &'a Edges,
    back: &BTreeMap<&'a ObjectKey, Vec<&'a Edge>>,
) -> BTreeSet<&'a ObjectKey> {
    let binds = |via: RefKind| {
        matches!(
            via,
            RefKind::Owner
                | RefKind::PartOf
                | RefKind::Attaches
                | RefKind::Selects
                | RefKind::Routes
                | RefKind::Scales
                | RefKind::Claim
                | RefKind::Names
        )
    };
    let mut component = BTreeSet::new();
    let mut work = vec![start];
    while let Some(key) = work.pop() {
        if parts.contains_key(key) || !component.insert(key) {
            continue;
        }
        // A policy for every pod of the namespace binds nothing together.
        if key.kind == "NetworkPolicy" {
            component.remove(key);
            continue;
        }
        let forward = edges.get(key).into_iter().flatten().filter(|e| binds(e.via)).map(|e| &e.to);
        let backward = back.get(key).into_iter().flatten().filter(|e| binds(e.via)).map(|e| &e.from);
        work.extend(
            forward
                .chain(backward)
                .filter(|k| k.namespace == start.namespace)
                .filter_map(|k| Some(*ours.get_key_value(k)?.0)),
        );
    }
    component
}

fn summarise(
    names: &[(String, String, &'static str)],
    ours: &BTreeMap<&ObjectKey, &Observed>,
    parts: &BTreeMap<&ObjectKey, usize>,
    users: &Users<'_>,
) -> Vec<Application> {
    let mut applications: Vec<Application> = names
        .iter()
        .map(|(namespace, name, by)| Application {
            name: name.clone(),
            namespace: namespace.clone(),
            namespaces: vec![namespace.clone()],
            by: (*by).to_owned(),
            ..Application::default()
        })
        .collect();
    for (key, seen) in ours {
        let own = parts.get(*key).copied();
        let others = users.get(*key).cloned().unwrap_or_default();
        let all: BTreeSet<usize> = own.into_iter().chain(others).collect();
        for number in &all {
            let Some(application) = applications.get_mut(*number) else { continue };
            if own == Some(*number) || (own.is_none() && all.len() == 1) {
                application.parts.push((*key).clone());
            }
            if all.len() > 1 {
                application.shared.push((*key).clone());
            }
            if key.is("", "PersistentVolumeClaim") {
                application.volumes.push(claim_summary(&seen.object.open()));
            }
            let is_root = seen.controller().is_none();
            if runs(seen) && is_root && own.is_none_or(|own| own == *number) {
                application.workloads.push((*key).clone());
                application.unprotected.extend(
                    unprotected_volumes(seen)
                        .into_iter()
                        .map(|(name, what)| format!("{name} of {key}: {what}")),
                );
            }
        }
    }
    applications
}

fn claim_summary(claim: &Object) -> ClaimSummary {
    ClaimSummary {
        claim: claim.name().to_owned(),
        storage_class: claim.str("/spec/storageClassName").to_owned(),
        size: claim.str("/spec/resources/requests/storage").to_owned(),
        volume: claim.str("/spec/volumeName").to_owned(),
    }
}
