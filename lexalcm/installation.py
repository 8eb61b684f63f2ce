"""Can this installation run at all? One line that names what is wrong, instead of a traceback from a shared library.

``python -m lexalcm.installation`` links the libsndfile that the ``soundfile`` wheel carries into the environment's
``lib`` folder, where fairseq2's native library looks for it. Nothing here imports torch or fairseq2.
"""

from __future__ import annotations

import os
import platform
import site
import sys
from ctypes import CDLL, RTLD_GLOBAL
from importlib.metadata import EntryPoint, PackageNotFoundError, distributions, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from lexalcm.errors import LexalcmError, SetupError

DOCTOR: Final = "`fairseq2 lcm doctor` shows the whole picture."
"""How every message about a broken installation ends."""

_FIX_VERSIONS: Final = "pip install --force-reinstall"


def check_setup() -> None:
    """Checks that torch, fairseq2n and fairseq2 fit each other and that libsndfile can be loaded.

    Costs a few milliseconds. Call it before the first import of torch or fairseq2.

    :raises SetupError: a part is missing or of another version; the text gives the command that mends it.
    """
    _check_versions()
    find_libsndfile()


def _check_versions() -> None:
    for package, required_by in (("fairseq2", "lexalcm"), ("fairseq2n", "fairseq2"), ("torch", "fairseq2n")):
        wanted = requirement(package, of=required_by) or ""
        found = installed_version(package)
        if found is None:
            raise SetupError(f"{package} is not installed. Run: pip install '{package}{wanted}'\n{DOCTOR}")
        if not satisfies(found, wanted):
            raise SetupError(
                f"{package} {found} is installed, but {required_by} {installed_version(required_by)} needs "
                f"{package}{wanted}. Run: {_FIX_VERSIONS} '{package}{wanted}'\n{DOCTOR}"
            )


def installed_version(package: str) -> str | None:
    """Returns ``None`` too where an interrupted installation has left a distribution without its metadata."""
    try:
        return version(package) or None
    # What is missing from a broken distribution differs between releases of Python.
    except (PackageNotFoundError, KeyError, TypeError):
        return None


def requirement(package: str, *, of: str) -> str | None:
    """Returns what the installed distribution ``of`` asks of ``package``, such as ``==2.9.1``, which may be empty.

    ``None`` where it does not ask for it, or is itself run from a source tree without installation metadata.

    :raises SetupError: The package that reads requirements is missing.
    """
    try:
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.utils import canonicalize_name
    except ImportError as ex:
        raise SetupError(f"packaging cannot be imported: {ex}. Run: {_FIX_VERSIONS} packaging\n{DOCTOR}") from ex

    try:
        lines = requires(of) or []
    except PackageNotFoundError:
        return None
    for line in lines:
        try:
            found = Requirement(line)
        except InvalidRequirement:
            continue  # of an old distribution; pip passes over it too
        is_asked = found.marker is None or found.marker.evaluate({"extra": ""})
        if canonicalize_name(found.name) == canonicalize_name(package) and is_asked:
            return str(found.specifier)
    return None


def installed_entries(group: str) -> tuple[list[EntryPoint], list[tuple[str, str]]]:
    """Returns the entry points of a group, and the names of distributions whose list of them is broken, with the reason."""
    entries: list[EntryPoint] = []
    broken: list[tuple[str, str]] = []
    for distribution in distributions():
        try:
            entries += distribution.entry_points.select(group=group)
        # A damaged file fails in the ways of the parser, which differ between releases of Python.
        except Exception as ex:
            broken.append((distribution.metadata["Name"] or "an unknown distribution", f"{type(ex).__name__}: {ex}"))
    return entries, broken


def satisfies(found: str, specifier: str) -> bool:
    """Whether a version fits, such as ``2.9.1+cpu`` what ``==2.9.1`` asks: the local label names the build."""
    if not specifier:
        return True
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(specifier).contains(Version(found).public, prereleases=True)
    except InvalidVersion:
        return False


def _library_name() -> str:
    return "libsndfile.1.dylib" if platform.system() == "Darwin" else "libsndfile.so.1"


def _searched_paths() -> list[Path]:
    """Returns where fairseq2n looks after the system's linker path, in its order."""
    packages = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    paths = [Path(folder).parent.parent / _library_name() for folder in (*packages, *site.getsitepackages())]
    if platform.system() == "Darwin" and "CONDA_PREFIX" not in os.environ:
        paths = [Path(folder) / _library_name() for folder in ("/usr/local/lib", "/opt/homebrew/lib")] + paths
    return list(dict.fromkeys(paths))


def _loads(library: str | Path) -> bool:
    try:
        CDLL(str(library), mode=RTLD_GLOBAL)
    except OSError:
        return False
    return True


def find_libsndfile() -> str:
    """Loads the library as fairseq2n will, and returns its name, or the path of one that the linker does not know.

    :raises SetupError: There is none; names the places searched and the command that mends it.
    """
    in_conda = "CONDA_PREFIX" in os.environ  # there, fairseq2n ignores the system's linker path
    if not in_conda and _loads(_library_name()):
        return _library_name()
    for path in _searched_paths():
        if _loads(path):
            return str(path)
    bundled = bundled_libsndfile()
    # Once loaded under its own name, the library is found again by that name when fairseq2n asks for it.
    if bundled is not None and not in_conda and _loads(bundled) and _loads(_library_name()):
        return str(bundled)
    searched = ", ".join(str(path) for path in _searched_paths())
    if bundled is not None:
        command = f"{sys.executable} -m lexalcm.installation"
    elif in_conda:
        command = "conda install -c conda-forge libsndfile"
    else:
        command = "pip install --force-reinstall --no-deps soundfile"
    raise SetupError(
        f"{_library_name()}, which fairseq2 needs, is not among the system's libraries nor at {searched}. "
        f"Run: {command}\n{DOCTOR}"
    )


def bundled_libsndfile() -> Path | None:
    """Returns the library inside the ``soundfile`` wheel for this machine, or ``None``."""
    spec = find_spec("_soundfile_data")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0])
    names = {"x86_64": ("x86_64",), "amd64": ("x86_64",), "aarch64": ("arm64", "aarch64"), "arm64": ("arm64",)}
    suffix = ".dylib" if platform.system() == "Darwin" else ".so"
    for name in names.get(platform.machine().lower(), ()):
        path = folder / f"libsndfile_{name}{suffix}"
        if path.is_file():
            return path
    return None


def link_libsndfile() -> Path | None:
    """Links the bundled libsndfile into ``<environment>/lib`` when fairseq2n would find none. Returns the link made."""
    if "CONDA_PREFIX" not in os.environ and _loads(_library_name()):
        return None
    if any(_loads(path) for path in _searched_paths()):
        return None
    bundled = bundled_libsndfile()
    link = Path(site.getsitepackages()[0]).parent.parent / _library_name()
    if bundled is None:
        raise SetupError(
            f"The soundfile package has no libsndfile for {platform.system()} {platform.machine()}. "
            "Install it with the system's package manager (apt install libsndfile1, brew install libsndfile)."
        )
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(bundled, link.parent))
    return link


def _main() -> int:
    try:
        link = link_libsndfile()
        check_setup()
    except LexalcmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"linked {link}" if link else "libsndfile is there already")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
