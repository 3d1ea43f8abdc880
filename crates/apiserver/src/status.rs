//! What went wrong, as the `Status` object every Kubernetes client understands.
//!
//! Clients act on `code` and `reason`, people read `message`; both follow the wording of a real API
//! server, because tools out there match on it.

use serde_json::{Value, json};

/// A refused request: becomes an HTTP response with a `Status` body.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, such as `NotFound` or `AlreadyExists`.
    pub reason: &'static str,
    /// The sentence a person reads.
    pub message: Box<str>,
    /// The `details` of the `Status`, if any.
    pub details: Option<Value>,
    /// What few answers have.
    pub extra: Option<Box<Extra>>,
    /// Answer with plain text instead of a `Status`, as a real server does for unknown paths.
    pub plain: bool,
}

/// What few refusals have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extra {
    /// A token with which a list that expired can go on.
    pub goes_on: String,
    /// A reason that somebody outside gave, in the place of ours.
    pub told_reason: String,
}

/// One invalid field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// Machine-readable reason, such as `FieldValueRequired`.
    pub reason: &'static str,
    /// Path of the field, such as `spec.selector`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Cause {
    /// A required field is absent.
    pub fn required(field: impl Into<String>, why: &str) -> Cause {
        let message =
            if why.is_empty() { "Required value".to_string() } else { format!("Required value: {why}") };
        Cause { reason: "FieldValueRequired", field: field.into(), message }
    }

    /// A field holds something it may not hold.
    pub fn invalid(field: impl Into<String>, value: &Value, why: impl AsRef<str>) -> Cause {
        let message = format!("Invalid value: {}: {}", shown(value), why.as_ref());
        Cause { reason: "FieldValueInvalid", field: field.into(), message }
    }

    /// A field holds a value outside the allowed set.
    pub fn unsupported(field: impl Into<String>, value: &Value, allowed: &[&str]) -> Cause {
        let list = allowed.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", shown(value));
        Cause { reason: "FieldValueNotSupported", field: field.into(), message }
    }

    /// A value that must be unique appears twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
        Cause {
            reason: "FieldValueDuplicate",
            field: field.into(),
            message: format!("Duplicate value: {}", shown(value)),
        }
    }

    /// A field must not be set or changed here.
    pub fn forbidden(field: impl Into<String>, why: &str) -> Cause {
        Cause { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {why}") }
    }

    /// A value has the wrong type.
    pub fn type_invalid(field: impl Into<String>, value: &Value, why: impl AsRef<str>) -> Cause {
        let message = format!("Invalid value: {}: {}", shown(value), why.as_ref());
        Cause { reason: "FieldValueTypeInvalid", field: field.into(), message }
    }
}

fn shown(value: &Value) -> String {
    value.to_string()
}

/// `deployments.apps "web"`: how messages name an object.
pub fn named(group: &str, resource: &str, name: &str) -> String {
    format!("{} \"{name}\"", qualified(group, resource))
}

/// `deployments.apps`, or `pods` in the core group.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") }
}

impl Fault {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Fault {
        Fault {
            code,
            reason,
            message: message.into().into_boxed_str(),
            details: None,
            extra: None,
            plain: false,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Fault {
        let mut details = json!({});
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details[key] = json!(value);
            }
        }
        self.details = Some(details);
        self
    }

