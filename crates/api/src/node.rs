//! The node protocol (docs/node-agent.md): what the operator and the agent of a node say to each other.
//!
//! `deploy/node.proto` is printed from this file by a test, which then speaks from it with Google's library in both directions.
//! What may change: fields and verbs are added under new numbers, and whoever does not know one passes over it; a number that was
//! used once never means anything else. `protocol` in [`HelloRequest`] is for what this does not cover.
//!
//! Messages with keys in them print without those.

use prost::{Enumeration, Message, Oneof};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// The protocol spoken here. Each side speaks the one before as well.
pub const PROTOCOL: u32 = 1;

/// A call of the protocol: its path, and by their types what goes there and what comes back.
#[derive(Debug)]
pub struct Verb<Q, A> {
    /// As HTTP/2 has it.
    pub path: &'static str,
    /// Whether requests stream, and whether answers do.
    pub streams: (bool, bool),
    types: PhantomData<fn(Q) -> A>,
}

// Derived, these would ask the same of the messages.
impl<Q, A> Clone for Verb<Q, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q, A> Copy for Verb<Q, A> {}

impl<Q, A> Verb<Q, A> {
    const fn new(path: &'static str, requests: bool, answers: bool) -> Self {
        Verb { path, streams: (requests, answers), types: PhantomData }
    }

    const fn unary(path: &'static str) -> Self {
        Verb::new(path, false, false)
    }

    const fn answers(path: &'static str) -> Self {
        Verb::new(path, false, true)
    }

    const fn requests(path: &'static str) -> Self {
        Verb::new(path, true, false)
    }

    const fn both(path: &'static str) -> Self {
        Verb::new(path, true, true)
    }
}

/// The URI in the certificate of a cluster's operator.
pub fn operator_uri(cluster: &str) -> String {
    format!("spiffe://{cluster}/operator")
}

/// The URI in the certificate of a node's agent.
pub fn agent_uri(cluster: &str, node: &str) -> String {
    format!("spiffe://{cluster}/node/{node}")
}

/// When a certificate is renewed: after two thirds of its life, or up to a twelfth of it before that, as the dice have it, so that
/// a thousand agents of one morning do not come back in one minute. All times in seconds since 1970.
pub fn renew_at(from: i64, until: i64, dice: u16) -> i64 {
    let life = until.saturating_sub(from).max(0);
    let earlier = i128::from(life / 12) * i128::from(dice) / i128::from(u16::MAX);
    // At most a twelfth of a life, which fits.
    from.saturating_add(life / 3 * 2).saturating_sub(i64::try_from(earlier).unwrap_or(0))
}

// --- the agent serves these, the operator calls ---

/// Who are you, and what can you do?
pub const HELLO: Verb<HelloRequest, HelloReply> = Verb::unary("/holdfast.node.v1.Node/Hello");
/// Where are these volumes on your node?
pub const LOCATE: Verb<LocateRequest, LocateReply> = Verb::unary("/holdfast.node.v1.Node/Locate");
/// Volume to repository; ends with a piece.
pub const READ: Verb<ReadRequest, TaskEvent> = Verb::answers("/holdfast.node.v1.Node/Read");
/// Repository to volume.
pub const WRITE: Verb<WriteRequest, TaskEvent> = Verb::answers("/holdfast.node.v1.Node/Write");
/// The events of a task again, from here on: after a new leader.
pub const WATCH: Verb<TaskRef, TaskEvent> = Verb::answers("/holdfast.node.v1.Node/Watch");
/// Pack keys for a task, while it runs.
pub const GIVE: Verb<Keys, GiveReply> = Verb::requests("/holdfast.node.v1.Node/Give");
/// What runs, what ended lately, and what is locked.
pub const TASKS: Verb<TasksRequest, TasksReply> = Verb::unary("/holdfast.node.v1.Node/Tasks");
/// Ends a task.
pub const STOP: Verb<TaskRef, StopReply> = Verb::unary("/holdfast.node.v1.Node/Stop");
/// A lock, for as long as the stream lasts.
pub const LOCK: Verb<LockRequest, LockReply> = Verb::both("/holdfast.node.v1.Node/Lock");

// --- the operator serves this, agents call ---

/// A certificate for an agent that shows its token.
pub const CERTIFICATE: Verb<CertificateRequest, CertificateReply> =
    Verb::unary("/holdfast.node.v1.Enrol/Certificate");

