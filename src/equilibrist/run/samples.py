"""Samples of a generator, as sheets for people and as arrays."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from equilibrist.certificates import Json
from equilibrist.core.draws import Draw, Use
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.errors import RecipeError
from equilibrist.files.atomic import write_atomically
from equilibrist.files.owned import owned
from equilibrist.games import AdversarialGame, Mixture, SampledGame
from equilibrist.games.inputs import as_condition
from equilibrist.scores import Score

SHEET = {"images": 64, "points": 2048, "arrays": 64}


# More parameters than other functions: what addresses a sample (seed, index) and what it is made of.
def generate(
    game: SampledGame,
    players: Players,
    constants: Constants,
    n: int,
    seed: int,
    index: int = 0,
    batch: int = 0,
    data: Source | None = None,
    condition: Tensor | None = None,
) -> Tensor:
    """n generated samples [n, ...] from latents addressed by (seed, sample stream, index); no graph.

    They are made `batch` at a time (0: all at once). Where samples interact (batch statistics) every
    batch is a full one, the last filled up with further latents. A conditional game is shown
    `condition` [n, ...]; without it the classes in order and in equal shares, or conditions of `data`.
    Where samples interact, the classes are spread over the batches: each sees a mixture.
    """
    rng = Use.SHEET.at(sheet=index).generator(seed)
    if isinstance(game, AdversarialGame):
        source = game.data if data is None else data
        return _of_draws(game, game.fakes, players, constants, n, rng, source, batch)
    anchor = next(iter(players["generator"].values()))
    size = batch or n
    count = n if game.separable else -(-n // size) * size
    latents = game.latent.sample(rng, count, anchor.dtype, anchor.device)
    shown: Sequence[Tensor | None] = [None] * (-(-count // size))
    if game.condition is not None:
        if condition is None:
            condition = _conditions(game, n, seed, data)
        rows = torch.arange(count, device=condition.device) % n
        if not game.separable:
            rows = rows.reshape(size, -1).mT.flatten()
        shown = as_condition(condition[rows], anchor.device, anchor.dtype).split(size)
    with torch.no_grad():
        parts = [
            game.generate(
                players, constants, z, c, int(rng.integers(2**63 - 1)) if game.noise else None
            )
            for z, c in zip(latents.split(size), shown, strict=True)
        ]
    made = torch.cat(parts)
    if game.condition is not None and not game.separable:
        made = made.reshape(-1, size, *made.shape[1:]).transpose(0, 1).flatten(0, 1)
    return made[:n]


def _of_draws(
    game: AdversarialGame,
    made: Callable[[Players, Constants, Draw], Tensor],
    players: Players,
    constants: Constants,
    n: int,
    rng: np.random.Generator,
    data: Source,
    batch: int = 0,
) -> Tensor:
    """n samples of a game whose samples belong to batches of data: `batch` at a time (0: all at once) where those do
    not interact, else in batches of the game's own size."""
    anchor = next(iter(players[game.players[0]].values()))
    rows = (batch or n) if game.separable and game.any_rows else game.batch
    found: list[Tensor] = []
    with torch.no_grad():
        while sum(map(len, found)) < n:
            draw = game.draw(rng, data, rows, anchor.dtype, anchor.device)
            found.append(made(players, constants, draw))
    return torch.cat(found)[:n]


def real(
    game: SampledGame, players: Players, constants: Constants, n: int, seed: int, data: Source
) -> Tensor:
    """n real samples [n, ...] as the critic sees them, for the sheet of the data."""
    rng = real_generator(seed)
    if isinstance(game, AdversarialGame):
        return _of_draws(game, game.reals, players, constants, n, rng, data)
    return data.sample(rng, n)


def _conditions(game: SampledGame, n: int, seed: int, data: Source | None) -> Tensor:
    if isinstance(game.condition, int):
        return torch.arange(n) * game.condition // n
    if data is None:
        raise RecipeError("this game's conditions come from its data: pass data or condition")
    condition: Tensor = data.sample_pairs(real_generator(seed), n)[1]  # type: ignore[attr-defined]
    return condition


def real_generator(seed: int) -> np.random.Generator:
    """Where the sheet of real samples is drawn from."""
    return Use.SHEET_OF_REAL.at().generator(seed)


