"""Solvers from texts: "consensus", "consensus:gamma=10,batches=2", "alternating:critic_steps=5,lr=0.1"."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from equilibrist import solvers
from equilibrist._errors import RecipeError, did_you_mean
from equilibrist._resolve import convert
from equilibrist.optimizers import SGD

SOLVERS: dict[str, type] = {
    "simultaneous": solvers.Simultaneous,
    "alternating": solvers.Alternating,
    "consensus": solvers.Consensus,
    "extragradient": solvers.Extragradient,
    "past-extragradient": solvers.PastExtragradient,
    "optimistic": solvers.Optimistic,
    "symplectic": solvers.SymplecticAdjustment,
    "competitive": solvers.Competitive,
    "follow-the-ridge": solvers.FollowTheRidge,
    "unrolled": solvers.Unrolled,
    "lookahead": solvers.Lookahead,
    "implicit": solvers.Implicit,
}
_RULE = {"lr": float, "momentum": float}


def named(
    text: str,
    lr: float,
    players: Sequence[str],
    leader: str,
    defaults: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Any, str]:
    """(the solver of a text, with plain SGD of step `lr` unless the text has its own; its full name).

    Raises RecipeError for an unknown solver or option, with the closest one, and for refused values.
    """
    name, colon, rest = text.partition(":")
    if name not in SOLVERS:
        raise RecipeError(
            f"there is no solver {name!r}{did_you_mean(name, SOLVERS)}; choose from {', '.join(SOLVERS)}"
        )
    kind = SOLVERS[name]
    fields = {f.name for f in dataclasses.fields(kind)}
    hints = {k: t for k, t in typing.get_type_hints(kind).items() if k in fields}
    free = {k: t for k, t in hints.items() if _plain(t) and k not in ("leader", "follower")}
    options = dict((defaults or {}).get(name, {}))
    given: dict[str, str] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise RecipeError(f"--solver {text}: write options as {name}:key=value,key=value")
        if key not in free and key not in _RULE:
            known = [*free, *_RULE]
            raise RecipeError(
                f"--solver {text}: {name} has no option {key!r}{did_you_mean(key, known)}; it has "
                f"{', '.join(known)}"
            )
        if key in given:
            raise RecipeError(f"--solver {text}: {key} is given twice")
        given[key] = value
    options |= given
    values = {k: convert(v, free[k], f"{name}: {k}") for k, v in options.items() if k in free}
    rates = {k: convert(v, float, f"{name}: {k}") for k, v in options.items() if k in _RULE}
    if not rates.get("lr", 1.0) > 0:
        raise RecipeError(f"--solver {text}: lr must be positive")
    try:
        rule = SGD(**{"lr": lr, **rates})
        if kind is solvers.Lookahead:
            made: Any = solvers.Lookahead(solvers.Simultaneous(rule), **values)
        else:
            if {"leader", "follower"} <= fields:
                others = [p for p in players if p != leader]
                values |= {"leader": leader, "follower": others[0]}
            made = kind(optimizer=rule, **values)
    except ValueError as error:
        raise RecipeError(f"--solver {text}: {error}") from error
    said = ",".join(f"{k}={v}" for k, v in options.items())
    return made, f"{name}:{said}" if said else name


def _plain(kind: Any) -> bool:
    options = typing.get_args(kind) or (kind,)
    return all(option in (int, float, bool, type(None)) for option in options)
