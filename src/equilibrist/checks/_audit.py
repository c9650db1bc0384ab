"""Run the checks, collect the certificates, write them into the run directory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from equilibrist import tree
from equilibrist.checks import selftests
from equilibrist.checks._budget import (
    allotted,
    announce,
    limit_of,
    planner,
)
from equilibrist.checks._findings import Training
from equilibrist.checks._implications import reconcile
from equilibrist.checks._result import Audit
from equilibrist.checks._save import CheckCache, require_place
from equilibrist.checks._session import AuditSession, meter
from equilibrist.checks._settings import Settings
from equilibrist.checks.arguments import known_settings, settings_of
from equilibrist.checks.certificate import Certificate
from equilibrist.checks.context import AuditContext
from equilibrist.checks.context_exact import ExactContext
from equilibrist.checks.registry import CHECKS, REGISTRY, named_checks
from equilibrist.core.full_precision import full_float32
from equilibrist.core.game import Constants, Game, Players
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.data import Source
from equilibrist.errors import RecipeError, warn_user
from equilibrist.games import AdversarialGame, SampledGame
from equilibrist.games.compatibility import misfits, require_fit
from equilibrist.optimizers import SGD, Optimizer
from equilibrist.progress import showing
from equilibrist.run import Run, samples
from equilibrist.run.requirements import require_seed
from equilibrist.schedules import base
from equilibrist.solvers import Averaged, MirrorGAN

# The defaults where losses are exact.
_EXACT = {"tolerance": 1e-6, "groups": 3, "group_batches": 1, "linear_batches": 1}


@usual_errors
def audit(
    run: Run | AdversarialGame,
    *,
    checks: Sequence[str] = CHECKS,
    progress: str = "auto",
    write: bool = True,
    iterate: str = "auto",
    gradients: int | None = None,
    settings: Settings | Mapping[str, object] | None = None,
    **fields: Any,
) -> Audit:
    """Audit the pair that `run` holds and write the answer to RUN/audit.

    Finished checks are kept in the run directory until the audit is written: an interrupted audit continues after
    them when it is asked for again with the same pair, settings and number of threads.

    Args:
        run: what `train` or `load` returned; it is left as it was. Or an `AdversarialGame`, whose players are audited
            as their modules are now, with `seed`, `batch` and `out` (a folder for the page) as further arguments.
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
    if isinstance(run, AdversarialGame):
        from equilibrist.checks.own import OwnGame  # which audits by this module

        own = {k: fields.pop(k) for k in ("seed", "batch", "out") if k in fields}
        asked = settings if isinstance(settings, Settings) else {**(settings or {}), **fields}
        return OwnGame(run).audit(
            asked, gradients=gradients, checks=checks, progress=progress, **own
        )
    if not isinstance(run, Run):
        raise RecipeError(
            f"audit needs a run or an AdversarialGame, not {type(run).__name__}: pass what train or load returned"
        )
    chosen = _settings_for(run, settings, gradients, fields)
    if not write:
        return _audited(run, chosen, iterate, checks, progress, None)
    require_place(run.directory / "audit")
    kept = _unfinished(run, chosen, iterate)
    result = _audited(run, chosen, iterate, checks, progress, kept)
    witnesses = replayable(result, run.recipe.game, run.pair(iterate), run.constants)
    result.save(run.directory / "audit", run.data, witnesses)
    kept.drop()
    return result


def _unfinished(run: Run, settings: Settings, iterate: str) -> CheckCache:
    """Where the finished checks of this audit are kept until it is written."""
    key = (
        run.sha256,
        _described(run, iterate),
        run.seed,
        settings.describe(),
        torch.get_num_threads(),
        torch.__version__,
    )
    return CheckCache(run.directory / ".audit-unfinished", key)


