"""Chooses a sentence encoder by what a user writes: ``sonar``, ``sonar:CARD``, ``hf:FOLDER`` or ``stand_in``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lexalcm.errors import ConfigError, unknown_name
from lexalcm.text.interface import SentenceEncoder
from lexalcm.text.languages import SONAR_CARD

ENCODER_KINDS: Final = ("sonar", "hf", "stand_in")
ENCODER_DTYPES: Final = ("float32", "bfloat16", "float16")

_STAND_IN_DIM: Final = 1024
_FORMS: Final = "Encoders are sonar, sonar:CARD, hf:FOLDER and stand_in."


def create_encoder(
    spec: str = "sonar",
    *,
    device: str = "cpu",
    dtype: str = "float32",
    batch_tokens: int | None = None,
    dim: int | None = None,
    tokenizer: str | None = None,
    pooling: str | None = None,
) -> SentenceEncoder:
    """
    :param device: The stand-in is on the CPU whatever it is.
    :param dtype: Of the weights: float32, bfloat16 or float16.
    :param batch_tokens: Tokens that go through the model together; None suits the device. The stand-in has none.
    :param dim: Of the stand-in; None is 1024.
    :param tokenizer: Of SONAR, the name of a card; None is the encoder's own.
    :param pooling: Of a Hugging Face encoder; None is what its folder says, or else the mean.
    :raises ConfigError: An unknown encoder, a device that is not there, or a value that the encoder does not have.
    :raises CardError: No such card of SONAR.
    :raises CheckpointError: The weights, the tokenizer or the folder is missing or damaged.
    :raises SetupError: The package that runs it is missing, or does not fit.
    """
    kind, of_kind = _read(spec, dtype=dtype, dim=dim, tokenizer=tokenizer, pooling=pooling)
    import torch

    from lexalcm.device import check_device

    where = check_device(device)
    if kind == "stand_in":
        from lexalcm.text.stand_in_encoder import StandInEncoder

        return StandInEncoder(_STAND_IN_DIM if dim is None else dim)
    weights = getattr(torch, dtype)
    if kind == "hf":
        from lexalcm.text.huggingface_encoder import HuggingFaceEncoder

        return HuggingFaceEncoder(of_kind, pooling=pooling, device=where, dtype=weights, batch_tokens=batch_tokens)
    from lexalcm.text.sonar import SonarEncoder

    return SonarEncoder(of_kind, tokenizer=tokenizer, device=where, dtype=weights, batch_tokens=batch_tokens)


def check_encoder(
    spec: str,
    *,
    dtype: str = "float32",
    dim: int | None = None,
    tokenizer: str | None = None,
    pooling: str | None = None,
) -> None:
    """What can be told of :func:`create_encoder` without loading a model; raises the same errors."""
    kind, of_kind = _read(spec, dtype=dtype, dim=dim, tokenizer=tokenizer, pooling=pooling)
    if kind == "hf":
        from lexalcm.text.huggingface_folder import read_encoder_folder

        read_encoder_folder(of_kind, pooling=pooling)
    elif kind == "sonar":
        from lexalcm.text.languages import sonar_languages

        sonar_languages(tokenizer or of_kind)


def _read(
    spec: str, *, dtype: str, dim: int | None, tokenizer: str | None, pooling: str | None
) -> tuple[str, str]:
    """The kind of encoder, and the card or folder."""
    kind, colon, of_kind = spec.partition(":")
    if kind not in ENCODER_KINDS:
        if Path(spec).is_dir():
            raise ConfigError(f'"{spec}" is not a known encoder, but a folder. Did you mean "hf:{spec}"?')
        raise ConfigError(f"{unknown_name('encoder', spec, ENCODER_KINDS).partition(' Known:')[0]} {_FORMS}")
    if (kind == "stand_in" and colon) or (kind == "hf" and not of_kind) or (colon and not of_kind):
        raise ConfigError(f'"{spec}" is not the form of an encoder. {_FORMS}')
    if dtype not in ENCODER_DTYPES:
        raise ConfigError(f"`dtype` of an encoder: {unknown_name('data type', dtype, ENCODER_DTYPES)}")
    for name, value, owner in (("dim", dim, "stand_in"), ("tokenizer", tokenizer, "sonar"), ("pooling", pooling, "hf")):
        if value is not None and kind != owner:
            raise ConfigError(f'The encoder "{spec}" takes no `{name}`, which is {value} here; only {owner} does.')
    if kind == "stand_in" and dtype != "float32":
        raise ConfigError(f'The encoder "stand_in" has no weights: its `dtype` is float32, not {dtype}.')
    if dim is not None and dim < 1:
        raise ConfigError(f"`dim` of an encoder must be at least 1, but is {dim}.")
    return kind, of_kind or SONAR_CARD
