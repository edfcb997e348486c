#!/usr/bin/env python3
"""Real SIPp against the real process: calls that match nothing, then calls that each verify one phone.

Over UDP, over one TCP connection and over a connection for each call, each way on a process of its own. Fails unless every call gets its
486, misses need no retransmission, hits need one only where a commit was slow and never over TCP, each hit gives
exactly one `verification.verified` with one webhook-id, and every call came over the transport that it was to take.
"""

import argparse
import csv
import itertools
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from ringproof import (
    FIRST_NUMBER, NUMBERS, SCENARIOS, Api, Failure, Metrics, Node, check, mobile, run_main, wait_for, webhook_secret,
)
from webhooks import Receiver

COMMIT = "ringproof_store_commit_seconds"
# SIPp sends an INVITE again after 500 ms, so a commit of 400 ms with its queue and reply can cause that.
SLOW = 0.4


# What SIPp is told for each way: one socket or connection for all calls, or a connection for each call, 500 at once.
# For the last it takes four SIPp, each from an address of its own: one alone stops reading its sockets when it has used
# up half of an address's ports, and closes connections that other calls still use when it has to share them.
WAYS = {"udp": (1, ["-t", "u1"]), "tcp-1": (1, ["-t", "t1"]), "tcp-500": (4, ["-t", "tn", "-max_socket", "500", "-l", "125"])}


def sipp(node, name, calls, rate, scenario="caller", way="udp"):
    """Runs a scenario over `calls`, pairs of caller and dialled number, and returns what SIPp counted."""
    count, transport = WAYS[way]
    parts = [calls[index::count] for index in range(count)]
    with ThreadPoolExecutor(count) as pool:
        runs = [
            pool.submit(run_sipp, node, f"{name}-{index}", f"127.0.0.{index}", part, rate // count, scenario, transport)
            for index, part in enumerate(parts, 1)
        ]
        results = [run.result() for run in runs]
    total = {key: sum(result[key] for result in results) for key in results[0]}
    print(
        f"{name}: {total['calls']} calls at {rate}/s, {total['failed']} failed, "
        f"{total['retransmissions']} retransmissions"
    )
    return total


def run_sipp(node, name, source, calls, rate, scenario, transport):
    """One SIPp that calls from the address `source`."""
    program = find_sipp()
    directory = node.directory / name
    directory.mkdir()
    with open(directory / "calls.csv", "w", encoding="ascii") as file:
        file.write("SEQUENTIAL\n")
        file.writelines(f"{caller};{dialled}\n" for caller, dialled in calls)
    command = [
        program, f"{node.sip[0]}:{node.sip[1]}", "-sf", str(SCENARIOS / f"{scenario}.xml"), "-inf", "calls.csv",
        "-i", source, "-m", str(len(calls)), "-r", str(rate), "-l", str(len(calls)), *transport,
        "-buff_size", "4194304", "-nostdin", "-timeout", str(int(len(calls) / rate) + 60), "-timeout_error",
        "-trace_stat", "-stf", "stat.csv", "-fd", "1", "-trace_err", "-error_file", "errors.log",
    ]
    with open(directory / "screen.log", "wb") as screen:
        code = subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=screen, stderr=subprocess.STDOUT,
            env={**os.environ, "TERM": "dumb"}, check=False,
        ).returncode
    try:
        row = last_row(directory / "stat.csv")
    except Failure as failure:
        raise Failure(f"{name}: sipp ended with {code}, and {failure}") from failure
    result = {
        "calls": int(row["TotalCallCreated"]),
        "successful": int(row["SuccessfulCall(C)"]),
        "failed": int(row["FailedCall(C)"]),
        "retransmissions": int(row["Retransmissions(C)"]),
        "code": code,
    }
    if result["failed"] or code:
        node.keep = True
        errors = directory / "errors.log"
        for line in errors.read_text(errors="replace").splitlines()[:6] if errors.exists() else []:
            print(f"  sipp: {line[:160]}")
    return result


def find_sipp():
    """SIPp's path."""
    program = shutil.which("sipp")
    check(program, "sipp is not installed (Debian package sip-tester)")
    return program


def last_row(path):
    """The last row of one of SIPp's statistics, by column."""
    try:
        with open(path, newline="", encoding="latin-1") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
    except OSError as error:
        raise Failure(f"left no statistics: {error}") from error
    check(rows, f"left no rows in {path}")
    return rows[-1]


def check_all_successful(name, result, calls):
    """Each call was placed and went as the scenario says."""
    check(
        result["code"] == 0 and result["failed"] == 0 and result["successful"] == calls,
        f"{name}: {result['successful']} of {calls} calls as the scenario says, {result['failed']} failed, "
        f"sipp ended with {result['code']}",
    )


