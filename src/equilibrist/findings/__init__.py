"""What can be wrong with adversarial training, by name: the vocabulary, and a finding with its evidence."""

from equilibrist.findings._kind import GROUPS, Kind
from equilibrist.findings.finding import (
    LEVELS,
    VOCABULARY,
    Finding,
    as_recorded,
    foremost,
    from_recorded,
    is_cause,
    numbers_of,
    ordered,
    weighed,
    with_causes,
)

__all__ = [
    "GROUPS",
    "LEVELS",
    "VOCABULARY",
    "Finding",
    "Kind",
    "as_recorded",
    "foremost",
    "from_recorded",
    "is_cause",
    "numbers_of",
    "ordered",
    "weighed",
    "with_causes",
]
