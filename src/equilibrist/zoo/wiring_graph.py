"""Faults of wiring: what a loss reaches, and which tensors an optimiser holds."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from equilibrist.diagnosis import Loop
from equilibrist.zoo._case import fault
from equilibrist.zoo._kits import Kit
from equilibrist.zoo._networks import critic_mlp, normed_mlp


@fault("no-gradient", "digits conv-spectral labels")
def generated_under_no_grad(kit: Kit, faulty: bool) -> Loop:
    """The generator's loss is computed from samples that were made under no_grad for the critic."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        z = kit.noise()
        with torch.no_grad():
            fake = G(z, *y)
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake, *y)).backward()
        opt_d.step()
        if not faulty:  # fault: the samples are not made again
            fake = G(z, *y)
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("no-gradient", "ring table patch")
def detached_for_both(kit: Kit, faulty: bool) -> Loop:
    """One batch is detached for the critic and then used for the generator, too."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        shown = fake.detach()
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(shown, *y)).backward()
        opt_d.step()
        if faulty:  # fault: detached for the generator, too
            fake = shown
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("no-gradient", "gait features")
def loss_made_a_leaf(kit: Kit, faulty: bool) -> Loop:
    """The critic's loss lost its graph, and was given requires_grad so that backward() would not complain."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()
        loss_d = kit.loss_d(D(x, *y), D(fake.detach(), *y))
        if faulty:  # fault: a new tensor without a history
            loss_d = torch.tensor(loss_d.item(), requires_grad=True)
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


class Grown(nn.Module):
    """A critic whose first block was added while training."""

    def __init__(self, block: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.block, self.body = block, body

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = self.body(self.block(x))
        return score


@fault("frozen-part", "ring table gait")
def block_added_later(kit: Kit, faulty: bool) -> Loop:
    """The critic has grown a block; its optimiser was made before and has never heard of it."""
    G = kit.generator()
    entries = kit.train.shape[1]
    body = critic_mlp(32)
    D = Grown(nn.Sequential(nn.Linear(entries, 32), nn.LeakyReLU(0.2)), body)
    held = D.parameters()
    if faulty:  # fault: the block's parameters are missing
        held = body.parameters()
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(held)

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


class Detached(nn.Module):
    """A generator whose first half may be cut off from the gradient."""

    def __init__(self, latent: int, out: int, cut: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(latent, 64), nn.ReLU())
        self.second = normed_mlp(64, out)
        self.cut = cut

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z)
        if self.cut:
            h = h.detach()
        image: Tensor = self.second(h)
        return image


@fault("frozen-part", "digits features sigmoid")
def detach_within_forward(kit: Kit, faulty: bool) -> Loop:
    """A detach() from an earlier experiment is left in the generator's forward."""
    D = kit.critic()
    G = Detached(kit.latent, 64, cut=faulty)  # fault: forward detaches what the first half made
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())

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


@fault("frozen-part", "conv patch")
def only_the_head(kit: Kit, faulty: bool) -> Loop:
    """The critic's optimiser holds its last layer, as if the others were features that are kept."""
    G, D, opt_g, opt_d = kit.players()
    if faulty:  # fault: the last convolution alone
        opt_d = kit.optimizer(list(D.parameters())[-2:])

    def step(i: int) -> None:
        (x,) = kit.draw()
        opt_d.zero_grad()
        kit.loss_d(D(x), D(G(kit.noise()).detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(G(kit.noise()))).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("stale-parameters", "digits conv scales")
def critic_replaced(kit: Kit, faulty: bool) -> Loop:
    """A fresh critic takes the place of the one for which the optimiser was made."""
    G, D, opt_g, opt_d = kit.players()
    D = copy.deepcopy(D)
    if not faulty:  # fault: the optimiser still holds the earlier critic's tensors
        opt_d = kit.optimizer(D.parameters())

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


@fault("stale-parameters", "ring labels table")
def assigned_when_loaded(kit: Kit, faulty: bool) -> Loop:
    """Pretrained weights are loaded with assign=True, which puts other tensors in place of the optimiser's."""
    G, D, opt_g, opt_d = kit.players()
    pretrained = kit.generator().state_dict()
    G.load_state_dict(pretrained, assign=faulty)  # fault: assign=True after the optimiser was made

    def step(i: int) -> None:
        x, *y = kit.draw()
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(G(kit.noise(), *y).detach(), *y)).backward()
        opt_d.step()
        G.zero_grad()
        kit.loss_g(D(G(kit.noise(), *y), *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("stale-parameters", "gait sigmoid")
def normed_after_the_optimizer(kit: Kit, faulty: bool) -> Loop:
    """Weight normalisation replaces a layer's weight by two tensors that the optimiser has not got."""
    G, D = kit.generator(), kit.critic()
    opt_g = kit.optimizer(G.parameters())
    opt_d = kit.optimizer(D.parameters())
    for layer in D.children():
        if isinstance(layer, nn.Linear):
            weight_norm(layer)
    if not faulty:  # fault: made before weight_norm, and not again
        opt_d = kit.optimizer(D.parameters())

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
