"""The command `equilibrist`. Nothing here imports torch before it must."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from equilibrist import commands_audit, commands_play, commands_theory
from equilibrist._errors import (
    EquilibristError,
    RecipeError,
    RecordError,
    StoppedError,
    did_you_mean,
)
from equilibrist._reading import printable, quoted
from equilibrist._start import leave, start

if TYPE_CHECKING:
    from equilibrist.run import Run

INTERRUPTED = 130
DIVERGED = 4
MOST_THREADS = 1024
EXIT_CODES = (
    "Exit codes: 0 done; 1 an unforeseen fault; 2 a wrong name, setting or option; 3 data or a run "
    "directory missing or damaged; 4 training diverged; 5 a required claim does "
    "not hold; 130 interrupted (saved: run the same command again to go on)."
)


class _Commands(TyperGroup):
    """Ends every command that Ctrl-C stops with a word: the group itself would exit in silence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StoppedError("interrupted") from None


app = typer.Typer(
    name="equilibrist",
    cls=_Commands,
    help="Train GANs as the two-player games they are, then say with evidence which equilibrium they "
    "reached.\n\nFirst steps: `equilibrist list`, `equilibrist run digits-sngan`, "
    "`equilibrist audit runs/digits-sngan`, then open runs/digits-sngan/report.html.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from equilibrist import __version__

        print(f"equilibrist {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and leave."
        ),
    ] = False,
) -> None:
    pass


RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, as made by `equilibrist run`.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting; may be given several times. `equilibrist info RECIPE` lists a recipe's.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1, ...")
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root", help="Folder of data files (also the environment variable EQUILIBRIST_DATA)."
    ),
]
IterateOption = Annotated[
    str,
    typer.Option(
        help="auto (the average where the run keeps one), average, or last.",
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force", help="Replace files of these names that equilibrist did not write, too."
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="FILE:FUNCTION",
        help="The recipe of a run that came from a file of your own: its code is loaded only if you name it.",
    ),
]
ProgressOption = Annotated[str, typer.Option(help="auto, bar, lines or none.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's choice.")]


@app.command()
def run(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (`equilibrist list`), or file.py:function.")
    ],
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
    threads: ThreadsOption = 0,
    progress: ProgressOption = "auto",
) -> None:
    """Train a recipe. Running it again goes on where it stopped.

    Example: equilibrist run mnist-sngan --set dim=16 --set steps=20000 --dir runs/sngan
    """
    _prepare(data_root, threads, progress)
    resolved = _resolved(recipe, _pairs(settings))
    from equilibrist.run import train

    where = directory or Path("runs") / _folder_name(resolved.name)
    built = resolved.build()
    from equilibrist._owned import require_free
    from equilibrist.run.record import Record

    try:
        Record(where).refuse_foreign()
        require_free(where, "report.json", "report.html")  # before the work
    except RecordError as error:
        named = str(error) if "--dir" in str(error) else f"{error} (--dir)"
        raise RecordError(named) from error
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
        )
    except KeyboardInterrupt:
        _complain(
            f"interrupted at once; {where} goes on from its last checkpoint when it is run again"
        )
        raise typer.Exit(INTERRUPTED) from None
    if trained.interrupted:
        _report(where)
        _say(f"Stopped and saved at step {trained.step}. Run the same command again to go on.")
        raise typer.Exit(INTERRUPTED)
    if trained.diverged:  # a warning has said why
        _report(where)
        _say(f"Diverged: all {trained.step} steps are done and saved in {where}.")
        raise typer.Exit(DIVERGED)
    _say(f"Trained to step {trained.step} in {where}")
    if audit_too:
        from equilibrist.checks import CHECKS

        _audit(trained, {}, CHECKS, progress)
    _say(f"Report: {_report(where)}")
    if not audit_too:
        own = "" if resolved.origin["kind"] == "builtin" else f" --recipe {quoted(recipe)}"
        _say(f"Next: equilibrist audit {quoted(str(where))}{own}")


app.command()(commands_audit.audit)


@app.command()
def report(directory: RunArgument) -> None:
    """Write RUN/report.html and RUN/report.json from the run directory alone."""
    _say(f"Report: {_report(directory)}")


