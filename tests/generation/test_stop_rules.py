"""When a document is done, on vectors whose cosines are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lexalcm.errors import ConfigError
from lexalcm.generation.config import GenerationConfig
from lexalcm.generation.stop_rules import SpecialVectors, StopRules

NOTHING = torch.empty(0, 2)


def at(degrees: float) -> Tensor:
    return torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def test_the_end_must_be_near_enough_and_nearer_than_every_other_special_concept() -> None:
    """The start stands 18 degrees, a cosine of 0.95, from the end, as the published ones do."""
    rules = StopRules(GenerationConfig(), SpecialVectors(end=at(0), start=at(18), others=at(-40)[None]))
    fired = {angle: rules.check(at(angle), NOTHING, 1) is not None for angle in (0, 8, 10, 18, -18, -30)}
    assert fired == {0: True, 8: True, 10: False, 18: False, -18: True, -30: False}
    stop = rules.check(at(8), NOTHING, 1)
    assert stop is not None and stop.reason == "end_of_text" and stop.cosine == pytest.approx(0.990, abs=1e-3)


def test_the_end_itself_among_the_others_is_no_rival() -> None:
    rules = StopRules(GenerationConfig(), SpecialVectors(end=at(0), others=torch.stack([at(0), at(90)])))
    assert rules.check(at(5), NOTHING, 1) is not None


def test_a_repetition_is_looked_for_in_the_whole_document_or_in_a_window() -> None:
    document = torch.stack([at(0), at(50), at(100)])
    everywhere = StopRules(GenerationConfig(), SpecialVectors())
    stop = everywhere.check(at(2), document, 1)
    assert stop is not None and stop.reason == "repetition" and "3 before" in stop.detail
    assert everywhere.check(at(25), document, 1) is None
    near = StopRules(GenerationConfig(repetition_window=1), SpecialVectors())
    assert near.check(at(2), document, 1) is None
    stop = near.check(at(101), document, 1)
    assert stop is not None and "the sentence before" in stop.detail


def test_rules_that_are_switched_off_do_not_fire() -> None:
    off = GenerationConfig(end_threshold=None, repetition_threshold=None)
    rules = StopRules(off, SpecialVectors(end=at(0)))
    assert rules.check(at(0), at(0)[None], 1) is None


def test_the_most_sentences_are_the_last_resort() -> None:
    rules = StopRules(GenerationConfig(max_sentences=3, min_sentences=3), SpecialVectors(end=at(0)))
    assert rules.check(at(0), NOTHING, 1) is None
    stop = rules.check(at(0), NOTHING, 2)
    assert stop is not None and stop.reason == "max_sentences"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_sentences": 0}, "max_sentences"),
        ({"min_sentences": -1}, "min_sentences"),
        ({"min_sentences": 11}, "min_sentences"),
        ({"end_threshold": 1.5}, "end_threshold"),
        ({"repetition_threshold": float("nan")}, "repetition_threshold"),
        ({"repetition_window": 0}, "repetition_window"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused_by_field(fields: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=f"`{named}`"):
        GenerationConfig(**fields).check()  # type: ignore[arg-type]
