"""An ensemble's members are the single runs of their seeds, whatever happens to one of them."""

import dataclasses
import json
import math
import shutil

import killing
import numpy as np
import pytest
import torch
from killing import conditional, differences, picture, recipe
from torch import nn

from equilibrist import tree
from equilibrist.checks import audit
from equilibrist.core.draws import Batches
from equilibrist.core.field import VectorField
from equilibrist.data import eight_gaussians
from equilibrist.errors import GameError, NonFiniteError, RecipeError, RecordError
from equilibrist.formulations import WGAN
from equilibrist.langevin import SGLD, RMSPropSGLD
from equilibrist.networks import CriticEnsemble
from equilibrist.optimizers import SGD, Adam, RMSProp, TFRMSProp
from equilibrist.penalties import R1, GradientPenalty
from equilibrist.per_member import PerMember, member_of
from equilibrist.projections import SpectralBall, WeightClipping
from equilibrist.report import write_report
from equilibrist.run import checkpoint, ensemble, load, train
from equilibrist.schedules import Clipped, Cosine, Scheduled
from equilibrist.scores import MixtureQuality
from equilibrist.solvers import (
    Alternating,
    AnchoredExtragradient,
    Averaged,
    Competitive,
    Consensus,
    Extragradient,
    FollowTheRidge,
    Lookahead,
    MirrorGAN,
    MirrorProxGAN,
    Optimistic,
    PastExtragradient,
    Proximal,
    Simultaneous,
    SymplecticAdjustment,
    Unrolled,
)

ADAM = Adam(1e-3, 0.5, 0.9)
STEPS = 20
QUIET = {"steps": STEPS, "every": (STEPS, STEPS, STEPS), "batch": 8}
SOLVERS = {
    "alternating": Alternating(2, ADAM),
    "simultaneous": Simultaneous(SGD(0.05, 0.5)),
    "simultaneous, two rules": Simultaneous(ADAM, {"critic": RMSProp(1e-3)}),
    "consensus": Consensus(TFRMSProp(1e-3), gamma=1.0),
    "consensus, two minibatches": Consensus(ADAM, gamma=0.1, batches=2),
    "extragradient": Extragradient(ADAM),
    "extragradient, fresh": Extragradient(SGD(0.05), fresh=True),
    "extragradient, exploring": Extragradient(ADAM, explore=lambda t: 1 + t / 10),
    "anchored": AnchoredExtragradient(SGD(0.05), restart=7),
    "past extragradient": PastExtragradient(ADAM),
    "optimistic": Optimistic(ADAM),
    "symplectic": SymplecticAdjustment(ADAM, align=True),
    "competitive": Competitive(SGD(0.05), iterations=1),
    "ridge": FollowTheRidge(SGD(0.02), damping=1.0, iterations=1),
    "unrolled": Unrolled(ADAM, unroll=2),
    "proximal": Proximal(3, 0.1, ADAM),
    "proximal, moments kept": Proximal(3, 0.1, ADAM, reset=False, fresh=True),
    "mirror": MirrorGAN(SGLD(0.02, 0.1), inner=2, growth=1.01, heat=Cosine(STEPS)),
    "mirror-prox": MirrorProxGAN(RMSPropSGLD(1e-3, 1e-3), inner=1),
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
    batches = Batches(
        lambda rng, n: one.game.draw(rng, data, n, one.dtype, torch.device("cpu")), one.batch, seed
    )
    field = VectorField(one.game, parts=one.accumulate)
    players, constants, state = start.players, start.constants, one.solver.init(start.players)
    for step in range(one.steps):
        players, constants, state, info = one.solver.step(
            field, players, constants, state, batches.at(step)
        )
    return players, constants, state, info


def close(a, b, tolerance):
    """The largest difference of two trees, over the norm of the first."""
    assert [k for k, _ in tree.items(a)] == [k for k, _ in tree.items(b)]
    a, b = ([leaf.double() for leaf in tree.leaves(x)] for x in (a, b))
    gap = max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))
    size = float(torch.cat([leaf.flatten() for leaf in a]).norm())
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
        held, _, _ = checkpoint.read_checkpoint(run.directory / "checkpoints" / run.checkpoint)
        # The same layout as that of a single run's checkpoint, shared counters included.
        like = {"players": players, "constants": constants, "state": state}
        assert {k: v.shape for k, v in held.items() if k != "window"} == {
            "/".join(k): v.shape for k, v in tree.items(like)
        }
    assert not torch.equal(tree.flatten(found.runs[0].players), tree.flatten(found.runs[1].players))


