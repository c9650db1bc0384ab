"""N6, an open question: which equilibrium does each training method reach?

Every method is tuned on a grid of six settings and trained at equal compute, and every pair is audited.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from equilibrist.certificates import Json
from equilibrist.checks import audit
from equilibrist.errors import EquilibristError, NonFiniteError
from equilibrist.files.atomic import write_json
from equilibrist.files.reading import parse_json
from equilibrist.papers.looks import looks
from equilibrist.papers.model import (
    Measures,
    Size,
    Unit,
    Workspace,
)
from equilibrist.papers.training import last, relative_cost, seed_folder, taken_up, train_seeds
from equilibrist.recipe_lookup import resolve
from equilibrist.run.recipe import Recipe
from equilibrist.scores import MixtureQuality, Score
from equilibrist.solvers import Solver
from equilibrist.solvers.named import solver_from_text

BASELINE = "alternating"
TUNING = 1000  # the seed of the grid, which the table does not use
RATES = (0.3, 1.0, 3.0)
WIDE_RATES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
PROX_LAMBDA = 0.1  # of section 6.1
PROFILE = {
    "prox_lambdas": (PROX_LAMBDA, 1.0),
    "prox_steps": 12,
    "prox_starts": 1,
    "inner_steps": 20,
}


class Method(NamedTuple):
    """A solver's name and two values of what it has to choose; without any, six step sizes are tried."""

    solver: str
    key: str = ""
    values: tuple[float, ...] = ()

    def grid(self) -> list[tuple[float, str]]:
        """(factor of the step size, solver's text), six of them."""
        if not self.key:
            return [(rate, self.solver) for rate in WIDE_RATES]
        return [(rate, f"{self.solver}:{self.key}={v:g}") for v in self.values for rate in RATES]


METHODS = {
    "simultaneous": Method("simultaneous"),
    "alternating": Method("alternating", "critic_steps", (1, 5)),
    "extragradient": Method("extragradient"),
    "past extragradient": Method("past-extragradient"),
    "optimistic": Method("optimistic"),
    "consensus": Method("consensus", "gamma", (0.1, 1.0)),
    "symplectic": Method("symplectic", "strength", (0.3, 1.0)),
    "competitive": Method("competitive"),
    "follow the ridge": Method("ridge"),
    "unrolled": Method("unrolled", "unroll", (2, 5)),
    "proximal": Method("proximal", "lam", (0.1, 1.0)),
    "lookahead": Method("lookahead", "period", (5, 20)),
    "averaged": Method("recipe:average=exponential", "", ()),
    "mirror": Method("mirror", "inner", (2, 5)),
    "mirror-prox": Method("mirror-prox", "inner", (2, 5)),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """A domain at a size: its recipe, the compute of a run in steps of alternating descent, and how it is audited."""

    recipe: str
    settings: Json
    steps: int
    seeds: tuple[int, ...]
    gradients: int
    minutes: float

    def made(self) -> Recipe:
        """The recipe."""
        found: Recipe = resolve(self.recipe, self.settings, builtin=True).build()
        return found

    def scores(self, weights: Path | None) -> tuple[Score, ...]:
        """What tells good samples from bad ones; the first figure of the last one decides."""
        if self.recipe == "eight-gaussians":
            return (MixtureQuality(transport=500),)
        return looks(self.recipe.partition("-")[0], weights)


_PLANE = {"width": 32, "depth": 2, "batch": 128, "sigma": 0.05, "lr": 1e-3, "saturating": False}
DOMAINS: dict[Size, dict[str, Scale]] = {
    "tiny": {
        "plane": Scale("eight-gaussians", _PLANE, 6000, tuple(range(5)), 800, 6),
        "digits": Scale("digits-sngan", {"dim": 8, "latent": 16}, 3000, tuple(range(5)), 800, 12),
    },
    "small": {
        "mnist": Scale("mnist-sngan", {"dim": 16}, 5000, tuple(range(5)), 800, 55),
    },
    "paper": {
        "mnist": Scale("mnist-sngan", {"dim": 64}, 200_000, tuple(range(5)), 4000, 40_000),
    },
}


def units(size: Size) -> tuple[Unit, ...]:
    """A unit a domain and method; the baseline first."""
    order = [BASELINE, *(name for name in METHODS if name != BASELINE)]
    return tuple(
        Unit(
            f"{domain}-{name.replace(' ', '-')}",
            f"{domain}: {name}, tuned, {len(scale.seeds)} seeds, audited",
            scale.minutes,
            partial(_reach, scale, METHODS[name]),
        )
        for domain, scale in DOMAINS[size].items()
        for name in order
    )


def _reach(scale: Scale, method: Method, place: Workspace) -> Measures:
    base = scale.made()
    scores = scale.scores(place.weights)
    chosen = _tuned(scale, base, method, scores, place)
    if chosen["solver"] is None:
        return {"tuning": chosen, "seeds": {}, "pairs": {}}
    solver = _solver(base, chosen["solver"], chosen["rate"])
    steps = _steps(scale.steps, chosen["cost"])
    made = dataclasses.replace(base, solver=solver, steps=steps)
    inner = dataclasses.replace(place, runs=place.runs / "trained")
    found = train_seeds(inner, made, scale.seeds, scores=scores, looks=10, stacked=True)
    pairs = {
        str(seed): _audited(inner, made, scores, seed, scale.gradients)
        for seed in scale.seeds
        if found["seeds"][str(seed)]["diverged"] is None
    }
    return {**found, "tuning": chosen, "steps": steps, "pairs": pairs}


def _steps(budget: float, cost: float) -> int:
    """As many steps as the budget of reference steps pays for, to two digits: costs are measured."""
    steps = max(1.0, budget / max(cost, 1e-9))
    digits = max(0, int(math.log10(steps)) - 1)
    return int(round(steps / 10**digits) * 10**digits)


def _solver(base: Recipe, text: str, rate: float) -> Solver:
    lr = base.solver.optimizer.lr  # type: ignore[attr-defined]
    joined = "," if ":" in text else ":"
    return solver_from_text(f"{text}{joined}lr={lr * rate:g}", base.solver)


def _tuned(
    scale: Scale, base: Recipe, method: Method, scores: Sequence[Score], place: Workspace
) -> Json:
    """The setting whose samples are best after a quarter of the budget, on a seed of its own. Kept beside the runs."""
    path = place.runs / "tuning.json"
    if path.exists():
        held: Json = parse_json(path.read_bytes())
        return held
    tried: list[Json] = []
    for i, (rate, text) in enumerate(method.grid()):
        solver = _solver(base, text, rate)
        made = dataclasses.replace(base, solver=solver)
        try:
            cost = relative_cost(made)["ratio"]
            made = dataclasses.replace(made, steps=_steps(scale.steps / 4, cost))
            there = dataclasses.replace(place, runs=place.runs / f"grid_{i}")
            found = train_seeds(there, made, (TUNING,), scores=scores[:1], looks=3)
        except NonFiniteError:
            tried.append({"solver": text, "rate": rate, "score": None})
            continue
        one = found["seeds"][str(TUNING)]
        name = deciding(one["scores"])
        tried.append({"solver": text, "rate": rate, "cost": cost, "score": last(one, name)})
    sound = [one for one in tried if one["score"] is not None]
    none: Json = {"solver": None, "rate": None}
    best = min(sound, key=lambda one: float(one["score"])) if sound else none
    chosen = {**best, "tried": tried}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, chosen)
    return chosen


