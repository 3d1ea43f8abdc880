//! The application: what it consists of, how it is captured, and how it comes back.
//!
//! Only this crate knows what a Kubernetes kind means. The protect side reads a cluster into a recovery
//! point: [`discovery`] (what the API serves) → [`discover`], [`select`] (applications, the graph, the selection) →
//! rules and volumes under one lock → [`certificate`] → [`point`]. The recover side turns a point back
//! into objects.
//!
//! Objects are JSON values throughout ([`object`]): what we do not know, we still keep.

pub mod api;
pub mod backup;
pub mod browse;
pub mod captured;
pub mod certificate;
pub mod clean;
pub mod collect;
pub mod compare;
pub mod diff;
pub mod discover;
pub mod discovery;
pub mod drift;
pub mod error;
pub mod export;
pub mod graph;
pub mod import;
pub mod kinds;
mod later;
pub mod map;
pub mod names;
pub mod object;
pub mod order;
pub mod point;
pub mod refs;
pub mod rehearse;
pub mod resolve;
pub mod restore;
pub mod rules;
pub mod schema;
pub mod select;
pub mod selector;
pub mod shapes;
pub mod transform;
pub mod volumes;
pub mod world;
pub mod yaml;
