"""A plain PyTorch GAN script, audited by five added lines.

    python examples/plain_loop.py
    python examples/plain_loop.py --steps 200 --every 100

Everything but the lines marked "# equilibrist" is a usual DCGAN script that knows nothing of the
library: without them it runs the same and ends with the same weights, bit for bit.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

from equilibrist.formulations import Vanilla  # equilibrist
from equilibrist.interop import Watch  # equilibrist

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=1500)
parser.add_argument("--every", type=int, default=500, help="steps between lines")
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--lr", type=float, default=2e-3)
args = parser.parse_args()

torch.manual_seed(0)
nz = 32

# Real 8x8 digits, pixels in [-1, 1].
images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 8 - 1
dataset = torch.utils.data.TensorDataset(images)
loader = torch.utils.data.DataLoader(dataset, batch_size=args.batch, shuffle=True)


def weights_init(m):
    if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(m.weight, 0.0, 0.02)
    elif isinstance(m, nn.BatchNorm2d):
        nn.init.normal_(m.weight, 1.0, 0.02)
        nn.init.zeros_(m.bias)


net_g = nn.Sequential(
    nn.ConvTranspose2d(nz, 64, 4, 1, 0, bias=False),  # 4x4
    nn.BatchNorm2d(64),
    nn.ReLU(True),
    nn.ConvTranspose2d(64, 1, 4, 2, 1),  # 8x8
    nn.Tanh(),
)
net_d = nn.Sequential(
    nn.Conv2d(1, 64, 4, 2, 1),  # 4x4
    nn.LeakyReLU(0.2, inplace=True),
    nn.Conv2d(64, 1, 4, 1, 0),  # 1x1
    nn.Flatten(),
)
net_g.apply(weights_init)
net_d.apply(weights_init)

criterion = nn.BCEWithLogitsLoss()
optimizer_d = torch.optim.Adam(net_d.parameters(), lr=args.lr, betas=(0.5, 0.999))
optimizer_g = torch.optim.Adam(net_g.parameters(), lr=args.lr, betas=(0.5, 0.999))
watch = Watch(net_g, net_d, Vanilla(), loader, latent=(nz, 1, 1), every=args.every)  # equilibrist

iters = 0
while iters < args.steps:
    for (real,) in loader:
        # Update D: maximise log D(x) + log(1 - D(G(z))).
        net_d.zero_grad()
        output = net_d(real).view(-1)
        err_d_real = criterion(output, torch.ones_like(output))
        err_d_real.backward()
        fake = net_g(torch.randn(len(real), nz, 1, 1))
        output = net_d(fake.detach()).view(-1)
        err_d_fake = criterion(output, torch.zeros_like(output))
        err_d_fake.backward()
        optimizer_d.step()

        # Update G: maximise log D(G(z)).
        net_g.zero_grad()
        output = net_d(fake).view(-1)
        err_g = criterion(output, torch.ones_like(output))
        err_g.backward()
        optimizer_g.step()

        iters += 1
        if iters % args.every == 0:
            print(f"[{iters}] loss D {(err_d_real + err_d_fake).item():.3f}, G {err_g.item():.3f}")
        watch(iters)  # equilibrist
        if iters == args.steps:
            break

print(*(f"At step {step}:\n{found}" for step, found in watch.audits), sep="\n")  # equilibrist
