"""``fairseq2 lcm special-concepts`` writes one file that training and generation take as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.checkpoints.special_concepts import special_concepts_of
from lexalcm.cli.main import main
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig, ReadingConfig
from lexalcm.data.special_concepts import load_special_concepts
from lexalcm.generation.config import GenerationConfig
from lexalcm.generation.special_section import SpecialSection
from lexalcm.generation.stop_rules import StopRules
from lexalcm.recipes.run import run_training
from lexalcm.text.stand_in_encoder import STAND_IN_NAME, StandInEncoder
from tests.text.tiny_sonar import ENCODER, build_tiny_sonar, known_to_fairseq2

STAND_IN = ["--encoder", "stand_in", "--dim", 8]
PUBLISHED = Path(__file__).parents[3] / "shared" / "special_concepts"


def special_concepts(*words: object) -> int:
    return main(["lcm", "special-concepts", *map(str, words)])


@pytest.fixture
def file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert special_concepts(tmp_path / "s.safetensors", *STAND_IN, "--langs", "eng_Latn,jpn_Jpan") == 0
    capsys.readouterr()
    return tmp_path / "s.safetensors"


def test_every_role_is_encoded_in_every_language(file: Path) -> None:
    with safe_open(file, framework="np") as opened:
        told = json.loads(opened.metadata()["special_concepts"])
        concepts = {name: opened.get_tensor(name) for name in opened.keys()}
    assert len(concepts) == 14 and all(c.shape == (8,) and c.dtype == np.float32 for c in concepts.values())
    assert told["encoder"]["name"] == STAND_IN_NAME and told["encoder"]["dim"] == 8
    end = told["concepts"]["end_of_text"]
    assert (end["role"], end["lang"], end["sentence"]) == ("end_of_text", "eng_Latn", "[[End of text.]]")
    np.testing.assert_array_equal(concepts["end_of_text"], StandInEncoder(8).encode(["[[End of text.]]"])[0])
    assert told["concepts"]["end_of_text.jpn_Jpan"]["role"] == "end_of_text"


def test_names_sentences_and_cosines_are_printed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert special_concepts("--show", file) == 0
    out, err = capsys.readouterr()
    assert "14 special concepts of 8 dimensions by stand-in" in out
    assert any(line.split()[:3] == ["3", "end_of_text", "eng_Latn"] for line in out.splitlines())
    vectors = list(load_special_concepts(file).vectors.values())
    first, third = (vectors[i] / np.linalg.norm(vectors[i]) for i in (0, 2))
    row = next(line.split() for line in out.split("Cosine similarity")[1].splitlines() if line.startswith("   3"))
    assert row[1] == f"{first @ third:.2f}" and len(row) == 3


def test_two_that_can_hardly_be_told_apart_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("sentences: {begin: {eng_Latn: It is so.}, stop: {eng_Latn: It is so}}")
    words = [tmp_path / "s.safetensors", *STAND_IN, "--sentences", tmp_path / "mine.yaml"]
    assert special_concepts(*words, "--max-cosine", 0.5) == 0
    assert "cosine above 0.5: begin and stop (0.9" in capsys.readouterr().err
    assert special_concepts(*words, "--max-cosine", 1, "--overwrite") == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no {PUBLISHED}")
def test_the_published_vectors_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert special_concepts("--show", PUBLISHED) == 0
    out, err = capsys.readouterr()
    assert "4 special concepts of 1,024 dimensions" in out and "does not tell its sentence" in out
    assert "cosine above 0.9: EndOfText and StartOfText (0.952)." in err


def test_sonar_encodes_each_language_as_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_tiny_sonar(tmp_path / "sonar", 8)
    with known_to_fairseq2(folder):
        words = ["--encoder", f"sonar:{ENCODER}", "--langs", "jpn_Jpan,eng_Latn"]
        assert special_concepts(tmp_path / "s.safetensors", *words) == 0
        from lexalcm.text.encoders import create_encoder

        expected = create_encoder(f"sonar:{ENCODER}").encode(["[[End of text.]]"], "eng_Latn")[0]
    found = load_special_concepts(tmp_path / "s.safetensors").get("end_of_text.eng_Latn", 8)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Give the file to write, OUT, or one to look at"),
        (["s.safetensors", "--show", "s.safetensors"], "and not both"),
        (["s.pt", *STAND_IN], "OUT must be a file that ends in .safetensors"),
        (["s.safetensors", *STAND_IN], "s.safetensors exists already"),
        (["--show", "s.safetensors", "--overwrite"], "`--show` only reads: leave --overwrite out"),
        (["--show", "s.safetensors", "--dim", 8], "leave --dim out"),
        (["t.safetensors", *STAND_IN, "--max-cosine", 90], "`--max-cosine` must be above 0 and at most 1"),
        (["t.safetensors", *STAND_IN, "--langs", "eng_Latn,jpn_Jpam"], 'Did you mean "jpn_Jpan"'),
        (["t.safetensors", *STAND_IN, "--sentences", "gone.yaml"], "gone.yaml cannot be read"),
        (["t.safetensors", "--encoder", "sonarr"], 'Did you mean "sonar"'),
        (["t.safetensors", *STAND_IN, "--dtype", "int8"], "int8"),
    ],
)
def test_a_fault_names_the_mend_and_writes_nothing(
    file: Path, words: list[object], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    before = file.read_bytes()
    assert special_concepts(*words) == 2
    assert told in capsys.readouterr().err
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_the_reader_puts_them_around_documents(file: Path, tiny_corpus: Path) -> None:
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tiny_corpus)))
    names = {"prefix": "start_of_text.jpn_Jpan", "suffix": "end_of_text.jpn_Jpan"}
    affixes = dataset.affixes(ReadingConfig(special_concepts=str(file), **names))
    special = load_special_concepts(file)
    np.testing.assert_array_equal(affixes.prefix, special.get("start_of_text.jpn_Jpan", 8))
    np.testing.assert_array_equal(affixes.suffix, special.get("end_of_text.jpn_Jpan", 8))


def test_generation_stops_at_the_end_and_at_nothing_else(file: Path) -> None:
    section = SpecialSection(files=(str(file),), start="start_of_text", end="end_of_text")
    rules = StopRules(GenerationConfig(end_threshold=0.9), section.load(None, "eng_Latn", 8))
    nothing = torch.zeros(0, 8)
    for name, vector in load_special_concepts(file).vectors.items():
        stop = rules.check(torch.from_numpy(vector), nothing, num_generated=2)
        assert (stop is not None and stop.reason == "end_of_text") == (name == "end_of_text"), name


def test_a_model_trained_with_them_has_them_in_its_card(
    file: Path, tmp_path: Path, tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {"special_concepts": file, "prefix": "start_of_text", "suffix": "end_of_text"}
    reading = [f"dataset.reading.{field}={value}" for field, value in fields.items()]
    steps = ["regime.num_steps=2", "regime.checkpoint_every_n_steps=2", "regime.validate_every_n_steps=2"]
    overrides = [*tiny_overrides, *steps, *reading]
    assert run_training("quickstart", tmp_path / "run", overrides=overrides, no_rich=True) == 0
    special = special_concepts_of(resolve_card(tmp_path / "run"), 8)
    assert special is not None and special.end is not None and special.start is not None
    assert special.vectors.keys() == load_special_concepts(file).vectors.keys()
    np.testing.assert_array_equal(special.end.numpy(), load_special_concepts(file).get("end_of_text", 8))
    # The run's own copy is a file of them too.
    assert special_concepts("--show", tmp_path / "run" / "special_concepts.safetensors") == 0
    assert "14 special concepts of 8 dimensions" in capsys.readouterr().out
