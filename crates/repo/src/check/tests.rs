//! What only somebody with a key can do wrong: write what is authentic and cannot be. (What a disk or a
//! stranger can do is in `tests/damage/`.)

use std::io::Write;
use std::sync::Arc;

use super::*;
use crate::object::{CommitDraft, Content, EntryKind, Extent, ManifestEntry, NodeKind, TreeEntry};
use crate::store::mem::MemStore;
use crate::store::record::{Record, Verb};
use crate::{Env, InitOptions, Kdf, Lane, Passphrase, Writer, WriterOptions};

fn fresh() -> (Arc<Record<MemStore>>, Repository) {
    let store = Arc::new(Record::new(MemStore::new()));
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let repo = Repository::init(store.clone(), &Passphrase::new("x"), &options, &Env::fixed(0, 1)).unwrap();
    (store, repo)
}

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
    out
}

fn stream(writer: &Writer, content: &[u8]) -> Root {
    let mut stream = writer.stream(Lane::Data);
    stream.write_all(content).unwrap();
    stream.finish().unwrap()
}

fn entry(kind: EntryKind, root: Root) -> ManifestEntry {
    ManifestEntry { name: "a".into(), kind, root, figures: BTreeMap::new() }
}

fn commit(repo: &Repository, make: impl FnOnce(&Writer) -> ManifestEntry) -> CommitId {
    let writer = repo.writer(WriterOptions::default()).unwrap();
    let manifest = vec![make(&writer)];
    writer.commit(CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() }).unwrap().id
}

fn report(repo: &Repository, read_data: bool) -> CheckReport {
    check(repo, &CheckOptions { read_data, ..CheckOptions::default() }, &()).unwrap()
}

/// Code and object of every finding, and of every point whether it is lost whole, and the files it lost.
type Told<'r> = (Vec<(&'r str, &'r str)>, Vec<(bool, Vec<String>)>);
fn told(report: &CheckReport) -> Told<'_> {
    let findings = report.findings.iter().map(|finding| (finding.code, finding.what.as_str()));
    let points = report.points.iter().map(|point| (point.whole, point.files.clone()));
    (findings.collect(), points.collect())
}

#[test]
fn what_a_commit_says_and_cannot_be_is_put_down_to_it() {
    type Make = fn(&Writer) -> ManifestEntry;
    let cases: [(&str, Make, &str, &str); 4] = [
        (
            "a stream a byte longer than its chunk",
            |writer| {
                let root = stream(writer, b"content");
                entry(EntryKind::Bytes, Root { length: root.length + 1, ..root })
            },
            "stream-invalid",
            "a",
        ),
        (
            "a stream above the highest level",
            |writer| entry(EntryKind::Bytes, Root { level: 7, ..stream(writer, b"content") }),
            "commit-damaged",
            "",
        ),
        (
            "a tree that is noise",
            |writer| entry(EntryKind::Tree, stream(writer, &noise(1, 100_000))),
            "tree-invalid",
            "a (all of it)",
        ),
        (
            "a file beyond the end of its chunk",
            |writer| {
                let chunk = writer.chunk(Lane::Data, "content".into()).unwrap().wait().unwrap();
                let content = Content::Extents(vec![Extent { chunk, offset: 1, length: 7 }]);
                let kind = NodeKind::File { ctime: 0, inode: 1, size: 7, content, holes: Vec::new() };
                let (path, xattrs) = (Vec::new(), BTreeMap::new());
                let mut tree = writer.tree();
                tree.push(&TreeEntry { path, kind, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs }).unwrap();
                entry(EntryKind::Tree, tree.finish().unwrap())
            },
            "stream-invalid",
            "a",
        ),
    ];
    for (story, make, code, file) in cases {
        let (_, repo) = fresh();
        let id = commit(&repo, make);
        for read_data in [false, true] {
            let report = report(&repo, read_data);
            let (findings, points) = told(&report);
            if code == "commit-damaged" {
                // The manifest itself does not parse with it.
                assert_eq!(findings, [("manifest-invalid", id.key().as_str())], "{story}");
                assert_eq!(points, [(true, vec![])], "{story}");
            } else {
                assert_eq!(findings, [(code, id.key().as_str())], "{story}");
                assert_eq!(points, [(false, vec![file.to_owned()])], "{story}: {report:#?}");
            }
        }
    }
}

