"""Types of the arguments and options that several commands share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

_set_option = partial(typer.Option, "--set", metavar="KEY=VALUE")
_DEVICES = "auto (a GPU where there is one), cpu, cuda, cuda:1, ..."
_ITERATES = "auto (the average where the run keeps one), average, or last."

RecipeArgument = Annotated[
    str, typer.Argument(help="A recipe's name (`equilibrist list`), or file.py:function.")
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, as made by `equilibrist run`.")
]

SetOption = Annotated[
    list[str] | None,
    _set_option(
        help="A setting; may be given several times. `equilibrist info RECIPE` lists a recipe's."
    ),
]
AuditSetOption = Annotated[
    list[str] | None, _set_option(help="A setting of the audit; may be given several times.")
]
GameSetOption = Annotated[list[str] | None, _set_option(help="An option of the game.")]

CompileOption = Annotated[
    str,
    typer.Option(
        help="The whole step as one compiled function: on, off, or auto (long runs, where it repays)."
    ),
]
KeepOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Checkpoints that stay on the disk; 3 unless the recipe has it otherwise."
    ),
]
PartsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cut every minibatch into so many parts: less memory. Under torchrun, the same bits for any number of "
        "processes that divides them.",
    ),
]
PerPartOption = Annotated[
    bool,
    typer.Option(
        "--per-part",
        help="With --parts, where losses depend on whole batches (batch norm): every part is a batch of its own.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root", help="Folder of data files (also the environment variable EQUILIBRIST_DATA)."
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force", help="Replace files of these names that equilibrist did not write, too."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
ProgressOption = Annotated[str, typer.Option(help="auto, bar, lines or none.")]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="FILE:FUNCTION",
        help="The recipe of a run that came from a file of your own: its code is loaded only if you name it.",
    ),
]
ThreadsOption = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's choice.")]

DeviceOption = Annotated[str, typer.Option(help=_DEVICES)]
IterateOption = Annotated[str, typer.Option(help=_ITERATES)]
StepOption = Annotated[int | None, typer.Option(help="Use this checkpoint, not the newest.")]

# The same three for `audit`, which refuses them for a pair that is no run: None means not given.
RunDeviceOption = Annotated[str | None, typer.Option(help=f"Of a run: {_DEVICES}")]
RunIterateOption = Annotated[str | None, typer.Option(help=f"Of a run: {_ITERATES}")]
RunStepOption = Annotated[
    int | None, typer.Option(help="Of a run: use this checkpoint, not the newest.")
]
