"""Auditing a run, as `run --audit` and `audit` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from equilibrist.errors import StoppedError

if TYPE_CHECKING:
    from equilibrist.checks import Audit
    from equilibrist.run import Run


def audit_run(
    run: Run,
    checks: Sequence[str],
    progress: str,
    settings: Mapping[str, Any] = MappingProxyType({}),
    iterate: str = "auto",
    gradients: int | None = None,
) -> Audit:
    """Audit a run and print what was found.

    Args:
        run: The run.
        checks: Names of the checks.
        progress: How progress is shown.
        settings: Values of `checks.Settings`.
        iterate: Which weights are audited: auto, average or last.
        gradients: About how many minibatch gradients to spend; None for the recipe's own numbers.

    Raises:
        StoppedError: Ctrl-C was pressed; finished checks are kept.
    """
    from equilibrist.checks import audit

    try:
        found = audit(
            run, checks=checks, progress=progress, iterate=iterate, gradients=gradients, **settings
        )
    except KeyboardInterrupt:
        raise StoppedError(
            "interrupted; the checks that are finished are kept: run the same command again to go on"
        ) from None
    print(found.details)
    return found
