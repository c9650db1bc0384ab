"""What GAN refuses: one line that names the layer and the mend."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist.errors import GameError
from equilibrist.formulations import WGAN, Relativistic, Vanilla
from equilibrist.games import GAN
from equilibrist.penalties import GradientPenalty
from equilibrist.projections import WeightClipping


def generator() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))


def critic(*extra: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), *extra, nn.Tanh(), nn.Linear(4, 1))


def gan(g: Any = generator, c: Any = critic, formulation: Any = None, **options: Any) -> GAN:
    return GAN(g, c, formulation or Vanilla(), **{"latent": 3, **options})


class Custom(nn.Module):
    """A critic of two inputs whose forward pass ends in `fn(module, scores)`."""

    def __init__(self, fn: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.fn, self.calls = nn.Linear(2, 1), fn, 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        return self.fn(self, self.layer(x))


def _write(m: Any, s: Tensor) -> Tensor:
    m.seen.add_(1)
    return s


def _rebind(m: Any, s: Tensor) -> Tensor:
    m.seen = m.seen + 1
    return s


def _same_value(m: Any, s: Tensor) -> Tensor:
    m.seen.mul_(1)
    return s


def _count(m: Any, s: Tensor) -> Tensor:
    m.calls += 1
    return s + m.calls


def _new_spectral_norm() -> nn.Module:
    c = critic()
    nn.utils.parametrizations.spectral_norm(c[0])
    return c


def _old_spectral_norm(run: bool) -> nn.Module:
    c = critic()
    nn.utils.spectral_norm(c[2])
    if run:
        c(torch.zeros(4, 2))
    return c


OWN = torch.Generator()


class Table(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "noise of a generator of its own": (
        {"c": Custom(lambda m, s: s + torch.randn(s.shape, generator=OWN))},
        ["the critic gives two answers", "generator of its own", "latent"],
    ),
    "torch's spectral norm": (
        {"c": _new_spectral_norm},
        ["critic's 0.weight", "spectral_norm=True"],
    ),
    "buffer written": ({"c": Custom(_write)}, ["critic (Custom)", "'seen'"]),
    "buffer replaced": ({"c": Custom(_rebind)}, ["critic (Custom)", "'seen'"]),
    "buffer written with its own value": (
        {"c": Custom(_same_value)},
        ["critic (Custom)", "'seen'"],
    ),
    "instance norm with running statistics": (
        {
            "g": nn.Sequential(
                nn.Linear(3, 2),
                nn.Unflatten(1, (1, 2)),
                nn.InstanceNorm1d(1, track_running_stats=True),
                nn.Flatten(),
            )
        },
        ["generator.2 (InstanceNorm1d)", "running", ".eval()"],
    ),
    "two answers": ({"c": Custom(_count)}, ["the critic gives two answers"]),
    "wrong latent": ({"latent": 4}, ["the generator fails on latents of shape [8, 4]"]),
    "wrong samples": (
        {"c": nn.Linear(3, 1)},
        ["the critic fails on the generator's samples [8, 2]"],
    ),
    "two scores": (
        {"c": nn.Linear(2, 2)},
        ["the critic maps samples [8, 2] to shape [8, 2]", "[batch, 1]"],
    ),
    "one score for all": (
        {"c": Custom(lambda m, s: s.mean())},
        ["the critic maps samples", "shape []"],
    ),
    "a tuple of scores": ({"c": Custom(lambda m, s: (s, s))}, ["the critic maps samples", "tuple"]),
    "samples for another batch": (
        {"g": nn.Sequential(nn.Linear(3, 2), nn.Flatten(0))},
        ["the generator maps latents [8, 3] to shape [16]"],
    ),
    "types that differ": (
        {"c": nn.Linear(2, 1).double()},
        ["the critic fails on the generator's samples"],
    ),
    "no parameters in the generator": (
        {"g": Table(), "latent": 2},
        ["the generator has no parameters"],
    ),
    "no parameters in the critic": (
        {"c": nn.Sequential(nn.Flatten(), nn.AvgPool1d(2))},
        ["the critic has no parameters"],
    ),
    "lazy layer": ({"c": nn.Sequential(nn.LazyLinear(1))}, ["0.weight", "lazy"]),
    "no module": ({"c": "critic"}, ["nn.Module", "'critic'"]),
    "none": ({"g": None}, ["nn.Module", "None"]),
    "a function that builds no module": ({"c": lambda: 3}, ["must return an nn.Module", "int"]),
    "penalty on batch norm": (
        {"c": critic(nn.BatchNorm1d(4)), "formulation": WGAN(), "penalties": [GradientPenalty()]},
        ["GradientPenalty", "batch norm", "layer or group norm"],
    ),
    "projection of nobody": (
        {"projections": [WeightClipping(1.0, "judge")]},
        ["'generator' or 'critic'"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_in_one_line(name: str) -> None:
    options, words = BAD[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(GameError) as caught:
            gan(**options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_a_refused_game_leaves_the_random_state() -> None:
    state = torch.get_rng_state()
    module = Custom(lambda m, s: s + torch.randn_like(s) + torch.randn(s.shape, generator=OWN))
    torch.set_rng_state(state)
    with pytest.raises(GameError):
        gan(c=module)
    assert torch.equal(state, torch.get_rng_state())


def test_a_failed_evaluation_leaves_the_game_whole() -> None:
    game = gan()
    players, constants = game.init()
    draw = {"real": torch.ones(4, 2), "latent": torch.ones(4, 3)}
    before = game.losses(players, constants, draw)
    with pytest.raises(RuntimeError):
        game.losses(players, constants, {**draw, "real": torch.ones(4, 9)})
    after = game.losses(players, constants, draw)
    assert all(torch.equal(before[p], after[p]) for p in before)


def test_a_lying_formulation_is_refused() -> None:
    class Lies(Vanilla):
        zero_sum = True  # type: ignore[assignment]

    with pytest.raises(GameError, match="claims zero_sum"):
        gan(formulation=Lies(saturating=False))


ALLOWED: dict[str, dict[str, Any]] = {
    "scores [batch]": {"c": nn.Sequential(critic(), nn.Flatten(0))},
    "dropout in eval mode": {"c": critic(nn.Dropout()).eval()},
    "dropout of nothing": {"c": critic(nn.Dropout(0.0))},
    "batch norm": {"c": critic(nn.BatchNorm1d(4))},
    "batch norm without statistics": {"c": critic(nn.BatchNorm1d(4, track_running_stats=False))},
    "batch norm in eval mode": {"c": critic(nn.BatchNorm1d(4)).eval()},
    "layer norm": {"c": critic(nn.LayerNorm(4)), "penalties": [GradientPenalty()]},
    "weight norm": {"c": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 1))},
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str) -> None:
    gan(**ALLOWED[name])


class Bounded(nn.Module):
    """A probability by another road than a last layer `nn.Sigmoid`."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.how = critic(), how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.net(x))


