#!/usr/bin/env python3
"""What a program that others wrote for real clusters sees of the one of KUBECONFIG: client.py NAMESPACE PLURAL, as one JSON object.

It is the Kubernetes project's own client library for Python, used as its users use it: typed reads, pages, selectors, a watch, the
dynamic client that asks discovery for a kind it never heard of (PLURAL), and changes, which are told with the status they end in.
And every kind that discovery lists is shown as k9s shows it: may it be listed, watched, deleted? Then a table of its rows with the objects in them.
"""

import json
import sys

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException

namespace, plural = sys.argv[1:]
config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def refused(change):
    """The status a change ends in, and the server's words."""
    try:
        change()
    except ApiException as error:
        return [error.status, json.loads(error.body)["message"]]
    return "done"


def pages():
    """The names of all ConfigMaps, asked for one at a time."""
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(namespace, limit=1, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            return names


def shown():
    """Rows, columns and what is allowed, of each kind: the requests k9s makes for a view (its internal/client/client.go and internal/dao/table.go)."""
    found = {}
    for kind in raw.resources.search():
        if "list" not in (kind.verbs or []) or isinstance(kind, dynamic.resource.ResourceList):
            continue
        may = [allowed(kind, verb) for verb in ("list", "watch", "get", "delete", "patch")]
        table = json.loads(raw.request("get", kind.path(), query_params=[("includeObject", "Object")], serialize=False, header_params={
            "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"}).data)
        found[f"{kind.group_version} {kind.name}"] = {
            "may": may, "kind": table["kind"], "columns": [column["name"] for column in table["columnDefinitions"]],
            "rows": [[row["object"]["kind"], row["object"]["metadata"]["name"], len(row["cells"])] for row in table["rows"]]}
    return found


def allowed(kind, verb):
    asked = client.V1ResourceAttributes(group=kind.group or "", version=kind.api_version, resource=kind.name, verb=verb)
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
    return client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed


deployment = apps.read_namespaced_deployment("web", namespace)
stream = watch.Watch().stream(core.list_namespaced_secret, namespace, timeout_seconds=1)
raw = dynamic.DynamicClient(client.ApiClient())
custom = next(kind for kind in raw.resources.search(name=plural) if kind.preferred)
documents = json.loads(raw.request("get", "/openapi/v3", serialize=False).data)

print(json.dumps({
    "version": client.VersionApi().get_code().git_version,
    "namespaces": sorted(item.metadata.name for item in core.list_namespace().items),
    "image": deployment.spec.template.spec.containers[0].image,
    "uid": deployment.metadata.uid,
    "created": deployment.metadata.creation_timestamp.isoformat(),
    "pages": pages(),
    "selected": [item.metadata.name for item in core.list_secret_for_all_namespaces(field_selector="metadata.name=secret").items],
    "watched": sorted(event["type"] + " " + event["object"].metadata.name for event in stream),
    "custom": [[item.kind, item.metadata.name, item.spec.get("teeth")] for item in custom.get(namespace=namespace).items],
    "groups": sorted(group.name for group in client.ApisApi().get_api_versions().groups),
    "documents": sorted(documents["paths"]),
    "shown": shown(),
    "changes": [
        refused(lambda: core.create_namespaced_config_map(namespace, {"metadata": {"name": "new"}})),
        refused(lambda: core.patch_namespaced_config_map("config", namespace, {"data": {"A": "2"}})),
        refused(lambda: apps.delete_namespaced_deployment("web", namespace)),
        refused(lambda: custom.delete(namespace=namespace, name="jerry")),
    ],
}))
