//! The graph of an application: objects, and the references between them with their evidence.
//!
//! An edge always points the way the reference is written: from the object that names to the object that is
//! named. Whether the named one has to exist first is a property of the kind of reference
//! ([`RefKind::needed_first`]), so ordering a restore and following a closure read the same edges.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::object::ObjectKey;

/// What a reference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefKind {
    /// `metadata.ownerReferences`.
    Owner,
    /// The object lives in that namespace.
    Namespace,
    /// Uses a ConfigMap.
    Config,
    /// Uses a Secret.
    Secret,
    /// Runs as a ServiceAccount.
    ServiceAccount,
    /// Uses a PersistentVolumeClaim.
    Claim,
    /// A claim and its volume, either way.
    Volume,
    /// StorageClass, IngressClass, PriorityClass, RuntimeClass and the like.
    Class,
    /// A binding's role.
    Role,
    /// A binding's subject.
    Subject,
    /// A label selector: Service, NetworkPolicy, PodDisruptionBudget.
    Selects,
    /// An autoscaler's target.
    Scales,
    /// A route to a Service.
    Routes,
    /// A webhook or API service calls a Service.
    Calls,
    /// A custom resource and its definition.
    Definition,
    /// A Service's DNS name in plain configuration.
    Names,
    /// Lives in the object it names: a topic in its broker, a pooler in its database.
    PartOf,
    /// A policy on its target, endpoints of their Service.
    Attaches,
    /// Takes whatever has certain labels or lives in a namespace: a monitor, a tool that deploys.
    Watches,
    /// The GitOps object that an object is kept in step by.
    Tracked,
    /// Anything else that it names.
    #[serde(other)]
    Other,
}

/// How a reference is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The kind's table says that a name stands there.
    #[default]
    Table,
    /// The schema of the kind's definition does.
    Schema,
    /// The field has a usual name.
    Shape,
    /// A host in plain text is the name of something in the cluster.
    #[serde(other)]
    Text,
}

impl By {
    /// Is it the usual way, which is not written down?
    pub fn is_table(&self) -> bool {
        *self == By::Table
    }
}

impl RefKind {
    /// Must the referred object exist before the referring one is applied? A Service may select pods that
    /// are not there yet; a pod cannot start without its Secret.
    pub fn needed_first(self) -> bool {
        match self {
            RefKind::Owner
            | RefKind::Namespace
            | RefKind::Config
            | RefKind::Secret
            | RefKind::ServiceAccount
            | RefKind::Claim
            | RefKind::Volume
            | RefKind::Class
            | RefKind::Role
            | RefKind::Subject
            | RefKind::Definition
            | RefKind::Calls
            | RefKind::PartOf
            | RefKind::Scales => true,
            RefKind::Selects
            | RefKind::Routes
            | RefKind::Names
            | RefKind::Attaches
            | RefKind::Watches
            | RefKind::Tracked
            | RefKind::Other => false,
        }
    }

    /// Does what refers by this kind need what it names, so that it comes along?
    pub fn leads_forward(self) -> bool {
        // A binding's other accounts and a Service's other pods are other people's; what is watched and what deploys
        // have a life of their own.
        !matches!(self, RefKind::Subject | RefKind::Selects | RefKind::Watches | RefKind::Tracked)
    }

    /// Does what refers by this kind belong to what it names, so that it comes along with that?
    pub fn leads_back(self) -> bool {
        matches!(
            self,
            RefKind::Owner
                | RefKind::PartOf
                | RefKind::Attaches
                | RefKind::Selects
                | RefKind::Scales
                | RefKind::Subject
                | RefKind::Routes
                | RefKind::Calls
        )
    }

