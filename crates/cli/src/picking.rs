//! Which recovery point a user means: an id or the beginning of one, `latest`, or `latest:APP`.

use crate::error::{Exit, Failure, Result};
use repo::{CommitInfo, Finding, Repository};

/// Commits of files of one directory.
pub const VOLUME: &str = "volume";
/// Commits of an application.
pub const APPLICATION: &str = "application";

/// All recovery points of a kind, oldest first, and what was found wrong with others.
pub fn all(repo: &Repository, kind: &str) -> Result<(Vec<CommitInfo>, Vec<Finding>)> {
    let outcome = tokio::task::block_in_place(|| repo.commits())?;
    let commits = outcome.done.into_iter().filter(|c| c.summary.kind == kind).collect();
    Ok((commits, outcome.findings))
}

/// The one that is meant, whatever its kind.
pub fn any(repo: &Repository, wanted: &str) -> Result<CommitInfo> {
    match wanted.starts_with("latest:") {
        // An application is named: no other kind has one.
        true => one(repo, APPLICATION, wanted),
        false => Ok(tokio::task::block_in_place(|| repo.find_commit(wanted))?),
    }
}

/// The one that is meant.
pub fn one(repo: &Repository, kind: &str, wanted: &str) -> Result<CommitInfo> {
    let (what, list) = match kind {
        VOLUME => ("volume backup", "holdfast volume list"),
        _ => ("recovery point", "holdfast points"),
    };
    if wanted == "latest" || wanted.starts_with("latest:") {
        let app = wanted.strip_prefix("latest:");
        let (commits, findings) = all(repo, kind)?;
        for finding in &findings {
            tracing::warn!("{}: {}", finding.what, finding.message);
        }
        let matches =
            |c: &CommitInfo| app.is_none_or(|a| c.summary.labels.get("application").is_some_and(|l| l == a));
        let of = app.map(|a| format!(" of application {a:?}")).unwrap_or_default();
        return commits.into_iter().rev().find(matches).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("there is no {what}{of} in {}", repo.url()))
                .next(format!("`{list}` shows what there is"))
        });
    }
    let found = tokio::task::block_in_place(|| repo.find_commit(wanted))?;
    if found.summary.kind != kind {
        return Err(Failure::new(
            Exit::NotFound,
            format!("{} is of kind {:?}, not a {what}", found.id, found.summary.kind),
        )
        .next(format!("`{list}` shows what there is")));
    }
    Ok(found)
}
