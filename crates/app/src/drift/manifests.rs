//! Manifests in a directory: which there are, where each stands, and what is none.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use repo::Finding;
use serde_json::Value;

/// A larger file is no manifest of anybody's.
const FILE_BYTES_MAX: u64 = 16 << 20;
const DEPTH_MAX: usize = 32;

/// One declared object.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// Its file, below the directory.
    pub file: PathBuf,
    /// The lines of its document.
    pub lines: Range<usize>,
    /// Which item of that document, if it is a list.
    pub item: Option<usize>,
    /// As it is compared.
    pub value: Value,
    /// As it is written.
    pub written: Value,
}

/// What a directory holds.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    /// Texts by file.
    pub texts: BTreeMap<PathBuf, String>,
    /// Objects, in the order of files and documents.
    pub declared: Vec<Declared>,
    /// What could not be read.
    pub findings: Vec<Finding>,
}

/// Reads every `.yaml`, `.yml` and `.json` below a directory; of a Git checkout only the work tree. Links are not
/// followed: they may lead out of it.
///
/// # Errors
/// If the directory itself cannot be read.
pub fn read(root: &Path) -> io::Result<Manifests> {
    let mut manifests = Manifests::default();
    if root.is_file() {
        let name = root.file_name().map(PathBuf::from).unwrap_or_default();
        let parent = root.parent().map(Path::to_owned).unwrap_or_default();
        manifests.file(&parent, name);
        return Ok(manifests);
    }
    // The first look tells whether there is anything at all.
    std::fs::read_dir(root)?;
    manifests.folder(root, Path::new(""), 0);
    Ok(manifests)
}

/// Is this the place of a manifest? Not in a hidden directory, and with the name of one.
pub fn is_manifest(path: &Path) -> bool {
    let is_hidden = path.iter().any(|part| part.to_string_lossy().starts_with('.'));
    !is_hidden && path.extension().is_some_and(|ext| ["yaml", "yml", "json"].iter().any(|e| ext == *e))
}

/// The same of files that are in memory: a stream that was rendered, a revision of a repository.
pub fn of_texts(texts: impl IntoIterator<Item = (PathBuf, String)>) -> Manifests {
    let mut manifests = Manifests::default();
    for (path, text) in texts {
        manifests.documents(&path, &text);
        manifests.texts.insert(path, text);
    }
    manifests
}

impl Manifests {
    fn unread(&mut self, file: &Path, why: impl std::fmt::Display) {
        let what = file.display().to_string();
        self.findings.push(Finding::warning("not-read", what, format!("it is not compared: {why}")));
    }

    fn folder(&mut self, root: &Path, below: &Path, depth: usize) {
        let entries = match std::fs::read_dir(root.join(below)) {
            Ok(entries) => entries,
            Err(error) => return self.unread(below, error),
        };
        let mut names = Vec::new();
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?))) {
                Ok(found) => names.push(found),
                Err(error) => self.unread(below, error),
            }
        }
        names.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, kind) in names {
            let path = below.join(&name);
            let is_hidden = name.to_string_lossy().starts_with('.');
            if kind.is_dir() && !is_hidden && depth < DEPTH_MAX {
                self.folder(root, &path, depth + 1);
            } else if kind.is_file() && is_manifest(Path::new(&name)) {
                self.file(root, path);
            }
        }
    }

    fn file(&mut self, root: &Path, path: PathBuf) {
        let full = root.join(&path);
        let text = match std::fs::metadata(&full) {
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return self.unread(&path, "it is too large"),
            Ok(_) => std::fs::read_to_string(&full),
            Err(error) => Err(error),
        };
        match text {
            Ok(text) => {
                self.documents(&path, &text);
                self.texts.insert(path, text);
            }
            Err(error) => self.unread(&path, error),
        }
    }

    fn documents(&mut self, path: &Path, text: &str) {
        let lines: Vec<&str> = text.split('\n').collect();
        for range in ranges(&lines) {
            let document = lines.get(range.clone()).unwrap_or_default().join("\n");
            if document.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
                continue;
            }
            let value = match apiserver::read_yaml(&document) {
                Ok(value) => value,
                Err(why) => {
                    self.unread(path, format!("from line {}: {why}", range.start + 1));
                    continue;
                }
            };
            self.document(path, range, value);
        }
    }

    fn document(&mut self, path: &Path, lines: Range<usize>, value: Value) {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let (api_version, kind) = (text(&value, "apiVersion"), text(&value, "kind"));
        let is_list = kind.ends_with("List") && value.get("items").is_some_and(Value::is_array);
        if api_version.is_empty() || kind.is_empty() || api_version.starts_with("kustomize.config.k8s.io/") {
            let why = "it is no object: a file for a tool, perhaps; render the manifests first";
            self.findings.push(Finding::note("no-manifest", path.display().to_string(), why));
            return;
        }
        let items: Vec<(Option<usize>, Value)> = if is_list {
            let items = value.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            items.into_iter().enumerate().map(|(at, item)| (Some(at), item)).collect()
        } else {
            vec![(None, value)]
        };
        for (item, written) in items {
            let named =
                written.pointer("/metadata/name").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
            if !named {
                let what = format!("{} line {}", path.display(), lines.start + 1);
                let why = "an object without a name cannot be compared";
                self.findings.push(Finding::note("no-name", what, why));
                continue;
            }
            self.declared.push(Declared {
                file: path.to_owned(),
                lines: lines.clone(),
                item,
                value: written.clone(),
                written,
            });
        }
    }
}

/// The lines of each document of a stream.
fn ranges(lines: &[&str]) -> Vec<Range<usize>> {
    let is_break = |line: &str| {
        line.strip_prefix("---")
            .is_some_and(|rest| rest.trim().is_empty() || rest.trim_start().starts_with('#'))
    };
    let mut ranges = Vec::new();
    let mut start = 0;
    for (at, line) in lines.iter().enumerate() {
        if is_break(line) {
            ranges.push(start..at);
            start = at + 1;
        }
    }
    ranges.push(start..lines.len());
    ranges.retain(|range| !range.is_empty());
    ranges
}
