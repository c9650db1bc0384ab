"""A Lightning GAN (manual optimisation) with an audit every so many batches.

    pip install lightning
    python examples/lightning_loop.py
    python examples/lightning_loop.py --epochs 2 --every 20

The audit is a callback; the LightningModule knows nothing of it.
"""

import argparse

import lightning as L  # noqa: N812 (its usual name)
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from equilibrist.formulations import Vanilla
from equilibrist.interop import Watch, lightning_callback


class DigitsGAN(L.LightningModule):
    def __init__(self, latent: int = 16, lr: float = 1e-3) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.latent, self.lr = latent, lr
        self.generator = nn.Sequential(
            nn.Linear(latent, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.Sigmoid(),
            nn.Unflatten(1, (1, 8, 8)),
        )
        self.critic = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1)
        )

    def training_step(self, batch: list[torch.Tensor], index: int) -> None:
        (real,) = batch
        adam_g, adam_c = self.optimizers()
        fake = self.generator(torch.randn(len(real), self.latent, device=self.device))
        one, zero = torch.ones(len(real), 1).to(real), torch.zeros(len(real), 1).to(real)

        loss_c = binary_cross_entropy_with_logits(self.critic(real), one)
        loss_c = loss_c + binary_cross_entropy_with_logits(self.critic(fake.detach()), zero)
        adam_c.zero_grad()
        self.manual_backward(loss_c)
        adam_c.step()

        loss_g = binary_cross_entropy_with_logits(self.critic(fake), one)
        adam_g.zero_grad()
        self.manual_backward(loss_g)
        adam_g.step()
        self.log_dict({"loss/generator": loss_g, "loss/critic": loss_c})

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = (self.generator, self.critic)
        return [torch.optim.Adam(p.parameters(), self.lr, betas=(0.5, 0.999)) for p in players]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--every", type=int, default=560, help="batches between audits")
    parser.add_argument("--gradients", type=int, default=600, help="what one audit may spend")
    args = parser.parse_args()

    L.seed_everything(0, verbose=False)
    images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
    dataset = torch.utils.data.TensorDataset(images)
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True, drop_last=True)
    model = DigitsGAN()

    watch = Watch(
        model.generator,
        model.critic,
        Vanilla(),
        loader,
        latent=model.latent,
        every=args.every,
        gradients=args.gradients,
    )
    trainer = L.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        devices=1,
        callbacks=[lightning_callback(watch)],
        logger=L.pytorch.loggers.CSVLogger("lightning_logs"),
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader)
    for batches, found in watch.audits:
        print(f"After {batches} batches ({found.seconds:.1f} s):\n{found}")


if __name__ == "__main__":
    main()
