"""A SONAR of a few thousand weights: real checkpoints, SentencePiece model and cards, for the real pipelines.

It has learned four sentences by heart, and writes them in English or Japanese; of any other concept it makes something.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Module
from torch.nn.functional import cross_entropy

ENCODER = "tiny_sonar_encoder"
DECODER = "tiny_sonar_decoder"
LANGS = ("deu_Latn", "eng_Latn", "fra_Latn", "jpn_Jpan", "spa_Latn")

SENTENCES = (
    "The Sengoku era was a period of great conflict in Japan.",
    "Many clans fought.",
    "A castle fell, and another was built.",
    "The war ended.",
)
JAPANESE = (
    "\u6226\u56fd\u6642\u4ee3\u306f\u4e89\u3044\u306e\u6642\u4ee3\u3060\u3063\u305f\u3002",
    "\u591a\u304f\u306e\u6c0f\u65cf\u304c\u6226\u3063\u305f\u3002",
    "\u57ce\u304c\u843d\u3061\u3001\u5225\u306e\u57ce\u304c\u5efa\u3063\u305f\u3002",
    "\u6226\u4e89\u306f\u7d42\u308f\u3063\u305f\u3002",
)
"""The same sentences. Every other language is English to it."""


def build_tiny_sonar(folder: Path, dim: int = 8, *, max_seq_len: int = 64, seed: int = 0) -> Path:
    """Writes an encoder, a decoder, their tokenizer, and ``sonar.yaml`` with the cards of both.

    :param dim: Width of a concept; even.
    :param max_seq_len: Tokens that the encoder takes, marks included, and that the decoder writes at most.
    :returns: ``folder``, which fairseq2 finds as ``FAIRSEQ2_ASSET_DIR``, or as an extra path of assets.
    """
    from sonar.models.sonar_text import SonarTextDecoderFactory, SonarTextEncoderFactory

    folder.mkdir(parents=True, exist_ok=True)
    pieces = write_sentencepiece_model(folder / "sonar.model", SENTENCES + JAPANESE)
    # fairseq2 adds the languages, three more marks and <pad>.
    vocab_size = pieces + len(LANGS) + 4
    cards = (_card(name, dim, max_seq_len, vocab_size) for name in (ENCODER, DECODER))
    (folder / "sonar.yaml").write_text("\n---\n".join(cards), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SonarTextEncoderFactory(_config(ENCODER, dim, max_seq_len, vocab_size)).create_model().eval()
        decoder = SonarTextDecoderFactory(_config(DECODER, dim, max_seq_len, vocab_size)).create_model().eval()
    _learn_by_heart(encoder, decoder, folder / "sonar.model")
    for name, model in ((ENCODER, encoder), (DECODER, decoder)):
        torch.save({"model": model.state_dict()}, folder / f"{name}.pt")
    return folder


@contextmanager
def known_to_fairseq2(folder: Path) -> Iterator[None]:
    """The cards of ``folder`` are those that this process finds, as if it had started with ``FAIRSEQ2_ASSET_DIR``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIRSEQ2_ASSET_DIR", str(folder))
        patch.setenv("FAIRSEQ2_NO_PROGRESS", "1")
        patch.setattr("fairseq2.runtime.dependency._resolver", None)
        yield


def write_sentencepiece_model(file: Path, sentences: Sequence[str]) -> int:
    """Writes a unigram model that knows the words and characters of ``sentences`` and all printable ASCII.

    :returns: The number of pieces.
    """
    words = sorted({"\u2581" + word for sentence in sentences for word in sentence.split()})
    ascii_characters = {chr(code) for code in range(33, 127)}
    characters = sorted({"\u2581", *ascii_characters, *"".join(sentences).replace(" ", "")})
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(word, -2.0, 1) for word in words] + [(character, -6.0, 1) for character in characters]
    model = b"".join(
        _field(1, _field(1, piece.encode()) + _float(2, score) + _number(3, kind)) for piece, score, kind in pieces
    )
    trainer = _number(3, 1)  # unigram
    normalizer = _field(1, b"identity") + _number(3, 1) + _number(4, 1) + _number(5, 1)
    file.write_bytes(model + _field(2, trainer) + _field(3, normalizer))
    return len(pieces)


