"""Findings of audits: what facts, certificates and the record of training show together, and what may not be said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_audit_facts import FINE, mlp, trained

import equilibrist as eq
from equilibrist.checks import Certificate, Settings, Tolerance, Verdict
from equilibrist.checks._findings import Training, pair_findings
from equilibrist.checks._sample_measures import mean_distance
from equilibrist.checks.facts import Copies, Facts, Loss, Range
from equilibrist.cli import main
from equilibrist.findings import Finding, as_recorded, foremost, from_recorded, with_causes

R, N, V = Verdict.REFUTED, Verdict.NOT_REFUTED, Verdict.VERIFIED
NATS = Tolerance(0.02, "nats", "set")
QUICK = Settings(steps=4, starts=1, groups=3, group_batches=1)
OWN = Training(steps=300)
CHANCE = {"separation": (0.52, 0.5, 0.54), "silent": 1.386}


def certificate(claim: str, verdict: Verdict, **evidence: Any) -> Certificate:
    player = claim.partition("/")[2] or None
    return Certificate(claim, verdict, f"{claim} said.", evidence, NATS, player=player)


def gains(low: float, verdict: Verdict = R) -> Certificate:
    return certificate("nash/critic", verdict, gain=low + 0.1, interval=[low, low + 0.2])


def named(found: tuple[Finding, ...]) -> list[str]:
    return [f.name for f in found]


# -- a critic at chance: several pieces of evidence together ------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "critic", "name"),
    [
        (CHANCE, gains(0.9), "lagging"),
        # Each piece by itself says nothing.
        (CHANCE, gains(0.3), ""),
        (CHANCE, gains(0.0, N), ""),
        ({}, gains(0.9), ""),
        ({"separation": (0.66, 0.64, 0.68), "silent": 1.386}, gains(0.9), ""),
        # An advantage of 0.6 nats is no quarter of 0.6 + 0.9, but more.
        ({**CHANCE, "losses": {"critic": Loss(0.786, 1.386), "generator": Loss(0.7, 0.7)}}, gains(0.9), ""),
        ({**CHANCE, "diversity": 0.1, "penalised": True}, gains(0.0, N), "smothered"),
        ({**CHANCE, "diversity": 0.1}, gains(0.0, N), "blind"),
        ({**CHANCE, "diversity": 0.1}, gains(0.1), ""),
    ],
)  # fmt: skip
def test_a_critic_at_chance_needs_a_second_piece_of_evidence(
    facts: dict[str, Any], critic: Certificate, name: str
) -> None:
    found = [f for f in pair_findings([critic], replace(FINE, **facts)) if f.where == "critic"]
    assert [f.name for f in found] == ([name] if name else [])
    for f in found:
        assert f.sure == "possible"
        assert f.evidence["interval"] == [0.5, 0.54]
        assert f.evidence["wiring"] == "not checked"
    # Without facts there is no critic at chance.
    assert pair_findings([critic]) == ()


def random_facts(rng: torch.Generator) -> Facts:
    def u(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    share = u(0, 1)
    losses = {p: Loss(u(-1, 8) ** 3, (1.386, 0.0, None)[int(u(0, 3))]) for p in ("critic", "generator")}  # fmt: skip
    untouched = tuple(p for p in losses if u(0, 1) < 0.1)
    return Facts(
        "nats", losses, (share, share - 0.02, share + 0.02), u(0, 2), Range(0, 1, 0, 1),
        Range(-1, 1, -1, 1), u(0, 0.1), u(0, 0.1), untouched, uphill=u(0, 3), images=u(0, 1) < 0.5,
        apart=(u(0, 4), u(0, 6)), silent=1.386, pull=u(0, 0.5), unbounded=u(0, 1) < 0.2,
        copies=Copies(u(0, 1), 0.0, 100, 100, 100), penalised=u(0, 1) < 0.5,
    )  # fmt: skip


def test_more_critic_steps_are_never_said_before_the_wiring() -> None:
    rng, seen = torch.Generator().manual_seed(0), 0
    for k in range(250):
        facts = random_facts(rng)
        certificates = [gains(0.9, (R, N)[k % 2])]
        for training in (None, OWN):
            found = pair_findings(certificates, facts, training)
            assert list(found) == sorted(found, key=lambda f: ("fault", "warning", "note").index(f.level))  # fmt: skip
            for f in found:
                if "critic steps" in f.cure or "critic rate" in f.cure:
                    seen += 1
                    if training is None:
                        assert f.cure.startswith("check the wiring (equilibrist.check_wiring)")
                        assert f.sure != "certain"
                    else:
                        assert "wiring is excluded" in f.cure
                        assert f.evidence["wiring"].startswith("excluded")
    assert seen > 80


def test_what_a_fault_explains_is_a_note_that_says_so() -> None:
    facts = replace(FINE, untouched=("critic",), diversity=0.1)
    first, second = pair_findings([], facts)
    assert (first.name, first.level, first.sure) == ("never-stepped", "fault", "likely")
    assert (second.name, second.level) == ("collapsed", "note")
    assert second.text.endswith("(explained by never-stepped).")
    assert second.cure == "mend never-stepped, which explains it"
    alone = pair_findings([], replace(facts, untouched=()))
    assert [(f.name, f.level) for f in alone] == [("collapsed", "fault")]
    copied = Finding("copied-samples", "generator", "Copies.")
    assert with_causes([first, copied])[1] is copied, "of the data, whoever stepped"


def test_a_record_of_training_decides_who_was_stepped() -> None:
    looks = replace(FINE, untouched=("critic",))
    assert named(pair_findings([], looks, OWN)) == [], "weights that moved need not look so"
    (found,) = pair_findings([], FINE, replace(OWN, still=("critic",)))
    assert (found.name, found.where, found.sure) == ("never-stepped", "critic", "certain")
    broken = replace(OWN, broken=("generator",), diverged="weights have grown")
    assert named(pair_findings([], None, broken)) == ["not-finite"]
    (found,) = pair_findings([], None, replace(OWN, diverged="weights have grown"))
    assert (found.name, found.text) == ("step-too-large", "Weights have grown.")
    for share, level in ((0.35, "note"), (0.2, "warning")):
        turned = replace(FINE, separation=(share, share - 0.02, share + 0.02))
        assert [(f.name, f.level) for f in pair_findings([], turned)] == [("lagging", level)]
    # What speaks for a slip in the loop is possible at most where the loop is ours.
    reversed_ = replace(FINE, separation=(0.01, 0.0, 0.02))
    assert [f.sure for f in pair_findings([], reversed_)] == ["likely"]
    (found,) = pair_findings([], reversed_, OWN)
    assert found.sure == "possible"
    assert "equilibrist's own loop" in found.cure


@pytest.mark.parametrize(
    ("evidence", "rest", "found"),
    [
        ({"steps": {"h": 0.1, "h_max": 0.01}, "q": 1.0}, V, [("step-too-large", "warning")]),
        ({"steps": {"h": 0.1, "h_max": 0.01}, "q": 1.0}, R, [("step-too-large", "note")]),
        ({"steps": {"h": 0.01, "h_max": 0.1}, "q": 2.0}, V, []),
        ({"q": 50.0, "consensus": {"gamma": 2.0, "q": 0.4}}, V, [("rotation", "note")]),
        ({"q": math.inf}, V, [("rotation", "note")]),
    ],
)
def test_the_spectrum(evidence: dict[str, Any], rest: Verdict, found: list[Any]) -> None:
    made = [certificate("stable", N, **evidence), certificate("stationary", rest)]
    seen = pair_findings(made)
    assert [(f.name, f.level) for f in seen] == found
    for f in seen:
        assert ("below 0.01" in f.cure) == (f.name == "step-too-large")
        assert ("consensus with gamma about 2" in f.cure) == ("consensus" in evidence)
    if "consensus" not in evidence and found == [("rotation", "note")]:
        assert "Rotation is total" in seen[0].text


# -- intervals ---------------------------------------------------------------------------------------------------


def test_the_error_of_a_spread_is_that_of_repeated_samples() -> None:
    rng = torch.Generator().manual_seed(0)
    drawn = [mean_distance(torch.randn(120, 3, generator=rng).double(), 0) for _ in range(300)]
    means, errors = (torch.tensor(x) for x in zip(*drawn, strict=True))
    # Two standard normals in 3 dimensions lie 4 / sqrt(pi) apart on average.
    assert float(means.mean()) == pytest.approx(4 / math.sqrt(math.pi), rel=0.01)
    assert float(errors.mean()) == pytest.approx(float(means.std()), rel=0.12)


def test_the_interval_stands_beside_the_number() -> None:
    facts = replace(FINE, diversity=0.1, diversity_interval=(0.08, 0.12))
    (found,) = facts.findings
    assert found.evidence["interval"] == [0.08, 0.12]
    assert found.label == "fault: collapsed (generator, likely: 0.1, 95% interval 0.08 to 0.12)"
    (copies,) = replace(FINE, copies=Copies(0.7, 0.0, 100, 750, 1000)).findings
    low, high = copies.evidence["interval"]  # Clopper and Pearson of 70 in 100
    assert (low, high) == (pytest.approx(0.6002, abs=1e-4), pytest.approx(0.7876, abs=1e-4))


# -- whole audits ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A pair whose critic was never stepped, audited."""
    out = tmp_path_factory.mktemp("found") / "audit"
    generator, critic, data = trained(200, c=0.0)
    found = eq.audit_pair(
        generator, critic, data, "vanilla", latent=4, settings=QUICK, checks=("stationary", "nash"),
        progress="none", out=out,
    )  # fmt: skip
    return found, out


