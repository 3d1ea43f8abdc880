//! Calls to a server, many at once over one connection.
//!
//! A connection that is lost ends all its calls and takes no new ones: nothing is connected again or sent twice behind a
//! caller's back, because only the caller knows whether that does harm.

use crate::frame::encoded;
use crate::life::{KeepAlive, Life, Watched, until};
use crate::status::{Code, Status, timeout_text};
use crate::stream::{Incoming, Outgoing, Receiving, Sending, too_late};
use crate::tls::Tls;
use crate::{DATA_FRAMES_BYTES_MAX, HEADERS_BYTES_MAX, Options, STREAMS_MAX, WINDOW_BYTES};
use bytes::Bytes;
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::uri::{Authority, Scheme};
use prost::Message;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

/// A connection to a server. Clones share it; it closes when the last of them and the last call are gone.
#[derive(Debug, Clone)]
pub struct Client {
    requests: SendRequest<Bytes>,
    scheme: Scheme,
    authority: Authority,
    life: Arc<Life>,
    bytes_max: usize,
}

/// A call under way. Dropped, it is cancelled.
pub struct Call<Q, A> {
    /// To the server.
    pub requests: Sending<Q>,
    /// From the server; the last of them says how the call ended.
    pub answers: Receiving<A>,
}

impl Client {
    /// To a server behind a Unix socket.
    pub async fn unix(path: &Path, options: Options) -> Result<Client, Status> {
        let io = in_time(options, UnixStream::connect(path)).await?;
        Client::over(io, Scheme::HTTP, "localhost", options).await
    }

    /// To `host:port`, if the server shows that it is this `uri`.
    pub async fn tls(address: &str, tls: &Tls, uri: &str, options: Options) -> Result<Client, Status> {
        let connecting = async {
            let io = TcpStream::connect(address).await?;
            io.set_nodelay(true)?;
            tls.connect(io, uri).await
        };
        let io = in_time(options, connecting).await?;
        Client::over(io, Scheme::HTTPS, address, options).await
    }

    /// Over a connection that is there.
    pub async fn over<T>(io: T, scheme: Scheme, authority: &str, options: Options) -> Result<Client, Status>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let authority = authority.parse::<Authority>().map_err(|error| {
            Status::new(Code::InvalidArgument, format!("{authority:?} is no name of a server: {error}"))
        })?;
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES * STREAMS_MAX)
            .max_send_buffer_size(WINDOW_BYTES as usize)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .data_frame_budget(DATA_FRAMES_BYTES_MAX)
            // Until the server has said how many it takes.
            .initial_max_send_streams(STREAMS_MAX as usize)
            .enable_push(false);
        let (requests, mut connection) = in_time(options, builder.handshake::<T, Bytes>(io)).await?;
        let life = Life::new(options.keep_alive);
        let driven = Arc::clone(&life);
        // Ends with the connection, and ends it when the peer is gone. Its calls are told when it is dropped.
        tokio::spawn(async move {
            let pings = connection.ping_pong();
            let why = tokio::select! {
                ended = &mut connection => match ended {
                    Ok(()) => "the connection was closed".into(),
                    Err(error) => format!("the connection is lost: {error}"),
                },
                why = driven.guard(pings) => why,
            };
            tracing::debug!(why, "an rpc connection has ended");
            driven.end(why);
            drop(connection);
        });
        Ok(Client { requests, scheme, authority, life, bytes_max: options.message_bytes_max })
    }

    /// Watches the server more closely, for as long as the answer of this lives.
    pub fn watch(&self, rule: KeepAlive) -> Watched {
        Life::watch(&self.life, rule)
    }

    /// Begins a call of any kind. The deadline, which the server is told, is for all of it.
    pub async fn call<Q, A>(&self, path: &str, deadline: Option<Duration>) -> Result<Call<Q, A>, Status>
    where
        Q: Message,
        A: Message + Default,
    {
        let until_when = deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let invalid = |error: &dyn Display| {
            Status::new(Code::InvalidArgument, format!("{path:?} is no name of a method: {error}"))
        };
        let uri = http::Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|error| invalid(&error))?;
        let mut request = http::Request::post(uri)
            .version(http::Version::HTTP_2)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(USER_AGENT, concat!("holdfast/", env!("CARGO_PKG_VERSION")));
        if let Some(deadline) = deadline {
            request = request.header("grpc-timeout", timeout_text(deadline));
        }
        let request = request.body(()).map_err(|error| invalid(&error))?;
        let ready = tokio::select! {
            biased;
            ready = self.requests.clone().ready() => ready,
            () = until(until_when) => return Err(too_late()),
        };
        let (answer, stream) = ready
            .and_then(|mut requests| requests.send_request(request, false))
            .map_err(|error| self.life.broken(&error))?;
        let outgoing = Outgoing::new(stream, Arc::clone(&self.life));
        let incoming = Incoming::answers(answer, Arc::clone(&self.life), self.bytes_max, until_when);
        Ok(Call {
            requests: Sending::new(outgoing, self.bytes_max, until_when),
            answers: Receiving::new(incoming),
        })
    }

    /// One request, answers as they come.
    pub async fn answers<Q, A>(
        &self,
        path: &str,
        request: &Q,
        deadline: Option<Duration>,
    ) -> Result<Receiving<A>, Status>
    where
        Q: Message,
        A: Message + Default,
    {
        // What cannot be sent at all is said here. Any other failure has its reason in the answers.
        let frame = encoded(request, self.bytes_max)?;
        let Call { mut requests, answers } = self.call::<Q, A>(path, deadline).await?;
        if requests.send_frame(frame).await.is_ok() {
            let _ = requests.finish().await;
        }
        Ok(answers)
    }

    /// One request, one answer.
    pub async fn unary<Q, A>(&self, path: &str, request: &Q, deadline: Option<Duration>) -> Result<A, Status>
    where
        Q: Message,
        A: Message + Default,
    {
        self.answers(path, request, deadline).await?.one().await
    }
}

/// What has to succeed before there is a connection.
async fn in_time<T, E: Display>(
    options: Options,
    connecting: impl Future<Output = Result<T, E>>,
) -> Result<T, Status> {
    let failed = |why: &dyn Display| Status::new(Code::Unavailable, format!("cannot connect: {why}"));
    match timeout(options.handshake, connecting).await {
        Ok(connected) => connected.map_err(|error| failed(&error)),
        Err(_) => Err(failed(&format!("no answer in {:?}", options.handshake))),
    }
}
