#!/usr/bin/env python3
"""Reloads under load: files good and broken in turn, while calls that match and calls that do not keep coming.

Every good file is another one: trunks, numbers, limits and the order of a webhook's secrets change. Then: each call has
got its 486, each verification that was called is verified and its event has come, and the node counts as many reloads
taken and refused as there were files of each kind.
"""

import argparse
import itertools
import random
import threading
import time
from collections import Counter

from caller import Caller
from ringproof import FIRST_NUMBER, Api, Metrics, Node, check, mobile, run_main, wait_for, webhook_secret
from webhooks import Receiver

TTL = 300
WORKERS = 4
MISSES = 3
# Numbers move between these ranges, and each file has its own trunk besides the one that calls come over.
SPANS = [(0, 100), (50, 100), (100, 100), (20, 40)]
BROKEN = [
    ('country = "SA"', 'country = "XX"'),
    ("[[number]]", "[[number"),
    ('engine = "embedded"', 'engine = "redis"'),
    ("drain_seconds = 1", "drain_seconds = 1\nworkers = 977"),
    ('trunks = ["local"', 'trunks = ["lokal"'),
]


def good(node, base, secrets, index):
    """The configuration for the reload with this index: no two in a row are alike."""
    first, count = SPANS[index % len(SPANS)]
    extra = f"""
[[trunk]]
name = "extra-{index % 3}"
peers = ["192.0.2.{index % 250 + 1}"]
country = "DE"

[store]
engine = "embedded"
"""
    text = base.replace(f"+{FIRST_NUMBER}/100", f"+{FIRST_NUMBER + first}/{count}")
    text = text.replace('trunks = ["local"]', f'trunks = ["local", "extra-{index % 3}"]')
    limits = f'limits = {{ creates_per_phone = "{5 + index % 4}/10m", pending_per_phone = {3 + index % 2} }}\n'
    text = text.replace('mode = "sandbox"\n', f'mode = "sandbox"\n{limits}ttl_seconds = {60 + index % 200}\n')
    shown = secrets if index % 2 else secrets[::-1]
    old = ", ".join(f'"{secret}"' for secret in secrets)
    new = ", ".join(f'"{secret}"' for secret in shown)
    check(old in text, "the configuration does not hold its secrets")
    return text.replace(old, new) + extra


def broken(text, index):
    """The same with a fault."""
    right, wrong = BROKEN[index % len(BROKEN)]
    check(right in text, f"nothing to break: {right!r}")
    return text.replace(right, wrong)


