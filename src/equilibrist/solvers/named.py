"""Solvers by name: "consensus:gamma=10,batches=2" around the update rules of a recipe's own solver."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Literal, cast

from equilibrist.arguments import convert
from equilibrist.errors import RecipeError, did_you_mean
from equilibrist.langevin import SGLD, LangevinRule, RMSPropSGLD
from equilibrist.optimizers import SGD, Optimizer
from equilibrist.schedules import base
from equilibrist.solvers.alternating import Alternating
from equilibrist.solvers.anchored import AnchoredExtragradient
from equilibrist.solvers.averaged import Averaged, Kind
from equilibrist.solvers.base import Solver
from equilibrist.solvers.competitive import Competitive
from equilibrist.solvers.consensus import Consensus
from equilibrist.solvers.extragradient import Extragradient, PastExtragradient
from equilibrist.solvers.lookahead import Lookahead
from equilibrist.solvers.mirror import MirrorGAN, MirrorProxGAN, Pairing
from equilibrist.solvers.optimistic import Optimistic
from equilibrist.solvers.proximal import Proximal
from equilibrist.solvers.ridge import FollowTheRidge
from equilibrist.solvers.simultaneous import Simultaneous
from equilibrist.solvers.symplectic import SymplecticAdjustment
from equilibrist.solvers.unrolled import Unrolled

OWN = "recipe"
NAMES: Mapping[str, type[Any]] = {
    "alternating": Alternating,
    "anchored": AnchoredExtragradient,
    "competitive": Competitive,
    "consensus": Consensus,
    "extragradient": Extragradient,
    "lookahead": Lookahead,
    "mirror": MirrorGAN,
    "mirror-prox": MirrorProxGAN,
    "optimistic": Optimistic,
    "past-extragradient": PastExtragradient,
    "proximal": Proximal,
    "ridge": FollowTheRidge,
    "simultaneous": Simultaneous,
    "symplectic": SymplecticAdjustment,
    "unrolled": Unrolled,
}
_SIMPLE = (int, float, bool)
_ROLES = ("leader", "follower")
# What every name takes in addition to its own keys and lr; "none" leaves averages out.
_AVERAGE: Mapping[str, Any] = {
    "average": Kind | None,
    "average.decay": float,
    "average.start": int,
}


def solver_from_text(text: str, own: Solver) -> Solver:
    """The solver that `text` names, with the update rules of `own`.

    `text` is NAME or NAME:key=value,key=value. NAME is one of `NAMES`, or "recipe": `own` itself. Keys are
    the solver's hyperparameters (`options(name)`), and `lr`, which replaces the step size of every
    player's rule (`lr.critic` that of one). "mirror" and "mirror-prox" take `noise` too: their Langevin rules
    have the rules' step sizes, preconditioned as RMSProp is unless the rule is SGD. "anchored" moves by SGD
    alone: where the rules are others, give it `lr`. "lookahead" goes around
    `own`. Where `own` keeps averages (`Averaged`), so does the result: samples and scores then come from
    the same kind of iterate. `average` says otherwise: none, exponential (`average.decay`), uniform or tail
    (`average.start`), of the players that `own` averages, or else of the generator.

    Raises:
        RecipeError: an unknown name or key (with the closest ones), a value of another type or out of
        its range, in one line.
    """
    name, _, tail = text.partition(":")
    if name != OWN and name not in NAMES:
        known = [OWN, *NAMES]
        raise RecipeError(
            f"there is no solver {name!r}{did_you_mean(name, known)}; choose from {', '.join(known)}"
        )
    given = _pairs(text, tail)
    inner = own
    while isinstance(inner, Averaged):
        inner = inner.solver
    kinds = options(name)
    values: dict[str, Any] = {}
    rates: dict[str, float] = {}
    means: dict[str, Any] = {}
    for key, value in given.items():
        if key in _AVERAGE:
            means[key] = convert(value, _AVERAGE[key], f"{name}: {key}")
        elif key == "lr" or key.startswith("lr."):
            rates[key.removeprefix("lr").removeprefix(".")] = convert(
                value, float, f"{name}: {key}"
            )
        elif key in kinds:
            values[key] = convert(value, kinds[key], f"{name}: {key}")
        else:
            known = [*kinds, "lr", *_AVERAGE]
            raise RecipeError(
                f"solver {name} has no {key!r}{did_you_mean(key, known)}; it has {', '.join(known)}"
            )
    try:
        return _averaged(own, _made(name, values, _with_rates(inner, rates, name)), means)
    except ValueError as error:  # a number out of its range
        raise RecipeError(f"solver {text}: {error}") from error


def options(name: str) -> dict[str, Any]:
    """The hyperparameters of the solver `name` that text can set, with their types."""
    if name == OWN:
        return {}
    kinds = typing.get_type_hints(NAMES[name])
    kinds |= {role: Literal["generator", "critic"] for role in _ROLES if role in kinds}
    simple = {key: kind if key in _ROLES else _simple(kind) for key, kind in kinds.items()}
    found = {
        f.name: simple[f.name]
        for f in dataclasses.fields(NAMES[name])
        if simple[f.name] is not None
    }
    return found | ({"noise": float, "pairing": Pairing} if _mirrors(name) else {})


def _mirrors(name: str) -> bool:
    return issubclass(NAMES[name], MirrorGAN)


def _heated(rule: Optimizer, noise: float | None) -> LangevinRule:
    """The Langevin rule with this rule's step size."""
    plain = base(rule)
    lr = getattr(plain, "lr", None)
    if lr is None:
        raise ValueError(f"{plain} has no step size for Langevin dynamics: give one with lr")
    kind: Any = SGLD if isinstance(plain, SGD) else RMSPropSGLD
    return cast(LangevinRule, kind(lr) if noise is None else kind(lr, noise))


