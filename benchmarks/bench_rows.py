"""Rows of the page of benchmarks: each script prints its own, and adds them to a file where one is named.

EQUILIBRIST_BENCH=rows.jsonl python benchmarks/training_step.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ENVIRONMENT = "EQUILIBRIST_BENCH"


@dataclass(frozen=True)
class Row:
    """A ratio of interleaved pairs.

    Attributes:
        table: what was measured, a heading of the page.
        name: of the case.
        rival: what it is compared with.
        ratio, low, high: median and quartiles of ours / rival.
        bound: what the ratio must not exceed; None where it is only looked at.
        ours, theirs: median milliseconds of one step of either; None where the row has another unit.
        note: what else is to be said.
    """

    table: str
    name: str
    rival: str
    ratio: float
    low: float
    high: float
    bound: float | None = None
    ours: float | None = None
    theirs: float | None = None
    note: str = ""

    @property
    def missed(self) -> bool:
        """Whether the ratio is above its bound."""
        return self.bound is not None and self.ratio > self.bound


def row(
    table: str,
    name: str,
    rival: str,
    ratios: Sequence[float],
    bound: float | None = None,
    times: tuple[float, float] | None = None,
    note: str = "",
) -> Row:
    """The row of these pairs' ratios, kept and printed."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    ours, theirs = times or (None, None)
    found = Row(table, name, rival, middle, low, high, bound, ours, theirs, note)
    limit = "" if bound is None else f"  (at most {bound:g}{', MISSED' if found.missed else ''})"
    took = "" if times is None else f"{ours:9.3f} ms {theirs:9.3f} ms"
    print(f"{name:44} {took} {middle:7.3f} {low:.3f} to {high:.3f}{limit}", flush=True)
    keep(found)
    return found


@dataclass(frozen=True)
class Curve:
    """How seconds and memory grow along an axis.

    Attributes:
        name: of the curve.
        what: is done.
        axis: what grows.
        x: its values.
        seconds, bytes: at each of them.
        time_power, memory_power: p of fits a + b x^p.
        end: where 24 GiB end, by that fit; None where memory does not grow.
    """

    name: str
    what: str
    axis: str
    x: list[int]
    seconds: list[float]
    bytes: list[int]
    time_power: float
    memory_power: float
    end: float | None


def keep(found: Row | Curve) -> None:
    """Add a row or a curve to the file that the environment names, if it does."""
    if path := os.environ.get(ENVIRONMENT):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found)) + "\n")


def arguments(about: str, pairs: int) -> argparse.ArgumentParser:
    """What scripts of interleaved pairs take: --pairs, --only, --threads."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=pairs, help=f"default: {pairs}")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--threads", type=int, default=1)
    return parser
