//! Calls of every kind, and every way in which one ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use rpc::{Client, Code, Options, Receiving};
use std::time::{Duration, Instant};
use support::*;

/// All that comes, and how it ends.
async fn all(answers: &mut Receiving<Note>) -> (Vec<Note>, Option<Code>) {
    let mut notes = Vec::new();
    loop {
        match soon(answers.next()).await {
            Ok(Some(note)) => notes.push(note),
            Ok(None) => return (notes, None),
            Err(status) => return (notes, Some(status.code)),
        }
    }
}

#[tokio::test]
async fn every_kind_of_call_has_its_answers() {
    let served = Served::usual();
    let client = served.client().await;

    let echoed: Note = soon(client.unary(ECHO, &note("one"), None)).await.unwrap();
    assert_eq!(echoed, note("one"));

    let three = Note { count: 3, bytes: vec![7; 100_000], ..Note::default() };
    let mut answers = client.answers(COUNT, &three, None).await.unwrap();
    let (notes, ended) = all(&mut answers).await;
    assert_eq!(
        notes.iter().map(|note| (note.count, note.bytes.len())).collect::<Vec<_>>(),
        [(0, 100_000), (1, 100_000), (2, 100_000)]
    );
    assert_eq!(ended, None);
    // It stays as it ended.
    assert_eq!(answers.next().await, Ok(None));

    let mut call = client.call::<Note, Note>(SUM, None).await.unwrap();
    for (count, text) in [(1, "a"), (20, "b"), (300, "c")] {
        call.requests.send(&Note { count, ..note(text) }).await.unwrap();
    }
    call.requests.finish().await.unwrap();
    assert_eq!(soon(call.answers.one()).await, Ok(Note { count: 321, ..note("abc") }));

    let mut call = client.call::<Note, Note>(CHAT, None).await.unwrap();
    for text in ["to", "and", "fro", ""] {
        call.requests.send(&note(text)).await.unwrap();
        assert_eq!(soon(call.answers.next()).await, Ok(Some(note(text))));
    }
    call.requests.finish().await.unwrap();
    assert_eq!(soon(call.answers.next()).await, Ok(None));
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let served = Served::usual();
    let client = served.client().await;
    let calls: Vec<_> = (0..300)
        .map(|count| {
            let client = client.clone();
            tokio::spawn(async move {
                let sent = Note { count, bytes: vec![count as u8; 10_000], ..Note::default() };
                let answer = client.unary::<Note, Note>(ECHO, &sent, None).await;
                assert!(answer.as_ref() == Ok(&sent), "{count}: {:?}", answer.err());
            })
        })
        .collect();
    for call in calls {
        soon(call).await.unwrap();
    }
}

#[tokio::test]
async fn a_refusal_arrives_with_its_words() {
    let served = Served::usual();
    let client = served.client().await;
    for (path, code, says) in [
        (ECHO, Code::NotFound, "nö: 100 %"),
        (SUM, Code::NotFound, "nö: 100 %"),
        (COUNT, Code::NotFound, "nö: 100 %"),
        (CHAT, Code::NotFound, "nö: 100 %"),
        ("/test.v1.Notes/Nothing", Code::Unimplemented, "no method \"/test.v1.Notes/Nothing\""),
        ("/secret.v1.Notes/Echo", Code::PermissionDenied, "not for you"),
    ] {
        let wish = note("not found: nö: 100 %");
        let refused = soon(client.unary::<Note, Note>(path, &wish, None)).await.unwrap_err();
        assert_eq!(refused.code, code, "{path}: {refused}");
        assert!(refused.message.contains(says) && refused.by_peer(), "{path}: {refused}");
    }
    // After answers that are good.
    let wish = Note { count: 2, ..note("denied: no more") };
    let mut answers = client.answers::<_, Note>(COUNT, &wish, None).await.unwrap();
    let (notes, ended) = all(&mut answers).await;
    assert_eq!((notes.len(), ended), (2, Some(Code::PermissionDenied)));
    // The number of messages is part of a method.
    for (sent, says) in [(0, "no message"), (2, "several")] {
        let mut call = client.call::<Note, Note>(ECHO, None).await.unwrap();
        for _ in 0..sent {
            call.requests.send(&note("x")).await.unwrap();
        }
        call.requests.finish().await.unwrap();
        let refused = soon(call.answers.next()).await.unwrap_err();
        assert_eq!(refused.code, Code::Unimplemented);
        assert!(refused.message.contains(says), "{refused}");
    }
    let several = Note { count: 2, ..Note::default() };
    let refused = soon(client.unary::<Note, Note>(COUNT, &several, None)).await.unwrap_err();
    assert_eq!((refused.code, refused.by_peer()), (Code::Internal, false), "{refused}");
    let nonsense = client.unary::<Note, Note>("no path", &note(""), None).await.unwrap_err();
    assert_eq!(nonsense.code, Code::InvalidArgument);
}

