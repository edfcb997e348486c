"""What the scripts have in common around their measurements: options, order, progress, the raw numbers, the end."""

import json
import os
import shlex
import signal
import sys
from pathlib import Path

from ringproof import Failure, check

from . import machine


def add_options(parser, seconds):
    """Adds the options that every script has."""
    parser.add_argument("--rounds", type=positive, default=5, help="rounds, of which the medians count (5)")
    parser.add_argument("--seconds", type=positive, default=seconds, help=f"seconds of each run ({seconds})")
    parser.add_argument("--binary", help="the ringproof to measure; without it the release build, made first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the raw numbers go")


def add_cores(parser):
    """Adds the options of the scripts that give the server and the generator a core each."""
    parser.add_argument("--generator-core", type=int, default=1, help="core of the load generator (1)")
    parser.add_argument("--server-core", type=int, default=0, help="core of the server (0)")


def add_allocator(parser):
    """Adds the choice of Kamailio's allocator."""
    words = "Kamailio's allocator (fm); qm is what it takes by itself, and several times slower"
    parser.add_argument("--allocator", choices=["fm", "tlsf", "qm"], default="fm", help=words)


def check_cores(options):
    """Fails where the cores cannot be had."""
    allowed = os.sched_getaffinity(0)
    for core in (options.server_core, options.generator_core):
        check(core in allowed, f"core {core} is not among those that may be used, {sorted(allowed)}")
    check(options.server_core != options.generator_core, "server and generator need a core each, these are the same")


def positive(text):
    """A whole number from 1, as an option's type."""
    number = int(text)
    if number < 1:
        raise ValueError("less than 1")
    return number


def list_of_positive(text):
    """Whole numbers from 1 with commas between, as an option's type."""
    return [positive(part) for part in text.split(",")]


def rotated(items, turn):
    """The items in an order that begins one later each turn."""
    turn %= len(items)
    return [*items[turn:], *items[:turn]]


def tell(number, rounds, result, text):
    """A line of progress about one run; rounds count from 0."""
    line = f"round {number + 1} of {rounds}: {result['server']}, {text}"
    print("; ".join([line, *result["flags"]]), file=sys.stderr, flush=True)


def origin():
    """What the numbers are measured on and with. Asked before the first run, so that it is what ran."""
    return {**machine.describe(), "command": shlex.join(sys.argv)}


def print_origin(origin, *more):
    """The same as a paragraph beneath the tables."""
    parts = [f"Machine: {origin['machine']}", f"commit {origin['commit']}", *more, f"command: `{origin['command']}`"]
    print("\n" + "; ".join(parts) + ".")


def flagged(runs):
    """How many of the runs are to be distrusted; what is wrong with each stands in the progress and the raw numbers."""
    count = sum(bool(run["flags"]) for run in runs)
    return f"{count} of {len(runs)}" if count else "none"


def save(path, document):
    """Writes the raw numbers, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def end(main):
    """Runs a script; a failure is one clear line and exit code 1. SIGTERM stops the servers as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except Failure as failure:
        print(f"FAILED: {failure}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
