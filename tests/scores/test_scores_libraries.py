"""The same figures from other libraries, where they are installed (torchmetrics, prdc, POT)."""

from __future__ import annotations

import importlib
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist.scores import (
    class_score,
    frechet_distance,
    kernel_distance,
    precision_recall,
    wasserstein2,
)


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")


def rows(seed: int, n: int, d: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


class Flat(nn.Module):
    num_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def torchmetric(module: str, kind: str, **settings: Any) -> Any:
    with warnings.catch_warnings():  # of memory, and those of its own imports
        warnings.simplefilter("ignore")
        try:
            found = importlib.import_module(f"torchmetrics.image.{module}")
        except (ImportError, RuntimeError) as error:  # a torchvision that does not fit its torch
            pytest.skip(f"torchmetrics does not import ({error})")
        metric = getattr(found, kind)(feature=Flat(), **settings)
    return metric.set_dtype(torch.float64)


@needs("torchmetrics")
def test_frechet_is_torchmetrics() -> None:
    x, y = rows(0, 300, 12), 1.3 * rows(1, 250, 12) + 0.2
    metric = torchmetric("fid", "FrechetInceptionDistance", input_img_size=(3, 2, 2))
    metric.update(x.reshape(-1, 3, 2, 2), real=True)
    metric.update(y.reshape(-1, 3, 2, 2), real=False)
    assert frechet_distance(x, y) == pytest.approx(float(metric.compute()), rel=1e-10)


@needs("torchmetrics")
def test_kernel_is_torchmetrics() -> None:
    x, y = rows(0, 60, 12), 1.3 * rows(1, 60, 12) + 0.2
    # Subsets of everything do not depend on the draws.
    metric = torchmetric("kid", "KernelInceptionDistance", subsets=2, subset_size=60)
    metric.update(x.reshape(-1, 3, 2, 2), real=True)
    metric.update(y.reshape(-1, 3, 2, 2), real=False)
    found = kernel_distance(x, y, np.random.default_rng(0), subsets=2, subset_size=60)
    assert found.mean == pytest.approx(float(metric.compute()[0]), rel=1e-10)


@needs("torchmetrics")
def test_class_score_is_torchmetrics() -> None:
    logits = 3 * rows(2, 200, 12)
    metric = torchmetric("inception", "InceptionScore", splits=1)
    metric.update(logits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the deviation of one split
        want = float(metric.compute()[0])
    assert class_score(logits, logits=True).mean == pytest.approx(want, rel=1e-10)


@needs("prdc")
@pytest.mark.parametrize("k", [1, 3, 5])
def test_manifolds_are_prdc(k: int) -> None:
    from prdc import compute_prdc

    x, y = rows(3, 200, 6), 0.9 * rows(4, 150, 6) + 0.3
    want = compute_prdc(x.numpy(), y.numpy(), nearest_k=k)
    found = precision_recall(x, y, k)._asdict()
    assert found == pytest.approx({key: float(want[key]) for key in found}, rel=1e-12)


@needs("ot")
def test_transport_is_pot() -> None:
    import ot

    x, y = rows(5, 150, 2).numpy(), 2 * rows(6, 150, 2).numpy() + 1
    want = float(np.sqrt(ot.emd2([], [], ot.dist(x, y))))
    assert wasserstein2(x, y) == pytest.approx(want, rel=1e-10)
