//! Job: work that ends. One that has ended is evidence; running a migration twice would not be a restore.

use serde_json::Value;

use super::{Hold, Keep, KindInfo, Lookup, Order, PLAIN, Readiness};
use crate::clean::{remove, remove_if_empty};
use crate::object::Object;

/// Job.
pub static KIND: KindInfo = KindInfo {
    group: "batch",
    kind: "Job",
    order: Order::Workload,
    pod_spec: Some("/spec/template/spec"),
    strip: &[
        "/spec/template/metadata/creationTimestamp",
        "/metadata/annotations/batch.kubernetes.io~1job-tracking",
    ],
    clean: Some(clean),
    keep,
    ready,
    hold: Some(Hold::True("/spec/suspend")),
    ..PLAIN
};

/// The controller ties a Job to its pods by its UID; a new Job gets a new one, and refuses the old.
fn clean(original: &Object, job: &mut Value) {
    if original.at("/spec/manualSelector").and_then(Value::as_bool).unwrap_or(false) {
        return;
    }
    remove(job, "/spec/selector");
    for at in ["/metadata/labels", "/spec/template/metadata/labels"] {
        for label in [
            "controller-uid",
            "job-name",
            "batch.kubernetes.io~1controller-uid",
            "batch.kubernetes.io~1job-name",
        ] {
            remove(job, &format!("{at}/{label}"));
        }
        remove_if_empty(job, at);
    }
}

fn ended(job: &Value) -> Option<(bool, &str)> {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array)?;
    conditions.iter().filter(|c| c["status"] == "True").find_map(|c| match c["type"].as_str() {
        Some("Complete") => Some((true, "")),
        Some("Failed") => Some((false, c["message"].as_str().unwrap_or("it failed"))),
        _ => None,
    })
}

fn keep(job: &Object, _: Lookup<'_>) -> Keep {
    match ended(&job.0) {
        Some(_) => Keep::Evidence("it has ended; restoring it would run it again"),
        None => Keep::Yes,
    }
}

fn ready(job: &Value) -> Readiness {
    match ended(job) {
        Some((true, _)) => Readiness::Ready,
        Some((false, why)) => Readiness::Failed(why.to_owned()),
        // A running Job is doing what it is there for.
        None if job.pointer("/status/active").and_then(Value::as_i64).unwrap_or(0) > 0 => Readiness::Ready,
        None if job.pointer("/spec/suspend").and_then(Value::as_bool).unwrap_or(false) => Readiness::Ready,
        None => Readiness::Waiting("no pod of it has started".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cleaned, kept};
    use serde_json::json;

    fn job(spec: Value, status: Value) -> Value {
        json!({"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"j","namespace":"n","labels":{"job-name":"j","controller-uid":"u"}},"spec":spec,"status":status})
    }

    #[test]
    fn the_tie_to_its_old_pods_is_cut_unless_its_author_chose_it() {
        let tied = json!({"selector":{"matchLabels":{"controller-uid":"u"}},"template":{"metadata":{"labels":{
            "app":"x","controller-uid":"u","batch.kubernetes.io/controller-uid":"u","job-name":"j","batch.kubernetes.io/job-name":"j"}}}});
        let clean = cleaned(&job(tied.clone(), json!({})));
        assert_eq!(clean["spec"], json!({"template":{"metadata":{"labels":{"app":"x"}}}}));
        assert_eq!(clean["metadata"], json!({"name":"j","namespace":"n"}));
        let mut manual = tied;
        manual["manualSelector"] = json!(true);
        assert_eq!(cleaned(&job(manual.clone(), json!({})))["spec"], manual);
    }

    #[test]
    fn one_that_has_ended_is_evidence() {
        for (kind, status, evidence) in [
            ("Complete", "True", true),
            ("Failed", "True", true),
            ("Suspended", "True", false),
            ("Complete", "False", false),
        ] {
            let it = kept(&job(json!({}), json!({"conditions":[{"type":kind,"status":status}]})));
            assert_eq!(matches!(it, Keep::Evidence(_)), evidence, "{kind} {status}");
        }
    }
}
