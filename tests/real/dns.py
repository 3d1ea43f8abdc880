#!/usr/bin/env python3
"""The DNS of a cluster with nodes: dns.py ADDRESS SERVER PKI

Answers what pods ask of names in cluster.local, from the services and endpoints that the API server has: the address of a
service (SERVICE.NAMESPACE.svc), those of the pods behind one without an address, and a pod of a StatefulSet (POD.SERVICE.NAMESPACE.svc).
Every other name does not exist: nothing gets out of a cluster for tests. UDP and IPv4 only.
"""

import socket
import struct
import sys
import time

from volumes import Api

A, ANY, IN = 1, 255, 1
NO_ERROR, FAILURE, NO_SUCH_NAME = 0, 2, 3
KEPT = 0.5  # seconds that what the API server said is taken for true


class Names:
    def __init__(self, api):
        self.api, self.read, self.known = api, 0, {}

    def addresses(self, name):
        """Of a name as it was asked, or nothing if there is no such name."""
        if time.monotonic() - self.read > KEPT:
            self.known, self.read = self.all(), time.monotonic()
        return self.known.get(name)

    def all(self):
        known = {}
        for service in self.api.list("services"):
            address = service["spec"].get("clusterIP")
            known[full(service)] = [address] if address and address != "None" else []
        for endpoints in self.api.list("endpoints"):
            name = full(endpoints)
            if name not in known:
                continue
            ready = [address for subset in endpoints.get("subsets", []) for address in subset.get("addresses", [])]
            if not known[name]:
                known[name] = [address["ip"] for address in ready]
            for address in ready:
                if "hostname" in address:
                    known.setdefault(f"{address['hostname']}.{name}", []).append(address["ip"])
        return known


def full(item):
    return f"{item['metadata']['name']}.{item['metadata']['namespace']}.svc.cluster.local"


def answer(names, packet):
    number, flags, questions = struct.unpack("!HHH", packet[:6])
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1:at + 1 + packet[at]].decode("ascii"))
        at += 1 + packet[at]
    kind, klass = struct.unpack("!HH", packet[at + 1:at + 5])
    if questions != 1 or flags & 0x8000:
        return None
    records = b""
    count = 0
    try:
        found = names.addresses(".".join(labels).lower())
        code = NO_SUCH_NAME if found is None else NO_ERROR
        for address in found or []:
            if kind in (A, ANY) and klass == IN:
                # The name is the one of the question, at byte 12.
                records += struct.pack("!HHHIH", 0xC00C, A, IN, 1, 4) + socket.inet_aton(address)
                count += 1
    except OSError as error:
        print(f"no answer from the API server: {error}", flush=True)
        code = FAILURE
    # An answer, with authority; recursion as it was desired.
    head = struct.pack("!HHHHHH", number, 0x8480 | flags & 0x0100 | code, 1, count, 0, 0)
    return head + packet[12:at + 5] + records


def main(address, server, pki):
    names = Names(Api(server, pki, "dns"))
    asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asked.bind((address, 53))
    while True:
        packet, whence = asked.recvfrom(4096)
        try:
            reply = answer(names, packet)
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            print(f"not a question, from {whence[0]}: {error}", flush=True)
            continue
        if reply:
            asked.sendto(reply, whence)


if __name__ == "__main__":
    main(*sys.argv[1:])
