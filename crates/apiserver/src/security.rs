//! Pod Security admission: the standards `baseline` and `restricted`, as a namespace's labels ask for them.
//!
//! A pod that a stricter namespace refuses is the most frequent surprise of a move to another cluster.

use serde_json::{Value, json};

use crate::State;
use crate::status::Fault;
use crate::storage::Key;

const LABEL: &str = "pod-security.kubernetes.io/";

/// Capabilities a baseline container may add.
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kernel settings a baseline pod may change.
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
];
/// Volumes a restricted pod may have.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn containers(spec: &Value) -> Vec<&Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"].map(|list| spec[list].as_array());
    lists.into_iter().flatten().flatten().collect()
}

/// `container "c"` or `containers "c", "d"`.
fn named(which: &[&Value], rest: &str) -> String {
    let names: Vec<String> =
        which.iter().map(|c| format!("\"{}\"", c["name"].as_str().unwrap_or(""))).collect();
    let noun = if names.len() == 1 { "container" } else { "containers" };
    format!("{noun} {} {rest}", names.join(", "))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a pod does that a standard does not allow, in the words of the real admission.
pub fn violations(spec: &Value, restricted: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let all = containers(spec);
    let bad =
        |test: &dyn Fn(&Value) -> bool| -> Vec<&Value> { all.iter().copied().filter(|c| test(c)).collect() };
    let mut tell = |found: Vec<&Value>, head: &str, rest: &str| {
        if !found.is_empty() {
            wrong.push(format!("{head} ({})", named(&found, rest)));
        }
    };
    if restricted {
        let escalates = bad(&|c| c["securityContext"]["allowPrivilegeEscalation"] != json!(false));
        tell(
            escalates,
            "allowPrivilegeEscalation != false",
            "must set securityContext.allowPrivilegeEscalation=false",
        );
        let keeps = bad(&|c| {
            let capabilities = &c["securityContext"]["capabilities"];
            !texts(&capabilities["drop"]).contains(&"ALL")
                || texts(&capabilities["add"]).iter().any(|a| *a != "NET_BIND_SERVICE")
        });
        tell(keeps, "unrestricted capabilities", "must set securityContext.capabilities.drop=[\"ALL\"]");
    } else {
        let adds = bad(&|c| {
            texts(&c["securityContext"]["capabilities"]["add"]).iter().any(|a| !CAPABILITIES.contains(a))
        });
        tell(adds, "non-default capabilities", "must not add them in securityContext.capabilities.add");
    }
    let privileged = bad(&|c| c["securityContext"]["privileged"] == json!(true));
    tell(privileged, "privileged", "must not set securityContext.privileged=true");
    let host_ports = bad(&|c| {
        c["ports"].as_array().into_iter().flatten().any(|p| p["hostPort"].as_i64().unwrap_or(0) != 0)
    });
    tell(host_ports, "hostPort", "uses a hostPort");
    let proc_mount = bad(&|c| !matches!(c["securityContext"]["procMount"].as_str(), None | Some("Default")));
    tell(proc_mount, "procMount", "must not set securityContext.procMount");
    let host: Vec<&str> =
        ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|key| spec[*key] == json!(true)).collect();
    if !host.is_empty() {
        let set: Vec<String> = host.iter().map(|key| format!("{key}=true")).collect();
        wrong.push(format!("host namespaces ({})", set.join(", ")));
    }
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    let of_kind = |test: &dyn Fn(&str) -> bool| -> Vec<String> {
        let chosen = volumes.iter().filter(|v| v.as_object().is_some_and(|v| v.keys().any(|k| test(k))));
        chosen.map(|v| format!("\"{}\"", v["name"].as_str().unwrap_or(""))).collect()
    };
    let host_paths = of_kind(&|key| key == "hostPath");
    if !host_paths.is_empty() {
        let noun = if host_paths.len() == 1 { "volume" } else { "volumes" };
        wrong.push(format!("hostPath volumes ({noun} {})", host_paths.join(", ")));
    }
    let sysctls = spec["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let sysctls: Vec<&str> =
        sysctls.filter_map(|s| s["name"].as_str()).filter(|name| !SYSCTLS.contains(name)).collect();
    if !sysctls.is_empty() {
        wrong.push(format!("forbidden sysctls ({})", sysctls.join(", ")));
    }
    let profile =
        |value: &Value| value["securityContext"]["seccompProfile"]["type"].as_str().map(str::to_string);
    let of_pod = profile(spec);
    let unconfined = bad(&|c| profile(c).or_else(|| of_pod.clone()).as_deref() == Some("Unconfined"));
    if restricted {
        let kinds = of_kind(&|key| key != "name" && !VOLUMES.contains(&key));
        if !kinds.is_empty() {
            wrong.push(format!("restricted volume types ({} not allowed)", kinds.join(", ")));
        }
        let as_root = bad(&|c| {
            let own = c["securityContext"]["runAsNonRoot"].as_bool();
            own.or(spec["securityContext"]["runAsNonRoot"].as_bool()) != Some(true)
        });
        if !as_root.is_empty() {
            wrong.push(format!(
                "runAsNonRoot != true (pod or {})",
                named(&as_root, "must set securityContext.runAsNonRoot=true")
            ));
        }
        let root = bad(&|c| {
            let own = c["securityContext"]["runAsUser"].as_i64();
            own.or(spec["securityContext"]["runAsUser"].as_i64()) == Some(0)
        });
        if !root.is_empty() {
            wrong.push(format!("runAsUser=0 ({})", named(&root, "must not set runAsUser=0")));
        }
        let without = bad(&|c| {
            let found = profile(c).or_else(|| of_pod.clone());
            !matches!(found.as_deref(), Some("RuntimeDefault" | "Localhost"))
        });
        if !without.is_empty() {
            let must = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
            wrong.push(format!("seccompProfile (pod or {})", named(&without, must)));
        }
    } else if !unconfined.is_empty() {
        let must = "must not set securityContext.seccompProfile.type to \"Unconfined\"";
        wrong.push(format!("seccompProfile ({})", named(&unconfined, must)));
    }
    wrong
}

impl State {
    /// Does the pod fit the standard its namespace enforces?
    pub fn admit_security(&self, pod: &Value) -> Result<(), Fault> {
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or("");
        let Some(namespace) = self.store.get(&Key::new("namespaces", "", text("namespace"))) else {
            return Ok(());
        };
        let labels = &namespace["metadata"]["labels"];
        let level = labels[format!("{LABEL}enforce").as_str()].as_str().unwrap_or("privileged");
        if !matches!(level, "baseline" | "restricted") {
            return Ok(());
        }
        let wrong = violations(&pod["spec"], level == "restricted");
        if wrong.is_empty() {
            return Ok(());
        }
        let version = labels[format!("{LABEL}enforce-version").as_str()].as_str().unwrap_or("latest");
        let why = format!("violates PodSecurity \"{level}:{version}\": {}", wrong.join(", "));
        Err(Fault::forbidden("", "pods", text("name"), &why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_refused_for_exactly_what_the_standards_name() {
        let check = |spec: Value, restricted: bool, expect: &[&str]| {
            let got = violations(&spec, restricted);
            let heads: Vec<&str> = got.iter().map(|v| v.split(" (").next().unwrap_or("")).collect();
            assert_eq!(heads, expect, "{spec}");
        };
        let plain = json!({"containers": [{"name": "c"}]});
        check(plain.clone(), false, &[]);
        check(
            plain,
            true,
            &[
                "allowPrivilegeEscalation != false",
                "unrestricted capabilities",
                "runAsNonRoot != true",
                "seccompProfile",
            ],
        );
        check(
            json!({"hostNetwork": true, "volumes": [{"name": "h", "hostPath": {"path": "/"}}], "containers": [
                {"name": "c", "ports": [{"hostPort": 80}],
                 "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]}}}]}),
            false,
            &["non-default capabilities", "privileged", "hostPort", "host namespaces", "hostPath volumes"],
        );
        check(
            json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "c", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}),
            true,
            &[],
        );
    }
}
