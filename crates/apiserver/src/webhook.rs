//! Admission webhooks: who is asked about a write, what they are asked, and what their answer does to it.
//!
//! The state is never locked while somebody outside thinks. A write that needs an answer it does not have ends
//! without having changed anything, says whom to ask, and is tried again with the answer; chance and the clock
//! are the same in every try, so that the second one meets the same questions. Whoever asks is handed in: this
//! library opens no connection.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::rest::Call;
use crate::schema::{self, Shape};
use crate::select::label_selector_matches;
use crate::status::{Extra, Fault};
use crate::storage::Key;
use crate::{State, cel, convert, defaults, patch};

/// A question for a webhook.
#[derive(Debug, Clone)]
pub struct Question {
    /// How to reach it, as its configuration says: `url` or `service`, and `caBundle`.
    pub client_config: Value,
    /// The `AdmissionReview`.
    pub review: Value,
    /// How long it may take.
    pub timeout: Duration,
}

/// Asks a webhook and gives its `AdmissionReview` back, or why there is none.
pub type Ask = Arc<dyn Fn(Question) -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;

/// More questions than this about one write are a circle.
pub(crate) const QUESTIONS_MAX: usize = 64;

/// One question with its answer.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    id: String,
    answer: Result<Value, String>,
}

/// A question that is still to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    id: String,
    /// What to ask.
    pub question: Question,
}

impl Wanted {
    /// With its answer.
    pub fn answered(self, answer: Result<Value, String>) -> Answered {
        Answered { id: self.id, answer }
    }
}

/// What one write knows of webhooks while it is tried.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    resource: String,
    version: String,
    sub: String,
    dry_run: bool,
    answers: Vec<Answered>,
    wanted: RefCell<Option<Wanted>>,
    warnings: RefCell<Vec<String>>,
    /// Numbers that were drawn; the next try draws the same ones.
    draws: RefCell<Vec<u64>>,
    drawn: Cell<usize>,
    now: Cell<Option<i64>>,
}

impl Hooks {
    /// For a write; `before` is what its last try knew.
    pub fn new(call: &Call, before: Option<Hooks>, answer: Option<Answered>) -> Hooks {
        let mut hooks = before.unwrap_or_default();
        hooks.resource = call.target.kind.resource();
        hooks.version = call.target.version.clone();
        hooks.sub = call.target.sub.clone();
        hooks.dry_run = call.dry_run;
        hooks.answers.extend(answer);
        hooks.drawn.set(0);
        hooks.warnings.borrow_mut().clear();
        hooks
    }

    /// Whom to ask before it can go on.
    pub fn take_wanted(&self) -> Option<Wanted> {
        self.wanted.borrow_mut().take()
    }

    /// What webhooks tell the client.
    pub fn take_warnings(&self) -> Vec<String> {
        self.warnings.borrow_mut().drain(..).collect()
    }

    /// The next number, the same in every try.
    pub fn draw(&self, dice: &dyn Fn() -> u64) -> u64 {
        let at = self.drawn.get();
        self.drawn.set(at + 1);
        let mut draws = self.draws.borrow_mut();
        match draws.get(at) {
            Some(number) => *number,
            None => {
                let number = dice();
                draws.push(number);
                number
            }
        }
    }

    /// The time, the same in every try.
    pub fn now(&self, clock: &dyn Fn() -> i64) -> i64 {
        let now = self.now.get().unwrap_or_else(clock);
        self.now.set(Some(now));
        now
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// A write, as webhooks and policies see it.
pub(crate) struct Write<'a> {
    /// Of what.
    pub kind: &'a Kind,
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub operation: &'static str,
    /// What was there.
    pub old: Option<&'a Value>,
    /// What is to be there.
    pub new: Option<&'a Value>,
}

impl Write<'_> {
    /// The object, be it new or on its way out.
    pub fn any(&self) -> &Value {
        self.new.or(self.old).unwrap_or(&Value::Null)
    }
}

impl State {
    fn hooks_for(&self, kind: &Kind) -> Option<&Hooks> {
        const EXEMPT: &str = "admissionregistration.k8s.io";
        self.hooks
            .as_ref()
            .filter(|hooks| hooks.resource == kind.resource() && kind.group != EXEMPT && hooks.sub != "scale")
    }

