"""The Nash audit against games whose gains are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from audit_games import (
    F64,
    W2,
    Affine,
    Balanced,
    Gaussian,
    Linear,
    Modulus,
    Parabola,
    Shift,
    Unit,
    audit_game,
    audited,
    boxed,
    context,
    folded,
    true_gains,
)
from torch import nn

from equilibrist import GAN, SGD, WGAN, Vanilla, Verdict, WeightClipping
from equilibrist.checks import Audit, deviation
from equilibrist.checks._probes import Reach
from equilibrist.checks._search import Descent, Relative, SearchOutcome
from equilibrist.checks.context import AuditContext, student

FAST = {"steps": 60, "looks": 6, "batch": 32, "batches": 32, "look_batches": 8}
STRIDE = {"optimizers": {"generator": SGD(lr=0.2), "critic": SGD(lr=0.2)}}


def verdicts(audit: Audit) -> dict[str, Verdict]:
    return {c.claim: c.verdict for c in audit.values()}


@pytest.mark.parametrize(
    ("u", "w", "refuted"),
    [
        ([0.0, 0.0], [0.5, -0.25], {"generator"}),  # the critic has nothing to gain at u = 0
        ([1.0, -1.0], [0.5, -0.25], {"critic"}),  # u is the best response to w
        ([-0.5, 0.25], [-0.75, 0.5], {"critic", "generator"}),
        ([0.25, 0.5], [-1.0, -1.0], {"generator"}),  # w is the best response to u
    ],
)
def test_bilinear_box(u: list[float], w: list[float], refuted: set[str]) -> None:
    """WGAN, linear critic, a box for each: V = -w . u. Every gain is known, exact on each batch."""
    best = true_gains(u, w)
    found = audited(boxed(u, w), Gaussian(2), **FAST, **STRIDE)
    for player in ("generator", "critic"):
        certificate = found[f"nash/{player}"]
        assert (certificate.verdict is Verdict.REFUTED) == (player in refuted), str(found)
        assert (best[player] > 1e-9) == (player in refuted)
        low, high = certificate.evidence["interval"]
        gain = certificate.evidence["gain"]
        if player == "generator":  # w . (u' - u) on every batch: no noise
            assert gain == pytest.approx(best["generator"], abs=1e-12)
            assert high - low < 1e-12
        else:
            assert low <= best["critic"]
            assert gain <= best["critic"] + (high - low)
            if player in refuted:
                moved = torch.tensor(w, dtype=F64) - certificate.witness["critic"]["w"]
                assert low <= float(torch.tensor(u, dtype=F64) @ moved) <= high
                assert gain == pytest.approx(best["critic"], abs=4 * (high - low))
    overall = Verdict.REFUTED if refuted else Verdict.NOT_REFUTED
    assert found["nash"].verdict is overall


def test_witnesses_stay_in_the_box() -> None:
    found = audited(
        boxed([-0.5, 0.25], [-0.75, 0.5], t=0.6, c=0.8),
        Gaussian(2),
        **FAST,
        optimizers={"generator": SGD(lr=50.0), "critic": SGD(lr=50.0)},
    )
    assert float(found["nash/generator"].witness["generator"]["u"].abs().max()) == 0.6
    assert float(found["nash/critic"].witness["critic"]["w"].abs().max()) == 0.8
    assert found["nash/generator"].evidence["gain"] == pytest.approx(
        true_gains([-0.5, 0.25], [-0.75, 0.5], 0.6, 0.8)["generator"], abs=1e-12
    )


# -- Theorem 1 -----------------------------------------------------------------------------------

S, ETA = 2.0, 0.5


def theorem_one(latent: Any = 1) -> GAN:
    """W2GAN at its optimum for X ~ N(0, S^2): W = 1 (its wall), u = 0, D*(x) = eta (1 - 1/S) x^2."""
    return GAN(
        Affine(1.0, [0.0]),
        Parabola(ETA * (1 - 1 / S), 0.0),
        W2(ETA),
        latent=latent,
        projections=(WeightClipping(1.0, "generator"),),
    )


def test_theorem_one_w2_shift_gains_what_it_must() -> None:
    found = audited(
        theorem_one(),
        Gaussian(1, S),
        **FAST,
        optimizers={"generator": SGD(lr=0.2), "critic": SGD(lr=1e-3)},
    )
    certificate = found["nash/generator"]
    assert certificate.verdict is Verdict.REFUTED
    witness = certificate.witness["generator"]
    truth = ETA * (S - 1) * (float(witness["u"]) ** 2 + float(witness["w"]) ** 2 - 1)
    low, high = certificate.evidence["interval"]
    assert low <= truth <= high
    assert truth <= ETA * (S - 1) + 1e-12
    assert low <= ETA * (S - 1)
    assert certificate.evidence["gain"] == pytest.approx(ETA * (S - 1), abs=(high - low))
    # The critic is optimal, whatever it tries.
    assert found["nash/critic"].verdict is Verdict.NOT_REFUTED
    assert found["nash/critic"].evidence["interval"][0] <= 0


def test_theorem_one_wgan_shift() -> None:
    """D(x) = |x|: the shift u gains sqrt(2/pi) (exp(-u^2/2) - 1) + u erf(u / sqrt 2)."""
    game = GAN(
        Affine(1.0, [0.0]),
        Modulus(),
        WGAN(),
        latent=1,
        projections=(WeightClipping(1.0, "generator"), WeightClipping(1.0, "critic")),
    )
    found = audited(
        game, Gaussian(1, S), **(FAST | {"batches": 64}), optimizers={"generator": SGD(lr=0.2)}
    )
    certificate = found["nash/generator"]
    assert certificate.verdict is Verdict.REFUTED
    witness = certificate.witness["generator"]
    truth = folded(float(witness["w"]), float(witness["u"])) - folded(1.0, 0.0)
    best = math.sqrt(2 / math.pi) * (math.exp(-0.5) - 1) + math.erf(1 / math.sqrt(2))
    low, high = certificate.evidence["interval"]
    assert low <= truth <= high
    assert truth <= best + 1e-12
    assert truth == pytest.approx(best, rel=1e-3)
    assert found["nash/critic"].verdict is Verdict.NOT_REFUTED


def test_a_stationary_non_nash_point_is_left_by_line_searches_and_perturbed_starts() -> None:
    """Latents of mean exactly 0: the gradient in u vanishes on every batch, and descents from the point stay."""
    found = audited(theorem_one(Balanced()), Gaussian(1, S), **FAST | {"starts": 3, "steps": 200})
    generator = found["nash/generator"]
    assert generator.verdict is Verdict.REFUTED
    assert generator.evidence["gain"] == pytest.approx(ETA * (S - 1), abs=1e-6)
    still = [c for c in generator.evidence["curves"] if c["from"] == "the pair"]
    assert still
    assert all(set(curve["gain"]) == {0.0} for curve in still)
    stationary = audited(theorem_one(Balanced()), Gaussian(1, S), checks=("stationary",), batch=32)
    assert stationary["stationary/generator"].evidence["residual"] == 0
    assert stationary["stationary/generator"].verdict is Verdict.VERIFIED


class Hill(nn.Module):
    """D(x) = a x^2: the generator gains by moving away from 0, either way."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(1, dtype=F64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.a * x.square()).flatten()


