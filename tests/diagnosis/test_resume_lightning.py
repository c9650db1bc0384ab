"""Trainers that run their loop themselves: one batch at a time, with a stand-in and with Lightning where it is."""

from __future__ import annotations

import gc
import importlib.util
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from equilibrist.diagnosis import check_resume
from equilibrist.errors import GameError
from equilibrist.interop import lightning
from equilibrist.interop.lightning import Stepwise

NO_LIGHTNING = importlib.util.find_spec("lightning") is None
DATA = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


class Trainer:
    """Fits by SGD with momentum; its checkpoints hold what `kept` names."""

    def __init__(self, steps: int, kept: tuple[str, ...]) -> None:
        self.steps, self.kept, self.callbacks = steps, kept, []
        self.should_stop, self.done = False, 0

    def fit(self, model: nn.Module, data: torch.Tensor, ckpt_path: str | None = None) -> None:
        self.model = model
        self.sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        if ckpt_path is not None:
            saved = torch.load(ckpt_path)
            self.done = saved["done"]
            for name in self.kept:
                getattr(self, name).load_state_dict(saved[name])
        for callback in self.callbacks:
            callback.on_train_start(self, model)
        while self.done < self.steps and not self.should_stop:
            self.sgd.zero_grad()
            model(data[self.done % 8 :: 8]).square().mean().backward()
            self.sgd.step()
            self.done += 1
            for callback in self.callbacks:
                callback.on_train_batch_end(self, model)

    def save_checkpoint(self, path: str) -> None:
        states = {name: getattr(self, name).state_dict() for name in self.kept}
        torch.save({"done": self.done, **states}, path)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning, "lightning_base", lambda wanted: SimpleNamespace)


def fitted(kept: tuple[str, ...], steps: int = 50) -> Stepwise:
    return Stepwise(Trainer(steps, kept), nn.Sequential(nn.Linear(4, 1)), DATA)


@pytest.mark.usefixtures("stand_in")
def test_a_trainer_is_checked_batch_by_batch() -> None:
    before = threading.active_count()
    assert check_resume(lambda: fitted(("model", "sgd")))
    (found,) = check_resume(lambda: fitted(("model",))).findings
    assert found.name == "moments-not-restored"
    (found,) = check_resume(lambda: fitted(("sgd",))).findings
    assert (found.name, found.where) == ("weights-not-restored", "0")
    gc.collect()
    for _ in range(50):  # threads end with the objects that began them
        if threading.active_count() == before:
            break
        time.sleep(0.1)
    assert threading.active_count() == before


@pytest.mark.usefixtures("stand_in")
def test_ends_and_faults_are_told() -> None:
    short = fitted((), steps=2)
    short.step(0)
    short.step(1)
    with pytest.raises(GameError, match="ends before batch 2"):
        short.step(2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Stepwise(Trainer(5, ()), nn.Linear(3, 1), DATA).step(0)


@pytest.mark.skipif(NO_LIGHTNING, reason="lightning is not installed")
@pytest.mark.filterwarnings("ignore")
def test_lightning_restores_what_it_says() -> None:
    import lightning as L  # noqa: N812

    class Lit(L.LightningModule):
        keeps = True

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.net = nn.Linear(4, 1)

        def training_step(self, batch: Any, index: int) -> None:
            torch.manual_seed(self.global_step)
            adam: Any = self.optimizers()
            adam.zero_grad()
            self.manual_backward(self.net(torch.randn(8, 4)).square().mean())
            adam.step()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-3)

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            if not self.keeps:
                checkpoint["optimizer_states"][0]["state"] = {}

    def make() -> Stepwise:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(max_epochs=9, accelerator="cpu", enable_model_summary=False, **quiet)  # type: ignore[arg-type]
        return Stepwise(trainer, Lit(), torch.utils.data.DataLoader(DATA, batch_size=8))

    assert check_resume(make)
    Lit.keeps = False
    (found,) = check_resume(make).findings
    assert (found.name, found.where) == ("moments-not-restored", "Adam of net")
