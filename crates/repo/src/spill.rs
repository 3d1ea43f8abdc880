//! A table that may grow beyond the memory it is given: what is new lies in memory, the rest in sorted runs and
//! a log, in files without a name (or in memory, where no place for files is known).
//!
//! For what grows with a tree or a write and must be found again by an exact name: chunks a write has taken
//! in, files of several names. Everything in the files is sealed with a key of this repository: a list of
//! names is as much a secret as the tree it came from.

use std::collections::HashMap;
use std::sync::Arc;

use crate::crypto::{CacheCipher, Keys};
use crate::error::Error;
use crate::index::run::Run;
use crate::index::{Trouble, merge_runs, run_of_keys};
use crate::local::{Local, Scratch, Spot};
use crate::repo::Repository;

/// What a key takes in memory: 16 bytes of it, its place, and what the table adds.
const ENTRY_BYTES: usize = 25;
/// The longest value.
const VALUE_MAX: usize = (1 << LENGTH_BITS) - 1;
const LENGTH_BITS: u32 = 22;
/// What kind of sealed part a value is.
const KIND_VALUE: u32 = 3;

/// A table from names to values.
pub struct Spill {
    local: Arc<Local>,
    keys: Keys,
    salt: [u8; 32],
    /// Places of values by the first half of the hash of their name.
    young: HashMap<[u8; 16], u64>,
    young_max: usize,
    runs: Vec<Arc<Run>>,
    log: Option<Log>,
}

/// Values, one behind the other.
struct Log {
    scratch: Scratch,
    cipher: CacheCipher,
    length: u64,
}

impl std::fmt::Debug for Spill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let old: usize = self.runs.iter().map(|run| run.len()).sum();
        write!(f, "Spill({} in memory, {old} out of it)", self.young.len())
    }
}

impl Repository {
    /// A table that takes about so many bytes of memory, however much is put into it.
    pub fn spill(&self, memory_bytes: usize) -> Result<Spill, Error> {
        // A hash table fills seven eighths of a power of two, and then doubles.
        let entries = (memory_bytes / ENTRY_BYTES).max(16);
        let young_max = (1 << entries.ilog2()) / 8 * 7;
        let local = self.local().clone();
        let salt = local.salt()?;
        let keys = self.secrets().clone();
        Ok(Spill { local, keys, salt, young: HashMap::new(), young_max, runs: Vec::new(), log: None })
    }
}

/// Does something at the first place that takes it.
fn at_any<T>(local: &Local, mut work: impl FnMut(Spot) -> Result<T, Trouble>) -> Result<T, Error> {
    let mut last = None;
    for spot in local.spots_for_now() {
        match work(spot) {
            Ok(done) => return Ok(done),
            Err(Trouble::Error(error)) => return Err(error),
            Err(Trouble::Broken | Trouble::Vanished) => return Err(unreadable()),
            Err(Trouble::Place(error)) => last = Some(error),
        }
    }
    let why = last.map_or_else(String::new, |error| format!(": {error}"));
    Err(Error::failed(format!("there is no place for temporary data, not even memory{why}")))
}

fn unreadable() -> Error {
    Error::failed(
        "a temporary file does not give back what was written to it; look at the disk it lies on, or name another place for temporary files",
    )
}

