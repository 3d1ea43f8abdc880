//! The real cluster with real nodes beside a test (`tests/real/with node -- `): containers run, volumes hold bytes.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Place, Run};

/// A cluster whose nodes are process trees of this machine.
pub struct Nodes {
    kubeconfig: String,
    state: PathBuf,
}

impl Nodes {
    /// The one the environment tells of.
    pub fn of_this_run() -> Nodes {
        let value = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run this with ./test real, or under `tests/real/with node -- `")
            })
        };
        value("HOLDFAST_TEST_NODES");
        Nodes { kubeconfig: value("HOLDFAST_TEST_KUBECONFIG"), state: value("HOLDFAST_TEST_STATE").into() }
    }

    /// A place with a repository, whose commands talk to this cluster.
    pub fn place(&self) -> Place {
        let mut place = Place::with_repository();
        place.env.push(("KUBECONFIG".into(), self.kubeconfig.clone()));
        place
    }

    /// kubectl, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What kubectl printed; it must succeed.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        Run::of(self.command(args).output().unwrap()).expect(0).out.trim_end().to_owned()
    }

    /// The options by which `holdfast` works as if it ran on the node: its name, and its file systems as this machine
    /// sees them through the node's first process.
    pub fn on(&self, node: &str) -> [String; 4] {
        let pid = std::fs::read_to_string(self.state.join(node).join("pid")).unwrap();
        let root = format!("/proc/{}/root", pid.trim());
        ["--node-root".into(), root, "--node-name".into(), node.into()]
    }

    /// Asks until the answer is yes.
    #[track_caller]
    pub fn eventually(&self, what: &str, ask: impl Fn() -> bool) {
        let begun = Instant::now();
        while !ask() {
            assert!(begun.elapsed() < Duration::from_secs(120), "within 120 s: {what}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
