#!/usr/bin/env python3
"""A flood from nowhere, thousands of idle connections and slow senders, and beside them calls that have to be verified.

Listed peers hold idle TCP connections, send a byte a second, headers without end, lengths that nobody means and the
largest datagrams, while a C program (flood.c, built here with gcc) floods the node from an address that no trunk lists:
a scanner's OPTIONS, garbage, and INVITEs for phones that are being verified. Other listed peers call for verifications
at a steady rate, and a few send their INVITE a byte at a time, in 65,507 bytes, or in IP fragments (which needs root).
Fails unless every such call gets its 486 and verifies, the flood verifies nothing, gets no answer and is accounted for,
every idle connection stays open, the slow ones are closed, and the node's memory stays as it was. --strict also wants
the p99 of the calls that were sent once below 50 ms.
"""

import argparse
import asyncio
import contextlib
import random
import resource
import select
import shutil
import socket
import struct
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from caller import Caller
from ringproof import FIRST_NUMBER, Api, Failure, Metrics, Node, check, mobile, run_main, wait_for, webhook_secret
from sipp_load import COMMIT, create_all
from streams import memory
from webhooks import Receiver

UNLISTED = "127.0.9.9"
PEERS = '"127.0.0.1", "127.0.1.0/24"'
SLOW_PEER, ODD_PEER = "127.0.1.251", "127.0.1.252"
MESSAGE_SECONDS = 5
# A byte at a time, so that the whole INVITE takes this long.
TRICKLE_SECONDS = 2.0
P99_SECONDS = 0.05
LARGEST = 65507
FRAGMENT = 1480


def build_flood(directory):
    """Compiles the flooder into `directory`."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    check(compiler, "no C compiler: install gcc")
    program = directory / "flood"
    source = Path(__file__).with_name("flood.c")
    done = subprocess.run([compiler, "-O2", "-o", program, source], capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"{source.name} does not compile: {done.stderr[-500:]}")
    return program


class Flood:
    """The flooder at work; `end` waits for it and tells what it printed."""

    def __init__(self, program, source, target, rate, seconds, kind, pairs):
        self._seconds = seconds
        command = [program, source, "{}:{}".format(*target), str(rate), str(seconds), kind]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with contextlib.suppress(BrokenPipeError), self._process.stdin as lines:
            lines.writelines(f"{caller} {dialled}\n" for caller, dialled in pairs)

    def running(self):
        """Whether it still sends."""
        return self._process.poll() is None

    def end(self):
        """How many datagrams it sent, in how many seconds, and how many came back to it."""
        try:
            code = self._process.wait(4 * self._seconds + 30)
        except subprocess.TimeoutExpired:
            raise Failure("the flooder is not done in four times its time: the machine is too slow") from None
        check(code == 0, f"the flooder ended with {code}")
        words = self._process.stdout.read().replace(",", " ").split()
        return int(words[1]), float(words[3]), int(words[6])

    def stop(self):
        """Ends it where it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def invite(node, caller, dialled, source, transport="UDP", length=0):
    """An INVITE as bytes, padded to `length` where that is more."""
    text = (
        f"INVITE sip:{dialled}@{node.sip[0]}:{node.sip[1]};user=phone SIP/2.0\r\n"
        f"Via: SIP/2.0/{transport} {source[0]}:{source[1]};rport;branch=z9hG4bK{random.getrandbits(64):016x}\r\n"
        f"Max-Forwards: 70\r\n"
        f"From: <sip:{caller}@{source[0]};user=phone>;tag={random.getrandbits(48):012x}\r\n"
        f"To: <sip:{dialled}@{node.sip[0]};user=phone>\r\n"
        f"Call-ID: {random.getrandbits(96):024x}@{source[0]}\r\n"
        f"CSeq: 1 INVITE\r\n"
        f"P-Asserted-Identity: <sip:{caller}@{source[0]};user=phone>\r\n"
    )
    # A body of any length is not read; a single field as long would be answered 513.
    room = max(0, length - len(text) - len("Content-Length: 12345\r\n\r\n"))
    return f"{text}Content-Length: {room}\r\n\r\n{'x' * room}".encode()


def status_of(message):
    """The status code of a response, 0 for anything else."""
    words = message.split(b" ", 2)
    return int(words[1]) if words[0] == b"SIP/2.0" and len(words) > 1 and words[1].isdigit() else 0


