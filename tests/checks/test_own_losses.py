"""The same pair as a `GAN` and with its losses written by hand: the same certificates, to rounding.

Searches that are not asked for by default amplify rounding over hundreds of steps: of them one is held to equality, on
a pair whose losses are written in the GAN's own order of operations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import equilibrist as eq
from equilibrist import GAN, AdversarialGame, GradientPenalty
from equilibrist.auxiliary import Term
from equilibrist.checks import CHECKS, Settings, audit_game
from equilibrist.data import source_of
from equilibrist.games import Uniform
from equilibrist.penalties import R1

LABELS = 3
X = torch.randn(480, 2, generator=torch.Generator().manual_seed(5)).double()
Y = torch.arange(480) % LABELS
SETTINGS = Settings(
    steps=12,
    batch=16,
    batches=6,
    look_batches=4,
    starts=1,
    inner_steps=6,
    prox_steps=4,
    prox_starts=1,
)


def net(*sizes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


class Conditional(nn.Module):
    def __init__(self, first: int, out: int, seed: int) -> None:
        super().__init__()
        self.net = net(first + LABELS, 5, out, seed=seed)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat([x, F.one_hot(y, LABELS).to(x)], 1))


class Featured(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.body, self.head = net(2, 5, seed=seed), net(5, 1, seed=seed + 1)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def vanilla() -> tuple[GAN, AdversarialGame, Any]:
    g, d = net(2, 5, 2), net(2, 5, 1, seed=1)

    def losses(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            held = modules.generator(z)
        on_real, on_fake = modules.critic(torch.cat([x, held])).split(len(x))
        critic = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        return {
            "critic": critic,
            "generator": F.softplus(-modules.critic(modules.generator(z))).mean(),
        }

    own = AdversarialGame(
        {"generator": g, "critic": d},
        losses,
        X,
        latent=2,
        samples=plain,
        score=scored,
        formulation="vanilla",
    )
    return GAN(g, d, "vanilla", latent=2), own, X


def plain(modules: Any, x: Tensor, z: Any) -> tuple[Tensor, Tensor]:
    return x, modules.generator(z["z"] if isinstance(z, dict) else z)


def scored(modules: Any, x: Tensor) -> Tensor:
    return modules.critic(x)


def wgan_gp() -> tuple[GAN, AdversarialGame, Any]:
    g, d = net(2, 5, 2), net(2, 5, 1, seed=1)

    def losses(modules: Any, x: Tensor, z: dict[str, Tensor]) -> dict[str, Tensor]:
        fake = modules.generator(z["z"])
        held = fake.detach()
        between = torch.lerp(held, x, z["mix"][:, None]).requires_grad_(True)
        (slope,) = torch.autograd.grad(modules.critic(between).sum(), between, create_graph=True)
        penalty = 10 * (slope.square().sum(1).sqrt() - 1).square().mean()
        on_real, on_fake = modules.critic(torch.cat([x, held])).split(len(x))
        critic = on_fake.mean() - on_real.mean()
        return {
            "critic": critic + penalty,
            "generator": on_real.mean() - modules.critic(fake).mean(),
        }

    own = AdversarialGame(
        {"generator": g, "critic": d},
        losses,
        X,
        latent={"z": 2, "mix": Uniform()},
        samples=plain,
        score=scored,
        formulation="wgan",
    )
    return GAN(g, d, "wgan", latent=2, penalties=[GradientPenalty(10.0)]), own, X


def hinge_r1() -> tuple[GAN, AdversarialGame, Any]:
    g, d = net(2, 5, 2), net(2, 5, 1, seed=1)

    def losses(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        fake = modules.netG(z)
        for p in modules.netD.parameters():
            p.requires_grad_(False)
        mine = -modules.netD(fake).mean()
        for p in modules.netD.parameters():
            p.requires_grad_(True)
        at = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(modules.netD(at).sum(), at, create_graph=True)
        theirs = F.relu(1 - modules.netD(x)).mean() + F.relu(1 + modules.netD(fake.data)).mean()
        return {"netD": theirs + 0.5 * (slope**2).sum(1).mean(), "netG": mine}

    own = AdversarialGame(
        {"netD": d, "netG": g},
        losses,
        X,
        latent=2,
        samples=lambda modules, x, z: (x, modules.netG(z)),
        score=lambda modules, x: modules.netD(x),
        formulation="hinge",
    )
    return GAN(g, d, "hinge", latent=2, penalties=[R1(1.0)]), own, X


def conditional() -> tuple[GAN, AdversarialGame, Any]:
    g, d = Conditional(2, 2, 0), Conditional(2, 1, 1)

    def losses(modules: Any, batch: tuple[Tensor, Tensor], z: Tensor) -> dict[str, Tensor]:
        x, y = batch
        fake = modules["generator"](z, y)
        on_fake = modules["critic"](fake.detach(), y)
        critic = ((modules["critic"](x, y) - 1) ** 2).mean() / 2 + ((on_fake + 1) ** 2).mean() / 2
        return {"critic": critic, "generator": (modules["critic"](fake, y) ** 2).mean() / 2}

    own = AdversarialGame(
        {"generator": g, "critic": d},
        losses,
        (X, Y),
        latent=2,
        samples=lambda modules, batch, z: (batch[0], modules.generator(z, batch[1])),
        score=lambda modules, x, batch: modules.critic(x, batch[1]),
        formulation="least-squares",
    )
    return GAN(g, d, "least-squares", latent=2, condition=LABELS), own, (X, Y)


def two_critics_and_features() -> tuple[GAN, AdversarialGame, Any]:
    g, ds = net(2, 5, 2), [Featured(1), Featured(3)]

    def matched(critic: Any, fake: Tensor, draw: Any) -> Tensor:
        """Feature matching against the critic number `head` of a `CriticEnsemble`."""
        module = critic.module
        with module.held(critic.params, critic.buffers):
            one = module.module.critics[critic.head]
            return (one.features(fake).mean(0) - one.features(draw["real"]).mean(0)).square().sum()

    def losses(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        fake, n = modules.generator(z), len(modules.critic)
        found: dict[str, Any] = {"generator": 0.0, "critic": 0.0}
        for one in modules.critic:
            on_real, on_fake = one(x), one(fake.detach())
            found["critic"] += (F.softplus(-on_real).mean() + F.softplus(on_fake).mean()) / n
            apart = one.features(fake).mean(0) - one.features(x).detach().mean(0)
            found["generator"] += (F.softplus(-one(fake)).mean() + 0.3 * apart.square().sum()) / n
        return found

    own = AdversarialGame(
        {"generator": g, "critic": ds},
        losses,
        X,
        latent=2,
        samples=plain,
        score=lambda modules, x: torch.stack([one(x) for one in modules.critic]).mean(0),
        formulation="vanilla",
    )
    terms = [Term("generator", matched, 0.3, "features")]
    return GAN(g, ds, "vanilla", latent=2, auxiliary=terms), own, X


PAIRS: dict[str, Callable[[], tuple[GAN, AdversarialGame, Any]]] = {
    f.__name__: f for f in (vanilla, wgan_gp, hinge_r1, conditional, two_critics_and_features)
}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from leaves(part, f"{path}/{i}")
    else:
        yield path, value


def near(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b) or math.isclose(a, b, rel_tol=1e-11, abs_tol=1e-12)
    return bool(a == b)


@pytest.mark.parametrize("name", PAIRS)
def test_every_certificate_is_that_of_the_gan(name: str) -> None:
    gan, own, data = PAIRS[name]()
    asked = ("self-tests", *CHECKS, *(("gaps",) if name == "vanilla" else ()))
    a, b = (
        audit_game(game, *game.init(), source, SETTINGS, checks=asked, progress="none")
        for game, source in ((gan, source_of(data)), (own, own.data))
    )
    assert a["self-tests"].verdict == "VERIFIED", a["self-tests"].summary
    assert list(a) == list(b)
    for claim in a:
        if gan.heads > 1 and claim == "proximal":  # of one score alone, which the mean of two is
            continue
        assert a[claim].verdict == b[claim].verdict, (claim, a[claim].summary, b[claim].summary)
        assert a[claim].summary == b[claim].summary
        if claim == "self-tests":
            continue  # rounding of finite differences
        mine, theirs = dict(leaves(a[claim].evidence)), dict(leaves(b[claim].evidence))
        assert mine.keys() == theirs.keys(), claim
        for key, value in mine.items():
            assert near(value, theirs[key]), (claim, key, value, theirs[key])


def test_an_audit_within_inference_mode_differentiates_all_the_same() -> None:
    players = {"generator": net(2, 3, 2), "critic": net(2, 3, 1, seed=1)}

    def losses(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        real, fake = (scored(modules, made) for made in plain(modules, x, z))
        on_both = F.softplus(-real).mean() + F.softplus(fake).mean()
        return {"critic": on_both, "generator": F.softplus(-fake).mean()}

    made = AdversarialGame(players, losses, X, latent=2)
    asked: Any = {"gradients": 150, "checks": ("stationary",), "progress": "none"}
    alone = eq.audit(made, **asked)
    with torch.inference_mode():
        within = eq.audit(made, **asked)
    for claim in ("stationary/generator", "stationary/critic"):
        assert within[claim].evidence["residual"] == alone[claim].evidence["residual"] > 0
