"""What a GAN shows on eight samples while it is built: shapes, ranges, and whether scores are of single samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw, normal, uniform
from equilibrist.core.game import Constants, Players
from equilibrist.errors import GameError
from equilibrist.games import inputs
from equilibrist.games.sampled import SampledGame, Start

COUNT = 8
_BOUNDS = {
    inputs.UNIT: "lie within [0, 1] whatever its weights are (a sigmoid at its end?)",
    inputs.SIGNED: "lie within [-1, 1] whatever its weights are (a tanh at its end?)",
    inputs.POSITIVE: "are never negative, whatever its weights are (a ReLU or softplus at its end?)",
    inputs.NEGATIVE: "are never positive, whatever its weights are (a logsigmoid at its end?)",
    inputs.CONSTANT: "are one number for all samples, whatever its weights are (a softmax over one column?)",
}

Run = Callable[
    ..., Any
]  # (player, start, what it is given in words, *inputs) -> what the player's module returns


class Probe(NamedTuple):
    """Eight latents, the conditions that were shown beside them, the samples and the scores that came of them."""

    latent: Tensor
    condition: Tensor | None
    fake: Tensor
    scores: Tensor


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
    scores = run("critic", start, given, fake, *shown)
    if not isinstance(scores, Tensor) or scores.numel() != COUNT * game.heads:
        raise GameError(
            f"the critic maps samples {list(fake.shape)} to {inputs.shape_of(scores)}: it must return one "
            "score for each sample, [batch] or [batch, 1]"
        )
    return Probe(latent, condition, fake, scores)


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
    """Whether the scores of even and odd samples by themselves are those of all together. Of a critic with random
    numbers of its own: whether even samples keep their scores, bit for bit, where odd ones are others."""
    if game.noise:
        moved = x.clone()
        moved[1::2] = x[1::2].flip(0) + 1
        with torch.no_grad():
            return all(
                torch.equal(
                    *(
                        game.critic(players, constants, condition, head)(at)[::2]
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
            for start in (0, 1):
                part = None if c is None else c[start::2]
                scores = game.critic(players, constants, part, head)(x[start::2])
                if not torch.allclose(whole[start::2], scores, rtol=tolerance, atol=1e-12):
                    return False
        return True

    with torch.no_grad():
        try:
            wide, fixed = (tree.to(t, dtype=torch.float64) for t in (players, constants))
            return same(wide, fixed, x.double(), 1e-7)
        except RuntimeError:  # a module that insists on its own precision
            return same(players, constants, x, 1e-4)
