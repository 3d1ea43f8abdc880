//! Whose rights count: the account an object names, if it is of its namespace and consents (docs/decisions/0012-requester.md).
//!
//! The work is then done as that account, by impersonation, so it is the API server that says what may be done. The stamp of the webhook
//! comes with step 10 (docs/cluster.md); until then an object that names no account has no requester, and nothing is done for it.

use app::api::{ApiError, ApiResources, Cluster};
use http::HeaderValue;
use kube::client::Body;
use tower::BoxError;

use crate::watch::{Key, Kind};

/// By this label an account consents to be named.
pub const ACTOR: &str = "holdfast.dev/actor";

const ACCOUNTS: Kind = Kind {
    kind: "ServiceAccount",
    version: "v1",
    plural: "serviceaccounts",
    metadata_only: true,
    labels: None,
};

/// Why an object has no requester, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown(pub String);

/// The API as the account of this name in this namespace sees it.
pub async fn acting(
    cluster: &Cluster,
    namespace: &str,
    account: Option<&str>,
) -> Result<Result<Cluster, Unknown>, ApiError> {
    let Some(name) = account else {
        let what = format!(
            "set spec.serviceAccountName to an account of this namespace with the label {ACTOR}=true"
        );
        return Ok(Err(Unknown(what)));
    };
    let found = match cluster.get_path(&ACCOUNTS.object_path(&Key::new(namespace, name))).await {
        Ok(found) => found,
        Err(ApiError::NotFound { .. }) => {
            let what = format!(
                "there is no ServiceAccount {namespace}/{name}: make it, with the label {ACTOR}=true"
            );
            return Ok(Err(Unknown(what)));
        }
        Err(error) => return Err(error),
    };
    if found["metadata"]["labels"][ACTOR].as_str() != Some("true") {
        let what = format!(
            "ServiceAccount {namespace}/{name} does not consent to be named: its owner can, by the label {ACTOR}=true"
        );
        return Ok(Err(Unknown(what)));
    }
    let user = format!("system:serviceaccount:{namespace}:{name}");
    let Ok(user) = HeaderValue::from_str(&user) else {
        return Ok(Err(Unknown(format!("{user:?} is no name of an account"))));
    };
    let client = impersonating(&cluster.client, user);
    Ok(Ok(Cluster { client, resources: ApiResources::default() }))
}

/// The client, asking as somebody else. Groups of a service account the server adds by itself.
fn impersonating(inner: &kube::Client, user: HeaderValue) -> kube::Client {
    let (inner, namespace) = (inner.clone(), inner.default_namespace().to_owned());
    let service = tower::service_fn(move |mut request: http::Request<Body>| {
        let inner = inner.clone();
        request.headers_mut().insert("impersonate-user", user.clone());
        async move { inner.send(request).await.map_err(BoxError::from) }
    });
    kube::Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use apiserver::{ApiServer, Options};
    use http::Method;
    use serde_json::json;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn only_an_account_that_consents_is_acted_as_and_every_request_says_so() {
        let server = ApiServer::new(Options::deterministic(1));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (router, note) = (kube::Client::new(server.router(), "default"), seen.clone());
        let spy = tower::service_fn(move |request: http::Request<Body>| {
            let user =
                request.headers().get("impersonate-user").map(|user| user.to_str().unwrap().to_owned());
            note.lock().unwrap().push((request.uri().path().to_owned(), user));
            let router = router.clone();
            async move { router.send(request).await.map_err(BoxError::from) }
        });
        let cluster =
            Cluster { client: kube::Client::new(spy, "default"), resources: ApiResources::default() };
        let make = |name: &'static str, labels: serde_json::Value| {
            let cluster = cluster.clone();
            async move {
                let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "labels": labels}});
                let path = "/api/v1/namespaces/default/serviceaccounts";
                cluster.json(Method::POST, path, "application/json", Some(&body)).await.unwrap();
            }
        };
        make("yes", json!({"holdfast.dev/actor": "true"})).await;
        make("no", json!({})).await;
        make("false", json!({"holdfast.dev/actor": "false"})).await;
        for (account, expect) in [
            (None, "set spec.serviceAccountName"),
            (Some("gone"), "there is no ServiceAccount default/gone"),
            (Some("no"), "does not consent"),
            (Some("false"), "does not consent"),
        ] {
            let unknown = acting(&cluster, "default", account).await.unwrap().err().unwrap();
            assert!(unknown.0.contains(expect), "{}", unknown.0);
        }
        let acting = acting(&cluster, "default", Some("yes")).await.unwrap().ok().unwrap();
        seen.lock().unwrap().clear();
        acting.get_path("/api/v1/namespaces/default/secrets").await.unwrap();
        let user = Some("system:serviceaccount:default:yes".to_owned());
        assert_eq!(*seen.lock().unwrap(), [("/api/v1/namespaces/default/secrets".to_owned(), user)]);
    }
}
