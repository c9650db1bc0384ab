"""Farnia and Ozdaglar 2020, section 6.2 and Table 1: does proximal training give better samples?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from equilibrist.certificates import Json
from equilibrist.papers.looks import looks
from equilibrist.papers.model import (
    Claim,
    ClaimOutcome,
    Experiment,
    Measures,
    Records,
    Size,
    Unit,
    Workspace,
)
from equilibrist.papers.sources import FARNIA
from equilibrist.papers.training import last, relative_cost, seen, train_seeds
from equilibrist.recipe_lookup import resolve
from equilibrist.run.recipe import Recipe
from equilibrist.solvers import Alternating, Proximal, Solver
from equilibrist.statistics import Estimate, holm, paired

LAMBDAS = (0.01, 0.1, 1.0, 10.0)
SWEEP_SEED = 1000  # lambda is chosen on a seed that is compared with nothing
LONG = 5  # regular training goes on for so many times the iterations, to be read at equal compute


class TableRow(NamedTuple):
    """A row of Table 1: the GAN, and which of the two widths."""

    key: str
    title: str
    wide: bool
    printed: tuple[str, str]


ROWS = (
    TableRow("wgan-wc-narrow", "WGAN-WC, DIM=64", False, ("4.16 +- 0.15", "4.56 +- 0.19")),
    TableRow("wgan-wc-wide", "WGAN-WC, DIM=128", True, ("2.52 +- 0.12", "4.23 +- 0.15")),
    TableRow("sngan-narrow", "SN-GAN, DIM=64", False, ("5.12 +- 0.25", "5.72 +- 0.22")),
    TableRow("sngan-wide", "SN-GAN, DIM=128", True, ("5.62 +- 0.23", "6.12 +- 0.22")),
)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the experiment is: data, the two widths, generator iterations, those of the sweep over lambda,
    seeds, and the minutes of one CPU core that an iteration of regular training with five critic steps takes."""

    data: str
    widths: tuple[int, int]
    iterations: int
    sweep: int
    seeds: tuple[int, ...]
    minutes: tuple[float, float]

    def recipe(self, row: TableRow) -> Recipe:
        """The row's GAN with the paper's rules, trained by five critic steps."""
        kind = "wgan-wc" if row.key.startswith("wgan-wc") else "sngan"
        settings: Json = {"dim": self.widths[row.wide], "critic_steps": 5}
        if kind == "wgan-wc" and self.data == "cifar10":
            settings["critic_batch_norm"] = False  # V_prox needs a gradient at each sample
        if self.data == "digits":
            settings["latent"] = 16
        made: Recipe = resolve(f"{self.data}-{kind}", settings, builtin=True).build()
        return made


SCALES: dict[Size, Scale] = {
    "tiny": Scale("digits", (4, 8), 400, 200, tuple(range(10)), (0.0003, 0.0005)),
    "small": Scale("cifar10", (8, 16), 1000, 500, (0, 1, 2), (0.0016, 0.003)),
    "paper": Scale("cifar10", (64, 128), 200_000, 20_000, (0, 1, 2), (0.05, 0.2)),
}


def units(size: Size) -> tuple[Unit, ...]:
    """The sweep over lambda first, then all seeds of every method, row by row."""
    return tuple(unit for row in ROWS for unit in _row_units(SCALES[size], row, size == "tiny"))


def _row_units(scale: Scale, row: TableRow, together: bool) -> list[Unit]:
    minutes, critic = (
        scale.minutes[row.wide],
        4.0,
    )  # an iteration of 20 critic steps costs about four of 5
    sweeps = [
        Unit(
            f"{row.key}-sweep-{lam:g}",
            f"{row.title}: proximal, lambda {lam:g}, seed {SWEEP_SEED}, {scale.sweep} iterations",
            scale.sweep * minutes * critic,
            partial(_sweep, scale, row, lam),
        )
        for lam in LAMBDAS
    ]
    groups = [scale.seeds] if together else [(seed,) for seed in scale.seeds]
    methods = []
    for seeds in groups:
        suffix = "" if together else f"-seed-{seeds[0]}"
        count = len(seeds)
        for method, iterations, cost in (
            ("regular-5", LONG * scale.iterations, 1.0),
            ("regular-20", scale.iterations, critic),
            ("proximal", scale.iterations, critic),
        ):
            methods.append(
                Unit(
                    f"{row.key}-{method}{suffix}",
                    f"{row.title}: {method}, {count} seed{'s' if count > 1 else ''}, {iterations} iterations",
                    iterations * minutes * cost * count,
                    partial(_method, scale, row, method, seeds),
                    tuple(unit.key for unit in sweeps) if method == "proximal" else (),
                )
            )
    return [*sweeps, *methods]


