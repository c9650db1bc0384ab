"""Docstrings of the public names: sections of Google's style that name what there is."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

import equilibrist as eq

# Functions whose docstring says in its prose alone what they return: take a name away, add none.
IN_PROSE = {"audit", "checks.audit_game", "checks.audit_mixed", "checks.register", "load", "train"}


def public() -> Iterator[tuple[str, Any]]:
    """Every public class and function once, by the first name that it is offered under."""
    seen = set()
    for package in ("", *eq._MODULES):
        home = importlib.import_module(f"equilibrist.{package}".rstrip("."))
        names = getattr(home, "__all__", None) or [
            name
            for name, value in vars(home).items()
            if getattr(value, "__module__", "") == home.__name__
        ]
        for name in sorted(names):
            value = getattr(home, name)
            plain = inspect.isclass(value) or inspect.isfunction(value)
            if plain and not name.startswith("_") and value not in seen:
                seen.add(value)
                yield f"{package}.{name}".lstrip("."), value


PUBLIC = dict(public())


def section(text: str, head: str) -> str:
    """What stands under a head, without it; empty where there is none."""
    found = re.search(rf"^{head}:\n((?: .*\n|\n)*)", inspect.cleandoc(text) + "\n", re.M)
    return found[1] if found else ""


def arguments(text: str, head: str) -> list[str]:
    """The names that a section describes; several may share a line."""
    entries = re.findall(r"^ {4}(?! )([^:\n]+):", section(text, head), re.M)
    return [name.strip("`* ") for entry in entries for name in entry.split(",")]


@cache
def known(value: Any) -> set[str]:
    """Parameters, and of a class what its instances have."""
    names = set()
    with contextlib.suppress(TypeError, ValueError):
        names |= {*inspect.signature(value).parameters}
    if inspect.isclass(value):
        for one in value.__mro__:
            names |= {*vars(one), *getattr(one, "__annotations__", {})}
            source = inspect.getsource(one) if one.__module__.startswith("equilibrist") else ""
            names |= {*re.findall(r"self\.(\w+)\b", source)}
    return names


@pytest.mark.parametrize("name", PUBLIC)
def test_there_is_one_and_its_sections_name_what_there_is(name: str) -> None:
    value = PUBLIC[name]
    text = value.__doc__ or ""
    assert text.strip(), "no docstring"
    other = re.findall(r"^ *(?:Arguments|Parameters|Return|Raise|Example):$", text, re.M)
    assert not other, "the site knows Args, Attributes, Returns, Raises and Examples"
    for head in ("Args", "Attributes"):
        unknown = [a for a in arguments(text, head) if a not in known(value)]
        assert not unknown, f"{head} describes {unknown}"


@pytest.mark.parametrize("name", [n for n, v in PUBLIC.items() if inspect.isfunction(v)])
def test_a_function_that_returns_something_says_or_shows_what(name: str) -> None:
    value = PUBLIC[name]
    if value.__annotations__.get("return") in (None, "None") or inspect.isgeneratorfunction(value):
        return
    text = value.__doc__ or ""
    assert name in IN_PROSE or section(text, "Returns").strip() or ">>> " in text
