//! What is asked of both servers, in order.

use serde_json::{Value, json};

use crate::{Body, Seen, Step, hooks, limits};

pub const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON: &str = "application/json-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// Every request.
pub fn all(webhooks: u16) -> Vec<Step> {
    [
        metadata_and_objects(),
        workloads(),
        others(),
        custom(),
        limits::schemas(),
        limits::admission(),
        hooks::steps(webhooks),
        endings(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn step(
    name: &'static str,
    method: &'static str,
    path: &str,
    content_type: &'static str,
    body: Body,
) -> Step {
    let path = match path {
        "" => "/api/v1/namespaces/same".to_string(),
        relative if !relative.starts_with('/') => format!("/api/v1/namespaces/same/{relative}"),
        absolute => absolute.to_string(),
    };
    Step { name, method, path, content_type, body, own_words: false, known: None, patient: false, nudge: &[] }
}

pub fn get(name: &'static str, path: &str) -> Step {
    step(name, "GET", path, "application/json", Body::None)
}

pub fn post(name: &'static str, path: &str, body: Value) -> Step {
    step(name, "POST", path, "application/json", Body::Fixed(body))
}

pub fn put(name: &'static str, path: &str, body: Value) -> Step {
    step(name, "PUT", path, "application/json", Body::Fixed(body))
}

pub fn patch(name: &'static str, path: &str, content_type: &'static str, body: Value) -> Step {
    step(name, "PATCH", path, content_type, Body::Fixed(body))
}

pub fn delete(name: &'static str, path: &str) -> Step {
    step(name, "DELETE", path, "application/json", Body::None)
}

pub fn made(name: &'static str, method: &'static str, path: &str, body: fn(&Seen) -> Value) -> Step {
    step(name, method, path, "application/json", Body::Made(body))
}

/// A watch that ends soon.
fn watch(path: &str, query: &str) -> String {
    format!("{path}?watch=true&timeoutSeconds=2&{query}")
}

fn conf(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn conf_with(name: &str, key: &str, value: Value) -> Value {
    let mut conf = conf(name);
    conf["metadata"][key] = value;
    conf
}

fn owned(seen: &Seen, name: &str, owner: &str) -> Value {
    let uid = &seen[owner]["metadata"]["uid"];
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid, "blockOwnerDeletion": true}]);
    conf_with(name, "ownerReferences", owner)
}

fn metadata_and_objects() -> Vec<Step> {
    vec![
        post(
            "namespace",
            "/api/v1/namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "same"}}),
        ),
        get("namespace is active", ""),
        post("bad namespace", "/api/v1/namespaces", json!({"metadata": {"name": "a.b"}})),
        delete("lasting namespace", "/api/v1/namespaces/kube-system"),
        delete("all namespaces", "/api/v1/namespaces"),
        post("create", "configmaps", conf("a")),
        post("create again", "configmaps", conf("a")),
        post("no kind is fine", "configmaps", json!({"metadata": {"name": "kindless"}})),
        post("bad name", "configmaps", conf("A_b")),
        post("no name", "configmaps", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})),
        post("other namespace", "configmaps", conf_with("b", "namespace", json!("other"))),
        post("absent namespace", "/api/v1/namespaces/nowhere/configmaps", conf("b")),
        post("with a version", "configmaps", conf_with("b", "resourceVersion", json!("5"))),
        post(
            "another kind",
            "configmaps",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}),
        ),
        post(
            "another version",
            "configmaps",
            json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "x"}}),
        )
        .own_words(),
        step("garbage", "POST", "configmaps", "application/json", Body::Raw("{")).own_words(),
        step("a list", "POST", "configmaps", "application/json", Body::Raw("[]")).own_words(),
        step("plain text", "POST", "configmaps", "text/plain", Body::Raw("x")),
        post("a number for a string", "configmaps", json!({"metadata": {"name": "x"}, "data": {"a": 1}}))
            .own_words(),
        post("bad finalizer", "configmaps", conf_with("f", "finalizers", json!(["foo"]))),
        post("bad label", "configmaps", conf_with("f", "labels", json!({"a b": "c d"}))),
        post("bad annotation", "configmaps", conf_with("f", "annotations", json!({"a b": "c d"}))),
        post(
            "bad owner",
            "configmaps",
            conf_with(
                "f",
                "ownerReferences",
                json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "", "uid": ""}]),
            ),
        ),
        post("bad dry run", "configmaps?dryRun=Some", conf("q")),
        post("dry run", "configmaps?dryRun=All", conf("q")),
        get("was only a dry run", "configmaps/q"),
        get("no such resource", "gizmos"),
        get("no such group", "/apis/nope.io/v1/gizmos"),
        get("no such subresource", "configmaps/a/status"),
        get("absent", "configmaps/none"),
        delete("delete absent", "configmaps/none"),
        patch("patch absent", "configmaps/none", MERGE, json!({"data": {}})),
        put("replace absent", "configmaps/none", conf("none")),
        put("replace under another name", "configmaps/a", conf("zz")),
        put("replace in another namespace", "configmaps/a", conf_with("a", "namespace", json!("other"))),
        put("replace an old version", "configmaps/a", conf_with("a", "resourceVersion", json!("1"))),
        put("replace another uid", "configmaps/a", conf_with("a", "uid", json!("foo"))),
        put("replace", "configmaps/a", conf_with("a", "labels", json!({"x": "y"}))),
        post("post to an object", "configmaps/a", conf("a")),
        put("put to a collection", "configmaps", conf("a")),
        step(
            "delete another uid",
            "DELETE",
            "configmaps/a",
            "application/json",
            Body::Fixed(json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "x"}})),
        ),
        delete("delete by no policy", "configmaps/a?propagationPolicy=Foo"),
        delete("dry delete", "configmaps/a?dryRun=All"),
        patch("merge", "configmaps/a", MERGE, json!({"data": {"b": "2"}})),
        patch(
            "merge an old version",
            "configmaps/a",
            MERGE,
            json!({"metadata": {"resourceVersion": "1"}, "data": {"b": "3"}}),
        ),
        patch("forced merge", "configmaps/a?force=true", MERGE, json!({"data": {"b": "2"}})),
        patch("json", "configmaps/a", JSON, json!([{"op": "add", "path": "/data/c", "value": "3"}])),
        patch("json test", "configmaps/a", JSON, json!([{"op": "test", "path": "/data/a", "value": "7"}])),
        patch("json nowhere", "configmaps/a", JSON, json!([{"op": "remove", "path": "/data/zz"}])),
        patch("json no list", "configmaps/a", JSON, json!({})).own_words(),
        patch("patch of no kind", "configmaps/a", "application/json", json!({})).own_words(),
        patch("apply without manager", "configmaps/a", APPLY, conf("a")),
        patch(
            "apply in conflict",
            "configmaps/a?fieldManager=me",
            APPLY,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "9"}}),
        ),
        patch(
            "apply in two conflicts",
            "configmaps/a?fieldManager=me",
            APPLY,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "9", "b": "9"}}),
        ),
        patch(
            "apply by force",
            "configmaps/a?fieldManager=me&force=true",
            APPLY,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "9"}}),
        ),
        patch(
            "apply unknown field",
            "configmaps/a?fieldManager=me",
            APPLY,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "foo": 1}),
        )
        .own_words(),
        patch("apply another name", "configmaps/a?fieldManager=me", APPLY, conf("b")),
        patch(
            "apply managed fields",
            "configmaps/a?fieldManager=me",
            APPLY,
            conf_with("a", "managedFields", json!([{}])),
        ),
        patch("apply no version", "configmaps/a?fieldManager=me", APPLY, json!({"data": {}})),
        patch("apply creates", "configmaps/applied?fieldManager=me", APPLY, conf("applied")),
        patch(
            "apply gives up",
            "configmaps/applied?fieldManager=me",
            APPLY,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"b": "1"}}),
        ),
        get("list by label", "configmaps?labelSelector=x%20in%20(y)"),
        get("list by bad label", "configmaps?labelSelector=a%20b").own_words(),
        get("list by unknown field", "configmaps?fieldSelector=data.a=1"),
        get("list by name", "configmaps?fieldSelector=metadata.name%3Da,metadata.namespace%3Dsame"),
        get(
            "list by another name",
            "configmaps?fieldSelector=metadata.name!%3Da,metadata.name!%3Dkube-root-ca.crt",
        ),
        get("list with bad limit", "configmaps?limit=x"),
        get("list at no version", "configmaps?resourceVersion=abc"),
        get("list continued from nowhere", "configmaps?continue=abc").own_words(),
        post("held", "configmaps", conf_with("held", "finalizers", json!(["x.io/a"]))),
        delete("delete held", "configmaps/held"),
        delete("delete held again", "configmaps/held"),
        patch(
            "a new finalizer when going",
            "configmaps/held",
            MERGE,
            json!({"metadata": {"finalizers": ["x.io/a", "x.io/b"]}}),
        ),
        patch("stay after all", "configmaps/held", MERGE, json!({"metadata": {"deletionTimestamp": null}})),
        patch("let go", "configmaps/held", MERGE, json!({"metadata": {"finalizers": null}})),
        get("held is gone", "configmaps/held"),
        delete("delete", "configmaps/a"),
        // What became of it, by its name; by a label it got later; and by one it never had.
        get(
            "watch from its making",
            &watch("configmaps", "fieldSelector=metadata.name%3Da&resourceVersion={create}"),
        ),
        get("watch by label", &watch("configmaps", "labelSelector=x%3Dy&resourceVersion={create}")),
        get(
            "watch without label",
            &watch("configmaps", "labelSelector=!x&fieldSelector=metadata.name%3Da&resourceVersion={create}"),
        ),
        get("watch what is there", &watch("configmaps", "fieldSelector=metadata.name%3Dkindless")),
        get(
            "watch one from a revision on",
            "configmaps?watch=true&timeoutSeconds=5&fieldSelector=metadata.name%3Da&resourceVersion={merge}",
        ),
        delete("delete none of many", "configmaps?labelSelector=nope"),
    ]
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "c", "image": "nginx:1", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": 80}}, "resources": {"limits": {"cpu": "1", "memory": "128Mi"}}}],
        "initContainers": [{"name": "i", "image": "busybox"}],
        "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}, {"name": "m", "configMap": {"name": "x"}},
            {"name": "h", "hostPath": {"path": "/x"}}, {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
                {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}]})
}

