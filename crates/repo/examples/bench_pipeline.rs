//! How fast a large image goes into a local repository and comes back, and at what cost.
//!
//! ```text
//! cargo run --release -p repo --example bench_pipeline -- FOLDER [MIB] [db|noise|zero]
//! ```
//! FOLDER takes the image and the repository; what it makes there is removed again.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring program for people")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use repo::check::{CheckOptions, check};
use repo::store::{StoreOptions, open};
use repo::{
    CommitDraft, EntryKind, Env, InitOptions, Lane, ManifestEntry, Passphrase, ReaderOptions, Repository,
    Root, Writer, WriterOptions,
};

/// User and system time of this process so far, in seconds.
fn cpu() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() / 100.0, fields[12].parse::<f64>().unwrap() / 100.0)
}

/// Peak resident memory in MB since the last reset.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
}

fn measure<T>(name: &str, bytes: u64, work: impl FnOnce() -> T) -> T {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (start, cpu_before) = (Instant::now(), cpu());
    let result = work();
    let (wall, cpu_after) = (start.elapsed().as_secs_f64(), cpu());
    let (user, system) = (cpu_after.0 - cpu_before.0, cpu_after.1 - cpu_before.1);
    let gb = bytes as f64 / 1e9;
    println!(
        "{name:<26} {:>7.0} MB/s {:>6.2} s {:>6.2} + {:.2} CPU s/GB {:>6.0} MB peak",
        gb * 1e3 / wall,
        wall,
        user / gb,
        system / gb,
        peak()
    );
    result
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Pages of rows with counters, numbers, words and padding, and some that are empty: what a database leaves
/// on its disk.
fn database_page(dice: &mut Dice, words: &[Vec<u8>], page: &mut Vec<u8>, number: u64) {
    page.clear();
    if dice.roll().is_multiple_of(8) {
        page.resize(8192, 0);
        return;
    }
    page.extend(number.to_le_bytes());
    page.extend(dice.roll().to_le_bytes());
    let padded = dice.roll().is_multiple_of(2);
    let mut row = number * 61;
    while page.len() < 8192 {
        page.extend((row as u32).to_le_bytes());
        page.extend((dice.roll() as u32).to_le_bytes());
        page.extend([2, 9, 24, 0]);
        if padded {
            page.extend([b' '; 84]);
        } else {
            for _ in 0..dice.roll() % 16 {
                page.extend(&words[(dice.roll() % 64 * (dice.roll() % 64)) as usize % words.len()]);
            }
        }
        row += 1;
    }
    page.truncate(8192);
}

fn make_image(path: &Path, kind: &str, length: u64) {
    let mut dice = Dice(0x1234_5678_9abc_def1);
    let words: Vec<Vec<u8>> = (0..2000)
        .map(|_| (0..2 + dice.roll() % 9).map(|_| b'a' + (dice.roll() % 26) as u8).chain([b' ']).collect())
        .collect();
    let mut file = std::io::BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut page = Vec::new();
    for number in 0..length / 8192 {
        match kind {
            "noise" => {
                page.clear();
                (0..1024)
                    .for_each(|_| page.extend(dice.roll().wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()));
            }
            "zero" => page.resize(8192, 0),
            _ => database_page(&mut dice, &words, &mut page, number),
        }
        file.write_all(&page).unwrap();
    }
    file.flush().unwrap();
}

/// Read buffers that come back when the last chunk cut from them is done: no page is asked for twice.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

struct Pooled(Vec<u8>, Pool);

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.1.0.lock().unwrap().push(std::mem::take(&mut self.0));
    }
}

/// Reads a file in large pieces, cuts it, and hands the pieces on without a copy.
fn back_up(writer: &Writer, path: &Path) -> Root {
    const PIECE: usize = 1 << 20;
    let (pool, file) = (Pool::default(), File::open(path).unwrap());
    let length = file.metadata().unwrap().len();
    let chunker = writer.chunker();
    let (mut at, mut rest) = (0, Bytes::new());
    let mut tickets = Vec::new();
    while at < length {
        let kept = rest.len();
        let free = pool.0.lock().unwrap().pop();
        let mut buffer = free.unwrap_or_else(|| vec![0; PIECE]);
        buffer[..kept].copy_from_slice(&rest);
        let end = PIECE.min(kept + (length - at) as usize);
        file.read_exact_at(&mut buffer[kept..end], at).unwrap();
        at += (end - kept) as u64;
        let mut piece = Bytes::from_owner(Pooled(buffer, pool.clone())).slice(..end);
        while let Some(cut) = chunker.next(&piece, at == length) {
            let chunk = piece.split_to(cut);
            tickets.push((writer.chunk(Lane::Data, chunk).unwrap(), cut as u64));
        }
        rest = piece;
    }
    let chunks: Vec<_> =
        tickets.into_iter().map(|(ticket, length)| (ticket.wait().unwrap(), length)).collect();
    writer.root_of(chunks).unwrap()
}

fn commit(writer: Writer, root: Root) {
    let counts = writer.counts();
    let manifest = vec![ManifestEntry {
        name: "image".into(),
        kind: EntryKind::Bytes,
        root,
        figures: Default::default(),
    }];
    writer.commit(CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() }).unwrap();
    println!("    {counts:?}");
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into())).join("bench-pipeline");
    let mib: u64 = arguments.next().map_or(2048, |text| text.parse().unwrap());
    let kind = arguments.next().unwrap_or_else(|| "db".into());
    std::fs::create_dir_all(&folder).unwrap();
    let image = folder.join("image");
    let length = mib << 20;
    make_image(&image, &kind, length);

    let place = folder.join("repository");
    let store = open(place.to_str().unwrap(), &StoreOptions::default()).unwrap();
    let passphrase = Passphrase::new("bench");
    let repo = Repository::init(store, &passphrase, &InitOptions::default(), &Env::real()).unwrap();
    let root = measure("first backup", length, || {
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let root = back_up(&writer, &image);
        commit(writer, root);
        root
    });
    measure("again, all duplicate", length, || {
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let again = back_up(&writer, &image);
        assert!(again == root);
        commit(writer, again);
    });
    measure("read and verify", length, || {
        let reader = repo.reader(ReaderOptions::default()).unwrap();
        let (mut stream, mut sum) = (reader.stream(&root), 0);
        while let Some(chunk) = stream.next_chunk().unwrap() {
            sum += chunk.len() as u64;
        }
        assert!(sum == root.length);
    });
    measure("check, reading all", length, || {
        let options = CheckOptions { read_data: true, ..CheckOptions::default() };
        let report = check(&repo, &options, &()).unwrap();
        assert!(report.findings.is_empty());
    });
    measure("restore to a file", length, || {
        let reader = repo.reader(ReaderOptions::default()).unwrap();
        let (mut stream, mut at) = (reader.stream(&root), 0);
        let file = File::create(folder.join("restored")).unwrap();
        while let Some(chunk) = stream.next_chunk().unwrap() {
            file.write_all_at(&chunk, at).unwrap();
            at += chunk.len() as u64;
        }
    });
    std::fs::remove_dir_all(&folder).unwrap();
}
