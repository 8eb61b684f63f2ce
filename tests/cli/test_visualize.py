from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lexalcm.cli.main import main
from lexalcm.data.write import NewDocument, write_documents


def visualize(*words: object) -> int:
    return main(["lcm", "visualize", *map(str, words)])


def test_a_report_with_everything_is_written(
    tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    special = tmp_path / "special.safetensors"
    save_file({"start_of_text": np.ones(8, np.float32), "end_of_text": np.arange(8, dtype=np.float32)}, special)
    page, pictures = tmp_path / "out" / "r.html", tmp_path / "png"
    options = ["--sample", "0.5", "--png-dir", pictures, "--special-concepts", special, "--compare", tiny_corpus]
    assert visualize(tiny_corpus, "--report", page, *options, "--projection", "tsne", "--points", 30) == 0
    out = capsys.readouterr().out
    assert f"{page}, 5." in out and "sample      34 documents" in out and f"in {pictures}" in out
    html = page.read_text(encoding="utf-8")
    assert "start_of_text" in html and "Comparison" in html and "t-SNE" in html
    assert (pictures / "sentences_in_a_plane.png").is_file() and (pictures / "embedding_strips.png").is_file()


def test_split_and_number_of_documents_are_honoured(
    tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "r.html"
    assert visualize(tiny_corpus, "--report", page, "--split", "validation", "--sample", 7, "--seed", 3) == 0
    assert "sample      7 documents" in capsys.readouterr().out
    assert "20 of the split validation" in page.read_text(encoding="utf-8")


def test_bad_rows_are_counted_with_the_way_to_find_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = np.ones((2, 4)), np.asarray([[1.0] * 4, [np.nan] * 4])
    documents = [NewDocument(["a", "b"], bad if i == 3 else good + i) for i in range(9)]
    write_documents(tmp_path / "data" / "a.parquet", documents, dtype="float32")
    assert visualize(tmp_path / "data", "--report", tmp_path / "r.html") == 0
    out = capsys.readouterr().out
    assert "1 of 9 documents looked at (NaN or infinity: 1); `fairseq2 lcm verify" in out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--sample", "1"], "write 1.0 for all"),
        (["--sample", "0"], "--sample"),
        (["--points", "3"], "--points"),
        (["--projection", "tsen"], 'Did you mean "tsne"?'),
        (["--seed", "-1"], "--seed"),
        (["--max-length", "0"], "--max-length"),
        (["--split", "dev"], "--split dev"),
        (["--special-concepts", "none.safetensors"], "none.safetensors"),
        (["--compare", "no/such/data"], "no/such/data"),
    ],
)
def test_what_cannot_be_honoured_is_refused_and_nothing_is_written(
    tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert visualize(tiny_corpus, "--report", tmp_path / "r.html", *options) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "r.html").exists()


def test_a_file_that_is_no_report_is_not_replaced(
    tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "article.html"
    page.write_text("mine")
    assert visualize(tiny_corpus, "--report", page) == 2
    assert "not of a report" in capsys.readouterr().err and page.read_text() == "mine"
