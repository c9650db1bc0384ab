"""Whether data fit the game that they are given to: shapes, labels, ranges, numbers of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw, Stream, generator
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.errors import GameError
from equilibrist.games.sampled import SampledGame

_PROBE = 256  # samples that are looked at
_FAR = 1e4  # weights so many times as large show where a bounded output ends


def require_fit(
    game: SampledGame,
    data: Source,
    players: Players,
    constants: Constants,
    draw: Draw | None = None,
) -> None:
    """Shapes and labels of the data against those of the game, on `draw` or on eight samples.

    Raises:
        GameError: they do not fit; the message names both sides.
    """
    wanted, has = game.condition, getattr(data, "classes", None)
    if isinstance(wanted, int) and has is not None and has > wanted:
        labels = getattr(data, "labels", None)
        least = int(labels.min()) if isinstance(labels, Tensor) else 0
        if least > 0 and has - least <= wanted:
            raise GameError(
                f"{data.name} has labels from {least} to {has - 1}, but the game is built for the classes 0 to "
                f"{wanted - 1}: count classes from 0 (labels - {least})"
            )
        raise GameError(
            f"{data.name} has {has} classes, but the game is built for {wanted}: set condition={has}"
        )
    draw = _probe(game, data, players, getattr(game, "batch", 8)) if draw is None else draw
    if isinstance(wanted, int):
        _labels_fit(data.name, draw["condition"], wanted)
    if isinstance(wanted, tuple) and tuple(draw["condition"].shape[1:]) != wanted:
        raise GameError(
            f"{data.name} has conditions of shape {list(draw['condition'].shape[1:])}, but the game is "
            f"built for {list(wanted)}: change condition or the data"
        )
    if game.lacks("samples"):
        return
    with torch.no_grad():
        fake = game.fakes(players, constants, draw)
        real = game.reals(players, constants, draw)
    if fake.shape[1:] != real.shape[1:]:
        raise GameError(
            f"the generator makes samples of shape {list(fake.shape[1:])}, but {data.name} has "
            f"{list(real.shape[1:])}: change the generator or the data"
        )


def misfits(
    game: SampledGame, data: Source, players: Players, constants: Constants, batch: int
) -> tuple[str, ...]:
    """What can be computed but is hardly meant, a sentence each: ranges of values that differ, and data
    that are fewer than a batch."""
    found = []
    if data.size is not None and data.size < batch:
        found.append(
            f"the {data.size} samples of {data.name} are fewer than one batch of {batch}: batches repeat "
            "samples, so give more data or a smaller batch"
        )
    if game.lacks("samples"):
        return tuple(found)
    draw = _probe(game, data, players, getattr(game, "batch", _PROBE))
    with torch.no_grad():
        real = game.reals(players, constants, draw).double()
        fake = game.fakes(players, constants, draw).double()
    if torch.isfinite(real).all() and torch.isfinite(fake).all():
        ends = reach(game, players, constants, draw)
        if caption := _ranges(data, real, fake, ends):
            found.append(caption)
    return tuple(found)


def _ranges(data: Source, real: Tensor, fake: Tensor, ends: tuple[float, float] | None) -> str:
    (low, high), (least, most) = _span(real), _span(fake)
    ranges = f"values of {data.name} run from {low:.3g} to {high:.3g}"
    if ends is not None:
        a, b = ends
        slack = 0.01 * (b - a)
        outside = float(((real < a - slack) | (real > b + slack)).double().mean())
        if outside > 1e-3:
            return (
                f"{ranges}, but the generator's output ends at {a:.3g} and {b:.3g} whatever its weights "
                f"are, so {outside:.0%} of the real values are out of its reach: scale the data to "
                f"{a:.3g}..{b:.3g}, or change the generator's last layer"
            )
        if low >= -slack and high <= 1 + slack and a < -0.5 and least < -0.05:
            return (
                f"{ranges}, but the generator's output ends at {a:.3g} and {b:.3g} and runs from "
                f"{least:.3g} to {most:.3g} here: scale the data to {a:.3g}..{b:.3g}, or end the "
                "generator with a sigmoid"
            )
    elif data.kind == "images" and high > 2 and max(-least, most) < high / 10:
        return (
            f"{ranges}, the generator's samples from {least:.3g} to {most:.3g}: pixels of 0..255 are "
            "usually divided by 255 first"
        )
    return ""


def reach(
    game: SampledGame, players: Players, constants: Constants, draw: Draw
) -> tuple[float, float] | None:
    """The ends at which the generator's output saturates (-1 and 1 of a tanh); None where it has none.

    Seen from outside, for a tanh may be a layer or a call: with far larger weights nearly every output
    lies at one of two values, and ten times larger ones do not move these.
    """
    fixed, wide = (tree.to(t, dtype=torch.float64) for t in (constants, players["generator"]))
    draw = tree.to(draw, dtype=torch.float64)
    spans = []
    try:
        for factor in (_FAR, 10 * _FAR):
            large = {**players, "generator": tree.scale(factor, wide)}
            with torch.no_grad():
                made = game.fakes(large, fixed, draw)
            if not torch.isfinite(made).all():
                return None
            low, high = _span(made)
            slack = 0.01 * (high - low)
            at_ends = ((made < low + slack) | (made > high - slack)).double().mean()
            if not high > low or float(at_ends) < 0.9:
                return None
            spans.append((low, high))
    except RuntimeError:  # a module that insists on its own precision
        return None
    (a, b), (c, d) = spans
    if abs(a - c) + abs(b - d) > 0.01 * (b - a):
        return None
    return round(a, 3), round(b, 3)


def _span(values: Tensor) -> tuple[float, float]:
    low, high = torch.aminmax(values)
    return float(low), float(high)


def _probe(game: SampledGame, data: Source, players: Players, n: int) -> Draw:
    anchor = next(iter(players[game.players[0]].values()))
    rng = generator(0, Stream.SAMPLE, step=4)
    return game.draw(rng, data, n, anchor.dtype, anchor.device)


def _labels_fit(name: str, labels: Tensor, classes: int) -> None:
    if labels.ndim != 1 or labels.is_floating_point():
        raise GameError(
            f"{name} has conditions of shape {list(labels.shape[1:])} and {labels.dtype}, but the game is "
            f"built for labels of {classes} classes: change condition or the data"
        )
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
        raise GameError(
            f"{name} has the label {least if least < 0 else most}, but the game is built for the classes "
            f"0 to {classes - 1}: count classes from 0, or change condition"
        )
