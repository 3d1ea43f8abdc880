//! The order of a restore: waves of objects, such that nothing is applied before what it cannot do without.
//!
//! Two things decide. The class of a kind ([`Order`]: namespaces first, webhook configurations last) says
//! which stage an object belongs to. Within a stage the references decide: an object comes in a wave after
//! everything it needs first. Objects of one wave do not need each other and are applied side by side.
//!
//! A reference that points to a *later* stage does not move anything: the stages are ordered so that such a
//! reference is not needed for applying (an account names its secrets; what a controller owns is linked to
//! it afterwards). References in a circle inside a stage are cut at one place, and that is told.

use std::collections::{BTreeMap, BTreeSet};

use repo::Finding;

use crate::kinds::Order;
use crate::object::ObjectKey;

/// An object to be ordered: its stage, and what it needs first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Which object.
    pub key: ObjectKey,
    /// The class of its kind.
    pub stage: Order,
    /// What has to exist before it; keys that are no items are left aside.
    pub needs: BTreeSet<ObjectKey>,
}

/// Objects that can be applied side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wave {
    /// The class of their kinds.
    pub stage: Order,
    /// Indexes into the items, in the order of the keys.
    pub items: Vec<usize>,
}

/// Orders the items. The result depends on the set of items only, not on their order.
pub fn waves(items: &[Item]) -> (Vec<Wave>, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut stages: BTreeMap<Order, Vec<usize>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        stages.entry(item.stage).or_default().push(index);
    }
    let mut waves = Vec::new();
    for (stage, mut members) in stages {
        members.sort_by(|a, b| items[*a].key.cmp(&items[*b].key));
        for wave in levels(items, &members, &mut findings) {
            waves.push(Wave { stage, items: wave });
        }
    }
    (waves, findings)
}

/// Layers of one stage: each layer needs only those before it.
fn levels(items: &[Item], members: &[usize], findings: &mut Vec<Finding>) -> Vec<Vec<usize>> {
    let by_key: BTreeMap<&ObjectKey, usize> =
        members.iter().map(|index| (&items[*index].key, *index)).collect();
    // Who waits for whom, both ways, so that the work grows with the number of references.
    let mut waits: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut awaited_by: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut layer = Vec::new();
    for index in members {
        let needs = items[*index].needs.iter().filter_map(|key| by_key.get(key).copied());
        let needs: BTreeSet<usize> = needs.filter(|needed| needed != index).collect();
        if needs.is_empty() {
            layer.push(*index);
            continue;
        }
        for needed in &needs {
            awaited_by.entry(*needed).or_default().push(*index);
        }
        waits.insert(*index, needs);
    }
    let mut layers = Vec::new();
    loop {
        if layer.is_empty() {
            if waits.is_empty() {
                return layers;
            }
            let first = cut(items, members, &waits, findings);
            waits.remove(&first);
            layer.push(first);
        }
        let mut next = Vec::new();
        for done in &layer {
            for waiting in awaited_by.remove(done).into_iter().flatten() {
                if let Some(needs) = waits.get_mut(&waiting) {
                    needs.remove(done);
                    if needs.is_empty() {
                        waits.remove(&waiting);
                        next.push(waiting);
                    }
                }
            }
        }
        next.sort_by(|a, b| items[*a].key.cmp(&items[*b].key));
        layers.push(std::mem::replace(&mut layer, next));
    }
}

/// Everything left waits for something: finds one circle, and lets its first object go ahead.
fn cut(
    items: &[Item],
    members: &[usize],
    waits: &BTreeMap<usize, BTreeSet<usize>>,
    findings: &mut Vec<Finding>,
) -> usize {
    // Following needs from any waiting object must come back to an object already seen.
    let mut path = Vec::new();
    let mut place: BTreeMap<usize, usize> = BTreeMap::new();
    let mut at = members.iter().copied().find(|index| waits.contains_key(index));
    let circle = loop {
        let Some(index) = at else { break path };
        if let Some(start) = place.get(&index) {
            break path.split_off(*start);
        }
        place.insert(index, path.len());
        path.push(index);
        // In the order of the keys, so that the result does not depend on that of the items.
        let needs = waits.get(&index).into_iter().flatten().copied();
        at = needs.min_by(|a, b| items[*a].key.cmp(&items[*b].key));
    };
    let first = circle.iter().copied().min_by(|a, b| items[*a].key.cmp(&items[*b].key)).unwrap_or_default();
    let names: Vec<String> = circle.iter().map(|index| items[*index].key.to_string()).collect();
    findings.push(Finding::note(
        "reference-circle",
        items[first].key.to_string(),
        format!(
            "objects refer to each other in a circle ({}); this one is applied first",
            names.join(" -> ")
        ),
    ));
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(story: &str, items: &[(&str, Order, &[&str])], want: &[&[&str]], told: usize) {
        let key = |name: &str| ObjectKey::new("", "X", "n", name);
        let mut items: Vec<Item> = items
            .iter()
            .map(|(name, stage, needs)| Item {
                key: key(name),
                stage: *stage,
                needs: needs.iter().map(|name| key(name)).collect(),
            })
            .collect();
        for turn in 0..2 {
            let (waves, findings) = waves(&items);
            let got: Vec<Vec<&str>> = waves
                .iter()
                .map(|wave| wave.items.iter().map(|i| items[*i].key.name.as_str()).collect())
                .collect();
            assert_eq!(got, want, "{story}, turn {turn}");
            assert_eq!(findings.len(), told, "{story}: {findings:?}");
            items.reverse();
        }
    }

    #[test]
    fn what_is_needed_comes_first_and_webhooks_come_last() {
        use Order::*;
        check("nothing", &[], &[], 0);
        check(
            "stages",
            &[
                ("hook", Webhook, &[]),
                ("web", Workload, &["cfg"]),
                ("cfg", Config, &["ns"]),
                ("ns", Namespace, &[]),
                ("crd", Definition, &[]),
            ],
            &[&["ns"], &["crd"], &["cfg"], &["web"], &["hook"]],
            0,
        );
        check(
            "within a stage by need, side by side where there is none",
            &[("a", Custom, &["c"]), ("b", Custom, &[]), ("c", Custom, &["d"]), ("d", Custom, &[])],
            &[&["b", "d"], &["c"], &["a"]],
            0,
        );
        check(
            "a need of a later stage, of oneself, of a stranger",
            &[("acc", Account, &["sec", "acc", "who"]), ("sec", Config, &["acc"])],
            &[&["acc"], &["sec"]],
            0,
        );
        check(
            "a circle is cut once, and what hangs on it follows",
            &[("a", Custom, &["b"]), ("b", Custom, &["c"]), ("c", Custom, &["a"]), ("z", Custom, &["c"])],
            &[&["a"], &["c"], &["b", "z"]],
            1,
        );
        check(
            "a tail before the circle is no part of it",
            &[("a", Custom, &["b"]), ("b", Custom, &["c"]), ("c", Custom, &["b"])],
            &[&["b"], &["a", "c"]],
            1,
        );
    }
}
