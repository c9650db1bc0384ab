"""A solver of the library as the step of a plain loop, with torch.optim.Adam underneath.

    python examples/drop_in_solver.py
    python examples/drop_in_solver.py --solver simultaneous --steps 500

The loop keeps its modules, its DataLoader, its optimisers and their schedule; only the hand-written
updates of the two players are replaced by `play.step`.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

import equilibrist as eq
from equilibrist.interop import Play, TorchRule, Watch

parser = argparse.ArgumentParser()
parser.add_argument("--solver", choices=["alternating", "simultaneous"], default="alternating")
parser.add_argument("--steps", type=int, default=1500)
parser.add_argument("--gradients", type=int, default=600, help="what the audit may spend")
args = parser.parse_args()

torch.manual_seed(0)
nz = 16
images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
dataset = torch.utils.data.TensorDataset(images)
loader = torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True, drop_last=True)

generator = nn.Sequential(
    nn.Linear(nz, 128), nn.ReLU(), nn.Linear(128, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8))
)
critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
adam_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
adam_c = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
schedules = [torch.optim.lr_scheduler.ExponentialLR(adam, 0.999) for adam in (adam_g, adam_c)]

# What a solver would descend along goes into .grad, and Adam steps along it.
rules = {"generator": TorchRule(adam_g, generator), "critic": TorchRule(adam_c, critic)}
solvers = {
    "alternating": eq.Alternating(critic_steps=2, optimizers=rules),
    "simultaneous": eq.Simultaneous(optimizers=rules),
}
# The critic's weights are divided by their largest singular values inside of the game.
game = eq.GAN(generator, critic, eq.Vanilla(), latent=nz, spectral_norm=True)
play = Play(game, generator, critic, solvers[args.solver])

while play.steps < args.steps:
    for (real,) in loader:
        info = play.step(real)
        for schedule in schedules:
            schedule.step()
        if play.steps % 500 == 0:
            losses = ", ".join(f"{player} {loss:.3f}" for player, loss in info["loss"].items())
            print(f"[{play.steps}] loss: {losses}; lr {schedules[0].get_last_lr()[0]:.2g}")
        if play.steps == args.steps:
            break

watch = Watch(
    generator,
    critic,
    eq.Vanilla(),
    loader,
    latent=nz,
    spectral_norm=True,
    gradients=args.gradients,
)
found = watch.audit(play.steps)
print(found)
print(f"the audit took {found.seconds:.1f} seconds")
