#!/usr/bin/env python3
"""A webhook receiver: checks each event with the official Standard Webhooks library and prints it.

    python3 -m pip install standardwebhooks==1.1.0
    WEBHOOK_SECRET=whsec_.. python3 examples/webhook_receiver.py

It listens on http://127.0.0.1:9100/hook; PORT in the environment names another port. The secret is the one in the
`secrets` of the `[[application.webhook]]` that points here.
"""

import os
import sys
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from standardwebhooks import Webhook, WebhookVerificationError

MAX_BODY = 512 * 1024
REMEMBERED = 100_000


class Inbox:
    """What has been taken. A real receiver keeps both in its database, in the transaction that acts on the event."""

    def __init__(self):
        self._lock = Lock()
        self._seen = OrderedDict()
        self._sequences = OrderedDict()

    def take(self, event_id, event):
        """Says whether the event is new, and whether it is newer than what is known of its verification."""
        data = event["data"]
        with self._lock:
            if event_id in self._seen:
                return False, False
            self._seen[event_id] = True
            # Events about deliveries and endpoints are about no verification and have no order.
            newest = "sequence" not in data or data["sequence"] > self._sequences.get(data["id"], 0)
            if newest and "sequence" in data:
                self._sequences[data["id"]] = data["sequence"]
            for memory in (self._seen, self._sequences):
                if len(memory) > REMEMBERED:
                    memory.popitem(last=False)
            return True, newest


class Hook(BaseHTTPRequestHandler):
    """One endpoint: POST /hook."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    webhook = None
    inbox = Inbox()

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            return self._answer(413)
        body = self.rfile.read(int(length))
        if self.path != "/hook":
            return self._answer(404)
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            # The signature covers the bytes as they came: check them before anything parses them.
            event = self.webhook.verify(body, headers)
        except (WebhookVerificationError, ValueError) as error:
            # ValueError: base64, UTF-8 or JSON that is none.
            print(f"refused: {error}", flush=True)
            return self._answer(400)
        if event["type"] == "event.batch":
            # An endpoint with `batch` in its configuration: each event has its id in itself.
            for one in event["data"]["events"]:
                self._take(one["id"], one)
        else:
            self._take(headers["webhook-id"], event)
        # Answer fast; slow work belongs behind a queue of your own. A duplicate is a success too.
        self._answer(204)

    def _take(self, event_id, event):
        new, newest = self.inbox.take(event_id, event)
        data = event["data"]
        if not new:
            print(f"{event_id}  again, ignored", flush=True)
        elif "id" not in data:
            print(f"{event['type']}  {data}", flush=True)
        else:
            late = "" if newest else "  (older than what is known)"
            level = data["assurance"] or "-"
            print(f"{event['type']}  {data['id']}  {data['status']}  assurance {level}{late}", flush=True)

    def _answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    secret = os.environ.get("WEBHOOK_SECRET")
    if not secret:
        sys.exit("set WEBHOOK_SECRET to the whsec_.. secret of this endpoint")
    Hook.webhook = Webhook(secret)
    port = int(os.environ.get("PORT", "9100"))
    with ThreadingHTTPServer(("127.0.0.1", port), Hook) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}/hook", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