    /// Lets mutating webhooks change an object, in stored form.
    pub fn ask_mutating(&self, kind: &Kind, old: Option<&Value>, object: &mut Value) -> Result<(), Fault> {
        let Some(hooks) = self.hooks_for(kind) else { return Ok(()) };
        let configured = self.webhooks("mutatingwebhookconfigurations");
        let mut again = Vec::new();
        for round in 0..2 {
            let mut changed_after = vec![false; configured.len()];
            for (at, webhook) in configured.iter().enumerate() {
                if round == 1 && !again.contains(&at) {
                    continue;
                }
                let operation = if old.is_some() { "UPDATE" } else { "CREATE" };
                let before = object.clone();
                let write = Write { kind, operation, old, new: Some(&before) };
                let Some(version) = self.concerns(hooks, webhook, &write)? else { continue };
                let Some(response) = self.ask(hooks, webhook, &version, &write, round)? else { continue };
                let Some(patch) = response.get("patch").and_then(Value::as_str) else { continue };
                self.patched(kind, webhook, &version, patch, object)?;
                if *object != before {
                    changed_after[..at].fill(true);
                }
            }
            let wishes = |at: &usize| text(&configured[*at], "reinvocationPolicy") == "IfNeeded";
            again = (0..configured.len()).filter(|at| changed_after[*at]).filter(wishes).collect();
            if again.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn patched(
        &self,
        kind: &Kind,
        webhook: &Value,
        version: &str,
        coded: &str,
        object: &mut Value,
    ) -> Result<(), Fault> {
        let failed = |why: String| {
            Fault::internal(format!("failed calling webhook \"{}\": {why}", text(webhook, "name")))
        };
        let bytes = defaults::unbase64(coded).ok_or_else(|| failed("its patch is not base64".into()))?;
        let operations =
            serde_json::from_slice(&bytes).map_err(|e| failed(format!("its patch is no JSON: {e}")))?;
        let mut shown = object.clone();
        convert::from_stored(kind, version, &mut shown);
        patch::json_patch(&mut shown, operations).map_err(|fault| failed(fault.message.into()))?;
        let shape = Shape::of(kind, version);
        schema::conform(shape, &mut shown, "").map_err(failed)?;
        schema::prune(shape, &mut shown);
        convert::to_stored(kind, version, &mut shown);
        // Who an object is, no webhook decides.
        for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if shown["metadata"][key] != object["metadata"][key] {
                shown["metadata"][key] = object["metadata"][key].clone();
            }
        }
        *object = shown;
        Ok(())
    }

    /// Lets validating webhooks refuse a write. `new` is absent for a deletion.
    pub fn ask_validating(&self, kind: &Kind, old: Option<&Value>, new: Option<&Value>) -> Result<(), Fault> {
        let Some(hooks) = self.hooks_for(kind) else { return Ok(()) };
        let operation = match (old, new) {
            (None, _) => "CREATE",
            (_, None) => "DELETE",
            _ => "UPDATE",
        };
        let write = Write { kind, operation, old, new };
        for webhook in self.webhooks("validatingwebhookconfigurations") {
            if let Some(version) = self.concerns(hooks, &webhook, &write)? {
                self.ask(hooks, &webhook, &version, &write, 0)?;
            }
        }
        Ok(())
    }

    /// Mutating webhooks are asked about deletions, too; there is nothing they could change.
    pub fn ask_deletion(&self, kind: &Kind, old: &Value) -> Result<(), Fault> {
        let Some(hooks) = self.hooks_for(kind) else { return Ok(()) };
        let write = Write { kind, operation: "DELETE", old: Some(old), new: None };
        for webhook in self.webhooks("mutatingwebhookconfigurations") {
            if let Some(version) = self.concerns(hooks, &webhook, &write)? {
                self.ask(hooks, &webhook, &version, &write, 0)?;
            }
        }
        self.ask_validating(kind, Some(old), None)
    }

    /// Every webhook, in the order of their configurations' names.
    fn webhooks(&self, plural: &str) -> Vec<Value> {
        let resource = format!("{plural}.admissionregistration.k8s.io");
        let configurations = self.store.list(&resource, "");
        let webhooks = configurations.filter_map(|(_, c)| c["webhooks"].as_array().cloned());
        webhooks.flatten().collect()
    }

    /// In which version a webhook is to be asked about a write, if it is.
    fn concerns(&self, hooks: &Hooks, webhook: &Value, write: &Write<'_>) -> Result<Option<String>, Fault> {
        let kind = write.kind;
        let fits = |rule: &Value, version: &str| rule_fits(rule, kind, version, &hooks.sub, write.operation);
        let rules = webhook["rules"].as_array().cloned().unwrap_or_default();
        let exact = rules.iter().any(|rule| fits(rule, &hooks.version)).then(|| hooks.version.clone());
        let found = exact.or_else(|| {
            // A webhook that knows another version of the kind is asked in that one.
            let wide = text(webhook, "matchPolicy") != "Exact";
            let other = kind.versions.iter().find(|v| rules.iter().any(|rule| fits(rule, &v.name)));
            other.filter(|_| wide).map(|v| v.name.clone())
        });
        let Some(version) = found else { return Ok(None) };
        if !self.is_selected(webhook, write) || !self.conditions_hold(webhook, hooks, write)? {
            return Ok(None);
        }
        Ok(Some(version))
    }

    /// Do the selectors beside a rule let a write through?
    pub(crate) fn is_selected(&self, webhook: &Value, write: &Write<'_>) -> bool {
        let object = write.any();
        let own = object["metadata"]["labels"].clone();
        if webhook["namespaceSelector"].is_object() {
            let labels = if write.kind.is("", "namespaces") {
                Some(own)
            } else if write.kind.namespaced {
                let namespace = text(&object["metadata"], "namespace");
                let found = self.store.get(&Key::new("namespaces", "", namespace));
                Some(found.map_or(Value::Null, |n| n["metadata"]["labels"].clone()))
            } else {
                None
            };
            if labels.is_some_and(|labels| !label_selector_matches(&webhook["namespaceSelector"], &labels)) {
                return false;
            }
        }
        let selector = &webhook["objectSelector"];
        !selector.is_object()
            || [write.old, write.new]
                .into_iter()
                .flatten()
                .any(|object| label_selector_matches(selector, &object["metadata"]["labels"]))
    }

    fn conditions_hold(&self, webhook: &Value, hooks: &Hooks, write: &Write<'_>) -> Result<bool, Fault> {
        let Some(conditions) = webhook["matchConditions"].as_array() else { return Ok(true) };
        let request = request(hooks, &hooks.version, write, "");
        for condition in conditions {
            let expression = text(condition, "expression");
            let null = Value::Null;
            let variables = [
                ("object", cel::Val::json(write.new.unwrap_or(&null), None)),
                ("oldObject", cel::Val::json(write.old.unwrap_or(&null), None)),
                ("request", cel::Val::json(&request, None)),
            ];
            let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
            let answer = cel::compile(expression, &names).and_then(|expr| cel::evaluate(&expr, &variables));
            match answer.map(|value| value.as_bool()) {
                Ok(Some(true)) => {}
                Ok(_) => return Ok(false),
                Err(_) if text(webhook, "failurePolicy") == "Ignore" => return Ok(false),
                Err(why) => {
                    let name = text(webhook, "name");
                    return Err(Fault::forbidden(
                        &write.kind.group,
                        &write.kind.plural,
                        text(&write.any()["metadata"], "name"),
                        &format!("webhook \"{name}\": evaluating its match conditions: {why}"),
                    ));
                }
            }
        }
        Ok(true)
    }

    /// The response of a webhook that allows the write; none if it cannot be had and need not be.
    fn ask(
        &self,
        hooks: &Hooks,
        webhook: &Value,
        version: &str,
        write: &Write<'_>,
        round: usize,
    ) -> Result<Option<Value>, Fault> {
        let name = text(webhook, "name");
        if hooks.dry_run && !matches!(text(webhook, "sideEffects"), "None" | "NoneOnDryRun") {
            return Err(Fault::bad_request(format!("admission webhook \"{name}\" does not support dry run")));
        }
        let uid = self.uid();
        let request = request(hooks, version, write, &uid);
        // The same question about the same object has one answer.
        let mut identity = request.clone();
        identity["uid"] = Value::Null;
        let id = format!("{round} {} {name} {identity}", webhook["clientConfig"]);
        let Some(answered) = hooks.answers.iter().find(|a| a.id == id) else {
            let review = |v: &str| json!({ "kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{v}"), "request": request });
            let spoken = list(webhook, "admissionReviewVersions").find(|v| matches!(*v, "v1" | "v1beta1"));
            let timeout = webhook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30);
            let question = Question {
                client_config: webhook["clientConfig"].clone(),
                review: review(spoken.unwrap_or("v1")),
                timeout: Duration::from_secs(timeout),
            };
            *hooks.wanted.borrow_mut() = Some(Wanted { id, question });
            return Err(Fault::internal("a webhook is to be asked first"));
        };
        let response = match &answered.answer {
            Ok(review) => match review.get("response") {
                // Its uid is not compared: every try asks under another one.
                Some(response) if response.is_object() => Ok(response.clone()),
                _ => Err("the answer has no response".to_string()),
            },
            Err(why) => Err(why.clone()),
        };
        let response = match response {
            Ok(response) => response,
            Err(_) if text(webhook, "failurePolicy") == "Ignore" => return Ok(None),
            Err(why) => {
                return Err(Fault::internal(format!("failed calling webhook \"{name}\": {why}")));
            }
        };
        hooks.warnings.borrow_mut().extend(list(&response, "warnings").map(str::to_string));
        if response["allowed"] == json!(true) {
            return Ok(Some(response));
        }
        Err(denied(name, &response["status"]))
    }
}

