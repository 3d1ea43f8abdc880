//! What is wrong with an object of ours, said before anything is done with it.
//!
//! A server without CEL (before 1.25) takes objects that break the rules of our definitions. So each object is checked again, against
//! *the same definition*, by the code of the embedded API server: one text, not a second wording of it. What no expression can say
//! (each field of a schedule, whether a time zone is known, jitter against the time between two runs) is added here, for all
//! servers alike. Our webhook answers with the same function.

use std::collections::BTreeMap;

use apiserver::{Cause, Definition};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::cron::Cron;
use crate::schedule::zone;

/// The definitions of our kinds, by kind.
pub fn definitions() -> BTreeMap<String, Definition> {
    let read = api::definitions();
    read.iter().filter_map(Definition::read).map(|found| (found.kind().to_owned(), found)).collect()
}

/// What is wrong with an object whose defaults are filled in; `old` is what it was before a change. Empty: nothing.
pub fn check(definition: &Definition, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = definition.check(old, new);
    // Of an object that has not even its form nothing more can be said.
    if causes.is_empty() {
        match definition.kind() {
            "Policy" => policy(&new["spec"], &mut causes),
            "Repository" => maintenance(&new["spec"]["maintenance"], &mut causes),
            _ => {}
        }
    }
    causes
}

/// What an object asks for that only an object in the operator's own namespace may ask for: what would lend a tenant our standing.
pub fn lends_our_standing(kind: &str, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if kind != "Repository" {
        return causes;
    }
    let spec = &object["spec"];
    let only = |what: &str| format!("{what} is for a Repository in the operator's namespace only");
    let is_path = spec["url"].as_str().is_some_and(|url| url.starts_with('/'));
    if is_path {
        causes.push(Cause::forbidden("spec.url", &format!("{}: name a bucket", only("a path"))));
    } else if spec["credentials"].is_null() {
        let why = format!("{}: name spec.credentials", only("the cloud identity of our pods"));
        causes.push(Cause::forbidden("spec.credentials", &why));
    }
    for key in ["put", "list", "read"] {
        if !spec["keys"][key]["kms"].is_null() {
            let why =
                format!("{}: put the key file into a Secret", only("a socket of a key management service"));
            causes.push(Cause::forbidden(format!("spec.keys.{key}.kms"), &why));
        }
    }
    causes
}

fn policy(spec: &Value, causes: &mut Vec<Cause>) {
    for (at, schedule) in spec["schedules"].as_array().into_iter().flatten().enumerate() {
        let here = format!("spec.schedules[{at}]");
        check_zone(&format!("{here}.timeZone"), &schedule["timeZone"], causes);
        let Some(cron) = check_cron(&format!("{here}.cron"), &schedule["cron"], causes) else { continue };
        let jitter = schedule["jitter"].as_str().and_then(|text| text.parse::<SignedDuration>().ok());
        let (Some(jitter), Some(between)) = (jitter, cron.shortest()) else { continue };
        if jitter > between / 2 {
            let why = format!(
                "more than half of the {} between two runs; at most {}",
                told(between),
                told(between / 2)
            );
            causes.push(Cause::invalid(format!("{here}.jitter"), &schedule["jitter"], why));
        }
    }
}

fn maintenance(maintenance: &Value, causes: &mut Vec<Cause>) {
    check_zone("spec.maintenance.timeZone", &maintenance["timeZone"], causes);
    for key in ["collect", "check"] {
        if maintenance[key] != json!("@never") {
            check_cron(&format!("spec.maintenance.{key}"), &maintenance[key], causes);
        }
    }
}

fn check_cron(field: &str, value: &Value, causes: &mut Vec<Cause>) -> Option<Cron> {
    match Cron::parse(value.as_str()?) {
        Ok(cron) => Some(cron),
        Err(why) => {
            causes.push(Cause::invalid(field, value, why.to_string()));
            None
        }
    }
}

fn check_zone(field: &str, value: &Value, causes: &mut Vec<Cause>) {
    if let Some(name) = value.as_str()
        && zone(name).is_none()
    {
        let why = "no such time zone; write it as the IANA does, such as Europe/Vienna or UTC";
        causes.push(Cause::invalid(field, value, why));
    }
}

/// `90 s` is `1m30s`, as it would be written.
fn told(span: SignedDuration) -> String {
    let seconds = span.as_secs();
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_policy(schedule: Value, expect: &[&str]) {
        let definitions = definitions();
        let policy = &definitions["Policy"];
        let mut object = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "gold"},
            "spec": {"repository": {"name": "main"}, "schedules": [schedule]}});
        policy.complete(&mut object);
        let causes = check(policy, None, &object);
        let got: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        assert_eq!(got, expect, "{object}");
    }

    #[test]
    fn what_no_expression_can_say_is_said_all_the_same() {
        for (schedule, expect) in [
            (json!({"cron": "0 * * * *", "jitter": "30m"}), &[][..]),
            (
                json!({"cron": "0 * * * *", "jitter": "40m"}),
                &[
                    "spec.schedules[0].jitter: Invalid value: \"40m\": more than half of the 1h between two runs; at most 30m",
                ][..],
            ),
            (
                json!({"cron": "*/5 * * * *", "jitter": "3m"}),
                &[
                    "spec.schedules[0].jitter: Invalid value: \"3m\": more than half of the 5m between two runs; at most 2m30s",
                ],
            ),
            (
                json!({"cron": "61 * * * *"}),
                &[
                    "spec.schedules[0].cron: Invalid value: \"61 * * * *\": «61» is no minute (0 to 59); write five fields: minute hour day month weekday",
                ],
            ),
            (
                json!({"cron": "@daily", "timeZone": "Europe/Wien"}),
                &[
                    "spec.schedules[0].timeZone: Invalid value: \"Europe/Wien\": no such time zone; write it as the IANA does, such as Europe/Vienna or UTC",
                ],
            ),
            (
                json!({"cron": "every day"}),
                &[
                    "spec.schedules[0].cron: Invalid value: \"string\": write five fields, minute hour day month weekday, such as 30 2 * * 1-5; or @hourly, @daily, @weekly, @monthly, @yearly",
                ],
            ),
        ] {
            let mut schedule = schedule;
            schedule["name"] = json!("one");
            check_policy(schedule, expect);
        }
    }

    #[test]
    fn a_tenant_is_not_lent_what_is_ours() {
        let check = |spec: Value, expect: &[&str]| {
            let causes = lends_our_standing("Repository", &json!({"spec": spec}));
            assert_eq!(causes.iter().map(|c| c.field.as_str()).collect::<Vec<_>>(), expect);
        };
        let keys = json!({"read": {"secret": "keys", "key": "read"}});
        check(json!({"url": "s3://b/p", "credentials": {"secret": "s3"}, "keys": keys}), &[]);
        check(json!({"url": "s3://b/p", "keys": keys}), &["spec.credentials"]);
        check(json!({"url": "/backups", "keys": keys}), &["spec.url"]);
        check(
            json!({"url": "s3://b/p", "credentials": {"secret": "s3"}, "keys": {"read": {"kms": "unix:///k"}}}),
            &["spec.keys.read.kms"],
        );
        assert!(lends_our_standing("Policy", &json!({"spec": {"url": "/"}})).is_empty());
    }
}
