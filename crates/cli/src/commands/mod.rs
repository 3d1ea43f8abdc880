//! The commands, one file each.
//!
//! Each file holds its arguments and a `run` that does the work, prints what it did and returns the exit code.
//! The demo runs the same functions.

pub mod backup;
pub mod browse;
pub mod check;
pub mod copy;
pub mod delete;
pub mod diff;
pub mod discover;
pub mod export;
pub mod gc;
pub mod hold;
pub mod immutable;
pub mod import;
pub mod key;
pub mod mapping;
pub mod operator;
pub mod points;
pub mod rehearse;
pub mod repair;
pub mod repository;
pub mod restore;
pub mod retain;
pub mod show;
pub mod volume;

use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{Output, Tone};
use repo::{Finding, Severity};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The whole story on an embedded cluster, in under a minute: no cluster, no root, no network
    Demo(crate::demo::Args),
    /// Create and look after a repository
    #[command(subcommand)]
    Repo(repository::Command),
    /// Back up and restore a directory, without a cluster
    #[command(subcommand)]
    Volume(volume::Command),
    /// List applications, their parts, what is shared, what is unprotected
    Discover(discover::Args),
    /// Take a recovery point of an application, of namespaces, or of a selection
    Backup(backup::Args),
    /// List recovery points
    Points(points::Args),
    /// Show one recovery point: objects, volumes, certificate
    Show(show::Args),
    /// Compare a recovery point with another, with the cluster, or with manifests (drift)
    Diff(diff::Args),
    /// Restore a recovery point; --plan only shows what would happen
    Restore(restore::Args),
    /// Try a restore where it can do no harm, and say what would have failed
    Rehearse(rehearse::Args),
    /// Write a recovery point's objects as manifests for kubectl apply -f
    Export(export::Args),
    /// Make recovery points of another tool's backups
    #[command(subcommand)]
    Import(import::Command),
    /// Serve a recovery point as a read-only Kubernetes API for kubectl
    Browse(browse::Args),
    /// Delete the recovery points that a retention policy does not keep; --plan only shows which
    Retain(retain::Args),
    /// Delete recovery points by name
    Delete(delete::Args),
    /// Keep recovery points whatever a policy says
    #[command(subcommand)]
    Hold(hold::Command),
    /// Run the operator in a cluster: what acts on the custom resources
    Operator(operator::Args),
    /// Print the version
    Version,
    /// The application of the demo: writes numbered, checksummed records
    #[command(hide = true)]
    DemoWriter(crate::demo::writer::Args),
}

/// Runs one command.
pub async fn run(ctx: &Context, command: Command) -> Result<Exit> {
    // Before anything is done whose result could not be shown.
    if ctx.out.is_patch() && !matches!(command, Command::Diff(_)) {
        return Err(Failure::usage("-o patch is for `diff --manifests` only").next("use -o json or -o yaml"));
    }
    if ctx.out.is_dot() && !matches!(command, Command::Discover(_)) {
        return Err(Failure::usage("-o dot draws a graph, which only `holdfast discover` has"));
    }
    match command {
        Command::Demo(args) => crate::demo::run(ctx, args).await,
        Command::Repo(command) => repository::run(ctx, command),
        Command::Volume(command) => volume::run(ctx, command),
        Command::Discover(args) => discover::run(ctx, args).await,
        Command::Backup(args) => backup::run(ctx, args).await,
        Command::Points(args) => points::run(ctx, args),
        Command::Show(args) => show::run(ctx, args),
        Command::Diff(args) => diff::run(ctx, args).await,
        Command::Restore(args) => restore::run(ctx, args).await,
        Command::Rehearse(args) => rehearse::run(ctx, args).await,
        Command::Export(args) => export::run(ctx, args),
        Command::Import(command) => import::run(ctx, command).await,
        Command::Browse(args) => browse::run(ctx, args).await,
        Command::Retain(args) => retain::run(ctx, args),
        Command::Delete(args) => delete::run(ctx, args),
        Command::Hold(command) => hold::run(ctx, command),
        Command::Operator(args) => operator::run(ctx, args).await,
        Command::Version => version(ctx),
        Command::DemoWriter(args) => crate::demo::writer::run(args),
    }
}

fn version(ctx: &Context) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    if ctx.out.is_table() {
        ctx.out.line(format!("holdfast {version}"));
        ctx.out.line("repository format 1");
    } else {
        ctx.out.value(&serde_json::json!({ "version": version, "repositoryFormat": 1 }))?;
    }
    Ok(Exit::Done)
}

/// Findings as lines, worst first; notes only when asked for more.
pub fn print_findings(out: &Output, findings: &[Finding], verbose: bool) {
    const SHOWN: usize = 50;
    let mut sorted: Vec<&Finding> =
        findings.iter().filter(|f| verbose || f.severity > Severity::Note).collect();
    sorted.sort_by_key(|f| std::cmp::Reverse(f.severity));
    let hidden_notes = findings.len() - sorted.len();
    let shown = if verbose { sorted.len() } else { SHOWN };
    for finding in sorted.iter().take(shown) {
        let word = match finding.severity {
            Severity::Error => out.tone(Tone::Bad, "error"),
            Severity::Warning => out.tone(Tone::Warn, "warning"),
            Severity::Note => out.tone(Tone::Dim, "note"),
        };
        out.line(format!("{word}: {}: {} [{}]", finding.what, finding.message, finding.code));
    }
    if sorted.len() > shown {
        out.line(format!("… and {} more findings; -v or -o json shows all of them", sorted.len() - shown));
    }
    if hidden_notes > 0 && !out.is_quiet() {
        out.line(out.tone(Tone::Dim, format!("{hidden_notes} notes; -v shows them")));
    }
}

/// The exit code that findings ask for, when the work itself was done.
pub fn exit_for(findings: &[Finding]) -> Exit {
    if findings.iter().any(|f| f.severity == Severity::Error) { Exit::Incomplete } else { Exit::Done }
}

/// `KEY=VALUE`, for clap.
pub fn key_value(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form KEY=VALUE")),
    }
}
