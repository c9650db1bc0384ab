"""What `audit_pair`, `Pair` and `Watch` take, in the forms in which users have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from equilibrist.checks._settings import Settings
from equilibrist.errors import DataError, RecipeError, did_you_mean
from equilibrist.formulations import Formulation, formulation_of
from equilibrist.formulations.named import is_formulation


def in_order(data: object, formulation: Any) -> tuple[object, Formulation]:
    """(data, formulation), whichever came first.

    Raises:
        DataError: neither is data.
        RecipeError, GameError: neither is a formulation (`formulation_of`).
    """
    if is_formulation(data):
        if is_formulation(formulation):
            raise DataError(
                f"data={data!r} is a formulation: pass real samples, as a tensor [N, ...] or a DataLoader"
            )
        data, formulation = formulation, data
    return data, formulation_of(formulation)


def known_settings(settings: Mapping[str, object]) -> dict[str, Any]:
    """These fields of `Settings`; RecipeError for an unknown name."""
    names = [f.name for f in fields(Settings)]
    for key in settings:
        if key not in names:
            hint = did_you_mean(key, names)
            raise RecipeError(f"an audit has no setting {key!r}{hint}; it has {', '.join(names)}")
    return dict(settings)


def settings_of(
    settings: Settings | Mapping[str, object] | None,
    gradients: int | None = None,
    batch: int | None = None,
) -> Settings:
    """Settings from a `Settings`, or from a dictionary of its fields, over those that a budget gives.

    Args:
        settings: a `Settings`, some of its fields by name, or None for the defaults.
        gradients: what the audit may spend (`Settings.within`).
        batch: samples in a minibatch, over the settings' own.

    Raises:
        RecipeError: a field that does not exist, a budget that is too small, or a budget together with a whole
            `Settings`, which has its own.
    """
    if settings is not None and not isinstance(settings, Settings | Mapping):
        raise RecipeError(
            f"settings={settings!r}: pass Settings(...) or a dictionary of its fields, {{'steps': 1000}}"
        )
    more: dict[str, Any] = {} if batch is None else {"batch": batch}
    if isinstance(settings, Settings):
        if gradients is not None:
            raise RecipeError(
                f"gradients={gradients} beside a whole Settings, which has its own budget: pass one of "
                "them, or settings as a dictionary of what differs"
            )
        return replace(settings, **more)
    given = known_settings({**(settings or {}), **more})
    gradients = given.pop("gradients", None) if gradients is None else gradients
    return Settings(**given) if not gradients else Settings.within(gradients, **given)
