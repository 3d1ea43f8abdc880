//! What lies between applications, and around them: what is cluster-scoped, who needs whom, one application over several
//! namespaces, what is shared, and data that no recovery point has.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{Name, Users};
use super::word::own_place;
use super::{Application, Need, Shared};
use crate::graph::{Edge, RefKind};
use crate::kinds::{self, Keep};
use crate::names::Kind;
use crate::object::ObjectKey;
use crate::resolve::References;
use crate::world::World;

/// Completes the applications: numbers are places in `names` and in `applications`.
pub(super) fn finish(
    world: &World,
    references: &References,
    names: &[Name],
    parts: &BTreeMap<&ObjectKey, usize>,
    users: &Users<'_>,
    mut applications: Vec<Application>,
) -> Vec<Application> {
    let all = |key: &ObjectKey| -> BTreeSet<usize> {
        let own = parts.get(key).copied();
        own.into_iter().chain(users.get(key).into_iter().flatten().copied()).collect()
    };
    for (key, owners) in cluster_scoped(world, references, names, &all) {
        for number in &owners {
            let Some(application) = applications.get_mut(*number) else { continue };
            match owners.len() {
                1 => application.parts.push(key.clone()),
                _ => application.shared.push(key.clone()),
            }
        }
    }
    // Whose an object is: what it says itself, or its only user.
    let whose = |key: &ObjectKey| {
        parts.get(key).copied().or_else(|| users.get(key).filter(|u| u.len() == 1)?.first().copied())
    };
    let links = links(references, &applications, whose);
    let place = over_namespaces(names, &links);
    let mut merged: Vec<Application> = Vec::new();
    let mut at: BTreeMap<usize, usize> = BTreeMap::new();
    for (number, application) in applications.into_iter().enumerate() {
        let root = place.get(number).copied().unwrap_or(number);
        match at.get(&root).and_then(|at| merged.get_mut(*at)) {
            Some(first) => join(first, application),
            None => {
                at.insert(root, merged.len());
                merged.push(application);
            }
        }
    }
    let full_names: Vec<String> = merged.iter().map(Application::full_name).collect();
    let of = |number: usize| at.get(place.get(number)?).copied();
    for (from, to, edge) in links {
        if let (Some(from), Some(to)) = (of(from), of(to))
            && from != to
            && let (Some(application), Some(name)) = (merged.get_mut(from), full_names.get(to))
        {
            application.needs.push(Need {
                application: name.clone(),
                to: edge.to.clone(),
                from: edge.from.clone(),
                at: edge.at.clone(),
            });
        }
    }
    for application in &mut merged {
        application.parts.sort();
        application.needs.sort();
        let external = application.parts.iter().filter_map(|part| references.external.get(part)).flatten();
        // Images are in the certificate; here they would hide what matters.
        application.external = external.filter(|e| e.kind != Kind::Image).cloned().collect();
        unprotected(application);
    }
    // A label alone is no application: something of it must exist that is ours to keep.
    merged.retain(|a| {
        !a.workloads.is_empty() || !a.volumes.is_empty() || a.parts.len() > 1 || a.by != "references"
    });
    merged.sort_by(|a, b| (&a.namespaces, &a.name).cmp(&(&b.namespaces, &b.name)));
    merged
}

/// Cluster-scoped objects and whose they are: that of the application that tools say, of the only one of that name, or of
/// those whose parts they are attached to: bindings of their accounts, webhooks that call their Services.
fn cluster_scoped<'w>(
    world: &'w World,
    references: &'w References,
    names: &[Name],
    all: &dyn Fn(&ObjectKey) -> BTreeSet<usize>,
) -> BTreeMap<&'w ObjectKey, BTreeSet<usize>> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, (_, name, _)) in names.iter().enumerate() {
        by_name.entry(name).or_default().push(number);
    }
    let mut owners: BTreeMap<&ObjectKey, BTreeSet<usize>> = BTreeMap::new();
    for (key, seen) in world.objects.iter().filter(|(key, _)| key.namespace.is_empty()) {
        if matches!(world.keep(seen), Keep::No(_)) || key.is("", "Namespace") {
            continue;
        }
        let object = seen.object.open();
        let place = own_place(&object);
        let fits = |n: &usize| {
            place.is_none_or(|place| names.get(*n).is_some_and(|(namespace, ..)| namespace == place))
        };
        let said = seen.facts.word.as_ref().and_then(|(name, _)| by_name.get(name.as_str()));
        let said: Vec<usize> = said.into_iter().flatten().copied().filter(fits).collect();
        let found: BTreeSet<usize> = match said.as_slice() {
            [one] => [*one].into(),
            _ => {
                let edges = references.edges.get(key).into_iter().flatten();
                edges.filter(|e| e.via.leads_back()).flat_map(|e| all(&e.to)).collect()
            }
        };
        if !found.is_empty() {
            owners.insert(key, found);
        }
    }
    // The roles of those bindings.
    let mut roles: BTreeMap<&ObjectKey, BTreeSet<usize>> = BTreeMap::new();
    for (key, found) in &owners {
        for edge in references.edges.get(*key).into_iter().flatten().filter(|e| e.via == RefKind::Role) {
            if let Some((role, seen)) = world.objects.get_key_value(&edge.to)
                && !owners.contains_key(role)
                && !matches!(world.keep(seen), Keep::No(_))
            {
                roles.entry(role).or_default().extend(found);
            }
        }
    }
    owners.extend(roles);
    owners
}

