"""Encoders of one layer in the layout of the Hugging Face hub, with tokenizers that know some words and letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

DIM = 16
WORDS = ("the", "war", "ended", "many", "clans", "fought", "a", "castle", "fell")
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,\u6226\u4e89"


def build_m2m100(folder: Path, *, encoder_only: bool = False, dtype: torch.dtype = torch.float32) -> Path:
    """With NLLB's tokenizer, as SONAR's converted encoder has it.

    :param encoder_only: Writes the weights of the encoder alone, under their own names.
    """
    from transformers import M2M100Config, M2M100Model, NllbTokenizerFast
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

    pieces = ["<s>", "<pad>", "</s>", "<unk>", *("\u2581" + word for word in WORDS), "\u2581", *CHARACTERS]
    _write_unigram(folder, pieces)
    tokenizer = NllbTokenizerFast(tokenizer_file=str(folder / "unigram.json"), model_max_length=1024)
    (folder / "unigram.json").unlink()
    tokenizer.save_pretrained(folder)
    config = M2M100Config(
        vocab_size=len(tokenizer), d_model=DIM, max_position_embeddings=64, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    return _write_model(folder, M2M100Encoder if encoder_only else M2M100Model, config, dtype)


def build_bert(folder: Path, *, max_tokens: int = 32, pooler: bool = True) -> Path:
    """With a tokenizer of words and letters, which knows no languages and gives no limit."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(set(CHARACTERS.lower()))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *("##" + c for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)), encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=DIM, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=max_tokens,
    )  # fmt: skip
    return _write_model(folder, BertModel, config, torch.float32, add_pooling_layer=pooler)


def write_sentence_transformers(
    folder: Path, *, pooling: dict[str, Any], kinds: tuple[str, ...], **transformer: Any
) -> None:
    """Says beside a model what sentence-transformers would: its modules, pooling, and options of the first module."""
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [
        {"idx": i, "path": paths.get(kind, f"{i}_{kind}"), "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps(transformer))


def _write_model(folder: Path, kind: type, config: Any, dtype: torch.dtype, **options: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config, **options)
        # Weights of a fresh model are so small that nothing would show.
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.to(dtype).save_pretrained(folder)
    return folder


def _write_unigram(folder: Path, pieces: list[str]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    model = models.Unigram([(piece, -2.0 if len(piece) > 1 else -6.0) for piece in pieces], unk_id=3)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.save(str(folder / "unigram.json"))
