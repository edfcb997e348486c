"""Webhook receivers that misbehave: each harms itself alone, and gets everything once it is well again."""

import asyncio
import socket
import struct
import threading
import time

from invariants import Witness
from ringproof import Metrics, check, wait_for
from webhooks import Connection

from .bench import Bench
from .preload import Preload

TRAFFIC = 3.0
# The whole attempt may take 10 s.
CUT_OFF = 16
# An event reaches the healthy receiver in this time, whatever the other does. Far more than it takes: the machine may
# be busy with something else.
HARMLESS_MS = 3000
BIG = 10 << 20
NAME = "rebind.test"
PUBLIC = "1.1.1.1"


class SickConnection(Connection):
    """A connection of a receiver that may be ill."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self._receiver.connections.add(self)

    def connection_lost(self, _):
        self._receiver.connections.discard(self)

    def answer(self, status):
        """The answer, or what comes in its place."""
        if status is None:
            self._receiver.ill(self, self._transport)
        else:
            super().answer(status)

    def drop(self):
        """Ends the connection."""
        self._transport.abort()


class Sick(Witness):
    """A receiver that does as `ill` says until it is `cured`. What comes meanwhile is seen and not taken."""

    connection = SickConnection

    def __init__(self, secrets, ledger, ill, takes=False):
        self.ill = ill
        self._takes = takes
        self.connections = set()
        self.requests = 0
        super().__init__(secrets, ledger)

    def take(self, headers, body):
        self.requests += 1
        if self.ill is None or self._takes:
            status = super().take(headers, body)
            return status if self.ill is None else None
        self.note(headers["webhook-id"], body, time.monotonic())
        return None

    def cure(self):
        """Behaves from now on; what hangs is let go."""
        self.ill = None
        self._loop.call_soon_threadsafe(lambda: [one.drop() for one in list(self.connections)])


def hangs(_connection, _transport):
    """No answer."""


def trickles(_connection, transport):
    """A byte of the answer every half second."""
    text = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Padding: " + b"a" * 200

    async def write():
        for byte in text:
            if transport.is_closing():
                return
            transport.write(bytes([byte]))
            await asyncio.sleep(0.5)

    asyncio.get_running_loop().create_task(write())


def says(line, *headers):
    """An answer without a body."""
    answer = "\r\n".join([f"HTTP/1.1 {line}", *headers, "Content-Length: 0", "", ""]).encode()
    return lambda _connection, transport: transport.write(answer)


def floods(_connection, transport):
    """200 and ten megabytes."""
    transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n".encode() + bytes(BIG))


def resets(_connection, transport):
    """Half a status line, and a reset."""
    transport.write(b"HTTP/1.1 20")
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Ward:
    """The bench of one sick receiver beside a healthy one."""

    def __init__(self, ill, takes=False):
        self.bench = Bench(more=[(lambda secrets, ledger: Sick(secrets, ledger, ill, takes), "")])

    @property
    def sick(self):
        """The sick receiver."""
        return self.bench.others[0]

    def endpoint(self):
        """How the node sees it."""
        status, body = self.bench.api.request("GET", "/v1/endpoints")
        check(status == 200, f"GET /v1/endpoints answered {status}")
        return next(one for one in body["data"] if one["url"] == self.sick.url)

    def deliveries(self, state):
        """Its deliveries in this state."""
        found, after = [], ""
        endpoint = self.endpoint()["id"]
        while True:
            path = f"/v1/deliveries?endpoint={endpoint}&state={state}&limit=100{after}"
            status, body = self.bench.api.request("GET", path)
            check(status == 200, f"GET /v1/deliveries answered {status} {body}")
            found += body["data"]
            if not body["has_more"]:
                return found
            after = f"&after={body['next_cursor']}"

    def failed(self, seconds, error, status=None):
        """Waits for a failed attempt, and checks that all of them failed for this reason."""
        tried = wait_for(
            lambda: [one for one in self.deliveries("pending") if one["last_attempt"]], seconds, "a failed attempt"
        )
        for one in tried:
            last = one["last_attempt"]
            check(error in last["error"] and last["status"] == status, f"the attempt failed otherwise: {last}")
        return len(tried)

    def cured(self):
        """Everything comes once it is well: by itself, and what waits for a later try by a replay."""
        self.bench.traffic.stop()
        self.sick.cure()
        # The next try finds it well, then what is due follows.
        wait_for(lambda: self.endpoint()["failing_since"] is None, 45, "a success after the cure")
        replayed = set()

        def all_came():
            waiting = self.deliveries("pending")
            for one in waiting:
                if one["attempts"] and one["id"] not in replayed:
                    status, body = self.bench.api.request("POST", f"/v1/deliveries/{one['id']}/replay")
                    check(status == 202, f"a replay was answered {status} {body}")
                    replayed.add(one["id"])
            return not waiting

        wait_for(all_came, 45, "every event at the receiver that was sick")
        return len(replayed)

    def finish(self, notes):
        """The examination, and the promise to the healthy one."""
        result = self.bench.finish(notes)
        ends = {one for ids in (self.sick.ids, self.bench.well.ids) for one in ids}
        result.findings.must(ends, "no event came at all")
        p99 = self.bench.well.slowest(0.99)
        result.findings.must(p99 < HARMLESS_MS, f"p99 of the healthy receiver was {p99:.0f} ms")
        missing = [one for one, (_, _, _, kind) in self.bench.well.ids.items()
                   if kind.removeprefix("verification.") in ("verified", "canceled", "expired")
                   and not self.sick.taken[one]]
        result.findings.none("events that never came to the one that was sick", missing)
        return result


def sickness(ill, seconds, error, status=None):
    """A fault with a receiver whose attempts fail for a reason, and succeed after the cure."""
    ward = Ward(ill)
    with ward.bench as bench:
        bench.traffic.run(TRAFFIC)
        failed = ward.failed(seconds, error, status)
        requests = ward.sick.requests
        replayed = ward.cured()
        return ward.finish(f"{requests} requests while sick, {failed} deliveries tried in vain, {replayed} replayed")


def receiver_hangs(_options):
    """A receiver that never answers: attempts are cut off after 10 s."""
    return sickness(hangs, CUT_OFF, "no answer within 10 s")


def receiver_trickles(_options):
    """A receiver that answers a byte every half second: attempts are cut off after 10 s."""
    return sickness(trickles, CUT_OFF, "no answer within 10 s")


def receiver_fails(_options):
    """A receiver that answers 500."""
    return sickness(says("500 Internal Server Error"), 5, "status 500", 500)


def receiver_resets(_options):
    """A receiver that resets the connection in the middle of its answer."""
    return sickness(resets, 5, "the connection ended without an answer")


def receiver_redirects(_options):
    """A receiver that redirects: a failure, and its target sees nothing."""
    with Trap() as trap:
        target = f"http://127.0.0.1:{trap.port}/"
        result = sickness(says("302 Found", f"Location: {target}"), 5, "redirect 302", 302)
        result.findings.must(trap.connections == 0, f"the target of the redirect got {trap.connections} connections")
    return result


def receiver_floods(_options):
    """A receiver that takes events and answers 10 MB to each: they are delivered, and memory stays as it is."""
    ward = Ward(floods, takes=True)
    with ward.bench as bench:
        before = memory(bench.node)
        bench.traffic.run(TRAFFIC)
        after = memory(bench.node)
        bench.traffic.stop()
        wait_for(lambda: not ward.deliveries("pending"), 20, "the end of deliveries that are answered at length")
        ward.sick.cure()
        result = ward.finish(f"{ward.sick.requests} answers of 10 MB, memory {before} and then {after} MiB")
        result.findings.must(after - before < 100, f"memory grew from {before} to {after} MiB")
        return result


def receiver_gone(_options):
    """A receiver that answers 410: disabled at once and sent nothing, until it is enabled; then all of it comes."""
    ward = Ward(says("410 Gone"))
    with ward.bench as bench:
        bench.traffic.run(1)
        wait_for(lambda: ward.endpoint()["state"] == "disabled", 5, "the end of the endpoint")
        check(ward.endpoint()["reason"] == "gone", f"it is disabled otherwise: {ward.endpoint()}")
        bench.kill()
        # What was on its way has come when its connections end.
        wait_for(lambda: not ward.sick.connections, 5, "the end of the node's connections")
        requests = ward.sick.requests
        bench.start()
        bench.traffic.run(1)
        check(ward.sick.requests == requests, "a disabled endpoint was sent something")
        ward.sick.cure()
        parked = len(ward.deliveries("parked"))
        check(parked > 0, "nothing is parked")
        status, body = bench.api.request("POST", f"/v1/endpoints/{ward.endpoint()['id']}/enable")
        check((status, body["state"]) == (200, "enabled"), f"enable answered {status} {body}")
        wait_for(lambda: not ward.deliveries("parked"), 20, "the end of what was parked")
        ward.cured()
        told = sum(1 for *_, kind in bench.well.ids.values() if kind == "endpoint.disabled")
        notes = f"disabled after {requests} requests, {parked} parked over a kill -9, all came when enabled"
        result = ward.finish(notes)
        result.findings.must(told == 1, f"endpoint.disabled was told {told} times")
        return result


def receiver_rebinds(_options):
    """A receiver whose name is public at one look-up and private at the next: nothing is connected to the latter."""
    with Trap() as trap:
        preload = None

        def prepare(node):
            nonlocal preload
            preload = Preload(node)
            preload.rebind(NAME, PUBLIC, "127.0.0.1")
            hook = f'[[application.webhook]]\nurl = "https://{NAME}:{trap.port}/"\nallow_private = false\n'
            text = node.config.read_text()
            secrets = next(line for line in text.splitlines() if line.startswith("secrets"))
            node.config.write_text(text.replace("[api]\n", f"{hook}{secrets}\n\n[api]\n"))

        with Bench(prepare=prepare) as bench:
            bench.traffic.run(TRAFFIC)

            def both():
                lookups, refused = preload.lookups()
                private = Metrics.read(bench.node).total("ringproof_webhook_attempts_total", result="refused_address")
                return (lookups, refused, int(private)) if refused and private else None

            lookups, refused, private = wait_for(both, 20, "an attempt at each of the two addresses")
            result = bench.finish(
                f"{lookups} look-ups, {refused} connections to the public address, {private} attempts refused"
            )
            result.findings.must(trap.connections == 0, f"the private address got {trap.connections} connections")
            p99 = bench.well.slowest(0.99)
            result.findings.must(p99 < HARMLESS_MS, f"p99 of the healthy receiver was {p99:.0f} ms")
            return result


class Trap:
    """A port that nobody may connect to."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.connections = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def memory(node):
    """Resident memory of the process in MiB."""
    return int(Metrics.read(node).total("process_resident_memory_bytes")) >> 20


FAULTS = (
    receiver_hangs, receiver_trickles, receiver_fails, receiver_gone, receiver_redirects, receiver_floods,
    receiver_resets, receiver_rebinds,
)
