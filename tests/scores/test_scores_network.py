"""Feature networks: same features every time, nothing left behind, a checksum that means something."""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from equilibrist import RequirementError
from equilibrist.data import DataError
from equilibrist.scores import (
    FeatureNetwork,
    coordinates,
    from_safetensors,
    inception,
    pixels,
)
from equilibrist.scores.network import _seeded


def images(n: int = 7, c: int = 1, side: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(n, c, side, side, generator=torch.Generator().manual_seed(seed))


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    conv = nn.Conv2d(1, 3, 3)
    return nn.Sequential(conv, nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())


class Restless(nn.Module):
    """Draws from every global generator, and writes buffers and attributes, even in evaluation."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2), persistent=False)
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x[0, :2].clone()
        self.count += 1
        noise = torch.randn(()) + random.random() + float(np.random.random())
        return x * self.calls + noise + self.count


def test_features_are_those_of_the_module_in_evaluation_mode() -> None:
    module, x = net(), images()
    module(images(seed=1))  # running statistics that matter
    found = FeatureNetwork(module, "net", batch=3)(x, (0.0, 1.0))
    assert found.shape == (7, 3 * 6 * 6)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert module.training
    torch.testing.assert_close(found, module.eval()(x).detach())


def test_the_original_is_left_alone_and_may_train_on() -> None:
    module, x = net(), images()
    before = {key: t.clone() for key, t in module.state_dict().items()}
    network = FeatureNetwork(module, "net")
    first, name = network(x, (0.0, 1.0)), network.sha256
    assert all(torch.equal(before[key], t) for key, t in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())
    with torch.no_grad():
        module[0].weight.add_(1.0)
    assert torch.equal(first, network(x, (0.0, 1.0)))
    assert FeatureNetwork(module, "net").sha256 != name


def test_a_gpu_is_seeded_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generators of the device that the network is on, which need not be the current one."""
    device, seen = torch.device("cuda", 1), []

    @contextlib.contextmanager
    def current(at: torch.device) -> Iterator[None]:
        seen.append(("on", at))
        yield
        seen.append(("off", at))

    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda at: f"state of {at}")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, at: seen.append((state, at)))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seen.append(("seed", seed)))
    monkeypatch.setattr(torch.cuda, "device", current)
    with _seeded(device):
        assert seen == [("on", device), ("seed", 0), ("off", device)]
    assert seen[3:] == [("state of cuda:1", device)]
    seen.clear()
    with _seeded(torch.device("cpu")):
        assert (torch.initial_seed(), random.getstate()) == (0, random.Random(0).getstate())
        assert (
            np.random.get_state()[1][:5].tolist()
            == np.random.RandomState(0).get_state()[1][:5].tolist()
        )
    assert seen == []


def test_nothing_is_left_behind() -> None:
    network, x = FeatureNetwork(Restless(), "restless", value_range=None, batch=2), torch.rand(5, 4)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    name, first = network.sha256, network(x)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()
    random.seed(5)
    torch.manual_seed(5)
    assert torch.equal(first, network(x))
    assert (
        network.sha256
        == name
        == FeatureNetwork(Restless(), "again", value_range=None, batch=2).sha256
    )


def test_random_states_survive_an_error() -> None:
    def fails(x: Tensor) -> Tensor:
        torch.rand(1)
        raise ArithmeticError

    before = torch.get_rng_state()
    with pytest.raises(ArithmeticError):
        FeatureNetwork(fails, "fails")(images(), (0.0, 1.0))
    assert torch.equal(before, torch.get_rng_state())


def test_values_are_mapped_as_floats() -> None:
    seen: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        seen.append(x)
        return x.flatten(1)

    x = torch.tensor([[[[-1.0, 0.0, 0.3, 1.0]]]], dtype=torch.float64)
    FeatureNetwork(look, "look", value_range=(0, 255))(x, (-1.0, 1.0))
    assert seen[-1].dtype == torch.float64
    torch.testing.assert_close(
        seen[-1].flatten(), torch.tensor([0, 127.5, 165.75, 255], dtype=torch.float64)
    )
    FeatureNetwork(look, "look", value_range=(2, 4))(x, (-1.0, 3.0))
    torch.testing.assert_close(
        seen[-1].flatten(), torch.tensor([2, 2.5, 2.65, 3], dtype=torch.float64)
    )
    FeatureNetwork(look, "look", value_range=(-1, 1))(x, (-1.0, 1.0))
    FeatureNetwork(look, "look", value_range=None)(x, (0.0, 1.0))
    assert torch.equal(seen[-2], x)
    assert torch.equal(seen[-1], x)


