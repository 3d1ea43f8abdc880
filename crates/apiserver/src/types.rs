//! The fields of the built-in types, read from one table (`types.txt`).
//!
//! One table answers every question about a field: does it exist, what does it hold, how does its
//! list merge, is it owned as a whole. Strict validation, pruning, both structured patches and the
//! OpenAPI documents therefore cannot disagree.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What a field holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Ty {
    /// One of the letters documented in the table.
    Scalar(char),
    /// A list.
    List(Box<Ty>),
    /// A map with string keys.
    Map(Box<Ty>),
    /// Another type of the table.
    Named(&'static str),
}

/// One field of a type.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its protobuf field numbers, outermost first; empty if it has none.
    pub wire: Vec<u64>,
    /// What it holds.
    pub ty: Ty,
    /// How server-side apply merges it, if it is a list.
    pub apply: Merge,
    /// How strategic merge patch merges it, if it is a list.
    pub strategic: Merge,
    /// A strategic merge patch may list the keys to keep.
    pub retain_keys: bool,
    /// Overrides the type: owned as a whole, or not.
    pub atomic: Option<bool>,
}

/// How two lists become one.
#[derive(Debug, Clone, PartialEq)]
pub enum Merge {
    /// The new one replaces the old one.
    Replace,
    /// A set of scalars: the union.
    Set,
    /// By the keys of the elements.
    Keys(Vec<&'static str>),
}

/// One type.
#[derive(Debug, Clone, PartialEq)]
pub struct Type {
    /// Such as `core.v1.PodSpec`.
    pub name: &'static str,
    /// Owned as a whole in server-side apply.
    pub atomic: bool,
    /// Its fields, in the order of the table.
    pub fields: Vec<Field>,
}

impl Type {
    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}

static TABLE: OnceLock<BTreeMap<&'static str, Type>> = OnceLock::new();

/// Every type, by name.
pub fn all() -> &'static BTreeMap<&'static str, Type> {
    TABLE.get_or_init(|| {
        let lines = include_str!("types.txt").lines();
        lines.filter(|l| !l.starts_with('#')).filter_map(parse_line).map(|t| (t.name, t)).collect()
    })
}

/// The type of that name.
pub fn get(name: &str) -> Option<&'static Type> {
    all().get(name)
}

/// The type of an object in a served version of a built-in group.
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    get(&format!("{}.{version}.{kind}", short_group(group)))
}

/// `networking.k8s.io` → `networking`, and `core` for the core group.
pub fn short_group(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) }
}

fn parse_line(line: &'static str) -> Option<Type> {
    let mut words = line.split(' ');
    let name = words.next().filter(|n| !n.is_empty())?;
    let fields = words.filter_map(parse_field).collect();
    Some(Type { name: name.trim_end_matches('!'), atomic: name.ends_with('!'), fields })
}

fn parse_field(word: &'static str) -> Option<Field> {
    let (name, mut rest) = word.split_once(':')?;
    let (name, wire) = name.split_once('@').unwrap_or((name, ""));
    let mut atomic = None;
    if let Some(less) = rest.strip_suffix('!') {
        (rest, atomic) = (less, Some(true));
    } else if let Some(less) = rest.strip_suffix('+') {
        (rest, atomic) = (less, Some(false));
    }
    let retain_keys = rest.ends_with('~');
    let rest = rest.trim_end_matches('~');
    let (ty, merge) = rest.split_once('=').unwrap_or((rest, ""));
    let (apply, strategic) = merge.split_once('/').unwrap_or((merge, merge));
    Some(Field {
        name,
        wire: wire.split('.').filter_map(|n| n.parse().ok()).collect(),
        ty: parse_type(ty)?,
        apply: parse_merge(apply),
        strategic: parse_merge(strategic),
        retain_keys,
        atomic,
    })
}

fn parse_merge(text: &'static str) -> Merge {
    match text {
        "" => Merge::Replace,
        "set" => Merge::Set,
        keys => Merge::Keys(keys.split(',').collect()),
    }
}

fn parse_type(text: &'static str) -> Option<Ty> {
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return Some(Ty::List(Box::new(parse_type(inner)?)));
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return Some(Ty::Map(Box::new(parse_type(inner)?)));
    }
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => Some(Ty::Scalar(letter)),
        (Some(_), _) => Some(Ty::Named(text)),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    #[test]
    fn every_built_in_kind_has_its_type_and_every_named_type_is_there() {
        for kind in Kinds::default().all() {
            for version in &kind.versions {
                assert!(
                    of_kind(&kind.group, &version.name, &kind.kind).is_some(),
                    "{}/{} {}",
                    kind.group,
                    version.name,
                    kind.kind
                );
            }
        }
        fn named(ty: &Ty) -> Option<&'static str> {
            match ty {
                Ty::Scalar(letter) => {
                    assert!("sbilnytqx*".contains(*letter), "{letter}");
                    None
                }
                Ty::List(inner) | Ty::Map(inner) => named(inner),
                Ty::Named(name) => Some(name),
            }
        }
        for ty in all().values() {
            for field in &ty.fields {
                if let Some(name) = named(&field.ty) {
                    assert!(get(name).is_some(), "{} {} {name}", ty.name, field.name);
                }
            }
        }
    }

    #[test]
    fn the_lists_people_patch_merge_by_the_right_key() {
        let check = |ty: &str, field: &str, apply: &str, strategic: &str| {
            let field = get(ty).and_then(|t| t.field(field)).unwrap();
            let text = |merge: &Merge| match merge {
                Merge::Replace => "replace".to_string(),
                Merge::Set => "set".to_string(),
                Merge::Keys(keys) => keys.join(","),
            };
            assert_eq!(
                (text(&field.apply).as_str(), text(&field.strategic).as_str()),
                (apply, strategic),
                "{ty}"
            );
        };
        check("core.v1.PodSpec", "containers", "name", "name");
        check("core.v1.PodSpec", "tolerations", "replace", "replace");
        check("core.v1.PodSpec", "volumes", "name", "name");
        check("core.v1.Container", "ports", "containerPort,protocol", "containerPort");
        check("core.v1.Container", "env", "name", "name");
        check("core.v1.Container", "volumeMounts", "mountPath", "mountPath");
        check("core.v1.ServiceSpec", "ports", "port,protocol", "port");
        check("meta.v1.ObjectMeta", "finalizers", "set", "set");
        check("meta.v1.ObjectMeta", "ownerReferences", "uid", "uid");
        assert!(get("apps.v1.DeploymentSpec").unwrap().field("strategy").unwrap().retain_keys);
    }
}
