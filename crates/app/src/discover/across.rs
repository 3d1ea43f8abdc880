//! What lies between clusters: a host that one names and another answers, and what both use: the same database or bucket outside of
//! them, the same storage, the same content of a Secret.
//!
//! No cluster says by itself that another one exists. So each is read as if it were alone, what of it reaches beyond is noted,
//! and only then are the notes laid beside each other.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use serde::Serialize;
use serde_json::Value;

use super::{Application, Discovered};
use crate::api::Cluster;
use crate::error::Error;
use crate::kinds::Keep;
use crate::object::{Object, ObjectKey};
use crate::world::World;

/// What of a cluster reaches beyond it.
#[derive(Clone, Debug, Default)]
pub struct Outward {
    /// The UID of its namespace `kube-system`, which no other has; empty if that may not be read.
    pub cluster: String,
    /// Names and addresses under which something of it answers from outside.
    answers: BTreeMap<String, ObjectKey>,
    /// Storage that is not its own, and the claim (or else the volume) that has it.
    storage: BTreeMap<String, ObjectKey>,
    /// What Secrets and ConfigMaps hold, as a hash that is kept nowhere.
    contents: BTreeMap<(String, u64, usize), Vec<ObjectKey>>,
}

/// A cluster that was read.
#[derive(Clone, Copy, Debug)]
pub struct Sighted<'a> {
    /// What people call it.
    pub name: &'a str,
    /// What is in it.
    pub found: &'a Discovered,
    /// What of it reaches beyond.
    pub outward: &'a Outward,
}

/// How clusters hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bond {
    /// The first names a host that the second answers.
    Reaches,
    /// Each names the same thing outside of them.
    Outside,
    /// Each has a volume on the same storage.
    Storage,
    /// Each has an object with the same content.
    Content,
}

/// One object that has a part in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct End {
    /// The cluster.
    pub cluster: String,
    /// The application, as `namespace/name`; empty if it is of none.
    pub application: String,
    /// The object.
    pub object: ObjectKey,
}

/// Something that lies between clusters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Between {
    /// What kind of thing.
    pub bond: Bond,
    /// The host, database, storage or kind of content.
    pub name: String,
    /// Who has a part in it; of [`Bond::Reaches`] who names first, then who answers.
    pub ends: Vec<End>,
}

impl Between {
    /// One line for people.
    pub fn words(&self) -> String {
        let end = |end: &End| {
            let whose =
                if end.application.is_empty() { String::new() } else { format!(" ({})", end.application) };
            format!("{} {}{whose}", end.cluster, end.object)
        };
        let all = || self.ends.iter().map(end).collect::<Vec<_>>().join(", ");
        match (self.bond, self.ends.as_slice()) {
            (Bond::Reaches, [from, to]) => {
                format!("{} reaches {} as {}", end(from), end(to), self.name)
            }
            (Bond::Reaches, _) => format!("reached as {}: {}", self.name, all()),
            (Bond::Outside, _) => format!("both use {}: {}", self.name, all()),
            (Bond::Storage, _) => format!("on the same storage, {}: {}", self.name, all()),
            (Bond::Content, _) => format!("{} of the same content: {}", self.name, all()),
        }
    }
}

/// Reads a cluster as [`super::discover`] does, and what of it reaches beyond.
///
/// # Errors
/// If the cluster does not answer, or nothing of it may be read.
pub async fn discover_outward(
    cluster: &Cluster,
    namespaces: &[String],
) -> Result<(Discovered, Outward), Error> {
    let (world, found) = super::read(cluster, namespaces).await?;
    let mut outward = Outward::of(&world);
    if let Some(resource) = cluster.resources.find("", "Namespace")
        && let Ok(Some(system)) = cluster.get(resource, "", "kube-system").await
    {
        outward.cluster = system.uid().to_owned();
    }
    Ok((found, outward))
}

