//! A Kubernetes KMS v2 plugin (KEP-3299) as the keeper of a repository's key.
//!
//! Where a cluster has such a plugin for its own secrets (a cloud's key service, a hardware module, Vault), Holdfast
//! uses it as the API server does: a small local key is encrypted by the plugin, and only its ciphertext is stored.
//! The protocol is gRPC on a unix socket: three calls of service `v2.KeyManagementService`, six flat messages. They are
//! written here on HTTP/2 directly (docs/decisions/0006-kms.md says why no gRPC library).
//!
//! The bounds on what a plugin answers are those of the API server. A call that takes longer than ten seconds has
//! failed: a restore that waits for ever helps nobody.

use h2::client;
use repo::env::Env;
use repo::{KeyWrap, WrapError, WrappedKey, Zeroizing};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// How long a plugin may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The largest answer: ciphertext, key id and annotations at their bounds, with room to spare.
const ANSWER_BYTES_MAX: usize = 128 * 1024;

/// A plugin behind a socket.
pub struct Plugin {
    url: String,
    socket: PathBuf,
    env: Env,
}

impl Plugin {
    /// At `unix:///path`. Nothing is contacted yet.
    pub fn new(url: &str, env: Env) -> Result<Plugin, String> {
        match url.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') && path.len() > 1 => {
                Ok(Plugin { url: url.to_owned(), socket: path.into(), env })
            }
            _ => Err("a KMS plugin is named by its socket: unix:///run/kms.sock".into()),
        }
    }

    /// One call, from the world of threads.
    fn call(&self, method: &str, request: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| WrapError::Unavailable(format!("no runtime to call it from: {error}")))?;
        runtime.block_on(async {
            match tokio::time::timeout(ANSWER, self.exchange(method, request)).await {
                Ok(answer) => answer,
                Err(_) => {
                    Err(WrapError::Unavailable(format!("no answer to {method} in {} s", ANSWER.as_secs())))
                }
            }
        })
    }

    async fn exchange(&self, method: &str, request: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        let down = |what: &str, error: &dyn std::fmt::Display| {
            WrapError::Unavailable(format!("{method}: {what}: {error}"))
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| down("cannot connect", &e))?;
        let (client, connection) = client::handshake(stream).await.map_err(|e| down("no HTTP/2", &e))?;
        // Ends with the connection, which ends when the client is dropped. Its errors come back from the call too.
        let driver = tokio::spawn(connection);
        let answer = async {
            let mut client = client.ready().await.map_err(|e| down("not ready", &e))?;
            let head = http::Request::post(format!("http://localhost/v2.KeyManagementService/{method}"))
                .version(http::Version::HTTP_2)
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                // A second more than we wait, so that it is we who say so.
                .header("grpc-timeout", format!("{}S", ANSWER.as_secs() + 1))
                .body(())
                .map_err(|e| down("no request", &e))?;
            let (answer, mut body) = client.send_request(head, false).map_err(|e| down("not sent", &e))?;
            body.send_data(frame(&request).into(), true).map_err(|e| down("not sent", &e))?;
            let (head, mut body) = answer.await.map_err(|e| down("no answer", &e))?.into_parts();
            let mut bytes = Zeroizing::new(Vec::new());
            while let Some(piece) = body.data().await {
                let piece = piece.map_err(|e| down("the answer broke off", &e))?;
                if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                    return Err(down("the answer is too large", &bytes.len()));
                }
                bytes.extend_from_slice(&piece);
                // Gives the window back; a failure shows in the next read.
                let _ = body.flow_control().release_capacity(piece.len());
            }
            let trailers = body.trailers().await.map_err(|e| down("the answer broke off", &e))?;
            if head.status != http::StatusCode::OK {
                return Err(down("the answer has HTTP status", &head.status));
            }
            // An answer without a body has everything in its head.
            status(method, trailers.as_ref().unwrap_or(&head.headers))?;
            let message = unframe(&bytes).ok_or_else(|| down("the answer is", &"no gRPC message"))?;
            Ok(Zeroizing::new(message.to_vec()))
        }
        .await;
        driver.abort();
        answer
    }

    /// A name for this call in the plugin's log.
    fn uid(&self) -> Result<String, WrapError> {
        let mut bytes = [0; 16];
        self.env.random(&mut bytes).map_err(|error| WrapError::Unavailable(error.to_string()))?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok([&hex[..4], &hex[4..6], &hex[6..8], &hex[8..10], &hex[10..]].map(|part| part.concat()).join("-"))
    }
}

