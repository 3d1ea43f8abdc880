//! Whatever comes over the wire is answered or refused: never a panic, never a hang, and others are served meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use rpc::{Client, Code, Options, Status};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics of all threads from now on: those of a spawned task end that task only.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
    });
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Field lines, none of them compressed.
fn head(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The head of a call with these lines changed or added; an empty value leaves the line out.
fn call(stream: u32, changed: &[(&str, &str)]) -> Vec<u8> {
    let mut lines = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", ECHO),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in changed {
        lines.retain(|(other, _)| other != name);
        if !value.is_empty() {
            lines.push((name, value));
        }
    }
    lines.sort_by_key(|(name, _)| !name.starts_with(':'));
    http2_frame(1, 4, stream, &head(&lines))
}

/// A message, and that it is the last.
fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    http2_frame(0, 1, stream, payload)
}

/// Sends this, then nothing more; what comes back until the server has hung up.
async fn said(socket: &std::path::Path, sent: &[u8]) -> Vec<u8> {
    let (mut back, mut out) = UnixStream::connect(socket).await.unwrap().into_split();
    let sent = sent.to_vec();
    tokio::spawn(async move {
        // The server may hang up before it has all.
        let _ = out.write_all(&sent).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = out.shutdown().await;
    });
    let mut heard = Vec::new();
    let _ = soon(back.read_to_end(&mut heard)).await;
    heard
}

fn contains(heard: &[u8], text: &[u8]) -> bool {
    heard.windows(text.len()).any(|window| window == text)
}

