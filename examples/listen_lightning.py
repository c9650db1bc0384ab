"""A Lightning GAN (manual optimisation), listened to by a callback.

    pip install lightning
    python examples/listen_lightning.py
    python examples/listen_lightning.py --epochs 2

The LightningModule knows nothing of it. `examples/lightning_loop.py` audits the pair on the way instead.
"""

import argparse

import lightning as L  # noqa: N812 (its usual name)
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import softplus

from equilibrist.interop.lightning import listening_callback


class DigitsGAN(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64))
        self.critic = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))

    def training_step(self, batch, index):
        (real,) = batch
        adam_g, adam_c = self.optimizers()
        fake = self.generator(torch.randn(len(real), 16))
        loss = softplus(-self.critic(real)).mean() + softplus(self.critic(fake.detach())).mean()
        adam_c.zero_grad()
        self.manual_backward(loss)
        adam_c.step()
        loss = softplus(-self.critic(fake)).mean()
        adam_g.zero_grad()
        self.manual_backward(loss)
        adam_g.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(m.parameters(), 1e-3) for m in (self.generator, self.critic)]


parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--gradients", type=int, default=200, help="what the audit may spend")
args = parser.parse_args()

L.seed_everything(0)
images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
dataset = torch.utils.data.TensorDataset(images[:1200])
loader = torch.utils.data.DataLoader(dataset, batch_size=50, shuffle=True)
listening = listening_callback(critic="critic", generator="generator")
trainer = L.Trainer(
    max_epochs=args.epochs,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    callbacks=[listening],
)
trainer.fit(DigitsGAN(), loader)

heard = listening.heard
print(heard)
print(heard.audit("vanilla", real=images[1200:], gradients=args.gradients, progress="none"))
