"""The resume check: what was forgotten is named, and exact resumption of any kind raises nothing."""

from __future__ import annotations

import copy
import random
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from resumed import OPTIMIZERS, Trainer
from torch import nn
from torch.nn.functional import softplus
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import equilibrist
from equilibrist.diagnosis import check_resume
from equilibrist.errors import RecipeError

FORGOTTEN = {
    "generator": ("weights-not-restored", "generator", "made with"),
    "critic": ("weights-not-restored", "critic", "made with"),
    "half": ("weights-not-restored", "critic", "rounded to float16"),
    "buffers": ("weights-not-restored", "generator", "buffers"),
    "adam_g": ("moments-not-restored", "adam_g", "exactly the learning rate"),
    "adam_c": ("moments-not-restored", "adam_c", "exp_avg"),
    "average": ("average-not-restored", "average", "made with"),
    "average restarted": ("average-not-restored", "average", "raw weights, bit for bit"),
    "average as weights": ("average-not-restored", "generator", "loaded in their place"),
    "rate_g": ("schedule-not-restored", "rate_g", "0 after loading, 4 when saved"),
    "schedules crossed": ("schedule-not-restored", "rate_c", "where rate_g stood"),
    "torch": ("random-not-restored", "loop", "torch's random state"),
    "noise": ("random-not-restored", "loop", "noise"),
    "place": ("random-not-restored", "loop", "place (0 after loading, 128 when saved)"),
    "weight": ("state-not-restored", "loop", "weight (0.5 after loading"),
    "pool": ("state-not-restored", "loop", "pool"),
}


@pytest.mark.parametrize("forget", FORGOTTEN)
def test_what_was_forgotten_is_named(forget: str) -> None:
    average = "dict" if forget in ("average restarted", "torch") else "module"
    check = check_resume(lambda: Trainer(forget, average=average), rounds=4, more=2)
    assert not check
    assert check.repeats
    assert check.first is not None
    (found,) = check.findings  # nothing else was forgotten, and nothing else is named
    name, where, says = FORGOTTEN[forget]
    assert (found.name, found.where) == (name, where), found
    assert says in found.text
    assert found.level == ("warning" if name.startswith("random") else "fault")
    assert check.first.round == 4
    assert check.first.loaded
    assert str(check.first) in repr(check)


