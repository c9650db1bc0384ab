"""The check "local" against games whose points are known, and dense Hessians taken another way."""

from __future__ import annotations

import itertools
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
    Parabola,
    Shift,
    Unit,
    boxed,
    context,
)
from torch import nn

from equilibrist import GAN, WGAN, RecipeError, Vanilla, Verdict, WeightClipping, tree
from equilibrist.checks import Settings, audit_game, curvature
from equilibrist.checks._complement import answered_curvature
from equilibrist.checks._linear import (
    Hessian,
    Sobolev,
    ValueHessian,
    dense_extremes,
    dense_symmetric,
    extremes_of,
    lanczos_extremes,
)
from equilibrist.checks._schur import restricted
from equilibrist.checks._second_order import found_draws, free, inexact
from equilibrist.checks.context import AuditContext
from equilibrist.checks.context_exact import ExactContext
from equilibrist.core.draws import Use
from equilibrist.formulations import W2GAN
from equilibrist.games.dirac import Dirac
from equilibrist.games.gaussian import GaussianW2GAN, GaussianWGAN
from equilibrist.games.planar import Planar, curved_ridge, three_nash
from equilibrist.games.quadratic import Quadratic, bilinear, false_attractor, hidden_minimax

EXACT = Settings(tolerance=1e-6, groups=3, group_batches=1, linear_batches=1)
YES, OPEN, NO, UNKNOWN = (
    Verdict.VERIFIED,
    Verdict.NOT_REFUTED,
    Verdict.REFUTED,
    Verdict.UNASSESSED,
)


def exact(game: Any, players: Any = None, settings: Settings = EXACT) -> dict[str, Any]:
    players = game.points()[0].players if players is None else players
    return {c.claim: c for c in curvature.local(ExactContext(game, players, settings))}


def sampled(bench_: AuditContext) -> dict[str, Any]:
    return {c.claim: c for c in curvature.local(bench_)}


def verdicts(found: dict[str, Any]) -> dict[str, Verdict]:
    return {claim: c.verdict for claim, c in found.items()}


# -- points whose kind is known ------------------------------------------------------------------


@pytest.mark.parametrize("game", [three_nash(), curved_ridge()], ids=["three_nash", "curved_ridge"])
def test_planar_points_are_told_apart(game: Planar) -> None:
    """Saddles, a non-Nash attractor, minimax but not Nash, local Nash: as the games' own classification has it,
    which takes J from the losses by other means."""
    leader = game.leader
    for point in game.points():
        found = exact(game, point.players)
        assert UNKNOWN not in verdicts(found).values()
        assert found["local-nash"].verdict is (YES if point.kind == "local nash" else NO)
        assert found["local-minimax"].verdict is (YES if leader in point.leaders else NO)
        J = game.jacobian(point.players)
        for i, player in enumerate("xy"):
            own = found[f"local-nash/{player}"]
            assert own.evidence["smallest"] == pytest.approx(float(J[i, i]), rel=1e-10)
            assert own.verdict is (YES if J[i, i] > 0 else NO)
        i = "xy".index(leader)
        if found["local-minimax"].verdict is YES:
            schur = J[i, i] - J[i, 1 - i] * J[1 - i, i] / J[1 - i, 1 - i]
            assert found["local-minimax"].evidence["schur_smallest"] == pytest.approx(
                float(schur), rel=1e-10
            )


def test_points_of_both_games_cover_every_kind() -> None:
    kinds = {p.kind for g in (three_nash(), curved_ridge()) for p in g.points()}
    assert kinds == {
        "local nash",
        "local minimax",
        "non-nash attractor",
        "saddle of the dynamics",
    }


