"""The zoo's loops: each runs, repeats, differs from its twin in the marked way; halves are fixed; the runner counts."""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings

import pytest
import torch
from torch import Tensor

from equilibrist.cli.program import main
from equilibrist.diagnosis import VOCABULARY, Loop
from equilibrist.errors import RecipeError, RecordError
from equilibrist.zoo import CASES, HALVES, KITS, CaseRecord, Matrix, half_of, isolated, run

FAULTY = [case for case in CASES.values() if case.fault]
PRACTICE = [case for case in CASES.values() if not case.fault and not case.twin]
# What a loop may have: the others are words of audits of what was trained.
WORDS = {name: kind for name, kind in VOCABULARY.items() if kind.group != "audit"}
# Names that no training loop of one process shows, or that are said of a check itself.
NOT_SHOWN = set(WORDS) - {case.fault for case in FAULTY}
SCRIPTS = {case.script: case for case in reversed(CASES.values())}  # the first case of each script


def tensors(loop: Loop) -> list[Tensor]:
    return [t.detach().clone() for m in loop.players.values() for t in m.state_dict().values()]


def trained(name: str, seed: int, rounds: int = 2) -> list[Tensor]:
    with warnings.catch_warnings(), isolated(seed):
        warnings.simplefilter("ignore")  # the deviation of one sample
        loop = CASES[name].make(seed)
        for i in range(rounds):
            loop.step(i)
    return tensors(loop)


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x, y, rtol=0, atol=0, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def test_there_are_as_many_as_promised() -> None:
    assert len({case.fault for case in FAULTY}) >= 24
    for fault in {case.fault for case in FAULTY}:
        variants = [case for case in FAULTY if case.fault == fault]
        assert len({case.kit for case in variants}) >= 3, fault
        assert {case.half for case in variants} == set(HALVES), fault
    assert len({case.script for case in PRACTICE}) >= 40
    assert len({case.kit for case in CASES.values()}) == len(KITS)


def test_every_group_of_the_vocabulary_is_shown() -> None:
    shown = {VOCABULARY[case.fault].group for case in FAULTY}
    assert shown == {kind.group for kind in WORDS.values()}
    assert len(NOT_SHOWN) <= 3, NOT_SHOWN


def test_halves_are_those_of_the_names() -> None:
    for case in CASES.values():
        digest = hashlib.sha256(case.name.removesuffix("-twin").encode()).digest()
        assert case.half == ("development", "held-back")[digest[0] % 2]
    # As they were when the zoo was written: whoever tunes anything may not move them.
    assert half_of("critic-loss-only-logged-ring") == "development"
    assert half_of("critic-loss-only-logged-ring-twin") == "development"
    assert half_of("critic-loss-only-logged-features") == "held-back"


@pytest.mark.parametrize("case", SCRIPTS.values(), ids=lambda case: case.name)
def test_a_script_runs_and_repeats(case) -> None:
    before = torch.get_rng_state()
    first = trained(case.name, 0)
    assert equal(first, trained(case.name, 0))
    if all(torch.isfinite(t).all() for t in first):  # two seeds' NaN are alike
        assert not equal(first, trained(case.name, 1))
    else:
        assert case.fault == "not-finite"
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("case", FAULTY, ids=lambda case: case.name)
def test_a_faulty_loop_is_its_twin_but_for_one_place(case) -> None:
    twin = CASES[case.twin]
    assert twin.twin == case.name
    assert twin.script is case.script
    assert not twin.fault
    assert len([line for line in case.source.splitlines() if "# fault: " in line]) == 1


@pytest.mark.parametrize(
    "case",
    [case for case in SCRIPTS.values() if case.twin and VOCABULARY[case.fault].group == "wiring"],
    ids=lambda case: case.name,
)
def test_a_fault_of_wiring_changes_training(case) -> None:
    """All but those that declare another loss, or whose gradients differ over ranks alone."""
    same = equal(trained(case.name, 0, 4), trained(case.twin, 0, 4))
    declared = case.fault in ("wrong-loss", "bypassed-wrapper") and "tanh" not in case.name
    assert same == declared


def test_every_variant_is_made_and_steps() -> None:
    """With one round each, for those whose script is stepped above on another variant."""
    for case in (*FAULTY, *PRACTICE):
        if case in SCRIPTS.values():
            continue
        with warnings.catch_warnings(), isolated(0):
            warnings.simplefilter("ignore")
            loop = case.make(0)
            loop.step(0)
        assert set(loop.players) == {"generator", "critic"}
        assert loop.real is not None
        assert loop.sample is not None


