//! A directory backed up and restored without a cluster, the keys of the repository, and the manners of the binary:
//! what it prints where, for people and for programs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // A test may: its helpers are tests too.

mod support;

use std::io::Read;
use std::process::{Command, Stdio};
use support::{Dice, Place, Run, plant, same_trees, tree};

#[test]
fn backed_up_changed_listed_and_restored() {
    let place = Place::with_repository();
    let data = place.path("data");
    plant(&data, &mut Dice(21), 10, 50_000);
    let source = place.text("data");
    let first = place.run(&["volume", "backup", &source, "--label", "team=a"]).expect(0);
    let lines: Vec<&str> = first.out.lines().collect();
    assert!(lines[0].starts_with(&format!("Backed up {source}: 10 files, ")), "{}", first.out);
    assert!(
        lines[1].starts_with("Volume backup ") && lines[1].len() == "Volume backup ".len() + 64,
        "{}",
        first.out
    );
    let before = tree(&data);

    std::fs::write(data.join("d0/new"), "new").unwrap();
    std::fs::remove_file(data.join("d1/f1")).unwrap();
    let second = place.run(&["volume", "backup", &source, "-o", "json"]).expect(0).json();
    assert_eq!(second["complete"], true);
    let full = place.run(&["volume", "backup", &source, "--full", "-o", "json"]).expect(0).json();
    assert_eq!(full["figures"]["chunks_new"], 0, "what is stored already is not stored again: {full}");

    let list = place.run(&["volume", "list", &source]).expect(0);
    let rows: Vec<Vec<&str>> = list.out.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["BACKUP", "TIME", "AGE", "HOST", "PATH", "FILES", "SIZE", "ADDED"]);
    assert_eq!((rows.len(), rows[1][4], rows[1][5]), (4, source.as_str(), "10"), "{}", list.out);
    let json = place.run(&["volume", "list", "-o", "json"]).expect(0).json();
    assert_eq!(json["backups"][0]["summary"]["labels"]["team"], "a");

    let ls = place.run(&["volume", "ls", rows[1][0], "d1"]).expect(0);
    assert!(ls.out.lines().any(|l| l.starts_with("file ") && l.ends_with(" d1/f1")), "{}", ls.out);
    assert!(!place.run(&["volume", "ls", "latest"]).expect(0).out.contains("d1/f1"));
    place.run(&["volume", "ls", "latest", "no/such"]).expect(4);

    let restore = place.run(&["volume", "restore", rows[1][0], &place.text("old")]).expect(0);
    assert!(restore.out.starts_with(&format!("Restored all of {} into ", rows[1][0])), "{}", restore.out);
    same_trees("the first backup", &before, &tree(&place.path("old")));
    place.run(&["volume", "restore", "latest", &place.text("old"), "--existing", "mirror"]).expect(0);
    same_trees("mirrored to the last", &tree(&data), &tree(&place.path("old")));
    place.run(&["volume", "restore", rows[1][0], &place.text("part"), "--only", "d1"]).expect(0);
    assert!(place.path("part/f1").exists(), "the content of the directory named goes into the target");
}

#[test]
fn a_symlink_is_kept_as_it_is_and_never_followed() {
    let place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(22), 3, 1_000);
    std::os::unix::fs::symlink("/proc/self/mem", place.path("data/link")).unwrap();
    let run = place.run(&["volume", "backup", &place.text("data")]).expect(0);
    assert!(run.out.contains("3 files"), "{}", run.out);
    place.run(&["volume", "restore", "latest", &place.text("t")]).expect(0);
    assert_eq!(std::fs::read_link(place.path("t/link")).unwrap(), std::path::Path::new("/proc/self/mem"));
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_rest_is_kept() {
    let place = Place::new();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    open(place.dir.path(), 0o777);
    plant(&place.path("data"), &mut Dice(26), 3, 1_000);
    open(&place.path("data/d1/f1"), 0o000);
    let program = place.path("holdfast");
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), &program).unwrap();
    // Root reads everything, so this is run as nobody.
    let root = rustix::process::geteuid().is_root();
    let as_nobody = |args: &[&str]| {
        let plain = place.command(args);
        let mut command = Command::new(if root { "setpriv" } else { "env" });
        if root {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command.arg(&program).args(args).envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
        Run::of(command.stdin(Stdio::null()).output().unwrap())
    };
    as_nobody(&["repo", "init", "--kdf-memory", "1"]).expect(0);
    let run = as_nobody(&["volume", "backup", &place.text("data")]).expect(3);
    assert!(run.out.contains("error: d1/f1:") && run.out.contains("It is incomplete"), "{}", run.out);
    as_nobody(&["volume", "restore", "latest", &place.text("t")]).expect(0);
    assert!(place.path("t/d0/f0").exists() && !place.path("t/d1/f1").exists());

    // Retention knows: a backup that lacks something takes no whole one's place.
    open(&place.path("data/d1/f1"), 0o644);
    let whole = as_nobody(&["volume", "backup", &place.text("data"), "-o", "json"]).expect(0).json();
    open(&place.path("data/d1/f1"), 0o000);
    // Changed, or the content known from the last time would do.
    std::fs::write(place.path("data/d1/f1"), "changed").unwrap();
    let newest = as_nobody(&["volume", "backup", &place.text("data"), "-o", "json"]).expect(3).json();
    as_nobody(&["retain", "--keep-last", "1", "--yes"]).expect(0);
    let left = as_nobody(&["volume", "list", "-o", "json"]).expect(0).json();
    let left: Vec<_> = left["backups"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(left, [&whole["id"], &newest["id"]]);
}

#[test]
fn keys_allow_what_they_say_and_rotate() {
    let mut place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(23), 4, 9_000);
    std::fs::write(place.path("agent"), "agent's passphrase\n").unwrap();
    let agent = place.text("agent");
    let added = place
        .run(&[
            "repo",
            "key",
            "add",
            "--new-password-file",
            &agent,
            "--capability",
            "put",
            "--label",
            "agent",
            "--kdf-memory",
            "1",
        ])
        .expect(0);
    assert!(added.out.contains("allows put"), "{}", added.out);
    let data = place.text("data");
    place.run(&["volume", "backup", &data, "--password-file", &agent]).expect(0);
    let target = place.text("t");
    let refused = place.run(&["volume", "restore", "latest", &target, "--password-file", &agent]).expect(5);
    assert!(refused.err.contains("capability"), "{}", refused.err);
    assert!(!place.path("t").exists());
    place.run(&["volume", "restore", "latest", &target]).expect(0);

    let list = place.run(&["repo", "key", "list"]).expect(0);
    let first = list
        .out
        .lines()
        .find(|l| l.contains(" read "))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    place.run(&["repo", "key", "remove", &first]).expect(2);
    std::fs::write(place.path("next"), "the next passphrase").unwrap();
    let next = place.text("next");
    place.run(&["repo", "key", "add", "--new-password-file", &next, "--kdf-memory", "1"]).expect(0);
    place.env.push(("HOLDFAST_PASSWORD_FILE".into(), next));
    place.run(&["repo", "key", "remove", &first[..10]]).expect(0);
    place.run(&["volume", "list", "--password-file", &place.text("password")]).expect(5);
    assert!(place.run(&["volume", "list"]).expect(0).out.contains(&data), "rotating a key touches no data");
}

