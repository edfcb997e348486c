"""The bench that each fault stands on: a node under traffic, a healthy receiver, and the examination in the end."""

import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass

from invariants import Findings, Ledger, Witness, examine
from ringproof import Api, Failure, Metrics, Node, check, wait_for, webhook_secret
from traffic import Traffic

RATE = 60
COOL_DOWN = 2
# Few numbers with a short rest, so that pairs come again.
NUMBERS = 12
NUMBER = f"cool_down_seconds = {COOL_DOWN}"
APPLICATION = "limits = { creates_per_phone = 0 }"
ALL_EVENTS = 'events = ["*"]'
SETTLED = 60


class Skipped(Exception):
    """This machine cannot run the fault; the reason."""


@dataclass
class Options:
    """What the command line says."""

    seed: int
    kills: int
    rate: float = 150


@dataclass
class Result:
    """What the examination found, and what the fault itself has to tell."""

    findings: Findings
    notes: str


class Steady(Api):
    """A client whose kept connection may have been closed meanwhile: it asks on a new one then."""

    def request(self, method, path, body=None, more_headers=()):
        if method != "GET":
            self.disconnect()
        try:
            return super().request(method, path, body, more_headers)
        except ConnectionError:
            return super().request(method, path, body, more_headers)


class Bench:
    """A node, its receivers and its traffic. `well` hears everything; `more` are further (receiver, lines) pairs."""

    def __init__(self, rate=RATE, receiver=Witness, more=(), prepare=lambda node: None, **traffic):
        self._stack = ExitStack()
        self._rate, self._receiver, self._more, self._prepare = rate, receiver, more, prepare
        self._traffic_fields = traffic
        self.well = self.node = self.api = self.traffic = None
        self.others = []

    def __enter__(self):
        with ExitStack() as stack:
            secret = webhook_secret()
            ledger = Ledger()
            self.well = stack.enter_context(self._receiver([secret], ledger))
            self.others = [stack.enter_context(make([secret], ledger)) for make, _ in self._more]
            urls = [(other.url, lines) for other, (_, lines) in zip(self.others, self._more)]
            self.node = stack.enter_context(Node(
                self.well.url, [secret], webhook_lines=ALL_EVENTS, more_webhooks=urls, application=APPLICATION,
                number=NUMBER, numbers=NUMBERS,
            ))
            self._prepare(self.node)
            self.api = Steady(self.node)
            self.node.start()
            self.traffic = Traffic(self.node, self._rate, ledger, **self._traffic_fields)
            stack.callback(self.traffic.finish)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure):
        return self._stack.__exit__(*failure)

    def kill(self):
        """kill -9; the traffic is told, so that nobody takes the old process for the new one."""
        self.node.kill()
        self.traffic.up.clear()

    def start(self):
        """Starts the node again; the traffic goes on."""
        self.api.disconnect()
        self.node.start()
        self.traffic.up.set()

    def ready(self, seconds, what):
        """Waits until the node says that it is ready; how long that took."""
        began = time.monotonic()
        wait_for(lambda: is_ready(self.node), seconds, what)
        return time.monotonic() - began

    def works(self):
        """A phone can be verified, from end to end."""
        status, body = self.api.create("+966509999999")
        check(status == 201, f"a creation after the fault was answered {status} {body}")
        call = self.traffic.caller.place(body["phone"], body["dial"]["number"], Probe())
        wait_for(lambda: call.code, 10, "an answer to a call after the fault")
        check(call.code == 486, f"a call after the fault was answered {call.code}")
        wait_for(lambda: body["id"] in self.well.verified(), 10, "the webhook of a call after the fault")

    def settle(self):
        """No more creations; everything that is under way ends, and the healthy receiver has heard all of it."""
        self.traffic.stop()
        wait_for(self.traffic.settled, SETTLED, "an answer to every call")
        seen = self.traffic.caught_up
        wait_for(lambda: self.traffic.caught_up > seen + 1, SETTLED, "the end of the feed")
        wait_for(self._heard, SETTLED, "every event at the healthy receiver")

    def audit_log(self):
        """What `ringproof audit verify` says beside the node, as a finished process."""
        where = self.node.directory
        command = [str(self.node.binary), "audit", "verify", "-c", str(self.node.config)]
        if self.node.command:
            # Its files are on a disk that is mounted for it alone.
            enter = ["nsenter", "--target", str(self.node.process.pid), "--mount"]
            command = enter + (["--user", "--preserve-credentials"] if os.geteuid() else []) + command
        return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=60, check=False)

    def _heard(self):
        return all(identifier in self.well.taken for identifier in self.traffic.followed)

    def _quiet(self):
        """Waits until nothing ends any more by a clock that was stepped, and what ended was told."""
        def standing():
            seen = Metrics.read(self.node)
            return seen.total("ringproof_verifications_pending"), seen.total("ringproof_webhook_backlog")

        def still():
            before = standing()
            time.sleep(1)
            return before == standing() and before[1] == 0

        wait_for(still, 20, "a node on which nothing changes")

    def finish(self, notes="", cool_down=COOL_DOWN):
        """Settles, ends the node by SIGTERM, starts it again and examines what it says then.

        Without `cool_down` its clock stepped, so times are not compared.
        """
        try:
            self.works()
            self.settle()
        except Failure as failure:
            # What is missing is told by the examination, one by one.
            notes = f"{notes}; {failure}"
        self.traffic.finish()
        code = self.node.stop()
        check(code == 0, f"ringproof ended with {code} on SIGTERM")
        self.start()
        if not cool_down:
            self._quiet()
        witnesses = [self.well, *self.others]
        findings = examine(self.node, self.api, self.traffic, witnesses, cool_down, hears_all=[self.well])
        findings.must("did not come about" not in notes and "after the fault" not in notes, notes)
        log = self.audit_log()
        findings.must(log.returncode == 0, f"the audit log is not whole: {log.stdout} {log.stderr}")
        code = self.node.stop()
        findings.must(code == 0, f"ringproof ended with {code} on SIGTERM")
        if findings.broken:
            self.node.keep = True
        parts = [notes, self.traffic.answers()]
        if cool_down:
            parts.append(f"webhooks p50 {self.well.slowest(0.5):.0f} ms, p99 {self.well.slowest(0.99):.0f} ms")
        return Result(findings, "; ".join(part for part in parts if part))


class Probe:
    """Stands for the verification of a call that is placed beside the traffic."""

    calls = range(1 << 30)


def is_ready(node):
    """Whether `/readyz` says 200."""
    return Metrics.read(node).total("ringproof_ready") == 1


def tool(name, package):
    """The path of a program of the system; the fault is skipped without it."""
    path = shutil.which(name)
    if not path:
        raise Skipped(f"{name} is not installed ({package})")
    return path
