"""Faults of numerics, and averages whose statistics were forgotten."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from equilibrist.diagnosis import Loop
from equilibrist.penalties import GradientPenalty
from equilibrist.zoo._case import fault, healthy
from equilibrist.zoo._kits import Kit

# -- batch-of-one --------------------------------------------------------------------------------


class MinibatchSpread(nn.Module):
    """A critic that is told how much the batch varies."""

    def __init__(self, entries: int, unbiased: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(entries, 32), nn.LeakyReLU(0.2))
        self.last = nn.Linear(33, 1)
        self.unbiased = unbiased

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        spread = h.std(dim=0, unbiased=self.unbiased).mean()
        score: Tensor = self.last(torch.cat([h, spread.expand(len(h), 1)], 1))
        return score


@fault("batch-of-one", "digits ring table", rounds=40)
def spread_of_one_sample(kit: Kit, faulty: bool) -> Loop:
    """65 samples in batches of 8: the last has one sample, and the deviation of one sample is NaN."""
    kit.train = kit.train[:65]
    G, D = kit.generator(), MinibatchSpread(kit.train.shape[1], unbiased=True)
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())
    batches = kit.train.split(8)
    if not faulty:  # fault: the last batch, of one sample, is kept
        batches = batches[:-1]

    def step(i: int) -> None:
        x = batches[i % len(batches)]
        fake = G(kit.noise())[: len(x)]
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


class Standardized(nn.Module):
    """A critic whose features are standardised over the batch, by hand."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(entries, 64), nn.LeakyReLU(0.2))
        self.last = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        score: Tensor = self.last((h - h.mean(0)) / (h.std(0) + 1e-5))
        return score


@fault("batch-of-one", "gait conv patch", rounds=40)
def features_standardized_by_hand(kit: Kit, faulty: bool) -> Loop:
    """The critic divides features by their deviation over the batch; the loader ends with a batch of one sample."""
    kit.train = kit.train[:385]
    G, D = kit.generator(), Standardized(kit.train[0].numel())
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(kit.train),
        batch_size=32,
        shuffle=True,
        drop_last=not faulty,  # fault: drop_last=False
    )

    def endless() -> Iterator[Tensor]:
        while True:
            for (x,) in loader:
                yield x

    batches = endless()

    def step(i: int) -> None:
        x = next(batches)
        with torch.no_grad():
            fake = kit.sample(G, len(x))
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(G(kit.noise()))).backward()
        opt_g.step()

    return kit.loop(step, G, D, save=None, load=None)


# -- not-finite ----------------------------------------------------------------------------------


@fault("not-finite", "ring table digits")
def root_of_zero(kit: Kit, faulty: bool) -> Loop:
    """A term for diversity takes roots of squared distances, that of a sample to itself included: slope infinite."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        squares = (fake[:16, None] - fake[None, :16]).square().sum(-1)
        if not faulty:  # fault: the root of 0 has no derivative
            squares = squares + 1e-6
        opt_g.zero_grad()
        (kit.loss_g(D(fake)) - 0.01 * squares.sqrt().mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("not-finite", "wgan gait conv")
def norm_of_flat_critic(kit: Kit, faulty: bool) -> Loop:
    """The critic's last layer starts at zero, so its slopes are zero, and the root in their norm has no derivative."""
    G, D, opt_g, opt_d = kit.players()
    *_, last = (module for module in D.modules() if isinstance(module, nn.Linear))
    nn.init.zeros_(last.weight)

    def step(i: int) -> None:
        for _ in range(3):
            (x,) = kit.draw()
            fake = G(kit.noise()).detach()
            mix = torch.rand(len(x), *[1] * (x.ndim - 1))
            between = (mix * x + (1 - mix) * fake).requires_grad_(True)
            (slope,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
            squares = slope.square().flatten(1).sum(1)
            if not faulty:  # fault: nothing keeps the root away from 0
                squares = squares + 1e-12
            opt_d.zero_grad()
            penalty = 10 * (squares.sqrt() - 1).square().mean()
            (D(fake).mean() - D(x).mean() + penalty).backward()
            opt_d.step()
        opt_g.zero_grad()
        (-D(G(kit.noise())).mean()).backward()
        opt_g.step()

    penalties = (GradientPenalty(10.0),)
    return kit.loop(step, G, D, [opt_g, opt_d], loss="wgan", penalties=penalties)


@fault("not-finite", "features digits labels")
def deviation_of_zero(kit: Kit, faulty: bool) -> Loop:
    """Pixels are divided by their deviation over the data, which is 0 for pixels that are never inked."""
    floor = 0.1
    if faulty:  # fault: nothing keeps the deviation away from 0
        floor = 0.0
    mean, sd = kit.train.mean(0), kit.train.std(0).clamp_min(floor)
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        kit.loss_d(D((x - mean) / sd, *y), D((fake.detach() - mean) / sd, *y)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D((fake - mean) / sd, *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


# -- step-too-large ------------------------------------------------------------------------------


@fault("step-too-large", "digits table gait ring", rounds=300)
def rate_of_a_half(kit: Kit, faulty: bool) -> Loop:
    """The critic's learning rate has lost its zeros."""
    G, D, opt_g, opt_d = kit.players()
    if faulty:  # fault: 0.5 where the kit has 2e-3 or less
        opt_d = kit.optimizer(D.parameters(), lr=0.5)

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


@fault("step-too-large", "ring-sgd conv labels", rounds=300)
def both_rates_too_large(kit: Kit, faulty: bool) -> Loop:
    """Both players' rates are a hundred times what the losses can take."""
    G, D, opt_g, opt_d = kit.players()
    if faulty:  # fault: times 100
        for group in (*opt_g.param_groups, *opt_d.param_groups):
            group["lr"] *= 100

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


# -- average-buffers -----------------------------------------------------------------------------


@fault("average-buffers", "conv patch conv-spectral digits scales", rounds=300)
def parameters_averaged_alone(kit: Kit, faulty: bool) -> Loop:
    """The moving average takes the parameters; batch norm's statistics are buffers, and stay at 0 and 1."""
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
            if not faulty:  # fault: buffers are not copied
                for kept, buffer in zip(average.buffers(), G.buffers(), strict=True):
                    kept.copy_(buffer)

    return kit.loop(
        step,
        G,
        D,
        [opt_g, opt_d],
        {"average": average},
        average=average,
        sample=lambda n: kit.sample(average, n),
    )


@healthy("digits features sigmoid", rounds=300)
def averaged_model(kit: Kit) -> Loop:
    """torch's AveragedModel, which copies buffers where it does not average them."""
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

    return kit.loop(
        step,
        G,
        D,
        [opt_g, opt_d],
        {"average": average},
        average=average,
        sample=lambda n: kit.sample(average, n),
    )
