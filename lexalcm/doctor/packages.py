"""The versions that are installed, beside those that are needed and those that this release was tested with.

Reads the metadata of distributions alone, imports none of them.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from lexalcm.doctor.finding import Finding
from lexalcm.installation import installed_version, satisfies

if TYPE_CHECKING:
    from packaging.requirements import Requirement

TESTED: Final[dict[str, tuple[str, ...]]] = {
    "fairseq2": ("0.8.1",),
    "fairseq2n": ("0.8.1",),
    "torch": ("2.9.1",),
    "torchaudio": ("2.9.1",),
    "numpy": ("2.2.6",),
    "pyarrow": ("25.0.1", "26.0.1"),
    "pydantic": ("2.14.4",),
    "safetensors": ("0.8.0",),
    "sonar-space": ("0.5.0",),
    "stopes": ("2.2.1",),
    "transformers": ("4.57.6",),
    "wtpsplit": ("2.2.2",),
}
"""What constraints.txt pins of the packages that the work is done by, which a wheel does not carry. Two versions of one
package are for different releases of Python."""

_OWN: Final = "lexalcm"
_MOST_LISTED: Final = 4


def look_at_versions() -> Iterator[Finding]:
    """The packages of :data:`TESTED`: one line of those that fit, and one for each that does not."""
    if not _can_compare():
        text = "versions cannot be compared: packaging is not installed"
        yield Finding("error", "packaging", text, "pip install packaging")
    yield _own_version()
    fitting: list[str] = []
    specifiers = asked()
    for package, tested in TESTED.items():
        found = installed_version(package)
        wanted = specifiers.get(package, "")
        if found is None:
            yield Finding("error", package, f"{package} is not installed", f"pip install '{package}{wanted}'")
        elif not satisfies(found, wanted):
            mend = f"pip install --force-reinstall '{package}{wanted}'"
            yield Finding("error", package, f"{package} {found} is installed, but {package}{wanted} is needed", mend)
        elif _series(found) not in {_series(version) for version in tested}:
            mend = f"pip install '{package}=={tested[-1]}'"
            text = f"{package} {found} is installed, which was not tried; {' and '.join(tested)} were"
            yield Finding("warning", package, text if len(tested) > 1 else text.replace(" were", " was"), mend)
        else:
            fitting.append(f"{package} {found}" if found.partition("+")[0] in tested else f"{package} {found} (*)")
    if fitting:
        note = (
            "; tested with (*) in another release of the same series" if any("(*)" in part for part in fitting) else ""
        )
        yield Finding("ok", "versions", f"{', '.join(fitting)}{note}")


def look_at_requirements() -> Iterator[Finding]:
    """Everything that stands below lexalcm: what is missing, of a version that does not fit, or there twice."""
    if not _can_compare():
        return
    names, faults = _walk()
    yield from faults[:_MOST_LISTED]
    if (more := len(faults) - _MOST_LISTED) > 0:
        yield Finding("error", "requirements", f"{more} more requirements are not met", "pip check")
    twice = list(_twice(names))
    yield from twice
    if not faults and not twice:
        yield Finding(
            "ok", "requirements", f"{len(names)} packages stand below lexalcm, none missing, none of a wrong version"
        )


def _can_compare() -> bool:
    """Whether the package that compares versions is there. Without it, only what is missing can be told."""
    return find_spec("packaging") is not None


def _own_version() -> Finding:
    from lexalcm import __version__

    found, python = installed_version(_OWN), platform.python_version()
    if found is None:
        text = f"lexalcm {__version__} runs without being installed: fairseq2 does not know its models and cards"
        return Finding("error", _OWN, text, "pip install -c constraints.txt -e .")
    if found != __version__:
        text = f"lexalcm {__version__} runs, but version {found} is what is installed"
        return Finding("warning", _OWN, text, "pip install -c constraints.txt -e .")
    wanted = distribution(_OWN).metadata["Requires-Python"] or ""
    if _can_compare() and not satisfies(python.rstrip("+"), wanted):
        mend = "make a new environment with another Python, such as: make venv PYTHON=python3.11"
        return Finding("error", "python", f"Python {python} runs, but {wanted} is needed", mend)
    return Finding("ok", _OWN, f"lexalcm {found}, Python {python} ({sys.prefix})")


def asked() -> dict[str, str]:
    """What lexalcm and the packages of :data:`TESTED` ask of each of those, together."""
    if not _can_compare():
        return {}
    from packaging.utils import canonicalize_name

    parts: dict[str, list[str]] = {}
    for by in (_OWN, *TESTED):
        if installed_version(by) is None:
            continue
        for wanted in _requirements(distribution(by), frozenset()):
            parts.setdefault(canonicalize_name(wanted.name), []).extend(map(str, wanted.specifier))
    return {name: ",".join(dict.fromkeys(specifiers)) for name, specifiers in parts.items()}


def _series(version: str) -> str:
    """Releases of one series are meant to fit in each other's place: ``2`` of ``2.2.6``, ``0.8`` of ``0.8.1``."""
    parts = version.split(".")
    return parts[0] if parts[0] != "0" else ".".join(parts[:2])


def _walk() -> tuple[set[str], list[Finding]]:
    """The names of all distributions that lexalcm needs, directly or not, and what does not fit among them."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    roots = [_OWN] if installed_version(_OWN) is not None else list(TESTED)
    seen: set[tuple[str, frozenset[str]]] = set()
    faults: dict[str, Finding] = {}
    left = [(Requirement(root), "") for root in roots]
    while left:
        wanted, by = left.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        found = installed_version(wanted.name)
        # Those of TESTED have been told already.
        if key[0] not in TESTED and (found is None or not satisfies(found, str(wanted.specifier))):
            what = f"{wanted.name}{wanted.specifier}"
            text = f"{by} needs {what}, but {'it is not installed' if found is None else f'{found} is installed'}"
            faults.setdefault(key[0], Finding("error", key[0], text, f"pip install '{what}'"))
        if found is not None and key not in seen:
            seen.add(key)
            left += [(other, f"{wanted.name} {found}") for other in _requirements(distribution(wanted.name), key[1])]
    return {name for name, _ in seen} - {_OWN}, list(faults.values())


def _requirements(of: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    from packaging.requirements import InvalidRequirement, Requirement

    for line in of.requires or []:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue  # of an old distribution; pip passes over it too
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield wanted


def _twice(names: set[str]) -> Iterator[Finding]:
    """Distributions whose metadata lie in several places with different versions: what is imported may be either."""
    from packaging.utils import canonicalize_name

    versions: dict[str, dict[str, str]] = {}
    for found in distributions():
        try:
            name, version = found.metadata["Name"], found.version
        except (KeyError, PackageNotFoundError):
            continue
        if name and version and canonicalize_name(name) in {*names, *TESTED, _OWN}:
            versions.setdefault(canonicalize_name(name), {}).setdefault(version, str(found.locate_file("")))
    for name, places in sorted(versions.items()):
        if len(places) > 1:
            listed = ", ".join(f"{version} in {place}" for version, place in places.items())
            yield Finding(
                "warning", name, f"{name} is there twice: {listed}", f"pip uninstall {name}, until none is left"
            )
