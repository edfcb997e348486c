#!/usr/bin/env python3
"""A receiver that was away comes back: what it has missed comes slowly at first, and what happens now comes first.

A receiver says 410, so its endpoint is disabled. Deliveries that wait for it are put into the database while the node
is down. Once it is enabled, all of them come, with no second of it a flood, while phones are verified whose events do
not wait for the end of the backlog. Prints how many came in each second.
"""

import argparse
import sqlite3
import threading
import time
from collections import Counter

from caller import Caller
from ringproof import Api, Node, check, mobile, run_main, wait_for, webhook_secret
from webhooks import Receiver

VERIFIED = 'events = ["verification.verified"]'
LIMITS = "limits = { creates_per_phone = 0, pending_per_phone = 100 }\n"
# Deliveries in the first second; each one after it has at most twice as many.
LEAST = 16
# The receiver's clock of seconds and the node's begin apart, and the machine may be busy with something else.
SECONDS_APART = 3
EVERY = 0.1

# Copies of an event that is parked, each with an id of its own. Digits alone are a ULID too.
EVENTS = """
WITH RECURSIVE place(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM place WHERE n < :count)
INSERT INTO events (id, application, verification, type, at, body)
SELECT 'evt_' || printf('%026d', n), application, verification, type, at, body
FROM place JOIN (SELECT * FROM events WHERE type = 'verification.verified' LIMIT 1)
"""
DELIVERIES = """
INSERT INTO deliveries (application, event, endpoint, state, planned_from, next_at)
SELECT kept.application, events.seq, kept.endpoint, 'parked', kept.planned_from, kept.next_at
FROM events JOIN (SELECT * FROM deliveries WHERE state = 'parked' LIMIT 1) AS kept
WHERE events.id LIKE 'evt_000000%' ORDER BY events.seq
"""


class Away(Receiver):
    """A receiver that is gone until it is `back`."""

    def __init__(self, secrets):
        super().__init__(secrets)
        self.back = False
        # By webhook-id, when it came first and how often.
        self.came = {}
        self.times = Counter()

    def take(self, headers, body):
        if not self.back:
            return 410
        status = super().take(headers, body)
        if status < 300:
            self.came.setdefault(headers["webhook-id"], time.monotonic())
            self.times[headers["webhook-id"]] += 1
        return status


class Fresh:
    """Phones that are verified one after the other until it is closed, and when each call was answered."""

    def __init__(self, node, first):
        self._api = Api(node)
        self._caller = Caller(node.sip)
        self._index = first
        self._over = threading.Event()
        self.calls = {}
        self.faults = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._over.wait(EVERY):
                phone, self._index = mobile(self._index), self._index + 1
                status, created = self._api.create(phone)
                check(status == 201, f"create answered {status}: {created}")
                self.calls[created["id"]] = self._caller.place(phone, created["dial"]["number"])
        except Exception as error:  # pylint: disable=broad-except
            self.faults.append(f"{type(error).__name__}: {error}")

    def finish(self):
        """No more of them; every call has its answer."""
        self._over.set()
        self._thread.join(20)
        wait_for(lambda: not self._caller.open(), 35, "the answers to all calls")
        self._caller.close()
        check(not self.faults, f"the fresh calls met {self.faults}")
        codes = {call.code for call in self.calls.values()}
        check(codes == {486}, f"calls were answered {codes}")


def endpoint(api):
    """The one endpoint, as the application sees it."""
    status, body = api.request("GET", "/v1/endpoints")
    check(status == 200, f"GET /v1/endpoints answered {status}")
    return body["data"][0]


def park(node, api, count):
    """Has the endpoint disabled, and so many deliveries wait for it."""
    status, created = api.create(mobile(1))
    check(status == 201, f"create answered {status}: {created}")
    with Caller(node.sip) as caller:
        call = caller.place(mobile(1), created["dial"]["number"])
        wait_for(lambda: call.over, 35, "the call's final response")
    check(call.code == 486, f"the call was answered {call.code}")
    wait_for(lambda: endpoint(api)["backlog"] == 1 and endpoint(api)["state"] == "disabled", 20, "a 410")
    api.disconnect()
    check(node.stop() == 0, "the node did not stop in order")
    with sqlite3.connect(node.data_dir / "ringproof.db") as database:
        for statement, values in ((EVENTS, {"count": count}), (DELIVERIES, {})):
            database.execute(statement, values)
            made = database.execute("SELECT changes()").fetchone()[0]
            check(made == count, f"{made} rows were made, not {count}")
    database.close()
    node.start(120)
    check(endpoint(api)["backlog"] == count + 1, f"the backlog is {endpoint(api)['backlog']}")


def seconds_of(times):
    """How many came in each second since the first."""
    counts = Counter(int(when - min(times)) for when in times)
    return [counts[second] for second in range(max(counts) + 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deliveries", type=int, default=100_000, help="deliveries that the receiver has missed")
    parser.add_argument("--seconds", type=float, default=120, help="most seconds that all of them may take")
    options = parser.parse_args()
    secret = webhook_secret()
    with Away([secret]) as receiver:
        node = Node(receiver.url, [secret], webhook_lines=VERIFIED, application=LIMITS)
        with node:
            run(node, receiver, options)


def run(node, receiver, options):
    """Parks, enables, watches, compares."""
    node.start()
    api = Api(node)
    park(node, api, options.deliveries)
    receiver.back = True
    fresh = Fresh(node, 1_000)
    status, body = api.request("POST", f"/v1/endpoints/{endpoint(api)['id']}/enable")
    check(status in (200, 202), f"enable answered {status}: {body}")

    def missed():
        return [when for name, when in list(receiver.came.items()) if name.startswith("evt_000000")]

    wait_for(lambda: len(receiver.came) > options.deliveries and len(missed()) == options.deliveries,
             options.seconds, "all that was missed")
    end = max(missed())
    fresh.finish()
    wait_for(lambda: set(fresh.calls) <= receiver.verified(), 35, "the events of the fresh calls")
    check(not receiver.rejected, f"not genuine: {receiver.rejected[:3]}")
    repeats = sum(receiver.times.values()) - len(receiver.times)
    check(repeats == 0, f"{repeats} deliveries came twice, and nothing had failed")

    counts = seconds_of(missed())
    print(f"{options.deliveries} missed came in {len(counts)} s, by the second: {' '.join(map(str, counts))}")
    for second in range(len(counts)):
        most = LEAST * 2 ** (second + SECONDS_APART)
        check(sum(counts[:second + 1]) < most, f"{sum(counts[:second + 1])} came within {second + 1} s, not {most}")

    arrivals = {}
    for identifier in fresh.calls:
        (name,) = receiver.events[identifier]["verification.verified"]
        arrivals[identifier] = receiver.came[name]
    took = sorted(arrivals[one] - call.answered for one, call in fresh.calls.items())
    print(f"{len(took)} fresh events beside it, after their answers: p50 {1000 * took[len(took) // 2]:.0f} ms, "
          f"p99 {1000 * took[int(len(took) * 0.99)]:.0f} ms, at most {1000 * took[-1]:.0f} ms")
    begun = end - len(counts) / 2
    early = [one for one, call in fresh.calls.items() if call.answered < begun]
    check(early, "no fresh event happened while the backlog was sent")
    late = [one for one in early if arrivals[one] > end]
    check(not late, f"{len(late)} of {len(early)} fresh events waited for the end of the backlog")


if __name__ == "__main__":
    run_main(main)
