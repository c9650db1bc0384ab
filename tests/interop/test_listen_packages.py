"""Listening to the trainers of other packages, as published, where they are installed."""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listened import same, weights
from torch import Tensor, nn
from torch.nn.functional import softplus

import equilibrist
from equilibrist.errors import DataError, GameError
from equilibrist.interop import listen

PACKAGE = Path(equilibrist.__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore")  # other packages' own


def test_nothing_is_imported_before_it_is_needed() -> None:
    """Adaptors import the packages within functions only, and no other module imports adaptors."""
    theirs = "ctgan|sdv|monai|ignite|imitation|lightning|accelerate"
    early = re.compile(rf"^(?:from|import) (?:equilibrist\.interop\.)?(?:{theirs})\b", re.M)
    assert early.search("\nfrom ignite.engine import Events")
    assert early.search("\nfrom equilibrist.interop.monai import Listening")
    for path in PACKAGE.rglob("*.py"):
        assert not early.search(path.read_text(encoding="utf-8")), path


# -- ctgan and SDV -------------------------------------------------------------------------------------


def table(rows: int) -> Any:
    """Two categories and a number; the number depends on one of them."""
    import pandas as pd

    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b", "c"], rows, p=[0.5, 0.3, 0.2])
    return pd.DataFrame(
        {
            "kind": kind,
            "flag": rng.choice(["no", "yes"], rows),
            "size": rng.normal(0, 1, rows) + 3 * (kind == "b"),
        }
    )


def seed() -> None:
    torch.manual_seed(0), np.random.seed(0), random.seed(0)


def fitted(rows: int = 400, epochs: int = 3) -> Any:
    import ctgan

    seed()
    model = ctgan.CTGAN(
        epochs=epochs,
        batch_size=100,
        generator_dim=(16, 16),
        discriminator_dim=(16, 16),
        enable_gpu=False,
    )
    model.fit(table(rows), ["kind", "flag"])
    return model


def test_ctgan_ends_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generator, the critic that it throws away, logged losses and random states."""
    ctgan = pytest.importorskip("ctgan")
    thrown: list[nn.Module] = []
    kind = sys.modules[ctgan.CTGAN.__module__].Discriminator  # type: ignore[attr-defined]
    make = kind.__init__

    def made(self: nn.Module, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        thrown.append(self)

    monkeypatch.setattr(kind, "__init__", made)
    bare = fitted()
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # type: ignore[index]
    with listen(every=4) as heard:
        model = fitted()
    assert torch.equal(after[0], torch.get_rng_state())
    assert np.array_equal(after[1], np.random.get_state()[1])  # type: ignore[index]
    assert after[2] == random.getstate()
    assert model.loss_values.equals(bare.loss_values)
    assert heard.critic is thrown[1]
    assert heard.generator is model._generator
    assert same(weights(*thrown[:1], bare._generator), weights(heard.critic, heard.generator))
    assert heard.steps == {"Discriminator": 12, "Generator": 12}
    assert heard.pack() == 10
    assert list(heard.snapshots["Discriminator"]) == [4, 8, 12]
    width = model._transformer.output_dimensions
    for batch in heard.batches("real"):
        assert set(batch[:, :3].flatten().tolist()) == {0.0, 1.0}, "categories as they are"
        assert batch.shape == (100, width + 5)
    for batch in heard.batches("fake"):
        assert len(set(batch[:, :3].flatten().tolist())) > 2, "soft choices"


def test_ctgans_critic_is_audited_by_the_tables_columns() -> None:
    pytest.importorskip("ctgan")
    from equilibrist.interop.ctgan import audit_table, columns_of, encoded, generated

    with listen(every=(4,)) as heard:
        model = fitted()
    held_out = table(1500)[400:]
    columns = columns_of(model)
    assert list(columns) == ["kind", "flag", "size", "condition"]
    assert [len(part) for part in columns.values()][:2] == [3, 2]
    entries = [entry for part in columns.values() for entry in part]
    assert entries == list(range(len(entries)))

    before, state = weights(model._generator), torch.get_rng_state()
    real = encoded(model, held_out)
    width = model._transformer.output_dimensions
    asked = real[:, width:]
    assert asked.sum(1).eq(1).all()
    # The condition is met: the category that it asks for is the row's own.
    assert (asked * real[:, columns["kind"] + columns["flag"]]).sum(1).eq(1).all()
    kinds = real[:, columns["kind"]].argmax(1)
    names = list(model._transformer._column_transform_info_list[0].transform.dummies)
    assert kinds.tolist() == [names.index(kind) for kind in held_out["kind"]]
    fake = generated(model, heard.generator, 250, asked)
    assert fake.shape == (250, real.shape[1])
    assert set(fake[:, columns["kind"]].flatten().tolist()) == {0.0, 1.0}
    soft = generated(model, heard.generator, 250, asked, harden=False)
    assert torch.equal(soft[:, columns["kind"]].argmax(1), fake[:, columns["kind"]].argmax(1))
    assert len(set(soft[:, columns["kind"]].flatten().tolist())) > 2
    assert torch.equal(fake, generated(model, heard.generator, 250, asked)), "repeats"

    found = audit_table(heard, model, held_out, gradients=100, progress="none")
    assert same(before, weights(model._generator)), "nothing of the model changes"
    assert torch.equal(state, torch.get_rng_state())
    # Three epochs teach it nothing of the number, whose two bumps are 3 apart.
    assert "size" in [column["name"] for column in found.columns]
    assert "condition" not in [column["name"] for column in found.columns]
    early = audit_table(heard, model, held_out, at=4, gradients=100, progress="none")
    separation = [a["not-saturated"].evidence["separation"] for a in (found, early)]
    assert separation[0] != separation[1]
    with pytest.raises(GameError, match="no snapshot of Discriminator after step 5: there is 4"):
        audit_table(heard, model, held_out, at=5)
    with pytest.raises(DataError, match="does not fit the model"):
        audit_table(heard, model, held_out[["kind", "size"]])
    with pytest.raises(DataError, match="no rows"):
        audit_table(heard, model, held_out[:0])
    with pytest.raises(GameError, match="no fitted CTGAN"):
        audit_table(heard, object(), held_out)


def test_a_table_without_categories() -> None:
    ctgan = pytest.importorskip("ctgan")
    from equilibrist.interop.ctgan import audit_table, columns_of

    data = table(1400)[["size"]].assign(other=lambda t: t["size"] ** 2)
    seed()
    model = ctgan.CTGAN(epochs=1, batch_size=100, generator_dim=(8,), discriminator_dim=(8,))
    with listen() as heard:
        model.fit(data[:400])
    assert list(columns_of(model)) == ["size", "other"]
    assert audit_table(heard, model, data[400:], gradients=100, progress="none").columns


def test_sdv_on_top_of_it() -> None:
    pytest.importorskip("sdv")
    from sdv.metadata import Metadata
    from sdv.single_table import CTGANSynthesizer

    from equilibrist.interop.ctgan import audit_table

    data = table(1500)
    metadata = Metadata.detect_from_dataframes({"people": data})
    options = {"discriminator_dim": (16, 16), "generator_dim": (16, 16), "batch_size": 100}
    seed()
    synthesizer = CTGANSynthesizer(metadata, epochs=2, **options)
    with listen() as heard:
        try:
            synthesizer.fit({"people": data[:400]})
        except AttributeError:  # SDV 1 takes the table itself
            synthesizer.fit(data[:400])
    assert heard.steps == {"Discriminator": 8, "Generator": 8}
    found = audit_table(heard, synthesizer, data[400:], gradients=100, progress="none")
    assert "size" in [column["name"] for column in found.columns]


# -- MONAI ---------------------------------------------------------------------------------------------

IMAGES = torch.rand(24, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def monai_trainer(handlers: list[Any]) -> tuple[Any, nn.Module, nn.Module]:
    from monai.engines import AdversarialTrainer

    torch.manual_seed(0)
    generator = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)
    )
    critic = nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4, 2, 1))
    loader = torch.utils.data.DataLoader([{"image": x, "label": x} for x in IMAGES], batch_size=4)
    trainer = AdversarialTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=loader,
        g_network=generator,
        g_optimizer=torch.optim.Adam(generator.parameters(), 1e-3),
        g_loss_function=lambda logits: softplus(-logits).mean(),
        recon_loss_function=nn.L1Loss(),
        d_network=critic,
        d_optimizer=torch.optim.Adam(critic.parameters(), 1e-3),
        d_loss_function=lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
        train_handlers=handlers,
    )
    return trainer, generator, critic


def test_monai_is_heard_and_unmoved() -> None:
    pytest.importorskip("monai")
    pytest.importorskip("ignite")
    from equilibrist.interop.monai import Listening

    bare, *pair = monai_trainer([])
    bare.run()
    listening = Listening(every=6)
    trainer, generator, critic = monai_trainer([listening])
    assert listening.heard is None
    trainer.run()
    heard = listening.heard
    assert heard is not None
    assert same(weights(*pair), weights(generator, critic))
    assert heard.critic is critic
    assert heard.generator is generator
    assert set(heard.steps.values()) == {12}
    real, fake = heard.batches("real"), heard.batches("fake")
    assert len(real) == len(fake) >= 10
    assert all(any(torch.equal(row, image) for image in IMAGES) for batch in real for row in batch)
    assert all(type(batch) is Tensor for batch in real + fake)
    (kept,) = heard.snapshots.values()
    assert list(kept) == [6, 12]
    with listen() as guessed:
        monai_trainer([])[0].run()
    assert [p.role for p in guessed.players.values()] == ["generator", "critic"]


def test_monai_an_error_is_raised_and_no_hook_left() -> None:
    pytest.importorskip("monai")
    pytest.importorskip("ignite")
    from torch.nn.modules import module

    from equilibrist.interop.monai import Listening

    listening = Listening()
    trainer, *_ = monai_trainer([listening])
    trainer.state.recon_loss_function = None
    with pytest.raises(TypeError):
        trainer.run()
    assert not module._global_forward_pre_hooks
    with pytest.raises(GameError, match="attach to an AdversarialTrainer or a GanTrainer"):
        Listening()._begin(type("Engine", (), {"state": None})())


# -- imitation -----------------------------------------------------------------------------------------


def imitators(seed: int = 0) -> tuple[Any, Any, Any]:
    """GAIL on CartPole with a learner that has barely begun, and transitions of an expert of sorts."""
    import gymnasium
    from imitation.algorithms.adversarial.gail import GAIL
    from imitation.data import rollout
    from imitation.data.wrappers import RolloutInfoWrapper
    from imitation.rewards.reward_nets import BasicRewardNet
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    def make() -> Any:
        return RolloutInfoWrapper(gymnasium.make("CartPole-v1"))

    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
    venv = DummyVecEnv([make])
    venv.seed(seed)

    def steer(obs: Any, state: Any = None, starts: Any = None) -> tuple[Any, None]:
        return (obs[:, 2] + obs[:, 3] > 0).astype(int), None

    rng = np.random.default_rng(seed)
    paths = rollout.rollout(steer, venv, rollout.make_sample_until(min_timesteps=1200), rng=rng)
    shown = rollout.flatten_trajectories(paths)
    learner = PPO("MlpPolicy", venv, n_steps=128, batch_size=64, n_epochs=2, seed=seed)
    net = BasicRewardNet(venv.observation_space, venv.action_space, hid_sizes=(16,))
    trainer = GAIL(
        demonstrations=shown[:600],
        demo_batch_size=64,
        gen_replay_buffer_capacity=512,
        n_disc_updates_per_round=4,
        venv=venv,
        gen_algo=learner,
        reward_net=net,
        allow_variable_horizon=True,
    )
    return trainer, shown, rng


def test_gails_reward_network_is_heard_and_audited() -> None:
    pytest.importorskip("imitation")
    from imitation.data import rollout

    from equilibrist.interop.imitation import audit_reward, listening

    bare, *_ = imitators()
    bare.train(512)
    trainer, shown, rng = imitators()
    with listening(trainer) as heard:
        trainer.train(512)
    nets = [(t._reward_net, t.gen_algo.policy) for t in (bare, trainer)]
    assert same(weights(*nets[0]), weights(*nets[1]))
    assert heard.critic is trainer._reward_net
    assert heard.steps[next(n for n, p in heard.players.items() if p.role == "critic")] == 16
    expert = torch.tensor(shown.obs[:600])
    for state, action, following, done in heard.batches("real"):
        assert len(state) == len(action) == len(following) == len(done) == 64
        assert all((row == expert).all(1).any() for row in state)
    assert len(heard.batches("fake")) == len(heard.batches("real")) >= 14
    until = rollout.make_sample_until(min_timesteps=400)
    paths = rollout.rollout(trainer.gen_algo.policy, trainer.venv, until, rng=rng, unwrap=False)
    learner = rollout.flatten_trajectories(paths)
    found = audit_reward(heard, trainer, shown[600:], learner, gradients=200, progress="none")
    assert "informative" in found
    names = [column["name"] for column in found.columns]
    assert names
    assert set(names) <= {*(f"state {k}" for k in range(4)), "action 0", "action 1"}, (
        "what it reads"
    )
    with pytest.raises(DataError, match="Transitions"):
        audit_reward(heard, trainer, np.zeros((3, 4)), learner)
    with pytest.raises(GameError, match="no reward network"):
        listening(object())
    with pytest.raises(GameError, match="takes a GAIL, not object"):
        audit_reward(heard, object(), shown, learner)


# -- Lightning and Accelerate --------------------------------------------------------------------------

REAL = torch.randn(256, 2, generator=torch.Generator().manual_seed(1)) + 4


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)),
    )


def lit(callbacks: list[Any], where: Path, break_at: int = -1) -> tuple[nn.Module, nn.Module]:
    import lightning as L  # noqa: N812

    class Lit(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.critic = pair()

        def training_step(self, batch: Any, index: int) -> None:
            if index == break_at:
                raise ZeroDivisionError
            (real,) = batch
            adam_g, adam_c = self.optimizers()  # type: ignore[misc]
            fake = self.generator(torch.randn(len(real), 3))
            self.toggle_optimizer(adam_c)
            loss = softplus(-self.critic(real)).mean() + softplus(self.critic(fake.detach())).mean()
            adam_c.zero_grad(), self.manual_backward(loss), adam_c.step()
            self.untoggle_optimizer(adam_c)
            self.toggle_optimizer(adam_g)
            loss = softplus(-self.critic(self.generator(torch.randn(len(real), 3)))).mean()
            adam_g.zero_grad(), self.manual_backward(loss), adam_g.step()
            self.untoggle_optimizer(adam_g)

        def configure_optimizers(self) -> Any:
            return [torch.optim.Adam(m.parameters(), 1e-3) for m in (self.generator, self.critic)]

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(REAL), batch_size=16)
    model = Lit()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=where,
        callbacks=callbacks,
    )
    torch.manual_seed(1)
    trainer.fit(model, loader)
    return model.generator, model.critic


@pytest.mark.parametrize("named", [{}, {"critic": "critic", "generator": "generator"}])
def test_lightning_is_heard_and_unmoved(named: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from equilibrist.interop.lightning import listening_callback

    bare = weights(*lit([], tmp_path))
    listening = listening_callback(**named, every=8)
    generator, critic = lit([listening], tmp_path)
    heard = listening.heard
    assert same(bare, weights(generator, critic))
    assert heard.critic is critic
    assert heard.generator is generator
    assert set(heard.steps.values()) == {16}
    assert all(float(batch.mean()) > 3 for batch in heard.batches("real"))
    assert all(float(batch.mean()) < 2 for batch in heard.batches("fake"))
    assert len(heard.batches("real")) == len(heard.batches("fake")) >= 13


def test_lightning_an_error_leaves_no_hook(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from torch.nn.modules import module

    from equilibrist.interop.lightning import listening_callback

    listening = listening_callback("critic")
    with pytest.raises(ZeroDivisionError):
        lit([listening], tmp_path, break_at=3)
    assert not module._global_forward_pre_hooks
    with pytest.raises(GameError, match="no module 'critik': name one of generator, critic"):
        lit([listening_callback("critik")], tmp_path)


def accelerated(hear: bool) -> tuple[list[Tensor], Any, nn.Module]:
    from accelerate import Accelerator

    from equilibrist.interop.accelerate import listening

    accelerator = Accelerator(cpu=True)
    generator, critic = pair()
    own = critic
    adams = [torch.optim.Adam(m.parameters(), 1e-3) for m in (generator, critic)]
    data = torch.utils.data.TensorDataset(REAL)
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    generator, critic, adam_g, adam_c, loader = accelerator.prepare(
        generator, critic, *adams, loader
    )
    with listening(accelerator, critic=critic) as heard:
        if not hear:
            heard.__exit__(None)
        for (real,) in loader:
            fake = generator(torch.randn(len(real), 3))
            loss = softplus(-critic(real)).mean() + softplus(critic(fake.detach())).mean()
            adam_c.zero_grad(), accelerator.backward(loss), adam_c.step()
            loss = softplus(-critic(fake)).mean()
            adam_g.zero_grad(), accelerator.backward(loss), adam_g.step()
    return weights(generator, critic), heard, own


def test_accelerate_is_heard_and_unmoved() -> None:
    pytest.importorskip("accelerate")
    bare, silent, _ = accelerated(hear=False)
    found, heard, critic = accelerated(hear=True)
    assert same(bare, found)
    assert silent.steps == {}
    assert heard.critic is critic
    assert set(heard.steps.values()) == {16}
    assert all(float(batch.mean()) > 3 for batch in heard.batches("real"))


def test_another_process_hears_nothing() -> None:
    from equilibrist.interop.accelerate import listening

    other = type("Accelerator", (), {"is_main_process": False})()
    with listening(other) as heard:
        module = nn.Linear(2, 1)
        adam = torch.optim.Adam(module.parameters())
        module(REAL).mean().backward(), adam.step()
    assert heard.steps == {}


# -- the examples --------------------------------------------------------------------------------------

EXAMPLES = Path(__file__).parents[2] / "examples"
FEW = {
    "ctgan": ("ctgan", ["--epochs", "1", "--gradients", "100"]),
    "monai": ("monai", ["--epochs", "1", "--gradients", "100"]),
    "imitation": ("imitation", ["--timesteps", "1024", "--gradients", "100"]),
    "lightning": ("lightning", ["--epochs", "2", "--gradients", "100"]),
    "accelerate": ("accelerate", ["--epochs", "2", "--gradients", "100"]),
}


@pytest.mark.parametrize("name", FEW)
def test_examples(name: str, tmp_path: Path) -> None:
    package, few = FEW[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    script = EXAMPLES / f"listen_{name}.py"
    done = subprocess.run(
        [sys.executable, str(script), *few], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Heard$", done.stdout, re.M)
    assert re.search(r"^ +\w+ was shown: [\d,]+ ", done.stdout, re.M)
    assert re.search(r"^not-saturated +[A-Z_]+ ", done.stdout, re.M)
