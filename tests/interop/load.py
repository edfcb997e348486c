#!/usr/bin/env python3
"""`ringproof load` beside what it replaces: real SIPp, a real node, and what each of them counted itself.

`load sip` and SIPp call SIPp, then a node, over UDP and TCP; `load scenario` plays each client scenario that SIPp plays
too; `load verify` verifies phones over HTTP/1.1 and HTTP/2 with calls over UDP and TCP. Fails unless every call is
counted by both ends alike, none is lost, and latencies are near SIPp's; unless what is used wrongly ends with a message
and its exit code; and unless each report can be read, adds up, and is a page that loads nothing.
"""

import argparse
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from load_report import Load, check_whole, summary
from ringproof import (
    FIRST_NUMBER, NUMBERS, SCENARIOS, Failure, Metrics, Node, check, free_port, mobile, run_main, wait_for,
    webhook_secret,
)
from sipp_load import calls_from, check_all_successful, find_sipp, last_row, sipp

TO = f"+{FIRST_NUMBER}/{NUMBERS}"
# Each scenario that a client plays, by the code with which a node refuses calls.
SCENARIOS_BY_REJECT = {486: ["caller", "cancel", "options"], 603: ["caller-603"]}
# The ways of `sipp` that `--via` has too, with its names of them.
TRANSPORTS = {"udp": "udp", "tcp-1": "tcp"}
# The timer of caller.xml, which spans what `load sip` measures.
TIMER = "invite_to_final"
CALLS = 50
VERIFICATIONS = 200
PACED = (50, 2)
# How long the called SIPp thinks, in milliseconds: its clock is too coarse to measure much less.
THINKS = 20
METHODS = ("INVITE", "ACK", "CANCEL", "OPTIONS")

BUSY = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="busy">
  <recv request="INVITE"/>
  <pause milliseconds="%d"/>
  <send retrans="500">
    <![CDATA[

      SIP/2.0 486 Busy Here
      [last_Via:]
      [last_From:]
      [last_To:];tag=[pid]b[call_number]
      [last_Call-ID:]
      [last_CSeq:]
      Content-Length: 0

    ]]>
  </send>
  <recv request="ACK"/>
