"""When two answers of a network to one input count as one."""

from __future__ import annotations

import torch

from equilibrist.nn.pure import _same_answer


def test_rounding_is_no_second_answer_and_noise_is() -> None:
    x = torch.randn(40, 3)
    assert _same_answer(x, x.clone())
    assert _same_answer(x, x * (1 + 4 * torch.finfo(x.dtype).eps))
    assert not _same_answer(x, x + 1e-3 * torch.randn(40, 3))
    assert not _same_answer(x.double(), x.double() * (1 + 1e-9))
    assert not _same_answer(x, x.double())
    assert not _same_answer(x, x[:20])
    assert _same_answer(torch.tensor([1, 2]), torch.tensor([1, 2]))
    assert not _same_answer(torch.tensor([1, 2]), torch.tensor([1, 3]))
    gone = torch.tensor([1.0, torch.nan])
    assert not _same_answer(gone, gone.clone())
