"""Settings of a function by name: which there are, and values from what was typed."""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from equilibrist.errors import RecipeError, did_you_mean


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """A recipe's settings: its parameters, with their types resolved."""
    try:
        # Not the return type: recipes name Recipe there without importing torch.
        own = {k: t for k, t in function.__annotations__.items() if k != "return"}
        hints = typing.get_type_hints(
            types.SimpleNamespace(__annotations__=own), getattr(function, "__globals__", {})
        )
    except (NameError, TypeError) as error:
        raise RecipeError(
            f"recipe {function.__name__} has a type that cannot be read: {error}"
        ) from None
    return {
        key: p.replace(annotation=hints.get(key, type(p.default) if p.default is not None else str))
        for key, p in inspect.signature(function).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def convert(value: object, kind: Any, what: str) -> Any:
    """`value`, or the text of it, as `kind`: int, float, bool, str, a Literal, or one of these or None."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if type(None) in options and (value is None or value == "none"):
            return None
        for option in (o for o in options if o is not type(None)):
            try:
                return convert(value, option, what)
            except RecipeError:
                continue
        raise RecipeError(f"{what}={_text(value)} is not {_name(kind)}")
    if origin is typing.Literal:
        choices = typing.get_args(kind)
        for choice in choices:
            if value == choice or _text(value) == str(choice):
                return choice
        hint = close_to(_text(value), [str(c) for c in choices])
        raise RecipeError(
            f"{what}={_text(value)} is not one of {', '.join(map(str, choices))}{hint}"
        )
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
    elif kind is str and isinstance(value, str):
        return value
    elif kind in (int, float) and not isinstance(value, bool):
        try:
            number = kind(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if kind is int and isinstance(number, int):
            return number
        if kind is float and isinstance(number, int | float) and number - number == 0:
            with contextlib.suppress(OverflowError):  # a whole number beyond the largest float
                return float(number)
    elif kind not in (int, float, str, bool):
        return value
    raise RecipeError(f"{what}={_text(value)} is not {_name(kind)}")


def _text(value: object) -> str:
    """The value as a message may show it."""
    try:
        text = str(value)
    except ValueError:  # Python writes no whole number of more than some thousand digits
        return "a number of too many digits"
    return text if len(text) <= 100 else text[:97] + "..."


def close_to(word: str, options: list[str]) -> str:
    return did_you_mean(word, options, n=2, cutoff=0.5)


def _name(kind: Any) -> str:
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    options = typing.get_args(kind)
    if options:
        return " or ".join(_name(o) for o in options if o is not type(None)) + (
            " or none" if type(None) in options else ""
        )
    return names.get(kind, getattr(kind, "__name__", str(kind)))
