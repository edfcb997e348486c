#!/usr/bin/env python3
"""One application with a healthy endpoint and four sick ones: the sick harm themselves alone.

SIPp verifies phones at a steady rate, first with the healthy endpoint alone, then with one beside it that hangs, one
that answers 500, one that answers 410, and one that redirects to private addresses. Prints how long events took to
reach the healthy one in both runs, and fails unless each of the others is as it should be: attempts that hang are cut
off after 10 s and put off, failures are put off by the plan, 410 disables and is told to the healthy one, a redirect is
a failure and nothing is connected to.
"""

import argparse
import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from ringproof import FIRST_NUMBER, Api, Metrics, Node, check, mobile, run_main, wait_for, webhook_secret
from sipp_load import check_all_successful, create_all, pairs_of, sipp
from webhooks import Receiver

VERIFIED = 'events = ["verification.verified"]'
# The healthy one wants to hear of the others.
AND_DISABLED = 'events = ["verification.verified", "endpoint.disabled"]'
IN_FLIGHT = 64
# Failures in a row after which an endpoint is only probed, about once a second.
TROUBLE = 64
FORBIDDEN = ("10.0.0.1", "169.254.169.254")


class Timed(Receiver):
    """A receiver that notes how long each event took."""

    def __init__(self, secrets):
        super().__init__(secrets)
        self.latencies = []
        self.disabled = []

    def take(self, headers, body):
        arrived = time.time()
        status = super().take(headers, body)
        event = json.loads(body)
        if event["type"] == "endpoint.disabled":
            self.disabled.append(event["data"]["endpoint"])
        else:
            happened = datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")).timestamp()
            self.latencies.append(arrived - happened)
        return status

    def percentiles(self):
        """p50, p99 and the longest, in milliseconds."""
        ordered = sorted(self.latencies)
        return [1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99, 1.0)]


class Sick:
    """An HTTP server that gives one answer to everything, or none. It knows how many connections it has."""

    def __init__(self, answer):
        self._answer = answer
        self.requests = 0
        self.open = 0
        self.most = 0
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self._run, args=(started,), daemon=True).start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self._loop)
        listening = self._loop.create_server(lambda: _SickConnection(self), "127.0.0.1", 0, backlog=1024)
        self.port = self._loop.run_until_complete(listening).sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        started.set()
        self._loop.run_forever()

    def answer(self):
        """The next answer, or None."""
        self.requests += 1
        return self._answer(self.requests)

    def close(self):
        """Stops answering."""
        self._loop.call_soon_threadsafe(self._loop.stop)


class _SickConnection(asyncio.Protocol):
    """Requests of one connection; each begins with POST and ends with its body."""

    def __init__(self, server):
        self._server = server
        self._transport = None
        self._buffer = b""

    def connection_made(self, transport):
        self._transport = transport
        self._server.open += 1
        self._server.most = max(self._server.most, self._server.open)

    def connection_lost(self, _):
        self._server.open -= 1

    def data_received(self, data):
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1").lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length:]
            answer = self._server.answer()
            if answer is not None:
                self._transport.write(answer)


def status(line, *headers):
    """An answer without a body."""
    return "\r\n".join([f"HTTP/1.1 {line}", *headers, "Content-Length: 0", "", ""]).encode()


class Watch:
    """Looks at the machine's TCP connections for one to an address that must not be connected to."""

    def __init__(self, addresses):
        wanted = {socket.inet_aton(address)[::-1].hex().upper() for address in addresses}
        self.found = set()
        self._stop = threading.Event()

        def look():
            while not self._stop.wait(0.05):
                with open("/proc/net/tcp", encoding="ascii") as table:
                    remotes = {line.split()[2].split(":")[0] for line in table}
                self.found |= remotes & wanted

        threading.Thread(target=look, daemon=True).start()

    def close(self):
        """Stops looking."""
        self._stop.set()


def verify_at(node, name, calls, rate):
    """Verifies so many phones at a rate; their verifications are there before."""
    created = create_all(Api(node), calls)
    result = sipp(node, name, pairs_of(created), rate)
    check_all_successful(name, result, calls)
    return set(created)


def memory(node):
    """Resident memory of the process in MiB."""
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("VmRSS")).split()[1]) // 1024


def report(name, receiver):
    """Prints how long events took to the healthy endpoint."""
    p50, p99, longest = receiver.percentiles()
    print(f"{name}: {len(receiver.latencies)} events, p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {longest:.1f} ms", flush=True)
    return p99


def alone(calls, rate):
    """The healthy endpoint without the others; its p99."""
    secret = webhook_secret()
    with Timed([secret]) as healthy, Node(healthy.url, [secret]) as node:
        node.start()
        verifications = verify_at(node, "alone", calls, rate)
        wait_for(lambda: verifications <= healthy.verified(), 30, "every event at the healthy endpoint")
        p99 = report("healthy alone", healthy)
        print(f"memory {memory(node)} MiB")
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")
    return p99


def beside_the_well(calls, rate):
    """The healthy endpoint beside four that take everything: what more deliveries cost by themselves; its p99."""
    secret = webhook_secret()
    well = [Sick(lambda _: status("204 No Content")) for _ in range(4)]
    more = [(server.url, VERIFIED) for server in well]
    with Timed([secret]) as healthy, Node(healthy.url, [secret], more_webhooks=more) as node:
        node.start()
        verifications = verify_at(node, "with four well ones", calls, rate)
        wait_for(lambda: verifications <= healthy.verified(), 30, "every event at the healthy endpoint")
        p99 = report("healthy with four well ones", healthy)
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")
    for server in well:
        server.close()
    return p99


