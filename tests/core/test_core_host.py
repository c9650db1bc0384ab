"""What the process around us has set changes no result and makes nothing fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from equilibrist.checks import audit_pair
from equilibrist.nn.pure import PureModule


def test_strict_numpy_errors_make_no_audit_raise() -> None:
    def audited() -> list[tuple[str, str, str]]:
        torch.manual_seed(0)
        generator = nn.Linear(2, 2).double()
        critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        data = torch.randn(256, 2, dtype=torch.float64)
        checks = ("stationary", "stable")
        found = audit_pair(
            generator, critic, data, "vanilla", latent=(2,), checks=checks, progress="none"
        )
        return [(c.claim, c.verdict.value, c.summary) for c in found.values()]

    usual = audited()
    with np.errstate(all="raise"):
        assert audited() == usual
        assert np.geterr()["under"] == "raise"


@pytest.mark.parametrize("wrap", [parametrizations.orthogonal, parametrizations.weight_norm])
def test_a_parametrization_cache_that_is_switched_on_changes_nothing(wrap) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(wrap(nn.Linear(3, 4)), nn.Tanh(), wrap(nn.Linear(4, 1))).double().eval()
    pure = PureModule(module, "critic")
    buffers = {key: b.clone() for key, b in module.named_buffers()}
    x = torch.randn(5, 3, dtype=torch.float64)
    states = [
        {key: p.detach() * scale for key, p in module.named_parameters()} for scale in (1.0, 3.0)
    ]
    usual = [pure(state, buffers, x) for state in states]
    with parametrize.cached():
        own = module(x)
        cached = [pure(state, buffers, x) for state in states]
        assert torch.equal(module(x), own)
        assert parametrize._cache_enabled == 1
    for a, b in zip(usual, cached, strict=True):
        assert torch.equal(a, b)
