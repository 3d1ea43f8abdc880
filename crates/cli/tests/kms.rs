//! A repository whose key a Kubernetes KMS v2 plugin keeps. The plugin (tests/real/kms_plugin.py) is a process of its own,
//! speaks through Google's gRPC library and really encrypts.

#![allow(clippy::unwrap_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use support::{Dice, Place, Run, plant, python, root, same_trees, tree};

/// A running plugin. It ends when its standard input closes, so also when this test dies.
struct Plugin {
    child: Child,
}

impl Plugin {
    fn start(place: &Place) -> Plugin {
        let mut child = Command::new(python())
            .arg(root().join("tests/real/kms_plugin.py"))
            .args([place.text("kms.sock"), place.text("state.json")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Plugin { child }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What the plugin holds and says from now on; `change` over a healthy plugin with two keys.
fn state(place: &Place, change: Value) {
    let mut state =
        json!({ "current": "key-1", "keys": { "key-1": "11".repeat(32), "key-2": "22".repeat(32) } });
    state.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    std::fs::write(place.path("next.json"), state.to_string()).unwrap();
    std::fs::rename(place.path("next.json"), place.path("state.json")).unwrap();
}

/// A place whose runs are opened by the plugin and nothing else.
fn place_with_plugin() -> (Place, Plugin) {
    let mut place = Place::new();
    state(&place, json!({}));
    let plugin = Plugin::start(&place);
    let url = format!("unix://{}", place.text("kms.sock"));
    place.env.extend([("HOLDFAST_PASSWORD_FILE".into(), String::new()), ("HOLDFAST_KMS".into(), url)]);
    (place, plugin)
}

fn data_of(place: &Place) -> support::Tree {
    let mut all = tree(&place.path("repo"));
    all.retain(|name, _| !name.starts_with("keys/"));
    all
}

#[test]
fn a_repository_lives_by_a_plugin_and_moves_to_its_new_key() {
    let (place, _plugin) = place_with_plugin();
    place.run(&["repo", "init", "--no-recovery-key"]).expect(0);
    plant(&place.path("data"), &mut Dice(41), 4, 20_000);
    let quiet = place.run(&["volume", "backup", &place.text("data")]).expect(0);
    assert!(!quiet.err.contains("warning"), "{}", quiet.err);
    let list = place.run(&["repo", "key", "list"]).expect(0);
    assert!(list.out.contains("KMS plugin (key-1)"), "{}", list.out);

    // The plugin's key changes: told on every run, and everything still opens.
    state(&place, json!({ "current": "key-2" }));
    let told = place.run(&["volume", "restore", "latest", &place.text("back")]).expect(0);
    assert!(told.err.contains("\"key-2\"") && told.err.contains("repo key rotate"), "{}", told.err);
    same_trees("restored", &tree(&place.path("data")), &tree(&place.path("back")));
    let before = data_of(&place);
    let rotated = place.run(&["repo", "key", "rotate"]).expect(0);
    assert!(rotated.out.contains("no data was touched"), "{}", rotated.out);
    assert!(data_of(&place) == before, "rotation rewraps and touches no data");
    let list = place.run(&["repo", "key", "list", "-o", "json"]).expect(0);
    assert_eq!(list.json()["keys"][0]["kms_key_id"], "key-2");
    assert!(list.err.is_empty(), "{}", list.err);

    // The old key may be retired now, and the new one may not.
    state(&place, json!({ "current": "key-2", "keys": { "key-2": "22".repeat(32) } }));
    place.run(&["volume", "list"]).expect(0);
    state(&place, json!({ "current": "key-3", "keys": { "key-3": "33".repeat(32) } }));
    let gone = place.run(&["volume", "list"]).expect(5);
    assert!(gone.err.contains("there is no key 'key-2' (any more)"), "{}", gone.err);
    // Another key of the same name.
    state(&place, json!({ "current": "key-2", "keys": { "key-2": "44".repeat(32) } }));
    let other = place.run(&["volume", "list"]).expect(5);
    assert!(other.err.contains("does not authenticate: 100 % refused"), "{}", other.err);
}

#[test]
fn keys_of_other_kinds_stand_beside_a_plugins() {
    let (place, _plugin) = place_with_plugin();
    let made = place.run(&["repo", "init", "-o", "json"]).expect(0).json();
    std::fs::write(place.path("paper"), made["recoveryKey"].as_str().unwrap()).unwrap();
    let password = place.text("password");
    place.run(&["repo", "key", "add", "--new-password-file", &password, "--kdf-memory", "1"]).expect(0);
    let by_password = ["--password-file", password.as_str()];
    let url = format!("unix://{}", place.text("kms.sock"));
    let add = ["repo", "key", "add", "--new-kms", &url, "--capability", "put", "--label", "agent"];
    place.run(&[&add[..], &by_password].concat()).expect(0);
    let keys =
        place.run(&[&["repo", "key", "list", "-o", "json"], &by_password[..]].concat()).expect(0).json();
    let kinds: Vec<&str> =
        keys["keys"].as_array().unwrap().iter().map(|k| k["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "kms").count(), 2, "{kinds:?}");
    // The day the plugin is lost.
    drop(_plugin);
    let down = place.run(&["points"]).expect(6);
    assert!(down.err.contains(&url) && down.err.contains("see that the plugin runs"), "{}", down.err);
    place.run(&[&["points"], &by_password[..]].concat()).expect(0);
    place.run(&["points", "--recovery-key-file", &place.text("paper")]).expect(0);
}

#[test]
fn a_plugin_that_is_not_well_makes_no_key() {
    let (place, _plugin) = place_with_plugin();
    for (change, says) in [
        (json!({ "health": "the vault is sealed" }), "the vault is sealed"),
        (json!({ "version": "v1beta1" }), "v1beta1"),
        (json!({ "current": "" , "keys": { "": "11".repeat(32) } }), "key_id"),
        (json!({ "spoil": true }), "does not authenticate"),
        (json!({ "keys": {} }), "Encrypt ended with gRPC status"),
    ] {
        state(&place, change);
        let run = place.run(&["repo", "init"]).expect(6);
        assert!(run.err.contains(says), "{says}: {}", run.err);
        assert!(!place.path("repo/holdfast.json").exists(), "{says}");
        assert!(!place.path("repo/keys").exists(), "{says}");
    }
    state(&place, json!({}));
    place.run(&["repo", "init", "--no-recovery-key"]).expect(0);
    // One that decrypts and complains is good enough for a restore, and is told of.
    state(&place, json!({ "health": "the vault is nearly full" }));
    let run = place.run(&["repo", "stats"]).expect(0);
    assert!(run.err.contains("nearly full"), "{}", run.err);
    place.run(&["repo", "key", "rotate"]).expect(6);
    state(&place, json!({}));
    place.run(&["repo", "stats"]).expect(0);
}

#[test]
fn a_tampered_key_object_is_refused_by_the_plugin_or_by_its_name() {
    let (place, _plugin) = place_with_plugin();
    place.run(&["repo", "init", "--no-recovery-key"]).expect(0);
    let keys = place.path("repo/keys");
    let name = std::fs::read_dir(&keys).unwrap().next().unwrap().unwrap().file_name();
    let good = std::fs::read_to_string(keys.join(&name)).unwrap();
    let flip = |field: &str| {
        let at = good.find(&format!("\"{field}\":\"")).unwrap() + field.len() + 5;
        let other = if &good[at..at + 1] == "0" { "1" } else { "0" };
        format!("{}{other}{}", &good[..at], &good[at + 1..])
    };
    let renamed = good.replace("\"key_id\":\"key-1\"", "\"key_id\":\"key-2\"");
    assert_ne!(renamed, good);
    for (content, says) in [
        (flip("wrapped"), "does not authenticate"),
        (flip("nonce.kms.example.com"), "does not authenticate"),
        (renamed, "does not authenticate"),
        (flip("salt"), "opens none"),
        (flip("bundle"), "opens none"),
    ] {
        std::fs::remove_file(keys.join(&name)).unwrap();
        // As its name says: whoever can write to the store can make that fit.
        let forged = repo_name(&place, &content);
        std::fs::write(keys.join(&forged), &content).unwrap();
        let run = place.run(&["points"]).expect(5);
        assert!(run.err.contains(says), "{says}: {}", run.err);
        std::fs::remove_file(keys.join(&forged)).unwrap();
        // Under the old name it is not even tried.
        std::fs::write(keys.join(&name), &content).unwrap();
        let run = place.run(&["points"]).expect(5);
        assert!(run.err.contains("do not hash to its name"), "{}", run.err);
    }
    std::fs::remove_file(keys.join(&name)).unwrap();
    std::fs::write(keys.join(&name), &good).unwrap();
    place.run(&["points"]).expect(0);
}

/// The name of a key object with this content, from the other reader's tools.
fn repo_name(place: &Place, content: &str) -> String {
    std::fs::write(place.path("forged"), content).unwrap();
    let script = "import sys; from blake3 import blake3; print(blake3(open(sys.argv[1], 'rb').read()).hexdigest()[:32])";
    let run = Run::of(Command::new(python()).args(["-c", script, &place.text("forged")]).output().unwrap());
    run.expect(0).out.trim().to_owned()
}

#[test]
fn a_socket_without_a_plugin_is_told() {
    let mut place = Place::new();
    place.env.push(("HOLDFAST_PASSWORD_FILE".into(), String::new()));
    let socket = place.path("kms.sock");
    let url = format!("unix://{}", socket.display());
    let init = ["repo", "init", "--kms", &url];
    let none = place.run(&init).expect(6);
    assert!(none.err.contains("cannot connect"), "{}", none.err);
    // Somebody listens and is no plugin: hangs up, or says something else.
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let answering = std::thread::spawn(move || {
        let (first, _) = listener.accept().unwrap();
        drop(first);
        let (mut second, _) = listener.accept().unwrap();
        let _ = std::io::Write::write_all(&mut second, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = second.shutdown(std::net::Shutdown::Write);
        let _ = std::io::copy(&mut second, &mut std::io::sink());
    });
    for _ in 0..2 {
        let run = place.run(&init).expect(6);
        assert!(run.err.contains(&url), "{}", run.err);
    }
    answering.join().unwrap();
    for wrong in ["/run/kms.sock", "http://127.0.0.1:1", "unix://"] {
        place.run(&["repo", "init", "--kms", wrong]).expect(2);
    }
}

#[test]
fn a_plugin_that_hangs_does_not_hang_the_run() {
    let (place, _plugin) = place_with_plugin();
    place.run(&["repo", "init", "--no-recovery-key"]).expect(0);
    state(&place, json!({ "sleep": 12 }));
    let run = place.run(&["points"]).expect(6);
    assert!(run.err.contains("no answer to Decrypt in 10 s"), "{}", run.err);
}
