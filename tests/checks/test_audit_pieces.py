"""Pieces of the checks by themselves: what an interval's ends are, which batches are read, what is left behind."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import F64
from scipy.optimize import lsq_linear
from torch import Tensor, nn

import equilibrist as eq
from equilibrist import tree
from equilibrist.checks import (
    REGISTRY,
    Certificate,
    Settings,
    Tolerance,
    Verdict,
    _budget,
    _complement,
    _culprit,
    _lambda_verdict,
    _level,
    _minimax,
    _probes,
    local_lambda,
)
from equilibrist.checks._decide import Interval
from equilibrist.checks._eigen import confirmed, seen_at
from equilibrist.checks._second_order import free
from equilibrist.checks.context import AuditContext
from equilibrist.checks.context_exact import ExactContext
from equilibrist.checks.proximal import _sampled, profile, search
from equilibrist.checks.proximal._exact import ExactProx
from equilibrist.checks.spectrum import _leaving
from equilibrist.core.game import Plain

# -- numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("equal", [1.4, None])
@pytest.mark.parametrize(
    ("penalties", "paid"),
    [
        ((), 0.0),
        ((eq.GradientPenalty(2.0),), 2.0),
        ((eq.GradientPenalty(2.0, target=3.0),), 18.0),
        ((eq.GradientPenalty(2.0, one_sided=True),), 0.0),
        ((eq.R1(5.0), eq.R2(5.0)), 0.0),
        ((eq.GradientPenalty(1.0), eq.GradientPenalty(0.5), eq.R1(5.0)), 1.5),
    ],
)
def test_what_a_constant_critic_pays(penalties: Any, paid: float, equal: float | None) -> None:
    context: Any = SimpleNamespace(game=SimpleNamespace(penalties=penalties))
    assert _level.silent(context, equal) == (None if equal is None else equal + paid)
    context.game.penalties = (*penalties, object())
    assert _level.silent(context, 1.4) is None


def test_how_fast_a_pair_is_left_holds_both_errors() -> None:
    seen: Any = SimpleNamespace(value=complex(-0.5, 2.0), error=0.125)
    assert _leaving(seen, None) == Interval(0.5, 0.375, 0.625)
    assert _leaving(seen, Interval(-0.25, -0.75, 0.5)) == Interval(0.25, -0.625, 0.875)
    other: Any = SimpleNamespace(value=complex(1.0, 0.0), error=0.25)
    assert _leaving(other, None) == Interval(-1.0, -1.25, -0.75)


def test_a_certificate_prints_summaries_of_up_to_three_hundred_characters_whole() -> None:
    def shown(length: int) -> str:
        words = ("ab " * 200)[: length - 1] + "."
        found = Certificate("nash", Verdict.REFUTED, words, tolerance=Tolerance(0.1, "loss", ""))
        return dict(found._facts()[1])["says"]

    assert len(shown(300)) == 300
    assert shown(300).endswith(".")
    assert len(shown(301)) <= 300
    assert not shown(301).endswith("b.")


def test_a_profile_names_the_first_search_that_failed_with_its_own_reason() -> None:
    unit = Interval(0.1, 0.0, 0.2)

    def at(lam: float, failed: str = "") -> Any:
        return SimpleNamespace(
            lam=lam,
            regret=unit,
            slack=unit,
            gain=unit,
            failed=failed,
            verdict=Verdict.UNASSESSED if failed else Verdict.NOT_REFUTED,
            row=dict,
            deviation=None,
        )

    context = bench_of(16, 8)
    trials = [at(0.0), at(0.5, "lost its way"), at(2.0, "ran out"), at(math.inf)]
    found = profile._certificate(context, trials, 1.0)
    assert found.verdict is Verdict.UNASSESSED
    assert "At lambda = 0.5 lost its way." in found.summary
    assert "ran out" not in found.summary


@pytest.mark.parametrize(
    ("smallest", "complete", "damping", "least"),
    [
        (0.5, True, 4e-8, 0.5),
        (0.5, False, 4e-8, 0.3),
        (-0.5, True, 1.0, 0.5),  # as far above zero as it was below
        (-0.5, False, 1.0, 0.3),
    ],
)
def test_answers_are_damped_by_twice_the_most_negative_eigenvalue(
    smallest: float, complete: bool, damping: float, least: float
) -> None:
    ends: Any = SimpleNamespace(smallest=smallest, residual=0.2, largest=4.0, complete=complete)
    assert _complement.damped(ends) == pytest.approx((damping, least), abs=1e-7)
    assert _complement.damped(ends)[0] >= 4e-8


# -- which batches -----------------------------------------------------------------------------------------


def bench_of(batch: int, batches: int, size: int = 4000) -> AuditContext:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    critic = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    game = eq.GAN(generator, critic, eq.Vanilla(saturating=True), latent=2)
    start = game.init(0)
    settings = Settings(batch=batch, batches=batches, linear_batches=1)
    data = eq.ArraySource(torch.randn(size, 2), kind="points")
    return AuditContext(game, start.players, start.constants, data, settings, 0)


@pytest.mark.parametrize(
    ("batches", "rows", "used"), [(6, 16, 6), (8, 16, 8), (20, 16, 8), (20, 8, 16), (10, 8, 10)]
)
def test_an_eigenvalue_is_confirmed_on_as_many_samples_as_eight_minibatches_hold(
    batches: int, rows: int, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = bench_of(16, batches, size=4 * rows * batches)  # a quarter of the data is the score's
    read: list[int] = []
    bank = AuditContext.bank

    def counted(self: AuditContext, part: str) -> Any:
        for draw in bank(self, part):
            read.append(len(draw["real"]))
            yield draw

    moves = free(context)
    seen = seen_at(context, moves, lambda gradients=1.0: None)
    assert seen is not None
    assert seen.column is not None
    monkeypatch.setattr(AuditContext, "bank", counted)
    ticked: list[float] = []
    confirmed(context, seen, moves, ticked.append)
    assert read == [rows] * used
    assert len(ticked) == used


@pytest.mark.parametrize(("sampled", "batches"), [(True, [0, 1, 2]), (False, [0])])
def test_a_mean_gradient_is_of_several_minibatches_of_sampled_losses_only(
    sampled: bool, batches: list[int]
) -> None:
    taken: list[int] = []

    def gradient(players: Any, constants: Any, k: int, index: Any) -> dict[str, Tensor]:
        taken.append(k)
        return {"x": torch.tensor([2.0**k])}

    objective: Any = SimpleNamespace(
        start={"x": torch.zeros(1)},
        at=lambda start: (None, None),
        context=SimpleNamespace(sampled=sampled),
        gradient=gradient,
    )
    found = _probes._mean_gradient(objective, 3)
    assert found is not None
    assert taken == batches
    assert float(found["x"]) == pytest.approx(sum(2.0**k for k in batches) / len(batches))


# -- answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.01, 1.0, 50.0])
def test_an_answer_of_any_size_is_tried_both_ways_beside_flat_directions(
    size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = bench_of(16, 8)
    n = {p: tree.count(context.players[p]) for p in ("generator", "critic")}
    w, flat = torch.zeros(n["critic"], dtype=F64), torch.zeros(n["critic"], dtype=F64)
    w[0], flat[1] = size, 1.0
    u = torch.zeros(n["generator"], dtype=F64)
    u[0] = 1.0
    schur: Any = SimpleNamespace(
        value=-10.0,
        scored=Interval(-10.0, -11.0, -9.0),
        u=u,
        w=w,
        null=[flat],
        singular=True,
    )
    asked: list[Any] = []
    monkeypatch.setattr(
        _minimax, "answered", lambda b, leading, directions, *_, **__: asked.append(directions)
    )
    _minimax._followed_up(context, schur, 0.5, Tolerance(1e-3, "loss", ""), 1, lambda _=1.0: None)
    (directions,) = asked
    assert len(directions) == 4
    first, second = directions[:2]
    assert torch.equal(first, -second)
    assert float(first.norm()) > 0
    moved = first.nonzero().flatten().tolist()
    assert moved == [0]


class Box:
    """max g . w - w . H w / 2 over a box, as an exact inner problem has it."""

    concave = True
    tick = staticmethod(lambda gradients=1.0: None)
    _line, _ascend = ExactProx._line, ExactProx._ascend

    def __init__(self, H: Tensor, g: Tensor, low: float, high: float) -> None:
        self.H, self.g, self.low, self.high = H, g, low, high
        self.anchor = {"w": torch.zeros_like(g)}

    def _objective(self, generator: Any, lam: float) -> Any:
        return lambda w: self.g @ w - w @ self.H @ w / 2

    def _project(self, w: Tensor) -> Tensor:
        return w.clamp(self.low, self.high)


@pytest.mark.parametrize("seed", range(8))
def test_newton_s_steps_inside_a_box_leave_blocked_coordinates_out(seed: int) -> None:
    """Against SciPy's bounded least squares. With the right coordinates out a handful of steps do."""
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((12, 8)), rng.standard_normal(12) * 3
    problem: Any = Box(torch.from_numpy(A.T @ A), torch.from_numpy(A.T @ b), -0.4, 0.4)
    critic, value, _, rounds = problem._ascend({}, 1.0, problem.anchor, 1)
    best = lsq_linear(A, b, (-0.4, 0.4), tol=1e-12)
    np.testing.assert_allclose(critic["w"], best.x, atol=1e-6)
    assert value == pytest.approx(float(b @ A @ best.x - best.x @ A.T @ A @ best.x / 2), rel=1e-9)
    assert np.isclose(abs(best.x), 0.4).any(), "a wall holds some coordinate"
    assert rounds <= 8


