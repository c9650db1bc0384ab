"""The self-tests: sound games pass, and each kind of broken one is caught by the test that is meant for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.checks import Settings, Verdict, audit_game
from equilibrist.checks.context import AuditContext
from equilibrist.checks.context_exact import ExactContext
from equilibrist.checks.selftests import CLAIM, self_tests
from equilibrist.data.loaders import source_of
from equilibrist.formulations import WGAN, Hinge, LeastSquares, Relativistic, Vanilla
from equilibrist.games import GAN, Dirac, GaussianW2GAN, bilinear, false_attractor, three_nash
from equilibrist.penalties import R1, GradientPenalty

REAL = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.3])
QUICK = Settings(batch=32, starts=1, steps=4, groups=3, group_batches=1, looks=1, batches=4)


def pair(*middle: nn.Module) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Linear(3, 24), *middle, nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2)
        ),
        nn.Sequential(
            nn.Linear(2, 24), nn.LeakyReLU(0.2), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1)
        ),
    )


def outcome_of(game: Any, seed: int = 0) -> Any:
    start = game.init()
    return self_tests(
        AuditContext(game, start.players, start.constants, source_of(REAL), QUICK, seed)
    )


def failed(certificate: Any) -> set[str]:
    assert certificate.claim == CLAIM
    assert (certificate.verdict is Verdict.VERIFIED) == (not certificate.evidence["failed"])
    return {name.split("/")[0] for name in certificate.evidence["failed"]}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda: GAN(*pair(), Vanilla(), latent=3),
        lambda: GAN(*pair(), Vanilla(saturating=True), latent=3),
        lambda: GAN(*pair(), Hinge(), latent=3),
        lambda: GAN(*pair(), LeastSquares(), latent=3),
        lambda: GAN(*pair(), Relativistic(), latent=3, penalties=[R1(1.0)]),
        lambda: GAN(*pair(), WGAN(), latent=3, penalties=[GradientPenalty()]),
        lambda: GAN(*pair(), WGAN(), latent=3, spectral_norm=True),
        lambda: GAN(*pair(nn.BatchNorm1d(24)), Vanilla(), latent=3),
        lambda: GAN(*pair(nn.BatchNorm1d(24).eval()), Vanilla(), latent=3),
    ],
)
def test_sound_games_pass(make: Callable[[], Any], seed: int) -> None:
    certificate = outcome_of(make(), seed)
    assert failed(certificate) == set(), certificate.summary
    tests = certificate.evidence["tests"]
    assert {name.split("/")[0] for name in tests} == {
        "precision",
        "repeat",
        "buffers",
        "adjoint",
        "slopes",
        "differences",
    }
    assert tests["adjoint"]["off"] < 1e-12
    assert tests["differences/critic"]["off"] < 1e-4


@pytest.mark.parametrize(
    "game",
    [bilinear(), three_nash(), false_attractor(), Dirac(), GaussianW2GAN(s=0.5), GaussianW2GAN()],
    ids=lambda game: type(game).__name__,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_games_pass(game: Any, seed: int) -> None:
    torch.manual_seed(seed)
    # At the truth, where v vanishes, and beside it.
    point = game.points()[0].players
    players = tree.map(lambda t: t.double() + 0.1 * seed * torch.rand(t.shape).double(), point)
    certificate = self_tests(ExactContext(game, players, QUICK, seed))
    assert failed(certificate) == set(), certificate.summary


# -- broken games -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Detached(Vanilla):
    """The critic's loss on a detached batch, as a training loop has it."""

    def losses(self, critic: Any, real: Tensor, fake: Tensor, only: str | None = None) -> Any:
        whole = Vanilla.losses(self, critic, real, fake, None)
        return whole | {"critic": Vanilla.losses(self, critic, real, fake.detach(), None)["critic"]}


class WrongFirst(torch.autograd.Function):
    """x^2 with the derivative 3x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x * slope


class WrongSecond(torch.autograd.Function):
    """x^2 with the right derivative and none after it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * slope


class Clipped(torch.autograd.Function):
    """The identity, with gradients clipped on their way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope.clamp(-1e-3, 1e-3)


class Scaled(torch.autograd.Function):
    """The identity, its gradient 1 + `error` times too large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, error: float) -> Tensor:
        ctx.error = error
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return (1 + ctx.error) * slope, None


