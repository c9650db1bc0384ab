"""What a GAN shows on eight samples while it is built: shapes, ranges, and whether scores are of single samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw, normal, uniform
from equilibrist.core.game import Constants, Players
from equilibrist.errors import GameError
from equilibrist.games import inputs
from equilibrist.games._scores import Reading, readings, shape_of_output
from equilibrist.games.sampled import SampledGame, Start
from equilibrist.nn.pure import Output

COUNT = 8
# Of eight samples: no half of any grouping at equal distances, or of neighbours, is one of these.
_PARTS = ([0, 3, 5, 6], [1, 2, 4, 7])
_BOUNDS = {
    inputs.UNIT: "lie within [0, 1] whatever its weights are (a sigmoid at its end?)",
    inputs.SIGNED: "lie within [-1, 1] whatever its weights are (a tanh at its end?)",
    inputs.POSITIVE: "are never negative, whatever its weights are (a ReLU or softplus at its end?)",
    inputs.NEGATIVE: "are never positive, whatever its weights are (a logsigmoid at its end?)",
    inputs.CONSTANT: "are one number for all samples, whatever its weights are (a softmax over one column?)",
}

# (player, start, what it is given in words, *inputs) -> what the player's module returns
Run = Callable[..., Output]


class Probe(NamedTuple):
    """Eight latents, the conditions that were shown beside them, the samples and the scores that came of them, and
    where these lie in what the critic returns."""

    latent: Tensor
    condition: Tensor | None
    fake: Tensor
    scores: Tensor
    readings: tuple[Reading, ...]


def probed(game: SampledGame, start: Start, rng: np.random.Generator, run: Run) -> Probe:
    """The players' modules on eight latents, each called by `run`.

    Raises:
        GameError: a player without parameters, or what is not one sample for each latent, one score for each sample.
    """
    anchor = next(iter(start.players["generator"].values()), None)
    if anchor is None or not start.players["critic"]:
        empty = "generator" if anchor is None else "critic"
        raise GameError(f"the {empty} has no parameters, so it has nothing to choose")
    latent = game.latent.sample(rng, COUNT, anchor.dtype, anchor.device)
    condition = inputs.probe(game.condition, rng, COUNT, anchor.dtype, anchor.device)
    shown = () if condition is None else (condition,)
    beside = "" if condition is None else f" and conditions {list(condition.shape)}"
    given = f"latents of shape {list(latent.shape)}{beside}"
    fake = run("generator", start, given, latent, *shown)
    if not isinstance(fake, Tensor) or fake.ndim == 0 or len(fake) != COUNT:
        raise GameError(
            f"the generator maps latents {list(latent.shape)} to {inputs.shape_of(fake)}: it must return "
            "one sample for each latent, [batch, ...]"
        )
    given = f"the generator's samples {list(fake.shape)}{beside}"
    made = run("critic", start, given, fake, *shown)
    found = _read(game, made)
    if not found:
        raise GameError(
            f"the critic maps samples {list(fake.shape)} to {shape_of_output(made)}: it must return one score for "
            "each sample, [batch] or [batch, 1], a map of scores [batch, 1, ...], a tuple that begins with either, "
            "or a list or dictionary of them"
        )
    if isinstance(made, tuple) and any(readings(part, COUNT) for part in made[1:]):
        game.note(
            "the critic returns a tuple, of which the first entry is its score here, and another one has the shape "
            "of a score too: return a list if the loss is a mean over both"
        )
    if hasattr(game.formulation, "transform") and any(v.numel() > COUNT for _, v in found):
        raise GameError(
            f"{game.formulation} transforms one score of each sample, and the critic returns a map: let it return the "
            "mean over the map"
        )
    scores = torch.cat([value.flatten() for _, value in found])
    return Probe(latent, condition, fake, scores, tuple(reading for reading, _ in found))


def _read(game: SampledGame, made: Output) -> list[tuple[Reading, Tensor]]:
    """The scores in what the critic returned, with the way to each."""
    parts: list[tuple[int | None, Output]]
    if game.heads == 1:
        parts = [(None, made)]
    elif isinstance(made, Tensor):
        parts = [(head, made[:, head]) for head in range(game.heads)]
    else:
        parts = [*enumerate(made)]
    found = []
    for head, part in parts:
        paths = readings(part, COUNT)
        if not paths:
            return []
        for path in paths:
            value = part
            for key in path:
                value = value[key]
            found.append((Reading(head, path), value))
    return found


def check_scores(game: SampledGame, start: Start, seen: Probe) -> None:
    """GameError where a probability is given to a formulation that takes a logit, or a logit to one that takes
    a probability; a warning where the formulation takes any score."""
    low, high = float(seen.scores.min()), float(seen.scores.max())
    within = low >= 0 and high <= 1
    if getattr(game.formulation, "probabilities", False):
        if not within:
            raise GameError(
                f"Vanilla(probabilities=True) takes scores within [0, 1], but the critic's reach from {low:.3g} "
                f"to {high:.3g}: put a sigmoid at its end, or leave probabilities=True out"
            )
        return

    def score(params: Mapping[str, Tensor]) -> Tensor:
        players = {**start.players, "critic": dict(params)}
        return game.critic(players, start.constants, seen.condition)(seen.fake).detach()

    bound = inputs.bounded_by_form(score, start.players["critic"])
    logits = getattr(game.formulation, "logits", False)
    if not bound or (bound in (inputs.POSITIVE, inputs.NEGATIVE) and not logits):
        return
    found = f"the critic's scores {_BOUNDS[bound]}"
    if bound == inputs.CONSTANT:
        raise GameError(f"{found}: let it return one score for each sample that depends on it")
    if bound == inputs.UNIT and logits:
        instead = ", or write Vanilla(probabilities=True), the loss of BCELoss"
        instead = instead if hasattr(game.formulation, "probabilities") else ""
        raise GameError(
            f"{found}, but {game.formulation} takes a free logit: take the sigmoid off{instead}"
        )
    game.note(f"{found}, while {game.formulation} is made for free scores")


def distinct(game: SampledGame, start: Start, seen: Probe, rng: np.random.Generator) -> Draw:
    """A draw of the game whose real samples differ from the generated ones and from each other."""
    fake = seen.fake
    slope = torch.arange(COUNT, device=fake.device).reshape(-1, *[1] * (fake.ndim - 1)) / COUNT
    real = torch.lerp(fake, fake.roll(1, 0), 0.5) + slope.to(fake.dtype)
    draw: Draw = {"real": real, "latent": seen.latent}
    if seen.condition is not None:
        draw["condition"] = seen.condition
    if game.needs_mix:
        anchor = tree.leaves(start.players["generator"])[0]
        draw["mix"] = uniform(rng, (COUNT,), anchor.dtype, anchor.device)
    return draw


def moved_off(players: Players, rng: np.random.Generator) -> Players:
    """Weights moved off their start: a last layer that begins at zero would hide what mixes the samples of a
    batch."""

    def moved(x: Tensor) -> Tensor:
        return x + 0.1 * (x.std(correction=0) + 0.1) * normal(rng, x.shape, x.dtype, x.device)

    return tree.map(moved, players)


def scores_samplewise(
    game: SampledGame, players: Players, constants: Constants, x: Tensor, condition: Tensor | None
) -> bool:
    """Whether the scores of either half of the samples by itself are those of all together. Of a critic with random
    numbers of its own: whether one half keeps its scores, bit for bit, where the other is replaced."""
    if game.noise:
        kept, other = _PARTS
        moved = x.clone()
        moved[other] = x[other].flip(0) + 1
        with torch.no_grad():
            return all(
                torch.equal(
                    *(
                        game.critic(players, constants, condition, head)(at)[kept]
                        for at in (x, moved)
                    )
                )
                for head in range(game.heads)
            )

    def same(players: Players, constants: Constants, x: Tensor, tolerance: float) -> bool:
        c = (
            condition.to(x.dtype)
            if condition is not None and condition.is_floating_point()
            else condition
        )
        for head in range(game.heads):
            whole = game.critic(players, constants, c, head)(x)
            for rows in _PARTS:
                part = None if c is None else c[rows]
                scores = game.critic(players, constants, part, head)(x[rows])
                if not torch.allclose(whole[rows], scores, rtol=tolerance, atol=1e-12):
                    return False
        return True

    with torch.no_grad():
        try:
            wide, fixed = (tree.to(t, dtype=torch.float64) for t in (players, constants))
            return same(wide, fixed, x.double(), 1e-7)
        except RuntimeError:  # a module that insists on its own precision
            return same(players, constants, x, 1e-4)
