//! From HTTP to the API and back: paths, bodies, representations, status codes.

use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use serde_json::Value;

use crate::kinds::{Kinds, split_api_version};
use crate::request::{self, Query, Route, Target, Verb, View};
use crate::rest::{Call, Reply};
use crate::status::Fault;
use crate::storage::Key;
use crate::{Access, ApiServer, discovery, openapi, review, watch, webhook};

/// Objects in a restore can be large; a real server accepts 3 MiB.
const BODY_BYTES_MAX: usize = 3 << 20;

pub(crate) fn router(server: ApiServer) -> axum::Router {
    axum::Router::new()
        .fallback(handle)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(server)
}

async fn handle(
    Extract(server): Extract<ApiServer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let answer = respond(&server, &method, &uri, &headers, &body).await;
    answer.unwrap_or_else(|fault| refuse(&fault))
}

fn refuse(fault: &Fault) -> Response<Body> {
    if fault.plain {
        return answer(fault.code, "text/plain; charset=utf-8", fault.message.as_bytes().to_vec());
    }
    answer_json(fault.code, "application/json", &fault.status())
}

pub(crate) fn answer(code: u16, content_type: &str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub(crate) fn answer_json(code: u16, content_type: &str, value: &Value) -> Response<Body> {
    let mut text = value.to_string().into_bytes();
    text.push(b'\n');
    answer(code, content_type, text)
}

async fn respond(
    server: &ApiServer,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Body>, Fault> {
    let query = Query::parse(uri.query().unwrap_or(""));
    let path = request::unescape_path(uri.path());
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let reads = matches!(method.as_str(), "GET" | "HEAD");
    match parts[..] {
        ["version"] if reads => {
            let version = discovery::version(&server.shared.options.version);
            Ok(answer_json(200, "application/json", &version))
        }
        ["healthz" | "livez" | "readyz", ..] if reads => Ok(answer(200, "text/plain; charset=utf-8", "ok")),
        ["api"] | ["apis"] if reads => {
            let (kind, value) = discovery::root(&server.shared.lock().kinds, parts[0] == "api", headers);
            Ok(answer_json(200, &kind, &value))
        }
        ["apis", group] if reads => {
            let state = server.shared.lock();
            let value = discovery::group(&state.kinds, group).ok_or_else(Fault::no_such_path)?;
            Ok(answer_json(200, "application/json", &value))
        }
        ["api", "v1"] if reads => group_version(server, "", "v1"),
        ["apis", group, version] if reads => group_version(server, group, version),
        ["openapi", "v3"] if reads => {
            let state = server.shared.lock();
            let index =
                openapi::captured_index(&state.documents).unwrap_or_else(|| openapi::index(&state.kinds));
            Ok(answer_json(200, "application/json", &index))
        }
        ["openapi", ref rest @ ..] if reads && captured(server, rest).is_some() => {
            let document = captured(server, rest).ok_or_else(Fault::no_such_path)?;
            Ok(answer(200, "application/json", document))
        }
        ["openapi", "v3", "api", "v1"] if reads => open_api(server, "v1"),
        ["openapi", "v3", "apis", group, version] if reads => open_api(server, &format!("{group}/{version}")),
        ["api", "v1", ref rest @ ..] => {
            resource(server, method, query, headers, body, ("", "v1"), rest).await
        }
        ["apis", group, version, ref rest @ ..] if !rest.is_empty() => {
            resource(server, method, query, headers, body, (group, version), rest).await
        }
        _ => Err(Fault::no_such_path()),
    }
}

/// A document of the server this one stands for.
fn captured(server: &ApiServer, path: &[&str]) -> Option<Bytes> {
    server.shared.lock().documents.get(&path.join("/")).cloned()
}

fn group_version(server: &ApiServer, group: &str, version: &str) -> Result<Response<Body>, Fault> {
    let state = server.shared.lock();
    if state.kinds.is_absent(group, version) {
        return Err(Fault::unavailable());
    }
    let value = discovery::group_version(&state.kinds, group, version).ok_or_else(Fault::no_such_path)?;
    Ok(answer_json(200, "application/json", &value))
}

fn open_api(server: &ApiServer, api_version: &str) -> Result<Response<Body>, Fault> {
    let (group, version) = split_api_version(api_version);
    let state = server.shared.lock();
    if state.kinds.is_absent(group, version) {
        return Err(Fault::unavailable());
    }
    let value = openapi::document(&state.kinds, group, version).ok_or_else(Fault::no_such_path)?;
    Ok(answer_json(200, "application/json", &value))
}

async fn resource(
    server: &ApiServer,
    method: &Method,
    query: Query,
    headers: &HeaderMap,
    body: &[u8],
    (group, version): (&str, &str),
    parts: &[&str],
) -> Result<Response<Body>, Fault> {
    let route = request::route(&server.shared.lock().kinds, group, version, parts);
    let target = match route {
        Route::Resource(target) => target,
        Route::Review(plural, namespace) => {
            return review::answer(server, method, headers, body, plural, &namespace);
        }
        Route::Absent => return Err(Fault::unavailable()),
        Route::NoSub(kind, name) => return Err(Fault::not_found(&kind.group, &kind.plural, &name)),
        Route::Unknown if Kinds::default().versions(group).iter().any(|v| v == version) => {
            return Err(Fault::no_such_resource());
        }
        Route::Unknown => return Err(Fault::no_such_path()),
    };
    let named = !target.name.is_empty();
    let verb = Verb::of(method, named, !target.sub.is_empty(), query.on("watch") && !named)
        .ok_or_else(Fault::method_not_allowed)?;
    permit(server, &target, verb)?;
    if matches!(target.sub.as_str(), "log" | "exec" | "attach" | "portforward") {
        let key = Key::new("pods", &target.namespace, &target.name);
        if !server.shared.lock().store.has(&key) {
            return Err(Fault::not_found("", "pods", &target.name));
        }
        return Err(Fault::not_implemented(&format!("pods/{}", target.sub)));
    }
    if server.shared.options.read_only {
        if !verb.reads() {
            return Err(Fault::read_only());
        }
        // What only a webhook could convert is not shown as something it is not.
        let kind = &target.kind;
        if kind.converted_outside && target.version != kind.storage {
            return Err(Fault::internal(format!(
                "conversion webhook for {}, Kind={} is not asked: this server has it as {}",
                kind.api_version(&target.version),
                kind.kind,
                kind.api_version(&kind.storage)
            )));
        }
    }
    let (view, yaml) = request::view(headers)?;
    let call = Call {
        dry_run: query.dry_run(verb)?,
        manager: request::manager(&query, headers),
        content_type: request::content_type(headers),
        target,
        verb,
        query,
        view,
        warnings: Vec::new(),
    };
    if verb == Verb::Watch {
        return watch::start(server, call);
    }
    let mut call = call;
    let reply =
        if verb.reads() { server.shared.lock().read(&call) } else { write(server, &mut call, body).await }?;
    Ok(show(server, &call, reply, yaml))
}

/// A write, tried until every webhook it needs has answered.
async fn write(server: &ApiServer, call: &mut Call, body: &[u8]) -> Result<Reply, Fault> {
    let Some(ask) = server.shared.options.webhooks.clone() else {
        return server.change(|state| state.write(call, body));
    };
    let (mut known, mut answer) = (None, None);
    for _ in 0..webhook::QUESTIONS_MAX {
        let mut attempt = call.clone();
        let (outcome, hooks) = server.change(|state| {
            state.hooks = Some(webhook::Hooks::new(&attempt, known.take(), answer.take()));
            let outcome = state.write(&mut attempt, body);
            (outcome, state.hooks.take())
        });
        let wanted = hooks.as_ref().and_then(webhook::Hooks::take_wanted);
        let Some(wanted) = wanted else {
            let warnings = hooks.map(|hooks| hooks.take_warnings()).unwrap_or_default();
            attempt.warnings.extend(warnings);
            *call = attempt;
            return outcome;
        };
        let (limit, asked) = (wanted.question.timeout, ask(wanted.question.clone()));
        let said = match tokio::time::timeout(limit, asked).await {
            Ok(said) => said,
            Err(_) => Err("context deadline exceeded".to_string()),
        };
        (known, answer) = (hooks, Some(wanted.answered(said)));
    }
    Err(Fault::internal("admission webhooks change what each other changed, without an end"))
}

/// The policy handed in may deny a request; the answer is the one of role-based access control.
fn permit(server: &ApiServer, target: &Target, verb: Verb) -> Result<(), Fault> {
    let Some(deny) = &server.shared.options.deny else { return Ok(()) };
    let kind = &target.kind;
    let resource =
        if target.sub.is_empty() { kind.plural.clone() } else { format!("{}/{}", kind.plural, target.sub) };
    // A request for a namespace itself is a request inside it.
    let namespace = if kind.is("", "namespaces") { &target.name } else { &target.namespace };
    let access =
        Access { verb: verb.name(), group: &kind.group, resource: &resource, namespace, name: &target.name };
    if !deny(&access) {
        return Ok(());
    }
    let place = if target.namespace.is_empty() {
        "at the cluster scope".to_string()
    } else {
        format!("in the namespace \"{}\"", target.namespace)
    };
    let why = format!(
        "User \"embedded\" cannot {} resource \"{resource}\" in API group \"{}\" {place}",
        verb.name(),
        kind.group
    );
    Err(Fault::forbidden(&kind.group, &kind.plural, &target.name, &why))
}

fn show(server: &ApiServer, call: &Call, reply: Reply, yaml: bool) -> Response<Body> {
    let target = &call.target;
    let now = (server.shared.options.clock)();
    let (code, value) = match reply {
        Reply::Status(value) => (200, value),
        Reply::Object(code, object) => (code, crate::table::one(target, call.view, &call.query, object, now)),
        Reply::List { items, metadata } if call.view == View::Full && !yaml => {
            let response = answer(200, "application/json", call.list_text(&items, &metadata));
            return warned(call, response);
        }
        Reply::List { items, metadata } => {
            let items = items.iter().map(|item| call.present(&item.open()));
            (200, crate::table::many(target, call.view, &call.query, items, metadata, now))
        }
    };
    let response = if yaml {
        match serde_saphyr::to_string(&value) {
            Ok(text) => answer(code, "application/yaml", text),
            Err(error) => return refuse(&Fault::internal(format!("writing YAML: {error}"))),
        }
    } else {
        answer_json(code, "application/json", &value)
    };
    warned(call, response)
}

/// The answer, with what the client is to be warned of.
fn warned(call: &Call, mut response: Response<Body>) -> Response<Body> {
    let target = &call.target;
    let version = target.kind.version(&target.version);
    let deprecated = version.and_then(|v| v.deprecation.clone());
    for warning in call.warnings.iter().chain(&deprecated) {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use serde_json::json;

    async fn get(server: &ApiServer, path: &str) -> Value {
        let uri = path.parse().unwrap();
        let answer = respond(server, &Method::GET, &uri, &HeaderMap::new(), &[]).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body.last(), Some(&b'\n'));
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn a_list_of_what_is_held_as_text_has_what_each_object_is_in_every_version() {
        let server = ApiServer::new(Options::deterministic(1));
        let named = |api: &str, kind: &str, name: &str, rest: Value| {
            let mut object =
                json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "n"}});
            object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            object
        };
        let version = |name: &str, storage: bool, field: &str| {
            json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": {field: {"type": "string"}}}}}}})
        };
        let refused = server.load([
            named("v1", "Secret", "a", json!({"data": {"b": "Yw=="}, "type": "Opaque"})),
            named("v1", "Secret", "b", json!({})),
            // The order of fields is anybody's.
            json!({"kind": "Secret", "metadata": {"namespace": "n", "name": "c"}, "apiVersion": "v1"}),
            named("autoscaling/v2", "HorizontalPodAutoscaler", "a", json!({"spec": {"maxReplicas": 3}})),
            named("v1", "Event", "a", json!({"message": "hello"})),
            named("x.io/v1", "Toy", "a", json!({"spec": {"old": "1", "new": "2"}})),
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": "toys.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced",
                "names": {"plural": "toys", "singular": "toy", "kind": "Toy", "listKind": "ToyList"},
                "versions": [version("v1", true, "old"), version("v2", false, "new")]}}),
        ]);
        assert_eq!(refused, [""; 0]);
        for (path, is_custom, expected) in [
            ("/api/v1/namespaces/n/secrets", false, 3),
            ("/apis/autoscaling/v2/namespaces/n/horizontalpodautoscalers", false, 1),
            ("/apis/autoscaling/v1/namespaces/n/horizontalpodautoscalers", false, 1),
            ("/api/v1/namespaces/n/events", false, 1),
            ("/apis/events.k8s.io/v1/namespaces/n/events", false, 1),
            ("/apis/x.io/v1/namespaces/n/toys", true, 1),
            ("/apis/x.io/v2/namespaces/n/toys", true, 1),
        ] {
            let list = get(&server, path).await;
            let items = list["items"].as_array().unwrap();
            assert_eq!(items.len(), expected, "{path}: {list}");
            for item in items {
                let mut one =
                    get(&server, &format!("{path}/{}", item["metadata"]["name"].as_str().unwrap())).await;
                assert_eq!(list["kind"], json!(format!("{}List", one["kind"].as_str().unwrap())));
                assert_eq!(list["apiVersion"], one["apiVersion"]);
                if !is_custom {
                    one.as_object_mut().unwrap().retain(|field, _| field != "apiVersion" && field != "kind");
                }
                assert_eq!(*item, one, "{path}");
            }
            let page = get(&server, &format!("{path}?limit=1")).await;
            assert_eq!(page["items"], json!([items[0]]), "{path}");
        }
    }
}
