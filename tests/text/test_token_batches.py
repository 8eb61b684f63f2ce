"""Batches are bounded by what goes through the model, padding included, and rows come back in their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lexalcm.text.token_batches import BatchingEncoder, cut_into_batches, run_in_batches

LENGTHS = st.lists(st.integers(0, 50), max_size=60)


@given(LENGTHS, st.integers(1, 200))
def test_each_row_is_in_one_batch_and_no_batch_is_too_wide(lengths: list[int], batch_tokens: int) -> None:
    batches = cut_into_batches(lengths, batch_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= batch_tokens


@given(LENGTHS)
def test_rows_of_like_length_are_together_the_longest_first(lengths: list[int]) -> None:
    ordered = [lengths[row] for batch in cut_into_batches(lengths, 60) for row in batch]
    assert ordered == sorted(lengths, reverse=True)


def test_a_batch_is_filled_before_the_next_is_begun() -> None:
    assert cut_into_batches([3, 4, 4, 2, 9], 8) == [[4], [1, 2], [0, 3]]


@given(LENGTHS.filter(bool), st.integers(1, 200))
def test_results_come_back_in_the_order_given(lengths: list[int], batch_tokens: int) -> None:
    def run(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor([[len(sequence), sum(sequence)] for sequence in sequences], dtype=torch.bfloat16)

    sequences = [[row] * length for row, length in enumerate(lengths)]
    results = run_in_batches(sequences, run, batch_tokens=batch_tokens)
    expected = torch.tensor([[len(s), sum(s)] for s in sequences], dtype=torch.bfloat16).float()
    assert results.dtype == np.float32 and np.array_equal(results, expected.numpy())


@pytest.mark.parametrize(("device", "tokens"), [("cpu", 2048), ("cuda", 16_384)])
def test_batches_are_wider_on_a_gpu(device: str, tokens: int) -> None:
    class Encoder(BatchingEncoder):
        facts = _tokenize = _run = None

    assert Encoder(device=torch.device(device), batch_tokens=None)._batch_tokens == tokens
