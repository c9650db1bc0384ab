"""What a user's losses return, and how they fail."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.errors import GameError, first_line

if TYPE_CHECKING:
    from equilibrist.games.adversarial import AdversarialGame

AGREE = 1e-5  # of a loss or gradient: two ways of computing the same


def evaluated(
    game: AdversarialGame, evaluate: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The losses; GameError with the line of the user's function where it fails, or where it returns no losses."""
    try:
        return evaluate()
    except GameError:
        raise
    except Exception as error:
        raise GameError(f"the losses fail on a batch: {failure(error)}") from error


def failure(error: Exception) -> str:
    """An error in a line, with the place in the user's code at which it came up."""
    ours = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f for f in frames if "site-packages" not in f.filename and not f.filename.startswith(ours)
    ]
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {first_line(error)}{where}"


def check_returned(game: AdversarialGame, given: object, only: str | None) -> Mapping[str, Tensor]:
    """What the user's one function returned, seen to hold each player's loss, or that of one alone.

    Raises:
        GameError: a player without a loss, or a loss that is no number.
    """
    names = list(game.names.values()) if only is None else [game.names[only]]
    if type(given) is not dict and not isinstance(given, Mapping):
        kind = type(given).__name__
        raise GameError(
            f"the losses return {kind}: return a dictionary, {{{', '.join(f'{n!r}: loss' for n in names)}}}"
        )
    for name in names:
        if name not in given:
            raise GameError(f"the losses return no {name!r}, only {', '.join(map(repr, given))}")
    return given


def scalar_loss(name: str, loss: object) -> Tensor:
    """A player's loss as a 0-d tensor.

    Raises:
        GameError: it is no number.
    """
    if not isinstance(loss, Tensor):
        kind = type(loss).__name__
        raise GameError(
            f"the {name}'s loss is of type {kind}: return a tensor (no .item()), a mean over the batch"
        )
    if loss.numel() != 1:
        raise GameError(
            f"the {name}'s loss has shape {list(loss.shape)}: return one number, a mean over the batch"
        )
    return loss if loss.ndim == 0 else loss.reshape(())


def check_only(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> None:
    """Check that a function that takes `only` gives the same loss with it.

    Raises:
        GameError: it does not, and random numbers drawn in another order are not the reason.
    """
    if not game._asks:
        return
    with torch.no_grad():
        whole = game.losses(players, constants, draw)
        for p, name in game.names.items():
            alone = evaluated(game, lambda p=p: game.losses(players, constants, draw, only=p))[p]  # type: ignore[misc]
            if torch.allclose(alone, whole[p], rtol=AGREE, atol=1e-7):
                continue
            if not game.noise:
                raise GameError(
                    f"the {name}'s loss is {float(alone):.6g} with only={name!r} and {float(whole[p]):.6g} without: "
                    "only may leave out other losses, not change this one"
                )
            game._asks = False  # what is left out would have drawn random numbers
            return
