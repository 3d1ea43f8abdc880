//! An application drawn: as a map to read, and as a graph for Graphviz.
//!
//! The map is a tree along the references, from what nothing leads to (an Ingress, a CronJob, a binding) down to
//! configuration, claims and classes. What stands in several places is drawn once and pointed at after that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::discover::{Application, Discovered};
use crate::graph::{By, Edge, RefKind};
use crate::kinds;
use crate::object::ObjectKey;

/// References that tell nothing in a drawing: everything has them, or they lead to what has a life of its own.
fn is_drawn(edge: &Edge) -> bool {
    !matches!(edge.via, RefKind::Namespace | RefKind::Definition | RefKind::Watches | RefKind::Tracked)
        && kinds::lookup(&edge.to.group, &edge.to.kind).ignored.is_none()
        && !(edge.via == RefKind::ServiceAccount && edge.optional)
}

/// A word for what a reference means.
fn word(edge: &Edge) -> String {
    match edge.via {
        _ if edge.by == By::Text => "names".to_owned(),
        RefKind::Other => "uses".to_owned(),
        via => via.word().replace('_', " "),
    }
}

/// One application as a map.
pub fn draw(found: &Discovered, application: &Application) -> String {
    let mut map = Map {
        found,
        application,
        parts: application.parts.iter().collect(),
        drawn: BTreeSet::new(),
        text: String::new(),
    };
    map.line(0, &format!("{} (found by {})", application.full_name(), application.by));
    for root in map.roots() {
        map.object(root, 1, "", false);
    }
    for by in map.deployed_by() {
        map.line(1, &format!("deployed by {by}"));
    }
    for need in &application.needs {
        map.line(1, &format!("needs {}: {} <- {} {}", need.application, need.to, need.from, need.at));
    }
    for external in &application.external {
        let outside = if external.kind.holds_data() { "outside, unprotected" } else { "outside" };
        map.line(1, &format!("{outside}: {} <- {} {}", external.words(), external.from, external.at));
    }
    let elsewhere: BTreeSet<String> =
        application.external.iter().map(|e| format!("{}:", e.words())).collect();
    for what in application.unprotected.iter().filter(|w| !elsewhere.iter().any(|e| w.starts_with(e))) {
        map.line(1, &format!("unprotected: {what}"));
    }
    map.text
}

/// What lies between applications, one line each: who needs whom, what several use, and what is nobody's. At most so many
/// lines of each.
pub fn between(found: &Discovered, most: usize) -> Vec<String> {
    let needs: BTreeSet<String> = found
        .applications
        .iter()
        .flat_map(|a| a.needs.iter().map(|n| format!("{} needs {}: {}", a.full_name(), n.application, n.to)))
        .collect();
    let shared = found.shared.iter().map(|s| format!("shared: {}, by {}", s.object, s.used_by.join(", ")));
    let unclaimed = found.unclaimed.iter().map(|key| format!("in no application: {key}"));
    let mut lines = Vec::new();
    for all in [needs.into_iter().collect(), shared.collect(), unclaimed.collect::<Vec<_>>()] {
        let hidden = all.len().saturating_sub(most);
        lines.extend(all.into_iter().take(most));
        if hidden > 0 {
            lines.push(format!("… and {hidden} more; -o json has all of them"));
        }
    }
    lines
}

struct Map<'a> {
    found: &'a Discovered,
    application: &'a Application,
    parts: BTreeSet<&'a ObjectKey>,
    drawn: BTreeSet<&'a ObjectKey>,
    text: String,
}

