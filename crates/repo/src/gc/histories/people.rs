//! Histories with people: who deletes points, who holds them at the same moment, and who deletes the last verdict by
//! hand. What must hold besides: a point that somebody was told is held restores, and if its deleter died it is only its
//! commit that is missed, and nothing it needs.

use super::sim::{Acknowledged, Role};
use super::*;
use crate::delete::{Fate, delete_one};
use crate::hold::Hold;

impl History {
    /// A recovery point was acknowledged: somebody may want to delete it.
    pub(super) fn may_attract(&self, world: &mut sim::World) {
        if world.people.is_some() && world.dice.hit(50) {
            world.come(Role::Deleter);
        }
    }

    pub(super) fn delete(&self, repo: &Repository, dice: &mut Dice) {
        let commit = {
            let mut world = self.sim.lock();
            let count = world.acknowledged.len() as u64;
            if count == 0 {
                return;
            }
            let one = world.acknowledged.swap_remove(dice.below(count) as usize);
            let commit = one.commit;
            if let Some(people) = &mut world.people {
                people.leaving.push(one);
                // Until it is known better.
                people.in_doubt.insert(commit);
            }
            commit
        };
        let sabotage = match self.sabotage {
            Sabotage::DeleterSaysNothing => self.sabotage,
            _ => Sabotage::None,
        };
        let fate = delete_one(repo, &commit, sabotage);
        let mut world = self.sim.lock();
        if world.told {
            println!("{:5} deleting {commit}: {fate:?}", world.step);
        }
        let Some(people) = &mut world.people else { return };
        match fate {
            Ok(Fate::Deleted) => {
                people.in_doubt.remove(&commit);
                if people.held.iter().any(|one| one.commit == commit) {
                    world.wrong.push(format!("{commit} was deleted, and somebody was told that it is held"));
                }
            }
            Ok(Fate::Held(_)) => _ = people.in_doubt.remove(&commit),
            // Gone: another deleter, of whom the same is said. Doubtful, or failed: said to be so.
            _ => {}
        }
    }

    pub(super) fn hold(&self, repo: &Repository, dice: &mut Dice) {
        let (commit, blocks) = {
            let mut world = self.sim.lock();
            let world = &mut *world;
            let Some(people) = &mut world.people else { return };
            let leaving = people.leaving.len() as u64;
            let all = leaving + world.acknowledged.len() as u64;
            if all == 0 {
                return;
            }
            // Mostly what is being deleted.
            let bound = if leaving > 0 && dice.hit(80) { leaving } else { all };
            let at = dice.below(bound) as usize;
            let one = people.leaving.iter().chain(&world.acknowledged).nth(at).unwrap();
            let one = (one.commit, one.blocks.clone());
            people.wanted.insert(one.0);
            one
        };
        let held = repo.add_hold(&commit, "an audit", "somebody", None);
        let mut world = self.sim.lock();
        if world.told {
            println!("{:5} holding {commit}: {:?}", world.step, held.as_ref().map(|hold| hold.id));
        }
        if let (Ok(_), Some(people)) = (held, &mut world.people)
            && !people.ghosts.contains(&commit)
        {
            people.held.push(Acknowledged { commit, blocks });
        }
    }

    /// Everybody is done: what is held and missed because its deleter died is brought back from a copy, and holds that
    /// nobody was told of are released.
    pub(super) fn settle(&self, hand: &Hand, repo: &Repository) -> Result<(), String> {
        let mut world = self.sim.lock();
        let Some(people) = world.people.take() else { return Ok(()) };
        for one in &people.held {
            let key = one.commit.key();
            if world.objects.contains_key(&key) {
                continue;
            }
            if !people.in_doubt.contains(&one.commit) {
                return Err(format!("{key} is gone, and somebody was told that it is held"));
            }
            let now = world.now;
            world.objects.insert(key.clone(), (people.copies[&key].clone(), now));
        }
        let held: HashSet<CommitId> = people.held.iter().map(|one| one.commit).collect();
        // What was not acknowledged of what was deleted, and is there, is as good as any other.
        world.acknowledged.extend(people.held);
        drop(world);
        self.restores()?;
        let holds: Vec<Hold> = repo.holds().map_err(|error| error.to_string())?.done;
        for hold in holds.iter().filter(|hold| !held.contains(&hold.commit)) {
            hand.delete(&hold.id.key(&hold.commit)).unwrap();
        }
        Ok(())
    }
}
