"""`ringproof load` as the scripts run it, and what it reports."""

import json
import os
import subprocess

from ringproof import FIRST_NUMBER, NUMBERS, Failure

CALLERS = "+966500000000/1000000"
DIALLED = f"+{FIRST_NUMBER}/{NUMBERS}"
# What a run takes beyond its duration: calls in flight at the end, and a busy machine.
PATIENCE = 120


class Report:
    """The report of one run, from its JSON."""

    def __init__(self, document):
        try:
            self.seconds = float(document["elapsed_seconds"])
            self.begun, self.ended, self.lost = document["begun"], document["ended"], document["lost"]
            self.retransmissions = document["retransmissions"]
            self.codes = document["codes"]
            self._latencies = {latency["name"]: latency for latency in document["latencies"]}
        except (KeyError, TypeError) as error:
            raise Failure(f"the load generator's report is not as expected: {error!r} is missing") from error

    @property
    def rate(self):
        """Calls that ended, a second."""
        return self.ended / self.seconds if self.seconds else 0.0

    def latency(self, name):
        """Figures of one latency in seconds, or None: by `p50`, `p90`, `p99`, `p99_9`, `max`, `mean`."""
        found = self._latencies.get(name)
        if found is None:
            raise Failure(f"the load generator reports no latency {name!r}, but {', '.join(self._latencies)}")
        return {
            key.removesuffix("_seconds"): value for key, value in found.items() if key.endswith("_seconds")
        } if found["count"] else None


def sip_load(binary, server, seconds, *flags):
    """The command that places calls to a server, without its `--json`."""
    return [
        binary, "load", "sip", "--via", server.via, "--from", CALLERS, "--to", DIALLED, "--duration", seconds, *flags,
    ]


def run(command, seconds, core=None, environment=None):
    """Runs the command for about so many seconds, pinned to a core if one is given, and returns its report."""
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    line = [*pinned, *map(str, command), "--json", "-"]
    try:
        ended = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + PATIENCE, check=False,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"the load generator did not end within {seconds + PATIENCE:g} s") from error
    # A table may stand before it. Exit code 1 with a report is a run with losses.
    found = next((text for text in reversed(ended.stdout.splitlines()) if text.startswith("{")), None)
    if found is None or ended.returncode not in (0, 1):
        said = "\n  ".join(ended.stderr.splitlines()[-6:])
        raise Failure(f"the load generator ended with {ended.returncode}: {' '.join(line)}\n  {said}")
    return Report(json.loads(found))
