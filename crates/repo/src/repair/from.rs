//! What is lost here and whole in another repository.

use serde::Serialize;

use super::salvage::Salvager;
use super::{LACKING_MOST, Plan, Repaired};
use crate::check::damage::Ledger;
use crate::check::packs::Places;
use crate::check::walk::{self, Lacking};
use crate::check::{PointTouched, Run};
use crate::copy::{CopyOptions, Pair, remake, twins};
use crate::error::Error;
use crate::id::CommitId;
use crate::monitor::Progress;
use crate::reader::ReaderOptions;
use crate::repo::Repository;

/// Each round finds what the last one uncovered: the content below a tree, the tree below its nodes. There are no more levels.
const ROUNDS: usize = 24;

/// What another repository has of what is lost here, as far as can be told before it is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FromPlan {
    /// Where it is.
    pub url: String,
    /// Whether both name content alike, so that single chunks can be asked for.
    pub alike: bool,
    /// Chunks that points lack. Below a lost tree there may be more.
    pub chunks_lacking: u64,
    /// How many of these it has, where both name content alike.
    pub chunks_there: u64,
    /// Points that lack something and are there, too, where they do not.
    pub points_there: Vec<CommitId>,
}

impl FromPlan {
    /// Whether it has nothing that is of use.
    pub fn is_empty(&self) -> bool {
        self.chunks_there == 0 && self.points_there.is_empty()
    }
}

/// Looks what the other has.
pub(super) fn look(
    repo: &Repository,
    other: &Repository,
    lacking: Lacking,
    points: &[PointTouched],
) -> Result<FromPlan, Error> {
    let lacking = lacking.into_inner();
    let alike = other.secrets().names_like(repo.secrets());
    let mut plan =
        FromPlan { url: other.url(), alike, chunks_lacking: lacking.len() as u64, ..FromPlan::default() };
    if points.is_empty() {
        return Ok(plan);
    }
    if alike {
        let index = other.index()?;
        for id in lacking.keys() {
            plan.chunks_there += u64::from(!index.places_of(id)?.is_empty());
        }
    } else {
        let ids: Vec<CommitId> = points.iter().map(|point| point.commit).collect();
        plan.points_there = twins(other, repo, &ids)?.into_iter().map(|pair| pair.far).collect();
    }
    Ok(plan)
}

impl Plan {
    /// Takes what is still lacking.
    pub(super) fn take_from(
        &self,
        other: &Repository,
        done: &mut Repaired,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        progress.note("taking from the other repository");
        if other.secrets().names_like(self.repo.secrets()) {
            return self.take_chunks(other, done);
        }
        let ids: Vec<CommitId> = done.after.points.iter().map(|point| point.commit).collect();
        let pairs: Vec<Pair> = twins(other, &self.repo, &ids)?;
        if pairs.is_empty() {
            return Ok(());
        }
        let options = CopyOptions {
            threads: self.options.threads,
            cancel: self.options.cancel.clone(),
            ..CopyOptions::default()
        };
        let taken = remake(other, &self.repo, &pairs, &options, progress)?;
        done.chunks_taken += taken.done.chunks_new;
        done.bytes_taken += taken.done.bytes_new_plain;
        done.packs_written += taken.done.packs;
        done.findings.extend(taken.findings);
        Ok(())
    }

    /// Chunk by chunk, by their names, which both sides have in common.
    fn take_chunks(&self, other: &Repository, done: &mut Repaired) -> Result<(), Error> {
        let options = || ReaderOptions { cancel: self.options.cancel.clone(), ..ReaderOptions::default() };
        let there = other.reader(options())?;
        let ids = self.repo.secrets().chunk_ids()?;
        for _ in 0..ROUNDS {
            let run = Run::new(&self.repo, self.options.threads, &self.options.cancel, &());
            let listing = run.list()?;
            // What is found was found before.
            let ledger = Ledger::default();
            let points = run.commits(&listing.commits, &ledger)?;
            let reader = self.repo.reader(options())?;
            let places = Places::new(reader.index(), &listing.packs);
            let lacking = Lacking::new(LACKING_MOST);
            walk::lacking(&run, &reader, &places, &ledger, &points, &lacking)?;
            let mut salvager = Salvager::new(&self.repo)?;
            for (id, lane) in lacking.into_inner() {
                self.breathe()?;
                let plain = match there.chunk(&id) {
                    Ok(plain) => plain,
                    Err(error) if error.is_damage() => continue,
                    Err(error) => return Err(error),
                };
                // Said by our own key, whatever the other one says.
                if ids.id(&plain) == id {
                    salvager.add(lane, id, &plain)?;
                    done.bytes_taken += plain.len() as u64;
                }
            }
            let taken = salvager.finish(done)?;
            done.chunks_taken += taken;
            if taken == 0 {
                return Ok(());
            }
        }
        Ok(())
    }
}