def test_everything_opens_with_the_first_finding(
    slipped: tuple[Any, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    audit, out = slipped
    first = audit.first
    assert (first.name, first.where, first.level) == ("never-stepped", "critic", "fault")
    assert first == audit.findings[0] == foremost(audit.findings)
    assert audit.place.startswith(first.text)
    for text in (str(audit), audit.details):
        lines = text.splitlines()
        assert lines[0] == audit.place
        assert lines[1] == f"{first.label}. Change first: {first.cure}."
        assert lines[1 + len(audit.findings)].startswith("Losses in nats")
        assert text.index("Change first") < text.index("stationary")
    assert f"<b>Audit: {first.text[:10]}" in audit._repr_html_().replace("&#x27;", "'")
    assert audit.advice[: len(audit.findings)] == tuple(f.advice for f in audit.findings)
    assert audit.advice[len(audit.findings) :] == audit.measured
    page = (out / "report.html").read_text()
    assert (
        page.index("<h1") < page.index("as freshly initialised ones") < page.index("Change first")
    )
    assert page.index("What was found") < page.index("The verdicts")
    assert page.count("as freshly initialised ones") == 1
    assert ">never stepped</span>" in page
    assert main(["report", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{first.label}. {first.advice}"
    assert printed[-1].startswith("Report: ")


def test_the_record_has_the_findings_with_their_format(slipped: tuple[Any, Path]) -> None:
    audit, out = slipped
    row = json.loads((out / "audit.json").read_text())["findings"]
    assert row["format"] == 1
    assert from_recorded(row) == (list(audit.findings), [])
    assert json.loads((out / "report.json").read_text())["findings"] == row["list"]
    later = {"name": "of-later", "level": "fault", "sure": "likely", "where": "critic", "text": "?"}
    found, left_out = from_recorded({"format": 1, "list": [*row["list"], later, 3]})
    assert found == list(audit.findings)
    assert len(left_out) == 2
    assert "of-later" in left_out[0]
    assert from_recorded({**row, "format": 2})[0] == []
    assert "format 2" in from_recorded({**row, "format": 2})[1][0]
    assert from_recorded({}) == ([], [])
    assert from_recorded(as_recorded([])) == ([], [])


def test_a_healthy_pair_opens_with_where_it_stands() -> None:
    audit = eq.audit_pair(
        *trained()[:2], trained()[2], "vanilla", latent=4, settings=QUICK, checks=("stationary",),
        progress="none",
    )  # fmt: skip
    assert audit.first is None
    assert audit.findings == ()
    assert "Change first" not in str(audit)
    assert audit.advice == audit.measured


def test_a_player_of_a_run_that_never_moved_is_known_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    game = eq.GAN(mlp(4, 2), mlp(2, 1), eq.Vanilla(), latent=4)
    found = {}
    for name, rate in (("still", 1e-30), ("moved", 1e-7)):
        solver = eq.Alternating(optimizer=eq.SGD(1e-3), optimizers={"critic": eq.SGD(rate)})
        recipe = eq.Recipe(game, eq.eight_gaussians(), solver, steps=5, batch=16)
        run = eq.train(recipe, tmp_path / name, device="cpu", progress="none")
        audit = eq.audit(run, settings=QUICK, checks=("stationary",), progress="none")
        assert audit.training is not None
        assert audit.training.steps == 5
        found[name] = [f for f in audit.findings if f.name == "never-stepped"]
        written = json.loads((tmp_path / name / "audit/audit.json").read_text())["findings"]
        assert from_recorded(written)[0] == list(audit.findings)
    (still,) = found["still"]
    assert (still.where, still.sure, still.evidence) == ("critic", "certain", {"steps": 5})
    assert found["moved"] == []


def test_names_of_ones_own_reach_the_findings() -> None:
    facts = replace(FINE, untouched=("generator",))
    audit = eq.checks.Audit((), Settings(), 1.0, names={"generator": "painter"}, facts=facts)
    (found,) = audit.findings
    assert found.where == "painter"
    assert found.text.startswith("The painter's weights")
    assert audit.to_json()["findings"]["list"][0]["where"] == "painter"


@pytest.mark.parametrize(
    ("verdict", "q", "named_so"), [(N, 2.5, True), (V, 2.5, True), (N, 1.9, False), (R, 2.5, False)]
)
def test_rotation_is_named_where_it_turns_twice_as_fast_as_it_contracts(
    verdict: Verdict, q: float, named_so: bool
) -> None:
    found = pair_findings([certificate("stable", verdict, q=q, rotation=0.1)], FINE, OWN)
    assert ("rotation" in named(found)) == named_so
