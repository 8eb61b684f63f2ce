"""An encoder is chosen by name; what it does not have is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from lexalcm.errors import CardError, CheckpointError, ConfigError, SetupError
from lexalcm.text.companions import import_companion
from lexalcm.text.encoders import check_encoder, create_encoder
from tests.text.tiny_huggingface import build_bert
from tests.text.tiny_sonar import ENCODER, LANGS

pytestmark = pytest.mark.usefixtures("sonar_cards")


def test_each_kind_is_made_with_its_options(tmp_path: Path) -> None:
    stand_in = create_encoder("stand_in", dim=8, batch_tokens=99)
    assert (stand_in.dim, stand_in.langs, stand_in.max_tokens) == (8, None, None)
    assert create_encoder("stand_in").dim == 1024
    sonar = create_encoder(f"sonar:{ENCODER}", dtype="bfloat16", batch_tokens=99)
    assert (sonar.dim, sonar.langs, sonar.max_tokens) == (16, sorted(LANGS), 64)
    assert sonar.facts()["dtype"] == "bfloat16" and sonar._batch_tokens == 99
    hf = create_encoder(f"hf:{build_bert(tmp_path)}", pooling="max")
    assert (hf.dim, hf.langs, hf.max_tokens, hf.facts()["pooling"]) == (16, None, 32, "max")


@pytest.mark.parametrize(
    ("spec", "options", "told"),
    [
        ("sonnar", {}, 'not a known encoder. Did you mean "sonar"?'),
        ("standin", {}, 'Did you mean "stand_in"?'),
        ("bert", {}, "Encoders are sonar, sonar:CARD, hf:FOLDER and stand_in."),
        ("hf", {}, "is not the form of an encoder"),
        ("hf:", {}, "is not the form of an encoder"),
        ("sonar:", {}, "is not the form of an encoder"),
        ("stand_in:8", {}, "is not the form of an encoder"),
        ("sonar", {"dim": 8}, 'The encoder "sonar" takes no `dim`, which is 8 here; only stand_in does.'),
        ("sonar", {"pooling": "mean"}, "takes no `pooling`"),
        ("stand_in", {"tokenizer": "x"}, "takes no `tokenizer`"),
        ("hf:x", {"tokenizer": "x"}, "takes no `tokenizer`"),
        ("stand_in", {"dtype": "float16"}, "its `dtype` is float32, not float16"),
        ("stand_in", {"dim": 0}, "must be at least 1, but is 0"),
        ("sonar", {"dtype": "bflot16"}, 'Did you mean "bfloat16"?'),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_loads(spec: str, options: dict, told: str) -> None:
    for make in (create_encoder, check_encoder):
        with pytest.raises(ConfigError) as refused:
            make(spec, **options)
        assert told in str(refused.value)


def test_a_folder_without_its_prefix_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f'Did you mean "hf:{tmp_path}"'):
        create_encoder(str(tmp_path))


def test_missing_cards_and_folders_are_told_without_loading_a_model(tmp_path: Path) -> None:
    check_encoder(f"sonar:{ENCODER}")
    with pytest.raises(CardError, match='Did you mean "tiny_sonar_encoder"'):
        check_encoder("sonar:tiny_sonar_encodr")
    with pytest.raises(CheckpointError, match='no folder "nowhere"'):
        check_encoder("hf:nowhere")
    with pytest.raises(CheckpointError, match="no config.json"):
        check_encoder(f"hf:{tmp_path}")


@pytest.mark.parametrize("spec", [f"sonar:{ENCODER}", "stand_in", "hf:nowhere"])
def test_a_device_that_is_not_there_is_one_line_with_those_that_are(spec: str) -> None:
    with pytest.raises(ConfigError, match="`--device cuda:99` is not present on this machine. Present: cpu") as refused:
        create_encoder(spec, device="cuda:99")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("batch_tokens", [0, -1])
def test_a_batch_without_tokens_is_refused(batch_tokens: int) -> None:
    with pytest.raises(ConfigError, match=f"`batch_tokens` must be at least 1, but is {batch_tokens}"):
        create_encoder(f"sonar:{ENCODER}", batch_tokens=batch_tokens)


@pytest.mark.parametrize(
    ("module", "package", "needed"),
    [("sonar", "sonar-space", "fairseq2>=0.5.2, found 0.8"), ("transformers", "transformers", "transformers")],
)
def test_a_package_that_does_not_fit_is_told_with_versions_and_the_fix(
    tmp_path: Path, module: str, package: str, needed: str
) -> None:
    (tmp_path / module).mkdir()
    (tmp_path / module / "__init__.py").write_text("raise ImportError('no such name')")
    spec = "sonar" if module == "sonar" else f"hf:{build_bert(tmp_path / 'bert')}"
    code = (
        "import sys\nfrom lexalcm.errors import SetupError\nfrom lexalcm.text.encoders import create_encoder\n"
        "try:\n    create_encoder(sys.argv[1])\nexcept SetupError as ex:\n    print(ex)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "FAIRSEQ2_EXTENSION_TRACE": ""}
    ran = subprocess.run([sys.executable, "-c", code, spec], capture_output=True, text=True, env=environment)
    assert f"{package} {version(package)} cannot be imported: no such name\nNeeded: {package}" in ran.stdout, ran.stderr
    assert needed in ran.stdout and f"Run: pip install --force-reinstall '{package}" in ran.stdout
    assert len(ran.stdout.splitlines()) <= 3


def test_a_package_that_is_not_installed_is_told() -> None:
    with pytest.raises(SetupError, match="no-such-package is needed here, but is not installed. Run: pip install"):
        import_companion("no_such_package", package="no-such-package")
