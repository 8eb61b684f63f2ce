"""Documents become sentences and concepts, and nothing gets under another's name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lexalcm.errors import ConfigError, DataError
from tests.pipelines.prepare.stand_ins import mapper, raw_table

TEXTS = ["One. Two!\n\nThree?  ", "Alone", "\u4e00\u3064\u3002\u4e8c\u3064\u3002\n", "A. B. C. D."]


def mapped(rows: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    raw = raw_table(rows)
    return mapper(raw, **fields)(raw).to_pylist()


def test_sentences_join_to_the_text_and_each_has_its_own_concept() -> None:
    rows = mapped([{"text": text} for text in TEXTS])
    assert ["".join(row["text_sentences"]) for row in rows] == TEXTS
    for row in rows:
        lengths = [concept[0] for concept in row["text_sentences_sonar_emb"]]
        assert lengths == [len(sentence.strip()) for sentence in row["text_sentences"]]
    assert [len(row["text_sentences"]) for row in rows] == [3, 1, 2, 4]


def test_what_comes_out_does_not_depend_on_the_window() -> None:
    raw = raw_table([{"text": text} for text in TEXTS])
    whole = mapper(raw)(raw)
    one_by_one = [mapper(raw)(raw.slice(i, 1)) for i in range(raw.num_rows)]
    assert pa.concat_tables(one_by_one).to_pylist() == whole.to_pylist()


def test_each_row_is_encoded_in_its_language_which_it_tells() -> None:
    langs = ["ja", "eng_Latn", None, "jpn_Jpan"]
    rows = mapped([{"text": t, "lang": lang} for t, lang in zip(TEXTS, langs)], lang_column="lang")
    assert [{c[1] for c in row["text_sentences_sonar_emb"]} for row in rows] == [{1.0}, {0.0}, {0.0}, {1.0}]
    assert [row["lang"] for row in rows] == ["jpn_Jpan", "eng_Latn", "eng_Latn", "jpn_Jpan"]
    assert [row["lang_rule"] for row in rows] == ["mapped", "given", "default", "given"]
    assert [row["lang_given"] for row in rows] == langs


def test_other_columns_stay_and_the_text_becomes_its_sentences() -> None:
    rows = mapped([{"text": "A.", "title": "t", "views": 3, "tags": ["x"]}])
    assert list(rows[0]) == [
        *("id", "title", "views", "tags", "lang", "lang_rule"),
        *("text_sentences", "text_sentences_sonar_emb", "text_sentences_truncated", "__split"),
    ]
    assert (rows[0]["views"], rows[0]["tags"]) == (3, ["x"])


def test_documents_without_text_are_left_out_and_named() -> None:
    raw = raw_table([{"text": "A."}, {"text": None}, {"text": " \n"}, {"text": "B."}])
    work = mapper(raw)
    assert [row["id"] for row in work(raw).to_pylist()] == ["d0", "d3"]
    assert work.record.left_out == {"no text in `text`": 2}
    reason = "no text in `text`"
    assert work.record.left_out_places == [("raw.jsonl:2", reason, ""), ("raw.jsonl:3", reason, "")]
    assert (work.record.num_documents, work.record.num_seen, work.record.num_sentences) == (2, 4, 2)


def test_a_window_of_which_nothing_is_left_is_empty() -> None:
    raw = raw_table([{"text": ""}])
    assert mapper(raw)(raw).num_rows == 0


def test_prompts_and_answers_stand_beside_each_other() -> None:
    (row,) = mapped([{"question": "Why? How?", "reply": "So."}], columns=("question", "reply"))
    assert row["prompt_sentences"] == ["Why? ", "How?"] and row["text_sentences"] == ["So."]
    assert [c[0] for c in row["prompt_sentences_sonar_emb"]] == [4, 4]
    assert [c[0] for c in row["text_sentences_sonar_emb"]] == [3]
    assert "question" not in row and "reply" not in row


def test_sentences_beyond_the_encoders_limit_are_flagged_by_row() -> None:
    raw = raw_table(
        [{"text": "Short. A long one here."}, {"text": "A."}, {"text": "Also much too long. B. Far too long."}]
    )
    work = mapper(raw, max_tokens=10)
    assert [row["text_sentences_truncated"] for row in work(raw).to_pylist()] == [[1], [], [0, 2]]
    assert work.record.truncated_places == [
        ("raw.jsonl:1", "text_sentences", 1),
        ("raw.jsonl:3", "text_sentences", 0),
        ("raw.jsonl:3", "text_sentences", 2),
    ]
    with pytest.raises(DataError, match=r'raw.jsonl:1: sentence 1 of `text`, "A long one here....", has more tokens'):
        mapper(raw, max_tokens=10, too_long="refuse")(raw)


def test_a_vector_that_half_cannot_hold_is_named() -> None:
    raw = raw_table([{"text": "A."}, {"text": "B. " + "x" * 70_000}])
    with pytest.raises(
        DataError,
        match="raw.jsonl:2: sentence 1 of `text` has a vector that is zero or infinite in float16.*--dtype float32",
    ):
        mapper(raw, dtype="float16", segment_length=100_000)(raw)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_vectors_are_stored_in_the_type_asked_for(dtype: str) -> None:
    raw = raw_table([{"text": "A."}])
    column = mapper(raw, dtype=dtype)(raw).column("text_sentences_sonar_emb")
    assert np.dtype(column.type.value_type.value_type.to_pandas_dtype()) == np.dtype(dtype)
    assert column.type.value_type.list_size == 3


def test_splits_follow_the_id_or_the_column() -> None:
    raw = raw_table([{"text": "A.", "part": "val" if i % 3 else "train"} for i in range(30)])
    named = mapper(raw, split_column="part")(raw)
    assert named.column("__split").to_pylist() == [row["part"] for row in raw.to_pylist()]
    assert "part" not in named.schema.names
    drawn = mapper(raw, validation_share=0.5)(raw)
    backwards = mapper(raw, validation_share=0.5)(raw.take(list(range(29, -1, -1))))
    assert drawn.column("__split").to_pylist() == backwards.column("__split").to_pylist()[::-1]
    assert set(drawn.column("__split").to_pylist()) == {"train", "validation"}


@pytest.mark.parametrize("value", [None, "", "a/b"])
def test_a_split_must_be_a_name(value: str | None) -> None:
    raw = raw_table([{"text": "A.", "split": "train"}, {"text": "A.", "split": value}])
    with pytest.raises(DataError, match="raw.jsonl:2: `split` is"):
        mapper(raw, split_column="split")(raw)


@pytest.mark.parametrize(
    "column, message",
    [
        ("lang", "--lang-column lang.*--drop-column lang"),
        ("split", "--split-column split.*--drop-column split"),
        ("text_sentences", "--drop-column text_sentences"),
    ],
)
def test_a_column_that_would_be_replaced_is_refused(column: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mapper(raw_table([{"text": "A.", column: "x"}]))


def test_reasons_are_few_and_what_was_found_stands_with_the_place() -> None:
    raw = raw_table([{"text": "A.", "code": f"nonsense {i}"} for i in range(5)])
    work = mapper(raw, lang_column="code", unknown_lang="drop")
    work(raw)
    assert work.record.left_out == {"its language is not known": 5}
    assert work.record.left_out_places[4] == ("raw.jsonl:5", "its language is not known", "nonsense 4")


def test_many_sentences_are_encoded_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_table([{"text": text} for text in TEXTS])
    whole = mapper(raw)(raw).to_pylist()
    monkeypatch.setattr("lexalcm.pipelines.prepare.mapper._ENCODED_AT_A_TIME", 3)
    assert mapper(raw)(raw).to_pylist() == whole
