"""The spectrum of a trained run: what is taken from its recipe, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from equilibrist import RecipeError, tree
from equilibrist.data import ArraySource, eight_gaussians
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN
from equilibrist.optimizers import SGD
from equilibrist.run import Recipe, Run, train
from equilibrist.solvers import Averaged, Consensus, Lookahead, Simultaneous
from equilibrist.spectra import spectrum_of


def trained(folder: Path, solver: Any, data: Any = None) -> Run:
    game = GAN(
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)),
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)),
        Vanilla(),
        latent=2,
    )
    recipe = Recipe(game, data or eight_gaussians(), solver, 2, batch=8)
    return train(recipe, folder, seed=0, device="cpu", progress="none")


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("own", "asked", "taken"),
    [(0.25, None, 0.25), (2, None, 2), (0.25, 3.0, 3.0), (0.0, None, None), (0.0, 3.0, 3.0)],
)
def test_consensus_is_looked_at_with_the_gamma_that_it_was_trained_with(
    own: float, asked: float | None, taken: float | None, inside: bool, tmp_path: Path
) -> None:
    solver: Any = Consensus(SGD(0.1), gamma=own)
    run = trained(tmp_path / "run", Averaged(Lookahead(solver), 0.9) if inside else solver)
    found = spectrum_of(run, gamma=asked)
    assert found.gamma == taken
    assert (found.consensus is None) == (taken is None)
    if found.consensus is not None and taken is not None:
        # tr(J + gamma J^T J) = tr J + gamma |J|_F^2, whose size is told by that of gamma.
        plain = found.jacobian.values.sum().real
        other = spectrum_of(run, gamma=2 * taken).consensus
        assert other is not None
        whole, twice = found.consensus.values.sum().real, other.values.sum().real
        assert twice - plain == pytest.approx(2 * (whole - plain))
        assert whole > plain


def test_other_methods_have_no_gamma_of_their_own(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", Simultaneous(SGD(0.1), {"critic": SGD(0.3)}))
    found = spectrum_of(run)
    assert found.gamma is None
    assert found.consensus is None
    assert found.rates == {"generator": 0.1, "critic": 0.3}
    assert found.notes == ()
    assert spectrum_of(run, gamma=0.5).gamma == 0.5
    assert spectrum_of(run, lr=0.7).rates == {"generator": 0.7, "critic": 0.7}


def test_it_is_of_the_mean_over_minibatches_of_the_size_asked_for(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", Simultaneous(SGD(0.1)))
    for settings, samples, batches in (
        ({}, 32, 4),
        ({"batches": 1}, 8, 1),
        ({"batches": 3, "batch": 1}, 3, 3),
    ):
        found = spectrum_of(run, **settings)  # type: ignore[arg-type]
        assert (found.samples, found.batches) == (samples, batches)
    one, again, two = (spectrum_of(run, batches=b).jacobian.values for b in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.allclose(one, two, rtol=1e-6)


@pytest.mark.parametrize("name", ["batches", "batch", "k"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "2", True])
def test_counts_are_whole_and_positive(name: str, value: Any) -> None:
    """Before the run is even looked at."""
    nothing: Any = None
    with pytest.raises(RecipeError, match=f"^{name}={value!r} of a spectrum: it must be a whole"):
        spectrum_of(nothing, **{name: value})


def test_a_minibatch_is_no_larger_than_the_data(tmp_path: Path) -> None:
    rows = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    run = trained(
        tmp_path / "run", Simultaneous(SGD(0.1)), ArraySource(rows, name="twenty", kind="points")
    )
    assert spectrum_of(run, batches=1, batch=20).samples == 20
    with pytest.raises(RecipeError, match="batch=21 is larger than the 20 samples of twenty"):
        spectrum_of(run, batches=1, batch=21)
    assert tree.leaves(run.players)[0].dtype == torch.float32, "the run is left as it is"
