"""`faults.c` in front of the node: it is compiled, its control file made and written to while the node runs."""

import errno
import mmap
import shutil
import struct
import subprocess

from ringproof import ROOT, check

from .bench import Skipped

SOURCE = ROOT / "tests" / "interop" / "faults.c"
LIBRARY = ROOT / "target" / "faults.so"
ALWAYS = 1_000_000
PASS, FAIL, SHORT = range(3)

# `struct control`: two rules of six numbers, five numbers, three texts.
RULE = struct.Struct("<6q")
COUNTERS = 2 * RULE.size
CLOCKS = COUNTERS + 16
TEXTS = CLOCKS + 24
SIZE = TEXTS + 64 + 48 + 48


def build():
    """Compiles the library, unless it is newer than its source."""
    if LIBRARY.exists() and LIBRARY.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise Skipped("there is no C compiler")
    LIBRARY.parent.mkdir(exist_ok=True)
    # Under a name of its own first: several faults may run at once.
    made = LIBRARY.with_name(f"faults.{id(compiler)}.so")
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o", made, SOURCE, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"faults.c does not compile: {done.stderr}")
    made.replace(LIBRARY)


class Preload:
    """The control file of one node."""

    def __init__(self, node):
        build()
        self._path = node.directory / "faults.control"
        self._path.write_bytes(bytes(SIZE))
        with open(self._path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)
        node.environment |= {
            "LD_PRELOAD": str(LIBRARY),
            "RINGPROOF_FAULTS": str(self._path),
            "RINGPROOF_FAULTS_DIR": str(node.data_dir),
        }

    def writes(self, action=PASS, error=errno.EIO, chance=1.0, left=-1):
        """What becomes of writes in the data directory from now on."""
        self._rule(0, action, error, chance, left)

    def syncs(self, action=PASS, error=errno.EIO, chance=1.0, left=-1):
        """What becomes of fsync and fdatasync in the data directory from now on."""
        self._rule(RULE.size, action, error, chance, left)

    def well(self):
        """Nothing fails any more."""
        self.writes()
        self.syncs()

    def _rule(self, at, action, error, chance, left):
        # The action last, so that no call meets half a rule; its counters stay.
        struct.pack_into("<q", self._map, at, PASS)
        struct.pack_into("<3q", self._map, at + 8, error, int(chance * ALWAYS), left)
        struct.pack_into("<q", self._map, at, action)

    def counts(self):
        """Calls seen and hit so far: writes, then syncs."""
        *_, written, hit = RULE.unpack_from(self._map, 0)
        *_, synced, missed = RULE.unpack_from(self._map, RULE.size)
        return (written, hit), (synced, missed)

    def rebind(self, name, first, second):
        """Every odd look-up of `name` gives `first`, every even one `second`; nothing connects to `first`."""
        for at, text, size in ((64, first, 48), (112, second, 48), (0, name, 64)):
            struct.pack_into(f"<{size}s", self._map, TEXTS + at, text.encode())

    def step(self, utc, leap=0):
        """The time of day is off by so many seconds from now on, and the monotonic clock ahead by so many."""
        struct.pack_into("<2q", self._map, CLOCKS, utc, leap)

    def clock_reads(self):
        """How often the node has read a clock that may be off."""
        return struct.unpack_from("<q", self._map, CLOCKS + 16)[0]

    def lookups(self):
        """Look-ups of the name, and connections to its first address that were refused."""
        return struct.unpack_from("<2q", self._map, COUNTERS)
