"""A webhook receiver that checks every signature with the official Standard Webhooks library."""

import asyncio
import json
import threading
from collections import defaultdict
from dataclasses import dataclass

from standardwebhooks import Webhook, WebhookVerificationError

TERMINAL = {f"verification.{status}" for status in ("verified", "expired", "canceled", "denied", "failed")}


@dataclass(frozen=True)
class Delivery:
    """One request that came in, as it came."""

    headers: dict
    body: bytes
    answered: int

    @property
    def webhook_id(self):
        """The event's id, the same on every try."""
        return self.headers.get("webhook-id")

    @property
    def event(self):
        """The body as JSON."""
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """As much of HTTP/1.1 as a webhook needs: requests with Content-Length or in chunks, one answer each, in order."""

    _PHRASES = {204: "No Content", 400: "Bad Request", 500: "Internal Server Error", 503: "Service Unavailable"}

    def __init__(self, receiver):
        self._receiver = receiver
        self._buffer = bytearray()
        self._transport = None

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._buffer += data
        while (request := self._next()) is not None:
            self.answer(self._receiver.take(*request))

    def answer(self, status):
        """Answers the request that was just taken."""
        length = "" if status == 204 else "Content-Length: 0\r\n"
        self._transport.write(f"HTTP/1.1 {status} {self._PHRASES.get(status, 'Status')}\r\n{length}\r\n".encode())

    def _next(self):
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")[1:]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        start = end + 4
        if headers.get("transfer-encoding", "").lower() == "chunked":
            found = self._chunked(start)
        else:
            length = int(headers.get("content-length", "0"))
            whole = len(self._buffer) >= start + length
            found = (bytes(self._buffer[start:start + length]), start + length) if whole else None
        if found is None:
            return None
        body, behind = found
        del self._buffer[:behind]
        return headers, body

    def _chunked(self, at):
        body = b""
        while True:
            line = self._buffer.find(b"\r\n", at)
            if line < 0:
                return None
            size = int(bytes(self._buffer[at:line]).split(b";")[0], 16)
            at = line + 2 + size + 2
            if len(self._buffer) < at:
                return None
            if size == 0:
                return body, at
            body += self._buffer[line + 2:line + 2 + size]


class Receiver:
    """HTTP/1.1 server with kept-alive connections in a thread of its own.

    `answers` are the status codes of the first requests; all later ones get 204. `keep` holds every delivery whole.
    """

    connection = Connection

    def __init__(self, secrets, answers=(), keep=False):
        self._webhooks = [Webhook(secret) for secret in secrets]
        self._answers = list(answers)
        self._keep = keep
        self.deliveries = []
        self.received = 0
        self.accepted = 0
        self.rejected = []
        # verification id -> event type -> webhook-id -> accepted deliveries
        self.events = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            self._loop.create_server(lambda: self.connection(self), "127.0.0.1", 0, backlog=1024)
        )
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        started.set()
        self._loop.run_forever()
        server.close()
        self._loop.close()

    def close(self):
        """Stops listening."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def take(self, headers, body):
        """Checks one request and returns the status code of its answer."""
        self.received += 1
        try:
            for webhook in self._webhooks:
                webhook.verify(body, headers)
            event = json.loads(body)
            # What is about no verification counts under its type.
            identifier, kind = event["data"].get("id", event["type"]), event["type"]
        except (WebhookVerificationError, ValueError, KeyError, TypeError) as error:
            self.rejected.append(f"{type(error).__name__}: {error} (webhook-id {headers.get('webhook-id')})")
            status = 400
        else:
            status = self._answers.pop(0) if self._answers else 204
            if status < 300:
                self.accepted += 1
                self.events[identifier][kind][headers["webhook-id"]] += 1
        if self._keep:
            self.deliveries.append(Delivery(headers, body, status))
        return status

    def verified(self):
        """Ids of the verifications whose `verification.verified` came."""
        return {identifier for identifier, kinds in list(self.events.items()) if "verification.verified" in kinds}

    def terminal_ids(self, identifier):
        """The distinct webhook-ids of one verification's terminal events."""
        kinds = self.events.get(identifier, {})
        return {webhook_id for kind, ids in list(kinds.items()) if kind in TERMINAL for webhook_id in ids}

    def repeated(self):
        """Deliveries beyond the first of each webhook-id."""
        return sum(
            count - 1 for kinds in list(self.events.values()) for ids in list(kinds.values()) for count in ids.values()
        )
