//! Planning: what a restore would do, decided with the target before our eyes and nothing changed.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use repo::{Finding, Severity};
use serde_json::Value;

use super::decide::{PARTIAL, RESTORING, Target, Wanted, decide};
use super::observe::Observed;
use super::only::definition_key;
use super::status::Fate;
use super::{
    Action, Candidate, ClusterScoped, Data, Left, PlannedWave, Prepared, RestoreOptions, RestorePlan, Served,
    Step, VolumeStep, addresses, expected, nothing_selected, observe, prepare, serve, stage_name, status,
    volumes, webhooks,
};
use crate::api::{ApiError, Cluster, ResourceType};
use crate::error::Error;
use crate::object::{Object, ObjectKey, Packed};
use crate::order::{self, Item};
use crate::point::{ClusterInfo, Point, Role};
use crate::volumes::Existing;

/// Plans the restore of a point into a cluster. Only reads, and asks for dry runs.
///
/// # Errors
/// If the cluster does not answer, the mapping does not fit, or nothing is selected.
pub async fn plan(point: &Point, cluster: &Cluster, options: &RestoreOptions) -> Result<RestorePlan, Error> {
    let mut prepared = prepare(&point.objects, &options.transform, &options.only)?;
    if prepared.candidates.is_empty() && prepared.left.is_empty() {
        return Err(nothing_selected(&options.only));
    }
    if options.cluster_scoped == ClusterScoped::Leave {
        leave_to_administrator(&mut prepared);
    }
    give_way(cluster, &mut prepared).await?;
    let items: Vec<Item> = prepared
        .candidates
        .iter()
        .map(|candidate| Item {
            key: candidate.key.clone(),
            stage: candidate.order,
            needs: candidate.needs.clone(),
        })
        .collect();
    let steps = steps(point, cluster, options, &mut prepared).await?;
    webhooks::tell_absent(cluster, &steps, &mut prepared.findings).await?;
    expected::look(cluster, &steps, &mut prepared.findings).await?;
    let Prepared { mut left, mut findings, .. } = prepared;
    let by_key: BTreeMap<ObjectKey, Step> = steps.into_iter().map(|step| (step.key.clone(), step)).collect();
    let volumes = volume_steps(point, cluster, options, &by_key, &mut findings).await?;
    let waves = waves(&items, by_key, &mut findings);
    left.sort();
    findings.sort_by(|a, b| (&a.what, a.code).cmp(&(&b.what, b.code)));
    Ok(RestorePlan {
        application: point.meta.application.clone(),
        target: ClusterInfo { id: cluster.id().await?, version: cluster.resources.version.clone() },
        on_conflict: options.on_conflict,
        mapping: options.transform.mapping().clone(),
        waves,
        volumes,
        left,
        findings,
    })
}

/// Takes out what belongs to the whole cluster, but for what the rest lives in.
fn leave_to_administrator(prepared: &mut Prepared) {
    let Prepared { candidates, left, .. } = prepared;
    candidates.retain(|candidate| {
        let stays = candidate.role != Role::Cluster
            || candidate.key.is("", "Namespace")
            || candidate.key.is("", "PersistentVolume");
        if !stays && let Some(key) = candidate.was.clone() {
            left.push(Left {
                key,
                reason: "cluster-scoped objects are left to the cluster's administrator".into(),
            });
        }
        stays
    });
}

/// What others on the target have already is not asked for: storage in use, addresses given away.
///
/// # Errors
/// If the cluster does not answer.
pub(crate) async fn give_way(cluster: &Cluster, prepared: &mut Prepared) -> Result<(), Error> {
    if prepared.candidates.iter().any(|candidate| candidate.key.is("", "PersistentVolume"))
        && let Some(live) = all(cluster, "PersistentVolume", &mut prepared.findings).await?
    {
        volumes::without_shared_places(prepared, &live);
    }
    if addresses::are_asked_for(prepared)
        && let Some(live) = all(cluster, "Service", &mut prepared.findings).await?
    {
        addresses::without_taken(prepared, &live);
    }
    Ok(())
}

/// All objects of a core kind on the target; nothing, and a finding, if we may not see them.
async fn all(
    cluster: &Cluster,
    kind: &str,
    findings: &mut Vec<Finding>,
) -> Result<Option<Vec<Object>>, Error> {
    let Some(resource) = cluster.resources.find("", kind) else { return Ok(None) };
    match cluster.list(resource, None, None).await {
        Ok(live) => Ok(Some(live)),
        Err(error @ ApiError::Unreachable { .. }) => Err(error.into()),
        Err(error) => {
            findings.push(Finding::warning(
                "forbidden",
                format!("every {kind} of the target"),
                format!("cannot see whether one of them has what a restored one asks for: {error}"),
            ));
            Ok(None)
        }
    }
}

