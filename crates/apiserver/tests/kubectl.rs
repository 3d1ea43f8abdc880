//! Unmodified kubectl against the server: what a person at a terminal sees.
//!
//! Each test is a story told in commands; every answer is asserted. kubectl gets a home of its own,
//! because it caches discovery by host and port.

#![allow(clippy::unwrap_used, clippy::panic)] // In a test a failed unwrap is the failed test.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use apiserver::{ApiServer, Options, Serving};
use serde_json::{Value, json};

struct Cluster {
    server: ApiServer,
    serving: Serving,
    home: tempfile::TempDir,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

const APP: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, labels: {app: web}}
data: {color: red}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:1
        env: [{name: COLOR, value: red}, {name: SIZE, value: big}]
        ports: [{containerPort: 80}]
      - {name: log, image: "busybox:1"}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 80}]
"#;

impl Cluster {
    async fn start(options: Options) -> Cluster {
        let found = Command::new("kubectl").args(["version", "--client"]).output();
        assert!(
            found.is_ok_and(|o| o.status.success()),
            "these tests drive the real kubectl, and none is on PATH; install one (Debian: `apt-get install kubernetes-client`, \
             others: https://kubernetes.io/docs/tasks/tools/)"
        );
        let server = ApiServer::new(options);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serving = server.serve(listener).unwrap();
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config"), serving.kubeconfig()).unwrap();
        Cluster { server, serving, home }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"))
            .args(line.split_whitespace());
        command
    }

