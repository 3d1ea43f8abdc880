//! What a restore did: every object, every volume, every finding, and how long each wave took.

use repo::{Finding, Severity};
use serde::Serialize;

use super::Left;
use crate::object::ObjectKey;

/// What was done with one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// Made.
    Created,
    /// Changed, or deleted and made again.
    Updated,
    /// Was as it should be; nothing was written.
    Unchanged,
    /// Left as it was.
    Skipped,
    /// Could not be done.
    Failed,
}

/// One object's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectResult {
    /// Which object, on the target.
    pub key: ObjectKey,
    /// What was done.
    pub done: Done,
    /// Why, where it needs saying.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One volume's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeResult {
    /// The claim on the target.
    pub claim: ObjectKey,
    /// Whether its data was written, wholly.
    pub restored: bool,
    /// Bytes written.
    pub bytes: u64,
    /// Files written.
    pub files: u64,
    /// Where to, or why not.
    pub message: String,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// One wave's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaveResult {
    /// The class of its kinds.
    pub stage: String,
    /// How many objects.
    pub objects: usize,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The application.
    pub application: String,
    /// Number made.
    pub created: usize,
    /// Number changed.
    pub updated: usize,
    /// Number found as they should be.
    pub unchanged: usize,
    /// Number left as they were.
    pub skipped: usize,
    /// Number that could not be done.
    pub failed: usize,
    /// Somebody pressed stop; what is not in `objects` was not tried.
    pub cancelled: bool,
    /// Every object, in the order it was done.
    pub objects: Vec<ObjectResult>,
    /// Every volume of the plan.
    pub volumes: Vec<VolumeResult>,
    /// What the plan left out.
    pub left: Vec<Left>,
    /// The plan's findings and those made on the way.
    pub findings: Vec<Finding>,
    /// Time of each wave.
    pub waves: Vec<WaveResult>,
    /// Time of everything, in milliseconds.
    pub milliseconds: u64,
}

impl Report {
    pub(super) fn add(&mut self, result: ObjectResult) {
        *match result.done {
            Done::Created => &mut self.created,
            Done::Updated => &mut self.updated,
            Done::Unchanged => &mut self.unchanged,
            Done::Skipped => &mut self.skipped,
            Done::Failed => &mut self.failed,
        } += 1;
        if result.done == Done::Failed {
            self.findings.push(Finding::error(
                "not-restored",
                result.key.to_string(),
                result.message.clone(),
            ));
        }
        self.objects.push(result);
    }

    /// Whether everything the plan promised was done, and nothing is missing.
    pub fn is_complete(&self) -> bool {
        !self.cancelled && self.failed == 0 && !self.findings.iter().any(|f| f.severity == Severity::Error)
    }
}
