//! The volumes this machine can reach: where the bytes of a claim are, or in words why they cannot be reached.
//!
//! Reached are, below the node root (`--node-root`, `/` unless a pod mounts the node elsewhere):
//! - hostPath and local volumes, in their directory;
//! - any other mounted volume (CSI, NFS, …), in the kubelet's directory of a running pod that mounts it.
//!
//! A directory that merely has the right name is not enough. Backing up an empty mount point would end as an
//! empty "restore", so it is checked that the volume is of this node, that something is mounted where something
//! should be, and that it is the volume that is meant; a doubt is a reason not to, and the certificate tells it.

use app::point::Consistency;
use app::volumes::{Existing, Located, Previous, VolumeCopy, VolumeError, VolumeRestored, Volumes};
use repo::{Cancel, EntryKind, Outcome, Progress, Reader, Root, Writer};
use serde_json::Value;
use source::files;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which machine this is, for commands that move volume data.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct NodeArgs {
    /// Where the node's root directory is seen from here
    #[arg(long, default_value = "/", value_name = "DIR", help_heading = "Volumes")]
    pub node_root: PathBuf,
    /// The name of this machine's node [default: its host name]
    #[arg(long, value_name = "NAME", env = "HOLDFAST_NODE_NAME", help_heading = "Volumes")]
    pub node_name: Option<String>,
    /// Threads that read or write files [default: one for each processor, at most 8]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N", help_heading = "Volumes")]
    pub threads: usize,
}

impl NodeArgs {
    /// The name of this machine's node.
    pub fn node(&self) -> String {
        self.node_name.clone().unwrap_or_else(crate::commands::volume::hostname)
    }

    /// The volumes of this machine.
    pub fn volumes(&self) -> NodeVolumes {
        let root = if self.node_root.as_os_str().is_empty() { Path::new("/") } else { &self.node_root };
        NodeVolumes::new(root.to_owned(), self.node(), self.threads)
    }
}

/// The volumes of this machine.
#[derive(Clone, Debug)]
pub struct NodeVolumes {
    root: PathBuf,
    node: String,
    threads: usize,
}

type Found = Result<Located, String>;

impl NodeVolumes {
    /// The machine whose root directory is `root` and whose node is called `node`.
    pub fn new(root: PathBuf, node: String, threads: usize) -> NodeVolumes {
        NodeVolumes { root, node, threads }
    }

    /// A path of the node, as we see it.
    fn here(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn directory(&self, what: &str, volume: &str, path: &str) -> Found {
        let here = self.here(path);
        let shown = here.display();
        match std::fs::metadata(&here) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(format!("{what} volume {volume}: {shown} does not exist on this machine ({})", self.node))
            }
            Err(e) => Err(format!("{what} volume {volume}: cannot look at {shown}: {e}")),
            Ok(m) if !m.is_dir() => Err(format!("{what} volume {volume}: {shown} is not a directory")),
            Ok(_) if self.should_be_mounted(path) && !is_mount_point(&here) => Err(format!(
                "{what} volume {volume}: {shown} is a mount point in /etc/fstab and nothing is mounted there; mount it first"
            )),
            Ok(_) => Ok(Located {
                path: here,
                how: format!("directory of {what} volume {volume} on node {}", self.node),
            }),
        }
    }

    /// Whether the node's fstab promises a file system at this very path.
    fn should_be_mounted(&self, path: &str) -> bool {
        let fstab = std::fs::read_to_string(self.here("etc/fstab")).unwrap_or_default();
        let wanted = path.trim_end_matches('/');
        fstab
            .lines()
            .filter(|l| !l.trim_start().starts_with('#'))
            .filter_map(|l| l.split_whitespace().nth(1))
            .any(|target| target.trim_end_matches('/') == wanted && !wanted.is_empty())
    }

    /// The kubelet's directory of a volume in a pod that mounts it, and proof that it is that volume.
    fn mounted(&self, volume: &str, pv: &Value, pods: &[Value]) -> Found {
        let here: Vec<&Value> = pods.iter().filter(|p| text(p, "/spec/nodeName") == self.node).collect();
        if here.is_empty() {
            let nodes: Vec<&str> =
                pods.iter().map(|p| text(p, "/spec/nodeName")).filter(|n| !n.is_empty()).collect();
            return Err(match nodes.as_slice() {
                [] => format!("volume {volume}: no running pod mounts it, so no machine has it mounted"),
                nodes => format!(
                    "volume {volume}: mounted on node {}, and this machine is {}; run holdfast there, or name this machine with --node-name",
                    nodes.join(", "),
                    self.node
                ),
            });
        }
        let mut why = Vec::new();
        for pod in here {
            let dir = self.here("var/lib/kubelet/pods").join(text(pod, "/metadata/uid")).join("volumes");
            match in_pod(&dir, volume, pv) {
                Ok(path) => {
                    let how = format!(
                        "kubelet directory of pod {} on node {}",
                        text(pod, "/metadata/name"),
                        self.node
                    );
                    return Ok(Located { path, how });
                }
                Err(e) => why.push(e),
            }
        }
        Err(format!("volume {volume}: {}", why.join("; ")))
    }
}