@pytest.mark.parametrize(
    ("game", "nash", "minimax"),
    [
        (false_attractor(), NO, NO),
        (hidden_minimax(), NO, YES),
        (bilinear(2), YES, YES),  # flat, and quadratic: zero is enough
        (Dirac("wgan"), YES, YES),
        (Dirac("vanilla"), OPEN, OPEN),  # flat, and not quadratic
        (Dirac("vanilla", gamma=0.3), OPEN, YES),
        (GaussianW2GAN(2.0, 1), NO, YES),
        (GaussianW2GAN(0.5, 1), YES, YES),
        (GaussianW2GAN(2.0, 3), NO, OPEN),  # a ball holds W; rotations are flat
        (GaussianW2GAN(0.5, 2), OPEN, OPEN),
        (GaussianWGAN(2.0), NO, YES),
        (GaussianWGAN(0.5), YES, YES),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, Verdict) else x.value,
)
def test_games_with_truth(game: Any, nash: Verdict, minimax: Verdict) -> None:
    found = exact(game)
    assert found["local-nash"].verdict is nash
    assert found["local-minimax"].verdict is minimax


def test_w2gan_curvatures_are_the_formulas() -> None:
    """At the optimum V_uu = 2 eta (1 - s); after the critic's answer 2 eta (SCIENCE's local curvature at lambda = 0);
    the wall's tensor W is held, and said so."""
    s, eta = 3.0, 0.7
    found = exact(GaussianW2GAN(s, 3, eta))
    own = found["local-nash/generator"]
    assert own.evidence["smallest"] == pytest.approx(2 * eta * (1 - s), rel=1e-12)
    assert own.evidence["parameters"] == 3
    assert any("holds W" in limit for limit in own.limits)
    reach = 0.01 * math.sqrt(3)
    assert own.evidence["gain"] == pytest.approx(eta * (s - 1) * reach**2, rel=1e-12)
    witness = own.witness["generator"]
    assert float(witness["W"].abs().max()) == 0
    assert float(witness["u"].norm()) == pytest.approx(1.0)
    assert own.witness_kind == "direction"
    # The shift's own gain, in closed form, is what the witness promises.
    game = GaussianW2GAN(s, 3, eta)
    assert float(game.shift_gain(reach * witness["u"])) == pytest.approx(own.evidence["gain"])
    minimax = found["local-minimax"].evidence
    assert minimax["schur_smallest"] == pytest.approx(2 * eta, rel=1e-10)
    assert minimax["flat_answers"] == 3


def test_a_pair_that_moves_is_refuted_by_its_gradient_and_not_judged_by_its_curvature() -> None:
    unit = torch.eye(1, dtype=F64)
    game = Quadratic(unit, unit, unit)
    away = {
        "x": {"value": torch.tensor([0.5], dtype=F64)},
        "y": {"value": torch.zeros(1, dtype=F64)},
    }
    found = exact(game, away)
    assert set(verdicts(found).values()) == {NO}
    for player in "xy":  # 1/2 z'^2 - 1/2 z^2 a hundredth of the way down the slope 1/2
        own = found[f"local-nash/{player}"]
        assert own.evidence["order"] == 1
        reach = 0.005 if player == "x" else 0.01
        assert own.evidence["gain"] == pytest.approx(0.5 * reach - reach**2 / 2)
        moved = {**away, **own.witness}
        before, after = (game.losses(at, {}, {})[player] for at in (away, moved))
        assert float(before - after) == pytest.approx(own.evidence["gain"])
    assert found["local-minimax"].player == "y"
    assert set(verdicts(exact(game)).values()) == {YES}
    # A negative curvature gains all the same, moving or not.
    game = Quadratic(-unit, unit, unit)
    assert exact(game, away)["local-nash/x"].verdict is NO


def test_a_curvature_within_the_tolerance_is_not_refuted() -> None:
    unit = torch.eye(1, dtype=F64)
    game = Quadratic(-0.001 * unit, 0 * unit, unit)  # gains 1/2 0.001 0.01^2 = 5e-8
    found = exact(game)
    assert found["local-nash/x"].evidence["gain"] == pytest.approx(5e-8)
    assert found["local-nash/x"].verdict is OPEN
    tight = Settings(tolerance=1e-8, groups=3, group_batches=1, linear_batches=1)
    assert exact(game, settings=tight)["local-nash/x"].verdict is NO


