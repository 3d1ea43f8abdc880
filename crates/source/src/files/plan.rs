//! The plan of a restore: the tree read once, before anything is written.
//!
//! What no honest backup holds is refused here: `..`, absolute names, children of what is no directory,
//! links to what does not come before them. The reader of trees refuses the same; a restore does not rely
//! on it, and it is run by root.

use repo::{Cancel, NodeKind, Repository, Spill};

use super::error::Error;
use super::place::{plain_name, split};
use super::restore::Entries;
use super::{fill, shown};

/// What is known of a tree before anything is written.
pub(super) struct Plan {
    pub entries: u64,
    pub bytes: u64,
    /// What hard links lead to.
    pub link_targets: LinkTargets,
    /// The last entry that could be read.
    pub last: Option<Vec<u8>>,
    /// Why the tree cannot be read beyond these entries.
    pub cut: Option<repo::Error>,
}

/// What hard links lead to, and which of it is in the target by now. Takes as much memory for any number of links.
pub(super) struct LinkTargets {
    wanted: Spill,
    there: Spill,
    any: bool,
}

impl LinkTargets {
    fn new(repository: &Repository) -> Result<LinkTargets, repo::Error> {
        let memory = repository.budget().walk / 4;
        Ok(LinkTargets { wanted: repository.spill(memory)?, there: repository.spill(memory)?, any: false })
    }

    fn want(&mut self, path: &[u8]) -> Result<(), repo::Error> {
        self.any = true;
        self.wanted.insert(path, b"").map(|_| ())
    }

    /// A file is whole and under its name.
    pub fn is_there(&mut self, path: &[u8]) -> Result<(), repo::Error> {
        if self.any && self.wanted.contains(path)? {
            self.there.insert(path, b"")?;
        }
        Ok(())
    }

    /// Whether the file that a hard link leads to is one of the tree, whole and under its name.
    pub fn has(&self, path: &[u8]) -> Result<bool, repo::Error> {
        self.there.contains(path)
    }
}

/// Whether a part of the stream is gone or damaged, so that what comes before it is still good; as
/// opposed to a stream that arrived well and says what no tree says.
fn lost_in_store(error: &repo::Error) -> bool {
    match error {
        repo::Error::Damaged { object, .. } => object.starts_with(repo::id::PACKS),
        error => error.is_damage(),
    }
}

impl Plan {
    /// Reads the whole tree.
    pub fn make(entries: Entries<'_>, repository: &Repository, cancel: &Cancel) -> Result<Plan, Error> {
        let link_targets = LinkTargets::new(repository)?;
        let mut plan = Plan { entries: 0, bytes: 0, link_targets, last: None, cut: None };
        // The directories on the way down to the last entry.
        let mut way: Vec<Vec<u8>> = vec![Vec::new()];
        for entry in entries {
            cancel.check()?;
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if plan.entries > 0 && lost_in_store(&error) => {
                    plan.cut = Some(error);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            let refuse = |what: &str| Error::Refused { path: shown(&entry.path), what: what.into() };
            if let Some(last) = &plan.last
                && repo::walk_order(last, &entry.path) != std::cmp::Ordering::Less
            {
                return Err(refuse("it is named twice or out of order"));
            }
            if !entry.path.is_empty() {
                let (parent, name) = split(&entry.path);
                plain_name(name).map_err(refuse)?;
                while way.last().is_some_and(|at| at != parent) {
                    way.pop();
                }
                if way.is_empty() {
                    return Err(refuse("its parent is no directory of the tree"));
                }
            } else if entry.kind != NodeKind::Directory {
                return Err(refuse("the root of the tree is no directory"));
            }
            match &entry.kind {
                NodeKind::Directory if entry.path.is_empty() => {}
                NodeKind::Directory => way.push(entry.path.clone()),
                NodeKind::File { content, .. } => {
                    if !fill::adds_up(&entry.kind) {
                        return Err(refuse("its size, content and holes do not add up"));
                    }
                    plan.bytes = plan.bytes.saturating_add(content.length());
                }
                NodeKind::HardLink { target } => {
                    let earlier = repo::walk_order(target, &entry.path) == std::cmp::Ordering::Less;
                    if !earlier || target.is_empty() {
                        return Err(refuse("it repeats a file that does not come before it"));
                    }
                    plan.link_targets.want(target)?;
                }
                NodeKind::Symlink { target } if target.is_empty() || target.contains(&0) => {
                    return Err(refuse("it points nowhere"));
                }
                _ => {}
            }
            plan.entries += 1;
            plan.last = Some(entry.path);
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use repo::TreeEntry;

    use super::*;

    /// `d path`, `f path`, `s path -> target`, `h path -> target`.
    fn plan(repository: &Repository, lines: &[&str]) -> Result<Plan, Error> {
        let entry = |line: &&str| {
            let (kind, rest) = line.split_at(2);
            let (path, target) = rest.split_once(" -> ").unwrap_or((rest, ""));
            let target = target.as_bytes().to_vec();
            let kind = match kind {
                "d " => NodeKind::Directory,
                "f " => NodeKind::File {
                    ctime: 0,
                    inode: 0,
                    size: 0,
                    content: repo::Content::Extents(Vec::new()),
                    holes: Vec::new(),
                },
                "s " => NodeKind::Symlink { target },
                _ => NodeKind::HardLink { target },
            };
            let path = path.as_bytes().to_vec();
            Ok(TreeEntry { path, kind, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() })
        };
        Plan::make(Box::new(lines.iter().map(entry)), repository, &Cancel::new())
    }

    /// The reader of trees refuses these already; here it is not asked.
    #[test]
    fn a_plan_refuses_what_leads_elsewhere_whoever_read_it() {
        let store = std::sync::Arc::new(repo::store::mem::MemStore::new());
        let options = repo::InitOptions { kdf: repo::Kdf::cheap(), ..repo::InitOptions::default() };
        let env = repo::Env::fixed(0, 1);
        let repo = Repository::init(store, &repo::Passphrase::new("x"), &options, &env).unwrap();
        let plan = |lines: &[&str]| plan(&repo, lines);
        assert_eq!(
            plan(&["d ", "d a", "f a/b", "f c", "h d -> a/b", "s e -> /etc"]).ok().map(|p| p.entries),
            Some(6)
        );
        assert_eq!(plan(&["f only", "h too -> only"]).ok().map(|p| p.entries), Some(2), "a part of a tree");
        for lines in [
            &["d ", "f ../x"][..],
            &["d ", "d .."],
            &["d ", "f ."],
            &["d ", "f /etc/passwd"],
            &["d ", "d a", "f a//b"],
            &["d ", "d a", "f a/.."],
            &["d ", "d a/"],
            &["d ", "f a\0"],
            &["d ", "s a -> /etc", "f a/passwd"],
            &["d ", "f a", "f a/b"],
            &["d ", "f a/b"],
            &["d ", "f a", "f a"],
            &["d ", "s a -> /etc", "d a", "f a/b"],
            &["d ", "f b", "f a"],
            &["d ", "d a", "f b", "f a/c"],
            &["d ", "h a -> a"],
            &["d ", "h a -> b", "f b"],
            &["d ", "h a -> "],
            &["s  -> /etc"],
            &["d ", "d "],
            &["d ", "s a -> "],
        ] {
            assert!(matches!(plan(lines), Err(Error::Refused { .. })), "{lines:?}");
        }
    }
}
