"""The command `report`."""

from __future__ import annotations

from equilibrist.cli.options import RunArgument
from equilibrist.cli.output import say


def report(directory: RunArgument) -> None:
    """Write RUN/report.html and RUN/report.json from the run directory alone."""
    from equilibrist.report import write_report

    say(f"Report: {write_report(directory)}")