fn workload(kind: &str, name: &str, more: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": pod_spec()}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn workloads() -> Vec<Step> {
    let apps = |rest: &str| format!("/apis/apps/v1/namespaces/same/{rest}");
    let jobs = "/apis/batch/v1/namespaces/same/jobs";
    let template = json!({"spec": {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"}});
    let job = |name: &str, spec: Value| json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec});
    let pod = |containers: Value| json!({"spec": {"template": {"spec": containers}}});
    vec![
        post("deployment", &apps("deployments"), workload("Deployment", "a", json!({"replicas": 0}))),
        post(
            "deployment without anything",
            &apps("deployments"),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "b"}}),
        )
        .own_words(),
        post(
            "selector that selects nothing",
            &apps("deployments"),
            workload("Deployment", "b", json!({"selector": {"matchLabels": {"app": "z"}}})),
        )
        .own_words(),
        post(
            "recreated deployment",
            &apps("deployments"),
            workload("Deployment", "b", json!({"replicas": 0, "strategy": {"type": "Recreate"}})),
        ),
        patch(
            "another selector",
            &apps("deployments/a"),
            MERGE,
            json!({"spec": {"selector": {"matchLabels": {"app": "q"}},
            "template": {"metadata": {"labels": {"app": "q"}}}}}),
        )
        .own_words(),
        patch(
            "strategic: image and a container",
            &apps("deployments/a"),
            STRATEGIC,
            pod(json!({"containers": [{"name": "c", "image": "nginx:2"}, {"name": "d", "image": "d"}]})),
        ),
        patch(
            "strategic: order and delete",
            &apps("deployments/a"),
            STRATEGIC,
            pod(
                json!({"$setElementOrder/containers": [{"name": "c"}], "containers": [{"name": "d", "$patch": "delete"}]}),
            ),
        ),
        patch(
            "strategic: retain keys",
            &apps("deployments/a"),
            STRATEGIC,
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        ),
        patch(
            "strategic: volume",
            &apps("deployments/a"),
            STRATEGIC,
            pod(json!({"volumes": [{"name": "s", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]})),
        ),
        patch(
            "strategic: no key",
            &apps("deployments/a"),
            STRATEGIC,
            pod(json!({"containers": [{"image": "x"}]})),
        )
        .own_words(),
        patch(
            "status alone",
            &apps("deployments/a/status"),
            MERGE,
            json!({"metadata": {"labels": {"q": "q"}}, "spec": {"replicas": 9}}),
        ),
        get("scale", &apps("deployments/a/scale")),
        patch("rescale", &apps("deployments/a/scale"), MERGE, json!({"spec": {"replicas": 0}})),
        post(
            "stateful set",
            &apps("statefulsets"),
            workload(
                "StatefulSet",
                "s",
                json!({"replicas": 0, "serviceName": "s",
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}),
            ),
        ),
        patch("another service name", &apps("statefulsets/s"), MERGE, json!({"spec": {"serviceName": "t"}}))
            .own_words(),
        post("replica set", &apps("replicasets"), workload("ReplicaSet", "r", json!({"replicas": 0}))),
        post("daemon set", &apps("daemonsets"), workload("DaemonSet", "d", json!({}))),
        post("job", jobs, job("j", json!({"template": template, "parallelism": 0}))),
        post(
            "job that always restarts",
            jobs,
            job("k", json!({"template": {"spec": {"containers": [{"name": "c", "image": "x"}]}}})),
        ),
        post(
            "job of another's pods",
            jobs,
            job("k", json!({"selector": {"matchLabels": {"controller-uid": "x"}}, "template": template})),
        )
        .own_words(),
        post(
            "pod",
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "x:1"}]}}),
        ),
        post(
            "pod without account",
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"},
            "spec": {"serviceAccountName": "nobody", "containers": [{"name": "c", "image": "x"}]}}),
        ),
        post(
            "bad pod",
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"},
            "spec": {"containers": [{"name": "c"}, {"name": "B", "image": "x", "volumeMounts": [{"name": "q", "mountPath": "/q"}]}]}}),
        ),
        post("empty pod", "pods", json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}})),
        get(
            "pods by field",
            "pods?fieldSelector=spec.nodeName%3D,status.phase%3DPending,spec.restartPolicy%3DAlways",
        ),
        get("pods by another phase", "pods?fieldSelector=status.phase!%3DPending"),
        get("pods by a field nobody indexes", "pods?fieldSelector=spec.hostname%3Dx"),
        patch("move a pod", "pods/p", MERGE, json!({"spec": {"nodeName": "x"}})).own_words(),
        patch(
            "another image",
            "pods/p",
            STRATEGIC,
            json!({"spec": {"containers": [{"name": "c", "image": "x:2"}]}}),
        ),
        get("log of no pod", "pods/none/log"),
        delete("delete pod", "pods/p"),
    ]
}

