//! Finds out what a store really does, by doing it: conditional puts (also eight at once), checksums, versions, locks.
//!
//! A service's word is not enough. There are services that answer every lock with «200» and delete the object the
//! next minute, that let a COMPLIANCE lock be shortened, that let three of eight conditional puts win. So a new
//! repository has everything it relies on proved on the live bucket, with objects under `probe/` that do no harm.
//!
//! What is left behind: the probe of a lock cannot be deleted before its date ([`PROBE_LOCK`]); it is hidden, and
//! the next probe removes it.

use std::sync::Barrier;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::keeper::{Fate, Keeper, KeeperSays, Retention};
use super::vault::{DefaultLock, Lock, LockMode, Vault, Version, list_versions};
use super::{Put, Store, StoreError};
use crate::env::{Env, Timestamp, rfc3339};
use crate::error::Error;

/// Where probes are put.
pub const PROBES: &str = "probe/";

const MINUTE: Timestamp = 60 * 1_000_000_000;
/// How long the probe of a lock is locked. Longer than the clocks of two machines that still talk to each other may
/// differ (signed requests allow for 15 minutes), so that the date is never already over.
pub const PROBE_LOCK: Timestamp = 20 * MINUTE;
/// As many at once as the race has.
const RACERS: u8 = 8;

/// What was proved, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// When (RFC 3339).
    pub at: String,
    /// A put never replaces, and of eight at once exactly one wins.
    pub conditional_put: bool,
    /// A put whose checksum does not fit is refused. `None`: the store has no checksums of its own.
    pub checksums: Option<bool>,
    /// Deleted and overwritten objects can be had back.
    pub versions: bool,
    /// The modes in which a locked object could be neither deleted nor unlocked.
    pub locks: Vec<LockMode>,
    /// What the bucket says it does with every object by itself.
    pub default_lock: Option<DefaultLock>,
    /// How long the bucket keeps every object by itself, where it was seen to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// What fell short, each in a sentence.
    pub notes: Vec<String>,
}

/// Probes the store; `modes` are the lock modes to try.
pub fn probe(store: &dyn Store, modes: &[LockMode], env: &Env) -> Result<Probe, Error> {
    let mut salt = [0; 8];
    env.random(&mut salt)?;
    let place = format!("{PROBES}{}", HEXLOWER.encode(&salt));
    let mut found = Probe { at: rfc3339(env.now()), ..Probe::default() };
    conditional_put(store, &place, &mut found)?;
    if let Some(vault) = store.vault() {
        sweep(vault, env)?;
        checksums(store, vault, &place, &mut found)?;
        match vault.bucket() {
            Ok(says) => {
                found.default_lock = says.default_lock;
                if says.versions || says.lock {
                    versions(store, vault, &place, &mut found)?;
                } else {
                    found
                        .notes
                        .push("the bucket keeps no versions: what is deleted or overwritten is gone".into());
                }
                if !says.lock && !modes.is_empty() {
                    found.notes.push(
                        "the bucket has no object lock; it is switched on when a bucket is made".into(),
                    );
                }
                // Asked for in spite of what it says, it is tried: some know locks and not the question.
                if says.lock || !modes.is_empty() {
                    for mode in modes {
                        locks(store, vault, &place, *mode, env, &mut found)?;
                    }
                }
            }
            Err(error) => {
                found.doubt("the bucket does not say whether it keeps versions and locks", error)?
            }
        }
    }
    if let Some(keeper) = store.keeper() {
        retention(store, keeper, &place, &mut found)?;
    }
    let shared = store.vault().is_some() || store.keeper().is_some();
    if shared && !found.versions && found.locks.is_empty() && found.retention.is_none() {
        found.notes.push(UNGUARDED.into());
    }
    Ok(found)
}

/// A condition protects from our own writers; a thief leaves it out.
const UNGUARDED: &str = "neither versions nor locks nor retention were proved: a stolen put key can overwrite objects, unless the \
                         bucket's policy refuses puts without a condition (docs/object-store.md)";

