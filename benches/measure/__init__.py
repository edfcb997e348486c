"""What the measuring scripts share: servers side by side, the load generator, CPU time, tables.

The tests' own helpers are found here too, `ringproof` of tests/interop.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "interop"))