def run_rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers(name, tmp_path):
    made = recipe(SOLVERS[name], dtype=torch.float64, **QUIET)
    members_are_single_runs(made, tmp_path, 1e-12)


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("solver", ["alternating", "extragradient"])
def test_games(name, solver, tmp_path):
    # A bias before batch norm has gradient zero up to rounding, which Adam divides by its size.
    rule = {"optimizer": SGD(0.01)} if name == "batch norm" else {}
    method = dataclasses.replace(SOLVERS[solver], **rule)
    made = recipe(method, dtype=torch.float64, **QUIET, **GAMES[name])
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


# -- a member that diverges ---------------------------------------------------------------------


class Torn:
    """Eight Gaussians, with an infinite sample for one seed from one step on."""

    def __init__(self, bad=None, step=0):
        self.inner, self.bad, self.step = eight_gaussians(sigma=0.1), bad, step

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def to(self, device, dtype):
        moved = Torn(self.bad, self.step)
        moved.inner = self.inner.to(device, dtype)
        return moved

    def sample(self, rng, n):
        made = self.inner.sample(rng, n)
        address = rng.bit_generator.seed_seq
        if address.entropy == self.bad and address.spawn_key[:1] == (0,):
            # One generator makes a block of steps of 16 samples each.
            first = max(0, 16 * (self.step - address.spawn_key[1]))
            made[first:] = math.inf
        return made


def test_a_diverged_member_harms_nobody(tmp_path):
    seeds = (0, 1, 2)
    scored = {"scores": (MixtureQuality(samples=50),), "score_every": 10}
    made = recipe(SOLVERS["averaged"], data=Torn(), spectral_norm=True, further=scored)
    torn = dataclasses.replace(made, data=Torn(1, 9))
    sound = together(made, tmp_path / "sound", seeds)
    found = together(torn, tmp_path / "torn", seeds)
    assert sound.diverged == {}
    assert found.diverged == {1: 10}
    assert found.runs[1].step == 6
    for seed in (0, 2):
        a, b = (picture(tmp_path / kind / f"seed_{seed}") for kind in ("sound", "torn"))
        assert {"metrics.jsonl", "scores.jsonl", "samples/step_00000024.npy"} <= a.keys()
        assert differences(a, b) == []
    # What remains of the torn one is what `train` leaves of such a run.
    folder = tmp_path / "torn" / "seed_1"
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["step"]) == ("diverged", 10)
    assert "step_00000006.safetensors" in status["message"]
    assert [row["step"] for row in run_rows(folder)] == [4, 8]
    assert [step for step, _ in checkpoint.existing(folder / "checkpoints")] == [6]
    assert sorted(p.name for p in (folder / "samples").glob("*.npy")) == [
        "real.npy",
        "step_00000000.npy",
        "step_00000008.npy",
    ]
    scores = (folder / "scores.jsonl").read_text().splitlines()
    assert {json.loads(line)["step"] for line in scores} == {0}
    kept = load(folder, torn, device="cpu")
    assert kept.step == 6
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(kept.players))
    # A second call finds nothing to do.
    before = picture(tmp_path / "torn")
    again = together(torn, tmp_path / "torn", seeds)
    assert again.diverged == {1: 10}
    assert differences(before, picture(tmp_path / "torn")) == []
    # More steps: the others go on, it does not.
    longer = together(dataclasses.replace(torn, steps=30), tmp_path / "torn", seeds)
    assert longer.diverged == {1: 10}
    assert [run.step for run in longer.runs] == [30, 6, 30]


def test_a_projection_survives_infinite_weights(tmp_path):
    """Decompositions raise on infinite matrices: the guard must keep them from the others' steps."""
    walls = [SpectralBall("critic", "0.weight", 1.5), SpectralBall("critic", "2.weight", 1.5)]
    made = recipe(SOLVERS["simultaneous"], data=Torn(), projections=walls)
    torn = dataclasses.replace(made, data=Torn(1, 2))
    together(made, tmp_path / "sound", (0, 1))
    found = together(torn, tmp_path / "torn", (0, 1))
    assert found.diverged == {1: 3}
    a, b = (picture(tmp_path / kind / "seed_0") for kind in ("sound", "torn"))
    assert differences(a, b) == []
    critic = found.runs[0].players["critic"]
    assert all(
        torch.linalg.matrix_norm(critic[w], 2) < 1.5 + 1e-5 for w in ("0.weight", "2.weight")
    )