#[tokio::test]
async fn a_server_answers_or_refuses_whatever_comes() {
    count_panics();
    let served = Served::usual();
    let settings = http2_frame(4, 0, 0, &[]);
    let open = |rest: Vec<Vec<u8>>| [PREFACE, &settings, &rest.concat()].concat();
    let table: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
        ("nothing", vec![]),
        ("another protocol", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("TLS on a plain socket", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("half a preface", PREFACE[..10].to_vec()),
        ("zeros", vec![0; 100_000]),
        ("ones", vec![0xff; 100_000]),
        ("a frame that is too large", open(vec![vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]])),
        ("data for no stream", open(vec![data(1, b"x")])),
        ("a head that does not decode", open(vec![http2_frame(1, 5, 1, &[0xff; 40])])),
        (
            "a head that never ends",
            open(vec![
                http2_frame(1, 0, 1, &head(&[(":method", "POST")])),
                http2_frame(9, 0, 1, &head(&[("a", &"x".repeat(120))])).repeat(2000),
            ]),
        ),
        (
            "a head that is too large",
            open(vec![http2_frame(1, 5, 1, &head(&[("a", &"x".repeat(120))]).repeat(130))]),
        ),
        ("an even stream", open(vec![call(2, &[])])),
        ("a stream twice", open(vec![call(1, &[]), call(1, &[])])),
        ("no path", open(vec![call(1, &[(":path", "")])])),
        ("a path that is none", open(vec![call(1, &[(":path", "\u{1}")])])),
        ("another method", open(vec![call(1, &[(":method", "GET")]), data(1, &[])])),
        ("another content", open(vec![call(1, &[("content-type", "text/html")]), data(1, &[])])),
        ("no content", open(vec![call(1, &[("content-type", "")]), data(1, &[])])),
        ("an unknown method", open(vec![call(1, &[(":path", "/x/y")]), data(1, &[])])),
        ("a deadline of words", open(vec![call(1, &[("grpc-timeout", "soon")]), data(1, &[0; 5])])),
        ("a deadline without end", open(vec![call(1, &[("grpc-timeout", "99999999H")]), data(1, &[0; 5])])),
        ("a deadline in the past", open(vec![call(1, &[("grpc-timeout", "0n")]), data(1, &[0; 5])])),
        (
            "metadata of another",
            open(vec![
                call(1, &[("grpc-status", "x"), ("grpc-encoding", "gzip"), ("a-bin", "====")]),
                data(1, &[0; 5]),
            ]),
        ),
        ("no message", open(vec![call(1, &[]), data(1, &[])])),
        ("half a length", open(vec![call(1, &[]), data(1, &[0, 0, 0])])),
        ("half a message", open(vec![call(1, &[]), data(1, &[0, 0, 0, 0, 9, 1, 2])])),
        ("a message beyond all limits", open(vec![call(1, &[]), data(1, &[0, 0xff, 0xff, 0xff, 0xff])])),
        ("a compressed message", open(vec![call(1, &[]), data(1, &[1, 0, 0, 0, 0])])),
        ("a message of another kind", open(vec![call(1, &[]), data(1, &[0, 0, 0, 0, 2, 0x0a, 9])])),
        ("text that is none", open(vec![call(1, &[]), data(1, &[0, 0, 0, 0, 3, 0x0a, 1, 0xff])])),
        (
            "a group that never ends",
            open(vec![call(1, &[]), data(1, &[&[0, 0, 0, 0, 200][..], &[0x0b; 200]].concat())]),
        ),
        ("data after the end", open(vec![call(1, &[]), data(1, &[0; 5]), data(1, &[0; 5])])),
        (
            "calls given up at once",
            open(
                (0..3000)
                    .map(|n| {
                        [call(2 * n + 1, &[]), http2_frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes())].concat()
                    })
                    .collect(),
            ),
        ),
        ("more calls than allowed", open((0..200).map(|n| call(2 * n + 1, &[(":path", HANG)])).collect())),
        ("a flood of PINGs", open(vec![http2_frame(6, 0, 0, &[0; 8]).repeat(5000)])),
        ("a flood of settings", open(vec![settings.repeat(5000)])),
        (
            "a flood of empty data",
            open(vec![call(1, &[(":path", SUM)]), http2_frame(0, 0, 1, &[]).repeat(20_000)]),
        ),
        (
            "a flood of small data",
            open(vec![call(1, &[(":path", SUM)]), http2_frame(0, 0, 1, &[0]).repeat(60_000)]),
        ),
        ("a window that is too large", open(vec![http2_frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(3)])),
        ("a window of nothing", open(vec![call(1, &[]), http2_frame(8, 0, 1, &[0; 4])])),
        ("GOAWAY", open(vec![call(1, &[]), http2_frame(7, 0, 0, &[0; 8])])),
    ]);
    for (what, sent) in &table {
        said(&served.socket(), sent).await;
        let after = soon(served.client().await.unary::<Note, Note>(ECHO, &note(what), None)).await;
        assert_eq!(after, Ok(note(what)));
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "{what}");
    }
    // What is answered at all is answered with the right number.
    for (what, number) in [
        ("another content", "415"),
        ("an unknown method", "12"),
        ("a deadline of words", "3"),
        ("no message", "12"),
        ("half a message", "13"),
        ("a message beyond all limits", "8"),
        ("a compressed message", "12"),
        ("a message of another kind", "13"),
    ] {
        let heard = said(&served.socket(), &table[what]).await;
        // As it is, or in Huffman's code: HPACK leaves that to the server.
        let literal = [&[number.len() as u8], number.as_bytes()].concat();
        let coded = huffman(number);
        let coded = [&[0x80 | coded.len() as u8][..], &coded].concat();
        assert!(contains(&heard, &literal) || contains(&heard, &coded), "{what}: {heard:02x?}");
    }
}

/// Digits in HPACK's Huffman code: 0, 1 and 2 have five bits, the others six; filled up with ones.
fn huffman(digits: &str) -> Vec<u8> {
    let (mut bits, mut count) = (0_u64, 0);
    for digit in digits.bytes().map(|digit| u64::from(digit - b'0')) {
        let (code, length) = if digit < 3 { (digit, 5) } else { (0x19 + digit - 3, 6) };
        bits = bits << length | code;
        count += length;
    }
    let fill = (8 - count % 8) % 8;
    let bits = bits << fill | ((1 << fill) - 1);
    bits.to_be_bytes()[8 - (count + fill) / 8..].to_vec()
}

/// Small dice that a test owns.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }
}

