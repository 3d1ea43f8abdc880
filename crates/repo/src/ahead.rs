//! Streams read: batches of chunks fetched ahead by threads, handed out in order.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Buf, Bytes};
use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::error::Error;
use crate::id::ChunkId;
use crate::node::bytes_of;
use crate::object::{Leaf, Root};
use crate::reader::{Core, Extents, Reader, lock};

/// A stream is read ahead in batches of this many plain bytes; larger ones over a network, where every call
/// waits.
const BATCH_BYTES_LOCAL: u64 = 1 << 20;
const BATCH_BYTES_REMOTE: u64 = 4 << 20;
const BATCH_CHUNKS: usize = 64;
/// How long a reader sleeps before it looks at the stop button again.
const NAP: Duration = Duration::from_millis(50);

/// Chunks of a stream that are fetched together.
struct Batch {
    ids: Vec<ChunkId>,
    leaves: Vec<Leaf>,
    result: Mutex<Option<Vec<Result<Bytes, Error>>>>,
    ready: Condvar,
}

impl Batch {
    fn work(&self, core: &Core) {
        // Whoever waits must be told even if this thread unwinds.
        let mut answer = Answer { batch: self, result: None };
        answer.result = Some(core.batch(&self.ids));
    }
}

/// Gives the result of a batch to whoever waits when it goes out of scope.
struct Answer<'b> {
    batch: &'b Batch,
    result: Option<Vec<Result<Bytes, Error>>>,
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| {
            let defect =
                || Err(Error::failed("a reading thread panicked; this is a defect, please report it"));
            self.batch.ids.iter().map(|_| defect()).collect()
        });
        *lock(&self.batch.result) = Some(result);
        self.batch.ready.notify_all();
    }
}

/// Threads that fetch batches; started when the first long stream is read.
pub(crate) struct Ahead {
    threads: usize,
    depth: usize,
    batch_bytes: u64,
    started: Mutex<Started>,
}

#[derive(Default)]
struct Started {
    queue: Option<Sender<Arc<Batch>>>,
    handles: Vec<JoinHandle<()>>,
}

impl Ahead {
    pub(crate) fn new(threads: usize, remote: bool) -> Ahead {
        Ahead {
            threads,
            depth: threads + 1,
            batch_bytes: if remote { BATCH_BYTES_REMOTE } else { BATCH_BYTES_LOCAL },
            started: Mutex::new(Started::default()),
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Has the batch fetched by a thread; `false` if there is none and the caller must do it.
    fn submit(&self, core: &Arc<Core>, batch: &Arc<Batch>) -> bool {
        let mut started = lock(&self.started);
        if started.queue.is_none() {
            let (queue, batches): (_, Receiver<Arc<Batch>>) = unbounded();
            for number in 0..self.threads {
                let (core, batches) = (core.clone(), batches.clone());
                let work = move || {
                    for batch in batches {
                        // Nobody waits for a batch whose stream is gone.
                        if Arc::strong_count(&batch) > 1 {
                            batch.work(&core);
                        }
                    }
                };
                // Fewer threads, or none, are slower and no error.
                let thread = std::thread::Builder::new().name(format!("repo-ahead-{number}")).spawn(work);
                started.handles.extend(thread);
            }
            started.queue = Some(queue);
        }
        !started.handles.is_empty()
            && started.queue.as_ref().is_some_and(|queue| queue.send(batch.clone()).is_ok())
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut started = lock(&self.started);
        started.queue = None;
        for handle in started.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

/// The bytes of a stream. Reads ahead in threads; ends after an error.
pub struct StreamReader<'r> {
    reader: &'r Reader,
    root: Root,
    extents: Extents<'r>,
    listed: bool,
    under_way: VecDeque<Arc<Batch>>,
    ready: VecDeque<Result<Bytes, Error>>,
    current: Bytes,
    failed: Option<Error>,
}

impl<'r> StreamReader<'r> {
    pub(crate) fn new(reader: &'r Reader, root: &Root, extents: Extents<'r>) -> StreamReader<'r> {
        StreamReader {
            reader,
            root: *root,
            extents,
            listed: false,
            under_way: VecDeque::new(),
            ready: VecDeque::new(),
            current: Bytes::new(),
            failed: None,
        }
    }

    /// What is being read.
    pub fn root(&self) -> &Root {
        &self.root
    }

    fn next_batch(&mut self) -> Result<Option<Arc<Batch>>, Error> {
        let (mut ids, mut leaves, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < self.reader.ahead.batch_bytes && ids.len() < BATCH_CHUNKS {
            match self.extents.next() {
                Some(extent) => {
                    let extent = extent?;
                    ids.push(extent.extent().chunk);
                    leaves.push(extent.leaf());
                    bytes += u64::from(extent.length);
                }
                None => {
                    self.listed = true;
                    break;
                }
            }
        }
        let batch = Batch { ids, leaves, result: Mutex::new(None), ready: Condvar::new() };
        Ok((!batch.ids.is_empty()).then(|| Arc::new(batch)))
    }

    fn advance(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return next.map(Some);
            }
            while !self.listed && self.under_way.len() < self.reader.ahead.depth {
                let Some(batch) = self.next_batch()? else { break };
                // A stream of one batch is read here: handing it over would only cost.
                let alone = self.listed && self.under_way.is_empty();
                if alone || !self.reader.ahead.submit(&self.reader.core, &batch) {
                    batch.work(&self.reader.core);
                }
                self.under_way.push_back(batch);
            }
            let Some(batch) = self.under_way.pop_front() else {
                return Ok(None);
            };
            let mut result = lock(&batch.result);
            while result.is_none() {
                result = batch.ready.wait_timeout(result, NAP).unwrap_or_else(PoisonError::into_inner).0;
                self.reader.core.cancel.check()?;
            }
            for (leaf, chunk) in batch.leaves.iter().zip(result.take().unwrap_or_default()) {
                self.ready.push_back(chunk.and_then(|chunk| self.leaf(leaf, chunk)));
            }
        }
    }

    /// The bytes of a leaf, as they lie in their chunk.
    fn leaf(&self, leaf: &Leaf, chunk: Bytes) -> Result<Bytes, Error> {
        let damaged = |what: String| Err(Error::damaged(format!("stream {}", self.root.id), what));
        let promised = leaf.length as usize;
        if leaf.part_of.is_none() && chunk.len() != promised {
            let has = chunk.len();
            return damaged(format!("chunk {} has {has} bytes where {promised} were promised", leaf.id));
        }
        let bytes = bytes_of(&leaf.extent(), &chunk)?;
        if leaf.part_of.is_some() && !self.reader.is(&bytes, &leaf.id) {
            return damaged(format!("a part of chunk {} is not what its id says", leaf.extent().chunk));
        }
        Ok(bytes)
    }

    /// The next chunk, whole or what `read` left of it: the way to read without copying.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if !self.current.is_empty() {
            return Ok(Some(std::mem::take(&mut self.current)));
        }
        self.advance().inspect_err(|error| {
            self.failed = Some(error.clone());
        })
    }
}

impl std::io::Read for StreamReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.current.is_empty() {
            match self.next_chunk()? {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let length = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..length]);
        Ok(length)
    }
}
