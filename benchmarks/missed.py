"""What the page of benchmarks says of rows above their bounds: what a profile showed, and what was tried."""

MISSED: dict[str, str] = {}
