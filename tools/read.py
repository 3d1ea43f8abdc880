#!/usr/bin/env python3
"""A second reader of Holdfast repositories, written from docs/formats/repository.md alone (promise R8).

It shares no code with the program, so whatever the two agree on is in that page. Should the program ever be lost,
this is the way back to the data: it reads a repository in a directory, slowly and in order, checks every name, tag,
MAC and id on the way, and ends at the first thing that is not as it must be.

    python3 -m venv venv && venv/bin/pip install blake3 cryptography zstandard argon2-cffi
    venv/bin/python read.py REPOSITORY WITH FILE COMMAND ...

WITH is --password-file, --key-file or --recovery-key-file. COMMIT is the beginning of an id, or `latest`.

    points                        what there is, one JSON object a line (needs a key that may list or read)
    packs                         what each pack holds, compared with the index (any key)
    entries COMMIT                the named parts of a commit (this and all below: a key that may read)
    cat COMMIT NAME               one part as it is, to standard output
    tree COMMIT NAME              the entries of a tree, one JSON object a line
    file COMMIT NAME PATH         one file of a tree, to standard output
    restore COMMIT NAME TARGET    a whole tree, into a folder that is not there yet
"""

import json
import os
import pathlib
import stat
import struct
import sys

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidTag
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
    if major < 2:
        return (-1 - value if major else value), at
    if major < 4:
        need(at + value <= len(data), "a value that ends too early")
        return bytes(data[at : at + value]) if major == 2 else bytes(data[at : at + value]).decode(), at + value
    need(major < 6, "a value of an unknown kind")
    items = []
    for _ in range(value * (major - 3)):
        item, at = cbor(data, at)
        items.append(item)
    return (items if major == 4 else dict(zip(items[::2], items[1::2]))), at


def cbor_items(data, at=0):
    while at < len(data):
        item, at = cbor(data, at)
        yield item


def by_passphrase(raw):
    def derive(lock):
        words = raw.removesuffix(b"\n").removesuffix(b"\r")
        passes, memory, lanes = lock["passes"], lock["memory_kib"], lock["lanes"]
        need(memory <= 4 << 20 and passes <= 64 and lanes <= 64, "a key derivation out of bounds")
        return hash_secret_raw(words, bytes.fromhex(lock["salt"]), passes, memory, lanes, 32, Type.ID, 0x13)

    return "argon2id", derive


def by_key_file(raw):
    digits, _, check = raw.decode().strip().removeprefix("holdfast-key-file-1-").partition("-")
    need(len(digits) == 64, "this is no key file")
    key = bytes.fromhex(digits)
    need(blake3(b"holdfast key file 1" + key).hexdigest()[:8] == check, "the checksum of the key file differs")
    return "key-file", lambda lock: hkdf(bytes.fromhex(lock["salt"]), key, b"key file")


def by_recovery_key(raw):
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    typed = "".join(raw.decode().split()).replace("-", "").upper().translate(str.maketrans("OIL", "011"))
    need(len(typed) == 36 and all(character in digits for character in typed), "this is no recovery key")
    value = sum(digits.index(character) << 5 * (35 - at) for at, character in enumerate(typed))
    key = (value >> 20).to_bytes(20, "big")
    check = int.from_bytes(blake3(b"holdfast recovery key 1" + key).digest()[:3], "big") >> 4
    need(value & 0xFFFFF == check, "the checksum of the recovery key differs")
    return "recovery-key", lambda lock: hkdf(bytes.fromhex(lock["salt"]), key, b"recovery key")


WAYS = {"--password-file": by_passphrase, "--key-file": by_key_file, "--recovery-key-file": by_recovery_key}


