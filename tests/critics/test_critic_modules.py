"""Critics as users have them: what they return, how they are wrapped, what noise they draw; and what is refused."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from critic_cases import APART, audited, bayes, gaussians, linear
from torch import Tensor, nn
from torch.nn import functional as f
from torch.utils.data import DataLoader, TensorDataset

import equilibrist as eq
from equilibrist.critics._fresh import fresh_critic
from equilibrist.critics.judge import scores_of
from equilibrist.errors import DataError, GameError, RecipeError


def numbers(found: Any) -> dict[str, Any]:
    return {c: (v.verdict, v.number("gain"), v.interval) for c, v in found.items()}


def test_the_same_loss_written_by_hand() -> None:
    """A formulation with a penalty, and a function with the same penalty: the same gains to rounding."""
    real, fake = gaussians()

    def loss(critic: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        return f.softplus(-critic(a)).mean() + f.softplus(critic(b)).mean()

    def r1(critic: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        a = a.clone().requires_grad_()
        (g,) = torch.autograd.grad(critic(a).sum(), a, create_graph=True)
        return 0.5 * g.square().sum(1).mean()

    critic = linear([-1.0, 0.2, 0.0])
    named = audited(critic, real, fake, "vanilla", penalties=(eq.R1(1.0),), absolute=0.02)
    own = audited(critic, real, fake, loss, penalties=(r1,), absolute=0.02)
    for claim in ("best-response", "best-of-class", "penalty-costs-nothing"):
        assert own[claim].verdict is named[claim].verdict
        assert own[claim].evidence["gain"] == pytest.approx(named[claim].evidence["gain"], abs=1e-9)
    assert own["not-lagging"].interval == pytest.approx(named["not-lagging"].interval, abs=1e-9)


def test_unequal_numbers_of_samples() -> None:
    """A loss that mixes real and generated samples gets as many of both."""
    real, fake = gaussians()

    def loss(critic: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        between = torch.lerp(a, b, torch.rand(len(a), 1, dtype=a.dtype)).requires_grad_()
        (g,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return critic(b).mean() - critic(a).mean() + 10 * (g.norm(dim=1) - 1).square().mean()

    found = audited(linear([-1.0, 0.0, 0.0]), real, fake[:500], loss)
    assert found.states == ()
    again = audited(linear([-1.0, 0.0, 0.0]), real, fake[:500], "relativistic", gradients=100)
    assert math.isfinite(again["best-response"].evidence["gain"])


def test_the_direction_of_scores_is_found() -> None:
    """A loss that calls generated samples 1: low scores mean real."""
    real, fake = gaussians()

    def loss(critic: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        return f.softplus(critic(a)).mean() + f.softplus(-critic(b)).mean()

    found = audited(linear([APART, 0.0, 0.0], -(APART**2) / 2), real, fake, loss)
    assert found["not-saturated"].evidence["separation"] > 0.8
    assert found.states == ()


def test_repeats_bit_for_bit_and_touches_nothing() -> None:
    real, fake = gaussians()
    critic = linear([-1.0, 0.0, 0.0])
    before, state = copy.deepcopy(critic.state_dict()), torch.get_rng_state()
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()
    first = audited(critic, real, fake, "hinge")
    assert all(torch.equal(v, critic.state_dict()[k]) for k, v in before.items())
    assert critic.training
    assert torch.equal(state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()
    assert python_state == random.getstate()
    torch.rand(3)
    with torch.no_grad():
        assert numbers(audited(critic, real, fake, "hinge")) == numbers(first)
    assert numbers(audited(critic, real, fake, "hinge", seed=1)) != numbers(first)


def test_rows_that_score_neither_train_nor_choose() -> None:
    """Moving the rows that score changes gains, not the curves of the trainings."""
    from equilibrist.critics import _samples

    real, fake = gaussians()
    rows = _samples.Samples(_samples.Inputs(real), torch.arange(len(real)), (), "")
    score = _samples.parts(rows, "real", 0)[2]
    moved = real.clone()
    moved[score] += 1e-3
    a, b = (audited(linear([-1.0, 0.0, 0.0]), r, fake, "vanilla") for r in (real, moved))
    for claim in ("best-response", "best-of-class"):
        assert a[claim].evidence["curves"] == b[claim].evidence["curves"]
        assert a[claim].evidence["gain"] != b[claim].evidence["gain"]


class Returns(nn.Module):
    """A linear critic that returns its score in some form."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.line, self.form = bayes(), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.line(x))


