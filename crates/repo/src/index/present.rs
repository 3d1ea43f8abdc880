//! Whether the packs that the index names are in the store: asked when a write begins, and again before it commits (R3).

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Bits, Index, PackSet};
use crate::env::Timestamp;
use crate::error::Error;
use crate::id::{INDEX, PACKS, PackId};
use crate::monitor::Finding;
use crate::store::{Store, StoreError};

impl Index {
    /// Looks which of the packs are in the store with the promised size, so that a new write does not rely on
    /// one that is gone (R3), and stores its chunks again instead. Packs in `condemned` are there and are not
    /// relied on either: they are about to go. Nor are those put before `oldest`: their time will be over too early.
    /// Where objects are `locked`, segments go on naming packs that a collection has removed.
    pub(crate) fn look_for_packs(
        &mut self,
        store: &dyn Store,
        condemned: &HashSet<PackId>,
        oldest: Option<Timestamp>,
        locked: bool,
    ) -> Result<(), Error> {
        if self.packs == 0 {
            return Ok(());
        }
        let absent = Bits::all(self.packs);
        let (mut cut, mut too_old) = (BTreeSet::new(), Vec::new());
        store.list(PACKS, &mut |object| {
            for number in PackId::from_key(&object.key).iter().flat_map(|id| self.numbers_of(id)) {
                if self.pack(number).is_some_and(|(_, promised)| u64::from(promised) == object.size) {
                    absent.remove(number as usize);
                    if oldest.is_some_and(|oldest| object.modified < oldest) {
                        too_old.push(number);
                    }
                } else {
                    cut.insert(number as usize);
                }
            }
            Ok(())
        })?;
        let mut gone = 0;
        for number in absent.numbers() {
            let Some((id, _)) = self.pack(number as u32) else { continue };
            if locked && !cut.contains(&number) {
                gone += 1;
                continue;
            }
            self.findings.push(Finding::error(
                "pack-missing",
                id.key(),
                "the index promises chunks in this pack, and it is gone or of another size; content that is still there is stored again",
            ));
        }
        if gone > 0 {
            self.findings.push(Finding::note(
                "packs-gone",
                INDEX,
                format!(
                    "{gone} packs that the index names are not there, removed by a collection that could not remove the segments that name them, because these are locked; or lost, which `holdfast repo check` tells. Nothing relies on them"
                ),
            ));
        }
        for number in condemned.iter().flat_map(|id| self.numbers_of(id)).chain(too_old) {
            absent.insert(number as usize);
        }
        self.absent = Some(absent);
        Ok(())
    }
}

/// That every pack a write relies on is still there with the promised size (R3): those of the index that it
/// touched, and its own. One call for each pack, or one listing, whichever is fewer.
pub(crate) fn check_packs(
    store: &dyn Store,
    index: &Index,
    touched: &PackSet,
    own: &[(PackId, u32)],
) -> Result<(), Error> {
    let mut wanted: HashMap<PackId, u32> =
        touched.numbers().filter_map(|number| index.pack(number)).chain(own.iter().copied()).collect();
    let gone = |id: &PackId, what: String| {
        Error::missing(
            id.key(),
            format!(
                "{what}; this write relied on it. Nothing was committed; run it again to store that content anew"
            ),
        )
    };
    // A listing answers up to 1,000 objects a call.
    if wanted.len() <= index.pack_count().div_ceil(1_000) {
        let mut listed = false;
        for (id, promised) in &wanted {
            match store.size(&id.key()) {
                Ok(size) if size == u64::from(*promised) => {}
                Ok(size) => {
                    return Err(gone(id, format!("it has {size} bytes, the index promises {promised}")));
                }
                Err(StoreError::NotFound { .. }) => {
                    return Err(gone(id, "it is no longer there".into()));
                }
                // Credentials that may put packs and not get them: the listing tells the same.
                Err(StoreError::Denied { .. }) => listed = true,
                Err(error) => return Err(error.into()),
            }
        }
        if !listed {
            return Ok(());
        }
    }
    store.list(PACKS, &mut |object| {
        if let Some(id) = PackId::from_key(&object.key)
            && wanted.get(&id).is_some_and(|promised| u64::from(*promised) == object.size)
        {
            wanted.remove(&id);
        }
        Ok(())
    })?;
    match wanted.keys().min() {
        None => Ok(()),
        Some(id) => Err(gone(id, format!("{} pack(s) are gone or of another size", wanted.len()))),
    }
}
