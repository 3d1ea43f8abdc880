//! The demo's node: the processes of its pods, and the address of its ingress.
//!
//! The embedded API server plays the controllers, and its volumes are directories. What it does not do is run
//! anything. Here one loop looks at the pods there should be ([`Machine::tick`]), starts a real process that writes
//! real records for each database pod, and kills it when the API forgets the pod. It also gives an Ingress its address, as an
//! ingress controller would. Nothing here knows of backups.

use super::writer;
use crate::error::{Exit, Failure, Result, io};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use repo::env::{Env, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The container that is a database.
const DATABASE: &str = "ledger";

/// The only node of the demo's cluster.
#[derive(Clone)]
pub struct Machine {
    client: Client,
    root: PathBuf,
    env: Env,
    running: Arc<Mutex<Processes>>,
    acks: Arc<Mutex<Acks>>,
}

/// What the database told its clients.
#[derive(Clone, Debug, Default)]
pub struct Acks {
    /// When which record was acknowledged, ascending.
    pub given: Vec<(Timestamp, u64)>,
    /// How many records each start of the database found in its volume.
    pub starts: Vec<u64>,
}

impl Acks {
    /// The last record acknowledged at or before this instant.
    pub fn before(&self, instant: Timestamp) -> u64 {
        let n = self.given.partition_point(|(at, _)| *at <= instant);
        n.checked_sub(1).map(|i| self.given[i].1).unwrap_or(0)
    }

    /// The last record acknowledged.
    pub fn last(&self) -> u64 {
        self.given.last().map_or(0, |(_, n)| *n)
    }
}

#[derive(Default)]
struct Processes {
    by_pod: BTreeMap<String, Running>,
    stopped: bool,
}

struct Running {
    uid: String,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good; the wait only keeps it from staying a zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    /// A machine whose disk is below `root`; the cluster's volumes are in its folder `volumes`.
    pub fn new(client: Client, root: PathBuf, env: Env) -> Machine {
        Machine { client, root, env, running: Arc::default(), acks: Arc::default() }
    }

    /// Keeps the machine going until the task ends, which it only does by failing.
    pub fn start(&self) -> tokio::task::JoinHandle<Failure> {
        let me = self.clone();
        tokio::spawn(async move {
            loop {
                if let Err(failure) = me.tick().await {
                    return failure.while_doing("the demo's machine stopped");
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
    }

    /// The directory of a pod, where its commands run.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("node/var/lib/kubelet/pods").join(uid)
    }

    /// Where the directories of the claims are.
    pub fn volumes_dir(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// What the database acknowledged so far.
    pub fn acks(&self) -> Acks {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks every database to hold, in the way the rule does.
    pub fn hold(&self) -> Result<()> {
        for dir in self.run_dirs() {
            let file = dir.join(writer::HOLD);
            std::fs::write(&file, "").map_err(|e| io(format!("cannot write {}", file.display()), &e))?;
        }
        Ok(())
    }

    /// Whether every database holds.
    pub fn holds(&self) -> bool {
        self.run_dirs().iter().all(|dir| dir.join(writer::HELD).exists())
    }

    fn run_dirs(&self) -> Vec<PathBuf> {
        self.processes().by_pod.values().map(|r| self.pod_dir(&r.uid).join("run")).collect()
    }

    /// Ends every process and starts no other.
    pub fn stop(&self) {
        let mut processes = self.processes();
        processes.stopped = true;
        processes.by_pod.clear();
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what should be, and makes it so.
    async fn tick(&self) -> Result<()> {
        self.ingresses().await?;
        self.databases().await
    }

    async fn ingresses(&self) -> Result<()> {
        for ingress in
            Api::<Ingress>::all(self.client.clone()).list(&Default::default()).await.map_err(api)?
        {
            let has_address =
                ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref()).is_some();
            if has_address {
                continue;
            }
            let ingresses =
                Api::<Ingress>::namespaced(self.client.clone(), &ingress.namespace().unwrap_or_default());
            let address = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.10" }] } } });
            match ingresses
                .patch_status(&ingress.name_any(), &PatchParams::default(), &Patch::Merge(address))
                .await
            {
                // Deleted meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other.map_err(api)?),
            }
        }
        Ok(())
    }

    /// Starts the database of every running pod that has one, and kills those whose pod is gone.
    async fn databases(&self) -> Result<()> {
        let pods = Api::<Pod>::all(self.client.clone()).list(&Default::default()).await.map_err(api)?.items;
        let mut wanted = BTreeMap::new();
        for pod in pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
            let spec = pod.spec.clone().unwrap_or_default();
            let runs = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
            if !runs || spec.containers.iter().all(|c| c.name != DATABASE) {
                continue;
            }
            let claim = spec.volumes.iter().flatten().find_map(|v| v.persistent_volume_claim.as_ref());
            let Some(claim) = claim.map(|c| c.claim_name.clone()) else { continue };
            let key = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
            wanted.insert(key, (pod.uid().unwrap_or_default(), pod.namespace().unwrap_or_default(), claim));
        }
        let known: BTreeMap<String, String> = {
            let running = &mut self.processes().by_pod;
            running.retain(|key, r| wanted.get(key).is_some_and(|(uid, ..)| *uid == r.uid));
            for (key, r) in running.iter_mut() {
                if let Ok(Some(ended)) = r.child.try_wait() {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!("the database in pod {key} ended: {ended}"),
                    ));
                }
            }
            running.iter().map(|(key, r)| (key.clone(), r.uid.clone())).collect()
        };
        for (key, (uid, namespace, claim)) in wanted {
            if known.contains_key(&key) {
                continue;
            }
            let claims = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &namespace);
            let Some(volume) = claims.get_opt(&claim).await.map_err(api)?.and_then(|c| c.spec?.volume_name)
            else {
                continue;
            };
            let mut processes = self.processes();
            if processes.stopped {
                return Ok(());
            }
            let child = self.spawn(&uid, &self.volumes_dir().join(volume))?;
            processes.by_pod.insert(key, Running { uid, child });
        }
        Ok(())
    }

    fn spawn(&self, uid: &str, data: &Path) -> Result<Child> {
        let run = self.pod_dir(uid).join("run");
        std::fs::create_dir_all(&run).map_err(|e| io(format!("cannot create {}", run.display()), &e))?;
        let me = std::env::current_exe().map_err(|e| io("cannot find our own program", &e))?;
        let mut child = Command::new(&me)
            .args([writer::NAME, "--data"])
            .arg(data)
            .arg("--run")
            .arg(&run)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| io(format!("cannot start {}", me.display()), &e))?;
        let Some(out) = child.stdout.take() else {
            return Err(Failure::new(Exit::Failed, "the database has no output to acknowledge on"));
        };
        let (acks, env) = (self.acks.clone(), self.env.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
                let at = env.now();
                let mut acks = acks.lock().unwrap_or_else(PoisonError::into_inner);
                match line.strip_prefix(writer::FOUND) {
                    Some(n) => acks.starts.extend(n.parse::<u64>()),
                    None => acks.given.extend(line.parse::<u64>().map(|n| (at, n))),
                }
            }
        });
        Ok(child)
    }
}

fn api(error: kube::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("the demo's API server refused a request of the demo's machine: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_before_an_instant_is_known_exactly() {
        let acks = Acks { given: vec![(10, 1), (20, 2), (30, 3)], starts: vec![0] };
        for (instant, n) in [(9, 0), (10, 1), (19, 1), (20, 2), (100, 3)] {
            assert_eq!(acks.before(instant), n, "at {instant}");
        }
        assert_eq!(acks.last(), 3);
    }
}
