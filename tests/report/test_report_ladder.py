"""The ladder, the place, the advice, and the headline that follows from them."""

import itertools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_rows import ADVICE, PLACE, RUNGS, SETTINGS, edited, whole

from equilibrist.report import write_report
from equilibrist.report._cards import verdicts as listed
from equilibrist.report._claims import BADGES
from equilibrist.report._commands import DEFAULT_CHECKS, audit_command
from equilibrist.report._findings import lists as remarks
from equilibrist.report._headline import headline
from equilibrist.report._ladder import highest
from equilibrist.report._load import load_record
from equilibrist.report._profile_offer import offer, planned_work
from equilibrist.report._record import Verdict
from equilibrist.report.formatting import format_duration

Make = Callable[..., Path]
NEW = ("place", "advice", "ladder", "work")


def verdicts(**changed: str | None) -> list[dict[str, Any]]:
    """The ladder with other verdicts (underscores stand for hyphens)."""
    new = {k.replace("_", "-"): v for k, v in changed.items()}
    return [{"claim": c, "words": w, "verdict": new.get(c, v)} for c, w, v in RUNGS]


def test_the_ladder_has_nash_at_the_top_and_a_shape_for_each_verdict(make_run: Make) -> None:
    record = load_record(whole(make_run()))
    html = listed(record).split("Claims beside the ladder")[0]
    names = re.findall(r'class="rung"><b>([^<]+)</b>', html)
    assert names == ["Nash", "Local Nash", "Proximal near the pair, up to lambda*", "Local minimax",
                     "Locally stable", "At rest"]  # fmt: skip
    marks = re.findall(r'class="mark" aria-hidden="true">(.)<', html)
    assert marks == ["✕", "✕", "○", "–", "○", "✓"]
    says = re.findall(r'class="says">([^<]+)<', html)
    assert says[0] == BADGES[Verdict.REFUTED]
    assert says[3] == "not asked"
    assert "λ* 0.12 to 0.14" in html
    # Each claim is there once, a rung's players within the rung.
    assert record.audit is not None
    found = re.findall(r"<code>([^<]+)</code></p>", listed(record))
    assert sorted(found) == sorted(c.claim for c in record.audit.certificates)
    assert [f for f in found if f.startswith("nash")] == found[:3]


def test_the_pair_stands_on_the_highest_rung_that_holds(make_run: Make) -> None:
    run = whole(make_run())
    record = load_record(run)
    assert record.audit is not None
    assert highest(record.audit) == "proximal"
    assert listed(record).count("the pair stands here") == 1
    for changed, stands in (
        ({"nash": "NOT_REFUTED"}, "nash"),
        ({"proximal": "UNASSESSED"}, "stable"),
        ({"stationary": "REFUTED"}, None),
        (dict.fromkeys(("stationary", "stable", "proximal"), "UNASSESSED"), None),
    ):
        path = run / "audit" / "audit.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "ladder": verdicts(**changed)}))
        audit = load_record(run).audit
        assert audit is not None
        assert highest(audit) == stands


def test_a_ladder_of_which_nothing_was_asked_gives_way_to_the_list(make_run: Make) -> None:
    run = whole(make_run(), ladder=[{"claim": c, "words": w, "verdict": None} for c, w, _ in RUNGS])
    record = load_record(run)
    assert record.audit is not None
    text = listed(record)
    assert 'class="ladder"' not in text
    assert text.count('<summary class="line">') == len(record.audit.certificates)


def test_failed_self_tests_leave_no_place(make_run: Make) -> None:
    run = whole(make_run(), place="Nothing can be said of this pair yet: a test failed.")
    path = run / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    next(c for c in audit["certificates"] if c["claim"] == "self-tests")["verdict"] = "UNASSESSED"
    path.write_text(json.dumps(audit))
    record = load_record(run)
    assert "the pair stands here" not in listed(record)
    head = headline(record)
    assert (head.tone, head.badge) == ("unknown", "cannot be audited")
    assert head.text == "Nothing can be said of this pair yet: a test failed"
    assert offer(record) == ""


def test_the_headline_follows_from_the_place(make_run: Make) -> None:
    head = headline(load_record(whole(make_run())))
    assert head.text == "Not a Nash equilibrium: a player gains by deviating alone"
    assert f"{head.text}. {head.aside}" == PLACE
    assert head.tone == "refuted"
    assert head.detail == ("Audited at step 3,000.",)


