"""One training by two real processes: the bits of one, a process that is killed, and another number of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from equilibrist import tree
from equilibrist.cli.loading import load_run
from equilibrist.distributed import Ranks, launched, process_group
from equilibrist.errors import CompilationError, RecipeError
from equilibrist.run import Run, load, train
from equilibrist.run.record import Record
from equilibrist_recipes.digits import digits_sngan

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
from fences import to_run

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed"),
    pytest.mark.skipif(
        not Path("/proc/self/task").is_dir(), reason="no /proc to find processes in"
    ),
]
SETTINGS = {"dim": 8, "latent": 8, "batch": 16}
STEPS = 60


def alone(folder: Path, steps: int = STEPS) -> Run:
    """The run of one process that takes each minibatch in four parts."""
    from dataclasses import replace

    recipe = replace(digits_sngan(**SETTINGS, steps=steps), accumulate=4, scores=())
    return train(recipe, folder, progress="none", compile="off")


RECIPE = """
import time
from dataclasses import replace
from equilibrist_recipes.digits import digits_sngan
def recipe(steps=60, wait=0.0):
    made = replace(digits_sngan(dim=8, latent=8, batch=16, steps=steps), scores=(), keep=99, checkpoint_every=5)
    game, draw = made.game, made.game.draw
    def slowly(*args):
        time.sleep(wait)
        return draw(*args)
    game.draw = slowly
    return made
"""


def together(folder: Path, count: int, *more: str) -> subprocess.Popen[str]:
    """torchrun with so many processes."""
    file = folder.parent / "slow.py"
    file.write_text(RECIPE, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    port = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    call = ["-m", "equilibrist", "run", f"{file}:recipe", "--dir", str(folder), "--parts", "4"]
    return subprocess.Popen(
        [*launch, *port, *call, "--progress", "none", "--device", "cpu", *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def worker(process: subprocess.Popen[str], rank: int) -> int:
    """The process that torchrun has given this number."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii")
    for child in children.split():
        told = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in told:
            return int(child)
    raise LookupError(children)


def same(a: Run, b: Run) -> bool:
    pairs = zip(tree.leaves(a.players), tree.leaves(b.players), strict=True)
    return a.step == b.step and all(torch.equal(x, y) for x, y in pairs)


def test_two_processes_end_with_the_bits_of_one(tmp_path: Path) -> None:
    """One of them is killed on the way, and one process alone goes on from the last checkpoint."""
    torch.set_num_threads(1)
    folder = tmp_path / "two"
    process = together(folder, 2, "--set", "wait=0.1")
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step_*10.safetensors")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(worker(process, 1), signal.SIGKILL)
    begun = time.monotonic()
    said, _ = process.communicate(timeout=60)
    assert process.returncode
    assert time.monotonic() - begun < 30
    (line,) = [x for x in said.splitlines() if x.startswith("equilibrist: error:")]
    assert "another process of this training is gone" in line
    held = Record(folder).last_session()
    assert isinstance(held, dict)
    assert (held["processes"], held["sums"]) == (2, "in order")
    done = subprocess.run(
        [sys.executable, "-m", "equilibrist", "run", f"{tmp_path / 'slow.py'}:recipe", "--dir", str(folder),
         "--parts", "4", "--progress", "none", "--device", "cpu", "--set", "wait=0.1", "--compile", "off"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    reference = alone(tmp_path / "one")
    assert same(load(folder, reference.recipe, device="cpu"), reference)


NORMALISED = """
from torch import nn
from equilibrist import Adam, Alternating, GAN, Recipe, Vanilla, eight_gaussians
def recipe():
    norm = lambda a, b: nn.Sequential(nn.Linear(a, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, b))
    game = GAN(lambda: norm(4, 2), lambda: norm(2, 1), Vanilla(), latent=4)
    return Recipe(game, eight_gaussians(), Alternating(1, Adam(1e-2)), steps=12, batch=16, log_every=4)
"""


def test_batch_norm_by_part_has_the_bits_of_one_process(tmp_path: Path) -> None:
    """Each of four parts normalised by itself, by two processes and by one."""
    file = tmp_path / "normalised.py"
    file.write_text(NORMALISED, encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", "localhost:0"]  # fmt: skip
    for name, launcher in (("two", torchrun), ("one", [])):
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "equilibrist", "run", f"{file}:recipe", "--dir", str(tmp_path / name),
             "--parts", "4", "--per-part", "--progress", "none", "--device", "cpu", "--compile", "off"],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert not done.returncode, done.stderr
    runs = [load_run(tmp_path / n, recipe=f"{file}:recipe", device="cpu") for n in ("two", "one")]
    assert same(*runs)
    assert runs[0].recipe.per_part


def test_without_torchrun_nothing_is_joined() -> None:
    assert launched() == 1
    with pytest.raises(RecipeError, match="was not started by torchrun"), process_group():
        pass
    with pytest.raises(RuntimeError, match="needs a process group"):
        Ranks()


def test_the_page_as_one_process_of_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/cluster.md's Python, in a group of one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    told = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (text,) = to_run("docs/cluster.md")
    names: dict[str, Any] = {}
    exec(text.replace("steps=2000", "steps=6"), names)
    run, recipe = names["run"], names["recipe"]
    assert same(run, train(recipe, tmp_path / "alone", progress="none", compile="off"))
    with process_group("cpu") as ranks:
        assert (ranks.rank, ranks.size, list(ranks.own(4))) == (0, 1, [0, 1, 2, 3])
        ranks.canonical = False
        half, whole = ranks.mean([[torch.ones(2), torch.zeros(1, dtype=torch.int64)]] * 2, 2)
        assert half.tolist() == [1.0, 1.0]
        assert whole.tolist() == [0.0]
        kept = {"a": {"b": torch.tensor([True, False])}}
        assert torch.equal(ranks.share(kept)["a"]["b"], kept["a"]["b"])
        assert ranks.tell(7) == 7
        with pytest.raises(CompilationError, match="several processes are not compiled"):
            train(recipe, tmp_path / "compiled", compile="on", ranks=ranks)
