//! What the cluster holds right now, as far as we may see it.
//!
//! Observing never ends at one thing that cannot be read: a kind that is forbidden or broken is remembered, so
//! that the certificate can say "not readable" and not "not there". It ends when nothing may be read at all, or
//! when the cluster itself does not answer. Objects are held as text, with what is asked of all of them beside it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use repo::{Finding, Severity};
use serde_json::Value;

use crate::api::{ApiError, Cluster, ResourceType};
use crate::discover;
use crate::error::Error;
use crate::kinds::{self, Keep, KindInfo};
use crate::object::{Object, ObjectKey, OwnerRef, Packed};
use crate::selector::glob;

/// Lists asked for at the same time.
const LISTS_AT_ONCE: usize = 8;
/// Up to so many namespaces are listed one by one.
const NAMESPACES_ONE_BY_ONE: usize = 3;
/// API groups that compute what they answer and hold nothing.
const MEASURED: &[&str] = &["metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"];

/// An object and the type it was read as.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Its type.
    pub resource: Arc<ResourceType>,
    /// The object, untouched.
    pub object: Packed,
    /// What is asked of every object.
    pub facts: Arc<Facts>,
}

/// What is asked of every object again and again, so that it is opened once for all of it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its UID.
    pub uid: String,
    /// Its owners.
    pub owners: Vec<OwnerRef>,
    /// Its labels.
    pub labels: Labels,
    /// Labels of the pods it makes; its own if it is one.
    pub pod_labels: Labels,
    /// The application that it says it belongs to, and by what it says so.
    pub word: Option<(String, &'static str)>,
    /// Does it belong into a point? None where that depends on others.
    keep: Option<Keep>,
}

/// A few labels, looked up by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    fn of(value: Option<&Value>) -> Labels {
        let labels = value.and_then(Value::as_object).into_iter().flatten();
        Labels(labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
    }

    /// A label's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Facts {
    fn of(info: &KindInfo, object: &Object) -> Facts {
        let asked = Cell::new(false);
        let keep = (info.keep)(object, &|_| {
            asked.set(true);
            None
        });
        let pods = info.pod_spec.and_then(|at| at.strip_suffix("/spec"));
        Facts {
            uid: object.uid().to_owned(),
            owners: object.owner_references(),
            labels: Labels::of(object.at("/metadata/labels")),
            pod_labels: Labels::of(pods.and_then(|base| object.at(&format!("{base}/metadata/labels")))),
            word: discover::own_word(object),
            keep: (!asked.get()).then_some(keep),
        }
    }
}

/// An object as it came in a list.
type Read = (ObjectKey, Packed, Facts);

fn read(resource: &ResourceType, object: Object) -> Read {
    let facts = Facts::of(kinds::lookup(&resource.group, &resource.kind), &object);
    (object.key(), Packed::from(&object), facts)
}

impl Observed {
    /// What its kind means.
    pub fn info(&self) -> &'static KindInfo {
        kinds::lookup(&self.resource.group, &self.resource.kind)
    }

    /// The owner that manages it, if there is one.
    pub fn controller(&self) -> Option<&OwnerRef> {
        self.facts.owners.iter().find(|owner| owner.controller)
    }
}

/// Why something could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The credentials may not.
    Forbidden,
    /// Whoever serves it does not answer properly.
    Broken,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The objects.
    pub objects: BTreeMap<ObjectKey, Observed>,
    /// Namespaces that were read in full, as far as allowed.
    pub namespaces: BTreeSet<String>,
    /// Kinds that live outside of namespaces, by (group, kind).
    pub cluster_scoped: BTreeSet<(String, String)>,
    /// Kinds that could not be read, by (group, kind, namespace or "").
    pub unread: BTreeMap<(String, String, String), Unread>,
    /// What was found on the way.
    pub findings: Vec<Finding>,
}

impl World {
    /// An object, opened.
    pub fn get(&self, key: &ObjectKey) -> Option<Object> {
        self.objects.get(key).map(|seen| seen.object.open())
    }

    /// All objects of a kind.
    pub fn of_kind<'w>(
        &'w self,
        group: &'w str,
        kind: &'w str,
    ) -> impl Iterator<Item = (&'w ObjectKey, &'w Observed)> {
        // Keys sort by group and kind first.
        let from = ObjectKey::new(group, kind, "", "");
        self.objects.range(from..).take_while(move |(key, _)| key.is(group, kind))
    }

    /// Does this object belong into a point?
    pub fn keep(&self, seen: &Observed) -> Keep {
        let look = || (seen.info().keep)(&seen.object.open(), &|key| self.get(key));
        seen.facts.keep.unwrap_or_else(look)
    }

    /// Could this object not be read, if it exists?
    pub fn unread(&self, key: &ObjectKey) -> Option<Unread> {
        let at = |namespace: &str| (key.group.clone(), key.kind.clone(), namespace.to_owned());
        self.unread.get(&at(&key.namespace)).or_else(|| self.unread.get(&at(""))).copied()
    }

    fn add(&mut self, resource: &Arc<ResourceType>, (mut key, object, facts): Read) {
        canonical(&mut key);
        let seen = Observed { resource: resource.clone(), object, facts: Arc::new(facts) };
        self.objects.insert(key, seen);
    }
}

