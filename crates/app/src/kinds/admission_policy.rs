//! Admission policies written in the cluster itself, and their bindings. Applied last, like webhooks: a policy that denies
//! would deny the rest of the restore.

use serde_json::Value;

use super::{KindInfo, Lookup, Order, PLAIN, To, rule};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey, split_api_version};
use crate::refs::{Found, Namespaces, Target};
use crate::selector::Selector;

const GROUP: &str = "admissionregistration.k8s.io";

const POLICY: KindInfo = KindInfo {
    group: GROUP,
    kind: "ValidatingAdmissionPolicy",
    cluster_scoped: true,
    order: Order::Webhook,
    ..PLAIN
};

/// Policies and bindings, validating and mutating.
pub static KINDS: &[KindInfo] = &[
    POLICY,
    KindInfo { kind: "MutatingAdmissionPolicy", ..POLICY },
    KindInfo {
        kind: "ValidatingAdmissionPolicyBinding",
        refs: &[rule("/spec/policyName", To::Cluster(GROUP, "ValidatingAdmissionPolicy"), RefKind::PartOf)],
        near: Some(validating),
        ..POLICY
    },
    KindInfo {
        kind: "MutatingAdmissionPolicyBinding",
        refs: &[rule("/spec/policyName", To::Cluster(GROUP, "MutatingAdmissionPolicy"), RefKind::PartOf)],
        near: Some(mutating),
        ..POLICY
    },
];

fn validating(binding: &Object, lookup: Lookup<'_>, found: &mut Vec<Found>) {
    parameter("ValidatingAdmissionPolicy", binding, lookup, found);
}

fn mutating(binding: &Object, lookup: Lookup<'_>, found: &mut Vec<Found>) {
    parameter("MutatingAdmissionPolicy", binding, lookup, found);
}

/// The parameter of a binding: its kind stands in the policy.
fn parameter(policy: &str, binding: &Object, lookup: Lookup<'_>, found: &mut Vec<Found>) {
    let key = ObjectKey::new(GROUP, policy, "", binding.str("/spec/policyName"));
    let Some(policy) = lookup(&key) else { return };
    let (group, _) = split_api_version(policy.str("/spec/paramKind/apiVersion"));
    let (kind, at) = (policy.str("/spec/paramKind/kind"), "/spec/paramRef");
    let Some(parameter) = binding.at(at).filter(|_| !kind.is_empty()) else { return };
    let text = |name: &str| parameter.get(name).and_then(Value::as_str).unwrap_or("");
    let may_lack = text("parameterNotFoundAction") == "Allow";
    let target = match (text("name"), text("namespace")) {
        ("", _) => {
            let selector = Selector::from_json(parameter.get("selector").unwrap_or(&Value::Null));
            Target::Objects { group: group.into(), kind: kind.into(), namespaces: Namespaces::Any, selector }
        }
        // Without a namespace it is that of whatever is admitted.
        (_, "") if !super::lookup(group, kind).cluster_scoped && super::is_built_in(group) => return,
        (name, namespace) => Target::Object(ObjectKey::new(group, kind, namespace, name)),
    };
    found.push(Found { optional: may_lack, ..Found::to(target, RefKind::Config, at) });
}
