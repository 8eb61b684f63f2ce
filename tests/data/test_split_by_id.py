"""A document's split depends on its id alone."""

from __future__ import annotations

from collections import Counter

import pytest

from lexalcm.data.split_by_id import shares_of_splits, split_of
from lexalcm.errors import ConfigError

SHARES = shares_of_splits(validation=0.1, test=0.2)


def test_shares_are_met() -> None:
    counts = Counter(split_of(f"doc-{i}", SHARES) for i in range(20_000))
    assert {split: round(count / 20_000, 2) for split, count in counts.items()} == {
        "train": 0.7,
        "validation": 0.1,
        "test": 0.2,
    }


def test_the_draw_is_the_same_in_every_process_and_another_with_another_seed() -> None:
    assert [split_of(f"doc-{i}", SHARES) for i in range(12)] == [
        *["train"] * 9, "validation", "train", "validation",
    ]  # fmt: skip
    assert sum(split_of(f"doc-{i}", SHARES) != split_of(f"doc-{i}", SHARES, seed=1) for i in range(1000)) > 300


def test_a_split_without_a_share_gets_nothing() -> None:
    assert shares_of_splits(validation=0.0) == {"train": 1.0}
    assert {split_of(str(i), {"train": 1.0}) for i in range(100)} == {"train"}


@pytest.mark.parametrize(
    "validation, test, message",
    [(-0.1, 0.0, "validation must be at least 0"), (0.0, 1.0, "test must be .* below 1"), (0.6, 0.4, "leave nothing")],
)
def test_shares_that_leave_nothing_are_refused(validation: float, test: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shares_of_splits(validation=validation, test=test)


def test_shares_must_be_whole() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        split_of("x", {"train": 0.5})
