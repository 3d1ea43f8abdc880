//! From selected objects to stored ones: the untouched object beside the cleaned one.

use crate::clean::clean;
use crate::point::StoredObject;
use crate::select::Selected;

/// The objects of a selection as they are stored, sorted by key.
pub fn collect(selected: &Selected) -> Vec<StoredObject> {
    selected
        .objects
        .iter()
        .map(|(key, picked)| StoredObject {
            resource: picked.seen.resource.bare(),
            key: key.clone(),
            role: picked.role,
            restore: picked.restore,
            original: picked.seen.object.0.clone(),
            clean: clean(&picked.seen.object).0,
        })
        .collect()
}
