//! Which level of consistency a volume may claim (promises P2 and L2): never better than it was.

use std::collections::BTreeSet;

use super::PlannedVolume;
use crate::point::{Consistency, Role};
use crate::rules::Target;
use crate::rules::plan::RulePlan;

/// What the rules achieved, as far as levels need it.
pub(super) struct Held<'a> {
    pub plan: &'a RulePlan,
    /// Pods that acknowledged all their locks before the cut.
    pub locked: &'a BTreeSet<Target>,
    /// Those that were still locked after it.
    pub kept: &'a BTreeSet<Target>,
}

type PodName = (String, String);

impl Held<'_> {
    /// Pods for which every lock that was planned held through the cut.
    fn pods(&self) -> (BTreeSet<PodName>, BTreeSet<PodName>) {
        let name = |t: &Target| (t.namespace.clone(), t.pod.clone());
        let planned: BTreeSet<&Target> =
            self.plan.before.iter().filter(|t| t.step.action.locks()).flat_map(|t| &t.targets).collect();
        let lost: BTreeSet<PodName> =
            planned.iter().filter(|t| !self.kept.contains(**t)).map(|t| name(t)).collect();
        let held = planned.iter().map(|t| name(t)).filter(|p| !lost.contains(p)).collect();
        (held, lost)
    }

    /// The level of a volume whose own means give `base`, with a word on why it is not better.
    pub(super) fn level(
        &self,
        volume: &PlannedVolume,
        base: Consistency,
        pods_after: &[PodName],
    ) -> (Consistency, String) {
        if !self.plan.locks() {
            return (base, String::new());
        }
        let (held, lost) = self.pods();
        let mounting: BTreeSet<&PodName> = volume.pods.iter().chain(pods_after).collect();
        if volume.role == Role::Shared {
            return (base, "others use it as well, and they were not held".into());
        }
        if mounting.is_empty() {
            return (base, "no running pod mounts it, so the rules held nobody who could write to it".into());
        }
        for pod in mounting {
            if lost.contains(pod) {
                let acknowledged = self.locked.iter().any(|t| t.namespace == pod.0 && t.pod == pod.1);
                let why =
                    if acknowledged { "did not stay locked through the cut" } else { "could not be locked" };
                return (base, format!("pod {}/{} mounts it and {why}", pod.0, pod.1));
            }
            if !held.contains(pod) {
                return (base, format!("pod {}/{} mounts it and no rule locks it", pod.0, pod.1));
            }
        }
        (Consistency::Application, String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Object, ObjectKey};
    use crate::rules::{Rule, Side, plan};
    use serde_json::json;

    fn target(pod: &str) -> Target {
        Target { namespace: "shop".into(), pod: pod.into(), container: Some("main".into()) }
    }

    /// Pods `db-0` and `db-1` are to be locked; `web` is not. Who mounts, who locked, who kept: the level.
    fn check(mounting: &[&str], after: &[&str], locked: &[&str], kept: &[&str], role: Role) -> String {
        let rule = Rule::parse(
            "{apiVersion: holdfast.dev/v1alpha1, kind: Rule, spec: {pre: [{podSelector: {app: db}, lock: {command: a, release: b}}]}}",
            Side::Pre,
        )
        .unwrap();
        let pod = |name: &str, app: &str| {
            Object(
                json!({"metadata":{"namespace":"shop","name":name,"labels":{"app":app}},"spec":{"containers":[{"name":"main"}]},"status":{"phase":"Running"}}),
            )
        };
        let plan = plan::plan(&[rule], &[pod("db-0", "db"), pod("db-1", "db"), pod("web", "web")], None);
        let names =
            |pods: &[&str]| pods.iter().map(|p| ("shop".to_owned(), (*p).to_owned())).collect::<Vec<_>>();
        let targets = |pods: &[&str]| pods.iter().map(|p| target(p)).collect::<BTreeSet<_>>();
        let volume = PlannedVolume {
            key: ObjectKey::new("", "PersistentVolumeClaim", "shop", "data"),
            volume: "pv".into(),
            role,
            located: Err(String::new()),
            pods: names(mounting),
            is_unbound: false,
        };
        let held = Held { plan: &plan, locked: &targets(locked), kept: &targets(kept) };
        let (level, note) = held.level(&volume, Consistency::Fuzzy, &names(after));
        format!("{}{}", level.word(), if note.is_empty() { note } else { format!(": {note}") })
    }

    #[test]
    fn a_volume_is_the_applications_only_if_all_who_mount_it_held_still() {
        let both = ["db-0", "db-1"];
        for (story, got, expected) in [
            ("held through", check(&["db-0"], &["db-0"], &both, &both, Role::Member), "application"),
            (
                "one of two lost it, the other's volume is fine",
                check(&["db-0"], &["db-0"], &both, &["db-0"], Role::Member),
                "application",
            ),
            (
                "lost during the cut",
                check(&["db-1"], &["db-1"], &both, &["db-0"], Role::Member),
                "fuzzy: pod shop/db-1 mounts it and did not stay locked through the cut",
            ),
            (
                "never locked",
                check(&["db-1"], &["db-1"], &["db-0"], &["db-0"], Role::Member),
                "fuzzy: pod shop/db-1 mounts it and could not be locked",
            ),
            (
                "mounted by somebody without a rule",
                check(&["db-0", "web"], &["db-0"], &both, &both, Role::Member),
                "fuzzy: pod shop/web mounts it and no rule locks it",
            ),
            (
                "somebody came while it was read",
                check(&["db-0"], &["db-0", "web"], &both, &both, Role::Member),
                "fuzzy: pod shop/web mounts it and no rule locks it",
            ),
            (
                "used by another application",
                check(&["db-0"], &["db-0"], &both, &both, Role::Shared),
                "fuzzy: others use it as well, and they were not held",
            ),
            (
                "mounted by nobody",
                check(&[], &[], &both, &both, Role::Member),
                "fuzzy: no running pod mounts it, so the rules held nobody who could write to it",
            ),
        ] {
            assert_eq!(got, expected, "{story}");
        }
    }
}
