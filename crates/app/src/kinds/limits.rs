//! ResourceQuota and LimitRange: before what they count, so that defaults are filled in as they were.

use super::{KindInfo, Order, PLAIN};

/// ResourceQuota.
pub static QUOTA: KindInfo = KindInfo { kind: "ResourceQuota", order: Order::Limit, ..PLAIN };
/// LimitRange.
pub static RANGE: KindInfo = KindInfo { kind: "LimitRange", order: Order::Limit, ..PLAIN };
