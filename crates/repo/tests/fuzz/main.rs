//! Fuzzing of every decoder: seeded mutations over a corpus, on the stable compiler, as a test like any other.
//!
//! What must hold for every decoder and whatever bytes:
//! - it does not panic, and ends;
//! - it allocates no more than a multiple of what it was given (a counting allocator measures each call);
//! - what it accepts it writes again as the same bytes, and reads those as the same value (where the format has one
//!   form for a value), so that nobody can give one value two names;
//! - a sealed object with any bit flipped, or any byte cut off, does not open.
//!
//! Mutations know a little of the forms: heads of CBOR items, 32-bit fields of tables, lengths, digits. There is no
//! coverage to steer by, so the words of a refusal stand in for it: an input that is refused in a way not met before joins the
//! corpus of the run. Inputs found so in longer runs are kept in `corpus/<decoder>/` and replayed first.
//!
//!     HOLDFAST_FUZZ_ROUNDS=1000000 cargo test -p repo --release --test fuzz      a longer run
//!     HOLDFAST_FUZZ_SEED=7                                                       other mutations
//!     HOLDFAST_FUZZ_KEEP=1                                                       new refusals are written to the corpus
//!
//! A failure prints the decoder, the seed and the input in hex; the input goes into the corpus with the fix.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use repo::decoders::{self, Decoder};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Bytes that may be allocated for each byte of input. The worst that is legitimate are maps of tiny names.
const FACTOR: usize = 96;
/// Some refusals quote what they refuse, so that nearly every input looks new.
const POOL_MAX: usize = 64;
/// Longer inputs only take time.
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// Pseudo-random numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name)
}

fn stored(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(corpus(name)) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => vec![],
    };
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Where the heads of CBOR items begin, as far as the bytes are CBOR.
fn heads(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut found) = (0, Vec::new());
    while let Some(first) = bytes.get(at) {
        found.push(at);
        let width = match first & 31 {
            short @ 24..=27 => 1 << (short - 24),
            28.. => return found,
            _ => 0,
        };
        let Some(argument) = bytes.get(at + 1..at + 1 + width) else { return found };
        let value = match width {
            0 => u64::from(first & 31),
            _ => argument.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        };
        at += 1 + width;
        if matches!(first >> 5, 2 | 3) {
            at = at.saturating_add(usize::try_from(value).unwrap_or(usize::MAX));
        }
    }
    found
}

const EXTREMES: [u64; 14] = [
    0,
    1,
    23,
    24,
    255,
    256,
    65_535,
    65_536,
    262_144,
    262_145,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];

/// A CBOR head of this major type, sometimes longer than needed.
fn head(major: u8, value: u64, dice: &mut Dice) -> Vec<u8> {
    let least = match value {
        0..24 => 0,
        24..0x100 => 1,
        0x100..0x1_0000 => 2,
        0x1_0000..0x1_0000_0000 => 4,
        _ => 8,
    };
    let width = if dice.below(8) == 0 { [1, 2, 4, 8][dice.below(4)].max(least) } else { least };
    let short = match width {
        0 => value as u8,
        1 => 24,
        2 => 25,
        4 => 26,
        _ => 27,
    };
    let mut out = vec![major << 5 | short];
    out.extend(&value.to_be_bytes()[8 - width..]);
    out
}