PROBABILITIES: list[Any] = [
    torch.sigmoid,
    lambda y: torch.tanh(y) / 2 + 0.5,
    lambda y: 1 / (1 + torch.exp(-y)),
    lambda y: torch.softmax(torch.cat([y, 0 * y], 1), 1)[:, :1],
    lambda y: torch.sigmoid(y).clamp(1e-6, 1 - 1e-6).squeeze(),
    lambda y: torch.sigmoid(torch.cat([y, 2 * y], 1)).mean(1),
    nn.functional.hardsigmoid,
]


@pytest.mark.parametrize("how", PROBABILITIES)
def test_a_probability_is_refused_where_a_logit_is_taken(how: Any) -> None:
    for formulation in (Vanilla(), Vanilla(saturating=True), Relativistic()):
        with pytest.raises(GameError, match=r"within \[0, 1\] whatever its weights are") as caught:
            gan(c=Bounded(how), formulation=formulation)
        assert "\n" not in str(caught.value)
        assert ("probabilities=True" in str(caught.value)) == isinstance(formulation, Vanilla)
    gan(c=Bounded(how), formulation=Vanilla(probabilities=True))


def test_a_probability_is_warned_of_once_where_any_score_is_taken() -> None:
    with pytest.warns(UserWarning, match="made for free scores") as seen:
        game = gan(c=nn.Sequential(critic(), nn.Sigmoid()), formulation=WGAN())
    assert len(seen) == 1
    assert [str(w.message) for w in seen] == list(game.notes)


