//! Serves calls: each in a task of its own, which ends with the call.
//!
//! **A handler is dropped** where it waits when its client cancels or goes, or when its deadline has passed. What must be put
//! right then is put right by what it holds (`Drop`); what must go on is spawned.
//!
//! **Everybody is asked who they are** before anything else: a server is made with a function that admits a peer to a path, so
//! that no handler can forget it.

use crate::life::{KeepAlive, Life, Watched, until};
use crate::status::{self, Code, Status};
use crate::stream::{Answers, Incoming, Outgoing, Receiving, too_late};
use crate::tls::{Clients, Tls};
use crate::{DATA_FRAMES_BYTES_MAX, HEADERS_BYTES_MAX, Options, STREAMS_MAX, WINDOW_BYTES};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use prost::Message;
use std::collections::BTreeMap;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Connections at once; more wait in the socket's queue.
const CONNECTIONS_MAX: usize = 256;
/// After a failed accept, until the next: what it lacked (descriptors, memory) has to be given back by somebody.
const BREATH: Duration = Duration::from_millis(100);

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// The URI of its certificate; `None` on a Unix socket, and where a certificate is optional and it showed none.
    pub uri: Option<String>,
}

/// What a handler knows of its call beside the messages.
#[derive(Debug)]
pub struct Context {
    /// Who calls.
    pub peer: Peer,
    /// When the client stops waiting. The handler is dropped then by itself.
    pub deadline: Option<Instant>,
    life: Arc<Life>,
}

impl Context {
    /// Watches the client more closely, for as long as the answer of this lives.
    pub fn watch(&self, rule: KeepAlive) -> Watched {
        Life::watch(&self.life, rule)
    }
}

/// Where connections come from.
pub enum Listener {
    /// Whoever may open the socket.
    Unix(UnixListener),
    /// Over TLS 1.3.
    Tls(TcpListener, Arc<Tls>, Clients),
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

type Handling = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;
type Route = Box<dyn Fn(Context, Incoming, mpsc::Sender<Bytes>) -> Handling + Send + Sync>;
type Admit = Box<dyn Fn(&Peer, &str) -> Result<(), Status> + Send + Sync>;

/// Methods by their path, and who may call them.
pub struct Server {
    options: Options,
    admit: Admit,
    routes: BTreeMap<String, Route>,
}

impl Server {
    /// Without methods yet. `admit` sees every call before its handler does.
    pub fn new(
        options: Options,
        admit: impl Fn(&Peer, &str) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Server {
        Server { options, admit: Box::new(admit), routes: BTreeMap::new() }
    }

    /// A method with streams. Which directions really stream, the handler says by what it takes and sends.
    pub fn streams<Q, A, F, W>(mut self, path: &str, handler: F) -> Server
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Fn(Context, Receiving<Q>, Answers<A>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let bytes_max = self.options.message_bytes_max;
        let route: Route = Box::new(move |context, incoming, frames| {
            Box::pin(handler(context, Receiving::new(incoming), Answers::new(frames, bytes_max)))
        });
        self.routes.insert(path.into(), route);
        self
    }

    /// A method with one request and one answer.
    pub fn unary<Q, A, F, W>(self, path: &str, handler: F) -> Server
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Fn(Context, Q) -> W + Send + Sync + 'static,
        W: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.streams(path, move |context, mut requests: Receiving<Q>, answers: Answers<A>| {
            let handler = Arc::clone(&handler);
            async move {
                let request = requests.one().await?;
                let answer = handler(context, request).await?;
                answers.send(&answer).await
            }
        })
    }

    /// Serves until `stop`. Then nobody new is let in, calls that run may end within `grace`, and what is left is dropped.
    pub async fn serve(self: Arc<Self>, listener: Listener, stop: impl Future<Output = ()>, grace: Duration) {
        let (ending, end) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                accepted = accept(&listener), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok(Accepted::Unix(io)) => {
                        connections.spawn(Arc::clone(&self).connection(io, Peer::default(), end.clone()));
                    }
                    Ok(Accepted::Tcp(io)) => {
                        if let Listener::Tls(_, tls, clients) = &listener {
                            let (tls, server) = (Arc::clone(tls), Arc::clone(&self));
                            connections.spawn(server.greeted(io, tls, *clients, end.clone()));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no connection can be accepted");
                        sleep(BREATH).await;
                    }
                },
            }
        }
        drop(listener);
        let _ = ending.send(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(grace, ended).await.is_err() {
            tracing::debug!("calls that go on are dropped");
        }
        connections.shutdown().await;
    }

