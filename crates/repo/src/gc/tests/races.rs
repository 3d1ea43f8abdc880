//! Races told step by step: what the simulated histories meet by chance, or never, happens here at the very moment.
//! Each story is told twice: with a step of the protocol left out it ends in a loss, so it is the right story; and as it
//! is, nothing is lost.

use std::collections::VecDeque;

use bytes::Bytes;

use super::*;
use crate::delete::{Fate, delete_one};
use crate::lease::Sabotage;
use crate::store::record::{Record, Verb};

/// What happens right before a call, the first of its kind after the one before it in the list.
struct Moment {
    verb: Verb,
    prefix: &'static str,
    event: Box<dyn FnOnce() + Send>,
}

fn before(verb: Verb, prefix: &'static str, event: impl FnOnce() + Send + 'static) -> Moment {
    Moment { verb, prefix, event: Box::new(event) }
}

/// What is still to happen.
type Moments = Arc<Mutex<VecDeque<Moment>>>;

impl World {
    /// The repository of somebody to whom things happen.
    fn timed(&self, moments: impl Into<VecDeque<Moment>>) -> (Repository, Moments) {
        let moments: Moments = Arc::new(Mutex::new(moments.into()));
        let due = moments.clone();
        let store = Record::new(self.store.clone()).before(move |verb, key| {
            let mut due = due.lock().unwrap();
            let now = due.front().is_some_and(|next| next.verb == verb && key.starts_with(next.prefix));
            let moment = if now { due.pop_front() } else { None };
            drop(due);
            if let Some(moment) = moment {
                (moment.event)();
            }
        });
        (self.repo.elsewhere(Arc::new(store), &self.env).unwrap(), moments)
    }

    /// Whether this point can be read.
    fn is_lost(&self, commit: &CommitId, content: &[u8]) -> bool {
        let reader = self.repo.reader(ReaderOptions::default()).unwrap();
        let read = reader.manifest(commit).and_then(|manifest| reader.bytes(&manifest[0].root, 1 << 30));
        read.map_or(true, |read| read != content)
    }
}

fn all_at_once(sabotage: Sabotage) -> GcOptions {
    GcOptions { repack_percent: 0, sabotage, ..options(0) }
}

fn run(repo: &Repository, options: GcOptions) -> Collected {
    plan(repo, options, &()).unwrap().execute(&()).unwrap()
}

/// A hold is placed while its point is deleted, and between the two a collection that saw neither is about to delete
/// what the point needs.
#[test]
fn r3_a_point_that_is_held_while_it_is_deleted_keeps_what_it_needs() {
    for sabotage in [Sabotage::DeleterSaysNothing, Sabotage::CollectorIgnoresDeletions, Sabotage::None] {
        let world = world();
        let (a, b) = (noise(1, 50_000), noise(2, 50_000));
        let (point, other) = (world.commit(&a), world.commit(&b));
        // Its bytes, to be put at the moment.
        let placed = world.repo.add_hold(&point.id, "an audit", "me", None).unwrap();
        let hold_key = placed.id.key(&point.id);
        let hold_bytes = world.store.get(&hold_key).unwrap();
        world.store.delete(&hold_key).unwrap();
        let hold = {
            let store = world.store.clone();
            move || _ = store.put(&hold_key, hold_bytes.clone()).unwrap()
        };
        let (of_deleter, of_collector) = match sabotage {
            Sabotage::DeleterSaysNothing => (sabotage, Sabotage::None),
            other => (Sabotage::None, other),
        };
        // The collection has looked for holds, and goes on to what it deletes; or it stops before.
        let (collector, _) = world.timed([before(Verb::Put, "index/", hold.clone())]);
        let (deleter, told) = world.timed([
            before(Verb::Delete, "commits/", || {}),
            before(Verb::List, "holds/", move || {
                run(&collector, all_at_once(of_collector));
                hold();
            }),
        ]);
        let fate = delete_one(&deleter, &point.id, of_deleter).unwrap();
        assert!(matches!(fate, Fate::Held(_) | Fate::Doubtful(_)), "{fate:?}");
        assert_eq!(told.lock().unwrap().len(), 0, "all of it happened");
        assert!(world.store.get(&point.id.key()).is_ok(), "it is back, and whoever held it is told so");
        assert_eq!(world.is_lost(&point.id, &a), sabotage != Sabotage::None, "{sabotage:?}");
        if sabotage == Sabotage::None {
            // And what was sentenced meanwhile is copied out, now that it is needed.
            run(&world.repo, options(0));
            run(&world.repo, options(0));
            world.whole(&[(&point, &a), (&other, &b)]);
            assert_eq!(world.count("gc/deletion-"), 0);
        }
    }
}

