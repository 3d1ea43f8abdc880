//! What is wrong with the input, the place or the moment is told clearly, with its exit code, and changes nothing.
//!
//! Each case is a real run of the binary. What must not change is compared byte by byte before and after.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // A test may: its helpers are tests too.

mod support;

use std::path::Path;
use std::process::Command;
use support::{Dice, Place, plant, same_trees, tree};

/// A run, the exit code it must have, what its message must contain.
struct Case<'a> {
    name: &'a str,
    args: &'a [&'a str],
    code: i32,
    says: &'a [&'a str],
}

/// Runs each case and looks that nothing below the place changed.
fn check(place: &Place, cases: &[Case]) {
    let before = place.all();
    for case in cases {
        let run = place.run(case.args);
        assert_eq!(run.code, case.code, "{}: exit code\n{}{}", case.name, run.out, run.err);
        for part in case.says {
            assert!(run.err.contains(part), "{}: the message lacks {part:?}:\n{}", case.name, run.err);
        }
        same_trees(case.name, &before, &place.all());
    }
}

#[test]
fn a_repository_that_cannot_be_used_is_told_and_left_alone() {
    let place = Place::with_repository();
    std::fs::write(place.path("wrong"), "battery staple\n").unwrap();
    std::fs::write(place.path("empty"), "\n").unwrap();
    std::fs::create_dir(place.path("files")).unwrap();
    std::fs::write(place.path("files/holiday.jpg"), "a picture").unwrap();
    std::fs::create_dir(place.path("nothing")).unwrap();
    std::fs::create_dir_all(place.path("newer/keys")).unwrap();
    let header = std::fs::read_to_string(place.path("repo/holdfast.json")).unwrap();
    let newer = header.replace("\"version\":1", "\"version\":7");
    assert_ne!(header, newer);
    std::fs::write(place.path("newer/holdfast.json"), newer).unwrap();
    let (wrong, empty) = (place.text("wrong"), place.text("empty"));
    let (files, nothing, newer, absent) =
        (place.text("files"), place.text("nothing"), place.text("newer"), place.text("absent"));
    let cases = [
        Case {
            name: "wrong passphrase",
            args: &["points", "--password-file", &wrong],
            code: 5,
            says: &["passphrase", &place.repo],
        },
        Case {
            name: "empty passphrase",
            args: &["points", "--password-file", &empty],
            code: 2,
            says: &["is empty"],
        },
        Case {
            name: "no passphrase file",
            args: &["points", "--password-file", &absent],
            code: 2,
            says: &["cannot read", &absent],
        },
        Case {
            name: "no repository: nothing there",
            args: &["points", "--repo", &absent],
            code: 4,
            says: &["no repository", &absent],
        },
        Case {
            name: "no repository: empty folder",
            args: &["points", "--repo", &nothing],
            code: 4,
            says: &["no repository", &nothing],
        },
        Case {
            name: "no repository: other files",
            args: &["points", "--repo", &files],
            code: 4,
            says: &["no repository", &files],
        },
        Case {
            name: "backup into no repository",
            args: &["volume", "backup", &files, "--repo", &absent],
            code: 4,
            says: &["no repository"],
        },
        Case {
            name: "init among other files",
            args: &["repo", "init", "--repo", &files],
            code: 8,
            says: &["not empty", "holiday.jpg"],
        },
        Case {
            name: "init over a repository",
            args: &["repo", "init"],
            code: 8,
            says: &["already holds a repository"],
        },
        Case {
            name: "newer format",
            args: &["points", "--repo", &newer],
            code: 8,
            says: &["format 7", "newer holdfast"],
        },
        Case {
            name: "init over a newer format",
            args: &["repo", "init", "--repo", &newer],
            code: 8,
            says: &[&newer],
        },
        Case {
            name: "unknown kind of store",
            args: &["points", "--repo", "ftp://host/x"],
            code: 2,
            says: &["ftp"],
        },
        Case {
            name: "a store of a kind there is not",
            args: &["points", "--repo", "ftp://host/x"],
            code: 2,
            says: &["unknown kind of store"],
        },
        Case {
            name: "s3 without credentials",
            args: &["points", "--repo", "s3://bucket/x"],
            code: 5,
            says: &["AWS_ACCESS_KEY_ID"],
        },
        Case {
            name: "a file is no repository",
            args: &["points", "--repo", &wrong],
            code: 2,
            says: &[&wrong],
        },
    ];
    check(&place, &cases);
}

