//! Exec into the demo's pods: the command really runs, as a process in the pod's directory.
//!
//! What a container sees as `/tmp` is the folder `tmp` in its own directory, so that pods do not share it.

use super::machine::Machine;
use app::rules::{ExecOutcome, Hands, HandsError, Target};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use std::process::Stdio;
use std::time::Duration;

/// Hands that reach the processes of a [`Machine`].
pub struct LocalHands {
    client: Client,
    machine: Machine,
}

impl LocalHands {
    /// For the pods of this machine.
    pub fn new(client: Client, machine: Machine) -> LocalHands {
        LocalHands { client, machine }
    }
}

#[async_trait::async_trait]
impl Hands for LocalHands {
    async fn exec(
        &self,
        target: &Target,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, HandsError> {
        let failed = |e: String| HandsError::Failed(format!("{target}: {e}"));
        let pods = Api::<Pod>::namespaced(self.client.clone(), &target.namespace);
        let pod = pods.get_opt(&target.pod).await.map_err(|e| failed(e.to_string()))?;
        let Some(uid) = pod.and_then(|p| p.uid()) else { return Err(HandsError::Gone(target.to_string())) };
        let dir = self.machine.pod_dir(&uid);
        std::fs::create_dir_all(dir.join("tmp")).map_err(|e| failed(e.to_string()))?;
        let mut words = command.iter().map(|word| word.replace("/tmp/", "tmp/"));
        let Some(program) = words.next() else { return Err(failed("an empty command".into())) };
        let run = tokio::process::Command::new(program)
            .args(words)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(timeout, run).await {
            Err(_) => Err(HandsError::Timeout(timeout)),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Ok(Ok(output)) => Ok(ExecOutcome {
                exit_code: output.status.code().unwrap_or(128),
                stdout: output.stdout,
                stderr: output.stderr,
            }),
        }
    }
}
