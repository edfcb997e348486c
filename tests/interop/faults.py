#!/usr/bin/env python3
"""Faults, a few at a time, each on a node of its own under traffic; after each both sides' records are compared.

A node is run on a disk that fills up or fails, with webhook receivers that hang, lie or lead astray, on clocks that
step, without descriptors, and is killed and stopped, while verifications are begun, called, canceled and watched. After
each fault `invariants.examine` reads everything over the API and holds it against what was answered and seen. A line
for each fault tells what was counted; exit code 1 where a promise was broken. What this machine cannot run is skipped
aloud. docs/reliability.md has the promises and the figures.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import faults
from faults.bench import Options, Skipped
from ringproof import Failure, find_binary

SKIPPED = 77


def run(name, options):
    """Runs one fault here; gives the exit code."""
    random.seed(f"{options.seed} {name}")
    began = time.monotonic()
    try:
        result = faults.ALL[name](options)
        broken = result.findings.broken
        told = f"{result.findings.line()}; {result.notes}"
    except Skipped as skipped:
        print(f"{name:24} SKIPPED: {skipped}", flush=True)
        return SKIPPED
    except Failure as failure:
        broken, told = [str(failure)], "not examined"
    word = "FAILED" if broken else "ok"
    lines = [f"{name:24} {time.monotonic() - began:5.1f} s  {word}: {told}"]
    lines += [f"    BROKEN: {line}" for line in broken]
    if broken:
        lines.append(f"    again: tests/interop/faults.py --only {name} --seed {options.seed} --kills {options.kills}")
    print("\n".join(lines), flush=True)
    return 1 if broken else 0


def run_apart(name, options):
    """Runs one fault in a process of its own and prints what it says; gives the exit code."""
    command = [sys.executable, __file__, "--only", name, "--seed", str(options.seed), "--kills", str(options.kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print((done.stdout + done.stderr).rstrip(), flush=True)
    return done.returncode


def main():
    """The faults that are asked for, the long ones first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of faults, with commas between them")
    parser.add_argument("--list", action="store_true", help="prints the names and ends")
    parser.add_argument("--seed", type=int, default=None, help="seed of what is random")
    parser.add_argument("--kills", type=int, default=15, help="how often the fault `kill` kills the process")
    parser.add_argument("--jobs", type=int, default=3, help="how many faults run at once")
    arguments = parser.parse_args()
    if arguments.list:
        for name, fault in faults.ALL.items():
            print(f"{name:24} {fault.__doc__}")
        return 0
    names = arguments.only.split(",") if arguments.only else list(faults.ALL)
    unknown = [name for name in names if name not in faults.ALL]
    if unknown:
        parser.error(f"no such fault: {', '.join(unknown)}; --list tells them")
    find_binary()
    options = Options(random.randrange(1 << 32) if arguments.seed is None else arguments.seed, arguments.kills)
    if len(names) == 1:
        return run(names[0], options)
    print(f"seed {options.seed}, {os.cpu_count()} cores", flush=True)
    began = time.monotonic()
    # Those that wait most of their time begin first.
    names.sort(key=lambda name: not name.startswith(("clock", "sigterm-on")))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        codes = list(pool.map(lambda name: run_apart(name, options), names))
    well, skipped = codes.count(0), codes.count(SKIPPED)
    broken = len(codes) - well - skipped
    print(f"{well} ok, {skipped} skipped, {broken} failed in {time.monotonic() - began:.0f} s", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
