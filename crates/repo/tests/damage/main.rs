//! Every kind of object × every kind of damage × check and restore (R4).
//!
//! A repository of four recovery points is written and damaged in one place at a time. Then, whatever the
//! damage:
//! - a restore gives each file exactly as it was, or fails; it never gives other bytes;
//! - `check` names the object, and the recovery points and files it names are exactly those whose restore fails;
//! - what is not named restores.
//!
//! The tables say for each case what is found and what is lost, so that "detected" cannot come to mean less.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod fixture;
mod gc;
mod notes;
mod repair;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fixture::{Files, Fixture, NOW, READ, SECOND, noise, open, stream};
use repo::check::{Budget, CheckOptions, CheckReport, check};
use repo::pack::PackEntry;
use repo::store::faulty::{Faults, Faulty};
use repo::store::mem::MemStore;
use repo::{
    CommitDraft, CommitId, Content, EntryKind, Env, Error, InitOptions, Kdf, Lane, ManifestEntry, NodeKind,
    Passphrase, Reader, ReaderOptions, Repository, Severity, TreeEntry, WriterOptions,
};

// --- restore, and what check says of it ---

/// What restoring a point gave: the names that failed; everything else came back as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Restored {
    /// All but these.
    But(BTreeSet<String>),
    /// Nothing: the commit or its manifest cannot be read.
    Nothing,
}

fn content(reader: &Reader, content: &Content) -> Result<Vec<u8>, Error> {
    match content {
        Content::Stream(root) => reader.bytes(root, 1 << 30),
        Content::Extents(extents) => {
            let mut bytes = Vec::new();
            for extent in extents {
                let chunk = reader.chunk(&extent.chunk)?;
                bytes.extend_from_slice(
                    &chunk[extent.offset as usize..(extent.offset + extent.length) as usize],
                );
            }
            Ok(bytes)
        }
    }
}

/// Restores a point and compares; panics if it ever gets other bytes than were written.
pub(crate) fn restore(repo: &Repository, id: &CommitId, expected: &Files) -> Restored {
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    let manifest = match reader.manifest(id) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert!(error.is_damage(), "{error:?}");
            return Restored::Nothing;
        }
    };
    let mut missing: BTreeSet<String> = expected.keys().cloned().collect();
    let mut take = |name: &str, result: Result<Vec<u8>, Error>| match result {
        Ok(bytes) => {
            assert!(expected.get(name) == Some(&bytes), "{name} came back with other bytes");
            missing.remove(name);
        }
        Err(error) => assert!(error.is_damage(), "{name}: {error:?}"),
    };
    for entry in &manifest {
        match entry.kind {
            EntryKind::Bytes => take(&entry.name, reader.bytes(&entry.root, 1 << 30)),
            EntryKind::Tree => {
                for item in reader.tree(&entry.root) {
                    match item {
                        Ok(TreeEntry { path, kind: NodeKind::File { content: file, .. }, .. }) => {
                            let name = format!("{}/{}", entry.name, String::from_utf8(path).unwrap());
                            take(&name, content(&reader, &file));
                        }
                        Ok(_) => {}
                        Err(error) => assert!(error.is_damage(), "{error:?}"),
                    }
                }
            }
        }
    }
    Restored::But(missing)
}

/// What the report says of a point, in the same terms. `(all after X)` stands for all names behind X.
pub(crate) fn said(report: &CheckReport, id: &CommitId, expected: &Files) -> Restored {
    let Some(point) = report.points.iter().find(|point| point.commit == *id) else {
        return Restored::But(BTreeSet::new());
    };
    if point.whole {
        return Restored::Nothing;
    }
    let mut names = BTreeSet::new();
    for name in &point.files {
        if let Some(tree) = name.strip_suffix(" (all of it)") {
            names.extend(expected.keys().filter(|name| name.starts_with(&format!("{tree}/"))).cloned());
        } else if let Some((tree, last)) =
            name.strip_suffix(')').and_then(|name| name.split_once(" (all after "))
        {
            // (Walk order and the order of our names agree: no name is a prefix of another's folder.)
            let rest =
                expected.keys().filter(|name| name.starts_with(&format!("{tree}/")) && name.as_str() > last);
            names.extend(rest.cloned());
        } else {
            names.insert(name.clone());
        }
    }
    assert!(point.files_count <= 20, "more files than the report lists; choose smaller fixtures");
    Restored::But(names)
}

