//! Holds: who says that a recovery point stays, why, and until when.
//!
//! A hold is an object of its own beside the commit, never an entry in it: placing one changes no commit, and
//! releasing it is deleting the object. So whoever has a key may place one, and only who may delete from the
//! store can release it: a stolen put key can at most keep more (R5).
//!
//! The name of the object says which commit it holds, so that a hold whose bytes rotted still holds: it is
//! reported, and taken for one without an end until somebody releases it.

use std::fmt;

use serde::Serialize;

use crate::cbor::{Decoded, Decoder, Encoder, wrong};
use crate::crypto::{Keys, OpenError};
use crate::env::{Env, Timestamp};
use crate::error::Error;
use crate::id::{CommitId, HOLDS, HoldId};
use crate::monitor::{Finding, Outcome};
use crate::object::Capability;
use crate::repo::Repository;
use crate::store::StoreError;

const MAGIC: &[u8; 8] = b"HFHOLD01";
const MAC_LEN: usize = 32;
/// The longest reason and the longest name: a hold is a note, not a document.
pub const TEXT_BYTES_MAX: usize = 4_096;

/// One hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// Its name.
    pub id: HoldId,
    /// The commit that it holds.
    pub commit: CommitId,
    /// Why.
    pub reason: String,
    /// Who placed it, as they said; no proof of anything.
    pub who: String,
    /// When it was placed.
    pub placed: Timestamp,
    /// When it ends by itself; `None`: when it is released.
    pub until: Option<Timestamp>,
    /// Its bytes cannot be read. It holds without an end.
    pub damaged: bool,
}

impl Hold {
    /// Whether it holds at this time.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.damaged || self.until.is_none_or(|until| until > now)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.damaged {
            true => write!(f, "hold {} cannot be read", self.id.short()),
            false => f.write_str(&self.reason),
        }
    }
}

/// The bytes of a hold object.
fn encode(keys: &Keys, hold: &Hold, env: &Env) -> Result<Vec<u8>, Error> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(keys.seal_hold(MAGIC, &encode_body(hold), env)?);
    let mac = keys.commit_mac(&bytes);
    bytes.extend(mac.as_bytes());
    Ok(bytes)
}

fn encode_body(hold: &Hold) -> Vec<u8> {
    let mut e = Encoder::default();
    e.map(4 + usize::from(hold.until.is_some()));
    e.uint(0).bytes(hold.commit.as_bytes());
    e.uint(1).text(&hold.reason);
    e.uint(2).text(&hold.who);
    e.uint(3).int(hold.placed);
    if let Some(until) = hold.until {
        e.uint(4).int(until);
    }
    e.finish()
}

/// Its inverse; checks name, MAC and that it is of the commit whose name it lies under.
fn decode(keys: &Keys, commit: &CommitId, id: &HoldId, bytes: &[u8]) -> Result<Hold, Error> {
    let damaged = |what: &str| Error::damaged(id.key(commit), what);
    if *blake3::hash(bytes).as_bytes() != id.0 {
        return Err(damaged("its bytes do not hash to its name"));
    }
    let Some((signed, mac)) = bytes.split_last_chunk::<MAC_LEN>() else {
        return Err(damaged("it is too short for a hold"));
    };
    if keys.commit_mac(signed) != *mac {
        return Err(damaged("its MAC does not fit: nobody with a key of this repository made it"));
    }
    let Some(sealed) = signed.strip_prefix(MAGIC) else {
        return Err(damaged("it does not begin as a hold"));
    };
    let plain = keys.open_hold(MAGIC, sealed).map_err(|error| match error {
        OpenError::Refused(error) => error,
        OpenError::Changed => damaged("its authentication tag does not fit"),
    })?;
    let hold = decode_body(*id, &plain).map_err(|broken| damaged(&broken.what()))?;
    if hold.commit != *commit {
        return Err(damaged("it lies under the name of another commit"));
    }
    Ok(hold)
}

