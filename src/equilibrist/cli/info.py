"""The command `info`."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Annotated

import typer

from equilibrist.certificates import Json
from equilibrist.cli.options import JsonOption
from equilibrist.cli.output import say
from equilibrist.errors import RecordError
from equilibrist.files.reading import quoted


def info(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN", help="A recipe's name, file.py:function, or a run directory."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show a recipe's settings, or what a run directory holds."""
    if Path(what).is_dir():
        _show_run(Path(what), as_json)
    else:
        _show_recipe(what, as_json)


def _show_recipe(name: str, as_json: bool) -> None:
    from equilibrist.arguments import parameters
    from equilibrist.recipe_lookup import resolve

    resolved = resolve(name, complete=False)
    known = parameters(resolved.function)
    held = resolved.settings
    required = [key for key in known if key not in held]
    if as_json:
        more = {"required": required} if required else {}
        print(json.dumps({"recipe": resolved.name, "settings": held, **more}, indent=1))
        return
    print((resolved.function.__doc__ or "").strip())
    print(f"\nSettings of {resolved.name} (change them with --set key=value):")
    width = max(map(len, known), default=0)
    for key, parameter in known.items():
        value = repr(held[key]) if key in held else "required"
        print(f"  {key:{width}}  {value:12}  {_kind(parameter.annotation)}")


def _kind(annotation: object) -> str:
    """A setting's type as a user reads it: a class's name, or the choices."""
    choices = typing.get_args(annotation)
    if choices:
        return " | ".join(map(str, choices))
    return getattr(annotation, "__name__", str(annotation))


def _show_run(directory: Path, as_json: bool) -> None:
    manifest, parts = _read_run(directory)
    if as_json:
        print(json.dumps(manifest, indent=1))
        return
    say(
        f"{manifest['title'] or manifest['recipe']} ({manifest['recipe']}), seed {manifest['seed']}"
    )
    if status := manifest["status"]:
        say(f"{status['state']} at step {status['step']} of {manifest['steps']}")
    for line in parts:
        say(line)
    for claim, verdict in manifest.get("audit", {}).items():
        say(f"{claim}: {verdict}")
    if "audit" not in manifest:
        say(f"not audited yet: equilibrist audit {quoted(str(directory))}{_named(manifest)}")


def _read_run(directory: Path) -> tuple[Json, list[str]]:
    """Read a run directory without its recipe.

    Returns:
        The manifest with the entry "status" (or None), and "audit" where there is one (verdicts by claim);
        and a line each about the players, the data and the solver.

    Raises:
        RecordError: A file is missing or damaged.
    """
    from equilibrist.run.reading import read_json
    from equilibrist.run.record import Record

    manifest = Record(directory).manifest()
    status, answer = directory / "status.json", directory / "audit" / "audit.json"
    manifest["status"] = read_json(status) if status.exists() else None
    reading = status
    try:
        if manifest["status"] is not None:
            manifest["status"] = {k: manifest["status"][k] for k in ("state", "step", "message")}
        reading = answer
        if answer.exists():
            rows = read_json(answer)["certificates"]
            manifest["audit"] = {row["claim"]: row["verdict"] for row in rows}
        reading = Record(directory).manifest_path
        described = manifest["description"]
        parts = [
            f"{player}: {about['class']}, {int(about['parameters']):,} parameters"
            for player, about in described["game"]["players"].items()
        ]
        parts.append(f"data: {described['data']['source']}")
        parts.append(f"solver: {described['solver']['text']}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(
            f"{reading} is damaged: an entry is missing or of the wrong kind ({error})"
        ) from None
    return manifest, parts


def _named(manifest: Json) -> str:
    """The option --recipe that `audit` needs for this run, or "" where it needs none."""
    kind = manifest["origin"].get("kind")
    if kind == "builtin":
        return ""
    return f" --recipe {quoted(manifest['recipe']) if kind == 'file' else 'FILE:FUNCTION'}"
