"""A whole audit as this version writes it, with made-up numbers: every claim, the ladder, the advice."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from conftest import digit_grid

NATS = {"value": 0.02, "unit": "nats", "why": "2% of the formulation's scale, 1 nats"}
PLACE = (
    "Not a Nash equilibrium: a player gains by deviating alone. Locally: a small move of one player alone already "
    "gains; it is lambda-proximal up to lambda* = 0.12 to 0.14."
)
ADVICE = [
    "The generator's gain of 1.9 nats needs a critic that stands still. Keep the critic ahead of it.",
    "Rotation dominates: try extragradient steps.",
]
RUNGS = [
    ("stationary", "at rest", "VERIFIED"),
    ("stable", "locally stable (gradient flow comes back to it)", "NOT_REFUTED"),
    ("local-minimax", "local minimax (Stackelberg: the critic answers)", None),
    ("proximal", "proximal near the pair, up to lambda*", "NOT_REFUTED"),
    ("local-nash", "local Nash (the critic may not answer)", "REFUTED"),
    ("nash", "Nash", "REFUTED"),
]
SETTINGS = {
    "batch": 64,
    "starts": 4,
    "steps": 2000,
    "batches": 64,
    "look_batches": 16,
    "prox_lambdas": [0.001, 0.1, 10.0],
    "prox_starts": 2,
    "prox_steps": 40,
    "prox_track": 3,
    "inner_steps": 50,
    "step_sizes": {},
}


def certificate(claim: str, verdict: str, evidence: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One entry of audit.json."""
    return {
        "claim": claim,
        "player": None,
        "verdict": verdict,
        "summary": f"What the check says of {claim}.",
        "evidence": evidence,
        "tolerance": NATS,
        "scope": {"losses": "own losses"},
        "limits": ["near the pair only"],
        "references": ["A paper, section 2"],
        "witness": None,
        "witness_kind": None,
        **more,
    }


def eigenvalues() -> list[list[float]]:
    """Eight beside the real axis, a far one, and a pair that turns."""
    near = [[0.025 + 0.03 * k, 0.0] for k in range(8)]
    return [*near, [5.0, 0.0], [0.1, 1.5], [0.1, -1.5]]


def stable(**evidence: Any) -> dict[str, Any]:
    at = list(np.linspace(-0.2, 5.0, 40))
    curve = {"at": at, "density": [math.exp(-x * x) for x in at]}
    density = {"lowest": [-0.2, 1e-4], "highest": [5.0, 1e-6], "exact": False, **curve}
    found = {
        "parameters": 11,
        "complete": True,
        "extremes": {"smallest real part": {"value": [0.02, 0.0], "residual": 1e-9}},
        "confirmed": None,
        "q": 15.0,
        "q_is": "exact",
        "h_max": 0.0885,
        "h_max_is": "exact",
        "steps": {
            "sizes": {"generator": 0.1, "critic": 0.1},
            "h": 0.1,
            "h_max": 0.0885,
            "outside": 2,
        },
        "consensus": {"gamma": 0.5, "h_max": 0.3, "q": 2.0, "how": "exact"},
        "plain": {"gamma": 0.0, "h_max": 0.0885, "q": 15.0, "how": "exact"},
        "densities": {"generator": density, "critic": density, "symmetric": density},
        "eigenvalues": eigenvalues(),
        "residuals": [1e-9] * 11,
        "zero": 0,
    }
    return certificate("stable", "NOT_REFUTED", found | evidence)


def profile(**evidence: Any) -> dict[str, Any]:
    lams: list[Any] = [0.0, 0.001, 0.1, 10.0, "inf"]
    r = [-0.03, -0.02, 0.01, 0.5, 1.9]
    slack = [0.1, 0.09, 0.05, 0.01, 0.0]
    trials = [
        {
            "lambda": lam,
            "verdict": "refuted" if a > 0.02 else "not refuted",
            "gain": a,
            "gain_interval": [a - 0.01, a + 0.01],
            "failed": "",
        }
        for lam, a in zip(lams, r, strict=True)
    ]
    found = {
        "lambda": lams,
        "r": r,
        "raw": r,
        "low": [x - 0.01 for x in r],
        "high": [x + 0.01 for x in r],
        "slack_within_reach": slack,
        "definition_1": [a + b for a, b in zip(r, slack, strict=True)],
        "slack": 0.1,
        "slack_interval": [0.09, 0.11],
        "lambda_star": [0.1, 10.0],
        "nash_gain": 1.9,
        "trials": trials,
        "unit": "nats",
        "confidence": 0.95,
    }
    return certificate("profile", "NOT_REFUTED", found | evidence, player="generator")


