//! Label and field selectors.
//!
//! A list must not return an object that a client asked to be left out: a selector we cannot
//! evaluate is refused, never ignored.

use serde_json::Value;

use crate::kinds::Kind;
use crate::status::Fault;

#[derive(Debug, Clone, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// Requirements on labels and on fields; all must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selector {
    labels: Vec<(String, Test)>,
    fields: Vec<(String, bool, String)>,
}

impl Selector {
    /// Parses the `labelSelector` and `fieldSelector` parameters for a kind.
    pub fn parse(labels: &str, fields: &str, kind: &Kind) -> Result<Selector, Fault> {
        Ok(Selector { labels: parse_labels(labels)?, fields: parse_fields(fields, kind)? })
    }

    /// Does it let everything pass?
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Does this object pass?
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|(key, test)| passes(labels[key.as_str()].as_str(), test))
            && self.fields.iter().all(|(path, equal, value)| (field(object, path) == *value) == *equal)
    }
}

fn passes(value: Option<&str>, test: &Test) -> bool {
    match (test, value) {
        (Test::In(wanted), Some(value)) => wanted.iter().any(|w| w == value),
        (Test::In(_), None) => false,
        (Test::NotIn(unwanted), Some(value)) => !unwanted.iter().any(|w| w == value),
        (Test::NotIn(_), None) => true,
        (Test::Exists, value) => value.is_some(),
        (Test::Absent, value) => value.is_none(),
        (Test::Greater(than), value) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *than),
        (Test::Less(than), value) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *than),
    }
}

/// Does a `LabelSelector` object (`matchLabels`, `matchExpressions`) match these labels? Empty matches all.
pub fn label_selector_matches(selector: &Value, labels: &Value) -> bool {
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let exact =
        exact.map(|(key, value)| (key.as_str(), Test::In(vec![value.as_str().unwrap_or("").to_string()])));
    let sets = selector["matchExpressions"].as_array().into_iter().flatten().map(|e| {
        let values = e["values"].as_array().into_iter().flatten();
        let values: Vec<String> = values.filter_map(Value::as_str).map(str::to_string).collect();
        let test = match e["operator"].as_str() {
            Some("In") => Test::In(values),
            Some("NotIn") => Test::NotIn(values),
            Some("Exists") => Test::Exists,
            _ => Test::Absent,
        };
        (e["key"].as_str().unwrap_or(""), test)
    });
    exact.chain(sets).all(|(key, test)| passes(labels[key].as_str(), &test))
}

/// Writes a `LabelSelector` object in the form of a query parameter.
pub fn label_selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or("")));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or("");
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("Exists") => key.to_string(),
            _ => format!("!{key}"),
        });
    }
    parts.sort();
    parts.join(",")
}

fn parse_labels(text: &str) -> Result<Vec<(String, Test)>, Fault> {
    let bad = |why: &str| {
        Fault::bad_request(format!("unable to parse requirement: {why} in label selector {text:?}"))
    };
    let mut tests = Vec::new();
    for part in split_outside_parentheses(text) {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        let test = if let Some(key) = part.strip_prefix('!') {
            (key.trim(), Test::Absent)
        } else if let Some((key, value)) = part.split_once("!=") {
            (key.trim(), Test::NotIn(vec![value.trim().to_string()]))
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (key.trim(), Test::In(vec![value.trim().to_string()]))
        } else if let Some((key, value)) = part.split_once('>') {
            (key.trim(), Test::Greater(value.trim().parse().map_err(|_| bad("not a number"))?))
        } else if let Some((key, value)) = part.split_once('<') {
            (key.trim(), Test::Less(value.trim().parse().map_err(|_| bad("not a number"))?))
        } else if let Some(open) = part.find('(') {
            let values = part[open..].strip_prefix('(').and_then(|v| v.strip_suffix(')'));
            let values = values.ok_or_else(|| bad("missing ')'"))?;
            let values: Vec<String> = values.split(',').map(|v| v.trim().to_string()).collect();
            let words: Vec<&str> = part[..open].split_whitespace().collect();
            match words[..] {
                [key, "in"] => (key, Test::In(values)),
                [key, "notin"] => (key, Test::NotIn(values)),
                _ => return Err(bad("found '(', expected 'in' or 'notin' before it")),
            }
        } else {
            (part, Test::Exists)
        };
        let key_ok = !test.0.is_empty()
            && test.0.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/'));
        if !key_ok {
            return Err(bad("invalid label key"));
        }
        tests.push((test.0.to_string(), test.1));
    }
    Ok(tests)
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Fields beside name and namespace that can be selected, by resource.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    (
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    ("secrets", &["type"]),
    ("namespaces", &["status.phase"]),
    ("nodes", &["spec.unschedulable"]),
    ("jobs.batch", &["status.successful"]),
    ("replicasets.apps", &["status.replicas"]),
    ("replicationcontrollers", &["status.replicas"]),
    ("certificatesigningrequests.certificates.k8s.io", &["spec.signerName"]),
];

fn parse_fields(text: &str, kind: &Kind) -> Result<Vec<(String, bool, String)>, Fault> {
    let resource = kind.resource();
    let selectable = FIELDS.iter().find(|f| f.0 == resource).map_or(&[][..], |f| f.1);
    let mut fields = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (path, equal, value) = if let Some((path, value)) = part.split_once("!=") {
            (path, false, value)
        } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (path, true, value)
        } else {
            return Err(Fault::bad_request(format!("invalid field selector {part:?}: expected path=value")));
        };
        let own = kind.versions.iter().any(|v| v.selectable.iter().any(|own| own == path));
        if path != "metadata.name" && path != "metadata.namespace" && !selectable.contains(&path) && !own {
            let why = if selectable.is_empty() && !kind.custom {
                format!(
                    "\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )
            } else {
                format!("field label not supported: {path}")
            };
            return Err(Fault::bad_request(why));
        }
        fields.push((path.to_string(), equal, value.replace("\\,", ",").replace("\\=", "=")));
    }
    Ok(fields)
}

