//! Strimzi: Kafka by an operator. Topics, users and node pools say by a label which cluster they live in.

use super::custom::kind;
use super::{KindInfo, Order, RefRule, To, rule};
use crate::graph::RefKind;

const GROUP: &str = "kafka.strimzi.io";
const SECRET: To = To::Here("", "Secret");
const CONFIG: To = To::Here("", "ConfigMap");
const STORAGE: To = To::Cluster("storage.k8s.io", "StorageClass");

/// The label that says whose it is.
const fn in_cluster(kind: &'static str) -> RefRule {
    rule("/metadata/labels/strimzi.io~1cluster", To::Here(GROUP, kind), RefKind::PartOf)
}

/// How a client of Kafka signs in and whom it trusts, below a JSON pointer.
macro_rules! client {
    ($($at:literal)?) => {
        &[
            rule(concat!("/spec", $($at,)? "/bootstrapServers"), To::Host, RefKind::Names).optional(),
            rule(concat!("/spec", $($at,)? "/tls/trustedCertificates/*/secretName"), SECRET, RefKind::Secret),
            rule(concat!("/spec", $($at,)? "/authentication/passwordSecret/secretName"), SECRET, RefKind::Secret),
            rule(concat!("/spec", $($at,)? "/authentication/certificateAndKey/secretName"), SECRET, RefKind::Secret),
            rule(concat!("/spec", $($at,)? "/authentication/clientSecret/secretName"), SECRET, RefKind::Secret),
            rule(concat!("/spec", $($at,)? "/authentication/accessToken/secretName"), SECRET, RefKind::Secret),
            rule(concat!("/spec", $($at,)? "/authentication/refreshToken/secretName"), SECRET, RefKind::Secret),
            rule(concat!("/spec", $($at,)? "/authentication/tlsTrustedCertificates/*/secretName"), SECRET, RefKind::Secret),
            rule("/spec/metricsConfig/valueFrom/configMapKeyRef/name", CONFIG, RefKind::Config),
            rule("/spec/logging/valueFrom/configMapKeyRef/name", CONFIG, RefKind::Config),
            rule("/spec/externalConfiguration/env/*/valueFrom/secretKeyRef/name", SECRET, RefKind::Secret),
            rule("/spec/externalConfiguration/env/*/valueFrom/configMapKeyRef/name", CONFIG, RefKind::Config),
            rule("/spec/externalConfiguration/volumes/*/secret/secretName", SECRET, RefKind::Secret),
            rule("/spec/externalConfiguration/volumes/*/configMap/name", CONFIG, RefKind::Config),
        ]
    };
}

/// All kinds of Strimzi.
pub static KINDS: &[KindInfo] = &[
    kind(
        GROUP,
        "Kafka",
        &[
            rule("/spec/kafka/storage/class", STORAGE, RefKind::Class),
            rule("/spec/kafka/storage/volumes/*/class", STORAGE, RefKind::Class),
            rule("/spec/zookeeper/storage/class", STORAGE, RefKind::Class),
            rule(
                "/spec/kafka/listeners/*/configuration/brokerCertChainAndKey/secretName",
                SECRET,
                RefKind::Secret,
            ),
            rule(
                "/spec/kafka/listeners/*/authentication/tlsTrustedCertificates/*/secretName",
                SECRET,
                RefKind::Secret,
            ),
            rule("/spec/kafka/listeners/*/authentication/clientSecret/secretName", SECRET, RefKind::Secret),
            rule("/spec/kafka/authorization/tlsTrustedCertificates/*/secretName", SECRET, RefKind::Secret),
            rule("/spec/kafka/metricsConfig/valueFrom/configMapKeyRef/name", CONFIG, RefKind::Config),
            rule("/spec/kafka/logging/valueFrom/configMapKeyRef/name", CONFIG, RefKind::Config),
            rule("/spec/zookeeper/metricsConfig/valueFrom/configMapKeyRef/name", CONFIG, RefKind::Config),
            rule("/spec/cruiseControl/metricsConfig/valueFrom/configMapKeyRef/name", CONFIG, RefKind::Config),
            rule("/spec/*/template/pod/imagePullSecrets/*/name", SECRET, RefKind::Secret),
            rule(
                "/spec/*/template/pod/priorityClassName",
                To::Cluster("scheduling.k8s.io", "PriorityClass"),
                RefKind::Class,
            ),
        ],
    ),
    kind(
        GROUP,
        "KafkaNodePool",
        &[
            in_cluster("Kafka"),
            rule("/spec/storage/class", STORAGE, RefKind::Class),
            rule("/spec/storage/volumes/*/class", STORAGE, RefKind::Class),
        ],
    ),
    kind(GROUP, "KafkaTopic", &[in_cluster("Kafka")]),
    kind(
        GROUP,
        "KafkaUser",
        &[
            in_cluster("Kafka"),
            rule("/spec/authentication/password/valueFrom/secretKeyRef/name", SECRET, RefKind::Secret),
        ],
    ),
    kind(GROUP, "KafkaRebalance", &[in_cluster("Kafka")]),
    kind(GROUP, "KafkaConnect", client!()),
    kind(GROUP, "KafkaConnector", &[in_cluster("KafkaConnect")]),
    kind(GROUP, "KafkaBridge", client!()),
    kind(GROUP, "KafkaMirrorMaker2", client!("/clusters/*")),
    // What the operator makes and steers its pods with.
    KindInfo { order: Order::Workload, ..kind("core.strimzi.io", "StrimziPodSet", &[]) },
];
