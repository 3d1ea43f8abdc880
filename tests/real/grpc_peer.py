#!/usr/bin/env python3
"""Speaks any gRPC protocol as Google's library does: grpc_peer.py PROTO.

A witness that shares nothing with Holdfast: Google's compiler reads the .proto file, Google's protobuf the messages, Google's
gRPC library carries them. It knows no protocol by itself and does what it is told, one JSON object a line on standard input,
and answers each with one line:

    {"serve": ADDRESS, "tls": TLS, "script": {METHOD: {"answers": [MESSAGE...], "code": "NOT_FOUND", "details": "..."}}}
        serves every method of the file; those in the script answer by it, the others send every request back
        -> {"port": NUMBER}
    {"call": ADDRESS, "tls": TLS, "method": METHOD, "requests": [MESSAGE...], "timeout": SECONDS}
        -> {"code": "OK", "details": "", "answers": [MESSAGE...]}
    {"fill": NAME}
        -> [{"json": MESSAGE, "bytes": BASE64}...], the message of this name with every field set, once for each choice it has
    {"read": NAME, "bytes": BASE64}
        -> {"json": MESSAGE}
    {"seen": true}
        -> [[METHOD, [MESSAGE...], SECONDS_LEFT]...], what was asked of the served methods since the last time

ADDRESS is unix:PATH or 127.0.0.1:PORT, METHOD is /package.Service/Method, TLS is absent or {"chain", "key", "roots"} in PEM,
MESSAGE is protobuf's JSON with the names of the file, NAME is package.Message. It ends when its standard input does.
"""

import base64
import json
import os
import sys
import tempfile
import threading
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

FIELD = descriptor_pb2.FieldDescriptorProto
CHOICES = 6
# A server certificate of ours names a URI and no host; the tests give it this name too.
NAME = "holdfast.test"


def compiled(proto):
    """The pool, and {"/package.Service/Method": (request class, answer class, requests stream, answers stream)}"""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "set")
        if protoc.main(["protoc", f"-I{os.path.dirname(os.path.abspath(proto))}", f"--descriptor_set_out={out}", os.path.abspath(proto)]):
            sys.exit("the file does not compile")
        with open(out, "rb") as file:
            files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    methods = {}
    for file in files.file:
        pool.Add(file)
        for service in file.service:
            for method in service.method:
                classes = [message_factory.GetMessageClass(pool.FindMessageTypeByName(name.lstrip(".")))
                           for name in (method.input_type, method.output_type)]
                methods[f"/{file.package}.{service.name}/{method.name}"] = (
                    *classes, method.client_streaming, method.server_streaming)
    return pool, methods


