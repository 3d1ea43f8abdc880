//! What becomes of one object: wanted against what is there.
//!
//! First by comparing, which costs nothing. What differs is asked of the server by a dry run, because only
//! the server knows its defaults and what it would refuse: a field it fills in by itself is no difference,
//! and a field that cannot change is told before anything happens.

use repo::Finding;
use serde_json::Value;

use super::status::Fate;
use super::{Action, Candidate, ClusterScoped, Method, OnConflict, OwnerLink, Step, addresses, lost};
use crate::api::{ApiError, ApplyOptions, Cluster, FIELD_MANAGER, ResourceType};
use crate::clean::clean;
use crate::compare::{Change, changes};
use crate::kinds::{self, Keep};
use crate::object::{Object, ObjectKey};
use crate::point::Role;

/// On a claim until its data is in; nobody may use it before.
pub(super) const RESTORING: &str = "holdfast.dev/restoring";
/// Nothing is known to be written yet. What is there may be somebody else's, and is not written over.
pub(super) const WAITING: &str = "waiting";
/// We wrote part of it. What is there is ours, and the next restore starts it over.
pub(super) const PARTIAL: &str = "partial";

/// The part of the target that decisions look at.
pub(super) struct Target<'a> {
    /// The cluster.
    pub(super) cluster: &'a Cluster,
    /// What happens to what differs.
    pub(super) on_conflict: OnConflict,
    /// What happens to what belongs to the whole cluster.
    pub(super) cluster_scoped: ClusterScoped,
    /// The live object of any candidate.
    pub(super) live: &'a (dyn Fn(&ObjectKey) -> Option<Object> + Sync),
}

/// A wanted object in the version the target serves.
pub(super) struct Wanted {
    pub(super) candidate: Candidate,
    pub(super) resource: ResourceType,
    pub(super) note: Option<String>,
    /// The kind is served and its namespace is there, so that a dry run can be asked for.
    pub(super) can_dry_run: bool,
    /// What becomes of its status.
    pub(super) status: Fate,
    /// The address its balancer gave it.
    pub(super) balanced_at: Option<String>,
}

/// Decides on one object.
pub(super) async fn decide(target: &Target<'_>, wanted: Wanted) -> (Step, Vec<Finding>) {
    let Wanted { candidate, resource, note, can_dry_run, status, balanced_at } = wanted;
    let mut findings = Vec::new();
    let live = (target.live)(&candidate.key);
    let mut step = Step {
        action: Action::Create,
        was: candidate.was.filter(|was| *was != candidate.key),
        key: candidate.key,
        reason: String::new(),
        changes: Vec::new(),
        method: Method::Create,
        resource,
        made_as: candidate.addressed,
        status: None,
        desired: candidate.desired,
        owners: candidate.owners,
        live_uid: live.as_ref().map(|live| live.uid().to_owned()).unwrap_or_default(),
        claims: candidate.claims,
    };
    match status {
        Fate::Observed => {}
        Fate::Field(status) => {
            let made_as = step.made_as.get_or_insert_with(|| step.desired.clone());
            made_as.0["status"] = status;
        }
        Fate::Subresource(status) => step.status = Some(status),
    }
    match &live {
        None => absent(target, &mut step, can_dry_run, &mut findings).await,
        Some(live) if is_made_by_cluster(live) && differs(live, &step.desired) => {
            step.method = Method::Apply;
            step.action = Action::Update;
            step.reason = "the cluster made a bare one; the point's is applied over it".into();
        }
        Some(live) if !live.str("/metadata/deletionTimestamp").is_empty() => {
            step.live_uid.clear();
            step.reason = "the one on the target is being deleted; made again when it is gone".into();
        }
        Some(live) if is_released_for(live, &step.desired) => {
            step.action = Action::Update;
            step.method = Method::Release;
            step.reason = "released when its claim was deleted; given to the claim that comes back".into();
        }
        Some(live) => present(target, &mut step, live, candidate.role, &mut findings).await,
    }
    if let Some(note) = note {
        step.reason = format!("{} ({note})", step.reason);
    }
    if let Some(address) = balanced_at.filter(|_| matches!(step.action, Action::Create | Action::Replace)) {
        findings.push(Finding::note(
            "address-changes",
            step.key.to_string(),
            format!("its load balancer had {address}; the target's gives it another one, which names have to point to"),
        ));
    }
    (step, findings)
}

