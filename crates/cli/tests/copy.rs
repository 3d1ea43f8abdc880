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
