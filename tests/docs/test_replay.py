"""The replay that docs/choose.md shows: exported modules and a witness, by hand, give the audited gain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fences import to_run

import equilibrist as eq
from equilibrist.cli import main
from equilibrist.run.samples import export_players

FILE = """
from torch import nn
import equilibrist as eq
def pair():
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)), \\
        nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
def recipe(steps: int = 150):
    return eq.Recipe(eq.GAN(lambda: pair()[0], lambda: pair()[1], eq.Vanilla(), latent=4, spectral_norm=True),
                     eq.eight_gaussians(), eq.Alternating(optimizer=eq.Adam(2e-3)), steps=steps, batch=128)
"""


def test_a_witness_replays_with_the_exported_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own: dict = {}
    exec(FILE, own)
    run = eq.train(own["recipe"](), "runs/mine", device="cpu", progress="none")
    eq.audit(run, steps=60, starts=1, progress="none")
    export_players(run.recipe.game, run.players, run.constants, Path("runs/mine/export"))
    rows = json.loads(Path("runs/mine/audit/audit.json").read_text())["certificates"]
    row = next(r for r in rows if r["claim"] == "nash/generator")
    assert row["verdict"] == "REFUTED"
    generator, critic = own["pair"]()
    assert row["witness"] == "nash_generator.safetensors"
    z = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(0))
    space = {"generator": generator, "critic": critic, "z": z}
    (lines,) = (block for block in to_run("docs/choose.md") if "load_state_dict" in block)
    with torch.no_grad():
        exec(lines, space)
    low, high = row["evidence"]["interval"]
    assert low - 0.01 <= float(space["gain"]) <= high + 0.01
    assert main(["info", "runs/mine"]) == 0
