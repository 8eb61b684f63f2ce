"""SaT over many texts at once: as wtpsplit has it, to the last bit the same in any company, by PyTorch and by ONNX."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from wtpsplit import SaT

from lexalcm.errors import CheckpointError, ConfigError
from lexalcm.text.sat import SatSegmenter
from lexalcm.text.segment import create_segmenter
from tests.text.tiny_sat import build_tiny_sat, export_to_onnx

SENTENCE = "Clans fought over a castle, and another was built. "
SHORT = [SENTENCE[i : i + 9 + 7 * i] * (1 + i * 5 % 4) for i in range(10)]
TEXTS = [*SHORT, SENTENCE * 14, "x", "...", " . a\u3000\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_sat(tmp_path_factory.mktemp("random") / "sat-3l-sm", random=True)


@pytest.fixture(scope="module")
def onnx_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_to_onnx(folder, tmp_path_factory.mktemp("onnx") / "sat-3l-sm")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def probabilities(segmenter: SatSegmenter, texts: list[str]) -> list[np.ndarray]:
    return [np.exp(values) for values in segmenter.log_probabilities(texts)]


def test_probabilities_are_those_of_wtpsplit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sat = SaT(str(folder), tokenizer_name_or_path=str(folder))
    found = probabilities(SatSegmenter(folder), TEXTS)
    for text, values in zip(TEXTS, found):
        np.testing.assert_allclose(values, sat.predict_proba(text, stride=64), atol=2e-3)
    # wtpsplit adds logits up in half precision; without that, nothing is left between them.
    monkeypatch.setattr(np, "float16", np.float32)
    for text, values in zip(TEXTS, found):
        np.testing.assert_allclose(values, sat.predict_proba(text, stride=64), atol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_what_is_beside_a_text_changes_no_bit(
    folder: Path, onnx_folder: Path, backend: str, batch_size: int | None
) -> None:
    of_backend = folder if backend == "torch" else onnx_folder
    segmenter = SatSegmenter(of_backend, backend=backend, batch_size=batch_size)  # type: ignore[arg-type]
    alone = [segmenter.log_probabilities([text])[0] for text in TEXTS]
    order = np.random.default_rng(0).permutation(len(TEXTS))
    together = segmenter.log_probabilities([TEXTS[i] for i in order])
    for i, values in zip(order, together):
        assert values.tobytes() == alone[i].tobytes()
    assert segmenter.cut_many([*SHORT, *SHORT]) == [segmenter.cut(text) for text in SHORT] * 2


def test_every_batch_has_the_rows_that_are_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = SatSegmenter(folder, batch_size=4)
    shapes = set()
    run = segmenter._model

    def watched(ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        shapes.add(ids_BT.shape)
        return run(ids_BT, mask_BT)

    monkeypatch.setattr(segmenter, "_model", type("Watched", (), {"__call__": staticmethod(watched)})())
    segmenter.cut_many(TEXTS)
    assert {rows for rows, _ in shapes} == {4}
    assert {length for _, length in shapes} <= {32, *range(64, 513, 64)}


def test_no_end_falls_into_a_word(folder: Path) -> None:
    # Weights that say nothing end sentences within words too.
    segmenter = SatSegmenter(folder, threshold=1e-6, max_length=250)
    assert segmenter.split("Hello") == ["Hello"]
    assert segmenter.split("Hello there") == ["Hello", "there"]
    assert len(segmenter.split("\u57ce\u304c\u843d")) == 3


def test_half_a_character_and_no_text_at_all_are_taken(folder: Path) -> None:
    segmenter = SatSegmenter(folder)
    half = "\ud800 half. \udc00"
    assert "".join(segmenter.cut(half)) == half
    assert segmenter.log_probabilities([]) == [] and segmenter.cut_many([]) == []


def test_onnx_gives_what_torch_gives_without_a_network(folder: Path, onnx_folder: Path) -> None:
    onnx = SatSegmenter(onnx_folder, backend="onnx")
    for found, expected in zip(probabilities(onnx, TEXTS), probabilities(SatSegmenter(folder), TEXTS)):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (onnx.threshold, onnx.device, onnx.facts()["backend"]) == (0.25, "cpu", "onnx")


def test_onnx_takes_a_file_with_the_usual_name_too(folder: Path, tmp_path: Path) -> None:
    named = export_to_onnx(folder, tmp_path / "mine", name="model.onnx")
    assert create_segmenter(named, backend="onnx", threshold=0.5).split("One. Two.")


def test_a_folder_says_what_it_lacks(folder: Path, onnx_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="neither model_optimized.onnx nor model.onnx"):
        SatSegmenter(folder, backend="onnx")
    with pytest.raises(CheckpointError, match="no model.safetensors. Take the backend onnx"):
        SatSegmenter(onnx_folder)


@pytest.mark.parametrize(
    ("name", "config", "threshold"),
    [
        ("sat-12l-sm", {}, 0.25),
        ("sat-12l", {}, 0.025),
        ("sat-3l-no-limited-lookahead", {}, 0.01),
        ("my-small-copy", {}, 0.025),
        ("copy-of-sat-6l-sm", {}, 0.25),
        ("mine", {"_name_or_path": "segment-any-text/sat-12l-sm"}, 0.25),
        ("sat-12l-sm", {"threshold": 0.4}, 0.4),
    ],
)
def test_a_threshold_that_is_not_given_is_found(
    tmp_path: Path, folder: Path, name: str, config: dict, threshold: float
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / name))
    file = copy / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    assert SatSegmenter(copy).threshold == threshold
    assert SatSegmenter(copy, threshold=0.7).threshold == 0.7


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(onnx_folder: Path, backend: str) -> None:
    with pytest.raises(ConfigError, match="cuda:9.*is not present.*Present: cpu"):
        create_segmenter(onnx_folder, backend=backend, device="cuda:9")  # type: ignore[arg-type]


def test_the_device_used_is_logged_and_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        facts = SatSegmenter(folder, batch_size=2).facts()
    assert [record.message for record in caplog.records if "on cpu" in record.message] == [
        "sat-3l-sm splits sentences with torch on cpu, threshold 0.25."
    ]
    assert facts.pop("library").startswith("wtpsplit ")
    assert facts == {
        "name": "sat-3l-sm",
        "kind": "sat",
        "device": "cpu",
        "threshold": 0.25,
        "max_length": 250,
        "newlines": "line",
        "backend": "torch",
        "batch_size": 2,
    }