def test_all_diverge(tmp_path):
    made = recipe(SOLVERS["alternating"], data=Torn(5, 0))
    found = together(made, tmp_path, (5,))
    assert found.diverged == {5: 1}
    assert (found.runs[0].step, found.runs[0].checkpoint) == (0, "")
    assert together(made, tmp_path, (5,)).diverged == {5: 1}
    with pytest.raises(RecordError, match="no checkpoint yet"):
        load(tmp_path / "seed_5", made)


# -- resumption -----------------------------------------------------------------------------------

TRICKY = {
    "averaged": {"solver": "averaged", "spectral_norm": True},
    "lookahead": {"solver": "lookahead", "norm": True},
    "optimistic": {"solver": "optimistic"},
    "proximal, moments kept": {"solver": "proximal, moments kept"},
    "scheduled": {"solver": "scheduled"},
}


@pytest.mark.parametrize("name", TRICKY)
def test_resumed(name, tmp_path, stop_at):
    options = dict(TRICKY[name])
    made = recipe(SOLVERS[options.pop("solver")], **options)
    together(made, tmp_path / "whole")
    stop_at(5, 6, 15)  # between rows; on a checkpoint; between all of them
    for step in (5, 6, 15):
        found = together(made, tmp_path / "parts")
        assert found.interrupted
        assert [run.step for run in found.runs] == [step, step]
        assert (
            json.loads((tmp_path / "parts/seed_3/status.json").read_text())["state"]
            == "interrupted"
        )
    assert not together(made, tmp_path / "parts").interrupted
    for seed in (0, 3):
        whole, parts = (picture(tmp_path / kind / f"seed_{seed}") for kind in ("whole", "parts"))
        newest = {
            k: v for k, v in whole.items() if not k.startswith("checkpoints/step") or "24" in k
        }
        assert len(newest) > 6
        assert differences(newest, parts) == []


def test_resumed_around_a_divergence(tmp_path, stop_at):
    made = recipe(SOLVERS["alternating"], data=Torn(3, 9))
    together(made, tmp_path / "whole")
    stop_at(8, 15)
    for _ in range(3):
        found = together(made, tmp_path / "parts")
    assert found.diverged == {3: 10}
    for seed, last in ((0, "24"), (3, "06")):
        whole, parts = (picture(tmp_path / kind / f"seed_{seed}") for kind in ("whole", "parts"))
        newest = {
            k: v for k, v in whole.items() if not k.startswith("checkpoints/step") or last in k
        }
        if seed == 3:  # stopped at 8, it saved there too: the message names that checkpoint
            assert (
                "step_00000008"
                in json.loads((tmp_path / "parts/seed_3/status.json").read_text())["message"]
            )
            newest.pop("status.json"), parts.pop("status.json")
        assert differences(newest, parts) == []


def test_killed_between_the_members_checkpoints(tmp_path):
    made = recipe(SOLVERS["alternating"])
    together(made, tmp_path / "whole")
    together(dataclasses.replace(made, steps=18), tmp_path / "parts")
    (tmp_path / "parts/seed_3/checkpoints/step_00000018.safetensors").unlink()
    with pytest.warns(
        UserWarning, match="step_00000018.safetensors is gone: going on from step 12"
    ):
        found = together(made, tmp_path / "parts")
    assert [run.step for run in found.runs] == [24, 24]
    for seed in (0, 3):
        a, b = (picture(tmp_path / kind / f"seed_{seed}") for kind in ("whole", "parts"))
        assert differences(a, b) == []
    sessions = json.loads((tmp_path / "parts/seed_0/environment.json").read_text())
    assert [entry["from_step"] for entry in sessions] == [0, 12]
    # A damaged checkpoint takes all members one step back.
    path = tmp_path / "parts/seed_0/checkpoints/step_00000024.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.warns(UserWarning, match="fall back"):
        together(dataclasses.replace(made, steps=25), tmp_path / "parts")
    assert (
        json.loads((tmp_path / "parts/seed_3/environment.json").read_text())[-1]["from_step"] == 18
    )