BOUNDED: list[Any] = [
    (torch.tanh, "within [-1, 1]"),
    (nn.functional.hardtanh, "within [-1, 1]"),
    (nn.functional.softsign, "within [-1, 1]"),
    (nn.functional.softplus, "never negative"),
    (torch.relu, "never negative"),
    (torch.abs, "never negative"),
    (nn.functional.logsigmoid, "never positive"),
    (lambda y: -y.square(), "never positive"),
]


@pytest.mark.parametrize(("how", "said"), BOUNDED)
def test_a_bounded_end_is_warned_of(how: Any, said: str) -> None:
    with pytest.warns(UserWarning, match=f"{re.escape(said)}.*whatever its weights are") as seen:
        game = gan(c=Bounded(how), formulation=Vanilla())
    assert [str(w.message) for w in seen] == list(game.notes)


def test_a_score_that_nothing_moves_is_refused() -> None:
    for how in (lambda y: torch.softmax(y, 1), lambda y: 0 * y + 3):
        with pytest.raises(GameError, match="one number for all samples, whatever its weights"):
            gan(c=Bounded(how), formulation=WGAN())


def test_a_free_score_that_happens_to_lie_between_zero_and_one_is_none() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        net = critic()
        with torch.no_grad():
            net[-1].weight.mul_(1e-3)
            net[-1].bias.fill_(0.5)
        gan(c=net)
    dead = critic(nn.ReLU())
    with torch.no_grad():
        for p in dead.parameters():
            p.zero_()
    gan(c=dead)  # one score for all, 0


def test_a_logit_is_refused_where_a_probability_is_taken() -> None:
    net = critic()
    with torch.no_grad():
        net[-1].bias.fill_(3.0)
    with pytest.raises(GameError, match=r"takes scores within \[0, 1\], but the critic's reach"):
        gan(c=net, formulation=Vanilla(probabilities=True))


def test_a_layer_of_both_players_is_refused() -> None:
    shared = nn.Linear(2, 2)
    make = {
        "g": nn.Sequential(nn.Linear(3, 2), shared),
        "c": nn.Sequential(shared, nn.Linear(2, 1)),
    }
    with pytest.raises(
        GameError, match=r"generator's 1\.weight and the critic's 0\.weight"
    ) as caught:
        gan(**make)
    assert "\n" not in str(caught.value)
    with pytest.raises(GameError, match=r"1\.weight"):
        gan(g=lambda: make["g"], c=lambda: make["c"])
    tied = nn.Linear(2, 1)
    tied.bias.data = shared.bias.data[:1]
    with pytest.raises(GameError, match=r"1\.bias and the critic's bias"):
        gan(g=make["g"], c=tied)
    running = nn.BatchNorm1d(2, affine=False)
    halves = {"g": nn.Sequential(nn.Linear(3, 2), running)}
    halves["c"] = nn.Sequential(running, nn.Linear(2, 1))
    with pytest.raises(GameError, match="running_mean"):
        gan(**halves)
    running.eval()
    gan(**halves)
    shared.requires_grad_(False)
    gan(**make)


@pytest.mark.parametrize(
    ("c", "samplewise", "separable"),
    [
        (critic, True, True),
        (lambda: critic(nn.BatchNorm1d(4)), False, False),
        (lambda: critic(nn.BatchNorm1d(4)).eval(), True, True),
        (lambda: critic(nn.LayerNorm(4)), True, True),
    ],
)
def test_what_the_probe_sees(c: Any, samplewise: bool, separable: bool) -> None:
    game = gan(c=c)
    assert (game.samplewise, game.separable) == (samplewise, separable)
    assert bool(game.why_not_separable) is not separable


def test_batch_norm_in_the_generator_is_not_separable_but_samplewise() -> None:
    game = gan(
        g=lambda: nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    )
    assert game.samplewise
    assert not game.separable


# -- found wanting ---------------------------------------------------------------------------------------


