//! From what somebody asked for to everything that has to be in the point: the closure over references.
//!
//! The **seeds** are what was asked for. Then grows, until nothing is added:
//! - what a member owns, and who owns it;
//! - what is attached to a member: Services and policies that select it, bindings of its accounts, autoscalers,
//!   ingresses and webhooks that lead to it;
//! - what a member or anything included needs: configuration, accounts, roles, claims, classes, definitions,
//!   and services of other namespaces it names.
//!
//! What others use as well is *shared*, what has no namespace is *cluster*; both are restored only if absent.
//! Every reference of what is stored then gets its state for the certificate.

use std::collections::{BTreeMap, BTreeSet};

use repo::Finding;
use serde_json::{Value, json};

use crate::api::{ApiResources, Cluster};
use crate::certificate::{External, Reference, State};
use crate::discover;
use crate::error::Error;
use crate::graph::{By, Edge, Graph, RefKind};
use crate::kinds::{self, Keep, Order};
use crate::object::{Object, ObjectKey};
use crate::point::{Restore, Role};
use crate::resolve::{self, Edges, References};
use crate::selector::{Selector, glob};
use crate::world::{self, Observed, Unread, World, unprotected_volumes};

/// What somebody asked for. Everything empty: every application object of every namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Name of an application.
    pub application: Option<String>,
    /// Namespaces, by name or pattern (`shop-*`).
    pub namespaces: Vec<String>,
    /// Label selector, as written.
    pub labels: String,
    /// Only these kinds are asked for (`deploy`, `Deployment`, `deployments.apps`); what they need still comes along.
    pub include_kinds: Vec<String>,
    /// These kinds stay out, even where they are needed.
    pub exclude_kinds: Vec<String>,
    /// These objects stay out: `Kind/name` or `name`, with patterns.
    pub exclude_names: Vec<String>,
}

impl Selection {
    /// As it stands in `point.json`.
    pub fn to_json(&self) -> Value {
        json!({
            "application": self.application.clone().unwrap_or_default(),
            "namespaces": self.namespaces,
            "labels": self.labels,
            "include_kinds": self.include_kinds,
            "exclude_kinds": self.exclude_kinds,
            "exclude_names": self.exclude_names,
        })
    }

    /// From `point.json`.
    pub fn from_json(value: &Value) -> Selection {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let list = |name: &str| -> Vec<String> {
            let list = value.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        Selection {
            application: Some(text("application")).filter(|a| !a.is_empty()),
            namespaces: list("namespaces"),
            labels: text("labels"),
            include_kinds: list("include_kinds"),
            exclude_kinds: list("exclude_kinds"),
            exclude_names: list("exclude_names"),
        }
    }

    /// Whole namespaces are asked for, and so are they themselves: labels and policies hang on them.
    fn is_of_namespaces(&self) -> bool {
        self.application.is_none() && self.labels.is_empty() && self.include_kinds.is_empty()
    }

    /// A name for what was selected, where it has none of its own: as it was asked for, so that it is the same when
    /// namespaces come and go, and the next point finds the last.
    pub fn name(&self) -> String {
        let mut namespaces = self.namespaces.clone();
        namespaces.sort();
        let place = if namespaces.is_empty() { "everything".to_owned() } else { namespaces.join("+") };
        match (&self.application, self.labels.as_str()) {
            (Some(application), _) => application.clone(),
            (None, "") => place,
            (None, labels) => format!("{place}/{labels}"),
        }
    }
}

/// One object that goes into the point.
#[derive(Clone, Debug)]
pub struct Picked {
    /// The object.
    pub seen: Observed,
    /// How it belongs.
    pub role: Role,
    /// Whether a restore applies it.
    pub restore: Restore,
}

/// Everything that goes into a point, but the volumes' bytes.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    /// Name of the application.
    pub name: String,
    /// Namespaces of its members.
    pub namespaces: BTreeSet<String>,
    /// The objects.
    pub objects: BTreeMap<ObjectKey, Picked>,
    /// Every reference of theirs, with its state.
    pub references: Vec<Reference>,
    /// What they name outside of the cluster.
    pub external: Vec<External>,
    /// What was found on the way.
    pub findings: Vec<Finding>,
}