    /// The word for it, as it is written in a point.
    pub fn word(self) -> &'static str {
        match self {
            RefKind::Owner => "owner",
            RefKind::Namespace => "namespace",
            RefKind::Config => "config",
            RefKind::Secret => "secret",
            RefKind::ServiceAccount => "service_account",
            RefKind::Claim => "claim",
            RefKind::Volume => "volume",
            RefKind::Class => "class",
            RefKind::Role => "role",
            RefKind::Subject => "subject",
            RefKind::Selects => "selects",
            RefKind::Scales => "scales",
            RefKind::Routes => "routes",
            RefKind::Calls => "calls",
            RefKind::Definition => "definition",
            RefKind::Names => "names",
            RefKind::PartOf => "part_of",
            RefKind::Attaches => "attaches",
            RefKind::Watches => "watches",
            RefKind::Tracked => "tracked",
            RefKind::Other => "other",
        }
    }
}

/// One reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    /// The object that refers.
    pub from: ObjectKey,
    /// The object referred to.
    pub to: ObjectKey,
    /// What the reference means.
    pub via: RefKind,
    /// JSON pointer into `from`: the evidence.
    pub at: String,
    /// The object itself says it can live without (`optional: true`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// How it is known.
    #[serde(default, skip_serializing_if = "By::is_table")]
    pub by: By,
}

/// Objects and the references between them. An edge may point at an object that is no node: it dangles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// The objects.
    pub nodes: BTreeSet<ObjectKey>,
    /// The references, sorted, each once.
    pub edges: Vec<Edge>,
}

impl Graph {
    /// A graph of these nodes and edges; edges are sorted and doubles dropped.
    pub fn new(nodes: BTreeSet<ObjectKey>, mut edges: Vec<Edge>) -> Graph {
        edges.sort();
        edges.dedup();
        Graph { nodes, edges }
    }

    /// References written in an object. Edges are sorted by `from`, so this is a binary search.
    pub fn from<'a>(&'a self, key: &'a ObjectKey) -> &'a [Edge] {
        let start = self.edges.partition_point(|edge| edge.from < *key);
        let rest = &self.edges[start..];
        let len = rest.partition_point(|edge| edge.from == *key);
        &rest[..len]
    }

    /// For every referred object, the edges that point at it. Built once by callers that walk backwards.
    pub fn reversed(&self) -> BTreeMap<&ObjectKey, Vec<&Edge>> {
        let mut reversed: BTreeMap<&ObjectKey, Vec<&Edge>> = BTreeMap::new();
        for edge in &self.edges {
            reversed.entry(&edge.to).or_default().push(edge);
        }
        reversed
    }

    /// Edges whose target is no node.
    pub fn dangling(&self) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(|edge| !self.nodes.contains(&edge.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("", "ConfigMap", "shop", name)
    }

    fn edge(from: &str, to: &str) -> Edge {
        Edge {
            from: key(from),
            to: key(to),
            via: RefKind::Config,
            at: String::new(),
            optional: false,
            by: By::Table,
        }
    }

    #[test]
    fn words_are_those_of_the_page_and_a_new_one_is_read_as_other() {
        for via in
            [RefKind::Owner, RefKind::ServiceAccount, RefKind::PartOf, RefKind::Watches, RefKind::Other]
        {
            assert_eq!(serde_json::to_value(via).unwrap(), via.word());
        }
        assert_eq!(serde_json::from_str::<RefKind>("\"of_tomorrow\"").unwrap(), RefKind::Other);
        assert_eq!(serde_json::from_str::<By>("\"table\"").unwrap(), By::Table);
    }

    #[test]
    fn edges_are_found_from_both_ends() {
        let graph = Graph::new(
            [key("a"), key("b")].into(),
            vec![edge("b", "c"), edge("a", "b"), edge("a", "b"), edge("b", "a")],
        );
        assert_eq!(graph.edges.len(), 3, "a double is dropped");
        assert_eq!(graph.from(&key("a")), [edge("a", "b")]);
        assert_eq!(graph.from(&key("b")), [edge("b", "a"), edge("b", "c")]);
        assert_eq!(graph.from(&key("c")), []);
        assert_eq!(graph.reversed()[&key("b")], [&edge("a", "b")]);
        assert_eq!(graph.dangling().collect::<Vec<_>>(), [&edge("b", "c")]);
    }
}