@pytest.mark.parametrize("average", ["module", "dict"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_whole_loops_raise_nothing(optimizer: str, average: str) -> None:
    check = check_resume(lambda: Trainer("", optimizer, average), rounds=4, more=2)
    assert check, check
    assert (check.findings, check.unseen, check.first) == ((), (), None)
    assert "bit for bit" in check.summary


def test_the_first_difference_has_the_size_that_was_planted() -> None:
    class Off(Trainer):
        def load(self, saved: dict[str, Any]) -> None:
            saved["critic"]["0.weight"] *= 1.25  # |x - 1.25 x| / |1.25 x| = 0.2
            super().load(saved)

    check = check_resume(Off, rounds=2, more=1)
    assert check.first is not None
    assert check.first.name == "0.weight of critic"
    assert check.first.relative == pytest.approx(0.2, rel=1e-6)
    assert check.describe()["first"]["relative"] == check.first.relative


DATA = torch.randn(300, 2, generator=torch.Generator().manual_seed(5))


def script(forget: str = "") -> Callable[[], tuple[Any, Any, Any]]:
    """A script of functions: a file, a loader whose place is found by going through it, mixed precision."""

    def make() -> tuple[Any, Any, Any]:
        generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        critic = nn.Sequential(spectral_norm(nn.Linear(2, 8)), nn.Dropout(0.1), nn.Linear(8, 1))
        opt_g, opt_c = (torch.optim.AdamW(m.parameters(), 1e-3) for m in (generator, critic))
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3)
        mean = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        shuffle = torch.Generator().manual_seed(1)
        loader = DataLoader(TensorDataset(DATA), batch_size=64, shuffle=True, generator=shuffle)

        def batches() -> Any:
            while True:
                yield from loader

        held: dict[str, Any] = {"g": generator, "c": critic, "opt_g": opt_g, "opt_c": opt_c}
        held |= {"scaler": scaler, "mean": mean}
        stream, done = batches(), 0

        def step() -> None:
            nonlocal done
            (x,), done = next(stream), done + 1
            fake = generator(torch.randn(len(x), 4))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = softplus(-critic(x)).mean() + softplus(critic(fake.detach())).mean()
            opt_c.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(opt_c)
            opt_g.zero_grad()
            scaler.scale(softplus(-critic(fake)).mean()).backward()
            scaler.step(opt_g)
            scaler.update()
            mean.update_parameters(generator)

        def save(path: str) -> None:
            saved = {name: one.state_dict() for name, one in held.items()}
            torch.save({**saved, "done": done, "random": torch.get_rng_state()}, path)

        def load(path: str) -> None:
            nonlocal done
            saved = torch.load(path)
            for name, one in held.items():
                if name != forget:
                    one.load_state_dict(saved[name])
            while forget != "place" and done < saved["done"]:
                next(stream)
                done += 1
            torch.set_rng_state(saved["random"])

        return step, save, load

    return make


def test_a_script_of_functions_that_writes_a_file() -> None:
    assert check_resume(script(), rounds=7, more=2)
    for forget, name, says in (
        ("place", "random-not-restored", "place in the data"),
        ("scaler", "state-not-restored", "scale of scaler"),
        ("mean", "average-not-restored", "mean"),
    ):
        (found,) = check_resume(script(forget), rounds=7, more=2).findings
        assert (found.name, says in found.text) == (name, True), found


class Small:
    """One module under SGD with momentum, a rate that each round sets and numbers that each round draws."""

    def __init__(self) -> None:
        self.net = nn.Linear(2, 1)
        self.sgd = torch.optim.SGD(self.net.parameters(), 0.1, momentum=0.9)
        self.begun = time.time()

    def step(self, i: int) -> None:
        torch.manual_seed(i)
        self.sgd.param_groups[0]["lr"] = 0.1 / (1 + i)
        self.sgd.zero_grad()
        self.net(torch.randn(8, 2) + self.more()).square().mean().backward()
        self.sgd.step()
        self.took = time.time() - self.begun

    def more(self) -> float:
        return 0.0

    def save(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "sgd": self.sgd.state_dict()}

    def load(self, saved: dict[str, Any]) -> None:
        self.net.load_state_dict(saved["net"])
        self.sgd.load_state_dict(saved["sgd"])


def test_what_each_round_sets_need_not_be_saved() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    check = check_resume(Small)
    assert check
    assert not check.findings
    assert not check.seed_matters
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_constant_that_is_drawn_at_the_start_needs_the_seed() -> None:
    class Drawn(Small):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.rand(())

        def more(self) -> Any:
            return self.shift

    check = check_resume(Drawn)
    assert check
    assert check.seed_matters
    assert "from the seed" in check.summary


def test_a_run_that_does_not_repeat_says_so_first() -> None:
    count = iter(range(10_000))

    class Elsewhere(Small):
        def more(self) -> float:
            return 0.01 * next(count)  # lives outside of what begins a run

    check = check_resume(Elsewhere)
    assert not check
    assert not check.repeats
    assert check.summary.startswith("Two uninterrupted runs from the same seed differ")
    assert [f.level for f in check.findings] == ["warning"]

    class Forgetful(Elsewhere):
        def load(self, saved: dict[str, Any]) -> None:
            self.net.load_state_dict(saved["net"])

    check = check_resume(Forgetful)
    assert check.summary.startswith("Two uninterrupted runs")
    assert [(f.name, f.sure) for f in check.findings] == [
        ("moments-not-restored", "likely"),
        ("not-repeatable", "certain"),
    ]


def test_runs_that_part_by_rounding_are_no_warning() -> None:
    count = iter(range(10_000))

    class Rounded(Small):
        def more(self) -> float:
            return 1 + 1e-6 * next(count)  # kernels that add up in another order

    (found,) = check_resume(Rounded).findings
    assert (found.name, found.level) == ("not-repeatable", "note")
    assert 0 < found.evidence["apart"] < 0.05


@pytest.mark.parametrize("forget", [True, False])
def test_a_counter_that_decides_what_is_called_is_no_place_in_the_data(forget: bool) -> None:
    """Regularisation of every third round."""

    class Lazy(Trainer):
        def step(self, i: int) -> None:
            if self.count % 3 == 0:
                self.adam_c.zero_grad()
                self.critic(self.data[:4]).square().mean().backward()
                self.adam_c.step()
            self.count += 1
            super().step(i)

        count = 0

        def save(self) -> Any:
            return super().save(), self.count

        def load(self, saved: Any) -> None:
            super().load(saved[0])
            self.count = 0 if forget else saved[1]

    check = check_resume(Lazy, rounds=4, more=2)
    assert bool(check) != forget
    if forget:
        (found,) = check.findings
        assert (found.name, found.level) == ("state-not-restored", "fault")
        assert "count (0 after loading, 4 when saved)" in found.text


def test_saving_that_draws_random_numbers_is_noted() -> None:
    class Drawing(Trainer):
        def save(self) -> Any:
            saved = super().save()
            return saved | {"grid": torch.randn(8, 4)}

    check = check_resume(Drawing, rounds=4, more=2)
    assert check, check
    assert check.summary.startswith("Resumes bit for bit, from")
    (found,) = check.findings
    assert (found.name, found.level) == ("save-disturbs", "note")
    assert "torch's random state" in found.text


def test_a_network_that_is_made_anew_leaves_its_optimiser_behind() -> None:
    class Anew(Small):
        def load(self, saved: dict[str, Any]) -> None:
            self.net = nn.Linear(2, 1)
            super().load(saved)

    (found,) = check_resume(Anew).findings
    assert (found.name, found.where) == ("stale-parameters", "sgd")


def test_saving_that_changes_the_run_is_found() -> None:
    class Swapped(Small):
        def save(self) -> dict[str, Any]:
            self.net.eval()
            return super().save()

    (found,) = check_resume(Swapped).findings
    assert (found.name, found.where) == ("save-disturbs", "net")


def test_schedules_made_at_their_place() -> None:
    class Made(Small):
        early = 1

        def __init__(self) -> None:
            super().__init__()
            self.rate = torch.optim.lr_scheduler.LambdaLR(self.sgd, lambda t: 0.9**t)

        def step(self, i: int) -> None:
            self.sgd.zero_grad()
            self.net(torch.ones(8, 2)).square().mean().backward()
            self.sgd.step()
            self.rate.step()

        def save(self) -> dict[str, Any]:
            return super().save() | {"done": self.rate.last_epoch}

        def load(self, saved: dict[str, Any]) -> None:
            super().load(saved)
            # Torch takes the step before the next.
            self.rate = torch.optim.lr_scheduler.LambdaLR(
                self.sgd, lambda t: 0.9**t, saved["done"] - self.early
            )

    assert check_resume(Made)
    Made.early = 0
    found = check_resume(Made).findings
    assert {f.name for f in found} == {"schedule-not-restored"}
    assert "6 after loading, 5 when saved" in found[0].text


def test_what_no_name_leads_to_is_met_at_work() -> None:
    """Modules and optimisers that live in another module's namespace, behind a function that is no Python function."""
    forget = False

    def make() -> dict[str, Any]:
        hidden = types.ModuleType("hidden")
        hidden.net = nn.Linear(2, 1)  # type: ignore[attr-defined]
        hidden.adam = torch.optim.Adam(hidden.net.parameters(), 1e-3)  # type: ignore[attr-defined]

        def step(i: int) -> None:
            hidden.adam.zero_grad()
            hidden.net(torch.ones(4, 2) * i).square().mean().backward()
            hidden.adam.step()

        def load(saved: list[Any]) -> None:
            hidden.net.load_state_dict(saved[0])
            if not forget:
                hidden.adam.load_state_dict(saved[1])

        return {
            "step": step,
            "save": lambda: [hidden.net.state_dict(), hidden.adam.state_dict()],
            "load": load,
        }

    assert check_resume(make)
    forget = True
    (found,) = check_resume(make).findings
    assert (found.name, found.where) == ("moments-not-restored", "Adam")


def test_errors_in_one_line(tmp_path: Path) -> None:
    class Fails(Small):
        def load(self, saved: dict[str, Any]) -> None:
            raise KeyError("generator")

    for make, says in (
        (Fails, "load fails on a run of this loop: KeyError: 'generator'"),
        (lambda: (1, 2, 3), "make.. returns dict without a function step"),
        (None, "check_resume needs a function"),
        (lambda: {"step": print, "save": lambda: None, "load": print}, "save.. returns nothing"),
    ):
        with pytest.raises(RecipeError, match=says):
            check_resume(make)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="rounds=0"):
        check_resume(Small, rounds=0)


