"""An encoder in a local folder: its vectors are those of a plain pass of each sentence, whatever is beside it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexalcm.errors import CheckpointError, ConfigError, DataError
from lexalcm.text.huggingface_encoder import HuggingFaceEncoder
from tests.text.tiny_huggingface import DIM, build_bert, build_m2m100, write_sentence_transformers

SENTENCES = ["the war ended.", "many clans fought", "a", "a castle fell, and the war ended. many clans fought.", "War"]
MEAN = {"pooling_mode_mean_tokens": True}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def m2m100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_m2m100(tmp_path_factory.mktemp("m2m100"))


def reference(
    folder: Path, sentences: list[str], pool: Callable[[torch.Tensor], torch.Tensor], **told: str
) -> np.ndarray:
    """One sentence at a time, in float64, nothing padded."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, **told)
    model = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    with torch.no_grad():
        hidden = [encoder(**tokenizer(s, return_tensors="pt")).last_hidden_state[0] for s in sentences]
    return torch.stack([pool(hidden_TC) for hidden_TC in hidden]).numpy()


POOLINGS = {
    "mean": lambda hidden_TC: hidden_TC.mean(0),
    "max": lambda hidden_TC: hidden_TC.amax(0),
    "cls": lambda hidden_TC: hidden_TC[0],
    "last": lambda hidden_TC: hidden_TC[-1],
}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch_tokens", [1, 20, None])
def test_vectors_are_those_of_each_sentence_alone(bert: Path, pooling: str, batch_tokens: int | None) -> None:
    encoder = HuggingFaceEncoder(bert, pooling=pooling, batch_tokens=batch_tokens)
    vectors = encoder.encode(SENTENCES)
    assert vectors.dtype == np.float32 and vectors.shape == (5, DIM) and encoder.dim == DIM
    np.testing.assert_allclose(vectors, reference(bert, SENTENCES, POOLINGS[pooling]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 20, None])