class SlightlyWrongSecond(torch.autograd.Function):
    """x^2 with the right derivative, whose own derivative is 4% too large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * Scaled.apply(x, 0.04) * slope


class Ends(nn.Module):
    """A critic whose hidden values pass through `fn`."""

    def __init__(self, fn: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last, self.fn = nn.Linear(2, 8), nn.Linear(8, 1), fn
        self.register_buffer("seen", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.fn(self, self.first(x).tanh()))
        return out


def custom(fn: Callable[[Any, Tensor], Tensor]) -> GAN:
    return GAN(pair()[0], Ends(fn), Vanilla(), latent=3)


BROKEN: dict[str, tuple[Callable[[], GAN], str]] = {
    "detached": (lambda: GAN(*pair(), Detached(saturating=False), latent=3), "differences"),
    "wrong derivative": (lambda: custom(lambda m, h: WrongFirst.apply(h)), "slopes"),
    "wrong second derivative": (lambda: custom(lambda m, h: WrongSecond.apply(h)), "differences"),
    "derivative half a percent off": (
        lambda: custom(lambda m, h: Scaled.apply(h, 0.005)),
        "slopes",
    ),
    "second derivative four percent off": (
        lambda: custom(lambda m, h: SlightlyWrongSecond.apply(h)),
        "differences",
    ),
    "clipped gradients": (lambda: custom(lambda m, h: Clipped.apply(h)), "slopes"),
    "rounded": (
        lambda: custom(lambda m, h: h.float().to(h.dtype)),
        "precision",
    ),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_games_are_caught(name: str, seed: int) -> None:
    make, test = BROKEN[name]
    certificate = outcome_of(make(), seed)
    assert test in failed(certificate), certificate.evidence
    assert certificate.verdict is Verdict.UNASSESSED
    assert "\n" not in certificate.summary


def test_a_detached_batch_is_named() -> None:
    certificate = outcome_of(BROKEN["detached"][0]())
    assert certificate.evidence["failed"] == ["slopes/generator", "differences/generator"] or (
        certificate.evidence["failed"] == ["differences/generator"]
    )
    assert "the critic's gradient does not change with the generator's weights" in (
        certificate.summary
    )
    assert "detached" in certificate.summary


class SlightlyWrong(torch.autograd.Function):
    """x^2 with a first derivative (`first`) or a second one that is 1% off."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.first = first
        return x * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        if ctx.first:
            return 2.02 * x * slope, None
        return 2 * (0.99 * x + 0.01 * x.detach()) * slope, None


class Layer(nn.Module):
    """A layer by itself, so that it can be named."""

    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


def layered(fn: Callable[[Tensor], Tensor]) -> GAN:
    critic = pair()[1]
    critic.insert(2, Layer(fn))
    return GAN(pair()[0], critic, Vanilla(), latent=3)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("first", "test"), [(True, "slopes"), (False, "differences")])
def test_one_percent_is_caught_and_the_layer_named(first: bool, test: str, seed: int) -> None:
    certificate = outcome_of(layered(lambda h: SlightlyWrong.apply(h, first)), seed)
    assert test in failed(certificate), certificate.evidence
    assert "look at the critic's 2 (Layer)" in certificate.summary


@pytest.mark.parametrize("factor", [1e3, 1e4])
@pytest.mark.parametrize("seed", range(4))
def test_saturated_units_are_no_detached_loss(factor: float, seed: int) -> None:
    """A tanh of weights in the thousands bends within a step of 1e-8: differences may not settle at any step."""
    generator, critic = pair()
    generator = nn.Sequential(generator, nn.Tanh())
    with torch.no_grad():
        generator[0][-1].weight.mul_(factor)
    found = outcome_of(GAN(generator, critic, Vanilla(), latent=3), seed)
    assert "detached" not in found.summary
    if failed(found):
        assert "do not settle at any step" in found.summary


def test_a_standard_deviation_of_zero_is_named_with_the_cure() -> None:
    def spread(x: Tensor) -> Tensor:
        return x + x.std(0, unbiased=False).mean()

    game = layered(spread)
    with torch.no_grad():
        game.modules["critic"][0].bias[0] = -1e3  # type: ignore[index]
        game.modules["critic"][0].weight[0] = 0.0  # type: ignore[index]
    certificate = outcome_of(game)
    assert certificate.evidence["failed"] == ["differentiable"]
    assert "eps inside the root" in certificate.summary
    assert "the critic's 2 (Layer)" in certificate.summary
    assert "dropout" not in certificate.summary


def test_a_layer_that_makes_infinite_values_is_named() -> None:
    game = layered(lambda h: h + 1e-6 * torch.log(h.square().sum()))
    with torch.no_grad():
        for p in game.modules["critic"][0].parameters():  # type: ignore[index]
            p.zero_()
    certificate = outcome_of(game)
    assert failed(certificate) == {"finite"}
    assert "the critic's 2 (Layer)" in certificate.summary


