"""Clocks that step by hours. Windows run on the clock since boot, which does not."""

import base64
import hmac
import time
from datetime import datetime, timezone

from standardwebhooks import Webhook, WebhookVerificationError

from invariants import Witness
from ringproof import check, wait_for

from .bench import Bench
from .preload import Preload

WINDOW = 60
# An end is noticed within about a second; the rest is for a busy machine.
NOTICED = 5
HOUR = 3600


class Ageless(Webhook):
    """Checks the signature, whatever its time: the sender's clock is wrong here, on purpose."""

    def verify(self, data, headers, *, json_parse=True):
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), tz=timezone.utc)
        wanted = self.sign(headers["webhook-id"], at, data.decode()).split(",")[1]
        found = [one.removeprefix("v1,") for one in headers["webhook-signature"].split()]
        if not any(hmac.compare_digest(base64.b64decode(wanted), base64.b64decode(one)) for one in found):
            raise WebhookVerificationError("No matching signature found")


class Patient(Witness):
    """A witness that minds no wrong clock."""

    def __init__(self, secrets, ledger):
        super().__init__(secrets, ledger)
        self._webhooks = [Ageless(secret) for secret in secrets]


class Clock:
    """The clocks of one node, to be stepped while it runs."""

    def __init__(self):
        self._preload = None

    def under(self, node):
        """Has the node run on them."""
        self._preload = Preload(node)

    def step(self, hours):
        """The time of day is off by so many hours from now on."""
        self._preload.step(hours * HOUR)

    def leap(self, hours):
        """Time of day and monotonic clock are ahead by so many hours from now on."""
        self._preload.step(hours * HOUR, hours * HOUR)

    def check(self):
        """The node must have read its clocks through the library, else nothing was tested."""
        check(self._preload.clock_reads() > 1000, f"the node read {self._preload.clock_reads()} times")


class Windows:
    """Verifications that nobody calls, and when their windows began and end on an honest clock."""

    def __init__(self, bench, count, first):
        self._bench = bench
        self.began = time.monotonic()
        self.all = []
        for index in range(count):
            status, body = bench.api.create(f"+96655{first + index:07d}", ttl_seconds=WINDOW)
            check(status == 201, f"a creation was answered {status} {body}")
            self.all.append(body)
        self.last = time.monotonic()

    def states(self):
        """How many are in which state."""
        found = {}
        for one in self.all:
            status, body = self._bench.api.verification(one["id"])
            check(status == 200, f"{one['id']} was answered {status}")
            found[body["status"]] = found.get(body["status"], 0) + 1
        return found

    def pending(self):
        """All of them are pending."""
        states = self.states()
        check(states == {"pending": len(self.all)}, f"windows that are open are {states}")

    def call(self, index):
        """Calls for one of them; its status after the answer."""
        one = self.all[index]
        wish = {"from": one["phone"], "to": one["dial"]["number"]}
        status, body = self._bench.api.request("POST", "/v1/test/calls", wish)
        check(status == 200, f"a test call was answered {status} {body}")
        return body["outcome"]


def clock_steps(_options):
    """The time of day steps by three hours forward and back again and again; the monotonic clock does not."""
    clock = Clock()
    with Bench(rate=30, receiver=Patient, prepare=clock.under) as bench:
        windows = Windows(bench, 20, 0)
        bench.traffic.up.set()
        steps = 0
        while time.monotonic() < windows.began + WINDOW - 4:
            clock.step((3, 0, -3, 0)[steps % 4])
            steps += 1
            time.sleep(2.5)
            windows.pending()
        outcome = windows.call(0)
        check(outcome == "matched", f"a call within the window was {outcome}")
        clock.step(-3)
        wait_until(windows.last + WINDOW + NOTICED)
        states = windows.states()
        check(states == {"verified": 1, "expired": 19}, f"after {WINDOW + NOTICED} s the windows are {states}")
        outcome = windows.call(1)
        check(outcome in ("late", "unmatched"), f"a call after the window was {outcome}")
        clock.step(0)
        # After the steps, so that nothing waits for an hour that has been.
        clock.check()
        notes = f"windows of {WINDOW} s were open at {WINDOW - 4} s and over at {WINDOW + NOTICED} s"
        return bench.finish(f"{steps} steps; {notes}", None)


def clock_leaps(_options):
    """Time of day and monotonic clock leap forward by an hour, several times: every timer is due at once."""
    clock = Clock()
    with Bench(rate=30, receiver=Patient, prepare=clock.under) as bench:
        windows = Windows(bench, 10, 0)
        for hours in (1, 2, 5):
            bench.traffic.run(1.5)
            clock.leap(hours)
            bench.traffic.run(1.5)
            windows.pending()
        clock.check()
        return bench.finish("leaps to 1, 2 and 5 hours; open windows stayed open", None)


def clock_stepped_at_start(_options):
    """The clock steps while the node is down: forward ends windows, back makes none longer than it was."""
    clock = Clock()
    with Bench(rate=30, receiver=Patient, prepare=clock.under) as bench:
        bench.traffic.run(1)
        forward = Windows(bench, 10, 0)
        bench.traffic.run(0.5)
        bench.kill()
        clock.step(2)
        bench.start()
        wait_for(lambda: forward.states() == {"expired": 10}, NOTICED, "the end of windows that a step forward ended")
        bench.traffic.run(1)
        bench.kill()
        clock.step(0)
        bench.start()
        back = Windows(bench, 20, 1000)
        bench.traffic.run(0.5)
        bench.kill()
        clock.step(-2)
        bench.start()
        started = time.monotonic()
        bench.traffic.run(1)
        back.pending()
        outcome = back.call(0)
        check(outcome == "matched", f"a call within the window was {outcome}")
        wait_until(started + WINDOW + NOTICED)
        states = back.states()
        check(states == {"verified": 1, "expired": 19}, f"{WINDOW + NOTICED} s after the start they are {states}")
        bench.traffic.stop()
        late = sum(1 for one in bench.traffic.followed if one not in bench.well.taken)
        bench.kill()
        # Past every time that there has been, so that nothing waits any more.
        clock.step(3)
        bench.start()
        clock.check()
        notes = f"2 h forward: all windows ended; 2 h back: none was longer than its {WINDOW} s"
        return bench.finish(f"{notes}, {late} events waited until the clock came to their time", None)


def wait_until(moment):
    """Sleeps until this moment of the honest clock."""
    time.sleep(max(0, moment - time.monotonic()))


FAULTS = (clock_steps, clock_leaps, clock_stepped_at_start)
