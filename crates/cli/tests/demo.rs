//! The demo, as a newcomer runs it: as it is, as nobody, without a network, and interrupted.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // A test may: its helpers are tests too.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Dice, Run};

/// A demo whose temporary folder is ours, so that what it leaves can be seen.
fn demo(tmp: &std::path::Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env_clear().env("TMPDIR", tmp).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.arg("demo").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn room() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

#[track_caller]
fn nothing_left(tmp: &std::path::Path) {
    let left: Vec<_> = std::fs::read_dir(tmp).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [] as [std::path::PathBuf; 0], "the demo's folder is removed");
    let mark = tmp.display().to_string();
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let writers: Vec<String> = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|p| std::fs::read_to_string(p.path().join("cmdline")).ok())
            .filter(|line| line.contains("demo-writer") && line.contains(&mark))
            .collect();
        if writers.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "the demo's processes have ended: {writers:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_demo_proves_that_no_acknowledged_record_is_lost() {
    let tmp = room();
    let begun = Instant::now();
    let run = Run::of(demo(tmp.path(), &[]).output().unwrap()).expect(0);
    assert!(begun.elapsed() < Duration::from_secs(60), "it takes less than a minute: {:?}", begun.elapsed());
    let last = run.out.lines().last().unwrap();
    assert!(last.starts_with("Holdfast demo: ") && last.ends_with(" OK"), "{last}");
    let number = |label: &str| -> u64 {
        let line =
            run.out.lines().find(|l| l.contains(label)).unwrap_or_else(|| panic!("{label}: {}", run.out));
        line.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
    };
    let (acknowledged, restored) =
        (number("records acknowledged before the cut:"), number("records in the restored volume:"));
    assert!(acknowledged >= 300, "it had something to lose");
    assert!(restored >= acknowledged);
    for said in [
        "holdfast discover",
        "holdfast backup shop",
        "consistency",
        "holdfast restore latest --plan",
        "not a byte changed",
    ] {
        assert!(run.out.contains(said), "{said:?} is shown:\n{}", run.out);
    }
    assert!(!run.out.contains('\x1b'), "no colour in a log");
    nothing_left(tmp.path());
}

#[test]
fn the_demo_needs_neither_root_nor_a_network() {
    let tmp = room();
    // A copy that anybody may run.
    let program = tmp.path().join("holdfast");
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let folder = tmp.path().join("tmp");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let root = rustix::process::geteuid().is_root();
    let mut command = Command::new("unshare");
    // A network namespace of its own has no interface that is up, the loopback included.
    command.env_clear().env("TMPDIR", &folder).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(if root { &["-n"][..] } else { &["-Un"] });
    if root {
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    }
    let run = Run::of(command.arg(&program).arg("demo").stdin(Stdio::null()).output().unwrap()).expect(0);
    assert!(run.out.trim_end().ends_with(" OK"), "{}", run.out);
    nothing_left(&folder);
}

#[test]
fn ctrl_c_at_any_instant_of_the_demo_leaves_nothing_behind() {
    let tmp = room();
    let begun = Instant::now();
    Run::of(demo(tmp.path(), &[]).output().unwrap()).expect(0);
    let whole = begun.elapsed();
    let mut dice = Dice(7);
    let mut interrupted = 0;
    for _ in 0..10 {
        let child = demo(tmp.path(), &[]).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(dice.below(1_000) as f64 / 1_000.0));
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::INT,
        );
        let run = Run::of(child.wait_with_output().unwrap());
        assert!(matches!(run.code, 0 | 130 | 1002), "exit code {}: {}{}", run.code, run.out, run.err);
        interrupted += usize::from(run.code == 130);
        nothing_left(tmp.path());
    }
    assert!(interrupted >= 3, "the instants lie inside the run: {interrupted}");
}

#[test]
fn a_kept_demo_can_be_looked_into() {
    let tmp = room();
    let run = Run::of(demo(tmp.path(), &["--keep"]).output().unwrap()).expect(0);
    let line = run.out.lines().find(|l| l.contains("export HOLDFAST_REPO=")).unwrap();
    let mut points = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    points.env_clear().args(["points", "-o", "json"]);
    for word in line.trim().trim_start_matches("export ").split(' ') {
        let (name, value) = word.split_once('=').unwrap();
        points.env(name, value);
    }
    let points = Run::of(points.output().unwrap()).expect(0).json();
    assert_eq!(points["points"].as_array().unwrap().len(), 1, "{points}");
}
