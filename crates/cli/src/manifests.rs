//! Where `diff --manifests` reads: a directory or file, a revision of a Git repository, or standard input.
//!
//! A revision is read with the `git` command, past the work tree: what is declared is what was committed, not what somebody
//! is typing. Nothing is checked out. A repository elsewhere is cloned bare, into a directory that goes when we are done.

use crate::context::Context;
use crate::error::{Exit, Failure, Result, io};
use crate::scratch::Scratch;
use app::drift::Manifests;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Of a rendered stream or all files of a revision; more is nobody's manifests.
const BYTES_MAX: u64 = 256 << 20;

/// What `--manifests` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Standard input: what kustomize or Helm rendered.
    Stdin,
    /// A directory or a file as it is.
    Path(PathBuf),
    /// A directory of a Git work tree, or a bare repository, at a revision.
    Revision(PathBuf, String),
    /// A repository elsewhere, a directory in it, a revision.
    Remote(String, String, String),
}

impl Source {
    /// `-`, `DIR`, `DIR@REV`, `git:URL[//PATH][@REV]`.
    pub fn parse(text: &str) -> Source {
        if text == "-" {
            return Source::Stdin;
        }
        if let Some(rest) = text.strip_prefix("git:") {
            let (url, revision) = split_revision(rest);
            // The two slashes after a scheme are no border.
            let from = url.find("://").map_or(0, |at| at + 3);
            let border = url.get(from..).and_then(|rest| rest.find("//")).map(|at| from + at);
            let (url, path) = border.map_or((url, ""), |at| (&url[..at], &url[at + 2..]));
            return Source::Remote(
                url.into(),
                path.trim_matches('/').into(),
                revision.unwrap_or("HEAD").into(),
            );
        }
        match text.rsplit_once('@') {
            // A directory may be called so.
            Some((folder, revision)) if !Path::new(text).exists() && !revision.is_empty() => {
                Source::Revision(folder.into(), revision.into())
            }
            _ => Source::Path(text.into()),
        }
    }

    /// Reads the manifests.
    pub fn read(&self, ctx: &Context) -> Result<Manifests> {
        let manifests = match self {
            Source::Stdin => of_stdin()?,
            Source::Path(path) => app::drift::read(path)
                .map_err(|e| io(format!("cannot read manifests in {}", path.display()), &e))?,
            Source::Revision(folder, revision) => at_revision(folder, "", revision)?,
            Source::Remote(url, path, revision) => {
                let scratch = Scratch::new(ctx, "manifests")?;
                let place = scratch.path().join("repository");
                let clone = ["clone", "--quiet", "--bare", "--", url.as_str()].map(str::to_owned);
                git(Path::new("."), clone.into_iter().chain([place.display().to_string()]), Vec::new())?;
                at_revision(&place, path, revision)?
            }
        };
        if manifests.declared.is_empty() {
            return Err(Failure::new(Exit::NotFound, format!("no manifests in {self}")));
        }
        Ok(manifests)
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Stdin => write!(f, "standard input"),
            Source::Path(path) => write!(f, "{}", path.display()),
            Source::Revision(folder, revision) => write!(f, "{} at {revision}", folder.display()),
            Source::Remote(url, path, revision) if path.is_empty() => write!(f, "{url} at {revision}"),
            Source::Remote(url, path, revision) => write!(f, "{path} of {url} at {revision}"),
        }
    }
}

/// The revision behind the last `@`, unless that belongs to the address: `git@host:team/repo`, `https://user@host/repo`.
fn split_revision(url: &str) -> (&str, Option<&str>) {
    let Some((front, back)) = url.rsplit_once('@') else { return (url, None) };
    let in_authority = match front.split_once("://") {
        Some((_, rest)) => !rest.contains('/'),
        None => back.contains(':'),
    };
    if in_authority || back.is_empty() { (url, None) } else { (front, Some(back)) }
}

fn of_stdin() -> Result<Manifests> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|e| io("cannot read manifests from standard input", &e))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(Failure::usage("standard input has more than 256 MiB, which are no manifests"));
    }
    Ok(app::drift::of_texts([(PathBuf::from("stdin.yaml"), text)]))
}

