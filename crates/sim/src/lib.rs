//! Tests that need the whole house: tidiness, crashes, damage, real clusters.
//!
//! The crate has no code of its own yet; a simulated site (API server, operator, agents, stores, network and clock
//! from one seed) grows here. Everything is under `tests/`.
