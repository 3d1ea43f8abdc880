//! Validating admission policies: rules in CEL about any kind, with parameters, bound to parts of a cluster.
//!
//! Unlike webhooks they need nobody outside, so a rehearsal is judged by those of its target. Only what a binding
//! denies is acted on: its warnings and audit records concern nobody here.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::State;
use crate::cel::{self, Map, Val};
use crate::kinds::split_api_version;
use crate::select::label_selector_matches;
use crate::status::Fault;
use crate::storage::Key;
use crate::webhook::{Write, rule_fits};

const VARIABLES: &[&str] = &["object", "oldObject", "request", "params", "namespaceObject", "variables"];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn all<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

impl State {
    /// Asks every bound policy about a write; `sub` is the subresource written to.
    pub fn admit_policies(&self, write: &Write<'_>, sub: &str) -> Result<(), Fault> {
        const GROUP: &str = "admissionregistration.k8s.io";
        if write.kind.group == GROUP {
            return Ok(());
        }
        let resource = format!("validatingadmissionpolicybindings.{GROUP}");
        for (binding_key, binding) in self.store.list(&resource, "") {
            let spec = &binding["spec"];
            let denies = all(spec, "validationActions").any(|action| action == "Deny");
            let key = Key::new(&format!("validatingadmissionpolicies.{GROUP}"), "", text(spec, "policyName"));
            let Some(policy) = self.store.get(&key).filter(|_| denies) else { continue };
            let policy_spec = &policy["spec"];
            let is_meant = self.is_matched(&policy_spec["matchConstraints"], write, sub, true)
                && self.is_matched(&spec["matchResources"], write, sub, false);
            if !is_meant {
                continue;
            }
            let whom =
                format!("ValidatingAdmissionPolicy '{}' with binding '{}'", key.name, binding_key.name);
            for params in self.parameters(policy_spec, spec, write, &whom)? {
                self.judge(policy_spec, write, sub, params.as_ref(), &whom)?;
            }
        }
        Ok(())
    }

    /// A binding may leave the rules out; a policy has them.
    fn is_matched(&self, constraints: &Value, write: &Write<'_>, sub: &str, needs_rules: bool) -> bool {
        let versions = write.kind.versions.iter().map(|version| version.name.as_str());
        let versions: Vec<&str> = match text(constraints, "matchPolicy") {
            "Exact" => vec![write.kind.storage.as_str()],
            _ => versions.collect(),
        };
        let name = text(&write.any()["metadata"], "name");
        let fits = |rule: &Value| {
            let is_named = rule["resourceNames"]
                .as_array()
                .is_none_or(|names| names.is_empty() || names.contains(&json!(name)));
            is_named
                && versions.iter().any(|version| rule_fits(rule, write.kind, version, sub, write.operation))
        };
        let mut rules = all(constraints, "resourceRules").peekable();
        let included = if rules.peek().is_none() { !needs_rules } else { rules.any(fits) };
        included
            && !all(constraints, "excludeResourceRules").any(fits)
            && self.is_selected(constraints, write)
    }

    /// The objects a policy is asked with: one without parameters, else each that the binding names.
    fn parameters(
        &self,
        policy: &Value,
        binding: &Value,
        write: &Write<'_>,
        whom: &str,
    ) -> Result<Vec<Option<Value>>, Fault> {
        let (of, reference) = (&policy["paramKind"], &binding["paramRef"]);
        if !of.is_object() || !reference.is_object() {
            return Ok(vec![None]);
        }
        let (group, _) = split_api_version(text(of, "apiVersion"));
        let found: Vec<Option<Value>> = match self.kinds.of_group(group, text(of, "kind")) {
            None => Vec::new(),
            Some(kind) => {
                let own = text(&write.any()["metadata"], "namespace");
                let namespace = match (kind.namespaced, text(reference, "namespace")) {
                    (false, _) => "",
                    (true, "") => own,
                    (true, named) => named,
                };
                let name = text(reference, "name");
                let resource = kind.resource();
                let chosen = self.store.list(&resource, namespace).filter(|(key, object)| match name {
                    "" => label_selector_matches(&reference["selector"], &object["metadata"]["labels"]),
                    name => key.name == name,
                });
                chosen.map(|(_, object)| Some((*object).clone())).collect()
            }
        };
        if found.is_empty() && text(reference, "parameterNotFoundAction") != "Allow" {
            return Err(refused(
                write,
                whom,
                "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
                "Invalid",
            ));
        }
        Ok(found)
    }

