//! `holdfast export`: a recovery point's objects as plain manifests.

use super::restore::OnlyArgs;
use super::{mapping, print_findings};
use crate::context::Context;
use crate::error::{Exit, Failure, Result, io};
use crate::output::{Output, counted, note};
use crate::picking;
use app::export::{ExportOptions, manifests};
use app::point::Point;
use repo::ReaderOptions;
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::task::block_in_place;

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recovery point: an id or its beginning, `latest`, or `latest:APP`
    pub point: String,
    /// Write one file an object into this new directory, instead of one stream to standard output
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave Secrets out
    #[arg(long)]
    pub no_secrets: bool,
    #[command(flatten)]
    pub only: OnlyArgs,
    #[command(flatten)]
    pub mapping: mapping::Args,
}

/// Runs it.
pub fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let options = ExportOptions {
        transform: args.mapping.transform()?,
        only: args.only.only()?,
        secrets: !args.no_secrets,
    };
    let repo = ctx.repository()?;
    let info = picking::one(&repo, picking::APPLICATION, &args.point)?;
    let point = block_in_place(|| -> Result<Point> {
        let reader = repo.reader(ReaderOptions::default())?;
        Ok(Point::read(&reader, &info)?)
    })?;
    let export = manifests(&point, &options)?;
    // Manifests may go through a pipe to kubectl; what is to be said beside them goes to standard error.
    let beside = Output::to_stderr(ctx.out.is_quiet());
    print_findings(&beside, &export.findings, ctx.global.verbose > 0);
    if ctx.global.verbose > 0 {
        for left in &export.left {
            note(format!("left out: {}: {}", left.key, left.reason));
        }
    }
    if let Some(dir) = &args.dir {
        let folders = block_in_place(|| export.write_folder(dir)).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::new(Exit::Refused, e.to_string()),
            _ => io(format!("cannot write {}", dir.display()), &e),
        })?;
        if ctx.out.is_table() {
            ctx.out.line(format!(
                "Wrote {} of point {} into {}. Apply in this order:",
                counted(export.manifests.len() as u64, "manifest", "manifests"),
                info.id.short(),
                dir.display(),
            ));
            for folder in &folders {
                ctx.out.line(format!("  kubectl apply -f {}", folder.display()));
            }
        } else {
            ctx.out.value(&json!({ "id": info.id.to_string(), "apply": folders }))?;
        }
        return Ok(Exit::Done);
    }
    if !ctx.out.is_table() && !ctx.out.is_yaml() {
        let objects: Vec<Value> = export
            .manifests
            .iter()
            .map(|m| serde_saphyr::from_str(&m.yaml))
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| Failure::new(Exit::Failed, format!("a manifest does not read back: {e}")))?;
        ctx.out.value(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }))?;
        return Ok(Exit::Done);
    }
    let mut text = Vec::new();
    export
        .write_stream(&mut text)
        .map_err(|e| Failure::new(Exit::Failed, format!("the manifests cannot be put together: {e}")))?;
    ctx.out.line(String::from_utf8_lossy(&text).trim_end());
    Ok(Exit::Done)
}
