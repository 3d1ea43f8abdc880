//! For tests: an HTTP server that plays the documented answers of services of which there is no emulator, as far as
//! a test needs them. It proves that we understand what is documented, not that a service does it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::env::{Env, Timestamp, rfc3339};

/// A request as it came.
pub(super) struct Request {
    pub(super) method: String,
    /// Decoded.
    pub(super) path: String,
    pub(super) query: String,
    /// In lower case.
    head: String,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
    }
}

/// Status, headers, body.
pub(super) type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// Serves for as long as the test runs; returns `http://127.0.0.1:PORT`. One request is answered at a time, so that of
/// several conditional puts at once one wins, as at the services.
pub(super) fn serve(handler: impl Fn(&Request) -> Reply + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let handler = Arc::new(Mutex::new(handler));
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let handler = handler.clone();
            std::thread::spawn(move || answer(connection, &handler));
        }
    });
    url
}

fn answer(mut connection: TcpStream, handler: &Mutex<impl Fn(&Request) -> Reply>) -> Option<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65_536];
    let request = loop {
        let count = connection.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut words = head.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query, head) = (decoded(path), query.to_owned(), head.to_lowercase());
        let request = Request { method, path, query, head, body: bytes[end + 4..].to_vec() };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        if request.body.len() >= length {
            break request;
        }
    };
    let (status, headers, body) = (handler.lock().unwrap())(&request);
    let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    connection.write_all((head + "\r\n").as_bytes()).ok()?;
    if request.method != "HEAD" {
        connection.write_all(&body).ok()?;
    }
    Some(())
}

fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
        out.push_str(&part[2..]);
    }
    out
}

/// `Sat, 21 Nov 2026 11:45:20 GMT`
pub(super) fn http_date(time: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = rfc3339(time);
    let day = DAYS[time.div_euclid(86_400_000_000_000).rem_euclid(7) as usize];
    let month = MONTHS[text[5..7].parse::<usize>().unwrap() - 1];
    format!("{day}, {} {month} {} {} GMT", &text[8..10], &text[..4], &text[11..19])
}

/// The bytes of an object, and when they were put.
type Stored = (Vec<u8>, Timestamp);

/// Objects with the time they were put.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) env: Env,
    pub(super) all: Arc<Mutex<BTreeMap<String, Stored>>>,
}

impl Objects {
    pub(super) fn new(env: &Env) -> Objects {
        Objects { env: env.clone(), all: Arc::default() }
    }

    pub(super) fn find(&self, name: &str) -> Option<Stored> {
        self.all.lock().unwrap().get(name).cloned()
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        self.all.lock().unwrap().insert(name.to_owned(), (bytes.to_vec(), self.env.now()));
    }

    /// `GET` and `HEAD`, with a range if one is asked for.
    pub(super) fn read(&self, request: &Request, name: &str, more: Vec<(&'static str, String)>) -> Reply {
        let Some((bytes, time)) = self.find(name) else { return (404, vec![], vec![]) };
        let mut headers = more;
        headers.push(("etag", "\"e\"".into()));
        headers.push(("last-modified", http_date(time)));
        let Some(range) = request.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
            return (200, headers, bytes);
        };
        let (first, last) = range.split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        let end = bytes.len().min(last.parse::<usize>().unwrap() + 1);
        if first >= end {
            return (416, vec![], vec![]);
        }
        headers.push(("content-range", format!("bytes {first}-{}/{}", end - 1, bytes.len())));
        (206, headers, bytes[first..end].to_vec())
    }
}
