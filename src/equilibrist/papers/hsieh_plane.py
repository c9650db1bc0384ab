"""Hsieh, Liu and Cevher 2019, experiments in the plane: eight and 25 Gaussians, the Swiss roll."""

from __future__ import annotations

import dataclasses
import io
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from equilibrist import data
from equilibrist.core.draws import Stream, generator
from equilibrist.data import Source
from equilibrist.files.atomic import write_atomically
from equilibrist.formulations import WGAN
from equilibrist.games import GAN, Mixture
from equilibrist.networks import MixtureCritic, MixtureGenerator
from equilibrist.papers import hsieh_methods
from equilibrist.papers.hsieh_methods import MEAN, PLAIN, Budget, Contrast, Method, PairedDifference
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
from equilibrist.penalties import GradientPenalty
from equilibrist.run import Recipe
from equilibrist.scores import MixtureQuality
from equilibrist.solvers import Alternating

LAWS: dict[str, tuple[Callable[[], Source], str]] = {
    "eight-gaussians": (data.eight_gaussians, "eight Gaussians"),
    "twenty-five-gaussians": (data.twenty_five_gaussians, "25 Gaussians"),
    "swiss-roll": (data.swiss_roll, "Swiss roll"),
}
PARTICLES = 8
MIXTURES = tuple(hsieh_methods.mixture(one, PARTICLES) for one in MEAN)
METHODS = (*PLAIN, *MEAN, *MIXTURES)


@dataclasses.dataclass(frozen=True)
class Scale:
    """What a unit spends, and how large the perceptrons, minibatches and samples are."""

    budget: Budget
    width: int = 64
    depth: int = 2
    batch: int = 128
    samples: int = 1000

    def recipe(self, law: str, method: Method) -> Recipe:
        """WGAN with gradient penalty on a law; solver and steps are left to the method."""
        lone = GAN(
            lambda: MixtureGenerator(2, self.width, self.depth),
            lambda: MixtureCritic(self.width, self.depth),
            WGAN(),
            latent=2,
            penalties=[GradientPenalty(1.0)],
        )
        return Recipe(
            game=Mixture(lone, method.particles) if method.particles > 1 else lone,
            data=LAWS[law][0](),
            solver=Alternating(),
            steps=1,
            batch=self.batch,
            title=f"{law}: {method.title}",
        )


SCALES: dict[Size, Scale] = {
    "tiny": Scale(Budget(20_000, (3e-4, 1e-3, 3e-3), 1e-3, tuple(range(10)), (100, 101))),
}


def units(size: Size) -> tuple[Unit, ...]:
    """A unit for every law and method: it tunes, then trains every seed."""
    if size not in SCALES:
        return ()
    scale = SCALES[size]
    budget = scale.budget
    return tuple(
        Unit(
            f"{law}-{method.key}",
            f"{LAWS[law][1]}: {method.title}, {budget.gradients:,} gradients, {len(budget.seeds)} seeds",
            # Ten stacked pairs cost two or three times one; paired particles cannot be stacked.
            budget.total * (5.5e-5 if method.particles > 1 else 1.3e-5),
            partial(_work, scale, law, method),
        )
        for law in LAWS
        for method in METHODS
    )


def _work(scale: Scale, law: str, method: Method, place: Workspace) -> Measures:
    found = hsieh_methods.tuned_and_trained(
        place,
        method,
        scale.budget,
        partial(scale.recipe, law),
        (MixtureQuality(scale.samples, scale.samples),),
        _distance,
        stacked=True,
    )
    if (shown := hsieh_methods.newest_samples(place, scale.budget, "npy")) is not None:
        sheet = io.BytesIO()
        points = torch.from_numpy(np.load(shown, allow_pickle=False))
        point_cloud(points[: scale.samples], LAWS[law][0]()).save(sheet, "PNG")
        found["picture"] = f"{place.stem}.png"
        write_atomically(place.pictures / found["picture"], sheet.getvalue())
    return found


def _distance(names: Iterable[str]) -> str:
    """The exact 2-Wasserstein distance."""
    return next((name for name in names if name.endswith("/ w2")), "")


def point_cloud(points: Tensor, source: Source, side: int = 160) -> Image.Image:
    """Samples in blue over as many real ones in grey."""
    real = source.sample(generator(0, Stream.STUDY, 7), len(points))
    low, high = real.amin(0) - 0.4, real.amax(0) + 0.4
    page = Image.new("P", (side, side))
    page.putpalette((255, 255, 255, 187, 187, 187, 29, 78, 216))
    draw = ImageDraw.Draw(page)
    for shade, cloud in ((1, real), (2, points)):
        for x, y in ((cloud - low) / (high - low) * side).tolist():
            draw.point((x, side - y), fill=shade)
    return page


