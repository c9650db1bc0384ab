"""The command `audit`: of a run directory, or of a user's own pair. Nothing here imports torch before it must."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equilibrist._errors import EquilibristError, RecipeError, RecordError

if TYPE_CHECKING:
    from equilibrist.checks import Audit


def audit(
    directory: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE:FUNCTION",
            help="A run directory, as made by `equilibrist run`; or a function of your own that returns "
            "your modules (docs/own_pair.md). Its file is executed.",
        ),
    ],
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM",
            help="Exit with 5 unless this claim is verified or at least not refuted; "
            "CLAIM=verified accepts proof only. May be given several times.",
        ),
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(help="Only these checks, such as stationary or nash.")
    ] = None,
    gradients: Annotated[
        int | None,
        typer.Option(
            help="About how many minibatch gradients to spend, instead of the recipe's own numbers."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the audit; may be given several times."
        ),
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="Of a run: audit this checkpoint, not the newest.")
    ] = None,
    iterate: Annotated[
        str | None,
        typer.Option(
            help="Of a run: auto (the average where the run keeps one), average, or last."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="FILE:FUNCTION",
            help="The recipe of a run that came from a file of your own: its code is loaded only if you "
            "name it.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Of your own pair: the folder to write; audit-FILE-FUNCTION if left out.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of your own pair: seed of every draw (0).")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Of a run: auto (a GPU where there is one), cpu, cuda, ...")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            "--data-root",
            help="Folder of data files (also the environment variable EQUILIBRIST_DATA).",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's choice.")] = 0,
    progress: Annotated[str, typer.Option(help="auto, bar, lines or none.")] = "auto",
) -> None:
    """Say which equilibrium the trained pair reached, with evidence.

    self-tests: can the losses and their derivatives be believed? They run before anything else.
    stationary: does either player's gradient still promise anything? stable: do they stay when pushed (the
    spectrum)? local: does a small move gain, alone (local Nash) or after the critic's answer (local minimax)?
    proximal: up to which lambda* does the pair hold against a critic that may answer within reach 1/lambda?
    nash: with one player frozen, can the other lower its own loss?

    Only when asked for with --check, their cost told first: profile (what the generator gains at each lambda),
    lambda-search, section-6.1, gaps.

    Settings (--set): starts=3 searches of steps=500 steps for each player, perturbation=0.02,
    tolerance=0.02 of the loss's scale (or absolute=...), confidence=0.95, batch, looks, batches,
    look_batches, groups, group_batches, move=0.01.

    Example: equilibrist audit runs/sngan --require nash --set steps=1000

    Example: equilibrist audit my_file.py:pair --out my-audit
    """
    from equilibrist import cli

    cli._prepare(data_root, threads, progress)
    own = _is_own(directory)
    runs: dict[str, Any] = {
        "--step": step,
        "--iterate": iterate,
        "--recipe": recipe,
        "--device": device,
    }
    own_only: dict[str, Any] = {"--out": out, "--seed": seed}
    for option, value in (runs if own else own_only).items():
        if value is not None:
            kind = "a pair of your own" if own else "a run"
            raise RecipeError(f"{option} {value}: {directory} is {kind}, which has no such option")
    pairs = cli._pairs(settings)
    from equilibrist._owned import require_free
    from equilibrist.checks import CHECKS
    from equilibrist.checks._audit import named_checks

    chosen = tuple(check or CHECKS)
    required = cli._requirements(require or [], chosen)
    typed = cli._audit_settings(pairs)
    if own:
        chosen = named_checks(chosen)
        found = _own(directory, typed, chosen, progress, out, seed or 0, gradients)
    else:
        subject = cli._loaded(Path(directory), recipe, device or "auto", step)
        require_free(Path(directory), "report.json", "report.html")  # before the work
        found = cli._audit(subject, typed, chosen, progress, iterate or "auto", gradients)
        cli._say(f"Report: {cli._report(Path(directory))}")
    for claim, verified in required:
        found[claim].require(verified=verified)


def _is_own(name: str) -> bool:
    """Whether this names a user's function and not a run directory."""
    if Path(name).is_dir():
        return False
    file, colon, _ = name.rpartition(":")
    return (bool(colon) and file.endswith(".py")) or name.endswith(".py")


def _own(
    name: str,
    settings: dict[str, Any],
    checks: tuple[str, ...],
    progress: str,
    out: Path | None,
    seed: int,
    gradients: int | None,
) -> Audit:
    from equilibrist import cli
    from equilibrist._resolve import ENDED, from_file, said_by

    where = out or Path(f"audit-{Path(name.replace('.py:', '-')).name}")
    if where.is_dir() and any(where.iterdir()) and not (where / "audit.json").is_file():
        raise RecordError(f"--out {where}: this exists and is no audit; name another folder")
    if where.parent.exists() and not where.parent.is_dir():
        raise RecordError(f"--out {where}: {where.parent} is no folder")
    function, _ = from_file(name)
    from equilibrist.checks.pair import Pair

    try:
        value = function()
    except EquilibristError:
        raise
    except SystemExit as error:
        said = said_by(error, name.rpartition(":")[0])
        raise RecipeError(f"{name} {ENDED} a pair: {said}") from error
    except Exception as error:  # whatever a user's function does wrong is one line to its user
        raise RecipeError(f"{name} fails: {said_by(error, name.rpartition(':')[0])}") from error
    pair = Pair.of(value, name)
    found = pair.audit(
        settings, gradients=gradients, checks=checks, seed=seed, progress=progress, out=where
    )
    print(found)
    cli._say(f"Report: {where / 'report.html'}")
    return found
