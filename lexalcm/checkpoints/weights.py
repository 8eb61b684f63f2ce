"""The tensors of a checkpoint, and whether they are those of the model that a card describes.

What is compared is names, shapes and kinds of numbers: files are mapped into memory, and their numbers stay there until
they are copied into a model.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Final

import torch
from fairseq2.error import NotSupportedError
from fairseq2.gang import Gangs, create_fake_gangs
from fairseq2.model_checkpoint import CorruptModelCheckpointError
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import Module

from lexalcm.checkpoints.consolidate import iter_model_state
from lexalcm.checkpoints.described import DescribedModel
from lexalcm.checkpoints.locate import WEIGHT_SUFFIXES
from lexalcm.checkpoints.safetensors_file import read_safetensors_header
from lexalcm.checkpoints.torch_file import read_torch_file
from lexalcm.errors import CheckpointError, ConfigError, innermost
from lexalcm.shown import shown

_CPU: Final = torch.device("cpu")
_MOST_LISTED: Final = 6
_MOST_LAYERS: Final = 1_000
_LARGEST_SIZE: Final = 1 << 48


def check_weights(described: DescribedModel, path: Path) -> Module:
    """Compares a checkpoint with the model that a card describes, without loading it.

    :returns: That model, without numbers: on the meta device if its family can be built there.
    :raises CheckpointError: It is damaged, of another kind, or another model's.
    :raises ConfigError: The configuration cannot be honoured.
    """
    gangs = create_fake_gangs(_CPU)
    with _silence():  # who builds the model in earnest says what there is to say
        model = create_model(described, gangs, torch.float32, meta=described.family.supports_meta)
    read_weights(described, path, model)
    return model


def create_model(described: DescribedModel, gangs: Gangs, dtype: torch.dtype, *, meta: bool) -> Module:
    """:raises ConfigError: The configuration cannot be honoured."""
    _check_sizes(described.config, described.where)
    try:
        return described.family.create_new_model(described.config, gangs, dtype, meta=meta, init_rank0_only=False)
    except ConfigError as ex:
        raise ConfigError(f"{described.where}: {ex}") from ex
    # Sizes that no tensor can have: what they run into first depends on the layer.
    except (RuntimeError, MemoryError, OverflowError) as ex:
        raise ConfigError(f"{described.where}: no model can be built with its configuration: {shown(ex)}.") from ex


def _check_sizes(config: object, where: str) -> None:
    """A number in a stranger's card is enough to keep a machine building layers for ever."""
    for field in fields(config) if is_dataclass(config) else ():
        value = getattr(config, field.name)
        if field.name.endswith("layers") and isinstance(value, int) and value > _MOST_LAYERS:
            raise ConfigError(f"{where}: `{field.name}` is {value:,}, of {_MOST_LAYERS:,} layers at most.")
        if isinstance(value, int) and value > _LARGEST_SIZE:
            raise ConfigError(f"{where}: `{field.name}` is {shown(value)}, of {_LARGEST_SIZE:,} at most.")
        _check_sizes(value, where)


def read_weights(described: DescribedModel, path: Path, model: Module) -> Iterable[tuple[str, Tensor]]:
    """Reads a checkpoint under the names of the model's own state; parts of ranks are joined one tensor at a time.

    :param path: As :func:`lexalcm.checkpoints.locate.locate_weights` returns it.
    :param model: Built from ``described``, on any device.
    :raises CheckpointError: It is damaged, of another kind, or another model's.
    """
    wanted = model.state_dict(keep_vars=True)
    if (path / "pp_00").is_dir():
        return iter_model_state(path.parent, {name: value.shape for name, value in wanted.items()})
    _check_files(path)
    try:
        with _silence():  # it builds the model once more
            tensors = described.family.iter_checkpoint(
                path, described.config, create_fake_gangs(_CPU), mmap=_can_be_mapped(path), restrict=True
            )
        found = dict(tensors)
    except CheckpointError as ex:
        raise CheckpointError(f"{described.where}: {path}: {ex}") from ex
    except (CorruptModelCheckpointError, NotSupportedError, SafetensorError, OSError) as ex:
        raise CheckpointError(f"{described.where}: {path} cannot be read: {innermost(ex)}") from ex
    _compare(found, wanted, described, path)
    return found.items()


def _check_files(path: Path) -> None:
    if path.is_dir():
        for file in sorted(path.glob("*.safetensors")):
            read_safetensors_header(file)
    elif path.suffix == ".safetensors":
        read_safetensors_header(path)
    elif path.suffix in WEIGHT_SUFFIXES:
        read_torch_file(path, mmap=True)
    elif path.exists():
        raise CheckpointError(f"checkpoint `{path}` must end in one of {', '.join(WEIGHT_SUFFIXES)}.")


def _can_be_mapped(path: Path) -> bool:
    """Files of PyTorch before 1.6 can not, nor can what lies in a bucket."""
    if path.is_dir() or path.suffix == ".safetensors":
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _compare(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], described: DescribedModel, path: Path) -> None:
    for name, value in found.items():
        if name not in wanted:
            continue
        expected = wanted[name]
        if value.shape != expected.shape:
            raise CheckpointError(
                f"{path}: `{name}` has the shape {list(value.shape)}, but by {described.where} the model's is "
                f"{list(expected.shape)}.\nCorrect the sizes in its `model_config`, or name another `checkpoint`."
            )
        if value.is_floating_point() != expected.is_floating_point():
            raise CheckpointError(
                f"{path}: `{name}` holds numbers of the type {_type_name(value)}, but the model's are "
                f"{_type_name(expected)}."
            )
    # A tensor that stands under two names need be there once only.
    given = {id(wanted[name]) for name in found if name in wanted}
    missing = [name for name, value in wanted.items() if name not in found and id(value) not in given]
    unexpected = [name for name in found if name not in wanted]
    if missing or unexpected:
        raise CheckpointError(
            f"{path} is not a checkpoint of the model that {described.where} describes.\n"
            f"missing: {listed(missing)}\nunexpected: {listed(unexpected)}"
        )


def listed(names: Collection[str]) -> str:
    """The first of many names, and how many there are."""
    shown = ", ".join(sorted(names)[:_MOST_LISTED])
    more = f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return f"{shown}{more}" or "none"


def _type_name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


@contextmanager
def _silence() -> Iterator[None]:
    logger = logging.getLogger("fairseq2")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