impl Selected {
    /// Objects and references as a graph.
    pub fn graph(&self) -> Graph {
        let edges = self.references.iter().map(|r| Edge {
            from: r.from.clone(),
            to: r.to.clone(),
            via: r.via,
            at: r.at.clone(),
            optional: false,
            by: r.by,
        });
        Graph::new(self.objects.keys().cloned().collect(), edges.collect())
    }

    /// Claims in it.
    pub fn claims(&self) -> impl Iterator<Item = (&ObjectKey, &Picked)> {
        self.objects.iter().filter(|(key, _)| key.is("", "PersistentVolumeClaim"))
    }
}

/// The parsed rest of a selection.
struct Filter {
    labels: Selector,
    include: Option<BTreeSet<(String, String)>>,
    exclude: BTreeSet<(String, String)>,
    exclude_names: Vec<(String, String)>,
}

impl Filter {
    fn of(api: &ApiResources, selection: &Selection) -> Result<Filter, Error> {
        let kinds = |names: &[String]| -> Result<BTreeSet<(String, String)>, Error> {
            names
                .iter()
                .map(|name| match api.named(name) {
                    Some(t) => Ok((t.group.clone(), t.kind.clone())),
                    None => Err(Error::NotFound(format!(
                        "the cluster serves no kind {name:?}; `kubectl api-resources` lists them"
                    ))),
                })
                .collect()
        };
        Ok(Filter {
            labels: Selector::parse(&selection.labels).map_err(Error::Invalid)?,
            include: if selection.include_kinds.is_empty() {
                None
            } else {
                Some(kinds(&selection.include_kinds)?)
            },
            exclude: kinds(&selection.exclude_kinds)?,
            exclude_names: selection
                .exclude_names
                .iter()
                .map(|text| {
                    text.split_once('/')
                        .map_or(("*".to_owned(), text.clone()), |(k, n)| (k.to_lowercase(), n.to_owned()))
                })
                .collect(),
        })
    }

    fn excludes(&self, key: &ObjectKey) -> bool {
        self.exclude.iter().any(|(group, kind)| key.is(group, kind))
            || self
                .exclude_names
                .iter()
                .any(|(kind, name)| glob(kind, &key.kind.to_lowercase()) && glob(name, &key.name))
    }

    fn asks_for(&self, key: &ObjectKey, seen: &Observed) -> bool {
        self.include.as_ref().is_none_or(|kinds| kinds.iter().any(|(group, kind)| key.is(group, kind)))
            && self.labels.selects(|name| seen.facts.labels.get(name))
    }
}

/// Reads the cluster and selects.
pub async fn select(cluster: &Cluster, selection: &Selection) -> Result<Selected, Error> {
    let filter = Filter::of(&cluster.resources, selection)?;
    let namespaces = world::namespaces(cluster, &selection.namespaces).await?;
    let mut world = world::observe(cluster, &namespaces).await?;
    let mut references = resolve::references(&world);
    let (seeds, filter) = seeds(&world, &references, selection, filter)?;
    let roles = loop {
        let (roles, abroad) = closure(&world, &references.edges, &seeds, &filter);
        if abroad.is_empty() {
            break roles;
        }
        // Needed, and not among what was read: of another namespace, or readable by name only. What is fetched may
        // need more, so the closure is walked again; what is not there is not asked for twice.
        world.fetch(cluster, &abroad).await?;
        references.add_fetched(&world, abroad);
    };
    let mut selected = assemble(&cluster.resources, &world, references, &roles, &filter);
    selected.name = selection.name();
    if selection.is_of_namespaces() {
        // One without members is in the point as well.
        let is_stored = |name: &&String| selected.objects.contains_key(&namespace_key(name));
        let stored: Vec<String> = world.namespaces.iter().filter(is_stored).cloned().collect();
        selected.namespaces.extend(stored);
    }
    selected.findings = world.findings;
    Ok(selected)
}

