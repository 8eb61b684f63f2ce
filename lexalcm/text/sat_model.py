"""Loads a SaT and its tokenizer, for PyTorch or ONNX Runtime, from the hub or from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import torch

from lexalcm.errors import CheckpointError, ConfigError, SetupError, unknown_name
from lexalcm.text.sat_windows import SatModel

Backend = Literal["torch", "onnx"]

_HUB: Final = "segment-any-text"
_TOKENIZER: Final = "facebookAI/xlm-roberta-base"
_TOKENIZER_FILES: Final = ("tokenizer.json", "sentencepiece.bpe.model")
_ONNX_FILES: Final = ("model_optimized.onnx", "model.onnx")
_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_NUMPY_TYPES: Final = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


def load_sat(
    model: str | Path, tokenizer: str | Path | None, *, backend: Backend, device: torch.device
) -> tuple[SatModel, Any]:
    """
    :param model: A name of the hub, or a folder; so is ``tokenizer``, where None is the model's folder if it holds one.
    :returns: The model, and a tokenizer of transformers.
    :raises CheckpointError: One of them is not there, or damaged.
    :raises ConfigError: An unknown backend, or one that cannot use the device.
    :raises SetupError: ONNX Runtime is not installed.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"`backend`: {unknown_name('way to run SaT', backend, get_args(Backend))}")
    if tokenizer is None:
        is_beside = any((Path(model) / file).is_file() for file in _TOKENIZER_FILES)
        tokenizer = model if is_beside else _TOKENIZER
    if backend == "onnx":
        with _told_plainly(model, tokenizer, "model_optimized.onnx"):
            from transformers import AutoTokenizer

            loaded_tokenizer = AutoTokenizer.from_pretrained(str(tokenizer))
        return _OnnxSat(model, tokenizer, device), loaded_tokenizer
    if Path(model).is_dir() and not _has_torch_weights(Path(model)) and (onnx := _find_onnx(Path(model))):
        raise CheckpointError(f"{model} holds {onnx.name}, but no model.safetensors. Take the backend onnx.")
    with _told_plainly(model, tokenizer, "model.safetensors"):
        from wtpsplit import SaT

        sat = SaT(str(model), tokenizer_name_or_path=str(tokenizer))
    return _TorchSat(sat.model, device), sat.tokenizer


class _TorchSat:
    def __init__(self, wrapper: Any, device: torch.device) -> None:
        """:param wrapper: Of wtpsplit, which takes and gives arrays."""
        self._wrapper = wrapper
        wrapper.model.to(device).eval()
        self.device = str(next(wrapper.model.parameters()).device)

    def __call__(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        return self._wrapper(attention_mask=mask_BT, input_ids=ids_BT)["logits"][..., 0].astype(np.float32)


class _OnnxSat:
    def __init__(self, model: str | Path, tokenizer: str | Path, device: torch.device) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise SetupError('ONNX Runtime is not installed: pip install "lexalcm[onnx]".') from None
        wanted, present = _PROVIDERS[device.type], onnxruntime.get_available_providers()
        if wanted not in present:
            raise ConfigError(
                f"ONNX Runtime cannot use the device {device}: it has {', '.join(present)}, but not {wanted}. "
                f"Install onnxruntime-gpu, or take the device cpu or the backend torch."
            )
        options = {"device_id": str(device.index or 0)} if device.type == "cuda" else {}
        with _told_plainly(model, tokenizer, "model_optimized.onnx"):
            file = _find_onnx(Path(model)) if Path(model).is_dir() else _fetch_onnx(str(model))
            if file is None:
                raise FileNotFoundError(f"there is neither {' nor '.join(_ONNX_FILES)} in the folder.")
            self._session = onnxruntime.InferenceSession(str(file), providers=[(wanted, options)])
        # ONNX Runtime falls back to the CPU in silence.
        if self._session.get_providers()[0] != wanted:
            raise ConfigError(f"ONNX Runtime could not start on the device {device}. Take the device cpu.")
        self._types = {given.name: _NUMPY_TYPES[given.type] for given in self._session.get_inputs()}
        self.device = str(device)

    def __call__(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids_BT, "attention_mask": mask_BT}
        (logits_BTL,) = self._session.run(
            ["logits"], {name: array.astype(self._types[name]) for name, array in given.items()}
        )
        return logits_BTL[..., 0].astype(np.float32)


def _has_torch_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _find_onnx(folder: Path) -> Path | None:
    return next((folder / name for name in _ONNX_FILES if (folder / name).is_file()), None)


def _fetch_onnx(name: str) -> Path:
    from transformers.utils import cached_file

    return Path(cached_file(f"{_HUB}/{name}", _ONNX_FILES[0]))


@contextmanager
def _told_plainly(model: str | Path, tokenizer: str | Path, file: str) -> Iterator[None]:
    try:
        yield
    # A missing tokenizer is a TypeError inside transformers, a damaged file what its reader happens to raise.
    except Exception as ex:
        reason = str(ex).partition("\n")[0]
        raise CheckpointError(
            f'The SaT model "{model}" with tokenizer "{tokenizer}" cannot be loaded: {reason}\n'
            f"Without a network, give a folder (--segmenter-path) that holds both: config.json and {file} of a model of "
            f"{_HUB}, and the tokenizer of {_TOKENIZER}.\nOr split by rules, which need no model: --segmenter rules."
        ) from ex
