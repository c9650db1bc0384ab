"""Faults of wiring: which optimiser steps when, and what is still in .grad by then."""

from __future__ import annotations

import torch

from equilibrist.diagnosis import Loop
from equilibrist.zoo._case import fault
from equilibrist.zoo._kits import Kit, parameters_of_both


@fault("never-stepped", "ring conv-spectral features")
def critic_loss_only_logged(kit: Kit, faulty: bool) -> Loop:
    """The critic's loss is computed and logged; backward and step were never written."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> dict[str, float]:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_g.zero_grad()
        loss_g = kit.loss_g(D(fake, *y))
        loss_g.backward()
        opt_g.step()
        loss_d = kit.loss_d(D(x, *y), D(fake.detach(), *y))
        if not faulty:  # fault: neither backward nor step
            opt_d.zero_grad()
            loss_d.backward()
            opt_d.step()
        return {"loss_d": loss_d.item(), "loss_g": loss_g.item()}

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("never-stepped", "digits labels table")
def critic_step_forgotten(kit: Kit, faulty: bool) -> Loop:
    """zero_grad and backward are there, the critic's step is missing."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        z = kit.noise()

        opt_d.zero_grad(set_to_none=False)
        with torch.no_grad():
            fake = G(z, *y)
        kit.loss_d(D(x, *y), D(fake, *y)).backward()
        if not faulty:  # fault: opt_d.step() is missing
            opt_d.step()

        opt_g.zero_grad(set_to_none=False)
        kit.loss_g(D(G(z, *y), *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("never-stepped", "gait patch")
def generator_waits_for_ever(kit: Kit, faulty: bool) -> Loop:
    """The generator steps every third critic step; the count starts anew in each round and never gets there."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        count = i
        if faulty:  # fault: the count is the round's own
            count = 0
        x, *y = kit.draw()
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(G(kit.noise(), *y).detach(), *y)).backward()
        opt_d.step()
        if (count + 1) % 3 == 0:
            opt_g.zero_grad()
            kit.loss_g(D(G(kit.noise(), *y), *y)).backward()
            opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("wrong-optimizer", "ring conv labels")
def critic_loss_generator_step(kit: Kit, faulty: bool) -> Loop:
    """After the critic's backward pass the generator's optimiser is stepped: copied, and not renamed."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        optimizer = opt_d
        if faulty:  # fault: opt_g.step() in place of opt_d.step()
            optimizer = opt_g
        optimizer.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("wrong-optimizer", "digits gait scales")
def generator_loss_critic_step(kit: Kit, faulty: bool) -> Loop:
    """The generator's half of the round ends with the critic's optimiser."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)

        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()

        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        optimizer = opt_g
        if faulty:  # fault: opt_d.step() in place of opt_g.step()
            optimizer = opt_d
        optimizer.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("stepped-twice", "ring conv-spectral sigmoid")
def scaler_and_optimizer_step(kit: Kit, faulty: bool) -> Loop:
    """scaler.step(optimizer) has stepped already when optimizer.step() is called."""
    G, D, opt_g, opt_d = kit.players()
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        scaler.scale(kit.loss_d(D(x, *y), D(fake.detach(), *y))).backward()
        scaler.step(opt_d)
        if faulty:  # fault: a second step with the same gradient
            opt_d.step()
        opt_g.zero_grad()
        scaler.scale(kit.loss_g(D(fake, *y))).backward()
        scaler.step(opt_g)
        scaler.update()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("stepped-twice", "digits table patch")
def update_and_step(kit: Kit, faulty: bool) -> Loop:
    """A helper zeroes, differentiates and steps; the caller steps the generator once more."""
    G, D, opt_g, opt_d = kit.players()

    def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def step(i: int) -> None:
        x, *y = kit.draw()
        update(opt_d, kit.loss_d(D(x, *y), D(G(kit.noise(), *y).detach(), *y)))
        update(opt_g, kit.loss_g(D(G(kit.noise(), *y), *y)))
        if faulty:  # fault: update() has stepped
            opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("stale-gradients", "digits gait features")
def generator_never_zeroed(kit: Kit, faulty: bool) -> Loop:
    """Nothing clears the generator's gradients: each step is made with the sum of all so far."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()
        if not faulty:  # fault: opt_g.zero_grad() is missing
            opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("stale-gradients", "ring labels conv")
def critic_zeroed_once(kit: Kit, faulty: bool) -> Loop:
    """The critic is frozen while the generator learns, so that only its own old gradients pile up."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        if (
            i == 0 or not faulty
        ):  # fault: the critic's gradients are cleared before the first round only
            opt_d.zero_grad()
        D.requires_grad_(True)
        kit.loss_d(D(x, *y), D(G(kit.noise(), *y).detach(), *y)).backward()
        opt_d.step()
        D.requires_grad_(False)
        opt_g.zero_grad()
        kit.loss_g(D(G(kit.noise(), *y), *y)).backward()
        opt_g.step()
        D.requires_grad_(True)

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("gradient-leak", "ring patch labels")
def zero_grad_after_the_step(kit: Kit, faulty: bool) -> Loop:
    """The critic's gradients are cleared after its step: the generator's pass has filled them by then."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()
        if not faulty:  # fault: cleared below, after the step
            opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()
        opt_d.zero_grad()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("gradient-leak", "digits conv-spectral table")
def fake_not_detached(kit: Kit, faulty: bool) -> Loop:
    """Both are cleared at the top of the round, and the critic's loss reaches the generator through its samples."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_g.zero_grad()
        opt_d.zero_grad()
        shown = fake.detach()
        if faulty:  # fault: not detached
            shown = fake
        kit.loss_d(D(x, *y), D(shown, *y)).backward(retain_graph=True)
        opt_d.step()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("gradient-leak", "gait features")
def cleared_every_accumulation(kit: Kit, faulty: bool) -> Loop:
    """Two minibatches are accumulated; the critic's gradients hold the generator's passes as well."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        opt_d.zero_grad()
        opt_g.zero_grad()
        for _ in range(2):
            x, *y = kit.draw()
            fake = G(kit.noise(), *y)
            D.requires_grad_(faulty)  # fault: the critic is not frozen here
            (kit.loss_g(D(fake, *y)) / 2).backward()
            D.requires_grad_(True)
            (kit.loss_d(D(x, *y), D(fake.detach(), *y)) / 2).backward()
        opt_g.step()
        opt_d.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("shared-optimizer", "ring conv-spectral labels")
def one_adam_for_both(kit: Kit, faulty: bool) -> Loop:
    """Both optimisers are made of the parameters of both: each step moves the other player, too."""
    G, D, opt_g, opt_d = kit.players()
    if faulty:  # fault: opt_g and opt_d are one, and hold both players
        opt_g = opt_d = kit.optimizer(parameters_of_both(G, D))

    def step(i: int) -> None:
        x, *y = kit.draw()
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(G(kit.noise(), *y).detach(), *y)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(G(kit.noise(), *y), *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g] if opt_g is opt_d else [opt_g, opt_d])


@fault("shared-optimizer", "digits table scales")
def critic_in_both_optimizers(kit: Kit, faulty: bool) -> Loop:
    """The generator's optimiser was handed a model that contains the critic."""
    G, D, opt_g, opt_d = kit.players()
    if faulty:  # fault: model.parameters(), where model holds the critic as well
        opt_g = kit.optimizer(torch.nn.ModuleDict({"G": G, "D": D}).parameters())

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
