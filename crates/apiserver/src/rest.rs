//! Get, list, create, update, patch: what a request does to the stored objects.
//!
//! Every write takes the same road: read the body in the version it was sent in, turn it into the
//! stored form, let [`crate::admit`] complete and check it, settle who owns which field, and commit.
//! A write that changes nothing leaves the resource version alone.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::apply::{self, Writer};
use crate::kinds::Kind;
use crate::request::{self, Query, Target, Verb, View};
use crate::schema::{self, Shape};
use crate::select::Selector;
use crate::status::{Cause, Extra, Fault};
use crate::storage::{Held, Key};
use crate::{State, convert, patch, protobuf, table, types};

/// A request below a resource, read as far as the resource itself does not matter.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it is about.
    pub target: Target,
    /// What it does.
    pub verb: Verb,
    /// Its parameters.
    pub query: Query,
    /// How the answer is shown.
    pub view: View,
    /// Who writes.
    pub manager: String,
    /// Of the body.
    pub content_type: String,
    /// Change nothing.
    pub dry_run: bool,
    /// Told to the client beside the answer.
    pub warnings: Vec<String>,
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// An object, in the version asked for, and the HTTP status.
    Object(u16, Value),
    /// A `Status`.
    Status(Value),
    /// Objects as they are held, and the metadata of their list.
    List {
        /// The objects, as they are held.
        items: Vec<Held>,
        /// `resourceVersion`, `continue`, `remainingItemCount`.
        metadata: Value,
    },
}

impl Call {
    fn key(&self) -> Key {
        Key::new(&convert::stored_resource(&self.target.kind), &self.target.namespace, &self.target.name)
    }

    fn shape<'a>(&'a self, kind: &'a Kind) -> Shape<'a> {
        Shape::of(kind, &self.target.version)
    }

    fn not_found(&self) -> Fault {
        Fault::not_found(&self.target.kind.group, &self.target.kind.plural, &self.target.name)
    }

    fn read(&self, body: &[u8]) -> Result<Value, Fault> {
        request::object(&self.target.kind, &self.target.version, &self.content_type, body)
    }

    /// An object as this client speaks it.
    pub fn present(&self, object: &Value) -> Value {
        let mut object = object.clone();
        convert::from_stored(&self.target.kind, &self.target.version, &mut object);
        object
    }

    /// A list as text. What is held as text, and is not another one in the version asked for, is never opened: a list is
    /// as large as all its objects.
    pub fn list_text(&self, items: &[Held], metadata: &Value) -> String {
        let kind = &self.target.kind;
        let head = json!({ "kind": kind.list_kind, "apiVersion": kind.api_version(&self.target.version),
            "metadata": metadata });
        let mut text = head.to_string();
        text.pop();
        text.push_str(",\"items\":[");
        // How an object held as text begins; what comes next is the rest of it.
        let (version, name) = (json!(convert::stored_api_version(kind)), json!(kind.kind));
        let begins = format!("{{\"apiVersion\":{version},\"kind\":{name}");
        let is_same = convert::is_same(kind, &self.target.version);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            let held = match item {
                Held::Text(text) if is_same => text.strip_prefix(&begins).map(|rest| (text, rest)),
                _ => None,
            };
            match held {
                Some((whole, _)) if kind.custom => text.push_str(whole),
                // Real servers leave the kind of a built-in item to its list.
                Some((_, rest)) => {
                    text.push('{');
                    text.push_str(rest.strip_prefix(',').unwrap_or(rest));
                }
                None => text.push_str(&table::listed(kind, self.present(&item.open())).to_string()),
            }
        }
        text.push_str("]}\n");
        text
    }
}

/// Whose status and metadata rules apply to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The object itself; its status stays as it is.
    Main,
    /// Only its status.
    Status,
    /// Anything, as namespace finalization and the server itself may.
    All,
}

impl State {
    /// Get and list.
    pub fn read(&self, call: &Call) -> Result<Reply, Fault> {
        if call.verb == Verb::List {
            return self.list(call);
        }
        let object = self.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let object = call.present(&object);
        match call.target.sub.as_str() {
            "scale" => Ok(Reply::Object(200, crate::admit::scale_of(&call.target, &object))),
            _ => Ok(Reply::Object(200, object)),
        }
    }

