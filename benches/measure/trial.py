"""One run of the load generator against one server, with the CPU time that it took."""

import time

from ringproof import check

from . import cpu, generator

FINAL = "INVITE to final"
# Above these parts a run is flagged: calls lost, and one core's time that went to processes outside.
LOST = 0.001
OTHERS = 0.05


def sip(binary, server, seconds, core, *flags):
    """Warms the server up for a second, then measures; returns the numbers by name."""
    generator.run(generator.sip_load(binary, server, 1, *flags), 1, core)
    command = generator.sip_load(binary, server, seconds, *flags)
    report, numbers = measured(server, lambda: generator.run(command, seconds, core))
    final = report.latency(FINAL)
    check(final is not None, f"no call to {server.name} got an answer: {report.codes}")
    # A server that refuses with something else does other work.
    wrong = sum(count for code, count in report.codes.items() if code.isdigit() and code != "486")
    check(wrong == 0, f"{server.name} gave other answers than 486: {report.codes}")
    return {**numbers, "calls_per_cpu_second": report.ended / numbers["cpu_seconds"], "latency": final}


def measured(server, work):
    """What `work` reports, and the numbers that every kind of run has."""
    before, began = cpu.Reading(server.process), time.monotonic()
    report = work()
    after, wall = cpu.Reading(server.process), time.monotonic() - began
    threads = after.server_since(before)
    others = after.others_since(before) / wall
    flags = []
    if report.lost > LOST * report.begun:
        flags.append(f"{100 * report.lost / report.begun:.2g} % lost")
    if others > OTHERS:
        flags.append(f"{100 * others:.0f} % of a core used by others")
    return report, {
        "server": server.name,
        "begun": report.begun,
        "ended": report.ended,
        "lost": report.lost,
        "retransmissions": report.retransmissions,
        "codes": report.codes,
        "seconds": report.seconds,
        "calls_per_second": report.rate,
        "cpu_seconds": sum(threads.values()),
        "generator_cpu_seconds": after.generator_since(before),
        "threads": threads,
        "flags": flags,
    }
