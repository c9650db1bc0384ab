"""Architectures of other people's GANs: attention, styles, signals, volumes, sequences, tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations
from unusual_modules import (
    F64,
    IMAGES,
    PENALISED,
    SMALL,
    PixelNorm,
    audited,
    judge,
    painter,
    rand,
    works,
)

import equilibrist as eq
from equilibrist.errors import GameError


class SelfAttention(nn.Module):
    """SAGAN's, by products of matrices, with its weight gamma."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(4, 2, 1) for _ in range(3))
        self.out, self.gamma = nn.Conv2d(2, 4, 1), nn.Parameter(torch.full((1,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (m(x).flatten(2) for m in (self.query, self.key, self.value))
        seen = v @ torch.softmax(q.transpose(1, 2) @ k, -1).transpose(1, 2)
        return x + self.gamma * self.out(seen.unflatten(2, x.shape[2:]))


class VisionTransformer(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.patches, self.places = nn.Conv2d(1, 8, 4, 4), nn.Parameter(0.1 * torch.randn(4, 8))
        self.norm, self.triple, self.head = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 1)
        self.attention = None if fused else nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patches(x).flatten(2).transpose(1, 2) + self.places
        h = self.norm(t)
        if self.attention is None:
            t = t + F.scaled_dot_product_attention(*self.triple(h).chunk(3, -1))
        else:
            t = t + self.attention(h, h, h, need_weights=False)[0]
        return self.head(t.mean(1))


@pytest.mark.parametrize(
    "build",
    [
        lambda: judge(nn.LeakyReLU(0.2), SelfAttention(), features=256),
        lambda: VisionTransformer(fused=False),
        lambda: VisionTransformer(fused=True),
    ],
    ids=["by hand", "MultiheadAttention", "scaled_dot_product_attention"],
)
def test_self_attention(build: Any) -> None:
    works(painter, build, IMAGES)


WAVES, SEQUENCES = rand(128, 1, 64) - 0.5, rand(128, 6, 2)


class Equalised(nn.Linear):
    """Weights of variance one, scaled by 1 / sqrt(inputs) when they are used."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__(inner, outer)
        nn.init.normal_(self.weight)
        self.gain = 1 / math.sqrt(inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias)


class Modulated(nn.Module):
    """StyleGAN2's convolution: weights modulated by the style of each sample, demodulated, as groups."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.style = nn.Parameter(torch.randn(4, 4, 3, 3)), Equalised(6, 4)
        nn.init.ones_(self.style.bias)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        n, c, h, width = x.shape
        weight = self.weight * self.style(w)[:, None, :, None, None]
        weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        x = F.conv2d(x.reshape(1, n * c, h, width), weight.flatten(0, 1), padding=1, groups=n)
        return F.leaky_relu(x.reshape(n, c, h, width), 0.2)


class StyleGenerator(nn.Module):
    """Mapping network, learnt constant, two modulated convolutions; noise from the latent or drawn within."""

    def __init__(self, noise: str) -> None:
        super().__init__()
        self.mapping = nn.Sequential(PixelNorm(), Equalised(4, 6), nn.LeakyReLU(0.2))
        self.start = nn.Parameter(torch.randn(1, 4, 4, 4))
        self.first, self.second = Modulated(), Modulated()
        self.strength, self.noise = nn.Parameter(torch.tensor(0.3)), noise
        self.image = nn.Conv2d(4, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        w = self.mapping(z[:, :4])
        x = self.first(self.start.expand(len(z), -1, -1, -1), w)
        drawn = torch.randn(len(z), 16, dtype=z.dtype) if self.noise == "within" else z[:, 4:]
        x = x + self.strength * drawn.reshape(-1, 1, 4, 4)
        up = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.sigmoid(self.image(self.second(up, w)))


class MinibatchDeviation(nn.Module):
    """The standard deviation over groups of four samples, as one more channel."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.reshape(4, -1, *x.shape[1:])
        spread = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3), keepdim=True)
        return torch.cat([x, spread.repeat(4, 1, *x.shape[2:])], 1)


def style_critic() -> nn.Module:
    layers = (nn.LeakyReLU(0.2), MinibatchDeviation(), nn.Flatten(), Equalised(320, 4))
    return nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), *layers, nn.LeakyReLU(0.2), Equalised(4, 1))


@pytest.mark.parametrize(("noise", "latent"), [("latent", 20), ("within", 4)])
def test_styles_equalised_rates_and_noise(noise: str, latent: int) -> None:
    plain = lambda: judge(nn.LeakyReLU(0.2), features=256)  # noqa: E731
    works(lambda: StyleGenerator(noise), plain, IMAGES, latent=latent)


def test_minibatch_standard_deviation() -> None:
    torch.manual_seed(3)
    audited(painter(), style_critic(), IMAGES, settings=SMALL)
    with pytest.warns(UserWarning, match=r"R1\(weight=1\.0\) is of the gradient of their sum"):
        found = audited(painter(), style_critic(), IMAGES, settings=SMALL, **PENALISED)
    assert any("depends on the size of the batch" in line for line in found["stationary"].limits)


def test_the_penalty_of_a_critic_that_compares_samples_is_that_of_training_loops() -> None:
    torch.manual_seed(3)
    c, x = style_critic().double(), IMAGES[:8].double().requires_grad_()
    with pytest.warns(UserWarning, match="depend on the whole batch"):
        game = eq.GAN(painter().double(), c, eq.WGAN(), latent=4, penalties=[eq.R1(2.0)])
    start = game.init(dtype=F64)
    draw = {"real": x.detach(), "latent": torch.zeros(8, 4, dtype=F64)}
    ours = game.losses(start.players, start.constants, draw)["critic"]
    fake = game.generate(start.players, start.constants, draw["latent"])
    (slope,) = torch.autograd.grad(c(x).sum(), x)
    by_hand = c(fake).mean() - c(x).mean() + slope.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(ours, by_hand, rtol=1e-12, atol=0)


# -- signals, volumes, sequences, tokens ----------------------------------------------------------------------


class WaveGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(4, 32)
        last = nn.ConvTranspose1d(2, 1, 8, 4, 2)
        self.last = parametrizations.weight_norm(last)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.last(torch.relu(self.start(z)).unflatten(1, (2, 16))))


class SpectrogramCritic(nn.Module):
    """A patch critic of the short-time Fourier transform, complex on the way."""

    def __init__(self, read: Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))
        self.net = nn.Sequential(
            nn.Conv2d(channels, 4, 3, 1, 1), nn.LeakyReLU(0.1), nn.Conv2d(4, 1, 3, 1, 1)
        )
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x.squeeze(1), 16, 8, window=self.window, return_complex=True)
        return self.net(self.read(spectrum))


@pytest.mark.parametrize(
    ("read", "channels"),
    [
        (lambda s: torch.view_as_real(s).permute(0, 3, 1, 2), 2),
        (lambda s: s.abs().unsqueeze(1), 1),
        (lambda s: torch.log(s.abs().square() + 1e-5).unsqueeze(1), 1),
    ],
    ids=["real and imaginary parts", "magnitude", "logarithm of power"],
)
def test_spectrogram_critics(read: Any, channels: int) -> None:
    works(WaveGenerator, lambda: SpectrogramCritic(read, channels), WAVES)


class ComplexWeights(nn.Module):
    def __init__(self, real: bool) -> None:
        super().__init__()
        weight = torch.randn(9, 4, dtype=torch.complex64) / 3
        self.weight = nn.Parameter(torch.view_as_real(weight) if real else weight)
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight if self.weight.is_complex() else torch.view_as_complex(self.weight)
        return self.last((torch.fft.rfft(x.reshape(len(x), 4, 16)).mean(1) @ w).abs())


def test_complex_weights_are_kept_as_real_ones() -> None:
    with pytest.raises(GameError, match=r"parameter weight is complex.*view_as_complex"):
        audited(WaveGenerator(), ComplexWeights(real=False), WAVES)
    works(WaveGenerator, lambda: ComplexWeights(real=True), WAVES)


def test_volumes() -> None:
    g = lambda: nn.Sequential(nn.Linear(4, 16), nn.Unflatten(1, (2, 2, 2, 2)), up())  # noqa: E731
    up = lambda: nn.ConvTranspose3d(2, 1, 4, 2, 1)  # noqa: E731
    c = lambda: nn.Sequential(  # noqa: E731
        nn.Conv3d(1, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv3d(4, 1, 2)
    )
    works(g, c, rand(96, 1, 4, 4, 4))


class Recurrent(nn.Module):
    """Sequences of latents [N, T, d] to sequences of points."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.cell, self.last = kind(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.cell(z)[0])


class ByCells(nn.Module):
    """One latent to a sequence, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.LSTMCell(4, 4), nn.Linear(4, 2)

    def forward(self, z: Tensor) -> Tensor:
        state = z.new_zeros(len(z), 4), z.new_zeros(len(z), 4)
        steps = []
        for _ in range(6):
            state = self.cell(z, state)
            steps.append(self.last(state[0]))
        return torch.stack(steps, 1)


class SequenceCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.GRU(2, 4, batch_first=True, bidirectional=True), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(x)[0].mean(1))


@pytest.mark.parametrize(
    ("build", "latent"),
    [
        (lambda: Recurrent(nn.GRU), (6, 3)),
        (lambda: Recurrent(nn.LSTM), (6, 3)),
        (ByCells, 4),
    ],
    ids=["GRU", "LSTM", "cells"],
)
def test_recurrent_generators_of_sequences(build: Any, latent: Any) -> None:
    works(build, SequenceCritic, SEQUENCES, latent=latent)


TOKENS = F.one_hot(torch.randint(5, (128, 6), generator=torch.Generator().manual_seed(1)), 5)


class Tokens(nn.Module):
    """Rows of near one-hot vectors, [N, 6, 5]."""

    def __init__(self, end: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.end = nn.Linear(4, 30), end

    def forward(self, z: Tensor) -> Tensor:
        return self.end(self.net(z[:, :4]).unflatten(1, (6, 5)), z[:, 4:])


def gumbel_of_latent(logits: Tensor, z: Tensor) -> Tensor:
    share = torch.special.ndtr(z).clamp(1e-6, 1 - 1e-6)
    return ((logits - (-share.log()).log().reshape_as(logits)) / 0.5).softmax(-1)


def straight_through(logits: Tensor, z: Tensor) -> Tensor:
    soft = logits.softmax(-1)
    return F.one_hot(soft.argmax(-1), 5).to(soft.dtype) - soft.detach() + soft


def tokens_critic() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(30, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))


@pytest.mark.parametrize(
    ("end", "latent"),
    [
        (lambda logits, z: logits.softmax(-1), 4),
        (lambda logits, z: F.gumbel_softmax(logits, 0.5), 4),
        (gumbel_of_latent, 34),
    ],
    ids=["softmax", "Gumbel-softmax", "Gumbel noise of the latent"],
)
def test_generators_of_tokens(end: Any, latent: int) -> None:
    works(lambda: Tokens(end), tokens_critic, TOKENS.float(), latent=latent)


def test_a_straight_through_gradient_is_none_of_the_loss() -> None:
    torch.manual_seed(3)
    pair = Tokens(straight_through), tokens_critic(), TOKENS.float()
    budget = {"gradients": 450, "batch": 16}  # what tests that fail take is beyond their part of it
    found = eq.audit_pair(*pair, "vanilla", latent=4, progress="none", **budget)
    assert found["self-tests"].verdict is eq.Verdict.UNASSESSED
    assert (
        "the generator's loss does not change as its gradient says" in found["self-tests"].summary
    )
    assert found["nash"].verdict is eq.Verdict.UNASSESSED