fn decode_body(id: HoldId, plain: &[u8]) -> Decoded<Hold> {
    let mut hold = unreadable(CommitId([0; 32]), id);
    hold.damaged = false;
    let mut seen = 0_u8;
    let mut d = Decoder::new(plain);
    d.fields(|key, d| {
        match key {
            0 => hold.commit = CommitId(d.id()?),
            1 => hold.reason = d.text()?.to_owned(),
            2 => hold.who = d.text()?.to_owned(),
            3 => hold.placed = d.int()?,
            4 => hold.until = Some(d.int()?),
            _ => return Ok(false),
        }
        seen |= 1 << key;
        Ok(true)
    })?;
    d.end()?;
    if seen & 0b1111 == 0b1111 { Ok(hold) } else { wrong("it lacks a field") }
}

/// What the fuzzer asks: the body of a hold, read and written again.
pub(crate) fn recode(plain: &[u8]) -> Decoded<Vec<u8>> {
    decode_body(HoldId([0; 32]), plain).map(|hold| encode_body(&hold))
}

/// Bodies to begin with.
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let mut hold = unreadable(CommitId([4; 32]), HoldId([0; 32]));
    (hold.reason, hold.who, hold.placed) = ("an audit".into(), "ops".into(), 1_700_000_000_000_000_000);
    let mut bodies = vec![encode_body(&hold)];
    hold.until = Some(-1);
    bodies.push(encode_body(&hold));
    bodies
}

fn unreadable(commit: CommitId, id: HoldId) -> Hold {
    let (reason, who) = (String::new(), String::new());
    Hold { id, commit, reason, who, placed: 0, until: None, damaged: true }
}

impl Repository {
    /// Holds a commit. Any key will do. If the commit is deleted while this goes on, that is the error, and nothing is
    /// held.
    pub fn add_hold(
        &self,
        commit: &CommitId,
        reason: &str,
        who: &str,
        until: Option<Timestamp>,
    ) -> Result<Hold, Error> {
        if reason.trim().is_empty() {
            return Err(Error::invalid("a hold without a reason; whoever finds it must know what it is for"));
        }
        if reason.len() > TEXT_BYTES_MAX || who.len() > TEXT_BYTES_MAX {
            return Err(Error::invalid(format!("a reason or a name above {TEXT_BYTES_MAX} bytes")));
        }
        let placed = self.env().now();
        if until.is_some_and(|until| until <= placed) {
            return Err(Error::invalid("a hold that would have ended already"));
        }
        let missing = || Error::NoSuchCommit { wanted: commit.to_string(), url: self.url() };
        if !self.has_commit(commit)? {
            return Err(missing());
        }
        let mut hold = unreadable(*commit, HoldId::ZERO);
        hold.damaged = false;
        (hold.reason, hold.who, hold.placed, hold.until) = (reason.into(), who.into(), placed, until);
        let bytes = encode(self.secrets(), &hold, self.env())?;
        hold.id = HoldId(*blake3::hash(&bytes).as_bytes());
        self.put_content(&hold.id.key(commit), bytes.into())?;
        // In this order: a deletion looks for holds after it took the commit away. So either it finds this one and
        // puts the commit back, or it was over before, and we see that here.
        if self.has_commit(commit)? {
            return Ok(hold);
        }
        // It holds nothing, and would stand in the way of collecting. Who may not delete leaves it for `check` to name.
        if let Err(error) = self.release_hold(&hold) {
            tracing::warn!("a hold of a recovery point that is gone stays: {error}");
        }
        Err(missing())
    }

