//! Who of several replicas does the work: leader election on a Lease, with a term that fences (docs/operator.md).
//!
//! **Who waits** goes by a steady clock of its own: a Lease that has not changed for as long as it lasts, since it was first seen
//! like that, is over (one that is not there may just have been deleted: the same). What time others wrote into it does not
//! matter, so no clock of another machine does.
//! **Who holds it** stops earlier: ten seconds after the last renewal was *sent*, by whichever of its clocks ran further (a machine
//! that slept finds the wall ahead). From then on the [`Fence`] lets no request out, for good, and the process ends.
//! **The term** is the Lease's `leaseTransitions`. Each new holder's is greater than all before, which agents and whoever else is told
//! it can tell one leader from its successor by. A Lease that was deleted and made anew begins above what any could have counted to, by the
//! API server's clock.
//!
//! What to do is decided by [`Candidate::next`], which is pure; [`Election`] reads and writes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use app::api::{ApiError, ApiResources, Cluster};
use http::Method;
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};
use tower::BoxError;

use crate::clock::{Clock, Reading};
use crate::status::read_instant;

/// How long a Lease counts after it was last renewed.
pub const LASTS: Duration = Duration::from_secs(15);
/// How often it is renewed.
pub const RENEWED_EVERY: Duration = Duration::from_secs(5);
/// How long after the last renewal its holder acts at most. What is on its way then has the rest of [`LASTS`].
pub const ACTS_FOR: Duration = Duration::from_secs(10);
/// How long is waited before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often somebody who waits looks.
const LOOKS_EVERY: Duration = Duration::from_secs(2);
/// A Lease of others that says it lasts for hours is not waited for.
const LASTS_MAX: Duration = Duration::from_secs(300);

/// What stands in a Lease, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// Of which term.
    pub term: u64,
    /// How long it counts after a renewal.
    pub lasts: Duration,
    /// The version of the object.
    pub version: String,
    /// When it was made, by the API server's clock: the least term of its first holder ([`least_term`]).
    pub made: u64,
}

impl Record {
    fn read(lease: &Value) -> Record {
        let spec = &lease["spec"];
        let seconds = spec["leaseDurationSeconds"].as_u64().unwrap_or(LASTS.as_secs());
        Record {
            holder: spec["holderIdentity"].as_str().unwrap_or_default().into(),
            term: spec["leaseTransitions"].as_u64().unwrap_or(0),
            lasts: Duration::from_secs(seconds).clamp(Duration::from_secs(1), LASTS_MAX),
            version: lease["metadata"]["resourceVersion"].as_str().unwrap_or_default().into(),
            made: read_instant(lease["metadata"]["creationTimestamp"].as_str()).map_or(0, least_term),
        }
    }
}

/// What a replica that would lead is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Make the Lease, which nobody holds then, and look again.
    Make,
    /// Take it, in the version that was read.
    Take {
        /// Of which term it is then.
        term: u64,
    },
    /// Look again then.
    Wait(Duration),
}

/// One that would lead.
#[derive(Debug, Clone)]
pub struct Candidate {
    me: String,
    /// What was read last (none: there was no Lease), and when it was first read like that.
    seen: Option<(Option<Record>, Duration)>,
    /// When it was read last.
    looked: Duration,
    /// The greatest term that was seen.
    term: u64,
}

impl Candidate {
    /// By a name that no other process ever has.
    pub fn new(me: &str) -> Candidate {
        Candidate { me: me.into(), seen: None, looked: Duration::ZERO, term: 0 }
    }

    /// What to do, now that the Lease was read.
    pub fn next(&mut self, found: Option<&Record>, now: Reading) -> Next {
        // Who has slept does not know whether one that is not there was there meanwhile. One that is there has another version then.
        let slept = found.is_none() && now.steady.saturating_sub(self.looked) > LOOKS_EVERY * 2;
        let since = match &self.seen {
            Some((seen, since)) if seen.as_ref() == found && !slept => *since,
            _ => now.steady,
        };
        self.looked = now.steady;
        self.seen = Some((found.cloned(), since));
        // One that is not there was perhaps deleted a moment ago, and whoever held it acts until it would renew it.
        let over = since + found.map_or(LASTS, |found| found.lasts);
        self.term = self.term.max(found.map_or(0, |found| found.term));
        match found {
            // It was written, and the answer was lost. Nobody has taken it since.
            Some(found) if found.holder == self.me => Next::Take { term: found.term },
            Some(found) if found.holder.is_empty() || now.steady >= over => {
                Next::Take { term: found.made.max(self.term + 1) }
            }
            None if now.steady >= over => Next::Make,
            _ => Next::Wait((over - now.steady).min(LOOKS_EVERY)),
        }
    }
}

