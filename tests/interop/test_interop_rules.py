"""A torch optimiser under any solver is the library's own rule under it: look-aheads and resets included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist.errors import GameError
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN
from equilibrist.interop import Play, TorchRule
from equilibrist.optimizers import SGD, Adam
from equilibrist.solvers import (
    Alternating,
    Consensus,
    Extragradient,
    Lookahead,
    Optimistic,
    PastExtragradient,
    Proximal,
    Simultaneous,
    Unrolled,
)

F64 = torch.float64


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(3, 8, dtype=F64), nn.Tanh(), nn.Linear(8, 2, dtype=F64)),
        nn.Sequential(nn.Linear(2, 8, dtype=F64), nn.Softplus(), nn.Linear(8, 1, dtype=F64)),
    )


def real(step: int) -> Tensor:
    return torch.randn(16, 2, generator=torch.Generator().manual_seed(step), dtype=F64)


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), 0.01, betas=(0.5, 0.9))


def play(pair: tuple[nn.Module, nn.Module], solver: Any) -> Play:
    return Play(GAN(*pair, Vanilla(saturating=True), latent=3), *pair, solver)


def weights(modules: tuple[nn.Module, nn.Module]) -> Tensor:
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])


def rules(modules: tuple[nn.Module, nn.Module], make: Any = adam) -> dict[str, Any]:
    g, c = modules
    return {"generator": TorchRule(make(g), g), "critic": TorchRule(make(c), c)}


@pytest.mark.parametrize(
    "solver",
    [
        Alternating,
        Consensus,
        Extragradient,
        Optimistic,
        PastExtragradient,
        Proximal,
        Simultaneous,
        Unrolled,
        lambda optimizers: Lookahead(Simultaneous(optimizers=optimizers)),
    ],
)
@pytest.mark.parametrize("momentum", [False, True])
def test_any_solver_over_torch_optim_is_that_over_the_own_rule(solver: Any, momentum: bool) -> None:
    ours, theirs = pair(), pair()
    own = Adam(0.01, 0.5, 0.9) if momentum else SGD(0.05)
    make = adam if momentum else lambda m: torch.optim.SGD(m.parameters(), 0.05)
    one = play(ours, solver(optimizers={"generator": own, "critic": own}))
    other = play(theirs, solver(optimizers=rules(theirs, make)))
    start = weights(ours)
    for step in range(6):
        one.step(real(step))
        other.step(real(step))
        torch.testing.assert_close(weights(theirs), weights(ours), rtol=1e-9, atol=1e-12)
    assert float((weights(ours) - start).abs().max()) > 1e-3
    assert all(p.grad is None for m in theirs for p in m.parameters())


def test_a_play_takes_over_the_moments_that_a_loop_has_made() -> None:
    """Five steps by hand and five by a solver are ten by a solver."""
    modules = pair()
    used = rules(modules)
    whole = play(modules, Simultaneous(optimizers=used))
    for step in range(10):
        whole.step(real(step))

    other = pair()
    first = rules(other)
    begun = play(other, Simultaneous(optimizers=first))
    for step in range(5):
        begun.step(real(step))
    # New rules over the same optimisers, as where a loop hands them over.
    again = {p: TorchRule(first[p].optimizer, m) for p, m in zip(first, other, strict=True)}
    rest = play(other, Simultaneous(optimizers=again))
    rest.steps = 5
    for step in range(5, 10):
        rest.step(real(step))
    assert torch.equal(weights(modules), weights(other))


def test_a_saved_play_over_torch_optim_goes_on_with_the_same_bits() -> None:
    """From its own state_dict and the modules' alone: the moments are in it."""

    def fresh() -> tuple[tuple[nn.Module, nn.Module], Play]:
        modules = pair()
        return modules, play(modules, Extragradient(optimizers=rules(modules)))

    modules, whole = fresh()
    for step in range(3):
        whole.step(real(step))
    kept = whole.state_dict()
    saved = [{k: v.clone() for k, v in m.state_dict().items()} for m in modules]
    for step in range(3, 6):
        whole.step(real(step))
    others, rest = fresh()
    for module, state in zip(others, saved, strict=True):
        module.load_state_dict(state)
    rest.load_state_dict(kept)
    for step in range(3, 6):
        rest.step(real(step))
    assert torch.equal(weights(modules), weights(others))
    g = rest.solver.optimizers["generator"].optimizer
    assert {float(s["step"]) for s in g.state.values()} == {6.0}


def test_schedules_of_the_loop_reach_the_steps() -> None:
    modules = pair()
    used = rules(modules, lambda m: torch.optim.SGD(m.parameters(), 0.1))
    schedule = torch.optim.lr_scheduler.MultiplicativeLR(
        used["generator"].optimizer, lambda step: 0.0
    )
    game = play(modules, Simultaneous(optimizers=used))
    game.step(real(0))
    schedule.step()
    before = [weights((m, m)) for m in modules]
    game.step(real(1))
    moved = [not torch.equal(a, weights((m, m))) for a, m in zip(before, modules, strict=True)]
    assert moved == [False, True]


class Counting(torch.optim.SGD):
    """Keeps a plain number, as some optimisers do."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["steps"] = self.state[p].get("steps", 0) + 1


def test_refused() -> None:
    g, c = pair()
    both = torch.optim.SGD([*g.parameters(), *c.parameters()], 0.1)
    with pytest.raises(GameError, match="an optimiser of its own"):
        TorchRule(both, c)
    modules = pair()
    counting = rules(modules, lambda m: Counting(m.parameters(), 0.1))
    with pytest.raises(GameError, match="keeps 'steps' as int"):
        play(modules, Simultaneous(optimizers=counting)).step(real(0))
