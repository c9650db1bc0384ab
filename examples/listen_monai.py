"""MONAI's adversarial trainer with one handler more: its critic is kept, with what it was shown.

    pip install "monai[ignite]"
    python examples/listen_monai.py
    python examples/listen_monai.py --epochs 2

A denoiser of 8x8 digits with an adversarial term; the critic is a patch critic. The handler is one entry of
`train_handlers`; the rest is as MONAI's users write it.
"""

import argparse

import torch
from monai.engines import AdversarialTrainer
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from sklearn.datasets import load_digits
from torch import nn

from equilibrist.interop.monai import Listening

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--gradients", type=int, default=200, help="what the audit may spend")
args = parser.parse_args()

torch.manual_seed(0)
images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
noisy = (images + 0.3 * torch.randn_like(images)).clamp(0, 1)
train, held_out = slice(0, 1200), slice(1200, None)
pairs = [{"image": a, "label": b} for a, b in zip(noisy[train], images[train], strict=True)]

generator = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid()
)
critic = PatchDiscriminator(spatial_dims=2, channels=8, in_channels=1, num_layers_d=1)
adversarial = PatchAdversarialLoss(criterion="bce")


def generator_loss(logits):
    return 0.05 * adversarial(logits[-1], target_is_real=True, for_discriminator=False)


def critic_loss(real, fake):
    loss = adversarial(real[-1], target_is_real=True, for_discriminator=True)
    return 0.5 * (loss + adversarial(fake[-1], target_is_real=False, for_discriminator=True))


listening = Listening(keep=32)
AdversarialTrainer(
    device=torch.device("cpu"),
    max_epochs=args.epochs,
    train_data_loader=torch.utils.data.DataLoader(pairs, batch_size=32, shuffle=True),
    g_network=generator,
    g_optimizer=torch.optim.Adam(generator.parameters(), 1e-3),
    g_loss_function=generator_loss,
    recon_loss_function=nn.L1Loss(),
    d_network=critic,
    d_optimizer=torch.optim.Adam(critic.parameters(), 1e-3),
    d_loss_function=critic_loss,
    train_handlers=[listening],
).run()

heard = listening.heard
print(heard)
# The trainer's real images are its inputs, the noisy ones; the generated ones are what the generator makes of them.
with torch.no_grad():
    made = generator(noisy[held_out])
found = heard.audit(
    "vanilla",
    real=noisy[held_out],
    fake=made,
    score=lambda outputs: outputs[-1].flatten(1),  # the last of its list is the map of logits
    gradients=args.gradients,
    progress="none",
)
print(found)
