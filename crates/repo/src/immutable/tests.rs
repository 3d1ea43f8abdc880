//! Locks: what a year of backups costs, and what is promised.

use std::io::Write;

use bytes::Bytes;

use super::*;
use crate::index::Segment;
use crate::pack::PackEntry;
use crate::reindex;
use crate::store::locked::is_kept;
use crate::store::record::{Record as Recorded, Verb};
use crate::store::vault::list_versions;
use crate::store::versioned::{Flaws, VersionedStore};
use crate::{
    CommitDraft, CommitInfo, EntryKind, InitOptions, Kdf, Lane, LocalOptions, ManifestEntry, Passphrase,
    WriterOptions,
};

const DAYS: Timestamp = DAY as i64 * SECOND;

struct Site {
    env: Env,
    bucket: VersionedStore,
    log: Arc<Recorded<VersionedStore>>,
    repo: Repository,
}

fn site(days: u64, flaws: Flaws) -> Result<Site, Error> {
    let env = Env::fixed(20_000 * DAYS, 1);
    let bucket = VersionedStore::new(&env, flaws);
    let log = Arc::new(Recorded::new(bucket.clone()));
    let lock = Some(LockPolicy::new(LockMode::Compliance, days * DAY)?);
    let options = InitOptions { kdf: Kdf::cheap(), lock, ..InitOptions::default() };
    let repo = Repository::init(log.clone(), &Passphrase::new("x"), &options, &env)?;
    Ok(Site { env, bucket, log, repo })
}

impl Site {
    /// Content that is the same in every backup, and some that is new.
    fn backup(&self, new: &str) -> Result<CommitInfo, Error> {
        let writer = self.repo.writer(WriterOptions::default())?;
        let mut stream = writer.stream(Lane::Data);
        let mut old = vec![0; 300_000];
        blake3::Hasher::new().finalize_xof().fill(&mut old);
        stream.write_all(&old).unwrap();
        let old = stream.finish()?;
        let mut stream = writer.stream(Lane::Data);
        stream.write_all(new.as_bytes()).unwrap();
        let new = stream.finish()?;
        let entry = |name: &str, root| ManifestEntry {
            name: name.into(),
            kind: EntryKind::Bytes,
            root,
            figures: BTreeMap::new(),
        };
        let manifest = vec![entry("new", new), entry("old", old)];
        writer.commit(CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() })
    }

    /// The earliest date at which any object of the repository unlocks.
    fn first_unlock(&self) -> Timestamp {
        let kept = list_all(&self.bucket, "").unwrap().into_iter().filter(|o| is_kept(&o.key));
        kept.map(|object| self.bucket.lock_of(&object.key).unwrap().unwrap().until).min().unwrap()
    }
}

/// The promise, for a year of daily backups: whatever a point needs is locked as long as the point. And the price
/// of it: what all of them share is extended once in a slack, and on most days nothing is.
#[test]
fn r1_no_point_outlives_what_it_needs_and_most_days_cost_nothing() {
    let site = site(30, Flaws::default()).unwrap();
    let (mut renewals, mut shared) = (Vec::new(), 0);
    for day in 0..365 {
        site.log.clear();
        site.backup(&format!("day {day}")).unwrap();
        let until = site.env.now() + 30 * DAYS;
        // Every object there is belongs to some point; those of this point must last.
        let commit = site.repo.find_commit("latest").unwrap();
        assert!(site.bucket.lock_of(&commit.id.key()).unwrap().unwrap().until >= until);
        let first_pack = list_versions(&site.bucket, PACKS).unwrap();
        let old = first_pack.iter().min_by_key(|version| (version.modified, &version.key)).unwrap();
        for key in [old.key.as_str(), HEADER] {
            assert!(site.bucket.lock_of(key).unwrap().unwrap().until >= until, "day {day}: {key}");
        }
        shared += site.log.count(Verb::SetLock, &old.key);
        if site.log.count(Verb::SetLock, "") > 0 {
            renewals.push(day);
        }
        assert!(site.log.count(Verb::Get, LOCKS) <= 10, "day {day}: {:?}", site.log.calls(Verb::Get));
        site.env.advance(DAYS);
    }
    assert!((24..=34).contains(&shared), "about once in a slack of 15 days: {shared}");
    assert!(renewals.len() < 100, "{renewals:?}");
    let records = list_all(&site.bucket, LOCKS).unwrap();
    assert!(records.len() <= 45, "old records go: {}", records.len());
}

