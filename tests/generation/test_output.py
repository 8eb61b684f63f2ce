"""However a run is broken off, what is done is kept; going on repeats nothing and mixes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.errors import ConfigError, DataError
from lexalcm.generation.output import OutputFile
from lexalcm.generation.prompt_files import PromptFile

SETTINGS = {"model": "m", "sampler": {"num_steps": 10, "eta": 0.0}}
INDICES = {"a": 0, "b": 1, "c": 2}


def row(name: str, num_concepts: int = 2, **texts: list[str]) -> dict[str, Any]:
    index = INDICES[name]
    return {
        "id": name,
        "index": index,
        "lang": "eng_Latn",
        "prompt": [f"{name} begins.", "And goes on."],
        "continuation": texts or {"eng_Latn": [f"{name} {i}" for i in range(num_concepts)]},
        "reason": "max_sentences",
        "num_concepts": num_concepts,
        "concept_dim": 3,
        "concepts": [[index + 0.1, i, 0.5] for i in range(num_concepts)],
    }


def opened(path: Path, settings: dict[str, Any] = SETTINGS, **options: bool) -> OutputFile:
    output = OutputFile(path, **options)
    assert not output.check(settings, INDICES)
    output.open(settings)
    return output


def write(path: Path, *names: str, **options: bool) -> OutputFile:
    output = opened(path, **options)
    for name in names:
        output.add(row(name))
    output.close()
    return output


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_rows_are_there_as_prompts_finish_and_in_order_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    output = opened(path)
    output.add(row("c"))
    assert ids(path) == ["c"]
    output.add(row("a"))
    output.add(row("b"))
    assert ids(path) == ["c", "a", "b"]
    output.finish()
    assert ids(path) == ["a", "b", "c"]
    assert json.loads((tmp_path / "out.jsonl.settings.json").read_text())["settings"] == SETTINGS
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.settings.json"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_going_on_knows_what_is_done_and_drops_a_torn_row(tmp_path: Path, name: str) -> None:
    journal = write(tmp_path / name, "c", "a").journal
    with open(journal, "ab") as handle:
        handle.write(b'{"id": "b", "index"')
    output = opened(tmp_path / name, resume=True)
    assert set(output.done) == {"c", "a"}
    output.add(row("b"))
    output.finish()
    assert not output.journal.exists() if name.endswith(".parquet") else ids(output.path) == ["a", "b", "c"]
    assert OutputFile(tmp_path / name, resume=True).check(SETTINGS, INDICES)


def test_a_torn_first_row_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path)
    path.write_bytes(b'{"id"')
    output = opened(path, resume=True)
    output.add(row("a"))
    output.close()
    assert ids(path) == ["a"]


def test_resume_where_nothing_is_begins(tmp_path: Path) -> None:
    write(tmp_path / "out.jsonl", "a", resume=True)
    assert ids(tmp_path / "out.jsonl") == ["a"]


def test_what_is_there_is_not_touched_unasked(tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.parquet"):
        path = tmp_path / name
        write(path, "a")
        with pytest.raises(ConfigError, match=r"(?s)is there already.*--resume.*--overwrite"):
            OutputFile(path).check(SETTINGS, INDICES)
        output = write(path, "b", overwrite=True)
        assert ids(output.journal) == ["b"]


def test_other_settings_are_refused_by_field(tmp_path: Path) -> None:
    write(tmp_path / "out.jsonl", "a")
    changed = {"model": "m", "sampler": {"num_steps": 20, "eta": 0.0}}
    with pytest.raises(ConfigError, match=r"begun with `sampler\.num_steps` 10, but now it is 20"):
        OutputFile(tmp_path / "out.jsonl", resume=True).check(changed, INDICES)
    (tmp_path / "out.jsonl.settings.json").unlink()
    with pytest.raises(DataError, match=r"settings\.json"):
        OutputFile(tmp_path / "out.jsonl", resume=True).check(SETTINGS, INDICES)


def test_another_input_and_damage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, "a", "b")
    for indices in ({"a": 0, "c": 1}, {"b": 0, "a": 1}):
        with pytest.raises(DataError, match="made from another input"):
            OutputFile(path, resume=True).check(SETTINGS, indices)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"rubbish\n" + lines[1])
    with pytest.raises(DataError, match=r"out\.jsonl:1 is not a row"):
        OutputFile(path, resume=True).check(SETTINGS, INDICES)


def test_parquet_can_be_trained_on_and_continued_again(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    output = opened(path)
    output.add(row("c", 1, eng_Latn=["c 0"], jpn_Jpan=["c zero"]))
    output.add(row("a", 2, eng_Latn=["a 0", "a 1"], jpn_Jpan=["a\nzero", "a one"]))
    output.add(row("b", 0, eng_Latn=[], jpn_Jpan=[]))
    assert not path.exists() and output.journal.exists()
    output.finish()
    assert not output.journal.exists()
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(path), text_column="text_sentences"))
    documents = list(dataset.documents())
    assert [d.sentences for d in documents] == [["a 0", "a 1"], [], ["c 0"]]
    assert np.array_equal(documents[0].concepts, np.asarray([[0.1, 0, 0.5], [0.1, 1, 0.5]], np.float32))
    table = pq.read_table(path)
    assert table.column("id").to_pylist() == ["a", "b", "c"]
    assert table.column("text_jpn_Jpan").to_pylist()[0] == "a zero\na one"
    assert table.column("prompt").to_pylist()[0] == "a begins.\nAnd goes on."
    assert table.column("lang").to_pylist()[0] == "eng_Latn"
    with pytest.raises(DataError, match="is empty"):
        list(PromptFile(str(path)))


def test_a_complete_parquet_file_is_done_and_another_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write(path, "a", "b", "c").finish()
    assert OutputFile(path, resume=True).check(SETTINGS, INDICES)
    with pytest.raises(DataError, match="complete with 3 prompts, but the input's 4"):
        OutputFile(path, resume=True).check(SETTINGS, {**INDICES, "d": 3})


def test_paths_and_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "out.csv", r"\.jsonl or \.parquet"), (tmp_path / "no" / "out.jsonl", "folder")):
        with pytest.raises(ConfigError, match=told):
            OutputFile(path)
    with pytest.raises(ConfigError, match="one of them"):
        OutputFile(tmp_path / "out.jsonl", resume=True, overwrite=True)