def as_dict(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def filled(message, choice):
    """Sets every field to a value of its own; of a oneof, and of the values of an enum, the one whose turn it is."""

    def value(field, number):
        if field.type == FIELD.TYPE_STRING:
            return f"{field.full_name} {number}"
        if field.type == FIELD.TYPE_BYTES:
            return f"{field.full_name} {number}".encode()
        if field.type == FIELD.TYPE_BOOL:
            return True
        if field.type == FIELD.TYPE_ENUM:
            return field.enum_type.values[choice % len(field.enum_type.values)].number
        large = {FIELD.TYPE_UINT64: 1 << 63, FIELD.TYPE_INT64: -(1 << 62), FIELD.TYPE_UINT32: 1 << 31}[field.type]
        return large + 100 * field.number + number

    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof and oneof.fields[choice % len(oneof.fields)].name != field.name:
            continue
        here = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            for number in (1, 2):
                here[f"{field.name} {number}"] = value(field.message_type.fields_by_name["value"], number)
        elif field.message_type:
            here.SetInParent() if not field.is_repeated else None
            for inner in [here.add(), here.add()] if field.is_repeated else [here]:
                filled(inner, choice)
        elif field.is_repeated:
            here.extend([value(field, 1), value(field, 2)])
        else:
            setattr(message, field.name, value(field, 1))
    return message


class Peer:
    def __init__(self, proto):
        self.pool, self.methods = compiled(proto)
        self.seen, self.lock, self.servers = [], threading.Lock(), []

    def serve(self, address, tls, script):
        handlers = {}
        for path, (request, answer, many_in, many_out) in self.methods.items():
            kind = getattr(grpc, f"{'stream' if many_in else 'unary'}_{'stream' if many_out else 'unary'}_rpc_method_handler")
            service, method = path[1:].split("/")
            act = self.acting(path, script.get(path))
            handlers.setdefault(service, {})[method] = kind(act, request.FromString, answer.SerializeToString)
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        for service, methods in handlers.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        if tls:
            credentials = grpc.ssl_server_credentials(
                [(tls["key"].encode(), tls["chain"].encode())], tls["roots"].encode(), True)
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
        server.start()
        self.servers.append(server)
        return {"port": port}

    def acting(self, path, script):
        request_class, answer_class, many_in, many_out = self.methods[path]

        def answers(requests, context):
            taken = []
            with self.lock:
                self.seen.append([path, taken, context.time_remaining()])
            for request in requests:
                taken.append(as_dict(request))
                if script is None:
                    yield json_format.ParseDict(taken[-1], answer_class(), ignore_unknown_fields=True)
            for answer in (script or {}).get("answers", []):
                yield json_format.ParseDict(answer, answer_class())
            if script and "code" in script:
                context.abort(grpc.StatusCode[script["code"]], script.get("details", ""))

        def act(request, context):
            stream = answers(request if many_in else [request], context)
            # To the end: an abort comes after the answers.
            return stream if many_out else list(stream)[-1]

        return act

    def call(self, address, tls, method, requests, timeout):
        request_class, answer_class, many_in, many_out = self.methods[method]
        if tls:
            credentials = grpc.ssl_channel_credentials(
                tls["roots"].encode(), tls["key"].encode(), tls["chain"].encode())
            channel = grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", NAME)])
        else:
            # Of a Unix socket it would make the path an authority, which is none: strict servers refuse it.
            channel = grpc.insecure_channel(address, [("grpc.default_authority", "localhost")])
        with channel:
            kind = getattr(channel, f"{'stream' if many_in else 'unary'}_{'stream' if many_out else 'unary'}")
            speak = kind(method, request_class.SerializeToString, answer_class.FromString)
            sent = (json_format.ParseDict(request, request_class()) for request in requests)
            taken = []
            try:
                told = speak(sent if many_in else next(sent), timeout=timeout)
                for answer in told if many_out else [told]:
                    taken.append(as_dict(answer))
                code, details = grpc.StatusCode.OK, ""
            except grpc.RpcError as error:
                code, details = error.code(), error.details()
        return {"code": code.name, "details": details, "answers": taken}

    def message(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))()

    def fill(self, name):
        told = []
        for message in (filled(self.message(name), choice) for choice in range(CHOICES)):
            one = {"json": as_dict(message), "bytes": base64.b64encode(message.SerializeToString()).decode()}
            if one not in told:
                told.append(one)
        return told

    def read(self, name, data):
        message = self.message(name)
        message.ParseFromString(base64.b64decode(data))
        return {"json": as_dict(message)}

    def asked(self):
        with self.lock:
            seen, self.seen = self.seen, []
        return seen


def main(proto):
    peer = Peer(proto)
    print("ready", flush=True)
    for line in sys.stdin:
        wish = json.loads(line)
        if "serve" in wish:
            answer = peer.serve(wish["serve"], wish.get("tls"), wish.get("script", {}))
        elif "call" in wish:
            answer = peer.call(wish["call"], wish.get("tls"), wish["method"], wish["requests"], wish.get("timeout"))
        elif "fill" in wish:
            answer = peer.fill(wish["fill"])
        elif "read" in wish:
            answer = peer.read(wish["read"], wish["bytes"])
        else:
            answer = peer.asked()
        print(json.dumps(answer), flush=True)
    for server in peer.servers:
        server.stop(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
