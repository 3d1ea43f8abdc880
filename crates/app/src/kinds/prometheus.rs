//! The Prometheus operator: what is watched, by whom, and who is told. A monitor belongs to the Services it selects; who watches
//! monitors does not.

use super::custom::kind;
use super::{KindInfo, RefRule, To, Where, rule};
use crate::graph::RefKind;

const GROUP: &str = "monitoring.coreos.com";
const SECRET: To = To::Here("", "Secret");
const CONFIG: To = To::Here("", "ConfigMap");
const STORAGE: To = To::Cluster("storage.k8s.io", "StorageClass");

/// How somebody signs in somewhere and whom he trusts, below a JSON pointer.
macro_rules! sign_in {
    ($at:literal) => {
        [
            rule(concat!($at, "/basicAuth/username/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/basicAuth/password/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/authorization/credentials/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/bearerTokenSecret/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/oauth2/clientId/secret/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/oauth2/clientId/configMap/name"), CONFIG, RefKind::Config),
            rule(concat!($at, "/oauth2/clientSecret/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/tlsConfig/ca/secret/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/tlsConfig/ca/configMap/name"), CONFIG, RefKind::Config),
            rule(concat!($at, "/tlsConfig/cert/secret/name"), SECRET, RefKind::Secret),
            rule(concat!($at, "/tlsConfig/cert/configMap/name"), CONFIG, RefKind::Config),
            rule(concat!($at, "/tlsConfig/keySecret/name"), SECRET, RefKind::Secret),
        ]
    };
}

/// Two tables as one.
const fn join<const A: usize, const B: usize, const C: usize>(
    first: [RefRule; A],
    second: [RefRule; B],
) -> [RefRule; C] {
    let mut all = [first[0]; C];
    let mut at = 0;
    while at < C {
        all[at] = if at < A { first[at] } else { second[at - A] };
        at += 1;
    }
    all
}

const MONITORED: Where = Where::Beside("namespaceSelector");

static SERVICE_MONITOR: [RefRule; 13] = join(
    [rule("/spec/selector", To::Objects("", "Service", MONITORED), RefKind::Selects).optional()],
    sign_in!("/spec/endpoints/*"),
);
static POD_MONITOR: [RefRule; 13] = join(
    [rule("/spec/selector", To::Objects("", "Pod", MONITORED), RefKind::Selects).optional()],
    sign_in!("/spec/podMetricsEndpoints/*"),
);
static PROBE: [RefRule; 14] = join(
    [
        rule("/spec/prober/url", To::Host, RefKind::Names).optional(),
        rule(
            "/spec/targets/ingress/selector",
            To::Objects("networking.k8s.io", "Ingress", MONITORED),
            RefKind::Selects,
        )
        .optional(),
    ],
    sign_in!("/spec"),
);
static SCRAPE_CONFIG: [RefRule; 14] = join(
    [
        rule("/spec/staticConfigs/*/targets/*", To::Host, RefKind::Names).optional(),
        rule("/spec/httpSDConfigs/*/url", To::Host, RefKind::Names).optional(),
    ],
    sign_in!("/spec"),
);

/// What Prometheus, its agent, Alertmanager and the Thanos ruler share.
const SERVER: [RefRule; 9] = [
    rule("/spec/secrets/*", SECRET, RefKind::Secret),
    rule("/spec/configMaps/*", CONFIG, RefKind::Config),
    rule("/spec/storage/volumeClaimTemplate/spec/storageClassName", STORAGE, RefKind::Class),
    rule("/spec/storage/ephemeral/volumeClaimTemplate/spec/storageClassName", STORAGE, RefKind::Class),
    rule("/spec/web/tlsConfig/keySecret/name", SECRET, RefKind::Secret),
    rule("/spec/web/tlsConfig/cert/secret/name", SECRET, RefKind::Secret),
    rule("/spec/web/tlsConfig/cert/configMap/name", CONFIG, RefKind::Config),
    rule("/spec/web/tlsConfig/client_ca/secret/name", SECRET, RefKind::Secret),
    rule("/spec/web/tlsConfig/client_ca/configMap/name", CONFIG, RefKind::Config),
];

/// A selector for what is watched, and the field beside it that says in which namespaces.
macro_rules! watched {
    ($field:literal, $kind:literal, $namespaces:literal) => {
        rule(
            concat!("/spec/", $field),
            To::Objects(GROUP, $kind, Where::Beside($namespaces)),
            RefKind::Watches,
        )
        .optional()
    };
}

