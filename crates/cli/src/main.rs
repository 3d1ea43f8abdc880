//! `holdfast`: the command line, and `kubectl holdfast` under its other name.
//!
//! This file reads the arguments, runs one command and turns its end into an exit code. Each command is a file
//! in `commands/`; what they print goes through `output`, what went wrong through `error`.

mod cluster;
mod commands;
mod context;
mod demo;
mod error;
mod interrupt;
mod kms;
mod manifests;
mod output;
mod passphrase;
mod picking;
mod progress;
mod scratch;
mod unlock;
mod volumes;
mod when;

use clap::{CommandFactory, FromArgMatches, Parser};
use context::{Context, Global};
use error::{Exit, Failure, Result};
use std::io::Write;
use std::process::ExitCode;

/// Data protection for Kubernetes applications: back up, restore, look inside.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Start with `holdfast demo`: it needs no cluster. Exit codes: docs/exit-codes.md.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    // Two TLS providers can be linked through dependencies; ours is chosen before anything speaks TLS. An error
    // means that one is installed already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = match parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version asked for go to standard output and end with 0, mistakes with 2.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { Exit::Usage as u8 } else { 0 });
        }
    };
    let machine = cli.global.output != output::Format::Table;
    let exit = match run(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            report(&failure, machine);
            failure.exit
        }
    };
    ExitCode::from(exit as u8)
}

fn parse() -> std::result::Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let plugin = std::env::args_os().next().is_some_and(|name| {
        std::path::Path::new(&name).file_name().is_some_and(|n| n.to_string_lossy().starts_with("kubectl-"))
    });
    if plugin {
        command = command.bin_name("kubectl holdfast");
    }
    Cli::from_arg_matches(&command.try_get_matches()?)
}

fn run(cli: Cli) -> Result<Exit> {
    log(cli.global.verbose, cli.global.quiet)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot start worker threads: {e}")))?;
    let ctx = Context::new(cli.global.complete()?);
    let exit = runtime.block_on(async {
        ctx.interrupt.listen()?;
        commands::run(&ctx, cli.command).await
    });
    // A request that hangs must not keep a finished command from ending.
    runtime.shutdown_background();
    exit
}

fn log(verbose: u8, quiet: bool) -> Result<()> {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "error,repo=warn,source=warn,app=warn,cli=warn,operator=info",
        (_, 1) => "warn,repo=info,source=info,app=info,apiserver=info,cli=info,operator=info",
        (_, 2) => {
            "info,repo=debug,source=debug,app=debug,apiserver=debug,cli=debug,operator=debug,kube=debug"
        }
        _ => "trace",
    };
    let filter = std::env::var("HOLDFAST_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter)
        .map_err(|e| Failure::usage(format!("HOLDFAST_LOG={filter:?} is not a log filter: {e}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(())
}

fn report(failure: &Failure, machine: bool) {
    let mut err = std::io::stderr().lock();
    // Nobody reads: the exit code still says it.
    let _ = if machine {
        let value = serde_json::json!({ "error": {
            "exit": failure.exit as u8, "reason": failure.exit.word(),
            "message": failure.message, "next": failure.next,
        }});
        writeln!(err, "{value}")
    } else {
        writeln!(err, "error: {}", failure.message)
            .and_then(|()| failure.next.iter().try_for_each(|next| writeln!(err, "  next: {next}")))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command and option of the binary, as `verb` and `--option`.
    fn told(command: &clap::Command, verb: &str, all: &mut Vec<(String, String)>) {
        for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
            let verb = format!("{verb} {}", sub.get_name());
            all.push((verb.clone(), format!("holdfast{verb}")));
            for option in
                sub.get_arguments().filter_map(|a| a.get_long()).filter(|o| !["help", "version"].contains(o))
            {
                all.push((verb.clone(), format!("--{option}")));
            }
            told(sub, &verb, all);
        }
    }

    #[test]
    fn the_command_line_is_sound_and_its_page_tells_all_of_it() {
        Cli::command().debug_assert();
        let page = include_str!("../../../docs/cli.md");
        let mut all = Vec::new();
        told(&Cli::command(), "", &mut all);
        assert!(all.len() > 30);
        let missing: Vec<_> = all.iter().filter(|(_, word)| !page.contains(word.as_str())).collect();
        assert!(missing.is_empty(), "docs/cli.md does not tell {missing:?}");
    }
}
