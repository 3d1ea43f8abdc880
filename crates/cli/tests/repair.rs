//! Damage, from the first check to the last restore, with the commands a user types.
#![allow(clippy::unwrap_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use std::path::{Path, PathBuf};
use support::{Dice, Place, plant, same_trees, tree};

/// The objects of a folder of the repository, largest first.
fn objects(place: &Place, folder: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(&place.repo).join(folder), &mut found);
    found.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_costs_one_file_until_the_next_full_backup_heals_it() {
    let place = Place::with_repository();
    let data = place.path("data");
    plant(&data, &mut Dice(5), 30, 60_000);
    let (source, target) = (place.text("data"), place.text("restored"));
    for _ in 0..2 {
        place.run(&["volume", "backup", &source, "-q"]).expect(0);
    }
    let expected = tree(&data);
    flip(&objects(&place, "packs")[0], 5_000);

    let checked = place.run(&["repo", "check", "--read-data"]).expect(7);
    assert!(checked.out.contains("repo repair --plan"), "{}", checked.out);
    let before = objects(&place, "");
    let planned = place.run(&["repo", "repair", "--read-data", "--plan"]).expect(7);
    assert!(
        planned.out.contains("leave packs/") && planned.out.contains("1 chunk cannot be read"),
        "{}",
        planned.out
    );
    assert_eq!(objects(&place, ""), before, "a plan changes nothing");

    let repaired = place.run(&["repo", "repair", "--read-data", "-o", "json"]).expect(7).json();
    assert_eq!(repaired["done"]["segments_deleted"], 1);
    let points = repaired["done"]["after"]["points"].as_array().unwrap();
    assert_eq!(points.len(), 2, "both points share the file");
    let lost: Vec<String> = points[0]["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f.as_str().unwrap().replacen("volume/", "", 1))
        .collect();
    assert!(!lost.is_empty() && lost.len() < 10, "{lost:?}");
    place.run(&["repo", "repair"]).expect(7);

    // All but that comes back, and the exit code says that something did not.
    place.run(&["volume", "restore", "latest", &target]).expect(7);
    let mut without = expected.clone();
    without.retain(|name, _| !lost.contains(name));
    let mut restored = tree(Path::new(&target));
    restored.retain(|name, _| !lost.contains(name));
    same_trees("what is not lost", &without, &restored);
    std::fs::remove_dir_all(&target).unwrap();

    // The content is still where it was: a full backup stores what is lost again, for all points.
    place.run(&["volume", "backup", &source, "--full", "-q"]).expect(0);
    place.run(&["repo", "check", "--read-data"]).expect(0);
    let list = place.run(&["volume", "list", "-o", "json"]).expect(0).json();
    for backup in list["backups"].as_array().unwrap() {
        place.run(&["volume", "restore", backup["id"].as_str().unwrap(), &target]).expect(0);
        same_trees("healed", &expected, &tree(Path::new(&target)));
        std::fs::remove_dir_all(&target).unwrap();
    }
    let done = place.run(&["repo", "repair", "--read-data"]).expect(0);
    assert!(done.out.contains("nothing that a repair could put right"), "{}", done.out);
}

#[test]
fn a_lost_index_is_made_again() {
    let place = Place::with_repository();
    let data = place.path("data");
    plant(&data, &mut Dice(6), 20, 60_000);
    place.run(&["volume", "backup", &place.text("data"), "-q"]).expect(0);
    std::fs::remove_dir_all(Path::new(&place.repo).join("index")).unwrap();
    place.run(&["repo", "check"]).expect(7);
    let repaired = place.run(&["repo", "repair"]).expect(0);
    assert!(repaired.out.contains("No damage left"), "{}", repaired.out);
    place.run(&["volume", "restore", "latest", &place.text("restored")]).expect(0);
    same_trees("restored", &tree(&data), &tree(&place.path("restored")));
}

#[test]
fn a_check_reads_by_turns_or_for_one_point_alone() {
    let place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(7), 20, 60_000);
    for n in 0..3 {
        plant(&place.path("data"), &mut Dice(70 + n), 5, 60_000);
        place.run(&["volume", "backup", &place.text("data"), "-q"]).expect(0);
    }
    let turn = |budget: &str| {
        place.run(&["repo", "check", "--read-data-budget", budget, "-o", "json"]).expect(0).json()["report"]["turn"].clone()
    };
    assert_eq!(turn("10%")["laps"], 0);
    while turn("40%")["laps"] == 0 {}
    assert!(turn("1GiB")["all_read_since"].is_i64());
    assert!(turn("10s")["packs"].as_u64().unwrap() > 1);
    let text = place.run(&["repo", "check", "--read-data-budget", "1h"]).expect(0).out;
    assert!(text.contains("everything older has been read within the last"), "{text}");

    let counts = |args: &[&str]| {
        let args: Vec<&str> = ["repo", "check", "-o", "json"].iter().chain(args).copied().collect();
        place.run(&args).expect(0).json()["report"]["counts"].clone()
    };
    let (all, one) = (counts(&["--read-data"]), counts(&["--read-data", "--point", "latest"]));
    assert_eq!((all["commits"].as_u64(), one["commits"].as_u64()), (Some(3), Some(1)));
    assert!(
        one["chunks_read"].as_u64() > Some(0) && one["chunks_read"].as_u64() <= all["chunks_read"].as_u64()
    );
    place.run(&["repo", "check", "--app", "shop"]).expect(4);
    place.run(&["repo", "check", "--point", "abc"]).expect(4);
    for wrong in [
        &["--read-data-budget", "lots"][..],
        &["--read-data-budget", "0%"],
        &["--read-data-budget", "5%", "--read-data"],
        &["--read-data-budget", "5%", "--point", "latest"],
    ] {
        let args: Vec<&str> = ["repo", "check"].iter().chain(wrong).copied().collect();
        place.run(&args).expect(2);
    }
}
