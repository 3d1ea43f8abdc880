//! A part of a tree as a tree of its own.
//!
//! A directory becomes the root; anything else becomes the one entry below it. A hard link whose file lies
//! outside of the part brings the file along: the first such name becomes the file, the others repeat it.

use std::collections::HashMap;

use repo::{NodeKind, TreeEntry, TreeReader};

use super::place::split;
use super::{Error, shown};

/// What of a tree is wanted.
pub(super) struct Select {
    part: Option<Part>,
}

struct Part {
    path: Vec<u8>,
    /// Files outside that names inside repeat: the entry, and the first path inside (as in the part).
    outside: HashMap<Vec<u8>, (Option<TreeEntry>, Vec<u8>)>,
}

impl Select {
    /// Everything, or what lies at `subpath`, for which the tree is read.
    pub fn new<'t>(subpath: Option<&[u8]>, tree: impl Fn() -> TreeReader<'t>) -> Result<Select, Error> {
        let Some(path) = subpath.filter(|path| !path.is_empty()) else { return Ok(Select { part: None }) };
        let mut part = Part { path: path.to_vec(), outside: HashMap::new() };
        let mut found = false;
        for entry in tree() {
            let entry = entry?;
            found |= entry.path == path;
            let Some(inside) = part.inside(&entry.path) else { continue };
            if let NodeKind::HardLink { target } = &entry.kind
                && part.inside(target).is_none()
            {
                part.outside.entry(target.clone()).or_insert((None, inside));
            }
        }
        if !found {
            return Err(Error::NoSuchPath { path: shown(path) });
        }
        if !part.outside.is_empty() {
            for entry in tree() {
                let entry = entry?;
                if let Some((place, _)) = part.outside.get_mut(&entry.path)
                    && matches!(entry.kind, NodeKind::File { .. })
                {
                    *place = Some(entry);
                }
            }
        }
        Ok(Select { part: Some(part) })
    }

    /// The entries wanted, under their new paths.
    pub fn entries<'s>(
        &'s self,
        tree: TreeReader<'s>,
    ) -> impl Iterator<Item = Result<TreeEntry, repo::Error>> + 's {
        tree.filter_map(move |entry| match (entry, &self.part) {
            (Ok(entry), Some(part)) => part.entry(entry).map(Ok),
            (other, _) => Some(other),
        })
    }
}

impl Part {
    /// The path as it is in the part.
    fn inside(&self, path: &[u8]) -> Option<Vec<u8>> {
        match path.strip_prefix(self.path.as_slice())? {
            b"" => Some(Vec::new()),
            [b'/', rest @ ..] => Some(rest.to_vec()),
            _ => None,
        }
    }

    fn entry(&self, mut entry: TreeEntry) -> Option<TreeEntry> {
        let mut path = self.inside(&entry.path)?;
        if path.is_empty() && entry.kind != NodeKind::Directory {
            path = split(&self.path).1.to_vec();
        }
        if let NodeKind::HardLink { target } = &mut entry.kind {
            match self.outside.get(target.as_slice()) {
                Some((file, first)) if *first == path || first.is_empty() => {
                    entry = file.clone()?;
                }
                Some((_, first)) => *target = first.clone(),
                None => *target = self.inside(target)?,
            }
        }
        entry.path = path;
        Some(entry)
    }
}
