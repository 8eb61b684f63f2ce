"""Collating documents, without the reader."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lexalcm.data.batch import Affixes, ConceptBatch, Piece, WindowIds, collate, collate_documents, dummy_batch
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
    pieces = [Piece(v, np.asarray([15, 2]), np.asarray([5, 3]), whole, np.asarray([True, False])) for v in values]
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


def test_ids_name_source_file_row_and_window() -> None:
    ids = WindowIds(["a:x.parquet", "b:y.parquet"], np.asarray([1, 0]), np.asarray([7, 0]), np.asarray([0, 3]))
    assert ids.names() == ["b:y.parquet:7:0", "a:x.parquet:0:3"]
    batch = collate_documents(documents())
    batch.ids = ids
    assert "b:y.parquet:7:0" in repr(batch)  # what a trainer logs of a batch that went wrong


@pytest.mark.parametrize("pack", [True, False])
def test_a_suffix_is_a_target_and_a_prefix_is_not(pack: bool) -> None:
    x = np.full((3, 2), 5.0, np.float32)
    piece = Piece(x, np.asarray([0, 2]), np.asarray([2, 1]), np.asarray([True, False]), np.asarray([False, True]))
    mark = np.asarray([-1.0, -1.0], np.float32)
    for affixes, lengths, num_targets in (
        (Affixes(prefix=mark), (3, 1), 3),
        (Affixes(suffix=mark), (2, 2), 4),
        (Affixes(mark, mark), (3, 2), 4),
    ):
        batch = collate([piece], affixes=affixes, pack=pack)
        assert batch.layout.lengths == lengths
        assert batch.num_targets == batch.num_step_targets == int(batch.target_mask.sum()) == num_targets
        real = batch.layout.real
        marks = batch.concepts[real][:, 0] == -1
        assert int(marks.sum()) == sum(lengths) - 3
        assert bool(batch.target_mask[real][0]) is (affixes.prefix is None)


def test_a_batch_shares_no_memory_with_what_it_was_made_of() -> None:
    x = np.ones((4, 3), np.float32)
    batch = collate_documents([x])
    x[:] = 9
    assert (batch.concepts == 1).all()


def test_an_affix_that_float16_cannot_hold_is_an_error() -> None:
    whole = np.ones(1, bool)
    piece = Piece(np.ones((2, 3), np.float16), np.zeros(1, np.int64), np.asarray([2]), whole, whole)
    with pytest.raises(DataError, match="float32"):
        collate([piece], affixes=Affixes(suffix=np.full(3, 1e6, np.float32)), dtype="float16")


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("least", [0, 1, 2, 9])
def test_a_target_has_so_many_concepts_before_it(pack: bool, least: int) -> None:
    batch = collate_documents(documents(), pack=pack, min_context_len=least)
    expected = [position >= least for n in (3, 1, 5) for position in range(n)]
    assert batch.target_mask[batch.layout.real].tolist() == expected
    assert batch.num_targets == batch.num_step_targets == sum(expected)


def test_a_prefix_counts_as_context_and_is_never_a_target() -> None:
    whole = np.ones(2, bool)
    piece = Piece(np.ones((3, 2), np.float32), np.asarray([0, 2]), np.asarray([2, 1]), whole, whole)
    affixes = Affixes(prefix=np.zeros(2, np.float32))
    for least, mask in ((1, [False, True, True, False, True]), (2, [False, False, True, False, False])):
        assert collate([piece], affixes=affixes, min_context_len=least).target_mask.tolist() == mask


def test_a_source_is_context_and_its_target_is_not() -> None:
    batch = collate_documents(documents(), source_lengths=[2, 0, 4])
    assert batch.target_mask.tolist() == [False, False, True, True, *[False] * 4, True]
    assert batch.layout.source_lengths == (2, 0, 4) and batch.num_targets == 3
    assert np.array_equal(batch.concepts.numpy(), np.concatenate(documents()))
    assert collate_documents(documents(), source_lengths=[2, 0, 4], min_context_len=3).num_targets == 2


def test_padded_batches_have_no_sources() -> None:
    with pytest.raises(ValueError, match="must be packed"):
        collate_documents(documents(), source_lengths=[2, 0, 4], pack=False)


def test_pieces_with_sources_are_gathered_in_order_with_their_affixes() -> None:
    values = [np.arange(40, dtype=t).reshape(20, 2) for t in (np.float16, np.float64)]
    whole = np.ones(2, bool)
    sources = np.asarray([3, 0])
    pieces = [Piece(v, np.asarray([15, 2]), np.asarray([5, 3]), whole, whole, sources) for v in values]
    marks = [np.full(2, -value, np.float32) for value in (1, 2, 3)]
    batch = collate(pieces, affixes=Affixes(*marks))
    one = [-1, 30, 32, 34, -2, 36, 38, -3, -1, -2, 4, 6, 8, -3]
    assert batch.concepts[:, 0].tolist() == one * 2
    assert batch.layout.lengths == (8, 6) * 2 and batch.layout.source_lengths == (5, 2) * 2
    assert batch.target_mask.tolist() == ([False] * 5 + [True] * 3 + [False] * 2 + [True] * 4) * 2
