//! Every kind without a file: custom resources. Their references are recognised by the shapes people use
//! (`secretRef: {name}`, `secretName`, `somethingRef: {kind, name}`), and count only if what they name exists:
//! a field of that shape may as well be the name of something yet to be made.

use serde_json::{Map, Value};

use super::{KindInfo, Order, PLAIN, Readiness};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey, split_api_version};
use crate::refs::{Found, escape, services_in};

/// A kind we have no file for.
pub static CUSTOM: KindInfo = KindInfo { order: Order::Custom, find: Some(find), ready, ..PLAIN };

fn find(object: &Object, found: &mut Vec<Found>) {
    if let Some(spec) = object.at("/spec") {
        below(spec, "/spec".into(), object.namespace(), found);
    }
}

/// Fields that hold a name, by the end of their own name.
const NAMES: &[(&str, &str, &str, RefKind)] = &[
    ("secretname", "", "Secret", RefKind::Secret),
    ("configmapname", "", "ConfigMap", RefKind::Config),
    ("serviceaccountname", "", "ServiceAccount", RefKind::ServiceAccount),
    ("claimname", "", "PersistentVolumeClaim", RefKind::Claim),
];
/// Cluster-scoped ones.
const CLASSES: &[(&str, &str, &str)] = &[
    ("storageclassname", "storage.k8s.io", "StorageClass"),
    ("storageclass", "storage.k8s.io", "StorageClass"),
    ("priorityclassname", "scheduling.k8s.io", "PriorityClass"),
    ("ingressclassname", "networking.k8s.io", "IngressClass"),
    ("runtimeclassname", "node.k8s.io", "RuntimeClass"),
];
/// Fields that hold an object with a `name`.
const OBJECTS: &[(&str, &str, &str, RefKind)] = &[
    ("secretref", "", "Secret", RefKind::Secret),
    ("secretkeyref", "", "Secret", RefKind::Secret),
    ("configmapref", "", "ConfigMap", RefKind::Config),
    ("configmapkeyref", "", "ConfigMap", RefKind::Config),
    ("serviceaccountref", "", "ServiceAccount", RefKind::ServiceAccount),
    ("serviceref", "", "Service", RefKind::Routes),
];

fn below(value: &Value, at: String, namespace: &str, found: &mut Vec<Found>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let at = format!("{at}/{}", escape(name));
                one(&name.to_ascii_lowercase(), field, &at, namespace, found);
                below(field, at, namespace, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                below(item, format!("{at}/{index}"), namespace, found);
            }
        }
        Value::String(text) => services_in(text, &at, found),
        _ => {}
    }
}

fn one(name: &str, field: &Value, at: &str, namespace: &str, found: &mut Vec<Found>) {
    let mut add = |group: &str, kind: &str, namespace: &str, target: &str, via: RefKind, at: String| {
        if !target.is_empty() {
            found.push(Found::object(ObjectKey::new(group, kind, namespace, target), via, at).optional());
        }
    };
    match field {
        Value::String(text) => {
            if let Some((_, group, kind, via)) = NAMES.iter().find(|(end, ..)| name.ends_with(end)) {
                add(group, kind, namespace, text, *via, at.into());
            } else if let Some((_, group, kind)) = CLASSES.iter().find(|(whole, ..)| name == *whole) {
                add(group, kind, "", text, RefKind::Class, at.into());
            }
        }
        Value::Object(fields) => {
            let target = text(fields, "name");
            let here = match text(fields, "namespace") {
                "" => namespace,
                other => other,
            };
            let at_name = format!("{at}/name");
            if let Some((_, group, kind, via)) = OBJECTS.iter().find(|(end, ..)| name.ends_with(end)) {
                add(group, kind, here, target, *via, at_name);
            } else if name.ends_with("ref") && !text(fields, "kind").is_empty() {
                let group =
                    match (text(fields, "apiVersion"), text(fields, "apiGroup"), text(fields, "group")) {
                        ("", "", group) => group,
                        ("", group, _) => group,
                        (api_version, ..) => split_api_version(api_version).0,
                    };
                add(group, text(fields, "kind"), here, target, RefKind::Other, at_name);
            }
        }
        _ => {}
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or("")
}

/// Most controllers write a `Ready` condition; one that writes none is taken as it is.
fn ready(object: &Value) -> Readiness {
    let conditions =
        object.pointer("/status/conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    match conditions.iter().find(|c| c["type"] == "Ready" || c["type"] == "Available") {
        Some(condition) if condition["status"] != "True" => {
            Readiness::Waiting(condition["message"].as_str().unwrap_or("not ready").to_owned())
        }
        _ => Readiness::Ready,
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn references_of_custom_resources_are_known_by_their_shape() {
        let cluster = json!({"apiVersion":"db.example.com/v1","kind":"Postgres","metadata":{"namespace":"shop","name":"pg"},"spec":{
            "superuserSecret":{"name":"no"},"tlsSecretName":"tls","storage":{"storageClassName":"fast"},
            "backup":{"credentials":{"secretKeyRef":{"name":"s3","key":"k"}}},
            "issuerRef":{"group":"cert-manager.io","kind":"Issuer","name":"ca"},
            "poolRef":{"kind":"Pool","name":"p","namespace":"other","apiVersion":"db.example.com/v1"},
            "monitor":["http://prom.monitoring.svc:9090"]}});
        assert_eq!(
            refs(&cluster),
            [
                "Secret shop/tls secret optional /spec/tlsSecretName",
                "StorageClass fast class optional /spec/storage/storageClassName",
                "Secret shop/s3 secret optional /spec/backup/credentials/secretKeyRef/name",
                "Issuer.cert-manager.io shop/ca other optional /spec/issuerRef/name",
                "Pool.db.example.com other/p other optional /spec/poolRef/name",
                "Service monitoring/prom names optional /spec/monitor/0",
            ]
        );
    }
}