# -- nothing is left behind -----------------------------------------------------------------------------


def test_the_search_for_a_layer_at_fault_leaves_no_hook_behind() -> None:
    context = bench_of(8, 8)
    draw = context.minibatch(0)
    looked: list[int] = []

    def broken(function: Any, leaves: Any) -> bool:
        looked.append(1)
        return False

    assert (
        _culprit.faulty_layer(context.game, context.players, context.constants, draw, broken) == ""
    )
    assert looked
    for pure in context.game._pure.values():
        for layer in pure._module.modules():
            assert not layer._forward_hooks
    before = len(looked)
    context.game.losses(context.players, context.constants, draw)
    assert len(looked) == before


# -- what a check may not mix up ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "slack"),
    [(Verdict.REFUTED, 1.0), (Verdict.NOT_REFUTED, 2.0), (Verdict.VERIFIED, 2.0)],
)
def test_the_critics_slack_is_what_its_gradient_gains_only_where_that_is_refuted(
    verdict: Verdict, slack: float
) -> None:
    seen: Any = SimpleNamespace(
        moving=SimpleNamespace(verdict=verdict),
        followed=SimpleNamespace(gain=1.0),
        own=SimpleNamespace(measured=2.0),
    )
    getter: Any = _lambda_verdict.LambdaEvidence.slack
    assert getter.fget(seen) == slack