fn namespace_key(name: &str) -> ObjectKey {
    ObjectKey::new("", "Namespace", "", name)
}

fn seeds(
    world: &World,
    references: &References,
    selection: &Selection,
    mut filter: Filter,
) -> Result<(BTreeSet<ObjectKey>, Filter), Error> {
    let mut pool: BTreeSet<ObjectKey> = match &selection.application {
        Some(name) => {
            let mut fitting: Vec<_> =
                discover::group(world, references).into_iter().filter(|a| a.name == *name).collect();
            let places: BTreeSet<_> = fitting.iter().map(|a| a.namespace.clone()).collect();
            if fitting.is_empty() {
                return Err(Error::NotFound(format!(
                    "there is no application {name:?}; `holdfast discover` lists them"
                )));
            }
            if places.len() > 1 && selection.namespaces.is_empty() {
                let places = places.into_iter().collect::<Vec<_>>().join(", ");
                return Err(Error::Invalid(format!(
                    "{name:?} is an application in several namespaces ({places}); say which with -n"
                )));
            }
            fitting.iter_mut().flat_map(|a| std::mem::take(&mut a.parts)).collect()
        }
        None => world
            .objects
            .iter()
            .filter(|(key, seen)| {
                !key.namespace.is_empty() || discover::is_released_into(&seen.object.open(), world)
            })
            .map(|(key, _)| key.clone())
            .collect(),
    };
    if selection.is_of_namespaces() {
        pool.extend(world.namespaces.iter().map(|name| namespace_key(name)));
    }
    let everything = filter.labels.is_empty() && filter.include.is_none();
    if !everything {
        pool.retain(|key| world.objects.get(key).is_some_and(|seen| filter.asks_for(key, seen)));
    }
    pool.retain(|key| !filter.excludes(key));
    // What everybody makes by itself is not what somebody asked for.
    let kept =
        |key: &ObjectKey| world.objects.get(key).is_some_and(|seen| !matches!(world.keep(seen), Keep::No(_)));
    if !pool.iter().any(kept) {
        let place = world.namespaces.iter().cloned().collect::<Vec<_>>().join(", ");
        return Err(Error::NotFound(format!("nothing in {place} fits the selection")));
    }
    // Asked-for kinds limit the seeds only: what they need is needed.
    filter.include = None;
    Ok((pool, filter))
}

