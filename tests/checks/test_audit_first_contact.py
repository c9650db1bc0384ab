"""What a newcomer writes first: every door takes the same things, and data that do not fit are named."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from equilibrist.checks import Certificate, Settings, Verdict, audit_pair
from equilibrist.checks._result import Audit
from equilibrist.checks.pair import Pair
from equilibrist.data import ArraySource, digits, eight_gaussians
from equilibrist.errors import DataError, GameError, RecipeError, RequirementError
from equilibrist.formulations import Hinge, LeastSquares, Vanilla
from equilibrist.games import GAN
from equilibrist.interop import Watch
from equilibrist.optimizers import Adam
from equilibrist.run import Recipe
from equilibrist.solvers import Alternating

X = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
FEW: dict[str, Any] = {"starts": 1, "steps": 4, "groups": 3, "group_batches": 1, "looks": 2}
ONE = ("stationary",)


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    return nn.Linear(2, 2), nn.Linear(2, 1)


def audited(*args: Any, **options: Any) -> Audit:
    """`audit_pair` of the small pair, at little cost."""
    return audit_pair(
        *pair(),
        *args,
        **{"latent": 2, "settings": FEW, "checks": ONE, "progress": "none", **options},
    )


class Rows(Dataset[Any]):
    """A dataset that is no iterable: items by index alone."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return X[i], i % 3


# -- one signature -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        X,
        X.numpy(),
        (X, torch.zeros(400)),
        (X.numpy(), torch.arange(400).numpy() % 3),
        [X, torch.arange(400) % 3],
        TensorDataset(X),
        TensorDataset(X, torch.arange(400) % 3),
        Rows(),
        DataLoader(Rows(), batch_size=100),
        [X[:200], X[200:]],
    ],
    ids=lambda data: type(data).__name__,
)
def test_all_forms_of_data_are_the_same_samples(data: Any) -> None:
    watch = Watch(*pair(), data, "vanilla", latent=2)
    assert torch.equal(watch.data.all(), X)


def test_every_door_takes_names_objects_dictionaries_and_budgets() -> None:
    plain = audited(X, Vanilla())
    for found in (
        audited(X, "vanilla"),
        audited("vanilla", X),
        audited(Vanilla(), X),
        audited(X, Vanilla(), settings=Settings(**FEW)),
        Pair(*pair(), X, "vanilla", 2, settings=FEW).audit(checks=ONE, progress="none"),
        Pair(*pair(), Vanilla(), X, 2, settings=Settings(**FEW)).audit(checks=ONE, progress="none"),
        Watch(*pair(), Vanilla(), X, latent=2, settings=Settings(**FEW), checks=ONE).audit(),
        Watch(*pair(), X, "vanilla", latent=2, settings=Settings(**FEW), checks=ONE).audit(),
    ):
        assert [c.evidence for c in found.values()] == [c.evidence for c in plain.values()]
    assert GAN(*pair(), "hinge", latent=2).formulation == Hinge()
    for gradients in (300, 600):
        budgets = [
            audited(X, "vanilla", settings=None, gradients=gradients),
            Pair(*pair(), X, "vanilla", 2, gradients=gradients).audit(checks=ONE, progress="none"),
            Pair(*pair(), X, "vanilla", 2).audit(gradients=gradients, checks=ONE, progress="none"),
            Watch(*pair(), X, "vanilla", latent=2, gradients=gradients, checks=ONE).audit(),
        ]
        assert {found.settings.gradients for found in budgets} == {gradients}
    assert audited(X, "vanilla", batch=16).settings.batch == 16


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: audited(X, nn.BCEWithLogitsLoss()), GameError, r"write Vanilla\(\)"),
        (lambda: audited(X, nn.BCELoss()), GameError, r"write Vanilla\(probabilities=True\)"),
        (
            lambda: audited(X, nn.functional.binary_cross_entropy_with_logits),
            GameError,
            r"write Vanilla\(\)",
        ),
        (lambda: audited(X, nn.MSELoss), GameError, r"write LeastSquares\(1, 0, 1\)"),
        (lambda: audited("hinge", Vanilla()), DataError, "is a formulation: pass real samples"),
        (lambda: audited(X, LeastSquares), GameError, r"is a class: write LeastSquares\(\)"),
        (lambda: audited(X, "vanila"), RecipeError, "did you mean vanilla"),
        (lambda: audited(X, "wgan", settings={"stps": 3}), RecipeError, "did you mean steps"),
        (lambda: audited(X, "wgan", settings=3), RecipeError, r"pass Settings\(\.\.\.\)"),
        (
            lambda: audited(X, "wgan", settings=Settings(), gradients=500),
            RecipeError,
            "pass one of them",
        ),
        (lambda: audited(X, "wgan", gradient=500), RecipeError, "did you mean gradients"),
        (lambda: audited("data/faces", "wgan"), DataError, "type str cannot be read"),
        (lambda: audited({"x": X}, "wgan"), DataError, "type dict cannot be read"),
        (lambda: audited(torch.complex(X, X), "wgan"), DataError, "imaginary part"),
        (
            lambda: audited([X, torch.zeros(400)], "wgan", condition=3),
            GameError,
            "fails on latents",
        ),
    ],
)
def test_one_line_says_what_to_write(make: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said) as seen:
        make()
    assert "\n" not in str(seen.value)


