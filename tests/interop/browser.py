#!/usr/bin/env python3
"""A real browser follows a verification: headless Chromium with the page of examples/browser.html.

It turns green when the call has come, also where the node was killed in between; it stays away after the end; and a
page of another origin sees nothing.
"""

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

from caller import Caller
from ringproof import ROOT, Api, Metrics, Node, check, mobile, run_main, wait_for, webhook_secret

PATIENCE = 60

# Tells the test what a page does. Runs before the page's own script.
WITNESS = """
<script>
  let before = Promise.resolve();
  const tell = (what) => {
    before = before.then(() => fetch("/told", { method: "POST", body: JSON.stringify(what) }));
  };
  const Native = EventSource;
  window.EventSource = class extends Native {
    constructor(url) {
      super(url);
      this.addEventListener("status", (event) => {
        const shown = { kind: "status", event: event.lastEventId, data: JSON.parse(event.data) };
        // The page's own listener comes after this one.
        setTimeout(() => tell({ ...shown, color: getComputedStyle(document.body).backgroundColor }));
      });
      this.addEventListener("end", () => setTimeout(() => tell({ kind: "end" })));
      this.addEventListener("error", () => {
        const state = this.readyState;
        setTimeout(() => tell({ kind: "error", state }));
      });
      if (STUBBORN) this.close = () => {};
    }
  };
</script>
"""
GREEN = "rgb(27, 127, 59)"


class Site:
    """The shop's own web server: one page, and what its browsers tell."""

    def __init__(self):
        self.told = queue.Queue()
        self.at = 0.0
        page = (ROOT / "examples" / "browser.html").read_text(encoding="utf-8")
        site = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                stubborn = "true" if self.path.startswith("/stubborn") else "false"
                witness = WITNESS.replace("STUBBORN", stubborn)
                found = self.path in ("/", "/stubborn")
                body = page.replace("<body>", "<body>" + witness, 1).encode() if found else b""
                self._send(200 if found else 404, body)

            def do_POST(self):
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                site.told.put((time.monotonic(), told))
                self._send(204, b"")

            def _send(self, status, body):
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def next(self, what):
        """The next thing told. `at` is then when it was."""
        try:
            self.at, told = self.told.get(timeout=PATIENCE)
        except queue.Empty:
            check(False, f"the browser told nothing for {PATIENCE} s; waited for {what}")
        return told

    def close(self):
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()


class Browser:
    """One headless Chromium on one page."""

    def __init__(self, url):
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        check(program, "no Chromium here (Debian package chromium)")
        self._profile = tempfile.mkdtemp(prefix="ringproof-browser-")
        self._log = open(os.path.join(self._profile, "log"), "wb")
        self._process = subprocess.Popen(
            [
                program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--no-proxy-server", "--remote-debugging-port=0", f"--user-data-dir={self._profile}", url,
            ],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self._profile, ignore_errors=True)


def begin(node, index, site, page="/", host="localhost"):
    """A verification, and the address of the page that follows it."""
    status, created = Api(node).create(mobile(index))
    check(status == 201, f"create answered {status}: {created}")
    given = {
        "number": created["dial"]["number"],
        "events_url": f"http://{node.api[0]}:{node.api[1]}{created['client']['events_url']}",
    }
    return created, f"http://{host}:{site.port}{page}#{urlencode(given)}"


def status_of(told):
    """The status that a page was told; `None` where it was told something else."""
    return told["data"]["status"] if told["kind"] == "status" else None


def verify(node, created):
    """Places the call that verifies; gives when it was answered."""
    over = queue.Queue()
    with Caller(node.sip, over.put) as caller:
        caller.place(created["phone"], created["dial"]["number"])
        call = over.get(timeout=30)
    check(call.code == 486, f"the call was answered {call.code}")
    return call.answered


def follows(node, site):
    """Sees the state, lives through a kill of the node, turns green, and closes."""
    created, url = begin(node, 1, site)
    with Browser(url):
        told = site.next("the first state")
        check(status_of(told) == "pending", f"first told: {told}")
        check(set(told["data"]) == {"id", "status", "expires_at", "reasons"}, f"told more: {told}")
        node.kill()
        told = site.next("the broken connection")
        check(told == {"kind": "error", "state": 0}, f"after the kill: {told}")
        node.start()
        wait_for(lambda: Metrics.read(node).total("ringproof_client_streams") == 1, PATIENCE, "the browser's return")
        answered = verify(node, created)
        told = site.next("the result")
        while told["kind"] == "error":  # tries while the node was down
            told = site.next("the result")
        took = max(0.0, site.at - answered)
        check(status_of(told) == "verified", f"after the call: {told}")
        check(told["color"] == GREEN, f"the page is not green: {told}")
        check(site.next("the end")["kind"] == "end", "no end was told")
    print(f"follows: nothing twice and nothing missed over a kill -9, green {took * 1000:.0f} ms after the 486")


def stays_away(node, site):
    """A page that does not close its EventSource comes back, and 204 keeps it away."""
    created, url = begin(node, 2, site, page="/stubborn")
    with Browser(url):
        check(status_of(site.next("the first state")) == "pending", "not pending")
        verify(node, created)
        check(status_of(site.next("the result")) == "verified", "not verified")
        check(site.next("the end")["kind"] == "end", "no end was told")
        told = site.next("the closed connection")
        check(told == {"kind": "error", "state": 0}, f"after the end: {told}")
        told = site.next("what 204 does")
        check(told == {"kind": "error", "state": 2}, f"after 204: {told}")
    print("stays away: 204 closes the EventSource for good")


def another_origin(node, site):
    """A page that is not in allowed_origins sees nothing."""
    _, url = begin(node, 3, site, host="127.0.0.1")
    with Browser(url):
        told = site.next("the refusal")
        check(told == {"kind": "error", "state": 2}, f"a page of another origin was told {told}")
    print("another origin: refused for good")


def main():
    """One node, one site, three pages."""
    site = Site()
    origins = f'allowed_origins = ["http://localhost:{site.port}"]'
    with Node("http://127.0.0.1:9/hook", [webhook_secret()], application=origins) as node:
        node.start()
        follows(node, site)
        stays_away(node, site)
        another_origin(node, site)
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")
    site.close()


if __name__ == "__main__":
    run_main(main)
