//! Rules: what is run in the pods around a cut, so that the application itself is at rest in it.
//!
//! Two languages are read. Our own (`holdfast.dev/v1alpha1`, `kind: Rule`):
//!
//! ```yaml
//! apiVersion: holdfast.dev/v1alpha1
//! kind: Rule
//! metadata: {name: postgres}
//! spec:
//!   hold: 5s                        # every lock is let go after this, whoever died
//!   pre:
//!   - podSelector: {app: db}
//!     command: [psql, -c, CHECKPOINT]
//!   - podSelector: {matchLabels: {app: db}}
//!     container: postgres
//!     timeout: 10s
//!     onError: Fail                 # or Continue
//!     lock:
//!       command: fsfreeze -f /data
//!       release: fsfreeze -u /data
//!   post:
//!   - podSelector: {app: db}
//!     singlePod: true
//!     command: echo done
//! ```
//!
//! and Stork's, as it is (`rules:` at the top, or under `spec:`), whose `background` actions hold a lock for as
//! long as `${WAIT_CMD}` runs. A lock command of ours may contain `${WAIT_CMD}` too, and then needs no release.
//!
//! Velero's hook annotations on pods are read too ([`velero`]).
//!
//! Reading is strict: an unknown field is an error that names it, since a misspelt `onEror` would be a lock that
//! fails in the night. [`plan`] pairs every lock with its release before anything runs; [`run`] keeps the pairs.

pub mod kube;
pub mod plan;
mod read;
pub mod run;
pub mod script;
pub mod velero;

use std::time::Duration;

use crate::selector::Selector;
use async_trait::async_trait;

/// How long a lock is held at most, unless a rule says otherwise (promise L1).
pub const HOLD_MAX: Duration = Duration::from_secs(5);
/// How long one command may take, unless a rule says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What stands for the command that waits.
pub const WAIT_CMD: &str = "${WAIT_CMD}";

/// What happens when a command fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The backup fails; everything held is released first.
    #[default]
    Fail,
    /// It is a finding, and the level of what it would have held is weaker.
    Continue,
}

/// A command: its arguments, run as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(pub Vec<String>);

impl Command {
    /// A line for the shell.
    pub fn shell(line: &str) -> Command {
        Command(vec!["sh".into(), "-c".into(), line.into()])
    }

    /// As a line for the shell, which then does the same.
    pub fn as_shell(&self) -> String {
        match self.0.as_slice() {
            [sh, c, line] if sh == "sh" && c == "-c" => line.clone(),
            arguments => arguments.iter().map(|a| script::quote(a)).collect::<Vec<_>>().join(" "),
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Runs a command to its end.
    Run(Command),
    /// Runs a command after which something is locked, until the release is run.
    Lock {
        /// Locks.
        acquire: Command,
        /// Lets go.
        release: Command,
    },
    /// Runs a shell line that holds a lock while the command in place of `${WAIT_CMD}` runs.
    Hold(String),
    /// Runs a command, and another one when all is over, whatever happened: hooks of others' making, of which we
    /// do not know what they do. No guard in the pod, and no claim that anything was held.
    Pair {
        /// Before the cut.
        before: Command,
        /// When all is over.
        after: PairEnd,
    },
}

/// The second half of an [`Action::Pair`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairEnd {
    /// What is run.
    pub command: Command,
    /// In which container.
    pub container: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// How bad it is if it fails.
    pub on_error: OnError,
}

impl Action {
    /// Does it hold the application still, so that we know of it?
    pub fn locks(&self) -> bool {
        matches!(self, Action::Lock { .. } | Action::Hold(_))
    }
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it stands: `spec.pre[1]`.
    pub at: String,
    /// In which pods.
    pub pods: Selector,
    /// In which container; none: the pod's default one.
    pub container: Option<String>,
    /// In the first of the pods only.
    pub single: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// What happens if it fails.
    pub on_error: OnError,
    /// What it does.
    pub action: Action,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// How long its locks are held at most; none: as the caller says.
    pub hold: Option<Duration>,
    /// Steps before the cut, in order.
    pub pre: Vec<Step>,
    /// Steps after it.
    pub post: Vec<Step>,
}

/// A rule that cannot be read: where, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule: {at}: {why}")]
pub struct Malformed {
    /// Where in the document: `spec.pre[1].timeout`.
    pub at: String,
    /// What is wrong.
    pub why: String,
}

/// Whether a Stork rule, which has no sides of its own, is run before or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the cut (`preExecRule`).
    Pre,
    /// After it (`postExecRule`).
    Post,
}

/// Where a command is run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Container; none: the default one.
    pub container: Option<String>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)?;
        match &self.container {
            Some(container) => write!(f, " ({container})"),
            None => Ok(()),
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code.
    pub exit_code: i32,
    /// What it wrote, cut short at a sane length.
    pub stdout: Vec<u8>,
    /// What it complained about, cut short likewise.
    pub stderr: Vec<u8>,
}

/// Why a command has no end that we know of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandsError {
    /// It took too long; it may still be running.
    #[error("no end within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The pod or container is not there any more.
    #[error("the pod is gone: {0}")]
    Gone(String),
    /// The credentials may not `create pods/exec`.
    #[error("may not exec: {0}")]
    Denied(String),
    /// The connection failed; whether the command ran is not known.
    #[error("{0}")]
    Failed(String),
}

/// Runs commands in pods.
#[async_trait]
pub trait Hands: Send + Sync {
    /// Runs a command to its end, or until the time is over.
    async fn exec(
        &self,
        target: &Target,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, HandsError>;
}
