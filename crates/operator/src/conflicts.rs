//! Who has to wait for whom: points and restores that would meet at one volume, one object or one application.
//!
//! Decided from the status of all unfinished objects, anew at each look; nothing of it is stored, so nothing of it can be left behind
//! by somebody who died. What is wanted is had together or not at all, so nobody holds one volume while waiting for another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Points that are taken at once in a cluster.
pub const POINTS_MAX: usize = 16;

/// What is done with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// It is read: an upload from a snapshot, a read ahead; an object that goes into a point.
    Read,
    /// It is frozen and cut.
    Lock,
    /// It is written: a restore, a claim that is filled.
    Write,
}

impl Use {
    /// The whole table: reading goes together with reading and with a lock; nothing else goes together.
    pub fn goes_with(self, other: Use) -> bool {
        use Use::{Lock, Read};
        matches!((self, other), (Read, Read) | (Read, Lock) | (Lock, Read))
    }
}

/// What two may meet at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A volume, by the UID of its PersistentVolume; without one by namespace and claim.
    Volume(String),
    /// An object in a namespace, as `namespace/kind.group/name`.
    Object(String),
    /// An application, of which one point is taken at a time.
    Application(String),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Volume(name) => write!(f, "volume {name}"),
            Thing::Object(name) => write!(f, "object {name}"),
            Thing::Application(name) => write!(f, "application {name}"),
        }
    }
}

/// A point or restore: one that runs, or one that would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// What it is called: `recoverypoint shop/shop-2026`.
    pub name: String,
    /// Is it a point?
    pub is_point: bool,
    /// What it needs, and what for.
    pub needs: BTreeMap<Thing, Use>,
}

impl Running {
    /// A point of an application.
    pub fn point(name: &str, application: &str) -> Running {
        let needs = BTreeMap::from([(Thing::Application(application.into()), Use::Write)]);
        Running { name: name.into(), is_point: true, needs }
    }

    /// A restore.
    pub fn restore(name: &str) -> Running {
        Running { name: name.into(), is_point: false, needs: BTreeMap::new() }
    }

    /// With a need. Of two for one thing the stronger counts.
    pub fn needs(mut self, thing: Thing, how: Use) -> Running {
        let had = self.needs.entry(thing).or_insert(how);
        *had = how.max(*had);
        self
    }
}

/// What is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    held: BTreeMap<Thing, Vec<(String, Use)>>,
    points: BTreeSet<String>,
}

/// Why somebody has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// Somebody else has what it needs.
    For {
        /// What.
        thing: Thing,
        /// Who has it.
        holder: String,
    },
    /// There are as many points at once as there may be.
    TooMany,
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waits::For { thing, holder } => write!(f, "waits for {holder}, which has {thing}"),
            Waits::TooMany => {
                write!(f, "waits until fewer than {POINTS_MAX} points are under way in the cluster")
            }
        }
    }
}

/// What those that run have.
pub fn claims(running: &[Running]) -> Table {
    let mut table = Table::default();
    for one in running {
        table.take(one);
    }
    table
}

impl Table {
    /// Gives it all it needs, or nothing, and says why.
    pub fn admit(&mut self, wants: &Running) -> Result<(), Waits> {
        let foreign = |holder: &String| *holder != wants.name;
        for (thing, how) in &wants.needs {
            let holders = self.held.get(thing).into_iter().flatten();
            if let Some((holder, _)) =
                holders.filter(|(holder, _)| foreign(holder)).find(|(_, held)| !held.goes_with(*how))
            {
                return Err(Waits::For { thing: thing.clone(), holder: holder.clone() });
            }
        }
        let others = self.points.iter().filter(|holder| foreign(holder)).count();
        if wants.is_point && others >= POINTS_MAX {
            return Err(Waits::TooMany);
        }
        self.take(wants);
        Ok(())
    }

