"""Faults of wiring: scales, clipping, learning rates, wrappers, and losses that are not the declared ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, StepLR

from equilibrist.diagnosis import Loop
from equilibrist.formulations import Hinge, LeastSquares, Vanilla
from equilibrist.zoo._case import fault
from equilibrist.zoo._kits import Kit, hinge_critic
from equilibrist.zoo._ranks import wrapped

# -- loss-scale ----------------------------------------------------------------------------------


@fault("loss-scale", "digits conv labels")
def scaled_and_stepped_without(kit: Kit, faulty: bool) -> Loop:
    """The loss goes through the scaler, the step does not."""
    G, D, opt_g, opt_d = kit.players()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        scaler.scale(kit.loss_d(D(x, *y), D(fake.detach(), *y))).backward()
        if faulty:  # fault: opt_d.step() in place of scaler.step(opt_d)
            opt_d.step()
        else:
            scaler.step(opt_d)
        opt_g.zero_grad()
        scaler.scale(kit.loss_g(D(fake, *y))).backward()
        scaler.step(opt_g)
        scaler.update()

    return kit.loop(step, G, D, [opt_g, opt_d], {"scaler": scaler})


@fault("loss-scale", "ring table gait")
def scaled_by_hand(kit: Kit, faulty: bool) -> Loop:
    """Losses are multiplied by 4096 for half precision; nobody divides the gradients before the step."""
    G, D, opt_g, opt_d = kit.players()
    scale = 4096.0

    def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        (loss * scale).backward()
        for group in optimizer.param_groups:
            for p in group["params"]:
                if not faulty:  # fault: p.grad is never divided by the scale
                    p.grad /= scale
        optimizer.step()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        update(opt_d, kit.loss_d(D(x), D(fake.detach())))
        update(opt_g, kit.loss_g(D(fake)))

    return kit.loop(step, G, D, [opt_g, opt_d])


# -- clipping ------------------------------------------------------------------------------------


@fault("clipping", "digits conv-spectral labels")
def clipped_before_backward(kit: Kit, faulty: bool) -> Loop:
    """The norm is clipped when there is nothing in .grad yet."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        loss_d = kit.loss_d(D(x, *y), D(fake.detach(), *y))
        if faulty:  # fault: before backward
            clip_grad_norm_(D.parameters(), 0.05)
            loss_d.backward()
        else:
            loss_d.backward()
            clip_grad_norm_(D.parameters(), 0.05)
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("clipping", "ring table patch")
def clipped_after_the_step(kit: Kit, faulty: bool) -> Loop:
    """Values are clipped after the optimiser has used them."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        opt_d.zero_grad()
        kit.loss_d(D(x), D(G(kit.noise()).detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(G(kit.noise()))).backward()
        if not faulty:  # fault: after opt_g.step()
            clip_grad_value_(G.parameters(), 1e-3)
        opt_g.step()
        if faulty:
            clip_grad_value_(G.parameters(), 1e-3)

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("clipping", "gait features")
def other_player_clipped(kit: Kit, faulty: bool) -> Loop:
    """The generator's gradients are clipped before the critic's step."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        clipped = D
        if faulty:  # fault: the other player's parameters
            clipped = G
        clip_grad_norm_(clipped.parameters(), 0.05)
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


# -- rate-rewritten ------------------------------------------------------------------------------


@fault("rate-rewritten", "gait table")
def rule_writes_every_group(kit: Kit, faulty: bool) -> Loop:
    """A rule that keeps the generator's steps at a given size sets the rate of every group of one Adam.

    The gradients are those that each player would get by itself; the critic's rate goes wherever the rule goes.
    """
    G, D = kit.generator(), kit.critic()
    optimizer = torch.optim.Adam([{"params": list(G.parameters())}], lr=1e-3)
    optimizer.add_param_group({"params": list(D.parameters())})
    rate = 1e-3

    def step(i: int) -> None:
        nonlocal rate
        (x,) = kit.draw()
        fake = G(kit.noise())
        before = fake.detach()
        D.requires_grad_(False)
        loss_g = kit.loss_g(D(fake))
        D.requires_grad_(True)
        optimizer.zero_grad()
        (loss_g + kit.loss_d(D(x), D(before))).backward()
        optimizer.step()
        moved = float((G(kit.noise()).detach().std() - before.std()).abs())
        rate = max(rate / 1.5, 1e-6) if moved > 1e-3 else min(rate * 1.5, 1e-2)
        written = optimizer.param_groups[:1]
        if faulty:  # fault: the critic's group as well
            written = optimizer.param_groups
        for group in written:
            group["lr"] = rate

    # The rule's rate is in no checkpoint: whether the loop resumes is not asked.
    return kit.loop(step, G, D, save=None, load=None)


