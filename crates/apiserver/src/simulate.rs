//! A cluster that looks alive: workloads get pods, pods get ready, claims get volumes.
//!
//! Optional, and only as deep as a demonstration needs. Nothing runs: a pod is "Running" because its
//! claims are bound. Volumes are real directories, so that there is data to protect. Like real
//! controllers these look at the whole state and close the gap to what is wanted, again and again
//! until nothing changes; unlike them they do it before the request returns.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::State;
use crate::finalize::{remove_field, terminating};
use crate::select::label_selector_matches;
use crate::storage::Key;

/// What to pretend.
#[derive(Debug, Clone)]
pub struct Simulate {
    /// Volumes are provisioned as directories below this one.
    pub volumes: PathBuf,
}

/// The storage class that a simulated cluster has.
pub const SIMULATED_CLASS: &str = "standard";
const NODE: &str = "node-1";
const PROVISIONER: &str = "embedded.local/directory";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// More rounds than the longest chain (deployment, replica set, pod, claim, volume, status back up).
const ROUNDS_MAX: usize = 50;

/// Makes the cluster a node and a storage class.
pub fn furnish(state: &mut State) {
    let now = state.timestamp();
    let condition =
        json!([{ "type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": now }]);
    state.seed(json!({ "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": NODE, "labels": { "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux" } },
        "status": { "conditions": condition, "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }],
            "nodeInfo": { "kubeletVersion": "v1.33.1" } } }));
    state.seed(json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": PROVISIONER,
        "metadata": { "name": SIMULATED_CLASS, "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } } }));
}

/// Lets every controller act until none has anything left to do.
pub fn settle(state: &mut State, simulate: &Simulate) {
    for _ in 0..ROUNDS_MAX {
        let before = state.store.revision();
        volumes(state, simulate);
        for object in all(state, "deployments.apps") {
            deployment(state, &object);
        }
        for object in all(state, "replicasets.apps") {
            replica_set(state, &object);
        }
        for object in all(state, "statefulsets.apps") {
            stateful_set(state, &object);
        }
        for object in all(state, "daemonsets.apps") {
            daemon_set(state, &object);
        }
        for object in all(state, "jobs.batch") {
            job(state, &object);
        }
        for object in all(state, "pods") {
            pod(state, &object);
        }
        if state.store.revision() == before {
            return;
        }
    }
    tracing::warn!(rounds = ROUNDS_MAX, "the simulated controllers did not come to rest");
}

fn all(state: &State, resource: &str) -> Vec<Arc<Value>> {
    state.store.list(resource, "").map(|(_, object)| object).filter(|o| !terminating(o)).collect()
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    path.split('.').fold(object, |value, key| &value[key]).as_str().unwrap_or("")
}

fn namespace(object: &Value) -> &str {
    text(object, "metadata.namespace")
}

fn name(object: &Value) -> &str {
    text(object, "metadata.name")
}

fn uid(object: &Value) -> &str {
    text(object, "metadata.uid")
}

/// A reference that makes `owner` the controller of whatever carries it.
fn controller(owner: &Value) -> Value {
    json!([{ "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true }])
}

/// The live objects of a resource that `owner` controls; those nobody controls but its selector
/// matches are adopted, as after a restore that kept them.
fn controlled(state: &mut State, resource: &str, owner: &Value) -> Vec<Arc<Value>> {
    let candidates: Vec<(Key, Arc<Value>)> =
        state.store.list(resource, namespace(owner)).map(|(k, v)| (k.clone(), v)).collect();
    let mut mine = Vec::new();
    for (key, object) in candidates {
        if terminating(&object) {
            continue;
        }
        let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let controller_of = owners.iter().find(|o| o["controller"] == json!(true));
        match controller_of {
            Some(found) if found["uid"] == json!(uid(owner)) => mine.push(object),
            Some(_) => {}
            None if label_selector_matches(&owner["spec"]["selector"], &object["metadata"]["labels"]) => {
                let mut adopted = (*object).clone();
                adopted["metadata"]["ownerReferences"] = controller(owner);
                mine.push(state.store.put(key, adopted));
            }
            None => {}
        }
    }
    mine
}

/// Writes the status if it differs, keeping the times of conditions that did not change.
fn set_status(state: &mut State, resource: &str, object: &Value, mut status: Value) {
    let key = Key::new(resource, namespace(object), name(object));
    let Some(current) = state.store.get(&key) else { return };
    let now = state.timestamp();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        let before = current["status"]["conditions"].as_array().into_iter().flatten();
        let same =
            before.clone().find(|c| c["type"] == condition["type"] && c["status"] == condition["status"]);
        let since = same.map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone());
        condition["lastTransitionTime"] = since;
    }
    if status["conditions"].is_null() {
        remove_field(&mut status, "conditions");
    }
    if current["status"] != status {
        let mut changed = (*current).clone();
        changed["status"] = status;
        state.store.put(key, changed);
    }
}

fn condition(kind: &str, on: bool, reason: &str) -> Value {
    json!({ "type": kind, "status": if on { "True" } else { "False" }, "reason": reason })
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == json!("Ready") && c["status"] == json!("True"))
}

fn count_ready(pods: &[Arc<Value>]) -> usize {
    pods.iter().filter(|p| is_ready(p)).count()
}

/// A short name for a pod template, the same for the same template.
fn template_hash(template: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // FNV-1a: stable across builds, and nothing here needs more.
    let mut hash = template
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut out = String::new();
    for _ in 0..9 {
        out.push(char::from(LETTERS.get((hash % 27) as usize).copied().unwrap_or(b'x')));
        hash /= 27;
    }
    out
}

fn deployment(state: &mut State, object: &Value) {
    let mut template = object["spec"]["template"].clone();
    let hash = template_hash(&template);
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let current = format!("{}-{hash}", name(object));
    let sets = controlled(state, "replicasets.apps", object);
    if !sets.iter().any(|s| name(s) == current) {
        let mut selector = object["spec"]["selector"].clone();
        selector["matchLabels"]["pod-template-hash"] = json!(hash);
        template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
        let revision = sets.len() + 1;
        state.seed(json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": { "name": current, "namespace": namespace(object), "labels": template["metadata"]["labels"],
                "annotations": { "deployment.kubernetes.io/revision": revision.to_string() },
                "ownerReferences": controller(object) },
            "spec": { "replicas": wanted, "selector": selector, "template": template } }));
    }
    for set in &sets {
        let want = if name(set) == current { wanted } else { 0 };
        if set["spec"]["replicas"] != json!(want) {
            let mut scaled = (**set).clone();
            scaled["spec"]["replicas"] = json!(want);
            scaled["metadata"]["generation"] = json!(set["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
            state.store.put(Key::new("replicasets.apps", namespace(set), name(set)), scaled);
        }
    }
    let number = |set: &Value, key: &str| set["status"][key].as_i64().unwrap_or(0);
    let sets = controlled(state, "replicasets.apps", object);
    let total: i64 = sets.iter().map(|s| number(s, "replicas")).sum();
    let ready: i64 = sets.iter().map(|s| number(s, "readyReplicas")).sum();
    let updated: i64 = sets.iter().filter(|s| name(s) == current).map(|s| number(s, "replicas")).sum();
    let mut status = json!({ "observedGeneration": object["metadata"]["generation"], "conditions": [
        condition("Available", ready >= wanted, if ready >= wanted { "MinimumReplicasAvailable" } else { "MinimumReplicasUnavailable" }),
        condition("Progressing", true, "NewReplicaSetAvailable"),
    ] });
    let unavailable = (wanted - ready).max(0);
    for (key, value) in [
        ("replicas", total),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", ready),
        ("unavailableReplicas", unavailable),
    ] {
        if value > 0 {
            status[key] = json!(value);
        }
    }
    set_status(state, "deployments.apps", object, status);
}

fn replica_set(state: &mut State, object: &Value) {
    let wanted = usize::try_from(object["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or(0);
    let pods = controlled(state, "pods", object);
    for _ in pods.len()..wanted {
        let own = format!("{}-{}", name(object), state.suffix());
        start_pod(state, object, &own, |_| {});
    }
    for pod in pods.iter().skip(wanted) {
        state.remove(&Key::new("pods", namespace(pod), name(pod)));
    }
    let pods = controlled(state, "pods", object);
    let mut status =
        json!({ "observedGeneration": object["metadata"]["generation"], "replicas": pods.len() });
    if !pods.is_empty() {
        status["fullyLabeledReplicas"] = json!(pods.len());
    }
    let ready = count_ready(&pods);
    if ready > 0 {
        status["readyReplicas"] = json!(ready);
        status["availableReplicas"] = json!(ready);
    }
    set_status(state, "replicasets.apps", object, status);
}

fn start_pod(state: &mut State, owner: &Value, own: &str, change: impl FnOnce(&mut Value)) {
    let template = &owner["spec"]["template"];
    let mut metadata =
        json!({ "name": own, "namespace": namespace(owner), "ownerReferences": controller(owner) });
    for key in ["labels", "annotations"] {
        if template["metadata"][key].is_object() {
            metadata[key] = template["metadata"][key].clone();
        }
    }
    let mut pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] });
    change(&mut pod);
    make(state, owner, pod);
}

