"""What a GAN is built from: checks of its arguments, with errors that name the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from numbers import Integral
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist.auxiliary import Auxiliary
from equilibrist.core.draws import Draw, normal, uniform
from equilibrist.data import Source
from equilibrist.errors import GameError, did_you_mean, first_line
from equilibrist.formulations import Critic
from equilibrist.nn import spectral_norm
from equilibrist.tree import Device

Build = nn.Module | Callable[[], nn.Module]  # a module, or the function that builds it
Player = Build | Sequence["Player"]


class Latent(Protocol):
    """The law of the generator's input."""

    def sample(
        self, rng: np.random.Generator, n: int, dtype: torch.dtype, device: Device
    ) -> Tensor: ...


@dataclass(frozen=True)
class Normal:
    """z ~ N(0, I), shape [n, dim], or [n, *shape] where `dim` is a shape such as (100, 1, 1)."""

    dim: int | tuple[int, ...]

    def __str__(self) -> str:
        shape = f", shaped {list(self.dim)}" if isinstance(self.dim, tuple) else ""
        size = prod(self.dim) if isinstance(self.dim, tuple) else self.dim
        return f"z ~ N(0, I) in {size} dimensions{shape}"

    def sample(
        self, rng: np.random.Generator, n: int, dtype: torch.dtype, device: Device
    ) -> Tensor:
        tail = self.dim if isinstance(self.dim, tuple) else (self.dim,)
        return normal(rng, (n, *tail), dtype, device)


@dataclass(frozen=True)
class Uniform:
    """u ~ U[0, 1), shape [n, *shape]: the mixing weights of a gradient penalty, say."""

    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"u ~ U[0, 1), shaped {list(self.shape)}"

    def sample(
        self, rng: np.random.Generator, n: int, dtype: torch.dtype, device: Device
    ) -> Tensor:
        return uniform(rng, (n, *self.shape), dtype, device)


HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class FromSource:
    """Latents drawn from a source of data, `equilibrist.data.Gaussian` say."""

    source: Source

    def __str__(self) -> str:
        return f"z from {self.source.origin}"

    def sample(
        self, rng: np.random.Generator, n: int, dtype: torch.dtype, device: Device
    ) -> Tensor:
        # A few rows more for the game's own probe of eight: laws with exact moments need a group.
        least = 4 * (prod(self.source.shape) + 1)
        return self.source.to(device, dtype).sample(rng, max(n, least))[:n]


def check_parts(name: str, values: object, attribute: str, example: str) -> None:
    """GameError unless `values` is a list of objects that have this attribute."""
    if not isinstance(values, list | tuple):
        raise GameError(f"{name} must be a list: write {name}=[{example}]")
    for value in values:
        if isinstance(value, type) or not hasattr(value, attribute):
            shown = value.__name__ if isinstance(value, type) else type(value).__name__
            raise GameError(
                f"{name} holds {shown}, which does not belong there: write {name}=[{example}]"
            )


def law_of(latent: object) -> Latent:
    """A latent law from a dimension, a shape or a law."""
    if isinstance(latent, Integral) and int(latent) > 0:
        return Normal(int(latent))
    if isinstance(latent, tuple | list) and latent and _counts(latent):
        return Normal(tuple(int(n) for n in latent))
    if isinstance(latent, Source):
        return FromSource(latent)
    if not hasattr(latent, "sample"):
        raise GameError(
            f"latent={latent!r} is neither a dimension (1, 2, ...) nor a law with a method sample"
        )
    return cast(Latent, latent)


def chooses(latent: Latent) -> Latent:
    """The law with one coordinate more, by which a mixture of generators chooses its component."""
    if not isinstance(latent, Normal) or isinstance(latent.dim, tuple):
        raise GameError(
            "several generators choose by one latent coordinate more: give latent as a dimension"
        )
    return Normal(latent.dim + 1)


def condition_of(condition: object) -> int | tuple[int, ...] | None:
    """The number of classes, or the shape of one condition."""
    if condition is None:
        return None
    if not isinstance(condition, bool) and isinstance(condition, Integral) and int(condition) > 0:
        return int(condition)
    if isinstance(condition, tuple | list) and condition and _counts(condition):
        return tuple(int(n) for n in condition)
    raise GameError(
        f"condition={condition!r} is neither a number of classes (10) nor a shape such as (1, 28, 28)"
    )


