//! The S3 store against a service of a few lines that answers what it is told to: what a real one does only
//! on a bad day. Against a real one: `tests/store_s3.rs`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use super::super::remote::say;
use super::super::retry::{Retry, RetryPolicy};
use super::*;

fn store(place: &str) -> S3Store {
    let options = S3Options {
        endpoint: Some("http://127.0.0.1:9".into()),
        access_key_id: Some("id".into()),
        secret_access_key: Some("verysecret".into()),
        ..S3Options::default()
    };
    S3Store::new(place, &options).unwrap()
}

#[test]
fn keys_go_below_the_prefix() {
    for (place, url, path) in [
        ("bucket", "s3://bucket", "packs/ab/x"),
        ("bucket/", "s3://bucket", "packs/ab/x"),
        ("bucket/a/b/", "s3://bucket/a/b", "a/b/packs/ab/x"),
    ] {
        let store = store(place);
        assert_eq!(store.url(), url);
        assert_eq!(store.remote.path("packs/ab/x").unwrap().as_ref(), path);
    }
}

#[test]
fn a_service_that_is_not_there_is_unavailable_and_named() {
    let error = store("bucket").get("holdfast.json").unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(error.to_string().contains("http://127.0.0.1:9: Connection refused"), "{error}");
}

#[test]
fn may_be_used_and_dropped_inside_an_async_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = store("bucket");
        assert!(store.size("holdfast.json").is_err());
    });
}

#[test]
fn failures_are_sorted_by_what_to_do_next() {
    let store = store("bucket");
    for (kind, text, expected, hint) in [
        (Kind::Status(403), "AccessDenied", "Denied", "policy"),
        (Kind::Status(401), "", "Denied", "credentials"),
        (Kind::Status(400), "ExpiredToken: …", "Denied", "temporary"),
        (Kind::Status(400), "RequestTimeout: …", "Unavailable", ""),
        (Kind::Status(400), "AuthorizationHeaderMalformed", "Other", "Malformed"),
        (Kind::Status(404), "NoSuchKey", "NotFound", "k/x"),
        (Kind::Status(404), "NoSuchBucket", "Invalid", "does not exist"),
        (Kind::Status(301), "PermanentRedirect", "Invalid", "region"),
        (Kind::Status(503), "SlowDown", "Unavailable", "SlowDown"),
        (Kind::Status(500), "InternalError", "Unavailable", ""),
        (Kind::Status(429), "", "Unavailable", ""),
        (Kind::Status(507), "", "Full", ""),
        (Kind::Silent, "no answer in time", "Unavailable", "127.0.0.1"),
        (Kind::Connection, "Connection refused", "Unavailable", "127.0.0.1"),
        (Kind::Connection, "invalid peer certificate: UnknownIssuer", "Invalid", "authority"),
        (Kind::Other, "strange", "Other", "strange"),
    ] {
        let error = store.remote.error("k/x", Failure { kind, text: text.to_owned() });
        assert!(format!("{error:?}").starts_with(expected), "{kind:?} {text}: {error:?}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[test]
fn what_the_service_said_is_repeated() {
    let xml = "… 403: <?xml …><Error><Code>AccessDenied</Code><Message>No.</Message></Error>";
    assert_eq!(say(403, xml), "AccessDenied: No. (HTTP 403)");
    assert_eq!(say(503, "nothing"), "the service answered with HTTP status 503");
}

#[test]
fn an_endpoint_says_how_it_is_spoken_to() {
    let options = S3Options {
        endpoint: Some("minio.local:9000".into()),
        access_key_id: Some("id".into()),
        secret_access_key: Some("s".into()),
        ..S3Options::default()
    };
    let error = S3Store::new("bucket", &options).unwrap_err();
    assert!(error.to_string().contains("must begin with https://"), "{error}");
    let nonsense = S3Options { extra_roots_pem: Some(b"nonsense".to_vec()), ..options };
    let error = S3Store::new("bucket", &nonsense).unwrap_err();
    assert!(error.to_string().contains("extra certificates"), "{error}");
    assert!(!format!("{:?}", store("bucket")).contains("verysecret"));
}

/// What the service does with one request.
#[derive(Debug, Clone)]
enum Answer {
    Status(u16, &'static str),
    /// Promises so many bytes of a body and closes after these.
    Broken(usize, &'static str),
    /// Closes without a word.
    Close,
    /// Says nothing for as long as the client stays.
    Silence,
}

/// Answers one connection after the other as told and writes down the requests (`PUT /bucket/key`).
fn service(answers: Vec<Answer>) -> (S3Store, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = S3Options {
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        access_key_id: Some("id".into()),
        secret_access_key: Some("secret".into()),
        ..S3Options::default()
    };
    let mut store = S3Store::new("bucket", &options).unwrap();
    store.remote.silence = Duration::from_millis(500);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    // Ends with its answers; a request beyond them is refused, which the tests notice.
    std::thread::spawn(move || {
        for answer in answers {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let count = connection.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..count]);
                let text = String::from_utf8_lossy(&request).to_lowercase();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest);
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                if body.len() >= length {
                    break;
                }
            }
            let text = String::from_utf8_lossy(&request);
            log.lock().unwrap().push(text.split(" HTTP").next().unwrap().to_owned());
            let head = |status: u16, length: usize| {
                format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\netag: \"e\"\r\nconnection: close\r\n\
                     last-modified: Sat, 21 Nov 2026 11:45:20 GMT\r\n\r\n"
                )
            };
            match answer {
                Answer::Status(status, body) => {
                    let sent = if text.starts_with("HEAD") { "" } else { body };
                    connection.write_all((head(status, body.len()) + sent).as_bytes()).unwrap();
                }
                Answer::Broken(length, body) => {
                    connection.write_all((head(200, length) + body).as_bytes()).unwrap();
                }
                Answer::Close => {}
                Answer::Silence => while connection.read(&mut buffer).is_ok_and(|count| count > 0) {},
            }
        }
    });
    (store, seen)
}

