"""Modules as their users wrap them, and as these keep their weights and constants."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from unusual_modules import (
    F64,
    POINTS,
    QUICK,
    audited,
    critic,
    generator,
    losses,
    said,
    works,
)

import equilibrist as eq
from equilibrist.errors import GameError


class Nested(nn.Module):
    """A part of it is wrapped, and asked for an attribute of its own."""

    def __init__(self, wrap: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        inner = critic()
        self.body, self.head = wrap(inner[:2]), inner[2]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class CompiledMethod(Nested):
    def __init__(self) -> None:
        super().__init__(lambda part: part)
        self.forward = torch.compile(self.forward, backend="eager")  # type: ignore[method-assign]


class CompiledByDecorator(Nested):
    def __init__(self) -> None:
        super().__init__(lambda part: part)

    @torch.compile(backend="aot_eager")  # knows no second derivative
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@torch.compile(backend="aot_eager")
def activation(x: Tensor) -> Tensor:
    return nn.functional.leaky_relu(x, 0.2)


class CompiledFunction(Nested):
    def __init__(self) -> None:
        super().__init__(lambda part: part[:1])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(activation(self.body(x)))


def by_torch_compile(module: nn.Module) -> Any:
    return torch.compile(module, backend="aot_eager")


def in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="aot_eager")
    return module


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    place = f"file://{tmp_path / 'group'}"
    torch.distributed.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "DataParallel": lambda: nn.DataParallel(critic()),
    "DistributedDataParallel": lambda: nn.parallel.DistributedDataParallel(critic()),
    "torch.compile": lambda: by_torch_compile(critic()),
    "torch.compile of DataParallel": lambda: by_torch_compile(nn.DataParallel(critic())),
    "module.compile()": lambda: in_place(critic()),
    "a compiled part": lambda: Nested(by_torch_compile),
    "a part in DataParallel": lambda: Nested(nn.DataParallel),
    "a compiled method": CompiledMethod,
    "a compiled method, by decorator": CompiledByDecorator,
    "a compiled function": CompiledFunction,
    "torch.fx": lambda: torch.fx.symbolic_trace(critic()),
    "averages of SWA": lambda: torch.optim.swa_utils.AveragedModel(critic()),
}


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_modules_are_audited_as_bare_ones(name: str) -> None:
    module = WRAPPED[name]()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    assert said(audited(generator(), module)) == said(audited(generator(), critic()))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("name", ["DataParallel", "torch.compile", "a compiled part"])
def test_wrapped_modules_make_a_game(name: str) -> None:
    x, z = POINTS[:8].double(), torch.ones(8, 4, dtype=F64)
    game = eq.GAN(generator(), WRAPPED[name](), eq.Vanilla(), latent=4)
    plain = eq.GAN(generator(), critic(), eq.Vanilla(), latent=4)
    torch.testing.assert_close(losses(game, x, z), losses(plain, x, z), rtol=1e-12, atol=0)
    start = game.init()
    loaded = game.load(start.players, start.constants)["critic"]
    torch.testing.assert_close(loaded(POINTS), critic()(POINTS))


def test_witnesses_load_into_a_module_with_a_compiled_part(tmp_path: Path) -> None:
    module = Nested(by_torch_compile)
    found = audited(generator(), module, out=tmp_path / "audit")
    assert found["nash/critic"].verdict is eq.Verdict.REFUTED
    module.load_state_dict(load_file(tmp_path / "audit" / "nash_critic.safetensors"))
    assert not torch.equal(module(POINTS), critic()(POINTS))


def test_our_steps_move_the_module_around_a_compiled_part() -> None:
    moved = []
    for c in (Nested(by_torch_compile), Nested(lambda part: part)):
        g = generator()
        game = eq.GAN(g, c, eq.Vanilla(), latent=4)
        play = eq.Play(game, g, c, eq.Simultaneous(eq.SGD(0.1)))
        play.step(POINTS[:16])
        moved.append([*c.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*moved, strict=True))
    assert not torch.equal(moved[0][0], critic()[0].weight)


def test_torch_jit_is_refused_in_one_line() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out
        scripts = torch.jit.script(critic()), torch.jit.trace(critic(), POINTS[:2])
    for script in scripts:
        with pytest.raises(GameError, match=r"critic is compiled by torch\.jit.*state_dict fits"):
            audited(generator(), script)


class HoldsItself(nn.Module):
    """A lambda that a copy shares with the original, weights and all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.scale = lambda x: x * self.layer.weight.norm()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(self.layer(x))


class NoParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(2, 1), torch.ones((), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.layer(x)


@pytest.mark.parametrize("build", [HoldsItself, NoParameter])
def test_weights_out_of_reach_are_refused(build: Any) -> None:
    with pytest.raises(GameError, match="computes with weights that it does not hold as param"):
        audited(generator(), build())


class Sharded(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Any:
        raise AssertionError("FSDP does not support deepcopy")


def test_sharded_modules_are_refused_with_the_way_out() -> None:
    with pytest.raises(GameError, match=r"cannot be copied \(FSDP .*full state_dict"):
        audited(generator(), Sharded(2, 1))


# -- how modules keep numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_audited_in_a_float32_copy(dtype: torch.dtype) -> None:
    g, c = generator().to(dtype), critic().to(dtype)
    found = audited(g, c)
    clean = audited(copy.deepcopy(g).float(), copy.deepcopy(c).float())
    assert said(found) == said(clean)
    name = str(dtype).removeprefix("torch.")
    (note,) = [n for n in found.notes if n.startswith("the critic")]
    assert re.search(rf"weights are {name}: the audit is of a float32 copy", note)
    assert not clean.notes
    assert all(p.dtype == dtype for p in [*g.parameters(), *c.parameters()])


class Rounds(nn.Module):
    """A hard-coded cast, which rounds derivatives away."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)).half().to(x.dtype))


def test_a_cast_within_forward_is_named() -> None:
    found = eq.audit_pair(
        generator(), Rounds(), POINTS, "vanilla", latent=4, settings=QUICK, progress="none"
    )
    assert found["self-tests"].verdict is eq.Verdict.UNASSESSED
    assert "float16 in aten" in found["self-tests"].summary


class Constants(nn.Module):
    """A kernel that is no buffer, which no `.to` reaches."""

    def __init__(self, keep: Callable[[nn.Module, Tensor], None], read: Callable[[Any], Tensor]):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last, self.read = nn.Linear(2, 8), nn.Linear(8, 1), read
        keep(self, torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)) @ self.read(self))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("keep", "read"),
    [
        (lambda m, t: setattr(m, "kernel", t), lambda m: m.kernel),
        (lambda m, t: setattr(m, "kernels", [1, t]), lambda m: m.kernels[1]),
        (lambda m, t: setattr(m, "kernels", {"a": t}), lambda m: m.kernels["a"]),
    ],
    ids=["attribute", "list", "dictionary"],
)
def test_tensors_that_are_plain_attributes(keep: Any, read: Any, dtype: torch.dtype) -> None:
    buffered = Constants(lambda m, t: m.register_buffer("kernel", t), lambda m: m.kernel)
    clean = audited(generator(), buffered.to(dtype).float())
    module = Constants(lambda m, t: keep(m, t.to(dtype)), read).to(dtype)
    assert said(audited(generator(), module)) == said(clean)
    assert read(module).dtype == dtype


class Kept(nn.Module):
    """Lists and dictionaries of parameters, a weight of two layers, a buffer that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ParameterList([torch.randn(2, 4), torch.randn(4, 4) / 2])
        self.ends = nn.ParameterDict({"weight": torch.randn(4, 1), "bias": torch.zeros(1)})
        self.tied, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight = self.tied.weight
        self.register_buffer("mean", None)

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.layers:
            x = torch.tanh(x @ weight)
        x = torch.tanh(self.again(torch.tanh(self.tied(x))))
        return x @ self.ends["weight"] + self.ends["bias"]


def lazy() -> nn.Module:
    made = nn.Sequential(nn.LazyLinear(8), nn.LeakyReLU(0.2), nn.LazyLinear(1))
    made(POINTS[:2])
    return made


def parametrised(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(
        wrap(nn.Linear(2, 4)), nn.LeakyReLU(0.2), wrap(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 1)
    )


@pytest.mark.parametrize(
    "build",
    [
        Kept,
        lazy,
        lambda: parametrised(parametrizations.weight_norm),
        lambda: parametrised(parametrizations.spectral_norm),
        lambda: parametrised(parametrizations.orthogonal),
    ],
    ids=["lists, ties, None", "lazy", "weight norm", "spectral norm", "orthogonal"],
)
def test_how_weights_are_kept(build: Any) -> None:
    works(generator, build, POINTS)
