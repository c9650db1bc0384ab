"""The paper's statements on numbers: verdicts, agreement of the two ways, pictures."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

from equilibrist.theory import W2Gaussian, _section_3, _section_4
from equilibrist.theory.page import _count, theory_html, write_theory
from equilibrist.theory.statements import VERDICTS, Number, Setting, statements, two_shifts


@pytest.fixture(scope="module")
def found():
    return statements(Setting(1, 2.0, 0.5, 1.0))


FAILS = {
    "direction",
    "condition",
    "strong-convexity",
    "c-concave",
    "theorem-2-convexity",
    "theorem-3-theorem-1",
}


def test_verdicts(found) -> None:
    assert len({x.key for x in found}) == len(found) == 25
    verdicts = {x.key: x.verdict for x in found}
    assert {k for k, v in verdicts.items() if v == "fails"} == FAILS
    assert [k for k, v in verdicts.items() if v == VERDICTS[1]] == ["theorem-1-neyman"]
    assert {x.key for x in found if not x.printed} == {
        "c-concave",
        "theorem-2-convexity",
        "theorem-3-theorem-1",
        "f-gan-proximal",
    }
    assert all(number.agrees for x in found for number in x.numbers)
    unchecked = {x.key for x in found for n in x.numbers if n.checked is None}
    assert unchecked == {"theorem-1-pearson"}  # infinite at s = 2


def test_the_numbers_are_those_of_the_paper(found) -> None:
    said = {x.key: [n.closed for n in x.numbers] for x in found}
    assert said["theorem-1-w2gan"][:3] == pytest.approx([0.5, 0.5, -1.0])
    assert said["theorem-1-wgan"][0] == pytest.approx(math.sqrt(2 / math.pi))
    assert said["theorem-1-kl"] == pytest.approx([(3 - math.log(4)) / 2, math.expm1(1.5)])
    assert said["theorem-2"] == pytest.approx([1.0, 0.0])
    assert said["remark-1"][1] == pytest.approx(0.125)
    assert said["theorem-2-convexity"][0] < 0.5


def test_the_page_on_science_names_the_theorems_that_are_checked(found) -> None:
    kinds = r"(?:Proposition|Theorem|Remark|Corollary) \d"
    checked = {m for x in found if x.printed for m in re.findall(kinds, x.title.split(",")[0])}
    text = (Path(__file__).parents[2] / "docs/science.md").read_text(encoding="utf-8")
    assert set(re.findall(rf"^\| ({kinds})", text, re.M)) == checked


def test_numbers_that_disagree_are_told() -> None:
    assert Number("x", 1.0, 1.0 + 1e-7, "").agrees
    assert not Number("x", 1.0, 1.00001, "").agrees
    assert Number("x", math.inf, math.inf, "").agrees
    assert not Number("x", 1.0, math.nan, "").agrees
    assert Number("x", math.inf, None, "").agrees
    from equilibrist.theory._statement import verdict_on

    told = verdict_on("k", "t", "c", "a", [Number("x", 1.0, 2.0, "")], True, "w")
    assert told.verdict == "numbers disagree"


def test_other_sides_and_dimensions() -> None:
    """s < 1 gives Theorem 1 at 1/s; in two dimensions and with other eta and t nothing disagrees."""
    for setting in (Setting(2, 0.7, 3.0, 0.4),):
        assert setting.wide.s > 1 > setting.narrow.s
        parts = (*_section_3.PARTS, _section_4._translations, _section_4._theorem_3)
        for part in parts:
            for x in part(setting):
                assert x.verdict != "numbers disagree", x
                if x.key.startswith("theorem-1") or x.key == "remark-1":
                    assert x.verdict.startswith("holds")
            for number in x.numbers:
                assert number.checked is not None or x.key == "theorem-1-pearson"
    (pearson,) = [x for x in _section_3._theorem_1_f(Setting(1, 1.3)) if "Pearson" in x.title]
    assert pearson.numbers[0].checked is not None


def test_two_shifts_by_bisection() -> None:
    game = W2Gaussian(2, 2.0, 0.5, 1.0)
    star = two_shifts(game, 1.0, 1.25)
    e = np.eye(2)[0]
    critic = game.best_critic(np.eye(2), e)
    best = game.max_value(np.eye(2), e)
    assert game.v_prox(np.eye(2), -1.25 * e, *critic, 0.99 * star) > best
    assert game.v_prox(np.eye(2), -1.25 * e, *critic, 1.01 * star) < best
    assert star < game.theorem_2 < two_shifts(game, 1.0, 5.0) * 10


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"d": 0}, "d must lie between 1 and 6"),
        ({"d": 2.5}, "d must be a whole number"),
        ({"s": 0.0}, "s must lie between 0.25 and 4"),
        ({"s": 1.0}, "s must not be 1"),
        ({"eta": -1.0}, "eta must lie between"),
        ({"t": 0.0}, "t must lie between"),
        ({"t": math.nan}, "t must lie between"),
    ],
)
def test_bad_settings(numbers, words) -> None:
    with pytest.raises(ValueError, match=words):
        Setting(**numbers)


def test_page(found, tmp_path) -> None:
    setting = Setting(1, 2.0, 0.5, 1.0)
    text = theory_html(setting, found)
    for x in found:
        assert text.count(f'id="{x.key}"') == 1
        assert f'href="#{x.key}"' in text
    assert "18 hold, 1 holds although its condition fails, 6 fail" in text
    assert text.count("<figure>") == 6
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)
    assert (
        "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S).lower().split("<svg", 1)[1]
    )
    drawn = [
        float(v) for d in re.findall(r' d="M([^"]*)"', text) for v in re.findall(r"-?\d+\.?\d*", d)
    ]
    assert len(drawn) > 2000
    path = write_theory(setting, found, tmp_path / "x.html")
    assert path.read_text(encoding="utf-8") == text
    bad = dataclasses.replace(found[0], verdict="numbers disagree")
    assert "1 with numbers that disagree" in _count([bad])
