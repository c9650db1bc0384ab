"""The checks by name, in the order of the ladder that an audit climbs."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from equilibrist.checks import (
    best_response,
    curvature,
    deviation,
    gaps,
    local_lambda,
    path_angle,
    selftests,
    spectrum,
    stationarity,
)
from equilibrist.checks.certificate import Certificate
from equilibrist.checks.context import AuditContext, Show, Tick
from equilibrist.checks.proximal import experiment, profile, search
from equilibrist.errors import RecipeError, did_you_mean


@dataclass
class Found:
    """What a check returns: certificates, sheets of samples by "claim:when"."""

    certificates: list[Certificate]
    sheets: dict[str, torch.Tensor] = field(default_factory=dict)


Run = Callable[[AuditContext, Tick, Show | None], Found]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: as `audit(..., checks=...)` has it.
        says: what it asks, in a line.
        work: about how many minibatch gradients it takes, for the progress bar and for announcing the
            cost; it may be wrong by a small factor.
        run: takes the context, a `Tick` and, where samples can be shown, a function from (players,
            constants) to a sheet of samples.
        default: whether an audit runs it by default.
        claims: the certificates that it gives, unless it gives just one under its own name.
        from_origin: whether it needs `context.origin`, the weights that training began with.
        any_number: whether it has a meaning for more than two players.
    """

    name: str
    says: str
    work: Callable[[AuditContext], float]
    run: Run
    default: bool = True
    claims: tuple[str, ...] = ()
    from_origin: bool = False
    any_number: bool = False


def _by_player(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{who}" for name in names for who in ("", "/generator", "/critic"))


def _plain(check: Callable[[AuditContext, Tick], list[Certificate]]) -> Run:
    """A check that shows no samples."""
    return lambda context, tick, show: Found(check(context, tick))


def _nash(context: AuditContext, tick: Tick, show: Show | None) -> Found:
    if not context.sampled and hasattr(context.game, "best_response"):
        return Found(best_response.exact_nash(context, tick))
    certificates, sheets = deviation.nash(context, tick, show)
    return Found(certificates, {f"nash/generator:{when}": s for when, s in sheets.items()})


REGISTRY: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            selftests.CLAIM,
            "are the losses functions of the weights, and the derivatives theirs?",
            selftests.planned_gradients,
            lambda context, tick, show: Found([selftests.self_tests(context, tick)]),
            any_number=True,
        ),
        Check(
            "stationary",
            "does either player still move?",
            stationarity.planned_gradients,
            _plain(stationarity.stationarity),
            claims=_by_player("stationary"),
            any_number=True,
        ),
        Check(
            "stable",
            "do the players stay when they are pushed a little?",
            spectrum.planned_gradients,
            _plain(spectrum.stable),
            any_number=True,
        ),
        Check(
            "local",
            "does a small move gain to second order, alone or after the critic's answer?",
            curvature.planned_gradients,
            _plain(curvature.local),
            claims=(*_by_player("local-nash"), "local-minimax"),
        ),
        Check(
            "proximal",
            "between Stackelberg and Nash, how proximal is it near the pair (local lambda*)?",
            local_lambda.planned_gradients,
            _plain(local_lambda.proximal),
        ),
        Check(
            "nash",
            "does either player gain by deviating alone?",
            deviation.planned_gradients,
            _nash,
            claims=_by_player("nash"),
            any_number=True,
        ),
        Check(
            search.CLAIM,
            "up to which lambda is it a proximal equilibrium, as far as a search can tell?",
            search.planned_gradients,
            _plain(search.lambda_search),
            default=False,
        ),
        Check(
            profile.CLAIM,
            "what does the generator gain at each lambda, from Stackelberg to Nash?",
            profile.planned_gradients,
            _plain(profile.equilibrium_profile),
            default=False,
        ),
        Check(
            experiment.CLAIM,
            "does V_prox hold when the generator alone is optimised (Farnia and Ozdaglar 2020)?",
            experiment.planned_gradients,
            lambda context, tick, show: Found(*experiment.experiment(context, tick, show)),
            default=False,
        ),
        Check(
            path_angle.CLAIM,
            "along the path from where training began, does the field come to rest here?",
            path_angle.planned_gradients,
            _plain(path_angle.path_angle),
            default=False,
            from_origin=True,
        ),
        Check(
            "gaps",
            "how large are the duality gap and the proximal duality gap?",
            gaps.planned_gradients,
            _plain(gaps.duality_gaps),
            default=False,
            claims=tuple(gaps.CLAIMS),
        ),
    )
}
CHECKS = tuple(name for name, check in REGISTRY.items() if check.default)


GROUP = "equilibrist.checks"  # of entry points: functions without arguments that return a `Check`


def register(check: Check) -> Check:
    """Make a check of your own known by its name: `audit(..., checks=["its-name"])`, and `--check its-name`.

    The command finds those that an installed package offers under the entry point group "equilibrist.checks".

    Raises:
        ValueError: The name, or a claim, is taken.
    """
    taken = {claim for known in REGISTRY.values() for claim in (known.claims or (known.name,))}
    for name in (check.name, *check.claims):
        if name in REGISTRY or name in taken:
            raise ValueError(f"there is a check or a claim {name!r} already")
    REGISTRY[check.name] = check
    return check


@functools.cache
def _load_offered() -> None:
    """Register what installed packages offer, once."""
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name not in REGISTRY:
            register(entry.load()())


def named_checks(checks: Sequence[str]) -> tuple[str, ...]:
    """The checks of these names in the ladder's order; RecipeError for an unknown name."""
    if isinstance(checks, str):
        checks = (checks,)
    if any(check not in REGISTRY for check in checks):
        _load_offered()
    for check in checks:
        if check not in REGISTRY:
            hint = did_you_mean(check, tuple(REGISTRY))
            raise RecipeError(
                f"there is no check {check!r}{hint}; choose from {', '.join(REGISTRY)}"
            )
    return tuple(name for name in REGISTRY if name in checks)
