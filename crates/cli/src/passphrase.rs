//! The passphrase: from a file, or typed without echo on a terminal. Never an argument, never a default.

use crate::context::Context;
use crate::error::{Exit, Failure, Result, io};
use repo::{Passphrase, Zeroizing};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

/// The passphrase of the repository this run works with, typed.
pub fn ask(ctx: &Context) -> Result<Passphrase> {
    Ok(Passphrase::new(prompt(ctx, "Passphrase: ", OURS)?))
}

/// The passphrase of another repository.
pub fn other(
    ctx: &Context,
    file: Option<&Path>,
    option: &str,
    url: &str,
    prefix: &str,
) -> Result<Passphrase> {
    match file {
        Some(file) => from_file(file, option),
        None => {
            let ways = format!(
                "name what opens {url}: {option} ({prefix}PASSWORD_FILE), or the variables {prefix}KEY_FILE or {prefix}KMS"
            );
            Ok(Passphrase::new(prompt(ctx, &format!("Passphrase of {url}: "), &ways)?))
        }
    }
}

/// A passphrase that is about to be set; typed twice.
pub fn ask_twice(ctx: &Context) -> Result<Passphrase> {
    let first = Zeroizing::new(prompt(ctx, "New passphrase: ", OURS)?);
    let again = Zeroizing::new(prompt(ctx, "Again: ", OURS)?);
    if first != again {
        return Err(Failure::usage("the two passphrases differ; nothing was changed"));
    }
    Ok(Passphrase::new(first.to_vec()))
}

/// What a file holds; wiped when dropped.
pub fn read_file(file: &Path, option: &str) -> Result<Zeroizing<Vec<u8>>> {
    std::fs::read(file).map(Zeroizing::new).map_err(|e| {
        let mut failure = io(format!("cannot read {option} {}", file.display()), &e);
        if failure.exit == Exit::NotFound {
            failure.exit = Exit::Usage;
        }
        failure.next("name a file that can be read")
    })
}

/// A passphrase that is the one line of a file.
pub fn from_file(file: &Path, option: &str) -> Result<Passphrase> {
    let mut bytes = read_file(file, option)?;
    // One line end belongs to the editor that wrote the file, not to the passphrase.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(Failure::usage(format!("{option} {} is empty", file.display()))
            .next("write the passphrase into it; a repository has no default passphrase"));
    }
    Ok(Passphrase::new(bytes.to_vec()))
}

/// What to name instead of typing, for the repository of the run.
const OURS: &str =
    "name what opens the repository: --password-file (HOLDFAST_PASSWORD_FILE), --key-file or --kms";

fn prompt(ctx: &Context, text: &str, ways: &str) -> Result<Vec<u8>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(
            Failure::usage("no passphrase: standard input is not a terminal to ask on").next(ways.to_owned())
        );
    }
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("cannot read the passphrase: {e}"));
    let before = tcgetattr(&stdin).map_err(|e| failed(e.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    ctx.interrupt.remember_terminal(Some(before.clone()));
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|e| failed(e.into()))?;
    let mut line = Vec::new();
    let mut asked = std::io::stderr().lock();
    let read = write!(asked, "{text}").and_then(|()| asked.flush()).and_then(|()| {
        drop(asked);
        stdin.lock().read_until(b'\n', &mut line)
    });
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &before);
    ctx.interrupt.remember_terminal(None);
    read.map_err(failed)?;
    restored.map_err(|e| failed(e.into()))?;
    while matches!(line.last(), Some(b'\n' | b'\r')) {
        line.pop();
    }
    if line.is_empty() {
        return Err(Failure::usage("an empty passphrase; a repository has no default passphrase"));
    }
    Ok(line)
}
