//! Which applications there are: found from what people and tools write on objects, and from what hangs together.
//!
//! An object says itself whose it is: `app.kubernetes.io/part-of`, a GitOps or Helm mark, `…/instance`, or the plain label
//! `app`. What says nothing belongs to whoever owns or uses it: what a custom resource made runs under its name, and
//! workloads that nobody claims are applications by themselves, together with those they hang together with.
//! The same name in two namespaces is two applications. The page is `docs/applications.md`.

use std::collections::{BTreeMap, BTreeSet};

use repo::Finding;
use serde::Serialize;

use crate::api::Cluster;
use crate::certificate::External;
use crate::error::Error;
use crate::graph::{Edge, RefKind};
use crate::kinds::{self, Keep, Order};
use crate::object::{Object, ObjectKey};
use crate::resolve::{self, Edges, References};
use crate::world::{self, Observed, World, unprotected_volumes};

/// One application as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What it was found by: `app.kubernetes.io/instance`, `helm`, `operator`, `references`.
    pub by: String,
    /// What says itself that it belongs to it, or hangs together with that.
    pub parts: Vec<ObjectKey>,
    /// Those of its parts that run.
    pub workloads: Vec<ObjectKey>,
    /// Its claims.
    pub volumes: Vec<ClaimSummary>,
    /// What other applications use as well.
    pub shared: Vec<ObjectKey>,
    /// What it uses of other applications.
    pub needs: Vec<Need>,
    /// What it names outside of the cluster.
    pub external: Vec<External>,
    /// Data that no recovery point has, in words: volumes that are no claims, buckets, databases elsewhere.
    pub unprotected: Vec<String>,
}

impl Application {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Something of another application that one uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Need {
    /// Whose it is, as `namespace/name`.
    pub application: String,
    /// What is used.
    pub to: ObjectKey,
    /// By what.
    pub from: ObjectKey,
    /// Where that stands.
    pub at: String,
}

/// An object that several applications use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// The object.
    pub object: ObjectKey,
    /// Who uses it, as `namespace/name`.
    pub used_by: Vec<String>,
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

/// Everything that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Discovered {
    /// The applications, by namespace and name.
    pub applications: Vec<Application>,
    /// What several of them use, within and across namespaces, and outside of any.
    pub shared: Vec<Shared>,
    /// What was found on the way.
    pub findings: Vec<Finding>,
    /// Every reference of every object.
    #[serde(skip)]
    pub references: References,
    /// What was seen, with its controller if it has one: what that made is not drawn.
    #[serde(skip)]
    pub objects: BTreeMap<ObjectKey, bool>,
}

/// Reads namespaces (all but Kubernetes' own, if none is named) and finds the applications in them.
pub async fn discover(cluster: &Cluster, namespaces: &[String]) -> Result<Discovered, Error> {
    let namespaces = world::namespaces(cluster, namespaces).await?;
    let mut world = world::observe(cluster, &namespaces).await?;
    let references = resolve::references(&world);
    let applications = group(&world, &references);
    let shared = shared(&applications, &references);
    let objects =
        world.objects.iter().map(|(k, seen)| (k.clone(), seen.object.controller().is_some())).collect();
    let findings = std::mem::take(&mut world.findings);
    Ok(Discovered { applications, shared, findings, references, objects })
}

/// What several applications use: their own parts as each of them says, and what is cluster-scoped.
fn shared(applications: &[Application], references: &References) -> Vec<Shared> {
    let mut users: BTreeMap<&ObjectKey, BTreeSet<String>> = BTreeMap::new();
    for application in applications {
        let name = application.full_name();
        for object in &application.shared {
            users.entry(object).or_default().insert(name.clone());
        }
        for need in &application.needs {
            let users = users.entry(&need.to).or_default();
            users.extend([name.clone(), need.application.clone()]);
        }
        for edge in application.parts.iter().flat_map(|part| references.edges.get(part)).flatten() {
            let is_used = matches!(edge.via, RefKind::Class | RefKind::Role | RefKind::Definition);
            if is_used
                && edge.to.namespace.is_empty()
                && kinds::lookup(&edge.to.group, &edge.to.kind).ignored.is_none()
            {
                users.entry(&edge.to).or_default().insert(name.clone());
            }
        }
    }
    users
        .into_iter()
        .filter(|(_, users)| users.len() > 1)
        .map(|(object, users)| Shared { object: object.clone(), used_by: users.into_iter().collect() })
        .collect()
}