@pytest.mark.filterwarnings("ignore:values of gaussian run")
def test_perturbed_starts_escape_from_a_player_that_is_all_zero() -> None:
    game = GAN(
        Shift([0.0]),
        Hill(),
        Unit(),
        latent=Balanced(),
        projections=(WeightClipping(1.0, "generator"),),
    )
    found = audited(game, Gaussian(), **FAST, **STRIDE)["nash/generator"]
    assert found.verdict is Verdict.REFUTED
    assert found.evidence["gain"] == pytest.approx(1.0, abs=1e-9)


# -- Proposition 1: pairs that are Nash ----------------------------------------------------------


def constant_critic(width: int = 8) -> nn.Sequential:
    torch.manual_seed(1)
    critic = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1)).double()
    with torch.no_grad():
        critic[2].weight.zero_()
        critic[2].bias.zero_()
    return critic


@pytest.mark.parametrize("saturating", [True, False])
def test_nash_pairs_are_not_refuted(saturating: bool) -> None:
    """The generator makes the data's law and the critic is constant: nobody can gain."""
    game = GAN(Affine(2.0, [0.0]), constant_critic(), Vanilla(saturating=saturating), latent=1)
    counts: dict[Verdict, int] = {}
    for seed in range(12):
        found = audited(
            game,
            Gaussian(1, 2.0),
            seed=seed,
            **(FAST | {"steps": 30, "looks": 3, "starts": 2}),
            optimizers={"generator": SGD(lr=0.1), "critic": SGD(lr=0.5)},
        )
        verdict = found["nash"].verdict
        counts[verdict] = counts.get(verdict, 0) + 1
        # The witness is chosen elsewhere than it is scored: no gain where there is none.
        for player in ("generator", "critic"):
            assert found[f"nash/{player}"].evidence["interval"][0] < 0.01
    assert Verdict.REFUTED not in counts
    assert counts[Verdict.NOT_REFUTED] == 12