/// A bucket of so many packs, all of them needed and all of them old. (Their content matters to nobody here.)
fn many(count: u32) -> Site {
    let site = site(30, Flaws::default()).unwrap();
    let pack = |number: u32| PackId(*blake3::hash(&number.to_le_bytes()).as_bytes());
    for part in (0..count).step_by(50_000) {
        let mut segment = Segment::default();
        for number in part..count.min(part + 50_000) {
            let id = pack(number);
            site.bucket
                .put_locked(
                    &id.key(),
                    Bytes::from_static(b"a pack"),
                    &Lock::new(LockMode::Compliance, site.env.now() + 45 * DAYS),
                )
                .unwrap();
            let entry = PackEntry { id: crate::ChunkId(id.0), offset: 48, sealed: 100, plain: 100 };
            reindex::add(&mut segment, id, 4_096, vec![entry]);
        }
        reindex::put_segment(&site.repo, segment).unwrap();
    }
    site.env.advance(40 * DAYS);
    site
}

/// What a backup does that reuses them all.
fn cover_all(site: &Site, repo: &Repository) {
    let index = repo.index().unwrap();
    let touched = PackSet::of(&index);
    (0..index.pack_count() as u32).for_each(|number| touched.insert(number));
    let now = site.env.now();
    cover(repo, &index, &touched, now, now).unwrap();
}

#[test]
fn a_backup_that_reuses_many_packs_asks_little_of_the_store() {
    let site = many(20_000);
    site.log.clear();
    cover_all(&site, &site.repo);
    assert_eq!(site.log.count(Verb::SetLock, PACKS), 20_000, "each once");
    assert_eq!(site.log.count(Verb::LockOf, PACKS), 0, "their dates come from the listing");
    site.log.clear();
    site.env.advance(DAYS);
    cover_all(&site, &site.repo);
    assert_eq!((site.log.count(Verb::SetLock, ""), site.log.count(Verb::LockOf, "")), (0, 0));
    assert!(site.log.count(Verb::Get, "") <= 3, "{:?}", site.log.calls(Verb::Get));
}

/// Makes the bucket of `LOCKS_OF` packs, and covers them if `LOCKS_DO` says so; prints its peak.
#[test]
#[ignore = "one step of the test below, which starts it in a process of its own"]
fn child() {
    let count = std::env::var("LOCKS_OF").expect("the test below says how many").parse().unwrap();
    let site = many(count);
    // Without the log, which remembers every call.
    let local = LocalOptions { memory_bytes: 16 << 20, ..LocalOptions::default() };
    let opened = Repository::open(Arc::new(site.bucket.clone()), &Passphrase::new("x"), &site.env);
    let repo = opened.unwrap().with_local(&local);
    repo.index().unwrap();
    if std::env::var("LOCKS_DO").unwrap() == "cover" {
        cover_all(&site, &repo);
    }
    crate::cost::tell();
}

/// What extending the locks of so many packs adds to the peak of a process, in bytes.
fn peak_of_locks(count: u64) -> u64 {
    let [before, with] = ["nothing", "cover"].map(|what| {
        let mut step = crate::cost::step("immutable::tests::child");
        crate::cost::peak_of(step.env("LOCKS_OF", count.to_string()).env("LOCKS_DO", what))
    });
    println!("{count} packs: {} KiB, and {} KiB with their locks extended", before >> 10, with >> 10);
    with.saturating_sub(before)
}

/// 48 bytes a pack and a few numbers beside, not the text of its key several times over.
#[test]
fn r6_locks_of_many_packs_take_little_memory() {
    let [few, many] = [10_000, 60_000].map(peak_of_locks);
    assert!(many < few + 50_000 * 200, "{few} and {many} bytes");
}

#[test]
fn a_lock_that_cannot_be_extended_fails_the_backup_and_says_so() {
    let site = site(30, Flaws::default()).unwrap();
    site.backup("first").unwrap();
    site.env.advance(20 * DAYS);
    // Somebody overwrote the store's rights: no lock can be set any more.
    let frozen = site.bucket.with_flaws(Flaws { forgets_locks: true, ..Flaws::default() });
    let repo = Repository::open(Arc::new(frozen), &Passphrase::new("x"), &site.env).unwrap();
    let site = Site { repo, ..site };
    assert!(site.backup("second").is_ok(), "a service that lies is for the probe to find");
    assert_eq!(site.repo.commits().unwrap().done.len(), 2);
}