/// What an object says of itself: the application, and by what it says so.
fn own_word(object: &Object) -> Option<(String, &'static str)> {
    let text = |value: Option<&str>, by: &'static str| {
        value.filter(|name| !name.is_empty()).map(|name| (name.to_owned(), by))
    };
    let label = |name: &'static str| text(object.label(name), name);
    let instance = object.label("app.kubernetes.io/instance");
    let is_helms = object.label("app.kubernetes.io/managed-by") == Some("Helm");
    // `app:group/kind:namespace/name`; the Application's namespace may stand before its name.
    let argo = object.annotation("argocd.argoproj.io/tracking-id").and_then(|mark| mark.split(':').next());
    let argo = argo.map(|name| name.split_once('_').map_or(name, |(_, name)| name));
    label("app.kubernetes.io/part-of")
        .or_else(|| text(argo, "argocd"))
        .or_else(|| text(object.label("argocd.argoproj.io/instance"), "argocd"))
        .or_else(|| text(object.label("helm.toolkit.fluxcd.io/name"), "flux"))
        .or_else(|| text(object.annotation("meta.helm.sh/release-name"), "helm"))
        .or_else(|| text(instance.filter(|_| is_helms), "helm"))
        .or_else(|| label("app.kubernetes.io/instance"))
        .or_else(|| text(object.label("kustomize.toolkit.fluxcd.io/name"), "flux"))
        .or_else(|| label("app.kubernetes.io/name"))
        .or_else(|| label("app"))
        .or_else(|| label("k8s-app"))
        // Helm's own record of a release.
        .or_else(|| {
            text(object.label("name").filter(|_| object.str("/type") == "helm.sh/release.v1"), "helm")
        })
}

/// The namespace that tools say a cluster-scoped object was brought with.
fn own_place(object: &Object) -> Option<&str> {
    let argo = || object.annotation("argocd.argoproj.io/tracking-id")?.split(':').nth(2)?.split_once('/');
    object
        .annotation("meta.helm.sh/release-namespace")
        .or_else(|| argo().map(|(namespace, _)| namespace))
        .filter(|namespace| !namespace.is_empty())
}

/// Was a cluster-scoped object brought with an application of the namespaces that were read?
pub(crate) fn is_released_into(object: &Object, world: &World) -> bool {
    own_place(object).is_some_and(|namespace| world.namespaces.contains(namespace))
}

/// An object and its owners, up to the root.
fn owners<'w>(
    world: &'w World,
    key: &'w ObjectKey,
    seen: &'w Observed,
) -> Vec<(&'w ObjectKey, &'w Observed)> {
    let mut chain = vec![(key, seen)];
    // Owners cannot be cyclic for long: a chain is at most a few links.
    while let Some((key, seen)) = chain.last().copied().filter(|_| chain.len() < 8) {
        let references = seen.object.owner_references();
        // Not every operator calls itself the controller of what it makes.
        let Some(owner) = references.iter().find(|o| o.controller).or(references.first()) else { break };
        let mut up = ObjectKey::new(&owner.gvk.group, &owner.gvk.kind, &key.namespace, &owner.name);
        world::canonical(&mut up);
        let Some(found) = world.objects.get_key_value(&up) else { break };
        chain.push(found);
    }
    chain
}

/// Which of the owners up to the root says whose it is; the root's word counts most.
fn word(chain: &[(&ObjectKey, &Observed)]) -> Option<(String, &'static str)> {
    chain.iter().rev().find_map(|(_, seen)| own_word(&seen.object))
}

fn runs(seen: &Observed) -> bool {
    seen.info().pod_spec.is_some() && seen.info().order == Order::Workload
}

/// What makes of a custom resource an application, and not a mere wish: it made something that runs, or answers, or has data.
fn is_application(key: &ObjectKey, seen: &Observed) -> bool {
    runs(seen) || key.is("", "PersistentVolumeClaim") || key.is("", "Service")
}

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
    let mut applications = summarise(&names, &ours, &parts, &users);
    outside_namespaces(world, &names, &mut applications);
    needs(&names, &parts, &users, references, &mut applications);
    finish(&mut applications);
    applications
}

