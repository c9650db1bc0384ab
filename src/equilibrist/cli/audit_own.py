"""The audit of a user's own pair, or of a critic alone, which a function in a file of theirs returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equilibrist.certificates import Json
from equilibrist.cli.output import say
from equilibrist.errors import EquilibristError, RecipeError, RecordError

if TYPE_CHECKING:
    from equilibrist.checks import Audit


def is_own(name: str) -> bool:
    """Whether this names a user's function and not a run directory."""
    if Path(name).is_dir():
        return False
    file, colon, _ = name.rpartition(":")
    return (bool(colon) and file.endswith(".py")) or name.endswith(".py")


def audit_own(
    name: str,
    checks: Sequence[str],
    progress: str,
    settings: Json,
    gradients: int | None,
    seed: int,
    out: Path,
) -> Audit:
    """Audit the pair, or the critic alone, that a user's function returns, and write the answer into `out`."""
    from equilibrist.checks.pair import Pair
    from equilibrist.checks.registry import named_checks
    from equilibrist.critics import LoneCritic

    chosen = named_checks(checks)
    if out.is_dir() and any(out.iterdir()) and not (out / "audit.json").is_file():
        raise RecordError(f"--out {out}: this exists and is no audit; name another folder")
    if out.parent.exists() and not out.parent.is_dir():
        raise RecordError(f"--out {out}: {out.parent} is no folder")
    value = _call_own(name)
    found: Audit
    if isinstance(value, LoneCritic):
        options = _critic_options(settings) | (
            {} if gradients is None else {"gradients": gradients}
        )
        found = value.audit(**options, seed=seed, progress=progress, out=out)
    else:
        found = Pair.of(value, name).audit(
            settings, gradients=gradients, checks=chosen, seed=seed, progress=progress, out=out
        )
    print(found.details)
    say(f"Report: {out / 'report.html'}")
    return found


def _critic_options(settings: Json) -> Json:
    """Settings that an audit of a critic alone has; RecipeError for others."""
    known = ("batch", "confidence", "tolerance", "absolute")
    for key in settings:
        if key not in known:
            raise RecipeError(
                f"--set {key}: the audit of a critic alone has no such setting; it has {', '.join(known)}"
            )
    return dict(settings)


def _call_own(name: str) -> object:
    """What the user's function FILE:FUNCTION returns; whatever it does wrong is a RecipeError."""
    from equilibrist.recipe_lookup import ENDED_PROGRAM, error_in_one_line, from_file

    function, _ = from_file(name)
    file = name.rpartition(":")[0]
    try:
        return function()
    except EquilibristError:
        raise
    except SystemExit as error:
        raise RecipeError(
            f"{name} {ENDED_PROGRAM} a pair: {error_in_one_line(error, file)}"
        ) from error
    except Exception as error:
        raise RecipeError(f"{name} fails: {error_in_one_line(error, file)}") from error
