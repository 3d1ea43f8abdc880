//! PodTemplate: a pod spec on its own shelf.

use super::{KindInfo, Order, PLAIN};

/// PodTemplate.
pub static KIND: KindInfo =
    KindInfo { kind: "PodTemplate", order: Order::Config, pod_spec: Some("/template/spec"), ..PLAIN };
