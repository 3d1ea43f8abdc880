//! The records the demo's application writes, and the proof that none was lost.
//!
//! One line a record: `number checksum payload`. The checksum covers number and payload and continues from the
//! record before it, so a record that is torn, changed, repeated, missing or out of order is seen. The
//! application acknowledges a record only after fsync: what it acknowledged before the cut must be in the
//! recovery point, whole and in order.

use std::io::BufRead;
use std::path::Path;

/// The file in the volume that grows by a line a record.
pub const FILE: &str = "records.log";

/// FNV-1a, 64 bit: enough to see accidents, short enough to read in a log.
pub fn checksum(previous: u64, number: u64, payload: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ previous;
    for byte in number.to_le_bytes().iter().chain(payload.as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

/// The payload of a record: as long as its number makes it, so that records are not all alike.
pub fn payload(number: u64) -> String {
    let word = checksum(0, number, "payload");
    format!("{word:016x}").repeat(1 + (number % 13) as usize)
}

/// The line of a record, with its line end.
pub fn line(previous: u64, number: u64) -> (u64, String) {
    let payload = payload(number);
    let sum = checksum(previous, number, &payload);
    (sum, format!("{number} {sum:016x} {payload}\n"))
}

/// What a volume holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Whole records, 1 to this one, in order, checksums right.
    pub records: u64,
    /// The checksum of the last one, from which the application goes on.
    pub last: u64,
}

/// Reads every record of the file and checks it. `Err` says in words what is wrong with which record.
pub fn verify(file: &Path) -> Result<Held, String> {
    let open = std::fs::File::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut reader = std::io::BufReader::new(open);
    let mut held = Held::default();
    let mut text = Vec::new();
    loop {
        text.clear();
        if reader.read_until(b'\n', &mut text).map_err(|e| format!("{}: {e}", file.display()))? == 0 {
            return Ok(held);
        }
        let number = held.records + 1;
        let (sum, expected) = line(held.last, number);
        if text != expected.as_bytes() {
            let what = match text.last() {
                Some(b'\n') => "changed, repeated, or out of order",
                _ => "torn: its line has no end",
            };
            return Err(format!("{}: record {number} is {what}", file.display()));
        }
        held = Held { records: number, last: sum };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of five records, changed in one way, and what the proof says of it.
    #[test]
    fn whatever_happens_to_a_record_is_seen() {
        let whole: Vec<String> = {
            let mut last = 0;
            (1..=5)
                .map(|n| {
                    let (sum, text) = line(last, n);
                    last = sum;
                    text
                })
                .collect()
        };
        let torn = {
            let mut t = whole.concat();
            t.truncate(t.len() - 7);
            t
        };
        let flipped = whole.concat().replacen('a', "b", 1);
        let cases: Vec<(&str, String, Result<u64, &str>)> = vec![
            ("untouched", whole.concat(), Ok(5)),
            ("empty", String::new(), Ok(0)),
            ("a record was never written", whole[..4].concat(), Ok(4)),
            ("torn", torn, Err("record 5 is torn")),
            ("a byte flipped", flipped, Err("is changed")),
            ("one is missing", [&whole[..2], &whole[3..]].concat().concat(), Err("record 3 is changed")),
            ("two swapped", [&whole[0], &whole[2], &whole[1]].map(String::as_str).concat(), Err("record 2")),
            ("one repeated", [&whole[0], &whole[0]].map(String::as_str).concat(), Err("record 2")),
        ];
        let dir = tempfile::tempdir().unwrap();
        for (name, text, expected) in cases {
            let file = dir.path().join(FILE);
            std::fs::write(&file, text).unwrap();
            match (verify(&file), expected) {
                (Ok(held), Ok(n)) => assert_eq!(held.records, n, "{name}"),
                (Err(message), Err(part)) => assert!(message.contains(part), "{name}: {message}"),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }
}