def _simple(kind: Any) -> Any:
    """The numbers among a type's alternatives (a weight may also be a tuple, one a member); None if none."""
    parts = typing.get_args(kind) or (kind,)
    kept = [part for part in parts if part in (*_SIMPLE, type(None))]
    return typing.Union[tuple(kept)] if any(part in _SIMPLE for part in kept) else None  # noqa: UP007


def _pairs(text: str, tail: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for piece in tail.split(",") if tail else []:
        key, equals, value = (part.strip() for part in piece.partition("="))
        if not key or not equals or not value:
            raise RecipeError(f"solver {text}: write it as NAME:key=value,key=value")
        if key in pairs:
            raise RecipeError(f"solver {text}: {key} is given twice")
        pairs[key] = value
    return pairs


def _made(name: str, values: dict[str, Any], inner: Solver) -> Solver:
    if name == OWN:
        return inner
    if name == "lookahead":
        return Lookahead(inner, **values)
    rules: dict[str, Any] = {}
    while isinstance(inner, MirrorGAN) or not hasattr(inner, "optimizer"):
        if isinstance(inner, MirrorGAN):
            return _from_mirror(name, values, inner)
        if not hasattr(inner, "solver"):
            raise RecipeError(
                f"{type(inner).__name__} has no update rules that solver {name} could take over: build "
                "that solver in Python"
            )
        inner = inner.solver
    rules["optimizer"] = inner.optimizer
    rules["optimizers"] = getattr(inner, "optimizers", {})
    rule = rules["optimizer"]
    if _mirrors(name):
        noise = values.pop("noise", None)
        heated = {player: _heated(own, noise) for player, own in rules["optimizers"].items()}
        return cast(Solver, NAMES[name](_heated(rule, noise), heated, **values))
    if name == "competitive" and "eta" not in values and not hasattr(rule, "lr"):
        values["eta"] = getattr(base(rule), "lr", None)  # the step size inside of its clipping
    solver: Any = NAMES[name](**rules, **values)
    if hasattr(solver, "leader") and solver.leader == solver.follower:
        raise ValueError(f"leader and follower are both the {solver.leader}")
    return cast(Solver, solver)


def _from_mirror(name: str, values: dict[str, Any], own: MirrorGAN) -> Solver:
    """Mirror solvers keep the Langevin rules of a recipe that has them; others take these rules without noise."""
    if not _mirrors(name):
        rules = {player: own.rule(player) for player in own.samplers}
        return _made(name, values, Simultaneous(own.sampler.cold, rules))
    heat = {"noise": values.pop("noise")} if "noise" in values else {}
    samplers: Any = {player: dataclasses.replace(s, **heat) for player, s in own.samplers.items()}  # type: ignore[type-var]
    sampler: Any = dataclasses.replace(own.sampler, **heat)  # type: ignore[type-var]
    kept = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
    return cast(Solver, NAMES[name](**(kept | values | {"sampler": sampler, "samplers": samplers})))


def _with_rates(solver: Any, rates: dict[str, float], name: str) -> Any:
    """The solver with these step sizes, for solver `name`: by player's name, "" for all."""
    if not rates:
        return solver
    common, by_name = (
        ("sampler", "samplers") if isinstance(solver, MirrorGAN) else ("optimizer", "optimizers")
    )
    if not hasattr(solver, common):
        if not hasattr(solver, "solver"):
            raise RecipeError(f"{type(solver).__name__} has no update rules whose lr could be set")
        return dataclasses.replace(solver, solver=_with_rates(solver.solver, rates, name))
    plain = name == "anchored" and common == "optimizer"
    rule, rules = getattr(solver, common), dict(getattr(solver, by_name, {}))
    if "" in rates:
        rule = _rate(rule, rates[""], plain)
        rules = {player: _rate(own, rates[""], plain) for player, own in rules.items()}
    for player in (p for p in rates if p):
        if player not in ("generator", "critic"):
            raise RecipeError(f"lr.{player} names no player: choose lr.generator or lr.critic")
        rules[player] = _rate(rules.get(player, rule), rates[player], plain)
    return dataclasses.replace(solver, **{common: rule, by_name: rules})


def _rate(rule: Any, lr: float, plain: bool) -> Any:
    """The rule with this step size, inside of schedules and clipping; SGD in its place if `plain`."""
    if hasattr(rule, "rule"):
        return dataclasses.replace(rule, rule=_rate(rule.rule, lr, plain))
    if not hasattr(rule, "lr"):
        raise RecipeError(f"{rule} has no step size lr that could be set")
    return SGD(lr) if plain else dataclasses.replace(rule, lr=lr)


def _averaged(own: Solver, solver: Solver, means: dict[str, Any]) -> Solver:
    """The averages that the text asks for, or else those that `own` keeps, around the solver."""
    if not means:
        return _around(own, solver)
    kind = means.get("average")
    for key, needed in (("average.decay", "exponential"), ("average.start", "tail")):
        if key in means and kind != needed:
            raise ValueError(f"{key} needs average={needed}: add it")
    if kind is None:
        return solver
    # What the text leaves open is as `own` has it.
    made = own if isinstance(own, Averaged) and own.kind == kind else None
    made = made or Averaged(
        solver,
        players=own.players if isinstance(own, Averaged) else ("generator",),
        kind=kind,
        start=means.get("average.start", 0),
    )
    given = {key.removeprefix("average."): v for key, v in means.items() if key != "average"}
    return dataclasses.replace(made, solver=solver, **given)


def _around(own: Solver, solver: Solver) -> Solver:
    """The averages that `own` keeps, around the solver."""
    if isinstance(own, Averaged):
        return dataclasses.replace(own, solver=_around(own.solver, solver))
    return solver
