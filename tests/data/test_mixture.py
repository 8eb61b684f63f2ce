"""Weighted sources: drawn by weight, none repeated before it is through, the same on every run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.filters import FilterConfig
from lexalcm.data.sources import ConceptParquetConfig, SourceConfig
from lexalcm.errors import DataError
from tests.data.readers import epoch, names, on_ranks, reading, write


def mixture(folder: Path, **sources: tuple[int, float | None]) -> ConceptParquetDataset:
    configs = []
    for name, (count, weight) in sources.items():
        write(folder / name, [4] * count)
        configs.append(SourceConfig(path=str(folder / name), weight=weight))
    return ConceptParquetDataset(ConceptParquetConfig(sources=configs))


def of(source: str, found: list[str]) -> list[str]:
    return [name for name in found if name.startswith(f"{source}:")]


def test_sources_without_weights_are_joined(tmp_path: Path) -> None:
    reader = mixture(tmp_path, a=(7, None), b=(13, None)).create_reader(None, reading())
    for _ in range(2):
        found = [name for step in epoch(reader) for name in names(step)]
        assert len(of("a", found)) == len(set(of("a", found))) == 7
        assert len(of("b", found)) == len(set(of("b", found))) == 13


def test_a_source_that_carries_over_begins_again_only_when_it_is_through(tmp_path: Path) -> None:
    reader = mixture(tmp_path, few=(5, 1.0), many=(40, 1.0)).create_reader(None, reading())
    many: list[str] = []
    for _ in range(20):
        found = [name for step in epoch(reader) for name in names(step)]
        assert len(of("few", found)) == len(set(of("few", found))) <= 5
        many += of("many", found)
    assert len(many) > 80
    for start in range(0, len(many) - 40, 40):
        assert len(set(many[start : start + 40])) == 40


def test_an_epoch_ends_once_a_source_is_exhausted(tmp_path: Path) -> None:
    reader = mixture(tmp_path, few=(5, 1.0), many=(40, 1.0)).create_reader(None, reading())
    found = [name for step in epoch(reader) for name in names(step)]
    assert len(of("few", found)) == 5 and 0 < len(of("many", found)) < 40


def test_shares_are_the_weights(tmp_path: Path) -> None:
    reader = mixture(tmp_path, a=(400, 3.0), b=(400, 1.0)).create_reader(None, reading())
    found = [name for step in epoch(reader) for name in names(step)]
    assert len(of("a", found)) == 400
    assert 0.7 < len(of("a", found)) / len(found) < 0.8  # four standard deviations about 3/4


def test_batches_of_a_mixture_are_bounded_and_full(tmp_path: Path) -> None:
    dataset = mixture(tmp_path, a=(30, 2.0), b=(30, 1.0))
    sizes = [b.layout.num_concepts for (b,) in epoch(dataset.create_reader(None, reading()))]
    assert set(sizes[:-1]) == {24} and sizes[-1] <= 24
    by_count = reading(concepts_per_batch=None, documents_per_batch=5)
    counts = [b.layout.num_documents for (b,) in epoch(dataset.create_reader(None, by_count))]
    assert set(counts[:-1]) == {5}


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_end_an_epoch_of_a_mixture_together_and_share_no_document(world_size: int, tmp_path: Path) -> None:
    dataset = mixture(tmp_path, few=(12, 2.0), many=(60, 1.0))

    def run(rank: int, any_rank: object) -> list[list[str]]:
        reader = dataset.create_reader(None, reading(), rank=rank, world_size=world_size, any_rank=any_rank)
        return [[name for step in epoch(reader) for name in [*names(step), "step"]] for _ in range(2)]

    found = on_ranks(world_size, run)
    for number in range(2):
        assert len({by_rank[number].count("step") for by_rank in found}) == 1
    first = [name for by_rank in found for name in by_rank[0] if name != "step"]
    assert len(set(first)) == len(first)
    assert len(of("few", first)) == 12


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_source_whose_rows_are_all_filtered_out_is_named(world_size: int, tmp_path: Path) -> None:
    write(tmp_path / "good", [4] * 30)
    write(tmp_path / "none", [4] * 30)
    nothing = [FilterConfig(column="text_sentences", operator="is null")]
    dataset = ConceptParquetDataset(
        ConceptParquetConfig(
            sources=[
                SourceConfig(path=str(tmp_path / "good"), weight=1.0),
                SourceConfig(path=str(tmp_path / "none"), weight=0.1, filters=nothing),
            ]
        )
    )
    reader = dataset.create_reader(
        None, reading(), rank=0, world_size=world_size, any_rank=(lambda flag: flag) if world_size > 1 else None
    )
    with pytest.raises(DataError, match="Source none has a weight, but no document"):
        epoch(reader)


def test_a_weighted_source_without_files_of_the_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "split=train", [4] * 30)
    write(tmp_path / "b" / "split=validation", [4] * 30)
    sources = [SourceConfig(path=str(tmp_path / name), weight=1.0) for name in ("a", "b")]
    dataset = ConceptParquetDataset(ConceptParquetConfig(sources=sources))
    with pytest.raises(DataError, match="has a weight, but no file of the split `train`"):
        dataset.create_reader("train", reading())


def test_a_run_resumed_at_the_end_of_a_source_does_not_call_it_empty(tmp_path: Path) -> None:
    dataset = mixture(tmp_path, few=(3, 1.0), many=(40, 1.0))
    reader = dataset.create_reader(None, reading(concepts_per_batch=16))
    for _ in reader:
        state = reader.state_dict()
    resumed = dataset.create_reader(None, reading(concepts_per_batch=16))
    resumed.load_state_dict(state)
    assert list(resumed) == []
    resumed.reset()
    assert epoch(resumed)