#[test]
fn a_renewal_protects_every_point_from_now_on_and_its_plan_says_so() {
    let site = site(10, Flaws::default()).unwrap();
    site.backup("first").unwrap();
    site.env.advance(6 * DAYS);
    let renew = |options: RenewOptions| renew(&site.repo, &options).unwrap();
    assert_eq!(renew(RenewOptions::default()).done.extended, 0, "what a point was promised it has");
    let before = site.first_unlock();
    let rolling = RenewOptions { protect_seconds: Some(10 * DAY), ..RenewOptions::default() };
    let plan = renew(RenewOptions { plan: true, ..rolling.clone() });
    assert!(plan.done.extended > 3 && site.first_unlock() == before, "{plan:?}");
    assert_eq!(renew(rolling.clone()).done.extended, plan.done.extended);
    assert!(site.first_unlock() >= site.env.now() + 10 * DAYS);
    site.log.clear();
    assert_eq!(renew(rolling.clone()).done.extended, 0);
    assert_eq!(site.log.count(Verb::SetLock, "") + site.log.count(Verb::LockOf, ""), 0, "a record tells");
    let looked = renew(RenewOptions { look: true, ..rolling });
    assert_eq!((looked.done.extended, looked.findings), (0, vec![]));
    assert!(site.log.count(Verb::LockOf, "") as u64 >= looked.done.objects);
}

/// A hold to a far date locks what its point needs until then, and nothing else.
#[test]
fn a_held_point_is_locked_as_long_as_it_is_held() {
    let site = site(10, Flaws::default()).unwrap();
    let held = site.backup("held").unwrap();
    site.env.advance(DAYS);
    let other = site.backup("another").unwrap();
    let end = site.env.now() + 400 * DAYS;
    site.repo.add_hold(&held.id, "audit", "me", Some(end)).unwrap();
    renew(&site.repo, &RenewOptions::default()).unwrap();
    let until = |key: &str| site.bucket.lock_of(key).unwrap().unwrap().until;
    assert!(until(&held.id.key()) >= end && until(HEADER) >= end);
    assert!(until(&other.id.key()) < end);
    let packs = list_all(&site.bucket, PACKS).unwrap();
    let long = packs.iter().filter(|pack| until(&pack.key) >= end).count();
    assert!(long >= 2 && long < packs.len(), "{long} of {}", packs.len());
    assert_eq!(renew(&site.repo, &RenewOptions::default()).unwrap().done.extended, 0);
}

#[test]
fn nobody_removes_an_object_before_its_date_and_afterwards_anybody_may() {
    let site = site(10, Flaws::default()).unwrap();
    site.backup("first").unwrap();
    let store = site.repo.store();
    for object in list_all(&site.bucket, "").unwrap().into_iter().filter(|object| is_kept(&object.key)) {
        let refused = store.delete(&object.key);
        assert!(matches!(refused, Err(StoreError::Locked { .. })), "{}: {refused:?}", object.key);
    }
    site.env.advance(16 * DAYS);
    for object in list_all(&site.bucket, "").unwrap() {
        store.delete(&object.key).unwrap();
    }
    assert_eq!(list_all(&site.bucket, "").unwrap(), []);
}

#[test]
fn locks_are_refused_where_they_were_not_proved() {
    for flaws in [
        Flaws { forgets_locks: true, ..Flaws::default() },
        Flaws { deletes_locked: true, ..Flaws::default() },
        Flaws { shortens: true, ..Flaws::default() },
    ] {
        let refused = site(30, flaws).err().unwrap().to_string();
        assert!(refused.contains("was not proved to hold COMPLIANCE locks"), "{refused}");
    }
    assert!(LockPolicy::new(LockMode::Compliance, 0).is_err());
    assert!(LockPolicy::new(LockMode::Governance, u64::MAX).is_err());
}

#[test]
fn a_record_says_what_it_said_or_nothing() {
    let site = site(1, Flaws::default()).unwrap();
    let keys = site.repo.secrets();
    let names = vec![name_of("b"), name_of("a"), name_of("a")];
    let (key, bytes) = Record { until: 77, names }.encode(keys);
    assert_eq!(until_of(&key), Some(77));
    let record = Record::decode(keys, &bytes).unwrap();
    assert!(
        record.covers(&name_of("a"), 77)
            && record.covers(&name_of("b"), 1)
            && !record.covers(&name_of("a"), 78)
            && !record.covers(&name_of("c"), 1)
    );
    for at in 0..bytes.len() {
        let mut spoilt = bytes.to_vec();
        spoilt[at] ^= 1;
        assert!(Record::decode(keys, &spoilt).is_none(), "byte {at}");
        assert!(Record::decode(keys, &bytes[..at]).is_none());
    }
    for wrong in ["locks/", "locks/x-y", "packs/4d-x", "locks/-1-x"] {
        assert_eq!(until_of(wrong), None, "{wrong}");
    }
}