/// Candidates in the version the target serves; those it cannot take are left out.
async fn resolve(
    cluster: &Cluster,
    prepared: &mut Prepared,
) -> Result<Vec<(Candidate, ResourceType, Option<String>)>, Error> {
    let mut served = Vec::with_capacity(prepared.candidates.len());
    let definitions = definitions(cluster, &prepared.candidates).await?;
    for mut candidate in std::mem::take(&mut prepared.candidates) {
        let definition =
            definitions.get(&definition_key(&candidate.resource)).map(|definition| &definition.0);
        match serve(&candidate.desired, &cluster.resources, definition) {
            Served::As(resource, object, note) => {
                candidate.desired = *object;
                served.push((candidate, *resource, note));
            }
            Served::Not(reason) => {
                let what = candidate.was.as_ref().unwrap_or(&candidate.key).to_string();
                prepared.findings.push(Finding::error("not-served", what, reason.clone()));
                prepared.left.extend(candidate.was.map(|key| Left { key, reason }));
            }
        }
    }
    Ok(served)
}

async fn observe_served(
    cluster: &Cluster,
    served: &[(Candidate, ResourceType, Option<String>)],
    at_once: usize,
    findings: &mut Vec<Finding>,
) -> Result<Observed, Error> {
    let wanted: Vec<(ResourceType, ObjectKey)> =
        served.iter().map(|(candidate, resource, _)| (resource.clone(), candidate.key.clone())).collect();
    let observed = observe::observe(cluster, &wanted, at_once).await?;
    for (key, error) in &observed.unknown {
        // Who may not see namespaces may well work in one; it is taken to be there.
        let (severity, message) = if key.is("", "Namespace") {
            (Severity::Note, format!("it cannot be seen, and is taken to be there: {error}"))
        } else if key.namespace.is_empty() {
            (
                Severity::Warning,
                format!("it cannot be seen, so it is left to the cluster's administrator: {error}"),
            )
        } else {
            (
                Severity::Error,
                format!("it is not known whether it is on the target, so it is left out: {error}"),
            )
        };
        findings.push(Finding::new(severity, "forbidden", key.to_string(), message));
    }
    Ok(observed)
}

/// Every candidate that can be on the target, and what is there in its place.
///
/// # Errors
/// If the cluster does not answer.
pub(crate) async fn observe_candidates(
    cluster: &Cluster,
    prepared: &mut Prepared,
    at_once: usize,
) -> Result<Vec<(Candidate, Option<Packed>)>, Error> {
    let served = resolve(cluster, prepared).await?;
    let mut observed = observe_served(cluster, &served, at_once, &mut prepared.findings).await?;
    Ok(served
        .into_iter()
        .filter(|(candidate, ..)| !observed.unknown.contains_key(&candidate.key))
        .map(|(candidate, ..)| {
            let live = observed.live.remove(&candidate.key);
            (candidate, live)
        })
        .collect())
}

/// One step for every candidate that the target can take.
async fn steps(
    point: &Point,
    cluster: &Cluster,
    options: &RestoreOptions,
    prepared: &mut Prepared,
) -> Result<Vec<Step>, Error> {
    let served = resolve(cluster, prepared).await?;
    let observed = observe_served(cluster, &served, options.at_once, &mut prepared.findings).await?;
    let there: BTreeSet<&str> = observed
        .live
        .iter()
        .filter(|(key, _)| key.is("", "Namespace"))
        .filter(|(_, live)| live.open().str("/metadata/deletionTimestamp").is_empty())
        .map(|(key, _)| key.name.as_str())
        .chain(observed.unknown.keys().filter(|key| key.is("", "Namespace")).map(|key| key.name.as_str()))
        .collect();
    let live = |key: &ObjectKey| {
        // What lives in a namespace that is going away is going away too.
        let is_there = key.namespace.is_empty() || there.contains(key.namespace.as_str());
        observed.live.get(key).filter(|_| is_there).map(Packed::open)
    };
    let target = Target {
        cluster,
        on_conflict: options.on_conflict,
        cluster_scoped: options.cluster_scoped,
        live: &live,
    };
    let mut decided = futures::stream::iter(served)
        .filter(|(candidate, ..)| std::future::ready(!observed.unknown.contains_key(&candidate.key)))
        .map(|(candidate, resource, note)| {
            let namespace = candidate.key.namespace.as_str();
            let can_dry_run = (namespace.is_empty() || there.contains(namespace))
                && cluster.resources.find_version(&resource.gvk()).is_some();
            let stored = candidate.stored.and_then(|index| point.objects.get(index));
            let status =
                stored.map_or(Fate::Observed, |stored| status::fate(stored, &resource, &options.status));
            let balanced_at = stored
                .filter(|stored| stored.key.is("", "Service"))
                .and_then(|stored| addresses::balanced_at(&stored.original.open().0));
            decide(&target, Wanted { can_dry_run, candidate, resource, note, status, balanced_at })
        })
        .buffer_unordered(options.at_once.max(1));
    let mut steps = Vec::new();
    while let Some((step, mut findings)) = decided.next().await {
        steps.push(step);
        prepared.findings.append(&mut findings);
    }
    Ok(steps)
}

