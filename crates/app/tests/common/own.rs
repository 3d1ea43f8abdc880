//! A real cluster of a test's own, where what it does would stand in everybody's way.
#![allow(dead_code)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests: clippy knows only test functions as tests.

use std::process::Command;

use app::api::Cluster;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A real cluster, stopped when it is dropped.
pub struct OwnCluster {
    state: String,
    pub kubeconfig: String,
}

impl OwnCluster {
    pub async fn up() -> OwnCluster {
        tokio::task::spawn_blocking(OwnCluster::start).await.unwrap()
    }

    fn start() -> OwnCluster {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/real/up");
        let output = Command::new(script).arg("kube").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let value = |name: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(&format!("{name}=")))
                .unwrap()
                .trim_matches(['\'', '"'])
                .to_owned()
        };
        OwnCluster { state: value("HOLDFAST_TEST_STATE"), kubeconfig: value("HOLDFAST_TEST_KUBECONFIG") }
    }

    pub async fn client(&self) -> kube::Client {
        let config = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let config =
            kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    pub async fn connect(&self) -> Cluster {
        Cluster::connect(self.client().await).await.unwrap()
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/real/down");
        let _ = Command::new(script).arg(&self.state).output();
    }
}
