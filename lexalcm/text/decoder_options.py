"""How SONAR's decoder looks for a sentence: beam search, or sampling once ``top_p`` is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lexalcm.errors import ConfigError, unknown_name

_OTHER_NAMES: Final = {"max_gen_len": "max_length", "max_seq_len": "max_length", "min_gen_len": "min_length"}
_OF_BEAM_SEARCH: Final = ("beam_size", "len_penalty")
_OF_SAMPLING: Final = ("top_p", "seed")


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Read from what a user gives by :func:`read_decoder_options`."""

    beam_size: int = 5
    """Of beam search: sentences in the making."""

    len_penalty: float = 1.0
    """Of beam search: above 1 favours long sentences, below 1 short ones."""

    top_p: float | None = None
    """Samples each token from the likeliest ones that have this probability together; None is beam search."""

    seed: int = 0
    """Of sampling."""

    temperature: float = 1.0
    """Divides the logits: below 1 sharpens what the decoder believes."""

    unk_penalty: float = 0.0
    """Above 0 makes unknown characters rarer."""

    min_length: int = 1
    """In tokens, the end mark included."""

    max_length: int | None = None
    """In tokens, the end mark included; None is 256, or what the decoder can write if that is less."""

    def used(self) -> dict[str, Any]:
        """What is in force, as plain values: a beam search has no seed, sampling no beam."""
        sampling = self.top_p is not None
        unused = _OF_BEAM_SEARCH if sampling else _OF_SAMPLING
        values = {name: value for name, value in vars(self).items() if name not in unused}
        return {"method": "top_p" if sampling else "beam_search", **values}


_KINDS: Final[dict[str, type]] = {
    "beam_size": int,
    "len_penalty": float,
    "top_p": float,
    "seed": int,
    "temperature": float,
    "unk_penalty": float,
    "min_length": int,
    "max_length": int,
}
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "beam_size": (1, 1000),
    "top_p": (0, 1),
    "seed": (0, 2**63 - 1),
    "temperature": (0, math.inf),
    "min_length": (1, math.inf),
    "max_length": (1, math.inf),
}
_ABOVE_LEAST: Final = ("top_p", "temperature")


def read_decoder_options(given: Mapping[str, Any]) -> DecoderOptions:
    """
    :param given: Values by name; text is read as a number, so that what follows ``--decoder-option`` can be passed.
    :raises ConfigError: An unknown name, a value that is no number or out of its range, or one of beam search beside
        ``top_p``.
    """
    values = {name: _read(name, value) for name, value in given.items() if _known(name) and value is not None}
    # A seed is often set for all of a run, and beam search keeps its promise: the same sentence again.
    if "top_p" in values and (idle := [name for name in _OF_BEAM_SEARCH if name in values]):
        raise ConfigError(
            f"Decoder option `{idle[0]}` belongs to beam search, but `top_p` asks for sampling. Leave one of them out."
        )
    options = DecoderOptions(**values)
    if options.max_length is not None and options.min_length > options.max_length:
        raise ConfigError(
            f"Decoder option `min_length` is {options.min_length}, more than `max_length`, {options.max_length}."
        )
    return options


def _known(name: str) -> bool:
    if name in _KINDS:
        return True
    if name in _OTHER_NAMES:
        raise ConfigError(f"Decoder option `{name}` is called `{_OTHER_NAMES[name]}` here, and counts tokens.")
    raise ConfigError(unknown_name("decoder option", name, _KINDS))


def _read(name: str, value: Any) -> int | float:
    kind = _KINDS[name]
    number = _number(value)
    if number is None or (kind is int and number != int(number)):
        expected = "a whole number" if kind is int else "a number"
        raise ConfigError(f"Decoder option `{name}` must be {expected}, but is {value!r}.")
    least, most = _RANGES.get(name, (-math.inf, math.inf))
    above = name in _ABOVE_LEAST
    if not least <= number <= most or (above and number == least):
        limits = f"{'above' if above else 'at least'} {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
        raise ConfigError(f"Decoder option `{name}` must be {limits}, but is {value!r}.")
    return kind(number)


def _number(value: Any) -> int | float | None:
    """None for what is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
        value = int(value)
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