    /// 404 for an object that is not there.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Fault {
        Fault::new(404, "NotFound", format!("{} not found", named(group, resource, name)))
            .about(group, resource, name)
    }

    /// 404 for a path nobody serves; plain text, as from a real server.
    pub fn no_such_path() -> Fault {
        Fault { plain: true, ..Fault::new(404, "NotFound", "404 page not found\n") }
    }

    /// 404 for a resource that a built-in group does not have.
    pub fn no_such_resource() -> Fault {
        let mut fault = Fault::new(404, "NotFound", "the server could not find the requested resource");
        fault.details = Some(json!({}));
        fault
    }

    /// 503 for an aggregated API whose service does not answer; plain text, as from a real server.
    pub fn unavailable() -> Fault {
        Fault { plain: true, ..Fault::new(503, "ServiceUnavailable", "service unavailable\n") }
    }

    /// 409 for a name that is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Fault {
        Fault::new(409, "AlreadyExists", format!("{} already exists", named(group, resource, name)))
            .about(group, resource, name)
    }

    /// 409 for a lost race or a failed precondition.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Fault {
        let message = format!("Operation cannot be fulfilled on {}: {why}", named(group, resource, name));
        Fault::new(409, "Conflict", message).about(group, resource, name)
    }

    /// 409 for an update that was based on an older version of the object.
    pub fn modified(group: &str, resource: &str, name: &str) -> Fault {
        Fault::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 for a server-side apply that would take fields from other managers.
    pub fn apply_conflict(message: String, causes: Vec<Value>) -> Fault {
        Fault { details: Some(json!({ "causes": causes })), ..Fault::new(409, "Conflict", message) }
    }

    /// 422 for an object with invalid fields; `kind` is the singular kind, as real servers have it.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Fault {
        let list: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let list = if let [one] = list.as_slice() { one.clone() } else { format!("[{}]", list.join(", ")) };
        let subject = qualified(group, kind);
        let mut fault = Fault::new(422, "Invalid", format!("{subject} \"{name}\" is invalid: {list}"))
            .about(group, kind, name);
        let causes: Vec<Value> = causes
            .into_iter()
            .map(|c| json!({ "reason": c.reason, "message": c.message, "field": c.field }))
            .collect();
        if let Some(details) = &mut fault.details {
            details["causes"] = json!(causes);
        }
        fault
    }

    /// 400 for a request we cannot read.
    pub fn bad_request(message: impl Into<String>) -> Fault {
        Fault::new(400, "BadRequest", message)
    }

    /// 403 by policy.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Fault {
        let subject = if name.is_empty() { qualified(group, resource) } else { named(group, resource, name) };
        Fault::new(403, "Forbidden", format!("{subject} is forbidden: {why}")).about(group, resource, name)
    }

    /// 403 because the namespace is on its way out.
    pub fn terminating(group: &str, resource: &str, name: &str, namespace: &str) -> Fault {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut fault = Fault::forbidden(group, resource, name, &why);
        if let Some(details) = &mut fault.details {
            details["causes"] = json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            }]);
        }
        fault
    }

    /// 405 for a verb the resource does not have.
    pub fn method_not_allowed() -> Fault {
        let mut fault = Fault::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        fault.details = Some(json!({}));
        fault
    }

    /// 405 for any change to a server that only shows.
    pub fn read_only() -> Fault {
        let message = "this server is read-only: it shows objects and does not change them";
        Fault { details: Some(json!({})), ..Fault::new(405, "MethodNotAllowed", message) }
    }

    /// 406 when no representation we have was asked for.
    pub fn not_acceptable(message: impl Into<String>) -> Fault {
        Fault::new(406, "NotAcceptable", message)
    }

    /// 410 for a resource version or continue token that fell out of the history.
    pub fn expired(message: impl Into<String>) -> Fault {
        Fault::new(410, "Expired", message)
    }

    /// 415 for a body in a format we do not read.
    pub fn unsupported_media(supported: &str) -> Fault {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {supported}"
        );
        Fault::new(415, "UnsupportedMediaType", message)
    }

    /// 501 for what only a cluster with nodes can do.
    pub fn not_implemented(what: &str) -> Fault {
        Fault::new(501, "NotImplemented", format!("{what} needs a node, and this API server has none"))
    }

    /// A code and a sentence, where real servers give no reason either.
    pub fn raw(code: u16, message: impl Into<String>) -> Fault {
        Fault::new(code, "", message)
    }

    /// 500 for what should not happen.
    pub fn internal(message: impl Into<String>) -> Fault {
        let message: String = message.into();
        let details = json!({ "causes": [{ "message": message }] });
        let whole = format!("Internal error occurred: {message}");
        Fault { details: Some(details), ..Fault::new(500, "InternalError", whole) }
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        let extra = self.extra.as_deref().cloned().unwrap_or_default();
        if !extra.goes_on.is_empty() {
            status["metadata"]["continue"] = json!(extra.goes_on);
        }
        let reason = if extra.told_reason.is_empty() { self.reason } else { &extra.told_reason };
        if !reason.is_empty() {
            status["reason"] = json!(reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status["code"] = json!(self.code);
        status
    }
}

/// The `Status` of a delete that left nothing behind.
pub fn success(group: &str, resource: &str, name: &str, uid: &str) -> Value {
    let mut details = json!({ "name": name });
    if !group.is_empty() {
        details["group"] = json!(group);
    }
    details["kind"] = json!(resource);
    details["uid"] = json!(uid);
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}
