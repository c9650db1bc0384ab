"""A last batch of one sample that is yet to come: told by the order in which the data are shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset

from equilibrist.diagnosis import Loop, diagnose
from equilibrist.diagnosis._epochs import Epochs

ROWS, BATCH = 400, 21  # 19 batches of 21, and one of a single row
DATA = torch.randn(ROWS + 200, 2, generator=torch.Generator().manual_seed(1))
TRAIN = DATA[:ROWS]


class Spread(nn.Module):
    """A critic whose standard deviation over the batch is none for one sample."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        spread = ((x - x.mean(0)).square().sum(0) / (len(x) - 1)).sqrt()
        found: Tensor = self.net(torch.cat([x, spread.expand(len(x), 2)], 1))
        return found


def batches(how: str) -> Iterator[Tensor]:
    if how == "drawn":
        while True:
            yield TRAIN[torch.randint(ROWS, (BATCH,))]
    if how == "sliced":
        while True:
            yield from TRAIN[torch.randperm(ROWS)].split(BATCH)[:-1]  # left out by hand
    loader = DataLoader(TensorDataset(TRAIN), BATCH, shuffle=True, drop_last=how == "dropped")
    while True:
        yield from (x for (x,) in loader)


@pytest.mark.parametrize(
    ("how", "level"),
    [("loaded", "fault"), ("dropped", "note"), ("sliced", "note"), ("drawn", "note")],
)
def test_a_last_batch_of_one_is_foreseen(how: str, level: str) -> None:
    torch.manual_seed(0)
    generator, critic = nn.Linear(2, 2), Spread()
    adam_g = torch.optim.Adam(generator.parameters(), 1e-3)
    adam_c = torch.optim.Adam(critic.parameters(), 1e-3)
    data = batches(how)

    def step(i: int) -> None:
        x = next(data)
        fake = generator(torch.randn(len(x), 2))
        adam_c.zero_grad()
        (softplus(-critic(x)).mean() + softplus(critic(fake.detach())).mean()).backward()
        adam_c.step()
        adam_g.zero_grad()
        softplus(-critic(fake)).mean().backward()
        adam_g.step()

    players = {"generator": generator, "critic": critic}
    found = diagnose(
        Loop(step, players, "vanilla", real=DATA[ROWS:], train=TRAIN), 16, progress="none"
    )
    (single,) = (f for f in found.findings if f.name == "batch-of-one")
    assert single.level == level, found
    assert ("400 samples in batches of 21" in single.text) == (level != "note")


@pytest.mark.parametrize(
    ("shown", "batch"),
    [("in order", BATCH), ("again in a round", BATCH), ("drawn", None), ("over", None)],
)
def test_the_order_of_rows(shown: str, batch: int | None) -> None:
    epochs = Epochs(TRAIN)
    rng = torch.Generator().manual_seed(2)
    many = 25 if shown == "over" else 12
    order = torch.cat([torch.randperm(ROWS, generator=rng) for _ in range(2)]).split(BATCH)
    for rows in itertools.islice(order, many):
        drawn = torch.randint(ROWS, (BATCH,), generator=rng) if shown == "drawn" else rows
        for _ in range(1 + (shown == "again in a round")):
            epochs.meet(TRAIN[drawn])
            epochs.meet(torch.randn(BATCH, 2, generator=rng))  # generated ones are no rows
    assert epochs.batch == batch
    assert Epochs(None).batch is None