/// Walks from the seeds. Gives the roles, and what is needed but was not read.
fn closure(
    world: &World,
    edges: &Edges,
    seeds: &BTreeSet<ObjectKey>,
    filter: &Filter,
) -> (BTreeMap<ObjectKey, Role>, BTreeSet<ObjectKey>) {
    let mut back: BTreeMap<&ObjectKey, Vec<&Edge>> = BTreeMap::new();
    for edge in edges.values().flatten() {
        back.entry(&edge.to).or_default().push(edge);
    }
    let mut roles: BTreeMap<ObjectKey, Role> = BTreeMap::new();
    let mut abroad = BTreeSet::new();
    let mut work: Vec<(&ObjectKey, Role)> = seeds.iter().map(|key| (key, Role::Member)).collect();
    // Namespaces of the seeds: attachments are looked for nowhere else.
    let home: BTreeSet<&str> = seeds.iter().map(|key| key.namespace.as_str()).collect();
    while let Some((key, role)) = work.pop() {
        let role = match role {
            _ if key.namespace.is_empty() => Role::Cluster,
            Role::Member if !home.contains(key.namespace.as_str()) => Role::Shared,
            role => role,
        };
        if roles.get(key).is_some_and(|had| *had <= role) || filter.excludes(key) {
            continue;
        }
        if !world.objects.contains_key(key) {
            // An empty entry in `edges` says that it was asked for already and is not there.
            let was_read = world.namespaces.contains(&key.namespace) && world.unread(key).is_none();
            let is_ignored = kinds::lookup(&key.group, &key.kind).ignored.is_some();
            let cluster_read = key.namespace.is_empty() && world.unread(key).is_none();
            if !was_read && !cluster_read && !is_ignored && !edges.contains_key(key) {
                abroad.insert(key.clone());
            }
            continue;
        }
        roles.insert(key.clone(), role);
        for edge in edges.get(key).into_iter().flatten() {
            if edge.via.leads_forward() {
                work.push((&edge.to, if role == Role::Member { Role::Member } else { Role::Shared }));
            }
        }
        // Only members have attachments: who else uses a shared object is another application's affair. The one
        // exception is the account everybody runs as by default; its bindings are found from the members' pods.
        if role == Role::Member {
            for edge in back.get(key).into_iter().flatten() {
                if edge.via.leads_back() {
                    work.push((&edge.from, Role::Member));
                }
            }
        }
    }
    share(edges, seeds, &mut roles, &back);
    (roles, abroad)
}

/// What somebody outside needs as well is shared, unless it was asked for itself; and so is what only shared objects
/// need, and what is attached to one. Each object and each reference is looked at once.
fn share(
    edges: &Edges,
    seeds: &BTreeSet<ObjectKey>,
    roles: &mut BTreeMap<ObjectKey, Role>,
    back: &BTreeMap<&ObjectKey, Vec<&Edge>>,
) {
    let users = |key: &ObjectKey| back.get(key).into_iter().flatten().filter(|e| e.via.leads_forward());
    let is_shared =
        |roles: &BTreeMap<ObjectKey, Role>, key: &ObjectKey| roles.get(key) == Some(&Role::Shared);
    // How many references need each of those that may become shared, from objects that are not shared.
    let mut needed: BTreeMap<&ObjectKey, usize> = BTreeMap::new();
    let mut work: Vec<&ObjectKey> = Vec::new();
    for (key, _) in roles.iter().filter(|(key, role)| **role == Role::Member && !seeds.contains(*key)) {
        // Every object that was read has an entry, if an empty one.
        let Some((key, _)) = edges.get_key_value(key) else { continue };
        let used_by_others = users(key).any(|e| !roles.contains_key(&e.from));
        // A policy that also selects others, a binding of an account that others run as too.
        let attached_to_others = edges.get(key).into_iter().flatten().any(|e| {
            (e.via == RefKind::Selects && !roles.contains_key(&e.to))
                || (e.via.leads_back() && is_shared(roles, &e.to))
        });
        let open = users(key).filter(|e| !is_shared(roles, &e.from)).count();
        let used_by_shared_only = open == 0 && users(key).next().is_some();
        needed.insert(key, open);
        if used_by_others || used_by_shared_only || attached_to_others {
            work.push(key);
        }
    }
    while let Some(key) = work.pop() {
        // Those in `needed` are what may become shared; each does once.
        if needed.remove(key).is_none() {
            continue;
        }
        roles.insert(key.clone(), Role::Shared);
        for edge in edges.get(key).into_iter().flatten().filter(|e| e.via.leads_forward()) {
            if let Some(open) = needed.get_mut(&edge.to) {
                *open = open.saturating_sub(1);
                if *open == 0 {
                    work.push(&edge.to);
                }
            }
        }
        let attached = back.get(key).into_iter().flatten().filter(|e| e.via.leads_back());
        work.extend(attached.map(|e| &e.from));
    }
}