@pytest.mark.parametrize(
    ("place", "text", "aside"),
    [
        ("A Nash equilibrium.", "A Nash equilibrium", ""),
        ("It moves. Locally: up to 0.12 of it. And more.", "It moves", "Locally: up to 0.12 of it. And more."),
        ("up to lambda* = 0.12 e.g. so", "up to lambda* = 0.12 e.g. so", ""),
        ("...", "", ""),
    ],
)  # fmt: skip
def test_the_first_sentence_is_the_headline_and_the_rest_stands_beside_it(
    make_run: Make, place: str, text: str, aside: str
) -> None:
    head = headline(load_record(whole(make_run(), place=place)))
    assert (head.text, head.aside) == (text, aside)


@pytest.mark.parametrize(
    ("changed", "tone", "badge"),
    [
        ({"stationary": "REFUTED"}, "refuted", "still moving"),
        ({"nash": "VERIFIED"}, "verified", "Nash equilibrium"),
        ({"nash": "NOT_REFUTED"}, "open", "no way out found"),
        ({"nash": None, "local-nash": "VERIFIED"}, "verified", "local Nash"),
        ({"nash": "UNASSESSED", "local-nash": None}, "open", "proximal"),
        ({"nash": None, "local-nash": None, "proximal": None, "stable": None}, "unknown", "undecided"),
        ({"nash": None, "local-nash": None, "proximal": "REFUTED", "stable": None}, "refuted", "not an equilibrium"),
    ],
)  # fmt: skip
def test_badges(make_run: Make, changed: dict[str, Any], tone: str, badge: str) -> None:
    run = whole(make_run())
    path = run / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    kept = [c for c in audit["certificates"] if changed.get(c["claim"], "") is not None]
    for entry in kept:
        entry["verdict"] = changed.get(entry["claim"], entry["verdict"])
    rows = [r for r in verdicts(**changed) if r["verdict"] is not None]
    path.write_text(json.dumps({**audit, "certificates": kept, "ladder": rows}))
    head = headline(load_record(run))
    assert (head.tone, head.badge) == (tone, badge)


def test_what_was_measured_is_a_list_of_its_own(make_run: Make) -> None:
    run = whole(make_run())
    shown = remarks(load_record(run))
    assert shown.count("<li>") == len(ADVICE)
    assert "What was measured" in write_report(run).read_text()
    assert "What was found" not in shown
    said = whole(make_run("said"), place=f"It moves. {ADVICE[0]}")
    assert remarks(load_record(said)).count("<li>") == len(ADVICE) - 1, (
        "what the headline says is said"
    )
    assert remarks(load_record(whole(make_run("none"), advice=[]))) == ""


def test_an_audit_of_an_earlier_version_reads_as_before(make_run: Make) -> None:
    old = make_run("old")
    record = load_record(old)
    assert remarks(record) == offer(record) == ""
    assert 'class="ladder"' not in listed(record)
    assert headline(record).text.startswith("Not a Nash equilibrium: with the critic frozen")
    page = write_report(old).read_text()
    assert 'class="ladder beside alone"' in page
    for name in ("profile", "spectrum", "experiment", "gaps"):
        assert f'<section id="{name}"' not in page


def test_the_facts_for_machines_carry_the_new_keys(make_run: Make) -> None:
    run = whole(make_run())
    write_report(run)
    facts = json.loads((run / "report.json").read_text())["audit"]
    assert facts["place"] == PLACE
    assert facts["advice"] == ADVICE
    assert [(r["claim"], r["words"], r["verdict"]) for r in facts["ladder"]] == RUNGS
    assert facts["work"]["nash"]["gradients"] == 100.0
    by = {c["claim"]: c for c in facts["certificates"]}
    assert by["local-nash/generator"]["witness_kind"] == "direction"
    assert set(by["generator-vs-prox"]["evidence"]["curves"]) == {"proximal", "frozen"}
    assert "curves" not in by["nash/generator"]["evidence"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"place": 3}, "'place' should be a text"),
        ({"advice": "x"}, "'advice' should be a list"),
        ({"ladder": {}}, "'ladder' should be a list"),
        ({"ladder": [{"words": "x"}]}, "a rung of 'ladder' has no 'claim'"),
        ({"ladder": [3]}, "a rung of 'ladder' has no 'claim'"),
        ({"ladder": [{"claim": "x", "verdict": "MAYBE"}]}, "which is none of VERIFIED"),
        ({"work": [1]}, "'work' should be an object"),
        ({"work": {"nash": 3}}, "'nash' should be an object"),
    ],
)
def test_damage_is_named(make_run: Make, keys: dict[str, Any], said: str) -> None:
    record = load_record(whole(make_run(), **keys))
    assert record.audit is None
    (note,) = [note for note in record.notes if said in note]
    assert "\n" not in note


