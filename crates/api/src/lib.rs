//! What a user writes into the cluster, and what Holdfast writes back: the custom resources of `docs/custom-resources.md`.
//!
//! Types only, no behaviour. A row of a `object!` is a field: its name, its Rust type, its schema with limits, default and
//! rules, and the sentence `kubectl explain` shows. So there is one text for the type, the definition and the documentation of a
//! field, and the compiler sees to it that the first two agree: a field with a default is a plain value, one without is an `Option`.
//!
//! `deploy/crds.yaml` is printed from here ([`definitions`]); a test fails when it is stale. A spec is read with serde *after* the
//! server or the operator's check has filled in the defaults; then whatever is not an `Option` is there.

mod definitions;
mod schema;

pub mod node;

mod application;
mod condition;
mod forms;
mod policy;
mod recovery_point;
mod repository;
mod restore;
mod rule;
mod shared;
mod work;

pub use application::*;
pub use condition::*;
pub use definitions::{Column, Kind, definition, definitions, without_rules};
pub use policy::*;
pub use recovery_point::*;
pub use repository::*;
pub use restore::*;
pub use rule::*;
pub use schema::{Choice, Record};
pub use shared::*;
pub use work::*;

/// The API group of all kinds.
pub const GROUP: &str = "holdfast.dev";
/// The version of all kinds.
pub const VERSION: &str = "v1alpha1";
