//! How objects end: finalizers, owner references, namespaces, definitions.
//!
//! In a cluster the garbage collector and the namespace controller do this some time later; here it
//! is done before the request returns. The order of events is the same.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kinds::{Kind, split_api_version};
use crate::request;
use crate::rest::{Call, Reply};
use crate::select::Selector;
use crate::status::{self, Fault};
use crate::storage::{Held, Key};
use crate::webhook::Write;
use crate::{State, convert, protobuf, types};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Keeps a definition until its objects are gone.
const DEFINITION_CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Keeps a claim while a pod uses it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume while it is bound.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

/// What happens to dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Background,
    Foreground,
    Orphan,
}

#[derive(Debug, Clone, Default)]
struct DeleteOptions {
    policy: Option<Policy>,
    uid: Option<String>,
    resource_version: Option<String>,
    dry_run: bool,
}

impl DeleteOptions {
    fn parse(call: &Call, body: &[u8]) -> Result<DeleteOptions, Fault> {
        let body = match (body.is_empty(), types::get("meta.v1.DeleteOptions")) {
            (true, _) => json!({}),
            (false, Some(ty)) if call.content_type == protobuf::CONTENT_TYPE => protobuf::object(ty, body)?,
            _ => request::body(&call.content_type, body)?,
        };
        let text = |value: &Value| value.as_str().map(str::to_string);
        let policy = match (call.query.get("propagationPolicy"), body["propagationPolicy"].as_str()) {
            ("", None) => match (&body["orphanDependents"], call.query.get("orphanDependents")) {
                (Value::Bool(true), _) | (_, "true") => Some(Policy::Orphan),
                (Value::Bool(false), _) | (_, "false") => Some(Policy::Background),
                _ => None,
            },
            (query, body) => Some(match body.unwrap_or(query) {
                "Background" => Policy::Background,
                "Foreground" => Policy::Foreground,
                "Orphan" => Policy::Orphan,
                other => {
                    let cause = status::Cause::unsupported(
                        "propagationPolicy",
                        &json!(other),
                        &["Foreground", "Background", "Orphan", "nil"],
                    );
                    return Err(Fault::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
                }
            }),
        };
        let dry_run =
            call.dry_run || body["dryRun"].as_array().is_some_and(|list| list.contains(&json!("All")));
        Ok(DeleteOptions {
            policy,
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            dry_run,
        })
    }
}

/// Kinds that answer a delete with the object that is gone rather than with a `Status`.
const RETURN_DELETED: &[&str] = &[
    "pods",
    "services",
    "persistentvolumeclaims",
    "persistentvolumes",
    "podtemplates",
    "resourcequotas",
    "serviceaccounts",
    "storageclasses.storage.k8s.io",
    "csidrivers.storage.k8s.io",
    "csinodes.storage.k8s.io",
    "volumeattachments.storage.k8s.io",
    "csistoragecapacities.storage.k8s.io",
];

fn finalizers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_string).collect()
}

/// Is it on its way out?
pub fn terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn owners(object: &Value) -> Vec<Value> {
    object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default()
}

impl State {
    /// DELETE of one object, and eviction.
    pub fn delete_named(&mut self, call: &Call, body: &[u8]) -> Result<Reply, Fault> {
        let options = DeleteOptions::parse(call, body)?;
        let kind = &call.target.kind;
        let key = Key::new(&convert::stored_resource(kind), &call.target.namespace, &call.target.name);
        let last = self.delete(kind, &key, &options)?;
        let uid = last["metadata"]["uid"].as_str().unwrap_or("");
        if call.target.sub == "eviction" {
            let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
            return Ok(Reply::Object(201, done));
        }
        let shown = terminating(&last) || RETURN_DELETED.contains(&key.resource.as_ref());
        if shown {
            return Ok(Reply::Object(200, call.present(&last)));
        }
        Ok(Reply::Status(status::success(&kind.group, &kind.plural, &key.name, uid)))
    }

