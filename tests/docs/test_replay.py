"""The replay that docs/choose.md shows: exported modules and a witness, by hand, give the audited gain."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import softplus

import equilibrist as eq
from equilibrist.cli import main
from equilibrist.run.samples import export

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


def test_a_witness_replays_with_the_exported_pair(tmp_path: Path) -> None:
    own: dict = {}
    exec(FILE, own)
    run = eq.train(own["recipe"](), tmp_path / "r", device="cpu", progress="none")
    eq.audit(run, steps=60, starts=1, progress="none")
    export(run.recipe.game, run.players, run.constants, tmp_path / "export")
    rows = json.loads((tmp_path / "r/audit/audit.json").read_text())["certificates"]
    row = next(r for r in rows if r["claim"] == "nash/generator")
    assert row["verdict"] == "REFUTED"
    generator, critic = own["pair"]()
    critic.load_state_dict(load_file(tmp_path / "export/critic.safetensors"))
    generator.load_state_dict(load_file(tmp_path / "export/generator.safetensors"))
    z = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = softplus(-critic(generator(z))).mean()
        generator.load_state_dict(load_file(tmp_path / "r/audit" / row["witness"]))
        gain = float(before - softplus(-critic(generator(z))).mean())
    low, high = row["evidence"]["interval"]
    assert low - 0.01 <= gain <= high + 0.01
    assert isinstance(critic, nn.Module)
    assert main(["info", str(tmp_path / "r")]) == 0
