//! The writer's part of what keeps writers and collectors apart (R3). What they leave for each other in the store is in
//! `lease/notes.rs`.
//!
//! docs/decisions/0008-collection.md tells why it is safe. In short: a verdict names packs that are to go. The
//! collector puts it and then lists commits; a writer puts its commit and then lists verdicts. One of the two
//! sees the other, whatever their clocks say. Leases and marks only make it rare that a writer is refused.
//!
//! A [`Session`] is one writer: `begin` before it reads the index, `look_before` the commit, `look_after` it.

mod notes;
#[cfg(test)]
mod sabotage;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::env::{Env, Timestamp};
use crate::error::Error;
use crate::id::{CommitId, PackId, WriterId};
use crate::monitor::Finding;
use crate::repo::Repository;

pub(crate) use notes::*;
#[cfg(test)]
pub(crate) use sabotage::{Kind as HistoryKind, Sabotage};

/// How long a lease lasts unless it is renewed.
pub const LEASE: Duration = Duration::from_secs(3_600);

/// How often a writer that begins lists marks anew because some went away: a collection removes them once.
const LISTED_MAX: usize = 8;

/// What a commit names as its writer, with the secret that only the writer knows: who reveals it voids the commit.
pub(crate) struct Name {
    id: WriterId,
    secret: [u8; 32],
}

impl Name {
    pub(crate) fn new(env: &Env) -> Result<Name, Error> {
        let mut secret = [0; 32];
        env.random(&mut secret)?;
        Ok(Name { id: WriterId::of_secret(&secret), secret })
    }

    pub(crate) fn id(&self) -> WriterId {
        self.id
    }
}

/// One writer, as collectors see it.
pub(crate) struct Session {
    repo: Repository,
    name: Name,
    began: Timestamp,
    duration: u64,
    renewed: Mutex<Renewed>,
    /// The verdicts there were when it began, by number, with the hashes of their bytes: should one be deleted by hand,
    /// its number comes again.
    seen: BTreeMap<u64, blake3::Hash>,
    /// Packs not to rely on.
    condemned: HashSet<PackId>,
    /// There is a verdict that cannot be read: no pack that was there is to be relied on.
    blind: Option<Finding>,
    #[cfg(test)]
    sabotage: Sabotage,
}

/// The lease objects of a writer.
struct Renewed {
    count: u64,
    /// When the last was put, by our own clock.
    last: Timestamp,
    ended: bool,
}

/// What `look_after` needs to know of a pack.
pub(crate) trait ReliedOn {
    /// Whether the commit needs this pack.
    fn relies_on(&self, pack: &PackId) -> bool;
    /// Whether all packs it needs are in the store; an error names one that is not.
    fn all_present(&self) -> Result<(), Error>;
}