def test_torchs_older_spectral_norm_is_refused() -> None:
    with pytest.raises(GameError):
        gan(c=lambda: _old_spectral_norm(False))


def test_torchs_older_spectral_norm_that_has_run_is_refused_in_one_line() -> None:
    with pytest.raises(GameError):
        gan(c=_old_spectral_norm(True))


def test_torchs_spectral_norm_in_eval_mode_is_refused() -> None:
    with pytest.raises(GameError):
        gan(c=_new_spectral_norm().eval())


def _zero_last(module: nn.Module) -> nn.Module:
    nn.init.zeros_(module[-1].weight)
    nn.init.zeros_(module[-1].bias)
    return module


_FIRST_SIGHT = "the probe looks at the scores of the initial weights; a last layer of zeros hides the batch norm"


def test_batch_norm_behind_a_zero_last_layer_mixes_samples() -> None:
    game = gan(c=lambda: _zero_last(critic(nn.BatchNorm1d(4))))
    assert not game.samplewise
    assert not game.separable


def test_penalty_with_batch_norm_behind_a_zero_last_layer_is_refused() -> None:
    with pytest.raises(GameError):
        gan(c=lambda: _zero_last(critic(nn.BatchNorm1d(4))), penalties=[GradientPenalty()])


def test_batch_norm_behind_a_zero_last_layer_of_the_generator_is_not_separable() -> None:
    game = gan(
        g=lambda: _zero_last(
            nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
        )
    )
    assert not game.separable


def test_batch_norm_in_a_clipped_critic_is_not_separable() -> None:
    def c() -> nn.Module:
        return nn.Sequential(
            nn.Linear(2, 50),
            nn.BatchNorm1d(50),
            nn.ReLU(),
            nn.Linear(50, 50),
            nn.BatchNorm1d(50),
            nn.ReLU(),
            nn.Linear(50, 1),
        )

    game = gan(c=c, formulation=WGAN(), projections=[WeightClipping(0.01)])
    assert not game.samplewise
    assert not game.separable


@pytest.mark.parametrize(
    "options",
    [
        {"c": lambda: _zero_last(critic()), "spectral_norm": True},
        {"c": Custom(lambda m, s: s / 0 * 0)},
    ],
    ids=["zero weights under spectral norm", "undefined scores"],
)
def test_undefined_scores_are_called_that(options: dict[str, Any]) -> None:
    with pytest.raises(GameError) as caught:
        gan(**options)
    assert "two answers" not in str(caught.value)


class InPlace(nn.Module):
    """Overwrites its input with a value on which a second pass changes nothing."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inner, outer)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.clamp_(-0.5, 0.5))


@pytest.mark.parametrize("who", ["generator", "critic"])
def test_losses_leave_the_draw_alone_or_the_game_is_refused(who: str) -> None:
    try:
        # Batch norm, so that real samples go to the critic by themselves, as in a DCGAN.
        game = (
            gan(g=InPlace(3, 2))
            if who == "generator"
            else gan(c=nn.Sequential(InPlace(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)))
        )
    except GameError:
        return
    draw = {
        "real": torch.linspace(-3, 3, 8).reshape(4, 2),
        "latent": torch.linspace(-3, 3, 12).reshape(4, 3),
    }
    kept = {k: t.clone() for k, t in draw.items()}
    game.losses(*game.init(), draw)
    assert all(torch.equal(draw[k], kept[k]) for k in kept)


@pytest.mark.parametrize(
    "options", [{"latent": np.int64(3)}, {"formulation": Vanilla}, {"latent": 3.0}], ids=str
)
def test_near_misses_in_the_arguments(options: dict[str, Any]) -> None:
    with contextlib.suppress(GameError):  # numpy's integers might as well be taken
        gan(**options)


def test_a_frozen_weight_cannot_be_normalised() -> None:
    critic = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    critic[0].weight.requires_grad_(False)
    with pytest.raises(GameError, match=r"0\.weight is frozen"):
        GAN(nn.Linear(2, 2), critic, Vanilla(), latent=2, spectral_norm=True)
    named = GAN(nn.Linear(2, 2), critic, Vanilla(), latent=2, spectral_norm=("2.weight",))
    assert named.normalised == ("2.weight",)
