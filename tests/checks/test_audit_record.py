"""Certificates, the audit folder, witnesses that replay, and errors of one line."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import (
    F64,
    Affine,
    Gaussian,
    Linear,
    audit,
    audit_game,
    audited,
    boxed,
    context,
    points,
)
from safetensors.torch import load_file
from torch import nn

from equilibrist import (
    GAN,
    SGD,
    Alternating,
    Certificate,
    Recipe,
    RecipeError,
    RecordError,
    RequirementError,
    Vanilla,
    Verdict,
    WeightClipping,
    train,
)
from equilibrist.checks import Settings, Tolerance
from equilibrist.checks.certificate import combined
from equilibrist.checks.context import AuditContext

FAST: dict[str, Any] = {
    "steps": 20,
    "looks": 4,
    "starts": 2,
    "batches": 16,
    "look_batches": 8,
    "groups": 4,
    "group_batches": 2,
}


# -- certificates --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ("RR", "R"),
        ("RN", "R"),
        ("RV", "R"),
        ("RU", "R"),
        ("UU", "U"),
        ("UN", "U"),
        ("UV", "U"),
        ("NN", "N"),
        ("NV", "N"),
        ("VV", "V"),
    ],
)
def test_the_verdict_of_both(parts: str, whole: str) -> None:
    names = {
        "R": Verdict.REFUTED,
        "U": Verdict.UNASSESSED,
        "N": Verdict.NOT_REFUTED,
        "V": Verdict.VERIFIED,
    }
    for order in (parts, parts[::-1]):
        made = [Certificate(f"nash/{i}", names[letter], "said") for i, letter in enumerate(order)]
        found = combined("nash", made, "all")
        assert found.verdict is names[whole]
        assert found.evidence == {"nash/0": names[order[0]].value, "nash/1": names[order[1]].value}


def test_a_certificate_is_neither_true_nor_false() -> None:
    for verdict in Verdict:
        with pytest.raises(TypeError, match=r"look at \.verdict"):
            bool(Certificate("nash", verdict, "said"))


def test_require() -> None:
    passing = {
        Verdict.VERIFIED: (True, True),
        Verdict.NOT_REFUTED: (True, False),
        Verdict.REFUTED: (False, False),
        Verdict.UNASSESSED: (False, False),
    }
    for verdict, outcomes in passing.items():
        certificate = Certificate("nash", verdict, "what was seen")
        for verified, passes in zip((False, True), outcomes, strict=True):
            if passes:
                assert certificate.require(verified) is certificate
            else:
                with pytest.raises(
                    RequirementError, match=f"nash is {verdict.value}: what was seen"
                ) as caught:
                    certificate.require(verified)
                assert caught.value.exit_code == 5


def test_claims_are_found_by_name() -> None:
    found = audited(boxed([0.5], [0.5]), Gaussian(), checks=("stationary", "nash"), **FAST)
    assert list(found) == [
        "stationary/generator",
        "stationary/critic",
        "stationary",
        "nash/generator",
        "nash/critic",
        "nash",
    ]
    with pytest.raises(RequirementError, match=r"did you mean nash/critic\?") as caught:
        found["nash/critc"]
    assert "\n" not in str(caught.value)


def test_the_claim_about_all_is_about_no_single_player() -> None:
    found = audited(boxed([0.5], [0.5]), Gaussian(), checks=("stationary", "nash"), **FAST)
    for claim in ("stationary", "nash"):
        assert found[claim].player is None
        assert "player" not in found[claim].scope


@pytest.mark.parametrize("checks", [("nash", "stationery"), ("convergence",)])
def test_an_unknown_check_is_one_line_with_a_hint(checks: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match="there is no check") as caught:
        audited(boxed([0.5], [0.5]), Gaussian(), checks=checks)
    assert "\n" not in str(caught.value)
    assert ("did you mean stationary?" in str(caught.value)) == ("stationery" in checks)


# -- a run and its audit -------------------------------------------------------------------------


def recipe(steps: int = 4, **audit_settings: Any) -> Recipe:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    game = GAN(
        Affine(1.0, [0.9]),
        critic,
        Vanilla(),
        latent=1,
        projections=(WeightClipping(1.0, "generator"),),
    )
    data = points(np.random.default_rng(0).normal(0.0, 1.0, size=(400, 1)))
    return Recipe(
        game,
        data,
        Alternating(optimizer=SGD(lr=0.2)),
        steps=steps,
        batch=32,
        dtype=F64,
        audit={**FAST, "tolerance": 1e-4, **audit_settings},
    )


@pytest.fixture
def audited_run(tmp_path: Path) -> Any:
    run = train(recipe(), tmp_path / "run", device="cpu", progress="none")
    return run, audit(run, progress="none")


def test_the_saved_witness_replays(audited_run: Any) -> None:
    """By hand: G = w z + u, D a perceptron, the non-saturating loss; on the bank's numbers alone."""
    run, _ = audited_run
    folder = run.directory / "audit"
    rows = {
        row["claim"]: row for row in json.loads((folder / "audit.json").read_text())["certificates"]
    }
    settings = json.loads((folder / "audit.json").read_text())["settings"]
    assert settings["optimizers"] == {p: repr(SGD(lr=0.2)) for p in ("generator", "critic")}
    data = points(np.random.default_rng(0).normal(0.0, 1.0, size=(400, 1)))
    bank = AuditContext(
        recipe().game,
        run.players,
        run.constants,
        data,
        Settings(batch=32, batches=settings["batches"]),
        run.seed,
    ).bank("score")

    def loss(
        g: dict[str, torch.Tensor], d: dict[str, torch.Tensor], draw: Any, player: str
    ) -> float:
        def score(x: np.ndarray) -> np.ndarray:
            p = {k: v.double().numpy() for k, v in d.items()}
            return (np.tanh(x @ p["0.weight"].T + p["0.bias"]) @ p["2.weight"].T + p["2.bias"])[
                :, 0
            ]

        fake = score(float(g["w"]) * draw["latent"].numpy() + g["u"].numpy())
        if player == "generator":
            return float(np.logaddexp(0, -fake).mean())
        return float(
            np.logaddexp(0, -score(draw["real"].numpy())).mean() + np.logaddexp(0, fake).mean()
        )

    refuted = 0
    for player in ("generator", "critic"):
        row = rows[f"nash/{player}"]
        assert row["verdict"] == "REFUTED"
        refuted += 1
        assert row["witness"] == f"nash_{player}.safetensors"
        saved = load_file(folder / row["witness"])
        # A plain state_dict: it loads into the module as it is.
        recipe().game.load(run.players, run.constants)[player].load_state_dict(saved)
        new = {**run.players, player: saved}
        gains = [
            loss(run.players["generator"], run.players["critic"], draw, player)
            - loss(new["generator"], new["critic"], draw, player)
            for draw in bank
        ]
        assert np.mean(gains) == pytest.approx(row["evidence"]["gain"], rel=1e-9)
        assert row["evidence"]["score_batches"] == len(bank)
    assert refuted == 2
    assert rows["nash"]["witness"] is None


