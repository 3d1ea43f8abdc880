//! Application: what is protected as one unit, and how well it is.

use crate::condition::{Condition, conditions};
use crate::definitions::{Column, Kind};
use crate::forms::{duration, name, words};
use crate::schema::{Rule, count, flag, list, object, one_of, record, text, time};
use crate::shared::{Consistency, Freeze, Recipe, Ref, UsedRule};

object! {
    /// What is protected as one unit.
    ApplicationSpec {
        policy: Option<Ref> = record(), "Its policy; without one points are taken by hand only.";
        repository: Option<Ref> = record(), "Where points go; by default where the policy says.";
        selection: Option<Selection> = record(), "What belongs to it; by default the discovered application of this name.";
        #[serde(default)]
        rules: Vec<UsedRule> = list(record::<UsedRule>(), 16), "What is run in the pods around a cut; in place of the policy's.";
        hold: Option<String> = duration("100ms", "60s", "5s"), "How long anything is held at most; in place of the policy's.";
        freeze: Option<Freeze> = one_of(), "What the group lock does beyond rules; in place of the policy's.";
        at_least: Option<Consistency> = one_of(), "How consistent points are to be; in place of the policy's.";
        trigger: Option<String> = text(64), "A new value takes a point now.";
        suspend: bool = flag().default(false), "Schedules rest.";
        service_account_name: Option<String> = name(), "In whose name it is read; an account of this namespace.";
    }
    rules [Rule::new("has(self.policy) || has(self.repository)", "name a policy, or a repository for points by hand")]
}

object! {
    /// What belongs to an application.
    Selection {
        application: Option<String> = words(253), "A discovered application, as `holdfast discover` names it.";
        #[serde(default)]
        namespaces: Vec<String> = list(words(63), 64), "Namespaces, by name or pattern; by default its own.";
        labels: Option<String> = words(1024), "Objects with these labels, as kubectl -l has it.";
        whole: bool = flag().default(false), "Everything in the namespaces.";
        #[serde(default)]
        include_kinds: Vec<String> = list(words(253), 64), "Only these kinds.";
        #[serde(default)]
        exclude_kinds: Vec<String> = list(words(253), 64), "Not these kinds.";
        #[serde(default)]
        exclude_names: Vec<String> = list(words(317), 64), "Not these objects.";
    }
    rules [Rule::new(
        "[has(self.application), has(self.labels), self.whole].filter(x, x).size() <= 1",
        "select by application, by labels, or whole: one of them",
    )]
}

object! {
    /// The newest point.
    LastPoint {
        name: Option<String> = text(253), "The name of its object.";
        commit: Option<String> = text(64), "Its commit.";
        time: Option<String> = time(), "The instant it shows.";
        consistency: Option<Consistency> = one_of(), "How consistent it is.";
        complete: Option<bool> = flag(), "Whether anything is missing.";
    }
}

object! {
    /// The last failure.
    LastFailure {
        time: Option<String> = time(), "When.";
        message: Option<String> = text(4096), "What happened, and what to do.";
    }
}

object! {
    /// How old the newest point may be.
    Rpo {
        objective: Option<String> = text(32), "What was asked for.";
        since: Option<String> = time(), "Since when it is met, or missed.";
    }
}

object! {
    /// How far a schedule is.
    ScheduleState {
        name: String = text(32).required(), "Which schedule.";
        considered: Option<String> = time(), "The last run that was considered.";
        next: Option<String> = time(), "The next run.";
    }
}

object! {
    /// What belongs to it, in numbers.
    Members {
        objects: Option<u64> = count(), "Objects.";
        claims: Option<u64> = count(), "Claims.";
        bytes: Option<u64> = count(), "Bytes in volumes.";
    }
}

object! {
    /// What is seen of an application.
    ApplicationStatus {
        points: Option<u64> = count(), "How many points there are.";
        last_point: Option<LastPoint> = record(), "The newest point.";
        last_failure: Option<LastFailure> = record(), "The last failure.";
        rpo: Option<Rpo> = record(), "How old the newest point may be.";
        #[serde(default)]
        schedules: Vec<ScheduleState> = list(record::<ScheduleState>(), 8).keyed("name"), "How far each schedule is.";
        trigger: Option<String> = text(64), "The last trigger that was heeded.";
        members: Option<Members> = record(), "What belongs to it.";
        #[serde(default)]
        recipes: Vec<Recipe> = list(one_of::<Recipe>(), 9), "Recipes for what was found; used only when named.";
        #[serde(default)]
        unprotected: Vec<String> = list(text(1024), 20), "What is not protected, and why.";
        unprotected_count: Option<u64> = count(), "How much is not protected.";
        repository: Option<Ref> = record(), "Where points go.";
        #[serde(default)]
        conditions: Vec<Condition> = conditions(), "Accepted, Authorized, Protected, Complete, Consistent, Scheduled.";
    }
}

/// The kind Application.
pub struct Application;

impl Kind for Application {
    const KIND: &'static str = "Application";
    const PLURAL: &'static str = "applications";
    const SHORT: &'static str = "hfapp";
    const ABOUT: &'static str = "What is protected as one unit, by which policy, and how well it is.";
    type Spec = ApplicationSpec;
    type Status = ApplicationStatus;

    #[rustfmt::skip] // A column a line reads as the table it is.
    fn columns() -> Vec<Column> {
        vec![
            Column::text("Policy", ".spec.policy.name"),
            Column::condition("Protected"),
            Column::age("Last", ".status.lastPoint.time"),
            Column::text("Consistency", ".status.lastPoint.consistency"),
            Column::condition("Complete"),
            Column::number("Points", ".status.points"),
            Column::text("Next", ".status.schedules[0].next"),
        ]
    }
}
