"""The commands `papers list`, `papers run` and `papers report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from equilibrist.cli.loading import parse_settings
from equilibrist.cli.output import say
from equilibrist.errors import RecipeError, RecordError, StoppedError

if TYPE_CHECKING:
    from equilibrist.papers.model import Experiment, Unit
    from equilibrist.papers.runner import Folders

SizeName = Literal["tiny", "small", "paper"]
RECORDS, RUNS = Path("docs/papers"), Path("runs/papers")

papers = typer.Typer(
    name="papers",
    help="Test the claims of the three papers: list them, run their experiments, report what became of them.",
    no_args_is_help=True,
)
_Names = Annotated[
    list[str] | None,
    typer.Argument(help="Experiments; all of them, in order of worth, if left out."),
]
_Size = Annotated[
    SizeName,
    typer.Option(help="tiny: minutes. small: hours of a core. paper: the paper's own size."),
]
_Records = Annotated[Path, typer.Option(help="The folder of records and small pictures.")]
_Runs = Annotated[Path, typer.Option(help="The folder of checkpoints, as large as they get.")]
_Weights = Annotated[
    Path | None,
    typer.Option(help="A folder with classifiers' weights, which then judge the samples."),
]

_On = Annotated[
    str, typer.Option(help="Where the processes run: local, slurm or ray (extras of the package).")
]
_Options = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Of the place, several times: slurm_partition=gpu, timeout_min=90 (submitit's parameters); "
        "address=auto (Ray's).",
    ),
]


@papers.command("list")
def list_experiments(size: _Size = "tiny", records: _Records = RECORDS) -> None:
    """List the experiments: claims, what was run, and what is planned.

    Example: equilibrist papers list --size small
    """
    from equilibrist.papers.catalogue import EXPERIMENTS
    from equilibrist.papers.records import read_records

    for experiment in EXPERIMENTS:
        units, held = experiment.units(size), read_records(records, experiment, size)
        hours = sum(unit.minutes for unit in units if unit.key not in held) / 60
        print(f"{experiment.key}: {experiment.title} ({experiment.paper.text})")
        print(f"  {size}: {len(held)} of {len(units)} units ended, {hours:.1f} h of one core to go")
        outcomes = experiment.outcomes(held, size)
        for claim, outcome in zip(experiment.claims, outcomes, strict=True):
            print(f"  {claim.place}: {outcome.word.upper()}. {claim.text}")


@papers.command()
# More parameters than other functions: each is an option of the command.
def run(
    experiments: _Names = None,
    size: _Size = "tiny",
    unit: Annotated[
        str, typer.Option(help="One unit of one experiment alone, in this very process.")
    ] = "",
    jobs: Annotated[
        int, typer.Option(help="Processes of one thread each; 0: one for each core.")
    ] = 0,
    hours: Annotated[
        float | None, typer.Option(help="Stop after so many hours; the same command goes on later.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Run failed units again, too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "cpu",
    records: _Records = RECORDS,
    runs: _Runs = RUNS,
    weights: _Weights = None,
    on: _On = "local",
    option: _Options = None,
) -> None:
    """Run experiments, a unit after the other, each in a process of its own.

    What has a record is not run again. Ctrl-C stops, and the same command goes on where it stopped; a unit
    that dies takes no other with it.

    Example: equilibrist papers run farnia-table-1 --size tiny
    """
    import os

    from equilibrist.papers import runner
    from equilibrist.papers.catalogue import EXPERIMENTS, experiment_named
    from equilibrist.workers import workers_on

    folders = runner.Folders(records, runs, weights)
    chosen = [experiment_named(name) for name in experiments or ()] or list(EXPERIMENTS)
    if unit:
        if len(chosen) != 1 or not experiments:
            raise RecipeError("--unit needs the one experiment that it belongs to")
        _one(chosen[0], unit, size, folders, device)
        return
    wanted = [(one, left) for one in chosen for left in runner.left(one, size, folders, again)]
    if not wanted:
        say("nothing is left to run at this size; `equilibrist papers report` makes the page")
        return
    minutes = sum(left.minutes for _, left in wanted)
    say(f"{len(wanted)} units, {minutes / 60:.1f} h of one core planned")
    given = {k: _number(v) for k, v in parse_settings(option, "--option").items()}
    workers = workers_on(on, runs / "jobs", given)
    count = jobs or os.cpu_count() or 1
    done = runner.run_all(
        wanted, size, folders, jobs=count, hours=hours, device=device, say=say, workers=workers
    )
    if not done:
        raise StoppedError("not every unit has ended: the same command goes on")


def _number(text: str) -> str | int | float:
    """A number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _one(experiment: Experiment, key: str, size: SizeName, folders: Folders, device: str) -> None:
    import signal

    from equilibrist.papers import runner

    # It is stopped by SIGINT, which is ignored where a shell without a terminal started it in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unit: Unit = runner.unit_named(experiment, size, key)
    record = runner.run_unit(experiment, size, unit, folders, device)
    print(f"{experiment.key} {size} {key}: {record.state} {record.message}".rstrip())
    if record.state == "failed":
        raise RecordError(f"{key} failed: {record.message}")


@papers.command()
def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="The page, in Markdown.")] = Path(
        "docs/papers.md"
    ),
    records: _Records = RECORDS,
) -> None:
    """Write the page of outcomes from the records alone.

    Example: equilibrist papers report
    """
    from equilibrist.files.atomic import write_atomically
    from equilibrist.papers.page import papers_page

    if out.resolve().parent != records.resolve().parent:
        raise RecipeError(f"{out} must lie beside {records}, for its links name what lies there")
    write_atomically(out, papers_page(records).encode())
    say(f"Page: {out}")