def _audited(
    run: Run,
    settings: Settings,
    iterate: str,
    checks: Sequence[str],
    progress: str,
    kept: CheckCache | None,
) -> Audit:
    """The audit of the run's pair, in memory."""
    recipe, which = run.recipe, _described(run, iterate)
    result = audit_game(
        recipe.game,
        run.pair(iterate),
        run.constants,
        run.data,
        settings,
        iterate=which,
        seed=run.seed,
        checks=checks,
        progress=progress,
        generator_batch=recipe.seen_together,
        kept=kept,
        origin=_initial_weights(run)
        if any(REGISTRY[c].from_origin for c in named_checks(checks))
        else None,
    )
    return replace(
        result,
        about={
            "step": run.step,
            "seed": run.seed,
            "checkpoint": run.checkpoint,
            "sha256": run.sha256,
            "iterate": which,
        },
        training=_training(run),
    )


def _training(run: Run) -> Training:
    """What weights say of the run's training, compared with those that it began with."""
    broken = tuple(p for p, part in run.players.items() if not tree.all_finite(part))
    initial = _initial_weights(run)[0] if run.step else {}
    still = tuple(
        player
        for player, first in initial.items()
        if first and all(torch.equal(t, run.players[player][name]) for name, t in first.items())
    )
    return Training(run.step, still, broken, run.diverged)


def _settings_for(
    run: Run,
    settings: Settings | Mapping[str, object] | None,
    gradients: int | None,
    fields: Mapping[str, object],
) -> Settings:
    """What was asked for, over the recipe's own, over what its update rules say."""
    if isinstance(settings, Settings):
        return replace(settings_of(settings, gradients), **known_settings(fields))
    recipe = run.recipe
    named = known_settings({**(settings or {}), **fields})
    known = {**(recipe.audit if gradients is None else {}), **named}
    if gradients is not None:
        budget = settings_of(known, gradients)
        known |= {"gradients": budget.gradients, "fixed": budget.fixed}
    rules, steps = _rules_of(run)
    own = Settings(batch=recipe.seen_together, optimizers=rules, step_sizes=steps)
    return replace(own, **known_settings(known))


def _rules_of(run: Run) -> tuple[dict[str, Optimizer], dict[str, float]]:
    """The update rules of the run's method by player, and their step sizes where all are plain gradient steps.

    Of rules that precondition their steps the spectrum of J says nothing, nor of chains with damped means.
    """
    game, solver = run.recipe.game, run.recipe.solver
    while isinstance(solver, Averaged):
        solver = solver.solver
    rule = getattr(solver, "rule", None)
    rules = {p: base(rule(p)) for p in game.players} if rule else {}
    if isinstance(solver, MirrorGAN):
        # Particles follow their own gradients, each 1 / count of its loss in the mixture's.
        count = getattr(game, "particles", 1)
        scaled = {
            p: replace(r, lr=r.lr * count) if isinstance(r, SGD) and count > 1 else r
            for p, r in rules.items()
        }
        return scaled, {}
    steps = {p: r.lr for p, r in rules.items() if isinstance(r, SGD) and not r.momentum}
    return rules, steps if len(steps) == len(rules) else {}


def _initial_weights(run: Run) -> tuple[Players, str]:
    """The weights that training began with."""
    recipe, anchor = run.recipe, next(iter(run.players["generator"].values()))
    start = recipe.game.init(run.seed, device=anchor.device, dtype=recipe.dtype)
    return start.players, "the initial weights"


def _described(run: Run, iterate: str) -> str:
    if iterate == "last" or not run.average:
        return "last"
    describe = getattr(run.recipe.solver, "describe_average", None)
    text: str = describe(run.step) if describe else f"average of the {' and '.join(run.average)}"
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