    fn take(&mut self, one: &Running) {
        for (thing, how) in &one.needs {
            self.held.entry(thing.clone()).or_default().push((one.name.clone(), *how));
        }
        if one.is_point {
            self.points.insert(one.name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str) -> Thing {
        Thing::Volume(name.into())
    }

    fn object(name: &str) -> Thing {
        Thing::Object(name.into())
    }

    #[test]
    fn reading_goes_together_and_nothing_else() {
        use Use::{Lock, Read, Write};
        for (held, wanted, together) in [
            (Read, Read, true),
            (Read, Lock, true),
            (Read, Write, false),
            (Lock, Read, true),
            (Lock, Lock, false),
            (Lock, Write, false),
            (Write, Read, false),
            (Write, Lock, false),
            (Write, Write, false),
        ] {
            let first = Running::restore("first").needs(volume("v"), held);
            let second = Running::restore("second").needs(volume("v"), wanted);
            let admitted = claims(&[first]).admit(&second);
            assert_eq!(admitted.is_ok(), together, "{held:?} is held, {wanted:?} is wanted: {admitted:?}");
            assert_eq!(held.goes_with(wanted), wanted.goes_with(held), "the table is symmetric");
        }
    }

    #[test]
    fn who_waits_is_told_for_whom() {
        let check = |story: &str, running: &[Running], wants: Running, expect: &str| {
            let got = claims(running).admit(&wants).map_or_else(|why| why.to_string(), |()| String::new());
            assert_eq!(got, expect, "{story}");
        };
        let point = |name: &str, application: &str| Running::point(name, application);
        let shop = point("recoverypoint shop/one", "shop/shop").needs(volume("pv-1"), Use::Lock);
        check(
            "a second point of one application",
            std::slice::from_ref(&shop),
            point("recoverypoint shop/two", "shop/shop"),
            "waits for recoverypoint shop/one, which has application shop/shop",
        );
        check(
            "a point of another application that shares a volume",
            std::slice::from_ref(&shop),
            point("recoverypoint shop/two", "shop/web").needs(volume("pv-1"), Use::Lock),
            "waits for recoverypoint shop/one, which has volume pv-1",
        );
        check(
            "which is only read from a snapshot",
            std::slice::from_ref(&shop),
            point("recoverypoint shop/two", "shop/web").needs(volume("pv-1"), Use::Read),
            "",
        );
        let restore = Running::restore("restore shop/back")
            .needs(object("shop/ConfigMap/settings"), Use::Write)
            .needs(volume("pv-1"), Use::Write);
        check(
            "a restore waits for the point",
            std::slice::from_ref(&shop),
            restore.clone(),
            "waits for recoverypoint shop/one, which has volume pv-1",
        );
        check(
            "a point waits for the restore of its objects",
            std::slice::from_ref(&restore),
            point("recoverypoint shop/two", "shop/shop").needs(object("shop/ConfigMap/settings"), Use::Read),
            "waits for restore shop/back, which has object shop/ConfigMap/settings",
        );
        check(
            "restores of different objects go together",
            std::slice::from_ref(&restore),
            Running::restore("restore shop/other").needs(object("shop/ConfigMap/other"), Use::Write),
            "",
        );
        check(
            "restores that share an object do not",
            std::slice::from_ref(&restore),
            Running::restore("restore shop/other").needs(object("shop/ConfigMap/settings"), Use::Write),
            "waits for restore shop/back, which has object shop/ConfigMap/settings",
        );
        check("nobody waits for itself", std::slice::from_ref(&shop), shop.clone(), "");
        let many: Vec<Running> =
            (0..POINTS_MAX).map(|n| point(&format!("recoverypoint a/{n}"), &format!("a/{n}"))).collect();
        check(
            "too many at once",
            &many,
            point("recoverypoint a/more", "a/more"),
            "waits until fewer than 16 points are under way in the cluster",
        );
        check("restores are not counted", &many, restore, "");
        check("one that runs already goes on", &many, many[3].clone(), "");
    }

    #[test]
    fn all_is_had_together_or_nothing() {
        let first = Running::point("first", "a/a").needs(volume("1"), Use::Lock);
        let wants =
            Running::point("second", "a/b").needs(volume("0"), Use::Lock).needs(volume("1"), Use::Lock);
        let mut table = claims(std::slice::from_ref(&first));
        let before = table.clone();
        assert!(table.admit(&wants).is_err());
        assert_eq!(table, before, "what was refused holds nothing");
        // So a third is not kept from volume 0 by one that waits.
        assert_eq!(table.admit(&Running::point("third", "a/c").needs(volume("0"), Use::Lock)), Ok(()));
    }

    /// Ten that want all pairs of five volumes, admitted as others end: nobody waits forever, and no two meet.
    #[test]
    fn whoever_waits_is_let_in_when_those_before_have_ended() {
        let mut waiting: Vec<Running> = Vec::new();
        for a in 0..5 {
            for b in a + 1..5 {
                let name = format!("{a}{b}");
                let one = Running::point(&name, &name);
                waiting.push(
                    one.needs(volume(&a.to_string()), Use::Lock).needs(volume(&b.to_string()), Use::Lock),
                );
            }
        }
        let mut rounds = 0;
        while !waiting.is_empty() {
            let mut table = Table::default();
            let (in_now, still): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|one| table.admit(one).is_ok());
            let mut seen = BTreeSet::new();
            for thing in in_now.iter().flat_map(|one| one.needs.keys()) {
                assert!(seen.insert(thing.clone()), "{thing} twice at once");
            }
            assert!(!in_now.is_empty(), "somebody always gets in");
            waiting = still;
            rounds += 1;
        }
        assert!(rounds < 10, "some go together: {rounds}");
    }

    #[test]
    fn the_stronger_of_two_needs_counts() {
        let both = Running::restore("r").needs(volume("v"), Use::Write).needs(volume("v"), Use::Read);
        assert_eq!(both.needs[&volume("v")], Use::Write);
    }
}
