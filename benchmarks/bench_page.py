"""Writes docs/bench.md and docs/bench.json from the rows that the benchmarks have kept.

    python benchmarks/bench_page.py runs/bench.jsonl

A row that was measured twice counts as it was measured last.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from bench_rows import Row

from equilibrist.files.atomic import write_atomically, write_json
from equilibrist.run import environment

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLES: dict[str, str] = {
    "Compiled steps": "The whole step as one compiled function (`equilibrist.CompiledStep`, or `--compile` of the "
    "command), drawing included: against the loop that a careful engineer writes by hand, and against our own eager "
    "step. Seconds to compile are those with torch's cache of kernels warm, as on a resumption; without it they were "
    "8 to 28, one core busy with something else.",
    "Eager steps": "Our eager step against the same loop, and what a gradient penalty costs.",
    "Solvers": "What the solvers' eager steps cost, in steps of another method; ensembles and particles by the member.",
    "Public solvers": "Against public implementations of the same method, on the same minibatches.",
    "Losses of one's own": "An audit of losses given as functions, against that of the GAN that they write out.",
    "Products of an audit": "What a product with J^T costs in gradients of both players, in float64.",
    "Audits": "Seconds of a whole audit over (gradients asked for) x (seconds of a gradient of both players); memory.",
    "Listening": "A training that is heard, against the same alone.",
    "The wiring check": "A round that is watched, against the same alone.",
}


def page(rows: Sequence[Row], machine: str) -> str:
    """The page in Markdown."""
    bounded = [row for row in rows if row.bound is not None]
    missed = [row for row in bounded if row.missed]
    lines = [
        "# Benchmarks",
        "",
        f"{len(bounded) - len(missed)} of {len(bounded)} ratios are within their bounds"
        + (
            f"; above: {'; '.join(f'{row.name} ({row.ratio:.2f}, at most {row.bound:g})' for row in missed)}."
            if missed
            else "."
        ),
        "",
        "`make bench` writes this page and `bench.json`. Each row is a ratio, ours over the rival's: the median of",
        "interleaved pairs A B B A ..., with quartiles, so that a machine whose speed drifts slows both alike. Below 1",
        "is faster.",
        "",
        f"Measured on {machine}.",
    ]
    for table, about in TABLES.items():
        own = [row for row in rows if row.table == table]
        if not own:
            continue
        lines += [
            "", f"## {table}", "", about, "",
            "| case | rival | ratio | quartiles | at most | ours | rival's | |",
            "|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        lines += [_line(row) for row in own]
    lines += [
        "",
        "## On a GPU",
        "",
        "Not measured: no machine with one was at hand. `--compile auto` leaves steps on a GPU eager until it is.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    times = ["" if t is None else f"{t:.3g} ms" for t in (row.ours, row.theirs)]
    bound = "" if row.bound is None else f"{row.bound:g}"
    ratio = f"**{row.ratio:.3g}**" if row.missed else f"{row.ratio:.3g}"
    spread = f"{row.low:.3g} to {row.high:.3g}"
    return f"| {row.name} | {row.rival} | {ratio} | {spread} | {bound} | {times[0]} | {times[1]} | {row.note} |"


def main() -> None:
    path = Path(sys.argv[1])
    kept: dict[tuple[str, str, str], Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = Row(**json.loads(line))
        kept[row.table, row.name, row.rival] = row
    rows = list(kept.values())
    seen = environment.environment(torch.device("cpu"), 0)
    about = seen["machine"]
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    machine = f"{about['processor']}, {about['cores']} cores, {versions}"
    write_atomically(DOCS / "bench.md", page(rows, machine).encode())
    write_json(DOCS / "bench.json", {"machine": machine, "rows": [asdict(row) for row in rows]})
    missed = [row for row in rows if row.missed]
    print(f"{len(rows)} rows, {len(missed)} above their bounds: {DOCS / 'bench.md'}")


if __name__ == "__main__":
    main()