/// Makes an object for a workload. What admission refuses the workload's controller complains of, in an event; it
/// tries again whenever anything changes.
fn make(state: &mut State, owner: &Value, object: Value) {
    if let Err(fault) = state.try_seed(object) {
        complain(state, owner, &fault.message);
    }
}

fn complain(state: &mut State, owner: &Value, why: &str) {
    let kind = owner["kind"].as_str().unwrap_or("");
    let own = format!("{}.{}.failed-create", name(owner), kind.to_lowercase());
    if state.store.has(&Key::new("events", namespace(owner), &own)) {
        return;
    }
    let now = state.timestamp();
    state.seed(json!({ "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "FailedCreate",
        "metadata": { "name": own, "namespace": namespace(owner) }, "message": format!("Error creating: {why}"),
        "involvedObject": { "apiVersion": owner["apiVersion"], "kind": kind, "namespace": namespace(owner),
            "name": name(owner), "uid": uid(owner) },
        "firstTimestamp": now, "lastTimestamp": now, "count": 1, "source": { "component": "controller" } }));
}

fn stateful_set(state: &mut State, object: &Value) {
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let revision = format!("{}-{}", name(object), template_hash(&object["spec"]["template"]));
    let first = object["spec"]["ordinals"]["start"].as_i64().unwrap_or(0);
    let claims = object["spec"]["volumeClaimTemplates"].as_array().cloned().unwrap_or_default();
    let pods = controlled(state, "pods", object);
    for at in first..first + wanted {
        let own = format!("{}-{at}", name(object));
        let existing = pods.iter().find(|p| name(p) == own);
        if existing.is_some_and(|p| text(p, "metadata.labels.controller-revision-hash") != revision) {
            state.remove(&Key::new("pods", namespace(object), &own));
        } else if existing.is_some() {
            continue;
        }
        for claim in &claims {
            claim_for(state, object, claim, &own);
        }
        start_pod(state, object, &own, |pod| {
            let labels = &mut pod["metadata"]["labels"];
            labels["statefulset.kubernetes.io/pod-name"] = json!(own);
            labels["apps.kubernetes.io/pod-index"] = json!(at.to_string());
            labels["controller-revision-hash"] = json!(revision);
            pod["spec"]["hostname"] = json!(own);
            if object["spec"]["serviceName"].is_string() {
                pod["spec"]["subdomain"] = object["spec"]["serviceName"].clone();
            }
            let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            for claim in &claims {
                let volume = name(claim);
                volumes.retain(|v| v["name"] != json!(volume));
                volumes.push(json!({ "name": volume, "persistentVolumeClaim": { "claimName": format!("{volume}-{own}") } }));
            }
            if !volumes.is_empty() {
                pod["spec"]["volumes"] = json!(volumes);
            }
        });
    }
    let inside = |pod: &Value| {
        let at = name(pod).rsplit('-').next().and_then(|n| n.parse::<i64>().ok());
        at.is_some_and(|at| (first..first + wanted).contains(&at))
    };
    for pod in pods.iter().filter(|p| !inside(p)) {
        state.remove(&Key::new("pods", namespace(pod), name(pod)));
    }
    let pods = controlled(state, "pods", object);
    let ready = count_ready(&pods);
    let mut status = json!({ "observedGeneration": object["metadata"]["generation"], "replicas": pods.len(),
        "availableReplicas": ready, "collisionCount": 0, "currentRevision": revision, "updateRevision": revision });
    for (key, value) in
        [("readyReplicas", ready), ("currentReplicas", pods.len()), ("updatedReplicas", pods.len())]
    {
        if value > 0 {
            status[key] = json!(value);
        }
    }
    set_status(state, "statefulsets.apps", object, status);
}