/// Reads what the bucket keeps by itself, and tries it.
fn retention(store: &dyn Store, keeper: &dyn Keeper, place: &str, found: &mut Probe) -> Result<(), Error> {
    let says = match keeper.policy() {
        Ok(says) => {
            found.notes.extend(says.notes.iter().cloned());
            if !says.keeps {
                return Ok(());
            }
            says
        }
        Err(error) => {
            found.doubt(
                "these credentials may not read what the bucket keeps by itself (on Google: storage.buckets.get), so only its objects tell",
                error,
            )?;
            KeeperSays::default()
        }
    };
    let key = format!("{place}-kept");
    let content = Bytes::from_static(b"kept");
    store.put(&key, content.clone())?;
    let Some(kept) = keeper.kept(&key)? else {
        if says.keeps {
            found.notes.push("the bucket says that it keeps objects, and one just put has no date".into());
        }
        return store_delete(store, &key, found);
    };
    match keeper.attack(&key, &content)? {
        Fate::Lost => {
            found.notes.push(
                "the bucket says that it keeps objects, and one just put could be overwritten or deleted".into(),
            );
            return Ok(());
        }
        Fate::Hidden => found.notes.push(
            "who may delete can hide objects; their bytes are kept as a version that nobody can remove before its date, and the \
             owner brings it back (make the version the current one)"
                .into(),
        ),
        Fate::Stays => {}
    }
    let seconds = kept.until.saturating_sub(kept.since) / 1_000_000_000;
    let told = says.retention.map_or(u64::MAX, |retention| retention.seconds);
    found.retention = Some(Retention {
        mode: kept.mode.or(says.retention.map(|retention| retention.mode)).unwrap_or(LockMode::Governance),
        seconds: told.min(seconds as u64),
    });
    Ok(())
}

impl Probe {
    /// Notes what a refusal means. An unreachable store proves nothing either way and ends the probe.
    fn doubt(&mut self, what: &str, error: StoreError) -> Result<(), Error> {
        if error.is_unavailable() {
            return Err(error.into());
        }
        self.notes.push(format!("{what}: {error}"));
        Ok(())
    }
}

fn conditional_put(store: &dyn Store, place: &str, found: &mut Probe) -> Result<(), Error> {
    let key = format!("{place}-twice");
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    store.put(&key, first.clone())?;
    let answer = store.put(&key, second)?;
    let stayed = store.get(&key)? == first;
    store_delete(store, &key, found)?;
    if answer == Put::Created || !stayed {
        found.notes.push("a put replaced an object that was to be created only if absent".into());
        return Ok(());
    }
    let key = format!("{place}-race");
    let barrier = Barrier::new(usize::from(RACERS));
    let mut won = Vec::new();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let race = |racer: u8| {
            let (barrier, key) = (&barrier, &key);
            scope.spawn(move || {
                barrier.wait();
                (racer, store.put(key, Bytes::from(vec![racer; 100])))
            })
        };
        let racers: Vec<_> = (0..RACERS).map(race).collect();
        racers.into_iter().map(|racer| racer.join()).collect()
    });
    for answer in answers {
        let (racer, put) = answer.map_err(|_| Error::failed("a thread of the probe ended early"))?;
        if put? == Put::Created {
            won.push(racer);
        }
    }
    let content = store.get(&key)?;
    store_delete(store, &key, found)?;
    match won.as_slice() {
        [one] if content == vec![*one; 100] => found.conditional_put = true,
        [_] => found.notes.push("of eight puts at once, another won than was told so".into()),
        many => found.notes.push(format!("of eight puts at once, {} won instead of one", many.len())),
    }
    Ok(())
}

