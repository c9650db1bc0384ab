"""Mixtures of networks as one stack, against the same networks in Python lists."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.draws import Stream, generator
from equilibrist.core.field import VectorField
from equilibrist.data import ArraySource
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN, Hinge, Vanilla
from equilibrist.games import GAN, Mixture, SampledGame
from equilibrist.games.mixture import PairedMixture
from equilibrist.networks import CriticEnsemble, GeneratorMixture
from equilibrist.penalties import GradientPenalty
from equilibrist.projections import WeightClipping

F64, COUNT = torch.float64, 3


def g() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 5, dtype=F64), nn.Tanh(), nn.Linear(5, 2, dtype=F64))


def g_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 5, dtype=F64),
        nn.BatchNorm1d(5, track_running_stats=False, dtype=F64),
        nn.Tanh(),
        nn.Linear(5, 2, dtype=F64),
    )


def d() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 6, dtype=F64), nn.LeakyReLU(0.2), nn.Linear(6, 1, dtype=F64))


KINDS: dict[str, dict[str, Any]] = {
    "vanilla": {"formulation": Vanilla()},
    "zero-sum": {"formulation": Vanilla(saturating=True)},
    "hinge, normalised": {"formulation": Hinge(), "spectral_norm": True},
    "wgan-gp": {"formulation": WGAN(), "penalties": [GradientPenalty(2.0)]},
    "clipped": {"formulation": WGAN(), "projections": [WeightClipping(0.1)]},
    "batch norm": {"formulation": Vanilla(), "generator": g_norm},
}


def parts(kind: str) -> tuple[Any, Any, Any, dict[str, Any]]:
    options = dict(KINDS[kind])
    return options.pop("generator", g), d, options.pop("formulation"), options


def mixture(kind: str) -> Mixture:
    make, score, formulation, options = parts(kind)
    return Mixture(GAN(make, score, formulation, latent=2, **options), COUNT)


def listed(kind: str) -> GAN:
    make, score, formulation, options = parts(kind)
    return GAN([make] * COUNT, [score] * COUNT, formulation, latent=2, **options)


def as_list(players: Any) -> Any:
    """The stack's tensors under the names that the lists' modules give them."""
    names = {"generator": "generators", "critic": "critics"}
    return {
        player: {
            f"{names[player]}.{i}.{key}": t[i] for i in range(COUNT) for key, t in part.items()
        }
        for player, part in players.items()
    }


def draw(game: GAN, size: int = 12, seed: int = 0) -> dict[str, Tensor]:
    points = torch.randn(50, 2, dtype=F64, generator=torch.Generator().manual_seed(seed))
    rng = generator(seed, Stream.DATA)
    return game.draw(rng, ArraySource(points, kind="points"), size, F64)


def start(kind: str) -> tuple[Mixture, Any, Any]:
    game = mixture(kind)
    players, constants = game.init(0)
    return game, players, constants


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [12, 7])
def test_losses_and_gradients_are_those_of_the_lists(kind: str, size: int) -> None:
    game, players, constants = start(kind)
    other = listed(kind)
    drawn = draw(game, size)
    there = as_list(players)
    fixed = other.init(0).constants
    fixed = {
        p: {k: as_list(constants)[p].get(k, v) for k, v in c.items()} for p, c in fixed.items()
    }
    fixed = other.refresh(there, fixed, {}, exact=True)
    constants = game.refresh(players, constants, {}, exact=True)
    for only in (None, "generator", "critic"):
        mine = VectorField(game)(players, constants, drawn, only=only)
        theirs = VectorField(other)(there, fixed, drawn, only=only)
        for player, v in mine.v.items():
            torch.testing.assert_close(mine.losses[player], theirs.losses[player])
            flat = as_list({**players, player: v})[player]
            for key, value in theirs.v[player].items():
                torch.testing.assert_close(flat[key], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["vanilla", "batch norm"])
def test_samples_are_those_of_the_lists_and_of_the_exported_modules(kind: str) -> None:
    game, players, constants = start(kind)
    other, drawn = listed(kind), draw(game, 40)
    mine = game.generate(players, constants, drawn["latent"])
    theirs = other.generate(as_list(players), other.init(0).constants, drawn["latent"])
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    modules = game.load(players, constants)
    assert isinstance(modules["generator"], GeneratorMixture)
    assert isinstance(modules["critic"], CriticEnsemble)
    torch.testing.assert_close(modules["generator"](drawn["latent"]), mine, rtol=1e-12, atol=1e-12)
    scores = torch.stack([game.critic(players, constants, head=i)(mine) for i in range(COUNT)], 1)
    torch.testing.assert_close(modules["critic"](mine), scores, rtol=1e-9, atol=1e-12)


def test_components_have_equal_shares_and_absent_ones_do_no_harm() -> None:
    game, players, constants = start("vanilla")
    rng = generator(1, Stream.DATA)
    z = game.latent.sample(rng, 30_000, F64, None)
    shares = torch.bincount(game.component(z), minlength=COUNT) / len(z)
    assert (shares - 1 / COUNT).abs().max() < 0.012  # four standard errors
    lone = z[game.component(z) == 1][:5]  # two generators have nothing to do
    made = game.generate(players, constants, lone)
    own = game.base.generate(tree.member(players, 1), tree.member(constants, 1), lone[:, :-1])
    torch.testing.assert_close(made, own)
    other = game.base.generate(tree.member(players, 2), tree.member(constants, 2), lone[:, :-1])
    assert (made - other).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["vanilla", "wgan-gp", "zero-sum"])
def test_pairs_are_lone_games(kind: str) -> None:
    """Generator i against critic i on rows i B / n and on: gradients 1 / n of the lone game's."""
    game, players, constants = start(kind)
    drawn = draw(game, 12)
    for only in (None, "critic", "generator"):
        found = VectorField(PairedMixture(game))(players, constants, drawn, only=only)
        for i in range(COUNT):
            rows = {k: t[4 * i : 4 * i + 4] for k, t in drawn.items()}
            rows["latent"] = rows["latent"][:, :-1]
            own = VectorField(game.base)(
                tree.member(players, i), tree.member(constants, i), rows, only=only
            )
            for player, v in own.v.items():
                for key, value in v.items():
                    torch.testing.assert_close(COUNT * found.v[player][key][i], value)


