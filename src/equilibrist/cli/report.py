"""The command `report`."""

from __future__ import annotations

import json

from equilibrist.cli.options import RunArgument
from equilibrist.cli.output import say


def report(directory: RunArgument) -> None:
    """Write RUN/report.html and RUN/report.json from the run directory alone."""
    from equilibrist.findings import Finding
    from equilibrist.report import write_report

    page = write_report(directory)
    facts = json.loads(page.with_name("report.json").read_bytes())
    for found in map(Finding.from_row, facts["findings"]):
        if found.level != "note":
            say(f"{found.label}. {found.advice}")
    say(f"Report: {page}")
