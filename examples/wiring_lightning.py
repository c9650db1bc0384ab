"""A LightningModule with manual optimisation, whose wiring is checked around `fit`.

pip install lightning
python examples/wiring_lightning.py
python examples/wiring_lightning.py --slip   # the generator's loss with the wrong sign
"""

import argparse

import lightning
import torch
from torch import nn
from torch.nn.functional import softplus

import equilibrist

parser = argparse.ArgumentParser()
parser.add_argument("--slip", action="store_true", help="turn the sign of the generator's loss")
args = parser.parse_args()


class PlaneGAN(lightning.LightningModule):
    """A GAN of points in the plane."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def configure_optimizers(self):
        """One Adam each."""
        return [torch.optim.Adam(m.parameters(), 1e-3) for m in (self.generator, self.critic)]

    def training_step(self, real, batch_idx):
        """The critic's step, then the generator's."""
        adam_g, adam_c = self.optimizers()
        fake = self.generator(torch.randn(len(real), 4, device=real.device))
        loss = softplus(-self.critic(real)).mean() + softplus(self.critic(fake.detach())).mean()
        adam_c.zero_grad()
        self.manual_backward(loss)
        adam_c.step()
        loss = softplus(-self.critic(fake)).mean()
        adam_g.zero_grad()
        self.manual_backward(-loss if args.slip else loss)
        adam_g.step()


torch.manual_seed(0)
model = PlaneGAN()
data = torch.utils.data.DataLoader(torch.randn(1024, 2) + 3, 64)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}

players = {"generator": model.generator, "critic": model.critic}
with equilibrist.check_wiring(players, "vanilla") as found:
    lightning.Trainer(max_steps=24, accelerator="cpu", **quiet).fit(model, data)
print(found)