</scenario>
"""


class Busy:
    """SIPp as the one that is called: a pause, 486, then it waits for the ACK. Looks like a node to `sipp`."""

    def __init__(self, directory, way):
        self.directory = directory
        self.sip = ("127.0.0.1", free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM))
        self._transport = TRANSPORTS[way]
        self._process = None
        directory.mkdir()

    def __enter__(self):
        (self.directory / "busy.xml").write_text(BUSY % THINKS)
        command = [
            find_sipp(), "-sf", "busy.xml", "-i", self.sip[0], "-p", str(self.sip[1]), "-t", f"{self._transport[0]}1",
            "-buff_size", "4194304", "-nostdin", "-trace_stat", "-stf", "stat.csv", "-fd", "1", "-trace_counts",
            "-trace_err", "-error_file", "errors.log",
        ]
        with open(self.directory / "screen.log", "wb") as screen:
            self._process = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=screen, stderr=subprocess.STDOUT,
                env={**os.environ, "TERM": "dumb"},
            )
        try:
            wait_for(self._listens, 10, "a SIPp that listens")
        except Failure:
            self.__exit__()
            raise
        return self

    def _listens(self):
        check(self._process.poll() is None, f"the called SIPp ended with {self._process.returncode}")
        # 07: a UDP socket that is bound; 0A: a TCP socket that listens.
        wanted = (f"0100007F:{self.sip[1]:04X}", "07" if self._transport == "udp" else "0A")
        lines = Path(f"/proc/net/{self._transport}").read_text().splitlines()[1:]
        return any((fields[1], fields[3]) == wanted for fields in map(str.split, lines))

    def stop(self):
        """Lets it end its last calls, and returns how many calls it had and how often each message."""
        self._process.send_signal(signal.SIGUSR1)
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            raise Failure("the called SIPp still waits for the ACKs of some calls") from None
        statistics = last_row(self.directory / "stat.csv")
        (counts,) = self.directory.glob("*_counts.csv")
        messages = last_row(counts)
        return {
            "code": code,
            "calls": int(statistics["IncomingCall(C)"]),
            "successful": int(statistics["SuccessfulCall(C)"]),
            "failed": int(statistics["FailedCall(C)"]),
            "strays": int(statistics["OutOfCallMsgs(C)"]) + int(statistics["DeadCallMsgs(C)"]),
            "INVITE": int(messages["0_INVITE_Recv"]),
            "INVITE again": int(messages["0_INVITE_Retrans"]),
            "486": int(messages["2_486_Sent"]),
            "ACK": int(messages["3_ACK_Recv"]),
        }

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def counted(node):
    """What the node has counted so far."""
    metrics = Metrics.read(node)
    counts = {
        (method, way): metrics.total("ringproof_sip_requests_total", method=method, transport=way)
        for method in METHODS for way in TRANSPORTS.values()
    }
    counts["calls"] = metrics.total("ringproof_calls_total")
    counts["matched"] = metrics.total("ringproof_calls_total", outcome="matched")
    for status in ("pending", "verified"):
        counts[status] = metrics.total("ringproof_verifications_total", status=status)
    counts["dropped"] = metrics.total("ringproof_sip_dropped_total")
    counts["limited"] = metrics.total("ringproof_calls_limited_total")
    return counts


def check_counted(node, before, expected, name):
    """Since `before` the node has counted what is expected, and nothing else; `None` is any count."""
    found = {}
    exact = {key: count for key, count in expected.items() if count}
    free = {key for key, count in expected.items() if count is None}

    def reached():
        after = counted(node)
        found.clear()
        found.update({key: int(after[key] - before[key]) for key in after if after[key] != before[key]})
        return {key: count for key, count in found.items() if key not in free} == exact

    try:
        wait_for(reached, 5, "the expected counts")
    except Failure:
        raise Failure(f"{name}: the node counted {found}, expected {expected}") from None


def expected_of(calls, retransmissions, way, **more):
    """What a node counts of calls that it refuses. An INVITE that came twice may have one ACK or two."""
    acks = None if retransmissions else calls
    return {("INVITE", way): calls + retransmissions, ("ACK", way): acks, "calls": calls, **more}


def response_times(node, name):
    """Mean and bounds of the median, in seconds, as the SIPp that called measured them itself."""
    row = last_row(node.directory / name / "stat.csv")
    hours, minutes, seconds, microseconds = row[f"ResponseTime{TIMER}(C)"].split(":")
    mean = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(microseconds) / 1e6
    repartition = re.compile(rf"ResponseTimeRepartition{TIMER}_(<|>=)(\d+)$")
    steps = [
        (float(match[2]) / 1000 if match[1] == "<" else float("inf"), int(row[column]))
        for column, match in ((column, repartition.match(column or "")) for column in row) if match
    ]
    check(steps, f"{name}: SIPp tells no repartition of {TIMER}")
    half, seen, lower = sum(count for _, count in steps) / 2, 0, 0.0
    for upper, count in steps:
        seen += count
        if seen >= half:
            return mean, (lower, upper)
        lower = upper
    raise Failure(f"{name}: SIPp's repartition of {TIMER} is empty")


def compare_latencies(name, report, measured, factor, least=0):
    """The means of both clients are within a factor, and none saw less than the peer takes. SIPp counts milliseconds."""
    mean, (lower, upper) = measured
    (latency,) = report["latencies"]
    check(latency["name"] == "INVITE to final", f"{name}: measured {latency['name']}")
    ours, p50 = latency["mean_seconds"], latency["p50_seconds"]
    print(
        f"{name}: INVITE to final, load sip p50 {p50 * 1000:.3f} ms, mean {ours * 1000:.3f} ms; "
        f"SIPp p50 {lower * 1000:g} to {upper * 1000:g} ms, mean {mean * 1000:.3f} ms"
    )
    slack = 0.001
    check(least <= p50, f"{name}: the median is less than the {least * 1000:g} ms that the peer takes")
    check(lower / 10 <= p50 + slack and p50 <= upper * 10, f"{name}: the medians are no neighbours")
    near = mean / factor <= ours + slack and ours <= (mean + slack) * factor
    check(near, f"{name}: the means are further apart than a factor {factor}")


def load_sip(load, peer, way, rate, seconds, first):
    """`load sip` at a rate, from numbers that nobody verifies."""
    return load.run(
        "sip", "--via", f"{TRANSPORTS[way]}:{peer.sip[0]}:{peer.sip[1]}", "--to", TO,
        "--from", f"{mobile(first)}/{rate * seconds}", "--rate", rate, "--duration", seconds,
    )


def against_sipp(load, way, rate, seconds):
    """Both clients call a SIPp, each a fresh one."""
    calls, name = rate * seconds, f"SIPp as peer, {way}"
    with Busy(load.directory / f"busy-load-{way}", way) as peer:
        report = load_sip(load, peer, way, rate, seconds, 1_000_000)
        of_load = peer.stop()
    print(f"{name}: load sip {summary(report)}")
    print(f"{name}: SIPp counted {in_words(of_load)}")
    check_whole(f"{name}: load sip", report, calls, {"486": calls})
    again = report["retransmissions"]
    check(of_load.pop("strays") <= again, f"{name}: SIPp got messages of no call")
    expected = {"code": 0, "calls": calls, "successful": calls, "failed": 0, "INVITE": calls, "INVITE again": again}
    expected |= {"486": calls, "ACK": calls}
    check(of_load == expected, f"{name}: SIPp counted {of_load} of load sip, expected {expected}")
    with Busy(load.directory / f"busy-sipp-{way}", way) as peer:
        result = sipp(peer, "sipp", calls_from(2_000_000, calls), rate, way=way)
        of_sipp = peer.stop()
        measured = response_times(peer, "sipp-1")
    check_all_successful(f"{name}: SIPp as client", result, calls)
    check(of_sipp["486"] == of_load["486"], f"{name}: {of_sipp['486']} refusals of SIPp, {of_load['486']} of load sip")
    # A timer of SIPp may be early by a millisecond of its clock.
    compare_latencies(name, report, measured, factor=3, least=(THINKS - 2) / 1000)


def against_node(load, node, way, rate, seconds):
    """Both clients call a node, which counts them itself."""
    calls, name = rate * seconds, f"node as peer, {way}"
    before = counted(node)
    report = load_sip(load, node, way, rate, seconds, 1_000_000)
    print(f"{name}: load sip {summary(report)}")
    check_whole(f"{name}: load sip", report, calls, {"486": calls})
    check_counted(node, before, expected_of(calls, report["retransmissions"], TRANSPORTS[way]), f"{name}: load sip")
    before = counted(node)
    result = sipp(node, f"clients-{way}", calls_from(2_000_000, calls), rate, way=way)
    check_all_successful(f"{name}: SIPp", result, calls)
    check_counted(node, before, expected_of(calls, result["retransmissions"], TRANSPORTS[way]), f"{name}: SIPp")
    # A node answers in less than SIPp's clock can tell.
    compare_latencies(name, report, response_times(node, f"clients-{way}-1"), factor=10)


def scenario(load, node, name, way, calls=CALLS, code=0):
    """One scenario by SIPp and by `load scenario`: they count alike, and the node counts of each what it sends."""
    title, file = f"scenario {name}, {way}", SCENARIOS / f"{name}.xml"
    methods = re.findall(r"<!\[CDATA\[\s*(\w+) ", file.read_text(encoding="utf-8"))
    expected = {(method, TRANSPORTS[way]): calls for method in methods} | {"calls": calls * ("INVITE" in methods)}
    before = counted(node)
    by_sipp = sipp(node, f"{name}-{way}", calls_from(0, calls), 10 * calls, name, way)
    check_counted(node, before, expected, f"{title}: SIPp")
    before = counted(node)
    # SIPp wrote the CSV, which both read.
    report = load.run(
        "scenario", file, "--via", f"{TRANSPORTS[way]}:{node.sip[0]}:{node.sip[1]}",
        "--csv", node.directory / f"{name}-{way}-1" / "calls.csv", "--rate", 10 * calls, "--calls", calls, code=code,
    )
    check_counted(node, before, expected, f"{title}: load scenario")
    print(f"{title}: {summary(report)}; the node counted of both {in_words(expected)}")
    results = [by_sipp[count] for count in ("calls", "successful", "failed", "retransmissions")]
    ours = [report[count] for count in ("begun", "ended", "lost", "retransmissions")]
    check(results == ours, f"{title}: SIPp counted {results}, load scenario {ours}")
    check(by_sipp["retransmissions"] == 0, f"{title}: {by_sipp['retransmissions']} retransmissions")
    return by_sipp, report


def in_words(counts):
    """Counts of a node in a line."""
    return ", ".join(f"{count} {' '.join(key) if isinstance(key, tuple) else key}" for key, count in counts.items())


def all_scenarios(load, _options):
    """Each scenario over each transport, and one whose calls go otherwise than it says."""
    secret = webhook_secret()
    for reject, names in SCENARIOS_BY_REJECT.items():
        with Node(load.nowhere, [secret], reject=reject) as node:
            node.start()
            for name, way in itertools.product(names, TRANSPORTS):
                by_sipp, report = scenario(load, node, name, way)
                check_all_successful(f"{name}, {way}", by_sipp, CALLS)
                timers = set(re.findall(r'start_rtd="(\w+)"', (SCENARIOS / f"{name}.xml").read_text()))
                wanted = {"call": CALLS, **{f"rtd {timer}": CALLS for timer in timers}}
                measured = {latency["name"]: latency["count"] for latency in report["latencies"]}
                check(measured == wanted, f"{name}, {way}: measured {measured}, expected {wanted}")
            if reject != 486:
                print(f"scenario caller against {reject}: every call is to fail")
                by_sipp, report = scenario(load, node, "caller", "udp", calls=5, code=1)
                check(by_sipp["failed"] == 5, f"caller against {reject}: SIPp let {by_sipp['successful']} calls pass")
                check(report["codes"].get(f"unexpected {reject}") == 5, f"caller against {reject}: {report['codes']}")
                # SIPp failed as it should.
                node.keep = False
            check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


class Verify:
    """`load verify` with a node that sends its webhooks there."""

    def __init__(self, load, node, listen, secret):
        self._load = load
        self._node = node
        self._listen = listen
        self._phones = itertools.count(0, 1000)
        self.env = {"RINGPROOF_KEY": node.key, "RINGPROOF_SECRET": secret}
        self.hidden = (node.key, secret, secret.removeprefix("whsec_"))

    def arguments(self, *more, via="udp", api=None, phones=1000):
        """The command line, with phones that no other run has."""
        node, first = self._node, next(self._phones)
        return (
            "--api", f"http://{node.api[0]}:{api or node.api[1]}", "--phones", f"{mobile(first)}/{phones}",
            "--via", f"{via}:{node.sip[0]}:{node.sip[1]}", "--listen", f"127.0.0.1:{self._listen}", *more,
        )

    def whole(self, name, calls, *more, via):
        """A run in which each verification comes to its webhook."""
        before = counted(self._node)
        report = self._load.run("verify", *self.arguments(*more, via=via), env=self.env, hidden=self.hidden)
        spans = ", ".join(f"{one['name']} {one['p50_seconds'] * 1000:.2f} ms" for one in report["latencies"])
        print(f"{name}: {summary(report)}; p50: {spans}")
        check_whole(name, report, calls, {"final 486": calls})
        names = [latency["name"] for latency in report["latencies"]]
        check(names == ["create", "INVITE to final", "INVITE to webhook", "whole verification"], f"{name}: {names}")
        counts = expected_of(calls, report["retransmissions"], via, matched=calls, pending=calls, verified=calls)
        check_counted(self._node, before, counts, name)

    def misuse(self):
        """What goes wrong by the user's hand. What the node keeps sending comes last: nobody takes it any more."""
        load, hidden = self._load, self.hidden
        key, secret = "rp_test_" + 48 * "0", webhook_secret()
        bounds = ("--calls", 5, "--timeout", 1)

        def refused(message, *arguments, env=None):
            told = {**self.env, **(env or {})}
            secrets = [value for value in (*hidden, *told.values()) if value]
            load.refused("verify", 2, message, *arguments, *bounds, env=told, hidden=secrets)

        before = counted(self._node)
        for more in ((), ("--http2",)):
            refused("status 401", *self.arguments(*more), env={"RINGPROOF_KEY": key})
            nobody = free_port(socket.SOCK_STREAM)
            refused("takes no connection", *self.arguments(*more, api=nobody))
        refused("RINGPROOF_KEY is not set", *self.arguments(), env={"RINGPROOF_KEY": ""})
        refused("--secret: ", *self.arguments(), env={"RINGPROOF_SECRET": "whsec_not-base64-at-all"})
        with socket.create_server(("127.0.0.1", self._listen)):
            refused("cannot receive webhooks at", *self.arguments())
        # That port speaks HTTP, but is not the API.
        refused("status 404", *self.arguments(api=self._node.admin[1]))
        check_counted(self._node, before, {}, "misuse")

        env = {**self.env, "RINGPROOF_SECRET": secret}
        report = load.run("verify", *self.arguments(*bounds), code=1, env=env, hidden=(*hidden, secret))
        print(f"misuse: exit 1, wrong secret: {summary(report)}")
        check((report["ended"], report["lost"]) == (0, 5), f"wrong secret: {summary(report)}")
        codes = dict(report["codes"])
        check(codes.pop("bad signature", 0) >= 5, f"wrong secret: {report['codes']}")
        check(codes == {"final 486": 5, "no webhook": 5}, f"wrong secret: {report['codes']}")
        check_counted(self._node, before, expected_of(5, 0, "udp", matched=5, pending=5, verified=5), "wrong secret")


