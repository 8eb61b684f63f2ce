"""Documents with a source and a target: the target alone is predicted, and everything else holds as without one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.filters import FilterConfig
from lexalcm.data.reader import ConceptReader
from lexalcm.data.sources import ConceptParquetConfig, ReadingConfig, SourceConfig
from lexalcm.errors import ConfigError, DataError
from tests.data import readers
from tests.data.pairs import COLUMNS, LENGTHS, documents_of, nested, open_pairs, vectors, weighted_pairs, write_pairs
from tests.data.readers import names, on_ranks, record, saved, walk

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "supervised_sample"


def reading(**fields: Any) -> ReadingConfig:
    # So that documents of several row groups are in memory together.
    return readers.reading(**{"shuffle_window": 2_000, **fields})


def expected(lengths: list[tuple[int, int]] = LENGTHS) -> list[Any]:
    return [
        tuple([(i + 1, j + 1, side) for j in range(n)] for side, n in enumerate(pair, start=1))
        for i, pair in enumerate(lengths)
    ]


def read(reader: ConceptReader) -> list[Any]:
    return sorted((d for batches in reader for batch in batches for d in documents_of(batch)), key=lambda d: d[1][0])


@pytest.mark.parametrize("types", [(pa.float32(), pa.float32()), (pa.float16(), pa.float64())])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_epoch_has_every_pair_once_with_its_target_alone_to_predict(
    tmp_path: Path, types: tuple[pa.DataType, pa.DataType], dtype: str
) -> None:
    reader = open_pairs(write_pairs(tmp_path, types=types)).create_reader(None, reading(dtype=dtype))
    assert read(reader) == expected()


def test_a_document_tells_where_its_target_begins(tmp_path: Path) -> None:
    dataset = open_pairs(write_pairs(tmp_path))
    assert dataset.is_supervised
    for number, document in enumerate(dataset.documents()):
        source, target = LENGTHS[number]
        both = np.concatenate([vectors(number, source, 1), vectors(number, target, 2)])
        assert np.array_equal(document.concepts, both) and document.num_source == source
        prompt, answer = ([f"{side}{number}.{j}" for j in range(n)] for side, n in (("p", source), ("a", target)))
        assert document.sentences == prompt + answer


def test_a_document_without_targets_has_no_source(tmp_path: Path) -> None:
    dataset = open_pairs(write_pairs(tmp_path), target_column=None, target_text_column=None)
    assert not dataset.is_supervised and {d.num_source for d in dataset.documents()} == {0}


def test_text_is_handed_out_where_both_sides_are_read(tmp_path: Path) -> None:
    dataset = open_pairs(write_pairs(tmp_path), target_text_column=None)
    assert {d.sentences for d in dataset.documents()} == {None}


def test_affixes_of_the_source_are_context_and_the_suffix_of_the_target_is_a_target(tmp_path: Path) -> None:
    marks = {"start": -1.0, "model": -2.0, "end": -3.0}
    save_file({name: torch.full((4,), value) for name, value in marks.items()}, tmp_path / "special.safetensors")
    dataset = open_pairs(write_pairs(tmp_path / "d"))
    start, model, end = ((int(value),) * 3 for value in marks.values())
    for prefix in (None, "start"):
        for suffix in (None, "model"):
            for target_suffix in (None, "end"):
                affixes = {"prefix": prefix, "suffix": suffix, "target_suffix": target_suffix}
                fields = reading(special_concepts=str(tmp_path / "special.safetensors"), **affixes)
                assert read(dataset.create_reader(None, fields)) == [
                    ([start] * bool(prefix) + source + [model] * bool(suffix), target + [end] * bool(target_suffix))
                    for source, target in expected()
                ]


def test_source_lengths_count_the_affixes(tmp_path: Path) -> None:
    save_file({"model": torch.ones(4)}, tmp_path / "special.safetensors")
    dataset = open_pairs(write_pairs(tmp_path / "d", [(2, 3)]))
    fields = reading(special_concepts=str(tmp_path / "special.safetensors"), suffix="model", target_suffix="model")
    ((batch,),) = dataset.create_reader(None, fields)
    assert batch.layout.lengths == (7,) and batch.layout.source_lengths == (3,)
    assert batch.num_targets == batch.num_step_targets == 4


def test_pairs_are_never_cut_and_those_too_long_are_left_out_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = open_pairs(write_pairs(tmp_path))
    reader = dataset.create_reader(None, reading(max_seq_len=6))
    with caplog.at_level(logging.INFO, logger="fairseq2"):
        found = read(reader)
    too_long = [pair for pair in LENGTHS if sum(pair) > 6]
    assert 0 < len(too_long) and found == [d for d in expected() if len(d[0]) + len(d[1]) <= 6]
    assert reader.left_out == {"longer than max_seq_len": len(too_long)}
    assert "longer than max_seq_len" in caplog.text


def test_an_empty_target_is_left_out_and_an_empty_source_is_not(tmp_path: Path) -> None:
    lengths = [(2, 0), (0, 2), (0, 0), (1, 1)]
    reader = open_pairs(write_pairs(tmp_path, lengths)).create_reader(None, reading())
    assert read(reader) == [expected(lengths)[1], expected(lengths)[3]]
    assert reader.left_out == {"without a target": 1, "empty": 1}


def test_limits_and_bounds_count_source_and_target_together(tmp_path: Path) -> None:
    dataset = open_pairs(write_pairs(tmp_path))
    reader = dataset.create_reader(None, reading(min_document_len=3, max_document_len=7))
    assert read(reader) == [d for d in expected() if 3 <= len(d[0]) + len(d[1]) <= 7]
    assert reader.left_out == {"shorter than min_document_len": 1, "longer than max_document_len": 2}
    for batches in dataset.create_reader(None, reading(max_seq_len=10, concepts_per_batch=10)):
        assert sum(batch.layout.num_concepts for batch in batches) <= 10


@pytest.mark.parametrize(("least", "targets"), [(0, 3), (1, 2), (5, 2)])
def test_what_stands_first_can_be_kept_from_being_a_target(tmp_path: Path, least: int, targets: int) -> None:
    dataset = open_pairs(write_pairs(tmp_path, [(0, 3)]))
    ((batch,),) = dataset.create_reader(None, reading(min_context_len=least))
    assert batch.num_targets == int(batch.target_mask.sum()) == targets


def test_held_out_rows_never_come(tmp_path: Path) -> None:
    reader = open_pairs(write_pairs(tmp_path)).create_reader(None, reading(hold_out_every=3))
    assert read(reader) == [d for i, d in enumerate(expected()) if i % 3]


def test_a_filter_on_the_targets_length_leaves_pairs_whole(tmp_path: Path) -> None:
    few = [FilterConfig(column="answer", function="length", operator="<=", value=2)]
    dataset = open_pairs(write_pairs(tmp_path), filters=few)
    assert read(dataset.create_reader(None, reading())) == [d for d in expected() if len(d[1]) <= 2]


def pairs_in_two_files(folder: Path) -> ConceptParquetDataset:
    write_pairs(folder / "d", LENGTHS[:5], name="a.parquet")
    write_pairs(folder / "d", LENGTHS[5:] * 2, first=5, name="b.parquet")
    return open_pairs(folder / "d")


@pytest.mark.parametrize("make", [pairs_in_two_files, weighted_pairs])
@pytest.mark.parametrize(("shuffle", "window"), [(True, 20), (True, 2_000), (False, 2_000)])
def test_every_state_goes_on_with_the_same_steps(
    make: Callable[[Path], ConceptParquetDataset], shuffle: bool, window: int, tmp_path: Path
) -> None:
    dataset = make(tmp_path)
    fields = reading(max_seq_len=8, concepts_per_batch=9, shuffle_window=window, shuffle=shuffle)
    first = dataset.create_reader(None, fields)
    steps, states = record(first, 40)
    first.close()
    assert steps.count("end of epoch") >= 2
    for stop, some in enumerate(states[:-1]):
        for state in some:
            again = dataset.create_reader(None, fields)
            again.load_state_dict(state)
            assert saved(again) == state
            assert walk(again, len(steps) - stop) == steps[stop:], stop
            again.close()


def test_ranks_share_the_pairs_of_an_epoch(tmp_path: Path) -> None:
    dataset = pairs_in_two_files(tmp_path)

    def run(rank: int, any_rank: Callable[[bool], bool]) -> list[str]:
        fields = reading(max_seq_len=10, concepts_per_batch=10)
        reader = dataset.create_reader(None, fields, rank=rank, world_size=2, any_rank=any_rank)
        return [name for batches in reader for name in names(batches)]

    first, second = on_ranks(2, run)
    everything = [name for batches in dataset.create_reader(None, reading()) for name in names(batches)]
    assert sorted(first + second) == sorted(everything) and first and second


def test_a_position_among_other_targets_is_refused(tmp_path: Path) -> None:
    dataset = open_pairs(write_pairs(tmp_path))
    state = saved(dataset.create_reader(None, reading()))
    other = open_pairs(tmp_path, target_column="prompt_emb", target_text_column=None)
    with pytest.raises(DataError, match=r"answer_emb, answer\).*prompt_emb, prompt, prompt_emb\)"):
        other.create_reader(None, reading()).load_state_dict(state)


def spoil(kind: str) -> dict[str, Any]:
    """Row 1 of the targets, or of the sources, made bad."""
    sources, targets = nested(LENGTHS)
    text = [[f"a{i}.{j}" for j in range(n)] for i, (_, n) in enumerate(LENGTHS)]
    if kind == "nan":
        targets[1][2][0] = float("nan")
    elif kind == "zero":
        targets[1][2] = [0.0] * 4
    elif kind == "null":
        targets[1] = None
    elif kind == "source":
        sources[1][0][0] = float("inf")
    elif kind == "count":
        text[1] = text[1][:-1]
    elif kind == "null text":
        text[1] = None  # type: ignore[call-overload]
    return {"prompt_emb": sources, "answer_emb": targets, "answer": text}


BAD = {
    "nan": "NaN or infinity in sentence 2 (column `answer_emb`)",
    "zero": "a zero vector in sentence 2 (column `answer_emb`)",
    "null": "the list of embeddings is null (column `answer_emb`)",
    "source": "NaN or infinity in sentence 0 (column `prompt_emb`)",
    "count": "counts differ: 3 sentences but 4 embeddings (column `answer_emb`)",
    "null text": "the list of sentences is null (column `answer_emb`)",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_on_either_side_is_an_error_that_names_the_column(tmp_path: Path, kind: str) -> None:
    folder = write_pairs(tmp_path, spoilt=spoil(kind))
    for read_all in (lambda d: list(d.documents()), lambda d: read(d.create_reader(None, reading()))):
        with pytest.raises(DataError) as caught:
            read_all(open_pairs(folder))
        assert f"row group 0, row 1: {BAD[kind]}" in str(caught.value)


@pytest.mark.parametrize("kind", BAD)
def test_a_skipped_row_takes_both_sides_with_it_and_shifts_no_other(tmp_path: Path, kind: str) -> None:
    dataset = open_pairs(write_pairs(tmp_path, spoilt=spoil(kind)), on_bad_rows="skip")
    reader = dataset.create_reader(None, reading())
    assert read(reader) == [d for i, d in enumerate(expected()) if i != 1]
    assert sum(reader.bad_rows.by_reason.values()) == 1


def test_both_columns_must_be_there_and_of_one_width(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path)
    with pytest.raises(DataError, match=r'`answr_emb`, which `target_column` names.*Did you mean "answer_emb"'):
        open_pairs(folder, target_column="answr_emb")
    with pytest.raises(DataError, match=r"`answer` must be a list of vectors"):
        open_pairs(folder, target_column="answer", target_text_column=None)
    wide = pa.array([[[1.0] * 5]] * len(LENGTHS), pa.list_(pa.list_(pa.float32(), 5)))
    folder = write_pairs(tmp_path / "wide", spoilt={"wide_emb": wide})
    with pytest.raises(DataError, match=r"`wide_emb` holds vectors that are 5 wide, but 4 is expected"):
        open_pairs(folder, target_column="wide_emb", target_text_column=None)


def test_sources_with_and_without_targets_are_not_read_together() -> None:
    sources = [SourceConfig(path="a/x", target_column="y"), SourceConfig(path="b")]
    with pytest.raises(ConfigError, match=r"a/x has a `target_column`, but b has none"):
        ConceptParquetConfig(sources=sources).resolved_sources()
    with pytest.raises(ConfigError, match=r"`target_text_column` is answer, but there is no `target_column`"):
        ConceptParquetConfig(path="a", target_text_column="answer").resolved_sources()


def test_a_source_inherits_the_datasets_target(tmp_path: Path) -> None:
    sources = [SourceConfig(path="a"), SourceConfig(path="b", target_column="c")]
    config = ConceptParquetConfig(sources=sources, **COLUMNS)
    assert [s.target_column for s in config.resolved_sources()] == ["answer_emb", "c"]
    assert [s.target_text_column for s in config.resolved_sources()] == ["answer", "answer"]


def test_settings_that_do_not_go_with_the_data_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path)
    with pytest.raises(ConfigError, match=r"`dataset\.reading\.pack` must be true for data with a `target_column`"):
        open_pairs(folder).create_reader(None, reading(pack=False))
    unsupervised = open_pairs(folder, target_column=None, target_text_column=None)
    with pytest.raises(ConfigError, match=r"`dataset\.reading\.target_suffix` is for data with a `target_column`"):
        unsupervised.create_reader(None, reading(target_suffix="end", special_concepts="x"))


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no {SAMPLE}")
@pytest.mark.parametrize(("split", "rows", "sentences"), [("train", 170, (1393, 1476)), ("validation", 30, (224, 239))])
def test_the_sample_is_read_whole(split: str, rows: int, sentences: tuple[int, int]) -> None:
    columns = {
        "embedding_column": "prompt_sentences_sonar_emb",
        "text_column": "prompt_sentences",
        "target_column": "text_sentences_sonar_emb",
        "target_text_column": "text_sentences",
    }
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(SAMPLE), **columns))
    stored = {document.row: document for document in dataset.documents(split)}
    assert len(stored) == rows
    assert sum(d.num_source for d in stored.values()) == sentences[0]
    seen = 0
    for (batch,) in dataset.create_reader(split, reading(max_seq_len=40, concepts_per_batch=400)):
        assert batch.ids is not None and batch.layout.source_lengths is not None
        seen += batch.num_targets
        for row, concepts, source in zip(
            batch.ids.row.tolist(), batch.concepts.split(list(batch.layout.lengths)), batch.layout.source_lengths
        ):
            assert np.array_equal(concepts.numpy(), stored[row].concepts.astype(np.float32))
            assert source == stored[row].num_source
    assert seen == sentences[1]