/// Is a rule of a webhook or a policy about this write?
pub(crate) fn rule_fits(rule: &Value, kind: &Kind, version: &str, sub: &str, operation: &str) -> bool {
    let has = |key: &str, wanted: &dyn Fn(&str) -> bool| list(rule, key).any(wanted);
    let scope = match text(rule, "scope") {
        "Namespaced" => kind.namespaced,
        "Cluster" => !kind.namespaced,
        _ => true,
    };
    let resource = if sub.is_empty() { kind.plural.clone() } else { format!("{}/{sub}", kind.plural) };
    let (any_sub, any_of_sub) = (format!("{}/*", kind.plural), format!("*/{sub}"));
    let is_resource = |r: &str| {
        r == resource
            || r == "*/*"
            || (r == "*" && sub.is_empty())
            || (!sub.is_empty() && (r == any_sub || r == any_of_sub))
    };
    scope
        && has("operations", &|o| o == "*" || o == operation)
        && has("apiGroups", &|g| g == "*" || g == kind.group)
        && has("apiVersions", &|v| v == "*" || v == version)
        && has("resources", &is_resource)
}

fn denied(name: &str, status: &Value) -> Fault {
    let head = format!("admission webhook \"{name}\" denied the request");
    let message = match (text(status, "message"), text(status, "reason")) {
        ("", "") => format!("{head} without explanation"),
        ("", reason) => format!("{head}: {reason}"),
        (message, _) => format!("{head}: {message}"),
    };
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0).max(400);
    let mut fault = Fault::raw(code, message);
    let told_reason = text(status, "reason").to_string();
    fault.extra = Some(Box::new(Extra { told_reason, ..Extra::default() }));
    fault.details = status.get("details").cloned();
    fault
}