/// The same bytes with a few of them changed, left out, or twice.
fn damaged(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..dice.below(3) + 1 {
        let at = dice.below(bytes.len());
        match dice.below(4) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)],
            2 => drop(bytes.drain(at..(at + dice.below(20)).min(bytes.len()))),
            _ => {
                let again = bytes[at..(at + dice.below(20)).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// What a good client and a good server say to each other.
async fn conversation(served: &Served) -> (Vec<u8>, Vec<u8>) {
    let socket = served.dir.path().join("recorded");
    let listener = UnixListener::bind(&socket).unwrap();
    let behind = served.socket();
    let recorded = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let recorder = tokio::spawn({
        let recorded = Arc::clone(&recorded);
        async move {
            let (front, _) = listener.accept().await.unwrap();
            let (mut from_client, mut to_client) = front.into_split();
            let (mut from_server, mut to_server) = UnixStream::connect(behind).await.unwrap().into_split();
            let (mut asked, mut told) = ([0; 4096], [0; 4096]);
            loop {
                tokio::select! {
                    count = from_client.read(&mut asked) => {
                        let Ok(1..) = count else { break };
                        recorded.lock().unwrap().0.extend_from_slice(&asked[..*count.as_ref().unwrap()]);
                        to_server.write_all(&asked[..count.unwrap()]).await.unwrap();
                    }
                    count = from_server.read(&mut told) => {
                        let Ok(1..) = count else { break };
                        recorded.lock().unwrap().1.extend_from_slice(&told[..*count.as_ref().unwrap()]);
                        to_client.write_all(&told[..count.unwrap()]).await.unwrap();
                    }
                }
            }
        }
    });
    let client = Client::unix(&socket, Options::default()).await.unwrap();
    talk(&client).await;
    drop(client);
    soon(recorder).await.unwrap();
    let recorded = recorded.lock().unwrap();
    recorded.clone()
}

/// A call of each kind, one after the other.
async fn talk(client: &Client) -> Vec<Result<(), Status>> {
    let deadline = Some(Duration::from_secs(10));
    let count = async {
        let wanted = Note { count: 3, ..Note::default() };
        let mut answers = client.answers::<_, Note>(COUNT, &wanted, deadline).await?;
        while answers.next().await?.is_some() {}
        Ok(())
    };
    let chat = async {
        let mut call = client.call::<Note, Note>(CHAT, deadline).await?;
        call.requests.send(&note("to")).await?;
        call.answers.next().await?;
        call.requests.finish().await?;
        call.answers.next().await.map(drop)
    };
    vec![
        client.unary::<Note, Note>(ECHO, &note("one"), deadline).await.map(drop),
        client.unary::<Note, Note>(ECHO, &note("not found: nö"), deadline).await.map(drop),
        count.await,
        chat.await,
    ]
}

#[tokio::test]
async fn a_damaged_conversation_ends_on_both_sides() {
    count_panics();
    let served = Served::usual();
    let (asked, told) = conversation(&served).await;
    assert!(asked.len() > 200 && told.len() > 200, "{} {}", asked.len(), told.len());
    let mut dice = Dice(7);
    for round in 0..1500 {
        said_quickly(&served.socket(), &damaged(&asked, &mut dice)).await;
        if round % 100 == 0 {
            let after = soon(served.client().await.unary::<Note, Note>(ECHO, &note("x"), None)).await;
            assert_eq!(after, Ok(note("x")), "{round}");
        }
    }
    // The other side: a server that says what a good one did, damaged.
    let mut seen = BTreeMap::<Option<u8>, u32>::new();
    for round in 0..1500 {
        let (near, far) = UnixStream::pair().unwrap();
        let answer = if round == 0 { told.clone() } else { damaged(&told, &mut dice) };
        let server = tokio::spawn(async move {
            let (mut from, mut to) = far.into_split();
            let draining = tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
            });
            let _ = to.write_all(&answer).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
            drop(to);
            let _ = draining.await;
        });
        let scheme = http::uri::Scheme::HTTP;
        let client = soon(Client::over(near, scheme, "localhost", Options::default())).await.unwrap();
        for end in soon(talk(&client)).await {
            // A deadline would be a hang: the server has hung up long before.
            let code = end.err().map(|status| status.code);
            assert_ne!(code, Some(Code::DeadlineExceeded), "{round}");
            *seen.entry(code.map(Code::number)).or_default() += 1;
        }
        drop(client);
        soon(server).await.unwrap();
    }
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    // The damage reached more than one layer.
    assert!(seen.len() >= 3, "{seen:?}");
}

/// Sends this and hangs up at once.
async fn said_quickly(socket: &std::path::Path, sent: &[u8]) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let _ = stream.write_all(sent).await;
    let _ = stream.shutdown().await;
    let _ = soon(stream.read_to_end(&mut Vec::new())).await;
}