/// References from one application to another, as (from, to, reference).
fn links<'r>(
    references: &'r References,
    applications: &[Application],
    whose: impl Fn(&ObjectKey) -> Option<usize>,
) -> Vec<(usize, usize, &'r Edge)> {
    let mut links = Vec::new();
    for (number, application) in applications.iter().enumerate() {
        for edge in application.parts.iter().filter_map(|part| references.edges.get(part)).flatten() {
            let binds = edge.via.leads_forward() && !matches!(edge.via, RefKind::Owner | RefKind::Namespace);
            if let Some(other) = whose(&edge.to).filter(|other| *other != number && binds) {
                links.push((number, other, edge));
            }
        }
    }
    links
}

/// One application may live in several namespaces: parts that say the same name, and need each other. Gives for each number the
/// first of its like.
fn over_namespaces(names: &[Name], links: &[(usize, usize, &Edge)]) -> Vec<usize> {
    let mut first: Vec<usize> = (0..names.len()).collect();
    let root = |first: &[usize], mut at: usize| {
        while let Some(up) = first.get(at).copied().filter(|up| *up != at) {
            at = up;
        }
        at
    };
    // A release or an instance has its own namespace; who says `part-of`, or deploys from Git, means the whole.
    let means_the_whole = |by: &str| matches!(by, "app.kubernetes.io/part-of" | "argocd" | "flux");
    for (from, to, _) in links {
        let (Some((_, name, by)), Some((_, other, other_by))) = (names.get(*from), names.get(*to)) else {
            continue;
        };
        if name == other && by == other_by && means_the_whole(by) {
            let (a, b) = (root(&first, *from), root(&first, *to));
            if let Some(slot) = first.get_mut(a.max(b)) {
                *slot = a.min(b);
            }
        }
    }
    (0..names.len()).map(|at| root(&first, at)).collect()
}

fn join(first: &mut Application, other: Application) {
    first.namespaces.extend(other.namespaces);
    first.namespaces.sort();
    first.namespace = first.namespaces.first().cloned().unwrap_or_default();
    first.parts.extend(other.parts);
    first.workloads.extend(other.workloads);
    first.volumes.extend(other.volumes);
    first.shared.extend(other.shared);
    first.unprotected.extend(other.unprotected);
}

/// Data elsewhere is unprotected.
fn unprotected(application: &mut Application) {
    let mut told = BTreeSet::new();
    for external in application.external.iter().filter(|e| e.kind.holds_data()) {
        if told.insert((external.kind, &external.name)) {
            application.unprotected.push(format!(
                "{}: {} uses it ({})",
                external.words(),
                external.from,
                external.at
            ));
        }
    }
}

/// What several applications use: their own parts as each of them says, and what is cluster-scoped.
pub(super) fn shared(applications: &[Application], references: &References) -> Vec<Shared> {
    let mut users: BTreeMap<&ObjectKey, BTreeSet<String>> = BTreeMap::new();
    for application in applications {
        let name = application.full_name();
        for object in &application.shared {
            users.entry(object).or_default().insert(name.clone());
        }
        for need in &application.needs {
            let users = users.entry(&need.to).or_default();
            users.extend([name.clone(), need.application.clone()]);
        }
        for edge in application.parts.iter().filter_map(|part| references.edges.get(part)).flatten() {
            let is_used = matches!(edge.via, RefKind::Class | RefKind::Role | RefKind::Definition);
            let is_kept = kinds::lookup(&edge.to.group, &edge.to.kind).ignored.is_none();
            if is_used && is_kept && edge.to.namespace.is_empty() {
                users.entry(&edge.to).or_default().insert(name.clone());
            }
        }
    }
    users
        .into_iter()
        .filter(|(_, users)| users.len() > 1)
        .map(|(object, users)| Shared { object: object.clone(), used_by: users.into_iter().collect() })
        .collect()
}
