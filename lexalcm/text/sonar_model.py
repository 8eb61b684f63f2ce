"""Loads SONAR's models and tokenizers by card, in the memory that their weights take in the data type asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import Module

from lexalcm.errors import CardError, CheckpointError, ConfigError, innermost, near_match
from lexalcm.memory import check_fits, format_bytes

if TYPE_CHECKING:
    from fairseq2.assets import AssetCard

_NO_MEMORY: Final = ("unable to mmap", "can't allocate memory", "Cannot allocate memory", "out of memory")


def load_sonar_model(card_name: str, kls: type[Module], *, device: torch.device, dtype: torch.dtype) -> Module:
    """Loads a model for inference.

    The checkpoint is mapped into memory and copied weight by weight: no second copy of it is made, in float32 or else.

    :raises CardError: No such card, or the card of something else.
    :raises CheckpointError: The weights are not there and cannot be fetched, or are damaged.
    :raises ConfigError: The weights do not fit in memory; the text says how much they need and how much there is.
    """
    from fairseq2.gang import create_fake_gangs
    from fairseq2.models import ModelFamily
    from fairseq2.runtime.dependency import get_dependency_resolver

    card = _find_card(card_name)
    resolver = get_dependency_resolver()
    family_field = card.maybe_get_field("model_family")
    family_name = "" if family_field is None else family_field.as_(str)
    family = resolver.maybe_resolve(ModelFamily, key=family_name)
    if family is None or not issubclass(family.kls, kls):
        raise CardError(f'Card "{card_name}" is not one of a SONAR text model: its `model_family` is "{family_name}".')
    what = f'The SONAR model of card "{card_name}"'
    gangs = create_fake_gangs(device)
    with _told_plainly(card_name, "model"):
        size = _num_bytes(family.create_new_model(family.get_model_config(card), gangs, dtype, True, False))
        check_fits(size, device, what=what)
        try:
            return family.load_model(card, gangs, dtype, None, False, mmap=True).eval()
        except Exception as ex:
            reason = innermost(ex)
            if isinstance(ex, MemoryError) or any(words in reason for words in _NO_MEMORY):
                raise ConfigError(f"{what} needs {format_bytes(size)} of memory, and did not get it: {reason}") from ex
            raise


def load_sonar_tokenizer(card_name: str) -> Any:
    """:returns: fairseq2's ``Tokenizer``.
    :raises CardError: No such card, or the card of something else.
    :raises CheckpointError: The tokenizer's file is not there and cannot be fetched, or is damaged.
    """
    from fairseq2.data.tokenizers import load_tokenizer

    card = _find_card(card_name)
    with _told_plainly(card_name, "tokenizer"):
        return load_tokenizer(card)


def _find_card(name: str) -> AssetCard:
    from fairseq2.assets import get_asset_store

    store = get_asset_store()
    if (card := store.maybe_retrieve_card(name)) is not None:
        return card
    near = near_match(name, {known.split("@")[0] for known in store.asset_names})
    raise CardError(f'There is no card "{name}".{near} Cards of your own are found in FAIRSEQ2_ASSET_DIR.')


@contextmanager
def _told_plainly(card_name: str, what: str) -> Iterator[None]:
    from fairseq2.assets import AssetCardError, AssetDownloadError
    from fairseq2.data.tokenizers import TokenizerModelError
    from fairseq2.error import OperationalError
    from fairseq2.models import ModelGatedError

    field = "checkpoint" if what == "model" else "tokenizer"
    try:
        yield
    except (AssetCardError, AssetDownloadError, ModelGatedError, OperationalError, TokenizerModelError, OSError) as ex:
        raise CheckpointError(
            f'The {what} of SONAR card "{card_name}" cannot be loaded: {str(ex).rstrip(".")}.\n'
            f"To use a local copy, put a card into a folder and name that in FAIRSEQ2_ASSET_DIR: "
            f'"name: my_sonar", "base: {card_name}", "{field}: /path/to/file"; then take the card my_sonar.'
        ) from ex


def _num_bytes(model: Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in chain(model.parameters(), model.buffers()))
