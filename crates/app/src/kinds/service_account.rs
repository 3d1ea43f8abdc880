//! ServiceAccount: whom pods run as. Its token Secrets belong to its cluster.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN, To, rule};
use crate::clean::remove_if_empty;
use crate::graph::RefKind;
use crate::object::Object;

/// ServiceAccount.
pub static KIND: KindInfo = KindInfo {
    kind: "ServiceAccount",
    order: Order::Account,
    refs: &[
        rule("/imagePullSecrets/*/name", To::Here("", "Secret"), RefKind::Secret),
        // Tokens among them are their cluster's.
        rule("/secrets/*/name", To::Here("", "Secret"), RefKind::Secret).optional(),
    ],
    clean: Some(clean),
    keep,
    ..PLAIN
};

fn clean(original: &Object, account: &mut Value) {
    for (list, made) in
        [("secrets", &["-token-", "-dockercfg-"][..]), ("imagePullSecrets", &["-dockercfg-"][..])]
    {
        if let Some(secrets) = account.get_mut(list).and_then(Value::as_array_mut) {
            secrets.retain(|secret| {
                let rest =
                    secret["name"].as_str().and_then(|name| name.strip_prefix(original.name())).unwrap_or("");
                !made.iter().any(|m| rest.strip_prefix(m).is_some_and(|end| end.len() == 5))
            });
        }
        remove_if_empty(account, &format!("/{list}"));
    }
}

fn keep(account: &Object, _: Lookup<'_>) -> Keep {
    // `default` with something on it (pull secrets) is somebody's work.
    let is_bare = account.at("/imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty)
        && account.annotations().is_empty();
    if account.name() == "default" && is_bare { Keep::No("every namespace gets it") } else { Keep::Yes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cleaned, kept, refs};
    use serde_json::json;

    #[test]
    fn tokens_of_the_old_cluster_are_taken_off() {
        let web = json!({"apiVersion":"v1","kind":"ServiceAccount","metadata":{"namespace":"shop","name":"web"},
            "secrets":[{"name":"web-token-x7k2p"},{"name":"mine"}],"imagePullSecrets":[{"name":"reg"}]});
        assert_eq!(cleaned(&web)["secrets"], json!([{"name":"mine"}]));
        assert_eq!(
            refs(&web),
            [
                "Secret shop/reg secret /imagePullSecrets/0/name",
                "Secret shop/web-token-x7k2p secret optional /secrets/0/name",
                "Secret shop/mine secret optional /secrets/1/name",
            ]
        );
    }

    #[test]
    fn a_bare_default_account_is_left_out() {
        let of = |pull: Value| {
            kept(
                &json!({"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"},"imagePullSecrets":pull}),
            )
        };
        assert_eq!(of(json!([{"name":"reg"}])), Keep::Yes);
        assert!(matches!(
            kept(&json!({"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}})),
            Keep::No(_)
        ));
    }
}