class Bag(nn.Module):
    """A layer that torch cannot differentiate twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(4, 24, mode="sum")

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.arange(4).repeat(len(x), 1)
        looked_up: Tensor = self.table(rows, per_sample_weights=x[:, :4].contiguous())
        return x + looked_up


def test_a_missing_second_derivative_is_named_with_the_cure() -> None:
    critic = pair()[1]
    critic.insert(2, Bag())
    certificate = outcome_of(GAN(pair()[0], critic, Vanilla(), latent=3))
    assert certificate.evidence["failed"] == ["derivatives"]
    assert "take nn.Embedding" in certificate.summary
    assert "\n" not in certificate.summary


class WrappedRule:
    """A sound game whose evaluations do something besides."""

    def __init__(self, game: GAN, what: Callable[[GAN, Any, Any], Tensor | None]) -> None:
        self._game, self._what = game, what

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_game"], name)

    def losses(self, players: Any, constants: Any, draw: Any, only: str | None = None) -> Any:
        extra = self._what(self._game, players, constants)
        losses = self._game.losses(players, constants, draw, only)
        if extra is not None:
            losses = losses | {"critic": losses["critic"] * extra}
        return losses


def _moves_statistics(game: GAN, players: Any, constants: Any) -> None:
    constants["generator"]["1.running_mean"].mul_(0.9).add_(0.1)


def _power_iteration(game: GAN, players: Any, constants: Any) -> Tensor:
    """Train-mode spectral norm: u is moved on, and the loss depends on it."""
    with torch.no_grad():
        weight, u = players["critic"]["0.weight"], constants["critic"]["u"]
        v = torch.nn.functional.normalize(weight.T @ u, dim=0)
        constants["critic"]["u"].copy_(torch.nn.functional.normalize(weight @ v, dim=0))
    return 1 / (constants["critic"]["u"] @ players["critic"]["0.weight"] @ v)


@pytest.mark.parametrize(
    ("what", "tests"),
    [
        (_moves_statistics, {"buffers"}),
        (_power_iteration, {"buffers", "repeat"}),
        (lambda g, p, c: 1 + 1e-6 * torch.rand(()).double(), {"buffers", "repeat"}),
        (lambda g, p, c: p["critic"]["0.weight"].detach().mul_(1) and None, {"buffers"}),
    ],
    ids=["batch norm", "spectral norm", "dropout", "a weight rewritten"],
)
def test_evaluations_with_consequences_are_caught(what: Any, tests: set[str]) -> None:
    game = GAN(*pair(nn.BatchNorm1d(24)), Vanilla(), latent=3)
    start = game.init()
    start.constants["critic"]["u"] = torch.ones(24) / 24**0.5
    context = AuditContext(game, start.players, start.constants, source_of(REAL), QUICK, 0)
    context.game = WrappedRule(game, what)  # type: ignore[assignment]
    if tests == {"buffers"}:
        what = what if what is _moves_statistics else _rewritten
        context.game = WrappedRule(game, what)  # type: ignore[assignment]
    certificate = self_tests(context)
    assert tests <= failed(certificate), certificate.evidence


def _rewritten(game: GAN, players: Any, constants: Any) -> None:
    """A write that changes no value."""
    with torch.no_grad():
        players["critic"]["0.weight"].detach().mul_(1)


def test_a_pair_that_is_not_finite_is_called_that() -> None:
    generator, critic = pair()
    game = GAN(generator, critic, Vanilla(), latent=3)
    start = game.init()
    start.players["critic"]["0.weight"][0, 0] = float("nan")
    context = AuditContext(game, start.players, start.constants, source_of(REAL), QUICK, 0)
    certificate = self_tests(context)
    assert certificate.evidence["failed"] == ["finite"]
    assert "not finite" in certificate.summary


# -- what an audit makes of them ------------------------------------------------------------------------


def test_an_audit_stops_at_a_failed_self_test() -> None:
    game = BROKEN["detached"][0]()
    start = game.init()
    found = audit_game(
        game,
        start.players,
        start.constants,
        source_of(REAL),
        QUICK,
        checks=("stationary", "nash"),
        progress="none",
    )
    assert list(found) == [CLAIM, "stationary", "nash"]
    assert {c.verdict for c in found.values()} == {Verdict.UNASSESSED}
    assert list(found.work) == [CLAIM]
    assert "see self-tests" in found["nash"].summary


def test_they_run_unasked_and_are_shown_where_asked_for() -> None:
    game = GAN(*pair(), WGAN(), latent=3)
    start = game.init()
    for checks, first in (
        (("stationary",), "stationary/generator"),
        ((CLAIM, "stationary"), CLAIM),
    ):
        found = audit_game(
            game,
            start.players,
            start.constants,
            source_of(REAL),
            QUICK,
            checks=checks,
            progress="none",
        )
        assert CLAIM in found.work
        assert next(iter(found)) == first