pub(crate) fn run_check(repo: &Repository, read_data: bool) -> CheckReport {
    check(repo, &CheckOptions { read_data, ..CheckOptions::default() }, &()).unwrap()
}

/// Codes of a report's errors with the object they are about, and what of the points is lost:
/// `0: - | 1: 3 | 2: all | 3: -`.
fn summarise(fixture: &Fixture, report: &CheckReport) -> (BTreeMap<String, &'static str>, String) {
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let errors = errors.map(|finding| (finding.what.clone(), finding.code)).collect();
    let losses =
        fixture.points.iter().enumerate().map(|(number, (id, expected))| match said(report, id, expected) {
            Restored::Nothing => format!("{number}: all"),
            Restored::But(names) if names.is_empty() => format!("{number}: -"),
            Restored::But(names) => format!("{number}: {}", names.len()),
        });
    (errors, losses.collect::<Vec<_>>().join(" | "))
}

struct Case {
    name: String,
    changes: Vec<(String, Option<Bytes>)>,
    /// The code of the finding about each changed object.
    code: &'static str,
    /// What is lost, as in [`summarise`].
    lost: &'static str,
    /// Whether a check that reads no data finds it, too.
    without_reading: bool,
}

fn hold(fixture: &Fixture, case: &Case) {
    let name = &case.name;
    let store = fixture.damaged(&case.changes);
    let repo = open(&store).unwrap_or_else(|error| panic!("{name}: {error}"));
    let report = run_check(&repo, true);
    let (errors, losses) = summarise(fixture, &report);
    for (key, _) in &case.changes {
        // What a lost segment named is put down to the index as a whole: nothing tells of the segment itself.
        let object = if case.code == "index-incomplete" { "index/" } else { key };
        let code =
            errors.get(object).unwrap_or_else(|| panic!("{name}: {object} is not named in {report:#?}"));
        assert_eq!(*code, case.code, "{name}");
    }
    assert_eq!(errors.len(), case.changes.len(), "{name}: nothing else is called damaged: {errors:#?}");
    assert_eq!(losses, case.lost, "{name}: {:#?}", report.findings);
    for (number, (id, expected)) in fixture.points.iter().enumerate() {
        let restored = restore(&repo, id, expected);
        assert_eq!(said(&report, id, expected), restored, "{name}, point {number}: check and restore differ");
        if restored != Restored::But(BTreeSet::new()) {
            let told = report.findings.iter().any(|finding| finding.message.contains(&id.short()));
            assert!(told, "{name}: a finding names point {number}");
        }
    }
    let quick = run_check(&repo, false);
    assert_eq!(
        quick.is_damaged(),
        case.without_reading,
        "{name}: without reading data: {:#?}",
        quick.findings
    );
    if case.without_reading {
        assert_eq!(
            summarise(fixture, &quick).0.keys().collect::<Vec<_>>(),
            errors.keys().collect::<Vec<_>>(),
            "{name}"
        );
    }
}

pub(crate) fn flip(bytes: &Bytes, at: usize) -> Option<Bytes> {
    let mut changed = bytes.to_vec();
    changed[at] ^= 0x10;
    Some(changed.into())
}

// --- the cases ---

#[test]
fn an_undamaged_repository_has_nothing_to_tell() {
    let fixture = Fixture::new();
    let repo = open(&fixture.damaged(&[])).unwrap();
    for read_data in [false, true] {
        let report = run_check(&repo, read_data);
        assert_eq!(report.findings, [], "read_data: {read_data}");
        assert_eq!((report.counts.commits, report.counts.keys), (4, 2));
        assert_eq!(report.counts.chunks_read, if read_data { report.counts.chunks } else { 0 });
    }
    for (id, expected) in &fixture.points {
        assert_eq!(restore(&repo, id, expected), Restored::But(BTreeSet::new()));
    }
}

