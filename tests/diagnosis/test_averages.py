"""Averages without buffers, beside averages that have them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from equilibrist.diagnosis.averages import check_average, energy
from equilibrist.errors import GameError


def generator() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


def sample(net: nn.Module, n: int) -> Tensor:
    out: Tensor = net(torch.randn(n, 4))
    return out


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, dict[str, nn.Module], Tensor]:
    """A generator fitted to its own target, and averages of it of every kind."""
    torch.manual_seed(0)
    net, start = generator(), torch.randn(2000, 4)
    real = torch.tanh(start[:, :2]) + 3
    averages = {
        "bare": copy.deepcopy(net),
        "averaged": AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
        "copied": AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
        "updated": AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    }
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    for i in range(400):
        rows = torch.randint(2000, (64,))
        loss = (net(start[rows]) - real[rows]).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        for name in ("averaged", "copied", "updated"):
            averages[name].update_parameters(net)  # type: ignore[operator]
        with torch.no_grad():
            for mine, theirs in zip(averages["bare"].parameters(), net.parameters(), strict=True):
                mine.lerp_(theirs, 0.1)
        if i == 20:
            stale = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    update_bn([start[:500]], averages["updated"])
    averages["stale"] = copy.deepcopy(averages["copied"])
    averages["stale"].module.load_state_dict(stale, strict=False)  # type: ignore[operator]
    return net, averages, real[torch.randperm(2000)]


@pytest.mark.parametrize("name", ["averaged", "copied", "updated"])
def test_averages_with_statistics_raise_nothing(name: str, trained: tuple) -> None:  # type: ignore[type-arg]
    net, averages, real = trained
    assert check_average(averages[name], net, real, sample) == ()


def test_statistics_that_were_never_updated(trained: tuple) -> None:  # type: ignore[type-arg]
    net, averages, real = trained
    (found,) = check_average(averages["bare"], net, real, sample)
    assert (found.name, found.level, found.sure) == ("average-buffers", "fault", "certain")
    assert "1 (1 layers) were never updated" in found.text
    assert found.evidence["interval"][0] > 0
    assert found.evidence["own"] > 2 * found.evidence["with_module"]
    (unmeasured,) = check_average(averages["bare"], net)
    assert unmeasured.level == "warning"
    assert averages["bare"][1].num_batches_tracked == 0, "nothing of the user's is touched"
    (stale,) = check_average(averages["stale"], net, real, sample)
    assert (stale.level, stale.sure) == ("fault", "likely")


def test_networks_without_batch_norm_and_of_other_kinds(trained: tuple) -> None:  # type: ignore[type-arg]
    plain = nn.Linear(4, 2)
    assert check_average(copy.deepcopy(plain), plain) == ()
    with pytest.raises(GameError, match="no layer 1"):
        check_average(plain, trained[0])


def test_the_energy_distance() -> None:
    """Two points each, by hand: 2 * mean(|0-1|, |0-3|, |2-1|, |2-3|) - 2 - 2."""
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    assert energy(x.double(), y.double()) == pytest.approx(2 * 6 / 4 - 4)
