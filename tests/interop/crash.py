#!/usr/bin/env python3
"""kill -9 under load: what the process has promised is there after each restart.

A generator keeps creating verifications and calling them, each call sent again until it is answered. The process is
killed at random moments and started again on the same data and ports; in the end it stays up. Then: each creation that
was answered 201 is readable; each call that was answered 486 has verified its verification, and the event has come; no
verification has two different events for its end.
"""

import argparse
import http.client
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from caller import Caller
from ringproof import Api, Node, check, mobile, run_main, wait_for, webhook_secret
from webhooks import Receiver

TTL = 300
WORKERS = 6
REDIALS = 20


@dataclass
class Created:
    """A verification whose creation was answered 201."""

    identifier: str
    phone: str
    dial: str
    expires: float
    calls: list = field(default_factory=list)

    @property
    def promised(self):
        """Whether a call that names this pair was answered 486 while the window was surely open."""
        return any(call.code == 486 and call.answered < self.expires for call in self.calls)


class Load:
    """Creations on a few threads, paced, each followed by its call."""

    def __init__(self, node, rate):
        self._node = node
        self._pause = WORKERS / rate
        self._api = Api(node, timeout=5)
        self._index = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.up = threading.Event()
        self.created = []
        self.unanswered = 0
        self.refused = Counter()
        self.codes = Counter()
        self.faults = []
        self.caller = Caller(node.sip, self._final)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    def _work(self):
        try:
            while not self._stopping.is_set():
                if not self.up.is_set():
                    # What the dead process left open is not to be taken for its successor's.
                    self._api.disconnect()
                    self.up.wait(0.1)
                    continue
                self._one()
                self._stopping.wait(self._pause * random.uniform(0.5, 1.5))
        except Exception as error:  # pylint: disable=broad-except
            self.faults.append(f"{type(error).__name__}: {error}")

    def _one(self):
        with self._lock:
            self._index += 1
            phone = mobile(self._index)
        asked = time.monotonic()
        try:
            status, body = self._api.create(phone, ttl_seconds=TTL)
        except (OSError, http.client.HTTPException):
            self.unanswered += 1
            return
        if status != 201:
            self.refused[status] += 1
            return
        # The window began after the request left, so this deadline is never too late.
        created = Created(body["id"], phone, body["dial"]["number"], asked + TTL - 1)
        with self._lock:
            self.created.append(created)
        self._dial(created)

    def _dial(self, created):
        created.calls.append(self.caller.place(created.phone, created.dial, created))

    def _final(self, call):
        self.codes[call.code or "none"] += 1
        # A user whose call was not refused with 486 dials again, as people do.
        if call.code != 486 and len(call.context.calls) < REDIALS:
            timer = threading.Timer(0.3, self._dial, [call.context])
            timer.daemon = True
            timer.start()

    def stop(self):
        """No more creations; calls in flight go on."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(15)

    def promised(self):
        """Ids of the verifications that a 486 has promised."""
        return {created.identifier for created in self.created if created.promised}

    def settled(self):
        """Whether every verification's call was answered 486, or was given up."""
        return all(
            created.promised or (len(created.calls) >= REDIALS and created.calls[-1].over) for created in self.created
        )


def kill_again_and_again(node, load, kills):
    """Kills and restarts the process, and leaves it up."""
    slowest = 0.0
    for _ in range(kills):
        load.up.set()
        time.sleep(random.uniform(0.030, 0.400))
        node.kill()
        load.up.clear()
        began = time.monotonic()
        node.start()
        slowest = max(slowest, time.monotonic() - began)
        check(not load.faults, f"the generator failed: {load.faults[:1]}")
    return slowest


def read_all(api, created):
    """Status code and verification of each, by id."""
    with ThreadPoolExecutor(8) as pool:
        identifiers = [one.identifier for one in created]
        return dict(zip(identifiers, pool.map(api.verification, identifiers)))


def main():
    """Kill, count, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how often the process is killed")
    parser.add_argument("--rate", type=float, default=400, help="creations a second while the process is up")
    parser.add_argument("--seed", type=int, default=None, help="seed of the moments of the kills")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    random.seed(seed)
    print(f"seed {seed}")
    secret = webhook_secret()
    with Receiver([secret]) as receiver, Node(receiver.url, [secret]) as node:
        node.start()
        load = Load(node, options.rate)
        began = time.monotonic()
        slowest = kill_again_and_again(node, load, options.kills)
        load.stop()
        taken = time.monotonic() - began
        print(f"{options.kills} kills in {taken:.1f} s, slowest start {slowest * 1000:.0f} ms", flush=True)
        try:
            wait_for(load.settled, 60, "an answer to every call")
            # A delivery that was being tried when the process died comes back by its lease or its schedule.
            wait_for(lambda: load.promised() <= receiver.verified(), 90, "an event for every call answered 486")
        finally:
            load.caller.close()
            report(node, load, receiver, options.kills)
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


def report(node, load, receiver, kills):
    """Prints the counts and fails on what was lost or told twice."""
    promised = load.promised()
    found = read_all(Api(node), load.created)
    lost_creates = [key for key, (status, _) in found.items() if status != 200]
    states = Counter(body["status"] if status == 200 else f"http {status}" for status, body in found.values())
    not_verified = [key for key in promised if found[key][0] != 200 or found[key][1]["status"] != "verified"]
    no_event = promised - receiver.verified()
    told_only = [key for key in receiver.verified() & set(found) if found[key][1].get("status") != "verified"]
    two_events = [key for key in list(receiver.events) if len(receiver.terminal_ids(key)) > 1]
    answers = ", ".join(f"{count} x {code}" for code, count in sorted(load.codes.items(), key=str))
    print(f"kills                                 {kills}")
    other = f"{load.unanswered} cut off, refused {dict(load.refused)}"
    print(f"creates answered 201                  {len(load.created)} ({other})")
    print(f"calls answered                        {answers}")
    print(f"verified                              {states['verified']} (all states {dict(states)})")
    print(f"lost creates                          {len(lost_creates)}")
    print(f"lost verifications                    {len(not_verified)}")
    print(f"verified without their event          {len(no_event)}")
    print(f"with two different events              {len(two_events)}")
    print(f"repeated deliveries with the same id  {receiver.repeated()}", flush=True)
    check(not load.faults, f"the generator failed: {load.faults[:1]}")
    check(load.created and promised, "the load created or verified nothing")
    check(not receiver.rejected, f"{len(receiver.rejected)} deliveries refused, first: {receiver.rejected[:1]}")
    check(not lost_creates, f"{len(lost_creates)} creations answered 201 are gone, first {lost_creates[:1]}")
    check(not not_verified, f"{len(not_verified)} calls answered 486 did not verify, first {not_verified[:1]}")
    check(not no_event, f"{len(no_event)} verified without their event, first {sorted(no_event)[:1]}")
    check(not told_only, f"{len(told_only)} events for what does not read as verified, first {told_only[:1]}")
    check(not two_events, f"{len(two_events)} verifications with two different events, first {two_events[:1]}")
    unexpected = {code: count for code, count in load.refused.items() if code not in (429, 503)}
    check(not unexpected, f"creations refused with {unexpected}")


if __name__ == "__main__":
    run_main(main)
