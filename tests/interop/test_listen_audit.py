"""Audits of what was heard, on the way and at the end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from listened import same, step, weights
from torch import nn
from torch.nn.functional import softplus

import equilibrist
from equilibrist.errors import DataError, GameError
from equilibrist.interop import Heard, listen

REAL = torch.randn(600, 2, generator=torch.Generator().manual_seed(1)) + torch.tensor([2.0, 0.0])
HELD_OUT = torch.randn(400, 2, generator=torch.Generator().manual_seed(2)) + torch.tensor(
    [2.0, 0.0]
)
OPTIONS: dict[str, Any] = {"gradients": 100, "progress": "none"}


def train(rounds: int = 40, dropout: float = 0.0, pack: int = 1) -> tuple[nn.Module, nn.Module]:
    """Generated rows stay at 0: the second column tells nothing, the first one all."""
    torch.manual_seed(0)
    g = nn.Linear(2, 2)
    d = nn.Sequential(
        nn.Unflatten(0, (-1, pack)),
        nn.Flatten(),
        nn.Linear(2 * pack, 16),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(16, 1),
    )
    adam_d, adam_g = torch.optim.Adam(d.parameters(), 1e-2), torch.optim.Adam(g.parameters(), 1e-9)
    for _ in range(rounds):
        real = REAL[torch.randint(len(REAL), (40,))]
        fake = g(torch.randn(40, 2))
        loss = softplus(-d(real)).mean() + softplus(d(fake.detach())).mean()
        step(adam_d, loss)
        step(adam_g, softplus(-d(fake)).mean())
    return g, d


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_audit_on_the_way_leaves_no_trace_and_is_that_of_the_end(dropout: float) -> None:
    """Of a snapshot afterwards, and at its moment."""
    bare = weights(*train(dropout=dropout))
    after = torch.get_rng_state()
    early: list[Any] = []

    def look(heard: Heard) -> None:
        early.append(heard.audit("vanilla", mode="train", **OPTIONS))

    with listen(every=(30,), then=look) as heard:
        found = train(dropout=dropout)
    assert same(bare, weights(*found))
    assert torch.equal(after, torch.get_rng_state())
    assert len(early) == 1
    again = heard.audit("vanilla", at=30, mode="train", **OPTIONS)
    assert torch.equal(after, torch.get_rng_state())
    values = [{c: early[0][c].summary for c in early[0]}, {c: again[c].summary for c in again}]
    assert values[0] == values[1]
    late = heard.audit("vanilla", mode="train", **OPTIONS)
    assert late["not-saturated"].evidence != again["not-saturated"].evidence


def test_held_out_samples_and_what_they_are_for() -> None:
    with listen() as heard:
        train()
    shown = heard.audit("vanilla", **OPTIONS)
    assert "train_real" in shown["not-memorising"].summary, "what it was trained on stands for real"
    real = torch.cat(heard.batches("real"))
    assert len(torch.unique(real, dim=0)) < len(real), "rows are shown again and again"
    own = heard.audit("vanilla", real=HELD_OUT, **OPTIONS)
    assert "interval" in own["not-memorising"].evidence
    # The exact separation of two normal laws that lie 2 apart is Phi(2 / sqrt(2)) = 0.92; the generator is linear.
    assert own["not-saturated"].evidence["separation"] > 0.85
    told = heard.audit("vanilla", real=HELD_OUT, fake=torch.randn(400, 2), **OPTIONS)
    assert told.columns[0]["name"] == "column 0"
    with pytest.raises(GameError, match="no snapshot of Sequential after step 3: there is none"):
        heard.audit("vanilla", at=3)
    with pytest.raises(GameError, match="no critic named"):
        heard.audit("vanilla", critic="Linear")
    critic, generator = heard.pair()
    assert critic is heard.critic
    assert generator is heard.generator


def test_packs_are_passed_on() -> None:
    with equilibrist.listen() as heard:
        train(pack=2)
    assert heard.pack() == 2
    found = heard.audit("vanilla", **OPTIONS)
    assert found["not-saturated"].evidence["separation"] > 0.8


def test_too_little_was_heard() -> None:
    with listen() as heard:
        train(rounds=2)
    with pytest.raises(DataError, match=r"real: .* samples are too few"):
        heard.audit("vanilla", **OPTIONS)
    critic = nn.Linear(2, 1)
    adam = torch.optim.Adam(critic.parameters())
    with listen(critic) as heard:
        for _ in range(3):
            step(adam, critic(REAL[:40]).mean())
    with pytest.raises(DataError, match=r"real: no real batches were told apart.*order= or tell="):
        heard.audit("vanilla", **OPTIONS)
