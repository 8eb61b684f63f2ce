from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file

from lexalcm.cli.main import main
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.original_hub import original_fields
from lexalcm.pipelines.demo_corpus import DemoCorpusConfig, write_demo_corpus
from lexalcm.text.stand_in_encoder import StandInEncoder
from tests.checkpoints.tiny_models import PUBLISHED, shake, write_published
from tests.text.tiny_sat import build_tiny_sat
from tests.text.tiny_sonar import DECODER, ENCODER, build_tiny_sonar, known_to_fairseq2

DIM = 16
PROMPT = "A river runs through the town. Many boats lie there."
QUICK = ["--sampler", "plain_sampler", "--steps", 2]
STAND_IN = ["--encoder", "stand_in", "--segmenter", "punctuation"]


def write_model(folder: Path, dim: int) -> Path:
    sizes = {"model_dim": 16, "num_heads": 2, "ffn_dim": 16, "timestep_dim": 8}
    config = {"concept_dim": dim, "num_context_layers": 1, "num_denoiser_layers": 1, **sizes}
    torch.manual_seed(0)
    model = create_pre1_model(Pre1Config(**config))
    shake(model)
    model.set_normalizer(center=torch.zeros(dim), scale=torch.full((dim,), 0.05))
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    card = {"name": "small", "model_family": "lexalcm", "model_config": config, "checkpoint": "model.safetensors"}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "card.yaml"