/// One bit, one place at a time, in every region of a pack.
#[test]
fn a_flipped_bit_in_a_pack_is_found_and_costs_no_more_than_its_chunk() {
    let fixture = Fixture::new();
    // The largest pack of data holds what points 0 and 1 share; the largest of meta their first tree.
    let (data, chunks) = fixture.packs(Lane::Data).swap_remove(0);
    let bytes = &fixture.objects[&data];
    let directory = bytes.len() - 16 - chunks.len() * 44 - 16;
    // Chunks are sealed in the order they were handed in, less what two threads do: find a small file's.
    let repo = open(&fixture.damaged(&[])).unwrap();
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    let wanted = &fixture.points[0].1["volume/dir/small-05"];
    let one = chunks.iter().find(|entry| reader.chunk(&entry.id).unwrap() == *wanted).unwrap();
    let (start, end) = (one.offset as usize, (one.offset + one.sealed) as usize);
    let small = "0: 1 | 1: 1 | 2: - | 3: -";
    let all_data = "0: 14 | 1: 13 | 2: - | 3: -";
    let none = "0: - | 1: - | 2: - | 3: -";
    for (region, at, lost) in [
        ("magic", 0, all_data),
        ("kind", 8, all_data),
        ("zeros", 12, all_data),
        ("public key", 20, all_data),
        ("last byte of the header", 47, all_data),
        ("method of a chunk", start, small),
        ("body of a chunk", start + 1000, small),
        ("tag of a chunk", end - 1, small),
        ("directory", directory, none),
        ("tag of the directory", bytes.len() - 17, none),
        ("length in the trailer", bytes.len() - 16, none),
        ("count in the trailer", bytes.len() - 12, none),
        ("magic in the trailer", bytes.len() - 1, none),
    ] {
        let changes = vec![(data.clone(), flip(bytes, at))];
        let name = format!("data pack, {region}");
        hold(&fixture, &Case { name, changes, code: "pack-damaged", lost, without_reading: false });
    }

    // In packs of trees and manifests: a point loses its tree or all.
    for (key, entries) in fixture.packs(Lane::Meta) {
        let bytes = &fixture.objects[&key];
        for (region, at) in [("header", 30), ("chunk", entries[0].offset as usize + 5)] {
            let store = fixture.damaged(&[(key.clone(), flip(bytes, at))]);
            let repo = open(&store).unwrap();
            for read_data in [false, true] {
                let report = run_check(&repo, read_data);
                assert!(report.is_damaged() && !report.points.is_empty(), "meta pack, {region}: {report:#?}");
                assert!(report.findings.iter().any(|finding| finding.what == key), "{report:#?}");
                for (id, expected) in &fixture.points {
                    assert_eq!(
                        said(&report, id, expected),
                        restore(&repo, id, expected),
                        "meta pack, {region}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_pack_that_is_cut_gone_or_swapped_is_found() {
    let fixture = Fixture::new();
    let data: Vec<String> = fixture.packs(Lane::Data).into_iter().map(|(key, _)| key).collect();
    let get = |key: &String| fixture.objects[key].clone();
    let shared = &data[0];
    let size = get(shared).len();
    let all_data = "0: 14 | 1: 13 | 2: - | 3: -";
    let none = "0: - | 1: - | 2: - | 3: -";
    let one = |name: &str, content: Option<Bytes>, code, lost| Case {
        name: name.to_owned(),
        changes: vec![(shared.clone(), content)],
        code,
        lost,
        without_reading: true,
    };
    hold(&fixture, &one("deleted", None, "pack-missing", all_data));
    hold(&fixture, &one("emptied", Some(Bytes::new()), "pack-damaged", all_data));
    hold(&fixture, &one("cut in the header", Some(get(shared).slice(..40)), "pack-damaged", all_data));
    hold(&fixture, &one("cut by a byte", Some(get(shared).slice(..size - 1)), "pack-damaged", none));
    let longer = [get(shared), Bytes::from_static(b"x")].concat();
    hold(&fixture, &one("grown by a byte", Some(longer.into()), "pack-damaged", none));

    // Half of it: what lies before the cut can still be had.
    let store = fixture.damaged(&[(shared.clone(), Some(get(shared).slice(..size / 2)))]);
    let repo = open(&store).unwrap();
    for read_data in [false, true] {
        let report = run_check(&repo, read_data);
        assert!(report.is_damaged());
        for (id, expected) in &fixture.points {
            assert_eq!(said(&report, id, expected), restore(&repo, id, expected), "cut in half");
        }
    }

    // Each other's bytes under each other's name.
    let swap = |name: &str, a: &String, b: &String, lost, without_reading| Case {
        name: name.to_owned(),
        changes: vec![(a.clone(), Some(get(b))), (b.clone(), Some(get(a)))],
        code: "pack-damaged",
        lost,
        without_reading,
    };
    assert_eq!(data.len(), 3, "one of point 0, one of point 1, one of point 2; point 3 is all reused");
    hold(&fixture, &swap("swapped with point 1's", shared, &data[2], "0: 14 | 1: 17 | 2: - | 3: -", true));
    hold(&fixture, &swap("swapped with point 2's", shared, &data[1], "0: 14 | 1: 13 | 2: 6 | 3: 6", true));
}

/// A disk that no longer gives the bytes of an object: like a lost object, and the rest goes on.
#[test]
fn an_unreadable_object_is_found_like_a_lost_one() {
    let fixture = Fixture::new();
    let pack = fixture.packs(Lane::Data).swap_remove(0).0;
    let commit = fixture.points[1].0.key();
    for (key, code, lost) in [
        (pack, "pack-damaged", "0: 14 | 1: 13 | 2: - | 3: -"),
        (commit, "commit-damaged", "0: - | 1: all | 2: - | 3: -"),
        (fixture.keys("index/").remove(0), "segment-damaged", ""),
    ] {
        let faults = Faults { unreadable_prefix: Some(key.clone()), ..Faults::default() };
        let store = Arc::new(Faulty::new(fixture.damaged(&[]), faults));
        let repo = Repository::open(store, &Passphrase::new(READ), &Env::fixed(NOW, 2)).unwrap();
        let report = run_check(&repo, true);
        let (errors, losses) = summarise(&fixture, &report);
        assert_eq!(errors.into_iter().collect::<Vec<_>>(), [(key.clone(), code)]);
        assert!(lost.is_empty() || losses == lost, "{losses}");
        for (id, expected) in &fixture.points {
            assert_eq!(said(&report, id, expected), restore(&repo, id, expected), "{key}");
        }
    }
}

/// Two chunks of one pack, equally long, exchanged: both are authentic, and neither is where it was sealed.
#[test]
fn chunks_exchanged_inside_a_pack_do_not_open() {
    let fixture = Fixture::new();
    let (key, chunks) = fixture.packs(Lane::Data).swap_remove(0);
    let equal: Vec<&PackEntry> = chunks.iter().filter(|entry| entry.plain == 20_000).take(2).collect();
    let [a, b] = equal.as_slice() else { panic!("no two chunks of equal length") };
    let mut bytes = fixture.objects[&key].to_vec();
    let range = |entry: &PackEntry| entry.offset as usize..(entry.offset + entry.sealed) as usize;
    let (first, second) = (bytes[range(a)].to_vec(), bytes[range(b)].to_vec());
    bytes[range(a)].copy_from_slice(&second);
    bytes[range(b)].copy_from_slice(&first);
    hold(
        &fixture,
        &Case {
            name: "exchanged chunks".into(),
            changes: vec![(key, Some(bytes.into()))],
            code: "pack-damaged",
            lost: "0: 2 | 1: 2 | 2: - | 3: -",
            without_reading: false,
        },
    );
}

#[test]
fn a_damaged_index_segment_is_found_and_what_it_named_is_told() {
    let fixture = Fixture::new();
    let segments = fixture.keys("index/");
    let get = |key: &String| fixture.objects[key].clone();
    let mut hit = BTreeSet::new();
    for key in &segments {
        let size = get(key).len();
        let mut losses = BTreeSet::new();
        for (name, content, code) in [
            ("magic", flip(&get(key), 0), "segment-damaged"),
            ("salt", flip(&get(key), 20), "segment-damaged"),
            ("body", flip(&get(key), 60), "segment-damaged"),
            ("tag", flip(&get(key), size - 1), "segment-damaged"),
            ("cut by a byte", Some(get(key).slice(..size - 1)), "segment-damaged"),
            ("emptied", Some(Bytes::new()), "segment-damaged"),
            ("deleted", None, "index-incomplete"),
        ] {
            let changes = vec![(key.clone(), content)];
            let report = run_check(&open(&fixture.damaged(&changes)).unwrap(), true);
            let lost = summarise(&fixture, &report).1;
            losses.insert(lost.clone());
            hit.insert(lost.clone());
            let lost = Box::leak(lost.into_boxed_str());
            let name = format!("segment, {name}");
            hold(&fixture, &Case { name, changes, code, lost, without_reading: true });
        }
        assert_eq!(losses.len(), 1, "however a segment is lost, the same is lost: {losses:?}");
    }
    // Point 0's costs it and what point 1 shares; 1's its own; 2's both equal points, of which the later wrote none.
    let expected =
        ["0: - | 1: - | 2: all | 3: all", "0: - | 1: all | 2: - | 3: -", "0: all | 1: 13 | 2: - | 3: -"];
    assert_eq!(hit.into_iter().collect::<Vec<_>>(), expected);

    let (a, b) = (&segments[0], &segments[1]);
    let changes = vec![(a.clone(), Some(get(b))), (b.clone(), Some(get(a)))];
    let report = run_check(&open(&fixture.damaged(&changes)).unwrap(), true);
    let lost = Box::leak(summarise(&fixture, &report).1.into_boxed_str());
    hold(
        &fixture,
        &Case {
            name: "segments swapped".into(),
            changes,
            code: "segment-damaged",
            lost,
            without_reading: true,
        },
    );
}

#[test]
fn a_damaged_commit_is_found_and_only_it_is_lost() {
    let fixture = Fixture::new();
    let key = |number: usize| fixture.points[number].0.key();
    let get = |number: usize| fixture.objects[&key(number)].clone();
    let size = get(1).len();
    for (name, content) in [
        ("magic", flip(&get(1), 0)),
        ("lengths", flip(&get(1), 9)),
        ("public key", flip(&get(1), 20)),
        ("summary", flip(&get(1), 60)),
        ("root", flip(&get(1), size - 60)),
        ("MAC", flip(&get(1), size - 1)),
        ("cut by a byte", Some(get(1).slice(..size - 1))),
        ("emptied", Some(Bytes::new())),
    ] {
        let (name, changes) = (format!("commit, {name}"), vec![(key(1), content)]);
        let lost = "0: - | 1: all | 2: - | 3: -";
        hold(&fixture, &Case { name, changes, code: "commit-damaged", lost, without_reading: true });
    }
    let changes = vec![(key(1), Some(get(2))), (key(2), Some(get(1)))];
    let (name, lost) = ("commits swapped".into(), "0: - | 1: all | 2: all | 3: -");
    hold(&fixture, &Case { name, changes, code: "commit-damaged", lost, without_reading: true });

    // A commit that is gone looks like one that retention removed: it is no error, but its child tells.
    let repo = open(&fixture.damaged(&[(key(0), None)])).unwrap();
    let report = run_check(&repo, true);
    assert!(!report.is_damaged());
    let told = report.findings.iter().find(|finding| finding.code == "parent-missing").unwrap();
    assert_eq!((told.what.clone(), told.severity), (key(0), Severity::Note));
    assert!(matches!(repo.find_commit(&fixture.points[0].0.to_string()), Err(Error::NoSuchCommit { .. })));
    assert!(repo.reader(ReaderOptions::default()).unwrap().manifest(&fixture.points[0].0).is_err());
}

/// The header is bound into every key object: whichever bit is changed, nothing opens.
#[test]
fn a_damaged_header_opens_nothing_and_is_found_by_who_has_it_open() {
    let fixture = Fixture::new();
    let header = &fixture.objects["holdfast.json"];
    let refused = |content: Option<Bytes>| {
        let error = open(&fixture.damaged(&[("holdfast.json".to_owned(), content)])).unwrap_err();
        let known = matches!(
            error,
            Error::Damaged { .. }
                | Error::WrongKey { .. }
                | Error::NewerFormat { .. }
                | Error::NoRepository { .. }
        );
        assert!(known, "{error:?}");
    };
    for at in 0..header.len() {
        for bit in [0, 4, 7] {
            let mut changed = header.to_vec();
            changed[at] ^= 1 << bit;
            refused(Some(changed.into()));
        }
    }
    for length in [0, 1, header.len() - 1] {
        refused(Some(header.slice(..length)));
    }
    refused(None);
    let other = MemStore::new();
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    Repository::init(Arc::new(other.clone()), &Passphrase::new(READ), &options, &Env::fixed(NOW, 3)).unwrap();
    refused(Some(other.snapshot()["holdfast.json"].clone()));

    for (content, code) in [(flip(header, 10), "header-damaged"), (None, "header-missing")] {
        let store = fixture.damaged(&[]);
        let repo = open(&store).unwrap();
        store.tamper("holdfast.json", content);
        let report = run_check(&repo, false);
        let told: Vec<_> =
            report.findings.iter().map(|finding| (finding.code, finding.what.as_str())).collect();
        assert_eq!(told, [(code, "holdfast.json")]);
        assert!(report.is_damaged());
    }
}

#[test]
fn a_damaged_key_opens_nothing_and_the_other_key_opens_all() {
    let fixture = Fixture::new();
    let env = Env::fixed(NOW, 4);
    let keys = fixture.keys("keys/");
    let [a, b] = keys.as_slice() else { panic!("two keys") };
    let get = |key: &String| fixture.objects[key].clone();
    for (damaged, content) in [
        (vec![a], flip(&get(a), 3)),
        (vec![a], flip(&get(a), get(a).len() - 10)),
        (vec![a], Some(get(a).slice(..get(a).len() - 1))),
        (vec![a], Some(Bytes::new())),
        (vec![a], None),
    ] {
        let gone = content.is_none();
        let changes: Vec<_> = damaged.iter().map(|key| ((*key).clone(), content.clone())).collect();
        let store = fixture.damaged(&changes);
        let opened: Vec<_> = [READ, SECOND]
            .iter()
            .filter_map(|word| {
                match Repository::open(Arc::new(store.clone()), &Passphrase::new(*word), &env) {
                    Ok(repo) => Some(repo),
                    Err(error) => {
                        assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
                        // Who cannot get in hears that it may not be the passphrase.
                        assert_eq!(error.to_string().contains("damaged"), !gone, "{error}");
                        None
                    }
                }
            })
            .collect();
        let [repo] = opened.as_slice() else { panic!("exactly one key still opens") };
        let report = run_check(repo, true);
        let told: Vec<_> =
            report.findings.iter().map(|finding| (finding.code, finding.what.clone())).collect();
        assert_eq!(told, if gone { vec![] } else { vec![("key-damaged", a.clone())] });
        assert_eq!(report.points, [], "no recovery point is lost");
    }
    // Swapped: neither is what its name says.
    let store = fixture.damaged(&[(a.clone(), Some(get(b))), (b.clone(), Some(get(a)))]);
    for word in [READ, SECOND] {
        let error = Repository::open(Arc::new(store.clone()), &Passphrase::new(word), &env).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}

/// A point that is asked for alone is checked by what it needs, and by nothing else.
#[test]
fn a_check_of_one_point_reads_and_tells_only_what_it_needs() {
    let fixture = Fixture::new();
    let of = |store: &MemStore, number: usize, read_data: bool| {
        let points = Some(vec![fixture.points[number].0]);
        let options = CheckOptions { read_data, points, ..CheckOptions::default() };
        check(&open(store).unwrap(), &options, &()).unwrap()
    };
    let all = run_check(&open(&fixture.damaged(&[])).unwrap(), true);
    let read: Vec<u64> =
        (0..4).map(|number| of(&fixture.damaged(&[]), number, true).counts.chunks_read).collect();
    assert!(read.iter().all(|chunks| *chunks > 0 && *chunks < all.counts.chunks_read), "{read:?}");
    assert_eq!(of(&fixture.damaged(&[]), 0, false).counts.chunks_read, 0);
    for key in fixture.keys("packs/") {
        for content in [flip(&fixture.objects[&key], 200), None] {
            let store = fixture.damaged(&[(key.clone(), content)]);
            let whole = run_check(&open(&store).unwrap(), true);
            for (number, (id, expected)) in fixture.points.iter().enumerate() {
                let report = of(&store, number, true);
                assert_eq!(said(&report, id, expected), said(&whole, id, expected), "{key}, point {number}");
                assert!(report.points.iter().all(|point| point.commit == *id));
                // Its packs are told also where only another point needs what is lost in them; others are not.
                let told = |report: &CheckReport| {
                    report
                        .findings
                        .iter()
                        .any(|finding| finding.what == key && finding.severity == Severity::Error)
                };
                let touched = said(&report, id, expected) != Restored::But(BTreeSet::new());
                assert!(!touched || told(&report), "{key}, point {number}");
                let apart = (number < 2)
                    != whole
                        .points
                        .iter()
                        .any(|point| fixture.points[..2].iter().any(|(id, _)| *id == point.commit));
                assert!(
                    !(apart && told(&report)),
                    "{key} is none of point {number}'s: {:#?}",
                    report.findings
                );
            }
        }
    }
}

/// A damaged pack is found by the rolling budget within one lap, and the laps go on over it.
#[test]
fn a_budget_finds_damage_within_a_lap() {
    let fixture = Fixture::new();
    // (What lies in packs of trees and manifests is read by every check, and so are the nodes of streams.)
    for (key, _) in fixture.packs(Lane::Data) {
        let store = fixture.damaged(&[(key.clone(), flip(&fixture.objects[&key], 200))]);
        let mut found = Vec::new();
        for run in 0..8 {
            let options = CheckOptions { budget: Some(Budget::Share(0.25)), ..CheckOptions::default() };
            let report = check(&open(&store).unwrap(), &options, &()).unwrap();
            assert!(report.turn.unwrap().packs > 0 && !report.read_data);
            if report.findings.iter().any(|finding| finding.what == key) {
                assert!(report.is_damaged() && !report.points.is_empty());
                found.push(run);
            }
        }
        assert!(found.iter().any(|run| *run < 4), "{key}: four runs of a quarter are a lap: {found:?}");
        assert!(found.iter().any(|run| *run >= 4), "{key}: and again in the next: {found:?}");
    }
}

/// Two writers at once store the same content twice; either copy will do.
#[test]
fn a_segment_or_pack_that_is_there_twice_may_go() {
    let store = MemStore::new();
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let repo =
        Repository::init(Arc::new(store.clone()), &Passphrase::new(READ), &options, &Env::fixed(NOW, 5))
            .unwrap();
    let content = noise(1, 500_000);
    let writers =
        [repo.writer(WriterOptions::default()).unwrap(), repo.writer(WriterOptions::default()).unwrap()];
    let mut before = BTreeSet::new();
    let mut of_second = Vec::new();
    for writer in writers {
        let root = stream(&writer, &content);
        let entry =
            ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures: BTreeMap::new() };
        writer
            .commit(CommitDraft { kind: "volume".into(), manifest: vec![entry], ..CommitDraft::default() })
            .unwrap();
        let now: BTreeSet<String> = store.snapshot().into_keys().collect();
        of_second = now.difference(&before).cloned().collect();
        before = now;
    }
    let expected = Files::from([("a".to_owned(), content)]);
    let restores = |store: &MemStore| {
        let repo = open(store).unwrap();
        let ids = repo.commit_ids().unwrap();
        assert_eq!(ids.len(), 2);
        ids.iter().all(|id| restore(&repo, id, &expected) == Restored::But(BTreeSet::new()))
    };

    // The second writer's segment names its manifest, too: the same in both points, so all is there twice.
    let segment = of_second.iter().find(|key| key.starts_with("index/")).unwrap();
    let without = MemStore::from_snapshot(store.snapshot());
    without.tamper(segment, None);
    let report = run_check(&open(&without).unwrap(), true);
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert_eq!(
        report.findings.iter().map(|finding| finding.code).collect::<Vec<_>>(),
        ["packs-unreferenced"]
    );
    assert!(restores(&without));

    // A pack of it damaged: that is told, and no point is touched.
    for key in of_second.iter().filter(|key| key.starts_with("packs/")) {
        let damaged = MemStore::from_snapshot(store.snapshot());
        damaged.tamper(key, flip(&store.snapshot()[key], 60));
        let report = run_check(&open(&damaged).unwrap(), true);
        assert!(report.is_damaged());
        assert_eq!(report.points, [], "{:#?}", report.findings);
        assert!(
            report.findings[0].message.contains("No recovery point needs"),
            "{}",
            report.findings[0].message
        );
        assert!(restores(&damaged));
    }
}

/// Whoever may put but has no key can only add what is refused; whatever bytes it is, nobody panics.
#[test]
fn strangers_objects_are_named_and_harm_nothing() {
    let fixture = Fixture::new();
    let named = |folder: &str, bytes: &[u8]| {
        let hex = blake3::hash(bytes).to_hex().to_string();
        match folder {
            "packs/" => format!("packs/{}/{hex}", &hex[..2]),
            "keys/" => format!("keys/{}", &hex[..32]),
            folder => format!("{folder}{hex}"),
        }
    };
    let mut garbage: Vec<Vec<u8>> =
        vec![Vec::new(), vec![0], noise(1, 15), noise(2, 16), noise(3, 100), noise(4, 5000)];
    for magic in ["HFPACK01", "HFINDX01", "HFCMIT01", "{\"version\":1}"] {
        for length in [0, 7, 8, 39, 40, 47, 48, 64, 300] {
            garbage.push([magic.as_bytes(), &noise(length as u64, length)].concat());
        }
        // A pack's end, too.
        garbage.push([magic.as_bytes(), &noise(9, 400), &[60, 0, 0, 0, 1, 0, 0, 0], b"HFPACKND"].concat());
    }
    for content in garbage {
        for folder in ["packs/", "index/", "commits/", "keys/"] {
            let key = named(folder, &content);
            let store = fixture.damaged(&[(key.clone(), Some(content.clone().into()))]);
            let repo = open(&store).unwrap();
            let report = run_check(&repo, true);
            assert!(
                report.findings.iter().any(|finding| finding.what == key),
                "{key}: {:#?}",
                report.findings
            );
            let lost =
                report.points.iter().filter(|point| fixture.points.iter().any(|(id, _)| *id == point.commit));
            assert_eq!(lost.count(), 0, "{key}");
        }
    }
    let store = fixture.damaged(&[("packs/zz/readme.txt".to_owned(), Some(Bytes::from_static(b"hello")))]);
    let report = run_check(&open(&store).unwrap(), true);
    assert_eq!(report.findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["stray-object"]);
    assert!(!report.is_damaged());
}

/// Damage anywhere, by the hundred: never a panic, never other bytes, and check agrees with restore.
#[test]
fn damage_at_random_places_is_never_returned_as_data() {
    let fixture = Fixture::new();
    let keys: Vec<&String> =
        fixture.objects.keys().filter(|key| *key != "holdfast.json" && !key.starts_with("keys/")).collect();
    // A lease that cannot be read costs nothing but patience.
    let keys: Vec<&String> = keys.into_iter().filter(|key| !key.starts_with("leases/")).collect();
    for seed in 0..60_u64 {
        let dice = noise(seed, 32);
        let number = |at: usize| u64::from_le_bytes(dice[at..at + 8].try_into().unwrap()) as usize;
        let key = keys[number(0) % keys.len()];
        let mut bytes = fixture.objects[key].to_vec();
        let at = number(8) % bytes.len();
        match dice[16] % 4 {
            0 => bytes[at] ^= 1 << (dice[17] % 8),
            1 => bytes.truncate(at),
            2 => {
                let end = (at + 500).min(bytes.len());
                bytes[at..end].fill(0);
            }
            _ => {
                bytes.remove(at);
            }
        }
        if bytes == fixture.objects[key] {
            continue;
        }
        let store = fixture.damaged(&[(key.clone(), Some(bytes.into()))]);
        let repo = open(&store).unwrap();
        let report = run_check(&repo, true);
        assert!(report.findings.iter().any(|finding| finding.what == *key), "seed {seed}, {key}");
        assert!(report.is_damaged());
        for (id, expected) in &fixture.points {
            assert_eq!(said(&report, id, expected), restore(&repo, id, expected), "seed {seed}, {key}");
        }
    }
}
