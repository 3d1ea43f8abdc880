//! What writers and collectors leave for each other in the store: leases, marks, verdicts, voids, and what says that a
//! recovery point is being deleted. Their bytes, their names, and how they are put, listed and read.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use data_encoding::HEXLOWER;

#[cfg(test)]
use super::Sabotage;
use crate::cbor::{Broken, Decoder, Encoder, wrong};
use crate::env::Timestamp;
use crate::error::Error;
use crate::id::{CommitId, PackId, WriterId};
use crate::monitor::Finding;
use crate::repo::Repository;
use crate::store::{Object, Put};

/// Where leases are.
pub(crate) const LEASES: &str = "leases/";
/// Where marks, verdicts, voids, clocks and what says of deletions are.
pub(crate) const GC: &str = "gc/";
const MARK: &str = "gc/mark-";
const VERDICT: &str = "gc/verdict-";
const VOID: &str = "gc/void-";
const CLOCK: &str = "gc/clock-";
const DELETION: &str = "gc/deletion-";

/// How long a void stays whose commit is not there: so long a put may be under way that got no answer.
pub(crate) const VOID_KEPT: i64 = 24 * 3_600_000_000_000;

/// What a sealed note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Lease,
    Mark,
    Verdict,
}

impl Kind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Kind::Lease => b"HFLEAS01",
            Kind::Mark => b"HFMARK01",
            Kind::Verdict => b"HFVERD01",
        }
    }

    fn info(self) -> &'static str {
        match self {
            Kind::Lease => "lease",
            Kind::Mark => "mark",
            Kind::Verdict => "verdict",
        }
    }
}

/// A lease as it lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub began: Timestamp,
    pub duration: u64,
    pub number: u64,
}

impl Lease {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut e = Encoder::default();
        e.map(3).uint(0).int(self.began).uint(1).uint(self.duration).uint(2).uint(self.number);
        e.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Lease, Broken> {
        let (mut lease, mut seen) = (Lease { began: 0, duration: 0, number: 0 }, 0_u8);
        let mut d = Decoder::new(bytes);
        d.fields(|key, d| {
            match key {
                0 => lease.began = d.int()?,
                1 => lease.duration = d.uint()?,
                2 => lease.number = d.uint()?,
                _ => return Ok(false),
            }
            seen |= 1 << key;
            Ok(true)
        })?;
        d.end()?;
        if seen == 0b111 { Ok(lease) } else { wrong("a lease that lacks a field") }
    }
}

/// Packs in a mark (number 0) or a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PackList {
    pub time: Timestamp,
    pub packs: Vec<PackId>,
    pub number: u64,
}

impl PackList {
    /// `packs` must ascend.
    fn encode(&self, kind: Kind) -> Vec<u8> {
        let ids: Vec<u8> = self.packs.iter().flat_map(|id| id.0).collect();
        let mut e = Encoder::default();
        let numbered = kind == Kind::Verdict;
        e.map(2 + usize::from(numbered)).uint(0).int(self.time).uint(1).bytes(&ids);
        if numbered {
            e.uint(2).uint(self.number);
        }
        e.finish()
    }

    fn decode(bytes: &[u8], kind: Kind) -> Result<PackList, Broken> {
        let (mut list, mut seen) = (PackList::default(), 0_u8);
        let mut d = Decoder::new(bytes);
        d.fields(|key, d| {
            match key {
                0 => list.time = d.int()?,
                1 => {
                    let (ids, []) = d.bytes()?.as_chunks::<32>() else {
                        return wrong("pack ids of a broken length");
                    };
                    if !ids.is_sorted_by(|a, b| a < b) {
                        return wrong("pack ids that do not ascend");
                    }
                    list.packs = ids.iter().map(|id| PackId(*id)).collect();
                }
                2 if kind == Kind::Verdict => list.number = d.uint()?,
                _ => return Ok(false),
            }
            seen |= 1 << key;
            Ok(true)
        })?;
        d.end()?;
        let all = if kind == Kind::Verdict { 0b111 } else { 0b11 };
        if seen == all { Ok(list) } else { wrong("a mark or verdict that lacks a field") }
    }
}

/// What the fuzzer asks: the bodies of leases, marks and verdicts, read and written again, and good ones to begin with.
pub(crate) fn rows() -> [NoteRow; 3] {
    let packs = vec![PackId([3; 32]), PackId([4; 32])];
    let list = PackList { time: 1_700_000_000_000_000_000, packs, number: 300 };
    let lists = |kind| vec![list.encode(kind), PackList { number: 1, ..PackList::default() }.encode(kind)];
    let lease = Lease { began: -1, duration: 3_600_000_000_000, number: 7 };
    [
        ("lease", vec![lease.encode()], |body| Lease::decode(body).map(Lease::encode)),
        ("mark", lists(Kind::Mark), |body| {
            PackList::decode(body, Kind::Mark).map(|list| list.encode(Kind::Mark))
        }),
        ("verdict", lists(Kind::Verdict), |body| {
            PackList::decode(body, Kind::Verdict).map(|list| list.encode(Kind::Verdict))
        }),
    ]
}