class Repository:
    def __init__(self, folder, kdf, derive):
        self.folder = folder
        header = self.read("holdfast.json")
        parsed = json.loads(header)
        need(parsed["format"] == "holdfast-repository" and parsed["version"] == 1, "not a repository of version 1")
        self.bundle = self.unlock(header, kdf, derive)
        self.packs, self.index = {}, {}
        for name in self.names("index"):
            self.read_segment(name)

    def secret(self, number):
        if number not in self.bundle:
            sys.exit(f"this key does not allow that: it is a {('', 'put', 'list', 'read')[self.bundle[0]]} key")
        return self.bundle[number]

    def read(self, key):
        return pathlib.Path(self.folder, key).read_bytes()

    def has(self, key):
        return os.path.exists(os.path.join(self.folder, key))

    def names(self, folder):
        return sorted(os.listdir(os.path.join(self.folder, folder))) if self.has(folder) else []

    def read_named(self, folder, name):
        data = self.read(f"{folder}/{name}")
        need(blake3(data).hexdigest() == name, f"{folder}/{name} does not hash to its name")
        return data

    def unlock(self, header, kdf, derive):
        for name in self.names("keys"):
            raw = self.read(f"keys/{name}")
            need(blake3(raw).hexdigest()[:32] == name, f"keys/{name} does not hash to its name")
            key = json.loads(raw)
            if key["version"] != 1 or key["kdf"]["name"] != kdf:
                continue
            aad = blake3(header).digest() + key["capability"].encode()
            try:
                plain = AESGCM(derive(key["kdf"])).decrypt(bytes.fromhex(key["nonce"]), bytes.fromhex(key["bundle"]), aad)
            except InvalidTag:
                continue
            return cbor(plain)[0]
        sys.exit("what was given opens no key")

    def read_segment(self, name):
        data = self.read_named("index", name)
        need(data[:8] == b"HFINDX01", f"index/{name} does not begin as an index segment")
        body = AESGCM(hkdf(data[8:40], self.secret(3), b"index")).decrypt(ZERO_NONCE, data[40:], data[:40])
        packs, chunks = struct.unpack_from("<II", body)
        need(len(body) == 8 + 36 * packs + 48 * chunks, f"index/{name} is of another length than it says")
        table = [struct.unpack_from("<32sI", body, 8 + 36 * at) for at in range(packs)]
        last = b""
        for at in range(chunks):
            chunk, pack, offset, sealed, plain = struct.unpack_from("<32sIIII", body, 8 + 36 * packs + 48 * at)
            need(chunk > last and pack < packs and offset + sealed <= table[pack][1], f"index/{name} is out of order")
            last = chunk
            if self.has(f"packs/{table[pack][0].hex()[:2]}/{table[pack][0].hex()}"):
                self.index.setdefault(chunk, (table[pack][0].hex(), offset, sealed, plain))

    def directory(self, name, data):
        """The chunks of a pack, compared with the index."""
        need(data[:8] == b"HFPACK01" and data[-8:] == b"HFPACKND", f"pack {name} does not look like one")
        length, count = struct.unpack_from("<II", data, len(data) - 16)
        end = len(data) - 16 - length
        directory = AESGCM(hkdf(data[16:48], self.secret(3), b"directory")).decrypt(ZERO_NONCE, data[end:-16], data[:48])
        need(len(directory) == 44 * count, f"the directory of pack {name} is of another length than it says")
        next_offset, entries = 48, []
        for at in range(count):
            chunk, offset, sealed, plain = struct.unpack_from("<32sIII", directory, 44 * at)
            need(offset == next_offset, f"pack {name} has a gap")
            next_offset += sealed
            known, here = self.index.get(chunk), (name, offset, sealed, plain)
            need(known in (None, here) or known[0] != name, f"pack {name} and the index differ on {chunk.hex()}")
            entries.append((chunk, plain))
        need(next_offset == end, f"pack {name} has a gap")
        return entries

    def pack(self, name):
        """The bytes of a pack and the key of its chunks. The last few packs stay at hand."""
        if name not in self.packs:
            data = self.read_named(f"packs/{name[:2]}", name)
            self.directory(name, data)
            if len(self.packs) >= 4:
                self.packs.pop(next(iter(self.packs)))
            self.packs[name] = data, unsealing_key(data[16:48], self.secret(8), self.secret(7), b"pack")
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
        need(len(body) == plain and blake3(body, key=self.secret(1)).digest() == name, f"chunk {name.hex()} is not what its id says")
        return body

    def stream(self, root, parts=True):
        level, length, name = root
        if level == 0:
            body = self.chunk(name) if length else b""
            need(len(body) == length, "a chunk of another length than its ref promises")
            yield body
            return
        node = self.chunk(name)
        need(len(node) % 40 == 0 and 0 < len(node) <= 2048 * 40, "a node of a broken length")
        slots = struct.iter_unpack("<32sQ", node)
        for child, size in slots:
            pieces = self.stream((level - 1, size, child), parts)
            if size >> 63:
                need(level == 1 and parts, "a part of a chunk where there is none")
                offset, (part, size) = size - (1 << 63), next(slots, (child, 0))
                pieces = [self.chunk(child)[offset : offset + size]]
                need(len(pieces[0]) == size and part != child, "a part that does not fit its chunk")
                need(blake3(pieces[0], key=self.secret(1)).digest() == part, f"a part of {child.hex()} is not what its id says")
            length -= size
            need(size > 0 and length >= 0, "a node whose lengths do not add up")
            yield from pieces
        need(length == 0, "a node whose lengths do not add up")

    def commit(self, name):
        data = self.read_named("commits", name)
        signed, mac = data[:-32], data[-32:]
        need(blake3(signed, key=self.secret(4)).digest() == mac, f"the MAC of commit {name} does not fit")
        need(signed[:8] == b"HFCMIT01", f"commit {name} does not begin as one")
        head, (first, second) = signed[:16], struct.unpack_from("<II", signed, 8)
        need(len(signed) == 16 + first + second, f"commit {name} is of another length than it says")
        summary, root = signed[16 : 16 + first], signed[16 + first :]
        key = unsealing_key(summary[:32], self.secret(6), self.secret(5), b"summary")
        return cbor(key.decrypt(ZERO_NONCE, summary[32:], head))[0], (head, root)

    def root(self, sealed):
        head, root = sealed
        return cbor(unsealing_key(root[:32], self.secret(8), self.secret(7), b"root").decrypt(ZERO_NONCE, root[32:], head))[0][0]

    def points(self):
        points = ((name, *self.commit(name)) for name in self.names("commits"))
        return sorted((point for point in points if not self.is_void(*point)), key=lambda point: point[1][0])

    def is_void(self, name, summary, _):
        """Whether its writer gave it up."""
        void = f"gc/void-{name}"
        return self.has(void) and blake3(self.read(void)).digest() == summary.get(7)

    def find(self, wanted):
        points = self.points()
        fitting = points[-1:] if wanted == "latest" else [point for point in points if point[0].startswith(wanted)]
        if len(fitting) != 1:
            sys.exit(f"{len(fitting)} recovery points match {wanted!r}")
        return fitting[0]

    def manifest(self, wanted):
        return list(cbor_items(b"".join(self.stream(self.root(self.find(wanted)[2]), False))))

    def entry(self, wanted, name):
        found = [entry for entry in self.manifest(wanted) if entry[0] == name]
        return found[0] if found else sys.exit(f"there is no entry {name!r}")

    def tree(self, wanted, name):
        _, kind, root, _ = self.entry(wanted, name)
        need(kind == 1, f"{name} is not a tree")
        return cbor_items(b"".join(self.stream(root, False)))

    def content(self, entry):
        """The bytes of a file entry in pieces: (where, bytes), holes left out."""
        if 10 in entry:
            pieces = self.stream(entry[10])
        else:
            pieces = (self.chunk(name)[offset : offset + length] for name, offset, length in entry.get(9, []))
        holes, at = list(entry.get(11, [])), 0
        for piece in pieces:
            while piece:
                while holes and holes[0][0] == at:
                    at += holes.pop(0)[1]
                here = min(len(piece), holes[0][0] - at) if holes else len(piece)
                yield at, piece[:here]
                at, piece = at + here, piece[here:]
        need(at + sum(length for _, length in holes) == entry.get(8, 0), "a file of another size than promised")


