//! The two directions of a call: messages that come and messages that go.
//!
//! **Back-pressure.** A message is taken from the connection when somebody asks for it, and the peer may send more only
//! when it was taken; a message is given to the connection when the peer takes it. So a slow reader costs, on each side, one
//! message and one window ([`crate::WINDOW_BYTES`]), however much there is to send.
//!
//! **Waiting may be given up.** Whoever waits in a `select!` loses nothing by it: a half-read message stays, and a half-sent one
//! goes out before the next.

use crate::frame::{Assembler, encoded};
use crate::life::{Life, until};
use crate::status::{self, Code, Status};
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use prost::Message;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Messages that come: a server's requests, a client's answers.
pub struct Receiving<M> {
    incoming: Incoming,
    kind: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Receiving<M> {
    pub(crate) fn new(incoming: Incoming) -> Receiving<M> {
        Receiving { incoming, kind: PhantomData }
    }

    /// The next message; `None` when the peer has sent all of them and, for a client, ended the call well.
    pub async fn next(&mut self) -> Result<Option<M>, Status> {
        let Some(bytes) = self.incoming.next().await? else { return Ok(None) };
        let message = M::decode(bytes.as_slice())
            .map_err(|error| Status::new(Code::Internal, format!("a message does not decode: {error}")));
        match message {
            Ok(message) => Ok(Some(message)),
            Err(status) => self.incoming.end(Err(status)),
        }
    }

    /// The only message of its direction.
    pub async fn one(&mut self) -> Result<M, Status> {
        let first = self.next().await?;
        let further = if first.is_some() { self.next().await? } else { None };
        match (first, further) {
            (Some(message), None) => Ok(message),
            (first, _) => {
                let count = if first.is_some() { "several messages" } else { "no message" };
                Err(Status::new(self.incoming.cardinality, format!("{count} where one belongs")))
            }
        }
    }
}

/// Bytes of messages as they come, without knowing what they are.
pub(crate) struct Incoming {
    state: State,
    frames: Assembler,
    life: Arc<Life>,
    deadline: Option<Instant>,
    /// gRPC has different codes for a client's and a server's wrong number of messages.
    cardinality: Code,
}

enum State {
    Head(ResponseFuture),
    /// With the end of the call, if the head told it.
    Body(RecvStream, Option<Result<(), Status>>),
    End(Result<(), Status>),
}

impl Incoming {
    /// What a server gets. Its deadline ends the handler as a whole.
    pub(crate) fn requests(body: RecvStream, life: Arc<Life>, bytes_max: usize) -> Incoming {
        let state = State::Body(body, Some(Ok(())));
        let frames = Assembler::new(bytes_max);
        Incoming { state, frames, life, deadline: None, cardinality: Code::Unimplemented }
    }

    /// What a client gets.
    pub(crate) fn answers(
        head: ResponseFuture,
        life: Arc<Life>,
        bytes_max: usize,
        deadline: Option<Instant>,
    ) -> Incoming {
        let (state, frames) = (State::Head(head), Assembler::new(bytes_max));
        Incoming { state, frames, life, deadline, cardinality: Code::Internal }
    }

    async fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Status> {
        let deadline = self.deadline;
        tokio::select! {
            biased;
            next = self.in_time() => next,
            () = until(deadline) => self.end(Err(too_late())),
        }
    }

    async fn in_time(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Status> {
        loop {
            match &mut self.state {
                State::Head(answer) => match answer.await {
                    Ok(answer) => {
                        let (head, body) = answer.into_parts();
                        match status::of_head(head.status, &head.headers) {
                            Ok(told) => self.state = State::Body(body, told),
                            Err(status) => return self.end(Err(status)),
                        }
                    }
                    Err(error) => return self.broken(&error),
                },
                State::Body(body, told) => {
                    match self.frames.next() {
                        Ok(None) => {}
                        Ok(message) => return Ok(message),
                        Err(status) => return self.end(Err(status)),
                    }
                    match body.data().await {
                        Some(Ok(piece)) => {
                            // Gives the window back; a failure shows in the next read.
                            let _ = body.flow_control().release_capacity(piece.len());
                            self.frames.push(piece);
                        }
                        Some(Err(error)) => return self.broken(&error),
                        None => {
                            let ended = match body.trailers().await {
                                Err(error) => return self.broken(&error),
                                Ok(trailers) => trailers.as_ref().and_then(status::read).or(told.take()),
                            };
                            let ended = match ended {
                                Some(Ok(())) if !self.frames.is_empty() => {
                                    Err(Status::new(Code::Internal, "the stream ended within a message"))
                                }
                                Some(ended) => ended,
                                None => Err(Status::new(Code::Unknown, "the call ended without a status")),
                            };
                            return self.end(ended);
                        }
                    }
                }
                State::End(ended) => return ended.clone().map(|()| None),
            }
        }
    }

    fn broken<T>(&mut self, error: &h2::Error) -> Result<Option<T>, Status> {
        let status = self.life.broken(error);
        self.end(Err(status))
    }

    /// From now on this is all it says; what the stream held is given back.
    fn end<T>(&mut self, ended: Result<(), Status>) -> Result<Option<T>, Status> {
        self.state = State::End(ended.clone());
        ended.map(|()| None)
    }
}

pub(crate) fn too_late() -> Status {
    Status::new(Code::DeadlineExceeded, "no answer within the deadline")
}

/// A client's requests. Dropped before [`Sending::finish`], the call is cancelled: half of a stream never looks like all of it.
pub struct Sending<M> {
    outgoing: Outgoing,
    bytes_max: usize,
    deadline: Option<Instant>,
    finished: bool,
    kind: PhantomData<fn(M)>,
}

impl<M: Message> Sending<M> {
    pub(crate) fn new(outgoing: Outgoing, bytes_max: usize, deadline: Option<Instant>) -> Sending<M> {
        Sending { outgoing, bytes_max, deadline, finished: false, kind: PhantomData }
    }

