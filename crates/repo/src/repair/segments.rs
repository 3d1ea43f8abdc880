//! What a repair does to the index: names packs that no segment names, writes segments without what is left out, and then
//! deletes those that were replaced or are damaged.

use std::collections::HashMap;

use super::{Plan, Repaired, unsteady};
use crate::check::lost;
use crate::error::Error;
use crate::id::{PackId, SegmentId};
use crate::index::{Segment, SegmentChunk};
use crate::monitor::Finding;
use crate::reindex;
use crate::store::StoreError;

impl Plan {
    /// Which segments are damaged, which name packs that are to be left out, and what the others name.
    pub(super) fn look_at_segments(&mut self, segments: &[SegmentId]) -> Result<(), Error> {
        if self.left_out.is_empty() && self.index().damaged().is_empty() {
            return Ok(());
        }
        for id in segments {
            self.breathe()?;
            let segment = match self.repo.read_segment(id) {
                Ok(segment) => segment,
                // Read twice by now, by the index and here.
                Err(Error::Missing { .. }) => continue,
                Err(error) => {
                    lost(error)?;
                    self.report.segments_to_drop.push(*id);
                    continue;
                }
            };
            if segment.packs.iter().any(|(pack, _)| self.left_out.contains(pack)) {
                self.report.segments_to_replace.push(*id);
                continue;
            }
            for (pack, count) in counts(&segment) {
                let kept = self.kept.entry(pack).or_default();
                *kept = count.max(*kept);
            }
        }
        Ok(())
    }

    /// Segments for packs that are whole and that none names, or that one names wrongly.
    pub(super) fn name_packs(&self, done: &mut Repaired) -> Result<(), Error> {
        let misnamed = self.misnamed.iter().filter_map(|id| {
            let number = self.index().number_of(id)?;
            Some((*id, self.places.size(number)?))
        });
        let mut segment = Segment::default();
        for (id, size) in self.sound.iter().copied().chain(misnamed) {
            self.breathe()?;
            let entries = match reindex::directory(&self.repo, &id, size) {
                Ok(entries) => entries,
                Err(error) => {
                    // It was whole a moment ago; the check at the end tells how it is now.
                    let what = lost(error)?;
                    done.findings.push(Finding::error("pack-damaged", id.key(), what));
                    continue;
                }
            };
            if segment.chunks.len() + entries.len() > reindex::SEGMENT_CHUNKS {
                reindex::put_segment(&self.repo, std::mem::take(&mut segment))?;
                done.segments_written += 1;
            }
            done.packs_named += 1;
            reindex::add(&mut segment, id, size as u32, entries);
        }
        if !segment.chunks.is_empty() {
            reindex::put_segment(&self.repo, segment)?;
            done.segments_written += 1;
        }
        Ok(())
    }

    /// For each segment that names packs that are to be left out one without them, read back. Returns those that
    /// are no longer needed.
    pub(super) fn replace_segments(&self, done: &mut Repaired) -> Result<Vec<SegmentId>, Error> {
        let mut replaced = Vec::new();
        for id in &self.report.segments_to_replace {
            self.breathe()?;
            let segment = match self.repo.read_segment(id) {
                Ok(segment) => segment,
                // Somebody else was faster: another repair, or a collection.
                Err(Error::Missing { .. }) => continue,
                Err(error) => return Err(error),
            };
            let without = self.without_left_out(&segment);
            if !without.chunks.is_empty() {
                let new = reindex::put_segment(&self.repo, without)?;
                // Nothing is deleted on the word of a store alone.
                self.repo.read_segment(&new)?;
                done.segments_written += 1;
            }
            replaced.push(*id);
        }
        Ok(replaced)
    }

    /// The packs of a segment that stay and that no segment that stays names as fully.
    fn without_left_out(&self, segment: &Segment) -> Segment {
        let counts: HashMap<PackId, u32> = counts(segment).collect();
        let mut without = Segment::default();
        let mut numbers = HashMap::new();
        for (number, (pack, size)) in segment.packs.iter().enumerate() {
            let kept = self.kept.get(pack).copied().unwrap_or(0);
            let stays = !self.left_out.contains(pack) && kept < counts.get(pack).copied().unwrap_or(0);
            if stays {
                numbers.insert(number as u32, without.packs.len() as u32);
                without.packs.push((*pack, *size));
            }
        }
        for chunk in &segment.chunks {
            if let Some(pack) = numbers.get(&chunk.pack) {
                without.chunks.push(SegmentChunk { pack: *pack, ..*chunk });
            }
        }
        without
    }

    /// Deletes segments that were replaced or are damaged; what cannot be deleted stays and is told.
    pub(super) fn delete_segments(
        &self,
        replaced: &[SegmentId],
        last_trace: bool,
        done: &mut Repaired,
    ) -> Result<(), Error> {
        let mut doomed = replaced.to_vec();
        for id in &self.report.segments_to_drop {
            match self.repo.read_segment(id) {
                Ok(_) => done.findings.push(unsteady(id.key())),
                Err(Error::Missing { .. }) => {}
                Err(error) if last_trace => {
                    let what = lost(error)?;
                    done.findings.push(Finding::warning(
                        "segment-kept",
                        id.key(),
                        format!(
                            "{what}; it stays, because chunks are missing and there is a damaged pack of which nothing else may tell what is in it"
                        ),
                    ));
                }
                Err(error) => {
                    lost(error)?;
                    doomed.push(*id);
                }
            }
        }
        for id in doomed {
            match self.repo.store().delete(&id.key()) {
                Ok(()) => done.segments_deleted += 1,
                Err(error @ StoreError::Unavailable { .. }) => return Err(error.into()),
                Err(error) => done.findings.push(Finding::warning(
                    "segment-kept",
                    id.key(),
                    format!(
                        "{error}. It is no longer needed and could not be deleted; as long as it is there, checks name it. Repair again with the right to delete, or when its lock has ended"
                    ),
                )),
            }
        }
        Ok(())
    }
}

/// How many chunks of each of its packs a segment lists.
fn counts(segment: &Segment) -> impl Iterator<Item = (PackId, u32)> {
    let mut counts = vec![0_u32; segment.packs.len()];
    for chunk in &segment.chunks {
        if let Some(count) = counts.get_mut(chunk.pack as usize) {
            *count += 1;
        }
    }
    segment.packs.iter().map(|(pack, _)| *pack).zip(counts)
}