async fn absent(target: &Target<'_>, step: &mut Step, can_dry_run: bool, findings: &mut Vec<Finding>) {
    step.reason = "not on the target".into();
    if step.key.is("", "ServiceAccount") && step.key.name == "default" {
        // Made by the cluster as soon as the namespace is there; whoever is first, the result is the same.
        step.method = Method::Apply;
    }
    if !can_dry_run {
        return;
    }
    let mut asked =
        target.cluster.create(&step.resource, step.made_as.as_ref().unwrap_or(&step.desired), true).await;
    if let Err(error) = &asked
        && step.key.is("", "Service")
        && step.made_as.is_some()
        && addresses::is_refusal(error)
    {
        findings.push(Finding::note(
            "address-changes",
            step.key.to_string(),
            format!("the target does not take the addresses it had, so it gets others: {error}"),
        ));
        step.made_as = None;
        asked = target.cluster.create(&step.resource, &step.desired, true).await;
    }
    match asked {
        Ok(made) => {
            let lost = lost::fields(&step.desired, &made);
            if !lost.is_empty() {
                findings.push(field_dropped(&step.key, &lost));
            }
        }
        Err(error @ (ApiError::Invalid { .. } | ApiError::Denied { .. })) if !is_webhooks_silence(&error) => {
            findings.push(Finding::warning(
                "would-be-refused",
                step.key.to_string(),
                format!("the target says it would refuse it: {error}"),
            ));
        }
        // Whatever passes is tried again when it is made.
        Err(_) => {}
    }
}

/// The finding for fields that a server took and did not keep.
pub(super) fn field_dropped(key: &ObjectKey, lost: &[String]) -> Finding {
    Finding::warning(
        "field-dropped",
        key.to_string(),
        format!(
            "the target does not know {} of it and drops that without a word; check that it works without, or restore \
             onto a cluster that knows it",
            lost::told(lost)
        ),
    )
}

/// A webhook that is not up, or cannot be asked without effect: no answer about the object.
fn is_webhooks_silence(error: &ApiError) -> bool {
    match error {
        ApiError::Invalid { message, .. } | ApiError::Other { message, .. } => {
            message.contains("failed calling webhook") || message.contains("does not support dry run")
        }
        _ => false,
    }
}

async fn present(
    target: &Target<'_>,
    step: &mut Step,
    live: &Object,
    role: Role,
    findings: &mut Vec<Finding>,
) {
    let (now, wanted) = pair(&step.desired, live);
    let mut differences = changes(&now.0, &wanted.0);
    let unlinked = missing_links(target, live, &step.owners);
    if differences.is_empty() && unlinked.is_none() {
        step.action = Action::Unchanged;
        step.reason = "as in the point".into();
        return;
    }
    let mut refused = None;
    if !differences.is_empty() {
        let (method, result) = dry_run(target.cluster, step).await;
        step.method = method;
        match result {
            Ok(result) => {
                let exact = target.on_conflict == OnConflict::Replace && role == Role::Member;
                let extra = exact && has_extra(target.cluster, step, live, &now, &differences).await;
                if !extra {
                    differences = changes(&now.0, &pair(&wanted, &result).0.0);
                }
            }
            Err(error @ ApiError::Denied { .. }) => {
                findings.push(Finding::warning("forbidden", step.key.to_string(), error.to_string()));
                refused = Some(format!("differs, and these credentials may not change it: {error}"));
            }
            // Then the plain comparison stands.
            Err(error) if is_webhooks_silence(&error) => {}
            Err(error) => refused = Some(format!("differs in what cannot be changed in place: {error}")),
        }
    }
    step.changes = differences;
    step.changes.extend(unlinked);
    if step.changes.is_empty() {
        step.action = Action::Unchanged;
        step.reason = "as in the point; the rest of it is the target's own".into();
        return;
    }
    // Whose policy is the same as everybody else's is a member like any other.
    let role = match (role, target.cluster_scoped) {
        (Role::Cluster, ClusterScoped::Conflict) => Role::Member,
        (role, _) => role,
    };
    (step.action, step.reason) = by_policy(target.on_conflict, role, &step.key, refused.as_deref());
    if step.action == Action::Skip
        && refused.is_some()
        && target.on_conflict != OnConflict::Skip
        && role == Role::Member
    {
        findings.push(Finding::warning("not-updated", step.key.to_string(), step.reason.clone()));
    }
    if step.action == Action::Replace {
        step.method = Method::Create;
    }
}