impl<'a> Map<'a> {
    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.text, "{:1$}{text}", "", depth * 2);
    }

    /// Made again by its controller: not drawn.
    fn is_made(&self, key: &ObjectKey) -> bool {
        self.found.objects.get(key).is_some_and(|seen| seen.is_made)
            && !key.is("", "PersistentVolumeClaim")
            && kinds::lookup(&key.group, &key.kind).pod_spec.is_some()
            && self.owner_is_built_in(key)
    }

    /// Not what every cluster makes by itself.
    fn is_somebodys(&self, key: &ObjectKey) -> bool {
        self.found.objects.get(key).is_none_or(|seen| seen.is_kept)
    }

    /// The GitOps objects that its parts are kept in step by.
    fn deployed_by(&self) -> BTreeSet<String> {
        let edges = self.parts.iter().filter_map(|part| self.found.references.edges.get(*part)).flatten();
        edges.filter(|e| e.via == RefKind::Tracked).map(|e| e.to.to_string()).collect()
    }

    fn owner_is_built_in(&self, key: &ObjectKey) -> bool {
        let edges = self.found.references.edges.get(key).into_iter().flatten();
        edges.filter(|e| e.via == RefKind::Owner).all(|e| kinds::is_built_in(&e.to.group))
    }

    fn edges(&self, key: &ObjectKey) -> Vec<&'a Edge> {
        let mut edges: Vec<&Edge> = self
            .found
            .references
            .edges
            .get(key)
            .into_iter()
            .flatten()
            .filter(|e| {
                is_drawn(e) && e.via != RefKind::Owner && !self.is_made(&e.to) && self.is_somebodys(&e.to)
            })
            .collect();
        // One line for each object it leads to, whatever the number of places.
        edges.sort_by(|a, b| (a.via, &a.to, &a.at).cmp(&(b.via, &b.to, &b.at)));
        edges.dedup_by(|a, b| a.to == b.to);
        edges
    }

    /// What nothing of the application leads to.
    fn roots(&self) -> Vec<&'a ObjectKey> {
        let parts: Vec<&ObjectKey> = self.application.parts.iter().filter(|key| !self.is_made(key)).collect();
        let mut led_to: BTreeSet<&ObjectKey> = BTreeSet::new();
        let mut from: BTreeMap<&ObjectKey, Vec<&ObjectKey>> = BTreeMap::new();
        for key in &parts {
            // Who names the address that an Ingress serves is behind it as well as before it.
            let leads = |e: &&Edge| {
                e.by != By::Text || kinds::lookup(&e.to.group, &e.to.kind).order != kinds::Order::Front
            };
            let to: Vec<&ObjectKey> = self
                .edges(key)
                .into_iter()
                .filter(leads)
                .map(|e| &e.to)
                .filter(|to| self.parts.contains(to))
                .collect();
            led_to.extend(to.iter().copied());
            from.insert(key, to);
        }
        let mut roots: Vec<&ObjectKey> = parts.iter().copied().filter(|key| !led_to.contains(key)).collect();
        // Of those that lead to each other in a circle, one is a root.
        let mut reached: BTreeSet<&ObjectKey> = BTreeSet::new();
        let mut work: Vec<&ObjectKey> = roots.clone();
        let mut rest = parts.into_iter();
        loop {
            while let Some(key) = work.pop() {
                if reached.insert(key) {
                    work.extend(from.get(key).into_iter().flatten());
                }
            }
            let Some(next) = rest.find(|key| !reached.contains(key)) else { break };
            roots.push(next);
            work.push(next);
        }
        roots.sort_by_key(|key| (rank(key), *key));
        roots
    }

    fn object(&mut self, key: &'a ObjectKey, depth: usize, via: &str, optional: bool) {
        let is_ours = self.parts.contains(key);
        let mut told = self.name(key);
        let edges = if is_ours { self.edges(key) } else { Vec::new() };
        let is_new = self.drawn.insert(key);
        if !is_new && !edges.is_empty() {
            told.push_str(" …");
        }
        if !self.found.objects.contains_key(key) {
            told.push_str(if optional { " (not there, optional)" } else { " (not there)" });
        } else if self.application.shared.contains(key) {
            told.push_str(" (shared)");
        }
        let via = if via.is_empty() { String::new() } else { format!("{via} ") };
        self.line(depth, &format!("{via}{told}"));
        if is_new && depth < 12 {
            for edge in edges {
                self.object(&edge.to, depth + 1, &word(edge), edge.optional);
            }
        }
    }

    /// Without the application's own namespace.
    fn name(&self, key: &ObjectKey) -> String {
        let full = key.to_string();
        match (self.application.namespaces.as_slice(), full.split_once(' ')) {
            ([only], Some((kind, name))) => match name.strip_prefix(&format!("{only}/")) {
                Some(name) => format!("{kind} {name}"),
                None => full,
            },
            _ => full,
        }
    }
}

