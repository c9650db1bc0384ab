"""Losses as people write them, held against the same code on plain torch modules in float64."""

from __future__ import annotations

import copy
import itertools
import random
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset

from equilibrist import AdversarialGame, VectorField, audit, tree
from equilibrist.errors import DataError, GameError
from equilibrist.games._own_players import Modules
from equilibrist.games.sampled import seed_of
from equilibrist.nn import noise
from equilibrist.projections import WeightClipping

X = torch.randn(200, 2, generator=torch.Generator().manual_seed(2))
Losses = dict[str, Tensor]


def net(*sizes: int, seed: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def pair() -> dict[str, Any]:
    return {"generator": net(3, 5, 2), "critic": net(2, 5, 1, seed=4)}


def built(losses: Any, data: Any = X, players: Any = None, **options: Any) -> AdversarialGame:
    return AdversarialGame(players or pair(), losses, data, **{"latent": 3, **options})


def minimax(m: Any, x: Tensor, z: Tensor, fake: Tensor | None = None) -> Losses:
    made = m.generator(z)
    held = made.detach() if fake is None else fake
    critic = F.softplus(-m.critic(x)).mean() + F.softplus(m.critic(held)).mean()
    return {"critic": critic, "generator": F.softplus(-m.critic(made)).mean()}


def by_hand(game: AdversarialGame, held: dict[str, Any], losses: Any, at: Any, draw: Any) -> Any:
    """The losses, and each player's own gradient of its own, by torch on copies of the modules."""
    shown = Modules()
    for role, name in game.names.items():
        shown[name] = copy.deepcopy(held[name]).double()
        shown[name].load_state_dict(at[role])
    with noise.seeded(noise.derived(seed_of(draw) or 0), noise.GLOBAL):
        found = losses(shown, game.batch_of(draw), *game._latents(draw))
    v = {
        role: dict(
            zip(
                at[role],
                torch.autograd.grad(found[n], list(shown[n].parameters()), retain_graph=True),
                strict=True,
            )
        )
        for role, n in game.names.items()
    }
    return {role: found[n].detach() for role, n in game.names.items()}, v


def holds(losses: Any, players: Any = None, jacobian: bool = True) -> AdversarialGame:
    """Losses, gradients (of all players and of each alone) and J w are those of plain torch."""
    held = players or pair()
    game = built(losses, players=held)
    rng = np.random.default_rng(0)
    players, constants = game.init(dtype=torch.float64)
    draw = game.draw(rng, game.data, 16, torch.float64)
    values, v = by_hand(game, held, losses, players, draw)
    field = VectorField(game)
    with torch.no_grad():
        for only in (None, *game.players):
            for p, loss in game.losses(players, constants, draw, only=only).items():
                assert float(loss) == pytest.approx(float(values[p]), rel=1e-12)
    wanted = tree.flatten({p: v[p] for p in players})
    assert torch.allclose(tree.flatten(field(players, constants, draw).v), wanted, atol=1e-12)
    for p in game.players:
        alone = field(players, constants, draw, only=p).v[p]
        assert torch.allclose(tree.flatten(alone), tree.flatten(v[p]), atol=1e-12)
    if jacobian:
        w = tree.map(lambda t: torch.from_numpy(np.asarray(rng.standard_normal(t.shape))), players)
        ends = [
            by_hand(game, held, losses, tree.axpy(s * 1e-6, w, players), draw)[1] for s in (1, -1)
        ]
        ahead, behind = (tree.flatten({p: end[p] for p in players}) for end in ends)
        product = tree.flatten(field.jvp(players, constants, w, draw))
        assert torch.allclose(product, (ahead - behind) / 2e-6, atol=1e-6, rtol=1e-5)
    return game


# -- one pass for one input: never another number ----------------------------------------------------------


def fgsm(m: Any, x: Tensor, z: Tensor) -> Losses:
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(m.critic(x).sum(), x)  # frees the graph of this pass
    found = minimax(m, x, z)
    return {**found, "critic": found["critic"] - m.critic(x + 0.1 * slope.sign()).mean()}


def written_after_a_second_pass(m: Any, x: Tensor, z: Tensor) -> Losses:
    first, second = m.critic(x), m.critic(x)
    first.mul_(2)
    found = minimax(m, x, z)
    return {**found, "critic": found["critic"] + (first * second).mean()}


def written_unseen(m: Any, x: Tensor, z: Tensor) -> Losses:
    with torch.no_grad():
        x = x.clone()
        first = m.critic(x).mean()
        x.data.clamp_(-0.5, 0.5)
        second = m.critic(x).mean()
    found = minimax(m, x, z)
    return {**found, "critic": found["critic"] * (first - second)}


def other_weights(m: Any, x: Tensor, z: Tensor) -> Losses:
    clean = m.critic(x)
    there = {k: 1.3 * p for k, p in m.critic.named_parameters()}
    found = minimax(m, x, z)
    moved = torch.func.functional_call(m.critic, there, (x,))
    return {**found, "critic": found["critic"] + (clean - moved).square().mean()}


class Grown(nn.Module):
    """A critic with a knob, and one that acts otherwise in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.alpha = net(2, 5, 1, seed=4), 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * (1 if self.training else 2) * self.net(x)


def another_knob(m: Any, x: Tensor, z: Tensor) -> Losses:
    m.critic.alpha = 1.0
    first = m.critic(x)
    m.critic.alpha = 0.5
    return {
        **minimax(m, x, z),
        "critic": (first - m.critic(x)).mean() + m.critic(m.generator(z)).mean(),
    }


def another_mode(m: Any, x: Tensor, z: Tensor) -> Losses:
    m.critic.train()
    found, first = minimax(m, x, z), m.critic(x)
    m.critic.eval()  # and left so
    return {**found, "critic": found["critic"] + (first * m.critic(x)).mean()}


def hooked(m: Any, x: Tensor, z: Tensor) -> Losses:
    found, first = minimax(m, x, z), m.critic(x)
    handle = m.critic[0].register_forward_hook(lambda _, __, out: 2 * out)
    second = m.critic(x)
    handle.remove()
    return {**found, "critic": found["critic"] + (first * second).mean()}


def negative_view(m: Any, x: Tensor, z: Tensor) -> Losses:
    found = minimax(m, x, z)
    return {**found, "critic": found["critic"] + (m.critic(x) * m.critic(x._neg_view())).mean()}


@pytest.mark.parametrize(
    "losses",
    [fgsm, written_after_a_second_pass, written_unseen, other_weights, hooked, negative_view],
)
def test_one_pass_is_kept_only_where_it_is_the_same(losses: Any) -> None:
    holds(losses, jacobian=losses is not written_unseen)


@pytest.mark.parametrize("losses", [another_knob, another_mode])
def test_modules_that_are_told_otherwise_in_between(losses: Any) -> None:
    holds(losses, {"generator": net(3, 5, 2), "critic": Grown()})


def test_an_adversarial_perturbation_of_weights() -> None:
    def losses(m: Any, batch: Any) -> Losses:
        x, y = batch
        moved = {k: p + m.shift[k.replace(".", "_")] for k, p in m.model.named_parameters()}
        attacked = torch.func.functional_call(m.model, moved, (x,))
        loss = F.cross_entropy(m.model(x), y) + F.cross_entropy(attacked, y)
        return {"model": loss, "shift": -loss}

    model = net(2, 2)
    shift = {k.replace(".", "_"): torch.zeros_like(p) for k, p in model.named_parameters()}
    game = built(
        losses,
        (X, (X[:, 0] > 0).long()),
        {"model": model, "shift": shift},
        latent=None,
        projections=WeightClipping(0.1, player="shift"),
    )
    assert game.zero_sum


# -- gradients that are stopped ----------------------------------------------------------------------------


def variable(m: Any, x: Tensor, z: Tensor) -> Losses:
    """WGAN-GP as it was written before torch 0.4."""
    fake, share = m.generator(z).detach(), torch.rand(len(x), 1).to(x)
    between = torch.autograd.Variable(share * x.data + (1 - share) * fake.data, requires_grad=True)
    score = m.critic(between)
    (slope,) = torch.autograd.grad(score, between, torch.ones_like(score), create_graph=True)
    penalty = 10 * (slope.norm(2, 1) - 1).square().mean()
    return {
        "critic": m.critic(fake).mean() - m.critic(x).mean() + penalty,
        "generator": -m.critic(m.generator(z)).mean(),
    }


def under_inference_mode(m: Any, x: Tensor, z: Tensor) -> Losses:
    with torch.inference_mode():
        fake = m.generator(z)
        assert (m.critic(x) > 0).float().mean() >= 0  # as a log has it
    return minimax(m, x, z, fake.clone())


def on_some_batches(m: Any, x: Tensor, z: Tensor) -> Losses:
    if x.mean() > 0.1:
        return minimax(m, x, z)
    return minimax(m, x, z, 1 * m.generator(z).detach())


@pytest.mark.parametrize("losses", [variable, under_inference_mode, on_some_batches])
def test_what_stops_for_another_player_passes(losses: Any) -> None:
    assert holds(losses).stops == ()


def test_a_branch_that_the_probe_does_not_take() -> None:
    def losses(m: Any, batch: Any, z: Tensor) -> Losses:
        x, rare = batch
        if bool(rare.any()):
            return minimax(m, x, z, 1 * m.generator(z).detach())
        return minimax(m, x, z)

    game = built(losses, (X, torch.zeros(200)))
    start, draw = game.init(), game.draw(np.random.default_rng(0), game.data, 16)
    w = tree.map(torch.ones_like, start.players)
    usual = VectorField(game).jvp(*start, w, draw)
    rare = VectorField(game).jvp(*start, w, {**draw, "1": torch.ones(16)})
    assert torch.allclose(tree.flatten(usual), tree.flatten(rare), atol=1e-6)


def test_two_stops_on_one_line_are_two() -> None:
    def losses(m: Any, x: Tensor, z: Tensor) -> Losses:
        made, w = m.generator(z), m.critic(x).norm()
        a, b = (
            F.softplus(m.critic(made.detach())).mean(),
            F.softplus(-m.critic(x)).mean() * w.detach(),
        )
        return {"critic": a + b, "generator": F.softplus(-m.critic(made)).mean()}

    game = holds(losses, jacobian=False)
    assert len(game.stops) == len(game._passing) == 1


def test_a_stop_counts_for_its_player_though_the_others_gradient_is_larger() -> None:
    def losses(m: Any, x: Tensor, z: Tensor) -> Losses:
        found, score = minimax(m, x, z), m.critic(x)
        mine = found["critic"] + 0.01 * (score * score.square().mean().detach()).mean()
        return {"critic": 1e-5 * mine, "generator": 1e4 * found["generator"]}

    assert len(holds(losses, jacobian=False).stops) == 1


@cache
def minimax_gain() -> float:
    """What the critic gains in the plain game."""
    found = audit(built(minimax), gradients=450, progress="none")["nash/critic"]
    return float(found.evidence["gain"])


@pytest.mark.parametrize("first", [True, False])
def test_critics_that_are_frozen_and_thawed(first: bool) -> None:
    def losses(m: Any, x: Tensor, z: Tensor) -> Losses:
        made = m.generator(z)
        found: Losses = {}
        for thaw in (first, not first):
            for p in m.critic.parameters():
                p.requires_grad = thaw
            if thaw:
                found["critic"] = minimax(m, x, z)["critic"]
            else:
                found["generator"] = F.softplus(-m.critic(made)).mean()
        return found

    found = audit(built(losses), gradients=450, progress="none")["nash/critic"].evidence
    assert found["gain"] == pytest.approx(minimax_gain(), rel=1e-4)


# -- noise, precision, state -------------------------------------------------------------------------------


def test_noise_that_is_drawn_with_a_probability_is_seeded() -> None:
    def losses(m: Any, x: Tensor, z: Tensor) -> Losses:
        return minimax(m, x + torch.randn_like(x) if random.random() < 0.05 else x, z)

    game = built(losses)
    start, seen = game.init(), set()
    for k in range(40):
        draw = game.draw(np.random.default_rng(k), game.data, 8)
        state = torch.get_rng_state()
        once = game.losses(*start, draw)["critic"]
        assert torch.equal(state, torch.get_rng_state())
        torch.rand(1)
        assert torch.equal(once, game.losses(*start, draw)["critic"])
        seen.add(torch.equal(once, minimax(_modules(game), draw["real"], draw["latent"])["critic"]))
    assert seen == {True, False}


def _modules(game: AdversarialGame) -> Modules:
    return Modules({name: game._live[role] for role, name in game.names.items()})


def test_noise_in_another_order_where_only_leaves_parts_out() -> None:
    def losses(m: Any, x: Tensor, only: str | None = None) -> Losses:
        found = {}
        for name in ("critic", "generator"):
            if only in (None, name):
                found[name] = minimax(m, x, torch.randn(len(x), 3).to(x))[name]
        return found

    game = built(losses, latent=None)
    start, draw = game.init(), game.draw(np.random.default_rng(0), game.data, 8)
    alone = game.losses(*start, draw, only="generator")["generator"]
    assert torch.equal(alone, game.losses(*start, draw)["generator"])


def test_float32_in_the_losses_follows() -> None:
    def losses(m: Any, x: Tensor) -> Losses:
        return minimax(m, x.float() / 127.5 - 1, torch.randn(len(x), 3))

    game = built(losses, (40 * X.clamp(-3, 3) + 127).to(torch.uint8), latent=None)
    found = audit(game, gradients=450, progress="none")
    assert found["self-tests"].verdict == "VERIFIED"
    assert torch.get_default_dtype() is torch.float32


def test_batches_that_are_written_in_place() -> None:
    def losses(m: Any, x: Tensor, z: Tensor) -> Losses:
        x.mul_(2).requires_grad_()
        return minimax(m, x, z)

    game = built(losses)
    start, draw = game.init(), game.draw(np.random.default_rng(0), game.data, 8)
    before = draw["real"].clone()
    found = game.losses(*start, draw)["critic"]
    assert torch.equal(before, draw["real"])
    assert not draw["real"].requires_grad
    assert torch.allclose(found, minimax(_modules(game), 2 * before, draw["latent"])["critic"])


def test_a_score_in_evaluation_mode_leaves_the_losses_in_training_mode() -> None:
    critic = nn.Sequential(net(2, 5), nn.Dropout(0.5), nn.Linear(5, 1))
    game = built(
        minimax,
        players={"generator": net(3, 2), "critic": critic},
        samples=lambda m, x, z: (x, m.generator(z)),
        score=lambda m, x: m.critic.eval()(x),
    )
    start, draw = game.init(), game.draw(np.random.default_rng(0), game.data, 8)
    before = game.losses(*start, draw)["critic"]
    game.critic_of(*start, draw)(draw["real"])
    assert torch.equal(before, game.losses(*start, draw)["critic"])


def test_under_inference_mode() -> None:
    with torch.inference_mode():
        inside = audit(built(minimax), gradients=450, progress="none")
    outside = audit(built(minimax), gradients=450, progress="none")
    assert inside["nash"].evidence == outside["nash"].evidence


# -- names and data ----------------------------------------------------------------------------------------


def test_names_that_others_have_too() -> None:
    teacher = net(3, 2, seed=9)
    data = {"x": X, "noise": X + 5, "latent": X - 5}

    def losses(m: Any, batch: Any, z: Tensor) -> Losses:
        assert z.shape[1] == 3
        found = minimax(m, batch["x"] + batch["noise"] + batch["latent"], z)
        near = (m.student(z) - m.generator(z)).square().mean()
        return {"student": near + found["generator"], "critic": found["critic"]}

    def student(m: Any, batch: Any, z: Tensor) -> Losses:
        return losses(Modules({**m, "generator": m.student, "teacher": m.generator}), batch, z)

    players = {"student": net(3, 2), "critic": net(2, 1)}
    game = built(student, data, players, frozen={"generator": teacher})
    draw = game.draw(np.random.default_rng(0), game.data, 8)
    batch = game.batch_of(draw)
    assert torch.allclose(batch["noise"] - 5, batch["x"])
    assert torch.allclose(batch["latent"] + 5, batch["x"], atol=1e-6)
    view = Modules({**players, "generator": teacher})
    wanted = student(view, batch, draw["latent"])["student"]
    assert torch.allclose(game.losses(*game.init(), draw)["generator"], wanted)


def test_who_is_the_critic() -> None:
    def losses(m: Any, x: Tensor, z: Tensor) -> Losses:
        found = minimax(Modules(generator=m.gen, critic=m.dis), x, z)
        return {"dis": found["critic"], "gen": found["generator"]}

    players = {"dis": net(2, 1), "gen": net(3, 2)}
    assert built(losses, players=players).names == {"generator": "gen", "critic": "dis"}


def test_a_function_of_a_number_is_one_though_it_draws() -> None:
    game = built(lambda m, x, z: minimax(m, x, z[: len(x)]), lambda i: torch.randn(8, 2))
    state = torch.get_rng_state()
    a, b = (game.draw(np.random.default_rng(3), game.data, 8)["real"] for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(state, torch.get_rng_state())
    other = game.draw(np.random.default_rng(4), game.data, 8)["real"]
    assert not torch.equal(a, other)


class Broken(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return X[index], None


def doubled(m: Any, x: Tensor, z: Tensor, only: str | None = None) -> Losses:
    return {p: (1 if only is None else 2) * loss for p, loss in minimax(m, x, z).items()}


def stepped(m: Any, x: Tensor, z: Tensor) -> Losses:
    found = minimax(m, x, z)
    found["critic"].backward()
    return found


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "batch": ({"batch": 0}, "batch=0: it must be a whole number"),
    "no latent": ({"latent": {}}, "leave it out"),
    "taken": ({"latent": {"real": 3}}, "called 'real'"),
    "frozen list": ({"frozen": [net(2, 2)]}, "give a dictionary of modules"),
    "frozen function": ({"frozen": {"f": len}}, "give an nn.Module"),
    "frozen player": ({"frozen": {"critic": net(2, 2)}}, "both hold 'critic'"),
    "samples": ({"samples": 3}, "samples=3: give a function"),
    "one sample": ({"samples": lambda m, x, z: x}, "must return two tensors"),
    "backward": ({"losses": stepped}, "leave the rest of the step out"),
    "only": ({"losses": doubled}, "only may leave out other losses"),
    "int": ({"players": {0: net(3, 2), 1: net(2, 1)}}, "a player is called 0"),
    "few batches": ({"data": lambda i: X.split(50)[i]}, "pass batches that end as a list"),
    "empty batches": ({"data": lambda i: X[50 * i : 50 * i + 50]}, "a batch without rows"),
    "loader": ({"data": DataLoader(Broken())}, "reading the data fails"),
    "dots": ({"data": {"a.b": X, "a": {"b": X}}}, "both called 'a.b'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str) -> None:
    options, words = REFUSED[name]
    with pytest.raises((GameError, DataError), match=words) as seen:
        built(**{"losses": minimax, **options})
    assert "\n" not in str(seen.value)


def test_a_tensor_of_two_of_three_players() -> None:
    shared = net(2, 1)

    def losses(m: Any, x: Tensor) -> Losses:
        return {name: m[name](x).square().mean() for name in m}

    players = {"a": shared, "b": net(2, 1, seed=3), "c": shared}
    with pytest.raises(GameError, match=r"the a's 0\.weight and the c's 0\.weight are one tensor"):
        built(losses, players=players, latent=None)
