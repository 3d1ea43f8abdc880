//! The contract of a store as one function, run by tests on every store and wrapper.
//!
//! It panics on the first broken promise, which is what a test wants; no other code calls it. It works under
//! `suite/` and removes what it put, so it can be run on a bucket that holds other things.
#![allow(clippy::panic, clippy::unwrap_used, reason = "assertions for tests; see above")]

use std::sync::Barrier;

use bytes::Bytes;

use super::{Object, Put, Store, StoreError, list_all};

/// All of it; a few seconds on a remote store.
pub fn run(store: &dyn Store) {
    sweep(store);
    creates_once(store);
    reads_exactly(store);
    knows_what_is_missing(store);
    refuses_foreign_keys(store);
    lists(store);
    dates(store);
    keeps_large_objects(store);
    one_of_many_writers_wins(store);
    deletes(store);
    sweep(store);
    assert_eq!(keys(store, "suite/"), Vec::<String>::new(), "the sweep removes all");
}

fn sweep(store: &dyn Store) {
    let left = keys(store, "suite/");
    std::thread::scope(|scope| {
        for part in left.chunks(left.len().div_ceil(8).max(1)) {
            scope.spawn(move || part.iter().for_each(|key| store.delete(key).unwrap()));
        }
    });
}

fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    objects(store, prefix).into_iter().map(|object| object.key).collect()
}

fn objects(store: &dyn Store, prefix: &str) -> Vec<Object> {
    list_all(store, prefix).unwrap()
}

fn creates_once(store: &dyn Store) {
    let key = "suite/once";
    assert_eq!(store.put(key, Bytes::from_static(b"first")).unwrap(), Put::Created);
    assert_eq!(store.put(key, Bytes::from_static(b"second")).unwrap(), Put::Exists, "never replaces");
    assert_eq!(store.put(key, Bytes::from_static(b"first")).unwrap(), Put::Exists, "even by the same bytes");
    assert_eq!(store.get(key).unwrap(), "first", "the first put stays");
    assert_eq!(store.put("suite/empty", Bytes::new()).unwrap(), Put::Created);
    assert_eq!(store.get("suite/empty").unwrap(), "", "an empty object is an object");
    assert_eq!(store.size("suite/empty").unwrap(), 0);
    assert_eq!(store.put("suite/empty", Bytes::from_static(b"x")).unwrap(), Put::Exists, "an empty one too");
}

fn reads_exactly(store: &dyn Store) {
    let key = "suite/range";
    store.put(key, Bytes::from_static(b"0123456789")).unwrap();
    assert_eq!(store.size(key).unwrap(), 10);
    for (offset, len, expected) in
        [(0, 10, "0123456789"), (0, 1, "0"), (9, 1, "9"), (3, 4, "3456"), (5, 0, ""), (10, 0, "")]
    {
        assert_eq!(store.get_range(key, offset, len).unwrap(), expected, "{len} bytes at {offset}");
    }
    for (offset, len) in [(0, 11), (9, 2), (10, 1), (11, 0), (u64::MAX, 2)] {
        let result = store.get_range(key, offset, len);
        assert!(
            matches!(&result, Err(StoreError::Short { size: 10, .. })),
            "{len} bytes at {offset}: {result:?}"
        );
    }
}

fn knows_what_is_missing(store: &dyn Store) {
    let key = "suite/missing";
    let errors = [
        store.get(key).unwrap_err(),
        store.get_range(key, 0, 1).unwrap_err(),
        store.get_range(key, 0, 0).unwrap_err(),
        store.size(key).unwrap_err(),
        store.get("suite/missing/below").unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_not_found(), "{error:?}");
        assert!(error.to_string().contains("suite/missing"), "names the key: {error}");
    }
    assert_eq!(keys(store, "suite/nothing/"), Vec::<String>::new(), "an empty listing is no error");
}

fn refuses_foreign_keys(store: &dyn Store) {
    for key in ["", "/suite/x", "suite/../x", "suite//x", "suite/", "suite/a b", "suite/ä"] {
        let result = store.put(key, Bytes::new());
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "{key:?}: {result:?}");
        assert!(matches!(store.get(key), Err(StoreError::Invalid { .. })), "{key:?}");
        assert!(matches!(store.delete(key), Err(StoreError::Invalid { .. })), "{key:?}");
    }
}