/// What a gRPC status other than 0 means to us: a plugin that is not well, or one that says no.
fn status(method: &str, headers: &http::HeaderMap) -> Result<(), WrapError> {
    let text = |name: &str| headers.get(name).map(|value| percent_decoded(value.as_bytes()));
    let code = text("grpc-status");
    let told = format!(
        "{method} ended with gRPC status {}: {}",
        code.as_deref().unwrap_or("none"),
        text("grpc-message").unwrap_or_default()
    );
    match code.as_deref() {
        Some("0") => Ok(()),
        // Deadline exceeded, unimplemented, unavailable, or no gRPC at all.
        Some("4" | "12" | "14") | None => Err(WrapError::Unavailable(told)),
        Some(_) => Err(WrapError::Refused(told)),
    }
}

fn percent_decoded(raw: &[u8]) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, after)) = rest.split_first() {
        let decoded = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A message as gRPC sends it: not compressed, its length before it.
fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 5);
    out.push(0);
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

fn unframe(bytes: &[u8]) -> Option<&[u8]> {
    let (head, message) = bytes.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    (head[0] == 0 && message.len() == length as usize).then_some(message)
}

// --- the messages: flat ones, whose fields are all texts, bytes or a map of such ---

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// An empty field is not written: that is how proto3 has it.
fn put_field(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    if !value.is_empty() {
        put_varint(out, number << 3 | 2);
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The length-delimited fields of a message, in order; those of other types are passed over.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        match tag & 7 {
            0 => {
                varint(&mut bytes)?;
            }
            1 => bytes = bytes.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                found.push((tag >> 3, value));
                bytes = rest;
            }
            5 => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

/// The last value of a field, as proto3 has it; empty if there is none.
fn field<'b>(fields: &[(u64, &'b [u8])], number: u64) -> &'b [u8] {
    fields.iter().rev().find(|(found, _)| *found == number).map_or(&[], |(_, value)| value)
}

fn text(fields: &[(u64, &[u8])], number: u64) -> Option<String> {
    String::from_utf8(field(fields, number).to_vec()).ok()
}

/// The key id of a `StatusResponse {1: version, 2: healthz, 3: key_id}`.
fn healthy(answer: &[u8]) -> Result<String, String> {
    let told = |fields: Vec<(u64, &[u8])>| Some((text(&fields, 1)?, text(&fields, 2)?, text(&fields, 3)?));
    match fields(answer).and_then(told) {
        None => Err("its status is no message of KMS v2".into()),
        Some((version, _, _)) if version != "v2" && version != "v2beta1" => {
            Err(format!("it speaks version {version:?}, and v2 is needed"))
        }
        Some((_, health, _)) if health != "ok" => Err(format!("it says of its health {health:?}, not ok")),
        Some((_, _, key_id)) if key_id.is_empty() => Err("it names no key_id".into()),
        Some((_, _, key_id)) => Ok(key_id),
    }
}

/// An `EncryptResponse {1: ciphertext, 2: key_id, 3: annotations}`.
fn encrypted(answer: &[u8]) -> Option<WrappedKey> {
    let fields_found = fields(answer)?;
    let mut annotations = BTreeMap::new();
    for (_, entry) in fields_found.iter().filter(|(number, _)| *number == 3) {
        let entry = fields(entry)?;
        annotations.insert(text(&entry, 1)?, field(&entry, 2).to_vec());
    }
    Some(WrappedKey {
        key_id: text(&fields_found, 2)?,
        ciphertext: field(&fields_found, 1).to_vec(),
        annotations,
    })
}

/// A `DecryptRequest {1: ciphertext, 2: uid, 3: key_id, 4: annotations}`.
fn decrypt_request(wrapped: &WrappedKey, uid: &str) -> Vec<u8> {
    let mut request = Vec::new();
    put_field(&mut request, 1, &wrapped.ciphertext);
    put_field(&mut request, 2, uid.as_bytes());
    put_field(&mut request, 3, wrapped.key_id.as_bytes());
    for (name, value) in &wrapped.annotations {
        let mut entry = Vec::new();
        put_field(&mut entry, 1, name.as_bytes());
        put_field(&mut entry, 2, value);
        put_field(&mut request, 4, &entry);
    }
    request
}

impl KeyWrap for Plugin {
    fn name(&self) -> String {
        self.url.clone()
    }

    fn key_id(&self) -> Result<String, WrapError> {
        healthy(&self.call("Status", Vec::new())?).map_err(WrapError::Unavailable)
    }

