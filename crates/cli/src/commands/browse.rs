//! `holdfast browse`: a recovery point as a read-only Kubernetes API, for kubectl, k9s or a script.

use super::print_findings;
use crate::context::Context;
use crate::error::{Exit, Failure, Result, io};
use crate::output::{Output, note};
use crate::picking;
use app::point::Contents;
use repo::ReaderOptions;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::task::block_in_place;

/// Arguments of `browse`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recovery point: an id or its beginning, `latest`, or `latest:APP`
    pub point: String,
    /// Where to listen; there is no authentication, so this machine only
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Write the kubeconfig here [default: a new file below the temporary directory]
    #[arg(long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Run this command with KUBECONFIG set, and end with it: `holdfast browse latest -- kubectl get all -A`
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Runs it.
pub async fn run(ctx: &Context, args: Args) -> Result<Exit> {
    if !args.listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "--listen {}: whoever reaches this address can read every Secret of the point",
            args.listen
        ))
        .next("listen on 127.0.0.1 and forward the port over ssh"));
    }
    let repo = ctx.repository()?;
    let info = picking::one(&repo, picking::APPLICATION, &args.point)?;
    let (meta, outcome) = block_in_place(|| -> Result<_> {
        let reader = repo.reader(ReaderOptions::default())?;
        let contents = Contents::open(&reader, &info)?;
        Ok((contents.meta()?, app::browse::from_repository(&contents, &ctx.env)?))
    })?;
    print_findings(&Output::to_stderr(ctx.out.is_quiet()), &outcome.findings, ctx.global.verbose > 0);
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .map_err(|e| io(format!("cannot listen on {}", args.listen), &e))?;
    let serving = outcome.done.serve(listener).map_err(|e| io("cannot serve", &e))?;
    let kubeconfig = Kubeconfig::write(ctx, &args, &serving.kubeconfig())?;
    // A signal only ends the serving; the kubeconfig is removed on the way out.
    let _changing = ctx.interrupt.changing()?;
    if args.command.is_empty() {
        ctx.out.line(format!(
            "Point {} of {} is served at http://{}, read-only. In another terminal:",
            info.id.short(),
            meta.application,
            serving.addr()
        ));
        ctx.out.line(format!("  export KUBECONFIG={}", kubeconfig.path.display()));
        ctx.out.line("  kubectl get all --all-namespaces");
        ctx.out.line("Ctrl-C ends it.");
        ctx.interrupt.asked().await;
        return Ok(Exit::Done);
    }
    let mut child = tokio::process::Command::new(&args.command[0])
        .args(&args.command[1..])
        .env("KUBECONFIG", &kubeconfig.path)
        .spawn()
        .map_err(|e| io(format!("cannot run {}", args.command[0]), &e))?;
    let ended = child.wait().await.map_err(|e| io(format!("cannot wait for {}", args.command[0]), &e))?;
    match (ended.success(), ctx.interrupt.cancel.is_cancelled()) {
        (_, true) => Err(Failure::new(Exit::Interrupted, "interrupted; nothing was changed")),
        (true, _) => Ok(Exit::Done),
        (false, _) => Err(Failure::new(Exit::Failed, format!("{} ended with {ended}", args.command[0]))),
    }
}

/// The file; removed at the end unless the user named it.
struct Kubeconfig {
    path: PathBuf,
    named: bool,
}

impl Kubeconfig {
    fn write(ctx: &Context, args: &Args, text: &str) -> Result<Kubeconfig> {
        let (path, named) = match &args.write_kubeconfig {
            Some(path) => (path.clone(), true),
            None => {
                let mut dice = [0; 8];
                ctx.env.random(&mut dice)?;
                let name = format!("holdfast-browse-{:016x}.kubeconfig", u64::from_le_bytes(dice));
                (std::env::temp_dir().join(name), false)
            }
        };
        create(&path, text).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Failure::new(Exit::Refused, format!("{} exists", path.display()))
                    .next("name a new file with --write-kubeconfig")
            }
            _ => io(format!("cannot write {}", path.display()), &e),
        })?;
        Ok(Kubeconfig { path, named })
    }
}

/// A new file that only we can read; never one that is there, which may be somebody's real kubeconfig.
fn create(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        if !self.named
            && let Err(e) = std::fs::remove_file(&self.path)
        {
            note(format!("cannot remove {}: {e}", self.path.display()));
        }
    }
}