#[test]
fn an_s3_server_that_is_not_there_is_told_within_seconds() {
    let mut place = Place::new();
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    place.repo = "s3://bucket/prefix".into();
    for (key, value) in
        [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_REGION", "us-east-1")]
    {
        place.env.push((key.into(), value.into()));
    }
    place.env.push(("AWS_ENDPOINT_URL".into(), format!("http://127.0.0.1:{port}")));
    let run = place.run(&["points"]).expect(6);
    assert!(run.err.contains("s3://bucket/prefix") && run.err.contains("not reachable"), "{}", run.err);
}

#[test]
fn points_and_targets_that_do_not_fit_are_told_and_left_alone() {
    let place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(1), 5, 5_000);
    let data = place.text("data");
    check(
        &place,
        &[
            Case {
                name: "latest of nothing",
                args: &["volume", "restore", "latest", &place.text("t")],
                code: 4,
                says: &["no volume backup", "volume list"],
            },
            Case {
                name: "source that is not there",
                args: &["volume", "backup", &place.text("absent")],
                code: 4,
                says: &["absent"],
            },
        ],
    );
    let id = place.run(&["volume", "backup", &data, "-o", "json"]).expect(0).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    std::fs::create_dir(place.path("full")).unwrap();
    std::fs::write(place.path("full/mine"), "keep me").unwrap();
    std::fs::write(place.path("file"), "a file").unwrap();
    let (full, file, absent) = (place.text("full"), place.text("file"), place.text("new"));
    let below_file = format!("{file}/below");
    check(
        &place,
        &[
            Case {
                name: "no such point",
                args: &["volume", "restore", "0123456789", &absent],
                code: 4,
                says: &["0123456789"],
            },
            Case {
                name: "not an id",
                args: &["volume", "restore", "shop", &absent],
                code: 4,
                says: &["shop"],
            },
            Case {
                name: "a volume is no application",
                args: &["show", &id],
                code: 4,
                says: &["not a recovery point"],
            },
            Case {
                name: "no application point",
                args: &["show", "latest"],
                code: 4,
                says: &["no recovery point"],
            },
            Case {
                name: "target not empty",
                args: &["volume", "restore", &id, &full],
                code: 8,
                says: &["not empty", &full],
            },
            Case {
                name: "target is a file",
                args: &["volume", "restore", &id, &file],
                code: 8,
                says: &[&file],
            },
            Case {
                name: "target below a file",
                args: &["volume", "restore", &id, &below_file],
                code: 8,
                says: &[&file],
            },
            Case {
                name: "no such file in the backup",
                args: &["volume", "restore", &id, &absent, "--only", "no/such"],
                code: 4,
                says: &["no/such"],
            },
            Case {
                name: "unknown flag",
                args: &["volume", "restore", &id, &absent, "--force"],
                code: 2,
                says: &["--force"],
            },
            Case {
                name: "a passphrase is never an argument",
                args: &["points", "--password", "x"],
                code: 2,
                says: &["--password"],
            },
        ],
    );
}

/// Mounts a small tmpfs for one command: as root directly, else in a user namespace of its own.
fn on_small_disk(
    place: &Place,
    mount: &Path,
    options: &str,
    prepare: &str,
    args: &[&str],
) -> Option<support::Run> {
    let script = format!(
        "set -e; mount -t tmpfs -o {options} none {0}; {prepare}; set +e; \"$@\"; code=$?; ls -A {0} >{0}.left 2>/dev/null; umount -l {0}; exit $code",
        mount.display()
    );
    let unshare: &[&str] = if rustix_is_root() { &["-m"] } else { &["-Urm"] };
    if !Command::new("unshare")
        .args(unshare)
        .args(["mount", "-t", "tmpfs", "none", "/mnt"])
        .status()
        .is_ok_and(|s| s.success())
    {
        return None;
    }
    let plain = place.command(args);
    let mut command = Command::new("unshare");
    command.env_clear().envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
    command.args(unshare).args(["sh", "-c", &script, "sh"]).arg(plain.get_program()).args(plain.get_args());
    Some(support::Run::of(command.output().unwrap()))
}

