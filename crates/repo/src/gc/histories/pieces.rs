//! Histories with points that many nodes write: each node commits a piece, and an operator puts the pieces together to a point and
//! deletes them (docs/decisions/0014-pieces.md). Operators die and are succeeded, or sleep and come back beside their
//! successor. What must hold besides: a point that its object names restores, and so does a piece that nobody began to
//! delete.
//!
//! What operators and nodes know of each other outlives them, as it does in the cluster: which pieces were
//! acknowledged, and which commit the object names. Only one ever is named, whoever is first.

use super::sim::{Acknowledged, Role, World};
use super::*;
use crate::delete::{Fate, delete_one};

/// How many operators come for a point.
const OPERATORS_MAX: usize = 5;

/// A point that several write.
#[derive(Default)]
pub(super) struct Request {
    /// What nodes said is committed.
    pieces: Vec<Part>,
    /// What nodes were about to commit, by the number in the label.
    parts: Vec<Vec<ManifestEntry>>,
    /// What operators were about to commit, likewise.
    wholes: Vec<Vec<u64>>,
    /// The commit that the object names, and the pieces it was made of.
    point: Option<(CommitId, Vec<CommitId>)>,
    /// What was committed for it and does not count.
    spare: Vec<CommitId>,
    /// Its pieces and spare commits are gone.
    clean: bool,
    /// How many operators came.
    operators: usize,
}

/// A piece.
struct Part {
    commit: CommitId,
    entries: Vec<ManifestEntry>,
    /// Somebody is deleting it, or did: it need not restore.
    leaving: bool,
    /// By hand, which the object of the point says.
    by_hand: bool,
}

/// How many points are to be written in a history, and by how many nodes each.
pub(super) fn to_come(dice: &mut Dice, to_come: &mut Vec<Role>) -> Vec<Request> {
    let count = 1 + dice.below(3) as usize;
    for request in 0..count {
        to_come.extend((0..1 + dice.below(3)).map(|_| Role::Node(request)));
    }
    (0..count).map(|_| Request::default()).collect()
}

impl World {
    /// An operator comes for a point that is not finished. `None`: for any.
    pub(super) fn summon(&mut self, wanted: Option<usize>) -> bool {
        let Some(requests) = &mut self.requests else { return false };
        let open = |one: &Request| !one.clean && !one.pieces.is_empty() && one.operators < OPERATORS_MAX;
        let open: Vec<usize> = (0..requests.len())
            .filter(|at| open(&requests[*at]) && wanted.is_none_or(|it| it == *at))
            .collect();
        if open.is_empty() {
            return false;
        }
        let chosen = open[self.dice.below(open.len() as u64) as usize];
        requests[chosen].operators += 1;
        self.to_come.push(Role::Operator(chosen));
        true
    }

    /// Somebody deletes a piece by hand, of a point that nobody has put together, while one operator is about to.
    pub(super) fn delete_piece(&mut self, request: usize) -> bool {
        let at_work = |actor: &&sim::Actor| {
            actor.role == Role::Operator(request) && actor.state != State::Ended && !actor.dead
        };
        let alone = self.actors.iter().filter(at_work).count() == 1;
        let Some(one) = self.requests.as_mut().map(|requests| &mut requests[request]) else {
            return false;
        };
        if !alone || one.point.is_some() || one.pieces.is_empty() {
            return false;
        }
        let chosen = self.dice.below(one.pieces.len() as u64) as usize;
        let part = &mut one.pieces[chosen];
        let key = part.commit.key();
        // One that a late put would bring back: against that there is no help.
        if self.late.iter().any(|(_, late)| late.key() == key) {
            return false;
        }
        (part.leaving, part.by_hand) = (true, true);
        if self.told {
            println!("{:5} somebody deletes the piece {key}", self.step);
        }
        self.objects.remove(&key);
        true
    }

