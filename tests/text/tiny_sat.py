"""A SaT of one layer, saved as the published ones are, whose weights say: a sentence ends at a full stop."""

from __future__ import annotations

import shutil
import string
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module

ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f")

_HIDDEN = 8


def build_tiny_sat(folder: Path, *, with_tokenizer: bool = True, random: bool = False) -> Path:
    """Writes a model, and a tokenizer that takes each word and each punctuation mark as a token.

    :param random: Weights that say nothing: each probability depends on all tokens of its window. The tokenizer takes
        letters as tokens then.
    :returns: ``folder``, for ``SaT(folder, tokenizer_name_or_path=folder)``, without a network.
    """
    import torch
    from wtpsplit.configs import SubwordXLMConfig
    from wtpsplit.models import SubwordXLMForTokenClassification

    folder.mkdir(parents=True, exist_ok=True)
    vocab = ["<s>", "<pad>", "</s>", "<unk>", *ENDS, *(string.printable.strip() if random else ())]
    vocab = list(dict.fromkeys(vocab))
    hidden = 64 if random else _HIDDEN
    config = SubwordXLMConfig(
        vocab_size=len(vocab),
        hidden_size=hidden,
        num_hidden_layers=2 if random else 1,
        num_attention_heads=4 if random else 1,
        intermediate_size=hidden,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        model = SubwordXLMForTokenClassification(config).eval()
    with torch.no_grad():
        if random:
            _draw_weights(model)
        else:
            _say_ends(model)
    model.save_pretrained(folder)
    if with_tokenizer:
        _write_tokenizer(folder, vocab, letters=random)
    return folder


def export_to_onnx(folder: Path, target: Path, *, name: str = "model_optimized.onnx") -> Path:
    """Writes the model of ``folder`` the way the published ones are: the mask in half precision, any batch and length.

    :returns: ``target``, which holds the config and the tokenizer too.
    """
    import torch
    import wtpsplit.models  # noqa: F401
    from transformers import AutoModelForTokenClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForTokenClassification.from_pretrained(folder, attn_implementation="eager")

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask.float()).logits

    target.mkdir(parents=True)
    for file in folder.glob("*.json"):
        shutil.copy(file, target)
    axes = {0: "batch", 1: "sequence"}
    with warnings.catch_warnings():
        # The older exporter, as wtpsplit's script has it, is called old and traces branches.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits().eval(),
            (torch.full((2, 8), 4), torch.ones(2, 8, dtype=torch.float16)),
            str(target / name),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": axes},
            dynamo=False,
        )
    return target


def _draw_weights(model: Module) -> None:
    import torch

    for name, weight in model.named_parameters():
        if "LayerNorm" not in name:
            torch.nn.init.normal_(weight, std=0.3)


def _say_ends(model: Module) -> None:
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


def _write_tokenizer(folder: Path, vocab: list[str], *, letters: bool) -> None:
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Punctuation, Sequence, Split, WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(vocab)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Sequence(
        [WhitespaceSplit(), Split(Regex("."), "isolated") if letters else Punctuation("isolated")]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
