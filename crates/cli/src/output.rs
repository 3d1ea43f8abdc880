//! What goes to standard output: tables for people, JSON or YAML for programs, and nothing else.
//!
//! Progress, notes and errors go to standard error, so that `holdfast … -o json | jq` always works. Colour is
//! used on a terminal only, and never when NO_COLOR is set. A reader that closes the pipe early (`| head`)
//! ends the printing, not the work: a backup whose summary nobody reads is still a backup.

use crate::error::{Exit, Failure, Result};
use repo::env::Timestamp;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables and sentences, for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// A graph for Graphviz; only `discover` draws one.
    Dot,
    /// A patch; only of `diff --manifests`.
    Patch,
}

/// Where results are printed.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    colour: bool,
    quiet: bool,
    stderr: bool,
    closed: Arc<AtomicBool>,
}

/// A colour with a meaning.
#[derive(Clone, Copy, Debug)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Look at this.
    Warn,
    /// Broken.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Strong,
}

impl Output {
    /// For this run: `no_colour` is whether the NO_COLOR variable is set.
    pub fn new(format: Format, quiet: bool, no_colour: bool) -> Output {
        let colour = !no_colour && format == Format::Table && std::io::stdout().is_terminal();
        Output { format, colour, quiet, stderr: false, closed: Arc::default() }
    }

    /// The same for what is said beside the result.
    pub fn to_stderr(quiet: bool) -> Output {
        Output { format: Format::Table, colour: false, quiet, stderr: true, closed: Arc::default() }
    }

    /// Whether the result is to be YAML.
    pub fn is_yaml(&self) -> bool {
        self.format == Format::Yaml
    }

    /// Whether the result is to be a graph.
    pub fn is_dot(&self) -> bool {
        self.format == Format::Dot
    }

    /// Whether a person reads this.
    pub fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// Whether the result is to be a patch.
    pub fn is_patch(&self) -> bool {
        self.format == Format::Patch
    }

    /// Whether only errors are wanted beside the result.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints one machine-readable document.
    pub fn value(&self, value: &impl Serialize) -> Result<()> {
        let text = match self.format {
            Format::Yaml => serde_saphyr::to_string(value)
                .map_err(|e| Failure::new(Exit::Failed, format!("the result does not fit into YAML: {e}")))?,
            _ => serde_json::to_string_pretty(value)
                .map_err(|e| Failure::new(Exit::Failed, format!("the result does not fit into JSON: {e}")))?,
        };
        self.write(text.trim_end());
        Ok(())
    }

    /// One line (or several) for people.
    pub fn line(&self, text: impl AsRef<str>) {
        self.write(text.as_ref());
    }

    /// The word in its colour, on a terminal.
    pub fn tone(&self, tone: Tone, text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A table in the manner of kubectl: no frames, columns three spaces apart.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>) {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(header.iter().map(|h| h.to_string()));
        table.add_rows(rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
        self.write(&text.join("\n"));
    }

    fn write(&self, text: &str) {
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let mut out: Box<dyn Write> = match self.stderr {
            true => Box::new(std::io::stderr().lock()),
            false => Box::new(std::io::stdout().lock()),
        };
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            // The reader went away. What was asked is still done; there is nobody to tell.
            self.closed.store(true, Ordering::Relaxed);
        }
    }
}

/// A line on standard error, whoever reads it.
pub fn note(text: impl AsRef<str>) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// `1536` is `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1234567` is `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// `1 file`, `2 files`.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// `2026-11-03T02:14:55Z`: UTC, whole seconds.
pub fn time(at: Timestamp) -> String {
    repo::env::rfc3339(at)
}

/// How long ago, in the manner of kubectl: `45s`, `12m`, `5h`, `3d`.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    let s = now.saturating_sub(at).max(0) / 1_000_000_000;
    match s {
        0..120 => format!("{s}s"),
        120..7_200 => format!("{}m", s / 60),
        7_200..172_800 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}

/// `0.4 s`, `12.0 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(d: std::time::Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{:.1} s", d.as_secs_f64()),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB")];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB", "never 1024.0 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "file", "files"), "1 file");
    }

    #[test]
    fn times_are_utc_and_ages_are_short() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_700_000_000_999_999_999), "2023-11-14T22:13:20Z");
        let s = 1_000_000_000;
        let cases = [(0, "0s"), (119, "119s"), (120, "2m"), (7_200, "2h"), (172_800, "2d")];
        for (seconds, text) in cases {
            assert_eq!(age(0, seconds * s), text);
        }
        assert_eq!(age(5 * s, 0), "0s", "a clock that went back is not a negative age");
    }
}
