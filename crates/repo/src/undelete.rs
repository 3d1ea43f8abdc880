//! Undoes what a thief of the store's credentials did to a bucket with versions: deletions that only hid objects,
//! and overwrites that put garbage over them.
//!
//! A repository never leaves a delete marker or a second version: it creates every object once, and deletes
//! versions, not names. So whatever is found was done by somebody else. An object's name is the hash of its bytes,
//! which tells the right version from the others; of the header, whose name is fixed, the right version is the one with
//! which the passphrase opens a key.
//!
//! Nothing is removed but delete markers, and nothing is overwritten: a version that lies under garbage is put
//! again as the newest one. Header and keys first, commits last (R2).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::env::{Env, rfc3339};
use crate::error::Error;
use crate::id::{COMMITS, CommitId, HEADER, HOLDS, HoldId, INDEX, KEYS, PACKS, PackId, SegmentId};
use crate::immutable::{each, lock_in_header};
use crate::keys::{key_id_fits, opens};
use crate::monitor::{Finding, Outcome};
use crate::secret::Unlock;
use crate::store::vault::{Lock, Vault, Version};
use crate::store::{Store, StoreError};

/// Where objects of a repository are, in the order in which they are brought back.
const FOLDERS: [&str; 6] = [HEADER, KEYS, PACKS, INDEX, HOLDS, COMMITS];

/// What somebody did to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    /// It looks deleted.
    Deleted,
    /// Other bytes lie over it.
    Overwritten,
}

/// One object to bring back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The object.
    pub key: String,
    /// What was done to it.
    pub deed: Deed,
    /// When (RFC 3339), as the store says.
    pub at: String,
    /// The version that is right.
    pub version: String,
    /// Markers to remove; empty: the version is put again.
    pub markers: Vec<String>,
}

impl Step {
    /// As `check` tells it.
    pub fn finding(&self) -> Finding {
        let (code, what) = match self.deed {
            Deed::Deleted => ("deleted-by-somebody", "deleted by somebody"),
            Deed::Overwritten => ("overwritten-by-somebody", "overwritten by somebody"),
        };
        Finding::warning(
            code,
            self.key.clone(),
            format!("{what} at {}; the store still has it: `holdfast repo undelete` brings it back", self.at),
        )
    }
}

/// What would be brought back. Executing it uses it up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In the order in which it happens.
    pub steps: Vec<Step>,
    /// What cannot be brought back.
    pub findings: Vec<Finding>,
}

/// What was brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Undeleted {
    /// Objects that looked deleted.
    pub deleted: u64,
    /// Objects that were overwritten.
    pub overwritten: u64,
}

/// One object's versions, the newest first.
type Versions = Vec<Version>;

/// Looks for what somebody deleted or overwrote. What opens the repository tells the right header, should there be
/// several; without it, the header is left out.
pub fn plan(store: &dyn Store, unlock: Option<Unlock<'_>>) -> Result<Plan, Error> {
    let Some(vault) = store.vault() else {
        return Err(Error::invalid(format!("{} keeps no versions", store.url())));
    };
    let mut plan = Plan::default();
    for folder in FOLDERS {
        if folder == HEADER {
            let versions = suspects(vault, HEADER)?;
            if let (Some(versions), Some(unlock)) = (versions.into_iter().next(), unlock) {
                plan_header(vault, versions, unlock, &mut plan)?;
            }
            continue;
        }
        for judged in each(&suspects(vault, folder)?, |versions| judge(vault, versions))? {
            match judged {
                Judged::Fine => {}
                Judged::Step(step) => plan.steps.push(step),
                Judged::Lost(finding) => plan.findings.push(finding),
            }
        }
    }
    Ok(plan)
}

/// The objects of which there is more than the one version that belongs there.
fn suspects(vault: &dyn Vault, folder: &str) -> Result<Vec<Versions>, Error> {
    let mut found: Vec<Versions> = Vec::new();
    let mut current: Versions = Vec::new();
    let mut settle = |current: Versions| {
        if current.len() > 1 && current.iter().any(|version| !version.marker) {
            found.push(current);
        }
    };
    vault.versions(folder, &mut |version| {
        if current.first().is_some_and(|first| first.key != version.key) {
            settle(std::mem::take(&mut current));
        }
        current.push(version);
        Ok(())
    })?;
    settle(current);
    if folder == HEADER {
        found.retain(|versions| versions.first().is_some_and(|version| version.key == HEADER));
    }
    Ok(found)
}