/// The policy, for an object that exists and differs. Pure.
fn by_policy(policy: OnConflict, role: Role, key: &ObjectKey, refused: Option<&str>) -> (Action, String) {
    // Deleting one of these deletes more than the object.
    let holds_more = matches!(
        (key.group.as_str(), key.kind.as_str()),
        ("", "Namespace" | "PersistentVolumeClaim" | "PersistentVolume")
            | ("apiextensions.k8s.io", "CustomResourceDefinition")
    );
    match (role, policy, refused) {
        (Role::Shared, ..) => {
            (Action::Skip, "differs, but others use it too: only restored if absent".into())
        }
        (Role::Cluster, ..) => {
            (Action::Skip, "differs, but belongs to the whole cluster: only restored if absent".into())
        }
        (_, OnConflict::Skip, _) => (Action::Skip, "differs; the conflict policy is skip".into()),
        (_, OnConflict::Fail, _) => (Action::Conflict, "differs; the conflict policy is fail".into()),
        (_, OnConflict::Replace, _) if !holds_more => {
            (Action::Replace, "differs; deleted and made again".into())
        }
        (_, OnConflict::Recreate, Some(why)) if !holds_more => {
            (Action::Replace, format!("{why}; deleted and made again"))
        }
        (_, OnConflict::Update | OnConflict::Recreate | OnConflict::Replace, Some(why)) => {
            (Action::Skip, why.to_owned())
        }
        (_, OnConflict::Replace, None) => (Action::Update, "differs; never replaced, so updated".into()),
        (_, OnConflict::Update | OnConflict::Recreate, None) => (Action::Update, "differs; updated".into()),
    }
}

/// A live object as its counterpart in a point would look, owners left aside (they are compared by link).
pub(crate) fn comparable(live: &Object) -> Object {
    let mut object = clean(live);
    if let Some(Value::Object(metadata)) = object.0.get_mut("metadata") {
        metadata.shift_remove("ownerReferences");
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.shift_remove(RESTORING);
            if annotations.is_empty() {
                metadata.shift_remove("annotations");
            }
        }
    }
    object
}

/// What is wanted and what is there, ready to be compared. The volume of a claim counts only once it has one:
/// whether and when it is bound is the binder's business.
pub(crate) fn pair(wanted: &Object, live: &Object) -> (Object, Object) {
    let (mut now, mut wanted) = (comparable(live), wanted.clone());
    if wanted.str("/kind") == "PersistentVolumeClaim" {
        let bound = live.at("/spec/volumeName").cloned();
        let named = wanted.at("/spec/volumeName").is_some();
        for (object, volume) in [(&mut now, bound.clone()), (&mut wanted, None)] {
            if let Some(Value::Object(spec)) = object.0.get_mut("spec") {
                match volume.filter(|_| named) {
                    Some(volume) => {
                        spec.insert("volumeName".into(), volume);
                    }
                    None if bound.is_none() => {
                        spec.shift_remove("volumeName");
                    }
                    None => {}
                }
            }
        }
    }
    (now, wanted)
}

/// Owners that are on the target and not named by the object there.
fn missing_links(target: &Target<'_>, live: &Object, owners: &[OwnerLink]) -> Option<Change> {
    let named: Vec<String> = live.owner_references().into_iter().map(|owner| owner.uid).collect();
    let missing: Vec<Value> = owners
        .iter()
        .filter_map(|owner| (target.live)(&owner.key).map(|live| (owner, live)))
        .filter(|(_, live)| !named.iter().any(|uid| uid == live.uid()))
        .map(|(owner, _)| owner.key.to_string().into())
        .collect();
    (!missing.is_empty()).then(|| Change {
        at: "/metadata/ownerReferences".into(),
        before: None,
        after: Some(missing.into()),
    })
}

/// What the server would make of it: by its apply, or by a merge if its apply cannot handle the type.
async fn dry_run(cluster: &Cluster, step: &Step) -> (Method, Result<Object, ApiError>) {
    let options = ApplyOptions { force: true, dry_run: true };
    match cluster.apply(&step.resource, &step.desired, &options).await {
        Err(error) if is_apply_unable(&error) => {
            let path = format!(
                "{}?fieldManager={FIELD_MANAGER}&dryRun=All",
                step.resource.object_path(&step.key.namespace, &step.key.name)
            );
            let result = cluster
                .json(http::Method::PATCH, &path, "application/merge-patch+json", Some(&step.desired.0))
                .await
                .map(Object);
            (Method::Merge, result)
        }
        result => (Method::Apply, result),
    }
}

