"""Faults of wiring: signs, labels, penalties, and terms that do not count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from equilibrist.diagnosis import Loop
from equilibrist.formulations import LeastSquares, Vanilla
from equilibrist.penalties import R1, GradientPenalty
from equilibrist.zoo._case import fault
from equilibrist.zoo._kits import Kit


def slopes_at(D: nn.Module, x: Tensor, *y: Tensor, graph: bool = True) -> Tensor:
    """The gradient of the critic's scores with respect to its samples, [B, ...]."""
    x = x.detach().requires_grad_(True)
    score = D(x, *y)
    return torch.autograd.grad(score.sum(), x, create_graph=graph)[0]


def between(x: Tensor, fake: Tensor) -> Tensor:
    """A point between each real sample and a generated one."""
    mix = torch.rand(len(x), *[1] * (x.ndim - 1))
    return mix * x + (1 - mix) * fake.detach()


# -- missing-term --------------------------------------------------------------------------------


@fault("constant-penalty", "ring labels conv")
def penalty_not_added(kit: Kit, faulty: bool) -> Loop:
    """R1 is computed and logged; what backward is called on does not hold it."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> dict[str, float]:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        loss_d = kit.loss_d(D(x, *y), D(fake.detach(), *y))
        r1 = 0.5 * slopes_at(D, x, *y).square().flatten(1).sum(1).mean()
        if not faulty:  # fault: loss_d + r1 is logged alone
            loss_d = loss_d + r1
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()
        return {"loss_d": loss_d.item(), "r1": r1.item()}

    return kit.loop(step, G, D, [opt_g, opt_d], penalties=(R1(1.0),))


LIGHT = 0.02  # at 0.1 the autoencoder of digits errs 12 to 33% more than without a critic: that is a fault of its own


def auto_encoding(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    """The game of an autoencoder (it is given x as z) with an L1 term and a critic."""
    fake = modules.generator(z)
    real_score, fake_score = modules.critic(x), modules.critic(fake)
    return {
        "critic": softplus(-real_score).mean() + softplus(fake_score).mean(),
        "generator": LIGHT * softplus(-fake_score).mean() + (fake - x).abs().mean(),
    }


@fault("missing-term", "digits table")
def reconstruction_under_no_grad(kit: Kit, faulty: bool) -> Loop:
    """An autoencoder's L1 term is computed under no_grad, as a metric would be."""
    entries = kit.train.shape[1]
    G = nn.Sequential(nn.Linear(entries, 64), nn.ReLU(), nn.Linear(64, 4))
    G.extend([nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, entries)])
    D = kit.critic()
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(x)
        opt_g.zero_grad()
        with torch.set_grad_enabled(not faulty):  # fault: no_grad
            error = (fake - x).abs().mean()
        (LIGHT * softplus(-D(fake)).mean() + error).backward()
        opt_g.step()
        opt_d.zero_grad()
        (softplus(-D(x)).mean() + softplus(D(fake.detach())).mean()).backward()
        opt_d.step()

    return kit.loop(
        step, G, D, [opt_g, opt_d], loss=auto_encoding, sample=lambda n: G(kit.held[:n]).detach()
    )


def feature_matching(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    """A non-saturating game whose generator also matches the mean of the critic's features."""
    (on_real, real), (on_fake, fake) = modules.critic(x), modules.critic(modules.generator(z))
    return {
        "critic": softplus(-on_real).mean() + softplus(on_fake).mean(),
        "generator": softplus(-on_fake).mean()
        + (real.detach().mean(0) - fake.mean(0)).abs().mean(),
    }


@fault("missing-term", "features")
def features_detached(kit: Kit, faulty: bool) -> Loop:
    """The feature-matching term compares features that are both detached."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        _, real_features = D(x)
        score, features = D(fake)
        if faulty:  # fault: the generated features are detached as well
            features = features.detach()
        matching = (real_features.detach().mean(0) - features.mean(0)).abs().mean()
        opt_g.zero_grad()
        (softplus(-score).mean() + matching).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss=feature_matching)


# -- wrong-sign ----------------------------------------------------------------------------------


@fault("wrong-sign", "ring digits table")
def real_term_negative(kit: Kit, faulty: bool) -> Loop:
    """The critic's real term enters with the opposite sign."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        loss_g = softplus(-D(fake)).mean()
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        on_real = softplus(-D(x)).mean()
        on_fake = softplus(D(fake.detach())).mean()
        loss_d = on_fake + on_real
        if faulty:  # fault: minus
            loss_d = on_fake - on_real
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("wrong-sign", "conv sigmoid patch")
def generator_told_fake(kit: Kit, faulty: bool) -> Loop:
    """The generator's target is the label of generated samples: it learns to be found out."""
    G, D, opt_g, opt_d = kit.players()
    losses: dict[object, nn.Module] = {
        Vanilla(): nn.BCEWithLogitsLoss(),
        Vanilla(probabilities=True): nn.BCELoss(),
        LeastSquares(1, 0, 1): nn.MSELoss(),
    }
    criterion = losses[kit.losses.declared]

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        on_real, on_fake = D(x), D(fake.detach())
        ones, zeros = torch.ones_like(on_real), torch.zeros_like(on_real)
        opt_d.zero_grad()
        (criterion(on_real, ones) + criterion(on_fake, zeros)).backward()
        opt_d.step()
        target = ones
        if faulty:  # fault: zeros
            target = zeros
        opt_g.zero_grad()
        criterion(D(fake), target).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("wrong-sign", "conv-spectral scales labels")
def hinge_generator_sign(kit: Kit, faulty: bool) -> Loop:
    """The generator of a hinge game minimises its score, where it should raise it."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()
        loss_g = kit.loss_g(D(fake, *y))
        if faulty:  # fault: mean(D(fake)), without the minus
            loss_g = -loss_g
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


# -- constant-penalty ----------------------------------------------------------------------------


@fault("constant-penalty", "wgan")
def no_create_graph(kit: Kit, faulty: bool) -> Loop:
    """WGAN with a gradient penalty whose inner gradient was computed without create_graph."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        for _ in range(2):
            (x,) = kit.draw()
            fake = G(kit.noise()).detach()
            slope = slopes_at(D, between(x, fake), graph=not faulty)  # fault: create_graph=False
            penalty = 10 * (slope.norm(dim=1) - 1).square().mean()
            opt_d.zero_grad()
            (D(fake).mean() - D(x).mean() + penalty).backward()
            opt_d.step()
        opt_g.zero_grad()
        (-D(G(kit.noise())).mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], penalties=(GradientPenalty(10.0),))


