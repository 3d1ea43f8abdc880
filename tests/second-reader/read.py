#!/usr/bin/env python3
"""A second reader of Holdfast repositories, written from docs/formats/repository.md alone (promise R8).

It shares no code with the program, so whatever the two agree on is in the page. It reads a repository in a
directory, slowly and in order, and checks every name, tag, MAC and id on the way.

    python3 -m venv venv && venv/bin/pip install blake3 cryptography zstandard argon2-cffi
    venv/bin/python read.py REPOSITORY PASSPHRASE points
    venv/bin/python read.py REPOSITORY PASSPHRASE entries COMMIT
    venv/bin/python read.py REPOSITORY PASSPHRASE cat COMMIT NAME            a stream, to standard output
    venv/bin/python read.py REPOSITORY PASSPHRASE tree COMMIT NAME           its entries, one a line
    venv/bin/python read.py REPOSITORY PASSPHRASE file COMMIT NAME PATH      one file of a tree, to standard output
COMMIT is the beginning of an id, or `latest`.
"""

import json
import os
import struct
import sys

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from zstandard import ZstdDecompressor, frame_content_size

ZERO_NONCE = bytes(12)


def need(condition, what):
    if not condition:
        sys.exit(f"damaged: {what}")


def hkdf(salt, secret, context):
    return HKDF(hashes.SHA256(), 32, salt, b"holdfast v1 " + context).derive(secret)


def unsealing_key(ephemeral, secret, public, context):
    shared = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(ephemeral))
    return AESGCM(hkdf(ephemeral + public, shared, context))


def cbor(data, at=0):
    """One item: (value, where it ends)."""
    need(at < len(data), "a value that ends too early")
    major, short = data[at] >> 5, data[at] & 31
    at += 1
    width = {24: 1, 25: 2, 26: 4, 27: 8}.get(short, 0)
    need(short < 28, "a length of an unknown form")
    value = int.from_bytes(data[at : at + width], "big") if width else short
    at += width
    if major == 0:
        return value, at
    if major == 1:
        return -1 - value, at
    if major in (2, 3):
        need(at + value <= len(data), "a value that ends too early")
        raw = bytes(data[at : at + value])
        return (raw if major == 2 else raw.decode()), at + value
    if major == 4:
        items = []
        for _ in range(value):
            item, at = cbor(data, at)
            items.append(item)
        return items, at
    need(major == 5, "a value of an unknown kind")
    pairs = {}
    for _ in range(value):
        key, at = cbor(data, at)
        pairs[key], at = cbor(data, at)
    return pairs, at


def cbor_items(data):
    at = 0
    while at < len(data):
        item, at = cbor(data, at)
        yield item


