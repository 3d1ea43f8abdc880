//! What the certificate expects the target to bring, looked for on this target.
//!
//! A backup cannot know where a point will be restored; the plan can. What another application, an administrator or the
//! cluster itself was to provide and does not is told before anything is made that needs it.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use repo::Finding;

use crate::api::{ApiError, Cluster};
use crate::certificate::{Reference, State};
use crate::error::Error;
use crate::graph::By;
use crate::object::ObjectKey;
use crate::transform::Transform;

/// What every namespace gets as soon as it is there; a plan that looks before would not find it.
fn comes_with_its_namespace(key: &ObjectKey) -> bool {
    key.is("", "ServiceAccount") && key.name == "default"
        || key.is("", "ConfigMap")
            && matches!(key.name.as_str(), "kube-root-ca.crt" | "openshift-service-ca.crt")
}

/// Nobody had it then either, so its absence is no news; the certificate's words for it.
fn was_absent(reference: &Reference) -> bool {
    ["optional", "not there", "its owner is gone", "no such class exists"]
        .iter()
        .any(|word| reference.reason.starts_with(word))
}

/// Looks for what `references` expect of the target, for objects that are restored (`restored`: by their keys in the
/// point) and do not bring it along (`coming`: keys on the target).
///
/// # Errors
/// If the cluster does not answer.
pub(super) async fn check(
    references: &[Reference],
    restored: &BTreeSet<&ObjectKey>,
    coming: &BTreeSet<&ObjectKey>,
    transform: &Transform,
    cluster: &Cluster,
    at_once: usize,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let mut wanted: BTreeMap<ObjectKey, Vec<&Reference>> = BTreeMap::new();
    for reference in references {
        if reference.state != State::ExpectedOnTarget
            || reference.by != By::Table
            || reference.to.name.is_empty()
            || was_absent(reference)
            || comes_with_its_namespace(&reference.to)
            || !restored.contains(&reference.from)
        {
            continue;
        }
        let mut to = reference.to.clone();
        to.namespace = transform.namespace(&to.namespace).to_owned();
        if to.is("", "Namespace") {
            to.name = transform.namespace(&to.name).to_owned();
        } else if to.is("storage.k8s.io", "StorageClass") {
            to.name = transform.storage_class(&to.name).to_owned();
        }
        if !coming.contains(&to) && cluster.resources.find(&to.group, &to.kind).is_some() {
            wanted.entry(to).or_default().push(reference);
        }
    }
    let mut looks = futures::stream::iter(wanted)
        .map(|(to, references)| async move {
            let there = cluster.get_key(&to).await;
            (to, references, there)
        })
        .buffer_unordered(at_once.max(1));
    while let Some((to, references, there)) = looks.next().await {
        match there {
            Ok(None) => {}
            Err(error @ ApiError::Unreachable { .. }) => return Err(error.into()),
            // There, or not for us to know.
            Ok(Some(_)) | Err(_) => continue,
        }
        let Some(first) = references.first() else { continue };
        let more = match references.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        findings.push(Finding::warning(
            "expected-missing",
            to.to_string(),
            format!(
                "{} needs it ({}){more}; it is not in the point ({}) and not on the target either",
                first.from, first.at, first.reason
            ),
        ));
    }
    Ok(())
}