def test_a_wgan_at_nash_has_a_tolerance() -> None:
    """Proposition 1 for the WGAN: u = 0, w = 0. Without a yardstick nothing can be judged."""
    found = audited(
        boxed([0.0], [0.0]), Gaussian(), checks=("stationary", "nash"), **FAST, **STRIDE
    )
    for certificate in found.values():
        assert certificate.verdict is not Verdict.REFUTED
        if certificate.player:
            assert certificate.tolerance.value > 0 or certificate.verdict is Verdict.UNASSESSED


def test_a_nash_wgan_under_an_absolute_yardstick_is_not_refuted() -> None:
    found = audited(
        boxed([0.0], [0.0], c=0.25, formulation=Unit()),
        Gaussian(),
        **FAST | {"batch": 256},  # the noise at the wall is 0.004, the tolerance 0.02
        optimizers={"generator": SGD(lr=0.2), "critic": SGD(lr=0.01)},
    )
    assert found["nash"].verdict is Verdict.NOT_REFUTED
    assert found["nash/generator"].evidence["gain"] == 0


# -- spectral normalisation ----------------------------------------------------------------------


def slanted() -> GAN:
    """V = -w . u / |w| at w = (1, 0), u = (-0.5, -0.1): the critic may gain |u| - 0.5 = 0.0099.

    With frozen power vectors the norm is w_1, and w_2 is free: V = 0.5 + 0.1 w_2 / w_1.
    """
    critic = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[1.0, 0.0]]))
    return GAN(Affine(0.05, [-0.5, -0.1]), critic, Unit(), latent=2, spectral_norm=True)


TRAP: dict[str, Any] = FAST | {
    "steps": 60,
    "starts": 1,
    "batch": 64,
    "batches": 64,
    "optimizers": {"critic": SGD(lr=0.3), "generator": SGD(lr=1e-6)},
}


def test_the_critic_does_not_escape_through_frozen_power_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    best = math.hypot(0.5, 0.1) - 0.5
    honest = audited(slanted(), Gaussian(2, 0.05), **TRAP)["nash/critic"]
    assert honest.evidence["interval"][0] <= best
    assert honest.evidence["gain"] < 0.02
    assert honest.verdict is not Verdict.REFUTED
    # The trap is there: with frozen vectors the same search "gains" much more than there is.
    monkeypatch.setattr(AuditContext, "exact", lambda self, players, constants: constants)
    fooled = audited(slanted(), Gaussian(2, 0.05), **TRAP)["nash/critic"]
    assert fooled.verdict is Verdict.REFUTED
    assert fooled.evidence["interval"][0] > 5 * best


class Watched(GAN):
    """Notes the norms that the critic's weights have whenever a loss is read."""

    def losses(self, players: Any, constants: Any, draw: Any, only: str | None = None) -> Any:
        if hasattr(self, "norms"):
            seen = self._seen(players, constants)
            self.norms += [
                float(torch.linalg.matrix_norm(seen[k].detach(), 2)) for k in self.normalised
            ]
        return super().losses(players, constants, draw, only)


def test_spectral_norm_is_exact_at_every_loss() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    game = Watched(Shift([0.3, 0.1]), critic, Vanilla(), latent=2, spectral_norm=True)
    start = game.init()
    stale = {
        **start.constants,
        "critic": {k: torch.roll(v, 1) for k, v in start.constants["critic"].items()},
    }
    game.norms = []
    from equilibrist.checks import Settings

    audit_game(
        game,
        start.players,
        stale,
        Gaussian(2),
        Settings(
            **(FAST | {"steps": 20, "looks": 4}),
            optimizers={"critic": SGD(lr=1.0), "generator": SGD(lr=0.1)},
        ),
        progress="none",
    )
    assert len(game.norms) > 500
    assert max(abs(n - 1) for n in game.norms) < 1e-7


# -- failures ------------------------------------------------------------------------------------


class Cliff(nn.Module):
    """Shifts by u, from 0.1; beyond `edge` the samples are infinite."""

    def __init__(self, edge: float = 0.5) -> None:
        super().__init__()
        self.edge = edge
        self.u = nn.Parameter(torch.tensor([0.1], dtype=F64))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + self.u + torch.where(self.u.detach().abs() < self.edge, 0.0, math.inf)


def test_a_search_that_blows_up_is_a_failure_and_no_gain() -> None:
    b = context(GAN(Cliff(), Linear([1.0]), WGAN(), latent=1), Gaussian(), steps=100, starts=3)
    failed = [descent(failed="the loss became non-finite at step 5") for _ in range(3)]
    certificate = deviation._certificate(
        b, "generator", outcome(*failed), deviation.Tolerance(0.02, "score", "")
    )
    assert certificate.verdict is Verdict.UNASSESSED
    assert certificate.evidence["budget"]["failed"] == 3
    assert certificate.evidence["gain"] == 0
    assert certificate.witness is None
    assert "non-finite" in certificate.summary


