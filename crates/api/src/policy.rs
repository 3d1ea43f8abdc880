//! Policy: schedules, RPO, retention, second copies, rules.

use std::collections::BTreeMap;

use crate::condition::{Condition, conditions};
use crate::definitions::{Column, Kind};
use crate::forms::{cron, duration, http, name, time_zone};
use crate::schema::{Rule, choice, count, filled, flag, int, list, map, object, one_of, record, text, time};
use crate::shared::{AllowedNamespaces, Consistency, Freeze, Ref, Retention, Selector, UsedRule};

object! {
    /// What a policy asks for.
    PolicySpec {
        repository: Ref = record().required(), "Where points go; it has to allow the application's namespace.";
        allowed_namespaces: AllowedNamespaces = filled(), "Which namespaces may use this policy.";
        #[serde(default)]
        schedules: Vec<Schedule> = list(record::<Schedule>(), 8).keyed("name"), "When points are taken; none: only by hand.";
        suspend: bool = flag().default(false), "Schedules rest.";
        rpo: Option<String> = duration("1m", "8784h", "2h"), "How old the newest point may be before the application counts as unprotected.";
        retention: Option<Retention> = record(), "Which points stay; without it all do.";
        #[serde(default)]
        copies: Vec<SecondCopy> = list(record::<SecondCopy>(), 4), "Where second copies go.";
        #[serde(default)]
        rules: Vec<UsedRule> = list(record::<UsedRule>(), 16), "What is run in the pods around a cut.";
        pod_hooks: bool = flag().default(true), "Whether Velero's annotations on pods are heeded.";
        freeze: Freeze = one_of().default("Auto"), "What the group lock does beyond rules.";
        hold: String = duration("100ms", "60s", "5s").default("5s"), "How long anything is held at most, where a rule does not say.";
        at_least: Consistency = one_of().default("Fuzzy"), "A weaker point is tried again, then committed and told.";
        require_complete: bool = flag().default(false), "No point with a gap is committed.";
        snapshots: Snapshots = one_of().default("Auto"), "Whether the driver's snapshots are used.";
        #[serde(default)]
        snapshot_classes: BTreeMap<String, String> = map(text(253), 16), "Which class of snapshots, by driver.";
        volumes: Option<Volumes> = record(), "Which claims; by default all.";
        retries: u32 = int(0, 10).default(3), "How often a point that failed is tried again.";
        #[serde(default)]
        notify: Vec<Notify> = list(record::<Notify>(), 8), "Who is told, by CloudEvents.";
        service_account_name: Option<String> = name(), "In whose name applications are read; an account of the application's namespace.";
    }
    rules [Rule::new(
        // Objects as a whole have no bounded cost in a comparison, texts have.
        "!has(self.copies) || self.copies.all(c, c.repository.name != self.repository.name || \
         (has(c.repository.__namespace__) ? c.repository.__namespace__ : '') != \
         (has(self.repository.__namespace__) ? self.repository.__namespace__ : ''))",
        "a copy goes to another repository than the policy's",
    )]
}

object! {
    /// When points are taken.
    Schedule {
        name: String = text(32).rule(Rule::new(
            "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "name a schedule with small letters, digits and -, such as hourly"))
            .required(), "Its name.";
        cron: String = cron().required(), "Minute, hour, day, month, weekday; or @hourly and so on.";
        time_zone: String = time_zone().default("UTC"), "In which time zone.";
        jitter: String = duration("0s", "12h", "5m").default("0s"), "Over how long the applications are spread; at most half the time between two runs.";
        catch_up_within: String = duration("0s", "744h", "24h").default("24h"), "A run that was missed is caught up within this time, once.";
    }
}

object! {
    /// A second copy of each point.
    SecondCopy {
        repository: Ref = record().required(), "Where to.";
        retention: Option<Retention> = record(), "Which copies stay; without it all do.";
        after: String = duration("0s", "744h", "1h").default("0s"), "How long after the point.";
    }
}

choice! {
    /// Whether the driver's snapshots are used.
    Snapshots {
        Auto = "Auto", "Where the driver offers them.";
        Never = "Never", "Nowhere.";
        Require = "Require", "A volume without is a failure.";
    }
}

object! {
    /// Which claims.
    Volumes {
        include: Option<Selector> = record(), "Only these.";
        exclude: Option<Selector> = record(), "Not these.";
    }
}

choice! {
    /// What is told.
    NotifyOn {
        Failed = "Failed", "A point failed.";
        Incomplete = "Incomplete", "A point has a gap.";
        RpoMissed = "RpoMissed", "The newest point is too old.";
        Succeeded = "Succeeded", "A point is there.";
        Denied = "Denied", "Somebody may not do what was asked.";
    }
}

object! {
    /// Who is told of what.
    Notify {
        url: String = http().required(), "Where to.";
        secret: Option<String> = name(), "A Secret whose member `token` is sent along.";
        #[serde(default)]
        on: Vec<NotifyOn> = list(one_of::<NotifyOn>(), 5).set(), "Of what; by default Failed, Incomplete, RpoMissed and Denied.";
    }
}

object! {
    /// What is seen of a policy.
    PolicyStatus {
        applications: Option<u64> = count(), "How many applications it has.";
        next_run: Option<String> = time(), "When the next point is due.";
        #[serde(default)]
        conditions: Vec<Condition> = conditions(), "Accepted.";
    }
}

/// The kind Policy.
pub struct Policy;

impl Kind for Policy {
    const KIND: &'static str = "Policy";
    const PLURAL: &'static str = "policies";
    const SHORT: &'static str = "hfpol";
    const ABOUT: &'static str = "Schedules, RPO, retention, second copies and rules; used by Applications, or by the label \
         holdfast.dev/policy on a namespace or workload.";
    type Spec = PolicySpec;
    type Status = PolicyStatus;

    #[rustfmt::skip] // A column a line reads as the table it is.
    fn columns() -> Vec<Column> {
        vec![
            Column::text("Repository", ".spec.repository.name"),
            Column::text("RPO", ".spec.rpo"),
            Column::text("Schedule", ".spec.schedules[0].cron"),
            Column::number("Apps", ".status.applications"),
            Column::flag("Suspended", ".spec.suspend"),
        ]
    }
}
