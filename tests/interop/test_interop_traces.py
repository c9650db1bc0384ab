"""What surrounds a call must neither change an audit nor be changed by it: loaders, contexts, wrappers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from equilibrist.errors import DataError, RecipeError
from equilibrist.formulations import Vanilla
from equilibrist.interop import Watch, source_of

ROWS = torch.arange(100.0).reshape(50, 2)
DATA = TensorDataset(ROWS)
REAL = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)),
    )


def watch(generator: nn.Module, critic: nn.Module) -> Watch:
    return Watch(generator, critic, Vanilla(), REAL, latent=3, gradients=240, batch=32)


class CountingSampler(RandomSampler):
    """Deals another order in every epoch, and counts them itself."""

    epoch = 0

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.epoch = 0

    def __iter__(self) -> Any:
        order = torch.randperm(50, generator=torch.Generator().manual_seed(self.epoch))
        self.epoch += 1
        yield from order.tolist()


def loaders() -> list[DataLoader[Any]]:
    seeded = torch.Generator().manual_seed(3)
    own = RandomSampler(DATA, generator=torch.Generator().manual_seed(4))
    return [
        DataLoader(DATA, batch_size=7, shuffle=True),
        DataLoader(DATA, batch_size=7, shuffle=True, generator=seeded),
        DataLoader(DATA, batch_size=7, sampler=own),
        DataLoader(DATA, batch_size=7, sampler=CountingSampler(DATA)),
    ]


def dealt(loader: DataLoader[Any], peek: bool) -> torch.Tensor:
    """All batches of two epochs, a source made before them, in the middle and between."""
    torch.manual_seed(1)
    batches = []
    for epoch in range(2):
        if peek:
            source_of(loader, limit=20)
        for index, (real,) in enumerate(loader):
            batches.append(real)
            if peek and (epoch, index) == (0, 2):
                assert len(source_of(loader).all()) == 50
    return torch.cat(batches)


@pytest.mark.parametrize("which", range(4))
def test_the_loader_deals_as_if_it_had_not_been_read(which: int) -> None:
    bare = dealt(loaders()[which], peek=False)
    assert torch.equal(dealt(loaders()[which], peek=True), bare)
    assert not torch.equal(bare[:50], bare[50:]), "an order that never changes would show nothing"


def test_workers_that_are_kept_are_not_started_again() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(DATA, batch_size=7, shuffle=True, num_workers=1, persistent_workers=True)

    assert torch.equal(dealt(loader(), peek=True), dealt(loader(), peek=False))


def test_an_iterator_is_refused_and_not_used_up() -> None:
    iterator = iter(DataLoader(DATA, batch_size=7))
    with pytest.raises(DataError, match="pass the loader, not its iterator"):
        source_of(iterator)
    assert sum(len(real) for (real,) in iterator) == 50


def test_labels_that_are_no_classes_do_not_stand_in_the_way() -> None:
    source = source_of([(ROWS, torch.full((50,), -1))])
    assert source.size == 50
    assert source.labels is None


@pytest.mark.parametrize(
    "around",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
    ],
)
def test_an_audit_says_the_same_in_any_context(around: Any) -> None:
    modules = pair()
    plain = watch(*modules).audit()
    with around():
        made_inside = watch(*modules).audit()
    made_before = watch(*modules)
    with around():
        found = made_before.audit()
    assert str(found) == str(made_inside) == str(plain)
    for claim in ("nash/generator", "nash/critic"):
        assert found[claim].evidence == plain[claim].evidence


def test_compiled_modules_are_watched_as_they_train() -> None:
    g, c = pair()
    expected = str(watch(g, c).audit())
    compiled = torch.compile(g, backend="eager"), torch.compile(c, backend="eager")
    seen = watch(*compiled)
    assert str(seen.audit()) == expected
    with torch.no_grad():
        for p in compiled[1].parameters():
            p.mul_(3.0)
    assert str(seen.audit()) != expected


def test_dropout_is_watched_in_evaluation_mode_while_training_goes_on() -> None:
    """As docs/own_loop.md advises."""
    g, c = pair()
    c = nn.Sequential(*c[:2], nn.Dropout(0.5), c[2])
    c.eval()
    seen = watch(g, c)
    c.train()
    seen.audit()
    assert all(m.training for m in c.modules())


@pytest.mark.parametrize("every", [0, -3, 2.5])
def test_every_must_be_a_number_of_steps(every: Any) -> None:
    with pytest.raises(RecipeError, match="whole number of at least 1"):
        Watch(*pair(), Vanilla(), REAL, latent=3, every=every)
