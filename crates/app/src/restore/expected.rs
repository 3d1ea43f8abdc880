//! What the objects of a restore need of the target and the point does not have: classes, drivers, issuers, roles, Secrets that
//! somebody else keeps. The certificate calls them *expected on the target*; here the target is asked, before anything is
//! changed. Asked is for what the objects name after all mappings, so a class that was mapped to one that does not exist
//! is found, too.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use repo::Finding;

use super::{Action, Step};
use crate::api::{ApiError, Cluster};
use crate::error::Error;
use crate::graph::{By, RefKind};
use crate::object::{Object, ObjectKey};
use crate::refs::{self, Target};
use crate::select::made_by_every_cluster;
use crate::world::canonical;

/// Objects asked for at the same time.
const AT_ONCE: usize = 8;

/// Looks for what is needed and comes with no step, and tells what is not there.
pub(super) async fn look(
    cluster: &Cluster,
    steps: &[Step],
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let parts: Vec<Part<'_>> = steps.iter().map(|step| (step.action, &step.key, &step.desired)).collect();
    let asked = futures::stream::iter(needed(&parts))
        .map(|(to, (from, at))| async move {
            let there = match cluster.resources.find(&to.group, &to.kind) {
                Some(resource) => cluster.get(resource, &to.namespace, &to.name).await.map(|o| o.is_some()),
                // A kind that is not served has no objects.
                None => Ok(false),
            };
            (to, from, at, there)
        })
        .buffer_unordered(AT_ONCE);
    let mut answers: Vec<_> = asked.collect().await;
    answers.sort_by(|a, b| a.0.cmp(&b.0));
    for (to, from, at, there) in answers {
        match there {
            Ok(true) => {}
            Ok(false) => findings.push(Finding::warning(
                "expected-absent",
                to.to_string(),
                format!("{from} needs it ({at}), and neither the recovery point nor the target has it"),
            )),
            Err(error @ ApiError::Unreachable { .. }) => return Err(error.into()),
            Err(error) => findings.push(Finding::note(
                "expected-unseen",
                to.to_string(),
                format!("{from} needs it ({at}); whether the target has it could not be seen: {error}"),
            )),
        }
    }
    Ok(())
}

/// What counts of a step.
type Part<'a> = (Action, &'a ObjectKey, &'a Object);

/// What is needed, with one place that says so.
fn needed(steps: &[Part<'_>]) -> BTreeMap<ObjectKey, (ObjectKey, String)> {
    let comes: BTreeSet<&ObjectKey> = steps.iter().map(|(_, key, _)| *key).collect();
    // A class that pairs a claim with a volume made by hand need not exist.
    let pairs: BTreeSet<&str> = steps
        .iter()
        .filter(|(_, key, _)| key.is("", "PersistentVolume"))
        .map(|(_, _, desired)| desired.str("/spec/storageClassName"))
        .collect();
    let mut needed = BTreeMap::new();
    let written = steps
        .iter()
        .filter(|(action, ..)| matches!(action, Action::Create | Action::Update | Action::Replace));
    for (_, key, desired) in written {
        for found in refs::of(desired) {
            let Target::Object(mut to) = found.target else { continue };
            canonical(&mut to);
            let is_pair = to.is("storage.k8s.io", "StorageClass") && pairs.contains(to.name.as_str());
            let is_asked = !found.optional
                && found.by == By::Table
                && is_needed(found.via)
                && !is_pair
                && !comes.contains(&to)
                && made_by_every_cluster(&to).is_none();
            if is_asked {
                needed.entry(to).or_insert(((*key).clone(), found.at));
            }
        }
    }
    needed
}

/// Owners and namespaces a restore settles itself; what is selected, watched or named in text need not be there.
fn is_needed(via: RefKind) -> bool {
    match via {
        RefKind::Config
        | RefKind::Secret
        | RefKind::ServiceAccount
        | RefKind::Claim
        | RefKind::Class
        | RefKind::Role
        | RefKind::Scales
        | RefKind::Routes
        | RefKind::Calls
        | RefKind::PartOf
        | RefKind::Attaches => true,
        RefKind::Owner
        | RefKind::Namespace
        | RefKind::Volume
        | RefKind::Subject
        | RefKind::Selects
        | RefKind::Definition
        | RefKind::Names
        | RefKind::Watches
        | RefKind::Tracked
        | RefKind::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_comes_with_the_point_or_with_every_cluster_is_not_asked_for() {
        let claim = |name: &str, class: &str| json!({"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"namespace":"shop","name":name},"spec":{"storageClassName":class}});
        let pod = json!({"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"shop","name":"p"},"spec":{"serviceAccountName":"default",
            "priorityClassName":"system-node-critical","runtimeClassName":"gvisor",
            "containers":[{"envFrom":[{"secretRef":{"name":"here"}},{"secretRef":{"name":"gone"}},{"configMapRef":{"name":"may","optional":true}}]}]}});
        let steps = [
            (Action::Create, pod),
            (
                Action::Skip,
                json!({"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"shop","name":"here"}}),
            ),
            (Action::Create, claim("a", "fast")),
            (Action::Create, claim("b", "manual")),
            (Action::Unchanged, claim("c", "slow")),
            (
                Action::Create,
                json!({"apiVersion":"v1","kind":"PersistentVolume","metadata":{"name":"v"},"spec":{"storageClassName":"manual"}}),
            ),
        ];
        let steps: Vec<(Action, ObjectKey, Object)> = steps
            .into_iter()
            .map(|(action, object)| (action, Object(object.clone()).key(), Object(object)))
            .collect();
        let parts: Vec<Part<'_>> = steps.iter().map(|(action, key, object)| (*action, key, object)).collect();
        let needed: Vec<String> = needed(&parts).keys().map(ToString::to_string).collect();
        assert_eq!(needed, ["Secret shop/gone", "RuntimeClass gvisor", "StorageClass fast"]);
    }
}
