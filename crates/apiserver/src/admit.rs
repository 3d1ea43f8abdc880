//! What happens to an object between the request and the store: system fields, defaults,
//! allocation, validation; and what the store's new content sets in motion.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::finalize::{CLAIM_PROTECTION, VOLUME_PROTECTION, remove_field, terminating};
use crate::kinds::{Absent, Kind, from_definition};
use crate::request::Target;
use crate::rest::Part;
use crate::schema::{self, Shape};
use crate::status::Fault;
use crate::storage::Key;
use crate::webhook::Write;
use crate::{State, defaults, definition, select, validate};

impl State {
    /// Completes and checks a new object, in stored form.
    pub fn admit_create(&mut self, kind: &Kind, object: &mut Value) -> Result<(), Fault> {
        let now = self.timestamp();
        let uid = self.uid();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for key in [
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "selfLink",
                "generation",
                "resourceVersion",
            ] {
                metadata.shift_remove(key);
            }
            metadata.insert("uid".into(), json!(uid));
            metadata.insert("creationTimestamp".into(), json!(now));
            if kind.generation {
                metadata.insert("generation".into(), json!(1));
            }
        }
        self.start_status(kind, object);
        self.complete(kind, None, object)?;
        if self.hooks.is_some() {
            self.ask_mutating(kind, None, object)?;
            self.complete(kind, None, object)?;
        }
        if kind.is("", "pods") {
            object["status"]["qosClass"] = json!(defaults::qos_class(&object["spec"]));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or("").to_string();
        let mut causes = validate::object(kind, object);
        definition::check(kind, None, object, &mut causes);
        if !causes.is_empty() {
            return Err(Fault::invalid(&kind.group, &kind.kind, &name, causes));
        }
        if kind.is("", "pods") {
            self.admit_security(object)?;
        }
        let write = Write { kind, operation: "CREATE", old: None, new: Some(&*object) };
        self.admit_policies(&write, "")?;
        self.admit_quota(kind, None, object)
    }

