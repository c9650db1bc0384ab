"""Kills one process of a training by several, again and again, and goes on with another number of them.

Each run is begun by 1, 2 or 4 processes; a random one is killed (SIGKILL) at a random moment, the others must end
within seconds, and the same command goes on with a random number of processes until the run ends. Its last checkpoint
must be, byte for byte, that of one undisturbed process.

    python benchmarks/rank_campaign.py --kills 20 --seed 0

Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

COUNTS = (1, 2, 4)
RECIPE = ("digits-sngan", "--set", "dim=8", "--set", "latent=8", "--set", "batch=16")
PATIENCE = 60.0  # seconds in which processes must end when one of them was killed


def command(folder: Path, count: int, steps: int) -> list[str]:
    """What trains in `folder` by so many processes."""
    launch = [sys.executable]
    if count > 1:
        rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        launch += ["-m", "torch.distributed.run", "--nproc-per-node", str(count), *rendezvous]
    run = ["-m", "equilibrist", "run", *RECIPE, "--set", f"steps={steps}", "--parts", "4"]
    return [
        *launch,
        *run,
        "--dir",
        str(folder),
        "--progress",
        "none",
        "--device",
        "cpu",
        "--compile",
        "off",
    ]


def started(folder: Path, count: int, steps: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with folder.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            command(folder, count, steps), stdout=log, stderr=log, env=environment
        )


def workers(process: subprocess.Popen[bytes], count: int) -> list[int]:
    """The processes that train."""
    if count == 1:
        return [process.pid]
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in path.read_text(encoding="ascii").split()]


def digest(folder: Path) -> str:
    """Of the last checkpoint."""
    newest = max((folder / "checkpoints").glob("step_*.safetensors"))
    return newest.name + " " + hashlib.sha256(newest.read_bytes()).hexdigest()


def disturbed(folder: Path, steps: int, rng: random.Random, tally: Counter[str]) -> float:
    """Train to the end with kills on the way; the longest time that it took the others to end."""
    longest = 0.0
    while True:
        count = rng.choice(COUNTS)
        process = started(folder, count, steps)
        try:
            code = process.wait(timeout=rng.uniform(4.0, 11.0))
        except subprocess.TimeoutExpired:
            alive = workers(process, count)
            if not alive:
                process.wait()
                continue
            os.kill(rng.choice(alive), signal.SIGKILL)
            begun = time.monotonic()
            process.wait(timeout=PATIENCE)
            longest = max(longest, time.monotonic() - begun)
            tally[f"killed among {count}"] += 1
            continue
        if code:
            raise RuntimeError(
                f"{folder}: exit code {code} of {count} processes that nobody killed"
            )
        tally["runs"] += 1
        return longest


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="at least so many (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=800, help="of each run (default: 800)")
    asked = parser.parse_args()
    rng, tally, longest, wrong = random.Random(asked.seed), Counter[str](), 0.0, 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        reference = Path(root) / "reference"
        if started(reference, 1, asked.steps).wait():
            raise RuntimeError("the undisturbed run failed")
        wanted = digest(reference)
        for number in range(10**6):
            if sum(n for what, n in tally.items() if what != "runs") >= asked.kills:
                break
            folder = Path(root) / f"run_{number}"
            longest = max(longest, disturbed(folder, asked.steps, rng, tally))
            wrong += digest(folder) != wanted
            print(dict(sorted(tally.items())), f"{wrong} mismatches", flush=True)
    print(
        f"{dict(sorted(tally.items()))}: {wrong} mismatches; the others ended within {longest:.1f} s; "
        f"seed {asked.seed}, {time.monotonic() - begun:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
