"""Healthy loops of usual practice: other networks, several of them, and other ways to show them samples."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from equilibrist.diagnosis import Loop
from equilibrist.formulations import Vanilla
from equilibrist.zoo._case import healthy
from equilibrist.zoo._kits import Kit
from equilibrist.zoo._networks import critic_mlp, mlp


@healthy("digits table")
def dropout_critic(kit: Kit) -> Loop:
    """The critic drops features in training."""
    entries = kit.train.shape[1]
    D = nn.Sequential(nn.Linear(entries, 128), nn.LeakyReLU(0.2), nn.Dropout(0.2))
    D.extend([nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Dropout(0.2), nn.Linear(128, 1)])
    G = kit.generator()
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


class Spread(nn.Module):
    """Features and how much they vary within the batch; finite for one sample."""

    def forward(self, h: Tensor) -> Tensor:
        spread = (h.var(0, unbiased=False) + 1e-8).sqrt().mean()
        return torch.cat([h, spread.expand(len(h), 1)], 1)


@healthy("digits ring")
def minibatch_spread(kit: Kit) -> Loop:
    """The critic is told how much a batch varies; all batches are whole."""
    G = kit.generator()
    D = nn.Sequential(nn.Linear(kit.train.shape[1], 64), nn.LeakyReLU(0.2), Spread())
    D.append(critic_mlp(65, 64, 1))
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


@healthy("digits gait")
def image_pool(kit: Kit) -> Loop:
    """Half of the generated samples that the critic sees come from a pool of earlier ones."""
    G, D, opt_g, opt_d = kit.players()
    pool: list[Tensor] = []

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        shown = fake.detach()
        if len(pool) >= 10:
            old = torch.cat(pool)
            rows = torch.randint(len(old), (len(x) // 2,))
            shown = torch.cat([shown[: len(x) - len(rows)], old[rows]])
            pool.pop(0)
        pool.append(fake.detach())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(shown)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, save=None, load=None)


@healthy("ring digits")
def lookahead(kit: Kit) -> Loop:
    """Every fifth round both players go halfway back to where they were five rounds ago."""
    G, D, opt_g, opt_d = kit.players()
    slow = copy.deepcopy(nn.ModuleList([G, D])).requires_grad_(False)

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()
        if (i + 1) % 5 == 0:
            fast = [*G.parameters(), *D.parameters()]
            with torch.no_grad():
                for kept, p in zip(slow.parameters(), fast, strict=True):
                    kept.lerp_(p, 0.5)
                    p.copy_(kept)

    return kit.loop(step, G, D, [opt_g, opt_d], {"slow": slow})


class TwoCritics(nn.Module):
    """Two critics of one sample: a list of two scores."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.one, self.two = critic_mlp(entries, 64), critic_mlp(entries, 64, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.one(x), self.two(x)]


@healthy("digits gait")
def two_critics(kit: Kit) -> Loop:
    """Two critics judge each sample; losses are means over them."""
    G, D = kit.generator(), TwoCritics(kit.train.shape[1])
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        pairs = zip(D(x), D(fake.detach()), strict=True)
        torch.stack([kit.loss_d(real, made) for real, made in pairs]).mean().backward()
        opt_d.step()
        opt_g.zero_grad()
        torch.stack([kit.loss_g(made) for made in D(fake)]).mean().backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


class Classifying(nn.Module):
    """A score, and logits of classes from the same features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2))
        self.score, self.classes = nn.Linear(128, 1), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.score(h), self.classes(h)


@healthy("labels")
def auxiliary_classifier(kit: Kit) -> Loop:
    """ACGAN: the critic also names the class, and both players are paid for that; the term is not declared."""
    G, D = kit.generator(), Classifying()
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())

    def step(i: int) -> None:
        x, y = kit.draw()
        fake = G(kit.noise(), y)
        on_real, classes = D(x)
        on_fake, _ = D(fake.detach())
        opt_d.zero_grad()
        (kit.loss_d(on_real, on_fake) + 0.2 * cross_entropy(classes, y)).backward()
        opt_d.step()
        on_fake, classes = D(fake)
        opt_g.zero_grad()
        (kit.loss_g(on_fake) + 0.2 * cross_entropy(classes, y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("ring")
def reversed_gradient(kit: Kit) -> Loop:
    """One optimiser and one backward pass: the generator gets the critic's gradient with its sign reversed."""
    G, D = kit.generator(), kit.critic()
    optimizer = torch.optim.Adam([*G.parameters(), *D.parameters()], 2e-3, betas=(0.0, 0.99))

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        fake.register_hook(torch.neg)
        loss = softplus(-D(x)).mean() + softplus(D(fake)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return kit.loop(step, G, D, [optimizer], loss=Vanilla(saturating=True))


@healthy("table")
def groups_of_one_adam(kit: Kit) -> Loop:
    """One Adam with a group for each player, as motion priors have it; each gets its own gradient."""
    G, D = kit.generator(), kit.critic()
    groups = [
        {"params": list(G.parameters()), "lr": 5e-4},
        {"params": list(D.parameters()), "lr": 5e-4, "weight_decay": 1e-4},
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.5, 0.9))

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        loss_d = kit.loss_d(D(x), D(fake.detach()))
        D.requires_grad_(False)
        loss_g = kit.loss_g(D(fake))
        D.requires_grad_(True)
        optimizer.zero_grad()
        (loss_d + loss_g).backward()
        optimizer.step()

    return kit.loop(step, G, D, [optimizer])


@healthy("ring")
def packed_critic(kit: Kit) -> Loop:
    """PacGAN: the critic judges two samples at once."""
    G, D = kit.generator(), critic_mlp(4, 64)
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())

    def packed(x: Tensor) -> Tensor:
        return x.view(len(x) // 2, -1)

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(packed(x)), D(packed(fake).detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(packed(fake))).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("ring")
def cycle(kit: Kit) -> Loop:
    """A map between two laws and one back, with a cycle term; the critic judges one
    direction, and the term is not declared."""
    G, D, back = mlp(2, 2), kit.critic(), mlp(2, 2)
    opt_g = kit.optimizer([*G.parameters(), *back.parameters()])
    opt_d = kit.optimizer(D.parameters())
    source = torch.randn(3000, 2)

    def step(i: int) -> None:
        (x,) = kit.draw()
        z = source[torch.randint(len(source), (len(x),))]
        fake = G(z)
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        (kit.loss_g(D(fake)) + (back(fake) - z).abs().mean()).backward()
        opt_g.step()

    def sample(n: int) -> Tensor:
        with torch.no_grad():
            made: Tensor = G(torch.randn(n, 2))
        return made

    return kit.loop(step, G, D, [opt_g, opt_d], {"back": back}, sample=sample)


@healthy("ring table")
def minibatches_of_a_loader(kit: Kit) -> Loop:
    """Batches come from a DataLoader that shuffles in each epoch."""
    G, D, opt_g, opt_d = kit.players()
    data = torch.utils.data.TensorDataset(kit.train)
    loader = torch.utils.data.DataLoader(data, kit.batch, shuffle=True, drop_last=True)
    batches = iter(loader)

    def step(i: int) -> None:
        nonlocal batches
        try:
            (x,) = next(batches)
        except StopIteration:
            batches = iter(loader)
            (x,) = next(batches)
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, save=None, load=None)
