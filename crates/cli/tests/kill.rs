//! Killed at any instant (SIGKILL, no chance to clean up), a backup, a restore, a repair or a copy costs nothing but itself.
//!
//! After each kill: the repository opens, every committed point restores byte for byte, `repo check --read-data`
//! finds no damage, and the same command run again completes. At hundreds of random instants, on a directory and, as
//! each call takes longer there, fewer on a real S3 server. The instants come from a seed, which a failure prints;
//! HOLDFAST_TEST_SEED sets it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // A test may: its helpers are tests too.

mod support;

use repo::store::{S3Options, Store, StoreOptions, list_all};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Dice, Place, Tree, plant, same_trees, tree};

/// How often what is killed.
struct Kills {
    backup: u64,
    restore: u64,
    repair: u64,
    copy: u64,
    gc: u64,
}

// More than 500 of what writes.
const ON_A_DIRECTORY: Kills = Kills { backup: 140, restore: 100, repair: 120, copy: 120, gc: 130 };
const ON_S3: Kills = Kills { backup: 100, restore: 100, repair: 40, copy: 30, gc: 30 };

/// A place whose repository is on the S3 server that the environment names.
fn s3_place(name: &str) -> Place {
    let var =
        |n: &str| std::env::var(n).unwrap_or_else(|_| panic!("{n} is not set; run this test through ./test"));
    let mut place = Place::in_memory();
    let mark = place.dir.path().file_name().unwrap().to_string_lossy().trim_start_matches('.').to_owned();
    place.repo = format!("s3://{}/kill-{name}-{mark}", var("HOLDFAST_TEST_S3_BUCKET"));
    place.env.push(("HOLDFAST_S3_ENDPOINT".into(), var("HOLDFAST_TEST_S3_ENDPOINT")));
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
        place.env.push((name.into(), var(name)));
    }
    place
}

fn seed() -> u64 {
    let seed = std::env::var("HOLDFAST_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64
    });
    println!("HOLDFAST_TEST_SEED={seed} repeats this run's instants and content");
    seed
}

