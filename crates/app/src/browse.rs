//! A recovery point as a Kubernetes API that can only be read: `kubectl get`, `describe`, `diff`, k9s, scripts.
//!
//! It serves the objects as they were, status and timestamps included; what a restore would change is not
//! applied. Kinds come from Kubernetes itself and from the definitions in the point.

use std::sync::Arc;

use apiserver::{ApiServer, Options};
use repo::{Env, Finding, Outcome};

use crate::point::Point;

/// The server, and what of the point could not be placed in it.
pub fn server(point: &Point, env: &Env) -> Outcome<ApiServer> {
    let (clock, dice) = (env.clone(), env.clone());
    let entropy = move || {
        let mut bytes = [0; 8];
        // Dice that fail give the same names twice. Nothing is created here, so nobody gets one.
        match dice.random(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => 0,
        }
    };
    let mut options = Options::new(Arc::new(move || clock.now()), Arc::new(entropy)).read_only();
    if !point.meta.cluster.version.is_empty() {
        options.version = point.meta.cluster.version.clone();
    }
    let server = ApiServer::new(options);
    let refused = server.load(point.objects.iter().map(|stored| stored.original.clone()));
    let findings = refused.into_iter().map(|why| Finding::warning("not-shown", "browse", why)).collect();
    Outcome { done: server, findings }
}
