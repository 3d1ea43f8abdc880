//! CronJob: makes Jobs on a schedule.

use super::{Hold, KindInfo, Order, PLAIN};

/// CronJob.
pub static KIND: KindInfo = KindInfo {
    group: "batch",
    kind: "CronJob",
    order: Order::Workload,
    pod_spec: Some("/spec/jobTemplate/spec/template/spec"),
    strip: &[
        "/spec/jobTemplate/metadata/creationTimestamp",
        "/spec/jobTemplate/spec/template/metadata/creationTimestamp",
    ],
    hold: Some(Hold::True("/spec/suspend")),
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn its_pods_references_are_its_own() {
        let nightly = json!({"apiVersion":"batch/v1beta1","kind":"CronJob","metadata":{"namespace":"n","name":"a"},
            "spec":{"jobTemplate":{"spec":{"template":{"spec":{"serviceAccountName":"r"}}}}}});
        assert_eq!(
            refs(&nightly),
            ["ServiceAccount n/r service_account /spec/jobTemplate/spec/template/spec/serviceAccountName"]
        );
    }
}
