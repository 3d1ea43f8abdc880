//! Which applications there are: found from what people and tools write on objects, and from what hangs together.
//!
//! An object says itself whose it is: `app.kubernetes.io/part-of`, a GitOps or Helm mark, `…/instance`, or the plain label
//! `app`. What says nothing belongs to whoever owns or uses it: what a custom resource made runs under its name, and
//! workloads that nobody claims are applications by themselves, together with those they hang together with.
//! The same name in two namespaces is two applications, unless they need each other. The page is `docs/applications.md`.

mod across;
mod between;
mod group;
mod word;

use std::collections::{BTreeMap, BTreeSet};

use repo::Finding;
use serde::Serialize;

use crate::api::Cluster;
use crate::certificate::External;
use crate::error::Error;
use crate::kinds::Keep;
use crate::object::ObjectKey;
use crate::resolve::{self, References};
use crate::world::{self, World};

pub use across::{Between, Bond, End, Outward, Sighted, between, discover_outward};
pub use group::group;
pub(crate) use word::{is_released_into, own_word};

/// One application as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Its namespace; the first, if it has several.
    pub namespace: String,
    /// All its namespaces.
    pub namespaces: Vec<String>,
    /// What it was found by: `app.kubernetes.io/instance`, `helm`, `operator`, `references`.
    pub by: String,
    /// What says itself that it belongs to it, or hangs together with that.
    pub parts: Vec<ObjectKey>,
    /// Those of its parts that run.
    pub workloads: Vec<ObjectKey>,
    /// Its claims.
    pub volumes: Vec<ClaimSummary>,
    /// What other applications use as well.
    pub shared: Vec<ObjectKey>,
    /// What it uses of other applications.
    pub needs: Vec<Need>,
    /// What it names outside of the cluster.
    pub external: Vec<External>,
    /// Data that no recovery point has, in words: volumes that are no claims, buckets, databases elsewhere.
    pub unprotected: Vec<String>,
}

impl Application {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespaces.join("+"), self.name)
    }
}

/// Something of another application that one uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Need {
    /// Whose it is, as `namespace/name`.
    pub application: String,
    /// What is used.
    pub to: ObjectKey,
    /// By what.
    pub from: ObjectKey,
    /// Where that stands.
    pub at: String,
}

/// An object that several applications use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// The object.
    pub object: ObjectKey,
    /// Who uses it, as `namespace/name`.
    pub used_by: Vec<String>,
}

/// A claim, for lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimSummary {
    /// Its name.
    pub claim: String,
    /// Its class.
    pub storage_class: String,
    /// Its size as asked for: `10Gi`.
    pub size: String,
    /// Its volume, if it is bound.
    pub volume: String,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Discovered {
    /// The applications, by namespace and name.
    pub applications: Vec<Application>,
    /// What several of them use, within and across namespaces, and outside of any.
    pub shared: Vec<Shared>,
    /// What belongs to no application; a backup of its namespace has it.
    pub unclaimed: Vec<ObjectKey>,
    /// What was found on the way.
    pub findings: Vec<Finding>,
    /// Every reference of every object.
    #[serde(skip)]
    pub references: References,
    /// What was seen.
    #[serde(skip)]
    pub objects: BTreeMap<ObjectKey, Seen>,
}

/// What a drawing has to know of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its controller makes it.
    pub is_made: bool,
    /// It is somebody's, not what every cluster makes.
    pub is_kept: bool,
}

/// Reads namespaces (all but Kubernetes' own, if none is named) and finds the applications in them.
pub async fn discover(cluster: &Cluster, namespaces: &[String]) -> Result<Discovered, Error> {
    read(cluster, namespaces).await.map(|(_, found)| found)
}

/// The same, with all that was seen.
async fn read(cluster: &Cluster, namespaces: &[String]) -> Result<(World, Discovered), Error> {
    let namespaces = world::namespaces(cluster, namespaces).await?;
    let mut world = world::observe(cluster, &namespaces).await?;
    let references = resolve::references(&world);
    let applications = group(&world, &references);
    let shared = between::shared(&applications, &references);
    let objects: BTreeMap<ObjectKey, Seen> = world
        .objects
        .iter()
        .map(|(key, seen)| {
            let is_kept = !matches!(world.keep(seen), Keep::No(_));
            (key.clone(), Seen { is_made: seen.controller().is_some(), is_kept })
        })
        .collect();
    let claimed: BTreeSet<&ObjectKey> =
        applications.iter().flat_map(|a| a.parts.iter().chain(&a.shared)).collect();
    let unclaimed = objects
        .iter()
        .filter(|(key, seen)| !key.namespace.is_empty() && seen.is_kept && !claimed.contains(key))
        .map(|(key, _)| key.clone())
        .collect();
    let findings = std::mem::take(&mut world.findings);
    let found = Discovered { applications, shared, unclaimed, findings, references, objects };
    Ok((world, found))
}