def test_audit_json_is_what_was_found(audited_run: Any) -> None:
    run, found = audited_run
    text = (run.directory / "audit" / "audit.json").read_text()
    value = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (value["step"], value["checkpoint"], value["sha256"]) == (
        run.step,
        run.checkpoint,
        run.sha256,
    )
    assert [row["claim"] for row in value["certificates"]] == list(found)
    for row, c in zip(value["certificates"], found.values(), strict=True):
        assert row["verdict"] == c.verdict.value
        assert row["summary"] == c.summary
        for key in ("gain", "interval", "residual", "noise_floor"):
            assert row["evidence"].get(key) == c.evidence.get(key)
        if c.tolerance:
            assert row["tolerance"] == {
                "value": c.tolerance.value,
                "unit": c.tolerance.unit,
                "why": c.tolerance.why,
            }
    names = {p.name for p in (run.directory / "audit").iterdir()}
    assert names == {
        ".equilibrist",
        "audit.json",
        "nash_critic.safetensors",
        "nash_generator.safetensors",
        "stationary_critic.safetensors",
        "stationary_generator.safetensors",
        "nash_generator_before.npy",
        "nash_generator_during.npy",
        "nash_generator_after.npy",
    }
    again = value | {"seconds": 0}
    assert json.loads(json.dumps(again, allow_nan=False)) == again


def test_the_sheets_are_the_trained_generator_and_the_witness(audited_run: Any) -> None:
    run, found = audited_run
    before, after = (
        np.load(run.directory / "audit" / f"nash_generator_{w}.npy") for w in ("before", "after")
    )
    latents = (before - float(run.players["generator"]["u"])) / float(run.players["generator"]["w"])
    witness = found["nash/generator"].witness["generator"]
    np.testing.assert_allclose(
        after, float(witness["w"]) * latents + float(witness["u"]), atol=1e-5
    )


