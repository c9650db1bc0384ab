"""What must hold on a GPU; EQUILIBRIST_TEST_DEVICE=cpu runs the same on a CPU, to try the tests themselves."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import equilibrist as eq
from equilibrist import tree
from equilibrist.core.draws import Batches
from equilibrist.core.full_precision import full_float32
from equilibrist.networks import CIFAR10Critic, CIFAR10Generator
from equilibrist.run import Run, train
from equilibrist.run.environment import deterministic
from equilibrist_recipes.digits import digits_sngan, digits_wgan_gp

WANTED = os.environ.get("EQUILIBRIST_TEST_DEVICE", "cuda")
device = torch.device(WANTED)
gpu = pytest.mark.skipif(
    device.type == "cuda" and not torch.cuda.is_available(),
    reason="no GPU: torch.cuda.is_available() is false",
)
F64 = torch.float64


def steps(solver: eq.Solver, where: torch.device, dtype: torch.dtype = F64) -> torch.Tensor:
    """The players after five steps on a GAN with a penalty, drawn at the same addresses."""
    made = digits_wgan_gp(dim=4, latent=4, steps=1)
    game, data = made.game, made.data.to(where, dtype)
    batches = Batches(lambda rng, n: game.draw(rng, data, n, dtype, where), 8, 0)
    field = eq.VectorField(game)
    players, constants = game.init(0, device=where, dtype=dtype)
    state = solver.init(players)
    for k in range(5):
        players, constants, state, _ = solver.step(field, players, constants, state, batches.at(k))
    return tree.flatten(players).cpu()


@gpu
@pytest.mark.parametrize(
    "solver",
    [
        eq.Alternating(2, eq.Adam(1e-3)),
        eq.Consensus(eq.Adam(1e-3)),
        eq.Extragradient(eq.Adam(1e-3)),
        eq.Proximal(2, optimizer=eq.Adam(1e-3)),
    ],
    ids=["alternating", "consensus", "extragradient", "proximal"],
)
def test_steps_are_those_of_a_cpu(solver: eq.Solver) -> None:
    here, there = steps(solver, device), steps(solver, torch.device("cpu"))
    torch.testing.assert_close(here, there, atol=1e-8, rtol=1e-8)


@gpu
def test_everything_stays_on_the_device() -> None:
    recipe = digits_sngan(dim=4, latent=4, steps=1)
    data = recipe.data.to(device, torch.float32)
    draw = recipe.game.draw(np.random.default_rng(0), data, 8, torch.float32, device)
    players, constants = recipe.game.init(0, device=device)
    state = recipe.solver.init(players)
    held = [*tree.leaves(players), *tree.leaves(constants), *draw.values()]
    held += [t for t in tree.leaves(state) if t.ndim]
    assert {t.device.type for t in held} == {device.type}


@gpu
def test_resumption_is_bit_identical(tmp_path: Path) -> None:
    def trained(folder: str, count: int) -> Run:
        recipe = replace(digits_sngan(dim=4, latent=8, steps=count), scores=())
        return train(recipe, tmp_path / folder, device=WANTED, progress="none", compile="off")

    trained("cut", 6)
    pairs = zip(
        tree.leaves(trained("cut", 12).players),
        tree.leaves(trained("whole", 12).players),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)


@gpu
def test_an_audit_is_that_of_a_cpu(tmp_path: Path) -> None:
    recipe = replace(digits_sngan(dim=4, latent=8, steps=20), scores=())
    run = train(recipe, tmp_path / "run", device=WANTED, progress="none", compile="off")
    checks = ("stationary", "stable")
    found: list[Any] = []
    for where in (WANTED, "cpu"):
        loaded = eq.load(tmp_path / "run", recipe, device=where)
        found.append(eq.audit(loaded, checks=checks, gradients=200, progress="none", write=False))
    for claim in ("stationary", "stable"):
        assert found[0][claim].verdict == found[1][claim].verdict
    assert run.step == 20


@gpu
def test_bfloat16_losses_train(tmp_path: Path) -> None:
    recipe = replace(digits_sngan(dim=4, latent=8, steps=10), scores=(), mixed_precision=True)
    run = train(recipe, tmp_path / "run", device=WANTED, progress="none", compile="off")
    assert all(bool(torch.isfinite(t).all()) for t in tree.leaves(run.players))
    assert {t.dtype for t in tree.leaves(run.players)} == {torch.float32}


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is false"
)
def test_audits_take_no_tf32() -> None:
    """A convolution in float32 is off by 1e-3 with TF32, and by 1e-6 without."""
    torch.manual_seed(0)
    critic = CIFAR10Critic(16).cuda()
    x = CIFAR10Generator(16).cuda()(torch.randn(8, 128, device="cuda"))
    with full_float32():
        here = critic(x)
    exact = critic.double()(x.double())
    assert float((here - exact).abs().max()) < 1e-4 * float(exact.abs().max())


def test_flags_are_put_back() -> None:
    """On any machine: TF32 is a choice in training, and none in an audit."""
    backend, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = backend.allow_tf32, products.allow_tf32
    with full_float32():
        assert (backend.allow_tf32, products.allow_tf32) == (False, False)
    assert (backend.allow_tf32, products.allow_tf32) == before
    with deterministic(torch.device("cuda")):
        assert (backend.deterministic, backend.allow_tf32) == (True, False)
    try:
        torch.set_float32_matmul_precision("high")
        with deterministic(torch.device("cuda")):
            assert backend.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (backend.allow_tf32, products.allow_tf32) == before
