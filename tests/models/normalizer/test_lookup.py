"""A model's normalizer is found by the name in its configuration."""

from __future__ import annotations

import pytest
from fairseq2.runtime.dependency import get_dependency_resolver

from lexalcm.errors import CardError
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.normalizer.lookup import PLACEHOLDER, with_normalizer_of_card
from lexalcm.models.two_tower.config import TwoTowerConfig


def complete(**fields: object) -> NormalizerConfig | None:
    config = TwoTowerConfig(**fields)  # type: ignore[arg-type]
    return with_normalizer_of_card(get_dependency_resolver(), config).normalizer


def test_what_metas_architectures_name_is_a_plain_one_of_the_models_dimensions() -> None:
    assert complete(sonar_normalizer_name=PLACEHOLDER, sonar_embed_dim=12) == NormalizerConfig(dim=12)


def test_no_name_and_a_configuration_of_its_own_are_left_alone() -> None:
    assert complete() is None
    own = NormalizerConfig(dim=12, with_fft=True)
    assert complete(sonar_normalizer_name="nobodys", normalizer=own) is own


def test_another_kind_of_card_and_none_are_told_apart() -> None:
    with pytest.raises(CardError, match="names the card pre1_tiny, which is not a normalizer's"):
        complete(sonar_normalizer_name="pre1_tiny")
    with pytest.raises(CardError, match='"nobodys" is not a known normalizer'):
        complete(sonar_normalizer_name="nobodys")
