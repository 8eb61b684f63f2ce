"""What a report counts and measures, against plain numpy in float64."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.filters import FilterConfig
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.report.bank import BankCollector
from lexalcm.pipelines.report.columns import months
from lexalcm.pipelines.report.config import ReportConfig, parse_sample
from lexalcm.pipelines.report.figures import DatasetFigures, collect_figures
from lexalcm.pipelines.report.lengths import collect_lengths
from lexalcm.pipelines.report.pictures import dates_of
from lexalcm.pipelines.report.sample import choose_rows, list_parts, new_notes, part_of_row, read_documents
from lexalcm.pipelines.report.tally import Tally, rounded
from tests.data.numbered import LENGTHS, WIDTH, fixed, nested, open_dataset, vectors, write_table

ALL = ReportConfig(sample=1.0)


def figures(folder: Path, config: ReportConfig = ALL, **fields: Any) -> DatasetFigures:
    return collect_figures(open_dataset(folder, **fields), config)


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """Two splits in small row groups; dimension 2 is dead."""
    rng = np.random.default_rng(0)
    documents = [rng.normal(size=(int(rng.integers(1, 9)), 5)) * [1, 2, 0, 3, 4] + [0, 1, 7, 0, 2] for _ in range(90)]
    for split, part in (("train", documents[:70]), ("validation", documents[70:])):
        new = [NewDocument([f"{split} {i} " + "x" * j for j in range(len(d))], d) for i, d in enumerate(part)]
        write_documents(tmp_path / f"split={split}" / "a.parquet", new, dtype="float32", concepts_per_row_group=40)
    return tmp_path, [document.astype(np.float32).astype(np.float64) for document in documents]


def test_a_tally_has_the_quantiles_of_all_its_values() -> None:
    values = np.random.default_rng(0).integers(0, 50, size=1001)
    tally = Tally()
    for part in np.array_split(values, 7):
        tally.add(part)
    found = tally.summary()
    assert found is not None and found.count == 1001 and found.mean == pytest.approx(values.mean())
    expected = np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0))
    assert [found.minimum, found.lower, found.median, found.upper, found.maximum] == pytest.approx(expected.tolist())
    assert tally.quantiles(0.995) == pytest.approx([np.quantile(values, 0.995)])
    assert tally.share_above(30) == pytest.approx((values > 30).mean())
    assert Tally().summary() is None


def test_rounding_keeps_significant_digits() -> None:
    assert rounded(np.asarray([123456.0, 0.000123456, -9.99999, 0.0])).tolist() == pytest.approx(
        [123500.0, 0.0001235, -10.0, 0.0], rel=1e-12
    )


@pytest.mark.parametrize("text, expected", [("0.1", 0.1), ("1.0", 1.0), ("25%", 0.25), ("500", 500)])
def test_a_sample_is_a_share_or_a_number(text: str, expected: float) -> None:
    found = parse_sample(text)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("text", ["1", "0", "-3", "1.5", "150%", "many", "nan"])
def test_what_is_no_sample_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--sample"):
        ReportConfig(sample=parse_sample(text)).check()


def test_a_sample_has_as_many_documents_as_asked_and_is_the_same_again(corpus: tuple[Path, list[np.ndarray]]) -> None:
    parts = list_parts(open_dataset(corpus[0]), None)
    assert sum(part.num_rows for part in parts) == 90 and len(parts) > 2

    def rows(count: int, seed: int) -> list[int]:
        return [part.first + row for part, mask in choose_rows(parts, count, seed) for row in np.flatnonzero(mask)]

    assert len(rows(20, 0)) == len(set(rows(20, 0))) == 20 and rows(20, 0) == sorted(rows(20, 0))
    assert rows(20, 0) == rows(20, 0) != rows(20, 1)
    assert rows(90, 3) == list(range(90)) and rows(1, 5)


def test_a_small_sample_of_many_row_groups_reads_a_few_of_them(tmp_path: Path) -> None:
    for i in range(40):
        write_table(tmp_path / f"part={i}", pa.array(nested(), fixed(pa.float32())), per_group=6)
    parts = list_parts(open_dataset(tmp_path), None)
    assert len(parts) == 40
    assert len(choose_rows(parts, 12, 0)) <= 16


@pytest.mark.parametrize("per_group", [1, 4, 100])
def test_documents_are_read_from_where_they_stand(tmp_path: Path, per_group: int) -> None:
    write_table(tmp_path, pa.array(nested(), fixed(pa.float32())), per_group=per_group, id=[f"d{i}" for i in range(6)])
    parts = list_parts(open_dataset(tmp_path), None)
    found = []
    for part in parts:
        rows = np.ones(part.num_rows, dtype=bool)
        for documents in read_documents(OpenFiles(), part, rows, concept_dim=WIDTH, notes=new_notes()):
            found += documents
    assert [document.number for document in found] == list(range(6))
    for number, document in enumerate(found):
        np.testing.assert_array_equal(document.concepts, vectors(number, LENGTHS[number]))
        assert document.id == f"d{number}" and document.sentences() == [f"{number}.{j}" for j in range(LENGTHS[number])]
        assert document.place.endswith(f"part-0.parquet:{number}")
        part = parts[part_of_row(parts, number)]
        assert part.first <= number < part.first + part.num_rows


def test_figures_of_embeddings_are_those_of_numpy(corpus: tuple[Path, list[np.ndarray]]) -> None:
    folder, documents = corpus
    found = figures(folder).embeddings
    x = np.concatenate(documents)
    assert (found.num_documents, found.num_sentences) == (90, len(x))
    np.testing.assert_allclose(found.mean, x.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(found.deviation, x.std(axis=0), atol=1e-9)
    assert found.dead.tolist() == [2]
    unit = [d / np.linalg.norm(d, axis=1, keepdims=True) for d in documents]
    cosines = np.concatenate([(d[1:] * d[:-1]).sum(axis=1) for d in unit])
    told = found.neighbour_cosines.summary()
    assert told is not None and told.count == len(cosines)
    assert (told.mean, told.median) == pytest.approx((cosines.mean(), np.median(cosines)), abs=1e-3)
    norms = found.norms.summary()
    assert norms is not None and norms.count == len(x)
    assert norms.mean == pytest.approx(np.linalg.norm(x, axis=1).mean(), rel=1e-4)


def test_lengths_are_those_of_all_documents_though_the_sample_is_small(corpus: tuple[Path, list[np.ndarray]]) -> None:
    folder, documents = corpus
    found = figures(folder, ReportConfig(sample=5))
    assert found.embeddings.num_documents == 5
    assert len(found.lengths.sentences) == 90 and found.lengths.num_documents == 90
    sentences = [len(d) for d in documents]
    assert found.lengths.sentences.quantiles(0.5) == [np.median(sentences)]
    characters = [
        len(f"{'train' if i < 70 else 'validation'} {i % 70} ") + j
        for i, d in enumerate(documents)
        for j in range(len(d))
    ]
    told = found.lengths.characters.summary()
    assert told is not None and (told.count, told.mean) == (len(characters), pytest.approx(np.mean(characters)))
    assert found.splits == {"train": 70, "validation": 20}
    assert figures(folder, ReportConfig(sample=1.0, split="validation")).embeddings.num_documents == 20


def test_of_very_many_rows_only_some_are_read_for_lengths(corpus: tuple[Path, list[np.ndarray]]) -> None:
    parts = list_parts(open_dataset(corpus[0]), None)
    found = collect_lengths(parts, 0, new_notes(), most=20)
    assert 20 <= found.num_documents < 90 and len(found.sentences) == found.num_documents


def test_characters_are_letters_and_not_bytes(tmp_path: Path) -> None:
    text = [["\u65e5\u672c\u8a9e", "a"], ["", "\U0001f600b"], ["abcd"] * 4, ["x"], ["y"] * 5, ["z"] * 2]
    write_table(tmp_path, pa.array(nested([len(t) for t in text]), fixed(pa.float32())), text=text)
    values, counts = figures(tmp_path).lengths.characters.arrays()
    assert dict(zip(values.tolist(), counts.tolist())) == {3.0: 1, 1.0: 9, 0.0: 1, 2.0: 1, 4.0: 4}


def test_bad_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    documents = nested()
    documents[1][0][0] = float("nan")
    documents[4] = None
    write_table(tmp_path, pa.array(documents, fixed(pa.float32())))
    found = figures(tmp_path)
    assert found.embeddings.num_documents == 4 and np.isfinite(found.embeddings.mean).all()
    assert found.notes.counter.num_bad == 2 and "NaN or infinity: 1" in found.notes.counter.summary()
    assert 1 not in {document.number for document in found.first}


def test_a_sample_without_a_good_document_is_an_error_that_names_the_faults(tmp_path: Path) -> None:
    write_table(tmp_path, pa.array([[[0.0] * WIDTH]] * 6, fixed(pa.float32())), text=[["x"]] * 6)
    with pytest.raises(DataError, match="zero vector(?s:.)*verify"):
        figures(tmp_path)


def test_a_damaged_row_group_is_noted_and_the_rest_is_shown(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, pa.array(nested(), fixed(pa.float32())))
    file = tmp_path / "b" / "part-0.parquet"
    content = bytearray(file.read_bytes())
    start = pq.ParquetFile(file).metadata.row_group(0).column(1).data_page_offset
    content[start : start + 40] = b"\xff" * 40
    file.write_bytes(bytes(content))
    found = figures(tmp_path)
    assert found.embeddings.num_documents >= 6
    assert any(str(file) in text for text in found.notes.unreadable)


def test_data_without_text_are_shown_by_their_embeddings(tmp_path: Path) -> None:
    table = pa.table({"text_sentences_sonar_emb": pa.array(nested(), fixed(pa.float16()))})
    pq.write_table(table, tmp_path / "a.parquet")
    found = figures(tmp_path)
    assert not len(found.lengths.characters) and found.first[0].sentences() is None
    assert found.embeddings.sentences.quantiles(1.0) == [max(LENGTHS)]
    assert all(sentence.text is None for sentence in found.embeddings.bank.sentences)


def test_files_with_other_columns_are_read_together(tmp_path: Path) -> None:
    embeddings = pa.array(nested(), fixed(pa.float32()))
    write_table(tmp_path / "a", embeddings, lang=["eng_Latn"] * 6)
    (tmp_path / "b").mkdir()
    pq.write_table(pa.table({"text_sentences_sonar_emb": embeddings}), tmp_path / "b" / "x.parquet")
    found = figures(tmp_path)
    assert found.embeddings.num_documents == 12 and len(found.lengths.sentences) == 6
    assert found.lengths.langs == {"eng_Latn": 6, "(none)": 6}
    assert found.columns["lang"] == "string (1 of 2 files)"


def test_sentences_are_those_of_the_embeddings_and_not_of_others(tmp_path: Path) -> None:
    embeddings, others = (pa.array(nested(n), fixed(pa.float32())) for n in (LENGTHS, [2] * 6))
    prompts = [["prompt"] * n for n in LENGTHS]
    columns = {"prompt_sonar_emb": embeddings, "prompt": prompts, "bare": embeddings}
    write_table(tmp_path, others, text=[["x", "y"]] * 6, **columns)
    found = figures(tmp_path, embedding_column="prompt_sonar_emb")
    assert found.first[0].sentences() == ["prompt"] * 3 and found.notes.counter.num_bad == 0
    found = figures(tmp_path, embedding_column="bare")
    assert found.first[0].sentences() is None and found.notes.counter.num_bad == 0


def test_a_language_may_be_a_partition_of_the_path(tmp_path: Path) -> None:
    for lang in ("eng_Latn", "jpn_Jpan"):
        write_table(tmp_path / f"lang={lang}", pa.array(nested(), fixed(pa.float32())))
    found = figures(tmp_path)
    assert found.lengths.langs == {"eng_Latn": 6, "jpn_Jpan": 6}
    assert {sentence.lang for sentence in found.embeddings.bank.sentences} == {"eng_Latn", "jpn_Jpan"}


def test_filters_of_a_card_hold_for_lengths_too(tmp_path: Path) -> None:
    write_table(tmp_path, pa.array(nested(), fixed(pa.float32())), lang=["a", "b", "a", "b", "a", "b"])
    found = figures(tmp_path, filters=[FilterConfig(column="lang", value="a")])
    assert found.lengths.langs == {"a": 3} and len(found.lengths.sentences) == found.embeddings.num_documents == 3


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["2024-03-05T10:00:00Z", "2023-12-31", None, "soon"]),
        pa.array([date(2024, 3, 5), date(2023, 12, 31), None, None]),
        pa.array([date(2024, 3, 5), date(2023, 12, 31), None, None]).cast(pa.timestamp("us")),
        pa.array(["2024-03-05 10:00", "2023-12", None, "2024-13-01"]).dictionary_encode(),
    ],
)
def test_dates_are_read_from_texts_and_timestamps(values: pa.Array) -> None:
    assert months(values).tolist() == [2024 * 12 + 2, 2023 * 12 + 11, -1, -1]


def test_years_are_integers_within_reason() -> None:
    assert months(pa.array([2024, 7, None, 10**12])).tolist() == [2024 * 12, -1, -1, -1]


def test_dates_are_counted_by_month_or_by_year_with_gaps(tmp_path: Path) -> None:
    embeddings = pa.array(nested(), fixed(pa.float32()))
    near = ["2024-01-01", "2024-01-09", "2024-03-01", "2024-03-02", "2024-03-03", None]
    write_table(tmp_path / "near", embeddings, updated_time=["x"] * 6, timestamp=near)
    lengths = figures(tmp_path / "near").lengths
    assert lengths.date_column == "timestamp"
    assert dates_of(lengths) == (["2024-01", "2024-02", "2024-03"], [2, 0, 3], "month")
    write_table(tmp_path / "far", embeddings, year=[2001, 2001, 2003, 2009, 2009, 2009])
    labels, counts, unit = dates_of(figures(tmp_path / "far").lengths)
    assert (labels[0], labels[-1], unit) == ("2001", "2009", "year") and counts == [2, 0, 1, 0, 0, 0, 0, 0, 3]


def test_a_bank_is_bounded_and_every_text_stays_with_its_vector(tmp_path: Path) -> None:
    write_table(tmp_path, pa.array(nested(), fixed(pa.float32())), per_group=6)
    (part,) = list_parts(open_dataset(tmp_path), None)
    everything = np.ones(part.num_rows, dtype=bool)
    collector = BankCollector(WIDTH, seed=1, most=7)
    for _ in range(5):
        for documents in read_documents(OpenFiles(), part, everything, concept_dim=WIDTH, notes=new_notes()):
            collector.add(documents, np.concatenate([document.concepts for document in documents]))
    bank = collector.bank()
    assert bank.vectors.shape == (7, WIDTH) and len(bank.sentences) == 7
    for vector, sentence in zip(bank.vectors, bank.sentences):
        assert sentence.text == f"{vector[0] - 1:.0f}.{vector[1] - 1:.0f}" and sentence.document == vector[0] - 1
