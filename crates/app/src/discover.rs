//! Which applications there are: found from what people and tools write on objects, and from what hangs together.
//!
//! An object says itself whose it is: `app.kubernetes.io/part-of`, `…/instance`, a Helm release, an Argo CD or
//! Flux tracking mark, or the plain label `app`. What says nothing belongs to whoever uses it; workloads that
//! nobody claims are applications by themselves, together with the workloads they share Services or claims with.
//! The same name in two namespaces is two applications.

use std::collections::{BTreeMap, BTreeSet};

use repo::{Finding, Outcome};
use serde::Serialize;

use crate::api::Cluster;
use crate::error::Error;
use crate::graph::{Edge, RefKind};
use crate::kinds::{Keep, Order};
use crate::object::{Object, ObjectKey};
use crate::world::{self, Observed, World, unprotected_volumes};

/// One application as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What it was found by: `app.kubernetes.io/instance`, `helm`, `references`.
    pub by: String,
    /// What says itself that it belongs to it, or hangs together with that.
    pub parts: Vec<ObjectKey>,
    /// Those of its parts that run.
    pub workloads: Vec<ObjectKey>,
    /// Its claims.
    pub volumes: Vec<ClaimSummary>,
    /// What other applications use as well.
    pub shared: Vec<ObjectKey>,
    /// Volumes that no backup of claims reaches, in words.
    pub unprotected: Vec<String>,
}

/// A claim, for lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimSummary {
    /// Its name.
    pub claim: String,
    /// Its class.
    pub storage_class: String,
    /// Its size as asked for: `10Gi`.
    pub size: String,
    /// Its volume, if it is bound.
    pub volume: String,
}

/// Reads namespaces (all but Kubernetes' own, if none is named) and finds the applications in them.
pub async fn applications(
    cluster: &Cluster,
    namespaces: &[String],
) -> Result<Outcome<Vec<Application>>, Error> {
    let namespaces = world::namespaces(cluster, namespaces).await?;
    let mut world = world::observe(cluster, &namespaces).await?;
    let edges = world.edges();
    let applications = group(&world, &edges);
    let findings: Vec<Finding> = std::mem::take(&mut world.findings);
    Ok(Outcome { done: applications, findings })
}

/// What an object says of itself: the application, and by what it says so.
fn own_word(object: &Object) -> Option<(String, &'static str)> {
    let label =
        |name: &'static str| object.label(name).filter(|v| !v.is_empty()).map(|v| (v.to_owned(), name));
    let argo = || {
        // `app:group/kind:namespace/name`
        let mark = object.annotation("argocd.argoproj.io/tracking-id")?;
        Some((mark.split(':').next()?.to_owned(), "argocd"))
    };
    let helm = || Some((object.annotation("meta.helm.sh/release-name")?.to_owned(), "helm"));
    label("app.kubernetes.io/part-of")
        .or_else(argo)
        .or_else(|| label("app.kubernetes.io/instance"))
        .or_else(helm)
        .or_else(|| label("kustomize.toolkit.fluxcd.io/name"))
        .or_else(|| label("app"))
        .or_else(|| label("k8s-app"))
        .filter(|(name, _)| !name.is_empty())
}

/// Which of the owners up to the root says whose it is; the root's word counts most.
fn word<'w>(world: &'w World, key: &ObjectKey, seen: &'w Observed) -> Option<(String, &'static str)> {
    let mut chain = vec![own_word(&seen.object)];
    let (mut at, mut key) = (seen, key.clone());
    // Owners cannot be cyclic for long: a chain is at most a few links.
    for _ in 0..8 {
        let Some(owner) = at.object.controller() else { break };
        let mut up = ObjectKey::new(&owner.gvk.group, &owner.gvk.kind, &key.namespace, &owner.name);
        world::canonical(&mut up);
        let Some(found) = world.objects.get(&up) else { break };
        chain.push(own_word(&found.object));
        (at, key) = (found, up);
    }
    chain.into_iter().rev().flatten().next()
}

fn runs(seen: &Observed) -> bool {
    seen.info().pod_spec.is_some() && seen.info().order == Order::Workload
}

/// Finds applications in what was seen.
pub fn group(world: &World, edges: &BTreeMap<ObjectKey, Vec<Edge>>) -> Vec<Application> {
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
    for (key, seen) in &ours {
        if let Some((name, by)) = word(world, key, seen) {
            parts.insert(key, number(&key.namespace, name, by));
        }
    }
    let back = reversed(edges);
    let mut users = users(&parts, &ours, edges, &back);
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
    users.extend(self::users(&parts, &ours, edges, &back));
    summarise(&names, &ours, &parts, &users)
}

fn reversed(edges: &BTreeMap<ObjectKey, Vec<Edge>>) -> BTreeMap<&ObjectKey, Vec<&Edge>> {
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

type Users<'a> = BTreeMap<&'a ObjectKey, BTreeSet<usize>>;

/// Which applications use each object that says nothing itself.
fn users<'a>(
    parts: &BTreeMap<&'a ObjectKey, usize>,
    ours: &BTreeMap<&'a ObjectKey, &'a Observed>,
    edges: &'a BTreeMap<ObjectKey, Vec<Edge>>,
    back: &BTreeMap<&'a ObjectKey, Vec<&'a Edge>>,
) -> Users<'a> {
    let mut users: Users<'a> = BTreeMap::new();
    let mut work: Vec<(&ObjectKey, usize)> = parts.iter().map(|(key, number)| (*key, *number)).collect();
    while let Some((key, number)) = work.pop() {
        let forward = edges.get(key).into_iter().flatten().filter(|e| {
            !matches!(
                e.via,
                RefKind::Subject
                    | RefKind::Selects
                    | RefKind::Namespace
                    | RefKind::Class
                    | RefKind::Definition
            )
        });
        let attached = back.get(key).into_iter().flatten().filter(|e| {
            matches!(
                e.via,
                RefKind::Owner | RefKind::Selects | RefKind::Scales | RefKind::Subject | RefKind::Routes
            )
        });
        for next in forward.map(|e| &e.to).chain(attached.map(|e| &e.from)) {
            if let Some((next, _)) = ours.get_key_value(next)
                && next.namespace == key.namespace
                && parts.get(*next) != Some(&number)
                && users.entry(next).or_default().insert(number)
                // What says itself whose it is does not pass others' claims on.
                && !parts.contains_key(*next)
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
    edges: &'a BTreeMap<ObjectKey, Vec<Edge>>,
    back: &BTreeMap<&'a ObjectKey, Vec<&'a Edge>>,
) -> BTreeSet<&'a ObjectKey> {
    let binds = |via: RefKind| {
        matches!(
            via,
            RefKind::Owner
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
            by: (*by).to_owned(),
            parts: Vec::new(),
            workloads: Vec::new(),
            volumes: Vec::new(),
            shared: Vec::new(),
            unprotected: Vec::new(),
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
                application.volumes.push(claim_summary(&seen.object));
            }
            let is_root = seen.object.controller().is_none();
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
    // A label alone is no application: something of it must exist that is ours to keep.
    applications.retain(|a| {
        !a.workloads.is_empty() || !a.volumes.is_empty() || a.parts.len() > 1 || a.by != "references"
    });
    applications.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
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