def test_minimax_is_refuted_by_the_schur_complement_alone() -> None:
    one = torch.ones(1, 1, dtype=F64)
    found = exact(Quadratic(-3 * one, one, one))  # S = -3 + 1
    assert found["local-nash/y"].verdict is YES
    certificate = found["local-minimax"]
    assert certificate.verdict is NO
    assert certificate.evidence["schur_smallest"] == pytest.approx(-2)
    u, w = (float(certificate.witness[p]["value"]) for p in "xy")
    assert w == pytest.approx(u)  # the best answer to a unit move


def test_a_follower_with_flat_answers_is_asked_for_them() -> None:
    """V = -x^2 + x y^2 - y^4: the Hessian in y vanishes. For x < 0 no answer helps, and V falls by x^2; from
    -x^2 + x y^2 - y^4 / 8 it is y^2 = 4 |x| that helps for x > 0, which leaves x < 0."""
    game = Planar(lambda x, y: -x.square() + x * y.square() - y**4, "x", ())
    here = {p: {"value": torch.zeros(1, dtype=F64)} for p in "xy"}
    found = exact(game, here)
    certificate = found["local-minimax"]
    assert certificate.verdict is NO
    assert float(certificate.witness["x"]["value"]) == pytest.approx(-0.01)
    assert certificate.evidence["answered"]["gain"] == pytest.approx(1e-4)
    assert found["local-nash/x"].verdict is NO


class Singular(Quadratic):
    """V = -t^2/2 + t (a^2 - b^2) - (a^4 + b^4)/4 + `more` (t, a, b); t minimises."""

    linear = False

    def __init__(self, more: Any = None) -> None:
        super().__init__(*(torch.zeros(*n, dtype=F64) for n in ((1, 1), (1, 2), (2, 2))))
        self.more = more or (lambda t, a, b: 0.0 * t)

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        (t,), (a, b) = players["x"]["value"], players["y"]["value"]
        value = -t.square() / 2 + t * (a.square() - b.square()) - (a**4 + b**4) / 4
        value = value + self.more(t, a, b)
        return {"x": value, "y": -value}


HERE = {"x": {"value": torch.zeros(1, dtype=F64)}, "y": {"value": torch.zeros(2, dtype=F64)}}


def test_a_negative_direction_that_is_answered_along_the_null_space_refutes_nothing() -> None:
    """-1 on all of U, yet +t^2/2 after the answers a^2 = 2t or b^2 = -2t: a local minimax point."""
    found = exact(Singular(), HERE)["local-minimax"]
    assert found.evidence["schur_smallest"] == pytest.approx(-1)
    assert (found.evidence["flat_answers"], found.evidence["restricted_to"]) == (2, 1)
    assert found.verdict is OPEN
    assert found.evidence["answered"]["gain"] < 0
    assert "null space" in found.summary
    # With one of the two answers gone, the leader gains on that side.
    found = exact(Singular(lambda t, a, b: t * b.square() + 0.0 * a), HERE)["local-minimax"]
    assert found.verdict is NO
    assert float(found.witness["x"]["value"]) < 0


def test_the_threshold_of_the_null_space_is_reported_with_its_sensitivity() -> None:
    """The answer of curvature 1e-5 raises -1 to 9999 where it counts, and excludes t where it does not."""
    found = exact(
        Singular(lambda t, a, b: 0.3 * t * a - 1e-5 * a.square() / 2 - b.square() / 2), HERE
    )["local-minimax"]
    rows = {row["threshold"]: row for row in found.evidence["sensitivity"]}
    assert rows[1e-6]["smallest"] == pytest.approx(-1 + 0.09 / 1e-5)
    assert (rows[1e-6]["null"], rows[1e-6]["restricted_to"]) == (0, 1)
    assert (rows[1e-4]["null"], rows[1e-4]["restricted_to"]) == (1, 0)
    assert rows[1e-4]["smallest"] is None


