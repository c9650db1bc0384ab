"""An interrupted audit goes on after its finished checks and says what an uninterrupted one says."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import equilibrist as eq
from equilibrist.checks import REGISTRY, registry
from equilibrist.checks._save import CheckCache
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict
from equilibrist.checks.registry import Found

FAST = {"steps": 12, "looks": 3, "starts": 2, "batches": 8, "groups": 3, "group_batches": 2}
CHECKS = ("stationary", "nash")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    critic = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    game = eq.GAN(generator, critic, "vanilla", latent=4, spectral_norm=True)
    recipe = eq.Recipe(game, eq.source_of(torch.randn(1000, 2)), eq.Alternating(), steps=3)
    return eq.train(recipe, tmp_path_factory.mktemp("runs") / "r", progress="none")


def plain(directory: Path) -> Any:
    """audit.json without its timings."""
    value = json.loads((directory / "audit.json").read_text())
    value.pop("seconds")
    for spent in value["work"].values():
        spent.pop("seconds")
    return value


def test_an_interrupted_audit_goes_on(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    eq.audit(run, checks=CHECKS, progress="none", **FAST)
    whole = plain(run.directory / "audit")
    counted = []
    honest = REGISTRY["stationary"]

    def counting(*args: Any) -> Found:
        counted.append(1)
        return honest.run(*args)

    def stop(*_: Any) -> Found:
        raise KeyboardInterrupt

    monkeypatch.setitem(REGISTRY, "stationary", dataclasses.replace(honest, run=counting))
    with monkeypatch.context() as broken:
        broken.setitem(registry.REGISTRY, "nash", dataclasses.replace(REGISTRY["nash"], run=stop))
        with pytest.raises(KeyboardInterrupt):
            eq.audit(run, checks=CHECKS, progress="none", **FAST)
    assert counted == [1]
    assert (run.directory / ".audit-unfinished").is_dir()
    eq.audit(run, checks=CHECKS, progress="none", **FAST)
    assert counted == [1]  # it was not computed again
    assert plain(run.directory / "audit") == whole
    assert not (run.directory / ".audit-unfinished").exists()


def test_what_was_kept_for_other_settings_is_not_used(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Found:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setitem(REGISTRY, "nash", dataclasses.replace(REGISTRY["nash"], run=stop))
        with pytest.raises(KeyboardInterrupt):
            eq.audit(run, checks=CHECKS, progress="none", **FAST)
    other = {**FAST, "groups": 4}
    found = eq.audit(run, checks=CHECKS, progress="none", **other)
    assert found["stationary/critic"].evidence["groups"] == 4


def certificate() -> Certificate:
    return Certificate(
        "nash/critic",
        Verdict.REFUTED,
        "said",
        {"gain": float("inf"), "curve": [1.0, 0.1 + 0.2]},
        Tolerance(0.1, "nats", "set"),
        {"data": "x"},
        ("limit",),
        ("source",),
        "critic",
        {"critic": {"a.b": torch.rand(3, dtype=torch.float64)}},
        "direction",
    )


def test_what_is_kept_comes_back_whole(tmp_path: Path) -> None:
    kept, made = CheckCache(tmp_path / "k", ["key"]), certificate()
    sheet = torch.rand(2, 1, 3, 3)
    kept.put("nash", Found([made], {"nash/critic:before": sheet}), {"gradients": 2.0})
    back, work = kept.get("nash") or (None, None)
    assert back is not None
    assert work == {"gradients": 2.0}
    assert back.certificates == [made]
    assert back.certificates[0].witness_kind == "direction"
    assert torch.equal(back.certificates[0].witness["critic"]["a.b"], made.witness["critic"]["a.b"])
    assert torch.equal(back.sheets["nash/critic:before"], sheet)


@pytest.mark.parametrize("damage", ["key", "cut", "tensors", "edited", "missing"])
def test_what_is_damaged_or_of_another_audit_is_not_used(tmp_path: Path, damage: str) -> None:
    kept = CheckCache(tmp_path, ["key"])
    kept.put("nash", Found([certificate()]), {"gradients": 2.0})
    assert kept.get("nash") is not None
    assert kept.get("stationary") is None
    text, raw = tmp_path / "nash.json", tmp_path / "nash.safetensors"
    if damage == "key":
        kept = CheckCache(tmp_path, ["another"])
    elif damage == "cut":
        text.write_bytes(text.read_bytes()[:-9])
    elif damage == "tensors":
        raw.write_bytes(raw.read_bytes()[:-1] + b"\x01")
    elif damage == "edited":
        text.write_text(text.read_text().replace("REFUTED", "VERIFIED"))
    else:
        raw.unlink()
    assert kept.get("nash") is None


def test_what_is_kept_is_read_no_further_than_it_was_written(tmp_path: Path) -> None:
    kept = CheckCache(tmp_path, ["key"])
    kept.put("nash", Found([certificate()]), {"gradients": 2.0})
    (tmp_path / "nash.safetensors").unlink()
    with (tmp_path / "nash.safetensors").open("wb") as file:
        file.truncate(2**40)
    assert kept.get("nash") is None


def harmed(place: Path, how: str) -> None:
    """What may lie in the place where an audit keeps its finished checks."""
    if how == "file":
        place.write_text("mine")
    elif how == "link":
        place.symlink_to(place.parent)
    else:
        place.mkdir()
        if how == "folder within":
            (place / "stationary.json").mkdir()
        elif how == "pipe within":
            os.mkfifo(place / "stationary.json")
        else:
            (place / "stationary.json").write_text("mine")


@pytest.mark.parametrize("how", ["file", "link", "folder within", "pipe within", "user's"])
def test_what_cannot_be_kept_is_not_kept(tmp_path: Path, how: str) -> None:
    place = tmp_path / "k"
    harmed(place, how)
    before = sorted(tmp_path.rglob("*"))
    kept = CheckCache(place, ["key"])
    kept.put("stationary", Found([certificate()]), {"gradients": 2.0})
    assert kept.get("stationary") is None
    kept.put("nash", Found([certificate()]), {"gradients": 2.0})
    assert (kept.get("nash") is None) == (how in ("file", "link"))
    kept.drop()
    assert sorted(tmp_path.rglob("*")) == before
    for path in (place, place / "stationary.json"):
        if path.is_file():
            assert path.read_text() == "mine"


def test_an_audit_that_can_keep_nothing_is_made_all_the_same(run: Any) -> None:
    place = run.directory / ".audit-unfinished"
    shutil.rmtree(place, ignore_errors=True)
    harmed(place, "folder within")
    found = eq.audit(run, checks=("stationary",), progress="none", **FAST)
    assert "stationary/critic" in found
    assert [path.name for path in place.iterdir()] == ["stationary.json"]
    shutil.rmtree(place)


def test_a_run_that_cannot_be_written_is_refused_before_the_work(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Found:
        pytest.fail("the work was begun")

    monkeypatch.setitem(
        REGISTRY, "self-tests", dataclasses.replace(REGISTRY["self-tests"], run=never)
    )
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(eq.RecordError, match="cannot be written"):
        eq.audit(run, checks=CHECKS, progress="none", **FAST)


def test_a_budget_is_kept_to_and_shared(run: Any) -> None:
    found = eq.audit(run, progress="none", write=False, gradients=600)
    spent = {name: row["gradients"] for name, row in found.work.items()}
    checks = {"self-tests", "stationary", "stable", "local", "proximal", "nash"}
    assert set(spent) == checks | {"facts"}
    assert 200 < sum(spent.values()) <= 600
    alone = eq.audit(run, checks=CHECKS, progress="none", write=False, gradients=600)
    assert alone.work["nash"]["gradients"] > spent["nash"]
    with pytest.raises(eq.RecipeError, match="give at least"):
        eq.audit(run, progress="none", write=False, gradients=100)
