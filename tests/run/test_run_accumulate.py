"""Accumulation and mixed precision through the loop: the same run in less memory, or in fewer digits."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import killing
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from equilibrist import (
    GAN,
    Adam,
    GameError,
    RecipeError,
    RecordError,
    Vanilla,
    VectorField,
    Verdict,
    audit,
    eight_gaussians,
    resolve,
    tree,
)
from equilibrist.cli import main
from equilibrist.cli.loading import load_run
from equilibrist.penalties import GradientPenalty
from equilibrist.run import load, train
from equilibrist.solvers import Alternating, Averaged, Simultaneous
from equilibrist.solvers.unrolled import _Ahead

F64 = torch.float64


def play(recipe: Any, folder: Path) -> Any:
    return train(recipe, folder, device="cpu", progress="none")


def recipe(accumulate: int = 1, solver: Any = None, **more: Any) -> Any:
    further = {"accumulate": accumulate, **more.pop("further", {})}
    return killing.recipe(solver or Alternating(2, Adam(1e-2)), further=further, **more)


@pytest.mark.parametrize(
    "more",
    [
        {"spectral_norm": True},
        {"penalties": [GradientPenalty()]},
        {"solver": Averaged(Simultaneous(), 0.9)},
    ],
    ids=["spectral norm", "gradient penalty", "simultaneous, averaged"],
)
@pytest.mark.parametrize("parts", [2, 16])
def test_parts_train_alike(parts: int, more: Any, tmp_path: Path) -> None:
    whole = play(recipe(dtype=F64, **more), tmp_path / "whole")
    cut = play(recipe(parts, dtype=F64, **more), tmp_path / "cut")
    a, b = tree.flatten(whole.players), tree.flatten(cut.players)
    torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-9)
    assert not torch.equal(a, b), "rounding differs: it was cut"
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    for one, other in zip(*rows, strict=True):
        for kind in ("loss", "grad_norm"):
            assert other[kind] == pytest.approx(one[kind], rel=1e-7)


def test_every_part_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 samples, 4 at a time: no loss of training is ever evaluated on more."""
    built = recipe(4, steps=2)
    sizes: list[int] = []
    losses = built.game.losses

    def watched(players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        sizes.append(len(draw["real"]))
        return losses(players, constants, draw, only)

    monkeypatch.setattr(built.game, "losses", watched)
    play(built, tmp_path / "r")
    assert sizes.count(4) == len(sizes) == 2 * 3 * 4  # steps, minibatches a step, parts


def test_the_record_says_so_and_holds_to_it(tmp_path: Path) -> None:
    play(recipe(4, steps=2), tmp_path / "r")
    held = json.loads((tmp_path / "r/recipe.json").read_text())["description"]["solver"]
    assert held["accumulate"] == 4
    assert "mixed_precision" not in held
    with pytest.raises(RecordError, match="another run: its description solver accumulate is 4"):
        load(tmp_path / "r", recipe(2, steps=2), device="cpu")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"accumulate": 3}, ["batch=16", "accumulate=3", "equal parts"]),
        ({"accumulate": 32}, ["batch=16", "accumulate=32", "equal parts"]),
        ({"accumulate": 0}, ["accumulate=0", "at least 1"]),
        ({"accumulate": 2.0}, ["accumulate=2.0", "whole number"]),
        ({"accumulate": True}, ["accumulate=True", "whole number"]),
        (
            {"further": {"mixed_precision": "bfloat16"}},
            ["mixed_precision='bfloat16'", "True or False"],
        ),
        (
            {"further": {"mixed_precision": True}, "dtype": F64},
            ["mixed_precision", "torch.float32"],
        ),
        ({"dtype": "float32"}, ["dtype='float32'", "torch.float32 or torch.float64"]),
        ({"dtype": torch.bfloat16}, ["dtype=torch.bfloat16", "mixed_precision=True"]),
        ({"dtype": torch.int64}, ["dtype=torch.int64"]),
    ],
)
def test_refused(more: Any, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(**more)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_batch_norm_is_refused() -> None:
    with pytest.raises(RecipeError, match="accumulate=2, but losses depend on whole batches") as e:
        recipe(2, norm=True)
    assert "\n" not in str(e.value)
    assert recipe(1, norm=True)


def halves(seed: int = 0) -> tuple[Any, Any, Any]:
    """A generator and a critic with batch norm, and a minibatch of sixteen."""
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Linear(4, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))
    critic = nn.Sequential(nn.Linear(2, 12), nn.BatchNorm1d(12), nn.LeakyReLU(), nn.Linear(12, 1))
    game = GAN(generator.double(), critic.double(), Vanilla(), latent=4)
    rng = np.random.default_rng(seed)
    draw = game.draw(rng, eight_gaussians(), 16, F64, torch.device("cpu"))
    return game, (generator, critic), draw