@pytest.mark.parametrize(("sampled", "where"), [(True, '"stationary"'), (False, "first order")])
def test_limits_of_a_local_lambda_name_the_check_that_tells_rest(
    sampled: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: Any = SimpleNamespace(limits=lambda *_: ())
    monkeypatch.setattr(local_lambda, "free", lambda context: nothing)
    ends = SimpleNamespace(smallest=1.0, zero=0.0, complete=True)
    seen: Any = SimpleNamespace(
        context=SimpleNamespace(sampled=sampled),
        own=SimpleNamespace(ends=ends, limits=()),
        star=SimpleNamespace(limits=()),
        players=("generator", "critic"),
        led=SimpleNamespace(limits=()),
        followed=SimpleNamespace(limits=()),
    )
    assert where in local_lambda._limits(seen, Verdict.NOT_REFUTED)[0]


def test_a_lambda_is_lowered_from_a_thousand_times_the_largest_that_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A deviation that gains from lambda = 5,000 on, where lambdas of 0.1 to 10 were asked: found from above."""

    def scored(context: Any, prox: Any, lam: float, deviation: Any) -> Any:
        return SimpleNamespace(lam=lam, deviation=deviation, verdict=None)

    monkeypatch.setattr(search, "scored", scored)
    monkeypatch.setattr(
        search,
        "verdict_of",
        lambda trial, tolerance: Verdict.REFUTED if trial.lam >= 5_000 else Verdict.NOT_REFUTED,
    )
    context: Any = SimpleNamespace(
        settings=SimpleNamespace(prox_lambdas=(0.1, 10.0), prox_width=0.1)
    )
    best = SimpleNamespace(deviation={}, lam=math.inf)
    found: Any = SimpleNamespace(best=best, low=0.0, high=math.inf, trials=[])
    search._lowered(context, SimpleNamespace(concave=True), found, 0.1)  # type: ignore[arg-type]
    assert 5_000 <= found.high < 5_500


@pytest.mark.parametrize("small", [True, False])
def test_how_many_minibatches_the_fixed_samples_are(
    small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large players four, in turn; of small ones as many as 128 KiB hold, 8 to 32, in one pass."""
    if not small:
        monkeypatch.setattr(_sampled, "is_small", lambda context: False)
    prox = _sampled.SampledProx(bench_of(16, 8), lambda gradients: None)
    found = prox.chunks()
    assert len(found) == (1 if small else 4)
    assert len(found[0]["real"]) == 16 * (32 if small else 1)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (80.0, "80 s"), (110.0, "2 minutes"), (145.0, "2 minutes")]
)
def test_costs_are_announced_in_seconds_and_rounded_minutes(
    seconds: float, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    costly = next(name for name, check in REGISTRY.items() if not check.default)
    clock = iter([10.0, 10.5])
    monkeypatch.setattr(_budget.time, "perf_counter", lambda: next(clock))
    _budget.announce(bench_of(16, 8), {costly: 2 * seconds, "nash": 1e9})
    assert capsys.readouterr().err.strip().endswith(f"{said} on this machine")


class Positive:
    """x >= 0 for the generator."""

    player, coordinatewise = "generator", True

    def __call__(self, part: Any) -> Any:
        return {name: x.clamp(min=0) for name, x in part.items()}


class Held(Plain):
    """The generator's loss is |x + 1|^2 over x >= 0."""

    players, projections = ("generator", "critic"), (Positive(),)

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        x = players["generator"]["x"]
        return {
            "generator": (x + 1).square().sum(),
            "critic": players["critic"]["y"].square().sum(),
        }

    def project(self, players: Any) -> Any:
        return {**players, "generator": Positive()(players["generator"])}


def test_a_coordinate_at_a_wall_at_zero_is_held_by_it() -> None:
    players = {
        "generator": {"x": torch.tensor([0.0, 1.0], dtype=F64)},
        "critic": {"y": torch.ones(1, dtype=F64)},
    }
    context = ExactContext(Held(), players, Settings(groups=3, group_batches=1, linear_batches=1))
    found = free(context)
    assert found.masks["generator"].tolist() == [False, True]
    assert found.walls["generator"] == 1
