//! `holdfast demo`: the whole story on an embedded cluster, with the real commands.
//!
//! The API server is `apiserver`, in this process; [`machine`] plays the controllers and the node; the database is
//! a real process ([`writer`]) that fsyncs real records to a real directory. Everything else is Holdfast as it is:
//! each step calls the function behind the command it shows, with the arguments it shows. Nothing here knows how
//! to discover, back up, plan or restore.
//!
//! The story ends with a proof and not with a claim: every record that was acknowledged before the cut is in the
//! restored volume, whole and in order, and the application beside it has not changed by a byte.

mod hands;
pub mod machine;
pub mod records;
pub mod writer;

use crate::commands::repository;
use crate::context::{Context, Given, Global};
use crate::error::{Exit, Failure, Result, io};
use crate::output::{Output, Tone, count, duration};
use crate::{commands, picking};
use app::point::{Contents, PointMeta};
use clap::Parser;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use machine::Machine;
use repo::ReaderOptions;
use repo::env::{Env, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SCENE: &str = include_str!("scene.yaml");
const RULE: &str = include_str!("rule.yaml");
const RULE_FILE: &str = "hold-the-ledger.yaml";
const STEPS: usize = 9;
/// The name of the cluster's only node.
const NODE: &str = "node-1";
/// The longest a step may wait for the demo's own cluster.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the demo's folder (repository, volumes) and say how to look around in it
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
pub async fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let begun = Instant::now();
    let dir = Folder::create(ctx, args.keep)?;
    // A signal is answered here, so that processes and folder are gone when we are.
    let _changing = ctx.interrupt.changing()?;
    let mut story = Story { out: &ctx.out, number: 0, took: Vec::new(), since: Instant::now() };
    let told = tokio::select! {
        told = tell(ctx, &dir.path, &mut story) => told,
        () = ctx.interrupt.asked() => Err(Failure::new(Exit::Interrupted, "interrupted; the demo's folder and processes are removed")),
    };
    let records = match told {
        Ok(records) => records,
        Err(failure) => {
            ctx.out.line(ctx.out.tone(Tone::Bad, "Holdfast demo: FAILED"));
            return Err(failure);
        }
    };
    story.end();
    ctx.out.line("");
    for (title, took) in &story.took {
        ctx.out.line(format!("{:>8}  {title}", duration(*took)));
    }
    if args.keep {
        ctx.out.line("");
        ctx.out.line(format!("The demo's folder is {}. Look around:", dir.path.display()));
        ctx.out.line(format!(
            "  export HOLDFAST_REPO={0}/repository HOLDFAST_PASSWORD_FILE={0}/password",
            dir.path.display()
        ));
        for line in [
            "points",
            "show latest",
            "browse latest      # kubectl against the recovery point",
            "repo check --read-data",
        ] {
            ctx.out.line(format!("  holdfast {line}"));
        }
        ctx.out.line(format!("  rm -r {}", dir.path.display()));
    }
    ctx.out.line("");
    ctx.out.line(ctx.out.tone(
        Tone::Good,
        format!(
            "Holdfast demo: {} acknowledged records, none lost, in {}: OK",
            count(records),
            duration(begun.elapsed())
        ),
    ));
    Ok(Exit::Done)
}

