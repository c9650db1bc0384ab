"""From what a user typed to settings, and from a run directory to the run with its recipe rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equilibrist.certificates import Json
from equilibrist.cli.output import complain
from equilibrist.errors import EquilibristError, RecipeError, RecordError
from equilibrist.files.reading import quoted

if TYPE_CHECKING:
    from equilibrist.recipe_lookup import Resolved
    from equilibrist.run import Recipe, Run


def parse_settings(texts: Sequence[str] | None, flag: str = "--set") -> dict[str, str]:
    """The values of KEY=VALUE, as `flag` gives them, by their keys.

    Raises:
        RecipeError: A text without "=", or a key that is given twice.
    """
    pairs: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RecipeError(f"{flag} {text}: write it as key=value")
        if key in pairs:
            raise RecipeError(f"{flag} {key} is given twice: give it once")
        pairs[key] = value
    return pairs


def load_run(
    directory: Path,
    *,
    recipe: str | None = None,
    device: str = "auto",
    step: int | None = None,
    data: bool = True,
    call: str = "eq.audit({run})",
) -> Run:
    """Load a run with its recipe rebuilt. A user's own file is executed only if the user names it.

    Args:
        directory: The run directory.
        recipe: FILE:FUNCTION of the recipe, for a run of a user's own code.
        device: Where its tensors go.
        step: The checkpoint, or None for the newest.
        data: Whether the data are needed. If not, files of data are read only where the game or its
            conditions are made from them.
        call: What does the same in Python; shown for a run that a Python program made.

    Raises:
        RecipeError: A recipe is named for a run that does not need one, or cannot be built.
        RecordError: The run is missing or damaged, or its recipe must be named.
    """
    from equilibrist.run import load
    from equilibrist.run.record import Record

    manifest = Record(directory).manifest()
    resolved = _resolve_recipe(directory, manifest, recipe, call)
    built: Recipe = (
        resolved.build() if data else _build_without_data(resolved, manifest["description"])
    )
    if text := manifest["origin"].get("solver"):  # a comparison's run, with a solver of its own
        import dataclasses

        from equilibrist.solvers.named import solver_from_text

        built = dataclasses.replace(built, solver=solver_from_text(text, built.solver))
    return load(directory, _cut(built, manifest["description"]), device=device, step=step)


def _cut(built: Recipe, described: Json) -> Recipe:
    """The recipe with its minibatches in parts, where the command (`--parts`, `--per-part`) had it so."""
    import dataclasses

    cut = described.get("solver") or {}
    parts, per_part = cut.get("accumulate", 1), cut.get("per_part", False)
    if (parts, per_part) == (built.accumulate, built.per_part):
        return built
    return dataclasses.replace(built, accumulate=parts, per_part=per_part)


def _resolve_recipe(directory: Path, manifest: Json, recipe: str | None, call: str) -> Resolved:
    """The recipe that a run's manifest names, or the user's own that stands for it."""
    from equilibrist.recipe_lookup import resolve

    name, origin = manifest["recipe"], manifest["origin"]
    builtin = origin.get("kind") == "builtin"
    if builtin and recipe is not None:
        raise RecipeError(
            f"--recipe {recipe}: {directory} came from the recipe {name}; leave --recipe out"
        )
    if not builtin:
        if recipe is None:
            raise RecordError(_must_be_named(directory, name, origin, call))
        name = recipe
    resolved = resolve(name, manifest["settings"], builtin=builtin)
    if origin.get("kind") == "file" and resolved.origin.get("sha256") != origin.get("sha256"):
        complain(f"{name} has changed since {directory} was trained", "warning")
    return resolved


def _must_be_named(directory: Path, name: str, origin: Json, call: str) -> str:
    """Why a run of a user's own code is not rebuilt unasked, and what to do."""
    if origin.get("kind") == "file":
        return (
            f"{directory} was made by code of your own, which is not run unasked: "
            f"add --recipe {quoted(name)}"
        )
    run = f"eq.load({str(directory)!r}, recipe)"
    return (
        f"{directory} was made by a Python program, whose recipe is not in it: call {call.format(run=run)} there, "
        "or put the recipe into a function and add --recipe FILE.py:FUNCTION"
    )


def _build_without_data(resolved: Resolved, described: Json) -> Recipe:
    """The recipe with its data unread, or with them where the game or its conditions are made from them."""
    from equilibrist.data.absent import unread
    from equilibrist.files.atomic import json_ready

    built: Recipe
    try:
        with unread(described.get("data") or {}):
            built = resolved.build()
        same = json_ready(built.game.describe()) == described.get("game")
        if same and not isinstance(built.game.condition, tuple):
            return built
    except EquilibristError:
        pass  # the build below raises it again, or says what is wrong with the data
    built = resolved.build()
    return built
