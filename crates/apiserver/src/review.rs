//! Access reviews: posted, answered, never stored.
//!
//! Without a policy everything is allowed; with one, the answer is what the policy would say. Where nothing can be changed,
//! only reading is allowed: clients that ask first (k9s for each kind it shows) offer no more than that.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response};
use serde_json::{Value, json};

use crate::kinds::REVIEWS;
use crate::status::Fault;
use crate::{Access, ApiServer, http, protobuf, request, types};

/// Answers a review.
pub(crate) fn answer(
    server: &ApiServer,
    method: &Method,
    headers: &HeaderMap,
    body: &[u8],
    plural: &str,
    namespace: &str,
) -> Result<Response<Body>, Fault> {
    if method != Method::POST {
        return Err(Fault::method_not_allowed());
    }
    let content_type = request::content_type(headers);
    let ty = REVIEWS.iter().find(|r| r.1 == plural).and_then(|r| types::of_kind(r.0, "v1", r.2));
    let mut review = match ty {
        Some(ty) if content_type == protobuf::CONTENT_TYPE => protobuf::object(ty, body)?,
        _ => request::body(&content_type, body)?,
    };
    review["status"] = match plural {
        "selfsubjectaccessreviews" | "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let allowed = allowed(server, &review["spec"], namespace);
            if allowed { json!({ "allowed": true }) } else { json!({ "allowed": false, "denied": true }) }
        }
        "selfsubjectrulesreviews" => json!({
            "incomplete": server.shared.options.deny.is_some(),
            "resourceRules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": verbs(server) }],
            "nonResourceRules": [{ "nonResourceURLs": ["*"], "verbs": verbs(server) }],
        }),
        "selfsubjectreviews" => {
            json!({ "userInfo": { "username": "embedded", "groups": ["system:authenticated"] } })
        }
        _ => json!({ "authenticated": false, "error": "this server does not authenticate" }),
    };
    Ok(http::answer_json(201, "application/json", &review))
}

/// All that may be done where nothing can be changed.
const READING: [&str; 3] = ["get", "list", "watch"];

/// What may be done at most.
fn verbs(server: &ApiServer) -> &'static [&'static str] {
    if server.shared.options.read_only { &READING } else { &["*"] }
}

fn allowed(server: &ApiServer, spec: &Value, namespace: &str) -> bool {
    let asked = spec.get("resourceAttributes").filter(|asked| asked.is_object());
    let asked = asked.unwrap_or(&spec["nonResourceAttributes"]);
    let text = |key: &str| asked[key].as_str().unwrap_or("");
    if server.shared.options.read_only && !READING.contains(&text("verb")) {
        return false;
    }
    let Some(deny) = &server.shared.options.deny else { return true };
    let mut resource = text("resource").to_string();
    if !text("subresource").is_empty() {
        resource = format!("{resource}/{}", text("subresource"));
    }
    let namespace = if namespace.is_empty() { text("namespace") } else { namespace };
    !deny(&Access {
        verb: text("verb"),
        group: text("group"),
        resource: &resource,
        namespace,
        name: text("name"),
    })
}
