//! Files of several names: which path of the tree is the first of each, for as long as other names may come.
//!
//! A file leaves memory with its last name. Where millions wait for a name that comes much later (a copy
//! of a copy of a directory, all of links), those that waited longest go into a table that does not grow in memory.

use std::collections::HashMap;

use repo::{Error, Repository, Spill};

use super::sys::Meta;

/// What a file that waits takes in memory besides its path.
const LINK_BYTES: usize = 120;

type Inode = ((u32, u32), u64);

pub(super) struct Links<'a> {
    repository: &'a Repository,
    /// How much may wait in memory.
    memory: usize,
    waiting: HashMap<Inode, Link>,
    waiting_bytes: usize,
    /// The rest: by inode, the file's size and times and its path.
    rest: Option<Spill>,
}

struct Link {
    path: Vec<u8>,
    names_left: u32,
    stamp: [u8; 24],
}

impl<'a> Links<'a> {
    pub fn new(repository: &'a Repository) -> Links<'a> {
        let memory = repository.budget().walk / 4;
        Links { repository, memory, waiting: HashMap::new(), waiting_bytes: 0, rest: None }
    }

    /// The path of the file, if one of its names was met before; this is one more.
    pub fn seen(&mut self, meta: &Meta) -> Result<Option<Vec<u8>>, Error> {
        let inode = (meta.dev, meta.ino);
        if let Some(link) = self.waiting.get_mut(&inode) {
            link.names_left = link.names_left.saturating_sub(1);
            if link.names_left > 0 {
                return Ok(Some(link.path.clone()));
            }
            let link = self.waiting.remove(&inode);
            return Ok(link.map(|link| {
                self.waiting_bytes -= weight(&link.path);
                link.path
            }));
        }
        let Some(rest) = &self.rest else { return Ok(None) };
        let Some(known) = rest.get(&name_of(inode))? else { return Ok(None) };
        // Nobody counts the names of these, and the file may be gone and its number another's by now. Then it
        // is read, like one that was written to since: right, if not linked.
        Ok(known.strip_prefix(&stamp(meta)).map(<[u8]>::to_vec))
    }

    /// A file whose other names may still come.
    pub fn insert(&mut self, meta: &Meta, path: Vec<u8>) -> Result<(), Error> {
        self.waiting_bytes += weight(&path);
        let link = Link { path, names_left: meta.nlink.saturating_sub(1), stamp: stamp(meta) };
        if let Some(before) = self.waiting.insert((meta.dev, meta.ino), link) {
            self.waiting_bytes -= weight(&before.path);
        }
        if self.waiting_bytes <= self.memory {
            return Ok(());
        }
        let rest = match &mut self.rest {
            Some(rest) => rest,
            None => self.rest.insert(self.repository.spill(self.memory)?),
        };
        for (inode, link) in self.waiting.drain() {
            rest.insert(&name_of(inode), &[&link.stamp, link.path.as_slice()].concat())?;
        }
        self.waiting_bytes = 0;
        Ok(())
    }
}

fn weight(path: &[u8]) -> usize {
    path.len() + LINK_BYTES
}

fn name_of(((major, minor), inode): Inode) -> Vec<u8> {
    [major.to_le_bytes().as_slice(), &minor.to_le_bytes(), &inode.to_le_bytes()].concat()
}

/// What tells that it is the file it was.
fn stamp(meta: &Meta) -> [u8; 24] {
    let mut stamp = [0; 24];
    stamp[..8].copy_from_slice(&meta.size.to_le_bytes());
    stamp[8..16].copy_from_slice(&meta.mtime.to_le_bytes());
    stamp[16..].copy_from_slice(&meta.ctime.to_le_bytes());
    stamp
}
