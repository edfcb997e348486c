#!/usr/bin/env python3
"""Whoever forges the peer's address and sees no answer verifies nothing; the peer's own calls verify all the same.

Makes three network namespaces, as real networks would be: the node's, its one peer's, and a forger's, whose packets
carry the peer's address. The trunk has `path = "public"` and `confirm = "ack"`, so a call counts when its ACK brings
the To-tag of the node's answer back. The forger sends INVITEs for phones and numbers of pending verifications, each
followed by an ACK with a guessed To-tag and one with none (flood.c, built here with gcc); the answers go to the peer,
which takes no notice of them. Fails unless that verifies nothing, causes no event and costs no memory to speak of, and
the peer's calls all verify: alone, and while the forger goes on. Calls without ACK, with a wrong To-tag or with that of
another call stay unverified.

Needs root, iproute2 and network namespaces; where they are not to be had, it says so and ends with exit code 77.
"""

import argparse
import contextlib
import ctypes
import os
import re
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

from hostile import Flood, build_flood, status_of
from ringproof import Api, Failure, Metrics, Node, check, run_main, wait_for, webhook_secret
from sipp_load import create_all
from streams import memory
from webhooks import Receiver

CLONE_NEWNET = 0x40000000
NODE, PEER, NODE_FOR_FORGER, FORGER = "10.77.1.1", "10.77.1.2", "10.77.2.1", "10.77.2.2"
PEER_PORT, FORGED_PORT = 5060, 5099
T1, T2, GIVE_UP = 0.5, 4.0, 32.0
# All that may be told of a verification but its creation.
EVENTS = ["verified", "expired", "canceled", "denied", "failed", "call_received", "late_call"]


class Skipped(Exception):
    """Why this machine cannot run the test."""


