"""Attacks on mixtures: what their audits, ensembles, pages and mixed-profile certificates may not get wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.checks import Verdict, audit, audit_mixed
from equilibrist.compare import compare
from equilibrist.data import eight_gaussians
from equilibrist.errors import EquilibristError
from equilibrist.formulations import WGAN
from equilibrist.games import GAN, Mixture
from equilibrist.langevin import SGLD
from equilibrist.mixed import MatrixGame, Particles, squared_distance_game
from equilibrist.projections import WeightClipping
from equilibrist.run import Recipe, ensemble, train
from equilibrist.schedules import Piecewise
from equilibrist.solvers import MirrorGAN


def generator() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))


def critic() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1))


def mirrored(game: GAN, steps: int = 2, **options: Any) -> Recipe:
    solver = MirrorGAN(SGLD(1e-2, 0.0), **{"inner": 1, "beta": 1.0, **options})
    return Recipe(game, eight_gaussians(), solver, steps=steps, batch=24)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# -- runs ---------------------------------------------------------------------------------------------------


def test_exported_modules_make_the_same_samples(tmp_path: Path) -> None:
    game = Mixture(GAN(generator, critic, WGAN(), latent=2), 3)
    run = train(mirrored(game), tmp_path, device="cpu", progress="none")
    z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    module = game.load(run.players, run.constants)["generator"]
    # One by one and as a stack, matrix products may round in another order.
    samples = game.generate(run.players, run.constants, z)
    torch.testing.assert_close(module(z), samples, rtol=1e-5, atol=1e-6)


def test_ensembles_of_mixtures_are_their_single_runs(tmp_path: Path) -> None:
    game = Mixture(GAN(generator, critic, WGAN(), latent=2, spectral_norm=True), 2)
    recipe = mirrored(game, pairing="all", inner=2, beta=0.9)
    together = ensemble(recipe, tmp_path / "all", [0, 1], device="cpu", progress="none")
    alone = train(recipe, tmp_path / "one", seed=1, device="cpu", progress="none")
    for one, other in zip(
        tree.leaves(together.runs[1].players), tree.leaves(alone.players), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_paired_mixture_can_be_compared_from_one_seed(tmp_path: Path) -> None:
    """`compare` trains stacks alone: the recipes' own pairing must not close it to them."""
    game = Mixture(GAN(generator, critic, WGAN(), latent=2), 2)
    recipe = mirrored(game)
    compare(recipe, {"recipe": recipe.solver}, tmp_path, seeds=[0], device="cpu", progress="none")


def test_mirror_solvers_are_compared_by_their_own_numbers(tmp_path: Path) -> None:
    """mirror:noise=..., and lr=..., around a recipe that is Mirror-GAN already."""
    from equilibrist.solvers.named import solver_from_text

    own = MirrorGAN(SGLD(1e-2, 0.0), {"critic": SGLD(2e-2, 0.0)})
    for text in ("mirror:noise=0.01", "recipe:lr=0.1", "mirror-prox", "simultaneous"):
        assert solver_from_text(text, own) is not None


def test_searches_do_not_grow_weaker_with_the_number_of_particles(tmp_path: Path) -> None:
    """Copies of one network are that network; MirrorGAN moves each as if it were alone, and so must the search."""
    torch.manual_seed(0)
    made, scored, gains = generator(), critic(), []
    for count in (1, 8):
        game: GAN = GAN(made, scored, WGAN(), latent=2, projections=[WeightClipping(0.5)])
        game = game if count == 1 else Mixture(game, count)
        recipe = mirrored(game, steps=1, pairing="all")
        run = train(recipe, tmp_path / str(count), device="cpu", progress="none")
        found = audit(
            run, checks=("nash",), steps=20, starts=1, looks=1, batches=8, progress="none"
        )
        gains.append(max(max(c["gain"]) for c in found["nash/critic"].evidence["curves"]))
    assert gains[1] > gains[0] / 2


def test_parts_of_a_minibatch_name_the_pairing_not_batch_norm(tmp_path: Path) -> None:
    game = Mixture(GAN(generator, critic, WGAN(), latent=2), 2)
    recipe = Recipe(
        game, eight_gaussians(), MirrorGAN(SGLD(), inner=1), steps=1, batch=8, accumulate=2
    )
    with pytest.raises(EquilibristError) as caught:
        train(recipe, tmp_path, device="cpu", progress="none")
    assert "Paired" not in str(caught.value)
    assert "batch norm" not in str(caught.value)
    assert "pairing" in str(caught.value)


def test_schedules_are_named_with_the_solver() -> None:
    """A page that says lr=0.01 of a step size that fell to a twentieth is wrong."""
    plain, paced = MirrorGAN(), MirrorGAN(pace=Piecewise(((1, 1.0), (2, 0.05))))
    assert str(plain) != str(paced)
    assert str(plain) != str(MirrorGAN(heat=Piecewise(((1, 1.0), (2, 0.05)))))


