"""Audits under Lightning and Accelerate: with stand-ins everywhere, with the packages where they are."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset

from equilibrist.errors import RequirementError
from equilibrist.formulations import Vanilla
from equilibrist.interop import Watch, lightning_callback, source_of

NO_LIGHTNING = importlib.util.find_spec("lightning") is None
NO_ACCELERATE = importlib.util.find_spec("accelerate") is None
REAL = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)),
    )


def watch(modules: tuple[nn.Module, nn.Module], every: int) -> Watch:
    return Watch(*modules, Vanilla(), REAL, latent=3, every=every, gradients=240, batch=32)


def losses(modules: tuple[nn.Module, nn.Module], real: torch.Tensor) -> tuple[Any, Any]:
    """The generator's and the critic's, the second from a detached sample."""
    generator, critic = modules
    fake = generator(torch.randn(len(real), 3))
    against = softplus(-critic(real)).mean() + softplus(critic(fake.detach())).mean()
    return softplus(-critic(fake)).mean(), against


# -- the callback, with a stand-in for Lightning ---------------------------------------------------


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """One of the two packages, with an empty Callback; the other is not installed."""

    class Callback:
        pass

    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, f"{name}.callbacks", None)
    parts = request.param.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    callbacks = ModuleType("callbacks")
    callbacks.Callback = Callback  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"{request.param}.callbacks", callbacks)
    return Callback


class Logger:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.lines.append((step, values))


def trainer(*loggers: Logger, first: bool = True) -> Any:
    # Two optimisers a batch: the count of their steps is no count of batches.
    return SimpleNamespace(is_global_zero=first, loggers=list(loggers), global_step=7)


def test_batches_are_counted_and_all_loggers_told(stand_in: type) -> None:
    seen = watch(pair(), every=3)
    callback, loggers = lightning_callback(seen), (Logger(), Logger())
    assert isinstance(callback, stand_in)
    for index in range(7):
        callback.on_train_batch_end(trainer(*loggers), None, None, None, index)
    assert [step for step, _ in seen.audits] == [3, 6]
    for logger in loggers:
        assert [step for step, _ in logger.lines] == [3, 6]
        values = logger.lines[1][1]
        found = seen.audits[1][1]
        assert values == {
            "audit/nash/generator": found["nash/generator"].evidence["gain"],
            "audit/nash/critic": found["nash/critic"].evidence["gain"],
            "audit/stationary/generator": found["stationary/generator"].evidence["residual"],
            "audit/stationary/critic": found["stationary/critic"].evidence["residual"],
        }
        assert all(isinstance(value, float) for value in values.values())


@pytest.mark.usefixtures("stand_in")
def test_other_processes_do_not_audit_but_count() -> None:
    seen = watch(pair(), every=2)
    callback, logger = lightning_callback(seen), Logger()
    for index in range(5):
        callback.on_train_batch_end(trainer(logger, first=False), None, None, None, index)
    assert not seen.audits
    assert not logger.lines
    assert callback.state_dict() == {"batches": 5}


@pytest.mark.usefixtures("stand_in")
def test_the_count_goes_on_after_a_checkpoint() -> None:
    seen = watch(pair(), every=4)
    first = lightning_callback(seen, log=False)
    logger = Logger()
    for index in range(3):
        first.on_train_batch_end(trainer(logger), None, None, None, index)
    again = lightning_callback(seen, log=False)
    again.load_state_dict(first.state_dict())
    again.on_train_batch_end(trainer(logger), None, None, None, 0)
    assert [step for step, _ in seen.audits] == [4]
    assert not logger.lines, "log=False"


def test_without_lightning_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, f"{name}.callbacks", None)
    with pytest.raises(RequirementError, match="pip install lightning"):
        lightning_callback(watch(pair(), every=1))


# -- Lightning itself --------------------------------------------------------------------------------


def fitted(folder: Path, every: int, resume: bool = False) -> tuple[Any, Any, Watch]:
    """Two epochs of eight batches of a GAN under manual optimisation; with `resume`, stopped and gone on
    in between."""
    import lightning as L  # noqa: N812

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.critic = pair()

        def training_step(self, batch: Any, index: int) -> None:
            for player, optimizer in enumerate(self.optimizers()):
                optimizer.zero_grad()
                self.manual_backward(losses((self.generator, self.critic), batch[0])[player])
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.Adam(m.parameters(), 1e-3) for m in (self.generator, self.critic)]

    module = Module()
    seen = watch((module.generator, module.critic), every)
    loader = DataLoader(TensorDataset(REAL), batch_size=50, shuffle=True)
    trainers = []
    for epochs in (1, 2) if resume else (2,):
        trainers.append(
            L.Trainer(
                max_epochs=epochs,
                accelerator="cpu",
                devices=1,
                callbacks=[lightning_callback(seen)],
                default_root_dir=folder,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        )
        torch.manual_seed(5)
        kept = folder / "kept.ckpt" if epochs == 2 and resume else None
        # Its checkpoints hold more than tensors; this one is our own.
        trainers[-1].fit(
            module, loader, ckpt_path=kept, **({"weights_only": False} if kept else {})
        )
        trainers[-1].save_checkpoint(folder / "kept.ckpt")
    return module, trainers[-1], seen


@pytest.mark.skipif(NO_LIGHTNING, reason="lightning is not installed")
def test_lightning_is_audited_and_unmoved(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own
        watched, run, seen = fitted(tmp_path, every=5)
        bare, _, other = fitted(tmp_path, every=10**9)
    assert run.global_step == 32, "two optimisers, sixteen batches"
    assert [step for step, _ in seen.audits] == [5, 10, 15]
    assert not other.audits
    for key, value in watched.state_dict().items():
        assert torch.equal(value, bare.state_dict()[key]), key


@pytest.mark.skipif(NO_LIGHTNING, reason="lightning is not installed")
def test_lightning_checkpoints_keep_the_count(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, _, seen = fitted(tmp_path, every=5, resume=True)
    assert [step for step, _ in seen.audits] == [5, 10, 15]


# -- Accelerate ------------------------------------------------------------------------------------


def accelerated(every: int, precision: str = "no", inside: bool = False) -> tuple[Any, Watch, Any]:
    """Two epochs; the watch is made before `prepare`, or (`inside`) from what it returned."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    modules = pair()
    loader = DataLoader(TensorDataset(REAL), batch_size=50, shuffle=True)
    adams = [torch.optim.Adam(m.parameters(), 1e-3) for m in modules]
    torch.manual_seed(5)
    made: Any = None if inside else watch(modules, every)
    *modules_, g, c, loader_ = accelerator.prepare(*modules, *adams, loader)
    if inside:
        made = watch(tuple(modules_), every)  # type: ignore[arg-type]
    step = 0
    for _ in range(2):
        for (real,) in loader_:
            step += 1
            for player, adam in enumerate((g, c)):
                adam.zero_grad()
                accelerator.backward(losses(tuple(modules_), real)[player])  # type: ignore[arg-type]
                adam.step()
            made(step)
    return modules, made, loader_


