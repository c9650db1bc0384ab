"""Healthy loops of usual practice: labels, noise, penalties and further terms of a loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from equilibrist.diagnosis import Loop
from equilibrist.formulations import Hinge, Relativistic, Vanilla
from equilibrist.penalties import R1, R2, GradientPenalty
from equilibrist.zoo._case import healthy
from equilibrist.zoo._kits import Kit, hinge_critic
from equilibrist.zoo._networks import critic_mlp, normed_mlp


def cross_entropy(score: Tensor, target: float) -> Tensor:
    return binary_cross_entropy_with_logits(score, torch.full_like(score, target))


@healthy("digits table")
def smooth_real_labels(kit: Kit) -> Loop:
    """One-sided label smoothing: real samples are called 0.9."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        (cross_entropy(D(x), 0.9) + cross_entropy(D(fake.detach()), 0.0)).backward()
        opt_d.step()
        opt_g.zero_grad()
        cross_entropy(D(fake), 1.0).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("ring gait")
def smooth_labels_of_both(kit: Kit) -> Loop:
    """Two-sided label smoothing: 0.9 and 0.1."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        (cross_entropy(D(x), 0.9) + cross_entropy(D(fake.detach()), 0.1)).backward()
        opt_d.step()
        opt_g.zero_grad()
        cross_entropy(D(fake), 0.9).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss="vanilla")


@healthy("digits gait")
def instance_noise(kit: Kit) -> Loop:
    """Noise that fades is added to real and generated samples alike."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        sd = 0.2 * max(0.0, 1 - i / 200)
        opt_d.zero_grad()
        noisy_real = x + sd * torch.randn_like(x)
        noisy_fake = fake + sd * torch.randn_like(fake)
        kit.loss_d(D(noisy_real), D(noisy_fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(noisy_fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("conv-spectral")
def augmentation_of_both(kit: Kit) -> Loop:
    """Real and generated images are shifted and dimmed at random on their way to the critic, in both steps."""
    G, D, opt_g, opt_d = kit.players()

    def augment(x: Tensor) -> Tensor:
        moved = torch.stack([torch.roll(x, shift, dims=-1) for shift in (-1, 0, 1)])
        x = moved[torch.randint(3, (len(x),)), torch.arange(len(x))]  # every image by its own
        return x * (0.9 + 0.2 * torch.rand(len(x), 1, 1, 1))

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(augment(x)), D(augment(fake.detach()))).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(augment(fake))).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("ring table")
def saturating_loss(kit: Kit) -> Loop:
    """The generator minimises log(1 - D), as in the first paper, and that is declared."""
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

    return kit.loop(step, G, D, [opt_g, opt_d], loss=Vanilla(saturating=True))


@healthy("digits table")
def relativistic_pairs(kit: Kit) -> Loop:
    """R3GAN: real and generated samples in pairs, with R1 and R2."""
    G, D, opt_g, opt_d = kit.players()

    def squared_slope(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_(True)
        score = D(x)
        (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return score, slope.square().flatten(1).sum(1).mean()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        on_real, r1 = squared_slope(x)
        on_fake, r2 = squared_slope(fake)
        opt_d.zero_grad()
        (softplus(on_fake - on_real).mean() + 0.1 * r1 + 0.1 * r2).backward()
        opt_d.step()
        opt_g.zero_grad()
        softplus(D(x) - D(fake)).mean().backward()
        opt_g.step()

    penalties = (R1(0.2), R2(0.2))
    return kit.loop(step, G, D, [opt_g, opt_d], loss=Relativistic(), penalties=penalties)


@healthy("ring digits")
def lazy_r1(kit: Kit) -> Loop:
    """R1 in every fourth round, four times as heavy."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        if i % 4 == 0:
            x = x.requires_grad_(True)
            (slope,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
            opt_d.zero_grad()
            (4 * 0.1 * slope.square().sum(1).mean()).backward()
            opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], penalties=(R1(0.2),))


@healthy("wgan table")
def wgan_with_penalty(kit: Kit) -> Loop:
    """WGAN with a two-sided gradient penalty and three critic steps."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        for _ in range(3):
            (x,) = kit.draw()
            fake = G(kit.noise()).detach()
            mix = torch.rand(len(x), 1)
            between = (mix * x + (1 - mix) * fake).requires_grad_(True)
            (slope,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
            opt_d.zero_grad()
            penalty = 10 * (slope.norm(dim=1) - 1).square().mean()
            (D(fake).mean() - D(x).mean() + penalty).backward()
            opt_d.step()
        opt_g.zero_grad()
        (-D(G(kit.noise())).mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss="wgan", penalties=(GradientPenalty(10.0),))


@healthy("ring wgan")
def one_sided_penalty(kit: Kit) -> Loop:
    """WGAN that pays only for slopes above 1."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        for _ in range(3):
            (x,) = kit.draw()
            fake = G(kit.noise()).detach()
            mix = torch.rand(len(x), 1)
            between = (mix * x + (1 - mix) * fake).requires_grad_(True)
            (slope,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
            opt_d.zero_grad()
            penalty = 10 * (slope.norm(dim=1) - 1).clamp_min(0).square().mean()
            (D(fake).mean() - D(x).mean() + penalty).backward()
            opt_d.step()
        opt_g.zero_grad()
        (-D(G(kit.noise())).mean()).backward()
        opt_g.step()

    penalties = (GradientPenalty(10.0, one_sided=True),)
    return kit.loop(step, G, D, [opt_g, opt_d], loss="wgan", penalties=penalties)


@healthy("digits")
def dragan(kit: Kit) -> Loop:
    """A gradient penalty around the data alone, at real samples with noise."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        around = (x + 0.5 * x.std() * torch.rand_like(x)).requires_grad_(True)
        (slope,) = torch.autograd.grad(D(around).sum(), around, create_graph=True)
        penalty = (slope.norm(dim=1) - 1).square().mean()
        opt_d.zero_grad()
        (kit.loss_d(D(x), D(fake.detach())) + penalty).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("ring table")
def weight_clipping(kit: Kit) -> Loop:
    """The first WGAN: RMSprop, five critic steps, weights clipped after each."""
    G, D = kit.generator(), kit.critic()
    opt_g = torch.optim.RMSprop(G.parameters(), 1e-3)
    opt_d = torch.optim.RMSprop(D.parameters(), 1e-3)

    def step(i: int) -> None:
        for _ in range(5):
            (x,) = kit.draw()
            opt_d.zero_grad()
            (D(G(kit.noise()).detach()).mean() - D(x).mean()).backward()
            opt_d.step()
            for p in D.parameters():
                p.data.clamp_(-0.1, 0.1)
        opt_g.zero_grad()
        (-D(G(kit.noise())).mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss="wgan")


@healthy("features")
def feature_matching_too(kit: Kit) -> Loop:
    """The generator also matches the mean of the critic's features; that term is not declared."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        _, real_features = D(x)
        score, features = D(fake)
        matching = (real_features.detach().mean(0) - features.mean(0)).abs().mean()
        opt_g.zero_grad()
        (softplus(-score).mean() + matching).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


def autoencoder(kit: Kit, bottleneck: int = 16) -> nn.Sequential:
    """Real samples to their reconstructions."""
    entries = kit.train.shape[1]
    encoder = nn.Sequential(nn.Linear(entries, 64), nn.ReLU(), nn.Linear(64, bottleneck))
    return nn.Sequential(encoder, normed_mlp(bottleneck, entries, end=entries == 64))


@healthy("digits gait")
def reconstruction_and_critic(kit: Kit) -> Loop:
    """An autoencoder with an L1 term and a light critic; the loss declared holds both."""
    G, D = autoencoder(kit), kit.critic()
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())

    def losses(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        fake = modules.generator(z)
        return {
            "critic": hinge_critic(modules.critic(x), modules.critic(fake)),
            "generator": 10 * (fake - x).abs().mean() - 0.01 * modules.critic(fake).mean(),
        }

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(x)
        opt_g.zero_grad()
        (10 * (fake - x).abs().mean() - 0.01 * D(fake).mean()).backward()
        opt_g.step()
        opt_d.zero_grad()
        hinge_critic(D(x), D(fake.detach())).backward()
        opt_d.step()

    def sample(n: int) -> Tensor:
        with torch.no_grad():
            made: Tensor = G.eval()(kit.held[torch.randint(len(kit.held), (n,))])
        G.train()
        return made

    return kit.loop(step, G, D, [opt_g, opt_d], loss=losses, sample=sample)


@healthy("digits")
def frozen_feature_network(kit: Kit) -> Loop:
    """The critic reads features of a classifier that was trained before and is frozen on purpose."""
    features = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    head = nn.Linear(64, 2)
    opt = torch.optim.Adam([*features.parameters(), *head.parameters()], 1e-2)
    target = (kit.train[:, 32:].mean(1) > kit.train[:, :32].mean(1)).long()
    for _ in range(20):
        opt.zero_grad()
        nn.functional.cross_entropy(head(features(kit.train)), target).backward()
        opt.step()
    features.requires_grad_(False)
    G, D = kit.generator(), nn.Sequential(features, critic_mlp(64, 128))
    trained = [p for p in D.parameters() if p.requires_grad]
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(trained)

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


@healthy("labels")
def frozen_embedding(kit: Kit) -> Loop:
    """The embedding of labels stays as it was drawn, on purpose."""
    G, D = kit.generator(), kit.critic()
    G.get_submodule("label").requires_grad_(False)
    opt_g = kit.optimizer([p for p in G.parameters() if p.requires_grad])
    opt_d = kit.optimizer(D.parameters())

    def step(i: int) -> None:
        x, y = kit.draw()
        fake = G(kit.noise(), y)
        opt_d.zero_grad()
        kit.loss_d(D(x, y), D(fake.detach(), y)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake, y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@healthy("labels")
def hinge_by_hand(kit: Kit) -> Loop:
    """The hinge written with torch.minimum, as in some older code."""
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, y = kit.draw()
        fake = G(kit.noise(), y)
        on_real, on_fake = D(x, y), D(fake.detach(), y)
        zero = torch.zeros_like(on_real)
        opt_d.zero_grad()
        loss = -torch.minimum(zero, on_real - 1).mean() - torch.minimum(zero, -on_fake - 1).mean()
        loss.backward()
        opt_d.step()
        opt_g.zero_grad()
        (-D(fake, y).mean()).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d], loss=Hinge())
