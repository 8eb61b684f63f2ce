"""From two files of articles to a model that continues them: every command as a user types it, one after the other."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lexalcm.cli.main import main
from tests.conftest import TINY_RUN

TEXTS = Path(os.environ.get("LEXALCM_TEXTS", Path(__file__).parents[3] / "shared" / "text"))
"""Real articles, ``wiki_en.jsonl`` and ``wiki_ja.jsonl``, where they are."""

EN = "The gate of town {0} stood open. Nobody came to close it, e.g. no guard.\n\nThen it rained for {0} days! The river rose."
JA = "{0}\u756a\u5730\u306e\u9580\u306f\u958b\u3044\u3066\u3044\u305f\u3002\u8ab0\u3082\u6765\u306a\u3044\u3002\n\u96e8\u304c\u964d\u3063\u305f\u3002\u5ddd\u304c\u5897\u3048\u305f\u3002"


def articles(folder: Path, *, most: int = 40) -> list[Path]:
    """Two files, of real articles if there are any."""
    files = []
    for name, lang, text in (("wiki_en", "eng_Latn", EN), ("wiki_ja", "jpn_Jpan", JA)):
        real, file = TEXTS / f"{name}.jsonl", folder / f"{name}.jsonl"
        if real.is_file():
            lines = real.read_text(encoding="utf-8").splitlines()[:most]
        else:
            rows = ({"id": f"{name}-{i}", "text": text.format(i), "lang": lang} for i in range(most))
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        files.append(file)
    return files


def lcm(*words: object) -> int:
    return main(["lcm", *map(str, words)])


def test_articles_become_a_model_that_continues_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ("--encoder", "stand_in", "--dim", "8")
    shares = ("--lang-column", "lang", "--validation-share", "0.2", "--num-shards", "3")
    assert lcm("prepare", *articles(tmp_path), "wiki", *quick, "--segmenter", "rules", *shares) == 0
    assert lcm("verify", "wiki") == 0
    assert lcm("convert", "wiki", "lexa") == 0 and (tmp_path / "lexa" / "Val").is_dir()
    assert lcm("special-concepts", "special.safetensors", "--langs", "eng_Latn,jpn_Jpan", *quick) == 0
    assert lcm("visualize", "wiki/dataset.yaml", "--sample", "0.5", "--special-concepts", "special.safetensors") == 0
    affixes = ["special_concepts=special.safetensors", "prefix=start_of_text", "suffix=end_of_text"]
    run = [*TINY_RUN, *(f"dataset.reading.{affix}" for affix in affixes)]
    run += ["regime.num_steps=4", "dataset.path=null"]
    assert lcm("train", "quickstart", "run", "--config", *run, "dataset.name=wiki/dataset.yaml") == 0
    assert lcm("evaluate", "run", "lexa/dataset.yaml", "--split", "validation") == 0
    capsys.readouterr()
    words = ("--segmenter", "rules", "--encoder", "stand_in", "--decoder", "nearest", "--corpus", "wiki/dataset.yaml")
    assert lcm("generate", "run", "--prompt", "The gate stood open. Nobody came.", *words, "--max-sentences", "2") == 0
    told = capsys.readouterr()
    reasons = ("max_sentences: ", "end_of_text: ", "repetition: ")
    assert "  (" not in told.out, "what is shown is stripped, though datasets keep the space between sentences"
    assert len(told.out.splitlines()) <= 2 and any(reason in told.err for reason in reasons)