class Idle:
    """Connections that say nothing, 200 from each address."""

    EACH = 200

    def __init__(self, node, count):
        self._sockets = []
        for index in range(count):
            one = socket.socket()
            one.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            one.settimeout(10)
            one.bind((f"127.0.1.{1 + index // self.EACH % 250}", 0))
            one.connect(node.sip)
            self._sockets.append(one)

    def check_open(self):
        """Each is open: nothing came on it, and it answers a ping."""
        poll = select.poll()
        for one in self._sockets:
            poll.register(one, select.POLLIN)
        ended = poll.poll(0)
        check(not ended, f"{len(ended)} of {len(self._sockets)} idle connections were closed or written to")
        silent = 0
        for part in (self._sockets[start:start + 256] for start in range(0, len(self._sockets), 256)):
            for one in part:
                one.sendall(b"\r\n\r\n")
            for one in part:
                try:
                    silent += one.recv(16) != b"\r\n"
                except OSError:
                    silent += 1
        check(not silent, f"{silent} of {len(self._sockets)} idle connections did not answer a ping")

    def close(self):
        """Closes all."""
        for one in self._sockets:
            one.close()


@dataclass
class Slow:
    """Senders that take their time or never end, until `stop`. Counts how their connections ended."""

    node: Node
    each: int
    seen: Counter = field(default_factory=Counter)
    answers: Counter = field(default_factory=Counter)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self):
        """A task for each."""
        head = invite(self.node, mobile(6_000_000), f"+{FIRST_NUMBER}", (SLOW_PEER, 5060), "TCP")
        bare = head.removesuffix(b"Content-Length: 0\r\n\r\n")
        kinds = {
            "one byte a second": self._pieces([head[at:at + 1] for at in range(len(head))], 1.0),
            "header without end": self._pieces([bare] + [b"X-More: " + b"y" * 1000 + b"\r\n"] * 100, 0.01),
            "length of 4,000,000,000": self._pieces([bare + b"Content-Length: 4000000000\r\n\r\n"], 0),
            "length of 2,000,000,000": self._pieces([bare + b"Content-Length: 2000000000\r\n\r\n"], 0),
        }
        tasks = [self._again_and_again(name, send) for name, send in kinds.items() for _ in range(self.each)]
        return [asyncio.create_task(task) for task in [*tasks, self._largest()]]

    @staticmethod
    def _pieces(pieces, pause):
        async def send(writer):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)

        return send

    async def _again_and_again(self, name, send):
        """Connects, sends, and waits until the node closes; then once more."""
        while not self.stop.is_set():
            reader, writer = await asyncio.open_connection(*self.node.sip, local_addr=(SLOW_PEER, 0))
            sending = asyncio.create_task(send(writer))
            try:
                # The node has the last word, and says it some time: `message_seconds` and what it takes to close.
                answer = await asyncio.wait_for(reader.read(), MESSAGE_SECONDS + 10)
            except TimeoutError:
                raise Failure(f"slow senders, {name}: the connection was not closed") from None
            except ConnectionError:
                answer = b""
            finally:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await sending
                writer.close()
            self.seen[name] += 1
            self.answers[(name, status_of(answer))] += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), 0.5)

    async def _largest(self):
        """The largest datagrams, of which nothing can be made."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.bind((SLOW_PEER, 0))
            while not self.stop.is_set():
                for data in (random.randbytes(LARGEST), b"INVITE sip:" + b"1" * (LARGEST - 11), bytes(LARGEST)):
                    out.sendto(data, self.node.sip)
                    self.seen["largest datagrams"] += 1
                await asyncio.sleep(0.1)


async def trickled(node, one):
    """An INVITE over TCP whose bytes come one by one; the status of its answer."""
    reader, writer = await asyncio.open_connection(*node.sip, local_addr=(ODD_PEER, 0))
    writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = invite(node, one["phone"], one["dial"]["number"], writer.get_extra_info("sockname"), "TCP")
    began = time.monotonic()
    for at in range(len(data)):
        writer.write(data[at:at + 1])
        await asyncio.sleep(max(0.0, began + at * TRICKLE_SECONDS / len(data) - time.monotonic()))
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    writer.close()
    return status_of(answer)


async def datagram(node, one, send, length):
    """An INVITE of so many bytes, sent by `send` again and again until its answer comes; the status of that."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind((ODD_PEER, 0))
        own.setblocking(False)
        data = invite(node, one["phone"], one["dial"]["number"], own.getsockname(), length=length)
        for _ in range(30):
            send(own, data, node.sip)
            with contextlib.suppress(TimeoutError):
                return status_of(await asyncio.wait_for(loop.sock_recv(own, 65535), 1))
    return 0


