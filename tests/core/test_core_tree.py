"""Tree functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equilibrist import tree

F64 = torch.float64


def make(seed: int = 0) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=F64)  # noqa: E731
    # Keys out of alphabetical order: the order of insertion counts.
    return {
        "z": {"w": draw(3, 2), "b": draw(3)},
        "a": {"deep": {"s": draw(1).squeeze()}},
        "m": draw(2),
    }


def test_leaves_items_and_count_keep_the_order_of_insertion() -> None:
    t = make()
    expected = [t["z"]["w"], t["z"]["b"], t["a"]["deep"]["s"], t["m"]]
    assert all(x is y for x, y in zip(tree.leaves(t), expected, strict=True))
    assert [path for path, _ in tree.items(t)] == [
        ("z", "w"),
        ("z", "b"),
        ("a", "deep", "s"),
        ("m",),
    ]
    assert tree.count(t) == 6 + 3 + 1 + 2


def test_map_pairs_by_key_not_by_order() -> None:
    t = make()
    other = {"m": t["m"], "a": t["a"], "z": {"b": t["z"]["b"], "w": t["z"]["w"]}}
    zero = tree.map(lambda x, y: x - y, t, other)
    assert tree.norm(zero) == 0
    assert list(zero) == list(t)


def test_flatten_and_unflatten_are_inverse() -> None:
    t = make()
    flat = tree.flatten(t)
    assert torch.equal(flat[:6], t["z"]["w"].reshape(-1))
    assert torch.equal(flat[-2:], t["m"])
    back = tree.unflatten(flat, make(1))
    assert all(torch.equal(x, y) for x, y in zip(tree.leaves(back), tree.leaves(t), strict=True))
    assert tree.leaves(back)[2].shape == ()
    with pytest.raises(RuntimeError):
        tree.unflatten(flat[:-1], t)


def test_arithmetic_is_that_of_the_flat_vectors() -> None:
    x, y = make(1), make(2)
    fx, fy = tree.flatten(x), tree.flatten(y)
    torch.testing.assert_close(tree.dot(x, y), torch.dot(fx, fy), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(tree.norm(x), fx.norm(), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(
        tree.flatten(tree.axpy(-0.5, x, y)), fy - 0.5 * fx, rtol=1e-14, atol=1e-14
    )
    torch.testing.assert_close(tree.flatten(tree.scale(3.0, x)), 3 * fx, rtol=0, atol=0)
    assert torch.equal(tree.flatten(tree.zeros_like(x)), torch.zeros_like(fx))
    assert tree.dot(x, y).shape == tree.norm(x).shape == ()
    assert torch.equal(tree.flatten(x), fx), "an argument was overwritten"
    with pytest.raises(ValueError):
        tree.dot(x, {"z": x["z"]})


def test_clone_shares_nothing_and_detach_shares_memory() -> None:
    t = tree.map(lambda x: 2 * x.requires_grad_(), make())
    copy, view = tree.clone(t), tree.detach(t)
    for original, cloned, viewed in zip(
        tree.leaves(t), tree.leaves(copy), tree.leaves(view), strict=True
    ):
        assert not cloned.requires_grad
        assert not viewed.requires_grad
        assert cloned.data_ptr() != original.data_ptr()
        assert viewed.data_ptr() == original.data_ptr()


def test_to_changes_floating_leaves_only() -> None:
    t = {"x": torch.ones(2), "n": torch.tensor(3)}
    moved = tree.to(t, dtype=F64)
    assert moved["x"].dtype == F64
    assert moved["n"].dtype == torch.int64
    assert tree.to(t)["x"].dtype == torch.float32


def test_stack_and_member_are_inverse() -> None:
    members = [make(s) for s in range(3)]
    stacked = tree.stack(members)
    assert stacked["z"]["w"].shape == (3, 3, 2)
    assert stacked["a"]["deep"]["s"].shape == (3,)
    for i, m in enumerate(members):
        assert torch.equal(tree.flatten(tree.member(stacked, i)), tree.flatten(m))


def test_fill() -> None:
    t = make()
    filled = tree.fill(t, [x + 1 for x in tree.leaves(t)])
    assert torch.equal(tree.flatten(filled), tree.flatten(t) + 1)
