"""Places missed calls over UDP as a carrier's gateway does: INVITE, again until a final response comes, then ACK."""

import heapq
import re
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field

T1 = 0.5
GIVE_UP = 32.0


@dataclass
class Call:
    """One INVITE and what became of it. Times are `time.monotonic()`."""

    caller: str
    dialled: str
    context: object = None
    call_id: str = field(default_factory=lambda: secrets.token_hex(12) + "@127.0.0.1")
    branch: str = field(default_factory=lambda: "z9hG4bK" + secrets.token_hex(10))
    tag: str = field(default_factory=lambda: secrets.token_hex(6))
    first_sent: float = 0.0
    sent: int = 0
    code: int = 0
    answered: float = 0.0
    gave_up: bool = False

    @property
    def over(self):
        """Whether a final response came or the caller gave up."""
        return self.code != 0 or self.gave_up


class Caller:
    """A thread with one socket and any number of calls in flight. `on_final` is told of each call that is over."""

    def __init__(self, target, on_final=lambda call: None):
        self._target = target
        self._on_final = on_final
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.02)
        self._port = self._socket.getsockname()[1]
        self._calls = {}
        self._lock = threading.Lock()
        self._timers = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def place(self, caller, dialled, context=None):
        """Sends an INVITE and returns its call at once."""
        call = Call(caller, dialled, context)
        call.first_sent = time.monotonic()
        with self._lock:
            self._calls[call.call_id] = call
            heapq.heappush(self._timers, (call.first_sent + T1, T1, call.call_id))
        self._send(call)
        return call

    def open(self):
        """How many calls have no final response yet."""
        with self._lock:
            return len(self._calls)

    def close(self):
        """Stops the thread; open calls stay unanswered."""
        self._closed = True
        self._thread.join(5)
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _run(self):
        while not self._closed:
            try:
                self._receive(self._socket.recv(65535))
            except TimeoutError:
                pass
            self._resend(time.monotonic())

    def _resend(self, now):
        due, over = [], []
        with self._lock:
            while self._timers and self._timers[0][0] <= now:
                _, interval, call_id = heapq.heappop(self._timers)
                call = self._calls.get(call_id)
                if call is None:
                    continue
                if now - call.first_sent >= GIVE_UP:
                    call.gave_up = True
                    over.append(self._calls.pop(call_id))
                    continue
                due.append(call)
                # A gateway doubles the interval (RFC 3261 17.1.1.2); a steady one meets more moments of a restart.
                heapq.heappush(self._timers, (now + interval, interval, call_id))
        for call in due:
            self._send(call)
        for call in over:
            self._on_final(call)

    def _receive(self, message):
        status = re.match(rb"SIP/2\.0 (\d{3}) ", message)
        call_id = re.search(rb"(?im)^(?:Call-ID|i)[ \t]*:[ \t]*(\S+)", message)
        if not status or not call_id or int(status[1]) < 200:
            return
        with self._lock:
            call = self._calls.pop(call_id[1].decode(), None)
        if call is None:
            return
        call.answered = time.monotonic()
        call.code = int(status[1])
        to = re.search(rb"(?im)^(?:To|t)[ \t]*:[ \t]*([^\r\n]+)", message)
        if to:
            self._datagram(self._message(call, "ACK", to[1].decode("latin-1")))
        self._on_final(call)

    def _send(self, call):
        call.sent += 1
        self._datagram(self._message(call, "INVITE", f"<sip:{call.dialled}@127.0.0.1;user=phone>"))

    def _datagram(self, data):
        try:
            self._socket.sendto(data, self._target)
        except OSError:
            pass  # as good as lost on the way: the next retransmission repeats it

    def _message(self, call, method, to):
        caller = f"<sip:{call.caller}@127.0.0.1:{self._port};user=phone>"
        return (
            f"{method} sip:{call.dialled}@{self._target[0]}:{self._target[1]};user=phone SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{self._port};rport;branch={call.branch}\r\n"
            f"Max-Forwards: 70\r\n"
            f"From: {caller};tag={call.tag}\r\n"
            f"To: {to}\r\n"
            f"Call-ID: {call.call_id}\r\n"
            f"CSeq: 1 {method}\r\n"
            f"Contact: <sip:127.0.0.1:{self._port}>\r\n"
            f"P-Asserted-Identity: {caller}\r\n"
            f"Content-Length: 0\r\n\r\n"
        ).encode()