def _sweep(scale: Scale, row: TableRow, lam: float, place: Workspace) -> Measures:
    recipe = scale.recipe(row)
    solver = Proximal(20, lam=lam, optimizer=_rule(recipe))
    made = dataclasses.replace(recipe, solver=solver, steps=scale.sweep)
    found = train_seeds(
        place, made, (SWEEP_SEED,), scores=looks(scale.data, place.weights), looks=5
    )
    return {**found, "lambda": lam}


def _method(
    scale: Scale, row: TableRow, method: str, seeds: Sequence[int], place: Workspace
) -> Measures:
    recipe = scale.recipe(row)
    rule, found = _rule(recipe), {}
    solver: Solver = Alternating(5, rule)
    steps = LONG * scale.iterations
    if method != "regular-5":
        steps = scale.iterations
    if method == "regular-20":
        solver = Alternating(20, rule)
    if method == "proximal":
        chosen = _chosen(place)
        found["lambda"] = chosen
        solver = Proximal(20, lam=chosen, optimizer=rule)
    made = dataclasses.replace(recipe, solver=solver, steps=steps)
    cost = relative_cost(made)
    scores = looks(scale.data, place.weights)
    found |= train_seeds(
        place, made, seeds, scores=scores, looks=2 * LONG if method == "regular-5" else 5,
        stacked=len(seeds) > 1,
    )  # fmt: skip
    return {**found, "cost": cost}


def _rule(recipe: Recipe) -> Any:
    return recipe.solver.optimizer  # type: ignore[attr-defined]


def _chosen(place: Workspace) -> float:
    """The lambda whose sweep ended with the best score."""
    best: dict[float, float] = {}
    for key, runs in place.others.items():
        found = seen(runs / f"seed_{SWEEP_SEED}")
        name = decisive(found["scores"])
        value = last(found, name) if name else None
        if value is not None:
            best[float(key.rpartition("-")[2])] = value if lower(name) else -value
    return min(best, key=lambda lam: best[lam]) if best else 0.1


def decisive(names: Iterable[str]) -> str:
    """The score that decides: a classifier's class score where there is one, else a distance between pixels."""
    for part in ("class_score", "features", "pixels"):
        for name in names:
            if part in name and "std" not in name:
                return str(name)
    return ""


def lower(name: str) -> bool:
    """Whether smaller is better."""
    return "class_score" not in name


# -- what became of it ------------------------------------------------------------------------------


class PairedGain(NamedTuple):
    """Proximal training less another method, over seeds: positive is better, whatever the score."""

    against: str
    gain: Estimate
    corrected: float = 1.0


def comparisons(records: Records, row: TableRow) -> list[PairedGain]:
    """Proximal training against regular training with 5 and with 20 critic steps, at equal iterations, and with 5
    at equal gradients and at equal seconds of CPU."""
    ours, costs = by_seed(records, row, "proximal")
    base, base_costs = by_seed(records, row, "regular-5")
    many, _ = by_seed(records, row, "regular-20")
    if not ours or not base:
        return []
    name = decisive(next(iter(ours.values()))["scores"])
    sign = -1.0 if lower(name) else 1.0
    iterations = max(one["reached"] for one in ours.values())
    ratio = _mean(costs) / _mean(base_costs) if costs and base_costs else 0.0
    mine = {seed: last(one, name) for seed, one in ours.items()}
    found = []
    for against, others, step in (
        ("regular-5, equal iterations", base, iterations),
        ("regular-20, equal iterations", many, iterations),
        ("regular-5, equal gradients", base, round(iterations * 21 / 6)),
        ("regular-5, equal seconds", base, round(iterations * ratio)),
    ):
        theirs = {seed: last(one, name, step) for seed, one in others.items()}
        gain = paired(
            {s: None if v is None else sign * v for s, v in mine.items()},
            {s: None if v is None else sign * v for s, v in theirs.items()},
        )
        found.append(PairedGain(against, gain))
    return found


def corrected(records: Records) -> dict[str, list[PairedGain]]:
    """All rows' comparisons, with p-values after Holm's correction for their number."""
    rows = {row.key: comparisons(records, row) for row in ROWS}
    every = [one for row in rows.values() for one in row]
    p = iter(holm([one.gain.p for one in every]))
    return {key: [one._replace(corrected=next(p)) for one in row] for key, row in rows.items()}


def by_seed(records: Records, row: TableRow, method: str) -> tuple[dict[int, Json], list[float]]:
    """Seeds of a method, and the costs that its units measured."""
    seeds: dict[int, Json] = {}
    costs = []
    for key, record in records.items():
        if key == f"{row.key}-{method}" or key.startswith(f"{row.key}-{method}-seed-"):
            seeds |= {int(s): one for s, one in record.measures.get("seeds", {}).items()}
            if "cost" in record.measures:
                costs.append(float(record.measures["cost"]["ratio"]))
    return seeds, costs


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