/// The group a kind is at home in: a Deployment of `extensions` is that of `apps`.
pub fn canonical(key: &mut ObjectKey) {
    let info = kinds::lookup(&key.group, &key.kind);
    if !info.kind.is_empty() && info.group != key.group {
        key.group = info.group.to_owned();
    }
}

/// Types worth reading: in the version to use, listable, not passing, and each object once.
fn types(cluster: &Cluster) -> Vec<ResourceType> {
    let api = &cluster.resources;
    api.preferred()
        .filter(|t| t.can("list") && t.can("get"))
        .filter(|t| {
            let info = kinds::lookup(&t.group, &t.kind);
            let is_served_at_home =
                info.group != t.group && !info.kind.is_empty() && api.find(info.group, &t.kind).is_some();
            info.ignored.is_none() && !is_served_at_home
        })
        .cloned()
        .collect()
}

/// The namespaces that patterns mean. Without a pattern: all but those of Kubernetes itself.
pub async fn namespaces(cluster: &Cluster, patterns: &[String]) -> Result<BTreeSet<String>, Error> {
    let is_glob = |p: &String| p.contains(['*', '?']);
    let Some(resource) = cluster.resources.find("", "Namespace") else {
        return Err(Error::NotFound("the cluster serves no namespaces".into()));
    };
    if !patterns.is_empty() && !patterns.iter().any(is_glob) {
        let mut found = BTreeSet::new();
        for name in patterns {
            match cluster.get(resource, "", name).await {
                Ok(Some(_)) => {}
                Ok(None) => return Err(Error::NotFound(format!("there is no namespace {name:?}"))),
                // Who may read inside a namespace may often not read the namespace: go in and see.
                Err(ApiError::Denied { .. }) => {}
                Err(e) => return Err(e.into()),
            }
            found.insert(name.clone());
        }
        return Ok(found);
    }
    let all = cluster.list(resource, None, None).await?;
    let names = all.iter().map(|n| n.name().to_owned());
    let found: BTreeSet<String> = if patterns.is_empty() {
        names.filter(|n| !["kube-system", "kube-public", "kube-node-lease"].contains(&n.as_str())).collect()
    } else {
        names.filter(|n| patterns.iter().any(|p| glob(p, n))).collect()
    };
    if found.is_empty() && !patterns.is_empty() {
        return Err(Error::NotFound(format!("no namespace fits {}", patterns.join(", "))));
    }
    Ok(found)
}

/// Reads everything in these namespaces, and everything cluster-scoped.
pub async fn observe(cluster: &Cluster, namespaces: &BTreeSet<String>) -> Result<World, Error> {
    let outside = cluster.resources.types.iter().filter(|t| !t.namespaced);
    let mut world = World {
        namespaces: namespaces.clone(),
        cluster_scoped: outside.map(|t| (t.group.clone(), t.kind.clone())).collect(),
        ..World::default()
    };
    for broken in &cluster.resources.broken {
        let group = broken.group_version.split('/').next().unwrap_or("");
        let why = match MEASURED.contains(&group) {
            true => "it is announced and does not answer; it only measures, so nothing of it is restored",
            false => "it is announced and does not answer, so what it holds is not in the point",
        };
        // What nobody could see may be what the application lives on: such a point is not complete.
        let severity = if MEASURED.contains(&group) { Severity::Warning } else { Severity::Error };
        let message = format!("{why}: {}", broken.message);
        world.findings.push(Finding::new(severity, "api-group-broken", &broken.group_version, message));
    }
    // Many namespaces are read in one list a kind, if the credentials reach that far; else one by one.
    let in_one = namespaces.len() > NAMESPACES_ONE_BY_ONE;
    let mut wanted = Vec::new();
    for resource in types(cluster) {
        if resource.namespaced && !in_one {
            wanted.extend(namespaces.iter().map(|n| (resource.clone(), Some(n.clone()))));
        } else {
            wanted.push((resource, None));
        }
    }
    let mut lists = cluster.list_all(wanted, LISTS_AT_ONCE, read).await;
    if in_one {
        let refused =
            |(resource, _, result): &mut (ResourceType, Option<String>, Result<Vec<Read>, ApiError>)| {
                resource.namespaced && matches!(result, Err(ApiError::Denied { .. }))
            };
        let again: Vec<_> = lists
            .extract_if(.., refused)
            .flat_map(|(resource, ..)| namespaces.iter().map(move |n| (resource.clone(), Some(n.clone()))))
            .collect();
        lists.extend(cluster.list_all(again, LISTS_AT_ONCE, read).await);
    }
    let (mut read, mut denied) = (0, None);
    let mut uids = BTreeSet::new();
    for (resource, namespace, result) in lists {
        let resource = Arc::new(resource);
        match result {
            Ok(objects) => {
                read += usize::from(resource.namespaced);
                for (key, object, facts) in objects {
                    if resource.namespaced && !namespaces.contains(&key.namespace) {
                        continue;
                    }
                    // The same object under a group we do not know the kinship of.
                    if facts.uid.is_empty() || uids.insert(facts.uid.clone()) {
                        world.add(&resource, (key, object, facts));
                    }
                }
            }
            Err(error) => {
                if let (ApiError::Denied { .. }, true) = (&error, namespace.is_some()) {
                    denied.get_or_insert_with(|| error.to_string());
                }
                world.missed(&resource, namespace.as_deref().unwrap_or(""), error)?;
            }
        }
    }
    match denied {
        Some(why) if read == 0 => {
            Err(Error::Denied(format!("nothing in {} may be read: {why}", join(namespaces))))
        }
        _ => Ok(world),
    }
}

