"""Calls of a critic in somebody's loop, and the gradients that the declared loss would send through each of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from equilibrist.formulations import Formulation
from equilibrist.penalties import R1, R2, GradientPenalty

REAL, FAKE, GENERATOR = "real", "fake", "generator"
ROLES = (REAL, FAKE, GENERATOR)
WIDE = (torch.float32, torch.float64)
MOST = 100_000  # coordinates of a player's gradient that are compared; of larger players a fixed sample

Vectors = dict[str, Tensor]  # by player, its gradient at the compared coordinates


class Coordinates:
    """Where a player's gradient is looked at: all its weights that want a gradient, or a fixed sample of them."""

    def __init__(self, params: Sequence[Tensor], most: int = MOST) -> None:
        self.params = list(params)
        self.size = sum(p.numel() for p in self.params)
        rng = torch.Generator().manual_seed(0)
        self._places: list[Tensor | None] = []
        for p in self.params:
            want = max(16, round(most * p.numel() / max(self.size, 1)))
            whole = self.size <= most or p.numel() <= want
            self._places.append(None if whole else torch.randint(p.numel(), (want,), generator=rng))

    def of(self, held: Container[int]) -> Tensor | None:
        """Which coordinates are of these weights, by identity; None where all are."""
        if all(id(p) in held for p in self.params):
            return None
        sizes = [
            p.numel() if places is None else len(places)
            for p, places in zip(self.params, self._places, strict=True)
        ]
        inside = [
            torch.full((size,), id(p) in held) for p, size in zip(self.params, sizes, strict=True)
        ]
        return torch.cat(inside)

    def vector(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """These tensors, one a weight, at the compared coordinates: [n] on the CPU; None counts as zero."""
        parts = []
        for p, t, places in zip(self.params, tensors, self._places, strict=True):
            if t is None:
                size = p.numel() if places is None else len(places)
                parts.append(torch.zeros(size, dtype=p.dtype if p.dtype in WIDE else torch.float32))
                continue
            flat = t.detach().reshape(-1)
            flat = flat if places is None else flat[places.to(flat.device)]
            parts.append(flat.to("cpu", flat.dtype if flat.dtype in WIDE else torch.float32))
        return torch.cat(parts) if parts else torch.zeros(0)


@dataclass
class Call:
    """One call of a critic with gradients.

    Attributes:
        place: its number among all calls.
        kind: REAL, FAKE, "penalty" (a point that wants a gradient, neither real nor generated), or "" where nothing
            tells.
        linked: whether its input was computed from the generator's weights.
        samples: the (first) input.
        scores: of its heads, detached.
        columns: by role, the gradient of the declared loss's term for each player.
        penalties: by name, the gradient of a penalty at these points for each player.
        received: gradients that the loop's own backward passes sent into the first head's scores.
        slopes: by role, the gradient that the declared loss would send there.
        lowered: whether it ran under autocast.
        source: the generator's last output of this shape, where memory and values do not show that it is the input.
        asked: whether a gradient for the samples themselves was wanted, as for a penalty on slopes.
        cut: the critic's slope at these samples, where they are the generator's and nothing of it reaches its weights.
    """

    place: int
    kind: str
    linked: bool
    samples: Tensor
    scores: list[Tensor]
    columns: dict[str, Vectors] = field(default_factory=dict)
    penalties: dict[str, Vectors] = field(default_factory=dict)
    received: list[Tensor] = field(default_factory=list)
    slopes: dict[str, Tensor] = field(default_factory=dict)
    lowered: bool = False
    source: Tensor | None = None
    asked: bool = False
    cut: float = 0.0

    def listen(self, head: Tensor, rows: Tensor | None, listening: Callable[[], bool]) -> None:
        """Keeps what the loop's own backward passes send into these rows of a head's scores, while `listening`."""
        if not head.requires_grad:
            return

        def hook(received: Tensor) -> None:
            if listening():
                got = received.detach() if rows is None else received.detach()[rows]
                self.received.append(got.clone())

        head.register_hook(hook)


class _Scores:
    """Stands for a critic where samples are scores already."""

    samplewise = False
    params: Mapping[str, Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        return x


def loss_of(loss: Formulation, role: str, scores: Tensor, others: Tensor) -> Tensor:
    """The term of a declared loss that depends on these scores: the critic's on real or on generated ones, or the
    generator's on its own; `others` are scores of the other kind."""
    if role == REAL:
        return loss.losses(_Scores(), scores, others, only="critic")["critic"]
    player = "critic" if role == FAKE else "generator"
    return loss.losses(_Scores(), others, scores, only=player)[player]


def slopes_of(loss: Formulation, role: str, scores: Tensor, others: Tensor) -> Tensor:
    """The gradient of that term with respect to the scores."""
    with torch.enable_grad():
        leaf = scores.detach().requires_grad_()
        value = loss_of(loss, role, leaf, others.detach())
        (found,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found.detach()


def separable(loss: Formulation) -> bool:
    """Whether real and generated scores enter the critic's loss apart from one another."""
    rng = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(8, generator=rng, dtype=torch.float64) * 0.3 for _ in range(3))
    return torch.allclose(slopes_of(loss, REAL, a, b), slopes_of(loss, REAL, a, c))


def gradients(
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    players: Mapping[str, Coordinates],
) -> Vectors:
    """What these cotangents of graph-bearing outputs send to each player, the graph kept for the loop."""
    wanted = [p for held in players.values() for p in held.params if p.requires_grad]
    if not wanted:
        return {name: held.vector([None] * len(held.params)) for name, held in players.items()}
    found = torch.autograd.grad(
        list(outputs), wanted, list(cotangents), retain_graph=True, allow_unused=True
    )
    by = {id(p): g for p, g in zip(wanted, found, strict=True)}
    return {
        name: held.vector([by.get(id(p)) for p in held.params]) for name, held in players.items()
    }


# -- penalties -------------------------------------------------------------------------------------


def _axes(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Sets of axes of a batch's gradient over which a norm may have been taken by mistake, those that differ."""
    ndim = len(shape)

    def telling(axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(a for a in axes if shape[a] > 1)

    met = {telling(tuple(range(1, ndim)))}
    for count in range(1, ndim + 1):
        for axes in itertools.combinations(range(ndim), count):
            if telling(axes) not in met:
                met.add(telling(axes))
                yield axes


def _views(g: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Shapes in which a gradient may have been normed: its own, and square images of flat samples."""
    yield "", g
    if g.ndim == 2:
        side = round(g.shape[1] ** 0.5)
        if side > 1 and side * side == g.shape[1]:
            yield f" of {side} x {side} images", g.reshape(len(g), side, side)


@dataclass(frozen=True)
class Norm:
    """A way to take the penalty's norm.

    Attributes:
        name: in words.
        value: from the gradient [B, ...] to the penalty.
        law: the slope at which this penalty is content, over the slope that is asked for.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    law: float = 1.0
    why: str = ""


def named(penalty: object) -> str:
    """A declared penalty in words."""
    if isinstance(penalty, GradientPenalty):
        side = "one-sided " if penalty.one_sided else ""
        return f"{side}gradient penalty {penalty.weight:g} (|slope| - {penalty.target:g})^2"
    return f"{type(penalty).__name__} of weight {getattr(penalty, 'weight', 1):g}"


def right_norms(penalties: Sequence[object]) -> dict[str, Callable[[Tensor], Tensor]]:
    """The declared penalties as functions of the input gradient [B, ...], by name."""
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for penalty in penalties:
        if isinstance(penalty, GradientPenalty):
            found[named(penalty)] = _gradient_penalty(penalty)
        elif isinstance(penalty, R1 | R2):
            found[named(penalty)] = partial(_mean_square, penalty.weight)
    return found


def _mean_square(weight: float, g: Tensor) -> Tensor:
    return weight / 2 * g.flatten(1).square().sum(1).mean()


def _gradient_penalty(
    penalty: GradientPenalty, norm: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], Tensor]:
    def value(g: Tensor) -> Tensor:
        sizes = (g.flatten(1).square().sum(1) + 1e-24).sqrt() if norm is None else norm(g)
        excess = sizes - penalty.target
        return (
            penalty.weight * (excess.clamp_min(0) if penalty.one_sided else excess).square().mean()
        )

    return value


def wrong_norms(penalties: Sequence[object], shape: Sequence[int]) -> list[Norm]:
    """Norms over the wrong axes, for gradients of this shape."""
    found = []
    count = max(1, int(torch.Size(shape[1:]).numel()))
    for penalty in penalties:
        if not isinstance(penalty, GradientPenalty) or not penalty.target:
            continue
        for view, like in _views(torch.empty(shape, device="meta")):
            for axes in _axes(like.shape):
                size = int(torch.Size([like.shape[a] for a in axes]).numel())
                law = (count / size) ** 0.5
                norm = _norm_over(like.shape[1:], axes)
                found.append(
                    Norm(
                        _named(axes, like.shape, view),
                        _gradient_penalty(penalty, norm),
                        law,
                        _why(axes, like.shape, count, size),
                    )
                )
    return found


def _norm_over(shape: torch.Size, axes: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    def norm(g: Tensor) -> Tensor:
        return (g.reshape(len(g), *shape).square().sum(axes) + 1e-24).sqrt()

    return norm


def _named(axes: tuple[int, ...], shape: Sequence[int], view: str) -> str:
    if len(axes) == len(shape):
        return "one norm over the whole batch"
    words = [f"axis {a} (length {shape[a]})" for a in axes]
    return f"a norm over {' and '.join(words)}{view}"


def _why(axes: tuple[int, ...], shape: Sequence[int], count: int, size: int) -> str:
    if len(axes) == len(shape):
        return f"1/sqrt({shape[0]}), the batch's size"
    return f"sqrt({count} / {size}), for samples of {count} entries normed over {size}"
