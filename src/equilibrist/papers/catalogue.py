"""Every experiment, in the order of worth: what is run first when all are asked for."""

from __future__ import annotations

from equilibrist.errors import RecipeError, did_you_mean
from equilibrist.papers.hsieh_images import IMAGES
from equilibrist.papers.hsieh_plane import PLANE
from equilibrist.papers.hsieh_theory import THEORY
from equilibrist.papers.model import Experiment
from equilibrist.papers.reached import N6
from equilibrist.papers.sections import SECTIONS
from equilibrist.papers.statements import STATEMENTS
from equilibrist.papers.table1 import TABLE_1

EXPERIMENTS: tuple[Experiment, ...] = (
    TABLE_1,
    N6,
    SECTIONS,
    STATEMENTS,
    THEORY,
    PLANE,
    IMAGES,
)


def experiment(key: str) -> Experiment:
    """The experiment of this name.

    Raises: RecipeError for another name, with the closest ones.
    """
    found = {one.key: one for one in EXPERIMENTS}
    if key not in found:
        raise RecipeError(
            f"there is no experiment {key!r}{did_you_mean(key, list(found))}; `equilibrist papers list` "
            "shows them all"
        )
    return found[key]
