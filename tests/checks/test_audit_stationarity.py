"""The stationarity check: estimator, interval, noise floor, verdicts, feasible sets, invariances."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import (
    F64,
    Affine,
    Gaussian,
    Linear,
    Shift,
    Unit,
    audit_game,
    audited,
    boxed,
    context,
    points,
)
from scipy import stats
from torch import nn

from equilibrist import GAN, WGAN, Vanilla, Verdict, WeightClipping, tree
from equilibrist.checks import Settings, stationarity
from equilibrist.checks._decide import Interval
from equilibrist.checks._first_order import FirstOrder
from equilibrist.checks.certificate import Tolerance, of_all_players
from equilibrist.checks.stationarity import _trace_of_square, gram_of, squared_norm, unblocked


def groups(mean: np.ndarray, spread: np.ndarray, K: int, trials: int, seed: int) -> torch.Tensor:
    """[trials, K, n] independent N(mean, diag(spread^2))."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(mean + spread * rng.standard_normal((trials, K, len(mean))))


# -- the estimator -------------------------------------------------------------------------------


def test_squared_norm_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, -1.0], [0.0, 2.0]], dtype=F64)
    pairs = [float(x[i] @ x[j]) for i in range(4) for j in range(4) if i != j]

    def u(rows: torch.Tensor) -> float:
        k = len(rows)
        return sum(float(rows[i] @ rows[j]) for i in range(k) for j in range(k) if i != j) / (
            k * (k - 1)
        )

    left_out = np.array([u(torch.cat([x[:i], x[i + 1 :]])) for i in range(4)])
    reach = stats.t.ppf(0.95, 3) * math.sqrt(3 / 4 * ((left_out - left_out.mean()) ** 2).sum())
    estimate, low, high, _ = squared_norm(gram_of(x), 0.9)
    assert estimate == pytest.approx(np.mean(pairs), abs=1e-14)
    assert (low, high) == (pytest.approx(estimate - reach), pytest.approx(estimate + reach))


@pytest.mark.parametrize("size", [0.0, 0.5, 3.0])
def test_squared_norm_is_unbiased(size: float) -> None:
    """With anisotropic noise; the naive |mean|^2 would be off by tr S / K, 20 standard errors."""
    n, K, trials = 6, 5, 4000
    spread = np.linspace(0.2, 2.0, n)
    mean = size * np.ones(n) / math.sqrt(n)
    x = groups(mean, spread, K, trials, 3)
    estimates = np.array([squared_norm(gram_of(g), 0.95)[0] for g in x])
    error = estimates.std() / math.sqrt(trials)
    assert abs(estimates.mean() - size**2) < 4 * error
    naive = float(x.mean(1).square().sum(1).mean())
    assert abs(naive - size**2) > 8 * error


@pytest.mark.parametrize(("n", "ratio"), [(20, 1.0), (20, 4.0), (1, 10.0)])
def test_the_interval_covers(n: int, ratio: float) -> None:
    """`ratio` = |m| / noise of the mean of all groups, in the direction of m and of the noise."""
    K, trials = 10, 800
    mean = np.zeros(n)
    mean[0] = ratio * math.sqrt(n / K)
    hits = [
        low <= mean[0] ** 2 <= high
        for _, low, high, _ in (
            squared_norm(gram_of(g), 0.95) for g in groups(mean, np.ones(n), K, trials, 5)
        )
    ]
    assert 0.92 < np.mean(hits) <= 1.0


@pytest.mark.parametrize("n", [10, 30])
def test_the_floor_is_a_one_sided_bound_of_pure_noise(n: int) -> None:
    above = [
        est > floor
        for est, _, _, floor in (
            squared_norm(gram_of(g), 0.95) for g in groups(np.zeros(n), np.ones(n), 10, 1500, 7)
        )
    ]
    assert 0.005 < np.mean(above) < 0.075


def test_the_floor_in_many_dimensions() -> None:
    """Its square is t times the standard deviation sqrt(2 n / (K (K - 1))) of the estimate, for N(0, I_n)."""
    n, K = 20_000, 10
    floors = [squared_norm(gram_of(g), 0.95)[3] for g in groups(np.zeros(n), np.ones(n), K, 10, 11)]
    truth = stats.t.ppf(0.95, K - 1) * math.sqrt(2 * n / (K * (K - 1)))
    assert np.mean(floors) == pytest.approx(truth, rel=0.15)


@pytest.mark.parametrize("n", [1, 2])
def test_pure_noise_is_not_taken_for_motion(n: int) -> None:
    lows = [
        squared_norm(gram_of(g), 0.95)[1] for g in groups(np.zeros(n), np.ones(n), 10, 1000, 13)
    ]
    assert np.mean(np.array(lows) > 0) < 0.025