def as_condition(condition: Tensor, device: Device, dtype: torch.dtype) -> Tensor:
    """Labels become int64, of whichever integers they are; anything else takes the players' precision."""
    labels = condition.ndim == 1 and not condition.is_floating_point()
    return condition.to(device, torch.int64 if labels else dtype)


def probe(
    condition: int | tuple[int, ...] | None,
    rng: np.random.Generator,
    n: int,
    dtype: torch.dtype,
    device: Device,
) -> Tensor | None:
    """Some n conditions of this kind."""
    if condition is None:
        return None
    if isinstance(condition, int):  # the last class first: a table that is too small shows there
        return condition - 1 - torch.arange(n, device=device) % condition
    return normal(rng, (n, *condition), dtype, device)


def check_term(term: Auxiliary, critic: Critic, fake: Tensor, draw: Draw) -> None:
    """GameError unless a further term gives one number on this draw."""
    try:
        with torch.no_grad():
            value: object = term(critic, fake, draw)
    except Exception as error:
        why = first_line(error, "no message")
        raise GameError(
            f"{term} fails on eight samples ({type(error).__name__}: {why}): it is called with the "
            f"critic, the generated samples and a draw of {', '.join(draw)}"
        ) from error
    if not isinstance(value, Tensor) or value.ndim:
        raise GameError(
            f"{term} gives {shape_of(value)}: it must return a 0-d tensor, a mean over the batch"
        )


def full_precision(device: str) -> AbstractContextManager[object]:
    """No autocast in here, where there is any."""
    on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def penalised_together(critic: nn.Module, penalty: str) -> str:
    """A note on a penalty of a critic whose scores depend on the whole batch: with a layer that compares samples
    (minibatch standard deviation) it is what training loops compute.

    Raises:
        GameError: batch norm, with which it has no meaning.
    """
    for layer in critic.modules():
        norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
        if norm and (layer.training or layer.running_mean is None):
            raise GameError(
                f"{penalty} needs the gradient of each score by its own sample, but the critic's scores depend on the "
                "whole batch (batch norm): use layer or group norm in the critic"
            )
    return (
        f"the critic's scores depend on the whole batch: {penalty} is of the gradient of their sum by each sample, as "
        "training loops take it, and depends on the size of the batch"
    )


def heads(critic: nn.Module) -> int:
    """The number of critics: any other module may have an attribute of that name (attention)."""
    from equilibrist.networks import CriticEnsemble

    return critic.heads if isinstance(critic, CriticEnsemble) else 1


def apart(
    generator: object, critic: object, first: str = "generator", second: str = "critic"
) -> None:
    """GameError where a trained tensor, or a running statistic, belongs to both players.

    Copies would make two of it, and the game played would be another one. What is frozen on both sides is a
    constant and may be shared.
    """
    held = {where: name for name, where in _own(generator)}
    for name, where in _own(critic):
        if where in held:
            raise GameError(
                f"the {first}'s {held[where]} and the {second}'s {name} are one tensor, so it belongs to both "
                "players: give each its own (copy.deepcopy), or freeze it with requires_grad_(False)"
            )


def _own(module: object) -> Iterator[tuple[str, tuple[torch.device, int]]]:
    """Trained parameters and moving statistics, with where they lie in memory."""
    if not isinstance(module, nn.Module):
        return
    moving = {
        id(b)
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.training
        for b in layer.buffers(recurse=False)
    }
    named: list[tuple[str, Tensor]] = [
        (name, p) for name, p in module.named_parameters() if p.requires_grad
    ]
    named += [(name, b) for name, b in module.named_buffers() if id(b) in moving]
    for name, tensor in named:
        lazy = isinstance(tensor, nn.parameter.UninitializedParameter)
        if not lazy and tensor.numel() and tensor.device.type != "meta":
            yield name, (tensor.device, tensor.data_ptr())


UNIT, SIGNED, POSITIVE, NEGATIVE, CONSTANT = "unit", "signed", "positive", "negative", "constant"
DRAWS = (0.0, 1.0, 10.0, 10.0, 100.0)  # sizes of the noise on the weights
MORE = (1.0, 10.0, 100.0) * 6  # a free score has one sign in all of these once in 2^18 times


