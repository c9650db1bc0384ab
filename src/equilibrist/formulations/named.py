"""A formulation from what a reader of the docs would write for it."""

from __future__ import annotations

from typing import TypeGuard, cast

from torch import nn

from equilibrist.errors import GameError, RecipeError, did_you_mean
from equilibrist.formulations._base import Formulation
from equilibrist.formulations.hinge import Hinge
from equilibrist.formulations.least_squares import LeastSquares
from equilibrist.formulations.relativistic import Relativistic
from equilibrist.formulations.vanilla import Vanilla
from equilibrist.formulations.wgan import WGAN

FORMULATIONS = {
    "vanilla": Vanilla,
    "wgan": WGAN,
    "hinge": Hinge,
    "least-squares": LeastSquares,
    "relativistic": Relativistic,
}
# torch's losses see one batch of scores; these are the games that are usually made of them.
_OF_TORCH = {
    "BCEWithLogitsLoss": "Vanilla(), or Vanilla(saturating=True) where the generator minimises log(1 - D)",
    "binary_cross_entropy_with_logits": "Vanilla()",
    "BCELoss": "Vanilla(probabilities=True)",
    "binary_cross_entropy": "Vanilla(probabilities=True)",
    "MSELoss": "LeastSquares(1, 0, 1)",
    "mse_loss": "LeastSquares(1, 0, 1)",
    "HingeEmbeddingLoss": "Hinge()",
}


def is_formulation(value: object) -> TypeGuard[Formulation | str]:
    """Whether this can only be meant as a formulation, or as a loss in its place."""
    return (
        (isinstance(value, str) and _key(value) in FORMULATIONS)
        or hasattr(value, "losses")
        or _name(value) in _OF_TORCH
    )


def formulation_of(value: Formulation | str | type) -> Formulation:
    """A formulation as it is, or by its name.

    Args:
        value: `Vanilla()`, `WGAN()`, ..., or a name: "vanilla", "wgan", "hinge", "least-squares",
            "relativistic".

    Returns:
        The formulation.

    Raises:
        RecipeError: a name that there is not.
        GameError: anything else, with what to write.

    Examples:
        >>> from equilibrist.formulations import formulation_of
        >>> formulation_of("wgan").unit
        'score units'
    """
    if isinstance(value, str):
        if _key(value) not in FORMULATIONS:
            hint = did_you_mean(value, FORMULATIONS)
            raise RecipeError(
                f"there is no formulation {value!r}{hint}; choose from {', '.join(FORMULATIONS)}"
            )
        return cast(Formulation, FORMULATIONS[_key(value)]())
    if (name := _name(value)) in _OF_TORCH:
        raise GameError(
            f"formulation={name} is a loss of torch, which does not say what each player minimises: "
            f"write {_OF_TORCH[name]}"
        )
    if isinstance(value, type):
        raise GameError(f"formulation={value.__name__} is a class: write {value.__name__}()")
    if not hasattr(value, "losses"):
        raise GameError(f"formulation={value!r} is none: write Vanilla() or WGAN()")
    return value


def _key(name: str) -> str:
    """A name as it stands here: "least_squares" is meant as "least-squares"."""
    return name.lower().replace("_", "-")


def _name(value: object) -> str:
    if isinstance(value, nn.Module):
        return type(value).__name__
    return str(getattr(value, "__name__", ""))
