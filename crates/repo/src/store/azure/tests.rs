//! What Azure documents, played by a [responder](super::super::responder): immutability policies, which Azurite has not.
//! The store against Azurite: `tests/store_cloud.rs`.

use super::super::keeper::Retention;
use super::super::probe::probe;
use super::super::responder::{Objects, Reply, Request, http_date, serve};
use super::*;
use crate::Env;

const DAY: i64 = 86_400_000_000_000;

/// A container as its owner made it, and what it really does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Container {
    /// No policy.
    Plain,
    /// A policy of the whole container: nothing can be removed, and no blob says until when.
    Whole,
    /// Immutability per version, 33 days by default; `true`: the policy is locked.
    PerVersion(bool),
    /// As `PerVersion`, where a deletion leaves a version that cannot be removed.
    Hides,
    /// Says `PerVersion` and lets everything be removed.
    Lies,
}

fn plays_azure(container: Container, env: &Env) -> AzureStore {
    let objects = Objects::new(env);
    let endpoint = serve(move |request| answer(container, &objects, request));
    let options = AzureOptions {
        account: Some("account".into()),
        access_key: Some("c2VjcmV0".into()),
        endpoint: Some(format!("{endpoint}/account")),
    };
    AzureStore::new("container/some/prefix", &options).unwrap()
}

fn refused(code: &str) -> Reply {
    let body = format!("<Error><Code>{code}</Code><Message>No.</Message></Error>");
    (409, vec![("x-ms-error-code", code.to_owned())], body.into_bytes())
}

fn answer(container: Container, objects: &Objects, request: &Request) -> Reply {
    assert!(request.header("authorization").is_some_and(|signed| signed.starts_with("sharedkey account:")));
    let per_version = !matches!(container, Container::Plain | Container::Whole);
    if request.path == "/account/container" {
        let yes = |fact: bool| fact.to_string();
        let headers = vec![
            ("x-ms-has-immutability-policy", yes(container != Container::Plain)),
            ("x-ms-has-legal-hold", "false".into()),
            ("x-ms-immutable-storage-with-versioning-enabled", yes(per_version)),
        ];
        return (200, headers, vec![]);
    }
    let name = request.path.strip_prefix("/account/container/").unwrap();
    let holds = !matches!(container, Container::Plain | Container::Lies);
    let named = request.query.starts_with("versionid=");
    match (request.method.as_str(), objects.find(name)) {
        ("PUT", Some(_)) if request.header("if-none-match") == Some("*") => refused("BlobAlreadyExists"),
        ("PUT" | "DELETE", Some(_)) if holds && (container != Container::Hides || named) => {
            refused("BlobImmutableDueToPolicy")
        }
        ("PUT", _) if container == Container::Hides && objects.find(name).is_some() => (201, vec![], vec![]),
        ("PUT", _) => {
            objects.put(name, &request.body);
            let now = http_date(objects.env.now());
            (201, vec![("etag", "\"e\"".into()), ("last-modified", now)], vec![])
        }
        ("DELETE", Some(_)) if container == Container::Hides => (202, vec![], vec![]),
        ("DELETE", Some(_)) => {
            objects.all.lock().unwrap().remove(name);
            (202, vec![], vec![])
        }
        ("GET", Some(_)) if container == Container::Hides && !named && name.contains("-kept") => {
            (404, vec![], vec![])
        }
        (_, Some((_, since))) => {
            let mut headers = vec![("x-ms-creation-time", http_date(since))];
            if per_version {
                let mode = if container == Container::PerVersion(true) { "Locked" } else { "Unlocked" };
                headers.push(("x-ms-immutability-policy-mode", mode.into()));
                headers.push(("x-ms-immutability-policy-until-date", http_date(since + 33 * DAY)));
                headers.push(("x-ms-version-id", "2026-11-21T11:45:20.0000000Z".into()));
            }
            objects.read(request, name, headers)
        }
        _ => (404, vec![("x-ms-error-code", "BlobNotFound".into())], vec![]),
    }
}

#[test]
fn a_policy_counts_as_far_as_it_was_seen_to_hold() {
    let kept = |mode| Some(Retention { mode, seconds: 33 * 86_400 });
    for (container, expected, told) in [
        (Container::Plain, None, ""),
        (Container::Whole, None, "management interface"),
        (Container::PerVersion(true), kept(LockMode::Compliance), ""),
        (Container::PerVersion(false), kept(LockMode::Governance), ""),
        (Container::Hides, kept(LockMode::Governance), "kept as a version"),
        (Container::Lies, None, "could be overwritten or deleted"),
    ] {
        let env = Env::fixed(20_000 * DAY, 1);
        let found = probe(&plays_azure(container, &env), &[], &env).unwrap();
        assert_eq!(found.retention, expected, "{container:?}: {found:?}");
        assert!(found.conditional_put && found.locks.is_empty(), "{found:?}");
        assert!(
            told.is_empty() && found.notes.is_empty() || found.notes.iter().any(|note| note.contains(told)),
            "{container:?}: {found:?}"
        );
    }
}

#[test]
fn what_is_kept_cannot_be_deleted_and_says_until_when() {
    let env = Env::fixed(20_000 * DAY, 1);
    for (container, expected) in [(Container::PerVersion(true), "Locked"), (Container::Whole, "Denied")] {
        let store = plays_azure(container, &env);
        store.put("packs/ab/x", Bytes::from_static(b"x")).unwrap();
        assert_eq!(store.put("packs/ab/x", Bytes::from_static(b"y")).unwrap(), Put::Exists);
        let refused = store.delete("packs/ab/x").unwrap_err();
        assert!(format!("{refused:?}").starts_with(expected), "{refused:?}");
        assert_eq!(store.get("packs/ab/x").unwrap(), "x");
    }
}

#[test]
fn dates_of_headers_are_read() {
    assert_eq!(parse_http_date("Sat, 21 Nov 2026 11:45:20 GMT"), parse_rfc3339("2026-11-21T11:45:20Z"));
    for wrong in ["", "Sat, 21 Nov 2026 11:45:20", "Sat, 21 Foo 2026 11:45:20 GMT", "21 Nov 2026"] {
        assert_eq!(parse_http_date(wrong), None, "{wrong}");
    }
}