/// Looks through `volumes/<plugin>/<volume>` of one pod.
fn in_pod(dir: &Path, volume: &str, pv: &Value) -> Result<PathBuf, String> {
    let plugins = std::fs::read_dir(dir).map_err(|e| format!("cannot list {}: {e}", dir.display()))?;
    for plugin in plugins.flatten() {
        let base = plugin.path().join(volume);
        if !base.is_dir() {
            continue;
        }
        let csi = plugin.file_name() == "kubernetes.io~csi";
        let path = if csi { base.join("mount") } else { base.clone() };
        if csi {
            let file = base.join("vol_data.json");
            let data: Value = std::fs::read(&file)
                .map_err(|e| e.to_string())
                .and_then(|b| serde_json::from_slice(&b).map_err(|e| e.to_string()))
                .map_err(|e| format!("cannot read {}: {e}", file.display()))?;
            for (field, at) in
                [("volumeHandle", "/spec/csi/volumeHandle"), ("driverName", "/spec/csi/driver")]
            {
                if data.get(field).and_then(Value::as_str) != Some(text(pv, at)) {
                    return Err(format!(
                        "{} is another volume: its {field} is {}, not {:?}",
                        base.display(),
                        data.get(field).unwrap_or(&Value::Null),
                        text(pv, at)
                    ));
                }
            }
        }
        if !is_mount_point(&path) {
            return Err(format!("nothing is mounted at {}", path.display()));
        }
        return Ok(path);
    }
    Err(format!("{} has no volume of that name", dir.display()))
}

/// Whether something is mounted at exactly this directory.
fn is_mount_point(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let (Ok(own), Some(parent)) = (std::fs::metadata(&path), path.parent()) else { return true };
    match std::fs::metadata(parent) {
        Ok(above) if above.dev() != own.dev() => true,
        // A bind mount from the same file system has the same device number; the kernel's list tells it.
        _ => std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().any(|line| {
            line.split(' ')
                .nth(4)
                .is_some_and(|target| unescape(target) == path.as_os_str().as_encoded_bytes())
        }),
    }
}

/// The kernel writes blanks in mountinfo as `\040`.
fn unescape(text: &str) -> Vec<u8> {
    let (mut out, bytes) = (Vec::new(), text.as_bytes());
    let mut i = 0;
    while i < bytes.len() {
        let octal = bytes.get(i + 1..i + 4).and_then(|d| std::str::from_utf8(d).ok());
        match (bytes[i], octal.and_then(|d| u8::from_str_radix(d, 8).ok())) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                i += 4;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    out
}

fn text<'a>(value: &'a Value, at: &str) -> &'a str {
    value.pointer(at).and_then(Value::as_str).unwrap_or("")
}

/// The nodes a volume is bound to by its node affinity, if it names any.
fn nodes_of(pv: &Value) -> Vec<&str> {
    let terms = pv.pointer("/spec/nodeAffinity/required/nodeSelectorTerms").and_then(Value::as_array);
    terms
        .into_iter()
        .flatten()
        .flat_map(|t| t.get("matchExpressions").and_then(Value::as_array).into_iter().flatten())
        .filter(|e| text(e, "/key") == "kubernetes.io/hostname" && text(e, "/operator") == "In")
        .flat_map(|e| e.get("values").and_then(Value::as_array).into_iter().flatten())
        .filter_map(Value::as_str)
        .collect()
}

impl Volumes for NodeVolumes {
    /// A host path that Kubernetes itself would make for the first pod. A local volume is its administrator's
    /// to make: a directory where a disk should be mounted would look like it and be on another one.
    fn prepare(&self, pv: &Value, _: &Value) -> Result<(), String> {
        let Some(path) = pv.pointer("/spec/hostPath/path").and_then(Value::as_str) else { return Ok(()) };
        let nodes = nodes_of(pv);
        let is_here = nodes.is_empty() || nodes.contains(&self.node.as_str());
        if is_here
            && matches!(text(pv, "/spec/hostPath/type"), "" | "DirectoryOrCreate")
            && !self.should_be_mounted(path)
        {
            let here = self.here(path);
            std::fs::create_dir_all(&here).map_err(|e| {
                format!("hostPath volume {}: cannot make {}: {e}", text(pv, "/metadata/name"), here.display())
            })?;
        }
        Ok(())
    }

