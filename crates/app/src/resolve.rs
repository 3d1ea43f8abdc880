//! From what objects say to what is there: every reference resolved against everything that was seen.
//!
//! Selectors become the objects they select, hosts become Services, Ingresses or something outside, custom resources get their
//! definition. One pass over the objects; what has to be looked up by label, host or group is in an index, so that the work
//! grows with the references and not with their square.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use serde_json::Value;

use crate::certificate::External;
use crate::graph::{By, Edge, RefKind};
use crate::kinds::{self, To, custom_resource_definition};
use crate::names::{Kind, Mention, Sure};
use crate::object::{Object, ObjectKey};
use crate::refs::{self, Found, Namespaces, Target};
use crate::schema::{self, Schema};
use crate::selector::Selector;
use crate::world::{Labels, Observed, World, canonical};

/// References by the object that refers.
pub type Edges = BTreeMap<ObjectKey, Vec<Edge>>;

/// Every reference of every object, and what they name outside of the cluster.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// References within the cluster, or to what should be there.
    pub edges: Edges,
    /// What is outside, by the object that names it; only objects that name something.
    pub external: BTreeMap<ObjectKey, Vec<External>>,
}

/// Resolves the references of everything that was seen.
pub fn references(world: &World) -> References {
    let index = Index::of(world);
    let mut references = References::default();
    for (key, seen) in &world.objects {
        add(&mut references, &index, key, seen);
    }
    references
}

impl References {
    /// Adds the references of objects that came later, with [`World::fetch`]. Their namespaces were not read, so what they
    /// select cannot be told.
    pub fn add_fetched(&mut self, world: &World, keys: impl IntoIterator<Item = ObjectKey>) {
        let index = Index::bare(world);
        for key in keys {
            match world.objects.get(&key) {
                Some(seen) => add(self, &index, &key, seen),
                // An empty entry says that it was asked for already and is not there.
                None => {
                    self.edges.insert(key, Vec::new());
                }
            }
        }
    }
}

fn add(references: &mut References, index: &Index<'_>, key: &ObjectKey, seen: &Observed) {
    let mut of = Resolved { index, key, edges: Vec::new(), external: Vec::new() };
    of.resolve(seen);
    let Resolved { mut edges, mut external, .. } = of;
    edges.sort();
    // The same reference known in two ways is one; that of the table is first.
    edges.dedup_by(|a, b| a.to == b.to && a.via == b.via && a.at == b.at);
    external.sort();
    external.dedup();
    edges.shrink_to_fit();
    if !external.is_empty() {
        references.external.insert(key.clone(), external);
    }
    references.edges.insert(key.clone(), edges);
}

/// The references of one object while they are resolved.
struct Resolved<'i> {
    index: &'i Index<'i>,
    key: &'i ObjectKey,
    edges: Vec<Edge>,
    external: Vec<External>,
}

