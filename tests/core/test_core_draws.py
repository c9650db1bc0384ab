"""Addressed random numbers: the generator by hand, independence of addresses, sameness of what must be same."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from equilibrist import tree
from equilibrist.core.draws import (
    LIMITS,
    Batches,
    Draws,
    StackedDraws,
    Stream,
    Use,
    generator,
    normal,
    uniform,
)

F64, M32, M64 = torch.float64, 2**32 - 1, 2**64 - 1
ADDRESSED = [stream for stream in Stream if stream is not Stream.AUDIT]


def words(n: int) -> list[int]:
    found = [n & M32]
    while n := n >> 32:
        found.append(n & M32)
    return found


def hashed(seed: int, key: tuple[int, ...]) -> list[int]:
    """NumPy's SeedSequence (O'Neill's seed_seq), written out: three words of 64 bits."""
    entropy = words(seed)
    entropy += [0] * (4 - len(entropy)) + [w for k in key for w in words(k)]
    constant = 0x43B0D7E5

    def scramble(value: int) -> int:
        nonlocal constant
        value ^= constant
        constant = constant * 0x931E8875 & M32
        value = value * constant & M32
        return value ^ value >> 16

    def mix(x: int, y: int) -> int:
        r = (0xCA01F9DD * x - 0x4973F715 * y) & M32
        return r ^ r >> 16

    pool = [scramble(w) for w in entropy[:4]]
    for source, target in itertools.permutations(range(4), 2):
        pool[target] = mix(pool[target], scramble(pool[source]))
    for word in entropy[4:]:
        for target in range(4):
            pool[target] = mix(pool[target], scramble(word))
    constant, out = 0x8B51F9DD, []
    for i in range(6):
        value = pool[i % 4] ^ constant
        constant = constant * 0x58F38DED & M32
        value = value * constant & M32
        out.append(value ^ value >> 16)
    return [out[i] | out[i + 1] << 32 for i in (0, 2, 4)]


def sfc64(seed: list[int], n: int) -> list[int]:
    """Doty-Humphrey's small fast counting generator: the first n words after twelve warming ones."""
    a, b, c = seed
    out = []
    for counter in range(1, n + 13):
        out.append((a + b + counter) & M64)
        a, b = b ^ b >> 11, (c + (c << 3)) & M64
        c = ((c << 24 | c >> 40) + out[-1]) & M64
    return out[12:]


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 3])
@pytest.mark.parametrize("stream", ADDRESSED)
def test_a_run_can_be_repeated_for_good(seed: int, stream: Stream) -> None:
    """The words at an address, by algorithms that are written here: no version of anything changes them."""
    raw = generator(seed, stream, step=5, rank=2, index=9).bit_generator.random_raw(8)
    assert [int(x) for x in raw] == sfc64(hashed(seed, (int(stream), 5, 2, 9)), 8)


def first(**address: Any) -> tuple[float, ...]:
    rng = generator(**{"seed": 0, "stream": Stream.DATA, **address})
    return tuple(rng.random(4).tolist())


def test_an_address_gives_the_same_numbers_twice_in_any_order() -> None:
    addresses = [{"step": k, "index": i} for k in range(3) for i in range(3)]
    forward = [first(**a) for a in addresses]
    assert [first(**a) for a in reversed(addresses)] == forward[::-1]


def test_addresses_differ() -> None:
    values = [
        first(seed=seed, stream=stream, step=step, rank=rank, index=index)
        for seed, stream, step, rank, index in itertools.product(
            range(3), ADDRESSED, range(3), range(3), range(3)
        )
    ]
    assert len({v[0] for v in values}) == len(values) == 3 * 5 * 27
    assert len({x for v in values for x in v}) == 4 * len(values)


