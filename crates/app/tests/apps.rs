//! The applications of `tests/apps`: each can be created as it stands, is found without configuration, and becomes a
//! point whose certificate accounts for everything.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

#[path = "common/apps.rs"]
mod apps;
mod common;

use apiserver::{ApiServer, Options};
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