#[test]
fn a_flipped_bit_is_found_named_and_never_restored() {
    let place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(24), 4, 60_000);
    place.run(&["volume", "backup", &place.text("data")]).expect(0);
    place.run(&["repo", "check", "--read-data"]).expect(0);
    let packs = tree(&place.path("repo/packs"));
    let (name, bytes) =
        packs.iter().filter_map(|(n, b)| Some((n, b.as_ref()?))).max_by_key(|(_, b)| b.len()).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let file = place.path("repo/packs").join(name);
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&file, flipped).unwrap();
    let check = place.run(&["repo", "check", "--read-data"]).expect(7);
    assert!(
        check.out.contains("DAMAGED") && check.out.contains(name) && check.out.contains("volume/d"),
        "{}",
        check.out
    );
    assert_eq!(place.run(&["repo", "check", "--read-data", "-o", "json"]).expect(7).json()["damaged"], true);
    let restore = place.run(&["volume", "restore", "latest", &place.text("t")]).expect(7);
    assert!(restore.out.contains("could not be restored"), "{}", restore.out);
    for (name, restored) in tree(&place.path("t")) {
        assert_eq!(
            restored,
            tree(&place.path("data"))[&name],
            "what is there under its name is right: {name}"
        );
    }
}

#[test]
fn results_go_to_stdout_everything_else_to_stderr_and_errors_can_be_parsed() {
    let place = Place::with_repository();
    let empty = place.run(&["points"]).expect(0);
    assert!(empty.out.is_empty() && empty.err.contains("No recovery points"), "{empty:?}");
    let error = place.run(&["show", "latest", "-o", "json"]).expect(4);
    let parsed: serde_json::Value = serde_json::from_str(&error.err).unwrap();
    assert_eq!(
        (parsed["error"]["exit"].as_u64(), parsed["error"]["reason"].as_str()),
        (Some(4), Some("not-found"))
    );
    assert!(error.out.is_empty());
    let yaml = place.run(&["repo", "stats", "-o", "yaml"]).expect(0);
    assert!(yaml.out.contains("keys:\n  count: 1\n"), "{}", yaml.out);
    let version = place.run(&["version"]).expect(0);
    assert_eq!(version.out.lines().next(), Some(concat!("holdfast ", env!("CARGO_PKG_VERSION"))));
    for word in ["--version", "--help", "help"] {
        place.run(&[word]).expect(0);
    }
    place.run(&["restroe"]).expect(2);
}

#[test]
fn without_a_terminal_it_does_not_wait_for_a_passphrase() {
    let place = Place::with_repository();
    let mut command = place.command(&["points"]);
    let run = Run::of(command.env_remove("HOLDFAST_PASSWORD_FILE").output().unwrap()).expect(2);
    assert!(run.err.contains("HOLDFAST_PASSWORD_FILE"), "{}", run.err);
}

#[test]
fn a_reader_that_goes_away_ends_the_printing_and_not_the_work() {
    let place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(25), 5, 9_000);
    let mut child = place.spawn(&["volume", "backup", &place.text("data")]);
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{err}");
    assert!(!err.contains("panicked") && !err.contains("roken pipe"), "{err}");
    assert_eq!(
        place.run(&["volume", "list", "-o", "json"]).expect(0).json()["backups"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn under_its_other_name_it_is_a_kubectl_plugin() {
    let place = Place::new();
    let plugin = place.path("kubectl-holdfast");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_holdfast"), &plugin).unwrap();
    let help = Run::of(Command::new(plugin).arg("--help").stdin(Stdio::null()).output().unwrap()).expect(0);
    assert!(help.out.contains("Usage: kubectl holdfast"), "{}", help.out);
}
