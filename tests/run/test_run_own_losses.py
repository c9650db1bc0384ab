"""Runs of games with losses of a user's own: resumed bit for bit, noise and all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from killing import differences, picture
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from equilibrist import AdversarialGame, Recipe, train
from equilibrist.solvers import Alternating, Extragradient, Solver

X = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))


def losses(modules: Any, x: Tensor) -> dict[str, Tensor]:
    fake = modules.generator(torch.randn(len(x), 3, dtype=x.dtype))
    on_fake = modules.critic(fake.detach())
    critic = F.softplus(-modules.critic(x)).mean() + F.softplus(on_fake).mean()
    return {"generator": F.softplus(-modules.critic(fake)).mean(), "critic": critic}


def recipe(solver: Solver) -> Recipe:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(8, 1))
    game = AdversarialGame({"generator": generator, "critic": critic}, losses, X)
    return Recipe(game, game.data, solver, steps=12, batch=16, checkpoint_every=5, log_every=2)


@pytest.mark.parametrize(
    "solver", [Alternating(critic_steps=2), Extragradient()], ids=["alternating", "extragradient"]
)
def test_stopped_and_resumed(solver: Solver, tmp_path: Path, stop_at: Any) -> None:
    train(recipe(solver), tmp_path / "whole", device="cpu", progress="none")
    stop_at(4, 7)
    for step in (4, 7, 12):
        assert train(recipe(solver), tmp_path / "parts", device="cpu", progress="none").step == step
    whole, parts = picture(tmp_path / "whole"), picture(tmp_path / "parts")
    newest = {k: v for k, v in whole.items() if not k.startswith("checkpoints/step") or "12" in k}
    assert differences(newest, parts) == []
