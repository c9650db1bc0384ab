"""Every update rule under every feasible set: only stationary points attract."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.exact import Exact
from equilibrist.core.field import VectorField
from equilibrist.core.game import Plain, coupled_parameters
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN
from equilibrist.games import GAN, GaussianW2GAN, GaussianWGAN
from equilibrist.games.mixture import Mixture, PairedMixture
from equilibrist.interop import TorchRule
from equilibrist.langevin import SGLD, RMSPropSGLD
from equilibrist.optimizers import SGD, Adam, RMSProp, TFRMSProp
from equilibrist.per_member import PerMember
from equilibrist.projections import EigenvalueCap, NormBall, SpectralBall, WeightClipping, step
from equilibrist.schedules import Clipped, Piecewise, Scheduled
from equilibrist.solvers import Alternating, Extragradient, MirrorGAN, Optimistic, Simultaneous

F64 = torch.float64
LATE = Scheduled(Adam(5e-2), Piecewise(((0, 1.0), (400, 0.3))))
RULES: list[Any] = [
    SGD(5e-2),
    SGD(1e-2, 0.9),
    SGD(5e-2, -0.3),
    Adam(2e-2),
    Adam(2e-2, beta1=0.9, beta2=0.999),
    RMSProp(2e-2),
    TFRMSProp(2e-2),
    LATE,
    Clipped(RMSProp(2e-2), 0.1),
]
rules = pytest.mark.parametrize("rule", RULES, ids=str)


@dataclass(frozen=True)
class Together:
    """|all parameters| <= limit: a set of one's own, which couples tensors."""

    player: str = "generator"
    limit: float = 1.5

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        excess = tree.norm(params).clamp_min(self.limit)
        return {k: x * (self.limit / excess) for k, x in params.items()}


def t(*rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=F64)


# Slopes with sizes far apart, so that entry-by-entry rules go elsewhere.
W = t(1.0, 0.2)
C = t([1.0, 0.2, 0.1], [0.0, 0.5, 0.02])
S = C.mT @ C + 0.05 * torch.eye(3, dtype=F64)
U, SIGMA, V = torch.linalg.svd(C, full_matrices=False)
BOTH = math.sqrt(float(W.square().sum() + C.square().sum()))
# Set, slopes of a linear loss -<slopes, x>, the best point, by hand.
CASES: list[Any] = [
    (WeightClipping(0.5, "generator"), {"u": W}, {"u": t(0.5, 0.5)}),
    (NormBall("generator", "u", 1.5), {"u": W}, {"u": 1.5 * W / W.norm()}),
    (NormBall("generator", "u", 1.5), {"u": C}, {"u": 1.5 * C / C.norm()}),
    (SpectralBall("generator", "u", 1.2), {"u": C}, {"u": 1.2 * U @ V}),
    (EigenvalueCap("generator", "u", 0.4), {"u": S}, {"u": 0.4 * torch.eye(3, dtype=F64)}),
    (Together(), {"u": W, "w": C}, {"u": 1.5 * W / BOTH, "w": 1.5 * C / BOTH}),
]
cases = pytest.mark.parametrize(("ball", "slopes", "best"), CASES, ids=lambda x: type(x).__name__)


def descended(rule: Any, ball: Any, slopes: Any, start: Any, steps: int = 500) -> Any:
    params = tree.clone(start)
    state = rule.init(params)
    for _ in range(steps):
        params = step(rule, tree.scale(-1.0, slopes), state, params, [ball])
    return params


def value(slopes: Any, params: Any) -> float:
    return float(tree.dot(slopes, params))


@rules
@cases
def test_a_linear_loss_ends_at_its_minimum_over_the_set(
    rule: Any, ball: Any, slopes: Any, best: Any
) -> None:
    start = tree.zeros_like(slopes)
    found = descended(rule, ball, slopes, start)
    assert value(slopes, found) == pytest.approx(value(slopes, best), rel=2e-3)
    for k, x in best.items():
        torch.testing.assert_close(found[k], x, rtol=0, atol=2e-2)


@rules
@cases
def test_the_minimum_attracts_from_where_plain_projection_would_leave_it(
    rule: Any, ball: Any, slopes: Any, best: Any
) -> None:
    found = descended(rule, ball, slopes, tree.clone(best), steps=20)
    for k, x in best.items():
        torch.testing.assert_close(found[k], x, rtol=0, atol=1e-6)


