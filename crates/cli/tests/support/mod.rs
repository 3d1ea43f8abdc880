//! Runs of the real binary, in a place of their own and with nothing inherited that could change them.
#![allow(dead_code)] // Each test file uses its part.

pub mod cluster;
pub mod node;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A folder with a passphrase file, a repository location and room for trees.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub repo: String,
    pub env: Vec<(String, String)>,
}

/// What a run did.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn of(output: Output) -> Run {
        let status = output.status;
        Run {
            code: status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0)),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Run {
        assert_eq!(self.code, code, "exit code\n--- stdout\n{}\n--- stderr\n{}", self.out, self.err);
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

impl Place {
    /// A place whose repository is a folder that is not there yet.
    pub fn new() -> Place {
        Place::at(tempfile::tempdir().unwrap())
    }

    /// The same on a file system in memory, if there is one: for tests that wait for nothing but fsync, and
    /// kill processes but never the machine.
    pub fn in_memory() -> Place {
        Place::at(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn at(dir: tempfile::TempDir) -> Place {
        std::fs::write(dir.path().join("password"), "correct horse\n").unwrap();
        let repo = dir.path().join("repo").display().to_string();
        Place { dir, repo, env: Vec::new() }
    }

    /// A place with a repository, its key derivation as cheap as can be.
    pub fn with_repository() -> Place {
        let place = Place::new();
        place.run(&["repo", "init", "--kdf-memory", "1", "--no-recovery-key"]).expect(0);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// All that lies here but the cache, which may come and go.
    pub fn all(&self) -> Tree {
        let mut all = tree(self.dir.path());
        all.retain(|name, _| name != ".cache" && !name.starts_with(".cache/"));
        all
    }

    /// A command of ours, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path());
        command.env("HOLDFAST_REPO", &self.repo).env("HOLDFAST_PASSWORD_FILE", self.path("password"));
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// The same with something on its standard input.
    pub fn run_with(&self, args: &[&str], input: &str) -> Run {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // One that reads nothing ends before it is written.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Run::of(child.wait_with_output().unwrap())
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }
}

/// The root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A Python with the packages our tests in it import; fetched when this machine does not have it yet.
pub fn python() -> String {
    let get =
        Command::new(root().join("tests/real/get")).arg("python").stdin(Stdio::null()).output().unwrap();
    let told = Run::of(get).expect(0).out;
    told.lines().find_map(|line| line.strip_prefix("python=")).unwrap().to_owned()
}

/// A tree in memory: path → `None` for a directory, bytes for a file.
pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// What lies below a folder.
pub fn tree(root: &Path) -> Tree {
    fn walk(root: &Path, dir: &Path, tree: &mut Tree) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if path.is_dir() {
                tree.insert(name, None);
                walk(root, &path, tree);
            } else {
                tree.insert(name, Some(std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Tree::new();
    walk(root, root, &mut found);
    found
}

/// Says how two trees differ, without printing their bytes.
#[track_caller]
pub fn same_trees(what: &str, left: &Tree, right: &Tree) {
    let names = |t: &Tree| t.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(left), names(right), "{what}: names");
    for (name, bytes) in left {
        assert!(bytes == &right[name], "{what}: {name} has other bytes");
    }
}

/// Pseudo-random numbers from a seed (splitmix64), so that a failure can be repeated.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(n + 8);
        while out.len() < n {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(n);
        out
    }
}

/// Writes `files` files of up to `bytes_max` random bytes into a few folders below `root`.
pub fn plant(root: &Path, dice: &mut Dice, files: u64, bytes_max: u64) {
    for i in 0..files {
        let dir = root.join(format!("d{}", i % 7));
        std::fs::create_dir_all(&dir).unwrap();
        let size = dice.below(bytes_max) as usize;
        std::fs::write(dir.join(format!("f{i}")), dice.bytes(size)).unwrap();
    }
}
