//! Labels: `holdfast.dev/policy: NAME` on a namespace or a workload is enough to be protected.
//!
//! For a namespace an Application of the namespace's name selects everything in it; for workloads, the discovered applications that they
//! belong to. What was made for a label follows it, and goes with it; points stay. What somebody else made under the name that would be
//! needed is let alone, and told. To find out what a workload belongs to the namespace is read as the Policy's requester, and only when
//! its labelled workloads have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Ref;
use app::api::{ApiError, Cluster};
use app::discover::discover;
use async_trait::async_trait;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{APPLICATIONS, Controller, Failure, NAMESPACES, Plan, World, labels, plain_name, short};
use crate::events::Told;
use crate::requester::acting;
use crate::tenancy::allows;
use crate::watch::{Change, Key, Kind};

/// By this label something is to be protected.
pub const POLICY: &str = "holdfast.dev/policy";
/// The value that takes a workload out of its namespace's application.
pub const NONE: &str = "none";
/// On what was made for a label.
pub const MADE_BY: &str = "holdfast.dev/made-by";
/// On an Application that was made for workloads: for which.
const MADE_FOR: &str = "holdfast.dev/made-for";
/// When a namespace is read again after what its workloads belong to could not be found out.
const TRIED_AGAIN: SignedDuration = SignedDuration::from_mins(2);

/// What the label can be on besides namespaces, as this server has it. Only those that have it are watched, by their metadata.
pub async fn workloads(cluster: &Cluster) -> Result<[Kind; 5], ApiError> {
    // Before 1.21 it is a beta, from 1.25 on it is none.
    let served = cluster.get_path("/apis/batch/v1").await?;
    let is_new = served["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|served| served["name"] == json!("cronjobs"));
    Ok([
        workload("Deployment", "apps/v1", "deployments"),
        workload("StatefulSet", "apps/v1", "statefulsets"),
        workload("DaemonSet", "apps/v1", "daemonsets"),
        workload("Job", "batch/v1", "jobs"),
        workload("CronJob", if is_new { "batch/v1" } else { "batch/v1beta1" }, "cronjobs"),
    ])
}

const fn workload(kind: &'static str, version: &'static str, plural: &'static str) -> Kind {
    Kind { kind, version, plural, metadata_only: true, labels: Some(POLICY) }
}

/// The controller of labels.
pub struct Labels;

/// A workload with the label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    kind: &'static str,
    version: &'static str,
    name: String,
    uid: String,
    policy: String,
}

