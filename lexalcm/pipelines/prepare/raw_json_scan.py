"""Finds where the values of a JSON file begin and end without having all of it in memory."""

from __future__ import annotations

import re
from typing import Final

from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.raw_streams import RawStream

_BLOCK: Final = 2**18
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRUCTURE: Final = re.compile(_STRING + rb'|["\[\]{}]', re.DOTALL)
_WHOLE_STRING: Final = re.compile(_STRING, re.DOTALL)
_SCALAR: Final = re.compile(rb"[^ \t\r\n,:\[\]{}\"]*")
_OPENING: Final = (b"{", b"[")


class JsonScanner:
    """Walks over the values of a stream. What a value holds is not looked at: it is parsed by whoever takes it."""

    def __init__(self, stream: RawStream, *, offset: int, line: int) -> None:
        """
        :param offset: Where the stream stands, and ``line`` which line that is.
        """
        self._stream = stream
        self._buffer = b""
        self._position = 0
        self._base = offset
        self.line = line
        """Of the place reached, from 1."""

    @property
    def offset(self) -> int:
        """Of the place reached."""
        return self._base + self._position

    @property
    def _where(self) -> str:
        return f"{self._stream.file.name}:{self.line}"

    def peek(self) -> str:
        """Goes over white space; returns the next character as text, empty at the end of the file."""
        while True:
            self._go_to(_SPACE.match(self._buffer, self._position).end())  # type: ignore[union-attr]
            if self._position < len(self._buffer):
                return chr(self._buffer[self._position])
            if not self._refill():
                return ""

    def take(self, character: str) -> bool:
        """Goes over ``character`` if it is the next one behind white space."""
        if self.peek() != character:
            return False
        self._position += 1
        return True

    def expect(self, character: str) -> None:
        """:raises DataError: The next one is another."""
        if not self.take(character):
            found = self.peek()
            there = f'"{found}"' if found else "the file ends"
            raise DataError(f'{self._where} is not JSON: "{character}" is expected, but {there}.')

    def value(self) -> bytes:
        """Goes over the next value and returns its bytes.

        :raises DataError: The file ends within it, or there is none.
        """
        first = self.peek()
        if first in ("{", "["):
            end = self._end_of_nested()
        elif first == '"':
            end = self._end_of(_WHOLE_STRING)
        else:
            end = self._end_of(_SCALAR)
        if end == self._position:
            there = f'"{first}"' if first else "the file ends"
            raise DataError(f"{self._where} is not JSON: a value is expected, but {there}.")
        value = self._buffer[self._position : end]
        self._go_to(end)
        return value

    def _end_of(self, pattern: re.Pattern[bytes]) -> int:
        while True:
            found = pattern.match(self._buffer, self._position)
            if found and found.end() < len(self._buffer):
                return found.end()
            if not self._refill():
                if found:
                    return found.end()
                raise self._cut_short()

    def _end_of_nested(self) -> int:
        depth, at = 0, self._position
        while True:
            for token in _STRUCTURE.finditer(self._buffer, at):
                text = token.group()
                if text == b'"':
                    # A string whose end is not in the buffer yet: look at it again.
                    at = token.start()
                    break
                at = token.end()
                if text in _OPENING:
                    depth += 1
                elif text[0] != 0x22:
                    depth -= 1
                    if depth == 0:
                        return at
            at -= self._position
            if not self._refill():
                raise self._cut_short()
            at += self._position

    def _cut_short(self) -> DataError:
        return DataError(
            f"{self._where} is not JSON: what begins there does not end in the file. It is cut short, or a quote "
            f"or bracket is missing."
        )

    def _go_to(self, position: int) -> None:
        self.line += self._buffer.count(b"\n", self._position, position)
        self._position = position

    def _refill(self) -> bool:
        """Reads on, as much as is left over at least, so that long values do not cost time squared."""
        block = self._stream.read(max(_BLOCK, len(self._buffer) - self._position))
        self._base += self._position
        self._buffer = self._buffer[self._position :] + block
        self._position = 0
        return bool(block)