@pytest.mark.parametrize("seed", range(8))
def test_the_restricted_schur_complement_is_the_limit_of_small_damping(seed: int) -> None:
    """On {u : C^T u in range(B)}, A - C B^+ C^T; off it the damped form grows like 1 / damping."""
    g = torch.Generator().manual_seed(seed)
    k, m, flat = 5, 6, 2
    A, G = (torch.randn(*n, generator=g, dtype=F64) for n in ((k, k), (m, k)))
    A = A + A.mT
    Q = torch.linalg.qr(torch.randn(m, m, generator=g, dtype=F64))[0]
    values = torch.rand(m, generator=g, dtype=F64) + 0.5
    values[:flat] = 0.0
    found = restricted(A, G, (Q * values) @ Q.mT, 1e-10)
    assert (found.null.shape[1], found.room) == (flat, k - flat)
    assert float((found.null.mT @ G @ found.u).norm()) < 1e-9
    damped = A + G.mT @ (Q / (values + 1e-7)) @ Q.mT @ G
    assert found.value == pytest.approx(float(torch.linalg.eigvalsh(damped)[0]), abs=1e-4)


def test_a_leader_that_is_not_at_rest_is_judged_after_the_answer() -> None:
    """V = 0.1 t + t w - w^2/2 near 0 (reach 1): 0.1 against the frozen follower, 0.005 once it answers."""
    one = torch.ones(1, 1, dtype=F64)
    game = Quadratic(0 * one, one, one, a=torch.tensor([0.1], dtype=F64))
    here = {p: {"value": torch.zeros(1, dtype=F64)} for p in "xy"}

    def at(tolerance: float) -> dict[str, Any]:
        return exact(
            game,
            here,
            Settings(tolerance=tolerance, move=1.0, groups=3, group_batches=1, linear_batches=1),
        )

    found = at(0.05)
    assert found["local-nash/x"].verdict is NO
    assert found["local-nash/x"].evidence["gain"] == pytest.approx(0.1)
    assert found["local-minimax"].verdict is OPEN
    found = at(0.002)
    assert found["local-minimax"].verdict is NO
    answered = found["local-minimax"].evidence["answered"]
    assert answered["gain"] == pytest.approx(0.1 * 0.0625 - 0.0625**2 / 2, rel=1e-3)
    assert found["local-minimax"].witness_kind == "deviation"


def test_a_remainder_of_the_answer_is_within_the_bound() -> None:
    """No answer at all: the upper end is what the full one could add, |r|^2 over the least curvature."""
    one = torch.ones(1, 1, dtype=F64)
    bench_ = ExactContext(Quadratic(-3 * one, one, one), HERE | {"y": HERE["x"]}, EXACT)
    u, none = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
    found = answered_curvature(bench_, u, none, 1.0, lambda gradients=1.0: None)
    assert (found.low, found.mean) == (-3.0, -3.0)
    assert found.high == pytest.approx(-2.0)  # S = -3 + 1
    assert answered_curvature(bench_, u, none, 0.0, lambda gradients=1.0: None).high == math.inf
    assert answered_curvature(bench_, u, u, 0.0, lambda gradients=1.0: None).high == -2.0


def test_non_finite_curvature_is_not_assessed() -> None:
    game = Planar(lambda x, y: x.abs().sqrt().square() * y / x.abs() - y.square(), "x", ())
    here = {p: {"value": torch.zeros(1, dtype=F64)} for p in "xy"}
    found = exact(game, here)
    assert found["local-nash/x"].verdict is UNKNOWN
    assert found["local-nash"].verdict is UNKNOWN


# -- sampled games ---------------------------------------------------------------------------------


def parabola(s: float, latent: Any = 1) -> GAN:
    """W2GAN at its optimum for X ~ N(0, s^2), cost 1/2 |x - x'|^2, its shift free."""
    walls = (WeightClipping(1.0, "generator"),) if s > 1 else ()
    return GAN(
        Affine(1.0, [0.0]),
        Parabola(0.5 * (1 - 1 / s), 0.0),
        W2(0.5),
        latent=latent,
        projections=walls,
    )