def verifications(load, _options):
    """From creation to webhook, over each way to the API and to the SIP listener; then misuse."""
    secret, listen = webhook_secret(), free_port(socket.SOCK_STREAM)
    with Node(f"http://127.0.0.1:{listen}/hook", [secret]) as node:
        node.start()
        verify = Verify(load, node, listen, secret)
        rate, seconds = PACED
        for (protocol, more), via in itertools.product((("HTTP/1.1", ()), ("HTTP/2", ("--http2",))), ("udp", "tcp")):
            name = f"verify over {protocol} and {via}"
            verify.whole(f"{name}, closed loop", VERIFICATIONS, "--calls", VERIFICATIONS, *more, via=via)
            verify.whole(
                f"{name}, {rate}/s", rate * seconds, "--rate", rate, "--duration", seconds, *more, via=via
            )
        verify.misuse()
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


def misuse(load, _options):
    """`load sip` and `load scenario` where nobody listens, or with what they cannot do."""
    nobody = f"127.0.0.1:{free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)}"
    numbers = ("--to", TO, "--from", mobile(0))
    load.refused("sip", 1, "takes no connection", *numbers, "--via", f"tcp:{nobody}")
    load.refused("sip", 2, "cannot be used with", *numbers, "--rate", 1, "--window", 1)
    load.refused("sip", 2, "gives no call to some of 4 threads", *numbers, "--window", 3, "--threads", 4)
    server = load.directory / "server.xml"
    server.write_text(BUSY % THINKS)
    load.refused("scenario", 2, "only scenarios that begin with <send>", server, "--via", f"udp:{nobody}")
    load.refused("scenario", 2, "cannot be read", load.directory / "none.xml", "--via", f"udp:{nobody}")
    calls = SCENARIOS / "caller.xml"
    load.refused("scenario", 2, "field1", calls, "--via", f"udp:{nobody}")
    report = load.run(
        "sip", *numbers, "--via", f"udp:{nobody}", "--calls", 5, "--window", 5, "--timeout", 1, code=1
    )
    print(f"misuse: exit 1, nobody listens: {summary(report)}")
    check((report["ended"], report["lost"]) == (0, 5), f"nobody listens: {summary(report)}")
    check(report["retransmissions"] == 5, f"nobody listens: {report['retransmissions']} INVITEs again, expected 5")


