"""A case of the zoo, how functions become cases, and randomness that stays within."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from equilibrist.diagnosis import VOCABULARY, Loop
from equilibrist.zoo._kits import Kit, kit_of

DEVELOPMENT, HELD_BACK = HALVES = ("development", "held-back")
TWIN = "-twin"

Script = Callable[..., Loop]


@dataclass(frozen=True)
class Case:
    """One small training loop whose condition is known.

    Attributes:
        name: the script and its variant; a healthy twin's ends with "-twin".
        fault: what is wrong with it, a name of `diagnosis.VOCABULARY`; "" of a healthy loop.
        kit: the variant: data, networks, losses and optimiser (`zoo.kits()`).
        rounds: how long it is trained before its players are judged. Faults of wiring show from the first round on.
        twin: the name of the same loop without the fault, or with it; "" of a healthy loop that stands alone.
        script: the function that writes the loop; `faulty=True` switches its marked line on.
    """

    name: str
    fault: str
    kit: str
    rounds: int
    twin: str
    script: Script

    @property
    def half(self) -> str:
        """ "development" or "held-back": which half its name is in, whatever other cases there are."""
        return half_of(self.name)

    @property
    def about(self) -> str:
        """What the script does, in a line or two."""
        return " ".join((inspect.getdoc(self.script) or "").split())

    @property
    def source(self) -> str:
        """The script as it is written."""
        return inspect.getsource(self.script)

    def make(self, seed: int = 0) -> Loop:
        """The loop at its start, the same for the same seed; torch's global random state is left alone.

        Its rounds draw from torch's global generator, as loops do: run them within `isolated(seed)`.
        """
        with isolated(seed):
            kit = kit_of(self.kit)
            return self.script(kit, bool(self.fault)) if self.twin else self.script(kit)


def half_of(name: str) -> str:
    """The half of the zoo in which a name is: that of its SHA-256's parity; twins go together.

    Args:
        name: of a case.

    Returns:
        "development" or "held-back".
    """
    digest = hashlib.sha256(name.removesuffix(TWIN).encode()).digest()
    return HALVES[digest[0] % 2]


@contextlib.contextmanager
def isolated(seed: int = 0) -> Iterator[None]:
    """Within it torch's CPU generator starts from `seed`; afterwards it is as it was before.

    Args:
        seed: of the generator.

    Yields:
        Nothing.

    Examples:
        >>> with isolated(0):
        ...     x = torch.rand(2)
        >>> with isolated(0):
        ...     bool(torch.equal(x, torch.rand(2)))
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


CASES: dict[str, Case] = {}


def fault(name: str, kits: str, rounds: int = 300) -> Callable[[Script], Script]:
    """Make cases of a script(kit, faulty): for each kit the faulty loop and its healthy twin."""
    assert name in VOCABULARY, name
    # What is wired wrongly shows in any few rounds, what a player is like only after many.
    rounds = min(rounds, 100) if VOCABULARY[name].group in ("wiring", "data", "resume") else rounds

    def register(script: Script) -> Script:
        for kit in kits.split():
            case = f"{script.__name__.replace('_', '-')}-{kit}"
            _add(Case(case, name, kit, rounds, case + TWIN, script))
            _add(Case(case + TWIN, "", kit, rounds, case, script))
        return script

    return register


def healthy(kits: str, rounds: int = 300) -> Callable[[Script], Script]:
    """Make healthy cases of a script(kit) of usual practice, one for each kit."""

    def register(script: Script) -> Script:
        for kit in kits.split():
            name = f"{script.__name__.replace('_', '-')}-{kit}"
            _add(Case(name, "", kit, rounds, "", script))
        return script

    return register


def _add(case: Case) -> None:
    assert case.name not in CASES, case.name
    CASES[case.name] = case


__all__ = ["CASES", "HALVES", "Case", "Kit", "fault", "half_of", "healthy", "isolated"]
