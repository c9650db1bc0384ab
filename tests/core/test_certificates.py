"""The model of what an audit answers: one row, written and read in one place."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from equilibrist.certificates import RUNGS, Rung, Statement, Tolerance, Verdict, as_number
from equilibrist.checks import Certificate
from equilibrist.report import _record

WHOLE = Statement(
    "nash/critic",
    Verdict.REFUTED,
    "The critic alone gains 0.2 nats.",
    {"gain": 0.2, "interval": [0.1, 0.3], "unit": "nats", "broken": [1, None]},
    Tolerance(0.02, "nats", "2% of the scale"),
    {"player": "critic"},
    ("a search may miss more",),
    ("Farnia and Ozdaglar 2020",),
    "critic",
    witness_kind="direction",
)


@pytest.mark.parametrize("kind", [Statement, Certificate, _record.CertificateRecord])
def test_a_row_is_read_as_it_was_written(kind: Any) -> None:
    row = json.loads(json.dumps(WHOLE.to_row("nash_critic.safetensors")))
    assert row["witness"] == "nash_critic.safetensors"
    found = kind.from_row(row)
    assert type(found) is kind
    for name in vars(WHOLE):
        if name != "witness":
            assert getattr(found, name) == getattr(WHOLE, name), name
    assert found.to_row("nash_critic.safetensors") == WHOLE.to_row("nash_critic.safetensors")


def test_without_a_witness_a_row_has_no_kind_of_it() -> None:
    row = WHOLE.to_row()
    assert (row["witness"], row["witness_kind"]) == (None, None)


def test_a_witness_of_tensors_takes_the_place_of_the_name() -> None:
    tensors = {"critic": {"w": torch.ones(2)}}
    found = Certificate.from_row(WHOLE.to_row("x"), witness=tensors)
    assert found.witness is tensors
    assert found == Certificate.from_row(WHOLE.to_row("x"))  # witnesses are not compared


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"claim": None}, "no 'claim'"),
        ({"claim": 3}, "'claim' should be a text"),
        ({"verdict": "MAYBE"}, "'nash/critic' has the verdict 'MAYBE', which is none of VERIFIED"),
        ({"evidence": []}, "'evidence' should be an object"),
        ({"limits": "no"}, "'limits' should be a list"),
        ({"tolerance": 0.1}, "'tolerance' should be an object"),
    ],
)
def test_what_a_row_lacks_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Statement.from_row(WHOLE.to_row() | change)


def test_what_a_row_need_not_have() -> None:
    found = Statement.from_row({"claim": "stable", "verdict": "VERIFIED"})
    assert (found.summary, found.evidence, found.tolerance, found.limits) == ("", {}, None, ())
    unknown = Statement.from_row(
        {"claim": "stable", "verdict": "VERIFIED", "tolerance": {"unit": "nats"}}
    )
    assert unknown.tolerance is not None
    assert math.isnan(unknown.tolerance.value)


def test_numbers_of_the_evidence() -> None:
    assert WHOLE.number("gain") == 0.2
    assert WHOLE.number("none") is None
    assert WHOLE.interval == (0.1, 0.3)
    assert WHOLE.ends("broken") is None
    assert (WHOLE.kind, WHOLE.unit) == ("nash", "nats")
    assert [as_number(x) for x in (True, "inf", "-Infinity", 3, "3", None)] == [
        None,
        math.inf,
        -math.inf,
        3.0,
        None,
        None,
    ]
    assert as_number(10**400) == math.inf
    assert as_number(-(10**400)) == -math.inf


def test_rungs_say_what_they_mean() -> None:
    assert len({rung.claim for rung in RUNGS}) == len(RUNGS)
    assert Rung("nash", "Nash").words == "Nash"
    assert Rung("stable", "stable", "it stays").words == "stable (it stays)"


def test_the_model_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import equilibrist.certificates"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
