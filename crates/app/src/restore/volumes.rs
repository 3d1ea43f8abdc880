//! Claims and their volumes on the way to the target.
//!
//! A volume that was provisioned for its claim stays behind: the target's class provisions a new one. A
//! volume an administrator wrote by hand (a local disk, a host path, an NFS export) is restored with its
//! claim, and the two name each other, so that neither binds to anything else. A claim whose class is
//! mapped gets a volume of the new class instead.

use std::collections::BTreeMap;

use repo::Finding;
use serde_json::Value;

use super::{Left, Prepared};
use crate::object::{Object, ObjectKey};
use crate::point::StoredObject;

/// Ties claims and hand-written volumes together, and leaves out volumes without a claim here.
pub(super) fn settle(prepared: &mut Prepared, objects: &[StoredObject]) {
    let class_of = |object: &Object| object.str("/spec/storageClassName").to_owned();
    let claims: BTreeMap<ObjectKey, bool> = prepared
        .candidates
        .iter()
        .filter(|candidate| candidate.key.is("", "PersistentVolumeClaim"))
        .map(|candidate| {
            let stored = candidate.stored.and_then(|index| objects.get(index));
            let before = stored.map(|stored| class_of(&stored.clean.open()));
            (candidate.key.clone(), before.is_none_or(|before| before == class_of(&candidate.desired)))
        })
        .collect();
    let mut bound: BTreeMap<ObjectKey, String> = BTreeMap::new();
    let Prepared { candidates, left, .. } = prepared;
    candidates.retain(|candidate| {
        if !candidate.key.is("", "PersistentVolume") {
            return true;
        }
        let claim = claim_of(&candidate.desired);
        let reason = match claims.get(&claim) {
            _ if claim.name.is_empty() => return true,
            Some(true) => {
                bound.insert(claim, candidate.key.name.clone());
                return true;
            }
            Some(false) => {
                format!("its claim {claim} is mapped to another storage class and gets a volume of that")
            }
            None => format!("its claim {claim} is not restored"),
        };
        left.extend(candidate.was.clone().map(|key| Left { key, reason }));
        false
    });
    for candidate in candidates {
        if let Some(volume) = bound.get(&candidate.key)
            && let Some(Value::Object(spec)) = candidate.desired.0.get_mut("spec")
        {
            spec.insert("volumeName".into(), volume.clone().into());
        }
    }
}

/// The claim a volume is reserved for.
pub(super) fn claim_of(volume: &Object) -> ObjectKey {
    ObjectKey::new(
        "",
        "PersistentVolumeClaim",
        volume.str("/spec/claimRef/namespace"),
        volume.str("/spec/claimRef/name"),
    )
}

/// Where a volume's bytes are, as its object says it: two volumes with the same place are the same bytes.
fn place(volume: &Object) -> Option<(String, Value, Option<Value>)> {
    const SOURCES: [&str; 8] = ["hostPath", "local", "nfs", "csi", "iscsi", "fc", "rbd", "cephfs"];
    let spec = volume.at("/spec")?;
    let source = SOURCES.iter().find(|source| spec.get(**source).is_some())?;
    let mut value = spec.get(*source)?.clone();
    if let Value::Object(fields) = &mut value {
        // How it is reached, not where it is.
        for how in ["type", "readOnly", "fsType"] {
            fields.shift_remove(how);
        }
    }
    Some(((*source).to_owned(), value, spec.get("nodeAffinity").cloned()))
}

