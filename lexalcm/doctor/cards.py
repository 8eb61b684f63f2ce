"""The folders that cards of the user's own lie in. What is broken there is passed over, with a line in the log."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from lexalcm.doctor.finding import Finding, first_line
from lexalcm.shipped import shipped_folder

_SECONDS_READING: Final = 2.0
_MOST_LISTED: Final = 3
_NAME: Final = re.compile(r"^name:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
_FIRST: Final = ("fairseq2",)
_PACKAGED: Final = {"fairseq2": "assets/cards", "sonar": "cards"}


def asset_folders(environment: Mapping[str, str] = os.environ) -> dict[str, tuple[Path, Path | None]]:
    """Where fairseq2 looks for cards, by variable: the folder, and one that the variable names but that is not there."""
    config = Path(environment.get("XDG_CONFIG_HOME") or "~/.config") / "fairseq2" / "assets"
    folders = {}
    for name, usual in (("FAIRSEQ2_ASSET_DIR", Path("/etc/fairseq2/assets")), ("FAIRSEQ2_USER_ASSET_DIR", config)):
        given = Path(environment[name]).expanduser() if environment.get(name) else None
        is_there = given is not None and given.exists()
        folders[name] = (given if is_there else usual.expanduser(), None if is_there else given)
    return folders


def look_at_cards(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """The cards that ship, and those in the user's folders."""
    known = shipped_names()
    yield Finding("ok", "cards", f"{len(known)} cards ship with lexalcm, fairseq2 and sonar-space")
    for variable, (folder, missing) in asset_folders(environment).items():
        if missing is not None:
            text = f"{variable}={missing} is not there, and fairseq2 passes over it"
            yield Finding("warning", "cards", text, f"mkdir -p {missing}, or correct {variable}")
        if not folder.exists():
            if missing is None:
                yield Finding("ok", "cards", f"{variable}: {folder}, not there (none needed)")
            continue
        faults, num_cards, is_whole = _look_into(folder, known)
        for file, fault in faults[:_MOST_LISTED]:
            yield Finding("warning", "cards", f"{file}: {fault}", f"correct it, or move it out of {folder}")
        if (more := len(faults) - _MOST_LISTED) > 0:
            yield Finding("warning", "cards", f"{more} more such files lie in {folder}", f"move them out of {folder}")
        if not is_whole:
            text = f"{folder} holds so many YAML files that not all were read; fairseq2 reads them at every start"
            yield Finding("warning", "cards", text, "name a folder that holds cards alone")
        elif not faults:
            yield Finding("ok", "cards", f"{variable}: {folder}, {num_cards} cards")


def shipped_names() -> dict[str, str]:
    """The names of all cards that packages bring, each with its package; read without any of them being imported."""
    folders = {"lexalcm": shipped_folder("cards")}
    for package, inside in _PACKAGED.items():
        spec = find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec is not None else []:
            folders[package] = Path(location) / inside
    names = {}
    for package, folder in folders.items():
        for file in _yaml_files(folder):
            for name in _NAME.findall(file.read_text(encoding="utf-8", errors="replace")):
                names[_canonical(name)] = package
    return names


def _look_into(folder: Path, known: dict[str, str]) -> tuple[list[tuple[Path, str]], int, bool]:
    """Returns the files that are broken, each with its fault, the number of cards, and whether all files were read.

    :param known: Names of cards with where they come from; those of the folder are added.
    """
    faults: list[tuple[Path, str]] = []
    here: dict[str, list[Path]] = defaultdict(list)
    deadline = time.monotonic() + _SECONDS_READING
    is_whole = True
    for file in _yaml_files(folder):
        if time.monotonic() > deadline:
            is_whole = False
            break
        names, fault = _names_in(file)
        if fault is not None:
            faults.append((file, fault))
        for name in names:
            if name in known:
                # fairseq2 looks into its own cards first, then into these folders, then into those of other packages.
                rule = "that one counts" if known[name] in _FIRST or known[name].startswith("/") else "this one counts"
                faults.append((file, f'"{name.removesuffix("@")}" is a card of {known[name]} too; {rule}'))
            elif here[name]:
                faults.append((file, f'"{name.removesuffix("@")}" is a card of {here[name][0]} too; that one counts'))
            here[name].append(file)
    known |= {name: str(folder) for name in here}
    return faults, sum(map(len, here.values())), is_whole


def _names_in(file: Path) -> tuple[list[str], str | None]:
    """The names of a file's cards, and what is wrong with the first that has none."""
    from lexalcm.yaml_text import parse_yaml

    try:
        documents = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as ex:
        return [], f"passed over, since it cannot be read as YAML: {first_line(ex)}"
    names = []
    for number, document in enumerate(documents, start=1):
        name = document.get("name") if isinstance(document, dict) else None
        if not isinstance(name, str) or not name.strip() or name.strip().startswith("@") or name.count("@") > 1:
            what = "has no name" if isinstance(document, dict) else "is not a mapping"
            return names, f"passed over, since card {number} {what}"
        names.append(_canonical(name))
    return names, None


def _canonical(name: str) -> str:
    """As fairseq2 compares names: behind the ``@`` stands the environment that the card is for."""
    plain, _, environment = name.partition("@")
    return f"{plain.strip()}@{environment.strip()}"


def _yaml_files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for root, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(root) / file for file in sorted(files) if file.endswith((".yaml", ".yml")))
