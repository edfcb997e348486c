"""The servers that are measured side by side, each pinned to its cores, on a free port of loopback.

Here are what all share and two of them: the bare responder, which is what the kernel alone costs, and Kamailio. The
third is ringproof, in node.py.
"""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from ringproof import FIRST_NUMBER, Failure, check, free_port

from . import ROOT
from .machine import KAMAILIO

# Nobody's number: the generator does not call from it and nothing is pending for it.
STRANGER = "+966559999999"
CALLED = f"+{FIRST_NUMBER}"


class Server:
    """A process that refuses calls. `transport` is udp or tcp, `cores` what `taskset -c` takes, or nothing."""

    def __init__(self, name, cores, transport="udp"):
        self.name = name
        self.cores = cores
        self.transport = transport
        self.address = ("127.0.0.1", free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM))
        self.directory = None
        self._process = None

    def command(self):
        """The command line; `self.directory` is there."""
        raise NotImplementedError

    def environment(self):
        """More environment variables."""
        return {}

    def prepare(self):
        """What is to be done once it answers."""

    @property
    def via(self):
        """Where calls go, as the generator wants it."""
        return f"{self.transport}:{self.address[0]}:{self.address[1]}"

    @property
    def process(self):
        """The id of the process; fails where it has ended."""
        check(self._process.poll() is None, self._last_words(f"{self.name} ended with {self._process.returncode}"))
        return self._process.pid

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="ringproof-bench-", dir=self.parent()))
        try:
            self._start()
            self.prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def kill_and_start(self):
        """kill -9, and a start on what is left; returns when a call is answered again."""
        self._process.kill()
        self._process.wait()
        self._start()

    def _start(self):
        pinned = ["taskset", "-c", str(self.cores)] if self.cores is not None else []
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*pinned, *map(str, self.command())], cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env={**os.environ, **self.environment()},
            )
        self._wait_for_answer()

    def __exit__(self, *_):
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def parent(self):
        """Where its directory is made; the system's choice if None."""
        return None

    def place_call(self, caller=STRANGER, dialled=CALLED, seconds=1.0):
        """Places one call and returns the final response as text; `OSError` where none comes."""
        kind = socket.SOCK_DGRAM if self.transport == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as line:
            line.settimeout(seconds)
            line.connect(self.address)
            local = "{}:{}".format(*line.getsockname())
            call = secrets.token_hex(8)
            line.sendall(
                (
                    f"INVITE sip:{dialled}@{self.address[0]} SIP/2.0\r\n"
                    f"Via: SIP/2.0/{self.transport.upper()} {local};branch=z9hG4bK{call};rport\r\n"
                    f"Max-Forwards: 70\r\nFrom: <sip:{caller}@127.0.0.1>;tag={call}\r\n"
                    f"To: <sip:{dialled}@{self.address[0]}>\r\nCall-ID: {call}\r\nCSeq: 1 INVITE\r\n"
                    f"Contact: <sip:{caller}@{local}>\r\nP-Asserted-Identity: <sip:{caller}@127.0.0.1>\r\n"
                    "Content-Length: 0\r\n\r\n"
                ).encode()
            )
            answer = b""
            while b"\r\n\r\n" not in answer:
                part = line.recv(4096)
                if not part:
                    raise ConnectionError("the connection was closed")
                answer += part
            return answer.decode(errors="replace")

    def _wait_for_answer(self):
        deadline = time.monotonic() + 20
        while True:
            _ = self.process
            try:
                answer = self.place_call()
            except OSError:
                check(time.monotonic() < deadline, self._last_words(f"{self.name} answers no call"))
                time.sleep(0.05)
                continue
            check(answer.startswith("SIP/2.0 486 "), f"{self.name} answered {answer.splitlines()[0]!r}, not 486")
            return

    def _last_words(self, message):
        try:
            tail = (self.directory / "log").read_text(errors="replace").splitlines()[-6:]
        except OSError:
            tail = []
        return "\n  ".join([message, *tail])


class Bare(Server):
    """benches/bare_responder.c, compiled to `path`."""

    def __init__(self, path, cores, gso):
        super().__init__("bare, GSO" if gso else "bare", cores)
        self._command = [path, self.address[1], *(["--gso"] if gso else [])]

    def command(self):
        return self._command


class Kamailio(Server):
    """benches/kamailio.cfg with so many pairs pending, and with one of Kamailio's allocators: fm, tlsf or qm.

    qm is what Debian's Kamailio takes unasked, and by far the slowest here: a comparison with it would flatter us.
    """

    def __init__(self, cores, pending, transport="udp", allocator="fm"):
        super().__init__("Kamailio", cores, transport)
        self._pending = pending
        self._allocator = allocator

    def command(self):
        defines = {"LISTEN": self.via, "PENDING": self._pending}
        if self.transport == "tcp":
            defines["OVER_TCP"] = 1
        given = [word for name, value in defines.items() for word in ("-A", f"{name}={value}")]
        return [
            KAMAILIO, "-f", ROOT / "benches" / "kamailio.cfg", "-x", self._allocator, "-DD", "-E", "-m", 128, "-M", 16,
            "-w", self.directory, "-Y", self.directory, "-P", self.directory / "pid", *given,
        ]

    def prepare(self):
        if self._pending == 0:
            return
        answer = self.place_call("+966550000000")
        if "X-Pending: found" not in answer:
            raise Failure("Kamailio does not find the pair that is pending: its table does not work")
