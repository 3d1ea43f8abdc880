//! A recovery point as a Kubernetes API that can only be read: `kubectl get`, `describe`, `diff`, k9s, scripts.
//!
//! It serves the objects as they were, status and timestamps included; what a restore would change is not
//! applied. Kinds, versions, descriptions and columns are those of the point's own cluster, as far as the point has
//! them; a point of before they were captured is served with those of this program.

use std::collections::BTreeMap;
use std::sync::Arc;

use apiserver::{ApiServer, Options, Resource, Served};
use bytes::Bytes;
use repo::{Env, Finding, Outcome};

use crate::api::ApiResources;
use crate::captured::Printed;
use crate::point::{Contents, Point, PointMeta};

/// What a cluster said of its API, as a point holds it.
#[derive(Debug, Default)]
pub struct Api {
    /// OpenAPI documents by path.
    pub documents: BTreeMap<String, Bytes>,
    /// Rows of kinds only the cluster could print.
    pub tables: Vec<Printed>,
}

/// The server of a point in memory, and what of the point could not be placed in it.
pub fn server(point: &Point, api: Api, env: &Env) -> Outcome<ApiServer> {
    let server = empty(&point.meta, &point.discovery, api, env);
    let refused = server.load(point.objects.iter().map(|stored| stored.original.open().0));
    Outcome { done: server, findings: not_shown(refused) }
}

/// The same, of a point in its repository: what the server does not need is never in memory.
///
/// # Errors
/// If a part of the point cannot be read.
pub fn from_repository(contents: &Contents<'_>, env: &Env) -> Result<Outcome<ApiServer>, repo::Error> {
    let server = empty(&contents.meta()?, &contents.discovery()?, contents.api()?, env);
    let mut failed = None;
    let objects = contents.originals()?.map_while(|object| object.map_err(|error| failed = Some(error)).ok());
    let refused = server.load(objects);
    match failed {
        Some(error) => Err(error),
        None => Ok(Outcome { done: server, findings: not_shown(refused) }),
    }
}

fn empty(meta: &PointMeta, discovery: &ApiResources, api: Api, env: &Env) -> ApiServer {
    let mut options = options(env).read_only();
    if !meta.cluster.version.is_empty() {
        options.version = meta.cluster.version.clone();
    }
    let server = ApiServer::new(options);
    server.serve_as(served(discovery, api));
    server
}

fn not_shown(refused: Vec<String>) -> Vec<Finding> {
    refused.into_iter().map(|why| Finding::warning("not-shown", "browse", why)).collect()
}

/// A server with our clock and our dice.
pub(crate) fn options(env: &Env) -> Options {
    let (clock, dice) = (env.clone(), env.clone());
    let entropy = move || {
        let mut bytes = [0; 8];
        // Dice that fail give the same names twice: in a server of one process that only shows or rehearses, a
        // second object of that name is refused, and that is told.
        match dice.random(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => 0,
        }
    };
    Options::new(Arc::new(move || clock.now()), Arc::new(entropy))
}

/// What a point's cluster served, in the words of the server that stands for it.
pub(crate) fn served(discovery: &ApiResources, api: Api) -> Served {
    let resources = discovery
        .types
        .iter()
        .map(|of| Resource {
            group: of.group.clone(),
            version: of.version.clone(),
            kind: of.kind.clone(),
            plural: of.plural.clone(),
            singular: of.singular.clone(),
            namespaced: of.namespaced,
            short_names: of.short_names.clone(),
            categories: of.categories.clone(),
            verbs: of.verbs.clone(),
            subresources: of.subresources.clone(),
        })
        .collect();
    let printed = api.tables.into_iter().map(|table| {
        let rows = table.rows.into_iter().map(|row| ((row.namespace, row.name), row.cells)).collect();
        ((table.group, table.plural), apiserver::Printed { columns: table.columns, rows })
    });
    Served {
        resources,
        unavailable: discovery.broken.iter().map(|broken| broken.group_version.clone()).collect(),
        documents: api.documents,
        printed: printed.collect(),
    }
}
