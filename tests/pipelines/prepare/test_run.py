"""Raw text becomes a dataset, whatever stops the work on the way, and however many share it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.errors import ConfigError, DataError, RunError
from lexalcm.pipelines.launch_config import LaunchConfig
from lexalcm.pipelines.prepare.config import PrepareConfig, without_secrets
from lexalcm.pipelines.prepare.inputs import InputConfig
from lexalcm.pipelines.prepare.mapper import DocumentMapper
from lexalcm.pipelines.prepare.run import Prepared, plan_prepare, run_prepare
from lexalcm.recipes.dataset import open_named_dataset
from tests.text.tiny_sat import build_tiny_sat
from tests.text.tiny_sonar import ENCODER, SENTENCES, build_tiny_sonar, known_to_fairseq2

EN = "The gate stood open. Nobody came, e.g. no guard.\n\nThen it rained! Number {}."
JA = "\u9580\u306f\u958b\u3044\u3066\u3044\u305f\u3002\u8ab0\u3082\u6765\u306a\u3044\u3002\n\u756a\u53f7{}\u3002"
NUM_DOCUMENTS = 60


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Articles in two languages, in turns."""
    file = tmp_path / "wiki.jsonl"
    rows = [
        {"id": f"d{i}", "text": (JA if i % 3 else EN).format(i), "lang": "ja" if i % 3 else "eng_Latn", "views": i}
        for i in range(NUM_DOCUMENTS)
    ]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def config(*paths: Path, **fields: Any) -> PrepareConfig:
    inputs = {name: fields.pop(name) for name in ("lang_column", "text_columns") if name in fields}
    given = {"segmenter": "rules", "encoder": "stand_in", "dim": 16, "validation_share": 0.2, **fields}
    return PrepareConfig(
        inputs=InputConfig(paths=tuple(map(str, paths)), **{"lang_column": "lang", **inputs}),
        **given,
    )


def prepare(settings: PrepareConfig, out: Path, *, workers: int = 1, **options: Any) -> Prepared:
    return run_prepare(plan_prepare(settings, out, **options), LaunchConfig(num_workers=workers), device="cpu")


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All documents, splits in order."""
    files = sorted(out.glob("split=*/*.parquet"))
    return [{**row, "split": f.parent.name} for f in files for row in pq.read_table(f, partitioning=None).to_pylist()]


def by_id(out: Path) -> dict[str, dict[str, Any]]:
    rows = rows_of(out)
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def bytes_of(out: Path) -> dict[str, bytes]:
    return {f.relative_to(out).as_posix(): f.read_bytes() for f in sorted(out.glob("split=*/*.parquet"))}


def test_a_dataset_is_made_that_opens_by_its_card(texts: Path, tmp_path: Path) -> None:
    prepared = prepare(config(texts), tmp_path / "out")
    assert prepared.record.num_documents == NUM_DOCUMENTS
    dataset = open_named_dataset(str(prepared.card))
    assert isinstance(dataset, ConceptParquetDataset) and dataset.splits == ["train", "validation"]
    documents = list(dataset.documents())
    assert len(documents) == NUM_DOCUMENTS and all(len(d.concepts) == len(d.sentences or ()) > 0 for d in documents)
    found = by_id(tmp_path / "out")
    for line in texts.read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        assert "".join(found[raw["id"]]["text_sentences"]) == raw["text"]
        assert found[raw["id"]]["views"] == raw["views"]
    assert {row["lang"] for row in found.values()} == {"eng_Latn", "jpn_Jpan"}
    report = json.loads((tmp_path / "out" / "preparation.json").read_text())
    assert report["num_sentences"] == sum(len(row["text_sentences"]) for row in found.values())
    assert report["encoder"]["kind"] == "stand_in" and report["segmenter"]["name"] == "rules"


def test_shards_and_workers_change_nothing_about_a_document(texts: Path, tmp_path: Path) -> None:
    prepare(config(texts), tmp_path / "one", num_shards=1)
    prepare(config(texts), tmp_path / "seven", num_shards=7, workers=2)
    one, seven = by_id(tmp_path / "one"), by_id(tmp_path / "seven")
    assert one.keys() == seven.keys()
    for name, row in one.items():
        np.testing.assert_allclose(
            row.pop("text_sentences_sonar_emb"), seven[name].pop("text_sentences_sonar_emb"), atol=1e-4
        )
        assert row == seven[name]
    assert [row["id"] for row in rows_of(tmp_path / "one")] == [row["id"] for row in rows_of(tmp_path / "seven")]


def test_what_is_done_is_not_done_again(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(config(texts), tmp_path / "out", num_shards=3)
    before = bytes_of(tmp_path / "out")
    lost = tmp_path / "out" / "split=train" / "part-00001.parquet"
    lost.unlink()
    mapped: list[str] = []
    plain = DocumentMapper.__call__
    monkeypatch.setattr(
        DocumentMapper, "__call__", lambda self, raw: (mapped.extend(raw.column("id").to_pylist()), plain(self, raw))[1]
    )
    prepare(config(texts), tmp_path / "out", num_shards=3)
    assert mapped == [f"d{i}" for i in range(20, 40)]
    assert bytes_of(tmp_path / "out") == before


@pytest.mark.parametrize("stop_after", [0, 1, 3, 4])
def test_work_that_was_broken_off_ends_as_undisturbed_work(
    stop_after: int, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lexalcm.pipelines.prepare.windows.DOCUMENTS_AT_A_TIME", 8)
    prepare(config(texts), tmp_path / "whole", num_shards=3)
    plain, calls = DocumentMapper.__call__, iter(range(100))

    def breaks(self: DocumentMapper, raw: Any) -> Any:
        if next(calls) == stop_after:
            raise RuntimeError("the light went out")
        return plain(self, raw)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="the light went out"):
        patch.setattr(DocumentMapper, "__call__", breaks)
        prepare(config(texts), tmp_path / "out", num_shards=3)
    assert all(pq.read_metadata(f).num_rows for f in (tmp_path / "out").glob("split=*/*.parquet"))
    prepare(config(texts), tmp_path / "out", num_shards=3)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    assert list((tmp_path / "out" / "_prepare" / "staging").iterdir()) == []


COMMAND = """
import os, signal, sys
from lexalcm.cli.main import main
from lexalcm.pipelines.prepare.folder import PreparedFolder
if sys.argv[1] == "die":
    finish = PreparedFolder.finish_shard
    def die(self, note):
        finish(self, note)
        os.kill(os.getpid(), signal.SIGKILL)
    PreparedFolder.finish_shard = die