def test_the_payoff_of_a_mixture_is_the_mean_over_pairs() -> None:
    """V = mean over i, j of V(theta_i, w_j): with batch statistics in the critic it is not, so refuse or mend."""

    def normed() -> nn.Module:
        norm = nn.BatchNorm1d(4, track_running_stats=False)
        return nn.Sequential(nn.Linear(2, 4), norm, nn.ReLU(), nn.Linear(4, 1))

    try:
        mixture = Mixture(GAN(generator, normed, WGAN(), latent=2), 2)
    except EquilibristError:
        return
    players, constants = mixture.init(0, dtype=torch.float64)
    draw = mixture.draw(np.random.default_rng(0), eight_gaussians(), 8192, torch.float64)
    alone = {**draw, "latent": draw["latent"][:, :-1]}
    pairs = [
        mixture.base.losses(
            {
                "generator": tree.member(players, i)["generator"],
                "critic": tree.member(players, j)["critic"],
            },
            {
                "generator": tree.member(constants, i)["generator"],
                "critic": tree.member(constants, j)["critic"],
            },
            alone,
        )["critic"]
        for i in range(2)
        for j in range(2)
    ]
    assert float(mixture.losses(players, constants, draw)["critic"]) == pytest.approx(
        float(torch.stack(pairs).mean()), abs=4e-3
    )


# -- certificates of mixed profiles -------------------------------------------------------------------------


def test_no_unnormalised_profile_is_verified() -> None:
    """Weights that sum to 1 - 5e-6 pay 5e-6 less, and hide as large a gain."""
    game = MatrixGame(vector(1.0, 1 - 5e-6)[:, None])
    assert audit_mixed(game, vector(1.0, 0.0), vector(1.0))["epsilon-nash"].verdict is (
        Verdict.REFUTED
    )
    try:
        found = audit_mixed(game, vector(1 - 5e-6, 0.0), vector(1.0))
    except (EquilibristError, ValueError):
        return
    assert found["epsilon-nash"].verdict is not Verdict.VERIFIED


def test_gains_of_float32_games_are_measured_in_float64() -> None:
    """At payoffs of 1e6 float32 steps by 1/16: a gain of 0.077 disappears, and one of 0.016 becomes 0.0625."""
    payoff = 1e6 + torch.tensor(
        [[0.1875, 0.25, 0.125], [0.3125, 0.25, 0.4375], [0.1875, 0.25, 0.1875]]
    )
    x = vector(0.22314686288966973, 0.415254100526046, 0.3615990365842843)
    y = vector(0.2920523058059053, 0.30130477613662504, 0.4066429180574697)
    audits = [audit_mixed(MatrixGame(M), x, y, epsilon=0.01) for M in (payoff, payoff.double())]
    assert audits[1]["epsilon-nash"].evidence["epsilon"] == pytest.approx(0.0771, abs=1e-3)
    assert audits[0]["epsilon-nash"].verdict is Verdict.REFUTED


def test_no_profile_outside_of_the_domain_is_verified() -> None:
    """On [0, 1]: mu has mass at -1/2 and 3/2, and so a variance of 1/4 about 1/2."""
    nu = Particles(vector(0.5)[:, None])
    mu = Particles(vector(-0.5, 0.5, 1.5)[:, None], vector(0.125, 0.75, 0.125).log())
    try:
        found = audit_mixed(squared_distance_game(), nu, mu)
    except (EquilibristError, ValueError):
        return
    assert found["epsilon-nash"].verdict is not Verdict.VERIFIED


@pytest.mark.parametrize(
    "profile",
    [
        ([1.0, 0.0], [0.0, 1.0]),
        (np.array([1.0, 0.0]), np.array([0.0, 1.0])),
        (Particles(torch.zeros(1, 1)), Particles(torch.zeros(1, 1))),
    ],
    ids=["lists", "arrays", "particles"],
)
def test_profiles_of_another_kind_work_or_are_refused(profile: tuple[Any, Any]) -> None:
    game = MatrixGame(torch.eye(2))
    try:
        found = audit_mixed(game, *profile)["epsilon-nash"]
    except (EquilibristError, ValueError):
        return
    assert found.verdict is not Verdict.UNASSESSED


def test_audits_of_mixed_profiles_speak_of_no_pair() -> None:
    game = MatrixGame.matching_pennies()
    half = vector(0.5, 0.5)
    assert "No check was asked for" not in str(audit_mixed(game, half, half))


def test_points_of_no_weight_count_for_nothing() -> None:
    nu = Particles(vector(0.5, 7.0)[:, None], vector(0.0, -math.inf))
    mu = Particles(vector(0.0, 1.0)[:, None])
    found = audit_mixed(squared_distance_game(), nu, mu)["epsilon-nash"]
    assert found.verdict is Verdict.VERIFIED
    assert found.evidence["value"] == pytest.approx(0.25)
