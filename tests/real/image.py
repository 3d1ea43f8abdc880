#!/usr/bin/env python3
"""Makes container images without a registry: image.py OUT.tar ROOTFS IMAGES

An OCI layout with one layer, the folder ROOTFS as it is but owned by root, and an image over it for each entry of IMAGES,
a JSON object of names and of what `docker inspect` calls Config: {"localhost/tool:1": {"Cmd": ["sh"]}}. containerd imports
it with `ctr images import`, skopeo reads it as oci-archive. The same folder gives the same bytes.
"""

import hashlib
import io
import json
import os
import sys
import tarfile


def layer(rootfs):
    """The folder as a tar, uncompressed: it travels from one folder of this machine to another."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        def plain(entry):
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            return entry

        for folder, folders, files in os.walk(rootfs):
            folders.sort()
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in sorted(files + links) + [name for name in folders if name not in links]:
                path = os.path.join(folder, name)
                tar.add(path, os.path.relpath(path, rootfs), recursive=False, filter=plain)
    return out.getvalue()


def main(out, rootfs, images):
    blobs = {}

    def blob(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def document(value, media_type):
        return blob(json.dumps(value, sort_keys=True).encode(), media_type)

    root = blob(layer(rootfs), "application/vnd.oci.image.layer.v1.tar")
    index = []
    for name, config in json.loads(images).items():
        described = document(
            {"architecture": "amd64", "os": "linux", "config": config,
             "rootfs": {"type": "layers", "diff_ids": [root["digest"]]}, "history": [{"created_by": "tests/real/images"}]},
            "application/vnd.oci.image.config.v1+json")
        manifest = document(
            {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": described, "layers": [root]},
            "application/vnd.oci.image.manifest.v1+json")
        manifest["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
        manifest["platform"] = {"architecture": "amd64", "os": "linux"}
        index.append(manifest)

    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as tar:
        def put(name, data):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))

        put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        for digest in sorted(blobs):
            put(f"blobs/sha256/{digest}", blobs[digest])
        put("index.json", json.dumps({"schemaVersion": 2, "manifests": index}, sort_keys=True).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