    fn list(&self, call: &Call) -> Result<Reply, Fault> {
        let Target { kind, namespace, .. } = &call.target;
        let selector =
            Selector::parse(call.query.get("labelSelector"), call.query.get("fieldSelector"), kind)?;
        let resource = convert::stored_resource(kind);
        let limit: usize = match call.query.get("limit") {
            "" => 0,
            text => text.parse().map_err(|_| {
                Fault::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            })?,
        };
        let now = self.store.revision();
        let asked = wanted_revision(&call.query, now)?;
        let exact = match call.query.get("resourceVersionMatch") {
            "Exact" => true,
            "" => limit > 0,
            _ => false,
        };
        let (revision, after) = match call.query.get("continue") {
            "" => (asked.filter(|_| exact).unwrap_or(now), None),
            token => {
                let (revision, after) = parse_token(token, &resource)?;
                // A token of a list that gave up being of one instant goes on from its place, as things are now.
                (if revision == 0 { now } else { revision }, Some(after))
            }
        };
        let all =
            self.store.list_at(&resource, namespace, revision, after.as_ref()).map_err(|_| match &after {
                Some(after) => {
                    let mut fault = Fault::expired(
                        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
                    );
                    let goes_on = format!("0:{}/{}", after.namespace, after.name);
                    fault.extra = Some(Box::new(Extra { goes_on, ..Extra::default() }));
                    fault
                }
                None => Fault::expired("The resourceVersion for the provided list is too old."),
            })?;
        // Without a selector nothing has to be opened to be counted.
        let mut rest = all.filter(|(_, held)| selector.is_empty() || selector.matches(&held.open()));
        let page: Vec<(&Key, Held)> =
            if limit == 0 { rest.by_ref().collect() } else { rest.by_ref().take(limit).collect() };
        // How many more is only told without a selector; otherwise one more is enough to know.
        let left = if selector.is_empty() { rest.count() } else { rest.take(1).count() };
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if kind.custom {
            // Lists of custom kinds always say it, and an empty token means the end.
            metadata["continue"] = json!("");
        }
        if let (Some((last, _)), true) = (page.last(), left > 0) {
            metadata["continue"] = json!(format!("{revision}:{}/{}", last.namespace, last.name));
            if selector.is_empty() {
                metadata["remainingItemCount"] = json!(left);
            }
        }
        Ok(Reply::List { items: page.into_iter().map(|(_, held)| held).collect(), metadata })
    }

    /// Everything that changes something.
    pub fn write(&mut self, call: &mut Call, body: &[u8]) -> Result<Reply, Fault> {
        match (call.verb, call.target.sub.as_str()) {
            (Verb::Create, "") => {
                let body = call.read(body)?;
                let object = self.decode(call, body)?;
                Ok(Reply::Object(201, self.create(call, object, false)?))
            }
            (Verb::Create, "eviction") => self.delete_named(call, &[]),
            (Verb::Create, "binding") => {
                let body = request::body(&call.content_type, body)?;
                self.bind_pod(call, &body)
            }
            (Verb::Create, _) => {
                Err(Fault::not_implemented(&format!("{}/{}", call.target.kind.plural, call.target.sub)))
            }
            (Verb::Update, "scale") | (Verb::Patch, "scale") => self.rescale(call, body),
            (Verb::Update, _) => {
                let body = call.read(body)?;
                let object = self.decode(call, body)?;
                self.replace(call, object)
            }
            (Verb::Patch, _) => self.patch(call, body),
            (Verb::Delete, "") => {
                let body = if body.is_empty() { Vec::new() } else { body.to_vec() };
                self.delete_named(call, &body)
            }
            (Verb::DeleteCollection, "") => self.delete_many(call, body),
            _ => Err(Fault::method_not_allowed()),
        }
    }

