"""The command `run`."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equilibrist.cli.auditing import audit_run
from equilibrist.cli.exit_codes import DIVERGED, INTERRUPTED
from equilibrist.cli.loading import parse_settings
from equilibrist.cli.options import (
    CompileOption,
    DataOption,
    DeviceOption,
    KeepOption,
    PartsOption,
    PerPartOption,
    ProgressOption,
    RecipeArgument,
    SetOption,
    ThreadsOption,
)
from equilibrist.cli.output import complain, say
from equilibrist.cli.paths import folder_name
from equilibrist.cli.setup import prepare
from equilibrist.errors import CompilationError, RecordError
from equilibrist.files.reading import quoted

if TYPE_CHECKING:
    from equilibrist.recipe_lookup import Resolved
    from equilibrist.run import Run


# More parameters than other functions: each is an option of the command.
def run(
    recipe: RecipeArgument,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Run directory; runs/RECIPE if left out.")
    ] = None,
    settings: SetOption = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of initial weights and of every draw.")
    ] = 0,
    device: DeviceOption = "auto",
    data_root: DataOption = None,
    audit_too: Annotated[
        bool, typer.Option("--audit", help="Audit the pair when it is trained.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option(help="Also write TensorBoard events to RUN/tensorboard.")
    ] = False,
    keep: KeepOption = None,
    compile: CompileOption = "auto",
    parts: PartsOption = None,
    per_part: PerPartOption = False,
    guard: Annotated[
        bool,
        typer.Option(
            "--guard",
            help="Where training diverges, go back to the last good checkpoint and on with half of the step sizes, "
            "at most five times; RUN/guard.json says when.",
        ),
    ] = False,
    threads: ThreadsOption = 0,
    progress: ProgressOption = "auto",
) -> None:
    """Train a recipe. Running it again goes on where it stopped.

    Example: equilibrist run mnist-sngan --set dim=16 --set steps=20000 --dir runs/sngan
    Two processes: torchrun --nproc-per-node 2 -m equilibrist run digits-sngan --parts 4
    """
    prepare(data_root, threads, progress)
    from equilibrist.recipe_lookup import resolve

    resolved = resolve(recipe, parse_settings(settings))
    where = directory or Path("runs") / folder_name(resolved.name)
    trained = _train(
        resolved,
        where,
        keep=keep,
        parts=parts,
        per_part=per_part,
        seed=seed,
        device=device,
        progress=progress,
        tensorboard=tensorboard,
        compile=compile,
        guard=guard,
    )
    if trained is None:
        return  # rank 0 says what became of it
    own = "" if resolved.origin["kind"] == "builtin" else f" --recipe {quoted(recipe)}"
    _conclude(trained, where, audit_too, progress, own)


def _conclude(trained: Run, where: Path, audit_too: bool, progress: str, own: str) -> None:
    """Say what became of a run that ended, audit it if asked to, and write its report."""
    _require_finished(trained, where)
    from equilibrist.report import write_report

    say(f"Trained to step {trained.step} in {where}")
    if audit_too:
        from equilibrist.checks import CHECKS

        audit_run(trained, CHECKS, progress)
    say(f"Report: {write_report(where)}")
    if not audit_too:
        say(f"Next: equilibrist audit {quoted(str(where))}{own}")


# More parameters than other functions: the command's options.
def _train(
    resolved: Resolved,
    where: Path,
    *,
    keep: int | None,
    parts: int | None,
    per_part: bool,
    seed: int,
    device: str,
    progress: str,
    tensorboard: bool,
    compile: str,
    guard: bool,
) -> Run | None:
    """Build the recipe and train it in the folder `where`; None on all processes of torchrun but the first."""
    from equilibrist.distributed import launched, process_group
    from equilibrist.run import train
    from equilibrist.run.stepping import compile_mode

    built = resolved.build()
    if keep is not None:
        built = dataclasses.replace(built, keep=keep)
    if parts is not None or per_part:
        parts = built.accumulate if parts is None else parts
        built = dataclasses.replace(built, accumulate=parts, per_part=per_part)
    with ExitStack() as group:
        ranks = group.enter_context(process_group(device)) if launched() > 1 else None
        leads = ranks is None or not ranks.rank
        if leads:
            _require_usable(where)
        try:
            trained = train(
                built,
                where,
                name=resolved.name,
                settings=resolved.settings,
                origin=resolved.origin,
                seed=seed,
                device=device,
                progress=progress,
                tensorboard=tensorboard,
                compile=compile_mode(compile),
                ranks=ranks,
                guard=guard,
            )
            return trained if leads else None
        except CompilationError as error:
            raise CompilationError(f"{error} (--compile off)") from error
        except KeyboardInterrupt:
            complain(
                f"interrupted at once; {where} goes on from its last checkpoint when it is run again"
            )
            raise typer.Exit(INTERRUPTED) from None


def _require_usable(where: Path) -> None:
    """Raise RecordError, before any work, where a run cannot be written to this folder."""
    from equilibrist.files.owned import require_free
    from equilibrist.run.record import Record

    try:
        Record(where).refuse_foreign()
        require_free(where, "report.json", "report.html")
    except RecordError as error:
        named = str(error) if "--dir" in str(error) else f"{error} (--dir)"
        raise RecordError(named) from error


def _require_finished(trained: Run, where: Path) -> None:
    """Write the report of a run that was interrupted or diverged, and exit with the code for it."""
    from equilibrist.report import write_report

    if trained.interrupted:
        write_report(where)
        say(f"Stopped and saved at step {trained.step}. Run the same command again to go on.")
        raise typer.Exit(INTERRUPTED)
    if trained.diverged:  # a warning has given the reason
        write_report(where)
        say(f"Diverged: all {trained.step} steps are done and saved in {where}.")
        raise typer.Exit(DIVERGED)
