//! Drift: what a recovery point's application is, against what manifests in a directory declare it to be.
//!
//! A declared object is first completed as an API server would complete it, in this process, so that a default is
//! no drift. What differs then was changed past the manifests, and the point knows by whom: its objects carry the
//! field managers. The differences can be written as a patch that brings the manifests up to date; after it,
//! there are none.

mod edit;
mod manifests;
mod reconcile;
mod unified;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use repo::{Env, Finding};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{ApiError, Cluster};
use crate::browse;
use crate::clean::clean;
use crate::error::Error;
use crate::kinds;
use crate::object::{Gvk, Object, ObjectKey};
use crate::point::{Point, Restore, Role, StoredObject};
use crate::restore::{Only, in_version, prepare};
use crate::transform::{LAST_APPLIED, Transform};
use crate::world::canonical;

pub use manifests::{Declared, Manifests, is_manifest, of_texts, read};
pub use reconcile::By;

/// What is compared.
#[derive(Debug, Clone, Default)]
pub struct DriftOptions {
    /// Which objects of the point.
    pub only: Only,
    /// Namespace of manifests that name none. Without it: the point's, if it has one only, else `default`.
    pub namespace: Option<String>,
    /// Contents of Secrets, too: shown in a patch as they are.
    pub secrets: bool,
}

/// One field that is not as declared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drifted {
    /// Where, as [`crate::compare`] writes it.
    pub at: String,
    /// What the manifest says, or the default; absent if neither does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<Value>,
    /// What it is; absent if it was taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<Value>,
    /// Who owns the field, by the object's own account.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<By>,
}

/// One object that is not as declared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DriftedObject {
    /// Which.
    pub key: ObjectKey,
    /// The manifest, below the directory.
    pub file: PathBuf,
    /// Its fields.
    pub fields: Vec<Drifted>,
}

/// Everything that is not as declared.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Drift {
    /// Objects that differ.
    pub changed: Vec<DriftedObject>,
    /// Objects that are declared and not in the point.
    pub only_declared: Vec<ObjectKey>,
    /// Members of the application that no manifest declares.
    pub only_live: Vec<ObjectKey>,
    /// Objects that are declared in a version that cannot be compared with the one in the point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<ObjectKey>,
    /// How many objects are as declared.
    pub same: usize,
    /// A patch that brings the manifests up to date, for `git apply` or `patch -p1` in the directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub patch: String,
    /// What was found on the way.
    pub findings: Vec<Finding>,
}

impl Drift {
    /// Is everything as declared?
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
            && self.only_declared.is_empty()
            && self.only_live.is_empty()
            && self.not_compared.is_empty()
    }
}

