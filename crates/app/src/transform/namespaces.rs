//! Namespace names, wherever an object can say one.
//!
//! Certain by shape, and rewritten: `metadata.namespace`; fields called `namespace` or `…Namespace`
//! (subjects, service and secret references, claim and data source references, routes, webhooks, API
//! services); lists called `namespaces` and `namespaceSelector.matchNames`; selectors on the label
//! `kubernetes.io/metadata.name`; users and groups that stand for service accounts; full service names
//! (`db.shop.svc`, with or without the cluster's domain) in any plain text, in configuration and in
//! opaque secrets, for a copy that talked to the original's database would be worse than none;
//! `--…namespace=shop` arguments and `…NAMESPACE` variables; `shop/tls` where the kind's reference table says so; parameters
//! of classes that are called `…namespace`.
//!
//! Not certain, and left: short names (`db.shop`) — a note is made when the recovery point has such a
//! service — labels, and names inside packed data such as Helm's release secrets.
//!
//! Outside the mapped namespaces two copies of one thing would collide by name. What *is* the link into a
//! namespace (bindings, webhook configurations, volumes) gets the new namespace as a suffix. So does the
//! directory of a hostPath or local volume: the copy must not write into the original's data.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use serde_json::Value;

use super::{LAST_APPLIED, Note, Transform, escape, is_opaque};
use crate::kinds::{self, To};
use crate::object::split_api_version;
use crate::refs;

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const HELM_NAMESPACE: &str = "meta.helm.sh/release-namespace";
/// Longest object name the API takes.
const NAME_MAX: usize = 253;

/// Whether the API would take this as the name of a namespace (an RFC 1123 label).
pub fn is_namespace_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 63
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Rewrites `value` (a copy of `original`) for the namespaces mapped.
pub(super) fn apply(transform: &Transform, original: &Value, value: &mut Value, notes: &mut Vec<Note>) {
    let kind = original.get("kind").and_then(Value::as_str).unwrap_or("").to_owned();
    let mut walk = Walk { transform, linked: BTreeSet::new(), notes, at: Vec::new() };
    walk.metadata(&kind, value);
    let secret_is_plain = original.get("type").and_then(Value::as_str).is_none_or(|kind| kind == "Opaque");
    if let Value::Object(fields) = value {
        for (key, part) in fields.iter_mut() {
            walk.at.push(key.clone());
            match (kind.as_str(), key.as_str()) {
                (_, "metadata" | "apiVersion" | "kind" | "status") => {}
                ("ConfigMap", "data") => walk.texts(part),
                ("Secret", "data") if secret_is_plain => walk.encoded(part),
                ("Secret", "stringData") if secret_is_plain => walk.texts(part),
                ("Secret" | "ConfigMap", _) => {}
                ("CustomResourceDefinition", "spec") => {
                    if let Some(conversion) = part.get_mut("conversion") {
                        walk.at.push("conversion".into());
                        walk.value(conversion);
                        walk.at.pop();
                    }
                }
                _ => walk.field(key, part),
            }
            walk.at.pop();
        }
    }
    walk.slashed(original, value);
    let linked = std::mem::take(&mut walk.linked);
    settle_name(transform, &kind, &linked, original, value, notes);
}

/// Two copies of an object outside the mapped namespaces need two names, or a word of warning.
fn settle_name(
    transform: &Transform,
    kind: &str,
    linked: &BTreeSet<String>,
    original: &Value,
    value: &mut Value,
    notes: &mut Vec<Note>,
) {
    let namespace = original.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("");
    let moved = transform.mapping().namespaces.contains_key(namespace) || kind == "Namespace";
    let Some(suffix) = linked.first().filter(|_| !moved) else { return };
    let separate = matches!(
        (kind, namespace.is_empty()),
        (
            "ClusterRoleBinding"
                | "PersistentVolume"
                | "ValidatingWebhookConfiguration"
                | "MutatingWebhookConfiguration",
            true
        ) | ("RoleBinding", false)
    );
    if separate {
        if let Some(Value::String(name)) = value.pointer_mut("/metadata/name") {
            *name = suffixed(name, suffix);
        }
        // A copy of a volume must not be a second name for the original's directory.
        for path in ["/spec/hostPath/path", "/spec/local/path"] {
            if let Some(Value::String(path)) = value.pointer_mut(path) {
                *path = format!("{}-{suffix}", path.trim_end_matches('/'));
            }
        }
    } else {
        notes.push(Note {
            at: "/metadata/name".into(),
            message: format!(
                "points into a mapped namespace but can exist only once, so it keeps its name; where the target \
                 has one already, the conflict policy decides, and it may then serve {suffix} instead"
            ),
        });
    }
}

