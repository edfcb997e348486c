#!/usr/bin/env python3
"""Thousands of browsers and programs that wait: each sees its verification's result, soon, and costs little memory.

Opens an event stream and a long poll for each of N verifications (or for N verifications each, with --apart), places
the calls that verify them, and measures from the 486 of each call to the arrival of its result. Fails when a result is
missing or late, or where many are open and one costs too much memory.
"""

import argparse
import asyncio
import resource
import time

from caller import Caller
from ringproof import Api, Metrics, Node, check, run_main, wait_for, webhook_secret
from sipp_load import create_all
from webhooks import Receiver

OPENED_AT_ONCE = 200
# Fewer than these say little: a process grows in steps.
ENOUGH_TO_WEIGH = 1000


class Waiting(asyncio.Protocol):
    """One HTTP/1.1 request whose answer tells a result some time."""

    def __init__(self, host, path, headers, result):
        lines = [f"GET {path} HTTP/1.1", f"Host: {host[0]}:{host[1]}", *headers, "", ""]
        self._request = "\r\n".join(lines).encode()
        self._result = result
        self._received = bytearray()
        self._transport = None
        self.arrived = None
        self.begun = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data):
        self._received += data
        if not self.begun.done() and b"\r\n\r\n" in self._received:
            self.begun.set_result(bytes(self._received[:12]))
        if self.arrived is None and self._result in self._received:
            self.arrived = time.monotonic()

    def connection_lost(self, _error):
        if not self.begun.done():
            self.begun.set_result(b"")

    def close(self):
        """Leaves without a word."""
        if self._transport is not None:
            self._transport.abort()

    def shown(self):
        """What came so far, for a message."""
        return bytes(self._received[-300:]).decode(errors="replace")


def browser(node, created):
    """What an EventSource asks."""
    path = created["client"]["events_url"]
    return Waiting(node.api, path, ["Accept: text/event-stream", "Cache-Control: no-cache"], b'"status":"verified"')


def program(node, created):
    """What an application's server asks."""
    headers = [f"Authorization: Bearer {node.key}", "Prefer: wait=60", "Accept: application/json"]
    return Waiting(node.api, f"/v1/verifications/{created['id']}", headers, b'"status":"verified"')


async def open_all(node, make, verifications):
    """Opens one for each verification, some at a time."""
    loop = asyncio.get_running_loop()
    free = asyncio.Semaphore(OPENED_AT_ONCE)

    async def one(created):
        async with free:
            _, waiting = await loop.create_connection(lambda: make(node, created), *node.api)
            if make is browser:
                head = await asyncio.wait_for(waiting.begun, 30)
                check(head == b"HTTP/1.1 200", f"a stream was answered {waiting.shown()!r}")
            return created["id"], waiting

    return await asyncio.gather(*(one(created) for created in verifications))


def memory(node):
    """Bytes of the process that are in memory."""
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def report(kind, open_now, ended, options):
    """Prints how one kind fared; gives what is wrong with it, a missing or a late result."""
    missing = [waiting for _, waiting in open_now if waiting.arrived is None]
    took = sorted(max(0.0, waiting.arrived - ended[name]) for name, waiting in open_now if waiting.arrived is not None)

    def at(share):
        return took[min(len(took) - 1, int(share * len(took)))] * 1000 if took else float("nan")

    print(
        f"{kind}: {len(took)} of {len(open_now)} saw the result; "
        f"p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, max {at(1):.1f} ms"
    )
    late = sum(seconds > options.late for seconds in took)
    if missing:
        return f"{kind}: {len(missing)} saw no result, the first {missing[0].shown()!r}"
    return f"{kind}: {late} results came more than {options.late:g} s after the 486" if late else ""


async def run(node, options):
    """Creates, opens, calls, measures."""
    count = options.waiting
    began = time.monotonic()
    created = await asyncio.to_thread(create_all, Api(node), 2 * count if options.apart else count)
    created = list(created.values())
    print(f"{len(created)} verifications created in {time.monotonic() - began:.1f} s")
    for_browsers, for_programs = created[:count], created[-count:]
    # What serving so many requests costs anyway is not the waiting's.
    before = memory(node)
    streams = await open_all(node, browser, for_browsers)
    with_streams = memory(node)
    polls = await open_all(node, program, for_programs)

    def waiting():
        metrics = Metrics.read(node)
        return [int(metrics.total(f"ringproof_{kind}")) for kind in ("client_streams", "long_polls")] == [count, count]

    await asyncio.to_thread(wait_for, waiting, 30, f"{count} streams and {count} long polls")
    with_all = memory(node)
    per_stream, per_poll = (with_streams - before) / count, (with_all - with_streams) / count
    print(
        f"memory: {before / 1e6:.1f} MB before, {with_streams / 1e6:.1f} MB with {count} streams, "
        f"{with_all / 1e6:.1f} MB with {count} long polls more: "
        f"{per_stream:.0f} bytes a stream, {per_poll:.0f} bytes a long poll"
    )

    ended = {}

    def over(call):
        check(call.code == 486, f"a call was answered {call.code}")
        ended[call.context] = call.answered

    with Caller(node.sip, over) as caller:
        start = time.monotonic()
        for index, one in enumerate(created):
            await asyncio.sleep(max(0, start + index / options.rate - time.monotonic()))
            caller.place(one["phone"], one["dial"]["number"], one["id"])
        placed = time.monotonic() - start
        await asyncio.to_thread(wait_for, lambda: len(ended) == len(created), 60, f"486 to all {len(created)} calls")
    print(f"{len(created)} calls placed in {placed:.1f} s ({len(created) / placed:.0f}/s)")
    deadline = time.monotonic() + 10
    while any(one.arrived is None for _, one in streams + polls) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    wrong = [report("streams", streams, ended, options), report("long polls", polls, ended, options)]
    for _, one in streams + polls:
        one.close()
    check(not any(wrong), "; ".join(filter(None, wrong)))
    if count >= ENOUGH_TO_WEIGH:
        check(max(per_stream, per_poll) < options.bytes, f"one that waits costs more than {options.bytes} bytes")


def main():
    """One node, everyone on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=5000, help="streams, and as many long polls")
    parser.add_argument("--rate", type=int, default=500, help="calls a second")
    parser.add_argument("--late", type=float, default=1.0, help="seconds after the 486 at which a result is late")
    parser.add_argument("--bytes", type=int, default=18432, help="most memory that one may cost")
    parser.add_argument("--apart", action="store_true", help="streams and long polls of different verifications")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * options.waiting + 512
    check(most >= needed, f"{needed} open files are needed, the system allows {most}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(needed, 4096), most))
    secret = webhook_secret()
    # Few for SIP, so that a limit of 20,000 open files does for 10,000 that wait.
    sip = "tcp = { connections = 64 }"
    with Receiver([secret]) as receiver, Node(receiver.url, [secret], sip=sip) as node:
        node.start()
        asyncio.run(run(node, options))
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


if __name__ == "__main__":
    run_main(main)
