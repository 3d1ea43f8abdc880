//! The end of a collection: removes what is over, of its own and of others: leases, marks, verdicts, voids with their
//! commits, old notes of checks, and what probes of the store had to leave.

use std::collections::HashSet;

use super::copy::delete;
use super::view::{Looking, View, list_packs};
use super::{MARK_KEPT, Run};
use crate::check::turns::{CHECKS, TRIED_MAX};
use crate::env::Timestamp;
use crate::error::Error;
use crate::id::{CLAIMS, PackId};
use crate::lease::{self, LEASE, Notes, VOID_KEPT};
use crate::monitor::Finding;
use crate::repo::Repository;
use crate::store::list_all;
use crate::store::probe::PROBES;

/// What lies about and is of no use: notes of checks but the last (and those before it that are tried if it is
/// damaged), and what a probe of the store, or making the repository, left an hour ago or longer.
pub(super) fn leftovers(repo: &Repository) -> Result<Vec<String>, Error> {
    let mut notes: Vec<String> =
        list_all(&**repo.store(), CHECKS)?.into_iter().map(|object| object.key).collect();
    notes.sort_unstable();
    notes.truncate(notes.len().saturating_sub(TRIED_MAX));
    let before = repo.env().now().saturating_sub(LEASE.as_nanos() as i64);
    for folder in [PROBES, CLAIMS] {
        let old = list_all(&**repo.store(), folder)?.into_iter().filter(|object| object.modified < before);
        notes.extend(old.map(|object| object.key));
    }
    Ok(notes)
}

impl Run<'_> {
    /// Removes what is over.
    pub(super) fn tidy(&mut self, view: &View, gone: &HashSet<PackId>, new: &[PackId]) -> Result<(), Error> {
        self.progress.note("tidying up");
        let leases =
            Looking { repo: self.repo, options: self.options, progress: self.progress, own: &self.own }
                .leases()?;
        // A run that has nothing to do puts nothing: what says itself that it is over needs no clock.
        let asks_the_time = leases.values().any(|lease| lease.ends > Timestamp::MIN)
            || !(view.notes.voids.is_empty()
                && view.notes.clocks.is_empty()
                && view.notes.deletions.is_empty());
        let now = if asks_the_time { lease::store_now(self.repo)? } else { Timestamp::MIN };
        self.tidy_verdicts(view)?;
        let latest = view.latest(self.repo.env().now());
        for (object, list) in &view.marks {
            // What nobody can rely on: it is gone, or a verdict says it.
            let said =
                |id: &PackId| gone.contains(id) || !view.packs.contains_key(id) || view.doomed.contains(id);
            if list.packs.iter().all(said) || object.modified.saturating_add(MARK_KEPT) < latest {
                self.delete_note(&object.key)?;
            }
        }
        let new: HashSet<PackId> = new.iter().copied().collect();
        for id in view.marked.union(&new) {
            // What was emptied and is not sentenced yet still looks needed in a view from before.
            if !gone.contains(id) && (view.is_waiting(id) || new.contains(id)) {
                self.done.packs_waiting += 1;
                self.done.bytes_waiting += view.packs.get(id).map_or(0, |pack| pack.size);
            }
        }
        for seen in leases.values() {
            if seen.ends <= now {
                // The last is what says that it is over, and goes last.
                for key in &seen.keys {
                    self.delete_note(key)?;
                }
            }
        }
        let deletions = view.notes.deletions.iter().map(|(_, object)| object);
        for clock in view.notes.clocks.iter().chain(deletions) {
            if clock.modified.saturating_add(LEASE.as_nanos() as i64) < now {
                self.delete_note(&clock.key)?;
            }
        }
        for (commit, object) in &view.notes.voids {
            let key = &object.key;
            if view.voided.contains(commit) {
                // The commit first: without its void it would count.
                if !delete(self.repo, &commit.key(), &mut self.done)? {
                    continue;
                }
                self.done.commits_deleted += 1;
            } else if view.commits.binary_search(commit).is_ok() {
                self.done.findings.push(Finding::warning(
                    "void-forged",
                    key.clone(),
                    "the writer of this commit did not make it, so it counts for nothing; somebody else with access to the store put it there",
                ));
            } else if object.modified.saturating_add(VOID_KEPT) > now {
                // Its commit was refused an answer and may still be on its way.
                continue;
            }
            self.delete_note(key)?;
        }
        Ok(())
    }

    pub(super) fn delete_note(&mut self, key: &str) -> Result<(), Error> {
        if delete(self.repo, key, &mut self.done)? {
            self.done.notes_deleted += 1;
        }
        Ok(())
    }

    /// Closes verdicts whose packs are all gone, and removes what lies below the highest closing one. That one stays:
    /// by it, a writer sees that it missed some.
    fn tidy_verdicts(&mut self, view: &View) -> Result<(), Error> {
        if view.notes.verdicts.is_empty() && self.own.is_empty() {
            return Ok(());
        }
        let notes = Notes::list(self.repo)?;
        let open = notes.open_verdicts(self.repo)?;
        let mut closing = match open.iter().map(|list| list.number).min() {
            // The one right below the open ones, if it is still there.
            Some(lowest) => notes.verdicts.range(..lowest).next_back().map_or(0, |(number, _)| *number),
            None => notes.top(),
        };
        if !open.is_empty() {
            let packs = list_packs(self.repo)?;
            if open.iter().flat_map(|list| &list.packs).all(|id| !packs.contains_key(id)) {
                closing = lease::close_verdicts(self.repo, notes.top())?.unwrap_or(closing);
            }
        }
        for (_, object) in notes.verdicts.range(..closing) {
            self.delete_note(&object.key)?;
        }
        Ok(())
    }
}