FORMS = {
    "[n]": lambda s: s[:, 0],
    "score and features": lambda s: (s, s.expand(-1, 7)),
    "several heads": lambda s: [s, s, s],
    "heads with features": lambda s: [(s, s.expand(-1, 3)), (s, s)],
    "map of patches": lambda s: s[:, :, None, None].expand(-1, 1, 3, 3),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_critics_return(form: str) -> None:
    """Every form of the same score gives the same answer."""
    real, fake = gaussians()
    plain = audited(Returns(lambda s: s), real, fake, "vanilla")
    found = audited(Returns(FORMS[form]), real, fake, "vanilla")
    assert found["best-response"].evidence["gain"] == pytest.approx(
        plain["best-response"].evidence["gain"], abs=1e-9
    )
    assert found["not-saturated"].interval == plain["not-saturated"].interval


def test_two_logits_need_a_score() -> None:
    real, fake = gaussians()
    two = Returns(lambda s: torch.cat([-s / 2, s / 2], 1))
    with pytest.raises(GameError, match=r"\[16, 2\], 2 numbers a sample: pass score="):
        audited(two, real, fake, "vanilla")
    found = audited(two, real, fake, "vanilla", score=lambda out: out[:, 1] - out[:, 0])
    assert found.states == ()
    with pytest.raises(GameError, match="returns dict: pass score="):
        scores_of({}, 3)


class Packed(nn.Module):
    """A critic that judges four rows at once."""

    def __init__(self) -> None:
        super().__init__()
        self.line = linear([-APART, 0.0, 0.0] * 4, 2 * APART**2)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x.reshape(len(x) // 4, -1))


def test_packs() -> None:
    """Four rows together tell more: Phi(2 apart / sqrt 2) of pairs; columns are those of a row."""
    real, fake = gaussians()
    with pytest.raises(GameError, match="pass pack=4"):
        audited(Packed(), real, fake, "vanilla")
    found = audited(Packed(), real, fake, "vanilla", pack=4)
    low, high = found["not-saturated"].evidence["separation_interval"]
    assert low < 0.5 * (1 + math.erf(APART)) < high
    assert [c["name"] for c in found.columns] == ["column 0"]
    assert len(found.rows[0]["row"]) == 4


class Conditional(nn.Module):
    """A critic that is shown where the law of a label lies."""

    def __init__(self) -> None:
        super().__init__()
        self.line = bayes()
        self.place = nn.Embedding(2, 3).double()
        with torch.no_grad():
            self.place.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]]))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.line(x - self.place(y))


def test_conditions() -> None:
    """Real and generated samples come with labels of their own; penalties see the right ones."""
    real, fake = gaussians()
    y = torch.arange(len(real)) % 2
    shift = 5.0 * y[:, None] * torch.tensor([1.0, 0.0, 0.0])
    other = y.flip(0)
    found = audited(
        Conditional(),
        (real + shift, y),
        (fake + 5.0 * other[:, None] * torch.tensor([1.0, 0.0, 0.0]), other),
        "vanilla",
        penalties=(eq.R1(1e-6), eq.R2(1e-6)),
    )
    low, high = found["not-saturated"].evidence["separation_interval"]
    assert low < 0.5 * (1 + math.erf(APART / 2)) < high
    with pytest.raises(GameError, match=r"as tuples \(x, y\)"):
        audited(Conditional(), real, fake, "vanilla")


