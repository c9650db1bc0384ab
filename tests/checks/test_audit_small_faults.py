"""Constants and signs that whole audits hardly show, each by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import equilibrist as eq
from equilibrist.checks import _lambda_verdict
from equilibrist.checks._decide import Interval
from equilibrist.checks._search import _Engine
from equilibrist.checks.certificate import Verdict


@pytest.mark.parametrize(
    ("smallest", "damped"), [(-2.0, True), (-0.5, False), (0.5, False), (2.0, False)]
)
def test_damped_answers_are_said_where_curvature_is_negative(smallest: float, damped: bool) -> None:
    ends = SimpleNamespace(smallest=smallest, zero=1.0)
    seen: Any = SimpleNamespace(own=SimpleNamespace(ends=ends), players=("leader", "follower"))
    words = _lambda_verdict.LambdaEvidence.star_in_words(seen, 1.0, 2.0)
    assert words == "1 to 2" + (
        " with the follower's answers damped (see the limits)" if damped else ""
    )


@pytest.mark.parametrize(
    ("high", "said"), [(-0.5, "at every lambda > 0"), (0.5, "as far as 7 products can tell")]
)
def test_lambda_star_is_zero_only_where_the_score_split_says_so(
    monkeypatch: pytest.MonkeyPatch, high: float, said: str
) -> None:
    monkeypatch.setattr(_lambda_verdict, "_unsettled", lambda seen: None)
    star = SimpleNamespace(
        low=0.0, high=3.0, vanishing=-1e6, converged=False, evidence={"products": 7}, u=None
    )
    context = SimpleNamespace(sampled=True, unit="nats")
    seen: Any = SimpleNamespace(
        context=context,
        star=star,
        players=("leader", "follower"),
        tolerance=SimpleNamespace(value=0.02),
        reach=1.0,
        scored=Interval(-0.6, high - 0.7, high),
        star_in_words=lambda low, high: "0 to 3",
    )
    verdict, text, _ = _lambda_verdict.verdict_of(seen)
    assert verdict is Verdict.UNASSESSED
    assert said in text


def test_step_sizes_fall_over_the_last_three_tenths() -> None:
    paces: list[float] = []

    class Rule:
        def init(self, params: Any) -> Any:
            return {"rule": 0}

        def update(self, v: Any, state: Any, params: Any, pace: float) -> None:
            paces.append(pace)

    here = {"w": torch.zeros(1)}
    search = _Engine.__new__(_Engine)
    search.show = None
    search.objective = SimpleNamespace(  # type: ignore[assignment]
        player="x",
        at=lambda params, constants=None: ({"x": params}, {}),
        gradient=lambda players, constants, step: here,
        selected=lambda players, constants, quick: torch.zeros(2),
        distance=lambda params: 0.0,
    )
    descent: Any = SimpleNamespace(
        failed="", params=here, state=None, rule=Rule(), step=0, travelled=0.0, best_gain=0.0,
        steps=[], gains=[], looks=[], samples=[],
    )  # fmt: skip
    search.run(descent, 10, 2, cool=True)
    assert paces == pytest.approx([1.0] * 8 + [2 / 3, 1 / 3])


def test_an_ordinary_games_derivatives_are_compared() -> None:
    found = eq.audit_pair(
        nn.Linear(2, 2), nn.Linear(2, 1), torch.randn(64, 2), eq.Vanilla(), latent=2,
        checks=["self-tests"], progress="none",
    )  # fmt: skip
    assert "their derivatives are right" in found["self-tests"].summary