RULE = (
    "paired differences over seeds, lambda chosen on another seed; better where the 95% interval lies above zero and "
    "p < 0.05 after Holm's correction over the whole table. Holds: better than regular training with 5 and with 20 "
    "critic steps at equal iterations, and with 5 at equal seconds. Holds in part: better than 5 critic steps at equal "
    "iterations, as the paper compares. Does not hold: worse there. Undecided: neither."
)


def judge(row: TableRow, records: Records) -> ClaimOutcome:
    """The rule above."""
    found = {one.against: one for one in corrected(records)[row.key]}
    if not found or any(one.gain.n < 2 for one in list(found.values())[:1]):
        return ClaimOutcome("not tried", "fewer than two seeds of each method yet")
    words = "; ".join(f"{name}: {one.gain}" for name, one in found.items())
    better = {name: one.gain.mean > 0 and one.corrected < 0.05 for name, one in found.items()}
    first = found["regular-5, equal iterations"]
    why = f"gain in the score by proximal training over {words} (positive is better)"
    if all(better[name] for name in found if "gradients" not in name):
        return ClaimOutcome("holds", why)
    if better["regular-5, equal iterations"]:
        return ClaimOutcome("holds in part", why)
    if first.gain.mean < 0 and first.corrected < 0.05:
        return ClaimOutcome("does not hold", why)
    return ClaimOutcome("undecided", why)


def markdown_tables(records: Records, folder: Path) -> list[str]:
    """The table of scores, and that of differences."""
    lines = []
    found = corrected(records)
    head = False
    for row in ROWS:
        parts = []
        for method in ("regular-5", "regular-20", "proximal"):
            seeds, _ = by_seed(records, row, method)
            if not seeds:
                parts.append("not run")
                continue
            name = decisive(next(iter(seeds.values()))["scores"])
            step = min(one["reached"] for one in seeds.values())
            if method == "regular-5":
                step //= LONG
            if not head:
                lines += [
                    f"Score: {name}, {'lower' if lower(name) else 'higher'} is better. Means over seeds.",
                    "",
                    "| row | printed: regular, proximal | regular, 5 | regular, 20 | proximal (lambda) | diverged |",
                    "|---|---|---|---|---|---|",
                ]
                head = True
            values = [last(one, name, step) for one in seeds.values()]
            sound = [v for v in values if v is not None]
            text = f"{_mean(sound):.3g} at {step:,}" if sound else "none left"
            if method == "proximal":
                text += f" ({_lambda(records, row)})"
            parts.append(text)
        if all(part == "not run" for part in parts):
            continue
        gone = sum(
            one["diverged"] is not None
            for method in ("regular-5", "regular-20", "proximal")
            for one in by_seed(records, row, method)[0].values()
        )
        printed = f"{row.printed[0]}, {row.printed[1]}"
        lines.append(f"| {row.title} | {printed} | {' | '.join(parts)} | {gone} |")
    if any(found.values()):
        lines += [
            "",
            "| proximal training against | "
            + " | ".join(row.title for row in ROWS if found[row.key])
            + " |",
            "|---|" + "---|" * sum(bool(found[row.key]) for row in ROWS),
        ]
        present = [row.key for row in ROWS if found[row.key]]
        for i, one in enumerate(found[present[0]]):
            cells = [
                f"{found[key][i].gain}, p {found[key][i].corrected:.2g}, effect {found[key][i].gain.effect:.1f}"
                for key in present
            ]
            lines.append(f"| {one.against} | {' | '.join(cells)} |")
        lines += ["", "Differences are gains of proximal training (positive is better), paired by seed, with 95% "
                  "intervals; p after Holm's correction; effect: mean over standard deviation."]  # fmt: skip
    return lines


def _lambda(records: Records, row: TableRow) -> str:
    chosen = {
        f"{record.measures['lambda']:g}"
        for key, record in records.items()
        if key.startswith(f"{row.key}-proximal") and "lambda" in record.measures
    }
    return ", ".join(sorted(chosen)) or "none"


TABLE_1 = Experiment(
    "farnia-table-1",
    "Proximal training against regular training",
    FARNIA,
    tuple(
        Claim(
            f"Table 1, {row.title}",
            f"Proximal training improves the Inception score: {row.printed[0]} to {row.printed[1]}.",
            RULE,
            partial(judge, row),
        )
        for row in ROWS
    ),
    units,
    {
        "tiny": "8x8 digits instead of CIFAR-10, widths 4 and 8, 400 iterations; a distance between pixels decides.",
        "small": "CIFAR-10 at widths 8 and 16, 1,000 iterations instead of 200,000; a ResNet-56's class score instead "
        "of the Inception score. WGAN-WC's critic has no batch norm, for V_prox needs a gradient at each sample.",
        "paper": "as the paper, but WGAN-WC's critic has no batch norm, and lambda, which is not printed, is swept.",
    },
    markdown_tables,
)
