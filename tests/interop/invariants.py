"""What must hold whatever happens to a node: both sides' records, and their comparison.

While a test runs, the `Ledger` notes each sight of a verification that has ended, and a `Witness` is a receiver that
notes each event that came. In the end `examine` reads everything over the API (the verifications, the whole feed) and
compares it with what the test was promised and what it saw. It decides nothing by time: a promise is broken by what
was answered, or it is not.
"""

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from ringproof import check
from webhooks import TERMINAL, Receiver

ENDED = {kind.removeprefix("verification.") for kind in TERMINAL}
PAGE = 100
# Verifications that are read one by one; of more than these a sample, and all of them as pages of the list.
READ_ALONE = 2000
# Lines of the log that are worth a report whatever the fault was.
WORTH_A_REPORT = re.compile(
    r"panicked at|\"panicked\":true|ended by a panic|was not pending in the store|a step was undone"
    r"|contradicts the database|a batch failed"
)


def digest(value):
    """A short fingerprint of a JSON value, whatever the order of its names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:16]


def told(event):
    """The fingerprint of what an event tells, the same in a webhook and in the feed."""
    return digest({name: event[name] for name in ("type", "timestamp", "data")})


def seconds(timestamp):
    """An RFC 3339 time as seconds since 1970."""
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


class Ledger:
    """Every sight of a verification's status, as far as it is needed to tell that an end was not one."""

    def __init__(self):
        self._lock = threading.Lock()
        # id -> status, and when it was surely known
        self._ends = {}
        self.changed = []
        self.sights = 0

    def saw(self, identifier, status, began, where):
        """Notes a status that was answered to a request which began at `began`."""
        now = time.monotonic()
        with self._lock:
            self.sights += 1
            known = self._ends.get(identifier)
            if known and known[0] != status and began > known[1]:
                self.changed.append(f"{identifier} was {known[0]} ({known[2]}) and then {status} ({where})")
            elif known and known[0] != status and status in ENDED:
                self.changed.append(f"{identifier} was {known[0]} ({known[2]}) and also {status} ({where})")
            elif not known and status in ENDED:
                self._ends[identifier] = (status, now, where)

    def ends(self):
        """The ends that were seen: status by id."""
        with self._lock:
            return {identifier: end[0] for identifier, end in self._ends.items()}


