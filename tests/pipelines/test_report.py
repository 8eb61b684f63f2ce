"""The page of a report: complete in itself, whatever the data hold, and honest about two datasets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lexalcm.data.special_concepts import SpecialConcepts
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.report.compare import Comparison, compare
from lexalcm.pipelines.report.config import ReportConfig
from lexalcm.pipelines.report.draw import bars, columns, curves, histogram, picture, plain_label
from lexalcm.pipelines.report.figures import DatasetFigures, collect_figures
from lexalcm.pipelines.report.made_by import made_by
from lexalcm.pipelines.report.neighbours import nearest_examples, special_figures
from lexalcm.pipelines.report.projection import project
from lexalcm.pipelines.report.run import Report, Subject, check_outputs, make_report, write_report
from lexalcm.pipelines.report.tables import facts, matches
from lexalcm.pipelines.report.tally import Tally
from tests.data.numbered import open_dataset

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)"> {{ 7 * 7 }} %{x} $y$ \u65e5\u672c\u8a9e'
CONFIG = ReportConfig(sample=1.0, num_points=50)


def write(
    folder: Path,
    *,
    text: str = "",
    change: float = 0.0,
    drop: int | None = None,
    ids: bool = True,
    dtype: Any = "float32",
) -> Path:
    """Twelve documents of four 6-d concepts in two languages."""
    rng = np.random.default_rng(0)
    documents = []
    for i in range(12):
        lang = ("eng_Latn", text or "jpn_Jpan")[i % 2]
        concepts = rng.normal(size=(4, 6)) + (3.0 if i % 2 else 0.0) + change * (i == 5)
        names = {"id": f"{text}{i}"} if ids else {}
        new = NewDocument([f"{text}{i}.{j}" for j in range(4)], concepts, {**names, "lang": lang})
        documents += [] if i == drop else [new]
    write_documents(folder / "split=train" / "a.parquet", documents, dtype=dtype, concepts_per_row_group=16)
    return folder


def subject(folder: Path) -> Subject:
    dataset = open_dataset(folder)
    return Subject(name=str(folder), dataset=dataset, made_by=made_by(str(folder), dataset))


def figures(folder: Path) -> DatasetFigures:
    return collect_figures(open_dataset(folder), CONFIG)


def compared(a: Path, b: Path) -> Comparison:
    return compare(("A", "B"), figures(a), figures(b), seed=0)


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, the text seen, and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.seen: list[str] = []
        self.scripts: list[str] = []
        self.inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        (self.scripts if self.inside == ["script"] else self.seen).append(data)

    @property
    def text(self) -> str:
        return "".join(self.seen)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = write(tmp_path_factory.mktemp("hostile"), text=HOSTILE)
    special = SpecialConcepts({HOSTILE: np.ones(6, np.float32), "b": -np.ones(6, np.float32)}, source="special")
    return make_report(subject(folder), CONFIG, special_concepts=special)


def test_text_of_the_data_is_shown_and_never_run(hostile: Report) -> None:
    page = Page(hostile.html)
    assert len([tag for tag, _ in page.elements if tag == "script"]) == len(page.scripts) == 3
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert page.text.count(f"{HOSTILE}0.0") >= 1 and "49" not in re.findall(r"\d+", HOSTILE)
    data = page.scripts[0]
    assert not set("<>&") & set(data)
    figure = json.loads(data)
    hovers = [text for trace in figure["data"] for text in trace["hovertext"]]
    assert any("&lt;/script&gt;" in text for text in hovers)
    told = re.compile(r"</?(br|i)>")
    assert not [text for text in [*hovers, *(t["name"] for t in figure["data"])] if "<" in told.sub("", text)]
    assert not [text for text in hovers if "$" in text]


def test_a_page_loads_nothing_and_runs_its_own_scripts_alone(hostile: Report) -> None:
    page = Page(hostile.html)
    for tag, attrs in page.elements:
        assert tag not in ("link", "iframe", "object") and "src" not in attrs, tag
        for name in ("href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), attrs
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes


def test_a_report_is_the_same_again(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert make_report(subject(folder), CONFIG).html == make_report(subject(folder), CONFIG).html


def test_pictures_have_names_of_their_own_inside_the_page(hostile: Report) -> None:
    ids = [attrs["id"] for _, attrs in Page(hostile.html).elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    svgs = re.findall(r"<svg.*?</svg>", hostile.html.split("<script")[0], re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', "".join(svgs)))
    assert used and used <= set(ids)


def test_every_point_of_the_map_is_a_sentence_or_special(hostile: Report) -> None:
    figure = json.loads(Page(hostile.html).scripts[0])
    sizes = {trace["name"].rsplit(" (", 1)[0]: len(trace["hovertext"]) for trace in figure["data"]}
    assert sum(sizes.values()) == 48 + 2 and sizes["special concepts"] == 2 and sizes["eng_Latn"] == 24
    assert all(len(trace["x"]) == len(trace["y"]) == len(trace["hovertext"]) for trace in figure["data"])


def test_examples_are_nearest_by_cosine(tmp_path: Path) -> None:
    bank = figures(write(tmp_path)).embeddings.bank
    x = bank.vectors.astype(np.float64)
    cosine = (x @ x.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x, axis=1))
    at = {sentence.text: i for i, sentence in enumerate(bank.sentences)}
    examples = nearest_examples(bank)
    assert len(examples) == 8 and {example.lang for example in examples[:2]} == {"eng_Latn", "jpn_Jpan"}
    for example in examples:
        mine = at[example.text]
        best = [i for i in np.argsort(-cosine[mine]).tolist() if i != mine][:3]
        assert [at[n.text] for n in example.nearest] == best
        assert [n.cosine for n in example.nearest] == pytest.approx(cosine[mine, best].tolist(), abs=1e-6)


def test_special_concepts_of_one_role_may_be_close(tmp_path: Path) -> None:
    bank = figures(write(tmp_path)).embeddings.bank
    x = np.eye(6, dtype=np.float32)
    facts = {"user_a": {"role": "user"}, "user_b": {"role": "user"}, "ai_a": {"role": "ai", "sentence": "[[AI.]]"}}
    special = SpecialConcepts({"user_a": x[0], "user_b": x[0], "ai_a": x[0] + 0.1 * x[1]}, source="s", facts=facts)
    found = special_figures(special, bank)
    assert {frozenset(pair[:2]) for pair in found.closest_pairs} == {
        frozenset(("user_a", "ai_a")),
        frozenset(("user_b", "ai_a")),
    }
    assert found.closest_pairs[0][2] == pytest.approx(1 / np.sqrt(1.01), abs=1e-6)
    assert "ai_a: [[AI.]]" in [example.text for example in found.nearest]
    with pytest.raises(DataError, match="8 wide"):
        special_figures(SpecialConcepts({"x": np.ones(8, np.float32)}, source="s"), bank)


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_few_points_and_points_that_are_the_same_have_a_place(method: str, count: int) -> None:
    for vectors in (np.ones((count, 6)), np.random.default_rng(0).normal(size=(count, 6))):
        plane, told = project(vectors.astype(np.float32), method, seed=0)
        assert plane.shape == (count, 2) and np.isfinite(plane).all() and "nan" not in told


def test_pca_keeps_the_directions_of_most_variance() -> None:
    x = np.random.default_rng(0).normal(size=(500, 6)) * [0.1, 9.0, 0.1, 0.1, 2.0, 0.1]
    plane, _ = project(x.astype(np.float32), "pca", seed=0)
    for axis, dim in ((0, 1), (1, 4)):
        assert abs(np.corrcoef(plane[:, axis], x[:, dim])[0, 1]) > 0.99


@pytest.mark.parametrize("ids", [True, False])
def test_a_faithful_copy_has_no_difference(tmp_path: Path, ids: bool) -> None:
    found = compared(write(tmp_path / "a", ids=ids), write(tmp_path / "b", ids=ids))
    assert found.matched_by == ("id" if ids else "place")
    assert (found.num_looked_for, found.num_found, found.num_identical, found.num_sentences) == (12, 12, 12, 48)
    assert found.largest_difference == 0.0 and found.num_other_length == 0


def test_what_a_conversion_dropped_and_changed_is_told(tmp_path: Path) -> None:
    found = compared(write(tmp_path / "a"), write(tmp_path / "b", change=0.25, drop=2))
    assert (found.num_looked_for, found.num_found, found.num_identical, found.num_sentences) == (12, 11, 10, 44)
    assert found.largest_difference == pytest.approx(0.25, abs=1e-6) and found.largest_in == "5"


def test_rounding_to_half_is_a_small_difference(tmp_path: Path) -> None:
    found = compared(write(tmp_path / "a"), write(tmp_path / "b", dtype="float16"))
    assert found.largest_difference is not None and 0.0 < found.largest_difference < 2e-3


def test_rows_that_nothing_matches_are_not_compared(tmp_path: Path) -> None:
    found = compared(write(tmp_path / "a", ids=False), write(tmp_path / "b", ids=False, drop=0))
    assert found.matched_by is None and found.largest_difference is None
    assert "they have no ids" in dict(matches(found))["matched"]


def test_datasets_of_other_widths_are_compared_by_what_they_share(tmp_path: Path) -> None:
    a = write(tmp_path / "a")
    write_documents(tmp_path / "b" / "b.parquet", [NewDocument(["x", "y"], np.ones((2, 3)), {"id": "1", "lang": "z"})])
    report = make_report(subject(a), CONFIG, other=subject(tmp_path / "b"))
    text = Page(report.html).text
    assert "dimensions63" in text and "largest absolute difference" not in text
    assert "both_languages" in [picture.name for picture in report.pictures]


def test_the_card_tells_how_the_data_came_about(tmp_path: Path) -> None:
    folder = write(tmp_path)
    card = {"name": "x", "made_by": {"encoder": {"name": "sonar", "dtype": "float16"}, "segmenter": "<b>sat</b>"}}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(card))
    told = dict(facts(figures(folder), [], made_by(str(folder), open_dataset(folder)), CONFIG))
    assert told["encoder.name"] == "sonar" and told["segmenter"] == "<b>sat</b>" and told["split train"] == "12"
    (folder / "dataset.yaml").write_text("{ not: yaml")
    assert made_by(str(folder), open_dataset(folder)) == {}


def test_files_of_others_are_never_replaced_and_those_of_a_report_are(tmp_path: Path, hostile: Report) -> None:
    page, pictures = tmp_path / "out" / "report.html", tmp_path / "png"
    for _ in range(2):
        check_outputs(page, pictures)
        write_report(hostile, page, pictures)
    assert page.read_text(encoding="utf-8") == hostile.html
    assert sorted(f.stem for f in pictures.iterdir()) == sorted(picture.name for picture in hostile.pictures)
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in pictures.iterdir())
    (pictures / "norms.png").write_text("mine")
    page.write_text("old")
    with pytest.raises(ConfigError, match="not of a report"):
        write_report(hostile, tmp_path / "new.html", pictures)
    assert not (tmp_path / "new.html").exists() and (pictures / "norms.png").read_text() == "mine"
    with pytest.raises(ConfigError, match="not of a report"):
        check_outputs(page, None)
    with pytest.raises(ConfigError, match="is a folder"):
        check_outputs(tmp_path, None)
    with pytest.raises(ConfigError, match="--png-dir"):
        check_outputs(tmp_path / "new.html", page)


def test_the_page_states_its_size(hostile: Report) -> None:
    told = re.search(r"This file is about ([0-9.]+) MB", hostile.html)
    assert told is not None and float(told[1]) == pytest.approx(len(hostile.html.encode()) / 1e6, abs=0.06)


def test_labels_that_no_font_has_are_drawn_by_their_codes() -> None:
    assert plain_label("eng_Latn") == "eng_Latn" and plain_label("\u65e5\n") == "<65E5><000A>"
    assert len(plain_label("x" * 99)) == 28


@pytest.mark.filterwarnings("error")
def test_pictures_of_odd_data_can_be_drawn() -> None:
    one, none, wide = Tally(), Tally(), Tally()
    one.add(np.asarray([0.0]))
    wide.add(np.asarray([1.0, 10.0**9]))
    paints = [
        histogram({"x": tally}, "label", whole=whole, mark=(250, "cap"))
        for tally in (one, none, wide)
        for whole in (True, False)
    ]
    paints += [bars({"x": {f"l{i}": 1 for i in range(99)}}), bars({"x": {}, "y": {"$a$": 2}}, shares=True)]
    paints += [columns(["2024"], [3]), curves({"x": np.zeros(4)}, "y", marked=[0, 3])]
    for paint in paints:
        drawn = picture("name", "Title", "caption", paint)
        assert drawn.svg.startswith("<svg") and drawn.png().startswith(b"\x89PNG")