/// The least term of a Lease that was made then: one for each quarter of a minute since 1970. Nobody takes a Lease more often than that
/// for long, so one that was deleted and made anew begins above all terms before, also for who has not seen them.
fn least_term(made: Timestamp) -> u64 {
    u64::try_from(made.as_second()).unwrap_or(0) / LASTS.as_secs()
}

/// Lets requests out for as long as its holder leads, and never again after that.
#[derive(Clone)]
pub struct Fence {
    /// When the last renewal was sent that succeeded; none: shut.
    sent: Arc<Mutex<Option<Reading>>>,
    clock: Clock,
}

impl Fence {
    fn new(clock: Clock, sent: Reading) -> Fence {
        Fence { sent: Arc::new(Mutex::new(Some(sent))), clock }
    }

    /// May its holder act?
    pub fn is_open(&self) -> bool {
        !self.left().is_zero()
    }

    /// How long its holder may act yet, if nothing is renewed. Once that is nothing it stays so.
    fn left(&self) -> Duration {
        let mut sent = self.lock();
        let now = self.clock.read();
        let left = sent.map_or(Duration::ZERO, |sent| ACTS_FOR.saturating_sub(now.at_most_since(&sent)));
        if left.is_zero() {
            *sent = None;
        }
        left
    }

    /// Shuts it.
    pub fn shut(&self) {
        *self.lock() = None;
    }

    /// A renewal that was sent then has succeeded. What is shut stays shut.
    fn renewed(&self, at: Reading) {
        if !self.left().is_zero() {
            *self.lock() = Some(at);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Reading>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client, with this fence in front of each request.
    pub fn client(&self, inner: &kube::Client) -> kube::Client {
        let (inner, fence) = (inner.clone(), self.clone());
        let namespace = inner.default_namespace().to_owned();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (inner, fence) = (inner.clone(), fence.clone());
            async move {
                if !fence.is_open() {
                    return Err(BoxError::from(NotLeading));
                }
                inner.send(request).await.map_err(BoxError::from)
            }
        });
        kube::Client::new(service, namespace)
    }
}

/// Why a request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this replica leads no longer, or cannot be sure of it; the one that does goes on with the work")]
pub struct NotLeading;

/// One that leads.
pub struct Leading {
    /// Of which term.
    pub term: u64,
    /// For its requests.
    pub fence: Fence,
    lease: Value,
}

/// The Lease, and who would hold it.
pub struct Election {
    cluster: Cluster,
    clock: Clock,
    namespace: String,
    name: String,
    me: String,
}

impl Election {
    /// For a Lease of this namespace and name. `me` is a name that no other process ever has.
    pub fn new(client: kube::Client, clock: Clock, namespace: &str, name: &str, me: &str) -> Election {
        let cluster = Cluster { client, resources: ApiResources::default() };
        Election { cluster, clock, namespace: namespace.into(), name: name.into(), me: me.into() }
    }

    /// Waits until this process leads.
    pub async fn win(&self) -> Leading {
        let mut candidate = Candidate::new(&self.me);
        let mut told = String::new();
        loop {
            match self.attempt(&mut candidate).await {
                Ok(Ok(leading)) => return leading,
                Ok(Err(pause)) => self.clock.sleep(pause).await,
                Err(error) => {
                    // The same words once: this may go on for hours.
                    if error.to_string() != told {
                        told = error.to_string();
                        tracing::warn!("cannot become leader: {told}");
                    }
                    self.clock.sleep(AGAIN).await;
                }
            }
        }
    }