@app.command()
def sample(
    directory: RunArgument,
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many.")] = 64,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .png sheet (images) or a .npy array [n, ...].")
    ] = Path("samples.npy"),
    index: Annotated[int, typer.Option(min=0, help="Another index, other latents.")] = 0,
    step: Annotated[int | None, typer.Option(help="From this checkpoint, not the newest.")] = None,
    iterate: IterateOption = "auto",
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    data_root: DataOption = None,
    force: ForceOption = False,
) -> None:
    """Generate samples from a trained run: the same seed and index give the same samples.

    A file that an earlier `sample` wrote is replaced; any other is kept, unless --force gives it up.
    """
    _prepare(data_root, 0)
    if out.suffix not in (".png", ".npy"):
        raise RecipeError(f"--out {out}: the name must end in .png or .npy")
    if out.is_dir():
        raise RecipeError(f"--out {out}: this is a folder; name a file in it")
    if not out.parent.is_dir():
        raise RecordError(f"--out {out}: the folder {out.parent} does not exist")
    from equilibrist._owned import publish, require_free

    require_free(out.parent, out.name, force=force)
    call = f"{{run}}.samples({n})"
    subject = _loaded(directory, recipe, device, step, data=False, call=call)
    from equilibrist.run import samples

    if out.suffix == ".png" and subject.data.kind == "points":
        raise RecordError(
            f"--out {out}: this run generates points, not images; use a name ending in .npy"
        )
    values = subject.samples(n, index, iterate)
    is_sheet = out.suffix == ".png"
    content = samples.sheet(values, subject.data)[1] if is_sheet else samples.array(values)
    publish(out.parent, {out.name: content}, force=force)
    _say(f"{n} samples of shape {list(values.shape[1:])}: {out}")


@app.command()
def export(
    directory: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; RUN/export if left out.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="From this checkpoint, not the newest.")] = None,
    iterate: IterateOption = "auto",
    recipe: RecipeOption = None,
    data_root: DataOption = None,
    force: ForceOption = False,
) -> None:
    """Write plain state_dicts as safetensors: generator.safetensors and critic.safetensors.

    Load them with safetensors.torch.load_file and module.load_state_dict. Spectral normalisation is
    folded into the critic's weights. Files that an earlier `export` wrote are replaced; any others are
    kept, unless --force gives them up.
    """
    _prepare(data_root, 0)
    call = "run = {run}; run.recipe.game.load(run.pair(), run.constants)"
    subject = _loaded(directory, recipe, "cpu", step, data=False, call=call)
    from equilibrist.run import samples

    folder = out.resolve() if out else directory / "export"
    paths = samples.export(
        subject.recipe.game, subject.pair(iterate), subject.constants, folder, force=force
    )
    for path in paths:
        _say(str((out or folder) / path.name))


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """List the recipes that can be run."""
    from equilibrist._resolve import catalogue

    rows = {
        name: (function.__doc__ or "").strip().splitlines()[0]
        for name, function in catalogue().items()
    }
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    width = max(map(len, rows), default=0)
    for name, line in rows.items():
        print(f"{name:{width}}  {line}")


