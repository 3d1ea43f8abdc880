//! The commands, one file each.
//!
//! Each file holds its arguments, an `execute` that does the work and returns what it did, and a `run` that
//! prints it. The demo calls the same `execute` and prints the same text.

pub mod discover;
pub mod points;
pub mod repository;
pub mod show;
pub mod volume;

use crate::context::Context;
use crate::error::{Exit, Result};
use crate::output::{Output, Tone};
use repo::{Finding, Severity};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create and look after a repository
    #[command(subcommand)]
    Repo(repository::Command),
    /// Back up and restore a directory, without a cluster
    #[command(subcommand)]
    Volume(volume::Command),
    /// List applications, their parts, what is shared, what is unprotected
    Discover(discover::Args),
    /// List recovery points
    Points(points::Args),
    /// Show one recovery point: objects, volumes, certificate
    Show(show::Args),
    /// Print the version
    Version,
}

/// Runs one command.
pub async fn run(ctx: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Repo(command) => repository::run(ctx, command),
        Command::Volume(command) => volume::run(ctx, command),
        Command::Discover(args) => discover::run(ctx, args).await,
        Command::Points(args) => points::run(ctx, args),
        Command::Show(args) => show::run(ctx, args),
        Command::Version => version(ctx),
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