/// Puts the picked objects together and gives every reference its state.
fn assemble(
    api: &ApiResources,
    world: &World,
    mut found: References,
    roles: &BTreeMap<ObjectKey, Role>,
    filter: &Filter,
) -> Selected {
    let mut selected = Selected::default();
    for (key, role) in roles {
        let Some(seen) = world.objects.get(key) else { continue };
        let restore = match world.keep(seen) {
            Keep::No(_) => continue,
            Keep::Evidence(_) => Restore::Evidence,
            Keep::Yes if owner_restores(world, roles, key, seen) => Restore::Owned,
            Keep::Yes => Restore::Yes,
        };
        if *role == Role::Member {
            selected.namespaces.insert(key.namespace.clone());
        }
        selected.objects.insert(key.clone(), Picked { seen: seen.clone(), role: *role, restore });
    }
    // Each reference is moved from where it was found: there are many, and they are never needed twice.
    found.edges.retain(|key, _| selected.objects.contains_key(key));
    selected.references.reserve_exact(found.edges.values().map(Vec::len).sum());
    for (key, picked) in &selected.objects {
        selected.external.extend(found.external.remove(key).into_iter().flatten());
        for edge in found.edges.remove(key).into_iter().flatten() {
            let (state, reason) = if selected.objects.contains_key(&edge.to) {
                (State::Included, String::new())
            } else {
                not_included(api, world, &edge, picked, filter)
            };
            selected.references.push(Reference {
                from: edge.from,
                to: edge.to,
                via: edge.via,
                at: edge.at,
                by: edge.by,
                state,
                reason,
            });
        }
    }
    selected
}

/// Is its controller in the point, and will it make the object again, the same? Kubernetes' own workloads do so
/// with their pods, replica sets and jobs. Of an operator nobody knows: the password it generated once is in the
/// Secret it owns and in the data, and a new one would open nothing. So what operators own is restored.
fn owner_restores(
    world: &World,
    roles: &BTreeMap<ObjectKey, Role>,
    own: &ObjectKey,
    seen: &Observed,
) -> bool {
    let Some(owner) = seen.controller() else { return false };
    let makes_pods = kinds::lookup(&owner.gvk.group, &owner.gvk.kind).pod_spec.is_some();
    if !makes_pods || seen.info().order != Order::Workload {
        return false;
    }
    [own.namespace.as_str(), ""].iter().any(|namespace| {
        let mut key = ObjectKey::new(&owner.gvk.group, &owner.gvk.kind, namespace, &owner.name);
        world::canonical(&mut key);
        let is_same =
            world.objects.get(&key).is_some_and(|o| owner.uid.is_empty() || o.facts.uid == owner.uid);
        is_same && roles.contains_key(&key)
    })
}

/// What to say of a reference whose target is not in the point.
fn not_included(
    api: &ApiResources,
    world: &World,
    edge: &Edge,
    from: &Picked,
    filter: &Filter,
) -> (State, String) {
    let expected = |reason: &str| (State::ExpectedOnTarget, reason.to_owned());
    let to = &edge.to;
    if let Some(reason) = kinds::lookup(&to.group, &to.kind).ignored {
        return expected(reason);
    }
    if filter.excludes(to) {
        return expected("excluded by the selection");
    }
    if let Some(seen) = world.objects.get(to) {
        return match world.keep(seen) {
            Keep::No(reason) => expected(reason),
            Keep::Yes | Keep::Evidence(_) => expected("belongs to another application"),
        };
    }
    if let Some(reason) = made_by_every_cluster(to) {
        return expected(reason);
    }
    if from.restore != Restore::Yes {
        return expected("not there any more; the object that refers to it is not restored itself");
    }
    if edge.via == RefKind::Owner {
        return expected("its owner is gone; it is restored without");
    }
    if to.is("storage.k8s.io", "StorageClass") && is_made_by_hand(&from.seen.object.open()) {
        return expected("no such class exists: the name only pairs claims with volumes made by hand");
    }
    match world.unread(to) {
        Some(_) if edge.via == RefKind::Class => {
            expected("a class of the cluster, not readable with these credentials")
        }
        Some(_) if edge.via == RefKind::Namespace => {
            expected("a restore makes it; its labels were not readable with these credentials")
        }
        Some(_) if edge.optional => expected("optional, and not readable with these credentials"),
        Some(Unread::Forbidden) => (State::Missing, "not readable with these credentials".into()),
        Some(Unread::Broken) => (State::Missing, "its API did not answer properly".into()),
        None if edge.by == By::Text => expected("named in text only, and not there"),
        None if edge.by != By::Table => expected("it looks like a name, and nothing of that name is there"),
        None if edge.optional => expected("optional, and not there"),
        None if api.find(&to.group, &to.kind).is_none() => match edge.via {
            RefKind::Definition => expected("its API group is served by the cluster, not by a definition"),
            _ => (State::Missing, format!("the cluster serves no kind {}", to.kind)),
        },
        None if edge.via == RefKind::Definition => {
            expected("its API group is served by the cluster, not by a definition")
        }
        None => (State::Missing, "not found in the cluster".into()),
    }
}

