"""Reads the audit of a run: audit/audit.json and the pictures beside it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from equilibrist.certificates import RUNGS
from equilibrist.errors import RecordError
from equilibrist.findings import Finding, from_recorded
from equilibrist.report._read import expect, json_object, read_json_if_there, read_sample, short
from equilibrist.report._record import (
    AuditRecord,
    CertificateRecord,
    Curve,
    Json,
    Rung,
    Sample,
    Verdict,
    as_number,
    numbers,
)

_SIDES = ("", "/generator", "/critic")
# The whole before its sides, equilibrium before rest: the order in which a reader asks.
_ORDER = (
    *(f"nash{side}" for side in _SIDES),
    *(f"local-nash{side}" for side in _SIDES),
    "proximal",
    "lambda-search",
    "profile",
    "generator-vs-prox",
    "local-minimax",
    "duality-gap",
    "proximal-duality-gap",
    "stable",
    *(f"stationary{side}" for side in _SIDES),
)
_LAST = "self-tests"
_RENAMED_CLAIMS = {
    "section-6.1": "generator-vs-prox"
}  # names of claims in audits of earlier versions


def load_audit(path: Path, notes: list[str]) -> AuditRecord | None:
    """The audit in audit.json; None where there is none. Raises `RecordError` where it is damaged."""
    value = read_json_if_there(path)
    if value is None:
        return None
    data = json_object(value, path)
    certificates = expect(data, "certificates", list, "a list", path) or []
    return AuditRecord(
        step=expect(data, "step", int, "a whole number", path),
        seconds=as_number(data.get("seconds")),
        checkpoint=expect(data, "checkpoint", str, "a text", path),
        sha256=expect(data, "sha256", str, "a text", path),
        settings=expect(data, "settings", dict, "an object", path) or {},
        dtype=expect(data, "dtype", dict, "an object", path) or {},
        certificates=sorted((_certificate(item, path, notes) for item in certificates), key=_rank),
        place=expect(data, "place", str, "a text", path) or "",
        findings=_findings(expect(data, "findings", dict, "an object", path) or {}, path, notes),
        advice=[str(item) for item in expect(data, "advice", list, "a list", path) or []],
        ladder=[_rung(item, path) for item in expect(data, "ladder", list, "a list", path) or []],
        facts=_facts(expect(data, "facts", dict, "an object", path) or {}, path),
        notes=[str(item) for item in expect(data, "notes", list, "a list", path) or []],
        work=_work(expect(data, "work", dict, "an object", path) or {}, path),
    )


def _rank(certificate: CertificateRecord) -> int:
    if certificate.claim == _LAST:
        return len(_ORDER) + 1
    return _ORDER.index(certificate.claim) if certificate.claim in _ORDER else len(_ORDER)


def _rung(data: object, path: Path) -> Rung:
    claim = data.get("claim") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(claim, str) or not claim:
        raise RecordError(f"{path}: a rung of 'ladder' has no 'claim': {short(repr(data))}")
    verdict = data.get("verdict")
    words = expect(data, "words", str, "a text", path) or claim
    # Audits of earlier versions have the words alone: where the claim is known, so are its name and meaning.
    known = next((rung for rung in RUNGS if rung.claim == claim), Rung(claim, words))
    name = expect(data, "name", str, "a text", path)
    if name:
        known = Rung(claim, name, expect(data, "meaning", str, "a text", path) or "")
    return replace(known, verdict=None if verdict is None else _verdict(verdict, claim, path))


def _findings(data: Json, path: Path, notes: list[str]) -> list[Finding]:
    found, left_out = from_recorded(data)
    notes += [f"{path.name}: {why}. It is left out." for why in left_out]
    return found


def _facts(data: Json, path: Path) -> list[str]:
    return [str(item) for item in expect(data, "sentences", list, "a list", path) or []]


def _work(data: Json, path: Path) -> dict[str, Json]:
    for name in data:
        expect(data, name, dict, "an object", path)
    return {name: item for name, item in data.items() if item is not None}


def _verdict(value: object, claim: str, path: Path) -> Verdict:
    try:
        return Verdict(str(value))
    except ValueError:
        raise RecordError(
            f"{path}: '{short(claim)}' has the verdict {short(repr(value))}, "
            f"which is none of {', '.join(Verdict)}"
        ) from None


def _certificate(data: object, path: Path, notes: list[str]) -> CertificateRecord:
    if not isinstance(data, dict):
        raise RecordError(f"{path}: 'certificates' should be a list of objects")
    try:
        claim = data.get("claim")
        found = CertificateRecord.from_row(
            {**data, "claim": _RENAMED_CLAIMS.get(str(claim), claim)}
        )
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from None
    evidence = found.evidence
    return replace(
        found,
        curves=_searches(evidence, path) if found.claim != "generator-vs-prox" else [],
        samples=_audit_samples(expect(evidence, "samples", dict, "an object", path), path, notes),
    )


def _searches(evidence: Json, path: Path) -> list[Curve]:
    items: list[Any] = expect(evidence, "curves", list, "a list", path) or []
    curves = []
    for position, item in enumerate(items):
        steps = item.get("steps") if isinstance(item, dict) else None
        gain = item.get("gain") if isinstance(item, dict) else None
        at, height = numbers(steps), numbers(gain)
        if at is None or height is None or len(at) != len(height):
            raise RecordError(f"{path}: curve {position} needs 'steps' and 'gain' of equal length")
        start = item.get("start")
        curves.append(
            Curve(
                start=start if isinstance(start, int) else position,
                steps=at,
                gain=height,
                perturbation=as_number(item.get("perturbation")),
                optimizer=str(item.get("optimizer") or ""),
            )
        )
    return curves


def _audit_samples(data: Json | None, path: Path, notes: list[str]) -> dict[str, Sample]:
    samples = {}
    for when, name in (data or {}).items():
        if name is None:
            continue
        # A record that was handed on must not make the report embed files from elsewhere.
        if not isinstance(name, str) or name != Path(name).name or "\\" in name or "\0" in name:
            raise RecordError(f"{path}: {short(repr(name))} is not the name of a file beside it")
        sample = read_sample(path.parent / name, None, notes)
        if sample:
            samples[when] = sample
    return samples
