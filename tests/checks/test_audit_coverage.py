"""Do the intervals cover? A small Monte Carlo for every check that scores on samples.

A check runs twice with the same search, so that it finds the same deviation, but with other score
batches: the mean of the second run is the truth for intervals of a few batches each of the first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import Affine, Gaussian, Parabola

from equilibrist import GAN, SGD, tree
from equilibrist.checks import Settings, path_angle
from equilibrist.checks.context import PARTS, AuditContext, student
from equilibrist.checks.registry import REGISTRY
from equilibrist.core.draws import Address, Use
from equilibrist.formulations import Relativistic

CONFIDENCE, EACH, GROUPS = 0.9, 4, 24
SETTINGS = Settings(
    batch=16,
    steps=40,
    looks=4,
    starts=2,
    batches=EACH * GROUPS,
    local_batches=EACH * GROUPS,
    linear_batches=2,
    look_batches=4,
    absolute=1e-4,
    move=0.1,
    local_products=64,
    prox_lambdas=(0.01, 0.1),
    prox_starts=1,
    prox_steps=2,
    prox_track=1,
    inner_steps=2,
    prox_trials=2,
    experiment_steps=2,
    optimizers={"generator": SGD(lr=0.05), "critic": SGD(lr=0.05)},
)
OWN = {"path-angle": {"linear_batches": EACH * GROUPS // 2}}
RUNS = {"stable": EACH * GROUPS // 8}  # of 8 score batches each, whatever the settings allow
SCORING = sorted(set(REGISTRY) - {"self-tests"})  # which measure nothing


class Recorded(AuditContext):
    """Keeps what intervals were taken of."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.values: list[torch.Tensor] = []

    def interval(self, values: torch.Tensor, part: str = "score") -> Any:
        if part == "score":
            self.values.append(values.detach())
        return super().interval(values, part)


def scored(check: str, score_seed: int, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What intervals were taken of, with score batches of a seed of their own."""
    drawn = Address.generator
    bank = Use.BANK.at(part=PARTS.index("score"))

    def generator(self: Address, seed: int) -> np.random.Generator:
        return drawn(self, score_seed if self == bank else seed)

    with monkeypatch.context() as patch:
        patch.setattr(Address, "generator", generator)
        patch.setattr(path_angle, "WHERE", (0.96, 1.04))  # what its intervals are of
        settings = replace(SETTINGS, **OWN.get(check, {}))
        made = lambda: Affine(0.5, [0.3]), lambda: Parabola(1.0, 0.5)
        game = GAN(*made, Relativistic(saturating=True), latent=1)
        context = Recorded(game, *game.init(0), Gaussian(), settings, 0)
        context.origin = tree.map(lambda x: x + 0.5, context.players)
        REGISTRY[check].run(context, lambda gradients=1.0: None, None)
    return context.values


@pytest.mark.parametrize("check", SCORING)
def test_intervals_cover_at_the_stated_rate(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = RUNS.get(check, 1)
    seeds = range(100, 100 + runs), range(500, 500 + runs)
    first, second = (
        [torch.cat(v) for v in zip(*(scored(check, s, monkeypatch) for s in group), strict=True)]
        for group in seeds
    )
    moving = [(a, b) for a, b in zip(first, second, strict=True) if float(a.std()) > 1e-12]
    assert moving, "nothing was scored"
    shuffle = torch.Generator().manual_seed(0)
    for values, others in moving:
        assert len(values) == EACH * GROUPS
        truth, error = float(others.mean()), float(others.std()) / len(others) ** 0.5
        assert abs(float(values.mean()) - truth) < 5 * error, "batches that share noise"
        # The same values in many groupings: less chance in the rate than one grouping has.
        hits = []
        for _ in range(20):
            mixed = values[torch.randperm(len(values), generator=shuffle)]
            intervals = [student(group, CONFIDENCE) for group in mixed.split(EACH)]
            hits += [i.low <= truth <= i.high for i in intervals]
        rate = sum(hits) / len(hits)
        assert abs(rate - CONFIDENCE) < 0.05, f"{rate:.1%} of the intervals hold the truth"