/// Tells the story; returns how many records were proven.
async fn tell(outer: &Context, dir: &Path, story: &mut Story<'_>) -> Result<u64> {
    story.step("A cluster: a three-tier shop, a blog beside it, a cache that both use");
    let (dice, volumes) = (outer.env.clone(), dir.join("volumes"));
    let server = server(dice, &volumes);
    let client = kube::Client::new(server.router(), "default");
    let machine = Machine::new(client.clone(), dir.to_owned(), outer.env.clone());
    let _stop = Stop(machine.clone());
    let mut running = machine.start();
    let ctx = context(outer, dir, &client, &machine);
    let told = async {
        apply(&client).await?;
        until(&machine, "both applications run", |m| {
            let (client, m) = (client.clone(), m.clone());
            async move {
                Ok(pods(&client, "shop").await? == 5
                    && pods(&client, "blog").await? == 1
                    && m.acks().last() >= 1)
            }
        })
        .await?;
        write_blog(&client, &machine).await?;
        let blog = beside(&server, &client, &machine).await?;
        story.say(format!("running: {} pods in shop, 1 in blog; API server in this process, no network", 5));

        story.step("The shop's database acknowledges records, each fsynced to its volume");
        until(&machine, "the database has acknowledged 300 records", |m| {
            let m = m.clone();
            async move { Ok(m.acks().last() >= 300) }
        })
        .await?;
        story.say(format!("{} records acknowledged; it goes on writing", count(machine.acks().last())));

        command(&ctx, dir, story, &["discover"]).await?;

        repository::init(&ctx, &repository::Init { no_recovery_key: true, ..repository::Init::default() })?;
        write(&dir.join(RULE_FILE), RULE)?;
        command(&ctx, dir, story, &["backup", "shop", "--rule", RULE_FILE, "--node-name", NODE]).await?;
        let cut = cut(&ctx)?;

        command(&ctx, dir, story, &["show", "latest"]).await?;

        // Let the database write past the cut, so that the proof has something to tell apart.
        let at_cut = machine.acks().before(cut);
        until(&machine, "the database goes on after the cut", |m| {
            let m = m.clone();
            async move { Ok(m.acks().last() > at_cut + 20) }
        })
        .await?;

        story.step("Disaster: the namespace, its custom resource definition and its data are destroyed");
        let data = data_of(&client, &machine, "shop", "data-db-0").await?;
        destroy(&client).await?;
        until(&machine, "nothing of the shop is left", |m| {
            let (client, data, _) = (client.clone(), data.clone(), m);
            async move {
                let gone = Api::<Namespace>::all(client).get_opt("shop").await.map_err(api)?.is_none();
                Ok(gone && !data.exists())
            }
        })
        .await?;
        story.say(format!(
            "namespace shop: gone. {}: gone. Last record acknowledged: {}",
            data.display(),
            machine.acks().last()
        ));

        command(&ctx, dir, story, &["restore", "latest", "--plan", "--node-name", NODE]).await?;

        command(&ctx, dir, story, &["restore", "latest", "--node-name", NODE]).await?;

        story.step("The proof");
        prove(story, &server, &client, &machine, at_cut, &blog).await
    };
    tokio::select! {
        told = told => told,
        stopped = &mut running => Err(stopped.unwrap_or_else(|e| Failure::new(Exit::Failed, format!("the demo's machine: {e}")))),
    }
}

/// Every record acknowledged before the cut is there, and nobody else was touched.
async fn prove(
    story: &Story<'_>,
    server: &apiserver::ApiServer,
    client: &kube::Client,
    machine: &Machine,
    at_cut: u64,
    blog: &Beside,
) -> Result<u64> {
    until(machine, "the shop runs again on its restored volume", |m| {
        let (client, m) = (client.clone(), m.clone());
        async move { Ok(pods(&client, "shop").await? == 5 && m.acks().starts.len() == 2) }
    })
    .await?;
    let found = machine.acks().starts.get(1).copied().unwrap_or(0);
    if found < at_cut {
        return Err(failed(format!(
            "{} of {at_cut} records acknowledged before the cut are missing",
            at_cut - found
        )));
    }
    story.say(format!("records acknowledged before the cut:  {}", count(at_cut)));
    story.say(format!("records in the restored volume:       {}", count(found)));
    until(machine, "the database goes on", |m| {
        let m = m.clone();
        async move { Ok(m.acks().given.len() > 300 && m.acks().last() >= found + 50) }
    })
    .await?;
    // Held, so that no record is half written, then read back: what was restored and what was written since.
    machine.hold()?;
    until(machine, "the database holds", |m| {
        let m = m.clone();
        async move { Ok(m.holds()) }
    })
    .await?;
    let data = data_of(client, machine, "shop", "data-db-0").await?;
    let held = records::verify(&data.join(records::FILE)).map_err(failed)?;
    story.say(format!(
        "read back, in order, checksums right: {} (the database went on at {})",
        count(held.records),
        count(found + 1)
    ));
    if held.records < found {
        return Err(failed("the restored records did not stay"));
    }
    let now = beside(server, client, machine).await?;
    if let Some(what) = blog.difference(&now) {
        return Err(failed(format!("the blog beside it was touched: {what}")));
    }
    story.say(format!(
        "the blog beside it:                   {} objects and {} files, not a byte changed",
        blog.objects.len(),
        blog.files.len()
    ));
    Ok(at_cut)
}