def test_images_name_their_patches() -> None:
    g = torch.Generator().manual_seed(0)
    real, fake = torch.randn(300, 1, 8, 8, generator=g), torch.randn(300, 1, 8, 8, generator=g)
    fake[:, :, 0:2, 6:8] += 2.0
    critic = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3, 2, 1))
    found = audited(critic, real, fake, "hinge", gradients=200)
    named = {c["name"] for c in found.columns}
    assert named == {f"row {r}, column {c}" for r in (0, 1) for c in (6, 7)}


def test_sequences_of_tokens() -> None:
    """Whole numbers go to an embedding as they are, to other critics as floats; nothing has a slope along them."""
    g = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(low, 5, (300, 3), generator=g) for low in (0, 1))
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 1))
    found = audited(critic, real, fake, "hinge", gradients=200)
    assert "whole numbers" in found["informative"].summary
    assert found["not-saturated"].verdict is eq.Verdict.VERIFIED
    plain = audited(nn.Linear(3, 1), real, fake, "hinge", gradients=100)
    assert plain["not-saturated"].number("median_slope") is not None


def test_samples_of_inference_mode() -> None:
    real, fake = gaussians()
    with torch.inference_mode():
        a, b = real + 0, fake + 0
    found = audited(linear([-1.0, 0.0, 0.0]), a, b, "wgan", penalties=(eq.GradientPenalty(),))
    assert found.states == ()


def test_spectral_norm_dropout_and_wrappers() -> None:
    """torch's spectral norm, dropout in training mode, DataParallel: each is audited."""
    real, fake = (x.float() for x in gaussians())
    torch.manual_seed(0)
    sn = nn.utils.parametrizations.spectral_norm
    body = nn.Sequential(sn(nn.Linear(3, 16)), nn.ReLU(), nn.Dropout(0.5), sn(nn.Linear(16, 1)))
    few = {"mode": "train", "gradients": 100}
    found = audited(nn.DataParallel(body), real, fake, "hinge", **few)
    assert numbers(found) == numbers(audited(body, real, fake, "hinge", **few))
    half = audited(nn.Sequential(nn.Linear(3, 1)).half(), real, fake, "hinge", gradients=100)
    assert half.precision == "float32"
    assert "float16" in half.notes[0]


@pytest.mark.parametrize("norm", ["none", "new", "old"])
def test_fresh_critics_have_new_weights(norm: str) -> None:
    torch.manual_seed(0)
    layer: nn.Module = nn.Linear(4, 8)
    if norm == "new":
        layer = nn.utils.parametrizations.weight_norm(layer)
    elif norm == "old":
        with pytest.warns(FutureWarning):
            layer = nn.utils.weight_norm(layer)
    critic = nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        for p in critic.parameters():
            p.mul_(50).add_(7)
    made, kept = fresh_critic(critic, None, 0)
    x = torch.randn(5, 4)
    assert not kept
    repeat, _ = fresh_critic(critic, None, 0)
    with torch.no_grad():
        assert float(made(x).abs().max()) < 5 < float(critic(x).abs().min())
        assert torch.equal(made(x), repeat(x))


def test_what_has_no_rule_is_noted() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.gain = nn.Linear(3, 1).double(), nn.Parameter(torch.ones(1).double())

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * self.line(x)

    real, fake = gaussians()
    assert "the parameters gain of the critic" in audited(Scaled(), real, fake, "hinge").notes[0]
    found = audited(Scaled(), real, fake, "hinge", fresh=Scaled)
    assert not found.notes


def test_forms_of_samples() -> None:
    """Arrays, datasets, loaders and tables give what tensors give; columns bring their names."""
    real, fake = gaussians()
    whole = audited(bayes(), real, fake, "vanilla")
    loader = DataLoader(TensorDataset(real), batch_size=100)
    found = audited(bayes(), loader, fake.numpy(), "vanilla")
    assert numbers(found) == numbers(whole)

    class Table:  # as a DataFrame is asked
        columns = ("age", "height", "income")

        def to_numpy(self) -> Any:
            return real.numpy()

    named = audited(bayes(), Table(), fake, "vanilla")
    assert [c["name"] for c in named.columns] == ["age"]
    groups = audited(bayes(), Table(), fake, "vanilla", columns={"body": ["age", 1], "rest": 2})
    assert [c["name"] for c in groups.columns] == ["body"]