@rules
def test_members_of_a_stack_step_as_they_do_alone(rule: Any) -> None:
    ball = NormBall("generator", "u", 1.5)
    slopes = {"u": torch.stack([W, 3 * W.flip(0)])}
    params: Any = {"u": torch.zeros(2, 2, dtype=F64)}
    state = rule.init(params)
    for _ in range(50):
        params = step(rule, tree.scale(-1.0, slopes), state, params, [ball], members=2)
    for i in range(2):
        alone = descended(rule, ball, {"u": slopes["u"][i]}, {"u": torch.zeros(2, dtype=F64)}, 50)
        torch.testing.assert_close(params["u"][i], alone["u"], rtol=0, atol=1e-12)


def test_step_sizes_by_member_keep_the_minimum() -> None:
    rule, ball = PerMember(Adam(3e-2), (1.0, 0.5)), NormBall("generator", "u", 1.5)
    slopes = {"u": torch.stack([W, W.flip(0)])}
    params: Any = {"u": torch.zeros(2, 2, dtype=F64)}
    state = rule.init(params)
    for _ in range(500):
        params = step(rule, tree.scale(-1.0, slopes), state, params, [ball], members=2)
    torch.testing.assert_close(params["u"], 1.5 * slopes["u"] / W.norm(), rtol=0, atol=1e-2)


def test_boxes_and_other_tensors_keep_their_bits() -> None:
    ball = NormBall("generator", "u", 1.5)
    grads = {"u": -W, "free": C}
    mine: Any = {"u": t(2.0, 1.0), "free": C + 1}
    plain = tree.clone(mine)
    states = [Adam(1e-2).init(mine), Adam(1e-2).init(plain)]
    for _ in range(3):
        mine = step(Adam(1e-2), grads, states[0], mine, [ball])
        Adam(1e-2).update(grads, states[1], plain)
    assert torch.equal(mine["free"], plain["free"])
    mine, plain = tree.clone(plain), tree.clone(plain)
    box = WeightClipping(0.5, "generator")
    mine = step(Adam(1e-2), grads, states[0], mine, [box])
    Adam(1e-2).update(grads, states[1], plain)
    assert all(torch.equal(mine[k], x) for k, x in box(plain).items())


def test_noise_does_not_shift_the_point_of_rest() -> None:
    """A step chosen by whether the free one is feasible would be biased; one number for a tensor is not."""
    rng = torch.Generator().manual_seed(0)
    ball = NormBall("generator", "u", 1.5)
    params: Any = {"u": 1.5 * W / W.norm()}
    rule = Adam(2e-3, beta2=0.999)
    state = rule.init(params)
    total, count = torch.zeros(2, dtype=F64), 0
    for k in range(3000):
        noise = torch.randn(2, generator=rng, dtype=F64) * t(0.3, 2.0)
        params = step(rule, {"u": -W + noise}, state, params, [ball])
        if k >= 1000:
            total, count = total + params["u"], count + 1
    mean = total / count
    angle = math.atan2(float(mean[1]), float(mean[0])) - math.atan2(0.2, 1.0)
    assert abs(angle) < 0.06  # 0.59 with an entry-by-entry step


def test_what_couples_is_known_behind_wrappers_and_in_mixtures() -> None:
    torch.manual_seed(0)
    sets = [NormBall("generator", "bias", 1.0), WeightClipping(0.1)]
    game = GAN(nn.Linear(2, 2), nn.Linear(2, 1), WGAN(), latent=2, projections=sets)
    assert VectorField(game).coupled == {"generator": ("bias",), "critic": ()}
    assert VectorField(Exact(game)).coupled == coupled_parameters(game)
    many = Mixture(game, 2)
    assert (
        coupled_parameters(many)
        == coupled_parameters(PairedMixture(many))
        == coupled_parameters(game)
    )
    assert coupled_parameters(GaussianW2GAN())["generator"] == ("u", "W")
    assert coupled_parameters(GaussianWGAN()) == {"generator": (), "critic": ()}

    class Walled(GAN):
        def project(self, players: Any) -> Any:
            return players

    walled = Walled(nn.Linear(2, 2), nn.Linear(2, 1), WGAN(), latent=2)
    assert coupled_parameters(walled) == {"generator": None, "critic": None}
    open_ = GAN(nn.Linear(2, 2), nn.Linear(2, 1), WGAN(), latent=2)
    open_.project = lambda players: players  # type: ignore[method-assign]
    assert coupled_parameters(open_) == {"generator": None, "critic": None}


# -- in solvers ------------------------------------------------------------------------------------


