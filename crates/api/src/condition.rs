//! Conditions, as Kubernetes has them.

use crate::schema::{Schema, choice, count, list, object, one_of, record, text, time};

choice! {
    /// Whether a condition holds.
    Truth {
        True = "True", "It does.";
        False = "False", "It does not; the message says what to do.";
        Unknown = "Unknown", "Nobody knows yet, or the question does not arise.";
    }
}

object! {
    /// What can be said of an object, and since when.
    Condition {
        r#type: String = text(316).required(), "What.";
        status: Truth = one_of().required(), "Whether it is so.";
        observed_generation: Option<u64> = count(), "Of which generation of the object.";
        last_transition_time: String = time().required(), "Since when.";
        reason: String = text(1024).required(), "Why, in a word.";
        message: String = text(32_768).required(), "Why, in a sentence; if something is wrong, what to do.";
    }
}

/// An object's conditions.
pub(crate) fn conditions() -> Schema<Vec<Condition>> {
    list(record::<Condition>(), 16).keyed("type")
}
