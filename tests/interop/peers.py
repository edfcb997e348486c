#!/usr/bin/env python3
"""Peers that others wrote, against the real process: Kamailio, baresip and sipsak, as Debian has them.

Two Kamailios with `examples/kamailio-sbc.cfg` stand before ringproof, one reaches it over UDP, the other over TCP.
baresip and sipsak call through them and straight, over UDP and TCP. Fails unless each call is answered 486 and verifies
its phone, with the level of the way that it took; a forged P-Asserted-Identity verifies nobody; a call that is hung up
early ends as it should; and a node that drains, or is gone, gets no call until it is back.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager

from ringproof import (
    FIRST_NUMBER, ROOT, Api, Failure, Metrics, Node, check, free_port, mobile, run_main, wait_for, webhook_secret,
)
from webhooks import Receiver

EXAMPLE = ROOT / "examples" / "kamailio-sbc.cfg"
MODULES = "/usr/lib/baresip/modules"
# Who sends from which address. Over TCP, baresip and sipsak leave the choice to the kernel: 127.0.0.1.
SBC = {"udp": "127.0.0.9", "tcp": "127.0.0.10"}
OPERATOR, STRANGER = "127.0.0.31", "127.0.0.66"
LINES = {"127.0.0.21": mobile(21), "127.0.0.1": mobile(1)}
PHONE = {"udp": "127.0.0.21", "tcp": "127.0.0.1"}


class Kamailio:
    """The example configuration on an address of its own, in front of the node by `way`."""

    def __init__(self, node, way, **defines):
        self.way = way
        self.address = (SBC[way], free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM))
        self._directory = node.directory / "-".join(["kamailio", way, *defines])
        self._directory.mkdir()
        nodes, sources = self._directory / "nodes.list", self._directory / "sources.list"
        nodes.write_text(f"1 sip:{node.sip[0]}:{node.sip[1]};transport={way} 0 10\n")
        lines = "".join(f"2 {address} 32 0 {number}\n" for address, number in LINES.items())
        sources.write_text(f"1 {OPERATOR} 32 0\n{lines}")
        defines = {
            "SBC_ADDRESS": self.address[0], "SBC_PORT": self.address[1], "NODES": f'"{nodes}"',
            "SOURCES": f'"{sources}"', "PING_SECONDS": 1, **defines,
        }
        self._command = [program("kamailio"), "-f", str(EXAMPLE), "-DD", "-E", "-m", "32", "-Y", str(self._directory)]
        for name, value in defines.items():
            self._command += ["-A", f"{name}={value}"]
        self._process = None

    def __enter__(self):
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    def __exit__(self, kind, *_):
        self._process.terminate()
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        check(kind is not None or code == 0, f"Kamailio over {self.way} ended with {code}, see {self._directory}/log")

    def flags(self):
        """What Kamailio makes of the node: AP where it takes calls, IP where it is out of use."""
        if self._process.poll() is not None:
            lines = (self._directory / "log").read_text(errors="replace").splitlines()[-5:]
            check(False, "\n  ".join([f"Kamailio ended with {self._process.returncode}", *lines]))
        control = f"unixs:{self._directory}/kamailio_ctl"
        listed = subprocess.run(
            [program("kamcmd"), "-s", control, "dispatcher.list"],
            capture_output=True, text=True, timeout=10, check=False,
        )
        found = re.search(r"FLAGS: (\w+)", listed.stdout)
        return found and found[1]

    def wait_until(self, flags):
        """Waits until the pings have told that."""
        wait_for(lambda: self.flags() == flags, 10, f"node {flags} at the Kamailio over {self.way}")


class Phone:
    """One call over UDP, message by message, from an address of the test's choice."""

    def __init__(self, source, target, caller, dialled, headers=()):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((source, 0))
        self._socket.settimeout(8)
        self._target = target
        self._at = f"{source}:{self._socket.getsockname()[1]}"
        self._uri = f"sip:{dialled}@{target[0]}:{target[1]}"
        self._caller = f"<sip:{caller}@{source}>;tag={secrets.token_hex(6)}"
        self._identity = secrets.token_hex(10)
        self._headers = "".join(f"{line}\r\n" for line in headers)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send(self, method, to=None):
        """A request of this call: all that the test sends belong to the INVITE's transaction."""
        self._socket.sendto(
            (
                f"{method} {self._uri} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {self._at};rport;branch=z9hG4bK{self._identity}\r\n"
                f"Max-Forwards: 70\r\n"
                f"From: {self._caller}\r\n"
                f"To: {to or f'<{self._uri}>'}\r\n"
                f"Call-ID: {self._identity}\r\n"
                f"CSeq: 1 {method}\r\n"
                f"Contact: <sip:{self._at}>\r\n"
                f"{self._headers}"
                f"Content-Length: 0\r\n\r\n"
            ).encode(),
            self._target,
        )

    def receive(self, method):
        """The next response to a request of this method, whatever comes between: code and text."""
        while True:
            try:
                text = self._socket.recv(65535).decode("latin-1")
            except TimeoutError:
                check(False, f"no response to {method} from {self._target}")
            if re.search(rf"(?im)^CSeq: 1 {method}\r$", text):
                return int(text.split()[1]), text

    def final(self):
        """The final response to the INVITE, acknowledged."""
        code = 100
        while code < 200:
            code, text = self.receive("INVITE")
        self.send("ACK", re.search(r"(?im)^To: ([^\r\n]+)", text)[1])
        return code, text

    def call(self):
        """Calls, and returns the final response."""
        self.send("INVITE")
        return self.final()