def test_scripts_do_not_use_the_library_to_train() -> None:
    for script in SCRIPTS:
        assert "equilibrist.solvers" not in inspect.getsource(inspect.getmodule(script))


# -- the runner ----------------------------------------------------------------------------------


def names_the_steps(loop: Loop, rounds: int) -> list[str]:
    """A tool that knows one fault: it counts whether the critic moves."""
    before = [p.clone() for p in loop.players["critic"].parameters()]
    for i in range(3):
        loop.step(i)
    after = loop.players["critic"].parameters()
    return (
        []
        if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        else ["never-stepped"]
    )


RING = "critic-loss-only-logged-ring"


def test_a_tool_is_scored(tmp_path) -> None:
    names = [RING, f"{RING}-twin", "real-term-negative-ring"]
    out = tmp_path / "zoo.jsonl"
    found = run(names, diagnose=names_the_steps, out=out, progress="none")
    assert found.table() == {
        "never-stepped": {"never-stepped": 1},
        "wrong-sign": {"none": 1},
        "healthy": {"none": 1},
    }
    assert [r.case for r in found.misses] == ["real-term-negative-ring"]
    rate = found.rate("faulty")
    assert (rate.right, rate.cases) == (1, 2)
    assert rate.low == pytest.approx(1 - 0.975**0.5)  # Clopper and Pearson, one of two
    assert rate.high == pytest.approx(0.975**0.5)
    assert found.rate("healthy").low == pytest.approx(0.025)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["case"] for line in lines} == set(names)


def test_a_record_goes_on(tmp_path) -> None:
    out = tmp_path / "zoo.jsonl"
    called = []

    def tool(loop: Loop, rounds: int) -> list[str]:
        called.append(rounds)
        if len(called) == 2:
            raise KeyboardInterrupt
        return []

    names = [RING, f"{RING}-twin"]
    with pytest.raises(KeyboardInterrupt):
        run(names, diagnose=tool, out=out, progress="none")
    assert len(out.read_text().splitlines()) == 1
    assert len(run(names, diagnose=tool, out=out, progress="none").records) == 2
    assert len(called) == 3  # the first is not asked for again
    run(names, diagnose=names_the_steps, out=out, progress="none")
    assert "names_the_steps" in out.read_text()  # another tool starts anew
    assert "test_a_record_goes_on" not in out.read_text()
    out.write_text("{}")
    with pytest.raises(RecordError, match="no record of the zoo"):
        run(names, diagnose=tool, out=out, progress="none")


def test_a_tool_that_fails_is_wrong_and_seeds_count_as_one_case() -> None:
    def fails(loop: Loop, rounds: int) -> list[str]:
        raise ValueError("no idea")

    found = run([RING], seeds=(0, 1), diagnose=fails, progress="none")
    assert found.table() == {"never-stepped": {"failed": 2}}
    assert found.rate("faulty").cases == 1
    assert found.misses[0].error == "ValueError: no idea"
    note = {"name": "wrong-loss", "level": "note"}
    right = CaseRecord("a", 0, "", "development", [note], "", 0.0, "")
    assert right.right
    wrong = CaseRecord("a", 1, "", "development", [{"name": "wrong-loss"}], "", 0.0, "")
    assert Matrix((right, right)).rate("healthy").right == 1
    assert Matrix((right, wrong)).rate("healthy").right == 0


def test_what_there_is_not_is_refused(capsys) -> None:
    with pytest.raises(RecipeError, match="no 'ring'"):
        run(["ring"])
    with pytest.raises(RecipeError, match="no half"):
        run(half="third")
    assert main(["zoo", "show", "critic-loss-only-logged-rin"]) == 2
    assert RING in capsys.readouterr().err


def test_the_command_lists_and_shows(capsys) -> None:
    assert main(["zoo", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(CASES)
    assert main(["zoo", "show", RING]) == 0
    shown = capsys.readouterr().out
    assert VOCABULARY["never-stepped"].cure in shown
    assert "# fault: neither backward nor step" in shown
    assert main(["zoo"]) == 0
    assert f"{len(PRACTICE)} loops of usual practice" in capsys.readouterr().out
