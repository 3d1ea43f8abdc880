//! Forms of texts that many fields have: names, durations, spans, addresses. Each with the sentence that says how it is written.

use crate::schema::{Rule, Schema, text};

type Text = Schema<Option<String>>;

/// The name of an object.
pub fn name() -> Text {
    text(253).rule(Rule::new(
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "a name has small letters, digits, - and . only, and begins and ends with a letter or digit, such as db-0",
    ))
}

/// The name of a namespace, a container, or another DNS label.
pub fn label() -> Text {
    text(63).rule(Rule::new(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "a name here has small letters, digits and - only, and begins and ends with a letter or digit, such as shop-2",
    ))
}

/// The name of a member of a Secret or ConfigMap.
pub fn member() -> Text {
    text(253).rule(Rule::new(
        "self.matches('^[-._a-zA-Z0-9]+$')",
        "a member of a Secret has letters, digits, -, _ and . only, such as key",
    ))
}

/// A duration between two limits.
pub fn duration(least: &str, most: &str, such_as: &str) -> Text {
    // At most 99999h four times, so that no duration that has the form overflows when it is read.
    text(32).rule(Rule::new(
        format!(
            "self.matches('^([0-9]{{1,5}}(ms|s|m|h)){{1,4}}$') && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
        ),
        format!("write a duration from {least} to {most} with h, m, s, ms, such as {such_as}"),
    ))
}

/// A span of hours, days or weeks.
pub fn span() -> Text {
    text(5).rule(Rule::new(
        "self.matches('^[0-9]{1,4}[hdw]$')",
        "write a span in hours, days or weeks, such as 12h, 30d or 8w",
    ))
}

/// Bytes a second.
pub fn rate() -> Text {
    text(16).rule(Rule::new(
        "self.matches('^([1-9][0-9]{0,5}Mi|[1-9][0-9]{0,2}Gi|1Ti)$')",
        "write bytes a second from 1Mi to 1Ti, such as 20Mi",
    ))
}

/// The name of a time zone. Whether it is known, the operator says.
pub fn time_zone() -> Text {
    text(64).rule(Rule::new(
        "self.matches('^[A-Za-z][A-Za-z0-9_+/-]*$')",
        "name a time zone as the IANA does, such as Europe/Vienna or UTC",
    ))
}

/// When to run. What each field may be, the operator says.
const CRON: &str = "self.matches('^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|[0-9A-Za-z*/,-]+( [0-9A-Za-z*/,-]+){4})$')";
const CRON_SAYS: &str = "write five fields, minute hour day month weekday, such as 30 2 * * 1-5; or @hourly, @daily, @weekly, @monthly, @yearly";

/// When to run.
pub fn cron() -> Text {
    text(64).rule(Rule::new(CRON, CRON_SAYS))
}

/// When to run, or `@never`: an empty text would say it, too, but Kubernetes 1.20 takes that for a null and refuses it.
pub fn cron_or_never() -> Text {
    text(64).rule(Rule::new(format!("self == '@never' || {CRON}"), format!("{CRON_SAYS}; or @never")))
}

/// An address of a service.
pub fn http() -> Text {
    text(1024).rule(Rule::new(
        "self.matches('^https?://[^ ]+$')",
        "write an address such as https://minio.example:9000",
    ))
}

/// A commit's id, in full or its beginning.
pub fn commit(least: u32) -> Text {
    let says = if least == 64 {
        "a commit's id has 64 digits of 0 to 9 and a to f; `holdfast points` shows it".to_owned()
    } else {
        format!("a commit's id has {least} to 64 digits of 0 to 9 and a to f; `holdfast points` shows it")
    };
    text(64).rule(Rule::new(format!("self.matches('^[0-9a-f]{{{least},64}}$')"), says))
}

/// A text that is not empty.
pub fn words(most: u64) -> Text {
    text(most).least(1)
}
