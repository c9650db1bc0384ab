"""The command `audit`: of a run directory, or of a user's own pair."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from equilibrist.certificates import Json
from equilibrist.cli.audit_own import audit_own, is_own
from equilibrist.cli.auditing import audit_run
from equilibrist.cli.loading import load_run, parse_settings
from equilibrist.cli.options import (
    AuditSetOption,
    DataOption,
    ProgressOption,
    RecipeOption,
    RunDeviceOption,
    RunIterateOption,
    RunStepOption,
    ThreadsOption,
)
from equilibrist.cli.output import say
from equilibrist.cli.setup import prepare
from equilibrist.errors import RecipeError, did_you_mean
from equilibrist.files.owned import require_free

_SubjectArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FILE:FUNCTION",
        help="A run directory, as made by `equilibrist run`; or a function of your own that returns "
        "your modules (docs/own_pair.md) or a critic alone (docs/critic.md). Its file is executed.",
    ),
]
_RequireOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLAIM",
        help="Exit with 5 unless this claim is verified or at least not refuted; "
        "CLAIM=verified accepts proof only. May be given several times.",
    ),
]
_CheckOption = Annotated[
    list[str] | None, typer.Option(help="Only these checks, such as stationary or nash.")
]
_GradientsOption = Annotated[
    int | None,
    typer.Option(
        help="About how many minibatch gradients to spend, instead of the recipe's own numbers."
    ),
]
_OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Of your own pair: the folder to write; audit-FILE-FUNCTION if left out.",
    ),
]
_SeedOption = Annotated[
    int | None, typer.Option(min=0, help="Of your own pair: seed of every draw (0).")
]


# More parameters than other functions: each is an option of the command.
def audit(
    directory: _SubjectArgument,
    require: _RequireOption = None,
    check: _CheckOption = None,
    gradients: _GradientsOption = None,
    settings: AuditSetOption = None,
    step: RunStepOption = None,
    iterate: RunIterateOption = None,
    recipe: RecipeOption = None,
    out: _OutOption = None,
    seed: _SeedOption = None,
    device: RunDeviceOption = None,
    data_root: DataOption = None,
    threads: ThreadsOption = 0,
    progress: ProgressOption = "auto",
) -> None:
    """Say which equilibrium the trained pair reached, with evidence.

    self-tests: can the losses and their derivatives be believed? They run before anything else.
    stationary: does either player's gradient still promise anything? stable: do they stay when pushed (the
    spectrum)? local: does a small move gain, alone (local Nash) or after the critic's answer (local minimax)?
    proximal: up to which lambda* does the pair hold against a critic that may answer within reach 1/lambda?
    nash: with one player frozen, can the other lower its own loss?

    Only when asked for with --check, with their cost shown first: profile (what the generator gains at each
    lambda), lambda-search, generator-vs-prox, gaps.

    Settings (--set): starts=3 searches of steps=500 steps for each player, perturbation=0.02,
    tolerance=0.02 of the loss's scale (or absolute=...), confidence=0.95, batch, looks, batches,
    look_batches, groups, group_batches, move=0.01.

    Example: equilibrist audit runs/sngan --require nash --set steps=1000

    Example: equilibrist audit my_file.py:pair --out my-audit
    """
    prepare(data_root, threads, progress)
    own = is_own(directory)
    if own:
        unfit = {"--step": step, "--iterate": iterate, "--recipe": recipe, "--device": device}
        _refuse_options(unfit, directory, "a pair of your own")
    else:
        _refuse_options({"--out": out, "--seed": seed}, directory, "a run")
    pairs = parse_settings(settings)
    from equilibrist.checks import CHECKS

    chosen = tuple(check or CHECKS)
    required = _requirements(require or [], chosen, own)
    typed = _typed_settings(pairs)
    if own:
        out = out or Path(f"audit-{Path(directory.replace('.py:', '-')).name}")
        found = audit_own(directory, chosen, progress, typed, gradients, seed or 0, out)
    else:
        run = load_run(Path(directory), recipe=recipe, device=device or "auto", step=step)
        require_free(Path(directory), "report.json", "report.html")  # before the work
        found = audit_run(run, chosen, progress, typed, iterate or "auto", gradients)
        from equilibrist.report import write_report

        say(f"Report: {write_report(Path(directory))}")
    for claim, verified in required:
        found[claim].require(verified=verified)


def _refuse_options(options: Mapping[str, object], name: str, kind: str) -> None:
    """Raise RecipeError for the first of these options that was given."""
    for option, value in options.items():
        if value is not None:
            raise RecipeError(f"{option} {value}: {name} is {kind}, which has no such option")


def _requirements(
    claims: Sequence[str], checks: Sequence[str], own: bool
) -> list[tuple[str, bool]]:
    """The claims of --require, refused before any work if they are unknown.

    Args:
        claims: as they were typed.
        checks: those that will be made.
        own: whether a user's function is audited, which may return a critic alone.

    Returns:
        Pairs of a claim and whether it must be verified.

    Raises:
        RecipeError: A claim that none of these checks makes, or another text than "verified" after it.
    """
    from equilibrist.checks import REGISTRY
    from equilibrist.critics import CLAIMS

    # The audit itself refuses an unknown check.
    known = [c for name in checks if name in REGISTRY for c in REGISTRY[name].claims or (name,)]
    known += CLAIMS if own else ()
    found = []
    for text in claims:
        claim, equals, strictness = text.partition("=")
        if claim not in known:
            hint = did_you_mean(claim, known)
            raise RecipeError(
                f"--require {text}: there is no such claim{hint}; choose from {', '.join(known)}"
            )
        if equals and strictness != "verified":
            raise RecipeError(f"--require {text}: after the claim only '=verified' may follow")
        found.append((claim, bool(strictness)))
    return found


def _typed_settings(pairs: Mapping[str, str]) -> Json:
    """Values of `checks.Settings`, by the types of its fields.

    Raises:
        RecipeError: An unknown setting, or a value of another type.
    """
    from equilibrist.arguments import convert
    from equilibrist.checks import Settings

    kinds = {"int": int, "float": float, "tuple[float, ...]": tuple}
    typed = {
        f.name: kinds[str(f.type)] for f in dataclasses.fields(Settings) if str(f.type) in kinds
    }
    for key in pairs:
        if key not in typed:
            hint = did_you_mean(key, typed)
            raise RecipeError(
                f"--set {key}: an audit has no such setting{hint}; it has {', '.join(typed)}"
            )
    return {
        key: tuple(convert(piece, float, f"audit: {key}") for piece in text.split(","))
        if typed[key] is tuple
        else convert(text, typed[key], f"audit: {key}")
        for key, text in pairs.items()
    }
