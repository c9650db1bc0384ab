"""An audit leaves nothing behind: values, modules, flags, random states, the course of training."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import F64, Affine, audit, audit_game, points
from torch import nn

from equilibrist import (
    GAN,
    SGD,
    Adam,
    Alternating,
    GradientPenalty,
    Recipe,
    Vanilla,
    VectorField,
    WeightClipping,
    train,
    tree,
)
from equilibrist.checks import Settings
from equilibrist.core.draws import Draws
from equilibrist.run import checkpoint

FAST: dict[str, Any] = {
    "steps": 6,
    "looks": 2,
    "starts": 2,
    "batches": 8,
    "look_batches": 4,
    "groups": 3,
    "group_batches": 2,
    "batch": 16,
}


class Normed(nn.Module):
    """A generator that keeps running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn, self.last = nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.bn(self.first(z))))


def build(kind: str) -> tuple[GAN, dict[str, nn.Module]]:
    torch.manual_seed(3)
    generator: nn.Module = (
        Normed() if kind in ("batch norm", "spectral") else Affine(1.0, [0.3, -0.2])
    ).double()
    critic = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    options: dict[str, Any] = {
        "batch norm": {},
        "spectral": {"spectral_norm": True},
        "clipped": {"projections": (WeightClipping(0.2),)},
        "penalty": {"penalties": (GradientPenalty(),)},
    }[kind]
    return GAN(generator, critic, Vanilla(), latent=2, **options), {
        "generator": generator,
        "critic": critic,
    }


def data() -> Any:
    return points(np.random.default_rng(5).normal(size=(200, 2)))


def snapshot(module: nn.Module) -> Any:
    return copy.deepcopy(
        [
            (k, v.detach().clone(), v.requires_grad, None if v.grad is None else v.grad.clone())
            for k, v in [*module.named_parameters(), *module.named_buffers()]
        ]
    ), [
        (
            k,
            m.training,
            len(m._forward_hooks),
            len(m._forward_pre_hooks),
            getattr(m, "track_running_stats", None),
        )
        for k, m in module.named_modules()
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("kind", ["batch norm", "spectral", "clipped", "penalty"])
@pytest.mark.parametrize("grad_mode", [True, False])
def test_an_audit_touches_nothing(kind: str, grad_mode: bool) -> None:
    game, modules = build(kind)
    for module in modules.values():
        for k, p in enumerate(module.parameters()):
            p.grad = torch.full_like(p, float(k))
    modules["critic"][0].weight.requires_grad_(False)
    start = game.init()
    start.players["generator"][next(iter(start.players["generator"]))].requires_grad_(True)
    source = data()
    watched = [*modules.values(), *game.modules.values()]
    modules_before = [snapshot(m) for m in watched]
    players, constants = tree.clone(start.players), tree.clone(start.constants)
    flags = [t.requires_grad for t in tree.leaves(start.players)]
    places = [t.data_ptr() for t in tree.leaves({**start.players, "c": start.constants})]
    versions = [t._version for t in tree.leaves({**start.players, "c": start.constants})]
    held, rows = source.all(), source.all().clone()
    torch.manual_seed(11)
    np.random.seed(12)
    random.seed(13)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    with torch.set_grad_enabled(grad_mode):
        audit_game(
            game,
            start.players,
            start.constants,
            source,
            Settings(**FAST, optimizers={"generator": Adam(lr=0.05), "critic": SGD(lr=0.1)}),
            progress="none",
        )
        assert torch.is_grad_enabled() == grad_mode
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
    assert random.getstate() == states[2]
    assert all(
        torch.equal(a, b)
        for a, b in zip(tree.leaves(start.players), tree.leaves(players), strict=True)
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(tree.leaves(start.constants), tree.leaves(constants), strict=True)
    )
    assert [t.requires_grad for t in tree.leaves(start.players)] == flags
    assert all(t.grad is None for t in tree.leaves(start.players))
    assert [t.data_ptr() for t in tree.leaves({**start.players, "c": start.constants})] == places
    assert [t._version for t in tree.leaves({**start.players, "c": start.constants})] == versions
    assert source.all() is held
    assert torch.equal(held, rows)
    assert same([snapshot(m) for m in watched], modules_before)


@pytest.mark.parametrize("kind", ["batch norm", "spectral", "clipped", "penalty"])
def test_auditing_in_the_middle_of_training_changes_nothing(kind: str) -> None:
    def play(look: bool) -> list[torch.Tensor]:
        game, _ = build(kind)
        source, field, solver = (
            data(),
            VectorField(game),
            Alternating(critic_steps=2, optimizer=Adam(lr=0.01)),
        )
        players, constants = game.init()
        state = solver.init(players)
        for step in range(6):
            draws = Draws(lambda rng: game.draw(rng, source, 16, F64), 4, step)
            players, constants, state, _ = solver.step(field, players, constants, state, draws)
            if look and step in (1, 3):
                audit_game(
                    game, players, constants, source, Settings(**FAST), seed=4, progress="none"
                )
        return [*tree.leaves(players), *tree.leaves(constants), *tree.leaves(state)]

    assert all(torch.equal(a, b) for a, b in zip(play(False), play(True), strict=True))


def test_auditing_a_run_does_not_change_its_continuation(tmp_path: Path) -> None:
    def recipe(steps: int) -> Recipe:
        return Recipe(
            build("spectral")[0],
            data(),
            Alternating(optimizer=Adam(lr=0.01)),
            steps=steps,
            batch=16,
            dtype=F64,
            audit=FAST,
            checkpoint_every=1,
        )

    def play(name: str, look: bool) -> Any:
        run = train(recipe(3), tmp_path / name, device="cpu", progress="none")
        if look:
            held = [t.clone() for t in tree.leaves(run.players)]
            audit(run, progress="none")
            assert all(
                torch.equal(a, b) for a, b in zip(held, tree.leaves(run.players), strict=True)
            )
        run = train(recipe(6), tmp_path / name, device="cpu", progress="none")
        flat, meta, digest = checkpoint.read_checkpoint(
            run.directory / "checkpoints" / run.checkpoint
        )
        assert any(key.startswith("state/") for key in flat)
        return sorted((k, t.numpy().tobytes()) for k, t in flat.items()), meta, digest

    assert play("plain", False) == play("looked at", True)


def test_what_is_returned_shares_no_memory_with_the_pair() -> None:
    game, _ = build("clipped")
    start = game.init()
    found = audit_game(
        game,
        start.players,
        start.constants,
        data(),
        Settings(
            **(FAST | {"tolerance": 1e-6, "steps": 30}),
            optimizers={"generator": SGD(lr=0.5), "critic": SGD(lr=0.5)},
        ),
        progress="none",
    )
    refuted = [c for c in found.values() if c.witness]
    assert refuted
    own = {t.untyped_storage().data_ptr() for t in tree.leaves(start.players)}
    for certificate in refuted:
        assert not own & {t.untyped_storage().data_ptr() for t in tree.leaves(certificate.witness)}
        assert not any(t.requires_grad for t in tree.leaves(certificate.witness))