/// Compares a point with manifests.
///
/// # Errors
/// If a kind selected is not in the point.
pub async fn compare(
    point: &Point,
    manifests: Manifests,
    options: &DriftOptions,
    env: &Env,
) -> Result<Drift, Error> {
    let Manifests { texts, mut declared, findings } = manifests;
    let mut drift = Drift { findings, ..Drift::default() };
    let completer = Completer::new(point, &declared, env).await?;
    let home = home(point, options);
    let wanted = wanted(point, &options.only)?;
    let mut known: BTreeSet<ObjectKey> = BTreeSet::new();
    let mut edits: BTreeMap<PathBuf, Vec<edit::Edit>> = BTreeMap::new();
    for one in &mut declared {
        completer.place(&mut one.value, &home);
        let mut key = Object(one.value.clone()).key();
        canonical(&mut key);
        if !known.insert(key.clone()) {
            let why = "another manifest declares it as well; only the first one is compared";
            drift.findings.push(Finding::warning(
                "declared-twice",
                format!("{key} in {}", one.file.display()),
                why,
            ));
            continue;
        }
        let Some(stored) = wanted.get(&key) else {
            // A selection leaves out what was not asked for, on both sides.
            if options.only.is_empty() {
                drift.only_declared.push(key);
            }
            continue;
        };
        let what = format!("{key} in {}", one.file.display());
        let written_as = Object(one.value.clone()).gvk();
        let (original, clean_one) = (stored.original.open().0, stored.clean.open());
        let Some((declared, live)) = completer.meet(&one.value, &bare(&clean_one.0)) else {
            let why = format!(
                "it is declared as {} and is {} in the point, and neither can say all that the other says: not compared",
                written_as.api_version(),
                clean_one.gvk().api_version()
            );
            drift.findings.push(Finding::warning("no-common-version", what, why));
            drift.not_compared.push(key);
            continue;
        };
        let compared_as = Object(declared.clone()).gvk();
        if compared_as != written_as || compared_as != clean_one.gvk() {
            let why = format!(
                "it is declared as {}, is {} in the point, and compared as {}",
                written_as.api_version(),
                clean_one.gvk().api_version(),
                compared_as.api_version()
            );
            drift.findings.push(Finding::note("another-version", what.clone(), why));
        }
        let completed = match completer.complete(&declared).await {
            Ok(completed) => completed,
            Err(why) => {
                let why = format!("it is compared without defaults, since an API server refuses it: {why}");
                drift.findings.push(Finding::warning("manifest-refused", what.clone(), why));
                declared.clone()
            }
        };
        let completed = bare(&clean(&Object(completed)).0);
        let mut fields = Vec::new();
        let updated = reconcile::object(&declared, &completed, &live, &original, &mut fields);
        if fields.is_empty() {
            drift.same += 1;
            continue;
        }
        let is_secret = key.is("", "Secret");
        if !is_secret || options.secrets {
            let slim = reconcile::slim(&updated, Some(&declared), Some(&completed));
            let is_enough = completer.settles(&slim, &live, &original).await;
            let after = Object(if is_enough { slim } else { updated });
            let mut after = match in_version(&after, &written_as, completer.definition(&written_as)) {
                Some(after) => after.0,
                None => {
                    let why = format!(
                        "its manifest is not patched: {} cannot say what it is now; declare it as {}",
                        written_as.api_version(),
                        compared_as.api_version()
                    );
                    drift.findings.push(Finding::warning("not-patched", what, why));
                    one.written.clone()
                }
            };
            // What the manifest left to whoever applies it stays so.
            if one.written.pointer("/metadata/namespace").is_none()
                && let Some(metadata) = after.get_mut("metadata").and_then(Value::as_object_mut)
            {
                metadata.shift_remove("namespace");
            }
            let edit =
                edit::Edit { lines: one.lines.clone(), item: one.item, before: one.written.clone(), after };
            edits.entry(one.file.clone()).or_default().push(edit);
        } else {
            let why = "its manifest is not patched, since a patch is readable text; --secrets includes it";
            drift.findings.push(Finding::note("secret-left-out", key.to_string(), why));
        }
        if is_secret {
            fields.iter_mut().for_each(hide);
        }
        drift.changed.push(DriftedObject { key, file: one.file.clone(), fields });
    }
    for (key, stored) in &wanted {
        let is_own = stored.role == Role::Member && stored.original.open().controller().is_none();
        if is_own && !known.contains(key) && !is_of_a_set(key, &known) {
            drift.only_live.push(key.clone());
        }
    }
    for (file, edits) in edits {
        let Some(text) = texts.get(&file) else { continue };
        let updated = edit::apply(text, &file, edits);
        drift.patch.push_str(&unified::diff(&file, text, &updated));
    }
    drift.changed.sort_by(|a, b| a.key.cmp(&b.key));
    drift.only_declared.sort();
    drift.not_compared.sort();
    Ok(drift)
}

