"""A recipe of one's own: an audit is bound to the recipe that made the run, and every mistake in a
recipe is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from equilibrist.cli import main

FILE = """
import numpy as np, torch
from torch import nn
import equilibrist as eq
from neighbour import points

def pair():
    return (lambda: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)),
            lambda: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)))

def recipe(formulation, data=None, solver=None, steps=2, batch=8, **game):
    return eq.Recipe(eq.GAN(*pair(), formulation, latent=2, **game), points() if data is None else data,
                     eq.Alternating() if solver is None else solver, steps=steps, batch=batch)

def gp(): return recipe(eq.WGAN(), penalties=[eq.GradientPenalty()])
def wc(): return recipe(eq.WGAN(), projections=[eq.WeightClipping(0.1)])
def other_data(): return recipe(eq.WGAN(), penalties=[eq.GradientPenalty()], data=points(1.0))
def torch_optimizer(): return recipe(eq.WGAN(), solver=eq.Alternating(optimizer=torch.optim.Adam))
def optimizer_class(): return recipe(eq.WGAN(), solver=eq.Alternating(optimizer=eq.Adam))
def solver_class(): return recipe(eq.WGAN(), solver=eq.Alternating)
def array_as_data(): return recipe(eq.WGAN(), data=np.zeros((9, 2)))
def torch_betas(): return recipe(eq.WGAN(), solver=eq.Alternating(optimizer=eq.Adam(1e-3, (0.5, 0.9))))
def half_steps(): return recipe(eq.WGAN(), steps=1.5)
def penalty_alone(): return recipe(eq.WGAN(), penalties=eq.GradientPenalty())
def penalty_class(): return recipe(eq.WGAN(), penalties=[eq.GradientPenalty])
def penalty_as_set(): return recipe(eq.WGAN(), projections=[eq.GradientPenalty()])
def breaks_later():
    class Bad(eq.Adam):
        def update(self, grads, state, params): raise KeyError("oops")
    return recipe(eq.WGAN(), solver=eq.Alternating(optimizer=Bad()))
"""
NEIGHBOUR = """
import torch, equilibrist as eq
def points(shift=0.0):
    return eq.ArraySource(torch.linspace(-1, 1, 40).reshape(20, 2) + shift, kind="points")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(FILE)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere", *sys.path])
    return tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torch_optimizer", "Adam is no update rule"),
        ("optimizer_class", "Adam is no update rule"),
        ("solver_class", "solver=Alternating in the recipe is not a solver"),
        ("array_as_data", "data=ndarray in the recipe is not a source"),
        ("torch_betas", "Adam.beta1 must be a number"),
        ("half_steps", "steps=1.5 in the recipe: it must be a whole number"),
        ("penalty_alone", "penalties must be a list"),
        ("penalty_class", "penalties holds GradientPenalty"),
        ("penalty_as_set", "projections holds GradientPenalty"),
    ],
)
def test_mistakes_are_one_line(
    name: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", f"own.py:{name}", "--progress", "none"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not (folder / "runs").exists()


def test_the_unforeseen_is_one_line_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "own.py:breaks_later", "--progress", "none"]) == 1
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert "unexpected KeyError: 'oops'" in error
    assert "EQUILIBRIST_TRACEBACK=1" in error


def test_an_audit_is_bound_to_the_recipe_of_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "own.py:gp", "--progress", "none", "--dir", "r"]) == 0
    assert "Next: equilibrist audit r --recipe own.py:gp" in capsys.readouterr().out
    small = ["--set", "steps=2", "--set", "starts=1", "--set", "groups=3", "--progress", "none"]
    for other, where in (("wc", "zero_sum"), ("other_data", "sha256")):
        for command in (["audit", "r", *small], ["export", "r"], ["sample", "r"]):
            assert main([*command, "--recipe", f"own.py:{other}"]) == 3
            assert where in capsys.readouterr().err
    assert not (folder / "r" / "audit").exists()
    assert main(["audit", "r", "--recipe", "own.py:gp", *small]) == 0