/// The first thing an operator says over a connection.
#[derive(Clone, PartialEq, Message)]
pub struct HelloRequest {
    /// The newest protocol the operator speaks.
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    /// Of the leader that asks. An agent listens to no older one than it has heard of.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// The cluster's id.
    #[prost(string, tag = "3")]
    pub cluster: String,
}

/// What an agent is.
#[derive(Clone, PartialEq, Message)]
pub struct HelloReply {
    /// The protocol to be spoken: at most the operator's.
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    /// Of the program.
    #[prost(string, tag = "2")]
    pub version: String,
    /// The node's name.
    #[prost(string, tag = "3")]
    pub node: String,
    /// The kernel's id of this boot.
    #[prost(string, tag = "4")]
    pub boot_id: String,
    /// A word for this run of the agent: another one has forgotten its tasks.
    #[prost(string, tag = "5")]
    pub started: String,
    /// `freeze`, `freeze-processes`, `watchdog-outside`, `block`.
    #[prost(string, repeated, tag = "6")]
    pub can: Vec<String>,
    /// What it has for tasks.
    #[prost(message, optional, tag = "7")]
    pub limits: Option<Limits>,
}

/// What an agent has for its tasks.
#[derive(Clone, PartialEq, Message)]
pub struct Limits {
    /// Memory for all tasks.
    #[prost(uint64, tag = "1")]
    pub memory_bytes: u64,
    /// Tasks at once.
    #[prost(uint32, tag = "2")]
    pub tasks: u32,
    /// Threads for all tasks.
    #[prost(uint32, tag = "3")]
    pub threads: u32,
    /// Bytes a second to the store; 0 for as many as there are.
    #[prost(uint64, tag = "4")]
    pub up: u64,
    /// Bytes a second from the store; 0 for as many as there are.
    #[prost(uint64, tag = "5")]
    pub down: u64,
}

/// A volume as the API has it.
#[derive(Clone, PartialEq, Message)]
pub struct VolumeRef {
    /// Of the claim.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The claim's name.
    #[prost(string, tag = "2")]
    pub claim: String,
    /// The UID of the PersistentVolume.
    #[prost(string, tag = "3")]
    pub pv_uid: String,
    /// The PersistentVolume.
    #[prost(bytes = "vec", tag = "4")]
    pub pv_json: Vec<u8>,
    /// The PersistentVolumeClaim.
    #[prost(bytes = "vec", tag = "5")]
    pub claim_json: Vec<u8>,
    /// The pods that mount it on this node.
    #[prost(string, repeated, tag = "6")]
    pub pod_uids: Vec<String>,
}

/// Asks for places.
#[derive(Clone, PartialEq, Message)]
pub struct LocateRequest {
    /// As in [`HelloRequest`].
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Whose.
    #[prost(message, repeated, tag = "2")]
    pub volumes: Vec<VolumeRef>,
}

/// Says places, in the order of the request.
#[derive(Clone, PartialEq, Message)]
pub struct LocateReply {
    /// One for each volume asked for.
    #[prost(message, repeated, tag = "1")]
    pub volumes: Vec<Located>,
}

/// Where a volume is, or why not.
#[derive(Clone, PartialEq, Message)]
pub struct Located {
    /// To be said again with each task: only what an agent located itself is opened.
    #[prost(string, tag = "1")]
    pub place: String,
    /// What proves that it is the one.
    #[prost(string, tag = "2")]
    pub how: String,
    /// Why there is no place, in words.
    #[prost(string, tag = "3")]
    pub why_not: String,
    /// A block device without a file system.
    #[prost(bool, tag = "4")]
    pub block: bool,
    /// The device beneath, as `major:minor`.
    #[prost(string, tag = "5")]
    pub device: String,
    /// The kind of file system.
    #[prost(string, tag = "6")]
    pub fs: String,
    /// Its size.
    #[prost(uint64, tag = "7")]
    pub bytes: u64,
    /// What of it is in use.
    #[prost(uint64, tag = "8")]
    pub used_bytes: u64,
    /// Why it cannot be frozen, in words; empty if it can.
    #[prost(string, tag = "9")]
    pub not_freezable: String,
}

/// A repository, and what opens it for a node.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct RepositoryRef {
    /// Its id: the store must have the same.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Where its store is.
    #[prost(string, tag = "2")]
    pub url: String,
    /// Settings of the store; credentials are among them.
    #[prost(btree_map = "string, string", tag = "3")]
    pub settings: BTreeMap<String, String>,
    /// The secrets of the put capability.
    #[prost(bytes = "vec", tag = "4")]
    pub put_bundle: Vec<u8>,
    /// Pack id and key of each pack to be read, as far as they are known beforehand: 64 bytes each.
    #[prost(bytes = "vec", tag = "5")]
    pub pack_keys: Vec<u8>,
}

