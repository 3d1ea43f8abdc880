//! The operator: controllers that turn custom resources into work (`docs/operator.md`).
//!
//! [`run`] waits until this replica leads ([`lead`]), keeps what is in the cluster known ([`watch`]), and looks after each object that
//! changed ([`controller`], [`queue`]). Much stands by itself and is pure: what is wrong with an object ([`check`]), when points are due
//! ([`schedule`]), who has to wait for whom ([`conflicts`]), who signs certificates ([`ca`]). What is not there yet is told in
//! `docs/cluster.md`.

use k8s_openapi as _; // kube wants one of its versions to be chosen.

pub mod ca;
pub mod check;
pub mod clock;
pub mod conflicts;
pub mod controller;
pub mod cron;
pub mod events;
pub mod lead;
pub mod open;
pub mod queue;
pub mod requester;
pub mod run;
pub mod schedule;
pub mod status;
pub mod tenancy;
pub mod watch;
