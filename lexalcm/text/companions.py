"""Imports a package that does the work of a room, or says in one message which release does not fit beside which."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Final

from lexalcm.errors import SetupError, innermost
from lexalcm.installation import DOCTOR, installed_version, requirement

_BESIDE: Final = ("fairseq2", "torch")


def import_companion(module: str, *, package: str) -> ModuleType:
    """
    :param package: What ``pip`` calls the distribution that holds the module.
    :raises SetupError: It is not installed, or cannot be imported; names its version, those of what it stands on, what
        each must be, and the command that mends it.
    """
    try:
        return import_module(module)
    # Releases that do not fit fail in any way: a name that has moved, an attribute, a library that cannot be loaded.
    except Exception as ex:
        needed = requirement(package, of="lexalcm") or ""
        command = f"pip install --force-reinstall '{package}{needed}'"
        if (found := installed_version(package)) is None and isinstance(ex, ModuleNotFoundError):
            raise SetupError(
                f"{package}{needed} is needed here, but is not installed. Run: {command}\n{DOCTOR}"
            ) from ex
        reason = innermost(ex).strip().partition("\n")[0]
        wanted = [(package, needed), *((name, requirement(name, of=package)) for name in _BESIDE)]
        needs = [f"{name}{what}, found {installed_version(name)}" for name, what in wanted if what is not None]
        raise SetupError(
            f"{package} {found} cannot be imported: {reason}\nNeeded: {'; '.join(needs)}. Run: {command}\n{DOCTOR}"
        ) from ex
