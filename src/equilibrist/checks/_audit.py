"""Run the checks, collect the certificates, write them beside the run."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from equilibrist.checks import facts, selftests
from equilibrist.checks._advice import advice
from equilibrist.checks._budget import allotted, limit_of, unfinished
from equilibrist.checks._first_order import planned, planned_value
from equilibrist.checks._implications import reconcile
from equilibrist.checks._ladder import ladder, place
from equilibrist.checks._save import CheckCache, require_place, witness_file, write_folder
from equilibrist.checks._settings import Settings
from equilibrist.checks._spent import SpentError
from equilibrist.checks.arguments import known_settings, settings_of
from equilibrist.checks.certificate import Certificate
from equilibrist.checks.context import AuditContext
from equilibrist.checks.context_exact import ExactContext
from equilibrist.checks.registry import CHECKS, REGISTRY, Found, named_checks
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.data import Source
from equilibrist.display import shortened, table
from equilibrist.errors import RecipeError, UnknownClaimError, did_you_mean, warn_user
from equilibrist.files.atomic import finite
from equilibrist.games import SampledGame
from equilibrist.games.compatibility import misfits, require_fit
from equilibrist.optimizers import SGD
from equilibrist.progress import showing
from equilibrist.run import Run, samples
from equilibrist.run.requirements import require_seed
from equilibrist.schedules import base
from equilibrist.solvers import Averaged, MirrorGAN

FORMAT = 1
# The defaults where losses are exact.
_EXACT = {"tolerance": 1e-6, "groups": 3, "group_batches": 1, "linear_batches": 1}
FACTS = "facts"  # beside the checks in the record of what was spent
SHARED = {
    planned: ("stationary", "local", "proximal"),
    planned_value: ("local", "proximal"),
}
DEEP = 500  # gradients of a player's search from which the facts are taken in depth


@dataclass(frozen=True, repr=False)
class Audit(Mapping[str, Certificate]):
    """Certificates by claim, a mapping: `audit["nash"]`, `"nash" in audit`, `for claim in audit`.

    Attributes:
        certificates: the values, in order.
        settings: the budget and the tolerances.
        seconds: what the audit took.
        about: the pair and where it came from, plain values.
        facts: what a practitioner looks at before any verdict; None where losses are exact.
        notes: what does not fit together (data and generator, say), one sentence each.
        sheets, precision, work: sheets of samples; the precision of the searches; gradients and seconds by check.
    """

    certificates: tuple[Certificate, ...]
    settings: Settings
    seconds: float
    about: dict[str, Any] = field(default_factory=dict)
    sheets: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    precision: str = "float32"
    work: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: facts.Facts | None = None
    notes: tuple[str, ...] = ()

    def __getitem__(self, claim: str) -> Certificate:
        for certificate in self.certificates:
            if certificate.claim == claim:
                return certificate
        known = [c.claim for c in self.certificates]
        hint = did_you_mean(claim, known)
        raise UnknownClaimError(
            f"this audit says nothing of {claim!r}{hint}; its claims are {', '.join(known)}"
        )

    def __iter__(self) -> Iterator[str]:
        return (c.claim for c in self.certificates)

    def __len__(self) -> int:
        return len(self.certificates)

    @property
    def place(self) -> str:
        """Where the pair stands, in a few sentences: signs of a fault first."""
        return place(self.certificates, self.facts)

    @property
    def advice(self) -> tuple[str, ...]:
        """What was measured and which causes fit it, largest effect first."""
        return advice(self.certificates, self.facts)

    def __str__(self) -> str:
        rows = [f"{c.claim:22} {c.verdict.value:12} {c.summary}" for c in self.certificates]
        plain = [" ".join(self.facts.sentences)] if self.facts is not None else []
        notes = [f"Note: {note}." for note in self.notes]
        remarks = [f"- {line}" for line in self.advice if line not in self.place]
        told = [self.place, *plain, *notes, "", *rows]
        return "\n".join([*told, *([""] if remarks else []), *remarks])

    def __repr__(self) -> str:
        by_verdict: dict[str, list[str]] = {}
        for c in self.certificates:
            by_verdict.setdefault(c.verdict.value, []).append(c.claim)
        lines = [f"  {verdict}: {', '.join(claims)}" for verdict, claims in by_verdict.items()]
        lines += [f"  note: {shortened(note)}" for note in self.notes]
        return "\n".join([f"Audit of {len(self)} claims in {self.seconds:.3g} s", *lines])

    def _repr_html_(self) -> str:
        rows = [("note", "", note) for note in self.notes]
        if self.facts is not None:
            rows += [("fact", "", sentence) for sentence in self.facts.sentences]
        rows += [(c.claim, c.verdict.value, shortened(c.summary, 300)) for c in self.values()]
        rows += [("advice", "", line) for line in self.advice if line not in self.place]
        return table(f"Audit: {self.place}", rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as in audit.json (docs/design.md)."""
        value: dict[str, Any] = finite(
            {
                "format": FORMAT,
                **self.about,
                "seconds": round(self.seconds, 2),
                "work": self.work,
                "dtype": {"search": self.precision, "score": "float64"},
                "settings": self.settings.describe(),
                "notes": list(self.notes),
                "place": self.place,
                "facts": self.facts.to_json() if self.facts is not None else None,
                "advice": list(self.advice),
                "ladder": [
                    {
                        "claim": rung.claim,
                        "name": rung.name,
                        "meaning": rung.meaning,
                        "words": rung.words,
                        "verdict": rung.verdict.value if rung.verdict else None,
                    }
                    for rung in ladder(self.certificates)
                ],
                "certificates": [c.to_row(witness_file(c)) for c in self.certificates],
            }
        )
        return value

    def save(
        self,
        directory: Path,
        data: Source,
        witnesses: dict[str, dict[str, torch.Tensor]] | None = None,
    ) -> None:
        """Write audit.json, the witnesses and the sheets into the folder `directory`, whole or not at all.

        Files of others in that folder stay; RecordError where one of them is in the way.

        `witnesses` are plain state_dicts by claim, as `replayable` makes them: they load into the
        modules that `export` fills. Without them the players' own parameters are written.
        """
        write_folder(
            directory,
            self.to_json(),
            self.certificates,
            witnesses or {},
            self.sheets,
            lambda sheet: samples.sheet(sheet, data),
        )


