"""A run that is stopped and resumed leaves the same bytes as one that nobody stopped."""

import random
import shutil
from pathlib import Path

import killing
import numpy as np
import pytest
import torch
from killing import CONFIGURATIONS, differences, picture
from torch import nn

from equilibrist import tree
from equilibrist.optimizers import SGD, Adam
from equilibrist.run import checkpoint, train
from equilibrist.solvers import Alternating, Simultaneous

# 24 steps; rows of metrics every 4, sheets every 8, checkpoints every 6.


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_stopped_thrice(name, tmp_path, go, stop_at):
    go(tmp_path / "whole", name)
    stop_at(5, 6, 15)  # between rows; on a checkpoint; between all of them
    for step in (5, 6, 15):
        run = go(tmp_path / "parts", name)
        assert run.interrupted
        assert run.step == step
    run = go(tmp_path / "parts", name)
    assert not run.interrupted
    assert run.step == 24
    whole, parts = picture(tmp_path / "whole"), picture(tmp_path / "parts")
    assert {"checkpoints/step_00000024.safetensors", "metrics.jsonl", "status.json"} <= whole.keys()
    # The run that was stopped saved more often, so older checkpoints had to go earlier.
    newest = {k: v for k, v in whole.items() if not k.startswith("checkpoints/step") or "24" in k}
    assert differences(newest, parts) == []


@pytest.mark.parametrize("stops", range(3))
def test_stopped_at_random_steps(stops, tmp_path, go, stop_at):
    rng = random.Random(stops)
    name = rng.choice(list(CONFIGURATIONS))
    steps = sorted(rng.sample(range(1, 24), rng.randint(1, 6)))
    go(tmp_path / "whole", name, keep=100)
    stop_at(*steps)
    for _ in range(len(steps) + 1):
        go(tmp_path / "parts", name, keep=100)
    assert differences(picture(tmp_path / "whole"), picture(tmp_path / "parts")) == []


def test_the_comparison_sees_another_seed(tmp_path, go):
    go(tmp_path / "a")
    go(tmp_path / "b", seed=1)
    found = differences(picture(tmp_path / "a"), picture(tmp_path / "b"))
    for name in (
        "metrics.jsonl",
        "checkpoints/step_00000024.safetensors",
        "samples/step_00000024.npy",
    ):
        assert f"{name} differs" in found


def test_more_steps_extend(tmp_path, go):
    go(tmp_path / "whole", keep=100)
    assert go(tmp_path / "parts", steps=8, keep=100).step == 8
    assert go(tmp_path / "parts", steps=16, keep=100).step == 16
    assert go(tmp_path / "parts", keep=100).step == 24
    assert differences(picture(tmp_path / "whole"), picture(tmp_path / "parts")) == []


@pytest.mark.parametrize("lost", [1, 2])
def test_newest_checkpoints_lost(lost, tmp_path, go):
    go(tmp_path, "momentum, batch norm")
    before = picture(tmp_path)
    paths = sorted((tmp_path / "checkpoints").glob("step_*"))
    assert len(paths) == 3
    for path in paths[-lost:]:
        path.unlink()
    with pytest.warns(UserWarning, match="step_00000024.safetensors is gone"):
        go(tmp_path, "momentum, batch norm")
    assert differences(before, picture(tmp_path)) == []


def test_a_finished_run_is_left_as_it_is(tmp_path, go):
    go(tmp_path, "images, spectral norm")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    run = go(tmp_path, "images, spectral norm")
    assert run.step == 24
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert [p.name for p in before if after.get(p) != before[p]] == ["environment.json"]
    assert after.keys() == before.keys()


def test_global_random_state_does_not_matter(tmp_path, go):
    torch.manual_seed(1)
    np.random.seed(1)
    go(tmp_path / "a", "spectral norm, Adam")
    torch.manual_seed(2)
    state = torch.get_rng_state()
    go(tmp_path / "b", "spectral norm, Adam")
    assert torch.equal(torch.get_rng_state(), state)
    assert differences(picture(tmp_path / "a"), picture(tmp_path / "b")) == []