impl Session {
    /// Puts the lease and reads what others have said. To be called before the index is read.
    pub(crate) fn begin(
        repo: &Repository,
        duration: Duration,
        #[cfg(test)] sabotage: Sabotage,
    ) -> Result<Session, Error> {
        let began = repo.env().now();
        let mut session = Session {
            repo: repo.clone(),
            name: Name::new(repo.env())?,
            began,
            duration: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2),
            renewed: Mutex::new(Renewed { count: 0, last: began, ended: false }),
            seen: BTreeMap::new(),
            condemned: HashSet::new(),
            blind: None,
            #[cfg(test)]
            sabotage,
        };
        session.renew()?;
        // A mark that is gone before it is read may have become a verdict after the listing: then that shows it.
        for _ in 0..LISTED_MAX {
            if session.read_notes()? {
                break;
            }
        }
        Ok(session)
    }

    /// Takes in what collectors say; `false` if a mark went away meanwhile.
    fn read_notes(&mut self) -> Result<bool, Error> {
        let notes = Notes::list(&self.repo)?;
        self.read_verdicts(&notes)?;
        #[cfg(test)]
        if self.sabotage == Sabotage::WriterIgnoresMarks {
            return Ok(true);
        }
        let mut all = true;
        for mark in &notes.marks {
            match read_mark(&self.repo, mark) {
                Ok(Some(list)) => self.condemned.extend(list.packs),
                Ok(None) => all = false,
                // It only makes it likelier that this write has to run again.
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, "a mark cannot be read; packs it names are used again");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Takes in the open verdicts, and remembers all there are.
    fn read_verdicts(&mut self, notes: &Notes) -> Result<(), Error> {
        self.seen.clear();
        let mut closed = false;
        for (number, object) in notes.verdicts.iter().rev() {
            // Gone since the listing: another collector has closed it, and all it named is gone.
            let Some(bytes) = verdict_bytes(&self.repo, object)? else { continue };
            self.seen.insert(*number, blake3::hash(&bytes));
            if closed {
                continue;
            }
            match open_verdict(&self.repo, object, bytes).map_err(way_out) {
                Ok(list) if list.packs.is_empty() => closed = true,
                #[cfg(test)]
                Ok(_) if self.sabotage == Sabotage::WriterIgnoresVerdicts => {}
                Ok(list) => self.condemned.extend(list.packs),
                // Whoever can put could stop every backup with an object of this name.
                Err(Error::Damaged { object, what }) => {
                    self.blind = Some(Finding::warning("verdict-damaged", object, what));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Packs that are to go, or may be.
    pub(crate) fn condemned(&self) -> &HashSet<PackId> {
        &self.condemned
    }

    /// Why no pack at all is to be relied on, if so.
    pub(crate) fn blind(&self) -> Option<&Finding> {
        self.blind.as_ref()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Puts the next lease object, unless the last was put.
    fn renew(&self) -> Result<(), Error> {
        self.put_lease(self.duration)
    }

    /// Puts the last lease object, which ends the lease: nothing more will be relied on. If that fails the lease
    /// runs out by itself.
    pub(crate) fn end(&self) {
        if let Err(error) = self.put_lease(0) {
            tracing::debug!(%error, "the lease of this write stays until it runs out");
        }
    }

    fn put_lease(&self, duration: u64) -> Result<(), Error> {
        let mut renewed = self.renewed();
        if renewed.ended {
            return Ok(());
        }
        let now = self.repo.env().now();
        let lease = Lease { began: self.began, duration, number: renewed.count };
        let bytes = seal(&self.repo, Kind::Lease, &lease.encode())?;
        self.repo.put_content(&lease_key(&self.name.id, renewed.count), bytes)?;
        *renewed = Renewed { count: renewed.count + 1, last: now, ended: duration == 0 };
        Ok(())
    }

    fn renewed(&self) -> MutexGuard<'_, Renewed> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By our own clock.
    fn since_renewed(&self) -> i64 {
        let last = self.renewed().last;
        self.repo.env().now().saturating_sub(last)
    }

    /// Whether the lease is good for long enough not to look before the commit.
    fn is_fresh(&self) -> bool {
        (0..self.duration as i64 / 2).contains(&self.since_renewed())
    }

    /// Renews the lease every third of its duration until the other end of `stop` is dropped. What fails is tried
    /// again with the next: a lease that runs out costs this write, not what it has acknowledged.
    pub(crate) fn keep(&self, stop: &Receiver<()>) {
        let third = Duration::from_nanos(self.duration / 3);
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(third) {
            if self.renewed().ended {
                return;
            }
            if let Err(error) = self.renew() {
                tracing::warn!(%error, "the lease of this write could not be renewed");
            }
        }
    }

    /// Renews the lease if it is due by the clock: for writers that are asked often.
    pub(crate) fn renew_if_due(&self) {
        if self.since_renewed() > self.duration as i64 / 3
            && let Err(error) = self.renew()
        {
            tracing::warn!(%error, "the lease of this write could not be renewed");
        }
    }

    /// Before the commit: whether a verdict has struck already. Only asked when the lease may have run out,
    /// and then it spares a commit that would have to be voided.
    pub(crate) fn look_before(&self, relied: &dyn ReliedOn) -> Result<(), Error> {
        #[cfg(test)]
        if self.sabotage == Sabotage::WriterLooksNot {
            return Ok(());
        }
        if self.is_fresh() { Ok(()) } else { self.look(relied) }
    }

    /// Whether a test leaves this step out.
    #[cfg(test)]
    pub(crate) fn leaves_out(&self, step: Sabotage) -> bool {
        self.sabotage == step
    }

    /// Whether a verdict since it began has struck at what was relied on: for who commits nothing.
    pub(crate) fn look_again(&self, relied: &dyn ReliedOn) -> Result<(), Error> {
        self.look(relied)
    }

    /// After the commit, before it is acknowledged. An error means that it must not be, and is void.
    pub(crate) fn look_after(
        &self,
        commit: &CommitId,
        name: &Name,
        relied: &dyn ReliedOn,
    ) -> Result<(), Error> {
        #[cfg(test)]
        if self.sabotage == Sabotage::WriterLooksNot {
            return Ok(());
        }
        self.look(relied).map_err(|error| self.void(commit, name, error))
    }

    /// Says that a commit does not count, because of `error`, which is returned with what came of it.
    pub(crate) fn void(&self, commit: &CommitId, name: &Name, error: Error) -> Error {
        match self.repo.put_content(&void_key(commit), Bytes::copy_from_slice(&name.secret)) {
            Ok(()) => error,
            // `check` and `gc` name it, if it is there and lacks something.
            Err(void) => {
                tracing::warn!(%commit, %void, "a commit that failed could not be marked as void");
                error
            }
        }
    }

    fn look(&self, relied: &dyn ReliedOn) -> Result<(), Error> {
        let notes = Notes::list(&self.repo)?;
        // If the last one is gone (only by hand can it be), others may have come and gone; and if there was none, all of
        // them, by hand, too.
        let top = self.seen.last_key_value().map(|(top, _)| *top);
        let mut gap = top.is_none_or(|top| !notes.verdicts.contains_key(&top));
        for (number, object) in &notes.verdicts {
            #[cfg(test)]
            if self.sabotage == Sabotage::WriterGoesByNumbers && top.is_some_and(|top| *number <= top) {
                continue;
            }
            let Some(bytes) = verdict_bytes(&self.repo, object)? else {
                gap = true;
                continue;
            };
            if self.seen.get(number) == Some(&blake3::hash(&bytes)) {
                continue;
            }
            let list = open_verdict(&self.repo, object, bytes)?;
            // Those that a closing one closes may have been removed; and the last one was, if its number came again.
            gap |= list.packs.is_empty() || top == Some(*number);
            if let Some(pack) = list.packs.iter().find(|pack| relied.relies_on(pack)) {
                return Err(Error::Collected { pack: *pack });
            }
        }
        #[cfg(test)]
        let gap = gap && self.sabotage != Sabotage::WriterIgnoresGaps;
        if gap { relied.all_present() } else { Ok(()) }
    }
}
