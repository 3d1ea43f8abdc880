//! Exec over a real websocket. The server is a few lines of the protocol that a kubelet speaks, and runs what it is
//! asked for in shells of this machine, so rules are seen to work over the wire: output, exit codes, locks.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

use std::process::Stdio;
use std::time::{Duration, Instant};

use app::object::Object;
use app::rules::kube::KubeHands;
use app::rules::{Hands, HandsError, Rule, Side, Target, plan, run};
use repo::Cancel;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PROTOCOL: &str = "v5.channel.k8s.io";

/// Serves exec until the test ends; gives the client.
async fn serve(folder: &std::path::Path) -> KubeHands {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let folder = folder.to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(one(stream, folder.clone()));
        }
    });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    KubeHands::new(kube::Client::try_from(config).unwrap())
}

async fn one(mut stream: TcpStream, folder: std::path::PathBuf) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    let (path, query) = target.split_once('?').unwrap();
    if path != "/api/v1/namespaces/shop/pods/db-0/exec" {
        let status = json!({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"NotFound","message":"pods not found","code":404}).to_string();
        let answer = format!(
            "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{status}",
            status.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        return;
    }
    let header = |name: &str| {
        head.lines()
            .find_map(|l| {
                l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned())
            })
            .unwrap()
    };
    assert!(header("sec-websocket-protocol").contains(PROTOCOL));
    let key = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", header("sec-websocket-key"));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    let accept = data_encoding::BASE64.encode(digest.as_ref());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\nsec-websocket-protocol: {PROTOCOL}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();

    let asked: Vec<(String, String)> =
        query.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), decoded(v))).collect();
    assert!(asked.contains(&("container".into(), "main".into())), "{asked:?}");
    let root = folder.to_str().unwrap();
    let command: Vec<String> = asked
        .iter()
        .filter(|(k, _)| k == "command")
        .map(|(_, v)| v.replace("/tmp/holdfast-", &format!("{root}/holdfast-")))
        .collect();
    let process = tokio::process::Command::new(&command[0])
        .args(&command[1..])
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let status = match process {
        Ok(process) => {
            let output = process.wait_with_output().await.unwrap();
            for (channel, bytes) in [(1u8, output.stdout), (2, output.stderr)] {
                for part in bytes.chunks(10_000) {
                    if stream.write_all(&frame(channel, part)).await.is_err() {
                        return;
                    }
                }
            }
            match output.status.code().unwrap_or(-1) {
                0 => json!({"metadata":{},"status":"Success"}),
                code => {
                    json!({"metadata":{},"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code","details":{"causes":[{"reason":"ExitCode","message":code.to_string()}]}})
                }
            }
        }
        Err(_) => {
            json!({"metadata":{},"status":"Failure","reason":"InternalError","message":"exec: \"x\": executable file not found in $PATH","code":500})
        }
    };
    let _ = stream.write_all(&frame(3, status.to_string().as_bytes())).await;
    let _ = stream.write_all(&[0x88, 2, 0x03, 0xe8]).await;
    // The other side says goodbye as well.
    let _ = stream.read(&mut [0; 64]).await;
}

/// One binary message of a channel.
fn frame(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() + 1;
    let mut frame = vec![0x82];
    match u8::try_from(length) {
        Ok(short @ 0..126) => frame.push(short),
        _ => {
            frame.push(126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    frame.push(channel);
    frame.extend(bytes);
    frame
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap()
}

fn target(pod: &str) -> Target {
    Target { namespace: "shop".into(), pod: pod.into(), container: Some("main".into()) }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|w| (*w).to_owned()).collect()
}

#[tokio::test]
async fn output_and_exit_codes_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let hands = serve(folder.path()).await;
    let time = Duration::from_secs(10);
    let end = hands
        .exec(&target("db-0"), &words(&["sh", "-c", "echo out; echo 'e r%r&' >&2; exit 3"]), time)
        .await
        .unwrap();
    assert_eq!((end.exit_code, end.stdout, end.stderr), (3, b"out\n".to_vec(), b"e r%r&\n".to_vec()));
    let end = hands.exec(&target("db-0"), &words(&["true"]), time).await.unwrap();
    assert_eq!(end.exit_code, 0);
    let end = hands.exec(&target("db-0"), &words(&["no-such-program"]), time).await.unwrap();
    assert_eq!(end.exit_code, 127);
    let end = hands
        .exec(
            &target("db-0"),
            &words(&["sh", "-c", "i=0; while [ $i -lt 30000 ]; do echo 0123456789; i=$((i+1)); done"]),
            time,
        )
        .await
        .unwrap();
    assert_eq!(
        (end.exit_code, end.stdout.len()),
        (0, 64 * 1024),
        "what is too much is dropped, and does not block the command"
    );
}

#[tokio::test]
async fn a_pod_that_is_gone_and_a_command_that_takes_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let hands = serve(folder.path()).await;
    let gone = hands.exec(&target("db-9"), &words(&["true"]), Duration::from_secs(10)).await;
    assert!(matches!(&gone, Err(HandsError::Gone(why)) if why.contains("not found")), "{gone:?}");
    let begun = Instant::now();
    let late = hands.exec(&target("db-0"), &words(&["sleep", "20"]), Duration::from_millis(300)).await;
    assert_eq!(late, Err(HandsError::Timeout(Duration::from_millis(300))));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_published_stork_rule_and_a_lock_work_over_the_wire() {
    let folder = tempfile::tempdir().unwrap();
    let hands = serve(folder.path()).await;
    let pod = Object(
        json!({"metadata":{"namespace":"shop","name":"db-0","labels":{"app":"cassandra"}},"spec":{"containers":[{"name":"main"}]},"status":{"phase":"Running"}}),
    );
    let stork = "apiVersion: stork.libopenstorage.org/v1alpha1\nkind: Rule\nmetadata:\n  name: r\nspec:\n  - podSelector:\n      app: cassandra\n    actions:\n      - type: command\n        value: echo flush >> log\n      - type: command\n        background: true\n        value: sh -c 'echo lock >> log; ${WAIT_CMD}; echo free >> log'\n";
    let rule = Rule::parse(stork, Side::Pre).unwrap();
    let log = folder.path().join("log");
    let read = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let done =
        run::around(&plan::plan(&[rule], [&pod], None), &hands, "t", &Cancel::default(), async { read() })
            .await;
    assert_eq!(done.cut.unwrap(), ["flush", "lock"]);
    assert_eq!(read(), ["flush", "lock", "free"]);
    assert_eq!(done.kept.len(), 1, "{:?}", done.findings);
}
