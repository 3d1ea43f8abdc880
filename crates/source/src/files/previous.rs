//! The tree of the backup before, read alongside the walk.
//!
//! A file whose size, inode number, modification and change times are what they were is taken over
//! without being opened. The change time (ctime) is the one that counts: the kernel sets it at every
//! write, chmod, rename of attributes, and no call sets it back.
//!
//! It can still be fooled at the edge. A file written again within the same tick of the clock as the
//! read before it keeps its ctime, and a page that a process has mapped for writing is stamped when it
//! is first touched, not again until the kernel has written it out (30 seconds, by default). So a file
//! whose ctime is not at least [`SETTLED`] before the previous backup began is read again: its content
//! may be newer than what that backup saw. Such files were being written minutes ago and are few; reading
//! one costs time, and missing a change would cost data. The same minute absorbs the difference between
//! our clock and that of a file server.

use repo::{Content, Finding, NodeKind, TreeEntry};

use super::sys::Meta;
use super::{Parent, shown};

/// How long before the previous backup a file must have been left alone to be trusted unread.
pub(super) const SETTLED: i64 = 60 * 1_000_000_000;

/// Whether the previous entry still describes the file: then its content is what it was.
pub(super) fn unchanged(previous: &TreeEntry, meta: &Meta, started: i64) -> bool {
    let NodeKind::File { ctime, inode, size, .. } = &previous.kind else { return false };
    previous.mtime == meta.mtime
        && (*ctime, *inode, *size) == (meta.ctime, meta.ino, meta.size)
        && meta.ctime < started.saturating_sub(SETTLED)
}

/// Whether every chunk of the content is still in the repository.
pub(super) fn still_stored(content: &Content, parent: &Parent<'_>, writer: &repo::Writer) -> bool {
    match content {
        Content::Extents(extents) => extents.iter().all(|extent| writer.has(&extent.chunk)),
        Content::Stream(root) => writer.has_stream(parent.reader, root),
    }
}

/// The half of the merge that comes from the repository.
pub(super) struct Previous<'a> {
    entries: Option<repo::TreeReader<'a>>,
    next: Option<TreeEntry>,
    trouble: Option<Finding>,
}

impl<'a> Previous<'a> {
    pub fn new(parent: Option<&Parent<'a>>) -> Previous<'a> {
        let entries = parent.map(|parent| parent.reader.tree(&parent.root));
        Previous { entries, next: None, trouble: None }
    }

    /// The entry of this path, if there was one. Paths must be asked for in order.
    pub fn take(&mut self, path: &[u8]) -> Option<TreeEntry> {
        loop {
            if self.next.is_none() {
                self.next = match self.entries.as_mut()?.next()? {
                    Ok(entry) => Some(entry),
                    Err(error) => {
                        self.entries = None;
                        self.trouble = Some(Finding::warning(
                            "parent-unreadable",
                            shown(path),
                            format!(
                                "the previous backup cannot be read from here on, so files are read in full: {error}"
                            ),
                        ));
                        return None;
                    }
                };
            }
            match repo::walk_order(&self.next.as_ref()?.path, path) {
                std::cmp::Ordering::Less => self.next = None,
                std::cmp::Ordering::Equal => return self.next.take(),
                std::cmp::Ordering::Greater => return None,
            }
        }
    }

    /// What went wrong while reading it, if anything: it costs time, not data.
    pub fn trouble(&mut self) -> Option<Finding> {
        self.trouble.take()
    }
}