fn request(hooks: &Hooks, version: &str, write: &Write<'_>, uid: &str) -> Value {
    let kind = write.kind;
    let gvk = |version: &str| json!({ "group": kind.group, "version": version, "kind": kind.kind });
    let gvr = |version: &str| json!({ "group": kind.group, "version": version, "resource": kind.plural });
    let shown = |object: Option<&Value>| {
        object.map_or(Value::Null, |object| {
            let mut object = object.clone();
            convert::from_stored(kind, version, &mut object);
            object
        })
    };
    let options = match write.operation {
        "CREATE" => "CreateOptions",
        "UPDATE" => "UpdateOptions",
        _ => "DeleteOptions",
    };
    let metadata = &write.any()["metadata"];
    let mut request = json!({
        "uid": uid,
        "kind": gvk(version),
        "resource": gvr(version),
        "requestKind": gvk(&hooks.version),
        "requestResource": gvr(&hooks.version),
        "name": text(metadata, "name"),
        "operation": write.operation,
        "userInfo": { "username": "embedded", "groups": ["system:authenticated"] },
        "object": shown(write.new),
        "oldObject": shown(write.old),
        "dryRun": hooks.dry_run,
        "options": { "kind": options, "apiVersion": "meta.k8s.io/v1" },
    });
    if kind.namespaced {
        request["namespace"] = metadata["namespace"].clone();
    }
    if !hooks.sub.is_empty() {
        request["subResource"] = json!(hooks.sub);
        request["requestSubResource"] = json!(hooks.sub);
    }
    request
}