fn rustix_is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_disk_that_is_full_is_told_and_nothing_is_committed() {
    let place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(2), 40, 400_000);
    let data = place.text("data");
    place.run(&["volume", "backup", &data]).expect(0);
    let whole = tree(&place.path("repo"));

    // Restoring onto a disk that is too small.
    let target = place.path("target");
    std::fs::create_dir(&target).unwrap();
    let into = target.display().to_string();
    let restore = ["volume", "restore", "latest", into.as_str()];
    let Some(run) = on_small_disk(&place, &target, "size=2m", ":", &restore) else {
        panic!("this machine allows neither root nor a user namespace to mount a small disk");
    };
    let run = run.expect(9);
    assert!(run.err.contains("no space is left in") && run.err.contains(&into), "{}", run.err);
    same_trees("the repository", &whole, &tree(&place.path("repo")));

    // Backing up onto a disk that is too small: the repository was copied there and has room for a bit more only.
    let disk = place.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let size: usize = whole.values().flatten().map(Vec::len).sum();
    let repo = format!("{}/repo", disk.display());
    std::fs::create_dir(place.path("more")).unwrap();
    plant(&place.path("more"), &mut Dice(3), 40, 400_000);
    let more = place.text("more");
    let prepare = format!("cp -a {} {repo}", place.repo);
    let options = format!("size={}k", size / 1024 + 3_000);
    let backup = ["volume", "backup", more.as_str(), "--repo", repo.as_str()];
    let run = on_small_disk(&place, &disk, &options, &prepare, &backup).unwrap().expect(9);
    assert!(run.err.contains("o space left") && run.err.contains("nothing was committed"), "{}", run.err);
}

#[test]
fn a_read_only_target_is_told_and_left_alone() {
    let place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(4), 3, 4_000);
    place.run(&["volume", "backup", &place.text("data")]).expect(0);
    let target = place.path("target");
    std::fs::create_dir(&target).unwrap();
    let (into, below) = (target.display().to_string(), format!("{}/new", target.display()));
    for to in [&into, &below] {
        let remount = format!("mount -o remount,ro {into}");
        let run = on_small_disk(&place, &target, "size=2m", &remount, &["volume", "restore", "latest", to])
            .unwrap();
        let run = run.expect(9);
        assert!(run.err.contains("ead-only") && run.err.contains(&into), "{}", run.err);
    }
    let disk = place.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let repo = format!("{}/repo", disk.display());
    let prepare = format!("cp -a {} {repo}; mount -o remount,ro {}", place.repo, disk.display());
    let args = ["volume", "backup", &place.text("data"), "--repo", &repo];
    let run = on_small_disk(&place, &disk, "size=20m", &prepare, &args).unwrap().expect(9);
    assert!(run.err.contains("ead-only"), "{}", run.err);
}