/// A claim that a StatefulSet made from its template, and keeps no reference to: `data-db-0` of `db`.
fn is_of_a_set(key: &ObjectKey, known: &BTreeSet<ObjectKey>) -> bool {
    if !key.is("", "PersistentVolumeClaim") {
        return false;
    }
    let Some((front, number)) = key.name.rsplit_once('-') else { return false };
    let is_numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let sets = known.iter().filter(|set| set.is("apps", "StatefulSet") && set.namespace == key.namespace);
    is_numbered && sets.into_iter().any(|set| front.ends_with(&format!("-{}", set.name)))
}

/// Objects of the point that a manifest could declare.
fn wanted<'p>(point: &'p Point, only: &Only) -> Result<BTreeMap<ObjectKey, &'p StoredObject>, Error> {
    let prepared = prepare(&point.objects, &Transform::default(), only)?;
    let stored = prepared.candidates.iter().filter_map(|candidate| point.objects.get(candidate.stored?));
    let restored = stored.filter(|stored| stored.restore == Restore::Yes);
    Ok(restored.map(|stored| (stored.key.clone(), stored)).collect())
}

/// Where manifests without a namespace go.
fn home(point: &Point, options: &DriftOptions) -> String {
    match (&options.namespace, point.meta.namespaces.as_slice()) {
        (Some(namespace), _) => namespace.clone(),
        (None, [one]) => one.clone(),
        (None, _) => "default".to_owned(),
    }
}

/// Without what no manifest declares: owners are linked by controllers, and kubectl's record repeats the rest.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.shift_remove("ownerReferences");
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.shift_remove(LAST_APPLIED);
            if annotations.is_empty() {
                metadata.shift_remove("annotations");
            }
        }
    }
    object
}

/// Contents of Secrets are not for screens and logs.
fn hide(field: &mut Drifted) {
    if field.at.starts_with("/data") || field.at.starts_with("/stringData") {
        for value in [&mut field.declared, &mut field.live].into_iter().flatten() {
            *value = json!("(hidden)");
        }
    }
}

/// An API server in this process that knows the kinds at hand, asked what it would make of an object.
struct Completer {
    cluster: Cluster,
    /// The definitions at hand, by group and kind.
    definitions: BTreeMap<(String, String), Value>,
}

