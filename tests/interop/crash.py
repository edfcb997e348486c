#!/usr/bin/env python3
"""kill -9 under load: what the process has promised is there after each restart.

Traffic keeps beginning verifications, calling, canceling and watching them, each call sent again until it is answered.
The process is killed at random moments and started again on the same data and ports; in the end it stays up. Then both
sides' records are compared, as `invariants` tells. It is the fault `kill` of `faults.py`, alone and longer.
"""

import argparse
import random

from faults.bench import Options, Skipped
from faults.process import kill
from ringproof import check, run_main


def main():
    """Kill, count, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how often the process is killed")
    parser.add_argument("--rate", type=float, default=400, help="creations a second while the process is up")
    parser.add_argument("--seed", type=int, default=None, help="seed of the moments of the kills")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 32)
    random.seed(seed)
    print(f"seed {seed}", flush=True)
    try:
        result = kill(Options(seed, arguments.kills, arguments.rate))
    except Skipped as skipped:
        print(f"SKIPPED: {skipped}")
        raise SystemExit(77) from None
    for name, count in result.findings.counts.items():
        print(f"{name:44} {count}")
    print(result.notes, flush=True)
    check(not result.findings.broken, "; ".join(result.findings.broken))


if __name__ == "__main__":
    run_main(main)