    /// The status of an object nobody has looked at yet.
    fn start_status(&self, kind: &Kind, object: &mut Value) {
        let isolated = kind.version(&kind.storage).is_some_and(|v| v.status);
        // A node reports its own status when it registers.
        if isolated && !kind.is("", "nodes") {
            remove_field(object, "status");
        }
        if kind.custom {
            return;
        }
        match kind.plural.as_str() {
            "namespaces" => {
                object["spec"]["finalizers"] = json!(["kubernetes"]);
                object["status"] = json!({ "phase": "Active" });
            }
            "pods" => {
                object["status"] =
                    json!({ "phase": "Pending", "qosClass": defaults::qos_class(&object["spec"]) })
            }
            "persistentvolumeclaims" => {
                add_finalizer(object, CLAIM_PROTECTION);
                object["status"] = json!({ "phase": "Pending" });
            }
            "persistentvolumes" => {
                add_finalizer(object, VOLUME_PROTECTION);
                object["status"] = json!({ "phase": "Pending" });
            }

            "services" => object["status"] = json!({ "loadBalancer": {} }),
            "ingresses" => object["status"] = json!({ "loadBalancer": {} }),
            "replicasets" | "replicationcontrollers" | "statefulsets" => {
                object["status"] = json!({ "replicas": 0 })
            }
            "deployments" | "jobs" | "cronjobs" | "resourcequotas" => object["status"] = json!({}),
            "daemonsets" => {
                object["status"] = json!({
                    "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0
                });
            }
            "poddisruptionbudgets" => {
                object["status"] = json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 });
            }
            "horizontalpodautoscalers" => {
                object["status"] = json!({ "currentMetrics": null, "desiredReplicas": 0 });
            }
            "customresourcedefinitions" => object["status"] = json!({}),
            _ => {}
        }
    }

    /// Completes and checks a changed object, in stored form.
    pub fn admit_update(
        &mut self,
        kind: &Kind,
        old: &Value,
        new: &mut Value,
        part: Part,
    ) -> Result<(), Fault> {
        let isolated = kind.version(&kind.storage).is_some_and(|v| v.status);
        match part {
            Part::Status => {
                let status = new.get("status").cloned();
                let accounts = new["metadata"]["managedFields"].clone();
                let notes = new["metadata"]["annotations"].clone();
                *new = old.clone();
                match status {
                    Some(status) => new["status"] = status,
                    None => remove_field(new, "status"),
                }
                set_or_remove(&mut new["metadata"], "managedFields", accounts);
                if !kind.custom {
                    set_or_remove(&mut new["metadata"], "annotations", notes);
                }
            }
            Part::Main if isolated => match old.get("status") {
                Some(status) => new["status"] = status.clone(),
                None => remove_field(new, "status"),
            },
            Part::Main | Part::All => {}
        }
        for key in [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "generateName",
        ] {
            set_or_remove(&mut new["metadata"], key, old["metadata"][key].clone());
        }
        remove_field(&mut new["metadata"], "selfLink");
        self.complete(kind, Some(old), new)?;
        if self.hooks.is_some() {
            self.ask_mutating(kind, Some(old), new)?;
            self.complete(kind, Some(old), new)?;
        }
        if kind.generation && part != Part::Status && body_changed(kind, old, new, isolated) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            new["metadata"]["generation"] = json!(generation + 1);
        }
        let name = new["metadata"]["name"].as_str().unwrap_or("").to_string();
        let mut causes = validate::object(kind, new);
        causes.extend(validate::change(kind, old, new, part));
        definition::check(kind, Some(old), new, &mut causes);
        if !causes.is_empty() {
            return Err(Fault::invalid(&kind.group, &kind.kind, &name, causes));
        }
        let write = Write { kind, operation: "UPDATE", old: Some(old), new: Some(&*new) };
        self.admit_policies(&write, if part == Part::Status { "status" } else { "" })?;
        if part == Part::Main {
            self.admit_quota(kind, Some(old), new)?;
        }
        self.allocate(kind, Some(old), new)
    }

    /// Defaults, from the table for built-in kinds and from the schema for custom ones.
    fn complete(&mut self, kind: &Kind, old: Option<&Value>, object: &mut Value) -> Result<(), Fault> {
        if kind.custom {
            if let Some(schema) = kind.version(&kind.storage).and_then(|v| v.schema.as_ref()) {
                schema::default(schema, object);
            }
            return Ok(());
        }
        defaults::fill(Shape::of(kind, &kind.storage), object);
        defaults::kind(kind, old, object);
        if kind.is("", "pods") && old.is_none() {
            self.admit_pod(object)?;
            self.admit_priority(object)?;
            self.admit_limits(object)?;
        }
        if kind.is("", "persistentvolumeclaims") && old.is_none() {
            self.admit_claim(object);
            self.admit_claim_size(object)?;
        }
        Ok(())
    }

    /// Gives a pod its service account and the account's token, as admission does everywhere.
    fn admit_pod(&mut self, pod: &mut Value) -> Result<(), Fault> {
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        let (namespace, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
        let mirror = &pod["metadata"]["annotations"]["kubernetes.io/config.mirror"];
        if !pod["spec"].is_object() || mirror.is_string() {
            return Ok(());
        }
        let account = match text(&pod["spec"]["serviceAccountName"]) {
            none if none.is_empty() => "default".to_string(),
            some => some,
        };
        let key = Key::new("serviceaccounts", &namespace, &account);
        let Some(found) = self.store.get(&key) else {
            let why = format!(
                "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found"
            );
            return Err(Fault::forbidden("", "pods", &name, &why));
        };
        pod["spec"]["serviceAccountName"] = json!(account);
        pod["spec"]["serviceAccount"] = json!(account);
        let wanted = pod["spec"]["automountServiceAccountToken"].as_bool();
        let wanted = wanted.or(found["automountServiceAccountToken"].as_bool()).unwrap_or(true);
        if wanted {
            let suffix = self.suffix();
            defaults::mount_token(&mut pod["spec"], &format!("kube-api-access-{suffix}"));
        }
        Ok(())
    }

    /// A claim that names no storage class gets the default one, if there is one. The empty name is a
    /// name: it asks for no class at all.
    fn admit_claim(&self, claim: &mut Value) {
        if claim["spec"].get("storageClassName").is_some() || !claim["spec"].is_object() {
            return;
        }
        const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
        let mut classes = self.store.list("storageclasses.storage.k8s.io", "");
        if let Some((key, _)) = classes.find(|(_, c)| c["metadata"]["annotations"][DEFAULT] == json!("true"))
        {
            claim["spec"]["storageClassName"] = json!(key.name);
        }
    }

    /// Stores an object and does what follows from it.
    pub fn commit(&mut self, kind: &Kind, key: Key, mut object: Value) -> Arc<Value> {
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            self.establish(&mut object);
        }
        if kind.is("apiregistration.k8s.io", "apiservices") {
            self.judge_service(&mut object);
        }
        let before = self.store.get(&key);
        let stored = self.store.put(key.clone(), object);
        self.account(&key, before.as_deref(), Some(&stored));
        self.learn(kind, &stored);
        if kind.is("", "namespaces") {
            self.furnish_namespace(&key.name);
        }
        self.collect_if_dangling(&key);
        stored
    }

    /// A definition is served at once; its status says so.
    fn establish(&self, definition: &mut Value) {
        let now = self.timestamp();
        let old = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition = |kind: &str, reason: &str, message: &str| {
            let since =
                old.iter().find(|c| c["type"] == json!(kind)).map(|c| c["lastTransitionTime"].clone());
            json!({ "type": kind, "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": since.unwrap_or_else(|| json!(now)) })
        };
        let mut conditions = vec![
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ];
        if terminating(definition) {
            conditions.push(condition(
                "Terminating",
                "InstanceDeletionPending",
                "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            ));
        }
        let stored = definition["spec"]["versions"].as_array().into_iter().flatten();
        let stored = stored.filter(|v| v["storage"] == json!(true)).map(|v| v["name"].clone());
        let mut versions = definition["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
        for version in stored {
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        definition["status"] = json!({
            "conditions": conditions,
            "acceptedNames": definition["spec"]["names"],
            "storedVersions": versions,
        });
    }

    /// Nobody runs the servers of aggregated APIs here, so they are unavailable.
    fn judge_service(&self, service: &mut Value) {
        let now = self.timestamp();
        let (status, reason, message) = if service["spec"]["service"].is_object() {
            let name = |key: &str| service["spec"]["service"][key].as_str().unwrap_or("").to_string();
            let message = format!("service/{} in \"{}\" is not present", name("name"), name("namespace"));
            ("False", "ServiceNotFound", message)
        } else {
            ("True", "Local", "Local APIServices are always available".to_string())
        };
        service["status"]["conditions"] = json!([{ "type": "Available", "status": status, "reason": reason,
            "message": message, "lastTransitionTime": now }]);
    }

    /// What the server itself must know about an object it stores: definitions and services extend it.
    pub fn learn(&mut self, kind: &Kind, object: &Value) {
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions")
            && let Some(defined) = from_definition(object)
        {
            self.kinds.define(defined);
        }
        if kind.is("apiregistration.k8s.io", "apiservices") && object["spec"]["service"].is_object() {
            let text = |key: &str| object["spec"][key].as_str().unwrap_or("").to_string();
            let absent = Absent { group: text("group"), version: text("version") };
            self.kinds.miss(absent);
        }
    }

    /// What every cluster starts with.
    pub fn furnish(&mut self) {
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            self.seed(json!({ "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } } }));
        }
        let all = |verbs: Value| json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": verbs }]);
        let read = json!(["get", "list", "watch"]);
        let write =
            json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
        let roles = [
            ("cluster-admin", all(json!(["*"]))),
            ("admin", all(write.clone())),
            ("edit", all(write)),
            ("view", all(read)),
        ];
        for (name, rules) in roles {
            self.seed(
                json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": rules,
                "metadata": { "name": name, "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" } } }),
            );
        }
        for (name, value) in
            [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)]
        {
            self.seed(json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": value,
                "metadata": { "name": name } }));
        }
        self.seed(json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kubernetes", "namespace": "default",
                "labels": { "component": "apiserver", "provider": "kubernetes" } },
            "spec": { "clusterIP": "10.96.0.1", "ports": [{ "name": "https", "port": 443, "targetPort": 6443 }] } }));
    }

    /// Every namespace has a default service account and the cluster's certificate authority.
    pub fn furnish_namespace(&mut self, namespace: &str) {
        let found = self.store.get(&Key::new("namespaces", "", namespace));
        if found.is_none_or(|n| terminating(&n)) {
            return;
        }
        for (kind, resource, name) in [
            ("ServiceAccount", "serviceaccounts", "default"),
            ("ConfigMap", "configmaps", "kube-root-ca.crt"),
        ] {
            if !self.store.has(&Key::new(resource, namespace, name)) {
                let mut object = json!({ "apiVersion": "v1", "kind": kind,
                    "metadata": { "name": name, "namespace": namespace } });
                if kind == "ConfigMap" {
                    object["metadata"]["annotations"] = json!({ "kubernetes.io/description":
                        "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints." });
                    object["data"] = json!({ "ca.crt": "" });
                }
                self.seed(object);
            }
        }
    }

    /// Makes an object of the server's own.
    pub fn seed(&mut self, object: Value) {
        let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
        if let Err(fault) = self.try_seed(object) {
            tracing::error!(%what, why = %fault.message, "a built-in object was refused");
        }
    }

    /// Makes an object as a controller does, unless admission refuses it.
    pub fn try_seed(&mut self, mut object: Value) -> Result<(), Fault> {
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        let Some(kind) = self.kinds.of(&text(&object["apiVersion"]), &text(&object["kind"])).cloned() else {
            return Ok(());
        };
        let key = Key::new(
            &kind.resource(),
            &text(&object["metadata"]["namespace"]),
            &text(&object["metadata"]["name"]),
        );
        self.admit_create(&kind, &mut object)?;
        self.commit(&kind, key, object);
        Ok(())
    }
}

