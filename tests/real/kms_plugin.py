#!/usr/bin/env python3
"""A Kubernetes KMS v2 plugin for tests: kms_plugin.py SOCKET STATE.

A witness that shares nothing with Holdfast: Google's gRPC library speaks the protocol and Google's protobuf reads the
messages, whose descriptors are written here from k8s.io/kms/apis/v2. It really encrypts (AES-256-GCM), and needs the nonce
back as an annotation. STATE is a JSON file that the test changes while the plugin runs; it is read for every call:

    {"current": "key-1", "keys": {"key-1": "<64 hex>"}, "version": "v2", "health": "ok", "sleep": 0, "spoil": false}
"""

import json
import os
import sys
import time
from concurrent import futures

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
NONCE = "nonce.kms.example.com"
# message -> fields in order of their numbers
MESSAGES = {
    "StatusRequest": [],
    "StatusResponse": [("version", FIELD.TYPE_STRING), ("healthz", FIELD.TYPE_STRING), ("key_id", FIELD.TYPE_STRING)],
    "DecryptRequest": [("ciphertext", FIELD.TYPE_BYTES), ("uid", FIELD.TYPE_STRING), ("key_id", FIELD.TYPE_STRING), ("annotations", "map")],
    "DecryptResponse": [("plaintext", FIELD.TYPE_BYTES)],
    "EncryptRequest": [("plaintext", FIELD.TYPE_BYTES), ("uid", FIELD.TYPE_STRING)],
    "EncryptResponse": [("ciphertext", FIELD.TYPE_BYTES), ("key_id", FIELD.TYPE_STRING), ("annotations", "map")],
}


def messages():
    file = descriptor_pb2.FileDescriptorProto(name="v2.proto", package="v2", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, 1):
            if kind == "map":
                entry = message.nested_type.add(name="AnnotationsEntry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, type=FIELD.TYPE_STRING, label=FIELD.LABEL_OPTIONAL)
                entry.field.add(name="value", number=2, type=FIELD.TYPE_BYTES, label=FIELD.LABEL_OPTIONAL)
                message.field.add(name=field, number=number, type=FIELD.TYPE_MESSAGE, label=FIELD.LABEL_REPEATED,
                                  type_name=f".v2.{name}.AnnotationsEntry")
            else:
                message.field.add(name=field, number=number, type=kind, label=FIELD.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v2.{name}")) for name in MESSAGES}


class Plugin:
    def __init__(self, types, path):
        self.types, self.path = types, path

    def state(self):
        with open(self.path, encoding="utf-8") as file:
            state = json.load(file)
        time.sleep(state.get("sleep", 0))
        return state

    def status(self, request, context):
        state = self.state()
        return self.types["StatusResponse"](
            version=state.get("version", "v2"), healthz=state.get("health", "ok"), key_id=state["current"])

    def encrypt(self, request, context):
        state = self.state()
        if not request.uid:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a request without a uid")
        key_id, nonce = state["current"], os.urandom(12)
        ciphertext = AESGCM(bytes.fromhex(state["keys"][key_id])).encrypt(nonce, request.plaintext, key_id.encode())
        if state.get("spoil"):
            ciphertext = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
        return self.types["EncryptResponse"](ciphertext=ciphertext, key_id=key_id, annotations={NONCE: nonce})

    def decrypt(self, request, context):
        state = self.state()
        key = state["keys"].get(request.key_id)
        if key is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no key {request.key_id!r} (any more)")
        try:
            nonce = request.annotations[NONCE]
            plaintext = AESGCM(bytes.fromhex(key)).decrypt(nonce, request.ciphertext, request.key_id.encode())
        except (InvalidTag, ValueError):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the ciphertext does not authenticate: 100 % refused")
        return self.types["DecryptResponse"](plaintext=plaintext)


def main(socket, path):
    types = messages()
    plugin = Plugin(types, path)

    def handler(name, act):
        request, response = types[f"{name}Request"], types[f"{name}Response"]
        return grpc.unary_unary_rpc_method_handler(act, request.FromString, response.SerializeToString)

    methods = {"Status": plugin.status, "Encrypt": plugin.encrypt, "Decrypt": plugin.decrypt}
    handlers = {name: handler(name, act) for name, act in methods.items()}
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v2.KeyManagementService", handlers),))
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    print("ready", flush=True)
    # Until whoever started it goes away.
    sys.stdin.read()
    server.stop(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
