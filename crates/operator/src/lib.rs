//! The operator: controllers that turn custom resources into work (`docs/operator.md`).
//!
//! What stands are parts that need nobody else: what is wrong with an object ([`check`]), when points are due ([`schedule`]), who has to
//! wait for whom ([`conflicts`]), who signs certificates ([`ca`]); and what controllers will stand on: who leads ([`lead`]), what is in
//! the cluster ([`watch`]), what is looked at next ([`queue`]).

use k8s_openapi as _; // kube wants one of its versions to be chosen.

pub mod ca;
pub mod check;
pub mod clock;
pub mod conflicts;
pub mod cron;
pub mod lead;
pub mod queue;
pub mod schedule;
pub mod status;
pub mod watch;
