//! Restore: one restore, planned, perhaps approved, done.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::condition::{Condition, conditions};
use crate::definitions::{Column, Kind};
use crate::forms::{commit, duration, label, name, words};
use crate::recovery_point::{VolumeProgress, once};
use crate::schema::{
    Rule, Schema, any, choice, count, flag, foreign, list, map, object, one_of, record, text, time,
};
use crate::shared::{Ref, SecretKey};
use crate::work::{Created, StepLog};

object! {
    /// What is restored, and how.
    RestoreSpec {
        from: RestoreFrom = record().required(), "Which point.";
        only: Option<Only> = record(), "Which of its objects; by default all.";
        mapping: Option<Value> = mapping(), "What is called differently here: the mapping file of the command line.";
        on_conflict: OnConflict = one_of().default("Skip"), "What happens to objects that are there.";
        cluster_scoped: ClusterScoped = one_of().default("Create"), "What happens with objects outside of namespaces.";
        #[serde(default)]
        status: Vec<String> = list(words(253), 64), "Kinds whose status is restored, too.";
        data: Data = one_of().default("New"), "What happens with the data of volumes.";
        undo: Undo = one_of().default("Auto"), "Whether a point is taken of what would be overwritten.";
        quiesce: bool = flag().default(true), "With data: Overwrite, workloads on the claims are scaled to zero first, and back.";
        approval: Approval = one_of().default("None"), "Whether it stops after the plan.";
        approved: Option<String> = text(128), "The digest of the plan that is approved, from status.plan.digest.";
        plan_only: bool = flag().default(false), "Nothing is done but the plan.";
        hooks: bool = flag().default(true), "Whether restore hooks run, ours and Velero's.";
        read_key: Option<SecretKey> = record(), "The key that reads, for a Repository without.";
        wait: String = duration("0s", "24h", "10m").default("10m"), "How long to wait for what was restored to be ready.";
        cancel: bool = once(), "Stops it.";
        ttl_after_finished: Option<String> = duration("1m", "8784h", "168h"), "How long after its end the object goes.";
        service_account_name: Option<String> = name(), "In whose name it is done; an account of this namespace.";
    }
    rules [
        Rule::frozen::<RestoreSpec>(
            &["cancel", "approved", "ttlAfterFinished"],
            "make another Restore: this one says what was done; only cancel, approved and ttlAfterFinished may change",
        ),
        Rule::new(
            "!((self.onConflict in ['Replace', 'Recreate'] || self.data == 'Overwrite') && self.undo == 'Never') || self.approval == 'Required'",
            "what is overwritten without an undo point needs approval: Required",
        ),
    ]
}

/// The mapping file of the command line. `app::transform` reads it, strictly.
fn mapping() -> Schema<Option<Value>> {
    let names = |about: &str| {
        let mut json = map(text(1024), 256).into_json();
        json["description"] = json!(about);
        json
    };
    let patches = |about: &str| {
        let mut json = list(any(), 256).into_json();
        json["description"] = json!(about);
        json
    };
    foreign(json!({
        "namespaces": names("Namespaces, old to new."),
        "storageClasses": names("Storage classes, old to new."),
        "registries": names("Prefixes of images, old to new."),
        "hosts": names("Host names, old to new."),
        "nodes": names("Nodes, old to new."),
        "priorityClasses": names("Priority classes, old to new."),
        "ingressClasses": names("Ingress classes, old to new."),
        "patches": patches("Patches of our own."),
        "resourceModifierRules": patches("Velero's resource modifiers."),
        "transformSpecs": patches("Stork's transformations."),
        "serviceNames": {"type": "boolean", "description": "Whether full service names in texts are mapped; by default they are."},
        "clusterDomain": {"type": "string", "maxLength": 253, "description": "The domain of the cluster's services."},
    }))
}

object! {
    /// Which point.
    RestoreFrom {
        recovery_point: Option<Ref> = record(), "A RecoveryPoint.";
        application: Option<FromApplication> = record(), "The newest point of an application, or the one at an instant.";
        commit: Option<FromCommit> = record(), "A commit.";
    }
    rules [Rule::new(
        "[has(self.recoveryPoint), has(self.application), has(self.commit)].filter(x, x).size() == 1",
        "restore from recoveryPoint, application or commit: one of them",
    )]
}

object! {
    /// A point of an application, which need not be there any more.
    FromApplication {
        name: String = words(253).required(), "Which application.";
        namespace: Option<String> = label(), "In which namespace it was.";
        cluster: Option<String> = words(253), "In which cluster it was; by default this one.";
        repository: Ref = record().required(), "Where its points lie.";
        at: Option<String> = time(), "The newest point not after this instant; by default the newest.";
    }
}

object! {
    /// A commit.
    FromCommit {
        id: String = commit(8).required(), "Its id, or the beginning of it.";
        repository: Ref = record().required(), "Where it lies.";
    }
}

