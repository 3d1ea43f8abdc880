//! The same calls with Google's library on the other side, in both directions: that we do not merely agree with ourselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may: its helpers are tests too.

#[path = "support/google.rs"]
mod google;
mod support;

use google::Google;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rpc::{Client, Clients, Code, Identity, Listener, Options, Receiving, Roots, Tls};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use support::*;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

fn notes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notes.proto")
}

/// A certificate authority, and what it signs in both forms.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "ca");
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Google's library wants a host name beside the URI.
    fn identity(&self, uri: &str) -> (Identity, Value) {
        let mut params = CertificateParams::new(["holdfast.test".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let tls = json!({
            "chain": pem("CERTIFICATE", certificate.der()),
            "key": pem("PRIVATE KEY", &key.serialize_der()),
            "roots": pem("CERTIFICATE", self.0.der()),
        });
        (Identity::new(vec![certificate.der().to_vec()], key.serialize_der()).unwrap(), tls)
    }

    fn roots(&self) -> Roots {
        Roots::new(vec![self.0.der().to_vec()]).unwrap()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<String> = data_encoding::BASE64
        .encode(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// What Google's client has to see of our service, over any transport.
fn google_calls(google: &mut Google, address: &str, tls: &Value) {
    let mut call = |method: &str, requests: Value, timeout: Value| {
        let wish = json!({ "call": address, "tls": tls, "method": method, "requests": requests, "timeout": timeout });
        let told = google.ask(wish);
        (
            told["code"].as_str().unwrap().to_owned(),
            told["details"].as_str().unwrap().to_owned(),
            told["answers"].clone(),
        )
    };
    let ok = |answers: Value| ("OK".to_owned(), String::new(), answers);
    let note = json!({ "text": "zu spät", "count": "18446744073709551615", "bytes": "AAEC" });
    assert_eq!(call(ECHO, json!([note]), json!(null)), ok(json!([note])));
    assert_eq!(call(ECHO, json!([{}]), json!(20)), ok(json!([{}])));
    assert_eq!(
        call(COUNT, json!([{ "count": "3" }]), json!(20)),
        ok(json!([{}, { "count": "1" }, { "count": "2" }]))
    );
    assert_eq!(call(COUNT, json!([{}]), json!(20)), ok(json!([])));
    assert_eq!(
        call(SUM, json!([{ "count": "1", "text": "a" }, { "count": "2", "text": "b" }]), json!(20)),
        ok(json!([{ "count": "3", "text": "ab" }]))
    );
    assert_eq!(call(SUM, json!([]), json!(20)), ok(json!([{}])));
    assert_eq!(
        call(CHAT, json!([{ "text": "to" }, { "text": "fro" }]), json!(20)),
        ok(json!([{ "text": "to" }, { "text": "fro" }]))
    );
    let large = json!({ "bytes": data_encoding::BASE64.encode(&vec![7; (4 << 20) - 5]) });
    assert_eq!(call(ECHO, json!([large]), json!(20)), ok(json!([large])));
    // How it ends, in Google's words.
    for (method, text, code, says) in [
        (ECHO, "not found: nö: 100 %", "NOT_FOUND", "nö: 100 %"),
        (SUM, "denied: no", "PERMISSION_DENIED", "no"),
        (CHAT, "denied: no", "PERMISSION_DENIED", "no"),
        ("/test.v1.Notes/Unknown", "", "UNIMPLEMENTED", "there is no method"),
    ] {
        let (found, details, _) = call(method, json!([{ "text": text }]), json!(20));
        assert_eq!(found, code, "{method}: {details}");
        assert!(details.contains(says), "{method}: {details}");
    }
    let (code, _, answers) = call(COUNT, json!([{ "count": "2", "text": "denied: no more" }]), json!(20));
    assert_eq!((code.as_str(), answers.as_array().unwrap().len()), ("PERMISSION_DENIED", 2));
    let (code, _, _) = call(HANG, json!([{}]), json!(0.5));
    assert_eq!(code, "DEADLINE_EXCEEDED");
    let (code, details, _) =
        call(ECHO, json!([{ "bytes": data_encoding::BASE64.encode(&vec![7; 5 << 20]) }]), json!(20));
    assert_eq!(code, "RESOURCE_EXHAUSTED", "{details}");
    let (code, _, answers) = call(ECHO, json!([{ "text": "deadline?" }]), json!(20));
    let left: u64 = answers[0]["count"].as_str().unwrap().parse().unwrap();
    assert!(code == "OK" && (10_000..=20_000).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_client_calls_our_server() {
    let mut google = Google::start(&notes());
    let mut served = Served::usual();
    let address = format!("unix:{}", served.socket().display());
    google_calls(&mut google, &address, &Value::Null);
    // Its deadline has ended the handler.
    assert_eq!((served.told().await, served.told().await), ("reached", "dropped"));

    let ca = Ca::new();
    let (told, _hanging) = mpsc::unbounded_channel();
    let seen = Arc::new(Seen { passed: AtomicU64::new(0), hanging: told, awake: watch::Sender::new(false) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls = Arc::new(Tls::new(Some(ca.identity("spiffe://one/node/a").0), ca.roots()));
    let server = Arc::new(service(Options::default(), seen));
    let listener = Listener::Tls(listener, tls, Clients::Proved);
    tokio::spawn(server.serve(listener, std::future::pending(), Duration::ZERO));
    google_calls(&mut google, &address, &ca.identity("spiffe://one/operator").1);
    let stranger = Ca::new().identity("spiffe://one/operator").1;
    let mixed =
        json!({ "chain": stranger["chain"], "key": stranger["key"], "roots": ca.identity("x:y").1["roots"] });
    let told =
        google.ask(json!({ "call": address, "tls": mixed, "method": ECHO, "requests": [{}], "timeout": 5 }));
    assert_ne!(told["code"], "OK", "{told}");
}

/// What our client has to see of Google's server.
async fn our_calls(client: &Client) {
    let deadline = Some(Duration::from_secs(20));
    let full = Note { text: "zu spät".into(), count: u64::MAX, bytes: vec![0, 1, 2] };
    assert_eq!(soon(client.unary(ECHO, &full, deadline)).await, Ok(full.clone()));
    assert_eq!(soon(client.unary(ECHO, &Note::default(), None)).await, Ok(Note::default()));
    let large = Note { bytes: vec![7; (4 << 20) - 5], ..Note::default() };
    assert_eq!(soon(client.unary(ECHO, &large, deadline)).await, Ok(large));
    let mut answers: Receiving<Note> = client.answers(COUNT, &note("x"), deadline).await.unwrap();
    for text in ["first", "second"] {
        assert_eq!(soon(answers.next()).await, Ok(Some(note(text))));
    }
    let ended = soon(answers.next()).await.unwrap_err();
    assert_eq!((ended.code, ended.message.as_str(), ended.by_peer()), (Code::DataLoss, "nö: 100 %", true));
    let mut call = client.call::<Note, Note>(CHAT, deadline).await.unwrap();
    for text in ["to", "and", "fro"] {
        call.requests.send(&note(text)).await.unwrap();
        assert_eq!(soon(call.answers.next()).await, Ok(Some(note(text))));
    }
    call.requests.finish().await.unwrap();
    assert_eq!(soon(call.answers.next()).await, Ok(None));
    let mut call = client.call::<Note, Note>(SUM, deadline).await.unwrap();
    for _ in 0..100 {
        call.requests.send(&Note { bytes: vec![1; 10_000], ..note("") }).await.unwrap();
    }
    call.requests.finish().await.unwrap();
    assert_eq!(soon(call.answers.one()).await, Ok(note("a hundred")));
    let refused =
        soon(client.unary::<Note, Note>("/test.v1.Notes/Nothing", &note(""), deadline)).await.unwrap_err();
    assert_eq!((refused.code, refused.by_peer()), (Code::Unimplemented, true), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_calls_googles_server() {
    let mut google = Google::start(&notes());
    let script = json!({
        COUNT: { "answers": [{ "text": "first" }, { "text": "second" }], "code": "DATA_LOSS", "details": "nö: 100 %" },
        SUM: { "answers": [{ "text": "a hundred" }] },
    });
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("google");
    google.ask(json!({ "serve": format!("unix:{}", socket.display()), "script": script }));
    let client = Client::unix(&socket, Options::default()).await.unwrap();
    our_calls(&client).await;
    let seen = google.ask(json!({ "seen": true }));
    assert_eq!(seen[0][1], json!([{ "text": "zu spät", "count": "18446744073709551615", "bytes": "AAEC" }]));
    // Its clock rounds up, and without a deadline it is in the far future.
    assert!((10.0..=20.5).contains(&seen[0][2].as_f64().unwrap()), "{}", seen[0][2]);
    assert!(seen[1][1] == json!([{}]) && seen[1][2].as_f64().unwrap() > 1e9, "{}", seen[1]);
    assert_eq!(seen.as_array().unwrap().last().unwrap()[1].as_array().unwrap().len(), 100);

    let ca = Ca::new();
    let port = google.ask(
        json!({ "serve": "127.0.0.1:0", "tls": ca.identity("spiffe://one/node/a").1, "script": script }),
    );
    let address = format!("127.0.0.1:{}", port["port"]);
    let tls = Tls::new(Some(ca.identity("spiffe://one/operator").0), ca.roots());
    let client = Client::tls(&address, &tls, "spiffe://one/node/a", Options::default()).await.unwrap();
    our_calls(&client).await;
    assert!(Client::tls(&address, &tls, "spiffe://one/node/b", Options::default()).await.is_err());
}
