//! Hands that reach pods through the API server's exec, over a websocket.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams};
use kube::client::UpgradeConnectionError;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{ExecOutcome, Hands, HandsError, Target};

/// How much of a command's output is kept; the rest is read and dropped, so that the command does not block.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Runs commands by exec.
#[derive(Clone)]
pub struct KubeHands {
    client: kube::Client,
}

impl KubeHands {
    /// Hands of this client.
    pub fn new(client: kube::Client) -> KubeHands {
        KubeHands { client }
    }
}

#[async_trait]
impl Hands for KubeHands {
    async fn exec(
        &self,
        target: &Target,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, HandsError> {
        match tokio::time::timeout(timeout, self.run(target, command)).await {
            Ok(end) => end,
            Err(_) => Err(HandsError::Timeout(timeout)),
        }
    }
}

impl KubeHands {
    async fn run(&self, target: &Target, command: &[String]) -> Result<ExecOutcome, HandsError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &target.namespace);
        let mut how = AttachParams::default().stdin(false).stdout(true).stderr(true);
        if let Some(container) = &target.container {
            how = how.container(container);
        }
        let mut process = pods.exec(&target.pod, command.iter().cloned(), &how).await.map_err(refused)?;
        let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
        let ended = async {
            match status {
                Some(status) => status.await,
                None => None,
            }
        };
        let (stdout, stderr, status) = tokio::join!(read(stdout), read(stderr), ended);
        let joined = process.join().await;
        match status {
            Some(status) => Ok(ExecOutcome { exit_code: exit_code(&status)?, stdout, stderr }),
            None => Err(HandsError::Failed(match joined {
                Err(e) => format!("the connection broke: {e}"),
                Ok(()) => "the connection ended without an exit code".into(),
            })),
        }
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 8192]);
    if let Some(mut stream) = stream {
        // An error is the end of the connection; the missing status tells about it.
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            let room = OUTPUT_BYTES_MAX - kept.len();
            kept.extend_from_slice(&buffer[..count.min(room)]);
        }
    }
    kept
}

fn exit_code(status: &Status) -> Result<i32, HandsError> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|d| d.causes.iter().flatten());
    let code = causes
        .filter(|c| c.reason.as_deref() == Some("ExitCode"))
        .find_map(|c| c.message.as_deref()?.parse().ok());
    let message = status.message.clone().unwrap_or_default();
    match code {
        Some(code) => Ok(code),
        None if message.contains("container not found") || message.contains("not found in pod") => {
            Err(HandsError::Gone(message))
        }
        // The runtime could not even start it: no such program in the image.
        None if message.contains("executable file not found")
            || message.contains("no such file or directory") =>
        {
            Ok(127)
        }
        None => Err(HandsError::Failed(message)),
    }
}

fn refused(error: kube::Error) -> HandsError {
    let by_code = |code: u16, message: String| match code {
        404 => HandsError::Gone(message),
        401 | 403 => HandsError::Denied(message),
        _ => HandsError::Failed(message),
    };
    match &error {
        kube::Error::Api(status) => by_code(status.code, status.message.clone()),
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => {
            by_code(code.as_u16(), error.to_string())
        }
        _ => HandsError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn how_a_command_ended_is_read_from_the_status() {
        let of = |status: serde_json::Value| exit_code(&serde_json::from_value(status).unwrap());
        assert_eq!(of(json!({"status":"Success"})), Ok(0));
        assert_eq!(
            of(
                json!({"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}})
            ),
            Ok(3)
        );
        assert_eq!(
            of(json!({"status":"Failure","message":"exec: \"sh\": executable file not found in $PATH"})),
            Ok(127)
        );
        assert!(matches!(
            of(json!({"status":"Failure","message":"container not found (\"db\")"})),
            Err(HandsError::Gone(_))
        ));
        assert!(matches!(of(json!({"status":"Failure","message":"boom"})), Err(HandsError::Failed(_))));
    }

    #[tokio::test]
    async fn a_server_without_containers_is_a_failure_and_not_a_success() {
        let server = apiserver::ApiServer::new(apiserver::Options::deterministic(1));
        let pod = |name: &str| json!({"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"shop","name":name},"spec":{}});
        assert_eq!(
            server.load([
                json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}),
                pod("db-0")
            ]),
            Vec::<String>::new()
        );
        let hands = KubeHands::new(kube::Client::new(server.router(), "default"));
        let target = |pod: &str| Target { namespace: "shop".into(), pod: pod.into(), container: None };
        let command = ["true".to_owned()];
        let end = hands.exec(&target("db-0"), &command, Duration::from_secs(5)).await;
        assert!(matches!(end, Err(HandsError::Failed(_))), "{end:?}");
        let end = hands.exec(&target("gone"), &command, Duration::from_secs(5)).await;
        assert!(matches!(end, Err(HandsError::Gone(_) | HandsError::Failed(_))), "{end:?}");
    }
}
