"""YAML as fairseq2 reads and writes it: version 1.2, where ``off`` is a text and ``1e-3`` a number."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML, YAMLError


def parse_yaml(text: str) -> list[Any]:
    """Returns the documents of a YAML text, empty ones left out. Tags that would build objects are refused.

    :raises ValueError: Not YAML; the message is one line.
    """
    try:
        return [document for document in YAML(typ="safe", pure=True).load_all(text) if document is not None]
    except YAMLError as ex:
        raise ValueError(" ".join(str(ex).split())[:200]) from None
