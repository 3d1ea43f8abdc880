//! What every command works with: the global options, the clock, the output, and the way to the repository
//! and the cluster.
//!
//! The demo hands in its own cluster, hands and volumes ([`Given`]) and then calls the same commands.

use crate::error::{Failure, Result, io};
use crate::interrupt::Interrupt;
use crate::output::{Format, Output, note};
use crate::progress;
use crate::unlock::{self, Secret};
use repo::env::Env;
use repo::id::HEADER;
use repo::store::retry::RetryPolicy;
use repo::store::{self, Store, StoreError, StoreOptions};
use repo::{LocalOptions, Repository};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What `--memory` may be.
const MEMORY_MIB: std::ops::RangeInclusive<i64> = 128..=1_048_576;

/// How long a store may take to say anything at all.
const FIRST_WORD: Duration = Duration::from_secs(8);

/// Options every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Global {
    /// The repository: a directory, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    #[arg(long, global = true, env = "HOLDFAST_REPO", value_name = "URL", help_heading = "Global options")]
    pub repo: Option<String>,
    // Variables are read by hand, not by the parser: an option wins over them all, and an empty variable counts as not set.
    /// The file that holds the repository's passphrase; without it (or HOLDFAST_PASSWORD_FILE, or one of the next three)
    /// the passphrase is asked for
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub password_file: Option<PathBuf>,
    /// A key file that opens the repository (HOLDFAST_KEY_FILE)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub key_file: Option<PathBuf>,
    /// The socket of a Kubernetes KMS v2 plugin that opens the repository (HOLDFAST_KMS)
    #[arg(long, global = true, value_name = "unix://SOCKET", help_heading = "Global options")]
    pub kms: Option<String>,
    /// A file that holds the repository's recovery key (HOLDFAST_RECOVERY_KEY_FILE)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub recovery_key_file: Option<PathBuf>,
    /// Where to keep what need not be fetched again: the index, the list of points (default: holdfast in
    /// $XDG_CACHE_HOME or ~/.cache). May be deleted at any time (HOLDFAST_CACHE_DIR)
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub cache_dir: Option<PathBuf>,
    /// Keep nothing between runs, whatever --cache-dir says
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_cache: bool,
    /// How much memory to use, whatever the size of the repository or the tree (HOLDFAST_MEMORY)
    #[arg(
        long,
        global = true,
        value_name = "MIB",
        value_parser = clap::value_parser!(u32).range(MEMORY_MIB),
        help_heading = "Global options"
    )]
    pub memory: Option<u32>,
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

impl Global {
    /// Takes from the environment what no option said. An empty variable counts as not set.
    pub fn complete(mut self) -> Result<Global> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        self.cache_dir = self.cache_dir.or_else(|| set("HOLDFAST_CACHE_DIR").map(PathBuf::from));
        if let (None, Some(text)) = (self.memory, set("HOLDFAST_MEMORY")) {
            let mib = text.to_str().and_then(|text| text.parse::<u32>().ok());
            let mib = mib.filter(|mib| MEMORY_MIB.contains(&i64::from(*mib)));
            let wrong = || {
                Failure::usage(format!("HOLDFAST_MEMORY={} is no amount of memory", text.to_string_lossy()))
                    .next("give a number of MiB from 128 to 1048576, or unset it")
            };
            self.memory = Some(mib.ok_or_else(wrong)?);
        }
        Ok(self)
    }
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
        let Some(url) = self.global.repo.as_ref().filter(|url| !url.is_empty()) else {
            return Err(Failure::usage("no repository is named")
                .next("name one with --repo or HOLDFAST_REPO: a directory or s3://BUCKET/PREFIX"));
        };
        self.store_at(url, "")
    }

    /// The store a URL names; variables are first looked for with `prefix` before their names.
    pub fn store_at(&self, url: &str, prefix: &str) -> Result<Arc<dyn Store>> {
        tokio::task::block_in_place(|| {
            let options = self.store_options(prefix)?;
            if ["s3://", "gs://", "az://"].iter().any(|scheme| url.starts_with(scheme)) {
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
        Ok(self.unlocked()?.0)
    }

    /// The same, with what opened it.
    pub fn unlocked(&self) -> Result<(Repository, Secret)> {
        let store = self.store()?;
        let secret = unlock::existing(self)?;
        let repo = tokio::task::block_in_place(|| Repository::open(store, secret.unlock(), &self.env))?;
        if let Some(told) = repo.key_note()
            && !self.global.quiet
        {
            note(format!("warning: {told}"));
        }
        Ok((repo.with_local(&self.local()), secret))
    }

    /// What this machine lends a repository: the options, and the places the environment names.
    pub fn local(&self) -> LocalOptions {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")));
        let cache = match (&self.global.cache_dir, self.global.no_cache) {
            (_, true) => None,
            (Some(dir), false) if !dir.as_os_str().is_empty() => Some(dir.clone()),
            (_, false) => home().filter(|dir| dir.is_absolute()).map(|dir| dir.join("holdfast")),
        };
        // /tmp is memory on many machines, which is what a temporary file is to save.
        let temporary = var("TMPDIR").or_else(|| Some(PathBuf::from("/var/tmp")).filter(|dir| dir.is_dir()));
        LocalOptions {
            cache,
            temporary: temporary.or_else(|| Some(std::env::temp_dir())),
            memory_bytes: self.global.memory.map_or(repo::MEMORY_BYTES, |mib| mib as usize * (1 << 20)),
        }
    }

    /// Another repository than `--repo` names, opened. `option` is what names the file with its passphrase.
    pub fn other_repository(
        &self,
        url: &str,
        password_file: Option<&Path>,
        option: &str,
        prefix: &str,
    ) -> Result<Repository> {
        let store = self.store_at(url, prefix)?;
        let secret = unlock::other(self, password_file, option, url, prefix)?;
        let opened = tokio::task::block_in_place(|| Repository::open(store, secret.unlock(), &self.env))?;
        Ok(opened.with_local(&self.local()))
    }

    /// A client of the cluster.
    pub async fn client(&self) -> Result<kube::Client> {
        if let Some(client) = &self.given.client {
            return Ok(client.clone());
        }
        crate::cluster::connect(self.global.kubeconfig.as_deref(), self.global.context.as_deref()).await
    }

    /// A client of another cluster of the same kubeconfig.
    pub async fn client_of(&self, context: &str) -> Result<kube::Client> {
        crate::cluster::connect(self.global.kubeconfig.as_deref(), Some(context)).await
    }

    /// Accounts and endpoints, from the environment.
    fn store_options(&self, prefix: &str) -> Result<StoreOptions> {
        let options = store::settings(prefix, &|name| std::env::var(name).ok(), &|file| std::fs::read(file))
            .map_err(|e| io(format!("cannot read {} {}", e.variable, e.file), &e.source))?;
        Ok(StoreOptions { cancel: self.interrupt.cancel.clone(), ..options })
    }
}
