//! What long work tells while it runs, and what it found when it is done.

use serde::Serialize;

/// Someone who watches. `()` does not care.
pub trait Progress: Sync {
    /// So much more has been done.
    fn add(&self, files: u64, bytes: u64) {
        let _ = (files, bytes);
    }
    /// So much there is in all, as far as known now.
    fn total(&self, files: u64, bytes: u64) {
        let _ = (files, bytes);
    }
    /// What is being done now.
    fn note(&self, text: &str) {
        let _ = text;
    }
}

impl Progress for () {}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Not as it should be; nothing is lost.
    Warning,
    /// Something is missing or damaged.
    Error,
}

/// One thing that was not as expected. It did not end the work, and is never lost in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// A stable word for programs, such as `segment-damaged`.
    pub code: &'static str,
    /// To what: a path, a key, an object.
    pub what: String,
    /// What happened and what to do next.
    pub message: String,
}

impl Finding {
    /// One of any severity.
    pub fn new(
        severity: Severity,
        code: &'static str,
        what: impl Into<String>,
        message: impl Into<String>,
    ) -> Finding {
        Finding { severity, code, what: what.into(), message: message.into() }
    }

    /// One of severity [`Severity::Note`].
    pub fn note(code: &'static str, what: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Note, code, what, message)
    }

    /// One of severity [`Severity::Warning`].
    pub fn warning(code: &'static str, what: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Warning, code, what, message)
    }

    /// One of severity [`Severity::Error`].
    pub fn error(code: &'static str, what: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Error, code, what, message)
    }
}

/// What was done, and what was found on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome<T> {
    /// The result.
    pub done: T,
    /// One bad thing does not end work over many: here it is.
    pub findings: Vec<Finding>,
}

impl<T> Outcome<T> {
    /// A result without findings.
    pub fn clean(done: T) -> Outcome<T> {
        Outcome { done, findings: Vec::new() }
    }

    /// The worst severity met.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// What a writer has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Chunks that were not in the repository.
    pub chunks_new: u64,
    /// Chunks that were there already, from before or from this write.
    pub chunks_reused: u64,
    /// Plain bytes handed in.
    pub bytes_read: u64,
    /// Plain bytes of new chunks.
    pub bytes_new_plain: u64,
    /// Bytes of packs written, as they lie in the store.
    pub bytes_stored: u64,
    /// Packs written.
    pub packs: u64,
}

impl Counts {
    /// Adds what another writer has done.
    pub fn add(&mut self, other: &Counts) {
        self.chunks_new += other.chunks_new;
        self.chunks_reused += other.chunks_reused;
        self.bytes_read += other.bytes_read;
        self.bytes_new_plain += other.bytes_new_plain;
        self.bytes_stored += other.bytes_stored;
        self.packs += other.packs;
    }
}