object! {
    /// Which objects.
    Only {
        #[serde(default)]
        namespaces: Vec<String> = list(words(63), 64), "Only of these namespaces.";
        #[serde(default)]
        kinds: Vec<String> = list(words(253), 64), "Only of these kinds.";
        #[serde(default)]
        names: Vec<String> = list(words(317), 64), "Only these.";
        labels: Option<String> = words(1024), "Only with these labels, as kubectl -l has it.";
    }
}

choice! {
    /// What happens to objects that are there.
    OnConflict {
        Skip = "Skip", "They stay as they are.";
        Update = "Update", "They become what the point has.";
        Recreate = "Recreate", "They are deleted and made again, where an update is refused.";
        Replace = "Replace", "They are deleted and made again.";
        Fail = "Fail", "Nothing is done at all.";
    }
}

choice! {
    /// What happens with objects outside of namespaces.
    ClusterScoped {
        Create = "Create", "They are made if they are not there.";
        Conflict = "Conflict", "They are treated as onConflict says.";
        Leave = "Leave", "They are left alone.";
    }
}

choice! {
    /// What happens with the data of volumes.
    Data {
        New = "New", "Claims that are made are filled.";
        Overwrite = "Overwrite", "Claims that are there are overwritten, too.";
        Leave = "Leave", "None is written.";
    }
}

choice! {
    /// Whether a point is taken of what would be overwritten.
    Undo {
        Auto = "Auto", "If anything would be.";
        Never = "Never", "Never.";
    }
}

choice! {
    /// Whether a restore stops after the plan.
    Approval {
        None = "None", "It goes on.";
        Required = "Required", "Until spec.approved names the plan.";
    }
}

choice! {
    /// How far a restore is.
    RestorePhase {
        Pending = "Pending", "It waits.";
        Planning = "Planning", "The plan is being made.";
        AwaitingApproval = "AwaitingApproval", "The plan has to be approved.";
        Running = "Running", "It is being done.";
        Done = "Done", "All is done.";
        Incomplete = "Incomplete", "Something could not be done.";
        Failed = "Failed", "Nothing more will be done.";
        Cancelled = "Cancelled", "It was stopped.";
    }
}

object! {
    /// The plan.
    PlanStatus {
        digest: Option<String> = text(128), "What names it.";
        #[serde(default)]
        counts: BTreeMap<String, u64> = map(count(), 32), "What would be done, in numbers.";
        config_map: Option<String> = text(253), "Where it is written down.";
    }
}

object! {
    /// Something that was met.
    FindingStatus {
        severity: String = text(32).required(), "How bad it is.";
        code: String = text(64).required(), "What it is, in a word.";
        what: Option<String> = text(1024), "What it concerns.";
        message: String = text(4096).required(), "What it is, and what to do.";
    }
}

object! {
    /// What is seen of a restore.
    RestoreStatus {
        phase: Option<RestorePhase> = one_of(), "How far it is.";
        from: Option<String> = text(1024), "What is restored.";
        progress: Option<String> = text(256), "How much is done.";
        commit: Option<String> = text(64), "The commit that is restored.";
        plan: Option<PlanStatus> = record(), "The plan.";
        #[serde(default)]
        counts: BTreeMap<String, u64> = map(count(), 32), "What was done, in numbers: created, updated, skipped, failed, volumes.";
        #[serde(default)]
        volumes: Vec<VolumeProgress> = list(record::<VolumeProgress>(), 1000), "How far each volume is.";
        #[serde(default)]
        findings: Vec<FindingStatus> = list(record::<FindingStatus>(), 50), "What was met; the 50 worst.";
        findings_count: Option<u64> = count(), "How much was met.";
        undo: Option<Ref> = record(), "The point of what was overwritten.";
        #[serde(default)]
        steps: Vec<StepLog> = list(record::<StepLog>(), 64), "What was begun.";
        #[serde(default)]
        created: Vec<Created> = list(record::<Created>(), 4096), "What was made outside of this object.";
        started_at: Option<String> = time(), "When it was begun.";
        finished_at: Option<String> = time(), "When it ended.";
        accepted: Option<Value> = any(), "The spec that was accepted, for what may never change.";
        #[serde(default)]
        conditions: Vec<Condition> = conditions(), "Accepted, Authorized, Planned, Approved, DataRestored, Applied, Ready, Complete.";
    }
}

/// The kind Restore.
pub struct Restore;

impl Kind for Restore {
    const KIND: &'static str = "Restore";
    const PLURAL: &'static str = "restores";
    const SHORT: &'static str = "hfrst";
    const ABOUT: &'static str = "One restore: planned, perhaps approved, done.";
    type Spec = RestoreSpec;
    type Status = RestoreStatus;

    #[rustfmt::skip] // A column a line reads as the table it is.
    fn columns() -> Vec<Column> {
        vec![
            Column::text("From", ".status.from"),
            Column::text("Phase", ".status.phase"),
            Column::number("Created", ".status.counts.created"),
            Column::number("Volumes", ".status.counts.volumes"),
            Column::text("Progress", ".status.progress"),
        ]
    }
}