def experiment(**evidence: Any) -> dict[str, Any]:
    steps = list(range(0, 501, 25))
    frozen = [-1.3 - 0.004 * s for s in steps]
    held = [-1.3 + 0.002 * math.sin(s / 9) for s in steps]
    found = {
        "lambda": 0.1,
        "fall": -0.001,
        "interval": [-0.01, 0.008],
        "frozen_fall": 2.0,
        "frozen_interval": [1.9, 2.1],
        "curves": {
            "proximal": {"step": steps, "objective": held, "value": held, "failed": ""},
            "frozen": {"step": steps, "objective": frozen, "value": frozen, "failed": ""},
        },
        "unit": "nats",
        "confidence": 0.95,
        "samples": {
            f"{prefix}{when}": f"generator-vs-prox_{prefix}{when}.png"
            for prefix in ("", "frozen-")
            for when in ("before", "during", "after")
        },
    }
    return certificate("generator-vs-prox", "NOT_REFUTED", found | evidence, player="generator")


def gap(claim: str, lam: Any, size: float) -> dict[str, Any]:
    part = {"gain": size / 2, "interval": [size / 2 - 0.01, size / 2 + 0.01], "status": "found"}
    found = {
        "gap": size,
        "interval": [size - 0.02, size + 0.02],
        "lambda": lam,
        "critic": part,
        "generator": part | {"status": "nothing found", "searched": [0.1] * 30},
        "unit": "nats",
        "confidence": 0.95,
    }
    return certificate(claim, "REFUTED", found)


def more() -> list[dict[str, Any]]:
    """The certificates of the checks that earlier versions did not have."""
    local = {"gain": 0.031, "gain_interval": [0.025, 0.037], "smallest": -1.1, "confidence": 0.95}
    rising = local | {"gain": -0.004, "gain_interval": [-0.005, -0.003]}
    test = {"passed": True, "off": 1e-12}
    return [
        certificate("self-tests", "VERIFIED", {"tests": {"repeat": test, "slopes/critic": test}}),
        certificate("stationary", "VERIFIED", {}),
        stable(),
        certificate(
            "local-nash/generator",
            "REFUTED",
            local,
            player="generator",
            witness="local-nash_generator.safetensors",
            witness_kind="direction",
        ),
        certificate("local-nash/critic", "NOT_REFUTED", rising, player="critic"),
        certificate("local-nash", "REFUTED", {"local-nash/generator": "REFUTED"}),
        certificate("local-minimax", "UNASSESSED", local),
        certificate(
            "proximal",
            "NOT_REFUTED",
            {"lambda_star": [0.12, 0.14], "infinite": False, "lambda_star_noise": 0.01},
        ),
        certificate("lambda-search", "NOT_REFUTED", {"interval": [0.1, 0.2], "trials": []}),
        profile(),
        experiment(),
        gap("duality-gap", "inf", 0.2),
        gap("proximal-duality-gap", 0.1, 0.12),
    ]


def whole(run: Path, without: tuple[str, ...] = (), **keys: Any) -> Path:
    """Makes the run's audit one of this version; `without` names claims to leave out, `keys` replace keys."""
    path = run / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    audit["certificates"] += more()
    audit["certificates"] = [c for c in audit["certificates"] if c["claim"] not in without]
    audit |= {
        "place": PLACE,
        "advice": ADVICE,
        "ladder": [{"claim": c, "words": w, "verdict": v} for c, w, v in RUNGS],
        "work": {
            name: {"gradients": 100.0, "planned": 110.0, "seconds": 10.0}
            for name in ("self-tests", "stationary", "stable", "local", "proximal", "nash")
        },
        "settings": SETTINGS,
        **keys,
    }
    path.write_text(json.dumps(audit))
    for i, when in enumerate(("before", "during", "after")):
        for prefix in ("", "frozen-"):
            digit_grid(run / "audit" / f"generator-vs-prox_{prefix}{when}.png", 0.1 + 0.3 * i, 11)
    return run


def edited(run: Path, claim: str, **evidence: Any) -> Path:
    """Replaces numbers of one claim's evidence."""
    path = run / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    for entry in audit["certificates"]:
        if entry["claim"] == claim:
            entry["evidence"] |= evidence
    path.write_text(json.dumps(audit))
    return run
