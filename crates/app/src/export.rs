//! A recovery point as manifests that `kubectl apply -f` takes.
//!
//! The same objects a restore would apply, in the same order, mapping included. Definitions come apart from
//! everything else: kubectl looks up every kind before it applies anything, so objects of a kind that is
//! defined in the same call are refused. The data of volumes is not in manifests: a claim says in a comment
//! what it held, and `holdfast restore` writes it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use repo::Finding;
use serde_json::Value;

use crate::error::Error;
use crate::kinds::Order;
use crate::object::{Object, ObjectKey};
use crate::order::{self, Item};
use crate::point::Point;
use crate::restore::{Left, Only, nothing_selected, prepare};
use crate::transform::{LAST_APPLIED, Transform};
use crate::yaml;

/// What is exported, and how.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// What changes on the way.
    pub transform: Transform,
    /// Which objects of the point.
    pub only: Only,
    /// Secrets too. They are readable text in the result.
    pub secrets: bool,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { transform: Transform::default(), only: Only::default(), secrets: true }
    }
}

/// One object as a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Which object, on the target.
    pub key: ObjectKey,
    /// It defines a kind, and has to be applied and established before the others.
    pub is_definition: bool,
    /// The document, comments included, without a separator.
    pub yaml: String,
}

/// A point as manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Export {
    /// The manifests, in the order they are to be applied.
    pub manifests: Vec<Manifest>,
    /// What is left out.
    pub left: Vec<Left>,
    /// What was found on the way.
    pub findings: Vec<Finding>,
}

/// Turns a point into manifests.
///
/// # Errors
/// If a patch does not fit, or the selection is empty.
pub fn manifests(point: &Point, options: &ExportOptions) -> Result<Export, Error> {
    let prepared = prepare(&point.objects, &options.transform, &options.only)?;
    if prepared.candidates.is_empty() && prepared.left.is_empty() {
        return Err(nothing_selected(&options.only));
    }
    let mut export = Export { left: prepared.left, findings: prepared.findings, ..Export::default() };
    let mut candidates = prepared.candidates;
    if !options.secrets {
        candidates.retain(|candidate| {
            let stays = !candidate.key.is("", "Secret");
            if !stays && let Some(key) = candidate.was.clone() {
                export.left.push(Left { key, reason: "secrets are left out".into() });
            }
            stays
        });
    }
    for candidate in &candidates {
        for owner in &candidate.owners {
            // A manifest cannot know the UID its owner will have.
            export.findings.push(Finding::note(
                "owner-left-out",
                candidate.key.to_string(),
                format!("its owner {} is not named in the manifest; `restore` links them", owner.key),
            ));
        }
    }
    let items: Vec<Item> = candidates
        .iter()
        .map(|candidate| Item {
            key: candidate.key.clone(),
            stage: candidate.order,
            needs: candidate.needs.clone(),
        })
        .collect();
    let (waves, mut circles) = order::waves(&items);
    export.findings.append(&mut circles);
    for wave in waves {
        for candidate in wave.items.iter().filter_map(|index| candidates.get(*index)) {
            let was = candidate.was.as_ref().unwrap_or(&candidate.key);
            export.manifests.push(Manifest {
                key: candidate.key.clone(),
                is_definition: wave.stage == Order::Definition,
                yaml: manifest(point, was, &candidate.desired),
            });
        }
    }
    export.left.sort();
    Ok(export)
}

fn manifest(point: &Point, was: &ObjectKey, object: &Object) -> String {
    let mut value = object.0.clone();
    if let Some(Value::Object(metadata)) = value.get_mut("metadata")
        && let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
    {
        // kubectl writes its own record of what it applied.
        annotations.shift_remove(LAST_APPLIED);
        if annotations.is_empty() {
            metadata.shift_remove("annotations");
        }
    }
    let mut text = String::new();
    if was.is("", "PersistentVolumeClaim") {
        let record = point.volumes.iter().find(|v| v.namespace == was.namespace && v.claim == was.name);
        let _ = match record {
            Some(record) if record.missing.is_none() => writeln!(
                text,
                "# This claim comes up empty. Its data ({} files, {} bytes) is in the recovery point; `holdfast restore` \
                 writes it.",
                record.files, record.bytes
            ),
            _ => writeln!(text, "# This claim comes up empty; the recovery point has no data for it."),
        };
    }
    text.push_str(&yaml::document(&value));
    text
}

impl Export {
    /// Whether some of it has to be applied before the rest can be.
    pub fn has_definitions(&self) -> bool {
        self.manifests.iter().any(|manifest| manifest.is_definition)
    }

    /// Everything as one stream of documents.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_stream(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.has_definitions() {
            writeln!(
                out,
                "# This stream defines kinds and has objects of them. kubectl looks up kinds before it applies anything,\n\
                 # so apply it twice, or export into a directory, which keeps the definitions apart."
            )?;
        }
        for manifest in &self.manifests {
            write!(out, "---\n{}", manifest.yaml)?;
        }
        Ok(())
    }

    /// One file an object, under `1-definitions` (if there are any) and `2-objects`, named so that they sort
    /// in the order they are to be applied. Returns the directories to apply, in order.
    ///
    /// # Errors
    /// If `folder` exists and is not empty, or cannot be written.
    pub fn write_folder(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(folder)?;
        if std::fs::read_dir(folder)?.next().is_some() {
            let message = format!("{} is not empty; name a new directory", folder.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let mut parts = Vec::new();
        for (name, definitions) in [("1-definitions", true), ("2-objects", false)] {
            let chosen: Vec<&Manifest> =
                self.manifests.iter().filter(|m| m.is_definition == definitions).collect();
            if chosen.is_empty() {
                continue;
            }
            let part = folder.join(name);
            std::fs::create_dir(&part)?;
            let width = chosen.len().to_string().len();
            for (index, manifest) in chosen.into_iter().enumerate() {
                let name = format!("{index:0width$}-{}.yaml", file_name(&manifest.key));
                std::fs::write(part.join(name), &manifest.yaml)?;
            }
            parts.push(part);
        }
        Ok(parts)
    }
}

/// `deployment-shop-web`: what a file system takes everywhere, short enough with the number before it.
fn file_name(key: &ObjectKey) -> String {
    [key.kind.to_lowercase().as_str(), key.namespace.as_str(), key.name.as_str()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(|part| part.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.', "_"))
        .collect::<Vec<_>>()
        .join("-")
        .chars()
        .take(180)
        .collect()
}