    /// Looks, and takes the Lease if it may: then it leads, else it is told how long to wait.
    async fn attempt(&self, candidate: &mut Candidate) -> Result<Result<Leading, Duration>, ApiError> {
        let found = match self.cluster.get_path(&self.path()).await {
            Ok(lease) => Some(lease),
            Err(ApiError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let now = self.clock.read();
        let next = candidate.next(found.as_ref().map(Record::read).as_ref(), now);
        let (term, written) = match (next, found) {
            (Next::Wait(pause), _) => return Ok(Err(pause)),
            (Next::Take { term }, Some(lease)) => (term, self.put(&self.held(lease, term, true, now)).await),
            (Next::Make | Next::Take { .. }, _) => {
                let made = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": self.namespace}, "spec": {"leaseTransitions": 0}});
                let path = format!("{}/leases", self.namespace_path());
                return match self.cluster.json(Method::POST, &path, "application/json", Some(&made)).await {
                    Ok(_) | Err(ApiError::Conflict { .. }) => Ok(Err(Duration::ZERO)),
                    Err(error) => Err(error),
                };
            }
        };
        match written {
            Ok(lease) => Ok(Ok(Leading { term, fence: Fence::new(self.clock.clone(), now), lease })),
            // Another was faster.
            Err(ApiError::Conflict { .. }) => Ok(Err(AGAIN)),
            Err(error) => Err(error),
        }
    }

    /// Renews until this process leads no longer, and says why. The fence is shut then.
    pub async fn keep(&self, leading: &mut Leading) -> String {
        let why = loop {
            let left = leading.fence.left();
            if left.is_zero() {
                break format!("the lease could not be renewed for {} s", ACTS_FOR.as_secs());
            }
            let pause = match self.renew(leading, left).await {
                Ok(()) => RENEWED_EVERY,
                Err(Kept::Lost(why)) => break why,
                Err(Kept::Perhaps(why)) => {
                    tracing::warn!("the lease was not renewed: {why}");
                    AGAIN
                }
            };
            // A clock may leap meanwhile: it is looked at each second.
            let until = self.clock.read().steady + pause;
            while leading.fence.is_open() {
                let left = until.saturating_sub(self.clock.read().steady);
                if left.is_zero() {
                    break;
                }
                self.clock.sleep(left.min(AGAIN)).await;
            }
        };
        leading.fence.shut();
        why
    }

    async fn renew(&self, leading: &mut Leading, left: Duration) -> Result<(), Kept> {
        let sent = self.clock.read();
        let lease = self.held(leading.lease.clone(), leading.term, false, sent);
        // An answer that comes when it no longer counts is not waited for.
        let answer = tokio::select! {
            answer = self.put(&lease) => answer,
            () = self.clock.sleep(left) => return Err(Kept::Perhaps("no answer in time".into())),
        };
        match answer {
            Ok(lease) => {
                leading.lease = lease;
                leading.fence.renewed(sent);
                Ok(())
            }
            // Somebody else changed it: an administrator a label, or another replica the holder.
            Err(ApiError::Conflict { .. }) => {
                let found = self.cluster.get_path(&self.path()).await.map_err(Kept::of)?;
                let record = Record::read(&found);
                if record.holder == self.me && record.term == leading.term {
                    leading.lease = found;
                    return Err(Kept::Perhaps("somebody else changed its object; it is read anew".into()));
                }
                Err(Kept::Lost(format!("{} holds the lease, of term {}", record.holder, record.term)))
            }
            Err(error) => Err(Kept::of(error)),
        }
    }

    /// Gives the Lease back, when nothing is under way any more, so that another replica need not wait for its end.
    pub async fn release(&self, leading: Leading) -> Result<(), ApiError> {
        leading.fence.shut();
        let mut lease = self.held(leading.lease, leading.term, false, self.clock.read());
        lease["spec"]["holderIdentity"] = json!("");
        self.put(&lease).await.map(drop)
    }

    fn held(&self, mut lease: Value, term: u64, anew: bool, now: Reading) -> Value {
        let time = now.wall.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        if anew {
            lease["spec"]["acquireTime"] = json!(time);
        }
        lease["spec"]["holderIdentity"] = json!(self.me);
        lease["spec"]["leaseDurationSeconds"] = json!(LASTS.as_secs());
        lease["spec"]["leaseTransitions"] = json!(term);
        lease["spec"]["renewTime"] = json!(time);
        lease
    }

    async fn put(&self, lease: &Value) -> Result<Value, ApiError> {
        self.cluster.json(Method::PUT, &self.path(), "application/json", Some(lease)).await
    }

    fn namespace_path(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/leases/{}", self.namespace_path(), self.name)
    }
}

/// A renewal that failed.
enum Kept {
    /// Another has it.
    Lost(String),
    /// It may be had yet.
    Perhaps(String),
}

impl Kept {
    fn of(error: ApiError) -> Kept {
        match error {
            ApiError::NotFound { .. } => Kept::Lost("somebody deleted the lease".into()),
            error => Kept::Perhaps(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