#[tokio::test]
async fn a_deadline_ends_a_call_on_both_sides() {
    let mut served = Served::usual();
    let client = served.client().await;
    let told: Note = client.unary(ECHO, &note("deadline?"), Some(Duration::from_secs(60))).await.unwrap();
    assert!((50_000..=60_000).contains(&told.count), "{}", told.count);
    let told: Note = client.unary(ECHO, &note("deadline?"), None).await.unwrap();
    assert_eq!(told.count, 0);

    let begun = Instant::now();
    let late =
        client.unary::<Note, Note>(HANG, &note(""), Some(Duration::from_millis(300))).await.unwrap_err();
    assert_eq!(late.code, Code::DeadlineExceeded);
    let took = begun.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&took), "{took:?}");
    assert_eq!((served.told().await, served.told().await), ("reached", "dropped"));

    // It is for all of a stream, however often something comes.
    let mut call = client.call::<Note, Note>(CHAT, Some(Duration::from_millis(300))).await.unwrap();
    call.requests.send(&note("x")).await.unwrap();
    assert!(soon(call.answers.next()).await.unwrap().is_some());
    assert_eq!(soon(call.answers.next()).await.unwrap_err().code, Code::DeadlineExceeded);
    assert_eq!(soon(call.answers.next()).await.unwrap_err().code, Code::DeadlineExceeded);
    // The connection is as good as before.
    assert!(client.unary::<Note, Note>(ECHO, &note("x"), None).await.is_ok());
}

#[tokio::test]
async fn a_call_that_is_given_up_ends_its_handler() {
    let mut served = Served::usual();
    let client = served.client().await;
    // Whoever waited for the answer does not any more.
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.unary::<Note, Note>(HANG, &note(""), None).await }
    });
    assert_eq!(served.told().await, "reached");
    hanging.abort();
    assert_eq!(served.told().await, "dropped");
    // A stream is dropped before its end: nobody takes half of it for all.
    let mut call = client.call::<Note, Note>(SUM, None).await.unwrap();
    call.requests.send(&Note { count: 1, ..Note::default() }).await.unwrap();
    drop(call.requests);
    assert_eq!(soon(call.answers.next()).await.unwrap_err().code, Code::Cancelled);
    // And one whose requests are all sent.
    let mut call = client.call::<Note, Note>(HANG, None).await.unwrap();
    call.requests.send(&note("")).await.unwrap();
    call.requests.finish().await.unwrap();
    assert_eq!(served.told().await, "reached");
    drop(call.answers);
    assert_eq!(served.told().await, "dropped");
    assert!(client.unary::<Note, Note>(ECHO, &note("x"), None).await.is_ok());
}

#[tokio::test]
async fn a_lost_connection_ends_every_call() {
    // The server dies.
    let mut served = Served::usual();
    let client = served.client().await;
    let mut hanging = client.call::<Note, Note>(HANG, None).await.unwrap();
    hanging.requests.send(&note("")).await.unwrap();
    let mut chat = client.call::<Note, Note>(CHAT, None).await.unwrap();
    chat.requests.send(&note("x")).await.unwrap();
    assert!(soon(chat.answers.next()).await.unwrap().is_some());
    assert_eq!(served.told().await, "reached");
    served.task.abort();
    assert_eq!(served.told().await, "dropped");
    for answers in [&mut hanging.answers, &mut chat.answers] {
        let lost = soon(answers.next()).await.unwrap_err();
        assert_eq!((lost.code, lost.by_peer()), (Code::Unavailable, false), "{lost}");
        assert!(lost.message.contains("connection"), "{lost}");
    }
    let lost = soon(client.unary::<Note, Note>(ECHO, &note("x"), None)).await.unwrap_err();
    assert_eq!((lost.code, lost.by_peer()), (Code::Unavailable, false), "{lost}");
    let none = Client::unix(&served.dir.path().join("nobody"), Options::default()).await.unwrap_err();
    assert_eq!(none.code, Code::Unavailable);
    assert!(none.message.contains("cannot connect"), "{none}");

    // The client dies, with all of its runtime.
    let mut served = Served::usual();
    let socket = served.socket();
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::unix(&socket, Options::default()).await.unwrap();
            let mut call = client.call::<Note, Note>(HANG, None).await.unwrap();
            call.requests.send(&note("")).await.unwrap();
            call.requests.finish().await.unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(500), call.answers.next()).await;
            assert!(waited.is_err());
            // Nothing of it is put away in order.
            std::mem::forget((client, call.answers));
        });
    });
    assert_eq!(served.told().await, "reached");
    assert_eq!(served.told().await, "dropped");
    client.join().unwrap();
}