/// The definitions of the custom kinds among the candidates: the target's if it has one, else the point's.
async fn definitions(
    cluster: &Cluster,
    candidates: &[Candidate],
) -> Result<BTreeMap<ObjectKey, Object>, Error> {
    let mut found: BTreeMap<ObjectKey, Object> = candidates
        .iter()
        .filter(|candidate| candidate.key.kind == "CustomResourceDefinition")
        .map(|candidate| (candidate.key.clone(), candidate.desired.clone()))
        .collect();
    let unserved: BTreeSet<ObjectKey> = candidates
        .iter()
        .filter(|candidate| cluster.resources.find_version(&candidate.desired.gvk()).is_none())
        .filter(|candidate| candidate.key.group.contains('.') && !candidate.key.group.ends_with(".k8s.io"))
        .map(|candidate| definition_key(&candidate.resource))
        .collect();
    for key in unserved {
        match cluster.get_key(&key).await {
            Ok(Some(live)) => {
                found.insert(key, live);
            }
            // Not there, or not to be seen: then the versions that are served are all that is known.
            Ok(None) | Err(ApiError::Denied { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// The steps in the order they are applied.
fn waves(
    items: &[Item],
    mut by_key: BTreeMap<ObjectKey, Step>,
    findings: &mut Vec<Finding>,
) -> Vec<PlannedWave> {
    let (waves, mut circles) = order::waves(items);
    findings.append(&mut circles);
    waves
        .into_iter()
        .map(|wave| PlannedWave {
            stage: stage_name(wave.stage),
            steps: wave.items.iter().filter_map(|index| by_key.remove(&items.get(*index)?.key)).collect(),
            order: Some(wave.stage),
        })
        .filter(|wave| !wave.steps.is_empty())
        .collect()
}

/// What becomes of the data.
async fn volume_steps(
    point: &Point,
    cluster: &Cluster,
    options: &RestoreOptions,
    steps: &BTreeMap<ObjectKey, Step>,
    findings: &mut Vec<Finding>,
) -> Result<Vec<VolumeStep>, Error> {
    let by_origin: BTreeMap<&ObjectKey, &Step> =
        steps.values().map(|step| (step.was.as_ref().unwrap_or(&step.key), step)).collect();
    let mut volumes = Vec::new();
    for record in &point.volumes {
        let was = ObjectKey::new("", "PersistentVolumeClaim", &record.namespace, &record.claim);
        let Some(claim) = by_origin.get(&was) else { continue };
        let volume = claim.desired.at("/spec/volumeName").and_then(Value::as_str).map(str::to_owned);
        let mut step = VolumeStep {
            claim: claim.key.clone(),
            was: claim.was.clone(),
            restore: false,
            reason: String::new(),
            bytes: record.bytes,
            files: record.files,
            entry: record.entry.clone(),
            existing: Existing::Refuse,
            resumes: false,
            volume: volume.clone(),
        };
        let volume_left_out = volume
            .is_some_and(|name| !steps.contains_key(&ObjectKey::new("", "PersistentVolume", "", &name)));
        if let Some(missing) = &record.missing {
            step.reason = format!("its data is not in the point: {missing}");
            findings.push(Finding::error(
                "data-missing",
                step.claim.to_string(),
                format!(
                    "its data is not in the point ({missing}), so whoever uses it starts with an empty volume"
                ),
            ));
        } else if step.entry.is_none() {
            step.reason = "the point names no data for it".into();
        } else if options.data == Data::Leave {
            step.reason = "only objects are restored".into();
        } else if volume_left_out {
            step.reason = "its volume is not restored".into();
        } else {
            fate(cluster, options.data, claim, &mut step, findings).await?;
        }
        volumes.push(step);
    }
    check_classes(cluster, steps, &volumes, findings).await?;
    Ok(volumes)
}

/// Data for a claim: into a new one always, into one that is there only for a reason.
async fn fate(
    cluster: &Cluster,
    data: Data,
    claim: &Step,
    step: &mut VolumeStep,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    if claim.action == Action::Create {
        step.restore = true;
        step.reason = "into the new claim".into();
        return Ok(());
    }
    let live = cluster.get(&claim.resource, &claim.key.namespace, &claim.key.name).await?;
    let mark = live.as_ref().and_then(|live| live.annotation(RESTORING));
    if mark.is_none() && data == Data::New {
        step.reason = "the claim exists; its data is left alone".into();
        return Ok(());
    }
    let users = match running_users(cluster, &claim.key).await {
        Err(Error::Denied(why)) => {
            step.reason = format!("it is not known whether a pod uses it: {why}");
            findings.push(Finding::error("forbidden", step.claim.to_string(), step.reason.clone()));
            return Ok(());
        }
        users => users?,
    };
    if !users.is_empty() {
        step.reason = format!("in use by {}; its data is left alone", users.join(", "));
        findings.push(Finding::error(
            "claim-in-use",
            step.claim.to_string(),
            format!(
                "running pods mount it ({}), and writing under them would corrupt what they hold; stop them, then \
                 restore again",
                users.join(", ")
            ),
        ));
        return Ok(());
    }
    step.restore = true;
    (step.existing, step.resumes, step.reason) = match (mark, data) {
        (Some(PARTIAL), _) => (Existing::Mirror, true, "an earlier restore did not finish it".into()),
        (_, Data::Overwrite) => (Existing::Mirror, false, "over the data that is there".into()),
        _ => (Existing::Refuse, false, "an earlier restore did not come to it".into()),
    };
    Ok(())
}

/// Pods that mount a claim and have not ended.
async fn running_users(cluster: &Cluster, claim: &ObjectKey) -> Result<Vec<String>, Error> {
    let Some(pods) = cluster.resources.find("", "Pod") else { return Ok(Vec::new()) };
    let pods = cluster.list(pods, Some(&claim.namespace), None).await?;
    Ok(pods
        .iter()
        .filter(|pod| !matches!(pod.str("/status/phase"), "Succeeded" | "Failed"))
        .filter(|pod| {
            let volumes = pod.at("/spec/volumes").and_then(Value::as_array);
            volumes.into_iter().flatten().any(|volume| {
                volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str)
                    == Some(claim.name.as_str())
            })
        })
        .map(|pod| pod.key().to_string())
        .collect())
}

/// Classes that new claims ask for: nobody has them, or they wait for a pod that the data must precede.
async fn check_classes(
    cluster: &Cluster,
    steps: &BTreeMap<ObjectKey, Step>,
    volumes: &[VolumeStep],
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let mut asked: BTreeMap<ObjectKey, Vec<&Step>> = BTreeMap::new();
    for step in steps.values() {
        let class = step.desired.str("/spec/storageClassName");
        // A claim that names its volume is bound by that; the class is a mere label then.
        if step.key.is("", "PersistentVolumeClaim")
            && step.action == Action::Create
            && !class.is_empty()
            && step.desired.at("/spec/volumeName").is_none()
        {
            asked.entry(ObjectKey::new("storage.k8s.io", "StorageClass", "", class)).or_default().push(step);
        }
    }
    let names =
        |claims: &[&Step]| claims.iter().map(|step| step.key.to_string()).collect::<Vec<_>>().join(", ");
    for (key, claims) in asked {
        let class = match steps.get(&key) {
            Some(planned) => Some(planned.desired.clone()),
            None => match cluster.get_key(&key).await {
                // Whoever may not see classes learns it when the claim is bound, or not.
                Err(ApiError::Denied { .. }) => continue,
                class => class?,
            },
        };
        let Some(class) = class else {
            let message = format!(
                "the target has no such storage class, and {} will wait for it; map it to one the target has",
                names(&claims)
            );
            findings.push(Finding::warning("class-missing", key.to_string(), message));
            continue;
        };
        let waiting: Vec<&Step> = claims
            .into_iter()
            .filter(|step| volumes.iter().any(|volume| volume.restore && volume.claim == step.key))
            .collect();
        if class.str("/volumeBindingMode") == "WaitForFirstConsumer" && !waiting.is_empty() {
            let message = format!(
                "it gives a claim its volume only when a pod uses it, and data is written before any pod of the \
                 application starts; so a pod that does nothing holds {} meanwhile, on the node this runs on",
                names(&waiting)
            );
            findings.push(Finding::note("class-waits", key.to_string(), message));
        }
    }
    Ok(())
}