    /// Whose piece lies under this key, if no point of it is named.
    pub(super) fn request_with(&self, key: &str) -> Option<usize> {
        let commit = CommitId::from_key(key)?;
        let of_it =
            |one: &Request| one.point.is_none() && one.pieces.iter().any(|part| part.commit == commit);
        self.requests.as_ref()?.iter().position(of_it)
    }

    /// What must restore besides points: name and blocks.
    pub(super) fn pieces(&self) -> Vec<(CommitId, Vec<u64>)> {
        let parts = self.requests.iter().flatten().flat_map(|request| &request.pieces);
        parts.filter(|part| !part.leaving).map(|part| (part.commit, blocks_of(&part.entries))).collect()
    }
}

/// The block that an entry is of.
pub(super) fn block_of(entry: &ManifestEntry) -> u64 {
    entry.name.rsplit('/').next().unwrap().parse().unwrap()
}

fn blocks_of(entries: &[ManifestEntry]) -> Vec<u64> {
    entries.iter().map(block_of).collect()
}

fn labels(request: usize, number: usize) -> BTreeMap<String, String> {
    BTreeMap::from([("request".into(), request.to_string()), ("number".into(), number.to_string())])
}

impl History {
    fn request<T>(&self, request: usize, with: impl FnOnce(&mut Request) -> T) -> T {
        with(&mut self.sim.lock().requests.as_mut().unwrap()[request])
    }

    /// A node writes its part.
    pub(super) fn write_piece(&self, repo: &Repository, dice: &mut Dice, at: usize, request: usize) {
        let blocks = self.some_blocks(dice);
        let committed = repo.writer(self.writer_options()).and_then(|writer| {
            let mut entries = self.entries(&writer, &blocks)?;
            let number = self.request(request, |one| {
                let number = one.parts.len();
                for entry in &mut entries {
                    entry.name = format!("{number}/{}", entry.name);
                }
                one.parts.push(entries.clone());
                number
            });
            let (kind, labels) = ("piece".into(), labels(request, number));
            let draft = CommitDraft { kind, labels, manifest: entries.clone(), ..CommitDraft::default() };
            Ok((writer.commit(draft)?.id, entries))
        });
        let mut world = self.sim.lock();
        match committed {
            Ok((commit, entries)) => {
                world.told_points += 1;
                let one = &mut world.requests.as_mut().unwrap()[request];
                let leaving = one.point.as_ref().is_some_and(|(_, pieces)| pieces.contains(&commit));
                one.pieces.push(Part { commit, entries, leaving, by_hand: false });
                if world.dice.hit(60) {
                    world.summon(Some(request));
                }
            }
            Err(error) => world.refused(at, &error),
        }
    }

    /// An operator goes on with a point wherever it is, and another one does if it did not come to the end.
    pub(super) fn operate(&self, repo: &Repository, dice: &mut Dice, at: usize, request: usize) {
        let look = || match self.sabotage {
            Sabotage::OperatorLooksNot => true,
            _ => matches!(open_verdicts(repo), Ok(false)),
        };
        let early = (self.sabotage == Sabotage::OperatorLooksTooEarly).then(look);
        let named = self.request(request, |one| one.point.is_some())
            || self.put_together(repo, dice, at, request).is_some();
        let done = named && early.unwrap_or_else(look) && self.clean(repo, request);
        let mut world = self.sim.lock();
        if !done && world.dice.hit(70) {
            world.summon(Some(request));
        }
    }