def test_seeds_are_added(tmp_path):
    made = recipe(SOLVERS["alternating"])
    together(made, tmp_path, (0, 3))
    before = picture(tmp_path)
    found = together(made, tmp_path, (0, 1, 3))
    assert [run.seed for run in found.runs] == [0, 1, 3]
    assert [run.step for run in found.runs] == [24, 24, 24]
    after = picture(tmp_path)
    assert {k: after[k] for k in before} == before
    assert (tmp_path / "seed_1" / "metrics.jsonl").exists()
    assert found.seconds > 0
    players, *_ = singly(made, 1)
    close(players, found.runs[1].players, 1e-4)


def test_trained_on_by_itself(tmp_path):
    """A member is a run like any other: `train` takes it up."""
    made = recipe(SOLVERS["averaged"], dtype=torch.float64, steps=30)
    together(dataclasses.replace(made, steps=14), tmp_path)
    run = train(made, tmp_path / "seed_3", seed=3, device="cpu", progress="none")
    players, _, state, _ = singly(made, 3)
    close(players, run.players, 1e-12)
    close(state["average"], run.average, 1e-12)


def test_members_are_loaded_audited_and_reported(tmp_path):
    scored = {"scores": (MixtureQuality(samples=50),), "score_every": 10}
    made = recipe(SOLVERS["averaged"], further=scored)
    found = together(made, tmp_path, name="mine", settings={"width": 3})
    run = load(tmp_path / "seed_3", made, device="cpu")
    assert torch.equal(tree.flatten(run.players), tree.flatten(found.runs[1].players))
    assert torch.equal(run.samples(5), found.runs[1].samples(5))
    assert run.sha256 == found.runs[1].sha256
    quick = {"steps": 4, "starts": 2, "groups": 3, "group_batches": 2, "looks": 2, "batches": 4}
    checked = audit(run, progress="none", look_batches=2, **quick)
    assert "nash/critic" in checked
    page = write_report(tmp_path / "seed_3").read_text()
    assert "seed 3" in page
    manifest = json.loads((tmp_path / "seed_3/recipe.json").read_text())
    assert (manifest["recipe"], manifest["settings"], manifest["seed"]) == ("mine", {"width": 3}, 3)
    sessions = json.loads((tmp_path / "seed_3/environment.json").read_text())
    assert sessions[0]["members"] == 2


# -- step sizes by member -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "solver",
    [
        Alternating(1, PerMember(ADAM, (1.0, 3.0))),
        Simultaneous(ADAM, {"critic": Clipped(PerMember(SGD(0.05), (1.0, 0.5)), 0.1)}),
        Averaged(
            Consensus(Scheduled(PerMember(TFRMSProp(1e-3), (2.0, 0.5)), Cosine(60)), gamma=0.1)
        ),
        Optimistic(PerMember(Clipped(SGD(0.05, 0.5), 1.0), (0.5, 2.0))),
        Consensus(ADAM, gamma=(0.0, 2.0)),
        Averaged(SymplecticAdjustment(ADAM, strength=(0.5, -0.5), align=True)),
        SymplecticAdjustment(PerMember(ADAM, (1.0, 2.0)), strength=(0.0, 1.0)),
        Proximal(2, (0.01, 10.0), ADAM),
    ],
    ids=lambda s: type(s).__name__,
)
def test_hyperparameters_by_member(solver, tmp_path):
    made = recipe(solver, dtype=torch.float64, **QUIET)
    found = together(made, tmp_path)
    for i, run in enumerate(found.runs):
        alone = dataclasses.replace(made, solver=member_of(solver, i, 2))
        assert "PerMember" not in repr(alone)
        assert alone != solver
        players, *_ = singly(alone, run.seed)
        close(players, run.players, 1e-12)
        # Its record is that of the single run.
        assert run.recipe == alone
        assert load(run.directory, alone, device="cpu").step == STEPS
    with pytest.raises(RecordError, match="another run"):
        load(found.runs[0].directory, found.runs[1].recipe)


def test_step_sizes_by_member_matter(tmp_path):
    """The factor of one member leaves the other's bits alone, even where it makes that one diverge."""
    made = recipe(Simultaneous(PerMember(SGD(0.1), (1.0, 1.0))))
    wild = dataclasses.replace(made, solver=Simultaneous(PerMember(SGD(0.1), (1.0, 1e30))))
    calm, found = together(made, tmp_path / "calm"), together(wild, tmp_path / "wild")
    assert calm.diverged == {}
    assert set(found.diverged) == {3}
    a, b = (picture(tmp_path / kind / "seed_0") for kind in ("calm", "wild"))
    assert differences(a, b) == []


