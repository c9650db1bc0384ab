"""Reports on a run, made from its directory alone.

`write_report(run_directory)` writes `report.html`, one self-contained page, and `report.json`.
Needs neither the networks nor torch: a run can be reported on wherever its directory is.
"""

from equilibrist.report._write import write_report

__all__ = ["write_report"]