class Bench:
    """A node, its receiver, and what a test asks of both."""

    def __init__(self, node, receiver):
        self.node = node
        self.receiver = receiver
        self.api = Api(node)

    def create(self, phone):
        """A verification of this phone, pending."""
        status, body = self.api.create(phone, ttl_seconds=300)
        check(status == 201, f"create answered {status}: {body}")
        return body

    def verified(self, created, name, **call):
        """The verification is verified, its webhook has come, and tells this of the call."""
        identifier = created["id"]
        wait_for(lambda: identifier in self.receiver.verified(), 5, f"{name}: the webhook of the verification")
        _, now = self.api.verification(identifier)
        check(now["status"] == "verified", f"{name}: the verification reads as {now['status']}")
        data = next(
            delivery.event["data"] for delivery in self.receiver.deliveries
            if delivery.event["type"] == "verification.verified" and delivery.event["data"]["id"] == identifier
        )
        told = {key: data["call"][key] for key in call}
        check(told == call, f"{name}: the webhook tells {told}, expected {call}")

    def pending(self, created, name):
        """The verification is as it was."""
        _, now = self.api.verification(created["id"])
        check(now["status"] == "pending", f"{name}: the verification reads as {now['status']}")
        check(not self.receiver.terminal_ids(created["id"]), f"{name}: a webhook came for a pending verification")

    def requests(self, method, transport):
        """How many requests of a method came from a Kamailio."""
        return Metrics.read(self.node).total(
            "ringproof_sip_requests_total", trunk="sbc", method=method, transport=transport
        )

    def responses(self, code):
        """How many of these the Kamailios got."""
        return Metrics.read(self.node).total("ringproof_sip_responses_total", trunk="sbc", code=str(code))


THROUGH = {"trunk": "sbc", "caller_source": "pai", "assurance": "B"}
STRAIGHT = {"trunk": "local", "caller_source": "from", "assurance": "C"}


def asserting(caller):
    """The header by which an operator vouches for a caller."""
    return [f"P-Asserted-Identity: <sip:{caller}@operator.example;user=phone>"]


def program(name):
    """Where it is installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    check(found, f"{name} is not installed (Debian packages kamailio, baresip-core, sipsak)")
    return found


def configure(node):
    """A longer drain, and beside `local` the trunk that the example's comment tells an operator to write."""
    comment = re.search(r"(?m)^#  +\[\[trunk\]\]\n(?:#.*\n)+?(?=#  +Firewall)", EXAMPLE.read_text())
    check(comment, f"{EXAMPLE} shows no trunk")
    trunk = re.sub(r"(?m)^#", "", comment[0])
    peers = ", ".join(f'"{address}"' for address in SBC.values())
    changes = [("drain_seconds = 1\n", "drain_seconds = 30\n"), ('trunks = ["local"]', 'trunks = ["local", "sbc"]')]
    text = node.config.read_text() + trunk.replace('"192.0.2.20"', peers)
    for old, new in changes:
        check(old in text, f"the configuration has no {old!r}")
        text = text.replace(old, new)
    check(peers in text, "the example's trunk has another peer")
    node.config.write_text(text)


