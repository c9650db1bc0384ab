"""A GAN loop under Accelerate, audited on its main process.

    pip install accelerate
    python examples/accelerate_loop.py
    torchrun --nproc_per_node 2 examples/accelerate_loop.py

The watch is made from the modules as they are before `prepare`: they stay the ones that are trained,
without the wrappers and the autocast that `prepare` may put around them.
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn

from equilibrist.formulations import Vanilla
from equilibrist.interop import Watch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--every", type=int, default=560, help="batches between audits")
    parser.add_argument("--gradients", type=int, default=600, help="what one audit may spend")
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    args = parser.parse_args()

    accelerator = Accelerator(cpu=True, mixed_precision=args.precision)
    set_seed(0)
    nz = 16
    images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
    dataset = torch.utils.data.TensorDataset(images)
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True, drop_last=True)
    generator = nn.Sequential(
        nn.Linear(nz, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.Sigmoid(),
        nn.Unflatten(1, (1, 8, 8)),
    )
    # A critic that ends with a sigmoid: its losses are cross entropies of probabilities.
    critic = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1), nn.Sigmoid()
    )
    adam_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    adam_c = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))

    watch = Watch(
        generator,
        critic,
        Vanilla(probabilities=True),
        loader,
        latent=nz,
        every=args.every,
        gradients=args.gradients,
    )
    prepared = accelerator.prepare(generator, critic, adam_g, adam_c, loader)
    generator, critic, adam_g, adam_c, loader = prepared
    criterion = nn.BCELoss()

    step = 0
    for _ in range(args.epochs):
        for (real,) in loader:
            step += 1
            fake = generator(torch.randn(len(real), nz, device=accelerator.device))
            one, zero = torch.ones(len(real), 1).to(real), torch.zeros(len(real), 1).to(real)
            adam_c.zero_grad()
            loss_c = criterion(critic(real), one) + criterion(critic(fake.detach()), zero)
            accelerator.backward(loss_c)
            adam_c.step()

            adam_g.zero_grad()
            loss_g = criterion(critic(fake), one)
            accelerator.backward(loss_g)
            adam_g.step()

            if accelerator.is_main_process:
                watch(step)

    for step, found in watch.audits:
        accelerator.print(f"After {step} batches ({found.seconds:.1f} s):\n{found}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
