"""The real ringproof process, its API and its metrics, as a black-box test sees them.

The binary is `RINGPROOF_BIN`, else `target/release/ringproof`. Everything listens on loopback and lives in a directory
that is removed at the end, or kept and named where a test fails.
"""

import base64
import hashlib
import http.client
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = ROOT / "sip-fixtures" / "scenarios"
FIRST_NUMBER = 966115000000
NUMBERS = 100


class Failure(Exception):
    """What a test found wrong, in a sentence."""


def check(holds, message):
    """Fails the test with `message` unless `holds`."""
    if not holds:
        raise Failure(message)


def run_main(main):
    """Runs a script's `main`; a failure is one clear line and exit code 1."""
    try:
        main()
    except Failure as failure:
        print(f"FAILED: {failure}", flush=True)
        raise SystemExit(1) from None
    print("ok", flush=True)


def wait_for(condition, seconds, what):
    """Waits until `condition()` is true and returns its value; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < deadline, f"{what} did not come about within {seconds:g} s")
        time.sleep(0.05)


def mobile(index):
    """The Saudi mobile number with this index, 0 to 9,999,999."""
    return f"+96650{index:07d}"


def free_port(*kinds):
    """A port that is free for sockets of these kinds, outside the range that outgoing connections take theirs from.

    A port of that range could be taken by one of the test's own connections while the process is down.
    """
    for _ in range(200):
        port = random.randrange(20000, 32000)
        try:
            for kind in kinds:
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise Failure("no free port between 20000 and 32000")


def find_binary():
    """The ringproof to run: what `RINGPROOF_BIN` names, else the release build."""
    binary = Path(os.environ.get("RINGPROOF_BIN", ROOT / "target" / "release" / "ringproof")).resolve()
    check(binary.exists(), f"no binary at {binary}: build it, or name it in RINGPROOF_BIN")
    return binary


class Node:
    """One ringproof on a configuration of its own, with one trunk, 100 numbers and one sandbox application.

    `webhook_lines` are more settings of the webhook, `more_webhooks` pairs of an address and such lines, `application`
    holds more of the application's settings, `sip` of `[sip]`, `number` of `[[number]]`. Ports are chosen once, so a
    node that is killed and started again is found at the same place. `command` stands before the program, and
    `environment` has variables for it beside this process's.
    """

    def __init__(
        self, webhook_url, webhook_secrets, reject=486, webhook_lines="", more_webhooks=(), application="", sip="",
        number="", numbers=NUMBERS,
    ):
        self.binary = find_binary()
        self.directory = Path(tempfile.mkdtemp(prefix="ringproof-interop-"))
        self.data_dir = self.directory / "data"
        self.key = "rp_test_" + secrets.token_hex(24)
        self.sip = ("127.0.0.1", free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM))
        self.api = ("127.0.0.1", free_port(socket.SOCK_STREAM))
        self.admin = ("127.0.0.1", free_port(socket.SOCK_STREAM))
        self.config = self.directory / "config.toml"
        webhooks = [(webhook_url, webhook_lines), *more_webhooks]
        self.config.write_text(self._config(webhooks, webhook_secrets, reject, application, sip, number, numbers))
        self.command = []
        self.environment = {}
        self.process = None
        self.keep = False

    def reload(self, text):
        """Puts another file in the place of the configuration, whole, and has it read."""
        written = self.directory / "config.new"
        written.write_text(text)
        written.replace(self.config)
        self.process.send_signal(signal.SIGHUP)

    def _config(self, webhooks, webhook_secrets, reject, application, sip, number, numbers):
        key = hashlib.sha256(self.key.encode()).hexdigest()
        secret_list = ", ".join(f'"{secret}"' for secret in webhook_secrets)
        webhook_sections = "\n".join(
            f'[[application.webhook]]\nurl = "{url}"\nsecrets = [{secret_list}]\n{lines}\n' for url, lines in webhooks
        )
        return f"""\
[node]
name = "interop"
data_dir = "{self.data_dir}"

[sip]
listen = ["udp://{self.sip[0]}:{self.sip[1]}", "tcp://{self.sip[0]}:{self.sip[1]}"]
drain_seconds = 1
{sip}

[[trunk]]
name = "local"
peers = ["127.0.0.0/8"]
country = "SA"
scope = "national"
reject = {reject}
cli = {{ sources = ["pai", "from"], asserted_trust = "operator" }}

[[number]]
range = "+{FIRST_NUMBER}/{numbers}"
trunks = ["local"]
applications = ["interop"]
{number}

[[application]]
name = "interop"
mode = "sandbox"
keys = ["sha256:{key}"]
{application}

