"""YAML as fairseq2 reads and writes it: version 1.2, where ``off`` is a text and ``1e-3`` a number.

A text may come from a stranger. What it unfolds to is counted before anything is built, so that reading it is bounded in
time and memory whatever it says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
)

MOST_CHARACTERS: Final = 1 << 20

_MOST_NODES: Final = 50_000
_MOST_LEVELS: Final = 64
"""Cards and recipes have some kilobytes, hundreds of nodes and half a dozen levels."""

_TAG_PREFIX: Final = "tag:yaml.org,2002:"
_PLAIN_TAGS: Final = frozenset(
    ("!", *(f"{_TAG_PREFIX}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")))
)
# A text may have several lines; whatever else steers a terminal, or cannot be written to a file, is no text.
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def parse_yaml(text: str) -> list[Any]:
    """Returns the documents of a YAML text, empty ones left out: texts, numbers, dates, lists and mappings.

    :raises ValueError: Not YAML, or more than plain data of a card's size: a tag that would build an object, an alias
        of what it stands in, control characters, too many nodes or levels. The message is one line.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has more than {MOST_CHARACTERS:,} characters")
    try:
        _check_events(text)
        return [document for document in _reader().load_all(text) if document is not None]
    except YAMLError as ex:
        raise ValueError(" ".join(str(ex).split())[:200]) from None
    except KeyError as ex:  # what `!!bool` makes of another word
        raise ValueError(f"{ex} is not a value of its tag") from None


def read_yaml(file: Path) -> list[Any]:
    """:func:`parse_yaml` of a file in UTF-8.

    :raises ValueError: As there; or it is no file, or no text.
    :raises OSError: It cannot be read.
    """
    if not file.is_file():  # a pipe or device would be read for ever
        raise ValueError("it is not a regular file")
    with file.open(encoding="utf-8") as text:
        return parse_yaml(text.read(MOST_CHARACTERS + 1))


def _reader() -> YAML:
    return YAML(typ="safe", pure=True)


def _check_events(text: str) -> None:
    # The size of what each anchor names, aliases within it unfolded; `None` while it is still open.
    sizes: dict[str, int | None] = {}
    open_nodes: list[_OpenNode] = []
    num_nodes = 0
    for event in _reader().parse(text):
        if isinstance(event, DocumentStartEvent):
            sizes.clear()
        elif isinstance(event, NodeEvent):
            line = event.start_mark.line + 1
            _check_node(event, line)
            if open_nodes and open_nodes[-1].expects_key() and not isinstance(event, ScalarEvent):
                raise ValueError(f"line {line}: a key must be written out as a text or a number")
            if isinstance(event, AliasEvent):
                # One that names nothing is told by the reader.
                size = sizes.get(event.anchor, 0)
                if size is None:
                    raise ValueError(f"line {line}: *{event.anchor} stands within what it names")
                num_nodes += size
            else:
                num_nodes += 1
                is_scalar = isinstance(event, ScalarEvent)
                if event.anchor is not None:
                    sizes[event.anchor] = 1 if is_scalar else None
                if not is_scalar:
                    open_nodes.append(_OpenNode(isinstance(event, MappingStartEvent), event.anchor, num_nodes))
            if num_nodes > _MOST_NODES:
                raise ValueError(f"line {line}: it unfolds to more than {_MOST_NODES:,} values")
            if len(open_nodes) > _MOST_LEVELS:
                raise ValueError(f"line {line}: it is more than {_MOST_LEVELS} levels deep")
        elif isinstance(event, (SequenceEndEvent, MappingEndEvent)):
            ended = open_nodes.pop()
            if ended.anchor is not None:
                sizes[ended.anchor] = num_nodes - ended.num_before + 1


class _OpenNode:
    """A list or mapping that is not over yet."""

    def __init__(self, is_mapping: bool, anchor: str | None, num_before: int) -> None:
        self._is_mapping = is_mapping
        self._num_children = 0
        self.anchor = anchor
        self.num_before = num_before

    def expects_key(self) -> bool:
        """Whether its next child is a key; counts that child."""
        self._num_children += 1
        return self._is_mapping and self._num_children % 2 == 1


def _check_node(event: NodeEvent, line: int) -> None:
    tag = getattr(event, "tag", None)
    if tag is not None and tag not in _PLAIN_TAGS:
        shown = str(tag).replace(_TAG_PREFIX, "!!")
        raise ValueError(f"line {line}: the tag {shown[:80]} would build an object; only plain values are read")
    if isinstance(event, ScalarEvent) and (found := _UNPRINTABLE.search(event.value)) is not None:
        raise ValueError(f"line {line}: a text holds the control character {found[0]!r}")