/// Beyond one page of S3 (1,000 keys), in order, with sizes, by folder and by part of a name.
fn lists(store: &dyn Store) {
    let put = |first: usize| {
        for n in (first..1205).step_by(8) {
            let content = Bytes::from(vec![b'x'; n % 7]);
            store.put(&format!("suite/list/{:02x}/key-{n:05}.x_y", n % 3), content).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for first in 0..8 {
            scope.spawn(move || put(first));
        }
    });
    let mut expected: Vec<(String, u64)> =
        (0..1205).map(|n| (format!("suite/list/{:02x}/key-{n:05}.x_y", n % 3), n as u64 % 7)).collect();
    expected.sort();
    let sizes = |prefix| -> Vec<(String, u64)> {
        objects(store, prefix).into_iter().map(|object| (object.key, object.size)).collect()
    };
    assert_eq!(sizes("suite/list/"), expected);
    let folder: Vec<_> =
        expected.iter().filter(|(key, _)| key.starts_with("suite/list/01/")).cloned().collect();
    assert_eq!(sizes("suite/list/01/"), folder);
    let part: Vec<_> =
        expected.iter().filter(|(key, _)| key.starts_with("suite/list/01/key-01")).cloned().collect();
    assert!(!part.is_empty());
    assert_eq!(sizes("suite/list/01/key-01"), part, "part of a name");
    assert_eq!(keys(store, "suite/list/0"), expected.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());

    // Names that go on where another is a folder. (Their order differs between services.)
    let mut names =
        ["suite/order/a-b", "suite/order/a.b", "suite/order/a/b", "suite/order/a0"].map(str::to_owned);
    for key in &names {
        store.put(key, Bytes::new()).unwrap();
    }
    let mut listed = keys(store, "suite/order/");
    listed.sort_unstable();
    names.sort_unstable();
    assert_eq!(listed, names);
    let mut listed = keys(store, "suite/order/a");
    listed.sort_unstable();
    assert_eq!(listed, names);
    assert_eq!(keys(store, "suite/order/a/"), ["suite/order/a/b"]);

    let mut seen = 0;
    let stop = || StoreError::Other { key: "stop".into(), url: String::new(), reason: "enough".into() };
    let result = store.list("suite/list/", &mut |object| {
        seen += 1;
        // The callback may call the store.
        assert_eq!(store.size(&object.key).unwrap(), object.size);
        if seen == 3 { Err(stop()) } else { Ok(()) }
    });
    assert_eq!((seen, result.unwrap_err().key()), (3, "stop"), "an error of the callback ends the listing");
}

/// Objects carry the store's time, which goes forward from put to put (as far as it can tell them apart) and does
/// not change by being looked at.
fn dates(store: &dyn Store) {
    store.put("suite/dates/1", Bytes::from_static(b"1")).unwrap();
    store.put("suite/dates/2", Bytes::from_static(b"2")).unwrap();
    let times: Vec<_> = objects(store, "suite/dates/").into_iter().map(|object| object.modified).collect();
    store.get("suite/dates/1").unwrap();
    assert!(times[0] <= times[1], "{times:?}");
    let again: Vec<_> = objects(store, "suite/dates/").into_iter().map(|object| object.modified).collect();
    assert_eq!(times, again);
}

/// A pack: 16 MiB in one put, read back whole and by parts.
fn keeps_large_objects(store: &dyn Store) {
    let key = "suite/packs/ab/large";
    let large: Bytes = (0..16 * 1024 * 1024_u32).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    assert_eq!(store.put(key, large.clone()).unwrap(), Put::Created);
    assert!(store.get(key).unwrap() == large);
    for (offset, len) in [(0, 48), (5_000_000, 1_000_000), (large.len() - 16, 16)] {
        assert!(store.get_range(key, offset as u64, len).unwrap() == large.slice(offset..offset + len));
    }
    assert_eq!(store.size(key).unwrap(), large.len() as u64);
}

/// Eight threads put different bytes under one name: exactly one creates, and its bytes are there.
fn one_of_many_writers_wins(store: &dyn Store) {
    const WRITERS: u8 = 8;
    for round in 0..10 {
        let key = format!("suite/race/{round}");
        let start = Barrier::new(usize::from(WRITERS));
        let created: Vec<u8> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|n| {
                    let (start, key) = (&start, &key);
                    scope.spawn(move || {
                        start.wait();
                        (n, store.put(key, Bytes::from(vec![n; 10_000])).unwrap())
                    })
                })
                .collect();
            let answers = writers.into_iter().map(|writer| writer.join().unwrap());
            answers.filter(|(_, put)| *put == Put::Created).map(|(n, _)| n).collect()
        });
        assert_eq!(created.len(), 1, "exactly one writer creates {key}: {created:?}");
        assert!(store.get(&key).unwrap() == vec![created[0]; 10_000], "and its bytes stay");
    }
}

fn deletes(store: &dyn Store) {
    let key = "suite/delete/me";
    store.put(key, Bytes::from_static(b"1")).unwrap();
    // Read by range first: a store may hold the object open.
    assert_eq!(store.get_range(key, 0, 1).unwrap(), "1");
    store.delete(key).unwrap();
    store.delete(key).unwrap();
    assert!(store.get(key).unwrap_err().is_not_found());
    assert!(store.get_range(key, 0, 1).unwrap_err().is_not_found());
    assert_eq!(keys(store, "suite/delete/"), Vec::<String>::new());
    assert_eq!(store.put(key, Bytes::from_static(b"2")).unwrap(), Put::Created, "the name is free again");
    assert_eq!(store.get_range(key, 0, 1).unwrap(), "2");
}