/// `name-suffix`. A name that is too long for that loses its end, never the suffix; a digest of it keeps two apart that
/// differ only there.
pub(crate) fn suffixed(name: &str, suffix: &str) -> String {
    let keep = NAME_MAX - suffix.len() - 1;
    if name.len() <= keep {
        return format!("{name}-{suffix}");
    }
    // FNV-1a: the same in every release, since a second restore must find what the first made.
    let digest = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let digest = format!("{digest:016x}");
    let stem: String = name.chars().take(keep - digest.len() - 1).collect();
    format!("{}-{digest}-{suffix}", stem.trim_end_matches(['-', '.', ':']))
}

struct Walk<'a> {
    transform: &'a Transform,
    /// New namespaces that a structural reference led to.
    linked: BTreeSet<String>,
    notes: &'a mut Vec<Note>,
    at: Vec<String>,
}

impl Walk<'_> {
    fn map(&self) -> &BTreeMap<String, String> {
        &self.transform.mapping().namespaces
    }

    /// Replaces a name that is surely a namespace's.
    fn name(&mut self, name: &mut String) {
        if let Some(new) = self.map().get(name.as_str()).cloned() {
            self.linked.insert(new.clone());
            *name = new;
        }
    }

    fn metadata(&mut self, kind: &str, object: &mut Value) {
        let Some(Value::Object(metadata)) = object.get_mut("metadata") else { return };
        if let Some(Value::String(namespace)) = metadata.get_mut("namespace") {
            self.name(namespace);
            self.linked.clear();
        }
        if kind == "Namespace" {
            if let Some(Value::String(name)) = metadata.get_mut("name") {
                self.name(name);
            }
            if let Some(Value::String(name)) = metadata.get_mut("labels").and_then(|l| l.get_mut(NAME_LABEL))
            {
                self.name(name);
            }
            self.linked.clear();
        }
        let Some(Value::Object(annotations)) = metadata.get_mut("annotations") else { return };
        if let Some(Value::String(name)) = annotations.get_mut(HELM_NAMESPACE) {
            self.name(name);
            self.linked.clear();
        }
        if let Some(Value::String(text)) = annotations.get_mut(LAST_APPLIED)
            && let Ok(applied) = serde_json::from_str::<Value>(text)
        {
            // What kubectl compares with at the next `kubectl apply`: it must speak of the same object.
            let mut mapped = applied.clone();
            apply(self.transform, &applied, &mut mapped, &mut Vec::new());
            if let Ok(new) = serde_json::to_string(&mapped)
                && mapped != applied
            {
                *text = if text.ends_with('\n') { format!("{new}\n") } else { new };
            }
        }
    }

    fn value(&mut self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                self.subject(fields);
                self.expression(fields);
                self.variable(fields);
                for (key, value) in fields.iter_mut() {
                    self.at.push(key.clone());
                    self.field(key, value);
                    self.at.pop();
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.at.push(index.to_string());
                    self.value(item);
                    self.at.pop();
                }
            }
            Value::String(text) => self.text(text),
            _ => {}
        }
    }

    fn field(&mut self, key: &str, value: &mut Value) {
        let under = |step: usize| {
            self.at.len().checked_sub(step).and_then(|i| self.at.get(i)).map_or("", String::as_str)
        };
        match value {
            Value::String(name) if key == "namespace" || key.ends_with("Namespace") => self.name(name),
            Value::Array(names)
                if key == "namespaces" || (key == "matchNames" && under(2) == "namespaceSelector") =>
            {
                for name in names {
                    match name {
                        Value::String(name) => self.name(name),
                        other => self.value(other),
                    }
                }
            }
            Value::Object(labels) if key == "matchLabels" => {
                if let Some(Value::String(name)) = labels.get_mut(NAME_LABEL) {
                    self.name(name);
                }
            }
            // Of a class: all is its driver's own, but that something lies in a namespace.
            Value::Object(parameters) if key == "parameters" => {
                for (key, value) in parameters {
                    match value {
                        Value::String(name) if key.to_lowercase().ends_with("namespace") => self.name(name),
                        _ => {}
                    }
                }
            }
            // A plain map of labels, as a Service has it; selectors with inner structure are walked.
            Value::Object(labels) if key == "selector" && labels.values().all(Value::is_string) => {}
            // A list is no map of the user's, whatever it is called.
            _ if is_opaque(key) && (!value.is_array() || key == "managedFields") => {}
            other => self.value(other),
        }
    }

    /// `shop/tls`, where the kind's reference table says that a namespace and a name stand in one text.
    fn slashed(&mut self, original: &Value, value: &mut Value) {
        let text = |field: &str| original.get(field).and_then(Value::as_str).unwrap_or("");
        let (group, _) = split_api_version(text("apiVersion"));
        let rules = kinds::lookup(group, text("kind")).refs.iter();
        for rule in rules.filter(|rule| matches!(rule.to, To::Slashed(..))) {
            let mut places = Vec::new();
            refs::walk(value, rule.at, String::new(), false, &mut |_, at, _| places.push(at));
            for place in places {
                if let Some(Value::String(text)) = value.pointer_mut(&place)
                    && let Some((namespace, name)) = text.split_once('/')
                {
                    let mut namespace = namespace.to_owned();
                    self.name(&mut namespace);
                    *text = format!("{namespace}/{name}");
                }
            }
        }
    }

    /// `{kind: User, name: system:serviceaccount:shop:web}` and the group of all accounts of a namespace.
    fn subject(&mut self, fields: &mut serde_json::Map<String, Value>) {
        let prefix = match fields.get("kind").and_then(Value::as_str) {
            Some("User") => "system:serviceaccount:",
            Some("Group") => "system:serviceaccounts:",
            _ => return,
        };
        if let Some(Value::String(name)) = fields.get_mut("name")
            && let Some(rest) = name.strip_prefix(prefix)
        {
            let (namespace, account) = rest.split_once(':').map_or((rest, None), |(n, a)| (n, Some(a)));
            let mut namespace = namespace.to_owned();
            let account = account.map(|a| format!(":{a}")).unwrap_or_default();
            self.name(&mut namespace);
            *name = format!("{prefix}{namespace}{account}");
        }
    }

    /// `{key: kubernetes.io/metadata.name, operator: In, values: [shop]}`.
    fn expression(&mut self, fields: &mut serde_json::Map<String, Value>) {
        if fields.get("key").and_then(Value::as_str) == Some(NAME_LABEL)
            && let Some(Value::Array(values)) = fields.get_mut("values")
        {
            for value in values {
                if let Value::String(name) = value {
                    self.name(name);
                }
            }
        }
    }

    /// `{name: POD_NAMESPACE, value: shop}`.
    fn variable(&mut self, fields: &mut serde_json::Map<String, Value>) {
        let named =
            fields.get("name").and_then(Value::as_str).is_some_and(|name| name.ends_with("NAMESPACE"));
        if named && let Some(Value::String(value)) = fields.get_mut("value") {
            self.name(value);
        }
    }

    /// Values of a user's map of texts: only full service names are certain in there.
    fn texts(&mut self, map: &mut Value) {
        let Value::Object(entries) = map else { return };
        for (key, value) in entries.iter_mut() {
            if let Value::String(text) = value {
                self.at.push(key.clone());
                self.text(text);
                self.at.pop();
            }
        }
    }

    /// The same for base64 text; what is not UTF-8 is left.
    fn encoded(&mut self, map: &mut Value) {
        let Value::Object(entries) = map else { return };
        for (key, value) in entries.iter_mut() {
            let Ok(ByteString(bytes)) = serde_json::from_value::<ByteString>(value.clone()) else { continue };
            let Ok(mut text) = String::from_utf8(bytes) else { continue };
            let before = text.clone();
            self.at.push(key.clone());
            self.text(&mut text);
            self.at.pop();
            if text != before
                && let Ok(new) = serde_json::to_value(ByteString(text.into_bytes()))
            {
                *value = new;
            }
        }
    }

    fn text(&mut self, text: &mut String) {
        if !self.transform.mapping().service_names {
            return;
        }
        // A namespace argument is one word; the name must be the whole rest of it.
        if let Some((flag, value)) = text.split_once('=')
            && flag.starts_with('-')
            && (flag.ends_with("-namespace") || flag.ends_with("-namespaces"))
        {
            let new: Vec<&str> = value.split(',').map(|name| self.transform.namespace(name)).collect();
            *text = format!("{flag}={}", new.join(","));
        }
        if let Some(new) = full_names(text, self.map(), &self.transform.mapping().cluster_domain) {
            *text = new;
        }
        let short = short_names(text, self.map(), &self.transform.services);
        for (service, namespace) in short {
            let at = self.at.iter().map(|step| format!("/{}", escape(step))).collect::<String>();
            self.notes.push(Note {
                at,
                message: format!(
                    "contains \"{service}.{namespace}\", which may be the service {service} in the mapped namespace \
                     {namespace}; left as it is, use a patch if it should change"
                ),
            });
        }
    }
}

