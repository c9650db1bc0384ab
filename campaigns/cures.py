"""Does the cure make the finding go, and the samples better?

    python campaigns/cures.py run             # every faulty loop and its twin, five seeds, resumable; two core-hours
    python campaigns/cures.py run --loops 2   # two loops of every fault; three quarters of an hour
    python campaigns/cures.py report          # the table of docs/results.md

A faulty loop of the zoo and its twin differ in one marked place: the twin is the loop with the cure applied. Both are
diagnosed from the same seed. Counted is how often the fault is named first, how often the finding is gone from the
cured loop, and whether held-out samples are nearer to the generated ones: the mean energy distance of the last three
looks at real samples that training has not seen, over their scale, as a difference of the two loops of one seed.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equilibrist import zoo
from equilibrist.diagnosis import diagnose
from equilibrist.progress import showing
from equilibrist.statistics import estimate

SEEDS = range(5)
LOOKS = 3  # the last ones


def look(name: str, seed: int) -> dict[str, Any]:
    """What is found of one loop, and how near its samples have come."""
    case = zoo.CASES[name]
    with warnings.catch_warnings(), zoo.isolated(seed):
        warnings.simplefilter("ignore")  # faulty loops are warned about, and meant to be
        loop = case.make(seed)
        fresh = None if loop.save is None else functools.partial(case.make, seed)
        try:
            found = diagnose(loop, case.rounds, fresh=fresh, seed=seed, progress="none")
        except Exception as error:  # counted, not dropped
            return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    distances = [look.distance for look in found.outcome.looks[-LOOKS:]]
    whole = found.rounds >= case.rounds and len(distances) == LOOKS
    mean = sum(distances) / LOOKS if whole else math.nan
    first = found.first.name if found.first else ""
    return {"first": first, "distance": mean if math.isfinite(mean) else None}


def loops_of(fault: str, most: int) -> list[str]:
    """Names of a fault's loops, as many as wanted: the first, and others at equal distances from it."""
    names = [name for name, case in zoo.CASES.items() if case.fault == fault]
    return names if len(names) <= most else [names[len(names) * k // most] for k in range(most)]


def run(out: Path, faults: Sequence[str], seeds: Sequence[int], most: int) -> None:
    """Adds what is missing to the record."""
    torch.set_num_threads(1)
    done = {(r["case"], r["seed"]) for r in read(out)}
    names = [name for fault in faults for name in loops_of(fault, most)]
    todo = [(name, seed) for seed in seeds for name in names if (name, seed) not in done]
    out.parent.mkdir(parents=True, exist_ok=True)
    with showing("lines", "pairs", len(todo)) as bar, out.open("a", encoding="utf-8") as file:
        for count, (name, seed) in enumerate(todo):
            case = zoo.CASES[name]
            row = {"case": name, "fault": case.fault, "half": case.half, "seed": seed}
            row |= {"faulty": look(name, seed), "cured": look(case.twin, seed)}
            file.write(json.dumps(row) + "\n")
            file.flush()
            bar.update(count + 1, {})


def read(out: Path) -> list[dict[str, Any]]:
    """The record's rows."""
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    return [json.loads(line) for line in lines]


def report(rows: list[dict[str, Any]]) -> str:
    """A table with a row a fault."""
    lines = [
        "| fault | loops x seeds | named first | gone when cured "
        "| distance, faulty | cured | nearer when cured | nearer by (95%) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for fault in dict.fromkeys(r["fault"] for r in rows):
        mine = [r for r in rows if r["fault"] == fault]
        named = sum(r["faulty"].get("first") == fault for r in mine)
        gone = sum("error" not in r["cured"] and r["cured"].get("first") != fault for r in mine)
        pairs = [(r["faulty"].get("distance"), r["cured"].get("distance"), r["case"]) for r in mine]
        both = [(a, b, case) for a, b, case in pairs if a is not None and b is not None]
        cases = {case for *_, case in pairs}
        seeds = len(mine) // max(len(cases), 1)
        cells = [fault, f"{len(cases)} x {seeds}", f"{named} of {len(mine)}"]
        cells += [f"{gone} of {len(mine)}", *distances(both, len(mine))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def distances(both: list[tuple[float, float, str]], whole: int) -> list[str]:
    """Medians of both loops, how often the cured one is nearer, and the mean difference over seeds."""
    if not both:
        return ["does not run", "", "", ""]
    faulty, cured = (float(np.median([row[k] for row in both])) for k in (0, 1))
    nearer = sum(b < a for a, b, _ in both)
    # Loops of one seed are no sample of anything: a seed's value is its mean over the loops.
    names = dict.fromkeys(case for *_, case in both)
    per_loop = [[a - b for a, b, case in both if case == name] for name in names]
    count = min(map(len, per_loop))
    mean = estimate([sum(d[s] for d in per_loop) / len(per_loop) for s in range(count)])
    ran = f"{nearer} of {len(both)}" + ("" if len(both) == whole else f" ({whole} pairs)")
    return [f"{faulty:.2g}", f"{cured:.2g}", ran, str(mean)]


def main() -> None:
    """Runs, or reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--out", type=Path, default=Path("runs/cures.jsonl"))
    kinds = tuple(dict.fromkeys(c.fault for c in zoo.CASES.values() if c.fault))
    parser.add_argument("--faults", nargs="*", choices=kinds, default=kinds)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--loops", type=int, default=len(zoo.CASES), help="of each fault, at most")
    given = parser.parse_args()
    if given.what == "run":
        run(given.out, given.faults, given.seeds, given.loops)
    print(report(read(given.out)))


if __name__ == "__main__":
    main()
