"""Healthy loops of usual practice: precision, clipping, rates, averages and several networks."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, StepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from equilibrist.diagnosis import Loop
from equilibrist.zoo._case import healthy
from equilibrist.zoo._kits import Kit


@healthy("digits gait")
def autocast(kit: Kit) -> Loop:
    """Both players run under autocast in bfloat16; losses are float32."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        with torch.autocast("cpu", torch.bfloat16):
            fake = G(kit.noise())
            on_real, on_fake = D(x), D(fake.detach())
        opt_d.zero_grad()
        kit.loss_d(on_real.float(), on_fake.float()).backward()
        opt_d.step()
        with torch.autocast("cpu", torch.bfloat16):
            on_fake = D(fake)
        opt_g.zero_grad()
        kit.loss_g(on_fake.float()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("ring digits")
def scaler(kit: Kit) -> Loop:
    """A loss scale that is undone before clipping and by the step, each player with its own scaler."""
    G, D, opt_g, opt_d = kit.players()
    scaler_g, scaler_d = torch.amp.GradScaler("cpu"), torch.amp.GradScaler("cpu")

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        scaler_d.scale(kit.loss_d(D(x), D(fake.detach()))).backward()
        scaler_d.unscale_(opt_d)
        clip_grad_norm_(D.parameters(), 1.0)
        scaler_d.step(opt_d)
        scaler_d.update()
        opt_g.zero_grad()
        scaler_g.scale(kit.loss_g(D(fake))).backward()
        scaler_g.step(opt_g)
        scaler_g.update()

    return kit.loop(step, G, D, [opt_g, opt_d], {"scaler_g": scaler_g, "scaler_d": scaler_d})


@healthy("digits table")
def clipping_by_norm(kit: Kit) -> Loop:
    """Both players' gradients are clipped by their norm."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        clip_grad_norm_(D.parameters(), 0.1)
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        clip_grad_norm_(G.parameters(), 0.1)
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("gait features")
def clipping_by_value(kit: Kit) -> Loop:
    """The critic's gradients are clipped entry by entry."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        clip_grad_value_(D.parameters(), 0.01)
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("conv digits")
def moving_average(kit: Kit) -> Loop:
    """An exponential average of weights and, copied, of batch norm's buffers."""
    G, D, opt_g, opt_d = kit.players()
    average = copy.deepcopy(G).requires_grad_(False)

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()
        with torch.no_grad():
            for mean, p in zip(average.parameters(), G.parameters(), strict=True):
                mean.lerp_(p, 0.05)
            for kept, buffer in zip(average.buffers(), G.buffers(), strict=True):
                kept.copy_(buffer)

    keep = {"average": average}
    return kit.loop(step, G, D, [opt_g, opt_d], keep, average=average)


@healthy("ring table")
def averaged_model(kit: Kit) -> Loop:
    """torch's AveragedModel of a generator that has no buffers."""
    G, D, opt_g, opt_d = kit.players()
    average = AveragedModel(G, multi_avg_fn=get_ema_multi_avg_fn(0.95))

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()
        average.update_parameters(G)

    return kit.loop(step, G, D, [opt_g, opt_d], {"average": average}, average=average)


@healthy("digits table")
def schedules(kit: Kit) -> Loop:
    """A step schedule for the generator and a cosine for the critic."""
    G, D, opt_g, opt_d = kit.players()
    decay = StepLR(opt_g, step_size=100, gamma=0.7)
    cosine = CosineAnnealingLR(opt_d, T_max=600)

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()
        decay.step()
        cosine.step()

    return kit.loop(step, G, D, [opt_g, opt_d], {"decay": decay, "cosine": cosine})


@healthy("ring features")
def warm_up(kit: Kit) -> Loop:
    """Both rates grow linearly over the first ten rounds."""
    G, D, opt_g, opt_d = kit.players()
    warm = [LambdaLR(o, lambda epoch: min(1.0, (epoch + 1) / 10)) for o in (opt_g, opt_d)]

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()
        for schedule in warm:
            schedule.step()

    return kit.loop(step, G, D, [opt_g, opt_d], {"warm g": warm[0], "warm d": warm[1]})


@healthy("gait labels")
def linear_decay_by_hand(kit: Kit) -> Loop:
    """Rates are written into the parameter groups in each round, falling to zero at round 1,000."""
    G, D, opt_g, opt_d = kit.players()
    full = opt_g.param_groups[0]["lr"]

    def step(i: int) -> None:
        for optimizer in (opt_g, opt_d):
            for group in optimizer.param_groups:
                group["lr"] = full * (1 - i / 1000)
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("digits ring")
def two_rates(kit: Kit) -> Loop:
    """TTUR: the critic's rate is twice the generator's."""
    G, D = kit.generator(), kit.critic()
    opt_g = torch.optim.Adam(G.parameters(), 1e-3, betas=(0.0, 0.9))
    opt_d = torch.optim.Adam(D.parameters(), 2e-3, betas=(0.0, 0.9))

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("ring digits")
def weight_decay_groups(kit: Kit) -> Loop:
    """AdamW with decay on matrices and none on biases, foreach off."""
    G, D = kit.generator(), kit.critic()

    def optimizer(module: nn.Module) -> torch.optim.Optimizer:
        matrices = [p for p in module.parameters() if p.ndim > 1]
        others = [p for p in module.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}]
        return torch.optim.AdamW(groups, 1e-3, betas=(0.0, 0.99), foreach=False)

    opt_g, opt_d = optimizer(G), optimizer(D)

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])