def test_what_train_returns_is_what_it_saved(tmp_path, go):
    run = go(tmp_path, "spectral norm, Adam")
    flat, meta, digest = checkpoint.read_checkpoint(tmp_path / "checkpoints" / run.checkpoint)
    assert meta["step"] == run.step == 24
    assert digest == run.sha256
    for path, leaf in tree.items(run.players):
        assert torch.equal(flat["/".join(("players", *path))], leaf)


class Sideways(nn.Module):
    """A linear layer whose weight lies transposed in memory."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.weight = nn.Parameter((torch.randn(a, b) / a**0.5).t())
        self.bias = nn.Parameter(torch.zeros(b))

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


def sideways(steps: int = 24):
    return killing.recipe(
        Alternating(1, Adam(1e-2)),
        steps=steps,
        batch=37,
        generator=lambda: nn.Sequential(Sideways(4, 67), nn.Tanh(), Sideways(67, 2)),
        critic=lambda: nn.Sequential(
            Sideways(2, 67), nn.Tanh(), Sideways(67, 53), nn.Tanh(), Sideways(53, 1)
        ),
    )


def channels_last(steps: int = 24):
    def build(*layers):
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)

    return killing.recipe(
        Simultaneous(SGD(0.05, momentum=0.9)),
        data=killing.images(),
        steps=steps,
        batch=13,
        generator=lambda: build(
            nn.Linear(4, 48),
            nn.Unflatten(1, (3, 4, 4)),
            nn.Conv2d(3, 9, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(9, 1, 3, padding=1),
            nn.Sigmoid(),
        ),
        critic=lambda: build(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.LeakyReLU(),
            nn.Flatten(),
            nn.Linear(128, 1),
        ),
    )


@pytest.mark.parametrize("build", [sideways, channels_last])
def test_unusual_memory_layouts(build, tmp_path, stop_at):
    def call(name):
        return train(build(), tmp_path / name, device="cpu", progress="none")

    call("whole")
    stop_at(7)
    assert call("parts").interrupted
    call("parts")
    whole = {k: v for k, v in picture(tmp_path / "whole").items() if "step_00000012" not in k}
    assert differences(whole, picture(tmp_path / "parts")) == []


def test_tied_and_expanded_tensors_survive(tmp_path, stop_at):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
            self.b.weight = self.a.weight
            self.register_buffer("one", torch.ones(1).expand(3))

        def forward(self, x):
            return self.b(torch.relu(self.a(x))).sum(1) * self.one.mean()

    def call(name):
        recipe = killing.recipe(Alternating(1, Adam(1e-2)), critic=Tied)
        return train(recipe, tmp_path / name, device="cpu", progress="none")

    call("whole")
    stop_at(13)
    assert call("parts").interrupted
    call("parts")
    whole = {k: v for k, v in picture(tmp_path / "whole").items() if "step_00000012" not in k}
    assert differences(whole, picture(tmp_path / "parts")) == []


def test_checkpoint_files_are_a_function_of_their_content(tmp_path: Path):
    values = {"players": {"generator": {"w": torch.arange(6.0)}}}
    for i in range(12):
        checkpoint.write_checkpoint(tmp_path / f"{i}", values, {"step": 3, "seed": 0, "window": []})
    assert len({(tmp_path / f"{i}").read_bytes() for i in range(12)}) == 1


def test_older_checkpoints_are_pruned_after_a_late_kill(tmp_path, go):
    go(tmp_path / "run")
    names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").glob("step_*"))
    # As if it had been killed after the last checkpoint was written and before the oldest was deleted.
    go(tmp_path / "all", keep=100)
    older = tmp_path / "all" / "checkpoints" / "step_00000006.safetensors"
    shutil.copy(older, tmp_path / "run" / "checkpoints")
    go(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").glob("step_*")) == names