def test_images_are_resized() -> None:
    x = images(3, 2, 9)
    found = FeatureNetwork(nn.Flatten(), "small", size=4)(x, (0.0, 1.0))
    want = functional.interpolate(x, (4, 4), mode="bilinear", antialias=True)
    assert torch.equal(found, want.flatten(1))
    with pytest.raises(DataError, match="cannot be resized"):
        FeatureNetwork(nn.Flatten(), "small", size=4, value_range=None)(torch.zeros(3, 5))


def test_features_do_not_depend_on_the_batch() -> None:
    x = images(50)
    one, many = (FeatureNetwork(net(), "net", batch=b)(x, (0.0, 1.0)) for b in (1, 64))
    torch.testing.assert_close(one, many)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (lambda x: x.long(), "returned torch.int64"),
        (lambda x: (x,), "returned tuple"),
        (lambda x: x[:1], r"returned shape \[1, 1, 8, 8\] for 7 samples"),
        (lambda x: x.mean(), r"returned shape \[\]"),
        (lambda x: x[:, :0], "for 7 samples"),
    ],
)
def test_outputs_that_are_no_features(module: object, why: str) -> None:
    with pytest.raises(DataError, match=why):
        FeatureNetwork(module, "odd")(images(), (0.0, 1.0))  # type: ignore[arg-type]


def test_data_without_a_range() -> None:
    with pytest.raises(DataError, match=r"pixels-8x8.*states no range; use coordinates"):
        pixels()(torch.zeros(3, 2), None)
    x = torch.rand(3, 2)
    assert torch.equal(coordinates()(x, None), x)


@pytest.mark.parametrize("setting", [{"batch": 0}, {"size": 0}])
def test_settings(setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FeatureNetwork(nn.Flatten(), "flat", **setting)  # type: ignore[arg-type]
    least = FeatureNetwork(nn.Flatten(), "flat", **dict.fromkeys(setting, 1))  # type: ignore[arg-type]
    assert least(images(), (0.0, 1.0)).shape == (7, 1 if "size" in setting else 64)
    with pytest.raises(DataError, match="value range"):
        FeatureNetwork(nn.Flatten(), "flat", value_range=(1.0, 0.0))


def test_checksum_as_documented() -> None:
    module = net(3)
    module[0].register_buffer("extra", torch.arange(2), persistent=False)
    found = FeatureNetwork(module, "net", size=8, value_range=(-1, 1))
    held = dict(sorted([*module.named_parameters(), *module.named_buffers()]))
    assert len(held) == 8
    want = hashlib.sha256(f"8\n(-1.0, 1.0)\n{module}\n".encode())
    for key, t in held.items():
        want.update(f"{key} {t.dtype} {list(t.shape)}\n".encode() + t.detach().numpy().tobytes())
    assert found.sha256 == want.hexdigest()
    assert found.describe() == f"net, {want.hexdigest()[:8]}"
    assert found.to_json() == {
        "name": "net",
        "sha256": want.hexdigest(),
        "size": 8,
        "value_range": [-1.0, 1.0],
    }


def test_checksum_tells_networks_apart() -> None:
    same = FeatureNetwork(net(), "a")
    assert FeatureNetwork(net().eval(), "b", batch=2).sha256 == same.sha256
    others = [
        FeatureNetwork(net(1), "weights"),
        FeatureNetwork(nn.Sequential(*net(), nn.Identity()), "structure"),
        FeatureNetwork(net(), "range", value_range=(-1, 1)),
        FeatureNetwork(net(), "size", size=8),
        FeatureNetwork(net().double(), "dtype"),
        pixels(4),
        pixels(8),
    ]
    assert len({n.sha256 for n in [same, *others]}) == 1 + len(others)


def test_checksum_of_shared_weights_counts_them_under_all_of_their_names() -> None:
    """A layer twice, and two layers of the same weights, compute the same."""

    class Held(nn.Module):
        def __init__(self, *parts: nn.Module) -> None:
            super().__init__()
            self.parts = nn.ModuleList(parts)

        def forward(self, x: Tensor) -> Tensor:
            for part in self.parts:
                x = part(x)
            return x

    torch.manual_seed(0)
    one, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    shared, apart = (FeatureNetwork(Held(one, b), "net", value_range=None) for b in (one, other))
    assert shared.sha256 == apart.sha256
    with torch.no_grad():
        other.weight.mul_(2)
    assert FeatureNetwork(Held(one, other), "net", value_range=None).sha256 != shared.sha256


def test_checksum_has_no_addresses_in_it() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held = [object()]

        def extra_repr(self) -> str:
            return repr(self.held)

        def forward(self, x: Tensor) -> Tensor:
            return x

    networks = [FeatureNetwork(Holder(), "holder") for _ in range(3)]
    assert len({n.sha256 for n in networks}) == 1


def test_a_function_has_no_checksum() -> None:
    network = FeatureNetwork(lambda x: x, "mine")
    assert network.sha256 is None
    assert network.describe() == "mine, a function, no hash"


def test_pixels() -> None:
    x = torch.zeros(2, 2, 4, 4)
    x[0, 1, :2, 2:] = torch.tensor([[0.2, 0.4], [0.6, 0.8]])
    found = pixels(2)(x, (0.0, 1.0))
    assert found.shape == (2, 8)
    want = torch.tensor([0, 0, 0, 0, 0, 0.5, 0, 0])
    torch.testing.assert_close(found[0], want)
    torch.testing.assert_close(pixels(2)(2 * x - 1, (-1.0, 1.0))[0], want)
    assert pixels(2).name == "pixels-2x2"
    with pytest.raises(DataError, match="pixels-8x8: samples of shape"):
        pixels()(x, (0.0, 1.0))
    torch.testing.assert_close(pixels(1)(x, (0.0, 1.0)), x.mean((2, 3)))
    assert pixels(4)(x, (0.0, 1.0)).shape == (2, 32), "as many as there are"
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"size of at least 1, not {size}"):
            pixels(size)