# Many parameters, each an option of one call by its name: a game and its players are all that is needed.
@usual_errors
def audit_game(
    game: Any,
    players: Players,
    constants: Constants | None = None,
    data: Source | None = None,
    settings: Settings | Mapping[str, object] | None = None,
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
    """The audit of a game and players in memory: nothing is read or written.

    `settings` are a `Settings` or some of its fields by name, `gradients` what the audit may spend (`Settings.within`).
    Without `data` the game's losses must be exact (`equilibrist.games` that draw nothing); default settings are then
    those of exact arithmetic: a tolerance of 1e-6, one group a gradient.
    """
    asked, seed = named_checks(checks), require_seed(seed)
    # Before any verdict, asked for or not: can what follows be believed?
    chosen = tuple(dict.fromkeys((selftests.CLAIM, *asked)))
    started = time.monotonic()
    context, notes = _context(game, players, constants, data, settings, gradients, seed, iterate)
    if origin is not None:
        context.origin, context.origin_name = origin
    plan = planner(chosen)
    context = context.with_settings(allotted(context, chosen, plan))
    costs = plan(context)

    def show(at: Players, fixed: Constants) -> torch.Tensor:
        assert data is not None
        n = samples.SHEET[data.kind]
        return samples.generate(game, at, fixed, n, seed, batch=generator_batch, data=data).cpu()

    if progress != "none":
        announce(context, costs)
    with showing(progress, "audit", round(sum(costs.values()))) as bar, full_float32():
        shows = data is not None and not getattr(game, "lacks", lambda what: "")("samples")
        session = AuditSession(context, costs, meter(bar, costs), kept, show if shows else None)
        for k, name in enumerate(chosen):
            # Self-tests that fail take longer than planned, and have to say why.
            session.run(name, limit_of(context.settings, costs, chosen[k + 1 :]) if k else math.inf)
    if selftests.CLAIM not in asked and not selftests.fails(session.certificates[0]):
        del session.certificates[0]
    agreed = reconcile(session.certificates)
    return Audit(
        tuple(replace(c, limits=(*c.limits, *_of_game(game, c.claim))) for c in agreed),
        context.settings,
        # Of finished checks of an interrupted session too.
        max(time.monotonic() - started, sum(spent["seconds"] for spent in session.work.values())),
        sheets=session.sheets | _shown_again(agreed, context, show, session.sheets),
        precision=str(context.dtype).removeprefix("torch."),
        work=session.work,
        facts=session.facts,
        notes=notes,
    )


# Claims about V, which a game that is not zero-sum does not have itself.
_OF_VALUE = (
    "local-minimax",
    "proximal",
    "lambda-search",
    "profile",
    "generator-vs-prox",
    "duality-gap",
    "proximal-duality-gap",
)


def _of_game(game: Game, claim: str) -> list[str]:
    """What the certificate of a claim about this game has among its limits."""
    drawn = [f"losses are expectations over the noise of {x}" for x in getattr(game, "noise", ())]
    value = (
        ["the losses do not add up to zero: V is minus the critic's loss, not the generator's own"]
        if claim in _OF_VALUE and not game.zero_sum
        else []
    )
    return [*drawn, *value, *getattr(game, "notes", ())]


def _context(
    game: Any,
    players: Players,
    constants: Constants | None,
    data: Source | None,
    settings: Settings | Mapping[str, object] | None,
    gradients: int | None,
    seed: int,
    iterate: str,
) -> tuple[AuditContext, tuple[str, ...]]:
    """The pair in its context, and what does not fit together, which is warned of."""
    if data is None:
        if not isinstance(settings, Settings):
            settings = {**_EXACT, **(settings or {})}
        return ExactContext(game, players, settings_of(settings, gradients), seed), ()
    notes: tuple[str, ...] = ()
    settings = settings_of(settings, gradients)
    if isinstance(game, SampledGame):
        own = game.init().constants if constants is None else {p: {} for p in game.players}
        constants = {**own, **(constants or {})}
        require_fit(game, data, players, constants)
        found = misfits(game, data, players, constants, settings.batch)
        for note in found:
            warn_user(note)
        notes = (*game.notes, *found)
    return AuditContext(game, players, constants or {}, data, settings, seed, iterate), notes


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
