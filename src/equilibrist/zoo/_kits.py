"""What scripts are given: data, two networks, their losses and an optimiser, in thirteen variants."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from equilibrist.diagnosis import Loop, Samples
from equilibrist.formulations import WGAN, Formulation, Hinge, LeastSquares, Vanilla
from equilibrist.zoo import _data
from equilibrist.zoo._networks import (
    ConvGenerator,
    FeatureCritic,
    LabelledCritic,
    LabelledGenerator,
    ScalesCritic,
    conv_critic,
    critic_mlp,
    mlp,
    normed_mlp,
    patch_critic,
)

Optimizer = torch.optim.Optimizer
Scores = (
    Any  # what a critic returns: a tensor, a tuple whose first entry is the score, a list of scores
)


@dataclass
class Losses:
    """What the two players minimise, given scores, and its name as a formulation."""

    declared: Formulation
    critic: Callable[[Scores, Scores], Tensor]
    generator: Callable[[Scores], Tensor]


def _bce(score: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(score, torch.full_like(score, target))


def _over_scales(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *lists: torch.stack([loss(*scores) for scores in zip(*lists, strict=True)]).mean()


def _of_first(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *outputs: loss(*(score for score, _ in outputs))


def hinge_critic(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


BCE = Losses(
    Vanilla(),
    lambda real, fake: _bce(real, 1.0) + _bce(fake, 0.0),
    lambda fake: _bce(fake, 1.0),
)
SOFTPLUS = Losses(
    Vanilla(),
    lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
    lambda fake: F.softplus(-fake).mean(),
)
SIGMOID = Losses(
    Vanilla(probabilities=True),
    lambda real, fake: (
        F.binary_cross_entropy(real, torch.ones_like(real))
        + F.binary_cross_entropy(fake, torch.zeros_like(fake))
    ),
    lambda fake: F.binary_cross_entropy(fake, torch.ones_like(fake)),
)
HINGE = Losses(Hinge(), hinge_critic, lambda fake: -fake.mean())
SQUARES = Losses(
    LeastSquares(1, 0, 1),
    lambda real, fake: 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean(),
    lambda fake: 0.5 * (fake - 1).square().mean(),
)
MSE = Losses(  # as torch's MSELoss has it: twice the above
    LeastSquares(1, 0, 1),
    lambda real, fake: (
        F.mse_loss(real, torch.ones_like(real)) + F.mse_loss(fake, torch.zeros_like(fake))
    ),
    lambda fake: F.mse_loss(fake, torch.ones_like(fake)),
)
WASSERSTEIN = Losses(
    WGAN(), lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean()
)
FEATURES = Losses(Vanilla(), _of_first(SOFTPLUS.critic), _of_first(SOFTPLUS.generator))
SCALES = Losses(Hinge(), _over_scales(HINGE.critic), _over_scales(HINGE.generator))

ADAM = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999))


@dataclass
class Kit:
    """Data, networks, losses and an optimiser of one variant; what a script takes from it is its own.

    Attributes:
        train, held: real samples that training sees, and that it does not.
        generator, critic: make a network.
        losses: of both players.
        optimizer: make an optimiser of parameters.
        labels, held_labels: those of `train` and of `held`, of a conditional pair; else None.
    """

    train: Tensor
    held: Tensor
    generator: Callable[[], nn.Module]
    critic: Callable[[], nn.Module]
    losses: Losses
    optimizer: Callable[..., Optimizer] = ADAM
    latent: int = 8
    batch: int = 64
    labels: Tensor | None = None
    held_labels: Tensor | None = None

    def players(self) -> tuple[nn.Module, nn.Module, Optimizer, Optimizer]:
        """Generator, critic and an optimiser of each."""
        G, D = self.generator(), self.critic()
        return G, D, self.optimizer(G.parameters()), self.optimizer(D.parameters())

    def draw(self) -> tuple[Tensor, ...]:
        """A minibatch: (samples,), or (samples, labels)."""
        rows = torch.randint(len(self.train), (self.batch,))
        return (self.train[rows],) if self.labels is None else (self.train[rows], self.labels[rows])

    def noise(self, n: int = 0) -> Tensor:
        return torch.randn(n or self.batch, self.latent)

    def loss_d(self, real: Scores, fake: Scores) -> Tensor:
        return self.losses.critic(real, fake)

    def loss_g(self, fake: Scores) -> Tensor:
        return self.losses.generator(fake)

    def sample(self, G: nn.Module, n: int) -> Samples:
        """n generated samples, in evaluation mode; with labels of the data where there are any."""
        y = () if self.labels is None else (self.labels[torch.randint(len(self.labels), (n,))],)
        mode = G.training
        with torch.no_grad():
            x: Tensor = G.eval()(self.noise(n), *y)
        G.train(mode)
        return (x, *y) if y else x

    def loop(
        self,
        step: Callable[[int], Any],
        G: nn.Module,
        D: nn.Module,
        optimizers: Sequence[Optimizer] = (),
        keep: dict[str, Any] | None = None,
        **more: Any,
    ) -> Loop:
        """The script's loop; `keep` holds what else a checkpoint must, `more` is of `Loop`."""
        saved = {
            "generator": G,
            "critic": D,
            **{f"optimizer {k}": o for k, o in enumerate(optimizers)},
        }
        save, load = checkpoint({**saved, **(keep or {})})
        given: dict[str, Any] = {
            "loss": self.losses.declared,
            "real": self.held if self.held_labels is None else (self.held, self.held_labels),
            "train": self.train if self.labels is None else (self.train, self.labels),
            "sample": lambda n: self.sample(G, n),
            "save": save,
            "load": load,
        }
        return Loop(step, {"generator": G, "critic": D}, **{**given, **more})


