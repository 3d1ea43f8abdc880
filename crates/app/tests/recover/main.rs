//! The recover side against the embedded API server: restore, diff, export and browse of a three-tier
//! application.

// Clippy lets test functions unwrap, but not what they share.
#![allow(clippy::unwrap_used, clippy::panic)]

mod data;
mod diff;
mod drift;
mod export;
mod fidelity;
#[path = "../common/nothing.rs"]
mod nothing;
mod paper;
mod plan;
mod rehearse;
mod restore;
mod site;