/// Where a host or an address stands by which an object can be reached from outside.
const ANSWERS: &[(&str, &str, &[&str])] = &[
    ("networking.k8s.io", "Ingress", &["/spec/rules/*/host"]),
    ("route.openshift.io", "Route", &["/spec/host"]),
    ("gateway.networking.k8s.io", "HTTPRoute", &["/spec/hostnames/*"]),
    ("gateway.networking.k8s.io", "GRPCRoute", &["/spec/hostnames/*"]),
    ("gateway.networking.k8s.io", "TLSRoute", &["/spec/hostnames/*"]),
    ("gateway.networking.k8s.io", "Gateway", &["/spec/listeners/*/hostname", "/status/addresses/*/value"]),
    (
        "",
        "Service",
        &[
            "/status/loadBalancer/ingress/*/hostname",
            "/status/loadBalancer/ingress/*/ip",
            "/spec/externalIPs/*",
        ],
    ),
];

/// Who says in an annotation which names shall lead to it.
const DNS: &str = "external-dns.alpha.kubernetes.io/hostname";

/// Where a volume says what it lies on, and in which words that is told.
const STORAGE: &[(&str, &[&str])] = &[
    ("csi", &["driver", "volumeHandle"]),
    ("nfs", &["server", "path"]),
    ("cephfs", &["monitors", "path"]),
    ("rbd", &["monitors", "pool", "image"]),
    ("iscsi", &["targetPortal", "iqn", "lun"]),
    ("fc", &["targetWWNs", "wwids", "lun"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("gcePersistentDisk", &["pdName"]),
    ("azureDisk", &["diskURI"]),
    ("azureFile", &["secretNamespace", "secretName", "shareName"]),
];

/// Content that is shorter is the same by chance.
const CONTENT_BYTES_MIN: usize = 24;

impl Outward {
    fn of(world: &World) -> Outward {
        let mut outward = Outward::default();
        for (group, kind, places) in ANSWERS {
            for (key, seen) in world.of_kind(group, kind) {
                let object = seen.object.open();
                let told =
                    object.annotation(DNS).into_iter().flat_map(|names| names.split(',')).map(str::trim);
                let hosts = places.iter().flat_map(|place| crate::resolve::texts(&object.0, place));
                for host in hosts.chain(told).filter(|host| !host.is_empty()) {
                    outward.answers.entry(host.to_lowercase()).or_insert_with(|| key.clone());
                }
            }
        }
        for (key, seen) in world.of_kind("", "PersistentVolume") {
            let volume = seen.object.open();
            let claim = |field: &str| volume.str(&format!("/spec/claimRef/{field}"));
            let claim = ObjectKey::new("", "PersistentVolumeClaim", claim("namespace"), claim("name"));
            if let Some(name) = storage(&volume) {
                let key = if claim.name.is_empty() { key.clone() } else { claim };
                outward.storage.entry(name).or_insert(key);
            }
        }
        for kind in ["ConfigMap", "Secret"] {
            for (key, seen) in world.of_kind("", kind) {
                let object = seen.object.open();
                let own = matches!(
                    object.str("/type"),
                    "kubernetes.io/service-account-token" | "helm.sh/release.v1"
                );
                if let Some((hash, bytes)) = content(&object).filter(|_| !own)
                    && matches!(world.keep(seen), Keep::Yes)
                {
                    outward.contents.entry((kind.to_owned(), hash, bytes)).or_default().push(key.clone());
                }
            }
        }
        outward
    }

    /// What answers a host: by its name, or by a name for all below one.
    fn behind(&self, host: &str) -> Option<&ObjectKey> {
        let below = || self.answers.get(&format!("*.{}", host.split_once('.')?.1));
        self.answers.get(host).or_else(below)
    }
}

/// What a volume lies on outside of its cluster, in words.
fn storage(volume: &Object) -> Option<String> {
    let spec = volume.at("/spec")?;
    STORAGE.iter().find_map(|(kind, fields)| {
        let source = spec.get(*kind)?;
        let parts = fields.iter().filter_map(|field| match source.get(*field)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        });
        Some(format!("{kind} {}", parts.collect::<Vec<_>>().join(" ")))
    })
}

/// A hash of what it holds, and how much that is.
fn content(object: &Object) -> Option<(u64, usize)> {
    let parts = ["/data", "/binaryData"].map(|at| object.at(at).map(Value::to_string).unwrap_or_default());
    let bytes = parts.iter().map(String::len).sum();
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    (bytes >= CONTENT_BYTES_MIN).then(|| (hasher.finish(), bytes))
}

/// The hosts of something outside as it is told: `postgres://a:1,b:2/x` has two.
fn hosts(name: &str) -> impl Iterator<Item = &str> {
    let rest = name.split_once("://").map_or(name, |(_, rest)| rest);
    rest.split('/').next().unwrap_or("").split(',').map(|host| match host.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => host,
    })
}

