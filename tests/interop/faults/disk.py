"""A disk that is full, and one that fails: what cannot be kept is refused, and nothing that was promised is lost."""

import errno
import os
import random
import subprocess
import time
from pathlib import Path

from ringproof import check, mobile, wait_for

from .bench import Bench, Probe, Skipped, is_ready, tool
from .preload import FAIL, SHORT, Preload

SIZE = "200m"
HEALS = 10
# What the configuration gives the drain, and docs/operations.md the stop behind it.
DRAIN, STOP = 1, 25
MOUNT = 'mkdir -p "$0" && mount -t tmpfs -o size=$1,mode=700 tmpfs "$0" && echo mounted && exec cat'


class SmallDisk:
    """A small file system under the node's data directory, in a mount namespace that outlives the node."""

    def __init__(self):
        self._options = next((options for options in (["-m"], ["-r", "-m"]) if mounts(options)), None)
        if self._options is None:
            raise Skipped("this machine lets nobody mount a file system")
        self._keeper = None
        self._folder = None

    def under(self, node):
        """Mounts it, and has the node run where it is seen."""
        command = [tool("unshare", "util-linux"), *self._options, "sh", "-c", MOUNT, str(node.data_dir), SIZE]
        self._keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        check(self._keeper.stdout.readline() == b"mounted\n", "the small file system is not mounted")
        user = ["-U", "--preserve-credentials"] if "-r" in self._options else []
        node.command = [tool("nsenter", "util-linux"), "-t", str(self._keeper.pid), *user, "-m", "--"]
        self._folder = Path(f"/proc/{self._keeper.pid}/root{node.data_dir}")

    def fill(self):
        """Writes until nothing more fits."""
        file = os.open(self._folder / "filler", os.O_WRONLY | os.O_CREAT)
        size = 1 << 20
        while size:
            try:
                os.write(file, bytes(size))
            except OSError as error:
                check(error.errno == errno.ENOSPC, f"the filler cannot be written: {error}")
                size //= 2
        os.close(file)

    def free(self):
        """Gives the room back."""
        (self._folder / "filler").unlink()

    def close(self):
        """Lets the file system go."""
        if self._keeper:
            self._keeper.stdin.close()
            self._keeper.wait()


def mounts(options):
    """Whether unshare with these options may mount."""
    command = [tool("unshare", "util-linux"), *options, "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def disk_full(_options):
    """The disk is full for a while, and once more with kill -9 and a start on the full disk."""
    disk = SmallDisk()
    try:
        with Bench(prepare=disk.under) as bench:
            bench.traffic.run(1.5)
            full(bench, disk)
            time.sleep(2)
            disk.free()
            first = bench.ready(HEALS, "a node that writes again")
            bench.traffic.run(1.5)
            full(bench, disk)
            bench.kill()
            bench.start()
            time.sleep(1)
            disk.free()
            second = bench.ready(HEALS, "a node that writes again after its start on a full disk")
            bench.traffic.run(1)
            return bench.finish(f"ready {max(first, second):.1f} s after there was room; started on a full disk")
    finally:
        disk.close()


def full(bench, disk):
    """Fills the disk and sees that the node says so, and that a call which needs no room is refused as ever."""
    before = bench.traffic.refused[503, "store_unavailable"]
    disk.fill()
    wait_for(lambda: bench.traffic.refused[503, "store_unavailable"] > before, 20, "a creation that is refused")
    wait_for(lambda: not is_ready(bench.node), 5, "/readyz that says 503")
    call = bench.traffic.caller.place(mobile(8_888_888), "+966115000000", Probe())
    wait_for(lambda: call.code, 10, "an answer to a call that matches nothing")
    check(call.code == 486, f"a call that matches nothing was answered {call.code}")


class Sick:
    """The bench of a node whose disk fails on demand."""

    def __init__(self):
        self.preload = None
        self.bench = Bench(prepare=self._prepare)

    def _prepare(self, node):
        self.preload = Preload(node)

    def seen(self):
        """The library must have seen the node's writes and syncs, else nothing was tested."""
        (written, failed), (synced, missed) = self.preload.counts()
        check(written > 100 and synced > 20, f"the library saw {written} writes and {synced} syncs")
        return f"{failed} of {written} writes and {missed} of {synced} syncs were hit"


def sick_for(sick, seconds, **rules):
    """Lets writes or syncs fail for a while, under traffic; gives how long the node took to be ready again."""
    for kind, rule in rules.items():
        getattr(sick.preload, kind)(**rule)
    sick.bench.traffic.run(seconds)
    sick.preload.well()
    return sick.bench.ready(HEALS, "a node that is ready again")


def write_errors(_options):
    """Writes fail with EIO, all and some of them, then with ENOSPC, then only a part is written."""
    sick = Sick()
    with sick.bench as bench:
        bench.traffic.run(1)
        healed = [
            sick_for(sick, 1.5, writes={"action": FAIL}),
            sick_for(sick, 1.5, writes={"action": FAIL, "chance": 0.05}),
            sick_for(sick, 1.5, writes={"action": FAIL, "error": errno.ENOSPC, "chance": 0.5}),
        ]
        before = dict(bench.traffic.refused)
        sick_for(sick, 1.5, writes={"action": SHORT, "chance": 0.3})
        check(dict(bench.traffic.refused) == before, "creations were refused because writes were short")
        return bench.finish(f"{sick.seen()}; ready again after at most {max(healed):.1f} s")


def fsync_errors(_options):
    """fsync fails with EIO, all and some of them: what became of a COMMIT is not known."""
    sick = Sick()
    with sick.bench as bench:
        bench.traffic.run(1)
        healed = [
            sick_for(sick, 2, syncs={"action": FAIL}),
            sick_for(sick, 2, syncs={"action": FAIL, "chance": 0.3}),
            sick_for(sick, 1.5, syncs={"action": FAIL, "left": 1}),
        ]
        return bench.finish(f"{sick.seen()}; ready again after at most {max(healed):.1f} s")


def fsync_errors_and_kill(options):
    """kill -9 while fsync or writes fail: what was not answered may be there or not, what was answered is as it was."""
    sick = Sick()
    with sick.bench as bench:
        for turn in range(options.kills):
            bench.traffic.run(0.3)
            sick.preload.syncs(FAIL, chance=random.choice([1, 1, 0.5]))
            if turn % 3 == 2:
                sick.preload.writes(FAIL, chance=0.1)
            bench.traffic.run(random.uniform(0.05, 0.4))
            bench.kill()
            sick.preload.well()
            bench.start()
        bench.traffic.run(0.5)
        return bench.finish(f"{options.kills} kills; {sick.seen()}")


def sigterm_on_a_failing_disk(_options):
    """SIGTERM while fsync fails: the process ends in time, and what was promised is there after the next start."""
    sick = Sick()
    with sick.bench as bench:
        bench.traffic.run(1)
        sick.preload.syncs(FAIL)
        bench.traffic.run(0.5)
        began = time.monotonic()
        code = bench.node.stop(DRAIN + STOP + 5)
        taken = time.monotonic() - began
        # 1 says that not everything was settled in time.
        check(code in (0, 1), f"ringproof ended with {code} on SIGTERM")
        check(taken < DRAIN + STOP + 2, f"the stop took {taken:.1f} s")
        bench.traffic.up.clear()
        sick.preload.well()
        bench.start()
        bench.traffic.run(0.5)
        return bench.finish(f"exit code {code} after {taken:.1f} s; {sick.seen()}")


FAULTS = (disk_full, write_errors, fsync_errors, fsync_errors_and_kill, sigterm_on_a_failing_disk)
