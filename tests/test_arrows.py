"""Imports go one way: lower rooms know nothing of higher ones, and the command line imports nothing heavy."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lexalcm"

LEAVES = {"errors", "device", "layout", "memory", "shipped", "installation", "yaml_text", "shown", "folder_lock", ""}
ALLOWED = {
    "diffusion": set(),
    "models": {"diffusion"},
    "data": set(),
    "text": set(),
    "training": {"models", "diffusion", "data"},
    "generation": {"models", "diffusion", "text", "data"},
    "evaluation": {"models", "diffusion", "data", "generation"},
    "checkpoints": {"models", "diffusion", "training"},
    "pipelines": {"data", "text", "models", "checkpoints"},
    "recipes": {
        "models",
        "diffusion",
        "data",
        "text",
        "training",
        "generation",
        "evaluation",
        "checkpoints",
        "pipelines",
    },
    "extension": {"models", "diffusion", "data", "training", "checkpoints"},
}
HEAVY = {"torch", "fairseq2", "numpy", "pyarrow", "pandas", "sklearn", "safetensors", "pydantic", "matplotlib"}


def imports(file: Path, *, top_level: bool = False) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0] if len(parts) > 1 or parts[0] != "__init__" else ""


def test_arrows_go_one_way() -> None:
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        here = room(file)
        if here in ("cli", ""):
            continue
        for name in imports(file):
            if not name.startswith("lexalcm.") or (target := name.split(".")[1]) == here or target in LEAVES:
                continue
            if target not in ALLOWED.get(here, set()):
                wrong.append(f"{file.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_diffusion_imports_torch_and_the_layout_alone() -> None:
    for file in (PACKAGE / "diffusion").rglob("*.py"):
        for name in imports(file):
            top = name.split(".")[0]
            assert (
                top == "torch"
                or top in sys.stdlib_module_names
                or name.startswith(("lexalcm.diffusion", "lexalcm.errors", "lexalcm.layout"))
            ), f"{file.name} imports {name}"


def test_the_command_line_imports_nothing_heavy() -> None:
    for file in (PACKAGE / "cli").rglob("*.py"):
        for name in imports(file, top_level=True):
            assert name.split(".")[0] not in HEAVY, f"{file.name} imports {name}"
            room_name = name.split(".")[1] if name.startswith("lexalcm.") else ""
            assert room_name in {"cli", *LEAVES}, f"{file.name} imports {name}"
