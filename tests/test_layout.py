"""DocumentLayout against the plain way of doing each thing, document by document."""

from __future__ import annotations

import itertools

import pytest
import torch

from lexalcm import layout as module
from lexalcm.layout import DocumentLayout

UNEVEN = [128, 80, 66, 40, 31, 25, 17, 12, 9, 6]


@pytest.mark.parametrize("lengths", [[4, 4, 4], [1], UNEVEN, [3, 0, 5, 2, 1, 12], [0, 0, 2]])
def test_rows_and_unrows_are_inverse(lengths: list[int]) -> None:
    layout = DocumentLayout(lengths)
    x = torch.randn(sum(lengths), 3)
    assert torch.equal(layout.unrows(layout.rows(x)), x)


def test_rows_hold_whole_documents_in_order() -> None:
    layout = DocumentLayout([2, 5, 3])
    x = torch.arange(10)
    documents = {tuple(r.tolist()) for rows in layout.rows(x) for r in rows}
    assert any(d[:5] == (2, 3, 4, 5, 6) for d in documents)
    assert any(d[:3] == (7, 8, 9) for d in documents)
    assert any(d[:2] == (0, 1) for d in documents)


def test_rows_keep_leading_dimensions() -> None:
    layout = DocumentLayout([2, 5, 3])
    x = torch.randn(4, 10, 7)
    rows = layout.rows(x, dim=1)
    assert all(r.shape[0] == 4 and r.shape[-1] == 7 for r in rows)
    assert torch.equal(layout.unrows(rows, dim=1), x)


def test_padding_in_rows_stays_small() -> None:
    layout = DocumentLayout(UNEVEN)
    slots = sum(r.shape[0] * r.shape[1] for r in layout.rows(torch.zeros(sum(UNEVEN), 1)))
    assert slots < 1.5 * sum(UNEVEN)


def cost(buckets: list[tuple[int, int]]) -> int:
    """As the layout counts it: query-key pairs and a constant a bucket."""
    return sum(rows * width * width + module._PAIRS_PER_BUCKET for rows, width in buckets)


@pytest.mark.parametrize("lengths", [UNEVEN, [128] * 7 + [127], [90, 60, 60, 30, 30, 30, 10, 3], [64, 1, 1, 1]])
def test_buckets_are_the_cheapest_way_to_cut_the_lengths(lengths: list[int]) -> None:
    """Against every way to cut the sorted lengths."""
    ordered = sorted(lengths, reverse=True)
    ways = [
        [(end - start, ordered[start]) for start, end in itertools.pairwise([0, *cuts, len(ordered)])]
        for count in range(min(module._MAX_BUCKETS, len(ordered)))
        for cuts in itertools.combinations(range(1, len(ordered)), count)
    ]
    found = [(len(r), r.shape[1]) for r in DocumentLayout(lengths).rows(torch.zeros(sum(lengths), 1))]
    assert cost(found) == min(cost(way) for way in ways)


def test_shift_puts_a_zero_before_each_document_and_drops_its_last() -> None:
    layout = DocumentLayout([2, 3])
    x = torch.arange(1.0, 6.0).unsqueeze(-1)
    assert layout.shift(x).flatten().tolist() == [0, 1, 0, 3, 4]


@pytest.mark.parametrize("lengths", [UNEVEN, [4, 4, 4], [3, 0, 1, 2]])
def test_dropping_the_last_and_delaying_is_shifting(lengths: list[int]) -> None:
    layout = DocumentLayout(lengths)
    x = torch.randn(sum(lengths), 2)
    kept = layout.drop_last(x)
    assert layout.past is not None and layout.past.lengths == tuple(max(n - 1, 0) for n in lengths)
    assert len(kept) == layout.past.num_concepts
    assert torch.equal(layout.delay(kept), layout.shift(x))


@pytest.mark.parametrize("layout", [DocumentLayout([1, 1, 0]), DocumentLayout([3, 2], packed=False)])
def test_a_layout_without_a_past_says_so(layout: DocumentLayout) -> None:
    assert layout.past is None


def test_packed_and_padded_agree_on_positions_and_shift() -> None:
    packed, padded = DocumentLayout([2, 3]), DocumentLayout([2, 3], packed=False)
    x = torch.randn(2, 3, 4)
    real = padded.real
    assert real.tolist() == [[True, True, False], [True, True, True]]
    assert torch.equal(padded.positions[real], packed.positions)
    assert torch.equal(padded.shift(x)[real], packed.shift(x[real]))