def test_weights_from_a_file(tmp_path: Path) -> None:
    trained, fresh = net(1), net(2)
    trained(images())
    save_file(trained.state_dict(), tmp_path / "net.safetensors")
    before = fresh[0].weight.clone()
    found = from_safetensors(fresh, tmp_path / "net.safetensors", "net", batch=2)
    assert torch.equal(before, fresh[0].weight)
    assert found.sha256 == FeatureNetwork(trained, "x").sha256
    assert found.batch == 2


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(DataError, match=r"net.safetensors: cannot be read"):
        from_safetensors(net(), path, "net")
    path.write_bytes(b"not a file of weights")
    with pytest.raises(DataError, match="not a sound safetensors file"):
        from_safetensors(net(), path, "net")
    save_file({"other": torch.zeros(3)}, path)
    with pytest.raises(DataError, match=r"do not fit Sequential \(Missing key") as caught:
        from_safetensors(net(), path, "net")
    assert "\n" not in str(caught.value)
    wide = net().state_dict() | {"0.weight": torch.zeros(3, 1, 5, 5)}
    save_file(wide, path)
    with pytest.raises(DataError, match=r"size mismatch for 0.weight"):
        from_safetensors(net(), path, "net")


def test_inception_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(RequirementError, match=r"pip install 'equilibrist\[inception\]'") as caught:
        inception()
    assert "\n" not in str(caught.value)


def test_inception_gets_bytes_in_three_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an extractor of torch-fidelity's interface in place of the real one."""

    class Extractor(nn.Module):
        def __init__(
            self, name: str, features: list[str], feature_extractor_weights_path: str | None
        ) -> None:
            super().__init__()
            assert features == ["64"]
            assert feature_extractor_weights_path == "weights.pth"

        def forward(self, x: Tensor) -> tuple[Tensor]:
            assert x.dtype == torch.uint8
            assert x.shape[1] == 3
            return (x.float().flatten(1),)

    fake = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    fake.FeatureExtractorInceptionV3 = Extractor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", fake)
    network = inception("64", weights="weights.pth")
    assert network.name == "inception-v3-64"
    every = torch.arange(256, dtype=torch.float32).reshape(1, 1, 16, 16)
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        # Bytes survive the way through floats: they are rounded, not cut off.
        found = network(every / 255 * (high - low) + low, (low, high))
        assert torch.equal(found, every.flatten(1).tile(1, 3))
    assert network(torch.tensor([[[[-0.5, 1.5]]]]), (0.0, 1.0))[0].tolist() == [0, 255] * 3


def test_import_is_lean() -> None:
    heavy = ("torchmetrics", "torch_fidelity", "torchvision", "matplotlib", "scipy.optimize")
    code = f"import sys, equilibrist.scores; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