def beside_the_sick(calls, rate):
    """The healthy endpoint beside four sick ones, and what became of these; its p99."""
    secret = webhook_secret()
    trap = Sick(lambda _: status("204 No Content"))
    places = [f"http://{FORBIDDEN[0]}/", f"http://{FORBIDDEN[1]}/latest/meta-data/", trap.url]
    sick = {
        "hang": Sick(lambda _: None),
        "500": Sick(lambda _: status("500 Internal Server Error")),
        "410": Sick(lambda _: status("410 Gone")),
        "302": Sick(lambda count: status("302 Found", f"Location: {places[count % 3]}")),
    }
    more = [(server.url, VERIFIED) for server in sick.values()]
    with Timed([secret]) as healthy, Node(healthy.url, [secret], webhook_lines=AND_DISABLED, more_webhooks=more) as node:
        node.start()
        began = time.monotonic()
        verifications = verify_at(node, "with four sick ones", calls, rate)
        wait_for(lambda: verifications <= healthy.verified(), 30, "every event at the healthy endpoint")
        p99 = report("healthy with four sick ones", healthy)
        print(f"memory {memory(node)} MiB")
        check_sick(node, healthy, sick, calls, began)
        check(trap.requests == 0 and trap.most == 0, "a redirect was followed")
        check(not healthy.rejected, f"{len(healthy.rejected)} deliveries refused, first: {healthy.rejected[:1]}")
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")
    for server in [*sick.values(), trap]:
        server.close()
    return p99


def check_sick(node, healthy, sick, calls, began):
    """Each sick endpoint is as it should be, and nothing for it is lost."""
    api = Api(node)
    found = {}

    def look():
        code, body = api.request("GET", "/v1/endpoints")
        check(code == 200, f"GET /v1/endpoints answered {code}")
        by_url = {endpoint["url"]: endpoint for endpoint in body["data"]}
        found.update({name: by_url[server.url] for name, server in sick.items()})
        return found

    def tried(name):
        code, body = api.request("GET", f"/v1/deliveries?endpoint={look()[name]['id']}&limit=100&state=pending")
        check(code == 200, f"GET /v1/deliveries answered {code}")
        # Those that were tried are not the newest: pages are walked until there is one.
        while True:
            rows = [row for row in body["data"] if row["last_attempt"]]
            if rows or not body["has_more"]:
                return rows
            cursor = body["next_cursor"]
            query = f"endpoint={found[name]['id']}&limit=100&state=pending&after={cursor}"
            code, body = api.request("GET", f"/v1/deliveries?{query}")
            check(code == 200, f"GET /v1/deliveries answered {code}")

    wait_for(lambda: tried("hang"), 60, "an attempt that hung and was cut off")
    for name, error, code in [("hang", "no answer within 10 s", None), ("500", "status 500", 500), ("302", "redirect 302", 302)]:
        rows = wait_for(lambda name=name: tried(name), 30, f"a failed attempt at {name}")
        for row in rows:
            last = row["last_attempt"]
            check(error in last["error"] and last["status"] == code, f"{name}: {last}")
            check(row["state"] == "pending" and row["attempts"] >= 1, f"{name}: {row}")
            check(row["next_attempt_at"] > last["at"], f"{name} is not put off: {row}")
        endpoint = found[name]
        check(endpoint["state"] == "enabled" and endpoint["failing_since"], f"{name}: {endpoint}")
        check(endpoint["backlog"] == calls, f"{name}: {endpoint['backlog']} of {calls} events wait")
    gone = wait_for(lambda: look()["410"]["state"] == "disabled" and found["410"], 10, "the end of the one that is gone")
    check(gone["reason"] == "gone", f"410: {gone}")
    check(gone["backlog"] == calls, f"410: {gone['backlog']} of {calls} events are parked")
    wait_for(lambda: [one["id"] for one in healthy.disabled] == [gone["id"]], 10, "endpoint.disabled, once")
    check(1 <= sick["410"].requests <= IN_FLIGHT, f"{sick['410'].requests} requests went to the one that is gone")
    for name, server in sick.items():
        print(f"{name}: {server.requests} requests, {server.most} connections at most", flush=True)
        # The next may be made before this end has seen the last ones close.
        check(server.most <= 2 * IN_FLIGHT, f"{server.most} connections to {name}")
    metrics = Metrics.read(node)
    check(metrics.total("ringproof_webhook_endpoints_probed") >= 2, "failing endpoints are not slowed down")
    for name in ("hang", "500", "302"):
        # A row of failures, then a probe a second.
        most = TROUBLE + (time.monotonic() - began) + 5
        check(TROUBLE <= sick[name].requests <= most, f"{sick[name].requests} requests went to {name}")


def main():
    """The runs, and their comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=500, help="events a second")
    parser.add_argument("--seconds", type=int, default=20, help="how long each run is")
    options = parser.parse_args()
    calls = options.rate * options.seconds
    # It takes time of this program's, so every run has it.
    watch = Watch(FORBIDDEN)
    before = alone(calls, options.rate)
    well = beside_the_well(calls, options.rate)
    after = beside_the_sick(calls, options.rate)
    watch.close()
    check(not watch.found, f"connected to {watch.found}")
    print(f"p99 with four sick endpoints is {after / before:.2f} times that alone, {after / well:.2f} times that with four well ones")


if __name__ == "__main__":
    run_main(main)
