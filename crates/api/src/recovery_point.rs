//! RecoveryPoint: one recovery point, asked for, under way, or there.

use serde_json::Value;

use crate::condition::{Condition, conditions};
use crate::definitions::{Column, Kind};
use crate::forms::{commit, name, words};
use crate::schema::{Rule, any, choice, count, flag, list, object, one_of, record, text, time};
use crate::shared::{Consistency, Ref};
use crate::work::{Created, StepLog};

/// What was asked for once cannot be taken back.
pub(crate) fn once() -> crate::schema::Schema<bool> {
    flag().rule(Rule::new("!oldSelf || self", "this cannot be taken back: leave it true")).default(false)
}

choice! {
    /// Why a point was taken.
    Reason {
        Manual = "Manual", "Somebody asked for it.";
        Schedule = "Schedule", "It was due.";
        Trigger = "Trigger", "The application's trigger changed.";
        Undo = "Undo", "Before a restore overwrote something.";
        Discovered = "Discovered", "It was there already.";
    }
}

object! {
    /// A point that is asked for (application), or that is there (commit).
    RecoveryPointSpec {
        application: Option<String> = name(), "An Application of this namespace to take a point of.";
        repository: Option<Ref> = record(), "Where it goes or lies; by default where the application says.";
        commit: Option<String> = commit(64), "The commit of a point that is there.";
        reason: Reason = one_of().default("Manual"), "Why it was taken.";
        schedule: Option<Run> = record(), "Which run of a schedule.";
        cancel: bool = once(), "Stops a point under way.";
        hold: Option<Hold> = record(), "Keeps it, whatever a policy says.";
        populate: bool = flag().default(false), "Claims of this namespace may be filled from it.";
        erase: bool = once(), "Deletes the data.";
        service_account_name: Option<String> = name(), "In whose name it is taken; an account of this namespace.";
    }
    rules [
        Rule::new(
            "has(self.application) != has(self.commit)",
            "name an application to take a point of, or the commit of a point that is there",
        ),
        Rule::frozen::<RecoveryPointSpec>(
            &["cancel", "hold", "populate", "erase"],
            "make another RecoveryPoint: this one says what was asked for; only cancel, hold, populate and erase may change",
        ),
    ]
}

object! {
    /// Which run of a schedule.
    Run {
        name: String = words(32).required(), "Which schedule.";
        at: String = time().required(), "When it was due.";
    }
}

object! {
    /// Keeps a point, whatever a policy says.
    Hold {
        reason: String = words(1024).required(), "Why.";
        until: Option<String> = time(), "Until when; by default until it is taken away.";
    }
}

choice! {
    /// How far a point is.
    PointPhase {
        Pending = "Pending", "It waits.";
        Running = "Running", "It is being taken.";
        Ready = "Ready", "It is there.";
        Failed = "Failed", "It will not come.";
        Cancelled = "Cancelled", "It was stopped.";
        Erasing = "Erasing", "Its data is being deleted.";
    }
}

object! {
    /// How much is done.
    Progress {
        bytes: Option<u64> = count(), "Bytes read.";
        bytes_total: Option<u64> = count(), "Bytes there are.";
        files: Option<u64> = count(), "Files read.";
        rate: Option<u64> = count(), "Bytes a second.";
    }
}

object! {
    /// What a point holds, in numbers.
    Figures {
        objects: Option<u64> = count(), "Objects.";
        volumes: Option<u64> = count(), "Volumes.";
        bytes: Option<u64> = count(), "Bytes in volumes.";
        bytes_stored: Option<u64> = count(), "Bytes that were new to the repository.";
        missing: Option<u64> = count(), "What is missing.";
    }
}

choice! {
    /// How far a volume is.
    VolumeState {
        Waiting = "Waiting", "It waits.";
        Held = "Held", "It is frozen.";
        Copying = "Copying", "Its bytes are on their way.";
        Done = "Done", "It is done.";
        Failed = "Failed", "It failed.";
    }
}

object! {
    /// How far a volume is.
    VolumeProgress {
        claim: String = text(317).required(), "Which claim.";
        node: Option<String> = text(253), "On which node.";
        means: Option<String> = text(64), "How it is cut.";
        level: Option<Consistency> = one_of(), "How consistent it is.";
        state: VolumeState = one_of().required(), "How far it is.";
        bytes: Option<u64> = count(), "Bytes it has.";
        bytes_done: Option<u64> = count(), "Bytes that are done.";
        message: Option<String> = text(1024), "What happened, and what to do.";
    }
}

object! {
    /// A second copy.
    CopyState {
        repository: Ref = record().required(), "Where it is.";
        commit: Option<String> = text(64), "Its commit.";
        time: Option<String> = time(), "When it was made.";
    }
}

object! {
    /// What is seen of a point.
    RecoveryPointStatus {
        phase: Option<PointPhase> = one_of(), "How far it is.";
        application: Option<String> = text(253), "Of which application.";
        commit: Option<String> = text(64), "Its commit.";
        time: Option<String> = time(), "The instant it shows.";
        consistency: Option<Consistency> = one_of(), "How consistent it is.";
        complete: Option<bool> = flag(), "Whether anything is missing.";
        attempt: Option<u64> = count(), "Which attempt.";
        progress: Option<Progress> = record(), "How much is done.";
        figures: Option<Figures> = record(), "What it holds.";
        #[serde(default)]
        volumes: Vec<VolumeProgress> = list(record::<VolumeProgress>(), 1000), "How far each volume is; beyond 1,000 summed up.";
        #[serde(default)]
        missing: Vec<String> = list(text(1024), 20), "What is missing; the first 20.";
        #[serde(default)]
        steps: Vec<StepLog> = list(record::<StepLog>(), 64), "What was begun.";
        #[serde(default)]
        created: Vec<Created> = list(record::<Created>(), 4096), "What was made outside of this object.";
        cluster: Option<String> = text(253), "The cluster it was taken in.";
        #[serde(default)]
        copies: Vec<CopyState> = list(record::<CopyState>(), 4), "Second copies.";
        started_at: Option<String> = time(), "When it was begun.";
        finished_at: Option<String> = time(), "When it ended.";
        accepted: Option<Value> = any(), "The spec that was accepted, for what may never change.";
        #[serde(default)]
        conditions: Vec<Condition> = conditions(), "Accepted, Authorized, Ready, Complete, Consistent, Copied, Held.";
    }
}

/// The kind RecoveryPoint.
pub struct RecoveryPoint;

impl Kind for RecoveryPoint {
    const KIND: &'static str = "RecoveryPoint";
    const PLURAL: &'static str = "recoverypoints";
    const SHORT: &'static str = "hfrp";
    const ABOUT: &'static str = "One recovery point: asked for, under way, or there. Deleting the object deletes no data; spec.erase does.";
    type Spec = RecoveryPointSpec;
    type Status = RecoveryPointStatus;

    #[rustfmt::skip] // A column a line reads as the table it is.
    fn columns() -> Vec<Column> {
        vec![
            Column::text("Application", ".status.application"),
            Column::text("Phase", ".status.phase"),
            Column::age("Time", ".status.time"),
            Column::text("Consistency", ".status.consistency"),
            Column::flag("Complete", ".status.complete"),
            Column::number("Size", ".status.figures.bytes"),
            Column::text("Cluster", ".status.cluster").wide(),
            Column::text("Commit", ".status.commit").wide(),
        ]
    }
}
