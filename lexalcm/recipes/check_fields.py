"""Checks plain data against a configuration class before fairseq2 structures it.

fairseq2's converter turns 3.9 into 3, takes ``true`` for an integer, and names a misspelt field only in a traceback.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

from lexalcm.errors import ConfigError, near_match
from lexalcm.shown import has_password, shown


def check_fields(value: object, kls: Any, path: str = "") -> None:
    """Raises :class:`ConfigError`, with the field's path, for the first name or type that does not fit.

    :param kls: A dataclass, or any type annotation made of those it may have.
    """
    if is_dataclass(kls):
        _check_dataclass(value, kls, path)
        return
    origin = get_origin(kls)
    if origin in (Union, types.UnionType):
        _check_union(value, get_args(kls), path)
    elif origin is Literal:
        _require(value in get_args(kls), value, path, "one of " + ", ".join(map(str, get_args(kls))), get_args(kls))
    elif origin in (list, tuple, Sequence) or origin is not None and issubclass(origin, Sequence):
        _check_sequence(value, origin, get_args(kls), path)
    elif origin in (dict, Mapping):
        _require(isinstance(value, Mapping), value, path, "a mapping")
    elif kls is bool:
        _require(isinstance(value, bool), value, path, "true or false")
    elif kls is int:
        _require(isinstance(value, int) and not isinstance(value, bool), value, path, "a whole number")
    elif kls is float:
        _require(isinstance(value, (int, float)) and not isinstance(value, bool), value, path, "a number")
    elif kls in (str, Path):
        _require(isinstance(value, (str, Path)), value, path, "a text")
    elif kls is torch.dtype:
        known = ("float32", "float16", "bfloat16")
        _require(str(value).removeprefix("torch.") in known, value, path, "one of " + ", ".join(known), known)


def refuse_secrets(value: object, path: str) -> None:
    """A recipe is copied into its run's folder, and the place of a dataset into logs and reports.

    :raises ConfigError: A text in ``value`` is a URL with a password in it, or asks for something of the environment.
    """
    if isinstance(value, (str, Path)) and "${" in str(value):
        raise ConfigError(
            f"`{path}` is {shown(value)}, but nothing is substituted here: what the environment holds would be written "
            f"into logs and the run's folder.\nWrite the value itself, or let your shell do it: --config {path}=$NAME"
        )
    if isinstance(value, (str, Path)) and has_password(str(value)):
        raise ConfigError(
            f"`{path}` is {shown(value)}, which holds a password that would be written into logs and the run's folder.\n"
            f"Leave it out of the URL: fsspec takes it from its own configuration (~/.config/fsspec) or the environment."
        )
    if isinstance(value, Mapping):
        for name, item in value.items():
            refuse_secrets(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            refuse_secrets(item, f"{path}[{i}]")


def _check_dataclass(value: object, kls: Any, path: str) -> None:
    if isinstance(value, kls):
        return
    _require(isinstance(value, Mapping), value, path, "a mapping")
    assert isinstance(value, Mapping)
    hints = get_type_hints(kls)
    known = [f.name for f in fields(kls)]
    for name, item in value.items():
        if name not in known:
            where = f"`{path}` has" if path else "The recipe has"
            raise ConfigError(
                f"{where} no field `{shown(name)}`.{near_match(str(name), known)}\nFields: {', '.join(known)}."
            )
        check_fields(item, hints[name], f"{path}.{name}" if path else str(name))


def _check_union(value: object, options: tuple[Any, ...], path: str) -> None:
    if value is None and type(None) in options:
        return
    first_error: ConfigError | None = None
    for option in options:
        if option is type(None):
            continue
        try:
            check_fields(value, option, path)
            return
        except ConfigError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _check_sequence(value: object, origin: Any, items: tuple[Any, ...], path: str) -> None:
    _require(isinstance(value, (list, tuple)), value, path, "a list")
    assert isinstance(value, (list, tuple))
    if origin is tuple and items and items[-1] is not Ellipsis:
        _require(len(value) == len(items), value, path, f"a list of {len(items)} values")
        expected: list[Any] = list(items)
    else:
        expected = [items[0] if items else object] * len(value)
    for i, (item, kls) in enumerate(zip(value, expected)):
        check_fields(item, kls, f"{path}[{i}]")


def _require(fits: bool, value: object, path: str, expected: str, known: tuple[Any, ...] = ()) -> None:
    if not fits:
        hint = near_match(str(value), [str(k) for k in known])
        raise ConfigError(f"`{path or 'recipe'}` must be {expected}, but is {shown(repr(value))}.{hint}")