/// The manifests below a directory as they were committed. Links are not followed, and submodules not entered.
fn at_revision(folder: &Path, path: &str, revision: &str) -> Result<Manifests> {
    if revision.starts_with('-') || path.starts_with('-') {
        return Err(Failure::usage(format!("{revision:?} is no revision")));
    }
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let spec = format!("{revision}^{{commit}}");
    let commit =
        git(folder, owned(&["rev-parse", "--verify", "--quiet", "--end-of-options", &spec]), Vec::new())
            .map_err(|failure| Failure {
                exit: Exit::NotFound,
                message: format!("{} has no revision {revision:?}: {}", folder.display(), failure.message),
                ..failure
            })?;
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    let tree = if path.is_empty() { commit } else { format!("{commit}:{path}") };
    let listed = git(folder, owned(&["ls-tree", "-r", "-z", "-l", &tree]), Vec::new())?;
    let (mut names, mut ids, mut bytes) = (Vec::new(), String::new(), 0);
    for line in listed.split(|byte| *byte == 0) {
        let line = String::from_utf8_lossy(line);
        let Some((facts, name)) = line.split_once('\t') else { continue };
        let [mode, "blob", id, size] = facts.split_whitespace().collect::<Vec<_>>()[..] else { continue };
        if mode.starts_with("100") && app::drift::is_manifest(Path::new(name)) {
            bytes += size.parse::<u64>().unwrap_or(0);
            names.push(PathBuf::from(name));
            ids.push_str(id);
            ids.push('\n');
        }
    }
    if bytes > BYTES_MAX {
        return Err(Failure::usage(format!(
            "{} has more than 256 MiB of YAML and JSON at {revision}, which are no manifests; name the directory they are in",
            folder.display()
        )));
    }
    let contents = git(folder, owned(&["cat-file", "--batch"]), ids.into_bytes())?;
    Ok(app::drift::of_texts(names.into_iter().zip(blobs(&contents))))
}

/// What `git cat-file --batch` writes: a line with id, type and size, then the bytes and a line's end.
fn blobs(mut bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
        let size = head.rsplit(' ').next().and_then(|size| size.parse::<usize>().ok());
        let body = end + 1;
        let Some(content) = size.and_then(|size| bytes.get(body..body + size)) else { break };
        texts.push(String::from_utf8_lossy(content).into_owned());
        bytes = bytes.get(body + content.len() + 1..).unwrap_or_default();
    }
    texts
}

/// Runs git, which asks nobody anything.
fn git(folder: &Path, words: impl IntoIterator<Item = String>, input: Vec<u8>) -> Result<Vec<u8>> {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(words).env("GIT_TERMINAL_PROMPT", "0");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|e| io("cannot run git", &e).next("install git, or name a directory without a revision"))?;
    // Written beside the reading: both pipes are small.
    let pipe = child.stdin.take();
    let writer = std::thread::spawn(move || pipe.map_or(Ok(()), |mut pipe| pipe.write_all(&input)));
    let output = child.wait_with_output().map_err(|e| io("git", &e))?;
    let written = writer.join();
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(Exit::NotFound, format!("git: {}", words.trim().replace('\n', "; "))));
    }
    match written {
        Ok(Ok(())) => Ok(output.stdout),
        Ok(Err(error)) => Err(io("git", &error)),
        Err(_) => Err(Failure::new(Exit::Failed, "git: what it was asked could not be written")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_a_directory_a_revision_a_repository_or_a_stream() {
        let remote =
            |url: &str, path: &str, revision: &str| Source::Remote(url.into(), path.into(), revision.into());
        for (text, want) in [
            ("-", Source::Stdin),
            ("deploy", Source::Path("deploy".into())),
            ("deploy@v1.2", Source::Revision("deploy".into(), "v1.2".into())),
            ("deploy@", Source::Path("deploy@".into())),
            ("git:https://example.com/team/shop", remote("https://example.com/team/shop", "", "HEAD")),
            ("git:https://example.com/team/shop@main", remote("https://example.com/team/shop", "", "main")),
            ("git:https://me@example.com/shop", remote("https://me@example.com/shop", "", "HEAD")),
            ("git:https://me@example.com/shop@a/b", remote("https://me@example.com/shop", "", "a/b")),
            ("git:git@example.com:team/shop.git", remote("git@example.com:team/shop.git", "", "HEAD")),
            ("git:git@example.com:shop.git//deploy@v1", remote("git@example.com:shop.git", "deploy", "v1")),
            ("git:file:///srv/shop//deploy/prod/", remote("file:///srv/shop", "deploy/prod", "HEAD")),
        ] {
            assert_eq!(Source::parse(text), want, "{text}");
        }
    }
}
