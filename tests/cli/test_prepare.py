"""``fairseq2 lcm prepare``, as somebody types it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lexalcm.cli.main import main

QUICK = ("--segmenter", "rules", "--encoder", "stand_in", "--dim", "8", "--lang", "eng_Latn", "--device", "cpu")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "wiki.jsonl"
    rows = [{"text": f"The gate stood open. Nobody came {i}."} for i in range(8)] + [{"text": " "}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def prepare(*words: object) -> int:
    return main(["lcm", "prepare", *map(str, words)])


def test_a_dataset_is_made_and_told(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(texts, tmp_path / "out", *QUICK, "--validation-share", "0") == 0
    told = capsys.readouterr().out
    assert "9 documents in 0.0 MB, 1 shard(s)" in told
    assert "8 documents (train: 8), 16 sentences, 1 file(s)" in told
    assert "left out: 1 document(s), no text in `text`; the first is wiki.jsonl:9" in told
    card = tmp_path / "out" / "dataset.yaml"
    assert told.splitlines()[-1].endswith(f"dataset.name={card} model.config_overrides.concept_dim=8")
    assert prepare(texts, tmp_path / "out", *QUICK, "--validation-share", "0") == 0
    assert "1 shard(s), 1 of them done already" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(texts, tmp_path / "out", *QUICK, "--dry-run", "--num-shards", "3") == 0
    assert "9 documents in 0.0 MB, 3 shard(s)" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_each_worker_that_is_asked_for_gets_a_shard(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(texts, tmp_path / "out", *QUICK, "--dry-run", "--workers", "4") == 0
    assert "4 shard(s)" in capsys.readouterr().out


def test_several_inputs_are_one_dataset(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("One note.\nOf two lines.")
    assert prepare(tmp_path / "notes", texts, tmp_path / "out", *QUICK, "--validation-share", "0") == 0
    rows = pq.read_table(tmp_path / "out" / "split=train" / "part-00000.parquet", partitioning=None).to_pylist()
    assert [row["id"] for row in rows] == ["a.txt", *(f"wiki-{i}" for i in range(1, 9))]
    assert rows[0]["text_sentences"] == ["One note.\n", "Of two lines."]


@pytest.mark.parametrize(
    "words, message",
    [
        (("--launcher", "slurm"), "sbatch"),
        (("--launcher", "local", "--nodes", "2"), "--launcher local runs on this machine alone, but --nodes is 2"),
        (("--segmenter", "ruels"), 'Did you mean "rules"?'),
        (("--encoder", "stand_im"), 'Did you mean "stand_in"?'),
        (("--text-column", "txet"), 'Did you mean "text"?'),
        (("--lang-column", "lnag"), "lnag"),
        (("--prompt-column", "text"), "belong together"),
        (("--pooling", "mean"), "pooling"),
        (("--segmenter-backend", "onnx"), 'The segmenter "rules" has no backend'),
        (("--segmenter-path", "nowhere"), "--segmenter is rules"),
        (("--unknown-lang", "guess"), '"guess" is not a known unknown_lang'),
        (("--validation-share", "1.5"), "must be at least 0 and below 1"),
        (("--num-shards", "0"), "at least 1"),
        (("--dtype", "float8"), '"float8" is not a known dtype'),
        (("--segment-length", "0"), "at least 1"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_any_work(
    words: tuple[str, ...],
    message: str,
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prepare(texts, tmp_path / "out", *QUICK, *words) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) <= 3, error
    assert not list((tmp_path / "out").glob("split=*"))


def test_documents_without_any_word_of_their_language_are_refused_at_once(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(texts, tmp_path / "out", *QUICK[:4]) == 2
    assert "(--lang-column lang), or the language of all (--lang eng_Latn)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(tmp_path / "none.jsonl", tmp_path / "out", *QUICK) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_prompts_and_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "qa.csv").write_text("q,a\nWhy?,So. There.\nHow?,Like this.\n")
    words = ("--prompt-column", "q", "--answer-column", "a", "--validation-share", "0")
    assert prepare(tmp_path / "qa.csv", tmp_path / "out", *QUICK, *words) == 0
    row = pq.read_table(tmp_path / "out" / "split=train" / "part-00000.parquet", partitioning=None).to_pylist()[0]
    assert row["prompt_sentences"] == ["Why?"] and row["text_sentences"] == ["So. ", "There."]
    assert len(row["prompt_sentences_sonar_emb"]) == 1 and len(row["text_sentences_sonar_emb"]) == 2


def test_an_interruption_says_how_to_go_on(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lexalcm.pipelines.prepare.mapper import DocumentMapper

    def interrupt(self: DocumentMapper, raw: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DocumentMapper, "__call__", interrupt)
    assert prepare(texts, tmp_path / "out", *QUICK, "--num-shards", "2") == 130
    assert "Interrupted: 0 of 2 shards are done.\nTo go on, run the same command." in capsys.readouterr().err


def test_all_that_is_left_out_is_told_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": " ", "lang": "en"}] * 1001 + [{"text": "A.", "lang": "xx-Klingon"}, {"text": "B.", "lang": "en"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (*QUICK[:6], "--lang-column", "lang", "--unknown-lang", "drop", "--encoder", "stand_in")
    assert prepare(tmp_path / "a.jsonl", tmp_path / "out", *words, "--validation-share", "0") == 0
    told = capsys.readouterr().out
    assert "left out: 1,001 document(s), no text in `text`; the first is a.jsonl:1" in told