# -- through the audit ---------------------------------------------------------------------------


def test_residuals_of_the_bilinear_game_are_known() -> None:
    """V = -w . u + noise: |dV/du| = |w|; E dV/dw = -u with noise sqrt(2 d / samples)."""
    u, w = [0.3, -0.4], [0.6, 0.8]
    game = GAN(Shift(u), Linear(w), Unit(), latent=2)
    found = audited(game, Gaussian(2), checks=("stationary",), batch=64, groups=80, group_batches=4)
    generator, critic = (found[f"stationary/{p}"].evidence for p in ("generator", "critic"))
    assert generator["residual"] == pytest.approx(0.01 * 0.5 * 1.0, rel=1e-12)
    assert generator["gradient_norm"] == pytest.approx(1.0, rel=1e-12)
    assert generator["interval"] == pytest.approx([0.005, 0.005], rel=1e-9)
    low, high = critic["interval"]
    assert low < critic["residual"] < high
    assert critic["residual"] == pytest.approx(0.01 * 1.0 * 0.5, rel=0.1)  # 5 standard errors
    # The noise of one group: its covariance is 2 I / (64 * 4).
    assert critic["signal_to_noise"] == pytest.approx(0.5 / math.sqrt(4 / (64 * 4)), rel=0.2)


def test_the_residual_vanishes_at_a_clipped_optimum_and_is_the_gradient_inside() -> None:
    """u at the wall where w pushes it: at rest. Inside, or pulled off the wall: the gradient."""
    cases = [
        ([1.0, -1.0], [0.5, -0.25], [0.0, 0.0]),
        ([0.2, 0.1], [0.5, -0.25], [-0.5, 0.25]),
        ([1.0, 1.0], [0.5, -0.25], [0.0, 0.25]),
        ([-1.0, 0.0], [0.5, -0.25], [-0.5, 0.25]),
    ]
    for u, w, expected in cases:
        b = context(boxed(u, w), Gaussian(2))
        gradient = {"u": -torch.tensor(w, dtype=F64)}
        seen = unblocked(b, "generator", gradient["u"].expand(3, 2))
        for group in seen:
            torch.testing.assert_close(group, torch.tensor(expected, dtype=F64), atol=1e-12, rtol=0)
        found = audited(boxed(u, w), Gaussian(2), checks=("stationary",))["stationary/generator"]
        assert found.evidence["gradient_norm"] == pytest.approx(
            float(np.linalg.norm(expected)), abs=1e-12
        )


def test_a_player_at_its_clipped_optimum_is_verified_under_noise() -> None:
    """The critic at w = -sign(u): the gradient pushes it against the wall, well above the noise."""
    found = audited(boxed([0.9, -0.8], [-1.0, 1.0]), Gaussian(2), checks=("stationary",), move=0.1)
    assert found["stationary/critic"].evidence["residual"] == 0
    assert found["stationary/critic"].verdict is Verdict.VERIFIED
    assert found["stationary/generator"].verdict is Verdict.REFUTED