def below(target, path):
    """A path of a tree in the file system; it cannot leave the target."""
    parts = path.split(b"/") if path else []
    need(all(part not in (b"", b".", b"..") and b"\0" not in part and len(part) <= 255 for part in parts), "a path that leaves the tree")
    return os.path.join(os.path.abspath(os.fsencode(target)), *parts)


def attempt(act, path, *args, **options):
    """What this user or file system may not have (devices, owners, attributes) is told and left out."""
    try:
        act(path, *args, **options)
    except OSError as error:
        print(error, file=sys.stderr)


def restore(entries, repository, target):
    folders = {}
    for entry in entries:
        path, kind = below(target, entry[0]), entry[1]
        need(not entry[0] or os.path.dirname(path) in folders, "an entry below one that is no directory")
        if kind == 0:
            with open(path, "xb") as file:
                os.truncate(path, entry[8])
                for at, piece in repository.content(entry):
                    os.pwrite(file.fileno(), piece, at)
        elif kind == 1:
            os.mkdir(path)
            folders[path] = entry
            continue
        elif kind == 2:
            os.symlink(entry[12], path)
        elif kind == 3:
            os.link(below(target, entry[12]), path, follow_symlinks=False)
            continue
        else:
            need(kind in (4, 5, 6, 7), "an entry of an unknown kind")
            form = (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)[kind - 4]
            attempt(os.mknod, path, form | 0o600, os.makedev(*entry.get(13, (0, 0))))
        finish(path, entry)
    # Last and inside out: what is written into a folder changes its time.
    for path, entry in reversed(folders.items()):
        finish(path, entry)