impl Workload {
    fn full(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// What is known of the labels of a namespace.
pub struct Seen {
    namespace: Arc<Value>,
    workloads: Vec<Workload>,
    /// The policies that are named, as they are meant from here.
    policies: BTreeMap<String, Ref>,
    applications: Vec<Arc<Value>>,
    /// What each workload belongs to; or why that is not known.
    belongs: BTreeMap<String, Result<String, String>>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make an Application.
    Make(Value),
    /// Change one that was made for a label.
    Change {
        /// As it lies there.
        object: Arc<Value>,
        /// A merge patch.
        patch: Value,
    },
    /// Remove one whose label is gone. Its points stay.
    Remove(Arc<Value>),
}

#[async_trait]
impl Controller for Labels {
    type Seen = Seen;
    type Step = Step;
    const KIND: Kind = NAMESPACES;

    fn wakes(_world: &World, change: &Change) -> Vec<Key> {
        let of = |namespace: &str| vec![Key::new("", namespace)];
        let of_labels = |object: &Option<Arc<Value>>| object.as_ref().map(|object| labels(object));
        let of_spec = |object: &Option<Arc<Value>>| {
            object.as_ref().map(|object| (object["spec"].clone(), labels(object)))
        };
        match change.kind {
            "Namespace" if of_labels(&change.old) != of_labels(&change.new) => of(&change.key.name),
            "Application" if of_spec(&change.old) != of_spec(&change.new) => of(&change.key.namespace),
            "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "CronJob"
                if of_labels(&change.old) != of_labels(&change.new) =>
            {
                of(&change.key.namespace)
            }
            _ => Vec::new(),
        }
    }

    async fn observe(&self, world: &World, key: &Key) -> Result<Option<Seen>, Failure> {
        let Some(known) = world.namespaces.get(key) else { return Ok(None) };
        // Of metadata alone a server says another kind.
        let namespace =
            Arc::new(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": known["metadata"]}));
        let mut workloads = Vec::new();
        for (kind, known) in &world.workloads {
            for object in known.within(&key.name) {
                let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
                let Some(policy) = labels(&object).remove(POLICY) else { continue };
                workloads.push(Workload {
                    kind: kind.kind,
                    version: kind.version,
                    name: text("name"),
                    uid: text("uid"),
                    policy,
                });
            }
        }
        workloads.sort();
        let applications = world.applications.within(&key.name);
        let named = labels(&namespace).remove(POLICY);
        let names: BTreeSet<String> =
            workloads.iter().map(|w| w.policy.clone()).chain(named).filter(|name| name != NONE).collect();
        let policies = names.into_iter().map(|name| (name.clone(), meant(world, &key.name, &name))).collect();
        let mut seen = Seen { namespace, workloads, policies, applications, belongs: BTreeMap::new() };
        seen.belongs = belongs(world, &key.name, &seen).await?;
        Ok(Some(seen))
    }

    fn object(seen: &Seen) -> &Value {
        &seen.namespace
    }

    fn decide(seen: &Seen, now: Timestamp) -> Plan<Step> {
        plan(seen, now)
    }

    async fn act(&self, world: &World, _seen: &Seen, step: &Step) -> Result<(), Failure> {
        let json = |method: Method, path: String, kind: &'static str, body: Value| async move {
            world.cluster.json(method, &path, kind, Some(&body)).await
        };
        let done = match step {
            Step::Make(object) => {
                let collection = APPLICATIONS.collection_path(&Key::of(object).namespace);
                // There, and not yet seen: the next look sees it.
                match json(Method::POST, collection, "application/json", object.clone()).await {
                    Err(ApiError::Conflict { .. }) => Ok(Value::Null),
                    done => done,
                }
            }
            Step::Change { object, patch } => {
                let mut patch = patch.clone();
                patch["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
                json(
                    Method::PATCH,
                    APPLICATIONS.object_path(&Key::of(object)),
                    "application/merge-patch+json",
                    patch,
                )
                .await
            }
            Step::Remove(object) => {
                let metadata = &object["metadata"];
                let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": metadata["uid"]}});
                match json(
                    Method::DELETE,
                    APPLICATIONS.object_path(&Key::of(object)),
                    "application/json",
                    body,
                )
                .await
                {
                    Err(ApiError::NotFound { .. }) => Ok(Value::Null),
                    done => done,
                }
            }
        };
        Ok(done.map(drop)?)
    }
}

/// The Policy that a label means: one of its namespace, else one of the operator's that allows it.
fn meant(world: &World, namespace: &str, name: &str) -> Ref {
    let here = Ref { name: name.into(), namespace: None };
    if world.policies.get(&Key::new(namespace, name)).is_some() {
        return here;
    }
    let Some(object) = world.policies.get(&Key::new(&world.namespace, name)) else { return here };
    let allowed =
        world.read::<api::Policy>(object).ok().and_then(|policy| policy.spec.ok()).is_some_and(|spec| {
            allows(&spec.allowed_namespaces, &world.namespace, namespace, &world.labels(namespace))
        });
    // Not allowed is as if it were not there: the Application says that there is none.
    if allowed { Ref { name: name.into(), namespace: Some(world.namespace.clone()) } } else { here }
}

/// What the labelled workloads belong to. What is known already is not asked again.
async fn belongs(
    world: &World,
    namespace: &str,
    seen: &Seen,
) -> Result<BTreeMap<String, Result<String, String>>, Failure> {
    let mut known: BTreeMap<String, Result<String, String>> = BTreeMap::new();
    for application in seen.applications.iter().filter(|application| is_made(application)) {
        let Some(name) = application["spec"]["selection"]["application"].as_str() else { continue };
        let made_for = application["metadata"]["annotations"][MADE_FOR].as_str().unwrap_or_default();
        known.extend(
            made_for.split(',').filter(|w| !w.is_empty()).map(|w| (w.to_owned(), Ok(name.to_owned()))),
        );
    }
    let open: Vec<&Workload> =
        seen.workloads.iter().filter(|w| w.policy != NONE && !known.contains_key(&w.full())).collect();
    let Some(first) = open.first() else { return Ok(known) };
    // Whose rights count: the Policy's account in this namespace.
    let account = seen.policies.get(&first.policy).and_then(|policy| {
        let at = policy.namespace.as_deref().unwrap_or(namespace);
        let object = world.policies.get(&Key::new(at, &policy.name))?;
        object["spec"]["serviceAccountName"].as_str().map(str::to_owned)
    });
    let found = match acting(&world.cluster, namespace, account.as_deref()).await? {
        Err(why) => Err(format!("{} (of Policy {})", why.0, first.policy)),
        Ok(acting) => match Cluster::connect(acting.client).await {
            Err(error) => Err(error.to_string()),
            Ok(cluster) => {
                discover(&cluster, &[namespace.to_owned()]).await.map_err(|error| error.to_string())
            }
        },
    };
    for workload in open {
        let answer = match &found {
            Err(why) => Err(why.clone()),
            Ok(found) => {
                let has = |parts: &[app::object::ObjectKey]| {
                    parts.iter().any(|part| {
                        part.kind == workload.kind
                            && part.name == workload.name
                            && part.namespace == namespace
                    })
                };
                let application = found
                    .applications
                    .iter()
                    .find(|application| has(&application.workloads) || has(&application.parts));
                application.map(|application| application.name.clone()).ok_or_else(|| {
                    format!(
                        "{} belongs to no application that was found, or may not be read",
                        workload.full()
                    )
                })
            }
        };
        known.insert(workload.full(), answer);
    }
    Ok(known)
}

/// Was it made for a label?
fn is_made(application: &Value) -> bool {
    labels(application).get(MADE_BY).is_some_and(|by| by == "label")
}

/// An Application that a label asks for.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    policy: Ref,
    selection: Value,
    made_for: Vec<String>,
    owners: Vec<Value>,
}

fn plan(seen: &Seen, now: Timestamp) -> Plan<Step> {
    let namespace = Key::of(&seen.namespace).name;
    let mut events = Vec::new();
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    let going = !seen.namespace["metadata"]["deletionTimestamp"].is_null();
    if let Some(policy) = labels(&seen.namespace).get(POLICY).and_then(|name| seen.policies.get(name)) {
        let out: Vec<String> =
            seen.workloads.iter().filter(|w| w.policy == NONE).map(Workload::full).collect();
        let mut selection = json!({"whole": true});
        if !out.is_empty() {
            selection["excludeNames"] = json!(out);
        }
        wanted.insert(
            namespace.clone(),
            Wanted { policy: policy.clone(), selection, made_for: Vec::new(), owners: Vec::new() },
        );
    }
    let mut unknown = None;
    for workload in seen.workloads.iter().filter(|workload| workload.policy != NONE) {
        let application = match seen.belongs.get(&workload.full()) {
            Some(Ok(application)) => application,
            Some(Err(why)) => {
                unknown.get_or_insert_with(|| why.clone());
                continue;
            }
            None => continue,
        };
        let Some(policy) = seen.policies.get(&workload.policy) else { continue };
        let owner = json!({"apiVersion": workload.version, "kind": workload.kind, "name": workload.name, "uid": workload.uid});
        let name = short(&plain_name(application));
        match wanted.get_mut(&name) {
            None => {
                let selection = json!({"application": application});
                let made = Wanted { policy: policy.clone(), selection, made_for: vec![workload.full()], owners: vec![owner] };
                wanted.insert(name, made);
            }
            Some(there) if there.policy == *policy && !there.made_for.is_empty() => {
                there.made_for.push(workload.full());
                there.owners.push(owner);
            }
            Some(there) => events.push(Told::warning("Invalid", format!(
                "{} asks for policy {}, and application {name} has {} by another label: give both the same",
                workload.full(), workload.policy, there.policy.name
            ))),
        }
    }
    if let Some(why) = &unknown {
        events.push(Told::warning(
            "Denied",
            format!("what a labelled workload belongs to is not known: {why}"),
        ));
    }
    let mut steps = Vec::new();
    if !going {
        let there: BTreeMap<String, &Arc<Value>> =
            seen.applications.iter().map(|a| (Key::of(a).name, a)).collect();
        for (name, wanted) in &wanted {
            match there.get(name) {
                None => steps.push(Step::Make(make(&namespace, name, wanted))),
                Some(object) if is_made(object) => steps.extend(change(object, wanted)),
                Some(_) => events.push(Told::normal(
                    "Invalid",
                    format!(
                        "Application {name} is there and was made by hand: it counts, and the label does not"
                    ),
                )),
            }
        }
        // As long as it is not known what a workload belongs to, what was made for it stays.
        let surplus = |object: &&Arc<Value>| is_made(object) && !wanted.contains_key(&Key::of(object).name);
        if unknown.is_none() {
            steps.extend(seen.applications.iter().filter(surplus).map(|object| Step::Remove(object.clone())));
        }
    }
    let again = unknown.and_then(|_| now.checked_add(TRIED_AGAIN).ok());
    Plan { steps, status: json!({}), events, again }
}

fn make(namespace: &str, name: &str, wanted: &Wanted) -> Value {
    let mut metadata = json!({"name": name, "namespace": namespace, "labels": {MADE_BY: "label"}});
    if !wanted.made_for.is_empty() {
        metadata["annotations"] = json!({MADE_FOR: wanted.made_for.join(",")});
        metadata["ownerReferences"] = json!(wanted.owners);
    }
    json!({"apiVersion": APPLICATIONS.version, "kind": APPLICATIONS.kind, "metadata": metadata,
        "spec": {"policy": wanted.policy, "selection": wanted.selection}})
}

/// What differs of what the label says; what else somebody wrote into it stays.
fn change(object: &Arc<Value>, wanted: &Wanted) -> Option<Step> {
    let made = make("", "", wanted);
    let selection = |of: &Value| {
        let selection = &of["spec"]["selection"];
        (
            selection["whole"] == json!(true),
            selection["application"].clone(),
            selection["excludeNames"].as_array().cloned().unwrap_or_default(),
        )
    };
    let policy = |of: &Value| serde_json::from_value::<Ref>(of["spec"]["policy"].clone()).ok();
    let annotation =
        |of: &Value| of["metadata"]["annotations"][MADE_FOR].as_str().unwrap_or_default().to_owned();
    let same = selection(object) == selection(&made)
        && policy(object) == policy(&made)
        && annotation(object) == annotation(&made);
    if same {
        return None;
    }
    let mut policy = made["spec"]["policy"].clone();
    // A merge patch: what is not there any more is said.
    policy["namespace"] = made["spec"]["policy"]["namespace"].clone();
    let old = object["spec"]["selection"].as_object().cloned().unwrap_or_default();
    let mut selection = made["spec"]["selection"].clone();
    for name in old.keys().filter(|name| made["spec"]["selection"].get(*name).is_none()) {
        selection[name] = Value::Null;
    }
    let owners = made["metadata"]["ownerReferences"].clone();
    let made_for = made["metadata"]["annotations"][MADE_FOR].clone();
    Some(Step::Change {
        object: object.clone(),
        patch: json!({"metadata": {"annotations": {MADE_FOR: made_for}, "ownerReferences": owners},
            "spec": {"policy": policy, "selection": selection}}),
    })
}

#[cfg(test)]
mod tests;
