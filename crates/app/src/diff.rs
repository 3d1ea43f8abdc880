//! What differs between two recovery points, or between a point and a cluster.
//!
//! Compared is what a restore would apply, mapping included, so an application that was just restored under
//! another name shows no difference. What a restore *must* change (UIDs, versions, times, addresses the
//! cluster gives) is no difference either, but it is not hidden: it is counted, field by field.

use std::collections::{BTreeMap, BTreeSet};

use repo::{Finding, Root};
use serde::Serialize;
use serde_json::Value;

use crate::api::Cluster;
use crate::compare::{Change, changes};
use crate::error::Error;
use crate::later::{says_nothing, without_positions};
use crate::object::{Gvk, Object, ObjectKey};
use crate::point::{Point, Restore, Role};
use crate::restore::{
    Candidate, Left, Only, Prepared, definition_key, give_way, in_one_version, in_version,
    observe_candidates, pair, prepare,
};
use crate::select::{Selection, select};
use crate::transform::{LAST_APPLIED, Transform};

/// What is compared, and how.
#[derive(Debug, Clone, Default)]
pub struct DiffOptions {
    /// What changes on the way from the first side to the second.
    pub transform: Transform,
    /// Which objects of the first side.
    pub only: Only,
    /// Compare `status` as well.
    pub status: bool,
}

/// One object that is on both sides and differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changed {
    /// Which object, on the second side.
    pub key: ObjectKey,
    /// Which object it is on the first side, if the name differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<ObjectKey>,
    /// Its fields.
    pub changes: Vec<Change>,
}

/// A field that a restore must change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// Why it is no difference: `uid`, `time`, `status`, `assigned by the cluster`, ….
    pub what: &'static str,
    /// The field; list positions read `*`.
    pub at: String,
    /// In how many objects.
    pub objects: usize,
}

/// The data of one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeDiff {
    /// The claim, on the second side.
    pub claim: ObjectKey,
    /// `same`, `changed`, `only before`, `only after`, or why it was not compared.
    pub state: String,
    /// Bytes before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_before: Option<u64>,
    /// Bytes after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_after: Option<u64>,
    /// Files before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files_before: Option<u64>,
    /// Files after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files_after: Option<u64>,
    /// Whether it is a difference.
    pub differs: bool,
}

/// The difference.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Objects only on the first side.
    pub only_before: Vec<ObjectKey>,
    /// Objects only on the second side.
    pub only_after: Vec<ObjectKey>,
    /// Objects that differ.
    pub changed: Vec<Changed>,
    /// How many objects are the same.
    pub same: usize,
    /// What a restore must change, and did.
    pub ignored: Vec<Ignored>,
    /// The data.
    pub volumes: Vec<VolumeDiff>,
    /// Objects of the first side that a restore leaves alone, which are not compared.
    pub left: Vec<Left>,
    /// What was found on the way.
    pub findings: Vec<Finding>,
}

impl Diff {
    /// Whether the two sides are the same but for what a restore must change.
    pub fn is_empty(&self) -> bool {
        self.only_before.is_empty()
            && self.only_after.is_empty()
            && self.changed.is_empty()
            && !self.volumes.iter().any(|volume| volume.differs)
    }
}

/// Where the volumes of a point are in its repository, by manifest entry.
pub type VolumeRoots = BTreeMap<String, Root>;

/// Compares two points.
///
/// # Errors
/// If a patch does not fit, or a kind selected is not there.
pub fn points(
    before: (&Point, &VolumeRoots),
    after: (&Point, &VolumeRoots),
    options: &DiffOptions,
) -> Result<Diff, Error> {
    let prepared = prepare(&before.0.objects, &options.transform, &options.only)?;
    let other = prepare(&after.0.objects, &Transform::default(), &Only::default())?;
    let there: BTreeMap<ObjectKey, Candidate> =
        other.candidates.into_iter().map(|candidate| (candidate.key.clone(), candidate)).collect();
    // Of both points, those of the second counting more: what it has now is served in its versions.
    let stored = before.0.objects.iter().chain(&after.0.objects);
    let definitions: BTreeMap<&ObjectKey, Value> = stored
        .filter(|stored| stored.key.kind == "CustomResourceDefinition")
        .map(|stored| (&stored.key, stored.original.open().0))
        .collect();
    let mut sides = Sides::new(before.0, options, prepared);
    for candidate in std::mem::take(&mut sides.prepared.candidates) {
        let original = |candidate: &Candidate| {
            candidate.stored.and_then(|index| after.0.objects.get(index)).map(|stored| stored.original.open())
        };
        match there.get(&candidate.key) {
            None => sides.only_before(&candidate),
            Some(there) => match original(there) {
                Some(original) => {
                    let definition = definitions.get(&definition_key(&candidate.resource));
                    sides.both(&candidate, &there.desired, &original, definition);
                }
                // A namespace that neither point holds an object of.
                None => {
                    sides.known.insert(candidate.key.clone());
                    sides.diff.same += 1;
                }
            },
        }
    }
    if options.only.is_empty() {
        let known = &sides.known;
        sides.diff.only_after = there.into_keys().filter(|key| !known.contains(key)).collect();
    }
    let mut diff = sides.finish();
    diff.volumes = volumes(before, after, &options.transform);
    Ok(diff)
}

