"""ringproof as a server to measure, on a configuration of its own."""

import hashlib
import itertools
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

from ringproof import FIRST_NUMBER, NUMBERS, Api, check, free_port

from .servers import Server

CREATORS = 16


class Ringproof(Server):
    """One node with one trunk, 100 numbers and one application without limits.

    `pending` verifications are created before anything is measured, for callers that never call. `webhook` is an
    address, a secret and how many events one request may have: the application is a live one then, and all its proofs
    must be good enough for that.
    """

    def __init__(self, binary, cores, workers=0, pending=0, transport="udp", webhook=None, data_dir=None):
        super().__init__({1: "ringproof", 2: "ringproof, 2 workers"}.get(workers, "ringproof"), cores, transport)
        self._binary = binary
        self._workers = workers
        self._pending = pending
        self._webhook = webhook
        self._data_dir = data_dir
        self.api = ("127.0.0.1", free_port(socket.SOCK_STREAM))
        self.admin = ("127.0.0.1", free_port(socket.SOCK_STREAM))
        minted = [binary, "key", "new", "--app", "bench", *(["--live"] if webhook else [])]
        self.key = subprocess.run(minted, capture_output=True, text=True, check=True).stdout.splitlines()[0]

    def parent(self):
        return self._data_dir

    def environment(self):
        return {"RINGPROOF_LOG": "warn"}

    def command(self):
        config = self.directory / "config.toml"
        config.write_text(self._config())
        return [self._binary, "serve", "-c", config]

    def prepare(self):
        if self._pending == 0:
            return
        api, numbers, refused = Api(self), itertools.count(), []

        def create():
            while not refused and (number := next(numbers)) < self._pending:
                status, body = api.create(f"+966{550_000_000 + number}", ttl_seconds=300)
                if status != 201:
                    refused.append(f"a creation was answered {status}: {body}")
            api.disconnect()

        with ThreadPoolExecutor(CREATORS) as pool:
            for creator in [pool.submit(create) for _ in range(CREATORS)]:
                creator.result()
        check(not refused, refused[0] if refused else "")

    def _config(self):
        host = self.address[0]
        webhook = ""
        if self._webhook:
            url, secret, batch = self._webhook
            webhook = (
                f'[[application.webhook]]\nurl = "{url}"\nsecrets = ["{secret}"]\nallow_private = true\n'
                f"batch = {batch}\n"
            )
        return f"""\
[node]
name = "bench"
data_dir = "{self.directory / "data"}"

[sip]
listen = ["udp://{host}:{self.address[1]}", "tcp://{host}:{self.address[1]}"]
workers = {self._workers}
drain_seconds = 0

[[trunk]]
name = "carrier"
peers = ["127.0.0.0/8"]
country = "SA"
scope = "national"
allow_loopback = true
cli = {{ sources = ["pai", "from"], asserted_trust = "operator" }}

[[number]]
range = "+{FIRST_NUMBER}/{NUMBERS}"
trunks = ["carrier"]
cool_down_seconds = 0

[[application]]
name = "bench"
mode = "{"live" if self._webhook else "sandbox"}"
keys = ["sha256:{hashlib.sha256(self.key.encode()).hexdigest()}"]

[application.limits]
creates_per_phone = 0
creates_per_client_ip = 0
creates_per_second = 0
pending_per_phone = 100

{webhook}
[api]
listen = "{self.api[0]}:{self.api[1]}"

[admin]
listen = "{self.admin[0]}:{self.admin[1]}"
"""