def checkpoint(
    parts: dict[str, Any], random: bool = True
) -> tuple[Callable[[], bytes], Callable[[bytes], None]]:
    """save() and load() of objects with state_dict(), and of torch's random state."""

    def save() -> bytes:
        file = io.BytesIO()
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "random": torch.get_rng_state()}, file)
        return file.getvalue()

    def load(saved: bytes) -> None:
        state = torch.load(io.BytesIO(saved), weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        if random:
            torch.set_rng_state(state["random"])

    return save, load


def _ring() -> Kit:
    x = _data.ring()
    adam = functools.partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.99))
    return Kit(
        x[:3000], x[3000:], lambda: mlp(8, 2), lambda: critic_mlp(2), SOFTPLUS, adam, batch=128
    )


def _ring_sgd() -> Kit:
    x = _data.ring(sd=0.25)
    sgd = functools.partial(torch.optim.SGD, lr=0.2)
    return replace(_ring(), train=x[:3000], held=x[3000:], losses=BCE, optimizer=sgd)


def _digits() -> Kit:
    x = _data.digit_images()[0].flatten(1)
    return Kit(
        x[:1400],
        x[1400:],
        lambda: normed_mlp(16, 64),
        lambda: critic_mlp(64, 128),
        BCE,
        latent=16,
    )


def _digits_sigmoid() -> Kit:
    adam = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999), foreach=True)
    return replace(
        _digits(), critic=lambda: critic_mlp(64, 64, end="sigmoid"), losses=SIGMOID, optimizer=adam
    )


def _digits_wgan() -> Kit:
    adam = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.9))
    generator = functools.partial(mlp, 16, 64, 128, end="sigmoid")
    return replace(_digits(), generator=generator, losses=WASSERSTEIN, optimizer=adam)


def _features() -> Kit:
    return replace(_digits(), critic=lambda: FeatureCritic(64, 128), losses=FEATURES)


def _labels() -> Kit:
    return replace(
        _digits(),
        generator=LabelledGenerator,
        critic=LabelledCritic,
        losses=HINGE,
        labels=_data.digit_images()[1][:1400],
        held_labels=_data.digit_images()[1][1400:],
    )


def _conv() -> Kit:
    x = _data.digit_images()[0]
    adam = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99))
    return Kit(x[:1400], x[1400:], ConvGenerator, conv_critic, BCE, adam, latent=16, batch=32)


def _conv_spectral() -> Kit:
    adam = functools.partial(torch.optim.AdamW, lr=1e-3, betas=(0.0, 0.999), weight_decay=1e-3)
    return replace(_conv(), critic=lambda: conv_critic(spectral=True), losses=HINGE, optimizer=adam)


def _patch() -> Kit:
    return replace(_conv(), critic=patch_critic, losses=MSE, optimizer=ADAM)


def _scales() -> Kit:
    return replace(_conv(), critic=ScalesCritic, losses=SCALES, optimizer=ADAM)


def _gait() -> Kit:
    x = _data.gait()
    prop = functools.partial(torch.optim.RMSprop, lr=3e-4)
    return Kit(
        x[:3000], x[3000:], lambda: mlp(4, 8), lambda: critic_mlp(8), SQUARES, prop, 4, batch=128
    )


def _table() -> Kit:
    x = _data.columns()
    return Kit(
        x[:3000], x[3000:], lambda: mlp(8, 5), lambda: critic_mlp(5), SOFTPLUS, batch=128,
        optimizer=functools.partial(torch.optim.AdamW, lr=5e-4, betas=(0.5, 0.9)),
    )  # fmt: skip


KITS: dict[str, tuple[str, Callable[[], Kit]]] = {
    "ring": ("Gaussians on a circle; MLPs; softplus; Adam", _ring),
    "ring-sgd": ("wide Gaussians on a circle; MLPs; BCEWithLogits; SGD", _ring_sgd),
    "digits": ("flat digits; MLPs, batch norm; BCEWithLogits; Adam", _digits),
    "sigmoid": ("flat digits; MLPs, sigmoid at the end; BCE; Adam (foreach)", _digits_sigmoid),
    "wgan": ("flat digits; MLPs; Wasserstein, needs a penalty; Adam", _digits_wgan),
    "features": ("flat digits; critic returns (score, features); softplus; Adam", _features),
    "labels": ("labelled digits; conditional pair; hinge; Adam", _labels),
    "conv": ("digits; convolutions, batch norm; BCEWithLogits; Adam", _conv),
    "conv-spectral": ("digits; convolutions, spectral norm; hinge; AdamW", _conv_spectral),
    "patch": ("digits; map of scores, spectral norm; MSE; Adam", _patch),
    "scales": ("digits; list of scores; hinge; Adam", _scales),
    "gait": ("a cycle of motion; MLPs; least squares; RMSprop", _gait),
    "table": ("five columns; MLPs; softplus; AdamW", _table),
}


def kit_of(name: str) -> Kit:
    """The parts of one variant, made anew."""
    return KITS[name][1]()


def parameters_of_both(*modules: nn.Module) -> Iterable[nn.Parameter]:
    """All parameters of several modules."""
    return [p for module in modules for p in module.parameters()]