@app.command()
def info(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN", help="A recipe's name, file.py:function, or a run directory."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show a recipe's settings, or what a run directory holds."""
    if Path(what).is_dir():
        _info_run(Path(what), as_json)
        return
    from equilibrist._resolve import parameters, resolve

    resolved = resolve(what, complete=False)
    kinds = parameters(resolved.function)
    held = resolved.settings
    required = [key for key in kinds if key not in held]
    if as_json:
        more = {"required": required} if required else {}
        print(json.dumps({"recipe": resolved.name, "settings": held, **more}, indent=1))
        return
    print((resolved.function.__doc__ or "").strip())
    print(f"\nSettings of {resolved.name} (change them with --set key=value):")
    width = max(map(len, kinds), default=0)
    for key, p in kinds.items():
        print(
            f"  {key:{width}}  {repr(held[key]) if key in held else 'required':12}  {_kind(p.annotation)}"
        )


app.command()(commands_play.play)
app.command()(commands_play.spectrum)
app.command()(commands_theory.theory)


def main(arguments: list[str] | None = None) -> int:
    """Entry point: every error that a user can act upon is one line on stderr, with its exit code."""
    from typer.exceptions import Abort, TyperException

    _warn_in_one_line()
    try:
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()  # here, where a reader that has left is known what to do with
        return int(code or 0)
    except EquilibristError as error:
        _complain(str(error))
        return error.exit_code
    except TyperException as error:
        text = getattr(error, "format_message", error.__str__)()
        if text:  # empty where the help was shown for want of arguments
            _complain(f"{text} (see equilibrist --help)")
        return 2
    except (Abort, KeyboardInterrupt):
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # Files that this product writes name themselves: what has no name is its output.
        _complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
        return 3
    except SystemExit as error:  # nothing here raises it: a success of it would be another's word
        if isinstance(error.__context__, BrokenPipeError):  # but for click, where a reader has left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        _complain(
            f"code of yours ended the program (sys.exit({error.code!r})) before its work was done"
        )
        return 2
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """A fault that no check foresaw, in one line; the whole story on request."""
    if os.environ.get("EQUILIBRIST_TRACEBACK"):
        raise error
    text = str(error).splitlines()[0] if str(error) else "no message"
    _complain(
        f"unexpected {type(error).__name__}: {text} (a fault of the recipe or of equilibrist: "
        "EQUILIBRIST_TRACEBACK=1 shows where)"
    )
    return 1


def script() -> None:
    """What commands call that were installed by an earlier version."""
    start(lambda: main)


# -- helpers --------------------------------------------------------------------------------------------


def _warn_in_one_line() -> None:
    """Warnings of this command, each once, as its errors are told."""
    said: set[str] = set()

    def warn(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in said:  # the same words from two places tell a person nothing new
            said.add(str(message))
            _complain(str(message), "warning")

    warnings.showwarning = warn


def _prepare(data_root: Path | None, threads: int, progress: str = "auto") -> None:
    if progress not in ("auto", "bar", "lines", "none"):
        raise RecipeError(f"--progress {progress} is not one of auto, bar, lines, none")
    if data_root is not None:
        os.environ["EQUILIBRIST_DATA"] = str(data_root)
    if (
        threads > MOST_THREADS
    ):  # many more, and the operating system ends the process without a word
        raise RecipeError(
            f"--threads {threads}: at most {MOST_THREADS}; this machine has {os.cpu_count()} cores"
        )
    if signal.getsignal(signal.SIGINT) is leave:
        # An interrupt out of the middle of torch's import comes as anything, or not at all. From here
        # on there may be files to finish with.
        import torch

        signal.signal(signal.SIGINT, signal.default_int_handler)
    if threads:
        import torch

        torch.set_num_threads(threads)


def _resolved(name: str, settings: dict[str, Any], builtin: bool = False) -> Any:
    from equilibrist._resolve import resolve

    return resolve(name, settings, builtin=builtin)


def _requirements(claims: list[str], checks: tuple[str, ...]) -> list[tuple[str, bool]]:
    """(claim, must be verified) of each --require, refused before an audit is paid for."""
    from equilibrist.checks import REGISTRY

    # An unknown check is told by the audit itself.
    known = [c for name in checks if name in REGISTRY for c in REGISTRY[name].claims or (name,)]
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


def _pairs(settings: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in settings or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {text}: write it as key=value")
        if key in pairs:
            raise RecipeError(f"--set {key} is given twice: give it once")
        pairs[key] = value
    return pairs


def _folder_name(name: str) -> str:
    return Path(name.replace(":", "-")).name.replace(".py-", "-") if ":" in name else name


AUDIT = "eq.audit({run})"


def _loaded(
    directory: Path,
    recipe: str | None,
    device: str,
    step: int | None,
    data: bool = True,
    call: str = AUDIT,
) -> Run:
    """A run with its recipe rebuilt. A recipe's own file is executed only if the user names it. Without `data`,
    files of data are read only where conditions come from them. `call` is what does the same in Python."""
    from equilibrist.run import load
    from equilibrist.run.record import Record

    manifest = Record(directory).manifest()
    name, origin = manifest["recipe"], manifest["origin"]
    builtin = origin.get("kind") == "builtin"
    if builtin and recipe is not None:
        raise RecipeError(
            f"--recipe {recipe}: {directory} came from the recipe {name}; leave --recipe out"
        )
    if not builtin:
        if recipe is None:
            raise RecordError(_unasked(directory, name, origin, call))
        name = recipe
    resolved = _resolved(name, manifest["settings"], builtin)
    if origin.get("kind") == "file" and resolved.origin.get("sha256") != origin.get("sha256"):
        _complain(f"{name} has changed since {directory} was trained", "warning")
    built = resolved.build() if data else _built_without_data(resolved, manifest["description"])
    if text := origin.get(
        "solver"
    ):  # a member of a comparison, with another solver than the recipe's
        import dataclasses

        from equilibrist.solvers.named import named

        built = dataclasses.replace(built, solver=named(text, built.solver))
    return load(directory, built, device=device, step=step)


def _unasked(directory: Path, name: str, origin: dict[str, Any], call: str) -> str:
    """Why a run of a user's own code is not rebuilt, and what to do."""
    if origin.get("kind") == "file":
        return (
            f"{directory} was made by code of your own, which is not run unasked: "
            f"add --recipe {quoted(name)}"
        )
    run = f"eq.load({str(directory)!r}, recipe)"
    return (
        f"{directory} was made by a Python program, whose recipe is not in it: call {call.format(run=run)} there, "
        "or put the recipe into a function and add --recipe FILE.py:FUNCTION"
    )


def _built_without_data(resolved: Any, described: dict[str, Any]) -> Any:
    """The recipe of this description with its data unread; with them where the game is made from them, or its
    conditions are."""
    from equilibrist._files import finite
    from equilibrist.data._absent import unread

    try:
        with unread(described.get("data") or {}):
            built = resolved.build()
        same = finite(built.game.describe()) == described.get("game")
        if same and not isinstance(built.game.condition, tuple):
            return built
    except EquilibristError:
        pass  # the same, or what is wrong with the data, is said below
    return resolved.build()


def _audit(
    subject: Run,
    settings: dict[str, Any],
    checks: tuple[str, ...],
    progress: str,
    iterate: str = "auto",
    gradients: int | None = None,
) -> Any:
    from equilibrist.checks import audit as check

    budget: dict[str, Any] = {} if gradients is None else {"gradients": gradients}
    try:
        found = check(
            subject, checks=checks, progress=progress, iterate=iterate, **budget, **settings
        )
    except KeyboardInterrupt:
        raise StoppedError(
            "interrupted; the checks that are finished are kept: run the same command again to go on"
        ) from None
    print(found)
    return found


def _audit_settings(pairs: dict[str, str]) -> dict[str, Any]:
    """Values of `checks.Settings`, by the types of its fields."""
    import dataclasses

    from equilibrist._resolve import convert
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
        k: tuple(convert(piece, float, f"audit: {k}") for piece in v.split(","))
        if typed[k] is tuple
        else convert(v, typed[k], f"audit: {k}")
        for k, v in pairs.items()
    }