sys.exit(main(["lcm", "prepare", *sys.argv[2:]]))
"""


def test_a_process_that_was_killed_is_gone_on_with(texts: Path, tmp_path: Path) -> None:
    words = [
        str(texts),
        str(tmp_path / "out"),
        "--lang-column",
        "lang",
        "--segmenter",
        "rules",
        "--encoder",
        "stand_in",
    ]
    words += ["--dim", "16", "--validation-share", "0.2", "--num-shards", "3", "--device", "cpu"]
    environment = {**os.environ, "FAIRSEQ2_EXTENSION_TRACE": "1"}
    killed = subprocess.run([sys.executable, "-c", COMMAND, "die", *words], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "out" / "_prepare" / "shards").glob("*.json"))) == 1
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "live", *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "3 shard(s), 1 of them done already" in done.stdout
    prepare(config(texts), tmp_path / "whole", num_shards=3)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_worker_that_was_killed_is_named_and_the_others_finish(texts: Path, tmp_path: Path) -> None:
    plan = plan_prepare(config(texts), tmp_path / "out", num_shards=4)
    progress = tmp_path / "out" / "_prepare" / "progress" / "worker-1.json"
    killer = subprocess.Popen([sys.executable, "-c", KILLER, str(progress), str(tmp_path / "out")])
    try:
        with pytest.raises(RunError, match=r"(?s)1 of 2 workers died.*worker 1.*killed.*worker-1.log"):
            run_prepare(plan, LaunchConfig(num_workers=2), device="cpu")
    finally:
        killer.kill()
        killer.wait()
    assert {note.index for note in plan.folder.finished_shards()} >= {0, 2}
    prepare(config(texts), tmp_path / "out", num_shards=4)
    prepare(config(texts), tmp_path / "whole", num_shards=4)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


KILLER = """
import os, signal, sys, time
from pathlib import Path
import psutil
while not Path(sys.argv[1]).exists():
    time.sleep(0.02)