enum Judged {
    Fine,
    Step(Step),
    Lost(Finding),
}

/// Finds the version whose bytes hash to the name.
fn judge(vault: &dyn Vault, versions: &Versions) -> Result<Judged, Error> {
    let Some(key) = versions.first().map(|version| version.key.clone()) else { return Ok(Judged::Fine) };
    let data = versions.iter().filter(|version| !version.marker).count();
    for (at, version) in versions.iter().enumerate().filter(|(_, version)| !version.marker) {
        // A pack under nothing but markers is not read now: bringing it back costs a call, and `check` reads it.
        let right = (data == 1 && key.starts_with(PACKS))
            || match vault.get_version(&key, &version.id) {
                Ok(bytes) => fits(&key, &bytes),
                Err(error) if error.is_loss() => false,
                Err(error) => return Err(error.into()),
            };
        if right {
            return Ok(step_to(&key, versions, at));
        }
    }
    if !has_a_hash(&key) {
        return Ok(Judged::Fine);
    }
    Ok(Judged::Lost(Finding::error(
        "no-version-right",
        key,
        format!("somebody changed it, and none of its {data} version(s) hashes to its name"),
    )))
}

/// What it takes to have the version at this place seen again.
fn step_to(key: &str, versions: &Versions, at: usize) -> Judged {
    let (above, right) = versions.split_at(at);
    // What came right after the good version is when it happened.
    let (Some(right), Some(next)) = (right.first(), above.last()) else { return Judged::Fine };
    let only_markers = above.iter().all(|version| version.marker);
    let markers =
        if only_markers { above.iter().map(|marker| marker.id.clone()).collect() } else { Vec::new() };
    Judged::Step(Step {
        key: key.to_owned(),
        deed: if only_markers { Deed::Deleted } else { Deed::Overwritten },
        at: rfc3339(next.modified),
        version: right.id.clone(),
        markers,
    })
}

/// Of several headers the right one is that with which a key opens.
fn plan_header(
    vault: &dyn Vault,
    versions: Versions,
    unlock: Unlock<'_>,
    plan: &mut Plan,
) -> Result<(), Error> {
    let mut keys: BTreeMap<String, Bytes> = BTreeMap::new();
    vault.versions(KEYS, &mut |version| {
        if !version.marker && !keys.contains_key(&version.key) {
            let bytes = vault.get_version(&version.key, &version.id)?;
            if fits(&version.key, &bytes) {
                keys.insert(version.key, bytes);
            }
        }
        Ok(())
    })?;
    for (at, version) in versions.iter().enumerate().filter(|(_, version)| !version.marker) {
        let header = match vault.get_version(HEADER, &version.id) {
            Ok(header) => header,
            Err(error) if error.is_loss() => continue,
            Err(error) => return Err(error.into()),
        };
        if keys.values().any(|key| opens(&header, key, unlock)) {
            if let Judged::Step(step) = step_to(HEADER, &versions, at) {
                plan.steps.push(step);
            }
            return Ok(());
        }
    }
    plan.findings.push(Finding::error(
        "no-version-right",
        HEADER,
        "somebody changed it, and what was given opens a key with none of its versions",
    ));
    Ok(())
}

/// Whether an object of this name has these bytes.
fn fits(key: &str, bytes: &[u8]) -> bool {
    let hash = *blake3::hash(bytes).as_bytes();
    PackId::from_key(key).is_some_and(|id| id.0 == hash)
        || SegmentId::from_key(key).is_some_and(|id| id.0 == hash)
        || CommitId::from_key(key).is_some_and(|id| id.0 == hash)
        || HoldId::from_key(key).is_some_and(|(_, id)| id.0 == hash)
        || key.strip_prefix(KEYS).is_some_and(|id| key_id_fits(id, bytes))
}

/// Whether it is the name of an object of a repository at all.
fn has_a_hash(key: &str) -> bool {
    PackId::from_key(key).is_some()
        || SegmentId::from_key(key).is_some()
        || CommitId::from_key(key).is_some()
        || HoldId::from_key(key).is_some()
        || key.starts_with(KEYS)
}

