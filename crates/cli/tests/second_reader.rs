//! R8: two independent readers agree. `tools/read.py` was written from docs/formats/repository.md alone and shares no code
//! with the program; what it restores is compared with what the program restores, fact by fact.

#![allow(clippy::unwrap_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use repo::{
    Capability, ChunkBytes, CommitDraft, EntryKind, Env, InitOptions, Kdf, KeyFile, Passphrase, Repository,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Dice, Place, Run, plant, python, root};

/// Everything about a tree that a restore must bring back, one line a path.
fn facts(top: &Path) -> BTreeMap<Vec<u8>, String> {
    fn walk(top: &Path, at: &Path, links: &mut BTreeMap<u64, usize>, all: &mut BTreeMap<Vec<u8>, String>) {
        let meta = std::fs::symlink_metadata(at).unwrap();
        let name = at.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
        let count = links.len();
        let family = if meta.is_dir() { 0 } else { *links.entry(meta.ino()).or_insert(count + 1) };
        let mut list = vec![0; 4096];
        let length = rustix::fs::llistxattr(at, &mut list[..]).unwrap();
        let mut xattrs: Vec<(String, Vec<u8>)> = list[..length]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| {
                let mut value = vec![0; 4096];
                let length = rustix::fs::lgetxattr(at, OsStr::from_bytes(name), &mut value[..]).unwrap();
                (String::from_utf8_lossy(name).into_owned(), value[..length].to_vec())
            })
            .collect();
        xattrs.sort();
        let content = match meta.file_type() {
            kind if kind.is_file() => {
                let bytes = std::fs::read(at).unwrap();
                // Holes stay holes: no more than two file system blocks above what has bytes.
                let held =
                    bytes.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0)).count() as u64;
                assert!(
                    meta.blocks() <= held * 8 + 16,
                    "{}: {} blocks for {held}",
                    at.display(),
                    meta.blocks()
                );
                format!("{} bytes {:?}", bytes.len(), blake(&bytes))
            }
            kind if kind.is_symlink() => format!("-> {:?}", std::fs::read_link(at).unwrap()),
            kind => format!("{kind:?} {}", meta.rdev()),
        };
        let (mode, mtime) = (meta.mode(), (meta.mtime(), meta.mtime_nsec()));
        let line =
            format!("{mode:o} {}:{} {mtime:?} family {family} {content} {xattrs:?}", meta.uid(), meta.gid());
        all.insert(name, line);
        if meta.is_dir() {
            let mut children: Vec<_> =
                std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
            children.sort();
            children.iter().for_each(|child| walk(top, child, links, all));
        }
    }
    let mut all = BTreeMap::new();
    walk(top, top, &mut BTreeMap::new(), &mut all);
    all
}

/// Good enough to compare: length and two sums that see order.
fn blake(bytes: &[u8]) -> (u64, u64) {
    bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        (a, b ^ a.rotate_left(17))
    })
}

