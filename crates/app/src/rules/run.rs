//! Runs a plan around a cut: pre steps and locks, the cut, releases backwards, post steps.
//!
//! Whatever happens (a step fails, a pod is gone, the cut fails, somebody cancels), every lock that was acquired
//! or may have been is let go, in reverse order, before anything is reported. If this process dies, the guards
//! in the pods do it ([`super::script`]).
//!
//! A cut counts as the application's only for those pods that acknowledged their lock before it and were still
//! locked after it (promise L2): [`Around::kept`] names them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use repo::{Cancel, Finding, Severity};
use tokio::time::Instant;

use super::plan::{RulePlan, Task};
use super::{Action, ExecOutcome, Hands, HandsError, OnError, Target, script};

/// How long checking and letting go of one lock may take.
const LET_GO_TIME: Duration = Duration::from_secs(30);
/// How often letting go is tried.
const LET_GO_TRIES: u32 = 3;
/// How often the stop button is looked at.
const CANCEL_EVERY: Duration = Duration::from_millis(50);

/// Why there was no cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoCut {
    /// A step that must succeed did not.
    Failed(String),
    /// The stop button was pressed.
    Cancelled,
}

/// What happened around a cut.
#[derive(Debug)]
pub struct Around<T> {
    /// What the cut gave, if it came to it.
    pub cut: Result<T, NoCut>,
    /// Pods that acknowledged every lock planned for them.
    pub locked: BTreeSet<Target>,
    /// Those of them that were still locked after the cut.
    pub kept: BTreeSet<Target>,
    /// How long the application was held.
    pub held: Duration,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// A lock that is held, or may be.
struct Lock<'p> {
    task: &'p Task,
    target: &'p Target,
    directory: String,
}

/// What became of an attempt to lock.
enum Attempt {
    Held(String),
    NotHeld(String),
    /// It may be held in any of these directories.
    Unknown(Vec<String>, String),
}

/// Runs the plan around `cut`, which does nothing until it is polled. `token` makes the names of this run's locks unique.
pub async fn around<T>(
    plan: &RulePlan,
    hands: &dyn Hands,
    token: &str,
    cancel: &Cancel,
    cut: impl Future<Output = T>,
) -> Around<T> {
    let mut run = Run {
        hands,
        token,
        cancel,
        locks: Vec::new(),
        findings: Vec::new(),
        unlocked: BTreeSet::new(),
        since: None,
    };
    let mut outcome = Ok(());
    for (number, task) in plan.before.iter().enumerate() {
        outcome = if cancel.is_cancelled() { Err(NoCut::Cancelled) } else { run.before(number, task).await };
        if outcome.is_err() {
            break;
        }
    }
    let (result, kept) = match outcome {
        Ok(()) => {
            let value = cut.await;
            (Ok(value), run.check().await)
        }
        Err(no) => (Err(no), BTreeSet::new()),
    };
    let locked: BTreeSet<Target> = run
        .locks
        .iter()
        .filter(|l| l.task.step.action.locks() && !run.unlocked.contains(l.target))
        .map(|l| l.target.clone())
        .collect();
    let held = run.since.map_or(Duration::ZERO, |since| since.elapsed());
    run.let_go().await;
    // Steps after the cut clean up what those before it made, so they run whenever all of those did, whatever
    // became of the cut.
    if result.is_ok() {
        for task in &plan.after {
            run.after(task).await;
        }
    }
    let kept = kept.intersection(&locked).cloned().collect();
    Around { cut: result, locked, kept, held, findings: run.findings }
}

struct Run<'p> {
    hands: &'p dyn Hands,
    token: &'p str,
    cancel: &'p Cancel,
    /// In the order they were acquired.
    locks: Vec<Lock<'p>>,
    findings: Vec<Finding>,
    /// Pods for which a lock was planned and not acquired.
    unlocked: BTreeSet<Target>,
    since: Option<Instant>,
}

impl<'p> Run<'p> {
    async fn before(&mut self, number: usize, task: &'p Task) -> Result<(), NoCut> {
        if let Action::Run(command) = &task.step.action {
            let ends =
                join_all(task.targets.iter().map(|t| self.exec(t, &command.0, task.step.timeout))).await;
            return self.judge(task, task.targets.iter().zip(ends));
        }
        let since = Instant::now();
        let attempts =
            join_all(task.targets.iter().enumerate().map(|(i, t)| self.lock(task, t, number, i))).await;
        let mut failures = Vec::new();
        for (target, attempt) in task.targets.iter().zip(attempts) {
            match attempt {
                Attempt::Held(directory) => {
                    self.since.get_or_insert(since);
                    self.locks.push(Lock { task, target, directory });
                }
                Attempt::NotHeld(why) => {
                    self.unlocked.insert(target.clone());
                    failures.push((target, why));
                }
                Attempt::Unknown(directories, why) => {
                    self.unlocked.insert(target.clone());
                    self.locks.extend(directories.into_iter().map(|directory| Lock {
                        task,
                        target,
                        directory,
                    }));
                    failures.push((target, why));
                }
            }
        }
        self.fail(task, failures)
    }

