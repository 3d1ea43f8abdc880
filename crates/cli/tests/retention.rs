//! Which backups stay: policies, holds, and deleting by name, with the real binary.

#![allow(clippy::unwrap_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use serde_json::Value;
use support::{Dice, Place, plant};

/// A place with so many backups of one directory, and their ids, oldest first.
fn backed_up(times: usize) -> (Place, Vec<String>) {
    let place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(7), 3, 2_000);
    let source = place.text("data");
    let ids = (0..times)
        .map(|_| text(&place.run(&["volume", "backup", &source, "-o", "json"]).expect(0).json()["id"]))
        .collect();
    (place, ids)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn there(place: &Place) -> Vec<String> {
    let list = place.run(&["volume", "list", "-o", "json"]).expect(0).json();
    list["backups"].as_array().unwrap().iter().map(|one| text(&one["id"])).collect()
}

#[test]
fn the_space_of_what_was_deleted_comes_back() {
    let place = Place::with_repository();
    plant(&place.path("data"), &mut Dice(8), 20, 60_000);
    let source = place.text("data");
    place.run(&["volume", "backup", &source]).expect(0);
    std::fs::remove_dir_all(place.path("data")).unwrap();
    plant(&place.path("data"), &mut Dice(9), 20, 60_000);
    place.run(&["volume", "backup", &source]).expect(0);
    let packs = || place.run(&["repo", "stats", "-o", "json"]).expect(0).out;
    let both = packs();
    place.run(&["retain", "--keep-last", "1", "--yes"]).expect(0);

    let plan = place.run(&["repo", "gc", "--plan"]).expect(0);
    assert!(plan.out.contains("not needed: marked"), "{}", plan.out);
    // With the usual grace period nothing goes yet.
    let marked = place.run(&["repo", "gc"]).expect(0);
    assert!(
        marked.out.contains("deleted 0 packs") && marked.out.contains("wait for the grace"),
        "{}",
        marked.out
    );
    let done = place.run(&["repo", "gc", "--grace", "0s"]).expect(0);
    assert!(!done.out.contains("deleted 0 packs"), "{}", done.out);
    assert_ne!(packs(), both);
    place.run(&["repo", "check", "--read-data"]).expect(0);
    let target = place.text("out");
    place.run(&["volume", "restore", "latest", &target]).expect(0);
    support::same_trees("the last", &support::tree(&place.path("data")), &support::tree(&place.path("out")));
    // And in one run, where nothing else is at work.
    std::fs::remove_dir_all(place.path("data")).unwrap();
    plant(&place.path("data"), &mut Dice(10), 20, 60_000);
    place.run(&["volume", "backup", &source]).expect(0);
    place.run(&["retain", "--keep-last", "1", "--yes"]).expect(0);
    let once = place.run(&["repo", "gc", "--grace", "0s", "-o", "json"]).expect(0).json();
    assert!(once["collected"]["packs_deleted"].as_u64().unwrap() > 0, "{once}");
    for wrong in ["", "0", "soon", "-1s"] {
        place.run(&["repo", "gc", &format!("--grace={wrong}")]).expect(2);
    }
}

#[test]
fn a_policy_is_planned_agreed_to_and_carried_out() {
    let (place, ids) = backed_up(4);
    let with = |more: &[&str]| place.run(&[&["retain", "--keep-last", "2"][..], more].concat());

    let plan = with(&["--plan"]).expect(0);
    let rows: Vec<&str> = plan.out.lines().collect();
    assert!(rows[0].starts_with("PLAN") && rows[1].starts_with("- delete") && rows[4].starts_with("= keep"));
    assert!(rows[4].contains("last, last good point"), "{}", plan.out);
    assert!(rows[5].starts_with("2 recovery points to delete, 2 to keep."), "{}", plan.out);
    let json = with(&["--plan", "-o", "json"]).expect(0).json();
    assert_eq!((&json["executed"], &json["points"][0]["decision"]), (&false.into(), &"delete".into()));
    assert_eq!(json["points"][3]["reasons"][0], "last");
    assert_eq!(there(&place).len(), 4, "a plan changes nothing");

    let refused = with(&[]).expect(8);
    assert!(refused.err.contains("--yes"), "{}", refused.err);
    with(&["-o", "json"]).expect(8);
    assert_eq!(there(&place).len(), 4);

    let done = with(&["--yes"]).expect(0);
    assert!(
        done.out
            .starts_with("Deleted 2 recovery points, kept 2. The space is free after `holdfast repo gc`.")
    );
    assert_eq!(there(&place), ids[2..]);
    assert!(with(&[]).expect(0).out.contains("Nothing to delete"), "what is done needs no consent again");
    let berlin = ["retain", "--keep-daily", "1", "--time-zone", "Europe/Berlin", "--plan", "-o", "json"];
    assert_eq!(place.run(&berlin).expect(0).json()["timeZone"], "Europe/Berlin");
    place.run(&["repo", "check", "--read-data"]).expect(0);
    let target = place.text("out");
    place.run(&["volume", "restore", "latest", &target]).expect(0);
}