/// What a bucket locks by itself stays, and is no reason not to go on.
fn store_delete(store: &dyn Store, key: &str, found: &mut Probe) -> Result<(), Error> {
    match store.delete(key) {
        Ok(()) => Ok(()),
        Err(StoreError::Locked { .. }) => store.vault().map_or(Ok(()), |vault| Ok(vault.hide(key)?)),
        Err(StoreError::Denied { .. }) => {
            let note = "these credentials may not delete: probes stay behind under probe/";
            if !found.notes.iter().any(|known| known == note) {
                found.notes.push(note.into());
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn checksums(store: &dyn Store, vault: &dyn Vault, place: &str, found: &mut Probe) -> Result<(), Error> {
    let key = format!("{place}-checksum");
    match vault.refuses_damage(&key) {
        Ok(refused) => {
            found.checksums = Some(refused);
            if !refused {
                found.notes.push("a put was accepted although its checksum did not fit".into());
                store_delete(store, &key, found)?;
            }
            Ok(())
        }
        Err(error) => found.doubt("whether checksums are looked at was not found out", error),
    }
}

/// Deletes and overwrites an object as an attacker would, and gets it back.
fn versions(store: &dyn Store, vault: &dyn Vault, place: &str, found: &mut Probe) -> Result<(), Error> {
    let key = format!("{place}-version");
    let content = Bytes::from_static(b"kept");
    let proved = (|| {
        store.put(&key, content.clone())?;
        vault.hide(&key)?;
        if !store.get(&key).is_err_and(|error| error.is_not_found()) {
            return Ok(Some("a deletion did not hide the object"));
        }
        let marker = |version: &Version| version.marker && version.latest;
        let Some(marker) = list_versions(vault, &key)?.into_iter().find(marker) else {
            return Ok(Some("a deletion left no marker"));
        };
        vault.delete_version(&key, &marker.id)?;
        if store.get(&key)? != content {
            return Ok(Some("removing the marker of a deletion did not bring the object back"));
        }
        vault.put_over(&key, Bytes::from_static(b"garbage"), None)?;
        let older = list_versions(vault, &key)?.into_iter().find(|version| !version.latest);
        match older.map(|version| vault.get_version(&key, &version.id)).transpose()? {
            Some(bytes) if bytes == content => Ok(None),
            _ => Ok(Some("an overwritten object could not be read any more")),
        }
    })();
    match proved {
        Ok(None) => found.versions = true,
        Ok(Some(short)) => found.notes.push(format!("the bucket says it keeps versions, and {short}")),
        Err(error) => found.doubt("whether versions are kept was not found out", error)?,
    }
    store_delete(store, &key, found)
}

/// Locks an object and then tries to get rid of it.
fn locks(
    store: &dyn Store,
    vault: &dyn Vault,
    place: &str,
    mode: LockMode,
    env: &Env,
    found: &mut Probe,
) -> Result<(), Error> {
    let key = format!("{place}-{}", mode.to_string().to_ascii_lowercase());
    let proved = (|| {
        let lock = |minutes: i64| Lock::new(mode, env.now() + PROBE_LOCK + minutes * MINUTE);
        let set = lock(0);
        vault.put_locked(&key, Bytes::from_static(b"locked"), &set)?;
        if vault.lock_of(&key)? != Some(set) {
            return Ok(Some("the lock was accepted and is not there".to_owned()));
        }
        let Some(version) = list_versions(vault, &key)?.into_iter().find(|version| version.latest) else {
            return Ok(Some("a locked object has no version".to_owned()));
        };
        if vault.set_lock(&key, &lock(-2)).is_ok() || vault.lock_of(&key)? != Some(set) {
            return Ok(Some("the date of a lock could be moved back".to_owned()));
        }
        let longer = lock(5);
        vault.set_lock(&key, &longer)?;
        if vault.lock_of(&key)? != Some(longer) {
            return Ok(Some("the date of a lock could not be moved forward".to_owned()));
        }
        if vault.delete_version(&key, &version.id).is_ok() {
            return Ok(Some("a locked object could be deleted".to_owned()));
        }
        vault.hide(&key)?;
        match vault.get_version(&key, &version.id) {
            Ok(bytes) if bytes == "locked" => Ok(None),
            Ok(_) => Ok(Some("a locked object was changed".to_owned())),
            Err(error) if error.is_not_found() => Ok(Some("a locked object was lost".to_owned())),
            Err(error) => Err(error),
        }
    })();
    match proved {
        Ok(None) => found.locks.push(mode),
        Ok(Some(short)) => found.notes.push(format!("{mode} does not hold: {short}")),
        Err(error) => found.doubt(&format!("{mode} was not proved"), error)?,
    }
    // Gone if its lock does not hold; else hidden until it may be removed.
    match store.delete(&key) {
        Err(error) if error.is_unavailable() => Err(error.into()),
        Err(_) if store.size(&key).is_ok() => Ok(vault.hide(&key)?),
        _ => Ok(()),
    }
}

/// Removes what earlier probes had to leave. What is still locked stays, and so does what another probe may be at
/// work with.
fn sweep(vault: &dyn Vault, env: &Env) -> Result<(), Error> {
    let before = env.now().saturating_sub(60 * MINUTE);
    // Whoever may not list versions cannot have hidden any.
    let Ok(mut left) = list_versions(vault, PROBES) else { return Ok(()) };
    left.retain(|version| version.modified < before);
    for version in left {
        match vault.delete_version(&version.key, &version.id) {
            Err(error) if error.is_unavailable() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::list_all;
    use super::super::mem::MemStore;
    use super::super::versioned::{Flaws, VersionedStore};
    use super::*;

    const MODES: [LockMode; 2] = [LockMode::Compliance, LockMode::Governance];

    /// Services as they are met, and what the probe makes of each.
    #[test]
    fn every_known_way_to_lie_is_found_out() {
        type Broken = fn(&Probe) -> bool;
        let cases: [(Flaws, Broken, &str); 7] = [
            (Flaws::default(), |_| false, ""),
            (Flaws { replaces: true, ..Flaws::default() }, |p| !p.conditional_put, "only if absent"),
            (Flaws { forgets_locks: true, ..Flaws::default() }, |p| p.locks.is_empty(), "is not there"),
            (Flaws { deletes_locked: true, ..Flaws::default() }, |p| p.locks.is_empty(), "could be deleted"),
            (Flaws { shortens: true, ..Flaws::default() }, |p| p.locks.is_empty(), "moved back"),
            (Flaws { accepts_damage: true, ..Flaws::default() }, |p| p.checksums == Some(false), "checksum"),
            (Flaws { one_version: true, ..Flaws::default() }, |p| !p.versions, "left no marker"),
        ];
        for (flaws, broken, said) in cases {
            let env = Env::fixed(1_000 * MINUTE, 1);
            let store = VersionedStore::new(&env, flaws);
            let found = probe(&store, &MODES, &env).unwrap();
            assert!(
                found.notes.iter().any(|note| note.contains(said)) || said.is_empty(),
                "{flaws:?}: {found:?}"
            );
            assert_eq!(broken(&found), !said.is_empty(), "{flaws:?}: {found:?}");
            let fine = |p: &Probe| {
                [p.conditional_put, p.checksums == Some(true), p.versions, p.locks == MODES]
                    .iter()
                    .filter(|fine| **fine)
                    .count()
            };
            // A store that forgets versions cannot hold a locked one either.
            let expected = if flaws.one_version { 2 } else { 4 - usize::from(!said.is_empty()) };
            assert_eq!(fine(&found), expected, "one lie is not mistaken for another: {flaws:?}: {found:?}");
            assert_eq!(list_all(&store, "").unwrap(), [], "nothing is left to be seen");
        }
    }

    #[test]
    fn what_a_probe_had_to_leave_the_next_one_removes() {
        let env = Env::fixed(1_000 * MINUTE, 1);
        let store = VersionedStore::new(&env, Flaws::default());
        probe(&store, &MODES, &env).unwrap();
        assert_eq!(list_versions(&store, "").unwrap().len(), 4, "two locked objects and their markers");
        env.advance(61 * MINUTE);
        probe(&store, &[], &env).unwrap();
        assert_eq!(list_versions(&store, "").unwrap(), []);
    }

    #[test]
    fn a_store_without_versions_is_taken_for_what_it_is() {
        let found = probe(&MemStore::new(), &[], &Env::fixed(0, 1)).unwrap();
        assert!(found.conditional_put && !found.versions && found.locks.is_empty() && found.notes.is_empty());
        assert_eq!(found.checksums, None);
    }
}