    fn said(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    fn run(&self, line: &str) -> Said {
        Cluster::said(self.command(line).output().unwrap())
    }

    fn run_with(&self, line: &str, input: &str) -> Said {
        let mut child = self.command(line);
        let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Cluster::said(child.wait_with_output().unwrap())
    }

    /// Runs a command that must succeed; returns its lines with runs of spaces squeezed.
    fn ok(&self, line: &str) -> Vec<String> {
        good(line, self.run(line))
    }

    fn ok_with(&self, line: &str, input: &str) -> Vec<String> {
        good(line, self.run_with(line, input))
    }

    /// Runs a command that must fail; returns what it complained about.
    fn refused(&self, line: &str, input: &str) -> String {
        let said = self.run_with(line, input);
        assert_ne!(said.code, 0, "kubectl {line} succeeded: {}", said.out);
        said.err
    }

    fn object(&self, line: &str) -> Value {
        let said = self.run(&format!("{line} -o json"));
        assert_eq!(said.code, 0, "kubectl {line}: {}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }
}

fn good(line: &str, said: Said) -> Vec<String> {
    assert_eq!(said.code, 0, "kubectl {line}: {}{}", said.out, said.err);
    said.out.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

async fn cluster() -> Cluster {
    Cluster::start(Options::deterministic(1)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_twice_changes_nothing_and_diff_tells_what_would_change() {
    let c = cluster().await;
    assert_eq!(c.ok("create namespace shop"), ["namespace/shop created"]);
    let applied = c.ok_with("-n shop apply -f -", APP);
    assert_eq!(applied, ["configmap/conf created", "deployment.apps/web created", "service/web created"]);
    let before = c.object("-n shop get deploy web")["metadata"]["resourceVersion"].clone();
    let applied = c.ok_with("-n shop apply -f -", APP);
    assert_eq!(
        applied,
        ["configmap/conf unchanged", "deployment.apps/web unchanged", "service/web unchanged"]
    );
    assert_eq!(c.object("-n shop get deploy web")["metadata"]["resourceVersion"], before);

    assert_eq!(c.run_with("-n shop diff -f -", APP).code, 0, "nothing would change");
    let blue = APP.replace("red", "blue").replace("      - {name: log, image: \"busybox:1\"}\n", "");
    let diff = c.run_with("-n shop diff -f -", &blue);
    assert_eq!(diff.code, 1, "{}", diff.err);
    for line in ["-          value: red", "+          value: blue", "-        name: log", "-  color: red"] {
        assert!(diff.out.contains(line), "{line:?} is not in\n{}", diff.out);
    }
    assert_eq!(
        c.object("-n shop get deploy web")["metadata"]["resourceVersion"],
        before,
        "a diff changes nothing"
    );

    let applied = c.ok_with("-n shop apply -f -", &blue);
    assert_eq!(
        applied,
        ["configmap/conf configured", "deployment.apps/web configured", "service/web unchanged"]
    );
    let web = c.object("-n shop get deploy web");
    let containers = &web["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().unwrap().len(), 1, "the container left out is gone");
    assert_eq!(containers[0]["env"][0]["value"], "blue");
    assert_eq!(containers[0]["terminationMessagePolicy"], "File", "what the server added stays");
    assert_eq!(web["metadata"]["generation"], 2);

    let dry = c.ok_with("-n shop apply --dry-run=server -f -", APP);
    assert_eq!(dry[0], "configmap/conf configured (server dry run)");
    assert_eq!(c.object("-n shop get cm conf")["data"]["color"], "blue");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_prints_the_columns_of_a_real_cluster() {
    let c = cluster().await;
    c.ok_with("apply -f -", APP);
    assert_eq!(c.ok("get deploy"), ["NAME READY UP-TO-DATE AVAILABLE AGE", "web 0/2 0 0 0s"]);
    assert_eq!(c.ok("get deploy -o wide")[1], "web 0/2 0 0 0s web,log nginx:1,busybox:1 app=web");
    assert_eq!(c.ok("get svc web")[0], "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE");
    assert!(c.ok("get svc web")[1].starts_with("web ClusterIP 10.96."));
    assert_eq!(c.ok("get ns")[..2], ["NAME STATUS AGE", "default Active 0s"]);
    assert_eq!(c.ok("get cm,deploy -l app=web -o name"), ["configmap/conf", "deployment.apps/web"]);
    let all = c.ok("get cm -A");
    assert_eq!(all[0], "NAMESPACE NAME DATA AGE");
    assert!(
        all.contains(&"default conf 1 0s".to_string())
            && all.contains(&"kube-system kube-root-ca.crt 1 0s".to_string())
    );
    assert_eq!(c.ok("get cm --field-selector metadata.name=conf --no-headers"), ["conf 1 0s"]);
    assert_eq!(c.ok("get all --no-headers").len(), 3, "two services and a deployment");
    let yaml = c.ok("get cm conf -o yaml");
    assert!(yaml.contains(&"color: red".to_string()), "{yaml:?}");
    assert!(!yaml.iter().any(|l| l.starts_with("managedFields")), "kubectl hides them");
    assert!(c.ok("get cm conf -o yaml --show-managed-fields").contains(&"managedFields:".to_string()));

    for n in 0..7 {
        c.ok(&format!("create configmap many-{n} --from-literal=n={n}"));
    }
    let paged = c.ok("get cm --chunk-size=3 -o name");
    assert_eq!(paged.len(), 9, "{paged:?}");
    let gone = c.refused("get cm nowhere", "");
    assert_eq!(gone, "Error from server (NotFound): configmaps \"nowhere\" not found\n");
    let unknown = c.refused("get gizmos", "");
    assert!(unknown.contains("the server doesn't have a resource type \"gizmos\""), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_what_happens_in_order() {
    let c = cluster().await;
    c.ok("create configmap first --from-literal=a=1");
    let mut watch = c.command("get configmap -w --output-watch-events --no-headers -l !hidden");
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (send, lines) = mpsc::channel();
    let stdout = BufReader::new(watch.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if send.send(line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).is_err() {
                break;
            }
        }
    });
    let expect = |line: &str| assert_eq!(lines.recv_timeout(Duration::from_secs(20)).unwrap(), line);
    expect("ADDED first 1");
    expect("ADDED kube-root-ca.crt 1");
    c.ok("create configmap second --from-literal=a=1 --from-literal=b=2");
    expect("ADDED second 2");
    c.ok("label configmap second x=y");
    expect("MODIFIED second 2");
    c.ok("label configmap second hidden=yes");
    expect("DELETED second 2");
    c.ok("delete configmap second first");
    expect("DELETED first 1");
    watch.kill().unwrap();
    watch.wait().unwrap();
    reader.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_knows_who_owns_a_field() {
    let c = cluster().await;
    let applied = c.ok_with("apply --server-side -f -", APP);
    assert_eq!(applied[1], "deployment.apps/web serverside-applied");
    let version = |c: &Cluster| c.object("get deploy web")["metadata"]["resourceVersion"].clone();
    let before = version(&c);
    c.ok_with("apply --server-side -f -", APP);
    assert_eq!(version(&c), before, "the same again is no change");

    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 5}\n";
    let said = c.refused("apply --server-side --field-manager=scaler -f -", other);
    assert!(
        said.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"),
        "{said}"
    );
    assert_eq!(c.object("get deploy web")["spec"]["replicas"], 2);
    c.ok_with("apply --server-side --field-manager=scaler --force-conflicts -f -", other);
    assert_eq!(c.object("get deploy web")["spec"]["replicas"], 5);
    let said = c.refused("apply --server-side -f -", APP);
    assert!(said.contains("conflict with \"scaler\": .spec.replicas"), "{said}");

    // Who applied a container and leaves it out takes it away; the others' fields stay.
    let less = APP.replace("      - {name: log, image: \"busybox:1\"}\n", "").replace("  replicas: 2\n", "");
    c.ok_with("apply --server-side -f -", &less);
    let web = c.object("get deploy web");
    assert_eq!(web["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(web["spec"]["replicas"], 5);
    assert_eq!(c.run_with("diff --server-side -f -", &less).code, 0);

    // From client-side to server-side apply and no field is left behind.
    let conf = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: moved}\ndata: {a: '1', b: '2'}\n";
    c.ok_with("apply -f -", conf);
    c.ok_with("apply --server-side -f -", &conf.replace(", b: '2'", ""));
    assert_eq!(c.object("get cm moved")["data"], json!({"a": "1"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_wait_for_finalizers_and_take_dependents_along() {
    let c = cluster().await;
    c.ok_with("apply -f -", APP);
    let uid = c.object("get deploy web")["metadata"]["uid"].as_str().unwrap().to_string();
    let child = |name: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  ownerReferences:\n  - {{apiVersion: apps/v1, kind: Deployment, \
             name: web, uid: {uid}}}\n"
        )
    };
    c.ok_with("apply -f -", &child("child"));
    // Newer ones add "from default namespace".
    assert!(c.ok("delete deploy web")[0].starts_with("deployment.apps \"web\" deleted"));
    assert!(c.refused("get cm child", "").contains("NotFound"));
    c.ok_with("apply -f -", &child("stray"));
    assert!(c.refused("get cm stray", "").contains("NotFound"), "its owner has been gone for long");

    c.ok_with(
        "apply -f -",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: held, finalizers: [example.com/hold]}\n",
    );
    c.ok("delete cm held --wait=false");
    assert!(c.object("get cm held")["metadata"]["deletionTimestamp"].is_string());
    c.ok("patch cm held --type=merge -p {\"metadata\":{\"finalizers\":null}}");
    assert!(c.refused("get cm held", "").contains("NotFound"));

    c.ok("create namespace shop");
    c.ok_with("-n shop apply -f -", APP);
    assert_eq!(c.ok("delete ns shop"), ["namespace \"shop\" deleted"]);
    assert!(c.refused("get ns shop", "").contains("NotFound"));
    assert_eq!(c.run("-n shop get all").err, "No resources found in shop namespace.\n");
    let said = c.refused("-n shop create configmap x", "");
    assert_eq!(said, "error: failed to create configmap: namespaces \"shop\" not found\n");

    // A namespace with something that holds on stays, says why, and takes nothing new.
    c.ok("create namespace slow");
    let held = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: held, finalizers: [example.com/hold]}\n";
    c.ok_with("-n slow apply -f -", held);
    c.ok("delete ns slow --wait=false");
    assert_eq!(c.ok("get ns slow --no-headers"), ["slow Terminating 0s"]);
    let said = c.refused("-n slow create configmap x", "");
    assert!(said.contains("because it is being terminated"), "{said}");
    let told = c.object("get ns slow")["status"]["conditions"].to_string();
    assert!(told.contains("example.com/hold in 1 resource instances"), "{told}");
    c.ok("-n slow patch cm held --type=json -p [{\"op\":\"remove\",\"path\":\"/metadata/finalizers\"}]");
    assert!(c.refused("get ns slow", "").contains("NotFound"));
    assert!(c.refused("delete ns kube-system", "").contains("this namespace may not be deleted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn everyday_verbs_work() {
    let c = cluster().await;
    c.ok_with("apply -f -", APP);
    assert_eq!(c.ok("label cm conf tier=front"), ["configmap/conf labeled"]);
    assert_eq!(c.ok("annotate cm conf note=hello"), ["configmap/conf annotated"]);
    let conf = c.object("get cm conf");
    assert_eq!(
        (&conf["metadata"]["labels"]["tier"], &conf["metadata"]["annotations"]["note"]),
        (&json!("front"), &json!("hello"))
    );
    c.ok("label cm conf tier-");
    assert!(c.object("get cm conf")["metadata"]["labels"]["tier"].is_null());
    assert_eq!(c.ok("scale deploy web --replicas=7"), ["deployment.apps/web scaled"]);
    assert_eq!(c.object("get deploy web")["spec"]["replicas"], 7);
    assert_eq!(c.ok("set image deploy/web web=nginx:2"), ["deployment.apps/web image updated"]);
    let containers = c.object("get deploy web")["spec"]["template"]["spec"]["containers"].clone();
    assert_eq!((&containers[0]["image"], &containers[1]["image"]), (&json!("nginx:2"), &json!("busybox:1")));

    c.ok("create secret generic key --from-literal=password=swordfish");
    assert_eq!(c.object("get secret key")["data"]["password"], "c3dvcmRmaXNo");
    c.ok("create deployment made --image=nginx");
    assert_eq!(c.object("get deploy made")["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    c.ok("create serviceaccount robot");
    c.ok("create role reader --verb=get,list --resource=pods");
    assert_eq!(c.object("get role reader")["rules"][0]["verbs"], json!(["get", "list"]));
    c.ok("create rolebinding robots --role=reader --serviceaccount=default:robot");
    assert_eq!(c.ok("get rolebinding robots --no-headers"), ["robots Role/reader 0s"]);
    c.ok("run lone --image=busybox:1");
    assert_eq!(c.ok("get pod lone --no-headers"), ["lone 0/1 Pending 0 0s"]);
    c.ok("expose deployment made --port=80 --type=NodePort");
    let port = c.object("get svc made")["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30_000..=32_767).contains(&port));
    c.ok("create cronjob nightly --image=busybox --schedule=@daily");
    assert_eq!(c.ok("get cronjob nightly --no-headers"), ["nightly @daily <none> False 0 <none> 0s"]);

    c.ok_with(
        "create -f -",
        "apiVersion: v1\nkind: Event\nmetadata: {name: web.1}\ninvolvedObject: {apiVersion: apps/v1, kind: Deployment, name: web, \
         namespace: default}\nreason: Scaled\nmessage: it grew\ntype: Normal\n",
    );
    let described = c.ok("describe deploy web").join("\n");
    assert!(described.contains("Replicas: 7 desired"), "{described}");
    assert_eq!(c.ok("auth can-i create pods"), ["yes"]);
    let strict = APP.replace("replicas: 2", "replicsa: 2");
    let said = c.refused("apply -f -", &strict);
    assert!(said.contains("unknown field \"spec.replicsa\""), "{said}");
    let said = c.refused("logs lone", "");
    assert!(said.contains("needs a node"), "{said}");
    assert_eq!(c.ok("get --raw /readyz"), ["ok"]);
    assert!(c.ok("version").contains(&"Server Version: v1.33.1".to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_explain_know_every_kind() {
    let c = cluster().await;
    let resources = c.ok("api-resources --no-headers");
    for line in [
        "pods po v1 true Pod",
        "deployments deploy apps/v1 true Deployment",
        "customresourcedefinitions crd,crds apiextensions.k8s.io/v1 false CustomResourceDefinition",
        "selfsubjectaccessreviews authorization.k8s.io/v1 false SelfSubjectAccessReview",
    ] {
        assert!(resources.contains(&line.to_string()), "{line:?} is not in {resources:?}");
    }
    assert!(c.ok("api-versions").contains(&"autoscaling/v1".to_string()));
    assert!(
        c.ok("explain deployment.spec.strategy")
            .join("\n")
            .contains("rollingUpdate <RollingUpdateDeployment>")
    );
    assert!(c.ok("explain pod --recursive").contains(&"mountPath <string>".to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_kind_is_served_as_soon_as_it_is_defined() {
    let c = cluster().await;
    let definition = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    schema: &schema
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1}
              color: {type: string, default: red}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema: *schema
"#;
    c.ok_with("apply -f -", definition);
    assert_eq!(
        c.ok("wait --for=condition=Established crd/widgets.example.com"),
        ["customresourcedefinition.apiextensions.k8s.io/widgets.example.com condition met"]
    );
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\nspec: {size: 3}\nstatus: {ignored: true}\n";
    assert_eq!(c.ok_with("apply -f -", widget), ["widget.example.com/a created"]);
    let again = widget.replace("status: {ignored: true}\n", "");
    assert_eq!(c.ok_with("apply -f -", &again), ["widget.example.com/a configured"], "status was given up");
    assert_eq!(c.ok_with("apply -f -", &again), ["widget.example.com/a unchanged"]);
    assert_eq!(c.ok("get wd"), ["NAME SIZE READY", "a 3"]);
    let a = c.object("get widget a");
    assert_eq!((&a["spec"]["color"], &a["status"]), (&json!("red"), &Value::Null));
    c.ok("patch widget a --subresource=status --type=merge -p {\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}");
    assert_eq!(c.ok("get wd --no-headers"), ["a 3 True"]);
    assert_eq!(c.object("get widget a")["metadata"]["generation"], 1, "status is no new generation");
    c.ok("scale widget a --replicas=4");
    assert_eq!(c.object("get widget a")["spec"]["size"], 4);
    let old = c.run("get widgets.v1beta1.example.com a -o json");
    assert!(old.err.contains("example.com/v1beta1 Widget is deprecated"), "{}", old.err);
    assert!(old.out.contains("example.com/v1beta1"));
    let said = c.refused("apply -f -", &widget.replace("size: 3", "size: 0"));
    assert!(said.contains("spec.size") && said.contains("is invalid"), "{said}");
    let said = c.refused("apply -f -", &widget.replace("size: 3", "size: 3, typo: 1"));
    assert!(said.contains("unknown field \"spec.typo\""), "{said}");
    assert!(c.ok("get all --no-headers").iter().any(|l| l.starts_with("widget.example.com/a")));
    c.ok("delete crd widgets.example.com");
    let said = c.refused("get widgets", "");
    assert!(said.contains("the server could not find the requested resource"), "{said}");
    assert!(!c.server.dump().iter().any(|o| o["kind"] == "Widget"), "its objects went with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_can_be_read_with_everything_and_changed_with_nothing() {
    let c = Cluster::start(Options::deterministic(1).read_only()).await;
    let refused = c.server.load([
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "status": {"phase": "Active"}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop", "uid": "u-1",
            "resourceVersion": "4711", "creationTimestamp": "2025-12-31T00:00:00Z", "generation": 3},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 2, "availableReplicas": 2}}),
        json!({"apiVersion": "acme.io/v1", "kind": "Policy", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"x": 1}}),
    ]);
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(c.ok("-n shop get deploy --no-headers"), ["web 2/2 2 2 24h"]);
    assert_eq!(c.object("-n shop get deploy web")["metadata"]["resourceVersion"], "4711");
    assert_eq!(
        c.ok("-n shop get policies --no-headers")[0].split(' ').next(),
        Some("p"),
        "its definition is unknown, it is not"
    );
    assert!(
        c.ok("-n shop describe deploy web")
            .contains(&"Replicas: 2 desired | 2 updated | 0 total | 2 available | 0 unavailable".to_string())
    );
    let before = c.server.dump();
    for (line, input) in [
        ("-n shop delete deploy web", ""),
        ("-n shop scale deploy web --replicas=0", ""),
        ("-n shop label deploy web a=b", ""),
        ("create namespace x", ""),
        ("-n shop apply -f -", APP),
        ("-n shop apply --server-side -f -", APP),
    ] {
        let said = c.refused(line, input);
        assert!(said.contains("this server is read-only"), "{line}: {said}");
    }
    assert_eq!(c.server.dump(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_aggregated_api_is_reported_and_the_rest_works() {
    let c = cluster().await;
    c.ok_with(
        "apply -f -",
        "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1beta1.metrics.k8s.io}\nspec:\n  group: metrics.k8s.io\n  \
         version: v1beta1\n  groupPriorityMinimum: 100\n  versionPriority: 100\n  service: {name: metrics, namespace: kube-system}\n",
    );
    assert_eq!(
        c.ok("get apiservice --no-headers"),
        ["v1beta1.metrics.k8s.io kube-system/metrics False (ServiceNotFound) 0s"]
    );
    // kubectl leaves a stale group out; other clients see it as stale, or ask for it and are told 503.
    let said = c.run("api-resources");
    assert!(said.out.contains("deployments") && !said.out.contains("metrics.k8s.io"), "{}", said.out);
    assert!(c.run("get cm").out.contains("kube-root-ca.crt"));
    let raw = c.refused("get --raw /apis/metrics.k8s.io/v1beta1", "");
    assert!(raw.contains("unable to handle the request"), "{raw}");
    c.ok("delete apiservice v1beta1.metrics.k8s.io");
    assert!(c.refused("get --raw /apis/metrics.k8s.io/v1beta1", "").contains("NotFound"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_is_told_which_one_is_missing() {
    let options = Options::deterministic(1).deny(|a| a.resource == "secrets" && a.namespace != "default");
    let c = Cluster::start(options).await;
    c.ok("get secrets");
    let said = c.refused("get secrets -A", "");
    assert_eq!(
        said,
        "Error from server (Forbidden): secrets is forbidden: User \"embedded\" cannot list resource \"secrets\" in API group \"\" \
         at the cluster scope\n"
    );
    assert_eq!(c.run("auth can-i get secrets -n kube-system").out, "no\n");
    assert_eq!(c.ok("auth can-i get secrets"), ["yes"]);
    c.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_waited_for_described_and_rolled_back() {
    let volumes = tempfile::tempdir().unwrap();
    let c = Cluster::start(Options::deterministic(1).simulate(volumes.path())).await;
    c.ok_with("apply -f -", APP);
    assert_eq!(
        c.ok("rollout status deploy/web --timeout=10s"),
        ["deployment \"web\" successfully rolled out"]
    );
    assert_eq!(
        c.ok("wait --for=condition=Available deploy/web --timeout=10s"),
        ["deployment.apps/web condition met"]
    );
    let pods = c.ok("wait --for=condition=Ready pod -l app=web --timeout=10s");
    assert_eq!(pods.len(), 2, "{pods:?}");
    let path = "--for=jsonpath={.status.readyReplicas}=2";
    assert_eq!(c.ok(&format!("wait {path} deploy/web --timeout=10s")), ["deployment.apps/web condition met"]);
    c.ok("set image deploy/web web=nginx:2");
    c.ok("rollout status deploy/web --timeout=10s");
    let history = c.ok("rollout history deploy/web");
    assert!(history.iter().any(|line| line.starts_with("2 ")), "{history:?}");
    c.ok("rollout undo deploy/web");
    c.ok("rollout status deploy/web --timeout=10s");
    let image = c.object("get deploy web")["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image, "nginx:1");
    c.ok("create quota q --hard=pods=9");
    for what in [
        "pod -l app=web",
        "service web",
        "node node-1",
        "storageclass standard",
        "namespace default",
        "quota q",
    ] {
        let said = c.ok(&format!("describe {what}"));
        assert!(said.iter().any(|line| line.starts_with("Name: ")), "{what}: {said:?}");
    }
    assert!(c.ok("describe quota q").contains(&"pods 2 9".to_string()));
    c.ok("delete deploy web");
    c.ok("wait --for=delete pod -l app=web --timeout=10s");
    assert!(c.refused("wait --for=condition=Available deploy/web --timeout=1s", "").contains("not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_admission_refuses_a_user_reads_and_a_controller_complains_of() {
    let volumes = tempfile::tempdir().unwrap();
    let c = Cluster::start(Options::deterministic(1).simulate(volumes.path())).await;
    c.ok("create quota q --hard=pods=1");
    c.ok("run one --image=busybox:1");
    let said = c.refused("run two --image=busybox:1", "");
    assert!(said.contains("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"), "{said}");
    c.ok_with("apply -f -", APP);
    let events = c.ok("events").join("\n");
    assert!(events.contains("FailedCreate") && events.contains("exceeded quota"), "{events}");
    c.ok("delete quota q");
    c.ok("label ns default pod-security.kubernetes.io/enforce=baseline");
    let said = c.refused("run bad --image=busybox:1 --overrides={\"spec\":{\"hostNetwork\":true}}", "");
    assert!(
        said.contains("violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"),
        "{said}"
    );
    let rules = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ranges.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: ranges, kind: Range}
  versions:
  - name: v1
    served: true
    storage: true
    selectableFields: [{jsonPath: .spec.class}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations:
            - {rule: "self.min <= self.max", message: "min must not exceed max"}
            - {rule: "!has(oldSelf.class) || self.class == oldSelf.class", message: "class cannot change"}
            properties: {min: {type: integer}, max: {type: integer}, class: {type: string}}
"#;
    c.ok_with("apply -f -", rules);
    let range = |min: i64, class: &str| {
        format!(
            "apiVersion: example.com/v1\nkind: Range\nmetadata: {{name: r}}\nspec: {{min: {min}, max: 3, class: {class}}}\n"
        )
    };
    let said = c.refused("create -f -", &range(5, "a"));
    assert!(said.contains("spec: Invalid value: \"object\": min must not exceed max"), "{said}");
    c.ok_with("apply -f -", &range(1, "a"));
    let said = c.refused("apply -f -", &range(1, "b"));
    assert!(said.contains("class cannot change"), "{said}");
    assert_eq!(
        c.ok("get ranges --field-selector spec.class=a --no-headers -o name"),
        ["range.example.com/r"]
    );
    assert!(c.ok("get ranges --field-selector spec.class=b -o name").is_empty());
    let said = c.refused("apply -f -", &rules.replace("self.min <= self.max", "self.min <<= nonsense"));
    assert!(said.contains("compilation failed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_took_too_long_can_go_on_and_a_watch_of_the_past_says_gone() {
    let c = Cluster::start(Options { history: 5, ..Options::deterministic(1) }).await;
    for name in ["a", "b", "c"] {
        c.ok(&format!("create configmap {name}"));
    }
    let page =
        |path: &str| -> Value { serde_json::from_str(&c.run(&format!("get --raw {path}")).out).unwrap() };
    let path = "/api/v1/namespaces/default/configmaps";
    let first = page(&format!("{path}?limit=1"));
    let (token, then) =
        (first["metadata"]["continue"].as_str().unwrap(), first["metadata"]["resourceVersion"].clone());
    for _ in 0..10 {
        c.ok("annotate configmap a --overwrite x=y");
        c.ok("annotate configmap a x-");
    }
    // kubectl shows only the message of a failed raw request, so the token is asked for directly.
    let client = kube::Client::new(c.server.router(), "default");
    let ask = async |path: String| {
        let request = http::Request::builder().uri(path).body(Vec::new()).unwrap();
        let response = client.send(request.map(Into::into)).await.unwrap();
        let body =
            axum::body::to_bytes(axum::body::Body::new(response.into_body()), usize::MAX).await.unwrap();
        serde_json::from_slice::<Value>(body.split(|b| *b == b'\n').next().unwrap()).unwrap()
    };
    let gone = ask(format!("{path}?limit=1&continue={token}")).await;
    assert_eq!((&gone["code"], &gone["reason"]), (&json!(410), &json!("Expired")));
    let next = gone["metadata"]["continue"].as_str().unwrap();
    let rest = ask(format!("{path}?continue={next}")).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 3, "what follows the first page, as things are now");
    let event = ask(format!("{path}?watch=true&resourceVersion={}", then.as_str().unwrap())).await;
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
}
