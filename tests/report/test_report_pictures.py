"""The cards and pictures of the second-order and proximal claims: what they show, and what no record may break."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_rows import certificate, edited, eigenvalues, gap, profile, stable, whole
from test_report_page import NASTY, Page, spoil

from equilibrist.report import write_report
from equilibrist.report._claims import (
    BADGES,
    claim_meaning,
    claim_question,
    claim_short,
    claim_title,
)
from equilibrist.report._lambda_axis import LambdaAxis, scale_chart
from equilibrist.report._load import load_record
from equilibrist.report._meanings import MEANINGS
from equilibrist.report._measures import lambda_words, measure_of
from equilibrist.report._profile import profile_of
from equilibrist.report._record import CertificateRecord, Tolerance, Verdict
from equilibrist.report._spectrum import eigenvalues_of, spectrum_section, step_size_of
from equilibrist.report.charts import WIDE, Axes, labelled, ticks

Make = Callable[..., Path]


def read(entry: dict[str, Any]) -> CertificateRecord:
    """An entry of audit.json as the report holds it."""
    kept = {k: v for k, v in entry.items() if k not in ("verdict", "tolerance")}
    return CertificateRecord(
        **kept, verdict=Verdict(entry["verdict"]), tolerance=Tolerance(0.02, "nats", "")
    )


def section(run: Path, name: str) -> str:
    text = write_report(run).read_text(encoding="utf-8")
    found = re.search(rf'<section id="{name}".*?</section>', text, re.DOTALL)
    return found[0] if found else ""


def test_every_section_is_there_in_order_and_pictures_lie_at_their_claims(make_run: Make) -> None:
    page = Page(write_report(whole(make_run())).read_text(encoding="utf-8"))
    assert [a["id"] for a in page.all("section")] == [
        "verdicts", "spectrum", "profile", "experiment", "gaps", "training", "samples", "trained",
        "reading", "reproduce", "cite",
    ]  # fmt: skip
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = [(a["href"] or "")[1:] for a in page.all("a") if (a["href"] or "").startswith("#")]
    assert set(targets) <= set(ids)


@pytest.mark.parametrize("claim", sorted(MEANINGS))
def test_each_claim_has_a_question_a_sentence_and_a_meaning(claim: str) -> None:
    player = "critic" if claim.endswith("/") else None
    entry = read(certificate(claim + (player or ""), "NOT_REFUTED", {}, player=player))
    assert claim_question(entry).endswith("?")
    for text in (claim_title(entry), claim_short(entry), claim_meaning(entry)):
        assert text
        assert "{" not in text
    if player:
        assert "generator frozen" in claim_title(entry)
    assert not claim_title(entry).endswith(("?", "."))


def test_claims_that_nobody_knows_are_shown_all_the_same() -> None:
    entry = read(certificate("odd/one", "REFUTED", {"gain": 0.5}))
    assert claim_question(entry) == claim_meaning(entry) == ""
    assert claim_title(entry) == "Odd: one"
    found = measure_of(entry)
    assert found is not None
    assert found.shown == "0.5 nats"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.12, 0.14, "0.12 to 0.14"),
        (0.5, 0.5, "0.5"),
        (0.4999, 0.5001, "0.5"),
        (0.0, 0.0, "0"),
        (0.0, 0.3, "below 0.3"),
        (0.3, math.inf, "at least 0.3"),
        (math.inf, math.inf, "every λ"),
        (0.0, math.inf, "unknown"),
        (1e-9, 1e300, "10⁻⁹ to 10³⁰⁰"),
    ],
)
def test_lambda_star_in_words(low: float, high: float, text: str) -> None:
    assert lambda_words(low, high) == text


@pytest.mark.parametrize(
    ("claim", "evidence", "shown", "between"),
    [
        ("proximal", {"lambda_star": [None, None], "infinite": True}, "every λ", ""),
        (
            "proximal",
            {"lambda_star": [None, None], "infinite": True, "lambda_star_strict": [1.0, 1.0]},
            "every λ",
            "for any gain at all, within no tolerance: 1",
        ),
        ("proximal", {"lambda_star": [0.25, None], "infinite": False}, "at least 0.25", ""),
        ("lambda-search", {"interval": [0.1, "inf"]}, "at least 0.1", ""),
        ("local-minimax", {"gain": 0.03, "gain_interval": [0.02, 0.04]}, "0.030 nats", "interval 0.020 to 0.040"),
        ("local-nash/critic", {"gain": 0.03, "gain_interval": [0.03, 0.03]}, "0.03 nats", "exact"),
        ("local-nash/critic", {"gain": None}, "not a number nats", ""),
        ("duality-gap", {"gap": 0.5, "interval": [0.2, 0.8]}, "0.5 nats", "interval 0.2 to 0.8"),
        ("self-tests", {"tests": {"a": {"passed": True}, "b": {"passed": False}}}, "1 of 2", ""),
        (
            "stable",
            {
                "extremes": {"smallest real part": {"value": [-0.25, 1.0]}},
                "confirmed": {"value": -0.2, "interval": [-0.3, -0.1]},
            },
            "\N{MINUS SIGN}0.25",
            "on unseen samples \N{MINUS SIGN}0.30 to \N{MINUS SIGN}0.10",
        ),
    ],
)  # fmt: skip
def test_main_numbers(claim: str, evidence: dict[str, Any], shown: str, between: str) -> None:
    found = measure_of(read(certificate(claim, "NOT_REFUTED", evidence)))
    assert found is not None
    assert (found.shown, found.between) == (shown, between)


@pytest.mark.parametrize(
    ("claim", "evidence"),
    [
        ("proximal", {}),
        ("proximal", {"lambda_star": [0.1]}),
        ("proximal", {"lambda_star": [None, 0.1]}),
        ("proximal", {"lambda_star": ["NaN", 0.1]}),
        ("stable", {"extremes": {"smallest real part": None}}),
        ("stable", {"extremes": 3}),
        ("self-tests", {"tests": []}),
        ("duality-gap", {"gap": "much"}),
        ("nash", {}),
    ],
)
def test_without_a_number_there_is_none(claim: str, evidence: dict[str, Any]) -> None:
    assert measure_of(read(certificate(claim, "UNASSESSED", evidence))) is None


def test_long_lists_are_counted_not_printed(make_run: Make) -> None:
    run = edited(whole(make_run()), "proximal", many=[0.12345] * 50)
    text = write_report(run).read_text(encoding="utf-8")
    assert "50 numbers, in audit.json" in text
    assert "0.1234, 0.1234" not in text
    # What is drawn is not listed: neither eigenvalues nor curves nor trials.
    card = text[text.index("<code>stable<") : text.index("<code>stationary<")]
    for name in ("Eigenvalues<", "Densities", "Residuals"):
        assert name not in card
    assert "Rotation q" in card


def test_a_direction_is_not_called_weights(make_run: Make) -> None:
    text = write_report(whole(make_run())).read_text(encoding="utf-8")
    assert text.count("Witness (a direction, unit length)") == 1
    assert text.count("<dt>Witness</dt>") == 1


# --- the lambda axis and the profile ----------------------------------------------------------


def test_lambda_rises_from_stackelberg_to_nash() -> None:
    axis = LambdaAxis(1e-3, 1e3)
    places = [axis.at(lam) for lam in (0.0, 1e-3, 1.0, 1e3, math.inf)]
    assert places == sorted(places)
    assert places[1:4] == [-3.0, 0.0, 3.0]
    assert axis.gap > 0
    assert places[1] - places[0] == pytest.approx(axis.gap)
    assert places[4] - places[3] == pytest.approx(axis.gap)
    assert axis.span[0] < places[0] < places[-1] < axis.span[1]
    assert axis.at(1e-200) == places[0]
    for width in (200.0, 300.0, 900.0):
        at = [place for place, _ in axis.labels(width)]
        pixels = np.diff(at) * width / (axis.span[1] - axis.span[0])
        assert pixels.min() > 38
    assert [said for _, said in axis.labels(300)][:: len(axis.labels(300)) - 1] == ["0", "∞"]


def test_the_scale_shows_where_the_pair_holds() -> None:
    def bars(low: float, high: float) -> list[tuple[str, float]]:
        wide = scale_chart(low, high, "open", "words").partition("</svg>")[0]
        found = re.findall(r'<path class="bar ?(maybe|edge)? open" d="M([\d.]+) \d+ ([\d.]+)', wide)
        return [(kind, float(b) - float(a)) for kind, a, b in found]

    def kinds(low: float, high: float) -> list[str]:
        return [kind for kind, _ in bars(low, high)]

    assert kinds(math.inf, math.inf) == [""]
    assert kinds(0.1, 0.2) == ["", "maybe", "edge", "edge"]
    assert kinds(0.0, 0.0) == ["edge"]
    assert kinds(0.5, math.inf) == ["", "maybe", "edge"]
    assert bars(10.0, 20.0)[0][1] > bars(0.1, 0.2)[0][1] > 0
    for low, high in ((1e-300, 1e300), (5e-324, 1.7e308), (0.0, math.inf)):
        assert "nan" not in scale_chart(low, high, "open", "words")


def test_the_profile_is_drawn_at_its_numbers(make_run: Make) -> None:
    run = whole(make_run())
    shown = section(run, "profile")
    wide = shown[shown.index('class="chart wide"') : shown.index('class="chart narrow"')]
    found = profile_of(read(profile()))
    assert found is not None
    assert found.lam.tolist() == [0.0, 0.001, 0.1, 10.0, math.inf]
    dots = re.findall(r'<circle class="dot generator" cx="([\d.]+)" cy="([\d.]+)"', wide)
    heights = [float(y) for _, y in dots]
    # The heights are an affine picture of asinh(number / tolerance), upside down.
    up = np.arcsinh(found.raw / 0.02)
    slope = (heights[-1] - heights[0]) / (up[-1] - up[0])
    assert slope < 0
    expected = heights[0] + slope * (up - up[0])
    assert np.abs(np.array(heights) - expected).max() < 0.2
    assert [float(x) for x, _ in dots] == sorted(float(x) for x, _ in dots)
    for said in (
        "Stackelberg",
        "Nash",
        "λ* 0.1 to 10",
        "tolerance, 0.02 nats",
        'class="range"',
        "That slack, 0.100 nats",
    ):
        assert said in shown, said
    assert shown.count("<tr>") == 1 + 5


def test_small_gains_stand_on_a_plain_scale(make_run: Make) -> None:
    small = {"r": [0.0, 0.01, 0.02, 0.03, 0.04], "raw": [0.0, 0.01, 0.02, 0.03, 0.04]}
    small |= {"low": small["r"], "high": small["r"], "definition_1": small["r"]}
    shown = section(edited(whole(make_run()), "profile", **small), "profile")
    wide = shown[shown.index('class="chart wide"') : shown.index('class="chart narrow"')]
    dots = re.findall(r'<circle class="dot generator" cx="[\d.]+" cy="([\d.]+)"', wide)
    steps = np.diff([float(y) for y in dots])
    assert np.ptp(steps) < 0.2
    assert steps.max() < 0
    assert "logarithmic beyond" not in shown
    assert "longer searches" not in shown


def test_a_curve_below_its_own_interval_is_called_that(make_run: Make) -> None:
    run = edited(whole(make_run()), "profile", low=[-0.04, -0.03, 0.0, 0.49, 5.0])
    assert "longer searches" in section(run, "profile")


def test_a_search_that_failed_measured_nothing(make_run: Make) -> None:
    run = whole(make_run())
    before = section(run, "profile")
    entry = profile()["evidence"]["trials"]
    entry[3]["failed"] = "every search ended at a value that is not finite"
    after = section(edited(run, "profile", trials=entry), "profile")
    dot = '<circle class="dot generator"'
    assert before.count(dot) - after.count(dot) == 2  # of both sizes
    assert "At λ = 10 the searches failed" in after
    assert "the searches failed" not in before


def test_a_slack_of_rounding_is_none(make_run: Make) -> None:
    run = edited(whole(make_run()), "profile", slack=-2.8e-17, slack_interval=[-8e-17, 3e-17])
    assert "no slack to speak of" in section(run, "profile")


def test_the_tolerance_crosses_where_it_should(make_run: Make) -> None:
    shown = section(whole(make_run()), "profile")
    wide = shown[shown.index('class="chart wide"') : shown.index('class="chart narrow"')]
    line = float(re.findall(r'class="tolerance" d="M0 ([\d.]+)', wide)[0])
    dots = [
        float(y)
        for y in re.findall(r'<circle class="dot generator" cx="[\d.]+" cy="([\d.]+)"', wide)
    ]
    above = [y < line for y in dots]
    assert above == [False, False, False, True, True]


WILD = [
    1e308,
    -1e308,
    5e-324,
    0.0,
    None,
    "NaN",
    "-inf",
    10**400,
    [],
    {},
    "x",
    True,
    [None, None],
    [1e308, -1e308],
]


@pytest.mark.parametrize("value", WILD, ids=[str(v)[:12] for v in WILD])
def test_no_value_breaks_a_page(make_run: Make, value: Any) -> None:
    run = whole(make_run())
    path = run / "audit" / "audit.json"
    audit = json.loads(path.read_text())

    def spoilt(entry: Any, depth: int) -> Any:
        if isinstance(entry, dict):
            return {k: spoilt(v, depth - 1) for k, v in entry.items()} if depth else value
        if isinstance(entry, list) and depth:
            return [spoilt(v, depth - 1) for v in entry]
        return value

    for depth in (1, 2, 3):
        for entry in audit["certificates"]:
            if entry["claim"].partition("/")[0] not in ("nash", "stationary"):
                kept = {k: v for k, v in entry["evidence"].items() if k == "samples"}
                entry["evidence"] = spoilt(entry["evidence"], depth) | kept
        path.write_text(json.dumps(audit))
        text = write_report(run).read_text(encoding="utf-8")
        Page(text)
        assert not re.search(r'(?:d|x|y|cx|cy|width|height)="[^"]*(?:nan|inf)', text)
        json.loads((run / "report.json").read_text(), parse_constant=pytest.fail)


def test_nothing_in_an_audit_becomes_markup(make_run: Make) -> None:
    clean = Page(write_report(whole(make_run("clean"))).read_text(encoding="utf-8"))
    run = whole(make_run("nasty"))
    path = run / "audit" / "audit.json"
    keep = frozenset(
        {"verdict", "samples", "claim", "curves", "confidence", "lambda", "densities", "steps"}
    )
    value = spoil(json.loads(path.read_text()), keep)
    value["ladder"] = [{**rung, "words": NASTY} for rung in value["ladder"]]
    del value["work"][NASTY], value["work"][f"{NASTY}2"]
    for entry in value["certificates"]:
        if entry["claim"] == "stable":
            entry["evidence"]["densities"][NASTY] = entry["evidence"]["densities"]["critic"]
            entry["evidence"]["steps"]["why_not"] = NASTY
            entry["evidence"]["steps"]["outside"] = None
    path.write_text(json.dumps(value))
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    kinds = {(tag, name) for tag, attributes in page.elements for name in ("", *attributes)}
    assert kinds <= {(tag, name) for tag, a in clean.elements for name in ("", *a)}
    assert page.text.count("<script>alert(1)</script>") > 30


# --- the spectrum -----------------------------------------------------------------------------


def test_the_disc_is_that_of_the_step_in_use() -> None:
    assert step_size_of(read(stable())) == (0.1, True)
    assert step_size_of(read(stable(steps=None))) == (0.0885, False)
    assert step_size_of(read(stable(steps=None, h_max=0.0))) == (None, False)
    uneven = {"sizes": {"generator": 0.1, "critic": 0.2}, "h": 0.2, "h_max": 0.1, "outside": 0}
    # H J has other eigenvalues than those recorded.
    assert step_size_of(read(stable(steps=uneven))) == (None, False)


def test_eigenvalues_lie_where_they_are(make_run: Make) -> None:
    run = whole(make_run())
    shown = section(run, "spectrum")
    whole_picture = shown[shown.index("All that were found") : shown.index('class="chart narrow"')]
    marks = {
        kind: re.findall(r"M([\d.]+) ([\d.]+)h0", d)
        for kind, d in re.findall(r'class="eigen (\w+)" d="([^"]+)"', whole_picture)
    }
    # |1 - 0.1 l| > 1 for 0.1 +- 1.5i: (0.99)^2 + 0.15^2 = 1.0026; all others are inside.
    assert len(marks["bad"]) == 2
    assert len(marks["plain"]) == 9
    # One scale for both directions: the picture's distances are those of the numbers.
    points = {k: np.array(v, dtype=float) for k, v in marks.items()}
    far = points["plain"][points["plain"][:, 0].argmax()]
    up, down = points["bad"]
    scale = np.linalg.norm(up - down) / 3.0
    middle = (up + down) / 2
    assert (far - middle)[0] / scale == pytest.approx(4.9, abs=0.02)
    assert far[1] == pytest.approx(middle[1], abs=0.2)
    assert "Near zero" in shown  # 5 is far beyond the others
    assert "2 lie outside of" in shown
    assert "gamma 0.5" in shown


def test_left_of_zero_is_marked_without_a_disc(make_run: Make) -> None:
    found = [[-0.5, 0.0], *eigenvalues()]
    run = edited(whole(make_run()), "stable", eigenvalues=found, steps=None, h_max=0.0)
    shown = section(run, "spectrum")
    # One, in both sizes of the whole picture; the frame near zero does not reach it.
    assert len(re.findall(r'class="eigen bad" d="M[\d.]+ [\d.]+h0"', shown)) == 2
    assert 'class="disc"' not in shown
    assert "no step size of plain gradient descent is stable" in shown


def test_the_edge_of_the_largest_stable_step_is_not_outside(make_run: Make) -> None:
    run = edited(whole(make_run()), "stable", steps=None, h_max=0.08849557522123894)
    shown = section(run, "spectrum")
    assert 'class="disc"' in shown
    assert 'class="eigen bad"' not in shown


def test_an_eigenvalue_of_zero_is_neither_stable_nor_unstable(make_run: Make) -> None:
    # The tolerance of these records is 0.02.
    found = [[-0.015, 0.0], [0.0, 0.019], *eigenvalues()[1:]]
    shown = section(edited(whole(make_run()), "stable", eigenvalues=found, steps=None), "spectrum")
    wide = shown[shown.index("All that were found") : shown.index('class="chart narrow"')]
    drawn = {k: d.count("h0") for k, d in re.findall(r'class="eigen (\w+)" d="([^"]+)"', wide)}
    assert drawn == {"still": 2, "plain": 10}
    assert "nothing pulls" in shown


def test_without_eigenvalues_there_is_no_spectrum(make_run: Make) -> None:
    for i, found in enumerate((None, [], [[None, 1.0]], 3)):
        run = edited(whole(make_run(f"run-{i}")), "stable", eigenvalues=found)
        assert section(run, "spectrum") == ""
        assert 'href="#spectrum"' not in write_report(run).read_text(encoding="utf-8")
    assert spectrum_section(load_record(make_run("old"))) == ""
    some = eigenvalues_of(
        read(stable(eigenvalues=[[1.0, 0.0], [1e308, 1e308], ["NaN", 0.0], [2.0]]))
    )
    assert some is not None
    assert some.tolist() == [1.0 + 0.0j]


# --- the experiment and the gaps --------------------------------------------------------------


def test_both_ways_are_drawn_and_all_sheets_shown(make_run: Make) -> None:
    run = whole(make_run())
    shown = section(run, "experiment")
    assert shown.count("<img") == 6
    assert "falls by 2.00 nats (95% interval 1.90 to 2.10)" in shown
    wide = shown[shown.index('class="chart wide"') : shown.index('class="chart narrow"')]
    ends = {}
    for kind, d in re.findall(r'class="line ([a-z ]+)" d="M([^"]+)"', wide):
        numbers = [float(x) for x in d.split()]
        ends[kind] = numbers[-1] - numbers[1]
    assert ends["critic dashed"] > 100, "the frozen way falls"
    assert abs(ends["generator"]) < 3, "the other holds"
    # The same sheets are no part of the Nash check.
    assert write_report(run).read_text().count("the critic answers, as training left it") <= 1


def test_a_way_that_failed_says_so(make_run: Make) -> None:
    held = {"step": [0, 1], "objective": [1.0, None], "failed": "it became non-finite at step 1"}
    run = edited(whole(make_run()), "generator-vs-prox", curves={"proximal": held, "frozen": 3})
    assert "it became non-finite at step 1" in section(run, "experiment")


def test_gaps_stand_side_by_side(make_run: Make) -> None:
    shown = section(whole(make_run()), "gaps")
    assert shown.count("<tr>") == 3
    for said in ("λ = ∞", "λ = 0.1", "nothing found", BADGES[Verdict.REFUTED]):
        assert said in shown
    assert section(whole(make_run("less"), without=("duality-gap",)), "gaps").count("<tr>") == 2
    assert measure_of(read(gap("duality-gap", "inf", 0.2))) is not None


@pytest.mark.parametrize(
    ("ends", "first"),
    [
        ((1.3851, 1.3869), "1.3855"),
        ((0.0, 1.0), "0"),
        ((-1.0, 2.0), "\N{MINUS SIGN}1"),
        ((0.001, 0.0021), "0.0010"),
        ((1e6, 1.0002e6), "10⁶"),
        ((1e-7, 5e-7), "10⁻⁷"),
    ],
)
def test_no_two_labels_of_an_axis_read_the_same(ends: tuple[float, float], first: str) -> None:
    said = [text for _, text in labelled(ticks(*ends, 4))]
    assert said[0] == first
    assert len(set(said)) == len(said)
    decimals = {len(text.partition(".")[2]) for text in said if "×" not in text and text != "0"}
    assert len(decimals) <= 1


def test_an_axis_takes_labels_of_ones_own() -> None:
    axes = Axes(WIDE[0], 0.0, 1.0, 0.0, 1.0)
    drawn = axes.draw("", "x", [(0.5, "half")], [(0.25, "a quarter")])
    assert re.findall(r">([^<]+)</text>", drawn) == ["a quarter", "half", "x"]
    assert re.findall(r">([^<]+)</text>", axes.draw("", "x", [], [])) == ["x"]
    assert len(re.findall(r">([^<]+)</text>", axes.draw("", "x"))) > 6
