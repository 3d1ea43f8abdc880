//! The operator, running: one of several replicas leads, and does the work for as long as it is sure that it does.
//!
//! Whoever leads lists and watches, starts the controllers and hands each change to those whom it concerns. When the lease is lost
//! everything ends at once: all requests go through the fence, so nothing that is still on its way in this process gets out. Whoever is
//! asked to stop ends the work first and gives the lease back then, so that another replica leads within seconds.

use std::sync::{Arc, Mutex};

use app::api::{ApiResources, Cluster};
use repo::{Env, LocalOptions};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::check::definitions;
use crate::clock::Clock;
use crate::controller::application::Applications;
use crate::controller::label::{self, Labels};
use crate::controller::policy::Policies;
use crate::controller::repository::Repositories;
use crate::controller::{
    self, APPLICATIONS, AT_ONCE, Controller, NAMESPACES, POINTS, POLICIES, REPOSITORIES, World,
};
use crate::lead::Election;
use crate::watch::{Change, Key, Watch};

/// What the Lease is called.
pub const LEASE: &str = "holdfast-operator";

/// How an operator runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its own namespace.
    pub namespace: String,
    /// What this replica is called: its pod.
    pub name: String,
    /// What this machine lends repositories.
    pub local: LocalOptions,
}

/// Why it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// It leads no longer. The process is to end, and to be started anew.
    Lost(String),
}

/// Runs until it is asked to stop or leads no longer.
///
/// # Errors
/// If there is no chance to be had for its name.
pub async fn run(
    client: kube::Client,
    clock: Clock,
    env: Env,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<Ended, repo::Error> {
    let mut stop = std::pin::pin!(stop);
    let mut dice = [0; 8];
    env.random(&mut dice)?;
    // No other process ever has this name, not even this pod's next one.
    let me = format!("{}_{:016x}", options.name, u64::from_le_bytes(dice));
    let election = Election::new(client.clone(), clock.clone(), &options.namespace, LEASE, &me);
    let mut leading = tokio::select! {
        leading = election.win() => leading,
        () = &mut stop => return Ok(Ended::Stopped),
    };
    tracing::info!("{me} leads, term {}", leading.term);
    let fenced = leading.fence.client(&client);
    let why = tokio::select! {
        why = election.keep(&mut leading) => Some(why),
        () = &mut stop => None,
        why = work(fenced, clock, env, options) => Some(why),
    };
    // What was under way ended with the select.
    match why {
        Some(why) => {
            leading.fence.shut();
            Ok(Ended::Lost(why))
        }
        None => {
            if let Err(error) = election.release(leading).await {
                tracing::warn!("the lease was not given back, and ends by itself: {error}");
            }
            Ok(Ended::Stopped)
        }
    }
}

/// Whom a controller looks after, and how it is told.
struct Route {
    wakes: fn(&World, &Change) -> Vec<Key>,
    keys: mpsc::UnboundedSender<Key>,
}

/// Does the work, until it is dropped.
async fn work(client: kube::Client, clock: Clock, env: Env, options: Options) -> String {
    let cluster = Cluster { client: client.clone(), resources: ApiResources::default() };
    let labelled = match label::workloads(&cluster).await {
        Ok(labelled) => labelled,
        Err(error) => return error.to_string(),
    };
    let watched = |kind| Arc::new(Watch::new(kind));
    let watches = [REPOSITORIES, POLICIES, APPLICATIONS, POINTS, NAMESPACES].map(watched);
    let labelled = labelled.map(watched);
    let (tell, mut changes) = mpsc::unbounded_channel();
    // They end when this future is dropped.
    let mut tasks = JoinSet::new();
    for watch in watches.iter().chain(&labelled) {
        let (watch, client, clock, tell) = (watch.clone(), client.clone(), clock.clone(), tell.clone());
        tasks.spawn(async move { watch.run(client, clock, tell).await });
    }
    // What is not listed yet would be taken for missing.
    for watch in watches.iter().chain(&labelled) {
        let mut listed = watch.listed.subscribe();
        if listed.wait_for(|listed| *listed).await.is_err() {
            return format!("the watch of {} ended", watch.kind.plural);
        }
    }
    let [repositories, policies, applications, points, namespaces] = watches.map(|watch| watch.known.clone());
    let world = Arc::new(World {
        cluster,
        clock,
        env,
        namespace: options.namespace,
        instance: options.name,
        definitions: definitions(),
        repositories,
        policies,
        applications,
        points,
        namespaces,
        workloads: labelled.iter().map(|watch| (watch.kind.clone(), watch.known.clone())).collect(),
        checked: Mutex::default(),
    });
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let routes = [
        start(Policies, &world, &at_once, &mut tasks),
        start(Repositories { local: options.local }, &world, &at_once, &mut tasks),
        start(Labels, &world, &at_once, &mut tasks),
        start(Applications, &world, &at_once, &mut tasks),
    ];
    while let Some(change) = changes.recv().await {
        for route in &routes {
            for key in (route.wakes)(&world, &change) {
                if route.keys.send(key).is_err() {
                    return "a controller ended".into();
                }
            }
        }
    }
    "all watches ended".into()
}

fn start<C: Controller>(
    controller: C,
    world: &Arc<World>,
    at_once: &Arc<Semaphore>,
    tasks: &mut JoinSet<()>,
) -> Route {
    let (keys, woken) = mpsc::unbounded_channel();
    tasks.spawn(controller::run(Arc::new(controller), world.clone(), woken, at_once.clone()));
    Route { wakes: C::wakes, keys }
}