def score_generator(seed: int, place: int, what: int = 0) -> np.random.Generator:
    """Where the real samples of score number `place` are drawn from, the same at every step: their
    features are then computed once. `what` = 1: where its conditions are."""
    use = Use.SCORE_CONDITION if what else Use.SCORE
    return use.at(place=place).generator(seed)


def score_rows(
    game: SampledGame,
    scores: Sequence[Score],
    data: Source,
    players: Players,
    constants: Constants,
    seed: int,
    batch: int = 0,
) -> list[Json]:
    """Every score's plain values, on samples, real data and conditions of their own addresses. Of a mixture
    its own first, then those of its mean network, the other summary of a measure."""
    rows = _scored(game, scores, data, players, constants, seed, batch)
    if isinstance(game, Mixture):
        mean = game.mean(players, constants)
        for row in _scored(game.base, scores, data, *mean, seed, batch):
            rows.append({**row, "name": f"{row['name']}, mean network"})
    return rows


def _scored(
    game: SampledGame,
    scores: Sequence[Score],
    data: Source,
    players: Players,
    constants: Constants,
    seed: int,
    batch: int,
) -> list[Json]:
    rows = []
    for place, score in enumerate(scores):
        condition = None
        if game.condition is not None:
            rng = score_generator(seed, place, 1)
            condition = data.sample_pairs(rng, score.samples)[1]  # type: ignore[attr-defined]
        fake = generate(
            game, players, constants, score.samples, seed, 1 + place, batch, data, condition
        )
        rows.append(score(fake, data, score_generator(seed, place)).to_json())
    return rows


def sheet(samples: Tensor, data: Source) -> tuple[str, bytes]:
    """Samples as people look at them, as (ending, content) of a file: ".png", a square grid, of
    images; ".npy" of points and arrays."""
    if data.kind != "images":
        return ".npy", npy_bytes(samples)
    values = samples.detach().double().cpu().numpy()
    buffer = io.BytesIO()
    low, high = data.value_range or _usual_range(float(values.min()), float(values.max()))
    _grid(np.clip((values - low) / (high - low), 0, 1)).save(buffer, "PNG")
    return ".png", buffer.getvalue()


def _usual_range(low: float, high: float) -> tuple[float, float]:
    """One of the ranges to which pixels are scaled, or what the values run through."""
    usual = [(0.0, 1.0), (-1.0, 1.0)]
    return next((r for r in usual if r[0] <= low and high <= r[1]), (low, max(high, low + 1e-9)))


def npy_bytes(samples: Tensor) -> bytes:
    """Samples as a NumPy file, float32 [n, ...], without pickles."""
    buffer = io.BytesIO()
    np.save(buffer, samples.detach().float().cpu().numpy(), allow_pickle=False)
    return buffer.getvalue()


def write_sheet(stem: Path, samples: Tensor, data: Source) -> Path:
    """A run's own sheet at `stem` with its ending; returns its path."""
    ending, content = sheet(samples, data)
    path = stem.with_name(stem.name + ending)
    write_atomically(path, content)
    return path


def export_players(
    game: SampledGame, players: Players, constants: Constants, folder: Path, *, force: bool = False
) -> list[Path]:
    """Each player's state_dict as `folder`/<player>.safetensors, spectral normalisation folded in.

    RecordError where a file of the user's has such a name, unless `force` gives it up.
    """
    files = {}
    for player, module in game.load(players, constants).items():
        flat = {k: t.detach().cpu().contiguous().clone() for k, t in module.state_dict().items()}
        files[f"{player}.safetensors"] = save(flat)
    with owned(folder) as place:
        place.write(files, force=force)
    return [folder / name for name in files]


def _grid(images: np.ndarray):  # type: ignore[no-untyped-def]
    """Images [n, c, h, w] in [0, 1] as one picture, about 400 pixels wide at least."""
    from PIL import Image

    n, c, h, w = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    # Grey lines between the cells: small black digits would run together without them.
    cells = np.full((rows * columns, h + 1, w + 1, c), 0.3)
    cells[:n, :h, :w] = images.transpose(0, 2, 3, 1)
    sheet = cells.reshape(rows, columns, h + 1, w + 1, c).transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape(rows * (h + 1), columns * (w + 1), c)[:-1, :-1]
    pixels = np.round(255 * sheet).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if c == 1 else pixels[..., :3])
    factor = max(1, round(400 / picture.width))
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )
