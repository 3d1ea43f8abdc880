//! `deploy/node.proto` is what `node.rs` says, and Google's library understands it: every message with every field, every call, in
//! both directions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may: its helpers are tests too.

#[path = "../../rpc/tests/support/google.rs"]
mod google;
#[path = "node/printed.rs"]
mod printed;

use api::node::*;
use data_encoding::BASE64;
use google::Google;
use prost::Message;
use rpc::{Client, Code, Listener, Options, Receiving, Server, Status};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;

fn proto() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/node.proto")
}

#[test]
fn the_protocols_file_is_what_the_code_says() {
    let printed = printed::printed(include_str!("../src/node.rs"));
    if std::env::var_os("HOLDFAST_WRITE_PROTO").is_some() {
        std::fs::write(proto(), &printed).unwrap();
    }
    let there = std::fs::read_to_string(proto()).unwrap_or_default();
    assert!(
        there == printed,
        "deploy/node.proto is stale: HOLDFAST_WRITE_PROTO=1 cargo test -p api writes it anew"
    );
}

/// The name of a message in the file.
fn name<M>() -> String {
    format!("holdfast.node.v1.{}", std::any::type_name::<M>().rsplit("::").next().unwrap())
}

/// A message with every field set, as Google has it, once for each choice in it.
fn filled<M: Message + Default>(google: &mut Google) -> Vec<(M, Value)> {
    let told = google.ask(json!({ "fill": name::<M>() }));
    let read = |one: &Value| {
        let bytes = BASE64.decode(one["bytes"].as_str().unwrap().as_bytes()).unwrap();
        (M::decode(bytes.as_slice()).unwrap(), one["json"].clone())
    };
    told.as_array().unwrap().iter().map(read).collect()
}

/// What Google wrote we read, and what we write of it Google reads: nothing is lost on the way. And what is damaged is no panic.
fn survives<M: Message + Default + PartialEq>(google: &mut Google, seen: &mut BTreeSet<String>) {
    seen.insert(name::<M>());
    for (message, wanted) in filled::<M>(google) {
        let bytes = message.encode_to_vec();
        let read = google.ask(json!({ "read": name::<M>(), "bytes": BASE64.encode(&bytes) }));
        assert_eq!(read["json"], wanted, "{}", name::<M>());
        for at in 0..bytes.len().min(2000) {
            let _ = M::decode(&bytes[..at]);
            for change in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                let _ = M::decode(damaged.as_slice());
            }
        }
    }
}