/// What leads in comes first, then what runs, then the rest.
fn rank(key: &ObjectKey) -> usize {
    match kinds::lookup(&key.group, &key.kind).order {
        kinds::Order::Front => 0,
        _ if key.is("", "Service") => 1,
        kinds::Order::Custom => 2,
        kinds::Order::Workload => 3,
        kinds::Order::Autoscale | kinds::Order::Network => 4,
        kinds::Order::Binding | kinds::Order::Role | kinds::Order::Account => 5,
        kinds::Order::Config | kinds::Order::Claim | kinds::Order::Volume => 6,
        _ => 7,
    }
}

/// All applications as a graph for Graphviz: who needs whom, what is shared, what is outside.
pub fn dot(found: &Discovered) -> String {
    let mut text =
        String::from("digraph applications {\n  rankdir=LR;\n  node [fontname=\"sans-serif\", shape=box];\n");
    let mut namespaces: BTreeMap<String, Vec<&Application>> = BTreeMap::new();
    for application in &found.applications {
        namespaces.entry(application.namespaces.join(", ")).or_default().push(application);
    }
    for (number, (namespace, applications)) in namespaces.iter().enumerate() {
        let _ = writeln!(text, "  subgraph cluster_{number} {{\n    label={};", quoted(namespace));
        for application in applications {
            let _ = writeln!(
                text,
                "    {} [label={}];",
                quoted(&application.full_name()),
                quoted(&application.name)
            );
        }
        text.push_str("  }\n");
    }
    let (mut outside, mut lines) = (BTreeSet::new(), BTreeSet::new());
    for application in &found.applications {
        let from = quoted(&application.full_name());
        for need in &application.needs {
            lines.insert(format!(
                "  {from} -> {} [label={}];",
                quoted(&need.application),
                quoted(&need.to.to_string())
            ));
        }
        for external in &application.external {
            outside.insert(format!("  {} [shape=cylinder, style=dashed];", quoted(&external.name)));
            lines.insert(format!("  {from} -> {} [style=dashed];", quoted(&external.name)));
        }
    }
    // What is needed of another application is on the line between the two.
    let needed: BTreeSet<&ObjectKey> =
        found.applications.iter().flat_map(|a| a.needs.iter().map(|n| &n.to)).collect();
    for shared in found.shared.iter().filter(|s| !needed.contains(&s.object)) {
        let _ = writeln!(text, "  {} [shape=ellipse];", quoted(&shared.object.to_string()));
        for user in &shared.used_by {
            let _ = writeln!(text, "  {} -> {};", quoted(user), quoted(&shared.object.to_string()));
        }
    }
    for line in outside.iter().chain(&lines) {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("}\n");
    text
}

/// One application as a graph for Graphviz: its objects and every reference between them and to others.
pub fn dot_of(found: &Discovered, application: &Application) -> String {
    let mut text =
        String::from("digraph application {\n  rankdir=LR;\n  node [fontname=\"sans-serif\", shape=box];\n");
    let parts: BTreeSet<&ObjectKey> = application.parts.iter().collect();
    let mut named: BTreeSet<&ObjectKey> = BTreeSet::new();
    let mut lines = Vec::new();
    for part in &application.parts {
        for edge in found.references.edges.get(part).into_iter().flatten().filter(|e| is_drawn(e)) {
            named.insert(&edge.to);
            let style = if edge.optional { ", style=dashed" } else { "" };
            let (from, to) = (quoted(&edge.from.to_string()), quoted(&edge.to.to_string()));
            lines.push(format!("  {from} -> {to} [label={}{style}];", quoted(edge.via.word())));
        }
    }
    lines.dedup();
    for part in &parts {
        let _ = writeln!(text, "  {};", quoted(&part.to_string()));
    }
    for other in named.difference(&parts) {
        let style = if found.objects.contains_key(*other) { "" } else { ", style=dotted" };
        let _ = writeln!(text, "  {} [shape=ellipse{style}];", quoted(&other.to_string()));
    }
    for external in &application.external {
        let name = quoted(&external.name);
        let _ = writeln!(text, "  {name} [shape=cylinder, style=dashed];");
        lines.push(format!("  {} -> {name} [style=dashed];", quoted(&external.from.to_string())));
    }
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str("}\n");
    text
}

/// A text as Graphviz takes it.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