impl fmt::Debug for RepositoryRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, url, packs) = (&self.id, &self.url, self.pack_keys.len() / 64);
        out.debug_struct("RepositoryRef")
            .field("id", id)
            .field("url", url)
            .field("packs", &packs)
            .finish_non_exhaustive()
    }
}

/// Reads a volume into a repository.
#[derive(Clone, PartialEq, Message)]
pub struct ReadRequest {
    /// As in [`HelloRequest`].
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The operator's name for it; one that is known is watched, and not begun again.
    #[prost(string, tag = "2")]
    pub task: String,
    /// Where to.
    #[prost(message, optional, tag = "3")]
    pub repository: Option<RepositoryRef>,
    /// What.
    #[prost(message, optional, tag = "4")]
    pub volume: Option<VolumeRef>,
    /// Where it was located.
    #[prost(string, tag = "5")]
    pub place: String,
    /// What for.
    #[prost(enumeration = "Purpose", tag = "6")]
    pub purpose: i32,
    /// The lock it stands in, for [`Purpose::Cut`].
    #[prost(string, tag = "7")]
    pub lock: String,
    /// The tree of the last time.
    #[prost(message, optional, tag = "8")]
    pub previous: Option<Root>,
    /// When reading that began, in seconds since 1970.
    #[prost(int64, tag = "9")]
    pub previous_started: i64,
    /// Labels of the piece.
    #[prost(btree_map = "string, string", tag = "10")]
    pub labels: BTreeMap<String, String>,
    /// Bytes a second to the store; 0 for as many as there are.
    #[prost(uint64, tag = "11")]
    pub up: u64,
}

/// What a volume is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum Purpose {
    /// Before the lock, so that less is left to be read in it.
    Ahead = 0,
    /// In the lock.
    Cut = 1,
    /// What stands still by itself: a snapshot, or a volume nobody writes to.
    Upload = 2,
}

/// Writes a volume from a repository.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// As in [`HelloRequest`].
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// As in [`ReadRequest`].
    #[prost(string, tag = "2")]
    pub task: String,
    /// Where from.
    #[prost(message, optional, tag = "3")]
    pub repository: Option<RepositoryRef>,
    /// What to.
    #[prost(message, optional, tag = "4")]
    pub volume: Option<VolumeRef>,
    /// Where it was located.
    #[prost(string, tag = "5")]
    pub place: String,
    /// What.
    #[prost(message, optional, tag = "6")]
    pub root: Option<Root>,
    /// The kind of stream that the root names, as the repository numbers them.
    #[prost(uint32, tag = "7")]
    pub kind: u32,
    /// What becomes of what is there.
    #[prost(enumeration = "Existing", tag = "8")]
    pub existing: i32,
    /// Bytes a second from the store; 0 for as many as there are.
    #[prost(uint64, tag = "9")]
    pub down: u64,
}

/// What becomes of what is on a volume already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum Existing {
    /// Nothing is written if there is anything.
    Refuse = 0,
    /// It stays unless the same name is restored.
    Merge = 1,
    /// It goes unless the same name is restored.
    Mirror = 2,
}

/// What names a stream of the repository.
#[derive(Clone, PartialEq, Message)]
pub struct Root {
    /// Of its top node.
    #[prost(uint32, tag = "1")]
    pub level: u32,
    /// Bytes of the stream.
    #[prost(uint64, tag = "2")]
    pub length: u64,
    /// Of its top node, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub id: Vec<u8>,
}

/// Names a task.
#[derive(Clone, PartialEq, Message)]
pub struct TaskRef {
    /// As in [`HelloRequest`].
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// As in [`ReadRequest`].
    #[prost(string, tag = "2")]
    pub task: String,
}

/// Something a task has to tell. [`Event::Done`] or [`Event::Failed`] is its last.
#[derive(Clone, PartialEq, Message)]
pub struct TaskEvent {
    /// What.
    #[prost(oneof = "Event", tags = "1, 2, 3, 4, 5")]
    pub event: Option<Event>,
}

/// What a task tells.
#[derive(Clone, PartialEq, Oneof)]
pub enum Event {
    /// How far it is.
    #[prost(message, tag = "1")]
    Progress(Progress),
    /// It met something and went on.
    #[prost(message, tag = "2")]
    Finding(Finding),
    /// The first byte was written: what is there is ours from now on.
    #[prost(message, tag = "3")]
    Touched(Touched),
    /// It ended well.
    #[prost(message, tag = "4")]
    Done(Done),
    /// It did not.
    #[prost(message, tag = "5")]
    Failed(Failed),
}

