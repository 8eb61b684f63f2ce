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
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from lexalcm.errors import LexalcmError, SetupError

_FIX_VERSIONS = "pip install --force-reinstall"


def check_setup() -> None:
    """Checks that torch, fairseq2n and fairseq2 fit each other and that libsndfile can be loaded.

    Costs a few milliseconds. Call it before the first import of torch or fairseq2.

    :raises SetupError: a part is missing or of another version; the text gives the command that mends it.
    """
    _check_versions()
    _check_libsndfile()


def _check_versions() -> None:
    for package, required_by in (("fairseq2", "lexalcm"), ("fairseq2n", "fairseq2"), ("torch", "fairseq2n")):
        wanted = _requirement(package, of=required_by)
        try:
            found = version(package)
        except PackageNotFoundError:
            raise SetupError(f"{package} is not installed. Run: pip install '{package}{wanted}'") from None
        if not _satisfies(found, wanted):
            raise SetupError(
                f"{package} {found} is installed, but {required_by} {version(required_by)} needs {package}{wanted}. "
                f"Run: {_FIX_VERSIONS} '{package}{wanted}'"
            )


def _requirement(package: str, *, of: str) -> str:
    """Returns the version specifier that the installed distribution ``of`` asks of ``package``, such as ``==2.9.1``."""
    from packaging.requirements import Requirement

    try:
        lines = requires(of) or []
    except PackageNotFoundError:
        return ""  # run from a source tree without installation metadata: nothing is asked
    for line in lines:
        requirement = Requirement(line)
        if requirement.name == package and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            return str(requirement.specifier)
    return ""


def _satisfies(found: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    # `2.9.1+cpu` is the same release as `2.9.1`: the local label names the build.
    return SpecifierSet(specifier).contains(Version(found).public, prereleases=True)


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


def _check_libsndfile() -> None:
    in_conda = "CONDA_PREFIX" in os.environ  # there, fairseq2n ignores the system's linker path
    if not in_conda and _loads(_library_name()):
        return
    if any(_loads(path) for path in _searched_paths()):
        return
    bundled = bundled_libsndfile()
    # Once loaded under its own name, the library is found again by that name when fairseq2n asks for it.
    if bundled is not None and not in_conda and _loads(bundled) and _loads(_library_name()):
        return
    searched = ", ".join(str(path) for path in _searched_paths())
    if bundled is not None:
        command = f"{sys.executable} -m lexalcm.installation"
    elif in_conda:
        command = "conda install -c conda-forge libsndfile"
    else:
        command = "pip install --force-reinstall --no-deps soundfile"
    raise SetupError(
        f"{_library_name()}, which fairseq2 needs, is not among the system's libraries nor at {searched}. Run: {command}"
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