def test_the_sheets_show_the_witness_that_a_claim_took_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small move down the gradient may refute where the search found nothing: the pictures are of that move."""
    from equilibrist.checks import _audit

    taken = {name: torch.full((), value) for name, value in (("w", 3.0), ("u", -1.0))}

    reconcile = _audit.reconcile

    def implied(certificates: Any) -> tuple[Certificate, ...]:
        return tuple(
            dataclasses.replace(
                c,
                witness={"generator": taken},
                evidence={**c.evidence, "implied_by": "stationary/generator"},
            )
            if c.claim == "nash/generator"
            else c
            for c in reconcile(certificates)
        )

    monkeypatch.setattr(_audit, "reconcile", implied)
    run = train(recipe(), tmp_path / "run", device="cpu", progress="none")
    found = audit(run, progress="none")
    assert found["nash/generator"].witness == {"generator": taken}
    before, during, after = (
        found.sheets[f"nash/generator:{when}"].numpy() for when in ("before", "during", "after")
    )
    w, u = (float(run.players["generator"][k]) for k in ("w", "u"))
    latents = (before - u) / w
    np.testing.assert_allclose(after, 3 * latents - 1, atol=1e-5)
    np.testing.assert_allclose(during, (before + after) / 2, atol=1e-5)


@pytest.mark.filterwarnings("ignore:the 4 samples")
def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    game = boxed([0.5], [0.5])
    start = game.init()
    data = points(np.arange(4.0)[:, None])
    found = audit_game(
        game,
        start.players,
        start.constants,
        data,
        Settings(**FAST),
        checks=("nash",),
        progress="none",
    )
    certificate = found["nash/generator"]  # one batch: an infinite interval
    assert certificate.evidence["interval"] == [-math.inf, math.inf]
    assert certificate.verdict is Verdict.UNASSESSED
    assert found.to_json()["certificates"][0]["evidence"]["interval"] == [None, None]
    found.save(tmp_path / "audit", data)
    row = json.loads((tmp_path / "audit" / "audit.json").read_text())["certificates"][0]
    assert row["evidence"]["interval"] == [None, None]


@pytest.mark.filterwarnings("ignore:the 4 samples")
def test_too_few_data_are_called_so() -> None:
    found = audited(boxed([0.5], [0.5]), points(np.arange(4.0)[:, None]), **FAST)["nash/generator"]
    assert found.verdict is Verdict.UNASSESSED
    assert "failed" not in found.summary


def test_an_unknown_setting_is_one_line_with_a_hint(tmp_path: Path) -> None:
    run = train(recipe(1), tmp_path / "run", device="cpu", progress="none")
    with pytest.raises(
        RecipeError, match=r"no setting 'perturbations' \(did you mean perturbation\?\)"
    ) as caught:
        audit(run, progress="none", perturbations=0.1)
    assert "\n" not in str(caught.value)
    for bad in ({"starts": 0}, {"steps": 0}, {"groups": 2}, {"batches": 0}):
        with pytest.raises(RecipeError, match="at least"):
            audit(run, progress="none", **bad)
    assert not (run.directory / "audit").exists()


@pytest.mark.parametrize(
    "bad",
    [
        {"confidence": 2.0},
        {"confidence": 0.0},
        {"tolerance": -1.0},
        {"perturbation": -0.1},
        {"move": 0.0},
        {"steps": "many"},
        {"optimizers": {"critc": SGD()}},
    ],
)
def test_a_setting_without_sense_is_refused(bad: dict[str, Any], tmp_path: Path) -> None:
    run = train(recipe(1), tmp_path / "run", device="cpu", progress="none")
    with pytest.raises(RecipeError):
        audit(run, progress="none", **bad)


@pytest.mark.parametrize("bad", [{"groups": 1}, {"looks": 0}, {"starts": 0}])
def test_settings_made_by_hand_are_checked_as_well(bad: dict[str, Any]) -> None:
    from equilibrist import EquilibristError

    with pytest.raises((EquilibristError, ValueError), match=next(iter(bad))):
        audited(boxed([0.5], [0.5]), Gaussian(), checks=("stationary", "nash"), **(FAST | bad))


def test_nothing_is_written_on_request(tmp_path: Path) -> None:
    run = train(recipe(1), tmp_path / "run", device="cpu", progress="none")
    before = sorted(p.name for p in run.directory.rglob("*"))
    assert audit(run, progress="none", write=False)["nash"].verdict is not None
    assert sorted(p.name for p in run.directory.rglob("*")) == before


# -- interrupted writing -------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_what_others_keep_in_the_folder_stays(audited_run: Any) -> None:
    run, found = audited_run
    folder = run.directory / "audit"
    (folder / "notes.txt").write_text("mine")
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("mine")
    (folder / "nash_critic.safetensors").write_bytes(b"a copy of mine")
    own = json.loads((folder / "audit.json").read_text())
    found.save(folder, run.data)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "thesis" / "chapter.tex").read_text() == "mine"
    assert (folder / "nash_critic.safetensors").read_bytes() == b"a copy of mine"
    rows = json.loads((folder / "audit.json").read_text())["certificates"]
    named = {row["claim"]: row["witness"] for row in rows}
    assert named["nash/critic"] == "nash_critic-2.safetensors"
    load_file(folder / named["nash/critic"])
    assert len(rows) == len(own["certificates"])


def test_a_file_of_the_user_s_in_the_place_of_audit_json_is_named_before_the_work(
    audited_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from equilibrist.checks import _audit

    run, _ = audited_run
    (run.directory / "audit" / "audit.json").write_text("{}")
    monkeypatch.setattr(_audit, "audit_game", lambda *_, **__: pytest.fail("it was audited"))
    with pytest.raises(RecordError, match=r"audit\.json was not written by equilibrist") as caught:
        audit(run, progress="none")
    assert "\n" not in str(caught.value)
    assert (run.directory / "audit" / "audit.json").read_text() == "{}"


def test_a_link_in_the_place_of_the_folder_is_kept(audited_run: Any, tmp_path: Path) -> None:
    run, found = audited_run
    (tmp_path / "scratch").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "scratch")
    for _ in range(3):
        found.save(tmp_path / "results", run.data)
    assert (tmp_path / "results").is_symlink()
    assert (tmp_path / "scratch" / "audit.json").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"run", "results", "scratch"}


def test_at_every_moment_there_is_a_whole_audit(
    audited_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies at the n-th renaming or deletion leaves the old audit or the new one."""
    run, found = audited_run
    (run.directory / "audit" / "notes.txt").write_text("mine")
    other = dataclasses.replace(
        found,
        certificates=tuple(
            dataclasses.replace(c, summary="new", witness=c.witness and _doubled(c.witness))
            for c in found.values()
        ),
    )
    left, real, gone = 0, os.replace, Path.unlink

    def strike() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    def replace(*paths: Any) -> None:
        strike()
        real(*paths)

    def unlink(path: Path, **options: Any) -> None:
        if path.suffix != ".part":
            strike()
        gone(path, **options)

    for call in range(60):
        folder = Path(shutil.copytree(run.directory / "audit", tmp_path / str(call)))
        left, ended = call, True
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            patch.setattr(Path, "unlink", unlink)
            try:
                other.save(folder, run.data)
            except KeyboardInterrupt:
                ended = False
        _is_whole(folder, found, other)
        other.save(folder, run.data)
        names = {p.name for p in folder.iterdir()}
        assert {"notes.txt", "audit.json", "nash_critic.safetensors"} <= names
        assert not [name for name in names if "-2" in name or name.endswith(".part")]
        assert (folder / "notes.txt").read_text() == "mine"
        if ended:
            assert call > 10
            return
    pytest.fail("it never ended")


