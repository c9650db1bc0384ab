"""The command `prescribe`."""

from __future__ import annotations

from typing import Annotated

import typer

from equilibrist.cli.loading import load_run
from equilibrist.cli.options import (
    DataOption,
    DeviceOption,
    ProgressOption,
    RecipeOption,
    RunArgument,
    StepOption,
    ThreadsOption,
)
from equilibrist.cli.output import say
from equilibrist.cli.setup import prepare
from equilibrist.errors import RecipeError, did_you_mean


# More parameters than other functions: each is an option of the command.
def prescribe(
    directory: RunArgument,
    change: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only these changes; --changes lists them. Several times."
        ),
    ] = None,
    changes: Annotated[
        bool, typer.Option("--changes", help="List the changes that this run allows, and stop.")
    ] = False,
    gradients: Annotated[
        int, typer.Option(min=1, help="Minibatch gradients of all branches and measurements.")
    ] = 20_000,
    seeds: Annotated[int, typer.Option(min=3, help="Seeds that judge the best changes.")] = 5,
    by: Annotated[str, typer.Option(help="What is to fall: gap or score.")] = "gap",
    step: StepOption = None,
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    data_root: DataOption = None,
    threads: ThreadsOption = 0,
    progress: ProgressOption = "auto",
) -> None:
    """Try changes of training from a run's state, and say which closes the gap that an audit finds.

    Short branches from the same state, each with one change (rates, critic steps, penalty weight, solver, averaging,
    batch), with common random numbers and as many gradients each. Successive halving drops the worse ones; the two
    best are judged on further seeds against training as it is. Writes RUN/prescription.json.

    Example: equilibrist prescribe runs/digits-sngan --gradients 10000
    """
    prepare(data_root, threads, progress)
    call = "equilibrist.prescribe({run})"
    run = load_run(directory, recipe=recipe, device=device, step=step, call=call)
    from equilibrist.files.atomic import json_bytes
    from equilibrist.files.owned import publish, require_free
    from equilibrist.prescriptions import changes_of, prescribe

    known = changes_of(run.recipe)
    if changes:
        for name in known:
            print(name)
        return
    for name in change or ():
        if name not in known:
            raise RecipeError(
                f"--change {name}: there is no such change{did_you_mean(name, known)}; --changes lists them"
            )
    require_free(directory, "prescription.json")
    chosen = {name: known[name] for name in change} if change else known
    found = prescribe(
        run, chosen, gradients=gradients, seeds=seeds, by=by, seed=run.seed, progress=progress
    )
    print(found)
    publish(directory, {"prescription.json": json_bytes(found.describe())})
    say(f"Written: {directory / 'prescription.json'}")
