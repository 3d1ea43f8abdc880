//! Random volumes, changed at random between backups: what comes back is what was there, and no change is
//! ever taken for none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use common::*;
use proptest::prelude::*;
use repo::Env;
use source::files::BackupOptions;

/// One thing that happens to a volume. Numbers choose among what is there.
#[derive(Clone, Debug)]
enum Act {
    Directory(u8, String),
    File {
        parent: u8,
        name: String,
        seed: u64,
        size: usize,
    },
    Sparse {
        parent: u8,
        name: String,
        at: Vec<u32>,
    },
    Symlink(u8, String),
    HardLink(u8, u8, String),
    Overwrite {
        which: u8,
        at: u32,
        seed: u64,
    },
    /// Same size, and the modification time put back: only the change time tells.
    OverwriteInSecret {
        which: u8,
        at: u32,
    },
    Append(u8, u64, u16),
    Truncate(u8, u32),
    Mode(u8, u32),
    Attribute(u8, u8),
    Rename(u8, u8, String),
    Remove(u8),
    /// Another file takes the name, with the same size and modification time.
    Replace(u8),
}

fn name() -> impl Strategy<Value = String> {
    "[a-c./-]{1,3}|[a-z]{1,8}".prop_map(|name| {
        let name = name.replace(['/', '.'], "+.");
        if name.is_empty() { "x".into() } else { name }
    })
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![0..100usize, 0..20_000usize, 90_000..110_000usize, 0..900_000usize]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (any::<u8>(), name()).prop_map(|(p, n)| Act::Directory(p, n)),
        6 => (any::<u8>(), name(), any::<u64>(), size())
            .prop_map(|(parent, name, seed, size)| Act::File { parent, name, seed, size }),
        1 => (any::<u8>(), name(), prop::collection::vec(0..3_000_000u32, 0..5))
            .prop_map(|(parent, name, at)| Act::Sparse { parent, name, at }),
        1 => (any::<u8>(), name()).prop_map(|(p, n)| Act::Symlink(p, n)),
        1 => (any::<u8>(), any::<u8>(), name()).prop_map(|(f, p, n)| Act::HardLink(f, p, n)),
        2 => (any::<u8>(), any::<u32>(), any::<u64>()).prop_map(|(which, at, seed)| Act::Overwrite { which, at, seed }),
        2 => (any::<u8>(), any::<u32>()).prop_map(|(which, at)| Act::OverwriteInSecret { which, at }),
        1 => (any::<u8>(), any::<u64>(), any::<u16>()).prop_map(|(w, s, n)| Act::Append(w, s, n)),
        1 => (any::<u8>(), any::<u32>()).prop_map(|(w, n)| Act::Truncate(w, n)),
        1 => (any::<u8>(), 0..0o10000u32).prop_map(|(w, m)| Act::Mode(w, m)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(w, v)| Act::Attribute(w, v)),
        1 => (any::<u8>(), any::<u8>(), name()).prop_map(|(w, p, n)| Act::Rename(w, p, n)),
        1 => any::<u8>().prop_map(Act::Remove),
        1 => any::<u8>().prop_map(Act::Replace),
    ]
}

/// What there is of a kind, in a fixed order.
fn those(root: &Path, kind: &str) -> Vec<PathBuf> {
    facts(root).into_iter().filter(|(_, fact)| fact.kind == kind).map(|(path, _)| root.join(path)).collect()
}

fn one(root: &Path, kind: &str, number: u8) -> Option<PathBuf> {
    let all = those(root, kind);
    all.get(usize::from(number) % all.len().max(1)).cloned()
}