fn is_label_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// The text with the namespace of every full service name mapped, or `None` if there was none.
///
/// Full means `<name>.<namespace>.svc` followed by the cluster's domain or by something that cannot go on
/// a DNS name: `db.shop.svc.example.com` is somebody else's host and stays.
fn full_names(text: &str, map: &BTreeMap<String, String>, domain: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (at, _) in text.match_indices(".svc") {
        let rest = &text[at + ".svc".len()..];
        let ends = match rest.strip_prefix('.') {
            None => !rest.starts_with(is_label_char),
            Some(after) => match after.strip_prefix(domain) {
                Some(after) => !after.starts_with(is_label_char),
                None => !after.starts_with(is_label_char),
            },
        };
        let head = &text[..at];
        let start = head.rfind(|c| !is_label_char(c)).map_or(0, |i| i + 1);
        let named = head[..start].ends_with('.')
            && head[..start - 1]
                .ends_with(|c: char| c.is_ascii_alphanumeric() || c == '*' || c == '}' || c == ')');
        if let Some(new) = map.get(&head[start..]).filter(|_| ends && named && start >= copied) {
            out.push_str(&text[copied..start]);
            out.push_str(new);
            copied = at;
        }
    }
    (copied > 0).then(|| {
        out.push_str(&text[copied..]);
        out
    })
}

