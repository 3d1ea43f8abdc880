//! CloudNativePG: PostgreSQL by an operator. Everything else lives in a Cluster and names it.

use super::custom::{cluster_kind, kind};
use super::{Keep, KindInfo, Lookup, RefRule, To, rule};
use crate::graph::RefKind;
use crate::object::Object;

const GROUP: &str = "postgresql.cnpg.io";
const SECRET: To = To::Here("", "Secret");
const STORAGE: To = To::Cluster("storage.k8s.io", "StorageClass");
const SNAPSHOTS: To = To::Cluster("snapshot.storage.k8s.io", "VolumeSnapshotClass");

const IN_CLUSTER: RefRule = rule("/spec/cluster/name", To::Here(GROUP, "Cluster"), RefKind::PartOf);

/// How Barman gets to its bucket, below a JSON pointer.
macro_rules! barman {
    ($at:literal) => {
        [
            rule(concat!($at, "/s3Credentials/accessKeyId/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/s3Credentials/secretAccessKey/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/s3Credentials/sessionToken/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/s3Credentials/region/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/azureCredentials/connectionString/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/azureCredentials/storageAccount/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/azureCredentials/storageKey/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/azureCredentials/storageSasToken/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/googleCredentials/applicationCredentials/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/endpointCA/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/endpointURL"), To::Host, RefKind::Names).optional(),
            rule(concat!($at, "/destinationPath"), To::Host, RefKind::Names).optional(),
        ]
    };
}

const BACKUP: [RefRule; 12] = barman!("/spec/backup/barmanObjectStore");
const EXTERNAL: [RefRule; 12] = barman!("/spec/externalClusters/*/barmanObjectStore");
static OBJECT_STORE: [RefRule; 12] = barman!("/spec/configuration");

const OWN: [RefRule; 29] = [
    // The operator makes it where none is named.
    rule("/spec/superuserSecret/name", SECRET, RefKind::Secret).optional(),
    rule("/spec/bootstrap/initdb/secret/name", SECRET, RefKind::Secret),
    rule(
        "/spec/bootstrap/initdb/postInitApplicationSQLRefs/configMapRefs/*/name",
        To::Here("", "ConfigMap"),
        RefKind::Config,
    ),
    rule("/spec/bootstrap/initdb/postInitApplicationSQLRefs/secretRefs/*/name", SECRET, RefKind::Secret),
    rule("/spec/bootstrap/recovery/secret/name", SECRET, RefKind::Secret),
    // What it was made from once.
    rule("/spec/bootstrap/recovery/backup/name", To::Here(GROUP, "Backup"), RefKind::Watches).optional(),
    rule(
        "/spec/bootstrap/recovery/volumeSnapshots/storage",
        To::Says("snapshot.storage.k8s.io", "VolumeSnapshot"),
        RefKind::Watches,
    )
    .optional(),
    rule("/spec/bootstrap/pg_basebackup/secret/name", SECRET, RefKind::Secret),
    rule("/spec/certificates/serverCASecret", SECRET, RefKind::Secret),
    rule("/spec/certificates/serverTLSSecret", SECRET, RefKind::Secret),
    rule("/spec/certificates/clientCASecret", SECRET, RefKind::Secret),
    rule("/spec/certificates/replicationTLSSecret", SECRET, RefKind::Secret),
    rule("/spec/externalClusters/*/password/name", SECRET, RefKind::Secret),
    rule("/spec/externalClusters/*/sslKey/name", SECRET, RefKind::Secret),
    rule("/spec/externalClusters/*/sslCert/name", SECRET, RefKind::Secret),
    rule("/spec/externalClusters/*/sslRootCert/name", SECRET, RefKind::Secret),
    rule("/spec/externalClusters/*/connectionParameters/host", To::Host, RefKind::Names).optional(),
    rule("/spec/storage/storageClass", STORAGE, RefKind::Class),
    rule("/spec/walStorage/storageClass", STORAGE, RefKind::Class),
    rule("/spec/tablespaces/*/storage/storageClass", STORAGE, RefKind::Class),
    rule("/spec/backup/volumeSnapshot/className", SNAPSHOTS, RefKind::Class),
    rule("/spec/backup/volumeSnapshot/walClassName", SNAPSHOTS, RefKind::Class),
    rule("/spec/imageCatalogRef", To::Says(GROUP, "ImageCatalog"), RefKind::Config),
    rule("/spec/managed/roles/*/passwordSecret/name", SECRET, RefKind::Secret),
    rule("/spec/monitoring/customQueriesConfigMap/*/name", To::Here("", "ConfigMap"), RefKind::Config),
    rule("/spec/monitoring/customQueriesSecret/*/name", SECRET, RefKind::Secret),
    rule("/spec/imagePullSecrets/*/name", SECRET, RefKind::Secret),
    rule("/spec/priorityClassName", To::Cluster("scheduling.k8s.io", "PriorityClass"), RefKind::Class),
    rule(
        "/spec/plugins/*/parameters/barmanObjectName",
        To::Here("barmancloud.cnpg.io", "ObjectStore"),
        RefKind::Config,
    ),
];

/// A Cluster's table is made of three.
static CLUSTER: [RefRule; 53] = {
    let mut all = [OWN[0]; 53];
    let mut at = 0;
    while at < 53 {
        all[at] = if at < 29 {
            OWN[at]
        } else if at < 41 {
            BACKUP[at - 29]
        } else {
            EXTERNAL[at - 41]
        };
        at += 1;
    }
    all
};

/// All kinds of CloudNativePG, and of its plugin for Barman.
pub static KINDS: &[KindInfo] = &[
    kind(GROUP, "Cluster", &CLUSTER),
    kind(GROUP, "ScheduledBackup", &[IN_CLUSTER]),
    KindInfo { keep: pointer, ..kind(GROUP, "Backup", &[IN_CLUSTER]) },
    kind(
        GROUP,
        "Pooler",
        &[
            IN_CLUSTER,
            rule("/spec/pgbouncer/authQuerySecret/name", SECRET, RefKind::Secret),
            rule("/spec/pgbouncer/serverTLSSecret/name", SECRET, RefKind::Secret),
        ],
    ),
    kind(GROUP, "Database", &[IN_CLUSTER]),
    kind(GROUP, "Publication", &[IN_CLUSTER]),
    kind(GROUP, "Subscription", &[IN_CLUSTER]),
    kind(GROUP, "ImageCatalog", &[]),
    cluster_kind(GROUP, "ClusterImageCatalog", &[]),
    kind("barmancloud.cnpg.io", "ObjectStore", &OBJECT_STORE),
];

fn pointer(_: &Object, _: Lookup<'_>) -> Keep {
    Keep::Evidence("it points at a backup of the old cluster, and restoring it would take another")
}