def test_theorem_one_on_samples() -> None:
    """V_uu = 2 eta (1 - s) = -1 on every batch; the wall's w is held; minimax stands."""
    found = sampled(context(parabola(2.0), Gaussian(1, 2.0), batch=256, absolute=2e-3, move=0.1))
    own = found["local-nash/generator"]
    assert own.verdict is NO
    assert own.evidence["curvature"] == pytest.approx(-1.0, abs=1e-9)
    assert own.evidence["gain_interval"] == pytest.approx([5e-3, 5e-3], rel=1e-6)
    # The mean of both ways is free of the gradient's noise.
    assert own.evidence["measured"]["gain_interval"] == pytest.approx([5e-3, 5e-3], rel=1e-6)
    assert abs(float(own.witness["generator"]["u"])) == pytest.approx(1.0)
    assert float(own.witness["generator"]["w"]) == 0
    assert any("a box holds 1" in limit for limit in own.limits)
    assert found["local-nash/critic"].verdict is OPEN
    assert found["local-minimax"].verdict is OPEN
    assert found["local-minimax"].evidence["schur_smallest"] == pytest.approx(1.0, abs=1e-6)


def test_remark_one_on_samples() -> None:
    game = GAN(Shift([0.0]), Parabola(-0.5, 0.0), W2(0.5), latent=1)
    found = sampled(context(game, Gaussian(1, 0.5), batch=256, absolute=2e-3, move=0.1))
    assert set(verdicts(found).values()) == {OPEN}
    assert found["local-nash/generator"].evidence["smallest"] > 0.4


def test_the_default_tolerance_of_a_tiny_move() -> None:
    """At 2% of a yardstick of 1, a move of 1% gains nothing that counts."""
    found = sampled(context(parabola(2.0), Gaussian(1, 2.0), batch=256))
    assert found["local-nash/generator"].verdict is OPEN


def test_noise_leaves_it_open() -> None:
    """V_uu is the mean of cos over a batch, of mean zero: the interval of its curvature holds zero."""

    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(1, dtype=F64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.a * torch.sin(20 * x)).flatten()

    game = GAN(Shift([0.0]), Wave(), Unit(), latent=1)
    b = context(game, Gaussian(1), batch=32, absolute=1e-9, seed=2)
    own = sampled(b)["local-nash/generator"]
    low, high = own.evidence["curvature_interval"]
    if own.evidence["smallest"] < 0:
        assert low < 0 < high
    assert own.verdict is UNKNOWN


def net(seed: int, *sizes: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.Linear(a, b), *([nn.Tanh()] if i < len(sizes) - 2 else [])]
    return nn.Sequential(*layers).double()


def small_gan(spectral_norm: bool = False, formulation: Any = None) -> GAN:
    return GAN(
        net(1, 2, 5, 2),
        net(2, 2, 6, 1),
        formulation or Vanilla(),
        latent=2,
        spectral_norm=spectral_norm,
    )


def written_out(b: AuditContext) -> tuple[Any, torch.Tensor, int]:
    """(player -> its own loss as a function of one vector, generator first; the point; the generator's size): the
    vanilla losses written out, on the draws that directions are found on, for torch.func to differentiate.
    Singular values are those of a decomposition."""
    players, _ = b.wide
    point, draws = tree.flatten(players), found_draws(b)

    def own(player: str) -> Any:
        def loss(x: torch.Tensor) -> torch.Tensor:
            at = tree.unflatten(x, players)
            total = 0.0
            for draw in draws:
                fake = plain(b.game.modules["generator"], at["generator"], draw["latent"])
                critic = dict(at["critic"])
                for name in b.game.normalised:
                    critic[name] = critic[name] / torch.linalg.svdvals(critic[name])[0]
                real, made = (
                    plain(b.game.modules["critic"], critic, s) for s in (draw["real"], fake)
                )
                plus = torch.nn.functional.softplus
                paid = plus(-real).mean() + plus(made).mean()
                total = total + (plus(-made).mean() if player == "generator" else paid)
            return total / len(draws)

        return loss

    return own, point, tree.count({"g": players["generator"]})


def hessian(loss: Any) -> Any:
    return torch.func.jacrev(torch.func.jacrev(loss))