    /// Sends one message, once the peer takes it. An error says that the call is over; how it ended, its answers tell.
    pub async fn send(&mut self, message: &M) -> Result<(), Status> {
        self.send_frame(encoded(message, self.bytes_max)?).await
    }

    pub(crate) async fn send_frame(&mut self, frame: Bytes) -> Result<(), Status> {
        self.flush().await?;
        self.outgoing.pending = frame;
        self.flush().await
    }

    /// The last message was sent.
    pub async fn finish(mut self) -> Result<(), Status> {
        self.flush().await?;
        self.finished = true;
        self.outgoing.stream.send_data(Bytes::new(), true).map_err(|error| self.outgoing.life.broken(&error))
    }

    async fn flush(&mut self) -> Result<(), Status> {
        tokio::select! {
            biased;
            flushed = self.outgoing.flush() => flushed,
            () = until(self.deadline) => Err(too_late()),
        }
    }
}

impl<M> Drop for Sending<M> {
    fn drop(&mut self) {
        if !self.finished {
            self.outgoing.stream.send_reset(Reason::CANCEL);
        }
    }
}

/// A server's answers.
pub struct Answers<M> {
    frames: mpsc::Sender<Bytes>,
    bytes_max: usize,
    kind: PhantomData<fn(M)>,
}

impl<M: Message> Answers<M> {
    pub(crate) fn new(frames: mpsc::Sender<Bytes>, bytes_max: usize) -> Answers<M> {
        Answers { frames, bytes_max, kind: PhantomData }
    }

    /// Sends one message; waits while the client has not taken the one before.
    pub async fn send(&self, message: &M) -> Result<(), Status> {
        let frame = encoded(message, self.bytes_max)?;
        self.frames.send(frame).await.map_err(|_| Status::new(Code::Cancelled, "the call is over"))
    }
}

/// Bytes of messages as they go.
pub(crate) struct Outgoing {
    pub(crate) stream: SendStream<Bytes>,
    /// What is left of the last message.
    pub(crate) pending: Bytes,
    life: Arc<Life>,
}

impl Outgoing {
    pub(crate) fn new(stream: SendStream<Bytes>, life: Arc<Life>) -> Outgoing {
        Outgoing { stream, pending: Bytes::new(), life }
    }

    /// Gives the connection what is pending, as the peer takes it.
    pub(crate) async fn flush(&mut self) -> Result<(), Status> {
        while !self.pending.is_empty() {
            self.stream.reserve_capacity(self.pending.len());
            if self.stream.capacity() == 0 {
                match poll_fn(|cx| self.stream.poll_capacity(cx)).await {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Err(self.life.broken(&error)),
                    None => return Err(Status::new(Code::Cancelled, "the peer has ended the call")),
                }
            }
            let part = self.pending.split_to(self.stream.capacity().min(self.pending.len()));
            self.stream.send_data(part, false).map_err(|error| self.life.broken(&error))?;
        }
        Ok(())
    }

    /// Passes messages on until the peer gives the call up or is gone.
    pub(crate) async fn pump(&mut self, frames: &mut mpsc::Receiver<Bytes>) {
        loop {
            if self.flush().await.is_err() {
                return;
            }
            tokio::select! {
                _ = poll_fn(|cx| self.stream.poll_reset(cx)) => return,
                Some(frame) = frames.recv() => self.pending = frame,
            }
        }
    }
}