#[tokio::test]
async fn a_peer_that_is_gone_is_noticed_where_somebody_watches() {
    let mut served = Served::usual();
    let wire = Wire::to(&served.socket());
    let client = Client::unix(&wire.socket, Options::default()).await.unwrap();
    // The server's handler watches for 900 ms, the client for 600 ms.
    let mut hanging = client.call::<Note, Note>(HANG, None).await.unwrap();
    hanging.requests.send(&Note { count: 900, ..Note::default() }).await.unwrap();
    assert_eq!(served.told().await, "reached");
    let watched = client.watch(quick(600));
    // A silent call over a good wire is left alone.
    let silent = tokio::time::timeout(Duration::from_millis(1500), hanging.answers.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    assert!(served.hanging.try_recv().is_err());

    let begun = Instant::now();
    wire.cut();
    let gone = soon(hanging.answers.next()).await.unwrap_err();
    let (client_took, server_took) = (begun.elapsed(), {
        assert_eq!(served.told().await, "dropped");
        begun.elapsed()
    });
    assert_eq!((gone.code, gone.by_peer()), (Code::Unavailable, false));
    assert!(gone.message.contains("the peer is gone"), "{gone}");
    // The bound counts from the last answer, which was before the cut; the rest is a busy machine.
    assert!(client_took < Duration::from_millis(600 + 400), "{client_took:?}");
    assert!(server_took < Duration::from_millis(900 + 400), "{server_took:?}");
    drop(watched);
}

#[tokio::test]
async fn nobody_watches_who_did_not_ask() {
    let mut served = Served::usual();
    let wire = Wire::to(&served.socket());
    let client = Client::unix(&wire.socket, Options::default()).await.unwrap();
    let mut hanging = client.call::<Note, Note>(HANG, None).await.unwrap();
    hanging.requests.send(&note("")).await.unwrap();
    assert_eq!(served.told().await, "reached");
    // Two watch, and both stop.
    let (lax, strict) = (client.watch(quick(60_000)), client.watch(quick(300)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop((strict, lax));
    tokio::time::sleep(Duration::from_millis(50)).await;
    wire.cut();
    let silent = tokio::time::timeout(Duration::from_millis(1000), hanging.answers.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    // Until somebody asks again.
    let begun = Instant::now();
    let _watched = client.watch(quick(300));
    assert!(soon(hanging.answers.next()).await.unwrap_err().message.contains("gone"));
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_slow_reader_slows_its_writer_and_nobody_else() {
    let served = Served::usual();
    let client = served.client().await;
    // 40 streams with 64 MiB each to read; of each only the beginning is read.
    let wanted = Note { count: 1024, bytes: vec![1; 64 * 1024], ..Note::default() };
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut answers: Receiving<Note> = client.answers(COUNT, &wanted, None).await.unwrap();
        assert!(soon(answers.next()).await.unwrap().is_some());
        slow.push(answers);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let passed = served.passed();
    // A window, a send buffer, the queue and the one under way.
    assert!(passed < 40 * 6, "{passed} messages went to readers that took 40");
    for _ in 0..50 {
        assert!(soon(client.unary::<Note, Note>(ECHO, &note("quick"), None)).await.is_ok());
    }
    let mut answers = slow.pop().unwrap();
    assert_eq!(all(&mut answers).await.0.len(), 1023);
    drop(slow);

    // The other direction: the server does not read.
    let served = Served::usual();
    let client = served.client().await;
    let mut call = client.call::<Note, Note>(SLEEPY, None).await.unwrap();
    let mut sent = 0;
    while sent < 1000 {
        let part = Note { count: 1, bytes: vec![1; 20 * 1024], ..Note::default() };
        match tokio::time::timeout(Duration::from_millis(300), call.requests.send(&part)).await {
            Ok(done) => done.unwrap(),
            Err(_) => break,
        }
        sent += 1;
    }
    assert!((1..6).contains(&sent), "{sent} messages were taken from a client by a server that sleeps");
    assert!(soon(client.unary::<Note, Note>(ECHO, &note("quick"), None)).await.is_ok());
    served.seen.awake.send_replace(true);
    // The one that was given up while it waited has gone out, whole.
    let last = Note { count: 1000, ..Note::default() };
    soon(call.requests.send(&last)).await.unwrap();
    soon(call.requests.finish()).await.unwrap();
    assert_eq!(soon(call.answers.one()).await.unwrap().count, 1000 + sent + 1);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_by_sender_and_receiver() {
    let served = Served::usual();
    let client = served.client().await;
    // 4 MiB with the field's tag and length.
    let largest = Note { bytes: vec![3; (4 << 20) - 5], ..Note::default() };
    assert_eq!(prost::Message::encoded_len(&largest), 4 << 20);
    assert_eq!(soon(client.unary(ECHO, &largest, None)).await, Ok(largest.clone()));
    let larger = Note { bytes: vec![3; (4 << 20) - 4], ..Note::default() };
    let refused = soon(client.unary::<Note, Note>(ECHO, &larger, None)).await.unwrap_err();
    assert_eq!((refused.code, refused.by_peer()), (Code::ResourceExhausted, false));
    // A client that thinks more of itself.
    let options = Options { message_bytes_max: 100 << 20, ..Options::default() };
    let daring = Client::unix(&served.socket(), options).await.unwrap();
    for bytes in [(4 << 20) - 4, 50 << 20] {
        let sent = Note { bytes: vec![3; bytes], ..Note::default() };
        let refused = soon(daring.unary::<Note, Note>(ECHO, &sent, None)).await.unwrap_err();
        assert_eq!((refused.code, refused.by_peer()), (Code::ResourceExhausted, true), "{refused}");
    }
    // And one that thinks less.
    let options = Options { message_bytes_max: 1000, ..Options::default() };
    let humble = Client::unix(&served.socket(), options).await.unwrap();
    let wanted = Note { count: 1, bytes: vec![3; 990], ..Note::default() };
    assert!(soon(humble.unary::<Note, Note>(COUNT, &wanted, None)).await.is_ok());
    let mut call = humble.call::<Note, Note>(SUM, None).await.unwrap();
    for _ in 0..2 {
        call.requests.send(&note(&"x".repeat(600))).await.unwrap();
    }
    call.requests.finish().await.unwrap();
    let refused = soon(call.answers.one()).await.unwrap_err();
    assert_eq!((refused.code, refused.by_peer()), (Code::ResourceExhausted, false), "{refused}");
}

#[tokio::test]
async fn a_server_that_stops_lets_calls_end_and_no_new_ones_begin() {
    let mut served = Served::start(Options::default(), Duration::from_secs(10));
    let client = served.client().await;
    let mut chat = client.call::<Note, Note>(CHAT, None).await.unwrap();
    chat.requests.send(&note("before")).await.unwrap();
    assert!(soon(chat.answers.next()).await.unwrap().is_some());
    served.stop.take().unwrap().send(()).unwrap();
    // Nobody is let in; those inside finish what they have begun.
    let refused = async {
        while Client::unix(&served.socket(), Options::default()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(refused).await;
    let over = async {
        loop {
            match client.unary::<Note, Note>(ECHO, &note("new"), None).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(status) => return status,
            }
        }
    };
    assert_eq!(soon(over).await.code, Code::Unavailable);
    chat.requests.send(&note("after")).await.unwrap();
    assert_eq!(soon(chat.answers.next()).await, Ok(Some(note("after"))));
    chat.requests.finish().await.unwrap();
    assert_eq!(soon(chat.answers.next()).await, Ok(None));
    soon(&mut served.task).await.unwrap();

    // A call that does not end is dropped in the end.
    let mut served = Served::start(Options::default(), Duration::from_millis(300));
    let client = served.client().await;
    let mut hanging = client.call::<Note, Note>(HANG, None).await.unwrap();
    hanging.requests.send(&note("")).await.unwrap();
    assert_eq!(served.told().await, "reached");
    let begun = Instant::now();
    served.stop.take().unwrap().send(()).unwrap();
    soon(&mut served.task).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(served.told().await, "dropped");
    assert_eq!(soon(hanging.answers.next()).await.unwrap_err().code, Code::Unavailable);
}