@fault("rate-rewritten", "digits conv labels")
def scheduler_of_the_other(kit: Kit, faulty: bool) -> Loop:
    """The critic's schedule was made for the generator's optimiser, whose rate two schedules now write."""
    G, D, opt_g, opt_d = kit.players()
    cosine = CosineAnnealingLR(opt_g, T_max=200)
    decay = StepLR(opt_g if faulty else opt_d, step_size=2, gamma=0.7)  # fault: opt_g for opt_d

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()
        cosine.step()
        decay.step()

    return kit.loop(step, G, D, [opt_g, opt_d], {"cosine": cosine, "decay": decay})


@fault("rate-rewritten", "ring features")
def warm_up_overwritten(kit: Kit, faulty: bool) -> Loop:
    """A warm-up written by hand sets the critic's rate, and a scheduler sets it back in the same round."""
    G, D, opt_g, opt_d = kit.players()
    constant = LambdaLR(opt_d, lambda epoch: 1.0)

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()
        for group in opt_d.param_groups:
            group["lr"] = 1e-3 * min(1.0, (i + 2) / 100)
        if faulty:  # fault: this writes the configured rate over the warm-up's
            constant.step()

    return kit.loop(step, G, D, [opt_g, opt_d], {"constant": constant})


# -- bypassed-wrapper ----------------------------------------------------------------------------


@fault("bypassed-wrapper", "ring digits conv")
def inner_module_called(kit: Kit, faulty: bool) -> Loop:
    """The critic's forward pass goes through ddp.module, so that its gradients are not averaged over ranks."""
    G, D, opt_g, opt_d = kit.players()
    ddp = wrapped(D)
    critic = ddp.module if faulty else ddp  # fault: ddp.module

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(*critic(torch.cat([x, fake.detach()])).chunk(2)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(critic(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, ddp, [opt_g, opt_d])


# -- wrong-loss ----------------------------------------------------------------------------------


@fault("wrong-loss", "ring labels conv")
def declared_is_another(kit: Kit, faulty: bool) -> Loop:
    """The loop has the hinge loss; another was declared."""
    G, D, opt_g, opt_d = kit.players()
    declared: Hinge | Vanilla = Hinge()
    if faulty:  # fault: declared as vanilla
        declared = Vanilla()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        hinge_critic(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()
        opt_g.zero_grad()
        (-D(fake, *y).mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss=declared)


@fault("wrong-loss", "digits gait")
def bounded_by_tanh(kit: Kit, faulty: bool) -> Loop:
    """Scores go through tanh before the hinge; the hinge of the scores themselves was declared."""
    G, D, opt_g, opt_d = kit.players()
    bound = nn.Tanh() if faulty else nn.Identity()  # fault: the tanh is in nobody's declaration

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        hinge_critic(bound(D(x)), bound(D(fake.detach()))).backward()
        opt_d.step()
        opt_g.zero_grad()
        (-bound(D(fake)).mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss=Hinge())


@fault("wrong-loss", "table patch")
def squares_declared_as_vanilla(kit: Kit, faulty: bool) -> Loop:
    """A least-squares loop was declared as vanilla."""
    G, D, opt_g, opt_d = kit.players()
    declared: LeastSquares | Vanilla = LeastSquares(1, 0, 1)
    if faulty:  # fault: declared as vanilla
        declared = Vanilla()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        on_real, on_fake = D(x), D(fake.detach())
        real_part = mse_loss(on_real, torch.ones_like(on_real))
        (real_part + mse_loss(on_fake, torch.zeros_like(on_fake))).backward()
        opt_d.step()
        opt_g.zero_grad()
        on_fake = D(fake)
        mse_loss(on_fake, torch.ones_like(on_fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss=declared)


@fault("wrong-loss", "table digits")
def saturating_generator(kit: Kit, faulty: bool) -> Loop:
    """The generator minimises log(1 - D); the usual, non-saturating loss was declared."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        (softplus(-D(x)).mean() + softplus(D(fake.detach())).mean()).backward()
        opt_d.step()
        opt_g.zero_grad()
        (-softplus(D(fake)).mean()).backward()
        opt_g.step()

    declared = Vanilla(saturating=not faulty)  # fault: declared as non-saturating
    return kit.loop(step, G, D, [opt_g, opt_d], loss=declared)
