//! Locks are let go, whatever happens. Twice: in a model, where a thousand ways to fail are tried; and in real
//! shells, where it is seen that the scripts do what the model says.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use app::object::Object;
use app::rules::plan::{RulePlan, plan};
use app::rules::run::{Around, NoCut, around};
use app::rules::{Command, ExecOutcome, Hands, HandsError, Rule, Side, Target, script};
use async_trait::async_trait;
use proptest::prelude::*;
use repo::Cancel;
use serde_json::json;

fn pod(name: &str, app: &str) -> Object {
    Object(json!({"metadata":{"namespace":"shop","name":name,"labels":{"app":app}},
        "spec":{"containers":[{"name":"main"}]},"status":{"phase":"Running"}}))
}

fn rule(spec: &str) -> Rule {
    Rule::parse(
        &format!("apiVersion: holdfast.dev/v1alpha1\nkind: Rule\nmetadata: {{name: r}}\nspec:\n{spec}\n"),
        Side::Pre,
    )
    .unwrap()
}

// ---- The model ------------------------------------------------------------------------------------------------

/// How one command ends in the model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    Well,
    Badly,
    /// No answer, and it was done.
    SilentlyDone,
    /// No answer, and nothing was done.
    SilentlyNot,
    PodGone,
}

#[derive(Default)]
struct Model {
    /// Script of endings, used up in order; after it everything ends well.
    ends: Vec<Ends>,
    next: usize,
    /// Locks as (pod, directory): acquired, in order; and let go, in order.
    held: Vec<(String, String)>,
    let_go: Vec<(String, String)>,
    gone: BTreeSet<String>,
    ran: Vec<String>,
}

struct Pods(Mutex<Model>);