/// The ids of the committed volume backups.
fn points(place: &Place) -> Vec<String> {
    let list = place.run(&["volume", "list", "-o", "json"]).expect(0).json();
    assert_eq!(
        list["findings"],
        serde_json::json!([]),
        "a killed run leaves nothing that a listing stumbles over"
    );
    list["backups"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect()
}

fn restores(place: &Place, id: &str, expected: &Tree) {
    let target = place.path("restored");
    place.run(&["volume", "restore", id, &target.display().to_string()]).expect(0);
    same_trees(id, expected, &tree(&target));
    std::fs::remove_dir_all(&target).unwrap();
}

fn clean(place: &Place) {
    place.run(&["repo", "check", "--read-data"]).expect(0);
}

/// Runs a command, kills it at a random instant of `whole`, which is about how long it takes, and says whether it
/// had ended before. Corrects `whole` by that: machines differ, and so do their moments. A third ends in time.
fn killed(place: &Place, args: &[&str], whole: &mut Duration, dice: &mut Dice) -> bool {
    let mut child = place.spawn(args);
    std::thread::sleep(whole.mul_f64(dice.below(1_100) as f64 / 1_000.0));
    let ended = child.try_wait().unwrap().is_some();
    *whole = whole.mul_f64(if ended { 0.9 } else { 1.05 });
    let _ = child.kill();
    let status = child.wait().unwrap();
    assert!(!ended || status.success(), "it failed by itself before it was killed: {status}");
    ended
}

/// Some files change, some go, some come.
fn change(root: &Path, dice: &mut Dice, round: u64) {
    for _ in 0..3 {
        let dir = root.join(format!("d{}", dice.below(7)));
        std::fs::create_dir_all(&dir).unwrap();
        let name = dir.join(format!("f{}", dice.below(60)));
        match dice.below(4) {
            0 => drop(std::fs::remove_file(&name)),
            _ => {
                let size = dice.below(60_000) as usize;
                std::fs::write(&name, dice.bytes(size)).unwrap();
            }
        }
    }
    let size = dice.below(300_000) as usize;
    std::fs::write(root.join(format!("big{}", round % 4)), dice.bytes(size)).unwrap();
}

fn backup_is_killed(place: &Place, kills: u64) {
    let seed = seed();
    let mut dice = Dice(seed);
    place.run(&["repo", "init", "--kdf-memory", "1"]).expect(0);
    let data = place.path("data");
    plant(&data, &mut dice, 60, 40_000);
    let source = data.display().to_string();
    let backup = ["volume", "backup", source.as_str(), "-q"];
    let begun = Instant::now();
    place.run(&backup).expect(0);
    let mut whole = begun.elapsed();
    let mut known = vec![(points(place).remove(0), tree(&data))];
    let (mut early, mut late) = (0, 0);
    for round in 0..kills {
        change(&data, &mut dice, round);
        let ended = killed(place, &backup, &mut whole, &mut dice);
        let now = points(place);
        let before: Vec<String> = known.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(
            now[..before.len()],
            before,
            "seed {seed}, kill {round}: points that were there are still there"
        );
        match &now[before.len()..] {
            [] => {
                assert!(!ended, "seed {seed}, kill {round}: it ended well, so it committed");
                early += 1;
            }
            [new] => {
                known.push((new.clone(), tree(&data)));
                restores(place, new, &tree(&data));
                late += 1;
            }
            more => panic!("seed {seed}, kill {round}: one run made {} points", more.len()),
        }
        if round % 10 == 9 {
            clean(place);
            let (id, expected) = &known[dice.below(known.len() as u64) as usize];
            restores(place, id, expected);
        }
    }
    println!("seed {seed}: {kills} kills within {whole:?}: {early} before the commit, {late} after");
    assert!(early >= kills / 5, "the instants lie inside the run, not after it");
    place.run(&backup).expect(0);
    known.push((points(place).pop().unwrap(), tree(&data)));
    for (id, expected) in &known {
        restores(place, id, expected);
    }
    clean(place);
}

fn restore_is_killed(place: &Place, kills: u64) {
    let seed = seed();
    let mut dice = Dice(seed);
    place.run(&["repo", "init", "--kdf-memory", "1"]).expect(0);
    let data = place.path("data");
    plant(&data, &mut dice, 200, 40_000);
    let source = data.display().to_string();
    place.run(&["volume", "backup", &source, "-q"]).expect(0);
    let (id, expected) = (points(place).remove(0), tree(&data));
    let target = place.path("target").display().to_string();
    let restore = ["volume", "restore", id.as_str(), target.as_str(), "-q"];
    let begun = Instant::now();
    place.run(&restore).expect(0);
    let mut whole = begun.elapsed();
    std::fs::remove_dir_all(&target).unwrap();
    let mut partly = 0;
    for round in 0..kills {
        if !killed(place, &restore, &mut whole, &mut dice) && Path::new(&target).exists() {
            partly += u64::from(tree(Path::new(&target)) != expected);
        }
        // Whatever it left, the same restore completes over it.
        let again = ["volume", "restore", id.as_str(), target.as_str(), "-q", "--existing", "mirror"];
        place.run(&again).expect(0);
        same_trees(&format!("seed {seed}, kill {round}"), &expected, &tree(Path::new(&target)));
        std::fs::remove_dir_all(&target).unwrap();
        if round % 25 == 24 {
            clean(place);
        }
    }
    println!("seed {seed}: {kills} kills within {whole:?}: {partly} left a partly written target");
    assert!(partly >= kills / 20, "the instants lie inside the run, not after it");
    assert_eq!(points(place), [id], "a restore changes nothing in the repository");
}

/// The objects below the command: what damages them is no command of ours.
fn store(place: &Place) -> Arc<dyn Store> {
    let var = |name: &str| place.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let s3 = S3Options {
        endpoint: var("HOLDFAST_S3_ENDPOINT"),
        region: var("AWS_REGION"),
        access_key_id: var("AWS_ACCESS_KEY_ID"),
        secret_access_key: var("AWS_SECRET_ACCESS_KEY"),
        ..S3Options::default()
    };
    repo::store::open(&place.repo, &StoreOptions { s3, ..StoreOptions::default() }).unwrap()
}

/// Damages an object so that nothing is lost that a repair could not bring back. What was done, for messages.
fn damage(store: &dyn Store, dice: &mut Dice) -> String {
    let kind = dice.below(5);
    let folder = if kind < 3 { "index/" } else { "packs/" };
    let keys = list_all(store, folder).unwrap();
    let key = keys[dice.below(keys.len() as u64) as usize].key.clone();
    let mut bytes = store.get(&key).unwrap().to_vec();
    store.delete(&key).unwrap();
    let what = match kind {
        0 => return format!("{key} deleted"),
        1 => {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1;
            "flipped"
        }
        2 | 3 => {
            // Of a pack only the trailer: the index knows where its chunks are.
            bytes.truncate(bytes.len() - 1 - dice.below(15) as usize);
            "cut"
        }
        _ => {
            let at = bytes.len() - 17;
            bytes[at] ^= 1;
            "with a flipped directory"
        }
    };
    store.put(&key, bytes.into()).unwrap();
    format!("{key} {what}")
}

fn repair_is_killed(place: &Place, kills: u64) {
    let seed = seed();
    let mut dice = Dice(seed);
    place.run(&["repo", "init", "--kdf-memory", "1"]).expect(0);
    let data = place.path("data");
    plant(&data, &mut dice, 40, 40_000);
    let source = data.display().to_string();
    let mut known = Vec::new();
    for round in 0..4 {
        place.run(&["volume", "backup", &source, "-q"]).expect(0);
        known.push((points(place).pop().unwrap(), tree(&data)));
        change(&data, &mut dice, round);
    }
    let store = store(place);
    let repair = ["repo", "repair", "--read-data", "-q"];
    let mut whole = Duration::ZERO;
    let (mut cut_short, mut by_kill) = (0, 0);
    let mut round = 0;
    while by_kill < kills {
        round += 1;
        let done = damage(&*store, &mut dice);
        if round <= 3 {
            // How long one takes.
            let begun = Instant::now();
            place.run(&repair).expect(0);
            whole = whole.max(begun.elapsed());
            continue;
        }
        // Sometimes the next attempt is killed, too.
        for _ in 0..=dice.below(3) {
            by_kill += 1;
            cut_short += u64::from(!killed(place, &repair, &mut whole, &mut dice));
        }
        let run = place.run(&repair);
        assert_eq!(run.code, 0, "seed {seed}, round {round}, {done}: {}{}", run.out, run.err);
        let (id, expected) = &known[dice.below(known.len() as u64) as usize];
        restores(place, id, expected);
        if round % 10 == 0 {
            clean(place);
        }
    }
    println!("seed {seed}: {by_kill} kills within {whole:?}: {cut_short} cut it short");
    assert!(cut_short >= kills / 5, "the instants lie inside the run, not after it");
    for (id, expected) in &known {
        restores(place, id, expected);
    }
    clean(place);
    // What the repairs and the kills left serves the next write.
    place.run(&["volume", "backup", &source, "-q"]).expect(0);
    restores(place, &points(place).pop().unwrap(), &tree(&data));
}

fn collection_is_killed(place: &Place, kills: u64) {
    let seed = seed();
    let mut dice = Dice(seed);
    place.run(&["repo", "init", "--kdf-memory", "1"]).expect(0);
    let data = place.path("data");
    plant(&data, &mut dice, 40, 40_000);
    let source = data.display().to_string();
    let gc = ["repo", "gc", "--grace", "1s", "-q"];
    let mut known: Vec<(String, Tree)> = Vec::new();
    let mut whole = Duration::ZERO;
    let (mut cut_short, mut by_kill, mut round) = (0, 0, 0);
    while by_kill < kills {
        round += 1;
        change(&data, &mut dice, round);
        place.run(&["volume", "backup", &source, "-q"]).expect(0);
        known.push((points(place).pop().unwrap(), tree(&data)));
        if known.len() > 3 {
            // So that there is something to collect, and something to copy out of packs that go.
            let (id, _) = known.remove(dice.below(3) as usize);
            place.run(&["delete", &id, "--yes", "-q"]).expect(0);
        }
        if round <= 5 {
            let begun = Instant::now();
            place.run(&gc).expect(0);
            whole = whole.max(begun.elapsed());
            continue;
        }
        for _ in 0..=dice.below(3) {
            by_kill += 1;
            cut_short += u64::from(!killed(place, &gc, &mut whole, &mut dice));
        }
        let (id, expected) = &known[dice.below(known.len() as u64) as usize];
        restores(place, id, expected);
        let run = place.run(&gc);
        assert_eq!(run.code, 0, "seed {seed}, round {round}: {}{}", run.out, run.err);
        if round % 8 == 0 {
            clean(place);
            known.iter().for_each(|(id, expected)| restores(place, id, expected));
        }
    }
    println!("seed {seed}: {by_kill} kills within {whole:?}: {cut_short} cut it short");
    assert!(cut_short >= kills / 5, "the instants lie inside the run, not after it");
    known.iter().for_each(|(id, expected)| restores(place, id, expected));
    clean(place);
}

fn copy_is_killed(place: &Place, kills: u64) {
    let seed = seed();
    let mut dice = Dice(seed);
    let far_url = format!("{}-far", place.repo);
    place.run(&["repo", "init", "--kdf-memory", "1"]).expect(0);
    // Of both kinds: one that names content as the other does, and one that does not.
    let password = place.text("password");
    let mut init = vec!["repo", "init", "--kdf-memory", "1", "--repo", far_url.as_str()];
    if seed.is_multiple_of(2) {
        init.extend(["--like", place.repo.as_str(), "--like-password-file", password.as_str()]);
    }
    place.run(&init).expect(0);
    let mut far = Place::in_memory();
    far.repo.clone_from(&far_url);
    far.env.clone_from(&place.env);
    let data = place.path("data");
    plant(&data, &mut dice, 60, 40_000);
    let source = data.display().to_string();
    let copy = ["repo", "copy", "--to", &far_url, "--to-password-file", &password, "--all", "-q"];
    let (mut whole, mut cut_short, mut by_kill, mut round) = (Duration::ZERO, 0, 0, 0);
    let mut known: Vec<Tree> = Vec::new();
    while by_kill < kills {
        round += 1;
        for _ in 0..=dice.below(2) {
            change(&data, &mut dice, round);
            place.run(&["volume", "backup", &source, "-q"]).expect(0);
            known.push(tree(&data));
        }
        if round <= 2 {
            // How long one takes.
            let begun = Instant::now();
            place.run(&copy).expect(0);
            whole = whole.max(begun.elapsed());
            continue;
        }
        for _ in 0..=dice.below(3) {
            by_kill += 1;
            cut_short += u64::from(!killed(place, &copy, &mut whole, &mut dice));
            // What is listed there is whole, whatever the kill left.
            let there = points(&far);
            if let Some(last) = there.len().checked_sub(1) {
                restores(&far, &there[last], &known[last]);
            }
        }
        let run = place.run(&copy);
        assert_eq!(run.code, 0, "seed {seed}, round {round}: {}{}", run.out, run.err);
        assert_eq!(points(&far).len(), known.len(), "seed {seed}, round {round}: every point once");
        if round % 5 == 0 {
            clean(&far);
        }
    }
    println!("seed {seed}: {by_kill} kills within {whole:?}: {cut_short} cut it short");
    assert!(cut_short >= kills / 5, "the instants lie inside the run, not after it");
    let there = points(&far);
    assert_eq!(there.len(), known.len());
    for (id, expected) in there.iter().zip(&known) {
        restores(&far, id, expected);
    }
    clean(&far);
    clean(place);
}

#[test]
fn a_backup_killed_at_any_instant_costs_nothing_but_itself() {
    backup_is_killed(&Place::in_memory(), ON_A_DIRECTORY.backup);
}

#[test]
fn a_restore_killed_at_any_instant_is_completed_by_the_next() {
    restore_is_killed(&Place::in_memory(), ON_A_DIRECTORY.restore);
}

#[test]
fn a_repair_killed_at_any_instant_is_completed_by_the_next() {
    repair_is_killed(&Place::in_memory(), ON_A_DIRECTORY.repair);
}

#[test]
fn a_copy_killed_at_any_instant_is_completed_by_the_next() {
    copy_is_killed(&Place::in_memory(), ON_A_DIRECTORY.copy);
}

#[test]
fn s3_a_backup_killed_at_any_instant_costs_nothing_but_itself() {
    backup_is_killed(&s3_place("backup"), ON_S3.backup);
}

#[test]
fn s3_a_restore_killed_at_any_instant_is_completed_by_the_next() {
    restore_is_killed(&s3_place("restore"), ON_S3.restore);
}

#[test]
fn s3_a_repair_killed_at_any_instant_is_completed_by_the_next() {
    repair_is_killed(&s3_place("repair"), ON_S3.repair);
}

#[test]
fn s3_a_copy_killed_at_any_instant_is_completed_by_the_next() {
    copy_is_killed(&s3_place("copy"), ON_S3.copy);
}

#[test]
fn a_collection_killed_at_any_instant_is_completed_by_the_next() {
    collection_is_killed(&Place::in_memory(), ON_A_DIRECTORY.gc);
}

#[test]
fn s3_a_collection_killed_at_any_instant_is_completed_by_the_next() {
    collection_is_killed(&s3_place("gc"), ON_S3.gc);
}
