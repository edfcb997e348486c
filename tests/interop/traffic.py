"""Traffic as an application and its users make it: verifications are begun, called, canceled, replaced and watched.

Everything that was answered is kept, for `invariants` to hold the node to it. Requests that get no answer are part of
it: some are sent again under their idempotency key, as docs/api.md says, others are let go.
"""

import http.client
import random
import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from caller import Caller
from invariants import Ledger
from ringproof import Api, mobile

TTL = 300
WORKERS = 4
REDIAL = 0.3
REDIALS = 200
# A few phones that come again and again, so that pairs are given more than once.
REGULARS = 6
FIRST_REGULAR = 9_000_000
LOST = (OSError, http.client.HTTPException)

# What becomes of a verification, and how often.
FATES = {"call": 80, "cancel": 8, "race": 4, "replace": 4, "leave": 4}


@dataclass
class Created:
    """A verification whose creation was answered 201."""

    body: dict
    expires: float
    fate: str = "call"
    calls: list = field(default_factory=list)

    @property
    def identifier(self):
        """Its id."""
        return self.body["id"]

    @property
    def phone(self):
        """The phone to be proven."""
        return self.body["phone"]

    @property
    def dial(self):
        """The number to call."""
        return self.body["dial"]["number"]

    @property
    def promised(self):
        """Whether a call that names this pair was answered 486 while it was pending for sure."""
        return self.fate == "call" and any(call.code == 486 and call.answered < self.expires for call in self.calls)


