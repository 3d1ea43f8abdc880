//! The real cluster beside the tests is what it should be.
//!
//! Every other test whose name begins with `kube_` counts on this: a real API server of the oldest version we meet,
//! with the controllers behind it that give a namespace its account and take away what it held.

// The lints know only functions marked #[test]; the helpers here are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

async fn cluster() -> Client {
    let path = std::env::var("HOLDFAST_TEST_KUBECONFIG")
        .expect("HOLDFAST_TEST_KUBECONFIG is not set: run this test with `./test real` or under `tests/real/with kube -- `");
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Asks until the answer is yes. The controllers work behind our back.
async fn eventually<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    let begun = Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn kube_a_namespace_gets_its_account_and_takes_its_objects_along() {
    let client = cluster().await;
    let version = client.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "20"), "the floor we test against");

    let name = "test-real-cluster";
    let meta = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace { metadata: meta(name), ..Namespace::default() };
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();

    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    eventually("the namespace has its account", || async {
        accounts.get_opt("default").await.unwrap().is_some()
    })
    .await;

    let maps: Api<ConfigMap> = Api::namespaced(client, name);
    let map = ConfigMap { metadata: meta("colours"), ..ConfigMap::default() };
    maps.create(&PostParams::default(), &map).await.unwrap();
    namespaces.delete(name, &kube::api::DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", || async { namespaces.get_opt(name).await.unwrap().is_none() }).await;
    assert!(maps.get_opt("colours").await.unwrap().is_none(), "what it held is gone with it");
}
