"""A budget of gradients is planned, kept, or refused with the least that would do."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import equilibrist as eq
from equilibrist.checks import CHECKS, Settings, _budget


def mlp(a: int, b: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(a, width), nn.Tanh(), nn.Linear(width, b))


def audited(
    settings: Settings, width: int = 16, size: int = 2000, kind: str = "", **options: Any
) -> Any:
    torch.manual_seed(0)
    if kind == "penalised":
        options["penalties"] = [eq.GradientPenalty()]
    generator = mlp(4, 2, width)
    if kind == "normed":
        generator.insert(1, nn.BatchNorm1d(width))
    return eq.audit_pair(
        generator,
        mlp(2, 1, width),
        torch.randn(size, 2),
        eq.Vanilla(),
        latent=4,
        progress="none",
        settings=settings,
        **options,
    )


def kept(audit: Any, gradients: int, whole: bool = True) -> None:
    assert sum(spent["planned"] for spent in audit.work.values()) <= 1.1 * gradients
    assert sum(spent["gradients"] for spent in audit.work.values()) <= 1.1 * gradients
    for spent in audit.work.values() if whole else ():
        assert spent["gradients"] <= 1.1 * spent["planned"]


@pytest.mark.parametrize(
    ("gradients", "width", "size", "checks"),
    [
        (500, 16, 2000, CHECKS),
        (900, 64, 700, CHECKS),
        (1500, 4, 6000, CHECKS),
        (200, 16, 2000, ("nash",)),
        (400, 16, 2000, ("stationary", "nash")),
        (400, 16, 2000, ("stationary", "stable")),
    ],
)
def test_what_is_planned_and_spent_stays_within_the_budget(
    gradients: int, width: int, size: int, checks: tuple[str, ...]
) -> None:
    audit = audited(Settings.within(gradients), width, size, checks=checks)
    planned = sum(spent["planned"] for spent in audit.work.values())
    spent = sum(spent["gradients"] for spent in audit.work.values())
    assert planned <= 1.1 * gradients
    assert spent <= 1.1 * gradients
    assert spent >= 0.3 * gradients
    assert {c.partition("/")[0] for c in audit} >= set(checks) & {"nash", "stationary", "stable"}


def test_a_budget_that_is_too_small_names_the_least_which_then_does() -> None:
    with pytest.raises(eq.RecipeError, match="give at least") as raised:
        audited(Settings.within(150))
    least = int(re.search(r"at least (\d+)", str(raised.value))[1])  # type: ignore[index]
    assert least > 150
    audit = audited(Settings.within(least))
    assert sum(spent["planned"] for spent in audit.work.values()) <= 1.1 * least


@pytest.mark.parametrize(
    ("kind", "checks"),
    [
        ("normed", ("stable",)),
        ("penalised", ("local",)),
        ("normed", ("proximal",)),
        ("penalised", ("local", "proximal")),
        ("normed", ("stationary", "local", "nash")),
        ("normed", CHECKS),
        ("penalised", CHECKS),
    ],
    ids=lambda given: given if isinstance(given, str) else "+".join(given),
)
def test_the_least_that_is_named_does_and_nothing_spends_more_than_it_may(
    kind: str, checks: tuple[str, ...]
) -> None:
    options: dict[str, Any] = {"checks": checks, "width": 8, "kind": kind}
    with pytest.raises(eq.RecipeError, match="give at least") as raised:
        audited(Settings.within(60), **options)
    least = int(re.search(r"at least (\d+)", str(raised.value))[1])  # type: ignore[index]
    with pytest.raises(eq.RecipeError, match=f"at least {least}"):
        audited(Settings.within(least - 1), **options)
    for gradients in (least, 2 * least):
        kept(audited(Settings.within(gradients), **options), gradients)


@pytest.mark.parametrize("check", ["gaps", "lambda-search", "generator-vs-prox"])
def test_searches_against_answering_critics_follow_from_the_budget(check: str) -> None:
    with pytest.raises(eq.RecipeError, match="give at least") as raised:
        audited(Settings.within(60), checks=(check,), width=8)
    least = int(re.search(r"at least (\d+)", str(raised.value))[1])  # type: ignore[index]
    assert least < 5000
    found = audited(Settings.within(least), checks=(check,), width=8)
    kept(found, least)
    assert check == "gaps" or not found[check].summary.startswith("Not assessed")


def test_a_check_that_takes_more_than_its_part_is_stopped(monkeypatch: Any) -> None:
    from equilibrist.checks import registry

    check = registry.REGISTRY["stationary"]

    def endless(context: Any, tick: Any, show: Any) -> Any:
        while True:
            tick(2.0)

    monkeypatch.setitem(registry.REGISTRY, "stationary", replace(check, run=endless))
    found = audited(Settings.within(300), checks=("stationary", "nash"))
    kept(found, 300, whole=False)
    assert [found[claim].verdict.value for claim in check.claims] == ["UNASSESSED"] * 3
    assert "its part of the budget of 300 gradients" in found["stationary"].summary
    assert found.work["nash"]["gradients"] > 50


@pytest.mark.parametrize("wrong", [10, 59, True, 1.5, "600"])
def test_what_is_no_budget_is_refused(wrong: Any) -> None:
    with pytest.raises(eq.RecipeError, match="too small for an audit"):
        Settings.within(wrong)


def test_a_budget_takes_fields_of_settings_and_the_checks_of_former_versions() -> None:
    assert Settings.within(600, checks=("nash",)) == Settings.within(600)
    with pytest.raises(eq.RecipeError, match=r"no setting 'step' \(did you mean steps"):
        Settings.within(600, step=3)


def test_what_was_given_beside_a_budget_stays_as_it_is() -> None:
    audit = audited(Settings.within(600, groups=4, confidence=0.9, starts=2), checks=("nash",))
    assert audit.settings.groups == 4
    assert audit.settings.confidence == 0.9
    assert audit.settings.starts == 2
    assert audit.settings.steps > 100


def test_without_a_budget_settings_are_left_alone() -> None:
    settings = Settings(steps=7, starts=1, groups=3, group_batches=1)
    assert audited(settings, checks=("nash",)).settings == settings


# What a budget buys, in full: a change of these numbers is a change of every audit with a budget.
@pytest.mark.parametrize(
    ("gradients", "groups", "group_batches", "batches", "look_batches", "looks"),
    [
        (100, 5, 1, 8, 4, 8),
        (299, 5, 2, 8, 4, 8),
        (300, 5, 2, 16, 8, 8),
        (1199, 5, 8, 16, 8, 8),
        (1200, 10, 4, 16, 8, 8),
        (1500, 10, 6, 32, 16, 20),
        (6000, 10, 8, 64, 16, 20),
    ],
)
def test_samples_that_a_budget_buys(
    gradients: int, groups: int, group_batches: int, batches: int, look_batches: int, looks: int
) -> None:
    bought = _budget._first(Settings(gradients=gradients))
    assert (bought.groups, bought.group_batches) == (groups, group_batches)
    assert (bought.batches, bought.look_batches, bought.looks) == (batches, look_batches, looks)


@pytest.mark.parametrize(
    ("share", "spectrum", "local"),
    [
        (0, (1, 0, 10), (1, 2, 8)),
        (149, (1, 42, 18), (1, 4, 29)),
        (150, (1, 42, 18), (2, 5, 30)),
        (480, (1, 137, 60), (2, 8, 96)),
        (1199, (1, 342, 60), (2, 8, 160)),
        (1200, (2, 342, 60), (2, 8, 160)),
    ],
)
def test_second_order_that_a_budget_buys(
    share: float, spectrum: tuple[int, ...], local: tuple[int, ...]
) -> None:
    bought = _budget._second(share)
    assert tuple(bought[f"spectrum_{k}"] for k in ("batches", "dense", "products")) == spectrum
    assert tuple(bought[f"local_{k}"] for k in ("draws", "batches", "products")) == local


def test_searches_against_answering_critics_reach_from_the_least_to_the_defaults() -> None:
    defaults = Settings()
    names = ("prox_steps", "inner_steps", "prox_trials", "experiment_steps", "look_batches")
    least, most = _budget._against(0.0), _budget._against(1.0)
    assert [least[n] for n in names] == [4, 8, 2, 10, 4]
    assert [most[n] for n in names] == [getattr(defaults, n) for n in names]
    assert (least["prox_starts"], most["prox_starts"]) == (1, defaults.prox_starts)
    grid = defaults.prox_lambdas
    assert [len(_budget._against(x)["prox_lambdas"]) for x in (0.3, 0.6, 0.7)] == [
        len(grid[::3]),
        len(grid[::2]),
        len(grid),
    ]
    halfway = _budget._against(0.5)["prox_steps"]
    assert halfway == round((4 * defaults.prox_steps) ** 0.5)  # sizes grow by a constant factor


def test_the_cheapest_plan_is_the_least_of_every_size() -> None:
    cheapest = _budget._cheapest(Settings(gradients=1000))
    for name, value in {**_budget._second(0.0), **_budget._against(0.0)}.items():
        assert getattr(cheapest, name) == value, name
    assert (cheapest.groups, cheapest.group_batches, cheapest.looks) == (5, 1, 4)
