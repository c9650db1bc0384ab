"""Solvers against training loops as a practitioner would write them: modules, zero_grad, backward, step."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN
from equilibrist.optimizers import SGD, Adam, RMSProp
from equilibrist.penalties import GradientPenalty
from equilibrist.projections import WeightClipping
from equilibrist.solvers import Alternating, Simultaneous

F64, STEPS, CLIP = torch.float64, 6, 0.2


def minibatch(step: int, index: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1000 * step + index)
    real = torch.randn(7, 2, generator=g, dtype=F64) * 0.5 + 1
    return {
        "real": real,
        "latent": torch.randn(7, 3, generator=g, dtype=F64),
        "mix": torch.rand(7, generator=g, dtype=F64),
    }


class Draws:
    """The minibatches of one step; remembers which were asked for."""

    def __init__(self, step: int) -> None:
        self.step, self.asked = step, []

    def batch(self, index: int = 0) -> dict[str, Tensor]:
        self.asked.append(index)
        return minibatch(self.step, index)

    def noise(self, like: Any, index: int = 0) -> Any:
        raise AssertionError("these solvers draw no noise")


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(5)
    g = nn.Sequential(nn.Linear(3, 6, dtype=F64), nn.Tanh(), nn.Linear(6, 2, dtype=F64))
    c = nn.Sequential(
        nn.Linear(2, 6, dtype=F64),
        nn.LeakyReLU(0.2),
        nn.Linear(6, 5, dtype=F64),
        nn.Tanh(),
        nn.Linear(5, 1, dtype=F64),
    )
    return g, c


OPTIONS: dict[str, dict[str, Any]] = {
    "vanilla": {"formulation": Vanilla()},
    "saturating": {"formulation": Vanilla(saturating=True)},
    "wgan, clipping": {"formulation": WGAN(), "projections": [WeightClipping(CLIP)]},
    "wgan, penalty": {"formulation": WGAN(), "penalties": [GradientPenalty(10.0)]},
    "sn-gan, new": {"formulation": Vanilla(), "spectral_norm": True},
    "sn-gan, old": {"formulation": Vanilla(), "spectral_norm": True},
}


class Reference:
    """One GAN by hand.

    Spectral norm: torch moves its vectors at every training-mode forward pass, we at every critic
    gradient. So the reference makes one empty training-mode pass there and computes in eval mode.
    torch's newer parametrization moves u first and v second, ours (Miyato, and torch's older function)
    v first: it is applied to the transposed matrix (dim=1), where its _u is our v.
    """

    def __init__(self, kind: str, g: nn.Module, c: nn.Module, constants: Any, rule: Any) -> None:
        self.kind, self.g, self.c = kind, copy.deepcopy(g), copy.deepcopy(c)
        if kind.startswith("sn-gan"):
            for name, layer in list(self.c.named_modules()):
                if isinstance(layer, nn.Linear):
                    u, v = (constants["critic"][f"spectral_norm/{name}.weight/{k}"] for k in "uv")
                    if kind.endswith("new"):
                        nn.utils.parametrizations.spectral_norm(layer, dim=1)
                        inner: Any = layer.parametrizations.weight[0]
                        inner._u.copy_(v)
                        inner._v.copy_(u)
                    else:
                        nn.utils.spectral_norm(layer)
                        layer.weight_u.copy_(u)
                        layer.weight_v.copy_(v)
            self.c.eval()
        self.clip()
        self.rule_g, self.rule_c = rule(self.g.parameters()), rule(self.c.parameters())

    def clip(self) -> None:
        if "clipping" in self.kind:
            with torch.no_grad():
                for p in self.c.parameters():
                    p.clamp_(-CLIP, CLIP)

    def refresh(self) -> None:
        if self.kind.startswith("sn-gan"):
            self.c.train()
            with torch.no_grad():
                self.c(torch.zeros(1, 2, dtype=F64))
            self.c.eval()

    def losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(generator's, critic's), by definitions other than the library's: binary cross-entropy."""
        fake, real = self.g(batch["latent"]), batch["real"]
        on_real, on_fake = self.c(real)[:, 0], self.c(fake)[:, 0]
        if "wgan" in self.kind:
            critic = on_fake.mean() - on_real.mean()
            generator = -on_fake.mean()
            if "penalty" in self.kind:
                eps = batch["mix"][:, None]
                between = (eps * real + (1 - eps) * fake).detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.c(between).sum(), between, create_graph=True)
                critic = critic + 10 * ((slope.pow(2).sum(1).sqrt() - 1) ** 2).mean()
            return generator, critic
        ones, zeros = torch.ones_like(on_fake), torch.zeros_like(on_fake)
        critic = bce(on_real, ones) + bce(on_fake, zeros)
        return (-bce(on_fake, zeros) if self.kind == "saturating" else bce(on_fake, ones)), critic

    def alternating(self, step: int, k: int) -> dict[str, Any]:
        for j in range(k):
            batch = minibatch(step, j)
            self.refresh()
            self.rule_c.zero_grad()
            loss_c = self.losses({**batch})[1]
            loss_c.backward()
            norm_c = grad_norm(self.c)
            self.rule_c.step()
            self.clip()
        self.rule_g.zero_grad()
        loss_g = self.losses(minibatch(step, k))[0]
        loss_g.backward()
        norm_g = grad_norm(self.g)
        self.rule_g.step()
        return {"loss": (float(loss_g.detach()), float(loss_c.detach())), "norm": (norm_g, norm_c)}

    def simultaneous(self, step: int) -> dict[str, Any]:
        batch = minibatch(step, 0)
        self.refresh()
        self.rule_c.zero_grad()
        loss_c = self.losses(batch)[1]
        loss_c.backward()
        kept = [p.grad.clone() for p in self.c.parameters()]  # type: ignore[union-attr]
        norm_c = grad_norm(self.c)
        self.rule_g.zero_grad()
        loss_g = self.losses(batch)[0]
        loss_g.backward()
        norm_g = grad_norm(self.g)
        for p, g in zip(self.c.parameters(), kept, strict=True):
            p.grad = g
        self.rule_g.step()
        self.rule_c.step()
        self.clip()
        return {"loss": (float(loss_g.detach()), float(loss_c.detach())), "norm": (norm_g, norm_c)}

    def parameters(self) -> dict[str, list[Tensor]]:
        """In the order of the library's players (spectral norm reorders names, so by layer)."""
        out: dict[str, list[Tensor]] = {
            "generator": [p.detach() for p in self.g.parameters()],
            "critic": [],
        }
        for layer in self.c:
            if isinstance(layer, nn.Linear):
                weight = (
                    layer.parametrizations.weight.original
                    if hasattr(layer, "parametrizations")
                    else getattr(layer, "weight_orig", layer.weight)
                )
                out["critic"] += [weight.detach(), layer.bias.detach()]
        return out