impl Resolved<'_> {
    fn resolve(&mut self, seen: &Observed) {
        let world = self.index.world;
        let object = seen.object.open();
        let mut found = refs::of(&object);
        if let Some(near) = seen.info().near {
            near(&object, &|key| world.get(key), &mut found);
        }
        let kind = (seen.resource.group.clone(), seen.resource.kind.clone());
        if let Some(schema) = self.index.schemas.get(&kind) {
            schema.find(&object, &mut found);
        }
        self.tracked_by_argo(&object, &mut found);
        self.images(seen, &object);
        for found in found {
            self.one(found);
        }
        if !kinds::is_built_in(&seen.resource.group) {
            let to = self.index.definition(seen);
            self.push(to, RefKind::Definition, "/kind", false, By::Table);
        }
    }

    fn push(&mut self, mut to: ObjectKey, via: RefKind, at: &str, optional: bool, by: By) {
        canonical(&mut to);
        if to != *self.key {
            self.edges.push(Edge { from: self.key.clone(), to, via, at: at.to_owned(), optional, by });
        }
    }

    fn one(&mut self, found: Found) {
        let Found { target, via, at, optional, by } = found;
        match target {
            Target::Object(to) => {
                let to = self.index.in_its_scope(to);
                self.push(to, via, &at, optional, by);
            }
            Target::Pods(namespace, selector) => {
                for to in self.index.labels.select(PODS, &namespace, &selector) {
                    self.push(to.clone(), via, &at, optional, by);
                }
            }
            Target::Objects { group, kind, namespaces, selector } => {
                for to in self.index.objects(&group, &kind, &namespaces, &selector) {
                    self.push(to, via, &at, optional, by);
                }
            }
            Target::Definitions(group) => {
                for to in self.index.definitions.get(group.as_str()).into_iter().flatten() {
                    self.push((*to).clone(), via, &at, optional, by);
                }
            }
            Target::Host(mention) => self.host(mention, via, &at),
        }
    }

    fn host(&mut self, mention: Mention, via: RefKind, at: &str) {
        if let Some(to) = self.index.behind(&self.key.namespace, &mention.host) {
            self.push(to, via, at, true, By::Text);
            return;
        }
        if mention.sure < Sure::Surely {
            return;
        }
        let is_short = !mention.host.is_empty() && !mention.host.contains(['.', ':']);
        if is_short {
            // Nobody outside is called so: a Service of this namespace is meant, and it is not there.
            if !self.key.namespace.is_empty() {
                let to = ObjectKey::new("", "Service", &self.key.namespace, &mention.host);
                self.push(to, via, at, true, By::Text);
            }
            return;
        }
        self.external.push(External {
            from: self.key.clone(),
            at: at.to_owned(),
            kind: mention.kind,
            name: mention.name,
        });
    }

    /// What its pods are made from. Pods that somebody makes say it where they are declared.
    fn images(&mut self, seen: &Observed, object: &Object) {
        let Some(base) = seen.info().pod_spec else { return };
        if seen.controller().is_some() {
            return;
        }
        for (at, image) in kinds::podspec::images(object, base) {
            let (from, name) = (self.key.clone(), image.to_owned());
            self.external.push(External { from, at, kind: Kind::Image, name });
        }
    }

    /// `app:group/kind:namespace/name`, or `namespace_app:…`, is written on all that Argo CD deploys.
    fn tracked_by_argo(&self, object: &Object, found: &mut Vec<Found>) {
        let Some(mark) = object.annotation("argocd.argoproj.io/tracking-id") else { return };
        let name = mark.split(':').next().unwrap_or("");
        let by_name = || self.index.argo.get(name).copied().flatten().cloned();
        let with_namespace = || {
            name.split_once('_')
                .map(|(namespace, name)| ObjectKey::new("argoproj.io", "Application", namespace, name))
        };
        if let Some(to) = by_name().or_else(with_namespace) {
            let at = "/metadata/annotations/argocd.argoproj.io~1tracking-id";
            found.push(Found::object(to, RefKind::Tracked, at).optional());
        }
    }
}

/// What is looked up while references are resolved.
struct Index<'w> {
    world: &'w World,
    labels: Labelled<'w>,
    schemas: BTreeMap<(String, String), Schema>,
    definitions: HashMap<String, Vec<&'w ObjectKey>>,
    /// Who serves a host name.
    hosts: HashMap<String, &'w ObjectKey>,
    /// Argo CD's Applications by name; none where several have it.
    argo: HashMap<&'w str, Option<&'w ObjectKey>>,
}