/// Compares a point with a cluster.
///
/// # Errors
/// If the cluster does not answer, a patch does not fit, or a kind selected is not there.
pub async fn with_cluster(point: &Point, cluster: &Cluster, options: &DiffOptions) -> Result<Diff, Error> {
    let mut prepared = prepare(&point.objects, &options.transform, &options.only)?;
    give_way(cluster, &mut prepared).await?;
    let looked = observe_candidates(cluster, &mut prepared, 16).await?;
    let mut sides = Sides::new(point, options, prepared);
    for (candidate, live) in looked {
        match live {
            Some(live) => {
                let live = live.open();
                let (now, wanted) = pair(&candidate.desired, &live);
                let candidate = Candidate { desired: wanted, ..candidate };
                sides.both(&candidate, &now, &live, None);
            }
            None => sides.only_before(&candidate),
        }
    }
    if options.only.is_empty() {
        match added(point, cluster, &options.transform).await {
            Ok(keys) => {
                let known = &sides.known;
                sides.diff.only_after = keys.into_iter().filter(|key| !known.contains(key)).collect();
            }
            Err(error) => sides.diff.findings.push(Finding::warning(
                "not-searched",
                "the cluster",
                format!("what it has beyond the point is not known: {error}"),
            )),
        }
    }
    let mut diff = sides.finish();
    diff.volumes = point
        .volumes
        .iter()
        .map(|record| VolumeDiff {
            claim: claim_key(options.transform.namespace(&record.namespace), &record.claim),
            state: "data is not compared with a cluster".into(),
            bytes_before: Some(record.bytes),
            bytes_after: None,
            files_before: Some(record.files),
            files_after: None,
            differs: false,
        })
        .collect();
    Ok(diff)
}

/// Members the cluster has now, by the question the point was the answer to.
async fn added(
    point: &Point,
    cluster: &Cluster,
    transform: &Transform,
) -> Result<BTreeSet<ObjectKey>, Error> {
    let asked = Selection::from_json(&point.meta.selection);
    let namespaces = point.meta.namespaces.iter().map(|name| transform.namespace(name).to_owned()).collect();
    let selected = select(cluster, &Selection { namespaces, ..asked }).await?;
    Ok(selected
        .objects
        .into_iter()
        .filter(|(_, picked)| picked.role == Role::Member && picked.restore == Restore::Yes)
        .map(|(key, _)| key)
        .collect())
}

/// Collects the comparison of two sides.
struct Sides<'a> {
    point: &'a Point,
    options: &'a DiffOptions,
    prepared: Prepared,
    diff: Diff,
    known: BTreeSet<ObjectKey>,
    ignored: BTreeMap<(&'static str, String), usize>,
}

impl<'a> Sides<'a> {
    fn new(point: &'a Point, options: &'a DiffOptions, prepared: Prepared) -> Self {
        let mut sides = Sides {
            point,
            options,
            prepared,
            diff: Diff::default(),
            known: BTreeSet::new(),
            ignored: BTreeMap::new(),
        };
        sides.diff.left = std::mem::take(&mut sides.prepared.left);
        sides.diff.findings = std::mem::take(&mut sides.prepared.findings);
        // What is left out was seen too: it is not new on the other side.
        for left in &sides.diff.left {
            let mut key = left.key.clone();
            key.namespace = options.transform.namespace(&key.namespace).to_owned();
            sides.known.insert(key);
        }
        sides
    }

    fn only_before(&mut self, candidate: &Candidate) {
        self.known.insert(candidate.key.clone());
        self.diff.only_before.push(candidate.key.clone());
    }

