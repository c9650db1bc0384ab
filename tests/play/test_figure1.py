"""The campaign of Mescheder's figure 1: its Jacobian, its pictures, its figures."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import equilibrist as eq
from equilibrist import tree
from equilibrist.core.draws import Stream, generator

FILE = Path(__file__).parents[2] / "campaigns" / "mescheder_figure1.py"


@pytest.fixture(scope="module")
def campaign() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mescheder_figure1", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_jacobian_is_the_operator_s(campaign: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "BATCHES", 2)
    small = eq.resolve("eight-gaussians", {"width": 5, "depth": 2, "latent": 4}).build().game
    made = dataclasses.replace(campaign.recipe("consensus"), game=small)
    players, constants = made.game.init(3, dtype=made.dtype)
    J = torch.from_numpy(campaign.jacobian(made, players, constants))
    wide, fixed = (tree.to(x, dtype=torch.float64) for x in (players, constants))
    source = made.data.to(dtype=torch.float64)
    draws = [
        made.game.draw(generator(0, Stream.STUDY, k), source, made.batch, torch.float64)
        for k in range(2)
    ]
    operator = eq.JacobianOperator(eq.VectorField(made.game), wide, fixed, draws)
    u = torch.randn(operator.shape[0], dtype=torch.float64, generator=torch.manual_seed(0))
    torch.testing.assert_close(J @ u, operator @ u, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(J.T @ u, operator.T @ u, rtol=1e-10, atol=1e-12)
    # J is not symmetric: the transpose would be another matrix.
    assert (J @ u - J.T @ u).norm() > 1e-3 * (J @ u).norm()


def test_spectra_are_kept(
    campaign: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    J = np.array([[0.0, 1.0], [-1.0, 0.0]])
    monkeypatch.setattr(campaign, "jacobian", lambda *_: J)
    first = campaign.spectra(tmp_path, "consensus", 0, 0)
    assert np.allclose(sorted(first["jacobian"].imag), [-1, 1])
    assert np.allclose(first["jacobian"].real, 0)
    assert np.allclose(first["direction"].real, campaign.GAMMA)  # J^T J = I
    monkeypatch.setattr(campaign, "jacobian", lambda *_: pytest.fail("computed again"))
    again = campaign.spectra(tmp_path, "simga", 0, 0)  # the initial pair is the same
    assert np.array_equal(again["direction"], first["direction"])


def test_described(campaign: ModuleType) -> None:
    # 0.001 is below a hundredth of the largest: neither counted nor a ratio.
    found = campaign.described(np.array([3 + 4j, 3 - 4j, -0.1, 0.001 + 0.002j]))
    assert found["least Re"] == -0.1
    assert found["most Re"] == 3
    assert found["most |Im|"] == 4
    assert (found["negative"], found["large"]) == (1, 3)
    assert found["q"] == pytest.approx(4 / 3)


def test_pictures_stand_upright(campaign: ModuleType) -> None:
    shade = np.asarray(campaign.density(np.tile([[0.5, 0.8]], (50, 1)), 160).convert("L"))
    row, column = np.unravel_index(shade.argmin(), shade.shape)
    assert abs(column - 80 * (1 + 0.5 / 1.6)) < 3
    assert abs(row - 80 * (1 - 0.8 / 1.6)) < 3

    empty = np.asarray(campaign.plane(np.array([], dtype=complex), (0, 0, 0), 201), dtype=int)
    full = np.asarray(campaign.plane(np.array([1 + 10j]), (0, 0, 0), 201), dtype=int)
    rows, columns = np.nonzero(np.abs(full - empty).sum(2) > 60)
    scale = np.arcsinh(campaign.FAR / campaign.UNIT)
    assert abs(columns.mean() - 100.5 * (1 + np.arcsinh(100) / scale)) < 1.5
    assert abs(rows.mean() - 100.5 * (1 - np.arcsinh(1000) / scale)) < 1.5


def test_points_outside_are_told(campaign: ModuleType) -> None:
    inside = np.zeros((100, 2))
    mixed = inside.copy()
    mixed[:40] = 5.0
    one, other = (np.asarray(campaign.density(x, 160)) for x in (inside, mixed))
    assert (one[140:158, 2:80] == 255).all()
    assert (other[140:158, 2:80] < 128).any()  # the words


def test_figures_of_the_data(campaign: ModuleType) -> None:
    data = campaign.recipe("simga").data
    real = data.sample(np.random.default_rng(0), 2560)
    one = data.modes[:1].repeat(100, 1) + 0.029  # 0.041 = 4.1 sigma away
    found = campaign.figures_of([real, one])
    assert found["modes"].tolist() == [8, 0]
    assert found["good"][0] == pytest.approx(1 - np.exp(-4.5), abs=0.01)
    assert found["spread"] == pytest.approx([0.7072, 0], abs=0.002)


def test_interval(campaign: ModuleType) -> None:
    assert campaign.interval([1.0, 2.0, 3.0]) == "2.000 +- 2.484"  # t = 4.3027 at 2 degrees


def test_cost_is_a_ratio_for_each_pair(campaign: ModuleType) -> None:
    for seeds in ([0], [0, 1]):
        ratios = campaign.cost(seeds, pairs=2, steps=1)
        assert len(ratios) == 2
        assert all(np.isfinite(r) and r > 0 for r in ratios)
