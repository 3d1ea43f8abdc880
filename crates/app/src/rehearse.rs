//! A restore, rehearsed: into an API server in this process, with everything that could refuse it.
//!
//! The same plan and the same execution as a real restore, against a server that checks as a cluster does: schemas
//! and the rules of definitions, quotas, limit ranges, priorities, Pod Security, immutable fields, addresses in use.
//! Controllers are pretended, so that a Deployment whose pods a quota refuses is found out as well. Of a target
//! cluster everything a restore would meet is read and loaded first; nothing is written there, and nothing else
//! leaves the process. So webhooks are not asked: it is told which would be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use apiserver::ApiServer;
use repo::{Cancel, Env, Finding, Severity};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Cluster, Propagation};
use crate::browse;
use crate::certificate::State;
use crate::error::Error;
use crate::kinds;
use crate::object::{Object, ObjectKey};
use crate::point::{ClusterInfo, Point, Restore};
use crate::restore::{self, Consent, Data, Done, Executor, Left, NotApproved, RestoreOptions};
use crate::world::{self, World};

/// What is rehearsed, and against what.
#[derive(Debug, Clone, Default)]
pub struct RehearseOptions {
    /// The restore; its data stays out.
    pub restore: RestoreOptions,
    /// The cluster the restore is meant for. Without one: a current, empty cluster that has what the point's
    /// certificate expects there.
    pub target: Option<Cluster>,
}

/// Something the target would have refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refused {
    /// What: the object, or the workload whose pods are refused.
    pub key: ObjectKey,
    /// In the server's words.
    pub reason: String,
}

/// How a rehearsal went.
#[derive(Debug, Clone, Serialize)]
pub struct Rehearsal {
    /// The application.
    pub application: String,
    /// The cluster it was rehearsed against; empty without one.
    pub target: ClusterInfo,
    /// Objects the target would take.
    pub accepted: usize,
    /// Objects it has already as they should be, or that a restore leaves alone.
    pub untouched: usize,
    /// Objects it would refuse.
    pub refused: Vec<Refused>,
    /// Workloads it would take and whose pods it would refuse.
    pub pods_refused: Vec<Refused>,
    /// What a restore leaves out.
    pub left: Vec<Left>,
    /// What was found on the way.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub milliseconds: u64,
}