fn join(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl World {
    /// Remembers a list that failed. Ends the work if the cluster itself is gone.
    fn missed(&mut self, resource: &ResourceType, namespace: &str, error: ApiError) -> Result<(), Error> {
        let of_kubernetes = !resource.group.contains('.') || resource.group.ends_with(".k8s.io");
        let place = if namespace.is_empty() { String::new() } else { format!(" in {namespace}") };
        let what = format!("{}{place}", resource.full_name());
        let mut key = ObjectKey::new(&resource.group, &resource.kind, namespace, "");
        canonical(&mut key);
        let finding = match error {
            ApiError::Denied { message, .. } => {
                self.unread.insert((key.group, key.kind, key.namespace), Unread::Forbidden);
                // Who protects one namespace may rarely read the cluster's own objects; what the application needs
                // of them is asked for by name, and the certificate says what could not be had.
                let (code, scope) = if namespace.is_empty() {
                    ("forbidden-cluster", "")
                } else {
                    ("forbidden", "; the point lacks them")
                };
                Finding::warning(code, what, format!("these credentials may not list them{scope}: {message}"))
            }
            ApiError::Unreachable { .. } if of_kubernetes => return Err(error.into()),
            // It went away between discovery and now, or cannot be listed after all. Kubernetes' own do neither.
            ApiError::NotFound { .. } | ApiError::Invalid { .. } if !kinds::is_built_in(&key.group) => {
                Finding::note("not-listable", what, error.to_string())
            }
            error => {
                self.unread.insert((key.group, key.kind, key.namespace), Unread::Broken);
                Finding::warning(
                    "unreadable",
                    what,
                    format!("listing them failed, so the point lacks them: {error}"),
                )
            }
        };
        self.findings.push(finding);
        Ok(())
    }

    /// Asks for objects that are outside of what was read: of other namespaces, or where only names may be read.
    pub async fn fetch(&mut self, cluster: &Cluster, keys: &BTreeSet<ObjectKey>) -> Result<(), Error> {
        let wanted =
            keys.iter().filter_map(|key| Some((key, cluster.resources.find(&key.group, &key.kind)?)));
        let answers: Vec<_> = futures::stream::iter(wanted)
            .map(|(key, resource)| async move {
                (key, resource, cluster.get(resource, &key.namespace, &key.name).await)
            })
            .buffer_unordered(LISTS_AT_ONCE)
            .collect()
            .await;
        for (key, resource, answer) in answers {
            let at = (key.group.clone(), key.kind.clone(), key.namespace.clone());
            match answer {
                Ok(Some(object)) => self.add(&Arc::new(resource.clone()), read(resource, object)),
                Ok(None) => {}
                Err(ApiError::Denied { .. }) => {
                    self.unread.insert(at, Unread::Forbidden);
                }
                Err(e @ ApiError::Unreachable { .. }) => return Err(e.into()),
                Err(_) => {
                    self.unread.insert(at, Unread::Broken);
                }
            }
        }
        Ok(())
    }
}

/// Volumes of a pod spec that no backup of claims reaches, as (name, what it is).
pub fn unprotected_volumes(seen: &Observed) -> Vec<(String, &'static str)> {
    let Some(base) = seen.info().pod_spec else { return Vec::new() };
    let object = seen.object.open();
    let volumes = object.at(&format!("{base}/volumes")).and_then(Value::as_array);
    let kinds = [
        ("emptyDir", "emptyDir: gone with its pod"),
        ("hostPath", "hostPath: a directory of one node"),
        ("nfs", "nfs: mounted past any claim"),
        ("ephemeral", "ephemeral: gone with its pod"),
    ];
    volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| {
            let (_, what) = kinds.iter().find(|(kind, _)| volume.get(kind).is_some())?;
            Some((volume.get("name")?.as_str()?.to_owned(), *what))
        })
        .collect()
}
