//! A service of four kinds of call over a Unix socket, and wires that can be cut.

#![allow(dead_code)] // Each test file uses a part of it.

use rpc::{Answers, Client, Code, Context, KeepAlive, Listener, Options, Receiving, Server, Status};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// The one message of the service, both ways.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Note {
    #[prost(string, tag = "1")]
    pub text: String,
    #[prost(uint64, tag = "2")]
    pub count: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub bytes: Vec<u8>,
}

pub fn note(text: &str) -> Note {
    Note { text: text.into(), ..Note::default() }
}

pub const ECHO: &str = "/test.v1.Notes/Echo";
pub const COUNT: &str = "/test.v1.Notes/Count";
pub const SUM: &str = "/test.v1.Notes/Sum";
pub const CHAT: &str = "/test.v1.Notes/Chat";
pub const HANG: &str = "/test.v1.Notes/Hang";
pub const SLEEPY: &str = "/test.v1.Notes/Sleepy";

/// What a test sees of the handlers.
pub struct Seen {
    /// Messages that `Count` got rid of, and that `Sleepy` took.
    pub passed: AtomicU64,
    /// Told when a handler of `Hang` was reached, and when it was dropped.
    pub hanging: mpsc::UnboundedSender<&'static str>,
    /// `Sleepy` reads while this is true.
    pub awake: watch::Sender<bool>,
}

/// Tells that a handler was dropped.
struct Gone(mpsc::UnboundedSender<&'static str>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

/// A note `CODE: message` is a wish to be refused so.
fn wish(note: &Note) -> Result<(), Status> {
    match note.text.split_once(": ") {
        Some(("not found", message)) => Err(Status::new(Code::NotFound, message)),
        Some(("denied", message)) => Err(Status::new(Code::PermissionDenied, message)),
        _ => Ok(()),
    }
}

pub fn service(options: Options, seen: Arc<Seen>) -> Server {
    let (counting, hanging, sleepy) = (Arc::clone(&seen), Arc::clone(&seen), seen);
    Server::new(options, |_, path| match path.strip_prefix("/secret.") {
        Some(_) => Err(Status::new(Code::PermissionDenied, "not for you")),
        None => Ok(()),
    })
    .unary(ECHO, |context: Context, mut note: Note| async move {
        wish(&note)?;
        if note.text == "deadline?" {
            let left = context.deadline.map(|at| at.duration_since(tokio::time::Instant::now()).as_millis());
            note.count = left.map_or(0, |left| left as u64);
        }
        Ok(note)
    })
    .streams(COUNT, move |_, mut requests: Receiving<Note>, answers: Answers<Note>| {
        let seen = Arc::clone(&counting);
        async move {
            let wanted = requests.one().await?;
            for count in 0..wanted.count {
                answers.send(&Note { count, bytes: wanted.bytes.clone(), ..Note::default() }).await?;
                seen.passed.fetch_add(1, Ordering::SeqCst);
            }
            wish(&wanted)
        }
    })
    .streams(SUM, |_, mut requests: Receiving<Note>, answers: Answers<Note>| async move {
        let mut sum = Note::default();
        while let Some(note) = requests.next().await? {
            wish(&note)?;
            sum.count += note.count;
            sum.text.push_str(&note.text);
        }
        answers.send(&sum).await
    })
    .streams(CHAT, |_, mut requests: Receiving<Note>, answers: Answers<Note>| async move {
        while let Some(note) = requests.next().await? {
            wish(&note)?;
            answers.send(&note).await?;
        }
        Ok(())
    })
    .streams(HANG, move |context: Context, mut requests: Receiving<Note>, _answers: Answers<Note>| {
        let told = hanging.hanging.clone();
        async move {
            let first = requests.next().await?;
            let _gone = Gone(told.clone());
            // How many milliseconds the client may be silent.
            let _watched =
                first.filter(|first| first.count > 0).map(|first| context.watch(quick(first.count)));
            let _ = told.send("reached");
            std::future::pending().await
        }
    })
    .streams(SLEEPY, move |_, mut requests: Receiving<Note>, answers: Answers<Note>| {
        let seen = Arc::clone(&sleepy);
        async move {
            let mut awake = seen.awake.subscribe();
            let mut sum = Note::default();
            loop {
                let _ = awake.wait_for(|awake| *awake).await;
                let Some(note) = requests.next().await? else { break };
                sum.count += note.count;
                seen.passed.fetch_add(1, Ordering::SeqCst);
            }
            answers.send(&sum).await
        }
    })
}

/// Gone after so many milliseconds.
pub fn quick(millis: u64) -> KeepAlive {
    KeepAlive { every: Duration::from_millis(millis / 3), gone_after: Duration::from_millis(millis) }
}

/// A running service.
pub struct Served {
    pub dir: tempfile::TempDir,
    pub seen: Arc<Seen>,
    pub hanging: mpsc::UnboundedReceiver<&'static str>,
    pub stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<()>,
}

impl Served {
    pub fn start(options: Options, grace: Duration) -> Served {
        let dir = tempfile::tempdir().unwrap();
        let (told, hanging) = mpsc::unbounded_channel();
        let seen =
            Arc::new(Seen { passed: AtomicU64::new(0), hanging: told, awake: watch::Sender::new(false) });
        let listener = Listener::Unix(UnixListener::bind(dir.path().join("socket")).unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Arc::new(service(options, Arc::clone(&seen)));
        let stopped = async {
            // A test that forgets to stop it wants it for ever.
            if stopped.await.is_err() {
                std::future::pending().await
            }
        };
        let task = tokio::spawn(server.serve(listener, stopped, grace));
        Served { dir, seen, hanging, stop: Some(stop), task }
    }

    pub fn usual() -> Served {
        Served::start(Options::default(), Duration::from_secs(5))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub async fn client(&self) -> Client {
        Client::unix(&self.socket(), Options::default()).await.unwrap()
    }

    pub fn passed(&self) -> u64 {
        self.seen.passed.load(Ordering::SeqCst)
    }

    /// What the handler of `Hang` tells next.
    pub async fn told(&mut self) -> &'static str {
        soon(self.hanging.recv()).await.unwrap()
    }
}

/// What must come about soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it did not come about")
}

/// A socket in front of another, through which everything goes until it is cut: then both sides stay open and silent.
pub struct Wire {
    pub socket: PathBuf,
    cut: watch::Sender<bool>,
}

impl Wire {
    pub fn to(behind: &Path) -> Wire {
        let socket = behind.with_extension("wire");
        let listener = UnixListener::bind(&socket).unwrap();
        let (cut, is_cut) = watch::channel(false);
        let behind = behind.to_owned();
        tokio::spawn(async move {
            loop {
                let (mut front, _) = listener.accept().await.unwrap();
                let (behind, mut is_cut) = (behind.clone(), is_cut.clone());
                tokio::spawn(async move {
                    let mut back = UnixStream::connect(behind).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut front, &mut back) => {}
                        () = async { drop(is_cut.wait_for(|cut| *cut).await) } => {}
                    }
                    if *is_cut.borrow() {
                        // Both are held, and nothing goes through.
                        let _held = (front, back);
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Wire { socket, cut }
    }

    pub fn cut(&self) {
        self.cut.send_replace(true);
    }
}