def plain(module: nn.Module, params: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.func.functional_call(module, params, (x,))


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_products_are_those_of_a_dense_hessian(spectral_norm: bool) -> None:
    b = context(small_gan(spectral_norm), Gaussian(2), batch=16)
    own, point, n = written_out(b)
    for player, span in (("generator", slice(0, n)), ("critic", slice(n, None))):
        reference = hessian(own(player))(point)[span, span]
        operator = Hessian(b, player, found_draws(b), lambda gradients: None)
        built = dense_symmetric(operator, operator.n)
        assert float((built - reference).abs().max()) < 1e-9 * float(reference.abs().max())
    H = -hessian(own("critic"))(point)  # of V
    value = ValueHessian(b, found_draws(b), lambda gradients: None)
    rng = torch.Generator().manual_seed(0)
    u, q = (torch.randn(k, generator=rng, dtype=F64) for k in (n, len(point) - n))
    for found, truth in zip(
        (*value.of_leader(u), *value.of_follower(q)),
        (H[:n, :n] @ u, H[n:, :n] @ u, H[:n, n:] @ q, -H[n:, n:] @ q),
        strict=True,
    ):
        assert float((found - truth).norm()) < 1e-9 * float(truth.norm())


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_norm_is_that_of_dense_slopes(spectral_norm: bool) -> None:
    b = context(small_gan(spectral_norm), Gaussian(2), batch=16)
    players, _ = b.wide
    flat = tree.flatten({"c": players["critic"]})

    def slopes(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        critic = dict(tree.unflatten(w, {"c": players["critic"]})["c"])
        for name in b.game.normalised:
            critic[name] = critic[name] / torch.linalg.svdvals(critic[name])[0]
        score = lambda point: plain(b.game.modules["critic"], critic, point[None]).squeeze()  # noqa: E731
        return torch.func.vmap(torch.func.grad(score))(x).flatten()

    M = torch.zeros(len(flat), len(flat), dtype=F64)
    for draw in found_draws(b):
        J = torch.func.jacrev(slopes)(flat, draw["real"])
        M += J.mT @ J / len(draw["real"]) / len(found_draws(b))
    operator = Sobolev(b, found_draws(b), lambda gradients: None)
    built = torch.stack([operator(row) for row in torch.eye(len(flat), dtype=F64)], 1)
    assert float((built - M).abs().max()) < 1e-9 * float(M.abs().max())


def test_lanczos_finds_both_ends() -> None:
    rng = torch.Generator().manual_seed(1)
    A = torch.randn(120, 120, generator=rng, dtype=F64)
    A = A + A.mT
    A[0, 0] -= 60
    truth = torch.linalg.eigvalsh(A)
    start = torch.randn(120, generator=rng, dtype=F64)
    found = lanczos_extremes(lambda x: A @ x, start, 40)
    assert found.smallest == pytest.approx(float(truth[0]), rel=1e-8)
    assert found.largest == pytest.approx(float(truth[-1]), rel=1e-2)
    assert found.residual == pytest.approx(
        float((A @ found.vector - found.smallest * found.vector).norm()), abs=1e-9
    )
    assert found.steps == 40
    few = lanczos_extremes(lambda x: A @ x, start, 3)
    assert not few.converged(0.0)
    assert few.smallest > float(truth[0])
    # An invariant subspace ends it early: two distinct eigenvalues, two products.
    two = torch.diag(torch.tensor([1.0, 1.0, -2.0, -2.0], dtype=F64))
    early = lanczos_extremes(lambda x: two @ x, torch.ones(4, dtype=F64), 4)
    assert early.steps == 2
    assert early.smallest == pytest.approx(-2)
    assert not dense_extremes(torch.full((2, 2), float("nan"), dtype=F64), 2).finite


def test_by_products_as_by_dense() -> None:
    """The same pair with a budget that pays for dense matrices and one that does not."""
    b = context(
        small_gan(), Gaussian(2), batch=32, local_products=1000, local_draws=1, absolute=0.1
    )
    poor = context(
        small_gan(), Gaussian(2), batch=32, local_products=96, local_draws=1, absolute=0.1
    )
    for player in ("generator", "critic"):
        parts = [Hessian(x, player, found_draws(x), lambda gradients: None) for x in (b, poor)]
        full = extremes_of(b, parts[0], 100, Use.ANSWERED.at(search=0))
        found = extremes_of(poor, parts[1], 24, Use.ANSWERED.at(search=0))
        assert full.complete
        assert not found.complete
        assert found.smallest == pytest.approx(full.smallest, rel=1e-3)
    rich, thin = sampled(b), sampled(poor)
    assert verdicts(rich) == verdicts(thin)
    assert rich["local-nash/critic"].evidence["complete"]
    assert not thin["local-nash/critic"].evidence["complete"]


def test_too_few_products_are_not_taken_for_an_answer() -> None:
    b = context(small_gan(), Gaussian(2), batch=32, local_products=8, local_draws=1, absolute=1e-12)
    own = sampled(b)["local-nash/generator"]
    assert own.verdict in (UNKNOWN, NO)
    if own.verdict is UNKNOWN:
        assert "raise local_products" in own.summary


# -- feasible sets ---------------------------------------------------------------------------------


def test_free_coordinates() -> None:
    """V = -w . u on boxes: what pushes against its wall is held, what lies inside is free."""
    b = context(boxed([1.0, 0.3], [0.5, -0.25]), Gaussian(2), batch=64)
    where = free(b)
    assert where.masks["generator"].tolist() == [False, True]  # -dV/du = w: outwards, inwards
    assert where.masks["critic"].tolist() == [True, True]
    assert where.walls == {"generator": 1, "critic": 0}
    held = context(boxed([1.0, -1.0], [0.5, -0.25]), Gaussian(2), batch=64)
    own = sampled(held)["local-nash/generator"]
    assert own.verdict is OPEN
    assert own.evidence["parameters"] == 0


def test_a_direction_that_leaves_the_set_refutes_nothing() -> None:
    """V_uu < 0, but u stands in a box of no width to speak of."""
    game = GAN(
        Shift([0.0]),
        Parabola(0.25, 0.0),
        W2(0.5),
        latent=Balanced(),
        projections=(WeightClipping(1e-6, "generator"),),
    )
    own = sampled(context(game, Gaussian(1, 2.0), batch=64, absolute=1e-6))["local-nash/generator"]
    assert own.evidence["smallest"] == pytest.approx(-1.0)
    assert own.verdict is UNKNOWN
    assert own.witness is None


# -- the rest --------------------------------------------------------------------------------------


def test_searched_transport_maps_are_not_assessed() -> None:
    b = context(GAN(net(1, 2, 4, 2), net(2, 2, 4, 1), W2GAN(steps=2), latent=2), Gaussian(2))
    assert "motion" in inexact(b)
    assert set(verdicts(sampled(b)).values()) == {UNKNOWN}
    assert inexact(context(small_gan(), Gaussian(2))) == ""


def test_same_seed_same_answer_and_nothing_left_behind() -> None:
    game = small_gan(spectral_norm=True)
    start = game.init()
    before = tree.clone({**start.players, "c": start.constants["critic"]})
    state = torch.get_rng_state()

    def run() -> list[Any]:
        settings = Settings(batch=16, local_products=48)
        b = AuditContext(game, start.players, start.constants, Gaussian(2), settings, 5)
        return [(c.verdict, c.summary, c.evidence) for c in curvature.local(b)]

    assert run() == run()
    assert torch.equal(state, torch.get_rng_state())
    after = {**start.players, "c": start.constants["critic"]}
    assert all(
        torch.equal(x, y) for x, y in zip(tree.leaves(before), tree.leaves(after), strict=True)
    )


def test_through_the_audit() -> None:
    found = audit_game(
        hidden_minimax(), hidden_minimax().points()[0].players, checks=("local",), progress="none"
    )
    assert found["local-minimax"].verdict is YES
    assert found["local-nash"].verdict is NO


@pytest.mark.parametrize("name", ["local_products", "local_batches", "local_draws"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(RecipeError, match=name):
        Settings(**{name: 0})


def test_linear_critic_has_no_curvature_of_its_own() -> None:
    game = GAN(Shift([0.2]), Linear([0.5]), WGAN(), latent=1)
    found = sampled(context(game, Gaussian(1), batch=32, absolute=1e-2))
    assert found["local-nash/critic"].evidence["smallest"] == 0
    assert found["local-nash/critic"].verdict is OPEN
