"""Numbers that are what they should be, or an error that names whose they are."""

from __future__ import annotations

from numbers import Real
from typing import TypeGuard


def name_of(owner: object) -> str:
    """The name of an object's class; a text stands for itself."""
    return owner if isinstance(owner, str) else type(owner).__name__


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number: no text of one, no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def finite_number(owner: object, **values: object) -> None:
    """ValueError unless each value is a finite number."""
    for name, value in values.items():
        if not is_number(value) or not abs(value) < float("inf"):
            raise ValueError(f"{name_of(owner)}.{name} must be a finite number, not {value!r}")


def not_negative(owner: object, **values: object) -> None:
    """ValueError unless each value is a finite number of at least 0."""
    finite_number(owner, **values)
    for name, value in values.items():
        if is_number(value) and value < 0:
            raise ValueError(f"{name_of(owner)}.{name} must not be negative, not {value!r}")


def positive(owner: object, **values: float) -> None:
    """ValueError unless each value is positive and finite."""
    for name, value in values.items():
        if not is_number(value) or not 0 < value < float("inf"):
            raise ValueError(f"{name_of(owner)}.{name} must be positive, not {value!r}")


def at_least(owner: object, low: int, **values: int) -> None:
    """ValueError unless each value is a whole number of at least `low`."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(
                f"{name_of(owner)}.{name} must be a whole number of at least {low}, not {value!r}"
            )