class Witness(Receiver):
    """A receiver that knows of each webhook-id what it told, and whether it ever told something else."""

    def __init__(self, secrets, ledger=None):
        self._ledger = ledger or Ledger()
        # webhook-id -> fingerprint of the body, fingerprint of the event, verification, type
        self.ids = {}
        self.taken = Counter()
        self.differing = []
        self.latencies = []
        super().__init__(secrets)

    def take(self, headers, body):
        began = time.monotonic()
        status = super().take(headers, body)
        if status != 400:
            self.note(headers["webhook-id"], body, began)
            if status < 300:
                self.taken[headers["webhook-id"]] += 1
        return status

    def note(self, identifier, body, began):
        """Notes what came under this webhook-id, taken or not."""
        fingerprint = hashlib.sha256(body).digest()[:16]
        known = self.ids.get(identifier)
        if known:
            if known[0] != fingerprint:
                self.differing.append(identifier)
            return
        event = json.loads(body)
        verification = event["data"].get("id")
        self.ids[identifier] = (fingerprint, told(event), verification, event["type"])
        self.latencies.append(time.time() - seconds(event["timestamp"]))
        if event["type"] in TERMINAL:
            self._ledger.saw(verification, event["data"]["status"], began, f"webhook {identifier}")

    def repeats(self):
        """Deliveries beyond the first of each webhook-id that was taken."""
        return sum(self.taken.values()) - len(self.taken)

    def slowest(self, part):
        """This percentile of the times from event to first try, in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


@dataclass
class Findings:
    """What was counted, and what broke a promise: a line each."""

    counts: dict = field(default_factory=dict)
    broken: list = field(default_factory=list)

    def none(self, name, culprits):
        """There must be none of these; says how many there are, and which is the first."""
        culprits = list(culprits)
        self.counts[name] = len(culprits)
        if culprits:
            self.broken.append(f"{len(culprits)} {name}, first: {culprits[0]}")

    def must(self, holds, message):
        """This must hold."""
        if not holds:
            self.broken.append(message)

    # What is told also where there is none of it.
    ALWAYS = (
        "created", "calls refused with 486", "verified", "events", "lost creates", "lost verifications",
        "changed outcomes", "duplicates with the same id", "duplicates with different ids",
    )

    def line(self):
        """The counts on one line."""
        return ", ".join(f"{n} {name}" for name, n in self.counts.items() if n or name in self.ALWAYS)


def pages(api, path):
    """All entries of a list, page by page."""
    entries, after = [], ""
    while True:
        status, body = api.request("GET", f"{path}?limit={PAGE}{after}")
        check(status == 200, f"GET {path} answered {status} {body}")
        entries += body["data"]
        if not body["has_more"]:
            return entries
        after = f"&after={body['next_cursor']}"


@dataclass
class Feed:
    """The events of the application in the order of their commit, as far as they are compared."""

    order: list = field(default_factory=list)
    told: dict = field(default_factory=dict)
    kinds: dict = field(default_factory=dict)
    # verification -> its events: (id, type, sequence)
    of: dict = field(default_factory=lambda: defaultdict(list))
    phones: Counter = field(default_factory=Counter)
    # (phone, number) -> the begins and ends of its verifications: (verification, type, when, reasons)
    pairs: dict = field(default_factory=lambda: defaultdict(list))

    def add(self, event):
        """Takes the next event."""
        identifier, kind, data = event["id"], event["type"], event["data"]
        self.order.append(identifier)
        self.told[identifier] = told(event)
        self.kinds[identifier] = kind
        # Some are about no verification.
        if "sequence" not in data:
            return
        self.of[data["id"]].append((identifier, kind, data["sequence"]))
        if kind == "verification.created":
            self.phones[data["phone"]] += 1
        if kind == "verification.created" or kind in TERMINAL:
            pair = (data["phone"], data["dial"]["number"])
            self.pairs[pair].append((data["id"], kind, seconds(event["timestamp"]), data["reasons"]))

    def ends_of(self, verification):
        """Ids and types of the terminal events of one verification."""
        return [(identifier, kind) for identifier, kind, _ in self.of[verification] if kind in TERMINAL]


def read_feed(api):
    """The whole feed."""
    feed = Feed()
    for event in pages(api, "/v1/events"):
        feed.add(event)
    return feed


def read_verifications(api, identifiers):
    """Every verification that can be read, by id: from the list, and one by one as far as that is bearable."""
    listed = {one["id"]: one for one in pages(api, "/v1/verifications")}
    alone = [one for one in identifiers if one not in listed]
    others = [one for one in identifiers if one in listed]
    alone += others if len(others) <= READ_ALONE else random.sample(others, READ_ALONE)
    with ThreadPoolExecutor(4) as pool:
        answers = dict(zip(alone, pool.map(api.verification, alone)))
    for identifier, (status, body) in answers.items():
        if status == 200:
            listed[identifier] = body
        else:
            listed.pop(identifier, None)
    return listed


def examine(node, api, traffic, witnesses, cool_down=None, hears_all=()):
    """Compares what was promised and seen with what the node says now.

    `witnesses` are the receivers; those in `hears_all` subscribe everything, so each event of the feed must have come
    to them. `cool_down` is checked where the clock did not step.
    """
    findings = Findings()
    feed = read_feed(api)
    found = read_verifications(api, [one.identifier for one in traffic.created])
    check_creations(findings, traffic, found, feed)
    check_outcomes(findings, traffic, found, witnesses)
    check_events(findings, found, feed, witnesses)
    check_feed(findings, traffic, feed, witnesses, hears_all)
    check_pairs(findings, feed, cool_down)
    check_log(findings, node)
    findings.must(not traffic.faults, f"the traffic failed: {traffic.faults[:1]}")
    findings.must(traffic.created and traffic.promised(), "the traffic created or verified nothing")
    return findings


def check_creations(findings, traffic, found, feed):
    """Each 201 is readable and as it was answered; what was refused as undone was never there."""
    findings.counts["created"] = len(traffic.created)
    same = ("phone", "dial", "reference", "metadata", "created_at", "expires_at", "minimum_assurance", "livemode")
    findings.none("lost creates", (one.identifier for one in traffic.created if one.identifier not in found))
    findings.none("creates that read otherwise", (
        one.identifier for one in traffic.created
        if one.identifier in found and any(found[one.identifier][name] != one.body[name] for name in same)
    ))
    findings.none("creates refused as undone and there", (phone for phone in traffic.undone if feed.phones[phone]))
    findings.none("creates done twice under one key", (phone for phone in traffic.once if feed.phones[phone] > 1))


def check_outcomes(findings, traffic, found, witnesses):
    """Each call answered 486 in the window of what was pending verified it; no end was followed by another."""
    promised = traffic.promised()
    states = {identifier: one["status"] for identifier, one in found.items()}
    findings.counts["calls refused with 486"] = traffic.codes[486]
    findings.counts["verified"] = sum(1 for status in states.values() if status == "verified")
    findings.none("lost verifications", (one for one in promised if states.get(one) != "verified"))
    findings.none("cancels undone", (one for one in traffic.canceled if states.get(one) != "canceled"))
    ends = traffic.ledger.ends()
    other = [f"{one} was {end} and is {states[one]}" for one, end in ends.items() if states.get(one, end) != end]
    findings.none("changed outcomes", [*traffic.ledger.changed, *other])
    findings.none("bodies that differ under one webhook-id", (one for seen in witnesses for one in seen.differing))
    findings.none("deliveries refused by a receiver", (one for seen in witnesses for one in seen.rejected))


def check_events(findings, found, feed, witnesses):
    """Each verification has one end or none in feed and webhooks alike, and its events are numbered without a gap."""
    delivered = defaultdict(set)
    for seen in witnesses:
        for identifier, (_, _, verification, kind) in list(seen.ids.items()):
            if kind in TERMINAL:
                delivered[verification].add(identifier)
    findings.counts["duplicates with the same id"] = sum(seen.repeats() for seen in witnesses)
    ends = {identifier: feed.ends_of(identifier) for identifier in found}
    findings.none("duplicates with different ids", (
        one for one in found if len(delivered[one] | {identifier for identifier, _ in ends[one]}) > 1
    ))
    findings.none("ends without their event", (
        f"{one} {found[one]['status']}" for one in found
        if [kind for _, kind in ends[one]] != ends_expected(found[one])
    ))
    findings.none("gaps in a sequence", (
        one for one, events in feed.of.items()
        if sorted(sequence for _, _, sequence in events) != list(range(1, len(events) + 1))
    ))
    findings.none("events of what cannot be read", (one for one in feed.of if one not in found))


def ends_expected(verification):
    """The terminal events that there have to be of a verification, by its status."""
    return [f"verification.{verification['status']}"] if verification["status"] in ENDED else []


def check_feed(findings, traffic, feed, witnesses, hears_all):
    """The feed holds what was delivered and is as it was when it was followed; whoever hears all has heard it."""
    findings.counts["events"] = len(feed.order)
    findings.none("delivered and not in the feed", (
        identifier for seen in witnesses for identifier in list(seen.ids) if identifier not in feed.told
    ))
    findings.none("told otherwise by the feed", (
        identifier for seen in witnesses for identifier, (_, event, _, _) in list(seen.ids.items())
        if feed.told.get(identifier, event) != event
    ))
    findings.none("events that never came", (
        f"{identifier} {feed.kinds[identifier]}" for seen in hears_all for identifier in feed.order
        if not seen.taken[identifier]
    ))
    followed = traffic.followed
    findings.must(feed.order[:len(followed)] == followed, "the feed is not what it was when it was followed")


def check_pairs(findings, feed, cool_down):
    """No two verifications share a phone and a number while they are pending, nor within the rest after an end.

    One that is replaced may leave its number to the one that replaces it, in the commit of both.
    """
    shared, early = [], []
    for pair, steps in feed.pairs.items():
        pending, ended = None, None
        for verification, kind, when, reasons in steps:
            if kind != "verification.created":
                pending, ended = None, None if "superseded" in reasons else when
                continue
            if pending:
                shared.append(f"{pair}: {pending} and {verification}")
            if cool_down and ended and when < ended + cool_down - 0.1:
                early.append(f"{pair}: {verification} {when - ended:.1f} s after the end before it")
            pending = verification
    findings.none("pairs shared while pending", shared)
    if cool_down:
        findings.none("pairs given again before their rest", early)
    findings.counts["pairs that came again"] = sum(1 for steps in feed.pairs.values() if len(steps) > 2)


def check_log(findings, node):
    """The node printed no panic, and nothing else that is worth a report."""
    lines = (node.directory / "stderr.log").read_text(errors="replace").splitlines()
    findings.none("log lines worth a report", (line for line in lines if WORTH_A_REPORT.search(line)))
