"""Each state planted on a small case, and its healthy twin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from critic_cases import APART, audited, bayes, gaussians, linear, separation
from torch import Tensor, nn

from equilibrist import WGAN, GradientPenalty, Vanilla, Verdict
from equilibrist.errors import RequirementError
from equilibrist.formulations import Hinge, LeastSquares
from equilibrist.penalties import R1, R2

HOLDS = (Verdict.VERIFIED, Verdict.NOT_REFUTED)
REFUTED, VERIFIED = Verdict.REFUTED, Verdict.VERIFIED


def vanilla_loss(apart: float) -> float:
    """E softplus(-D) + E softplus(D) of the best critic: D is N(a^2/2, a^2) on real samples, mirrored on the others."""
    t = np.linspace(-12, 12, 20001)
    density = np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
    values = np.logaddexp(0, -(apart**2 / 2 + apart * t))
    return 2 * float((values * density).sum() * (t[1] - t[0]))


@pytest.fixture(scope="module")
def healthy() -> Any:
    """The best critic of two Gaussians, with samples that it might have been trained on."""
    real, fake = gaussians()
    g = torch.Generator().manual_seed(2)
    trained = torch.randn(500, 3, generator=g, dtype=torch.float64)
    return audited(bayes(), real, fake, "vanilla", train_real=trained)


def test_the_best_critic_raises_nothing(healthy: Any) -> None:
    assert healthy.states == ()
    assert healthy["best-response"].verdict is Verdict.NOT_REFUTED
    assert healthy["not-memorising"].verdict in HOLDS
    assert healthy["not-saturated"].verdict is VERIFIED
    assert healthy["informative"].verdict is VERIFIED
    assert healthy.place.startswith("No fault was found")


def test_separation_and_columns_are_the_laws_own(healthy: Any) -> None:
    low, high = healthy["not-saturated"].evidence["separation_interval"]
    assert low < separation() < high
    assert high - low < 0.1
    assert [c["name"] for c in healthy.columns] == ["column 0"]
    assert healthy.columns[0]["effect"] == pytest.approx(separation() - 0.5, abs=0.04)


def test_a_silent_critic_gains_what_the_best_one_would() -> None:
    """2 log 2 less the best critic's loss, in closed form."""
    real, fake = gaussians()
    found = audited(linear([0.0, 0.0, 0.0]), real, fake, "vanilla", gradients=1000)
    gain = found["best-response"]
    assert gain.verdict is REFUTED
    low, high = gain.interval
    assert low < 2 * math.log(2) - vanilla_loss(APART) < high
    assert high - low < 0.25
    assert found.states[0] == "lagging"
    assert found["best-response"].witness["critic"]["weight"].shape == (1, 3)


@pytest.mark.parametrize("apart", [True, False])
def test_one_score_for_all_samples(apart: bool) -> None:
    """A softmax over one column: a fault where samples can be told apart, and right where they cannot."""
    real, fake = gaussians()
    other = torch.randn(real.shape, generator=torch.Generator().manual_seed(9), dtype=real.dtype)
    same = real.std(0) * other + real.mean(0)
    critic = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1), nn.Softmax(1)).double()
    audit = audited(critic, real, fake if apart else same, "vanilla")
    (found,) = [f for f in audit.findings if f.name == "constant-score"]
    assert (found.level, found.sure) == (("fault", "likely") if apart else ("warning", "possible"))
    assert found.evidence["value"] == 1
    assert audit.findings[0] is not None
    assert audit.place.startswith("The critic gives every sample the same score (1,")


def test_lagging_and_its_twin(healthy: Any) -> None:
    """A critic trained against samples that have moved to the other side."""
    real, fake = gaussians()
    found = audited(linear([APART, 0.0, 0.0], APART**2 / 2), real, fake, "vanilla")
    assert found.states[0] == "lagging"
    assert found["not-lagging"].interval[0] > 0.75
    assert healthy["not-lagging"].verdict is Verdict.NOT_REFUTED


@pytest.mark.parametrize("loss", [Vanilla(), Hinge(), LeastSquares()], ids=str)
def test_smothered_is_told_from_lagging(loss: Any) -> None:
    """A slope that R1 and R2 of weight 300 leave: near chance, though nothing is gained by training on."""
    real, fake = gaussians()
    slope = (
        APART / 1200
    )  # where the penalties' slope 600 w meets that of the loss, of order apart / 2
    critic = linear([-slope, 0.0, 0.0], 0.0)
    found = audited(critic, real, fake, loss, penalties=(R1(300.0), R2(300.0)), gradients=600)
    assert found.states[0] == "smothered"
    assert found["not-lagging"].verdict is not REFUTED
    assert found["penalty-costs-nothing"].verdict is REFUTED
    lagging = audited(linear([-1e-4, 0.0, 0.0]), real, fake, loss, penalties=(R1(0.01),))
    assert lagging.states[0] == "lagging"