/// How far a task is.
#[derive(Clone, PartialEq, Message)]
pub struct Progress {
    /// Files read or written.
    #[prost(uint64, tag = "1")]
    pub files: u64,
    /// Bytes read or written.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    /// Bytes that were new to the store.
    #[prost(uint64, tag = "3")]
    pub stored: u64,
    /// Files of all, as far as that is known.
    #[prost(uint64, tag = "4")]
    pub files_total: u64,
    /// Bytes of all, as far as that is known.
    #[prost(uint64, tag = "5")]
    pub bytes_total: u64,
}

/// Something a task met and went on from.
#[derive(Clone, PartialEq, Message)]
pub struct Finding {
    /// `info`, `warning`, `error`.
    #[prost(string, tag = "1")]
    pub severity: String,
    /// For programs.
    #[prost(string, tag = "2")]
    pub code: String,
    /// What it concerns.
    #[prost(string, tag = "3")]
    pub what: String,
    /// For people.
    #[prost(string, tag = "4")]
    pub message: String,
}

/// The first byte was written.
#[derive(Clone, PartialEq, Message)]
pub struct Touched {}

/// A task ended well.
#[derive(Clone, PartialEq, Message)]
pub struct Done {
    /// Of what was read.
    #[prost(message, optional, tag = "1")]
    pub root: Option<Root>,
    /// The kind of stream that the root names.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// The commit that keeps it until the application's own is there.
    #[prost(string, tag = "3")]
    pub piece: String,
    /// When reading began, in seconds since 1970.
    #[prost(int64, tag = "4")]
    pub started: i64,
    /// Counts, by name.
    #[prost(btree_map = "string, uint64", tag = "5")]
    pub figures: BTreeMap<String, u64>,
    /// How it was read.
    #[prost(string, tag = "6")]
    pub means: String,
}

/// A task did not end well.
#[derive(Clone, PartialEq, Message)]
pub struct Failed {
    /// What the operator acts on.
    #[prost(enumeration = "Why", tag = "1")]
    pub why: i32,
    /// What a person reads.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Whether trying again may help.
    #[prost(bool, tag = "3")]
    pub again: bool,
}

/// Why a task failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum Why {
    /// The store or the volume cannot be reached.
    Unreachable = 0,
    /// The volume has something on it, or somebody uses it.
    NotEmpty = 1,
    /// The repository refused, or is damaged.
    Repository = 2,
    /// It was told to stop, or nobody asked for it any more.
    Stopped = 3,
    /// The lock ended before the reading did.
    LockLost = 4,
    /// No room for it now.
    Busy = 5,
}

/// Pack keys for a task.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct Keys {
    /// Which; in the first message.
    #[prost(message, optional, tag = "1")]
    pub task: Option<TaskRef>,
    /// Pack id and key, 64 bytes each.
    #[prost(bytes = "vec", tag = "2")]
    pub pack_keys: Vec<u8>,
    /// No more will come: what lacks a key now will never have it.
    #[prost(bool, tag = "3")]
    pub last: bool,
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (task, packs) = (&self.task, self.pack_keys.len() / 64);
        out.debug_struct("Keys").field("task", task).field("packs", &packs).field("last", &self.last).finish()
    }
}

/// Whether anybody wanted the keys.
#[derive(Clone, PartialEq, Message)]
pub struct GiveReply {
    /// Whether there is such a task.
    #[prost(bool, tag = "1")]
    pub known: bool,
}

/// Asks what an agent holds.
#[derive(Clone, PartialEq, Message)]
pub struct TasksRequest {
    /// As in [`HelloRequest`].
    #[prost(uint64, tag = "1")]
    pub term: u64,
}

/// What an agent holds.
#[derive(Clone, PartialEq, Message)]
pub struct TasksReply {
    /// Those that run, and those that ended within the hour.
    #[prost(message, repeated, tag = "1")]
    pub tasks: Vec<TaskState>,
    /// Those that are not over.
    #[prost(message, repeated, tag = "2")]
    pub locks: Vec<LockState>,
}

/// A task and how it stands.
#[derive(Clone, PartialEq, Message)]
pub struct TaskState {
    /// As in [`ReadRequest`].
    #[prost(string, tag = "1")]
    pub task: String,
    /// `waiting`, `running`, `done`, `failed`.
    #[prost(string, tag = "2")]
    pub state: String,
    /// The last it told.
    #[prost(message, optional, tag = "3")]
    pub last: Option<TaskEvent>,
}