impl Plan {
    /// Does it. An object that cannot be brought back is a finding.
    pub fn execute(self, store: &dyn Store, env: &Env) -> Result<Outcome<Undeleted>, Error> {
        let mut outcome = Outcome { done: Undeleted::default(), findings: self.findings };
        let Some(vault) = store.vault() else { return Ok(outcome) };
        // What is put again is locked like anything new, as the right header says.
        let header = match self.steps.iter().find(|step| step.key == HEADER) {
            Some(step) => vault.get_version(HEADER, &step.version),
            None => store.get(HEADER),
        };
        let policy = match header {
            Ok(header) => lock_in_header(&header),
            Err(error) if error.is_loss() => None,
            Err(error) => return Err(error.into()),
        };
        let lock = policy.map(|policy| Lock::new(policy.mode, env.now().saturating_add(policy.lasts())));
        for folder in FOLDERS {
            let steps: Vec<&Step> = self.steps.iter().filter(|step| step.key.starts_with(folder)).collect();
            if steps.is_empty() {
                continue;
            }
            let results = each(&steps, |step| match bring_back(vault, step, lock.as_ref()) {
                Err(error) if error.is_unavailable() => Err(error.into()),
                result => Ok(result),
            })?;
            for (step, result) in steps.iter().zip(results) {
                match (result, step.deed) {
                    (Ok(()), Deed::Deleted) => outcome.done.deleted += 1,
                    (Ok(()), Deed::Overwritten) => outcome.done.overwritten += 1,
                    (Err(error), _) => outcome.findings.push(Finding::error(
                        "not-brought-back",
                        step.key.clone(),
                        format!("{error}; version {} is still there", step.version),
                    )),
                }
            }
        }
        Ok(outcome)
    }
}

