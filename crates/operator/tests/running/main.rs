//! The operator as it runs: replicas, elections, watches and all controllers, on the embedded API server with a clock of ours and, where
//! the name says `kube_`, on a real Kubernetes 1.20.

// The lints know only functions marked #[test]; the helpers here are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod embedded;
#[path = "../../../app/tests/common/own.rs"]
mod own;
mod real;
mod support;