# -- data that do not fit --------------------------------------------------------------------------------------


def images(last: nn.Module, side: int = 4) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(2)
    made = nn.Sequential(nn.Linear(2, side**2), last, nn.Unflatten(1, (1, side, side)))
    return made, nn.Sequential(nn.Flatten(), nn.Linear(side**2, 1))


class Called(nn.Module):
    """A tanh that is a call and no layer, scaled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.5 * torch.tanh(x)


PIXELS = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(3))
ALIKE = 2 * PIXELS - 1


@pytest.mark.parametrize(
    ("last", "data", "said"),
    [
        (nn.Tanh(), PIXELS * 255, r"from 0.* to 255.*ends at -1 and 1.*scale the data"),
        (
            nn.Tanh(),
            (PIXELS * 255).to(torch.uint8),
            r"to 25\d, but the generator's output ends at -1 and 1",
        ),
        (nn.Sigmoid(), ALIKE, r"from -0.* to 0.*ends at 0 and 1"),
        (nn.Tanh(), PIXELS, r"from .* to 1.*ends at -1 and 1 and runs from -.*sigmoid"),
        (Called(), PIXELS * 9, r"ends at -2\.5 and 2\.5"),
        (nn.Identity(), PIXELS * 255, r"to 255, the generator's samples from .*divided by 255"),
    ],
)
def test_ranges_that_differ_are_said_with_both_sides(
    last: nn.Module, data: torch.Tensor, said: str, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=said) as warned:
        found = audit_pair(
            *images(last), data, "vanilla", latent=2, settings=FEW, checks=ONE,
            progress="none", out=tmp_path / "audit",
        )  # fmt: skip
    assert [Path(w.filename).name for w in warned] == [Path(__file__).name]
    (note,) = found.notes
    assert re.search(said, note)
    assert "\n" not in note
    assert f"Note: {note}" in str(found)
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["notes"] == [note]
    page = (tmp_path / "audit" / "report.html").read_text()
    assert "<b>Note</b>" in page


@pytest.mark.parametrize(
    ("last", "data"),
    [
        (nn.Tanh(), ALIKE),
        (nn.Sigmoid(), PIXELS),
        (nn.Identity(), PIXELS),
        (nn.Softplus(), PIXELS),
        (nn.Sequential(nn.BatchNorm1d(16), nn.Tanh()), ALIKE),
        (nn.LayerNorm(16), PIXELS),
    ],
)
def test_ranges_that_fit_raise_no_warning(last: nn.Module, data: torch.Tensor) -> None:
    found = audit_pair(
        *images(last), data, "vanilla", latent=2, settings=FEW, checks=ONE, progress="none"
    )
    assert found.notes == ()


def test_fewer_samples_than_a_batch_are_said() -> None:
    with pytest.warns(
        UserWarning, match="the 20 samples of the data are fewer than one batch of 64"
    ):
        found = audited(X[:20], "vanilla")
    assert len(found.notes) == 1
    assert audited(X[:20], "vanilla", batch=16).notes == ()


class Labelled(nn.Module):
    """A player that is shown one of ten labels."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.code, self.body = nn.Embedding(10, 2), nn.Linear(2, out)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.body(x + self.code(y))
        return made


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Watch(
                *images(nn.Tanh(), 2), torch.zeros(90, 1, 4, 4), "vanilla", latent=2
            ),
            r"makes samples of shape \[1, 2, 2\], but the data has \[1, 4, 4\]",
        ),
        (
            lambda: Watch(
                Labelled(2), Labelled(1), (X, torch.arange(400) % 10), "vanilla", latent=2, condition=5
            ),
            "has 10 classes, but the game is built for 5",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_when_the_watch_is_made(make: Any, said: str) -> None:
    with pytest.raises(GameError, match=said) as seen:
        make()
    assert "\n" not in str(seen.value)


# -- an audit is a mapping; what an interpreter shows ------------------------------------------------------------


def test_an_audit_is_a_mapping_of_claims() -> None:
    found = audited(X, "vanilla")
    assert isinstance(found, Mapping)
    assert list(found) == ["stationary/generator", "stationary/critic", "stationary"]
    assert len(found) == 3
    assert "stationary" in found
    assert "nash" not in found
    assert found.get("nash") is None
    assert list(found.values()) == list(found.certificates)
    assert dict(found.items())["stationary"] is found["stationary"]
    for kind in (RequirementError, KeyError):
        with pytest.raises(kind, match=r"^this audit says nothing of 'nash'"):
            _ = found["nash"]


def test_objects_show_themselves_in_a_few_lines() -> None:
    game = GAN(*pair(), "vanilla", latent=2)
    found = audited(X, "vanilla")
    shown = (
        game,
        Recipe(game, ArraySource(X, kind="points"), Alternating(optimizer=Adam(1e-3)), steps=5),
        digits(),
        eight_gaussians(),
        found,
        found["stationary/critic"],
        Watch(*pair(), X, "vanilla", latent=2),
    )
    for one in shown:
        text, html = repr(one), one._repr_html_()
        assert " object at 0x" not in text
        assert len(text) < 900
        assert 1 < len(text.splitlines()) <= 12
        assert html.startswith("<div")
        assert html.count("<tr") >= 2
        assert not re.search(r"<script|http|(?<!-)color:(?!inherit)|background:(?!none)", html)
    refuted = Certificate("<b>", Verdict.REFUTED, "a < b & c")
    assert "<b>: REFUTED" in repr(refuted)
    assert "a &lt; b &amp; c" in refuted._repr_html_()


def test_a_layer_of_both_players_is_refused_at_every_door() -> None:
    shared = nn.Linear(2, 2)
    generator = nn.Sequential(nn.Linear(4, 2), shared)
    critic = nn.Sequential(shared, nn.Tanh(), nn.Linear(2, 1))
    said = r"generator's 1\.weight and the critic's 0\.weight are one tensor"
    for door in (
        lambda: audit_pair(generator, critic, X, Vanilla(), latent=4),
        lambda: Watch(generator, critic, Vanilla(), X, latent=4),
        lambda: GAN(generator, critic, Vanilla(), latent=4),
    ):
        with pytest.raises(GameError, match=said):
            door()


def test_what_was_warned_of_stands_in_every_certificate() -> None:
    """Scores within [0, 1] where the loss is made for free ones: warned of once, and kept."""
    generator, critic = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    with pytest.warns(UserWarning, match="within \\[0, 1\\] whatever its weights are"):
        found = audit_pair(
            generator,
            critic,
            X,
            "wgan",
            latent=2,
            settings=FEW,
            checks=("stationary", "nash"),
            progress="none",
        )
    assert len(found) == 6
    for certificate in found.values():
        assert any("within [0, 1] whatever" in limit for limit in certificate.limits)


@pytest.mark.parametrize("seed", [-1, "a", True, 1.5])
def test_what_is_no_seed_is_refused_before_any_work(seed: Any) -> None:
    with pytest.raises(RecipeError, match=r"seed=.*must be a whole number, 0 or larger"):
        audited(X, Vanilla(), seed=seed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda y: y + 1,
            "labels from 1 to 3, but the game is built for the classes 0 to 2: count classes from 0",
        ),
        (lambda y: y - 1, "labels run from -1 to 1: count classes from 0"),
        (lambda y: y + 0.5, "no whole numbers"),
        (lambda y: torch.nn.functional.one_hot(y, 3), "look one-hot: pass labels.argmax(1)"),
        (lambda y: y.expand(2, -1).T, "not one whole number for each of 400 samples"),
    ],
)
def test_labels_that_cannot_be_classes_are_named_with_the_cause(change: Any, said: str) -> None:
    class Shown(nn.Module):
        def __init__(self, out: int) -> None:
            super().__init__()
            self.layer, self.table = nn.Linear(2, out), nn.Embedding(3, 2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.layer(x + self.table(y))

    labels = torch.arange(len(X)) % 3
    with pytest.raises((DataError, GameError), match=re.escape(said)) as seen:
        audit_pair(Shown(2), Shown(1), (X, change(labels)), Vanilla(), latent=2, condition=3)
    assert "\n" not in str(seen.value)
