//! What opens a repository: passphrases, key files, the recovery key; added, rotated and removed, and told nowhere.

#![allow(clippy::unwrap_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use std::os::unix::fs::PermissionsExt;
use support::{Dice, Place, Run, plant, same_trees, tree};

/// A run that nothing opens but what `args` say.
fn bare(place: &Place, args: &[&str]) -> Run {
    Run::of(place.command(args).env_remove("HOLDFAST_PASSWORD_FILE").output().unwrap())
}

#[test]
fn a_repository_lives_by_a_key_file_alone() {
    let place = Place::new();
    let file = place.text("key");
    let made = bare(&place, &["repo", "init", "--new-key-file", &file, "--no-recovery-key"]).expect(0);
    assert!(made.out.contains("only way in"), "{}", made.out);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    plant(&place.path("data"), &mut Dice(31), 3, 10_000);
    bare(&place, &["volume", "backup", &place.text("data"), "--key-file", &file]).expect(0);
    let mut by_variable = place.command(&["volume", "restore", "latest", &place.text("back")]);
    by_variable.env("HOLDFAST_PASSWORD_FILE", "").env("HOLDFAST_KEY_FILE", &file);
    Run::of(by_variable.output().unwrap()).expect(0);
    same_trees("restored", &tree(&place.path("data")), &tree(&place.path("back")));

    // A file is never overwritten, and one that opens nothing is not left behind.
    let again = bare(&place, &["repo", "key", "add", "--new-key-file", &file, "--key-file", &file]).expect(8);
    assert!(again.err.contains("no key is overwritten"), "{}", again.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let other = Place::new();
    let target = other.text("target");
    std::fs::create_dir(&other.repo).unwrap();
    std::fs::write(other.path("repo/cat.jpg"), "meow").unwrap();
    bare(&other, &["repo", "init", "--new-key-file", &target]).expect(8);
    assert!(!other.path("target").exists());

    // What is wrong with a key file is told without telling the key file.
    let secret = &text["holdfast-key-file-1-".len()..][..40];
    for (name, content, code, says) in [
        ("flipped", text.replacen(|c: char| c.is_ascii_digit() && c != '1', "f", 1), 2, "checksum"),
        ("cut", text[..60].to_owned(), 2, "damaged"),
        ("words", "correct horse".to_owned(), 2, "no key file"),
    ] {
        std::fs::write(place.path(name), content).unwrap();
        let run = bare(&place, &["volume", "list", "--key-file", &place.text(name)]).expect(code);
        assert!(run.err.contains(says) && !run.err.contains(secret), "{}", run.err);
    }
    let other_key = place.text("other-key");
    bare(&Place::new(), &["repo", "init", "--new-key-file", &other_key, "--no-recovery-key"]).expect(0);
    let wrong = bare(&place, &["volume", "list", "--key-file", &other_key]).expect(5);
    assert!(wrong.err.contains("the key file opens none of the 1 key(s)"), "{}", wrong.err);
}

/// The recovery key as `init` shows it to a person: the one indented line, and not among the results.
fn shown(run: &Run) -> String {
    let key = run.err.lines().find_map(|line| line.strip_prefix("    ")).unwrap().to_owned();
    assert!(!run.out.contains(&key[..9]), "{}", run.out);
    key
}

#[test]
fn the_recovery_key_is_shown_once_and_opens_everything_when_typed_back() {
    let place = Place::new();
    let key = shown(&place.run(&["repo", "init", "--kdf-memory", "1"]).expect(0));
    assert_eq!((key.len(), key.matches('-').count()), (44, 8), "{key}");
    plant(&place.path("data"), &mut Dice(32), 3, 10_000);
    place.run(&["volume", "backup", &place.text("data")]).expect(0);
    // From paper, in a hurry, with the passphrase forgotten.
    std::fs::write(place.path("typed"), format!("{}\n", key.to_lowercase().replace('-', " "))).unwrap();
    let typed = place.text("typed");
    place.run(&["volume", "restore", "latest", &place.text("back"), "--recovery-key-file", &typed]).expect(0);
    same_trees("restored", &tree(&place.path("data")), &tree(&place.path("back")));
    std::fs::write(place.path("next"), "a new passphrase").unwrap();
    let next = place.text("next");
    let add = ["repo", "key", "add", "--new-password-file", &next, "--kdf-memory", "1"];
    place.run(&[&add[..], &["--recovery-key-file", &typed]].concat()).expect(0);
    place.run(&["volume", "list", "--password-file", &next]).expect(0);

    // A slip of the pen is told apart from the wrong paper.
    let wrong: String = key.chars().rev().collect();
    for (text, code, says) in
        [(wrong.as_str(), 2, "checksum"), (&key[1..], 2, "36 characters, not 35"), ("U", 2, "character 1")]
    {
        std::fs::write(place.path("wrong"), text).unwrap();
        let run = place.run(&["volume", "list", "--recovery-key-file", &place.text("wrong")]).expect(code);
        assert!(run.err.contains(says) && !run.err.contains(&key[5..24]), "{}", run.err);
    }
    let other = shown(&Place::new().run(&["repo", "init", "--kdf-memory", "1"]).expect(0));
    std::fs::write(place.path("other"), other).unwrap();
    place.run(&["volume", "list", "--recovery-key-file", &place.text("other")]).expect(5);
    place.run(&["repo", "init", "--recovery-key-file", &typed]).expect(2);

    // For programs it is in the result; in a file if that is wanted; or not at all.
    let json = Place::new().run(&["repo", "init", "--kdf-memory", "1", "-o", "json"]).expect(0);
    assert_eq!(json.json()["recoveryKey"].as_str().unwrap().len(), 44);
    assert!(json.err.is_empty(), "{}", json.err);
    let place = Place::new();
    let file = place.text("paper");
    let init = ["repo", "init", "--kdf-memory", "1", "--new-recovery-key-file", &file, "-o", "json"];
    let json = place.run(&init).expect(0).json();
    assert_eq!((json["recoveryKeyFile"].as_str(), json.get("recoveryKey")), (Some(file.as_str()), None));
    place.run(&["repo", "stats", "--recovery-key-file", &file]).expect(0);
    let place = Place::new();
    let none = place.run(&["repo", "init", "--kdf-memory", "1", "--no-recovery-key", "-o", "json"]).expect(0);
    assert!(!format!("{}{}", none.out, none.err).to_lowercase().contains("recovery"), "{none:?}");
    let keys = place.run(&["repo", "key", "list", "-o", "json"]).expect(0).json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn keys_are_rotated_in_place_and_the_last_that_reads_stays() {
    let place = Place::new();
    place.run(&["repo", "init", "--kdf-memory", "1", "--no-recovery-key"]).expect(0);
    plant(&place.path("data"), &mut Dice(33), 3, 10_000);
    place.run(&["volume", "backup", &place.text("data")]).expect(0);
    let agent = place.text("agent");
    let add = ["repo", "key", "add", "--new-key-file", &agent, "--capability", "put", "--label", "agent"];
    place.run(&add).expect(0);
    let data = |place: &Place| {
        let mut all = tree(&place.path("repo"));
        all.retain(|name, _| !name.starts_with("keys/"));
        all
    };
    let before = data(&place);

    std::fs::write(place.path("next"), "the next passphrase").unwrap();
    let next = place.text("next");
    let rotate = ["repo", "key", "rotate", "--new-password-file", &next, "--kdf-memory", "1"];
    let done = place.run(&rotate).expect(0);
    assert!(done.out.contains("no data was touched"), "{}", done.out);
    place.run(&["volume", "list"]).expect(5);
    let with_next = ["--password-file", next.as_str()];
    let listed =
        place.run(&[&["repo", "key", "list", "-o", "json"], &with_next[..]].concat()).expect(0).json();
    let of = |kind: &str| {
        let keys = listed["keys"].as_array().unwrap();
        keys.iter().find(|key| key["kind"] == kind).unwrap()["id"].as_str().unwrap().to_owned()
    };
    // The agent's, by whoever may: with the same rights and label, under another file.
    let (agent_id, new_agent) = (of("key-file"), place.text("new-agent"));
    let run = place.run(&[&["repo", "key", "rotate", &agent_id], &with_next[..]].concat()).expect(2);
    assert!(run.err.contains("--new-key-file"), "{}", run.err);
    let rotate = ["repo", "key", "rotate", &agent_id, "--new-key-file", &new_agent, "-o", "json"];
    let done = place.run(&[&rotate[..], &with_next[..]].concat()).expect(0).json();
    assert_eq!(done["old"], agent_id.as_str());
    place.run(&["volume", "backup", &place.text("data"), "--key-file", &agent]).expect(5);
    assert!(data(&place) == before, "rotation rewraps and touches no data");
    place.run(&["volume", "backup", &place.text("data"), "--key-file", &new_agent]).expect(0);
    let list = place.run(&[&["repo", "key", "list"], &with_next[..]].concat()).expect(0);
    assert!(
        list.out.lines().any(|l| l.contains(" put ") && l.contains("key file") && l.ends_with("agent")),
        "{}",
        list.out
    );

    let read = of("passphrase");
    let last = place.run(&["repo", "key", "remove", &read, "--key-file", &new_agent]).expect(2);
    assert!(last.err.contains("last key that can read"), "{}", last.err);
    let both = place.run(&["repo", "stats", "--key-file", &new_agent, "--password-file", &next]).expect(2);
    assert!(both.err.contains("--key-file") && both.err.contains("--password-file"), "{}", both.err);
}

/// Everything a run can be made to say, about everything that opens a repository.
#[test]
fn no_secret_is_in_any_log_error_or_listing() {
    let mut place = Place::new();
    let words = "a-passphrase-nobody-else-has";
    std::fs::write(place.path("password"), words).unwrap();
    let (file, paper) = (place.text("key"), place.text("paper"));
    place.run(&["repo", "init", "--kdf-memory", "1", "--new-recovery-key-file", &paper]).expect(0);
    place.run(&["repo", "key", "add", "--new-key-file", &file]).expect(0);
    plant(&place.path("data"), &mut Dice(34), 3, 10_000);
    let key_text = std::fs::read_to_string(&file).unwrap();
    let recovery = std::fs::read_to_string(&paper).unwrap();
    let raw_hex = &key_text["holdfast-key-file-1-".len()..][..64];
    let raw: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&raw_hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let secrets: Vec<Vec<u8>> = vec![
        words.into(),
        raw_hex.into(),
        raw_hex.to_uppercase().into(),
        raw.clone(),
        // As `{:?}` would print bytes.
        format!("{}, {}, {}", raw[0], raw[1], raw[2]).into(),
        format!("{}, {}, {}", words.as_bytes()[0], words.as_bytes()[1], words.as_bytes()[2]).into(),
        recovery.trim().into(),
        recovery.trim().replace('-', "").into(),
        recovery.trim()[..14].into(),
    ];
    place.env.push(("RUST_BACKTRACE".into(), "full".into()));
    let data = place.text("data");
    let back = place.text("back");
    let broken = place.text("broken");
    std::fs::write(&broken, format!("{}x", key_text.trim())).unwrap();
    let typo = place.text("typo");
    std::fs::write(&typo, recovery.trim().replacen('-', "-0", 1)).unwrap();
    let runs: &[&[&str]] = &[
        &["volume", "backup", &data],
        &["volume", "backup", &data, "--key-file", &file],
        &["volume", "restore", "latest", &back, "--recovery-key-file", &paper],
        &["repo", "key", "list"],
        &["repo", "key", "list", "-o", "json"],
        &["repo", "check", "--read-data", "--key-file", &file],
        &["repo", "stats", "-o", "yaml"],
        // What is one thing, given as another.
        &["repo", "stats", "--password-file", &file],
        &["repo", "stats", "--password-file", &paper],
        &["repo", "stats", "--key-file", &paper],
        &["repo", "stats", "--key-file", &place.text("password")],
        &["repo", "stats", "--key-file", &broken],
        &["repo", "stats", "--recovery-key-file", &file],
        &["repo", "stats", "--recovery-key-file", &typo, "-o", "json"],
        &["repo", "key", "add", "--new-key-file", &file],
        &["repo", "key", "remove", "no-such-key"],
    ];
    for args in runs {
        for verbose in [&[][..], &["-vv"], &["-vvv"]] {
            let run = place.command(&[args, verbose].concat()).output().unwrap();
            let said = [run.stdout, run.stderr].concat();
            assert!(!said.is_empty(), "{args:?}");
            for secret in &secrets {
                let found = said.windows(secret.len()).any(|window| window == secret);
                assert!(!found, "{args:?} {verbose:?} says {:?}", String::from_utf8_lossy(secret));
            }
        }
    }
    // Nor does the repository itself hold any of it.
    for (name, bytes) in tree(&place.path("repo")) {
        for secret in &secrets {
            let found = bytes.iter().any(|b| b.windows(secret.len()).any(|window| window == secret));
            assert!(!found, "{name} holds a secret");
        }
    }
}

#[test]
fn an_empty_variable_means_unset() {
    let place = Place::with_repository();
    for name in ["HOLDFAST_PASSWORD_FILE", "HOLDFAST_KEY_FILE", "HOLDFAST_KMS", "HOLDFAST_RECOVERY_KEY_FILE"]
    {
        let mut command = place.command(&["repo", "stats"]);
        command.env_remove("HOLDFAST_PASSWORD_FILE").env(name, "");
        // Nobody is there to be asked, and that is what is told.
        let run = Run::of(command.output().unwrap()).expect(2);
        assert!(run.err.contains("no passphrase: standard input is not a terminal"), "{name}: {}", run.err);
        if name != "HOLDFAST_PASSWORD_FILE" {
            Run::of(place.command(&["repo", "stats"]).env(name, "").output().unwrap()).expect(0);
        }
    }
    let no_repo =
        Run::of(place.command(&["repo", "stats"]).env("HOLDFAST_REPO", "").output().unwrap()).expect(2);
    assert!(no_repo.err.contains("no repository is named"), "{}", no_repo.err);
}