def test_a_gradient_penalty_does_not_smother() -> None:
    """WGAN-GP's best linear critic has slope one: scores have no scale, and the order is perfect."""
    real, fake = gaussians()
    found = audited(
        linear([-1.0, 0.0, 0.0]), real, fake, WGAN(), penalties=(GradientPenalty(10.0),)
    )
    assert found.states == ()
    assert found["penalty-costs-nothing"].verdict is Verdict.UNASSESSED


class Step(nn.Module):
    """A critic that is flat where the samples are: k tanh of a steep linear score."""

    def __init__(self, steep: float) -> None:
        super().__init__()
        self.line = linear([-steep, 0.0, 0.0], 5 * steep)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.line(x))


def test_saturated_and_its_twin() -> None:
    """Laws ten standard deviations apart: a steep critic is flat at the samples, a gentle one is not."""
    real, fake = gaussians(apart=10.0)
    steep = audited(Step(3.0), real, fake, Hinge())
    assert steep.states[0] == "saturated"
    assert steep.place.startswith("The critic is saturated: it separates 100.0%")
    gentle = audited(Step(0.1), real, fake, Hinge())
    assert gentle["not-saturated"].evidence["separation"] > 0.99
    assert gentle["not-saturated"].verdict is VERIFIED


def test_the_share_without_reward_is_that_of_the_reward() -> None:
    """max(0, 1 - (s - 1)^2 / 4) is zero, and flat, where s < -1: the share of generated samples there is known."""
    real, fake = gaussians(apart=10.0)
    critic = linear(
        [-0.2, 0.0, 0.0], 1.0
    )  # N(1, 0.04) on real samples, N(-1, 0.04) on generated ones

    def clipped(s: Tensor) -> Tensor:
        return torch.clamp(1 - 0.25 * (s - 1).square(), min=0)

    found = audited(critic, real, fake, LeastSquares(), reward=clipped)
    exact = float((critic(fake)[:, 0] <= -1).double().mean())
    assert found["not-saturated"].evidence["no_reward"] == exact
    assert found.states[0] == "saturated"

    def by_samples(module: nn.Module, x: Tensor) -> Tensor:
        return clipped(module(x)[:, 0])

    again = audited(critic, real, fake, LeastSquares(), reward=by_samples)
    share = again["not-saturated"].evidence["share"]
    assert share == pytest.approx(found["not-saturated"].evidence["share"], abs=0.02)


class Table(nn.Module):
    """A critic that knows its real samples by heart."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.height = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.line = bayes()

    def forward(self, x: Tensor) -> Tensor:
        known = torch.cdist(x, self.rows).min(1).values < 1e-9
        return self.line(x)[:, 0] + 8 * self.height * known


def test_memorising_and_its_twin(healthy: Any) -> None:
    real, fake = gaussians()
    g = torch.Generator().manual_seed(3)
    own = torch.randn(24, 3, generator=g, dtype=torch.float64)
    found = audited(Table(own), real, fake, "vanilla", train_real=own)
    assert found.states[0] == "memorising"
    assert found["not-memorising"].evidence["excess"] > 0.45
    unnamed = audited(Table(own), real, fake, "vanilla")
    assert unnamed["not-memorising"].verdict is Verdict.UNASSESSED
    assert "train_real=" in unnamed["not-memorising"].summary


def test_samples_that_were_trained_on_are_left_out() -> None:
    real, fake = gaussians()
    found = audited(bayes(), real, fake, "vanilla", train_real=real[:100])
    assert "100 of the real samples are among train_real" in found.notes[0]
    assert found["not-memorising"].verdict is not REFUTED


class Masked(nn.Module):
    """A critic that is not shown its last column."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("keep", torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * self.keep)


@pytest.mark.parametrize("spread", [False, True])
def test_blind_and_its_twin(spread: bool) -> None:
    """The last column holds a shift, or another spread, that the critic is not shown."""
    real, fake = gaussians()
    last = 2.2 * fake[:, 2:] if spread else fake[:, 2:] + 1.2
    fake = torch.cat([fake[:, :2], last], 1)
    names = ["age", "height", "income"]
    found = audited(Masked(bayes()), real, fake, "vanilla", columns=names)
    assert found.states == ("blind",)
    assert found["not-blind"].evidence["blind_to"] == ["income"]
    assert "blind to income" in found.place
    seeing = audited(linear([-APART, 0.0, -1.2], 0.0), real, fake, "vanilla", columns=names)
    assert "blind" not in seeing.states


