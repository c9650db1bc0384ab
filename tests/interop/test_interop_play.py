"""Our solvers as steps over modules, with torch.optim underneath."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist.core import draws as drawing
from equilibrist.core.draws import Stream
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN
from equilibrist.interop import Play, TorchRule
from equilibrist.optimizers import SGD, Adam
from equilibrist.projections import WeightClipping
from equilibrist.solvers import Alternating, Averaged, Simultaneous

F64 = torch.float64


def pair(norm: bool = False) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(8, dtype=F64)] if norm else []
    return (
        nn.Sequential(nn.Linear(3, 8, dtype=F64), *middle, nn.Tanh(), nn.Linear(8, 2, dtype=F64)),
        nn.Sequential(nn.Linear(2, 8, dtype=F64), nn.Softplus(), nn.Linear(8, 1, dtype=F64)),
    )


def real(step: int) -> Tensor:
    return torch.randn(16, 2, generator=torch.Generator().manual_seed(step), dtype=F64)


def latent(step: int, index: int) -> Tensor:
    """As documented: addressed by (seed, step, index)."""
    rng = drawing.generator(0, Stream.DATA, step, index=index)
    return drawing.normal(rng, (16, 3), F64, None)


def values(*modules: nn.Module) -> list[Tensor]:
    return [t.detach().clone() for m in modules for t in m.state_dict().values()]


@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "AdamW"])
def test_alternating_over_torch_optim_is_the_loop_by_hand(optimizer: str) -> None:
    make = getattr(torch.optim, optimizer)
    g, c = pair()
    rules = {
        "generator": TorchRule(make(g.parameters(), 0.01), g),
        "critic": TorchRule(make(c.parameters(), 0.01), c),
    }
    play = Play(GAN(g, c, Vanilla(), latent=3), g, c, Alternating(1, optimizers=rules))
    g2, c2 = pair()
    og, oc = make(g2.parameters(), 0.01), make(c2.parameters(), 0.01)
    softplus = nn.functional.softplus
    for step in range(5):
        info = play.step(real(step))
        loss = softplus(-c2(real(step))).mean() + softplus(c2(g2(latent(step, 0)).detach())).mean()
        oc.zero_grad()
        loss.backward()
        oc.step()
        og.zero_grad()
        own = softplus(-c2(g2(latent(step, 1)))).mean()
        own.backward()
        og.step()
        assert info["loss"]["critic"] == pytest.approx(loss.item(), rel=1e-12)
        assert info["loss"]["generator"] == pytest.approx(own.item(), rel=1e-12)
        for a, b in zip(values(g, c), values(g2, c2), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_own_rules_and_averages_work_in_place() -> None:
    g, c = pair()
    before = [p.data_ptr() for p in g.parameters()]
    play = Play(GAN(g, c, WGAN(), latent=3), g, c, Averaged(Simultaneous(Adam(0.01)), 0.9), seed=1)
    start = values(g, c)
    for step in range(3):
        play.step(real(step))
    assert [p.data_ptr() for p in g.parameters()] == before
    moved = [not torch.equal(a, b) for a, b in zip(start, values(g, c), strict=True)]
    assert moved == [True] * 7 + [False], "all but the critic's last bias, which WGAN does not see"


@pytest.mark.parametrize("over_torch", [False, True])
def test_projections_hold_in_the_modules(over_torch: bool) -> None:
    """Also between several critic steps, where the projected values are new tensors."""
    g, c = pair()
    rule: Any = SGD(0.5)
    rules = {}
    if over_torch:
        rules = {
            "generator": TorchRule(torch.optim.SGD(g.parameters(), 0.5), g),
            "critic": TorchRule(torch.optim.SGD(c.parameters(), 0.5), c),
        }
    game = GAN(g, c, WGAN(), latent=3, projections=[WeightClipping(0.05)])
    play = Play(game, g, c, Alternating(3, rule, optimizers=rules))
    for step in range(4):
        play.step(real(step))
        assert max(p.abs().max().item() for p in c.parameters()) <= 0.05
    expected = pair()
    other = Play(
        GAN(*expected, WGAN(), latent=3, projections=[WeightClipping(0.05)]),
        *expected,
        Alternating(3, SGD(0.5)),
    )
    for step in range(4):
        other.step(real(step))
    for a, b in zip(values(g, c), values(*expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_running_statistics_and_power_vectors_move_on() -> None:
    g, c = pair(norm=True)
    play = Play(GAN(g, c, Vanilla(), latent=3, spectral_norm=True), g, c, Simultaneous(SGD(0.05)))
    for step in range(3):
        play.step(real(step))
    assert int(g[1].num_batches_tracked) == 3
    assert float(g[1].running_mean.abs().sum()) > 0


def test_a_saved_play_goes_on_with_the_same_bits() -> None:
    def fresh() -> tuple[Any, ...]:
        g, c = pair(norm=True)
        game = GAN(g, c, Vanilla(), latent=3, spectral_norm=True)
        return g, c, Play(game, g, c, Alternating(2, Adam(0.01)))

    g, c, play = fresh()
    for step in range(3):
        play.step(real(step))
    kept, weights = (
        play.state_dict(),
        [{k: v.clone() for k, v in m.state_dict().items()} for m in (g, c)],
    )
    for step in range(3, 6):
        play.step(real(step))
    g2, c2, other = fresh()
    g2.load_state_dict(weights[0])
    c2.load_state_dict(weights[1])
    other.load_state_dict(kept)
    for step in range(3, 6):
        other.step(real(step))
    assert all(torch.equal(a, b) for a, b in zip(values(g, c), values(g2, c2), strict=True))


def test_refused() -> None:
    g, c = pair()
    with pytest.raises(GameError, match=r"does not hold '0\.weight'"):
        TorchRule(torch.optim.SGD(c.parameters(), 0.1), g)
    play = Play(GAN(g, c, WGAN(), latent=3), g, c, Simultaneous())
    with pytest.raises(GameError, match="at least one batch"):
        play.step()
    rule = TorchRule(torch.optim.SGD(g.parameters(), 0.1), g)
    stacked = {k: torch.stack([p, p]).detach() for k, p in g.named_parameters()}
    with pytest.raises(GameError, match="single runs, not stacked"):
        rule.update(stacked, {}, stacked)
    with pytest.raises(GameError, match="build the GAN from these modules"):
        Play(GAN(g, c, WGAN(), latent=3), c, g, Simultaneous())