    /// Checks that a body is what the path says, and drops or refuses what its type does not know.
    fn decode(&self, call: &mut Call, mut object: Value) -> Result<Value, Fault> {
        let target = call.target.clone();
        let kind = &target.kind;
        let api_version = kind.api_version(&target.version);
        if !object.is_object() {
            return Err(Fault::bad_request(
                "the object provided is unrecognized: couldn't get version/kind; json parse error: the body is not an object",
            ));
        }
        for (field, expect) in [("apiVersion", api_version.as_str()), ("kind", kind.kind.as_str())] {
            match object.get(field).and_then(Value::as_str).unwrap_or("") {
                "" if kind.custom => {
                    let name = if field == "kind" { "Kind" } else { "apiVersion" };
                    return Err(Fault::bad_request(format!("Object '{name}' is missing in '{object}'")));
                }
                "" => object[field] = json!(expect),
                same if same == expect => {}
                other if field == "kind" && kind.custom => {
                    let name = object["metadata"]["name"].as_str().unwrap_or("");
                    let cause = Cause::invalid("kind", &json!(other), format!("must be {expect}"));
                    return Err(Fault::invalid(&kind.group, other, name, vec![cause]));
                }
                other if field == "kind" => {
                    return Err(Fault::bad_request(format!(
                        "{other} in version \"{version}\" cannot be handled as a {expect}: converting ({version}.{other}) to ({}.{expect}): unknown conversion",
                        types::short_group(&kind.group),
                        version = target.version,
                    )));
                }
                other => {
                    return Err(Fault::bad_request(format!(
                        "the API version in the data ({other}) does not match the expected API version ({expect})"
                    )));
                }
            }
        }
        if !object.get("metadata").is_some_and(Value::is_object) {
            object["metadata"] = json!({});
        }
        let shape = call.shape(kind);
        let cannot = |why: &str| {
            Fault::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: {why}",
                kind.kind, target.version, kind.kind
            ))
        };
        schema::conform(shape, &mut object, "").map_err(|why| cannot(&why))?;
        let unknown = schema::prune(shape, &mut object);
        if !unknown.is_empty() {
            let list: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
            match call.query.get("fieldValidation") {
                "Strict" if kind.custom => {
                    return Err(Fault::bad_request(format!("strict decoding error: {}", list.join(", "))));
                }
                "Strict" => return Err(cannot(&format!("strict decoding error: {}", list.join(", ")))),
                "Ignore" => {}
                _ => call.warnings.extend(list),
            }
        }
        Ok(object)
    }

    fn writer<'a>(&self, call: &'a Call) -> Writer<'a> {
        let kind = &call.target.kind;
        Writer {
            manager: &call.manager,
            api_version: kind.api_version(&call.target.version),
            sub: &call.target.sub,
            now: self.timestamp(),
        }
    }

    /// Makes an object. `accounted` if its `managedFields` are already right.
    fn create(&mut self, call: &Call, mut object: Value, accounted: bool) -> Result<Value, Fault> {
        let Target { kind, version, namespace, .. } = &call.target;
        let own = object["metadata"]["namespace"].as_str().unwrap_or("").to_string();
        if kind.namespaced && (own.is_empty() || own == *namespace) {
            object["metadata"]["namespace"] = json!(namespace);
        } else if kind.namespaced {
            return Err(Fault::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        } else if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.shift_remove("namespace");
        }
        if kind.namespaced && namespace.is_empty() {
            return Err(Fault::bad_request("namespace is required to create an object of this kind"));
        }
        if object["metadata"]["resourceVersion"].as_str().is_some_and(|v| !v.is_empty()) {
            return Err(Fault::raw(500, "resourceVersion should not be set on objects to be created"));
        }
        self.name_it(kind, namespace, &mut object);
        let name = object["metadata"]["name"].as_str().unwrap_or("").to_string();
        self.namespace_is_open(kind, namespace, &name)?;
        convert::to_stored(kind, version, &mut object);
        self.admit_create(kind, &mut object)?;
        if !accounted {
            let writer = self.writer(call);
            apply::record_update(kind, Shape::of(kind, &kind.storage), None, &mut object, &writer);
        }
        // Addresses come after the account of who set what: nobody owns what the server draws.
        self.allocate(kind, None, &mut object)?;
        let key = Key::new(&convert::stored_resource(kind), namespace, &name);
        if self.store.has(&key) {
            return Err(Fault::already_exists(&kind.group, &kind.plural, &name));
        }
        self.ask_validating(kind, None, Some(&object))?;
        let stored = if call.dry_run { Arc::new(object) } else { self.commit(kind, key, object) };
        Ok(call.present(&stored))
    }

    fn name_it(&mut self, kind: &Kind, namespace: &str, object: &mut Value) {
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        let metadata = &mut object["metadata"];
        let prefix = text(&metadata["generateName"]);
        if !text(&metadata["name"]).is_empty() || prefix.is_empty() {
            return;
        }
        let prefix: String = prefix.chars().take(58).collect();
        let mut name = String::new();
        for _ in 0..8 {
            name = format!("{prefix}{}", self.suffix());
            if !self.store.has(&Key::new(&convert::stored_resource(kind), namespace, &name)) {
                break;
            }
        }
        metadata["name"] = json!(name);
    }

    /// PUT.
    fn replace(&mut self, call: &Call, object: Value) -> Result<Reply, Fault> {
        let Target { kind, name, namespace, .. } = &call.target;
        check_identity(kind, &object, name, namespace)?;
        let key = call.key();
        let Some(current) = self.store.get(&key) else {
            // Some kinds of real servers create on PUT; clients that rely on it are rare, and none is ours.
            return Err(call.not_found());
        };
        let version = object["metadata"]["resourceVersion"].as_str().unwrap_or("").to_string();
        if version.is_empty() && !unconditional(kind) {
            let cause =
                Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            let cause = Cause { message: cause.message.replace("0:", "0x0:"), ..cause };
            return Err(Fault::invalid(&kind.group, &kind.plural, name, vec![cause]));
        }
        let mut object = object;
        convert::to_stored(kind, &call.target.version, &mut object);
        let object = self.update(call, &key, &current, object, false)?;
        Ok(Reply::Object(200, call.present(&object)))
    }

    fn part(&self, call: &Call) -> Part {
        match call.target.sub.as_str() {
            "status" => Part::Status,
            "finalize" => Part::All,
            _ => Part::Main,
        }
    }

    /// Writes a changed object, in stored form, over the current one.
    fn update(
        &mut self,
        call: &Call,
        key: &Key,
        current: &Arc<Value>,
        mut new: Value,
        accounted: bool,
    ) -> Result<Arc<Value>, Fault> {
        let kind = &call.target.kind;
        let name = &call.target.name;
        let asked = new["metadata"]["resourceVersion"].as_str().unwrap_or("");
        if !asked.is_empty() && Some(asked) != current["metadata"]["resourceVersion"].as_str() {
            return Err(Fault::modified(&kind.group, &kind.plural, name));
        }
        let uid = new["metadata"]["uid"].as_str().unwrap_or("");
        let have = current["metadata"]["uid"].as_str().unwrap_or("");
        if !uid.is_empty() && uid != have {
            let path =
                format!("/registry/{}/{}/{name}", kind.plural, call.target.namespace).replace("//", "/");
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"
            );
            return Err(Fault::conflict(&kind.group, &kind.plural, name, &why));
        }
        self.admit_update(kind, current, &mut new, self.part(call))?;
        if !accounted {
            let writer = self.writer(call);
            apply::record_update(kind, Shape::of(kind, &kind.storage), Some(current), &mut new, &writer);
        }
        new["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
        self.ask_validating(kind, Some(current), Some(&new))?;
        if same_but_for_times(current, &new) {
            return Ok(current.clone());
        }
        if call.dry_run {
            return Ok(Arc::new(new));
        }
        let stored = self.commit(kind, key.clone(), new);
        self.settle(key);
        Ok(stored)
    }

    /// PATCH, all four kinds.
    fn patch(&mut self, call: &mut Call, body: &[u8]) -> Result<Reply, Fault> {
        let target = call.target.clone();
        let kind = &target.kind;
        let key = call.key();
        let current = self.store.get(&key);
        if call.content_type == "application/apply-patch+yaml" {
            return self.server_side_apply(call, &key, current, body);
        }
        if !call.query.get("force").is_empty() {
            let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
            return Err(Fault::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        let parse = || -> Result<Value, Fault> {
            serde_json::from_slice(body).map_err(|e| Fault::bad_request(format!("error decoding patch: {e}")))
        };
        let supported = if kind.custom {
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        } else {
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
        };
        let apply_to = |object: &mut Value| -> Result<(), Fault> {
            match call.content_type.as_str() {
                "application/merge-patch+json" => patch::merge(object, &parse()?),
                "application/json-patch+json" => patch::json_patch(object, parse()?)?,
                "application/strategic-merge-patch+json" if !kind.custom => {
                    patch::strategic(call.shape(kind), object, &parse()?)?;
                }
                _ => return Err(Fault::unsupported_media(supported)),
            }
            Ok(())
        };
        let Some(current) = current else {
            // A patch nobody could read is the client's fault even if there is nothing to patch.
            apply_to(&mut json!({"metadata": {}}))
                .or_else(|f| if f.code == 415 { Err(f) } else { Ok(()) })?;
            return Err(call.not_found());
        };
        let mut object = call.present(&current);
        apply_to(&mut object)?;
        let mut object = self.decode(call, object)?;
        check_identity(kind, &object, &target.name, &target.namespace)?;
        convert::to_stored(kind, &target.version, &mut object);
        let object = self.update(call, &key, &current, object, false)?;
        Ok(Reply::Object(200, call.present(&object)))
    }

    fn server_side_apply(
        &mut self,
        call: &mut Call,
        key: &Key,
        current: Option<Arc<Value>>,
        body: &[u8],
    ) -> Result<Reply, Fault> {
        let target = call.target.clone();
        let kind = &target.kind;
        if call.query.get("fieldManager").is_empty() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Fault::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        let mut config = request::yaml(body)?;
        if !config.is_object() {
            return Err(Fault::bad_request("error decoding YAML: the body is not an object"));
        }
        let expect = kind.api_version(&target.version);
        let version = config["apiVersion"].as_str().unwrap_or("");
        if version != expect {
            return Err(Fault::bad_request(format!(
                "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {expect}"
            )));
        }
        if !config["metadata"]["managedFields"].is_null() {
            return Err(Fault::bad_request("metadata.managedFields must be nil"));
        }
        check_identity(kind, &config, &target.name, &target.namespace)?;
        let strictly = {
            let mut strict = call.clone();
            strict.warnings.clear();
            config = self.decode(&mut strict, config)?;
            strict.warnings
        };
        if let Some(first) = strictly.first() {
            let path = first.trim_start_matches("unknown field \"").trim_end_matches('"');
            return Err(Fault::raw(
                500,
                format!(
                    "failed to create typed patch object ({}; {}, Kind={}): .{path}: field not declared in schema",
                    if target.namespace.is_empty() {
                        target.name.clone()
                    } else {
                        format!("{}/{}", target.namespace, target.name)
                    },
                    kind.api_version(&target.version),
                    kind.kind
                ),
            ));
        }
        if config["metadata"]["name"].is_null() {
            config["metadata"]["name"] = json!(target.name);
        }
        if kind.namespaced {
            config["metadata"]["namespace"] = json!(target.namespace);
        }
        // Identity and version are not claimed; a resource version is a precondition.
        let asked = config["metadata"]["resourceVersion"].as_str().unwrap_or("").to_string();
        let uid = config["metadata"]["uid"].as_str().unwrap_or("").to_string();
        if let Some(metadata) = config["metadata"].as_object_mut() {
            for key in ["resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"] {
                metadata.shift_remove(key);
            }
        }
        let writer = self.writer(call);
        convert::to_stored(kind, &target.version, &mut config);
        let shape = Shape::of(kind, &kind.storage);
        let merged = apply::apply(kind, shape, current.as_deref(), &config, &writer, call.query.on("force"))?;
        let Some(current) = current else {
            if !asked.is_empty() || !uid.is_empty() || !target.sub.is_empty() {
                return Err(call.not_found());
            }
            let mut made = merged;
            // `create` wants the version the client speaks.
            convert::from_stored(kind, &target.version, &mut made);
            return Ok(Reply::Object(201, self.create(call, made, true)?));
        };
        let mut merged = merged;
        let version =
            if asked.is_empty() { current["metadata"]["resourceVersion"].clone() } else { json!(asked) };
        merged["metadata"]["resourceVersion"] = version;
        if !uid.is_empty() {
            merged["metadata"]["uid"] = json!(uid);
        }
        let object = self.update(call, key, &current, merged, true)?;
        Ok(Reply::Object(200, call.present(&object)))
    }

    fn rescale(&mut self, call: &mut Call, body: &[u8]) -> Result<Reply, Fault> {
        let target = call.target.clone();
        let key = call.key();
        let current = self.store.get(&key).ok_or_else(|| call.not_found())?;
        let mut scale = crate::admit::scale_of(&target, &call.present(&current));
        match (call.verb, call.content_type.as_str()) {
            (Verb::Update, protobuf::CONTENT_TYPE) => {
                let ty = types::get("autoscaling.v1.Scale").ok_or_else(Fault::no_such_path)?;
                scale = protobuf::object(ty, body)?;
            }
            (Verb::Update, content_type) => scale = request::body(content_type, body)?,
            (_, "application/json-patch+json") => {
                let patch = serde_json::from_slice(body)
                    .map_err(|e| Fault::bad_request(format!("error decoding patch: {e}")))?;
                patch::json_patch(&mut scale, patch)?;
            }
            _ => patch::merge(&mut scale, &request::yaml(body)?),
        }
        let mut object = (*current).clone();
        let paths = target.kind.version(&target.version).and_then(|v| v.scale.clone());
        let Some(paths) = paths else { return Err(Fault::no_such_path()) };
        let mut place = &mut object;
        for key in &paths.spec {
            place = &mut place[key.as_str()];
        }
        *place = scale["spec"]["replicas"].as_i64().map_or(json!(0), |n| json!(n));
        object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
        let stored = self.update(call, &key, &current, object, false)?;
        Ok(Reply::Object(200, crate::admit::scale_of(&target, &call.present(&stored))))
    }

    fn bind_pod(&mut self, call: &Call, binding: &Value) -> Result<Reply, Fault> {
        let key = call.key();
        let current = self.store.get(&key).ok_or_else(|| call.not_found())?;
        let node = binding["target"]["name"].as_str().unwrap_or("");
        if current["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty()) {
            let why = format!(
                "pod {} is already assigned to node {}",
                call.target.name, current["spec"]["nodeName"]
            );
            return Err(Fault::conflict("", "pods/binding", &call.target.name, &why));
        }
        let mut object = (*current).clone();
        object["spec"]["nodeName"] = json!(node);
        if !call.dry_run {
            self.commit(&call.target.kind, key, object);
        }
        Ok(Reply::Object(
            201,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        ))
    }
}

/// Name and namespace of a body must be those of the path.
fn check_identity(kind: &Kind, object: &Value, name: &str, namespace: &str) -> Result<(), Fault> {
    let text = |value: &'_ Value| value.as_str().unwrap_or("").to_string();
    let (own_name, own_namespace) =
        (text(&object["metadata"]["name"]), text(&object["metadata"]["namespace"]));
    if !own_name.is_empty() && own_name != name {
        return Err(Fault::bad_request(format!(
            "the name of the object ({own_name}) does not match the name on the URL ({name})"
        )));
    }
    if kind.namespaced && !own_namespace.is_empty() && own_namespace != namespace {
        return Err(Fault::bad_request(format!(
            "the namespace of the object ({own_namespace}) does not match the namespace on the request ({namespace})"
        )));
    }
    Ok(())
}

/// May it be replaced without naming the version it was read in?
fn unconditional(kind: &Kind) -> bool {
    const CAREFUL: &[&str] = &[
        "apiservices",
        "csidrivers",
        "csinodes",
        "csistoragecapacities",
        "customresourcedefinitions",
        "leases",
        "mutatingwebhookconfigurations",
        "poddisruptionbudgets",
        "runtimeclasses",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "validatingwebhookconfigurations",
        "volumeattachments",
    ];
    !kind.custom && !CAREFUL.contains(&kind.plural.as_str())
}

/// Equal, not counting when a manager last wrote.
fn same_but_for_times(old: &Value, new: &Value) -> bool {
    if old == new {
        return true;
    }
    let bare = |object: &Value| {
        let mut object = object.clone();
        for entry in object["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
            entry["time"] = Value::Null;
        }
        object
    };
    bare(old) == bare(new)
}

fn wanted_revision(query: &Query, now: u64) -> Result<Option<u64>, Fault> {
    let text = query.get("resourceVersion");
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let revision: u64 = text.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        Fault::raw(500, format!("resourceVersion: Invalid value: {text:?}: {why}"))
    })?;
    if revision > now {
        let mut fault =
            Fault::raw(504, format!("Timeout: Too large resource version: {revision}, current: {now}"));
        fault.reason = "Timeout";
        fault.details = Some(json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
            "retryAfterSeconds": 1,
        }));
        return Err(fault);
    }
    Ok(Some(revision))
}

fn parse_token(token: &str, resource: &str) -> Result<(u64, Key), Fault> {
    let read = || {
        let (revision, after) = token.split_once(':')?;
        let (namespace, name) = after.split_once('/')?;
        Some((revision.parse().ok()?, Key::new(resource, namespace, name)))
    };
    read().ok_or_else(|| Fault::bad_request("invalid continue token: continue key is not valid"))
}