const SCRAPES: [RefRule; 12] = [
    watched!("serviceMonitorSelector", "ServiceMonitor", "serviceMonitorNamespaceSelector"),
    watched!("podMonitorSelector", "PodMonitor", "podMonitorNamespaceSelector"),
    watched!("probeSelector", "Probe", "probeNamespaceSelector"),
    watched!("scrapeConfigSelector", "ScrapeConfig", "scrapeConfigNamespaceSelector"),
    watched!("ruleSelector", "PrometheusRule", "ruleNamespaceSelector"),
    rule("/spec/additionalScrapeConfigs/name", SECRET, RefKind::Secret),
    rule("/spec/additionalAlertRelabelConfigs/name", SECRET, RefKind::Secret),
    rule("/spec/additionalAlertManagerConfigs/name", SECRET, RefKind::Secret),
    rule("/spec/alerting/alertmanagers/*", To::There("", "Service"), RefKind::Other),
    rule("/spec/thanos/objectStorageConfig/name", SECRET, RefKind::Secret),
    rule("/spec/remoteWrite/*/url", To::Host, RefKind::Names).optional(),
    rule("/spec/remoteRead/*/url", To::Host, RefKind::Names).optional(),
];

const PROMETHEUS: [RefRule; 21] = join(SERVER, SCRAPES);
static PROMETHEUS_AND_REMOTES: [RefRule; 45] = join::<21, 24, 45>(
    PROMETHEUS,
    join::<12, 12, 24>(sign_in!("/spec/remoteWrite/*"), sign_in!("/spec/remoteRead/*")),
);
static ALERTMANAGER: [RefRule; 12] = join(
    SERVER,
    [
        rule("/spec/configSecret", SECRET, RefKind::Secret).optional(),
        rule("/spec/alertmanagerConfiguration/name", To::Here(GROUP, "AlertmanagerConfig"), RefKind::Config),
        watched!("alertmanagerConfigSelector", "AlertmanagerConfig", "alertmanagerConfigNamespaceSelector"),
    ],
);
static THANOS: [RefRule; 15] = join(
    SERVER,
    [
        rule("/spec/objectStorageConfig/name", SECRET, RefKind::Secret),
        rule("/spec/queryConfig/name", SECRET, RefKind::Secret),
        rule("/spec/alertmanagersConfig/name", SECRET, RefKind::Secret),
        rule("/spec/queryEndpoints/*", To::Host, RefKind::Names).optional(),
        rule("/spec/alertmanagersUrl/*", To::Host, RefKind::Names).optional(),
        watched!("ruleSelector", "PrometheusRule", "ruleNamespaceSelector"),
    ],
);

/// Keys that receivers of alerts are reached with: `/spec/receivers/*/<list>/*/<field>/name`.
macro_rules! receiver {
    ($field:literal) => {
        rule(concat!("/spec/receivers/*/*/*/", $field, "/name"), SECRET, RefKind::Secret)
    };
}

/// An operator's server: parts of its spec are those of a pod.
const fn server(name: &'static str, refs: &'static [RefRule]) -> KindInfo {
    KindInfo { like_pods: &["/spec"], ..kind(GROUP, name, refs) }
}

/// All kinds of the Prometheus operator.
pub static KINDS: &[KindInfo] = &[
    kind(GROUP, "ServiceMonitor", &SERVICE_MONITOR),
    kind(GROUP, "PodMonitor", &POD_MONITOR),
    kind(GROUP, "Probe", &PROBE),
    kind(GROUP, "ScrapeConfig", &SCRAPE_CONFIG),
    kind(GROUP, "PrometheusRule", &[]),
    server("Prometheus", &PROMETHEUS_AND_REMOTES),
    server("PrometheusAgent", &PROMETHEUS_AND_REMOTES),
    server("Alertmanager", &ALERTMANAGER),
    server("ThanosRuler", &THANOS),
    kind(
        GROUP,
        "AlertmanagerConfig",
        &[
            receiver!("apiURL"),
            receiver!("apiKey"),
            receiver!("apiSecret"),
            receiver!("routingKey"),
            receiver!("serviceKey"),
            receiver!("urlSecret"),
            receiver!("userKey"),
            receiver!("token"),
            receiver!("botToken"),
            receiver!("authPassword"),
            receiver!("authSecret"),
            receiver!("webhookUrl"),
            rule("/spec/receivers/*/webhookConfigs/*/url", To::Host, RefKind::Names).optional(),
        ],
    ),
];