for process in psutil.process_iter(["environ", "cmdline"]):
    environment, words = process.info["environ"] or {}, process.info["cmdline"] or []
    if environment.get("SUBMITIT_LOCAL_JOB_ID") == "worker-1" and any(sys.argv[2] in word for word in words):
        os.kill(process.pid, signal.SIGKILL)
"""


def test_a_bad_row_is_the_users_to_mend_whoever_met_it(texts: Path, tmp_path: Path) -> None:
    with open(texts, "a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "bad", "text": "A.", "lang": None, "views": 0}) + "\n")
    for workers in (1, 2):
        with pytest.raises(DataError, match="wiki.jsonl:61 names no language"):
            prepare(config(texts), tmp_path / str(workers), num_shards=2, workers=workers)


def test_an_input_that_changed_meanwhile_is_refused(texts: Path, tmp_path: Path) -> None:
    prepare(config(texts), tmp_path / "out")
    with open(texts, "a", encoding="utf-8") as file:
        file.write('{"id": "new", "text": "A.", "lang": "en", "views": 1}\n')
    with pytest.raises(DataError, match=r"(?s)not what .*out was begun with: .*wiki.jsonl has .* bytes.*--overwrite"):
        prepare(config(texts), tmp_path / "out")
    assert prepare(config(texts), tmp_path / "out", overwrite=True).record.num_documents == NUM_DOCUMENTS + 1


def test_settings_that_changed_meanwhile_are_refused(texts: Path, tmp_path: Path) -> None:
    prepare(config(texts), tmp_path / "out")
    with pytest.raises(ConfigError, match='`dtype` "float16", but now it is "float32"'):
        prepare(config(texts, dtype="float32"), tmp_path / "out")
    with pytest.raises(ConfigError, match="`num_shards` null, but now it is 2"):
        prepare(config(texts), tmp_path / "out", num_shards=2)


def test_a_failure_before_any_work_binds_nobody(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has a column `lang`"):
        prepare(config(texts, lang_column=None, lang="eng_Latn"), tmp_path / "out")
    assert prepare(config(texts), tmp_path / "out").record.num_documents == NUM_DOCUMENTS


def test_nothing_is_overwritten_for_an_input_that_cannot_be_read(texts: Path, tmp_path: Path) -> None:
    prepare(config(texts), tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    with pytest.raises(DataError, match="typo.jsonl does not exist"):
        prepare(config(tmp_path / "typo.jsonl"), tmp_path / "out", overwrite=True)
    assert bytes_of(tmp_path / "out") == before and len(before) == 2


def test_input_and_output_must_lie_apart(texts: Path, tmp_path: Path) -> None:
    for source, out in ((tmp_path, tmp_path / "out"), (texts, tmp_path)):
        with pytest.raises(ConfigError, match="lie in each other"):
            prepare(config(source), out, overwrite=True)


def test_two_commands_do_not_work_in_one_folder(texts: Path, tmp_path: Path) -> None:
    plan = plan_prepare(config(texts), tmp_path / "out")
    with plan.folder.locked(), pytest.raises(ConfigError, match=r"Another command is at work in .* \(process \d+ on"):
        run_prepare(plan, LaunchConfig(num_workers=1), device="cpu")
    with plan.folder.locked(), pytest.raises(ConfigError, match="Another command is at work"):
        plan_prepare(config(texts, dtype="float32"), tmp_path / "out", overwrite=True)


def test_work_goes_on_with_the_same_models_alone(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lexalcm.text.stand_in_encoder import StandInEncoder

    prepare(config(texts), tmp_path / "out", num_shards=2)
    (tmp_path / "out" / "split=train" / "part-00001.parquet").unlink()
    plain = StandInEncoder.facts
    monkeypatch.setattr(StandInEncoder, "facts", lambda self: {**plain(self), "weights": "others"})
    with pytest.raises(DataError, match="an encoder whose `weights` was None, but now it is others|encoder whose"):
        prepare(config(texts), tmp_path / "out", num_shards=2)


def test_what_parquet_cannot_hold_is_refused_before_any_work(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "text": ["A."], "lang": ["en"]}), tmp_path / "t.parquet")
    odd = pa.table({"text": ["A."], "lang": ["en"], "odd": pa.array([{}], pa.struct([]))})
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_stream(file, odd.schema) as stream:
        stream.write_table(odd)
    with pytest.raises(ConfigError, match=r"column `odd` is struct<>, which parquet cannot hold.*--drop-column odd"):
        prepare(config(tmp_path / "t.arrow"), tmp_path / "out")


def test_files_named_by_themselves_have_the_splits_of_their_paths(tmp_path: Path) -> None:
    paths = []
    for split in ("train", "test"):
        paths.append(tmp_path / "in" / f"split={split}" / f"{split}.jsonl")
        paths[-1].parent.mkdir(parents=True)
        paths[-1].write_text("".join(json.dumps({"text": f"A {i}.", "lang": "en"}) + "\n" for i in range(20)))
    fields = {"validation_share": None}
    for number, source in enumerate((paths, [tmp_path / "in"], [tmp_path / "in" / "split=*" / "*.jsonl"])):
        prepared = prepare(config(*source, **fields), tmp_path / f"out{number}")
        assert prepared.record.documents == {"train": 20, "test": 20}
    with pytest.raises(ConfigError, match="`validation_share` is for splits that are drawn"):
        prepare(config(*paths, validation_share=0.5), tmp_path / "other")


def test_urls_are_told_without_who_asked_for_them(tmp_path: Path) -> None:
    url = "https://user:hunter2@host.example/a.jsonl?X-Signature=SECRET"
    settings = config(Path("x"), lang_column="lang").settings()
    assert settings["paths"] == ["x"]
    assert without_secrets(url) == "https://host.example/a.jsonl"
    assert without_secrets("/data/a?b.jsonl") == "/data/a?b.jsonl"


def test_a_default_language_that_the_encoder_does_not_know_is_refused_first(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='"english_Latn" is not a known language'):
        plan_prepare(config(texts, encoder="sonar", dim=None, lang="english_Latn"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prompts_and_answers_are_supervised_data(tmp_path: Path) -> None:
    rows = [{"question": f"Why {i}? How?", "reply": f"So. And so {i}."} for i in range(10)]
    (tmp_path / "qa.json").write_text(json.dumps(rows))
    settings = config(
        tmp_path / "qa.json",
        text_columns=("question", "reply"),
        lang_column=None,
        lang="eng_Latn",
        validation_share=0.0,
    )
    dataset = open_named_dataset(str(prepare(settings, tmp_path / "out").card))
    assert dataset.is_supervised
    (first, *_) = dataset.documents("train")
    assert first.num_source == 2 and first.sentences == ["Why 0? ", "How?", "So. ", "And so 0."]


@pytest.fixture(scope="module")
def sonar_and_sat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Path]]:
    folder = tmp_path_factory.mktemp("models")
    with known_to_fairseq2(build_tiny_sonar(folder / "sonar", dim=8)):
        yield {"sat": build_tiny_sat(folder / "sat")}


def test_sat_and_sonar_do_the_same_through_their_own_pipelines(
    sonar_and_sat: Mapping[str, Path], tmp_path: Path
) -> None:
    from lexalcm.text.sonar import SonarEncoder

    rows = [{"text": " ".join(SENTENCES), "lang": lang} for lang in ("eng_Latn", "fra_Latn", "en", "jpn_Jpan", None)]
    rows.append({"text": "The war ended. " * 40 + "word " * 45 + ".", "lang": "deu_Latn"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = config(
        tmp_path / "t.jsonl",
        segmenter=str(sonar_and_sat["sat"]),
        encoder=f"sonar:{ENCODER}",
        dim=None,
        lang="spa_Latn",
        dtype="float32",
        validation_share=0.0,
    )
    prepared = prepare(settings, tmp_path / "out")
    written = rows_of(tmp_path / "out")
    assert [row["lang"] for row in written] == ["eng_Latn", "fra_Latn", "eng_Latn", "jpn_Jpan", "spa_Latn", "deu_Latn"]
    encoder = SonarEncoder(ENCODER)
    for row in written:
        sentences = [sentence.strip() for sentence in row["text_sentences"]]
        expected = encoder.encode(sentences, row["lang"])
        np.testing.assert_allclose(row["text_sentences_sonar_emb"], expected, atol=1e-6)
    assert [s.strip() for s in written[0]["text_sentences"]] == list(SENTENCES)
    assert written[5]["text_sentences_truncated"] == [40] and prepared.record.truncated_places == [
        ("t.jsonl:6", "text_sentences", 40)
    ]