/// `(service, namespace)` of every known service of a mapped namespace the text names in short.
fn short_names(
    text: &str,
    map: &BTreeMap<String, String>,
    services: &BTreeSet<(String, String)>,
) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for old in map.keys() {
        let needle = format!(".{old}");
        for (at, _) in text.match_indices(&needle) {
            let rest = &text[at + needle.len()..];
            let goes_on = rest.starts_with(is_label_char)
                || rest
                    .strip_prefix('.')
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
            let head = &text[..at];
            let start = head.rfind(|c| !is_label_char(c)).map_or(0, |i| i + 1);
            let service = &head[start..];
            if !goes_on && services.contains(&(old.clone(), service.to_owned())) {
                found.insert((service.to_owned(), old.clone()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Mapping;
    use super::*;

    fn transform() -> Transform {
        let mut mapping = Mapping::default();
        mapping.add_namespace("shop=shop-test").unwrap();
        mapping.add_namespace("data=data-test").unwrap();
        mapping.check().unwrap().knowing_services([("shop".to_owned(), "db".to_owned())])
    }

    fn check(story: &str, object: Value, want: Value) {
        let done = transform().apply(&object, "").unwrap();
        assert_eq!(done.value, want, "{story}");
    }

    #[test]
    fn an_object_moves_and_so_does_what_it_says_about_namespaces() {
        check(
            "a namespace",
            json!({"kind": "Namespace", "metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop", "team": "shop"}}}),
            json!({"kind": "Namespace", "metadata": {"name": "shop-test", "labels": {"kubernetes.io/metadata.name": "shop-test", "team": "shop"}}}),
        );
        check(
            "an object in it, with labels that only look alike",
            json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "shop", "labels": {"namespace": "shop"}}, "spec": {"selector": {"namespace": "shop"}}}),
            json!({"kind": "Service", "metadata": {"namespace": "shop-test", "name": "shop", "labels": {"namespace": "shop"}}, "spec": {"selector": {"namespace": "shop"}}}),
        );
        check(
            "a role binding's subjects",
            json!({"kind": "RoleBinding", "metadata": {"namespace": "shop", "name": "b"}, "subjects": [
                {"kind": "ServiceAccount", "name": "web", "namespace": "shop"}, {"kind": "ServiceAccount", "name": "x", "namespace": "other"},
                {"kind": "User", "name": "system:serviceaccount:shop:web"}, {"kind": "Group", "name": "system:serviceaccounts:data"}, {"kind": "User", "name": "shop"}]}),
            json!({"kind": "RoleBinding", "metadata": {"namespace": "shop-test", "name": "b"}, "subjects": [
                {"kind": "ServiceAccount", "name": "web", "namespace": "shop-test"}, {"kind": "ServiceAccount", "name": "x", "namespace": "other"},
                {"kind": "User", "name": "system:serviceaccount:shop-test:web"}, {"kind": "Group", "name": "system:serviceaccounts:data-test"}, {"kind": "User", "name": "shop"}]}),
        );
        check(
            "network policy, affinity and monitors",
            json!({"kind": "X", "metadata": {"namespace": "shop", "name": "x"}, "spec": {
                "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}}}]}],
                "egress": [{"to": [{"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop", "kube-system"]}]}}]}],
                "podAffinityTerm": {"namespaces": ["shop", "other"]}, "namespaceSelector": {"matchNames": ["data"]}}}),
            json!({"kind": "X", "metadata": {"namespace": "shop-test", "name": "x"}, "spec": {
                "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data-test"}}}]}],
                "egress": [{"to": [{"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop-test", "kube-system"]}]}}]}],
                "podAffinityTerm": {"namespaces": ["shop-test", "other"]}, "namespaceSelector": {"matchNames": ["data-test"]}}}),
        );
        check(
            "a claim filled from another namespace, a gateway route, a grant",
            json!({"kind": "X", "metadata": {"namespace": "shop", "name": "x"}, "spec": {"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "d", "namespace": "data"},
                "parentRefs": [{"name": "gw", "namespace": "data"}], "rules": [{"backendRefs": [{"name": "web", "namespace": "shop"}]}], "from": [{"group": "g", "kind": "k", "namespace": "shop"}]}}),
            json!({"kind": "X", "metadata": {"namespace": "shop-test", "name": "x"}, "spec": {"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "d", "namespace": "data-test"},
                "parentRefs": [{"name": "gw", "namespace": "data-test"}], "rules": [{"backendRefs": [{"name": "web", "namespace": "shop-test"}]}], "from": [{"group": "g", "kind": "k", "namespace": "shop-test"}]}}),
        );
        check(
            "environment and arguments",
            json!({"kind": "Deployment", "metadata": {"namespace": "shop", "name": "x"}, "spec": {"template": {"spec": {"containers": [{
                "name": "shop", "args": ["--namespace=shop", "--leader-election-namespace=shop", "--watch-namespaces=shop,other", "--name=shop", "http://db.shop.svc:5432/x"],
                "env": [{"name": "POD_NAMESPACE", "value": "shop"}, {"name": "SHOP", "value": "shop"}, {"name": "URL", "value": "db.data.svc.cluster.local"}]}]}}}}),
            json!({"kind": "Deployment", "metadata": {"namespace": "shop-test", "name": "x"}, "spec": {"template": {"spec": {"containers": [{
                "name": "shop", "args": ["--namespace=shop-test", "--leader-election-namespace=shop-test", "--watch-namespaces=shop-test,other", "--name=shop", "http://db.shop-test.svc:5432/x"],
                "env": [{"name": "POD_NAMESPACE", "value": "shop-test"}, {"name": "SHOP", "value": "shop"}, {"name": "URL", "value": "db.data-test.svc.cluster.local"}]}]}}}}),
        );
        check(
            "a namespace and a name in one annotation, which has to be one that the table knows",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"namespace": "shop", "name": "x", "annotations": {
                "nginx.ingress.kubernetes.io/auth-secret": "data/users", "nginx.ingress.kubernetes.io/proxy-ssl-secret": "plain", "other": "data/users"}}}),
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"namespace": "shop-test", "name": "x", "annotations": {
                "nginx.ingress.kubernetes.io/auth-secret": "data-test/users", "nginx.ingress.kubernetes.io/proxy-ssl-secret": "plain", "other": "data/users"}}}),
        );
        check(
            "a list that is called as a user's map is",
            json!({"kind": "ExternalSecret", "metadata": {"namespace": "shop", "name": "x"}, "spec": {"data": [{"sourceRef": {"storeRef": {"name": "s", "namespace": "data"}}}]}}),
            json!({"kind": "ExternalSecret", "metadata": {"namespace": "shop-test", "name": "x"}, "spec": {"data": [{"sourceRef": {"storeRef": {"name": "s", "namespace": "data-test"}}}]}}),
        );
        check(
            "parameters of classes",
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "x"}, "parameters": {
                "csi.storage.k8s.io/provisioner-secret-name": "shop", "csi.storage.k8s.io/provisioner-secret-namespace": "shop", "adminSecretNamespace": "data", "pool": "shop"}}),
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "x"}, "parameters": {
                "csi.storage.k8s.io/provisioner-secret-name": "shop", "csi.storage.k8s.io/provisioner-secret-namespace": "shop-test", "adminSecretNamespace": "data-test", "pool": "shop"}}),
        );
        check(
            "a config map's text, not its fields; an opaque secret; a certificate's secret stays",
            json!({"kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "c"}, "data": {"namespace": "shop", "url": "jdbc://db.shop.svc/x, https://web.shop.svc.\n"}}),
            json!({"kind": "ConfigMap", "metadata": {"namespace": "shop-test", "name": "c"}, "data": {"namespace": "shop", "url": "jdbc://db.shop-test.svc/x, https://web.shop-test.svc.\n"}}),
        );
        // base64 of "pg://db.shop.svc/x" and of "pg://db.shop-test.svc/x"
        check(
            "an opaque secret",
            json!({"kind": "Secret", "type": "Opaque", "metadata": {"namespace": "shop", "name": "s"}, "data": {"u": "cGc6Ly9kYi5zaG9wLnN2Yy94", "bin": "/w=="}}),
            json!({"kind": "Secret", "type": "Opaque", "metadata": {"namespace": "shop-test", "name": "s"}, "data": {"u": "cGc6Ly9kYi5zaG9wLXRlc3Quc3ZjL3g=", "bin": "/w=="}}),
        );
        check(
            "a typed secret",
            json!({"kind": "Secret", "type": "helm.sh/release.v1", "metadata": {"namespace": "shop", "name": "s"}, "data": {"u": "cGc6Ly9kYi5zaG9wLnN2Yy94"}}),
            json!({"kind": "Secret", "type": "helm.sh/release.v1", "metadata": {"namespace": "shop-test", "name": "s"}, "data": {"u": "cGc6Ly9kYi5zaG9wLnN2Yy94"}}),
        );
        check(
            "what kubectl and helm remember",
            json!({"kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "c", "annotations": {"meta.helm.sh/release-namespace": "shop",
                "kubectl.kubernetes.io/last-applied-configuration": "{\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\",\"namespace\":\"shop\"}}\n"}}}),
            json!({"kind": "ConfigMap", "metadata": {"namespace": "shop-test", "name": "c", "annotations": {"meta.helm.sh/release-namespace": "shop-test",
                "kubectl.kubernetes.io/last-applied-configuration": "{\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\",\"namespace\":\"shop-test\"}}\n"}}}),
        );
    }

    #[test]
    fn what_links_into_a_moved_namespace_gets_its_own_name_so_that_the_original_keeps_working() {
        check(
            "a cluster role binding",
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "web"}, "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "shop"}]}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "web-shop-test"}, "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "shop-test"}]}),
        );
        check(
            "one of other subjects",
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "web"}, "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "other"}]}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "web"}, "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "other"}]}),
        );
        check(
            "a binding in a namespace that stays",
            json!({"kind": "RoleBinding", "metadata": {"name": "auth-reader", "namespace": "kube-system"}, "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "shop"}]}),
            json!({"kind": "RoleBinding", "metadata": {"name": "auth-reader-shop-test", "namespace": "kube-system"}, "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "shop-test"}]}),
        );
        check(
            "a webhook",
            json!({"kind": "ValidatingWebhookConfiguration", "metadata": {"name": "v"}, "webhooks": [{"clientConfig": {"service": {"name": "web", "namespace": "shop"}}}]}),
            json!({"kind": "ValidatingWebhookConfiguration", "metadata": {"name": "v-shop-test"}, "webhooks": [{"clientConfig": {"service": {"name": "web", "namespace": "shop-test"}}}]}),
        );
        check(
            "a volume",
            json!({"kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {"local": {"path": "/mnt/d/"}, "claimRef": {"name": "d", "namespace": "data"}}}),
            json!({"kind": "PersistentVolume", "metadata": {"name": "pv-data-test"}, "spec": {"local": {"path": "/mnt/d-data-test"}, "claimRef": {"name": "d", "namespace": "data-test"}}}),
        );
        let done = transform()
            .apply(&json!({"kind": "APIService", "metadata": {"name": "v1.x"}, "spec": {"service": {"name": "web", "namespace": "shop"}}}), "")
            .unwrap();
        assert_eq!(done.value.pointer("/metadata/name"), Some(&json!("v1.x")));
        assert!(done.notes[0].message.contains("can exist only once"), "{:?}", done.notes);
        let crd = json!({"kind": "CustomResourceDefinition", "metadata": {"name": "x"}, "spec": {
            "conversion": {"webhook": {"clientConfig": {"service": {"namespace": "shop", "name": "c"}}}},
            "versions": [{"schema": {"openAPIV3Schema": {"properties": {"namespace": {"default": "shop"}}}}}]}});
        let done = transform().apply(&crd, "").unwrap();
        assert_eq!(
            done.value.pointer("/spec/conversion/webhook/clientConfig/service/namespace"),
            Some(&json!("shop-test"))
        );
        assert_eq!(done.value.pointer("/spec/versions"), crd.pointer("/spec/versions"));
        let long = suffixed(&"a".repeat(260), "b");
        assert!(long.len() <= NAME_MAX && long.starts_with("aaa") && long.ends_with("-b"), "{long}");
        assert_ne!(long, suffixed(&"a".repeat(259), "b"));
    }

    #[test]
    fn full_service_names_change_and_everything_that_could_be_something_else_stays() {
        let map = BTreeMap::from([("shop".to_owned(), "s2".to_owned())]);
        let cases = [
            ("db.shop.svc", Some("db.s2.svc")),
            ("http://db.shop.svc:80/a", Some("http://db.s2.svc:80/a")),
            ("db-0.db.shop.svc.cluster.local", Some("db-0.db.s2.svc.cluster.local")),
            ("*.shop.svc", Some("*.s2.svc")),
            ("$(NAME).shop.svc", Some("$(NAME).s2.svc")),
            ("a.shop.svc,b.shop.svc", Some("a.s2.svc,b.s2.svc")),
            ("ends db.shop.svc.", Some("ends db.s2.svc.")),
            ("db.shop.svc.example.com", None),
            ("db.shop.svc.cluster.localhost", None),
            ("db.shop.svcs", None),
            ("db.shop.svc-x", None),
            (".shop.svc", None),
            ("shop.svc", None),
            ("db.workshop.svc", None),
            ("db.shop", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(full_names(text, &map, "cluster.local").as_deref(), want, "{text}");
        }
    }

    #[test]
    fn a_short_name_of_a_known_service_is_told_and_left() {
        let config = |text: &str| json!({"kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "c"}, "data": {"a/b": text}});
        let cases = [
            ("host=db.shop", true),
            ("db.shop:5432", true),
            ("db.shop. And more", true),
            ("web.shop", false),
            ("db.shop.example.com", false),
            ("db.shopping", false),
            ("mydb.shop", false),
        ];
        for (text, noted) in cases {
            let done = transform().apply(&config(text), "").unwrap();
            assert_eq!(done.value.pointer("/data/a~1b"), Some(&json!(text)), "{text}");
            assert_eq!(!done.notes.is_empty(), noted, "{text}: {:?}", done.notes);
            if let Some(note) = done.notes.first() {
                assert_eq!(note.at, "/data/a~1b");
            }
        }
    }

    #[test]
    fn service_names_stay_when_asked() {
        let mapping =
            Mapping { service_names: false, ..Mapping::from_yaml("namespaces: {shop: s2}").unwrap() };
        let object = json!({"kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "c"}, "data": {"u": "db.shop.svc"}});
        let done = mapping.check().unwrap().apply(&object, "").unwrap();
        assert_eq!(done.value.pointer("/data/u"), Some(&json!("db.shop.svc")));
        assert_eq!(done.value.pointer("/metadata/namespace"), Some(&json!("s2")));
    }
}
