"""Normalizer statistics as a file: safetensors that tell how they were made, or the ``.pt`` layout of Meta's release.

Shapes: C dimensions of a concept.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lexalcm.checkpoints.safetensors_file import read_safetensors_header
from lexalcm.checkpoints.torch_file import read_torch_file
from lexalcm.errors import CheckpointError
from lexalcm.models.normalizer.config import NORMALIZER_FAMILY, NormalizerConfig, normalizer_arch
from lexalcm.models.normalizer.interop import convert_normalizer_state_dict, to_reference_state_dict
from lexalcm.models.normalizer.statistics import NormalizerStatistics
from lexalcm.shown import shown

SUFFIXES: Final = (".safetensors", ".pt")

_NAMES: Final = ("center", "scale", "clip_min", "clip_max")

_FFT_FACT: Final = "with_fft"


def read_normalizer_file(path: str | Path, dim: int | None = None) -> tuple[NormalizerStatistics, dict[str, Any]]:
    """Reads statistics: a file of :func:`save_normalizer_file`, or any other that holds tensors of these names.

    A ``.pt`` file has the layout of Meta's release, with or without its wrapper ``model``. It does not say whether its
    statistics are those of the Fourier transform: ``with_fft`` is ``None`` then, and only a card or the model's
    configuration knows.

    :param dim: C; None takes what the file has.
    :returns: The statistics, float32, and the recorded facts (of a ``.pt`` file its ``dataset_mixture`` alone).
    :raises CheckpointError: The file is missing, damaged or of another kind, lacks a tensor, has another dimension, or
        holds values that cannot be used.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"normalizer file `{path}` does not exist. Make one: `fairseq2 lcm fit-normalizer DATASET {path.name}`."
        )
    if path.suffix in (".yaml", ".yml"):
        raise CheckpointError(
            f"normalizer file `{path}` is a card. Set `normalizer.name` to it, or name the file of its `checkpoint`."
        )
    found, facts = _read_pt(path) if path.suffix == ".pt" else _read_safetensors(path)
    if "center" not in found or "scale" not in found:
        raise CheckpointError(
            f"normalizer file `{path}` must hold the tensors `center` and `scale`, but has"
            f" {shown(', '.join(sorted(found)) or 'none')}."
        )
    tensors = {name: found[name] for name in _NAMES if name in found}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"normalizer file `{path}`: `{name}` must be a tensor, but is a {type(value).__name__}."
            )
        tensors[name] = value.float()
    with_fft = facts.pop(_FFT_FACT, None)
    statistics = NormalizerStatistics(**tensors, with_fft=with_fft if isinstance(with_fft, bool) else None)
    if (fault := statistics.fault()) is not None:
        raise CheckpointError(f"normalizer file `{path}`: {fault}. Fit it again.")
    if dim is not None and statistics.dim != dim:
        raise CheckpointError(
            f"normalizer file `{path}` was fitted on concepts of {statistics.dim} dimensions, but {dim} are expected."
            " Fit one on the dataset in use, or set the model's `concept_dim`."
        )
    return statistics, facts


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    read_safetensors_header(path, "normalizer file", wanted=_NAMES)
    try:
        with safe_open(path, framework="pt") as file:
            # Of others the name alone is of use, to say what is there instead.
            tensors = {name: file.get_tensor(name) if name in _NAMES else None for name in file.keys()}
            facts = file.metadata() or {}
    except SafetensorError as ex:
        raise CheckpointError(f"normalizer file `{path}` cannot be read ({shown(ex)}).") from ex
    return tensors, {key: _read_fact(value) for key, value in facts.items()}


def _read_pt(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    content = read_torch_file(path, "normalizer file")
    mixture = content.get("dataset_mixture")
    return convert_normalizer_state_dict(content, NormalizerConfig()), (
        {} if mixture is None else {"dataset_mixture": mixture}
    )


def save_normalizer_file(
    path: str | Path, statistics: NormalizerStatistics, facts: dict[str, Any], *, sources: Sequence[str] = ()
) -> None:
    """Writes statistics; a file that stands there is replaced only when the new one is complete.

    :param path: Ends in ``.safetensors``, or in ``.pt`` for the layout of Meta's release, which has no room for facts.
    :param facts: What to record beside the tensors; anything that JSON can hold.
    :param sources: Names of the datasets that the statistics were fitted on, for a ``.pt`` file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tensors = {name: value.float().contiguous() for name, value in statistics.tensors().items()}
    try:
        if path.suffix == ".pt":
            torch.save(to_reference_state_dict(tensors, sources=list(sources)), aside)
        else:
            recorded = {**facts, _FFT_FACT: bool(statistics.with_fft)}
            save_file(tensors, aside, metadata={key: json.dumps(value) for key, value in recorded.items()})
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_normalizer_card(path: str | Path, config: NormalizerConfig, arch: str = "base") -> Path:
    """Writes ``<stem>.yaml`` beside a statistics file: a model card that names it by relative path.

    :param config: How the statistics were fitted; what differs from ``arch`` goes into the card.
    :returns: The card's path.
    """
    path = Path(path)
    card: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_.\-]", "_", path.stem),
        "model_family": NORMALIZER_FAMILY,
        "model_arch": arch,
    }
    base = vars(normalizer_arch(arch))
    changed = {key: value for key, value in vars(config).items() if value != base[key]}
    if changed:
        card["model_config"] = changed
    card["checkpoint"] = path.name
    card_path = path.with_suffix(".yaml")
    card_path.write_text(yaml.safe_dump(card, sort_keys=False), encoding="ascii")
    return card_path


def _read_fact(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
