"""Kinds of files that somebody will hand in one day: each is read right, or refused by name; reader and verify agree."""

from __future__ import annotations

import datetime
import decimal
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig
from lexalcm.errors import DataError
from lexalcm.pipelines.verify.config import VerifyConfig
from lexalcm.pipelines.verify.run import verify
from tests.data.numbered import LENGTHS, WIDTH, fixed, nested, open_dataset, stands_right, texts, write_table
from tests.data.readers import reading

LEAF = f"{EMBEDDING_COLUMN}.list.element.list.element"


def sound_table(**columns: Any) -> pa.Table:
    names = [f"d{i}" for i in range(len(LENGTHS))]
    return pa.table(
        {"id": names, "text_sentences": texts(), EMBEDDING_COLUMN: pa.array(nested(), fixed(pa.float32())), **columns}
    )


def num_errors(folder: Path) -> int:
    return verify(VerifyConfig(data=ConceptParquetConfig(path=str(folder)))).findings.count("error")


def read_all(folder: Path) -> None:
    """Every vector where it belongs, by both ways of reading, and nothing for verify to say."""
    dataset = open_dataset(folder, text_column="text_sentences", id_column="id")
    documents = list(dataset.documents())
    assert [d.sentences for d in documents] == texts()
    assert all(stands_right(d) for d in documents)
    reader = dataset.create_reader(None, reading())
    for (batch,) in reader:
        assert batch.ids is not None
        assert (batch.concepts[:, 0].numpy() == np.repeat(batch.ids.row, batch.layout.lengths) + 1).all()
    reader.close()
    assert num_errors(folder) == 0


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
@pytest.mark.parametrize(
    "options",
    [
        {"data_page_version": "2.0", "data_page_size": 16},
        {"use_dictionary": False, "use_byte_stream_split": [LEAF], "store_schema": False},
        {"use_dictionary": False, "column_encoding": {"text_sentences.list.element": "DELTA_BYTE_ARRAY"}},
        {"use_compliant_nested_type": False, "write_statistics": False, "write_page_index": True},
    ],
)
def test_every_codec_encoding_and_page_reads_the_same(codec: str, options: dict[str, Any], tmp_path: Path) -> None:
    pq.write_table(sound_table(), tmp_path / "p.parquet", row_group_size=2, compression=codec, **options)
    read_all(tmp_path)


def tensors() -> pa.Array:
    rows = pa.array([vector for document in nested() for vector in document], pa.list_(pa.float32(), WIDTH))
    offsets = pa.array(np.concatenate([[0], np.cumsum(LENGTHS)]), pa.int32())
    tensor = pa.fixed_shape_tensor(pa.float32(), (WIDTH,))
    return pa.ListArray.from_arrays(offsets, pa.ExtensionArray.from_storage(tensor, rows))


@pytest.mark.parametrize(
    "columns",
    [
        {EMBEDDING_COLUMN: tensors()},
        {EMBEDDING_COLUMN: pa.array(nested(), pa.large_list(pa.list_(pa.float64(), WIDTH)))},
        {EMBEDDING_COLUMN: pa.array(nested(), pa.large_list(pa.large_list(pa.float16())))},
        {"text_sentences": pa.array(texts(), pa.list_(pa.string_view()))},
        {"text_sentences": pa.array(texts(), pa.large_list(pa.dictionary(pa.int8(), pa.string())))},
        {"id": pa.array(range(6), pa.uint64())},
        {"id": pa.array([str(i) for i in range(6)], pa.string_view())},
        {"id": pa.array([str(i) for i in range(6)]).dictionary_encode()},
        {f"{EMBEDDING_COLUMN}.list": pa.array(range(6)), "": pa.nulls(6), "a\nb": pa.array([b"\xff"] * 6)},
        {EMBEDDING_COLUMN.upper(): pa.array(range(6)), "Text_Sentences": pa.array(["x"] * 6)},
    ],
    ids=lambda columns: "-".join(f"{name[-9:]!r}:{str(column.type)[:20]}" for name, column in columns.items()),
)
def test_odd_types_and_names_that_hold_the_same_are_read(columns: dict[str, pa.Array], tmp_path: Path) -> None:
    pq.write_table(sound_table(**columns), tmp_path / "p.parquet", row_group_size=2)
    read_all(tmp_path)