    /// A connection from the net, once it is known who it is.
    async fn greeted(
        self: Arc<Self>,
        io: TcpStream,
        tls: Arc<Tls>,
        clients: Clients,
        end: watch::Receiver<bool>,
    ) {
        let greeting = async {
            io.set_nodelay(true)?;
            tls.accept(io, clients).await
        };
        match timeout(self.options.handshake, greeting).await {
            Ok(Ok((io, uri))) => self.connection(io, Peer { uri }, end).await,
            Ok(Err(error)) => tracing::debug!(%error, "a connection was refused"),
            Err(_) => tracing::debug!("a connection was refused: nothing came"),
        }
    }

    /// Serves one connection that is there, until it ends or, from `end` on, its calls have.
    async fn connection<T>(self: Arc<Self>, io: T, peer: Peer, mut end: watch::Receiver<bool>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES * STREAMS_MAX)
            .max_send_buffer_size(WINDOW_BYTES as usize)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .data_frame_budget(DATA_FRAMES_BYTES_MAX);
        let mut connection = match timeout(self.options.handshake, builder.handshake(io)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::debug!(%error, "a connection speaks no HTTP/2"),
            Err(_) => return tracing::debug!("a connection speaks no HTTP/2: nothing came"),
        };
        let life = Life::new(self.options.keep_alive);
        let mut gone = pin!(life.guard(connection.ping_pong()));
        // Dropped with this function, and every call that still runs with it.
        let mut calls = JoinSet::new();
        let mut ending = false;
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        let server = Arc::clone(&self);
                        calls.spawn(server.call(request, respond, peer.clone(), Arc::clone(&life)));
                    }
                    Some(Err(error)) => break life.end(format!("the connection is lost: {error}")),
                    None => break life.end("the connection was closed".into()),
                },
                why = &mut gone => break life.end(why),
                _ = end.changed(), if !ending => {
                    ending = true;
                    connection.graceful_shutdown();
                }
                Some(ended) = calls.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "a handler broke");
                },
            }
        }
        // Whoever waits on a stream of this connection learns it now.
        drop(connection);
    }

    async fn call(
        self: Arc<Self>,
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        peer: Peer,
        life: Arc<Life>,
    ) {
        let (head, body) = request.into_parts();
        let mut answer = http::Response::new(());
        let kind = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if head.method != Method::POST || !kind.starts_with(b"application/grpc") {
            *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            // This and what follows fails only when the client is gone.
            let _ = respond.send_response(answer, true);
            return;
        }
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let (route, deadline) = match self.route(&head, &peer) {
            Ok(found) => found,
            Err(refusal) => {
                answer.headers_mut().extend(status::write(&Err(refusal)));
                let _ = respond.send_response(answer, true);
                return;
            }
        };
        let Ok(stream) = respond.send_response(answer, false) else { return };
        let mut outgoing = Outgoing::new(stream, Arc::clone(&life));
        let (frames, mut queue) = mpsc::channel(1);
        let incoming = Incoming::requests(body, Arc::clone(&life), self.options.message_bytes_max);
        let handling = route(Context { peer, deadline, life }, incoming, frames);
        let work = async {
            let ended = tokio::select! {
                ended = handling => ended,
                () = outgoing.pump(&mut queue) => return None,
            };
            // What it has sent goes before the status.
            queue.close();
            outgoing.flush().await.ok()?;
            while let Some(frame) = queue.recv().await {
                outgoing.pending = frame;
                outgoing.flush().await.ok()?;
            }
            Some(ended)
        };
        let ended = tokio::select! {
            biased;
            ended = work => ended,
            () = until(deadline) => Some(Err(too_late())),
        };
        if let Some(ended) = ended {
            let _ = outgoing.stream.send_trailers(status::write(&ended));
        }
    }

    fn route(&self, head: &http::request::Parts, peer: &Peer) -> Result<(&Route, Option<Instant>), Status> {
        let path = head.uri.path();
        (self.admit)(peer, path)?;
        let route = self
            .routes
            .get(path)
            .ok_or_else(|| Status::new(Code::Unimplemented, format!("there is no method {path:?}")))?;
        let deadline = match head.headers.get("grpc-timeout") {
            None => None,
            Some(text) => {
                let left = status::timeout(text.as_bytes())
                    .ok_or_else(|| Status::new(Code::InvalidArgument, format!("{text:?} is no deadline")))?;
                Instant::now().checked_add(left)
            }
        };
        Ok((route, deadline))
    }
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        Listener::Tls(listener, _, _) => Ok(Accepted::Tcp(listener.accept().await?.0)),
    }
}
