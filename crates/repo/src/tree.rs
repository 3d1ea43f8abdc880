//! Trees: streams of entries in walk order, written and read one at a time.
//!
//! The order is what lets a tree of any size be read in bounded memory (R6): a directory comes before its
//! content, siblings ascend by name, so two trees are compared and a subtree is found by reading forward.

use std::cmp::Ordering;

use bytes::{Buf, BytesMut};

use crate::ahead::StreamReader;
use crate::cbor::{self, Broken, Decoder};
use crate::entry;
use crate::error::Error;
use crate::object::{ITEM_BYTES_MAX, ManifestEntry, NodeKind, Root, TreeEntry};
use crate::pack::Lane;
use crate::reader::Reader;
use crate::stream::StreamWriter;
use crate::writer::Writer;

/// How paths follow each other in a walk: as sequences of components, not as strings.
pub fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    // Components hold no NUL byte, so reading `/` as the least byte compares component by component.
    let least = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(least).cmp(b.iter().map(least))
}

/// Holds entries to what only their neighbours can show: the order, and that every parent is a directory.
/// Remembers one path.
#[derive(Default)]
struct Walk {
    started: bool,
    last: Vec<u8>,
    /// How much of `last` is the deepest directory seen on this path; `None` if the root is no directory.
    directory: Option<usize>,
}

impl Walk {
    fn step(&mut self, entry: &TreeEntry) -> Result<(), String> {
        let path = &entry.path;
        let named = || format!("the entry {:?}", String::from_utf8_lossy(path));
        let is_directory = matches!(entry.kind, NodeKind::Directory);
        if !self.started {
            if !path.is_empty() {
                return Err(format!("{} comes before the root of the tree", named()));
            }
        } else {
            if walk_order(&self.last, path) != Ordering::Less {
                return Err(format!(
                    "{} does not come after {:?}",
                    named(),
                    String::from_utf8_lossy(&self.last)
                ));
            }
            // The parent is the path without its last name. In walk order it must be an ancestor of the last
            // path or the last path itself, and at or above the deepest directory there.
            let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| &path[..at]);
            let known = self.directory.is_some_and(|deepest| {
                parent.len() <= deepest
                    && self.last.starts_with(parent)
                    && (parent.is_empty() || matches!(self.last.get(parent.len()), None | Some(b'/')))
            });
            if !known {
                return Err(format!("the parent of {} is no directory of this tree", named()));
            }
            self.directory = Some(parent.len());
        }
        if is_directory {
            self.directory = Some(path.len());
        }
        self.started = true;
        self.last.clone_from(path);
        Ok(())
    }
}

/// Writes a tree, entry by entry.
pub struct TreeWriter<'w> {
    stream: StreamWriter<'w>,
    walk: Walk,
}

impl<'w> TreeWriter<'w> {
    pub(crate) fn new(writer: &'w Writer) -> TreeWriter<'w> {
        TreeWriter { stream: writer.stream(Lane::Meta), walk: Walk::default() }
    }

    /// Writes the next entry in walk order. An entry the format does not allow is [`Error::Invalid`], and
    /// nothing of it is written: the caller may leave it out, report it and go on.
    pub fn push(&mut self, entry: &TreeEntry) -> Result<(), Error> {
        entry::check_tree_entry(entry).map_err(Error::invalid)?;
        let bytes = entry::encode_tree_entry(entry);
        if bytes.len() > ITEM_BYTES_MAX {
            return Err(Error::invalid(format!(
                "{:?} and its extended attributes are {} bytes; an entry has at most {ITEM_BYTES_MAX}",
                String::from_utf8_lossy(&entry.path),
                bytes.len()
            )));
        }
        self.walk.step(entry).map_err(Error::invalid)?;
        self.stream.append(&bytes)
    }

    /// Ends the tree.
    pub fn finish(self) -> Result<Root, Error> {
        self.stream.finish()
    }
}

/// Items of a stream, read forward, one in memory at a time.
struct Items<'r> {
    stream: StreamReader<'r>,
    buffer: BytesMut,
    what: &'static str,
}

impl<'r> Items<'r> {
    fn new(reader: &'r Reader, root: &Root, what: &'static str) -> Items<'r> {
        Items { stream: reader.whole_stream(root), buffer: BytesMut::new(), what }
    }

    fn next<T>(
        &mut self,
        decode: impl Fn(&mut Decoder<'_>) -> Result<T, Broken>,
    ) -> Result<Option<T>, Error> {
        let damaged = |root: &Root, what: String| Error::damaged(format!("{} {}", self.what, root.id), what);
        loop {
            if !self.buffer.is_empty() {
                let mut decoder = Decoder::new(&self.buffer);
                match decode(&mut decoder) {
                    Ok(item) => {
                        let length = decoder.position();
                        self.buffer.advance(length);
                        return Ok(Some(item));
                    }
                    Err(Broken::Wrong(what)) => return Err(damaged(self.stream.root(), what)),
                    Err(Broken::Short) if self.buffer.len() > ITEM_BYTES_MAX => {
                        return Err(damaged(self.stream.root(), "an item above 4 MiB".into()));
                    }
                    Err(Broken::Short) => {}
                }
            }
            match self.stream.next_chunk()? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    return Err(damaged(self.stream.root(), "it ends in the middle of an item".into()));
                }
            }
        }
    }
}

/// Reads a tree, entry by entry, each checked by itself and against its neighbours. Ends after an error.
///
/// One check is left to whoever restores: that the target of a hard link, which is a path earlier in the
/// walk, was a file. Knowing that here would take memory that grows with the tree.
pub struct TreeReader<'r> {
    items: Items<'r>,
    walk: Walk,
    ended: bool,
}

