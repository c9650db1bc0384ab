"""Whether a recipe's parts fit each other and the machine, and whether a pair is still a sensible one."""

from __future__ import annotations

import copy
import math
import operator
import os
from pathlib import Path
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from equilibrist.core.draws import Draw, Stream, generator
from equilibrist.core.game import Constants, Players, check_zero_sum
from equilibrist.errors import RecipeError, warn_user
from equilibrist.games.compatibility import misfits, require_fit
from equilibrist.run.recipe import Recipe

# Weights beyond so many times the largest of initial weights and data are those of no sensible pair.
OVERGROWN = 1e3


def require_seed(value: SupportsIndex) -> int:
    """The seed as a whole number; RecipeError for anything that is none, or is negative."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise RecipeError(f"seed={value!r}: it must be a whole number, 0 or larger")
    return number


def affordable(recipe: Recipe, device: torch.device, members: int = 1) -> None:
    """RecipeError where one minibatch would not fit into the machine's memory: raised at once, before
    anything of that size is drawn.

    Counted are the samples and what every layer makes of them, which is kept for the gradients.
    """
    each = math.prod(recipe.data.shape) + _activations(recipe)
    size = torch.finfo(recipe.dtype).bits // 8
    needed = members * recipe.batch * each * size / recipe.accumulate
    if needed > (held := _memory(device)):
        raise RecipeError(
            f"batch={recipe.batch} needs at least {needed / 2**30:,.0f} GiB for one minibatch, and there "
            f"are {held / 2**30:,.0f} GiB: take a smaller batch, or accumulate"
        )


def _activations(recipe: Recipe) -> int:
    """How many numbers the layers of both players make of one sample; 0 where it cannot be seen."""
    total = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor) and not any(module.children()):
            total += output.numel()

    game = recipe.game
    try:
        # A source on another device is asked for two samples where it is.
        draw = game.draw(generator(0, Stream.INIT), recipe.data, 2, recipe.dtype, "cpu")
        shown = (draw["condition"],) if "condition" in draw else ()
        for player, seen in (("generator", draw["latent"]), ("critic", draw["real"])):
            module = copy.deepcopy(game.modules[player]).eval().to(recipe.dtype)
            for part in module.modules():
                part.register_forward_hook(count)
            with torch.no_grad():
                module(seen, *shown)
    except Exception:  # of another form: its own error, if any, comes where it is played
        return 0
    return total // 2 * getattr(game, "particles", 1)


def _memory(device: torch.device) -> float:
    """Bytes of memory of the device, or that this process may use of the machine's."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    held = [math.inf]
    try:
        held.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        held.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError, AttributeError):
        pass
    return min(held)


def overgrown(players: Players, start: Players, real: Tensor) -> str:
    """What is wrong with weights that have grown more than a thousandfold, in words; empty where nothing is.

    No loss is infinite then, for bounded and normalised networks take any weights: but nothing that
    was learnt is left in them.
    """
    scale = float(real.abs().max()) if real.is_floating_point() else 1.0
    for player, part in players.items():
        most, first = (
            max((float(t.abs().max()) for t in values.values() if t.numel()), default=0.0)
            for values in (part, start[player])
        )
        if most > OVERGROWN * max(1.0, first, scale):
            return (
                f"the {player}'s weights have grown from {first:.2g} to {most:.2g} at most: this pair has "
                "diverged; try a smaller step size or another loss"
            )
    return ""


def fits(recipe: Recipe, players: Players, constants: Constants, draw: Draw) -> None:
    """The data against the game, and the game's claims on them, before the first step."""
    require_fit(recipe.game, recipe.data, players, constants, draw)
    check_zero_sum(recipe.game, players, constants, draw)
    for note in misfits(recipe.game, recipe.data, players, constants, recipe.batch):
        warn_user(note)
