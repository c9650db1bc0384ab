"""Derivatives of layers up to the third order, as a Jacobian under a gradient penalty needs them, against
differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Plain
from equilibrist.core.jacobian import JacobianOperator
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN
from equilibrist.formulations.gradient import input_gradient
from equilibrist.games import GAN
from equilibrist.nn.slopes import Slopes
from equilibrist.penalties import GradientPenalty

F64 = torch.float64
ROWS, IMAGE, LINE, TEXT = (5, 6), (3, 4, 4, 4), (3, 4, 8), (3, 5, 8)


class Of(nn.Module):
    """A layer of one function."""

    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


class First(nn.Module):
    """The first output of a layer that has several."""

    def __init__(self, layer: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x: Tensor) -> Tensor:
        found = self.layer(*[x] * self.times)
        made: Tensor = found[0] if isinstance(found, tuple) else found
        return made


def _attention(causal: bool) -> nn.Module:
    return Of(
        lambda x: F.scaled_dot_product_attention(
            x[:, None], x[:, None].sin(), x[:, None].flip(2), is_causal=causal
        )
    )


IMAGE_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "instance norm": lambda: nn.InstanceNorm2d(4),
    "instance norm, affine": lambda: nn.InstanceNorm2d(4, affine=True),
    "instance norm, eval": lambda: nn.InstanceNorm2d(4, track_running_stats=True).eval(),
    "batch norm, eval": lambda: nn.BatchNorm2d(4).eval(),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "layer norm": lambda: nn.LayerNorm((4, 4, 4)),
    "local response norm": lambda: nn.LocalResponseNorm(3, 0.5),
    "functional instance norm": lambda: Of(F.instance_norm),
    "channels last": lambda: Of(
        lambda x: F.instance_norm(x.contiguous(memory_format=torch.channels_last))
    ),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3)),
    "weight norm, older form": lambda: nn.utils.weight_norm(nn.Conv2d(4, 3, 3)),
    "convolution": lambda: nn.Conv2d(4, 3, 3, padding=1, groups=1, padding_mode="reflect"),
    "transposed convolution": lambda: nn.ConvTranspose2d(4, 3, 3, stride=2),
    "grid_sample": lambda: Of(
        lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=False)
    ),
    "interpolate": lambda: nn.Upsample(scale_factor=2, mode="bicubic"),
    "antialiased": lambda: Of(lambda x: F.interpolate(x, size=3, mode="bilinear", antialias=True)),
    "pixel shuffle": lambda: nn.PixelShuffle(2),
    "average pool": lambda: nn.AdaptiveAvgPool2d(3),
    "max pool": lambda: nn.MaxPool2d(2),
    "fractional max pool": lambda: Of(
        lambda x: F.fractional_max_pool2d(
            x, 2, 3, _random_samples=torch.full((len(x), 4, 2), 0.4, dtype=F64)
        )
    ),
    "fold": lambda: Of(lambda x: F.fold(F.unfold(x, 3).square(), (4, 4), 3)),
}
ROW_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.LayerNorm(6),
    "layer norm without affine": lambda: nn.LayerNorm(6, elementwise_affine=False),
    "functional layer norm": lambda: Of(lambda x: F.layer_norm(x, (6,))),
    "RMS norm": lambda: nn.RMSNorm(6),
    "PReLU": nn.PReLU,
    "GELU": nn.GELU,
    "softplus": nn.Softplus,
    "SiLU": nn.SiLU,
    "Mish": nn.Mish,
    "hard sigmoid": nn.Hardsigmoid,
    "GLU": nn.GLU,
    "softmax": lambda: nn.Softmax(-1),
    "normalize": lambda: Of(lambda x: F.normalize(x, dim=1)),
    "std": lambda: Of(lambda x: x * x.std(1, keepdim=True)),
    "bilinear": lambda: First(nn.Bilinear(6, 6, 3), 2),
    "cdist": lambda: Of(lambda x: torch.cdist(x, torch.eye(6, dtype=F64)[:3])),
    "cdist, p = 3": lambda: Of(lambda x: torch.cdist(x, torch.eye(6, dtype=F64)[:3], p=3.0)),
    "pdist": lambda: Of(lambda x: torch.stack([F.pdist(r.reshape(3, 2)) for r in x])),
    "GRU cell": lambda: nn.GRUCell(6, 4),
    "LSTM cell": lambda: First(nn.LSTMCell(6, 4)),
}
TEXT_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "GRU": lambda: First(nn.GRU(8, 3, batch_first=True)),
    "LSTM": lambda: First(nn.LSTM(8, 3, batch_first=True, bidirectional=True)),
    "attention": lambda: _attention(False),
    "causal attention": lambda: _attention(True),
    "multi-head attention": lambda: First(nn.MultiheadAttention(8, 2, batch_first=True), 3),
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 8, 0.0, "gelu", batch_first=True),
}
ALL = [
    pytest.param(make, shape, id=name)
    for layers, shape in ((IMAGE_LAYERS, IMAGE), (ROW_LAYERS, ROWS), (TEXT_LAYERS, TEXT))
    for name, make in layers.items()
]


def game(layer: nn.Module, shape: tuple[int, ...]) -> tuple[GAN, Any]:
    torch.manual_seed(0)
    first = nn.Linear(2, _size(shape))
    generator = nn.Sequential(first, nn.Unflatten(1, shape[1:]))
    out = _size(layer.double()(torch.randn(shape, dtype=F64)).shape)
    critic = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(out, 1))
    made = GAN(
        generator.double(), critic.double(), WGAN(), latent=2, penalties=[GradientPenalty(10.0)]
    )
    rng = torch.Generator().manual_seed(1)
    draw = {
        "real": torch.randn(shape, generator=rng, dtype=F64),
        "latent": torch.randn(shape[0], 2, generator=rng, dtype=F64),
        "mix": torch.rand(shape[0], generator=rng, dtype=F64),
    }
    return made, draw


def _size(shape: Any) -> int:
    total = 1
    for n in shape[1:]:
        total *= n
    return total


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's older weight norm
@pytest.mark.parametrize(("make", "shape"), ALL)
def test_the_jacobian_under_a_penalty_is_the_derivative_of_the_field(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    made, draw = game(make(), shape)
    players, constants = made.init()
    field = VectorField(made)
    rng = torch.Generator().manual_seed(2)
    u = tree.map(lambda x: torch.randn(x.shape, generator=rng, dtype=F64), players)
    h = 1e-6
    sides = [field(tree.axpy(s * h, u, players), constants, draw).v for s in (1, -1)]
    seen = tree.flatten(tree.scale(0.5 / h, tree.axpy(-1.0, sides[1], sides[0])))
    exact = tree.flatten(field.jvp(players, constants, u, draw))
    assert float((seen - exact).norm() / seen.norm()) < 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_in_training_mode_too(training: bool) -> None:
    """A critic under a penalty may not mix samples; this game differentiates the sum of scores."""

    class Batch(Plain):
        players = ("critic", "rest")
        layer = nn.BatchNorm1d(4).double().train(training)

        def losses(self, players: Any, constants: Any, draw: Any, only: str | None = None) -> Any:
            own = players["critic"]

            def scores(x: Tensor) -> Tensor:
                running = () if training else (torch.zeros(4, dtype=F64), torch.ones(4, dtype=F64))
                out = F.batch_norm(
                    x @ own["w"], *(running or (None, None)), own["a"], own["b"], training
                )
                return out.tanh().sum(1)

            slope = input_gradient(scores, draw["x"])  # type: ignore[arg-type]
            value = slope.square().sum() + players["rest"]["z"].sum()
            return {"critic": value, "rest": value}

    rng = torch.Generator().manual_seed(0)
    shapes = {"w": (3, 4), "a": (4,), "b": (4,)}
    players = {
        "critic": {k: torch.randn(s, generator=rng, dtype=F64) for k, s in shapes.items()},
        "rest": {"z": torch.zeros(1, dtype=F64)},
    }
    draw = {"x": torch.randn(7, 3, generator=rng, dtype=F64)}
    field, constants = VectorField(Batch()), {p: {} for p in players}
    J = JacobianOperator(field, players, constants, [draw]).dense()
    x, h = tree.flatten(players), 1e-6
    unit = torch.eye(len(x), dtype=F64)

    def v(x: Tensor) -> Tensor:
        return tree.flatten(field(tree.unflatten(x, players), constants, draw).v)

    truth = torch.stack([(v(x + h * e) - v(x - h * e)) / (2 * h) for e in unit], 1)
    torch.testing.assert_close(J, truth, rtol=0, atol=1e-6 * float(truth.abs().max()))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm2d(4), IMAGE),
        (nn.BatchNorm2d(4).eval(), IMAGE),
        (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE),
        (nn.InstanceNorm1d(4), LINE),
        (nn.LayerNorm((4, 4)), IMAGE),
        (nn.Hardsigmoid(), ROWS),
        (nn.Hardsigmoid(inplace=True), ROWS),
        (Of(lambda x: torch.cdist(x, x)), ROWS),
        (Of(lambda x: F.pdist(x, 1.0)), ROWS),
        (First(nn.MultiheadAttention(8, 2, batch_first=True), 3), TEXT),
    ],
    ids=str,
)
def test_values_are_those_of_torch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer = layer.double()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    before = {k: b.clone() for k, b in layer.named_buffers()}
    plain = layer(x.clone())
    after = {k: b.clone() for k, b in layer.named_buffers()}
    layer.load_state_dict({**layer.state_dict(), **before})
    with Slopes(thrice=True):
        written = layer(x.clone())
    torch.testing.assert_close(written, plain, rtol=0, atol=1e-7)
    for k, b in layer.named_buffers():
        if b.is_floating_point():
            torch.testing.assert_close(b, after[k], rtol=0, atol=1e-12)


def test_a_distance_of_zero_has_derivatives_that_are_finite() -> None:
    x = torch.zeros(2, 3, dtype=F64, requires_grad=True)
    with Slopes():
        total = torch.cdist(x, x).sum()
    (slope,) = torch.autograd.grad(total, x, create_graph=True)
    assert torch.equal(slope, torch.zeros_like(slope))


def test_a_penalty_on_a_layer_without_second_derivative_is_one_line_with_the_cure() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.EmbeddingBag(4, 6, mode="sum")

        def forward(self, x: Tensor) -> Tensor:
            rows = torch.arange(4).repeat(len(x), 1)
            found: Tensor = self.table(rows, per_sample_weights=x[:, :4].contiguous())
            return found

    def trained() -> None:
        made, draw = game(Bag(), ROWS)
        VectorField(made)(*made.init(), draw)

    with pytest.raises(GameError, match=r"twice .*embedding_bag.*take nn\.Embedding") as caught:
        trained()
    assert "\n" not in str(caught.value)