/// Whatever can be compared of the application that must not be touched.
struct Beside {
    objects: BTreeMap<String, String>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Beside {
    fn difference(&self, other: &Beside) -> Option<String> {
        let objects = first_difference(&self.objects, &other.objects);
        objects.or_else(|| first_difference(&self.files, &other.files))
    }
}

fn first_difference<T: PartialEq>(a: &BTreeMap<String, T>, b: &BTreeMap<String, T>) -> Option<String> {
    a.keys().chain(b.keys()).find(|k| a.get(*k) != b.get(*k)).cloned()
}

async fn beside(server: &apiserver::ApiServer, client: &kube::Client, machine: &Machine) -> Result<Beside> {
    let text = |v: &Value, at: &str| v.pointer(at).and_then(Value::as_str).unwrap_or("").to_owned();
    let objects = server
        .dump()
        .into_iter()
        .filter(|o| {
            text(o, "/metadata/namespace") == "blog"
                || text(o, "/metadata/name") == "blog"
                || text(o, "/spec/claimRef/namespace") == "blog"
        })
        .map(|o| (format!("{} {}", text(&o, "/kind"), text(&o, "/metadata/name")), o.to_string()))
        .collect();
    let dir = data_of(client, machine, "blog", "posts").await?;
    let mut files = BTreeMap::new();
    for entry in
        std::fs::read_dir(&dir).map_err(|e| io(format!("cannot list {}", dir.display()), &e))?.flatten()
    {
        let bytes = std::fs::read(entry.path())
            .map_err(|e| io(format!("cannot read {}", entry.path().display()), &e))?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), bytes);
    }
    Ok(Beside { objects, files })
}

async fn write_blog(client: &kube::Client, machine: &Machine) -> Result<()> {
    let dir = data_of(client, machine, "blog", "posts").await?;
    for n in 1..=20 {
        write(&dir.join(format!("post-{n:02}.md")), &format!("# Post {n}\n\n{}\n", records::payload(n)))?;
    }
    Ok(())
}

fn server(env: Env, volumes: &Path) -> apiserver::ApiServer {
    let (clock, dice) = (env.clone(), env);
    let options = apiserver::Options::new(
        Arc::new(move || clock.now()),
        Arc::new(move || {
            let mut bytes = [0; 8];
            // Without randomness uids would repeat; zero is then refused by the server's own checks.
            let _ = dice.random(&mut bytes);
            u64::from_le_bytes(bytes)
        }),
    );
    apiserver::ApiServer::new(options.simulate(volumes))
}

fn context(outer: &Context, dir: &Path, client: &kube::Client, machine: &Machine) -> Context {
    Context {
        global: Global {
            repo: Some(dir.join("repository").display().to_string()),
            password_file: Some(dir.join("password")),
            key_file: None,
            kms: None,
            recovery_key_file: None,
            // Its repository lives as long as the demo.
            no_cache: true,
            // The demo tells its own story; bars would write over it.
            no_progress: true,
            ..outer.global.clone()
        },
        env: outer.env.clone(),
        out: outer.out.clone(),
        interrupt: outer.interrupt.clone(),
        given: Given {
            client: Some(client.clone()),
            hands: Some(Arc::new(hands::LocalHands::new(client.clone(), machine.clone()))),
        },
    }
}

async fn apply(client: &kube::Client) -> Result<()> {
    for text in SCENE.split("\n---\n") {
        let value: Value =
            serde_saphyr::from_str(text).map_err(|e| failed(format!("the scene is malformed: {e}")))?;
        let object: DynamicObject =
            serde_json::from_value(value).map_err(|e| failed(format!("the scene is malformed: {e}")))?;
        let types = object.types.clone().unwrap_or_default();
        let gvk =
            GroupVersionKind::try_from(&types).map_err(|e| failed(format!("the scene is malformed: {e}")))?;
        let (kind, _) = kube::discovery::pinned_kind(client, &gvk).await.map_err(api)?;
        let name = object.metadata.name.clone().unwrap_or_default();
        let objects: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
            None => Api::all_with(client.clone(), &kind),
        };
        objects.patch(&name, &PatchParams::apply("kubectl"), &Patch::Apply(&object)).await.map_err(api)?;
    }
    Ok(())
}

async fn destroy(client: &kube::Client) -> Result<()> {
    let now = DeleteParams::default();
    Api::<Namespace>::all(client.clone()).delete("shop", &now).await.map_err(api)?;
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    definitions.delete("promotions.shop.example.com", &now).await.map_err(api)?;
    Ok(())
}

