"""A game from losses of a user's own: what it takes, what it sees, what it refuses."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

import equilibrist as eq
from equilibrist import AdversarialGame, VectorField, audit, tree
from equilibrist.core.draws import Stream, generator
from equilibrist.errors import DataError, GameError
from equilibrist.games._own_players import Modules
from equilibrist.interop import Play
from equilibrist.optimizers import SGD
from equilibrist.projections import WeightClipping
from equilibrist.solvers import Simultaneous

X = torch.randn(300, 2, generator=torch.Generator().manual_seed(2))


def nets(out: int = 2) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    g = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, out))
    return g, nn.Sequential(nn.Linear(out, 6), nn.Tanh(), nn.Linear(6, 1))


def hinge(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    fake = modules.generator(z)
    on_real, on_fake = modules.critic(x), modules.critic(fake.detach())
    critic = F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
    return {"critic": critic, "generator": -modules.critic(fake).mean()}


def built(
    losses: Any = hinge, data: Any = X, players: Any = None, **options: Any
) -> AdversarialGame:
    g, d = nets()
    options.setdefault("latent", 3)
    return AdversarialGame(players or {"generator": g, "critic": d}, losses, data, **options)


def draw_of(game: AdversarialGame, seed: int = 0, n: int = 16) -> dict[str, Tensor]:
    return game.draw(np.random.default_rng(seed), game.data, n)


# -- gradients that are stopped -----------------------------------------------------------------------------


def whole(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    """`hinge` with nothing detached."""
    fake = modules.generator(z)
    on_real, on_fake = modules.critic(x), modules.critic(fake)
    critic = F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
    return {"critic": critic, "generator": -modules.critic(fake).mean()}


def under_no_grad(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        held = modules.generator(z)
    critic = F.relu(1 - modules.critic(x)).mean() + F.relu(1 + modules.critic(held)).mean()
    return {"critic": critic, "generator": -modules.critic(modules.generator(z)).mean()}


def frozen_meanwhile(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    fake = modules.generator(z)
    modules.critic.requires_grad_(False)
    mine = -modules.critic(fake).mean()
    modules.critic.requires_grad_(True)
    critic = F.relu(1 - modules.critic(x)).mean() + F.relu(1 + modules.critic(fake.data)).mean()
    return {"critic": critic, "generator": mine}


@pytest.mark.parametrize("losses", [hinge, under_no_grad, frozen_meanwhile])
def test_the_jacobian_has_the_block_that_a_training_loop_detaches(losses: Any) -> None:
    reference, game = built(whole), built(losses)
    start, draw = game.init(), draw_of(game)
    u = tree.map(torch.ones_like, start.players)
    for one in (True, False):
        field, other = VectorField(game), VectorField(reference)
        a, b = field(*start, draw), other(*start, draw)
        if one:
            a, b = field.linearize(*start, draw), other.linearize(*start, draw)
            assert torch.allclose(*(tree.flatten(f.pullback(u)) for f in (a, b)), atol=1e-6)
        assert torch.allclose(tree.flatten(a.v), tree.flatten(b.v), atol=1e-7)
    assert torch.allclose(
        tree.flatten(field.jvp(*start, u, draw)),
        tree.flatten(other.jvp(*start, u, draw)),
        atol=1e-6,
    )
    assert game.stops == ()


def test_a_players_own_stopped_gradient_is_kept_and_named() -> None:
    def straight_through(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        soft = modules.generator(z)
        fake = soft + (soft.round() - soft).detach()
        on_fake = modules.critic(fake.detach())
        return {
            "critic": F.relu(1 - modules.critic(x)).mean() + F.relu(1 + on_fake).mean(),
            "generator": -modules.critic(fake).mean(),
        }

    game = built(straight_through)
    assert len(game.stops) == 1
    assert game.stops[0].startswith("test_adversarial_game.py:")
    found = audit(game, gradients=400, progress="none")
    assert found["self-tests"].verdict == "UNASSESSED"
    assert game.stops[0] in found["self-tests"].summary
    assert "semi_gradient=True" in found["self-tests"].summary
    meant = audit(built(straight_through, semi_gradient=True), gradients=600, progress="none")
    assert meant["self-tests"].verdict == "VERIFIED"
    assert meant["local-nash"].verdict == meant["stable"].verdict == "UNASSESSED"
    assert meant["nash"].verdict != "UNASSESSED"


# -- noise, statistics, forms -------------------------------------------------------------------------------


def test_noise_of_the_function_itself_is_seeded() -> None:
    def losses(modules: Any, x: Tensor) -> dict[str, Tensor]:
        z = torch.randn(len(x), 3, dtype=x.dtype) * (1 + 0 * random.random())
        return hinge(modules, x, z)

    game = built(losses, latent=None)
    start, draw = game.init(), draw_of(game)
    assert game.noise == ("the losses",)
    state = torch.get_rng_state()
    once, twice = (game.losses(*start, draw) for _ in range(2))
    assert all(torch.equal(once[p], twice[p]) for p in once)
    assert torch.equal(state, torch.get_rng_state())
    other = game.losses(*start, {**draw, "noise": draw["noise"] + 1})
    assert not torch.equal(once["critic"], other["critic"])


def test_running_statistics_move_on_at_refresh_alone() -> None:
    g, d = nets()
    g = nn.Sequential(g[0], nn.BatchNorm1d(6), g[1], g[2])
    game = built(players={"generator": g, "critic": d})
    start, draw = game.init(), draw_of(game)
    game.losses(*start, draw)
    renewed = game.refresh(*start, draw)
    with torch.no_grad():
        expected = nn.BatchNorm1d(6).train()
        expected(g[0](draw["latent"]))
    assert torch.allclose(renewed["generator"]["1.running_mean"], expected.running_mean)
    assert torch.equal(g[1].running_mean, torch.zeros(6))
    assert not game.separable


def test_zero_sum_and_separable_are_seen() -> None:
    def opposite(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        value = modules.critic(x).mean() - modules.critic(modules.generator(z)).mean()
        return {"generator": value, "critic": -value}

    def packed(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        fake, n = modules.generator(z).reshape(-1, 8), len(x)
        return {
            "critic": F.softplus(-modules.critic(x.reshape(-1, 8))).mean()
            + F.softplus(modules.critic(fake)).mean(),
            "generator": F.softplus(-modules.critic(fake)).mean() + 0 * n,
        }

    assert built(opposite).zero_sum
    assert built(opposite).separable
    assert not built(hinge).zero_sum
    g, _ = nets()
    game = built(packed, players={"generator": g, "critic": nn.Linear(8, 1)}, batch=32)
    assert not game.separable
    assert not game.any_rows
    found = audit(game, gradients=400, progress="none")
    assert found["self-tests"].verdict == "VERIFIED"


def test_one_function_a_player_and_only() -> None:
    asked: list[str | None] = []

    def once(modules: Any, x: Tensor, z: Tensor, only: str | None = None) -> dict[str, Tensor]:
        asked.append(only)
        return hinge(modules, x, z)

    each = {
        "critic": lambda modules, x, z: hinge(modules, x, z)["critic"],
        "generator": lambda modules, x, z: -modules.critic(modules.generator(z)).mean(),
    }
    reference = built(hinge)
    start, draw = reference.init(), draw_of(reference)
    wanted = VectorField(reference)(*start, draw)
    for losses in (each, once):
        game = built(losses)
        asked.clear()
        found = VectorField(game)(*start, draw)
        assert torch.equal(tree.flatten(found.v), tree.flatten(wanted.v))
        alone = VectorField(game)(*start, draw, only="critic").v["critic"]
        assert torch.equal(tree.flatten(alone), tree.flatten(wanted.v["critic"]))
    assert asked == [None, "critic"]


def test_members_of_a_stack() -> None:
    game = built()
    assert not game.one_by_one
    start, draws = game.init(), [draw_of(game, s) for s in (0, 1)]
    stacked = VectorField(game, stacked=2)(
        tree.stack([start.players] * 2), tree.stack([start.constants] * 2), tree.stack(draws)
    )
    for i, draw in enumerate(draws):
        alone = VectorField(game)(*start, draw)
        assert torch.allclose(
            tree.flatten(tree.member(stacked.v, i)), tree.flatten(alone.v), atol=1e-6
        )

    def penalised(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        found = hinge(modules, x, z)
        at = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(modules.critic(at).sum(), at, create_graph=True)
        return {**found, "critic": found["critic"] + slope.square().sum(1).mean()}

    assert built(penalised).one_by_one


# -- players and data ---------------------------------------------------------------------------------------


def test_several_modules_frozen_ones_and_other_names() -> None:
    class Look(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.map(x).relu()

    def losses(modules: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x = batch["image"]
        code = modules.autoencoder["enc"](x)
        back = modules.autoencoder["dec"](code)
        apart = (modules.look(back) - modules.look(x)).square().mean()
        found = {"autoencoder": apart, "discs": torch.zeros(())}
        for disc in modules["discs"]:
            found["autoencoder"] = found["autoencoder"] - 0.1 * disc(back).mean()
            found["discs"] = (
                found["discs"]
                + (1 - disc(x)).relu().mean()
                + (1 + disc(back.detach())).relu().mean()
            )
        return found

    parts = {"enc": nn.Linear(2, 1), "dec": nn.Linear(1, 2)}
    discs = [nn.Linear(2, 1), nn.Linear(2, 1)]
    data = {"image": X, "label": torch.arange(300)}
    look = Look()
    game = AdversarialGame(
        {"discs": discs, "autoencoder": parts}, losses, data, frozen={"look": look}
    )
    assert game.players == ("generator", "critic")
    assert game.names == {"generator": "autoencoder", "critic": "discs"}
    start, draw = game.init(), draw_of(game)
    assert set(start.players["generator"]) == {
        f"{p}.{w}" for p in parts for w in ("weight", "bias")
    }
    assert "map.weight" in start.constants["look"]
    assert draw["label"].dtype == torch.int64
    by_hand = losses(
        Modules(autoencoder=parts, discs=discs, look=look),
        game.batch_of(draw),
    )
    found = game.losses(*start, draw)
    assert torch.allclose(found["generator"], by_hand["autoencoder"])
    assert torch.allclose(found["critic"], by_hand["discs"])
    wide = game.losses(*(tree.to(t, dtype=torch.float64) for t in (*start, draw)))
    assert wide["generator"].dtype == torch.float64
    # A witness loads into what the user holds.
    loaded = game.load(*start)["generator"].state_dict()
    nn.ModuleDict(parts).load_state_dict(loaded)


def test_a_player_of_tensors_in_its_ball() -> None:
    """min over w, max over |d| <= 1/4 of mean (w . (x + d) - y)^2: the best d is a corner of its box."""
    w = torch.tensor([1.0, -2.0])
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(3))
    y = x @ torch.tensor([1.5, 0.5]) + 0.3

    def losses(modules: Any, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        error = ((x + modules.shift) @ modules.model["w"] - y).square().mean()
        return {"model": error, "shift": -error}

    game = AdversarialGame(
        {"model": {"w": w}, "shift": torch.zeros(2)},
        losses,
        (x, y),
        projections=[WeightClipping(0.25, player="shift")],
    )
    assert game.zero_sum
    start = game.init()
    assert torch.equal(start.players["critic"]["value"], torch.zeros(2))
    found = audit(game, gradients=1500, progress="none", absolute=1e-3)
    rest = x.double() @ w.double() - y.double()
    corners = [rest + 0.25 * (a * w[0] + b * w[1]).double() for a in (-1, 1) for b in (-1, 1)]
    gain = max(float(c.square().mean()) for c in corners) - float(rest.square().mean())
    assert found["nash/critic"].verdict == "REFUTED"
    assert found["nash/critic"].evidence["gain"] == pytest.approx(gain, rel=0.15)


@pytest.mark.parametrize(
    "data",
    [
        X,
        X.numpy(),
        DataLoader(TensorDataset(X), batch_size=50),
        lambda i: X[(50 * i) % 250 : (50 * i) % 250 + 50],
        eq.ArraySource(X, kind="points"),
    ],
)
def test_data_in_any_form(data: Any) -> None:
    listed = isinstance(data, DataLoader)

    def losses(modules: Any, batch: Any, z: Tensor) -> dict[str, Tensor]:
        x = batch[0] if listed else batch
        return hinge(modules, x, z[: len(x)])

    game = built(losses, data)
    assert game.batch == (50 if listed else 64)
    draw = draw_of(game, n=50)
    known = {tuple(row) for row in X.tolist()}
    rows = next(iter(draw.values()))
    assert {tuple(row) for row in rows.tolist()} <= known
    a, b = game.data.split((0.5, 0.5), np.random.default_rng(0))
    if game.data.size is not None:
        mine, theirs = ({tuple(r) for r in part.all().tolist()} for part in (a, b))
        assert not mine & theirs


def test_numbers_of_a_function_are_dealt_out() -> None:
    seen: list[int] = []

    def batch(i: int) -> Tensor:
        seen.append(i)
        return X[:8] + i

    source = built(lambda m, x, z: hinge(m, x, z[: len(x)]), batch).data
    parts = source.split((0.5, 0.25, 0.25), np.random.default_rng(0))
    numbers = []
    for part in parts:
        seen.clear()
        for k in range(100):
            part.sample_rows(np.random.default_rng(k), 8)
        numbers.append({i % 1000 for i in seen})
    assert all(not a & b for i, a in enumerate(numbers) for b in numbers[i + 1 :])


# -- training -----------------------------------------------------------------------------------------------


def test_play_steps_as_a_loop_of_torch_does() -> None:
    g, d = nets()
    game = AdversarialGame({"generator": g, "critic": d}, hinge, X, latent=3)
    twin_g, twin_d = nets()
    play = Play(game, solver=Simultaneous(SGD(0.1)), seed=4)
    for k in range(3):
        draw = game.draw_around(generator(4, Stream.DATA, k), X[:32])
        losses = hinge(Modules(generator=twin_g, critic=twin_d), X[:32], draw["latent"])
        moves = {}
        for name, net in (("generator", twin_g), ("critic", twin_d)):
            moves[net] = torch.autograd.grad(
                losses[name], list(net.parameters()), retain_graph=True
            )
        with torch.no_grad():
            for net, grads in moves.items():
                for p, slope in zip(net.parameters(), grads, strict=True):
                    p -= 0.1 * slope
        play.step(X[:32])
    for mine, theirs in ((g, twin_g), (d, twin_d)):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def renamed(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    found = hinge(Modules(generator=modules.netG, critic=modules.netD), x, z)
    return {"netG": found["generator"], "netD": found["critic"]}


def test_an_audit_touches_nothing_and_writes_a_page(tmp_path: Path) -> None:
    g, d = nets()
    before = [p.clone() for p in (*g.parameters(), *d.parameters())]
    game = AdversarialGame(
        {"netG": g, "netD": d},
        renamed,
        X,
        latent=3,
        samples=lambda m, x, z: (x, m.netG(z)),
        score=lambda m, x: m.netD(x),
    )
    found = audit(game, gradients=600, progress="none", out=tmp_path / "audit")
    assert all(
        torch.equal(a, b) for a, b in zip(before, (*g.parameters(), *d.parameters()), strict=True)
    )
    assert (tmp_path / "audit" / "report.html").is_file()
    assert "netG" in str(found)
    refuted = next(
        c for c in found.values() if c.claim.startswith("nash/") and c.verdict == "REFUTED"
    )
    from safetensors.torch import load_file

    state = load_file(next((tmp_path / "audit").glob(f"*{refuted.player}*.safetensors")))
    {"generator": g, "critic": d}[refuted.player].load_state_dict(state)
    # Weights that have moved since are audited as they are now.
    later = audit(game, gradients=600, progress="none")
    assert later["nash/critic"].evidence["gain"] != found["nash/critic"].evidence["gain"]


# -- refusals -----------------------------------------------------------------------------------------------


def changed(**entries: Any) -> Callable[..., Any]:
    return lambda m, x, z: {**hinge(m, x, z), **{k: v(m, x, z) for k, v in entries.items()}}


OUTSIDE = nets()
COUNT = [0]


def counted(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    COUNT[0] += 1
    found = hinge(modules, x, z)
    return {**found, "critic": found["critic"] + COUNT[0]}


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "one player": (lambda: built(players={"generator": OUTSIDE[0]}), "two players or more"),
    "no dictionary": (
        lambda: AdversarialGame([*OUTSIDE], hinge, X),
        "players must be a dictionary",
    ),  # type: ignore[arg-type]
    "a number for a player": (
        lambda: built(players={"a": 3, "b": OUTSIDE[1]}),
        "'a' is of type int",
    ),
    "a dot": (
        lambda: built(players={"a": {"x.y": OUTSIDE[0]}, "b": OUTSIDE[1]}),
        "leave the dot out",
    ),
    "integers": (lambda: built(players={"a": torch.arange(3), "b": OUTSIDE[1]}), "torch.int64"),
    "shared": (lambda: built(players={"a": OUTSIDE[1], "b": OUTSIDE[1]}), "one tensor"),
    "frozen": (
        lambda: built(players={"generator": nets()[0].requires_grad_(False), "critic": OUTSIDE[1]}),
        "generator has no trained parameters",
    ),
    "no function": (lambda: built(losses=3), "losses=int"),
    "no dictionary of losses": (
        lambda: built(lambda m, x, z: hinge(m, x, z)["critic"]),
        "losses return Tensor",
    ),
    "no loss": (
        lambda: built(lambda m, x, z: {"critic": hinge(m, x, z)["critic"]}),
        "no 'generator', only 'critic'",
    ),
    "an item": (
        lambda: built(changed(critic=lambda m, x, z: 3.0)),
        "critic's loss is of type float",
    ),
    "no mean": (
        lambda: built(changed(critic=lambda m, x, z: m.critic(x))),
        r"shape \[64, 1\].*a mean over the batch",
    ),
    "its own scope": (
        lambda: built(changed(critic=lambda m, x, z: OUTSIDE[1](x).mean())),
        "does not depend on the critic's parameters.*first argument",
    ),
    "an error": (
        lambda: built(lambda m, x, z: hinge(m, x, z[:, :2])),
        r"losses fail on a batch: RuntimeError: mat1.*test_adversarial_game.py:\d+",
    ),
    "state": (lambda: built(counted), "two answers on the same batch"),
    "not finite": (
        lambda: built(changed(critic=lambda m, x, z: m.critic(x / 0).mean())),
        "critic's loss is nan.*critic.*first that",
    ),
    "no player": (
        lambda: built(projections=[WeightClipping(0.1, player="disc")]),
        "names no player",
    ),
    "samples": (
        lambda: built(samples=lambda m, x, z: m.generator(z)),
        "samples fails|samples must return",
    ),
    "shapes": (
        lambda: built(samples=lambda m, x, z: (x[:, :1], m.generator(z))),
        "real ones of shape",
    ),
    "scores": (
        lambda: built(
            samples=lambda m, x, z: (x, m.generator(z)), score=lambda m, x: m.critic(x).mean()
        ),
        "one for each sample",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(GameError, match=words) as seen:
        make()
    assert "\n" not in str(seen.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "no batch"),
        ({"x": X, "path": ["a"] * 300}, "batch entry path.0 is of type str"),
        ((X, X[:10]), "differ in their number of rows"),
        (iter([X]), "used up"),
        ([X[:5], X[:6, :1]], "rows of shape"),
        ([X[:5], (X[:6],)], "differ in structure"),
        (3, "type int cannot be read"),
    ],
)
def test_data_that_cannot_be_read(data: Any, words: str) -> None:
    with pytest.raises((DataError, GameError), match=words) as seen:
        built(data=data)
    assert "\n" not in str(seen.value)


def test_spectral_norm_of_torch_is_exact_in_the_copies() -> None:
    g, _ = nets()
    d = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 1)))
    game = built(players={"generator": g, "critic": d})
    start, draw = game.init(), draw_of(game)
    weight = d[0].parametrizations.weight.original.detach()
    x = torch.cat([draw["real"], g(draw["latent"]).detach()])
    scores = x @ (weight / weight.norm()).T + d[0].bias
    by_hand = F.relu(1 - scores[:16]).mean() + F.relu(1 + scores[16:]).mean()
    assert torch.allclose(game.losses(*start, draw)["critic"], by_hand, atol=1e-6)


def test_three_players_are_asked_what_has_a_meaning_for_them() -> None:
    """InfoGAN's third player guesses the latent from the sample: it pays its own error and stands apart."""
    g, d = nets()

    def losses(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        fake = modules.gen(z)
        guess = F.mse_loss(modules.guess(fake), z)
        critic = (
            F.softplus(-modules.disc(x)).mean() + F.softplus(modules.disc(fake.detach())).mean()
        )
        return {
            "gen": F.softplus(-modules.disc(fake)).mean() + guess,
            "disc": critic,
            "guess": guess,
        }

    game = AdversarialGame({"gen": g, "disc": d, "guess": nn.Linear(2, 3)}, losses, X, latent=3)
    assert game.players == ("gen", "disc", "guess")
    start, draw = game.init(), draw_of(game)
    z, weight = draw["latent"], start.players["guess"]["weight"]
    v = VectorField(game)(*start, draw).v
    fake = g(z).detach()
    rest = fake @ weight.T + start.players["guess"]["bias"] - z
    assert torch.allclose(v["guess"]["weight"], 2 * rest.T @ fake / rest.numel(), atol=1e-5)
    found = audit(game, gradients=800, progress="none")
    assert {f"{claim}/{p}" for claim in ("stationary", "nash") for p in game.players} < set(found)
    assert found["nash/guess"].verdict == "REFUTED"
    for claim in ("local-nash", "local-minimax", "proximal"):
        assert found[claim].verdict == "UNASSESSED"
        assert "this game has 3" in found[claim].summary