def finish(path, entry):
    attempt(os.chown, path, entry[3], entry[4], follow_symlinks=False)
    for name, value in entry.get(14, {}).items():
        attempt(os.setxattr, path, name, value, follow_symlinks=False)
    if entry[1] != 2:
        attempt(os.chmod, path, entry[2])
    attempt(os.utime, path, ns=(entry[5], entry[5]), follow_symlinks=False)


def shown(value):
    """CBOR as JSON: bytes as hex, numbers of fields as text."""
    if isinstance(value, dict):
        return {str(shown(key)): shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def main(folder, way, file, command, *rest):
    repository = Repository(folder, *WAYS[way](pathlib.Path(file).read_bytes()))
    out = sys.stdout.buffer
    if command == "points":
        for name, summary, _ in repository.points():
            print(json.dumps({"id": name, **dict(zip(("time", "kind", "labels", "figures"), (summary[n] for n in range(4))))}))
    elif command == "packs":
        for short in repository.names("packs"):
            for name in repository.names(f"packs/{short}"):
                entries = repository.directory(name, repository.read_named(f"packs/{short}", name))
                print(json.dumps({"id": name, "chunks": len(entries), "bytes": sum(plain for _, plain in entries)}))
    elif command == "entries":
        for name, kind, root, figures in repository.manifest(*rest):
            print(json.dumps({"name": name, "kind": kind, "level": root[0], "length": root[1], "figures": figures}))
    elif command == "cat":
        out.writelines(repository.stream(repository.entry(*rest)[2]))
    elif command == "tree":
        for entry in repository.tree(*rest):
            print(json.dumps(shown(entry)))
    elif command == "file":
        commit, name, path = rest
        found = [e for e in repository.tree(commit, name) if e[0] == os.fsencode(path) and e[1] == 0]
        found, written = found[0] if found else sys.exit(f"there is no file {path!r}"), 0
        for at, piece in repository.content(found):
            out.write(bytes(at - written) + piece)
            written = at + len(piece)
        out.write(bytes(found[8] - written))
    elif command == "restore":
        commit, name, target = rest
        restore(repository.tree(commit, name), repository, target)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 5 or sys.argv[2] not in WAYS:
        sys.exit(__doc__)
    main(*sys.argv[1:])