    /// Whether there is a commit of this name, void or not.
    pub(crate) fn has_commit(&self, commit: &CommitId) -> Result<bool, Error> {
        match self.store().size(&commit.key()) {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// All holds, ended ones too, by commit and age. One that cannot be read is a finding, and is listed as one
    /// without an end. Needs the list or the read key.
    pub fn holds(&self) -> Result<Outcome<Vec<Hold>>, Error> {
        self.holds_below(HOLDS)
    }

    /// The holds of one commit.
    pub fn holds_of(&self, commit: &CommitId) -> Result<Outcome<Vec<Hold>>, Error> {
        self.holds_below(&format!("{HOLDS}{commit}/"))
    }

    fn holds_below(&self, prefix: &str) -> Result<Outcome<Vec<Hold>>, Error> {
        self.require(Capability::List)?;
        let mut names = Vec::new();
        self.store().list(prefix, &mut |object| {
            names.extend(HoldId::from_key(&object.key));
            Ok(())
        })?;
        let mut outcome = Outcome::clean(Vec::with_capacity(names.len()));
        for (commit, id) in names {
            let read = match self.store().get(&id.key(&commit)) {
                // Released since the listing.
                Err(StoreError::NotFound { .. }) => continue,
                read => read.map_err(Error::from),
            };
            match read.and_then(|bytes| decode(self.secrets(), &commit, &id, &bytes)) {
                Ok(hold) => outcome.done.push(hold),
                Err(error) if error.is_damage() => {
                    outcome.done.push(unreadable(commit, id));
                    outcome.findings.push(Finding::error(
                        "hold-damaged",
                        id.key(&commit),
                        format!(
                            "{error}; it goes on holding recovery point {} until it is released",
                            commit.short()
                        ),
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        outcome.done.sort_by_key(|hold| (hold.commit, hold.placed, hold.id));
        Ok(outcome)
    }

    /// Ends a hold: deletes its object. What the store's credentials allow decides, no key.
    pub fn release_hold(&self, hold: &Hold) -> Result<(), Error> {
        Ok(self.store().delete(&hold.id.key(&hold.commit))?)
    }

    /// Active holds of commits that are not there: somebody deleted what was to be kept. As long as there are any,
    /// collecting could destroy what may still be brought back.
    pub fn holds_without_commit(&self) -> Result<Vec<Hold>, Error> {
        let now = self.env().now();
        let mut holds = self.holds()?.done;
        // Listed after the holds: a commit made and held in between is there.
        let mut present = self.commit_ids()?;
        present.sort_unstable();
        holds.retain(|hold| hold.is_active(now) && present.binary_search(&hold.commit).is_err());
        Ok(holds)
    }
}

/// [`Repository::holds_without_commit`] as findings, each once for its commit.
pub(crate) fn held_and_gone(repo: &Repository) -> Result<Vec<Finding>, Error> {
    Ok(missing(repo.holds_without_commit()?.iter()))
}

/// What is to be said of these holds (by commit): what they hold is not there.
pub(crate) fn missing<'h>(holds: impl Iterator<Item = &'h Hold>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for hold in holds {
        let key = hold.commit.key();
        if findings.last().is_some_and(|last| last.what == key) {
            continue;
        }
        findings.push(Finding::error(
            "held-point-missing",
            key,
            format!(
                "it was deleted while held ({hold}); bring it back (`holdfast repo undelete`, or from a copy), or release the hold; until then nothing is collected, because what is left of it could go"
            ),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::store::Store;
    use crate::store::mem::MemStore;
    use crate::{CommitDraft, InitOptions, Kdf, Passphrase, WriterOptions};

    fn fresh() -> (MemStore, Repository, CommitId) {
        let store = MemStore::new();
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let repo = Repository::init(
            Arc::new(store.clone()),
            &Passphrase::new("read"),
            &options,
            &Env::fixed(1_000, 1),
        )
        .unwrap();
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let commit =
            writer.commit(CommitDraft { kind: "volume".into(), ..CommitDraft::default() }).unwrap().id;
        (store, repo, commit)
    }

    fn open(store: &MemStore, repo: &Repository, capability: Capability) -> Repository {
        let word = Passphrase::new(capability.as_str());
        if capability != Capability::Read {
            repo.add_key(&word, capability, "", Kdf::cheap()).unwrap();
        }
        Repository::open(Arc::new(store.clone()), &word, &Env::fixed(1_000, 7)).unwrap()
    }

    #[test]
    fn a_hold_is_placed_read_and_released() {
        let (store, repo, commit) = fresh();
        let first = repo.add_hold(&commit, "case 17/2026", "legal@example.com", None).unwrap();
        let second = repo.add_hold(&commit, "audit", "", Some(2_000)).unwrap();
        assert_ne!(first.id, second.id);
        let holds = repo.holds().unwrap();
        assert_eq!((holds.done.len(), holds.findings.len()), (2, 0));
        assert!(holds.done.contains(&first) && holds.done.contains(&second));
        assert!(first.is_active(i64::MAX) && second.is_active(1_999) && !second.is_active(2_000));
        assert_eq!(repo.holds_of(&commit).unwrap().done.len(), 2);
        assert_eq!(repo.holds_of(&CommitId::ZERO).unwrap().done, []);
        repo.release_hold(&first).unwrap();
        assert_eq!(repo.holds().unwrap().done, [second]);
        assert!(repo.holds_without_commit().unwrap().is_empty());
        store.tamper(&commit.key(), None);
        assert_eq!(repo.holds_without_commit().unwrap().len(), 1);
    }

    #[test]
    fn a_hold_that_makes_no_sense_is_refused() {
        let (store, repo, commit) = fresh();
        for (reason, until) in [("", None), ("  ", None), ("late", Some(1_000)), (&*"x".repeat(5_000), None)]
        {
            assert!(
                matches!(repo.add_hold(&commit, reason, "", until), Err(Error::Invalid { .. })),
                "{reason}"
            );
        }
        assert!(matches!(repo.add_hold(&CommitId::ZERO, "why", "", None), Err(Error::NoSuchCommit { .. })));
        assert!(crate::store::list_all(&store, HOLDS).unwrap().is_empty());
    }

    #[test]
    fn r5_a_put_key_places_a_hold_and_a_list_key_reads_it() {
        let (store, repo, commit) = fresh();
        let put = open(&store, &repo, Capability::Put);
        let placed = put.add_hold(&commit, "kept by the node", "node", None).unwrap();
        assert!(matches!(put.holds(), Err(Error::NotPermitted { .. })));
        let list = open(&store, &repo, Capability::List);
        assert_eq!(list.holds().unwrap().done, [placed]);
    }

    #[test]
    fn r4_a_hold_that_was_changed_or_forged_is_named_and_goes_on_holding() {
        let (store, repo, commit) = fresh();
        let hold = repo.add_hold(&commit, "case", "me", Some(5_000)).unwrap();
        let key = hold.id.key(&commit);
        let bytes = store.get(&key).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << (at % 8);
            // Under its old name, and under the name its new bytes have.
            let renamed = HoldId(*blake3::hash(&changed).as_bytes()).key(&commit);
            for name in [&key, &renamed] {
                store.tamper(&key, None);
                store.tamper(name, Some(changed.clone().into()));
                let holds = repo.holds().unwrap();
                assert_eq!(holds.findings.len(), 1, "byte {at}");
                assert_eq!((holds.findings[0].code, &holds.findings[0].what), ("hold-damaged", name));
                assert!(
                    holds.done[0].damaged
                        && holds.done[0].is_active(i64::MAX)
                        && holds.done[0].commit == commit
                );
                store.tamper(name, None);
            }
        }
        // Moved to another commit: it holds both, rather than neither.
        let other = CommitId([7; 32]);
        store.tamper(&hold.id.key(&other), Some(bytes.clone()));
        store.tamper(&key, Some(bytes));
        let holds = repo.holds().unwrap();
        assert_eq!(holds.findings.len(), 1, "{:?}", holds.findings);
        assert!(holds.findings[0].message.contains("another commit"));
        assert_eq!(holds.done.len(), 2);
    }

    #[test]
    fn a_commit_is_no_hold_and_a_hold_is_no_commit() {
        let (store, repo, commit) = fresh();
        let bytes = store.get(&commit.key()).unwrap();
        store.tamper(&HoldId(commit.0).key(&commit), Some(bytes));
        assert!(repo.holds().unwrap().findings[0].message.contains("does not begin as a hold"));
        let hold = repo.add_hold(&commit, "case", "me", None).unwrap();
        let bytes = store.get(&hold.id.key(&commit)).unwrap();
        let name = CommitId(hold.id.0);
        store.tamper(&name.key(), Some(bytes));
        assert!(repo.commit(&name).unwrap_err().is_damage());
    }

    proptest! {
        /// Even what a holder of the key signed is not trusted in its form.
        #[test]
        fn hostile_holds_are_refused(body in proptest::collection::vec(any::<u8>(), 0..120), sealed: bool) {
            let (_, repo, commit) = fresh();
            let mut bytes = MAGIC.to_vec();
            match sealed {
                true => bytes.extend(repo.secrets().seal_hold(MAGIC, &body, repo.env()).unwrap()),
                false => bytes.extend(&body),
            }
            let mac = repo.secrets().commit_mac(&bytes);
            bytes.extend(mac.as_bytes());
            let id = HoldId(*blake3::hash(&bytes).as_bytes());
            prop_assert!(decode(repo.secrets(), &commit, &id, &bytes).is_err());
        }
    }
}