def grad_norm(module: nn.Module) -> float:
    return float(torch.cat([p.grad.reshape(-1) for p in module.parameters()]).norm())  # type: ignore[union-attr]


RULES: dict[str, tuple[Any, Any]] = {
    "sgd": (SGD(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (SGD(0.05, 0.6), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.6)),
    "adam": (Adam(1e-2, 0.5, 0.9), lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.5, 0.9))),
    "rmsprop": (RMSProp(1e-3), lambda p: torch.optim.RMSprop(p, lr=1e-3)),
}
PAIRS = [
    ("vanilla", "sgd"),
    ("vanilla", "adam"),
    ("saturating", "momentum"),
    ("wgan, clipping", "rmsprop"),
    ("wgan, clipping", "sgd"),
    ("wgan, penalty", "adam"),
    ("wgan, penalty", "sgd"),
    ("sn-gan, new", "adam"),
    ("sn-gan, old", "adam"),
    ("sn-gan, new", "sgd"),
]


@pytest.mark.parametrize(("kind", "rule"), PAIRS)
@pytest.mark.parametrize(
    "method", [0, 1, 3], ids=["simultaneous", "alternating 1", "alternating 3"]
)
def test_equals_the_loop(kind: str, rule: str, method: int) -> None:
    ours, theirs = RULES[rule]
    g, c = networks()
    game = GAN(g, c, latent=3, **OPTIONS[kind])
    players, constants = game.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = Reference(kind, g, c, constants, theirs)
    start = tree.clone(players)
    solver: Any = Alternating(method, ours) if method else Simultaneous(ours)
    field, state = VectorField(game), solver.init(players)
    for step in range(STEPS):
        draws = Draws(step)
        players, constants, state, info = solver.step(field, players, constants, state, draws)
        expected = reference.alternating(step, method) if method else reference.simultaneous(step)
        assert sorted(set(draws.asked)) == list(range(method + 1 if method else 1))
        for player, values in reference.parameters().items():
            for ours_, theirs_ in zip(players[player].values(), values, strict=True):
                torch.testing.assert_close(ours_, theirs_, rtol=1e-12, atol=1e-12)
        for i, player in enumerate(("generator", "critic")):
            assert float(info["grad_norm"][player]) == pytest.approx(expected["norm"][i], rel=1e-9)
            reported = float(info["loss"][player])
            if player == "generator" and game.formulation.zero_sum:
                continue  # up to terms free of the generator: see the test below
            assert reported == pytest.approx(expected["loss"][i], rel=1e-10)
        assert not any(
            t.requires_grad
            for t in [*tree.leaves(info), *tree.leaves(players), *tree.leaves(state)]
        )
    for player in players:
        assert tree.norm(tree.axpy(-1.0, start[player], players[player])) > 1e-3, "nothing moved"
    if "clipping" in kind:
        assert max(float(p.abs().max()) for p in players["critic"].values()) == CLIP


