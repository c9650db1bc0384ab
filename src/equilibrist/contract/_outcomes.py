"""What became of a check: passed, failed or excluded, each with what was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

Status = Literal["passed", "failed", "excluded"]


class CheckOutcome(NamedTuple):
    """One check: `seen` says what was measured, what went wrong, or why it was left out."""

    check: str
    status: Status
    seen: str

    def __str__(self) -> str:
        return f"{self.check}: {self.status} ({self.seen})"


class NotApplicable(Exception):  # noqa: N818
    """Raised by a check that does not apply, with the reason."""


def outcome_of(
    name: str,
    check: Callable[[], str],
    excluded: str | None = None,
    failures: type[Exception] | tuple[type[Exception], ...] = AssertionError,
) -> CheckOutcome:
    """What became of one check; `excluded` is the reason to leave it out."""
    if excluded is not None:
        return CheckOutcome(name, "excluded", excluded)
    try:
        return CheckOutcome(name, "passed", check())
    except NotApplicable as why:
        return CheckOutcome(name, "excluded", str(why))
    except failures as why:
        return CheckOutcome(name, "failed", str(why))


def require(outcomes: Iterable[CheckOutcome]) -> None:
    """Raise an error that names every failed check; do nothing where none failed.

    Args:
        outcomes: of `check_solver` or `check_game`.

    Raises:
        AssertionError: a check failed; each of them is named.
    """
    failed = [str(outcome) for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise AssertionError("; ".join(failed))


def ensure(holds: bool, otherwise: str) -> None:
    """AssertionError with this message unless the condition holds."""
    if not holds:
        raise AssertionError(otherwise)
