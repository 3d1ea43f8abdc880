//! What is needed, counted by pack: how much of each pack is used, which is empty, and which place of a chunk that
//! lies in several packs is the one that counts.

use std::collections::{HashMap, HashSet};

use super::walk::Reach;
use crate::env::Timestamp;
use crate::error::Error;
use crate::id::PackId;
use crate::index::{Bits, Index, Place};

/// A pack as the store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub size: u64,
    pub modified: Timestamp,
}

/// By number of the pack in the index.
pub(super) struct Tally {
    present: Bits,
    doomed: Bits,
    marked: Bits,
    /// Sealed bytes of all chunks that lie in this pack.
    content: Vec<u64>,
    /// Sealed bytes of needed chunks that lie in this pack alone.
    alone: Vec<u64>,
    /// Sealed bytes of needed chunks for which this pack counts.
    used: Vec<u64>,
    /// Sealed bytes of needed chunks that lie in packs of open verdicts alone, and are to be copied from here.
    carried: Vec<u64>,
    /// Packs of open verdicts that hold a needed chunk which has no better place. None of them may go: another collector
    /// may be about to delete the others.
    held: Bits,
    /// Gone, although something needs it.
    lost: Bits,
    lost_chunks: u64,
}

impl Tally {
    /// `doomed`: packs of open verdicts; `marked`: packs of marks.
    pub(super) fn new(
        reach: &Reach,
        packs: &HashMap<PackId, Listed>,
        doomed: &HashSet<PackId>,
        marked: &HashSet<PackId>,
    ) -> Result<Tally, Error> {
        let index = reach.index();
        let count = index.pack_count();
        let mut tally = Tally {
            present: Bits::none(count),
            doomed: Bits::none(count),
            marked: Bits::none(count),
            content: vec![0; count],
            alone: vec![0; count],
            used: vec![0; count],
            carried: vec![0; count],
            held: Bits::none(count),
            lost: Bits::none(count),
            lost_chunks: 0,
        };
        for number in 0..count {
            let Some((id, size)) = index.pack(number as u32) else { continue };
            if packs.get(&id).is_some_and(|listed| listed.size == u64::from(size)) {
                tally.present.insert(number);
            }
            if doomed.contains(&id) {
                tally.doomed.insert(number);
            }
            if marked.contains(&id) {
                tally.marked.insert(number);
            }
        }
        let (mut alone, mut content) = (vec![0; count], vec![0; count]);
        index.each_chunk(&mut |places| {
            for (_, place) in places {
                if let Some(bytes) = content.get_mut(place.pack as usize) {
                    *bytes += u64::from(place.sealed);
                }
            }
            let mut good = places.iter().filter(|(_, place)| tally.is_good(place.pack));
            if is_needed(reach, places)
                && let (Some((_, only)), None) = (good.next(), good.next())
                && let Some(bytes) = alone.get_mut(only.pack as usize)
            {
                *bytes += u64::from(only.sealed);
            }
            Ok(())
        })?;
        (tally.alone, tally.content) = (alone, content);
        index.each_chunk(&mut |places| {
            if !is_needed(reach, places) {
                return Ok(());
            }
            let choice = tally.choice(index, places).copied();
            let Some(place) = choice else {
                tally.lost_chunks += 1;
                places.iter().for_each(|(_, place)| tally.lost.insert(place.pack as usize));
                return Ok(());
            };
            let counts = if tally.is_good(place.pack) {
                &mut tally.used
            } else {
                let there = places.iter().map(|(_, place)| place.pack as usize);
                there.filter(|pack| tally.present.contains(*pack)).for_each(|pack| tally.held.insert(pack));
                &mut tally.carried
            };
            if let Some(bytes) = counts.get_mut(place.pack as usize) {
                *bytes += u64::from(place.sealed);
            }
            Ok(())
        })?;
        Ok(tally)
    }

    fn is_good(&self, pack: u32) -> bool {
        self.present.contains(pack as usize) && !self.doomed.contains(pack as usize)
    }

    /// The place that counts of a chunk: in a pack that stays rather than in one that is to go, that nobody marked,
    /// that holds much else, and by name: the same for everybody who sees the same.
    pub(super) fn choice<'p>(&self, index: &Index, places: &'p [(usize, Place)]) -> Option<&'p Place> {
        let rank = |place: &&Place| {
            let pack = place.pack as usize;
            let alone = self.alone.get(pack).copied().unwrap_or(0);
            let id = index.pack(place.pack).map(|(id, _)| id);
            (!self.doomed.contains(pack), !self.marked.contains(pack), alone, std::cmp::Reverse(id))
        };
        let places = places.iter().map(|(_, place)| place);
        places.filter(|place| self.present.contains(place.pack as usize)).max_by_key(rank)
    }

    pub(super) fn is_present(&self, pack: u32) -> bool {
        self.present.contains(pack as usize)
    }

    pub(super) fn is_doomed(&self, pack: u32) -> bool {
        self.doomed.contains(pack as usize)
    }

    /// Whether the pack is gone and something that is lost was in it.
    pub(super) fn is_lost(&self, pack: u32) -> bool {
        self.lost.contains(pack as usize)
    }

    pub(super) fn lost_chunks(&self) -> u64 {
        self.lost_chunks
    }

    pub(super) fn content(&self, pack: u32) -> u64 {
        self.content.get(pack as usize).copied().unwrap_or(0)
    }

    pub(super) fn used(&self, pack: u32) -> u64 {
        self.used.get(pack as usize).copied().unwrap_or(0)
    }

    /// Whether a needed chunk lies here and in no pack that stays.
    pub(super) fn is_held(&self, pack: u32) -> bool {
        self.held.contains(pack as usize)
    }

    pub(super) fn carried(&self, pack: u32) -> u64 {
        self.carried.get(pack as usize).copied().unwrap_or(0)
    }
}

/// Whether a commit needs the chunk with these places.
fn is_needed(reach: &Reach, places: &[(usize, Place)]) -> bool {
    places.first().is_some_and(|(at, _)| reach.is_needed(*at))
}
