//! The operator: controllers that turn custom resources into work (`docs/operator.md`).
//!
//! What stands are the parts that need nobody else: what is wrong with an object ([`check`]), when points are due ([`schedule`]),
//! who has to wait for whom ([`conflicts`]), and who signs certificates ([`ca`]). All are pure.

pub mod ca;
pub mod check;
pub mod conflicts;
pub mod cron;
pub mod schedule;
