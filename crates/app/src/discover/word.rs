//! What objects say of themselves, or their owners for them.

use crate::object::{Object, ObjectKey};
use crate::world::{self, Observed, World};

/// What an object says of itself: the application, and by what it says so.
pub(crate) fn own_word(object: &Object) -> Option<(String, &'static str)> {
    let text = |value: Option<&str>, by: &'static str| {
        value.filter(|name| !name.is_empty()).map(|name| (name.to_owned(), by))
    };
    let label = |name: &'static str| text(object.label(name), name);
    let instance = object.label("app.kubernetes.io/instance");
    let is_helms = object.label("app.kubernetes.io/managed-by") == Some("Helm");
    // `app:group/kind:namespace/name`; the Application's namespace may stand before its name.
    let argo = object.annotation("argocd.argoproj.io/tracking-id").and_then(|mark| mark.split(':').next());
    let argo = argo.map(|name| name.split_once('_').map_or(name, |(_, name)| name));
    label("app.kubernetes.io/part-of")
        .or_else(|| text(argo, "argocd"))
        .or_else(|| text(object.label("argocd.argoproj.io/instance"), "argocd"))
        .or_else(|| text(object.label("helm.toolkit.fluxcd.io/name"), "flux"))
        .or_else(|| text(object.annotation("meta.helm.sh/release-name"), "helm"))
        .or_else(|| text(instance.filter(|_| is_helms), "helm"))
        .or_else(|| label("app.kubernetes.io/instance"))
        .or_else(|| text(object.label("kustomize.toolkit.fluxcd.io/name"), "flux"))
        .or_else(|| label("app.kubernetes.io/name"))
        .or_else(|| label("app"))
        .or_else(|| label("k8s-app"))
        // Helm's own record of a release.
        .or_else(|| {
            text(object.label("name").filter(|_| object.str("/type") == "helm.sh/release.v1"), "helm")
        })
}

/// The namespace that tools say a cluster-scoped object was brought with.
pub(super) fn own_place(object: &Object) -> Option<&str> {
    let argo = || object.annotation("argocd.argoproj.io/tracking-id")?.split(':').nth(2)?.split_once('/');
    object
        .annotation("meta.helm.sh/release-namespace")
        .or_else(|| argo().map(|(namespace, _)| namespace))
        .filter(|namespace| !namespace.is_empty())
}

/// Was a cluster-scoped object brought with an application of the namespaces that were read?
pub(crate) fn is_released_into(object: &Object, world: &World) -> bool {
    own_place(object).is_some_and(|namespace| world.namespaces.contains(namespace))
}

/// An object and its owners, up to the root.
pub(super) fn owners<'w>(
    world: &'w World,
    key: &'w ObjectKey,
    seen: &'w Observed,
) -> Vec<(&'w ObjectKey, &'w Observed)> {
    let mut chain = vec![(key, seen)];
    // Owners cannot be cyclic for long: a chain is at most a few links.
    while let Some((key, seen)) = chain.last().copied().filter(|_| chain.len() < 8) {
        // Not every operator calls itself the controller of what it makes.
        let Some(owner) = seen.controller().or(seen.facts.owners.first()) else { break };
        let mut up = ObjectKey::new(&owner.gvk.group, &owner.gvk.kind, &key.namespace, &owner.name);
        world::canonical(&mut up);
        let Some(found) = world.objects.get_key_value(&up) else { break };
        chain.push(found);
    }
    chain
}

/// Which of the owners up to the root says whose it is; the root's word counts most.
pub(super) fn word(chain: &[(&ObjectKey, &Observed)]) -> Option<(String, &'static str)> {
    chain.iter().rev().find_map(|(_, seen)| seen.facts.word.clone())
}
