"""Imports a package that does the work of a room, or says in one message which release does not fit beside which."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from types import ModuleType
from typing import Final

from lexalcm.errors import SetupError, innermost

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
        needed = _needed_of(package, by="lexalcm") or ""
        command = f"pip install --force-reinstall '{package}{needed}'"
        if (found := _version_of(package)) is None and isinstance(ex, ModuleNotFoundError):
            raise SetupError(f"{package}{needed} is needed here, but is not installed. Run: {command}") from ex
        reason = innermost(ex).strip().partition("\n")[0]
        wanted = [(package, needed), *((name, _needed_of(name, by=package)) for name in _BESIDE)]
        needs = [f"{name}{what}, found {_version_of(name)}" for name, what in wanted if what is not None]
        raise SetupError(
            f"{package} {found} cannot be imported: {reason}\nNeeded: {'; '.join(needs)}. Run: {command}"
        ) from ex


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _needed_of(package: str, *, by: str) -> str | None:
    """What one distribution asks of another, such as ``>=0.5``; ``None`` where it does not ask for it."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in requires(by) or []]
    except PackageNotFoundError:
        return None
    for requirement in requirements:
        if requirement.name == package and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            return str(requirement.specifier)
    return None
