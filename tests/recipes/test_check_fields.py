"""Names and types are checked before fairseq2 would bend them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from lexalcm.errors import ConfigError
from lexalcm.recipes.check_fields import check_fields


@dataclass
class Inner:
    rate: float = 1.0
    kind: Literal["soft", "hard"] = "soft"


@dataclass
class Outer:
    count: int = 1
    path: str | None = None
    inner: Inner = field(default_factory=Inner)
    many: list[Inner] = field(default_factory=list)
    pair: tuple[float, float] = (0.0, 1.0)
    anything: object = None


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"count": 3, "path": None, "inner": {"rate": 2, "kind": "hard"}},
        {"many": [{"rate": 0.5}], "pair": [1, 2], "anything": {"x": [1]}},
    ],
)
def test_what_fits_passes(value: dict) -> None:
    check_fields(value, Outer)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"cuont": 3}, r'`cuont`.*"count"'),
        ({"inner": {"raet": 3}}, r'`inner` has no field `raet`.*"rate"'),
        ({"count": 3.9}, r"`count` must be a whole number, but is 3\.9"),
        ({"count": True}, r"`count` must be a whole number, but is True"),
        ({"inner": {"rate": "fast"}}, r"`inner\.rate` must be a number"),
        ({"inner": {"kind": "sofd"}}, r'`inner\.kind` must be one of soft, hard.*"soft"'),
        ({"many": [{"rate": 1}, {"rate": None}]}, r"`many\[1\]\.rate`"),
        ({"pair": [1.0]}, r"`pair` must be a list of 2 values"),
        ({"path": 7}, r"`path` must be a text"),
        ({"inner": 3}, r"`inner` must be a mapping"),
    ],
)
def test_what_does_not_fit_is_named_with_its_path(value: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_fields(value, Outer)
