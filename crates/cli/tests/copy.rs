//! Points copied into another repository with the real binary, and restored from there.

#![allow(clippy::unwrap_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use support::{Dice, Place, Run, plant, same_trees, tree};

/// A place with two backups of a directory and a second, empty repository with another passphrase.
fn two_sides(like: bool) -> (Place, String) {
    let mut place = Place::with_repository();
    std::fs::write(place.path("other"), "battery staple\n").unwrap();
    plant(&place.path("data"), &mut Dice(31), 6, 200_000);
    let source = place.text("data");
    place.run(&["volume", "backup", &source]).expect(0);
    std::fs::write(place.path("data/d0/new"), vec![7; 100_000]).unwrap();
    place.run(&["volume", "backup", &source]).expect(0);
    let (far, password, model, near) =
        (place.text("far"), place.text("other"), place.repo.clone(), place.text("password"));
    let mut init = vec!["repo", "init", "--kdf-memory", "1", "--repo", &far, "--password-file", &password];
    if like {
        init.extend(["--like", &model, "--like-password-file", &near]);
    }
    place.run(&init).expect(0);
    place.env.push(("HOLDFAST_TO_PASSWORD_FILE".into(), password.clone()));
    (place, far)
}

fn at_far(place: &Place, far: &str, args: &[&str]) -> Run {
    let password = place.text("other");
    place.run(&[args, &["--repo", far, "--password-file", &password]].concat())
}

#[test]
fn copied_restored_from_the_copy_and_nothing_sent_twice() {
    for like in [false, true] {
        let (place, far) = two_sides(like);
        let first = place.run(&["repo", "copy", "--to", &far, "latest", "-o", "json"]).expect(0).json();
        assert_eq!(first["copied"].as_array().unwrap().len(), 1);
        let all = place.run(&["repo", "copy", "--to", &far, "--all"]).expect(0);
        assert!(all.out.starts_with("Copied 1 recovery point to "), "{}", all.out);
        assert!(all.out.contains("(1 there already)"), "{}", all.out);
        let again = place.run(&["repo", "copy", "--to", &far, "--all", "-o", "json"]).expect(0).json();
        assert_eq!((again["bytes_read"].as_u64(), again["written"]["packs"].as_u64()), (Some(0), Some(0)));
        assert_eq!(again["present"].as_array().unwrap().len(), 2);

        let list = at_far(&place, &far, &["volume", "list", "-o", "json"]).expect(0).json();
        let near = place.run(&["volume", "list", "-o", "json"]).expect(0).json();
        for at in 0..2 {
            let (there, here) = (&list["backups"][at], &near["backups"][at]);
            assert_eq!(there["summary"]["time"], here["summary"]["time"]);
            assert_eq!(there["summary"]["labels"], here["summary"]["labels"]);
            assert_eq!(there["summary"]["origin"]["commit"], here["id"]);
        }
        at_far(&place, &far, &["repo", "check", "--read-data"]).expect(0);
        at_far(&place, &far, &["volume", "restore", "latest", &place.text("out")]).expect(0);
        same_trees("from the copy", &tree(&place.path("data")), &tree(&place.path("out")));

        // A backup into the far repository itself: what is cut alike is stored already.
        let direct = at_far(&place, &far, &["volume", "backup", &place.text("data"), "--full", "-o", "json"]);
        let new = direct.expect(0).json()["figures"]["chunks_new"].as_u64().unwrap();
        assert_eq!(new == 0, like, "{new}");
    }
}

#[test]
fn a_copy_that_cannot_be_made_says_why() {
    let (mut place, far) = two_sides(false);
    place.run(&["repo", "copy", "--to", &far]).expect(2);
    place.run(&["repo", "copy", "--all"]).expect(2);
    place.run(&["repo", "copy", "--to", &far, "--all", "latest"]).expect(2);
    place.run(&["repo", "copy", "--to", &far, "no-such"]).expect(4);
    place.run(&["repo", "copy", "--to", &place.text("nowhere"), "--all"]).expect(4);
    let wrong =
        place.run(&["repo", "copy", "--to", &far, "--to-password-file", &place.text("password"), "--all"]);
    assert!(wrong.expect(5).err.contains("opens none"));
    let same = place.repo.clone();
    let refused =
        place.run(&["repo", "copy", "--to", &same, "--to-password-file", &place.text("password"), "--all"]);
    assert!(refused.expect(2).err.contains("the same repository"));
    place.env.clear();
    let asked = place.run(&["repo", "copy", "--to", &far, "--all"]).expect(2);
    assert!(asked.err.contains("no passphrase"), "{}", asked.err);
    let list = at_far(&place, &far, &["volume", "list", "-o", "json"]).expect(0).json();
    assert_eq!(list["backups"], serde_json::json!([]));
}

/// What to name is what opens the other repository, and an empty variable names nothing.
#[test]
fn without_a_way_into_the_other_repository_the_message_names_its_options() {
    let (mut place, far) = two_sides(false);
    for value in ["", "unset"] {
        place.env.retain(|(name, _)| name != "HOLDFAST_TO_PASSWORD_FILE");
        if value.is_empty() {
            place.env.push(("HOLDFAST_TO_PASSWORD_FILE".into(), String::new()));
        }
        let run = place.run(&["repo", "copy", "--to", &far, "--all"]).expect(2);
        assert!(run.err.contains("--to-password-file (HOLDFAST_TO_PASSWORD_FILE)"), "{value}: {}", run.err);
        assert!(run.err.contains(&far), "{value}: {}", run.err);
    }
}

/// Damage that a second copy undoes, with the commands a user types.
#[test]
fn what_is_lost_is_taken_from_the_copy_and_the_plan_says_so() {
    for like in [false, true] {
        let (mut place, far) = two_sides(like);
        place.run(&["repo", "copy", "--to", &far, "--all", "-q"]).expect(0);
        let password = place.text("other");
        place.env.push(("HOLDFAST_FROM_PASSWORD_FILE".into(), password));
        let packs = place.path("repo/packs");
        for folder in std::fs::read_dir(&packs).unwrap() {
            std::fs::remove_dir_all(folder.unwrap().path()).unwrap();
        }
        place.run(&["repo", "check"]).expect(7);
        let planned = place.run(&["repo", "repair", "--from", &far, "--plan"]).expect(7);
        assert!(planned.out.contains(&format!("take from {far}")), "{}", planned.out);
        let done = place.run(&["repo", "repair", "--from", &far]).expect(0);
        assert!(
            done.out.contains("from the other repository") && done.out.contains("No damage left"),
            "{}",
            done.out
        );
        place.run(&["repo", "check", "--read-data"]).expect(0);
        place.run(&["volume", "restore", "latest", &place.text("out")]).expect(0);
        same_trees("healed", &tree(&place.path("data")), &tree(&place.path("out")));
        let again = place.run(&["repo", "repair", "--from", &far]).expect(0);
        assert!(again.out.contains("nothing that a repair could put right"), "{}", again.out);
    }
}