def by_hand(modules: Any, draw: Any, parts: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The players' gradients of the mean of the parts' losses, with their graph, and the parameters: plain PyTorch."""
    generator, critic = modules
    lost = []
    for real, z in zip(draw["real"].chunk(parts), draw["latent"].chunk(parts), strict=True):
        fake = generator(z)
        # One batch of each kind at a time, as training loops have it.
        scores = softplus(-critic(real)).mean() + softplus(critic(fake)).mean()
        lost.append((softplus(-critic(fake)).mean(), scores))
    own = [list(m.parameters()) for m in modules]
    means = [torch.stack(x).mean() for x in zip(*lost, strict=True)]
    v = [torch.autograd.grad(x, w, create_graph=True) for x, w in zip(means, own, strict=True)]
    return [*v[0], *v[1]], [*own[0], *own[1]]


@pytest.mark.parametrize("parts", [2, 4])
def test_each_part_a_batch_of_its_own(parts: int) -> None:
    """v and J^T u of the mean of the parts' losses, each part normalised by itself, by plain autograd."""
    game, modules, draw = halves()
    players, constants = game.init(dtype=F64)
    field = VectorField(game, parts=parts, per_part=True)
    v, own = by_hand(modules, draw, parts)
    found = tree.leaves(field(players, constants, draw).v)
    for a, b in zip(found, v, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-10, atol=1e-12)
    whole = tree.flatten(VectorField(game)(players, constants, draw).v)
    assert float((tree.flatten(field(players, constants, draw).v) - whole).norm()) > 1e-3
    u = tree.map(torch.randn_like, players)
    along = sum((a * b).sum() for a, b in zip(v, tree.leaves(u), strict=True))
    wanted = torch.autograd.grad(along, own)
    for a, b in zip(tree.leaves(field.vjp(players, constants, u, draw)), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_a_run_by_part_is_told_apart_and_audited_by_part(tmp_path: Path) -> None:
    made = recipe(4, norm=True, further={"per_part": True}, steps=6, dtype=F64)
    run = play(made, tmp_path / "r")
    held = json.loads((tmp_path / "r/recipe.json").read_text())["description"]["solver"]
    assert (held["accumulate"], held["per_part"]) == (4, True)
    other = play(recipe(1, norm=True, steps=6, dtype=F64), tmp_path / "whole")
    assert not torch.equal(tree.flatten(run.players), tree.flatten(other.players))
    with pytest.raises(RecordError, match="another run"):
        load(tmp_path / "r", other.recipe, device="cpu")
    found = audit(run, checks=("stationary",), groups=3, group_batches=1, progress="none")
    assert "minibatches of 4" in " ".join(found["stationary/critic"].limits)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"accumulate": 1, "norm": True}, "a minibatch is not cut"),
        ({"accumulate": 2}, "means over samples"),
    ],
)
def test_by_part_for_nothing(more: Any, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        recipe(**more, further={"per_part": True})


def test_what_no_part_can_be_a_batch_of() -> None:
    """Unrolled steps are no mean over parts, and dropout draws its numbers in every evaluation anew."""
    game, _, _ = halves()
    with pytest.raises(GameError, match="unrolled"):
        VectorField(_Ahead(game, "generator", "critic", 1, 0.1), parts=2, per_part=True)
    dropping = nn.Sequential(nn.Linear(2, 8), nn.Dropout(), nn.Linear(8, 1))
    noisy = GAN(nn.Linear(4, 2), dropping, Vanilla(), latent=4)
    with pytest.raises(GameError, match="random numbers"):
        VectorField(noisy, parts=2, per_part=True)


def test_the_command_cuts_and_its_audit_knows(tmp_path: Path) -> None:
    """A run made with --parts is rebuilt with its parts, by whatever reads it afterwards."""
    folder = str(tmp_path / "r")
    small = ["--set", "dim=4", "--set", "latent=4", "--set", "steps=4", "--set", "batch=16"]
    quiet = ["--progress", "none", "--device", "cpu"]
    assert not main(["run", "digits-sngan", "--dir", folder, "--parts", "4", *small, *quiet])
    assert load_run(Path(folder), device="cpu").recipe.accumulate == 4


# -- mixed precision -----------------------------------------------------------------------------


def digits(**settings: Any) -> Any:
    built = resolve("digits-sngan", {"dim": 4, "latent": 4, "batch": 16, "steps": 12}).build()
    return replace(built, scores=(), log_every=1, **settings)


def test_mixed_precision_trains_digits_and_audits_in_full(tmp_path: Path) -> None:
    run = play(digits(mixed_precision=True), tmp_path / "mixed")
    full = play(digits(), tmp_path / "full")
    losses = [
        [
            json.loads(line)["loss"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("mixed", "full")
    ]
    for mixed, exact in zip(*losses, strict=True):
        for player in ("generator", "critic"):
            assert math.isfinite(mixed[player])
            assert mixed[player] == pytest.approx(exact[player], abs=0.1)
    assert losses[0] != losses[1]
    assert {t.dtype for t in tree.leaves(run.players)} == {torch.float32}
    held = json.loads((tmp_path / "mixed/recipe.json").read_text())["description"]["solver"]
    assert held["mixed_precision"] == "bfloat16"
    before = torch.is_autocast_enabled("cpu")
    found = audit(
        run,
        progress="none",
        steps=2,
        starts=1,
        looks=1,
        groups=3,
        group_batches=1,
        batches=4,
        look_batches=2,
    )
    assert torch.is_autocast_enabled("cpu") is before is False
    for claim in ("stationary/generator", "nash/critic"):
        scope = found[claim].scope
        assert (scope["search_precision"], scope["score_precision"]) == ("float32", "float64")
        assert found[claim].verdict in set(Verdict)
    # Not a bfloat16 number among them: the same pair, loaded into a recipe without, is judged alike.
    again = full.recipe
    other = audit(
        replace(run, recipe=again),
        progress="none",
        write=False,
        steps=2,
        starts=1,
        looks=1,
        groups=3,
        group_batches=1,
        batches=4,
        look_batches=2,
    )
    for claim in ("stationary/generator", "nash/critic"):
        assert other[claim].evidence == found[claim].evidence


def test_mixed_precision_with_penalties_parts_and_conditions(tmp_path: Path) -> None:
    built = killing.conditional(
        Alternating(2, Adam(1e-3)),
        penalties=[GradientPenalty(10.0)],
        further={"accumulate": 2, "mixed_precision": True},
    )
    run = play(built, tmp_path / "r")
    rows = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(v) for row in rows for v in row["loss"].values())
    assert run.samples(5).dtype == torch.float32