    fn locate(&self, pv: &Value, pvc: &Value, pods: &[Value]) -> Found {
        let volume = text(pv, "/metadata/name");
        if pv.is_null() || volume.is_empty() {
            return Err("the claim is not bound to a volume".into());
        }
        if text(pvc, "/spec/volumeMode") == "Block" || text(pv, "/spec/volumeMode") == "Block" {
            return Err(format!(
                "volume {volume} is a raw block device; this release reads file systems only"
            ));
        }
        let nodes = nodes_of(pv);
        if !nodes.is_empty() && !nodes.contains(&self.node.as_str()) {
            return Err(format!(
                "volume {volume} is on node {}, and this machine is {}; run holdfast there, or name this machine with --node-name",
                nodes.join(", "),
                self.node
            ));
        }
        if let Some(path) = pv.pointer("/spec/local/path").and_then(Value::as_str) {
            // A local block device has its file system mounted by the kubelet, under the pod.
            if std::fs::metadata(self.here(path)).is_ok_and(|m| !m.is_dir()) {
                return self.mounted(volume, pv, pods);
            }
            return self.directory("local", volume, path);
        }
        if let Some(path) = pv.pointer("/spec/hostPath/path").and_then(Value::as_str) {
            // hostPath means "whatever node the pod is on": with a pod elsewhere, the same path here is not it.
            let elsewhere: Vec<&str> = pods
                .iter()
                .map(|p| text(p, "/spec/nodeName"))
                .filter(|n| !n.is_empty() && *n != self.node)
                .collect();
            if let Some(node) = elsewhere.first() {
                return Err(format!(
                    "hostPath volume {volume} is in use on node {node}, and this machine is {}; run holdfast there, or name this machine with --node-name",
                    self.node
                ));
            }
            return self.directory("hostPath", volume, path);
        }
        self.mounted(volume, pv, pods)
    }

    fn backup(
        &self,
        from: &Located,
        writer: &Writer,
        previous: Option<(&Reader, &Previous)>,
        cancel: &Cancel,
        progress: &dyn Progress,
    ) -> Result<Outcome<VolumeCopy>, VolumeError> {
        let options = files::BackupOptions {
            parent: previous.map(|(reader, p)| files::Parent { reader, root: p.root, started: p.started }),
            one_file_system: false,
            cancel: cancel.clone(),
            threads: self.threads,
        };
        let outcome = files::backup(&from.path, writer, &options, progress).map_err(volume_error)?;
        let figure = |name: &str| outcome.done.figures.get(name).copied().unwrap_or(0);
        let copy = VolumeCopy {
            root: outcome.done.root,
            kind: EntryKind::Tree,
            // A walk of files that may be in use; only a rule can make it more.
            consistency: Consistency::Fuzzy,
            bytes: figure("bytes"),
            files: figure("files"),
        };
        Ok(Outcome { done: copy, findings: outcome.findings })
    }

    fn restore(
        &self,
        reader: &Reader,
        root: &Root,
        to: &Located,
        existing: Existing,
        cancel: &Cancel,
        progress: &dyn Progress,
    ) -> Result<Outcome<VolumeRestored>, VolumeError> {
        let options = files::RestoreOptions {
            existing: match existing {
                Existing::Refuse => files::Existing::Refuse,
                Existing::Merge => files::Existing::Merge,
                Existing::Mirror => files::Existing::Mirror,
            },
            cancel: cancel.clone(),
            threads: self.threads,
            ..Default::default()
        };
        let outcome = files::restore(reader, root, &to.path, &options, progress).map_err(volume_error)?;
        let done = VolumeRestored { bytes: outcome.done.bytes, files: outcome.done.files };
        Ok(Outcome { done, findings: outcome.findings })
    }
}