def test_samples_of_one_law_are_not_told() -> None:
    """8 audits of a critic of equal laws: nothing is raised in any."""
    raised = []
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        real, fake = (torch.randn(200, 2, generator=g) for _ in range(2))
        torch.manual_seed(seed)
        raised += audited(nn.Linear(2, 1), real, fake, "vanilla", gradients=100, seed=seed).states
    assert raised == []


REAL = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"critic": lambda x: x}, GameError, "pass an nn.Module"),
        ({"critic": nn.Flatten()}, GameError, "has no parameters"),
        ({"critic": nn.Linear(3, 1)}, GameError, r"cannot be run on samples \[16, 2\]"),
        (
            {"critic": nn.Linear(8, 1), "pack": 2},
            GameError,
            r"cannot be run on samples \[32, 2\].*2 to a pack: let it reshape them",
        ),
        ({"critic": nn.LazyLinear(1)}, GameError, "has no shape yet"),
        ({"real": REAL[:10]}, DataError, "real: 10 samples are too few"),
        ({"fake": REAL[:, :1]}, DataError, r"fake: samples have shape \[1\], real ones \[2\]"),
        ({"fake": REAL / 0}, DataError, "fake: sample 0 holds a number that is not finite"),
        ({"real": None}, DataError, "real: no samples"),
        ({"real": "data.csv"}, DataError, "real: data of type str"),
        ({"loss": "vanila"}, RecipeError, "did you mean vanilla"),
        ({"loss": nn.BCEWithLogitsLoss()}, GameError, "write Vanilla"),
        ({"loss": 3}, GameError, "loss=int: pass a formulation"),
        ({"loss": lambda c, r, g: 1.0}, GameError, "returns float: it must return one number"),
        ({"loss": lambda c, r, g: c(r)}, GameError, r"returns \[\d+, 1\]"),
        ({"loss": lambda c, r, g: c(r, r)}, GameError, r"loss\(critic, real, fake\) fails: TypeE"),
        ({"reward": lambda s: s[:3]}, GameError, r"reward returns \[3\] for"),
        ({"reward": lambda s: s.nothing}, GameError, r"reward\(scores\) fails: AttributeError"),
        ({"columns": ["a"]}, DataError, "columns: 1 names for samples of 2 numbers"),
        ({"columns": {"a": [5]}}, DataError, "names column 5: samples have 2"),
        ({"columns": {"a": []}}, DataError, "holds no column"),
        ({"gradients": 3}, RecipeError, "gradients=3"),
        ({"mode": "as is"}, RecipeError, "mode='as is'"),
        ({"pack": 0}, RecipeError, "pack=0"),
        ({"seed": -1}, RecipeError, "seed=-1"),
        ({"confidence": 2.0}, RecipeError, "confidence=2.0"),
        ({"train_real": REAL}, DataError, "are left without those of train_real"),
        ({"fresh": lambda: 3}, GameError, r"fresh\(\) returns int"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refused_in_one_line(change: dict[str, Any], kind: type, says: str) -> None:
    given: dict[str, Any] = {
        "critic": nn.Linear(2, 1),
        "real": REAL,
        "fake": REAL + 1,
        "loss": "vanilla",
        "gradients": 100,
        **change,
    }
    with pytest.raises(kind, match=says) as raised:
        eq.audit_critic(progress="none", **given)
    assert "\n" not in str(raised.value)


def test_a_loss_that_is_not_finite_is_said() -> None:
    real, fake = gaussians()

    def broken(critic: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        return (critic(b).mean() - critic(a).mean()) * float("nan")

    found = audited(linear([-1.0, 0.0, 0.0]), real, fake, broken, gradients=100)
    assert found["best-response"].verdict is eq.Verdict.UNASSESSED
    assert "every run met a loss that is not finite" in found["best-response"].summary
    assert found.states == ()