class Load:
    """Calls at a steady rate: each fourth one is for a verification that was begun for it."""

    def __init__(self, node, rate):
        self._node = node
        self._api = Api(node)
        self._indexes = itertools.count()
        self._misses = itertools.count(5_000_000)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._pause = (1 + MISSES) * WORKERS / rate
        self.created = {}
        self.refused = Counter()
        self.codes = Counter()
        self.retransmissions = 0
        self.placed = 0
        self.faults = []
        self.caller = Caller(node.sip, self._final)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    def _work(self):
        try:
            due = time.monotonic()
            while not self._stopping.is_set():
                self._round()
                due += self._pause
                time.sleep(max(0.0, due - time.monotonic()))
        except Exception as error:  # pylint: disable=broad-except
            self.faults.append(f"{type(error).__name__}: {error}")

    def _round(self):
        with self._lock:
            phone = mobile(next(self._indexes))
            strangers = [mobile(next(self._misses)) for _ in range(MISSES)]
        status, body = self._api.create(phone, ttl_seconds=TTL)
        if status == 201:
            with self._lock:
                self.created[body["id"]] = phone
            self._place(phone, body["dial"]["number"])
        else:
            self.refused[(status, body.get("code"))] += 1
        for stranger in strangers:
            self._place(stranger, f"+{FIRST_NUMBER + random.randrange(200)}")

    def _place(self, caller, dialled):
        with self._lock:
            self.placed += 1
        self.caller.place(caller, dialled)

    def _final(self, call):
        self.codes[call.code or "none"] += 1
        self.retransmissions += call.sent - 1

    def stop(self):
        """No more calls; those in flight go on."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(15)


def reload_again_and_again(node, load, secrets, reloads, seconds):
    """Files good and broken in turn, each waited for; how many of each."""
    base = node.config.read_text()
    counts = Counter()
    began = time.monotonic()
    for index in range(reloads):
        text = good(node, base, secrets, index)
        result = "refused" if index % 2 else "ok"
        node.reload(broken(text, index // 2) if index % 2 else text)
        counts[result] += 1
        wait_for(
            lambda name=result: Metrics.read(node).total("ringproof_config_reloads_total", result=name) >= counts[name],
            20, f"reload {index + 1} of {reloads}, {result}",
        )
        check(not load.faults, f"the generator failed: {load.faults[:1]}")
        time.sleep(max(0.0, began + (index + 1) * seconds / reloads - time.monotonic()))
    return counts


def main():
    """Load, reload, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000, help="calls a second, each fourth for a verification")
    parser.add_argument("--reloads", type=int, default=50, help="how many files are read, every second one broken")
    parser.add_argument("--seconds", type=float, default=30, help="how long the reloads take together")
    options = parser.parse_args()
    secrets = [webhook_secret(), webhook_secret()]
    with Receiver(secrets) as receiver, Node(receiver.url, secrets) as node:
        node.start()
        load = Load(node, options.rate)
        began = time.monotonic()
        counts = reload_again_and_again(node, load, secrets, options.reloads, options.seconds)
        load.stop()
        taken = time.monotonic() - began
        try:
            wait_for(lambda: load.caller.open() == 0, 40, "an answer to every call")
            wait_for(lambda: set(load.created) <= receiver.verified(), 60, "an event for every call that matched")
        finally:
            load.caller.close()
            report(node, load, receiver, counts, taken)
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


def report(node, load, receiver, counts, taken):
    """Prints the counts and fails on what was lost."""
    metrics = Metrics.read(node)
    failed = {code: count for code, count in load.codes.items() if code != 486}
    lost = set(load.created) - receiver.verified()
    twice = [key for key in load.created if len(receiver.terminal_ids(key)) > 1]
    seen = {name: int(metrics.total("ringproof_config_reloads_total", result=name)) for name in ("ok", "refused")}
    successful = int(metrics.total("ringproof_config_last_reload_successful"))
    print(f"calls                  {load.placed} in {taken:.1f} s ({load.placed / taken:.0f}/s)")
    print(f"calls for a match      {len(load.created)} (creations refused: {dict(load.refused)})")
    print(f"failed calls           {sum(failed.values())} {failed or ''}")
    print(f"retransmissions        {load.retransmissions}")
    print(f"events lost            {len(lost)}")
    print(f"verified twice         {len(twice)}")
    print(f"reloads ok/refused     {seen['ok']}/{seen['refused']}", flush=True)
    check(not load.faults, f"the generator failed: {load.faults[:1]}")
    check(load.created, "the load created nothing")
    check(not load.refused, f"creations were refused: {dict(load.refused)}")
    check(not failed and sum(load.codes.values()) == load.placed, f"calls failed: {failed}")
    check(not lost, f"{len(lost)} verified without their event, first {sorted(lost)[:1]}")
    check(not twice, f"{len(twice)} verifications with two ends, first {twice[:1]}")
    check(not receiver.rejected, f"{len(receiver.rejected)} deliveries refused, first: {receiver.rejected[:1]}")
    check(seen == dict(counts), f"reloads counted {seen}, made {dict(counts)}")
    check(successful == (0 if counts["refused"] == counts["ok"] else 1), "the gauge does not tell the last reload")


if __name__ == "__main__":
    run_main(main)
