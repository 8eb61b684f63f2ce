"""Where the shipped cards and recipes lie: beside the package in a clone, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lexalcm.errors import SetupError


def shipped_folder(name: Literal["cards", "recipes"]) -> Path:
    """Returns the folder of the shipped ``cards`` or ``recipes``.

    :raises SetupError: the installation has no such folder.
    """
    package = Path(__file__).resolve().parent
    # The wheel's place comes first: next to an installed package lie other distributions' folders.
    for folder in (package / "_shipped" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise SetupError(
        f"The shipped {name} are missing: looked for {package / '_shipped' / name} and {package.parent / name}.\n"
        "Run: pip install --force-reinstall --no-deps lexalcm"
    )
