"""What compare.json holds, by type."""

from __future__ import annotations

from typing import Literal, TypedDict

from equilibrist.statistics import EstimateFacts


class SideFacts(EstimateFacts):
    """A solver's figure, at equal iterations or at equal compute.

    `steps` are the least and the largest at which a member was looked at; `difference` is the paired one from the
    first solver.
    """

    values: dict[str, float | None]
    steps: list[int] | None
    difference: EstimateFacts | None


class CurveFacts(TypedDict):
    """A figure over training: by step, the mean of the members that had it there."""

    steps: list[int]
    seconds: list[float]
    mean: list[float]
    interval: list[list[float] | None]
    n: list[int]


class QuantityFacts(TypedDict):
    """What a figure is: a score's or a loss."""

    kind: Literal["score", "loss"]
    score: str
    figure: str
    better: str | None
    floor: float | None


class FigureFacts(QuantityFacts):
    """A figure with what every solver reached, by solver."""

    key: str
    iterations: dict[str, SideFacts]
    compute: dict[str, SideFacts]
    curves: dict[str, CurveFacts]


CostFacts = TypedDict(
    "CostFacts", {"gradients": dict[str, int], "J^T u": int, "J u": int, "passes": int}
)


class SolverFacts(TypedDict):
    """A solver, and what its runs cost."""

    name: str
    folder: str
    text: str
    spec: str
    diverged: dict[str, int]
    members: list[int]
    seconds: float | None
    seconds_per_step: float | None
    cost: CostFacts


class ComparisonFacts(TypedDict, total=False):
    """The whole file; without entries where training was interrupted."""

    format: int
    recipe: str
    title: str
    summary: str
    settings: dict[str, object]
    seeds: list[int]
    steps: int
    batch: int
    device: str
    confidence: float
    solvers: list[SolverFacts]
    seconds_at_equal_compute: float | None
    figures: list[FigureFacts]