@usual_errors
def audit(
    run: Run,
    *,
    checks: Sequence[str] = CHECKS,
    progress: str = "auto",
    write: bool = True,
    iterate: str = "auto",
    gradients: int | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    **fields: Any,
) -> Audit:
    """Audit the pair that `run` holds and write the answer to RUN/audit.

    Finished checks are kept beside the run until the audit is written: an interrupted audit goes on after
    them when it is asked for again with the same pair, settings and number of threads.

    Args:
        run: what `train` or `load` returned. It is left as it was.
        checks: names of `equilibrist.checks.REGISTRY`.
        progress: "auto", "bar", "lines" or "none".
        write: False keeps the answer in memory only.
        iterate: "last", "average" (where the solver keeps averages), or "auto": the average where
            there is one, for that is the generator that gets used.
        gradients: about how many minibatch gradients to spend (`Settings.within`), instead of the recipe's
            own numbers; opt-in checks come on top.
        settings: a dictionary of fields of `Settings`, which override the recipe's own, and those that a
            budget gives; or a whole `Settings`, which stands for all of them.
        fields: the same by name: `audit(run, steps=1000)`.

    Raises: RecipeError for an unknown check or setting.
    """
    if not isinstance(run, Run):
        raise RecipeError(
            f"audit needs a run, not {type(run).__name__}: pass what train or load returned"
        )
    recipe = run.recipe
    solver = recipe.solver
    while isinstance(solver, Averaged):
        solver = solver.solver
    rule = getattr(solver, "rule", None)
    rules = {p: base(rule(p)) for p in recipe.game.players} if rule else {}
    # Of rules that precondition their steps the spectrum of J says nothing, nor of chains with damped means.
    mirror = isinstance(solver, MirrorGAN)
    plain = {
        p: r.lr for p, r in rules.items() if isinstance(r, SGD) and not r.momentum and not mirror
    }
    count = getattr(recipe.game, "particles", 1)
    if (
        mirror and count > 1
    ):  # particles follow their own gradients, each 1 / count of its loss in the mixture's
        rules = {
            p: replace(r, lr=r.lr * count) if isinstance(r, SGD) else r for p, r in rules.items()
        }
    players = run.pair(iterate)
    if isinstance(settings, Settings):
        chosen = replace(settings_of(settings, gradients), **known_settings(fields))
    else:
        named = known_settings({**(settings or {}), **fields})
        known = {**(recipe.audit if gradients is None else {}), **named}
        if gradients is not None:
            budget = settings_of(known, gradients)
            known |= {"gradients": budget.gradients, "fixed": budget.fixed}
        chosen = replace(
            Settings(
                batch=recipe.batch,
                optimizers=rules,
                step_sizes=plain if len(plain) == len(rules) else {},
            ),
            **known_settings(known),
        )
    said = _described(run, iterate)
    key = (
        run.sha256,
        said,
        run.seed,
        chosen.describe(),
        torch.get_num_threads(),
        torch.__version__,
    )
    if write:
        require_place(run.directory / "audit")
    kept = CheckCache(run.directory / ".audit-unfinished", key) if write else None
    result = audit_game(
        recipe.game,
        players,
        run.constants,
        run.data,
        chosen,
        iterate=said,
        seed=run.seed,
        checks=checks,
        progress=progress,
        generator_batch=recipe.batch,
        kept=kept,
        origin=_begun(run) if any(REGISTRY[c].from_origin for c in named_checks(checks)) else None,
    )
    result = replace(
        result,
        about={
            "step": run.step,
            "seed": run.seed,
            "checkpoint": run.checkpoint,
            "sha256": run.sha256,
            "iterate": said,
        },
    )
    if kept is not None:
        result.save(
            run.directory / "audit",
            run.data,
            replayable(result, recipe.game, players, run.constants),
        )
        kept.drop()
    return result


