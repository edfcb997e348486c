#!/usr/bin/env python3
"""Real SIPp against the real process over UDP: calls that match nothing, then calls that each verify one phone.

Fails unless every call gets its 486, misses need no retransmission, hits need one only where a commit was slow, and
each hit gives exactly one `verification.verified` with one webhook-id.
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


def sipp(node, name, calls, rate, scenario="caller"):
    """Runs a scenario over `calls`, pairs of caller and dialled number, and returns what SIPp counted."""
    program = shutil.which("sipp")
    check(program, "sipp is not installed (Debian package sip-tester)")
    directory = node.directory / name
    directory.mkdir()
    with open(directory / "calls.csv", "w", encoding="ascii") as file:
        file.write("SEQUENTIAL\n")
        file.writelines(f"{caller};{dialled}\n" for caller, dialled in calls)
    command = [
        program, f"{node.sip[0]}:{node.sip[1]}", "-sf", str(SCENARIOS / f"{scenario}.xml"), "-inf", "calls.csv",
        "-i", "127.0.0.1", "-m", str(len(calls)), "-r", str(rate), "-l", str(len(calls)), "-t", "u1",
        "-buff_size", "4194304", "-nostdin", "-timeout", str(int(len(calls) / rate) + 60), "-timeout_error",
        "-trace_stat", "-stf", "stat.csv", "-fd", "1", "-trace_err", "-error_file", "errors.log",
    ]
    with open(directory / "screen.log", "wb") as screen:
        code = subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=screen, stderr=subprocess.STDOUT,
            env={**os.environ, "TERM": "dumb"}, check=False,
        ).returncode
    try:
        with open(directory / "stat.csv", newline="", encoding="latin-1") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
    except OSError as error:
        raise Failure(f"{name}: sipp ended with {code} and left no statistics: {error}") from error
    check(rows, f"{name}: sipp ended with {code} and left no rows")
    row = rows[-1]
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
    print(
        f"{name}: {result['calls']} calls at {rate}/s, {result['failed']} failed, "
        f"{result['retransmissions']} retransmissions"
    )
    return result


def check_all_successful(name, result, calls):
    """Each call was placed and went as the scenario says."""
    check(
        result["code"] == 0 and result["failed"] == 0 and result["successful"] == calls,
        f"{name}: {result['successful']} of {calls} calls as the scenario says, {result['failed']} failed, "
        f"sipp ended with {result['code']}",
    )


def misses(node, calls, rate):
    """Calls from numbers that nobody verifies."""
    pairs = [(mobile(5_000_000 + index), f"+{FIRST_NUMBER + index % NUMBERS}") for index in range(calls)]
    result = sipp(node, "misses", pairs, rate)
    check_all_successful("misses", result, calls)
    check(result["retransmissions"] == 0, f"misses: {result['retransmissions']} retransmissions, expected none")


def create_all(api, count):
    """Creates a verification for each of `count` phones over 8 connections: id to (phone, number to dial)."""
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
                created[body["id"]] = (phone, body["dial"]["number"])

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work) for _ in range(8)]:
            future.result()
    check(not faults, faults[0] if faults else "")
    check(len(created) == count, f"{count} creations gave {len(created)} different ids")
    return created


def hits(node, receiver, calls, rate):
    """Calls that each prove one pending verification."""
    began = time.monotonic()
    created = create_all(Api(node), calls)
    taken = time.monotonic() - began
    print(f"hits: {calls} verifications created in {taken:.1f} s ({calls / taken:.0f}/s)")
    check(taken + calls / rate < 290, "hits: creation took so long that verifications would expire during the calls")
    before = Metrics.read(node)
    result = sipp(node, "hits", list(created.values()), rate)
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
        result["retransmissions"] == 0 or may > 0,
        f"hits: {result['retransmissions']} retransmissions though no commit took {SLOW * 1000:.0f} ms",
    )


def main():
    """Both runs on one process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20000, help="calls of each run")
    parser.add_argument("--rate", type=int, default=2000, help="calls a second")
    options = parser.parse_args()
    secret = webhook_secret()
    with Receiver([secret]) as receiver, Node(receiver.url, [secret]) as node:
        node.start()
        misses(node, options.calls, options.rate)
        hits(node, receiver, options.calls, options.rate)
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


if __name__ == "__main__":
    run_main(main)
