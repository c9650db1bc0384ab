"""An ensemble's members are the single runs of their seeds, whatever happens to one of them."""

import dataclasses
import json
import math
import warnings
from functools import partial

import killing
import numpy as np
import pytest
import torch
from killing import conditional, differences, picture, recipe
from torch import nn

from equilibrist import tree
from equilibrist._draws import Batches
from equilibrist._errors import GameError, RecipeError, RecordError
from equilibrist._field import VectorField
from equilibrist.checks import audit
from equilibrist.data import eight_gaussians
from equilibrist.formulations import WGAN
from equilibrist.networks import CriticEnsemble
from equilibrist.optimizers import SGD, Adam, RMSProp, TFRMSProp
from equilibrist.penalties import R1, GradientPenalty
from equilibrist.per_member import PerMember, member_of
from equilibrist.projections import SpectralBall, WeightClipping
from equilibrist.report import write_report
from equilibrist.run import checkpoint, ensemble, load, train
from equilibrist.run import ensemble as _  # noqa: F401
from equilibrist.run.loop import _draw
from equilibrist.schedules import Clipped, Cosine, Scheduled
from equilibrist.scores import MixtureQuality
from equilibrist.solvers import (
    Alternating,
    Averaged,
    Competitive,
    Consensus,
    Extragradient,
    FollowTheRidge,
    Lookahead,
    Optimistic,
    PastExtragradient,
    Proximal,
    Simultaneous,
    SymplecticAdjustment,
    Unrolled,
)

ADAM = Adam(1e-3, 0.5, 0.9)
STEPS = 50
QUIET = {"steps": STEPS, "every": (STEPS, STEPS, STEPS), "batch": 8}
SOLVERS = {
    "alternating": Alternating(2, ADAM),
    "simultaneous": Simultaneous(SGD(0.05, 0.5)),
    "simultaneous, two rules": Simultaneous(ADAM, {"critic": RMSProp(1e-3)}),
    "consensus": Consensus(TFRMSProp(1e-3), gamma=1.0),
    "consensus, two minibatches": Consensus(ADAM, gamma=0.1, batches=2),
    "extragradient": Extragradient(ADAM),
    "extragradient, fresh": Extragradient(SGD(0.05), fresh=True),
    "past extragradient": PastExtragradient(ADAM),
    "optimistic": Optimistic(ADAM),
    "symplectic": SymplecticAdjustment(ADAM, align=True),
    "competitive": Competitive(SGD(0.05), iterations=2),
    "ridge": FollowTheRidge(SGD(0.02), damping=1.0, iterations=2),
    "unrolled": Unrolled(ADAM, unroll=2),
    "proximal": Proximal(3, 0.1, ADAM),
    "proximal, moments kept": Proximal(3, 0.1, ADAM, reset=False, fresh=True),
    "averaged": Averaged(Alternating(1, ADAM), 0.9),
    "lookahead": Lookahead(Alternating(1, ADAM), 5, 0.5),
    "clipped": Alternating(1, Clipped(ADAM, 0.05)),
    "scheduled": Simultaneous(Scheduled(Clipped(SGD(0.1), 0.1), Cosine(STEPS))),
}
GAMES = {
    "spectral norm": {"spectral_norm": True},
    "gradient penalty": {"formulation": WGAN(), "penalties": [GradientPenalty()]},
    "r1": {"penalties": [R1(1.0)]},
    "clipping": {"formulation": WGAN(), "projections": [WeightClipping(0.05)]},
    "batch norm": {"norm": True},
    "several critics": {
        "critic": lambda: CriticEnsemble(killing.perceptron(2, 8, 1) for _ in range(2))
    },
}


def singly(one, seed):
    """The run of one seed, by hand: its players, constants and last losses."""
    start = one.game.init(seed, device="cpu", dtype=one.dtype)
    data = one.data.to("cpu", one.dtype)
    make = partial(_draw, one.game, data, one.dtype, torch.device("cpu"))
    batches, field = Batches(make, one.batch, seed), VectorField(one.game, parts=one.accumulate)
    players, constants, state = start.players, start.constants, one.solver.init(start.players)
    for step in range(one.steps):
        players, constants, state, info = one.solver.step(
            field, players, constants, state, batches.at(step)
        )
    return players, constants, state, info


def close(a, b, tolerance):
    """The largest difference of two trees, over the norm of the first."""
    assert [k for k, _ in tree.items(a)] == [k for k, _ in tree.items(b)]
    gap = max(float((x - y).abs().max()) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))
    size = float(tree.norm(a))
    assert gap <= tolerance * size, gap / size


def together(made, folder, seeds=(0, 3), **options):
    return ensemble(made, folder, seeds, device="cpu", progress="none", **options)


def members_are_single_runs(made, folder, tolerance):
    found = together(made, folder)
    assert found.diverged == {}
    assert not found.interrupted
    for run, seed in zip(found.runs, (0, 3), strict=True):
        players, constants, state, info = singly(made, seed)
        assert run.seed == seed
        assert run.step == made.steps
        close(players, run.players, tolerance)
        if any(constants.values()):
            close(constants, run.constants, tolerance)
        if "average" in state:
            close(state["average"], run.average, tolerance)
        if made.every("log") == 1:
            row = run_rows(run.directory)[-1]
            for player, value in info["loss"].items():
                assert row["loss"][player] == pytest.approx(float(value), rel=1e-9)
        held, _, _ = checkpoint.read(run.directory / "checkpoints" / run.checkpoint)
        # The same layout as that of a single run's checkpoint, shared counters included.
        like = {"players": players, "constants": constants, "state": state}
        assert {k: v.shape for k, v in held.items() if k != "window"} == {
            "/".join(k): v.shape for k, v in tree.items(like)
        }
    assert not torch.equal(
        tree.flatten(found.runs[0].players), tree.flatten(found.runs[1].players)
    )


def run_rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers(name, tmp_path):
    made = recipe(SOLVERS[name], dtype=torch.float64, **QUIET)
    members_are_single_runs(made, tmp_path, 1e-12)


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("solver", ["alternating", "extragradient"])
def test_games(name, solver, tmp_path):
    made = recipe(SOLVERS[solver], dtype=torch.float64, **QUIET, **GAMES[name])
    members_are_single_runs(made, tmp_path, 1e-12)


def test_conditional(tmp_path):
    made = conditional(SOLVERS["alternating"], dtype=torch.float64, **QUIET)
    members_are_single_runs(made, tmp_path, 1e-12)


def test_accumulated(tmp_path):
    further = {"accumulate": 2}
    made = recipe(SOLVERS["simultaneous"], dtype=torch.float64, further=further, **QUIET)
    members_are_single_runs(made, tmp_path, 1e-12)


def test_float32(tmp_path):
    members_are_single_runs(recipe(SOLVERS["alternating"], **QUIET), tmp_path, 1e-4)
