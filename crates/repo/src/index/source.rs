//! Where an index comes from: the segments in the store, fetched and sorted into runs, and the runs that this machine keeps.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::build::{Batch, Trouble};
use super::lock;
use super::run::{ENDING, Line, PART, Run};
use super::segment::{CHUNK_LEN, SegmentView};
use crate::crypto::Keys;
use crate::error::Error;
use crate::id::{INDEX, SegmentId};
use crate::local::{Local, Spot};
use crate::store::Store;

/// Where an index comes from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Keys,
    pub(crate) local: Arc<Local>,
    /// How many segments are fetched at a time.
    pub(crate) fetchers: usize,
}

/// What [`Source::gather`] has so far.
pub(super) struct Gathered {
    batch: Batch,
    pub(super) runs: Vec<Arc<Run>>,
    pub(super) damaged: Vec<(SegmentId, String)>,
    failed: Option<Trouble>,
}

impl Source {
    /// The segments in the store, with their sizes, ascending.
    pub(super) fn listed(&self) -> Result<Vec<(SegmentId, u64)>, Error> {
        let mut names = Vec::new();
        self.store.list(INDEX, &mut |object| {
            // A foreign name in the folder is for `check` to report; it can name no chunk for us.
            names.extend(SegmentId::from_key(&object.key).map(|name| (name, object.size)));
            Ok(())
        })?;
        names.sort_unstable();
        names.dedup_by_key(|(name, _)| *name);
        Ok(names)
    }

    /// Fetches segments and writes them as runs: one, unless that takes more memory than there is.
    pub(super) fn gather(&self, spot: Spot, names: &[(SegmentId, u64)]) -> Result<Gathered, Trouble> {
        let bytes: u64 = names.iter().map(|(_, size)| size).sum();
        let largest = names.iter().map(|(_, size)| *size).max().unwrap_or(0).max(1);
        // Half for lines, with what the sort takes; the rest for segments on their way.
        let build = self.local.budget.build;
        let lines_max = build / 3 / size_of::<Line>();
        let expected = usize::try_from(bytes / CHUNK_LEN as u64).unwrap_or(usize::MAX);
        let fetchers =
            ((build as u64 / 2 / largest) as usize).clamp(1, self.fetchers.max(1)).min(names.len());
        let batch = Batch::new(expected.min(lines_max))?;
        let gathered = Mutex::new(Gathered { batch, runs: Vec::new(), damaged: Vec::new(), failed: None });
        let next = AtomicUsize::new(0);
        let fetch = || {
            while let Some((name, size)) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut fetched = fetch_segment(&*self.store, name);
                // Opened before the lock is taken: threads meet only to merge.
                let view = match &mut fetched {
                    Ok(bytes) => self.keys.open_segment(bytes).and_then(SegmentView::parse),
                    // A collection wrote what it says into other segments first, and a new listing shows them (R3).
                    Err(Error::Store(error)) if error.is_not_found() => {
                        lock(&gathered).failed.get_or_insert(Trouble::Vanished);
                        next.store(names.len(), Ordering::Relaxed);
                        return;
                    }
                    Err(error) if error.is_damage() => Err(error.to_string()),
                    // Not being able to look is not damage: deciding without it could store all again.
                    Err(error) => {
                        lock(&gathered).failed.get_or_insert(Trouble::Error(error.clone()));
                        next.store(names.len(), Ordering::Relaxed);
                        return;
                    }
                };
                let mut gathered = lock(&gathered);
                let Gathered { batch, runs, damaged, failed } = &mut *gathered;
                let full = batch.len() > 0 && batch.len() + *size as usize / CHUNK_LEN > lines_max;
                if full && failed.is_none() {
                    match batch.write(&self.local, &self.keys, spot) {
                        Ok(run) => runs.push(Arc::new(run)),
                        Err(trouble) => {
                            *failed = Some(trouble);
                            next.store(names.len(), Ordering::Relaxed);
                            return;
                        }
                    }
                }
                if let Err(what) = view.and_then(|view| batch.append(*name, &view)) {
                    damaged.push((*name, what));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..fetchers {
                scope.spawn(fetch);
            }
            fetch();
        });
        let mut gathered = gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(trouble) = gathered.failed.take() {
            return Err(trouble);
        }
        if gathered.batch.len() > 0 {
            gathered.runs.push(Arc::new(gathered.batch.write(&self.local, &self.keys, spot)?));
        }
        gathered.batch = Batch::new(0)?;
        gathered.damaged.sort_unstable();
        Ok(gathered)
    }

    /// The runs that are there already and hold nothing but segments of the store, no segment twice; and
    /// those that are of no use any more.
    pub(super) fn known(&self, listed: &[(SegmentId, u64)]) -> (Vec<Arc<Run>>, Vec<Arc<Run>>) {
        let mut runs = self.local.open_runs();
        for path in self.local.files(PART, ENDING) {
            if runs.iter().any(|run| run.path.as_ref() == Some(&path)) {
                continue;
            }
            match Run::open(&self.local, &self.keys, &path) {
                Some(run) => runs.push(Arc::new(run)),
                None => {
                    tracing::debug!(path = %path.display(), "not a run of this index; made again");
                    let _ = std::fs::remove_file(&path);
                }
            }
        }
        let is_listed = |segment: &SegmentId| listed.binary_search_by_key(segment, |(name, _)| *name).is_ok();
        runs.sort_by_key(|run| Reverse(run.len()));
        let (mut used, mut useless) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for run in runs {
            let segments = &run.table.segments;
            if segments.iter().all(|segment| is_listed(segment) && !seen.contains(segment)) {
                seen.extend(segments.iter().copied());
                used.push(run);
            } else {
                useless.push(run);
            }
        }
        (used, useless)
    }
}

fn fetch_segment(store: &dyn Store, name: &SegmentId) -> Result<Vec<u8>, Error> {
    let bytes = store.get(&name.key())?;
    if *blake3::hash(&bytes).as_bytes() != name.0 {
        return Err(Error::damaged(name.key(), "its bytes do not hash to its name"));
    }
    Ok(Vec::from(bytes))
}
