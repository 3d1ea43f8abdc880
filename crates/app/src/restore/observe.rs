//! What is on the target now, of all that a plan wants to be there.

use std::collections::BTreeMap;

use futures::StreamExt;

use crate::api::{ApiError, Cluster, ResourceType};
use crate::object::{Object, ObjectKey, Packed};

/// Up to so many objects of a kind in a namespace are asked for one by one; more are listed.
const SINGLE_MAX: usize = 4;

/// The objects found, and those that could not be asked for.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// By identity, in the version asked for.
    pub(super) live: BTreeMap<ObjectKey, Packed>,
    /// Why it is not known whether these exist.
    pub(super) unknown: BTreeMap<ObjectKey, ApiError>,
}

/// Looks for the wanted objects.
///
/// # Errors
/// If nobody answers at all; a single refusal is in [`Observed::unknown`].
pub(super) async fn observe(
    cluster: &Cluster,
    wanted: &[(ResourceType, ObjectKey)],
    at_once: usize,
) -> Result<Observed, ApiError> {
    let mut groups: BTreeMap<(String, &str), (&ResourceType, Vec<&ObjectKey>)> = BTreeMap::new();
    for (resource, key) in wanted {
        let place = (resource.path(None), key.namespace.as_str());
        groups.entry(place).or_insert_with(|| (resource, Vec::new())).1.push(key);
    }
    let mut looks = futures::stream::iter(groups.into_values())
        .map(|(resource, keys)| look(cluster, resource, keys))
        .buffer_unordered(at_once.max(1));
    let mut observed = Observed::default();
    while let Some(found) = looks.next().await {
        for (key, result) in found {
            match result {
                Ok(Some(object)) => {
                    observed.live.insert(key, object);
                }
                Ok(None) => {}
                Err(error @ ApiError::Unreachable { .. }) => return Err(error),
                Err(error) => {
                    observed.unknown.insert(key, error);
                }
            }
        }
    }
    Ok(observed)
}

async fn look(
    cluster: &Cluster,
    resource: &ResourceType,
    keys: Vec<&ObjectKey>,
) -> Vec<(ObjectKey, Result<Option<Packed>, ApiError>)> {
    if keys.len() > SINGLE_MAX {
        let namespace = keys.first().map(|key| key.namespace.as_str());
        let named = |object: Object| (object.name().to_owned(), Packed::from(&object));
        match cluster.list_as(resource, namespace, None, named).await {
            Ok(objects) => {
                let mut by_name: BTreeMap<String, Packed> = objects.into_iter().collect();
                return keys.into_iter().map(|key| (key.clone(), Ok(by_name.remove(&key.name)))).collect();
            }
            // The kind is not served yet, or the namespace is not there.
            Err(ApiError::NotFound { .. }) => {
                return keys.into_iter().map(|key| (key.clone(), Ok(None))).collect();
            }
            // Somebody may be allowed to get what he may not list.
            Err(ApiError::Denied { .. }) => {}
            Err(error) => return keys.into_iter().map(|key| (key.clone(), Err(error.clone()))).collect(),
        }
    }
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let one = cluster.get(resource, &key.namespace, &key.name).await;
        found.push((key.clone(), one.map(|one| one.as_ref().map(Packed::from))));
    }
    found
}
