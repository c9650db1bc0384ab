"""What a resumption forgot, by what differs right after loading."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equilibrist.certificates import Json
from equilibrist.diagnosis._comparison import RunComparison
from equilibrist.diagnosis._difference import Key, differing
from equilibrist.diagnosis._rounds import Watched
from equilibrist.diagnosis._state import CARRIED, Leaf, State, relative_gap
from equilibrist.diagnosis._unrestored import UnrestoredState
from equilibrist.display import shortened
from equilibrist.findings import Finding

RESTORED = {
    "held": "stale-parameters",
    "weight": "weights-not-restored",
    "buffer": "weights-not-restored",
    "average": "average-not-restored",
    "moment": "moments-not-restored",
    "rate": "schedule-not-restored",
    "schedule": "schedule-not-restored",
    "scaler": "state-not-restored",
    "mode": "state-not-restored",
}
DIRECT = ("held", "weight", "buffer", "average", "moment", "schedule", "scaler", "mode")
ROUNDING = 0.05  # of what training moved: two runs that lie closer may differ by rounding alone
EQUAL = 0.9  # of the weights move by the learning rate where Adam starts anew


def forgotten(
    plain: Watched, saving: Watched, resumed: Watched, rounds: int, exact: bool
) -> list[Finding]:
    """Findings: whether the run repeats, whether saving changes it, and what was not restored."""
    found = _repeats(plain, saving, rounds)
    repeats = not found
    if repeats:
        found += _disturbs(plain, saving, rounds)
    if exact:
        return found
    runs = (plain, saving, resumed, rounds, repeats)
    found += Restored(*runs).direct()
    if repeats:
        rest = UnrestoredState(*runs)
        found += rest.drawn()
        if not [f for f in found if f.level != "note" and f.name != "save-disturbs"]:
            found += rest.remaining()
    return found


def _repeats(plain: Watched, saving: Watched, rounds: int) -> list[Finding]:
    for done in range(rounds + 1):
        a, b = plain.states[done], saving.saved if done == rounds else saving.states[done]
        keys = differing(a, b, CARRIED)
        if keys:
            name = (a.get(keys[0]) or b[keys[0]]).name
            when = f"after round {done}" if done else "as soon as they are made"
            text = (
                f"Two uninterrupted runs from the same seed differ ({name}, {when}), so the continuations cannot be "
                "compared: something is not deterministic, or lives outside of make()."
            )
            apart = _apart(plain, saving, rounds)
            if apart > ROUNDING:
                text += (
                    f" Their weights lie {apart:.2g} times as far apart as training has moved them."
                )
            evidence = {"round": done, "tensor": name, "apart": apart}
            level = "warning" if apart > ROUNDING else "note"
            return [Finding("not-repeatable", "loop", text, level, evidence=evidence)]
    return []


def _apart(plain: Watched, saving: Watched, rounds: int) -> float:
    """How far apart the weights of two runs are, in terms of what training moved: rounding leaves little of it."""
    begin, one, other = saving.states[0], saving.saved, plain.states[rounds]
    gap = moved = 0.0
    for key, leaf in one.items():
        trio = [s[key].value for s in (begin, one, other) if key in s]
        same = len(trio) == 3 and all(isinstance(v, Tensor) for v in trio)
        if leaf.kind == "weight" and same and len({v.shape for v in trio}) == 1:
            start, a, b = (v.double() for v in trio)
            gap += float((a - b).square().sum())
            moved += float((a - start).square().sum())
    return (gap / moved) ** 0.5 if moved > 0 else 0.0


def _disturbs(plain: Watched, saving: Watched, rounds: int) -> list[Finding]:
    """Saving that moves weights or modes; random numbers that it draws are worth a note."""
    keys = differing(saving.saved, saving.states[rounds], (*CARRIED, "mode"))
    if not keys:
        return _draws(saving, rounds)
    leaf = saving.saved.get(keys[0]) or saving.states[rounds][keys[0]]
    text = f"save() changes the run that it saves: {leaf.name} is another after it ({len(keys)} in all)."
    return [Finding("save-disturbs", leaf.owner, text, evidence={"tensors": len(keys)})]


def _draws(saving: Watched, rounds: int) -> list[Finding]:
    """Random numbers that saving draws."""
    before, after = saving.saved, saving.states[rounds]
    keys = [key for key in differing(before, after, ["random"]) if key in before and key in after]
    if not keys:
        return []
    name = before[keys[0]].name
    text = (
        f"save() draws random numbers ({name} is another after it): a run that saves is another run than one that "
        "does not, although no weight is touched."
    )
    cure = "draw what is saved with a generator of its own"
    return [Finding("save-disturbs", name, text, "note", "certain", {"source": name}, cure)]


class Restored(RunComparison):
    """What differs right after loading, and what that says."""

    def direct(self) -> list[Finding]:
        """What differs from what was saved, owner by owner."""
        groups: dict[tuple[str, str], list[Key]] = {}
        for key in self.keys(DIRECT):
            leaf = self.saved.get(key) or self.loaded[key]
            if ("stale-parameters", leaf.owner) not in groups:  # which explains its moments as well
                groups.setdefault((RESTORED[leaf.kind], leaf.owner), []).append(key)
        for key in self._rates():
            # The state of an optimiser holds its rates as well: that it was forgotten explains both.
            whole = ("moments-not-restored", key[0])
            groups.setdefault(whole if whole in groups else (RESTORED["rate"], key[0]), []).append(
                key
            )
        return [self._finding(name, owner, keys) for (name, owner), keys in groups.items()]

    def _rates(self) -> list[Key]:
        """Rates that differ where the optimiser steps: what a loop sets before every step is not looked at."""
        found = []
        for key in (
            self.keys(["rate"]) if self.repeats else differing(self.saved, self.loaded, ["rate"])
        ):
            mine, theirs = (run.first.get(key[0]) for run in (self.saving, self.resumed))
            at_work = mine is None or theirs is None or mine.rates != theirs.rates
            if at_work or not key[1].startswith("lr"):
                found.append(key)
        return found

    def _finding(self, name: str, owner: str, keys: list[Key]) -> Finding:
        evidence: Json = {"key": list(keys[0]), "tensors": len(keys)}
        by = relative_gap(self.saved[keys[0]], self.loaded[keys[0]]) if self.both(keys[0]) else None
        if by is not None:
            evidence["relative"] = by
        sure = "certain" if self.repeats else "likely"
        says = {
            "weights-not-restored": self._weights,
            "average-not-restored": self._average,
            "moments-not-restored": self._moments,
            "schedule-not-restored": self._schedule,
        }.get(name, self._other)
        name, text, more = says(name, owner, keys)
        return Finding(name, owner, f"Right after loading, {text}.", "fault", sure, evidence | more)

    # -- what each kind says -----------------------------------------------------------------------

    def _weights(self, name: str, owner: str, keys: list[Key]) -> tuple[str, str, Json]:
        buffers = all(self.kind(key) == "buffer" for key in keys)
        what = "buffers" if buffers else "weights"
        some = f"{len(keys)} of its tensors, first {keys[0][1]}"
        if (source := self._taken_from(keys, "average")) is not None:
            if self._rests(source):
                old = f"{owner}'s weights are those of {source}, bit for bit: an older copy was loaded in their place"
                return name, old, {"equals": source}
            return (
                "average-not-restored",
                f"{owner}'s weights are those of {source}, bit for bit: the average was loaded in their place",
                {"equals": source},
            )
        if (source := self._taken_from(keys, "weight")) is not None:
            return name, f"{owner}'s weights are those of {source}, bit for bit", {"equals": source}
        if self._are(keys, self.fresh):
            return (
                name,
                f"{owner}'s {what} are those that it was made with ({some})",
                {"equals": "made"},
            )
        if (dtype := self._rounded(keys)) is not None:
            return name, f"{owner}'s {what} were rounded to {dtype} ({some})", {"rounded": dtype}
        return name, f"{owner}'s {what} are not those that were saved ({some})", {}

    def _average(self, name: str, owner: str, keys: list[Key]) -> tuple[str, str, Json]:
        some = f"{len(keys)} tensors, first {keys[0][1] or keys[0][0]}"
        if (source := self._taken_from(keys, "weight", self.loaded)) is not None:
            return (
                name,
                f"the average {owner} is {source}'s raw weights, bit for bit, which it was not when it was saved: it "
                "starts again",
                {"equals": source},
            )
        if self._are(keys, self.fresh):
            return (
                name,
                f"the average {owner} is what it was made with ({some})",
                {"equals": "made"},
            )
        return name, f"the average {owner} is not what was saved ({some})", {}

    def _moments(self, name: str, owner: str, keys: list[Key]) -> tuple[str, str, Json]:
        held = [key for key in self.saved if key[0] == owner and self.kind(key) == "moment"]
        absent = [key for key in held if key not in self.loaded]
        first, usual = self.resumed.first.get(owner), self.saving.first.get(owner)
        if absent and len(absent) == len(held):
            kinds = ", ".join(dict.fromkeys(key[1].partition(" of ")[0] for key in held))
            text = f"{owner} starts anew: its moments and counters ({shortened(kinds, 60)}) were not restored"
        elif absent:
            text = f"{owner} lacks {len(absent)} of {len(held)} tensors of its state, first {absent[0][1]}"
        elif all(key[1].startswith("step") for key in keys if self.kind(key) == "moment"):
            text = f"{owner} counts its steps from another number ({self.values(keys[0])})"
        else:
            text = f"{len(keys)} tensors of {owner}'s state are others, first {keys[0][1]}"
        more: Json = {}
        for key in keys:
            if self.kind(key) == "rate" and key[1].startswith("lr"):
                text += f"; its rate is another as well ({self.values(key)})"
        if first and usual and first.equal >= EQUAL and usual.equal < EQUAL:
            more = {"equal_first": first.equal, "equal_usual": usual.equal}
            text += (
                f"; its first step moves {first.equal:.0%} of the weights by exactly the learning rate, where the "
                f"uninterrupted run moves {usual.equal:.0%} so"
            )
        return name, text, more

    def _schedule(self, name: str, owner: str, keys: list[Key]) -> tuple[str, str, Json]:
        key = next(
            (k for k in keys if k[1].endswith("last_epoch") or k[1].startswith("lr")), keys[0]
        )
        text = f"{key[1]} of {owner} is another ({self.values(key)})"
        more: Json = {"key": list(key)}
        if self.kind(key) == "schedule" and self.both(key):
            other = self._step_of_another(key)
            if other:
                text += f": that is where {other} stood"
                more["equals"] = other
        return name, text, more

    def _other(self, name: str, owner: str, keys: list[Key]) -> tuple[str, str, Json]:
        if name == "stale-parameters":
            return name, f"{owner} holds other tensors than those that the modules use", {}
        if self.kind(keys[0]) == "mode":
            return name, f"modules of {owner} are in another mode (train or eval)", {}
        return name, f"{keys[0][1] or owner} of {owner} is another ({self.values(keys[0])})", {}

    # -- signatures --------------------------------------------------------------------------------

    def _are(self, keys: list[Key], state: State) -> bool:
        """Whether these are what another state has; averages made by hand had no name of their own at first."""

        def there(key: Key) -> Leaf | None:
            return state.get(key) or state.get((".".join(key), ""))

        return all(
            key in self.loaded and (leaf := there(key)) and leaf.mark == self.loaded[key].mark
            for key in keys
        )

    def _taken_from(self, keys: list[Key], kind: str, where: State | None = None) -> str | None:
        """The owner of other tensors of a kind that all of these equal, in their order, and did not when saved."""
        where = self.saved if where is None else where
        floats = [k for k in keys if self.both(k) and isinstance(self.loaded[k].value, Tensor)]
        floats = [k for k in floats if self.loaded[k].value.ndim > 0]
        if not floats:
            return None
        owner = keys[0][0]
        others: dict[str, set[Any]] = {}
        for leaf in where.values():
            if leaf.kind == kind and leaf.owner != owner:
                others.setdefault(leaf.owner, set()).add(leaf.mark)
        for other, marks in others.items():
            if all(self.loaded[k].mark in marks for k in floats):
                return other
        return None

    def _rests(self, owner: str) -> bool:
        """Whether it stayed as it was in the last round, as a copy does and an average does not."""
        before = self.saving.states.get(self.rounds - 1, {})
        mine = [key for key, leaf in self.saved.items() if leaf.owner == owner and key in before]
        return bool(mine) and all(before[key].mark == self.saved[key].mark for key in mine)

    def _rounded(self, keys: list[Key]) -> str | None:
        for dtype in (torch.float16, torch.bfloat16):
            pairs = [(self.saved[k].value, self.loaded[k].value) for k in keys if self.both(k)]
            if pairs and all(
                isinstance(a, Tensor) and torch.equal(a.to(dtype).to(a.dtype), b) for a, b in pairs
            ):
                return str(dtype).removeprefix("torch.")
        return None

    def _step_of_another(self, key: Key) -> str | None:
        mine = self.saved[key].mark
        for leaf in self.saved.values():
            same = leaf.kind == "schedule" and leaf.part == key[1] and leaf.owner != key[0]
            if same and leaf.mark == self.loaded[key].mark != mine:
                return leaf.owner
        return None
