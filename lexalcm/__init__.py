"""Large Concept Models on fairseq2. Public names load on first use, so that importing the package costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lexalcm.checkpoints.load import load_model
    from lexalcm.extension import setup_fairseq2_extension
    from lexalcm.recipes.generator import load_generator

__version__ = "0.1.0"

__all__ = ["__version__", "load_generator", "load_model", "setup_fairseq2_extension"]

_HOMES = {
    "load_generator": "lexalcm.recipes.generator",
    "load_model": "lexalcm.checkpoints.load",
    "setup_fairseq2_extension": "lexalcm.extension",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lexalcm.installation import check_setup

    check_setup()
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
