//! The columns of built-in kinds, as a real server prints them.

use serde_json::{Value, json};

use crate::finalize::terminating;
use crate::kinds::Kind;
use crate::select::label_selector_text;

/// A column: name, type, priority (above 0 only with `-o wide`), and its cell for an object at a time.
pub type BuiltIn = (&'static str, &'static str, i64, fn(&Value, i64) -> Value);

/// Every table begins with it.
pub const NAME: BuiltIn = ("Name", "string", 0, |o, _| o["metadata"]["name"].clone());
/// How long the object has existed.
pub const AGE: BuiltIn = ("Age", "string", 0, |o, now| match o["metadata"]["creationTimestamp"].as_str() {
    Some(time) => json!(age_of(time, now)),
    None => json!("<unknown>"),
});
const CREATED: BuiltIn = ("Created At", "date", 0, |o, _| o["metadata"]["creationTimestamp"].clone());

fn text(value: &Value) -> Value {
    match value {
        Value::Null => json!(""),
        other => other.clone(),
    }
}

fn or(value: &Value, none: &str) -> Value {
    match value.as_str() {
        Some(text) if !text.is_empty() => json!(text),
        _ => json!(none),
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn size(value: &Value) -> usize {
    value.as_object().map_or_else(|| value.as_array().map_or(0, Vec::len), serde_json::Map::len)
}

fn join(values: &Value, each: impl Fn(&Value) -> String, none: &str) -> Value {
    let texts: Vec<String> =
        values.as_array().into_iter().flatten().map(each).filter(|t| !t.is_empty()).collect();
    if texts.is_empty() { json!(none) } else { json!(texts.join(",")) }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

fn labels_text(map: &Value) -> Value {
    let texts: Vec<String> =
        map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", plain(v))).collect();
    if texts.is_empty() { json!("<none>") } else { json!(texts.join(",")) }
}

fn selector(value: &Value) -> Value {
    let text = label_selector_text(value);
    if text.is_empty() { json!("<none>") } else { json!(text) }
}

fn template_containers(o: &Value) -> &Value {
    &o["spec"]["template"]["spec"]["containers"]
}

const CONTAINERS: BuiltIn =
    ("Containers", "string", 1, |o, _| join(template_containers(o), |c| plain(&c["name"]), "<none>"));
const IMAGES: BuiltIn =
    ("Images", "string", 1, |o, _| join(template_containers(o), |c| plain(&c["image"]), "<none>"));
const SELECTOR: BuiltIn = ("Selector", "string", 1, |o, _| selector(&o["spec"]["selector"]));

fn pod_status(pod: &Value) -> String {
    let mut reason =
        pod["status"]["reason"].as_str().or(pod["status"]["phase"].as_str()).unwrap_or("Unknown").to_string();
    for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
        for state in ["waiting", "terminated"] {
            if let Some(why) = container["state"][state]["reason"].as_str() {
                reason = why.to_string();
            }
        }
    }
    if terminating(pod) { "Terminating".into() } else { reason }
}

fn access_modes(modes: &Value) -> Value {
    let short = |mode: &Value| {
        match mode.as_str().unwrap_or("") {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            _ => "",
        }
        .to_string()
    };
    join(modes, short, "")
}

fn service_ports(ports: &Value) -> Value {
    let one = |p: &Value| {
        let protocol = p["protocol"].as_str().unwrap_or("TCP");
        match p["nodePort"].as_i64().filter(|n| *n > 0) {
            Some(node) => format!("{}:{node}/{protocol}", p["port"]),
            None => format!("{}/{protocol}", p["port"]),
        }
    };
    join(ports, one, "<none>")
}

fn addresses(status: &Value) -> Vec<String> {
    let list = status["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    list.filter_map(|i| i["ip"].as_str().or(i["hostname"].as_str())).map(str::to_string).collect()
}

fn external(service: &Value) -> Value {
    let own: Vec<String> =
        service["spec"]["externalIPs"].as_array().into_iter().flatten().map(plain).collect();
    match service["spec"]["type"].as_str() {
        Some("ExternalName") => service["spec"]["externalName"].clone(),
        Some("LoadBalancer") => {
            let mut all = addresses(&service["status"]);
            all.extend(own);
            if all.is_empty() { json!("<pending>") } else { json!(all.join(",")) }
        }
        _ if own.is_empty() => json!("<none>"),
        _ => json!(own.join(",")),
    }
}

fn ready_of(o: &Value, have: &str, want: &Value) -> Value {
    json!(format!("{}/{}", number(&o["status"][have]), number(want)))
}

fn node_roles(o: &Value) -> Value {
    let labels = o["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<&str> = labels.filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/")).collect();
    if roles.is_empty() { json!("<none>") } else { json!(roles.join(",")) }
}

fn node_status(o: &Value) -> Value {
    let ready =
        o["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == json!("Ready"));
    let mut text = match ready.map(|c| c["status"] == json!("True")) {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
    .to_string();
    if o["spec"]["unschedulable"] == json!(true) {
        text.push_str(",SchedulingDisabled");
    }
    json!(text)
}

fn node_address(o: &Value, kind: &str) -> Value {
    let list = o["status"]["addresses"].as_array().into_iter().flatten();
    or(list.clone().find(|a| a["type"] == json!(kind)).map_or(&Value::Null, |a| &a["address"]), "<none>")
}

fn job_status(o: &Value) -> &'static str {
    let has = |kind: &str| {
        let list = o["status"]["conditions"].as_array().into_iter().flatten();
        list.clone().any(|c| c["type"] == json!(kind) && c["status"] == json!("True"))
    };
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if terminating(o) => "Terminating",
        () if has("Suspended") => "Suspended",
        () => "Running",
    }
}

fn job_duration(o: &Value, now: i64) -> Value {
    let time = |key: &str| o["status"][key].as_str().and_then(seconds_of);
    match (time("startTime"), time("completionTime")) {
        (Some(start), Some(end)) => json!(span(end - start)),
        (Some(start), None) => json!(span(now / 1_000_000_000 - start)),
        _ => json!(""),
    }
}

fn ago(value: &Value, now: i64) -> Value {
    json!(value.as_str().map_or_else(|| "<none>".to_string(), |time| age_of(time, now)))
}

fn ingress_hosts(o: &Value) -> Value {
    let hosts = join(&o["spec"]["rules"], |r| r["host"].as_str().unwrap_or("").to_string(), "*");
    if size(&o["spec"]["rules"]) == 0 { json!("*") } else { hosts }
}

fn subjects(o: &Value, kind: &str) -> Value {
    let one = |s: &Value| match (s["kind"].as_str() == Some(kind), s["namespace"].as_str()) {
        (false, _) => String::new(),
        (true, Some(namespace)) => format!("{namespace}/{}", plain(&s["name"])),
        (true, None) => plain(&s["name"]),
    };
    join(&o["subjects"], one, "")
}

fn event_about(o: &Value) -> &Value {
    if o["involvedObject"].is_object() { &o["involvedObject"] } else { &o["regarding"] }
}

fn event_source(o: &Value) -> String {
    let source = if o["source"].is_object() { &o["source"] } else { &o["deprecatedSource"] };
    let reporter = [&source["component"], &o["reportingComponent"], &o["reportingController"]];
    let reporter = reporter.iter().filter_map(|v| v.as_str()).find(|v| !v.is_empty()).unwrap_or("");
    match source["host"].as_str() {
        Some(host) => format!("{reporter}, {host}"),
        None => reporter.to_string(),
    }
}

fn quota(o: &Value, limits: bool) -> Value {
    let hard = o["status"]["hard"].as_object().into_iter().flatten();
    let mut parts: Vec<String> = hard
        .filter(|(name, _)| name.starts_with("limits") == limits)
        .map(|(name, hard)| {
            format!("{name}: {}/{}", o["status"]["used"][name].as_str().unwrap_or("0"), plain(hard))
        })
        .collect();
    parts.sort();
    json!(parts.join(", "))
}

const ROLE: BuiltIn = ("Role", "string", 0, |o, _| {
    json!(format!("{}/{}", plain(&o["roleRef"]["kind"]), plain(&o["roleRef"]["name"])))
});
const USERS: BuiltIn = ("Users", "string", 1, |o, _| subjects(o, "User"));
const GROUPS: BuiltIn = ("Groups", "string", 1, |o, _| subjects(o, "Group"));
const ACCOUNTS: BuiltIn = ("ServiceAccounts", "string", 1, |o, _| subjects(o, "ServiceAccount"));
const WEBHOOKS: BuiltIn = ("Webhooks", "integer", 0, |o, _| json!(size(&o["webhooks"])));

/// Columns after the name.
#[rustfmt::skip] // A column a line reads as the table it is.
pub fn built_in(kind: &Kind) -> &'static [BuiltIn] {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "configmaps") => &[("Data", "string", 0, |o, _| json!(size(&o["data"]) + size(&o["binaryData"]))), AGE],
        ("", "secrets") => &[
            ("Type", "string", 0, |o, _| text(&o["type"])),
            ("Data", "string", 0, |o, _| json!(size(&o["data"]))),
            AGE,
        ],
        ("", "namespaces") => &[("Status", "string", 0, |o, _| text(&o["status"]["phase"])), AGE],
        ("", "nodes") => &[
            ("Status", "string", 0, |o, _| node_status(o)),
            ("Roles", "string", 0, |o, _| node_roles(o)),
            AGE,
            ("Version", "string", 0, |o, _| text(&o["status"]["nodeInfo"]["kubeletVersion"])),
            ("Internal-IP", "string", 1, |o, _| node_address(o, "InternalIP")),
            ("External-IP", "string", 1, |o, _| node_address(o, "ExternalIP")),
            ("OS-Image", "string", 1, |o, _| or(&o["status"]["nodeInfo"]["osImage"], "<unknown>")),
            ("Kernel-Version", "string", 1, |o, _| or(&o["status"]["nodeInfo"]["kernelVersion"], "<unknown>")),
            ("Container-Runtime", "string", 1, |o, _| or(&o["status"]["nodeInfo"]["containerRuntimeVersion"], "<unknown>")),
        ],
        ("", "pods") => &[
            ("Ready", "string", 0, |o, _| {
                let ready = o["status"]["containerStatuses"].as_array().into_iter().flatten();
                let ready = ready.filter(|c| c["ready"] == json!(true)).count();
                json!(format!("{ready}/{}", size(&o["spec"]["containers"])))
            }),
            ("Status", "string", 0, |o, _| json!(pod_status(o))),
            ("Restarts", "string", 0, |o, _| {
                let all = o["status"]["containerStatuses"].as_array().into_iter().flatten();
                json!(all.map(|c| number(&c["restartCount"])).sum::<i64>().to_string())
            }),
            AGE,
            ("IP", "string", 1, |o, _| or(&o["status"]["podIP"], "<none>")),
            ("Node", "string", 1, |o, _| or(&o["spec"]["nodeName"], "<none>")),
            ("Nominated Node", "string", 1, |o, _| or(&o["status"]["nominatedNodeName"], "<none>")),
            ("Readiness Gates", "string", 1, |_, _| json!("<none>")),
        ],
        ("", "services") => &[
            ("Type", "string", 0, |o, _| text(&o["spec"]["type"])),
            ("Cluster-IP", "string", 0, |o, _| or(&o["spec"]["clusterIP"], "<none>")),
            ("External-IP", "string", 0, |o, _| external(o)),
            ("Port(s)", "string", 0, |o, _| service_ports(&o["spec"]["ports"])),
            AGE,
            ("Selector", "string", 1, |o, _| labels_text(&o["spec"]["selector"])),
        ],
        ("", "endpoints") => &[
            ("Endpoints", "string", 0, |o, _| {
                let mut all = Vec::new();
                for subset in o["subsets"].as_array().into_iter().flatten() {
                    let port = subset["ports"][0]["port"].as_i64();
                    for address in subset["addresses"].as_array().into_iter().flatten() {
                        all.push(port.map_or_else(|| plain(&address["ip"]), |p| format!("{}:{p}", plain(&address["ip"]))));
                    }
                }
                if all.is_empty() { json!("<none>") } else { json!(all.join(",")) }
            }),
            AGE,
        ],
        ("", "serviceaccounts") => &[("Secrets", "string", 0, |o, _| json!(size(&o["secrets"]))), AGE],
        ("", "persistentvolumeclaims") => &[
            ("Status", "string", 0, |o, _| if terminating(o) { json!("Terminating") } else { text(&o["status"]["phase"]) }),
            ("Volume", "string", 0, |o, _| text(&o["spec"]["volumeName"])),
            ("Capacity", "string", 0, |o, _| text(&o["status"]["capacity"]["storage"])),
            ("Access Modes", "string", 0, |o, _| access_modes(&o["status"]["accessModes"])),
            ("StorageClass", "string", 0, |o, _| text(&o["spec"]["storageClassName"])),
            ("VolumeAttributesClass", "string", 0, |o, _| or(&o["spec"]["volumeAttributesClassName"], "<unset>")),
            AGE,
            ("VolumeMode", "string", 1, |o, _| text(&o["spec"]["volumeMode"])),
        ],
        ("", "persistentvolumes") => &[
            ("Capacity", "string", 0, |o, _| text(&o["spec"]["capacity"]["storage"])),
            ("Access Modes", "string", 0, |o, _| access_modes(&o["spec"]["accessModes"])),
            ("Reclaim Policy", "string", 0, |o, _| text(&o["spec"]["persistentVolumeReclaimPolicy"])),
            ("Status", "string", 0, |o, _| if terminating(o) { json!("Terminating") } else { text(&o["status"]["phase"]) }),
            ("Claim", "string", 0, |o, _| {
                let claim = &o["spec"]["claimRef"];
                if claim.is_object() { json!(format!("{}/{}", plain(&claim["namespace"]), plain(&claim["name"]))) } else { json!("") }
            }),
            ("StorageClass", "string", 0, |o, _| text(&o["spec"]["storageClassName"])),
            ("VolumeAttributesClass", "string", 0, |o, _| or(&o["spec"]["volumeAttributesClassName"], "<unset>")),
            ("Reason", "string", 0, |o, _| text(&o["status"]["reason"])),
            AGE,
            ("VolumeMode", "string", 1, |o, _| text(&o["spec"]["volumeMode"])),
        ],
        ("", "events") | ("events.k8s.io", "events") => &[
            ("Last Seen", "string", 0, |o, now| {
                let last = ["lastTimestamp", "deprecatedLastTimestamp", "eventTime", "firstTimestamp"];
                let last = last.iter().map(|k| &o[*k]).find(|v| v.is_string());
                ago(last.unwrap_or(&o["metadata"]["creationTimestamp"]), now)
            }),
            ("Type", "string", 0, |o, _| text(&o["type"])),
            ("Reason", "string", 0, |o, _| text(&o["reason"])),
            ("Object", "string", 0, |o, _| {
                let about = event_about(o);
                json!(format!("{}/{}", plain(&about["kind"]).to_lowercase(), plain(&about["name"])))
            }),
            ("Subobject", "string", 1, |o, _| text(&event_about(o)["fieldPath"])),
            ("Source", "string", 1, |o, _| json!(event_source(o))),
            ("Message", "string", 0, |o, _| if o["message"].is_string() { o["message"].clone() } else { text(&o["note"]) }),
            ("First Seen", "string", 1, |o, now| {
                let first = ["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"];
                let first = first.iter().map(|k| &o[*k]).find(|v| v.is_string());
                ago(first.unwrap_or(&o["metadata"]["creationTimestamp"]), now)
            }),
            ("Count", "string", 1, |o, _| json!(number(&o["count"]).max(number(&o["deprecatedCount"])).max(1))),
            ("Name", "string", 1, |o, _| o["metadata"]["name"].clone()),
        ],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &[
            ("Desired", "integer", 0, |o, _| json!(number(&o["spec"]["replicas"]))),
            ("Current", "integer", 0, |o, _| json!(number(&o["status"]["replicas"]))),
            ("Ready", "integer", 0, |o, _| json!(number(&o["status"]["readyReplicas"]))),
            AGE, CONTAINERS, IMAGES, SELECTOR,
        ],
        ("", "resourcequotas") => &[
            AGE,
            ("Request", "string", 0, |o, _| quota(o, false)),
            ("Limit", "string", 0, |o, _| quota(o, true)),
        ],
        ("", "limitranges") => &[CREATED],
        ("apps", "deployments") => &[
            ("Ready", "string", 0, |o, _| ready_of(o, "readyReplicas", &o["spec"]["replicas"])),
            ("Up-to-date", "string", 0, |o, _| json!(number(&o["status"]["updatedReplicas"]))),
            ("Available", "string", 0, |o, _| json!(number(&o["status"]["availableReplicas"]))),
            AGE, CONTAINERS, IMAGES, SELECTOR,
        ],
        ("apps", "statefulsets") => &[
            ("Ready", "string", 0, |o, _| ready_of(o, "readyReplicas", &o["spec"]["replicas"])),
            AGE, CONTAINERS, IMAGES,
        ],
        ("apps", "daemonsets") => &[
            ("Desired", "integer", 0, |o, _| json!(number(&o["status"]["desiredNumberScheduled"]))),
            ("Current", "integer", 0, |o, _| json!(number(&o["status"]["currentNumberScheduled"]))),
            ("Ready", "integer", 0, |o, _| json!(number(&o["status"]["numberReady"]))),
            ("Up-to-date", "integer", 0, |o, _| json!(number(&o["status"]["updatedNumberScheduled"]))),
            ("Available", "integer", 0, |o, _| json!(number(&o["status"]["numberAvailable"]))),
            ("Node Selector", "string", 0, |o, _| labels_text(&o["spec"]["template"]["spec"]["nodeSelector"])),
            AGE, CONTAINERS, IMAGES, SELECTOR,
        ],
        ("apps", "controllerrevisions") => &[
            ("Controller", "string", 0, |o, _| {
                let owner = &o["metadata"]["ownerReferences"][0];
                if owner.is_object() { json!(format!("{}.apps/{}", plain(&owner["kind"]).to_lowercase(), plain(&owner["name"]))) } else { json!("<none>") }
            }),
            ("Revision", "string", 0, |o, _| text(&o["revision"])),
            AGE,
        ],
        ("batch", "jobs") => &[
            ("Status", "string", 0, |o, _| json!(job_status(o))),
            ("Completions", "string", 0, |o, _| ready_of(o, "succeeded", &o["spec"]["completions"])),
            ("Duration", "string", 0, |o, now| job_duration(o, now)),
            AGE, CONTAINERS, IMAGES, SELECTOR,
        ],
        ("batch", "cronjobs") => &[
            ("Schedule", "string", 0, |o, _| text(&o["spec"]["schedule"])),
            ("Timezone", "string", 0, |o, _| or(&o["spec"]["timeZone"], "<none>")),
            ("Suspend", "boolean", 0, |o, _| json!(if o["spec"]["suspend"] == json!(true) { "True" } else { "False" })),
            ("Active", "integer", 0, |o, _| json!(size(&o["status"]["active"]))),
            ("Last Schedule", "string", 0, |o, now| ago(&o["status"]["lastScheduleTime"], now)),
            AGE,
        ],
        ("autoscaling", "horizontalpodautoscalers") => &[
            ("Reference", "string", 0, |o, _| {
                let target = &o["spec"]["scaleTargetRef"];
                json!(format!("{}/{}", plain(&target["kind"]), plain(&target["name"])))
            }),
            ("Targets", "string", 0, |o, _| {
                let one = |m: &Value| match m["resource"]["target"]["averageUtilization"].as_i64() {
                    Some(percent) => format!("{}: <unknown>/{percent}%", plain(&m["resource"]["name"])),
                    None => "<unknown>".into(),
                };
                match o["spec"]["targetCPUUtilizationPercentage"].as_i64() {
                    Some(percent) => json!(format!("cpu: <unknown>/{percent}%")),
                    None => join(&o["spec"]["metrics"], one, "<unknown>"),
                }
            }),
            ("MinPods", "string", 0, |o, _| o["spec"].get("minReplicas").map_or(json!("<unset>"), |n| json!(plain(n)))),
            ("MaxPods", "string", 0, |o, _| text(&o["spec"]["maxReplicas"])),
            ("Replicas", "string", 0, |o, _| json!(number(&o["status"]["currentReplicas"]))),
            AGE,
        ],
        ("policy", "poddisruptionbudgets") => &[
            ("Min Available", "string", 0, |o, _| o["spec"].get("minAvailable").map_or(json!("N/A"), |v| json!(plain(v)))),
            ("Max Unavailable", "string", 0, |o, _| o["spec"].get("maxUnavailable").map_or(json!("N/A"), |v| json!(plain(v)))),
            ("Allowed Disruptions", "integer", 0, |o, _| json!(number(&o["status"]["disruptionsAllowed"]))),
            AGE,
        ],
        ("networking.k8s.io", "ingresses") => &[
            ("Class", "string", 0, |o, _| or(&o["spec"]["ingressClassName"], "<none>")),
            ("Hosts", "string", 0, |o, _| ingress_hosts(o)),
            ("Address", "string", 0, |o, _| json!(addresses(&o["status"]).join(","))),
            ("Ports", "string", 0, |o, _| json!(if size(&o["spec"]["tls"]) > 0 { "80, 443" } else { "80" })),
            AGE,
        ],
        ("networking.k8s.io", "ingressclasses") => &[
            ("Controller", "string", 0, |o, _| text(&o["spec"]["controller"])),
            ("Parameters", "string", 0, |o, _| or(&o["spec"]["parameters"]["name"], "<none>")),
            AGE,
        ],
        ("networking.k8s.io", "networkpolicies") => &[("Pod-Selector", "string", 0, |o, _| selector(&o["spec"]["podSelector"])), AGE],
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => &[CREATED],
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => &[ROLE, AGE, USERS, GROUPS, ACCOUNTS],
        ("apiextensions.k8s.io", "customresourcedefinitions") => &[CREATED],
        ("apiregistration.k8s.io", "apiservices") => &[
            ("Service", "string", 0, |o, _| {
                let service = &o["spec"]["service"];
                if service.is_object() { json!(format!("{}/{}", plain(&service["namespace"]), plain(&service["name"]))) } else { json!("Local") }
            }),
            ("Available", "string", 0, |o, _| {
                let condition = &o["status"]["conditions"][0];
                if condition["status"] == json!("True") { json!("True") } else { json!(format!("False ({})", plain(&condition["reason"]))) }
            }),
            AGE,
        ],
        ("storage.k8s.io", "storageclasses") => &[
            ("Provisioner", "string", 0, |o, _| text(&o["provisioner"])),
            ("ReclaimPolicy", "string", 0, |o, _| or(&o["reclaimPolicy"], "Delete")),
            ("VolumeBindingMode", "string", 0, |o, _| or(&o["volumeBindingMode"], "Immediate")),
            ("AllowVolumeExpansion", "string", 0, |o, _| json!(o["allowVolumeExpansion"] == json!(true))),
            AGE,
        ],
        ("storage.k8s.io", "csinodes") => &[("Drivers", "integer", 0, |o, _| json!(size(&o["spec"]["drivers"]))), AGE],
        ("storage.k8s.io", "csidrivers") => &[
            ("AttachRequired", "boolean", 0, |o, _| text(&o["spec"]["attachRequired"])),
            ("PodInfoOnMount", "boolean", 0, |o, _| text(&o["spec"]["podInfoOnMount"])),
            ("StorageCapacity", "boolean", 0, |o, _| text(&o["spec"]["storageCapacity"])),
            ("TokenRequests", "string", 0, |o, _| join(&o["spec"]["tokenRequests"], |t| plain(&t["audience"]), "<unset>")),
            ("RequiresRepublish", "boolean", 0, |o, _| text(&o["spec"]["requiresRepublish"])),
            ("Modes", "string", 0, |o, _| join(&o["spec"]["volumeLifecycleModes"], plain, "<none>")),
            AGE,
        ],
        ("storage.k8s.io", "volumeattachments") => &[
            ("Attacher", "string", 0, |o, _| text(&o["spec"]["attacher"])),
            ("PV", "string", 0, |o, _| text(&o["spec"]["source"]["persistentVolumeName"])),
            ("Node", "string", 0, |o, _| text(&o["spec"]["nodeName"])),
            ("Attached", "boolean", 0, |o, _| json!(o["status"]["attached"] == json!(true))),
            AGE,
        ],
        ("coordination.k8s.io", "leases") => &[("Holder", "string", 0, |o, _| text(&o["spec"]["holderIdentity"])), AGE],
        ("discovery.k8s.io", "endpointslices") => &[
            ("AddressType", "string", 0, |o, _| text(&o["addressType"])),
            ("Ports", "string", 0, |o, _| join(&o["ports"], |p| plain(&p["port"]), "<unset>")),
            ("Endpoints", "string", 0, |o, _| join(&o["endpoints"], |e| plain(&e["addresses"][0]), "<unset>")),
            AGE,
        ],
        ("scheduling.k8s.io", "priorityclasses") => &[
            ("Value", "integer", 0, |o, _| json!(number(&o["value"]))),
            ("Global-Default", "boolean", 0, |o, _| json!(o["globalDefault"] == json!(true))),
            AGE,
            ("PreemptionPolicy", "string", 0, |o, _| text(&o["preemptionPolicy"])),
        ],
        ("node.k8s.io", "runtimeclasses") => &[("Handler", "string", 0, |o, _| text(&o["handler"])), AGE],
        ("certificates.k8s.io", "certificatesigningrequests") => &[
            AGE,
            ("SignerName", "string", 0, |o, _| text(&o["spec"]["signerName"])),
            ("Requestor", "string", 0, |o, _| text(&o["spec"]["username"])),
            ("Condition", "string", 0, |o, _| join(&o["status"]["conditions"], |c| plain(&c["type"]), "Pending")),
        ],
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => &[WEBHOOKS, AGE],
        _ => &[AGE],
    }
}

/// A span as kubectl shows it: `45s`, `3m20s`, `5h`, `12d`.
pub fn span(seconds: i64) -> String {
    let two = |a: i64, unit_a: &str, b: i64, unit_b: &str| {
        if b == 0 { format!("{a}{unit_a}") } else { format!("{a}{unit_a}{b}{unit_b}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => two(minutes, "m", s % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn seconds_of(time: &str) -> Option<i64> {
    time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// The age of something that began at `time`.
pub fn age_of(time: &str, now: i64) -> String {
    seconds_of(time).map_or_else(|| "<unknown>".into(), |then| span(now / 1_000_000_000 - then))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_shown_as_kubectl_shows_them() {
        let table = [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (5 * 3600 + 60, "5h1m"),
            (9 * 3600, "9h"),
            (49 * 3600, "2d1h"),
            (8 * 86_400, "8d"),
            (800 * 86_400, "2y70d"),
            (3000 * 86_400, "8y"),
        ];
        for (seconds, expect) in table {
            assert_eq!(span(seconds), expect, "{seconds}");
        }
    }
}
