"""What a local folder of a Hugging Face encoder says of itself: where its parts lie, and how a vector is made of them.

A folder of sentence-transformers (``modules.json``) names its pooling; any other has the mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from lexalcm.errors import CheckpointError, ConfigError, unknown_name

Pooling = Literal["mean", "cls", "max", "last"]
"""A sentence's vector: mean or maximum over its tokens, the first token's, or the last one's."""

_CONFIG_FILE: Final = "config.json"
_WEIGHT_FILES: Final = ("*.safetensors", "pytorch_model*.bin")
_FINGERPRINT_BYTES: Final = 1 << 20
_POOLING_FLAGS: Final[dict[str, Pooling]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True, kw_only=True)
class EncoderFolder:
    """Read from the folder's small files; nothing is loaded."""

    path: Path
    """Of the model's configuration, weights and tokenizer."""

    name: str
    pooling: Pooling

    normalize: bool
    """Vectors are brought to length 1."""

    lower: bool
    """Text is written in small letters first."""

    max_tokens: int | None
    """Of a sentence; None where the folder does not say."""

    weights: Mapping[str, str]
    """Files with what tells them from others of the same name."""


def read_encoder_folder(folder: Path | str, *, pooling: str | None = None) -> EncoderFolder:
    """
    :param pooling: Instead of the folder's own.
    :raises CheckpointError: There is no such folder, or no encoder in it, or one with a part that is not known here.
    :raises ConfigError: There is no such pooling.
    """
    folder = Path(folder)
    if pooling is not None and pooling not in get_args(Pooling):
        raise ConfigError(f"`pooling`: {unknown_name('pooling', pooling, get_args(Pooling))}")
    if not folder.is_dir():
        raise CheckpointError(f'There is no folder "{folder}". An encoder hf:FOLDER is read from the disk alone.')
    modules = _read_modules(folder)
    path = folder / modules.get("Transformer", "")
    if not (path / _CONFIG_FILE).is_file():
        raise CheckpointError(f'There is no {_CONFIG_FILE} in "{path}", so it is not the folder of an encoder.')
    weights = {file.name: _fingerprint(file) for kind in _WEIGHT_FILES for file in sorted(path.glob(kind))}
    if not weights:
        raise CheckpointError(f'There are no weights in "{path}": no model.safetensors and no pytorch_model.bin.')
    transformer = _read_json(path / "sentence_bert_config.json")
    return EncoderFolder(
        path=path,
        name=folder.resolve().name,
        pooling=pooling or _read_pooling(folder / modules.get("Pooling", "1_Pooling") / _CONFIG_FILE),
        normalize="Normalize" in modules,
        lower=bool(transformer.get("do_lower_case")),
        max_tokens=transformer.get("max_seq_length"),
        weights=weights,
    )


def _read_modules(folder: Path) -> dict[str, str]:
    """The parts of a model of sentence-transformers by kind, and the folder of each; empty for other models."""
    file = folder / "modules.json"
    modules = {str(part["type"]).rsplit(".", 1)[-1]: str(part["path"]) for part in _read_json(file, kind=list)}
    if other := modules.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise CheckpointError(
            f'"{file}" has a module {min(other)}, which is not known here: Transformer, Pooling and Normalize are.'
        )
    prompt = _read_json(folder / "config_sentence_transformers.json").get("default_prompt_name")
    if prompt is not None:
        raise CheckpointError(f'The encoder in "{folder}" puts its prompt "{prompt}" first, which is not done here.')
    return modules


def _read_pooling(file: Path) -> Pooling:
    config = _read_json(file)
    if not config:
        return "mean"
    on = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    # Releases differ: one name, or a flag for each.
    name = config.get("pooling_mode") or (_POOLING_FLAGS.get(on[0]) if len(on) == 1 else None)
    name = {"lasttoken": "last"}.get(name, name)
    if name not in get_args(Pooling):
        raise CheckpointError(
            f'"{file}" asks for {" and ".join(on) or name or "no pooling"}, which is not known here. '
            f"Choose among {', '.join(get_args(Pooling))} yourself (pooling)."
        )
    return name


def _read_json(file: Path, *, kind: type = dict) -> Any:
    """What is in the file, empty where there is none."""
    if not file.is_file():
        return kind()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as ex:
        raise CheckpointError(f'"{file}" is no JSON: {ex}') from None
    if not isinstance(content, kind):
        raise CheckpointError(f'"{file}" must hold a JSON {"object" if kind is dict else "array"}.')
    return content


def _fingerprint(file: Path) -> str:
    """Tells files of weights apart at once: of a large one, its start, middle and end are read."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(file, "rb") as stream:
        for start in (0, size // 2, max(0, size - _FINGERPRINT_BYTES)):
            stream.seek(start)
            digest.update(stream.read(_FINGERPRINT_BYTES))
    return digest.hexdigest()[:16]
