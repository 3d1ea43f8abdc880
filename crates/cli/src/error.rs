//! What went wrong, to what, what to do next, and the exit code that says so to a script.
//!
//! Every error of every library becomes a [`Failure`] here and nowhere else, so that the same cause has the
//! same exit code and the same advice in every command. The codes are a promise: docs/exit-codes.md.

use std::fmt;

/// How a run ended; the number is the exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked.
    Done = 0,
    /// Something unexpected.
    Failed = 1,
    /// Bad usage or malformed input.
    Usage = 2,
    /// Committed, but the recovery point lacks something; or restored with something left out.
    Incomplete = 3,
    /// The repository, point, application or selection does not exist.
    NotFound = 4,
    /// Wrong passphrase, credentials, or rights.
    Denied = 5,
    /// Cluster or store cannot be reached.
    Unreachable = 6,
    /// Damage was found.
    Damaged = 7,
    /// Refused, to protect data that is there.
    Refused = 8,
    /// No space left, or a read-only place.
    NoSpace = 9,
    /// `diff` found differences.
    Different = 10,
    /// `backup --require-complete`: the point would lack something, and was not taken.
    NotComplete = 11,
    /// Ended by Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl Exit {
    /// The word for it in machine-readable output.
    pub fn word(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Incomplete => "incomplete",
            Exit::NotFound => "not-found",
            Exit::Denied => "denied",
            Exit::Unreachable => "unreachable",
            Exit::Damaged => "damaged",
            Exit::Refused => "refused",
            Exit::NoSpace => "no-space",
            Exit::Different => "different",
            Exit::NotComplete => "not-complete",
            Exit::Interrupted => "interrupted",
        }
    }
}

/// A run that did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, to what.
    pub message: String,
    /// What to do next.
    pub next: Option<String>,
}

impl Failure {
    /// A failure with its cause, and no advice yet.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), next: None }
    }

    /// Malformed input.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// Adds what to do next, unless the cause already said so.
    pub fn next(mut self, next: impl Into<String>) -> Failure {
        self.next.get_or_insert_with(|| next.into());
        self
    }

    /// Puts what was being done in front of the cause.
    pub fn while_doing(mut self, what: impl fmt::Display) -> Failure {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

/// What every command returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// An error of the operating system on a path the user named.
pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind as K;
    let message = format!("{what}: {error}");
    match error.kind() {
        K::NotFound => Failure::new(Exit::NotFound, message),
        K::PermissionDenied => Failure::new(Exit::Denied, message)
            .next("check the owner and mode of that path, or run as its owner"),
        K::StorageFull | K::QuotaExceeded => Failure::new(Exit::NoSpace, message)
            .next("free some space there, then run the same command again"),
        K::ReadOnlyFilesystem => {
            Failure::new(Exit::NoSpace, message).next("name a place that is mounted read-write")
        }
        K::AlreadyExists | K::DirectoryNotEmpty => Failure::new(Exit::Refused, message),
        _ => Failure::new(Exit::Failed, message),
    }
}

impl From<repo::store::StoreError> for Failure {
    fn from(error: repo::store::StoreError) -> Failure {
        use repo::store::StoreError as E;
        let exit = match &error {
            E::NotFound { .. } => Exit::NotFound,
            E::Denied { .. } => Exit::Denied,
            E::Full { .. } => Exit::NoSpace,
            E::Unavailable { .. } => Exit::Unreachable,
            E::Short { .. } | E::Unreadable { .. } => Exit::Damaged,
            E::Invalid { .. } => Exit::Usage,
            E::Locked { .. } | E::NotSupported { .. } => Exit::Refused,
            E::Other { .. } => Exit::Failed,
        };
        let next = match exit {
            Exit::Unreachable => Some("check the address and the network, then run the same command again"),
            _ => None,
        };
        Failure { exit, message: error.to_string(), next: next.map(str::to_owned) }
    }
}

impl From<repo::Error> for Failure {
    fn from(error: repo::Error) -> Failure {
        use repo::Error as E;
        let (exit, next) = match &error {
            E::Store(e) => return Failure::from(e.clone()),
            E::NoRepository { .. } | E::NoSuchCommit { .. } => (Exit::NotFound, None),
            E::Exists { .. } | E::NotEmpty { .. } | E::NewerFormat { .. } => (Exit::Refused, None),
            E::WrongKey { .. } => (
                Exit::Denied,
                Some(
                    "check what opens it: --password-file (HOLDFAST_PASSWORD_FILE), --key-file, --kms or --recovery-key-file",
                ),
            ),
            E::NotPermitted { .. } => (Exit::Denied, Some("use a key with that capability")),
            E::KeyMissing { .. } => (Exit::Denied, None),
            E::KeyPlugin { .. } => (
                Exit::Unreachable,
                Some("see that the plugin runs and is healthy, then run the same command again"),
            ),
            E::Damaged { .. } | E::Missing { .. } => (Exit::Damaged, None),
            E::Ambiguous { .. } | E::Invalid { .. } => (Exit::Usage, None),
            E::Cancelled => (Exit::Interrupted, None),
            E::Failed { .. } | E::Collected { .. } => (Exit::Failed, None),
        };
        Failure { exit, message: error.to_string(), next: next.map(str::to_owned) }
    }
}

impl From<app::error::Error> for Failure {
    fn from(error: app::error::Error) -> Failure {
        use app::error::Error as E;
        let exit = match &error {
            E::Denied(_) => Exit::Denied,
            E::Unreachable(_) => Exit::Unreachable,
            E::NotFound(_) => Exit::NotFound,
            E::Invalid(_) => Exit::Usage,
            E::Rule(_) | E::Cluster(_) => Exit::Failed,
            E::Incomplete(_) => Exit::NotComplete,
            E::Repository(e) => return Failure::from(e.clone()),
            E::Cancelled => Exit::Interrupted,
        };
        Failure::new(exit, error.to_string())
    }
}

impl From<source::files::Error> for Failure {
    fn from(error: source::files::Error) -> Failure {
        use source::files::Error as E;
        use std::io::ErrorKind as K;
        let exit = match &error {
            E::Repo(e) => return Failure::from(e.clone()),
            E::Root { source, .. } | E::Target { source, .. } => match source.kind() {
                K::NotFound => Exit::NotFound,
                K::PermissionDenied => Exit::Denied,
                K::NotADirectory | K::AlreadyExists => Exit::Refused,
                K::StorageFull | K::QuotaExceeded | K::ReadOnlyFilesystem => Exit::NoSpace,
                _ => Exit::Failed,
            },
            E::RootKind { .. } => Exit::Usage,
            E::Refused { .. } => Exit::Damaged,
            E::NoSuchPath { .. } => Exit::NotFound,
            E::NotEmpty { .. } => Exit::Refused,
            E::NoSpace { .. } | E::ReadOnly { .. } => Exit::NoSpace,
            E::CutShort { .. } => Exit::Failed,
        };
        Failure::new(exit, error.to_string())
    }
}
