//! The way to the cluster: kubeconfig or service account, and a first word with the API server.

use crate::error::{Exit, Failure, Result};
use app::api::Cluster;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::path::Path;
use std::time::Duration;

/// A client for the cluster the options name. Nothing is asked of the cluster yet.
pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<kube::Client> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), cluster: None, user: None };
    let bad = |what: String, e: &dyn std::fmt::Display| {
        Failure::usage(format!("{what}: {e}"))
            .next("check the file with: kubectl config view --minify; choose a context with --context")
    };
    let mut config = match kubeconfig {
        Some(file) => {
            let what = format!("cannot use --kubeconfig {}", file.display());
            let kubeconfig = Kubeconfig::read_from(file).map_err(|e| bad(what.clone(), &e))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| bad(what, &e))?
        }
        None if context.is_some() || std::env::var_os("KUBECONFIG").is_some() => {
            kube::Config::from_kubeconfig(&options).await.map_err(|e| bad("cannot use the kubeconfig".into(), &e))?
        }
        None => kube::Config::infer().await.map_err(|e| {
            Failure::new(Exit::Denied, format!("no credentials for a cluster: {e}")).next(
                "name a kubeconfig with --kubeconfig or KUBECONFIG, or run inside a pod with a service account",
            )
        })?,
    };
    // A cluster that does not answer is told within seconds, not after the system's TCP timeout.
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(295));
    let url = config.cluster_url.clone();
    kube::Client::try_from(config).map_err(|e| bad(format!("cannot set up a connection to {url}"), &e))
}

/// A cluster that has answered: what it serves is known.
pub async fn discover(client: kube::Client) -> Result<Cluster> {
    Cluster::connect(client).await.map_err(|e| Failure::from(app::error::Error::from(e)))
}