def test_counts_tell_concepts_from_slots() -> None:
    assert DocumentLayout([2, 3], packed=False, width=6).num_slots == 12
    assert DocumentLayout([2, 3], packed=False, width=6).num_concepts == 5
    assert DocumentLayout([2, 0, 3]).num_slots == 5


def test_the_context_is_as_long_as_the_document_of_the_average_concept() -> None:
    assert DocumentLayout([1, 3]).context_len == 2  # 1 once, 3 three times: 10 / 4
    assert DocumentLayout([5, 5]).context_len == 5
    assert DocumentLayout([0]).context_len == 1


@pytest.mark.parametrize("lead", [(), (3,)])
def test_gradients_reach_each_concept_from_its_own_slot_alone(lead: tuple[int, ...]) -> None:
    layout, dim = DocumentLayout(UNEVEN), len(lead)
    x = torch.randn(*lead, sum(UNEVEN), 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    weighted = [r * w for r, w in zip(layout.rows(x, dim=dim), layout.rows(weight, dim=dim))]
    (through_rows,) = torch.autograd.grad(sum(r.sum() for r in weighted), x)
    assert torch.equal(through_rows, weight)
    (through_both,) = torch.autograd.grad((layout.unrows([r.square() for r in layout.rows(x, dim=dim)], dim=dim) * weight).sum(), x)
    torch.testing.assert_close(through_both, 2 * weight * x)


def test_padding_slots_get_no_gradient() -> None:
    layout = DocumentLayout([3, 3, 2])
    rows = [r.clone().requires_grad_() for r in layout.rows(torch.randn(8, 1))]
    layout.unrows(rows).sum().backward()
    assert [r.grad.flatten().tolist() for r in rows] == [[1.0] * 8 + [0.0]]


def test_bad_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        DocumentLayout([2, -1])
    with pytest.raises(ValueError, match="longest"):
        DocumentLayout([5], packed=False, width=4)


SOURCED = DocumentLayout([5, 3, 4, 2], source_lengths=[2, 0, 4, 1])


def test_queries_stand_behind_each_documents_source() -> None:
    assert SOURCED.queries is not None
    assert SOURCED.queries.tolist() == [2, 3, 4, 5, 6, 7, 13]
    assert SOURCED.query_positions.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert SOURCED.query_documents().tolist() == [0, 0, 0, 1, 1, 1, 3]
    assert SOURCED.target_lengths == (3, 3, 0, 1) and SOURCED.num_queries == 7 and SOURCED.num_concepts == 14


def test_queries_are_picked_and_put_back_with_their_gradients() -> None:
    x = torch.randn(2, 14, 3, dtype=torch.float64, requires_grad=True)
    picked = SOURCED.at_queries(x, dim=1)
    assert torch.equal(picked, x[:, SOURCED.queries])
    back = SOURCED.from_queries(picked, dim=1)
    elsewhere = torch.ones(14, dtype=torch.bool)
    elsewhere[SOURCED.queries] = False
    assert torch.equal(back[:, SOURCED.queries], picked) and not back[:, elsewhere].any()
    (gradient,) = torch.autograd.grad((back * torch.arange(14.0).double()[:, None]).sum(), x)
    expected = torch.arange(14.0).double().masked_fill(elsewhere, 0.0)
    assert torch.equal(gradient, expected[None, :, None].expand(2, 14, 3))


def test_without_sources_every_position_is_a_query() -> None:
    for layout in (DocumentLayout([3, 2]), DocumentLayout([3, 2], packed=False)):
        x = torch.randn(*layout.positions.shape, 4)
        assert layout.queries is None and layout.query_positions is layout.positions
        assert layout.at_queries(x) is x and layout.from_queries(x) is x
        assert layout.num_queries == layout.num_slots


def test_moving_a_layout_moves_what_tells_the_queries() -> None:
    layout = DocumentLayout([3, 2], source_lengths=[1, 1])
    layout.to(torch.device("meta"))
    assert layout.queries.is_meta and layout.query_positions.is_meta


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source_lengths": [1, 2], "packed": False}, "must be packed"),
        ({"source_lengths": [1]}, "between 0 and the lengths"),
        ({"source_lengths": [4, 0]}, "between 0 and the lengths"),
    ],
)
def test_sources_that_do_not_belong_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DocumentLayout([3, 2], **fields)