def test_it_has_a_public_name() -> None:
    assert equilibrist.check_resume is check_resume


class Measured:
    """A running mean of the loss, which from some value on decides how much noise the data get, or decides nothing."""

    def __init__(self, decides: bool) -> None:
        self.mean, self.decides = 0.0, decides

    def noise(self) -> float:
        return 0.1 if self.decides and self.mean > 0.7 else 0.0


@pytest.mark.parametrize("decides", [True, False])
def test_a_measured_number_that_decides_later_is_missed_by_then(decides: bool) -> None:
    def make() -> dict[str, Any]:
        net = nn.Linear(2, 1)
        optimizer, rule = torch.optim.SGD(net.parameters(), 1e-3), Measured(decides)

        def step(i: int) -> None:
            loss = (net(torch.randn(8, 2) * (1 + rule.noise())) - 2).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rule.mean += 0.04 * (1.0 - rule.mean)  # above 0.7 from round 30 on

        return {
            "step": step,
            "save": lambda: (net.state_dict(), optimizer.state_dict(), torch.get_rng_state()),
            "load": lambda saved: (
                net.load_state_dict(saved[0]),
                optimizer.load_state_dict(saved[1]),
                torch.set_rng_state(saved[2]),
            ),
        }

    found = check_resume(make)
    assert found.more == 60
    assert found.exact is not decides
    names = [f.name for f in found.findings if f.level != "note"]
    assert names == (["state-not-restored"] if decides else [])


def test_an_older_copy_that_is_loaded_as_the_weights_is_no_average() -> None:
    def make() -> dict[str, Any]:
        net = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        kept = {"best": copy.deepcopy(net.state_dict())}

        def step(i: int) -> None:
            optimizer.zero_grad()
            (net(torch.randn(8, 2)) - 2).square().mean().backward()
            optimizer.step()

        def load(saved: Any) -> None:
            net.load_state_dict(saved["net"])
            kept["best"] = saved["net"]
            torch.set_rng_state(saved["random"])

        save = lambda: {"net": kept["best"], "random": torch.get_rng_state()}  # noqa: E731
        return {"step": step, "save": save, "load": load}

    found = check_resume(make).findings[0]
    assert (found.name, found.where) == ("weights-not-restored", "net")
    assert "an older copy was loaded" in found.text