/// Name, good bodies, and the way there and back.
pub(crate) type NoteRow = (&'static str, Vec<Vec<u8>>, fn(&[u8]) -> Result<Vec<u8>, Broken>);

/// A verdict of no packs has this size: told from the listing alone.
const CLOSING_BYTES_MAX: u64 = 40 + 16 + 1 + 10 + 2 + 10;

fn open_sealed(repo: &Repository, key: &str, kind: Kind, bytes: Bytes) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::from(bytes);
    let opened = repo.secrets().open_note(kind.magic(), kind.info(), &mut bytes);
    Ok(opened.map_err(|what| Error::damaged(key, what))?.to_vec())
}

fn broken(key: &str) -> impl Fn(Broken) -> Error {
    move |broken| Error::damaged(key, broken.what())
}

/// A lease object, read.
pub(crate) fn read_lease(repo: &Repository, key: &str) -> Result<Lease, Error> {
    let bytes = repo.store().get(key)?;
    Lease::decode(&open_sealed(repo, key, Kind::Lease, bytes)?).map_err(broken(key))
}

/// A mark or a verdict, from its bytes; the name must be what it says.
fn open_list(repo: &Repository, key: &str, kind: Kind, bytes: Bytes) -> Result<PackList, Error> {
    let list = PackList::decode(&open_sealed(repo, key, kind, bytes)?, kind).map_err(broken(key))?;
    if kind == Kind::Verdict && verdict_key(list.number) != key {
        return Err(Error::damaged(key, "it says another number than its name"));
    }
    Ok(list)
}

pub(super) fn seal(repo: &Repository, kind: Kind, body: &[u8]) -> Result<Bytes, Error> {
    Ok(Bytes::from(repo.secrets().seal_note(kind.magic(), kind.info(), body, repo.env())?))
}

pub(super) fn lease_key(writer: &WriterId, number: u64) -> String {
    format!("{LEASES}{writer}-{number:08x}")
}

/// Writer and number of a lease, from its name.
pub(crate) fn lease_of(key: &str) -> Option<(WriterId, u64)> {
    let (writer, number) = key.strip_prefix(LEASES)?.split_once('-')?;
    Some((writer.parse().ok()?, hex_number(number, 8)?))
}

fn verdict_key(number: u64) -> String {
    format!("{VERDICT}{number:016x}")
}

pub(super) fn void_key(commit: &CommitId) -> String {
    format!("{VOID}{commit}")
}

fn hex_number(text: &str, digits: usize) -> Option<u64> {
    let plain = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Whether objects of this name belong to a repository.
pub(crate) fn is_known(key: &str) -> bool {
    lease_of(key).is_some() || Notes::default().add(Object { key: key.to_owned(), size: 0, modified: 0 })
}

/// `gc/`, listed: names, not contents.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    pub marks: Vec<Object>,
    pub verdicts: BTreeMap<u64, Object>,
    pub voids: Vec<(CommitId, Object)>,
    pub clocks: Vec<Object>,
    /// Commits that are being deleted, or were.
    pub deletions: Vec<(CommitId, Object)>,
}

impl Notes {
    pub(crate) fn list(repo: &Repository) -> Result<Notes, Error> {
        let mut notes = Notes::default();
        repo.store().list(GC, &mut |object| {
            notes.add(object);
            Ok(())
        })?;
        Ok(notes)
    }

    fn add(&mut self, object: Object) -> bool {
        let key = &object.key;
        if key.strip_prefix(MARK).is_some_and(|name| name.parse::<PackId>().is_ok()) {
            self.marks.push(object);
        } else if let Some(number) = key.strip_prefix(VERDICT).and_then(|name| hex_number(name, 16)) {
            self.verdicts.insert(number, object);
        } else if let Some(commit) = key.strip_prefix(VOID).and_then(|name| name.parse().ok()) {
            self.voids.push((commit, object));
        } else if key.starts_with(CLOCK) {
            self.clocks.push(object);
        } else if let Some(commit) = key.strip_prefix(DELETION).and_then(deletion_of) {
            self.deletions.push((commit, object));
        } else {
            return false;
        }
        true
    }