    /// An object of both sides: `now` is the second side's as a restore would apply it, `raw` as it is.
    /// `definition` is that of a custom kind.
    fn both(&mut self, candidate: &Candidate, now: &Object, raw: &Object, definition: Option<&Value>) {
        self.known.insert(candidate.key.clone());
        let stored = candidate.stored.and_then(|index| self.point.objects.get(index));
        let original = match stored {
            // The same transform once more on the whole object, so that only what it cannot reach is left over.
            // It fitted the clean object; should a patch not fit the whole one, that one is compared as it was.
            Some(stored) => {
                let whole = stored.original.open().0;
                let done = self.options.transform.apply(&whole, &stored.resource.plural);
                done.map_or(whole, |done| done.value)
            }
            None => candidate.desired.0.clone(),
        };
        let (wanted, now) = self.one_version(candidate, now, definition);
        let gvk = now.gvk();
        let mut found = changes(&without_record(&wanted), &without_record(&now));
        found.retain(|change| match (&change.before, &change.after) {
            (Some(value), None) | (None, Some(value)) => !says_nothing(&gvk, &change.at, value),
            _ => true,
        });
        // What a conversion moves is neither assigned by the cluster nor a difference.
        let (original, raw) = match in_one_version(&Object(original.clone()), raw, definition) {
            Some((original, raw)) => (original.0, raw),
            None => (original, raw.clone()),
        };
        let raw = &raw;
        found.extend(owners(&Object(original.clone()), raw));
        if self.options.status {
            let status = |value: &Value| value.get("status").cloned().unwrap_or(Value::Null);
            found.extend(
                changes(&status(&original), &status(&raw.0))
                    .into_iter()
                    .map(|change| Change { at: format!("/status{}", change.at), ..change }),
            );
        }
        let mut seen = BTreeSet::new();
        for change in changes(&with_annotations(original), &with_annotations(raw.0.clone())) {
            let is_told =
                found.iter().any(|told| is_below(&change.at, &told.at) || is_below(&told.at, &change.at));
            if !is_told && let Some((what, at)) = must_change(&change.at, self.options.status) {
                seen.insert((what, at));
            }
        }
        for place in seen {
            *self.ignored.entry(place).or_default() += 1;
        }
        if found.is_empty() {
            self.diff.same += 1;
        } else {
            let was = candidate.was.clone().filter(|was| *was != candidate.key);
            self.diff.changed.push(Changed { key: candidate.key.clone(), was, changes: found });
        }
    }

    /// Both sides in one version of their kind. Where there is none, they are compared as they are, and that is told.
    fn one_version(
        &mut self,
        candidate: &Candidate,
        now: &Object,
        definition: Option<&Value>,
    ) -> (Object, Object) {
        let both = in_one_version(&candidate.desired, now, definition).map(|(wanted, now)| {
            // Two words for one node stand in the old version of this kind, and an old server keeps one of them.
            let current = Gvk { version: "v1".into(), ..now.gvk() };
            let is_old_slice = candidate.key.is("discovery.k8s.io", "EndpointSlice") && now.gvk() != current;
            let met = is_old_slice
                .then(|| Some((in_version(&wanted, &current, None)?, in_version(&now, &current, None)?)));
            met.flatten().unwrap_or((wanted, now))
        });
        both.unwrap_or_else(|| {
            let why = format!(
                "it is {} on one side and {} on the other, and neither can say all that the other says: its fields are \
                 compared as they stand",
                candidate.desired.str("/apiVersion"),
                now.str("/apiVersion")
            );
            let what = candidate.key.to_string();
            self.diff.findings.push(Finding::warning("no-common-version", what, why));
            (candidate.desired.clone(), now.clone())
        })
    }

    fn finish(mut self) -> Diff {
        self.diff.only_before.sort();
        self.diff.only_after.sort();
        self.diff.changed.sort_by(|a, b| a.key.cmp(&b.key));
        self.diff.left.sort();
        self.diff.ignored =
            self.ignored.into_iter().map(|((what, at), objects)| Ignored { what, at, objects }).collect();
        self.diff
    }
}

/// Without what kubectl writes down for its next apply: it says nothing that the object does not say.
fn without_record(object: &Object) -> Value {
    let mut value = object.0.clone();
    if let Some(Value::Object(metadata)) = value.get_mut("metadata")
        && let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
    {
        annotations.shift_remove(LAST_APPLIED);
        if annotations.is_empty() {
            metadata.shift_remove("annotations");
        }
    }
    value
}

/// So that each annotation is compared by itself, also against an object that has none.
fn with_annotations(mut object: Value) -> Value {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.entry("annotations").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    object
}