/// A tree with everything the format has a field for.
fn build(top: &Path, dice: &mut Dice) {
    plant(top, dice, 40, 3_000);
    std::fs::create_dir_all(top.join("empty/folder")).unwrap();
    std::fs::write(top.join("empty/file"), "").unwrap();
    // Many extents: a stream of its own. Compressible, and not.
    std::fs::write(top.join("large"), dice.bytes(700_000)).unwrap();
    std::fs::write(top.join("words"), "hold fast ".repeat(60_000)).unwrap();
    for (name, length, runs) in [
        ("sparse", 5_000_000, &[(0, 10), (4096 * 3, 9000), (3_000_001, 50_000)][..]),
        ("hole", 100_000, &[]),
        ("tail", 9000, &[(0, 1)]),
    ] {
        let file = std::fs::File::create(top.join(name)).unwrap();
        for (offset, size) in runs {
            file.write_all_at(&dice.bytes(*size), *offset).unwrap();
        }
        file.set_len(length).unwrap();
    }
    std::fs::hard_link(top.join("large"), top.join("d0/other name")).unwrap();
    std::fs::hard_link(top.join("d1/f1"), top.join("zz")).unwrap();
    symlink(OsStr::from_bytes(b"../\xff/elsewhere"), top.join("link")).unwrap();
    symlink("/proc/self/mem", top.join("d2/absolute")).unwrap();
    std::fs::write(top.join(OsStr::from_bytes(b"not utf-8 \xfe")), "x").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        top.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    for (name, value) in [("user.empty", &b""[..]), ("user.bytes", b"\0\xff\n"), ("user.long", &[b'x'; 900])]
    {
        rustix::fs::setxattr(top.join("words"), name, value, flags).unwrap();
        rustix::fs::setxattr(top.join("d3"), name, value, flags).unwrap();
    }
    for (name, mode) in [("words", 0o4751), ("empty", 0o1777), ("sparse", 0o000), ("d4", 0o500)] {
        std::fs::set_permissions(top.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let long_ago = std::time::UNIX_EPOCH - std::time::Duration::from_nanos(1_500_000_001);
    for name in ["words", "empty"] {
        std::fs::File::open(top.join(name)).unwrap().set_modified(long_ago).unwrap();
    }
}

/// The second reader, opening the repository in the way that is named.
fn reads(place: &Place, way: &str, file: &str, args: &[&str]) -> std::process::Output {
    Command::new(python())
        .arg(root().join("tools/read.py"))
        .args([&place.repo, way, &place.text(file)])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn r8_the_second_reader_restores_what_the_program_restores() {
    let place = Place::new();
    let words = Passphrase::new("correct horse");
    // Small chunks, so that a few megabytes have streams of several levels.
    let options = InitOptions {
        chunk_bytes: ChunkBytes { min: 64, avg: 256, max: 1024 },
        kdf: Kdf::cheap(),
        ..InitOptions::default()
    };
    let env = Env::real();
    let store = || repo::store::open(&place.repo, &Default::default()).unwrap();
    let repository = Repository::init(store(), &words, &options, &env).unwrap();
    let (_, recovery) = repository.add_recovery_key("recovery").unwrap();
    std::fs::write(place.path("paper"), recovery.to_text().to_lowercase().replace('-', " ")).unwrap();
    for (name, capability) in
        [("agent", Capability::Put), ("operator", Capability::List), ("file", Capability::Read)]
    {
        let key = KeyFile::generate(&env).unwrap();
        std::fs::write(place.path(name), key.to_text().as_bytes()).unwrap();
        repository.add_key(&key, capability, name, Kdf::cheap()).unwrap();
    }
    let mut dice = Dice(88);
    let data = place.path("data");
    build(&data, &mut dice);
    let text = place.text("data");
    place.run(&["volume", "backup", &text, "--label", "team=ä"]).expect(0);
    // A second point whose chunks lie in packs of two writes.
    std::fs::write(data.join("words"), "hold fast! ".repeat(50_000)).unwrap();
    place.run(&["volume", "backup", &text, "--key-file", &place.text("agent")]).expect(0);
    // And one that the program's own command line would not make: a large stream as it is.
    let big = dice.bytes(3_000_000);
    let writer = repository.writer(Default::default()).unwrap();
    let mut stream = writer.stream(repo::Lane::Data);
    stream.write_all(&big).unwrap();
    let entry = |name: &str, root| repo::ManifestEntry {
        name: name.into(),
        kind: EntryKind::Bytes,
        root,
        figures: BTreeMap::new(),
    };
    let manifest = vec![entry("big", stream.finish().unwrap()), entry("empty", repo::Root::EMPTY)];
    let third =
        writer.commit(CommitDraft { kind: "stream".into(), manifest, ..CommitDraft::default() }).unwrap();

    let done = |output: std::process::Output| -> Vec<u8> {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nothing is left out");
        output.stdout
    };
    let lines = |bytes: Vec<u8>| -> Vec<serde_json::Value> {
        bytes
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect()
    };

    // Both list the same points.
    let listed = place.run(&["volume", "list", "-o", "json"]).expect(0).json();
    let mut theirs = BTreeMap::new();
    for point in lines(done(reads(&place, "--key-file", "operator", &["points"]))) {
        theirs.insert(point["id"].as_str().unwrap().to_owned(), point);
    }
    let ours = listed["backups"].as_array().unwrap();
    assert_eq!(ours.len(), 2, "{listed}");
    for point in ours {
        let same = &theirs[point["id"].as_str().unwrap()];
        for field in ["time", "kind", "labels", "figures"] {
            assert_eq!(same[field], point["summary"][field], "{field}");
        }
    }
    assert_eq!(theirs.len(), 3);

    // Whole trees, by every way in.
    let ids: Vec<&str> = ours.iter().map(|point| point["id"].as_str().unwrap()).collect();
    for (at, (way, file)) in
        [("--password-file", "password"), ("--key-file", "file"), ("--recovery-key-file", "paper")]
            .into_iter()
            .enumerate()
    {
        let id = ids[at % 2];
        let (mine, other) = (place.text(&format!("mine-{at}")), place.text(&format!("theirs-{at}")));
        place.run(&["volume", "restore", id, &mine]).expect(0);
        done(reads(&place, way, file, &["restore", id, "volume", &other]));
        let (mine, other) = (facts(Path::new(&mine)), facts(Path::new(&other)));
        assert_eq!(mine.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
        for (path, fact) in &mine {
            assert_eq!(&other[path], fact, "{}", String::from_utf8_lossy(path));
        }
        assert!(mine.len() > 60);
    }
    // It is the tree that was backed up, not only twice the same.
    let newest = *ids.last().unwrap();
    let restored = place.text("newest");
    done(reads(&place, "--key-file", "file", &["restore", newest, "volume", &restored]));
    let (was, is) = (facts(&data), facts(Path::new(&restored)));
    for (path, fact) in &was {
        assert_eq!(&is[path], fact, "{}", String::from_utf8_lossy(path));
    }

    // One file, its holes filled; attributes as they are listed.
    let sparse = done(reads(&place, "--key-file", "file", &["file", newest, "volume", "sparse"]));
    assert!(sparse == std::fs::read(Path::new(&restored).join("sparse")).unwrap());
    let entries = lines(done(reads(&place, "--key-file", "file", &["tree", newest, "volume"])));
    let words = entries.iter().find(|entry| entry["0"] == "776f726473").unwrap();
    assert_eq!(words["14"]["757365722e6279746573"], "00ff0a", "{words}");
    assert!(
        words.get("9").is_none() && words["10"][0].as_u64() >= Some(1),
        "many extents are a stream: {words}"
    );

    // A stream of several levels.
    let third = third.id.to_string();
    let parts = lines(done(reads(&place, "--key-file", "file", &["entries", &third])));
    assert!(parts[0]["level"].as_u64() >= Some(2), "{parts:?}");
    assert!(done(reads(&place, "--key-file", "file", &["cat", &third, "big"])) == big);
    assert_eq!(done(reads(&place, "--key-file", "file", &["cat", &third, "empty"])), b"");

    // Each key shows its part and no more: who may put reads no summary, who may list reads no content.
    let packs = lines(done(reads(&place, "--key-file", "agent", &["packs"])));
    let chunks: u64 = packs.iter().map(|pack| pack["chunks"].as_u64().unwrap()).sum();
    let stats = place.run(&["repo", "stats", "-o", "json"]).expect(0).json();
    assert_eq!(
        (packs.len() as u64, chunks),
        (stats["packs"]["count"].as_u64().unwrap(), stats["chunks"].as_u64().unwrap())
    );
    for (file, command) in [
        ("agent", &["points"][..]),
        ("operator", &["cat", &third, "big"]),
        ("agent", &["cat", &third, "big"]),
    ] {
        let refused = Run::of(reads(&place, "--key-file", file, command)).expect(1);
        assert!(refused.out.is_empty() && refused.err.contains("does not allow"), "{}", refused.err);
    }
}

#[test]
fn r8_the_second_reader_ends_at_what_is_not_as_it_must_be() {
    let place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(89), 5, 60_000);
    place.run(&["volume", "backup", &place.text("data")]).expect(0);
    let objects = support::tree(&place.path("repo"));
    for prefix in ["holdfast.json", "keys/", "index/", "commits/", "packs/"] {
        let (name, bytes) = objects
            .iter()
            .filter_map(|(n, b)| Some((n, b.as_ref()?)))
            .find(|(n, _)| n.starts_with(prefix))
            .unwrap();
        let file = place.path("repo").join(name);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let mut flipped = bytes.clone();
        // Inside the JSON of the first two, where it still parses.
        flipped[bytes.len() / 2] ^= 1;
        std::fs::write(&file, flipped).unwrap();
        let target = place.text("target");
        let run =
            Run::of(reads(&place, "--password-file", "password", &["restore", "latest", "volume", &target]));
        assert_ne!(run.code, 0, "{name}");
        std::fs::write(&file, bytes).unwrap();
        let _ = std::fs::remove_dir_all(&target);
    }
    let target = place.text("target");
    Run::of(reads(&place, "--password-file", "password", &["restore", "latest", "volume", &target]))
        .expect(0);
    std::fs::write(place.path("wrong"), "wrong horse").unwrap();
    let run = Run::of(reads(&place, "--password-file", "wrong", &["points"])).expect(1);
    assert!(run.err.contains("opens no key"), "{}", run.err);
}

/// The repository that is never edited again: every kind of object, a void commit among them, and packs no index names.
#[test]
fn r8_the_second_reader_reads_the_golden_repository() {
    let golden = root().join("crates/repo/tests/golden");
    let key = golden.join("v1-all.keys/recovery-key");
    let read = |command: &[&str]| {
        let mut reader = Command::new(python());
        reader
            .arg(root().join("tools/read.py"))
            .arg(golden.join("v1-all"))
            .arg("--recovery-key-file")
            .arg(&key);
        Run::of(reader.args(command).output().unwrap()).expect(0).out
    };
    let points = read(&["points"]);
    assert_eq!(points.lines().count(), 2, "the third is void: {points}");
    assert_eq!(read(&["packs"]).lines().count(), 8);
    assert_eq!(read(&["cat", "latest", "short"]), "hold fast");
    assert_eq!(read(&["tree", "latest", "tree"]).lines().count(), 12);
}

/// Content in parts of chunks, as it is made when a large file is overwritten here and there.
#[test]
fn r8_the_second_reader_reads_parts_of_chunks() {
    let place = Place::with_repository();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    let mut dice = Dice(11);
    std::fs::write(data.join("disk"), dice.bytes(3_000_000)).unwrap();
    let disk = std::fs::File::options().write(true).open(data.join("disk")).unwrap();
    // Holes, so that some parts will lie around one.
    for at in (40_960..3_000_000).step_by(81_920) {
        use rustix::fs::{FallocateFlags, fallocate};
        fallocate(&disk, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, 4_096).unwrap();
    }
    place.run(&["volume", "backup", &place.text("data")]).expect(0);
    for page in (3..360).step_by(40) {
        disk.write_all_at(&dice.bytes(8_192), page * 8_192).unwrap();
    }
    drop(disk);
    place.run(&["volume", "backup", &place.text("data")]).expect(0);
    let (ours, theirs) = (place.text("ours"), place.text("theirs"));
    place.run(&["volume", "restore", "latest", &ours]).expect(0);
    let read = |args: &[&str]| Run::of(reads(&place, "--password-file", "password", args));
    read(&["restore", "latest", "volume", &theirs]).expect(0);
    assert_eq!(facts(Path::new(&theirs)), facts(&data));
    assert_eq!(facts(Path::new(&ours)), facts(&data));
    let golden = root().join("crates/repo/tests/golden/v1-parts");
    std::fs::write(place.path("golden"), "golden read").unwrap();
    let read = |command: &[&str]| {
        let mut reader = Command::new(python());
        reader
            .arg(root().join("tools/read.py"))
            .arg(&golden)
            .args(["--password-file", &place.text("golden")]);
        reader.args(command).output().unwrap()
    };
    let disk = read(&["cat", "latest", "disk"]);
    assert!(disk.status.success(), "{}", String::from_utf8_lossy(&disk.stderr));
    assert_eq!(disk.stdout.len(), 20_000 + 8_192 + 21_808 + 9);
    assert!(disk.stdout.ends_with(b"hold fast"));
    assert_eq!(read(&["cat", "latest", "single"]).stdout.len(), 1);
}