/// Volumes of the plan whose bytes are those of another volume on the target: leaves them out.
pub(super) fn without_shared_places(prepared: &mut Prepared, live: &[Object]) {
    let mut refused: BTreeMap<ObjectKey, String> = BTreeMap::new();
    for candidate in prepared.candidates.iter().filter(|c| c.key.is("", "PersistentVolume")) {
        let Some(here) = place(&candidate.desired) else { continue };
        let other = live.iter().find(|other| {
            other.name() != candidate.key.name
                && place(other).as_ref() == Some(&here)
                && claim_of(other) != claim_of(&candidate.desired)
        });
        if let Some(other) = other {
            refused.insert(candidate.key.clone(), other.name().to_owned());
        }
    }
    let Prepared { candidates, left, findings } = prepared;
    candidates.retain(|candidate| {
        let Some(other) = refused.get(&candidate.key) else { return true };
        let claim = claim_of(&candidate.desired);
        findings.push(Finding::error(
            "volume-in-use",
            candidate.key.to_string(),
            format!(
                "it is the same storage as PersistentVolume {other}, which belongs to another claim, so it is not \
                 restored and {claim} stays without a volume. Map the storage class of the claim, or patch the \
                 volume to another place"
            ),
        ));
        left.extend(candidate.was.clone().map(|key| Left {
            key,
            reason: format!("it is the same storage as PersistentVolume {other}"),
        }));
        false
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::restore::prepare::tests::{candidate, stored};

    #[test]
    fn a_hand_written_volume_and_its_claim_come_back_together_or_not_at_all() {
        let claim = |class: &str| json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "shop", "name": "data"}, "spec": {"storageClassName": class}});
        let volume = |claim: &str| json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "shop", "name": claim}}});
        let cases = [
            ("together", claim("manual"), volume("data"), Some("pv"), true),
            ("class mapped", claim("fast"), volume("data"), None, false),
            ("claim elsewhere", claim("manual"), volume("other"), None, false),
        ];
        for (story, wanted_claim, wanted_volume, volume_name, stays) in cases {
            let objects = vec![stored(claim("manual")), stored(wanted_volume.clone())];
            let mut prepared = Prepared {
                candidates: vec![candidate(0, wanted_claim), candidate(1, wanted_volume)],
                ..Prepared::default()
            };
            settle(&mut prepared, &objects);
            let got = prepared.candidates[0].desired.at("/spec/volumeName").and_then(Value::as_str);
            assert_eq!(got, volume_name, "{story}");
            assert_eq!(prepared.candidates.len() == 2, stays, "{story}");
            assert_eq!(prepared.left.is_empty(), stays, "{story}");
        }
    }

    #[test]
    fn a_copy_never_gets_the_storage_of_a_volume_in_use() {
        let volume = |name: &str, claim: &str, source: Value| {
            let mut v = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {"claimRef": {"namespace": "shop", "name": claim}}});
            v["spec"].as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            v
        };
        let nfs = json!({"nfs": {"server": "s", "path": "/a"}});
        let cases = [
            ("the same export", volume("live", "other", nfs.clone()), nfs.clone(), false),
            (
                "read-only is the same",
                volume("live", "other", json!({"nfs": {"server": "s", "path": "/a", "readOnly": true}})),
                nfs.clone(),
                false,
            ),
            (
                "another export",
                volume("live", "other", json!({"nfs": {"server": "s", "path": "/b"}})),
                nfs.clone(),
                true,
            ),
            ("itself", volume("pv", "other", nfs.clone()), nfs.clone(), true),
            ("its own claim's", volume("live", "data", nfs.clone()), nfs, true),
            (
                "a disk of another node",
                volume("live", "other", json!({"local": {"path": "/d"}, "nodeAffinity": {"n": 1}})),
                json!({"local": {"path": "/d"}, "nodeAffinity": {"n": 2}}),
                true,
            ),
        ];
        for (story, live, source, stays) in cases {
            let mut prepared = Prepared {
                candidates: vec![candidate(0, volume("pv", "data", source))],
                ..Prepared::default()
            };
            without_shared_places(&mut prepared, &[Object(live)]);
            assert_eq!(prepared.candidates.len() == 1, stays, "{story}");
            assert_eq!(prepared.findings.is_empty(), stays, "{story}");
        }
    }
}
