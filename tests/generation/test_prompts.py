"""What is wrong with a prompt is told with its place; its noise depends on what it is, not on where it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import ConfigError, DataError
from lexalcm.generation.prompt_files import PromptFile
from lexalcm.generation.prompts import InputPrompt, PromptRow, look_through, number_prompts, text_prompt


def json_lines(file: Path, *rows: object) -> PromptFile:
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return PromptFile(str(file))


def numbered(**fields: Any) -> InputPrompt:
    return next(number_prompts([PromptRow(where="here", place="1", **fields)]))


def test_json_lines_hold_texts_sentences_and_concepts(tmp_path: Path) -> None:
    file = json_lines(
        tmp_path / "p.jsonl",
        {"text": "It rains. It pours.", "lang": "eng_Latn", "title": "passed over"},
        "",
        {"id": 7, "sentences": ["A.", "B."]},
        {"id": "c", "concepts": [[1, 2.5], [3, 4]], "sentences": ["A.", "B."]},
    )
    text, sentences, concepts = file
    assert (text.id, text.index, text.text, text.lang) == ("1", 0, "It rains. It pours.", "eng_Latn")
    assert (sentences.id, sentences.index, sentences.sentences) == ("7", 1, ("A.", "B."))
    assert concepts.concepts is not None and concepts.concepts.dtype == np.float32
    assert concepts.concepts.tolist() == [[1.0, 2.5], [3.0, 4.0]] and concepts.where.endswith("p.jsonl:4")


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\ufeffOne.\n\n  Two.  \r\n", encoding="utf-8")
    assert [(p.id, p.text) for p in PromptFile(str(tmp_path / "p.txt"))] == [("1", "One."), ("3", "Two.")]


def test_safetensors_hold_a_prompt_a_tensor(tmp_path: Path) -> None:
    save_file({"b": torch.ones(2, 3), "a": torch.arange(3.0).bfloat16()}, tmp_path / "p.safetensors")
    found = {p.id: p.concepts for p in PromptFile(str(tmp_path / "p.safetensors"))}
    assert found["a"].tolist() == [[0.0, 1.0, 2.0]] and found["b"].shape == (2, 3)
    save_file({"a": torch.ones(2, 3, dtype=torch.int64)}, tmp_path / "p.safetensors")
    with pytest.raises(DataError, match=r"`a` must hold floats, but is of int64"):
        list(PromptFile(str(tmp_path / "p.safetensors")))
    (tmp_path / "p.safetensors").write_text("<html>")
    with pytest.raises(DataError, match="not a safetensors file"):
        list(PromptFile(str(tmp_path / "p.safetensors")))


def test_parquet_brings_its_text_ids_and_languages(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    for lang in ("eng_Latn", "jpn_Jpan"):
        documents = [
            NewDocument(["A.", "B."], r.normal(size=(2, 4)), {"id": f"{lang}-{i}", "lang": lang}) for i in range(5)
        ]
        write_documents(tmp_path / lang / "a.parquet", documents, concepts_per_row_group=4)
    found = list(PromptFile(str(tmp_path)))
    assert [p.id for p in found] == [f"{lang}-{i}" for lang in ("eng_Latn", "jpn_Jpan") for i in range(5)]
    assert [p.lang for p in found] == ["eng_Latn"] * 5 + ["jpn_Jpan"] * 5
    assert found[9].sentences == ("A.", "B.") and found[9].key == "jpn_Jpan-4"
    assert found[9].concepts is not None and found[9].concepts.dtype == np.float32


def test_parquet_without_ids_names_rows_by_their_place(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    documents = [NewDocument(["A.", "B."], r.normal(size=(2, 4)), {"name": f"n{i}"}) for i in range(2)]
    write_documents(tmp_path / "a.parquet", documents, embedding_column="emb")
    path = str(tmp_path / "a.parquet")
    assert [p.id for p in PromptFile(path, column="emb")] == ["a.parquet:a.parquet:0", "a.parquet:a.parquet:1"]
    assert [p.id for p in PromptFile(path, column="emb", id_column="name")] == ["n0", "n1"]
    with pytest.raises(DataError, match='`nmae`.*Did you mean "name"'):
        list(PromptFile(path, column="emb", id_column="nmae"))
    with pytest.raises(DataError, match="text_sentences_sonar_emb"):
        list(PromptFile(path))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", r"p\.jsonl:1 is not JSON"),
        ([1], "must be an object"),
        ({"id": "a"}, "must have `text`, or `sentences`, or `concepts`.* has id"),
        ({"txet": "A."}, 'but has txet. Did you mean "text"'),
        ({"text": "A.", "language": "eng_Latn"}, 'Did you mean "lang"'),
        ({"text": "A.", "sentences": ["A."]}, "has `sentences` and `text`"),
        ({"text": "  "}, r"p\.jsonl:1 is empty"),
        ({"id": "x", "sentences": []}, r'p\.jsonl:1 \(id "x"\) is empty'),
        ({"sentences": ["A.", " "]}, "sentence 1 is empty"),
        ({"sentences": "A."}, "must be a list of texts"),
        ({"text": 3}, "`text` must be a text, but is 3"),
        ({"id": True, "text": "A."}, "`id` must be a text or a whole number"),
        ({"concepts": []}, "is empty"),
        ({"concepts": [1.0, 2.0]}, r"shape \[T, C\], but has \[2\]"),
        ({"concepts": [[1.0], [1.0, 2.0]]}, "vectors of one length"),
        ({"concepts": [["a"]]}, "numbers all of them"),
        ({"concepts": [[1.0]], "sentences": ["A.", "B."]}, "2 sentences but 1 concepts"),
        ('{"id": "x", "concepts": [[0.5, 1], [NaN, 1]]}', r'\(id "x"\): concept 1 of 2 holds NaN'),
        ({"concepts": [[1e39]]}, "concept 0 of 1 holds NaN or infinity"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_told_with_its_line(tmp_path: Path, row: object, told: str) -> None:
    with pytest.raises(DataError, match=f"(?s){told}") as caught:
        list(json_lines(tmp_path / "p.jsonl", row))
    assert len(str(caught.value).splitlines()) <= 3


def test_an_id_that_stands_twice_names_both_places(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "p.jsonl", {"id": "a", "text": "A."}, {"text": "B."}, {"id": "a", "text": "C."})
    with pytest.raises(DataError, match=r'p\.jsonl:1 and .*p\.jsonl:3 have the same id "a"'):
        list(file)
    taken_by_a_line = json_lines(tmp_path / "p.jsonl", {"text": "B."}, {"id": 1, "text": "C."})
    with pytest.raises(DataError, match='the same id "1"'):
        list(taken_by_a_line)


def test_inputs_that_are_not_there_or_of_no_known_kind_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        PromptFile(str(tmp_path / "none.jsonl")).check()
    with pytest.raises(ConfigError, match=r"must end in \.txt, \.jsonl"):
        PromptFile("prompts.csv").check()
    (tmp_path / "p.txt").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        list(PromptFile(str(tmp_path / "p.txt")))
    with pytest.raises(ConfigError, match="`--column` is for parquet"):
        PromptFile(str(tmp_path / "p.txt"), column="emb").check()
    (tmp_path / "p.txt").write_text("\n")
    with pytest.raises(DataError, match="no prompt"):
        look_through(PromptFile(str(tmp_path / "p.txt")))


def test_the_key_is_the_id_or_what_the_prompt_says() -> None:
    assert numbered(id="mine", text="A.").key == "mine"
    assert numbered(text="A.").key == text_prompt("A.").key != numbered(text="B.").key
    concepts = np.ones((2, 3))
    assert numbered(concepts=concepts).key == numbered(concepts=concepts.astype(np.float16)).key
    assert numbered(sentences=("A. B.",)).key != numbered(sentences=("A.", "B.")).key


def test_the_keys_of_equal_prompts_differ_and_order_does_not_matter() -> None:
    said = ["A.", "B.", "A."]
    keys = [p.key for p in number_prompts(PromptRow(where=t, place=str(i), text=t) for i, t in enumerate(said))]
    assert len(set(keys)) == 3
    turned = [p.key for p in number_prompts(PromptRow(where=t, place=str(i), text=t) for i, t in enumerate(said[::-1]))]
    assert sorted(turned) == sorted(keys) and turned[1] == keys[1]


def test_one_look_tells_languages_widths_and_numbers() -> None:
    rows = [
        PromptRow(where="1", place="1", text="A.", lang="eng_Latn"),
        PromptRow(where="2", place="2", concepts=np.ones((2, 3)), lang="jpn_Jpan"),
        PromptRow(where="3", place="3", sentences=("A.",)),
    ]
    summary = look_through(number_prompts(rows))
    assert summary.indices == {"1": 0, "2": 1, "3": 2} and summary.concept_dim == 3
    assert set(summary.langs) == {"eng_Latn", None} and set(summary.all_langs) == {"eng_Latn", "jpn_Jpan", None}
    other = PromptRow(where="4", place="4", concepts=np.ones((1, 5)))
    with pytest.raises(DataError, match="4 has concepts of 5 dimensions, but 2 has some of 3"):
        look_through(number_prompts([*rows, other]))


def test_a_lone_surrogate_is_told_with_its_place() -> None:
    half = chr(0xD800)
    for row in (PromptRow(where="p:7", place="7", text=half), PromptRow(where="p:7", place="7", id=half, text="A.")):
        with pytest.raises(DataError, match="p:7 has half a character"):
            list(number_prompts([row]))