impl Rehearsal {
    /// Would the restore have gone through?
    pub fn would_succeed(&self) -> bool {
        self.refused.is_empty()
            && self.pods_refused.is_empty()
            && !self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Rehearses a restore. `scratch` is an empty directory for the volumes that are pretended.
///
/// # Errors
/// If the target does not answer, the mapping does not fit, or nothing is selected.
pub async fn rehearse(
    point: &Point,
    options: &RehearseOptions,
    env: &Env,
    cancel: &Cancel,
    scratch: &Path,
) -> Result<Rehearsal, Error> {
    let begun = env.now();
    let mut findings = Vec::new();
    let (server, target) = match &options.target {
        Some(target) => {
            let server = like(target, point, &options.restore, env, scratch, &mut findings).await?;
            (server, ClusterInfo { id: target.id().await?, version: target.resources.version.clone() })
        }
        None => (plain(point, env, scratch, &mut findings), ClusterInfo::default()),
    };
    let cluster = Cluster::connect(kube::Client::new(server.router(), "default")).await?;
    if let Some(target) = &options.target {
        without_own_class(&cluster, target).await?;
    }
    let before: BTreeSet<String> = complaints(&server).into_keys().collect();
    let restore = RestoreOptions { data: Data::Leave, ..options.restore.clone() };
    let plan = restore::plan(point, &cluster, &restore).await?;
    // What destroys something asks for consent when it is real; here there is nothing to lose.
    let consent = Consent { replace: true, overwrite_data: true };
    let approved = match plan.approve(&consent) {
        Ok(approved) => approved,
        Err(refusal) => return Ok(in_the_way(point, target, refusal, findings)),
    };
    let mut executor = Executor::new(cluster, env.clone());
    executor.cancel = cancel.clone();
    executor.deadlines.ready = None;
    let report = approved.execute(&executor).await;
    if report.cancelled {
        return Err(Error::Cancelled);
    }
    let mut refused: Vec<Refused> = report
        .objects
        .iter()
        .filter(|object| object.done == Done::Failed)
        .map(|object| Refused { key: object.key.clone(), reason: object.message.clone() })
        .collect();
    refused.sort();
    let mut pods_refused: Vec<Refused> = complaints(&server)
        .into_iter()
        .filter(|(event, _)| !before.contains(event))
        .map(|(_, refused)| refused)
        .collect();
    pods_refused.sort();
    let written: BTreeSet<&ObjectKey> = report
        .objects
        .iter()
        .filter(|object| matches!(object.done, Done::Created | Done::Updated))
        .map(|object| &object.key)
        .collect();
    findings.extend(unasked(&server, &written, &executor.cluster));
    // Each refused object is told once, as refused.
    findings.extend(report.findings.into_iter().filter(|finding| finding.code != "not-restored"));
    Ok(Rehearsal {
        application: report.application,
        target,
        accepted: written.len(),
        untouched: report.unchanged + report.skipped,
        refused,
        pods_refused,
        left: report.left,
        findings,
        milliseconds: executor.since(begun),
    })
}

/// The conflict policy alone ends it.
fn in_the_way(point: &Point, target: ClusterInfo, refusal: NotApproved, findings: Vec<Finding>) -> Rehearsal {
    let (NotApproved::Conflicts(keys) | NotApproved::Replaces(keys) | NotApproved::Overwrites(keys)) =
        refusal;
    let reason = "it differs on the target and the conflict policy is fail, so nothing would be restored";
    Rehearsal {
        application: point.meta.application.clone(),
        target,
        accepted: 0,
        untouched: 0,
        refused: keys.into_iter().map(|key| Refused { key, reason: reason.into() }).collect(),
        pods_refused: Vec::new(),
        left: Vec::new(),
        findings,
        milliseconds: 0,
    }
}

/// A server that has what the target has where the restore goes.
async fn like(
    target: &Cluster,
    point: &Point,
    restore: &RestoreOptions,
    env: &Env,
    scratch: &Path,
    findings: &mut Vec<Finding>,
) -> Result<ApiServer, Error> {
    let goes_to: BTreeSet<String> = point
        .objects
        .iter()
        .filter(|stored| stored.restore == Restore::Yes && !stored.key.namespace.is_empty())
        .map(|stored| restore.transform.namespace(&stored.key.namespace).to_owned())
        .collect();
    let seen = world::observe(target, &goes_to).await?;
    findings.extend(seen.findings.iter().cloned().map(|finding| Finding {
        message: format!("the rehearsal does without: {}", finding.message),
        severity: finding.severity.min(Severity::Warning),
        ..finding
    }));
    let mut options = browse::options(env).simulate(scratch);
    options.version = target.resources.version.clone();
    let server = ApiServer::new(options);
    server.serve_as(browse::served(&target.resources, browse::Api::default()));
    let parameters = parameters(target, &seen, &goes_to, findings).await;
    let refused = server.load(seen.objects.values().map(|seen| seen.object.open().0).chain(parameters));
    findings.extend(refused.into_iter().map(|why| Finding::warning("not-loaded", "the target", why)));
    Ok(server)
}

/// Parameters of policies that lie in namespaces the restore does not go to: without them a policy would judge otherwise than it does
/// on the target.
async fn parameters(
    target: &Cluster,
    seen: &World,
    goes_to: &BTreeSet<String>,
    findings: &mut Vec<Finding>,
) -> Vec<Value> {
    let group = "admissionregistration.k8s.io";
    let mut wanted = BTreeSet::new();
    for (_, binding) in seen.of_kind(group, "ValidatingAdmissionPolicyBinding") {
        let binding = binding.object.open();
        let (policy, namespace) = (binding.str("/spec/policyName"), binding.str("/spec/paramRef/namespace"));
        let policy = ObjectKey::new(group, "ValidatingAdmissionPolicy", "", policy);
        if let (false, Some(policy)) =
            (namespace.is_empty() || goes_to.contains(namespace), seen.objects.get(&policy))
        {
            let policy = policy.object.open();
            let (group, _) = crate::object::split_api_version(policy.str("/spec/paramKind/apiVersion"));
            let kind = policy.str("/spec/paramKind/kind");
            wanted.insert((group.to_owned(), kind.to_owned(), namespace.to_owned()));
        }
    }
    let mut found = Vec::new();
    for (group, kind, namespace) in wanted {
        let Some(resource) = target.resources.find(&group, &kind) else { continue };
        match target.list(resource, Some(&namespace), None).await {
            Ok(objects) => found.extend(objects.into_iter().map(|object| object.0)),
            Err(why) => findings.push(Finding::warning(
                "unreadable",
                format!("{} in {namespace}", resource.full_name()),
                format!(
                    "a policy of the target has its parameters there, and the rehearsal does without: {why}"
                ),
            )),
        }
    }
    found
}

/// The class that pretended volumes come with is not the target's.
async fn without_own_class(cluster: &Cluster, target: &Cluster) -> Result<(), Error> {
    let key = ObjectKey::new("storage.k8s.io", "StorageClass", "", apiserver::SIMULATED_CLASS);
    if let (None, Some(resource)) =
        (target.get_key(&key).await?, cluster.resources.find("storage.k8s.io", "StorageClass"))
    {
        cluster.delete(resource, "", &key.name, Propagation::Background, None).await?;
    }
    Ok(())
}

/// A current cluster with nothing in it but what the certificate expects there.
fn plain(point: &Point, env: &Env, scratch: &Path, findings: &mut Vec<Finding>) -> ApiServer {
    let server = ApiServer::new(browse::options(env).simulate(scratch));
    let mut assumed = BTreeSet::new();
    for reference in
        point.certificate.references.iter().filter(|r| matches!(r.state, State::ExpectedOnTarget))
    {
        let stub = match (reference.to.group.as_str(), reference.to.kind.as_str()) {
            ("storage.k8s.io", "StorageClass") => json!({"provisioner": "assumed"}),
            ("scheduling.k8s.io", "PriorityClass") => json!({"value": 0}),
            ("node.k8s.io", "RuntimeClass") => json!({"handler": "assumed"}),
            ("networking.k8s.io", "IngressClass") => json!({"spec": {"controller": "assumed/controller"}}),
            _ => continue,
        };
        if assumed.insert(reference.to.clone()) {
            let mut object = stub;
            object["apiVersion"] = json!(format!("{}/v1", reference.to.group));
            object["kind"] = json!(reference.to.kind);
            object["metadata"] = json!({ "name": reference.to.name });
            let refused = server.load([object]);
            findings
                .extend(refused.into_iter().map(|why| Finding::warning("not-assumed", "the target", why)));
        }
    }
    findings.extend(assumed.into_iter().map(|key| {
        let why = "the application uses it and expects it on the target; it is taken to be there";
        Finding::note("assumed", key.to_string(), why)
    }));
    server
}

/// What controllers complain of, by the event that says so.
fn complaints(server: &ApiServer) -> BTreeMap<String, Refused> {
    let events = server.dump().into_iter().filter(|object| {
        object["kind"] == json!("Event")
            && object["type"] == json!("Warning")
            && object["reason"] == json!("FailedCreate")
    });
    events
        .map(|event| {
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("");
            let (group, _) = crate::object::split_api_version(text("/involvedObject/apiVersion"));
            let key = ObjectKey::new(
                group,
                text("/involvedObject/kind"),
                text("/involvedObject/namespace"),
                text("/involvedObject/name"),
            );
            let name = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
            (name, Refused { key, reason: text("/message").to_owned() })
        })
        .collect()
}

/// Webhooks that a real restore would have asked.
fn unasked(server: &ApiServer, written: &BTreeSet<&ObjectKey>, cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    let configurations = server.dump().into_iter().map(Object).filter(|object| {
        matches!(object.str("/kind"), "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration")
    });
    for configuration in configurations {
        let webhooks = configuration.at("/webhooks").and_then(Value::as_array).cloned().unwrap_or_default();
        for webhook in webhooks {
            let asked = written
                .iter()
                .filter(|key| {
                    cluster.resources.find(&key.group, &key.kind).is_some_and(|resource| {
                        kinds::webhook_sees(&webhook, &resource.group, &resource.plural)
                    })
                })
                .count();
            if asked == 0 {
                continue;
            }
            let name = webhook.get("name").and_then(Value::as_str).unwrap_or("");
            let fails = webhook.get("failurePolicy").and_then(Value::as_str) != Some("Ignore");
            let policy = if fails {
                "and refuses them if it does not answer"
            } else {
                "and is skipped if it does not answer"
            };
            let message = format!(
                "the target asks it about {asked} of these objects, {policy}; a rehearsal asks nobody outside"
            );
            let what = format!("{} {name}", configuration.key());
            findings.push(match fails {
                true => Finding::warning("webhook-not-asked", what, message),
                false => Finding::note("webhook-not-asked", what, message),
            });
        }
    }
    findings
}