def _learn_by_heart(encoder: Module, decoder: Module, tokenizer_file: Path) -> None:
    """A second of training."""
    from fairseq2.models.nllb import NllbTokenizerConfig, load_nllb_tokenizer
    from fairseq2.nn import BatchLayout
    from fairseq2.nn.utils.padding import pad_seqs

    tokenizer = load_nllb_tokenizer(tokenizer_file, NllbTokenizerConfig(langs=list(LANGS), default_lang="eng_Latn"))
    read = tokenizer.create_encoder(lang="eng_Latn")
    source = pad_seqs([read(sentence) for sentence in SENTENCES], pad_value=0)
    written = []
    for lang in LANGS:
        write = tokenizer.create_encoder(lang=lang, mode="target")
        written += [write(sentence) for sentence in (JAPANESE if lang == "jpn_Jpan" else SENTENCES)]
    tokens, layout = pad_seqs(written, pad_value=0)
    before, after = tokens[:, :-1], tokens[:, 1:]
    before_layout = BatchLayout(before.shape, [length - 1 for length in layout.seq_lens])
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=0.02)
    for _ in range(400):
        concepts = encoder(*source).sentence_embeddings.repeat(len(LANGS), 1).unsqueeze(1)
        hidden = decoder.decode(before, before_layout, concepts, BatchLayout.of(concepts))
        loss = cross_entropy(decoder.project(hidden).mT, after, ignore_index=0, reduction="none")
        # The language is a matter of chance; beam search counts its likelihood all the same.
        if loss[:, 1:].max().item() < 0.1:
            return
        optimizer.zero_grad()
        loss.sum().div((after != 0).sum()).backward()
        optimizer.step()
    raise AssertionError(f"The tiny SONAR has not learned its sentences: {loss.max().item()}.")


def _config(name: str, dim: int, max_seq_len: int, vocab_size: int) -> Any:
    from fairseq2.data.tokenizers import VocabularyInfo
    from sonar.models.sonar_text import SonarTextDecoderConfig, SonarTextEncoderConfig

    kind = SonarTextEncoderConfig if name == ENCODER else SonarTextDecoderConfig
    fields = {**_SHARED, **(_ENCODER_FIELDS if name == ENCODER else _DECODER_FIELDS)}
    vocab_info = VocabularyInfo(size=vocab_size, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=1)
    return kind(model_dim=dim, max_seq_len=max_seq_len, vocab_info=vocab_info, ffn_inner_dim=2 * dim, **fields)


_SHARED: dict[str, Any] = {
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "num_encoder_attn_heads": 1,
    "num_decoder_attn_heads": 1,
}
_ENCODER_FIELDS: dict[str, Any] = {"pooling": "mean"}
_DECODER_FIELDS: dict[str, Any] = {
    "activation_fn": "ReLU",
    "no_scale_embedding": False,
    "no_token_positional_embeddings": False,
    "learned_pos": False,
    "emb_dropout_p": 0.1,
    "attention_dropout_p": 0.1,
    "activation_dropout_p": 0.1,
    "normalize_before": True,
}


def _card(name: str, dim: int, max_seq_len: int, vocab_size: int) -> str:
    layers = "".join(f"    {field}: {value}\n" for field, value in _SHARED.items())
    langs = ", ".join(LANGS)
    return (
        f"name: {name}\n"
        f"model_family: transformer_{'encoder' if name == ENCODER else 'decoder'}\n"
        f"model_arch: basic\n"
        f"model_config:\n"
        f"  _set_:\n"
        f"    model_dim: {dim}\n"
        f"    max_seq_len: {max_seq_len}\n"
        f"    ffn_inner_dim: {2 * dim}\n"
        f"    vocab_info: {{size: {vocab_size}, unk_idx: 1, bos_idx: 2, eos_idx: 3, pad_idx: 1}}\n"
        f"{layers}" + ("    _from_fairseq: false\n" if name == ENCODER else "") + f"checkpoint: {name}.pt\n"
        f"tokenizer: sonar.model\n"
        f"tokenizer_family: nllb\n"
        f"tokenizer_config:\n"
        f"  _set_:\n"
        f"    default_lang: eng_Latn\n"
        f"    langs: [{langs}]\n"
    )


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _field(number: int, value: bytes) -> bytes:
    """A field of Protocol Buffers that holds bytes, text or a message."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | 5) + struct.pack("<f", value)
