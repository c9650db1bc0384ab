"""The checks of one audit, run in turn, within its budget."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from equilibrist.checks import facts, selftests
from equilibrist.checks._budget import FACTS, deep, unfinished
from equilibrist.checks._save import CheckCache
from equilibrist.checks.certificate import Certificate, Verdict
from equilibrist.checks.context import AuditContext, Meter, Show, SpentError
from equilibrist.checks.registry import REGISTRY, Found
from equilibrist.core.memory import give_back
from equilibrist.progress import Progress


def meter(bar: Progress, costs: Mapping[str, float]) -> Meter:
    """Counts minibatch gradients, and moves the progress bar."""
    spent, shown = 0.0, 0

    def count(gradients: float = 1.0) -> None:
        nonlocal spent, shown
        spent += gradients
        if spent - shown >= 10:
            shown = round(spent)
            bar.update(min(shown, round(sum(costs.values()))), {})

    return Meter(count)


@dataclass
class AuditSession:
    """The checks of one audit, run in turn; what they found, and what each spent."""

    context: AuditContext
    costs: Mapping[str, float]
    meter: Meter
    kept: CheckCache | None
    show: Show | None
    certificates: list[Certificate] = field(default_factory=list)
    sheets: dict[str, torch.Tensor] = field(default_factory=dict)
    work: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: facts.Facts | None = None

    def run(self, name: str, most: float) -> None:
        """Run a check, which ends where the audit would have spent more than `most`; after a failed self-test none
        is."""
        failed = next((c for c in self.certificates if selftests.fails(c)), None)
        if failed is not None:
            self.certificates.append(selftests.stopped(name, failed))
            return
        if self.kept is not None and (former := self.kept.get(name)):
            found, self.work[name] = former
            self.meter(self.work[name]["gradients"])
        else:
            with self._counted(name):
                found = self._found(name, most)
            if self.kept is not None:
                self.kept.put(name, found, self.work[name])
        self.certificates += found.certificates
        self.sheets |= found.sheets
        if name == selftests.CLAIM and not selftests.fails(found.certificates[0]):
            with self._counted(FACTS):
                self.facts = facts.facts(self.context, self.meter, deep(self.context.settings))

    def _found(self, name: str, most: float) -> Found:
        check, count = REGISTRY[name], len(self.context.game.players)
        if count > 2 and not check.any_number:
            return Found(
                [_of_two(claim, count) for claim in check.claims or (name,) if "/" not in claim]
            )
        self.meter.most = most
        try:
            return REGISTRY[name].run(self.context, self.meter, self.show)
        except SpentError:
            return Found(unfinished(self.context, REGISTRY[name]))
        finally:
            self.meter.most = math.inf

    @contextlib.contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Record what is spent meanwhile and was planned, in minibatch gradients, and the seconds."""
        before, since = self.meter.spent, time.monotonic()
        yield
        give_back()  # the next check would need as much on top
        self.work[name] = {
            "gradients": round(self.meter.spent - before, 1),
            "planned": round(self.costs[name], 1),
            "seconds": round(time.monotonic() - since, 2),
        }


def _of_two(claim: str, count: int) -> Certificate:
    """The certificate of a claim that is about two players, for a game of more."""
    return Certificate(
        claim,
        Verdict.UNASSESSED,
        f"Not assessed: it is a claim about two players, and this game has {count}.",
    )
