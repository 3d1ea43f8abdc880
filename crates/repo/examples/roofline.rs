//! What this machine can do at most: the steps a backup and a restore consist of, each by itself, on one thread.
//!
//! ```text
//! cargo run --release -p repo --example roofline -- FOLDER [SAMPLE]
//! ```
//! FOLDER takes a file of 512 MiB, removed again. SAMPLE is a file of which 256 MiB, from all over it, are worked on (the image of a
//! database, say); without it they are made: text and numbers. Printed is the best of three, in MB/s: of wall time, and of
//! CPU time, which is what to compare with a busy machine. No program that takes these steps one after the other
//! is faster than all of them together.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring program for people")]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use repo::store::mem::MemStore;
use repo::{ChunkBytes, Env, InitOptions, Kdf, Passphrase, Repository, WriterOptions};

const MIB: usize = 1 << 20;
const SAMPLE: usize = 256 * MIB;
const PIECES: u64 = 64;
const PAGE: usize = 4096;

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn measure(what: &str, bytes: usize, mut work: impl FnMut()) {
    let (mut wall, mut own) = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        let (begun, cpu_begun) = (Instant::now(), cpu());
        work();
        wall = wall.min(begun.elapsed().as_secs_f64());
        own = own.min(cpu() - cpu_begun);
    }
    let rate = |seconds: f64| bytes as f64 / 1e6 / seconds.max(1e-6);
    println!("| {what} | {:.0} | {:.0} |", rate(wall), rate(own));
}

fn sample(path: Option<&Path>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SAMPLE);
    if let Some(path) = path {
        let file = File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        // In pieces: the front of a disk image is not what the rest of it is.
        let piece = SAMPLE as u64 / PIECES;
        for n in 0..PIECES {
            let at = if size > SAMPLE as u64 { size / PIECES * n } else { piece * n };
            let mut read = vec![0; piece.min(size.saturating_sub(at)) as usize];
            file.read_exact_at(&mut read, at).unwrap();
            bytes.extend_from_slice(&read);
        }
        return bytes;
    }
    let mut state = 88_172_645_463_325_252_u64;
    while bytes.len() < SAMPLE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let row = format!(
            "{:08}\tuser-{:04}\torder of {}\t{:x}\n",
            bytes.len(),
            state % 5_000,
            state % 97,
            state as u32
        );
        bytes.extend_from_slice(row.as_bytes());
    }
    bytes.truncate(SAMPLE);
    bytes
}

/// The chunks of the sample, as a new repository cuts them.
fn cut<'b>(chunker: &repo::Chunker, bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let (mut rest, mut chunks) = (bytes, Vec::new());
    while let Some(length) = chunker.next(rest, true) {
        let (chunk, after) = rest.split_at(length);
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn main() {
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let folder = args.next().unwrap();
    let bytes = sample(args.next().as_deref());
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let repo =
        Repository::init(Arc::new(MemStore::new()), &Passphrase::new("x"), &options, &Env::real()).unwrap();
    let chunker = repo.writer(WriterOptions::default()).unwrap().chunker();
    let chunks = cut(&chunker, &bytes);
    let sizes = ChunkBytes::default();
    println!(
        "{} chunks of {} to {} KiB, {:.0} on average\n",
        chunks.len(),
        sizes.min >> 10,
        sizes.max >> 10,
        bytes.len() as f64 / 1024.0 / chunks.len() as f64
    );
    println!("| step, one thread | MB/s | MB/s of CPU time |\n|---|---|---|");

    let mut copy = vec![0; bytes.len()];
    measure("copy memory", bytes.len(), || {
        copy.copy_from_slice(&bytes);
        black_box(&copy);
    });
    measure("find that all is zero", bytes.len(), || {
        copy.fill(0);
        black_box(copy.chunks(PAGE).all(|page| page.iter().fold(0, |sum, byte| sum | byte) == 0));
    });
    measure("cut", bytes.len(), || drop(black_box(cut(&chunker, &bytes))));
    measure("BLAKE3, keyed, a chunk", bytes.len(), || {
        for chunk in &chunks {
            black_box(blake3::keyed_hash(&[7; 32], chunk));
        }
    });
    for level in [1, 2, 3] {
        let mut zstd = zstd::bulk::Compressor::new(level).unwrap();
        let (mut out, mut stored) = (vec![0; 1 << 19], 0);
        measure(&format!("zstd {level}, a chunk"), bytes.len(), || {
            stored = chunks.iter().map(|chunk| zstd.compress_to_buffer(chunk, &mut out[..]).unwrap()).sum();
        });
        println!("| zstd {level}: ratio | {:.2} | |", bytes.len() as f64 / stored as f64);
    }
    let mut zstd = zstd::bulk::Compressor::new(2).unwrap();
    let packed: Vec<_> = chunks.iter().map(|chunk| (zstd.compress(chunk).unwrap(), chunk.len())).collect();
    let (mut unzstd, mut out) = (zstd::bulk::Decompressor::new().unwrap(), vec![0; 1 << 19]);
    measure("decompress zstd 2, a chunk", bytes.len(), || {
        for (chunk, _) in &packed {
            black_box(unzstd.decompress_to_buffer(chunk, &mut out[..]).unwrap());
        }
    });
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let stored: usize = packed.iter().map(|(chunk, _)| chunk.len()).sum();
    let mut sealed: Vec<Vec<u8>> = packed.into_iter().map(|(chunk, _)| chunk).collect();
    measure("AES-256-GCM, a compressed chunk", stored, || {
        for (number, chunk) in sealed.iter_mut().enumerate() {
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), chunk).unwrap());
        }
    });

    let path = Gone(folder.join(format!("roofline-{}", std::process::id())));
    let length = 2 * bytes.len();
    let room = vec![0; 16 * MIB + PAGE];
    let start = room.as_ptr().align_offset(PAGE);
    let block = &room[start..start + 16 * MIB];
    measure("write, then fsync", length, || {
        let file = File::create(&path.0).unwrap();
        for at in (0..length).step_by(16 * MIB) {
            file.write_all_at(block, at as u64).unwrap();
        }
        file.sync_all().unwrap();
    });
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    let direct_file = File::options().read(true).write(true).custom_flags(direct).open(&path.0);
    match direct_file {
        Err(why) => println!("| past the page cache: {why} | | |"),
        Ok(file) => {
            measure("write past the page cache", length, || {
                for at in (0..length).step_by(16 * MIB) {
                    file.write_all_at(block, at as u64).unwrap();
                }
            });
            let mut room = vec![0; 16 * MIB + PAGE];
            let start = room.as_ptr().align_offset(PAGE);
            measure("read past the page cache", length, || {
                for at in (0..length).step_by(16 * MIB) {
                    file.read_exact_at(&mut room[start..start + 16 * MIB], at as u64).unwrap();
                }
            });
        }
    }
    let file = File::open(&path.0).unwrap();
    let mut buffer = vec![0; MIB];
    measure("read from the page cache, 1 MiB at a time", length, || {
        for at in (0..length).step_by(MIB) {
            file.read_exact_at(&mut buffer, at as u64).unwrap();
        }
    });
}