def baresip(node, way, caller, dialled, target):
    """A call of baresip, and the code that it shows to its user."""
    directory = node.directory / f"baresip-{secrets.token_hex(4)}"
    directory.mkdir()
    listen = f"{PHONE['udp']}:{free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)}"
    modules = [f"module {name}.so" for name in ("g711", "ausine")]
    applications = [f"module_app {name}.so" for name in ("account", "menu")]
    audio = ["audio_source ausine,440", "audio_player ausine,440"]
    lines = [f"sip_listen {listen}", f"module_path {MODULES}", *modules, *audio, *applications]
    (directory / "config").write_text("\n".join(lines) + "\n")
    (directory / "accounts").write_text(f"<sip:{caller}@{PHONE['udp']};transport={way}>;regint=0\n")
    (directory / "contacts").touch()
    process = subprocess.Popen(
        [
            program("baresip"), "-4", "-n", PHONE["udp"], "-f", str(directory), "-t", "10",
            "-e", f"/dial sip:{dialled}@{target[0]}:{target[1]}",
        ],
        cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    # It ends by itself after 10 s; a call that is over need not wait for that.
    shown = []
    for line in process.stdout:
        shown.append(line.decode(errors="replace").rstrip())
        if "session closed" in shown[-1]:
            break
    process.terminate()
    process.stdout.close()
    process.wait(10)
    closed = re.search(r"session closed: (\d{3})\b", shown[-1] if shown else "")
    check(closed, "baresip's call had no end:\n  " + "\n  ".join(shown[-6:]))
    return int(closed[1])


def sipsak(way, uri, *options):
    """The final response that sipsak prints."""
    try:
        result = subprocess.run(
            [program("sipsak"), "-vvv", "-E", way, *options, "-s", uri],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=10, check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"sipsak {uri} over {way} did not end") from None
    found = re.findall(r"(?ms)^SIP/2\.0 ([2-6]\d\d) .*?^\r?$", result.stdout)
    check(found, f"sipsak {uri} over {way}: no final response\n{result.stdout[-600:]}{result.stderr[-300:]}")
    return int(found[-1]), result.stdout


def baresip_calls(bench, ways):
    """baresip calls straight and through each Kamailio, over UDP and TCP."""
    for index, transport in enumerate(("udp", "tcp")):
        created = bench.create(mobile(100 + index))
        name = f"baresip over {transport}"
        code = baresip(bench.node, transport, created["phone"], created["dial"]["number"], bench.node.sip)
        check(code == 486, f"{name}: {code}, not 486")
        bench.verified(created, name, **STRAIGHT)
        for sbc in ways:
            created = bench.create(LINES[PHONE[transport]])
            name = f"baresip over {transport}, Kamailio over {sbc.way}"
            # Kamailio tells the number of the line, whatever the phone shows.
            code = baresip(bench.node, transport, "alice", created["dial"]["number"], sbc.address)
            check(code == 486, f"{name}: {code}, not 486")
            bench.verified(created, name, **THROUGH)
    print("baresip: 2 calls straight, 4 through Kamailio: 486, verified")


def sipsak_requests(bench, ways):
    """OPTIONS and INVITEs of sipsak, straight and through Kamailio."""
    for sbc, target in [(None, bench.node.sip), *((sbc, sbc.address) for sbc in ways)]:
        to = f"Kamailio over {sbc.way}" if sbc else "ringproof"
        host = f"{target[0]}:{target[1]}"
        for transport in ("udp", "tcp"):
            name = f"OPTIONS of sipsak over {transport} to {to}"
            code, _ = sipsak(transport, f"sip:{host}")
            check(code == 200, f"{name}: {code}, not 200")
            code, text = sipsak(transport, f"sip:+{FIRST_NUMBER}@{host}")
            check(code == 200, f"{name}, with a number: {code}, not 200")
            # Kamailio itself allows no BYE: this answer is the node's.
            check(re.search(r"(?m)^Allow: .*\bBYE\b", text), f"{name}, with a number: the 200 is not ringproof's")
        # Over TCP sipsak takes Kamailio's 100 and the 486 behind it for one message, and waits on.
        for transport in ("udp",) if sbc else ("udp", "tcp"):
            name = f"INVITE of sipsak over {transport} to {to}"
            created = bench.create(LINES["127.0.0.1"] if sbc else mobile(110))
            code = sipsak_call(bench.node, transport, created["phone"], created["dial"]["number"], host)
            check(code == 486, f"{name}: {code}, not 486")
            bench.verified(created, name, **(THROUGH if sbc else STRAIGHT))
    print("sipsak: OPTIONS got 200; 2 INVITEs straight, 2 through Kamailio: 486, verified")


def sipsak_call(node, transport, caller, dialled, host):
    """The final response to an INVITE that sipsak sends from a file, with a Via of its own."""
    uri = f"sip:{dialled}@{host}"
    file = node.directory / "invite.sip"
    file.write_bytes(
        (
            f"INVITE {uri} SIP/2.0\r\n"
            f"Max-Forwards: 70\r\n"
            f"From: <sip:{caller}@127.0.0.1>;tag={secrets.token_hex(6)}\r\n"
            f"To: <{uri}>\r\n"
            f"Call-ID: {secrets.token_hex(10)}\r\n"
            f"CSeq: 1 INVITE\r\n"
            f"Contact: <sip:127.0.0.1>\r\n"
            f"Content-Length: 0\r\n\r\n"
        ).encode()
    )
    return sipsak(transport, uri, "-f", str(file))[0]


def forged_identities(bench, sbc):
    """What a stranger, or a line that claims to be another, says of itself counts for nothing."""
    victim = bench.create(mobile(120))
    uri = f"sip:{victim['phone']}@operator.example"
    forged = [
        f"P-Asserted-Identity: <{uri};user=phone>, <tel:{victim['phone']}>",
        f"p-asserted-identity : <{uri}>",
        f"P-Preferred-Identity: <{uri}>",
        f"Remote-Party-ID: <{uri}>;party=calling;screen=yes;privacy=off",
        "P-Attestation-Indicator: A",
        "Attestation-Info: A",
        "X-Twilio-VerStat: TN-Validation-Passed-A",
        "Identity: bm9uZQ..YQ;info=<https://c.example/c.pem>;alg=ES256;ppt=shaken",
    ]
    for name, source in (("a stranger", STRANGER), ("a known line", PHONE["udp"])):
        before = Metrics.read(bench.node)
        with Phone(source, sbc.address, victim["phone"], victim["dial"]["number"], forged) as phone:
            code, _ = phone.call()
        check(code == 486, f"forged call of {name}: {code}, not 486")
        after = Metrics.read(bench.node)
        counts = {
            outcome: int(change) for outcome in ("matched", "no_caller", "mismatch", "unmatched")
            if (change := after.total("ringproof_calls_total", trunk="sbc", outcome=outcome)
                - before.total("ringproof_calls_total", trunk="sbc", outcome=outcome))
        }
        # The stranger comes without a number; the line with its own, which is not the one that From names.
        wanted = {"no_caller": 1} if source == STRANGER else {"mismatch": 1}
        check(counts == wanted, f"forged call of {name}: outcomes {counts}, expected {wanted}")
        bench.pending(victim, f"forged call of {name}")
    # The same header from an operator counts, so it was Kamailio that made the difference.
    with Phone(OPERATOR, sbc.address, "anonymous", victim["dial"]["number"], forged[:1]) as phone:
        code, _ = phone.call()
    check(code == 486, f"the operator's call: {code}, not 486")
    bench.verified(victim, "the operator's call", **THROUGH)
    print("forged identities: verified nobody; the operator's P-Asserted-Identity did")


@contextmanager
def held(node):
    """The process sees nothing of what comes, until the end of the block or for 3 s."""
    node.process.send_signal(signal.SIGSTOP)
    release = threading.Timer(3, node.process.send_signal, [signal.SIGCONT])
    release.start()
    try:
        yield
    finally:
        release.cancel()
        node.process.send_signal(signal.SIGCONT)


def canceled_calls(bench, ways):
    """A caller hangs up while the node is silent: Kamailio keeps the CANCEL to itself, or relays it at once."""
    with Kamailio(bench.node, "udp", CANCEL_METHOD=2) as udp, Kamailio(bench.node, "tcp", CANCEL_METHOD=2) as tcp:
        for index, (sbc, relayed) in enumerate([*((sbc, 0) for sbc in ways), (udp, 1), (tcp, 1)]):
            sbc.wait_until("AP")
            code = canceled_call(bench, sbc, mobile(130 + index), relayed)
            print(f"canceled call, Kamailio over {sbc.way}: CANCEL {told(relayed)}, the caller got {code}, verified")


def told(relayed):
    """What Kamailio does with a CANCEL."""
    return "relayed" if relayed else "kept"


def canceled_call(bench, sbc, caller, relayed):
    """INVITE and CANCEL come to the node one behind the other; the call counts. What the caller gets."""
    created = bench.create(caller)
    before, unknown = bench.requests("CANCEL", sbc.way), bench.responses(481)
    with Phone(OPERATOR, sbc.address, caller, created["dial"]["number"], asserting(caller)) as phone:
        with held(bench.node):
            phone.send("INVITE")
            code, _ = phone.receive("INVITE")
            check(code == 100, f"the INVITE got {code} while the node is held, not 100")
            # Kamailio says 100 first and relays then. A CANCEL that came between would leave nothing to relay.
            time.sleep(0.2)
            phone.send("CANCEL")
            code, _ = phone.receive("CANCEL")
            check(code == 200, f"the CANCEL got {code}, not 200")
        final, _ = phone.final()
        bench.verified(created, f"canceled call, Kamailio over {sbc.way}", **THROUGH)
        # Once more, behind the refusal.
        phone.send("CANCEL")
        code, _ = phone.receive("CANCEL")
        check(code == 200, f"the CANCEL behind the refusal got {code}, not 200")
    seen = bench.requests("CANCEL", sbc.way) - before
    check(seen == relayed, f"{seen:g} CANCELs came over {sbc.way}, expected {relayed}")
    unknown = bench.responses(481) - unknown
    # Two datagrams may meet two workers, and the CANCEL overtake its INVITE; on a connection it cannot.
    check(unknown == 0 or sbc.way == "udp", "ringproof did not know the INVITE of a CANCEL on the same connection")
    # 487 where the call still waited for its commit.
    allowed = (486, 487) if relayed else (486,)
    check(final in allowed, f"the canceled INVITE got {final}, the CANCEL was {told(relayed)}")
    return final


def drain_and_return(bench, ways):
    """A node that drains takes calls, but gets none through Kamailio; when it is back, it does."""
    node = bench.node
    waiting = [bench.create(mobile(140 + index)) for index in range(len(ways))]
    straight = bench.create(mobile(150))
    node.process.send_signal(signal.SIGTERM)
    for sbc in ways:
        sbc.wait_until("IP")
    code, _ = sipsak("udp", f"sip:{node.sip[0]}:{node.sip[1]}")
    check(code == 503, f"OPTIONS to a draining node got {code}, not 503")
    for sbc, created in zip(ways, waiting):
        call_through(sbc, created, 503)
        code, _ = sipsak("udp", f"sip:{sbc.address[0]}:{sbc.address[1]}")
        check(code == 503, f"OPTIONS to a Kamailio without a node got {code}, not 503")
    code = baresip(node, "udp", straight["phone"], straight["dial"]["number"], node.sip)
    check(code == 486, f"a call straight to the draining node got {code}, not 486")
    bench.verified(straight, "a call while draining", **STRAIGHT)
    for created in waiting:
        bench.pending(created, "a call that got 503")
    check(node.stop() == 0, "ringproof did not end with 0 on its second SIGTERM")
    call_through(ways[0], waiting[0], 503)
    bench.api.disconnect()
    node.start()
    for sbc, created in zip(ways, waiting):
        sbc.wait_until("AP")
        call_through(sbc, created, 486)
        bench.verified(created, "a call after the restart", **THROUGH)
    print("drain: out of use at Kamailio, 503 to callers; back after the restart, the same callers verified")


def call_through(sbc, created, expected):
    """An operator's call through Kamailio, and what the caller must get."""
    caller = created["phone"]
    with Phone(OPERATOR, sbc.address, caller, created["dial"]["number"], asserting(caller)) as phone:
        code, text = phone.call()
    check(code == expected, f"a call through Kamailio over {sbc.way} got {code}, not {expected}")
    if expected == 503:
        check(re.search(r"(?m)^Retry-After: 1\r$", text), f"the 503 of Kamailio has no Retry-After:\n{text}")


def main():
    """All of it on one node."""
    secret = webhook_secret()
    with Receiver([secret], keep=True) as receiver, Node(receiver.url, [secret]) as node:
        configure(node)
        node.start()
        with Kamailio(node, "udp") as udp, Kamailio(node, "tcp") as tcp:
            ways = [udp, tcp]
            for sbc in ways:
                sbc.wait_until("AP")
            bench = Bench(node, receiver)
            baresip_calls(bench, ways)
            sipsak_requests(bench, ways)
            forged_identities(bench, udp)
            canceled_calls(bench, ways)
            drain_and_return(bench, ways)
        check(not receiver.rejected, f"{len(receiver.rejected)} deliveries refused, first: {receiver.rejected[:1]}")
        node.process.send_signal(signal.SIGINT)
        check(node.process.wait(30) == 0, "ringproof did not end with 0 on SIGINT")


if __name__ == "__main__":
    run_main(main)
