//! Whose turn it is: a budget reads some of the packs in each run, and in time all of them.
//!
//! The ids of packs are hashes, so the packs stand in a ring in the order of their ids, wherever and whenever
//! they were written. A run goes on where the last one stopped: what comes next was read the longest ago, a new
//! pack gets its turn within one lap like any other, and none is passed over. So N runs that each read 1/N of
//! the packs have read all of them, whatever was added or collected in between.
//!
//! Where the last one stopped is a small object in the repository, `checks/<lap>-<position>-<id>`: no database,
//! no file on a machine that may be another one tomorrow, and no clock, which may jump. The names are ordered as
//! the turns are, so the last one is the greatest; objects are added and none is changed (R1). It is sealed with
//! what only list and read keys hold: who may only put cannot tell the check that all has been read. Two checks at
//! once read the same packs, which costs time and nothing else; and so does a note that could not be put.

use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::lost;
use crate::cbor::{Broken, Decoded, Decoder, Encoder, wrong};
use crate::env::Timestamp;
use crate::error::Error;
use crate::id::PackId;
use crate::monitor::Finding;
use crate::repo::Repository;

/// Where notes of turns are.
pub(crate) const CHECKS: &str = "checks/";
/// A damaged note is passed over for the one before it; a flood of them is not read for ever.
pub(crate) const TRIED_MAX: usize = 16;

/// How much of the data one run reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// This part of the bytes there are, above 0 and at most 1: 0.05 reads all in 20 runs.
    Share(f64),
    /// So many bytes of packs.
    Bytes(u64),
    /// As many packs as can be read in this time; one at least.
    Time(Duration),
}

/// What a run with a budget read, and what all runs together have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// Packs this run read.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How often the packs have been read from the first to the last, by all runs.
    pub laps: u64,
    /// Every pack that was there then has been read since. `None` until the first lap is complete.
    pub all_read_since: Option<Timestamp>,
}

/// A note of how far the turns have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    time: Timestamp,
    /// Laps completed.
    lap: u64,
    /// The lap goes on with the first pack from here.
    next: PackId,
    /// When this lap began.
    begun: Timestamp,
    /// When the lap before began.
    begun_before: Option<Timestamp>,
}

impl Note {
    /// The beginning, before any run.
    fn first(now: Timestamp) -> Note {
        Note { time: now, lap: 0, next: PackId::ZERO, begun: now, begun_before: None }
    }

    /// The note after a run that began at the pack `start` of `packs` and read `count` of them.
    fn after(&self, packs: &[(PackId, u64)], start: usize, count: usize, now: Timestamp) -> Note {
        let mut note = Note { time: now, ..*self };
        let mut end = start + count;
        if end >= packs.len() && count > 0 {
            end -= packs.len();
            note.lap += 1;
            note.begun_before = Some(self.begun);
            // Its first packs are read by this run, if any: none of them earlier than this run began.
            note.begun = self.time.max(self.begun);
        }
        note.next = packs.get(end).filter(|_| end > 0).map_or(PackId::ZERO, |(id, _)| *id);
        note
    }

    fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::default();
        e.map(4 + usize::from(self.begun_before.is_some()));
        e.uint(0).int(self.time);
        e.uint(1).uint(self.lap);
        e.uint(2).bytes(&self.next.0);
        e.uint(3).int(self.begun);
        if let Some(before) = self.begun_before {
            e.uint(4).int(before);
        }
        e.finish()
    }

    fn decode(bytes: &[u8]) -> Decoded<Note> {
        let mut d = Decoder::new(bytes);
        let (mut time, mut lap, mut next, mut begun, mut begun_before) = (None, None, None, None, None);
        d.fields(|field, d| {
            match field {
                0 => time = Some(d.int()?),
                1 => lap = Some(d.uint()?),
                2 => next = Some(PackId(d.id()?)),
                3 => begun = Some(d.int()?),
                4 => begun_before = Some(d.int()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        d.end()?;
        match (time, lap, next, begun) {
            (Some(time), Some(lap), Some(next), Some(begun)) if lap <= u64::from(u32::MAX) => {
                Ok(Note { time, lap, next, begun, begun_before })
            }
            _ => wrong("a note without time, lap, place or beginning"),
        }
    }

    fn key(&self, bytes: &[u8]) -> String {
        let hash = blake3::hash(bytes);
        let (place, id) = (HEXLOWER.encode(&self.next.0[..8]), HEXLOWER.encode(&hash.as_bytes()[..16]));
        format!("{CHECKS}{:08x}-{place}-{id}", self.lap)
    }

    fn open(repo: &Repository, key: &str, bytes: &[u8]) -> Result<Note, String> {
        let body = repo.secrets().open_check(bytes).map_err(|error| error.to_string())?;
        let body = body.ok_or("it was not written with a list or read key of this repository, or changed")?;
        let note = Note::decode(&body).map_err(Broken::what)?;
        // The order of the names is what is relied on, so the name must be what the content says.
        if note.key(bytes) == key { Ok(note) } else { Err("its content is not what its name says".into()) }
    }
}

/// Whether the key can be one of ours.
pub(crate) fn is_note_key(key: &str) -> bool {
    let Some(name) = key.strip_prefix(CHECKS) else { return false };
    let hex = |part: &str, len| part.len() == len && HEXLOWER.decode(part.as_bytes()).is_ok();
    match name.split('-').collect::<Vec<_>>().as_slice() {
        [lap, place, id] => hex(lap, 8) && hex(place, 16) && hex(id, 32),
        _ => false,
    }
}

/// The packs of this run, in the order of their turn.
pub(super) struct Turns<'r> {
    repo: &'r Repository,
    packs: &'r [(PackId, u64)],
    last: Note,
    start: usize,
    budget: Budget,
    began: Timestamp,
    since: Instant,
}

impl<'r> Turns<'r> {
    /// `keys` are those of the notes in the store, `packs` ascending. What is wrong with a note is a finding.
    pub(super) fn new(
        repo: &'r Repository,
        keys: &mut [String],
        packs: &'r [(PackId, u64)],
        budget: Budget,
    ) -> Result<(Turns<'r>, Vec<Finding>), Error> {
        let fine = match budget {
            Budget::Share(share) => share > 0.0 && share <= 1.0,
            Budget::Bytes(bytes) => bytes > 0,
            Budget::Time(time) => !time.is_zero(),
        };
        if !fine {
            return Err(Error::invalid(format!(
                "a budget of {budget:?} reads nothing, or more than there is"
            )));
        }
        keys.sort_unstable();
        let began = repo.env().now();
        let (mut last, mut findings) = (Note::first(began), Vec::new());
        for key in keys.iter().rev().take(TRIED_MAX) {
            let opened = match repo.store().get(key) {
                Ok(bytes) => Note::open(repo, key, &bytes),
                Err(error) => Err(lost(error.into())?),
            };
            match opened {
                Ok(note) => {
                    last = Note { time: began, ..note };
                    break;
                }
                Err(what) => findings.push(Finding::warning(
                    "check-note-damaged",
                    key.clone(),
                    format!(
                        "{what}; the turns go on from the one before it, and some packs may be read again early. It can be deleted"
                    ),
                )),
            }
        }
        let mut start = packs.partition_point(|(id, _)| *id < last.next);
        if start == packs.len() && start > 0 {
            // Nothing is left of the lap. A new one begins, for the names must go on ascending.
            start = 0;
            last.lap += 1;
            last.begun_before = Some(last.begun);
            last.begun = began.max(last.begun);
        }
        Ok((Turns { repo, packs, last, start, budget, began, since: Instant::now() }, findings))
    }

    /// How many packs are due, at most; all of them for a budget of time.
    pub(super) fn count(&self) -> usize {
        let total: u64 = self.packs.iter().map(|(_, size)| size).sum();
        let bytes = match self.budget {
            Budget::Share(share) => (total as f64 * share).ceil() as u64,
            Budget::Bytes(bytes) => bytes,
            Budget::Time(_) => return self.packs.len(),
        };
        let mut sum = 0;
        let due = (0..self.packs.len()).take_while(|at| {
            let due = sum < bytes;
            sum += self.pack(*at).map_or(0, |(_, size)| size);
            due
        });
        due.count()
    }

    /// The pack whose turn is number `at` in this run.
    pub(super) fn pack(&self, at: usize) -> Option<(PackId, u64)> {
        let place = self.start + at;
        self.packs.get(if place < self.packs.len() { place } else { place - self.packs.len() }).copied()
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.budget, Budget::Time(time) if self.since.elapsed() >= time)
    }

    /// Writes down that the first `count` packs of this run were read. Not being able to is a finding.
    pub(super) fn put(&self, count: usize) -> Result<(Turn, Option<Finding>), Error> {
        let note = self.last.after(self.packs, self.start, count, self.began);
        let turn = Turn {
            packs: count as u64,
            bytes: (0..count).filter_map(|at| self.pack(at)).map(|(_, size)| size).sum(),
            laps: note.lap,
            all_read_since: note.begun_before,
        };
        if count == 0 {
            return Ok((turn, None));
        }
        let bytes = self.repo.secrets().seal_check(&note.encode(), self.repo.env())?;
        let key = note.key(&bytes);
        let finding = self.repo.put_content(&key, bytes.into()).err().map(|error| {
            Finding::warning(
                "check-not-noted",
                key,
                format!(
                    "{error}. What was read this time could not be written down, so the next run reads the same packs again; allow puts below {CHECKS}"
                ),
            )
        });
        Ok((turn, finding))
    }
}

/// What the fuzzer asks: the body of a note, read and written again.
pub(crate) fn recode_note(body: &[u8]) -> Decoded<Vec<u8>> {
    Note::decode(body).map(|note| note.encode())
}

/// Bodies to begin with.
pub(crate) fn note_samples() -> Vec<Vec<u8>> {
    let first = Note::first(1_700_000_000_000_000_000);
    vec![first.encode(), Note { lap: 7, next: PackId([5; 32]), begun_before: Some(-1), ..first }.encode()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::store::mem::MemStore;
    use crate::store::{Store, list_all};
    use crate::{Capability, Env, InitOptions, Kdf, Passphrase};

    fn fresh() -> (MemStore, Repository) {
        let store = MemStore::new();
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let repo =
            Repository::init(Arc::new(store.clone()), &Passphrase::new("x"), &options, &Env::fixed(1000, 1))
                .unwrap();
        (store, repo)
    }

    fn pack(number: u64) -> (PackId, u64) {
        (PackId(*blake3::hash(&number.to_le_bytes()).as_bytes()), 100 + number % 50)
    }

    fn packs(numbers: impl Iterator<Item = u64>) -> Vec<(PackId, u64)> {
        let mut packs: Vec<_> = numbers.map(pack).collect();
        packs.sort_unstable();
        packs
    }

    fn keys(store: &MemStore) -> Vec<String> {
        list_all(store, CHECKS).unwrap().into_iter().map(|object| object.key).collect()
    }

    /// One run; the packs that were read.
    fn run(
        store: &MemStore,
        repo: &Repository,
        packs: &[(PackId, u64)],
        budget: Budget,
    ) -> (Vec<PackId>, Turn) {
        repo.env().advance(10);
        let (turns, findings) = Turns::new(repo, &mut keys(store), packs, budget).unwrap();
        assert_eq!(findings, []);
        let count = turns.count();
        let read = (0..count).map(|at| turns.pack(at).unwrap().0).collect();
        let (turn, finding) = turns.put(count).unwrap();
        assert_eq!(finding, None);
        (read, turn)
    }

    #[test]
    fn n_runs_of_an_nth_read_everything_and_none_twice_before_all_once() {
        for (number, share, runs) in [(100, 0.05, 20), (7, 0.05, 7), (1, 0.01, 1), (33, 0.5, 2), (10, 1.0, 1)]
        {
            let (store, repo) = fresh();
            let packs = packs(0..number);
            let mut read = BTreeSet::new();
            let mut last = None;
            for _ in 0..runs {
                let (ids, turn) = run(&store, &repo, &packs, Budget::Share(share));
                assert!(!ids.is_empty());
                read.extend(ids);
                last = Some(turn);
            }
            assert_eq!(read.len(), packs.len(), "{number} packs, {share} each, {runs} runs");
            assert!(last.unwrap().laps >= 1);
        }
    }

    #[test]
    fn a_run_never_reads_a_pack_twice_and_tells_since_when_all_was_read() {
        let (store, repo) = fresh();
        let packs = packs(0..10);
        let (ids, turn) = run(&store, &repo, &packs, Budget::Bytes(1 << 40));
        assert_eq!((ids.len(), turn.laps, turn.all_read_since), (10, 1, Some(1010)));
        let (_, turn) = run(&store, &repo, &packs, Budget::Share(0.3));
        assert_eq!((turn.laps, turn.all_read_since), (1, Some(1010)));
        for _ in 0..3 {
            run(&store, &repo, &packs, Budget::Share(0.3));
        }
        let (_, turn) = run(&store, &repo, &packs, Budget::Share(0.3));
        assert!(turn.laps == 2 && turn.all_read_since > Some(1000), "{turn:?}");
        assert!(run(&store, &repo, &[], Budget::Share(0.3)).0.is_empty(), "nothing there, nothing to read");
    }

    #[test]
    fn a_note_that_is_forged_damaged_or_of_a_put_key_is_passed_over() {
        let (store, repo) = fresh();
        let packs = packs(0..100);
        let (first, _) = run(&store, &repo, &packs, Budget::Share(0.1));
        let genuine = keys(&store).remove(0);
        let bytes = store.get(&genuine).unwrap();
        let mut flipped = bytes.to_vec();
        flipped[50] ^= 1;
        let far = "checks/ffffffff-ffffffffffffffff-00000000000000000000000000000000";
        store.put(far, "all has been read".into()).unwrap();
        store.put(&far.replace("ffffffff-", "fffffffe-"), bytes.clone()).unwrap();
        store.put(&genuine.replace("checks/0000", "checks/0001"), flipped.into()).unwrap();
        repo.add_key(&Passphrase::new("put"), Capability::Put, "put", Kdf::cheap()).unwrap();
        let thief =
            Repository::open(Arc::new(store.clone()), &Passphrase::new("put"), &Env::fixed(0, 9)).unwrap();
        assert!(matches!(
            thief.secrets().seal_check(b"", thief.env()),
            Err(Error::NotPermitted { needed: Capability::List, .. })
        ));
        let (turns, findings) = Turns::new(&repo, &mut keys(&store), &packs, Budget::Share(0.1)).unwrap();
        assert_eq!(findings.len(), 3, "{findings:#?}");
        let next = turns.pack(0).unwrap().0;
        assert!(!first.contains(&next), "the turns go on behind what was read");
        assert!(keys(&store).iter().all(|key| is_note_key(key)));
        assert!(!is_note_key("checks/x") && !is_note_key("packs/x"));
    }

    #[test]
    fn a_budget_of_time_ends_with_it_and_one_that_reads_nothing_is_refused() {
        let (_, repo) = fresh();
        let packs = packs(0..5);
        let time = |time| Turns::new(&repo, &mut [], &packs, Budget::Time(time)).unwrap().0;
        assert!(!time(Duration::from_secs(3_600)).is_over());
        let short = time(Duration::from_nanos(1));
        assert!(short.count() == 5 && short.is_over());
        for budget in [Budget::Share(0.0), Budget::Share(1.1), Budget::Share(f64::NAN), Budget::Bytes(0)] {
            assert!(Turns::new(&repo, &mut [], &packs, budget).is_err(), "{budget:?}");
        }
    }

    proptest! {
        /// Packs come and go between the runs; whatever stays is read within one lap.
        #[test]
        fn what_stays_is_read_whatever_comes_and_goes(
            begin in 1_u64..60,
            changes in proptest::collection::vec((0_u64..200, any::<bool>()), 20),
        ) {
            let (store, repo) = fresh();
            let mut numbers: BTreeSet<u64> = (1000..1000 + begin).collect();
            let mut read = BTreeSet::new();
            // As many runs as it takes for one lap to end and a whole one to follow.
            let mut laps = 0;
            for (number, add) in changes.into_iter().cycle().take(400) {
                if add { numbers.insert(number); } else { numbers.remove(&number); }
                let packs = packs(numbers.iter().copied());
                let (ids, turn) = run(&store, &repo, &packs, Budget::Share(0.1));
                read.extend(ids);
                laps = turn.laps;
                if laps >= 1 { break; }
            }
            prop_assert!(laps >= 1);
            for number in 1000..1000 + begin {
                prop_assert!(read.contains(&pack(number).0));
            }
        }

        #[test]
        fn hostile_notes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_, repo) = fresh();
            prop_assert!(Note::open(&repo, "checks/x", &bytes).is_err());
            let _ = Note::decode(&bytes);
        }
    }
}