def bounded_by_form(
    score: Callable[[dict[str, Tensor]], Tensor], params: Mapping[str, Tensor]
) -> str:
    """Where every score lies whatever the weights are.

    A free score that happens to lie there at these weights leaves it at others: they are drawn, far larger and of
    either sign, until no bound is left.

    Returns:
        `UNIT`: within [0, 1]. `SIGNED`: within [-1, 1], and near both ends for large weights. `POSITIVE`, `NEGATIVE`:
        on one side of zero. `CONSTANT`: one value for all samples and all weights. "": anywhere.
    """
    rng = torch.Generator().manual_seed(0)
    seen: list[Tensor] = []
    with torch.no_grad():
        for k, size in enumerate((*DRAWS, *MORE)):
            drawn = {
                k: (
                    x + size * torch.randn(x.shape, generator=rng, dtype=x.dtype).to(x.device)
                    if x.is_floating_point()
                    else x
                )
                for k, x in params.items()
            }
            try:
                scores = score(drawn)
            except (RuntimeError, ValueError):
                continue
            seen.append(scores[torch.isfinite(scores)].flatten())
            values = torch.cat(seen)
            if not len(values):
                continue
            low, high = float(values.min()), float(values.max())
            if low < 0 < high and (low < -1 or high > 1):
                return ""
            # Half-lines take more draws than the bounds that a few of them reach.
            if k + 1 >= len(DRAWS) and low >= -1 and high <= 1:
                break
    values = torch.cat(seen) if seen else torch.zeros(0)
    if len(seen) < 2 or len(values) < 2:
        return ""
    low, high = float(values.min()), float(values.max())
    if low == high:
        # A unit that is dead at every draw says nothing, and zero is what dead units give.
        return CONSTANT if low != 0 and params else ""
    if low >= 0 and high <= 1:
        return UNIT
    if low >= -1 and high <= 1:
        return SIGNED if low < -0.9 and high > 0.9 else ""
    return POSITIVE if low >= 0 else NEGATIVE if high <= 0 else ""


def _counts(values: Iterable[object]) -> bool:
    return all(isinstance(n, Integral) and int(n) > 0 for n in values)


def builder(player: Player, name: str) -> Build:
    """A module, or the function that builds it; a list becomes one player of several."""
    if isinstance(player, list | tuple):
        return _several([builder(one, name) for one in player], name)
    if not callable(player):
        raise GameError(
            f"a player must be an nn.Module or a function that builds one, not {player!r}"
        )
    return player


def _several(builds: list[Build], name: str) -> Build:
    if len(builds) < 2:
        raise GameError(
            f"the {name} is a list of {len(builds)}: give two or more, or one by itself"
        )
    from equilibrist.networks import CriticEnsemble, GeneratorMixture

    container: type[GeneratorMixture] | type[CriticEnsemble]
    container = GeneratorMixture if name == "generator" else CriticEnsemble
    modules = [build for build in builds if isinstance(build, nn.Module)]
    if len(modules) == len(builds):
        return container(modules)
    return lambda: container(
        [build if isinstance(build, nn.Module) else build() for build in builds]
    )


def built(build: Build, seed: int) -> nn.Module:
    """The module; one that a function builds, from weights under the seed."""
    if isinstance(build, nn.Module):
        return build
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        module: object = build()
    if not isinstance(module, nn.Module):
        raise GameError(
            f"a player's function must return an nn.Module, not {type(module).__name__}"
        )
    return module


def normalised(critic: nn.Module, wanted: bool | Sequence[str]) -> tuple[str, ...]:
    """The parameters that are divided by their norms: all matrices, those named, or none."""
    if not wanted:
        return ()
    if wanted is not True:
        free = {name: p for name, p in critic.named_parameters() if p.requires_grad and p.ndim > 1}
        for name in wanted:
            if name not in free:
                hint = did_you_mean(name, free)
                raise GameError(
                    f"spectral_norm names {name!r}, which is no trained weight matrix of the critic{hint}"
                )
        return tuple(dict.fromkeys(wanted))
    names = spectral_norm.normalised_names(critic)
    if not names:
        raise GameError(
            "spectral_norm=True, but the critic has no weight matrix to normalise: leave it out"
        )
    frozen = {name for name, p in critic.named_parameters() if not p.requires_grad}
    if held := [name for name in names if name in frozen]:
        raise GameError(
            f"spectral_norm=True, but the critic's {held[0]} is frozen (requires_grad=False): divide it by its norm "
            "yourself, and name the trained weights instead, spectral_norm=('...',)"
        )
    return names


def shape_of(value: object) -> str:
    """The shape of a tensor, or the type of anything else, in words."""
    return f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
