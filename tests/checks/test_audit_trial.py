"""One lambda, with scripted answers: which generators are looked at again, and what is left open."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from audit_games import F64
from proximal_games import EXACT

from equilibrist import Verdict
from equilibrist.checks import Settings
from equilibrist.checks.context_exact import ExactContext
from equilibrist.checks.proximal.inner import Answer, Search
from equilibrist.checks.proximal.trial import REEVALUATED, trial
from equilibrist.games import GaussianW2GAN

TOLERANCE = 0.1


class Scripted:
    """V_prox of generator k (its first entry is k) seems to be -`seeming[k]`, and is -`true[k]` where the critic
    answers with more steps; 0 at the trained generator, k = 0."""

    def __init__(self, seeming: list[float], true: list[float]) -> None:
        self.seeming, self.true = [0.0, *seeming], [0.0, *true]
        self.trained = {
            "generator": self.numbered(0),
            "critic": {"value": torch.full((1,), -100.0, dtype=F64)},
        }

    @staticmethod
    def numbered(k: int) -> dict[str, torch.Tensor]:
        return {"k": torch.tensor([float(k)], dtype=F64)}

    def solve(
        self, generator: Any, lam: float, effort: int = 1, fresh: int = 0, warm: Any = None
    ) -> Answer:
        gains = self.seeming if effort == 1 else self.true
        critic = {"value": torch.tensor([-gains[int(generator["k"])]], dtype=F64)}
        return Answer(critic, residual=0.0, settled=effort > 1)

    def measure(self, generator: Any, critic: Any, lam: float, part: str) -> torch.Tensor:
        # The trained critic, left as it is, answers a moved generator badly.
        return critic["value"] if generator["k"] else torch.zeros(1, dtype=F64)

    def descend(
        self, start: Any, lam: float, within: float = math.inf, share: float = 1.0
    ) -> Search:
        return Search([self.numbered(k) for k in range(1, len(self.true))])

    def feasible(self, generator: Any) -> Any:
        return generator


def verdict(seeming: list[float], true: list[float]) -> Any:
    game = GaussianW2GAN(2.0, 1)
    settings = Settings(**{**EXACT, "prox_starts": 1})
    context = ExactContext(game, game.points()[0].players, settings)
    return trial(context, Scripted(seeming, true), 1.0, TOLERANCE)


def test_a_generator_that_only_seemed_to_gain_does_not_refute() -> None:
    found = verdict([1.0] * REEVALUATED, [0.0] * REEVALUATED)
    assert found.verdict is Verdict.NOT_REFUTED
    assert found.false_improvements == REEVALUATED


def test_a_generator_that_holds_out_refutes() -> None:
    found = verdict([1.0, 2.0], [0.5, 0.0])
    assert found.verdict is Verdict.REFUTED
    assert found.gain.mean == pytest.approx(0.5)


@pytest.mark.parametrize(("seems", "expected"), [(1.0, "UNASSESSED"), (0.05, "NOT_REFUTED")])
def test_a_better_generator_that_was_not_looked_at_again_leaves_it_open(
    seems: float, expected: str
) -> None:
    """Only `CLOSER` are looked at again; of the next nothing is known but what it seems to gain."""
    found = verdict([2.0] * REEVALUATED + [seems], [0.0] * REEVALUATED + [3.0])
    assert found.verdict.value == expected
