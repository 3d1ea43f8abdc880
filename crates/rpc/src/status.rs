//! How a call ends: the status, its way through trailers, and what stands for one when there is none.
//!
//! A status that the peer sent and one that this side made up because the connection broke look alike to most
//! callers. Who has to tell «it said no» from «nobody knows» asks [`Status::by_peer`].

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What a message may take in trailers: every peer takes 8 KiB of headers.
const MESSAGE_BYTES_MAX: usize = 4096;

/// gRPC's codes, without the one for success: that is an `Ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Whoever asked went away or took it back.
    Cancelled = 1,
    /// No better one is known.
    Unknown = 2,
    /// The request makes no sense, whatever the state.
    InvalidArgument = 3,
    /// Too late.
    DeadlineExceeded = 4,
    /// What was named is not there.
    NotFound = 5,
    /// What should be made is there.
    AlreadyExists = 6,
    /// Who asked may not.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// Not in this state; to ask again does not help by itself.
    FailedPrecondition = 9,
    /// Somebody else was quicker; to begin again may help.
    Aborted = 10,
    /// Beyond the end.
    OutOfRange = 11,
    /// There is no such method, or no such way of calling it.
    Unimplemented = 12,
    /// One side broke the protocol or its own promises.
    Internal = 13,
    /// Not now, or not reached; to ask again may help.
    Unavailable = 14,
    /// Data is lost for good.
    DataLoss = 15,
    /// It is not known who asks.
    Unauthenticated = 16,
}

impl Code {
    const ALL: [Code; 16] = [
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// Its number on the wire.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (gRPC status {}, {code:?})", code.number())]
pub struct Status {
    /// What a caller acts on.
    pub code: Code,
    /// What a person reads.
    pub message: String,
    by_peer: bool,
}

impl Status {
    /// A status of this side: what a handler ends with, or what a client says when it got none.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into(), by_peer: false }
    }

    /// Whether the peer's application said it. Otherwise the connection, the deadline or the protocol failed.
    pub fn by_peer(&self) -> bool {
        self.by_peer
    }
}

/// What trailers say; `None` without a status.
pub(crate) fn read(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let number = headers.get(STATUS)?.as_bytes();
    if number == b"0" {
        return Some(Ok(()));
    }
    let number = std::str::from_utf8(number).ok().and_then(|text| text.parse::<u8>().ok());
    let code = Code::ALL.into_iter().find(|code| Some(code.number()) == number);
    let message = headers.get(MESSAGE).map(|value| percent_decoded(value.as_bytes())).unwrap_or_default();
    Some(Err(Status { code: code.unwrap_or(Code::Unknown), message, by_peer: true }))
}

/// The trailers that end a call so.
pub(crate) fn write(ended: &Result<(), Status>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    match ended {
        Ok(()) => {
            trailers.insert(STATUS, HeaderValue::from_static("0"));
        }
        Err(status) => {
            trailers.insert(STATUS, HeaderValue::from(u16::from(status.code.number())));
            // It is ASCII by its making, so this never fails.
            if let Ok(message) = HeaderValue::from_str(&percent_encoded(&status.message)) {
                trailers.insert(MESSAGE, message);
            }
        }
    }
    trailers
}

/// What a head says before any message: `Some` is the end of a call whose answer is nothing but a head.
pub(crate) fn of_head(status: StatusCode, headers: &HeaderMap) -> Result<Option<Result<(), Status>>, Status> {
    if let Some(told) = read(headers) {
        return Ok(Some(told));
    }
    let code = match status.as_u16() {
        200 => {
            return match headers.get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes) {
                Some(kind) if kind.starts_with(b"application/grpc") => Ok(None),
                kind => {
                    let kind = String::from_utf8_lossy(kind.unwrap_or_default()).into_owned();
                    Err(Status::new(Code::Unknown, format!("the answer is no gRPC but {kind:?}")))
                }
            };
        }
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Err(Status::new(code, format!("the answer has HTTP status {status}")))
}

/// What stands for the status of a call whose stream or connection broke.
pub(crate) fn of_error(error: &h2::Error) -> Status {
    use h2::Reason;
    if !error.is_reset() {
        return Status::new(Code::Unavailable, format!("the connection is lost: {error}"));
    }
    let code = match error.reason() {
        Some(Reason::CANCEL) => Code::Cancelled,
        Some(Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        _ => Code::Internal,
    };
    Status::new(code, format!("the call was broken off: {error}"))
}

/// The value of `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn timeout_text(timeout: Duration) -> String {
    match timeout.as_millis() {
        millis @ 0..=99_999_999 => format!("{}m", millis.max(1)),
        _ => format!("{}S", timeout.as_secs().min(99_999_999)),
    }
}

/// What `grpc-timeout` says.
pub(crate) fn timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Printable ASCII without `%` as it is, all else as `%XX` of its UTF-8; cut where it gets too long.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if out.len() > MESSAGE_BYTES_MAX - 12 {
            break;
        }
        match letter {
            ' '..='~' if letter != '%' => out.push(letter),
            _ => {
                for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                    out.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    out
}

/// Never fails: what is no escape stands for itself.
fn percent_decoded(raw: &[u8]) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, after)) = rest.split_first() {
        let decoded = after
            .get(..2)
            .filter(|hex| *first == b'%' && hex.iter().all(u8::is_ascii_hexdigit))
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_its_trailers() {
        for code in Code::ALL {
            for message in ["", "plain", "100 % refused", "zu spät: \n\u{1f512}", "%41"] {
                let status = Status::new(code, message);
                let read = read(&write(&Err(status.clone()))).unwrap().unwrap_err();
                assert!(read.by_peer() && !status.by_peer());
                assert_eq!((read.code, read.message.as_str()), (code, message));
            }
        }
        assert_eq!(read(&write(&Ok(()))), Some(Ok(())));
        assert_eq!(read(&HeaderMap::new()), None);
        // A message is cut before it is more than a peer takes, between two letters.
        let long = write(&Err(Status::new(Code::Unknown, "ä".repeat(9000))));
        assert!(long[MESSAGE].len() <= MESSAGE_BYTES_MAX);
        assert!(read(&long).unwrap().unwrap_err().message.chars().all(|letter| letter == 'ä'));
    }

    #[test]
    fn a_status_that_makes_no_sense_is_unknown() {
        for number in ["17", "-1", "", "x", "00", "256", "99999999999999999999", "\u{e4}"] {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, HeaderValue::from_bytes(number.as_bytes()).unwrap());
            headers.insert(MESSAGE, HeaderValue::from_bytes(b"a%20b%C3%A4%zz%4%+1\xff").unwrap());
            let status = read(&headers).unwrap().unwrap_err();
            assert_eq!(status.code, Code::Unknown, "{number}");
            assert_eq!(status.message, "a bä%zz%4%+1\u{fffd}");
        }
    }

    #[test]
    fn timeouts_are_read_and_written_as_grpc_has_them() {
        for (text, read) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("10S", Some(Duration::from_secs(10))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("999999999S", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("+1S", None),
            ("1 S", None),
            ("1s", None),
        ] {
            assert_eq!(timeout(text.as_bytes()), read, "{text:?}");
        }
        for (duration, text) in [
            (Duration::from_nanos(1), "1m"),
            (Duration::from_millis(1500), "1500m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(timeout_text(duration), text);
        }
    }
}
