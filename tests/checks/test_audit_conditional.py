"""Audits of conditional games: every real sample keeps its own condition, on every bank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from audit_games import F64, audit_game
from torch import Tensor, nn
from torch.nn.functional import one_hot

from equilibrist import GAN, WGAN, ArraySource, GameError, Recipe, Vanilla, Verdict, train
from equilibrist.checks import Settings
from equilibrist.checks.context import AuditContext
from equilibrist.optimizers import SGD
from equilibrist.penalties import R1
from equilibrist.solvers import Alternating

CLASSES = 3


class Told(nn.Module):
    """A linear map of the input beside the one-hot code of its class (or beside a vector)."""

    def __init__(self, wide: int, out: int, classes: int = CLASSES) -> None:
        super().__init__()
        self.layer, self.classes = nn.Linear(wide + 3, out, dtype=F64), classes

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        c = one_hot(c, self.classes).to(x.dtype) if self.classes else c
        scores: Tensor = self.layer(torch.cat([x, c], 1))
        return scores


class Offset(nn.Module):
    """G(z, c) = z + u_c."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.zeros(classes, 2, dtype=F64))

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return z + self.u[c]


def source(n: int = 120, kind: str = "labels") -> ArraySource:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(n, 2)), np.arange(n) % CLASSES
    if kind == "labels":
        return ArraySource(x, kind="points", labels=labels, dtype=F64)
    return ArraySource(x, kind="points", conditions=rng.normal(size=(n, 3)), dtype=F64)


def game(kind: str = "labels", **more: Any) -> GAN:
    torch.manual_seed(0)
    classes = CLASSES if kind == "labels" else 0
    return GAN(
        Told(2, 2, classes),
        Told(2, 1, classes),
        more.pop("formulation", WGAN()),
        latent=2,
        condition=CLASSES if kind == "labels" else (3,),
        **more,
    )


@pytest.mark.parametrize("kind", ["labels", "vectors"])
@pytest.mark.parametrize("penalties", [(), (R1(0.3),)])
def test_losses_on_the_banks_by_hand(kind: str, penalties: Any) -> None:
    data, g = source(kind=kind), game(kind, penalties=penalties)
    context = AuditContext(g, *g.init(), data, Settings(batch=8, batches=5, look_batches=4), 0)
    held = data.all()
    paired = data.labels if kind == "labels" else data.conditions
    seen: dict[str, list[int]] = {}
    for part in ("select", "score"):
        rows_of: list[int] = []
        by_hand = []
        for draw in context.bank(part):
            rows = [int((held == row).all(1).nonzero()) for row in draw["real"]]
            assert torch.equal(draw["condition"], paired[rows]), "a sample lost its condition"
            rows_of += rows
            critic, generator = g.modules["critic"], g.modules["generator"]
            c, real = draw["condition"], draw["real"].clone().requires_grad_()
            on_real = critic(real, c)
            value = critic(generator(draw["latent"], c), c).mean() - on_real.mean()
            if penalties:
                (slope,) = torch.autograd.grad(on_real.sum(), real, retain_graph=True)
                value = value + 0.3 / 2 * slope.square().sum(1).mean()
            by_hand.append(value.detach())
        found = context.losses("critic", context.players, context.constants, part)
        torch.testing.assert_close(found, torch.stack(by_hand), rtol=1e-12, atol=1e-13)
        assert len(set(rows_of)) == len(rows_of), "a bank draws without replacement"
        seen[part] = rows_of
    assert not set(seen["select"]) & set(seen["score"])
    draw = context.minibatch(3)
    rows = [int((held == row).all(1).nonzero()) for row in draw["real"]]
    assert torch.equal(draw["condition"], paired[rows])
    assert not set(rows) & {*seen["select"], *seen["score"]}


def test_a_deviation_that_needs_the_classes_is_found_and_scored() -> None:
    """V = -sum_c p_c w_c . u_c for critics D(x, c) = w_c . x: u_c = -move along w_c; |w_c| = 1 and clipped u."""
    from equilibrist import WeightClipping

    class Judge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([[1.0, 0], [0, -1], [-1, 0]], dtype=F64))

        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            return (x * self.w[c]).sum(1)

    g = GAN(
        Offset(),
        Judge(),
        WGAN(),
        latent=2,
        condition=CLASSES,
        projections=[WeightClipping(0.5, "generator"), WeightClipping(1.0)],
    )
    found = audit_game(
        g,
        *g.init(),
        source(480),
        Settings(
            batch=24, steps=60, starts=1, absolute=0.1, optimizers={"generator": SGD(0.1)}, looks=4
        ),
        checks=("nash",),
        progress="none",
    )["nash/generator"]
    assert found.verdict is Verdict.REFUTED
    assert found.evidence["gain"] == pytest.approx(0.5, rel=1e-9)  # whatever the shares of classes
    expected = torch.tensor([[0.5, 0], [0, -0.5], [-0.5, 0]], dtype=F64)
    torch.testing.assert_close(found.witness["generator"]["u"], expected)


