"""Healthy loops of usual practice: how rounds are arranged, and what is stepped when."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from equilibrist.diagnosis import Loop
from equilibrist.zoo._case import healthy
from equilibrist.zoo._kits import Kit


@healthy("ring digits labels features")
def critic_first(kit: Kit) -> Loop:
    """One generated batch serves both players; the critic steps first."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("table sigmoid")
def generator_first(kit: Kit) -> Loop:
    """The generator steps first; what its pass left in the critic is cleared before the critic's."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("gait digits")
def simultaneous(kit: Kit) -> Loop:
    """Both gradients are taken at the same weights, then both step."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        D.requires_grad_(False)
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        D.requires_grad_(True)
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_g.step()
        opt_d.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("digits conv")
def joint_pass(kit: Kit) -> Loop:
    """The critic sees real and generated samples in one batch."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        real_score, fake_score = D(torch.cat([x, fake.detach()])).chunk(2)
        kit.loss_d(real_score, fake_score).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("ring features")
def several_critic_steps(kit: Kit) -> Loop:
    """Three steps of the critic for one of the generator, whose samples are made under no_grad."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        for _ in range(3):
            x, *y = kit.draw()
            with torch.no_grad():
                fake = G(kit.noise(), *y)
            opt_d.zero_grad()
            kit.loss_d(D(x, *y), D(fake, *y)).backward()
            opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(G(kit.noise(), *y), *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("digits labels")
def several_generator_steps(kit: Kit) -> Loop:
    """Two steps of the generator for one of the critic."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(G(kit.noise(), *y).detach(), *y)).backward()
        opt_d.step()
        for _ in range(2):
            opt_g.zero_grad()
            kit.loss_g(D(G(kit.noise(), *y), *y)).backward()
            opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("sigmoid features")
def frozen_critic(kit: Kit) -> Loop:
    """The critic does not ask for gradients during the generator's step."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        for p in D.parameters():
            p.requires_grad = False
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()
        for p in D.parameters():
            p.requires_grad = True
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("table gait")
def critic_every_other_round(kit: Kit) -> Loop:
    """The critic rests in every other round."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        if i % 2 == 0:
            opt_d.zero_grad()
            kit.loss_d(D(x, *y), D(G(kit.noise(), *y).detach(), *y)).backward()
            opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(G(kit.noise(), *y), *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("ring digits")
def accumulation(kit: Kit) -> Loop:
    """Gradients of four minibatches are averaged before each step."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        opt_d.zero_grad()
        for _ in range(4):
            x, *y = kit.draw()
            loss = kit.loss_d(D(x, *y), D(G(kit.noise(), *y).detach(), *y))
            (loss / 4).backward()
        opt_d.step()
        opt_g.zero_grad()
        for _ in range(4):
            (kit.loss_g(D(G(kit.noise(), *y), *y)) / 4).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("digits table")
def losses_through_functions(kit: Kit) -> Loop:
    """Gradients are asked for by torch.autograd.grad and written into .grad."""
    G, D, opt_g, opt_d = kit.players()

    def update(module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        weights = list(module.parameters())
        for p, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            p.grad = gradient
        optimizer.step()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        update(D, opt_d, kit.loss_d(D(x, *y), D(fake.detach(), *y)))
        update(G, opt_g, kit.loss_g(D(fake, *y)))

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("ring digits")
def flipped_labels(kit: Kit) -> Loop:
    """Generated samples are called 1 and real ones 0, by both players alike."""
    G, D, opt_g, opt_d = kit.players()
    bce = nn.BCEWithLogitsLoss()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        on_real, on_fake = D(x), D(fake.detach())
        opt_d.zero_grad()
        loss = bce(on_real, torch.zeros_like(on_real)) + bce(on_fake, torch.ones_like(on_fake))
        loss.backward()
        opt_d.step()
        opt_g.zero_grad()
        on_fake = D(fake)
        bce(on_fake, torch.zeros_like(on_fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss=flipped)


def flipped(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    """The game with labels the other way round: what both players minimise."""
    real, fake = modules.critic(x), modules.critic(modules.generator(z))
    return {
        "critic": nn.functional.softplus(real).mean() + nn.functional.softplus(-fake).mean(),
        "generator": nn.functional.softplus(fake).mean(),
    }
