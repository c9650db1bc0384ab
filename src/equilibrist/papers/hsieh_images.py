"""Hsieh, Liu and Cevher 2019, experiments on images: MNIST, and CIFAR-10 in place of LSUN bedrooms."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from PIL import Image

from equilibrist.files.atomic import write_atomically
from equilibrist.papers import hsieh_methods
from equilibrist.papers.hsieh_methods import MEAN, PLAIN, Budget, Contrast, Method, PairedDifference
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
from equilibrist.papers.sources import HSIEH
from equilibrist.recipe_lookup import resolve
from equilibrist.run.recipe import Recipe

METHODS = (*PLAIN, *MEAN)
RATES = (1e-4, 3e-4, 1e-3)
NOISE = 1e-4
TITLES = {"digits": "8x8 digits", "mnist": "MNIST", "cifar10": "CIFAR-10"}


@dataclasses.dataclass(frozen=True)
class Scale:
    """A data set, the networks' width, what a unit spends, and seconds of one CPU core a gradient."""

    data: str
    dim: int
    budget: Budget
    seconds: float
    samples: int = 2048

    def recipe(self, method: Method) -> Recipe:
        """WGAN with gradient penalty; solver and steps are left to the method."""
        settings = {"dim": self.dim} | ({"latent": 16} if self.data == "digits" else {})
        made: Recipe = resolve(f"{self.data}-wgan-gp", settings, builtin=True).build()
        return dataclasses.replace(made, title=f"{made.title}: {method.title}")


SEEDS, TUNING = (0, 1, 2), (100,)
SCALES: dict[Size, tuple[Scale, ...]] = {
    "tiny": (
        Scale("digits", 8, Budget(12_000, RATES, NOISE, tuple(range(10)), (100, 101)), 0.0035, 898),
    ),
    "small": (
        Scale("mnist", 16, Budget(12_000, RATES, NOISE, SEEDS, TUNING), 0.046),
        Scale("cifar10", 8, Budget(12_000, RATES, NOISE, SEEDS, TUNING), 0.05),
    ),
    "paper": (
        Scale("mnist", 64, Budget(1_200_000, RATES, NOISE, SEEDS, TUNING), 0.5),
        Scale("cifar10", 64, Budget(1_200_000, RATES, NOISE, SEEDS, TUNING), 0.7),
    ),
}


def units(size: Size) -> tuple[Unit, ...]:
    """A unit for every data set and method: it tunes, then trains every seed."""
    return tuple(
        Unit(
            f"{scale.data}-{method.key}",
            f"{TITLES[scale.data]}: {method.title}, {scale.budget.gradients:,} gradients, "
            f"{len(scale.budget.seeds)} seeds",
            scale.budget.total * scale.seconds / 60,
            partial(_work, scale, method),
        )
        for scale in SCALES[size]
        for method in METHODS
    )


def _work(scale: Scale, method: Method, place: Workspace) -> Measures:
    small = scale.data == "digits"
    found = hsieh_methods.tuned_and_trained(
        place,
        method,
        scale.budget,
        scale.recipe,
        looks(scale.data, place.weights, scale.samples),
        _distance,
        stacked=small,
    )
    if (sheet := hsieh_methods.newest_samples(place, scale.budget, "png")) is not None:
        found["picture"] = f"{place.stem}.png"
        write_atomically(place.pictures / found["picture"], _reduced(sheet))
    return found


def _reduced(path: Path, side: int = 256) -> bytes:
    """The upper left corner of a sheet of samples."""
    with Image.open(path) as sheet:
        made = sheet.crop((0, 0, min(side, sheet.width), min(side, sheet.height)))
        out = io.BytesIO()
        made.save(out, "PNG", optimize=True)
    return out.getvalue()


def _distance(names: Iterable[str]) -> str:
    """The Frechet distance between a classifier's features where there is one, else between pixels."""
    for part in ("features", "pixels"):
        for name in names:
            if part in name and name.endswith("frechet_distance"):
                return str(name)
    return ""


# -- what became of it ----------------------------------------------------------------------------------

STANDS_FOR = {"MNIST": ("mnist", "digits"), "LSUN bedrooms": ("cifar10",)}


def comparisons(records: Records) -> dict[str, list[PairedDifference]]:
    """By the paper's data set: the mirror method that tuned better against each plain one."""
    pairs = {}
    for claim, names in STANDS_FOR.items():
        pairs[claim] = [
            Contrast(best, one.key, name)
            for name in names
            if (best := hsieh_methods.tuned_best(records, name, MEAN))
            for one in PLAIN
        ]
    return hsieh_methods.compared(records, pairs)


def _judge(claim: str, records: Records) -> ClaimOutcome:
    return hsieh_methods.verdict(comparisons(records)[claim], len(PLAIN))


def markdown_tables(records: Records, folder: Path) -> list[str]:
    """A table and a row of pictures for each data set."""
    lines = []
    for name, title in TITLES.items():
        lines += hsieh_methods.markdown_tables(records, name, METHODS)
        lines += hsieh_methods.gallery(records, folder, name, title, METHODS)
    return lines


IMAGES = Experiment(
    "hsieh-images",
    "Mirror-GAN on images",
    HSIEH,
    tuple(
        Claim(
            f"experiments, {claim}",
            "Mirror-GAN or Mirror-Prox-GAN, preconditioned as RMSProp is, gives better samples than plain methods.",
            "Frechet distance (a classifier's features with weights, else pixels) of the mirror method that tuned "
            "better, against SGD, Adam and RMSProp; " + hsieh_methods.RULE,
            partial(_judge, claim),
        )
        for claim in STANDS_FOR
    ),
    units,
    {
        "tiny": "8x8 digits instead of MNIST, width 8, 12,000 gradients; nothing stands for LSUN.",
        "small": "Widths 16 (MNIST) and 8 (CIFAR-10, for LSUN bedrooms), 12,000 gradients; step sizes are tuned.",
        "paper": "CIFAR-10 instead of LSUN bedrooms; the paper's step sizes are not in the slides: they are tuned.",
    },
    markdown_tables,
)
