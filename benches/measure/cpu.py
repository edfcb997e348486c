"""CPU time of a server's threads, of the load generator, and of everybody else, as Linux accounts it.

A thread's time is what the scheduler ran it for, in nanoseconds (`schedstat`). A thread that has ended takes its time
along: what is measured must keep its threads.
"""

import os
import resource
from pathlib import Path

PROC = Path("/proc")
TICK = os.sysconf("SC_CLK_TCK")


class Reading:
    """How much CPU time everybody has had so far. The server is the process with this id and its descendants."""

    def __init__(self, server):
        processes = _processes()
        family = _family(server, processes)
        self._threads = {}
        for member in family:
            for task in (PROC / str(member) / "task").glob("*"):
                try:
                    time = int((task / "schedstat").read_text().split()[0])
                    self._threads[task.name] = (task / "comm").read_text().strip(), time
                except (OSError, IndexError):
                    continue
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._generator = usage.ru_utime + usage.ru_stime
        own = {os.getpid(), *family}
        self._others = sum(seconds for process, (_, seconds) in processes.items() if process not in own)

    def server_since(self, earlier):
        """Seconds of the server's threads since the earlier reading, by thread name."""
        names = {}
        for task, (name, time) in self._threads.items():
            before = earlier._threads.get(task, (name, 0))[1]
            names[name] = names.get(name, 0.0) + (time - before) / 1e9
        return names

    def generator_since(self, earlier):
        """Seconds of this script's children that were waited for since the earlier reading."""
        return self._generator - earlier._generator

    def others_since(self, earlier):
        """Seconds of processes that have no part in the measurement."""
        return max(0.0, self._others - earlier._others)


def _processes():
    """Each process's parent, and its CPU seconds with those of its children that have ended."""
    found = {}
    for directory in PROC.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            stat = (directory / "stat").read_text()
        except OSError:
            continue
        # The name stands in parentheses and may hold anything. proc(5) counts the state behind it as field 3.
        fields = stat.rsplit(")", 1)[1].split()
        found[int(directory.name)] = int(fields[1]), sum(map(int, fields[11:15])) / TICK
    return found


def _family(server, processes):
    family = [server]
    for member in family:
        family += [process for process, (parent, _) in processes.items() if parent == member]
    return family
