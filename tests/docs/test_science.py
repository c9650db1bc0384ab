"""docs/science.md defines every claim that an audit can make, and names no other."""

from __future__ import annotations

import re
from pathlib import Path

from equilibrist.checks import REGISTRY

PAGE = (Path(__file__).parents[2] / "docs/science.md").read_text(encoding="utf-8")
CLAIMS = {
    claim.partition("/")[0]
    for check in REGISTRY.values()
    for claim in (check.claims or (check.name,))
}


def column(heading: str, number: int) -> set[str]:
    """The names written as code in a column of the table under a heading."""
    rows = re.findall(r"^\|(.*)\|$", PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0], re.M)
    cells = [re.split(r"(?<!\\)\|", row)[number] for row in rows]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_claim_is_defined() -> None:
    assert column("Kinds of equilibrium", 0) == CLAIMS | {"epsilon-nash"}


def test_theorems_name_claims_that_exist() -> None:
    assert column("Theorems", 2) <= CLAIMS
    assert len(column("Theorems", 2)) >= 5
