"""Collating documents, without the reader."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lexalcm.data.batch import Affixes, ConceptBatch, Piece, collate, collate_documents, dummy_batch
from lexalcm.errors import DataError


def documents(dtype: type = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 3)).astype(dtype) for n in (3, 1, 5)]


@pytest.mark.parametrize("stored", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_packed_documents_stand_one_after_the_other(stored: type, dtype: str) -> None:
    batch = collate_documents(documents(stored), dtype=dtype)
    assert batch.concepts.dtype == getattr(torch, dtype)
    expected = np.concatenate(documents(stored)).astype(dtype)
    assert np.array_equal(batch.concepts.numpy(), expected)
    assert batch.layout.lengths == (3, 1, 5) and batch.num_targets == 9 and batch.target_mask.all()


def test_padded_documents_have_zeros_behind_them_that_are_no_targets() -> None:
    batch = collate_documents(documents(), pack=False)
    assert batch.concepts.shape == (3, 5, 3)
    for row, document in zip(range(3), documents()):
        length = len(document)
        assert np.array_equal(batch.concepts[row, :length].numpy(), document)
        assert not batch.concepts[row, length:].any() and not batch.target_mask[row, length:].any()
    assert batch.num_targets == int(batch.target_mask.sum()) == 9


def test_pieces_of_several_types_are_gathered_in_order() -> None:
    values = [np.arange(40, dtype=t).reshape(20, 2) for t in (np.float16, np.float64, np.float32)]
    whole = np.ones(2, bool)
    pieces = [
        Piece(v, np.asarray([15, 2]), np.asarray([5, 3]), whole, np.asarray([True, False])) for v in values
    ]
    affixes = Affixes(np.asarray([-1.0, -1.0], np.float32), np.asarray([-2.0, -2.0], np.float32))
    batch = collate(pieces, affixes=affixes)
    one = [-1.0, 30.0, 32.0, 34.0, 36.0, 38.0, -2.0, -1.0, 4.0, 6.0, 8.0]
    assert batch.concepts[:, 0].tolist() == one * 3
    assert batch.layout.lengths == (7, 4) * 3
    assert batch.target_mask.tolist() == ([False, *[True] * 6, False, *[True] * 3]) * 3


def test_wide_vectors_and_long_documents_are_gathered_whole() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 70)).astype(np.float16)
    assert np.array_equal(collate_documents([x, x[:7]]).concepts.numpy(), np.concatenate([x, x[:7]]).astype(np.float32))


def test_what_float16_cannot_hold_is_an_error() -> None:
    with pytest.raises(DataError, match="float32"):
        collate_documents([np.full((2, 3), 1e6, np.float32)], dtype="float16")


def test_a_dummy_batch_has_a_concept_and_no_target() -> None:
    for pack in (True, False):
        batch = dummy_batch(4, pack=pack, dtype="float16")
        assert batch.layout.num_concepts == 1 and batch.num_targets == 0 and not batch.target_mask.any()
        assert batch.concepts.isfinite().all() and batch.concepts.any()


def test_to_moves_in_place() -> None:
    batch: ConceptBatch = collate_documents(documents())
    assert batch.to(torch.device("meta")) is None
    devices = {t.device.type for t in (batch.concepts, batch.target_mask, batch.layout.positions)}
    assert devices == {"meta"}