@fault("constant-penalty", "ring conv features")
def penalty_detached(kit: Kit, faulty: bool) -> Loop:
    """R1 was detached, because its graph took memory."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        x.requires_grad_(True)
        on_real = D(x)
        logits = on_real[0] if isinstance(on_real, tuple) else on_real
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        r1 = gradient.square().flatten(1).sum(1).mean()
        if faulty:  # fault: a number that nothing can lower
            r1 = r1.detach()
        opt_d.zero_grad()
        (kit.loss_d(on_real, D(fake.detach())) + 0.5 * r1).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], penalties=(R1(1.0),))


@fault("constant-penalty", "table gait")
def penalty_as_a_number(kit: Kit, faulty: bool) -> Loop:
    """The penalty went through item() on its way into the loss."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        excess = (slopes_at(D, between(x, fake)).norm(dim=1) - 1).square().mean()
        penalty: Tensor | float = excess
        if faulty:  # fault: item()
            penalty = excess.item()
        opt_d.zero_grad()
        (kit.loss_d(D(x), D(fake.detach())) + penalty).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], penalties=(GradientPenalty(1.0),))


# -- penalty-norm --------------------------------------------------------------------------------


@fault("penalty-norm", "wgan ring table", rounds=300)
def one_norm_for_the_batch(kit: Kit, faulty: bool) -> Loop:
    """The penalty takes one norm over the whole batch."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        for _ in range(2):
            (x,) = kit.draw()
            fake = G(kit.noise()).detach()
            slope = slopes_at(D, between(x, fake))
            norm = slope.norm(dim=1)
            if faulty:  # fault: no dim
                norm = slope.norm()
            opt_d.zero_grad()
            (D(fake).mean() - D(x).mean() + 10 * (norm - 1).square().mean()).backward()
            opt_d.step()
        opt_g.zero_grad()
        (-D(G(kit.noise())).mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss="wgan", penalties=(GradientPenalty(10.0),))


@fault("penalty-norm", "conv", rounds=300)
def norm_over_channels(kit: Kit, faulty: bool) -> Loop:
    """Images are not flattened: norm(2, dim=1) is taken over their one channel."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        for _ in range(2):
            (x,) = kit.draw()
            fake = G(kit.noise()).detach()
            slope = slopes_at(D, between(x, fake))
            if not faulty:  # fault: not flattened
                slope = slope.flatten(1)
            opt_d.zero_grad()
            penalty = 10 * (slope.norm(2, dim=1) - 1).square().mean()
            (D(fake).mean() - D(x).mean() + penalty).backward()
            opt_d.step()
        opt_g.zero_grad()
        (-D(G(kit.noise())).mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss="wgan", penalties=(GradientPenalty(10.0),))


@fault("penalty-norm", "wgan digits", rounds=300)
def norm_over_rows(kit: Kit, faulty: bool) -> Loop:
    """The slopes are shaped as images, and the norm goes over their rows alone."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        for _ in range(2):
            (x,) = kit.draw()
            fake = G(kit.noise()).detach()
            slope = slopes_at(D, between(x, fake))
            if faulty:  # fault: [B, 8, 8] has another dim=1
                slope = slope.view(-1, 8, 8)
            opt_d.zero_grad()
            penalty = 10 * (slope.norm(dim=1) - 1).square().mean()
            (D(fake).mean() - D(x).mean() + penalty).backward()
            opt_d.step()
        opt_g.zero_grad()
        (-D(G(kit.noise())).mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss="wgan", penalties=(GradientPenalty(10.0),))
