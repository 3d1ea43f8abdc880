//! What a point and a restore have in common: steps that were begun, and what was made outside of the object.
//!
//! The operator has nothing of it in memory only: whoever comes next reads it here (`docs/operator.md`, the step log).

use crate::schema::{choice, count, object, one_of, text, time};

choice! {
    /// How far a step is.
    StepState {
        Started = "Started", "Begun; its effects may be there in part.";
        Done = "Done", "All its effects are there.";
        Failed = "Failed", "Given up.";
    }
}

object! {
    /// A step, written before its first effect.
    StepLog {
        name: String = text(64).required(), "Which step.";
        state: StepState = one_of().required(), "How far it is.";
        attempt: Option<u64> = count(), "Which attempt.";
        term: Option<u64> = count(), "Which leader began it.";
        at: String = time().required(), "Since when.";
        detail: Option<String> = text(4096), "What later steps need of it.";
    }
}

choice! {
    /// Whether something that was to be made is there.
    CreatedState {
        Planned = "Planned", "It will be made.";
        There = "There", "It is there.";
        Gone = "Gone", "It was removed.";
    }
}

object! {
    /// Something made outside of the object, written before it is made.
    Created {
        kind: String = text(253).required(), "Of which kind.";
        namespace: Option<String> = text(63), "In which namespace.";
        name: String = text(253).required(), "Its name, which follows from the object's UID and the step.";
        uid: Option<String> = text(64), "Its UID, once it is there.";
        why: Option<String> = text(1024), "What for.";
        state: CreatedState = one_of().required(), "Whether it is there.";
    }
}
