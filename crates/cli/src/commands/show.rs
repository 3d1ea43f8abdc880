//! `holdfast show`: one recovery point: what it is, what it holds, and its certificate.

use crate::context::Context;
use crate::error::{Exit, Result};
use crate::output::{Tone, bytes, count, counted, duration};
use crate::picking;
use app::certificate::{Certificate, Level, State};
use app::names::Kind;
use app::object::ObjectKey;
use app::point::{Point, Restore, Role};
use repo::{CommitInfo, ReaderOptions};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::block_in_place;

/// Arguments of `show`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// The recovery point: an id or its beginning, `latest`, or `latest:APP`
    pub point: String,
    /// List every object
    #[arg(long)]
    pub objects: bool,
    /// List every reference with its evidence
    #[arg(long)]
    pub references: bool,
}

/// Runs it.
pub fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let repo = ctx.repository()?;
    let info = picking::one(&repo, picking::APPLICATION, &args.point)?;
    let point = block_in_place(|| -> Result<Point> {
        let reader = repo.reader(ReaderOptions::default())?;
        Ok(Point::read(&reader, &info)?)
    })?;
    if !ctx.out.is_table() {
        let objects: Vec<_> = point
            .objects
            .iter()
            .map(|o| json!({ "key": o.key, "role": o.role, "restore": o.restore }))
            .collect();
        ctx.out.value(&json!({
            "id": info.id.to_string(), "summary": info.summary, "point": point.meta, "objects": objects,
            "volumes": point.volumes, "certificate": point.certificate,
        }))?;
        return Ok(Exit::Done);
    }
    print(ctx, &args, &info, &point);
    Ok(Exit::Done)
}

fn print(ctx: &Context, args: &Args, info: &CommitInfo, point: &Point) {
    let out = &ctx.out;
    let meta = &point.meta;
    let consistency = meta.consistency.map_or("none (no volumes)", |c| c.word());
    out.line(format!(
        "{} of {}",
        out.tone(Tone::Strong, format!("Recovery point {}", info.id)),
        meta.application
    ));
    out.line(format!("  cut          {}", meta.cut));
    out.line(format!("  namespaces   {}", meta.namespaces.join(", ")));
    out.line(format!("  cluster      Kubernetes {}, id {}", meta.cluster.version, word(&meta.cluster.id)));
    out.line(format!("  consistency  {consistency}"));
    for rule in &meta.rules {
        let kept = match rule.kept {
            true => "all still held after the cut".to_owned(),
            false => out.tone(Tone::Bad, "NOT all held after the cut"),
        };
        out.line(format!(
            "  rule         {}: {} held for {}, {kept}",
            rule.name,
            counted(rule.members, "pod", "pods"),
            duration(Duration::from_millis(rule.held_ms)),
        ));
    }
    out.line(format!("  written by   holdfast {}", word(&meta.holdfast)));
    if let Some(origin) = &info.summary.origin {
        out.line(format!("  copied from  repository {}, point {}", origin.repository, origin.commit.short()));
    }
    out.line("");
    objects(ctx, args, point);
    out.line("");
    volumes(ctx, point);
    certificate(ctx, args, &point.certificate);
}

