"""What starting costs: `equilibrist --help`, and importing what training and auditing need beyond torch's own import.

Each is timed in processes of its own, in turns with its rival. The ratio is that of seconds to the 0.3 s that each may
take: of the command, and of the import beyond torch's.

    python benchmarks/start_time.py [--pairs 11]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench_rows import arguments, row

LIMIT = 0.3
TORCH = ("-c", "import torch")
NAMES = ("-c", "import torch; from equilibrist import GAN, Vanilla, audit, train")
LAZY = ("-c", "import torch; import equilibrist")
HELP = ("-m", "equilibrist", "--help")


def seconds(*call: str) -> float:
    """Of one process of this interpreter, from start to end."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *call], check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> int:
    options = arguments(__doc__, 11).parse_args()
    for call in (HELP, TORCH, LAZY, NAMES):
        seconds(*call)  # compiled modules and files are in memory from here on
    times = [[seconds(*call) for call in (HELP, TORCH, LAZY, NAMES)] for _ in range(options.pairs)]
    commands, torches, lazy, named = zip(*times, strict=True)
    table, missed = "Start", 0
    found = row(
        table, "equilibrist --help", "0.3 s", [t / LIMIT for t in commands], 1.0,
        (1e3 * statistics.median(commands), 1e3 * LIMIT),
    )  # fmt: skip
    missed += found.missed
    for name, taken, bound in (
        ("equilibrist", lazy, 1.0),
        ("train, audit and GAN of equilibrist", named, None),
    ):
        beyond = [a - b for a, b in zip(taken, torches, strict=True)]
        found = row(
            table, f"{name}, imported beyond torch", "0.3 s", [t / LIMIT for t in beyond], bound,
            (1e3 * statistics.median(beyond), 1e3 * LIMIT),
            f"torch's own import {statistics.median(torches):.2f} s",
        )  # fmt: skip
        missed += found.missed
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
