"""Mescheder, Nowozin and Geiger 2017, celebA: a ResNet of constant width without batch norm, by consensus.

Faces are not downloaded: the variable EQUILIBRIST_FACES names a folder of images, or an array file. Records
hold numbers alone, no faces.
"""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from pathlib import Path

from equilibrist.errors import DataError
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
from equilibrist.papers.sources import MESCHEDER
from equilibrist.papers.training import last, relative_cost, train_seeds
from equilibrist.recipe_lookup import resolve
from equilibrist.run.recipe import Recipe
from equilibrist.scores import Frechet
from equilibrist.statistics import estimate, paired

FACES = "EQUILIBRIST_FACES"
GAMMA = 10.0
METHODS = ("consensus", "alternating")
FALL = 4.0  # how many times smaller the distance must become


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the experiment is; `minutes` of one CPU core for an iteration of alternating descent."""

    dim: int
    batch: int
    iterations: int
    seeds: tuple[int, ...]
    samples: int
    minutes: float

    def recipe(self, method: str) -> Recipe:
        """The slides' networks on the user's faces.

        Raises: DataError where no faces are named.
        """
        faces = os.environ.get(FACES, "")
        if not faces.strip():
            raise DataError(f"{FACES} is not set: name a folder of face images, or an array file")
        settings = {"data": faces, "dim": self.dim, "steps": self.iterations, "batch": self.batch}
        settings |= {"method": method, "gamma": GAMMA}
        made: Recipe = resolve("faces64-resnet", settings, builtin=True).build()
        return made


SCALES: dict[Size, Scale] = {
    "small": Scale(8, 32, 6000, (0, 1, 2), 1024, 0.002),
    "paper": Scale(128, 64, 150_000, (0, 1, 2), 6400, 0.1),
}


def units(size: Size) -> tuple[Unit, ...]:
    """A unit for each seed of each method; none at size tiny."""
    if size not in SCALES:
        return ()
    scale = SCALES[size]
    return tuple(
        Unit(
            f"{method}-seed-{seed}",
            f"ResNet of constant width, {method}, seed {seed}, {scale.iterations} iterations",
            scale.iterations * scale.minutes * (2.6 if method == "consensus" else 1.0),
            partial(_train, scale, method, seed),
        )
        for seed in scale.seeds
        for method in METHODS
    )


def _train(scale: Scale, method: str, seed: int, place: Workspace) -> Measures:
    recipe = scale.recipe(method)
    cost = relative_cost(recipe, steps=2)
    found = train_seeds(place, recipe, (seed,), scores=(Frechet(samples=scale.samples),))
    return {**found, "cost": cost}


# -- what became of it ------------------------------------------------------------------------------


def by_seed(records: Records, method: str) -> dict[int, Measures]:
    """What every seed of a method recorded."""
    return {
        int(seed): one
        for key, record in records.items()
        if key.startswith(f"{method}-seed-")
        for seed, one in record.measures.get("seeds", {}).items()
    }


def pixel_distances(
    records: Records, method: str, step: int | None = None
) -> dict[int, float | None]:
    """The distance between pixels at the end, or at the last look no later than `step`, of every seed."""
    return {
        seed: last(one, next(iter(one["scores"]), ""), step)
        for seed, one in by_seed(records, method).items()
    }


def judge(records: Records) -> ClaimOutcome:
    """The rule of the samples."""
    found = by_seed(records, "consensus")
    gone = sum(one["diverged"] is not None for one in found.values())
    end, start = pixel_distances(records, "consensus"), pixel_distances(records, "consensus", 0)
    fallen = {s: a / b for s, b in end.items() if b and (a := start.get(s)) is not None}
    if len(found) < 2 or (not gone and len(fallen) < 2):
        return ClaimOutcome("not tried", "fewer than two seeds of consensus yet")
    ahead = paired(pixel_distances(records, "alternating"), end)
    smallest = min(fallen.values(), default=0.0)
    why = (
        f"{gone} of {len(found)} seeds of consensus diverged; the distance between pixels became "
        f"{smallest:.3g} times smaller or more; alternating's less consensus's on the same network: {ahead} "
        "(positive: consensus is ahead)"
    )
    if not gone and smallest >= FALL:
        return ClaimOutcome("holds", why)
    if not gone and smallest > 1:
        return ClaimOutcome("holds in part", why)
    if gone > len(found) / 2 or all(value <= 1 for value in fallen.values()):
        return ClaimOutcome("does not hold", why)
    return ClaimOutcome("undecided", why)


def markdown_tables(records: Records, folder: Path) -> list[str]:
    """Distances at the start, half way and at the end."""
    lines = [
        "| method | distance between pixels: start | half way | end | diverged | cost of a step |",
        "|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        found = by_seed(records, method)
        if not found:
            continue
        half = max(one["reached"] for one in found.values()) // 2
        cells = [
            str(estimate([*pixel_distances(records, method, step).values()]))
            for step in (0, half, None)
        ]
        gone = sum(one["diverged"] is not None for one in found.values())
        cost = estimate(
            [
                record.measures["cost"]["ratio"]
                for key, record in records.items()
                if key.startswith(method) and "cost" in record.measures
            ]
        )
        lines.append(f"| {method} | {' | '.join(cells)} | {gone} | {cost} |")
    legend = "Means over seeds with 95% intervals; cost in steps of alternating descent (CPU time)."
    return [*lines, "", legend]


CELEBA = Experiment(
    "mescheder-celeba",
    "Faces by a residual network without batch norm",
    MESCHEDER,
    (
        Claim(
            "Samples, (b)",
            "Consensus trains a ResNet of constant width on celebA, without batch norm.",
            "Holds: no seed of consensus diverges, and in every one the Frechet distance between pixels "
            f"becomes at least {FALL:g} times smaller than that of the initial pair. Holds in part: smaller "
            "in every one, by less. Does not hold: most seeds diverge, or it becomes smaller in none. "
            "Undecided: else",
            judge,
        ),
    ),
    units,
    {
        "small": "Any set of faces in place of celebA, grey or in colour; width 8 instead of 128, batch 32 "
        "instead of 64, 6,000 iterations. The slides show samples alone: a distance between pixels is held against "
        "that of the initial pair.",
        "paper": "Width 128, batch 64, 150,000 iterations, on the faces that are named.",
    },
    markdown_tables,
)
