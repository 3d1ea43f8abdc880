//! A directory of our own for what lasts as long as one command. Nobody else may look into it, and it is removed at the end.

use crate::context::Context;
use crate::error::{Result, io};
use std::path::{Path, PathBuf};

/// The directory.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one; `what` it is for is a part of its name.
    pub fn new(ctx: &Context, what: &str) -> Result<Scratch> {
        let mut dice = [0; 8];
        ctx.env.random(&mut dice)?;
        let name = format!("holdfast-{what}-{:016x}", u64::from_le_bytes(dice));
        let path = std::env::temp_dir().join(name);
        make(&path).map_err(|e| io(format!("cannot make {}", path.display()), &e))?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn make(path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(path)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            crate::output::note(format!("cannot remove {}: {e}", self.0.display()));
        }
    }
}