fn claim_for(state: &mut State, set: &Value, template: &Value, pod: &str) {
    let own = format!("{}-{pod}", name(template));
    if state.store.has(&Key::new("persistentvolumeclaims", namespace(set), &own)) {
        return;
    }
    let mut labels = set["spec"]["selector"]["matchLabels"].clone();
    for (key, value) in template["metadata"]["labels"].as_object().into_iter().flatten() {
        labels[key.as_str()] = value.clone();
    }
    let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": own, "namespace": namespace(set), "labels": labels }, "spec": template["spec"] });
    make(state, set, claim);
}

fn daemon_set(state: &mut State, object: &Value) {
    let pods = controlled(state, "pods", object);
    if pods.is_empty() {
        let own = format!("{}-{}", name(object), state.suffix());
        start_pod(state, object, &own, |_| {});
    }
    let pods = controlled(state, "pods", object);
    let (count, ready) = (pods.len(), count_ready(&pods));
    let status = json!({ "observedGeneration": object["metadata"]["generation"], "currentNumberScheduled": count,
        "desiredNumberScheduled": 1, "numberMisscheduled": 0, "numberReady": ready, "numberAvailable": ready,
        "updatedNumberScheduled": count });
    set_status(state, "daemonsets.apps", object, status);
}

/// A job is done as soon as it is seen, if its pod would be taken: there is nothing to run.
fn job(state: &mut State, object: &Value) {
    if object["spec"]["suspend"] == json!(true) || object["status"]["completionTime"].is_string() {
        return;
    }
    let template = &object["spec"]["template"];
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
        "metadata": { "name": format!("{}-x", name(object)), "namespace": namespace(object),
            "labels": template["metadata"]["labels"] } });
    if let Some(kind) = state.kinds.get("", "pods").cloned()
        && let Err(fault) = state.admit_create(&kind, &mut pod)
    {
        complain(state, object, &fault.message);
        return;
    }
    let now = state.timestamp();
    let completions = object["spec"]["completions"].as_i64().unwrap_or(1);
    let status = json!({ "startTime": now, "completionTime": now, "succeeded": completions, "ready": 0,
        "conditions": [condition("Complete", true, "CompletionsReached")] });
    set_status(state, "jobs.batch", object, status);
}