#[test]
fn an_index_that_promises_what_a_pack_has_not_is_named() {
    let (store, repo) = fresh();
    // Chunks of one length, so that only their content tells.
    commit(&repo, |writer| {
        let chunk = |seed| writer.chunk(Lane::Data, noise(seed, 20_000).into()).unwrap().wait().unwrap();
        let chunks: Vec<_> = (0..10).map(|seed| (chunk(seed), 20_000)).collect();
        entry(EntryKind::Bytes, writer.root_of(chunks).unwrap())
    });
    let id = crate::store::list_all(&store, "index/").unwrap().remove(0).key;
    let mut segment = repo.read_segment(&SegmentId::from_key(&id).unwrap()).unwrap();
    // Two chunks of one pack change their places; all tables stay in order.
    let [a, b] = [0, 1].map(|skip| {
        let largest = segment.packs.iter().enumerate().max_by_key(|(_, (_, size))| *size).unwrap().0;
        segment
            .chunks
            .iter()
            .enumerate()
            .filter(|(_, chunk)| chunk.pack as usize == largest)
            .nth(skip)
            .unwrap()
            .0
    });
    let (first, second) = (segment.chunks[a], segment.chunks[b]);
    (segment.chunks[a], segment.chunks[b]) = (
        crate::index::SegmentChunk { id: first.id, ..second },
        crate::index::SegmentChunk { id: second.id, ..first },
    );
    let body = segment.encode().unwrap();
    let bytes = repo.secrets().seal_segment(&body, repo.env()).unwrap();
    store.inner().tamper(&id, None);
    let lie = SegmentId(*blake3::hash(&bytes).as_bytes());
    repo.put_content(&lie.key(), bytes.into()).unwrap();

    assert_eq!(told(&report(&repo, false)), (vec![], vec![]), "without reading, promises are believed");
    let report = report(&repo, true);
    let pack = segment.packs[first.pack as usize].0.key();
    assert_eq!(told(&report), (vec![("index-wrong", pack.as_str())], vec![(false, vec!["a".to_owned()])]));
}

#[test]
fn every_object_is_read_once_and_data_only_if_asked() {
    let (store, repo) = fresh();
    for _ in 0..3 {
        commit(&repo, |writer| entry(EntryKind::Bytes, stream(writer, &noise(3, 2_000_000))));
    }
    let packs = crate::store::list_all(&store, "packs/").unwrap().len();
    store.clear();
    report(&repo, false);
    assert_eq!(store.count(Verb::Get, "packs/"), 0, "no pack is read whole");
    let ranged = store.bytes(Verb::GetRange);
    assert!(ranged < 20_000, "manifests and nodes only: {ranged} bytes");
    store.clear();
    report(&repo, true);
    assert_eq!(store.count(Verb::Get, "packs/"), packs, "each pack once, however many points need it");
    assert_eq!(store.count(Verb::Get, "commits/"), 3, "each commit once");
    assert_eq!((store.count(Verb::Put, ""), store.count(Verb::Delete, "")), (0, 0), "nothing is changed");
}

#[test]
fn a_list_key_checks_what_it_may_and_says_what_it_did_not() {
    let (store, repo) = fresh();
    commit(&repo, |writer| entry(EntryKind::Bytes, stream(writer, &noise(4, 100_000))));
    for (word, capability) in [("list", Capability::List), ("put", Capability::Put)] {
        repo.add_key(&Passphrase::new(word), capability, word, Kdf::cheap()).unwrap();
    }
    let open =
        |word: &str| Repository::open(store.clone(), &Passphrase::new(word), &Env::fixed(0, 2)).unwrap();
    let report = report(&open("list"), true);
    assert_eq!(told(&report).0.iter().map(|(code, _)| *code).collect::<Vec<_>>(), ["check-partial"]);
    assert!(!report.is_damaged() && report.counts.commits == 1 && report.counts.chunks > 0);
    let refused = check(&open("put"), &CheckOptions::default(), &());
    assert!(matches!(refused, Err(Error::NotPermitted { .. })));
}

#[test]
fn a_check_can_be_stopped_and_an_outage_is_no_damage() {
    let (store, repo) = fresh();
    commit(&repo, |writer| entry(EntryKind::Bytes, stream(writer, &noise(5, 100_000))));
    let cancel = Cancel::new();
    cancel.cancel();
    let stopped = check(&repo, &CheckOptions { cancel, ..CheckOptions::default() }, &());
    assert!(matches!(stopped, Err(Error::Cancelled)));
    for first in 0..12 {
        use crate::store::faulty::{Faults, Faulty};
        let faults = Faults { seed: first, unavailable_per_mille: 300, ..Faults::default() };
        let flaky = Arc::new(Faulty::new(store.clone(), faults));
        let Ok(repo) = Repository::open(flaky, &Passphrase::new("x"), &Env::fixed(0, 2)) else {
            continue;
        };
        match check(&repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()) {
            Ok(report) => assert_eq!(report.findings, []),
            Err(error) => {
                assert!(matches!(&error, Error::Store(error) if error.is_unavailable()), "{error:?}")
            }
        }
    }
}
