//! Messages as gRPC sends them: a byte that says «not compressed», four of length, the message.
//!
//! What is put together here has a bound before it is read, grows with what has come and not with what was announced,
//! and is wiped when it has been read: keys go this way.

use crate::status::{Code, Status};
use bytes::Bytes;
use prost::Message;
use zeroize::Zeroizing;

const HEAD_BYTES: usize = 5;

/// A message with its head, ready to be sent.
pub(crate) fn encoded<M: Message>(message: &M, bytes_max: usize) -> Result<Bytes, Status> {
    let bytes = message.encoded_len();
    let length = u32::try_from(bytes)
        .ok()
        .filter(|_| bytes <= bytes_max)
        .ok_or_else(|| too_large(bytes, bytes_max))?;
    let mut frame = Vec::with_capacity(HEAD_BYTES + bytes);
    frame.push(0);
    frame.extend_from_slice(&length.to_be_bytes());
    message.encode(&mut frame).map_err(|error| Status::new(Code::Internal, error.to_string()))?;
    Ok(frame.into())
}

fn too_large(bytes: usize, bytes_max: usize) -> Status {
    Status::new(Code::ResourceExhausted, format!("a message of {bytes} bytes; at most {bytes_max} are taken"))
}

/// Puts messages together from the pieces of a stream.
pub(crate) struct Assembler {
    piece: Bytes,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    message: Zeroizing<Vec<u8>>,
    bytes_max: usize,
}

impl Assembler {
    pub(crate) fn new(bytes_max: usize) -> Assembler {
        Assembler {
            piece: Bytes::new(),
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            message: Zeroizing::default(),
            bytes_max,
        }
    }

    /// The next piece; only after [`Assembler::next`] found nothing more in the last one.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    /// Whether nothing of a message is here.
    pub(crate) fn is_empty(&self) -> bool {
        self.head_bytes == 0 && self.piece.is_empty()
    }

    /// The next whole message; `None` asks for another piece.
    pub(crate) fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Status> {
        if self.head_bytes < HEAD_BYTES {
            let part = self.piece.split_to((HEAD_BYTES - self.head_bytes).min(self.piece.len()));
            self.head[self.head_bytes..][..part.len()].copy_from_slice(&part);
            self.head_bytes += part.len();
            if self.head_bytes < HEAD_BYTES {
                return Ok(None);
            }
        }
        let [compressed, length @ ..] = self.head;
        match compressed {
            0 => {}
            1 => return Err(Status::new(Code::Unimplemented, "messages are not compressed here")),
            _ => return Err(Status::new(Code::Internal, "what came is no gRPC message")),
        }
        let bytes = u32::from_be_bytes(length) as usize;
        if bytes > self.bytes_max {
            return Err(too_large(bytes, self.bytes_max));
        }
        let part = self.piece.split_to((bytes - self.message.len()).min(self.piece.len()));
        self.append(&part, bytes);
        if self.message.len() < bytes {
            return Ok(None);
        }
        self.head_bytes = 0;
        Ok(Some(std::mem::take(&mut self.message)))
    }

    /// A vector that grows by itself leaves its old bytes behind; this one wipes them.
    fn append(&mut self, part: &[u8], bytes: usize) {
        let needed = self.message.len() + part.len();
        if needed > self.message.capacity() {
            let room = needed.max(self.message.capacity() * 2).min(bytes);
            let mut larger = Zeroizing::new(Vec::with_capacity(room));
            larger.extend_from_slice(&self.message);
            self.message = larger;
        }
        self.message.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    /// All messages of a stream that comes in pieces of this size, and whether it ended between two.
    fn assembled(stream: &[u8], piece: usize) -> Result<(Vec<Vec<u8>>, bool), Code> {
        let mut assembler = Assembler::new(1000);
        let mut messages = Vec::new();
        for piece in stream.chunks(piece) {
            assembler.push(Bytes::copy_from_slice(piece));
            while let Some(message) = assembler.next().map_err(|status| status.code)? {
                messages.push(message.to_vec());
            }
        }
        Ok((messages, assembler.is_empty()))
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let messages = vec![vec![], vec![7], vec![1; 1000], b"between".to_vec(), vec![]];
        let stream: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
        for piece in 1..stream.len() + 1 {
            assert_eq!(assembled(&stream, piece), Ok((messages.clone(), true)), "{piece}");
        }
        for cut in 1..5 {
            assert_eq!(assembled(&stream[..cut], 2), Ok((vec![], false)), "{cut}");
        }
        assert_eq!(assembled(&stream[..100], 64), Ok((messages[..2].to_vec(), false)));
    }

    #[test]
    fn what_is_no_message_is_refused_before_it_is_held() {
        for (stream, code) in [
            (&[0, 0, 0, 3, 0xe9][..], Code::ResourceExhausted), // 1001
            (&[0, 0xff, 0xff, 0xff, 0xff], Code::ResourceExhausted),
            (&[1, 0, 0, 0, 0], Code::Unimplemented),
            (&[2, 0, 0, 0, 0], Code::Internal),
            (b"HTTP/1.1 400 Bad Request", Code::Internal),
        ] {
            assert_eq!(assembled(stream, 3), Err(code), "{stream:?}");
        }
    }

    #[test]
    fn a_message_is_announced_for_nothing() {
        let mut assembler = Assembler::new(4 << 20);
        assembler.push(Bytes::from_static(&[0, 0, 0x40, 0, 0, 1, 2, 3]));
        assert_eq!(assembler.next(), Ok(None));
        assert!(assembler.message.capacity() < 100);
    }
}
