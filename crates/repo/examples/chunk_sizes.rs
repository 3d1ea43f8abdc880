//! What the sizes of chunks cost and gain: the first backup of an image, and what a later state of it adds.
//!
//! ```text
//! cargo run --release -p repo --example chunk_sizes -- FIRST SECOND [MIN,AVG,MAX,NORMALISATION,ZSTD …]
//! ```
//! FIRST and SECOND are images; or folders, whose files are laid end to end in walk order, as small files are.
//! Counted is what a repository stores: compressed bytes, 17 to seal a chunk, 44 in a pack's directory and 48 in the
//! index. Times are CPU seconds of one thread.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring program for people")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

const OVERHEAD: u64 = 17 + 44 + 48;

/// The largest file that is laid end to end with others.
const SMALL: u64 = 96 * 1024;

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn read(at: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    gather(at, &mut bytes);
    bytes
}

fn gather(at: &Path, bytes: &mut Vec<u8>) {
    if !at.is_dir() {
        let whole = std::fs::read(at).unwrap();
        bytes.extend_from_slice(&whole);
        return;
    }
    let mut names: Vec<_> = at.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for name in names {
        if name.is_dir()
            || at.join(&name).metadata().unwrap().len() <= SMALL
            || name.extension().is_some_and(|end| end == "img")
        {
            gather(&name, bytes);
        }
    }
}

struct Sizes {
    min: usize,
    avg: usize,
    max: usize,
    normalisation: u8,
    level: i32,
}

impl Sizes {
    fn parse(text: &str) -> Sizes {
        let n: Vec<usize> = text.split(',').map(|part| part.parse().unwrap()).collect();
        Sizes {
            min: n[0] << 10,
            avg: n[1] << 10,
            max: n[2] << 10,
            normalisation: n[3] as u8,
            level: n[4] as i32,
        }
    }
}

#[derive(Default)]
struct Figures {
    chunks: u64,
    new: u64,
    stored: u64,
    cut: f64,
    hash: f64,
    zstd: f64,
}

fn one(
    bytes: &[u8],
    sizes: &Sizes,
    gear: &([u64; 256], [u64; 256]),
    known: &mut HashSet<[u8; 32]>,
) -> Figures {
    let level = match sizes.normalisation {
        0 => Normalization::Level0,
        1 => Normalization::Level1,
        2 => Normalization::Level2,
        _ => Normalization::Level3,
    };
    let (strict, loose) = select_masks(sizes.avg, level);
    let mut figures = Figures::default();
    let mut zstd = zstd::bulk::Compressor::new(sizes.level % 100).unwrap();
    // Beyond the level: 100 * shortest match + 1000 * logarithm of the hash table.
    if sizes.level > 100 {
        zstd.set_parameter(zstd::zstd_safe::CParameter::MinMatch(sizes.level as u32 / 100 % 10)).unwrap();
        zstd.set_parameter(zstd::zstd_safe::CParameter::HashLog(sizes.level as u32 / 1000)).unwrap();
    }
    let mut out = vec![0; 1 << 19];
    let mut at = 0;
    while at < bytes.len() {
        // Several at a time, so that asking for the time costs nothing.
        let begun = cpu();
        let mut cuts = Vec::new();
        while at < bytes.len() && cuts.len() < 256 {
            let end = bytes.len().min(at + sizes.max);
            let (_, length) = cut_gear(
                &bytes[at..end],
                sizes.min,
                sizes.avg,
                sizes.max,
                strict,
                loose,
                strict << 1,
                loose << 1,
                &gear.0,
                &gear.1,
            );
            cuts.push(&bytes[at..at + length]);
            at += length;
        }
        let cut = cpu();
        figures.chunks += cuts.len() as u64;
        cuts.retain(|chunk| known.insert(*blake3::hash(chunk).as_bytes()));
        let hashed = cpu();
        for chunk in &cuts {
            let length = zstd.compress_to_buffer(chunk, &mut out[..]).unwrap().min(chunk.len());
            figures.stored += length as u64 + OVERHEAD;
        }
        figures.new += cuts.len() as u64;
        figures.cut += cut - begun;
        figures.hash += hashed - cut;
        figures.zstd += cpu() - hashed;
    }
    figures
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (first, second) = (args.next().unwrap(), args.next().unwrap());
    let mut all: Vec<String> = args.rev().collect();
    if all.is_empty() {
        all = ["16,64,256,1,1", "16,64,128,1,1", "8,32,128,1,1"].map(String::from).into();
    }
    let mut gear = [0; 256];
    let mut dice = blake3::Hasher::new().update(b"chunk sizes").finalize_xof();
    for value in &mut gear {
        let mut eight = [0; 8];
        dice.fill(&mut eight);
        *value = u64::from_le_bytes(eight);
    }
    let gear = (gear, gear.map(|value| value << 1));
    let (first, second) = (read(Path::new(&first)), read(Path::new(&second)));
    println!("{:.0} MB and {:.0} MB", first.len() as f64 / 1e6, second.len() as f64 / 1e6);
    println!(
        "| KiB min, avg, max, normalisation, zstd | chunks | mean | first MB | added MB | of it | cut, hash, zstd s |"
    );
    println!("|---|---|---|---|---|---|---|");
    let todo = Mutex::new(all);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(text) = todo.lock().unwrap().pop() else { return };
                    let (sizes, mut known) = (Sizes::parse(&text), HashSet::new());
                    let one_ = one(&first, &sizes, &gear, &mut known);
                    let two = one(&second, &sizes, &gear, &mut known);
                    println!(
                        "| {text} | {} | {:.1} K | {:.1} | {:.1} | {:.1} % | {:.2}, {:.2}, {:.2} |",
                        one_.chunks,
                        first.len() as f64 / one_.chunks as f64 / 1024.0,
                        one_.stored as f64 / 1e6,
                        two.stored as f64 / 1e6,
                        100.0 * two.stored as f64 / one_.stored as f64,
                        one_.cut,
                        one_.hash,
                        one_.zstd,
                    );
                }
            });
        }
    });
}
