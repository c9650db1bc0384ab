"""Feature networks: what samples are seen through, named and hashed."""

from __future__ import annotations

import hashlib
import importlib
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from equilibrist.certificates import Json
from equilibrist.data.arrays import check_range
from equilibrist.errors import DataError, RequirementError, first_line
from equilibrist.files.reading import printable_path, reason
from equilibrist.files.safetensors import opened
from equilibrist.nn.wrapped import copied

Range = tuple[float, float]


class FeatureNetwork:
    """A map from samples [n, *shape] to features [n, d], applied the same way every time.

    Args:
        module: a module or any callable from a batch to a tensor [b, ...], flattened to [b, d].
            A module is copied, the copy put into evaluation mode: training the original further
            does not change the scores, and the original is never touched. Its class scores are as
            good as features (for `ClassScore`).
        name: how scores call it.
        size: side to which images are resized first, bilinearly with antialiasing; None leaves
            them as they are.
        value_range: the interval of values that the module expects. Samples are mapped onto it
            linearly from the data's own range, as floats (no rounding to bytes). None hands them
            over as they are, for points and for modules that read the data's own range.
        batch: samples a call.

    Each call runs a fresh copy, so that what a forward pass writes is gone afterwards, from the same
    seeds, and puts the global random states back (Python's, NumPy's, and torch's on its device). A
    callable that is no module must see to its own state. A module that mixes the samples of a batch
    even in evaluation mode gives features that depend on `batch`.

    Raises:
        ValueError: a size or batch below 1.
        DataError: a value range that is none.
        GameError: a module that cannot be copied.
    """

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        name: str,
        *,
        size: int | None = None,
        value_range: Range | None = (0.0, 1.0),
        batch: int = 256,
    ) -> None:
        if batch < 1 or (size is not None and size < 1):
            raise ValueError(f"{name}: size and batch must be at least 1, not {size} and {batch}")
        self.name = name
        self.size = size
        self.value_range = None if value_range is None else check_range(name, value_range)
        self.batch = batch
        self._module = module
        if isinstance(module, nn.Module):
            self._module = self._copy(module).eval().requires_grad_(False)

    def _copy(self, module: nn.Module) -> nn.Module:
        return copied(module, f"feature network {self.name}")

    @cached_property
    def sha256(self) -> str | None:
        """Checksum of what decides the features; None for a callable that is no module.

        SHA-256 over, in this order: size and value range; the module's printed structure; and for
        every parameter and buffer in the order of their names, its name, dtype, shape and bytes.
        The code of the forward pass is not part of it: two classes that print alike, with the same
        weights, have the same checksum.
        """
        if not isinstance(self._module, nn.Module):
            return None
        # Addresses of functions and objects differ from process to process.
        structure = re.sub(r" at 0x[0-9a-f]+", "", repr(self._module))
        digest = hashlib.sha256(f"{self.size}\n{self.value_range}\n{structure}\n".encode())
        for key, tensor in sorted(_tensors(self._module).items()):
            digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().data)
        return digest.hexdigest()

    def describe(self) -> str:
        """Name and first eight digits of the checksum, as score labels have them."""
        return f"{self.name}, {self.sha256[:8] if self.sha256 else 'a function, no hash'}"

    def to_json(self) -> Json:
        """Plain values."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "size": self.size,
            "value_range": None if self.value_range is None else list(self.value_range),
        }

    def __repr__(self) -> str:
        return f"FeatureNetwork({self.describe()})"

    def __call__(self, samples: Tensor, value_range: Range | None = None) -> Tensor:
        """Features [n, d] of samples [n, *shape], on the CPU, in the module's own precision.

        `value_range` is the data's, as `Source.value_range`.

        Raises:
            DataError: the network states a range and the data has none, images that the network cannot
                take, or an output that is not [n, ...] of floats.
        """
        module, place, dtype = self._module, samples.device, samples.dtype
        if isinstance(module, nn.Module):
            # A call may write buffers and counters of its copy, never those of the next call.
            module = self._copy(module)
            floats = (t for t in _tensors(module).values() if t.is_floating_point())
            if (anchor := next(floats, None)) is not None:
                place, dtype = anchor.device, anchor.dtype
        features = []
        with torch.no_grad(), _seeded(place):
            for part in samples.split(self.batch):
                seen = self._seen(part.to(place, dtype), value_range)
                features.append(self._checked(module(seen), len(part)))
        return torch.cat(features)

    def _seen(self, x: Tensor, value_range: Range | None) -> Tensor:
        if self.value_range is not None:
            if value_range is None:
                raise DataError(
                    f"{self.name}: the network wants values in {list(self.value_range)}, but the "
                    "data states no range; use coordinates(), or FeatureNetwork with value_range=None"
                )
            if value_range != self.value_range:
                (low, high), (bottom, top) = value_range, self.value_range
                x = (x - low) / (high - low) * (top - bottom) + bottom
        if self.size is None:
            return x
        if x.ndim != 4:
            raise DataError(
                f"{self.name}: samples of shape {list(x.shape[1:])} cannot be resized; "
                "give images [channels, height, width]"
            )
        side = (self.size, self.size)
        return functional.interpolate(x, side, mode="bilinear", align_corners=False, antialias=True)

    def _checked(self, output: object, n: int) -> Tensor:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            kind = output.dtype if isinstance(output, Tensor) else type(output).__name__
            raise DataError(f"{self.name}: the network returned {kind}; return floats [n, d]")
        if output.ndim < 1 or len(output) != n or output.numel() == 0:
            raise DataError(
                f"{self.name}: the network returned shape {list(output.shape)} for {n} samples; "
                "return floats [n, d]"
            )
        return output.detach().reshape(n, -1).cpu()


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """Global random states at a fixed seed, put back afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        random.seed(0)
        np.random.seed(0)
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed every device
        if on_device is not None:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(0)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, persistent or not, under all of its names."""
    named = (module.named_parameters, module.named_buffers)
    return {key: t for held in named for key, t in held(remove_duplicate=False)}


class _Pixels(nn.Module):
    """Mean of the pixels in each cell of a grid: [b, c, h, w] -> [b, c size size]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def extra_repr(self) -> str:
        return f"size={self.size}"

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or min(x.shape[2:]) < self.size:
            raise DataError(
                f"pixels-{self.size}x{self.size}: samples of shape {list(x.shape[1:])} cannot be "
                "averaged to that grid; choose a smaller one (points: coordinates())"
            )
        return functional.adaptive_avg_pool2d(x, self.size).flatten(1)


