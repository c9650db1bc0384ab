"""From a recipe's name and settings, as typed, to a recipe.

Recipes are plain functions with typed keyword parameters that return a `Recipe`. Packages offer
them under the entry-point group `equilibrist.recipes` (a mapping from names to functions); a user's
own is named as `file.py:function`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from equilibrist.arguments import close_to, convert, parameters
from equilibrist.certificates import Json
from equilibrist.errors import EquilibristError, RecipeError

if TYPE_CHECKING:
    from equilibrist.run.recipe import Recipe

ENDED_PROGRAM = "ended the program (sys.exit) instead of returning"
"""What a function of a user's did whose SystemExit would end the command in silence, and as a success."""


@dataclass(frozen=True)
class Resolved:
    """A recipe's function with all its settings: `build()` gives the `Recipe`."""

    name: str
    function: Callable[..., object]
    settings: Json
    origin: Json

    def build(self) -> Recipe:
        """Call the function. Values that it refuses become a `RecipeError`."""
        from equilibrist.run.recipe import Recipe

        try:
            recipe = self.function(**self.settings)
        except EquilibristError:
            raise
        except SystemExit as error:
            where = error_in_one_line(error, self.origin.get("path", ""))
            raise RecipeError(f"recipe {self.name} {ENDED_PROGRAM} a Recipe: {where}") from error
        except Exception as error:  # whatever a user's function does wrong is one line to its user
            raise RecipeError(
                f"recipe {self.name} fails on its settings: {error_in_one_line(error, self.origin.get('path', ''))}"
            ) from error
        if not isinstance(recipe, Recipe):
            raise RecipeError(
                f"recipe {self.name} returns {type(recipe).__name__}: it must return a Recipe"
            )
        return recipe


def catalogue() -> dict[str, Callable[..., object]]:
    """All recipes that installed packages offer, by name."""
    found: dict[str, Callable[..., object]] = {}
    for entry in importlib.metadata.entry_points(group="equilibrist.recipes"):
        found.update(entry.load())
    return found


def resolve(
    name: str,
    settings: Mapping[str, object] | None = None,
    *,
    builtin: bool = False,
    complete: bool = True,
) -> Resolved:
    """The recipe `name` with `settings` (values, or text as typed after --set) over its defaults.

    Args:
        name: of the catalogue, or file.py:function.
        settings: by name.
        builtin: only the catalogue counts: a name read from a file must never have code executed.
        complete: refuse a setting without default that was not given.

    Returns:
        The recipe, with its settings and where it came from.

    Raises:
        RecipeError: an unknown name or setting, with the closest ones; a value of another type than the
            parameter's; where `complete`, a setting without default that was not given.

    Examples:
        >>> import equilibrist as eq
        >>> found = eq.resolve("digits-sngan", {"steps": "50"})
        >>> found.settings["steps"]
        50
    """
    if not builtin and (":" in name or name.endswith(".py")):
        function, origin = from_file(name)
    else:
        offered = catalogue()
        if name not in offered:
            raise RecipeError(
                f"there is no recipe {name!r}{close_to(name, list(offered))}; `equilibrist list` shows them all, "
                "and your own is named as file.py:function"
            )
        function, origin = offered[name], {"kind": "builtin"}
    known = parameters(function)
    values = {
        key: p.default for key, p in known.items() if p.default is not inspect.Parameter.empty
    }
    for key, value in (settings or {}).items():
        if key not in known:
            raise RecipeError(
                f"recipe {name} has no setting {key!r}{close_to(key, list(known))}; it has {', '.join(known) or 'none'}"
            )
        values[key] = convert(value, known[key].annotation, f"{name}: {key}")
    missing = [key for key in known if key not in values]
    if missing and complete:
        raise RecipeError(
            f"recipe {name} needs a value for {missing[0]}: add --set {missing[0]}=..."
        )
    return Resolved(name, function, {key: values[key] for key in known if key in values}, origin)


def from_file(name: str) -> tuple[Callable[..., object], Json]:
    """Execute a user's file and find the function in it.

    Args:
        name: The function, as `file.py:function`.

    Returns:
        The function, and its origin as a run's manifest keeps it: kind, path and SHA-256 of the file.

    Raises:
        RecipeError: The name, the file or the function does not exist, or the file fails on import.
    """
    file, _, attribute = name.rpartition(":")
    if not file or not attribute:
        raise RecipeError(f"{name!r} names no function: write it as file.py:function")
    path = Path(file)
    try:
        found = path.is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        found = False
    if not found:
        raise RecipeError(
            f"{file} does not exist: give the path of a Python file that defines {attribute}"
        )
    spec = importlib.util.spec_from_file_location(f"_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{file} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)  # as `python file.py` would: the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{file} fails on import: {error_in_one_line(error, file)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        offered = [
            n
            for n, f in vars(module).items()
            if inspect.isfunction(f) and f.__module__ == spec.name
        ]
        raise RecipeError(f"{file} defines no function {attribute!r}{close_to(attribute, offered)}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return function, {"kind": "file", "path": str(path), "sha256": digest}


def error_in_one_line(error: BaseException, file: str) -> str:
    """An error of a user's code on one line: its whole message, where in the user's file it arose, and what
    usually helps.

    Args:
        error: what was raised.
        file: the path of the user's file, "" where there is none.
    """
    text = " ".join(str(error).split()) or "no message"
    # A ValueError is a function's own word to its caller; anything else needs its name.
    if not isinstance(error, ValueError):
        text = f"{type(error).__name__}: {text}"
    frames = traceback.extract_tb(error.__traceback__) if file else []
    own = [f for f in frames if Path(f.filename).absolute() == Path(file).absolute()]
    if own:
        last = own[-1]
        inside = "" if last.name == "<module>" else f", in {last.name}"
        text += f" ({file}, line {last.lineno}{inside}: {last.line})"
    return text + _prefix_hint(text)


def _prefix_hint(text: str) -> str:
    """What to do where a state_dict does not fit because a module, or a part of it, was wrapped when it was saved."""
    if "loading state_dict" not in text:
        return ""
    missing, _, unexpected = text.partition("Unexpected key(s)")
    for keys, saved in ((unexpected, True), (missing, False)):
        compiled = "_orig_mod." in keys
        parallel = re.search(r'"(_orig_mod\.)?module\.', keys) is not None
        if not (compiled or parallel):
            continue
        names = {"DistributedDataParallel": parallel, "torch.compile": compiled}
        wrapper = " and ".join(name for name, there in names.items() if there)
        if not saved:
            return f"; the module here is inside {wrapper}, the checkpoint's was not: load into its inner one"
        # torch.compile's name may stand within a key, for a part that was compiled by itself.
        plain = (
            "k" + ".replace('_orig_mod.', '')" * compiled + ".removeprefix('module.')" * parallel
        )
        return (
            f"; the checkpoint was saved from a module inside {wrapper}: load "
            f"{{{plain}: v for k, v in state.items()}}"
        )
    return ""
