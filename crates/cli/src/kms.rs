//! A Kubernetes KMS v2 plugin (KEP-3299) as the keeper of a repository's key.
//!
//! Where a cluster has such a plugin for its own secrets (a cloud's key service, a hardware module, Vault), Holdfast
//! uses it as the API server does: a small local key is encrypted by the plugin, and only its ciphertext is stored.
//! The protocol is gRPC on a unix socket: three calls of service `v2.KeyManagementService`, six flat messages.
//! `rpc` carries them.
//!
//! The bounds on what a plugin answers are those of the API server. A call that takes longer than ten seconds has
//! failed: a restore that waits for ever helps nobody.

use prost::Message;
use repo::env::Env;
use repo::{KeyWrap, WrapError, WrappedKey, Zeroizing};
use rpc::{Client, Code, Options, Status};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
    fn call<Q: Message, A: Message + Default>(&self, method: &str, request: &Q) -> Result<A, WrapError> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| WrapError::Unavailable(format!("no runtime to call it from: {error}")))?;
        runtime.block_on(async {
            match tokio::time::timeout(ANSWER, self.exchange(method, request)).await {
                Ok(answer) => answer.map_err(|status| failed(method, &status)),
                Err(_) => {
                    Err(WrapError::Unavailable(format!("no answer to {method} in {} s", ANSWER.as_secs())))
                }
            }
        })
    }

    async fn exchange<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<A, Status> {
        let options = Options { message_bytes_max: ANSWER_BYTES_MAX, ..Options::default() };
        let client = Client::unix(&self.socket, options).await?;
        // The plugin is told a second more than we wait, so that it is we who say so.
        let deadline = Some(ANSWER + Duration::from_secs(1));
        client.unary(&format!("/v2.KeyManagementService/{method}"), request, deadline).await
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

/// What a call that did not succeed means to us: a plugin that is not well, or one that says no.
fn failed(method: &str, status: &Status) -> WrapError {
    if !status.by_peer() {
        return WrapError::Unavailable(format!("{method}: {}", status.message));
    }
    let told = format!("{method} ended with gRPC status {}: {}", status.code.number(), status.message);
    match status.code {
        Code::DeadlineExceeded | Code::Unimplemented | Code::Unavailable => WrapError::Unavailable(told),
        _ => WrapError::Refused(told),
    }
}

// --- the messages, from k8s.io/kms/apis/v2 ---

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

/// The key id of a plugin that is well and speaks our version.
fn healthy(told: StatusResponse) -> Result<String, String> {
    match told {
        StatusResponse { version, .. } if version != "v2" && version != "v2beta1" => {
            Err(format!("it speaks version {version:?}, and v2 is needed"))
        }
        StatusResponse { healthz, .. } if healthz != "ok" => {
            Err(format!("it says of its health {healthz:?}, not ok"))
        }
        StatusResponse { key_id, .. } if key_id.is_empty() => Err("it names no key_id".into()),
        StatusResponse { key_id, .. } => Ok(key_id),
    }
}

impl KeyWrap for Plugin {
    fn name(&self) -> String {
        self.url.clone()
    }

    fn key_id(&self) -> Result<String, WrapError> {
        healthy(self.call("Status", &StatusRequest {})?).map_err(WrapError::Unavailable)
    }

    fn wrap(&self, plain: &[u8]) -> Result<WrappedKey, WrapError> {
        let request = EncryptRequest { plaintext: plain.to_vec(), uid: self.uid()? };
        let answer = self.call("Encrypt", &request);
        drop(Zeroizing::new(request.plaintext));
        let EncryptResponse { ciphertext, key_id, annotations } = answer?;
        Ok(WrappedKey { key_id, ciphertext, annotations })
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        let WrappedKey { key_id, ciphertext, annotations } = wrapped.clone();
        let request = DecryptRequest { ciphertext, uid: self.uid()?, key_id, annotations };
        let answer: DecryptResponse = self.call("Decrypt", &request)?;
        Ok(Zeroizing::new(answer.plaintext))
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
        let told = |version: &str, healthz: &str, key_id: &str| {
            let [version, healthz, key_id] = [version, healthz, key_id].map(String::from);
            healthy(StatusResponse { version, healthz, key_id })
        };
        assert_eq!(told("v2", "ok", "k"), Ok("k".into()));
        for (version, health, key, says) in [
            ("v1beta1", "ok", "k", "version \"v1beta1\""),
            ("v2", "sealed", "k", "\"sealed\""),
            ("v2", "ok", "", "no key_id"),
            ("", "", "", "version \"\""),
        ] {
            let refused = told(version, health, key).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn what_no_plugin_said_is_no_refusal() {
        let ours = Status::new(Code::NotFound, "x");
        assert!(matches!(failed("Decrypt", &ours), WrapError::Unavailable(told) if told == "Decrypt: x"));
    }

    /// A field of a message: a number, a length, bytes.
    fn put_field(out: &mut Vec<u8>, number: u8, value: &[u8]) {
        out.push(number << 3 | 2);
        prost::encode_length_delimiter(value.len(), out).unwrap();
        out.extend_from_slice(value);
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
        let read = EncryptResponse::decode(bytes.as_slice()).unwrap();
        assert_eq!((read.ciphertext.as_slice(), read.key_id.as_str()), (&b"cipher"[..], "key"));
        assert_eq!(read.annotations["a.example.com"], b"");
        assert_eq!(read.annotations["b.example.com"], [7; 200]);
        // The request carries all of it back under its own numbers.
        let EncryptResponse { ciphertext, key_id, annotations } = read;
        let request = DecryptRequest { ciphertext, uid: "uid".into(), key_id, annotations };
        let mut wanted = Vec::new();
        put_field(&mut wanted, 1, b"cipher");
        put_field(&mut wanted, 2, b"uid");
        put_field(&mut wanted, 3, b"key");
        let mut entry = Vec::new();
        put_field(&mut entry, 1, b"a.example.com");
        put_field(&mut wanted, 4, &entry);
        put_field(&mut entry, 2, &[7; 200]);
        entry[2] = b'b';
        put_field(&mut wanted, 4, &entry);
        assert_eq!(request.encode_to_vec(), wanted);
        // Cut anywhere, it is either shorter in whole fields or refused; never a panic.
        for at in 0..bytes.len() {
            let _ = EncryptResponse::decode(&bytes[..at]);
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            let _ = EncryptResponse::decode(changed.as_slice());
            let _ = StatusResponse::decode(changed.as_slice());
        }
    }
}