@pytest.mark.skipif(NO_ACCELERATE, reason="accelerate is not installed")
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("inside", [False, True])
def test_accelerate_is_audited_and_unmoved(precision: str, inside: bool) -> None:
    modules, seen, _ = accelerated(7, precision, inside)
    bare, other, _ = accelerated(10**9, precision, inside)
    assert [step for step, _ in seen.audits] == [7, 14]
    assert not other.audits
    for watched, alone in zip(modules, bare, strict=True):
        for key, value in watched.state_dict().items():
            assert torch.equal(value, alone.state_dict()[key]), key
    # What was audited are the weights of now, in full precision where the watch was made before.
    fresh = watch(modules, 1).audit()
    last = seen.audit()
    if not inside:
        generator = nn.Sequential(*modules[0])
        critic = nn.Sequential(*modules[1])
        assert str(watch((generator, critic), 1).audit()) == str(last)
    gains = [audit["nash/critic"].evidence["gain"] for audit in (fresh, last)]
    assert gains[0] == pytest.approx(gains[1], abs=1e-3)


@pytest.mark.skipif(NO_ACCELERATE, reason="accelerate is not installed")
def test_a_prepared_loader_keeps_its_order_and_its_place() -> None:
    from accelerate.state import GradientState

    *_, loader = accelerated(10**9)
    torch.manual_seed(7)
    expected = torch.cat([real for (real,) in loader])
    place = loader.iteration
    source_of(loader, limit=60)
    assert not GradientState().in_dataloader
    assert loader.iteration == place
    torch.manual_seed(7)
    loader.set_epoch(place)
    assert torch.equal(torch.cat([real for (real,) in loader]), expected)
