"""A loop under Accelerate, whose wiring is checked in its first rounds.

pip install accelerate
python examples/wiring_accelerate.py
python examples/wiring_accelerate.py --slip   # the critic's gradients are never cleared
"""

import argparse
import itertools

import torch
from accelerate import Accelerator
from torch import nn

import equilibrist

parser = argparse.ArgumentParser()
parser.add_argument("--slip", action="store_true", help="leave out one zero_grad")
args = parser.parse_args()

torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
adam_g = torch.optim.Adam(generator.parameters(), 1e-3)
adam_c = torch.optim.Adam(critic.parameters(), 1e-3)
loader = torch.utils.data.DataLoader(torch.randn(1024, 2) + 3, 64)
generator, critic, adam_g, adam_c, loader = accelerator.prepare(
    generator, critic, adam_g, adam_c, loader
)


def train_step(real):
    """The critic's step, then the generator's."""
    fake = generator(torch.randn(len(real), 4, device=accelerator.device))
    loss = (1 - critic(real)).relu().mean() + (1 + critic(fake.detach())).relu().mean()
    if not args.slip:
        adam_c.zero_grad()
    accelerator.backward(loss)
    adam_c.step()
    adam_g.zero_grad()
    accelerator.backward(-critic(fake).mean())
    adam_g.step()


with equilibrist.check_wiring({"generator": generator, "critic": critic}, "hinge") as found:
    for batch in itertools.islice(loader, 12):
        train_step(batch)
accelerator.print(found)