/// A lock and how it stands.
#[derive(Clone, PartialEq, Message)]
pub struct LockState {
    /// As in [`Prepare`].
    #[prost(string, tag = "1")]
    pub lock: String,
    /// As in [`LockReply`].
    #[prost(string, tag = "2")]
    pub state: String,
    /// Since it froze.
    #[prost(uint64, tag = "3")]
    pub held_ms: u64,
}

/// Whether there was anything to stop.
#[derive(Clone, PartialEq, Message)]
pub struct StopReply {
    /// Whether there is such a task.
    #[prost(bool, tag = "1")]
    pub known: bool,
}

/// The next step of a lock. The end of the stream thaws.
#[derive(Clone, PartialEq, Message)]
pub struct LockRequest {
    /// As in [`HelloRequest`].
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Which.
    #[prost(oneof = "Step", tags = "2, 3, 4, 5")]
    pub step: Option<Step>,
}

/// The steps of a lock, in their order.
#[derive(Clone, PartialEq, Oneof)]
pub enum Step {
    /// Flush, open, start the watchdog.
    #[prost(message, tag = "2")]
    Prepare(Prepare),
    /// Now.
    #[prost(message, tag = "3")]
    Freeze(Freeze),
    /// Are they frozen still?
    #[prost(message, tag = "4")]
    Verify(Verify),
    /// Let go.
    #[prost(message, tag = "5")]
    Thaw(Thaw),
}

/// The first step.
#[derive(Clone, PartialEq, Message)]
pub struct Prepare {
    /// The operator's name for it.
    #[prost(string, tag = "1")]
    pub lock: String,
    /// The longest it may last, from before the first member is frozen.
    #[prost(uint32, tag = "2")]
    pub hold_ms: u32,
    /// What is frozen together.
    #[prost(message, repeated, tag = "3")]
    pub members: Vec<Member>,
}

/// A member of a lock.
#[derive(Clone, PartialEq, Message)]
pub struct Member {
    /// Which volume.
    #[prost(message, optional, tag = "1")]
    pub volume: Option<VolumeRef>,
    /// Where it was located.
    #[prost(string, tag = "2")]
    pub place: String,
    /// What is frozen of it.
    #[prost(enumeration = "How", tag = "3")]
    pub how: i32,
}

/// What is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum How {
    /// The file system.
    Filesystem = 0,
    /// The processes of its pods.
    Processes = 1,
}

/// The second step.
#[derive(Clone, PartialEq, Message)]
pub struct Freeze {}

/// The third step.
#[derive(Clone, PartialEq, Message)]
pub struct Verify {}

/// The last step.
#[derive(Clone, PartialEq, Message)]
pub struct Thaw {}

/// How a lock stands after a step.
#[derive(Clone, PartialEq, Message)]
pub struct LockReply {
    /// `prepared`, `frozen`, `kept`, `thawed`, `refused`, `lost`.
    #[prost(string, tag = "1")]
    pub state: String,
    /// In the order of [`Prepare`].
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<MemberState>,
    /// Since before the first member was frozen.
    #[prost(uint64, tag = "3")]
    pub held_us: u64,
    /// What a person reads.
    #[prost(string, tag = "4")]
    pub message: String,
}

/// How a member stands.
#[derive(Clone, PartialEq, Message)]
pub struct MemberState {
    /// The claim's name.
    #[prost(string, tag = "1")]
    pub claim: String,
    /// As it should be.
    #[prost(bool, tag = "2")]
    pub ok: bool,
    /// Why not, in words.
    #[prost(string, tag = "3")]
    pub message: String,
}

/// Asks for a certificate.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct CertificateRequest {
    /// Of the agent's account, for the audience `holdfast-enrol`, bound to its pod.
    #[prost(string, tag = "1")]
    pub token: String,
    /// What is to be signed: a P-256 key as SubjectPublicKeyInfo in DER.
    #[prost(bytes = "vec", tag = "2")]
    pub public_key: Vec<u8>,
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("CertificateRequest").finish_non_exhaustive()
    }
}

/// A certificate.
#[derive(Clone, PartialEq, Message)]
pub struct CertificateReply {
    /// The agent's first, then what leads to a root.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub chain_der: Vec<Vec<u8>>,
    /// Whom to trust from now on.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub roots_der: Vec<Vec<u8>>,
    /// The end of the certificate, in seconds since 1970.
    #[prost(int64, tag = "3")]
    pub not_after: i64,
}
