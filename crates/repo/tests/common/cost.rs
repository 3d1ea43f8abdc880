//! What a process costs: its peak of memory, and processor time. To measure one step it gets a process to itself.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking and tell by printing; not every test uses all"
)]

use std::process::Command;

/// What this process has had in memory at most, in bytes.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// Processor time of this process so far, in seconds.
pub fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Says its peak to who started this process. The last thing a step does.
pub fn tell() {
    println!("\npeak {}", peak());
}

/// This program again, for the ignored test of this name, which is a step and nothing else.
pub fn step(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // Threads that share one heap: what is free in one is no noise in the peak of another.
    command.args(["--ignored", "--exact", name, "--nocapture"]).env("MALLOC_ARENA_MAX", "1");
    command
}

/// The peak that a step tells at its end, in bytes.
pub fn peak_of(step: &mut Command) -> u64 {
    let output = step.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{step:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().find_map(|line| line.strip_prefix("peak ")).unwrap().parse().unwrap()
}
