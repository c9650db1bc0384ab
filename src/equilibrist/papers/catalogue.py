"""Every experiment, in the order of worth: what is run first when all are asked for."""

from __future__ import annotations

from equilibrist.errors import RecipeError, did_you_mean
from equilibrist.papers.hsieh_images import IMAGES
from equilibrist.papers.hsieh_plane import PLANE
from equilibrist.papers.hsieh_theory import THEORY
from equilibrist.papers.mescheder_celeba import CELEBA
from equilibrist.papers.mescheder_cifar10 import CIFAR10
from equilibrist.papers.mescheder_figure1 import FIGURE_1
from equilibrist.papers.mescheder_lemmas import LEMMAS
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
    LEMMAS,
    FIGURE_1,
    CIFAR10,
    CELEBA,
    THEORY,
    PLANE,
    IMAGES,
)


def experiment_named(key: str) -> Experiment:
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