def test_uninformative_without_anything_to_say() -> None:
    """Real and generated samples of one law: nothing can be told, and nothing is claimed."""
    real, fake = gaussians(apart=0.0)
    found = audited(linear([1e-3, 0.0, 0.0]), real, fake, "vanilla")
    assert found.states == ()
    assert found["informative"].verdict is Verdict.UNASSESSED
    assert found["indistinguishable"].verdict is not REFUTED
    flat = audited(linear([-1e-3, 0.0, 0.0]), *gaussians(), "vanilla")
    assert "uninformative" in flat.states


def test_a_reward_may_have_slope_and_hardly_vary() -> None:
    """The hinge loss's reward is the score: its spread among generated samples is the weight, in closed form."""
    found = audited(linear([-0.01, 0.0, 0.0]), *gaussians(), Hinge())
    assert found["informative"].verdict is REFUTED
    low, high = found["informative"].evidence["variation_interval"]
    best = found["not-lagging"].evidence["best_under_the_same_loss"]
    assert best in ("trained on", "fresh")
    assert (
        0.01 / 3 < low < high < 0.01
    )  # the best critic's scores are between one and three apart on average
    vast = audited(linear([-1.0, 0.0, 0.0], APART / 2), *gaussians(), Hinge())
    assert vast["informative"].verdict is VERIFIED


def test_a_claim_can_be_required(healthy: Any) -> None:
    healthy["not-saturated"].require(verified=True)
    real, fake = gaussians(apart=10.0)
    with pytest.raises(RequirementError, match="not-saturated is REFUTED: The critic is saturated"):
        audited(Step(3.0), real, fake, Hinge())["not-saturated"].require()


def test_a_column_that_tells_by_itself_is_named_where_no_critic_is_near() -> None:
    """The shift of the last column orders Phi(1.2 / sqrt 2) of pairs; a critic of one masked column never sees it."""
    real, fake = gaussians(apart=0.0)
    shifted = torch.cat([fake[:, :2], fake[:, 2:] + 1.2], 1)

    class First(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[:, :1])

    critic = First(1, 1, dtype=torch.float64)
    nn.init.normal_(critic.weight, generator=torch.Generator().manual_seed(0))
    told = audited(critic, real, shifted, "vanilla")["indistinguishable"]
    assert told.verdict is Verdict.REFUTED
    assert told.evidence["by"] == "column 2"
    low, high = told.evidence["interval"]
    assert low < 0.5 * math.erf(1.2 / 2) < high
    assert "column 2 alone" in told.summary
    same = audited(critic, real, fake, "vanilla")["indistinguishable"]
    assert same.verdict is not Verdict.REFUTED


def test_a_critic_that_lags_is_not_blind_to_what_hardly_varies() -> None:
    """A column that stands still in real rows and hardly moves in generated ones: no untrained critic leans on it."""
    real, fake = gaussians()
    still = 0.002 * torch.rand(len(fake), 1, dtype=torch.float64) + 1.0
    real, fake = (
        torch.cat([real[:, :2], torch.ones_like(still)], 1),
        torch.cat([fake[:, :2], still], 1),
    )
    found = audited(linear([0.01, 1.0, 1.0]), real, fake, "vanilla")
    assert found.states[0] == "lagging"
    assert "blind" not in found.states


def test_a_score_that_is_the_wrong_way_round_is_asked_about() -> None:
    real, fake = gaussians()
    turned = audited(bayes(), real, fake, "vanilla", score=lambda out: -out)
    assert "the wrong way round?" in turned.place
    assert "wrong way" not in audited(bayes(), real, fake, "vanilla").place


@pytest.mark.parametrize(("side", "lags"), [(-1.0, False), (0.0, True)])
def test_a_critic_that_orders_nearly_all_pairs_by_small_margins_does_not_lag(
    side: float, lags: bool
) -> None:
    """The loss counts margins: at 2% of the best critic's slope hardly any of its advantage is there."""
    real, fake = gaussians()
    fake = fake + torch.tensor([3.0, 0.0, 0.0], dtype=fake.dtype)
    found = audited(linear([0.02 * side, 0.0, 0.0]), real, fake, "vanilla", gradients=600)
    assert ("lagging" in found.states) == lags
    if not lags:
        assert found["not-lagging"].verdict is Verdict.NOT_REFUTED
        assert "by smaller margins" in found["not-lagging"].summary
        assert found["not-lagging"].evidence["missing"] > 0.75