/// The collection saw the point gone, then its deleter put it back and was through before the collection looked whether
/// any point is being deleted: then the hold shows.
#[test]
fn r3_a_held_point_that_came_back_unseen_keeps_what_it_needs() {
    for sabotage in [Sabotage::CollectorIgnoresHolds, Sabotage::None] {
        let world = world();
        let a = noise(1, 50_000);
        let point = world.commit(&a);
        let (key, bytes) = (point.id.key(), world.store.get(&point.id.key()).unwrap());
        let repo = world.repo.clone();
        let store = world.store.clone();
        let id = point.id;
        world.delete(&point);
        let (collector, told) = world.timed([
            before(Verb::Put, "gc/verdict-", || {}),
            before(Verb::List, "commits/", || {}),
            // Listed after the commits.
            before(Verb::List, "gc/", move || {
                store.put(&key, bytes).unwrap();
                repo.add_hold(&id, "an audit", "me", None).unwrap();
            }),
        ]);
        run(&collector, all_at_once(sabotage));
        assert_eq!(told.lock().unwrap().len(), 0, "all of it happened");
        assert_eq!(world.is_lost(&point.id, &a), sabotage != Sabotage::None, "{sabotage:?}");
    }
}

/// The point was listed, was away when it was to be read, and is back when the collection looks again.
#[test]
fn r3_a_point_that_was_away_when_it_was_to_be_read_keeps_what_it_needs() {
    let world = world();
    let (a, b) = (noise(1, 50_000), noise(2, 50_000));
    let (point, other) = (world.commit(&a), world.commit(&b));
    let (key, bytes) = (point.id.key(), world.store.get(&point.id.key()).unwrap());
    let (id, repo) = (point.id, world.repo.clone());
    let (here, there) = (world.store.clone(), world.store.clone());
    // Whichever of the two is read first.
    let (collector, told) = world.timed([
        before(Verb::Get, "commits/", {
            let key = key.clone();
            move || here.delete(&key).unwrap()
        }),
        before(Verb::Put, "gc/verdict-", move || {
            there.put(&key, bytes).unwrap();
            repo.add_hold(&id, "an audit", "me", None).unwrap();
        }),
    ]);
    run(&collector, all_at_once(Sabotage::None));
    assert_eq!(told.lock().unwrap().len(), 0, "all of it happened");
    world.gc(options(0));
    world.gc(options(0));
    world.whole(&[(&point, &a), (&other, &b)]);
}

/// Whoever deleted it died in between: a collection waits an hour for him, and no longer.
#[test]
fn a_deletion_that_was_killed_holds_collections_up_for_an_hour() {
    let world = world();
    let (a, b) = (noise(1, 50_000), noise(2, 50_000));
    let (point, other) = (world.commit(&a), world.commit(&b));
    crate::lease::put_deletion(&world.repo, &point.id).unwrap();
    world.delete(&point);
    let waits = world.gc(options(0));
    assert_eq!((waits.packs_sentenced, waits.packs_deleted), (2, 0));
    assert_eq!(waits.findings.iter().map(|one| one.code).collect::<Vec<_>>(), ["deletion-under-way"]);
    world.env.advance(HOUR);
    let done = world.gc(options(0));
    assert_eq!((done.packs_deleted, done.findings.as_slice()), (2, &[][..]));
    world.gc(options(0));
    assert_eq!((world.count("gc/"), world.count(PACKS)), (1, 2));
    world.whole(&[(&other, &b)]);
}

