"""The commands that make and audit a run, as the reader would type them."""

from equilibrist.files.reading import dig, quoted
from equilibrist.report._record import Json, RunRecord
from equilibrist.report.formatting import format_setting


def run_command(record: RunRecord) -> str | None:
    """The command that makes or resumes this run, with every setting.

    None without a recipe, and for a run that a Python program made: no command knows its recipe.
    """
    recipe = record.recipe
    if recipe is None or not record.text("recipe"):
        return None
    if record.origin == "python" or record.text("origin", "solver"):
        return None  # the latter is a member of a comparison, which `equilibrist compare` makes
    words = ["equilibrist", "run", recipe["recipe"], "--dir", record.where or record.name]
    words += _set(recipe.get("settings") or {})
    for key in ("seed", "device"):
        if recipe.get(key) is not None:
            words += [f"--{key}", format_setting(recipe[key])]
    # A resumed run is bit-identical only with the same number of threads.
    threads = record.sessions[0].get("threads") if record.sessions else None
    if isinstance(threads, int):
        words += ["--threads", str(threads)]
    return " ".join(map(quoted, words))


# What an audit runs unasked (`equilibrist.checks.CHECKS`, which would import torch).
DEFAULT_CHECKS = ("self-tests", "stationary", "stable", "local", "proximal", "nash")


def audit_command(
    record: RunRecord, settings: bool = False, more: tuple[str, ...] | None = None
) -> str:
    """The command that audits this run; with `settings`, exactly as its audit was made; with `more`, its checks
    and these."""
    if record.is_pair:
        return _pair_command(record, more)
    words = ["equilibrist", "audit", record.where or record.name]
    if record.origin in ("file", "python"):  # such code runs only where the user names it
        known = record.text("recipe") if record.origin == "file" else None
        words += ["--recipe", known or "FILE:FUNCTION"]
    if settings and record.audit is not None:
        if record.audit.step is not None:
            words += ["--step", str(record.audit.step)]
        simple = {k: v for k, v in record.audit.settings.items() if not isinstance(v, dict | list)}
        words += _set(simple)
    done: tuple[str, ...] = ()
    if (
        record.audit is not None
    ):  # self-tests run always, and are listed where they were asked for or failed
        reported = record.audit.find("self-tests") is not None
        asked = [name for name in record.audit.work if name != "facts"]
        done = tuple(name for name in asked if reported or name != "self-tests")
    if more is not None:
        checks = (*(done or DEFAULT_CHECKS), *(name for name in more if name not in done))
    else:
        checks = done if settings else ()
    if {"self-tests", *checks} not in ({"self-tests"}, set(DEFAULT_CHECKS)):
        words += [word for name in checks for word in ("--check", name)]
    return " ".join(map(quoted, words))


def _pair_command(record: RunRecord, more: tuple[str, ...] | None) -> str:
    """The command as it was typed, for the audit of a user's own pair; of one that Python made, what to write."""
    typed = dig(record.sessions[0] if record.sessions else None, "command")
    done = [name for name in (record.audit.work if record.audit else ()) if name != "facts"]
    checks = (*(name for name in done if name not in more), *more) if more else ()
    if isinstance(typed, list) and typed[1:2] == ["audit"]:
        words = ["equilibrist", *map(str, typed[1:])]
        while checks and "--check" in words[:-1]:
            at = words.index("--check")
            del words[at : at + 2]
    else:
        where = record.where or record.name
        words = ["equilibrist", "audit", "FILE.py:FUNCTION", "--out", where]
    return " ".join(map(quoted, [*words, *(word for name in checks for word in ("--check", name))]))


def _set(settings: Json) -> list[str]:
    return [word for k, v in settings.items() for word in ("--set", f"{k}={format_setting(v)}")]