@pytest.mark.parametrize("k", [1, 2, 4])
def test_where_alternatings_losses_are_taken(k: int) -> None:
    """Critic: at inner step k-1 before that update; generator: before its update, against the new critic."""
    g, c = networks()
    game = GAN(g, c, Vanilla(), latent=3)
    players, constants = game.init()
    at = [tree.clone(players)]
    field, solver = VectorField(game), Alternating(k, SGD(0.3))
    for j in range(k):
        v = field(at[-1], constants, minibatch(0, j), only="critic").v
        at.append({**at[-1], "critic": tree.axpy(-0.3, v["critic"], at[-1]["critic"])})
    info = solver.step(field, players, constants, solver.init(players), Draws(0)).info
    critic = game.losses(at[k - 1], constants, minibatch(0, k - 1))["critic"]
    generator = game.losses(at[k], constants, minibatch(0, k))["generator"]
    torch.testing.assert_close(info["loss"]["critic"], critic, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(info["loss"]["generator"], generator, rtol=1e-12, atol=1e-13)
    other = game.losses(at[k], constants, minibatch(0, k - 1))["critic"]
    assert abs(float(critic - other)) > 1e-4


def test_simultaneous_losses_are_those_before_the_step() -> None:
    g, c = networks()
    game = GAN(g, c, WGAN(), latent=3)
    players, constants = game.init()
    expected = game.losses(players, constants, minibatch(0, 0))
    info = (
        Simultaneous(SGD(0.3))
        .step(VectorField(game), players, constants, {"generator": {}, "critic": {}}, Draws(0))
        .info
    )
    for player in game.players:
        torch.testing.assert_close(info["loss"][player], expected[player], rtol=1e-13, atol=1e-14)


def test_rules_by_player() -> None:
    g, c = networks()
    game = GAN(g, c, Vanilla(), latent=3)
    for solver in (
        Simultaneous(SGD(0.0), {"critic": SGD(0.1)}),
        Alternating(2, SGD(0.1), {"generator": SGD(0.0)}),
    ):
        players, constants = game.init()
        before = tree.clone(players)
        after = solver.step(
            VectorField(game), players, constants, solver.init(players), Draws(0)
        ).players
        assert tree.norm(tree.axpy(-1.0, before["generator"], after["generator"])) == 0
        assert tree.norm(tree.axpy(-1.0, before["critic"], after["critic"])) > 1e-4


def test_constants_that_are_given_are_not_overwritten() -> None:
    g, c = networks()
    game = GAN(g, c, Vanilla(), latent=3, spectral_norm=True)
    for solver in (Simultaneous(SGD(0.1)), Alternating(2, SGD(0.1))):
        players, constants = game.init()
        kept = tree.clone(constants)
        step = solver.step(VectorField(game), players, constants, solver.init(players), Draws(0))
        step = solver.step(VectorField(game), step.players, step.constants, step.state, Draws(1))
        assert all(
            torch.equal(a, b)
            for a, b in zip(tree.leaves(constants), tree.leaves(kept), strict=True)
        )
        assert not torch.equal(tree.flatten(step.constants["critic"]), tree.flatten(kept["critic"]))


@pytest.mark.parametrize("k", [0, -1])
def test_critic_steps_are_checked(k: int) -> None:
    with pytest.raises(ValueError, match=r"Alternating\.critic_steps") as caught:
        Alternating(k)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "solver",
    [
        Simultaneous(optimizers={"discriminator": SGD(1.0)}),
        Alternating(optimizers={"discriminator": SGD(1.0)}),
    ],
)
def test_rules_of_unknown_players_are_refused(solver: Any) -> None:
    g, c = networks()
    with pytest.raises(Exception, match="discriminator"):
        solver.init(GAN(g, c, Vanilla(), latent=3).init().players)