    /// DELETE of a collection.
    pub fn delete_many(&mut self, call: &Call, body: &[u8]) -> Result<Reply, Fault> {
        if call.target.kind.is("", "namespaces") {
            return Err(Fault::method_not_allowed());
        }
        let options = DeleteOptions::parse(call, body)?;
        let kind = call.target.kind.clone();
        let selector =
            Selector::parse(call.query.get("labelSelector"), call.query.get("fieldSelector"), &kind)?;
        let resource = convert::stored_resource(&kind);
        let chosen: Vec<(Key, Arc<Value>)> = self
            .store
            .list(&resource, &call.target.namespace)
            .filter(|(_, object)| selector.matches(object))
            .map(|(key, object)| (key.clone(), object))
            .collect();
        // Every answer is there before the first one is deleted.
        for (_, object) in &chosen {
            self.ask_deletion(&kind, object)?;
        }
        let mut items = Vec::new();
        for (key, object) in chosen {
            match self.delete(&kind, &key, &options) {
                Ok(_) => items.push(Held::Tree(object)),
                // A cascade from an earlier one may have taken it along.
                Err(fault) if fault.code == 404 => items.push(Held::Tree(object)),
                Err(fault) => return Err(fault),
            }
        }
        Ok(Reply::List { items, metadata: json!({ "resourceVersion": self.store.revision().to_string() }) })
    }

    /// Deletes an object, or marks it for deletion if something must happen first. Returns its last
    /// known state.
    fn delete(&mut self, kind: &Kind, key: &Key, options: &DeleteOptions) -> Result<Arc<Value>, Fault> {
        let object = self.store.get(key);
        let object = object.ok_or_else(|| Fault::not_found(&kind.group, &kind.plural, &key.name))?;
        let have = |field: &str| object["metadata"][field].as_str().unwrap_or("").to_string();
        for (name, want, field) in
            [("UID", &options.uid, "uid"), ("ResourceVersion", &options.resource_version, "resourceVersion")]
        {
            if let Some(want) = want
                && *want != have(field)
            {
                let what = if name == "UID" { "deleted and then recreated" } else { "modified" };
                let why = format!(
                    "the {name} in the precondition ({want}) does not match the {name} in record ({}). The object might have been {what}",
                    have(field)
                );
                return Err(Fault::conflict(&kind.group, &kind.kind, &key.name, &why));
            }
        }
        const LASTING: &[&str] = &["default", "kube-system", "kube-public"];
        if &*key.resource == "namespaces" && LASTING.contains(&key.name.as_str()) {
            return Err(Fault::forbidden("", "namespaces", &key.name, "this namespace may not be deleted"));
        }
        self.admit_policies(&Write { kind, operation: "DELETE", old: Some(&*object), new: None }, "")?;
        self.ask_deletion(kind, &object)?;
        let mut pending = finalizers(&object);
        let default_orphans = matches!(&*key.resource, "jobs.batch" | "replicationcontrollers");
        let policy = options.policy.or_else(|| {
            let asked = |name: &str| pending.iter().any(|f| f == name);
            (default_orphans && !asked(FOREGROUND) && !asked(ORPHAN)).then_some(Policy::Orphan)
        });
        if let Some(policy) = policy {
            pending.retain(|f| f != FOREGROUND && f != ORPHAN);
            match policy {
                Policy::Background => {}
                Policy::Foreground => pending.push(FOREGROUND.into()),
                Policy::Orphan => pending.push(ORPHAN.into()),
            }
        }
        let is_namespace = &*key.resource == "namespaces";
        let is_definition = &*key.resource == "customresourcedefinitions.apiextensions.k8s.io";
        if is_definition && !terminating(&object) {
            pending.push(DEFINITION_CLEANUP.into());
        }
        let must_wait = !pending.is_empty() || is_namespace;
        let mut marked = (*object).clone();
        if pending.is_empty() {
            remove_field(&mut marked["metadata"], "finalizers");
        } else {
            marked["metadata"]["finalizers"] = json!(pending);
        }
        if must_wait && !terminating(&marked) {
            if is_namespace || is_definition {
                marked["metadata"]["deletionTimestamp"] = json!(self.timestamp());
            } else {
                self.mark(&mut marked);
            }
            if is_namespace {
                marked["status"]["phase"] = json!("Terminating");
            }
        }
        if options.dry_run {
            return Ok(Arc::new(marked));
        }
        if !must_wait {
            let mut last = self.remove(key).unwrap_or(object);
            if &*key.resource == "pods" {
                // A pod is always deleted gracefully, if only with no time to lose.
                self.mark(Arc::make_mut(&mut last));
            }
            return Ok(last);
        }
        let marked = if marked == *object { object } else { self.commit(kind, key.clone(), marked) };
        self.proceed(key);
        Ok(marked)
    }