def _begun(run: Run) -> tuple[Players, str]:
    """The weights that training began with."""
    recipe, anchor = run.recipe, next(iter(run.players["generator"].values()))
    start = recipe.game.init(run.seed, device=anchor.device, dtype=recipe.dtype)
    return start.players, "the initial weights"


def _described(run: Run, iterate: str) -> str:
    if iterate == "last" or not run.average:
        return "last"
    said = getattr(run.recipe.solver, "said", None)
    text: str = said(run.step) if said else f"average of the {' and '.join(run.average)}"
    return text


def replayable(
    found: Audit, game: SampledGame, players: Players, constants: Constants
) -> dict[str, dict[str, torch.Tensor]]:
    """The witnesses as state_dicts of plain modules, spectral normalisation folded in exactly."""
    return {
        c.claim: game.load({**players, **c.witness}, constants)[c.player].state_dict()
        for c in found.values()
        if c.witness is not None and c.player is not None and c.witness_kind == "deviation"
    }


@usual_errors
def audit_game(
    game: Any,
    players: Players,
    constants: Constants | None = None,
    data: Source | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    *,
    gradients: int | None = None,
    seed: int = 0,
    checks: Sequence[str] = CHECKS,
    progress: str = "auto",
    generator_batch: int = 0,
    iterate: str = "last",
    kept: CheckCache | None = None,
    origin: tuple[Players, str] | None = None,
) -> Audit:
    """The same for a game and a pair at hand: nothing is read or written.

    `settings` are a `Settings` or some of its fields by name, `gradients` what the audit may spend
    (`Settings.within`).

    Without `data` the game's losses must be exact (`equilibrist.games` that draw nothing); default
    settings are then those of exact arithmetic: a tolerance of 1e-6, one group a gradient.
    """
    asked, seed = named_checks(checks), require_seed(seed)
    # Before any verdict, asked for or not: can what follows be believed?
    chosen_checks = tuple(dict.fromkeys((selftests.CLAIM, *asked)))
    begun = time.monotonic()
    notes: tuple[str, ...] = ()
    if data is None:
        if not isinstance(settings, Settings):
            settings = {**_EXACT, **(settings or {})}
        settings = settings_of(settings, gradients)
        context: AuditContext = ExactContext(game, players, settings, seed)
    else:
        settings = settings_of(settings, gradients)
        if isinstance(game, SampledGame):
            own = game.init().constants if constants is None else {p: {} for p in game.players}
            constants = {**own, **(constants or {})}
            require_fit(game, data, players, constants or {})
            notes = misfits(game, data, players, constants or {}, settings.batch)
            for note in notes:
                warn_user(note)
            notes = (*game.notes, *notes)
        context = AuditContext(game, players, constants or {}, data, settings, seed, iterate)

    if origin is not None:
        context.origin, context.origin_name = origin

    def show(at: Players, fixed: Constants) -> torch.Tensor:
        assert data is not None
        n = samples.SHEET[data.kind]
        return samples.generate(game, at, fixed, n, seed, batch=generator_batch, data=data).cpu()

    certificates: list[Certificate] = []
    sheets: dict[str, torch.Tensor] = {}
    work: dict[str, dict[str, float]] = {}

    plan = _planner(chosen_checks)
    settings = allotted(context, chosen_checks, plan)
    context = context.with_settings(settings)
    deep, costs = _deep(settings), plan(context)
    plain: facts.Facts | None = None
    if progress != "none":
        _announce(context, costs)
    with showing(progress, "audit", round(sum(costs.values()))) as bar:
        spent, shown, most = 0.0, 0, math.inf

        def tick(gradients: float = 1.0) -> None:
            nonlocal spent, shown
            spent += gradients
            if spent > most:
                raise SpentError
            if spent - shown >= 10:
                shown = round(spent)
                bar.update(min(shown, round(sum(costs.values()))), {})

        for k, name in enumerate(chosen_checks):
            before, since = spent, time.monotonic()
            failed = next((c for c in certificates if selftests.fails(c)), None)
            if failed is not None:
                certificates.append(selftests.stopped(name, failed))
                continue
            if kept is not None and (former := kept.get(name)):
                found, work[name] = former
                tick(work[name]["gradients"])
            else:
                most = limit_of(settings, costs, chosen_checks[k + 1 :])
                try:
                    found = REGISTRY[name].run(context, tick, show if data is not None else None)
                except SpentError:
                    found = Found(unfinished(context, REGISTRY[name]))
                most = math.inf
                work[name] = _work(spent - before, costs[name], since)
                if kept is not None:
                    kept.put(name, found, work[name])
            certificates += found.certificates
            sheets |= found.sheets
            if name == selftests.CLAIM and not selftests.fails(found.certificates[0]):
                before, since = spent, time.monotonic()
                plain = facts.facts(context, tick, deep)
                work[FACTS] = _work(spent - before, costs[FACTS], since)
    sound = not selftests.fails(certificates[0])
    if selftests.CLAIM not in asked and sound:
        del certificates[0]
    noted = getattr(game, "notes", ())
    agreed = reconcile(certificates)
    sheets |= _shown_again(agreed, context, show, sheets)
    return Audit(
        tuple(replace(c, limits=(*c.limits, *noted)) for c in agreed),
        settings,
        # Of finished checks of an interrupted session too.
        max(time.monotonic() - begun, sum(spent["seconds"] for spent in work.values())),
        sheets=sheets,
        precision=str(context.dtype).removeprefix("torch."),
        work=work,
        facts=plain,
        notes=notes,
    )


