"""docs/papers.md is what the committed records say."""

from __future__ import annotations

from pathlib import Path

from equilibrist.papers import records
from equilibrist.papers.catalogue import EXPERIMENTS
from equilibrist.papers.model import SIZES
from equilibrist.papers.page import papers_page

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "docs/papers"


def test_the_page_is_made_from_the_records() -> None:
    made = papers_page(RECORDS)
    assert (ROOT / "docs/papers.md").read_text(encoding="utf-8") == made, "run `make papers`"


def test_every_committed_record_belongs_to_a_unit() -> None:
    known = {
        records.folder_of(RECORDS, one, size) / f"{unit.key}.json"
        for one in EXPERIMENTS
        for size in SIZES
        for unit in one.units(size)
    }
    found = set((RECORDS).rglob("*.json"))
    assert found - known == set()
    assert len(found) > 0