def of_vectors(convert: Callable[[list[float]], Any], kind: pa.DataType) -> pa.Array:
    return pa.array([[convert(vector) for vector in document] for document in nested()], pa.list_(kind))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (EMBEDDING_COLUMN, of_vectors(lambda v: [int(x) for x in v], pa.list_(pa.int16(), WIDTH))),
        (EMBEDDING_COLUMN, of_vectors(lambda v: [True] * 4, pa.list_(pa.bool_()))),
        (EMBEDDING_COLUMN, of_vectors(lambda v: [decimal.Decimal(int(x)) for x in v], pa.list_(pa.decimal128(5)))),
        (EMBEDDING_COLUMN, of_vectors(lambda v: np.asarray(v, np.float32).tobytes(), pa.binary(16))),
        (EMBEDDING_COLUMN, of_vectors(lambda v: {"v": v}, pa.struct([("v", pa.list_(pa.float32()))]))),
        (EMBEDDING_COLUMN, of_vectors(lambda v: [v], pa.list_(pa.list_(pa.float32())))),
        (EMBEDDING_COLUMN, of_vectors(lambda v: [], pa.list_(pa.float32(), 0))),
        (EMBEDDING_COLUMN, of_vectors(lambda v: [], pa.list_(pa.null()))),
        (EMBEDDING_COLUMN, pa.array([[]] * 6, pa.list_(pa.null()))),
        (EMBEDDING_COLUMN, pa.nulls(6)),
        (
            EMBEDDING_COLUMN,
            pa.array([list(enumerate(d)) for d in nested()], pa.map_(pa.int8(), pa.list_(pa.float32()))),
        ),
        ("text_sentences", pa.array([[datetime.date(2020, 1, 1)] * n for n in LENGTHS])),
        ("text_sentences", pa.array([[{"text": "s"}] * n for n in LENGTHS])),
        ("text_sentences", pa.array([[b"s"] * n for n in LENGTHS])),
        ("text_sentences", pa.array([[None] * n for n in LENGTHS], pa.list_(pa.null()))),
        ("id", pa.nulls(6)),
        ("id", pa.array([[i] for i in range(6)])),
        ("id", pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes([i]) * 16 for i in range(6)], pa.binary(16)))),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.type)[:40],
)
def test_what_is_no_embedding_text_or_id_is_refused_by_file_and_column(
    column: str, values: pa.Array, tmp_path: Path
) -> None:
    pq.write_table(sound_table(**{column: values}), tmp_path / "p.parquet", row_group_size=2)
    with pytest.raises(DataError, match=rf"p\.parquet: column `{column}` must be ") as caught:
        open_dataset(tmp_path, text_column="text_sentences", id_column="id")
    assert len(str(caught.value).splitlines()) <= 3
    config = ConceptParquetConfig(path=str(tmp_path), text_column="text_sentences", id_column="id")
    assert verify(VerifyConfig(data=config)).findings.counts["column_type"] == 1


def test_vectors_without_a_component_are_no_vectors(tmp_path: Path) -> None:
    nothing = of_vectors(lambda v: [], pa.list_(pa.float32()))
    pq.write_table(sound_table(**{EMBEDDING_COLUMN: nothing}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match="the width of a vector is not known"):
        open_dataset(tmp_path)
    pq.write_table(sound_table(), tmp_path / "q.parquet")
    assert open_dataset(tmp_path).concept_dim == WIDTH


class PlainKeys(pe.KmsClient):
    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return key_bytes

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return wrapped_key


@pytest.mark.parametrize("open_footer", [False, True])
def test_what_is_encrypted_is_refused_as_such(open_footer: bool, tmp_path: Path) -> None:
    how = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"c": [LEAF]}, plaintext_footer=open_footer, double_wrapping=False
    )
    factory = pe.CryptoFactory(lambda config: PlainKeys())
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), how)
    with pq.ParquetWriter(tmp_path / "p.parquet", sound_table().schema, encryption_properties=properties) as writer:
        writer.write_table(sound_table())
    with pytest.raises(DataError, match=r"p\.parquet[^\n]*\n.*encrypted: write it unencrypted"):
        list(open_dataset(tmp_path).documents())
    assert num_errors(tmp_path) == 1


def test_ids_that_are_not_utf8_are_ids_all_the_same(tmp_path: Path) -> None:
    raw = pa.array([b"\xff%d" % i for i in range(6)], pa.binary())
    pq.write_table(sound_table(id=pa.StringArray.from_buffers(6, *raw.buffers()[1:])), tmp_path / "p.parquet")
    assert len(list(open_dataset(tmp_path, id_column="id").documents())) == 6


def test_a_name_that_is_not_utf8_is_refused_in_words_that_can_be_printed(tmp_path: Path) -> None:
    write_table(tmp_path, pa.array(nested(), fixed(pa.float32())))
    try:
        os.rename(tmp_path / "part-0.parquet", os.fsencode(tmp_path) + b"/a\xff.parquet")
    except OSError:
        pytest.skip("the file system allows UTF-8 alone")
    with pytest.raises(DataError, match="not UTF-8") as caught:
        open_dataset(tmp_path)
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize("then", ["gone", "shorter"])
def test_a_file_that_goes_or_changes_before_it_is_read_is_said_to_have(then: str, tmp_path: Path) -> None:
    path = write_table(tmp_path, pa.array(nested(), fixed(pa.float32()))) / "part-0.parquet"
    dataset = open_dataset(tmp_path)
    if then == "gone":
        path.unlink()
    else:
        pq.write_table(sound_table().slice(0, 2), path)
    with pytest.raises(DataError, match=rf"{path.name} (was there|has changed)"):
        list(dataset.documents())


def test_files_that_differ_in_order_nullability_and_metadata_are_one_dataset(tmp_path: Path) -> None:
    pq.write_table(sound_table(), tmp_path / "a.parquet")
    other = pa.schema(
        [
            pa.field(EMBEDDING_COLUMN, fixed(pa.float16()), nullable=False, metadata={"x": "y"}),
            pa.field("text_sentences", pa.large_list(pa.large_string()), nullable=False),
        ],
        metadata={"pandas": "{not json"},
    )
    pq.write_table(pa.table([nested(), texts()], schema=other), tmp_path / "b.parquet")
    documents = list(open_dataset(tmp_path, text_column="text_sentences").documents())
    assert len(documents) == 12 and all(stands_right(d) for d in documents)


@pytest.mark.parametrize("value", [-0.0, 0.0])
def test_zeros_of_either_sign_are_a_zero_vector_and_the_least_number_is_none(value: float, tmp_path: Path) -> None:
    spoilt, least = nested(), nested()
    spoilt[2][1], least[2][1] = [value] * WIDTH, [0.0, 0.0, 0.0, 1e-45]
    write_table(tmp_path / "zero", pa.array(spoilt, fixed(pa.float32())))
    with pytest.raises(DataError, match="row group 0, row 2: a zero vector in sentence 1"):
        list(open_dataset(tmp_path / "zero").documents())
    write_table(tmp_path / "least", pa.array(least, fixed(pa.float32())))
    assert len(list(open_dataset(tmp_path / "least").documents())) == 6