macro_rules! all_survive {
    ($google:ident: $($message:ident)*) => {{
        let mut seen = BTreeSet::new();
        $(survives::<$message>(&mut $google, &mut seen);)*
        seen
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_every_message_arrives() {
    let mut google = Google::start(&proto());
    let seen = all_survive!(google: HelloRequest HelloReply Limits VolumeRef LocateRequest LocateReply Located RepositoryRef
        ReadRequest WriteRequest Root TaskRef TaskEvent Progress Finding Touched Done Failed Keys GiveReply TasksRequest TasksReply
        TaskState LockState StopReply LockRequest Prepare Member Freeze Verify Thaw LockReply MemberState CertificateRequest
        CertificateReply);
    let file = std::fs::read_to_string(proto()).unwrap();
    let named: BTreeSet<String> = file
        .lines()
        .filter_map(|line| line.strip_prefix("message ")?.split(' ').next())
        .map(|name| format!("holdfast.node.v1.{name}"))
        .collect();
    assert_eq!(seen, named);
}

/// A server for one verb: wants the filled request, answers with the filled answer, twice where it streams.
fn serving<Q, A>(server: Server, verb: Verb<Q, A>, asked: Q, told: A) -> Server
where
    Q: Message + Default + Clone + PartialEq + 'static,
    A: Message + Default + Clone + 'static,
{
    server.streams(verb.path, move |_, mut requests: Receiving<Q>, answers: rpc::Answers<A>| {
        let (asked, told) = (asked.clone(), told.clone());
        async move {
            let mut count = 0;
            while let Some(request) = requests.next().await? {
                if request != asked {
                    return Err(Status::new(Code::InvalidArgument, format!("{} is another", name::<Q>())));
                }
                count += 1;
            }
            if count != times(verb.streams.0) {
                return Err(Status::new(Code::OutOfRange, format!("{count} requests")));
            }
            for _ in 0..times(verb.streams.1) {
                answers.send(&told).await?;
            }
            Ok(())
        }
    })
}

fn times(streams: bool) -> usize {
    if streams { 2 } else { 1 }
}

/// The same call, ours to Google's and Google's to ours.
async fn spoken<Q, A>(google: &mut Google, verb: Verb<Q, A>, seen: &mut BTreeSet<String>)
where
    Q: Message + Default + Clone + PartialEq + 'static,
    A: Message + Default + Clone + PartialEq + 'static,
{
    seen.insert(verb.path.rsplit('/').next().unwrap().to_owned());
    let (asked, asked_json) = filled::<Q>(google).remove(0);
    let (told, told_json) = filled::<A>(google).remove(0);
    let (requests, answers) =
        (vec![asked_json; times(verb.streams.0)], vec![told_json; times(verb.streams.1)]);
    let dir = tempfile::tempdir().unwrap();

    let socket = dir.path().join("ours");
    let server = Server::new(Options::default(), |_, _| Ok(()));
    let server = Arc::new(serving(server, verb, asked.clone(), told.clone()));
    let listener = Listener::Unix(UnixListener::bind(&socket).unwrap());
    let serving = tokio::spawn(server.serve(listener, std::future::pending(), Duration::ZERO));
    let call = json!({ "call": format!("unix:{}", socket.display()), "method": verb.path, "requests": requests, "timeout": 20 });
    let heard = google.ask(call);
    assert_eq!(heard, json!({ "code": "OK", "details": "", "answers": answers }), "{}", verb.path);
    serving.abort();

    let socket = dir.path().join("google");
    let script = json!({ verb.path: { "answers": answers } });
    google.ask(json!({ "serve": format!("unix:{}", socket.display()), "script": script }));
    let client = Client::unix(&socket, Options::default()).await.unwrap();
    let mut call = client.call::<Q, A>(verb.path, Some(Duration::from_secs(20))).await.unwrap();
    for _ in &requests {
        call.requests.send(&asked).await.unwrap();
    }
    call.requests.finish().await.unwrap();
    for _ in &answers {
        assert!(call.answers.next().await.unwrap().unwrap() == told, "{}", verb.path);
    }
    assert!(call.answers.next().await.unwrap().is_none(), "{}", verb.path);
    let heard = google.ask(json!({ "seen": true }));
    assert_eq!((&heard[0][0], &heard[0][1]), (&json!(verb.path), &json!(requests)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_understood_on_both_sides() {
    let mut google = Google::start(&proto());
    let mut seen = BTreeSet::new();
    spoken(&mut google, HELLO, &mut seen).await;
    spoken(&mut google, LOCATE, &mut seen).await;
    spoken(&mut google, READ, &mut seen).await;
    spoken(&mut google, WRITE, &mut seen).await;
    spoken(&mut google, WATCH, &mut seen).await;
    spoken(&mut google, GIVE, &mut seen).await;
    spoken(&mut google, TASKS, &mut seen).await;
    spoken(&mut google, STOP, &mut seen).await;
    spoken(&mut google, LOCK, &mut seen).await;
    spoken(&mut google, CERTIFICATE, &mut seen).await;
    let file = std::fs::read_to_string(proto()).unwrap();
    let calls = file.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
    assert_eq!(seen, calls.map(str::to_owned).collect());
}

#[test]
fn what_opens_something_is_not_printed() {
    let secret = "s3cret-".repeat(10);
    let repository = RepositoryRef {
        settings: [("key".into(), secret.clone())].into(),
        put_bundle: secret.clone().into(),
        pack_keys: secret.clone().into(),
        ..RepositoryRef::default()
    };
    let read = ReadRequest { repository: Some(repository.clone()), ..ReadRequest::default() };
    let write = WriteRequest { repository: Some(repository), ..WriteRequest::default() };
    let keys = Keys { pack_keys: secret.clone().into(), ..Keys::default() };
    let request = CertificateRequest { token: secret.clone(), public_key: vec![] };
    for printed in [format!("{read:?}"), format!("{write:?}"), format!("{keys:?}"), format!("{request:?}")] {
        // As text, and as the numbers of bytes.
        assert!(!printed.contains("s3cret") && !printed.contains("115, 51, 99"), "{printed}");
    }
}

#[test]
fn certificates_are_renewed_at_two_thirds_and_not_all_at_once() {
    let day = 86_400;
    assert_eq!(renew_at(0, day, 0), 16 * 3600);
    assert_eq!(renew_at(0, day, u16::MAX), 14 * 3600);
    assert_eq!(renew_at(1_000_000, 1_000_000 + day, 0), 1_000_000 + 16 * 3600);
    // Whatever somebody has written into a certificate.
    for (from, until) in [(0, 0), (5, 1), (i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (i64::MAX, i64::MAX)] {
        let at = renew_at(from, until, 7);
        assert!(at >= from.min(until) && at <= from.max(until), "{from} {until}: {at}");
    }
}