def test_of_a_model_with_a_decoder_the_encoder_is_used_in_each_language(
    m2m100: Path, batch_tokens: int | None
) -> None:
    encoder = HuggingFaceEncoder(m2m100, batch_tokens=batch_tokens)
    langs = ["eng_Latn", "jpn_Jpan", "eng_Latn", "fra_Latn", "jpn_Jpan"]
    vectors = encoder.encode_mixed(SENTENCES, langs)
    for i, lang in enumerate(langs):
        expected = reference(m2m100, [SENTENCES[i]], POOLINGS["mean"], src_lang=lang)
        np.testing.assert_allclose(vectors[i : i + 1], expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(encoder.encode(["the"], "eng_Latn"), encoder.encode(["the"], "jpn_Jpan"), atol=1e-3)
    # None is the tokenizer's own, whatever it was told before.
    np.testing.assert_array_equal(encoder.encode(["the"]), encoder.encode(["the"], "eng_Latn"))
    with pytest.raises(ConfigError, match='Did you mean "jpn_Jpan"'):
        encoder.encode(["the"], "ja")


def test_weights_of_the_encoder_alone_give_the_same_vectors(m2m100: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    whole = AutoModel.from_pretrained(m2m100)
    folder = build_m2m100(tmp_path, encoder_only=True)
    whole.get_encoder().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["M2M100Encoder"]
    vectors = HuggingFaceEncoder(folder).encode(SENTENCES, "jpn_Jpan")
    np.testing.assert_array_equal(vectors, HuggingFaceEncoder(m2m100).encode(SENTENCES, "jpn_Jpan"))


def test_languages_of_other_tokenizers_go_by_the_names_of_sonar(m2m100: Path) -> None:
    from lexalcm.text.huggingface_encoder import _language_codes

    class M2M100Tokenizer:
        src_lang, lang_code_to_id = "en", {"en": 1, "ja": 2, "zh": 3, "ns": 4}

    class MBartTokenizer:
        src_lang, lang_code_to_id = "en_XX", {"en_XX": 1, "ja_XX": 2, "zh_CN": 3}

    sonar = {"eng_Latn": "en", "jpn_Jpan": "ja", "zho_Hans": "zh"}
    assert _language_codes(M2M100Tokenizer()) == {**sonar, "ns": "ns"}
    assert _language_codes(MBartTokenizer()) == {"eng_Latn": "en_XX", "jpn_Jpan": "ja_XX", "zho_Hans": "zh_CN"}
    assert len(HuggingFaceEncoder(m2m100).langs) == 202


def test_a_model_without_languages_takes_any(bert: Path) -> None:
    encoder = HuggingFaceEncoder(bert)
    assert encoder.langs is None
    np.testing.assert_array_equal(encoder.encode_mixed(["the", "war"], ["no", "such"]), encoder.encode(["the", "war"]))


def test_the_folder_says_how_vectors_are_made(tmp_path: Path) -> None:
    folder = build_bert(tmp_path)
    plain = HuggingFaceEncoder(folder).encode(SENTENCES)
    write_sentence_transformers(
        folder,
        pooling={"word_embedding_dimension": DIM, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        kinds=("Transformer", "Pooling", "Normalize"),
        max_seq_length=8,
    )
    encoder = HuggingFaceEncoder(folder)
    assert encoder.max_tokens == 8 and encoder.facts()["pooling"] == "cls" and encoder.facts()["normalize"]
    expected = reference(folder, SENTENCES[:3], POOLINGS["cls"])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(SENTENCES[:3]), expected, rtol=1e-5, atol=1e-5)
    write_sentence_transformers(folder, pooling=MEAN, kinds=("Transformer", "Pooling"))
    np.testing.assert_array_equal(HuggingFaceEncoder(folder).encode(SENTENCES), plain)
    write_sentence_transformers(folder, pooling={"pooling_mode": "max"}, kinds=("Transformer", "Pooling"))
    assert HuggingFaceEncoder(folder).facts()["pooling"] == "max"
    assert HuggingFaceEncoder(folder, pooling="last").facts()["pooling"] == "last"


def test_sentences_over_the_limit_are_told_and_cut_before_their_end_mark(
    bert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = HuggingFaceEncoder(bert)
    sentences = ["the " * 30, "the " * 31, "a"]
    assert encoder.max_tokens == 32
    assert encoder.over_limit(sentences, [""] * 3).tolist() == [False, True, False]
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        vectors = encoder.encode(sentences)
    assert 'takes 32 tokens; the rest of 1 sentences is cut off: "the the' in caplog.text
    np.testing.assert_allclose(vectors[1], vectors[0], rtol=1e-5, atol=1e-5)


def test_positions_behind_that_of_the_padding_are_the_limit_of_roberta() -> None:
    from transformers import RobertaConfig, RobertaModel

    from lexalcm.text.huggingface_encoder import _max_tokens
    from lexalcm.text.huggingface_folder import EncoderFolder

    class Tokenizer:
        model_max_length = int(1e30)

    config = RobertaConfig(
        vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=34,
    )  # fmt: skip
    folder = EncoderFolder(
        path=Path(), name="x", pooling="mean", normalize=False, lower=False, max_tokens=None, weights={}
    )
    assert _max_tokens(folder, Tokenizer(), RobertaModel(config)) == 32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_have_the_data_type_asked_for_and_vectors_are_float32(m2m100: Path, dtype: torch.dtype) -> None:
    encoder = HuggingFaceEncoder(m2m100, dtype=dtype)
    assert {weight.dtype for weight in encoder._model.parameters()} == {dtype}
    vectors = encoder.encode(SENTENCES, "eng_Latn")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, HuggingFaceEncoder(m2m100).encode(SENTENCES, "eng_Latn"), atol=0.1)


def test_other_weights_of_the_same_size_are_told_apart(m2m100: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(m2m100, tmp_path / "other")
    file = tmp_path / "other" / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    assert file.stat().st_size == (m2m100 / "model.safetensors").stat().st_size
    found, other = (HuggingFaceEncoder(folder).facts()["weights"] for folder in (m2m100, tmp_path / "other"))
    assert found.keys() == other.keys() and found != other


def test_weights_of_the_older_kind_are_loaded_and_never_unpickled(bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = build_bert(tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    expected = HuggingFaceEncoder(bert).encode(SENTENCES)
    np.testing.assert_array_equal(HuggingFaceEncoder(folder).encode(SENTENCES), expected)

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "owned",)

    torch.save({"x": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="The model in .* cannot be loaded"):
        HuggingFaceEncoder(folder)
    assert not (tmp_path / "owned").exists()


def test_a_pooler_may_be_missing_other_weights_may_not(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = build_bert(tmp_path, pooler=False)
    HuggingFaceEncoder(folder)
    file = folder / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if "attention.self.query" not in name}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lack 2 of those of BertModel, such as encoder.layer.0.attention"):
        HuggingFaceEncoder(folder)


def break_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 9 // 10])


def change_config(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (lambda folder: (folder / "model.safetensors").write_text("<html>"), "The model in .* cannot be loaded"),
        (break_weights, "The model in .* cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
        (change_config(model_type="vit"), 'its type is "vit", which is no encoder of text'),
        (change_config(model_type="no_such", auto_map={"AutoConfig": "own.Config"}), "cannot be loaded"),
        (change_config(hidden_size=32), "The model in .* cannot be loaded"),
        (lambda folder: (folder / "modules.json").write_text("{}"), "must hold a JSON array"),
        (lambda folder: (folder / "modules.json").write_text("["), "is no JSON"),
        (
            lambda folder: write_sentence_transformers(folder, pooling=MEAN, kinds=("Transformer", "Pooling", "Dense")),
            "has a module Dense, which is not known here",
        ),
        (
            lambda folder: write_sentence_transformers(
                folder, pooling={**MEAN, "pooling_mode_cls_token": True}, kinds=("Transformer", "Pooling")
            ),
            "asks for pooling_mode_mean_tokens and pooling_mode_cls_token, which is not known here",
        ),
        (
            lambda folder: (folder / "config_sentence_transformers.json").write_text('{"default_prompt_name": "q"}'),
            'puts its prompt "q" first',
        ),
    ],
)
def test_what_is_damaged_or_not_known_is_told(tmp_path: Path, spoil: Callable[[Path], None], told: str) -> None:
    folder = build_bert(tmp_path / "bert")
    spoil(folder)
    with pytest.raises(CheckpointError, match=told) as refused:
        HuggingFaceEncoder(folder)
    assert len(str(refused.value).splitlines()) == 1


def test_wrong_options_are_told(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no folder"):
        HuggingFaceEncoder(tmp_path / "none")
    with pytest.raises(ConfigError, match='"meen" is not a known pooling. Did you mean "mean"'):
        HuggingFaceEncoder(bert, pooling="meen")
    with pytest.raises(DataError, match='Sentence 1 of 2 is empty. The encoder "bert'):
        HuggingFaceEncoder(bert).encode(["a", ""])


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexalcm.memory.available_memory", lambda device: 1000)
    with pytest.raises(ConfigError, match='The encoder "bert.*" needs .* of memory on cpu, but only .* available'):
        HuggingFaceEncoder(bert)


def test_what_a_vector_depends_on_is_recorded(m2m100: Path) -> None:
    facts = HuggingFaceEncoder(m2m100).facts()
    assert list(facts.pop("weights")) == ["model.safetensors"]
    assert facts == {
        "name": m2m100.name, "kind": "hf", "architecture": "M2M100Encoder", "dim": DIM, "max_tokens": 64,
        "pooling": "mean", "normalize": False, "lower": False, "languages": "src_lang, 202 codes", "dtype": "float32",
        "device": "cpu",
    }  # fmt: skip