def _is_whole(folder: Path, old: Any, new: Any) -> None:
    rows = json.loads((folder / "audit.json").read_text())["certificates"]
    found = new if {row["summary"] for row in rows} == {"new"} else old
    for row in rows:
        if row["witness"]:
            saved = load_file(folder / row["witness"])
            for name, leaf in found[row["claim"]].witness[row["player"]].items():
                torch.testing.assert_close(saved[name], leaf)
        for name in row["evidence"].get("samples", {}).values():
            assert (folder / name).is_file()


def _doubled(witness: Any) -> Any:
    return {p: {k: 2 * t for k, t in part.items()} for p, part in witness.items()}


def test_a_tolerance_has_a_value_a_unit_and_a_reason() -> None:
    found = audited(boxed([0.5], [0.5]), Gaussian(), checks=("stationary", "nash"), **FAST)
    for certificate in found.values():
        if certificate.player:
            tolerance = certificate.tolerance
            assert isinstance(tolerance, Tolerance)
            # WGAN: 0.02 standard deviations of the scores 0.5 x of x ~ N(0, 1) and N(0.5, 1) together.
            assert tolerance.value == pytest.approx(0.02 * 0.5 * math.sqrt(1 + 0.25**2), rel=0.1)
            assert "score" in tolerance.unit
            assert "scale" in tolerance.why
            assert certificate.scope["player"] == certificate.player
            assert certificate.limits
            assert certificate.references
    assert found["nash/critic"].scope["critic_class"].count("WeightClipping") == 2
    assert context(boxed([0.5], [0.5]), Gaussian()).scope()["losses"] == "V (zero-sum)"
    assert isinstance(Linear([1.0]), nn.Module)
