//! Objects, the one resource version they share, and the recent history of their changes.
//!
//! Everything is in one ordered map, so a list is a range and a page is a range with a start. The
//! history serves two needs: watches read it forwards, and a list that continues from an older
//! resource version is rebuilt from it backwards, so that pages agree with each other.
//!
//! Indexes by uid and by owner live here too, because they must never disagree with the objects.
//!
//! What comes in with a snapshot stays text: as a tree of values it takes five times the memory, and most of it is
//! only listed, for which nobody needs the tree ([`Held`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use serde_json::{Value, json};

/// Names one object: resource (`deployments.apps`), namespace (empty if none), name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Such as `deployments.apps`.
    pub resource: Arc<str>,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(resource: &str, namespace: &str, name: &str) -> Key {
        Key { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The object is new.
    Added,
    /// The object changed.
    Modified,
    /// The object is gone.
    Deleted,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Event {
    /// The resource version it made.
    pub revision: u64,
    /// What happened.
    pub change: Change,
    /// To which object.
    pub key: Key,
    /// The object after the change; its last state, if it is gone.
    pub after: Arc<Value>,
    /// The object before the change.
    pub before: Option<Arc<Value>>,
}

/// An object as it is held: a tree where it was written here, text where it came in with a snapshot.
#[derive(Debug, Clone)]
pub enum Held {
    /// Ready to be looked at.
    Tree(Arc<Value>),
    /// JSON as [`Value`] writes it.
    Text(Arc<str>),
}

impl Held {
    /// The object, to be looked at.
    pub fn open(&self) -> Arc<Value> {
        match self {
            Held::Tree(object) => object.clone(),
            // It was written from a tree of values, so it is one.
            Held::Text(text) => Arc::new(serde_json::from_str(text).unwrap_or_default()),
        }
    }
}

/// The resource version asked for is older than the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// The oldest resource version that can still be used.
    pub oldest: u64,
}

/// All objects and their recent past.
#[derive(Debug)]
pub struct Store {
    objects: BTreeMap<Key, Held>,
    /// Objects of a snapshot are held as text.
    packs: bool,
    by_uid: BTreeMap<String, Key>,
    by_owner: BTreeMap<String, BTreeSet<Key>>,
    history: VecDeque<Event>,
    history_max: usize,
    revision: u64,
    /// The state at this revision and later can be rebuilt.
    oldest: u64,
}

impl Store {
    /// An empty store that remembers `history_max` changes. If it `packs`, what comes in with a snapshot is held as text;
    /// where controllers look at everything after each change, that would cost more than it saves.
    pub fn new(history_max: usize, packs: bool) -> Store {
        Store {
            objects: BTreeMap::new(),
            packs,
            by_uid: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            history: VecDeque::new(),
            history_max,
            revision: 1,
            oldest: 1,
        }
    }

    /// The resource version of the latest change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The object, if it exists.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).map(Held::open)
    }

    /// Does it exist?
    pub fn has(&self, key: &Key) -> bool {
        self.objects.contains_key(key)
    }

    /// Where the object with this uid is.
    pub fn key_of(&self, uid: &str) -> Option<&Key> {
        self.by_uid.get(uid)
    }

    /// Objects that name this uid as an owner.
    pub fn owned_by(&self, uid: &str) -> Vec<Key> {
        self.by_owner.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Objects of a resource, in one namespace or (empty) in all, ordered by namespace and name.
    pub fn list<'a>(
        &'a self,
        resource: &str,
        namespace: &str,
    ) -> impl Iterator<Item = (&'a Key, Arc<Value>)> + use<'a> {
        self.held(resource, namespace).map(|(key, held)| (key, held.open()))
    }

    /// The same, as they are held: for who needs only their names, or passes them on.
    pub fn held<'a>(
        &'a self,
        resource: &str,
        namespace: &str,
    ) -> impl Iterator<Item = (&'a Key, &'a Held)> + use<'a> {
        let start = Key::new(resource, namespace, "");
        let (resource, namespace) = (start.resource.clone(), namespace.to_string());
        self.objects.range(start..).take_while(move |(k, _)| {
            k.resource == resource && (namespace.is_empty() || k.namespace == namespace)
        })
    }

    /// Every object, as it is held.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &Held)> {
        self.objects.iter()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// The objects of a resource as they were at `revision`, in order, those behind `after` only. Costs what is taken
    /// of it, and the changes since: so a long list in pages costs as much as in one.
    pub fn list_at<'a>(
        &'a self,
        resource: &str,
        namespace: &str,
        revision: u64,
        after: Option<&Key>,
    ) -> Result<impl Iterator<Item = (&'a Key, Held)> + use<'a>, Expired> {
        if revision < self.oldest {
            return Err(Expired { oldest: self.oldest });
        }
        let first = Key::new(resource, namespace, "");
        let (resource, namespace) = (first.resource.clone(), namespace.to_string());
        let start = match after {
            Some(after) if *after >= first => Bound::Excluded(after.clone()),
            _ => Bound::Included(first),
        };
        let inside =
            move |key: &Key| key.resource == resource && (namespace.is_empty() || key.namespace == namespace);
        // What has changed since, as it was then.
        let mut past: BTreeMap<&Key, Option<&Arc<Value>>> = BTreeMap::new();
        for event in self.history.iter().rev().take_while(|e| e.revision > revision) {
            if inside(&event.key) && (start.as_ref(), Bound::Unbounded).contains(&event.key) {
                past.insert(&event.key, event.before.as_ref());
            }
        }
        let mut past = past.into_iter().peekable();
        let mut now =
            self.objects.range((start, Bound::Unbounded)).take_while(move |(k, _)| inside(k)).peekable();
        let merged = std::iter::from_fn(move || {
            let at = now.peek().map(|(key, _)| *key);
            match past.next_if(|(then, _)| at.is_none_or(|at| *then <= at)) {
                Some((key, then)) => {
                    now.next_if(|(at, _)| *at == key);
                    Some(then.map(|then| (key, Held::Tree(then.clone()))))
                }
                None => now.next().map(|(key, held)| Some((key, held.clone()))),
            }
        });
        Ok(merged.flatten())
    }

    /// Changes after `revision`, oldest first.
    pub fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Event>, Expired> {
        if revision < self.oldest {
            return Err(Expired { oldest: self.oldest });
        }
        let start = self.history.partition_point(|e| e.revision <= revision);
        Ok(self.history.range(start..))
    }

    /// Writes an object and stamps it with the next resource version.
    pub fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = Arc::new(object);
        let before = self.insert(key.clone(), &object, Held::Tree(object.clone()));
        let change = if before.is_some() { Change::Modified } else { Change::Added };
        self.record(Event { revision: self.revision, change, key, after: object.clone(), before });
        object
    }

    /// Removes an object; returns its last state, stamped with the resource version of the removal.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?.open();
        self.unindex(key, &before);
        self.revision += 1;
        let mut last = (*before).clone();
        last["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let last = Arc::new(last);
        self.record(Event {
            revision: self.revision,
            change: Change::Deleted,
            key: key.clone(),
            after: last.clone(),
            before: Some(before),
        });
        Some(last)
    }

    /// Places an object as it is, keeping its resource version. The past becomes unreadable: a
    /// snapshot has no history.
    pub fn place(&mut self, key: Key, mut object: Value) {
        let own = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
        match own {
            Some(own) => self.revision = self.revision.max(own),
            None => {
                self.revision += 1;
                object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            }
        }
        if self.packs {
            self.insert(key, &object, Held::Text(object.to_string().into()));
        } else {
            let object = Arc::new(object);
            self.insert(key, &object, Held::Tree(object.clone()));
        }
        self.history.clear();
        self.oldest = self.revision;
    }

    fn insert(&mut self, key: Key, object: &Value, held: Held) -> Option<Arc<Value>> {
        let before = self.get(&key);
        if let Some(before) = &before {
            self.unindex(&key, before);
        }
        if let Some(uid) = object["metadata"]["uid"].as_str() {
            self.by_uid.insert(uid.to_string(), key.clone());
        }
        for owner in owner_uids(object) {
            self.by_owner.entry(owner).or_default().insert(key.clone());
        }
        self.objects.insert(key, held);
        before
    }

    fn unindex(&mut self, key: &Key, object: &Value) {
        if let Some(uid) = object["metadata"]["uid"].as_str()
            && self.by_uid.get(uid) == Some(key)
        {
            self.by_uid.remove(uid);
        }
        for owner in owner_uids(object) {
            if let Some(keys) = self.by_owner.get_mut(&owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(&owner);
                }
            }
        }
    }

    fn record(&mut self, event: Event) {
        self.history.push_back(event);
        while self.history.len() > self.history_max {
            if let Some(dropped) = self.history.pop_front() {
                self.oldest = dropped.revision;
            }
        }
    }
}