    fn judge(
        &self,
        policy: &Value,
        write: &Write<'_>,
        sub: &str,
        params: Option<&Value>,
        whom: &str,
    ) -> Result<(), Fault> {
        let null = Value::Null;
        let metadata = &write.any()["metadata"];
        let namespace = self.store.get(&Key::new("namespaces", "", text(metadata, "namespace")));
        let namespace = namespace.as_deref().unwrap_or(&null);
        let kind = write.kind;
        let request = json!({
            "kind": { "group": kind.group, "version": kind.storage, "kind": kind.kind },
            "resource": { "group": kind.group, "version": kind.storage, "resource": kind.plural },
            "subResource": sub,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "operation": write.operation,
            "userInfo": { "username": "embedded", "groups": ["system:authenticated"] },
            "dryRun": false,
        });
        let mut known = vec![
            ("object", Val::json(write.new.unwrap_or(&null), None)),
            ("oldObject", Val::json(write.old.unwrap_or(&null), None)),
            ("request", Val::json(&request, None)),
            ("params", Val::json(params.unwrap_or(&null), None)),
            ("namespaceObject", Val::json(namespace, None)),
        ];
        let ignores = text(policy, "failurePolicy") == "Ignore";
        let ask = |expression: &str, known: &[(&str, Val<'_>)]| -> Result<bool, String> {
            let expr = cel::compile(expression, VARIABLES)?;
            let answer = cel::evaluate(&expr, known)?;
            answer.as_bool().ok_or_else(|| "the expression does not answer with true or false".to_string())
        };
        for condition in all(policy, "matchConditions") {
            match ask(text(condition, "expression"), &known) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) if ignores => return Ok(()),
                Err(why) => return Err(refused(write, whom, &why, "Invalid")),
            }
        }
        // A variable that fails is a failure only where it is used: it is left out, and its user says so.
        let mut variables = Vec::new();
        for variable in all(policy, "variables") {
            let mut with = known.clone();
            with.push(("variables", Val::Map(Map::Made(Rc::new(variables.clone())))));
            let value = cel::compile(text(variable, "expression"), VARIABLES)
                .and_then(|expr| cel::evaluate(&expr, &with));
            if let Ok(value) = value {
                variables.push((Val::Text(text(variable, "name").to_string().into()), value));
            }
        }
        known.push(("variables", Val::Map(Map::Made(Rc::new(variables)))));
        for validation in all(policy, "validations") {
            let expression = text(validation, "expression");
            let why = match ask(expression, &known) {
                Ok(true) => continue,
                Ok(false) => {
                    let own = cel::compile(text(validation, "messageExpression"), VARIABLES)
                        .and_then(|expr| cel::evaluate(&expr, &known));
                    let own = own.ok().and_then(|own| own.as_text().map(str::to_string));
                    own.filter(|own| !own.trim().is_empty()).unwrap_or_else(|| {
                        match text(validation, "message") {
                            "" => format!("failed expression: {}", expression.trim()),
                            message => message.to_string(),
                        }
                    })
                }
                Err(_) if ignores => continue,
                Err(why) => format!("expression '{}' resulted in error: {why}", expression.trim()),
            };
            let reason = match text(validation, "reason") {
                "" => "Invalid",
                reason => reason,
            };
            return Err(refused(write, whom, &why, reason));
        }
        Ok(())
    }
}

fn refused(write: &Write<'_>, whom: &str, why: &str, reason: &str) -> Fault {
    let name = text(&write.any()["metadata"], "name");
    let message = format!("{whom} denied request: {why}");
    let mut fault = Fault::forbidden(&write.kind.group, &write.kind.plural, name, &message);
    let (code, reason) = match reason {
        "Unauthorized" => (401, "Unauthorized"),
        "Forbidden" => (403, "Forbidden"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    (fault.code, fault.reason) = (code, reason);
    if let Some(details) = &mut fault.details {
        details["causes"] = json!([{ "message": message }]);
    }
    fault
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ApiServer, Options};

    /// Each case is a number of replicas in a namespace, and what a policy with a parameter says to it.
    #[test]
    fn a_policy_refuses_what_its_binding_denies_and_says_why() {
        let server = ApiServer::new(Options::deterministic(1));
        let group = "admissionregistration.k8s.io/v1";
        let policy = json!({"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "few"}, "spec": {
            "failurePolicy": "Fail", "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}]},
            "matchConditions": [{"name": "not-free", "expression": "!has(object.metadata.labels) || !('free' in object.metadata.labels)"}],
            "variables": [{"name": "most", "expression": "int(params.data.most)"}],
            "validations": [{"expression": "object.spec.replicas <= variables.most",
                "messageExpression": "'at most ' + string(variables.most) + ' in ' + namespaceObject.metadata.name"}]}});
        let binding = json!({"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "here"}, "spec": {
            "policyName": "few", "validationActions": ["Deny"],
            "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"},
            "matchResources": {"namespaceSelector": {"matchExpressions": [{"key": "lax", "operator": "DoesNotExist"}]}}}});
        let conf = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "limits", "namespace": "default"}, "data": {"most": "3"}});
        let lax = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lax", "labels": {"lax": "1"}}});
        assert_eq!(server.load([policy, binding, conf, lax]), Vec::<String>::new());
        let check = |namespace: &str, replicas: i64, labels: Value, expect: Option<&str>| {
            let state = server.shared.lock();
            let kind = state.kinds.get("apps", "deployments").unwrap();
            let object = json!({"metadata": {"name": "web", "namespace": namespace, "labels": labels}, "spec": {"replicas": replicas}});
            let write = Write { kind, operation: "CREATE", old: None, new: Some(&object) };
            let got =
                state.admit_policies(&write, "").map_err(|fault| (fault.code, fault.message.to_string()));
            match expect {
                None => assert_eq!(got, Ok(())),
                Some(part) => assert!(
                    got.clone().is_err_and(|(code, why)| code == 422 && why.contains(part)),
                    "{got:?}"
                ),
            }
        };
        check("default", 3, json!({}), None);
        check(
            "default",
            4,
            json!({}),
            Some("ValidatingAdmissionPolicy 'few' with binding 'here' denied request: at most 3 in default"),
        );
        check("default", 4, json!({"free": "1"}), None);
        check("lax", 4, json!({}), None);
        server.change(|state| state.remove(&Key::new("configmaps", "default", "limits")));
        check("default", 1, json!({}), Some("no params found"));
    }
}
