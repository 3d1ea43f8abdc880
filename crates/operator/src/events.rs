//! Events (`events.k8s.io/v1`): what happened to an object, for `kubectl describe` and whoever collects them.
//!
//! The same said again of the same object is counted and not written again: its name follows from what it says. An event that cannot
//! be written is a warning in the log, never a failure of the work it tells of.

use app::api::{ApiError, Cluster, segment};
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The longest note the API takes.
const NOTE_MAX: usize = 1024;

/// Something to be told of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Something is wrong.
    pub warning: bool,
    /// What, in a word (docs/operator.md lists them).
    pub reason: &'static str,
    /// What, in a sentence.
    pub note: String,
}

impl Told {
    /// That all is as it should be.
    pub fn normal(reason: &'static str, note: impl Into<String>) -> Told {
        Told { warning: false, reason, note: note.into() }
    }

    /// That something is wrong.
    pub fn warning(reason: &'static str, note: impl Into<String>) -> Told {
        Told { warning: true, reason, note: note.into() }
    }
}

/// Tells it.
pub async fn tell(cluster: &Cluster, instance: &str, object: &Value, told: &Told, now: Timestamp) {
    let about = &object["metadata"];
    if let Err(error) = write(cluster, instance, object, told, now).await {
        tracing::warn!(
            "the event {} of {} {} was not written: {error}",
            told.reason,
            object["kind"],
            about["name"]
        );
    }
}

async fn write(
    cluster: &Cluster,
    instance: &str,
    object: &Value,
    told: &Told,
    now: Timestamp,
) -> Result<(), ApiError> {
    let metadata = &object["metadata"];
    // Of what is in no namespace they lie in this one, as Kubernetes has it.
    let namespace =
        metadata["namespace"].as_str().filter(|namespace| !namespace.is_empty()).unwrap_or("default");
    let (name, uid) =
        (metadata["name"].as_str().unwrap_or_default(), metadata["uid"].as_str().unwrap_or_default());
    let end =
        (0..=NOTE_MAX.min(told.note.len())).rev().find(|at| told.note.is_char_boundary(*at)).unwrap_or(0);
    let (note, time) = (&told.note[..end], micro(now));
    let hash = blake3::hash([uid, told.reason, note].join("\0").as_bytes()).to_hex();
    let short: String = name.chars().take(200).collect();
    let event = format!("{}.{}", short.trim_end_matches(['.', '-']), &hash[..16]);
    let collection = format!("/apis/events.k8s.io/v1/namespaces/{}/events", segment(namespace));
    let body = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": event, "namespace": namespace},
        "eventTime": time,
        "reportingController": "holdfast.dev/operator", "reportingInstance": instance,
        "action": told.reason, "reason": told.reason, "note": note,
        "type": if told.warning { "Warning" } else { "Normal" },
        "regarding": {"apiVersion": object["apiVersion"], "kind": object["kind"],
            "namespace": metadata["namespace"], "name": name, "uid": uid},
    });
    match cluster.json(Method::POST, &collection, "application/json", Some(&body)).await {
        Ok(_) => return Ok(()),
        Err(ApiError::Conflict { .. }) => {}
        Err(error) => return Err(error),
    }
    let path = format!("{collection}/{}", segment(&event));
    let there = cluster.get_path(&path).await?;
    let count = there["series"]["count"].as_u64().unwrap_or(1) + 1;
    let series = json!({"metadata": {"resourceVersion": there["metadata"]["resourceVersion"]},
        "series": {"count": count, "lastObservedTime": time}});
    cluster.json(Method::PATCH, &path, "application/merge-patch+json", Some(&series)).await.map(drop)
}

fn micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use apiserver::{ApiServer, Options};

    #[tokio::test]
    async fn the_same_said_again_is_counted() {
        let server = ApiServer::new(Options::deterministic(1));
        let client = kube::Client::new(server.router(), "default");
        let cluster = Cluster { client, resources: Default::default() };
        let object = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "Application",
            "metadata": {"namespace": "default", "name": "shop", "uid": "u-1"}});
        let now = Timestamp::constant(1_900_000_000, 5_000);
        for _ in 0..3 {
            write(&cluster, "me", &object, &Told::warning("RpoMissed", "too old"), now).await.unwrap();
        }
        write(&cluster, "me", &object, &Told::normal("RpoMet", "ä".repeat(2000)), now).await.unwrap();
        let events = cluster.get_path("/apis/events.k8s.io/v1/namespaces/default/events").await.unwrap();
        let events = events["items"].as_array().unwrap().clone();
        assert_eq!(events.len(), 2);
        let missed = events.iter().find(|event| event["reason"] == "RpoMissed").unwrap();
        assert_eq!(missed["series"]["count"], json!(3));
        assert_eq!(missed["eventTime"], json!("2030-03-17T17:46:40.000005Z"));
        assert_eq!(
            (missed["type"].as_str(), missed["regarding"]["name"].as_str()),
            (Some("Warning"), Some("shop"))
        );
        let met = events.iter().find(|event| event["reason"] == "RpoMet").unwrap();
        assert_eq!(met["note"].as_str().unwrap().len(), 1024);
    }
}