def test_noise_at_a_wall_is_not_taken_for_motion() -> None:
    """u = 0: the critic's expected gradient is zero wherever w is, at the wall as well."""
    d = 100
    for seed in range(3):
        found = audited(
            boxed([0.0] * d, [1.0, -1.0] * (d // 2)),
            Gaussian(d),
            checks=("stationary",),
            seed=seed,
            move=0.1,
        )["stationary/critic"]
        assert found.evidence["interval"][0] == 0, found.summary


@pytest.mark.parametrize("box", [True, False])
def test_a_player_that_is_all_zero_is_not_called_at_rest(box: bool) -> None:
    """u = 0 against w = 5: the generator's gradient is 5, finite, and it is told to be at rest."""
    game = (
        boxed([0.0], [5.0], c=10.0) if box else GAN(Shift([0.0]), Linear([5.0]), WGAN(), latent=1)
    )
    found = audited(game, Gaussian(), checks=("stationary",), tolerance=1e-3)[
        "stationary/generator"
    ]
    assert found.verdict in (Verdict.REFUTED, Verdict.UNASSESSED)
    assert "not finite" not in found.summary


@pytest.mark.filterwarnings("ignore:the 60 samples")
def test_a_pair_stationary_on_its_data_is_not_refuted() -> None:
    """The data's mean is 0 exactly and u = 0: every player's gradient is 0 on the data as a whole."""
    wrong = 0
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=(60, 10))
        game = GAN(Shift([0.0] * 10), Linear([0.3] * 10), WGAN(), latent=10)
        found = audited(
            game,
            points(x - x.mean(0)),
            checks=("stationary",),
            seed=seed,
            move=0.1,
            group_batches=32,
        )["stationary/critic"]
        wrong += found.evidence["interval"][0] > 0
    assert wrong <= 1


def test_noise_above_the_tolerance_is_unassessed() -> None:
    """A gradient of zero hidden under noise, and a tolerance far below that noise."""
    game = GAN(Shift([0.0] * 20), Linear([0.2] * 20), WGAN(), latent=20)
    found = audited(game, Gaussian(20), checks=("stationary",), tolerance=1e-5, seed=1)[
        "stationary/critic"
    ]
    assert found.verdict is Verdict.UNASSESSED
    assert found.evidence["noise_floor"] > found.tolerance.value
    assert "noise" in found.summary
    seen = audited(game, Gaussian(20), checks=("stationary",), tolerance=0.5, seed=1)[
        "stationary/critic"
    ]
    assert seen.verdict is Verdict.VERIFIED


def judged(
    estimates: tuple[float, float, float, float],
    tolerance: float,
    monkeypatch: Any,
    measured: tuple[float, float, float],
) -> Verdict:
    b = context(boxed([0.5], [0.5]), Gaussian(), move=0.5)  # unit = 0.25
    monkeypatch.setattr(
        stationarity,
        "squared_norm",
        lambda g, c: tuple((4 * e) ** 2 * math.copysign(1, e) for e in estimates),
    )
    moved = FirstOrder("generator", Interval(*measured), 0.5, math.nan, b.players["generator"])
    found = stationarity._certificate(
        b, "generator", torch.zeros(3, 3, dtype=F64), Tolerance(tolerance, "", ""), moved
    )
    assert (found.witness is None) == (found.verdict is not Verdict.REFUTED)
    return found.verdict


KEPT, SHORT, VAGUE = (0.03, 0.025, 0.035), (0.01, 0.009, 0.011), (0.03, 0.01, 0.05)


def test_boundaries_of_the_stationary_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """(residual, low, high, floor) and the measured (mean, low, high) against the tolerance, in units of loss."""
    yes, open_, no, unknown = (
        Verdict.VERIFIED,
        Verdict.NOT_REFUTED,
        Verdict.REFUTED,
        Verdict.UNASSESSED,
    )
    for estimates, measured, verdict in [
        ((0.03, 0.025, 0.035, 0.01), KEPT, no),
        ((0.03, 0.025, 0.035, 0.05), KEPT, no),  # clear of the tolerance, whatever the floor
        ((0.03, 0.025, 0.035, 0.01), SHORT, unknown),  # promised, and not kept
        ((0.03, 0.025, 0.035, 0.01), VAGUE, unknown),
        ((0.03, 0.025, 0.035, 0.01), (math.nan,) * 3, unknown),
        ((0.01, 0.005, 0.015, 0.01), SHORT, yes),
        ((0.01, 0.005, 0.0199, 0.0199), SHORT, yes),
        ((0.01, 0.005, 0.015, 0.01), KEPT, yes),  # a gain beyond the first order: "local" has it
        ((0.01, 0.005, 0.025, 0.01), SHORT, open_),
        ((0.01, 0.005, 0.025, 0.01), KEPT, no),
        ((0.025, 0.015, 0.035, 0.01), SHORT, unknown),  # above, and not for certain
        ((0.01, 0.005, 0.015, 0.021), SHORT, unknown),  # narrow by luck only
        ((0.01, 0.005, 0.015, 0.021), KEPT, no),  # the witness is no noise
        ((-0.01, -0.02, 0.01, 0.01), SHORT, yes),  # a negative estimate is zero, not its modulus
        ((-0.03, -0.04, -0.02, 0.01), SHORT, yes),
    ]:
        assert judged(estimates, 0.02, monkeypatch, measured) is verdict, (estimates, measured)


def test_a_non_finite_gradient_is_unassessed() -> None:
    game = GAN(Shift([0.1]), Linear([1.0]), Vanilla(), latent=1)
    start = game.init()
    start.players["critic"]["w"].fill_(math.nan)
    found = audit_game(
        game,
        start.players,
        start.constants,
        Gaussian(),
        Settings(batch=8, starts=2, steps=4, looks=2),
        progress="none",
    )
    assert {c.verdict for c in found.values()} == {Verdict.UNASSESSED}


def test_a_yardstick_that_is_not_a_number_is_unassessed() -> None:
    """WGAN: the critic's gradient is finite where its scores, hence the scale, are not."""
    game = GAN(Shift([0.1]), Linear([1.0]), WGAN(), latent=1)
    start = game.init()
    start.players["critic"]["w"].fill_(math.nan)
    found = audit_game(
        game,
        start.players,
        start.constants,
        Gaussian(),
        Settings(batch=8, starts=2, steps=4, looks=2),
        progress="none",
    )
    assert {c.verdict for c in found.values()} == {Verdict.UNASSESSED}


# -- invariances ---------------------------------------------------------------------------------


def evidence(game: GAN, **settings: Any) -> list[dict[str, Any]]:
    found = audited(game, Gaussian(2), checks=("stationary",), batch=16, **settings)
    return [
        found[f"stationary/{p}"].evidence | {"tolerance": found[f"stationary/{p}"].tolerance.value}
        for p in ("generator", "critic")
    ]


def test_a_critic_with_larger_scores_is_judged_alike() -> None:
    """WGAN, D -> 7 D by a larger w: residuals and tolerance grow alike."""
    for one, seven in zip(
        evidence(GAN(Shift([0.3, -0.4]), Linear([0.6, 0.8]), WGAN(), latent=2)),
        evidence(GAN(Shift([0.3, -0.4]), Linear([4.2, 5.6]), WGAN(), latent=2)),
        strict=True,
    ):
        for key in ("residual", "noise_floor", "tolerance"):
            assert seven[key] == pytest.approx(7 * one[key], rel=1e-9)


class Scaled(Affine):
    """G(z) = z + 100 u: the same shift in another unit."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + 100 * self.u


def test_units_of_the_parameters_do_not_matter() -> None:
    class Plain(Affine):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z + self.u

    def of(kind: Any, u: list[float]) -> GAN:
        generator = kind(0.0, u)
        del generator.w
        return GAN(generator, Linear([0.6, 0.8]), WGAN(), latent=2)

    for one, other in zip(
        evidence(of(Plain, [0.3, -0.4])), evidence(of(Scaled, [0.003, -0.004])), strict=True
    ):
        for key in ("residual", "noise_floor", "tolerance"):
            assert other[key] == pytest.approx(one[key], rel=1e-9, abs=1e-15)


def test_the_length_of_a_spectrally_normalised_weight_does_not_matter() -> None:
    def of(length: float) -> GAN:
        critic = nn.Linear(2, 1, bias=False).double()
        with torch.no_grad():
            critic.weight.copy_(length * torch.tensor([[0.6, 0.8]], dtype=F64))
        return GAN(Shift([0.3, 0.4]), critic, WGAN(), latent=2, spectral_norm=True)

    one, ten = evidence(of(1.0))[1], evidence(of(10.0))[1]
    for key in ("residual", "noise_floor", "tolerance"):
        assert ten[key] == pytest.approx(one[key], rel=1e-9, abs=1e-12)


def test_more_groups_see_more() -> None:
    game = GAN(Shift([0.0, 0.0]), Linear([0.6, 0.8]), WGAN(), latent=2)
    few, many = (evidence(game, groups=5, group_batches=k)[1]["noise_floor"] for k in (2, 200))
    assert many == pytest.approx(few / 10, rel=0.6)


def test_the_overall_verdict_names_the_player_that_moves() -> None:
    found = audited(boxed([0.9, -0.8], [-1.0, 1.0]), Gaussian(2), checks=("stationary",), move=0.1)
    assert found["stationary"].verdict is Verdict.REFUTED
    assert "generator" in found["stationary"].summary


def test_the_overall_sentence_quotes_the_player_that_was_refuted() -> None:
    from equilibrist.checks import Certificate

    parts = [
        Certificate(
            "stationary/generator", Verdict.UNASSESSED, "hidden in the noise", {"residual": 0.5}
        ),
        Certificate("stationary/critic", Verdict.REFUTED, "still moving", {"residual": 0.1}),
    ]
    assert "still moving" in of_all_players("stationary", parts, [0.5, 0.1]).summary


def test_clipping_box_and_tree_norm_agree_on_the_unit() -> None:
    b = context(boxed([0.3, -0.4], [0.5, 0.5]), Gaussian(2))
    assert float(tree.norm({"x": b.players["generator"]})) == pytest.approx(0.5)
    assert isinstance(b.game.projections[0], WeightClipping)


def test_the_trace_of_the_squared_covariance_is_the_mean_over_four_distinct_groups() -> None:
    groups = torch.randn(7, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    gram = groups @ groups.mT
    i, j, k, m = torch.tensor(list(itertools.permutations(range(7), 4))).T
    expected = (gram[i, k] - gram[i, m] - gram[j, k] + gram[j, m]).square().mean() / 4
    torch.testing.assert_close(_trace_of_square(gram), expected, rtol=1e-12, atol=0)
