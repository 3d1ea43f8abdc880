//! gRPC over HTTP/2, for three protocols: the node protocol (docs/node-agent.md), KMS plugins, and CSI snapshot metadata.
//!
//! Both sides, all four kinds of call, over TLS 1.3 or a Unix socket. What it promises:
//! - every call ends with an answer or a [`Status`], also when the connection is lost, the peer is gone ([`KeepAlive`]) or the
//!   deadline has passed, and both sides learn it;
//! - whatever comes over the wire is refused in bounded memory and never a panic: messages have at most
//!   [`Options::message_bytes_max`] bytes, streams a window each;
//! - a slow reader slows its writer and nobody else.
//!
//! HTTP/2 itself is `h2`'s, messages are `prost`'s; docs/decisions/0016-grpc.md says why no gRPC library. Left out, because nobody
//! here asks for it: compression, metadata of one's own, retries, reflection.

mod client;
mod frame;
mod life;
mod server;
mod status;
mod stream;
mod tls;

pub use client::{Call, Client};
pub use life::{KeepAlive, Watched};
pub use server::{Context, Listener, Peer, Server};
pub use status::{Code, Status};
pub use stream::{Answers, Receiving, Sending};
pub use tls::{Clients, Identity, Roots, Tls, Unusable};

use std::time::Duration;

/// What a stream may have under way in one direction.
pub const WINDOW_BYTES: u32 = 64 * 1024;
/// Calls at once over one connection. The connection has room for the windows of all, so none waits for another's reader.
const STREAMS_MAX: u32 = 64;
/// Heads and trailers of a call.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// What the bookkeeping of small frames that nobody has read yet may cost a connection.
const DATA_FRAMES_BYTES_MAX: usize = 16 << 20;

/// How a side of a connection behaves.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The largest message taken or sent.
    pub message_bytes_max: usize,
    /// Until a connection is there, greeted and proved.
    pub handshake: Duration,
    /// Whether the peer is watched when nobody asks for it.
    pub keep_alive: Option<KeepAlive>,
}

impl Default for Options {
    fn default() -> Options {
        Options { message_bytes_max: 4 << 20, handshake: Duration::from_secs(10), keep_alive: None }
    }
}