def test_random_pairs_estimate_the_mixture() -> None:
    """The mean over all permutations and many minibatches is V; one pairing is another number."""
    game, players, constants = start("zero-sum")
    players = tree.map(lambda t: 2 * t, players)
    paired = PairedMixture(game)
    shifts = [torch.tensor([(i + s) % COUNT for i in range(COUNT)]) for s in range(COUNT)]
    whole, parts_, single = [], [], []
    for seed in range(60):
        drawn = draw(game, 300, seed)
        whole.append(game.losses(players, constants, drawn)["critic"])
        seen = [
            paired.losses(
                {**players, "critic": tree.map(lambda t, o=order: t[o], players["critic"])},
                constants,
                drawn,
            )["critic"]
            for order in shifts
        ]
        parts_.append(torch.stack(seen).mean())
        single.append(seen[0])
    difference = torch.stack(whole) - torch.stack(parts_)
    assert difference.mean().abs() < 4 * difference.std() / len(whole) ** 0.5
    assert difference.std() > 0
    bias = torch.stack(single) - torch.stack(whole)
    assert bias.mean().abs() > 4 * bias.std() / len(whole) ** 0.5


def test_mean_network_is_another_summary() -> None:
    game, players, constants = start("hinge, normalised")
    averaged, fixed = game.mean(players, constants)
    key = next(iter(players["critic"]))
    torch.testing.assert_close(averaged["critic"][key], players["critic"][key].mean(0))
    drawn = draw(game.base, 20)
    summary = game.base.generate(averaged, fixed, drawn["latent"])
    each = [
        game.base.generate(tree.member(players, i), tree.member(constants, i), drawn["latent"])
        for i in range(COUNT)
    ]
    assert (summary - torch.stack(each).mean(0)).abs().max() > 1e-2
    # Its critic is normalised by its own singular vectors.
    seen = game.base.critic(averaged, fixed).params
    norms = [torch.linalg.matrix_norm(seen[k], 2) for k in game.normalised]
    torch.testing.assert_close(torch.stack(norms), torch.ones(len(norms), dtype=F64))


def test_starts_differ_and_repeat() -> None:
    game = mixture("vanilla")
    first, again, other = game.init(3), game.init(3), game.init(4)
    for a, b, c in zip(*(tree.leaves(s.players) for s in (first, again, other)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert not torch.equal(a[0], a[1])


def test_clipped_stacks_are_feasible() -> None:
    game, players, _ = start("clipped")
    grown = tree.map(lambda t: 10 * t, players)
    clipped = game.project(grown)["critic"]
    assert max(float(t.abs().max()) for t in clipped.values()) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mixture(g(), 4), "made of one GAN"),  # type: ignore[arg-type]
        (lambda: Mixture(listed("vanilla"), 4), "no lists"),
        (lambda: Mixture(mixture("vanilla"), 4), "made of one GAN"),  # type: ignore[arg-type]
        (lambda: Mixture(mixture("vanilla").base, 1), "2 or more"),
        (lambda: Mixture(mixture("vanilla").base, 2.0), "2 or more"),  # type: ignore[arg-type]
        (lambda: mixture("vanilla").read(g(), d()), "cannot be read"),
        (lambda: Mixture(GAN(nn.Flatten(), d, WGAN(), latent=2), 4), "no parameters"),
    ],
)
def test_errors_are_one_line(make: Any, words: str) -> None:
    with pytest.raises(GameError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_mixture_is_no_gan_of_two_networks_but_is_played_and_audited_as_sampled() -> None:
    from equilibrist.solvers import Proximal

    game, players, constants = start("vanilla")
    assert isinstance(game, SampledGame)
    assert isinstance(game.base, SampledGame)
    assert not isinstance(game, GAN)
    # What needs one critic says so, rather than that a mixture is no game of samples.
    solver = Proximal()
    with pytest.raises(GameError, match="needs one critic"):
        solver.step(VectorField(game), players, constants, solver.init(players), None)  # type: ignore[arg-type]


def test_pairs_need_shares() -> None:
    from equilibrist.langevin import SGLD
    from equilibrist.solvers import MirrorGAN

    game, players, constants = start("vanilla")
    solver = MirrorGAN(SGLD(1e-2), inner=1)

    class Given:
        def batch(self, index: int = 0) -> dict[str, Tensor]:
            return draw(game, 10)

        def noise(self, like: Any, index: int = 0) -> Any:
            return tree.zeros_like(like)

    with pytest.raises(GameError, match="batch=9, or pairing='all'"):
        solver.step(VectorField(game), players, constants, solver.init(players), Given())


def test_description_says_how_many() -> None:
    said = mixture("vanilla").describe()
    assert said["particles"] == COUNT
    assert "3 dimensions" in said["latent"]
