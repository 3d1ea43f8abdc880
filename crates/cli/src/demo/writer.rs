//! The demo's application: a process that keeps writing records to its volume.
//!
//! Started as `holdfast demo-writer` by the demo's machine, in place of the container's command. Each record
//! is appended, fsynced, and then acknowledged by a line on standard output, as a database acknowledges a
//! commit to its client. It honours a hold the way databases do: when the file `run/hold` appears in its pod's
//! directory it finishes and fsyncs the record it is at, says how far it is in `run/held`, and writes nothing
//! until the file is gone.

use super::records;
use crate::error::{Exit, Failure, Result, io};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The hidden command.
pub const NAME: &str = "demo-writer";
/// Starts the first line: how many records were found in the volume.
pub const FOUND: &str = "found ";
/// Asks the writer to hold.
pub const HOLD: &str = "hold";
/// Says that it holds, and at which record.
pub const HELD: &str = "held";

/// Arguments of the hidden command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume's directory
    #[arg(long)]
    data: PathBuf,
    /// The directory for the hold protocol; not in the volume
    #[arg(long)]
    run: PathBuf,
}

/// Writes until the reader of the acknowledgements goes away or the process is killed.
pub fn run(args: Args) -> Result<Exit> {
    let file = args.data.join(records::FILE);
    let mut held = match file.exists() {
        true => records::verify(&file).map_err(|e| Failure::new(Exit::Damaged, e))?,
        false => records::Held::default(),
    };
    let failed = |what: &str, e: &std::io::Error| io(format!("{what} {}", file.display()), e);
    let mut out =
        OpenOptions::new().create(true).append(true).open(&file).map_err(|e| failed("cannot open", &e))?;
    File::open(&args.data).and_then(|d| d.sync_all()).map_err(|e| failed("cannot sync the folder of", &e))?;
    let mut acks = std::io::stdout().lock();
    if writeln!(acks, "{FOUND}{}", held.records).and_then(|()| acks.flush()).is_err() {
        return Ok(Exit::Done);
    }
    loop {
        hold(&args.run, held.records)?;
        let number = held.records + 1;
        let (sum, line) = records::line(held.last, number);
        // In two writes, so that a copy taken in between would hold a torn record: the hold has to prevent it.
        let (front, back) = line.split_at(line.len() / 2);
        out.write_all(front.as_bytes()).map_err(|e| failed("cannot append to", &e))?;
        std::thread::yield_now();
        out.write_all(back.as_bytes()).map_err(|e| failed("cannot append to", &e))?;
        out.sync_data().map_err(|e| failed("cannot sync", &e))?;
        held = records::Held { records: number, last: sum };
        if writeln!(acks, "{number}").and_then(|()| acks.flush()).is_err() {
            return Ok(Exit::Done);
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn hold(run: &Path, at: u64) -> Result<()> {
    let (hold, held) = (run.join(HOLD), run.join(HELD));
    if !hold.exists() {
        return Ok(());
    }
    let failed = |e: std::io::Error| io(format!("cannot write {}", held.display()), &e);
    // Written beside and renamed, so that whoever waits for it never reads half a number.
    let part = run.join("held.part");
    std::fs::write(&part, at.to_string()).and_then(|()| std::fs::rename(&part, &held)).map_err(failed)?;
    while hold.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = std::fs::remove_file(&held);
    Ok(())
}