impl Completer {
    async fn new(point: &Point, declared: &[Declared], env: &Env) -> Result<Completer, Error> {
        let server = apiserver::ApiServer::new(browse::options(env));
        let of = |kinds: &'static [&'static str]| {
            let of_files = declared.iter().map(|one| &one.value);
            let of_files =
                of_files.filter(|value| value["kind"].as_str().is_some_and(|k| kinds.contains(&k)));
            let of_point = point.objects.iter().filter(|stored| kinds.contains(&stored.key.kind.as_str()));
            of_files.cloned().chain(of_point.map(|stored| stored.original.open().0))
        };
        let all: Vec<Value> = of(&["CustomResourceDefinition"]).collect();
        let text =
            |value: &Value, at: &str| value.pointer(at).and_then(Value::as_str).unwrap_or("").to_owned();
        let named = all
            .iter()
            .rev()
            .map(|one| ((text(one, "/spec/group"), text(one, "/spec/names/kind")), one.clone()));
        let definitions = named.collect();
        // What cannot be served is compared without defaults, and that is told where it is met.
        server.load(all);
        let namespaces: BTreeSet<&str> = point
            .objects
            .iter()
            .map(|stored| stored.key.namespace.as_str())
            .chain(declared.iter().filter_map(|one| one.value.pointer("/metadata/namespace")?.as_str()))
            .filter(|name| !name.is_empty())
            .collect();
        server.load(namespaces.iter().map(|name| {
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}})
        }));
        // What admission asks for when a pod names it.
        server.load(of(&["ServiceAccount", "PriorityClass"]));
        server.load(namespaces.into_iter().map(|name| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": "Active"}})
        }));
        let cluster = Cluster::connect(kube::Client::new(server.router(), "default")).await?;
        Ok(Completer { cluster, definitions })
    }

    /// The definition of a custom kind.
    fn definition(&self, gvk: &Gvk) -> Option<&Value> {
        self.definitions.get(&(gvk.group.clone(), gvk.kind.clone()))
    }

    /// Declared and live in one version of their kind: one that is served here, so that defaults are known, and of those
    /// the declared one, then the live one, then any other. None if no version can say what both say.
    fn meet(&self, declared: &Value, live: &Value) -> Option<(Value, Value)> {
        let (declared, live) = (Object(declared.clone()), Object(live.clone()));
        let (said, is) = (declared.gvk(), live.gvk());
        let home = kinds::lookup(&said.group, &said.kind).group;
        let types = &self.cluster.resources.types;
        let others = types
            .iter()
            .filter(|t| t.kind == said.kind && (t.group == said.group || t.group == home))
            .map(|t| t.gvk());
        let mut versions: Vec<Gvk> = [said.clone(), is].into_iter().chain(others).collect();
        versions.sort_by_key(|gvk| self.cluster.resources.find_version(gvk).is_none());
        let definition = self.definition(&said);
        versions.iter().find_map(|gvk| {
            Some((in_version(&declared, gvk, definition)?.0, in_version(&live, gvk, definition)?.0))
        })
    }

    /// Gives an object the namespace it would be applied to.
    fn place(&self, object: &mut Value, home: &str) {
        let own = Object(object.clone());
        let scoped = self.cluster.resources.find_version(&own.gvk()).map(|resource| resource.namespaced);
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
        let Some(metadata) = metadata else { return };
        match scoped {
            Some(true) if own.namespace().is_empty() => {
                metadata.insert("namespace".into(), json!(home));
            }
            Some(false) => {
                metadata.shift_remove("namespace");
            }
            _ => {}
        }
    }

    /// Would this declaration be what is live?
    async fn settles(&self, declared: &Value, live: &Value, original: &Value) -> bool {
        let completed = self.complete(declared).await.unwrap_or_else(|_| declared.clone());
        let mut fields = Vec::new();
        reconcile::object(declared, &bare(&clean(&Object(completed)).0), live, original, &mut fields);
        fields.is_empty()
    }

    async fn complete(&self, object: &Value) -> Result<Value, String> {
        let mut object = Object(object.clone());
        // A manifest cannot know its owner's UID.
        if let Some(metadata) = object.0.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.shift_remove("ownerReferences");
        }
        let Some(resource) = self.cluster.resources.find_version(&object.gvk()) else {
            return Err(format!("no definition of {} is at hand", object.gvk().kind));
        };
        let made = match self.cluster.create(resource, &object, true).await {
            // It is there already (a definition that was loaded, what a server makes by itself): asked as a change.
            Err(ApiError::Conflict { .. }) => {
                let there = self.cluster.get(resource, object.namespace(), object.name()).await;
                let there = there.map_err(|error| error.to_string())?;
                let mut changed = object.clone();
                if let Some(there) = there {
                    changed.0["metadata"]["resourceVersion"] = json!(there.resource_version());
                }
                self.cluster.replace(resource, &changed, true).await
            }
            made => made,
        };
        made.map(|made| made.0).map_err(|error| error.to_string())
    }
}

/// Reads manifests below a directory and compares.
///
/// # Errors
/// If the directory cannot be read, or a kind selected is not in the point.
pub async fn with_directory(
    point: &Point,
    directory: &Path,
    options: &DriftOptions,
    env: &Env,
) -> Result<Drift, Error> {
    let root = directory.to_owned();
    let manifests = tokio::task::spawn_blocking(move || read(&root))
        .await
        .map_err(|e| Error::Invalid(format!("reading manifests ended early: {e}")))?
        .map_err(|e| Error::NotFound(format!("cannot read manifests in {}: {e}", directory.display())))?;
    if manifests.declared.is_empty() {
        return Err(Error::NotFound(format!("no manifests in {}", directory.display())));
    }
    compare(point, manifests, options, env).await
}