/// The server's apply knows a type by its published schema; fields and lists outside of it make it fail
/// where any other write succeeds.
pub(super) fn is_apply_unable(error: &ApiError) -> bool {
    match error {
        ApiError::Invalid { message, .. } | ApiError::Other { message, .. } => {
            message.contains("typed patch")
                || message.contains("schema")
                || message.contains("duplicate entries")
        }
        _ => false,
    }
}

/// Whether the live object has fields that are neither the point's nor filled in by the server.
async fn has_extra(
    cluster: &Cluster,
    step: &Step,
    live: &Object,
    now: &Object,
    differences: &[Change],
) -> bool {
    if !differences.iter().any(|change| change.after.is_none()) {
        return false;
    }
    let mut whole = step.desired.clone();
    if let Some(Value::Object(metadata)) = whole.0.get_mut("metadata") {
        metadata.insert("resourceVersion".into(), live.resource_version().into());
        metadata.insert("uid".into(), live.uid().into());
    }
    match cluster.replace(&step.resource, &whole, true).await {
        Ok(result) => !changes(&now.0, &pair(&step.desired, &result).0.0).is_empty(),
        Err(_) => false,
    }
}

/// Is what is there something else than what is wanted?
fn differs(live: &Object, desired: &Object) -> bool {
    let (now, wanted) = pair(desired, live);
    !changes(&now.0, &wanted.0).is_empty()
}

/// What every namespace gets: nobody's work yet.
fn is_made_by_cluster(live: &Object) -> bool {
    matches!((kinds::of(live).keep)(live, &|_| None), Keep::No(_))
}

/// A volume that nobody has, reserved for the claim that is coming back.
fn is_released_for(live: &Object, desired: &Object) -> bool {
    live.str("/kind") == "PersistentVolume"
        && matches!(live.str("/status/phase"), "Released" | "Failed")
        && !live.str("/spec/claimRef/uid").is_empty()
        && ["/spec/claimRef/namespace", "/spec/claimRef/name"].iter().all(|p| live.str(p) == desired.str(p))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_share_is_never_changed_and_what_holds_more_than_itself_is_never_deleted() {
        use OnConflict::*;
        let cases = [
            ("ConfigMap", Role::Member, Skip, None, Action::Skip),
            ("ConfigMap", Role::Member, Update, None, Action::Update),
            ("ConfigMap", Role::Member, Replace, None, Action::Replace),
            ("ConfigMap", Role::Member, Fail, None, Action::Conflict),
            ("ConfigMap", Role::Shared, Replace, None, Action::Skip),
            ("ConfigMap", Role::Shared, Fail, None, Action::Skip),
            ("Namespace", Role::Cluster, Update, None, Action::Skip),
            ("ConfigMap", Role::Member, Update, Some("immutable"), Action::Skip),
            ("ConfigMap", Role::Member, Replace, Some("immutable"), Action::Replace),
            ("ConfigMap", Role::Member, Recreate, None, Action::Update),
            ("ConfigMap", Role::Member, Recreate, Some("immutable"), Action::Replace),
            ("PersistentVolumeClaim", Role::Member, Recreate, Some("immutable"), Action::Skip),
            ("PersistentVolumeClaim", Role::Member, Replace, None, Action::Update),
            ("PersistentVolumeClaim", Role::Member, Replace, Some("immutable"), Action::Skip),
        ];
        for (kind, role, policy, refused, want) in cases {
            let key = ObjectKey::new("", kind, "shop", "x");
            let (action, reason) = by_policy(policy, role, &key, refused);
            assert_eq!(action, want, "{kind} {role:?} {policy:?} {refused:?}");
            assert!(!reason.is_empty());
        }
    }

    #[test]
    fn a_released_volume_is_taken_over_only_for_its_own_claim() {
        let volume = |phase: &str, uid: &str, claim: &str| {
            Object(
                json!({"kind": "PersistentVolume", "spec": {"claimRef": {"namespace": "n", "name": claim, "uid": uid}}, "status": {"phase": phase}}),
            )
        };
        let wanted = volume("", "", "data");
        for (live, want) in [
            (volume("Released", "u", "data"), true),
            (volume("Failed", "u", "data"), true),
            (volume("Bound", "u", "data"), false),
            (volume("Released", "u", "other"), false),
            (volume("Released", "", "data"), false),
        ] {
            assert_eq!(is_released_for(&live, &wanted), want, "{live:?}");
        }
    }
}