def descent(u: float | None = None, gain: float = 0.0, failed: str = "") -> Descent:
    """A descent that passed this point."""
    params = None if u is None else {"u": torch.tensor([u], dtype=F64)}
    rule = Relative(0.1, {"u": torch.ones((), dtype=F64)}, ())
    made = Descent("the pair", 0.0, rule, params or {}, steps=[0, 5], gains=[0.0, gain])
    made.best, made.best_gain, made.best_step, made.failed = params, gain, 5, failed
    return made


def outcome(*descents: Descent, finished: bool = True) -> SearchOutcome:
    """What a search with these descents found."""
    return SearchOutcome(
        list(descents), {"descents": Reach(len(descents), 1.0)}, finished, 0.0, 10.0
    )


def test_a_witness_found_before_a_failure_still_refutes() -> None:
    game = GAN(Cliff(), Linear([1.0]), WGAN(), latent=1)
    found = audited(
        game,
        Gaussian(),
        starts=3,
        steps=100,
        looks=20,
        batch=32,
        optimizers={"generator": SGD(lr=0.01), "critic": SGD(lr=1e-6)},
    )["nash/generator"]
    assert found.evidence["budget"]["failed"] >= 1
    assert found.evidence["gain"] > 0.3
    assert found.verdict is Verdict.REFUTED


def test_one_failed_search_of_several_is_named_and_the_others_count() -> None:
    game = GAN(Cliff(), Linear([1.0]), WGAN(), latent=1)
    b = context(game, Gaussian(), starts=2, steps=20, looks=4)
    tolerance = deviation.Tolerance(0.02, "score", "")
    good, bad = descent(0.4, 0.3), descent(failed="the loss became non-finite at step 5")
    certificate = deviation._certificate(b, "generator", outcome(good, bad), tolerance)
    assert certificate.verdict is Verdict.REFUTED
    assert certificate.evidence["gain"] == pytest.approx(0.3, abs=1e-12)
    assert any("1 of 2 descents failed" in line for line in certificate.limits)


# -- the verdict's boundaries --------------------------------------------------------------------


def judged(gain: float, tolerance: float, spread: float = 0.0, finished: bool = True) -> Verdict:
    """The verdict on a deviation whose gain is `gain` with a half interval of `spread`."""
    b = context(boxed([0.0], [0.5]), Gaussian(), batches=4)
    noise = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=F64)
    width = student(noise, 0.95).half_width
    before = torch.zeros(4, dtype=F64)

    def losses(player: str, players: Any, constants: Any, part: str) -> torch.Tensor:
        moved = float(players["generator"]["u"]) != 0
        return before - (gain + spread / width * noise) if moved else before

    b.losses = losses  # type: ignore[method-assign]
    return deviation._certificate(
        b,
        "generator",
        outcome(descent(1.0, 1.0), finished=finished),
        deviation.Tolerance(tolerance, "", ""),
    ).verdict


def test_boundaries_of_the_nash_verdict() -> None:
    assert judged(0.021, 0.02) is Verdict.REFUTED
    assert judged(0.02, 0.02) is Verdict.NOT_REFUTED  # exactly the tolerance: called nothing
    assert judged(0.031, 0.02, spread=0.010) is Verdict.REFUTED
    assert (
        judged(0.029, 0.02, spread=0.010) is not Verdict.REFUTED
    )  # the interval decides, not its middle
    assert judged(0.005, 0.02, spread=0.010) is Verdict.NOT_REFUTED
    assert judged(0.005, 0.02, spread=0.021) is Verdict.UNASSESSED
    assert judged(-1.0, 0.02, spread=0.001) is Verdict.NOT_REFUTED  # a search that failed to gain
    assert judged(1.0, 0.02, spread=0.5) is Verdict.REFUTED  # wide, and still clear
    assert judged(0.005, 0.02, finished=False) is Verdict.UNASSESSED
    assert judged(0.03, 0.02, finished=False) is Verdict.REFUTED
    assert judged(math.nan, 0.02) is Verdict.UNASSESSED
    assert judged(math.inf, 0.02) is Verdict.UNASSESSED


def test_a_gain_above_the_tolerance_is_not_called_none() -> None:
    """0.035 +- 0.018 against 0.02: neither refuted nor 'no generator gains more than 0.02'."""
    assert judged(0.035, 0.02, spread=0.018) is Verdict.UNASSESSED
