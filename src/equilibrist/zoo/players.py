"""Faults of players: wiring is right, and one of the two cannot do its part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from equilibrist.diagnosis import Loop
from equilibrist.formulations import Hinge, LeastSquares, Vanilla
from equilibrist.penalties import R1
from equilibrist.zoo._case import fault
from equilibrist.zoo._kits import Kit
from equilibrist.zoo._networks import critic_mlp, mlp, normed_mlp

# -- saturated -----------------------------------------------------------------------------------


@fault("saturated", "gait ring", rounds=400)
def five_quick_critic_steps(kit: Kit, faulty: bool) -> Loop:
    """Adversarial motion prior: least squares to +1 and -1, five quick critic steps for one generator step."""
    G, D, opt_g, opt_d = kit.players()
    critic_steps = 1
    if faulty:  # fault: five steps with a large rate, against a generator with a small one
        critic_steps = 5
        opt_d = torch.optim.Adam(D.parameters(), 2e-3)
        opt_g = torch.optim.Adam(G.parameters(), 5e-5)

    def step(i: int) -> None:
        for _ in range(critic_steps):
            (x,) = kit.draw()
            fake = G(kit.noise()).detach()
            opt_d.zero_grad()
            (0.5 * (D(x) - 1).square().mean() + 0.5 * (D(fake) + 1).square().mean()).backward()
            opt_d.step()
        opt_g.zero_grad()
        (0.5 * (D(G(kit.noise())) - 1).square().mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss=LeastSquares(1, -1, 1))


@fault("saturated", "digits conv labels", rounds=300)
def critic_far_ahead(kit: Kit, faulty: bool) -> Loop:
    """The generator minimises log(1 - D), which is flat where the critic is sure; the critic is far ahead."""
    G, D, opt_g, opt_d = kit.players()
    critic_steps = 1
    if faulty:  # fault: the critic learns ten times as fast as the generator, three times a round
        critic_steps = 3
        opt_g = kit.optimizer(G.parameters(), lr=2e-4)
        opt_d = kit.optimizer(D.parameters(), lr=2e-3)

    def step(i: int) -> None:
        for _ in range(critic_steps):
            x, *y = kit.draw()
            fake = G(kit.noise(), *y).detach()
            opt_d.zero_grad()
            (softplus(-D(x, *y)).mean() + softplus(D(fake, *y)).mean()).backward()
            opt_d.step()
        opt_g.zero_grad()
        (-softplus(D(G(kit.noise(), *y), *y)).mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss=Vanilla(saturating=True))


# -- smothered -----------------------------------------------------------------------------------


@fault("smothered", "gait ring digits", rounds=400)
def penalty_too_heavy(kit: Kit, faulty: bool) -> Loop:
    """R1 with a weight that allows the critic hardly any slope."""
    G, D, opt_g, opt_d = kit.players()
    weight = 0.1
    if faulty:  # fault: ten thousand times as heavy
        weight = 1000.0

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        x.requires_grad_(True)
        on_real = D(x)
        (slope,) = torch.autograd.grad(on_real.sum(), x, create_graph=True)
        r1 = weight / 2 * slope.square().flatten(1).sum(1).mean()
        opt_d.zero_grad()
        (kit.loss_d(on_real, D(fake.detach())) + r1).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], penalties=(R1(weight),))


# -- memorising ----------------------------------------------------------------------------------


@fault("memorising", "digits conv sigmoid", rounds=600)
def few_samples(kit: Kit, faulty: bool) -> Loop:
    """The critic sees thirty samples again and again."""
    if faulty:  # fault: 30 samples of 1,400
        kit.train = kit.train[:30]
    G, D, opt_g, opt_d = kit.players()

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


# -- lagging -------------------------------------------------------------------------------------


@fault("lagging", "gait digits table sigmoid", rounds=400)
def critic_rate_too_small(kit: Kit, faulty: bool) -> Loop:
    """The critic's rate is a small part of the generator's."""
    G, D, opt_g, opt_d = kit.players()
    if faulty:  # fault: 3e-5
        opt_d = kit.optimizer(D.parameters(), lr=3e-5)

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


# -- blind ---------------------------------------------------------------------------------------


class Sees(nn.Module):
    """A critic of some of a sample's entries."""

    def __init__(self, entries: Tensor, body: nn.Module) -> None:
        super().__init__()
        self.entries, self.body = entries, body

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = self.body(x.flatten(1)[:, self.entries])
        return score