class Linear(Plain):
    """Each player minimises -<w, x> over a ball of radius 1.5."""

    players = ("first", "second")
    coupled = MappingProxyType({"first": ("x",), "second": ("x",)})

    def losses(self, players: Any, constants: Any, draw: Any, only: str | None = None) -> Any:
        return {p: -(w * players[p]["x"]).sum() for p, w in (("first", W), ("second", W.flip(0)))}

    def project(self, players: Any) -> Any:
        return {p: NormBall(p, "x", 1.5)(part) for p, part in players.items()}


SOLVERS: list[Callable[[Any], Any]] = [
    Simultaneous,
    Extragradient,
    Optimistic,
    lambda rule: Alternating(2, rule, leader="first", follower="second"),
]


@pytest.mark.parametrize("rule", [Adam(3e-2), RMSProp(3e-2)], ids=str)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("stacked", [None, 3])
def test_solvers_reach_the_minimum(solver: Any, rule: Any, stacked: int | None) -> None:
    method = solver(rule)
    players: Any = {p: {"x": torch.zeros(2, dtype=F64)} for p in Linear.players}
    constants: Any = {p: {} for p in players}
    if stacked:
        players = tree.stack([players] * stacked)
    state = method.init(players)
    field = VectorField(Linear(), stacked=stacked)

    class Nothing:
        def batch(self, index: int = 0) -> Any:
            return {}

    for _ in range(250):
        players, constants, state, _ = method.step(field, players, constants, state, Nothing())
    for p, w in (("first", W), ("second", W.flip(0))):
        best = (1.5 * w / w.norm()).expand_as(players[p]["x"])
        torch.testing.assert_close(players[p]["x"], best, rtol=0, atol=1e-2)


@pytest.mark.parametrize("sampler", [RMSPropSGLD(3e-2, 1e-6), SGLD(3e-2, 1e-6)])
def test_samplers_gather_at_the_minimum(sampler: Any) -> None:
    solver = MirrorGAN(sampler, inner=4, beta=1.0)
    torch.manual_seed(0)
    module, critic = nn.Linear(2, 2).double(), nn.Linear(2, 1).double()
    sets = [NormBall("generator", "bias", 1.5)]
    game = GAN(module, critic, WGAN(), latent=2, projections=sets)
    players, constants = game.init()
    with torch.no_grad():
        players["critic"]["weight"].copy_(W[None])
    frozen = tree.clone(players["critic"])
    state, field = solver.init(players), VectorField(game)

    source = Same()
    for k in range(120):
        taken = solver.step(field, players, constants, state, source.at(k))
        players, constants, state = taken.players, taken.constants, taken.state
        players["critic"] = tree.clone(frozen)  # its slope stays what it is
    angle = players["generator"]["bias"] / 1.5 - W / W.norm()
    assert float(angle.norm()) < 1e-2


class Same:
    """One batch for ever, fresh noise at each step."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(1)
        self.rng = rng
        self.draw = {k: torch.randn(16, 2, generator=rng, dtype=F64) for k in ("real", "latent")}

    def at(self, step: int) -> Same:
        return self

    def batch(self, index: int = 0) -> Any:
        return self.draw

    def noise(self, like: Any, index: int = 0) -> Any:
        return tree.map(lambda x: torch.randn(x.shape, generator=self.rng, dtype=F64), like)


# -- torch's optimisers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9),
        lambda p: torch.optim.Adam(p, 1e-2),
        lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True),
        lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.0),
        lambda p: torch.optim.RMSprop(p, 1e-2),
        lambda p: torch.optim.Adagrad(p, 0.3),
    ],
)
def test_optimisers_of_torch_reach_the_minimum(make: Any) -> None:
    module = nn.Linear(1, 2).double()
    rule = TorchRule(make(module.parameters()), module)
    found = descended(
        rule,
        NormBall("generator", "bias", 1.5),
        {"weight": torch.zeros(2, 1, dtype=F64), "bias": W},
        {"weight": torch.zeros(2, 1, dtype=F64), "bias": torch.zeros(2, dtype=F64)},
    )
    torch.testing.assert_close(found["bias"], 1.5 * W / W.norm(), rtol=0, atol=1e-2)


def test_an_optimiser_whose_preconditioner_is_unknown_is_refused_under_a_ball() -> None:
    module = nn.Linear(1, 2).double()
    rule = TorchRule(torch.optim.Adamax(module.parameters(), 1e-2), module)
    params = {k: p.detach().clone() for k, p in module.named_parameters()}
    ball = NormBall("generator", "bias", 1.5)
    with pytest.raises(GameError, match="cannot step Adamax under a projection that is no box"):
        step(rule, tree.clone(params), rule.init(params), params, [ball])
