//! From selected objects to stored ones: the untouched object beside the cleaned one.

use crate::clean::clean;
use crate::object::{ObjectKey, Packed};
use crate::point::StoredObject;
use crate::select::{Picked, Selected};

/// One object as it is stored.
pub fn stored(key: &ObjectKey, picked: &Picked) -> StoredObject {
    StoredObject {
        resource: picked.seen.resource.bare(),
        key: key.clone(),
        role: picked.role,
        restore: picked.restore,
        original: picked.seen.object.clone(),
        clean: Packed::from(clean(&picked.seen.object.open()).0),
    }
}

/// The objects of a selection as they are stored, sorted by key, made one at a time: an object in memory is many
/// times its bytes, and both forms of all of them would be the most a backup ever holds.
pub fn collect(selected: &Selected) -> impl Iterator<Item = StoredObject> {
    selected.objects.iter().map(|(key, picked)| stored(key, picked))
}
