#!/usr/bin/env python3
"""Local volumes of a node, made on demand: volumes.py SERVER PKI NODE FOLDER

For every claim of the class `local` whose pod the scheduler has placed on NODE: a file in FOLDER with an ext4 file system in
it, mounted under /var/lib/volumes, and a PersistentVolume of the type `local` that names the place. A file system for each,
as a disk has, so that one can be filled, frozen or lost without the others. When the claim is deleted the volume goes with
its file (reclaim policy Delete), or stays (Retain). A node that starts again mounts what its folder holds.

Runs in the node's namespaces; the kernel detaches the loop devices when the node ends.
"""

import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

CLASS = "local"
PROVISIONER = "volumes.holdfast.test"
MOUNTS = "/var/lib/volumes"
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class Api:
    """The API server, as the user whose certificate is USER.crt in the folder `pki`."""

    def __init__(self, server, pki, user):
        self.server = server
        self.tls = ssl.create_default_context(cafile=f"{pki}/ca.crt")
        self.tls.load_cert_chain(f"{pki}/{user}.crt", f"{pki}/{user}.key")

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.server + path, method=method, headers={"Content-Type": "application/json"},
                                         data=None if body is None else json.dumps(body).encode())
        with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
            return json.load(answer)

    def list(self, plural):
        return self.call("GET", f"/api/v1/{plural}?resourceVersion=0")["items"]


class Node:
    def __init__(self, api, name, folder):
        self.api, self.name, self.folder = api, name, folder
        os.makedirs(MOUNTS, exist_ok=True)
        for file in sorted(os.listdir(folder)):
            self.mount(file.removesuffix(".img"))

    def image(self, volume):
        return f"{self.folder}/{volume}.img"

    def mount(self, volume):
        place = f"{MOUNTS}/{volume}"
        if not os.path.ismount(place):
            os.makedirs(place, exist_ok=True)
            run("mount", "-o", "loop", self.image(volume), place)

    def make(self, claim):
        meta, spec = claim["metadata"], claim["spec"]
        volume = f"pvc-{meta['uid']}"
        wanted = spec["resources"]["requests"]["storage"]
        if not os.path.exists(self.image(volume)):
            part = self.image(volume) + ".part"
            with open(part, "wb") as file:
                # ext4 wants some room for itself; what is not written takes none on the machine.
                file.truncate(max(quantity(wanted), 32 << 20))
            run("mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard", part)
            os.rename(part, self.image(volume))
        self.mount(volume)
        self.api.call("POST", "/api/v1/persistentvolumes", {
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": volume, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
            "spec": {
                "capacity": {"storage": wanted}, "accessModes": spec["accessModes"], "volumeMode": "Filesystem",
                "storageClassName": CLASS, "persistentVolumeReclaimPolicy": "Delete", "local": {"path": f"{MOUNTS}/{volume}"},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta["namespace"],
                             "name": meta["name"], "uid": meta["uid"]},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.name]}]}]}},
            }})
        print(f"made {volume} for {meta['namespace']}/{meta['name']}", flush=True)

    def remove(self, volume):
        place = f"{MOUNTS}/{volume}"
        # Fails while a pod still uses it, and is tried again.
        if os.path.ismount(place):
            run("umount", place)
        if os.path.isdir(place):
            os.rmdir(place)
        if os.path.exists(self.image(volume)):
            os.remove(self.image(volume))
        self.api.call("DELETE", f"/api/v1/persistentvolumes/{volume}")
        print(f"removed {volume}", flush=True)

    def step(self):
        """Makes and removes what is to be; one that fails does not keep the others waiting."""
        volumes = self.api.list("persistentvolumes")
        names = {volume["metadata"]["name"] for volume in volumes}
        for claim in self.api.list("persistentvolumeclaims"):
            meta, spec = claim["metadata"], claim["spec"]
            if (spec.get("storageClassName") == CLASS and not spec.get("volumeName") and "deletionTimestamp" not in meta
                    and spec.get("volumeMode", "Filesystem") == "Filesystem" and f"pvc-{meta['uid']}" not in names
                    and meta.get("annotations", {}).get("volume.kubernetes.io/selected-node") == self.name):
                attempt(self.make, claim)
        for volume in volumes:
            meta, spec = volume["metadata"], volume["spec"]
            if (volume.get("status", {}).get("phase") == "Released" and spec["persistentVolumeReclaimPolicy"] == "Delete"
                    and meta.get("annotations", {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
                    and self.name in json.dumps(spec.get("nodeAffinity")) and "deletionTimestamp" not in meta):
                attempt(self.remove, meta["name"])


def attempt(act, what):
    try:
        act(what)
    except (OSError, subprocess.CalledProcessError, urllib.error.URLError) as error:
        # The list may be older than what this process did a moment ago.
        if getattr(error, "code", None) != 409:
            print(f"{act.__name__} {what if isinstance(what, str) else what['metadata']['name']}: {error}", flush=True)


def run(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def quantity(text):
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text).groups()
    return int(float(number) * UNITS[unit])


def main(server, pki, name, folder):
    node = Node(Api(server, pki, "volumes"), name, folder)
    while True:
        try:
            node.step()
        except (OSError, urllib.error.URLError) as error:
            # The API server may be stopped and started by a test.
            print(f"no answer: {error}", flush=True)
        time.sleep(0.3)


if __name__ == "__main__":
    main(*sys.argv[1:])