impl<'w> Index<'w> {
    /// Without anything that needs all objects to be known.
    fn bare(world: &'w World) -> Index<'w> {
        Index {
            world,
            labels: Labelled::default(),
            schemas: BTreeMap::new(),
            definitions: HashMap::new(),
            hosts: HashMap::new(),
            argo: HashMap::new(),
        }
    }

    fn of(world: &'w World) -> Index<'w> {
        let definitions: Vec<(&ObjectKey, Object)> = world
            .of_kind(custom_resource_definition::GROUP, "CustomResourceDefinition")
            .map(|(key, seen)| (key, seen.object.open()))
            .collect();
        let opened: Vec<&Object> = definitions.iter().map(|(_, object)| object).collect();
        let mut index =
            Index { schemas: schema::all(&opened), labels: Labelled::of(world), ..Index::bare(world) };
        for (key, object) in &definitions {
            index.definitions.entry(object.str("/spec/group").to_owned()).or_default().push(*key);
        }
        for (key, _) in world.of_kind("argoproj.io", "Application") {
            let one = index.argo.entry(&key.name).or_insert(Some(key));
            if one.is_some_and(|other| other != key) {
                *one = None;
            }
        }
        for (group, kind, place) in [
            ("networking.k8s.io", "Ingress", "/spec/rules/*/host"),
            ("route.openshift.io", "Route", "/spec/host"),
            ("gateway.networking.k8s.io", "HTTPRoute", "/spec/hostnames/*"),
            ("gateway.networking.k8s.io", "GRPCRoute", "/spec/hostnames/*"),
            ("gateway.networking.k8s.io", "TLSRoute", "/spec/hostnames/*"),
        ] {
            for (key, seen) in world.of_kind(group, kind) {
                for host in texts(&seen.object.open().0, place) {
                    index.hosts.entry(host.to_owned()).or_insert(key);
                }
            }
        }
        index
    }

    /// What a host is the name of.
    fn behind(&self, own: &str, host: &str) -> Option<ObjectKey> {
        let service = |namespace: &str, name: &str| ObjectKey::new("", "Service", namespace, name);
        let is_there = |key: &ObjectKey| self.world.objects.contains_key(key);
        let mut labels = host.rsplit('.');
        match (labels.next().unwrap_or(""), labels.next()) {
            ("", _) => None,
            (name, None) => Some(service(own, name)).filter(is_there),
            (last, Some(name)) => {
                let key = service(last, name);
                let is_read = self.world.namespaces.contains(last);
                let is_namespace =
                    || self.world.objects.contains_key(&ObjectKey::new("", "Namespace", "", last));
                // In a namespace that was not read it is asked for by name.
                if is_there(&key) || (!is_read && is_namespace()) {
                    return Some(key);
                }
                // `db-0.db`: a pod of a headless Service.
                let of_pod = Some(service(own, last)).filter(|_| labels.next().is_none()).filter(is_there);
                of_pod.or_else(|| self.hosts.get(host).map(|key| (*key).clone()))
            }
        }
    }

    /// An owner, or anything that says only kind and name, is here or cluster-scoped.
    fn in_its_scope(&self, to: ObjectKey) -> ObjectKey {
        if to.namespace.is_empty() || self.world.objects.contains_key(&to) {
            return to;
        }
        let cluster_scoped = ObjectKey { namespace: String::new(), ..to.clone() };
        let kind = (to.group.clone(), to.kind.clone());
        if self.world.objects.contains_key(&cluster_scoped) || self.world.cluster_scoped.contains(&kind) {
            return cluster_scoped;
        }
        to
    }

    /// What has to be there for a custom resource to be served.
    fn definition(&self, seen: &Observed) -> ObjectKey {
        let resource = &seen.resource;
        let definition = custom_resource_definition::definition(&resource.plural, &resource.group);
        if self.world.objects.contains_key(&definition) {
            return definition;
        }
        let name = format!("{}.{}", resource.version, resource.group);
        let service = ObjectKey::new("apiregistration.k8s.io", "APIService", "", &name);
        let is_somebodys = |api: Object| api.at("/spec/service").is_some_and(Value::is_object);
        if self.world.get(&service).is_some_and(is_somebodys) { service } else { definition }
    }

    /// Objects of a kind by their labels.
    fn objects(
        &self,
        group: &str,
        kind: &str,
        namespaces: &Namespaces,
        selector: &Selector,
    ) -> Vec<ObjectKey> {
        let all: Vec<&str> = match namespaces {
            Namespaces::One(namespace) => vec![namespace],
            Namespaces::Named(names) => names.iter().map(String::as_str).collect(),
            Namespaces::Any => Vec::new(),
            Namespaces::Labelled(labels) => {
                let fitting = self
                    .world
                    .of_kind("", "Namespace")
                    .filter(|(_, seen)| labels.selects(|name| seen.facts.labels.get(name)));
                fitting.map(|(key, _)| key.name.as_str()).collect()
            }
        };
        match bucket(group, kind) {
            Some(bucket) if *namespaces == Namespaces::Any => {
                self.labels.everywhere(bucket, selector).cloned().collect()
            }
            Some(bucket) => {
                all.into_iter().flat_map(|n| self.labels.select(bucket, n, selector)).cloned().collect()
            }
            None => self
                .world
                .of_kind(group, kind)
                .filter(|(key, _)| *namespaces == Namespaces::Any || all.contains(&key.namespace.as_str()))
                .filter(|(_, seen)| selector.selects(|name| seen.facts.labels.get(name)))
                .map(|(key, _)| key.clone())
                .collect(),
        }
    }
}

/// The strings that a pattern leads to.
pub(crate) fn texts<'v>(value: &'v Value, pattern: &str) -> Vec<&'v str> {
    let Some(rest) = pattern.strip_prefix('/') else { return value.as_str().into_iter().collect() };
    let (head, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match value {
        Value::Array(items) if head == "*" => items.iter().flat_map(|item| texts(item, tail)).collect(),
        Value::Object(fields) => fields.get(head).map_or_else(Vec::new, |field| texts(field, tail)),
        _ => Vec::new(),
    }
}

/// Kinds that somebody selects by label, numbered.
static SELECTED: LazyLock<BTreeSet<(&'static str, &'static str)>> = LazyLock::new(|| {
    let rules = kinds::all().flat_map(|info| info.refs);
    let selected = rules.filter_map(|rule| match rule.to {
        To::Objects(group, kind, _) if kind != "Pod" => Some((group, kind)),
        _ => None,
    });
    selected.chain([("", "ServiceAccount")]).collect()
});

/// Pods, and what makes them.
const PODS: usize = 0;

fn bucket(group: &str, kind: &str) -> Option<usize> {
    match (group, kind) {
        ("", "Pod") => Some(PODS),
        kind => SELECTED.iter().position(|known| *known == kind).map(|number| number + 1),
    }
}

/// Objects that somebody may select, by their labels: a selector looks only at candidates.
#[derive(Default)]
struct Labelled<'w> {
    entries: Vec<(&'w ObjectKey, &'w Labels)>,
    all: HashMap<(usize, &'w str), Vec<usize>>,
    with: HashMap<(usize, &'w str, &'w str, &'w str), Vec<usize>>,
    namespaces: BTreeSet<(usize, &'w str)>,
}

impl<'w> Labelled<'w> {
    fn of(world: &'w World) -> Labelled<'w> {
        let mut index = Labelled::default();
        for (key, seen) in &world.objects {
            if seen.info().pod_spec.is_some_and(|at| at.ends_with("/spec")) {
                index.add(PODS, key, &seen.facts.pod_labels);
            }
            if let Some(bucket) = bucket(&key.group, &key.kind).filter(|bucket| *bucket != PODS) {
                index.add(bucket, key, &seen.facts.labels);
            }
        }
        index
    }

    fn add(&mut self, bucket: usize, key: &'w ObjectKey, labels: &'w Labels) {
        let at = self.entries.len();
        let namespace = key.namespace.as_str();
        self.entries.push((key, labels));
        self.namespaces.insert((bucket, namespace));
        self.all.entry((bucket, namespace)).or_default().push(at);
        for (name, value) in labels.iter() {
            self.with.entry((bucket, namespace, name, value)).or_default().push(at);
        }
    }

    fn select<'s>(
        &'s self,
        bucket: usize,
        namespace: &'s str,
        selector: &'s Selector,
    ) -> impl Iterator<Item = &'w ObjectKey> + use<'s, 'w> {
        let candidates = match selector.one_label() {
            Some((name, value)) => self.with.get(&(bucket, namespace, name, value)),
            None => self.all.get(&(bucket, namespace)),
        };
        candidates.into_iter().flatten().filter_map(move |at| {
            let (key, labels) = self.entries.get(*at)?;
            selector.selects(|name| labels.get(name)).then_some(*key)
        })
    }

    fn everywhere<'s>(
        &'s self,
        bucket: usize,
        selector: &'s Selector,
    ) -> impl Iterator<Item = &'w ObjectKey> + use<'s, 'w> {
        let namespaces = self.namespaces.range((bucket, "")..).take_while(move |(b, _)| *b == bucket);
        namespaces.flat_map(move |(_, namespace)| self.select(bucket, namespace, selector))
    }
}