def _report(directory: Path) -> Path:
    from equilibrist.report import write_report

    return write_report(directory)


def _info_run(directory: Path, as_json: bool) -> None:
    from equilibrist.run.record import Record, read_json

    manifest = Record(directory).manifest()
    status, answer = directory / "status.json", directory / "audit" / "audit.json"
    manifest["status"] = read_json(status) if status.exists() else None
    concerned = status
    try:
        if manifest["status"] is not None:
            manifest["status"] = {k: manifest["status"][k] for k in ("state", "step", "message")}
        concerned = answer
        if answer.exists():
            rows = read_json(answer)["certificates"]
            manifest["audit"] = {row["claim"]: row["verdict"] for row in rows}
        concerned = Record(directory).manifest_path
        players = manifest["description"]["game"]["players"].items()
        counts = {player: (about["class"], int(about["parameters"])) for player, about in players}
        sources = (
            manifest["description"]["data"]["source"],
            manifest["description"]["solver"]["text"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(
            f"{concerned} is damaged: an entry is missing or of the wrong kind ({error})"
        ) from None
    if as_json:
        print(json.dumps(manifest, indent=1))
        return
    _say(
        f"{manifest['title'] or manifest['recipe']} ({manifest['recipe']}), seed {manifest['seed']}"
    )
    if manifest["status"]:
        _say(
            f"{manifest['status']['state']} at step {manifest['status']['step']} of {manifest['steps']}"
        )
    for player, (kind, count) in counts.items():
        _say(f"{player}: {kind}, {count:,} parameters")
    _say(f"data: {sources[0]}")
    _say(f"solver: {sources[1]}")
    for claim, verdict in manifest.get("audit", {}).items():
        _say(f"{claim}: {verdict}")
    if "audit" not in manifest:
        kind = manifest["origin"].get("kind")
        own = (
            ""
            if kind == "builtin"
            else f" --recipe {quoted(manifest['recipe']) if kind == 'file' else 'FILE:FUNCTION'}"
        )
        _say(f"not audited yet: equilibrist audit {quoted(str(directory))}{own}")


def _kind(annotation: Any) -> str:
    import typing

    choices = typing.get_args(annotation)
    return (
        " | ".join(map(str, choices))
        if choices
        else getattr(annotation, "__name__", str(annotation))
    )


def _say(text: str) -> None:
    print(printable(text), flush=True)


def _complain(text: str, kind: str = "error") -> None:
    line = printable(" ".join(text.split()))
    print(f"equilibrist: {kind}: {line}", file=sys.stderr, flush=True)


from equilibrist import commands_compare  # noqa: E402, F401 (adds the command; it needs what stands above)
