"""Duality gap and proximal duality gap against closed forms; a best response that failed says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from audit_games import F64, Gaussian
from proximal_games import SMALL, at_optimum, exact, sampled, sampled_game

from equilibrist import SGD, Verdict
from equilibrist.checks import Settings, gaps
from equilibrist.checks.context import AuditContext
from equilibrist.checks.proximal import inner
from equilibrist.checks.proximal._sampled import SampledProx
from equilibrist.games import GaussianW2GAN, GaussianWGAN
from equilibrist.theory import W2Gaussian

W, U, A, B = [[0.7]], [0.3], [[0.1]], [0.2]


def away() -> dict[str, dict[str, torch.Tensor]]:
    return {
        "generator": {"W": torch.tensor(W, dtype=F64), "u": torch.tensor(U, dtype=F64)},
        "critic": {"A": torch.tensor(A, dtype=F64), "b": torch.tensor(B, dtype=F64)},
    }


def test_both_gaps_off_the_optimum() -> None:
    audit = exact(GaussianW2GAN(s=2.0, dim=1), away(), "gaps", prox_lambda=0.7)
    truth = W2Gaussian(1, 2.0)
    plain, prox = audit["duality-gap"], audit["proximal-duality-gap"]
    # V is concave in u at this critic, so that W = 1 and a wall of u is best, or not: the truth tells.
    expected = truth.duality_gap(W, U, A, B)
    assert plain.evidence["gap"] == pytest.approx(expected, abs=1e-8)
    bounds = truth.proximal_gap(W, U, A, B, 0.7)
    assert prox.evidence["gap"] == pytest.approx(bounds.lower, abs=1e-7)
    slack = truth.max_value(W, U) - truth.value(W, U, A, B)
    assert plain.evidence["critic"]["gain"] == pytest.approx(slack, abs=1e-8)
    parts = sum(plain.evidence[p]["gain"] for p in ("critic", "generator"))
    assert parts == pytest.approx(expected, abs=1e-8)
    assert prox.evidence["generator"]["gain"] < 0, "signed"
    assert plain.verdict is prox.verdict is Verdict.REFUTED
    assert set(plain.witness) == {"generator", "critic"}


@pytest.mark.parametrize(
    ("game", "nash"), [(GaussianW2GAN(s=2.0, dim=2), 0.5), (GaussianW2GAN(s=0.6, dim=2), 0.0)]
)
def test_at_the_optimum(game: GaussianW2GAN, nash: float) -> None:
    audit = exact(game, at_optimum(game), "gaps")
    gap, prox = audit["duality-gap"], audit["proximal-duality-gap"]
    assert gap.evidence["gap"] == pytest.approx(nash, abs=1e-8)
    assert gap.verdict is (Verdict.REFUTED if nash else Verdict.NOT_REFUTED)
    assert prox.evidence["gap"] == pytest.approx(0.0, abs=1e-8)
    assert prox.verdict is Verdict.NOT_REFUTED


def test_the_wgan_names_its_critics() -> None:
    game = GaussianWGAN(s=2.0)
    found = exact(game, at_optimum(game), "gaps", prox_lambda=0.3)
    assert found["duality-gap"].evidence["gap"] == pytest.approx(
        float(game.shift_gain(torch.ones(1, dtype=F64))), abs=1e-8
    )
    assert found["proximal-duality-gap"].verdict is Verdict.REFUTED
    assert "a |x - c|" in found["proximal-duality-gap"].scope["critic_class"]


def test_on_samples_they_are_signed_and_held_out() -> None:
    audit = sampled(sampled_game(2.0), 2.0, "gaps", batches=48)
    plain, prox = audit["duality-gap"], audit["proximal-duality-gap"]
    low, high = plain.evidence["interval"]
    assert low <= 0.5 <= high
    assert plain.verdict is Verdict.REFUTED
    # The optimal critic cannot gain; overfitted to the optimise part it loses a little elsewhere.
    assert plain.evidence["critic"]["gain"] < 0
    assert prox.verdict is Verdict.NOT_REFUTED
    assert json.dumps(plain.evidence)


@pytest.mark.parametrize("rate", [3.0, 100.0])
def test_step_sizes_that_throw_the_critic_from_wall_to_wall_spoil_no_response(rate: float) -> None:
    """The gap is 1/2, what the shift gains against the critic at rest; at lambda = 0.1 < lambda* there is none."""
    wild = {"optimizers": {"generator": SGD(1e-3), "critic": SGD(rate)}}
    audit = sampled(sampled_game(2.0), 2.0, "gaps", batches=16, **wild)
    plain, proximal = (audit[claim] for claim in ("duality-gap", "proximal-duality-gap"))
    assert plain.verdict is Verdict.REFUTED
    assert plain.evidence["gap"] == pytest.approx(0.5, abs=0.05)
    assert proximal.verdict is not Verdict.REFUTED
    assert proximal.evidence["gap"] == pytest.approx(0.0, abs=0.02)


def test_a_failed_best_response_is_reported_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def astray(self: Any, generator: Any, lam: float, *rest: Any, **more: Any) -> inner.Answer:
        return inner.Answer({k: x - 3.0 for k, x in self.trained["critic"].items()})

    monkeypatch.setattr(SampledProx, "solve", astray)
    audit = sampled(sampled_game(2.0), 2.0, "gaps", batches=16, prox_steps=5)
    for claim in ("duality-gap", "proximal-duality-gap"):
        found = audit[claim]
        assert found.verdict is Verdict.UNASSESSED
        assert found.evidence["critic"]["status"].startswith("failed")
        assert found.evidence["critic"]["gain"] < -0.1, "its sign is kept"
        assert "failed" in found.summary
        assert found.witness is None


def test_the_critics_gain_is_scored_on_the_score_part_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = sampled_game(2.0).init()
    b = AuditContext(
        sampled_game(2.0), start.players, start.constants, Gaussian(1, 2.0), Settings(**SMALL), 0
    )
    prox, read = inner.prox_of(b, lambda gradients=1.0: None), []
    found = gaps.solve_well(prox, prox.trained["generator"], 0.0, staying=False)
    monkeypatch.setattr(gaps, "solve_well", lambda *_, **__: found)
    measure = type(prox).measure

    def reading(self: Any, generator: Any, critic: Any, lam: float, part: str) -> torch.Tensor:
        read.append(part)
        return measure(self, generator, critic, lam, part)

    monkeypatch.setattr(type(prox), "measure", reading)
    gaps._critic(b, prox, 5e-3)
    assert set(read) == {"score"}