impl Spill {
    fn hash(&self, name: &[u8]) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&blake3::keyed_hash(&self.salt, name).as_bytes()[..16]);
        half
    }

    /// Puts a value under a name; `false` if the name is taken, and then nothing changes.
    pub fn insert(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Error> {
        let key = self.hash(name);
        if self.find(&key)?.is_some() {
            return Ok(false);
        }
        let place = if value.is_empty() { 0 } else { self.write(value)? };
        self.put(key, place)?;
        Ok(true)
    }

    /// Whether there is such a name.
    pub fn contains(&self, name: &[u8]) -> Result<bool, Error> {
        Ok(self.find(&self.hash(name))?.is_some())
    }

    /// The value under a name.
    pub fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.find(&self.hash(name))?.map(|place| self.read(place)).transpose()
    }

    /// Says that a name will not be asked for again. Gives back its memory, if it is still in memory.
    pub fn forget(&mut self, name: &[u8]) {
        let key = self.hash(name);
        self.young.remove(&key);
    }

    /// Takes in a key that is a hash already; `false` if it was there.
    pub(crate) fn insert_key(&mut self, key: [u8; 16]) -> Result<bool, Error> {
        if self.find(&key)?.is_some() {
            return Ok(false);
        }
        self.put(key, 0)?;
        Ok(true)
    }

    /// Whether a key is there.
    pub(crate) fn contains_key(&self, key: &[u8; 16]) -> Result<bool, Error> {
        Ok(self.find(key)?.is_some())
    }

    fn find(&self, key: &[u8; 16]) -> Result<Option<u64>, Error> {
        if let Some(place) = self.young.get(key) {
            return Ok(Some(*place));
        }
        let mut found = Vec::new();
        for run in &self.runs {
            run.find_raw(halves(key), &mut found).map_err(|_| unreadable())?;
            if let Some(place) = found.first() {
                return Ok(Some(*place));
            }
        }
        Ok(None)
    }

    fn put(&mut self, key: [u8; 16], place: u64) -> Result<(), Error> {
        if self.young.len() >= self.young_max {
            self.age()?;
        }
        self.young.insert(key, place);
        Ok(())
    }

    /// Writes what is in memory as a run, and merges runs of about the same size.
    fn age(&mut self) -> Result<(), Error> {
        let mut sorted: Vec<((u64, u64), u64)> =
            self.young.iter().map(|(key, place)| (halves(key), *place)).collect();
        sorted.sort_unstable();
        let (local, keys) = (&self.local, &self.keys);
        self.runs.push(Arc::new(at_any(local, |spot| run_of_keys(local, keys, spot, &sorted))?));
        drop(sorted);
        self.young.clear();
        while let [.., before, last] = self.runs.as_slice()
            && before.len() < 2 * last.len()
        {
            let pair = vec![before.clone(), last.clone()];
            let merged = at_any(local, |spot| merge_runs(local, keys, spot, pair.clone()))?;
            self.runs.truncate(self.runs.len() - 2);
            self.runs.push(Arc::new(merged));
        }
        Ok(())
    }

    fn write(&mut self, value: &[u8]) -> Result<u64, Error> {
        if value.len() > VALUE_MAX {
            return Err(Error::invalid(format!("a value of {} bytes in a table", value.len())));
        }
        let log = match &mut self.log {
            Some(log) => log,
            None => {
                let scratch = at_any(&self.local, |spot| Ok(self.local.scratch(spot, "")?))?;
                let cipher = self.keys.index_cache(&self.salt)?;
                self.log.insert(Log { scratch, cipher, length: 0 })
            }
        };
        let (at, mut sealed) = (log.length, value.to_vec());
        log.cipher.seal(KIND_VALUE, at, &mut sealed)?;
        log.scratch.write_at(&sealed, at).map_err(|error| {
            Error::failed(format!("a temporary file cannot be written: {error}; make room where it lies"))
        })?;
        log.length += sealed.len() as u64;
        Ok(at << LENGTH_BITS | value.len() as u64)
    }

    fn read(&self, place: u64) -> Result<Vec<u8>, Error> {
        let length = (place & VALUE_MAX as u64) as usize;
        let Some(log) = self.log.as_ref().filter(|_| length > 0) else { return Ok(Vec::new()) };
        let at = place >> LENGTH_BITS;
        let mut value = vec![0; length + 16];
        log.scratch.read_at(&mut value, at).map_err(|_| unreadable())?;
        if log.cipher.open(KIND_VALUE, at, &mut value) { Ok(value) } else { Err(unreadable()) }
    }
}

fn halves(key: &[u8; 16]) -> (u64, u64) {
    let number = u128::from_be_bytes(*key);
    ((number >> 64) as u64, number as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::store::mem::MemStore;
    use crate::*;

    #[test]
    fn r6_a_table_keeps_everything_and_its_memory() {
        let disk = tempfile::tempdir().unwrap();
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let (store, env) = (std::sync::Arc::new(MemStore::new()), Env::fixed(1, 1));
        let repo = Repository::init(store, &Passphrase::new("x"), &options, &env).unwrap();
        let full = disk.path().join("not there");
        for temporary in [Some(disk.path().to_owned()), Some(full), None] {
            let local = LocalOptions { temporary, ..LocalOptions::default() };
            let mut table = repo.clone().with_local(&local).spill(5_000).unwrap();
            let mut model = BTreeMap::new();
            for number in 0..3_000_u32 {
                let name =
                    blake3::hash(&number.to_le_bytes()).to_hex()[..number as usize % 60 + 4].to_owned();
                let value = vec![number as u8; number as usize % 300];
                let is_new = table.insert(name.as_bytes(), &value).unwrap();
                assert_eq!(is_new, !model.contains_key(&name), "{name}");
                model.entry(name).or_insert(value);
                assert!(table.young.len() <= 112, "{table:?}");
            }
            assert!(table.runs.len() <= 8, "{}", table.runs.len());
            for (name, value) in &model {
                assert_eq!(table.get(name.as_bytes()).unwrap().as_ref(), Some(value));
                assert!(!table.contains(format!("{name}!").as_bytes()).unwrap());
            }
            assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0, "files have no names");
            table.insert(b"last", b"one").unwrap();
            table.forget(b"last");
            assert_eq!(table.get(b"last").unwrap(), None);
        }
    }
}