/// How many pods of a namespace run.
async fn pods(client: &kube::Client, namespace: &str) -> Result<usize> {
    let pods =
        Api::<Pod>::namespaced(client.clone(), namespace).list(&Default::default()).await.map_err(api)?;
    let runs = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    Ok(pods.items.iter().filter(|p| runs(p)).count())
}

/// The directory of a claim's volume.
async fn data_of(client: &kube::Client, machine: &Machine, namespace: &str, claim: &str) -> Result<PathBuf> {
    let claim =
        Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace).get(claim).await.map_err(api)?;
    let volume =
        claim.spec.and_then(|s| s.volume_name).ok_or_else(|| failed("a claim of the demo is not bound"))?;
    Ok(machine.volumes_dir().join(volume))
}

async fn until<F, T>(machine: &Machine, what: &str, mut test: F) -> Result<()>
where
    F: FnMut(&Machine) -> T,
    T: Future<Output = Result<bool>>,
{
    let begun = Instant::now();
    while !test(machine).await? {
        if begun.elapsed() > PATIENCE {
            return Err(failed(format!(
                "waited {} for this and it did not happen: {what}",
                duration(PATIENCE)
            )));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Runs a command as the command line does: the same parser, the same function.
async fn command(ctx: &Context, dir: &Path, story: &mut Story<'_>, words: &[&str]) -> Result<()> {
    let shown = words.join(" ");
    story.step(&format!("$ holdfast {shown}"));
    // The file is shown by its name; it lies in the demo's folder.
    let in_folder = |word: &&str| {
        if *word == RULE_FILE { dir.join(word).display().to_string() } else { (*word).to_owned() }
    };
    let words = std::iter::once("holdfast".to_owned()).chain(words.iter().map(in_folder));
    let cli = crate::Cli::try_parse_from(words).map_err(|e| failed(e.to_string()))?;
    // Boxed, because the demo is itself one of the commands.
    match Box::pin(commands::run(ctx, cli.command)).await? {
        Exit::Done => Ok(()),
        other => {
            Err(failed(format!("`holdfast {shown}` ended as {:?} (exit code {})", other.word(), other as u8)))
        }
    }
}

/// The instant of the newest point's cut.
fn cut(ctx: &Context) -> Result<Timestamp> {
    let repo = ctx.repository()?;
    let info = picking::one(&repo, picking::APPLICATION, "latest")?;
    let meta = tokio::task::block_in_place(|| -> Result<PointMeta> {
        let reader = repo.reader(ReaderOptions::default())?;
        Ok(Contents::open(&reader, &info)?.meta()?)
    })?;
    i64::try_from(meta.cut.as_nanosecond()).map_err(|_| failed("the cut is at an impossible time"))
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, message)
}

fn api(error: kube::Error) -> Failure {
    failed(format!("the demo's API server: {error}"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| io(format!("cannot write {}", path.display()), &e))
}

/// The steps as they are told, and how long each took.
struct Story<'a> {
    out: &'a Output,
    number: usize,
    took: Vec<(String, Duration)>,
    since: Instant,
}

impl Story<'_> {
    fn step(&mut self, title: &str) {
        self.end();
        self.number += 1;
        self.out.line("");
        self.out.line(self.out.tone(Tone::Strong, format!("{}/{STEPS}  {title}", self.number)));
        self.took.push((title.to_owned(), Duration::ZERO));
        self.since = Instant::now();
    }

    fn say(&self, text: impl AsRef<str>) {
        self.out.line(text);
    }

    fn end(&mut self) {
        if let Some(last) = self.took.last_mut()
            && last.1.is_zero()
        {
            last.1 = self.since.elapsed();
        }
    }
}

/// Ends the machine's processes when the story ends, however it ends.
struct Stop(Machine);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The demo's folder; gone at the end unless it is to be kept.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn create(ctx: &Context, keep: bool) -> Result<Folder> {
        let mut dice = [0; 24];
        ctx.env.random(&mut dice)?;
        let hex: String = dice.iter().map(|b| format!("{b:02x}")).collect();
        let path = std::env::temp_dir().join(format!("holdfast-demo-{}", &hex[..8]));
        let failed = |e: std::io::Error| io(format!("cannot create {}", path.display()), &e);
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        let folder = Folder { path, keep };
        write(&folder.path.join("password"), &format!("{}\n", &hex[8..]))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep
            && let Err(e) = std::fs::remove_dir_all(&self.path)
        {
            crate::output::note(format!("cannot remove {}: {e}", self.path.display()));
        }
    }
}
