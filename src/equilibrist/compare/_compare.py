"""Trains every solver from every seed, and says how they differ."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from equilibrist.certificates import Json
from equilibrist.compare._collect import MemberFigures, comparison_facts, member_figures
from equilibrist.compare._facts import ComparisonFacts, QuantityFacts, SolverFacts
from equilibrist.compare._page import comparison_page
from equilibrist.compare._table import comparison_table
from equilibrist.compare.cost import Cost, cost
from equilibrist.errors import RecipeError
from equilibrist.files.atomic import json_bytes
from equilibrist.files.owned import publish, require_free
from equilibrist.run.environment import device_of
from equilibrist.run.manifest import FORMAT, Provenance
from equilibrist.run.recipe import Recipe
from equilibrist.run.stopping import StopRequest
from equilibrist.run.training import Ensemble, train_members
from equilibrist.solvers import Solver


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns; str() is the table.

    Attributes:
        directory: where `compare.json` and `compare.html` lie, and the runs in SOLVER/seed_S.
        facts: what compare.json holds; empty where training was interrupted.
        ensembles: by solver's name, as far as they were trained.
        interrupted: training was asked to stop; the same call goes on.
    """

    directory: Path
    facts: ComparisonFacts
    ensembles: dict[str, Ensemble]
    interrupted: bool = False

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.directory / "compare.html"

    def __str__(self) -> str:
        return comparison_table(self.facts) if self.facts else f"{self.directory}: not finished"


# More parameters than other functions: those of `train`, by the same names, and the comparison's own.
def compare(
    recipe: Recipe,
    solvers: Mapping[str, Solver],
    directory: Path | str,
    seeds: Sequence[int] = tuple(range(8)),
    *,
    name: str = "python",
    settings: Json | None = None,
    origin: Json | None = None,
    device: str = "auto",
    progress: str = "auto",
    confidence: float = 0.95,
) -> Comparison:
    """Train `recipe` with each of `solvers` from each of `seeds`, in DIR/SOLVER/seed_S, and compare.

    Every solver's seeds are one `ensemble`: the same initial weights and minibatches for all solvers (as far
    as each asks for them), whatever their step sizes. A sweep is therefore as many solvers as there are
    values, at common random numbers: `{t: named(t, recipe.solver) for t in ("recipe:lr=1e-4", "recipe:lr=3e-4")}`.
    Compared are the last figures of the recipe's scores, and the losses, after
    the same number of steps **and** after the same seconds of training: T is what the fastest solver
    took for all its steps, and the others are seen where they last were looked at within T. The clock is a
    member's share of its stack's: draws, steps and the search for non-finite numbers, without scores, sample
    sheets and checkpoints. Means over seeds have Student's intervals; differences from the first solver
    are paired by seed. Members that diverged are counted, and left out of means. Intervals are those of
    one comparison: of twenty at 95%, one misses its truth.

    Running it again goes on where it stopped, and adds solvers or seeds to what is there.

    Raises:
        RecipeError: no solver, names that give the same folder, a confidence outside of (0, 1). What
        `ensemble` raises.
    """
    if not solvers:
        raise RecipeError("nothing to compare: give one solver or more")
    if not 0 < confidence < 1:
        raise RecipeError(f"confidence={confidence} must lie between 0 and 1")
    root, place = Path(directory), device_of(device)
    folders = {label: root / folder for label, folder in _folders(solvers).items()}
    require_free(root, "compare.json", "compare.html")
    made = {label: dataclasses.replace(recipe, solver=s) for label, s in solvers.items()}
    # Before anything is trained: a solver that does not fit the game shows it here.
    costs = {label: cost(one, place) for label, one in made.items()}
    provenance = Provenance(name, settings, origin or {"kind": "python"})
    found = _train(made, folders, seeds, provenance, device, progress)
    if len(found) < len(made) or any(ensemble.interrupted for ensemble in found.values()):
        return Comparison(root, {}, found, interrupted=True)
    content = _content(made, folders, costs, seeds, recipe, provenance, str(place), confidence)
    html = comparison_page(content).encode("utf-8", "replace")
    publish(root, {"compare.json": json_bytes(content), "compare.html": html})
    return Comparison(root, content, found)


def _content(
    made: Mapping[str, Recipe],
    folders: Mapping[str, Path],
    costs: Mapping[str, Cost],
    seeds: Sequence[int],
    recipe: Recipe,
    provenance: Provenance,
    device: str,
    confidence: float,
) -> ComparisonFacts:
    """What compare.json holds, from the run directories."""
    about: dict[str, QuantityFacts] = {}
    members = {
        label: {int(s): member_figures(folder / f"seed_{int(s)}", about) for s in seeds}
        for label, folder in folders.items()
    }
    limit, figures = comparison_facts(members, about, recipe.steps, confidence)
    return {
        "format": FORMAT,
        "recipe": provenance.name,
        "title": recipe.title or provenance.name,
        "summary": recipe.summary,
        "settings": provenance.settings or {},
        "seeds": [int(s) for s in seeds],
        "steps": recipe.steps,
        "batch": recipe.batch,
        "device": device,
        "confidence": confidence,
        "solvers": [
            _solver_facts(label, folders[label].name, one, costs[label], members[label])
            for label, one in made.items()
        ],
        "seconds_at_equal_compute": limit,
        "figures": figures,
    }


def _train(
    recipes: Mapping[str, Recipe],
    folders: Mapping[str, Path],
    seeds: Sequence[int],
    provenance: Provenance,
    device: str,
    progress: str,
) -> dict[str, Ensemble]:
    """Train each recipe from every seed, in its folder; without the later ones where training was interrupted."""
    found: dict[str, Ensemble] = {}
    with StopRequest() as stop:
        for label, recipe in recipes.items():
            found[label] = train_members(
                dataclasses.replace(recipe, title=f"{recipe.title or provenance.name}, {label}"),
                folders[label],
                seeds,
                stop,
                dataclasses.replace(
                    provenance, origin={**(provenance.origin or {}), "solver": label}
                ),
                device,
                progress,
            )
            if found[label].interrupted or stop:
                break
    return found


def _folders(labels: Iterable[str]) -> dict[str, str]:
    """Each solver's folder by its name; RecipeError where two would share one."""
    folders: dict[str, str] = {}
    for label in labels:
        folder = _folder(label)
        if folder in folders.values():
            other = next(n for n, f in folders.items() if f == folder)
            raise RecipeError(
                f"the solvers {other!r} and {label!r} would share the folder {folder}"
            )
        folders[label] = folder
    return folders


def _solver_facts(
    label: str, folder: str, recipe: Recipe, spent: Cost, members: Mapping[int, MemberFigures]
) -> SolverFacts:
    sound = [m for m in members.values() if m.diverged is None]
    seconds = max((m.total for m in sound), default=None)
    return {
        "name": label,
        "folder": folder,
        "text": str(recipe.solver),
        "spec": repr(recipe.solver),
        "diverged": {str(s): m.diverged for s, m in members.items() if m.diverged is not None},
        "members": sorted({m.together for m in members.values()}),
        "seconds": seconds,
        "seconds_per_step": None if seconds is None else seconds / recipe.steps,
        "cost": {
            "gradients": spent.gradients,
            "J^T u": spent.pullbacks,
            "J u": spent.pushforwards,
            "passes": spent.passes,
        },
    }


def _folder(label: str) -> str:
    """A solver's name as a folder's."""
    text = re.sub(r"[^A-Za-z0-9.=]+", "-", label).strip("-.")
    if not text:
        raise RecipeError(f"the solver's name {label!r} has no letter or digit")
    return text