def whole(own, data, target):
    """Sends a datagram as it is."""
    own.sendto(data, target)


def fragmented(own, data, target):
    """Sends a datagram in IP fragments in any order: loopback would carry it whole, so they are made here."""
    source, port = own.getsockname()
    # A UDP checksum of 0 is none.
    payload = struct.pack("!4H", port, target[1], 8 + len(data), 0) + data
    identification = random.randrange(1, 65536)
    starts = list(range(0, len(payload), FRAGMENT))
    random.shuffle(starts)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for start in starts:
            piece = payload[start:start + FRAGMENT]
            flags = (0x2000 if start + FRAGMENT < len(payload) else 0) | start // 8
            header = struct.pack(
                "!BBHHHBBH4s4s", 0x45, 0, 20 + len(piece), identification, flags, 64, socket.IPPROTO_UDP, 0,
                socket.inet_aton(source), socket.inet_aton(target[0]),
            )
            raw.sendto(header + piece, (target[0], 0))


def may_send_raw():
    """Whether this process may make IP packets itself."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
    except PermissionError:
        return False
    return True


def backlog_drops():
    """Packets that this machine lost before any socket saw them."""
    try:
        rows = Path("/proc/net/softnet_stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(row.split()[1], 16) for row in rows)


def check_odd(kind, codes):
    """Each of these calls was refused as any other is."""
    print(f"{kind}: {codes.count(486)} of {len(codes)} got 486")
    check(all(code == 486 for code in codes), f"{kind}: answered {codes}")


async def place_all(node, created, rate):
    """Calls for all of `created` at this rate, by two callers; the calls, all of them over."""
    over = []
    with Caller(node.sip, over.append) as first, Caller(node.sip, over.append) as second:
        start = time.monotonic()
        for index, one in enumerate(created):
            await asyncio.sleep(max(0.0, start + index / rate - time.monotonic()))
            (first, second)[index % 2].place(one["phone"], one["dial"]["number"], one["id"])
        placed = time.monotonic() - start
        await asyncio.to_thread(wait_for, lambda: len(over) == len(created), 60, f"an end of all {len(created)} calls")
    print(f"calls: {len(created)} in {placed:.1f} s ({len(created) / max(placed, 0.001):.0f}/s)")
    return over


def report_calls(calls, options):
    """Prints how the calls fared, and fails on any that did not get its 486."""
    once = sorted(call.answered - call.first_sent for call in calls if call.sent == 1 and call.code == 486)

    def at(share):
        return once[min(len(once) - 1, int(share * len(once)))] * 1000 if once else float("nan")

    again = sum(call.sent - 1 for call in calls)
    print(
        f"INVITE to 486: p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, max {at(1):.1f} ms, of {len(once)} calls that "
        f"were sent once; {again} retransmissions, of {len(calls) - len(once)} calls"
    )
    codes = Counter(call.code for call in calls)
    check(codes == {486: len(calls)}, f"calls were answered {dict(codes)}, 0 is no answer")
    if options.strict:
        check(once and at(0.99) <= P99_SECONDS * 1000, f"p99 is {at(0.99):.1f} ms, above {P99_SECONDS * 1000:.0f} ms")
        check(again <= len(calls) // 100, f"{again} retransmissions for {len(calls)} calls")


def report_verified(node, receiver, created, pending):
    """Each of `created` is verified, by its webhook or else by what the API says, and none of `pending` is."""
    wanted = {one["id"] for one in created}
    deadline = time.monotonic() + 30
    while not wanted <= receiver.verified() and time.monotonic() < deadline:
        time.sleep(0.05)
    api = Api(node)
    missing = wanted - receiver.verified()
    lost = [name for name in sorted(missing) if api.verification(name)[1]["status"] != "verified"]
    print(f"verified: {len(wanted) - len(lost)} of {len(wanted)}, of {len(missing)} no webhook came within 30 s")
    check(not lost, f"{len(lost)} verifications were called and are not verified, first {lost[:1]}")
    check(not receiver.rejected, f"{len(receiver.rejected)} deliveries refused, first: {receiver.rejected[:1]}")
    statuses = Counter(api.verification(one["id"])[1]["status"] for one in pending)
    check(statuses == {"pending": len(pending)}, f"verifications that only the flood called are {dict(statuses)}")
    api.disconnect()


def account_for(node, before, sent, lost_before, listed):
    """Each datagram of the flood was dropped by the node, by its socket, or by the machine on the way there."""
    counted = 0
    deadline = time.monotonic() + 15
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.bind((ODD_PEER, 0))
        while True:
            # A socket tells what it lost with the next datagram that it reads; each worker has one.
            for _ in range(64):
                out.sendto(invite(node, mobile(6_000_001), f"+{FIRST_NUMBER}", out.getsockname()), node.sip)
            time.sleep(0.2)
            now = Metrics.read(node)
            unknown, by_socket = (
                int(now.total(name, **labels) - before.total(name, **labels))
                for name, labels in (
                    ("ringproof_sip_dropped_total", {"reason": "unknown_source"}),
                    ("ringproof_sip_socket_drops_total", {}),
                )
            )
            on_the_way = backlog_drops() - lost_before
            counted = unknown + by_socket
            if counted + on_the_way >= sent or time.monotonic() > deadline:
                break
    print(
        f"dropped: {unknown} by the node as unknown_source, {by_socket} by its sockets, {on_the_way} by the machine "
        f"before any socket: {counted + on_the_way - sent:+d} to the {sent} of the flood"
    )
    check(counted + on_the_way >= sent, f"{sent - counted - on_the_way} datagrams of the flood are not accounted for")
    # What listed peers sent may have been lost beside it.
    check(counted - sent <= listed, f"{counted - sent} more were dropped than the flood had")


async def run(node, receiver, program, options):
    """Everything at once; then what became of it."""
    count, odd, bait = int(options.rate * options.seconds), 4, 50
    began = time.monotonic()
    created = list((await asyncio.to_thread(create_all, Api(node), count + 3 * odd + bait)).values())
    print(f"{len(created)} verifications created in {time.monotonic() - began:.1f} s")
    check(time.monotonic() - began + options.seconds < 200, "creation took so long that verifications would expire")
    pending, created = created[:bait], created[bait:]
    calls, odd_calls = created[3 * odd:], created[:3 * odd]
    idle = Idle(node, options.idle)
    flood = None
    try:
        await asyncio.to_thread(
            wait_for, lambda: Metrics.read(node).total("ringproof_sip_connections") == options.idle, 30,
            f"{options.idle} idle connections",
        )
        before, lost_before, with_idle = Metrics.read(node), backlog_drops(), memory(node)
        slow = Slow(node, 8)
        tasks = slow.start()
        pairs = [(one["phone"], one["dial"]["number"]) for one in pending]
        flood = Flood(program, UNLISTED, node.sip, options.flood, options.seconds + 2, options.kind, pairs)
        raw = may_send_raw()
        trickling = [asyncio.create_task(trickled(node, one)) for one in odd_calls[:odd]]
        odd_send = [(whole, LARGEST)] * odd + [(fragmented if raw else whole, 20_000)] * odd
        odd_tasks = [
            asyncio.create_task(datagram(node, one, send, length))
            for one, (send, length) in zip(odd_calls[odd:], odd_send)
        ]
        over = await place_all(node, calls, options.rate)
        lasted = flood.running()
        sent, taken, received = await asyncio.to_thread(flood.end)
        after = Metrics.read(node)
        grown = memory(node) - with_idle
        print(
            f"flood: {sent} datagrams in {taken:.1f} s, {sent / taken:.0f} a second of the {options.flood} asked for"
            f"{'' if lasted else '; it ended before the calls'}; {received} came back"
        )
        used = after.total("process_cpu_seconds_total") - before.total("process_cpu_seconds_total")
        long = {
            what: "{1} to {0}".format(*(
                then - now for then, now in zip(after.above(name, P99_SECONDS), before.above(name, P99_SECONDS))
            ))
            for what, name in (("answers", "ringproof_invite_to_reply_seconds"), ("commits", COMMIT))
        }
        print(
            f"node: {used:.1f} s of CPU time meanwhile; by its own clock {long['answers']} answers to calls that match "
            f"and {long['commits']} commits took more than {P99_SECONDS * 1000:.0f} ms"
        )
        print(f"memory: {with_idle / 1e6:.1f} MB before, {grown / 1e6:+.1f} MB after")
        check_odd("a byte at a time", await asyncio.gather(*trickling))
        codes = await asyncio.gather(*odd_tasks)
        check_odd(f"datagrams of {LARGEST} bytes", codes[:odd])
        check_odd("20 KB in IP fragments" if raw else "20 KB whole (fragments need root)", codes[odd:])
        report_calls(over, options)
        check(received == 0, f"{received} datagrams came back to an address that no trunk lists")
        await asyncio.to_thread(report_verified, node, receiver, created, pending)
        slow.stop.set()
        await asyncio.gather(*tasks)
        report_slow(node, slow)
        await asyncio.to_thread(account_for, node, before, sent, lost_before, 4 * len(created) + 1000)
        await asyncio.to_thread(idle.check_open)
        print(f"idle connections: all {options.idle} stayed open and answer a ping")
        check(grown < options.growth * 1e6, f"the node's memory grew by {grown / 1e6:.1f} MB")
    finally:
        idle.close()
        if flood:
            flood.stop()


def report_slow(node, slow):
    """Prints what slow senders met, and fails where it was not what they should."""
    for name, times in sorted(slow.seen.items()):
        answers = {code or "none": many for (kind, code), many in slow.answers.items() if kind == name}
        print(f"slow senders, {name}: {times} times" + (f", answered {answers}" if answers else ""))
    wanted = {
        "one byte a second": (0, "slow_message"), "header without end": (513, "too_large"),
        "length of 4,000,000,000": (400, "bad_framing"), "length of 2,000,000,000": (513, "too_large"),
    }
    closed = Counter()
    for name, (code, reason) in wanted.items():
        check(slow.seen[name], f"slow senders, {name}: none was seen to its end")
        closed[reason] += slow.seen[name]
        # A reset on the way may take the answer along; another answer is wrong.
        others = {seen for kind, seen in slow.answers if kind == name} - {code, 0}
        check(not others, f"slow senders, {name}: answered {others}, not {code}")
    metrics = Metrics.read(node)
    for reason, times in closed.items():
        counted = metrics.total("ringproof_sip_connections_closed_total", reason=reason)
        check(counted >= times, f"{counted:g} connections were counted as {reason}, {times} were closed so")


def main():
    """One node, all of them on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=int, default=10000, help="idle TCP connections")
    parser.add_argument("--flood", type=int, default=100000, help="datagrams a second from an unlisted source")
    parser.add_argument("--kind", default="sgi", help="what they are, in turn: s scan, g garbage, i INVITE, a ACK")
    parser.add_argument("--rate", type=float, default=500, help="calls a second of listed peers")
    parser.add_argument("--seconds", type=float, default=20, help="how long calls are placed")
    parser.add_argument("--growth", type=float, default=96, help="megabytes by which the node may grow meanwhile")
    parser.add_argument("--strict", action="store_true", help="also fail on a p99 above 50 ms, or on retransmissions")
    options = parser.parse_args()
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = options.idle + 1024
    try:
        # Root may pass the hard limit, which the node then has as well.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), max(most, needed)))
    except (ValueError, OSError):
        raise Failure(f"{needed} open files are needed, the system allows {most}") from None
    secret = webhook_secret()
    sip = (
        f"tcp = {{ connections = {options.idle + 256}, connections_per_peer = {Idle.EACH + 100}, "
        f"message_seconds = {MESSAGE_SECONDS} }}"
    )
    with Receiver([secret]) as receiver, Node(receiver.url, [secret], sip=sip) as node:
        text = node.config.read_text().replace('peers = ["127.0.0.0/8"]', f"peers = [{PEERS}]")
        # Few for the API, so that the descriptors do for SIP.
        text = text.replace("[api]\n", "[api]\nconnections = 128\n")
        check(PEERS in text and "connections = 128" in text, "the configuration is not the one that this changes")
        node.config.write_text(text)
        program = build_flood(node.directory)
        node.start()
        asyncio.run(run(node, receiver, program, options))
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


if __name__ == "__main__":
    run_main(main)