fn bring_back(vault: &dyn Vault, step: &Step, lock: Option<&Lock>) -> Result<(), StoreError> {
    if !step.markers.is_empty() {
        let removed = step.markers.iter().try_for_each(|marker| vault.delete_version(&step.key, marker));
        match removed {
            Err(StoreError::Denied { .. } | StoreError::Locked { .. }) => {}
            done => return done,
        }
        // Whoever may not delete even a marker can still put.
    }
    let bytes = vault.get_version(&step.key, &step.version)?;
    vault.put_over(&step.key, bytes, lock)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::check::{CheckOptions, check};
    use crate::store::locked::is_kept;
    use crate::store::vault::LockMode;
    use crate::store::versioned::{Flaws, VersionedStore};
    use crate::store::{list_all, vault::list_versions};
    use crate::{
        CommitDraft, CommitId, EntryKind, InitOptions, Kdf, Lane, LockPolicy, ManifestEntry, Passphrase,
        ReaderOptions, Repository, Timestamp, WriterOptions,
    };

    const DAY: Timestamp = 86_400 * 1_000_000_000;

    struct Site {
        env: Env,
        bucket: VersionedStore,
        commit: CommitId,
    }

    fn passphrase() -> Passphrase {
        Passphrase::new("x")
    }

    fn site() -> Site {
        let env = Env::fixed(20_000 * DAY, 1);
        let bucket = VersionedStore::new(&env, Flaws::default());
        let lock = Some(LockPolicy::new(LockMode::Compliance, 30 * 86_400).unwrap());
        let options = InitOptions { kdf: Kdf::cheap(), lock, ..InitOptions::default() };
        let repo = Repository::init(Arc::new(bucket.clone()), &passphrase(), &options, &env).unwrap();
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let chunk = writer.chunk(Lane::Data, Bytes::from_static(b"hold fast")).unwrap().wait().unwrap();
        let root = writer.root_of([(chunk, 9)]).unwrap();
        let figures = BTreeMap::new();
        let manifest = vec![ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures }];
        let draft = CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() };
        let commit = writer.commit(draft).unwrap().id;
        env.advance(DAY);
        Site { env, bucket, commit }
    }

    impl Site {
        fn open(&self) -> Result<Repository, Error> {
            Repository::open(Arc::new(self.bucket.clone()), &passphrase(), &self.env)
        }

        fn restore(&self) -> Result<Vec<u8>, Error> {
            let reader = self.open()?.reader(ReaderOptions::default())?;
            let entry = reader.manifest(&self.commit)?.remove(0);
            reader.bytes(&entry.root, 100)
        }

        fn keys(&self) -> Vec<String> {
            let keys = list_all(&self.bucket, "").unwrap().into_iter().map(|object| object.key);
            keys.filter(|key| is_kept(key)).collect()
        }

        fn undelete(&self) -> Outcome<Undeleted> {
            plan(&self.bucket, Some((&passphrase()).into()))
                .unwrap()
                .execute(&self.bucket, &self.env)
                .unwrap()
        }
    }

    #[test]
    fn whatever_a_thief_does_with_delete_and_put_is_undone() {
        type Attack = fn(&VersionedStore, &str);
        let attacks: [(&str, Attack); 4] = [
            ("deletes", |store, key| store.hide(key).unwrap()),
            ("deletes twice", |store, key| {
                store.hide(key).unwrap();
                store.hide(key).unwrap();
            }),
            ("overwrites", |store, key| store.put_over(key, Bytes::from_static(b"garbage"), None).unwrap()),
            ("overwrites, deletes and overwrites", |store, key| {
                store.put_over(key, Bytes::from_static(b"{\"format\":1}"), None).unwrap();
                store.hide(key).unwrap();
                store.put_over(key, Bytes::new(), None).unwrap();
            }),
        ];
        for (name, attack) in attacks {
            let site = site();
            let before = site.keys();
            for key in &before {
                attack(&site.bucket, key);
            }
            assert!(site.open().is_err() && site.restore().is_err(), "{name}");
            let planned = plan(&site.bucket, Some((&passphrase()).into())).unwrap();
            assert_eq!(
                (planned.steps.len(), planned.findings.len()),
                (before.len(), 0),
                "{name}: {planned:?}"
            );
            assert!(planned.steps.iter().all(|step| step.at == rfc3339(site.env.now())), "{name}");
            let older: Vec<_> = list_versions(&site.bucket, "").unwrap();
            let done = site.undelete();
            assert_eq!(done.findings, [], "{name}");
            assert_eq!((done.done.deleted + done.done.overwritten) as usize, before.len(), "{name}");
            assert_eq!(site.restore().unwrap(), b"hold fast", "{name}");
            // History stays: every version with bytes that was there is there.
            let now: Vec<String> =
                list_versions(&site.bucket, "").unwrap().into_iter().map(|version| version.id).collect();
            assert!(older.iter().filter(|version| !version.marker).all(|version| now.contains(&version.id)));
            // What was put again is locked like new.
            for key in before {
                assert!(site.bucket.lock_of(&key).unwrap().is_some(), "{name}: {key}");
            }
            assert_eq!(
                plan(&site.bucket, Some((&passphrase()).into())).unwrap(),
                Plan::default(),
                "{name}: and no more"
            );
        }
    }

    #[test]
    fn a_check_tells_what_somebody_did_and_an_untouched_repository_has_nothing_to_tell() {
        let site = site();
        let told = || -> Vec<(String, &'static str)> {
            let report = check(&site.open().unwrap(), &CheckOptions::default(), &()).unwrap();
            report.findings.into_iter().map(|finding| (finding.what, finding.code)).collect()
        };
        assert_eq!(told(), []);
        let key = site.commit.key();
        site.bucket.hide(&key).unwrap();
        assert_eq!(told(), [(key.clone(), "deleted-by-somebody")]);
        let finding = plan(&site.bucket, None).unwrap().steps[0].finding();
        assert!(finding.message.contains("1970") || finding.message.contains("20"), "{}", finding.message);
        assert!(finding.message.contains("`holdfast repo undelete` brings it back"));
        site.undelete();
        assert_eq!(told(), []);
        site.bucket.put_over(&key, Bytes::from_static(b"x"), None).unwrap();
        assert!(told().contains(&(key.clone(), "overwritten-by-somebody")));
        site.undelete();
        assert_eq!(told(), [], "what lies under the right version is of no interest");
    }

    #[test]
    fn what_no_version_is_right_of_is_told_and_the_rest_is_brought_back() {
        let site = site();
        site.env.advance(60 * DAY);
        let keys = site.keys();
        let segment = keys.iter().find(|key| key.starts_with(INDEX)).unwrap();
        // The lock is over, and somebody removes the version for good.
        let version = list_versions(&site.bucket, segment).unwrap().remove(0);
        site.bucket.put_over(segment, Bytes::from_static(b"garbage"), None).unwrap();
        site.bucket.delete_version(segment, &version.id).unwrap();
        site.bucket.hide(segment).unwrap();
        site.bucket.hide(&site.commit.key()).unwrap();
        let done = site.undelete();
        assert_eq!(done.done, Undeleted { deleted: 1, overwritten: 0 });
        assert_eq!((done.findings[0].code, &done.findings[0].what), ("no-version-right", segment));
    }

    #[test]
    fn a_store_without_versions_says_so() {
        let refused = plan(&crate::store::mem::MemStore::new(), None).unwrap_err();
        assert!(refused.to_string().contains("keeps no versions"), "{refused}");
    }
}
