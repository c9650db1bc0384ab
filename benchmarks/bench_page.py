"""Writes docs/bench.md, docs/bench.json and a picture from the rows and curves that the benchmarks have kept.

    python benchmarks/bench_page.py runs/bench.jsonl

A row or curve that was measured twice counts as it was measured last.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from bench_rows import Curve, Row
from missed import MISSED
from scale_picture import picture

from equilibrist.files.atomic import write_atomically, write_json
from equilibrist.run import environment

PICTURE = "scale_curves.svg"
NOT_YET = "not looked into yet."
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
    "Convolutions": "The critic's step of the CIFAR-10 pair of width 64 against matrix products of the same run, by "
    "operations; and what was tried to raise it (none of it is on by default: each helps a little where it helps).",
    "Products of an audit": "What a product with J^T costs in gradients of both players, in float64; compiled: "
    "`equilibrist.CompiledJacobian`.",
    "Audits": "Seconds of a whole audit over those that it accounts for: (gradients counted) x (seconds of a gradient "
    "of both players), and by their own time self-tests and losses looked at without gradients, in float64. Stacking"
    " the starts of a search was not built: all gradients of searches together are 4%, 17% and 31% of an audit of"
    " 400 and 1,500 gradients and of the default one, of the smallest pair that there is here (4x16).",
    "Memory of an audit": "The most that an audit holds beyond what the process held before (freed memory handed back "
    "first), over twelve times the "
    "weights, plus what one product with J^T takes on a batch by plain autograd in float64, plus the Krylov basis.",
    "Listening": "A training that is heard, against the same alone.",
    "Start": "Seconds over the 0.3 s that each may take: the command's help, and imports beyond torch's own.",
    "On a GPU": "The paper's size (a step is five critic steps and one of the generator), extrapolated.",
    "The wiring check": "A round that is watched, against the same alone.",
}


def _tried(row: Row) -> str:
    """What is known of a row that is above its bound: by its table where names are in several."""
    return MISSED.get(f"{row.table}: {row.name}") or MISSED.get(row.name, NOT_YET)


def page(rows: Sequence[Row], curves: Sequence[Curve], machine: str) -> str:
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
    if missed:
        lines += ["", "## What is above its bound, and what was tried", ""]
        lines += [f"- **{row.name}** ({row.table.lower()}): {_tried(row)}" for row in missed]
    if curves:
        lines += _scales(curves)
    if any(row.table == "On a GPU" for row in rows):
        return "\n".join(lines) + "\n"
    lines += [
        "",
        "## On a GPU",
        "",
        "Not measured: no machine with one was at hand. `python benchmarks/gpu_steps.py` fills this in;",
        "`--compile auto` leaves steps on a GPU eager until it is. `pytest tests/gpu` has what must hold there.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _scales(curves: Sequence[Curve]) -> list[str]:
    """The section of scale curves."""
    lines = [
        "", "## Scale curves", "",
        "How time and memory (beyond what the libraries hold) grow, one thread, each point in a process of its own;",
        "the powers p are those of fits a + b x^p to all points. Memory of small runs is mostly what torch and its",
        "allocator keep, so that where 24 GiB end is an extrapolation from the largest ones. An audit's basis of",
        "directions stays within 1.5 GB, whatever is asked for.", "",
        f"![seconds and memory against what grows, a panel a curve](images/{PICTURE})", "",
        "| what | grows | from | to | seconds | p | memory | p | 24 GiB end at |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for c in curves:
        seconds = f"{c.seconds[0]:.3g} to {c.seconds[-1]:.3g}"
        memory = f"{c.bytes[0] / 2**20:,.0f} to {c.bytes[-1] / 2**20:,.0f} MiB"
        power = f"{c.memory_power:.2f}" if c.memory_power else "constant"
        end = (
            "never"
            if c.end is None
            else f"{c.end:,.2g}"
            if c.end < 1000
            else f"{float(f'{c.end:.2g}'):,.0f}"
        )
        lines.append(
            f"| {c.what} | {c.axis} | {c.x[0]:,} | {c.x[-1]:,} | {seconds} | {c.time_power:.2f} | {memory} | {power} | "
            f"{end} |"
        )
    return lines


def _line(row: Row) -> str:
    times = ["" if t is None else f"{t:.3g} ms" for t in (row.ours, row.theirs)]
    bound = "" if row.bound is None else f"{row.bound:g}"
    ratio = f"**{row.ratio:.3g}**" if row.missed else f"{row.ratio:.3g}"
    spread = f"{row.low:.3g} to {row.high:.3g}"
    return f"| {row.name} | {row.rival} | {ratio} | {spread} | {bound} | {times[0]} | {times[1]} | {row.note} |"


def main() -> None:
    path = Path(sys.argv[1])
    kept: dict[tuple[str, str, str], Row] = {}
    measured: dict[str, Curve] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        held = json.loads(line)
        if "axis" in held:
            measured[held["name"]] = Curve(**held)
            continue
        row = Row(**held)
        kept[row.table, row.name, row.rival] = row
    rows, curves = list(kept.values()), list(measured.values())
    seen = environment.environment(torch.device("cpu"), 0)
    about = seen["machine"]
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    machine = f"{about['processor']}, {about['cores']} cores, {versions}"
    write_atomically(DOCS / "bench.md", page(rows, curves, machine).encode())
    held = {"rows": [asdict(row) for row in rows], "curves": [asdict(curve) for curve in curves]}
    write_json(DOCS / "bench.json", {"machine": machine, **held})
    if curves:
        write_atomically(DOCS / "images" / PICTURE, picture(curves).encode())
    missed = [row for row in rows if row.missed]
    print(f"{len(rows)} rows, {len(missed)} above their bounds: {DOCS / 'bench.md'}")


if __name__ == "__main__":
    main()