# -- what became of it ----------------------------------------------------------------------------------


def comparisons(records: Records) -> dict[str, list[PairedDifference]]:
    """By claim: each law's, the summary by a mean network, and plain SGD."""
    pairs: dict[str, list[Contrast]] = {}
    for law in LAWS:
        best = hsieh_methods.tuned_best(records, law, MEAN)
        pairs[law] = [Contrast(best, one.key, law) for one in PLAIN if best]
    pairs["mean"] = [
        Contrast(mean.key, mixed.key, law)
        for law in LAWS
        for mean, mixed in zip(MEAN, MIXTURES, strict=True)
    ]
    adaptive = {law: hsieh_methods.tuned_best(records, law, PLAIN[1:]) for law in LAWS}
    pairs["sgd"] = [Contrast(best, "sgd", law) for law, best in adaptive.items() if best]
    return hsieh_methods.compared(records, pairs)


WANTED = {**dict.fromkeys(LAWS, len(PLAIN)), "mean": 2 * len(LAWS), "sgd": len(LAWS)}


def _judge(claim: str, records: Records) -> ClaimOutcome:
    return hsieh_methods.verdict(comparisons(records)[claim], WANTED[claim])


def _judge_tuning(records: Records) -> ClaimOutcome:
    """Whether the best setting matters more to Adam and RMSProp than to the mirror methods."""
    spreads = {}
    for method in (*PLAIN[1:], *MEAN):
        ratios = []
        for law in LAWS:
            found = hsieh_methods.measures(records, law, method.key)
            if found is None:
                return ClaimOutcome("not tried", f"{law}: {method.title} was not run")
            ends = [float("inf") if row[2] is None else row[2] for row in found["tuning"]]
            ratios.append(max(ends) / min(ends) if min(ends) < float("inf") else float("inf"))
        spreads[method] = statistics.median(ratios)
    why = "worst over best distance, median over the laws: " + ", ".join(
        f"{method.title} {spread:.3g}" for method, spread in spreads.items()
    )
    plain = [spread for method, spread in spreads.items() if not method.mirror]
    mirror = [spread for method, spread in spreads.items() if method.mirror]
    if min(plain) > max(mirror):
        return ClaimOutcome("holds", why)
    return ClaimOutcome("does not hold" if max(plain) < min(mirror) else "undecided", why)


def markdown_tables(records: Records, folder: Path) -> list[str]:
    """A table and a row of pictures for each law."""
    lines = []
    for law, (_, title) in LAWS.items():
        lines += hsieh_methods.markdown_tables(records, law, METHODS, ("modes", "good"))
        lines += hsieh_methods.gallery(records, folder, law, title, METHODS)
    return lines


PLANE = Experiment(
    "hsieh-plane",
    "Mirror-GAN in the plane",
    HSIEH,
    (
        *(
            Claim(
                f"experiments, {title}",
                "Sampled mirror descent or mirror-prox (mean network) gives better samples than SGD, Adam and RMSProp.",
                "exact 2-Wasserstein distance of the mirror method that tuned better, against each plain method; "
                + hsieh_methods.RULE,
                partial(_judge, law),
            )
            for law, (_, title) in LAWS.items()
        ),
        Claim(
            "practical algorithm",
            "The mean network sums up a player's mixed strategy.",
            "mean networks against mixtures of eight particles, both methods, on the three laws, by distance; "
            + hsieh_methods.RULE,
            partial(_judge, "mean"),
        ),
        Claim(
            "slides, practical challenges",
            "Simple alternating SGD does not work well.",
            "the better-tuned of Adam and RMSProp against SGD on the three laws, by distance; "
            + hsieh_methods.RULE,
            partial(_judge, "sgd"),
        ),
        Claim(
            "slides, practical challenges",
            "Adaptive methods (Adam, RMSProp) are unstable and need heavy tuning.",
            "worst over best distance of six settings, median over the three laws. Holds: larger for both adaptive "
            "methods than for both mirror methods (mean network). Does not hold: smaller. Undecided: otherwise",
            _judge_tuning,
        ),
    ),
    units,
    {
        "tiny": "The paper's step sizes and noise are not in the slides: step sizes are tuned. Perceptrons of two "
        "hidden layers of 64, Langevin steps preconditioned as RMSProp is.",
    },
    markdown_tables,
)
