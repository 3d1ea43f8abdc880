//! OpenShift: routes, deployment and build configurations, and who may run how.

use serde_json::Value;

use super::custom::{cluster_kind, kind};
use super::{Hold, KindInfo, Order, To, role_binding, rule};
use crate::graph::RefKind;
use crate::object::Object;
use crate::refs::Found;

const SECRET: To = To::Here("", "Secret");
const BUILD: &str = "build.openshift.io";
const IMAGE: To = To::Says("image.openshift.io", "ImageStream");

/// Route, DeploymentConfig, BuildConfig, SecurityContextConstraints.
pub static KINDS: &[KindInfo] = &[
    KindInfo {
        order: Order::Front,
        ..kind(
            "route.openshift.io",
            "Route",
            &[
                rule("/spec/to", To::Says("", "Service"), RefKind::Routes),
                rule("/spec/alternateBackends/*", To::Says("", "Service"), RefKind::Routes),
                rule("/spec/tls/externalCertificate/name", SECRET, RefKind::Secret),
            ],
        )
    },
    KindInfo {
        order: Order::Workload,
        pod_spec: Some("/spec/template/spec"),
        hold: Some(Hold::Zero("/spec/replicas")),
        ..kind("apps.openshift.io", "DeploymentConfig", &[])
    },
    kind(
        BUILD,
        "BuildConfig",
        &[
            rule("/spec/source/sourceSecret/name", SECRET, RefKind::Secret),
            rule("/spec/source/secrets/*/secret/name", SECRET, RefKind::Secret),
            rule("/spec/source/configMaps/*/configMap/name", To::Here("", "ConfigMap"), RefKind::Config),
            rule("/spec/output/pushSecret/name", SECRET, RefKind::Secret),
            rule("/spec/strategy/*/pullSecret/name", SECRET, RefKind::Secret),
            rule("/spec/strategy/*/env/*/valueFrom/secretKeyRef/name", SECRET, RefKind::Secret),
            rule("/spec/triggers/*/github/secretReference/name", SECRET, RefKind::Secret),
            rule("/spec/triggers/*/generic/secretReference/name", SECRET, RefKind::Secret),
            rule("/spec/serviceAccount", To::Here("", "ServiceAccount"), RefKind::ServiceAccount),
        ],
    ),
    KindInfo { order: Order::Config, ..kind("image.openshift.io", "ImageStream", &[]) },
    kind("image.openshift.io", "ImageStreamTag", &[rule("/tag/from", IMAGE, RefKind::Other).optional()]),
    KindInfo {
        order: Order::Binding,
        find: Some(allowed),
        ..cluster_kind("security.openshift.io", "SecurityContextConstraints", &[])
    },
];

/// The accounts that may run so.
fn allowed(constraints: &Object, found: &mut Vec<Found>) {
    let each = |list: &str, say: fn(&str, String, &mut Vec<Found>), found: &mut Vec<Found>| {
        for (index, name) in constraints.at(list).and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            say(name.as_str().unwrap_or(""), format!("{list}/{index}"), found);
        }
    };
    each("/users", role_binding::user, found);
    each("/groups", role_binding::group, found);
}
