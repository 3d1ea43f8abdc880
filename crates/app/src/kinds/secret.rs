//! Secret. Tokens of service accounts belong to one cluster: it makes them, or fills them in again.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN, To, rule};
use crate::clean::remove;
use crate::graph::RefKind;
use crate::names;
use crate::object::{Object, ObjectKey};
use crate::refs::{Found, escape, hosts};

/// Secret.
pub static KIND: KindInfo = KindInfo {
    kind: "Secret",
    order: Order::Config,
    // What keeps it fresh.
    refs: &[rule(
        "/metadata/annotations/cert-manager.io~1certificate-name",
        To::Here("cert-manager.io", "Certificate"),
        RefKind::Other,
    )
    .optional()],
    find: Some(find),
    clean: Some(clean),
    keep,
    ..PLAIN
};

const TOKEN: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";

fn keep(secret: &Object, _: Lookup<'_>) -> Keep {
    // Before 1.24 every ServiceAccount got one by itself, named after it with five random characters. One with
    // another name was asked for by somebody: it is kept, and filled in by the target.
    let made_by_cluster = secret.str("/type") == TOKEN
        && secret.annotation(ACCOUNT).is_some_and(|account| {
            secret
                .name()
                .strip_prefix(account)
                .and_then(|rest| rest.strip_prefix("-token-"))
                .is_some_and(|end| end.len() == 5)
        });
    if made_by_cluster { Keep::No("a service-account token; every cluster makes its own") } else { Keep::Yes }
}

fn clean(original: &Object, secret: &mut Value) {
    if original.str("/type") == TOKEN {
        for filled_in in ["/data", "/metadata/annotations/kubernetes.io~1service-account.uid"] {
            remove(secret, filled_in);
        }
    }
}

/// Types whose content is made by machines for machines: keys, archives, tokens.
const OPAQUE: &[&str] = &[TOKEN, "helm.sh/release.v1", "kubernetes.io/tls", "kubernetes.io/ssh-auth"];

fn find(secret: &Object, found: &mut Vec<Found>) {
    if let (TOKEN, Some(account)) = (secret.str("/type"), secret.annotation(ACCOUNT)) {
        let key = ObjectKey::new("", "ServiceAccount", secret.namespace(), account);
        // A token that was asked for comes along with its account: somebody outside may hold it.
        found.push(Found::object(key, RefKind::PartOf, format!("/metadata/annotations/{}", escape(ACCOUNT))));
    }
    if OPAQUE.contains(&secret.str("/type")) || secret.str("/type").starts_with("kubernetes.io/dockerc") {
        return;
    }
    // Connection strings live in Secrets. Only hosts and names of databases are taken from them.
    for (name, value) in secret.at("/data").and_then(Value::as_object).into_iter().flatten() {
        let decoded = value.as_str().and_then(|text| data_encoding::BASE64.decode(text.as_bytes()).ok());
        if let Some(text) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
            hosts(names::in_document(name, &text), &format!("/data/{}", escape(name)), found);
        }
    }
    for (name, value) in secret.at("/stringData").and_then(Value::as_object).into_iter().flatten() {
        if let Some(text) = value.as_str() {
            hosts(names::in_document(name, text), &format!("/stringData/{}", escape(name)), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cleaned, kept, refs};
    use serde_json::json;

    fn token(name: &str) -> Value {
        json!({"apiVersion":"v1","kind":"Secret","type":TOKEN,"metadata":{"name":name,"namespace":"shop",
            "annotations":{"kubernetes.io/service-account.name":"web","kubernetes.io/service-account.uid":"u"}},
            "data":{"token":"eA=="}})
    }

    #[test]
    fn a_token_the_cluster_made_is_left_out_and_one_asked_for_is_filled_in_again() {
        assert!(matches!(kept(&token("web-token-x7k2p")), Keep::No(_)));
        assert_eq!(kept(&token("web-token")), Keep::Yes);
        let clean = cleaned(&token("web-token"));
        assert_eq!(clean["metadata"]["annotations"], json!({"kubernetes.io/service-account.name":"web"}));
        assert_eq!(clean.get("data"), None);
        assert_eq!(
            refs(&token("t")),
            ["ServiceAccount shop/web part_of /metadata/annotations/kubernetes.io~1service-account.name"]
        );
    }

    #[test]
    fn a_connection_string_names_a_service() {
        let dsn = data_encoding::BASE64.encode(b"postgres://u:p@db.data.svc:5432/x");
        let secret = json!({"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","namespace":"shop"},"data":{"dsn":dsn,"bin":"gAE="}});
        assert_eq!(refs(&secret), ["Service data/db names optional /data/dsn"]);
        assert_eq!(cleaned(&secret)["data"], secret["data"]);
    }
}