/// Cluster-scoped objects belong to the application that tools say, or to the only one of that name.
fn outside_namespaces(
    world: &World,
    names: &[(String, String, &'static str)],
    applications: &mut [Application],
) {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, (_, name, _)) in names.iter().enumerate() {
        by_name.entry(name).or_default().push(number);
    }
    for (key, seen) in world.objects.iter().filter(|(key, _)| key.namespace.is_empty()) {
        let Some((name, _)) = own_word(&seen.object) else { continue };
        if matches!(world.keep(seen), Keep::No(_)) || key.is("", "Namespace") {
            continue;
        }
        let place = own_place(&seen.object);
        let fitting: Vec<usize> = by_name
            .get(name.as_str())
            .into_iter()
            .flatten()
            .copied()
            .filter(|n| {
                place.is_none_or(|place| names.get(*n).is_some_and(|(namespace, ..)| namespace == place))
            })
            .collect();
        if let [one] = fitting.as_slice()
            && let Some(application) = applications.get_mut(*one)
        {
            application.parts.push(key.clone());
        }
    }
}

/// What applications use of each other, and outside of the cluster.
fn needs(
    names: &[(String, String, &'static str)],
    parts: &BTreeMap<&ObjectKey, usize>,
    users: &Users<'_>,
    references: &References,
    applications: &mut [Application],
) {
    // Whose an object is: what it says itself, or its only user.
    let whose = |key: &ObjectKey| {
        parts.get(key).copied().or_else(|| users.get(key).filter(|u| u.len() == 1)?.first().copied())
    };
    for (number, application) in applications.iter_mut().enumerate() {
        let mut needs = BTreeSet::new();
        let mut external = BTreeSet::new();
        for part in &application.parts {
            for edge in references.edges.get(part).into_iter().flatten() {
                let other = whose(&edge.to).filter(|other| *other != number && binds(edge));
                if let Some((namespace, name, _)) = other.and_then(|other| names.get(other)) {
                    needs.insert(Need {
                        application: format!("{namespace}/{name}"),
                        to: edge.to.clone(),
                        from: edge.from.clone(),
                        at: edge.at.clone(),
                    });
                }
            }
            external.extend(references.external.get(part).into_iter().flatten().cloned());
        }
        application.needs = needs.into_iter().collect();
        application.external = external.into_iter().collect();
    }
}

/// Does it mean that one cannot be without the other?
fn binds(edge: &Edge) -> bool {
    edge.via.leads_forward() && !matches!(edge.via, RefKind::Owner | RefKind::Namespace)
}

/// The last touches: data elsewhere is unprotected, names without anything are no applications.
fn finish(applications: &mut Vec<Application>) {
    for application in applications.iter_mut() {
        let mut told = BTreeSet::new();
        for external in application.external.iter().filter(|e| e.kind.holds_data()) {
            if told.insert((external.kind, &external.name)) {
                application.unprotected.push(format!(
                    "{}: {} uses it ({})",
                    match external.name.split_once(' ') {
                        // A bucket that is known by its bare name says so.
                        Some(_) => external.name.clone(),
                        None => format!("{} {}", external.kind, external.name),
                    },
                    external.from,
                    external.at
                ));
            }
        }
    }
    // A label alone is no application: something of it must exist that is ours to keep.
    applications.retain(|a| {
        !a.workloads.is_empty() || !a.volumes.is_empty() || a.parts.len() > 1 || a.by != "references"
    });
    applications.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
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

type Users<'a> = BTreeMap<&'a ObjectKey, BTreeSet<usize>>;

/// Which applications use each object that says nothing itself.
fn users<'a>(
    parts: &BTreeMap<&'a ObjectKey, usize>,
    ours: &BTreeMap<&'a ObjectKey, &'a Observed>,
    edges: &'a Edges,
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
                    | RefKind::Watches
                    | RefKind::Tracked
                    | RefKind::Namespace
                    | RefKind::Class
                    | RefKind::Definition
            )
        });
        let attached = back.get(key).into_iter().flatten().filter(|e| {
            matches!(
                e.via,
                RefKind::Owner
                    | RefKind::PartOf
                    | RefKind::Attaches
                    | RefKind::Selects
                    | RefKind::Scales
                    | RefKind::Subject
                    | RefKind::Routes
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
