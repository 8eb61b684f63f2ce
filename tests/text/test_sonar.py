"""SONAR's pipelines, with a small SONAR: text and concepts stay together, what cannot be honoured is refused."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lexalcm.errors import CardError, CheckpointError, ConfigError, DataError
from lexalcm.text.sonar import SonarDecoder, SonarEncoder
from tests.text.tiny_sonar import DECODER, ENCODER, JAPANESE, LANGS, SENTENCES, known_to_fairseq2

pytestmark = pytest.mark.usefixtures("sonar_cards")


@pytest.fixture(scope="module")
def encoder(sonar_cards: Path) -> SonarEncoder:
    return SonarEncoder(ENCODER)


@pytest.fixture(scope="module")
def decoder(sonar_cards: Path) -> SonarDecoder:
    return SonarDecoder(DECODER)


@pytest.fixture(scope="module")
def concepts(encoder: SonarEncoder) -> np.ndarray:
    return encoder.encode(SENTENCES, "eng_Latn")


def texts(decoder: SonarDecoder, concepts: np.ndarray, lang: str = "eng_Latn") -> list[str]:
    return [sentence.text for sentence in decoder.decode(concepts, lang)]


def test_concepts_say_their_sentences_in_any_language(decoder: SonarDecoder, concepts: np.ndarray) -> None:
    assert concepts.shape == (4, 16) and concepts.dtype == np.float32
    assert texts(decoder, concepts) == list(SENTENCES)
    assert texts(decoder, concepts, "jpn_Jpan") == list(JAPANESE)
    assert decoder.decode(concepts[:1], "eng_Latn")[0].cosine is None


def test_rows_keep_their_order_whatever_the_batch_size(encoder: SonarEncoder, concepts: np.ndarray) -> None:
    np.testing.assert_allclose(SonarEncoder(ENCODER, batch_tokens=1).encode(SENTENCES), concepts, rtol=1e-4, atol=1e-5)
    order = [2, 0, 3, 1]
    shuffled = encoder.encode([SENTENCES[i] for i in order])
    np.testing.assert_allclose(shuffled, concepts[order], rtol=1e-4, atol=1e-5)
    assert texts(SonarDecoder(DECODER, batch_size=3), concepts) == list(SENTENCES)


def test_no_sentences_give_no_concepts_and_no_concepts_no_sentences(
    encoder: SonarEncoder, decoder: SonarDecoder
) -> None:
    assert encoder.encode([]).shape == (0, 16)
    assert decoder.decode(np.zeros((0, 16), np.float32), "eng_Latn") == []


def test_concepts_are_those_of_the_pipeline(sonar_cards: Path) -> None:
    encoder = SonarEncoder(ENCODER, batch_tokens=40)
    sentences = [*SENTENCES, "Over a castle " * 20, "a", "Clans fought in Japan, " * 2, "\u6226\u4e89 \ufdfa"]
    for lang in LANGS:
        with pytest.warns(UserWarning, match="For 1 input tensors .* truncated to 64"):
            expected = encoder._pipeline.predict(sentences, lang, batch_size=5)
        concepts = encoder.encode_mixed(sentences, [lang] * len(sentences))
        np.testing.assert_allclose(concepts, expected, rtol=1e-6, atol=1e-6)
    expected = encoder._pipeline.predict(list(SENTENCES))
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, rtol=1e-6, atol=1e-6)


def test_mixed_languages_go_through_one_tokenizer_each_and_rows_stay_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    langs = [LANGS[i % len(LANGS)] for i in range(40)]
    sentences = [SENTENCES[i % 3] for i in range(40)]
    one_by_one = SonarEncoder(ENCODER)
    expected = np.concatenate([one_by_one.encode([s], lang) for s, lang in zip(sentences, langs)])
    encoder, made = SonarEncoder(ENCODER, batch_tokens=50), []
    tokenizer = encoder._pipeline.tokenizer
    create = tokenizer.create_encoder
    monkeypatch.setattr(
        tokenizer, "create_encoder", lambda **options: made.append(options["lang"]) or create(**options)
    )
    for _ in range(2):
        np.testing.assert_allclose(encoder.encode_mixed(sentences, langs), expected, rtol=1e-4, atol=1e-5)
        encoder.over_limit([*sentences[:4], "Over a castle " * 20], langs[:5])
    assert sorted(made) == sorted(LANGS)
    with pytest.raises(ValueError, match="40 sentences but 39 languages"):
        encoder.encode_mixed(sentences, langs[:-1])


def test_a_sentence_said_twice_is_encoded_once_a_language(
    encoder: SonarEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, rows = encoder._run, []
    monkeypatch.setattr(encoder, "_run", lambda tokens: rows.append(len(tokens)) or run(tokens))
    concepts = encoder.encode_mixed(
        ["The war ended.", "Many clans fought.", "The war ended.", "The war ended."],
        ["eng_Latn", "eng_Latn", "fra_Latn", "eng_Latn"],
    )
    assert sum(rows) == 3
    np.testing.assert_array_equal(concepts[0], concepts[3])
    assert not np.allclose(concepts[0], concepts[2])


def test_batches_are_bounded_by_their_padded_tokens(
    encoder: SonarEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, int]] = []
    model = encoder._pipeline.model
    hook = model.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(encoder, "_batch_tokens", 60)
    encoder.encode([("castle " * n).strip() + str(n) for n in range(1, 12)])
    hook.remove()
    assert sum(rows for rows, _ in shapes) == 11 and len(shapes) < 11
    assert all(rows * length <= 60 for rows, length in shapes)


def test_sentences_over_the_limit_are_told_before(encoder: SonarEncoder) -> None:
    read = encoder._pipeline.tokenizer.create_encoder(lang="eng_Latn")
    sentences = ["x" * n for n in range(55, 67)] + [SENTENCES[0] * 5, "\ufdfa" * 21, "Fine."]
    expected = [len(read(sentence)) > 64 for sentence in sentences]
    assert any(expected) and not all(expected) and encoder.max_tokens == 64
    assert encoder.over_limit(sentences, ["eng_Latn"] * len(sentences)).tolist() == expected
    assert encoder.over_limit([], []).shape == (0,)
    # SONAR's own tokenizer writes this one character as eighteen.
    assert encoder._may_be_long("\ufdfa" * 5) and not encoder._may_be_long("x" * 20)


def test_what_a_concept_depends_on_is_recorded(encoder: SonarEncoder) -> None:
    assert encoder.facts() == {
        "name": ENCODER, "kind": "sonar", "dim": 16, "max_tokens": 64, "tokenizer": ENCODER, "dtype": "float32",
        "device": "cpu",
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_have_the_data_type_asked_for_and_concepts_are_float32(
    dtype: torch.dtype, concepts: np.ndarray
) -> None:
    encoder, decoder = SonarEncoder(ENCODER, dtype=dtype), SonarDecoder(DECODER, dtype=dtype)
    for part in (encoder, decoder):
        assert {weight.dtype for weight in part._pipeline.model.parameters()} == {dtype}
    narrow = encoder.encode(SENTENCES)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, concepts, atol=0.1)
    assert texts(decoder, concepts) == list(SENTENCES)
    assert decoder.options["dtype"] == str(dtype).removeprefix("torch.")


def test_a_sentence_that_is_too_long_is_named(encoder: SonarEncoder, caplog: pytest.LogCaptureFixture) -> None:
    sentences = ["Many clans fought.", "Over a castle " * 20]
    with caplog.at_level(logging.WARNING):
        cut = encoder.encode(sentences)
    assert 'SONAR takes 64 tokens; the rest of 1 sentences is cut off: "Over a castle Over' in caplog.text
    np.testing.assert_allclose(cut[1:], encoder.encode([sentences[1] + "and on"]), rtol=1e-4, atol=1e-5)
    caplog.clear()
    encoder.encode_mixed([*sentences, sentences[1], sentences[1] + "."], ["eng_Latn", *["fra_Latn"] * 3])
    assert [record.getMessage() for record in caplog.records if "cut off" in record.getMessage()] == [
        f'SONAR takes 64 tokens; the rest of 3 sentences is cut off: "{sentences[1][:60]}..."; "{sentences[1][:60]}..."'
    ]


@pytest.mark.parametrize(("sentence", "what"), [("", "is empty"), (" \n", "is empty"), ("half \ud83d", "not Unicode")])
def test_a_sentence_that_is_none_is_refused(encoder: SonarEncoder, sentence: str, what: str) -> None:
    with pytest.raises(DataError, match=f"Sentence 1 of 2 .*{what}"):
        encoder.encode(["Fine.", sentence])


def test_a_concept_that_is_not_finite_is_refused() -> None:
    encoder = SonarEncoder(ENCODER)
    with torch.no_grad():
        encoder._pipeline.model.layer_norm.weight.fill_(torch.inf)
    with pytest.raises(DataError, match='not finite for sentence 0, "Many clans fought."'):
        encoder.encode(["Many clans fought."])


def test_unknown_languages_are_refused(encoder: SonarEncoder, decoder: SonarDecoder, concepts: np.ndarray) -> None:
    with pytest.raises(ConfigError, match='Did you mean "eng_Latn"'):
        encoder.encode(["Fine."], "en")
    with pytest.raises(ConfigError, match='Did you mean "jpn_Jpan"'):
        decoder.decode(concepts, "ja")
    with pytest.raises(ConfigError, match="say which one"):
        decoder.decode(concepts)


def test_concepts_of_another_width_or_not_finite_are_refused(decoder: SonarDecoder) -> None:
    with pytest.raises(DataError, match=r"tiny_sonar_decoder.* of 16 numbers.*shape \[1, 8\]"):
        decoder.decode(np.zeros((1, 8), np.float32), "eng_Latn")
    with pytest.raises(DataError, match="Concept 0 of 1 has NaN"):
        decoder.decode(np.full((1, 16), np.nan, np.float32), "eng_Latn")


def test_options_reach_the_decoder_and_are_recorded(concepts: np.ndarray) -> None:
    decoder = SonarDecoder(DECODER, options={"beam_size": 1, "max_length": 4})
    assert texts(decoder, concepts[:1]) == ["The Sengoku era"]
    assert decoder.options == {
        "method": "beam_search", "beam_size": 1, "len_penalty": 1.0, "temperature": 1.0, "unk_penalty": 0.0,
        "min_length": 1, "max_length": 4, "dtype": "float32",
    }  # fmt: skip
    assert SonarDecoder(DECODER).options["max_length"] == 62
    with pytest.raises(ConfigError, match="`max_length` is 63, but the decoder writes 62 tokens at most"):
        SonarDecoder(DECODER, options={"max_length": 63})


def test_sampling_is_repeated_by_its_seed_whatever_is_decoded_beside() -> None:
    concepts = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    options = {"top_p": 1.0, "temperature": 3.0, "max_length": 8, "seed": 1}
    decoder = SonarDecoder(DECODER, options=options)
    torch.manual_seed(0)
    sampled = texts(decoder, concepts)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after), "sampling has moved the random numbers of others"
    assert texts(decoder, concepts[::-1])[::-1] == sampled
    assert texts(decoder, concepts * (1 + 1e-6)) == sampled
    assert texts(SonarDecoder(DECODER, options={**options, "seed": 2}), concepts) != sampled


def test_only_the_likeliest_tokens_are_sampled(concepts: np.ndarray) -> None:
    assert texts(SonarDecoder(DECODER, options={"top_p": 0.01}), concepts) == list(SENTENCES)


def test_a_card_of_something_else_is_refused() -> None:
    with pytest.raises(CardError, match='no card "tiny_sonar_enc". Did you mean "tiny_sonar_encoder"'):
        SonarEncoder("tiny_sonar_enc")
    with pytest.raises(CardError, match="is not one of a SONAR text model: its `model_family` is"):
        SonarEncoder(DECODER)


def test_missing_files_are_told_with_the_card_and_how_to_give_local_ones(
    sonar_folder: Path, tmp_path: Path, encoder: SonarEncoder
) -> None:
    folder = Path(shutil.copytree(sonar_folder, tmp_path / "cards"))
    (folder / f"{ENCODER}.pt").unlink()
    (folder / f"{DECODER}.pt").write_bytes(b"no checkpoint")
    # What the message tells to do:
    (folder / "own.yaml").write_text(f"name: my_sonar\nbase: {ENCODER}\ncheckpoint: {sonar_folder / ENCODER}.pt\n")
    with known_to_fairseq2(folder):
        told = f'model of SONAR card "{ENCODER}"(.|\n)*FAIRSEQ2_ASSET_DIR'
        with pytest.raises(CheckpointError, match=told) as missing:
            SonarEncoder(ENCODER)
        assert len(str(missing.value).splitlines()) <= 3
        with pytest.raises(CheckpointError, match=f'model of SONAR card "{DECODER}" cannot be loaded'):
            SonarDecoder(DECODER)
        np.testing.assert_array_equal(SonarEncoder("my_sonar").encode(SENTENCES), encoder.encode(SENTENCES))
        (folder / "sonar.model").unlink()
        with pytest.raises(CheckpointError, match='tokenizer of SONAR card "my_sonar" cannot be loaded'):
            SonarEncoder("my_sonar")


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexalcm.memory.available_memory", lambda device: 1000)
    with pytest.raises(ConfigError, match=f'card "{ENCODER}" needs .* MiB of memory on cpu, but only .* available'):
        SonarEncoder(ENCODER)


def test_weights_are_mapped_not_copied_and_never_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    load, asked = torch.load, []
    monkeypatch.setattr("torch.load", lambda *args, **options: asked.append(options) or load(*args, **options))
    SonarEncoder(ENCODER)
    SonarDecoder(DECODER)
    assert [(options["mmap"], options["weights_only"]) for options in asked] == [(True, True)] * 2


def test_memory_that_runs_out_while_loading_is_told_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **options: object) -> None:
        raise RuntimeError("unable to mmap 99 bytes from file: Cannot allocate memory (12)")

    monkeypatch.setattr("torch.load", load)
    told = f'card "{DECODER}" needs .* MiB of memory, and did not get it: unable to mmap'
    with pytest.raises(ConfigError, match=told):
        SonarDecoder(DECODER)