/// What cannot happen (the name is taken, there is no file) does not.
fn happen(root: &Path, act: &Act) -> Option<()> {
    let directory = |n: &u8| one(root, "directory", *n);
    let file = |n: &u8| one(root, "file", *n);
    match act {
        Act::Directory(parent, name) => fs::create_dir(directory(parent)?.join(name)).ok()?,
        Act::File { parent, name, seed, size } => {
            let path = directory(parent)?.join(name);
            if path.symlink_metadata().is_err() {
                fs::write(path, noise(*seed, *size)).ok()?;
            }
        }
        Act::Sparse { parent, name, at } => {
            let path = directory(parent)?.join(name);
            let file = fs::OpenOptions::new().create_new(true).write(true).open(path).ok()?;
            file.set_len(3_100_000).ok()?;
            for at in at {
                file.write_all_at(&noise(u64::from(*at), 5_000), u64::from(*at)).ok()?;
            }
        }
        Act::Symlink(parent, name) => symlink("anywhere", directory(parent)?.join(name)).ok()?,
        Act::HardLink(which, parent, name) => {
            fs::hard_link(file(which)?, directory(parent)?.join(name)).ok()?
        }
        Act::Overwrite { which, at, seed } => {
            let path = file(which)?;
            let length = fs::metadata(&path).ok()?.len().max(1);
            let file = fs::OpenOptions::new().write(true).open(path).ok()?;
            file.write_all_at(&noise(*seed, 100), u64::from(*at) % length).ok()?;
        }
        Act::OverwriteInSecret { which, at } => {
            let path = file(which)?;
            let meta = fs::metadata(&path).ok()?;
            let at = u64::from(*at) % meta.len().max(1);
            let file = fs::OpenOptions::new().read(true).write(true).open(&path).ok()?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).ok()?;
            file.write_all_at(&[byte[0] ^ 1], at).ok()?;
            file.set_modified(meta.modified().ok()?).ok()?;
        }
        Act::Append(which, seed, length) => {
            let path = file(which)?;
            let length_before = fs::metadata(&path).ok()?.len();
            let file = fs::OpenOptions::new().write(true).open(path).ok()?;
            file.write_all_at(&noise(*seed, usize::from(*length)), length_before).ok()?;
        }
        Act::Truncate(which, length) => {
            let path = file(which)?;
            let before = fs::metadata(&path).ok()?.len();
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .ok()?
                .set_len(u64::from(*length) % (before + 1))
                .ok()?;
        }
        Act::Mode(which, mode) => set_mode(&file(which)?, *mode),
        Act::Attribute(which, value) => set_xattr(&file(which)?, "user.random", &[*value]),
        Act::Rename(which, parent, name) => {
            let to = directory(parent)?.join(name);
            if to.symlink_metadata().is_err() {
                fs::rename(file(which)?, to).ok()?;
            }
        }
        Act::Remove(which) => fs::remove_file(file(which)?).ok()?,
        Act::Replace(which) => {
            let path = file(which)?;
            let meta = fs::metadata(&path).ok()?;
            let mut bytes = fs::read(&path).ok()?;
            *bytes.first_mut()? ^= 1;
            let other = path.with_file_name("replacement");
            fs::write(&other, bytes).ok()?;
            fs::OpenOptions::new().write(true).open(&other).ok()?.set_modified(meta.modified().ok()?).ok()?;
            fs::rename(other, path).ok()?;
        }
    }
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_change_is_taken_for_none(
        rounds in prop::collection::vec(prop::collection::vec(act(), 1..25), 2..5),
        threads in 1..4usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        let depot = depot();
        let mut before: Option<Saved> = None;
        for (round, acts) in rounds.iter().enumerate() {
            for act in acts {
                let _ = happen(&from, act);
            }
            let options = BackupOptions { threads, ..BackupOptions::default() };
            let mut saved = depot.try_save(&from, before.as_ref(), &options).unwrap();
            prop_assert_eq!(codes(&saved.findings), []);
            let to = dir.path().join(format!("to-{round}"));
            depot.load(&saved, &to);
            assert_same(&from, &to);
            // The bravest case: everything is trusted whose change time is the least bit older than this
            // backup's end. The clock of the kernel ticks every few milliseconds; beyond that it must tell.
            std::thread::sleep(std::time::Duration::from_millis(25));
            saved.started = Env::real().now() + 60_000_000_000;
            before = Some(saved);
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
    }
}