fn requests(seen: &Mutex<Vec<String>>) -> Vec<String> {
    seen.lock().unwrap().clone()
}

const SLOW_DOWN: Answer = Answer::Status(503, "<Error><Code>SlowDown</Code><Message>Easy.</Message></Error>");

#[test]
fn a_conflict_is_believed_only_if_the_object_is_there() {
    for (answers, expected) in [
        (vec![Answer::Status(412, ""), Answer::Status(200, "")], "Ok(Exists)"),
        (vec![Answer::Status(409, ""), Answer::Status(200, "")], "Ok(Exists)"),
        // A conflict with a delete under way: nothing landed.
        (vec![Answer::Status(409, ""), Answer::Status(404, "")], "Err(Unavailable"),
        (vec![Answer::Status(412, ""), Answer::Status(404, "")], "Err(Unavailable"),
        // A key that may put and not get.
        (vec![Answer::Status(412, ""), Answer::Status(403, "")], "Ok(Exists)"),
        (vec![Answer::Status(412, ""), Answer::Status(503, "")], "Err(Unavailable"),
        (vec![Answer::Status(200, "")], "Ok(Created)"),
        (vec![Answer::Status(404, "")], "Err(Invalid"),
        (vec![SLOW_DOWN], "Err(Unavailable"),
        (vec![Answer::Close], "Err(Unavailable"),
        (vec![Answer::Silence], "Err(Unavailable"),
    ] {
        let count = answers.len();
        let (store, seen) = service(answers.clone());
        let put = store.put("k", Bytes::from_static(b"content"));
        assert!(format!("{put:?}").starts_with(expected), "{answers:?}: {put:?}");
        assert_eq!(requests(&seen).len(), count, "{answers:?}");
    }
}

#[test]
fn a_put_that_met_a_conflict_in_vain_comes_again() {
    let (store, seen) = service(vec![
        SLOW_DOWN,
        Answer::Status(409, ""),
        Answer::Status(404, ""),
        Answer::Close,
        Answer::Status(200, ""),
    ]);
    let env = crate::Env::fixed(0, 1);
    let store = Retry::with_sleep(store, RetryPolicy::default(), env, crate::Cancel::new(), Arc::new(|_| {}));
    assert_eq!(store.put("k", Bytes::from_static(b"content")).unwrap(), Put::Created);
    let seen = requests(&seen);
    assert_eq!(seen, ["PUT /bucket/k", "PUT /bucket/k", "HEAD /bucket/k", "PUT /bucket/k", "PUT /bucket/k"]);
}

#[test]
fn an_answer_that_breaks_off_is_no_object() {
    for answers in
        [vec![Answer::Broken(1000, "only this")], vec![Answer::Close], vec![SLOW_DOWN], vec![Answer::Silence]]
    {
        let (store, seen) = service(answers.clone());
        let error = store.get("k").unwrap_err();
        assert!(error.is_unavailable(), "{answers:?}: {error:?}");
        assert_eq!(requests(&seen).len(), 1, "tries again nowhere but in `retry`");
    }
    // A service that knows no ranges and sends all of it.
    let (store, _) = service(vec![Answer::Status(200, "0123456789"); 3]);
    assert_eq!(store.get_range("k", 2, 3).unwrap(), "234");
    let (store, _) = service(vec![Answer::Status(200, "0123456789"); 3]);
    assert!(store.get_range("k", 9, 3).is_err());
}

#[test]
fn what_the_service_says_reaches_the_user() {
    let (store, _) = service(vec![SLOW_DOWN]);
    let error = store.get("k").unwrap_err();
    assert!(
        error.to_string().contains("s3://bucket/k")
            && error.to_string().contains("SlowDown: Easy. (HTTP 503)"),
        "{error}"
    );
    let denied = "<Error><Code>AccessDenied</Code><Message>Not you.</Message></Error>";
    let (store, _) = service(vec![Answer::Status(403, denied)]);
    let error = super::super::list_all(&store, "").unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }) && error.to_string().contains("Not you."), "{error}");
}