#[async_trait]
impl Hands for Pods {
    async fn exec(
        &self,
        target: &Target,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, HandsError> {
        let mut model = self.0.lock().unwrap();
        let name = command.get(3).cloned().unwrap_or_default();
        let is_ours = name.starts_with("holdfast-");
        let key = (target.pod.clone(), command.get(4).cloned().unwrap_or_default());
        if model.gone.contains(&target.pod) {
            return Err(HandsError::Gone("no such pod".into()));
        }
        // Checks and releases must work in the end, or nothing can be said: they fail at most once in a row.
        let ends = match model.ends.get(model.next) {
            Some(ends) if !is_ours || name == "holdfast-lock" || name == "holdfast-hold" => *ends,
            Some(Ends::SilentlyDone) if name != "holdfast-check" => Ends::SilentlyDone,
            _ => Ends::Well,
        };
        model.next += 1;
        let silent = Err(HandsError::Timeout(timeout));
        let code = |exit_code| Ok(ExecOutcome { exit_code, ..ExecOutcome::default() });
        if ends == Ends::PodGone {
            model.gone.insert(target.pod.clone());
            return Err(HandsError::Gone("evicted".into()));
        }
        match name.as_str() {
            "holdfast-lock" | "holdfast-hold" => match ends {
                Ends::Well => {
                    model.held.push(key);
                    code(0)
                }
                Ends::SilentlyDone => {
                    model.held.push(key);
                    silent
                }
                Ends::SilentlyNot => silent,
                _ => code(1),
            },
            "holdfast-release" | "holdfast-let-go" => {
                let is_held = model.held.contains(&key);
                let was_let_go = model.let_go.contains(&key);
                if is_held && !was_let_go {
                    model.let_go.push(key);
                    if ends == Ends::SilentlyDone { silent } else { code(0) }
                } else {
                    code(script::NO_LOCK)
                }
            }
            "holdfast-check" => {
                code(if model.held.contains(&key) && !model.let_go.contains(&key) { 0 } else { 1 })
            }
            _ => {
                model.ran.push(format!("{} {}", target.pod, command.join(" ")));
                match ends {
                    Ends::Well => code(0),
                    Ends::Badly => code(7),
                    _ => silent,
                }
            }
        }
    }
}

fn three_tasks(on_error: &str) -> RulePlan {
    let rule = rule(&format!(
        "  pre:
  - {{podSelector: {{app: web}}, command: [flush], onError: {on_error}}}
  - {{podSelector: {{app: db}}, lock: {{command: freeze, release: thaw}}, onError: {on_error}}}
  - {{podSelector: {{app: db}}, command: [sync], onError: {on_error}}}
  - {{podSelector: {{app: web}}, lock: {{command: \"stop; ${{WAIT_CMD}}\"}}, onError: {on_error}}}
  - {{podSelector: {{app: db}}, lock: {{command: pause, release: go}}, onError: {on_error}}}
  post:
  - {{podSelector: {{app: db}}, command: [tidy]}}"
    ));
    plan(&[rule], &[pod("db-0", "db"), pod("db-1", "db"), pod("web-0", "web")], None)
}

fn ending() -> impl Strategy<Value = Ends> {
    prop_oneof![
        6 => Just(Ends::Well),
        1 => Just(Ends::Badly),
        1 => Just(Ends::SilentlyDone),
        1 => Just(Ends::SilentlyNot),
        1 => Just(Ends::PodGone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_step_fails_every_acquired_lock_is_released_once_and_backwards(
        ends in prop::collection::vec(ending(), 0..20),
        tolerant: bool,
        cancel_in_cut: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let plan = three_tasks(if tolerant { "Continue" } else { "Fail" });
        let pods = Pods(Mutex::new(Model { ends, ..Model::default() }));
        let cancel = Cancel::default();
        let stop = cancel.clone();
        let done: Around<()> = runtime.block_on(around(&plan, &pods, "t", &cancel, async move {
            if cancel_in_cut {
                stop.cancel();
            }
        }));
        let model = pods.0.into_inner().unwrap();
        // Held in pods that still exist: a pod that is gone took its lock with it.
        let alive = |locks: &[(String, String)]| locks.iter().filter(|(pod, _)| !model.gone.contains(pod)).cloned().collect::<Vec<_>>();
        let (held, let_go) = (alive(&model.held), alive(&model.let_go));
        let mut sorted = (held.clone(), let_go.clone());
        sorted.0.sort();
        sorted.1.sort();
        prop_assert_eq!(&sorted.0, &sorted.1, "each exactly once");
        // Backwards by task: the number of the task stands in the directory's name.
        let task = |(_, directory): &(String, String)| directory.split('-').nth(2).unwrap().parse::<usize>().unwrap();
        prop_assert!(let_go.iter().map(task).collect::<Vec<_>>().is_sorted_by(|a, b| a >= b), "{:?}", let_go);
        // Who is said to have been held was, and for every lock planned for it.
        for target in &done.kept {
            let planned = if target.pod == "web-0" { 1 } else { 2 };
            prop_assert_eq!(model.held.iter().filter(|(pod, _)| *pod == target.pod).count(), planned);
            prop_assert!(done.locked.contains(target));
        }
        // Nothing after a failure but the releases: the clean-up belongs to a cut that was.
        prop_assert!(done.cut.is_ok() || !model.ran.iter().any(|r| r.ends_with("tidy")));
        prop_assert!(done.findings.iter().all(|f| f.code != "lock-not-released"), "{:?}", done.findings);
    }
}

#[tokio::test]
async fn cancelling_before_the_cut_lets_everything_go_and_there_is_no_cut() {
    let pods = Pods(Mutex::default());
    let cancel = Cancel::default();
    cancel.cancel();
    let done =
        around(&three_tasks("Fail"), &pods, "t", &cancel, async { panic!("there must be no cut") }).await;
    let () = match done.cut {
        Err(NoCut::Cancelled) => (),
        other => panic!("{other:?}"),
    };
    assert!(pods.0.into_inner().unwrap().ran.is_empty());
}

// ---- Real shells ----------------------------------------------------------------------------------------------

/// "Pods" that are shells of this machine. `/tmp` of a lock's directory becomes a folder of the test.
struct Shells {
    root: PathBuf,
    /// Commands whose connection is cut: the client stops waiting, the shell goes on, as with a real exec.
    cut_off: bool,
}

#[async_trait]
impl Hands for Shells {
    async fn exec(
        &self,
        _: &Target,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, HandsError> {
        let root = self.root.to_str().unwrap().to_owned();
        let command: Vec<String> =
            command.iter().map(|a| a.replace("/tmp/holdfast-", &format!("{root}/holdfast-"))).collect();
        let mut process = tokio::process::Command::new(&command[0]);
        process
            .args(&command[1..])
            .current_dir(&root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = process.spawn().map_err(|e| HandsError::Failed(e.to_string()))?;
        let is_lock = command.get(3).is_some_and(|n| n == "holdfast-lock" || n == "holdfast-hold");
        let patience = if self.cut_off && is_lock { Duration::from_millis(300) } else { timeout };
        match tokio::time::timeout(patience, child.wait_with_output()).await {
            Ok(output) => {
                let output = output.unwrap();
                Ok(ExecOutcome {
                    exit_code: output.status.code().unwrap_or(-1),
                    stdout: output.stdout,
                    stderr: output.stderr,
                })
            }
            Err(_) => Err(HandsError::Timeout(patience)),
        }
    }
}

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { folder: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn shells(&self) -> Shells {
        Shells { root: self.root().into(), cut_off: false }
    }

    /// What the commands wrote into the log, one word each.
    fn log(&self) -> Vec<String> {
        std::fs::read_to_string(self.root().join("log"))
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    async fn eventually(&self, expected: &[&str]) {
        for _ in 0..100 {
            if self.log() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(self.log(), expected);
    }

    /// No directory of a lock is left behind.
    fn is_tidy(&self) -> bool {
        std::fs::read_dir(self.root())
            .unwrap()
            .all(|e| !e.unwrap().file_name().to_string_lossy().starts_with("holdfast-"))
    }
}

fn one(spec: &str) -> RulePlan {
    plan(&[rule(spec)], &[pod("db-0", "db")], None)
}

const FREEZE: &str =
    "  pre: [{podSelector: {app: db}, lock: {command: echo lock >> log, release: echo free >> log}}]";
const HOLD: &str =
    "  pre: [{podSelector: {app: db}, lock: {command: \"echo lock >> log; ${WAIT_CMD}; echo free >> log\"}}]";

#[tokio::test]
async fn a_lock_holds_during_the_cut_and_is_free_after_it() {
    for spec in [FREEZE, HOLD] {
        let bench = Bench::new();
        let done = around(&one(spec), &bench.shells(), "t", &Cancel::default(), async { bench.log() }).await;
        assert_eq!(done.cut.unwrap(), ["lock"], "{spec}");
        assert_eq!(done.kept.len(), 1, "{spec} {:?}", done.findings);
        assert_eq!(bench.log(), ["lock", "free"], "{spec}");
        assert!(done.findings.is_empty(), "{:?}", done.findings);
        assert!(bench.is_tidy(), "{spec}");
    }
}

#[tokio::test]
async fn a_cut_that_takes_longer_than_the_hold_is_not_counted_and_the_guard_lets_go() {
    for spec in [FREEZE, HOLD] {
        let bench = Bench::new();
        let spec = format!("  hold: 1s\n{spec}");
        let done = around(&one(&spec), &bench.shells(), "t", &Cancel::default(), async {
            tokio::time::sleep(Duration::from_millis(3500)).await;
            bench.log()
        })
        .await;
        assert_eq!(done.cut.unwrap(), ["lock", "free"], "the guard let go during the cut: {spec}");
        assert_eq!(done.kept.len(), 0);
        assert_eq!(done.locked.len(), 1);
        assert!(done.findings.iter().any(|f| f.code == "lock-lost"), "{:?}", done.findings);
        assert_eq!(bench.log(), ["lock", "free"], "and not a second time: {spec}");
        assert!(bench.is_tidy());
    }
}

#[tokio::test]
async fn a_client_that_dies_leaves_nothing_locked() {
    for spec in [FREEZE, HOLD] {
        let bench = Bench::new();
        let plan = one(&format!("  hold: 1s\n{spec}"));
        let (shells, cancel) = (bench.shells(), Cancel::default());
        // Dropping the future in the middle of the cut is what a killed process does: nothing more is run by us.
        let cut = around(&plan, &shells, "t", &cancel, std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_millis(700), cut).await.is_err());
        assert_eq!(bench.log(), ["lock"], "{spec}");
        bench.eventually(&["lock", "free"]).await;
    }
}

#[tokio::test]
async fn a_lock_that_comes_after_we_gave_up_waiting_is_let_go() {
    for (spec, expected) in [
        // The release runs at once (it cannot know), and the lock itself once more when it comes at last.
        (
            "  pre: [{podSelector: {app: db}, lock: {command: sleep 1; echo lock >> log, release: echo free >> log}}]",
            vec!["free", "lock", "free"],
        ),
        (
            "  pre: [{podSelector: {app: db}, lock: {command: \"sleep 1; echo lock >> log; ${WAIT_CMD}; echo free >> log\"}}]",
            vec!["lock", "free"],
        ),
    ] {
        let bench = Bench::new();
        let shells = Shells { cut_off: true, ..bench.shells() };
        let done = around(&one(spec), &shells, "t", &Cancel::default(), async {}).await;
        assert!(matches!(done.cut, Err(NoCut::Failed(_))), "{:?}", done.cut);
        bench.eventually(&expected).await;
    }
}

#[tokio::test]
async fn a_lock_that_fails_holds_nothing_and_says_why() {
    for (spec, why) in [
        (
            "  pre: [{podSelector: {app: db}, lock: {command: echo no disk >&2; exit 3, release: echo free >> log}}]",
            "exit code 3: no disk",
        ),
        (
            "  pre: [{podSelector: {app: db}, lock: {command: \"echo oops; true || ${WAIT_CMD}\"}}]",
            "it ended without waiting, so it holds nothing: oops",
        ),
    ] {
        let bench = Bench::new();
        let done = around(&one(spec), &bench.shells(), "t", &Cancel::default(), async {}).await;
        let expected = format!("spec.pre[0] of rule r in shop/db-0 (main): {why}");
        assert_eq!(done.cut, Err(NoCut::Failed(expected)));
        assert_eq!(bench.log(), Vec::<String>::new(), "nothing was locked, so nothing is let go");
        assert!(bench.is_tidy());
    }
}

#[tokio::test]
async fn a_release_that_fails_is_tried_again_and_then_told() {
    let bench = Bench::new();
    let spec = "  pre: [{podSelector: {app: db}, lock: {command: echo lock >> log, release: echo try >> log; exit 1}}]";
    let done = around(&one(spec), &bench.shells(), "t", &Cancel::default(), async {}).await;
    assert_eq!(bench.log(), ["lock", "try", "try", "try"]);
    assert!(
        done.findings.iter().any(|f| f.code == "lock-not-released" && f.severity == repo::Severity::Error)
    );
}

#[tokio::test]
async fn the_second_of_a_pair_of_hooks_is_run_whatever_happens_and_nothing_is_claimed() {
    for (cut_fails, expected) in [(false, vec!["freeze", "thaw"]), (true, vec!["freeze", "thaw"])] {
        let bench = Bench::new();
        let mut db = pod("db-0", "db");
        db.0["metadata"]["annotations"] = json!({
            "pre.hook.backup.velero.io/command": r#"["sh","-c","echo freeze >> log"]"#,
            "post.hook.backup.velero.io/command": r#"["sh","-c","echo thaw >> log"]"#});
        let mut plan = RulePlan::default();
        app::rules::velero::add(&mut plan, [&db]);
        if cut_fails {
            // A later step fails, so that there is no cut.
            plan.before.extend(one("  pre: [{podSelector: {app: db}, command: exit 1}]").before);
        }
        let done = around(&plan, &bench.shells(), "t", &Cancel::default(), async {}).await;
        assert_eq!(done.cut.is_err(), cut_fails);
        assert_eq!(bench.log(), expected);
        assert!(
            done.locked.is_empty() && done.kept.is_empty(),
            "what hooks do is not known to hold anything"
        );
    }
}

#[tokio::test]
async fn words_survive_the_shell() {
    let bench = Bench::new();
    let word = "it's $HOME \"quoted\" `x`\n;";
    let command = Command(vec!["printf".into(), "%s".into(), word.into()]);
    let target = Target { namespace: "shop".into(), pod: "db-0".into(), container: None };
    let end = bench
        .shells()
        .exec(&target, &Command::shell(&command.as_shell()).0, Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(String::from_utf8(end.stdout).unwrap(), word);
}

#[tokio::test]
async fn many_pods_are_locked_together_and_the_steps_keep_their_order() {
    let bench = Bench::new();
    let rule = rule(
        "  pre:\n  - {podSelector: {app: db}, command: echo flush >> log, singlePod: true}\n  - {podSelector: {app: db}, lock: {command: echo lock >> log, release: echo free >> log}}\n  post: [{podSelector: {app: db}, command: echo done >> log, singlePod: true}]",
    );
    let pods: Vec<Object> = (0..3).map(|n| pod(&format!("db-{n}"), "db")).collect();
    let done = around(&plan(&[rule], &pods, None), &bench.shells(), "t", &Cancel::default(), async {}).await;
    assert_eq!(bench.log(), ["flush", "lock", "lock", "lock", "free", "free", "free", "done"]);
    assert_eq!(done.kept.len(), 3);
}