def _shown_again(
    certificates: Sequence[Certificate],
    context: AuditContext,
    show: Callable[[Players, Constants], torch.Tensor],
    sheets: Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Sheets of the deviations that a claim took over from another: pictures show the witness that refutes."""
    again = {}
    for c in certificates:
        name = f"{c.claim}:after"
        implied = "implied_by" in c.evidence and c.witness_kind == "deviation"
        if name not in sheets or not implied or c.witness is None:
            continue
        for when, part in (("during", 0.5), ("after", 1.0)):
            at = dict(context.players)
            for player, there in c.witness.items():
                at[player] = {k: torch.lerp(v, there[k].to(v), part) for k, v in at[player].items()}
            again[f"{c.claim}:{when}"] = show(at, context.constants)
    return again


def _deep(settings: Settings) -> bool:
    """Whether the budget allows the facts in depth."""
    small = 0 < settings.gradients < 3 * DEEP
    return settings.starts * settings.steps >= DEEP and not small


def require_budget(
    game: SampledGame,
    players: Players,
    constants: Constants,
    data: Source,
    settings: Settings,
    checks: Sequence[str],
) -> None:
    """RecipeError where the budget of `settings` is too small for these checks: asked before a long training."""
    chosen = tuple(dict.fromkeys((selftests.CLAIM, *named_checks(checks))))
    allotted(AuditContext(game, players, constants, data, settings, 0), chosen, _planner(chosen))


def _planner(checks: tuple[str, ...]) -> Callable[[AuditContext], dict[str, float]]:
    """The planned minibatch gradients of each of these checks and of the facts, on a context."""

    def plan(context: AuditContext) -> dict[str, float]:
        costs = {name: REGISTRY[name].work(context) for name in checks}
        # What a context computes once is spent by the first check that asks for it.
        for part, those in SHARED.items() if context.sampled else ():
            for name in [name for name in checks if name in those][1:]:
                costs[name] -= part(context)
        return costs | {FACTS: facts.work(context, _deep(context.settings))}

    return plan


def _work(spent: float, planned: float, since: float) -> dict[str, float]:
    """What a check spent and was planned to spend, in minibatch gradients, and its seconds."""
    return {
        "gradients": round(spent, 1),
        "planned": round(planned, 1),
        "seconds": round(time.monotonic() - since, 2),
    }


def _announce(context: AuditContext, planned: dict[str, float]) -> None:
    """Say what the checks that no audit runs unasked are about to cost, before they cost it."""
    costly = [name for name in planned if name in REGISTRY and not REGISTRY[name].default]
    if not costly:
        return
    field, draw = VectorField(context.game), context.minibatch(0)
    field(context.players, context.constants, draw)
    begun = time.perf_counter()
    field(context.players, context.constants, draw)
    one = time.perf_counter() - begun
    for name in costly:
        seconds = planned[name] * one
        spent = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} s"
        print(
            f"{name}: up to about {planned[name]:,.0f} minibatch gradients, {spent} on this machine",
            file=sys.stderr,
            flush=True,
        )