/// Somebody deletes the last verdict by hand while a backup runs whose lease ran out, and its number is given to another
/// one, between the backup's commit and its second look.
#[test]
fn r3_a_verdict_whose_number_came_again_is_seen() {
    for sabotage in [Sabotage::WriterGoesByNumbers, Sabotage::None] {
        let world = world();
        let (a, b, c) = (noise(1, 50_000), noise(2, 50_000), noise(3, 50_000));
        let (first, gone) = (world.commit(&a), world.commit(&b));
        world.delete(&gone);
        assert_eq!(world.gc(options(0)).packs_deleted, 2);
        assert_eq!(world.count("gc/verdict-"), 1, "the closing one");
        let (store, env, other) = (world.store.clone(), world.env.clone(), world.repo.clone());
        let (repo, told) = world.timed([before(Verb::Put, "commits/", move || {
            store.delete(&first.id.key()).unwrap();
            let verdicts = list_all(&store, "gc/verdict-").unwrap();
            store.delete(&verdicts[0].key).unwrap();
            env.advance(2 * HOUR);
            assert_eq!(run(&other, options(0)).packs_deleted, 2);
            let again = list_all(&store, "gc/verdict-").unwrap();
            assert_eq!(again[0].key, verdicts[0].key, "the number came again");
        })]);
        let writer = repo
            .writer(WriterOptions { threads: 1, uploads: 1, sabotage, ..WriterOptions::default() })
            .unwrap();
        let entry = world.add(&writer, &a);
        let committed = world.finish(writer, entry);
        assert_eq!(told.lock().unwrap().len(), 0, "all of it happened");
        match (sabotage, committed) {
            (Sabotage::None, Err(Error::Collected { .. } | Error::Missing { .. })) => {
                assert!(world.repo.commits().unwrap().done.is_empty(), "it does not count");
                let again = world.commit(&c);
                world.whole(&[(&again, &c)]);
            }
            (Sabotage::WriterGoesByNumbers, Ok(commit)) => assert!(world.is_lost(&commit.id, &a)),
            other => panic!("{other:?}"),
        }
    }
}

/// There was no verdict yet when a backup began whose lease ran out; then one strikes at what it relies on, is closed, and
/// somebody deletes the closing one by hand, so that there is none again, or another one under the first number.
#[test]
fn r3_verdicts_of_which_nothing_is_left_are_looked_for_in_what_they_struck() {
    for (sabotage, another) in [
        (Sabotage::WriterIgnoresGaps, false),
        (Sabotage::WriterIgnoresGaps, true),
        (Sabotage::None, false),
        (Sabotage::None, true),
    ] {
        let world = world();
        let (a, c) = (noise(1, 50_000), noise(3, 50_000));
        let first = world.commit(&a);
        let (store, env, other) = (world.store.clone(), world.env.clone(), world.repo.clone());
        let (repo, told) = world.timed([before(Verb::Put, "commits/", move || {
            store.delete(&first.id.key()).unwrap();
            env.advance(2 * HOUR);
            assert_eq!(run(&other, options(0)).packs_deleted, 2);
            let verdicts = list_all(&store, "gc/verdict-").unwrap();
            assert_eq!(verdicts.len(), 1, "the closing one");
            store.delete(&verdicts[0].key).unwrap();
            if another {
                crate::lease::put_verdict(&other, &[PackId::ZERO], 0, Sabotage::None).unwrap();
            }
        })]);
        let options = WriterOptions { threads: 1, uploads: 1, sabotage, ..WriterOptions::default() };
        let writer = repo.writer(options).unwrap();
        let entry = world.add(&writer, &a);
        let committed = world.finish(writer, entry);
        assert_eq!(told.lock().unwrap().len(), 0, "all of it happened");
        match (sabotage, committed) {
            (Sabotage::None, Err(Error::Missing { .. })) => {
                assert!(world.repo.commits().unwrap().done.is_empty(), "it does not count");
                let again = world.commit(&c);
                world.whole(&[(&again, &c)]);
            }
            (Sabotage::WriterIgnoresGaps, Ok(commit)) => assert!(world.is_lost(&commit.id, &a)),
            other => panic!("{other:?}"),
        }
    }
}