/// A pod runs once its claims are bound.
fn pod(state: &mut State, object: &Value) {
    if text(object, "status.phase") != "Pending" {
        return;
    }
    let bound = |claim: &str| {
        let key = Key::new("persistentvolumeclaims", namespace(object), claim);
        state.store.get(&key).is_some_and(|c| text(&c, "status.phase") == "Bound")
    };
    let mut volumes = object["spec"]["volumes"].as_array().into_iter().flatten();
    if !volumes.all(|v| v["persistentVolumeClaim"]["claimName"].as_str().is_none_or(bound)) {
        return;
    }
    let now = state.timestamp();
    let dice = (state.entropy)();
    let address = format!("10.244.{}.{}", (dice >> 8) & 0xff, (dice & 0xff).clamp(2, 254));
    let containers: Vec<Value> = object["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| {
            json!({ "name": c["name"], "image": c["image"], "imageID": "", "ready": true, "started": true,
                "restartCount": 0, "state": { "running": { "startedAt": now } } })
        })
        .collect();
    let mut running = object.clone();
    if text(object, "spec.nodeName").is_empty() {
        running["spec"]["nodeName"] = json!(NODE);
    }
    let conditions: Vec<Value> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .iter()
        .map(|kind| json!({ "type": kind, "status": "True", "lastTransitionTime": now }))
        .collect();
    running["status"] = json!({ "phase": "Running", "qosClass": object["status"]["qosClass"], "conditions": conditions,
        "hostIP": "10.0.0.1", "podIP": address, "podIPs": [{ "ip": address }], "startTime": now,
        "containerStatuses": containers });
    state.store.put(Key::new("pods", namespace(object), name(object)), running);
}

fn volumes(state: &mut State, simulate: &Simulate) {
    for claim in all(state, "persistentvolumeclaims") {
        if text(&claim, "status.phase") == "Pending" {
            bind(state, simulate, &claim);
        }
    }
    for volume in all(state, "persistentvolumes") {
        release(state, simulate, &volume);
    }
}