class Repository:
    def __init__(self, folder, passphrase):
        self.folder = folder
        header = self.read("holdfast.json")
        parsed = json.loads(header)
        need(parsed["format"] == "holdfast-repository" and parsed["version"] == 1, "not a repository of version 1")
        self.bundle = self.unlock(header, passphrase)
        self.packs = {}
        self.index = {}
        for name in self.names("index"):
            self.read_segment(name)

    def read(self, key):
        with open(os.path.join(self.folder, key), "rb") as file:
            return file.read()

    def names(self, folder):
        path = os.path.join(self.folder, folder)
        return sorted(os.listdir(path)) if os.path.isdir(path) else []

    def read_named(self, folder, name):
        data = self.read(f"{folder}/{name}")
        need(blake3(data).hexdigest() == name, f"{folder}/{name} does not hash to its name")
        return data

    def unlock(self, header, passphrase):
        for name in self.names("keys"):
            raw = self.read(f"keys/{name}")
            need(blake3(raw).hexdigest()[:32] == name, f"keys/{name} does not hash to its name")
            key = json.loads(raw)
            kdf = key["kdf"]
            need(kdf["name"] == "argon2id" and key["version"] == 1, f"keys/{name} is of an unknown kind")
            wrapping = hash_secret_raw(
                passphrase, bytes.fromhex(kdf["salt"]), kdf["passes"], kdf["memory_kib"], kdf["lanes"], 32, Type.ID, 0x13
            )
            aad = blake3(header).digest() + key["capability"].encode()
            try:
                plain = AESGCM(wrapping).decrypt(bytes.fromhex(key["nonce"]), bytes.fromhex(key["bundle"]), aad)
            except Exception:
                continue
            return cbor(plain)[0]
        sys.exit("the passphrase opens no key")

    def read_segment(self, name):
        data = self.read_named("index", name)
        need(data[:8] == b"HFINDX01", f"index/{name} does not begin as an index segment")
        key = AESGCM(hkdf(data[8:40], self.bundle[3], b"index"))
        body = key.decrypt(ZERO_NONCE, data[40:], data[:40])
        packs, chunks = struct.unpack_from("<II", body)
        need(len(body) == 8 + 36 * packs + 48 * chunks, f"index/{name} is of another length than it says")
        table = [struct.unpack_from("<32sI", body, 8 + 36 * at) for at in range(packs)]
        last = b""
        for at in range(chunks):
            chunk, pack, offset, sealed, plain = struct.unpack_from("<32sIIII", body, 8 + 36 * packs + 48 * at)
            need(chunk > last and pack < packs and offset + sealed <= table[pack][1], f"index/{name} is out of order")
            last = chunk
            self.index.setdefault(chunk, (table[pack][0].hex(), offset, sealed, plain))

    def pack(self, name):
        """The bytes of a pack and the key of its chunks; its directory is compared with the index."""
        if name not in self.packs:
            data = self.read(f"packs/{name[:2]}/{name}")
            need(blake3(data).hexdigest() == name, f"pack {name} does not hash to its name")
            need(data[:8] == b"HFPACK01" and data[-8:] == b"HFPACKND", f"pack {name} does not look like one")
            header, ephemeral = data[:48], data[16:48]
            length, count = struct.unpack_from("<II", data, len(data) - 16)
            end = len(data) - 16 - length
            directory = AESGCM(hkdf(ephemeral, self.bundle[3], b"directory")).decrypt(ZERO_NONCE, data[end:-16], header)
            need(len(directory) == 44 * count, f"the directory of pack {name} is of another length than it says")
            next_offset = 48
            for at in range(count):
                chunk, offset, sealed, plain = struct.unpack_from("<32sIII", directory, 44 * at)
                need(offset == next_offset, f"pack {name} has a gap")
                next_offset += sealed
                need(self.index.get(chunk, (name,))[0] != name or self.index[chunk] == (name, offset, sealed, plain),
                     f"pack {name} and the index differ on {chunk.hex()}")
            need(next_offset == end, f"pack {name} has a gap")
            self.packs = {name: (data, unsealing_key(ephemeral, self.bundle[8], self.bundle[7], b"pack"))}
        return self.packs[name]

    def chunk(self, name):
        need(name in self.index, f"chunk {name.hex()} is in no index segment")
        pack, offset, sealed, plain = self.index[name]
        data, key = self.pack(pack)
        opened = key.decrypt(struct.pack("<QI", offset, 0), data[offset : offset + sealed], data[:48])
        method, body = opened[0], opened[1:]
        need(method in (0, 1), f"chunk {name.hex()} is compressed by an unknown method")
        if method == 1:
            need(frame_content_size(body) == plain, f"chunk {name.hex()} is of another size than promised")
            body = ZstdDecompressor().decompress(body)
        need(len(body) == plain and blake3(body, key=self.bundle[1]).digest() == name, f"chunk {name.hex()} is not what its id says")
        return body

    def stream(self, root):
        level, length, name = root
        if length == 0:
            return
        if level == 0:
            body = self.chunk(name)
            need(len(body) == length, "a chunk of another length than its ref promises")
            yield body
            return
        node = self.chunk(name)
        need(len(node) % 40 == 0 and 0 < len(node) <= 2048 * 40, "a node of a broken length")
        refs = [struct.unpack_from("<32sQ", node, at) for at in range(0, len(node), 40)]
        need(sum(size for _, size in refs) == length, "a node whose lengths do not add up")
        for child, size in refs:
            yield from self.stream((level - 1, size, child))

    def whole(self, root):
        return b"".join(self.stream(root))

    def commit(self, name):
        """(summary, root of the manifest)"""
        data = self.read_named("commits", name)
        signed, mac = data[:-32], data[-32:]
        need(blake3(signed, key=self.bundle[4]).digest() == mac, f"the MAC of commit {name} does not fit")
        need(signed[:8] == b"HFCMIT01", f"commit {name} does not begin as one")
        head = signed[:16]
        first, second = struct.unpack_from("<II", head, 8)
        need(len(signed) == 16 + first + second, f"commit {name} is of another length than it says")
        summary, root = signed[16 : 16 + first], signed[16 + first :]
        key = unsealing_key(summary[:32], self.bundle[6], self.bundle[5], b"summary")
        summary = cbor(key.decrypt(ZERO_NONCE, summary[32:], head))[0]
        key = unsealing_key(root[:32], self.bundle[8], self.bundle[7], b"root")
        return summary, cbor(key.decrypt(ZERO_NONCE, root[32:], head))[0][0]

    def points(self):
        return sorted(((name, *self.commit(name)) for name in self.names("commits")), key=lambda point: point[1][0])

    def find(self, wanted):
        points = self.points()
        fitting = points[-1:] if wanted == "latest" else [point for point in points if point[0].startswith(wanted)]
        if len(fitting) != 1:
            sys.exit(f"{len(fitting)} recovery points match {wanted!r}")
        return fitting[0]

    def manifest(self, wanted):
        return list(cbor_items(self.whole(self.find(wanted)[2])))

    def entry(self, wanted, name):
        for entry in self.manifest(wanted):
            if entry[0] == name:
                return entry
        sys.exit(f"there is no entry {name!r}")

    def tree(self, wanted, name):
        _, kind, root, _ = self.entry(wanted, name)
        need(kind == 1, f"{name} is not a tree")
        return cbor_items(self.whole(root))

    def content(self, entry):
        """The bytes of a file entry, holes filled with zeros."""
        if 10 in entry:
            packed = self.whole(entry[10])
        else:
            packed = b"".join(self.chunk(name)[offset : offset + length] for name, offset, length in entry.get(9, []))
        out, taken = bytearray(), 0
        for offset, length in entry.get(11, []):
            piece = offset - len(out)
            out += packed[taken : taken + piece] + bytes(length)
            taken += piece
        out += packed[taken:]
        need(len(out) == entry[8], "a file of another size than promised")
        return bytes(out)


def main(folder, passphrase, command, *rest):
    repository = Repository(folder, passphrase.encode())
    out = sys.stdout.buffer
    if command == "points":
        for name, summary, _ in repository.points():
            print(json.dumps({"id": name, "time": summary[0], "kind": summary[1], "labels": summary[2], "figures": summary[3]}))
    elif command == "entries":
        for name, kind, root, figures in repository.manifest(*rest):
            print(json.dumps({"name": name, "kind": kind, "length": root[1], "figures": figures}))
    elif command == "cat":
        for piece in repository.stream(repository.entry(*rest)[2]):
            out.write(piece)
    elif command == "tree":
        for entry in repository.tree(*rest):
            print(json.dumps({str(key): value.hex() if isinstance(value, bytes) else repr(value) for key, value in entry.items()}))
    elif command == "file":
        commit, name, path = rest
        for entry in repository.tree(commit, name):
            if entry[0] == os.fsencode(path) and entry[1] == 0:
                out.write(repository.content(entry))
                return
        sys.exit(f"there is no file {path!r}")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
