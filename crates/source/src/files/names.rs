//! The names of one directory, sorted: one behind the other, with ten bytes each to find them by.
//!
//! A directory must be known whole before its first name can be told in order, and mail spools and caches
//! have millions of names in one: so they are not kept as strings, each with an allocation of its own.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::sys;

#[derive(Default)]
pub(super) struct Names {
    /// A byte for the kind, the name, and the byte that ends it.
    bytes: Vec<u8>,
    /// Where each begins; the last one first.
    starts: Vec<usize>,
}

impl Names {
    /// Reads the names of a directory. After an error, those read before it are there.
    pub fn read(dir: impl AsFd) -> (Names, Result<(), Errno>) {
        let mut names = Names::default();
        let outcome = sys::each_name(dir, &mut |name, kind| {
            names.starts.push(names.bytes.len());
            names.bytes.push(KINDS.iter().position(|one| *one == kind).unwrap_or(0) as u8);
            names.bytes.extend_from_slice(name.to_bytes_with_nul());
        });
        let mut starts = std::mem::take(&mut names.starts);
        starts.sort_unstable_by(|a, b| names.name(*b).cmp(names.name(*a)));
        // Some file systems list a name twice while the directory changes.
        starts.dedup_by(|a, b| names.name(*a) == names.name(*b));
        names.starts = starts;
        (names, outcome)
    }

    /// The name that begins there, as bytes that end with a zero.
    fn name(&self, start: usize) -> &CStr {
        let rest = self.bytes.get(start + 1..).unwrap_or_default();
        CStr::from_bytes_until_nul(rest).unwrap_or_default()
    }

    /// Takes the next name in order.
    pub fn pop(&mut self) -> Option<(CString, FileType)> {
        let start = self.starts.pop()?;
        let kind = self.bytes.get(start).and_then(|kind| KINDS.get(usize::from(*kind)));
        Some((self.name(start).to_owned(), kind.copied().unwrap_or(FileType::Unknown)))
    }

    /// Nothing more is wanted.
    pub fn clear(&mut self) {
        *self = Names::default();
    }
}

/// What a listing can say an entry is.
const KINDS: [FileType; 8] = [
    FileType::Unknown,
    FileType::RegularFile,
    FileType::Directory,
    FileType::Symlink,
    FileType::Fifo,
    FileType::Socket,
    FileType::CharacterDevice,
    FileType::BlockDevice,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn names_come_in_order_of_their_bytes_each_with_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = BTreeMap::new();
        for name in [&b"b"[..], b"a", b"a b", b"a\xff", b"Z", b"\x01", b"aa", &[b'x'; 255]] {
            std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
            expected.insert(name.to_vec(), FileType::RegularFile);
        }
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("l")).unwrap();
        expected.extend([(b"d".to_vec(), FileType::Directory), (b"l".to_vec(), FileType::Symlink)]);
        let (mut names, outcome) = Names::read(std::fs::File::open(dir.path()).unwrap());
        outcome.unwrap();
        let found = std::iter::from_fn(|| names.pop()).map(|(name, kind)| (name.into_bytes(), kind));
        assert_eq!(found.collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
    }
}
