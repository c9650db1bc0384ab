"""Random streams, the place in the data, and what else a loop keeps between rounds."""

from __future__ import annotations

from torch import Tensor

from equilibrist.certificates import Json
from equilibrist.diagnosis._comparison import RunComparison
from equilibrist.diagnosis._difference import Key, differing
from equilibrist.diagnosis._state import Leaf
from equilibrist.findings import Finding


class UnrestoredState(RunComparison):
    """What is found where the state of modules, optimisers and schedules does not say it all."""

    def drawn(self) -> list[Finding]:
        """Random states and loaders that go on from elsewhere and are drawn from."""
        post = self.saving.states[self.rounds]
        assert self.lasting is not None
        later = self.saving.states[self.rounds + 1]
        keys = []
        for key in differing(self.saved, self.loaded, ["random", "place"]):
            leaf = self.saved.get(key)
            if leaf is None or key not in self.loaded or key not in later:
                continue
            after = self.resumed.states[self.rounds + 1].get(key)
            carried_on = after is not None and after.mark == later[key].mark
            if (
                self.loaded[key].mark != post[key].mark
                and not carried_on
                and later[key].mark != leaf.mark
            ):
                keys.append(key)
        if not keys:
            return []
        names = " and ".join(self.saved[key].name for key in keys)
        more, _ = self._other_call()
        text = (
            f"Right after loading, {names} {'is' if len(keys) == 1 else 'are'} not as saved{more}."
        )
        evidence = {"key": list(keys[0]), "sources": [self.saved[key].name for key in keys]}
        return [Finding("random-not-restored", "loop", text, "warning", evidence=evidence)]

    def _other_call(self) -> tuple[str, bool]:
        """The first call of a network that differs, in words, and whether it is by what one of them is given."""
        mine, theirs = self.saving.inputs, self.resumed.inputs
        for count, (a, b) in enumerate(zip(mine, theirs, strict=False), 1):
            if a[0] != b[0]:
                return f"; call {count} of the round is of {b[0]}, where it was of {a[0]}", False
            if a != b:
                words = f"; the first other input is that of {a[0]}, in call {count} of the round"
                return words, True
        return "", False

    def remaining(self) -> list[Finding]:
        """Nothing that is watched was forgotten, but the runs still differ: the loop keeps something else."""
        candidates = self._candidates()
        call, inputs = self._other_call()
        rates = self._other_rates()
        if rates is not None:
            return [self._hand_made_schedule(*rates, candidates)]
        loaders = [key for key in candidates if self.kind(key) == "place"]
        # Batches that a loader holds are numbers as well: its place tells of them all.
        placed = loaders or [key for key in candidates if not _is_float(self.saved[key])]
        if (inputs and len(placed) == len(candidates)) or loaders:
            candidates = placed
        evidence: Json = {"candidates": [self.saved[k].name for k in candidates[:8]]}
        if candidates:
            evidence["key"] = list(candidates[0])
        which = self._listed(candidates)
        sure = "likely" if candidates and ", " not in which else "possible"
        if inputs and candidates == placed:
            about = f" ({which})" if which else ""
            text = f"Everything that was found is restored, but not the place in the data{about}{call}."
            return [Finding("random-not-restored", "loop", text, "warning", sure, evidence)]
        if not which and differing(self.saved, self.loaded, ["gradient"]):
            which = (
                "it may be the gradients in .grad, if no round clears them before its backward pass"
            )
        about = f": {which}" if which else ", which was not found"
        text = f"The loop keeps something between rounds that is not restored{about}{call}."
        return [Finding("state-not-restored", "loop", text, "fault", sure, evidence)]

    def _other_rates(self) -> tuple[str, tuple[float, ...], tuple[float, ...]] | None:
        """An optimiser that steps with other rates, and both: what a loop sets by a count of its own."""
        for name, mine in self.saving.first.items():
            theirs = self.resumed.first.get(name)
            if theirs is not None and theirs.rates != mine.rates:
                return name, theirs.rates, mine.rates
        return None

    def _hand_made_schedule(
        self,
        name: str,
        rates: tuple[float, ...],
        usual: tuple[float, ...],
        candidates: list[Key],
    ) -> Finding:
        which = self._listed(candidates)
        sure = "likely" if which and ", " not in which else "possible"
        about = f", by what is not restored: {which}" if which else ""
        text = (
            f"After loading, {name} steps with a rate of {rates[0]:.6g}, where the uninterrupted run has {usual[0]:.6g}"
            f"{about}."
        )
        evidence: Json = {"rate": rates[0], "usual_rate": usual[0]}
        if candidates:
            evidence["key"] = list(candidates[0])
        return Finding("schedule-not-restored", name, text, "fault", sure, evidence)

    def _listed(self, keys: list[Key]) -> str:
        """Candidates in words: members of one list or dictionary are one of them."""
        words: dict[str, str] = {}
        for key in keys:
            leaf = self.saved[key]
            box, _, last = leaf.name.rpartition(".")
            if last.isdigit() and box:
                words[box] = box
            elif isinstance(leaf.value, int | float):
                words[leaf.name] = f"{leaf.name} ({self.values(key)})"
            else:
                words[leaf.name] = leaf.name
        more = f" and {len(words) - 4} more" if len(words) > 4 else ""
        return ", ".join(list(words.values())[:4]) + more

    def _candidates(self) -> list[Key]:
        """Numbers and tensors of the loop's own that go on from other values; logs, which only grow, come last."""
        steady = [
            key
            for key in differing(self.saved, self.loaded, ["value", "place"])
            if key in self.saved
            and key in self.plain.states[self.rounds]
            and self.plain.states[self.rounds][key].mark == self.saved[key].mark
        ]
        listed = [key for key in steady if key[0].rpartition(".")[2].isdigit()]
        logs = {key for key in listed if not isinstance(self.saved[key].mark, tuple)}
        for some in ([k for k in steady if k in self.loaded and k not in logs], steady):
            kept = [key for key in some if key not in logs]
            if kept:
                return kept
        return steady


def _is_float(leaf: Leaf) -> bool:
    if isinstance(leaf.value, Tensor):
        return leaf.value.is_floating_point()
    return isinstance(leaf.value, float)
