"""One run of `ringproof load`: what it printed and wrote, and that it adds up."""

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

from ringproof import Failure, check, find_binary, free_port


class Load:
    """Runs `ringproof load`, and reads its reports, in a directory that is kept and named where a test fails."""

    def __init__(self):
        self._binary = find_binary()
        self.directory = Path(tempfile.mkdtemp(prefix="ringproof-interop-"))
        # Nobody listens there: for nodes that have nothing to tell.
        self.nowhere = f"http://127.0.0.1:{free_port(socket.SOCK_STREAM)}/"
        self._numbers = itertools.count(1)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            print(f"kept: {self.directory}", flush=True)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, *arguments, code=0, env=None, hidden=()):
        """One load that ends with `code`: its JSON, after a look at the page and the table."""
        number = next(self._numbers)
        files = [self.directory / f"{number}.{kind}" for kind in ("json", "html")]
        process = self.execute(*arguments, "--json", files[0], "--report", files[1], env=env)
        name = f"load {' '.join(map(str, arguments))}"
        check(process.returncode == code, f"{name}: ended with {process.returncode}, not {code}: {process.stderr}")
        check(all(file.exists() for file in files), f"{name}: wrote no reports: {process.stderr}")
        texts = [process.stdout, process.stderr, *(file.read_text(encoding="utf-8") for file in files)]
        check(not any(secret in text for secret in hidden for text in texts), f"{name}: tells a secret")
        try:
            report = json.loads(texts[2])
        except ValueError as error:
            raise Failure(f"{name}: wrote what is no JSON: {error}") from error
        check_adds_up(name, report)
        check_page(name, report, texts[3])
        for count in ("begun", "ended", "lost"):
            row = re.search(rf"^ *{count} +([\d,]+)", process.stdout, re.MULTILINE)
            check(row and row[1] == f"{report[count]:,}", f"{name}: {count} is not {report[count]} in {process.stdout}")
        return report

    def execute(self, *arguments, env=None):
        """The ended process and what it printed."""
        command = [str(self._binary), "load", *map(str, arguments)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGPROOF_")}
        try:
            return subprocess.run(
                command, cwd=self.directory, env={**environment, **(env or {})}, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=30, check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"{' '.join(command)} did not end within 30 s") from None

    def refused(self, part, code, message, *arguments, env=None, hidden=()):
        """A load that ends with this code and says why; nothing is measured."""
        process = self.execute(part, *arguments, env=env)
        name = f"load {part} {' '.join(map(str, arguments))}"
        check(process.returncode == code, f"{name}: ended with {process.returncode}, not {code}: {process.stderr}")
        check(message in process.stderr, f"{name}: {message!r} is not in {process.stderr!r}")
        check("panicked" not in process.stderr, f"{name}: {process.stderr}")
        check(not any(secret in process.stdout + process.stderr for secret in hidden), f"{name}: tells a secret")
        check(not process.stdout, f"{name}: printed a report: {process.stdout}")
        print(f"misuse: exit {code}, {process.stderr.strip().splitlines()[0][:130]}")


def check_adds_up(name, report):
    """The figures of a report agree among themselves."""
    check(report["begun"] == report["ended"] + report["lost"], f"{name}: {summary(report)} do not add up")
    for count in ("begun", "ended", "lost"):
        total = sum(step[count] for step in report["series"])
        check(total == report[count], f"{name}: {total} {count} in the series, {report[count]} in all")
    for latency in report["latencies"]:
        values = [latency[f"{part}_seconds"] for part in ("min", "p50", "p90", "p99", "p99_9", "max")]
        if latency["count"]:
            mean = latency["mean_seconds"]
            # Values are kept with three digits.
            check(values == sorted(values), f"{name}: percentiles fall: {latency}")
            check(values[0] * 0.998 <= mean <= values[-1] * 1.002, f"{name}: the mean is outside: {latency}")
        else:
            check(values == [None] * 6, f"{name}: values of nothing: {latency}")


def check_page(name, report, text):
    """The page has the numbers of the report and pictures, and loads nothing."""
    page = Page(text)
    check(not page.loads, f"{name}: the page refers to {page.loads[:3]}")
    shown = {setting["value"] for setting in report["settings"]}
    foreign = [text for text in page.texts if text not in shown]
    check(not foreign, f"{name}: addresses on the page that nobody asked for: {foreign[:3]}")
    for count in ("begun", "ended", "lost"):
        check(page.rows.get(count) == f"{report[count]:,}", f"{name}: {count} on the page is {page.rows.get(count)}")
    measured = sum(latency["count"] > 0 for latency in report["latencies"])
    check(page.pictures >= measured, f"{name}: {page.pictures} pictures for {measured} latencies")


def summary(report):
    """The counts of a report in a line."""
    codes = ", ".join(f"{count} {code}" for code, count in report["codes"].items())
    return (
        f"{report['begun']} begun, {report['ended']} ended, {report['lost']} lost, "
        f"{report['retransmissions']} retransmissions, {report['stray']} stray; {codes}"
    )


def check_whole(name, report, calls, codes):
    """Every call of a load ended as it should."""
    counts = [report[count] for count in ("begun", "ended", "lost")]
    check(counts == [calls, calls, 0], f"{name}: {summary(report)}; expected {calls} calls, all ended")
    # Only what was sent twice is answered twice.
    check(report["stray"] <= report["retransmissions"], f"{name}: {summary(report)}")
    check(report["codes"] == codes, f"{name}: codes {report['codes']}, expected {codes}")
    short = [latency for latency in report["latencies"] if latency["count"] != calls]
    check(not short, f"{name}: latencies without all {calls} calls: {short}")


class Page(HTMLParser):
    """A report's page: its rows, what it would load, and elements that are left open or closed twice."""

    VOID = {"meta", "link", "base", "img", "embed", "br", "hr", "path", "line", "rect", "circle", "polyline"}
    LOADING = {"script", "link", "img", "iframe", "object", "embed", "base", "image", "use", "form", "video", "audio"}

    def __init__(self, text):
        super().__init__()
        self.rows, self.loads, self.texts, self.pictures = {}, [], [], 0
        self._open, self._row = [], []
        self.feed(text)
        self.close()
        check(not self._open, f"the page leaves {self._open} open")

    def handle_starttag(self, tag, attrs):
        self._start(tag, attrs)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._start(tag, attrs)

    def _start(self, tag, attrs):
        if tag in self.LOADING:
            self.loads.append(f"<{tag}>")
        for name, value in attrs:
            is_namespace = name.startswith("xmlns")
            if name in ("src", "href", "xlink:href", "srcset", "action") and not (value or "").startswith("#"):
                self.loads.append(f"<{tag} {name}={value}>")
            elif not is_namespace and re.search(r"https?://|url\((?!#)|@import", value or ""):
                self.loads.append(f"<{tag} {name}={value}>")
        self.pictures += tag == "svg"
        if tag == "tr":
            self._row = []

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        check(self._open[-1:] == [tag], f"the page closes <{tag}> in {self._open}")
        self._open.pop()
        if tag == "tr" and len(self._row) == 2:
            self.rows.setdefault(*self._row)

    def handle_data(self, data):
        if self._open[-1:] == ["style"]:
            if re.search(r"https?://|url\(|@import", data):
                self.loads.append(data[:80])
        elif self._open[-1:] in (["td"], ["th"]):
            self._row.append(data)
        if "://" in data:
            self.texts.append(data)