fn volume_error(error: files::Error) -> VolumeError {
    match error {
        files::Error::Repo(e) => VolumeError::Repository(e),
        e @ files::Error::NotEmpty { .. } => VolumeError::NotEmpty(e.to_string()),
        e => VolumeError::Unreachable(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// One machine called n1, whose root is a folder; each case is a volume and what is said of it.
    #[test]
    fn only_what_is_really_the_volume_is_backed_up() {
        let root = tempfile::tempdir().unwrap();
        let dir = |p: &str| std::fs::create_dir_all(root.path().join(p)).unwrap();
        dir("data/a");
        dir("mnt/disk");
        dir("etc");
        std::fs::write(root.path().join("etc/fstab"), "# disks\nUUID=1 /mnt/disk ext4 defaults 0 2\n")
            .unwrap();
        std::fs::write(root.path().join("data/file"), "").unwrap();
        dir("var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv-csi/mount");
        std::fs::write(
            root.path().join("var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv-csi/vol_data.json"),
            r#"{"volumeHandle":"h1","driverName":"d"}"#,
        )
        .unwrap();
        let volumes = NodeVolumes::new(root.path().into(), "n1".into(), 1);
        let pv = |name: &str, spec: Value| json!({ "metadata": { "name": name }, "spec": spec });
        let on = |node: &str| {
            json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] }] } })
        };
        let pod = |node: &str| {
            vec![json!({ "metadata": { "name": "p", "uid": "u1" }, "spec": { "nodeName": node } })]
        };
        let csi = |handle: &str| json!({ "csi": { "driver": "d", "volumeHandle": handle } });
        type Case = (&'static str, Value, Vec<Value>, Result<&'static str, &'static str>);
        let cases: Vec<Case> = vec![
            ("unbound", Value::Null, vec![], Err("not bound")),
            (
                "local",
                pv("a", json!({ "local": { "path": "/data/a" }, "nodeAffinity": on("n1") })),
                vec![],
                Ok("data/a"),
            ),
            (
                "another node's",
                pv("a", json!({ "local": { "path": "/data/a" }, "nodeAffinity": on("n2") })),
                vec![],
                Err("is on node n2"),
            ),
            ("gone", pv("b", json!({ "local": { "path": "/data/b" } })), vec![], Err("does not exist")),
            (
                "a file",
                pv("f", json!({ "hostPath": { "path": "/data/file" } })),
                vec![],
                Err("not a directory"),
            ),
            ("hostPath", pv("a", json!({ "hostPath": { "path": "/data/a" } })), pod("n1"), Ok("data/a")),
            (
                "hostPath in use elsewhere",
                pv("a", json!({ "hostPath": { "path": "/data/a" } })),
                pod("n2"),
                Err("in use on node n2"),
            ),
            (
                "not mounted",
                pv("d", json!({ "local": { "path": "/mnt/disk" } })),
                vec![],
                Err("nothing is mounted there"),
            ),
            (
                "block",
                pv("a", json!({ "local": { "path": "/data/a" }, "volumeMode": "Block" })),
                vec![],
                Err("raw block"),
            ),
            ("csi without a pod", pv("pv-csi", csi("h1")), vec![], Err("no running pod mounts it")),
            ("csi elsewhere", pv("pv-csi", csi("h1")), pod("n2"), Err("mounted on node n2")),
            ("csi of another handle", pv("pv-csi", csi("h2")), pod("n1"), Err("is another volume")),
            ("csi, empty mount point", pv("pv-csi", csi("h1")), pod("n1"), Err("nothing is mounted at")),
            ("csi never staged", pv("pv-x", csi("h1")), pod("n1"), Err("no volume of that name")),
        ];
        for (name, pv, pods, expected) in cases {
            let got = volumes.locate(&pv, &json!({}), &pods);
            match (got, expected) {
                (Ok(located), Ok(path)) => assert_eq!(located.path, root.path().join(path), "{name}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{name}: {why}"),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    fn mount_points_are_recognised() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(Path::new("/proc/self/..data-that-is-not-there")));
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::create_dir(&plain).unwrap();
        assert!(!is_mount_point(&plain));
        assert_eq!(unescape("/a\\040b\\134"), b"/a b\\");
    }

    #[test]
    fn a_place_is_made_only_where_kubernetes_would_make_it() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/fstab"), "UUID=1 /mnt/disk ext4 defaults 0 2\n").unwrap();
        let volumes = NodeVolumes::new(root.path().into(), "n1".into(), 1);
        let on = |node: &str| {
            json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] }] } })
        };
        let cases = [
            ("a", json!({ "hostPath": { "path": "/a" } }), true),
            ("b", json!({ "hostPath": { "path": "/b", "type": "DirectoryOrCreate" } }), true),
            ("c", json!({ "hostPath": { "path": "/c", "type": "Directory" } }), false),
            ("mnt/disk", json!({ "hostPath": { "path": "/mnt/disk" } }), false),
            ("d", json!({ "hostPath": { "path": "/d" }, "nodeAffinity": on("n2") }), false),
            ("e", json!({ "local": { "path": "/e" }, "nodeAffinity": on("n1") }), false),
            ("f", json!({ "csi": { "driver": "x" } }), false),
        ];
        for (path, spec, made) in cases {
            volumes.prepare(&json!({ "metadata": { "name": "pv" }, "spec": spec }), &Value::Null).unwrap();
            assert_eq!(root.path().join(path).is_dir(), made, "{path}");
        }
    }
}