def misses(node, calls, rate, way):
    """Calls from numbers that nobody verifies."""
    result = sipp(node, "misses", calls_from(5_000_000, calls), rate, way=way)
    check_all_successful("misses", result, calls)
    check(result["retransmissions"] == 0, f"misses: {result['retransmissions']} retransmissions, expected none")


def calls_from(first, count):
    """Who is to call what: so many mobile numbers from `first` on, each number of the node in turn."""
    return [(mobile(first + index), f"+{FIRST_NUMBER + index % NUMBERS}") for index in range(count)]


def pairs_of(created):
    """Who is to call what, for verifications of `create_all`."""
    return [(body["phone"], body["dial"]["number"]) for body in created.values()]


def create_all(api, count):
    """Creates a verification for each of `count` phones over 8 connections: id to its JSON."""
    created, faults = {}, []
    indexes = itertools.count()
    lock = threading.Lock()

    def work():
        while not faults:
            with lock:
                index = next(indexes)
            if index >= count:
                return
            phone = mobile(index)
            status, body = api.create(phone, ttl_seconds=300)
            if status != 201:
                faults.append(f"create {index + 1} of {count} answered {status}: {body}")
                return
            with lock:
                created[body["id"]] = body

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work) for _ in range(8)]:
            future.result()
    check(not faults, faults[0] if faults else "")
    check(len(created) == count, f"{count} creations gave {len(created)} different ids")
    return created


def hits(node, receiver, calls, rate, way):
    """Calls that each prove one pending verification."""
    began = time.monotonic()
    created = create_all(Api(node), calls)
    taken = time.monotonic() - began
    print(f"hits: {calls} verifications created in {taken:.1f} s ({calls / taken:.0f}/s)")
    check(taken + calls / rate < 290, "hits: creation took so long that verifications would expire during the calls")
    before = Metrics.read(node)
    result = sipp(node, "hits", pairs_of(created), rate, way=way)
    try:
        wait_for(lambda: len(receiver.verified()) >= calls, 60, f"hits: {calls} verification.verified events")
        wait_for(lambda: Metrics.read(node).total("ringproof_webhook_backlog") == 0, 30, "hits: an empty backlog")
    finally:
        after = Metrics.read(node)
        may, surely = (then - now for then, now in zip(after.above(COMMIT, SLOW), before.above(COMMIT, SLOW)))
        events = sum(len(kinds.get("verification.verified", ())) for kinds in list(receiver.events.values()))
        print(
            f"hits: {events / calls:.4f} events a hit ({events} of {calls}), "
            f"{receiver.repeated()} repeated deliveries, {len(receiver.rejected)} refused signatures, "
            f"commits over {SLOW * 1000:.0f} ms: {surely} to {may}"
        )
    check_all_successful("hits", result, calls)
    check(not receiver.rejected, f"hits: {len(receiver.rejected)} deliveries refused, first: {receiver.rejected[:1]}")
    check(receiver.verified() == set(created), "hits: an event came for a verification that nobody created")
    other = {kind for kinds in receiver.events.values() for kind in kinds} - {"verification.verified"}
    check(not other, f"hits: unexpected events {sorted(other)}")
    twice = [identifier for identifier in created if len(receiver.terminal_ids(identifier)) != 1]
    check(not twice, f"hits: {len(twice)} verifications without exactly one webhook-id, first {twice[:1]}")
    check(
        result["retransmissions"] == 0 or (may > 0 and way == "udp"),
        f"hits: {result['retransmissions']} retransmissions; over {SLOW * 1000:.0f} ms took {may} commits at most",
    )


def check_way(node, calls, way):
    """All calls came by the way that they were to take."""
    after = Metrics.read(node)
    transport = "udp" if way == "udp" else "tcp"
    came = after.total("ringproof_sip_requests_total", method="INVITE", transport=transport)
    check(came >= calls, f"{way}: {came:g} INVITEs came over {transport}, {calls} calls were placed")
    other = after.total("ringproof_sip_requests_total", method="INVITE") - came
    check(other == 0, f"{way}: {other:g} INVITEs came over another transport")
    connections = after.total("ringproof_sip_connections_total")
    print(f"{way}: {connections:g} connections, {after.total('ringproof_sip_connections'):g} still open")
    check(after.total("ringproof_sip_dropped_total") == 0, f"{way}: messages were dropped or answers lost")


def main():
    """Both runs, each way on a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20000, help="calls of each run")
    parser.add_argument("--rate", type=int, default=2000, help="calls a second")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this way; may be repeated")
    options = parser.parse_args()
    for way in options.way or WAYS:
        print(f"-- {way}", flush=True)
        secret = webhook_secret()
        with Receiver([secret]) as receiver, Node(receiver.url, [secret]) as node:
            node.start()
            misses(node, options.calls, options.rate, way)
            hits(node, receiver, options.calls, options.rate, way)
            check_way(node, 2 * options.calls, way)
            check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


if __name__ == "__main__":
    run_main(main)
