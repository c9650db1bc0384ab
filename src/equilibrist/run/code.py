"""Which code a run was made by: checksums of the classes and functions that define its game.

Sizes and settings are in the record anyway; a `forward` that computes something else is not. Counted
are a user's own classes (networks, losses, penalties, rules) and the functions of theirs that they
call by name, wherever their source can be had. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import TypeGuard

from torch import nn

from equilibrist.certificates import Json
from equilibrist.run.recipe import Recipe

# Their versions are recorded: their code is not a user's.
_GIVEN = {"torch", "numpy", "equilibrist", "equilibrist_recipes", *sys.stdlib_module_names}
Part = type | types.FunctionType
_PLAIN = (int, float, str, bytes, bool, type(None))


def sources(recipe: Recipe) -> dict[str, str]:
    """Checksum by name of what defines `recipe`; what has no source that can be read is left out."""
    game = recipe.game
    roots = [*game.modules.values(), game.formulation, recipe.solver, game.latent]
    for name in ("penalties", "projections", "auxiliary"):
        roots += getattr(game, name, ())
    found: dict[str, str] = {}
    seen: set[Part] = set()
    waiting = [part for root in roots for part in _parts(root)]
    while waiting:
        part = waiting.pop()
        if part in seen or not _own(part):
            continue
        seen.add(part)
        text, called = _text(part), [*_called(part)]
        waiting += [value for _, value in called if _own(value)]
        waiting += part.__mro__ if isinstance(part, type) else ()
        if text is not None:
            constants = sorted(f"{n}={v!r}" for n, v in called if isinstance(v, (*_PLAIN, tuple)))
            whole = "\n".join([text, *constants, found.get(part.__qualname__, "")])
            found[part.__qualname__] = hashlib.sha256(whole.encode()).hexdigest()[:16]
    return dict(sorted(found.items()))


def changes(was: Json, now: Json) -> list[str]:
    """What two manifests say of the code that differs, by name."""
    pairs = [(m.get("code") or {}, (m.get("origin") or {}).get("sha256")) for m in (was, now)]
    (before, file), (after, new_file) = pairs
    names = [name for name in before if name in after and before[name] != after[name]]
    if not names and file and new_file and file != new_file:
        names.append(str((now.get("origin") or {}).get("path", "its file")))
    return names


def _parts(value: object) -> Iterator[Part]:
    """The classes and functions of which a value is made."""
    if isinstance(value, nn.Module):
        for module in value.modules():
            yield type(module)
            yield from (v for v in vars(module).values() if isinstance(v, types.FunctionType))
    elif isinstance(value, types.FunctionType):
        yield value
    else:
        yield type(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                yield from _parts(getattr(value, field.name))
        elif isinstance(value, dict):
            for entry in value.values():
                yield from _parts(entry)
        elif isinstance(value, list | tuple):
            for entry in value:
                yield from _parts(entry)


def _own(part: object) -> TypeGuard[Part]:
    module = getattr(part, "__module__", None)
    kind = isinstance(part, type | types.FunctionType)
    return kind and isinstance(module, str) and module.partition(".")[0] not in _GIVEN


def _called(part: Part) -> Iterator[tuple[str, object]]:
    """What a class's methods, or a function, refer to by a global name."""
    for function in _functions(part):
        names = set(_names(function.__code__))
        for name in names & function.__globals__.keys():
            value = function.__globals__[name]
            if isinstance(value, types.ModuleType):
                for inner in names & vars(value).keys():
                    if isinstance(vars(value)[inner], type | types.FunctionType):
                        yield inner, vars(value)[inner]
            elif isinstance(value, (type, types.FunctionType, *_PLAIN)) or _plain(value):
                yield name, value


def _plain(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(entry, _PLAIN) for entry in value)


def _functions(part: Part) -> Iterator[types.FunctionType]:
    if isinstance(part, types.FunctionType):
        yield part
        return
    for value in vars(part).values():
        inner = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
        if isinstance(inner, types.FunctionType):
            yield inner


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _text(part: Part) -> str | None:
    """The source without comments, docstrings and layout."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            held = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            if held and isinstance(first.value.value, str):  # type: ignore[attr-defined]
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
