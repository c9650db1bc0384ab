"""Samples that are neither images nor points: signals, sequences, volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equilibrist as eq
from equilibrist.data.loaders import source_of
from equilibrist.errors import DataError


def sequences() -> Tensor:
    return torch.arange(40 * 6).reshape(40, 3, 2) / 240


def test_arrays_keep_their_shape_through_draws_splits_and_moves() -> None:
    source = eq.ArraySource(sequences(), kind="arrays", labels=np.arange(40) % 4)
    assert (source.shape, source.value_range, source.classes) == ((3, 2), None, 4)
    x, label = source.sample_pairs(np.random.default_rng(0), 5)
    row = (x[:, 0, 0] * 40).long()
    assert torch.equal(x, sequences()[row])
    assert torch.equal(label, row % 4)
    part, _ = source.to(dtype=torch.float64).split((0.5, 0.5), np.random.default_rng(0))
    assert (part.shape, part.size, part.all().dtype) == ((3, 2), 20, torch.float64)
    with pytest.raises(
        DataError, match=r"shape \[40\] does not fit arrays; reshape it to \[N, ...\]"
    ):
        eq.ArraySource(torch.zeros(40), kind="arrays")


class Generator(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.net, self.shape = nn.Linear(2, 6), shape

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).reshape(-1, *self.shape)


@pytest.mark.parametrize(("shape", "kind"), [((3, 2), "arrays"), ((6,), "points")])
def test_an_audit_has_samples_as_the_generator_makes_them(
    shape: tuple[int, ...], kind: str
) -> None:
    assert source_of(sequences()).kind == "points"
    critic = nn.Sequential(nn.Flatten(), nn.Linear(6, 1))
    watch = eq.Watch(Generator(*shape), critic, sequences(), "vanilla", latent=2)
    assert (watch.data.kind, watch.data.shape) == (kind, shape)
    assert torch.equal(watch.data.all().flatten(1), sequences().flatten(1))
    with pytest.raises(eq.GameError, match=r"samples of shape \[2, 3\], but the data has \[6\]"):
        eq.Watch(Generator(2, 3), critic, sequences(), "vanilla", latent=2)


def test_runs_of_sequences_are_sampled_and_reported(tmp_path) -> None:
    game = eq.GAN(Generator(3, 2), nn.Sequential(nn.Flatten(), nn.Linear(6, 1)), "wgan", latent=2)
    data = eq.ArraySource(sequences(), kind="arrays")
    recipe = eq.Recipe(game, data, eq.Simultaneous(eq.SGD(0.01)), steps=2, batch=8)
    run = eq.train(recipe, tmp_path / "run", progress="none")
    assert run.samples(4).shape == (4, 3, 2)
    (sheet,) = (tmp_path / "run" / "samples").glob("step_*2.npy")
    assert np.load(sheet).shape == (64, 3, 2)
    text = eq.write_report(tmp_path / "run").read_text()
    assert text.count("Samples of shape [3, 2] lie beside the record as NumPy files") == 1
    assert "40 arrays, each 3 \N{MULTIPLICATION SIGN} 2" in text
    assert "cannot be read" not in text
