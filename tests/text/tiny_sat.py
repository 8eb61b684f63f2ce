"""A SaT of one layer, saved as the published ones are, whose weights say: a sentence ends at a full stop."""

from __future__ import annotations

from pathlib import Path

ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f")

_HIDDEN = 8


def build_tiny_sat(folder: Path, *, with_tokenizer: bool = True) -> Path:
    """Writes a model, and a tokenizer that takes each word and each punctuation mark as a token.

    :returns: ``folder``, for ``SaT(folder, tokenizer_name_or_path=folder)``, without a network.
    """
    import torch
    from wtpsplit.configs import SubwordXLMConfig
    from wtpsplit.models import SubwordXLMForTokenClassification

    folder.mkdir(parents=True, exist_ok=True)
    vocab = ["<s>", "<pad>", "</s>", "<unk>", *ENDS]
    config = SubwordXLMConfig(
        vocab_size=len(vocab),
        hidden_size=_HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=_HIDDEN,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=1,
        pad_token_id=1,
    )
    model = SubwordXLMForTokenClassification(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        for name, weight in model.named_parameters():
            if "LayerNorm.weight" in name:
                weight.fill_(1.0)
        # Only a token's own embedding passes through: its first number is high at an end, and low elsewhere.
        words = model.roberta.embeddings.word_embeddings.weight
        words[:, 0] = -1.0
        words[4:, 0] = 1.0
        words[:, 1] = -words[:, 0]
        model.classifier.weight[0, 0] = 2.5
    model.save_pretrained(folder)
    if with_tokenizer:
        _write_tokenizer(folder, vocab)
    return folder


def _write_tokenizer(folder: Path, vocab: list[str]) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Punctuation, Sequence, WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(vocab)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Sequence([WhitespaceSplit(), Punctuation("isolated")])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
