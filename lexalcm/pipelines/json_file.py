"""JSON files that are complete whenever they are there, whoever writes them from whichever machine."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from lexalcm.errors import DataError


def write_json(file: Path, data: Any) -> None:
    """Writes plain data aside, and then gives the file its name."""
    aside = file.with_name(f".{file.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    aside.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, file)


def read_json(file: Path) -> Any:
    """:raises DataError: It is missing or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as ex:
        raise DataError(f"{file} cannot be read: {ex}. Begin anew with --overwrite.") from None
