//! Policies: accepted or not, how many applications they have, when the next points are due.

use api::{PolicySpec, PolicyStatus, Truth};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Controller, Failure, Own, POLICIES, Plan, World, spec_of};
use crate::cron::Cron;
use crate::schedule::zone;
use crate::status::{instant, set};
use crate::tenancy::meant;
use crate::watch::{Change, Key, Kind};

/// The controller of policies.
pub struct Policies;

/// What is known of a policy.
pub struct Seen {
    own: Own<PolicySpec, PolicyStatus>,
    /// Is its repository there?
    has_repository: bool,
    applications: u64,
}

/// It does nothing but say what it sees.
pub enum Step {}

/// The policy an object names, or that is its repository's.
fn named(object: &Value, namespace: &str, pointer: &str) -> Option<Key> {
    let reference = object.pointer(pointer)?;
    let name = reference["name"].as_str()?;
    Some(Key::new(reference["namespace"].as_str().unwrap_or(namespace), name))
}

#[async_trait]
impl Controller for Policies {
    type Seen = Seen;
    type Step = Step;
    const KIND: Kind = POLICIES;

    fn wakes(world: &World, change: &Change) -> Vec<Key> {
        match change.kind {
            // What it says of itself is no reason to look.
            "Policy" if spec_of(&change.old) != spec_of(&change.new) => vec![change.key.clone()],
            // Its number of applications.
            "Application" => {
                let policy = |object: &Option<std::sync::Arc<Value>>| {
                    object.as_ref().and_then(|object| named(object, &change.key.namespace, "/spec/policy"))
                };
                let (old, new) = (policy(&change.old), policy(&change.new));
                if old == new { Vec::new() } else { old.into_iter().chain(new).collect() }
            }
            "Repository" if change.old.is_none() || change.new.is_none() => {
                let of = |policy: &Value| {
                    let key = Key::of(policy);
                    (named(policy, &key.namespace, "/spec/repository").as_ref() == Some(&change.key))
                        .then_some(key)
                };
                world.policies.all().iter().filter_map(|policy| of(policy)).collect()
            }
            _ => Vec::new(),
        }
    }

    async fn observe(&self, world: &World, key: &Key) -> Result<Option<Seen>, Failure> {
        let Some(object) = world.policies.get(key) else { return Ok(None) };
        let own = world.read::<api::Policy>(object)?;
        let repository = own.spec.as_ref().ok().map(|spec| meant(&spec.repository, &key.namespace));
        let has_repository = repository.is_some_and(|key| world.repositories.get(&key).is_some());
        let uses =
            |object: &Value| named(object, &Key::of(object).namespace, "/spec/policy").as_ref() == Some(key);
        let applications = world.applications.all().iter().filter(|object| uses(object)).count();
        Ok(Some(Seen { own, has_repository, applications: applications as u64 }))
    }

    fn object(seen: &Seen) -> &Value {
        &seen.own.object
    }

    fn decide(seen: &Seen, now: Timestamp) -> Plan<Step> {
        let Own { key, generation, spec, .. } = &seen.own;
        let mut status = seen.own.status.clone();
        let (truth, reason, message) = match spec {
            Err(why) => (Truth::False, "Invalid", why.clone()),
            Ok(spec) if !seen.has_repository => {
                let wanted = meant(&spec.repository, &key.namespace);
                let why =
                    format!("there is no Repository {wanted}: make it, or name another in spec.repository");
                (Truth::False, "RefNotFound", why)
            }
            Ok(_) => (Truth::True, "Valid", "it can be used".into()),
        };
        set(&mut status.conditions, "Accepted", truth, reason, message, *generation, now);
        let next = match spec {
            Ok(spec) if truth == Truth::True && !spec.suspend => next(spec, now),
            _ => None,
        };
        status.applications = Some(seen.applications);
        status.next_run = next.map(instant);
        let status = serde_json::to_value(status).unwrap_or_else(|_| json!({}));
        Plan { steps: Vec::new(), status, events: Vec::new(), again: next }
    }

    async fn act(&self, _world: &World, _seen: &Seen, step: &Step) -> Result<(), Failure> {
        match *step {}
    }
}

/// When the next points are due, before each application's part of the jitter.
fn next(spec: &PolicySpec, now: Timestamp) -> Option<Timestamp> {
    let after =
        |schedule: &api::Schedule| Cron::parse(&schedule.cron).ok()?.after(&zone(&schedule.time_zone)?, now);
    spec.schedules.iter().filter_map(after).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::get;
    use std::sync::Arc;

    fn check(story: &str, spec: Result<Value, &str>, has_repository: bool, expect: (&str, Option<&str>)) {
        let now: Timestamp = "2026-05-01T10:30:00Z".parse().unwrap();
        let own = Own {
            key: Key::new("platform", "gold"),
            uid: "u".into(),
            generation: 3,
            spec: spec.map_err(str::to_owned).map(read),
            status: serde_json::from_value(json!({})).unwrap(),
            object: Arc::new(json!({})),
        };
        let plan = Policies::decide(&Seen { own, has_repository, applications: 2 }, now);
        let status: PolicyStatus = serde_json::from_value(plan.status).unwrap();
        let accepted = get(&status.conditions, "Accepted").unwrap();
        assert_eq!(
            (accepted.reason.as_str(), status.next_run.as_deref()),
            expect,
            "{story}: {}",
            accepted.message
        );
        assert_eq!(plan.again, status.next_run.map(|next| next.parse().unwrap()), "{story}");
        assert_eq!(status.applications, Some(2));
    }

    fn read(spec: Value) -> PolicySpec {
        let definitions = crate::check::definitions();
        let mut object = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "gold"}, "spec": spec});
        definitions["Policy"].complete(&mut object);
        serde_json::from_value(object["spec"].take()).unwrap()
    }

    #[test]
    fn a_policy_says_whether_it_can_be_used_and_when_points_are_due() {
        let hourly = json!({"name": "hourly", "cron": "0 * * * *"});
        let daily = json!({"name": "daily", "cron": "45 10 * * *", "timeZone": "Europe/Vienna"});
        let spec = |schedules: Value, suspend: bool| {
            Ok(json!({"repository": {"name": "main"}, "schedules": schedules, "suspend": suspend}))
        };
        check("hourly", spec(json!([hourly]), false), true, ("Valid", Some("2026-05-01T11:00:00Z")));
        check(
            "the earliest of two",
            spec(json!([daily, hourly]), false),
            true,
            ("Valid", Some("2026-05-01T11:00:00Z")),
        );
        check(
            "in its own time zone",
            spec(json!([daily]), false),
            true,
            ("Valid", Some("2026-05-02T08:45:00Z")),
        );
        check("by hand only", spec(json!([]), false), true, ("Valid", None));
        check("suspended", spec(json!([hourly]), true), true, ("Valid", None));
        check("no repository", spec(json!([hourly]), false), false, ("RefNotFound", None));
        check("wrong", Err("spec.rpo: …"), true, ("Invalid", None));
    }
}
