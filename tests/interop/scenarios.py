#!/usr/bin/env python3
"""Every SIPp scenario, as real SIPp runs it, against the real process: a few calls of each, over UDP and TCP."""

import itertools

from ringproof import FIRST_NUMBER, NUMBERS, Node, check, mobile, run_main, webhook_secret
from sipp_load import check_all_successful, sipp
from webhooks import Receiver

CALLS = 50
SCENARIOS_BY_REJECT = {486: ["caller", "cancel", "options"], 603: ["caller-603"]}


def main():
    """One process for each refusal code."""
    pairs = [(mobile(index), f"+{FIRST_NUMBER + index % NUMBERS}") for index in range(CALLS)]
    secret = webhook_secret()
    for reject, scenarios in SCENARIOS_BY_REJECT.items():
        with Receiver([secret]) as receiver, Node(receiver.url, [secret], reject=reject) as node:
            node.start()
            for scenario, way in itertools.product(scenarios, ("udp", "tcp-1")):
                name = f"{scenario}-{way}"
                result = sipp(node, name, pairs, CALLS, scenario, way)
                check_all_successful(name, result, CALLS)
                check(result["retransmissions"] == 0, f"{name}: {result['retransmissions']} retransmissions")
            check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


if __name__ == "__main__":
    run_main(main)