def json_alone(load, node):
    """With `--json -` standard output is the JSON alone, and the table goes to standard error."""
    process = load.execute(
        "sip", "--to", TO, "--from", mobile(0), "--via", f"udp:{node.sip[0]}:{node.sip[1]}", "--calls", 9, "--json", "-"
    )
    check(process.returncode == 0, f"--json -: ended with {process.returncode}: {process.stderr}")
    try:
        report = json.loads(process.stdout)
    except ValueError as error:
        raise Failure(f"--json -: standard output is no JSON: {process.stdout[:200]!r}") from error
    check(report["ended"] == 9 and "INVITE to final" in process.stderr, f"--json -: {report}, {process.stderr}")
    print(f"--json -: {summary(report)}, the table on standard error")


def sip_against_sipp(load, options):
    """`load sip` and SIPp call SIPp, over UDP and TCP at once."""
    with ThreadPoolExecutor(len(TRANSPORTS)) as pool:
        for run in [pool.submit(against_sipp, load, way, options.rate, options.seconds) for way in TRANSPORTS]:
            run.result()


def sip_against_node(load, options):
    """`load sip` and SIPp call a node."""
    with Node(load.nowhere, [webhook_secret()]) as node:
        node.start()
        for way in TRANSPORTS:
            against_node(load, node, way, options.rate, options.seconds)
        json_alone(load, node)
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


PARTS = {
    "sipp": sip_against_sipp, "node": sip_against_node, "scenario": all_scenarios, "verify": verifications,
    "misuse": misuse,
}


def main():
    """Each part in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1000, help="calls a second of load sip and SIPp")
    parser.add_argument("--seconds", type=int, default=2, help="how long they call")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    options = parser.parse_args()
    with Load() as load:
        for part in options.part or PARTS:
            print(f"-- {part}", flush=True)
            began = time.monotonic()
            PARTS[part](load, options)
            print(f"{part}: took {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    run_main(main)