    /// The highest number there is.
    pub(crate) fn top(&self) -> u64 {
        self.verdicts.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// The verdicts that count: those above the highest closing one.
    pub(crate) fn open_verdicts(&self, repo: &Repository) -> Result<Vec<PackList>, Error> {
        let mut open = Vec::new();
        for object in self.verdicts.values().rev() {
            match read_verdict(repo, object).map_err(way_out)? {
                Some(list) if list.packs.is_empty() => break,
                Some(list) => open.push(list),
                // Another collector has closed it since the listing: all it named is gone.
                None => {}
            }
        }
        Ok(open)
    }
}

/// The commit in the name of what says of its deletion.
fn deletion_of(name: &str) -> Option<CommitId> {
    let (commit, dice) = name.split_once('-')?;
    hex_number(dice, 16)?;
    commit.parse().ok()
}

/// What to do about a verdict that cannot be read. (Its number must not be given to another one while a writer is at work
/// that has seen it.)
pub(super) fn way_out(error: Error) -> Error {
    match error {
        Error::Damaged { object, what } => Error::Damaged {
            object,
            what: format!(
                "{what}; packs may be sentenced in it, so nothing is collected and backups store everything anew until it is back (`holdfast repo undelete`, a copy of the store) or deleted, which is safe while no backup and no collection is running anywhere"
            ),
        },
        error => error,
    }
}

/// What a check has to say of verdicts.
pub(crate) fn look_at_verdicts(repo: &Repository, notes: &Notes) -> Result<Option<Finding>, Error> {
    match notes.open_verdicts(repo) {
        Ok(_) => Ok(None),
        Err(Error::Damaged { object, what }) => Ok(Some(Finding::warning("verdict-damaged", object, what))),
        Err(error) => Err(error),
    }
}

/// A verdict; `None` if it went away since it was listed.
fn read_verdict(repo: &Repository, object: &Object) -> Result<Option<PackList>, Error> {
    let Some(bytes) = verdict_bytes(repo, object)? else { return Ok(None) };
    open_verdict(repo, object, bytes).map(Some)
}

/// Its bytes, whatever they are; `None` if it went away since it was listed.
pub(super) fn verdict_bytes(repo: &Repository, object: &Object) -> Result<Option<Bytes>, Error> {
    match repo.store().get(&object.key) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What its bytes say.
pub(super) fn open_verdict(repo: &Repository, object: &Object, bytes: Bytes) -> Result<PackList, Error> {
    open_list(repo, &object.key, Kind::Verdict, bytes)
}

/// A mark; `None` if it went away since it was listed.
pub(crate) fn read_mark(repo: &Repository, object: &Object) -> Result<Option<PackList>, Error> {
    match repo.store().get(&object.key) {
        Ok(bytes) => open_list(repo, &object.key, Kind::Mark, bytes).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Puts a mark of these packs, which ascend. Returns its key.
pub(crate) fn put_mark(repo: &Repository, packs: Vec<PackId>) -> Result<String, Error> {
    let list = PackList { time: repo.env().now(), packs, number: 0 };
    let bytes = seal(repo, Kind::Mark, &list.encode(Kind::Mark))?;
    let key = format!("{MARK}{}", blake3::hash(&bytes).to_hex());
    repo.put_content(&key, bytes)?;
    Ok(key)
}

/// Puts a verdict of these packs, which ascend, under the next number that is free.
///
/// The number may be one that others had used, closed and removed since `top` was listed. A verdict below a closing one
/// says nothing to other collectors, so that is looked for, and then it is put again above.
pub(crate) fn put_verdict(
    repo: &Repository,
    packs: &[PackId],
    top: u64,
    #[cfg(test)] sabotage: Sabotage,
) -> Result<u64, Error> {
    let mut number = top + 1;
    loop {
        if !put_numbered(repo, packs, number)? {
            number += 1;
            continue;
        }
        #[cfg(test)]
        if sabotage == Sabotage::CollectorSpeaksTooLow {
            return Ok(number);
        }
        let notes = Notes::list(repo)?;
        let closed = notes.verdicts.range(number + 1..).any(|(_, object)| object.size <= CLOSING_BYTES_MAX);
        if !closed {
            return Ok(number);
        }
        number = notes.top() + 1;
    }
}

/// Puts the verdict that closes all up to `top`, under exactly the number above. `None` if somebody took it.
pub(crate) fn close_verdicts(repo: &Repository, top: u64) -> Result<Option<u64>, Error> {
    Ok(put_numbered(repo, &[], top + 1)?.then_some(top + 1))
}

/// `false` if the number is taken.
fn put_numbered(repo: &Repository, packs: &[PackId], number: u64) -> Result<bool, Error> {
    let list = PackList { time: repo.env().now(), packs: packs.to_vec(), number };
    let bytes = seal(repo, Kind::Verdict, &list.encode(Kind::Verdict))?;
    let key = verdict_key(number);
    // Exists with our own bytes: an earlier try landed. (They are never those of another: the salt differs.)
    if repo.store().put(&key, bytes.clone())? == Put::Created {
        return Ok(true);
    }
    match repo.store().get(&key) {
        Ok(there) => Ok(there == bytes),
        // Removed since: the number was taken.
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What the store calls now: the time it gives an object that is put for this alone, and removed again.
pub(crate) fn store_now(repo: &Repository) -> Result<Timestamp, Error> {
    let mut name = [0; 16];
    repo.env().random(&mut name)?;
    let key = format!("{CLOCK}{}", HEXLOWER.encode(&name));
    repo.store().put(&key, Bytes::new())?;
    let mut now = None;
    repo.store().list(&key, &mut |object| {
        now = Some(object.modified);
        Ok(())
    })?;
    // What cannot be removed now is removed by a later collection.
    let _ = repo.store().delete(&key);
    now.ok_or_else(|| Error::failed(format!("{key} was just put, and the listing does not show it")))
}

/// Says that a commit is about to be deleted, and may be put back (`delete.rs`): as long as this is there and the commit
/// is not, no collector deletes anything. Returns its key.
pub(crate) fn put_deletion(repo: &Repository, commit: &CommitId) -> Result<String, Error> {
    let mut dice = [0; 8];
    repo.env().random(&mut dice)?;
    // Each deletion has a name of its own: of two of one commit, the first that ends must not speak for the other.
    let key = format!("{DELETION}{commit}-{}", HEXLOWER.encode(&dice));
    repo.store().put(&key, Bytes::new())?;
    Ok(key)
}

/// What a void holds: the secret of the writer that gave up its commit.
pub(crate) fn decode_void(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

/// Commits that were never acknowledged: those with a void that their writer made.
pub(crate) fn voided(repo: &Repository, notes: &Notes) -> Result<HashSet<CommitId>, Error> {
    let mut voided = HashSet::new();
    for (commit, object) in &notes.voids {
        let secret = match repo.store().get(&object.key) {
            Ok(secret) => secret,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        let named = match repo.commit(commit) {
            Ok(info) => info.summary.writer,
            // Gone already, or damaged: then whoever lists it says so.
            Err(error) if error.is_damage() => None,
            Err(error) => return Err(error),
        };
        if named.is_some() && named == decode_void(&secret).map(|secret| WriterId::of_secret(&secret)) {
            voided.insert(*commit);
        }
    }
    Ok(voided)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_said_is_understood(began: i64, duration: u64, number: u64, time: i64, seeds: Vec<u64>) {
            let lease = Lease { began, duration, number };
            prop_assert_eq!(Lease::decode(&lease.encode()).ok(), Some(lease));
            let mut packs: Vec<_> =
                seeds.iter().map(|seed| PackId(*blake3::hash(&seed.to_le_bytes()).as_bytes())).collect();
            packs.sort();
            packs.dedup();
            let verdict = PackList { time, packs, number };
            let encoded = verdict.encode(Kind::Verdict);
            prop_assert_eq!(PackList::decode(&encoded, Kind::Verdict).ok(), Some(verdict.clone()));
            let mark = PackList { number: 0, ..verdict };
            prop_assert_eq!(PackList::decode(&mark.encode(Kind::Mark), Kind::Mark).ok(), Some(mark));
        }

        #[test]
        fn hostile_bytes_are_refused_or_sound(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Lease::decode(&bytes);
            for kind in [Kind::Mark, Kind::Verdict] {
                if let Ok(list) = PackList::decode(&bytes, kind) {
                    prop_assert!(list.packs.is_sorted());
                }
            }
        }
    }

    #[test]
    fn a_closing_verdict_is_told_by_its_size_and_no_other_is() {
        let size = |packs: Vec<PackId>, number, time| {
            let list = PackList { time, packs, number };
            40 + 16 + list.encode(Kind::Verdict).len() as u64
        };
        assert!(size(vec![], u64::MAX, i64::MIN) <= CLOSING_BYTES_MAX);
        assert!(size(vec![PackId::ZERO], 1, 0) > CLOSING_BYTES_MAX);
    }

    #[test]
    fn names_lead_back_to_what_they_name() {
        let writer = WriterId::of_secret(&[1; 32]);
        assert_eq!(lease_of(&lease_key(&writer, 0x12ab)), Some((writer, 0x12ab)));
        for wrong in ["leases/x-00000000", "leases/", "index/abc"] {
            assert_eq!(lease_of(wrong), None, "{wrong}");
        }
        let commit = CommitId([3; 32]);
        for key in [
            verdict_key(7),
            void_key(&commit),
            lease_key(&writer, 0),
            format!("{MARK}{commit}"),
            format!("{DELETION}{commit}-0123456789abcdef"),
        ] {
            assert!(is_known(&key), "{key}");
        }
        for key in
            ["gc/", "gc/mark-1", "gc/verdict-0x00000000000001", "gc/other", "gc/deletion-1-0123456789abcdef"]
        {
            assert!(!is_known(key), "{key}");
        }
    }
}