impl<'r> TreeReader<'r> {
    pub(crate) fn new(reader: &'r Reader, root: &Root) -> TreeReader<'r> {
        TreeReader { items: Items::new(reader, root, "tree"), walk: Walk::default(), ended: false }
    }
}

impl Iterator for TreeReader<'_> {
    type Item = Result<TreeEntry, Error>;

    fn next(&mut self) -> Option<Result<TreeEntry, Error>> {
        if self.ended {
            return None;
        }
        let next = self.items.next(entry::decode_tree_entry).and_then(|entry| match entry {
            Some(entry) => match self.walk.step(&entry) {
                Ok(()) => Ok(Some(entry)),
                Err(what) => Err(Error::damaged(format!("tree {}", self.items.stream.root().id), what)),
            },
            None => Ok(None),
        });
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

/// Reads a manifest whole: it names a handful of streams, not files.
pub(crate) fn read_manifest(reader: &Reader, root: &Root) -> Result<Vec<ManifestEntry>, Error> {
    if root.length > MANIFEST_BYTES_MAX {
        return Err(Error::damaged(format!("manifest {}", root.id), "it is above 64 MiB"));
    }
    let mut items = Items::new(reader, root, "manifest");
    let mut entries: Vec<ManifestEntry> = Vec::new();
    while let Some(entry) = items.next(cbor::decode_manifest_entry)? {
        if entries.last().is_some_and(|last| last.name >= entry.name) {
            return Err(Error::damaged(format!("manifest {}", root.id), "its names do not ascend"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The longest manifest; refused when written, too.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::env::Env;
    use crate::object::CommitDraft;
    use crate::reader::ReaderOptions;
    use crate::repo::{InitOptions, Repository};
    use crate::secret::{Kdf, Passphrase};
    use crate::store::mem::MemStore;
    use crate::writer::WriterOptions;

    fn node(path: &str, kind: NodeKind) -> TreeEntry {
        let path = path.as_bytes().to_vec();
        TreeEntry { path, kind, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
    }

    /// Reads a stream of these bytes as a tree: paths until the end or the error.
    fn read(bytes: &[u8]) -> (Vec<String>, Option<Error>) {
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let (store, env) = (Arc::new(MemStore::new()), Env::fixed(1, 1));
        let repo = Repository::init(store, &Passphrase::new("p"), &options, &env).unwrap();
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let mut stream = writer.stream(Lane::Meta);
        stream.append(bytes).unwrap();
        let root = stream.finish().unwrap();
        writer.commit(CommitDraft::default()).unwrap();
        let reader = repo.reader(ReaderOptions::default()).unwrap();
        let (mut paths, mut error) = (Vec::new(), None);
        for entry in reader.tree(&root) {
            match entry {
                Ok(entry) => paths.push(String::from_utf8(entry.path).unwrap()),
                Err(found) => assert!(error.replace(found).is_none(), "it ends after an error"),
            }
        }
        (paths, error)
    }

    /// A disk that lies: well-formed entries in an order no walk gives. What came before is still read.
    #[test]
    fn a_tree_that_breaks_its_order_ends_with_damage() {
        let directory = |path| node(path, NodeKind::Directory);
        let other = |path| node(path, NodeKind::Fifo);
        for (entries, good) in [
            (vec![directory(""), other("b"), other("a")], 2),
            (vec![directory(""), other("a"), other("a")], 2),
            (vec![directory(""), other("a"), other("a/b")], 2),
            (vec![directory(""), directory("a"), other("b/c")], 2),
            (vec![directory(""), directory("a"), directory("a/b"), other("a-/x")], 3),
            (vec![directory(""), directory("ab"), other("abc"), other("ab/x")], 3),
            (vec![other(""), other("a")], 1),
            (vec![other("a")], 0),
            (vec![directory(""), directory("")], 1),
        ] {
            let bytes: Vec<u8> = entries.iter().flat_map(entry::encode_tree_entry).collect();
            let (paths, error) = read(&bytes);
            assert_eq!(paths.len(), good, "{entries:?}");
            assert!(matches!(error, Some(Error::Damaged { .. })), "{error:?}");
        }
    }

    #[test]
    fn a_tree_cut_short_or_followed_by_noise_ends_with_damage() {
        let bytes: Vec<u8> = [node("", NodeKind::Directory), node("a", NodeKind::Fifo)]
            .iter()
            .flat_map(entry::encode_tree_entry)
            .collect();
        let (paths, error) = read(&bytes[..bytes.len() - 1]);
        assert_eq!((paths.len(), error.map(|error| error.is_damage())), (1, Some(true)));
        let (paths, error) = read(&[&bytes[..], b"\xff\xff"].concat());
        assert_eq!((paths.len(), error.map(|error| error.is_damage())), (2, Some(true)));
        // An item that promises more than any may have is not waited for.
        let endless = [&[0xa2, 0x00, 0x5b, 0, 0, 0, 1, 0, 0, 0, 0][..], &vec![b'x'; 6 << 20]].concat();
        let (paths, error) = read(&endless);
        assert!(paths.is_empty() && error.unwrap().to_string().contains("4 MiB"));
    }

    #[test]
    fn the_order_of_a_walk_is_that_of_components() {
        let mut paths = vec!["a-b", "a/b", "a", "", "a/b/c", "a.b", "b", "a/b-c", "ab", "a/a"];
        paths.sort_by(|a, b| walk_order(a.as_bytes(), b.as_bytes()));
        assert_eq!(paths, ["", "a", "a/a", "a/b", "a/b/c", "a/b-c", "a-b", "a.b", "ab", "b"]);
    }
}
