"""A checkpoint from plain PyTorch, audited with nothing else of this library around it.

Run it once to train and to save `my_pair.pt`, and then let the command look at what was saved:

    python audit_my_pair.py
    equilibrist audit audit_my_pair.py:pair --set steps=200 --out my-audit

The critic is under torch's own spectral norm and the generator has batch norm: both are taken as they are.
`pair()` is all that the command needs; it returns a dictionary, so that this file imports nothing of ours.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import softplus
from torch.nn.utils.parametrizations import spectral_norm

CHECKPOINT = Path("my_pair.pt")


def build():
    """The two networks, untrained."""
    generator = nn.Sequential(
        nn.Linear(4, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 2),
    )
    critic = nn.Sequential(
        spectral_norm(nn.Linear(2, 64)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Linear(64, 64)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Linear(64, 1)),
    )
    return generator, critic


def real(n):
    """Points on a noisy circle of radius 2."""
    angle = 2 * math.pi * torch.rand(n)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(n, 2)


def train(steps):
    """A GAN as it is usually trained, and its checkpoint."""
    torch.manual_seed(0)
    generator, critic = build()
    adam_g = torch.optim.Adam(generator.parameters(), 2e-4, betas=(0.5, 0.999))
    adam_c = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.999))
    for _ in range(steps):
        fake = generator(torch.randn(64, 4))
        loss = softplus(-critic(real(64))).mean() + softplus(critic(fake.detach())).mean()
        adam_c.zero_grad(), loss.backward(), adam_c.step()
        loss = softplus(-critic(fake)).mean()
        adam_g.zero_grad(), loss.backward(), adam_g.step()
    torch.save({"generator": generator.state_dict(), "critic": critic.state_dict()}, CHECKPOINT)


def pair():
    """What the audit needs to know."""
    generator, critic = build()
    saved = torch.load(CHECKPOINT, weights_only=True)
    generator.load_state_dict(saved["generator"])
    critic.load_state_dict(saved["critic"])
    torch.manual_seed(1)
    return {
        "generator": generator,
        "critic": critic,
        "data": real(4000),
        "formulation": "vanilla",
        "latent": 4,
        "mode": "train",  # batch norm on batches, as in training; "eval" for the running averages
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a small GAN and save it.")
    parser.add_argument("--steps", type=int, default=3000)
    train(parser.parse_args().steps)
    print(f"saved {CHECKPOINT}; now: equilibrist audit {Path(__file__).name}:pair")