def test_step_sizes_by_member_refused(tmp_path):
    for factors in ((), (1.0, -1.0), (1.0, math.inf), [1.0, 2.0]):
        with pytest.raises(ValueError, match="factors"):
            PerMember(ADAM, factors)
    made = recipe(Alternating(1, PerMember(ADAM, (1.0, 2.0))))
    with pytest.raises(RecipeError, match="2 factors for 3 seeds"):
        together(made, tmp_path / "a", (0, 1, 2))
    for solver in (
        made.solver,
        Consensus(gamma=(1.0, 2.0)),
        SymplecticAdjustment(strength=(1.0, 2.0)),
        Proximal(2, (1.0, 2.0)),
    ):
        with pytest.raises(RecipeError, match="a run by itself"):
            train(recipe(solver), tmp_path / "b", device="cpu", progress="none")
        shutil.rmtree(tmp_path / "b")
    with pytest.raises(RecipeError, match="gamma has 2 numbers for 3 seeds"):
        together(recipe(Consensus(gamma=(1.0, 2.0))), tmp_path / "a", (0, 1, 2))
    for build in (
        lambda: Consensus(gamma=()),
        lambda: Consensus(gamma=(1.0, -1.0)),
        lambda: SymplecticAdjustment(strength=(math.inf,)),
        lambda: Proximal(lam=(1.0, 0.0)),
        lambda: Consensus(SGD(), gamma=(1.0, 2.0)).linear_map(torch.eye(2), {"x": 2}),
    ):
        with pytest.raises(ValueError):
            build()
    assert not (tmp_path / "a").exists()


# -- bad input --------------------------------------------------------------------------------------


def test_refused(tmp_path):
    made = recipe(SOLVERS["alternating"])
    for seeds in ((), (0, 0)):
        with pytest.raises(RecipeError, match="each seed once"):
            together(made, tmp_path, seeds)
    together(made, tmp_path)
    with pytest.raises(RecordError, match="another run"):
        together(recipe(SOLVERS["simultaneous"]), tmp_path)
    with pytest.raises(RecordError, match="at step 24 already"):
        together(dataclasses.replace(made, steps=12), tmp_path)
    wrong = recipe(Alternating(1, ADAM, {"judge": ADAM}))
    with pytest.raises(RecipeError, match="judge"):
        together(wrong, tmp_path / "wrong")
    assert not (tmp_path / "wrong/seed_0/recipe.json").exists()


class _Peeking(nn.Module):
    """A network whose control flow looks at its data: nothing that could be stacked."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 1)

    def forward(self, x):
        y = self.body(x)
        return y if y.sum() > 0 else 2 * y


def test_what_cannot_be_stacked_says_so(tmp_path):
    made = recipe(SOLVERS["simultaneous"], critic=_Peeking)
    with pytest.raises(GameError, match="cannot be stacked") as caught:
        together(made, tmp_path)
    assert "\n" not in str(caught.value)
    train(made, tmp_path / "alone", device="cpu", progress="none")
    assert np.isfinite(run_rows(tmp_path / "alone")[-1]["loss"]["critic"])


def test_a_single_member_is_the_single_run_bit_for_bit(tmp_path):
    made = recipe(Alternating(2, ADAM), steps=12)
    together(made, tmp_path / "members", seeds=(4,))
    train(made, tmp_path / "alone", seed=4, device="cpu", progress="none")
    files = {
        p.relative_to(tmp_path / "alone")
        for p in (tmp_path / "alone").rglob("*")
        if p.suffix in (".safetensors", ".npy")
    }
    assert len(files) == 6  # two checkpoints, four sheets
    for name in files:
        member = tmp_path / "members" / "seed_4" / name
        assert member.read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.parametrize(
    "wall", [[], [SpectralBall("critic", "0.weight", 1.5)]], ids=["free", "decomposed"]
)
def test_a_diverged_member_says_what_the_single_run_says(wall, tmp_path):
    made = recipe(Alternating(1, SGD(1e30)), steps=12, projections=wall)
    found = together(made, tmp_path / "members", seeds=(0, 3))
    with pytest.raises(NonFiniteError, match="is not finite") as error:
        train(made, tmp_path / "alone", seed=3, device="cpu", progress="none")
    said = json.loads((tmp_path / "members" / "seed_3" / "status.json").read_text())["message"]
    assert said.replace("members/seed_3", "alone") == str(error.value)
    assert found.diverged[3] == error.value.step