/// Finds or makes the volume of a claim.
fn bind(state: &mut State, simulate: &Simulate, claim: &Value) {
    let wanted = text(claim, "spec.volumeName").to_string();
    let class = text(claim, "spec.storageClassName").to_string();
    let asked = |volume: &Value| {
        let of = &volume["spec"]["claimRef"];
        let reserved = of["name"] == json!(name(claim)) && of["namespace"] == json!(namespace(claim));
        let same_uid = of["uid"].as_str().is_none_or(|u| u.is_empty() || u == uid(claim));
        reserved && same_uid
    };
    let free = |volume: &Value| {
        volume["spec"]["claimRef"].is_null()
            && text(volume, "spec.storageClassName") == class
            && quantity(text(volume, "spec.capacity.storage"))
                >= quantity(text(claim, "spec.resources.requests.storage"))
    };
    let found = all(state, "persistentvolumes").into_iter().find(|volume| {
        if wanted.is_empty() {
            asked(volume) || free(volume)
        } else {
            name(volume) == wanted && (asked(volume) || free(volume))
        }
    });
    let volume = match found {
        Some(volume) => volume,
        None if !wanted.is_empty() => return,
        None => {
            let key = Key::new("storageclasses.storage.k8s.io", "", &class);
            let Some(class) = state.store.get(&key).filter(|c| text(c, "provisioner") == PROVISIONER) else {
                return;
            };
            match provision(state, simulate, claim, &class) {
                Some(volume) => volume,
                None => return,
            }
        }
    };
    let mut taken = (*volume).clone();
    taken["spec"]["claimRef"] = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name(claim),
        "namespace": namespace(claim), "uid": uid(claim) });
    taken["status"] = json!({ "phase": "Bound" });
    state.store.put(Key::new("persistentvolumes", "", name(&volume)), taken);
    let mut bound = claim.clone();
    bound["spec"]["volumeName"] = json!(name(&volume));
    bound["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
    bound["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"] = json!("yes");
    bound["status"] = json!({ "phase": "Bound", "accessModes": volume["spec"]["accessModes"], "capacity": volume["spec"]["capacity"] });
    state.store.put(Key::new("persistentvolumeclaims", namespace(claim), name(claim)), bound);
}

fn provision(state: &mut State, simulate: &Simulate, claim: &Value, class: &Value) -> Option<Arc<Value>> {
    let own = format!("pvc-{}", uid(claim));
    let path = simulate.volumes.join(&own);
    let block = text(claim, "spec.volumeMode") == "Block";
    let made = if block {
        let size = quantity(text(claim, "spec.resources.requests.storage"));
        std::fs::File::create(&path).and_then(|file| file.set_len(size))
    } else {
        std::fs::create_dir_all(&path)
    };
    if let Err(error) = made {
        tracing::error!(path = %path.display(), %error, "a volume could not be provisioned; its claim stays pending");
        return None;
    }
    state.seed(json!({ "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": own, "annotations": { PROVISIONED_BY: PROVISIONER } },
        "spec": { "capacity": { "storage": claim["spec"]["resources"]["requests"]["storage"] },
            "accessModes": claim["spec"]["accessModes"], "volumeMode": claim["spec"]["volumeMode"],
            "persistentVolumeReclaimPolicy": class["reclaimPolicy"], "storageClassName": name(class),
            "hostPath": { "path": path.to_string_lossy(), "type": "" } } }));
    state.store.get(&Key::new("persistentvolumes", "", &own))
}

/// A volume whose claim is gone is deleted or released, as its policy says.
fn release(state: &mut State, simulate: &Simulate, volume: &Value) {
    let of = &volume["spec"]["claimRef"];
    if text(volume, "status.phase") == "Pending" {
        return set_status(state, "persistentvolumes", volume, json!({ "phase": "Available" }));
    }
    if text(volume, "status.phase") != "Bound" {
        return;
    }
    let key = Key::new(
        "persistentvolumeclaims",
        of["namespace"].as_str().unwrap_or(""),
        of["name"].as_str().unwrap_or(""),
    );
    if state.store.get(&key).is_some_and(|c| c["metadata"]["uid"] == of["uid"]) {
        return;
    }
    let ours = volume["metadata"]["annotations"][PROVISIONED_BY] == json!(PROVISIONER);
    if !ours || text(volume, "spec.persistentVolumeReclaimPolicy") != "Delete" {
        return set_status(state, "persistentvolumes", volume, json!({ "phase": "Released" }));
    }
    // Only what was provisioned here, under the name it was given here, is ever deleted.
    let path = simulate.volumes.join(name(volume));
    if name(volume).starts_with("pvc-") && text(volume, "spec.hostPath.path") == path.to_string_lossy() {
        erase(&path);
    }
    state.remove(&Key::new("persistentvolumes", "", name(volume)));
}

fn erase(path: &Path) {
    let done = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    if let Err(error) = done
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::error!(path = %path.display(), %error, "the data of a deleted volume could not be removed");
    }
}

/// Bytes of a quantity such as `5Gi`; zero if it is none.
fn quantity(text: &str) -> u64 {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let factor = match &text[split..] {
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1u64 << 40,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        _ => 1,
    };
    text[..split].parse::<f64>().map_or(0, |number| (number * factor as f64) as u64)
}
