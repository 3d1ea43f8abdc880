//! A bounded memory of what was used last.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Keeps values up to a total weight; the ones not used for longest go first.
pub(crate) struct Lru<K, V> {
    values: HashMap<K, (V, usize, u64)>,
    by_use: BTreeMap<u64, K>,
    clock: u64,
    weight: usize,
    weight_max: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> Lru<K, V> {
    pub(crate) fn new(weight_max: usize) -> Lru<K, V> {
        Lru { values: HashMap::new(), by_use: BTreeMap::new(), clock: 0, weight: 0, weight_max }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        let (value, _, used) = self.values.get_mut(key)?;
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, *key);
        Some(value.clone())
    }

    pub(crate) fn put(&mut self, key: K, value: V, weight: usize) {
        if weight > self.weight_max {
            return;
        }
        self.clock += 1;
        if let Some((_, old, used)) = self.values.insert(key, (value, weight, self.clock)) {
            self.by_use.remove(&used);
            self.weight -= old;
        }
        self.by_use.insert(self.clock, key);
        self.weight += weight;
        while self.weight > self.weight_max {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some((_, weight, _)) = self.values.remove(&oldest) {
                self.weight -= weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_the_weight_holds() {
        let mut lru = Lru::new(10);
        lru.put("a", 1, 4);
        lru.put("b", 2, 4);
        assert_eq!(lru.get(&"a"), Some(1));
        lru.put("c", 3, 4);
        assert_eq!((lru.get(&"a"), lru.get(&"b"), lru.get(&"c")), (Some(1), None, Some(3)));
        lru.put("a", 9, 10);
        assert_eq!((lru.get(&"a"), lru.get(&"c"), lru.weight), (Some(9), None, 10));
        lru.put("huge", 0, 11);
        assert_eq!((lru.get(&"huge"), lru.get(&"a")), (None, Some(9)));
    }
}