#[test]
fn a_policy_that_keeps_nothing_or_makes_no_sense_changes_nothing() {
    let (place, _) = backed_up(1);
    let empty = place.run(&["retain", "--yes"]).expect(2);
    assert!(empty.err.contains("keeps nothing") && empty.err.contains("--keep-daily"), "{}", empty.err);
    place.run(&["retain", "--keep-last", "0", "--yes"]).expect(2);
    place.run(&["retain", "--keep-within", "1 fortnight", "--yes"]).expect(2);
    place.run(&["retain", "--keep-last", "1", "--time-zone", "Mars/Olympus", "--yes"]).expect(2);
    place.run(&["retain", "shop", "--keep-last", "1", "--yes"]).expect(4);
    place.run(&["retain", "--volume", "/no/such", "--keep-last", "1", "--yes"]).expect(4);
    place.run(&["retain", "--volume", &place.text("data"), "--keep-last", "1", "--yes"]).expect(0);
    assert_eq!(there(&place).len(), 1);
}

#[test]
fn a_held_point_stays_until_it_is_released() {
    let (place, ids) = backed_up(3);
    let hold = place.run(&["hold", "add", &ids[0], "--reason", "case 17", "--by", "legal", "-o", "json"]);
    let hold = hold.expect(0).json();
    place.run(&["hold", "add", &ids[1], "--reason", "audit", "--until", "30d"]).expect(0);
    place.run(&["hold", "add", &ids[1], "--reason", "late", "--until", "2020-01-01"]).expect(2);
    place.run(&["hold", "add", "latest"]).expect(2);
    let list = place.run(&["hold", "list"]).expect(0);
    let rows: Vec<&str> = list.out.lines().collect();
    assert!(rows[0].starts_with("HOLD") && rows.len() == 3, "{}", list.out);
    assert!(rows.iter().any(|row| row.contains("legal") && row.contains("case 17")), "{}", list.out);

    let retained = place.run(&["retain", "--keep-last", "1"]).expect(0);
    assert!(
        retained.out.contains("hold: case 17") && retained.out.contains("hold: audit"),
        "{}",
        retained.out
    );
    let refused = place.run(&["delete", &ids[0], "--yes", "--last"]).expect(8);
    assert!(refused.err.contains("hold: case 17") && refused.err.contains("hold release"), "{}", refused.err);
    assert_eq!(there(&place).len(), 3);

    place.run(&["hold", "release", "0000000000"]).expect(4);
    place.run(&["hold", "release", &text(&hold["id"])[..10]]).expect(0);
    assert_eq!(
        place.run(&["hold", "list", &ids[0], "-o", "json"]).expect(0).json()["holds"],
        serde_json::json!([])
    );
    place.run(&["retain", "--keep-last", "1", "--yes"]).expect(0);
    assert_eq!(there(&place), ids[1..]);
}

#[test]
fn points_are_deleted_by_name_and_the_last_good_one_only_if_that_is_said() {
    let (place, ids) = backed_up(3);
    place.run(&["delete", &ids[0][..12], &ids[1]]).expect(8);
    place.run(&["delete", &ids[0][..12], &ids[1], "--plan"]).expect(0);
    assert_eq!(there(&place).len(), 3);
    let json = place.run(&["delete", &ids[0][..12], &ids[1], "--yes", "-o", "json"]).expect(0).json();
    let mut deleted: Vec<String> = json["deleted"].as_array().unwrap().iter().map(text).collect();
    deleted.sort();
    let mut expected = ids[..2].to_vec();
    expected.sort();
    assert_eq!(deleted, expected);
    let refused = place.run(&["delete", "latest", "--yes"]).expect(8);
    assert!(refused.err.contains("last good point") && refused.err.contains("--last"), "{}", refused.err);
    place.run(&["delete", "no-such", "--yes"]).expect(4);
    place.run(&["delete", "latest", "--yes", "--last"]).expect(0);
    assert!(there(&place).is_empty());
}

#[test]
fn a_list_key_retains_and_a_put_key_only_holds() {
    let (mut place, ids) = backed_up(3);
    for (name, capability) in [("list", "list"), ("put", "put")] {
        std::fs::write(place.path(name), format!("the word for {name}\n")).unwrap();
        let file = place.text(name);
        let add = [
            "repo",
            "key",
            "add",
            "--new-password-file",
            &file,
            "--capability",
            capability,
            "--kdf-memory",
            "1",
        ];
        place.run(&add).expect(0);
    }
    place.env = vec![("HOLDFAST_PASSWORD_FILE".into(), place.text("put"))];
    place.run(&["retain", "--keep-last", "1", "--yes"]).expect(5);
    place.run(&["delete", &ids[0], "--yes"]).expect(5);
    place.run(&["hold", "list"]).expect(5);
    place.run(&["hold", "add", &ids[0][..12], "--reason", "node"]).expect(5);
    place.run(&["hold", "add", &ids[0], "--reason", "node"]).expect(0);
    place.run(&["hold", "add", &"0".repeat(64), "--reason", "node"]).expect(4);
    place.env = vec![("HOLDFAST_PASSWORD_FILE".into(), place.text("list"))];
    assert_eq!(place.run(&["hold", "list", "-o", "json"]).expect(0).json()["holds"][0]["reason"], "node");
    place.run(&["retain", "--keep-last", "1", "--yes"]).expect(0);
    place.env.clear();
    assert_eq!(there(&place), [ids[0].clone(), ids[2].clone()]);
}