fn owner_uids(object: &Value) -> Vec<String> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().filter_map(|o| o["uid"].as_str()).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, x: u64) -> Value {
        json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "x": x})
    }

    #[test]
    fn a_list_from_the_past_is_what_it_was() {
        let mut store = Store::new(100, true);
        let key = |name: &str| Key::new("pods", "ns", name);
        store.put(key("a"), object("a", 1));
        store.put(key("b"), object("b", 1));
        let then = store.revision();
        store.put(key("a"), object("a", 2));
        store.remove(&key("b"));
        store.put(key("c"), object("c", 1));
        let seen = |after: Option<&Key>| -> Vec<(String, u64)> {
            let past = store.list_at("pods", "ns", then, after).unwrap();
            past.map(|(k, v)| (k.name.clone(), v.open()["x"].as_u64().unwrap())).collect()
        };
        let (a, b) = (("a".to_owned(), 1), ("b".to_owned(), 1));
        assert_eq!(seen(None), [a, b.clone()]);
        assert_eq!(seen(Some(&key("a"))), [b], "what was removed since is on its page");
        assert_eq!(seen(Some(&key("b"))), []);
        assert_eq!(store.since(then).unwrap().count(), 3);
    }

    #[test]
    fn a_revision_older_than_the_history_is_expired() {
        let mut store = Store::new(2, true);
        let start = store.revision();
        for x in 0..3 {
            store.put(Key::new("pods", "ns", "a"), object("a", x));
        }
        assert!(store.since(start).is_err(), "one change was forgotten");
        assert_eq!(store.since(start + 1).unwrap().count(), 2);
        assert!(store.list_at("pods", "ns", start, None).is_err());
    }

    #[test]
    fn what_a_snapshot_brought_is_listed_watched_and_removed_like_what_was_written() {
        for packs in [true, false] {
            let mut store = Store::new(10, packs);
            let key = |name: &str| Key::new("pods", "ns", name);
            store.place(key("a"), object("a", 1));
            store.place(key("b"), object("b", 1));
            let then = store.revision();
            assert_eq!(store.get(&key("a")).unwrap()["x"], 1);
            assert_eq!(store.key_of("uid-b"), Some(&key("b")));
            store.put(key("a"), object("a", 2));
            assert_eq!(store.remove(&key("b")).unwrap()["x"], 1);
            assert_eq!(store.key_of("uid-b"), None);
            let past: Vec<Value> = store
                .list_at("pods", "ns", then, None)
                .unwrap()
                .map(|(_, v)| v.open()["x"].clone())
                .collect();
            assert_eq!(past, [1, 1]);
            let now: Vec<Value> = store.list("pods", "").map(|(_, v)| v["x"].clone()).collect();
            assert_eq!(now, [2]);
            let first = store.since(then).unwrap().next().unwrap();
            assert_eq!(first.before.as_ref().unwrap()["x"], 1, "a watch is told what was there");
        }
    }

    #[test]
    fn a_removed_dependent_leaves_the_owner_index() {
        let mut store = Store::new(10, true);
        let key = Key::new("pods", "ns", "a");
        store.put(key.clone(), json!({"metadata": {"name": "a", "ownerReferences": [{"uid": "u1"}]}}));
        assert_eq!(store.owned_by("u1"), std::slice::from_ref(&key));
        store.put(key.clone(), json!({"metadata": {"name": "a"}}));
        assert!(store.owned_by("u1").is_empty());
    }
}