fn is_below(place: &str, other: &str) -> bool {
    place.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']))
}

/// Owners by what they are and not by their UID, which a restore must change.
fn owners(before: &Object, after: &Object) -> Option<Change> {
    let names = |object: &Object| -> BTreeSet<String> {
        object.owner_references().iter().map(|owner| format!("{} {}", owner.gvk.kind, owner.name)).collect()
    };
    let (old, new) = (names(before), names(after));
    (old != new).then(|| Change {
        at: "/metadata/ownerReferences".into(),
        before: Some(old.into_iter().collect::<Vec<_>>().into()),
        after: Some(new.into_iter().collect::<Vec<_>>().into()),
    })
}

/// Which of the things that a restore must change this field is.
fn must_change(at: &str, status_is_compared: bool) -> Option<(&'static str, String)> {
    let same = |what| Some((what, at.to_owned()));
    match at {
        "/metadata/uid" => same("uid"),
        "/metadata/resourceVersion" => same("resource version"),
        "/metadata/generation" => same("generation"),
        "/metadata/creationTimestamp" | "/metadata/selfLink" => same("time and place of creation"),
        _ if is_below(at, "/metadata/managedFields") => {
            Some(("managed fields", "/metadata/managedFields".into()))
        }
        _ if is_below(at, "/metadata/ownerReferences") => {
            Some(("uid of an owner", "/metadata/ownerReferences/*/uid".into()))
        }
        "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration" => {
            same("kubectl's own record")
        }
        _ if is_below(at, "/status") => (!status_is_compared).then(|| ("status", "/status".into())),
        _ => Some(("assigned by the cluster", without_positions(at))),
    }
}

fn claim_key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new("", "PersistentVolumeClaim", namespace, name)
}

/// Volumes by the roots of their trees: the same root is the same content, to the last bit.
fn volumes(
    before: (&Point, &VolumeRoots),
    after: (&Point, &VolumeRoots),
    transform: &Transform,
) -> Vec<VolumeDiff> {
    let of = |point: &Point, mapped: bool| -> BTreeMap<ObjectKey, (u64, u64, Option<String>)> {
        point
            .volumes
            .iter()
            .map(|record| {
                let namespace =
                    if mapped { transform.namespace(&record.namespace) } else { &record.namespace };
                (claim_key(namespace, &record.claim), (record.bytes, record.files, record.entry.clone()))
            })
            .collect()
    };
    let (old, new) = (of(before.0, true), of(after.0, false));
    let keys: BTreeSet<&ObjectKey> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .map(|claim| {
            let (was, is) = (old.get(claim), new.get(claim));
            let root = |side: Option<&(u64, u64, Option<String>)>, roots: &VolumeRoots| {
                side.and_then(|(.., entry)| roots.get(entry.as_deref()?).copied())
            };
            let (state, differs) = match (root(was, before.1), root(is, after.1)) {
                (Some(a), Some(b)) if a == b => ("same", false),
                (Some(_), Some(_)) => ("changed", true),
                (Some(_), None) => ("only before", true),
                (None, Some(_)) => ("only after", true),
                (None, None) => ("on neither side", false),
            };
            VolumeDiff {
                claim: claim.clone(),
                state: state.into(),
                bytes_before: was.map(|side| side.0),
                bytes_after: is.map(|side| side.0),
                files_before: was.map(|side| side.1),
                files_after: is.map(|side| side.1),
                differs,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restore_must_change_is_told_by_its_kind() {
        let cases = [
            ("/metadata/uid", Some(("uid", "/metadata/uid"))),
            ("/metadata/managedFields/0/time", Some(("managed fields", "/metadata/managedFields"))),
            (
                "/metadata/ownerReferences[name=x]/uid",
                Some(("uid of an owner", "/metadata/ownerReferences/*/uid")),
            ),
            ("/status/replicas", Some(("status", "/status"))),
            ("/spec/clusterIP", Some(("assigned by the cluster", "/spec/clusterIP"))),
            ("/spec/clusterIPs/0", Some(("assigned by the cluster", "/spec/clusterIPs/*"))),
            ("/spec/ports[name=http]/nodePort", Some(("assigned by the cluster", "/spec/ports/*/nodePort"))),
        ];
        for (at, want) in cases {
            let want = want.map(|(what, at)| (what, at.to_owned()));
            assert_eq!(must_change(at, false), want, "{at}");
        }
        assert_eq!(must_change("/status/replicas", true), None);
    }
}