/// Ctrl-C while a backup or a restore runs, at many instants: exit code 130 or a run that was done, nothing
/// committed by the interrupted, no damage.
#[test]
fn ctrl_c_at_any_instant_ends_cleanly_and_says_what_is_left() {
    let place = Place::with_repository();
    let mut dice = Dice(5);
    plant(&place.path("data"), &mut dice, 100, 60_000);
    let data = place.text("data");
    let begun = std::time::Instant::now();
    place.run(&["volume", "backup", &data]).expect(0);
    let whole = begun.elapsed();
    let known = |place: &Place| {
        place.run(&["volume", "list", "-o", "json"]).expect(0).json()["backups"].as_array().unwrap().len()
    };
    let mut points = known(&place);
    let (mut interrupted, mut explained) = (0, 0);
    for round in 0..40 {
        std::fs::write(place.path("data/d0/extra"), dice.bytes(200_000)).unwrap();
        let delay = whole.mul_f64(dice.below(1_100) as f64 / 1_000.0);
        let child = place.spawn(&["volume", "backup", &data, "--full"]);
        std::thread::sleep(delay);
        let signal =
            if round % 2 == 0 { rustix::process::Signal::INT } else { rustix::process::Signal::TERM };
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal);
        let run = support::Run::of(child.wait_with_output().unwrap());
        let now = known(&place);
        match run.code {
            0 => assert_eq!(now, points + 1),
            130 => {
                assert_eq!(now, points, "{}", run.err);
                interrupted += 1;
                assert!(run.err.contains("nothing was"), "{}", run.err);
                explained += usize::from(run.err.contains("nothing was committed"));
            }
            // Before our first instruction the signal does what it does to any process.
            1002 | 1015 => assert_eq!(now, points),
            code => panic!("exit code {code}: {}", run.err),
        }
        points = now;
    }
    assert!(
        interrupted >= 10 && explained >= 3,
        "the instants lie inside the run: {interrupted}, {explained}"
    );
    for round in 0..40 {
        let target = place.path(&format!("t{round}"));
        let delay = whole.mul_f64(dice.below(1_100) as f64 / 1_000.0);
        let child = place.spawn(&["volume", "restore", "latest", &target.display().to_string()]);
        std::thread::sleep(delay);
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::INT,
        );
        let run = support::Run::of(child.wait_with_output().unwrap());
        assert!(matches!(run.code, 0 | 130 | 1002), "exit code {}: {}", run.code, run.err);
        if run.code == 130 {
            assert!(
                run.err.contains("nothing was changed") || run.err.contains("partly written"),
                "{}",
                run.err
            );
        }
    }
    place.run(&["repo", "check", "--read-data"]).expect(0);
}

#[test]
fn s3_credentials_and_buckets_that_are_wrong_are_told() {
    let var =
        |n: &str| std::env::var(n).unwrap_or_else(|_| panic!("{n} is not set; run this with ./test real"));
    let mut place = Place::new();
    place.repo = format!("s3://{}/bad-input", var("HOLDFAST_TEST_S3_BUCKET"));
    place.env.push(("AWS_ENDPOINT_URL".into(), var("HOLDFAST_TEST_S3_ENDPOINT")));
    place.env.push(("AWS_ACCESS_KEY_ID".into(), var("AWS_ACCESS_KEY_ID")));
    place.env.push(("AWS_SECRET_ACCESS_KEY".into(), var("AWS_SECRET_ACCESS_KEY")));
    place.env.push(("AWS_REGION".into(), var("AWS_REGION")));
    let run = place.run(&["points"]).expect(4);
    assert!(run.err.contains("no repository") && run.err.contains(&place.repo), "{}", run.err);
    let run = place.run(&["points", "--repo", "s3://no-such-bucket-here/x"]);
    assert!(matches!(run.code, 2 | 4), "{}: {}", run.code, run.err);
    assert!(run.err.contains("no-such-bucket-here"), "{}", run.err);
    for (name, value) in [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "nobody")] {
        place.env.push((name.into(), value.into()));
        let run = place.run(&["points"]).expect(5);
        assert!(run.err.contains(&place.repo) && run.err.contains("denied"), "{}", run.err);
    }
}

/// A variable that is set to nothing counts as not set; one that is nonsense is named.
#[test]
fn variables_that_are_empty_count_as_not_set_and_others_are_told() {
    let mut place = Place::with_repository();
    place.env.retain(|(name, _)| name != "HOLDFAST_CACHE_DIR" && name != "HOLDFAST_MEMORY");
    let plain = place.env.clone();
    for name in [
        "HOLDFAST_CACHE_DIR",
        "HOLDFAST_MEMORY",
        "HOLDFAST_KEY_FILE",
        "HOLDFAST_KMS",
        "HOLDFAST_TO_PASSWORD_FILE",
    ] {
        place.env.clone_from(&plain);
        place.env.push((name.into(), String::new()));
        place.env.push(("XDG_CACHE_HOME".into(), place.text("cache")));
        place.run(&["points"]).expect(0);
    }
    for (value, hint) in [("lots", "HOLDFAST_MEMORY=lots"), ("12", "from 128"), ("-1", "HOLDFAST_MEMORY=-1")]
    {
        place.env.clone_from(&plain);
        place.env.push(("HOLDFAST_MEMORY".into(), value.into()));
        let run = place.run(&["points", "-o", "json"]).expect(2);
        assert!(run.err.contains(hint) && run.err.contains("\"reason\":\"usage\""), "{value}: {}", run.err);
    }
}