fn others() -> Vec<Step> {
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let claim = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec});
    let secret = |name: &str, more: Value| {
        let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        secret.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        secret
    };
    let rbac = |rest: &str| format!("/apis/rbac.authorization.k8s.io/v1/namespaces/same/{rest}");
    let net = |rest: &str| format!("/apis/networking.k8s.io/v1/namespaces/same/{rest}");
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    vec![
        post("service", "services", service("s", json!({"ports": [{"port": 80}], "selector": {"a": "b"}}))),
        post("node port", "services", service("np", json!({"type": "NodePort", "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}))),
        post("balancer", "services", service("lb", json!({"type": "LoadBalancer", "ports": [{"port": 80}]}))),
        post("external name", "services", service("en", json!({"type": "ExternalName", "externalName": "x.y"}))),
        post("headless", "services", service("hl", json!({"clusterIP": "None"}))),
        post("service without ports", "services", service("x", json!({}))),
        post("foreign address", "services", service("x", json!({"clusterIP": "1.2.3.4", "ports": [{"port": 80}]}))).own_words(),
        made("taken address", "POST", "services", |seen| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"},
                "spec": {"clusterIP": seen["service"]["spec"]["clusterIP"], "ports": [{"port": 80}]}})
        })
        .own_words(),
        made("taken port", "POST", "services", |seen| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"type": "NodePort",
                "ports": [{"port": 80, "nodePort": seen["node port"]["spec"]["ports"][0]["nodePort"]}]}})
        })
        .own_words(),
        post("low node port", "services", service("x", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}))),
        post("node port of a cluster ip", "services", service("x", json!({"ports": [{"port": 80, "nodePort": 30080}]}))),
        patch("another address", "services/s", MERGE, json!({"spec": {"clusterIP": "10.96.0.99"}})).own_words(),
        patch("to node port", "services/s", MERGE, json!({"spec": {"type": "NodePort"}})),
        patch("back to cluster ip", "services/s", MERGE, json!({"spec": {"type": "ClusterIP"}})),
        post("numbered service", "services", service("1x", json!({"ports": [{"port": 80}]}))),
        post("two nameless ports", "services", service("x", json!({"ports": [{"port": 80}, {"port": 81}]}))),
        post("claim", "persistentvolumeclaims", claim("c", json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}))),
        post("empty claim", "persistentvolumeclaims", claim("d", json!({}))),
        patch("another class", "persistentvolumeclaims/c", MERGE, json!({"spec": {"storageClassName": "z"}})).own_words(),
        delete("delete claim", "persistentvolumeclaims/c"),
        get("claim is gone", "persistentvolumeclaims/c"),
        post("secret", "secrets", secret("s", json!({"stringData": {"a": "b"}}))),
        get("secrets by type", "secrets?fieldSelector=type%3DOpaque"),
        patch("another type", "secrets/s", MERGE, json!({"type": "x/y"})),
        post("not base64", "secrets", secret("t", json!({"data": {"a": "!!!"}}))).own_words(),
        post("immutable secret", "secrets", secret("i", json!({"data": {"a": "YQ=="}, "immutable": true}))),
        patch("change the immutable", "secrets/i", MERGE, json!({"data": {"a": "YWE="}})),
        post("role", &rbac("roles"), json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r:x"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})),
        post("binding", &rbac("rolebindings"), json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"},
            "roleRef": {"kind": "Role", "name": "r:x"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "same"}]})),
        patch("another role", &rbac("rolebindings/b"), MERGE, json!({"roleRef": {"name": "z"}})).own_words(),
        post("ingress", &net("ingresses"), json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"}, "spec": {"rules": [{"host": "a.b",
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}})),
        post("network policy", &net("networkpolicies"), json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"},
            "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}})),
        post("storage class", classes, json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "same"}, "provisioner": "x/y"})),
        patch("another provisioner", &format!("{classes}/same"), MERGE, json!({"provisioner": "z/z"})),
        delete("delete class", &format!("{classes}/same")),
        post("autoscaler", "/apis/autoscaling/v1/namespaces/same/horizontalpodautoscalers", json!({"apiVersion": "autoscaling/v1",
            "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"kind": "Deployment", "name": "a", "apiVersion": "apps/v1"}}})),
        post("lease", "/apis/coordination.k8s.io/v1/namespaces/same/leases", json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "l"}, "spec": {"holderIdentity": "x", "leaseDurationSeconds": 15}})),
        put("lease without version", "/apis/coordination.k8s.io/v1/namespaces/same/leases/l", json!({"apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease", "metadata": {"name": "l"}, "spec": {"holderIdentity": "y"}})),
        post("review", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json!({"apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}})).own_words(),
    ]
}

fn custom() -> Vec<Step> {
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1}, "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
            "l": {"type": "array", "items": {"type": "string"}}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}});
    let definition = |name: &str, plural: &str, kind: &str, versions: Value| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name}, "spec": {
            "group": "same.io", "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": versions}})
    };
    let both = json!([version("v1", true), version("v1beta1", false)]);
    let widgets = "/apis/same.io/v1/namespaces/same/widgets";
    let one = |rest: &str| format!("{widgets}/{rest}");
    let widget = |name: &str, spec: Value| json!({"apiVersion": "same.io/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec});
    vec![
        post("define", definitions, definition("widgets.same.io", "widgets", "Widget", both.clone()))
            .own_words(),
        get("is established", &format!("{definitions}/widgets.same.io")),
        get("group", "/apis/same.io"),
        get("resources", "/apis/same.io/v1"),
        post("misnamed", definitions, definition("x", "widgets", "Widget", both)),
        post(
            "without schema",
            definitions,
            definition(
                "gears.same.io",
                "gears",
                "Gear",
                json!([{"name": "v1", "served": true, "storage": true}]),
            ),
        ),
        post("widget", widgets, {
            let mut w = widget("a", json!({"size": 1, "typo": 2}));
            w["status"] = json!({"x": 1});
            w
        }),
        post("too small", widgets, widget("b", json!({"size": 0}))),
        post("not a number", widgets, widget("b", json!({"size": "x"}))),
        post("no such color", widgets, widget("b", json!({"size": 1, "color": "green"}))),
        post("no size", widgets, widget("b", json!({}))),
        post("a null is defaulted", widgets, widget("n", json!({"size": 1, "color": null}))),
        post("unknown fields", widgets, widget("u", json!({"size": 1, "foo": 1, "free": {"z": 1}}))),
        post(
            "another kind of widget",
            widgets,
            json!({"apiVersion": "same.io/v1", "kind": "Gizmo", "metadata": {"name": "b"}}),
        ),
        post("no kind of widget", widgets, json!({"metadata": {"name": "b"}})).own_words(),
        post(
            "another version of widget",
            widgets,
            json!({"apiVersion": "same.io/v1beta1", "kind": "Widget", "metadata": {"name": "b"}}),
        ),
        get("widget in v1beta1", "/apis/same.io/v1beta1/namespaces/same/widgets/a"),
        put("replace without version", &one("a"), widget("a", json!({"size": 2}))),
        made("replace with version", "PUT", &one("a"), |seen| {
            json!({"apiVersion": "same.io/v1", "kind": "Widget", "spec": {"size": 2},
                "metadata": {"name": "a", "resourceVersion": seen["widget"]["metadata"]["resourceVersion"]}})
        }),
        patch(
            "widget status",
            &one("a/status"),
            MERGE,
            json!({"spec": {"size": 9}, "status": {"ok": true}, "metadata": {"labels": {"q": "q"}}}),
        ),
        patch("strategic on custom", &one("a"), STRATEGIC, json!({"spec": {"size": 9}})).own_words(),
        patch("apply widget", &one("z?fieldManager=m"), APPLY, widget("z", json!({"size": 1, "l": ["a"]}))),
        patch(
            "apply another list",
            &one("z?fieldManager=m2"),
            APPLY,
            widget("z", json!({"size": 1, "l": ["b"]})),
        ),
        patch(
            "apply it by force",
            &one("z?fieldManager=m2&force=true"),
            APPLY,
            widget("z", json!({"size": 1, "l": ["b"]})),
        ),
        get("list widgets", widgets),
        get("list widgets by name", &format!("{widgets}?fieldSelector=metadata.name%3Dz")),
        get("watch widgets", &watch(widgets, "fieldSelector=metadata.name%3Da&resourceVersion={widget}")),
        get("watch widgets from long ago", &watch(widgets, "resourceVersion=1")),
        get("by field", &format!("{widgets}?fieldSelector=spec.size=1")),
        get("absent widget", &one("none")),
        get("no scale", &one("a/scale")),
        delete("delete widget", &one("z")),
        delete("undefine", &format!("{definitions}/widgets.same.io")).own_words(),
        get("is undefined", &format!("{definitions}/widgets.same.io")),
        get("has no widgets", "/apis/same.io/v1/widgets"),
    ]
}

fn endings() -> Vec<Step> {
    vec![
        post("x", "configmaps", conf("x")),
        made("of x", "POST", "configmaps", |seen| owned(seen, "of-x", "x")),
        delete("delete in background", "configmaps/x?propagationPolicy=Background"),
        get("dependent is gone", "configmaps/of-x"),
        post("y", "configmaps", conf("y")),
        made("of y", "POST", "configmaps", |seen| owned(seen, "of-y", "y")),
        delete("delete in foreground", "configmaps/y?propagationPolicy=Foreground"),
        get("owner is gone", "configmaps/y"),
        get("its dependent too", "configmaps/of-y"),
        post("z", "configmaps", conf("z")),
        made("of z", "POST", "configmaps", |seen| owned(seen, "of-z", "z")),
        delete("orphan", "configmaps/z?propagationPolicy=Orphan"),
        get("parent is gone", "configmaps/z"),
        get("orphan lives", "configmaps/of-z"),
        made("stray", "POST", "configmaps", |seen| owned(seen, "stray", "x")),
        get("stray is collected", "configmaps/stray"),
        post("holds on", "configmaps", conf_with("holds", "finalizers", json!(["x.io/a"]))),
        delete("delete namespace", ""),
        get("namespace waits", ""),
        post("too late", "configmaps", conf("late")),
        get("only the holder is left", "configmaps"),
        patch("lets go", "configmaps/holds", MERGE, json!({"metadata": {"finalizers": null}})),
        get("namespace is gone", ""),
        post("no namespace", "configmaps", conf("late")),
    ]
}