/// What lies between these clusters, each thing once.
pub fn between(clusters: &[Sighted<'_>]) -> Vec<Between> {
    let mut all = BTreeSet::new();
    let owners: Vec<BTreeMap<&ObjectKey, &Application>> = clusters
        .iter()
        .map(|cluster| {
            let applications = cluster.found.applications.iter();
            applications.flat_map(|app| app.parts.iter().map(move |part| (part, app))).collect()
        })
        .collect();
    let end = |at: usize, object: &ObjectKey| End {
        cluster: clusters.get(at).map(|c| c.name.to_owned()).unwrap_or_default(),
        application: owners
            .get(at)
            .and_then(|o| o.get(object))
            .map(|app| app.full_name())
            .unwrap_or_default(),
        object: object.clone(),
    };
    let mut outside: BTreeMap<String, BTreeSet<(usize, &ObjectKey)>> = BTreeMap::new();
    let mut storage: BTreeMap<&str, BTreeSet<(usize, &ObjectKey)>> = BTreeMap::new();
    let mut contents: BTreeMap<_, BTreeSet<(usize, &ObjectKey)>> = BTreeMap::new();
    for (at, cluster) in clusters.iter().enumerate() {
        for external in cluster.found.applications.iter().flat_map(|app| &app.external) {
            let answered = hosts(&external.name).flat_map(|host| {
                let host = host.to_lowercase();
                let others = clusters.iter().enumerate().filter(move |(other, _)| *other != at);
                others.filter_map(move |(other, there)| {
                    Some((other, there.outward.behind(&host)?.clone(), host.clone()))
                })
            });
            let mut is_answered = false;
            for (other, object, host) in answered {
                is_answered = true;
                let ends = vec![end(at, &external.from), end(other, &object)];
                all.insert(Between { bond: Bond::Reaches, name: host, ends });
            }
            if !is_answered {
                outside.entry(external.words()).or_default().insert((at, &external.from));
            }
        }
        for (name, object) in &cluster.outward.storage {
            storage.entry(name).or_default().insert((at, object));
        }
        for (content, objects) in &cluster.outward.contents {
            contents.entry(content).or_default().extend(objects.iter().map(|object| (at, object)));
        }
    }
    let is_between = |users: &BTreeSet<(usize, &ObjectKey)>| {
        users.iter().map(|(at, _)| at).collect::<BTreeSet<_>>().len() > 1
    };
    let mut add = |bond: Bond, name: &str, users: &BTreeSet<(usize, &ObjectKey)>| {
        if is_between(users) {
            let ends = users.iter().map(|(at, object)| end(*at, object)).collect();
            all.insert(Between { bond, name: name.to_owned(), ends });
        }
    };
    outside.iter().for_each(|(name, users)| add(Bond::Outside, name, users));
    storage.iter().for_each(|(name, users)| add(Bond::Storage, name, users));
    contents.iter().for_each(|((kind, ..), users)| add(Bond::Content, kind, users));
    all.into_iter().collect()
}