@pytest.mark.parametrize("axis", ["seed", "step", "index", "rank"])
def test_neighbouring_addresses_are_independent(axis: str) -> None:
    n = 4096
    table = np.array(
        [generator(**{"seed": 3, "stream": Stream.NOISE, axis: k}).random(4) for k in range(n + 1)]
    )
    for column in table.T:
        counts = np.histogram(column, bins=16, range=(0, 1))[0]
        assert (
            (counts - (n + 1) / 16) ** 2 / ((n + 1) / 16)
        ).sum() < 50  # 15 degrees: p about 1e-5
    centred = (table - 0.5) * np.sqrt(12)
    for i, j in itertools.product(range(4), range(4)):
        assert abs((centred[1:, i] * centred[:-1, j]).mean()) < 4.5 / np.sqrt(n)
        if i != j:
            assert abs((centred[:, i] * centred[:, j]).mean()) < 4.5 / np.sqrt(n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_and_uniform_have_their_laws(dtype: torch.dtype) -> None:
    z = normal(generator(1, Stream.SAMPLE), (40_000,), dtype, None)
    u = uniform(generator(1, Stream.SAMPLE), (200, 200), dtype, None)
    assert z.dtype == u.dtype == dtype
    assert u.shape == (200, 200)
    assert abs(float(z.mean())) < 0.02
    assert abs(float(z.std()) - 1) < 0.02
    assert abs(float((z**4).mean()) - 3) < 0.15
    assert 0 <= float(u.min()) <= float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 0.01
    assert abs(float(u.var()) - 1 / 12) < 0.002


def make(rng: np.random.Generator) -> dict[str, torch.Tensor]:
    return {"real": normal(rng, (5, 2), F64, None), "mix": uniform(rng, (5,), F64, None)}


LIKE = {"critic": {"w": torch.zeros(3, 2, dtype=F64), "b": torch.zeros(3)}}


def test_batches_differ_by_rank_index_step_and_seed_and_stay_put() -> None:
    base = Draws(make, 4, 10)
    kept = base.batch(2)
    others = [
        Draws(make, 4, 10).batch(1),
        Draws(make, 4, 11).batch(2),
        Draws(make, 5, 10).batch(2),
        Draws(make, 4, 10, rank=1).batch(2),
        Draws(make, 4, 10, stream=Stream.STUDY).batch(2),
    ]
    assert all(
        torch.equal(a, b) for a, b in zip(base.batch(2).values(), kept.values(), strict=True)
    )
    assert all(not torch.equal(kept["real"], other["real"]) for other in others)
    assert all(not torch.equal(kept["mix"], other["mix"]) for other in others)


def test_noise_is_the_same_on_all_ranks_and_shaped_like_its_tree() -> None:
    noise = Draws(make, 4, 10, rank=0).noise(LIKE, 3)
    other = Draws(make, 4, 10, rank=7).noise(LIKE, 3)
    assert torch.equal(noise["critic"]["w"], other["critic"]["w"])
    assert noise["critic"]["b"].dtype == torch.float32
    assert noise["critic"]["w"].shape == (3, 2)
    for different in (
        Draws(make, 4, 10).noise(LIKE, 2),
        Draws(make, 4, 11).noise(LIKE, 3),
        Draws(make, 5, 10).noise(LIKE, 3),
    ):
        assert not torch.equal(noise["critic"]["w"], different["critic"]["w"])


def test_noise_is_not_the_data() -> None:
    like = {"real": torch.zeros(5, 2, dtype=F64)}
    draws = Draws(make, 4, 10)
    assert not torch.equal(draws.noise(like)["real"], draws.batch()["real"])


def test_noise_of_an_audit_is_not_that_of_training() -> None:
    training, audit = Draws(make, 4, 10), Draws(make, 4, 10, stream=Stream.STUDY)
    assert not torch.equal(training.noise(LIKE)["critic"]["w"], audit.noise(LIKE)["critic"]["w"])


def test_stacked_draws_equal_their_members() -> None:
    members = [Draws(make, seed, 6) for seed in (0, 1, 5)]
    stacked = StackedDraws(members)
    like = tree.stack([LIKE] * 3)
    batch, noise = stacked.batch(1), stacked.noise(like, 2)
    for i, member in enumerate(members):
        for key, entry in member.batch(1).items():
            assert torch.equal(batch[key][i], entry)
        alone = member.noise(LIKE, 2)
        assert torch.equal(noise["critic"]["w"][i], alone["critic"]["w"])
        assert torch.equal(noise["critic"]["b"][i], alone["critic"]["b"])
    assert not torch.equal(batch["real"][0], batch["real"][1])


def _small(rng: np.random.Generator, n: int) -> dict[str, torch.Tensor]:
    return {"x": normal(rng, (n, 2), F64, None), "u": uniform(rng, (n,), F64, None)}


def test_small_batches_are_rows_of_one_block() -> None:
    batches = Batches(_small, 5, 3, rank=1)
    assert batches.steps == 16
    whole = _small(generator(3, Stream.DATA, 32, 1, 2), 16 * 5)
    for step in (32, 40, 47):
        got = batches.at(step).batch(2)
        row = 5 * (step - 32)
        assert torch.equal(got["x"], whole["x"][row : row + 5])
        assert torch.equal(got["u"], whole["u"][row : row + 5])


def test_a_step_gets_the_same_numbers_in_any_order() -> None:
    forwards, backwards = Batches(_small, 5, 3), Batches(_small, 5, 3)
    first = {(s, i): forwards.at(s).batch(i)["x"] for s in range(40) for i in range(2)}
    for (step, index), x in reversed(first.items()):
        assert torch.equal(backwards.at(step).batch(index)["x"], x)
    flat = torch.cat([x.flatten() for x in first.values()])
    assert len(flat.unique()) == len(flat), "two addresses share a number"


def test_what_a_reader_adds_to_a_draw_stays_its_own() -> None:
    batches = Batches(_small, 5, 3)
    batches.at(7).batch()["extra"] = torch.zeros(1)
    assert set(batches.at(7).batch()) == {"x", "u"}


def test_large_batches_are_drawn_one_by_one() -> None:
    n = Batches.SMALL // 24
    large = Batches(_small, n + 1, 3)
    assert (large.steps, Batches(_small, n, 3).steps) == (1, 16)
    expected = Draws(lambda rng: _small(rng, n + 1), 3, 9).batch(1)
    assert torch.equal(large.at(9).batch(1)["x"], expected["x"])


def test_a_draw_that_is_no_row_per_sample_is_never_cut() -> None:
    batches = Batches(lambda rng, n: {"t": uniform(rng, (), F64, None)}, 4, 0)
    assert batches.steps == 1
    assert batches.at(0).batch()["t"] != batches.at(1).batch()["t"]


def test_noise_of_a_row_is_that_of_its_step() -> None:
    like = {"w": torch.zeros(3, dtype=F64)}
    batches = Batches(_small, 5, 3)
    expected = Draws(lambda rng: _small(rng, 5), 3, 21).noise(like)
    assert torch.equal(batches.at(21).noise(like)["w"], expected["w"])


def apart(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether no two addresses of these patterns are the same words: some word always differs."""
    if len(one) != len(other):
        return True

    def values(word: Any) -> range:
        return range(LIMITS.get(word, 2**32)) if isinstance(word, str) else range(word, word + 1)

    spans = [(values(a), values(b)) for a, b in zip(one, other, strict=True)]
    return any(a.stop <= b.start or b.stop <= a.start for a, b in spans)


TAKEN = {stream.name: (stream, "step", "rank", "index") for stream in (Stream.DATA, Stream.NOISE)}


@pytest.mark.parametrize("use", Use)
def test_no_two_uses_can_meet(use: Use) -> None:
    others = {**TAKEN, **{u.name: u.value for u in Use if u is not use}}
    assert [name for name, other in others.items() if not apart(use.value, other)] == []


def test_every_word_of_an_address_reaches_the_generator() -> None:
    """32 bits a word: NumPy would spread a longer one over its neighbour's place."""
    seen = {}
    for use in Use:
        for where in itertools.product((0, 1, 2**16 - 1), repeat=len(use.fields)):
            address = use.at(**dict(zip(use.fields, where, strict=True)))
            assert all(0 <= word < 2**32 for word in address.words)
            raw = tuple(int(x) for x in address.generator(3).bit_generator.random_raw(2))
            assert raw == tuple(sfc64(hashed(3, address.words), 2))
            assert seen.setdefault(raw, address) == address


@pytest.mark.parametrize(
    "where", [{}, {"part": 0}, {"part": 0, "batch": -1}, {"part": 2**32, "batch": 0}]
)
def test_an_address_that_could_be_another_s_is_refused(where: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="LINEAR"):
        Use.LINEAR.at(**where)


def test_audits_draw_by_name_only() -> None:
    with pytest.raises(ValueError, match="Use"):
        generator(0, Stream.AUDIT)


@pytest.mark.parametrize(
    ("use", "where", "address"),
    [
        (Use.WEIGHTS, {"player": 1}, (2, 0, 0, 1)),
        (Use.PARTICLES, {}, (2, 0, 0, 65536)),
        (Use.SHEET, {"sheet": 3}, (3, 0, 0, 3)),
        (Use.SHEET_OF_REAL, {}, (3, 1, 0, 0)),
        (Use.SCORE, {"place": 2}, (3, 2, 0, 2)),
        (Use.SCORE_CONDITION, {"place": 2}, (3, 3, 0, 2)),
    ],
)
def test_runs_made_before_uses_had_names_go_on_with_the_same_numbers(
    use: Use, where: dict[str, int], address: tuple[int, ...]
) -> None:
    assert use.at(**where).words == address