/// A collector slept between listing commits and listing verdicts. Meanwhile a backup relied on a pack and was acknowledged,
/// and then another collector sentenced that pack, by a mark the backup was too early for, and found it needed. To the
/// sleeper it is a sentenced pack that none of its commits needs. No lease ran out and no clock is wrong.
#[test]
fn r3_a_verdict_that_came_after_commits_were_listed_is_not_deleted_by() {
    for sabotage in [Sabotage::CollectorHeedsLateVerdicts, Sabotage::None] {
        let world = Arc::new(world());
        let (a, b) = (noise(1, 50_000), noise(2, 50_000));
        let refuse = world.commit(&b);
        world.delete(&refuse);
        let point = Arc::new(Mutex::new(None));
        let (sleeper, told) = world.timed([
            before(Verb::Put, "gc/verdict-", || {}),
            before(Verb::List, "commits/", || {}),
            before(Verb::List, "gc/", {
                let (world, point, a) = (world.clone(), point.clone(), a.clone());
                move || {
                    // Packs that nobody needs, and that are not marked.
                    world.delete(&world.commit(&a));
                    world.env.advance(1);
                    let writer = world.writer();
                    let entry = world.add(&writer, &a);
                    let planned = plan(&world.repo, all_at_once(Sabotage::None), &()).unwrap();
                    assert_eq!(planned.report().count(crate::gc::Fate::Mark).0, 2);
                    *point.lock().unwrap() = Some(world.finish(writer, entry).unwrap());
                    let done = planned.execute(&()).unwrap();
                    assert_eq!(
                        (done.packs_sentenced, done.packs_deleted),
                        (2, 2),
                        "its own stay, the sleeper's go"
                    );
                }
            }),
        ]);
        run(&sleeper, all_at_once(sabotage));
        assert_eq!(told.lock().unwrap().len(), 0, "all of it happened");
        let point = point.lock().unwrap().take().unwrap();
        assert_eq!(world.is_lost(&point.id, &a), sabotage != Sabotage::None, "{sabotage:?}");
        if sabotage == Sabotage::None {
            // What is sentenced and needed is copied out, and then it goes.
            world.gc(options(0));
            world.gc(options(0));
            world.whole(&[(&point, &a)]);
            assert_eq!((world.count("gc/"), world.count(PACKS)), (1, 2));
        }
    }
}

/// A collector slept between looking for the highest number and putting its verdict; others used the number, closed and
/// removed it. A third one does not see the verdict below the closing one, and counts on a pack that is in it.
#[test]
fn r3_a_verdict_under_a_number_that_others_have_closed_is_put_again_above() {
    for sabotage in [Sabotage::CollectorSpeaksTooLow, Sabotage::None] {
        let (world, both) = (2..40)
            .map(|seed| (world_of(seed), noise(1, 300)))
            .find_map(|(world, shared)| too_low(world, shared, sabotage))
            .expect("one of two packs has the smaller name half of the time");
        let (point, content) = both;
        assert_eq!(world.is_lost(&point.id, &content), sabotage != Sabotage::None, "{sabotage:?}");
    }
}

/// The story; `None` if the names of the packs do not serve it.
fn too_low(world: World, shared: Vec<u8>, sabotage: Sabotage) -> Option<(World, (CommitInfo, Vec<u8>))> {
    let extra = noise(2, 300);
    let data_pack = |before: &[String]| -> String {
        let new = list_all(&world.store, PACKS).unwrap().into_iter();
        let new = new.filter(|pack| !before.contains(&pack.key));
        // The other one is of the manifest.
        new.max_by_key(|pack| (world.is_data(&pack.key), pack.size)).unwrap().key
    };
    let there = || -> Vec<String> {
        list_all(&world.store, PACKS).unwrap().into_iter().map(|pack| pack.key).collect()
    };
    // Something that is marked for long.
    let refuse = world.commit(&noise(9, 300));
    world.delete(&refuse);
    assert_eq!(world.gc(options(1)).packs_marked, 2);
    // What is shared lies in two packs: two writers at once.
    let (one, two) = (world.writer(), world.writer());
    let before_one = there();
    let entry = world.add(&one, &shared);
    let one = world.finish(one, entry).unwrap();
    let p = data_pack(&before_one);
    let before_two = there();
    let entry = world.add(&two, &shared);
    world.add(&two, &extra);
    let two = world.finish(two, entry).unwrap();
    let q = data_pack(&before_two);
    if p > q {
        return None;
    }
    // Both packs are marked while nobody needs them, and then they are needed again by who began before.
    world.env.advance(1);
    let (needs_shared, needs_extra) = (world.writer(), world.writer());
    world.delete(&one);
    world.delete(&two);
    world.env.advance(HOUR / 2);
    assert_eq!(world.gc(options(1)).packs_marked, 4);
    let entry = world.add(&needs_shared, &shared);
    let point = world.finish(needs_shared, entry).unwrap();
    let entry = world.add(&needs_extra, &extra);
    let passing = world.finish(needs_extra, entry).unwrap();
    world.env.advance(HOUR / 2 + HOUR / 60);

    let (second, third, store) = (world.repo.clone(), world.repo.clone(), world.store.clone());
    let (first, told) = world.timed([
        before(Verb::Put, "gc/verdict-", move || {
            // Only the old mark is ripe to this one; it uses the number, and closes it.
            assert_eq!(run(&second, GcOptions { repack_percent: 0, ..options(1) }).packs_deleted, 2);
        }),
        before(Verb::Delete, "index/", move || {
            // The first one is about to delete P, because what it shares with Q lies in Q, which is needed for more.
            store.delete(&passing.id.key()).unwrap();
            run(&third, all_at_once(Sabotage::None));
        }),
    ]);
    run(&first, all_at_once(sabotage));
    assert_eq!(told.lock().unwrap().len(), 0, "all of it happened");
    Some((world, (point, shared)))
}

/// A collector gave its verdict, listed commits, and slept. Of a point that several write it saw the piece; the point itself
/// was put meanwhile, and the piece deleted before the collector read it: to the sleeper nobody needs what both name.
#[test]
fn r3_a_piece_that_stays_while_a_verdict_is_open_keeps_what_its_point_needs() {
    for looks in [false, true] {
        let world = Arc::new(world());
        let a = noise(1, 50_000);
        // Packs that nobody needs, and that are not marked.
        world.delete(&world.commit(&a));
        world.env.advance(1);
        let node = world.writer();
        let entry = world.add(&node, &a);
        let point = Arc::new(Mutex::new(None));
        let (sleeper, told) = world.timed([
            before(Verb::Put, "gc/verdict-", || {}),
            before(Verb::List, "commits/", || {}),
            before(Verb::Get, "commits/", {
                let (world, point, root) = (world.clone(), point.clone(), entry.root);
                move || {
                    let piece = world.repo.commits().unwrap().done[0].id;
                    let operator = world.writer();
                    operator.take_over(&piece, [root]).unwrap();
                    let entry = ManifestEntry {
                        name: "b".into(),
                        kind: EntryKind::Bytes,
                        root,
                        figures: Default::default(),
                    };
                    *point.lock().unwrap() = Some(world.finish(operator, entry).unwrap());
                    assert!(open_verdicts(&world.repo).unwrap());
                    if !looks {
                        world.store.delete(&piece.key()).unwrap();
                    }
                }
            }),
        ]);
        let planned = plan(&sleeper, all_at_once(Sabotage::None), &()).unwrap();
        assert_eq!(planned.report().count(crate::gc::Fate::Mark).0, 2);
        let piece = world.finish(node, entry).unwrap();
        planned.execute(&()).unwrap();
        assert_eq!(told.lock().unwrap().len(), 0, "all of it happened");
        let point = point.lock().unwrap().take().unwrap();
        assert_eq!(world.is_lost(&point.id, &a), !looks);
        if looks {
            // What is sentenced and needed is copied out, and then it goes, and the piece may.
            world.gc(options(0));
            assert!(!open_verdicts(&world.repo).unwrap());
            world.delete(&piece);
            world.gc(options(0));
            world.gc(options(0));
            world.whole(&[(&point, &a)]);
        }
    }
}

/// Somebody deletes a piece while the point is being put together from it.
#[test]
fn a_point_whose_piece_goes_before_it_is_there_does_not_count() {
    let world = world();
    let a = noise(1, 50_000);
    let piece = world.commit(&a);
    let root = world.repo.reader(ReaderOptions::default()).unwrap().manifest(&piece.id).unwrap()[0].root;
    let entry = ManifestEntry { name: "b".into(), kind: EntryKind::Bytes, root, figures: Default::default() };
    let (store, key) = (world.store.clone(), piece.id.key());
    let (repo, told) = world.timed([before(Verb::Put, "commits/", move || store.delete(&key).unwrap())]);
    let operator = repo.writer(WriterOptions::default()).unwrap();
    operator.take_over(&piece.id, [root]).unwrap();
    let refused = world.finish(operator, entry).unwrap_err();
    assert_eq!(told.lock().unwrap().len(), 0, "all of it happened");
    assert!(matches!(&refused, Error::Missing { object, .. } if *object == piece.id.key()), "{refused}");
    assert!(world.repo.commits().unwrap().done.is_empty(), "it does not count");
    let writer = world.writer();
    assert!(matches!(writer.take_over(&piece.id, [root]), Err(Error::Missing { .. })), "nor is it begun");
}

/// A piece's root lies in a pack that is sentenced and will be copied out, because the piece needs it.
#[test]
fn a_point_is_put_together_also_while_its_pieces_lie_in_sentenced_packs() {
    let world = world();
    let a = noise(1, 50_000);
    let piece = world.commit(&a);
    let root = world.repo.reader(ReaderOptions::default()).unwrap().manifest(&piece.id).unwrap()[0].root;
    let mut packs: Vec<PackId> = list_all(&world.store, PACKS)
        .unwrap()
        .iter()
        .filter_map(|pack| PackId::from_key(&pack.key))
        .collect();
    packs.sort_unstable();
    lease::put_verdict(&world.repo, &packs, 0, Sabotage::None).unwrap();
    let operator = world.writer();
    operator.take_over(&piece.id, [root]).unwrap();
    let entry = ManifestEntry { name: "b".into(), kind: EntryKind::Bytes, root, figures: Default::default() };
    let point = world.finish(operator, entry).unwrap();
    assert!(open_verdicts(&world.repo).unwrap());
    world.gc(options(0));
    assert!(!open_verdicts(&world.repo).unwrap());
    world.delete(&piece);
    world.gc(options(0));
    world.gc(options(0));
    world.whole(&[(&point, &a)]);
}

/// A bit of an index segment flips on the wire, at the moment when the segment is to be written anew without what goes.
#[test]
fn a_segment_that_is_spoilt_on_its_way_does_not_go_on_naming_what_is_deleted() {
    for always in [false, true] {
        let world = world();
        world.delete(&world.commit(&noise(1, 50_000)));
        let segment = list_all(&world.store, INDEX).unwrap().remove(0).key;
        let bytes = world.store.get(&segment).unwrap();
        // What the next one to read it gets.
        let next = |flipped: Option<usize>| {
            let (store, segment, mut read) = (world.store.clone(), segment.clone(), bytes.to_vec());
            read[flipped.unwrap_or(0)] ^= u8::from(flipped.is_some());
            before(Verb::Get, "index/", move || store.tamper(&segment, Some(read.into())))
        };
        let mut moments = vec![
            before(Verb::Put, "gc/verdict-", || {}),
            before(Verb::List, "commits/", || {}),
            before(Verb::List, "holds/", || {}),
            next(Some(1)),
        ];
        moments.extend(if always { vec![next(Some(2)), next(Some(3))] } else { vec![next(None)] });
        let (repo, told) = world.timed(moments);
        let done = plan(&repo, all_at_once(Sabotage::None), &()).unwrap().execute(&());
        assert_eq!(told.lock().unwrap().len(), 0, "all of it happened");
        if always {
            assert!(done.unwrap_err().to_string().contains("reads differently"));
            assert_eq!(world.count(PACKS), 2, "nothing it names was deleted");
            world.store.tamper(&segment, Some(bytes.clone()));
            world.gc(options(0));
        }
        world.whole(&[]);
        assert_eq!((world.count(PACKS), world.count(INDEX)), (0, 0));
    }
}

/// A verdict that cannot be read may be open.
#[test]
fn whether_a_verdict_is_open_is_not_said_of_one_that_cannot_be_read() {
    let world = world();
    assert!(!open_verdicts(&world.repo).unwrap());
    world.store.put("gc/verdict-0000000000000001", Bytes::from_static(b"rot")).unwrap();
    assert!(open_verdicts(&world.repo).unwrap_err().is_damage());
}

impl World {
    /// Whether this is a pack of content.
    fn is_data(&self, key: &str) -> bool {
        let id = PackId::from_key(key).unwrap();
        self.repo.read_pack(&id).unwrap().lane == Lane::Data
    }
}
