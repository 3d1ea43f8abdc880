//! Rule: pre and post steps around a cut, in the language of `backup --rule`.
//!
//! `app::rules` reads what stands here, strictly, and has the last word.

use crate::condition::{Condition, conditions};
use crate::definitions::{Column, Kind};
use crate::forms::{duration, label, words};
use crate::schema::{Rule as Says, Schema, choice, count, flag, list, object, one_of, record};
use crate::shared::Selector;

object! {
    /// What is run in the pods around a cut.
    RuleSpec {
        hold: Option<String> = duration("100ms", "60s", "5s"), "How long anything is held at most.";
        #[serde(default)]
        pre: Vec<Step> = list(record::<Step>(), 32), "Before the cut, in this order.";
        #[serde(default)]
        post: Vec<Step> = list(late(), 32), "After the cut.";
        #[serde(default)]
        restore: Vec<Step> = list(late(), 32), "After a restore, when the pod is ready.";
    }
    rules [Says::new(
        "(has(self.pre) && self.pre.size() > 0) || (has(self.post) && self.post.size() > 0) || (has(self.restore) && self.restore.size() > 0)",
        "a rule without steps does nothing: write pre, post or restore",
    )]
}

/// A step that is not before the cut.
fn late() -> Schema<Option<Step>> {
    record::<Step>().rule(Says::new("!has(self.lock)", "a lock stands before the cut: move it to pre"))
}

choice! {
    /// What happens when a command fails.
    OnError {
        Fail = "Fail", "The point fails; everything held is released first.";
        Continue = "Continue", "It is told, and the level of what it would have held is weaker.";
    }
}

object! {
    /// A lock, and what lets it go.
    StepLock {
        command: String = words(4096).required(), "Locks; a line for sh. With ${WAIT_CMD} it holds while that runs.";
        release: Option<String> = words(4096), "Lets go; a line for sh.";
    }
    rules [Says::new(
        "has(self.release) != self.command.contains('${WAIT_CMD}')",
        "how is it released? write release, or ${WAIT_CMD} into the command: one of them",
    )]
}

object! {
    /// What is run in which pods.
    Step {
        pod_selector: Selector = record::<Selector>().rule(Says::new(
            "(has(self.matchLabels) && self.matchLabels.size() > 0) || (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
            "selects no pod: write podSelector: {matchLabels: {app: db}}")).required(),
            "In which pods of the application.";
        container: Option<String> = label(), "In which container; by default the pod's default one.";
        user: Option<String> = words(64), "As which user, by su; the container's user has to be root.";
        #[serde(default)]
        command: Vec<String> = list(words(4096), 64).some(), "A command and its arguments, run as they are.";
        shell: Option<String> = words(4096), "A line for sh.";
        lock: Option<StepLock> = record(), "A lock that is held over the cut.";
        timeout: String = duration("100ms", "1h", "30s").default("30s"), "How long it may take.";
        on_error: OnError = one_of().default("Fail"), "What happens if it fails.";
        single_pod: bool = flag().default(false), "In the first of the pods only.";
    }
    rules [Says::new(
        "[has(self.command), has(self.shell), has(self.lock)].filter(x, x).size() == 1",
        "a step has command, shell or lock: one of them",
    )]
}

object! {
    /// How many steps.
    StepCounts {
        pre: Option<u64> = count(), "Before the cut.";
        post: Option<u64> = count(), "After the cut.";
        restore: Option<u64> = count(), "After a restore.";
    }
}

object! {
    /// What is seen of a rule.
    RuleStatus {
        steps: Option<StepCounts> = record(), "How many steps it has.";
        #[serde(default)]
        conditions: Vec<Condition> = conditions(), "Accepted.";
    }
}

/// The kind Rule.
pub struct Rule;

impl Kind for Rule {
    const KIND: &'static str = "Rule";
    const PLURAL: &'static str = "rules";
    const SHORT: &'static str = "hfrule";
    const ABOUT: &'static str = "Pre and post steps around a cut, and steps after a restore.";
    type Spec = RuleSpec;
    type Status = RuleStatus;

    #[rustfmt::skip] // A column a line reads as the table it is.
    fn columns() -> Vec<Column> {
        vec![
            Column::text("Hold", ".spec.hold"),
            Column::number("Pre", ".status.steps.pre"),
            Column::number("Post", ".status.steps.post"),
            Column::condition("Accepted"),
        ]
    }
}