    fn mark(&self, object: &mut Value) {
        let metadata = &mut object["metadata"];
        metadata["deletionTimestamp"] = json!(self.timestamp());
        metadata["deletionGracePeriodSeconds"] = json!(0);
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
            metadata["generation"] = json!(generation + 1);
        }
    }

    /// Does for a terminating object what its server-side finalizers stand for.
    fn proceed(&mut self, key: &Key) {
        let Some(object) = self.store.get(key) else { return };
        let uid = object["metadata"]["uid"].as_str().unwrap_or("").to_string();
        let pending = finalizers(&object);
        if pending.iter().any(|f| f == ORPHAN) {
            for dependent in self.store.owned_by(&uid) {
                self.disown(&dependent, &uid);
            }
            self.drop_finalizer(key, ORPHAN);
        }
        if pending.iter().any(|f| f == FOREGROUND) {
            for dependent in self.store.owned_by(&uid) {
                self.collect(&dependent, Some(Policy::Foreground));
            }
            self.foreground_done(&uid);
        }
        if pending.iter().any(|f| f == DEFINITION_CLEANUP) {
            self.clean_definition(key);
        }
        self.release_storage(key);
        if &*key.resource == "namespaces" {
            self.empty_namespace(&key.name);
        }
    }

    /// A terminating claim that no pod uses goes, and a terminating volume that is not bound.
    fn release_storage(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).filter(|o| terminating(o)) else { return };
        let pending = finalizers(&object);
        let holds = |name: &str| pending.iter().any(|f| f == name);
        if &*key.resource == "persistentvolumeclaims" && holds(CLAIM_PROTECTION) {
            let uses = |pod: &Value| {
                // A pod that no node has taken uses nothing yet.
                let running = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty())
                    && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
                let mut volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
                running && volumes.any(|v| v["persistentVolumeClaim"]["claimName"] == json!(key.name))
            };
            if !self.store.list("pods", &key.namespace).any(|(_, pod)| uses(&pod)) {
                self.drop_finalizer(key, CLAIM_PROTECTION);
            }
        }
        if &*key.resource == "persistentvolumes" && holds(VOLUME_PROTECTION) && !self.is_bound(&object) {
            self.drop_finalizer(key, VOLUME_PROTECTION);
        }
    }

    fn is_bound(&self, volume: &Value) -> bool {
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        let claim = &volume["spec"]["claimRef"];
        let key = Key::new("persistentvolumeclaims", &text(&claim["namespace"]), &text(&claim["name"]));
        volume["status"]["phase"] == json!("Bound")
            && self.store.get(&key).is_some_and(|c| c["metadata"]["uid"] == claim["uid"])
    }

    /// After an update: the last finalizer may be gone, or one of ours may have appeared.
    pub fn settle(&mut self, key: &Key) {
        let Some(object) = self.store.get(key) else { return };
        if !terminating(&object) {
            return;
        }
        if &*key.resource == "namespaces" {
            self.namespace_done(&key.name);
        } else if finalizers(&object).is_empty() {
            self.remove(key);
        }
    }

    fn drop_finalizer(&mut self, key: &Key, name: &str) {
        let Some(object) = self.store.get(key) else { return };
        let mut object = (*object).clone();
        let rest: Vec<String> = finalizers(&object).into_iter().filter(|f| f != name).collect();
        if rest.is_empty() {
            remove_field(&mut object["metadata"], "finalizers");
        } else {
            object["metadata"]["finalizers"] = json!(rest);
        }
        self.store.put(key.clone(), object);
        self.settle(key);
    }

    /// Takes an object out of the store, and everything that hung on it.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let last = self.store.remove(key)?;
        self.forget(key, &last);
        self.account(key, Some(&last), None);
        if let Some(uid) = last["metadata"]["uid"].as_str() {
            for dependent in self.store.owned_by(uid) {
                self.collect(&dependent, None);
            }
        }
        for owner in owners(&last) {
            if let Some(uid) = owner["uid"].as_str() {
                self.foreground_done(uid);
            }
        }
        if !key.namespace.is_empty() {
            self.namespace_done(&key.namespace);
        }
        Some(last)
    }

    /// Deletes a dependent whose owners are all gone or going; otherwise it only loses the reference.
    fn collect(&mut self, key: &Key, policy: Option<Policy>) {
        let Some(object) = self.store.get(key) else { return };
        let mut solid = Vec::new();
        let mut waiting = false;
        for owner in owners(&object) {
            match self.owner_state(&object, &owner) {
                Owner::Absent => {}
                Owner::Waiting => waiting = true,
                Owner::Present | Owner::Unknown => solid.push(owner),
            }
        }
        if solid.is_empty() {
            if terminating(&object) {
                return;
            }
            let policy =
                if waiting || policy == Some(Policy::Foreground) { self.cascade_of(&object) } else { None };
            let options = DeleteOptions {
                policy: Some(policy.unwrap_or(Policy::Background)),
                ..DeleteOptions::default()
            };
            if let Some(kind) = self.kinds.resource(&key.resource).cloned() {
                // It exists and has no preconditions; the one refusal left is a protected namespace,
                // which has no owner.
                let _ = self.delete(&kind, key, &options);
            }
        } else if solid.len() < owners(&object).len() {
            let mut object = (*object).clone();
            object["metadata"]["ownerReferences"] = json!(solid);
            self.store.put(key.clone(), object);
        }
    }

    /// A dependent with dependents of its own waits for them, too.
    fn cascade_of(&self, object: &Value) -> Option<Policy> {
        let uid = object["metadata"]["uid"].as_str().unwrap_or("");
        (!self.store.owned_by(uid).is_empty()).then_some(Policy::Foreground)
    }

    /// An owner that waits for its dependents goes once none blocks it.
    fn foreground_done(&mut self, uid: &str) {
        let Some(key) = self.store.key_of(uid).cloned() else { return };
        let Some(owner) = self.store.get(&key) else { return };
        if !terminating(&owner) || !finalizers(&owner).iter().any(|f| f == FOREGROUND) {
            return;
        }
        let blocks = |key: &Key| {
            let object = self.store.get(key);
            object
                .into_iter()
                .flat_map(|o| owners(&o))
                .any(|o| o["uid"] == json!(uid) && o["blockOwnerDeletion"] == json!(true))
        };
        if !self.store.owned_by(uid).iter().any(blocks) {
            self.drop_finalizer(&key, FOREGROUND);
        }
    }

    fn disown(&mut self, key: &Key, uid: &str) {
        let Some(object) = self.store.get(key) else { return };
        let mut object = (*object).clone();
        let rest: Vec<Value> = owners(&object).into_iter().filter(|o| o["uid"] != json!(uid)).collect();
        if rest.is_empty() {
            remove_field(&mut object["metadata"], "ownerReferences");
        } else {
            object["metadata"]["ownerReferences"] = json!(rest);
        }
        self.store.put(key.clone(), object);
    }

    fn owner_state(&self, dependent: &Value, owner: &Value) -> Owner {
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        let (group, _) = split_api_version(owner["apiVersion"].as_str().unwrap_or(""));
        let Some(kind) = self.kinds.of_group(group, &text(&owner["kind"])) else { return Owner::Unknown };
        let namespace = text(&dependent["metadata"]["namespace"]);
        if kind.namespaced && namespace.is_empty() {
            // An invalid reference: never acted on.
            return Owner::Unknown;
        }
        let namespace = if kind.namespaced { namespace } else { String::new() };
        let key = Key::new(&convert::stored_resource(kind), &namespace, &text(&owner["name"]));
        match self.store.get(&key) {
            Some(found) if found["metadata"]["uid"] == owner["uid"] => {
                let waits = terminating(&found) && finalizers(&found).iter().any(|f| f == FOREGROUND);
                if waits { Owner::Waiting } else { Owner::Present }
            }
            _ => Owner::Absent,
        }
    }

    /// A new or changed object whose owners are all gone is garbage. This is what happens to a
    /// restored object that still names the owner it had before.
    pub fn collect_if_dangling(&mut self, key: &Key) {
        let Some(object) = self.store.get(key) else { return };
        let owners = owners(&object);
        if !owners.is_empty() && owners.iter().any(|o| self.owner_state(&object, o) == Owner::Absent) {
            self.collect(key, None);
        }
    }

    /// Refuses new content where there is no namespace, or a dying one.
    pub fn namespace_is_open(&self, kind: &Kind, namespace: &str, name: &str) -> Result<(), Fault> {
        if !kind.namespaced {
            return Ok(());
        }
        match self.store.get(&Key::new("namespaces", "", namespace)) {
            None => Err(Fault::not_found("", "namespaces", namespace)),
            Some(found) if terminating(&found) => {
                Err(Fault::terminating(&kind.group, &kind.plural, name, namespace))
            }
            Some(_) => Ok(()),
        }
    }

    fn contents(&self, namespace: &str) -> Vec<Key> {
        let mut resources: Vec<String> =
            self.kinds.all().filter(|k| k.namespaced).map(|k| convert::stored_resource(k)).collect();
        resources.sort();
        resources.dedup();
        // Pods first: what they use must not vanish under them.
        resources.sort_by_key(|r| r != "pods");
        resources.iter().flat_map(|r| self.store.held(r, namespace).map(|(k, _)| k.clone())).collect()
    }

    fn empty_namespace(&mut self, namespace: &str) {
        // One look at what is left is enough, after the last delete.
        self.emptying.push(namespace.to_string());
        for key in self.contents(namespace) {
            let Some(kind) = self.kinds.resource(&key.resource).cloned() else { continue };
            let options = DeleteOptions { policy: Some(Policy::Background), ..DeleteOptions::default() };
            // Not found: an earlier one took it along. Nothing else can be refused here.
            let _ = self.delete(&kind, &key, &options);
        }
        self.emptying.retain(|n| n != namespace);
        self.namespace_done(namespace);
    }

    /// A terminating namespace goes when it is empty and has no finalizers.
    fn namespace_done(&mut self, namespace: &str) {
        let key = Key::new("namespaces", "", namespace);
        let Some(object) = self.store.get(&key) else { return };
        if !terminating(&object) || self.emptying.iter().any(|n| n == namespace) {
            return;
        }
        let left = self.contents(namespace);
        if !left.is_empty() {
            self.tell_what_is_left(&key, &object, &left);
            return;
        }
        if object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()) {
            let mut object = (*object).clone();
            remove_field(&mut object["spec"], "finalizers");
            remove_field(&mut object["status"], "conditions");
            self.store.put(key.clone(), object);
        }
        if finalizers(&object).is_empty() {
            self.remove(&key);
        }
    }

    fn tell_what_is_left(&mut self, key: &Key, object: &Value, left: &[Key]) {
        let mut waiting: Vec<String> = Vec::new();
        let mut resources: Vec<(&str, usize)> = Vec::new();
        for key in left {
            waiting.extend(self.store.get(key).map(|o| finalizers(&o)).unwrap_or_default());
            match resources.iter_mut().find(|(r, _)| *r == &*key.resource) {
                Some((_, count)) => *count += 1,
                None => resources.push((&key.resource, 1)),
            }
        }
        waiting.sort();
        let count = |list: &[String], name: &String| list.iter().filter(|f| *f == name).count();
        let mut names = waiting.clone();
        names.dedup();
        let names: Vec<String> =
            names.iter().map(|f| format!("{f} in {} resource instances", count(&waiting, f))).collect();
        let dotted = |r: &str| if r.contains('.') { r.to_string() } else { format!("{r}.") };
        let resources: Vec<String> =
            resources.iter().map(|(r, n)| format!("{} has {n} resource instances", dotted(r))).collect();
        let now = self.timestamp();
        let remaining = format!("Some resources are remaining: {}", resources.join(", "));
        let held = format!("Some content in the namespace has finalizers remaining: {}", names.join(", "));
        let held = match names.is_empty() {
            true => (false, "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            false => (true, "SomeFinalizersRemain", held.as_str()),
        };
        let conditions: Vec<Value> = [
            ("NamespaceDeletionDiscoveryFailure", (false, "ResourcesDiscovered", "All resources successfully discovered")),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                (false, "ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ),
            (
                "NamespaceDeletionContentFailure",
                (false, "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ),
            ("NamespaceContentRemaining", (true, "SomeResourcesRemain", remaining.as_str())),
            ("NamespaceFinalizersRemaining", held),
        ]
        .into_iter()
        .map(|(kind, (on, reason, message))| {
            let status = if on { "True" } else { "False" };
            json!({ "type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message })
        })
        .collect();
        let told = |object: &Value| -> Vec<Value> {
            let list = object["status"]["conditions"].as_array().into_iter().flatten();
            list.map(|c| c["message"].clone()).collect()
        };
        let before = told(object);
        let mut object = object.clone();
        object["status"]["conditions"] = json!(conditions);
        if told(&object) != before {
            self.store.put(key.clone(), object);
        }
    }

    fn clean_definition(&mut self, key: &Key) {
        let Some(kind) = self.kinds.resource(&key.name).cloned() else {
            return self.drop_finalizer(key, DEFINITION_CLEANUP);
        };
        let resource = kind.resource();
        let objects: Vec<Key> = self.store.held(&resource, "").map(|(k, _)| k.clone()).collect();
        for object in objects {
            let options = DeleteOptions { policy: Some(Policy::Background), ..DeleteOptions::default() };
            // Not found: an earlier one took it along.
            let _ = self.delete(&kind, &object, &options);
        }
        self.definition_done(&resource);
    }

    /// A terminating definition goes with the last of its objects.
    fn definition_done(&mut self, resource: &str) {
        let key = Key::new("customresourcedefinitions.apiextensions.k8s.io", "", resource);
        let going = self.store.get(&key).is_some_and(|d| terminating(&d));
        if going && self.store.held(resource, "").next().is_none() {
            self.drop_finalizer(&key, DEFINITION_CLEANUP);
        }
    }

    /// What else ends when an object has been removed.
    fn forget(&mut self, key: &Key, last: &Value) {
        match &*key.resource {
            "pods" => {
                for volume in last["spec"]["volumes"].as_array().into_iter().flatten() {
                    if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
                        self.release_storage(&Key::new("persistentvolumeclaims", &key.namespace, claim));
                    }
                }
            }
            "persistentvolumeclaims" => {
                let volume = last["spec"]["volumeName"].as_str().unwrap_or("");
                self.release_storage(&Key::new("persistentvolumes", "", volume));
            }
            "customresourcedefinitions.apiextensions.k8s.io" => {
                let group = last["spec"]["group"].as_str().unwrap_or("");
                let plural = last["spec"]["names"]["plural"].as_str().unwrap_or("");
                self.kinds.remove(group, plural);
            }
            "apiservices.apiregistration.k8s.io" => {
                let (group, version) = (&last["spec"]["group"], &last["spec"]["version"]);
                self.kinds.absent.retain(|a| json!(a.group) != *group || json!(a.version) != *version);
            }
            "serviceaccounts" | "configmaps" => self.furnish_namespace(&key.namespace),
            resource => {
                let resource = resource.to_string();
                self.definition_done(&resource);
            }
        }
    }
}

/// The state of an owner, as garbage collection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It is there.
    Present,
    /// It is there, and waits for its dependents to go.
    Waiting,
    /// It is gone, or another object has its name.
    Absent,
    /// Its kind is not served: never acted on.
    Unknown,
}

/// Removes a key from a map.
pub fn remove_field(map: &mut Value, key: &str) {
    if let Some(map) = map.as_object_mut() {
        map.shift_remove(key);
    }
}