fn field(object: &Value, path: &str) -> String {
    // The stored event is the core one; `source` means its component.
    let path = if path == "source" { "source.component" } else { path };
    let found = path.split('.').try_fold(object, |value, key| value.get(key));
    match (found, path) {
        (Some(Value::String(text)), _) => text.clone(),
        (Some(Value::Null) | None, "spec.unschedulable" | "spec.hostNetwork") => "false".into(),
        (Some(Value::Null) | None, "status.successful" | "status.replicas") => "0".into(),
        (Some(Value::Null) | None, _) => String::new(),
        (Some(other), _) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;
    use serde_json::json;

    #[test]
    fn label_selectors_choose_as_kubectl_documents() {
        let kinds = Kinds::default();
        let pods = kinds.get("", "pods").unwrap();
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        let object = json!({"metadata": {"name": "a", "labels": labels}});
        let check = |text: &str, expect: bool| {
            let selector = Selector::parse(text, "", pods).unwrap();
            assert_eq!(selector.matches(&object), expect, "{text}");
        };
        check("", true);
        check("app=web", true);
        check("app==web,tier=front", true);
        check("app=web,tier=back", false);
        check("app!=web", false);
        check("zone!=a", true);
        check("app in (api, web)", true);
        check("app in (api),tier", false);
        check("app notin (api,db)", true);
        check("zone notin (a)", true);
        check("tier", true);
        check("!tier", false);
        check("!zone", true);
        check("n>4", true);
        check("n<5", false);
        assert!(Selector::parse("app in web", "", pods).is_err());
        assert!(Selector::parse("a b", "", pods).is_err());
    }

    #[test]
    fn a_field_nobody_indexes_is_refused_not_ignored() {
        let kinds = Kinds::default();
        let pods = kinds.get("", "pods").unwrap();
        let object = json!({"metadata": {"name": "a", "namespace": "x"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let check = |text: &str, expect: Option<bool>| {
            let got = Selector::parse("", text, pods).ok().map(|s| s.matches(&object));
            assert_eq!(got, expect, "{text}");
        };
        check("metadata.name=a", Some(true));
        check("metadata.name!=a", Some(false));
        check("spec.nodeName=n1,status.phase!=Succeeded", Some(true));
        check("status.phase==Failed", Some(false));
        check("spec.replicas=1", None);
    }

    #[test]
    fn a_selector_object_matches_labels() {
        let labels = json!({"app": "web"});
        let check = |selector: Value, expect: bool, text: &str| {
            assert_eq!(label_selector_matches(&selector, &labels), expect, "{selector}");
            assert_eq!(label_selector_text(&selector), text);
        };
        check(json!({}), true, "");
        check(json!({"matchLabels": {"app": "web"}}), true, "app=web");
        check(
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}),
            false,
            "app in (a,b)",
        );
        check(json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}), true, "!x");
    }
}