def deciding(names: Iterable[str]) -> str:
    """The figure that says how good samples are; lower is better for all of them."""
    for part in ("features", "frechet_distance", "w2", "W2", "transport"):
        for name in names:
            if part in name:
                return str(name)
    return next(iter(names), "")


def _audited(
    place: Workspace, recipe: Recipe, scores: Sequence[Score], seed: int, gradients: int
) -> Json:
    """The audit of one pair as plain numbers; None where a number could not be had."""
    path = seed_folder(place.runs, seed) / "reached.json"
    if path.exists():
        held: Json = parse_json(path.read_bytes())
        return held
    made = dataclasses.replace(recipe, scores=tuple(scores))
    run = taken_up(place.runs, made, seed, place.device)
    # Every pair is measured in the same way, whatever rule it was trained with.
    plain: Json = {"optimizers": {}, "step_sizes": {}}
    whole = audit(run, gradients=gradients, settings=plain, progress="none", write=False)
    numbers: Json = {"verdicts": {}}
    for certificate in whole.certificates:
        numbers["verdicts"][certificate.claim] = str(certificate.verdict.value)
        evidence = certificate.evidence
        for key in ("gain", "interval", "residual", "smallest", "schur_smallest", "leftmost"):
            if key in evidence:
                numbers[f"{certificate.claim}: {key}"] = evidence[key]
    try:
        profile = audit(
            run,
            checks=("profile",),
            settings={**plain, **PROFILE},
            progress="none",
            write=False,
        )["profile"]
        numbers["profile"] = {
            k: profile.evidence.get(k) for k in ("lambda", "r", "low", "high", "slack")
        }
    except (EquilibristError, KeyError) as error:
        numbers["profile"] = {"failed": str(error)}
    write_json(path, numbers)
    return numbers