# --- the offer of a profile -------------------------------------------------------------------


def test_without_a_profile_the_page_says_how_to_get_one_and_what_it_takes(make_run: Make) -> None:
    run = whole(make_run(), without=("profile",))
    text = offer(load_record(run))
    # 600 gradients in 60 seconds: a tenth of a second each.
    planned = planned_work(SETTINGS)
    assert planned is not None
    assert f"about {round(planned):,} minibatch gradients" in text
    assert f"some {format_duration(planned / 10)} at this audit" in text
    command = shlex.split(re.findall(r"<pre>([^<]+)</pre>", text)[0])
    asked = [b for a, b in itertools.pairwise(command) if a == "--check"]
    # A new audit replaces the old one: all that was asked for is asked for again.
    assert asked == [*(n for n in DEFAULT_CHECKS), "profile"]
    assert '<section id="profile"' not in write_report(run).read_text()
    assert offer(load_record(whole(make_run("has")))) == ""


def test_a_game_without_lambda_gets_no_offer(make_run: Make) -> None:
    run = whole(make_run(), without=("profile",))
    assert offer(load_record(run))
    path = run / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    next(c for c in audit["certificates"] if c["claim"] == "proximal")["evidence"] = {}
    path.write_text(json.dumps(audit))
    assert offer(load_record(run)) == ""


def test_the_command_names_checks_that_are_not_the_usual_ones(make_run: Make) -> None:
    run = whole(make_run())
    assert "--check" not in audit_command(load_record(run), settings=True)
    work = {"self-tests": {}, "nash": {}, "gaps": {}}
    for told, checks in ((True, "self-tests nash gaps"), (False, "nash gaps")):
        without = () if told else ("self-tests",)
        other = whole(make_run(f"told-{told}"), work=work, without=without)
        command = shlex.split(audit_command(load_record(other), settings=True))
        asked = [b for a, b in itertools.pairwise(command) if a == "--check"]
        assert " ".join(asked) == checks
        assert "--check" not in audit_command(load_record(other))


def test_the_announced_cost_and_the_usual_checks_are_those_of_the_audit() -> None:
    checks = pytest.importorskip("equilibrist.checks")
    registry = pytest.importorskip("equilibrist.checks.registry")
    sampled = pytest.importorskip("equilibrist.checks.proximal.inner")
    assert registry.CHECKS == DEFAULT_CHECKS

    class Stub:
        sampled = True
        settings = checks.Settings(
            prox_steps=17, prox_track=2, batches=9, inner_steps=13, prox_starts=3
        )

        class game:  # noqa: N801
            heads = 1
            samplewise = True

        class data:  # noqa: N801
            conditional = False
            parts = None

    assert callable(sampled.why_not)
    described = json.loads(json.dumps(Stub.settings.describe(), default=list))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("equilibrist.checks.proximal.profile.inner.why_not", lambda bench: "")
        theirs = registry.REGISTRY["profile"].work(Stub())
    assert planned_work(described) == pytest.approx(theirs, rel=1e-12)
    assert planned_work({}) is None
    assert planned_work({**described, "prox_lambdas": 3}) is None


def test_an_edit_shows(make_run: Make) -> None:
    """Holds the helper of these tests against doing nothing."""
    run = edited(whole(make_run()), "proximal", infinite=True, lambda_star=[None, None])
    assert "for every λ" in listed(load_record(run))


def test_a_claim_under_its_former_name_is_read(make_run: Make) -> None:
    run = whole(make_run())
    path = run / "audit" / "audit.json"
    now = load_record(run).audit
    path.write_text(path.read_text().replace('"generator-vs-prox"', '"section-6.1"'))
    found = load_record(run).audit
    assert now is not None
    assert found is not None
    assert found.find("section-6.1") is None
    assert found.find("generator-vs-prox") == now.find("generator-vs-prox")
