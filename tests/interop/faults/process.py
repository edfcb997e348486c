"""What happens to the process: kill -9, SIGTERM, and no file descriptors left."""

import random
import resource
import select
import signal
import socket
import time

from ringproof import Metrics, check, wait_for

from .bench import Bench, tool

# What the node may have: fewer than API and SIP would like, and enough for its own files.
DESCRIPTORS = 320
CROWD = 300


def kill(options):
    """kill -9 again and again, at random moments."""
    with Bench(rate=options.rate) as bench:
        began = time.monotonic()
        slowest = 0.0
        for _ in range(options.kills):
            bench.traffic.run(random.uniform(0.030, 0.300))
            bench.kill()
            down = time.monotonic()
            bench.start()
            slowest = max(slowest, time.monotonic() - down)
            check(not bench.traffic.faults, f"the traffic failed: {bench.traffic.faults[:1]}")
        taken = time.monotonic() - began
        bench.traffic.run(0.5)
        return bench.finish(f"{options.kills} kills in {taken:.1f} s, slowest start {slowest * 1000:.0f} ms")


def sigterm(_options):
    """SIGTERM under load, several times: the drain, exit code 0, and all of it there after the next start."""
    with Bench(rate=100) as bench:
        for _ in range(3):
            bench.traffic.run(random.uniform(0.3, 0.8))
            refused = bench.traffic.refused[503, "draining"]
            began = time.monotonic()
            # The traffic goes on meanwhile, so that the drain has something to do.
            code = bench.node.stop()
            check(code == 0, f"ringproof ended with {code} on SIGTERM")
            check(time.monotonic() - began >= 1, "the drain was shorter than drain_seconds")
            check(bench.traffic.refused[503, "draining"] > refused, "no creation was refused while draining")
            bench.traffic.up.clear()
            bench.start()
        bench.traffic.run(0.5)
        return bench.finish("3 times, exit code 0")


def sigterm_twice(_options):
    """A second SIGTERM ends the drain, a third one the stop."""
    def long_drain(node):
        text = node.config.read_text()
        check("drain_seconds = 1\n" in text, "the configuration is not the one that this changes")
        node.config.write_text(text.replace("drain_seconds = 1\n", "drain_seconds = 60\n"))

    with Bench(rate=100, prepare=long_drain) as bench:
        times = []
        for signals in (2, 3, 2):
            bench.traffic.run(0.6)
            process = bench.node.process
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            check(process.poll() is None, "ringproof did not drain")
            began = time.monotonic()
            for _ in range(signals - 1):
                # The third may find that it has ended.
                process.send_signal(signal.SIGTERM)
            wait_for(lambda process=process: process.poll() is not None, 30, "the end by a second SIGTERM")
            check(process.returncode == 0, f"ringproof ended with {process.returncode} on {signals} SIGTERMs")
            times.append(time.monotonic() - began)
            bench.traffic.up.clear()
            bench.start()
        bench.traffic.run(0.5)
        text = bench.node.config.read_text().replace("drain_seconds = 60\n", "drain_seconds = 1\n")
        bench.node.reload(text)
        return bench.finish(f"3 times, exit code 0 at most {max(times):.1f} s after the second")


def no_descriptors(_options):
    """A crowd of idle connections takes all descriptors; then the process may have no more than it holds."""
    def few(node):
        node.command = [tool("prlimit", "util-linux"), f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]

    with Bench(prepare=few) as bench:
        bench.traffic.run(1)
        with Crowd([bench.node.api, bench.node.sip], CROWD) as crowd:
            bench.traffic.run(2)
            held = descriptors(bench.node)
            during = len(bench.traffic.created)
            bench.traffic.run(1)
            check(len(bench.traffic.created) > during, "nothing was created beside the crowd")
            check(held <= DESCRIPTORS, f"{held} descriptors are open")
            opened = crowd.opened
        bench.traffic.run(0.5)
        failures = starve(bench)
        bench.traffic.run(1)
        return bench.finish(f"{opened} idle connections, {held} of {DESCRIPTORS} descriptors; {failures}")


def starve(bench):
    """Leaves the process no descriptor for two seconds, with clients that want one."""
    pid = bench.node.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    bench.traffic.up.set()
    with Crowd([bench.node.api, bench.node.sip], 4):
        time.sleep(2)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    seen = Metrics.read(bench.node)
    accepts = seen.total("ringproof_sip_accept_failures_total")
    return f"{accepts:.0f} accepts failed while there was none"


class Crowd:
    """Idle TCP connections to each of these addresses."""

    def __init__(self, addresses, count):
        self._addresses, self._count = addresses, count
        self._sockets = []
        self.opened = 0

    def __enter__(self):
        for address in self._addresses:
            for _ in range(self._count):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(address)
                self._sockets.append(one)
        time.sleep(0.5)
        poll = select.poll()
        for one in self._sockets:
            poll.register(one, select.POLLOUT)
        self.opened = sum(1 for _, events in poll.poll(0) if not events & (select.POLLERR | select.POLLHUP))
        return self

    def __exit__(self, *_):
        for one in self._sockets:
            one.close()


def descriptors(node):
    """How many files the process has open, as its own metrics say."""
    return int(Metrics.read(node).total("process_open_fds"))


FAULTS = (kill, sigterm, sigterm_twice, no_descriptors)