@dataclass(frozen=True)
class World:
    card: Path
    corpus: Path

    @property
    def nearest(self) -> list[object]:
        return ["--decoder", "nearest", "--corpus", self.corpus, *STAND_IN, *QUICK]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    write_demo_corpus(folder / "data", DemoCorpusConfig(num_documents=40, dim=DIM))
    return World(write_model(folder / "model", DIM), folder / "data")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    texts = ["A river runs.", "It rains. It pours.", "A castle fell.", "The war ended.", "A river runs."]
    rows = [{"id": f"p{i}", "text": text} for i, text in enumerate(texts)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "prompts.jsonl"


def generate(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    code = main(["lcm", "generate", *map(str, words)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def fault(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["lcm", "generate", *map(str, words)]) == 2
    out, err = capsys.readouterr()
    lines = err[err.index("error: ") :].splitlines()
    assert out == "" and "Traceback" not in err and len(lines) <= 3
    return "\n".join(lines)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_prompt_is_continued_a_line_a_sentence(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    words = [world.card, "--prompt", PROMPT, "--max-sentences", 3, "--repetition-threshold", "off", *world.nearest]
    out, err = generate(capsys, *words)
    lines = out.splitlines()
    assert len(lines) == 3 and all(line.endswith(")") and 0.0 < float(line[-5:-1]) <= 1.0 for line in lines)
    assert err.splitlines()[-1].startswith("max_sentences: 3 sentences") and "2 pass(es) of the denoiser" in err
    assert generate(capsys, *words)[0] == out
    assert generate(capsys, *words, "--seed", 1)[0] != out


def test_a_prompts_result_depends_on_nothing_beside_it(
    world: World, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--max-sentences", 4, *world.nearest]
    generate(capsys, world.card, "--input", prompts, "--output", tmp_path / "all.jsonl", *words, "--batch-size", 2)
    made = rows(tmp_path / "all.jsonl")
    assert [(row["id"], row["index"]) for row in made] == [(f"p{i}", i) for i in range(5)]
    assert made[1]["prompt"] == ["It rains.", "It pours."]
    assert len(made[1]["continuation"]["text"]) == len(made[1]["cosine"]["text"]) == made[1]["num_concepts"]
    assert made[0]["continuation"] != made[4]["continuation"], "equal texts of two ids have noise of their own"
    turned = tmp_path / "turned.jsonl"
    turned.write_text("".join(json.dumps({"id": r["id"], "sentences": r["prompt"]}) + "\n" for r in made[::-1]))
    generate(capsys, world.card, "--input", turned, "--output", tmp_path / "b.jsonl", *words, "--batch-size", 5)
    assert [row["continuation"] for row in rows(tmp_path / "b.jsonl")[::-1]] == [row["continuation"] for row in made]


def test_concepts_go_in_and_come_out_alike_from_every_kind_of_file(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    concepts = {f"c{i}": StandInEncoder(DIM).encode(["It rains.", "It pours."][: i + 1]) for i in range(2)}
    save_file({name: torch.from_numpy(value) for name, value in concepts.items()}, tmp_path / "c.safetensors")
    (tmp_path / "c.jsonl").write_text(
        "".join(json.dumps({"id": name, "concepts": value.tolist()}) + "\n" for name, value in concepts.items())
    )
    words = ["--decoder", "none", "--max-sentences", 3, *QUICK]
    for kind in ("safetensors", "jsonl"):
        files = ["--input", tmp_path / f"c.{kind}", "--output", tmp_path / f"of_{kind}.parquet"]
        generate(capsys, world.card, *files, *words)
    first, second = (pq.read_table(tmp_path / f"of_{kind}.parquet") for kind in ("safetensors", "jsonl"))
    assert first.equals(second)
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path / "of_jsonl.parquet")))
    assert dataset.concept_dim == DIM
    # What came out goes in again.
    again = ["--input", tmp_path / "of_jsonl.parquet", "--output", tmp_path / "again.jsonl", *words]
    generate(capsys, world.card, *again)
    made = rows(tmp_path / "again.jsonl")
    assert [row["id"] for row in made] == ["c0", "c1"] and np.asarray(made[0]["concepts"]).shape[1] == DIM


def test_what_was_asked_of_the_sampler_is_on_record_and_the_rest_is_the_cards(
    world: World, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--sampler", "pre1_sampler", "--steps", 3, "--epsilon-scaling", "off", "--guidance-interval", 0.2, 0.9]
    words = ["--input", prompts, "--output", tmp_path / "o.jsonl", "--decoder", "none", *STAND_IN, *options]
    generate(capsys, world.card, *words, "--max-sentences", 2)
    found = json.loads((tmp_path / "o.jsonl.settings.json").read_text())
    sampler = found["settings"]["sampler"]
    assert sampler["num_steps"] == 3 and sampler["epsilon_scaling"] is None
    assert sampler["guidance_interval"] == [0.2, 0.9]
    assert sampler["guidance_scale"] == 3.0 and sampler["initial_noise_scale"] == 0.6 and found["passes"] == 3
    assert "batch_size" not in found["settings"]["generation"]


def test_a_run_that_was_broken_off_goes_on_without_repeats(
    world: World, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "o.jsonl"
    words = [world.card, "--input", prompts, "--output", output, "--max-sentences", 2, *world.nearest]
    generate(capsys, *words)
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    output.write_bytes(lines[3] + lines[0] + lines[1][:20])
    assert "--resume" in fault(capsys, *words)
    assert "`sampler.eta` 0.0, but now it is 0.5" in fault(capsys, *words, "--resume", "--eta", 0.5)
    generate(capsys, *words, "--resume", "--batch-size", 1)
    assert output.read_bytes() == whole
    assert "is complete" in generate(capsys, *words, "--resume")[0]
    generate(capsys, *words, "--overwrite", "--eta", 0.5)


def test_going_on_with_another_prompt_under_the_same_id_is_refused(
    world: World, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for output in (tmp_path / "o.jsonl", tmp_path / "o.parquet"):
        words = [world.card, "--input", prompts, "--output", output, *world.nearest, "--max-sentences", 1]
        generate(capsys, *words)
        assert "complete" in generate(capsys, *words, "--resume")[0]
        said = prompts.read_text()
        prompts.write_text(said.replace("A castle fell.", "A castle stood."))
        assert "--overwrite" in fault(capsys, *words, "--resume")
        prompts.write_text(said)


def test_an_output_is_not_written_over_its_input(
    world: World, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = prompts.read_text()
    words = [world.card, "--input", prompts, "--output", prompts, "--overwrite", *world.nearest]
    assert "over `--input`" in fault(capsys, *words)
    assert prompts.read_text() == said


def test_interrupted_it_keeps_what_is_done_and_says_how_to_go_on(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, output = tmp_path / "p.jsonl", tmp_path / "o.parquet"
    prompts.write_text("".join(json.dumps({"text": f"Story {i}."}) + "\n" for i in range(3000)))
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps({"text": f"Story {i}."}) + "\n" for i in range(4)))
    words = [*world.nearest, "--max-sentences", "4", "--repetition-threshold", "off"]
    command = [str(word) for word in (world.card, "--input", prompts, "--output", output, *words)]
    process = subprocess.Popen(
        [sys.executable, "-m", "lexalcm.cli", "lcm", "generate", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FAIRSEQ2_EXTENSION_TRACE": "1"},
    )
    journal = tmp_path / "o.parquet.partial.jsonl"
    deadline = monotonic() + 240
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 4) and process.poll() is None:
        assert monotonic() < deadline
        sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    done = rows(journal)
    assert f"Interrupted: {len(done):,} of 3,000 prompts are done" in err and "--resume" in err
    assert "Traceback" not in err
    assert not output.exists() and len({row["id"] for row in done}) == len(done) < 3000
    generate(capsys, world.card, "--input", few, "--output", tmp_path / "few_out.jsonl", *words)
    by_id = {row["id"]: row for row in done}
    assert all(by_id[row["id"]]["continuation"] == row["continuation"] for row in rows(tmp_path / "few_out.jsonl"))


def test_faults_are_told_before_a_model_is_loaded(
    world: World, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere.yaml"
    to_file = ["--input", prompts, "--output", tmp_path / "o.jsonl"]
    for words, told in (
        (["--prompt", " "], "The prompt is empty"),
        ([], "--prompt, or a file of prompts, --input"),
        (["--prompt", "A.", "--input", prompts], "not both"),
        (["--input", prompts], "`--input` needs `--output`"),
        (["--prompt", "A.", "--lang", "en"], 'Did you mean "eng_Latn"'),
        (["--prompt", "A.", "--target-lang", "jpn_Japn"], '"jpn_Japn" is not a known language. Did you mean "jpn_'),
        (["--prompt", "A.", "--lang", "english"], "--list-languages"),
        (["--prompt", "A.", "--steps", 0], "`sampler.num_steps` must be at least 1, but is 0"),
        (["--prompt", "A.", "--steps", -3], "but is -3"),
        (["--prompt", "A.", "--sampler", "plain_smapler"], 'Did you mean "plain_sampler"'),
        (["--prompt", "A.", "--max-sentences", 0], "`max_sentences` must be at least 1"),
        (["--prompt", "A.", "--device", "cuda:77"], "Present: cpu"),
        (["--prompt", "A.", "--dtype", "float23"], '"float32"'),
        (["--prompt", "A.", "--decoder", "none"], "--output"),
        (["--prompt", "A.", "--decoder", "nearest"], "`corpus`"),
        (["--prompt", "A.", "--decoder", "naerest"], 'Did you mean "nearest"'),
        (["--prompt", "A.", "--decoder-option", "beam_size"], "KEY=VALUE"),
        (["--prompt", "A.", "--decoder-option", "beam_siz=2"], 'Did you mean "beam_size"'),
        (["--prompt", "A.", "--end", "x"], "--special-concepts"),
        (["--prompt", "A.", "--original", "--steps", 3], "leave --steps out"),
        ([*to_file, "--resume", "--overwrite"], "one of them"),
        (["--input", prompts, "--output", tmp_path / "o.txt"], ".jsonl or .parquet"),
    ):
        assert told in fault(capsys, nowhere, *QUICK[:2], *words), words
    assert "MODEL is missing" in fault(capsys, "--prompt", "A.")
    assert "nothing is there" in fault(capsys, nowhere, "--prompt", "A.", *QUICK)
    assert not (tmp_path / "o.jsonl").exists()


def test_too_little_memory_is_told_with_both_numbers(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lexalcm.memory.available_memory", lambda device: 1 << 10)
    told = fault(capsys, world.card, "--prompt", "A.", *world.nearest)
    assert "of memory on cpu, but only 0.0 MiB are available" in told and "MiB of memory" in told


def test_faults_of_what_goes_in_are_told_with_their_place(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = tmp_path / "p.jsonl", tmp_path / "o.jsonl"
    words = [world.card, "--input", file, "--output", output, "--decoder", "none", *QUICK[:2]]
    bad = [0.0] * (DIM - 1) + [float("nan")]
    for row, more, told in (
        ({"id": "x", "concepts": [[1.0] * DIM, bad]}, [], '(id "x"): concept 1 of 2 holds NaN'),
        ({"concepts": [[1.0, 2.0]]}, [], f"2 dimensions, but the model's have {DIM}"),
        ({"concepts": [[1.0] * DIM]}, ["--steps", 101], "between 1 and 100"),
        ({"text": ""}, [], "p.jsonl:1 is empty"),
        ({"text": "A.", "lang": "ja"}, [], 'p.jsonl:1: "ja" is not a known language. Did you mean "jpn_Jpan"'),
    ):
        file.write_text(json.dumps(row) + "\n")
        assert told in fault(capsys, *words, *more)
        assert not output.exists()


def test_the_original_forward_and_its_checkpoints_belong_together(
    world: World, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--input", prompts, "--output", tmp_path / "o.jsonl", "--decoder", "none", *STAND_IN]
    assert "is not such a checkpoint" in fault(capsys, world.card, "--original", *words)
    write_published(tmp_path / "published")
    card = {
        "name": "old",
        "model_family": "lexalcm_original",
        "model_config": original_fields(PUBLISHED, "final"),
        "checkpoint": str(tmp_path / "published" / "model.safetensors"),
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(card))
    assert "Run that with --original" in fault(capsys, tmp_path / "old.yaml", *words, *QUICK)
    generate(capsys, tmp_path / "old.yaml", "--original", *words)
    assert len(rows(tmp_path / "o.jsonl")) == 5


def test_languages_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    codes = generate(capsys, "--list-languages")[0].split()
    assert len(codes) > 200 and "eng_Latn" in codes and codes == sorted(codes)


@pytest.fixture(scope="module")
def sonar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[object]]:
    folder = tmp_path_factory.mktemp("sonar")
    build_tiny_sonar(folder / "cards")
    build_tiny_sat(folder / "sat-tiny")
    with known_to_fairseq2(folder / "cards"):
        yield ["--encoder-card", ENCODER, "--decoder-card", DECODER, "--segmenter-path", folder / "sat-tiny"]


def test_sonar_and_sat_stand_around_a_model(
    sonar: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = write_model(tmp_path / "model", 8)
    words = [card, *sonar, *QUICK, "--max-sentences", 2, "--repetition-threshold", "off"]
    prompt = ["--prompt", "Many clans fought. The war ended."]
    both = ["--target-lang", "eng_Latn", "--target-lang", "jpn_Jpan"]
    out, err = generate(capsys, *words, *prompt, *both, "--decoder-option", "beam_size=2")
    assert [line.split(":")[0] for line in out.splitlines()] == ["eng_Latn", "jpn_Jpan"] * 2
    assert "max_sentences" in err
    save = ["--output", tmp_path / "o.parquet", "--decoder-option", "beam_size=2", *both]
    generate(capsys, *words, *prompt, *save)
    table = pq.read_table(tmp_path / "o.parquet")
    assert [f"eng_Latn: {s}" for s in table.column("text_sentences").to_pylist()[0]] == out.splitlines()[::2]
    assert table.column("lang").to_pylist() == ["eng_Latn"] and len(table.column("text_jpn_Jpan").to_pylist()[0]) > 0
    found = json.loads((tmp_path / "o.parquet.settings.json").read_text())
    assert found["settings"]["text"]["decoder_options"] == {"beam_size": 2}
    assert found["decoder"]["name"] == DECODER and found["decoder"]["options"]["beam_size"] == 2
    assert 'Did you mean "eng_Latn"' in fault(capsys, *words, *prompt, "--lang", "eng_Latin")
    ended, err = generate(capsys, *words, *prompt, "--end-text", "The war ended.", "--end-threshold", -1)
    assert "end_of_text" in err and len(ended.splitlines()) == 1


def test_the_original_is_one_pass_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_published(tmp_path / "published")
    concepts = torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(1))
    save_file({"p": concepts[0]}, tmp_path / "p.safetensors")
    words = [tmp_path / "published", "--original", "--input", tmp_path / "p.safetensors", "--decoder", "none"]
    _, err = generate(capsys, *words, "--output", tmp_path / "o.jsonl")
    assert "one pass of the denoiser at t = 3" in err and "no sampler, no loop" in err
    (row,) = rows(tmp_path / "o.jsonl")
    assert row["reason"] == "one_pass" and row["num_concepts"] == 3
    noise = torch.zeros(1, 3, 8)
    with torch.no_grad():
        plain = model(concepts, noise=noise).predicted
    found = torch.tensor(row["concepts"])
    assert found.shape == plain[0].shape and not torch.equal(found, plain[0]), "its noise is drawn"
    generate(capsys, *words, "--output", tmp_path / "again.jsonl")
    assert rows(tmp_path / "again.jsonl") == [row]
    generate(capsys, *words, "--output", tmp_path / "half.jsonl", "--dtype", "bfloat16")
    assert np.allclose(rows(tmp_path / "half.jsonl")[0]["concepts"], row["concepts"], atol=0.1)