class Traffic:
    """Creations on a few threads, paced, each followed by what its user or application does with it."""

    def __init__(self, node, rate, ledger=None, ttl=TTL, fates=None, regulars=0.3, patience=5):
        self._pause = WORKERS / rate
        self._ttl = ttl
        self._fates = fates or FATES
        self._regulars = regulars
        self._api = Api(node, timeout=patience)
        self._watching = Api(node, timeout=10)
        self._index = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._finishing = threading.Event()
        self.up = threading.Event()
        self.ledger = ledger or Ledger()
        self.created = []
        self.canceled = []
        # Phones whose creation was refused with "nothing was done", and those of one creation under one key.
        self.undone = []
        self.once = []
        self.unanswered = 0
        self.refused = Counter()
        self.codes = Counter()
        self.followed = []
        self.caught_up = 0
        self.faults = []
        self.caller = Caller(node.sip, self._final)
        works = [self._create] * WORKERS + [self._read, self._wait, self._follow]
        self._threads = [threading.Thread(target=self._work, args=(work,), daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def _work(self, work):
        over = self._stopping if work == self._create else self._finishing
        try:
            while not over.is_set():
                if not self.up.is_set():
                    # What the dead process left open is not to be taken for its successor's.
                    self._api.disconnect()
                    self._watching.disconnect()
                    self.up.wait(0.05)
                    continue
                pause = work()
                over.wait(pause * random.uniform(0.5, 1.5))
        except Exception as error:  # pylint: disable=broad-except
            self.faults.append(f"{type(error).__name__}: {error}")

    def _create(self):
        fate = random.choices(list(self._fates), list(self._fates.values()))[0]
        created = self._begin(self._phone(fate), fate)
        if created is None:
            return self._pause
        if fate == "replace":
            # The first one ends in the commit of the second, so its fate is known when that is answered.
            second = self._begin(created.phone, "call", replaces=created.identifier)
            if second is None:
                return self._pause
            self.canceled.append(created.identifier)
            created = second
        if fate == "cancel":
            self._cancel(created)
        if fate != "leave":
            self._dial(created)
        if fate == "race":
            self._cancel(created)
        return self._pause

    def _phone(self, fate):
        with self._lock:
            self._index += 1
            index = self._index
        # What is replaced must not have been verified by a late call of the same phone.
        if fate not in ("leave", "replace") and random.random() < self._regulars:
            return mobile(FIRST_REGULAR + random.randrange(REGULARS))
        return mobile(index)

    def _begin(self, phone, fate, **fields):
        wish = {"ttl_seconds": self._ttl, "reference": secrets.token_hex(8), "metadata": {"fate": fate}, **fields}
        again = random.random() < 0.5
        headers = {"Idempotency-Key": secrets.token_hex(16)} if again else {}
        asked = time.monotonic()
        status, body, refusals = self._ask(phone, wish, headers)
        unique = phone < mobile(FIRST_REGULAR) and "replaces" not in fields
        if status != 201:
            if unique and refusals and set(refusals) == {"store_unavailable"} and status != 0:
                self.undone.append(phone)
            return None
        if unique and fate != "replace":
            self.once.append(phone)
        # The window began after the first request left, so this deadline is never too late.
        created = Created(body, asked + self._ttl - 1, fate)
        with self._lock:
            self.created.append(created)
        return created

    def _ask(self, phone, wish, headers):
        """Sends a creation, again and again where it has a key. Status 0: its fate is not known."""
        refusals = []
        unknown = False
        while True:
            try:
                status, body = self._api.request("POST", "/v1/verifications", {"phone": phone, **wish}, headers)
            except LOST:
                self.unanswered += 1
                status, body, unknown = 0, None, True
            if status == 201:
                return status, body, refusals
            if status:
                self.refused[status, body["code"]] += 1
                refusals.append(body["code"])
            is_final = status in (422, 429) or not headers or self._stopping.is_set()
            if is_final:
                return 0 if unknown else status, body, refusals
            self._stopping.wait(0.3)
            while not self.up.is_set() and not self._stopping.is_set():
                self._api.disconnect()
                self.up.wait(0.05)

    def _cancel(self, created):
        began = time.monotonic()
        try:
            status, body = self._api.request("POST", f"/v1/verifications/{created.identifier}/cancel")
        except LOST:
            self.unanswered += 1
            return
        if status == 200:
            self.canceled.append(created.identifier)
            self.ledger.saw(created.identifier, body["status"], began, "cancel")
        elif status == 409:
            self.ledger.saw(created.identifier, body["verification_status"], began, "cancel refused")
        else:
            self.refused[status, body["code"]] += 1

    def _dial(self, created):
        created.calls.append(self.caller.place(created.phone, created.dial, created))

    def _final(self, call):
        self.codes[call.code or "none"] += 1
        # A user whose call was not refused with 486 dials again, as people do.
        if call.code != 486 and len(call.context.calls) < REDIALS and not self._finishing.is_set():
            timer = threading.Timer(REDIAL, self._dial, [call.context])
            timer.daemon = True
            timer.start()

    def _some(self):
        """A verification, mostly a new one."""
        newest = len(self.created)
        if not newest:
            return None
        return self.created[max(0, newest - 1 - int(random.expovariate(1 / 30)))]

    def _read(self):
        return self._look({}, 0.02)

    def _wait(self):
        """A long poll, of those that are waiting for their call too."""
        return self._look({"Prefer": "wait=2"}, 0.02)

    def _look(self, headers, pause):
        created = self._some()
        if created is None:
            return pause
        began = time.monotonic()
        path = f"/v1/verifications/{created.identifier}"
        try:
            status, body = self._watching.request("GET", path, None, headers)
        except LOST:
            return pause
        if status == 200:
            self.ledger.saw(created.identifier, body["status"], began, "read")
        elif status == 404:
            self.ledger.changed.append(f"{created.identifier} was answered 201 and then 404")
        return pause

    def _follow(self):
        """The feed, from the last event that was seen."""
        after = f"&after={self.followed[-1]}" if self.followed else ""
        try:
            status, body = self._watching.request("GET", f"/v1/events?limit=100{after}")
        except LOST:
            return 0.1
        if status == 200:
            self.followed += [event["id"] for event in body["data"]]
            if not body["has_more"]:
                self.caught_up += 1
                return 0.1
        elif status == 422:
            self.ledger.changed.append(f"{self.followed[-1]} was in the feed and is not known any more")
        return 0.0

    def run(self, duration):
        """Lets the traffic flow for so long."""
        self.up.set()
        time.sleep(duration)

    def stop(self):
        """No more creations; calls in flight, reads and the feed go on."""
        self._stopping.set()
        for thread in self._threads[:WORKERS]:
            thread.join(30)

    def finish(self):
        """Ends everything."""
        self._stopping.set()
        self._finishing.set()
        # Whoever waits for the node to come up hears that it is over.
        self.up.set()
        for thread in self._threads:
            thread.join(30)
        self.caller.close()

    def promised(self):
        """Ids of the verifications that a 486 has promised."""
        return {created.identifier for created in self.created if created.promised}

    def settled(self):
        """Whether every call was answered 486, or was given up for good."""
        def over(created):
            calls = created.calls
            return not calls or any(call.code == 486 for call in calls) or (len(calls) >= REDIALS and calls[-1].over)

        return all(over(created) for created in self.created)

    def answers(self):
        """What the calls and creations were answered, for people."""
        calls = ", ".join(f"{count} x {code}" for code, count in sorted(self.codes.items(), key=str))
        refused = ", ".join(f"{count} x {code}" for (_, code), count in sorted(self.refused.items(), key=str))
        return f"calls {calls or 'none'}; creates cut off {self.unanswered}, refused {refused or 'none'}"