fn word(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

fn objects(ctx: &Context, args: &Args, point: &Point) {
    let out = &ctx.out;
    if args.objects {
        let rows = point
            .objects
            .iter()
            .map(|o| {
                let restore = match o.restore {
                    Restore::Yes if o.role == Role::Member => "applied",
                    Restore::Yes => "applied if absent",
                    Restore::Owned => "made again by its controller",
                    Restore::Evidence => "kept to look at",
                };
                vec![
                    o.key.kind.clone(),
                    o.key.namespace.clone(),
                    o.key.name.clone(),
                    role(o.role).into(),
                    restore.into(),
                ]
            })
            .collect();
        out.table(&["KIND", "NAMESPACE", "NAME", "ROLE", "A RESTORE"], rows);
        return;
    }
    for wanted in [Role::Member, Role::Shared, Role::Cluster] {
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for o in point.objects.iter().filter(|o| o.role == wanted) {
            *kinds.entry(&o.key.kind).or_default() += 1;
        }
        if kinds.is_empty() {
            continue;
        }
        let total = kinds.values().sum();
        let list: Vec<String> = kinds.iter().map(|(k, n)| format!("{} {k}", count(*n))).collect();
        out.line(format!(
            "  {:<12} {}: {}",
            role(wanted),
            counted(total, "object", "objects"),
            list.join(", ")
        ));
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Member => "members",
        Role::Shared => "shared",
        Role::Cluster => "cluster",
    }
}

fn volumes(ctx: &Context, point: &Point) {
    if point.volumes.is_empty() {
        return;
    }
    let rows = point
        .volumes
        .iter()
        .map(|v| match &v.missing {
            Some(why) => vec![
                v.namespace.clone(),
                v.claim.clone(),
                ctx.out.tone(Tone::Bad, "MISSING"),
                String::new(),
                String::new(),
                why.clone(),
            ],
            None => vec![
                v.namespace.clone(),
                v.claim.clone(),
                v.consistency.word().into(),
                count(v.files),
                bytes(v.bytes),
                v.note.clone(),
            ],
        })
        .collect();
    ctx.out.table(&["NAMESPACE", "VOLUME", "CONSISTENCY", "FILES", "SIZE", "NOTE"], rows);
    ctx.out.line("");
}

fn certificate(ctx: &Context, args: &Args, certificate: &Certificate) {
    let out = &ctx.out;
    let of = |state: State| certificate.references.iter().filter(|r| r.state == state).count() as u64;
    let verdict = match certificate.complete {
        true => out.tone(Tone::Good, "COMPLETE"),
        false => out.tone(Tone::Bad, "INCOMPLETE"),
    };
    out.line(format!(
        "Certificate: {verdict}. {}: {} included, {} expected on the target, {} missing.",
        counted(certificate.references.len() as u64, "reference", "references"),
        count(of(State::Included)),
        count(of(State::ExpectedOnTarget)),
        count(of(State::Missing)),
    ));
    for reference in certificate.references.iter().filter(|r| args.references || r.state == State::Missing) {
        let word = match reference.state {
            State::Missing => out.tone(Tone::Bad, "missing"),
            State::ExpectedOnTarget => out.tone(Tone::Warn, "expected"),
            State::Included => out.tone(Tone::Good, "included"),
        };
        let reason =
            if reference.reason.is_empty() { String::new() } else { format!(": {}", reference.reason) };
        out.line(format!("  {word} {} <- {} at {}{reason}", reference.to, reference.from, reference.at));
    }
    if !args.references {
        expected(ctx, certificate);
    }
    for note in &certificate.findings {
        let word = match note.severity {
            Level::Error => out.tone(Tone::Bad, "error"),
            Level::Warning => out.tone(Tone::Warn, "warning"),
            Level::Note if ctx.global.verbose == 0 => continue,
            Level::Note => out.tone(Tone::Dim, "note"),
        };
        out.line(format!("  {word} {}: {} [{}]", note.what, note.message, note.code));
    }
}

/// What the target has to bring, each thing once.
fn expected(ctx: &Context, certificate: &Certificate) {
    let mut things: BTreeMap<&ObjectKey, &str> = BTreeMap::new();
    for reference in certificate.references.iter().filter(|r| r.state == State::ExpectedOnTarget) {
        things.entry(&reference.to).or_insert(&reference.reason);
    }
    for (key, reason) in things {
        ctx.out.line(format!("  {} {key}: {reason}", ctx.out.tone(Tone::Warn, "expected on the target")));
    }
    let images = certificate.external.iter().filter(|e| e.kind == Kind::Image);
    let images: BTreeSet<&str> = images.map(|e| e.name.as_str()).collect();
    for image in images {
        let what = ctx.out.tone(Tone::Warn, "expected on the target");
        ctx.out.line(format!("  {what} image {image}: its nodes have to be able to pull it"));
    }
}