fn mutate(input: &mut Vec<u8>, pool: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(input.len());
    let to = at + dice.below(input.len() - at.min(input.len())).min(64);
    match dice.below(15) {
        0 if !input.is_empty() => input[at] ^= 1 << dice.below(8),
        1 if !input.is_empty() => input[at] = dice.next() as u8,
        2 if !input.is_empty() => input[at] = [0, 0xff, 0x7f, 0x80, b'0', b'9', b'"', b'{'][dice.below(8)],
        3 => input.truncate(at),
        4 => drop(input.drain(at..to)),
        5 => {
            let piece = input[at..to].to_vec();
            input.splice(at..at, piece);
        }
        6 => input
            .splice(at..at, (0..1 + dice.below(8)).map(|_| dice.next() as u8).collect::<Vec<_>>())
            .for_each(drop),
        7 => {
            // The end of another input.
            let other = &pool[dice.below(pool.len())];
            let from = dice.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        8 if input.len() >= 4 => {
            // A number of a table.
            let at = dice.below(input.len() / 4) * 4;
            let value = EXTREMES[dice.below(EXTREMES.len())] as u32;
            input[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        9 if input.len() >= 8 => {
            let at = dice.below(input.len() - 7);
            let value = EXTREMES[dice.below(EXTREMES.len())];
            input[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        10 if input.len() >= 2 => {
            let other = dice.below(input.len());
            input.swap(at, other);
        }
        11..=13 => {
            // One head of CBOR: another value, another type, or the item twice.
            let heads = heads(input);
            if let Some(&at) = heads.get(dice.below(heads.len())) {
                let next = heads.iter().find(|other| **other > at).copied().unwrap_or(input.len());
                let major = input[at] >> 5;
                let width = match input[at] & 31 {
                    short @ 24..=27 => 1 << (short - 24),
                    _ => 0,
                };
                let new = match dice.below(3) {
                    0 => head(major, EXTREMES[dice.below(EXTREMES.len())], dice),
                    1 => head(dice.below(8) as u8, dice.below(20) as u64, dice),
                    _ => {
                        let item = input[at..next].to_vec();
                        input.splice(at..at, item);
                        return;
                    }
                };
                let end = (at + 1 + width).min(input.len());
                input.splice(at..end, new);
            }
        }
        _ => {
            // A digit of a text, one up.
            if let Some(digit) = input.iter().position(u8::is_ascii_digit) {
                let at = digit + dice.below(input.len() - digit);
                input[at] = input[at].wrapping_add(1);
            }
        }
    }
}

/// One input against everything that must hold; what the decoder said of it.
fn hold(decoder: &Decoder, input: &[u8], seed: u64) -> Result<Option<Vec<u8>>, String> {
    let hex = || input.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let fail = |what: String| -> ! { panic!("{} (seed {seed}): {what}\ninput: {}", decoder.name, hex()) };
    let region = Region::new(ALLOCATOR);
    let said = catch_unwind(AssertUnwindSafe(|| (decoder.recode)(input)));
    let change = region.change();
    let Ok(said) = said else { fail("it panics".into()) };
    // All that was ever asked for, freed or not: more than the peak, so a bound of it bounds the peak.
    let allocated = change.bytes_allocated + change.bytes_reallocated.max(0) as usize;
    if allocated > FACTOR * input.len() + decoder.slack {
        fail(format!("{allocated} bytes allocated for {} bytes", input.len()));
    }
    if let Ok(Some(again)) = &said {
        // Keys that a reader does not know are skipped, and only so may the same value be shorter.
        if decoder.strict && again != input && again.len() >= input.len() {
            fail(format!("accepted, and written again otherwise: {again:02x?}"));
        }
        match (decoder.recode)(again) {
            Ok(Some(third)) if third == *again => {}
            other => fail(format!("what it writes it does not read as the same: {other:?}")),
        }
    }
    said
}

/// A refusal without its numbers and without what it quotes.
fn shape(said: &Result<Option<Vec<u8>>, String>) -> String {
    match said {
        Ok(_) => "accepted".into(),
        Err(told) => {
            let words = told.split(['"', '`']).step_by(2).flat_map(str::chars);
            words.filter(|c| c.is_ascii_alphabetic() || *c == ' ').take(60).collect()
        }
    }
}

/// One test: the allocator counts for the whole process.
#[test]
fn whatever_the_bytes_a_decoder_refuses_or_reads_them_exactly() {
    let rounds = variable("HOLDFAST_FUZZ_ROUNDS").unwrap_or(10_000);
    let seed = variable("HOLDFAST_FUZZ_SEED").unwrap_or(1);
    let keep = variable("HOLDFAST_FUZZ_KEEP").is_some();
    for decoder in decoders::all().unwrap() {
        assert!(!decoder.samples.is_empty(), "{}", decoder.name);
        for sample in &decoder.samples {
            match hold(&decoder, sample, seed) {
                Ok(Some(again)) => {
                    assert!(again == *sample, "{}: a good input comes back as it is", decoder.name)
                }
                Ok(None) => {}
                Err(told) => panic!("{}: a good input is refused: {told}", decoder.name),
            }
        }
        let mut pool = decoder.samples.clone();
        pool.push(vec![]);
        let mut met: BTreeSet<String> =
            pool.iter().map(|input| shape(&hold(&decoder, input, seed))).collect();
        for input in stored(decoder.name) {
            met.insert(shape(&hold(&decoder, &input, seed)));
            pool.push(input);
        }
        let of_corpus = met.len();
        let mut dice = Dice(seed ^ decoder.name.bytes().fold(0, |sum, byte| sum << 5 ^ u64::from(byte)));
        let mut accepted = 0_u64;
        for _ in 0..rounds {
            let mut input = pool[dice.below(pool.len())].clone();
            for _ in 0..[1, 1, 1, 2, 4][dice.below(5)] {
                mutate(&mut input, &pool, &mut dice);
            }
            input.truncate(INPUT_BYTES_MAX.max(decoder.samples[0].len() + 64));
            let said = hold(&decoder, &input, seed);
            accepted += u64::from(said.is_ok());
            if met.insert(shape(&said)) && pool.len() < POOL_MAX {
                if keep {
                    let name: String = (0..8).map(|_| format!("{:02x}", dice.next() as u8)).collect();
                    std::fs::create_dir_all(corpus(decoder.name)).unwrap();
                    std::fs::write(corpus(decoder.name).join(name), &input).unwrap();
                }
                pool.push(input);
            }
        }
        println!(
            "{:16} {rounds} mutations, {accepted} accepted, {of_corpus} ways to answer in the corpus, {} met",
            decoder.name,
            met.len()
        );
    }
    flipped_objects_do_not_open(rounds, seed);
}

/// R4: every bit, every length; then flips of several bits at once.
fn flipped_objects_do_not_open(rounds: u64, seed: u64) {
    for sealed in decoders::sealed().unwrap() {
        assert!((sealed.opens)(&sealed.bytes), "{}", sealed.name);
        let refused = |bytes: &[u8], what: String| {
            assert!(!(sealed.opens)(bytes), "R4: a {} {what} opens (seed {seed})", sealed.name);
        };
        for at in 0..sealed.bytes.len() {
            // The label and the time of a key object are for people: no secret depends on them.
            if sealed.name == "key object" {
                break;
            }
            let mut bytes = sealed.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            refused(&bytes, format!("with a bit of byte {at} flipped"));
            refused(&sealed.bytes[..at], format!("cut at {at}"));
        }
        if sealed.name == "key object" {
            let text = String::from_utf8(sealed.bytes.clone()).unwrap();
            for field in [
                "\"capability\":\"",
                "\"memory_kib\":",
                "\"passes\":",
                "\"salt\":\"",
                "\"nonce\":\"",
                "\"bundle\":\"",
            ] {
                let from = text.find(field).unwrap() + field.len();
                let length = text[from..].find(['"', ',']).unwrap();
                for at in from..from + length {
                    for bit in 0..8 {
                        let mut bytes = sealed.bytes.clone();
                        bytes[at] ^= 1 << bit;
                        refused(&bytes, format!("with byte {at} ({field}) changed"));
                    }
                }
            }
            continue;
        }
        let mut dice = Dice(seed);
        for _ in 0..rounds / 10 {
            let mut bytes = sealed.bytes.clone();
            for _ in 0..1 + dice.below(4) {
                mutate(&mut bytes, std::slice::from_ref(&sealed.bytes), &mut dice);
            }
            if bytes != sealed.bytes {
                refused(&bytes, "that was changed".into());
            }
        }
    }
}
