//! What every command works with: the global options, the clock, the output, and the way to the repository
//! and the cluster.
//!
//! The demo hands in its own cluster, hands and volumes ([`Given`]) and then calls the same commands.

use crate::error::{Failure, Result, io};
use crate::interrupt::Interrupt;
use crate::output::{Format, Output};
use crate::{passphrase, progress};
use repo::Repository;
use repo::env::Env;
use repo::id::HEADER;
use repo::store::retry::RetryPolicy;
use repo::store::{self, Store, StoreError, StoreOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a store may take to say anything at all.
const FIRST_WORD: Duration = Duration::from_secs(8);

/// Options every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Global {
    /// The repository: a directory or s3://BUCKET/PREFIX
    #[arg(long, global = true, env = "HOLDFAST_REPO", value_name = "URL", help_heading = "Global options")]
    pub repo: Option<String>,
    /// The file that holds the repository's passphrase; without it the passphrase is asked for
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub password_file: Option<PathBuf>,
    /// The kubeconfig file (default: $KUBECONFIG, ~/.kube/config, or the pod's service account)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig file
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub context: Option<String>,
    /// The form of the output
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub output: Format,
    /// Print only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// Say more on standard error; twice: even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// No progress on standard error
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_progress: bool,
}

/// What is handed in instead of being looked up. Empty for a run from the command line.
#[derive(Clone, Default)]
pub struct Given {
    /// Instead of the kubeconfig.
    pub client: Option<kube::Client>,
    /// Instead of exec over the API server.
    pub hands: Option<Arc<dyn app::rules::Hands>>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Given")
    }
}

/// What a command works with.
#[derive(Debug)]
pub struct Context {
    /// The options.
    pub global: Global,
    /// Clock and dice.
    pub env: Env,
    /// Where results go.
    pub out: Output,
    /// Ctrl-C.
    pub interrupt: Interrupt,
    /// What the demo hands in.
    pub given: Given,
}

impl Context {
    /// For a run from the command line.
    pub fn new(global: Global) -> Context {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let out = Output::new(global.output, global.quiet, no_colour);
        Context { global, env: Env::real(), out, interrupt: Interrupt::default(), given: Given::default() }
    }

    /// Progress of what `title` names, in the way that suits this run.
    pub fn progress(&self, title: impl Into<String>) -> progress::Progress {
        progress::Progress::start(progress::Mode::choose(self.global.quiet || self.global.no_progress), title)
    }

    /// The store `--repo` names. Nothing is contacted yet.
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        let Some(url) = &self.global.repo else {
            return Err(Failure::usage("no repository is named")
                .next("name one with --repo or HOLDFAST_REPO: a directory or s3://BUCKET/PREFIX"));
        };
        tokio::task::block_in_place(|| {
            let options = self.store_options()?;
            if url.starts_with("s3://") {
                // Once a backup is under way it is worth waiting minutes for a store that went away. One that
                // does not answer the first question is more likely misspelt: told within seconds.
                let retry = RetryPolicy { deadline: FIRST_WORD, ..options.retry.clone() };
                let first = store::open(url, &StoreOptions { retry, ..options.clone() })?;
                if let Err(e @ StoreError::Unavailable { .. }) = first.size(HEADER) {
                    return Err(e.into());
                }
            }
            Ok(store::open(url, &options)?)
        })
    }

    /// The repository `--repo` names, opened.
    pub fn repository(&self) -> Result<Repository> {
        let store = self.store()?;
        let passphrase = passphrase::existing(self)?;
        tokio::task::block_in_place(|| Repository::open(store, &passphrase, &self.env)).map_err(Failure::from)
    }

    /// A client of the cluster.
    pub async fn client(&self) -> Result<kube::Client> {
        if let Some(client) = &self.given.client {
            return Ok(client.clone());
        }
        crate::cluster::connect(self.global.kubeconfig.as_deref(), self.global.context.as_deref()).await
    }

    /// Credentials and endpoint of S3 from the variables every S3 tool reads.
    fn store_options(&self) -> Result<StoreOptions> {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let mut options = StoreOptions { cancel: self.interrupt.cancel.clone(), ..StoreOptions::default() };
        let s3 = &mut options.s3;
        s3.endpoint = var("HOLDFAST_S3_ENDPOINT")
            .or_else(|| var("AWS_ENDPOINT_URL_S3"))
            .or_else(|| var("AWS_ENDPOINT_URL"));
        s3.region = var("AWS_REGION").or_else(|| var("AWS_DEFAULT_REGION"));
        s3.access_key_id = var("AWS_ACCESS_KEY_ID");
        s3.secret_access_key = var("AWS_SECRET_ACCESS_KEY");
        s3.session_token = var("AWS_SESSION_TOKEN");
        if let Some(file) = var("AWS_CA_BUNDLE") {
            let pem =
                std::fs::read(&file).map_err(|e| io(format!("cannot read AWS_CA_BUNDLE {file}"), &e))?;
            s3.extra_roots_pem = Some(pem);
        }
        Ok(options)
    }
}
