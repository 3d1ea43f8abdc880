//! References of custom resources, known by the names that people give to fields: `secretRef: {name}`, `secretName`,
//! `somethingRef: {kind, name}`. They count if what they name exists: a field of that shape may as well be the name of
//! something that its operator is still to make.

use serde_json::{Map, Value};

use crate::graph::{By, RefKind};
use crate::kinds::{self, podspec};
use crate::names;
use crate::object::{Object, ObjectKey, split_api_version};
use crate::refs::{Found, escape, hosts, is_kind_of_core, pod_rules};

/// Fields that hold a name, by the end of their own name.
pub const NAMES: &[(&str, &str, &str, RefKind)] = &[
    ("secretname", "", "Secret", RefKind::Secret),
    ("configmapname", "", "ConfigMap", RefKind::Config),
    ("serviceaccountname", "", "ServiceAccount", RefKind::ServiceAccount),
    ("claimname", "", "PersistentVolumeClaim", RefKind::Claim),
];
/// Fields that hold the name of something cluster-scoped, by their whole name.
pub const CLASSES: &[(&str, &str, &str)] = &[
    ("storageclassname", "storage.k8s.io", "StorageClass"),
    ("storageclass", "storage.k8s.io", "StorageClass"),
    ("priorityclassname", "scheduling.k8s.io", "PriorityClass"),
    ("ingressclassname", "networking.k8s.io", "IngressClass"),
    ("runtimeclassname", "node.k8s.io", "RuntimeClass"),
    ("gatewayclassname", "gateway.networking.k8s.io", "GatewayClass"),
    ("volumesnapshotclassname", "snapshot.storage.k8s.io", "VolumeSnapshotClass"),
    ("volumegroupsnapshotclassname", "groupsnapshot.storage.k8s.io", "VolumeGroupSnapshotClass"),
    ("volumeattributesclassname", "storage.k8s.io", "VolumeAttributesClass"),
    ("deviceclassname", "resource.k8s.io", "DeviceClass"),
];
/// Fields that hold an object with a `name`, by the end of their own name.
pub const OBJECTS: &[(&str, &str, &str, RefKind)] = &[
    ("secretref", "", "Secret", RefKind::Secret),
    ("secretkeyref", "", "Secret", RefKind::Secret),
    ("secretreference", "", "Secret", RefKind::Secret),
    ("configmapref", "", "ConfigMap", RefKind::Config),
    ("configmapkeyref", "", "ConfigMap", RefKind::Config),
    ("serviceaccountref", "", "ServiceAccount", RefKind::ServiceAccount),
    ("serviceref", "", "Service", RefKind::Routes),
    ("claimref", "", "PersistentVolumeClaim", RefKind::Claim),
];
/// Fields that hold a list of objects with a `name`, by their whole name.
pub const LISTS: &[(&str, &str, &str, RefKind)] = &[("imagepullsecrets", "", "Secret", RefKind::Secret)];

/// Fields that say what the object is, not what it uses.
const OWN: &[&str] = &["apiVersion", "kind", "metadata", "status"];

/// Finds references by their shape, where the kind's table has found none.
pub(crate) fn find(object: &Object, pod_spec: Option<&str>, found: &mut Vec<Found>) {
    let Some(fields) = object.0.as_object() else { return };
    let mut seen = Shapes { namespace: object.namespace(), pod_spec, found: Vec::new(), pods: Vec::new() };
    for (name, field) in fields.iter().filter(|(name, _)| !OWN.contains(&name.as_str())) {
        seen.below(name, field, &format!("/{}", escape(name)));
    }
    let Shapes { found: shapes, pods, .. } = seen;
    for base in pods {
        let from = found.len();
        pod_rules(object, &base, found);
        podspec::text(object, &base, found);
        found.iter_mut().skip(from).filter(|f| f.by == By::Table).for_each(|f| f.by = By::Shape);
    }
    for shape in shapes {
        // The table says it better: it knows what is required.
        let is_told = |told: &Found| {
            told.by != By::Text && (told.at == shape.at || shape.at.strip_prefix(&told.at) == Some("/name"))
        };
        if !found.iter().any(is_told) {
            found.push(shape);
        }
    }
}

struct Shapes<'a> {
    namespace: &'a str,
    /// Read by its own table already.
    pod_spec: Option<&'a str>,
    found: Vec<Found>,
    /// Places that look like pod specs.
    pods: Vec<String>,
}