def pixels(size: int = 8) -> FeatureNetwork:
    """ "pixels-8x8": images averaged to size x size pixels in [0, 1]. No weights, no semantics.

    It sees colour, shape and diversity at low resolution, and is blind to what is finer. Its
    figures compare only with figures at the same size.

    Args:
        size: of the grid's sides.

    Returns:
        The map, for any score of images.

    Raises:
        ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"pixels needs a size of at least 1, not {size}")
    return FeatureNetwork(
        _Pixels(size), f"pixels-{size}x{size}", value_range=(0.0, 1.0), batch=4096
    )


def coordinates() -> FeatureNetwork:
    """ "coordinates": samples as they are, flattened; for points.

    Returns:
        The map, for any score of points.
    """
    return FeatureNetwork(nn.Flatten(), "coordinates", value_range=None, batch=1 << 16)


def from_safetensors(
    module: nn.Module, path: str | PathLike[str], name: str, **settings: Any
) -> FeatureNetwork:
    """A `FeatureNetwork` of a copy of `module` with the weights of a safetensors file.

    The file's names and shapes must be those of `module.state_dict()`, all of them.

    Args:
        module: of the architecture that the file's weights are for.
        path: the file.
        name: how scores call it.
        settings: of `FeatureNetwork`.

    Returns:
        The map, for any score.

    Raises:
        DataError: a file that is missing, damaged or does not fit.
    """
    own = copied(module, f"feature network {name}")
    where = printable_path(Path(path).relative_to(Path(path).parent))
    try:
        with opened(Path(path)) as file:
            own.load_state_dict({key: file.tensor(key) for key in file.keys})
    except OSError as error:
        raise DataError(
            f"{where}: cannot be read ({reason(error)}); give a safetensors file"
        ) from None
    except ValueError as error:
        raise DataError(
            f"{where}: not a sound safetensors file ({reason(error)}); fetch it again"
        ) from None
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise DataError(
            f"{where}: its weights do not fit {type(module).__name__} "
            f"({lines[min(1, len(lines) - 1)]}); build the module that they were saved from"
        ) from None
    return FeatureNetwork(own, name, **settings)


def inception(
    features: str = "2048",
    *,
    weights: str | PathLike[str] | None = None,
    device: torch.device | str | None = None,
    batch: int = 64,
) -> FeatureNetwork:
    """Inception-v3 as FID is defined by: torch-fidelity's port of the original TensorFlow graph.

    Args:
        features: "2048" (the last pool; for `Frechet`, `Kernel`, `PrecisionRecall`),
            "logits_unbiased" (class scores; for `ClassScore`), "64", "192", "768" or "logits".
        weights: a file of torch-fidelity's weights; None lets torch-fidelity fetch them (91 MB).
            torch-fidelity unpickles it: name only a file that you trust.
        device: where it runs.

    Images of one channel are repeated in three, values rounded to the bytes that it expects. Raises
    `RequirementError` where torch-fidelity is not installed or does not import.

    Returns:
        The map, for any score.
    """
    try:
        found = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except (ImportError, RuntimeError) as error:
        # A torchvision that does not fit its torch fails with RuntimeError.
        why = first_line(error, type(error).__name__)
        raise RequirementError(
            f"inception() needs torch-fidelity ({why}): pip install 'equilibrist[inception]'"
        ) from None
    file = None if weights is None else str(weights)
    extractor = found.FeatureExtractorInceptionV3(
        "inception-v3", [features], feature_extractor_weights_path=file
    )
    return FeatureNetwork(
        _Bytes(extractor).to(device),
        f"inception-v3-{features}",
        value_range=(0.0, 255.0),
        batch=batch,
    )


class _Bytes(nn.Module):
    """Images in [0, 255] to an extractor of features that takes bytes in three channels."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4 and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        features: Tensor = self.extractor(x.round().clamp(0, 255).to(torch.uint8))[0]
        return features
