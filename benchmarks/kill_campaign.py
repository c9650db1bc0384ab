"""Kills training processes at random moments and sees that nothing is lost.

A run that was killed and started again until it ended must leave the same bytes as one that nobody
disturbed: checkpoints, samples, status, recipe, metrics (but for the seconds). Most kills come at a
random moment, the others at a chosen phase of a file's writing. A kill that finds the process
finished does not count. The machinery is tests/run/killing.py.

    python benchmarks/kill_campaign.py --kills 200 --seed 0

Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "run"))

NAMES = ("plain", "spectral norm, Adam", "momentum, batch norm")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="at least so many (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=240, help="of each run (default: 240)")
    parser.add_argument("--dir", type=Path, help="where the runs lie (default: a temporary folder)")
    asked = parser.parse_args()

    import killing

    begun = time.monotonic()
    settings = {"steps": asked.steps, "every": (4, 24, 6)}
    with tempfile.TemporaryDirectory(dir=asked.dir) as folder:
        tallies = killing.campaign(
            asked.kills,
            asked.seed,
            Path(folder),
            NAMES,
            settings,
            lambda text: print(text, flush=True),
        )
    total = sum(tallies.values(), killing.Tally())
    columns = (
        ("kills", lambda t: t.kills),
        ("at a chosen phase", lambda t: t.chosen),
        ("in a checkpoint", lambda t: t.in_checkpoint),
        ("in another file", lambda t: t.in_other),
        ("restarts", lambda t: t.restarts),
        ("runs", lambda t: t.runs),
        ("mismatches", lambda t: len(t.problems)),
    )
    width = max(map(len, NAMES))
    print(f"\n{'':{width}}  " + "  ".join(title for title, _ in columns))
    for name, tally in [*tallies.items(), ("all", total)]:
        print(
            f"{name:{width}}  " + "  ".join(f"{get(tally):{len(title)}}" for title, get in columns)
        )
    print(f"seed {asked.seed}, {asked.steps} steps a run, {time.monotonic() - begun:.0f} s")
    for problem in total.problems:
        print(problem)
    return 1 if total.problems else 0


if __name__ == "__main__":
    sys.exit(main())