    async fn exec(
        &self,
        target: &Target,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, HandsError> {
        // The hands have their own time limit; ours is for hands that do not keep it.
        let late = timeout + Duration::from_secs(1);
        match tokio::time::timeout(late, self.hands.exec(target, command, timeout)).await {
            Ok(end) => end,
            Err(_) => Err(HandsError::Timeout(timeout)),
        }
    }

    /// Tries to lock, wherever in the pod there is place for the lock's directory.
    async fn lock(&self, task: &Task, target: &Target, number: usize, index: usize) -> Attempt {
        let mut begun = Vec::new();
        for place in script::PLACES {
            let directory = format!("{place}/holdfast-{}-{number}-{index}", self.token);
            let command = match &task.step.action {
                Action::Lock { acquire, release } => {
                    script::acquire(&directory, task.hold, &acquire.as_shell(), &release.as_shell())
                }
                Action::Hold(line) => script::hold(&directory, task.hold, line),
                Action::Pair { before, .. } => return self.begin_pair(task, target, before).await,
                Action::Run(_) => return Attempt::NotHeld("it is no lock".into()),
            };
            begun.push(directory.clone());
            let cancelled = async {
                while !self.cancel.is_cancelled() {
                    tokio::time::sleep(CANCEL_EVERY).await;
                }
            };
            let end = tokio::select! {
                end = self.exec(target, &command, task.step.timeout) => end,
                () = cancelled => return Attempt::Unknown(begun, "cancelled".into()),
            };
            return match end {
                Ok(end) if end.exit_code == 0 => Attempt::Held(directory),
                Ok(end) if end.exit_code == script::NO_PLACE => continue,
                Ok(end) if end.exit_code == script::GIVEN_UP => {
                    Attempt::NotHeld(format!("it took longer than the {:?} it may be held", task.hold))
                }
                Ok(end) if end.exit_code == script::DID_NOT_WAIT => {
                    Attempt::NotHeld(format!("it ended without waiting, so it holds nothing{}", said(&end)))
                }
                Ok(end) => Attempt::NotHeld(format!("exit code {}{}", end.exit_code, said(&end))),
                Err(HandsError::Gone(why)) => Attempt::NotHeld(format!("the pod is gone: {why}")),
                Err(HandsError::Denied(why)) => Attempt::NotHeld(format!("may not exec: {why}")),
                // It may have begun, and may yet get its lock: the release tells it not to keep it.
                Err(e @ (HandsError::Timeout(_) | HandsError::Failed(_))) => {
                    Attempt::Unknown(begun, e.to_string())
                }
            };
        }
        Attempt::NotHeld(format!(
            "no place for the lock's directory; one of {} must be writable",
            script::PLACES.join(", ")
        ))
    }

    async fn begin_pair(&self, task: &Task, target: &Target, before: &super::Command) -> Attempt {
        match self.exec(target, &before.0, task.step.timeout).await {
            Ok(end) if end.exit_code == 0 => Attempt::Held(String::new()),
            Ok(end) => Attempt::NotHeld(format!("exit code {}{}", end.exit_code, said(&end))),
            Err(HandsError::Gone(why)) => Attempt::NotHeld(format!("the pod is gone: {why}")),
            Err(HandsError::Denied(why)) => Attempt::NotHeld(format!("may not exec: {why}")),
            Err(e) => Attempt::Unknown(vec![String::new()], e.to_string()),
        }
    }

    async fn end_pair(&self, lock: &Lock<'_>, after: &super::PairEnd) -> Option<Finding> {
        let target = Target { container: after.container.clone(), ..lock.target.clone() };
        let why = match self.exec(&target, &after.command.0, after.timeout).await {
            Ok(end) if end.exit_code == 0 => return None,
            Err(HandsError::Gone(_)) => return None,
            Ok(end) => format!("exit code {}{}", end.exit_code, said(&end)),
            Err(e) => e.to_string(),
        };
        let severity = if after.on_error == OnError::Fail { Severity::Error } else { Severity::Warning };
        let message = format!(
            "`{}`, which undoes what was done before the cut, failed: {why}",
            after.command.as_shell()
        );
        Some(Finding::new(severity, "hook-not-undone", place(lock.task, &target), message))
    }

    /// Judges commands that were run in each pod.
    fn judge(
        &mut self,
        task: &Task,
        ends: impl Iterator<Item = (&'p Target, Result<ExecOutcome, HandsError>)>,
    ) -> Result<(), NoCut> {
        let mut failures = Vec::new();
        for (target, end) in ends {
            match end {
                Ok(end) if end.exit_code == 0 => {}
                Ok(end) => failures.push((target, format!("exit code {}{}", end.exit_code, said(&end)))),
                // As in Stork: a pod that went away meanwhile has nothing left to flush.
                Err(HandsError::Gone(why)) => {
                    self.findings.push(Finding::note("rule-pod-gone", place(task, target), why));
                }
                Err(e) => failures.push((target, e.to_string())),
            }
        }
        self.fail(task, failures)
    }

    fn fail(&mut self, task: &Task, failures: Vec<(&Target, String)>) -> Result<(), NoCut> {
        let mut first = None;
        for (target, why) in failures {
            let what = place(task, target);
            let message = format!("{what}: {why}");
            self.findings.push(Finding::warning("rule-step-failed", what, why));
            first.get_or_insert(message);
        }
        match (first, task.step.on_error) {
            _ if self.cancel.is_cancelled() => Err(NoCut::Cancelled),
            (Some(message), OnError::Fail) => Err(NoCut::Failed(message)),
            _ => Ok(()),
        }
    }

    /// Which pods still hold every lock of theirs.
    async fn check(&mut self) -> BTreeSet<Target> {
        let this = &*self;
        let sure: Vec<&Lock<'p>> = this
            .locks
            .iter()
            .filter(|l| l.task.step.action.locks() && !this.unlocked.contains(l.target))
            .collect();
        let ends = join_all(sure.iter().map(|lock| async move {
            this.exec(lock.target, &script::check(&lock.directory), LET_GO_TIME).await
        }))
        .await;
        let mut lost = Vec::new();
        let mut kept: BTreeSet<Target> = sure.iter().map(|l| l.target.clone()).collect();
        for (lock, end) in sure.iter().zip(ends) {
            if !end.is_ok_and(|end| end.exit_code == 0) {
                kept.remove(lock.target);
                let message = format!(
                    "it was not locked any more after the cut, so its volumes are not the application's own state; if it was held for longer than {:?}, allow more with --hold or `hold:`",
                    lock.task.hold
                );
                lost.push(Finding::warning("lock-lost", place(lock.task, lock.target), message));
            }
        }
        self.findings.extend(lost);
        kept
    }

    /// Lets everything go, last locked first. Pods of one task go at the same time, as they were locked.
    async fn let_go(&mut self) {
        let mut locks = std::mem::take(&mut self.locks);
        while let Some(last) = locks.last() {
            let task = last.task;
            let first = locks.iter().rposition(|l| !std::ptr::eq(l.task, task)).map_or(0, |i| i + 1);
            let group = locks.split_off(first);
            let findings = join_all(group.iter().rev().map(|lock| self.let_one_go(lock))).await;
            self.findings.extend(findings.into_iter().flatten());
        }
    }

    async fn let_one_go(&self, lock: &Lock<'_>) -> Option<Finding> {
        if let Action::Pair { after, .. } = &lock.task.step.action {
            return self.end_pair(lock, after).await;
        }
        let what = place(lock.task, lock.target);
        let (command, time) = match &lock.task.step.action {
            Action::Lock { release, .. } => (
                script::release(&lock.directory, &release.as_shell()),
                lock.task.step.timeout.max(LET_GO_TIME),
            ),
            _ => (script::let_go(&lock.directory, LET_GO_TIME), LET_GO_TIME * 2),
        };
        let mut why = String::new();
        for _ in 0..LET_GO_TRIES {
            match self.exec(lock.target, &command, time).await {
                Ok(end) if [0, script::EXPIRED, script::NO_LOCK].contains(&end.exit_code) => return None,
                Ok(end) if end.exit_code == script::STILL_RUNS => {
                    let message = "it was told to let go, and the command that held it has not ended; look into the pod";
                    return Some(Finding::warning("lock-command-runs", what, message));
                }
                Ok(end) if !matches!(lock.task.step.action, Action::Lock { .. }) => {
                    return Some(Finding::warning(
                        "lock-command-failed",
                        what,
                        format!("it held and let go, and then failed{}", said(&end)),
                    ));
                }
                Ok(end) => why = format!("exit code {}{}", end.exit_code, said(&end)),
                Err(HandsError::Gone(_)) => return None,
                Err(e) => why = e.to_string(),
            }
        }
        Some(Finding::error(
            "lock-not-released",
            what,
            format!(
                "letting go failed {LET_GO_TRIES} times ({why}); it may still be locked: look into the pod now"
            ),
        ))
    }

    async fn after(&mut self, task: &'p Task) {
        let Action::Run(command) = &task.step.action else { return };
        let ends = join_all(task.targets.iter().map(|t| self.exec(t, &command.0, task.step.timeout))).await;
        // The state is taken and safe; a clean-up that fails is told and does not undo that.
        let _told = self.judge(task, task.targets.iter().zip(ends));
    }
}

fn place(task: &Task, target: &Target) -> String {
    format!("{} of rule {} in {target}", task.step.at, task.rule)
}

/// What a command complained about, short.
fn said(end: &ExecOutcome) -> String {
    let bytes = if end.stderr.is_empty() { &end.stdout } else { &end.stderr };
    let text = String::from_utf8_lossy(bytes);
    let text: String = text.trim().chars().take(300).collect();
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