@fault("blind", "gait table digits", rounds=400)
def columns_dropped(kit: Kit, faulty: bool) -> Loop:
    """The critic is handed the first columns only."""
    entries = torch.arange(kit.train[0].numel())
    if faulty:  # fault: the last fourth (of digits the two lowest rows) is cut off
        entries = entries[: -(len(entries) // 4 + 1)]
    G, D = kit.generator(), Sees(entries, critic_mlp(len(entries)))
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


# -- collapsed -----------------------------------------------------------------------------------


@fault("collapsed", "ring table gait", rounds=400)
def many_generator_steps(kit: Kit, faulty: bool) -> Loop:
    """The generator answers each critic with many large steps, and puts all samples where the score is highest."""
    G, D, opt_g, opt_d = kit.players()
    generator_steps = 10 if faulty else 1  # fault: ten for one

    def step(i: int) -> None:
        (x,) = kit.draw()
        opt_d.zero_grad()
        kit.loss_d(D(x), D(G(kit.noise()).detach())).backward()
        opt_d.step()
        for _ in range(generator_steps):
            opt_g.zero_grad()
            kit.loss_g(D(G(kit.noise()))).backward()
            opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("collapsed", "digits features")
def no_norm_in_the_generator(kit: Kit, faulty: bool) -> Loop:
    """A generator of digits without batch norm: from its first rounds on all noise gives much the same image."""
    G, D, opt_g, opt_d = kit.players()
    if faulty:  # fault: the same layers without their batch norm
        G = mlp(kit.latent, 64, 128, end="sigmoid")
        opt_g = kit.optimizer(G.parameters())

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


# -- latent-ignored ------------------------------------------------------------------------------


class Answering(nn.Module):
    """(condition, noise) to (condition, answer): what the critic sees are pairs."""

    def __init__(self, condition: int, latent: int, out: int, end: bool) -> None:
        super().__init__()
        self.condition = condition
        self.body = normed_mlp(condition + latent, out, end=end)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.cat([x, self.body(torch.cat([x, z], 1))], 1)


@fault("latent-ignored", "table digits features", rounds=500)
def answers_averaged(kit: Kit, faulty: bool) -> Loop:
    """An answer has many right values; the L1 term asks for one of them, and outweighs the critic."""
    half = kit.train.shape[1] // 2
    end = kit.train.shape[1] == 64
    G, D = Answering(half, kit.latent, kit.train.shape[1] - half, end), kit.critic()
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())
    weight = 0.0
    if faulty:  # fault: 100, as for images whose answer is nearly certain
        weight = 100.0

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(x[:, :half], kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        (kit.loss_g(D(fake)) + weight * (fake - x).abs().mean()).backward()
        opt_g.step()

    def losses(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        fake = modules.generator(x[:, :half], z)
        return {
            "critic": kit.loss_d(modules.critic(x), modules.critic(fake)),
            "generator": kit.loss_g(modules.critic(fake)) + weight * (fake - x).abs().mean(),
        }

    def sample(n: int) -> Tensor:
        rows = torch.randint(len(kit.train), (n,))
        with torch.no_grad():
            made: Tensor = G(kit.train[rows, :half], kit.noise(n))
        return made

    return kit.loop(step, G, D, [opt_g, opt_d], loss=losses, sample=sample)


# -- opposed-terms -------------------------------------------------------------------------------


@fault("opposed-terms", "digits table gait", rounds=500)
def critic_against_reconstruction(kit: Kit, faulty: bool) -> Loop:
    """An autoencoder is trained for its L1 error; later a critic joins, at a fixed share of that term's gradient."""
    entries = kit.train.shape[1]
    encoder, decoder = mlp(entries, 4, depth=1), mlp(4, entries, 128, 1)
    G, D = nn.Sequential(encoder, decoder), critic_mlp(entries, 128)
    opt_g = torch.optim.Adam(G.parameters(), 1e-3, betas=(0.5, 0.9))
    opt_d = torch.optim.Adam(D.parameters(), 1e-3, betas=(0.5, 0.9))
    share = 0.8 if faulty else 0.02  # fault: the adversarial gradient is nearly as large
    last = decoder.get_parameter("2.weight")

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(x)
        error = (fake - x).abs().mean()
        loss_g = error
        if i >= 200:
            adversarial = -D(fake).mean()
            of_error = torch.autograd.grad(error, last, retain_graph=True)[0].norm()
            of_critic = torch.autograd.grad(adversarial, last, retain_graph=True)[0].norm()
            loss_g = error + share * (of_error / (of_critic + 1e-4)).detach() * adversarial
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        if i >= 200:
            opt_d.zero_grad()
            (relu(1 - D(x)).mean() + relu(1 + D(fake.detach())).mean()).backward()
            opt_d.step()

    def sample(n: int) -> Tensor:
        with torch.no_grad():
            made: Tensor = G(kit.held[torch.randint(len(kit.held), (n,))])
        return made

    return kit.loop(step, G, D, [opt_g, opt_d], loss=Hinge(), sample=sample)