    /// Commits the point and names it in its object.
    fn put_together(&self, repo: &Repository, dice: &mut Dice, at: usize, request: usize) -> Option<()> {
        if self.sabotage == Sabotage::OperatorAdoptsWhatIsListed
            && let Some((point, number)) = self.listed(repo, request, "sim").pop()
        {
            let (blocks, pieces) = self.request(request, |one| {
                (one.wholes[number].clone(), one.pieces.iter().map(|part| part.commit).collect())
            });
            self.name(request, point, pieces, blocks);
            return Some(());
        }
        let mut parts: Vec<(CommitId, Vec<ManifestEntry>)> = self.request(request, |one| {
            let there = one.pieces.iter().filter(|part| !part.by_hand);
            there.map(|part| (part.commit, part.entries.clone())).collect()
        });
        if self.sabotage == Sabotage::OperatorCountsOnWhatIsListed {
            let listed = self.listed(repo, request, "piece");
            let known = self.request(request, |one| one.parts.clone());
            parts = listed.into_iter().map(|(piece, number)| (piece, known[number].clone())).collect();
        }
        if parts.is_empty() {
            return None;
        }
        let own = [dice.below(BLOCKS)];
        let committed = repo.writer(self.writer_options()).and_then(|writer| {
            let mut manifest = self.entries(&writer, &own)?;
            for (piece, entries) in &parts {
                writer.take_over(piece, entries.iter().map(|entry| entry.root))?;
                manifest.extend(entries.iter().cloned());
            }
            let blocks = blocks_of(&manifest);
            let number = self.request(request, |one| {
                one.wholes.push(blocks.clone());
                one.wholes.len() - 1
            });
            let (kind, labels) = ("sim".into(), labels(request, number));
            let draft = CommitDraft { kind, labels, manifest, ..CommitDraft::default() };
            Ok((writer.commit(draft)?.id, blocks))
        });
        let pieces: Vec<CommitId> = parts.into_iter().map(|(piece, _)| piece).collect();
        match committed {
            Ok((point, blocks)) => {
                self.sim.lock().told_points += 1;
                self.name(request, point, pieces, blocks);
                Some(())
            }
            Err(error) => {
                // A piece that somebody deleted is no fault of a collector.
                let of_piece =
                    matches!(&error, Error::Missing { object, .. } if CommitId::from_key(object).is_some());
                if !of_piece {
                    self.sim.lock().refused(at, &error);
                }
                None
            }
        }
    }

    /// Names the point in its object, unless one is named: that one counts then.
    fn name(&self, request: usize, point: CommitId, pieces: Vec<CommitId>, blocks: Vec<u64>) {
        let mut world = self.sim.lock();
        let one = &mut world.requests.as_mut().unwrap()[request];
        if one.point.is_some() {
            one.spare.push(point);
            return;
        }
        one.point = Some((point, pieces));
        if world.told {
            println!("{:5} point {point}", world.step);
        }
        world.acknowledged.push(Acknowledged { commit: point, blocks });
    }

    /// Commits of this kind that are listed, with the numbers in their labels.
    fn listed(&self, repo: &Repository, request: usize, kind: &str) -> Vec<(CommitId, usize)> {
        let commits = repo.commits().map_or_else(|_| Vec::new(), |commits| commits.done);
        let wanted = request.to_string();
        let of_it = commits.iter().filter(|commit| {
            commit.summary.kind == kind && commit.summary.labels.get("request") == Some(&wanted)
        });
        of_it.map(|commit| (commit.id, commit.summary.labels["number"].parse().unwrap())).collect()
    }

    /// Deletes what the point makes superfluous. Whether nothing is left.
    fn clean(&self, repo: &Repository, request: usize) -> bool {
        let (pieces, spare) = self.request(request, |one| {
            (one.point.as_ref().map_or(Vec::new(), |(_, pieces)| pieces.clone()), one.spare.clone())
        });
        self.request(request, |one| {
            for part in one.pieces.iter_mut().filter(|part| pieces.contains(&part.commit)) {
                part.leaving = true;
            }
        });
        let gone = pieces.iter().chain(&spare).all(|commit| is_gone(repo, commit));
        self.request(request, |one| {
            one.clean = gone && one.spare.len() == spare.len();
            one.clean
        })
    }
}

/// Deletes it as the commands do it.
fn is_gone(repo: &Repository, commit: &CommitId) -> bool {
    matches!(delete_one(repo, commit, Sabotage::None), Ok(Fate::Deleted | Fate::Gone))
}
