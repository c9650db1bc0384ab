"""CTGAN on a real table, listened to: the losses that it logs beside what an audit of its critic finds.

    python campaigns/ctgan_listened.py run       # trains twice, heard and alone; audits; writes campaign.json
    python campaigns/ctgan_listened.py report    # the table of docs/results.md
    python campaigns/ctgan_listened.py run --epochs 4 --gradients 200     # a small one

The table is `fair` (Fair 1978), which statsmodels ships: 6,366 answers to a survey about marriages, eight columns of
categories and one number. 4,000 rows are trained on, the others are held out. `ctgan` is as published and is called
as its users call it: fit, with the settings it comes with. Needs: pip install ctgan statsmodels.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import equilibrist
from equilibrist.files.atomic import write_atomically
from equilibrist.interop import Heard
from equilibrist.interop.ctgan import audit_table

TRAIN, BATCH = 4000, 500
MARKS = (10, 50, 150, 300)  # epochs
SHOWN = 3  # columns


def tables() -> tuple[Any, Any, list[str]]:
    """Rows to train on, rows held out, and the columns of categories."""
    import statsmodels.api

    rows = statsmodels.api.datasets.fair.load_pandas().data
    categories = [name for name in rows.columns if name != "affairs"]
    rows[categories] = rows[categories].astype(str)
    order = np.random.default_rng(0).permutation(len(rows))
    parts = (rows.iloc[order[:TRAIN]], rows.iloc[order[TRAIN:]])
    train, held_out = (part.reset_index(drop=True) for part in parts)
    return train, held_out, categories


def fitted(epochs: int, train: Any, categories: list[str]) -> Any:
    """A model as ctgan's users make it."""
    import ctgan

    torch.manual_seed(0)
    np.random.seed(0)
    model = ctgan.CTGAN(epochs=epochs, enable_gpu=False)
    model.fit(train, categories)
    return model


def row(heard: Heard, model: Any, held_out: Any, epoch: int, steps: int, gradients: int) -> dict:
    """What was logged at an epoch, and what the audit of that moment's pair finds."""
    logged = model.loss_values.iloc[epoch - 1]
    found = audit_table(heard, model, held_out, at=steps, gradients=gradients, progress="none")
    apart, gain = found["not-saturated"].evidence, found["best-response"]
    told = found["indistinguishable"]
    low, high = told.evidence["interval"]
    return {
        "epoch": epoch,
        "generator": float(logged["Generator Loss"]),
        "critic": float(logged["Discriminator Loss"]),
        "separation": [apart["separation"], *apart["separation_interval"]],
        "gain": [gain.evidence["gain"], *gain.evidence["interval"]],
        "gain_verdict": gain.verdict.value,
        "told": [0.5 + told.evidence["excess"], 0.5 + low, 0.5 + high],
        "states": list(found.states),
        "columns": [
            [c["name"], 0.5 + c["effect"]] for c in found.columns if c["name"] != "condition"
        ],
        "headline": found.place,
        "seconds": found.seconds,
    }


def run(folder: Path, epochs: int, gradients: int) -> None:
    """Trains, audits and records."""
    train, held_out, categories = tables()
    each = TRAIN // BATCH
    marks = [mark for mark in MARKS if mark < epochs] + [epochs]
    begun = time.process_time()
    with equilibrist.listen(every=[mark * each for mark in marks]) as heard:
        model = fitted(epochs, train, categories)
    listened = time.process_time() - begun
    print(heard, flush=True)
    begun = time.process_time()
    alone = fitted(epochs, train, categories)
    unheard = time.process_time() - begun
    pairs = zip(
        model._generator.state_dict().values(), alone._generator.state_dict().values(), strict=True
    )
    same = all(torch.equal(a, b) for a, b in pairs) and model.loss_values.equals(alone.loss_values)
    print(f"the same bits as a training that nobody hears: {same}", flush=True)
    rows = []
    for mark in marks:
        rows.append(row(heard, model, held_out, mark, mark * each, gradients))
        print(rows[-1], flush=True)
    record = {"same": same, "seconds": [listened, unheard], "gradients": gradients, "rows": rows}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "campaign.json", (json.dumps(record, indent=1) + "\n").encode())


def report(folder: Path) -> None:
    """The table."""
    record = json.loads((folder / "campaign.json").read_text(encoding="utf-8"))
    print(
        "| epoch | logged: generator | logged: critic | held-out pairs that the critic orders | what it gains by "
        "training on | state | pairs that the best critic found orders | columns that betray |"
    )
    print("|---" * 8 + "|")
    for one in record["rows"]:
        columns = ", ".join(f"{name} {share:.0%}" for name, share in one["columns"][:SHOWN])
        print(
            f"| {one['epoch']} | {one['generator']:.2f} | {one['critic']:.2f} | {percent(one['separation'])} | "
            f"{numbers(one['gain'])} ({one['gain_verdict']}) | {', '.join(one['states']) or 'none'} | "
            f"{percent(one['told'])} | {columns} |"
        )
    print(f"\nthe same bits as a training that nobody hears: {record['same']}")
    print("seconds of a core, heard and alone: {:.0f}, {:.0f}".format(*record["seconds"]))


def percent(found: list[float]) -> str:
    mean, low, high = found
    return f"{mean:.1%} ({low:.1%} to {high:.1%})"


def numbers(found: list[float]) -> str:
    mean, low, high = found
    return f"{mean:.3g} ({low:.3g} to {high:.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--folder", type=Path, default=Path("runs/ctgan-listened"))
    parser.add_argument("--epochs", type=int, default=MARKS[-1])
    parser.add_argument("--gradients", type=int, default=1000, help="of each audit")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "run":
        run(args.folder, args.epochs, args.gradients)
    report(args.folder)


if __name__ == "__main__":
    main()
