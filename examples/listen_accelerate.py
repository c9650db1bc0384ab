"""A GAN loop under Accelerate, listened to on its main process.

    pip install accelerate
    python examples/listen_accelerate.py
    torchrun --nproc_per_node 2 examples/listen_accelerate.py --epochs 2

`examples/accelerate_loop.py` audits the pair on the way instead.
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import softplus

from equilibrist.interop.accelerate import listening

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--gradients", type=int, default=200, help="what the audit may spend")
args = parser.parse_args()

accelerator = Accelerator(cpu=True)
set_seed(0)
images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
dataset = torch.utils.data.TensorDataset(images[:1200])
loader = torch.utils.data.DataLoader(dataset, batch_size=50, shuffle=True)
generator = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64))
critic = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
adam_g = torch.optim.Adam(generator.parameters(), 1e-3)
adam_c = torch.optim.Adam(critic.parameters(), 1e-3)
generator, critic, adam_g, adam_c, loader = accelerator.prepare(
    generator, critic, adam_g, adam_c, loader
)

with listening(accelerator, critic=critic, generator=generator) as heard:
    for _ in range(args.epochs):
        for (real,) in loader:
            fake = generator(torch.randn(len(real), 16, device=accelerator.device))
            loss = softplus(-critic(real)).mean() + softplus(critic(fake.detach())).mean()
            adam_c.zero_grad()
            accelerator.backward(loss)
            adam_c.step()
            loss = softplus(-critic(fake)).mean()
            adam_g.zero_grad()
            accelerator.backward(loss)
            adam_g.step()

if accelerator.is_main_process:
    print(heard)
    print(heard.audit("vanilla", real=images[1200:], gradients=args.gradients, progress="none"))
accelerator.end_training()
