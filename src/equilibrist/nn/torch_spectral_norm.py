"""Modules that were written for another loop, made into what a game can be built from.

torch's spectral norm divides a weight by an estimate of its norm that every forward pass in training mode
moves on and that evaluation mode freezes. Either way the loss is no function of the weights. Here it
becomes one: a copy divides by the exact norm. Parameters and buffers keep their names, so values go from
the user's module to the copy and back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from equilibrist.nn import spectral_norm
from equilibrist.nn.spectral_norm import singular_vectors
from equilibrist.nn.torch_hooks import is_norm_hook
from equilibrist.nn.wrapped import copied, in_full_precision, uncompiled, unwrapped


@dataclass(frozen=True)
class Spectral:
    """One weight that torch's spectral norm divides.

    Attributes:
        weight, u, v: names of the parameter and of torch's power vectors (empty where a weight is one
            vector, whose norm torch computes exactly).
        dim: the dimension that becomes the rows of the matrix; 1 for transposed convolutions.
        by_game: the game divides (`GAN(spectral_norm=...)`); else the copy does so itself.
    """

    weight: str
    u: str
    v: str
    dim: int
    by_game: bool


@dataclass(frozen=True)
class Foreign:
    """A user's module as a game can have it.

    Attributes:
        module: the copy.
        spectral: the weights that torch's spectral norm divided.
        half: precisions below float32 in which the user's module keeps tensors; the copy is in float32.
    """

    module: nn.Module
    spectral: tuple[Spectral, ...]
    half: tuple[str, ...] = ()

    @property
    def normalised(self) -> tuple[str, ...]:
        """The parameters that the game must normalise."""
        return tuple(dict.fromkeys(s.weight for s in self.spectral if s.by_game))

    def lags(self, module: nn.Module) -> dict[str, float]:
        """By weight of the user's `module`: the largest singular value of what its forward pass sees,
        sigma(W) / u^T W v; 1 where the power iteration has converged."""
        held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        found = {}
        for s in self.spectral:
            if s.u:
                matrix = as_matrix(held[s.weight].detach().double(), s.dim)
                estimate = held[s.u].double() @ matrix @ held[s.v].double()
                found[s.weight] = float(torch.linalg.matrix_norm(matrix, 2) / estimate)
        return found

    def vectors(self, module: nn.Module) -> dict[str, Tensor]:
        """The module's own power vectors as the game names them, for the record of their lag."""
        held = dict(module.named_buffers())
        return {
            f"spectral_norm/{s.weight}/{side}": _full(held[name].detach().clone())
            for s in self.spectral
            if s.by_game
            for side, name in (("u", s.u), ("v", s.v))
        }

    def settled(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state_dict of the copy with torch's power vectors exact at its weights: the user's module in
        evaluation mode then computes what the audit did."""
        state = dict(state)
        for s in self.spectral:
            if s.u:
                matrix = as_matrix(state[s.weight].detach(), s.dim)
                state[s.u], state[s.v] = spectral_norm.top_singular_vectors(matrix)
        return state


def foreign(module: nn.Module, player: str, by_game: bool | None = None) -> Foreign:
    """A copy of `module` whose weights are divided by their exact spectral norm where torch's spectral norm
    divided them (hook or parametrisation). The critic's are left to the game where it can do it.

    Args:
        module: the user's own.
        player: its name.
        by_game: whether a game may divide; by default it does so of the critic's weights.

    Raises:
        GameError: a module that torch cannot copy.
    """
    made = copied(unwrapped(module), player)
    left = player == "critic" if by_game is None else by_game
    half = in_full_precision(made)
    names = {id(p): name for name, p in made.named_parameters()}
    found = []
    for path, layer in list(made.named_modules()):
        dot = f"{path}." if path else ""
        for key, hook in list(layer._forward_pre_hooks.items()):
            if is_norm_hook(hook, "SpectralNorm"):
                weight = layer._parameters[f"{hook.name}_orig"]
                assert weight is not None
                own = left and hook.dim == 0 and weight.requires_grad
                layer._forward_pre_hooks[key] = _Hook(hook.name, _Exact(hook.dim, not own))
                vectors = (f"{dot}{hook.name}_u", f"{dot}{hook.name}_v")
                found.append(Spectral(names[id(weight)], *vectors, hook.dim, own))
        if isinstance(layer, nn.utils.parametrize.ParametrizationList):
            for index, part in enumerate(layer):
                if type(part).__name__ != "_SpectralNorm":
                    continue
                weight = layer.original
                dim = int(part.dim)  # type: ignore[arg-type]
                first = index == 0 and dim == 0 and weight.ndim > 1
                own = first and left and weight.requires_grad
                layer[index] = _Exact(dim, not own, part)
                there = [f"{dot}{index}.{key}" if weight.ndim > 1 else "" for key in ("_u", "_v")]
                if index == 0:
                    found.append(Spectral(names[id(weight)], there[0], there[1], dim, own))
    return Foreign(made, tuple(found), half)


@contextmanager
def by_itself(module: nn.Module) -> Iterator[None]:
    """Gradients and full precision, whatever the caller has switched on around the call."""
    kind = next((p.device.type for p in module.parameters()), "cpu")
    plain = torch.autocast(kind, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), plain, uncompiled():
        yield


def lag_note(player: str, lags: Mapping[str, float]) -> str:
    """A sentence where torch's estimate of a norm is off by more than 5%, else nothing."""
    worst = max(lags, key=lambda name: abs(lags[name] - 1), default=None)
    if worst is None or abs(lags[worst] - 1) <= 0.05:
        return ""
    return (
        f"the {player}'s {worst} is divided by torch's estimate of its norm, which leaves a norm of "
        f"{lags[worst]:.3g}; the audit divides by the norm itself, which leaves 1"
    )


def with_vectors(
    constants: dict[str, dict[str, Tensor]], critic: Foreign, module: nn.Module
) -> dict[str, dict[str, Tensor]]:
    """Constants with the user's own power vectors in place of exact ones."""
    return {**constants, "critic": {**constants["critic"], **critic.vectors(module)}}


def half_note(player: str, half: tuple[str, ...]) -> str:
    """A sentence where a module keeps its weights in less than float32, else nothing."""
    if not half:
        return ""
    return (
        f"the {player}'s weights are {' and '.join(half)}: the audit is of a float32 copy, which holds the same "
        f"numbers and does not round between layers; load its witnesses into {player}.float()"
    )


def _full(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """[rows, rest] with dimension `dim` as the rows; a vector becomes one row."""
    return weight.movedim(dim, 0).flatten(1) if weight.ndim > 1 else weight[None]


def largest_singular_value(matrix: Tensor) -> Tensor:
    """sigma_max of a matrix, twice differentiable where it is simple.

    The first derivative u v^T is taken at singular vectors that are constants, so ties cannot spoil it;
    only where it is itself differentiated do the vectors follow the matrix (`_exact.singular_vectors`).
    """
    return cast(Tensor, _Sigma.apply(matrix))  # type: ignore[no-untyped-call]


class _Sigma(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        u, v = spectral_norm.top_singular_vectors(matrix)
        return torch.dot(u, torch.mv(matrix, v))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: object) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (matrix,) = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        u, v = (singular_vectors if twice else spectral_norm.top_singular_vectors)(matrix)
        return slope * torch.outer(u, v)


class _Exact(nn.Module):
    """A parametrisation in the place of torch's: W / sigma(W), or W where the game divides. It keeps the
    other's buffers, so that a state_dict fits both."""

    def __init__(self, dim: int, divides: bool, part: nn.Module | None = None) -> None:
        super().__init__()
        self.dim, self.divides = dim, divides
        for key, value in ({} if part is None else part._buffers).items():
            self.register_buffer(key, value)

    def forward(self, weight: Tensor) -> Tensor:
        if not self.divides:
            return weight
        return weight / largest_singular_value(as_matrix(weight, self.dim))


class _Hook:
    """The same as a hook before the forward pass, which is torch's older form."""

    def __init__(self, name: str, norm: _Exact) -> None:
        self.name, self.norm = name, norm

    def __call__(self, module: nn.Module, inputs: object) -> None:
        # Not by setattr: that would register a parameter.
        vars(module)[self.name] = self.norm(getattr(module, f"{self.name}_orig"))
