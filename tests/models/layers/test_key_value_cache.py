"""Documents that grow in a batch, each at its own length, leave it and enter it."""

from __future__ import annotations

import pytest
import torch

from lexalcm.models.layers.attention import attend
from lexalcm.models.layers.key_value_cache import GrowingRows, KeyValueCache

HEADS, DIM = 2, 3
CPU = torch.device("cpu")


class Row:
    """A document with its keys, for one row."""

    def __init__(self, length: int) -> None:
        self.rows, self.cache = GrowingRows(), KeyValueCache()
        self.keys = torch.randn(1, length, HEADS, DIM)
        self.cache.append(self.keys, self.keys + 1, self.rows.grow(1, length, CPU))


def joined(rows: list[Row]) -> tuple[GrowingRows, KeyValueCache]:
    together, cache = GrowingRows(), KeyValueCache()
    for row in rows:
        together.join(row.rows)
        cache.join(row.cache)
    return together, cache


@pytest.mark.parametrize("lengths", [[5], [4, 4, 4], [1, 70, 3]])
@pytest.mark.parametrize("num_new", [1, 2])
def test_new_positions_attend_to_their_own_document(lengths: list[int], num_new: int) -> None:
    torch.manual_seed(0)
    documents = [Row(length) for length in lengths]
    rows, cache = joined(documents)
    q, new = torch.randn(2, len(lengths), num_new, HEADS, DIM)
    growth = rows.grow(len(lengths), num_new, CPU)
    found = attend(q, *cache.append(new, new + 1, growth), mask=growth.mask)
    assert growth.positions.tolist() == [list(range(n, n + num_new)) for n in lengths]
    for i, document in enumerate(documents):
        keys = torch.cat([document.keys, new[i : i + 1]], dim=1)
        for j in range(num_new):
            seen = keys[:, : lengths[i] + j + 1]
            torch.testing.assert_close(found[i, j], attend(q[i : i + 1, j : j + 1], seen, seen + 1)[0, 0])


def test_a_query_of_the_whole_row_sees_no_key_of_a_longer_one() -> None:
    documents = [Row(2), Row(9)]
    rows, cache = joined(documents)
    q = torch.randn(2, 1, HEADS, DIM)
    found = attend(q, *cache.seen(rows.width), mask=rows.mask(CPU))
    for i, document in enumerate(documents):
        torch.testing.assert_close(found[i], attend(q[i : i + 1], document.keys, document.keys + 1)[0])
    assert joined([Row(3), Row(3)])[0].mask(CPU) is None


def test_documents_leave_in_any_order_and_others_enter() -> None:
    documents = [Row(n) for n in (2, 66, 5)]
    rows, cache = joined(documents)
    rows.select([2, 0])
    cache.select(torch.tensor([2, 0]))
    late = Row(7)
    rows.join(late.rows)
    cache.join(late.cache)
    assert rows.lengths == [5, 2, 7]
    k, v = cache.seen(rows.width)
    for row, document in enumerate((documents[2], documents[0], late)):
        length = rows.lengths[row]
        assert torch.equal(k[row, :length], document.keys[0]) and torch.equal(v[row, :length], document.keys[0] + 1)


def test_room_is_made_before_it_is_needed() -> None:
    row = Row(63)
    kept = row.cache.seen(63)[0].data_ptr()
    row.cache.append(*torch.randn(2, 1, 1, HEADS, DIM), row.rows.grow(1, 1, CPU))
    assert row.cache.seen(64)[0].data_ptr() == kept
    last = torch.randn(1, 1, HEADS, DIM)
    row.cache.append(last, last, row.rows.grow(1, 1, CPU))
    k, _ = row.cache.seen(65)
    assert torch.equal(k[:, :63], row.keys) and torch.equal(k[:, 64:], last)


def test_another_number_of_rows_is_refused() -> None:
    rows, _ = joined([Row(2), Row(2)])
    with pytest.raises(ValueError, match="2 documents, but concepts of 3"):
        rows.grow(3, 1, CPU)


def test_padding_is_taken_back_and_written_over() -> None:
    rows, cache = GrowingRows(), KeyValueCache()
    keys = torch.randn(2, 4, HEADS, DIM)
    cache.append(keys, keys, rows.grow(2, 4, CPU))
    rows.shorten([4, 2], 4)
    new = torch.randn(2, 1, HEADS, DIM)
    growth = rows.grow(2, 1, CPU)
    k, _ = cache.append(new, new, growth)
    assert rows.lengths == [5, 3] and growth.positions.tolist() == [[4], [2]]
    assert torch.equal(k[1, :3], torch.cat([keys[1, :2], new[1]]))
