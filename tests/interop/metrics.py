#!/usr/bin/env python3
"""Prometheus' own tools accept the metrics after traffic, the alert rules, and systemd accepts the unit.

`PROMTOOL` names promtool; without one its checks are skipped aloud, and so is systemd's without systemd-analyze.
"""

import os
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from caller import Caller
from ringproof import ROOT, Api, Node, check, find_binary, mobile, run_main, wait_for, webhook_secret
from webhooks import Receiver

UNIT = ROOT / "deploy" / "ringproof.service"
RULES = ROOT / "deploy" / "prometheus-alerts.yml"


def accepted(what, command, **options):
    """Runs a checker, which must say nothing wrong."""
    done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=120, **options)
    check(done.returncode == 0, f"{command[0]} refuses {what}: {done.stdout}{done.stderr}")
    print(f"{what}: accepted by {Path(command[0]).name}")


def check_metrics(promtool):
    """A scrape with something in every kind of metric."""
    secret = webhook_secret()
    with Receiver([secret]) as receiver, Node(receiver.url, [secret]) as node:
        node.start()
        api = Api(node)
        status, created = api.create(mobile(7))
        check(status == 201, f"create answered {status}: {created}")
        api.create("not a number")
        with Caller(node.sip) as caller:
            for phone in (mobile(7), mobile(8)):
                call = caller.place(phone, created["dial"]["number"])
                wait_for(lambda call=call: call.over, 35, "the call's final response")
        wait_for(lambda: receiver.received >= 1, 15, "the webhook")
        with urllib.request.urlopen(f"http://{node.admin[0]}:{node.admin[1]}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        check("ringproof_api_request_seconds_bucket" in text, "no request times in the scrape")
        accepted(f"{len(text.splitlines())} lines of metrics", [promtool, "check", "metrics"], input=text)
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


def check_unit(binary):
    """The unit as it is, but for the place of the program."""
    with tempfile.TemporaryDirectory() as directory:
        unit = Path(directory) / UNIT.name
        unit.write_text(UNIT.read_text().replace("/usr/local/bin/ringproof", str(binary)))
        accepted("the unit", ["systemd-analyze", "verify", str(unit)])


def main():
    """Each check that this machine has the tool for."""
    promtool = shutil.which(os.environ.get("PROMTOOL", "promtool"))
    if promtool:
        accepted("the alert rules", [promtool, "check", "rules", str(RULES)])
        check_metrics(promtool)
    else:
        print("SKIPPED: there is no promtool; metrics and alert rules are not checked")
    if shutil.which("systemd-analyze"):
        check_unit(find_binary())
    else:
        print("SKIPPED: there is no systemd-analyze; the unit is not checked")


if __name__ == "__main__":
    run_main(main)