def trained(g: GAN, data: Any, folder: Any, **more: Any) -> Any:
    recipe = Recipe(g, data, Alternating(1, SGD(0.01)), steps=2, batch=8, dtype=F64, **more)
    return train(recipe, folder, progress="none", device="cpu")


def test_samples_take_the_classes_in_equal_shares(tmp_path: Any) -> None:
    g = GAN(lambda: Offset(), lambda: Told(2, 1), Vanilla(), latent=2, condition=CLASSES)
    run = trained(g, source(), tmp_path / "run")
    with torch.no_grad():
        run.players["generator"]["u"][:, 0] = torch.tensor([0.0, 100.0, 200.0])
    shown = (run.samples(22)[:, 0] / 100).round().long()
    assert shown.tolist() == sorted(shown.tolist())
    assert shown.bincount().tolist() == [8, 7, 7]
    assert (run.samples(2)[:, 0] / 100).round().tolist() == [0, 1]


def test_samples_of_a_generator_with_batch_norm_see_mixed_batches(tmp_path: Any) -> None:
    """In training every batch holds all classes; a batch of one class would be normalised by itself."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.u = nn.BatchNorm1d(1, affine=False).double(), Offset()

        def forward(self, z: Tensor, c: Tensor) -> Tensor:
            level = self.norm(c[:, None].to(z.dtype))  # the class, normalised over its batch
            return torch.cat([level, self.u(z, c)[:, 1:]], 1)

    g = GAN(lambda: Normed(), lambda: Told(2, 1), Vanilla(), latent=2, condition=CLASSES)
    assert not g.separable
    run = trained(g, source(), tmp_path / "run")
    level = run.samples(60)[:, 0]  # batches of eight
    assert level.sort().values.equal(level) or (level.diff() > -0.9).all()
    first, last = level[:20], level[40:]
    assert float(first.max()) < -0.5
    assert float(last.min()) > 0.5
    assert (level[20:40].abs() < 0.8).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (ArraySource(np.zeros((24, 2)), kind="points", labels=np.arange(24) % 5), ["5 classes"]),
        (ArraySource(np.zeros((24, 2)), kind="points"), ["no labels or conditions"]),
        (
            ArraySource(np.zeros((24, 2)), kind="points", conditions=np.zeros((24, 3))),
            ["shape [3]", "labels of 3 classes"],
        ),
    ],
)
def test_data_that_do_not_fit_leave_no_record(data: Any, words: list[str], tmp_path: Any) -> None:
    """One line; and the mended recipe may use the same directory."""
    from equilibrist import EquilibristError

    with pytest.raises(EquilibristError) as caught:
        trained(game(), data, tmp_path / "run")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]
    assert trained(game(), source(), tmp_path / "run").step == 2


class Careless:
    """A source of a user's own: labels as they come."""

    name, origin, kind, size, shape, value_range = "careless", "made up", "points", None, (2,), None

    def __init__(self, low: int, high: int, dtype: torch.dtype = torch.int64) -> None:
        self.low, self.high, self.dtype = low, high, dtype

    def sample(self, rng: np.random.Generator, n: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=(n, 2)))

    def sample_pairs(self, rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
        labels = torch.from_numpy(rng.integers(self.low, self.high, size=n)).to(self.dtype)
        return self.sample(rng, n), labels

    def to(self, device: Any = None, dtype: Any = None) -> Careless:
        return self

    def split(self, fractions: Any, rng: Any) -> tuple[Careless, ...]:
        return tuple(self for _ in fractions)


@pytest.mark.parametrize(("low", "high", "said"), [(0, 9, "the label"), (-5, 3, "the label -")])
def test_a_label_out_of_range_is_one_line(low: int, high: int, said: str, tmp_path: Any) -> None:
    with pytest.raises(GameError, match=f"careless has {said}.*count classes from 0"):
        trained(game(), Careless(low, high), tmp_path / "run")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int16])
def test_labels_of_any_integers_do(dtype: torch.dtype, tmp_path: Any) -> None:
    run = trained(game(), Careless(0, 3, dtype), tmp_path / "run")
    assert run.step == 2
    found = audit_game(
        run.recipe.game,
        run.players,
        run.constants,
        Careless(0, 3, dtype),
        Settings(batch=8, steps=2, starts=1, batches=2, look_batches=1, groups=3, group_batches=1),
        progress="none",
    )
    assert {c.verdict for c in found.values()} <= set(Verdict)