{webhook_sections}
[api]
listen = "{self.api[0]}:{self.api[1]}"

[admin]
listen = "{self.admin[0]}:{self.admin[1]}"
"""

    def start(self, seconds=30):
        """Starts the process and returns once it has printed `ready`."""
        with open(self.directory / "stderr.log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.command, str(self.binary), "serve", "-c", str(self.config)],
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                env={**os.environ, **self.environment},
            )
        ready = threading.Event()
        listeners = {}

        def read(stream):
            for line in stream:
                fields = line.decode(errors="replace").split()
                if len(fields) >= 3 and fields[0] == "listening":
                    url = urlsplit(fields[2])
                    listeners.setdefault(fields[1], []).append((url.hostname, url.port))
                elif fields[:1] == ["ready"]:
                    ready.set()
            stream.close()

        threading.Thread(target=read, args=(self.process.stdout,), daemon=True).start()
        deadline = time.monotonic() + seconds
        while not ready.wait(0.02):
            if self.process.poll() is not None:
                raise self._failure(f"ringproof ended with {self.process.returncode} before it was ready")
            if time.monotonic() > deadline:
                raise self._failure(f"ringproof was not ready within {seconds} s")
        for name, asked in (("sip", [self.sip] * 2), ("api", [self.api]), ("admin", [self.admin])):
            check(listeners.get(name) == asked, f"listener {name} printed as {listeners.get(name)}, asked was {asked}")

    def _failure(self, message):
        self.keep = True
        tail = (self.directory / "stderr.log").read_text(errors="replace").splitlines()[-12:]
        return Failure("\n  ".join([f"{message} (kept: {self.directory})", *tail]))

    def kill(self):
        """Ends the process as a power cut would, as far as a process can tell."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=30):
        """Ends the process by SIGTERM and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failure(f"ringproof did not end within {seconds} s of SIGTERM") from None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if kind is not None or self.keep:
            print(f"kept: {self.directory}", flush=True)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)


class Api:
    """Client of the REST API: one kept-alive connection for each thread."""

    def __init__(self, node, timeout=10):
        self._address = node.api
        self._key = node.key
        self._timeout = timeout
        self._local = threading.local()

    def request(self, method, path, body=None, more_headers=()):
        """Sends one request and returns status and JSON. `OSError` or `HTTPException` where no answer came."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(*self._address, timeout=self._timeout)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._local.connection = connection
        headers = {"Authorization": f"Bearer {self._key}", **dict(more_headers)}
        payload = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            payload = json.dumps(body).encode()
        try:
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self.disconnect()
            raise
        try:
            return response.status, json.loads(text) if text else None
        except ValueError as error:
            raise Failure(f"{method} {path} answered {response.status} with what is no JSON: {text[:200]!r}") from error

    def disconnect(self):
        """Closes this thread's connection, if it has one."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def create(self, phone, **fields):
        """Creates a verification: status and body."""
        return self.request("POST", "/v1/verifications", {"phone": phone, **fields})

    def verification(self, identifier):
        """Looks a verification up: status and body."""
        return self.request("GET", f"/v1/verifications/{identifier}")


class Metrics:
    """One reading of the metrics."""

    _LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
    _LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')

    def __init__(self, text):
        self.samples = []
        for line in text.splitlines():
            match = self._LINE.match(line)
            if match:
                self.samples.append((match[1], dict(self._LABEL.findall(match[2] or "")), float(match[3])))

    @classmethod
    def read(cls, node):
        """Reads `/metrics`."""
        connection = http.client.HTTPConnection(*node.admin, timeout=10)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        check(response.status == 200, f"/metrics answered {response.status}")
        return cls(text)

    def total(self, name, **labels):
        """Sum of all samples of `name` with these labels."""
        return sum(
            value for sample, found, value in self.samples
            if sample == name and all(found.get(key) == wanted for key, wanted in labels.items())
        )

    def above(self, histogram, seconds):
        """How many observations may have been longer than `seconds`, and how many surely were.

        A histogram tells only its buckets: the first count is above the last bound at or below `seconds`, the second
        above the first bound at or past it.
        """
        count = self.total(f"{histogram}_count")
        bounds = {
            float(found["le"]): value for sample, found, value in self.samples if sample == f"{histogram}_bucket"
        }
        below = [bound for bound in bounds if bound <= seconds]
        past = [bound for bound in bounds if bound >= seconds]
        may = count - bounds[max(below)] if below else count
        surely = count - bounds[min(past)] if past else 0
        return int(may), int(surely)


def webhook_secret():
    """A new signing secret of 32 bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
