"""Runs of mixtures: resumed to the last bit, sampled, scored by both summaries, exported, audited, reported."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from equilibrist import tree
from equilibrist.checks import Verdict, audit
from equilibrist.data import eight_gaussians
from equilibrist.formulations import WGAN
from equilibrist.games import GAN, Mixture
from equilibrist.langevin import RMSPropSGLD
from equilibrist.networks import GeneratorMixture
from equilibrist.penalties import GradientPenalty
from equilibrist.report import write_report
from equilibrist.run import Recipe, load, samples, train
from equilibrist.schedules import Piecewise
from equilibrist.scores import MixtureQuality
from equilibrist.solvers import MirrorGAN, MirrorProxGAN


def generator() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))


def critic() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))


def recipe(solver: Any, steps: int = 6) -> Recipe:
    lone = GAN(generator, critic, WGAN(), latent=2, penalties=[GradientPenalty(1.0)])
    return Recipe(
        game=Mixture(lone, 3),
        data=eight_gaussians(),
        solver=solver,
        steps=steps,
        batch=24,
        scores=(MixtureQuality(samples=60),),
        checkpoint_every=2,
        sample_every=3,
        score_every=3,
        audit={"steps": 5, "starts": 1, "looks": 1, "batches": 8, "local_products": 8},
    )


RULE = RMSPropSGLD(1e-3, 1e-3)
SOLVERS: dict[str, Any] = {
    "mirror": MirrorGAN(RULE, inner=2, pace=Piecewise(((2, 1.0), (6, 0.1)))),
    "mirror-prox": MirrorProxGAN(RULE, {"critic": RMSPropSGLD(2e-3, 1e-3)}, inner=2),
    "grown, all pairs": MirrorGAN(RULE, inner=1, growth=1.3, pairing="all"),
}


def folder(path: Path) -> dict[str, bytes]:
    """What must be the same bytes: the last checkpoint, samples and scores."""
    kept = [path / "checkpoints" / "step_00000006.safetensors", path / "scores.jsonl"]
    kept += sorted((path / "samples").iterdir())
    return {str(p.relative_to(path)): p.read_bytes() for p in kept}


@pytest.mark.parametrize("name", SOLVERS)
def test_resumed_runs_are_the_same_bytes(name: str, tmp_path: Path) -> None:
    whole = recipe(SOLVERS[name])
    train(whole, tmp_path / "whole", device="cpu", progress="none")
    train(dataclasses.replace(whole, steps=4), tmp_path / "parts", device="cpu", progress="none")
    train(whole, tmp_path / "parts", device="cpu", progress="none")
    one, two = folder(tmp_path / "whole"), folder(tmp_path / "parts")
    # The shorter run looked at its last step too.
    two = {k: v for k, v in two.items() if k in one}
    one["scores.jsonl"] = two["scores.jsonl"] = b""
    assert one == two
    assert {"samples/mean.npy", "samples/real.npy", "samples/step_00000006.npy"} <= set(one)


def test_a_mixture_is_scored_sampled_exported_audited_and_reported(tmp_path: Path) -> None:
    made = recipe(SOLVERS["mirror"])
    train(made, tmp_path, device="cpu", progress="none")
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    own = {row["name"] for row in rows if not row["name"].endswith(", mean network")}
    assert {row["name"] for row in rows} == own | {f"{name}, mean network" for name in own}
    run = load(tmp_path, made, device="cpu")
    drawn = run.samples(200)
    modules = samples.export_players(made.game, run.players, run.constants, tmp_path / "out")
    network = GeneratorMixture([generator() for _ in range(3)])
    network.load_state_dict(load_file(modules[0]))
    rng = samples.Use.SHEET.at(sheet=0).generator(run.seed)
    latent = made.game.latent.sample(rng, 200, torch.float32, None)
    torch.testing.assert_close(network(latent), drawn)
    mean = np.load(tmp_path / "samples" / "mean.npy")
    last = np.load(tmp_path / "samples" / "step_00000006.npy")
    assert mean.shape == last.shape
    assert abs(mean - last).max() > 1e-3
    found = audit(run, progress="none")
    assert found["self-tests"].verdict is Verdict.VERIFIED
    assert "3 networks a player" in found["nash/critic"].scope["strategies"]
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "3 networks a player, in equal shares" in page
    assert "Mean network" in page
    assert tree.leaves(run.players)[0].shape[0] == 3
