"""The commands `zoo`, `zoo run` and `zoo show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equilibrist.cli.options import JsonOption, ProgressOption
from equilibrist.cli.output import say
from equilibrist.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from equilibrist.zoo import Case

zoo = typer.Typer(
    name="zoo",
    help="Small training loops whose faults are known, and healthy ones: list them, show one, diagnose all.",
    invoke_without_command=True,
)


@zoo.callback()
def list_cases(context: typer.Context, as_json: JsonOption = False) -> None:
    """Small training loops whose faults are known, and healthy ones: list them, show one, diagnose all.

    Example: equilibrist zoo
    """
    if context.invoked_subcommand:
        return
    from equilibrist.diagnosis import VOCABULARY
    from equilibrist.zoo import CASES

    rows = [
        {"name": c.name, "fault": c.fault, "half": c.half, "twin": c.twin, "about": c.about}
        for c in CASES.values()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    order = {name: place for place, name in enumerate([*VOCABULARY, ""])}
    shown = [c for c in CASES.values() if c.fault or not c.twin]
    shown.sort(key=lambda c: order[c.fault])
    width = max(len(c.name) for c in shown)
    for c in shown:
        say(f"{c.name:{width}}  {c.fault or 'healthy':22}  {c.half}")
    faults = {c.fault for c in shown if c.fault}
    twins = sum(bool(c.fault) for c in shown)
    say(
        f"{twins} faulty loops of {len(faults)} faults, a healthy twin of each (NAME-twin), and "
        f"{len(shown) - twins} loops of usual practice"
    )


@zoo.command()
def run(
    half: Annotated[str, typer.Option(help="development or held-back; both if left out.")] = "",
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A case, or a fault with its twins; may be given several times."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds of each case; 3 of usual practice, else 1.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    out: Annotated[Path, typer.Option("--out", "-o", help="The record, as JSON lines.")] = Path(
        "zoo.jsonl"
    ),
    as_json: JsonOption = False,
    progress: ProgressOption = "auto",
) -> None:
    """Diagnose every case, and print how often the cause was named first and healthy loops were let alone.

    What the record holds already, by the same code, is not computed again: after Ctrl-C run the same again.

    Example: equilibrist zoo run --half development --jobs 2
    """
    from equilibrist.zoo import CASES
    from equilibrist.zoo import run as run_zoo

    names = [name for wanted in only or [] for name in _names(wanted)] if only else list(CASES)
    chosen = None if seeds is None else range(seeds)
    found = run_zoo(names, seeds=chosen, half=half, out=out, jobs=jobs, progress=progress)
    if as_json:
        print(json.dumps(found.describe(), indent=1))
        return
    for line in str(found).splitlines():
        say(line)
    for r in found.misses:
        what = r.error or ", ".join(f["name"] for f in r.found if f.get("level") != "note")
        say(f"missed: {r.case}, seed {r.seed}: {r.fault or 'healthy'}; found {what or 'nothing'}")
    say(f"Record: {out}")


def _names(wanted: str) -> list[str]:
    """A case, or the cases of a fault with their twins."""
    from equilibrist.zoo import CASES

    of_fault = [c for c in CASES.values() if c.fault == wanted]
    return [x for c in of_fault for x in (c.name, c.twin)] or [_case(wanted).name]


@zoo.command()
def show(
    name: Annotated[str, typer.Argument(help="A case (`equilibrist zoo` lists them).")],
) -> None:
    """Print the script of a case, with the line that is its fault, the cause and the cure.

    Example: equilibrist zoo show critic-loss-only-logged-ring
    """
    c = _case(name)
    from equilibrist.diagnosis import VOCABULARY
    from equilibrist.zoo import KITS

    faulty = c.fault or (_case(c.twin).fault if c.twin else "")
    say(f"{c.name} ({c.half} half): {c.fault or 'healthy'}")
    say(f"variant: {KITS[c.kit][0]}")
    if c.twin:
        say(f"twin:    {c.twin}")
    if faulty:
        say(f"cause:   {VOCABULARY[faulty].cause}")
        say(f"cure:    {VOCABULARY[faulty].cure}")
    print(f"\n{c.source}", end="", flush=True)


def _case(name: str) -> Case:
    from equilibrist.zoo import CASES

    if name not in CASES:
        raise RecipeError(
            f"the zoo has no {name!r}{did_you_mean(name, CASES)}: see equilibrist zoo"
        )
    return CASES[name]
