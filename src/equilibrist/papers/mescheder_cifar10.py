"""Mescheder, Nowozin and Geiger 2017, CIFAR-10: DCGANs by consensus and by alternating descent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

from equilibrist.data import digits
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN
from equilibrist.networks import DCGANCritic, DCGANGenerator
from equilibrist.optimizers import TFRMSProp
from equilibrist.papers.looks import looks
from equilibrist.papers.mescheder_losses import (
    CELLS,
    CONSTANT,
    FACTOR,
    FOUR,
    NETS,
    THREE,
    WILD,
    WON,
    Arm,
    Net,
    judge_cause,
    judge_losses,
    judge_score,
    judge_training,
    markdown_tables,
)
from equilibrist.papers.model import Claim, Experiment, Measures, Size, Unit, Workspace
from equilibrist.papers.sources import MESCHEDER
from equilibrist.papers.training import relative_cost, train_seeds
from equilibrist.recipe_lookup import resolve
from equilibrist.run.recipe import Recipe
from equilibrist.solvers import Alternating, Consensus

LOOKS = 10


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the experiment is.

    Attributes:
        data: "digits" (then each player has one convolution less) or "cifar10".
        dim, iterations, seeds: of training; `lr` of RMSProp.
        samples: that scores look at.
        minutes: of one CPU core for an iteration of alternating descent, by network.
    """

    data: str
    dim: int
    iterations: int
    seeds: tuple[int, ...]
    samples: int
    minutes: Mapping[str, float]
    lr: float = 1e-4

    def recipe(self, net: Net, cell: Arm) -> Recipe:
        """The network in a cell of the comparison."""
        if self.data == "digits":
            return self._on_digits(net, cell)
        settings = {
            "dim": self.dim, "layers": net.layers, "method": cell.method, "gamma": net.gamma,
            "batch_norm": cell.batch_norm, "lr": self.lr, "steps": self.iterations,
        }  # fmt: skip
        made: Recipe = resolve("cifar10-dcgan", settings, builtin=True).build()
        return made

    def _on_digits(self, net: Net, cell: Arm) -> Recipe:
        layers, latent, rule = net.layers - 1, 16, TFRMSProp(self.lr)
        return Recipe(
            game=GAN(
                lambda: DCGANGenerator(layers, (1, 8), self.dim, latent, cell.batch_norm),
                lambda: DCGANCritic(layers, (1, 8), self.dim, cell.batch_norm),
                Vanilla(saturating=False),
                latent=latent,
            ),
            data=digits(value_range=(-1.0, 1.0)),
            solver=Consensus(rule, gamma=net.gamma)
            if cell.method == "consensus"
            else Alternating(1, rule),
            steps=self.iterations,
            title="DCGAN on 8x8 digits",
        )


SCALES: dict[Size, Scale] = {
    "tiny": Scale(
        "digits", 4, 1000, tuple(range(10)), 1024, {"three": 0.00007, "four": 0.00007}, 1e-3
    ),
    "small": Scale("cifar10", 16, 8000, (0, 1, 2), 2048, {"three": 0.0013, "four": 0.0017}),
    "paper": Scale("cifar10", 64, 150_000, (0, 1, 2), 6400, {"three": 0.013, "four": 0.02}),
}


def units(size: Size) -> tuple[Unit, ...]:
    """Every cell of both networks, what the slides compare first; at size tiny all seeds of a cell are one unit."""
    scale = SCALES[size]
    together = size == "tiny"
    groups = [scale.seeds] if together else [(seed,) for seed in scale.seeds]
    found = []
    for net in NETS:
        for seeds in groups:
            for cell in CELLS:
                suffix = "" if together else f"-seed-{seeds[0]}"
                count = len(seeds)
                minutes = scale.minutes[net.key] * (2.3 if cell.method == "consensus" else 1.0)
                found.append(
                    Unit(
                        f"{net.key}-{cell.key}{suffix}",
                        f"{net.title}: {cell.title}, {count} seed{'s' if count > 1 else ''}, "
                        f"{scale.iterations} iterations",
                        scale.iterations * minutes * count,
                        partial(_cell, scale, net, cell, seeds),
                    )
                )
    return tuple(found)


def _cell(scale: Scale, net: Net, cell: Arm, seeds: Sequence[int], place: Workspace) -> Measures:
    recipe = scale.recipe(net, cell)
    cost = relative_cost(recipe, base=scale.recipe(net, WILD))
    scores = looks(scale.data, place.weights, scale.samples)
    found = train_seeds(place, recipe, seeds, scores=scores, looks=LOOKS, stacked=len(seeds) > 1)
    return {**found, "cost": cost}


CIFAR10 = Experiment(
    "mescheder-cifar10",
    "CIFAR-10: consensus without batch norm, alternating descent with it",
    MESCHEDER,
    (
        Claim(
            "Figure on CIFAR-10, (a) and (b)",
            "Alternating gradient ascent (with batch norm) leads to highly fluctuating losses; consensus "
            "(without) makes them almost constant.",
            "fluctuation: standard deviation of a player's logged losses over the last half of the "
            "iterations, over the loss where the critic cannot tell (2 log 2, log 2). Holds: for both "
            f"players it is surely below {CONSTANT:g} with consensus, and alternating's surely more than "
            f"{FACTOR:g} times that (paired by seed, 95% intervals); no seed of consensus diverged, and in "
            f"none is the critic's mean loss below {WON:g} of its level. Holds in part: surely less with "
            "consensus for both players, and none diverged. Does not hold: surely more for one, or a seed of "
            "consensus diverged. Undecided: else",
            partial(judge_losses, THREE),
        ),
        Claim(
            "Figure on CIFAR-10, (c)",
            "Both methods converge at comparable rates, and consensus ends with slightly better scores.",
            "consensus without batch norm less alternating with it, paired by seed, 95% intervals. Holds: "
            "better at equal iterations, and not worse at equal seconds. Holds in part: better at equal "
            "iterations only. Does not hold: worse at equal iterations. Undecided: else",
            partial(judge_score, THREE),
        ),
        Claim(
            "Figure on CIFAR-10, the cause",
            "It is consensus optimisation that stabilises the losses.",
            "the fluctuation's logarithm, averaged over players, alternating less consensus at the same "
            "batch norm, paired by seed, p < 0.05 after Holm. Holds: less with consensus both with and "
            "without batch norm. Holds in part: in one of the two. Does not hold: in none, and more in one. "
            "Undecided: else",
            partial(judge_cause, THREE),
        ),
        Claim(
            "Samples, (a)",
            "Consensus trains a DCGAN without batch norm (4 convolutions).",
            "the score at the end less that of the initial pair, paired by seed, 95% interval. Holds: surely "
            "better, no seed diverged, and not surely behind alternating on the same network. Holds in part: "
            "surely behind it. Does not hold: worse than the initial pair, or most seeds diverged. "
            "Undecided: else",
            partial(judge_training, FOUR),
        ),
    ),
    units,
    {
        "tiny": "8x8 digits instead of CIFAR-10, one convolution less in each player, width 4, 1,000 iterations "
        "at a step size of 1e-3 (1e-4 hardly moves them in that time); a distance between pixels decides on scores.",
        "small": "Width 16 instead of 64, 8,000 iterations instead of 150,000; a ResNet-56's class score from 2,048 "
        "samples instead of the Inception score from 6,400.",
        "paper": "As the slides, but a ResNet-56's class score instead of the Inception score. What they leave open "
        "follows the authors' published code (z of 256, non-saturating losses); the generator's activations are ReLU.",
    },
    markdown_tables,
)