    fn wrap(&self, plain: &[u8]) -> Result<WrappedKey, WrapError> {
        let mut request = Vec::with_capacity(plain.len() + 64);
        put_field(&mut request, 1, plain);
        put_field(&mut request, 2, self.uid()?.as_bytes());
        let answer = self.call("Encrypt", request)?;
        encrypted(&answer).ok_or_else(|| WrapError::Refused("its answer is no message of KMS v2".into()))
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        let answer = self.call("Decrypt", decrypt_request(wrapped, &self.uid()?))?;
        let fields =
            fields(&answer).ok_or_else(|| WrapError::Refused("its answer is no message of KMS v2".into()))?;
        Ok(Zeroizing::new(field(&fields, 1).to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_named_by_a_socket() {
        for (url, fits) in [
            ("unix:///run/kms.sock", true),
            ("unix://run/kms.sock", false),
            ("unix:///", false),
            ("/run/kms.sock", false),
            ("http://127.0.0.1:1", false),
            ("", false),
        ] {
            assert_eq!(Plugin::new(url, Env::fixed(1, 1)).is_ok(), fits, "{url:?}");
        }
        let uid = Plugin::new("unix:///x", Env::fixed(1, 1)).unwrap().uid().unwrap();
        assert_eq!((uid.len(), &uid[14..15], uid.matches('-').count()), (36, "4", 4), "{uid}");
    }

    #[test]
    fn what_a_plugin_says_of_itself_is_checked() {
        let answer = |version: &str, health: &str, key: &str| {
            let mut bytes = Vec::new();
            for (number, value) in [(1, version), (2, health), (3, key)] {
                put_field(&mut bytes, number, value.as_bytes());
            }
            bytes
        };
        assert_eq!(healthy(&answer("v2", "ok", "k")), Ok("k".into()));
        for (bytes, told) in [
            (answer("v1beta1", "ok", "k"), "version \"v1beta1\""),
            (answer("v2", "sealed", "k"), "\"sealed\""),
            (answer("v2", "ok", ""), "no key_id"),
            (vec![], "version \"\""),
            (vec![0x0a, 5, b'v'], "no message"),
        ] {
            let refused = healthy(&bytes).unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
    }

    #[test]
    fn an_answer_is_read_as_protobuf_has_it() {
        // Fields of other types are passed over, the last of a repeated scalar counts, map entries may lack a value.
        let mut bytes = vec![0x20, 0x96, 0x01, 0x29, 1, 2, 3, 4, 5, 6, 7, 8, 0x35, 1, 2, 3, 4];
        put_field(&mut bytes, 1, b"first");
        put_field(&mut bytes, 1, b"cipher");
        put_field(&mut bytes, 2, b"key");
        let mut entry = Vec::new();
        put_field(&mut entry, 1, b"a.example.com");
        put_field(&mut bytes, 3, &entry);
        put_field(&mut entry, 2, &[7; 200]);
        entry[2] = b'b';
        put_field(&mut bytes, 3, &entry);
        let read = encrypted(&bytes).unwrap();
        assert_eq!((read.ciphertext.as_slice(), read.key_id.as_str()), (&b"cipher"[..], "key"));
        assert_eq!(read.annotations["a.example.com"], b"");
        assert_eq!(read.annotations["b.example.com"], [7; 200]);
        // The request carries all of it back under its own numbers.
        let request = decrypt_request(&read, "uid");
        let back = fields(&request).unwrap();
        assert_eq!(
            (field(&back, 1), field(&back, 2), field(&back, 3)),
            (&b"cipher"[..], &b"uid"[..], &b"key"[..])
        );
        assert_eq!(back.iter().filter(|(number, _)| *number == 4).count(), 2);
        // Cut anywhere, it is either shorter in whole fields or refused; never a panic.
        for at in 0..bytes.len() {
            let _ = encrypted(&bytes[..at]);
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            let _ = encrypted(&changed);
            let _ = healthy(&changed);
        }
        assert_eq!(varint(&mut &[0xff; 11][..]), None);
    }

    #[test]
    fn frames_hold_one_message() {
        assert_eq!(unframe(&frame(b"message")), Some(&b"message"[..]));
        for broken in [&b""[..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 2, 1], &[0, 0, 0, 0, 0, 1]] {
            assert_eq!(unframe(broken), None);
        }
        assert_eq!(percent_decoded(b"a%20b%C3%A4%zz%4"), "a bä%zz%4");
    }
}