class Network:
    """Namespaces `rp-node-PID`, `rp-peer-PID` and `rp-forger-PID`: the node's is linked to each of the others."""

    def __init__(self):
        self._names = {part: f"rp-{part}-{os.getpid()}" for part in ("node", "peer", "forger")}
        self._home = None
        self._handles = {}
        self._made = []

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()
        if self._home is not None:
            os.close(self._home)
            self._home = None
        for name in self._made:
            done = subprocess.run(["ip", "netns", "del", name], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"namespace {name} was not removed: {done.stderr.strip()}", flush=True)
        self._made.clear()

    def _make(self):
        if os.geteuid() != 0:
            raise Skipped("network namespaces need root")
        if not shutil.which("ip"):
            raise Skipped("no `ip` here: install iproute2")
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        for part, name in self._names.items():
            self._ip("netns", "add", name)
            self._made.append(name)
            for folder in ("/run/netns", "/var/run/netns"):
                if os.path.exists(f"{folder}/{name}"):
                    self._handles[part] = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
                    break
            else:
                raise Skipped(f"`ip netns add` left no {name} behind")
        with self.inside("node"):
            pass
        node, peer, forger = self._names.values()
        for name in self._names.values():
            self._ip("-n", name, "link", "set", "lo", "up")
        for link, other, here, there in (("to-peer", peer, NODE, PEER), ("to-forger", forger, NODE_FOR_FORGER, FORGER)):
            self._ip("-n", node, "link", "add", link, "type", "veth", "peer", "name", "to-node", "netns", other)
            for name, end, address in ((node, link, here), (other, "to-node", there)):
                self._ip("-n", name, "address", "add", f"{address}/24", "dev", end)
                self._ip("-n", name, "link", "set", end, "up")
        self._ip("-n", forger, "route", "add", f"{NODE}/32", "via", NODE_FOR_FORGER)
        with self.inside("node"):
            for place in ("all", "default", "to-peer", "to-forger"):
                self._allow_forged(Path(f"/proc/sys/net/ipv4/conf/{place}/rp_filter"))

    @staticmethod
    def _ip(*words):
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Skipped(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}")

    @staticmethod
    def _allow_forged(setting):
        """The namespace may have taken over a filter against addresses that come by the wrong link."""
        try:
            setting.write_text("0\n", encoding="ascii")
        except OSError as error:
            if setting.read_text(encoding="ascii").strip() != "0":
                raise Skipped(f"{setting} cannot be set to 0: {error}") from error

    @contextlib.contextmanager
    def inside(self, part):
        """This thread in a namespace: sockets, threads and processes that it makes there belong there for good."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._enter(self._handles[part])
            try:
                yield
            finally:
                self._enter(before)
        finally:
            os.close(before)

    @staticmethod
    def _enter(handle):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(handle, CLONE_NEWNET):
            raise Skipped(f"setns is not permitted: {os.strerror(ctypes.get_errno())}")

    def udp(self, part):
        """What became of the UDP datagrams that reached a namespace."""
        with self.inside(part):
            text = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii")
        names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Udp:"))
        return Counter({name: int(value) for name, value in zip(names, values)})


class Call:
    """One INVITE of the peer and what became of it."""

    def __init__(self, one, tamper):
        self.phone, self.dialled, self.identifier = one["phone"], one["dial"]["number"], one["id"]
        self.call_id = f"{secrets.token_hex(12)}@{PEER}"
        self.branch, self.tag = "z9hG4bK" + secrets.token_hex(10), secrets.token_hex(6)
        self.tamper = tamper
        self.first_sent = self.answered = 0.0
        self.sent = self.code = self.answers = 0
        self.to = None


class Peer:
    """The peer's gateway: INVITE, again until a final response comes (RFC 3261 17.1.1.2), and an ACK for each that comes.

    `tamper` makes the To of the ACK from that of the answer; None is no ACK. Answers to calls that it did not place are
    passed over, as a gateway does.
    """

    def __init__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((PEER, PEER_PORT))
        self._socket.settimeout(0.02)
        self._target = None
        self._calls = {}
        self._open = []
        self._lock = threading.Lock()
        self._closed = False
        self.stray = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self, target):
        """Serves from now on."""
        self._target = target
        self._thread.start()

    def close(self):
        """Stops the thread."""
        self._closed = True
        if self._thread.is_alive():
            self._thread.join(5)
        self._socket.close()

    def place(self, one, tamper=lambda to: to):
        """Sends the INVITE of one verification and returns its call at once."""
        call = Call(one, tamper)
        call.first_sent = time.monotonic()
        with self._lock:
            self._calls[call.call_id] = call
            self._open.append([call.first_sent + T1, T1, call])
        self._invite(call)
        return call

    def acknowledge(self, call, to):
        """Sends an ACK with this To."""
        self._send(call, "ACK", to)

    def _run(self):
        while not self._closed:
            try:
                self._receive(self._socket.recv(65535))
            except TimeoutError:
                pass
            except OSError:
                continue  # what ICMP leaves on the socket
            now = time.monotonic()
            with self._lock:
                due = [row for row in self._open if row[0] <= now]
                self._open = [row for row in self._open if not row[2].code and now - row[2].first_sent < GIVE_UP]
            for row in due:
                if not row[2].code:
                    row[1] = min(2 * row[1], T2) if row[2].sent > 1 else T1 * 2
                    row[0] = now + row[1]
                    self._invite(row[2])

    def _receive(self, message):
        code = status_of(message)
        call_id = re.search(rb"(?im)^(?:Call-ID|i)[ \t]*:[ \t]*(\S+)", message)
        to = re.search(rb"(?im)^(?:To|t)[ \t]*:[ \t]*([^\r\n]+)", message)
        if code < 200 or not call_id or not to:
            return
        with self._lock:
            call = self._calls.get(call_id[1].decode("latin-1"))
        if call is None:
            self.stray += 1
            return
        call.to = to[1].decode("latin-1")
        acknowledged = call.tamper(call.to)
        if acknowledged is not None:
            self.acknowledge(call, acknowledged)
        call.answers += 1
        if not call.code:
            call.answered, call.code = time.monotonic(), code

    def _invite(self, call):
        call.sent += 1
        self._send(call, "INVITE", f"<sip:{call.dialled}@{NODE};user=phone>")

    def _send(self, call, method, to):
        caller = f"<sip:{call.phone}@{PEER};user=phone>"
        text = (
            f"{method} sip:{call.dialled}@{NODE}:{self._target[1]};user=phone SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {PEER}:{PEER_PORT};rport;branch={call.branch}\r\n"
            f"Max-Forwards: 70\r\n"
            f"From: {caller};tag={call.tag}\r\n"
            f"To: {to}\r\n"
            f"Call-ID: {call.call_id}\r\n"
            f"CSeq: 1 {method}\r\n"
            f"Contact: <sip:{PEER}:{PEER_PORT}>\r\n"
            f"P-Asserted-Identity: {caller}\r\n"
            f"Content-Length: 0\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            self._socket.sendto(text.encode(), self._target)


class Test:
    """What all steps use. The main thread is in the node's namespace throughout."""

    def __init__(self, network, node, receiver, peer, options):
        self.network, self.node, self.receiver, self.peer, self.options = network, node, receiver, peer, options
        self.api = Api(node)
        self.program = build_flood(node.directory)

    def forge(self, verifications, invites):
        """The forger begins to send so many INVITEs for these, with two ACKs each."""
        pairs = [(one["phone"], one["dial"]["number"]) for one in verifications]
        rate = 3 * self.options.forged
        source, seconds = f"{PEER}:{FORGED_PORT}", invites / self.options.forged
        with self.network.inside("forger"):
            return Flood(self.program, source, self.node.sip, rate, seconds, "=iaf", pairs)

    def statuses(self, verifications):
        """How many of these have which status, by the API."""
        try:
            return Counter(self.api.verification(one["id"])[1]["status"] for one in verifications)
        finally:
            # Until the next time the node would close it as idle.
            self.api.disconnect()

    def check_untouched(self, verifications, what):
        """No verification of these has changed, and nothing was told of one."""
        statuses = self.statuses(verifications)
        check(statuses == {"pending": len(verifications)}, f"{what}: the verifications are {dict(statuses)}")
        told = [one["id"] for one in verifications if one["id"] in self.receiver.events]
        check(not told, f"{what}: events came for {len(told)} verifications, first {told[:1]}")

    def forged_received(self, before):
        """INVITEs that the node read since `before`."""
        return int(self._invites() - before)

    def _invites(self):
        return Metrics.read(self.node).total("ringproof_sip_requests_total", method="INVITE", trunk="public")

    def blind(self, verifications):
        """The forger alone."""
        before, rss = self._invites(), memory(self.node)
        peer_before, forger_before = self.network.udp("peer"), self.network.udp("forger")
        # The first INVITEs fill tables that are there for good: what follows tells whether they grow on.
        halves, settled = [self.options.invites // 2, self.options.invites - self.options.invites // 2], rss
        sent = taken = 0
        for half in halves:
            flood = self.forge(verifications, half)
            try:
                datagrams, seconds, _ = flood.end()
            finally:
                flood.stop()
            sent, taken = sent + datagrams // 3, taken + seconds
            settled, last = memory(self.node), settled
        read = self.forged_received(before)
        to_peer = self.network.udp("peer") - peer_before
        back = self.network.udp("forger") - forger_before
        print(
            f"blind: {sent} INVITEs with the peer's address and {2 * sent} ACKs in {taken:.1f} s "
            f"({sent / taken:.0f} INVITEs/s); the node read {read} INVITEs; "
            f"its answers reached the peer in {to_peer['NoPorts'] + to_peer['InDatagrams']} packets, which may hold "
            f"several, and the forger in {back['NoPorts'] + back['InDatagrams']}"
        )
        print(
            f"memory: {rss / 1e6:.1f} MB before, {last / 1e6:.1f} MB after the first half, "
            f"{settled / 1e6:.1f} MB after the second"
        )
        check(read > 0, "no forged INVITE reached the trunk: the test has tested nothing")
        check(read >= sent // 2, f"only {read} of {sent} forged INVITEs were read: send fewer a second (--forged)")
        check(to_peer["NoPorts"] + to_peer["InDatagrams"] > 0, "no answer to a forged INVITE reached the peer")
        check(not back["NoPorts"] and not back["InDatagrams"], "the forger got answers")
        # That nothing happens has no moment to wait for: longer than any commit, so that none can be under way.
        time.sleep(5)
        self.check_untouched(verifications, "blind")
        check(settled - last < self.options.growth * 1e6, f"memory grew by {(settled - last) / 1e6:.1f} MB on the way")
        check(settled - rss < 4 * self.options.growth * 1e6, f"memory grew by {(settled - rss) / 1e6:.1f} MB in all")

    def tampered(self, verifications):
        """Calls of the peer itself whose ACK is not as it should be; the right ACK verifies them, and only that."""
        third = len(verifications) // 3
        without, wrong, swapped = (verifications[start:start + third] for start in (0, third, 2 * third))
        tags = []

        def another_tag(to):
            # That of a call before: also an answer of this node to this peer. The first call has none, so no ACK.
            others = [tag for tag in tags if tag != tag_of(to)]
            tags.append(tag_of(to))
            return f"{without_tag(to)};tag={others[-1]}" if others else None

        groups = [
            ("no ACK", without, lambda to: None),
            ("an ACK with a wrong To-tag", wrong, lambda to: f"{without_tag(to)};tag={flipped(tag_of(to))}"),
            ("an ACK with the To-tag of another call", swapped, another_tag),
        ]
        calls = []
        for _, part, tamper in groups:
            for one in part:
                calls.append(self.peer.place(one, tamper))
        wait_for(lambda: all(call.code for call in calls), 10, "486 to calls without a right ACK")
        codes = Counter(call.code for call in calls)
        check(codes == {486: len(calls)}, f"calls without a right ACK were answered {dict(codes)}")
        # That nothing happens has no moment to wait for: long enough for a commit, and a tag opens for 4 s at least.
        time.sleep(0.7)
        for name, part, _ in groups:
            self.check_untouched(part, name)
            print(f"{name}: {len(part)} calls got 486, none of them verified")
        for call in calls:
            self.peer.acknowledge(call, call.to)
        for name, part, _ in groups:
            ids = {one["id"] for one in part}
            what = f"{name}, and the right ACK after it: an event for each call"
            wait_for(lambda wanted=ids: wanted <= self.receiver.verified(), 15, what)
            print(f"{name}, and the right ACK after it: all {len(ids)} verified")

    def real(self, verifications, what, invites=0):
        """Calls of the peer, each with its ACK; with `invites`, while the forger sends for the same verifications."""
        flood = self.forge(verifications, invites) if invites else None
        try:
            calls = []
            start = time.monotonic() + (1.0 if flood else 0.0)
            for index, one in enumerate(verifications):
                time.sleep(max(0.0, start + index / self.options.rate - time.monotonic()))
                calls.append(self.peer.place(one))
            placed = time.monotonic() - start
            wait_for(lambda: all(call.code for call in calls), GIVE_UP, f"{what}: an answer to all calls")
            during = flood is None or flood.running()
            ids = {one["id"] for one in verifications}
            with contextlib.suppress(Failure):
                wait_for(lambda: ids <= self.receiver.verified(), 15, f"{what}: webhooks")
            if flood:
                sent, taken, _ = flood.end()
                late = "" if during else ", done before the calls"
                print(f"{what}: {sent // 3} forged INVITEs in {taken:.1f} s{late}")
        finally:
            if flood:
                flood.stop()
        took = sorted(call.answered - call.first_sent for call in calls if call.sent == 1) or [float("nan")]
        told, statuses = len(ids & self.receiver.verified()), self.statuses(verifications)
        print(
            f"{what}: {len(calls)} calls in {placed:.1f} s, {sum(call.code == 486 for call in calls)} got 486 "
            f"(p99 {took[int(0.99 * len(took))] * 1000:.1f} ms of those sent once), "
            f"{sum(call.sent - 1 for call in calls)} retransmissions, {told} events, {dict(statuses)}"
        )
        codes = Counter(call.code for call in calls)
        check(codes == {486: len(calls)}, f"{what}: calls were answered {dict(codes)}")
        check(statuses == {"verified": len(calls)}, f"{what}: calls with their ACK are {dict(statuses)}")
        check(told == len(calls), f"{what}: {len(calls) - told} events did not come")
        check(not self.receiver.rejected, f"{what}: deliveries were refused: {self.receiver.rejected[:1]}")


def tag_of(to):
    """The tag of a To."""
    found = re.search(r";\s*tag=([^;\s>]+)", to)
    check(found, f"an answer's To has no tag: {to!r}")
    return found[1]


def without_tag(to):
    """A To without its tag."""
    return re.sub(r";\s*tag=[^;\s>]+", "", to)


def flipped(tag):
    """Another tag that differs in its last digit alone."""
    return tag[:-1] + ("0" if tag[-1] != "0" else "1")


def configure(node):
    """Puts the node on its namespace's address with a trunk that strangers may reach."""
    node.sip = (NODE, node.sip[1])
    text = node.config.read_text()
    for old, new in (
        (f"udp://127.0.0.1:{node.sip[1]}", f"udp://{NODE}:{node.sip[1]}"),
        (f"tcp://127.0.0.1:{node.sip[1]}", f"tcp://{NODE}:{node.sip[1]}"),
        ('name = "local"\npeers = ["127.0.0.0/8"]',
         f'name = "public"\npeers = ["{PEER}"]\npath = "public"\nconfirm = "ack"'),
        ('trunks = ["local"]', 'trunks = ["public"]'),
    ):
        check(old in text, f"the configuration does not hold {old!r}")
        text = text.replace(old, new)
    node.config.write_text(text)
    # A binary of before this key says so in a sentence; that is better than a start that fails.
    command = [str(node.binary), "check", "-c", str(node.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"ringproof does not take the configuration: {(done.stderr + done.stdout)[:600]}")


def run(network, options):
    """All steps, on one node."""
    secret = webhook_secret()
    names = ", ".join(f'"verification.{event}"' for event in EVENTS)
    with network.inside("peer"):
        peer = Peer()
    try:
        with Receiver([secret]) as receiver, Node(receiver.url, [secret], webhook_lines=f"events = [{names}]") as node:
            configure(node)
            node.start()
            peer.begin(node.sip)
            test = Test(network, node, receiver, peer, options)
            forged, odd = min(200, options.invites), 24
            created = list(create_all(Api(node), forged + odd + 2 * options.calls).values())
            bait, rest = created[:forged], created[forged:]
            tampered, alone, beside = rest[:odd], rest[odd:odd + options.calls], rest[odd + options.calls:]
            test.real(alone, "the peer alone")
            test.tampered(tampered)
            test.blind(bait)
            lasting = int(options.forged * (options.calls / options.rate + 3))
            test.real(beside, "the peer beside the forger", invites=lasting)
            test.check_untouched(bait[1:], "at the end")
            test.real(bait[:1], "the first that was forged")
            print(f"answers to calls that the peer did not place, on its own port: {peer.stray}")
            check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")
    finally:
        peer.close()


def main():
    """The network, and everything in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--invites", type=int, default=100000, help="blind INVITEs, each with two ACKs")
    parser.add_argument("--forged", type=int, default=5000, help="blind INVITEs a second")
    parser.add_argument("--calls", type=int, default=500, help="calls of the peer, alone and as many beside the forger")
    parser.add_argument("--rate", type=float, default=100, help="calls a second of the peer")
    parser.add_argument("--growth", type=float, default=24, help="megabytes that the second half may cost")
    options = parser.parse_args()
    try:
        with Network() as network, network.inside("node"):
            run(network, options)
    except Skipped as reason:
        print(f"skipped: {reason}", flush=True)
        raise SystemExit(77) from None


if __name__ == "__main__":
    run_main(main)
