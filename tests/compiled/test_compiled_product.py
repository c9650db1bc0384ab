"""Compiled products with a Jacobian against its dense matrix and against eager products."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equilibrist as eq
from equilibrist.core.draws import Draw
from equilibrist.core.exact import Exact

F64 = torch.float64


def as_graph(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
    """Instead of a compiler: the graph itself."""
    return graph


def operator(formulation: Any = None, draws: int = 1, **options: Any) -> eq.JacobianOperator:
    """Of a GAN of small perceptrons."""

    def network(last: int) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, last))

    game = eq.GAN(
        lambda: network(2), lambda: network(1), formulation or eq.Vanilla(), latent=2, **options
    )
    players, constants = game.init(0, dtype=F64)
    data = eq.ArraySource(
        torch.randn(64, 2, generator=torch.Generator().manual_seed(1)), kind="points"
    )
    rng = np.random.Generator(np.random.SFC64(0))
    drawn: list[Draw] = [game.draw(rng, data, 8, F64, torch.device("cpu")) for _ in range(draws)]
    return eq.JacobianOperator(eq.VectorField(Exact(game)), players, constants, drawn)


CASES = {
    "non-saturating": operator,
    "zero-sum": lambda: operator(eq.Vanilla(saturating=True)),
    "gradient penalty": lambda: operator(eq.WGAN(), penalties=[eq.GradientPenalty()]),
    "spectral norm": lambda: operator(spectral_norm=True),
    "two draws": lambda: operator(draws=2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_graph_is_the_matrix(name: str) -> None:
    jacobian = CASES[name]()
    dense = jacobian.dense()
    compiled = eq.CompiledJacobian(jacobian, as_graph)
    u = torch.randn(len(dense), 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(compiled @ u, dense @ u, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(compiled.T @ u, dense.T @ u, atol=1e-10, rtol=1e-10)
    assert compiled.T.T is compiled
    assert compiled.operations > 0


def test_weights_that_move_are_seen() -> None:
    jacobian = operator()
    compiled = eq.CompiledJacobian(jacobian, as_graph)
    u = torch.ones(jacobian.shape[0], dtype=F64)
    compiled.T @ u
    with torch.no_grad():
        jacobian.players["critic"]["0.weight"].mul_(2)
    fresh = eq.JacobianOperator(
        jacobian.field, jacobian.players, jacobian.constants, jacobian.draws
    )
    torch.testing.assert_close(compiled.T @ u, fresh.T @ u, atol=1e-12, rtol=1e-12)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: g++ is not installed")
def test_machine_code_is_the_matrix() -> None:
    jacobian = operator()
    compiled = eq.CompiledJacobian(jacobian)
    u = torch.randn(jacobian.shape[0], dtype=F64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(compiled.T @ u, jacobian.T @ u, atol=1e-10, rtol=1e-10)


def test_a_compiler_that_errs_is_caught() -> None:
    def erring(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        return lambda *arguments: [graph(*arguments)[0] * (1 + 1e-6)]

    jacobian = operator()
    with pytest.raises(
        eq.CompilationError, match="the compiled product differs from the eager one"
    ):
        eq.CompiledJacobian(jacobian, erring) @ torch.ones(jacobian.shape[0], dtype=F64)


def test_wrong_lengths_and_machines_are_refused() -> None:
    jacobian = operator()
    with pytest.raises(ValueError, match="columns, the vector has shape"):
        eq.CompiledJacobian(jacobian, as_graph) @ torch.ones(3, dtype=F64)
    field = eq.VectorField(jacobian.field.game, reduce=lambda x: x)
    averaged = eq.JacobianOperator(field, jacobian.players, jacobian.constants, jacobian.draws)
    with pytest.raises(eq.CompilationError, match="averages over machines"):
        eq.CompiledJacobian(averaged)
