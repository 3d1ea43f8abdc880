//! The applications of `tests/apps`: each can be created as it stands, is found without configuration, and becomes a
//! point whose certificate accounts for everything.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

#[path = "common/apps.rs"]
mod apps;
mod common;

use std::collections::BTreeSet;

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use app::certificate::State;
use app::discover::discover;
use app::map;
use app::object::Object;
use app::select::{Selection, select};
use common::cluster;

#[test]
fn every_application_for_tests_is_listed() {
    let mut files: Vec<String> = std::fs::read_dir(apps::path(""))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    files.sort();
    assert_eq!(files, apps::ALL);
}

#[tokio::test]
async fn all_applications_for_tests_fit_into_one_cluster() {
    let server = ApiServer::new(Options::deterministic(1));
    let cluster = cluster(&server).await;
    for name in apps::ALL {
        apps::create(&cluster, &apps::objects(name)).await;
    }
}

/// A cluster with one application on it, and its namespaces.
async fn with(name: &str) -> (Cluster, Vec<String>, Vec<Object>) {
    let server = ApiServer::new(Options::deterministic(1));
    let objects = apps::objects(name);
    let made = apps::create(&cluster(&server).await, &objects).await;
    // Connected anew: definitions have added kinds.
    (cluster(&server).await, apps::namespaces(&objects), made)
}

/// What is in `NAME.map` is what `discover` draws. With HOLDFAST_WRITE_MAPS the files are written instead; read what changed.
#[tokio::test]
async fn every_application_is_found_without_configuration_and_drawn() {
    let mut wrong = Vec::new();
    for name in apps::ALL {
        let (cluster, namespaces, _) = with(name).await;
        let found = discover(&cluster, &namespaces).await.unwrap();
        assert!(found.findings.is_empty(), "{name}: {:?}", found.findings);
        let mut drawn: String = found.applications.iter().map(|a| map::draw(&found, a)).collect();
        drawn.extend(map::between(&found, usize::MAX).iter().map(|line| format!("{line}\n")));
        for secret in ["do-not-show", "Tr0ub4dor", "s3cr3t", "hunter2", "p%40ss", "abcdef", "AKIA"] {
            assert!(!drawn.contains(secret), "{name} shows {secret}:\n{drawn}");
            assert!(
                !map::dot(&found).contains(secret)
                    && !serde_json::to_string(&found).unwrap().contains(secret)
            );
        }
        let file = apps::path(&format!("{name}.map"));
        if std::env::var_os("HOLDFAST_WRITE_MAPS").is_some() {
            std::fs::write(file, drawn).unwrap();
        } else if std::fs::read_to_string(file).unwrap_or_default() != drawn {
            wrong.push(format!("{name}.map should be\n{drawn}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_point_of_its_namespaces_holds_everything_an_application_uses() {
    for name in apps::ALL {
        let (cluster, namespaces, made) = with(name).await;
        let selection = Selection { namespaces, ..Selection::default() };
        let selected = select(&cluster, &selection).await.unwrap();
        let missing: Vec<String> = selected
            .references
            .iter()
            .filter(|r| r.state == State::Missing)
            .map(|r| format!("{} <- {} {}: {}", r.to, r.from, r.at, r.reason))
            .collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
        let made: BTreeSet<_> = made.iter().map(Object::key).collect();
        let left_out: Vec<String> =
            made.iter().filter(|key| !selected.objects.contains_key(*key)).map(ToString::to_string).collect();
        assert!(left_out.is_empty(), "{name}: {left_out:?}");
    }
}