impl Shapes<'_> {
    fn below(&mut self, name: &str, value: &Value, at: &str) {
        if self.pod_spec == Some(at) {
            return;
        }
        match value {
            Value::Object(fields) => {
                if is_pod_spec(fields) {
                    self.pods.push(at.to_owned());
                    return;
                }
                self.object(&name.to_ascii_lowercase(), fields, at);
                for (name, field) in fields {
                    self.below(name, field, &format!("{at}/{}", escape(name)));
                }
            }
            Value::Array(items) => {
                let list = LISTS.iter().find(|(whole, ..)| name.eq_ignore_ascii_case(whole));
                for (index, item) in items.iter().enumerate() {
                    let at = format!("{at}/{index}");
                    if let (Some((_, group, kind, via)), Some(fields)) = (list, item.as_object()) {
                        self.add(
                            group,
                            kind,
                            self.namespace,
                            text(fields, "name"),
                            *via,
                            format!("{at}/name"),
                        );
                    }
                    self.below(name, item, &at);
                }
            }
            Value::String(text) => self.text(name, text, at),
            _ => {}
        }
    }

    fn add(&mut self, group: &str, kind: &str, namespace: &str, name: &str, via: RefKind, at: String) {
        if !name.is_empty() && !name.contains(char::is_whitespace) {
            let key = ObjectKey::new(group, kind, namespace, name);
            self.found.push(Found::object(key, via, at).by(By::Shape));
        }
    }

    fn text(&mut self, name: &str, text: &str, at: &str) {
        let lower = name.to_ascii_lowercase();
        if let Some((_, group, kind, via)) = NAMES.iter().find(|(end, ..)| lower.ends_with(end)) {
            self.add(group, kind, self.namespace, text, *via, at.into());
        } else if let Some((_, group, kind)) = CLASSES.iter().find(|(whole, ..)| lower == *whole) {
            self.add(group, kind, "", text, RefKind::Class, at.into());
        } else {
            let mentions = if text.contains('\n') {
                names::in_document(name, text)
            } else {
                names::in_value(name, text)
            };
            hosts(mentions, at, &mut self.found);
        }
    }

    fn object(&mut self, name: &str, fields: &Map<String, Value>, at: &str) {
        let target = text(fields, "name");
        let here = match text(fields, "namespace") {
            "" => self.namespace,
            other => other,
        };
        let at = format!("{at}/name");
        if let Some((_, group, kind, via)) = OBJECTS.iter().find(|(end, ..)| name.ends_with(end)) {
            self.add(group, kind, here, target, *via, at);
        } else if name.ends_with("ref") && !text(fields, "kind").is_empty() {
            let kind = text(fields, "kind");
            let group = match (text(fields, "apiVersion"), text(fields, "apiGroup"), text(fields, "group")) {
                ("", "", group) => group,
                ("", group, _) => group,
                (api_version, ..) => split_api_version(api_version).0,
            };
            // Who says no group means one of Kubernetes' own, or one of the same family; the latter `schema` finds.
            if group.is_empty() && !is_kind_of_core(kind) {
                return;
            }
            let here = if kinds::lookup(group, kind).cluster_scoped { "" } else { here };
            self.add(group, kind, here, target, RefKind::Other, at);
        }
    }
}

/// Containers with images are what a pod spec has and nothing else.
fn is_pod_spec(fields: &Map<String, Value>) -> bool {
    let containers = fields.get("containers").and_then(Value::as_array);
    containers.is_some_and(|all| {
        all.iter().any(|c| c.get("image").is_some() || c.get("env").is_some() || c.get("envFrom").is_some())
    })
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or("")
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

    #[test]
    fn a_pod_inside_a_custom_resource_is_read_as_one() {
        let worker = json!({"apiVersion":"x.example.com/v1","kind":"Worker","metadata":{"namespace":"shop","name":"w"},
            "spec":{"template":{"spec":{"serviceAccountName":"w","containers":[{"image":"x","envFrom":[{"secretRef":{"name":"s"}}],
                "env":[{"name":"DB_HOST","value":"db.data.svc"}]}]}}}});
        assert_eq!(
            refs(&worker),
            [
                "Secret shop/s secret /spec/template/spec/containers/0/envFrom/0/secretRef/name",
                "ServiceAccount shop/w service_account /spec/template/spec/serviceAccountName",
                "Service data/db names optional /spec/template/spec/containers/0/env/0/value",
            ]
        );
    }

    #[test]
    fn what_the_table_knows_is_not_said_twice() {
        let certificate = json!({"apiVersion":"cert-manager.io/v1","kind":"Certificate","metadata":{"namespace":"shop","name":"c"},
            "spec":{"secretName":"tls","issuerRef":{"kind":"ClusterIssuer","name":"le"}}});
        assert_eq!(
            refs(&certificate),
            [
                "ClusterIssuer.cert-manager.io le class /spec/issuerRef",
                "Secret shop/tls secret optional /spec/secretName",
            ]
        );
    }
}