/// A volume, or a claim that has one, that no provisioner made. Its class need not exist as an object.
fn is_made_by_hand(object: &Object) -> bool {
    const PROVISIONED: &[&str] = &[
        "pv.kubernetes.io/provisioned-by",
        "volume.kubernetes.io/storage-provisioner",
        "volume.beta.kubernetes.io/storage-provisioner",
    ];
    let key = object.key();
    let has_volume = key.is("", "PersistentVolume")
        || key.is("", "PersistentVolumeClaim") && !object.str("/spec/volumeName").is_empty();
    has_volume && PROVISIONED.iter().all(|name| object.annotation(name).is_none())
}

/// Names that stand for something everywhere, even where we may not look.
pub(crate) fn made_by_every_cluster(key: &ObjectKey) -> Option<&'static str> {
    let is_token = |name: &str| name.rsplit_once("-token-").is_some_and(|(_, end)| end.len() == 5);
    match (key.kind.as_str(), key.name.as_str()) {
        ("ServiceAccount", "default") => Some("every namespace gets it"),
        ("ConfigMap", "kube-root-ca.crt" | "openshift-service-ca.crt") => {
            Some("the cluster puts its own into every namespace")
        }
        ("Secret", name) if is_token(name) => Some("a service-account token; every cluster makes its own"),
        ("ClusterRole", "admin" | "edit" | "view" | "cluster-admin") => Some("it comes with every cluster"),
        ("ClusterRole" | "ClusterRoleBinding", name) if name.starts_with("system:") => {
            Some("it comes with every cluster")
        }
        ("PriorityClass", name) if name.starts_with("system-") => Some("it comes with every cluster"),
        ("Namespace", "default" | "kube-system" | "kube-public" | "kube-node-lease") => {
            Some("every cluster has it")
        }
        _ => None,
    }
}

/// Data of the selected workloads that no point has: volumes that are no claims, and what is outside of the cluster.
pub fn unprotected(selected: &Selected) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, picked) in &selected.objects {
        if picked.restore != Restore::Yes || picked.role != Role::Member {
            continue;
        }
        for (name, what) in unprotected_volumes(&picked.seen) {
            findings.push(Finding::note(
                "volume-unprotected",
                format!("volume {name} of {key}"),
                format!("{what}; its bytes are not in the point"),
            ));
        }
    }
    let is_ours = |key: &ObjectKey| selected.objects.get(key).is_some_and(|p| p.role == Role::Member);
    let mut told = BTreeSet::new();
    for external in selected.external.iter().filter(|e| e.kind.holds_data() && is_ours(&e.from)) {
        if told.insert((external.kind, &external.name)) {
            findings.push(Finding::note(
                "data-outside",
                external.words(),
                format!("{} uses it ({}); its data is not in the point", external.from, external.at),
            ));
        }
    }
    findings
}