fn add_finalizer(object: &mut Value, name: &str) {
    let metadata = &mut object["metadata"];
    let mut list = metadata["finalizers"].as_array().cloned().unwrap_or_default();
    if !list.contains(&json!(name)) {
        list.push(json!(name));
    }
    metadata["finalizers"] = json!(list);
}

fn set_or_remove(map: &mut Value, key: &str, value: Value) {
    if value.is_null() {
        remove_field(map, key);
    } else {
        map[key] = value;
    }
}

/// Did anything change that counts as a new generation?
fn body_changed(kind: &Kind, old: &Value, new: &Value, isolated: bool) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        remove_field(&mut object, "metadata");
        if isolated || !kind.custom {
            remove_field(&mut object, "status");
        }
        object
    };
    bare(old) != bare(new)
}

/// The `Scale` of an object that has one.
pub fn scale_of(target: &Target, object: &Value) -> Value {
    let paths = target.kind.version(&target.version).and_then(|v| v.scale.clone());
    let number = |path: &[String]| {
        let found = path.iter().try_fold(object, |value, key| value.get(key));
        found.and_then(Value::as_i64).unwrap_or(0)
    };
    let (spec, status, selector) = match &paths {
        Some(paths) => {
            let own = paths.selector.as_ref().and_then(|path| {
                path.iter()
                    .try_fold(object, |value, key| value.get(key))
                    .and_then(Value::as_str)
                    .map(str::to_string)
            });
            (number(&paths.spec), number(&paths.status), own)
        }
        None => (0, 0, None),
    };
    let built_in = || select::label_selector_text(&object["spec"]["selector"]);
    let selector = selector.unwrap_or_else(|| if target.kind.custom { String::new() } else { built_in() });
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": if spec == 0 { json!({}) } else { json!({ "replicas": spec }) },
        "status": { "replicas": status, "selector": selector },
    });
    if target.kind.custom && scale["status"]["selector"] == json!("") {
        remove_field(&mut scale["status"], "selector");
    }
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        set_or_remove(&mut scale["metadata"], key, metadata[key].clone());
    }
    scale
}
