"""Statistics from cards: of both layouts, and which models they suit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lexalcm.checkpoints.normalizer_file import save_normalizer_file, write_normalizer_card
from lexalcm.errors import CheckpointError, ConfigError
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.normalizer.statistics import NormalizerStatistics
from lexalcm.recipes.normalizer import check_statistics, statistics_of_card

BOUNDS = {"clip_min": -torch.ones(4), "clip_max": torch.ones(4)}


def card(folder: Path, suffix: str, *, with_fft: bool = False, clipping: bool = False) -> str:
    bounds = BOUNDS if clipping else {}
    center, scale = torch.arange(4.0), torch.full((4,), 2.0)
    statistics = NormalizerStatistics(center=center, scale=scale, with_fft=with_fft, **bounds)
    save_normalizer_file(folder / f"n{suffix}", statistics, {})
    config = NormalizerConfig(dim=4, with_fft=with_fft, clip_proba=0.01 if clipping else None)
    return str(write_normalizer_card(folder / f"n{suffix}", config))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_card_gives_all_that_its_file_and_configuration_say(tmp_path: Path, suffix: str) -> None:
    found = statistics_of_card(card(tmp_path, suffix, with_fft=True, clipping=True), 4)
    assert found.with_fft is True
    assert found.center.tolist() == [0, 1, 2, 3] and found.scale.tolist() == [2, 2, 2, 2]
    assert found.clip_min is not None and torch.equal(found.clip_min, BOUNDS["clip_min"])
    assert found.clip_max is not None and torch.equal(found.clip_max, BOUNDS["clip_max"])


@pytest.mark.parametrize("with_fft", [False, True])
@pytest.mark.parametrize("clipping", [False, True])
def test_statistics_must_be_of_the_models_kind_of_normalizer(tmp_path: Path, with_fft: bool, clipping: bool) -> None:
    found = statistics_of_card(card(tmp_path, ".pt", with_fft=with_fft, clipping=clipping), 4)
    for fft in (False, True):
        for clip_proba in (None, 0.01):
            wanted = NormalizerConfig(dim=4, with_fft=fft, clip_proba=clip_proba)
            if (fft, clip_proba is not None) == (with_fft, clipping):
                check_statistics(found, wanted)
            else:
                with pytest.raises(ConfigError, match="The statistics that `normalizer` names"):
                    check_statistics(found, wanted)


def test_statistics_of_a_file_that_does_not_tell_suit_models_that_transform_and_others() -> None:
    untold = NormalizerStatistics(center=torch.zeros(4), scale=torch.ones(4), with_fft=None)
    for with_fft in (False, True):
        check_statistics(untold, NormalizerConfig(dim=4, with_fft=with_fft))


def test_a_card_of_another_dimension_or_without_usable_statistics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"of 4 dimensions.*`concept_dim` is 8"):
        statistics_of_card(card(tmp_path, ".pt"), 8)
    name = card(tmp_path, ".pt")
    torch.save({"model": {"center": torch.zeros(4), "scale": torch.zeros(4)}}, tmp_path / "n.pt")
    with pytest.raises(CheckpointError, match="`scale` must be positive"):
        statistics_of_card(name, 4)
